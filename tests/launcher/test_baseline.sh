#!/usr/bin/env bash
# Baselines: the same folds as train, scores that do not depend on ranks, folders that say whose they are, what is refused.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 60 3
make_data eval.tsv 24 3 2
make_data test.tsv 10 3 3
common=(data.train=train.tsv data.text=text data.label=label data.id=id data.cache=cache cv.folds=4 parallel.threads=1)
model=(model.path=model model.from_scratch=true train.precision=fp32)

# Any number of ranks, more ranks than regressions too.
must 1 baseline "${common[@]}" "${model[@]}" out=one
for n in 2 3 7; do
    must $n baseline "${common[@]}" "${model[@]}" out=on-$n
    for kind in tfidf embeddings; do
        same on-$n/$kind/oof.tsv one/$kind/oof.tsv
        same on-$n/$kind/oof.h5 one/$kind/oof.h5
    done
    same on-$n/tfidf/terms.tsv one/tfidf/terms.tsv
done
must 1 baseline "${common[@]}" parallel.threads=3 out=texts # without a model
same texts/tfidf/oof.tsv one/tfidf/oof.tsv
[ -e texts/embeddings ] && fail "embeddings without a model"

make_data few.tsv 6 2 # fewer rows than ranks
must 1 baseline "${common[@]}" "${model[@]}" data.train=few.tsv cv.folds=2 out=few
must 7 baseline "${common[@]}" "${model[@]}" data.train=few.tsv cv.folds=2 out=few-7
same few-7/tfidf/oof.tsv few/tfidf/oof.tsv
same few-7/embeddings/oof.tsv few/embeddings/oof.tsv

# The folds are those of train, and the files have the same columns.
must 1 train "${common[@]}" "${model[@]}" train.batch_size=16 train.epochs=1 out=trained
# A run that read texts alone and one that read tokens are compared by their rows, unless these have other labels.
must 1 report texts/tfidf trained out=paired.html
checks=$((checks + 1))
grep -q 'paired bootstrap over rows' paired.html && grep -q 'same by their numbers and labels' paired.html ||
    { : >said; fail "TF-IDF of texts beside a trained model is not paired"; }
cut -f1-4 trained/oof.tsv >wanted
for kind in tfidf embeddings; do
    cut -f1-4 one/$kind/oof.tsv >found
    same found wanted
    equal "$(head -1 one/$kind/oof.tsv)" "$(head -1 trained/oof.tsv)" "the header"
done

python3 - <<'PY' >found || fail "results: $(cat found)"
import csv, json
for kind in ["tfidf", "embeddings"]:
    rows = list(csv.DictReader(open(f"one/{kind}/oof.tsv"), delimiter="\t", quoting=csv.QUOTE_NONE))
    classes = ["class0", "class1", "class2"]
    p = [[float(r["pred_" + c]) for c in classes] for r in rows]
    assert all(abs(sum(x) - 1) < 1e-5 for x in p), "probabilities"
    hits = sum(classes[x.index(max(x))] == r["label"] for x, r in zip(p, rows))
    results = json.load(open(f"one/{kind}/results.json"))
    assert abs(results["score"] - hits / 60) < 1e-9 and results["oof"]["score"] == results["score"], (results["score"], hits)
    assert results["score"] > 0.6, results["score"]
    assert [f["fold"] for f in results["folds"]] == [0, 1, 2, 3] and results["complete"]
    assert results["baseline"]["kind"] == kind and results["baseline"]["converged"] and results["baseline"]["iterations"] > 0
    low, high = results["oof"]["ci95"]
    assert low <= results["score"] <= high
    assert json.load(open("one/results.json"))["kinds"][kind]["score"] == results["score"]
terms = list(csv.DictReader(open("one/tfidf/terms.tsv"), delimiter="\t", quoting=csv.QUOTE_NONE))
assert {t["fold"] for t in terms} == set("0123") and {t["label"] for t in terms} == set(classes)
first = [t["term"] for t in terms if t["fold"] == "0" and t["label"] == "class1"]
assert len(first) == 20 and sum(t[0] == "b" for t in first[:3]) == 3, first
PY
checks=$((checks + 1))

# A finished baseline is left alone, one that was stopped between kinds goes on, one of another configuration is refused.
must 2 baseline "${common[@]}" "${model[@]}" out=one
said 'the baseline in one is finished'
COHORT_FAULT=baseline.kind:2=kill ranks 2 baseline "${common[@]}" "${model[@]}" out=killed
checks=$((checks + 1))
[ "$code" != 0 ] && [ -e killed/tfidf/results.json ] && [ ! -e killed/embeddings/results.json ] || fail "it was not killed between kinds"
must 3 baseline "${common[@]}" "${model[@]}" out=killed
said 'tfidf was finished before'
same killed/tfidf/oof.tsv one/tfidf/oof.tsv
same killed/embeddings/oof.tsv one/embeddings/oof.tsv
rm killed/results.json
must 1 baseline "${common[@]}" "${model[@]}" baseline.C=10 out=killed # not what stands there
cmp -s killed/tfidf/oof.tsv one/tfidf/oof.tsv && fail "baseline.C=10 has the scores of baseline.C=1"
refused 78 'baseline.C .1, now 2' 2 baseline "${common[@]}" "${model[@]}" baseline.C=2 out=one
refused 78 'cv.folds' 1 baseline "${common[@]}" "${model[@]}" cv.folds=3 out=one
sed 's/w1/w2/' train.tsv >other.tsv
refused 78 'content of data.train|the texts' 1 baseline "${common[@]}" "${model[@]}" data.train=other.tsv out=one
refused 78 'resume=never' 1 baseline "${common[@]}" "${model[@]}" resume=never out=one
must 2 baseline "${common[@]}" "${model[@]}" baseline.kinds=tfidf baseline.ngram_max=1 overwrite=true out=one
[ -e one/embeddings/oof.tsv ] && fail "overwrite=true left embeddings"

# Whose the folder is.
refused 78 'out=on-2 holds a baseline, not a run' 1 train "${common[@]}" "${model[@]}" out=on-2
refused 78 'out=trained holds a run, not a baseline' 1 baseline "${common[@]}" "${model[@]}" out=trained

# Other rows: repeats, some folds, an evaluation set, a hold-out, data.test; prepared files.
must 1 baseline "${common[@]}" cv.repeats=2 cv.run_folds=[0,3] out=repeats
equal "$(cut -f3,4 repeats/tfidf/oof.tsv | sort -u | tr '\t\n' '- ')" '0-0 0-3 1-0 1-3 repeat-fold ' "repeats and folds"
equal "$(head -1 repeats/tfidf/terms.tsv)" "$(printf 'repeat\tfold\tlabel\tterm\tweight')" "the header of terms.tsv"
must 2 baseline "${common[@]}" cv.folds=0 data.eval=eval.tsv data.test=test.tsv "${model[@]}" out=eval
said 'accuracy on the 24 rows of data.eval'
said 'accuracy on the 10 rows of data.test'
must 1 baseline "${common[@]}" cv.folds=0 data.holdout=0.25 out=holdout
said 'accuracy on the 15 rows of the hold-out'
must 1 prepare "${model[@]}" data.input=train.tsv data.text=text data.label=label data.id=id data.keep_text=true out=train.h5
must 2 baseline data.train=train.h5 cv.folds=4 "${model[@]}" out=prepared
same prepared/tfidf/oof.tsv on-2/tfidf/oof.tsv
same prepared/embeddings/oof.tsv on-2/embeddings/oof.tsv
must 1 prepare "${model[@]}" data.input=train.tsv data.text=text data.label=label data.keep_text=false out=bare.h5
refused 65 'bare.h5 was prepared without its texts' 2 baseline data.train=bare.h5 cv.folds=4 "${model[@]}" out=bare
must 1 baseline data.train=bare.h5 cv.folds=4 "${model[@]}" baseline.kinds=embeddings baseline.pooling=mean out=bare

# Trees, where XGBoost is there.
ranks 1 baseline "${common[@]}" "${model[@]}" baseline.kinds=trees out=trees
if [ "$code" = 69 ]; then
    said 'trees need XGBoost'
    echo "SKIP trees: $(grep -m1 'trees need XGBoost' said)"
else
    must 3 baseline "${common[@]}" "${model[@]}" baseline.kinds=trees,embeddings parallel.threads=2 out=trees-3
    same trees-3/trees/oof.tsv trees/trees/oof.tsv
    same trees-3/embeddings/oof.tsv on-2/embeddings/oof.tsv
    cut -f1-4 trees/trees/oof.tsv >found
    same found wanted
    must 1 baseline "${common[@]}" "${model[@]}" baseline.kinds=trees baseline.trees=5 baseline.tree_depth=2 out=stumps
    cmp -s stumps/trees/oof.tsv trees/trees/oof.tsv && fail "five flat trees have the scores of a hundred"
fi

# Pairs, multi-label data, numbers.
must 1 baseline "${common[@]}" data.pair=pair out=pairs
awk -F'\t' 'BEGIN { OFS = FS } NR > 1 { $3 = (NR % 2 ? "odd," : "") $3 } { print }' train.tsv >multi.tsv
must 3 baseline "${common[@]}" data.train=multi.tsv data.task=multi_label cv.kind=multi_label out=multi
awk -F'\t' 'BEGIN { OFS = FS } NR > 1 { $3 = substr($3, 6) * 10 + NR % 3 } { print }' train.tsv >numbers.tsv
must 1 baseline "${common[@]}" data.train=numbers.tsv data.task=regression out=numbers
equal "$(cut -f2 numbers/tfidf/terms.tsv | sort -u | tr '\n' ' ')" 'higher label lower ' "labels of a regression's terms"

refused 78 'baseline.kinds=tfidf,forest: "forest" is not a kind' 1 baseline "${common[@]}" baseline.kinds=tfidf,forest out=none
refused 78 'model.path is not given' 1 baseline "${common[@]}" baseline.kinds=embeddings out=none
refused 78 'no rows to score' 1 baseline "${common[@]}" cv.folds=0 out=none
refused 78 'ngram_min=2 is above' 1 baseline "${common[@]}" baseline.ngram_min=2 baseline.ngram_max=1 out=none
refused 78 'must stand in at least 61' 2 baseline "${common[@]}" baseline.min_df=61 out=none
finish
