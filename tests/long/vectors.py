"""Ids of the real vocabularies against vectors that others made with the original tokenizers.

Usage: vectors.py [FOLDER ...], or COHORT_VECTORS=FOLDER[:FOLDER ...]. Vocabularies and vectors are others' work and stay
outside the project. A folder has any of these, and what is in no folder is said and left out:

  bert-base-uncased/vocab.txt, tokenizer.json   bert-base-cased/vocab.txt
  deberta-v3/spm.model (with the other files of microsoft/deberta-v3-base)
  gpt2-roberta/vocab.json, merges.txt (GPT-2's), roberta_dict.txt (fairseq's dict.txt: RoBERTa numbers GPT-2's pieces by it)
  albert-base-v2/spiece.model, or 30k-clean.vocab: the same pieces with their scores rounded to six digits
  vectors/models--*.json                  github.com/querycatai/fib-tokenizers, test/models (MIT): 37 texts, 5 of pairs and cuts
  vectors/bert_squad_*.json.gz            github.com/huggingface/swift-coreml-transformers, Resources: 10,570 questions
  vectors/keras_deberta_v3_test_vocab.spm github.com/keras-team/keras-hub: a model that is refused

A line that differs passes only where it is listed below with its reason and cohort's ids are those of Hugging Face's
tokenizers on the same files. The real vocabularies are also asked about hard lines, beside tokenizers and SentencePiece.
"""
import glob
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import AlbertTokenizer, BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "golden"))
import tokenizer_families  # noqa: E402
import tokenizer_lines  # noqa: E402

FOLDERS = sys.argv[1:] or [f for f in os.environ.get("COHORT_VECTORS", "").split(":") if f]
PROGRAM = os.path.join(os.path.dirname(common.COHORT), "tests", "long_encode_lines")
HARD_LINES = 4000
LLAMA = "The llama ("  # the longest text of the vectors
RARE = "\"000\\ua64a\\U0001f999\" is one word: tokenizers and transformers 5 say so, too"
COMMA = "Python's AlbertTokenizer cuts \"2007,\" behind the digit; tokenizer.json and transformers 5 do not"
# file: where its tokenizer is, whether the family is one of cohort's, {beginning of a text: why its ids differ}
VECTORS = {
    "albert-base-v2": ("albert", True, {LLAMA: COMMA}),
    "bert-base-uncased": ("bert", True, {LLAMA: RARE}),
    "distilbert-base-uncased": ("bert", True, {LLAMA: RARE}),
    "google--electra-base-discriminator": ("bert", True, {LLAMA: RARE}),
    "gpt2": ("gpt2", False, {}),
    "microsoft--MiniLM-L12-H384-uncased": ("bert", True, {LLAMA: RARE}),
    "microsoft--deberta-base": ("deberta", False, {}),
    "microsoft--deberta-v3-base": ("deberta-v3", True, {}),
    "microsoft--deberta-v3-small": ("deberta-v3", True, {}),
    "roberta-base": ("roberta", True, {}),
    "sentence-transformers--all-MiniLM-L6-v2": ("minilm", True, {LLAMA: RARE}),
}
# The sentences: deberta-v3-base, and distilbert-base-cased with what it decodes to.
WIZARDS = "Do not meddle in the affairs of wizards, for they are subtle and quick to anger."
WIZARD_IDS = [1, 771, 298, 57249, 267, 262, 6303, 265, 41267, 261, 270, 306, 281, 6245, 263, 1538, 264, 5693, 260, 2]
GREAT = "Hugging Face Transformers is great!"
GREAT_IDS = [101, 20164, 10932, 10289, 25267, 1110, 1632, 106, 102]


def find(path):
    """The first folder's file of this name, or None."""
    return next((p for p in (os.path.join(f, path) for f in FOLDERS) if os.path.exists(p)), None)


def need(*paths):
    """All of them; the name of the first that is missing is raised."""
    for path in paths:
        if find(path) is None:
            raise FileNotFoundError(path)
    return [find(path) for path in paths]


# ---- folders that cohort opens, each with what Hugging Face's tokenizers make of the same files

class Case:
    """peer: lines to lists of ids without special tokens; decode: ids to text, or None."""

    def __init__(self, folder, peer, decode=None):
        self.folder, self.peer, self.decode = folder, peer, decode


def fresh_folder(scratch, name, copies=(), config=None):
    folder = os.path.join(scratch, name)
    os.makedirs(folder)
    for path in copies:
        shutil.copy(path, folder)
    if config is not None:
        common.write_json(os.path.join(folder, "tokenizer_config.json"), config)
    return folder


def fast(folder, tokenizer):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Case(folder, lambda lines: [e.ids for e in tokenizer.encode_batch(list(lines), add_special_tokens=False)],
                lambda ids: tokenizer.decode(ids, skip_special_tokens=False))


def bert(scratch, name="bert", source="bert-base-uncased", lowercase=True):
    folder = fresh_folder(scratch, name, need(f"{source}/vocab.txt"),
                          {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase})
    return fast(folder, BertTokenizer.from_pretrained(folder).backend_tokenizer)


def cased(scratch):
    return bert(scratch, "cased", "bert-base-cased", False)


def minilm(scratch):
    folder = fresh_folder(scratch, "minilm", need("bert-base-uncased/tokenizer.json"))
    return fast(folder, Tokenizer.from_file(os.path.join(folder, "tokenizer.json")))


def fairseq(scratch, name, specials, config):
    """GPT-2's pieces numbered by fairseq's dictionary, behind four special tokens."""
    vocab, merges, order = need("gpt2-roberta/vocab.json", "gpt2-roberta/merges.txt", "gpt2-roberta/roberta_dict.txt")
    with open(vocab, encoding="utf-8") as f:
        pieces = {i: piece for piece, i in json.load(f).items()}
    numbered = {token: i for i, token in enumerate(specials[:4])}
    with open(order, encoding="utf-8") as f:
        for i, line in zip(range(4, 50264), f):
            word = line.split()[0]
            numbered[pieces[int(word)] if word.isdigit() else word] = i
    numbered[specials[4]] = 50264
    folder = fresh_folder(scratch, name, [merges], config)
    common.write_json(os.path.join(folder, "vocab.json"), numbered)
    return fast(folder, RobertaTokenizer.from_pretrained(folder).backend_tokenizer)


def roberta(scratch):
    return fairseq(scratch, "roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
                   {"tokenizer_class": "RobertaTokenizer"})


def named(names):
    """A configuration that gives GPT-2's pieces other special tokens than RoBERTa's."""
    return {"tokenizer_class": "RobertaTokenizer",
            **{f"{key}_token": token for key, token in zip(("pad", "cls", "sep", "unk", "mask", "bos", "eos"), names)}}


def deberta(scratch):
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    return fairseq(scratch, "deberta", names, named(names + ["[CLS]", "[SEP]"]))


def gpt2(scratch):
    folder = fresh_folder(scratch, "gpt2", need("gpt2-roberta/vocab.json", "gpt2-roberta/merges.txt"),
                          named(["<|endoftext|>"] * 7))
    return fast(folder, RobertaTokenizer.from_pretrained(folder).backend_tokenizer)


def deberta_v3(scratch):
    (path,) = need("deberta-v3/spm.model")
    names = ("added_tokens.json", "config.json", "special_tokens_map.json", "tokenizer_config.json")
    others = [p for p in (os.path.join(os.path.dirname(path), n) for n in names) if os.path.exists(p)]
    folder = fresh_folder(scratch, "deberta-v3", [path, *others])
    with open(path, "rb") as f:
        proto = sentencepiece_model_pb2.ModelProto.FromString(f.read())
    specials = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[MASK]": len(proto.pieces)}
    return Case(folder, tokenizer_families.spm_reference(proto, specials))


def albert_model(path):
    """spiece.model out of its pieces and scores: five special ones, then user-defined ones, whose score is 0."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # for its normalizer, which is ALBERT's
        sentence_iterator=iter(["a b c d"] * 9), model_writer=model, vocab_size=12, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="nmt_nfkc", num_threads=1, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    kind = sentencepiece_model_pb2.ModelProto.SentencePiece
    del proto.pieces[:]
    with open(path, encoding="utf-8", newline="\n") as f:
        for i, line in enumerate(f):
            piece, score = line.rstrip("\n").split("\t")
            proto.pieces.add(piece=piece, score=float(score), type=(
                kind.UNKNOWN if piece == "<unk>" else kind.CONTROL if i < 5 else kind.USER_DEFINED if float(score) == 0
                else kind.NORMAL))
    return proto.SerializeToString()


def albert(scratch):
    path = find("albert-base-v2/spiece.model")
    folder = fresh_folder(scratch, "albert", [path] if path else [], {"tokenizer_class": "AlbertTokenizer"})
    if not path:
        (path,) = need("albert-base-v2/30k-clean.vocab")
        with open(os.path.join(folder, "spiece.model"), "wb") as f:
            f.write(albert_model(path))
    # transformers 5 makes added tokens of user-defined pieces, which ALBERT's own tokenizer.json does not
    peer = json.loads(AlbertTokenizer.from_pretrained(folder).backend_tokenizer.to_str())
    peer["added_tokens"] = [t for t in peer["added_tokens"] if t["content"][0] in "<["]
    return fast(folder, Tokenizer.from_str(json.dumps(peer)))


MAKERS = {"albert": albert, "bert": bert, "cased": cased, "deberta": deberta, "deberta-v3": deberta_v3, "gpt2": gpt2,
          "minilm": minilm, "roberta": roberta}


# ---- comparing

def whole(folder, rows):
    """What long_encode_lines makes of rows of {"text", maybe "pair" and "max_length"}."""
    run = subprocess.run([PROGRAM, folder, "--whole"], input="".join(json.dumps(r) + "\n" for r in rows),
                         capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.split("\n")[:len(rows)]]


def content(ids):
    return ids[1:-1]


class Table:
    """A row for each file: lines, equal, different, why."""

    def __init__(self, report):
        self.report, self.rows, self.left_out = report, [], []

    def add(self, name, lines, different, why=""):
        self.rows.append((name, lines, lines - different, different, why))

    def leave_out(self, name, why):
        self.left_out.append(name)
        self.rows.append((name, "-", "-", "-", f"SKIP: {why} is in none of the folders"))

    def show(self):
        head = ("file", "lines", "equal", "different", "why")
        widths = [max(len(str(row[i])) for row in [head, *self.rows]) for i in range(4)]
        for row in [head, *self.rows]:
            print("  " + "  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w)
                                   for i, (v, w) in enumerate(zip(row, widths))) + "  " + row[4])


def check_texts(table, name, case, reasons, texts):
    """37 texts with their ids, pieces and what the ids decode to."""
    got = whole(case.folder, [{"text": x["input"]} for x in texts])
    meant, wrong = [], []
    for x, y in zip(texts, got):
        ids = y["ids"] if name != "gpt2" else content(y["ids"])
        if ids == x["ids"]:
            continue
        why = next((why for text, why in reasons.items() if x["input"].startswith(text)), None)
        if why and content(y["ids"]) == case.peer([x["input"]])[0]:
            meant.append(why)
        else:
            wrong.append((x["input"], ids, x["ids"]))
    table.add(name, len(texts), len(meant) + len(wrong), "; ".join(sorted(set(meant))))
    table.report.equal(f"{name}: texts of {len(texts)} whose ids differ and should not", len(wrong), 0)
    table.report.equal(f"{name}: texts whose ids were expected to differ", len(meant), len(reasons))
    for text, ids, wanted in wrong:
        print(f"{name}: {text[:300]!a}\n  got    {ids}\n  wanted {wanted}")
    check_decoded(table.report, name, case, texts, got)


def check_decoded(report, name, case, texts, got):
    """
    transformers takes special tokens out and tidies the whole text. BERT's are tidied piece by piece in tokenizers, so there
    the text may be what tokenizers makes of the ids.
    """
    def tidy(text):
        return re.sub(" +", " ", PreTrainedTokenizerFast.clean_up_tokenization(None, text)).strip()
    differ = 0
    for x, y in zip(texts, got):
        if tidy(y["decoded"]) == tidy(x["decoded"]) or y["decoded"] == (case.decode and case.decode(y["decoded_ids"])):
            continue
        differ += 1
        print(f"{name}: {x['input'][:200]!a}\n  got    {y['decoded'][:300]!a}\n  wanted {x['decoded'][:300]!a}")
    report.equal(f"{name}: texts whose ids decode to something else", differ, 0)


def check_joined(table, name, case, vectors):
    """Pairs, and texts cut to ten tokens; the fillers of a batch are left out."""
    wanted = [vectors["pair_encode"]]
    for batch in (vectors["batch_encode"], vectors["batch_pair_encode"]):
        wanted += [{k: v[i] for k, v in batch.items()} for i in range(2)]
    eight = " ".join("b" * 8)
    rows = [{"text": "a a", "pair": "b b b b"}, {"text": "a a", "max_length": 10}, {"text": eight, "max_length": 10},
            {"text": "a a", "pair": "b", "max_length": 10}, {"text": "a a", "pair": eight, "max_length": 10}]
    different = 0
    for row, y, x in zip(rows, whole(case.folder, rows), wanted):
        n = sum(x["attention_mask"])
        same = y["ids"] == x["input_ids"][:n] and y["types"] == x.get("token_type_ids", y["types"])[:n]
        different += not same
        if not same:
            print(f"{name}: {row}\n  got    {y['ids']} {y['types']}\n  wanted {x}")
    table.add(f"{name}: pairs and cuts", len(rows), different)
    table.report.equal(f"{name}: pairs and cuts of {len(rows)} that differ", different, 0)


def check_squad(table, case):
    ids_path, pieces_path = need("vectors/bert_squad_tokenized_questions.json.gz", "vectors/bert_squad_question_tokens.json.gz")
    with gzip.open(ids_path, "rt", encoding="utf-8") as f:
        ids = json.load(f)
    with gzip.open(pieces_path, "rt", encoding="utf-8") as f:
        tokens = json.load(f)
    got = whole(case.folder, [{"text": x["original"]} for x in tokens])
    pieces = sum(y["pieces"] != x["wordpiece"] for x, y in zip(tokens, got))
    table.add(os.path.basename(pieces_path), len(tokens), pieces)
    table.report.equal(f"SQuAD: questions of {len(tokens)} whose pieces differ", pieces, 0)
    different = sum(content(y["ids"]) != x for x, y in zip(ids, got))
    table.add(os.path.basename(ids_path), len(ids), different)
    table.report.equal(f"SQuAD: questions of {len(ids)} whose ids differ", different, 0)


def check_refused(report, scratch):
    """Keras' model is of whole words, which no family's is: opened with a sentence that says so."""
    path = find("vectors/keras_deberta_v3_test_vocab.spm")
    if path is None:
        return
    folder = fresh_folder(scratch, "keras")
    shutil.copy(path, os.path.join(folder, "spm.model"))
    run = subprocess.run([PROGRAM, folder, "--whole"], input="", capture_output=True, text=True)
    said = run.returncode == 1 and "a model of type 3, wanted 1 (Unigram) or 2 (BPE)" in run.stderr
    report.equal("keras_deberta_v3_test_vocab.spm, a model of whole words, is refused", said or run.stderr, True)


def check_sentences(report, cases):
    for name, text, wanted in (("deberta-v3", WIZARDS, WIZARD_IDS), ("cased", GREAT, GREAT_IDS)):
        if name in cases:
            report.equal(f"{name}: ids of \"{text[:30]}...\"", whole(cases[name].folder, [{"text": text}])[0]["ids"], wanted)


def check_hard(table, cases):
    """Lines nobody has vectors for, beside tokenizers and SentencePiece themselves."""
    lines = list(tokenizer_lines.lines(HARD_LINES // 2, 11)) + list(tokenizer_families.corpus(HARD_LINES // 2, 12))
    lines = [s.replace("\0", "\1") for s in lines]
    for name, case in cases.items():
        got = [content(y["ids"]) for y in whole(case.folder, [{"text": s} for s in lines])]
        wanted = case.peer(lines)
        different = [i for i, ids in enumerate(got) if ids != wanted[i]]
        table.add(f"{name}: hard lines", len(lines), len(different))
        table.report.equal(f"{name}: hard lines of {len(lines)} whose ids differ", len(different), 0)
        for i in different[:3]:
            print(f"{name}: {lines[i]!a}\n  got    {got[i]}\n  wanted {wanted[i]}")


def main(report, scratch):
    table, cases, missing = Table(report), {}, {}
    for name, make in MAKERS.items():
        try:
            cases[name] = make(scratch)
        except FileNotFoundError as e:
            missing[name] = str(e)
    known = {os.path.basename(p)[len("models--"):-len(".json")] for f in FOLDERS
             for p in glob.glob(os.path.join(f, "vectors", "models--*.json"))}
    report.equal("files of vectors that nothing is known about", sorted(known - set(VECTORS)), [])
    for name, (which, family, reasons) in VECTORS.items():
        path = find(f"vectors/models--{name}.json")
        if path is None or which in missing:
            table.leave_out(name, missing.get(which, f"vectors/models--{name}.json"))
            continue
        with open(path, encoding="utf-8") as f:
            vectors = json.load(f)
        check_texts(table, name, cases[which], reasons, vectors["datasets"])
        if family:
            check_joined(table, name, cases[which], vectors)
    try:
        check_squad(table, cases["bert"] if "bert" in cases else need("bert-base-uncased/vocab.txt"))
    except FileNotFoundError as e:
        table.leave_out("SQuAD's questions", e)
    for name, why in missing.items():
        if name == "cased":
            table.leave_out(name, why)
    check_refused(report, scratch)
    check_sentences(report, cases)
    check_hard(table, cases)
    table.show()
    if table.left_out:
        report.note("left out", ", ".join(table.left_out))


if not any(os.path.isdir(f) for f in FOLDERS):
    print("SKIP vectors: name a folder of vocabularies and vectors (the head of tests/long/vectors.py says what is in it) "
          "as an argument or in COHORT_VECTORS" + (f"; {':'.join(FOLDERS)} is none" if FOLDERS else ""))
    sys.exit(77)
common.run_script("vectors", main)
