#!/usr/bin/env bash
# What can be wrong with GPUs: each thing ends the command with one sentence and its exit code, on all ranks, and nothing
# hangs.
. "$(dirname "$0")/../support/run.sh"
export EMULATED_CUDA_DEVICES=2

make_model model
make_data train.tsv 24 3
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label train.batch_size=8
        train.max_steps=3 log.every=1 parallel.threads=1 parallel.backend=cuda train.precision=fp32)

# ---- the machine
EMULATED_CUDA_DRIVER=missing refused 69 'driver' 1 train "${common[@]}" out=no-driver
EMULATED_CUDA_DRIVER=old refused 69 'driver.*(old|[0-9]+\.[0-9]+)' 1 train "${common[@]}" out=old-driver
EMULATED_CUDA_DEVICES=0 refused 69 'no GPU|no CUDA' 1 train "${common[@]}" out=no-gpu
EMULATED_CUDA_LIBRARIES=nocublaslt refused 69 'cublasLt' 1 train "${common[@]}" out=no-cublaslt
EMULATED_CUDA_LIBRARIES=nonccl refused 69 'nccl' 2 train "${common[@]}" out=no-nccl
EMULATED_CUDA_LIBRARIES=nonccl must 2 train "${common[@]}" parallel.transport=mpi out=no-nccl # it is not needed then
EMULATED_CUDA_DRIVER=missing must 1 train "${common[@]}" parallel.backend=auto out=auto-cpu
EMULATED_CUDA_DRIVER=missing must 1 check "${common[@]}" parallel.backend=cpu
# check opens what carries the sums, too
EMULATED_CUDA_LIBRARIES=nonccl refused 69 'nccl' 2 check "${common[@]}"
CUDA_VISIBLE_DEVICES=0 refused 69 'ranks 0 and 1 both have GPU' 2 check "${common[@]}"
refused 78 'transport=nccl needs GPUs' 2 check "${common[@]}" parallel.backend=cpu parallel.transport=nccl
must 2 check "${common[@]}" cv.folds=2 cv.group_ranks=1

# ---- too many ranks, GPUs of two kinds
refused 69 'GPU 2.*2|2 .*GPU' 3 train "${common[@]}" out=crowded
CUDA_VISIBLE_DEVICES=0 refused 69 'ranks? 0 and (rank )?1|share|one GPU' 2 train "${common[@]}" out=shared
EMULATED_CUDA_NAMES='NVIDIA A;NVIDIA B' refused 69 'NVIDIA A.*rank 1.*NVIDIA B' 2 train "${common[@]}" out=mixed
EMULATED_CUDA_NAMES='NVIDIA A;NVIDIA B' must 2 train "${common[@]}" parallel.reproducible=off out=mixed

# ---- memory: refused by the plan, and running out in spite of it
EMULATED_CUDA_MEMORY=3000000 refused 78 'would need .* GB.*have 0.0 GB' 1 train "${common[@]}" out=small
EMULATED_CUDA_MEMORY=3000000 refused 71 '(no memory|out of memory|bytes)' 1 train "${common[@]}" train.memory_limit_gb=10 out=full

# ---- a kernel that fails, a rank that is killed, messages that fail or never end
EMULATED_CUDA_FAIL=adamw@2 refused 71 'CUDA|kernel' 1 train "${common[@]}" out=broken
export COHORT_FAULT=step.end:2@1=kill
ranks 2 train "${common[@]}" out=killed
checks=$((checks + 1))
[ "$code" != 0 ] && [ "$code" != 124 ] || fail "exit code $code after a rank was killed"
unset COHORT_FAULT
must 2 train "${common[@]}" out=killed
EMULATED_NCCL_FAIL=1@3 refused 71 'NCCL' 2 train "${common[@]}" out=failing
export EMULATED_NCCL_HANG=1@3
ranks 2 train "${common[@]}" parallel.watchdog_s=4 out=hanging
checks=$((checks + 1))
{ [ "$code" = 71 ] || [ "$code" = 70 ]; } || fail "exit code $code of a job whose messages never end, wanted 71 or 70"
said 'NCCL|no progress'
unset EMULATED_NCCL_HANG
finish
