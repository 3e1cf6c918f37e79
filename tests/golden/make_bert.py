"""make_bert.py - numbers of small random BERTs by transformers in fp32, for tests/model/test_encoder.c.

    build/peer/bin/python tests/golden/make_bert.py > tests/golden/bert.json

Weights are a formula of the tensor's file name and the element, which the test computes too, so only results are
stored: logits, losses, and for each gradient its norm, its first and last element and eight projections on vectors of
random signs. The root mean square of the projections of an error is an estimate of the error's norm.
"""
import json
import math
import sys

import numpy
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

MASK = (1 << 64) - 1
PROJECTIONS = 8


def name_hash(text):
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def mix(start, n):
    """splitmix64's finalizer of start + 0 .. start + n - 1."""
    x = numpy.uint64(start) + numpy.arange(n, dtype=numpy.uint64)
    x = x + numpy.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return x ^ (x >> numpy.uint64(31))


def values(name, shape):
    n = math.prod(shape)
    v = (mix(name_hash(name), n) >> numpy.uint64(40)).astype(numpy.float64) / (1 << 24) - 0.5
    v = v * 0.25  # exact
    if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
        v = v + 1.0
    return torch.tensor(v.astype(numpy.float32)).reshape(shape)


def signs(name, k, n):
    bits = mix(name_hash("%s#%d" % (name, k)), n) & numpy.uint64(1)
    return bits.astype(numpy.float64) * 2 - 1


def fill(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(values(name, p.shape))


def make_rows(lengths, vocab, labels):
    """Row r: ids from 1 up (0 is padding, whose gradient transformers drops); odd rows are pairs."""
    rows = []
    for r, n in enumerate(lengths):
        h = [int(x) for x in mix(name_hash("row %d" % r), n)]
        ids = [1 + x % (vocab - 1) for x in h]
        cut = n // 2 if r % 2 else n
        rows.append({"ids": ids, "types": [0] * cut + [1] * (n - cut), "label": h[0] // 7 % labels})
    return rows


def pad(rows):
    longest = max(len(r["ids"]) for r in rows)

    def block(key, fill_value):
        return torch.tensor([r[key] + [fill_value] * (longest - len(r[key])) for r in rows])

    mask = torch.tensor([[1] * len(r["ids"]) + [0] * (longest - len(r["ids"])) for r in rows])
    return block("ids", 0), block("types", 0), mask, torch.tensor([r["label"] for r in rows])


class OtherPooling(torch.nn.Module):
    """The poolings that transformers has no class for."""

    def __init__(self, config, pooling):
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.pooling = pooling

    def forward(self, input_ids, token_type_ids, attention_mask):
        h = self.bert(input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask).last_hidden_state
        m = attention_mask[:, :, None]
        if self.pooling == "cls":
            pooled = h[:, 0]
        elif self.pooling == "mean":
            pooled = (h * m).sum(1) / m.sum(1)
        else:
            pooled = h.masked_fill(m == 0, -math.inf).max(1).values
        return self.classifier(pooled)


def build(config, pooling):
    c = BertConfig(**config)
    c._attn_implementation = "eager"
    model = BertForSequenceClassification(c) if pooling == "pooler" else OtherPooling(c, pooling)
    fill(model)
    return model.eval()  # no dropout


def logits_of(model, batch):
    out = model(input_ids=batch[0], token_type_ids=batch[1], attention_mask=batch[2])
    return out if isinstance(out, torch.Tensor) else out.logits


def short(x):
    return float("%.9g" % (x.item() if isinstance(x, torch.Tensor) else x))


def gradients(model):
    out = {}
    for name, p in model.named_parameters():
        g = p.grad.reshape(-1).double().numpy()
        out[name] = {
            "norm": short(numpy.sqrt((g * g).sum())),
            "ends": [short(g[0]), short(g[-1])],
            "projections": [short((g * signs(name, k, g.size)).sum()) for k in range(PROJECTIONS)],
        }
    return out


def one_case(name, config, pooling, rows):
    model = build(config, pooling)
    batch = pad(rows)
    logits = logits_of(model, batch)
    loss = torch.nn.functional.cross_entropy(logits, batch[3])
    loss.backward()
    return {"name": name, "config": config, "pooling": pooling, "rows": rows, "loss": short(loss),
            "logits": [[short(x) for x in row] for row in logits.detach()], "gradients": gradients(model)}


def training_case(config, rows, steps=50, warmup=5, lr=1e-3, batch_rows=6):
    model = build(config, "pooler")
    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    decays = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
                                  lr=lr, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for step in range(steps):
        factor = step / warmup if step < warmup else (steps - step) / (steps - warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        batch = pad([rows[(5 * step + 3 * i) % len(rows)] for i in range(batch_rows)])
        loss = torch.nn.functional.cross_entropy(logits_of(model, batch), batch[3])
        optimizer.zero_grad()
        loss.backward()
        norms.append(short(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        losses.append(short(loss))
    return {"config": config, "pooling": "pooler", "rows": rows, "steps": steps, "warmup": warmup, "lr": lr,
            "batch_rows": batch_rows, "losses": losses, "norms": norms}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    odd = {"model_type": "bert", "vocab_size": 101, "hidden_size": 36, "num_hidden_layers": 3,
           "num_attention_heads": 3, "intermediate_size": 50, "max_position_embeddings": 40, "type_vocab_size": 2,
           "hidden_act": "gelu", "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.0,
           "attention_probs_dropout_prob": 0.0, "num_labels": 5}
    wide = dict(odd, vocab_size=130, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
                max_position_embeddings=48, hidden_act="gelu_new", num_labels=2)
    relu = dict(odd, hidden_size=40, num_hidden_layers=1, num_attention_heads=5, intermediate_size=33,
                hidden_act="relu", num_labels=3)
    odd_rows = make_rows([1, 7, 40, 13, 2, 39, 16, 17], 101, 5)
    wide_rows = make_rows([48, 1, 33, 32, 31], 130, 2)
    relu_rows = make_rows([5, 40, 1, 9], 101, 3)
    cases = [one_case("odd", odd, "pooler", odd_rows), one_case("gelu_new", wide, "pooler", wide_rows),
             one_case("relu", relu, "pooler", relu_rows)]
    for pooling in ("cls", "mean", "max"):
        cases.append(one_case(pooling, odd, pooling, odd_rows))
    training_rows = make_rows([3, 12, 1, 40, 8, 21, 5, 17, 30, 2, 14], 101, 5)
    text = json.dumps({"cases": cases, "training": training_case(odd, training_rows)}, separators=(",", ":"))
    sys.stdout.write(text.replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
