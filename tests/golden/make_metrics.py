"""make_metrics.py - metrics by scikit-learn, for tests/worker/test_metrics.c.

    build/peer/bin/python tests/golden/make_metrics.py > tests/golden/metrics.json

Scores are float32. null: cohort calls the metric undefined there (worker/metrics.h), whatever scikit-learn returns.
"""
import json
import warnings

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn import metrics as m

warnings.filterwarnings("error")
random = np.random.default_rng(20240131)


def auc(truth, score):
    return m.roc_auc_score(truth, score) if 0 < truth.sum() < len(truth) else None


def average_precision(truth, score):
    return m.average_precision_score(truth, score) if truth.any() else None


def calibration_error(top, right, bins=15):
    """Guo et al. (2017): bins of equal width that hold their upper ends."""
    bin_of = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    return sum(abs(right[bin_of == b].mean() - top[bin_of == b].mean()) * (bin_of == b).mean() for b in np.unique(bin_of))


def quadratic_kappa(confusion):
    """As cohen_kappa_score(weights="quadratic"), but over all classes of the task, present or not."""
    n = len(confusion)
    weight = np.subtract.outer(np.arange(n), np.arange(n)) ** 2
    expected = np.outer(confusion.sum(1), confusion.sum(0)) / confusion.sum()
    wanted = (weight * expected).sum()
    return None if wanted == 0 else 1 - (weight * confusion).sum() / wanted


def per_class(truth, predicted, scores):
    """truth, predicted (n, classes) of bool, scores (n, classes)."""
    out = []
    for c in range(truth.shape[1]):
        t, p = truth[:, c], predicted[:, c]
        out.append({"rows": int(t.sum()), "predicted": int(p.sum()),
                    "precision": float(m.precision_score(t, p)) if p.any() else None,
                    "recall": float(m.recall_score(t, p)) if t.any() else None,
                    "f1": float(m.f1_score(t, p)) if (t | p).any() else None,
                    "roc_auc": auc(t, scores[:, c]), "pr_auc": average_precision(t, scores[:, c])})
        out[-1] = {k: v if v is None or isinstance(v, int) else float(v) for k, v in out[-1].items()}
    return out


def mean(values):
    return None if any(v is None for v in values) else float(np.mean(values))


def of_classes(z, y, classes):
    z = z.astype(np.float64)
    n = np.arange(len(y))
    if z.shape[1] == 1:
        predicted = (z[:, 0] > 0).astype(int)
        p = np.stack([expit(-z[:, 0]), expit(z[:, 0])], 1)
        log_loss = -np.mean(np.where(y == 1, log_expit(z[:, 0]), log_expit(-z[:, 0])))
    else:
        predicted = z.argmax(1)
        p = softmax(z, 1)
        log_loss = -np.mean(log_softmax(z, 1)[n, y])
    if classes == 2:
        margin = z[:, 0] if z.shape[1] == 1 else z[:, 1] - z[:, 0]
        scores = np.stack([-margin, margin], 1)
        area, precision_area = auc(y == 1, margin), average_precision(y == 1, margin)
    else:
        scores = np.stack([(z[:, c] - logsumexp(np.delete(z, c, 1), axis=1)).astype(np.float32) for c in range(classes)], 1)
        areas = [auc(y == c, scores[:, c]) for c in range(classes)]
        area = mean(areas)
        precision_area = mean([average_precision(y == c, scores[:, c]) for c in range(classes)])
    confusion = m.confusion_matrix(y, predicted, labels=range(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted and not true
        balanced = m.balanced_accuracy_score(y, predicted)
    same = len(set(y) | set(predicted)) == 1
    out = {
        "accuracy": m.accuracy_score(y, predicted),
        "balanced_accuracy": balanced,
        "macro_f1": m.f1_score(y, predicted, average="macro", zero_division=0),
        "micro_f1": m.f1_score(y, predicted, average="micro", zero_division=0),
        "weighted_f1": m.f1_score(y, predicted, average="weighted", zero_division=0),
        "mcc": m.matthews_corrcoef(y, predicted) if len(set(y)) > 1 and len(set(predicted)) > 1 else None,
        "kappa": None if same else m.cohen_kappa_score(y, predicted),
        "quadratic_kappa": quadratic_kappa(confusion),
        "log_loss": log_loss,
        "brier": np.mean((p[:, 1] - y) ** 2) if classes == 2 else np.mean(((p - np.eye(classes)[y]) ** 2).sum(1)),
        "ece": calibration_error(p.max(1), predicted == y),
        "roc_auc": area,
        "pr_auc": precision_area,
    }
    if set(y) == set(range(classes)):
        assert np.isclose(out["brier"], m.brier_score_loss(y, p[:, 1] if classes == 2 else p), rtol=1e-12)
        present = sorted(set(y) | set(predicted))
        assert same or np.isclose(out["quadratic_kappa"], m.cohen_kappa_score(y, predicted, labels=present, weights="quadratic"))
    if classes == 2:
        true, found = bool((y == 1).any()), bool((predicted == 1).any())
        out["precision"] = m.precision_score(y, predicted) if found else None
        out["recall"] = m.recall_score(y, predicted) if true else None
        out["f1"] = m.f1_score(y, predicted) if true or found else None
    else:
        counts = [int((y == c).sum()) for c in range(classes)]
        weighted = [(k, a) for k, a in zip(counts, areas) if k > 0]
        out["weighted_roc_auc"] = None if any(a is None for k, a in weighted) else np.average([a for k, a in weighted],
                                                                                           weights=[k for k, a in weighted])
    for k in (3, 5):
        if classes > k:  # scikit-learn takes the last of equal scores: turned round, the first
            out[f"top{k}_accuracy"] = m.top_k_accuracy_score(classes - 1 - y, z[:, ::-1], k=k, labels=range(classes))
    classes_of = per_class(np.eye(classes, dtype=bool)[y], np.eye(classes, dtype=bool)[predicted], scores)
    return out, confusion.tolist(), classes_of


def of_labels(z, v):
    z = z.astype(np.float64)
    predicted, v = (z > 0).astype(int), v.astype(int)
    true, found = v.any(), predicted.any()
    average = lambda how: m.f1_score(v, predicted, average=how, zero_division=0)
    areas = [auc(v[:, c], z[:, c]) for c in range(z.shape[1])]
    weighted = [(k, a) for k, a in zip(v.sum(0), areas) if k > 0]
    undefined = not weighted or any(a is None for k, a in weighted)
    return {
        "accuracy": m.accuracy_score(v, predicted),
        "macro_f1": average("macro") if true or found else None,
        "micro_f1": average("micro") if true or found else None,
        "weighted_f1": average("weighted") if true else None,
        "samples_f1": m.f1_score(v, predicted, average="samples", zero_division=1),
        "hamming_loss": m.hamming_loss(v, predicted),
        "lrap": m.label_ranking_average_precision_score(v, z),
        "log_loss": -np.mean(np.where(v == 1, log_expit(z), log_expit(-z))),
        "brier": np.mean((expit(z) - v) ** 2),
        "roc_auc": mean(areas),
        "weighted_roc_auc": None if undefined else np.average([a for k, a in weighted], weights=[k for k, a in weighted]),
        "pr_auc": mean([average_precision(v[:, c], z[:, c]) for c in range(z.shape[1])]),
    }, per_class(v == 1, predicted == 1, z)


def of_values(z, v):
    z, v = z.astype(np.float64), v.astype(np.float64)
    out = {"mse": m.mean_squared_error(v, z), "rmse": m.root_mean_squared_error(v, z), "mae": m.mean_absolute_error(v, z)}
    columns = list(zip(z.T, v.T))
    vary = [len(set(x)) > 1 and len(set(y)) > 1 for x, y in columns]
    out["pearson"] = mean([pearsonr(x, y)[0] if ok else None for ok, (x, y) in zip(vary, columns)])
    out["spearman"] = mean([spearmanr(x, y)[0] if ok else None for ok, (x, y) in zip(vary, columns)])
    out["kendall"] = mean([kendalltau(x, y)[0] if ok else None for ok, (x, y) in zip(vary, columns)])
    varied = all(len(set(y)) > 1 for x, y in columns)
    out["r2"] = m.r2_score(v, z) if varied else None
    out["explained_variance"] = m.explained_variance_score(v, z) if varied else None
    return out


def short(x):
    return [float(str(v)) for v in x.reshape(-1)]


def case(name, task, z, target, classes=0):
    z = np.asarray(z, dtype=np.float32).reshape(len(target), -1)
    line = {"name": name, "task": task, "outputs": z.shape[1], "classes": classes, "logits": short(z)}
    if task == "classes":
        y = np.asarray(target)
        line["label"] = y.tolist()
        line["metrics"], line["confusion"], line["per_class"] = of_classes(z, y, classes)
    else:
        v = np.asarray(target, dtype=np.float32).reshape(z.shape)
        line["value"] = short(v)
        if task == "multi_label":
            line["metrics"], line["per_class"] = of_labels(z, v)
        else:
            line["metrics"] = of_values(z, v)
    line["metrics"] = {k: None if x is None else float(x) for k, x in line["metrics"].items()}
    return line


def scores(n, outputs, grid=None, scale=2.0):
    z = random.normal(size=(n, outputs)) * scale
    return np.round(z / grid) * grid if grid else z


def labels(n, classes, z=None):
    y = random.integers(0, classes, n)
    if z is not None:  # right half of the time
        y = np.where(random.random(n) < 0.5, z.argmax(1), y)
    return y


def cases():
    for n, classes, grid in [(41, 2, None), (60, 2, 0.5), (2, 2, None), (50, 3, None), (64, 3, 1.0), (70, 7, None),
                             (90, 7, 1.0)]:
        z = scores(n, classes, grid)
        y = labels(n, classes, z)
        y[:min(n, classes)] = np.arange(min(n, classes))
        yield case(f"{classes} classes, {n} rows, grid {grid}", "classes", z, y, classes)
    for n, grid in [(37, None), (48, 0.5), (1, None)]:
        yield case(f"one logit, {n} rows, grid {grid}", "classes", scores(n, 1, grid), labels(n, 2), 2)
    for classes in (2, 3, 7):
        z = scores(24, classes)
        y = labels(24, classes)
        yield case(f"{classes} classes, last never true", "classes", z, np.minimum(y, classes - 2), classes)
        z[:, classes - 1] = -50
        yield case(f"{classes} classes, last never predicted", "classes", z, y, classes)
        yield case(f"{classes} classes, last nowhere", "classes", z, np.minimum(y, classes - 2), classes)
        yield case(f"{classes} classes, constant scores", "classes", np.zeros((24, classes)), y, classes)
        yield case(f"{classes} classes, one row", "classes", z[:1], y[:1], classes)
        z = np.where(random.random((40, classes)) < 0.5, -100.0, 100.0)
        yield case(f"{classes} classes, logits of 100", "classes", z, labels(40, classes), classes)
        z = scores(40, classes, None, 100.0)
        yield case(f"{classes} classes, far logits", "classes", z, labels(40, classes, z), classes)
    yield case("one logit of 100", "classes", np.where(random.random(30) < 0.5, -100.0, 100.0), labels(30, 2), 2)
    yield case("all of class 1", "classes", scores(9, 2), np.ones(9, int), 2)
    yield case("class 1 neither true nor predicted", "classes", [[3, 1], [2, -1], [1, 0]], [0, 0, 0], 2)
    yield case("class 1 predicted, never right", "classes", [[3, 1], [-2, -1], [1, 0]], [1, 0, 0], 2)

    z = scores(40, 4, 0.25)
    v = random.integers(0, 2, (40, 4))
    yield case("4 labels", "multi_label", np.where(z == 0, 0.25, z), v)
    empty = v.copy()
    empty[:, 2] = 0
    far = np.where(z > 0, 100.0, -100.0)
    far[:, 2] = -100.0
    yield case("4 labels, one nowhere, logits of 100", "multi_label", far, empty)
    yield case("4 labels, none true", "multi_label", np.where(z == 0, 0.25, z), np.zeros((40, 4)))
    yield case("4 labels, none true or predicted", "multi_label", -np.abs(z) - 1, np.zeros((40, 4)))
    yield case("4 labels, all true", "multi_label", np.where(z == 0, 0.25, z), np.ones((40, 4)))
    ties = np.round(z)
    yield case("4 labels with ties", "multi_label", np.where(ties == 0, 1, ties), v)
    yield case("4 labels, one row", "multi_label", [[1, -1, 2, -2]], [[1, 1, 0, 0]])

    z = scores(35, 1)
    yield case("values", "regression", z, z + scores(35, 1, None, 1.0))
    yield case("values with ties", "regression", scores(50, 1, 0.5), scores(50, 1, 0.5))
    yield case("far values", "regression", 1e4 + z, 1e4 + z * 0.5)
    yield case("constant truth", "regression", z, np.full((35, 1), 0.1))
    yield case("constant prediction", "regression", np.full((35, 1), 0.1), z)
    yield case("one value", "regression", [1.5], [2.0])
    z = scores(30, 2)
    yield case("two outputs", "regression", z, z + scores(30, 2, None, 0.5))


def main():
    lines = [json.dumps(c) for c in cases()]
    print("[\n" + ",\n".join(lines) + "\n]")


if __name__ == "__main__":
    main()
