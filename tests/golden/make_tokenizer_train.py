"""Writes tests/golden/tokenizer_train: generated text, and what others make of it: merges of Hugging Face's BPE trainer, a
WordPiece vocabulary by brute force with the ids that tokenizers gives for it, and the likelihood that its Unigram trainer
reaches.

Run from the repository root with build/peer/bin/python.
"""
import collections
import json
import math
import os
import random

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_train")
SPECIALS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
BYTES, LETTERS, PIECES, UNIGRAM = 600, 300, 260, 400  # sizes of the vocabularies


def make_text(lines, seed):
    rng = random.Random(seed)
    syllables = ["".join((rng.choice(["b", "ch", "d", "f", "gr", "h", "k", "l", "m", "n", "p", "r", "st", "t", "v"]),
                          rng.choice(["a", "e", "i", "o", "u", "ea", "\u00fc", "\u00e9"]),
                          rng.choice(["", "", "n", "s", "r", "t"]))) for _ in range(60)]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randrange(1, 4))) for _ in range(700)]
    words += [w.capitalize() for w in words[:60]] + ["\u6771\u4eac", "don't", "x,y", "12", "1,234", "aaaa", "aaaaaaa", "abababab"]
    weights = [1 / (i % 97 + 2) for i in range(len(words))]
    return [" ".join(rng.choices(words, weights, k=rng.randrange(1, 12))) for _ in range(lines)]


def write(name, rows):
    with open(os.path.join(OUT, name), "w", encoding="utf-8", newline="\n") as f:
        f.writelines(row + "\n" for row in rows)


def bpe_merges(text, cutter, normalizer, size, **trainer):
    t = Tokenizer(models.BPE(unk_token="[UNK]"))
    t.pre_tokenizer = cutter
    if normalizer is not None:
        t.normalizer = normalizer
    t.train_from_iterator(text, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIALS, min_frequency=2,
                                                    show_progress=False, **trainer))
    return [" ".join(m) for m in json.loads(t.to_str())["model"]["merges"]]


def wordpiece(counts, size):
    """The vocabulary in order: merge the pair with the greatest f(ab) / (f(a) f(b)), then the greatest f(ab), then the
    least ids; everything is counted again after each merge."""
    words = {w: [w[0]] + ["##" + c for c in w[1:]] for w in counts}
    vocab = SPECIALS + sorted({c for w in counts for c in w}) + sorted({p for s in words.values() for p in s[1:]})
    while len(vocab) < size:
        f, pairs = collections.Counter(), collections.Counter()
        for w, n in counts.items():
            for p in words[w]:
                f[p] += n
            for pair in zip(words[w], words[w][1:]):
                pairs[pair] += n
        ids = {p: i for i, p in enumerate(vocab)}
        found = [(-n / (f[a] * f[b]), -n, ids[a], ids[b], a, b) for (a, b), n in pairs.items() if n >= 2]
        if not found:
            break
        a, b = min(found)[4:]
        merged = a + b[2:]
        for w, s in words.items():
            out, i = [], 0
            while i < len(s):
                both = i + 1 < len(s) and s[i] == a and s[i + 1] == b
                out.append(merged if both else s[i])
                i += 2 if both else 1
            words[w] = out
        if merged not in ids:
            vocab.append(merged)
    return vocab


def likelihood(counts, scores):
    """The mean logarithm of a word's probability, over all ways to write it."""
    total = 0.0
    for w, n in counts.items():
        ways = [1.0] + [0.0] * len(w)
        for i in range(len(w)):
            for k in range(i + 1, len(w) + 1):
                if w[i:k] in scores:
                    ways[k] += ways[i] * math.exp(scores[w[i:k]])
        total += n * math.log(ways[-1])
    return total / sum(counts.values())


os.makedirs(OUT, exist_ok=True)
text = make_text(900, 11)
write("text.tsv", text)
write("merges_bytes.txt", bpe_merges(text, pre_tokenizers.ByteLevel(add_prefix_space=False), None, BYTES,
                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
write("merges_letters.txt", bpe_merges(text, pre_tokenizers.Whitespace(),
                                       normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
                                       LETTERS))

normalizer, cutter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
counts = collections.Counter(w for line in text for w, _ in cutter.pre_tokenize_str(normalizer.normalize_str(line)))
vocab = wordpiece(counts, PIECES)
write("vocab_wordpiece.txt", vocab)
t = Tokenizer(models.WordPiece({p: i for i, p in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=100))
t.normalizer, t.pre_tokenizer = normalizer, cutter
write("ids_wordpiece.txt", [" ".join(map(str, t.encode(line, add_special_tokens=False).ids)) for line in text[:100]])

t = Tokenizer(models.Unigram())
t.pre_tokenizer = pre_tokenizers.Metaspace()
t.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=UNIGRAM, special_tokens=SPECIALS, unk_token="[UNK]",
                                                    show_progress=False))
scores = {p: s for p, s in json.loads(t.to_str())["model"]["vocab"][len(SPECIALS):]}
counts = collections.Counter("\u2581" + w for line in text for w in line.split(" "))
write("unigram.txt", [f"{likelihood(counts, scores):.9f}"])
