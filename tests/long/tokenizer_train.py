"""tokenizer train beside Hugging Face's tokenizers: the files load there with equal ids, and train to the same merges.

Text is generated: words of random letters with Zipf's frequencies. BPE: the merges of the two trainers are compared until
they first part; equally frequent pairs may come in another order there. Unigram: how many pieces each vocabulary needs for the
text.
"""
import json
import os
import random

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import common

SPECIALS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]


def make_text(lines, seed):
    rng = random.Random(seed)
    syllables = ["".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randrange(1, 3)))
                 for _ in range(150)]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randrange(1, 4))) for _ in range(3000)]
    weights = [1 / (i + 3) for i in range(len(words))]
    return [" ".join(rng.choices(words, weights, k=rng.randrange(1, 25))) for _ in range(lines)]


def hard_lines(seed):
    rng = random.Random(seed)
    parts = ["Gr\u00fc\u00dfe", "na\u00efve", "\u6771\u4eac", "\u00bd", "a\u0301b", "\u200d", "don't", "x,y", "  ", "\u0130", "\ufb01n",
             "\U0001f600", "ba", "lo", "qq", "\u00a0", "...", "[CLS]", "\u2581"]
    return [" ".join(rng.choice(parts) for _ in range(rng.randrange(1, 9))) for _ in range(500)]


def encoded(folder, texts, scratch):
    source, out = os.path.join(scratch, "lines.jsonl"), os.path.join(scratch, "ids.jsonl")
    common.write_jsonl(source, [{"text": t} for t in texts])
    common.cohort("tokenizer", "encode", model__path=folder, data__input=source, data__text="text", out=out,
                  data__max_length=512)
    return [row["ids"] for row in common.read_jsonl(out)]


def trained(scratch, kind, source, **keys):
    out = os.path.join(scratch, kind)
    common.cohort("tokenizer", "train", data__input=source, data__text="text", tokenizer__model=kind,
                  tokenizer__vocab_size=1000, out=out, **keys)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump({"model_type": "bert", "vocab_size": 1000, "hidden_size": 12, "num_hidden_layers": 1,
                   "num_attention_heads": 1, "intermediate_size": 12, "max_position_embeddings": 512}, f)
    return out


def main(report, scratch):
    text = make_text(4000, 1)
    source = os.path.join(scratch, "text.jsonl")
    common.write_jsonl(source, [{"text": t} for t in text])
    for kind, keys in (("wordpiece", {}), ("bpe", {}), ("unigram", {}),
                       ("bpe", {"tokenizer__pre_tokenizer": "whitespace", "tokenizer__normalizer": "nfc,lowercase"})):
        what = kind + (", whitespace" if keys else "")
        folder = trained(scratch, kind, source, **keys, overwrite=True)
        theirs = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        lines = text[:1500] + hard_lines(2)
        got = encoded(folder, lines, scratch)
        wanted = [theirs.encode(t).ids for t in lines]
        report.equal(f"{what}: lines of {len(lines)} whose ids differ in tokenizers",
                     sum(g != w[:512] for g, w in zip(got, wanted)), 0)
        if keys:
            with open(os.path.join(folder, "merges.txt"), encoding="utf-8") as f:
                merges = [tuple(line.split()) for line in f.read().splitlines()[1:]]
            other = Tokenizer(models.BPE(unk_token="[UNK]"))
            other.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
            other.pre_tokenizer = pre_tokenizers.Whitespace()
            other.train_from_iterator(text, trainers.BpeTrainer(vocab_size=1000, special_tokens=SPECIALS, min_frequency=2,
                                                                show_progress=False))
            theirs = [tuple(m) for m in json.loads(other.to_str())["model"]["merges"]]
            same = next((i for i, (a, b) in enumerate(zip(merges, theirs)) if a != b), min(len(merges), len(theirs)))
            report.note(f"{what}: merges before the two trainers first part", f"{same} of {len(theirs)}")
            report.check(f"{what}: share of merges that only one of them has",
                         1 - len(set(merges) & set(theirs)) / len(theirs), 0.02)
        if kind == "unigram":
            other = Tokenizer(models.Unigram())
            other.pre_tokenizer = pre_tokenizers.Metaspace()
            other.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=1000, special_tokens=SPECIALS,
                                                                    unk_token="[UNK]", show_progress=False))
            pieces = [sum(len(t.encode(line, add_special_tokens=False).ids) for line in text) for t in (theirs, other)]
            report.check(f"{what}: pieces for the text over those of their trainer, less 1", pieces[0] / pieces[1] - 1, 0.02)


if __name__ == "__main__":
    common.run_script("tokenizer_train", main)
