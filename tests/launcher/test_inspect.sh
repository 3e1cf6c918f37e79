#!/usr/bin/env bash
# inspect describes what is there and reports damage; check prints a run's plan, refuses what train would, writes nothing.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 48 3
columns=(data.text=text data.label=label)
run=(model.path=model model.from_scratch=true train.batch_size=8 train.max_steps=6 train.precision=fp32
     checkpoint.every=2 eval.every=2 parallel.threads=1)
must 1 prepare model.path=model data.input=train.tsv "${columns[@]}" out=train.h5

# ---- check ----
export TMPDIR=$work/tmp
mkdir tmp
must 2 check "${run[@]}" data.train=train.tsv "${columns[@]}" cv.folds=3 out=cv
said '^ranks +2, '
said '^data.train +48 rows, '
said '^  fold 2 +trains on 32 rows, 6 steps'
said '4 steps an epoch, 6 steps, 1 of them warm-up'
said '^memory .* GB a rank'
said '^encoder, decays'
said 'from a measured forward pass x 3'
equal "$(ls tmp)" "" "what check leaves in TMPDIR"
[ -e cv ] && fail "check made the folder of the run"
refused 66 'data.test=none.tsv' 2 check "${run[@]}" data.train=train.h5 data.test=none.tsv
refused 78 'would need' 1 check "${run[@]}" data.train=train.h5 train.memory_limit_gb=0.001
refused 78 'cv.folds=1' 1 check "${run[@]}" data.train=train.h5 cv.folds=1
unset TMPDIR

# ---- inspect ----
must 1 train "${run[@]}" data.train=train.h5 data.holdout=0.25 out=run
refused 78 'holds a run with another configuration: optim.lr' 1 check "${run[@]}" data.train=train.h5 data.holdout=0.25 \
    out=run optim.lr=1e-3
must 2 inspect train.h5
equal "$(grep -c 'prepared dataset' said)" 1 "the number of ranks that speak"
said '^  rows +48$'
said '^  labels +3 classes'
said '^  verified +yes'
must 1 inspect run
said '^    train.batch_size = 8$'
said '^  best +step [0-9]+, verified'
said '^  checkpoint-6 +step 6, verified'
must 1 inspect run/checkpoint-6/ run/best
said '^run/checkpoint-6/: checkpoint$'
said '^  step +6 of 6'
said '^  parameters +F32 [0-9]+ in'
said '^  published +from checkpoint-'
said '^  manifest +verified'
cp -r run/best plain
rm plain/manifest.json
must 1 inspect plain
said '^plain: Hugging Face model$'
said '^  labels +3: '
size=$(stat -c %s run/checkpoint-4/model.safetensors)
printf '\377' | dd of=run/checkpoint-4/model.safetensors bs=1 seek=$((size - 100)) conv=notrunc status=none
refused 65 '^  checkpoint-4 +NO: .*model.safetensors' 1 inspect run
said '^  checkpoint-6 +step 6, verified'
refused 65 'is no prepared dataset' 1 inspect train.tsv
mkdir empty
refused 65 'holds neither run.cfg' 1 inspect empty
refused 66 'none is not there' 1 inspect none
refused 64 'inspect needs a path' 1 inspect
finish
