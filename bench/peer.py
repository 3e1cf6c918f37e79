#!/usr/bin/env python3
"""The peer: fine-tune a Hugging Face encoder the plain way (PyTorch + transformers), print one JSON line.

Dynamic padding per batch, AdamW (fused), linear warm-up and decay, no decay on biases and norms, clipping at 1: what the
Trainer does. Tokens per second count real tokens, without padding, over optimizer steps after the first five.
Input: TSV with a header. Run by bench/compare.py.
"""
import argparse
import csv
import json
import math
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--eval")
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, help="default: one epoch")
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)

    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def read(path):
        with open(path, encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [r[args.text] for r in rows], [r[args.label] for r in rows]

    texts, names = read(args.train)
    labels = sorted(set(names))
    ids = tokenizer(texts, truncation=True, max_length=args.max_length)["input_ids"]
    targets = [labels.index(n) for n in names]
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=len(labels)).float().train()
    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    decayed = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
                                  lr=args.lr, fused=True)
    steps = args.steps or math.ceil(len(ids) / args.batch)
    warm = math.ceil(0.1 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: s / max(1, warm) if s < warm else max(0.0, (steps - s) / max(1, steps - warm)))

    def autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16")

    def batch_of(rows, all_ids):
        longest = max(len(all_ids[i]) for i in rows)
        x = torch.full((len(rows), longest), tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for k, i in enumerate(rows):
            x[k, :len(all_ids[i])] = torch.tensor(all_ids[i])
            mask[k, :len(all_ids[i])] = 1
        return x, mask

    generator = torch.Generator().manual_seed(args.seed)
    order, times, losses = [], [], []
    for step in range(steps):
        if len(order) < args.batch:
            order += torch.randperm(len(ids), generator=generator).tolist()
        rows, order = order[:args.batch], order[args.batch:]
        start = time.perf_counter()
        x, mask = batch_of(rows, ids)
        with autocast():
            logits = model(input_ids=x, attention_mask=mask).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([targets[i] for i in rows]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        times.append((time.perf_counter() - start, int(mask.sum()), x.numel()))
        losses.append(float(loss))
    skip = min(5, steps // 4)
    seconds, tokens, slots = (sum(t[k] for t in times[skip:]) for k in range(3))
    result = {"torch": torch.__version__, "dtype": args.dtype, "threads": torch.get_num_threads(), "steps": steps,
              "tokens_per_s": tokens / seconds, "fill": tokens / slots, "train_s": sum(t[0] for t in times),
              "loss": sum(losses[-10:]) / len(losses[-10:])}
    if args.eval:
        texts, names = read(args.eval)
        ids = tokenizer(texts, truncation=True, max_length=args.max_length)["input_ids"]
        model.eval()
        right = 0
        with torch.no_grad(), autocast():
            for at in range(0, len(ids), 64):
                rows = list(range(at, min(at + 64, len(ids))))
                x, mask = batch_of(rows, ids)
                best = model(input_ids=x, attention_mask=mask).logits.argmax(-1).tolist()
                right += sum(labels[b] == names[i] for b, i in zip(best, rows))
        result["accuracy"] = right / len(ids)
    print(json.dumps(result))


main()
