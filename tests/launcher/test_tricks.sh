#!/usr/bin/env bash
# Means of weights, adversarial steps, several samples of dropout, focal loss: the same bits on any number of ranks, resumed
# runs, what is saved, and refusals. Numbers are compared with PyTorch by scripts/test-long tricks.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 40 3
make_data valid.tsv 16 3 7
common=(model.path=model model.from_scratch=true data.train=train.tsv data.eval=valid.tsv data.text=text
        data.label=label data.cache=cache train.batch_size=8 train.epochs=2 train.precision=fp32 optim.lr=2e-3
        eval.metric=log_loss log.every=1 log.hash_every=1 parallel.reproducible=any parallel.threads=1)

must 1 train "${common[@]}" out=plain
# trick NAME KEYS...: other ranks give the same bits; a run killed after its 7th step, which goes on on other ranks, too; and it
# is not the plain run.
trick() {
    local name=$1
    shift
    must 1 train "${common[@]}" "$@" out="$name"
    course "$name" >"course.$name"
    must 3 train "${common[@]}" "$@" out="$name.3"
    course "$name.3" >"course.$name.3"
    same "course.$name.3" "course.$name"
    same "$name.3/best/model.safetensors" "$name/best/model.safetensors"
    export COHORT_FAULT=step.end:7=kill
    ranks 1 train "${common[@]}" "$@" checkpoint.every=3 out="$name.2"
    unset COHORT_FAULT
    must 2 train "${common[@]}" "$@" checkpoint.every=3 out="$name.2"
    said "resuming $name.2 at step 6 of 10"
    course "$name.2" >"course.$name.2"
    same "course.$name.2" "course.$name"
    same "$name.2/best/model.safetensors" "$name/best/model.safetensors"
    same "$name.2/checkpoint-10/optimizer.safetensors" "$name/checkpoint-10/optimizer.safetensors"
    checks=$((checks + 1))
    same "$name.2/checkpoint-10/model.safetensors" "$name/checkpoint-10/model.safetensors"
    cmp -s "$name/checkpoint-10/model.safetensors" plain/checkpoint-10/model.safetensors && fail "$name is the plain run"
}
trick ema train.average=ema train.ema_decay=0.8
trick swa train.average=swa train.average_start=1
trick fgm train.adversarial=fgm train.adversarial_eps=0.5
trick awp train.adversarial=awp train.adversarial_start=1
trick samples model.dropout_samples=4
trick focal train.focal_gamma=2
trick all train.average=ema train.adversarial=fgm model.dropout_samples=2 train.focal_gamma=1

# Passes of one row or a few, on two ranks: gradients of all of them are summed before the weights are moved, once a step.
passes() {
    local name=$1
    shift
    must 2 train "${common[@]}" "$@" train.micro_tokens=16 out="$name.passes"
    course "$name.passes" >"course.$name.passes"
    same "course.$name.passes" "course.$name"
    same "$name.passes/best/model.safetensors" "$name/best/model.safetensors"
}
passes awp train.adversarial=awp train.adversarial_start=1
passes all train.average=ema train.adversarial=fgm model.dropout_samples=2 train.focal_gamma=1

# Killed before the first step that counts in the mean.
export COHORT_FAULT=step.end:4=kill
ranks 1 train "${common[@]}" train.average=swa train.average_start=1 checkpoint.every=3 out=early
unset COHORT_FAULT
must 1 train "${common[@]}" train.average=swa train.average_start=1 checkpoint.every=3 out=early
said 'resuming early at step 3 of 10'
same early/best/model.safetensors swa/best/model.safetensors
same early/checkpoint-10/optimizer.safetensors swa/checkpoint-10/optimizer.safetensors

# A mean changes what is evaluated and saved, not the course: every step is the plain run's.
course plain >course.plain
same course.ema course.plain
same course.swa course.plain
# What is in best/ is what was scored.
for name in ema swa all; do
    must 1 eval model.path=$name/best data.input=valid.tsv data.text=text data.label=label eval.metric=log_loss \
        train.precision=fp32 out=$name.json
    equal "$(grep -o '"score": [0-9.]*' $name.json | head -n 1 | cut -c1-18)" \
        "$(grep -o '"score": [0-9.]*' $name/results.json | head -n 1 | cut -c1-18)" "the score of $name/best"
done

refused 78 'train.focal_gamma and train.label_smoothing are both given' 1 train "${common[@]}" train.focal_gamma=1 \
    train.label_smoothing=0.1 out=x
# Early stopping before the first step that counts: the weights themselves are kept, which is said.
must 1 train "${common[@]}" train.epochs=6 train.average=swa train.average_start=5 eval.every=1 eval.patience=1 optim.lr=1 \
    schedule.warmup_steps=0 out=stopped
said 'train.average: the run stopped at step [0-9]+, before step 26,'

# What would never happen, or would do nothing, is refused before a step is run.
refused 78 'train.average_start=2 epochs are 10 steps, and the run has 10' 1 train "${common[@]}" train.average=swa \
    train.average_start=2 out=x
refused 78 'train.adversarial_start=1 epochs are 5 steps, and the run has 4' 1 train "${common[@]}" train.adversarial=awp \
    train.adversarial_start=1 train.max_steps=4 out=x
refused 78 'train.adversarial_rate=0 moves no weight' 1 train "${common[@]}" train.adversarial=awp train.adversarial_rate=0 out=x
refused 78 'train.adversarial=fgm moves the word embeddings, which model.freeze_embeddings keeps' 1 train "${common[@]}" \
    train.adversarial=fgm model.freeze_embeddings=true out=x
refused 78 'model.dropout_samples=2 of a head without dropout' 1 train "${common[@]}" model.dropout_samples=2 \
    model.dropout=0 out=x
must 1 check "${common[@]}" train.average=swa train.average_start=0.5 train.adversarial=fgm train.adversarial_start=1
said '^mean          equal of the weights after steps 4 to 10$'
said '^adversarial   fgm in steps 6 to 10, which are run twice$'

refused 78 'train.adversarial and data.long=chunk' 1 train "${common[@]}" train.adversarial=fgm data.long=chunk out=x
refused 78 'model.dropout_samples and data.long=chunk' 1 train "${common[@]}" model.dropout_samples=2 data.long=chunk out=x
finish
