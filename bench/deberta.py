#!/usr/bin/env python3
"""DeBERTa-v3 at its real sizes, random weights: training speed and memory of cohort beside PyTorch + transformers, in turn.

  build/peer/bin/python bench/deberta.py [--sizes xsmall,base] [--lengths 128,512] [--dtype fp32] [--rounds 2] [--steps 6]

Rows longer than the limit, so that nobody pads. The tokenizer is a small WordPiece one for both, the table of words is
DeBERTa's 128,100. Tokens a second are of the steps behind the first two; memory is the process's greatest resident size.
Needs: scripts/setup --peer, a release build.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "long"))
from compare import generate  # noqa: E402

SIZES = {
    "xsmall": dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536),
    "small": dict(hidden_size=768, num_hidden_layers=6, num_attention_heads=12, intermediate_size=3072),
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
}


def make_model(folder, size):
    """A random DeBERTa-v3 as transformers saves it."""
    import common
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification
    os.makedirs(folder)
    common.write_vocab(folder, False)
    torch.manual_seed(1)
    config = DebertaV2Config(vocab_size=128100, **SIZES[size], relative_attention=True, position_buckets=256,
                             norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
                             position_biased_input=False, num_labels=2)
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)


def peer(model, train, length, batch, args):
    """PyTorch's figures: tokens a second, MiB."""
    command = [sys.executable, os.path.join(HERE, "peer.py"), "--model", model, "--train", train, "--max-length",
               str(length), "--batch", str(batch), "--steps", str(args.steps), "--dtype", args.dtype]
    out, memory = run(command)
    return json.loads(out.strip().splitlines()[-1])["tokens_per_s"], memory


def cohort(model, train, length, batch, args, folder):
    command = [args.cohort, "train", f"model.path={model}", f"data.train={train}", "data.text=text", "data.label=label",
               f"data.max_length={length}", f"train.batch_size={batch}", f"train.max_steps={args.steps}",
               f"train.precision={args.dtype}", f"out={folder}/run", "overwrite=true", "checkpoint.every=0",
               "log.every=1", f"data.cache={folder}/cache"]
    _, memory = run(command)
    with open(f"{folder}/run/log.jsonl", encoding="utf-8") as f:
        steps = [s for s in map(json.loads, f) if s["kind"] == "train"][2:]
    return sum(s["tokens"] for s in steps) / sum(s["tokens"] / s["tokens_per_s"] for s in steps), memory


def run(command):
    """Its output, and the greatest resident size of it alone, in MiB."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        out.seek(0)
        if status != 0:
            sys.exit(f"{' '.join(command)}: {errors[-800:]}")
        return out.read(), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default=os.path.join(ROOT, "build/release/cohort"))
    parser.add_argument("--sizes", default="xsmall,base")
    parser.add_argument("--lengths", default="128,512")
    parser.add_argument("--tokens", type=int, default=2048, help="of a batch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    args = parser.parse_args()
    print(f"{'model':8} {'rows':>9} {'PyTorch':>9} {'cohort':>9} {'ratio':>6}  {'each round':16} {'MiB':>6} {'MiB':>6}")
    for size in args.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            model = f"{folder}/model"
            make_model(model, size)
            for length in map(int, args.lengths.split(",")):
                train, batch = f"{folder}/{length}.tsv", max(1, args.tokens // length)
                generate(train, batch * args.steps, length + 10, length + 60)
                theirs, ours = [], []
                for _ in range(args.rounds):
                    theirs.append(peer(model, train, length, batch, args))
                    ours.append(cohort(model, train, length, batch, args, folder))
                ratios = [o[0] / t[0] for o, t in zip(ours, theirs)]
                print(f"{size:8} {batch:3} x {length:3} {statistics.median(t[0] for t in theirs):9.0f} "
                      f"{statistics.median(o[0] for o in ours):9.0f} {statistics.median(ratios):6.2f}  "
                      f"{' '.join(f'{r:.2f}' for r in ratios):16} {max(t[1] for t in theirs):6.0f} "
                      f"{max(o[1] for o in ours):6.0f}", flush=True)


if __name__ == "__main__":
    main()
