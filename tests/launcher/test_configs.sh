#!/usr/bin/env bash
# Every file of configs/ runs to its end as it is, on small data of the shape it is written for; only sizes are set here.
configs=$(cd "$(dirname "$0")/../../configs" && pwd)
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data rows.tsv 48 3
# columns FILE LABELS NAMES...: rows as CSV with other columns: id, label of so many classes, and texts.
columns() {
    local file=$1 labels=$2
    shift 2
    awk -F'\t' -v labels="$labels" -v names="$*" 'NR == 1 { head = names; gsub(" ", ",", head); print head; next }
        { n = split(names, name, " "); line = ""
          for (i = 1; i <= n; i++) {
              value = name[i] ~ /^(label|genre|class-att)$/ ? substr("abc", NR % labels + 1, 1) : name[i] == "id" ? "e" NR : name[i] == "sentence2" ? $5 : $4
              if (name[i] == "label" && labels == 2) value = NR % 2
              line = line (i > 1 ? "," : "") value }
          print line }' rows.tsv >"$file"
}
columns essays.csv 2 id text label
columns pairs.csv 2 sentence1 sentence2 label
columns blurbs.csv 3 blurb genre
columns reuters.csv 2 Text class-att
small=(log.level=warning train.max_steps=4 data.max_length=32 train.batch_size=8 data.cache=cache)
scratch=("${small[@]}" model.path=model model.from_scratch=true)
ran=""

# runs NAME RANKS COMMAND KEYS...: the configuration, with these keys
runs() {
    local name=$1 n=$2 command=$3
    shift 3
    must "$n" $command "$configs/$name.cfg" "$@" out="runs/$name"
    ran="$ran $name"
}
runs tiny 1 train "${scratch[@]}" data.train=essays.csv
runs reuters-cv 2 train "${scratch[@]}" data.train=reuters.csv
runs long-texts 2 train "${scratch[@]}" data.train=essays.csv data.eval=essays.csv data.chunk_size=12 data.stride=6
runs pairs-mrpc 2 train "${scratch[@]}" data.train=pairs.csv data.eval=pairs.csv
runs imdb-loop 1 train "${scratch[@]}" data.train=essays.csv data.eval=essays.csv
runs imdb-trainer 1 train "${scratch[@]}" data.train=essays.csv data.eval=essays.csv
runs essays-tfidf 2 baseline data.train=essays.csv log.level=warning
must 1 train model.path=model model.from_scratch=true "${small[@]}" data.train=essays.csv data.text=text data.label=label out=encoder
runs essays-embeddings 2 baseline data.train=essays.csv model.path=encoder/best data.max_length=32 log.level=warning
runs essays-deberta 2 train "${scratch[@]}" data.train=essays.csv data.eval=essays.csv eval.every=2
must 1 predict model.path=runs/essays-deberta/best data.input=essays.csv data.text=text data.id=id predict.score_column=generated out=submission.csv
equal "$(head -n 1 submission.csv) $(wc -l <submission.csv)" "id,generated 49" "the submission"
runs essays-cv 2 train "${scratch[@]}" data.train=essays.csv
runs essays-tokenizer 1 "tokenizer train" data.input=essays.csv tokenizer.vocab_size=300
runs book-blurbs 2 train "${scratch[@]}" data.train=blurbs.csv data.test=blurbs.csv train.epochs=2

for file in "$configs"/*.cfg; do # none is forgotten
    name=$(basename "$file" .cfg)
    checks=$((checks + 1))
    case "$ran " in *" $name "*) ;; *) fail "$file is not run here" ;; esac
done
finish
