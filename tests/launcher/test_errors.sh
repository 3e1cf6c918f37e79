#!/usr/bin/env bash
# Bad input and bad machines: one sentence that says what and where, the exit code of sysexits.h, and what was good stays.
. "$(dirname "$0")/../support/run.sh"

make_model model
make_data train.tsv 48 3
columns=(data.text=text data.label=label)
run=(train.batch_size=8 train.max_steps=12 train.precision=fp32 optim.lr=1e-3 checkpoint.every=2 log.every=1
     log.hash_every=1 parallel.reproducible=any parallel.threads=1)
scratch=("${run[@]}" model.path=model model.from_scratch=true)
must 1 prepare model.path=model data.input=train.tsv "${columns[@]}" out=train.h5
must 1 train "${scratch[@]}" data.train=train.h5 out=whole

# one_sentence: exactly one line is an error, and nothing crashed.
one_sentence() {
    checks=$((checks + 1))
    [ "$(grep -c 'cohort: error:' said)" = 1 ] || fail "not one error line but $(grep -c 'cohort: error:' said)"
    grep -qE 'Segmentation|Sanitizer|runtime error|HDF5-DIAG|signal [0-9]+ ' said && fail "it crashed"
}

# bad CODE PATTERN N ARGUMENTS...: as refused, with one sentence.
bad() {
    refused "$@"
    one_sentence
}

# ---- command line and configuration ----
bad 64 'no command "trian", did you mean train' 1 trian
bad 78 'optim.lr' 3 train optim.lrr=1
bad 78 'train.batch_size is "0"' 1 train train.batch_size=0
printf 'optim: {\n  lr = 1e-3;\n  larning_rate = 2;\n};\n' >bad.cfg
bad 78 'bad.cfg:3: ' 1 train bad.cfg
printf 'optim: { lr = ' >bad.cfg
bad 78 'bad.cfg:[12]: ' 1 train bad.cfg
printf '@include "/etc/passwd"\n' >bad.cfg
bad 78 'bad.cfg:1: ' 1 train bad.cfg
bad 66 'none.cfg' 1 train none.cfg
bad 64 '"resume" is neither key=value nor a configuration file' 3 train "${scratch[@]}" data.train=train.h5 out=no resume
bad 64 '"model" is neither' 1 predict model # a folder
bad 64 '"twice" is neither' 1 tokenizer encode twice model.path=model
printf 'train: { batch_size = 0; };\n' | tee one.cfg >my.conf
bad 78 'my.conf:1: train.batch_size' 1 train my.conf
bad 78 'one.cfg:1: train.batch_size' 1 tokenizer one.cfg encode
bad 64 '"my.conf" is a second configuration file beside "one.cfg"' 1 check one.cfg my.conf
bad 64 '"one.cfg" is a second' 2 train one.cfg one.cfg
bad 78 'there is no key "keys"' 1 train keys=markdown
bad 78 'log.level is "loud", wanted one of error' 1 check log.level=loud
ranks 2 train one.cfg out=no --help data.train=none
equal "$code $(head -1 said)" "0 $("$cohort" help train | head -1)" "train ... --help"
bad 78 'data.train' 1 train "${scratch[@]}" out=no
bad 66 'none.tsv' 3 train "${scratch[@]}" "${columns[@]}" data.train=none.tsv out=no
bad 78 'would need' 2 train "${scratch[@]}" data.train=train.h5 train.memory_limit_gb=0.001 out=no
said 'GB'
must 2 train "${scratch[@]}" data.train=train.h5 train.max_steps=1 out=no # the refused start is no run to protect
rm -r no

mkdir -p hf/checkpoint-1 hf/checkpoint-500
bad 78 'out=hf holds checkpoints that cohort did not write; give another out' 2 train "${scratch[@]}" data.train=train.h5 overwrite=true out=hf
equal "$(ls hf | tr '\n' ' ')" "checkpoint-1 checkpoint-500 " "a folder of another trainer"

# ---- text ----
bad 78 'has no column "body".*(id|group|label)' 1 train "${scratch[@]}" data.train=train.tsv data.text=body data.label=label out=no
: >empty.tsv
bad 65 'empty.tsv' 1 train "${scratch[@]}" "${columns[@]}" data.train=empty.tsv out=no
printf 'text\tlabel\n' >header.tsv
bad 65 'header.tsv: no rows' 1 train "${scratch[@]}" "${columns[@]}" data.train=header.tsv out=no
printf 'text\tlabel\na0\tx\ncaf\351\ty\n' >latin.tsv
bad 65 'latin.tsv.*(row|line)' 3 prepare model.path=model "${columns[@]}" data.input=latin.tsv out=no.h5
printf 'text\tlabel\na0\tx\na0\n' >short.tsv
bad 65 'short.tsv.*row 1' 1 prepare model.path=model "${columns[@]}" data.input=short.tsv out=no.h5
printf '{"text": "a0", "label": "x"}\n{"text": "a0", "label": \n' >bad.jsonl
bad 65 'bad.jsonl.*row 1' 2 prepare model.path=model "${columns[@]}" data.input=bad.jsonl out=no.h5
printf '"text","label"\n"a0","x"\n"a0,"y"\n' >bad.csv
bad 65 'bad.csv.*row 1' 1 prepare model.path=model "${columns[@]}" data.input=bad.csv out=no.h5
gzip -c train.tsv | head -c 500 >cut.tsv.gz
bad 65 'cut.tsv.gz' 1 prepare model.path=model "${columns[@]}" data.input=cut.tsv.gz out=no.h5
printf 'text\tlabel\na0\tx\na1\tx\n' >one.tsv
bad 65 'at least two' 1 train "${scratch[@]}" "${columns[@]}" data.train=one.tsv out=no
# A row of 10 MB is a row: it is cut like any other.
{ cat train.tsv; printf 'long\tg0\tclass0\t'; awk 'BEGIN { for (i = 0; i < 2600000; i++) printf "w%d ", i % 100; print "\tw1" }'; } >long.tsv
must 2 train "${scratch[@]}" "${columns[@]}" data.train=long.tsv train.max_steps=1 out=long
equal "$(ls -d no/checkpoint* no/log.jsonl no.h5* 2>/dev/null)" "" "files of refused runs"

# ---- prepared files ----
size=$(wc -c <train.h5)
for keep in 9 100 $((size / 3)) $((size / 2)) $((size - 1)); do
    head -c $keep train.h5 >cut.h5
    bad 65 'cut.h5' 1 train "${scratch[@]}" data.train=cut.h5 out=no
done
bad 65 'cut.h5' 3 train "${scratch[@]}" data.train=cut.h5 out=no
for place in 600 2500 $((size / 2)) $((size - 300)); do # no byte is trusted: refused, or not part of what is read
    cp train.h5 flip.h5
    printf '\377\377\377\377' | dd of=flip.h5 bs=1 seek=$place conv=notrunc status=none
    ranks 1 train "${scratch[@]}" data.train=flip.h5 train.max_steps=1 out=flip-$place
    checks=$((checks + 1))
    [ "$code" = 0 ] || [ "$code" = 65 ] || fail "exit code $code for a prepared file with other bytes at $place"
done

# ---- model folders ----
# spoil NAME: a copy of a trained folder, to be spoilt
spoil() {
    rm -rf "$1"
    cp -r whole/best "$1"
}
rm -rf no no.h5
spoil m && head -c 5000 whole/best/model.safetensors >m/model.safetensors
bad 65 'm/model.safetensors|^cohort: error: m: ' 1 train "${run[@]}" model.path=m data.train=train.h5 out=no
python3 - <<'PY'
import json, os, shutil, struct
b = open("whole/best/model.safetensors", "rb").read()
n = struct.unpack("<Q", b[:8])[0]
head = json.loads(b[8:8 + n])
names = [k for k in head if k != "__metadata__"]
def write(case, header, data=b[8 + n:], length=None):
    folder = "st-" + case
    shutil.copytree("whole/best", folder)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    os.remove(folder + "/model.safetensors")
    with open(folder + "/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text) if length is None else length) + text + data)
def changed(name, **values):
    return {k: dict(v, **values) if k == name else v for k, v in head.items()}
first, second = sorted(names, key=lambda k: head[k]["data_offsets"])[:2]
write("length", head, length=2 ** 63)
write("json", b"{" + b"[" * 200)
write("deep", b'{"a":' + b"[" * 100000)
write("overlap", changed(second, data_offsets=head[first]["data_offsets"]))
write("outside", changed(first, data_offsets=[0, 2 ** 62]))
write("negative", changed(first, shape=[-1, 4]))
write("overflow", changed(first, shape=[2 ** 40, 2 ** 40]))
write("dtype", changed(first, dtype="F33"))
write("missing", {k: v for k, v in head.items() if k != first})
write("behind", head, data=b[8 + n:] + b"xxxx")
for case, name, text in (("config", "config.json", b'{"model_type": "bert", '),
                         ("config-list", "config.json", b"[]"),
                         ("config-heads", "config.json", None), ("config-huge", "config.json", None),
                         ("vocab-empty", "vocab.txt", b""),
                         ("vocab-latin", "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncaf\xe9\n"),
                         ("vocab-long", "vocab.txt", None),
                         ("tokenizer", "tokenizer.json", b'{"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a": 9999999}}}')):
    folder = "file-" + case
    shutil.copytree("whole/best", folder)
    old = open("whole/best/" + name, "rb").read() if os.path.exists("whole/best/" + name) else b""
    if case == "config-heads":
        text = json.dumps(dict(json.loads(old), num_attention_heads=5)).encode()
    if case == "config-huge":
        text = json.dumps(dict(json.loads(old), hidden_size=2 ** 31 - 1, intermediate_size=2 ** 31 - 1)).encode()
    if case == "vocab-long":
        text = old + b"".join(b"x%d\n" % i for i in range(7000))
    if os.path.exists(folder + "/" + name):
        os.remove(folder + "/" + name)
    open(folder + "/" + name, "wb").write(text)
PY
for folder in st-* file-*; do
    rm -rf no
    refused 65 "$folder" 1 train "${run[@]}" model.path="$folder" data.train=train.tsv "${columns[@]}" data.cache=cache out=no
    one_sentence
done
bad 65 'st-overlap' 3 predict model.path=st-overlap data.input=train.tsv data.text=text out=no.jsonl
bad 66 'none' 2 predict model.path=none data.input=train.tsv data.text=text out=no.jsonl

# ---- faults in place of failing disks: every rank leaves, one says why ----
# faulty PLACE CODE N ARGUMENTS...
faulty() {
    export COHORT_FAULT=$1
    shift
    refused "$1" 'fault injected at' "${@:2}"
    unset COHORT_FAULT
    one_sentence
}
faulty data.read@1 74 3 train "${scratch[@]}" data.train=train.h5 out=fault-read
faulty data.read:7@1 74 3 train "${scratch[@]}" data.train=train.h5 out=fault-read
faulty data.open@2 74 3 train "${scratch[@]}" data.train=train.h5 out=fault-open
faulty data.text@1 74 3 prepare model.path=model data.input=train.tsv "${columns[@]}" out=fault.h5
faulty data.write 74 3 prepare model.path=model data.input=train.tsv "${columns[@]}" out=fault.h5
faulty data.write 74 3 predict model.path=whole/best data.input=train.tsv data.text=text out=fault.jsonl
equal "$(ls fault.h5* fault.jsonl* 2>/dev/null)" "" "files of runs that failed"
# One checkpoint that fails is a warning; the rank that failed is named.
export COHORT_FAULT=checkpoint.write:2@1
must 3 train "${scratch[@]}" data.train=train.h5 out=fault-save
unset COHORT_FAULT
said 'checkpoint-4 was not saved: rank 1: fault injected'
equal "$(grep -c 'checkpoint failed' fault-save/log.jsonl)" 1 "events in log.jsonl"
same fault-save/best/model.safetensors whole/best/model.safetensors
equal "$(ls -d fault-save/*.tmp 2>/dev/null)" "" "left-over folders"

# ---- a full disk: a limit on the size of files ----
export COHORT_FAULT=step.end:4=kill
ranks 1 train "${scratch[@]}" data.train=train.h5 out=full
unset COHORT_FAULT
cp -r full/checkpoint-4 before
limited() { # KIB ARGUMENTS...
    (ulimit -f "$1"; shift; "$cohort" "$@"; exit $?) >said 2>&1
    code=$?
    checks=$((checks + 1))
    [ "$code" = 74 ] || fail "exit code $code on a full disk, wanted 74"
    one_sentence
}
limited 300 train "${scratch[@]}" data.train=train.h5 out=full
equal "$(grep -c 'was not saved' said)" 2 "warnings before the run stops"
said 'too large|limit|space'
for file in model.safetensors optimizer.safetensors state.json manifest.json; do
    same full/checkpoint-4/$file before/$file
done
equal "$(ls full | grep -c tmp)" 0 "left-over folders on the full disk"
must 1 train "${scratch[@]}" data.train=train.h5 out=full
same full/best/model.safetensors whole/best/model.safetensors
make_data many.tsv 2000 3
limited 8 prepare model.path=model data.input=many.tsv "${columns[@]}" out=full.h5
limited 8 predict model.path=whole/best data.input=many.tsv data.text=text out=full.jsonl
limited 8 tokenizer encode model.path=model data.input=many.tsv data.text=text out=full.jsonl
equal "$(ls full.h5* full.jsonl* 2>/dev/null)" "" "files on the full disk"
checks=$((checks + 1))
"$cohort" predict model.path=whole/best data.input=many.tsv data.text=text >/dev/full 2>said
[ $? = 74 ] || fail "predict to /dev/full did not end with 74"

# ---- ranks that die or hang ----
# ends WITHIN FAULT CODES: three ranks, one of which fails, end in so many seconds with one of the exit codes.
ends() {
    local start=$SECONDS
    export COHORT_FAULT=$2
    ranks 3 train "${scratch[@]}" data.train=train.h5 parallel.watchdog_s=3 out="dead-${2##*=}"
    unset COHORT_FAULT
    checks=$((checks + 2))
    [ $((SECONDS - start)) -le "$1" ] || fail "COHORT_FAULT=$2 took $((SECONDS - start)) s, wanted at most $1"
    [[ " $3 " == *" $code "* ]] || fail "COHORT_FAULT=$2 ended with $code, wanted $3"
}
ends 10 step.end:3@1=kill "137 9"
ends 13 step.end:3@2=hang 70
said 'rank 2 of 3 .* step 3|watchdog: .* rank [0-2] of 3'
ends 13 step.end:3@0=stop "70 137 1"
must 2 train "${scratch[@]}" data.train=train.h5 out=dead-kill
same dead-kill/best/model.safetensors whole/best/model.safetensors
finish
