"""Logits of `cohort predict` in fp32 against transformers: small random BERTs and MiniLM, rows of hard lengths, pairs,
every pooling. The same model in float64 says how much of the difference is PyTorch's own."""
import copy
import os
import random

import numpy
import torch

import common

BOUND = 1e-5

SMALL = [
    ("hidden 36, heads 3, 40 positions", dict(hidden_size=36, num_attention_heads=3, intermediate_size=50,
                                              num_hidden_layers=3, max_position_embeddings=40), False, 5),
    ("hidden 60, heads 5, intermediate 70, cased", dict(hidden_size=60, num_attention_heads=5, intermediate_size=70,
                                                        num_hidden_layers=2, max_position_embeddings=77), True, 2),
    ("hidden 64, gelu_new, 200 positions", dict(hidden_size=64, num_attention_heads=4, intermediate_size=96,
                                                num_hidden_layers=2, max_position_embeddings=200,
                                                hidden_act="gelu_new"), False, 3),
    ("hidden 24, one head, relu, 512 positions", dict(hidden_size=24, num_attention_heads=1, intermediate_size=33,
                                                      num_hidden_layers=4, max_position_embeddings=512,
                                                      hidden_act="relu", layer_norm_eps=1e-5), False, 7),
]


def hard_rows(rng, longest, pairs):
    """Empty, one word, odd lengths, around 16 and 32, exactly the limit, far beyond it; the same as pairs."""
    counts = [0, 1, 2, 5, 11, 14, 15, 29, 30, 31, 37, longest - 3, longest - 2, longest - 1, 3 * longest]
    rows = [{"text": common.text_of(rng, min(n, 3 * longest))} for n in counts]
    rows += [{"text": "Caf\u00e9 \u4e16\u754c, don't 3.14!"}, {"text": "\u0301\u200d \U0001f600 ##ing [MASK]"}]
    if pairs:
        for i, row in enumerate(rows):
            row["pair"] = common.text_of(rng, (7 * i) % (longest // 2))
        rows[3]["pair"] = ""
        rows.append({"text": "", "pair": common.text_of(rng, 9)})
    return rows


def by_hand(model, tokenizer, rows, pooling, max_length):
    out = []
    with torch.no_grad():
        for row in rows:
            hidden = model.bert(**common.tensors(common.encode(tokenizer, row, max_length))).last_hidden_state[0]
            pooled = hidden[0] if pooling == "cls" else hidden.mean(0) if pooling == "mean" else hidden.amax(0)
            out.append(model.classifier(pooled).double().numpy())
    return numpy.array(out)


def compare(report, scratch, what, folder, model, longest, poolings):
    tokenizer = common.tokenizer_of(folder)
    exact = copy.deepcopy(model).double()
    for pairs in (False, True):
        rows = hard_rows(random.Random(len(what)), longest, pairs)
        wanted = common.reference_logits(model, tokenizer, rows, longest)
        double = common.reference_logits(exact, tokenizer, rows, longest)
        got = common.logits_of(common.predict(folder, rows, scratch, data__max_length=longest))
        report.check(f"{what}, {len(rows)} {'pairs' if pairs else 'texts'}: greatest difference of a logit",
                     common.greatest(got, wanted), BOUND)
        report.note(f"{what}: greatest logit; cohort, PyTorch fp32 beside float64",
                    "%.3g; %.2g, %.2g" % (numpy.max(numpy.abs(double)), common.greatest(got, double),
                                          common.greatest(wanted, double)))
    for pooling in poolings:
        rows = hard_rows(random.Random(3), longest, False)
        got = common.logits_of(common.predict(folder, rows, scratch, data__max_length=longest, model__pooling=pooling))
        report.check(f"{what}, pooling {pooling}: greatest difference of a logit",
                     common.greatest(got, by_hand(model, tokenizer, rows, pooling, longest)), BOUND)


def main(report, scratch):
    for i, (what, config, cased, labels) in enumerate(SMALL):
        folder = os.path.join(scratch, f"small-{i}")
        model = common.small_model(folder, [f"label_{k}" for k in range(labels)], cased=cased, seed=i, **config)
        compare(report, scratch, what, folder, model, config["max_position_embeddings"], ("cls", "mean", "max"))
    folder = os.path.join(scratch, "minilm")
    model = common.minilm_with_head(folder, ["no", "yes", "maybe"])
    compare(report, scratch, "MiniLM", folder, model, 512, ("mean",))


common.run_script("logits", main)
