#!/usr/bin/env bash
# Cross-validation: folds dealt to groups of ranks, out-of-fold scores that depend on neither, resumed folds.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 60 3
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label data.id=id
        data.cache=cache cv.folds=4 train.batch_size=16 train.epochs=1 train.precision=fp32 optim.lr=2e-3
        checkpoint.every=1 log.every=1 parallel.reproducible=any parallel.threads=1)

must 1 train "${common[@]}" out=one
must 2 train "${common[@]}" cv.group_ranks=1 out=two-1
must 2 train "${common[@]}" cv.group_ranks=2 out=two-2
must 4 train "${common[@]}" cv.group_ranks=1 out=four-1
must 4 train "${common[@]}" cv.group_ranks=2 out=four-2
must 4 train "${common[@]}" cv.group_ranks=4 out=four-4
for name in two-1 two-2 four-1 four-2 four-4; do
    same $name/oof.tsv one/oof.tsv
    for fold in 0 1 2 3; do
        same $name/fold-$fold/best/model.safetensors one/fold-$fold/best/model.safetensors
    done
done
refused 78 'cv.group_ranks=2 does not divide the 3 ranks' 3 train "${common[@]}" cv.group_ranks=2 out=three

# The table: every row once, with its label, probabilities that sum to 1, and a pooled score that can be counted again.
python3 - <<'PY' >found || fail "oof.tsv: $(cat found)"
import csv, json
rows = list(csv.DictReader(open("one/oof.tsv"), delimiter="\t", quoting=csv.QUOTE_NONE))
data = list(csv.DictReader(open("train.tsv"), delimiter="\t", quoting=csv.QUOTE_NONE))
assert [r["row"] for r in rows] == [str(i) for i in range(60)], "rows"
assert [r["id"] for r in rows] == [d["id"] for d in data], "ids"
assert [r["label"] for r in rows] == [d["label"] for d in data], "labels"
classes = ["class0", "class1", "class2"]
p = [[float(r["pred_" + c]) for c in classes] for r in rows]
assert all(abs(sum(x) - 1) < 1e-5 for x in p), "probabilities"
hits = sum(classes[x.index(max(x))] == r["label"] for x, r in zip(p, rows))
results = json.load(open("one/results.json"))
assert abs(results["oof"]["score"] - hits / 60) < 1e-9, (results["oof"], hits)
assert [f["fold"] for f in results["folds"]] == [0, 1, 2, 3], results["folds"]
for f in results["folds"]:
    own = [i for i in range(60) if rows[i]["fold"] == str(f["fold"])]
    assert f["rows"] == len(own)
    assert abs(f["score"] - sum(classes[p[i].index(max(p[i]))] == rows[i]["label"] for i in own) / len(own)) < 1e-9
scores = [f["score"] for f in results["folds"]]
mean = sum(scores) / 4
assert abs(results["oof"]["mean"] - mean) < 1e-12
assert abs(results["oof"]["std"] - (sum((s - mean) ** 2 for s in scores) / 3) ** 0.5) < 1e-12
low, high = results["oof"]["ci95"]
assert low <= results["oof"]["score"] <= high and low < high
counts = {(r["fold"], r["label"]): 0 for r in rows}
for r in rows:
    counts[r["fold"], r["label"]] += 1
for c in classes:
    of = [counts.get((str(f), c), 0) for f in range(4)]
    assert max(of) - min(of) <= 1, (c, of)
log = [json.loads(line) for line in open("one/log.jsonl")]
assert sorted({l["fold"] for l in log}) == [0, 1, 2, 3], "folds in log.jsonl"
PY
checks=$((checks + 1))

must 1 train "${common[@]}" cv.folds=0 data.holdout=0.2 out=single

# Fold 2 alone.
must 2 train "${common[@]}" cv.run_folds=[2] out=alone
awk -F'\t' 'NR == 1 || $3 == 2' one/oof.tsv >wanted
same alone/oof.tsv wanted
same alone/fold-2/best/model.safetensors one/fold-2/best/model.safetensors
equal "$(ls -d alone/fold-* | wc -l)" 1 "the number of folds that were trained"
must 1 train "${common[@]}" out=alone # and then the others
same alone/oof.tsv one/oof.tsv
refused 78 'fold 4' 1 train "${common[@]}" cv.run_folds=[4] out=none

# Killed in fold 1, within a checkpoint and between folds; started again on other ranks.
COHORT_FAULT=step.end:5=kill ranks 1 train "${common[@]}" out=killed
equal "$(ls killed/fold-0/result.json killed/fold-1/result.json 2>/dev/null)" killed/fold-0/result.json "finished folds"
COHORT_FAULT=checkpoint.write:2@1=kill ranks 2 train "${common[@]}" cv.group_ranks=1 out=killed
checks=$((checks + 1))
[ "$code" != 0 ] || fail "the second start was not killed"
must 3 train "${common[@]}" out=killed
said 'fold 0 is finished already'
same killed/oof.tsv one/oof.tsv
equal "$(grep -c '"kind":"train"' killed/log.jsonl)" "$(grep -c '"kind":"train"' one/log.jsonl)" "training lines in log.jsonl"
must 1 train "${common[@]}" out=killed # a finished run
same killed/oof.tsv one/oof.tsv
refused 78 'optim.lr' 1 train "${common[@]}" out=killed optim.lr=1e-3

# Selection: on an inner split (no row of the fold takes part), or on the fold itself.
must 2 train "${common[@]}" cv.select=inner cv.inner_share=0.2 train.epochs=2 out=inner
must 1 train "${common[@]}" cv.select=inner cv.inner_share=0.2 train.epochs=2 out=inner-1
same inner/oof.tsv inner-1/oof.tsv
equal "$(grep -o '"kind":"eval".*"rows":[0-9]*' inner/fold-0/log.jsonl | grep -o 'rows":[0-9]*' | sort -u)" 'rows":9' "rows of the inner split"
must 2 train "${common[@]}" cv.select=best train.epochs=2 out=best
said 'optimistic'
grep -q '"select": "best"' best/results.json || fail "results.json does not say that cv.select was best"

# predict with the folder of the run: the mean of its models' scores, on any ranks.
for fold in 0 1 2 3; do
    must 1 predict model.path=one/fold-$fold/best data.input=train.tsv data.text=text out=member-$fold.jsonl
done
must 1 predict model.path=one data.input=train.tsv data.text=text out=mean-1.jsonl
said 'the mean of 4 models of one'
must 3 predict model.path=one data.input=train.tsv data.text=text out=mean-3.jsonl
same mean-1.jsonl mean-3.jsonl
python3 - <<'PY' >found 2>&1 || fail "predict with four models: $(cat found)"
import json
read = lambda name: [json.loads(line)["scores"] for line in open(name)]
members, mean = [read(f"member-{k}.jsonl") for k in range(4)], read("mean-1.jsonl")
assert len(mean) == 60
for i, scores in enumerate(mean):
    wanted = [sum(m[i][c] for m in members) / 4 for c in range(3)]
    assert all(abs(a - b) < 1e-6 for a, b in zip(scores, wanted)), (i, scores, wanted)
PY
checks=$((checks + 1))
must 1 eval model.path=one data.input=train.tsv data.text=text data.label=label
refused 78 'its model is ' 1 predict model.path=single data.input=train.tsv data.text=text

# Groups: none is in two folds.
must 2 train "${common[@]}" data.group=group out=group
checks=$((checks + 1))
paste <(cut -f3 group/oof.tsv | tail -n +2) <(cut -f2 train.tsv | tail -n +2) | sort -u | cut -f2 | sort | uniq -d >twice
[ -s twice ] && fail "groups in several folds: $(tr '\n' ' ' <twice)"

# Labels of any length name their columns, whole.
long=$(printf 'a%.0s' {1..59})
sed -e "s/class0/${long}é0/; s/class1/${long}é1/" train.tsv >long.tsv
must 2 train "${common[@]}" data.train=long.tsv cv.run_folds=[0] out=long
columns=$(head -1 long/oof.tsv | cut -f5-)
checks=$((checks + 1))
[[ $columns == *"pred_${long}é0"*"pred_${long}é1"* ]] || fail "the columns of long labels are $columns"

# A class too rare for the folds.
{ cat train.tsv; printf 'x0\tg0\trare\tw1 w2\tw3\nx1\tg1\trare\tw4\tw5\n'; } >rare.tsv
refused 65 'rare' 2 train "${common[@]}" data.train=rare.tsv out=rare
said 'cv.allow_missing_class'
must 2 train "${common[@]}" data.train=rare.tsv cv.allow_missing_class=true eval.metric=roc_auc out=rare
said 'undefined'
python3 -c '
import json
r = json.load(open("rare/results.json"))
assert any(f["score"] is None for f in r["folds"]), r["folds"]
assert "NaN" not in open("rare/results.json").read()
' 2>said || fail "results.json of undefined scores"

# Copies of texts: told, kept in one fold, refused. Labels drawn by lot, each text twice: who trained on the copy knows it.
awk -F'\t' -v OFS='\t' 'NR == 1 { print; next } { print; $1 = $1 "b"; print }' train.tsv >twice.tsv
copies=(data.train=twice.tsv train.max_steps=1)
must 2 train "${common[@]}" "${copies[@]}" out=told
said 'warning: duplicates: [0-9]+ of 120 rows are scored by a model that trained on an equal row'
must 2 train "${common[@]}" "${copies[@]}" cv.duplicates=group out=kept
said 'no model is scored on a copy'
refused 65 'duplicates: ' 2 train "${common[@]}" "${copies[@]}" cv.duplicates=refuse out=refused
must 1 train "${common[@]}" "${copies[@]}" cv.duplicates=group cv.group_ranks=1 out=kept-1
same kept/oof.tsv kept-1/oof.tsv
must 2 check "${common[@]}" "${copies[@]}"
said '^duplicates: '
python3 - <<'PY' >found 2>&1 || fail "copies of rows: $(cat found)"
import csv, json
rows = list(csv.DictReader(open("kept/oof.tsv"), delimiter="\t", quoting=csv.QUOTE_NONE))
fold = {r["id"]: r["fold"] for r in rows}
assert len(fold) == 120 and all(fold[i] == fold[i + "b"] for i in fold if not i.endswith("b"))
told, kept = (json.load(open(f"{name}/results.json")) for name in ("told", "kept"))
assert told["duplicates"]["scored_on_copies"] > 0 and kept["duplicates"]["scored_on_copies"] == 0, (told, kept)
assert kept["duplicates"]["copies"] >= 60
temperature = kept["calibration"]["temperature"]
assert len(temperature["folds"]) == 4 and temperature["before"]["log_loss"] > 0
PY
checks=$((checks + 1))
finish
