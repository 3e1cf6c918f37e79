"""Every metric against scikit-learn and SciPy on 800 random cases: few and many rows, ties, scores far from 0, classes and
labels that are true or predicted nowhere or everywhere, constants. What is called undefined must be undefined in both.

The numbers wanted are those of tests/golden/make_metrics.py. COHORT_SCORES_SEED draws other cases."""
import json
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import scipy.stats
from sklearn import metrics as sk

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "golden"))
import make_metrics  # noqa: E402

CASES = 800
PROGRAM = os.path.join(os.path.dirname(common.COHORT), "tests", "long_score_rows")
random = np.random.default_rng(int(os.environ.get("COHORT_SCORES_SEED", 1)))


def logits(n, outputs):
    z = random.normal(size=(n, outputs)) * random.choice([0.1, 1.0, 3.0, 30.0])
    kind = random.integers(6)
    if kind == 0:  # ties
        z = np.round(z)
    elif kind == 1 and random.random() < 0.3:
        z[:, random.integers(outputs)] = random.choice([-60.0, 60.0])
    elif kind == 2 and random.random() < 0.3:
        z[:] = random.choice([0.5, -2.0])
    return z.astype(np.float32)


def classes_case(name, n):
    classes = int(random.choice([2, 2, 2, 3, 4, 5, 6, 9]))
    outputs = 1 if classes == 2 and random.random() < 0.4 else classes
    z = logits(n, outputs)
    drawn = np.arange(classes)
    if random.random() < 0.3:  # some classes are true nowhere
        drawn = random.choice(classes, size=random.integers(1, classes + 1), replace=False)
    y = random.choice(drawn, size=n)
    if random.random() < 0.7:
        best = (z[:, 0] > 0).astype(int) if outputs == 1 else z.argmax(1)
        y = np.where(np.isin(best, drawn) & (random.random(n) < random.random()), best, y)
    return make_metrics.case(name, "classes", z, y, classes)


def labels_case(name, n):
    # scikit-learn has no rankings of a single label; 0 is a probability of one half, where sides differ
    z = logits(n, int(random.integers(2, 7)))
    z = np.where(z == 0, np.float32(0.25), z)
    v = (random.random(z.shape) < random.choice([0.0, 0.1, 0.5, 0.9, 1.0], p=[0.03, 0.3, 0.34, 0.3, 0.03])).astype(int)
    if random.random() < 0.2:
        v[:, random.integers(z.shape[1])] = random.integers(2)
    return make_metrics.case(name, "multi_label", z, v)


def values_case(name, n):
    z = logits(n, int(random.choice([1, 1, 2, 4])))
    v = z * random.normal() + logits(n, z.shape[1]) * random.random()
    if random.random() < 0.2:
        v = np.round(v)
    if random.random() < 0.1:
        v[:] = random.normal()
    return make_metrics.case(name, "regression", z, v)


def cases():
    for i in range(CASES):
        n = int(random.choice([1, 2, 3, 7, 20, 61, 200, 1500], p=[0.05, 0.05, 0.1, 0.2, 0.25, 0.2, 0.13, 0.02]))
        make = [classes_case, classes_case, labels_case, values_case][i % 4]
        yield make(f"case {i}", n)


def degenerate(report):
    """What docs/metrics.md says of scikit-learn and SciPy where cohort says something else, or undefined."""
    nan = math.nan
    good, ties = np.array([0.1, 0.2, 0.3, 0.4]), [[0.5] * 3] * 3
    third = [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1]]  # classes 0 and 1 are ranked right
    for what, wanted, call in [
            ("no rows", "error", lambda: sk.accuracy_score([], [])),
            ("AUC of one class", nan, lambda: sk.roc_auc_score([1] * 4, good)),
            ("AUC, a class nowhere", nan, lambda: sk.roc_auc_score([0, 1, 1, 0], third, multi_class="ovr", labels=[0, 1, 2])),
            ("weighted AUC, a class nowhere", 1.0, lambda: sk.roc_auc_score([0, 1, 1, 0], third, multi_class="ovr",
                                                                           labels=[0, 1, 2], average="weighted")),
            ("PR-AUC without a positive row", 0.0, lambda: sk.average_precision_score([0] * 4, good)),
            ("PR-AUC, a label nowhere", 0.5, lambda: sk.average_precision_score([[0, 1], [0, 0]], [[0.5, 0.3], [0.1, 0.2]])),
            ("PR-AUC of several classes", "error", lambda: sk.average_precision_score([0, 1, 2, 1], np.array(third)[:, None])),
            ("precision, never predicted", 0.0, lambda: sk.precision_score([1, 0], [0, 0])),
            ("recall, never true", 0.0, lambda: sk.recall_score([0, 0], [1, 0])),
            ("F1, neither", 0.0, lambda: sk.f1_score([0, 0], [0, 0])),
            ("balanced accuracy, a class only predicted", 0.75, lambda: sk.balanced_accuracy_score([0, 0, 1], [0, 2, 1])),
            ("macro-F1, a class nowhere", 1.0, lambda: sk.f1_score([0, 0, 2], [0, 0, 2], average="macro")),
            ("macro-F1, a label nowhere", 0.5, lambda: sk.f1_score([[0, 1]] * 2, [[0, 1]] * 2, average="macro")),
            ("micro-F1, no label anywhere", 0.0, lambda: sk.f1_score([[0, 0]] * 2, [[0, 0]] * 2, average="micro")),
            ("weighted F1, no label true", 0.0, lambda: sk.f1_score([[0, 0]] * 2, [[0, 1]] * 2, average="weighted")),
            ("samples-F1, a row without labels", 0.5, lambda: sk.f1_score([[0, 0], [1, 0]], [[0, 0], [1, 0]],
                                                                         average="samples")),
            ("label ranking, no or all labels", 1.0, lambda: sk.label_ranking_average_precision_score(
                [[0, 0], [1, 1]], [[0.5, 0.3], [0.1, 0.2]])),
            ("MCC of a constant", 0.0, lambda: sk.matthews_corrcoef([0, 1, 1], [1, 1, 1])),
            ("kappa, one class", nan, lambda: sk.cohen_kappa_score([1, 1], [1, 1])),
            ("quadratic kappa, class 1 nowhere", 0.5, lambda: sk.cohen_kappa_score([0, 0, 2, 2], [0, 2, 2, 2],
                                                                                  weights="quadratic")),
            ("top-1, all equal: class 2", 1 / 3, lambda: sk.top_k_accuracy_score([2, 0, 1], ties, k=1, labels=[0, 1, 2])),
            ("top-1, all equal: not class 0", 0.0, lambda: sk.top_k_accuracy_score([0, 0, 1], ties, k=1, labels=[0, 1, 2])),
            ("Brier of three classes", 2 / 3, lambda: sk.brier_score_loss([0, 1, 2], np.eye(3)[[0, 0, 2]], labels=[0, 1, 2])),
            ("log loss is clipped", -math.log(np.finfo(float).eps) / 2, lambda: sk.log_loss([0, 1], [[1.0, 0], [1, 0]])),
            ("R2, constant truth", 0.0, lambda: sk.r2_score([1, 1], [1, 2])),
            ("R2, constant truth, right", 1.0, lambda: sk.r2_score([1, 1], [1, 1])),
            ("explained variance, constant truth", 0.0, lambda: sk.explained_variance_score([1, 1], [1, 2])),
            ("R2 of one row", nan, lambda: sk.r2_score([1], [2])),
            ("explained variance of one row", 1.0, lambda: sk.explained_variance_score([1], [2])),
            ("Pearson of a constant", nan, lambda: scipy.stats.pearsonr([1, 1, 1], [1, 2, 3])[0]),
            ("Spearman of a constant", nan, lambda: scipy.stats.spearmanr([1, 1, 1], [1, 2, 3])[0]),
            ("Kendall of a constant", nan, lambda: scipy.stats.kendalltau([1, 1, 1], [1, 2, 3])[0]),
            ("Pearson of one row", "error", lambda: scipy.stats.pearsonr([1], [1])),
            ("Spearman of one row", nan, lambda: scipy.stats.spearmanr([1], [1])[0]),
            ("Kendall of one row", nan, lambda: scipy.stats.kendalltau([1], [1])[0])]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                got = float(call())
            except ValueError:
                got = "error"
        if wanted == "error" or got == "error":
            report.equal("as docs/metrics.md says: " + what, got, wanted)
        else:
            report.check(f"as docs/metrics.md says: {what} ({wanted:g})",
                         0.0 if math.isnan(got) and math.isnan(wanted) else abs(got - wanted), 1e-12)


def main(report, scratch):
    degenerate(report)
    wanted = list(cases())
    text = "".join(json.dumps(case) + "\n" for case in wanted)
    done = subprocess.run([PROGRAM], input=text, capture_output=True, text=True, check=True)
    got = [json.loads(line) for line in done.stdout.splitlines()]
    report.equal("cases", len(got), len(wanted))
    worst, undefined, counts, wrong = {}, {}, {}, []

    def compare(case, name, mine, value):
        key = case["task"], name
        counts[key] = counts.get(key, 0) + 1
        if (mine is None) != (value is None):
            wrong.append(f"{case['name']}: {name} is {mine}, wanted {value}")
        elif value is None:
            undefined[key] = undefined.get(key, 0) + 1
        else:
            worst[key] = max(worst.get(key, 0.0), abs(mine - value) / max(1.0, abs(value)))

    for case, mine in zip(wanted, got):
        report_names = set(mine["metrics"]) - {"loss"}
        if report_names != set(case["metrics"]):
            wrong.append(f"{case['name']}: metrics {sorted(report_names ^ set(case['metrics']))}")
        for name, value in case["metrics"].items():
            compare(case, name, mine["metrics"].get(name, math.nan), value)
        if case["task"] == "classes" and mine["confusion"] != case["confusion"]:
            wrong.append(f"{case['name']}: the confusion matrix")
        for c, line in enumerate(case.get("per_class", [])):
            for name, value in line.items():
                compare(case, "per class " + name, mine["per_class"][c][name], value)
    report.equal("undefined in one, not in the other", wrong[:5], [])
    for key in sorted(counts):
        report.check(f"{key[0]}: {key[1]}, {counts[key]} times, of which undefined {undefined.get(key, 0)}",
                     worst.get(key, 0.0), 1e-12)


common.run_script("scores", main)
