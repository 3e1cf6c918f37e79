"""Text of any size for measuring tokenizer training: words by Zipf's law, nobody's prose.

Usage: zipf_text.py MEGABYTES [SEED [WORDS]] > text.tsv. One column, "text", a sentence or a few a row. WORDS (20 million) words
are drawn from syllables, frequent ones shorter; word number r is used with a probability of (r + 2.7)^-1.1 to a constant. So new
words keep coming as in real text: 2 million distinct ones in 100 MB, 9 million in 1 GB, of 150 million. One word in 50 is a
number; accents, capitals at the beginning of sentences and punctuation are there, too. The same arguments make the same bytes.
"""
import sys

import numpy

CHUNK = 1 << 20  # words


def syllables(rng):
    """A few hundred, each with its probability."""
    onsets = ["", "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "ch", "cl", "gr",
              "pr", "sh", "st", "th", "tr"]
    ends = ["a", "e", "i", "o", "u", "ea", "\u00e9", "an", "ar", "en", "er", "es", "in", "ing", "on", "or", "ed", "al", "ly",
            "\u00fc"]
    found = [a + b for a in onsets for b in ends]
    rng.shuffle(found)
    found.sort(key=len)  # the shorter, the likelier
    weights = (numpy.arange(len(found)) + 10.0) ** -1.0
    return numpy.array([s.encode() for s in found]), weights / weights.sum()


def make_words(rng, count):
    """By rank: word r has one syllable more each time that r passes one of these."""
    texts, weights = syllables(rng)
    words = numpy.zeros(count, dtype="S24")
    for begin in range(0, count, CHUNK):
        rank = numpy.arange(begin, min(begin + CHUNK, count))
        length = 1 + sum((rank > limit).astype(int) for limit in (200, 20000, 1000000)) + rng.integers(0, 2, len(rank))
        part = numpy.zeros(len(rank), dtype="S24")
        for k in range(length.max()):
            next_one = texts[rng.choice(len(texts), len(rank), p=weights)]
            part = numpy.where(k < length, numpy.char.add(part, next_one), part)
        words[begin:begin + len(rank)] = part
    return words


def main():
    size = int(float(sys.argv[1]) * 1e6)
    rng = numpy.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 20000000
    words = make_words(rng, count)
    ends = numpy.cumsum((numpy.arange(1, count + 1) + 2.7) ** -1.1)
    ends /= ends[-1]
    marks = numpy.array([" ", ", ", ". ", ".\n", "; ", "! ", "-", " (", ") "], dtype=object)
    odds = [0.86, 0.06, 0.02, 0.02, 0.01, 0.005, 0.015, 0.005, 0.005]
    out, written = sys.stdout.buffer, 0
    written += out.write(b"text\n")
    while written < size:
        text = words[numpy.searchsorted(ends, rng.random(CHUNK))].tolist()
        for i, n in zip(numpy.flatnonzero(rng.random(CHUNK) < 0.02).tolist(), (10 ** rng.uniform(0, 6, CHUNK)).astype(int).tolist()):
            text[i] = b"%d" % n
        between = marks[rng.choice(len(marks), CHUNK, p=odds)]
        for i in numpy.flatnonzero((between == ". ") | (between == ".\n")).tolist():
            if i + 1 < CHUNK:
                text[i + 1] = text[i + 1].capitalize()
        parts = [b""] * (2 * CHUNK)
        parts[::2] = text
        parts[1::2] = [m.encode() for m in between.tolist()]
        block = b"".join(parts)[:size - written]
        if written + len(block) == size:  # the last row is whole: what was cut goes
            block = block[:block.rfind(b"\n") + 1] or b"a\n"
            out.write(block)
            break
        written += out.write(block)


main()
