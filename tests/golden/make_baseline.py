"""make_baseline.py - probabilities of linear models on texts and on vectors by scikit-learn, for tests/worker/test_baseline.c.

    build/peer/bin/python tests/golden/make_baseline.py > tests/golden/baseline.json

TfidfVectorizer, or StandardScaler on given numbers, then LogisticRegression, OneVsRestClassifier or Ridge: fitted on some
rows, asked for the others. Two solvers must agree on what is written.
"""
import json
import random
import warnings

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

warnings.filterwarnings("error")
warnings.filterwarnings("ignore", message="Label .* is present in (all|none)|Label not .* is present in all")
AGREED = 1e-6
ROWS = 60

rng = random.Random(20240610)


def text(words, most=16):
    return " ".join(rng.choice(words) for _ in range(rng.randrange(1, most)))


def texts_of(hints):
    """One text a row: words of its own beside those of everybody; hints[i] are those of row i."""
    common = [f"w{i}" for i in range(40)]
    return [text(common + hint * 4) for hint in hints]


def features(line, x, fitted):
    """Of all rows, as fitted on some."""
    if "vectors" in line:
        return StandardScaler().fit(x[fitted]).transform(x) if line["standardize"] else x
    joined = [a if b is None else a + " " + b for a, b in zip(line["texts"], line["pairs"] or [None] * len(line["texts"]))]
    vectorizer = TfidfVectorizer(ngram_range=(1, line["ngram_max"]), sublinear_tf=True, min_df=line["min_df"])
    vectorizer.fit([joined[i] for i in fitted])
    return vectorizer.transform(joined)


def logistic(solver, line, tol):
    return LogisticRegression(C=line["C"], solver=solver, tol=tol, max_iter=100000,
                              class_weight="balanced" if line["balanced"] else None)


def solve(line, x, fitted, scored, make):
    weight = None if line["weight"] is None else np.array(line["weight"])[fitted]
    labels = line["labels"]
    if line["kind"] == "regression":
        y = np.array(line["label"], dtype=np.float32).astype(np.float64)
        return make().fit(x[fitted], y[fitted], sample_weight=weight).predict(x[scored]).reshape(-1, 1)
    if line["kind"] == "multi_label":
        y = MultiLabelBinarizer(classes=labels).fit_transform([v.split(",") if v else [] for v in line["label"]])
        return OneVsRestClassifier(make()).fit(x[fitted], y[fitted]).predict_proba(x[scored])
    y = np.array([labels.index(v) for v in line["label"]])
    model = make().fit(x[fitted], y[fitted], sample_weight=weight)
    p = np.zeros((len(scored), len(labels)))
    p[:, model.classes_] = model.predict_proba(x[scored])
    return p


def case(name, kind, label, labels=(), texts=None, pairs=None, vectors=None, weight=None, balanced=False, standardize=False,
         absent=None, c=1.0, ngram_max=3, min_df=1):
    rows = len(label)
    order = rng.sample(range(rows), rows)
    fitted, scored = sorted(order[:rows * 2 // 3]), sorted(order[rows * 2 // 3:])
    if absent is not None:  # a label of no training row
        fitted = [i for i in fitted if absent not in label[i].split(",")]
    line = {"name": name, "kind": kind, "label": label, "labels": list(labels), "weight": weight, "balanced": balanced, "C": c,
            "fitted": fitted, "scored": scored}
    if vectors is None:
        line.update(texts=texts, pairs=pairs, ngram_max=ngram_max, min_df=min_df)
    else:
        line.update(vectors=[float(v) for v in vectors.reshape(-1)], columns=vectors.shape[1], standardize=standardize)
    x = features(line, None if vectors is None else vectors.astype(np.float64), fitted)
    if kind == "regression":
        found = [solve(line, x, fitted, scored, lambda s=s, t=t: Ridge(alpha=1 / c, solver=s, tol=t, max_iter=100000))
                 for s, t in (("sag" if vectors is None else "cholesky", 1e-12), ("sparse_cg" if vectors is None else "svd", 1e-12))]
    else:
        found = [solve(line, x, fitted, scored, lambda s=s, t=t: logistic(s, line, t)) for s, t in (("newton-cg", 1e-10), ("lbfgs", 1e-9))]
    gap = np.abs(found[0] - found[1]).max()
    assert gap < AGREED * (np.std(found[0]) if kind == "regression" else 1), (name, gap)
    line["p"] = [float(v) for v in found[0].reshape(-1)]
    return line


def cases():
    two = [rng.choice(["no", "yes"]) for _ in range(ROWS)]
    four = [rng.choice("aaabbcd") for _ in range(ROWS)]
    own = {k: [f"{k}{i}" for i in range(5)] for k in ["no", "yes", *"abcd"]}
    weight = [rng.choice([0.0, 0.5, 1.0, 1.0, 3.0]) for _ in range(ROWS)]
    yield case("two classes", "classes", two, ("no", "yes"), texts_of([own[v] for v in two]))
    yield case("four classes, balanced", "classes", four, "abcd", texts_of([own[v] for v in four]), balanced=True, ngram_max=2)
    yield case("four classes, weighted rows", "classes", four, "abcd", texts_of([own[v] for v in four]), weight=weight, c=4.0)
    yield case("a class that no training row has", "classes", four, "abcd", texts_of([own[v] for v in four]), absent="b")
    three = [rng.choice("aab") if i % 9 else "c" for i in range(ROWS)]
    yield case("two of three classes", "classes", three, "abc", texts_of([own[v] for v in three]), absent="c", min_df=2)
    yield case("pairs", "classes", two, ("no", "yes"), texts_of([[]] * ROWS), pairs=texts_of([own[v] for v in two]))
    names = [f"l{i:02d}" for i in range(19)]
    many = [[n for i, n in enumerate(names) if i == 3 or rng.random() < (0.1 if i == 17 else 0.25)] for _ in range(ROWS)]
    tagged = texts_of([[n + "x" for n in m] for m in many])
    yield case("nineteen labels", "multi_label", [",".join(m) for m in many], names, tagged, absent="l17", ngram_max=1, c=10.0)
    value = [round(rng.gauss(50, 20), 2) for _ in range(ROWS)]
    yield case("values", "regression", [str(v) for v in value], (), texts_of([own["yes" if v > 50 else "no"] for v in value]))
    noise = np.random.default_rng(20240611)
    hidden = noise.normal(size=(ROWS, 12)).astype(np.float32) * 0.3 + 2
    three = ["abc"[int(v)] for v in (hidden[:, :3] + 0.2 * noise.normal(size=(ROWS, 3))).argmax(1)]
    yield case("vectors", "classes", three, "abc", vectors=hidden)
    yield case("vectors, standardized", "classes", three, "abc", vectors=hidden, standardize=True, balanced=True)
    yield case("vectors, values", "regression", [str(round(float(v), 3)) for v in hidden[:, 0] * 30 + noise.normal(size=ROWS)], (),
               vectors=hidden, standardize=True, weight=[w + 0.1 for w in weight])


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
