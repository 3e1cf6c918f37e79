#!/usr/bin/env bash
# predict, eval and the tokenizer on a trained folder: every row once and in order, in every format, with the same bytes
# on any number of ranks; eval repeats what training measured.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 60 3
make_data valid.tsv 30 3 5
common=(model.from_scratch=true data.train=train.tsv data.eval=valid.tsv data.text=text data.label=label
        data.cache=cache train.batch_size=16 train.epochs=1 train.precision=fp32 optim.lr=2e-3 parallel.threads=1)
must 2 train model.path=model "${common[@]}" out=a
score=(model.path=a/best train.precision=fp32 data.text=text parallel.threads=1)

# The same rows as TSV, CSV and JSONL, with an empty text, a long one, and awkward characters.
python3 - <<'PY'
import csv, json
rows = [l.rstrip("\n").split("\t") for l in open("valid.tsv")][1:]
texts = [r[3] for r in rows]
texts[4] = ""
texts[9] = " ".join("w%d" % i for i in range(150))
texts[11] = 'a "quoted" text, with commas'
texts[12] = "Ünïcode 中文 \U0001f600 w1"
with open("in.tsv", "w", encoding="utf-8") as t, open("in.jsonl", "w", encoding="utf-8") as j, \
        open("in.csv", "w", encoding="utf-8", newline="") as c:
    w = csv.writer(c)
    w.writerow(["id", "text"])
    t.write("id\ttext\n")
    for r, text in zip(rows, texts):
        t.write(r[0] + "\t" + text + "\n")
        w.writerow([r[0], text])
        j.write(json.dumps({"id": r[0], "text": text}) + "\n")
PY
must 1 predict "${score[@]}" data.input=in.tsv out=tsv.jsonl
must 3 predict "${score[@]}" data.input=in.tsv out=three.jsonl
must 7 predict "${score[@]}" data.input=in.tsv eval.batch_tokens=64 out=seven.jsonl
must 1 predict "${score[@]}" data.input=in.csv out=csv.jsonl
must 1 predict "${score[@]}" data.input=in.jsonl out=jsonl
must 1 predict "${score[@]}" data.input=in.tsv parallel.threads=2 out=threads.jsonl
for other in three.jsonl seven.jsonl csv.jsonl jsonl threads.jsonl; do
    same $other tsv.jsonl
done
"$cohort" predict "${score[@]}" data.input=in.tsv out=- >dash 2>said || fail "predict with out=-"
same dash tsv.jsonl
"$cohort" predict "${score[@]}" data.input=- data.format=tsv out=- <in.tsv >dash 2>said || fail "predict from standard input"
same dash tsv.jsonl
"$cohort" predict "${score[@]}" data.input=- <in.jsonl >dash 2>said || fail "predict of JSONL from standard input"
same dash tsv.jsonl
must 1 predict "${score[@]}" data.input=in.tsv data.id=id out=out.tsv
must 1 predict "${score[@]}" data.input=in.jsonl data.id=id out=out.csv
must 1 predict "${score[@]}" data.input=in.csv data.id=id predict.score_column=generated out=sub.csv
must 2 predict "${score[@]}" data.input=in.tsv 'data.where=id!=r3' data.limit=6 out=some.jsonl
refused 78 'rank' 2 predict "${score[@]}" data.input=- out=none.jsonl
python3 - <<'PY' 2>said || fail "the predictions"
import csv, json, math, struct
rows = [json.loads(l) for l in open("tsv.jsonl")]
assert [r["row"] for r in rows] == list(range(30))
labels = ["class0", "class1", "class2"]
f32 = lambda x: struct.unpack("f", struct.pack("f", x))[0]
for r in rows:
    assert set(r) == {"row", "label", "scores", "logits"}, r
    assert r["label"] == labels[r["logits"].index(max(r["logits"]))]
    total = sum(math.exp(z) for z in r["logits"])
    assert all(abs(math.exp(z) / total - s) < 1e-6 for z, s in zip(r["logits"], r["scores"]))
t = list(csv.DictReader(open("out.tsv"), delimiter="\t"))
c = list(csv.DictReader(open("out.csv")))
s = list(csv.reader(open("sub.csv")))
assert s[0] == ["id", "generated"] and len(s) == 31
for i, r in enumerate(rows):
    for other in t[i], c[i]:
        assert other["row"] == str(i) and other["id"] == "r%d" % i and other["label"] == r["label"]
        assert [f32(float(x)) for x in other["logits"].split()] == [f32(x) for x in r["logits"]]
    assert s[i + 1][0] == "r%d" % i and f32(float(s[i + 1][1])) == f32(r["scores"][2])
assert [json.loads(l)["row"] for l in open("some.jsonl")] == [0, 1, 2, 4, 5, 6]
assert [json.loads(l)["logits"] for l in open("some.jsonl")] == [rows[i]["logits"] for i in (0, 1, 2, 4, 5, 6)]
PY
checks=$((checks + 1))
printf 'id\ttext\n' >none.tsv
must 1 predict "${score[@]}" data.input=none.tsv out=none.jsonl
equal "$(wc -c <none.jsonl)" 0 "the bytes predicted for a header without rows"

# eval measures what training measured.
must 1 eval "${score[@]}" data.input=valid.tsv data.label=label out=eval.json
must 3 eval "${score[@]}" data.input=valid.tsv data.label=label out=eval-3.json
same eval-3.json eval.json
must 1 prepare model.path=model data.input=valid.tsv data.text=text data.label=label out=valid.h5
must 2 eval "${score[@]}" data.input=valid.h5 out=eval-h5.json
same eval-h5.json eval.json
python3 - <<'PY' 2>said || fail "eval.json and results.json"
import json
e, r = json.load(open("eval.json")), json.load(open("a/results.json"))
assert e["metrics"] == r["metrics"], (e["metrics"], r["metrics"])
assert e["metrics"]["accuracy"] == r["score"]
PY
checks=$((checks + 1))
# The score is of the metric that is asked for, else of the one that the model was trained with.
must 2 train model.path=model "${common[@]}" eval.metric=macro_f1 out=macro
for metric in micro_f1 macro_f1 ''; do
    must 1 eval "${score[@]}" model.path=macro/best data.input=valid.tsv data.label=label eval.metric=$metric out=metric.json
    python3 - "${metric:-macro_f1}" <<'PY' 2>said || fail "eval.metric=$metric"
import json, sys
e = json.load(open("metric.json"))
assert e["metric"] == sys.argv[1] and e["score"] == e["metrics"][sys.argv[1]], e
PY
done
refused 78 'eval.metric=f1 is of two classes, this data has 3' 2 eval "${score[@]}" data.input=valid.tsv data.label=label eval.metric=f1 out=no.json
refused 78 'eval.metric=pearson does not fit classes' 1 eval "${score[@]}" data.input=valid.tsv data.label=label eval.metric=pearson out=no.json
{ cat valid.tsv; printf 'x\tg0\tclass9\tw1\tw2\n'; } >unseen.tsv
refused 65 'row 30 .*class9' 2 eval "${score[@]}" data.input=unseen.tsv data.label=label out=no.json
refused 65 'row 30 .*class9' 2 train model.path=model "${common[@]}" data.eval=unseen.tsv out=unseen

# A model that was not trained for a task: predict says so, train draws a head.
python3 - <<'PY'
import json, os, shutil, struct
shutil.copytree("a/best", "base")
b = open("a/best/model.safetensors", "rb").read()
n = struct.unpack("<Q", b[:8])[0]
old, new, data = json.loads(b[8:8 + n]), {}, b""
for name, t in sorted(((k, v) for k, v in old.items() if k != "__metadata__"), key=lambda x: x[1]["data_offsets"]):
    if not name.startswith("classifier."):
        begin, end = t["data_offsets"]
        new[name.replace("bert.", "", 1)] = dict(t, data_offsets=[len(data), len(data) + end - begin])
        data += b[8 + n + begin:8 + n + end]
head = json.dumps(new).encode()
os.remove("base/model.safetensors")
open("base/model.safetensors", "wb").write(struct.pack("<Q", len(head)) + head + data)
config = {k: v for k, v in json.load(open("a/best/config.json")).items() if k not in ("id2label", "label2id", "cohort")}
os.remove("base/config.json")
json.dump(config, open("base/config.json", "w"))
PY
refused 65 'no classification head' 1 predict "${score[@]}" model.path=base data.input=in.tsv out=none.jsonl
refused 66 'model.safetensors' 1 predict "${score[@]}" model.path=model data.input=in.tsv out=none.jsonl
must 2 train "${common[@]}" model.path=base model.from_scratch=false out=from-base
said 'a new head of 3 outputs is drawn'
must 2 train "${common[@]}" model.path=a/best model.from_scratch=false out=from-best
said 'loaded with their head'

# Pairs: the second text counts.
pairs=(data.pair=pair)
must 1 train model.path=model "${common[@]}" "${pairs[@]}" out=pair
must 1 predict "${score[@]}" model.path=pair/best data.input=valid.tsv "${pairs[@]}" out=pair.jsonl
must 3 predict "${score[@]}" model.path=pair/best data.input=valid.tsv "${pairs[@]}" out=pair-3.jsonl
must 1 predict "${score[@]}" model.path=pair/best data.input=valid.tsv out=single.jsonl
same pair.jsonl pair-3.jsonl
checks=$((checks + 1))
cmp -s pair.jsonl single.jsonl && fail "the second text changes nothing"

# Encode and decode.
must 1 tokenizer encode model.path=model data.input=in.tsv data.text=text out=ids.jsonl
must 1 tokenizer encode model.path=model data.input=valid.tsv data.text=text data.pair=pair data.max_length=12 out=short.jsonl
must 1 tokenizer decode model.path=model data.input=ids.jsonl out=text.jsonl
python3 - <<'PY' 2>said || fail "ids"
import json
vocab = {w.rstrip("\n"): i for i, w in enumerate(open("model/vocab.txt"))}
rows = [json.loads(l) for l in open("ids.jsonl")]
texts = [l.rstrip("\n").split("\t")[1] for l in open("in.tsv", encoding="utf-8")][1:]
back = [json.loads(l) for l in open("text.jsonl")]
assert [r["row"] for r in rows] == list(range(30)) == [b["row"] for b in back]
assert rows[4]["ids"] == [vocab["[CLS]"], vocab["[SEP]"]]
assert len(rows[9]["ids"]) == 64
for r, text, b in zip(rows, texts, back):
    if r["row"] not in (9, 11, 12):
        assert r["ids"] == [vocab["[CLS]"]] + [vocab[w] for w in text.split()] + [vocab["[SEP]"]], r
        assert text in b["text"], (b, text)
for line in open("short.jsonl"):
    ids = json.loads(line)["ids"]
    assert len(ids) <= 12 and ids[0] == vocab["[CLS]"] and ids.count(vocab["[SEP]"]) == 2 and ids[-1] == vocab["[SEP]"]
PY
checks=$((checks + 1))
# ---- behind a pipe: each line is answered before the next is there
mkfifo lines
: >answers
"$cohort" predict model.path=a/best data.input=- data.text=text log.level=error <lines 2>said > >(cat >answers) &
reader=$!
exec 3>lines
for i in 1 2 3; do
    printf '{"text":"a%s w%s"}\n' "$i" "$i" >&3
    for _ in $(seq 400); do
        [ "$(wc -l <answers)" -ge "$i" ] && break
        sleep 0.05
    done
    equal "$(wc -l <answers)" "$i" "answers after $i lines"
done
exec 3>&-
wait "$reader"
equal $? 0 "predict behind a pipe"

# ---- vectors: one rank and three, lines and HDF5, of length 1
must 1 embed model.path=a/best data.input=train.tsv data.text=text data.id=id out=vectors.jsonl
must 3 embed model.path=a/best data.input=train.tsv data.text=text data.id=id out=vectors-3.jsonl
same vectors-3.jsonl vectors.jsonl
must 2 embed model.path=a/best data.input=train.tsv data.text=text data.id=id out=vectors.h5
must 1 embed model.path=a/best data.input=train.tsv data.text=text embed.pooling=cls embed.normalize=false out=cls.jsonl
python3 - <<'PY' || fail "the vectors"
import json, math
rows = [json.loads(line) for line in open("vectors.jsonl")]
cls = [json.loads(line) for line in open("cls.jsonl")]
assert len(rows) == len(cls) == sum(1 for _ in open("train.tsv")) - 1
assert all(r["row"] == i and r["id"] == f"r{i}" and len(r["vector"]) == 32 for i, r in enumerate(rows)), rows[0]
assert all(abs(math.hypot(*r["vector"]) - 1) < 1e-5 for r in rows)
assert any(abs(math.hypot(*r["vector"]) - 1) > 1e-2 for r in cls) and "id" not in cls[0]
import array  # the values of /vectors stand in the file as they are
data, wanted = open("vectors.h5", "rb").read(), array.array("f", [x for r in rows for x in r["vector"]]).tobytes()
assert wanted in data
PY
refused 66 'no such file or folder' 1 embed model.path=a/best data.input=nothing.tsv data.text=text out=x.jsonl
refused 78 'data.input=- reaches rank 0 only' 2 embed model.path=a/best data.input=- data.text=text
finish
