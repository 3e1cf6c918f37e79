"""`cohort baseline` beside scikit-learn, fold by fold: TF-IDF, and embeddings that transformers makes.

    build/peer/bin/python tests/long/baseline.py [FILE.tsv TEXT LABEL [TEST.tsv]]

Without arguments Reuters (scripts/fetch-reuters) and MiniLM; else TF-IDF on the columns of a file of tab-separated values,
cross-validated, or trained on it and scored on TEST.tsv.

scikit-learn solves with tol=1e-8: by default it stops when the mean gradient is below 1e-4, before its answer stands still.
How far off that is, is said, too.
"""
import csv
import json
import os
import sys
import time

import numpy
import torch
from sklearn import metrics as sk
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import common

BOUND = 1e-3  # of scores, and of probabilities
csv.field_size_limit(1 << 30)


def tfidf(texts, fitted):
    vectorizer = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True)
    vectorizer.fit([texts[i] for i in fitted])
    return vectorizer.transform(texts)


def regression(x, y, fitted, scored, tol=1e-8):
    model = LogisticRegression(max_iter=5000, tol=tol).fit(x[fitted], y[fitted])
    return model.predict_proba(x[scored])


def scores(p, y):
    out = {"accuracy": sk.accuracy_score(y, p.argmax(1)), "macro_f1": sk.f1_score(y, p.argmax(1), average="macro"),
           "log_loss": sk.log_loss(y, p, labels=list(range(p.shape[1])))}
    if p.shape[1] == 2:
        out["roc_auc"] = sk.roc_auc_score(y, p[:, 1])
    return out


def read_table(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def compare(report, what, results, p, wanted, y):
    """Probabilities of rows and the scores that results.json has, beside scikit-learn's."""
    if p is not None:
        report.check(f"{what}: greatest difference of a probability", numpy.abs(p - wanted).max(), BOUND)
    for name, value in scores(wanted, y).items():
        report.check(f"{what}: {name} ({value:.4f})", abs(results["metrics"][name] - value), BOUND)


def cross_validated(report, what, kind, out, texts, features):
    """features(fitted): of all rows."""
    with open(os.path.join(out, kind, "results.json"), encoding="utf-8") as f:
        results = json.load(f)
    rows = read_table(os.path.join(out, kind, "oof.tsv"))
    labels = results["labels"]
    report.equal(f"{what}: rows", [r["row"] for r in rows] == [str(i) for i in range(len(texts))], True)
    p = numpy.array([[float(r["pred_" + name]) for name in labels] for r in rows])
    y = numpy.array([labels.index(r["label"]) for r in rows])
    fold = numpy.array([int(r["fold"]) for r in rows])
    wanted, early, seconds = numpy.zeros_like(p), numpy.zeros_like(p), 0.0
    for k in sorted(set(fold)):
        fitted, scored, started = numpy.flatnonzero(fold != k), numpy.flatnonzero(fold == k), time.time()
        x = features(fitted)
        wanted[scored] = regression(x, y, fitted, scored)
        seconds += time.time() - started
        early[scored] = regression(x, y, fitted, scored, tol=1e-4)
    compare(report, what, results, p, wanted, y)
    report.note(f"{what}: scikit-learn with tol=1e-4 differs from itself by, in a probability and in accuracy",
                "%.2g, %.2g" % (numpy.abs(early - wanted).max(), abs(scores(early, y)["accuracy"] - scores(wanted, y)["accuracy"])))
    own = results["baseline"]
    report.note(f"{what}: {len(rows)} rows, {own['features'][1]} features, {len(labels)} classes; seconds, beside scikit-learn",
                "%.1f, %.1f" % (own["features_s"] + own["fit_s"], seconds))


def file(report, scratch, path, text, label, test):
    what, out = os.path.basename(os.path.dirname(os.path.abspath(path))), os.path.join(scratch, "file")
    keys = dict(data__train=path, data__text=text, data__label=label, out=out)
    texts, y = [r[text] for r in read_table(path)], [r[label] for r in read_table(path)]
    if test is None:
        common.cohort("baseline", cv__folds=5, **keys)
        cross_validated(report, what, "tfidf", out, texts, lambda fitted: tfidf(texts, fitted))
        return
    common.cohort("baseline", data__eval=test, **keys)
    with open(os.path.join(out, "tfidf", "results.json"), encoding="utf-8") as f:
        results = json.load(f)
    fitted, scored = range(len(texts)), read_table(test)
    texts += [r[text] for r in scored]
    y = numpy.array([results["labels"].index(v) for v in y + [r[label] for r in scored]])
    scored = numpy.arange(len(fitted), len(texts))
    wanted = regression(tfidf(texts, fitted), y, numpy.array(fitted), scored)
    compare(report, f"{what}, test", results, None, wanted, y[scored])


def read_reuters(path):
    """Text and label of each row; the file's quotes are escaped as in C."""
    rows = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("'"):
                body, label = line.rstrip().rsplit(",", 1)
                rows.append((bytes(body[1:-1], "utf-8").decode("unicode_escape").encode("latin-1").decode("utf-8"), label))
    return rows


def embeddings(texts, pooling, length):
    """Of the frozen encoder: the last hidden state of the first token, or the mean over all."""
    tokenizer = common.AutoTokenizer.from_pretrained(common.MINILM)
    model = common.transformers.AutoModel.from_pretrained(common.MINILM).eval()
    out = []
    with torch.no_grad():
        for i in range(0, len(texts), 32):
            batch = tokenizer(texts[i:i + 32], truncation=True, max_length=length, padding=True, return_tensors="pt")
            hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
            out.append(hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(out).numpy().astype(numpy.float64)


def reuters(report, scratch):
    path, length = os.path.join(common.REUTERS, "ReutersGrain-train.arff"), 64
    texts = [text for text, _ in read_reuters(path)]
    for pooling in ["cls", "mean"]:
        out = os.path.join(scratch, pooling)
        common.cohort("baseline", data__train=path, data__text="Text", data__label="class-att", cv__folds=4, out=out,
                      model__path=common.MINILM, data__max_length=length, train__precision="fp32", baseline__pooling=pooling)
        if pooling == "cls":
            cross_validated(report, "Reuters, TF-IDF", "tfidf", out, texts, lambda fitted: tfidf(texts, fitted))
        x = embeddings(texts, pooling, length)
        cross_validated(report, f"Reuters, MiniLM's embeddings, {pooling}", "embeddings", out, texts,
                        lambda fitted, x=x: StandardScaler().fit(x[fitted]).transform(x))


def main(report, scratch):
    if len(sys.argv) > 1:
        file(report, scratch, *sys.argv[1:4], sys.argv[4] if len(sys.argv) > 4 else None)
    else:
        reuters(report, scratch)


common.run_script("baseline", main)
