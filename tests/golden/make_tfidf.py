"""make_tfidf.py - words by Python's re, TF-IDF vectors by scikit-learn, for tests/data/test_words.c and test_tfidf.c.

    build/peer/bin/python tests/golden/make_tfidf.py words > tests/golden/words.json
    build/peer/bin/python tests/golden/make_tfidf.py tfidf > tests/golden/tfidf.json

words.json: texts with their lower case and tokens, and sums over all code points. tfidf.json: texts, options, which rows were
fitted on; the vocabulary in column order, idf, and every row's vector as lists of columns and values.
"""
import json
import random
import re
import sys

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

TOKEN = re.compile(r"(?u)\b\w\w+\b")
MASK = 2**64 - 1

# What is easily got wrong: final sigmas with all kinds of neighbours, a dotted I, digraphs in title case, marks that part
# words, digits of other scripts, fractions, circled letters, letters beyond the basic plane, half and full width.
HARD = ["", " ", "a", "ab", "_", "__", "a_b", "a-b cd", "don't can't it's", "X AB abc A1 1a 12 1", "İstanbul IŞIK ısı",
        "ΣΑΣ ΟΔΟΣ Σ ΑΣ. ΑΣ'Σ ΑΣ'Α Α'Σ 'Σ ΣΣ ΣΣΣ", "ΟΔΟΣ\u0301 Σ\u0301Α Α\u0301Σ Α\u00adΣ\u00adΑ Α\u00adΣ\u00ad", "ᾼΣ ᾼΣ ʰΣ ªΣ AΣ",
        "Straße STRASSE ẞ", "ǅungla ǈ Ǆ", "e\u0301te\u0301 été ÉTÉ", "हिन्दी भाषा में", "ভাষা বাংলা", "ไทยภาษา สวัสดี", "中文字 日本語テキスト ｶﾅ",
        "١٢٣ ४५६ Ⅻ ⅻ ½ ²³ ①② ㊿", "Ⓐⓐ ⒜", "𐐀𐐨 𝐀𝐁 𝒜𝒷 𝟘𝟙", "ＡＢＣ ａｂｃ １２", "👍🏽 ok👍ok 👨‍👩‍👧", "a\u200bb a\u200db ab\u200ccd",
        "x\u00a0y xx\u00a0yy xx\u2028yy", "\u1c80\u1c81 \ua64a \u10d0\u10d1 \u1c90\u1c91", "\u13a0\u13a1 \uab70\uab71", "\u0130\u0130",
        "naïve Naïve NAÏVE", "l’été aujourd’hui", "C++ C# .NET a.b.c", "e-mail: a@b.de", "100,000.5 3x4"]


def random_texts(rng, count):
    pools = [range(0x20, 0x7f), range(0xa0, 0x250), range(0x370, 0x400), range(0x400, 0x530), range(0x590, 0x700),
             range(0x900, 0xa00), range(0x1e00, 0x2000), range(0x2000, 0x2200), range(0x2c00, 0x2e00), range(0x3040, 0x3100),
             range(0xa640, 0xa7ff), range(0x10400, 0x10450), range(0x1d400, 0x1d7ff), range(0x1f300, 0x1f400)]
    sigma = ["Σ", "Σ", "σ", "Α", "'", ".", "\u0301", "\u00ad", "A", "1", "_", " ", "ʰ"]
    for i in range(count):
        if i % 3 == 0:
            yield "".join(rng.choice(sigma) for _ in range(rng.randrange(1, 12)))
        else:
            pool = rng.choice(pools)
            yield "".join(chr(rng.choice(pool)) if rng.random() < 0.85 else rng.choice(" -'ab_1Σ")
                          for _ in range(rng.randrange(1, 60)))


def words():
    rng = random.Random(20240607)
    texts = HARD + [t for t in random_texts(rng, 120)]
    points = [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    word = [ord(c) for c in points if re.match(r"(?u)\w", c)]
    lower = [ord(c.lower()[0]) for c in points]
    return {"texts": [{"text": t, "lower": t.lower(), "words": TOKEN.findall(t.lower())} for t in texts],
            "word": {"count": len(word), "sum": str(sum(c * c for c in word) & MASK)},
            "lower": {"count": sum(ord(c.lower()[0]) != ord(c) for c in points),
                      "sum": str(sum(ord(c) * x for c, x in zip(points, lower)) & MASK)}}


def corpus(rng, rows, kinds):
    """Texts with many repetitions; some are empty, some without a word."""
    vocabulary = [w for w in ("the of and to in grain wheat corn price trade Rate BANK Été ΟΔΟΣ мир Мир 中文 日本 हिन्दी x y 10 1987 "
                              "don't re-use a_b").split()][:kinds]
    weights = [1 / (i + 1) for i in range(len(vocabulary))]
    for i in range(rows):
        n = rng.choice([0, 1, 2, 3, 5, 9, 14, 40]) if i % 7 else 0
        yield rng.choice([" ", ", ", "\n"]).join(rng.choices(vocabulary, weights, k=n)) + ("" if i % 7 else rng.choice(["", "?!", "a b"]))


def case(name, texts, fitted, **options):
    options.setdefault("sublinear_tf", True)
    options.setdefault("ngram_range", (1, 3))
    vectorizer = TfidfVectorizer(**options)
    vectorizer.fit([texts[i] for i in fitted])
    x = vectorizer.transform(texts).sorted_indices()
    assert x.dtype == np.float64
    return {"name": name, "texts": texts, "fitted": fitted, "ngram_min": options["ngram_range"][0],
            "ngram_max": options["ngram_range"][1], "sublinear": options["sublinear_tf"],
            "lowercase": options.get("lowercase", True), "min_df": float(options.get("min_df", 1)),
            "max_df": float(options.get("max_df", 1.0)), "max_features": options.get("max_features") or 0,
            "vocabulary": vectorizer.get_feature_names_out().tolist(),
            "rows": [{"columns": r.indices.tolist(), "values": r.data.tolist()} for r in x]}


def tfidf():
    rng = random.Random(20240608)
    texts = list(corpus(rng, 40, 24))
    every, some = list(range(40)), sorted(rng.sample(range(40), 25))
    shuffled = rng.sample(range(40), 30)
    few = list(corpus(rng, 24, 9))
    repeated = ["grain " * 5000 + "wheat", "wheat " * 70 + "corn corn", "corn grain", "wheat corn price"]
    yield case("all rows", texts, every)
    yield case("a fold", texts, some)
    yield case("rows in any order", texts, shuffled)
    yield case("single words", few, list(range(16)), ngram_range=(1, 1))
    yield case("pairs of words alone", few, list(range(16)), ngram_range=(2, 2))
    yield case("up to five words", few, list(range(20)), ngram_range=(1, 5))
    yield case("plain counts, case kept", texts, some, sublinear_tf=False, lowercase=False, ngram_range=(1, 2))
    yield case("rare terms left out", texts, every, min_df=3)
    yield case("a share of the rows", texts, every, min_df=0.08, max_df=0.4, ngram_range=(1, 2))
    yield case("frequent terms left out", texts, every, max_df=9, ngram_range=(1, 1))
    for limit in (1, 4, 6):
        yield case(f"the {limit} most frequent", few, list(range(18)), ngram_range=(1, 1), max_features=limit)
    yield case("thousands of one word", repeated, [0, 1, 2], ngram_range=(1, 2))


def check_ties(line):
    """scikit-learn leaves open which of equally frequent terms max_features keeps, so no case may depend on it."""
    if line["max_features"]:
        texts = [line["texts"][i] for i in line["fitted"]]
        totals = np.sort(np.asarray(CountVectorizer(ngram_range=(line["ngram_min"], line["ngram_max"]))
                                    .fit_transform(texts).sum(0)).ravel())[::-1]
        assert len(totals) > line["max_features"] and totals[line["max_features"] - 1] > totals[line["max_features"]], totals
    return line


if sys.argv[1] == "words":
    print(json.dumps(words(), ensure_ascii=True, indent=0))
else:
    print("[" + ",\n".join(json.dumps(check_ties(c)) for c in tfidf()) + "]")
