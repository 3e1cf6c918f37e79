#!/usr/bin/env bash
# Reports of real runs: well-formed, nothing loaded, everything escaped, bounded, the same twice; two runs compared; damaged and
# unfinished runs; a run that is watched. How pages look is tests/long/report.py's.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 120 3
sed -n '20,23s/^/copy-/p' train.tsv >copies
cat copies >>train.tsv
# Labels and texts as nobody would want them in a page.
sed -i -e 's/class0/<script>alert(0)<\/script>/' -e "s/class1/\"\&amp;' onload=x/" -e '5s/w/<img src=http:\/\/example.com\/x.png>/' \
    -e '9s/w/\x1b]0;x\x07/' train.tsv
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label data.id=id
        data.cache=cache train.batch_size=16 train.epochs=2 train.precision=fp32 checkpoint.keep=1 log.every=1 parallel.threads=1)
must 2 train "${common[@]}" cv.folds=3 cv.group_ranks=1 optim.lr=3e-3 out=a
must 2 train "${common[@]}" cv.folds=3 cv.repeats=2 cv.group_ranks=1 optim.lr=1e-4 out=b
must 1 train "${common[@]}" data.holdout=0.25 optim.lr=3e-3 out=plain
for run in a b plain; do # train has written the page, too
    [ -s "$run/report.html" ] && cp $run/report.html $run/of-train.html || fail "train wrote no $run/report.html"
    must 1 report $run
    said "report: $run/report.html"
    [ -s "$run/report.html" ] && cp $run/report.html $run/first.html || fail "$run/report.html is missing"
    must 1 report $run
    same $run/report.html $run/first.html
    same $run/report.html $run/of-train.html
done
must 2 report a b
said 'comparison: b/compare.html'
must 1 report a a out=self.html

cat >look.py <<'PY'
import base64, hashlib, re, sys
import xml.etree.ElementTree as tree
SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"
for path in sys.argv[1:]:
    text = open(path, encoding="utf-8").read()
    assert len(text) < 2_000_000, (path, len(text))
    root = tree.fromstring(text.split("\n", 1)[1])
    scripts = [e for e in root.iter(HTML + "script")]
    assert len(scripts) == 1, (path, "scripts")
    own = base64.b64encode(hashlib.sha256(scripts[0].text.encode()).digest()).decode()
    assert "sha256-" + own in text, "the script's hash is sha256-" + own
    for e in root.iter():
        assert e.tag.startswith((SVG, HTML)), (path, e.tag)
        assert e.tag[e.tag.index("}") + 1:] not in ("img", "link", "iframe", "object", "embed", "base", "image"), (path, e.tag)
        for name, value in e.attrib.items():
            assert not name.startswith("on"), (path, e.tag, name)
            if name in ("href", "src"):
                assert value.startswith("#") and root.find(".//*[@id='%s']" % value[1:]) is not None, (path, value)
    assert not re.search(r"(?<![a-z])(nan|inf)(?![a-z])", re.sub(r"<[^>]*>", " ", text.split("<script>")[0]), re.I), path
    assert "\x1b" not in text and "<script>alert" not in text
PY
checks=$((checks + 1))
python3 look.py a/report.html b/report.html plain/report.html b/compare.html self.html 2>said || fail "a page is not as it should be"

has() { # has FILE TEXT...: each text is in the page
    local file=$1 text
    shift
    for text in "$@"; do
        checks=$((checks + 1))
        grep -qF -- "$text" "$file" || { : >said; fail "$file has no \"$text\""; }
    done
}
has a/report.html '&lt;script&gt;alert(0)&lt;/script&gt;' 'id="folds"' 'id="mistakes"' 'id="training"' 'id="data"' 'id="speed"' 'id="setup"' \
    '>ROC<' '>Precision and recall<' '>Calibration<' '>Distribution of scores<' '>Confusion<' '>Padding avoided<' '>Throughput<'
has a/report.html '<h3>Calibration</h3>' 'Texts that occur more than once: '
has plain/report.html 'id="scores"' 'id="mistakes"' # of eval.h5
has b/report.html 'repeat 1, fold 2' 'Of the first of 2 repeats'
has b/compare.html 'paired bootstrap over rows' 'McNemar' 'optim.lr'
has self.html 'No difference is proven' 'Nothing that can change a result'

# Numbers of the page are those of the run.
python3 - <<'PY' 2>said || fail "numbers of a/report.html"
import json, re
results = json.load(open("a/results.json"))
text = re.sub(r"<[^>]*>", " ", open("a/report.html").read())
for value in [results["score"], results["oof"]["mean"]] + [f["score"] for f in results["folds"]] + results["oof"]["ci95"]:
    assert "%.4f" % value in text, value
PY
checks=$((checks + 1))

# TensorBoard's files: one in each trial's folder, as many records as the log has lines to tell.
python3 - <<'PY' 2>said || fail "event files"
import json, os, struct
assert not os.path.exists("a/events.out.tfevents.0.cohort")
for folder in ("plain", "a/fold-0", "b/repeat-1/fold-2"):
    bytes_, records = open(folder + "/events.out.tfevents.0.cohort", "rb").read(), 0
    while bytes_:
        (n,) = struct.unpack("<Q", bytes_[:8])
        assert len(bytes_) >= n + 16
        bytes_, records = bytes_[n + 16:], records + 1
    lines = [json.loads(line)["kind"] for line in open(folder + "/log.jsonl")]
    assert records == 1 + sum(kind in ("train", "eval") for kind in lines), (folder, records)
PY
checks=$((checks + 1))

# What is missing or damaged is left out, and said.
cp -r a broken
head -c 300 a/oof.h5 >broken/oof.h5
echo '{"half' >>broken/fold-0/log.jsonl
echo '{' >broken/manifest.json
must 1 report broken
has broken/report.html 'Left out' 'oof.h5' 'manifest.json'
rm broken/oof.h5 broken/results.json broken/manifest.json
must 1 report broken out=- # on standard output
checks=$((checks + 1))
"$cohort" report broken out=- 2>/dev/null | grep -q 'not finished' || fail "a run without results.json is not called unfinished"
mkdir empty
refused 66 'empty is not the folder of a run' 1 report empty
refused 66 'no such folder' 1 report nowhere
refused 64 'folder of a run' 1 report
refused 64 'one run, not two' 1 report a b watch=true
must 1 report a broken # nothing to pair
has broken/compare.html 'There is no paired test'

# Watched: shows where the trials stand, and ends with the run.
cat >broken/progress.json <<'JSON'
{"format": "cohort-progress", "updated": 2, "started": 1, "groups": 1, "trials": 3, "finished": 1, "seconds_left": 75.0,
 "trial": [{"name": "fold-1", "state": "running", "fold": 1, "step": 3, "steps": 10, "loss": 0.5, "tokens_per_s": 1000.0, "seconds_left": 30.0}]}
JSON
"$cohort" report broken --watch >watched 2>&1 &
watcher=$!
for _ in $(seq 100); do
    grep -q 'trials have ended' watched && break
    sleep 0.05
done
cp a/results.json broken/part && mv broken/part broken/results.json
for _ in $(seq 100); do
    kill -0 $watcher 2>/dev/null || break
    sleep 0.05
done
checks=$((checks + 1))
kill $watcher 2>/dev/null && fail "the watcher goes on after the run has ended"
wait $watcher
equal $? 0 "the exit code of the watcher"
cp watched said
said '1 of 3 trials have ended, 1m 15s left'
said 'broken: accuracy'
finish
