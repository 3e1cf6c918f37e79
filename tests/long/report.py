"""report.py - reports in a real browser: no console error, nothing loaded, as wide as the window, light, dark, on a phone and
on paper; the pictures of docs/report.md; event files as TensorBoard itself reads them.

    build/peer/bin/python tests/long/report.py

Runs are made here: two cross-validations and a plain run of a small model from scratch, on texts made of words of the trade. COHORT
names another executable. With COHORT_PICTURES=1 the screenshots replace docs/images/report-*.png.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
COHORT = os.path.abspath(os.environ.get("COHORT", os.path.join(ROOT, "build", "release", "cohort")))
PICTURES = os.path.join(ROOT, "docs", "images")
failures = []


def check(ok, what):
    print("  %s %s" % ("ok " if ok else "BAD", what), flush=True)
    if not ok:
        failures.append(what)


def cohort(*arguments):
    subprocess.run([COHORT, *arguments, "log.level=warning"], check=True)


WORDS = ("ship port grain wheat corn barley oil rate bank loan share profit loss quarter trade price market tonne export import "
         "dollar yen growth sugar coffee cocoa tin gold silver crop farmer harvest rain drought tax budget vote minister union "
         "strike plant output demand supply stock bond yield deal merger bid offer unit group company").split()
TOPICS = {"grain": WORDS[2:6] + WORDS[29:34], "money": WORDS[7:10] + WORDS[20:22], "company": WORDS[10:13] + WORDS[-6:]}


def make_texts(path, rows, seed):
    """News made of words; one in eight is labelled at random, so that there are mistakes worth looking at."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        file.write("id\ttext\tlabel\n")
        for i in range(rows):
            topic = draw.choice(sorted(TOPICS))
            words = [draw.choice(TOPICS[topic] if draw.random() < 0.2 else WORDS) for _ in range(3 + int(draw.expovariate(0.06)))]
            label = draw.choice(sorted(TOPICS)) if draw.random() < 0.125 else topic
            file.write("n%d\t%s\t%s\n" % (i, " ".join(words).capitalize() + ".", label))


def make_model(folder):
    os.makedirs(folder)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."] + WORDS) + "\n")
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": "gelu", "hidden_size": 64,
                   "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128, "max_position_embeddings": 64,
                   "type_vocab_size": 2, "vocab_size": 6 + len(WORDS), "initializer_range": 0.05, "layer_norm_eps": 1e-12,
                   "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0}, file)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}, file)


def make_runs(scratch):
    os.chdir(scratch)
    make_model("model")
    make_texts("news.tsv", 600, 1)
    common = ["model.path=model", "model.from_scratch=true", "data.train=news.tsv", "data.text=text", "data.label=label",
              "data.id=id", "data.cache=cache", "train.batch_size=16", "train.precision=fp32", "log.every=1", "log.parts=true",
              "data.max_length=48", "checkpoint.keep=1", "parallel.threads=1", "eval.metric=macro_f1"]
    cohort("train", *common, "cv.folds=4", "train.epochs=4", "optim.lr=2e-3", "eval.every=20", "out=news")
    cohort("train", *common, "cv.folds=4", "train.epochs=2", "optim.lr=5e-4", "eval.every=20", "out=slower")
    cohort("train", *common, "data.holdout=0.2", "train.epochs=3", "optim.lr=2e-3", "eval.every=20", "out=plain")
    for run in ("news", "slower", "plain"):
        cohort("report", run)
    cohort("report", "slower", "news")


def open_page(browser, path, width, dark=False, what=""):
    page = browser.page(path, width, 900, dark, mobile=width < 500)
    errors, loads = page.found()
    check(not errors, "%s: no errors on the console %s" % (what, errors or ""))
    check(loads == [page.address], "%s: nothing is loaded %s" % (what, loads if len(loads) > 1 else ""))
    wide = page.evaluate("document.documentElement.scrollWidth")
    check(wide <= width, "%s: %d wide in a window of %d" % (what, wide, width))
    outside = page.evaluate("""[...document.querySelectorAll("svg text")].filter(function (t) {
        var b = t.getBoundingClientRect(), s = t.ownerSVGElement.getBoundingClientRect();
        return b.width > 0 && (b.left < s.left - 2 || b.right > s.right + 2 || b.bottom > s.bottom + 2);
    }).map(function (t) { return t.textContent; })""")
    check(not outside, "%s: no text leaves its drawing %s" % (what, outside or ""))
    return page


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def look(scratch, browser):
    paths = {"news": "news/report.html", "plain": "plain/report.html", "compare": "news/compare.html"}
    for name, path in paths.items():
        for width in (1180, 768, 390, 320):
            open_page(browser, path, width, what="%s at %d" % (name, width)).close()
    light = open_page(browser, paths["news"], 1180, what="light")
    dark = open_page(browser, paths["news"], 1180, dark=True, what="dark")
    phone = open_page(browser, paths["news"], 390, what="phone")
    compare = open_page(browser, paths["compare"], 1180, what="compare")
    check(background(light) == "rgb(255, 255, 255)", "the light page is white")
    check(background(dark) != background(light), "the dark page is not")
    for page, name, height in ((light, "light", 1180), (phone, "phone", 1000), (compare, "compare", 760)):
        page.screenshot(os.path.join(scratch, "report-%s.png" % name), 0, height)
    top = dark.evaluate("document.getElementById('training').offsetTop")
    dark.screenshot(os.path.join(scratch, "report-dark.png"), top, 760)
    # The button turns the page; the pointer shows values.
    light.evaluate("document.getElementById('theme').click()")
    check(background(light) == background(dark), "the button turns the page dark")
    box = light.evaluate("""(function () {
        var p = document.querySelector("#training polyline[data-name]").ownerSVGElement;
        p.scrollIntoView();
        var b = p.getBoundingClientRect();
        return [b.left + b.width / 2, b.top + b.height / 2];
    })()""")
    light.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    tip = light.evaluate("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
    check("fold 0: " in tip, "values under the pointer: %r" % tip[:60])
    errors, loads = light.found()
    check(not errors and len(loads) == 1, "and still no error and no load")
    pdf = light.pdf()
    check(pdf[:4] == b"%PDF" and len(pdf) > 20000, "it prints: %d kB of PDF" % (len(pdf) // 1000))


def read_events():
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        check(False, "the tensorboard package is missing: scripts/setup --peer")
        return
    for folder in ("plain", "news/fold-2"):
        with open(os.path.join(folder, "log.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        events = EventAccumulator(folder)
        events.Reload()
        for tag, kind, key in (("train/loss", "train", "loss"), ("train/lr", "train", "lr"), ("eval/macro_f1", "eval", "score")):
            got = [(e.step, e.value) for e in events.Scalars(tag)]
            wanted = [(line["step"], line[key]) for line in lines if line["kind"] == kind]
            check([s for s, _ in got] == [s for s, _ in wanted] and
                  all(abs(g - w) <= 1e-6 * max(1, abs(w)) for (_, g), (_, w) in zip(got, wanted)),
                  "TensorBoard reads %d values of %s in %s" % (len(got), tag, folder))


def main():
    with tempfile.TemporaryDirectory(prefix="cohort-report-") as scratch:
        make_runs(scratch)
        browser = Browser()
        try:
            look(scratch, browser)
        finally:
            browser.close()
        read_events()
        if os.environ.get("COHORT_PICTURES") == "1" and not failures:
            os.makedirs(PICTURES, exist_ok=True)
            for name in ("light", "dark", "phone", "compare"):
                shutil.copy(os.path.join(scratch, "report-%s.png" % name), PICTURES)
            print("  docs/images/report-*.png are written")
        os.chdir(ROOT)
    print("%s report: %d failed" % ("FAIL" if failures else "PASS", len(failures)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
