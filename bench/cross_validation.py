#!/usr/bin/env python3
"""Fine-tuning, embeddings and TF-IDF side by side on the same folds of four data sets, for docs/results/cv.md.

  python3 bench/cross_validation.py DATA MODEL [--only NAME,...] [--kinds tfidf,embeddings,train] [--build build/release]

DATA has banking77/{train,test}.csv, snips7/{train,valid}.tsv, movie-reviews/movie_reviews.zip and reuters21578/*.tar.gz as
their authors publish them; MODEL is a folder such as build/minilm. movie-reviews has its authors' ten folds, the others five
stratified ones. Reuters: texts of the ModApte split with exactly one topic, of the eight topics most frequent among them.
Two threads, one rank. Prints a line for each run as soon as it is there, then tables of pairs by `cohort report`.
"""
import argparse
import csv
import html
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
csv.field_size_limit(1 << 30)


def banking77(data):
    for part in ("train", "test"):
        with open(f"{data}/banking77/{part}.csv", encoding="utf-8", newline="") as f:
            for row in csv.DictReader(f):
                yield row["category"], row["text"], None


def snips7(data):
    for part in ("train", "valid"):
        with open(f"{data}/snips7/{part}.tsv", encoding="utf-8", newline="") as f:
            for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield row["label"], row["text"], None


def movie_reviews(data):
    with zipfile.ZipFile(f"{data}/movie-reviews/movie_reviews.zip") as archive:
        for name in sorted(archive.namelist()):
            found = re.search(r"(pos|neg)/cv(\d)\d\d_", name)
            if found:
                yield found.group(1), archive.read(name).decode("latin-1"), found.group(2)


def reuters(data):
    rows = []
    with tarfile.open(f"{data}/reuters21578/reuters21578_sgm.tar.gz") as archive:
        for member in sorted((m for m in archive if m.name.endswith(".sgm")), key=lambda m: m.name):
            text = archive.extractfile(member).read().decode("latin-1")
            for head, body in re.findall(r"<REUTERS([^>]*)>(.*?)</REUTERS>", text, re.S):
                topics = re.findall(r"<D>(.*?)</D>", re.search(r"<TOPICS>(.*?)</TOPICS>", body, re.S).group(1))
                split = re.search(r'LEWISSPLIT="([^"]*)"', head).group(1)
                if 'TOPICS="YES"' not in head or split not in ("TRAIN", "TEST") or len(topics) != 1:
                    continue
                parts = [re.search(f"<{tag}[^>]*>(.*?)</{tag}>", body, re.S) for tag in ("TITLE", "BODY")]
                words = html.unescape(" ".join(p.group(1) for p in parts if p))
                if words.strip():
                    rows.append((topics[0], words))
    most = {topic for topic, _ in Counter(topic for topic, _ in rows).most_common(8)}
    return ((topic, text, None) for topic, text in rows if topic in most)


SETS = {
    # rows, folds, length, keys of fine-tuning
    "snips7": (snips7, 64, {"train.epochs": 1, "optim.lr": "1e-4"}),
    "banking77": (banking77, 64, {"train.epochs": 3, "optim.lr": "2e-4"}),
    "reuters8": (reuters, 128, {"train.epochs": 1, "optim.lr": "1e-4"}),
    "movie-reviews": (movie_reviews, 128, {"train.epochs": 2, "optim.lr": "5e-5", "train.batch_size": 16}),
}


def write(rows, path):
    """Label, text and fold as tab-separated values; how many rows, and whether they name folds."""
    count, folds = 0, False
    with open(path, "w", encoding="utf-8") as f:
        f.write("label\tfold\ttext\n")
        for label, text, fold in rows:
            f.write(f"{label}\t{'' if fold is None else fold}\t{' '.join(text.split())}\n")
            count, folds = count + 1, fold is not None
    return count, folds


def call(command, folder):
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr[-800:]}")
    return time.perf_counter() - started, done.stdout + done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--kinds", default="tfidf,embeddings,train")
    parser.add_argument("--build", default=os.path.join(os.path.dirname(HERE), "build/release"))
    parser.add_argument("--keep", help="folder for the runs; they go on there when started again")
    args = parser.parse_args()
    cohort, data, model = (os.path.abspath(p) for p in (f"{args.build}/cohort", args.data, args.model))
    kinds = args.kinds.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(args.keep or temporary)
        os.makedirs(folder, exist_ok=True)
        print("| data | rows, folds | | accuracy, pooled | 95 % interval | mean of folds ± std | wall s |\n|---|---|---|---|---|---|---|")
        for name in args.only.split(","):
            rows, length, tuning = SETS[name]
            count, named = write(rows(data), f"{folder}/{name}.tsv")
            keys = [f"data.train={name}.tsv", "data.text=text", "data.label=label", "eval.metric=accuracy",
                    "parallel.reproducible=any", f"data.cache={name}.cache"]
            keys += ["data.fold=fold", "cv.kind=column"] if named else ["cv.folds=5"]
            for kind in kinds:
                out = f"{name}.{kind}"
                if kind == "train":
                    more = [f"{k}={v}" for k, v in {"train.batch_size": 32, "train.precision": "auto", **tuning}.items()]
                    command = [cohort, "train", f"model.path={model}", f"data.max_length={length}", f"out={out}", *more, *keys]
                    results = f"{folder}/{out}/results.json"
                else:
                    more = [f"model.path={model}", f"data.max_length={length}", "baseline.pooling=mean"] if kind != "tfidf" else []
                    command = [cohort, "baseline", f"baseline.kinds={kind}", f"out={out}", *more, *keys]
                    results = f"{folder}/{out}/{kind}/results.json"
                seconds, _ = call(command, folder)
                with open(results, encoding="utf-8") as f:
                    oof = json.load(f)["oof"]
                what = "fine-tuned" if kind == "train" else kind
                print(f"| {name} | {count:,}, {10 if named else 5} | {what} | {oof['score']:.4f} | {oof['ci95'][0]:.4f} to "
                      f"{oof['ci95'][1]:.4f} | {oof['mean']:.4f} ± {oof['std']:.4f} | {seconds:.0f} |", flush=True)
            if "train" in kinds:
                for kind in kinds:
                    if kind != "train":
                        _, said = call([cohort, "report", f"{name}.{kind}/{kind}", f"{name}.train"], folder)
                        print(said, file=sys.stderr)


if __name__ == "__main__":
    main()
