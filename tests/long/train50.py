"""Fifty training steps in fp32 without dropout against PyTorch: AdamW with decay groups, linear warm-up, clipping.

The same 395 rows in file order, so the last batch of each of the two epochs is a short one. PyTorch pads its batches, as
transformers' collator does; cohort packs them.
"""
import os

import numpy
import torch
from safetensors.numpy import load_file
from transformers import get_linear_schedule_with_warmup

import common

STEPS, BATCH, ROWS, WARMUP, DECAY = 50, 16, 395, 5, 0.01
BOUND = 1e-4


def collate(tokenizer, rows, labels, max_length):
    batch = tokenizer([r["text"] for r in rows], truncation=True, max_length=max_length, padding=True,
                      return_tensors="pt")
    batch.pop("token_type_ids", None)  # one text: all types are 0, as without
    return batch, torch.tensor([labels[r["label"]] for r in rows])


def reference(model, tokenizer, rows, lr, max_length):
    """Loss, rate and gradient norm of every step, as a training loop of transformers computes them."""
    def is_plain(name):
        return name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name

    plain = [p for n, p in model.named_parameters() if is_plain(n)]
    decays = [p for n, p in model.named_parameters() if not is_plain(n)]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
                                  lr=lr, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    per_epoch = -(-len(rows) // BATCH)
    out = []
    for step in range(STEPS):
        first = step % per_epoch * BATCH
        batch, target = collate(tokenizer, rows[first:first + BATCH], model.config.label2id, max_length)
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, target)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        out.append((loss.item(), schedule.get_last_lr()[0], norm.item()))
        optimizer.step()
        schedule.step()
    return numpy.array(out)


def weights_apart(model, folder):
    """Greatest difference of a weight; the keys' biases, which follow noise in both, apart."""
    got = load_file(os.path.join(folder, "model.safetensors"))
    noisy, others, keys = common.noise_of(model), 0.0, 0.0
    for name, p in model.named_parameters():
        d = common.greatest(got[name], p.detach().numpy())
        if noisy(name):
            keys = max(keys, d)
        else:
            others = max(others, d)
    return others, keys


def compare(report, scratch, what, folder, model, lr, max_length, rows):
    """Returns the greatest difference of the loss at a step."""
    source, out = os.path.join(scratch, "train.jsonl"), common.fresh(os.path.join(scratch, "run"))
    common.write_jsonl(source, rows)
    common.cohort("train", model__path=folder, model__dropout=0, data__train=source, data__text="text",
                  data__label="label", data__max_length=max_length, data__shuffle=False, train__batch_size=BATCH,
                  train__max_steps=STEPS, train__precision="fp32", optim__lr=lr, optim__weight_decay=DECAY,
                  optim__max_grad_norm=1.0, schedule__name="linear", schedule__warmup_steps=WARMUP, log__every=1,
                  checkpoint__every=0, out=out)
    log = [line for line in common.read_jsonl(os.path.join(out, "log.jsonl")) if line["kind"] == "train"]
    got = numpy.array([(line["loss"], line["lr"], line["grad_norm"]) for line in log])
    report.equal(f"{what}: steps, rows of the last", (len(log), log[-1]["rows"]), (STEPS, ROWS % BATCH))
    wanted = reference(model.train(), common.tokenizer_of(folder), rows, lr, max_length)
    apart = report.check(f"{what}: greatest difference of the loss at a step", common.greatest(got[:, 0], wanted[:, 0]), BOUND)
    report.check(f"{what}: greatest difference of the rate", common.greatest(got[:, 1], wanted[:, 1]), 1e-12)
    report.check(f"{what}: greatest relative difference of the gradient norm",
                 float(numpy.max(numpy.abs(got[:, 2] / wanted[:, 2] - 1))), 1e-3)
    report.note(f"{what}: loss of the first and last step; steps that clipped",
                "%.4f, %.4f; %d" % (wanted[0, 0], wanted[-1, 0], numpy.sum(wanted[:, 2] > 1.0)))
    report.note(f"{what}: greatest difference of a weight after {STEPS} steps; of a key's bias",
                "%.2g; %.2g" % weights_apart(model, os.path.join(out, "best")))
    return apart


def main(report, scratch):
    labels = [f"label_{k}" for k in range(4)]
    rows = common.labelled_texts(ROWS, 4, seed=1, longest=70)
    none = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    folder = os.path.join(scratch, "small")
    model = common.small_model(folder, labels, seed=5, hidden_size=60, num_attention_heads=5, intermediate_size=70, **none)
    compare(report, scratch, "hidden 60, heads 5, lr 1e-3", folder, model, 1e-3, 64, rows)
    folder = os.path.join(scratch, "minilm")
    model = common.minilm_with_head(folder, labels, spread=0.02, **none)
    compare(report, scratch, "MiniLM, lr 5e-5", folder, model, 5e-5, 64, rows)


if __name__ == "__main__":
    common.run_script("train50", main)
