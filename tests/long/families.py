"""Every family beside transformers: logits, every gradient, fifty steps of training, folders both ways; gradients again with
layers recomputed, in 16 bits and on CUDA (gradients.variants). The rows of the table in docs/results/parity.md.

Small random encoders with odd sizes (but heads of 8, of which a GPU wants a multiple), rows of one token to the most that
the positions hold. Their tokenizer is a small WordPiece vocabulary for all of them: families' own tokenizers are compared
by tokenizer.py.
"""
import os
import random

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

import common
import gradients
import train50

LABELS = [f"label_{k}" for k in range(4)]
SIZES = dict(hidden_size=40, num_hidden_layers=3, num_attention_heads=5, intermediate_size=50,
             max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, type_vocab_size=1)
# Buckets that begin to share distances at 9, so that rows of 64 tokens have shared slots.
DEBERTA = dict(SIZES, type_vocab_size=0, relative_attention=True, position_buckets=16, norm_rel_ebd="layer_norm",
               share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False, pooler_dropout=0)
BEHIND_PAD = dict(SIZES, pad_token_id=0, bos_token_id=2, eos_token_id=3)
FAMILIES = [
    ("bert", dict(SIZES, type_vocab_size=2), 64),
    ("distilbert", dict(dim=40, n_layers=3, n_heads=5, hidden_dim=50, max_position_embeddings=64, dropout=0.0,
                        attention_dropout=0.0, seq_classif_dropout=0.0), 64),
    ("roberta", BEHIND_PAD, 63),
    ("xlm-roberta", dict(BEHIND_PAD, layer_norm_eps=1e-5), 63),
    ("camembert", BEHIND_PAD, 63),
    ("electra", dict(SIZES, embedding_size=40), 64),
    ("electra", dict(SIZES, embedding_size=20, hidden_act="gelu_new"), 64),
    ("deberta-v2", DEBERTA, 64),
    ("deberta-v2", dict(DEBERTA, conv_kernel_size=3, conv_act="gelu"), 64),
    ("deberta-v2", dict(DEBERTA, share_att_key=False, pos_att_type=["c2p"], position_buckets=-1), 64),
]


def random_model(kind, folder, seed, sizes, spread=0.1):
    os.makedirs(folder)
    size = common.write_vocab(folder, False)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    config = AutoConfig.for_model(kind, **{"pad_token_id": 0, **sizes}, vocab_size=size + 3, initializer_range=spread,
                                  attn_implementation="eager", **labels)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                p.add_(torch.randn_like(p) * spread)
    model.save_pretrained(folder)
    return model.eval()


class Texts:
    """common.tokenizer_of() without token types, which a family may not take."""

    def __init__(self, folder):
        self.tokenizer = common.tokenizer_of(folder)

    def __call__(self, *texts, **options):
        return self.tokenizer(*texts, **options, return_token_type_ids=False)


def logits(report, scratch, what, folder, model, longest):
    rng = random.Random(3)
    rows = [{"text": common.text_of(rng, k)} for k in [0, 1, 2, longest - 2, 100] + [rng.randrange(60) for _ in range(12)]]
    got = common.logits_of(common.predict(folder, rows, scratch, data__max_length=longest))
    wanted = common.reference_logits(model, Texts(folder), rows, longest)
    return report.check(f"{what}, {len(rows)} texts: greatest difference of a logit", common.greatest(got, wanted), 1e-5)


def to_transformers(report, scratch, what, folder, longest):
    """What cohort trained, in transformers: its class, its logits. Returns the greatest difference of a logit."""
    rows = [{"text": r["text"], "label": r["label"]} for r in common.labelled_texts(64, 4, seed=2)]
    source, out = os.path.join(scratch, "train.jsonl"), common.fresh(os.path.join(scratch, "run"))
    common.write_jsonl(source, rows)
    common.cohort("train", model__path=folder, data__train=source, data__text="text", data__label="label", out=out,
                  train__max_steps=6, train__batch_size=16, train__precision="fp32", optim__lr="1e-3")
    best = os.path.join(out, "best")
    loaded, info = AutoModelForSequenceClassification.from_pretrained(best, output_loading_info=True,
                                                                      attn_implementation="eager", dtype=torch.float32)
    report.equal(f"{what}, trained: what transformers finds strange", {k: v for k, v in info.items() if v}, {})
    report.equal(f"{what}, trained: architectures", loaded.config.architectures, [type(loaded).__name__])
    return logits(report, scratch, f"{what}, trained and loaded by transformers", best, loaded.eval(), longest)


def main(report, scratch):
    for i, (kind, sizes, longest) in enumerate(FAMILIES):
        what = kind + (", projected" if sizes.get("embedding_size", 40) != 40 else "")
        what += ", convolution" if "conv_kernel_size" in sizes else ""
        what += ", keys' side" if sizes.get("pos_att_type") == ["c2p"] else ""
        folder = os.path.join(scratch, f"family-{i}")
        model = random_model(kind, folder, i, sizes)
        lengths = [1, 7, longest, 13, 2, longest - 1, 16, 17]
        # transformers wrote the folder, so that its logits and gradients are "transformers -> load" as well.
        cells = {"logits": logits(report, scratch, what, folder, model, longest),
                 "gradients": gradients.compare(report, scratch, what, folder, model, lengths),
                 **gradients.variants(report, scratch, what, folder, model, lengths),
                 "trained by cohort, loaded by transformers": to_transformers(report, scratch, what, folder, longest),
                 "loss of 50 steps": train50.compare(report, scratch, what, folder, model, 1e-3, longest, common.labelled_texts(
                     train50.ROWS, 4, seed=1, longest=70))}
        for column, value in cells.items():
            report.cell(what, column, ("equal" if value else "**differ**") if isinstance(value, bool) else "%.1e" % value)


if __name__ == "__main__":
    common.run_script("families", main)
