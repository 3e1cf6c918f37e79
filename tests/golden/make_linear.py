"""make_linear.py - logits of linear models by scikit-learn, for tests/model/test_linear.c.

    build/peer/bin/python tests/golden/make_linear.py > tests/golden/linear.json

LogisticRegression and Ridge, solved as far as doubles go: what scikit-learn's lbfgs finds is polished by Newton's method on
the same objective, which is checked to be at its minimum there.
"""
import json
import warnings

import numpy as np
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

warnings.filterwarnings("error")
random = np.random.default_rng(20240609)


def objective(x, y, s, c, w, b, classes):
    """Value and gradient of scikit-learn's objective in the stacked parameters; intercepts last in each column."""
    z = x @ w + b
    if classes == 2:
        value = (s * np.logaddexp(0, np.where(y == 1, -z[:, 0], z[:, 0]))).sum()
        r = (s * (expit(z[:, 0]) - y))[:, None]
    else:
        z = z - z.max(1, keepdims=True)
        logp = z - np.log(np.exp(z).sum(1, keepdims=True))
        value = -(s * logp[np.arange(len(y)), y]).sum()
        r = s[:, None] * (np.exp(logp) - np.eye(classes)[y])
    return 0.5 * (w * w).sum() + c * value, np.vstack([c * x.T @ r + w, c * r.sum(0)])


def polish(x, y, s, c, w, b, classes):
    one = np.hstack([x, np.ones((len(x), 1))])
    theta = np.vstack([w, b])
    d, k = theta.shape
    for _ in range(30):
        _, g = objective(x, y, s, c, theta[:-1], theta[-1], classes)
        z = one @ theta
        p = expit(z) if classes == 2 else softmax(z, axis=1)
        h = np.zeros((d, k, d, k))
        for i in range(k):
            for j in range(k):
                weight = c * s * (p[:, i] * (i == j) - p[:, i] * p[:, j])
                h[:, i, :, j] = (one * weight[:, None]).T @ one
        for j in range(d - 1):
            for i in range(k):
                h[j, i, j, i] += 1
        theta = theta - np.linalg.lstsq(h.reshape(d * k, d * k), g.reshape(-1), rcond=1e-14)[0].reshape(d, k)
    _, g = objective(x, y, s, c, theta[:-1], theta[-1], classes)
    assert np.abs(g).max() < 1e-10, np.abs(g).max()
    if classes > 2:  # the same may be added to all intercepts
        theta[-1] -= theta[-1].mean()
    return theta[:-1], theta[-1]


def table(rows, columns, spread=1.0, shift=0.0, repeated=False):
    x = (random.normal(size=(rows, columns)) * spread + shift).astype(np.float32)
    if repeated:
        x[rows // 2:] = x[:rows - rows // 2]
    return x


def short(values):
    return [float(v) for v in np.asarray(values).reshape(-1)]


def case(name, x, classes, c=1.0, weighted=False, standardize=False, noise=1.0):
    rows = len(x)
    n = rows * 3 // 4
    fitted = np.sort(random.permutation(rows)[:n])
    hidden = (x - x.mean(0)) / x.std(0) @ random.normal(size=(x.shape[1], max(classes, 1)))
    z = hidden + noise * random.normal(size=hidden.shape) * hidden.std()
    s = random.uniform(0.2, 2.0, rows) if weighted else np.ones(rows)
    s[fitted[3]] *= not weighted
    used = x.astype(np.float64)
    if standardize:
        used = StandardScaler().fit(used[fitted]).transform(used)
    line = {"name": name, "classes": classes, "C": c, "standardize": standardize, "columns": x.shape[1], "x": short(x),
            "fitted": fitted.tolist(), "weight": short(s) if weighted else None}
    if classes:
        y = z[:, 0] > 0 if classes == 2 else z.argmax(1)
        y = y.astype(int)
        y[fitted[:classes]] = np.arange(classes)
        if weighted:
            y[fitted[3]] = 0
        model = LogisticRegression(C=c, tol=1e-9, max_iter=100000)
        model.fit(used[fitted], y[fitted], sample_weight=s[fitted])
        found = np.asarray(model.decision_function(used)).reshape(rows, -1)
        w, b = polish(used[fitted], y[fitted], s[fitted], c, model.coef_.T.copy(), model.intercept_.copy(), classes)
        z = used @ w + b
        assert np.abs(z - found).max() < 2e-2 * max(1, np.abs(z).max()), np.abs(z - found).max()
        line["y"] = y.tolist()
        line["objective"] = objective(used[fitted], y[fitted], s[fitted], c, w, b, classes)[0]
    else:
        y = 1000 + 250 * z[:, 0]
        model = Ridge(alpha=1 / c, solver="cholesky").fit(used[fitted], y[fitted], sample_weight=s[fitted])
        z = model.predict(used)
        line["y"] = short(y)
        line["objective"] = 0.5 * (model.coef_ ** 2).sum() + c * 0.5 * (s[fitted] * (z[fitted] - y[fitted]) ** 2).sum()
    line["z"] = short(z)
    return line


def cases():
    yield case("two classes", table(40, 5), 2)
    yield case("two classes, more columns than rows", table(28, 60), 2)
    yield case("two classes, rows twice, weighted", table(48, 6, repeated=True), 2, weighted=True)
    yield case("two classes, hardly a penalty", table(60, 4), 2, c=1000.0)
    yield case("two classes, far from zero, standardized", table(40, 7, 0.03, 5.0), 2, standardize=True)
    yield case("two classes, far from zero", table(40, 3, 0.5, 20.0), 2)
    yield case("three classes", table(60, 6), 3)
    yield case("seven classes, more columns than rows", table(44, 50), 7, c=0.3)
    yield case("four classes, weighted, standardized", table(64, 9, 3.0, -7.0), 4, c=2.0, weighted=True, standardize=True)
    yield case("values", table(40, 5), 0)
    yield case("values, more columns than rows, weighted", table(32, 50), 0, c=0.5, weighted=True)
    yield case("values, standardized", table(48, 8, 0.01, 2.0), 0, c=10.0, standardize=True)


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
