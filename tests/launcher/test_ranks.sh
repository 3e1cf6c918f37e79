#!/usr/bin/env bash
# parallel.reproducible=any: ranks, threads, the size of a pass and recomputation do not change a bit. Every step's loss
# and weights hash, and the files at the end, are those of one rank.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 64 3
{ # an empty text, one word, more words than the model takes: 67 rows, so the ninth batch of 8 is short
    printf 'e0\tg0\tclass0\t\t\n'
    printf 'e1\tg0\tclass1\tb1\t\n'
    printf 'e2\tg0\tclass2\t%s\t\n' "$(seq -s' ' -f 'w%.0f' 0 99)"
} >>train.tsv
must 1 prepare model.path=model data.input=train.tsv data.text=text data.label=label out=train.h5
common=(model.path=model model.from_scratch=true data.train=train.h5 train.batch_size=8 train.max_steps=10
        optim.lr=1e-3 log.every=1 log.hash_every=1 parallel.reproducible=any parallel.threads=1)

# agrees NAME WITH: two runs took the same course to the same bytes.
agrees() {
    course "runs/$1" >found
    course "runs/$2" >wanted
    checks=$((checks + 1))
    cmp -s found wanted || fail "$1 and $2 part: $(diff wanted found | head -n 4 | tr '\n' ' ')"
    same "runs/$1/best/model.safetensors" "runs/$2/best/model.safetensors"
    same "runs/$1/checkpoint-10/optimizer.safetensors" "runs/$2/checkpoint-10/optimizer.safetensors"
}

# one_run PRECISION RANKS RECOMPUTE
one_run() {
    must "$2" train "${common[@]}" train.precision="$1" train.recompute="$3" out="runs/$1-$2-$3"
    [ "$2-$3" = 1-false ] || agrees "$1-$2-$3" "$1-1-false"
}

# turn RANKS PRECISION: recomputation for this run, where only half of the combinations are run
turn() {
    case $2-$(($1 % 2)) in
        fp32-0 | bf16-1) echo true ;;
        *) echo false ;;
    esac
}

precisions=fp32
has_bf16 && precisions="fp32 bf16"
for precision in $precisions; do
    for n in 1 2 3 4 5 8; do
        if [ "${COHORT_TEST_LONG:-0}" = 1 ] || [ "$n" = 1 ]; then
            one_run "$precision" "$n" false
            one_run "$precision" "$n" true
        else # half of the combinations; COHORT_TEST_LONG=1 runs all
            one_run "$precision" "$n" "$(turn "$n" "$precision")"
        fi
    done
    equal "$(course "runs/$precision-1-false" | wc -l)" 10 "the number of logged steps"
    equal "$(course "runs/$precision-1-false" | awk '{ print $3 }' | sort -u | wc -l)" 10 "the number of different weights"
done

precision=${precisions##* }
for n in 1 2 3; do # four buckets, two, and two with ranks that own nothing of the last
    must "$n" train "${common[@]}" train.precision="$precision" parallel.bucket_mb=0.25 out="runs/bucket-$n"
    agrees "bucket-$n" "$precision-1-false"
done
for micro in 16 64; do
    must 2 train "${common[@]}" train.precision="$precision" train.micro_tokens=$micro out="runs/micro-$micro"
    agrees "micro-$micro" "$precision-1-false"
done
must 1 train "${common[@]}" train.precision="$precision" parallel.threads=2 out="runs/threads"
agrees threads "$precision-1-false"

# Fewer rows than ranks.
for n in 1 3 7; do
    must "$n" train "${common[@]}" train.precision=fp32 train.batch_size=2 out="runs/two-$n"
    [ "$n" = 1 ] || agrees "two-$n" two-1
done

[ "$precisions" = fp32 ] && echo "bf16 left out: this CPU has no AVX512-BF16"
finish
