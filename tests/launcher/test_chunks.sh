#!/usr/bin/env bash
# Long texts in chunks (data.long=chunk): the same bits on any number of ranks, however a text's chunks are dealt; one big
# pass and many small ones; resumed; cross-validated; predicted as trained; and what is refused.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 20 3
# Texts of 0, 1, 12, 13, 40, and 1,500 words, the last of one hundred chunks and more.
for n in 0 1 12 13 40 1500; do
    printf 'long%s\tg\tclass%d\t%s\t\n' "$n" $((n % 3)) \
        "$(seq -s' ' 0 "$n" | awk -v n="$n" '{ for (i = 2; i <= NF; i++) printf "%s%s", i % 4 ? "w" $i % 160 : substr("abc", n % 3 + 1, 1) i % 5, i < NF ? " " : "" }')"
done >>train.tsv
common=(model.path=model model.from_scratch=true data.train=train.tsv data.text=text data.label=label data.id=id
        data.cache=cache train.batch_size=6 train.epochs=2 train.precision=fp32 optim.lr=1e-3 log.every=1 log.hash_every=1
        data.long=chunk data.chunk_size=16 data.stride=12 parallel.threads=1)

# agrees A B: two runs took the same course to the same bytes.
agrees() {
    course "$1" >found
    course "$2" >wanted
    same found wanted
    same "$1/best/model.safetensors" "$2/best/model.safetensors"
}

for pooling in mean max; do
    for n in 1 2 3 7; do
        must "$n" train "${common[@]}" parallel.reproducible=any model.chunk_pooling=$pooling out=$pooling-$n
        [ "$n" = 1 ] || agrees $pooling-$n $pooling-1
    done
done
equal "$(course mean-1 | awk '{ print $3 }' | sort -u | wc -l)" 10 "the number of different weights"
# A leaf longer than a pass is cut by itself: ranks still agree, and so do one-pass and many-pass gradients, but for rounding.
for n in 1 2 7; do
    must "$n" train "${common[@]}" parallel.reproducible=any train.micro_tokens=100 out=small-$n
    [ "$n" = 1 ] || agrees small-$n small-1
done
must 1 train "${common[@]}" parallel.reproducible=fixed train.micro_tokens=100000 out=big
must 1 train "${common[@]}" parallel.reproducible=fixed train.micro_tokens=18 out=single # each chunk a pass
must 1 train "${common[@]}" parallel.reproducible=fixed train.micro_tokens=18 train.recompute=true out=recomputed
agrees recomputed single
for run in small-1 single mean-1; do
    paste <(grep '"kind":"train"' big/log.jsonl | field grad_norm) <(grep '"kind":"train"' $run/log.jsonl | field grad_norm) |
        awk '{ d = $1 / $2 - 1; if (d < 0) d = -d; if (d > most) most = d } END { exit !(NR == 10 && most < 1e-4) }'
    equal $? 0 "gradient norms of $run beside one big pass"
done

# Killed and resumed on another number of ranks.
export COHORT_FAULT=step.end:7=kill
ranks 2 train "${common[@]}" parallel.reproducible=any model.chunk_pooling=mean checkpoint.every=3 out=resumed
unset COHORT_FAULT
must 3 train "${common[@]}" parallel.reproducible=any model.chunk_pooling=mean checkpoint.every=3 out=resumed
said "resuming resumed at step 6 of 10"
agrees resumed mean-1

# A trained folder knows how it was trained: predict, on any ranks, from text and from a prepared file, gives what eval scores.
must 1 predict model.path=max-1/best data.input=train.tsv data.text=text data.id=id out=max.jsonl
must 3 predict model.path=max-1/best data.input=train.tsv data.text=text data.id=id out=max-3.jsonl
same max-3.jsonl max.jsonl
equal "$(wc -l <max.jsonl)" 26 "lines of predictions"
must 1 predict model.path=max-1/best data.input=train.tsv data.text=text data.id=id data.long=truncate out=cut.jsonl
equal "$(cmp -s cut.jsonl max.jsonl && echo same || echo different)" different "predictions of cut texts"
short='"id":"long(0|1|12)"'
equal "$(grep -cE "$short" max.jsonl) $(diff <(grep -E "$short" max.jsonl) <(grep -E "$short" cut.jsonl) | wc -l)" "3 0" "short texts, lines of them that differ"
must 1 prepare model.path=model data.input=train.tsv data.text=text data.label=label data.id=id out=train.h5
must 1 eval model.path=max-1/best data.input=train.tsv data.text=text data.label=label out=text.json
must 2 eval model.path=max-1/best data.input=train.h5 out=prepared.json
same prepared.json text.json

# Folds; copies are looked for in whole texts.
must 2 train "${common[@]}" parallel.reproducible=any cv.folds=2 cv.kind=kfold cv.group_ranks=1 out=cv-2
must 1 train "${common[@]}" parallel.reproducible=any cv.folds=2 cv.kind=kfold out=cv-1
same cv-2/oof.tsv cv-1/oof.tsv
equal "$(tail -n +2 cv-1/oof.tsv | wc -l)" 26 "rows with scores"

must 1 check "${common[@]}" out=none
said "data.train +26 rows, [0-9]+ split into [0-9]+ chunks, the longest into 125; of [0-9]+ tokens [0-9]+ in none, [0-9]+ read twice"

must 1 inspect max-1/best
said 'trained by +cohort: pooling pooler, 64 tokens a row; texts in chunks of 16, one every 12'
must 2 train "${common[@]}" 'search.data.chunk_size=[16,30]' data.stride=8 cv.folds=2 cv.kind=kfold out=searched
said 'chunk_size'
must 1 baseline "${common[@]}" model.from_scratch=false model.path=mean-1/best data.long=auto data.chunk_size=0 data.stride=0 \
    baseline.kinds=embeddings cv.folds=2 cv.kind=kfold out=baseline

refused 78 'data.stride=17, wanted 1 to data.chunk_size=16' 1 train "${common[@]}" data.stride=17 out=x
refused 78 'data.chunk_size=63, wanted 1 to 62' 1 train "${common[@]}" data.chunk_size=63 out=x
refused 78 'data.min_chunk=17, wanted 1 to data.chunk_size=16' 1 train "${common[@]}" data.min_chunk=17 out=x
refused 78 'data.chunk_size is given, but texts are not read in chunks' 1 train "${common[@]}" data.long=truncate out=x
refused 78 'pairs of texts, and data.long=chunk splits single ones' 1 train "${common[@]}" data.pair=pair out=x
finish
