#!/usr/bin/env python3
"""Folds side by side on groups of ranks, beside folds one after another on all ranks.

  build/peer/bin/python bench/groups.py [--trials 4] [--rounds 3] [--build build/release] [--out FILE.md]

Measured on 2 ranks: the wall time of whole commands, in turn, for a model of MiniLM-L6's size with random weights.
Simulated for 4 to 1,024 ranks with bench/groups.c, which takes trials from the scheduler that cohort uses: the time of a
step on one rank is measured for 1 to 32 rows, the time of a reduction is that of 2 ranks in this machine's memory, scaled
as bench/groups.c says. So the simulated machine is many of these ranks on a network as fast as this memory.
Needs a build with -DCOHORT_BENCH=ON.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WORDS, ROWS, LENGTH, BATCH = 2000, 512, 64, 32
SHAPE = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
RANKS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
SETTINGS = [("5 folds", 5), ("5 folds x 2 seeds x 2 settings", 20), ("10 folds x 3 seeds", 30)]


def make(folder):
    os.makedirs(f"{folder}/model")
    with open(f"{folder}/model/vocab.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(WORDS)]) + "\n")
    with open(f"{folder}/model/config.json", "w", encoding="utf-8") as f:
        json.dump(dict(model_type="bert", architectures=["BertModel"], hidden_act="gelu", vocab_size=30522,
                       max_position_embeddings=512, type_vocab_size=2, **SHAPE), f)
    with open(f"{folder}/train.tsv", "w", encoding="utf-8") as f:
        f.write("label\ttext\n")
        for i in range(ROWS):
            f.write(f"{i % 2}\t" + " ".join(f"w{(i * 31 + j * 17) % WORDS}" for j in range(LENGTH - 2)) + "\n")


def call(command, folder):
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                          env=dict(os.environ, OMPI_MCA_mpi_yield_when_idle="1"))
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr[-800:]}")
    return time.perf_counter() - started, done.stdout + done.stderr


def train(cohort, **keys):
    base = {"model.path": "model", "model.from_scratch": "true", "data.train": "train.tsv", "data.text": "text",
            "data.label": "label", "data.cache": "cache", "train.batch_size": BATCH, "train.precision": "fp32",
            "parallel.threads": 1, "checkpoint.every": 0, "overwrite": "true", "log.every": 0}
    return [cohort, "train"] + [f"{k}={v}" for k, v in {**base, **keys}.items()]


def step_times(cohort, folder):
    """(rows, seconds) of a step on one rank."""
    points = []
    for rows in (1, 2, 4, 8, 16, 32):
        steps = 6 if rows > 8 else 12
        _, _ = call(train(cohort, **{"train.batch_size": rows, "train.max_steps": steps, "out": "step"}), folder)
        with open(f"{folder}/step/results.json", encoding="utf-8") as f:
            points.append((rows, json.load(f)["train"]["seconds"] / steps))
    return points


def reduction(build, floats, folder):
    """Seconds to reduce to shards in order and gather them, on 2 ranks."""
    _, out = call(["mpirun", "-n", "2", f"{build}/bench/bench_reduce", str(floats), "1"], folder)
    ms = {name: float(value) for name, value in re.findall(r"(ordered reduction|gather shards)\D+([\d.]+)", out)}
    return (ms["ordered reduction"] + ms["gather shards"]) / 1e3


def measured(args, folder):
    """Wall seconds of {ranks of a group: [rounds]} on 2 ranks."""
    out = {1: [], 2: []}
    for _ in range(args.rounds):
        for group in out:
            command = ["mpirun", "-n", "2"] + train(args.cohort, **{
                "cv.folds": args.trials, "train.epochs": 1, "cv.group_ranks": group, "out": f"group-{group}"})
            out[group].append(call(command, folder)[0])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of a simulated trial")
    parser.add_argument("--out")
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    args.cohort = f"{args.build}/cohort"
    folder = tempfile.mkdtemp(prefix="cohort-groups-")
    lines = []
    try:
        make(folder)
        points = step_times(args.cohort, folder)
        parameters = 12 * SHAPE["num_hidden_layers"] * SHAPE["hidden_size"] ** 2 + 30522 * SHAPE["hidden_size"]
        small, large = reduction(args.build, 65536, folder), reduction(args.build, parameters, folder)
        bandwidth = 4.0 * parameters / max(large - small, 1e-9)
        times = measured(args, folder)
        one, all_ranks = statistics.median(times[1]), statistics.median(times[2])
        lines += [f"Measured, 2 ranks, {args.trials} folds, median of {args.rounds} in turn: one after another on both ranks "
                  f"{all_ranks:.1f} s, side by side on one rank each {one:.1f} s: {all_ranks / one:.2f} x.", "",
                  "A step on one rank: " + ", ".join(f"{r} rows {s * 1e3:.0f} ms" for r, s in points) + "; a reduction of "
                  f"{parameters / 1e6:.1f} million gradients on 2 ranks {large * 1e3:.0f} ms, of 65,536 {small * 1e3:.1f} ms.", "",
                  "Simulated:", "",
                  "| trials | ranks | one after another, s | best groups | s | cv.group_ranks=0 | s | gain |",
                  "|---|---|---|---|---|---|---|---|"]
        flops = 6.0 * 12 * SHAPE["num_hidden_layers"] * SHAPE["hidden_size"] ** 2 * LENGTH * BATCH
        for name, trials in SETTINGS:
            done = subprocess.run([f"{args.build}/bench/bench_groups", str(trials), str(args.steps), str(BATCH), f"{flops}",
                                   f"{4.0 * parameters}", "5e10", f"{bandwidth}", f"{small}", *map(str, RANKS)],
                                  input="".join(f"{r} {s}\n" for r, s in points), capture_output=True, text=True, check=True)
            for line in done.stdout.splitlines():
                ranks, alone, best, shortest, chosen, own = line.split()
                lines.append(f"| {name} | {ranks} | {float(alone):.0f} | {best} | {float(shortest):.1f} | {chosen} | "
                             f"{float(own):.1f} | {float(alone) / float(own):.1f} x |")
    finally:
        shutil.rmtree(folder)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text)


if __name__ == "__main__":
    main()
