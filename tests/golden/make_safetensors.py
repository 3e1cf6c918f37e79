"""Writes safetensors_tiny.hex: a file of the Python safetensors package, for tests/ckpt/test_safetensors.c.

Run by hand where torch and safetensors are installed: python make_safetensors.py > safetensors_tiny.hex
"""
import torch
from safetensors.torch import save

tensors = {
    "encoder.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) * 0.5 - 1,
    "half": torch.tensor([1.0, -2.5, 65504.0, 2.0**-24]).half(),
    "brain": torch.tensor([1.0, -2.5, 3.0e38, 1.0e-40]).bfloat16(),
    "double": torch.tensor([0.1, -1.0e300], dtype=torch.float64),
    "ids": torch.tensor([[-1, 2**40]], dtype=torch.int64),
    "scalar": torch.tensor(7.25),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False, True]),
}
data = save(tensors, {"format": "pt", "note": "Grüße"})
for i in range(0, len(data), 40):
    print(data[i : i + 40].hex())
