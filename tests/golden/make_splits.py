#!/usr/bin/env python3
"""Write tests/golden/splits.json: the splits of scikit-learn's splitters without shuffling, row for row.

    build/peer/bin/python tests/golden/make_splits.py > tests/golden/splits.json

The stored numbers are from scikit-learn 1.9.1. A split is a string with one letter a row: t trains, s is scored, . neither.
Quantile bins are numpy.quantile's; folds of several labels come from a plain implementation of Sechidis et al. (2011)
below, with fractions, written from the paper (ties to the lower fold, as data/fold_labels.h says).
"""
import json
import sys
import warnings
from fractions import Fraction

import numpy as np
from sklearn.model_selection import (GroupKFold, KFold, LeaveOneGroupOut, LeaveOneOut, LeavePOut, PredefinedSplit,
                                     StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit)

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20250117)


def by_first_appearance(values):
    seen = {}
    return np.array([seen.setdefault(v, len(seen)) for v in values])


def letters(rows, splits, order=None):
    """(train, test) places as strings; order[i] is the row at place i."""
    out = []
    for train, test in splits:
        roles = np.full(rows, ".")
        roles[train if order is None else order[train]] = "t"
        roles[test if order is None else order[test]] = "s"
        out.append("".join(roles))
    return out


def case(kind, rows, splits, **columns):
    return {"kind": kind, "rows": rows, **{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in columns.items()},
            "splits": splits}


def folds(rows, folds, fold):
    return letters(rows, [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(folds)])


def quantile_bins(values, bins):
    values = values.astype(np.float64)
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    edges = edges[(edges > values.min()) & (edges < values.max())]
    return np.searchsorted(edges, values, side="left")


def iterative(targets, k, groups=None):
    """Fold of every row. Units are rows, or groups by ascending number, those with most rows of the label first."""
    rows, labels = targets.shape
    units = [[i] for i in range(rows)] if groups is None else [list(np.flatnonzero(groups == g)) for g in np.unique(groups)]
    wanted = [Fraction(rows, k)] * k
    wanted_of = [[Fraction(int(n), k) for n in targets.sum(0)] for _ in range(k)]
    left, fold = set(range(len(units))), {}

    def place(u, key):
        best = max(range(k), key=lambda f: (key(f), wanted[f], -f))
        fold[u] = best
        left.discard(u)
        wanted[best] -= len(units[u])
        for label in range(labels):
            wanted_of[best][label] -= int(targets[units[u], label].sum())

    while True:
        counts = [sum(int(targets[units[u], label].sum()) for u in left) for label in range(labels)]
        rarest = min((label for label in range(labels) if counts[label] > 0), key=lambda label: counts[label], default=None)
        if rarest is None:
            break
        having = [u for u in sorted(left) if targets[units[u], rarest].any()]
        for u in sorted(having, key=lambda u: -int(targets[units[u], rarest].sum())):
            place(u, lambda f: wanted_of[f][rarest])
    for u in sorted(left):
        place(u, lambda f: 0)
    out = np.zeros(rows, int)
    for u, f in fold.items():
        out[units[u]] = f
    return out


def cases():
    labels, groups = rng.integers(0, 3, 40), by_first_appearance(rng.integers(0, 11, 40))
    labels[:12] = np.tile([0, 1, 2], 4)
    for kind, splitter in [("kfold", KFold), ("stratified", StratifiedKFold), ("group", GroupKFold),
                           ("stratified_group", StratifiedGroupKFold)]:
        yield case(kind, 40, letters(40, splitter(4).split(labels, labels, groups)), folds=4, label=labels, group=groups)
    for n in (2, 7):
        yield case("leave_one_out", n, letters(n, LeaveOneOut().split(np.zeros(n))))
    for n, p in [(6, 1), (6, 2), (7, 3), (5, 4), (9, 2), (12, 6)]:
        yield case("leave_p_out", n, letters(n, LeavePOut(p).split(np.zeros(n))), p=p)
    for n, g in [(12, 3), (25, 9), (30, 2)]:
        groups = by_first_appearance(np.concatenate([np.arange(g), rng.integers(0, g, n - g)])) * 7 + 2
        rng.shuffle(groups)
        yield case("leave_one_group_out", n, letters(n, LeaveOneGroupOut().split(groups, groups, groups)), group=groups)
    for n, k, gap, most, test in [(10, 3, 0, 0, 0), (13, 5, 0, 0, 0), (30, 4, 2, 0, 0), (30, 4, 0, 7, 0), (30, 3, 1, 5, 4),
                                  (17, 2, 3, 100, 5), (6, 5, 0, 0, 0), (40, 1 + 1, 9, 3, 12)]:
        splitter = TimeSeriesSplit(k, gap=gap, max_train_size=most or None, test_size=test or None)
        options = {"folds": k, "gap": gap, "max_train": most, "test_rows": test}
        yield case("rolling", n, letters(n, splitter.split(np.zeros(n))), **options)
        time = rng.integers(0, n // 2, n).astype(float) / 4 - 3  # with ties, which keep the order of rows
        order = np.argsort(time, kind="stable")
        yield case("rolling", n, letters(n, splitter.split(np.zeros(n)), order), time=time, **options)
    for numbers in (np.array([0, 1, 1, 0, 2, 2, 0]), np.array([10, -1, 9, 9, -1, 10, 2, 9]), rng.integers(0, 6, 30)):
        splits = letters(len(numbers), PredefinedSplit(numbers).split())
        yield case("column", len(numbers), splits, fold=[str(v) for v in numbers])
    words = ["b", "a", "train", "", "b", "c", "a", "B"]
    yield case("column", 8, letters(8, PredefinedSplit([2, 1, -1, -1, 2, 3, 1, 0]).split()), fold=words)
    for n, k, bins in [(50, 5, 10), (50, 5, 3), (23, 4, 10), (60, 3, 20), (40, 4, 7)]:
        values = np.round(rng.normal(size=n), 3 if n % 2 else 1).astype(np.float32)
        bin_of = quantile_bins(values, min(bins, n // k))
        yield case("bins", n, letters(n, StratifiedKFold(k).split(bin_of, bin_of)), folds=k, bins=bins, value=values, outputs=1)
    values, groups = rng.gamma(1.0, size=60).astype(np.float32), by_first_appearance(rng.integers(0, 15, 60))
    bin_of = quantile_bins(values, 5)
    yield case("bins", 60, letters(60, StratifiedGroupKFold(3).split(bin_of, bin_of, groups)), folds=3, bins=5, value=values,
               outputs=1, group=groups)
    values[:] = 2.5
    yield case("bins", 60, letters(60, StratifiedKFold(4).split(values, np.zeros(60))), folds=4, bins=5, value=values, outputs=1)
    for n, k, l, share in [(20, 2, 3, 0.4), (37, 3, 5, 0.3), (60, 5, 8, 0.15), (30, 4, 1, 0.5), (50, 10, 6, 0.6), (9, 3, 4, 0.0)]:
        targets = (rng.random((n, l)) < share * rng.uniform(0.2, 1.5, l)).astype(int)
        yield case("multi_label", n, folds(n, k, iterative(targets, k)), folds=k, value=targets.reshape(-1), outputs=l)
        groups = rng.integers(0, max(n // 3, k), n) * 3
        groups[:k] = np.arange(k) * 3
        yield case("multi_label", n, folds(n, k, iterative(targets, k, groups)), folds=k, value=targets.reshape(-1), outputs=l,
                   group=groups)


def main():
    print("[\n" + ",\n".join(json.dumps(c) for c in cases()) + "\n]")


if __name__ == "__main__":
    sys.exit(main())
