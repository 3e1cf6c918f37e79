"""What stands beside a tokenizer.json: tokenizer_config.json, special_tokens_map.json, added_tokens.json, config.json.

Each variant of a folder is opened by transformers' AutoTokenizer and by cohort: equal ids with special tokens on hard lines and
lines that name the tokens, or a refusal whose sentence names the key. Two texts take the same way where the template allows it.
"""
import json
import os
import shutil
import subprocess

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AlbertTokenizer, AutoTokenizer, CamembertTokenizer, DebertaV2Tokenizer, RobertaTokenizer
from transformers import XLMRobertaTokenizer

import common
import tokenizer as lines_of

WORDS = ["H\u00e9llo wOrld [SEP] x", "wOrld [MASK] \u4e2d\u6587 [CLS]", "plain words, and 3.5 more</s>", "  two  spaces ", "",
         "<s>wOrld <mask> x", "\u00c5ngstr\u00f6m [UNK] \u1e9e"]
NEW = {"content": "wOrld", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


def change(path, **keys):
    """Set keys of a JSON file, which may be new; None removes."""
    value = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            value = json.load(f)
    for key, new in keys.items():
        at = value
        *folders, last = key.split("__")
        for folder in folders:
            at = at[folder]
        if new is None:
            at.pop(last, None)
        else:
            at[last] = new
    common.write_json(path, value)


def cohort_ids(folder, lines):
    program = os.path.join(os.path.dirname(common.COHORT), "tests", "long_encode_lines")
    run = subprocess.run([program, folder, "--whole"], input="".join(json.dumps({"text": s}) + "\n" for s in lines),
                         capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return None, run.stderr.strip().split("\n")[-1]
    return [json.loads(row)["ids"] for row in run.stdout.strip().split("\n")], ""


def variant(report, scratch, base, what, lines, refused=None, files=(), drop=(), **config):
    """files: (name, keys) of other files to change; drop: files to remove; config: of tokenizer_config.json."""
    folder = os.path.join(scratch, "variant")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    change(os.path.join(folder, "tokenizer_config.json"), **config)
    for name, keys in files:
        change(os.path.join(folder, name), **keys)
    for name in drop:
        os.remove(os.path.join(folder, name))
    got, said = cohort_ids(folder, lines)
    if refused is not None:
        report.equal(f"{what}: refused", got is None and refused in said, True)
        if got is not None or refused not in said:
            print("   ", said or "not refused")
        return
    wanted = AutoTokenizer.from_pretrained(folder)(lines)["input_ids"]
    different = -1 if got is None else sum(a != b for a, b in zip(got, wanted))
    report.equal(f"{what}: lines of {len(lines)} that differ", different, 0)
    if different != 0:
        for i in range(len(lines)):
            if got is None or got[i] != wanted[i]:
                print(f"    {lines[i]!a}\n    got    {said if got is None else got[i]}\n    wanted {wanted[i]}")
                break


def bert(report, scratch, lines):
    base = os.path.join(scratch, "bert")
    shutil.copytree(common.MINILM, base)
    os.remove(os.path.join(base, "model.safetensors"))
    cased = (("tokenizer.json", {"normalizer__lowercase": False, "normalizer__strip_accents": False}),)

    def one(what, **keys):
        variant(report, scratch, base, f"BERT, {what}", lines, **keys)
    one("as it is")
    for key, value in (("do_lower_case", False), ("strip_accents", False), ("strip_accents", True),
                       ("tokenize_chinese_chars", False), ("add_prefix_space", True), ("unk_token", "[MASK]")):
        one(f"{key} {value}", **{key: value})
    one("cased tokenizer.json, nothing said", files=cased, do_lower_case=None, strip_accents=None, tokenize_chinese_chars=None)
    one("cased tokenizer.json, no class", files=cased, tokenizer_class=None, do_lower_case=None)
    one("cased tokenizer.json, no tokenizer_config.json", files=cased, drop=("tokenizer_config.json",))
    one("cased tokenizer.json, PreTrainedTokenizerFast", files=cased, tokenizer_class="PreTrainedTokenizerFast")
    one("cls_token of special_tokens_map.json", files=(("special_tokens_map.json", {"cls_token": "[MASK]"}),))
    one("cls_token of tokenizer_config.json, which the map goes before", cls_token="[MASK]")
    one("an extra special token", extra_special_tokens=["wOrld"])
    one("an additional special token", additional_special_tokens=["wOrld"])
    one("an additional special token of the map", files=(("special_tokens_map.json", {"additional_special_tokens": ["wOrld"]}),))
    one("added_tokens.json", files=(("added_tokens.json", {"wOrld": 30522}),))
    one("added_tokens_decoder", added_tokens_decoder={"30522": NEW})
    one("an added token, PreTrainedTokenizerFast", tokenizer_class="PreTrainedTokenizerFast", added_tokens_decoder={"30522": NEW})
    one("no post_processor", files=(("tokenizer.json", {"post_processor": None}),))
    one("no post_processor, PreTrainedTokenizerFast", files=(("tokenizer.json", {"post_processor": None}),),
        tokenizer_class="PreTrainedTokenizerFast")
    one("a post_processor that places nothing, PreTrainedTokenizerFast", tokenizer_class="PreTrainedTokenizerFast",
        files=(("tokenizer.json", {"post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                                                      "use_regex": False}}),))
    one("no post_processor, no class", files=(("tokenizer.json", {"post_processor": None}),), tokenizer_class=None,
        drop=("config.json",))
    one("split_special_tokens", split_special_tokens=True, refused="split_special_tokens")
    one("truncation_side", truncation_side="left", refused="truncation_side")
    left = {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    one("truncation of tokenizer.json", files=(("tokenizer.json", {"truncation": left}),), refused="truncation")
    one("truncation of tokenizer.json, and a side", files=(("tokenizer.json", {"truncation": left}),), truncation_side="right")
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    one("a template for single texts", files=(("tokenizer.json", {"post_processor__pair": pair}),),
        tokenizer_class="PreTrainedTokenizerFast")


def roberta(report, scratch, lines):
    raw, base = os.path.join(scratch, "roberta-raw"), os.path.join(scratch, "roberta")
    os.makedirs(raw)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=600, special_tokens=names, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.model.save(raw)
    common.write_json(os.path.join(raw, "tokenizer_config.json"), {"tokenizer_class": "RobertaTokenizer"})
    RobertaTokenizer.from_pretrained(raw).save_pretrained(base)

    def one(what, **keys):
        variant(report, scratch, base, f"RoBERTa, {what}", lines, **keys)
    one("as it is")
    one("add_prefix_space", add_prefix_space=True)
    one("add_prefix_space of tokenizer.json alone", add_prefix_space=None,
        files=(("tokenizer.json", {"pre_tokenizer__add_prefix_space": True}),))
    one("add_prefix_space, PreTrainedTokenizerFast", tokenizer_class="PreTrainedTokenizerFast", add_prefix_space=True)
    one("sep_token", sep_token="<pad>")
    one("cls_token", cls_token="<pad>")
    one("no post_processor", files=(("tokenizer.json", {"post_processor": None}),))
    one("an extra special token", extra_special_tokens=["wOrld"])


def unigram(lines, *special):
    """Pieces of one character, with scores."""
    pieces = [(p, 0.0) for p in special] + [("\u2581", -2.0)]
    seen = {p for p, _ in pieces}
    for line in lines:
        for c in line.replace(" ", "\u2581") + line.lower():
            if c not in seen and not c.isspace():
                seen.add(c)
                pieces.append((c, -4.0 - len(pieces) * 1e-3))
    return pieces


def deberta(report, scratch, lines):
    base = os.path.join(scratch, "deberta")
    DebertaV2Tokenizer(vocab=unigram(lines, "[PAD]", "[CLS]", "[SEP]", "[UNK]")).save_pretrained(base)

    def one(what, **keys):
        variant(report, scratch, base, f"DeBERTa-v2, {what}", lines, **keys)
    one("as it is")
    one("cls_token", cls_token="[MASK]")
    one("do_lower_case", do_lower_case=True, refused="do_lower_case")
    one("split_by_punct", split_by_punct=True, refused="split_by_punct")


def sentencepiece(report, scratch, lines):
    """Classes that transformers 4 leaves tokenizer.json to, and transformers 5 does not: alike, or refused."""
    made = [("XLM-RoBERTa", XLMRobertaTokenizer, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
            ("CamemBERT", CamembertTokenizer, ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<mask>", "<s>",
                                               "</s>"]),
            ("ALBERT", AlbertTokenizer, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])]
    for name, cls, special in made:
        base = os.path.join(scratch, name)
        cls(vocab=unigram(lines, *special)).save_pretrained(base)

        def one(what, **keys):
            variant(report, scratch, base, f"{name}, {what}", lines, **keys)
        one("as it is")
        one("add_prefix_space", add_prefix_space=False, refused="add_prefix_space")
        one("no post_processor", files=(("tokenizer.json", {"post_processor": None}),))
        one("an extra special token", extra_special_tokens=["wOrld"])
        if cls is AlbertTokenizer:
            one("do_lower_case", do_lower_case=False, refused="do_lower_case")
            one("keep_accents", keep_accents=True, refused="keep_accents")
        else:
            one("cls_token", cls_token="<pad>")
            one("bos_token", bos_token="<pad>", refused="bos_token")
            one("eos_token", eos_token="<pad>", refused="eos_token")


def main(report, scratch):
    lines = WORDS + [line.replace("\0", "\1") for line in lines_of.hard_lines(500, 7)]
    bert(report, scratch, lines)
    roberta(report, scratch, lines)
    deberta(report, scratch, lines)
    sentencepiece(report, scratch, lines)


if __name__ == "__main__":
    common.run_script("tokenizer_config", main)
