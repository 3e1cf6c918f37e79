"""make_families.py - as make_bert.py, for the other families: small random encoders by transformers in fp32.

    build/peer/bin/python tests/golden/make_families.py > tests/golden/families.json
"""
import json
import sys

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from make_bert import fill, gradients, mix, name_hash, short


def make_rows(lengths, first, vocab, labels, types):
    """Row r: ids from `first` up, so that none is padding; odd rows are pairs where the family has types."""
    rows = []
    for r, n in enumerate(lengths):
        h = [int(x) for x in mix(name_hash("row %d" % r), n)]
        cut = n // 2 if types > 1 and r % 2 else n
        rows.append({"ids": [first + x % (vocab - first) for x in h], "types": [0] * cut + [1] * (n - cut),
                     "label": h[0] // 7 % labels})
    return rows


def one_case(name, config, lengths):
    config = dict(config)
    kind = config.pop("model_type")
    c = AutoConfig.for_model(kind, **config)
    c._attn_implementation = "eager"
    model = AutoModelForSequenceClassification.from_config(c)
    fill(model)
    model.eval()
    types = getattr(c, "type_vocab_size", 0)
    rows = make_rows(lengths, max(c.pad_token_id or 0, 0) + 1, c.vocab_size, c.num_labels, types)
    longest = max(lengths)
    inputs = {
        "input_ids": torch.tensor([r["ids"] + [c.pad_token_id or 0] * (longest - len(r["ids"])) for r in rows]),
        "attention_mask": torch.tensor([[1] * len(r["ids"]) + [0] * (longest - len(r["ids"])) for r in rows]),
    }
    if types > 0:
        inputs["token_type_ids"] = torch.tensor([r["types"] + [0] * (longest - len(r["ids"])) for r in rows])
    logits = model(**inputs).logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([r["label"] for r in rows]))
    loss.backward()
    return {"name": name, "config": dict(config, model_type=kind), "pooling": "pooler", "rows": rows,
            "loss": short(loss), "logits": [[short(x) for x in row] for row in logits.detach()],
            "gradients": gradients(model)}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    bert = {"vocab_size": 101, "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3,
            "intermediate_size": 50, "max_position_embeddings": 40, "type_vocab_size": 2, "hidden_act": "gelu",
            "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 4,
            "pad_token_id": 0}
    lengths = [1, 7, 40, 13, 2, 39]
    shorter = [1, 7, 38, 13, 2, 37]  # positions begin behind the padding's
    roberta = dict(bert, model_type="roberta", type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    cases = [
        one_case("distilbert", {"model_type": "distilbert", "vocab_size": 101, "dim": 36, "n_layers": 2, "n_heads": 3,
                                "hidden_dim": 50, "max_position_embeddings": 40, "activation": "gelu", "dropout": 0.0,
                                "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "num_labels": 3,
                                "pad_token_id": 0}, lengths),
        one_case("roberta", roberta, shorter),
        one_case("xlm-roberta", dict(roberta, model_type="xlm-roberta", num_hidden_layers=1), shorter),
        one_case("camembert", dict(roberta, model_type="camembert", num_hidden_layers=1, type_vocab_size=2), shorter),
        one_case("electra", dict(bert, model_type="electra", embedding_size=36), lengths),
        one_case("electra, projected", dict(bert, model_type="electra", embedding_size=20), lengths),
        one_case("electra, wide embeddings", dict(bert, model_type="electra", embedding_size=44), lengths),
    ]
    # Buckets of 12 that begin to share distances at 7, so that rows of 40 tokens have full and empty slots, and clamps.
    deberta = dict(bert, model_type="deberta-v2", type_vocab_size=0, layer_norm_eps=1e-7, relative_attention=True,
                   position_buckets=12, max_relative_positions=-1, norm_rel_ebd="layer_norm", share_att_key=True,
                   pos_att_type="p2c|c2p", position_biased_input=False, max_position_embeddings=30, pooler_dropout=0)
    cases += [
        one_case("deberta-v3", deberta, lengths),
        one_case("deberta-v2, convolution", dict(deberta, conv_kernel_size=3, conv_act="gelu"), lengths),
        one_case("deberta-v2, one layer, convolution of 5, tanh",
                 dict(deberta, num_hidden_layers=1, conv_kernel_size=5, pooler_hidden_act="tanh"), lengths),
        one_case("deberta-v2, own projections", dict(deberta, share_att_key=False, norm_rel_ebd="none"), lengths),
        one_case("deberta-v2, keys' side only", dict(deberta, pos_att_type=["c2p"], position_buckets=-1,
                                                      max_relative_positions=25), lengths),
        one_case("deberta-v2, queries' side only", dict(deberta, pos_att_type=["p2c"], position_biased_input=True,
                                                         max_position_embeddings=40, type_vocab_size=2,
                                                         share_att_key=False), lengths),
        one_case("deberta-v2, no relative positions",
                 dict(deberta, relative_attention=False, norm_rel_ebd="none", pos_att_type=None, position_biased_input=True,
                      max_position_embeddings=40), lengths),
    ]
    text = json.dumps({"cases": cases}, separators=(",", ":"))
    sys.stdout.write(text.replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
