#!/usr/bin/env python3
"""Write tests/golden/folds.txt: scikit-learn's folds without shuffling, row for row.

Run with a Python that has scikit-learn (the stored numbers are from 1.9.1):  python make_folds.py > folds.txt
One case is four lines: "kind folds rows", labels, groups, folds. Groups are numbered by first appearance.
"""
import sys
import warnings

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20240607)
KINDS = {"kfold": KFold, "stratified": StratifiedKFold, "group": GroupKFold, "stratified_group": StratifiedGroupKFold}


def by_first_appearance(values):
    seen = {}
    return np.array([seen.setdefault(v, len(seen)) for v in values])


def case(kind, folds, labels, groups):
    fold = np.full(len(labels), -1)
    for f, (_, test) in enumerate(KINDS[kind](folds).split(labels, labels, groups)):
        fold[test] = f
    print(kind, folds, len(labels))
    for row in (labels, groups, fold):
        print(*row)


def main():
    for kind in KINDS:
        for rows, classes, groups, folds in [(10, 2, 5, 2), (23, 2, 7, 3), (40, 3, 12, 4), (61, 5, 20, 5),
                                             (50, 7, 50, 7), (80, 9, 11, 10), (97, 17, 31, 3), (64, 2, 9, 8)]:
            p = rng.dirichlet(np.full(classes, 2.0))
            labels = rng.choice(classes, rows, p=p)
            labels[rng.permutation(rows)[:classes]] = np.arange(classes)
            labels[rng.permutation(rows)[:folds]] = np.bincount(labels).argmax()  # a class that fills the folds
            case(kind, folds, labels, by_first_appearance(rng.integers(0, groups, rows)))
    labels = np.zeros(1378, int)
    labels[[5, 700, 1300]] = 1  # N6
    case("stratified", 4, labels, np.zeros(1378, int))
    # equal groups everywhere: ties decide
    labels = np.tile([0, 1, 1, 2], 12)
    case("group", 5, labels, np.repeat(np.arange(12), 4))
    case("stratified_group", 5, labels, np.repeat(np.arange(12), 4))
    labels = rng.integers(0, 150, 1200)  # beyond NumPy's blocks of 128
    labels[:10] = 3
    case("stratified_group", 4, labels, by_first_appearance(rng.integers(0, 60, 1200)))


if __name__ == "__main__":
    sys.exit(main())
