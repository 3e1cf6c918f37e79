"""Ids against transformers', tokenizers' and SentencePiece's on hard lines, for every family of tokenizers.

Usage: tokenizer.py [LINES [SEED]] (default 10000 0; 100000 takes ten minutes). Most of the lines are drawn
(tests/golden/tokenizer_lines.py), some are of the kind that the vocabularies were trained on, the rest goes through all
code points in strides. MiniLM's tokenizer and the unit tests' cased one are asked through `cohort tokenizer encode`; the
other families (tests/golden/tokenizer_families.py: 8,000 pieces, SentencePiece's whole nmt_nfkc normalizer) through
long_encode_lines, since a tokenizer is all there is of their models. The first lines whose ids differ are printed.
"""
import json
import os
import shutil
import subprocess
import sys

from tokenizers import Tokenizer
from transformers import BertTokenizerFast

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "golden"))
import tokenizer_families  # noqa: E402
import tokenizer_lines  # noqa: E402

MAX_LENGTH = 512  # with special tokens; what most models take, and longer than nearly all lines


def hard_lines(count, seed):
    lines = list(tokenizer_lines.lines(count // 2, seed)) + list(tokenizer_families.corpus(count // 6, seed + 77))
    blocks = list(tokenizer_lines.every_block())
    step = max(1, 3 * len(blocks) // count)
    return lines + blocks[seed % step::step]


def reference(folder):
    """transformers' own way to the ids; tokenizer.json alone where there is one."""
    path = os.path.join(folder, "tokenizer.json")
    t = Tokenizer.from_file(path) if os.path.exists(path) else BertTokenizerFast.from_pretrained(folder).backend_tokenizer
    t.enable_truncation(MAX_LENGTH)
    t.no_padding()
    return t


def count_different(report, what, lines, got, wanted):
    different = [i for i, ids in enumerate(got) if ids != wanted[i]]
    report.equal(f"{what}: lines of {len(lines)} whose ids differ ({sum(map(len, wanted))} ids)", len(different), 0)
    for i in different[:5]:
        print(f"line {i}: {lines[i]!a}\n  got    {got[i]}\n  wanted {wanted[i]}")


def compare(report, scratch, what, folder, lines):
    """Through the command, which a model folder is given to."""
    source, out = os.path.join(scratch, "lines.jsonl"), os.path.join(scratch, "ids.jsonl")
    lines = [s.replace("\0", "\1") for s in lines]  # U+0000 cannot stand in a JSON string that C reads as text
    wanted = [e.ids for e in reference(folder).encode_batch(lines)]
    common.write_jsonl(source, [{"text": s} for s in lines])
    common.cohort("tokenizer", "encode", model__path=folder, data__input=source, data__text="text",
                  data__max_length=MAX_LENGTH, out=out)
    got = common.read_jsonl(out)
    report.equal(f"{what}: rows in order", [g["row"] for g in got], list(range(len(lines))))
    count_different(report, what, lines, [g["ids"] for g in got], wanted)


def cased(scratch):
    """The unit tests' cased vocabulary as a model folder without tokenizer.json."""
    folder = shutil.copytree(os.path.join(common.ROOT, "tests", "golden", "tokenizer", "cased"),
                             os.path.join(scratch, "cased"))
    with open(os.path.join(common.MINILM, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    config["vocab_size"] = len(BertTokenizerFast.from_pretrained(folder))
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    return folder


def encode_lines(folder, lines):
    program = os.path.join(os.path.dirname(common.COHORT), "tests", "long_encode_lines")
    run = subprocess.run([program, folder], input="".join(json.dumps(s) + "\n" for s in lines), capture_output=True,
                         text=True, check=True)
    return [[int(i) for i in row.split()] for row in run.stdout.split("\n")[:len(lines)]]


def compare_families(report, scratch, lines, seed):
    folder = os.path.join(scratch, "families")
    for name, ids_of in tokenizer_families.build(folder, 8000, False).items():
        count_different(report, name, lines, encode_lines(os.path.join(folder, name), lines), ids_of(lines))
    ids_of, lines = tokenizer_families.clusters(folder, 10 * len(lines), seed)
    count_different(report, "clusters", lines, encode_lines(os.path.join(folder, "clusters"), lines), ids_of(lines))


def main(report, scratch):
    count, seed = (*map(int, sys.argv[1:3]), *(10000, 0)[len(sys.argv) - 1:])
    lines = hard_lines(count, seed)
    compare(report, scratch, "MiniLM", common.MINILM, lines)
    compare(report, scratch, "cased", cased(scratch), lines)
    compare_families(report, scratch, lines, seed)


if __name__ == "__main__":
    common.run_script("tokenizer", main)
