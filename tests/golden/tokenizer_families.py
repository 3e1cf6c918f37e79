"""Small tokenizers of every family, trained on generated text, and what transformers, tokenizers and SentencePiece make
of lines with them: used by make_tokenizer_families.py and tests/long/tokenizer.py.

build(folder, size, small) writes one model folder a name and returns {name: (config, reference)}; reference takes lines and
returns their ids without special tokens. size is the number of pieces. small: a normalizer of few rules instead of nmt_nfkc,
which takes 240 KB in every file.
"""
import io
import json
import os
import random
import re

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AlbertTokenizer, CamembertTokenizer, RobertaTokenizer, XLMRobertaTokenizer

import tokenizer_lines

ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# What a text becomes, as SentencePiece writes rules: full-width letters, ligatures, accents put on, odd spaces, some gone.
RULES = [("\u2026", "..."), ("\ufb01", "fi"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\r", " "),
         ("\u200b", " "), ("\u0085", " "), ("\u2028", " "), ("\x01", ""), ("\u00ad", ""), ("\ufeff", ""), ("\u2122", "TM"),
         ("\u00bd", "1/2"), ("\u212b", "\u00c5"), ("A\u030a", "\u00c5"), ("a\u0301", "\u00e1"), ("e\u0301", "\u00e9"),
         ("\u0439", "\u0438\u0306"), ("\u30ab\u3099", "\u30ac"), ("\uac00", "\u1100\u1161"), ("o\u0308", "\u00f6"),
         ("\u2581", " ")]
RULES += [(chr(c), chr(c - 0xFEE0)) for c in range(0xFF01, 0xFF5F)]


def corpus(count, seed=5):
    """Sentences of words that are made of syllables, and hard lines between them."""
    r = random.Random(seed)
    syllables = [a + b + c for a in ("", "b", "d", "st", "tr", "k", "m", "n", "l", "pr", "s", "v") for b in "aeiou\u00e9"
                 for c in ("", "n", "r", "st", "ng", "l")]
    words = ["".join(r.choice(syllables) for _ in range(r.choice((1, 2, 2, 3)))) for _ in range(4000)]
    hard = tokenizer_lines.lines(count // 4, seed + 1)
    for i in range(count):
        if i % 4 == 3:
            yield next(hard).replace("\0", "")
            continue
        yield " ".join((w.capitalize() if r.random() < 0.1 else w) + r.choice(("", "", "", ",", ".", "!", "'s", " 12"))
                       for w in (words[min(int(r.expovariate(0.004)), len(words) - 1)] for _ in range(r.randrange(3, 15))))


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def train_spm(size, small, lines, rules=None, **options):
    model = io.BytesIO()
    table = os.path.join(options.pop("scratch"), "rules.tsv")
    write(table, "".join("%s\t%s\n" % tuple(" ".join("%X" % ord(c) for c in s) for s in rule) for rule in rules or RULES))
    normal = {"normalization_rule_tsv": table} if small else {"normalization_rule_name": "nmt_nfkc"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(s for s in lines if s.strip()), model_writer=model, vocab_size=size, num_threads=1,
        character_coverage=0.98, hard_vocab_limit=False, minloglevel=2, max_sentence_length=100000, **normal, **options)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    proto.trainer_spec.ClearField("input")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    return proto


def spm_reference(proto, added):
    """SentencePiece on what is between added tokens."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    parts = re.compile("(" + "|".join(map(re.escape, sorted(added, key=len, reverse=True))) + ")")

    def ids(lines):
        return [[i for part in parts.split(s) if part for i in ([added[part]] if part in added else sp.encode(part))]
                for s in lines]
    return ids


def fast(tokenizer):
    def ids(lines):
        return [e.ids for e in tokenizer.encode_batch(list(lines), add_special_tokens=False)]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ids


def save(tokenizer, folder):
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    return fast(Tokenizer.from_str(tokenizer.to_str()))  # the caller goes on to change it


def byte_level(folder, size, lines, out):
    """vocab.json with merges.txt as RoBERTa has them; tokenizer.json with other options."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=ROBERTA, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(lines, trainer)
    os.makedirs(os.path.join(folder, "roberta"), exist_ok=True)
    t.model.save(os.path.join(folder, "roberta"))
    out["roberta"] = fast(RobertaTokenizer.from_pretrained(os.path.join(folder, "roberta")).backend_tokenizer)
    model = json.loads(t.to_str())["model"]
    model["vocab"] = {p: i for p, i in model["vocab"].items() if p != "\u0133"}  # a byte that is unknown
    model["merges"] = [m for m in model["merges"] if "\u0133" not in "".join(m)]
    model["vocab"] = {p: i for i, p in enumerate(sorted(model["vocab"], key=model["vocab"].get))}
    t = Tokenizer(models.BPE(model["vocab"], [tuple(m) for m in model["merges"]], unk_token="<unk>", fuse_unk=True,
                             ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=True)])
    t.normalizer = normalizers.NFC()
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(ROBERTA[:4] + [AddedToken("<mask>", lstrip=True, special=True)])
    t.add_tokens([AddedToken("Caf\u00e9", single_word=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    out["byte_level"] = save(t, os.path.join(folder, "byte_level"))


def character_bpe(folder, size, lines, out):
    """BPE over characters: by words with [UNK], and in SentencePiece's manner with bytes for what is unknown."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)])
    t.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=size, limit_alphabet=200, special_tokens=["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    out["word_bpe"] = save(t, os.path.join(folder, "word_bpe"))

    alphabet = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, limit_alphabet=150, max_token_length=12,
                                                     special_tokens=alphabet, show_progress=False))
    model = json.loads(t.to_str())["model"]
    t = Tokenizer(models.BPE(model["vocab"], [tuple(m) for m in model["merges"]], unk_token="<unk>", byte_fallback=True,
                             fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)])
    out["fallback_bpe"] = save(t, os.path.join(folder, "fallback_bpe"))


def unigram(folder, proto, out):
    """tokenizer.json as transformers 4 converts SentencePiece models, and as transformers 5 makes them anew."""
    pieces = [(p.piece, p.score) for p in proto.pieces]
    charsmap = proto.normalizer_spec.precompiled_charsmap
    t = Tokenizer(models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Precompiled(charsmap),
                                         normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()])
    t.decoder = decoders.Metaspace()
    t.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", AddedToken("[UNK]", normalized=True, special=True), "[MASK]"])
    t.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    out["deberta_4"] = save(t, os.path.join(folder, "deberta_4"))

    t.model = models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=False)
    t.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(),
                                         normalizers.Strip(left=False, right=True)])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    out["deberta_5"] = save(t, os.path.join(folder, "deberta_5"))

    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(),
                                         normalizers.Replace("``", '"'), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(split=False)])
    out["unigram_nmt"] = save(t, os.path.join(folder, "unigram_nmt"))

    t.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKC(),
                                         normalizers.Strip(left=False, right=True)])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    out["unigram_first"] = save(t, os.path.join(folder, "unigram_first"))


def write_spm(folder, name, file, proto, config):
    path = os.path.join(folder, name)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, file), "wb") as f:
        f.write(proto.SerializeToString())
    if config:
        write(os.path.join(path, "tokenizer_config.json"), json.dumps(config, indent=2) + "\n")
    return path


def sentence_pieces(folder, size, small, lines, out):
    deberta = dict(pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
                   unk_piece="[UNK]", scratch=folder)
    specials = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}

    proto = train_spm(size, small, lines, byte_fallback=True, **deberta)
    write_spm(folder, "deberta", "spm.model", proto, {"tokenizer_class": "DebertaV2Tokenizer"})
    out["deberta"] = spm_reference(proto, {**specials, "[MASK]": len(proto.pieces)})
    unigram(folder, proto, out)

    proto = train_spm(size, small, lines, user_defined_symbols=["<user>", "\u2026", "an an"], **deberta)
    proto.pieces[40].type = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
    write_spm(folder, "deberta_user", "spm.model", proto, None)
    out["deberta_user"] = spm_reference(proto, {**specials, "[MASK]": len(proto.pieces)})

    proto = train_spm(size, small, lines, model_type="bpe", user_defined_symbols=["<user>", "\u2026"],
                      remove_extra_whitespaces=False, **deberta)
    for i in range(10, 60, 7):
        proto.pieces[i].type = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
    write_spm(folder, "deberta_bpe", "spm.model", proto, None)
    out["deberta_bpe"] = spm_reference(proto, {**specials, "[MASK]": len(proto.pieces)})

    proto = train_spm(size, small, lines, scratch=folder)
    path = write_spm(folder, "xlm", "sentencepiece.bpe.model", proto, {"tokenizer_class": "XLMRobertaTokenizer"})
    out["xlm"] = fast(XLMRobertaTokenizer.from_pretrained(path).backend_tokenizer)
    path = write_spm(folder, "camembert", "sentencepiece.bpe.model", proto, {"tokenizer_class": "CamembertTokenizer"})
    out["camembert"] = fast(CamembertTokenizer.from_pretrained(path).backend_tokenizer)

    proto = train_spm(size, small, lines, scratch=folder, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
                      control_symbols=["[CLS]", "[SEP]"], user_defined_symbols=["[MASK]"])
    path = write_spm(folder, "albert", "spiece.model", proto, {"tokenizer_class": "AlbertTokenizer"})
    out["albert"] = fast(AlbertTokenizer.from_pretrained(path).backend_tokenizer)


# One or more of each part that code points play in grapheme clusters.
PARTS = [0x61, 0xA9, 0x301, 0x300, 0x200D, 0x915, 0x916, 0x94D, 0x93C, 0x993, 0x9CD, 0x9BC, 0x903, 0x93F, 0x600, 0x6DD, 0x70F,
         0x8E2, 0x1100, 0x1161, 0x11A8, 0xAC00, 0xAC01, 0x2764, 0xFE0F, 0x1F468, 0x1F3FD, 0x1F1E9, 0x0D, 0x0A, 0x09, 0x85, 0xAD,
         0x200B, 0x200C, 0x20E3, 0xAE, 0x203C, 0xD4D, 0xD15, 0x1039, 0x1000, 0x17D2, 0x1780, 0xE33, 0xE40, 0x302E, 0x1D165,
         0x110BD, 0x11F02, 0xD4E, 0x1B44, 0x1B05, 0xA9C0, 0xA98F, 0x0F, 0x7F, 0x2028, 0x61A, 0x300A, 0xB7, 0x345, 0x1193F,
         0x111C2, 0x16D63, 0x16D67, 0xD7B0, 0xD7CB, 0xA960, 0xAF9, 0x1CF5]


def clusters(folder, count, seed):
    """A map whose results tell where clusters end, and lines of nothing but their parts: a reference and the lines."""
    rules = [(chr(c), chr(0x30 + i)) for i, c in enumerate(PARTS) if i % 2 == 0 and c not in (0x0D, 0x0A)]
    rules += [("a\u0301", "!"), ("\u00a9\u0301", "?")]
    proto = train_spm(300, True, corpus(400), rules, scratch=folder)
    points = sorted(set(PARTS) | set(range(0x21, 0x7F)))
    t = Tokenizer(models.Unigram([("<unk>", 0.0)] + [(chr(c), -1.0) for c in points], unk_id=0))
    t.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    t.post_processor = processors.RobertaProcessing(("!", 1), ("!", 1))
    r = random.Random(seed)
    return (save(t, os.path.join(folder, "clusters")),
            ["".join(chr(r.choice(PARTS)) for _ in range(r.randrange(1, 14))) for _ in range(count)])


def build(folder, size, small):
    lines, out = list(corpus(4000)), {}
    os.makedirs(folder, exist_ok=True)
    byte_level(folder, size, lines, out)
    character_bpe(folder, size, lines, out)
    sentence_pieces(folder, size, small, lines, out)
    os.remove(os.path.join(folder, "rules.tsv"))
    return out
