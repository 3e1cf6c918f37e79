"""Writes tests/golden/tokenizer_families: a small tokenizer of every family, lines with the ids (and the text made of them
again) that transformers, tokenizers or SentencePiece give, and how RoBERTa's pairs are cut.

Run from the repository root with build/peer/bin/python. Vocabularies are trained on generated text (tokenizer_families.py).
tokenizers' BPE trainer picks among equally frequent characters by chance, so another run may write other pieces and ids.
"""
import json
import os
import random
import shutil

from tokenizers import Tokenizer, models, pre_tokenizers, processors

import tokenizer_families
import tokenizer_lines

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_families")
SHORT = 90  # characters of a line at most

FIXED = ["Hello world", " Hello  world ", "it's we'll they've I'm you'd he're '' 'S 't", "a\n\n b \t\tc  \u3000 d", "Caf\u00e9 Caf\u00e9s caf\u00e9",
         "a <mask> b<mask>c  <mask>", "<s>x</s> <pad><unk>", "[CLS]x[SEP] [MASK]y", "<user> an an\u2026 x<user>", "``q'' 1,234 \u00bd \uff11\uff12",
         "a\u0301\u0301 e\u0301 \uff25\u0301 \u00a9\u200d\u00a9\u0301 \u0915\u094d\u0915\u0301 \u1100\u1161\u0301\r\n", "\u2581a \u2581 \u2581\u2581b", "\u0133\u0133x \U0001f999"]


def lines():
    found = [s for s in tokenizer_lines.lines(900, 31) if len(s) <= SHORT][60:210]
    return FIXED + found + [s for s in tokenizer_families.corpus(60, 33) if len(s) <= SHORT]


def write(path, text):
    with open(os.path.join(OUT, path), "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


shutil.rmtree(OUT, ignore_errors=True)
references = tokenizer_families.build(OUT, 700, True)
all_lines = lines()
ids = {name: reference(all_lines) for name, reference in references.items()}
rows = [{"text": s, **{name: ids[name][i] for name in ids}} for i, s in enumerate(all_lines)]
for name in ids:
    path = os.path.join(OUT, name, "tokenizer.json")
    t = Tokenizer.from_file(path) if os.path.exists(path) else None
    if name == "roberta":
        t = tokenizer_families.RobertaTokenizer.from_pretrained(os.path.join(OUT, name)).backend_tokenizer
    for i, row in enumerate(rows):
        if t is not None and i % 4 == 0:
            row[name + "_text"] = t.decode(row[name], skip_special_tokens=False)
write("lines.jsonl", "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))

# How pairs are cut: na nb max_length, and what stays of each.
t = Tokenizer(models.WordPiece({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}, unk_token="<unk>"))
t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
r, plan = random.Random(2), []
for na, nb in [(a, b) for a in range(6) for b in range(6)] + [(r.randrange(60), r.randrange(60)) for _ in range(60)]:
    for length in sorted({4, 5, 6, 7, 8, 11} if na < 6 and nb < 6 else {r.randrange(4, 130) for _ in range(4)}):
        t.enable_truncation(length, strategy="longest_first")
        e = t.encode(" ".join("a" * na), " ".join("b" * nb))
        assert set(e.type_ids) == {0}
        plan.append(f"{na} {nb} {length} {e.ids.count(3)} {e.ids.count(4)}\n")
write("pairs.txt", "".join(plan))
