# run.sh - what the tests that run cohort share: a small model, data that it can learn, and checks.
#
# Sourced by tests/<folder>/test_*.sh, which get the path of cohort as their first argument. A failed check is printed
# and counted, and the test goes on; finish() gives the exit code. Works in a folder of its own, removed at the end.

set -uo pipefail
export LC_ALL=C
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_odls_base_sigkill_timeout=0 # when a rank has failed mpirun ends the others at once, not after a second or two
unset COHORT_FAULT

cohort=$(readlink -f "$1")
[ -x "$cohort" ] || { echo "usage: $0 COHORT"; exit 2; }
folder=${TMPDIR:-/tmp}
if [ -w /dev/shm ] && [ "$(df -Pk /dev/shm | awk 'NR == 2 { print $4 }')" -gt 2000000 ]; then
    folder=/dev/shm # hundreds of checkpoints are flushed here: memory is faster
fi
work=$(mktemp -d "$folder/cohort-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 2
failures=0
checks=0
code=0

# fail SENTENCE: count it, and show the end of what the last command said.
fail() {
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$*"
    [ -s said ] && sed 's/^/    | /' said | tail -n 12
}

# ranks N ARGUMENTS...: cohort on N ranks (N 1: without mpirun); its exit code is in $code, what it said in ./said.
ranks() {
    local n=$1
    shift
    if [ "$n" = 1 ]; then
        ("$cohort" "$@"; exit $?) >said 2>&1 # in a shell of its own, which says "Killed" there
    else
        timeout -k 5 90 mpirun --oversubscribe -n "$n" "$cohort" "$@" >said 2>&1 # 124: it hung
    fi
    code=$?
}

# must N ARGUMENTS...: as ranks, and it succeeds.
must() {
    ranks "$@"
    checks=$((checks + 1))
    [ "$code" = 0 ] || fail "exit code $code of: cohort on $*"
}

# refused CODE PATTERN N ARGUMENTS...: it ends with this exit code and says, in one place, what matches PATTERN.
refused() {
    local wanted=$1 pattern=$2
    shift 2
    ranks "$@"
    checks=$((checks + 1))
    [ "$code" = "$wanted" ] || fail "exit code $code, wanted $wanted, of: cohort on $*"
    said "$pattern"
}

# said PATTERN: the last command's output has a line that matches (extended regular expression).
said() {
    checks=$((checks + 1))
    grep -qE -- "$1" said || fail "nothing said matches: $1"
}

# same A B: two files are equal byte for byte.
same() {
    checks=$((checks + 1))
    cmp -s -- "$1" "$2" || { : >said; fail "$1 and $2 differ$([ -e "$1" ] && [ -e "$2" ] || echo ' (one is missing)')"; }
}

# equal FOUND WANTED WHAT
equal() {
    checks=$((checks + 1))
    [ "$1" = "$2" ] || { : >said; fail "$3 is \"$1\", wanted \"$2\""; }
}

finish() {
    echo "$checks checks, $failures failed, $SECONDS s"
    [ "$failures" = 0 ]
    exit
}

skip() {
    echo "SKIP: $*"
    exit 77
}

# ---- the model and the data ----

# Words of the vocabulary: w0 ... w159 are background; each class has words of its own (a0..a4, b0..b4, ...).
words() {
    awk 'BEGIN { for (i = 0; i < 160; i++) print "w" i
                 for (c = 0; c < 6; c++) for (i = 0; i < 5; i++) print substr("abcdef", c + 1, 1) i }'
}

# make_model FOLDER [DROPOUT]: configuration and tokenizer of a tiny BERT, for model.from_scratch=true. It has more
# embeddings than words, so that its 251,000 parameters make four blocks, shared unevenly by three ranks and by eight.
make_model() {
    local folder=$1 dropout=${2:-0.1}
    mkdir -p "$folder"
    { printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n'; words; } >"$folder/vocab.txt"
    cat >"$folder/config.json" <<JSON
{"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": "gelu", "hidden_size": 32,
 "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 64,
 "type_vocab_size": 2, "vocab_size": 7000, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
 "hidden_dropout_prob": $dropout, "attention_probs_dropout_prob": $dropout, "pad_token_id": 0}
JSON
    cat >"$folder/tokenizer_config.json" <<'JSON'
{"tokenizer_class": "BertTokenizer", "do_lower_case": true, "model_max_length": 64}
JSON
}

# make_data FILE ROWS CLASSES [SEED]: TSV with a header and the columns id, group, label, text, pair. A text has 1 to 24
# words, some of them of its class. The same arguments give the same file.
make_data() {
    awk -v rows="$2" -v classes="$3" -v seed="${4:-1}" '
        function random(n) { state = (state * 1103515245 + 12345) % 2147483648; return int(state / 65536) % n }
        function text(class, n,   i, out) {
            out = substr("abcdef", class + 1, 1) random(5)
            for (i = 1; i < n; i++)
                out = out " " (random(3) == 0 ? substr("abcdef", class + 1, 1) random(5) : "w" random(160))
            return out
        }
        BEGIN {
            state = seed * 7919 + 17
            OFS = "\t"
            print "id", "group", "label", "text", "pair"
            for (i = 0; i < rows; i++) {
                class = (i + random(2)) % classes
                print "r" i, "g" random(int(rows / 4) + 1), "class" class, text(class, 1 + random(24)), text(class, 1 + random(6))
            }
        }' >"$1"
}

# ---- reading what a run wrote ----

# field NAME <log.jsonl: the values of a field, one a line, of the lines that have it.
field() { grep -o "\"$1\":[^,}]*" | sed 's/^[^:]*://'; }

# steps FOLDER: the numbers of the training lines, joined by blanks.
steps() { grep '"kind":"train"' "$1/log.jsonl" | field step | tr '\n' ' '; }

# course FOLDER: step, loss and weights hash of each training step.
course() { grep '"kind":"train"' "$1/log.jsonl" | sed -E 's/.*"step":([0-9]+).*"loss":([^,]*).*"weights_hash":"([^"]*)".*/\1 \2 \3/'; }

has_bf16() { grep -qm1 -w avx512_bf16 /proc/cpuinfo; }
