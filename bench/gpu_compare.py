#!/usr/bin/env python3
"""Training speed on one GPU: cohort beside PyTorch + transformers, in turn, on the same rows and the same model.

  python3 bench/gpu_compare.py --cohort build/cuda/cohort [--budget 450] [--json FILE] [--markdown FILE]

Needs a Python with PyTorch and transformers (scripts/setup --peer, or the machine's own). Contestants: cohort; transformers
in bf16 autocast with SDPA (eager; DeBERTa has no SDPA there), padded to the longest row of each batch; the same under
torch.compile; and, on real lengths, eager padded to 128, which is run_glue's default. Weights are random (their values do
not change the speed), rows are made of known words, so both sides see the same token ids. Dropout is 0.1 on both sides.

A figure is real tokens a second, special tokens in, padding out, over the steps after the warm-up. Each round runs all
contestants one after the other; ratios are taken within a round. MFU = 3 x forward FLOPs of real tokens (6 for each weight
of the layers' matrices, 12 x length x hidden for the attention of each token and layer; embeddings, pooler, classifier and
DeBERTa's products with positions left out) over the GPU's dense 16-bit peak. Cohort leaves out what the last layer need not
compute; that work is counted all the same, on both sides.

--budget SECONDS: what does not fit is left out and named. --device cpu --tiny tests this program itself.
"""
import argparse
import datetime
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PEAKS_TFLOPS = {"V100": 125, "A100": 312, "H100": 989, "H200": 989}  # dense, 16 bits
# Token counts with special tokens (BERT, uncased), every 5 % from the shortest to the longest row of the training parts.
LENGTHS = {
    "snips": [4, 7, 8, 9, 9, 10, 10, 11, 11, 11, 12, 12, 13, 14, 14, 15, 16, 16, 18, 20, 41],
    "sst2": [3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 13, 14, 16, 18, 20, 23, 27, 33, 66],
    "mrpc": [19, 32, 36, 39, 41, 44, 45, 47, 50, 51, 53, 55, 57, 59, 61, 62, 64, 67, 70, 74, 103],
}
BASE = {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072, "vocabulary": 30522, "positions": 512}
DISTILBERT = dict(BASE, layers=6, distilbert=True)
DEBERTA = dict(BASE, vocabulary=128100, deberta=256)  # v3-base; deberta: buckets of distances
TINY = {"layers": 2, "hidden": 64, "heads": 2, "intermediate": 128, "vocabulary": 1000, "positions": 128}
# In order of importance: a short budget leaves out the last ones. The bound is on the median ratio.
CASES = [
    {"name": "BERT-base 256x128", "model": BASE, "batch": 256, "length": 128, "steps": 60, "warm": 15,
     "want": {"mfu": 0.50, "eager": 1.8, "compile": 1.25}},
    {"name": "BERT-base 32x128", "model": BASE, "batch": 32, "length": 128, "steps": 200, "warm": 30,
     "want": {"eager": 2.5, "compile": 1.5}},
    {"name": "BERT-base, SST-2 lengths", "model": BASE, "batch": 32, "mix": "sst2", "steps": 300, "warm": 100,
     "want": {"pad128": 5.0}},
    {"name": "BERT-base, SNIPS lengths", "model": BASE, "batch": 32, "mix": "snips", "steps": 300, "warm": 100,
     "want": {"pad128": 5.0}},
    {"name": "BERT-base, MRPC lengths", "model": BASE, "batch": 32, "mix": "mrpc", "steps": 200, "warm": 100, "want": {}},
    {"name": "BERT-base 32x512", "model": BASE, "batch": 32, "length": 512, "steps": 60, "warm": 15, "want": {"mfu": 0.45}},
    {"name": "DistilBERT 32x128", "model": DISTILBERT, "batch": 32, "length": 128, "steps": 200,
     "warm": 30, "want": {}},
    {"name": "DeBERTa-v3-base 32x128", "model": DEBERTA, "batch": 32, "length": 128, "steps": 60, "warm": 15, "want": {}},
    {"name": "DeBERTa-v3-base 32x512", "model": DEBERTA, "batch": 32, "length": 512, "steps": 20, "warm": 5, "want": {}},
]
TINY_CASES = [
    {"name": "tiny 8x32", "model": TINY, "batch": 8, "length": 32, "steps": 4, "warm": 2, "want": {}},
    {"name": "tiny DistilBERT 8x32", "model": dict(TINY, distilbert=True), "batch": 8, "length": 32, "steps": 4, "warm": 2,
     "want": {}},
    {"name": "tiny DeBERTa 8x32", "model": dict(TINY, deberta=16), "batch": 8, "length": 32, "steps": 4, "warm": 2,
     "want": {}},
    {"name": "tiny, SST-2 lengths", "model": TINY, "batch": 8, "mix": "sst2", "steps": 4, "warm": 2, "want": {}},
]


def say(text):
    print(text, file=sys.stderr, flush=True)


def write_model(folder, shape):
    os.makedirs(folder, exist_ok=True)
    if shape.get("distilbert"):
        config = {"architectures": ["DistilBertModel"], "model_type": "distilbert", "vocab_size": shape["vocabulary"],
                  "dim": shape["hidden"], "n_layers": shape["layers"], "n_heads": shape["heads"],
                  "hidden_dim": shape["intermediate"], "max_position_embeddings": shape["positions"],
                  "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.2,
                  "initializer_range": 0.02, "pad_token_id": 0}
    else:
        config = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": shape["vocabulary"],
                  "hidden_size": shape["hidden"], "num_hidden_layers": shape["layers"],
                  "num_attention_heads": shape["heads"], "intermediate_size": shape["intermediate"],
                  "max_position_embeddings": shape["positions"], "type_vocab_size": 2, "hidden_act": "gelu",
                  "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "layer_norm_eps": 1e-12,
                  "initializer_range": 0.02, "pad_token_id": 0}
    if shape.get("deberta"):
        config.update(architectures=["DebertaV2Model"], model_type="deberta-v2", type_vocab_size=0, relative_attention=True,
                      position_buckets=shape["deberta"], norm_rel_ebd="layer_norm", share_att_key=True,
                      pos_att_type="p2c|c2p", position_biased_input=False, layer_norm_eps=1e-7, pooler_dropout=0)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1)
    # Every word of the rows is one token: w<id>.
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(5, shape["vocabulary"])]
    with open(f"{folder}/vocab.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(words) + "\n")


def row_lengths(case, count, given):
    rng = random.Random(11)
    if "mix" not in case:
        return [case["length"]] * count
    if given.get(case["mix"]):
        with open(given[case["mix"]], encoding="utf-8") as f:
            known = [int(line) for line in f if line.strip()]
        return [min(128, max(3, rng.choice(known))) for _ in range(count)]
    table = LENGTHS[case["mix"]]
    lengths = []
    for _ in range(count):
        at = rng.random() * (len(table) - 1)
        low = int(at)
        lengths.append(round(table[low] + (table[low + 1] - table[low]) * (at - low)))
    return lengths


def write_rows(path, case, lengths):
    rng = random.Random(12)
    with open(path, "w", encoding="utf-8") as f:
        f.write("label\ttext\n")
        for i, length in enumerate(lengths):
            words = " ".join(f"w{rng.randrange(5, case['model']['vocabulary'])}" for _ in range(length - 2))
            f.write(f"{'yes' if i % 2 else 'no'}\t{words}\n")


def train_flops(model, lengths):
    """FLOPs of a training step for each real token, for rows of these lengths."""
    h, layers = model["hidden"], model["layers"]
    matrices = layers * (4 * h * h + 2 * h * model["intermediate"])
    attention = 12 * h * layers * sum(n * n for n in lengths) / sum(lengths)
    return 6 * matrices + attention


class GpuMemory:
    """Highest memory in use on the GPU, asked 20 times a second, less what was in use before."""

    def __init__(self, enabled):
        self.peak, self.base, self.process = 0, None, None
        if enabled:
            self.process = subprocess.Popen(
                ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "50", "-i", "0"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.thread = threading.Thread(target=self.read, daemon=True)
            self.thread.start()
            for _ in range(100):
                if self.base is not None:
                    break
                time.sleep(0.02)

    def read(self):
        for line in self.process.stdout:
            try:
                used = int(line)
            except ValueError:
                continue
            if self.base is None:
                self.base = used
            self.peak = max(self.peak, used)

    def stop(self):
        if self.process is None:
            return None
        self.process.terminate()
        self.process.wait()
        return self.peak - self.base if self.base is not None else None


class Peer:
    def __init__(self, python, device):
        self.process = subprocess.Popen([python, os.path.join(HERE, "gpu_peer.py"), "--device", device],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.hello = self.answer()
        if "error" in self.hello:
            raise RuntimeError(self.hello["error"])

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the peer's process ended; run bench/gpu_peer.py by hand to see why")
        return json.loads(line)

    def ask(self, job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def parts_of_cohort(command, out):
    """Milliseconds of each part of a step, from a short run of its own: it waits for the device after each part."""
    command = [word for word in command if not word.startswith("train.max_steps=")] + ["train.max_steps=20", "log.parts=true"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return {}
    with open(f"{out}/results.json", encoding="utf-8") as f:
        parts = json.load(f)["train"].get("parts_ms", {})
    shutil.rmtree(out, ignore_errors=True)
    return parts


def run_cohort(args, case, files):
    out = f"{files['folder']}/run"
    shutil.rmtree(out, ignore_errors=True)
    command = [args.cohort, "train", f"model.path={files['model']}", "model.from_scratch=true", f"data.train={files['rows']}",
               "data.text=text", "data.label=label", f"data.max_length={files['max_length']}", f"out={out}",
               f"data.cache={files['folder']}/cache", f"train.batch_size={case['batch']}",
               f"train.max_steps={case['warm'] + case['steps']}", "checkpoint.every=0", "log.every=1",
               f"parallel.reproducible={args.reproducible}", f"parallel.backend={args.device}"] + args.set
    if args.device == "cuda":
        command.append("train.precision=bf16")
    memory = GpuMemory(args.device == "cuda")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used = memory.stop()
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        return {"error": f"exit {done.returncode}: {said[-1][:300] if said else ''}"}
    tokens = seconds = 0.0
    with open(f"{out}/log.jsonl", encoding="utf-8") as f:
        for line in f:
            step = json.loads(line)
            if step["kind"] == "train" and step["step"] > case["warm"]:
                tokens += step["tokens"]
                seconds += step["tokens"] / step["tokens_per_s"]
                loss = step["loss"]
    with open(f"{out}/results.json", encoding="utf-8") as f:
        train = json.load(f)["train"]
    shutil.rmtree(out, ignore_errors=True)
    answer = {"tokens_per_s": tokens / seconds, "ms_per_step": 1000 * seconds / case["steps"], "fill": 1.0, "loss": loss,
              "precision": train["precision"], "parts_ms": parts_of_cohort(command, out)}
    if "graphs" in train:
        answer["graphs"] = train["graphs"]
    if used is not None:
        answer["memory_mib"] = used
    return answer


def contestants(case, with_compile):
    names = ["cohort", "eager"] + (["compile"] if with_compile else []) + (["pad128"] if "mix" in case else [])
    return names


def run_case(args, case, files, peer, deadline):
    rounds = []
    for k in range(args.rounds):
        if k > 0 and time.monotonic() + rounds[-1]["took_s"] > deadline:
            break
        started, results = time.monotonic(), {}
        for name in contestants(case, not args.no_compile):
            if name == "cohort":
                results[name] = run_cohort(args, case, files)
            elif k > 0 and "error" in rounds[0]["results"][name]:
                results[name] = rounds[0]["results"][name]
            else:
                results[name] = peer.ask({
                    "model": files["model"], "train": files["rows"], "batch": case["batch"], "steps": case["steps"],
                    "warm": case["warm"], "mode": "compile" if name == "compile" else "eager", "dynamic": "mix" in case,
                    "pad": min(128, case["model"]["positions"]) if name == "pad128" else 0,
                    "max_length": files["max_length"], "seed": 1, "parts": 10 if args.device == "cuda" else 2})
            if "error" in results[name]:
                say(f"  {name}: {results[name]['error']}")
        rounds.append({"results": results, "took_s": time.monotonic() - started})
    return rounds


def summary(case, rounds, lengths, peak):
    """Medians over the rounds; the ratio of cohort to each contestant, taken in each round."""
    rows, ratios = {}, {}
    flops = train_flops(case["model"], lengths)
    for name in rounds[0]["results"]:
        good = [r["results"][name] for r in rounds if "error" not in r["results"][name]]
        if not good:
            rows[name] = {"error": rounds[0]["results"][name]["error"]}
            continue
        speed = statistics.median(g["tokens_per_s"] for g in good)
        rows[name] = dict(good[-1], tokens_per_s=speed, all_tokens_per_s=[g["tokens_per_s"] for g in good],
                          tflops=speed * flops / 1e12)
        if peak:
            rows[name]["mfu"] = rows[name]["tflops"] / peak
        pairs = [r["results"]["cohort"]["tokens_per_s"] / r["results"][name]["tokens_per_s"] for r in rounds
                 if "error" not in r["results"][name] and "error" not in r["results"]["cohort"]]
        if name != "cohort" and pairs:
            ratios[name] = {"median": statistics.median(pairs), "rounds": pairs}
    return {"case": case["name"], "rounds": len(rounds), "mean_length": statistics.mean(lengths),
            "mflop_per_token": flops / 1e6, "results": rows, "ratios": ratios, "want": case["want"]}


def verdicts(done):
    lines = []
    for case in done:
        for what, bound in case["want"].items():
            if what == "mfu":
                got = case["results"]["cohort"].get("mfu")
            else:
                got = case["ratios"].get(what, {}).get("median")
            text = "not measured" if got is None else f"{100 * got:.1f} %" if what == "mfu" else f"{got:.2f} x"
            wanted = f"{100 * bound:.0f} %" if what == "mfu" else f"{bound:g} x"
            mark = "" if got is None else "reached" if got >= bound else "MISSED"
            lines.append((case["case"], "MFU" if what == "mfu" else f"over {what}", text, wanted, mark))
    return lines


def tables(report):
    lines = []
    for case in report["cases"]:
        lines += [f"### {case['case']}", "",
                  f"{case['rounds']} rounds, {case['mean_length']:.1f} real tokens a row on average, "
                  f"{case['mflop_per_token']:.1f} MFLOP a token.", "",
                  "| | tokens/s | ms a step | MFU | fill | peak memory, MiB | parts, ms | cohort is faster by |",
                  "|---|---|---|---|---|---|---|---|"]
        for name, row in case["results"].items():
            if "error" in row:
                lines.append(f"| {name} | failed: {row['error']} | | | | | | |")
                continue
            parts = ", ".join(f"{k} {v:.2f}" for k, v in row.get("parts_ms", {}).items()) or "-"
            ratio = case["ratios"].get(name)
            lines.append(f"| {name} | {row['tokens_per_s']:,.0f} | {row['ms_per_step']:.2f} | "
                         + (f"{100 * row['mfu']:.1f} %" if "mfu" in row else f"{row['tflops']:.3g} TFLOP/s")
                         + f" | {row['fill']:.2f} | {row.get('memory_mib', 0):,.0f} | {parts} | "
                         + (f"{ratio['median']:.2f} ({', '.join(f'{r:.2f}' for r in ratio['rounds'])})" if ratio else "")
                         + " |")
        lines.append("")
    if any(case["want"] for case in report["cases"]):
        lines += ["| goal | of | got | wanted | |", "|---|---|---|---|---|"]
        lines += [f"| {case} | {what} | {got} | {want} | {mark} |" for case, what, got, want, mark in verdicts(report["cases"])]
        lines.append("")
    if report["left_out"]:
        lines += ["Left out, for want of time: " + ", ".join(report["left_out"]) + ".", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default=os.path.join(ROOT, "build/cuda/cohort"))
    parser.add_argument("--python", default=sys.executable, help="a Python with PyTorch and transformers")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two small cases, to test this program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=450, help="seconds")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--reproducible", default="fixed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key for cohort")
    parser.add_argument("--lengths", action="append", default=[], metavar="NAME=FILE",
                        help="row lengths of snips, sst2 or mrpc from a file, one number a line")
    parser.add_argument("--case", action="append", help="only cases with this in their name")
    parser.add_argument("--json")
    parser.add_argument("--markdown", help="write the tables here")
    args = parser.parse_args()
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    started = time.monotonic()
    deadline = started + args.budget
    given = dict(item.split("=", 1) for item in args.lengths)
    gpu, peak = platform.processor() or platform.machine(), None
    driver = ""
    if args.device == "cuda":
        try:
            asked = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "-i", "0"],
                                   capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            say("gpu_compare: nvidia-smi finds no GPU here")
            return 69
        gpu, driver = [part.strip() for part in asked.split(",", 1)]
        peak = next((p for name, p in PEAKS_TFLOPS.items() if name in gpu), None)
    cases = TINY_CASES if args.tiny else CASES
    if args.case:
        cases = [c for c in cases if any(part in c["name"] for part in args.case)]
    peer = Peer(args.python, args.device)
    version = subprocess.run([args.cohort, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    report = {"date": datetime.date.today().isoformat(), "gpu": gpu, "driver": driver, "peak_tflops": peak, "cohort": version,
              "peer": peer.hello, "command": " ".join(["bench/gpu_compare.py"] + sys.argv[1:]),
              "reproducible": args.reproducible, "cases": [], "left_out": []}
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 6e9 else None
    longest = 0.0
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        for i, case in enumerate(cases):
            if report["cases"] and time.monotonic() + longest > deadline:
                report["left_out"] = [c["name"] for c in cases[i:]]
                break
            lengths = row_lengths(case, max(512, case["batch"] * 8), given)
            files = {"folder": folder, "model": f"{folder}/model-{case['model']['layers']}", "rows": f"{folder}/rows{i}.tsv",
                     "max_length": case.get("length", min(128, case["model"]["positions"]))}
            write_model(files["model"], case["model"])
            write_rows(files["rows"], case, lengths)
            say(f"gpu_compare: {case['name']}")
            rounds = run_case(args, case, files, peer, deadline)
            longest = max(longest, rounds[0]["took_s"])
            report["cases"].append(summary(case, rounds, lengths, peak))
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
            if not ("mix" in case and i + 1 < len(cases) and "mix" in cases[i + 1]):
                peer.ask({"forget": True})  # of several with real lengths, all use the same compiled code
    peer.close()
    report["seconds"] = time.monotonic() - started
    print(tables(report))
    for path, text in ((args.json, json.dumps(report, indent=1) + "\n"), (args.markdown, tables(report) + "\n")):
        if path:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
    failed = [f"{c['case']}: {n}" for c in report["cases"] for n, r in c["results"].items() if "error" in r]
    if failed:
        say("gpu_compare: failed: " + "; ".join(failed))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
