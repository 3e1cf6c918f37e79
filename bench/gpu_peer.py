#!/usr/bin/env python3
"""The peer on a GPU: PyTorch + transformers fine-tune a BERT of random weights; jobs come as JSON lines, answers go as such.

What the Trainer does: bf16 autocast over float weights, SDPA attention (DeBERTa's own, which is the only one that it has),
fused AdamW without decay on biases and norms, clipping at 1, linear schedule. In the peer's favour: batches are made and
moved to the GPU before the clock starts, and nothing is read back while it runs. One process serves a whole comparison, so
that compiled models are kept. Run by bench/gpu_compare.py.

Job: model (config.json's folder), train (TSV of label and text, made of words w<id>), batch, steps, warm, mode (eager or
compile), dynamic (compile for changing shapes), pad (0: to the longest of the batch, else to this length), max_length,
seed, parts (steps timed part by part afterwards).
"""
import argparse
import gc
import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

CLS, SEP, PAD = 2, 3, 0


def read_rows(path, max_length):
    rows = []
    with open(path, encoding="utf-8") as f:
        next(f)
        for line in f:
            label, text = line.rstrip("\n").split("\t")
            rows.append((int(label == "yes"), [CLS] + [int(w[1:]) for w in text.split()][:max_length - 2] + [SEP]))
    return rows


def make_batches(rows, job, count, device):
    generator = torch.Generator().manual_seed(job["seed"])
    order, batches = [], []
    while len(batches) < count:
        if len(order) < job["batch"]:
            order = torch.randperm(len(rows), generator=generator).tolist()
        part, order = [rows[i] for i in order[:job["batch"]]], order[job["batch"]:]
        width = job["pad"] or max(len(ids) for _, ids in part)
        x = torch.full((len(part), width), PAD)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for k, (_, ids) in enumerate(part):
            x[k, :len(ids)] = torch.tensor(ids)
            mask[k, :len(ids)] = 1
        batches.append((x.to(device), mask.to(device), torch.tensor([y for y, _ in part], device=device),
                        int(mask.sum()), x.numel()))
    return batches


class Peer:
    def __init__(self, device):
        self.device = device
        self.models = {}

    def model(self, job):
        """Weights and compiled code are kept by shape of the model and mode: a job starts from the last one's weights."""
        shape = "any" if job["mode"] == "eager" or job["dynamic"] else f"{job['batch']}x{job['max_length']}"
        key = (job["model"], job["mode"], shape)
        if key not in self.models:
            torch.manual_seed(job["seed"])
            config = AutoConfig.from_pretrained(job["model"])
            config.num_labels = 2
            attention = "eager" if config.model_type == "deberta-v2" else "sdpa"  # it has no other
            model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
            model = model.to(self.device).train()
            named = [(n.endswith("bias") or "layernorm" in n.lower().replace("_", ""), p)
                     for n, p in model.named_parameters()]
            plain, decayed = [p for is_plain, p in named if is_plain], [p for is_plain, p in named if not is_plain]
            optimizer = torch.optim.AdamW(
                [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-5, fused=True)
            called = torch.compile(model, dynamic=True if job["dynamic"] else None) if job["mode"] == "compile" else model
            self.models[key] = model, called, optimizer
        return self.models[key]

    def allocated(self):
        return torch.cuda.memory_allocated() if self.device == "cuda" else 0

    def sync(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def run(self, job):
        rows = read_rows(job["train"], job["max_length"])
        others = self.allocated()  # kept for later rounds: not this one's memory
        model, called, optimizer = self.model(job)
        others -= sum(p.numel() * 12 for p in model.parameters()) if optimizer.state else 0
        count = job["warm"] + job["steps"]
        batches = make_batches(rows, job, count, self.device)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: max(0.0, (count - s) / count))
        marks = []

        def mark(kind):
            if marks is not None and self.device == "cuda":
                event = torch.cuda.Event(enable_timing=True)
                event.record()
                marks.append((kind, event))
            elif marks is not None:
                marks.append((kind, time.perf_counter()))

        def step(batch):
            x, mask, y = batch[:3]
            mark("begin")
            with torch.autocast(self.device, dtype=torch.bfloat16):
                logits = called(input_ids=x, attention_mask=mask).logits
                loss = torch.nn.functional.cross_entropy(logits.float(), y)
            mark("forward")
            loss.backward()
            mark("backward")
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            mark("optimizer")
            return loss

        measured, marks = marks, None
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        before = time.perf_counter()
        for batch in batches[:job["warm"]]:
            loss = step(batch)
        self.sync()
        start = time.perf_counter()
        for batch in batches[job["warm"]:]:
            loss = step(batch)
        self.sync()
        seconds = time.perf_counter() - start
        tokens = sum(b[3] for b in batches[job["warm"]:])
        slots = sum(b[4] for b in batches[job["warm"]:])
        answer = {"tokens_per_s": tokens / seconds, "ms_per_step": 1000 * seconds / job["steps"], "fill": tokens / slots,
                  "warm_s": start - before, "loss": float(loss)}
        if self.device == "cuda":
            answer["memory_mib"] = (torch.cuda.max_memory_allocated() - others) / 2**20
        marks = measured
        for batch in batches[-job["parts"]:] if job["parts"] else []:
            step(batch)
        self.sync()
        parts = {}
        for (_, last), (kind, now) in zip(marks, marks[1:]):
            if kind != "begin":
                took = last.elapsed_time(now) if self.device == "cuda" else 1000 * (now - last)
                parts[kind] = parts.get(kind, 0.0) + took / job["parts"]
        answer["parts_ms"] = parts
        return answer

    def forget(self):
        self.models.clear()
        torch.compiler.reset()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    args = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    if args.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"error": "PyTorch sees no GPU"}), file=out, flush=True)
        return 69
    hello = {"torch": torch.__version__, "transformers": transformers.__version__, "cuda": torch.version.cuda}
    print(json.dumps(hello), file=out, flush=True)
    peer = Peer(args.device)
    for line in sys.stdin:
        job = json.loads(line)
        if job.get("forget"):
            peer.forget()
            answer = {}
        else:
            try:
                answer = peer.run(job)
            except Exception as e:  # out of memory, a compiler that is missing: the comparison goes on without this figure
                peer.forget()
                answer = {"error": f"{type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''}"}
        print(json.dumps(answer), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
