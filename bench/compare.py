#!/usr/bin/env python3
"""Training speed of cohort beside PyTorch + transformers, the two in turn on the same machine, data and model.

  build/peer/bin/python bench/compare.py [--short TSV] [--rounds 3] [--out docs/results/cpu-speed.json]

Dense cases are generated: rows longer than the limit, so that nobody pads. --short is a TSV (columns text and label) of
real short texts; without it, generated texts of 4 to 30 words. Prints medians and the ratio of each round's pair.
Needs: scripts/setup --peer, scripts/fetch-minilm, a release build.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WORDS = ("the of to and in said a mln for dlrs it pct on its from at that is by be an year was will company as with bank "
         "would has corp inc wheat grain oil price market share profit loss trade export sugar coffee dollar rate stock "
         "net sales quarter month government minister official agreement tonnes crop prices export import meeting").split()


def generate(path, rows, low, high):
    rng = random.Random(7)
    with open(path, "w", encoding="utf-8") as f:
        f.write("label\ttext\n")
        for i in range(rows):
            words = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
            f.write(f"{'yes' if i % 2 else 'no'}\t{' '.join(words)}\n")


def run_peer(args, case, folder):
    command = [sys.executable, os.path.join(HERE, "peer.py"), "--model", args.model, "--train", case["train"],
               "--max-length", str(case["length"]), "--batch", str(case["batch"]), "--steps", str(case["steps"]),
               "--dtype", args.dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])["tokens_per_s"]


def run_cohort(args, case, folder):
    command = [args.cohort, "train", f"model.path={args.model}", f"data.train={case['train']}", "data.text=text",
               "data.label=label", f"data.max_length={case['length']}", f"train.batch_size={case['batch']}",
               f"train.max_steps={case['steps']}", f"train.precision={args.dtype}", f"out={folder}/run",
               "overwrite=true", "checkpoint.every=0", "log.every=1", f"data.cache={folder}/cache",
               f"parallel.reproducible={args.reproducible}"]
    if args.ranks > 1:
        command = ["mpirun", "--oversubscribe", "-n", str(args.ranks)] + command
    subprocess.run(command, capture_output=True, text=True, check=True)
    tokens = seconds = 0.0
    skip = min(5, case["steps"] // 4)
    with open(f"{folder}/run/log.jsonl", encoding="utf-8") as f:
        for line in f:
            step = json.loads(line)
            if step["kind"] == "train" and step["step"] > skip:
                tokens += step["tokens"]
                seconds += step["tokens"] / step["tokens_per_s"]
    return tokens / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(ROOT, "build/minilm"))
    parser.add_argument("--cohort", default=os.path.join(ROOT, "build/release/cohort"))
    parser.add_argument("--short")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--reproducible", default="fixed")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--cases", default="dense-32x128,short,dense-8x512")
    parser.add_argument("--out")
    args = parser.parse_args()
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory() as folder:
        generate(f"{folder}/128.tsv", 640, 140, 200)
        generate(f"{folder}/512.tsv", 160, 540, 600)
        generate(f"{folder}/short.tsv", 4000, 4, 30)
        cases = {
            "dense-32x128": {"train": f"{folder}/128.tsv", "length": 128, "batch": 32, "steps": 30},
            "short": {"train": args.short or f"{folder}/short.tsv", "length": 128, "batch": 32, "steps": 120},
            "dense-8x512": {"train": f"{folder}/512.tsv", "length": 512, "batch": 8, "steps": 20},
        }
        results = {}
        print(f"{'case':14} {'PyTorch':>10} {'cohort':>10} {'ratio':>7}   of each round")
        for name in args.cases.split(","):
            peer, ours = [], []
            for _ in range(args.rounds):
                peer.append(run_peer(args, cases[name], folder))
                ours.append(run_cohort(args, cases[name], folder))
            ratios = [o / p for o, p in zip(ours, peer)]
            results[name] = {"peer_tokens_per_s": peer, "cohort_tokens_per_s": ours, "ratio": statistics.median(ratios)}
            print(f"{name:14} {statistics.median(peer):10.0f} {statistics.median(ours):10.0f} "
                  f"{statistics.median(ratios):7.2f}   {' '.join(f'{r:.2f}' for r in ratios)}", flush=True)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump({"dtype": args.dtype, "reproducible": args.reproducible, "ranks": args.ranks, "cases": results},
                      f, indent=2)
            f.write("\n")


if __name__ == "__main__":
    main()
