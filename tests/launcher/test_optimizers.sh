#!/usr/bin/env bash
# Schedules and optimizers of whole runs: rates in the log, state that a resumed run goes on with, on other numbers of
# ranks with the same bits, and refusals.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 40 3
make_data valid.tsv 12 3 7
common=(model.path=model model.from_scratch=true data.train=train.tsv data.eval=valid.tsv data.text=text
        data.label=label data.cache=cache train.batch_size=8 train.epochs=2 train.precision=fp32 optim.lr=1e-3
        eval.metric=log_loss log.every=1 log.hash_every=1 parallel.reproducible=any parallel.threads=1)

# resumed NAME KEYS...: a run that is killed after its 7th step, on one rank, and goes on on two, ends as one that was not.
resumed() {
    local name=$1
    shift
    must 1 train "${common[@]}" "$@" checkpoint.every=0 out="$name"
    course "$name" >"course.$name"
    export COHORT_FAULT=step.end:7=kill
    ranks 1 train "${common[@]}" "$@" checkpoint.every=3 out="$name.2"
    unset COHORT_FAULT
    must 2 train "${common[@]}" "$@" checkpoint.every=3 out="$name.2"
    said "resuming $name.2 at step 6 of 10"
    course "$name.2" >"course.$name.2"
    same "course.$name.2" "course.$name"
    same "$name.2/best/model.safetensors" "$name/best/model.safetensors"
    same "$name.2/checkpoint-10/optimizer.safetensors" "$name/checkpoint-10/optimizer.safetensors"
}

# rates FOLDER: the rate applied in each step.
rates() { grep '"kind":"train"' "$1/log.jsonl" | field lr | awk '{ printf "%.6g ", $1 }'; }

must 1 train "${common[@]}" schedule.name=step schedule.by=epoch schedule.step_size=1 schedule.gamma=0.5 \
    schedule.warmup_steps=2 out=step
equal "$(rates step)" "0 0.0005 0.001 0.001 0.001 0.0005 0.0005 0.0005 0.0005 0.0005 " "the rates by epoch"
must 1 train "${common[@]}" schedule.name=table 'schedule.table=0:1,4:0.25,8:2' schedule.warmup_steps=0 out=table
equal "$(rates table)" "0.001 0.001 0.001 0.001 0.00025 0.00025 0.00025 0.00025 0.002 0.002 " "the rates of a table"
must 1 train "${common[@]}" schedule.name=multi_step 'schedule.milestones=[3,6]' schedule.gamma=0.5 \
    schedule.warmup_steps=0 out=milestones
equal "$(rates milestones)" "0.001 0.001 0.001 0.0005 0.0005 0.0005 0.00025 0.00025 0.00025 0.00025 " "the rates of multi_step"

# No evaluation gains 10 in log_loss, so at every second one the rate falls.
resumed plateau schedule.name=plateau schedule.warmup_steps=0 schedule.patience=1 schedule.factor=0.5 eval.every=1 \
    schedule.threshold_mode=abs schedule.threshold=10
equal "$(rates plateau)" "0.001 0.001 0.001 0.0005 0.0005 0.00025 0.00025 0.000125 0.000125 6.25e-05 " "the rates of a plateau"

# Every kind of state, and LAMB's norms, on one rank and on two.
resumed adadelta optim.name=adadelta optim.lr=1
resumed rmsprop optim.name=rmsprop optim.momentum=0.9 optim.centered=true
resumed lamb optim.name=lamb
resumed sgd optim.name=sgd optim.lr=0.05 optim.momentum=0.9 optim.nesterov=true optim.layer_decay=0.8 \
    model.freeze_embeddings=true model.freeze_layers=1
must 1 inspect sgd/checkpoint-10
must 3 train "${common[@]}" optim.name=lamb checkpoint.every=0 out=lamb.3
course lamb.3 >course.lamb.3
same course.lamb.3 course.lamb

# What is frozen has the bytes it was drawn with; what is not has others.
must 1 train "${common[@]}" optim.lr=0 optim.weight_decay=0 train.max_steps=1 out=drawn
tensor() { # FOLDER NAME: hash of a tensor's bytes in best/model.safetensors
    python3 - "$1/best/model.safetensors" "$2" <<'PY'
import hashlib, json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
begin, end = json.loads(data[8:8 + n])[sys.argv[2]]["data_offsets"]
print(hashlib.sha256(data[8 + n + begin:8 + n + end]).hexdigest())
PY
}
for name in embeddings.word_embeddings.weight embeddings.LayerNorm.bias encoder.layer.0.output.dense.weight; do
    equal "$(tensor sgd bert.$name)" "$(tensor drawn bert.$name)" "a frozen tensor, $name,"
done
for name in encoder.layer.1.output.dense.weight pooler.dense.bias; do
    checks=$((checks + 1))
    [ "$(tensor sgd bert.$name)" != "$(tensor drawn bert.$name)" ] || fail "$name did not move"
done
must 1 check "${common[@]}" optim.name=lamb optim.layer_decay=0.5 model.freeze_layers=1
said 'optimizer +LAMB'
said 'rates by depth: embeddings 0.125, layer 0 0.25, layer 1 0.5'
said 'frozen: 1 of 2 layers'

refused 78 'schedule.name=plateau .* no rows to evaluate on' 1 train "${common[@]}" schedule.name=plateau data.eval= out=refused
refused 78 'schedule.name=step: schedule.step_size is 0' 1 train "${common[@]}" schedule.name=step out=refused
refused 78 'schedule.table:1: points do not ascend at "3:1"' 1 train "${common[@]}" schedule.name=table \
    'schedule.table=0:1,3:1,3:1' out=refused
finish
