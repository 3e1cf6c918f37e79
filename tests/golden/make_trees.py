"""make_trees.py - logits of boosted trees by the program xgboost (Debian's package xgboost, 1.7.4), for tests/model/test_trees.c.

    python3 tests/golden/make_trees.py > tests/golden/trees.json

The same library as the one that cohort loads, asked in another way: text files and its own command line. What is compared is
what cohort asks of it, so the case names everything that was set; trees of another version of the library may differ.
"""
import json
import os
import random
import struct
import subprocess
import tempfile

ROWS, FITTED, COLUMNS = 90, 60, 5
OBJECTIVES = {"two": ("binary:logistic", 0.5), "many": ("multi:softprob", 0.5), "values": ("reg:squarederror", None)}
rng = random.Random(20240612)


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def write(path, x, y, weight):
    with open(path, "w", encoding="ascii") as f:
        for row, label, w in zip(x, y, weight or [1.0] * len(y)):
            f.write(" ".join([f"{label:.9g}:{w:.9g}"] + [f"{c}:{v:.9g}" for c, v in enumerate(row)]) + "\n")


def xgboost(folder, **keys):
    with open(os.path.join(folder, "config"), "w", encoding="ascii") as f:
        f.writelines(f"{k} = {v}\n" for k, v in keys.items())
    done = subprocess.run(["xgboost", "config"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def case(name, kind, y, x, weight=None, k=1, rounds=20, depth=3, rate=0.3, penalty=1.0):
    objective, base = OBJECTIVES[kind]
    if base is None:
        w = weight[:FITTED] if weight else [1.0] * FITTED
        base = sum(a * b for a, b in zip(w, y)) / sum(w)
    with tempfile.TemporaryDirectory() as folder:
        write(os.path.join(folder, "train"), x[:FITTED], y[:FITTED], weight[:FITTED] if weight else None)
        write(os.path.join(folder, "test"), x[FITTED:], y[FITTED:], None)
        shared = {"objective": objective, "base_score": "%.9g" % base, "nthread": 1, "verbosity": 0}
        if kind == "many":
            shared["num_class"] = k
        xgboost(folder, data='"train?format=libsvm"', tree_method="hist", num_round=rounds, max_depth=depth, eta=rate,
                model_out="model.json", save_period=0, **{"lambda": penalty}, **shared)
        xgboost(folder, task="pred", model_in="model.json", **{"test:data": '"test?format=libsvm"'}, pred_margin=1,
                name_pred="pred", **shared)
        with open(os.path.join(folder, "pred"), encoding="ascii") as f:
            z = [float(v) for v in f.read().split()]
    assert len(z) == (ROWS - FITTED) * k, len(z)
    return {"name": name, "kind": kind, "k": k, "rounds": rounds, "depth": depth, "rate": rate, "penalty": penalty,
            "x": [v for row in x for v in row], "y": y[:FITTED], "weight": weight[:FITTED] if weight else None, "z": z}


def cases():
    x = [[f32(rng.gauss(0, 1)) for _ in range(COLUMNS)] for _ in range(ROWS)]
    both = [int((row[0] > 0) != (row[1] > 0)) for row in x]  # what no linear model can tell
    corner = [int(row[0] > 0) * 2 + int(row[1] > 0.3) for row in x]
    value = [f32(40 + 10 * row[0] * row[1] + rng.gauss(0, 1)) for row in x]
    weight = [rng.choice([0.5, 1.0, 2.5]) for _ in x]
    yield case("either or", "two", both, x)
    yield case("either or, weighted, flat", "two", both, x, weight=weight, depth=2, rounds=5, rate=0.7, penalty=10.0)
    yield case("corners", "many", corner, x, k=4)
    yield case("values", "values", value, x, rounds=30)
    yield case("values, weighted", "values", value, x, weight=weight, depth=6, penalty=0.1)


print("[" + ",\n".join(json.dumps(c) for c in cases()) + "]")
