#!/usr/bin/env python3
"""DeBERTa's attention alone in transformers (eager), beside bench_attention: microseconds a token and layer.

  build/peer/bin/python bench/deberta_attention.py [--heads 12] [--size 64] [--dtype fp32] [--bench PATH]

The module's projections are taken out, of tokens and of the table, so that products with weights are in neither. Rows of
one length, no padding, one thread, dropout 0.1 in both. The two take turns; the least CPU time of each is printed.
bench_attention: cmake -DCOHORT_BENCH=ON.
"""
import argparse
import os
import subprocess
import time

import torch
from transformers import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention, build_relative_position

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def peer(heads, size, length, rows, dtype, rounds):
    hidden = heads * size
    config = DebertaV2Config(hidden_size=hidden, num_attention_heads=heads, relative_attention=True, position_buckets=256,
                             norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
                             max_position_embeddings=512)
    module = DisentangledSelfAttention(config).train()
    torch.manual_seed(1)

    class Part(torch.nn.Module):
        """q, k and v are parts of the input; the table's projections are parts of it, too."""

        def __init__(self, i):
            super().__init__()
            self.i = i

        def forward(self, x):
            return x[..., self.i * hidden:(self.i + 1) * hidden]

    module.query_proj, module.key_proj, module.value_proj = Part(0), Part(1), Part(2)
    module.pos_dropout = torch.nn.Identity()
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    x = torch.randn(rows, length, 3 * hidden, dtype=kind, requires_grad=True)
    table = torch.randn(512, 2 * hidden, dtype=kind, requires_grad=True)
    mask = torch.ones(rows, 1, length, length)
    q = torch.empty(1, length, size)
    positions = build_relative_position(q, q, bucket_size=256, max_position=512)
    best = [1e9, 1e9]
    for _ in range(rounds):
        start = time.process_time()
        out, _ = module(x, mask, relative_pos=positions, rel_embeddings=table)
        middle = time.process_time()
        out.backward(torch.ones_like(out))
        best = [min(best[0], middle - start), min(best[1], time.process_time() - middle)]
    return [b / (rows * length) * 1e6 for b in best]


def ours(bench, heads, size, length, rows, path):
    out = subprocess.run([bench, str(heads), str(rows * length), str(size), str(length), str(path), "1"],
                         capture_output=True, text=True, check=True, env=dict(os.environ, OMP_NUM_THREADS="1")).stdout
    fields = next(line.split() for line in out.splitlines() if line.split()[-3:-2] == ["0.1"])
    return [float(fields[-2]), float(fields[-1])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--path", type=int, default=4, help="of bench_attention: 1 AMX, 2 AVX512-BF16, 3 AVX-512, 4 AVX2")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bench", default=os.path.join(ROOT, "build/release/bench/bench_attention"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{args.heads} heads of {args.size}, {args.dtype}, one thread, dropout 0.1: us a token and layer")
    print(f"{'length':>6} {'transformers':>20} {'cohort':>16} {'ratio':>6}")
    for length in (20, 128, 512):
        rows = max(1, args.tokens // length)
        theirs = peer(args.heads, args.size, length, rows, args.dtype, args.rounds)
        mine = ours(args.bench, args.heads, args.size, length, rows, args.path)
        print(f"{length:6} {theirs[0]:9.1f} + {theirs[1]:8.1f} {mine[0]:7.1f} + {mine[1]:6.1f} "
              f"{sum(theirs) / sum(mine):6.1f}", flush=True)


if __name__ == "__main__":
    main()
