"""Vectors of texts beside transformers: mean (as sentence-transformers pools), first token, maximum; normalised or not; chunks."""
import os

import numpy
import torch
from transformers import AutoModel

import common

BOUND = 1e-5


def pooled(hidden, pooling):
    return {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0)}[pooling]


def reference(folder, rows, pooling, normalize, chunk=None):
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer, out = common.tokenizer_of(folder), []
    for row in rows:
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        room = model.config.max_position_embeddings - 2
        pieces = [ids[:room]] if chunk is None else [ids[i:i + chunk] for i in range(0, len(ids), chunk)] or [[]]
        pieces = [p for p in pieces if len(pieces) == 1 or len(p) >= 5] or pieces[:1]
        with torch.no_grad():
            vectors = [pooled(model(torch.tensor([[tokenizer.cls_token_id, *p, tokenizer.sep_token_id]])).last_hidden_state[0],
                              pooling) for p in pieces]
        vector = torch.stack(vectors).mean(0).double()
        out.append((vector / vector.norm() if normalize else vector).numpy())
    return numpy.array(out)


def compare(report, scratch, what, folder, rows):
    source, out = os.path.join(scratch, "embed.jsonl"), os.path.join(scratch, "vectors.jsonl")
    common.write_jsonl(source, rows)
    for pooling, normalize, chunk in (("mean", True, None), ("cls", False, None), ("max", True, None), ("mean", True, 11)):
        keys = {} if chunk is None else {"data__long": "chunk", "data__chunk_size": chunk}
        common.cohort("embed", model__path=folder, data__input=source, data__text="text", out=out, train__precision="fp32",
                      embed__pooling=pooling, embed__normalize=normalize, **keys)
        got = numpy.array([r["vector"] for r in common.read_jsonl(out)])
        wanted = reference(folder, rows, pooling, normalize, chunk)
        report.check(f"{what}, {pooling}{', length 1' if normalize else ''}{'' if chunk is None else ', chunks of 11 tokens'}: "
                     "greatest difference", common.greatest(got, wanted), BOUND * max(1.0, float(numpy.abs(wanted).max())))


def main(report, scratch):
    rows = common.labelled_texts(60, 2, seed=9, longest=90) + [{"text": ""}]
    folder = os.path.join(scratch, "small")
    common.small_model(folder, ["a", "b"], seed=2)
    compare(report, scratch, "random BERT", folder, [{"text": r["text"]} for r in rows])
    compare(report, scratch, "MiniLM", common.MINILM, [{"text": r["text"]} for r in rows])


if __name__ == "__main__":
    common.run_script("embed", main)
