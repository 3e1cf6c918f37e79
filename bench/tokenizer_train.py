#!/usr/bin/env python3
"""Training tokenizers: seconds and peak memory of cohort, for threads and ranks, beside Hugging Face's tokenizers.

Usage: tokenizer_train.py TEXT.tsv [--models bpe,wordpiece,unigram] [--threads 1,2] [--ranks 1,2] [--peer] [--vocab 30522]
TEXT.tsv has one column, "text", with a header (bench/zipf_text.py makes such files). The files of each model must be the same
for all threads and ranks, which is checked. --peer trains with tokenizers too (WordPiece there is BPE), with one thread and
with as many as there are cores; it reads whole lines, the header included.

A rank is a process: memory is that of the largest one.
"""
import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
SPECIALS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]


def peer(kind, path, size):
    """In a process of its own: seconds of training alone, and the size of the vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    if kind == "bpe":
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIALS, min_frequency=2, show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "wordpiece":
        t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        t.normalizer = normalizers.BertNormalizer()
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIALS, min_frequency=2, show_progress=False)
    else:
        t = Tokenizer(models.Unigram())
        t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIALS, unk_token="[UNK]", show_progress=False)
    t.train([path], trainer)


def measure(command, env):
    """Seconds, CPU seconds and the megabytes of the largest process of a command."""
    started = time.monotonic()
    child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {child.returncode}\n{said[-2000:]}")
    for line in said.splitlines():
        print("   ", line)
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def same_files(a, b):
    names = sorted(os.listdir(a))
    return names == sorted(os.listdir(b)) and not any(filecmp.cmpfiles(a, b, names, shallow=False)[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--models", default="bpe,wordpiece,unigram")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--ranks", default="1,2", help="2 and more with one thread each")
    parser.add_argument("--vocab", type=int, default=30522)
    parser.add_argument("--cohort", default=os.path.join(ROOT, "build", "release", "cohort"))
    parser.add_argument("--keys", default="", help="more key=value for cohort, with spaces between")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--peer-child", metavar="KIND", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer_child:
        peer(args.peer_child, args.text, args.vocab)
        return
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    rows = []
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as scratch:
        for model in args.models.split(","):
            runs = [(1, int(t)) for t in args.threads.split(",") if t] + [(int(r), 1) for r in args.ranks.split(",") if int(r) > 1]
            first = None
            for ranks, threads in runs:
                out = os.path.join(scratch, model)
                command = ["mpirun", "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []
                command += [args.cohort, "tokenizer", "train", f"data.input={args.text}", "data.text=text", f"out={out}",
                            f"tokenizer.model={model}", f"tokenizer.vocab_size={args.vocab}", f"parallel.threads={threads}",
                            *args.keys.split()]
                seconds, cpu, megabytes = measure(command, env)
                note = "" if first is None else "same files" if same_files(first, out) else "OTHER FILES"
                rows.append(("cohort", model, f"{ranks} × {threads}", seconds, cpu, megabytes, note))
                print(rows[-1], flush=True)
                if first is None:
                    first = shutil.move(out, os.path.join(scratch, "first-" + model))
                else:
                    shutil.rmtree(out)
            for threads in (1, os.cpu_count()) if args.peer else ():
                command = [sys.executable, os.path.abspath(__file__), args.text, "--vocab", str(args.vocab), "--peer-child", model]
                seconds, cpu, megabytes = measure(command, dict(env, RAYON_NUM_THREADS=str(threads)))
                rows.append(("tokenizers", model, f"1 × {threads}", seconds, cpu, megabytes, ""))
                print(rows[-1], flush=True)
    print("\n| program | model | ranks × threads | seconds | CPU seconds | peak MB | |\n|---|---|---|---|---|---|---|")
    for program, model, shape, seconds, cpu, megabytes, note in rows:
        print(f"| {program} | {model} | {shape} | {seconds:.0f} | {cpu:.0f} | {megabytes:,.0f} | {note} |")
    sys.exit(any(row[6].startswith("OTHER") for row in rows))


main()
