#!/usr/bin/env bash
# An experiment: settings x repeats x folds over groups of ranks, whose scores depend on neither, nor on kills and restarts.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 60 3
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label data.id=id
        data.cache=cache cv.folds=5 cv.repeats=2 train.batch_size=16 train.epochs=1 train.precision=fp32
        checkpoint.every=1 log.every=1 parallel.reproducible=any parallel.threads=1)
plain=("${common[@]}")
common+=('search.optim.lr=[2e-3,5e-4]')
tables=(oof.tsv setting-0/oof.tsv setting-1/oof.tsv)

# The same table from groups of 1, 2 and 4 ranks, and from one rank.
must 4 train "${common[@]}" cv.group_ranks=1 out=one
said '20 trials: 2 settings, 2 repeats, 5 folds; over 4 groups of 1 rank'
said 'setting +accuracy +mean'
must 4 train "${common[@]}" cv.group_ranks=4 out=four
for t in "${tables[@]}"; do same four/$t one/$t; done

# A rank is killed in the middle, the job is started again; then interrupted by a signal, and started on other ranks.
COHORT_FAULT=checkpoint.write:5@2=kill ranks 4 train "${common[@]}" cv.group_ranks=2 out=two
checks=$((checks + 1))
[ "$code" != 0 ] || fail "the first start was not killed"
COHORT_FAULT=checkpoint.write:6@1=term ranks 4 train "${common[@]}" cv.group_ranks=2 out=two
equal "$code" 75 "the exit code after a signal"
said 'trials to go'
[ -e two/results.json ] && fail "results.json is there though the run was stopped"
must 3 train "${common[@]}" out=two
said 'is finished already'
for t in "${tables[@]}"; do same two/$t one/$t; done
must 1 train "${common[@]}" out=two # a finished run
same two/oof.tsv one/oof.tsv

# A setting is what a plain run with it would be, and repeat 0 a run without repeats.
must 2 train "${plain[@]}" optim.lr=5e-4 out=plain
same plain/oof.tsv one/setting-1/oof.tsv
must 2 train "${plain[@]}" optim.lr=5e-4 cv.repeats=1 cv.run_folds=[2] out=single
same single/fold-2/best/model.safetensors one/setting-1/repeat-0/fold-2/best/model.safetensors

# What results.json says can be counted again from the tables.
python3 - <<'PY' >found 2>&1 || fail "results.json: $(cat found)"
import csv, json
results = json.load(open("one/results.json"))
classes = ["class0", "class1", "class2"]
def accuracy(path):
    rows = list(csv.DictReader(open(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 120, len(rows)
    out = []
    for repeat in "01":
        own = [r for r in rows if r["repeat"] == repeat]
        assert [r["row"] for r in own] == [str(i) for i in range(60)]
        p = [[float(r["pred_" + c]) for c in classes] for r in own]
        out.append(sum(classes[x.index(max(x))] == r["label"] for x, r in zip(p, own)) / 60)
    return out
settings = results["search"]["settings"]
assert results["complete"] is True and results["search"]["nested"] is False
assert [s["values"] for s in settings] == [{"optim.lr": "2e-3"}, {"optim.lr": "5e-4"}], settings
for k, s in enumerate(settings):
    own = accuracy(f"one/setting-{k}/oof.tsv")
    assert abs(s["score"] - sum(own) / 2) < 1e-9, (s["score"], own)
    assert len(s["folds"]) == 10 and s["state"] == "finished"
best = max(range(2), key=lambda k: settings[k]["score"])
assert results["search"]["best"] == best
assert abs(results["score"] - settings[best]["score"]) < 1e-12
assert open("one/oof.tsv").read() == open(f"one/setting-{best}/oof.tsv").read()
assert [abs(a - b) < 1e-9 for a, b in zip(results["oof"]["repeats"], accuracy("one/oof.tsv"))] == [True] * 2
log = [json.loads(line) for line in open("one/log.jsonl")]
assert len({(l["setting"], l["repeat"], l["fold"]) for l in log}) == 20
progress = json.load(open("one/progress.json"))
assert progress["trials"] == progress["finished"] == 20 and all(t["state"] == "finished" for t in progress["trial"])
PY
checks=$((checks + 1))

# What is searched belongs to the run.
refused 78 'search.optim.lr' 1 train "${common[@]}" 'search.optim.lr=[2e-3,1e-3]' out=one
must 1 train "${common[@]}" overwrite=true train.max_steps=1 cv.folds=2 cv.repeats=1 out=plain
equal "$(ls -d plain/setting-* | wc -l) $(ls -d plain/repeat-* 2>/dev/null | wc -l)" "2 0" "folders after overwrite=true"

# check says what there is to do.
must 2 check "${common[@]}" cv.group_ranks=1
said 'trials +20: 2 settings, 2 repeats, 5 folds; 2 side by side'
said 'setting 1 +optim.lr=5e-4'

# A setting that diverges is out, and the others go on; it is not tried again.
search=('search.optim.lr=[2e-3,10]' optim.weight_decay=10 train.epochs=8 cv.folds=3 cv.repeats=1)
must 2 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=nan
said 'diverged'
python3 -c '
import json
r = json.load(open("nan/results.json"))
assert [s["state"] for s in r["search"]["settings"]] == ["finished", "failed"], r["search"]
assert r["search"]["best"] == 0 and r["complete"] is True and len(r["failed"]) > 0, r
assert all(f["status"] == "numeric" and f["setting"] == 1 for f in r["failed"]), r["failed"]
' 2>said || fail "results.json of a setting that diverges"
checks=$((checks + 1))
must 3 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=nan
equal "$(grep -c 'training ====' said)" 0 "trials that were run again"

# Successive halving: rungs are decided by scores, so groups and kills change nothing.
search=('search.optim.lr=[2e-3,1e-3,5e-4,1e-5]' search.halving=2 cv.folds=2 cv.repeats=1 train.epochs=2)
must 4 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=halving-1
must 1 train "${common[@]}" "${search[@]}" out=halving-2
COHORT_FAULT=checkpoint.write:4@1=kill ranks 2 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=halving-3
must 2 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=halving-3
for k in 2 3; do same halving-$k/oof.tsv halving-1/oof.tsv; done
python3 - <<'PY' >found 2>&1 || fail "halving: $(cat found)"
import json
runs = [json.load(open(f"halving-{k}/results.json"))["search"] for k in (1, 2, 3)]
for r in runs:
    assert [(s["state"], s.get("rung")) for s in r["settings"]] == [(s["state"], s.get("rung")) for s in runs[0]["settings"]]
states = [s["state"] for s in runs[0]["settings"]]
assert states.count("finished") == 1 and states.count("dropped") == 3, states
PY
checks=$((checks + 1))

# Nested: the setting of each fold is chosen within its training rows.
search=(cv.folds=3 cv.repeats=1 cv.inner_folds=2)
must 4 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=nested-1
must 2 train "${common[@]}" "${search[@]}" cv.group_ranks=2 out=nested-2
same nested-1/oof.tsv nested-2/oof.tsv
said 'chosen in [0-3] of 3 folds'
equal "$(ls -d nested-1/fold-*/inner-*/setting-* | wc -l)" 12 "inner trials"
python3 -c '
import json
r = json.load(open("nested-1/results.json"))
assert r["search"]["nested"] is True and sum(s["chosen"] for s in r["search"]["settings"]) == 3, r["search"]
assert len(r["folds"]) == 3 and all("setting" in f for f in r["folds"]), r["folds"]
' 2>said || fail "results.json of nested folds"
checks=$((checks + 1))

# A search without folds: by the rows that are held out; best/ is the winner's, and predict takes it.
search=(cv.folds=0 cv.repeats=1 data.holdout=0.25)
must 2 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=holdout
best=$(python3 -c 'import json; print(json.load(open("holdout/results.json"))["search"]["best"])')
same holdout/best/model.safetensors holdout/setting-$best/best/model.safetensors
must 1 predict model.path=holdout/best data.input=train.tsv data.text=text out=scores.tsv
equal "$(tail -n +2 scores.tsv | wc -l)" 60 "rows that predict has scored"

# Drawn at random: the same settings at every start, on any ranks.
search=(search.kind=random search.samples=3 'search.optim.lr=log(1e-5,1e-2)' cv.folds=2 cv.repeats=1)
must 2 train "${common[@]}" "${search[@]}" cv.group_ranks=1 out=random-1
must 1 train "${common[@]}" "${search[@]}" out=random-2
same random-1/oof.tsv random-2/oof.tsv

# Asked for what cannot be.
refused 78 'compared on rows' 1 train "${common[@]}" cv.folds=0 out=none
refused 78 'nests in cv.folds' 1 train "${common[@]}" cv.folds=0 cv.inner_folds=2 data.holdout=0.25 out=none
refused 78 'wanted 0 or at least 2' 1 train "${common[@]}" search.halving=1 out=none
finish
