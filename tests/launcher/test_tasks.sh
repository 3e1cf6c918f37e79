#!/usr/bin/env bash
# Every kind of task, loss, schedule and selection trains, evaluates and predicts, with equal bytes on one rank and three.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data base.tsv 48 3
# Further columns: two tags from the words, a number that follows from them, a weight.
awk -F'\t' -v OFS='\t' 'NR == 1 { print $0, "tags", "number", "weight"; next }
    { tags = ""; if ($4 ~ /a[0-4]/) tags = "a"; if ($4 ~ /b[0-4]/) tags = tags (tags == "" ? "" : ";") "b"
      n = split($4, w, " "); print $0, tags, n / 24, 0.5 + (NR % 3) / 2 }' base.tsv >train.tsv
awk -F'\t' -v OFS='\t' 'NR == 1 || $3 != "class2"' train.tsv >binary.tsv
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.cache=cache
        data.holdout=0.25 train.batch_size=8 train.epochs=2 train.precision=fp32 optim.lr=2e-3 log.every=1
        log.hash_every=1 parallel.reproducible=any parallel.threads=1)

# both NAME ARGUMENTS...: the run on one rank and on three; both predict.
both() {
    local name=$1 n
    shift
    for n in 1 3; do
        must $n train "${common[@]}" "$@" out="$name-$n"
        must 1 predict model.path="$name-$n/best" train.precision=fp32 data.input=train.tsv data.text=text out="$name-$n.jsonl"
    done
    course "$name-3" >found
    course "$name-1" >wanted
    same found wanted
    same "$name-3/best/model.safetensors" "$name-1/best/model.safetensors"
    same "$name-3.jsonl" "$name-1.jsonl"
    equal "$(wc -l <"$name-1.jsonl")" 48 "$name: predicted rows"
    checks=$((checks + 1))
    grep -qiE 'nan|inf' "$name-1/log.jsonl" && fail "$name: no number in log.jsonl"
    grep -q '"score": ' "$name-1/results.json" || fail "$name: no score in results.json"
}

# Two columns as one text: what [SEP] between them makes is a pair's ids, if not its types.
must 1 tokenizer encode model.path=model data.input=train.tsv 'data.template={text} [SEP] {pair}' out=template.jsonl
must 1 tokenizer encode model.path=model data.input=train.tsv data.text=text data.pair=pair out=pair.jsonl
same template.jsonl pair.jsonl
must 2 train "${common[@]}" data.text= 'data.template={pair}: {text}' data.label=label out=template
must 1 predict model.path=template/best data.input=train.tsv 'data.template={pair}: {text}' out=template-predicted.jsonl
refused 78 'no column "nothing" .data.template.' 1 predict model.path=template/best data.input=train.tsv \
    'data.template={nothing}' out=x.jsonl

both balanced data.label=label train.class_weights=balanced train.label_smoothing=0.1 schedule.name=cosine eval.metric=macro_f1
both weights data.label=label train.class_weights=1,2,0.5 data.weight=weight schedule.name=constant schedule.warmup_steps=2
both mean data.label=label model.pooling=mean model.dropout=0.3 optim.head_lr=1e-2 optim.head_weight_decay=0
both max data.label=label model.pooling=max optim.max_grad_norm=0.1
both cls data.label=label model.pooling=cls eval.metric=roc_auc
both tags data.label=tags data.task=multi_label 'data.label_separator=;'
both number data.label=number data.task=regression
both logit data.train=binary.tsv data.label=label train.loss=bce eval.metric=f1
both patience data.label=label eval.every=2 eval.patience=1 eval.metric=log_loss optim.lr=0
equal "$(steps patience-3)" "1 2 3 4 " "the steps until nothing was gained twice"
must 1 train "${common[@]}" data.label=label eval.every=2 eval.patience=1 eval.metric=log_loss optim.lr=0 out=patience-3
said 'finished'

# Early stopping, killed as it stops, and started again: nothing more is trained.
COHORT_FAULT=step.end:4@0=kill ranks 2 train "${common[@]}" data.label=label eval.every=2 eval.patience=1 eval.metric=log_loss optim.lr=0 out=stopped
must 1 train "${common[@]}" data.label=label eval.every=2 eval.patience=1 eval.metric=log_loss optim.lr=0 out=stopped
equal "$(steps stopped)" "1 2 3 4 " "the steps of the run that was killed as it stopped"
same stopped/best/model.safetensors patience-1/best/model.safetensors

python3 - <<'PY' 2>said || fail "the predictions' form"
import json
tags = [json.loads(l) for l in open("tags-1.jsonl")]
for r in tags:
    want = ",".join(n for n, s in zip(("a", "b"), r["scores"]) if s >= 0.5)
    assert r["label"] == want and len(r["scores"]) == 2, r
numbers = [json.loads(l) for l in open("number-1.jsonl")]
assert all(len(r["logits"]) == 1 and "label" not in r and r["scores"] == r["logits"] for r in numbers), numbers[0]
logit = [json.loads(l) for l in open("logit-1.jsonl")]
assert {r["label"] for r in logit} <= {"class0", "class1"}
assert json.load(open("balanced-1/results.json"))["metric"] == "macro_f1"
PY
checks=$((checks + 1))

# data.test is scored once, at the end; epochs may be parts.
must 2 train "${common[@]}" data.label=label data.test=base.tsv train.epochs=0.5 out=test
python3 - <<'PY' 2>said || fail "data.test"
import json
r = json.load(open("test/results.json"))
assert r["train"]["steps"] == 3 and "accuracy" in r["test"]["metrics"], r
PY
checks=$((checks + 1))
must 2 eval model.path=test/best train.precision=fp32 data.input=base.tsv data.text=text data.label=label out=test.json
python3 -c 'import json; assert json.load(open("test.json"))["metrics"] == json.load(open("test/results.json"))["test"]["metrics"]' 2>said ||
    fail "eval and data.test part"
refused 78 'does not fit' 1 train "${common[@]}" data.label=label train.loss=mse out=no
refused 78 'two classes' 1 train "${common[@]}" data.label=label eval.metric=f1 out=no
refused 78 'class_weights' 1 train "${common[@]}" data.label=label train.class_weights=1,2 out=no
refused 65 'number' 1 train "${common[@]}" data.label=label data.task=regression out=no
finish
