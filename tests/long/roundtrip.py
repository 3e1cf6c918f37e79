"""Model folders between cohort and transformers, both ways, with equal logits, labels and scores.

cohort to transformers: best/ and checkpoint-N through from_pretrained and the text-classification pipeline, and the code
in README.md for the poolings that transformers has no class for. transformers to cohort: a fine-tuned folder in
predict, eval and train; in halves, in shards, as a bare encoder; and a cohort folder that transformers saved again.
"""
import json
import os
import random
import re

import numpy
import torch
from transformers import AutoModelForSequenceClassification, BertModel, pipeline

import common

BOUND = 1e-5
LABELS = ["grain", "a label with \"quotes\" and \u00fcml\u00e4ute", "other"]


def texts(n):
    rng = random.Random(11)
    return [{"text": common.text_of(rng, k)} for k in [0, 1, 2, 17, 100] + [rng.randrange(1, 60) for _ in range(n - 5)]]


def train_rows(n, seed):
    rows = common.labelled_texts(n, len(LABELS), seed)
    return [{"text": r["text"], "label": LABELS[int(r["label"][-1])]} for r in rows]


def train(scratch, folder, name, **keys):
    source, evaluated = os.path.join(scratch, "train.jsonl"), os.path.join(scratch, "eval.jsonl")
    common.write_jsonl(source, train_rows(96, 1))
    common.write_jsonl(evaluated, train_rows(40, 2))
    out = os.path.join(scratch, name)
    options = dict(data__eval=evaluated, data__max_length=40, train__epochs=2, train__batch_size=16,
                   train__precision="fp32", optim__lr="1e-3", checkpoint__every=4, checkpoint__keep=10, log__every=1)
    common.cohort("train", model__path=folder, data__train=source, data__text="text", data__label="label", out=out,
                  **{**options, **keys})
    return out


def load(folder):
    """from_pretrained, refusing what it only warns of."""
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True,
                                                                     attn_implementation="eager", dtype=torch.float32)
    strange = {k: v for k, v in info.items() if v}
    if strange:
        raise RuntimeError(f"{folder}: {strange}")
    return model.eval()


def to_transformers(report, scratch, what, folder, max_length):
    rows = texts(30)
    predicted = common.predict(folder, rows, scratch)
    model, tokenizer = load(folder), common.tokenizer_of(folder)
    report.check(f"{what} in transformers: greatest difference of a logit",
                 common.greatest(common.logits_of(predicted),
                                 common.reference_logits(model, tokenizer, rows, max_length)), BOUND)
    classify = pipeline("text-classification", model=folder, device="cpu")
    wanted = [classify(r["text"], top_k=None, truncation=True, max_length=max_length) for r in rows]
    scores = [[next(w["score"] for w in row if w["label"] == name) for name in LABELS] for row in wanted]
    report.equal(f"{what} in the pipeline: labels", [p["label"] for p in predicted], [w[0]["label"] for w in wanted])
    report.check(f"{what} in the pipeline: greatest difference of a score",
                 common.greatest([p["scores"] for p in predicted], scores), BOUND)


def readme_code(folder, text):
    """The logits that the code of README.md gives for a text."""
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as f:
        code = re.search(r"```python\n(.*?)```", f.read(), re.S).group(1)
    names = {"FOLDER": folder}
    exec(code.replace('"a text"', json.dumps(text)), names)  # the README of a folder that this script made
    return names["logits"][0].double().numpy()


def other_poolings(report, scratch, folder):
    for pooling in ("mean", "max", "cls"):
        out = train(scratch, folder, f"pooling-{pooling}", model__pooling=pooling, train__max_steps=8,
                    data__max_length=64)
        best = os.path.join(out, "best")
        rows = [r for r in texts(14) if len(r["text"].split()) < 60]
        got = common.logits_of(common.predict(best, rows, scratch))
        wanted = [readme_code(best, r["text"]) for r in rows]
        report.check(f"pooling {pooling}, the code of README.md: greatest difference of a logit",
                     common.greatest(got, wanted), BOUND)


def fine_tuned(scratch, name, dtype=torch.float32, **save):
    """A small classifier that PyTorch trained for a few steps, as save_pretrained() leaves it."""
    start, folder = os.path.join(scratch, name + "-start"), os.path.join(scratch, name)
    model = common.small_model(start, LABELS, seed=21, hidden_size=60, num_attention_heads=5, intermediate_size=70)
    tokenizer = common.tokenizer_of(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for row in train_rows(20, 9):
        target = torch.tensor([LABELS.index(row["label"])])
        loss = model(**common.tensors(common.encode(tokenizer, row, 40)), labels=target).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = model.to(dtype)
    model.save_pretrained(folder, **save)
    tokenizer.save_pretrained(folder)
    return folder, model.float().eval()


def from_transformers(report, scratch):
    rows = texts(30)
    for what, keys in (("fp32", {}), ("bf16", {"dtype": torch.bfloat16}), ("fp16", {"dtype": torch.float16}),
                       ("shards of 30 KB", {"max_shard_size": "30KB"})):
        folder, model = fine_tuned(scratch, "tuned-" + what.split()[0], **keys)
        got = common.predict(folder, rows, scratch, data__max_length=40)
        wanted = common.reference_logits(model, common.tokenizer_of(folder), rows, 40)
        report.check(f"transformers' folder in {what}: greatest difference of a logit",
                     common.greatest(common.logits_of(got), wanted), BOUND)
        if what == "fp32":
            labels = [LABELS[k] for k in wanted.argmax(1)]
            report.equal("transformers' folder: labels", [p["label"] for p in got], labels)
        if "shard" in what:
            report.equal("shards are several files", os.path.exists(os.path.join(folder, "model.safetensors")), False)
    folder, model = fine_tuned(scratch, "tuned-eval")
    tokenizer, labelled = common.tokenizer_of(folder), train_rows(60, 4)
    source, out = os.path.join(scratch, "labelled.jsonl"), os.path.join(scratch, "eval.json")
    common.write_jsonl(source, labelled)
    common.cohort("eval", model__path=folder, data__input=source, data__text="text", data__label="label",
                  data__max_length=40, train__precision="fp32", out=out)
    with open(out, encoding="utf-8") as f:
        evaluated = json.load(f)
    logits = common.reference_logits(model, tokenizer, labelled, 40)
    targets = numpy.array([LABELS.index(r["label"]) for r in labelled])
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets)).item()
    report.equal("eval of transformers' folder: accuracy", evaluated["metrics"]["accuracy"],
                 float(numpy.mean(logits.argmax(1) == targets)))
    report.check("eval of transformers' folder: difference of the log loss",
                 abs(evaluated["metrics"]["log_loss"] - loss), BOUND)
    own_head(report, scratch, folder, model)


def own_head(report, scratch, folder, model):
    """cohort train goes on from the folder's head where the labels are its own, and draws one where they are not."""
    out = train(scratch, folder, "goes-on", model__dropout=0, data__shuffle=False, train__max_steps=1)
    log = common.read_jsonl(os.path.join(out, "log.jsonl"))
    rows = train_rows(96, 1)[:16]
    tokenizer = common.tokenizer_of(folder)
    logits = common.reference_logits(model, tokenizer, rows, 40)
    targets = torch.tensor([LABELS.index(r["label"]) for r in rows])
    report.check("training goes on from the folder's head: difference of the first loss",
                 abs(log[0]["loss"] - torch.nn.functional.cross_entropy(torch.tensor(logits), targets).item()), BOUND)
    bare = os.path.join(scratch, "bare")
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    out = train(scratch, bare, "from-bare", train__max_steps=2)
    to_transformers(report, scratch, "best/ of a run from a bare encoder", os.path.join(out, "best"), 40)


def main(report, scratch):
    start = os.path.join(scratch, "start")
    model = common.small_model(start, LABELS, seed=3)
    out = train(scratch, start, "run")
    for name in ("best", "checkpoint-12", "checkpoint-4"):
        to_transformers(report, scratch, name, os.path.join(out, name), 40)
    best, again = os.path.join(out, "best"), os.path.join(scratch, "again")
    moved = common.greatest(model.classifier.weight.detach(), load(best).classifier.weight.detach())
    report.equal("training moved the head", bool(moved > 1e-4), True)
    load(best).save_pretrained(again)
    common.tokenizer_of(best).save_pretrained(again)
    rows = texts(30)
    report.equal("best/ saved again by transformers: logits in cohort",
                 common.logits_of(common.predict(again, rows, scratch)).tolist(),
                 common.logits_of(common.predict(best, rows, scratch)).tolist())
    other_poolings(report, scratch, start)
    from_transformers(report, scratch)


common.run_script("roundtrip", main)
