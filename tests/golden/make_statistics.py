"""make_statistics.py - curves, calibration, thresholds, bootstrap and tests by scikit-learn, SciPy and plain Python, for
tests/worker/test_curves.c, test_calibration.c and test_statistics.c.

    build/peer/bin/python tests/golden/make_statistics.py > tests/golden/statistics.json

Scores are float32. Resamples are drawn by a Philox written here (base/philox.h says which), thresholds are found by trying
all of them, the temperature is the root of the loss's slope by Brent's method.
"""
import json

import numpy as np
from scipy import optimize, stats
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn import metrics as m
from sklearn.calibration import calibration_curve

random = np.random.default_rng(20250118)
MASK = (1 << 64) - 1
RANDOM_BOOTSTRAP = 5


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def key_of(seed, purpose, a, b):
    return mix(mix(mix(seed ^ (purpose << 56)) ^ a) ^ b)


def below(key, index, n):
    c, k0, k1 = [index & 0xFFFFFFFF, index >> 32, 0, 0], key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return (((c[1] << 32) | c[0]) * n) >> 64


def draws(seed, resample, n):
    key = key_of(seed, RANDOM_BOOTSTRAP, resample, 0)
    return [below(key, i, n) for i in range(n)]


def floats(x):
    return [None if not np.isfinite(v) else float(v) for v in np.asarray(x, dtype=float).reshape(-1)]


def short(z):
    return [float(str(v)) for v in np.asarray(z, dtype=np.float32).reshape(-1)]


# ---- curves

def curve_cases():
    for n, grid, outputs in [(30, 0, 1), (200, 0.25, 2), (400, 0, 2), (60, 1, 1)]:
        z = (random.normal(size=(n, outputs)) * 2).astype(np.float32)
        if grid:
            z = (np.round(z / grid) * grid).astype(np.float32)
        margin = z[:, 0].astype(float) if outputs == 1 else z[:, 1].astype(float) - z[:, 0].astype(float)
        y = (margin + random.normal(size=n) * 2 > 0).astype(int)
        p = expit(margin)
        case = {"outputs": outputs, "logits": short(z), "label": y.tolist(), "columns": []}
        for column in (0, 1):
            score, truth = (margin if column else -margin), (y == column).astype(int)
            fpr, tpr, threshold = m.roc_curve(truth, score)
            precision, recall, thresholds = m.precision_recall_curve(truth, score)
            true, predicted = calibration_curve(truth, p if column else 1 - p, n_bins=10)
            bin_of = np.searchsorted(np.linspace(0, 1, 11)[1:-1], p if column else 1 - p)  # upper ends belong to bins
            counts = [np.bincount(bin_of[truth == t], minlength=10).tolist() for t in (1, 0)]
            case["columns"].append({
                "roc": floats(np.stack([fpr, tpr, threshold], 1)), "roc_area": m.roc_auc_score(truth, score),
                "pr": floats(np.stack([recall, precision, np.append(thresholds, np.inf)], 1)[::-1]),
                "pr_area": m.average_precision_score(truth, score),
                "calibration": floats(np.stack([predicted, true], 1)), "histogram": counts})
        yield case


# ---- temperatures and thresholds

def root(slope):
    low, high = slope(0.01), slope(100.0)
    if low >= 0 or high <= 0:
        return 1 / (0.01 if low >= 0 else 100.0)
    return 1 / optimize.brentq(slope, 0.01, 100.0, xtol=1e-15, rtol=1e-15)


def temperature(task, z, y):
    z = z.astype(float)
    if task == "classes" and z.shape[1] > 1:
        return root(lambda b: float(((softmax(b * z, 1) * z).sum(1) - z[np.arange(len(y)), y]).sum()))
    y = y.reshape(z.shape)
    return root(lambda b: float((z * (expit(b * z) - y)).sum()))


def loss(task, z, y):
    z = z.astype(float)
    if task == "classes" and z.shape[1] > 1:
        return -log_softmax(z, 1)[np.arange(len(y)), y].mean()
    y = y.reshape(z.shape)
    return -np.where(y == 1, log_expit(z), log_expit(-z)).mean()


SCORERS = {
    "f1": lambda y, p: m.f1_score(y, p, zero_division=np.nan),
    "macro_f1": lambda y, p: np.mean([m.f1_score(y, p, pos_label=c) for c in (0, 1) if (y == c).any() or (p == c).any()]),
    "accuracy": m.accuracy_score,
    "balanced_accuracy": lambda y, p: np.mean([(p[y == c] == c).mean() for c in (0, 1) if (y == c).any()]),
    "mcc": lambda y, p: m.matthews_corrcoef(y, p) if len(set(y)) > 1 and len(set(p)) > 1 else np.nan,
    "kappa": lambda y, p: m.cohen_kappa_score(y, p) if len(set(y) | set(p)) > 1 else np.nan,
}


def threshold(metric, score, y):
    """The best by trying all: nearest to 0 among equally good ones, then the lower; and how good it is."""
    values = np.unique(score)
    ends = [(-np.inf, values[0])] + list(zip(values[:-1], values[1:])) + [(values[-1], np.inf)]
    best, at = -np.inf, 0.0
    for a, b in ends:
        t = 0.0 if a < 0 < b else b - 1 if np.isinf(a) else a + 1 if np.isinf(b) else a + (b - a) / 2
        value = SCORERS[metric](y, (score > t).astype(int))
        if np.isnan(value):
            continue
        if value > best + 1e-12 or (abs(value - best) <= 1e-12 and abs(t) < abs(at)):
            best, at = value, t
    return float(at), float(best) if np.isfinite(best) else None


def calibration_cases():
    for task, n, outputs, scale in [("classes", 80, 3, 4.0), ("classes", 60, 2, 0.3), ("classes", 70, 1, 3.0),
                                    ("multi_label", 50, 4, 2.5), ("classes", 200, 7, 1.0)]:
        z = (random.normal(size=(n, outputs)) * scale).astype(np.float32)
        z = (np.round(z * 8) / 8).astype(np.float32)
        if task == "multi_label":
            y = (expit(random.normal(size=(n, outputs)) + z / scale) > 0.6).astype(int)
        elif outputs == 1:
            y = (z[:, 0] / scale + random.normal(size=n) > 0.5).astype(int)
        else:
            y = np.where(random.random(n) < 0.6, z.argmax(1), random.integers(0, outputs, n))
        fold = random.integers(0, 4, n)
        case = {"task": task, "outputs": outputs, "classes": 2 if outputs == 1 else outputs, "logits": short(z),
                "target": y.reshape(-1).tolist(), "fold": fold.tolist(), "temperature": temperature(task, z, y),
                "nested": [temperature(task, z[fold != k], y[fold != k]) for k in range(4)]}
        case["loss"] = loss(task, z / case["temperature"], y)
        if task == "multi_label" or outputs < 3:
            columns = [z[:, c].astype(float) for c in range(outputs)]
            columns = [z[:, 1].astype(float) - z[:, 0].astype(float)] if task == "classes" and outputs == 2 else columns
            truth = y if task == "multi_label" else y.reshape(-1, 1)
            names = [s for s in SCORERS if s != "macro_f1" or task == "classes"]
            case["thresholds"] = {s: [threshold(s, x, truth[:, c]) for c, x in enumerate(columns)] for s in names}
            case["nested_f1"] = [[threshold("f1", x[fold != k], truth[fold != k, c])[0] for c, x in enumerate(columns)]
                                 for k in range(4)]
        yield case


# ---- bootstrap and tests

def bootstrap_case():
    """Two systems, the first with two repeats of which the second lacks rows; accuracy and mean absolute error by hand."""
    n, resamples, seed = 25, 60, 77
    ids = np.sort(random.choice(1000, n, replace=False))
    y = random.integers(0, 3, n)
    a = [(random.normal(size=(n, 3)) * 2).astype(np.float32) for _ in range(2)]
    b = (random.normal(size=(n, 3)) + 1.5 * np.eye(3)[y]).astype(np.float32)
    some = np.flatnonzero(random.random(n) < 0.7)
    right = [(z.argmax(1) == y).astype(int) for z in a + [b]]

    def scores(counts):
        first = (right[0] * counts).sum() / counts.sum()
        second = (right[1][some] * counts[some]).sum() / counts[some].sum()
        return (first + second) / 2, (right[2] * counts).sum() / counts.sum()

    one = scores(np.ones(n, int))
    pairs = np.array([scores(np.bincount(draws(seed, r, n), minlength=n)) for r in range(resamples)])
    difference = pairs[:, 1] - pairs[:, 0]
    p = min(1, 2 * (1 + min((difference <= 0).sum(), (difference >= 0).sum())) / (resamples + 1))
    return {"row": ids.tolist(), "label": y.tolist(), "a": [short(z) for z in a], "some": some.tolist(), "b": short(b),
            "seed": seed, "resamples": resamples, "score": one[0], "other": one[1],
            "interval": floats(np.quantile(pairs[:, 0], [0.025, 0.975])),
            "difference": floats(np.quantile(difference, [0.025, 0.975])), "p": float(p)}


def tests():
    students = [(t, df) for t in (0.0, 0.01, 0.5, 1.0, 2.0, 3.7, 12.0, 1e3, 1e8) for df in (1, 2, 4, 9, 29, 400, 1e6)]
    binomials = [(0, 0), (0, 1), (1, 3), (2, 4), (3, 10), (0, 20), (0, 1000), (480, 1000), (5, 60), (499000, 1000000), (1, 2)]
    a, b = random.random(10), random.random(10) + 0.2
    d, n = b - a, 10
    error = np.sqrt((1 / n + 0.25) * d.var(ddof=1))
    t = d.mean() / error
    reach = stats.t.ppf(0.975, n - 1) * error
    return {"student": [[t, df, 2 * stats.t.sf(t, df)] for t, df in students],
            "quantile": [[p, df, stats.t.ppf(1 - p / 2, df)] for p in (0.05, 0.5, 1e-6) for df in (1, 2, 7, 30, 1000)],
            "binomial": [[k, n, stats.binomtest(k, n).pvalue if n else 1.0] for k, n in binomials],
            "resampled": {"a": a.tolist(), "b": b.tolist(), "ratio": 0.25, "mean": d.mean(), "std": d.std(ddof=1), "t": t,
                          "p": 2 * stats.t.sf(abs(t), n - 1), "ci95": [d.mean() - reach, d.mean() + reach]}}


def lines(cases):
    return "[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]"


def main():
    print('{"curves": ' + lines(curve_cases()) + ',\n"calibration": ' + lines(calibration_cases()) + ',\n"bootstrap": ' +
          json.dumps(bootstrap_case()) + ',\n"tests": ' + json.dumps(tests()) + "}")


main()
