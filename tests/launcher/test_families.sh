#!/usr/bin/env bash
# Every family from the command line: trained from scratch, on other numbers of ranks and in passes of other sizes the same
# bits, resumed, and what was saved is a model that predicts. Numbers are compared with transformers by
# scripts/test-long families; here is only what ranks, cuts and files may break.
. "$(dirname "$0")/../support/run.sh"

make_data train.tsv 40 3
printf 'e0\tg0\tclass0\t\t\n' >>train.tsv                                          # an empty text
printf 'e1\tg0\tclass2\t%s\t\n' "$(seq -s' ' -f 'w%.0f' 0 99)" >>train.tsv         # more words than the model takes

# family NAME CONFIGURATION: a folder with make_model's vocabulary and sizes
family() {
    make_model "$1"
    python3 - "$1/config.json" "$2" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))
config.update(json.loads(sys.argv[2]), initializer_range=0.2)
json.dump(config, open(sys.argv[1], "w"))
PY
}
deberta='"model_type": "deberta-v2", "type_vocab_size": 0, "relative_attention": true, "position_biased_input": false,
    "pos_att_type": "p2c|c2p", "position_buckets": 16, "norm_rel_ebd": "layer_norm", "vocab_size": 200'
family distilbert '{"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "dropout": 0.1}'
family roberta '{"model_type": "roberta", "type_vocab_size": 1}'
family electra '{"model_type": "electra", "embedding_size": 24}'
family deberta-v3 "{$deberta, \"share_att_key\": true}"
family deberta-v2 "{$deberta, \"share_att_key\": false, \"conv_kernel_size\": 3, \"conv_act\": \"gelu\"}"

# agrees A B: two runs took the same course to the same bytes.
agrees() {
    course "runs/$1" >found
    course "runs/$2" >wanted
    checks=$((checks + 1))
    { [ -s wanted ] && cmp -s found wanted; } || fail "$1 and $2 part: $(diff wanted found | head -n 4 | tr '\n' ' ')"
    same "runs/$1/best/model.safetensors" "runs/$2/best/model.safetensors"
}

common=(model.from_scratch=true data.train=train.tsv data.text=text data.label=label data.cache=cache train.batch_size=8
        train.max_steps=4 train.precision=fp32 optim.lr=1e-3 log.every=1 log.hash_every=1 parallel.threads=1)
any=(parallel.reproducible=any)
for name in distilbert roberta electra deberta-v3 deberta-v2; do
    must 1 train model.path=$name "${common[@]}" "${any[@]}" out="runs/$name"
    must 3 train model.path=$name "${common[@]}" "${any[@]}" train.recompute=true out="runs/$name-3"
    agrees "$name-3" "$name"
    must 1 predict model.path="runs/$name/best" data.input=train.tsv data.text=text out="$name.jsonl"
    equal "$(wc -l <"$name.jsonl")" 42 "the number of predictions of $name"
done

# DeBERTa's table of positions follows the cut: passes of one row or of many, threads, seven ranks, and resumed.
for name in deberta-v3 deberta-v2; do
    must 2 train model.path=$name "${common[@]}" "${any[@]}" train.micro_tokens=16 out="runs/$name-micro"
    agrees "$name-micro" "$name"
    must 1 train model.path=$name "${common[@]}" "${any[@]}" parallel.threads=3 out="runs/$name-threads"
    agrees "$name-threads" "$name"
done
must 7 train model.path=deberta-v3 "${common[@]}" "${any[@]}" out=runs/seven
agrees seven deberta-v3
must 2 train model.path=deberta-v3 "${common[@]}" "${any[@]}" checkpoint.every=2 out=runs/resumed
rm -r runs/resumed/checkpoint-4 runs/resumed/best runs/resumed/results.json
must 3 train model.path=deberta-v3 "${common[@]}" "${any[@]}" checkpoint.every=2 out=runs/resumed
same runs/resumed/best/model.safetensors runs/deberta-v3/best/model.safetensors

# Rows beyond max_position_embeddings: where there is no table of positions.
must 1 train model.path=deberta-v3 "${common[@]}" data.max_length=90 train.max_steps=1 out=runs/longer
refused 78 'more than the 64 positions' 1 train model.path=electra "${common[@]}" data.max_length=90 out=runs/electra-longer

# The head's rate holds for all that transformers keeps beside its base model: a dense layer and the classifier.
must 1 check model.path=roberta "${common[@]}" optim.head_lr=0.5 out=none
said 'head, decays +2 +1120 +0.5'
must 1 check model.path=distilbert "${common[@]}" optim.head_lr=0.5 out=none
said 'head, no decay +2 +35 +0.5'

# edit FROM TO CODE: a folder whose tensors (a dict of name, dtype, shape, bytes) and config.json Python code has changed
edit() {
    rm -rf "$2"
    cp -r "$1" "$2"
    python3 - "$2" "$3" <<'PY' || fail "editing $2"
import json, struct, sys
path = sys.argv[1] + "/model.safetensors"
data = open(path, "rb").read()
n, = struct.unpack("<Q", data[:8])
head = json.loads(data[8:8 + n])
head.pop("__metadata__", None)
tensors = {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]) for k, v in head.items()}
config = json.load(open(sys.argv[1] + "/config.json"))
exec(sys.argv[2])
head, body = {}, b""
for k, (dtype, shape, value) in tensors.items():
    head[k] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(value)]}
    body += value
head = json.dumps(head).encode()
open(path, "wb").write(struct.pack("<Q", len(head)) + head + body)
json.dump(config, open(sys.argv[1] + "/config.json", "w"))
PY
}
score=(data.input=train.tsv data.text=text out=scores.jsonl)
# A model is used as it was trained, or not at all: the dense layer before the classifier is no matter of luck.
edit runs/distilbert/best no-dense 'del tensors["pre_classifier.weight"]'
refused 65 'no-dense lacks pre_classifier.weight, which its head reads' 1 predict model.path=no-dense "${score[@]}"
refused 65 'no-dense lacks pre_classifier.weight' 2 eval model.path=no-dense "${score[@]}" data.label=label
edit runs/roberta/best no-head 'del tensors["classifier.out_proj.weight"]'
refused 65 'no classification head .classifier.out_proj.weight is missing.' 1 predict model.path=no-head "${score[@]}"
edit runs/roberta/best bad-pooling 'config["cohort"]["pooling"] = "attention"'
refused 65 '"cohort" has the pooling "attention", wanted cls, pooler, mean or max' 1 predict model.path=bad-pooling "${score[@]}"
# The heads of a tagger are skipped, whatever its labels are called; it does not classify texts.
for name in roberta electra; do
    class=$([ $name = roberta ] && echo Roberta || echo Electra)ForTokenClassification
    edit runs/$name/best tagger-$name "config['architectures'] = ['$class']; del config['cohort']
for k in [k for k in tensors if k.startswith('classifier.')]: del tensors[k]
tensors['classifier.weight'] = ('F32', [3, 32], bytes(384)); tensors['classifier.bias'] = ('F32', [3], bytes(12))"
    must 1 train model.path=tagger-$name "${common[@]}" model.from_scratch=false out=runs/tagger-$name
    said '2 of other tasks skipped; a new head of 3 outputs is drawn'
    refused 65 "was saved by $class, whose head does not classify texts" 1 predict model.path=tagger-$name "${score[@]}"
done
# Names that are none of 0 to n - 1 do not matter to training.
edit runs/roberta/best odd-labels 'config["id2label"] = {"1": "a", "2": "b", "7": "c"}; del config["cohort"]'
must 1 train model.path=odd-labels "${common[@]}" model.from_scratch=false out=runs/odd-labels
said 'none for 0 .odd-labels/config.json.; the model.s labels are called LABEL_0'
# Sines are drawn, and not trained.
family waves '{"model_type": "distilbert", "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64, "sinusoidal_pos_embds": true}'
must 2 train model.path=waves "${common[@]}" "${any[@]}" out=runs/waves
edit runs/waves/best waves-read 'import array, math
table = array.array("f", tensors["distilbert.embeddings.position_embeddings.weight"][2])
assert all(abs(table[p * 32 + c] - (math.cos if c % 2 else math.sin)(p / 10000 ** (c // 2 / 16))) < 1e-6 for p in range(64) for c in range(32))'

# More words than the model has embeddings: refused, or drawn beside the old ones, which stay as they are.
cp -r runs/deberta-v3/best grown
seq -f 'new%.0f' 10 >>grown/vocab.txt
tuned=("${common[@]}" model.from_scratch=false train.max_steps=1 optim.lr=1e-35 out=runs/grown)
refused 65 'the tokenizer has 205 ids, the model.s vocabulary only 200; model.resize_embeddings=true' 1 train model.path=grown "${tuned[@]}"
must 2 train model.path=grown "${tuned[@]}" model.resize_embeddings=true
said 'embeddings of 5 new ids are drawn from the seed'
python3 - runs/deberta-v3/best runs/grown/best <<'PY' || fail "the embeddings of a larger vocabulary"
import array, json, struct, sys
def table(folder):
    data = open(folder + "/model.safetensors", "rb").read()
    n, = struct.unpack("<Q", data[:8])
    t = json.loads(data[8:8 + n])["deberta.embeddings.word_embeddings.weight"]
    return t["shape"], array.array("f", data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
(old_shape, old), (shape, new) = table(sys.argv[1]), table(sys.argv[2])
assert old_shape == [200, 32] and shape == [205, 32], (old_shape, shape)
assert new[:len(old)] == old
drawn = new[len(old):]
assert 0.1 < (sum(x * x for x in drawn) / len(drawn)) ** 0.5 < 0.3, "initializer_range is 0.2"
assert json.load(open(sys.argv[2] + "/config.json"))["vocab_size"] == 205
PY
must 1 predict model.path=runs/grown/best data.input=train.tsv data.text=text out=grown.jsonl
finish
