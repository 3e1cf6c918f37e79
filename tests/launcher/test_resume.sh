#!/usr/bin/env bash
# A run that was killed, anywhere, and started again ends with the bytes of the run that was not, on other numbers of
# ranks as well. Also: folders that hold another run, a finished run, and signals.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 40 3
make_data valid.tsv 12 3 7
common=(model.path=model model.from_scratch=true data.train=train.tsv data.eval=valid.tsv data.text=text
        data.label=label data.cache=cache train.batch_size=8 train.epochs=2 train.precision=fp32 optim.lr=1e-3
        checkpoint.every=2 eval.metric=log_loss log.every=1 log.hash_every=1 parallel.reproducible=any parallel.threads=1)
all="1 2 3 4 5 6 7 8 9 10 "

must 2 train "${common[@]}" out=whole
course whole >course.whole
equal "$(steps whole)" "$all" "the steps of the whole run"

# complete NAME: the run in this folder is as the one that was not interrupted.
complete() {
    equal "$(steps "$1")" "$all" "$1: the steps in log.jsonl"
    course "$1" >"course.$1"
    same "course.$1" course.whole
    same "$1/best/model.safetensors" whole/best/model.safetensors
    same "$1/checkpoint-10/model.safetensors" whole/checkpoint-10/model.safetensors
    same "$1/checkpoint-10/optimizer.safetensors" whole/checkpoint-10/optimizer.safetensors
    equal "$(grep -c '"kind":"eval"' "$1/log.jsonl")" 2 "$1: evaluations in log.jsonl"
    equal "$(ls -d "$1"/*.tmp 2>/dev/null)" "" "$1: left-over folders"
}

# killed NAME RANKS FAULT: the run dies of it.
killed() {
    export COHORT_FAULT=$3
    ranks "$2" train "${common[@]}" out="$1"
    unset COHORT_FAULT
    checks=$((checks + 1))
    [ "$code" != 0 ] && [ ! -e "$1/results.json" ] || fail "$1: COHORT_FAULT=$3 on $2 ranks did not end the run (code $code)"
}

# After a step, on other ranks each time: 2 -> 1 -> 3.
killed chain 2 step.end:3@1=kill
killed chain 1 step.end:4=kill
must 3 train "${common[@]}" out=chain
said 'resuming chain at step 6 of 10'
complete chain

# Between two steps without a checkpoint of the first, and before any checkpoint.
killed early 1 step.end:1=kill
must 1 train "${common[@]}" out=early
complete early

# In each phase of a checkpoint: the second one, and once the last.
for place in ckpt.begin ckpt.begun ckpt.create ckpt.write:9 ckpt.finish ckpt.manifest ckpt.commit ckpt.rename \
             ckpt.parent ckpt.sync ckpt.retain ckpt.publish ckpt.link checkpoint.write:5; do
    name=at-${place%%:*}
    visit=${place#*:}
    [ "$visit" = "$place" ] && visit=2
    killed "$name" 1 "${place%%:*}:$visit=kill"
    must 1 train "${common[@]}" out="$name"
    complete "$name"
done
killed parts 3 checkpoint.write:2@1=kill
must 2 train "${common[@]}" out=parts
complete parts

# A checkpoint that does not verify is passed over.
killed torn 1 step.end:7=kill
printf 'x' | dd of=torn/checkpoint-6/model.safetensors bs=1 seek=5000 conv=notrunc status=none
must 1 train "${common[@]}" out=torn
said 'checkpoint-6'
said 'resuming torn at step 5 of 10'
complete torn

# What out holds.
ranks 1 train "${common[@]}" out=whole
equal "$code" 0 "the exit code of a finished run"
said 'finished'
refused 78 'resume=never' 1 train "${common[@]}" out=whole resume=never
refused 78 'optim.lr .*train.batch_size|train.batch_size .*optim.lr' 2 train "${common[@]}" out=whole optim.lr=2e-3 train.batch_size=4
refused 78 'another configuration' 1 train "${common[@]}" out=whole data.train=valid.tsv
same whole/best/model.safetensors chain/best/model.safetensors
must 1 train "${common[@]}" out=chain log.every=5 checkpoint.keep=1 parallel.threads=2
cp -r chain other
must 1 train "${common[@]}" out=other train.max_steps=1 overwrite=true
equal "$(steps other)" "1 " "the steps after overwrite=true"
must 1 train "${common[@]}" parallel.reproducible=fixed train.max_steps=2 out=fixed
rm fixed/results.json
refused 78 'number of ranks' 2 train "${common[@]}" parallel.reproducible=fixed train.max_steps=2 out=fixed

# run.cfg repeats the run.
must 1 train chain/run.cfg out=again
complete again

# Where there is nothing to save a signal ends cohort as it does any program.
mkfifo quiet
exec 9<>quiet # an input that stays open and says nothing
for signal in TERM USR1; do
    "$cohort" predict model.path=whole/best data.text=text data.input=- out=waits.jsonl <quiet >said 2>&1 &
    sleep 1.5
    kill -$signal $!
    wait $! 2>/dev/null
    equal $? $((128 + $(kill -l $signal))) "the exit code of predict after SIG$signal"
done
exec 9>&-

# Signals: USR1 saves and ends with 75, USR2 saves and goes on.
slow=("${common[@]}" train.epochs=400 checkpoint.every=0 eval.every=0 log.hash_every=0)
waited() { # until PATTERN is in FILE, 20 s at most
    local i
    for ((i = 0; i < 200; i++)); do
        grep -qsE -- "$1" "$2" && return 0
        sleep 0.1
    done
    fail "nothing in $2 matches $1"
}
# started NAME: a run on two ranks, in the background, has reached step 20.
started() {
    mpirun --oversubscribe -n 2 "$cohort" train "${slow[@]}" out="$1" >said 2>&1 &
    job=$!
    waited '"step":20,' "$1/log.jsonl"
}
started signals
kill -USR2 $job
waited '"kind":"checkpoint"' signals/log.jsonl
first=$(grep '"kind":"checkpoint"' signals/log.jsonl | field step | head -n 1)
kill -USR1 $job
wait $job
equal $? 75 "the exit code after SIGUSR1"
said 'stopped by a signal at step'
last=$(ls -d signals/checkpoint-* | sed 's/.*-//' | sort -n | tail -n 1)
checks=$((checks + 1))
[ "${first:-0}" -ge 20 ] && [ "$last" -gt "$first" ] && [ "$last" -lt 2000 ] ||
    fail "checkpoints after SIGUSR2 at step ${first:-none}, after SIGUSR1 at step ${last:-none}"
ranks 1 train "${slow[@]}" out=signals
equal "$code" 0 "the exit code of the run that goes on"
said "resuming signals at step $last of 2000"

# A signal's checkpoint that cannot be written: the run does not say that it was saved.
export COHORT_FAULT=checkpoint.write
started full
unset COHORT_FAULT
kill -USR1 $job
wait $job
equal $? 74 "the exit code after SIGUSR1 without a checkpoint"
said 'checkpoint could not be saved'

# Another start has taken over the folder: this one commits nothing more.
started fenced
sed -i 's/"token": "./"token": "z/' fenced/run.lock
kill -USR2 $job
wait $job
equal $? 76 "the exit code of a run that was taken over"
said 'taken over by'
equal "$(ls -d fenced/checkpoint-* 2>/dev/null)" "" "checkpoints of a run that was taken over"
finish
