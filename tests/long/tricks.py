"""Focal loss, means of weights, adversarial steps and samples of dropout beside PyTorch: 30 steps of AdamW.

Means by torch.optim.swa_utils; FGM and AWP as loops around the optimizer write them (the gradients of both passes are added, the
weights put back), on 1 and 3 ranks; the loss of every step, and the saved weights. There is no dropout but the head's where it
has samples: their masks are drawn here once more, from what model/kernels/kernels.h says of the decisions.
"""
import os

import numpy
import torch
from safetensors.numpy import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import common
from train50 import collate

STEPS, BATCH, ROWS, LR, SEED = 30, 16, 200, 1e-3, 42
PER_EPOCH = -(-ROWS // BATCH)
DROPOUT = 0.4


def focal(logits, target, gamma):
    logp = torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    return ((-torch.expm1(logp)) ** gamma * -logp).mean()


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) % 2 ** 64
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2 ** 64
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2 ** 64
    return x ^ x >> 31


def philox(key, c):
    """Philox4x32-10 (Salmon et al. 2011)."""
    k0, k1 = key % 2 ** 32, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = (p1 >> 32 ^ c[1] ^ k0, p1 % 2 ** 32, p0 >> 32 ^ c[3] ^ k1, p0 % 2 ** 32)
        k0, k1 = (k0 + 0x9E3779B9) % 2 ** 32, (k1 + 0xBB67AE85) % 2 ** 32
    return c


def head_masks(step, rows, samples, channels, p):
    """(samples, rows, channels): 0, or what is kept is scaled by."""
    purpose, site, threshold = 3, 4, round(p * 65536)
    key = mix(mix(mix(SEED ^ purpose << 56) ^ step) ^ site)
    lanes = [[half for i in range(-(-samples * channels // 8)) for word in philox(key, (i, 0, row, 0))
              for half in (word % 2 ** 16, word >> 16)][:samples * channels] for row in rows]
    kept = torch.tensor(lanes) >= threshold
    return (kept * (65536 / (65536 - threshold))).float().reshape(len(rows), samples, channels).transpose(0, 1)


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


def reference(model, tokenizer, rows, gamma=0.0, attack=None, mean=None, mean_from=0, samples=0, dropout=0.0):
    """Losses of the steps; the weights, or their mean."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        first = step % PER_EPOCH * BATCH
        batch, target = collate(tokenizer, rows[first:first + BATCH], model.config.label2id, 64)

        def loss_of():
            def one(logits):
                return focal(logits, target, gamma) if gamma > 0 else torch.nn.functional.cross_entropy(logits, target)
            if samples == 0:
                return one(model(**batch).logits)
            pooled = model.bert(**batch).pooler_output
            masks = head_masks(step, range(first, first + len(target)), samples, pooled.shape[1], dropout)
            return torch.stack([one(model.classifier(pooled * mask)) for mask in masks]).mean()
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
    words = [common.COHORT, "train", f"model.path={folder}", f"seed={SEED}", f"data.train={source}", "data.text=text",
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
    model = common.small_model(folder, labels, seed=5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sampled = os.path.join(scratch, "sampled")
    dropping = common.small_model(sampled, labels, seed=5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                                  classifier_dropout=DROPOUT)

    def one(what, keys, **more):
        compare(report, scratch, what, folder, model, rows, keys, **more)

    def some(what, samples, keys=(), **more):
        compare(report, scratch, f"{what}, head's dropout {DROPOUT}", sampled, dropping, rows,
                [f"model.dropout_samples={samples}", *keys], samples=samples, dropout=DROPOUT, **more)
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
    some("1 sample", 1)
    some("4 samples", 4)
    some("6 samples, 3 ranks", 6, ranks=3)
    some("2 samples, FGM and focal", 2, ["train.adversarial=fgm", "train.focal_gamma=2"], gamma=2.0, attack=("fgm", 1.0))


if __name__ == "__main__":
    common.run_script("tricks", main)
