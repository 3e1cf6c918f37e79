#!/usr/bin/env bash
# prepare: the same bytes on any number of ranks and from compressed text; row selection; training from the prepared
# file and from the text is the same run.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 3000 3
printf 'e0\tg0\tclass0\t\t\n' >>train.tsv
columns=(model.path=model data.text=text data.label=label)
all=("${columns[@]}" data.group=group data.id=id data.pair=pair)

must 1 prepare "${all[@]}" data.input=train.tsv out=1.h5
said '3001 rows'
for n in 2 3 7; do
    must $n prepare "${all[@]}" data.input=train.tsv out=$n.h5
    same $n.h5 1.h5
done
must 1 prepare "${all[@]}" data.input=train.tsv parallel.threads=2 out=threads.h5
same threads.h5 1.h5
equal "$(ls -d ./*.h5.tmp* 2>/dev/null)" "" "left-over files"
equal "$(head -c 3 1.h5 | tail -c 2)" HD "the file's first letters"

# Compressed text: its bytes are other ones, so the source's hash differs, and nothing else may.
# rows_of FILE: what a model sees of a prepared file
rows_of() { must 1 inspect "$1"; grep -vE "source|hash|$1|bytes" said; }
head -n 401 train.tsv >part.tsv
must 1 prepare "${columns[@]}" data.input=part.tsv out=part.h5
if command -v gzip >/dev/null; then
    gzip -k part.tsv
    must 2 prepare "${columns[@]}" data.input=part.tsv.gz out=gz.h5
    rows_of gz.h5 >found
    rows_of part.h5 >wanted
    same found wanted
fi
if command -v zstd >/dev/null; then
    zstd -q -k part.tsv
    must 2 prepare "${columns[@]}" data.input=part.tsv.zst out=zst.h5
    rows_of zst.h5 >found
    same found wanted
fi

# Times and folds.
awk -F'\t' -v OFS='\t' 'NR == 1 { print $0, "when", "part"; next } { print $0, "2024-03-" (NR % 20 + 10), (NR % 3 ? "f" NR % 3 : "") }' part.tsv >timed.tsv
must 1 prepare "${columns[@]}" data.input=timed.tsv data.time=when data.fold=part out=timed-1.h5
must 3 prepare "${columns[@]}" data.input=timed.tsv data.time=when data.fold=part out=timed-3.h5
same timed-3.h5 timed-1.h5
must 1 inspect timed-1.h5
said '^  columns +text, label, time, fold \(3 values\)$'
refused 65 'row 0: time "g[0-9]+" is neither a number nor a date' 2 prepare "${columns[@]}" data.input=timed.tsv data.time=group out=none.h5

# Selection.
must 1 prepare "${columns[@]}" data.input=part.tsv 'data.where=label=class1' out=where.h5
said "$(awk -F'\t' '$3 == "class1"' part.tsv | wc -l) rows"
must 3 prepare "${columns[@]}" data.input=part.tsv 'data.where=label!=class1 and group=g7' out=where2.h5
said "$(awk -F'\t' 'NR > 1 && $3 != "class1" && $2 == "g7"' part.tsv | wc -l) rows"
must 2 prepare "${columns[@]}" data.input=part.tsv data.limit=10 out=limit.h5
said '10 rows'
must 7 prepare "${columns[@]}" data.input=part.tsv data.rows=0-2,100 out=rows.h5
said '4 rows'
must 1 prepare "${columns[@]}" data.input=part.tsv data.max_words=1 out=words.h5
said '400 rows, 400 tokens'
# What selects rows of text is refused for a prepared file, not ignored.
for key in data.limit=2 data.where=id=r1 data.rows=0-1 data.max_words=1; do
    refused 78 "${key%%=*} (selects|cuts) rows of text; words.h5 is prepared: select when preparing" 2 \
        train model.path=model model.from_scratch=true data.train=words.h5 "$key" out=none
done
refused 65 'no rows left after selection' 3 prepare "${columns[@]}" data.input=part.tsv data.where=label=none out=none.h5
refused 78 'wat' 1 prepare "${columns[@]}" data.input=part.tsv data.where=wat=1 out=none.h5
refused 78 'data.rows|rows' 1 prepare "${columns[@]}" data.input=part.tsv data.rows=5-x out=none.h5
equal "$(ls none.h5* 2>/dev/null)" "" "files of refused runs"

# Training from the text and from the prepared file; the cache is used the second time.
train=(model.from_scratch=true train.batch_size=32 train.max_steps=4 train.precision=fp32 optim.lr=1e-3 log.every=1
       log.hash_every=1 parallel.threads=1)
must 2 train "${columns[@]}" "${train[@]}" data.train=part.tsv out=text
said 'prepared part.tsv'
must 2 train model.path=model "${train[@]}" data.train=part.h5 out=prepared
course text >found
course prepared >wanted
same found wanted
same text/best/model.safetensors prepared/best/model.safetensors
must 2 train "${columns[@]}" "${train[@]}" data.train=part.tsv data.cache=text/data out=cached
checks=$((checks + 1))
grep -q 'prepared part.tsv' said && fail "the prepared file in data.cache was made again"
same text/best/model.safetensors cached/best/model.safetensors
sed -i '2s/w/W/' part.tsv # upper case is the same text to this tokenizer, but it is another file
must 2 train "${columns[@]}" "${train[@]}" data.train=part.tsv data.cache=text/data out=changed
said 'prepared part.tsv'

# A prepared file is for one tokenizer.
cp -r model other
sed -i 's/^w7$/v7/' other/vocab.txt
refused 65 'another tokenizer' 2 train model.path=other "${train[@]}" data.train=part.h5 out=other-run
finish
