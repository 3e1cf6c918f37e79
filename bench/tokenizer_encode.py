#!/usr/bin/env python3
"""Speed of text to ids: cohort beside Hugging Face's tokenizers (and SentencePiece, where the folder has its model).

Usage: tokenizer_encode.py TEXTS FOLDER [FOLDER ...] [--threads 1,2] [--rounds 5] [--most 20000] [--build build/release]
TEXTS is a file of lines, or a .tar.gz of files of text; at most so many of them are taken. Each FOLDER holds a tokenizer.
Programs take turns; speeds are those of the quickest round. "times tokenizers" is the median of the rounds' ratios (and the
least and the greatest), as what else the machine does hits both programs of a round; the last column is the same of CPU
seconds. All texts lie in memory and ids stay there: no reading, writing or special tokens. tokenizers opens tokenizer.json,
which transformers makes first where a folder has none, and runs encode_batch_fast, which leaves out offsets. Needs
long_encode_lines (cmake --preset release -DCOHORT_LONG_TESTS=ON, scripts/build release).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))


def read_texts(path, most):
    if not path.endswith((".tar.gz", ".tgz")):
        with open(path, encoding="utf-8") as f:
            return [line.rstrip("\n") for _, line in zip(range(most), f)]
    texts = []
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.size > 0 and len(texts) < most:
                texts.append(archive.extractfile(member).read().decode("utf-8", "replace").replace("\0", " "))
    return texts


def cohort(program, folder, lines, threads):
    run = subprocess.run([program, folder, "1", str(threads)], input=lines, capture_output=True, text=True, check=True)
    opened, _, ids, seconds, cpu = run.stderr.split()
    return float(seconds), float(cpu), int(ids), float(opened)


def peer(kind, folder, path, most):
    """In a process of its own, which RAYON_NUM_THREADS is set for: one line, seconds, CPU seconds, ids, seconds of opening."""
    texts = read_texts(path, most)
    if kind == "sentencepiece":
        import sentencepiece
        started = time.perf_counter()
        sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "spm.model"))
        opened = time.perf_counter() - started
        started, cpu = time.perf_counter(), time.process_time()
        ids = sp.encode(texts, num_threads=int(os.environ["RAYON_NUM_THREADS"]))
        seconds, cpu, total = time.perf_counter() - started, time.process_time() - cpu, sum(map(len, ids))
    else:
        from tokenizers import Tokenizer
        started = time.perf_counter()
        t = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        t.no_truncation()
        t.no_padding()
        opened = time.perf_counter() - started
        started, cpu = time.perf_counter(), time.process_time()
        found = t.encode_batch_fast(texts, add_special_tokens=False)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        total = sum(len(e.ids) for e in found)
    print(seconds, cpu, total, opened)


def whole_folder(folder, scratch):
    """A folder with the tokenizer.json that transformers makes of another folder's files; itself if it has one."""
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        return folder
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer
    made = os.path.join(scratch, os.path.basename(folder))
    os.mkdir(made)
    AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(os.path.join(made, "tokenizer.json"))
    return made


def times(peers, own, k):
    """The median, the least and the greatest ratio of a figure of each round."""
    ratios = [p[k] / o[k] for p, o in zip(peers, own)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=20000)
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="the folder that cohort was built in")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        peer(args.peer, args.folders[0], args.texts, args.most)
        return
    texts = read_texts(args.texts, args.most)
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    print(f"{len(texts):,} texts, {megabytes:.1f} MB")
    print("\n| folder | threads | program | MB a second | million ids a second | seconds of opening | times tokenizers | by CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    scratch = tempfile.TemporaryDirectory(prefix="cohort-bench-")
    for folder in (f.rstrip("/") for f in args.folders):
        whole = whole_folder(folder, scratch.name)
        for threads in map(int, args.threads.split(",")):
            programs = ["cohort", "tokenizers"] + ["sentencepiece"] * os.path.exists(os.path.join(folder, "spm.model"))
            rounds = {program: [] for program in programs}
            for _ in range(args.rounds):
                for program in programs:
                    if program == "cohort":
                        figures = cohort(os.path.join(args.build, "tests", "long_encode_lines"), folder, lines, threads)
                    else:
                        command = [sys.executable, os.path.abspath(__file__), args.texts,
                                   whole if program == "tokenizers" else folder, "--peer", program, "--most", str(args.most)]
                        env = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true")
                        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
                        figures = [float(v) for v in said.split()[-4:]]
                    rounds[program].append(figures)
            for program in programs:
                seconds, _, ids, opened = min(rounds[program])
                of = [times(rounds["tokenizers"], rounds[program], k) if program != "tokenizers" else "1" for k in (0, 1)]
                print(f"| {os.path.basename(folder)} | {threads} | {program} | {megabytes / seconds:.1f} | "
                      f"{ids / seconds / 1e6:.2f} | {opened:.2f} | {of[0]} | {of[1]} |", flush=True)


main()
