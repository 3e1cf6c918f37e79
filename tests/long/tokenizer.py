"""Ids of `cohort tokenizer encode` against tokenizers' on hard lines: MiniLM's tokenizer, and a cased one.

Usage: tokenizer.py [LINES [SEED]] (default 10000 0). Half of the lines are drawn (tests/golden/tokenizer_lines.py), the
rest goes through all code points in strides. The first lines whose ids differ are printed.
"""
import json
import os
import shutil
import sys

from tokenizers import Tokenizer
from transformers import BertTokenizerFast

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "golden"))
import tokenizer_lines  # noqa: E402

MAX_LENGTH = 512  # with special tokens; what most models take, and longer than nearly all lines


def hard_lines(count, seed):
    # U+0000 cannot stand in a JSON string that C reads as text; the unit tests have it.
    lines = [s.replace("\0", "\1") for s in tokenizer_lines.lines(count // 2, seed)]
    blocks = list(tokenizer_lines.every_block())
    step = max(1, 2 * len(blocks) // count) if count < 2 * len(blocks) else 1
    return lines + [s.replace("\0", "\1") for s in blocks[seed % step::step]]


def reference(folder):
    """transformers' own way to the ids; tokenizer.json alone where there is one."""
    path = os.path.join(folder, "tokenizer.json")
    t = Tokenizer.from_file(path) if os.path.exists(path) else BertTokenizerFast.from_pretrained(folder).backend_tokenizer
    t.enable_truncation(MAX_LENGTH)
    t.no_padding()
    return t


def compare(report, scratch, what, folder, lines):
    source, out = os.path.join(scratch, "lines.jsonl"), os.path.join(scratch, "ids.jsonl")
    wanted = [e.ids for e in reference(folder).encode_batch(lines)]
    common.write_jsonl(source, [{"text": s} for s in lines])
    common.cohort("tokenizer", "encode", model__path=folder, data__input=source, data__text="text",
                  data__max_length=MAX_LENGTH, out=out)
    got = common.read_jsonl(out)
    report.equal(f"{what}: rows in order", [g["row"] for g in got], list(range(len(lines))))
    different = [i for i, g in enumerate(got) if g["ids"] != wanted[i]]
    report.equal(f"{what}: lines of {len(lines)} whose ids differ ({sum(map(len, wanted))} ids)", len(different), 0)
    for i in different[:5]:
        print(f"line {i}: {lines[i]!a}\n  got    {got[i]['ids']}\n  wanted {wanted[i]}")


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


def main(report, scratch):
    count, seed = (*map(int, sys.argv[1:3]), *(10000, 0)[len(sys.argv) - 1:])
    lines = hard_lines(count, seed)
    compare(report, scratch, "MiniLM", common.MINILM, lines)
    compare(report, scratch, "cased", cased(scratch), lines)


common.run_script("tokenizer", main)
