"""Long texts in chunks beside PyTorch: all chunks of a batch as one big batch, logits pooled, one loss for each text.

The gradient is read off one step of plain SGD, for texts of 1 to 40 chunks, mean and max, on 1 to 4 ranks and with passes
of one chunk; then 30 steps of training; then the memory of texts of 4 and of 400 chunks.
"""
import copy
import json
import os
import random
import subprocess

import numpy
import torch
from safetensors.numpy import load_file

import common

SIZE, STRIDE, LEAST, LABELS = 20, 13, 5, ["a", "b", "c"]
RATE = 10  # of the step that shows the gradient: a weight w is known to w * 2^-24 after it
NAMES = {name: i for i, name in enumerate(LABELS)}


def windows(ids):
    """The rule of docs/long-texts.md, window by window."""
    all_of = [ids[i:i + SIZE] for i in range(0, len(ids), STRIDE)] or [[]]
    kept = [w for w in all_of if len(all_of) == 1 or len(w) >= LEAST]
    return kept or all_of[:1]


def loss_of(model, tokenizer, rows, pooling):
    chunks, counts = [], []
    for row in rows:
        own = windows(tokenizer(row["text"], add_special_tokens=False)["input_ids"])
        chunks += [[tokenizer.cls_token_id, *w, tokenizer.sep_token_id] for w in own]
        counts.append(len(own))
    longest = max(map(len, chunks))
    ids = torch.tensor([c + [tokenizer.pad_token_id] * (longest - len(c)) for c in chunks])
    mask = torch.tensor([[1] * len(c) + [0] * (longest - len(c)) for c in chunks])
    each = model(input_ids=ids, attention_mask=mask).logits.split(counts)
    logits = torch.stack([e.mean(0) if pooling == "mean" else e.amax(0) for e in each])
    target = torch.tensor([NAMES[row["label"]] for row in rows])
    return torch.nn.functional.cross_entropy(logits, target), counts


def train(ranks, source, **keys):
    keys = dict(data__train=source, data__text="text", data__label="label", data__shuffle=False, model__dropout=0,
                train__precision="fp32", data__long="chunk", data__chunk_size=SIZE, data__stride=STRIDE,
                checkpoint__every=0, log__every=1, parallel__threads=1, **keys)
    words = [common.COHORT, "train"]
    words += ["%s=%s" % (k.replace("__", "."), str(v).lower() if isinstance(v, bool) else v) for k, v in keys.items()]
    if ranks > 1:
        words = ["mpirun", "--oversubscribe", "-n", str(ranks), *words]
    subprocess.run(words, capture_output=True, text=True, check=True)
    return keys["out"]


def gradients(report, scratch, folder, model, tokenizer, source, rows):
    before = {n: p.detach().numpy().astype(numpy.float64) for n, p in model.named_parameters()}
    exact = copy.deepcopy(model).double()
    for pooling in ("mean", "max"):
        exact.zero_grad()
        loss, counts = loss_of(exact, tokenizer, rows, pooling)
        loss.backward()
        wanted = {n: p.grad.numpy().copy() for n, p in exact.named_parameters()}
        scale = max(float(numpy.abs(g).max()) for g in wanted.values())
        for ranks, micro, mode in ((1, 1 << 20, "fixed"), (1, SIZE + 2, "fixed"), (2, SIZE + 2, "any"), (3, 500, "fixed"),
                                   (4, 100, "any")):
            out = common.fresh(os.path.join(scratch, "gradient"))
            train(ranks, source, model__path=folder, model__chunk_pooling=pooling, out=out, train__batch_size=len(rows),
                  train__max_steps=1, optim__name="sgd", optim__lr=RATE, optim__weight_decay=0, optim__max_grad_norm=0,
                  schedule__name="constant", schedule__warmup_steps=0, train__micro_tokens=micro, parallel__reproducible=mode)
            after = load_file(os.path.join(out, "best", "model.safetensors"))
            apart = max(common.greatest((before[n] - after[n]) / RATE, g) for n, g in wanted.items())
            report.check(f"{pooling} over K = {min(counts)} ... {max(counts)} chunks, {ranks} ranks, passes of {micro} "
                         f"tokens: greatest difference of a gradient (the largest is {scale:.2g})", apart, 1e-6)
            line = common.read_jsonl(os.path.join(out, "log.jsonl"))[0]
            report.check("... of the loss", abs(line["loss"] - loss.item()), 2e-6)


def training(report, scratch, folder, model, tokenizer, source, rows):
    steps, batch = 30, 7
    for pooling in ("mean", "max"):
        fresh = type(model)(model.config)
        fresh.load_state_dict(model.state_dict())
        fresh.eval()  # no dropout
        optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-3, weight_decay=0.0)
        wanted, per_epoch = [], -(-len(rows) // batch)
        for step in range(steps):
            first = step % per_epoch * batch
            loss, _ = loss_of(fresh, tokenizer, rows[first:first + batch], pooling)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(fresh.parameters(), 1.0)
            optimizer.step()
            wanted.append(loss.item())
        out = common.fresh(os.path.join(scratch, "training"))
        train(2, source, model__path=folder, model__chunk_pooling=pooling, out=out, train__batch_size=batch,
              train__max_steps=steps, optim__lr=1e-3, optim__weight_decay=0, schedule__name="constant",
              schedule__warmup_steps=0, train__micro_tokens=300)
        got = [line["loss"] for line in common.read_jsonl(os.path.join(out, "log.jsonl")) if line["kind"] == "train"]
        report.check(f"{pooling}: greatest difference of the loss at one of {steps} steps on 2 ranks",
                     common.greatest(numpy.array(got), numpy.array(wanted)), 1e-4)
        predicted = common.predict(os.path.join(out, "best"), rows, scratch)
        trained = load_file(os.path.join(out, "best", "model.safetensors"))
        fresh.load_state_dict({n: torch.from_numpy(trained[n]) for n in fresh.state_dict() if n in trained}, strict=False)
        with torch.no_grad():
            logits = []
            for row in rows:
                own = windows(tokenizer(row["text"], add_special_tokens=False)["input_ids"])
                each = torch.cat([fresh(torch.tensor([[tokenizer.cls_token_id, *w, tokenizer.sep_token_id]])).logits
                                  for w in own])
                logits.append((each.mean(0) if pooling == "mean" else each.amax(0)).numpy())
        report.check(f"{pooling}: greatest difference of predicted logits, chunk after chunk",
                     common.greatest(common.logits_of(predicted), numpy.array(logits)), 2e-5)


def memory(report, scratch, folder):
    peaks = {}
    for chunks in (4, 40, 400):
        source, out = os.path.join(scratch, f"{chunks}.jsonl"), common.fresh(os.path.join(scratch, "memory"))
        words = (chunks - 1) * STRIDE + LEAST
        common.write_jsonl(source, [{"text": common.text_of(random.Random(i), words), "label": LABELS[i % 3]} for i in range(4)])
        train(1, source, model__path=folder, out=out, train__batch_size=2, train__max_steps=2, train__micro_tokens=352)
        with open(os.path.join(out, "results.json"), encoding="utf-8") as f:
            peaks[chunks] = json.load(f)["train"]["peak_memory_mb"]
    report.note("peak memory of texts of 4, 40, 400 chunks, MB", ", ".join("%.1f" % p for p in peaks.values()))
    report.check("growth from 4 to 400 chunks", peaks[400] / peaks[4] - 1.0, 0.02)


def main(report, scratch):
    folder = os.path.join(scratch, "model")
    model = common.small_model(folder, LABELS, seed=3)
    tokenizer = common.tokenizer_of(folder)
    rng, rows = random.Random(5), []
    for chunks in range(1, 41):
        words = (chunks - 1) * STRIDE + rng.randrange(LEAST, SIZE - STRIDE + LEAST)
        rows.append({"text": common.text_of(rng, words), "label": LABELS[chunks % 3]})
    rows += [{"text": "", "label": "a"}, {"text": "the", "label": "b"}]
    rng.shuffle(rows)
    source = common.write_jsonl(os.path.join(scratch, "long.jsonl"), rows)
    gradients(report, scratch, folder, model, tokenizer, source, rows)
    training(report, scratch, folder, model, tokenizer, source, rows)
    memory(report, scratch, folder)


if __name__ == "__main__":
    common.run_script("chunks", main)
