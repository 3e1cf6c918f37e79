#!/usr/bin/env python3
"""Make tests/golden/tokenizer: small tokenizers with hard lines, their ids and their decoded text, by Hugging Face's
tokenizers and transformers. The vocabulary is made here of the lines' own characters and a few words.

    build/peer/bin/python tests/golden/make_tokenizer.py
"""
import collections
import json
import os
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast

import tokenizer_lines

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["do not"] + ("'m 's 've 're the of and un ##aff ##able ##ing run ##ning inter ##national ##ization do ' t can he ##ll it s . , ! ? n't "
         "hel ##lo caf ##é cafe The THE ##s ##ed ab ##bc ελλαδα привет й ##ё 日 本 ## a ##a").split()


def vocabulary(lines):
    """The specials, WORDS, and the commonest characters of the lines, normalized or not, alone and inside words."""
    counts = collections.Counter()
    for lowercase in (True, False):
        for line in lines:
            counts.update(normalizers.BertNormalizer(lowercase=lowercase).normalize_str(line))
    pieces = dict.fromkeys(SPECIALS + WORDS)
    for c, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:1500]:
        if not c.isspace() and ord(c) > 32:
            pieces[c] = pieces["##" + c] = None
    return list(pieces)


def tokenizer(pieces, normalizer, pre_tokenizer, added=(), **options):
    t = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]", **options))
    t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizer
    t.add_special_tokens(SPECIALS)
    t.add_tokens(list(added))
    return t


def write(path, text):
    with open(os.path.join(OUT, path), "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


lines = list(tokenizer_lines.lines(300, 1))
lines += ["a\u0301\u0327b <keep> the<m>the<m>>a the  <m>  Run run RUN \u00c9t\u00e9 [mask] x@y", "do not can n't ' s . , ?",
          "The unaffable runn\u00edng internationalization!"]
pieces = vocabulary(lines)
for folder in ("uncased", "cased", "sequence"):
    os.makedirs(os.path.join(OUT, folder), exist_ok=True)

# As most models have it, with added tokens of all kinds.
uncased = tokenizer(pieces, normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), [
    AddedToken("<keep>", normalized=False), AddedToken("<m>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("<m>>", normalized=False), AddedToken("Run", normalized=True), AddedToken("of", single_word=True, normalized=True), AddedToken("\u00c9t\u00e9")])
uncased.decoder = decoders.WordPiece()
uncased.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
uncased.enable_truncation(8)
uncased.save(os.path.join(OUT, "uncased", "tokenizer.json"))
uncased.no_truncation()

# Other parts, an own prefix, short words, no decoder.
sequence = tokenizer([p.replace("##", "@@") for p in pieces],
                     normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
                     pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]),
                     continuing_subword_prefix="@@", max_input_chars_per_word=12)
sequence.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
sequence.save(os.path.join(OUT, "sequence", "tokenizer.json"))

# vocab.txt with a configuration, read by transformers; accents stay, and a token that the vocabulary lacks.
write("cased/vocab.txt", "".join(p + "\n" for p in pieces))
write("cased/tokenizer_config.json", json.dumps({
    "do_lower_case": False, "tokenizer_class": "BertTokenizer", "model_max_length": 10 ** 30,
    "additional_special_tokens": ["<keep>"]}, indent=2) + "\n")
cased = BertTokenizerFast.from_pretrained(os.path.join(OUT, "cased")).backend_tokenizer

rows = []
for line in lines:
    row = {"text": line}
    for name, t in (("uncased", uncased), ("cased", cased), ("sequence", sequence)):
        ids = t.encode(line, add_special_tokens=False).ids
        row[name] = ids
        row[name + "_text"] = t.decode(ids, skip_special_tokens=False)
    rows.append(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n")
write("lines.jsonl", "".join(rows))

# Decoding any ids.
r = random.Random(3)
rows = []
for _ in range(200):
    ids = [r.randrange(60) if r.random() < 0.8 else r.randrange(uncased.get_vocab_size()) for _ in range(r.randrange(1, 14))]
    rows.append(json.dumps({"ids": ids, "text": uncased.decode(ids, skip_special_tokens=False)}) + "\n")
write("decode.jsonl", "".join(rows))

# Normalizing alone: a vocabulary hides much behind [UNK]. U+302E and U+1D165 are marks that have an order and stay.
hard = ["\u0130\u03a3\u00df\u1e9e", "a\u302e\x01\U0001d165", "a\u302e\u0301\U0001d165\u0323\u302e b", "\u302e\U0001d165",
        "a\u302e\u0903\U0001d165", "\uac01\u302e\U0001d165\u4e00\U0001d165", "\uf900\U0002f800\u0344\u1e69\u0390",
        "a\u0301\u0327\u0315\u0300", "\u00c5\u212b\u0390\u1f82\ufb2c", "x\x00\x7f\x85\u00ad\u2028\ufffdy"]
rows = []
for i, line in enumerate(hard * 24 + lines):
    options = [clean, cjk, strip, lowercase] = [bool(i // len(hard) >> b & 1) for b in range(4)]
    if i < len(hard) * 24 and i >= len(hard) * 16:
        normalizer, options = [(normalizers.NFD(), "NFD"), (normalizers.StripAccents(), "StripAccents")][i // 10 % 2]
    else:
        normalizer = normalizers.BertNormalizer(clean_text=clean, handle_chinese_chars=cjk, strip_accents=strip,
                                                lowercase=lowercase)
        options = "".join(c for c, on in zip("ckal", options) if on)
    rows.append(json.dumps([options, line, normalizer.normalize_str(line)], separators=(",", ":")) + "\n")
write("normalize.jsonl", "".join(rows))

# How pairs are cut: na nb max_length, and what stays of each.
small = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4}, unk_token="[UNK]"))
small.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
small.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
plan = []
r = random.Random(2)
sizes = [(a, b) for a in range(7) for b in range(7)] + [(r.randrange(60), r.randrange(60)) for _ in range(150)]
for na, nb in sizes:
    for length in sorted({3, 4, 5, 6, 7, 8, 9, 12} if na < 7 and nb < 7 else {r.randrange(3, 130) for _ in range(5)}):
        small.enable_truncation(length, strategy="longest_first")
        ids = small.encode(" ".join("a" * na), " ".join("b" * nb)).ids
        plan.append(f"{na} {nb} {length} {ids.count(3)} {ids.count(4)}\n")
write("pairs.txt", "".join(plan))
