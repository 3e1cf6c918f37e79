#!/usr/bin/env bash
# The whole training step of the CUDA backend, through the command line: beside the CPU backend, on 1 to 4 ranks, with
# accumulation, recomputation, graphs and both transports, in the three precisions.
. "$(dirname "$0")/../support/run.sh"
export EMULATED_CUDA_DEVICES=${EMULATED_CUDA_DEVICES:-4}

make_model model
sed -i 's/"initializer_range": 0.02/"initializer_range": 0.2/' model/config.json # far from ln 3: every part of the model counts
make_data train.tsv 40 3
{ # one word, more words than the model takes
    printf 'e1\tg0\tclass1\tb1\t\n'
    printf 'e2\tg0\tclass2\t%s\t\n' "$(seq -s' ' -f 'w%.0f' 0 99)"
} >>train.tsv
must 1 prepare model.path=model data.input=train.tsv data.text=text data.label=label out=train.h5
common=(model.path=model model.from_scratch=true data.train=train.h5 train.batch_size=8 train.max_steps=5
        optim.lr=1e-3 log.every=1 log.hash_every=1 parallel.threads=1 checkpoint.every=100)
any=(parallel.reproducible=any)

# near A B BOUND [GRADIENTS]: the losses of two runs, and the norms of their gradients, differ by at most BOUND (GRADIENTS),
# relatively; and the runs have as many steps.
near() {
    apart "$1" "$2" "$3" loss
    apart "$1" "$2" "${4:-$3}" grad_norm
}

apart() {
    checks=$((checks + 1))
    grep '"kind":"train"' "runs/$1/log.jsonl" | field "$4" >found
    grep '"kind":"train"' "runs/$2/log.jsonl" | field "$4" >wanted
    paste found wanted | awk -v bound="$3" '
        { d = ($1 - $2) / $2; d = d < 0 ? -d : d; if (d > worst) worst = d; n++; if (d > bound || $1 == "null") bad = 1 }
        END { printf "apart by %.2g in %d steps\n", worst, n; exit bad || n < 5 }' >distance ||
        { cp distance said; fail "$4 of $1 and $2: $(cat distance), wanted $3"; }
    printf '%s beside %s: %s %s\n' "$1" "$2" "$4" "$(cat distance)"
}

# agrees A B: two runs took the same course, bit for bit.
agrees() {
    course "runs/$1" >found
    course "runs/$2" >wanted
    checks=$((checks + 1))
    { [ -s wanted ] && cmp -s found wanted; } || { : >said; fail "$1 and $2 part: $(diff wanted found | head -n 4 | tr '\n' ' ')"; }
    same "runs/$1/best/model.safetensors" "runs/$2/best/model.safetensors"
}

# weights A B BOUND: the weights at the end, as relative root mean squares of their difference.
weights() {
    checks=$((checks + 1))
    python3 - "runs/$1/best/model.safetensors" "runs/$2/best/model.safetensors" "$3" >distance 2>&1 <<'PY' ||
import array, json, struct, sys
def load(path):
    data = open(path, "rb").read()
    n, = struct.unpack("<Q", data[:8])
    return {k: array.array("f", data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in json.loads(data[8:8 + n]).items() if k != "__metadata__"}
a, b = load(sys.argv[1]), load(sys.argv[2])
assert a.keys() == b.keys() and a
worst, where = 0.0, ""
for k in a:
    if k.endswith("key.bias"):  # softmax does not see it: its gradient is rounding, which AdamW makes as large as any
        continue
    d = sum((x - y) ** 2 for x, y in zip(a[k], b[k])) ** 0.5
    s = sum(y * y for y in b[k]) ** 0.5
    r = d / s if s else d
    worst, where = max((worst, where), (r, k))
print("weights apart by %.2g (%s)" % (worst, where))
sys.exit(not worst <= float(sys.argv[3]))
PY
        { cp distance said; fail "$1 and $2: $(cat distance), wanted $3"; }
    printf '%s beside %s: %s\n' "$1" "$2" "$(cat distance)"
}

# run NAME RANKS ARGUMENTS...
run() {
    local name=$1 n=$2
    shift 2
    must "$n" train "${common[@]}" "$@" out="runs/$name"
}

# ---- fp32: the CPU backend's numbers, dropout and all
run cpu-fp32 1 parallel.backend=cpu train.precision=fp32 "${any[@]}"
run cuda-fp32 1 parallel.backend=cuda train.precision=fp32 "${any[@]}"
near cuda-fp32 cpu-fp32 1e-5
weights cuda-fp32 cpu-fp32 1e-5
for n in 2 3 4; do
    run "cuda-fp32-$n" "$n" parallel.backend=cuda train.precision=fp32 "${any[@]}" \
        train.recompute=$([ $((n % 2)) = 0 ] && echo true || echo false) \
        parallel.transport=$([ "$n" = 3 ] && echo mpi || echo nccl)
    agrees "cuda-fp32-$n" cuda-fp32
done
run micro 1 parallel.backend=cuda train.precision=fp32 "${any[@]}" train.micro_tokens=16 parallel.bucket_mb=0.25
agrees micro cuda-fp32
run eager 1 parallel.backend=cuda train.precision=fp32 "${any[@]}" parallel.graphs=false
agrees eager cuda-fp32
run recompute 1 parallel.backend=cuda train.precision=fp32 "${any[@]}" train.recompute=true
agrees recompute cuda-fp32

# ---- bf16
if has_bf16; then
    run cpu-bf16 1 parallel.backend=cpu train.precision=bf16 "${any[@]}"
    run cuda-bf16 1 parallel.backend=cuda train.precision=bf16 "${any[@]}"
    near cuda-bf16 cpu-bf16 5e-3
else
    run cuda-bf16 1 parallel.backend=cuda train.precision=bf16 "${any[@]}"
    near cuda-bf16 cpu-fp32 2e-2
fi
run cuda-bf16-2 2 parallel.backend=cuda train.precision=bf16 "${any[@]}" parallel.transport=mpi
agrees cuda-bf16-2 cuda-bf16
run cuda-bf16-3 3 parallel.backend=cuda train.precision=bf16 "${any[@]}" train.recompute=true
agrees cuda-bf16-3 cuda-bf16

# ---- tf32, and the other modes of reproducibility
run tf32 1 parallel.backend=cuda train.precision=tf32 "${any[@]}"
near tf32 cpu-fp32 2e-3
run fixed 2 parallel.backend=cuda train.precision=fp32 train.micro_tokens=64
near fixed cpu-fp32 1e-5
run fixed-again 2 parallel.backend=cuda train.precision=fp32 train.micro_tokens=64 parallel.graphs=false
agrees fixed-again fixed
run off 2 parallel.backend=cuda train.precision=fp32 parallel.reproducible=off
near off cpu-fp32 1e-5

# ---- graphs: equal shapes come back under fixed, and are replayed
run replay 1 parallel.backend=cuda train.precision=fp32 train.max_steps=12
said 'CUDA graphs: [1-9][0-9]* of [0-9]+ stretches of work replayed'
grep -q '"graphs": *{' runs/replay/results.json || fail "results.json does not say what was replayed"
run parts 2 parallel.backend=cuda train.precision=fp32 "${any[@]}" log.parts=true # the same bits, with a wait after each part
agrees parts cuda-fp32
for part in forward backward reduce 'norms and loss' adamw 'gather and cast'; do
    checks=$((checks + 1))
    grep -qE "\"$part\": *[0-9]" runs/parts/results.json || fail "results.json has no time of: $part"
done
run no-replay 1 parallel.backend=cuda train.precision=fp32 train.max_steps=12 parallel.graphs=false
checks=$((checks + 1))
grep -q 'CUDA graphs' said && fail "replays without parallel.graphs"
agrees no-replay replay

# ---- fp16: dynamic loss scaling; a first scale that is too large is lowered, and the schedule waits
run cuda-fp16 1 parallel.backend=cuda train.precision=fp16 "${any[@]}" optim.max_grad_norm=1
equal "$(grep '"kind":"train"' runs/cuda-fp16/log.jsonl | field loss_scale | wc -l)" 5 "the number of logged loss scales"
run cuda-fp16-2 2 parallel.backend=cuda train.precision=fp16 "${any[@]}" optim.max_grad_norm=1
agrees cuda-fp16-2 cuda-fp16

# ---- other families: a projection and GELU in the head, dropout before it; positions behind the padding's; ReLU
family() { # NAME SED: the model's configuration under another model_type
    mkdir -p "$1"
    cp model/* "$1"
    sed -i "$2" "$1/config.json"
    for backend in cpu cuda; do
        must 1 train "${common[@]}" model.path="$1" parallel.backend=$backend train.precision=fp32 "${any[@]}" \
            out="runs/$1-$backend"
    done
    near "$1-cuda" "$1-cpu" 1e-5
}
family electra 's/"bert"/"electra", "embedding_size": 20/'
family roberta 's/"bert"/"roberta"/; s/"max_position_embeddings": 64/"max_position_embeddings": 65/'
family distilbert 's/"bert"/"distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "activation": "relu"/'

# ---- DeBERTa: a table of relative positions, whose gradient follows the cut; a convolution (v2)
deberta='"deberta-v2", "relative_attention": true, "position_biased_input": false, "pos_att_type": "p2c|c2p",
    "position_buckets": 16, "norm_rel_ebd": "layer_norm"'
deberta=$(tr -d '\n' <<<"$deberta")
types='s/"type_vocab_size": 2/"type_vocab_size": 0/'
family deberta-v3 "$types; s/\"bert\"/$deberta, \"share_att_key\": true/"
family deberta-v2 "$types; s/\"bert\"/$deberta, \"conv_kernel_size\": 3, \"conv_act\": \"gelu\"/"
run deberta-v3-3 3 model.path=deberta-v3 parallel.backend=cuda train.precision=fp32 "${any[@]}" train.recompute=true
agrees deberta-v3-3 deberta-v3-cuda
run deberta-bf16 1 model.path=deberta-v2 parallel.backend=cuda train.precision=bf16 "${any[@]}" parallel.graphs=false
near deberta-bf16 deberta-v2-cpu 2e-2
run deberta-bf16-2 2 model.path=deberta-v2 parallel.backend=cuda train.precision=bf16 "${any[@]}" train.micro_tokens=64
agrees deberta-bf16-2 deberta-bf16

# ---- texts in chunks: logits come to the host and their gradients go back; passes are run forward twice
chunks=(data.long=chunk data.chunk_size=8 data.stride=6 train.micro_tokens=64)
for backend in cpu cuda; do
    run chunks-$backend 1 parallel.backend=$backend train.precision=fp32 "${any[@]}" "${chunks[@]}"
done
near chunks-cuda chunks-cpu 1e-5
run chunks-cuda-3 3 parallel.backend=cuda train.precision=fp32 "${any[@]}" "${chunks[@]}"
agrees chunks-cuda-3 chunks-cuda

# ---- what is computed on CPUs only is refused when the run is planned
for keys in train.average=ema train.adversarial=fgm model.dropout_samples=2; do
    refused 78 "${keys%=*}.*parallel.backend=cpu" 1 train "${common[@]}" parallel.backend=cuda train.precision=fp32 $keys out=x
    refused 78 "${keys%=*}.*parallel.backend=cpu" 1 check "${common[@]}" parallel.backend=cuda train.precision=fp32 $keys
done

# ---- folds side by side on two groups, evaluation, prediction
must 2 train "${common[@]}" parallel.backend=cuda train.precision=fp32 cv.folds=2 cv.group_ranks=1 train.max_steps=3 \
    out=runs/folds
must 2 eval model.path=runs/cuda-fp32/best data.input=train.tsv data.text=text data.label=label parallel.backend=cuda \
    train.precision=fp32
must 1 predict model.path=runs/cuda-fp32/best data.input=train.tsv data.text=text parallel.backend=cuda \
    train.precision=fp32 out=cuda.tsv
must 1 predict model.path=runs/cuda-fp32/best data.input=train.tsv data.text=text parallel.backend=cpu \
    train.precision=fp32 out=cpu.tsv
equal "$(wc -l <cuda.tsv)" "$(wc -l <cpu.tsv)" "the number of predictions"
finish
