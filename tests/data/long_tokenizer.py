#!/usr/bin/env python3
"""Compare the ids of `cohort tokenizer encode` with those of transformers on hard lines; run by scripts/test-long.

    build/peer/bin/python tests/data/long_tokenizer.py MODEL_FOLDER COHORT [lines [seed]]

Half of the lines are drawn (tests/golden/tokenizer_lines.py), the rest goes through all code points in strides. Exit
status 1 and the first differences where ids are not equal.
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import tokenizer_lines  # noqa: E402

MAX_LENGTH = 512  # with special tokens; what most models take, and longer than nearly all lines


def reference(folder):
    """transformers' own way to the ids; tokenizer.json alone where there is nothing else."""
    from tokenizers import Tokenizer
    from transformers import BertTokenizerFast
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        t = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    else:
        t = BertTokenizerFast.from_pretrained(folder).backend_tokenizer
    t.enable_truncation(MAX_LENGTH)
    t.no_padding()
    return t


def main(folder, cohort, count=10000, seed=0):
    # U+0000 cannot stand in a JSON string that C reads as text; the unit tests have it.
    lines = [s.replace("\0", "\1") for s in tokenizer_lines.lines(count // 2, seed)]
    blocks = list(tokenizer_lines.every_block())
    step = max(1, 2 * len(blocks) // count) if count < 2 * len(blocks) else 1
    lines += [s.replace("\0", "\1") for s in blocks[seed % step::step]]
    wanted = [e.ids for e in reference(folder).encode_batch(lines)]
    with tempfile.TemporaryDirectory() as scratch:
        source, ids = os.path.join(scratch, "lines.jsonl"), os.path.join(scratch, "ids.jsonl")
        with open(source, "w", encoding="utf-8") as f:
            f.writelines(json.dumps({"text": s}) + "\n" for s in lines)
        subprocess.run([cohort, "tokenizer", "encode", f"model.path={folder}", f"data.input={source}", "data.text=text",
                        f"data.max_length={MAX_LENGTH}", f"out={ids}"], check=True)
        with open(ids, encoding="utf-8") as f:
            got = [json.loads(row) for row in f]
    if [g["row"] for g in got] != list(range(len(lines))):
        print(f"{len(got)} rows for {len(lines)} lines, or not in order")
        return 1
    different = [i for i, g in enumerate(got) if g["ids"] != wanted[i]]
    print(f"{folder}: {len(lines)} lines, {sum(map(len, wanted))} ids, {len(different)} lines differ")
    for i in different[:5]:
        print(f"line {i}: {lines[i]!a}\n  got    {got[i]['ids']}\n  wanted {wanted[i]}")
    return 1 if different else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
