#!/usr/bin/env bash
# fp16 whose gradients overflow: skipped steps are counted and named, the schedule waits for them, and a resumed run has
# the scale of the one that was stopped.
. "$(dirname "$0")/../support/run.sh"
export EMULATED_CUDA_DEVICES=2

make_model model 0.1
sed -i 's/"initializer_range": 0.02/"initializer_range": 0.6/' model/config.json # large weights: gradients grow on their way back
make_data train.tsv 40 3
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label train.batch_size=8
        optim.lr=1e-4 log.every=1 log.hash_every=1 parallel.threads=1 parallel.backend=cuda train.precision=fp16
        parallel.reproducible=any schedule.warmup_steps=0 train.max_steps=10)

must 1 train "${common[@]}" out=whole
said 'step 1 skipped: the gradient of [a-z0-9_.]+ overflowed at loss scale 65536, 32768 from here on'
skipped=$(grep '"kind":"train"' whole/log.jsonl | field skipped_steps | tail -n 1)
checks=$((checks + 1))
{ [ "$skipped" -gt 0 ] && [ "$skipped" -lt 10 ]; } || fail "$skipped of 10 steps were skipped"
# The rate of a step is that of the steps applied before it: a skipped step's rate comes again.
first=$(grep '"kind":"train"' whole/log.jsonl | field lr | sed -n 1p)
second=$(grep '"kind":"train"' whole/log.jsonl | field lr | sed -n 2p)
equal "$second" "$first" "the rate after a skipped step"
equal "$(field optimizer_steps <whole/checkpoint-10/state.json | tr -d ' ')" "$((10 - skipped))" "the applied steps"

must 2 train "${common[@]}" out=ranks
equal "$(course ranks)" "$(course whole)" "the course on two ranks"

COHORT_FAULT=step.end:4=kill ranks 1 train "${common[@]}" checkpoint.every=1 out=cut
must 1 train "${common[@]}" checkpoint.every=1 out=cut
said 'resuming'
same cut/best/model.safetensors whole/best/model.safetensors
equal "$(field loss_scale <cut/checkpoint-10/state.json)" "$(field loss_scale <whole/checkpoint-10/state.json)" "the loss scale"
finish
