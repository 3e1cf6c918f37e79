#!/usr/bin/env bash
# parallel.reproducible=fixed: the same ranks give the same bits, whatever the threads and recomputation; other numbers
# of ranks differ by rounding only. off: it trains.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_model still 0.0
make_data train.tsv 60 3
common=(data.train=train.tsv data.text=text data.label=label data.cache=cache model.from_scratch=true
        train.batch_size=16 train.max_steps=5 train.precision=fp32 optim.lr=1e-3 log.every=1 log.hash_every=1
        parallel.threads=1)

must 2 train model.path=model "${common[@]}" out=a
must 2 train model.path=model "${common[@]}" train.recompute=true parallel.threads=2 out=b
course a >found
course b >wanted
same found wanted
same a/best/model.safetensors b/best/model.safetensors
must 3 train model.path=model "${common[@]}" out=c
must 7 train model.path=model "${common[@]}" out=d
must 2 train model.path=model "${common[@]}" parallel.reproducible=off out=e

# near A B BOUND: the losses of two runs at every step.
near() {
    checks=$((checks + 1))
    paste <(course "$1") <(course "$2") |
        awk -v bound="$3" '{ d = $2 - $5; if (d < 0) d = -d; if (d > bound) bad = bad " step " $1 ": " $2 " and " $5 }
                           END { if (NR < 5) bad = bad " " NR " steps"; if (bad != "") { print bad; exit 1 } }' ||
        fail "losses of $1 and $2"
}
# Dropout is a matter of row and place, so losses stay near with dropout as well.
near a c 1e-5
near a d 1e-5
near a e 1e-5
must 1 train model.path=still "${common[@]}" out=f
must 4 train model.path=still "${common[@]}" parallel.reproducible=any out=g
must 3 train model.path=still "${common[@]}" out=h
near f g 1e-5
near f h 1e-5
must 2 train model.path=model "${common[@]}" seed=43 out=i
checks=$((checks + 1))
[ "$(course a)" != "$(course i)" ] || fail "another seed changes nothing"
finish
