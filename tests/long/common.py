"""What the long comparisons share: where things are, small models and texts, running cohort, and the report.

Every script runs alone, from anywhere: build/peer/bin/python tests/long/NAME.py. COHORT names another executable (default
build/release/cohort). A script prints one line for each figure with its bound, then PASS or FAIL, and exits 0 or 1.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig  # noqa: E402
from transformers import BertForSequenceClassification  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
COHORT = os.path.abspath(os.environ.get("COHORT", os.path.join(ROOT, "build", "release", "cohort")))
MINILM = os.path.join(ROOT, "build", "minilm")
REUTERS = os.path.join(ROOT, "build", "reuters")

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class Report:
    """Figures with their bounds; COHORT_FIGURES names a file to which they are added as rows of a Markdown table."""

    def __init__(self, name):
        self.name, self.failed, self.checks = name, 0, 0

    def _row(self, what, got, bound, ok):
        print(f"  {'ok  ' if ok else 'BAD '} {what}: {got}" + (f" (bound {bound})" if bound else ""), flush=True)
        if os.environ.get("COHORT_FIGURES"):
            with open(os.environ["COHORT_FIGURES"], "a", encoding="utf-8") as f:
                f.write(f"| {self.name} | {what} | {got}{'' if ok else ' **too large**'} | {bound} |\n")

    def check(self, what, got, bound):
        """got must be a number of at most bound; NaN fails. Returns got."""
        ok = bool(got <= bound)
        self.checks += 1
        self.failed += not ok
        self._row(what, "%.3g" % got, "%g" % bound, ok)
        return got

    def equal(self, what, got, wanted):
        ok = got == wanted
        self.checks += 1
        self.failed += not ok
        self._row(what, "equal" if ok else f"{str(got)[:200]} instead of {str(wanted)[:200]}", "equal", ok)
        return ok

    def note(self, what, value):
        self._row(what, value, "", True)

    def cell(self, family, column, value):
        """One figure of the matrix of families (COHORT_MATRIX: a file of JSON lines, see matrix.py)."""
        if os.environ.get("COHORT_MATRIX"):
            with open(os.environ["COHORT_MATRIX"], "a", encoding="utf-8") as f:
                f.write(json.dumps({"family": family, "column": column, "value": value}) + "\n")

    def finish(self):
        print(f"{'FAIL' if self.failed else 'PASS'} {self.name}: {self.checks - self.failed} of {self.checks} checks",
              flush=True)
        return 1 if self.failed else 0


def run_script(name, main):
    """main(report, scratch folder); the exit status is the script's."""
    report = Report(name)
    with tempfile.TemporaryDirectory(prefix="cohort-long-") as scratch:
        try:
            main(report, scratch)
        except subprocess.CalledProcessError as e:
            report.equal(" ".join(map(str, e.cmd))[:300], f"exit {e.returncode}: {(e.stderr or '')[-600:]}", "exit 0")
    sys.exit(report.finish())


def cohort(command, *verbs, **keys):
    """cohort COMMAND [verb ...] key=value ...: group__key is written group.key. Returns standard output."""
    words = [COHORT, command, *verbs]
    words += ["%s=%s" % (k.replace("__", "."), str(v).lower() if isinstance(v, bool) else v) for k, v in keys.items()]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout


def read_jsonl(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)


def write_jsonl(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def predict(folder, rows, scratch, **keys):
    """`cohort predict` in fp32 for rows of {"text", maybe "pair"}: the objects it wrote, in order."""
    source, out = os.path.join(scratch, "predict.jsonl"), os.path.join(scratch, "predicted.jsonl")
    write_jsonl(source, rows)
    columns = {"data__text": "text"}
    if "pair" in rows[0]:
        columns["data__pair"] = "pair"
    cohort("predict", model__path=folder, data__input=source, out=out, train__precision="fp32", **columns, **keys)
    got = read_jsonl(out)
    assert [g["row"] for g in got] == list(range(len(rows)))
    return got


def logits_of(predicted):
    """Floats are written with as many digits as name them, so they are read as floats."""
    return numpy.array([p["logits"] for p in predicted], dtype=numpy.float32).astype(numpy.float64)


def noise_of(model):
    """Whether a tensor is a bias that softmax does not see, which adds the same to all scores of a query: its gradient is
    zero, what is computed is rounding. In DeBERTa a key's bias meets the positions on the queries' side, if there are any."""
    ends = ("key.bias", "k_lin.bias", "pos_key_proj.bias")
    if "p2c" not in (getattr(model.config, "pos_att_type", None) or []):
        ends += ("self.key_proj.bias", "encoder.LayerNorm.bias")
    return lambda name: name.endswith(ends)


# ---- models and texts

WORDS = ("the of and to in a is that for it was on are as with his they at be this from have or by one had not but what "
         "all were when we there can an your which their said if do will each about how up out them then she many some so "
         "these would other into has more her two like him see time could no make than first been its who now people "
         "grain wheat corn price market trade rate bank ship export tonne crop oil gold stock share").split()


def write_vocab(folder, cased):
    """A small WordPiece vocabulary; returns its size."""
    letters = "abcdefghijklmnopqrstuvwxyz" + ("ABCDEFGHIJKLMNOPQRSTUVWXYZ" if cased else "")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *"0123456789", *".,:;!?'\"()-"]
    tokens += ["##" + c for c in letters + "0123456789"] + [w for w in WORDS if len(w) > 1]
    tokens += [w.capitalize() for w in WORDS if len(w) > 1] if cased else []
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as f:
        f.writelines(t + "\n" for t in tokens)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "BertTokenizer", "do_lower_case": not cased}, f)
    return len(tokens)


def small_model(folder, labels, cased=False, seed=0, spread=0.1, **config):
    """A random BERT with a head for labels, saved by transformers; returns the model in evaluation mode."""
    os.makedirs(folder)
    size = write_vocab(folder, cased)
    sizes = dict(vocab_size=size + 3, hidden_size=36, num_hidden_layers=3, num_attention_heads=3, intermediate_size=50,
                 max_position_embeddings=64, initializer_range=spread, attn_implementation="eager")
    c = BertConfig(**{**sizes, **config}, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)})
    torch.manual_seed(seed)
    model = BertForSequenceClassification(c)
    with torch.no_grad():  # no tensor keeps a value that hides a mistake
        for name, p in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                p.add_(torch.randn_like(p) * spread)
    model.save_pretrained(folder)
    return model.eval()


def minilm_with_head(folder, labels, seed=0, spread=0.2, **config):
    """The real MiniLM with a random head (and a pooler: the folder's own, if it has one), saved by transformers."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        MINILM, attn_implementation="eager", id2label=dict(enumerate(labels)),
        label2id={n: i for i, n in enumerate(labels)}, num_labels=len(labels), dtype=torch.float32, **config)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.randn_like(model.classifier.weight) * spread)
        model.classifier.bias.copy_(torch.randn_like(model.classifier.bias) * spread)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    return model.eval()


def text_of(rng, words):
    """So many words, each one token of write_vocab()'s vocabulary (and of MiniLM's)."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


def labelled_texts(n, classes, seed, longest=40, noise=0.15):
    """Rows of a task that can be learnt but not fully: a label has words of its own, some rows have a wrong label."""
    rng = random.Random(seed)
    own = [WORDS[c * 7:c * 7 + 12] for c in range(classes)]
    rows = []
    for _ in range(n):
        label = rng.randrange(classes)
        words = [rng.choice(own[label]) if rng.random() < 0.3 else rng.choice(WORDS)
                 for _ in range(rng.randrange(1, longest))]
        if rng.random() < noise:
            label = rng.randrange(classes)
        rows.append({"text": " ".join(words), "label": "label_%d" % label})
    return rows


def encode(tokenizer, row, max_length):
    """As a list of one: alone, transformers takes an empty second text for none."""
    pair = [row["pair"]] if "pair" in row else None
    batch = tokenizer([row["text"]], pair, truncation="longest_first", max_length=max_length)
    return {k: v[0] for k, v in batch.items()}


def tensors(encoded):
    """One row as a batch without padding."""
    return {k: torch.tensor([encoded[k]]) for k in ("input_ids", "token_type_ids", "attention_mask") if k in encoded}


def reference_logits(model, tokenizer, rows, max_length):
    """transformers, one row at a time, so without padding."""
    with torch.no_grad():
        return numpy.array([model(**tensors(encode(tokenizer, r, max_length))).logits[0].double().numpy() for r in rows])


def tokenizer_of(folder):
    return AutoTokenizer.from_pretrained(folder)


def greatest(a, b):
    return float(numpy.max(numpy.abs(numpy.asarray(a, numpy.float64) - numpy.asarray(b, numpy.float64))))


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    return path
