"""Focal loss, means of weights and adversarial steps beside PyTorch: 30 steps of AdamW without dropout.

Means by torch.optim.swa_utils; FGM and AWP as loops around the optimizer write them (the gradients of both passes are added, the
weights put back), on 1 and 3 ranks; the loss of every step, the saved weights, and the score of what was saved.
"""
import os

import numpy
import torch
from safetensors.numpy import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import common
from train50 import collate

STEPS, BATCH, ROWS, LR = 30, 16, 200, 1e-3
PER_EPOCH = -(-ROWS // BATCH)


def focal(logits, target, gamma):
    logp = torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    return ((-torch.expm1(logp)) ** gamma * -logp).mean()


class Attack:
    """Moves weights against their gradient, and puts them back."""

    def __init__(self, model, kind, eps, rate=1.0):
        self.model, self.kind, self.eps, self.rate, self.kept = model, kind, eps, rate, {}

    def moved(self):
        for name, p in self.model.named_parameters():
            if self.kind == "fgm":
                if name.endswith("word_embeddings.weight"):
                    yield p
            elif name.endswith("weight") and "LayerNorm" not in name:
                yield p

    @torch.no_grad()
    def move(self):
        # cohort moves q, k and v as one tensor; so does this
        groups = {}
        for name, p in self.model.named_parameters():
            if any(p is q for q in self.moved()):
                key = name
                for part in ("query", "key", "value"):
                    key = key.replace(f"attention.self.{part}.", "attention.self.qkv.")
                groups.setdefault(key, []).append(p)
        for tensors in groups.values():
            g = torch.sqrt(sum((p.grad ** 2).sum() for p in tensors))
            w = torch.sqrt(sum((p ** 2).sum() for p in tensors))
            for p in tensors:
                self.kept[p] = p.detach().clone()
                if self.kind == "fgm":
                    p.add_(p.grad, alpha=(self.eps / g).item())
                else:
                    room = self.eps * p.abs()
                    p.add_(torch.minimum(torch.maximum(p.grad * (self.rate * w / g), -room), room))

    @torch.no_grad()
    def back(self):
        for p, kept in self.kept.items():
            p.copy_(kept)


def reference(model, tokenizer, rows, gamma=0.0, attack=None, mean=None, mean_from=0):
    """Losses of the steps; the weights, or their mean."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        first = step % PER_EPOCH * BATCH
        batch, target = collate(tokenizer, rows[first:first + BATCH], model.config.label2id, 64)

        def loss_of():
            logits = model(**batch).logits
            return focal(logits, target, gamma) if gamma > 0 else torch.nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        if attack is not None:
            attack.move()
            loss_of().backward()
            attack.back()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if mean is not None and step >= mean_from:
            mean.update_parameters(model)
    return numpy.array(losses), (model if mean is None else mean.module).state_dict()


def compare(report, scratch, what, folder, model, rows, keys, ranks=1, **more):
    import copy
    import subprocess
    own = copy.deepcopy(model).train()
    for module in own.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if "attack" in more:
        more["attack"] = Attack(own, *more["attack"])
    if "mean" in more:
        more["mean"] = AveragedModel(own, **more["mean"])
    wanted, weights = reference(own, common.tokenizer_of(folder), rows, **more)
    source, out = os.path.join(scratch, "train.jsonl"), common.fresh(os.path.join(scratch, "run"))
    common.write_jsonl(source, rows)
    words = [common.COHORT, "train", f"model.path={folder}", "model.dropout=0", f"data.train={source}", "data.text=text",
             "data.label=label", "data.max_length=64", "data.shuffle=false", f"train.batch_size={BATCH}",
             f"train.max_steps={STEPS}", "train.precision=fp32", f"optim.lr={LR}", "optim.weight_decay=0",
             "schedule.name=constant", "schedule.warmup_steps=0", "log.every=1", "checkpoint.every=0", "parallel.threads=1",
             f"out={out}", *keys]
    subprocess.run((["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []) + words, check=True,
                   capture_output=True, text=True)
    got = numpy.array([line["loss"] for line in common.read_jsonl(os.path.join(out, "log.jsonl")) if line["kind"] == "train"])
    report.check(f"{what}: greatest difference of the loss at one of {STEPS} steps", common.greatest(got, wanted), 1e-4)
    saved = load_file(os.path.join(out, "best", "model.safetensors"))
    noisy = common.noise_of(model)
    report.check(f"{what}: greatest difference of a saved weight",
                 max(common.greatest(saved[n], w.numpy()) for n, w in weights.items() if n in saved and not noisy(n)), 3e-4)


def main(report, scratch):
    labels = [f"label_{k}" for k in range(3)]
    rows = common.labelled_texts(ROWS, 3, seed=4, longest=50)
    folder = os.path.join(scratch, "small")
    model = common.small_model(folder, labels, seed=5)

    def one(what, keys, **more):
        compare(report, scratch, what, folder, model, rows, keys, **more)
    one("focal, gamma 2", ["train.focal_gamma=2"], gamma=2.0)
    one("EMA 0.9", ["train.average=ema", "train.ema_decay=0.9"], mean={"multi_avg_fn": get_ema_multi_avg_fn(0.9)})
    one("EMA 0.9 from the second epoch, 3 ranks", ["train.average=ema", "train.ema_decay=0.9", "train.average_start=1"],
        ranks=3, mean={"multi_avg_fn": get_ema_multi_avg_fn(0.9)}, mean_from=PER_EPOCH)
    one("SWA from the second epoch", ["train.average=swa", "train.average_start=1"], mean={}, mean_from=PER_EPOCH)
    for ranks in (1, 3):
        one(f"FGM, eps 0.5, {ranks} ranks", ["train.adversarial=fgm", "train.adversarial_eps=0.5"], ranks=ranks,
            attack=("fgm", 0.5))
        one(f"AWP, rate 0.01, eps 0.02, {ranks} ranks", ["train.adversarial=awp", "train.adversarial_eps=0.02",
            "train.adversarial_rate=0.01"], ranks=ranks, attack=("awp", 0.02, 0.01))
    one("FGM, EMA and focal", ["train.adversarial=fgm", "train.average=ema", "train.ema_decay=0.9", "train.focal_gamma=1"],
        gamma=1.0, attack=("fgm", 1.0), mean={"multi_avg_fn": get_ema_multi_avg_fn(0.9)})


if __name__ == "__main__":
    common.run_script("tricks", main)
