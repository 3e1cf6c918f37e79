#!/usr/bin/env bash
# tokenizer train: known merges, the same files for any number of threads and ranks, text that comes back, sentences for
# what cannot be trained, and a model that is trained from scratch on the result. Beside Hugging Face: tests/long.
. "$(dirname "$0")/../support/run.sh"

# Words and their counts from Hugging Face's course: hug 10, pug 5, pun 12, bun 4, hugs 5.
{
    echo text
    for w in hug:10 pug:5 pun:12 bun:4 hugs:5; do
        yes "${w%:*}" | head -n "${w#*:}" | tr '\n' ' '
        echo
    done
} >course.tsv
must 1 tokenizer train data.input=course.tsv data.text=text tokenizer.model=bpe tokenizer.pre_tokenizer=whitespace \
    tokenizer.vocab_size=15 tokenizer.min_frequency=0 out=course
equal "$(sed 1d course/merges.txt | tr '\n' ',')" "u g,u n,h ug," "the first merges"
make_model model
cp model/config.json course
printf 'text\nbug\nmug\nhugs pun\n' >words.tsv
must 1 tokenizer encode model.path=course data.input=words.tsv data.text=text out=ids.jsonl
# specials 0 to 4; b 5, g 6, h 7, n 8, p 9, s 10, u 11, ug 12, un 13, hug 14; m is unknown
equal "$(field ids <ids.jsonl >/dev/null; grep -o '\[[0-9,]*\]' ids.jsonl | tr '\n' ' ')" "[2,5,12,3] [2,0,12,3] [2,14,10,9,13,3] " "the ids"

make_data train.tsv 400 3 9
printf 'x1\tg\tclass0\t%s\t\n' "Grüße, NAÏVE café 東京 ½ and the the the" >>train.tsv
for model in wordpiece bpe unigram; do
    train=(tokenizer train data.input=train.tsv data.text=text tokenizer.model=$model tokenizer.vocab_size=400)
    must 1 "${train[@]}" parallel.threads=1 out="$model"
    must 1 "${train[@]}" parallel.threads=3 out="$model-threads"
    must 2 "${train[@]}" out="$model-ranks"
    for file in "$model"/*; do
        same "$file" "$model-threads/${file##*/}"
        same "$file" "$model-ranks/${file##*/}"
    done
    checks=$((checks + 1))
    [ -s "$model/tokenizer.json" ] || fail "$model has no tokenizer.json"
    cp model/config.json "$model"
    printf 'text\na0 w1 a1\nw159 b2\n' >again.tsv
    must 1 tokenizer encode model.path="$model" data.input=again.tsv data.text=text out=ids.jsonl
    must 1 tokenizer decode model.path="$model" data.input=ids.jsonl out=text.jsonl
    equal "$(grep -o '"text":"[^"]*"' text.jsonl | sed 's/"text":"//; s/"$//; s/\[CLS\]//; s/\[SEP\]//; s/^ *//; s/ *$//' | tr '\n' ';')" \
        "a0 w1 a1;w159 b2;" "what $model makes of its ids"
    must 1 train model.path="$model" model.from_scratch=true data.train=train.tsv data.text=text data.label=label \
        train.batch_size=16 train.max_steps=3 train.precision=fp32 out="run-$model"
    refused 78 'holds a tokenizer' 1 "${train[@]}" out="$model"
    must 1 "${train[@]}" out="$model" overwrite=true
done

# A post_processor that places nothing, as of a tokenizer that was wrapped without one: no [CLS] and [SEP], as in transformers.
cp -r "$model" ends-none
python3 - ends-none/tokenizer.json <<'PY'
import json, sys
value = json.load(open(sys.argv[1]))
value["post_processor"] = None
json.dump(value, open(sys.argv[1], "w"))
PY
must 1 tokenizer encode model.path=ends-none data.input=again.tsv data.text=text out=none.jsonl
said 'places no special tokens, so texts get no .CLS. and .SEP.'
equal "$(python3 -c 'import json, sys
for a, b in zip(open("ids.jsonl"), open("none.jsonl")):
    print(json.loads(a)["ids"][1:-1] == json.loads(b)["ids"], end=" ")')" "True True " "ids without ends are those between them"
must 2 train model.path=ends-none model.from_scratch=true data.train=train.tsv data.text=text data.label=label \
    train.batch_size=16 train.max_steps=3 train.precision=fp32 out=run-ends-none
must 2 predict model.path=run-ends-none/best data.input=again.tsv data.text=text out=scores.jsonl
must 1 prepare model.path=ends-none data.input=train.tsv data.text=text data.label=label out=none.h5
must 1 inspect none.h5
said 'no .CLS. and .SEP.'
must 2 train model.path=ends-none model.from_scratch=true data.train=none.h5 \
    train.batch_size=16 train.max_steps=3 train.precision=fp32 out=run-prepared
same run-prepared/best/model.safetensors run-ends-none/best/model.safetensors
echo '{"text": ""}' >blank.jsonl
refused 65 'row 0 has no tokens' 1 predict model.path=run-ends-none/best data.input=blank.jsonl data.text=text out=x.jsonl

# The longest row is kept where it is given.
must 1 tokenizer train data.input=train.tsv data.text=text tokenizer.vocab_size=100 data.max_length=48 out=long
equal "$(python3 -c 'import json; print(json.load(open("long/tokenizer_config.json"))["model_max_length"])')" 48 model_max_length

small=(tokenizer train data.input=train.tsv data.text=text)
refused 78 'tokenizer.vocab_size is 10' 1 "${small[@]}" tokenizer.model=bpe tokenizer.vocab_size=10 out=none
refused 78 'special_tokens' 1 "${small[@]}" tokenizer.special_tokens=a,b out=none
printf 'text\n' >empty.tsv
refused 65 'empty.tsv|no text|no row|no word' 1 tokenizer train data.input=empty.tsv data.text=text out=none
refused 66 'missing.tsv' 1 tokenizer train data.input=missing.tsv data.text=text out=none
refused 66 'missing.tsv' 2 tokenizer train data.input=missing.tsv data.text=text out=none
refused 78 'out' 1 "${small[@]}"
checks=$((checks + 1))
[ ! -e none/tokenizer.json ] || fail "a refused training left a tokenizer"
finish
