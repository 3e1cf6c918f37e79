"""Every parameter's gradient against PyTorch's: small random BERTs and MiniLM, rows of 1 to 512 tokens.

compare(): fp32 on the CPU. variants(): the same again with layers recomputed, in bf16 with the kernels for AVX-512 (by AVX2,
so on any machine), and on CUDA (emulated) in fp32, bf16 and fp16; 16-bit beside what PyTorch's autocast makes of the same
rows. The programs stand beside the executable (COHORT_LONG_TESTS); one that was not built is a failure.
The error is the norm of the difference of two gradients of a tensor. The key's bias, whose gradient is exactly zero, has
an absolute bound instead of one relative to its norm.
"""
import copy
import os
import random
import subprocess

import numpy
import torch
from safetensors.numpy import load_file

import common

RELATIVE, ABSOLUTE = 1e-4, 1e-7
DUMP = os.path.join(os.path.dirname(common.COHORT), "tests", "long_dump_gradients")
# 16-bit products: the error of a gradient over its norm may be so many times that of PyTorch's autocast, or the least.
TIMES, LEAST = 2.0, {"bf16": 0.02, "fp16": 0.003}


def make_rows(rng, lengths, vocab, labels, first_id=1, types=2):
    """Ids behind the padding's, whose gradient transformers drops. Odd rows are pairs where there are types."""
    rows = []
    for i, n in enumerate(lengths):
        first = n // 2 if i % 2 and types > 1 else n
        rows.append({"ids": [rng.randrange(first_id, vocab) for _ in range(n)], "types": [0] * first + [1] * (n - first),
                     "label": rng.randrange(labels)})
    return rows


def reference(model, rows, dtype=None):
    """Mean cross-entropy over rows, one row at a time; gradients by name in double. dtype: under autocast, the gradients'
    scale that 16 bits need included."""
    scale = 1024.0 if dtype == torch.float16 else 1.0
    model.zero_grad()
    total = 0.0
    for row in rows:
        types = {} if model.config.model_type == "distilbert" else {"token_type_ids": torch.tensor([row["types"]])}
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            logits = model(input_ids=torch.tensor([row["ids"]]), **types).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([row["label"]])) / len(rows)
        (loss * scale).backward()
        total += loss.item()
    return total, {n: p.grad.double().numpy() / scale for n, p in model.named_parameters()}


def worst(got, wanted, noisy):
    """The greatest error of a tensor's gradient over its norm (and whose), and the greatest error of a key's bias."""
    relative, whose, noise = 0.0, "", 0.0
    for name, g in wanted.items():
        norm, error = numpy.linalg.norm(g), numpy.linalg.norm(got[name].astype(numpy.float64) - g)
        if noisy(name):
            noise = max(noise, error)
        elif not error <= relative * norm:
            relative, whose = error / norm, name
    return relative, whose, noise


def dump(scratch, folder, rows, program="", *options):
    """Gradients by name and the loss, as cohort computes them."""
    source, out = os.path.join(scratch, "rows.jsonl"), os.path.join(scratch, "gradients.safetensors")
    if os.path.exists(out):
        os.remove(out)
    common.write_jsonl(source, rows)
    done = subprocess.run([DUMP + program, folder, source, out, *options], capture_output=True, text=True, check=True)
    return float(done.stdout), load_file(out)


def rows_of(what, model, lengths):
    config = model.config
    return make_rows(random.Random(len(what)), lengths, config.vocab_size, config.num_labels, config.pad_token_id + 1,
                     getattr(config, "type_vocab_size", 0))


def compare(report, scratch, what, folder, model, lengths):
    """Returns the greatest error of a gradient over its norm."""
    rows = rows_of(what, model, lengths)
    loss, wanted = reference(model, rows)
    got_loss, got = dump(scratch, folder, rows)
    report.equal(f"{what}: names and shapes of {len(wanted)} gradients", {n: g.shape for n, g in got.items()},
                 {n: g.shape for n, g in wanted.items()})
    report.check(f"{what}: loss", abs(got_loss - loss), 1e-5)
    noisy = common.noise_of(model)
    relative, whose, noise = worst(got, wanted, noisy)
    report.check(f"{what}: greatest error of a gradient over its norm ({whose})", relative, RELATIVE)
    report.check(f"{what}: greatest error of a key's bias", noise, ABSOLUTE)
    _, exact = reference(copy.deepcopy(model).double(), rows)
    report.note(f"{what}: greatest error over norm beside float64: cohort, PyTorch fp32",
                "%.2g, %.2g" % (worst(got, exact, noisy)[0], worst(wanted, exact, noisy)[0]))
    return relative


def same_bits(a, b):
    return a[0] == b[0] and all(numpy.array_equal(g, b[1][name]) for name, g in a[1].items())


def variants(report, scratch, what, folder, model, lengths):
    """By what was varied: the error of a gradient over its norm, or that bits are equal."""
    rows = rows_of(what, model, lengths)
    _, wanted = reference(model, rows)
    noisy, out = common.noise_of(model), {}
    out["recomputed"] = report.equal(f"{what}: with layers recomputed, bits",
                                     same_bits(dump(scratch, folder, rows), dump(scratch, folder, rows, "", "recompute")), True)
    on_cuda = dump(scratch, folder, rows, "_cuda")
    out["CUDA fp32"] = report.check(f"{what}, CUDA: greatest error of a gradient over its norm",
                                    worst(on_cuda[1], wanted, noisy)[0], RELATIVE)
    out["CUDA recomputed"] = report.equal(f"{what}, CUDA with layers recomputed: bits",
                                          same_bits(on_cuda, dump(scratch, folder, rows, "_cuda", "recompute")), True)
    for name, dtype, program in [("bf16", torch.bfloat16, "_wide"), ("CUDA bf16", torch.bfloat16, "_cuda"),
                                 ("CUDA fp16", torch.float16, "_cuda")]:
        peer = worst(reference(model, rows, dtype)[1], wanted, noisy)[0]
        relative, whose, _ = worst(dump(scratch, folder, rows, program, name.split()[-1])[1], wanted, noisy)
        out[name] = report.check(f"{what}, {name}: greatest error of a gradient over its norm ({whose}); PyTorch's autocast {peer:.2g}",
                                 relative, max(TIMES * peer, LEAST[name.split()[-1]]))
    return out


def main(report, scratch):
    sizes = [("hidden 36, heads 3", dict(hidden_size=36, num_attention_heads=3, intermediate_size=50,
                                         max_position_embeddings=40), [1, 7, 40, 13, 2, 39, 16, 17]),
             ("hidden 60, heads 5, gelu_new", dict(hidden_size=60, num_attention_heads=5, intermediate_size=70,
                                                   max_position_embeddings=130, hidden_act="gelu_new"),
              [130, 1, 33, 32, 31, 129, 65]),
             ("hidden 24, one head, relu", dict(hidden_size=24, num_attention_heads=1, intermediate_size=33,
                                                num_hidden_layers=1, max_position_embeddings=512, hidden_act="relu"),
              [512, 3, 1, 257])]
    for i, (what, config, lengths) in enumerate(sizes):
        folder = os.path.join(scratch, f"small-{i}")
        model = common.small_model(folder, [f"label_{k}" for k in range(2 + i)], seed=i, **config)
        compare(report, scratch, what, folder, model, lengths)
    folder = os.path.join(scratch, "minilm")
    model = common.minilm_with_head(folder, ["no", "yes", "maybe"])
    compare(report, scratch, "MiniLM", folder, model, [512, 1, 7, 64, 33, 128, 2, 17])


if __name__ == "__main__":
    common.run_script("gradients", main)
