#!/usr/bin/env bash
# One rank's GPU or its messages fail while the others are well: all end at once with that rank's sentence, whatever
# carries the sums and wherever in a step it happens; and the next start goes on from the last checkpoint.
. "$(dirname "$0")/../support/run.sh"
export EMULATED_CUDA_DEVICES=3

make_model model
make_data train.tsv 24 3
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label train.batch_size=8
        train.max_steps=3 log.every=1 parallel.threads=1 parallel.backend=cuda train.precision=fp32)

# The program with FAILING_SETTING in the environment of rank FAILING_RANK alone.
real=$cohort
cat >one-fails <<'SH'
#!/usr/bin/env bash
[ "${OMPI_COMM_WORLD_RANK:-0}" = "$FAILING_RANK" ] && export "${FAILING_SETTING?}"
exec "$REAL_COHORT" "$@"
SH
chmod +x one-fails
export REAL_COHORT=$real

# fails RANK SETTING PATTERN N ARGUMENTS...: refused with 71 within seconds
fails() {
    export FAILING_RANK=$1 FAILING_SETTING=$2
    local pattern=$3 begin=$SECONDS
    shift 3
    cohort=$work/one-fails
    refused 71 "$pattern" "$@" parallel.watchdog_s=60
    cohort=$real
    checks=$((checks + 1))
    [ $((SECONDS - begin)) -lt 20 ] || fail "it took $((SECONDS - begin)) s"
    checks=$((checks + 1)) # the leader of a group says it at once, and rank 0 at the end
    [ "$(grep 'cohort: error: ' said | sed 's/.*cohort: error: //; s/^rank [0-9]: //' | sort -u | wc -l)" = 1 ] ||
        fail "not one sentence: $(grep 'cohort: error: ' said | tr '\n' '|')"
}

for transport in nccl mpi; do
    # forward, backward, the sums that norms are made of, the update
    for kernel in norm_forward@1 query_grads@2 square_sums@2 adamw@2; do
        fails 1 EMULATED_CUDA_FAIL=$kernel 'error: rank 1: .*cudaErrorLaunchFailure' 2 \
            train "${common[@]}" parallel.transport=$transport out=$transport-$kernel
    done
    fails 2 EMULATED_CUDA_FAIL=query_grads@2 'error: rank 2: .*cudaErrorLaunchFailure' 3 \
        train "${common[@]}" parallel.transport=$transport parallel.reproducible=any checkpoint.every=1 out=three-$transport
    must 2 train "${common[@]}" parallel.reproducible=any checkpoint.every=1 out=three-$transport
done
fails 0 EMULATED_CUDA_FAIL=query_grads@2 'error: .*cudaErrorLaunchFailure' 2 train "${common[@]}" parallel.reproducible=off out=first
fails 1 EMULATED_NCCL_FAIL=1@3 'error: .*NCCL: .*unhandled system error' 2 train "${common[@]}" out=message

# a group of a cross-validation fails: the other one ends its folds first
fails 1 EMULATED_CUDA_FAIL=query_grads@2 'rank 1: .*cudaErrorLaunchFailure' 2 \
    train "${common[@]}" cv.folds=2 cv.group_ranks=1 out=folds
finish
