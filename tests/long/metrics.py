"""`cohort eval` against scikit-learn on the predictions of the same model: two classes on Reuters, five classes, several
labels a row, and numbers."""
import json
import os
import random
import warnings

import numpy
import scipy.stats
from sklearn import metrics as sk

import common

BOUND, LOSS_BOUND = 1e-9, 1e-6


def evaluate(scratch, folder, source, **keys):
    out = os.path.join(scratch, "eval.json")
    common.cohort("eval", model__path=folder, data__input=source, out=out, train__precision="fp32", **keys)
    with open(out, encoding="utf-8") as f:
        return json.load(f)


def predicted(scratch, folder, source, **keys):
    out = os.path.join(scratch, "predicted.jsonl")
    common.cohort("predict", model__path=folder, data__input=source, out=out, train__precision="fp32", **keys)
    return common.logits_of(common.read_jsonl(out))


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - numpy.log(numpy.exp(z).sum(1, keepdims=True))


def log_sigmoid(z):
    return -numpy.logaddexp(0.0, -z)


def of_classes(z, y):
    guess, logp = z.argmax(1), log_softmax(z)
    p = numpy.exp(logp)
    present = numpy.union1d(y, guess)
    out = {"accuracy": sk.accuracy_score(y, guess), "macro_f1": sk.f1_score(y, guess, average="macro", labels=present),
           "micro_f1": sk.f1_score(y, guess, average="micro"), "weighted_f1": sk.f1_score(y, guess, average="weighted"),
           "mcc": sk.matthews_corrcoef(y, guess), "log_loss": -logp[numpy.arange(len(y)), y].mean()}
    if z.shape[1] == 2:
        out.update(roc_auc=sk.roc_auc_score(y, z[:, 1] - z[:, 0]), f1=sk.f1_score(y, guess),
                   precision=sk.precision_score(y, guess), recall=sk.recall_score(y, guess))
    elif len(set(y)) == z.shape[1]:
        out["roc_auc"] = sk.roc_auc_score(y, p / p.sum(1, keepdims=True), multi_class="ovr", average="macro")
    return out


def of_labels(z, y):
    guess = (z >= 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"accuracy": sk.accuracy_score(y, guess), "macro_f1": sk.f1_score(y, guess, average="macro"),
                "micro_f1": sk.f1_score(y, guess, average="micro"),
                "weighted_f1": sk.f1_score(y, guess, average="weighted"),
                "roc_auc": sk.roc_auc_score(y, z, average="macro"),
                "log_loss": -(y * log_sigmoid(z) + (1 - y) * log_sigmoid(-z)).mean()}


def of_numbers(z, y):
    return {"mse": sk.mean_squared_error(y, z), "mae": sk.mean_absolute_error(y, z), "r2": sk.r2_score(y, z),
            "pearson": scipy.stats.pearsonr(y, z).statistic, "spearman": scipy.stats.spearmanr(y, z).statistic}


def compare(report, what, got, wanted):
    report.equal(f"{what}: metrics are there", sorted(set(wanted) - set(got["metrics"])), [])
    for name, value in wanted.items():
        mine = got["metrics"].get(name)
        report.check(f"{what}: {name} ({value:.6f})", float("nan") if mine is None else abs(mine - value),
                     LOSS_BOUND if name == "log_loss" else BOUND)


def reuters(report, scratch):
    run, test = os.path.join(scratch, "run"), os.path.join(common.REUTERS, "ReutersGrain-test.arff")
    columns = dict(data__text="Text", data__label="class-att", data__max_length=64)
    common.cohort("train", model__path=common.MINILM,
                  data__train=os.path.join(common.REUTERS, "ReutersGrain-train.arff"), train__batch_size=16,
                  train__max_steps=60, optim__lr="1e-4", checkpoint__every=0, out=run, **columns)
    best = os.path.join(run, "best")
    z = predicted(scratch, best, test, **columns)
    with open(test, encoding="utf-8") as f:
        y = numpy.array([int(line.rstrip()[-1]) for line in f if line.startswith("'")])
    report.equal("Reuters: rows, positive", (len(z), int(y.sum())), (604, 57))
    got = evaluate(scratch, best, test, **columns)
    compare(report, "Reuters", got, of_classes(z, y))
    report.equal("Reuters: confusion", got["confusion"], sk.confusion_matrix(y, z.argmax(1)).tolist())
    prepared = os.path.join(scratch, "test.h5")
    common.cohort("prepare", model__path=best, data__input=test, out=prepared, data__text="Text",
                  data__label="class-att")
    again = evaluate(scratch, best, prepared, data__max_length=64)
    report.equal("Reuters, prepared: the same metrics", again["metrics"], got["metrics"])


def trained(scratch, name, rows, start, **keys):
    """best/ of a short run: a random model would predict one class for every row."""
    source, run = os.path.join(scratch, name + "-train.jsonl"), os.path.join(scratch, name + "-run")
    common.write_jsonl(source, rows)
    common.cohort("train", model__path=start, data__train=source, data__text="text", data__label="label",
                  train__epochs=6, train__batch_size=16, optim__lr="2e-3", checkpoint__every=0, out=run, **keys)
    return os.path.join(run, "best")


def five_classes(report, scratch):
    labels = [f"label_{k}" for k in range(5)]
    start, source = os.path.join(scratch, "five"), os.path.join(scratch, "five.jsonl")
    common.small_model(start, labels, seed=8)
    folder = trained(scratch, "five", common.labelled_texts(600, 5, 7), start)
    rows = [r for r in common.labelled_texts(500, 5, 6) if r["label"] != "label_3"]  # a class that no row has
    rows += [{"text": "", "label": "label_0"}, {"text": "", "label": "label_1"}] * 5  # ties
    y = numpy.array([int(r["label"][-1]) for r in rows])
    common.write_jsonl(source, rows)
    got = evaluate(scratch, folder, source, data__text="text", data__label="label")
    report.equal("five classes, one missing: ROC-AUC is undefined", got["metrics"]["roc_auc"], None)
    compare(report, "five classes, one missing", got,
            of_classes(predicted(scratch, folder, source, data__text="text"), y))
    rows += [{"text": "grain", "label": "label_3"}, {"text": "corn", "label": "label_3"}]
    y = numpy.append(y, [3, 3])
    common.write_jsonl(source, rows)
    got = evaluate(scratch, folder, source, data__text="text", data__label="label")
    compare(report, "five classes", got, of_classes(predicted(scratch, folder, source, data__text="text"), y))


def labels_and_numbers(report, scratch):
    rng = random.Random(4)
    names, own = ["red", "green", "blue"], ["grain", "ship", "bank"]
    start, source = os.path.join(scratch, "many"), os.path.join(scratch, "many.jsonl")
    common.small_model(start, names, seed=9, problem_type="multi_label_classification")
    rows, truth = [], []
    for _ in range(600):
        words = common.text_of(rng, rng.randrange(1, 12)).split() + [w for w in own if rng.random() < 0.4]
        rng.shuffle(words)
        truth.append([int((w in words) != (rng.random() < 0.1)) for w in own])
        rows.append({"text": " ".join(words), "label": ",".join(n for n, on in zip(names, truth[-1]) if on)})
    folder = trained(scratch, "many", rows[300:], start, data__task="multi_label")
    common.write_jsonl(source, rows[:300])
    got = evaluate(scratch, folder, source, data__text="text", data__label="label", data__task="multi_label")
    z = predicted(scratch, folder, source, data__text="text")
    compare(report, "three labels a row", got, of_labels(z, numpy.array(truth[:300])))
    folder = os.path.join(scratch, "number")
    common.small_model(folder, ["value"], seed=10, spread=0.5, problem_type="regression")
    texts = [row["text"] for row in rows]
    numbers = [rng.randrange(-8, 8) / 4 for _ in texts]  # ties
    common.write_jsonl(source, [{"text": t, "label": v} for t, v in zip(texts, numbers)])
    got = evaluate(scratch, folder, source, data__text="text", data__label="label", data__task="regression")
    z = predicted(scratch, folder, source, data__text="text")[:, 0]
    compare(report, "regression", got, of_numbers(z, numpy.array(numbers)))


def main(report, scratch):
    reuters(report, scratch)
    five_classes(report, scratch)
    labels_and_numbers(report, scratch)


common.run_script("metrics", main)
