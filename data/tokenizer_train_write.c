/*
 * tokenizer_train_write.c - the files of a new tokenizer, as Hugging Face's tokenizers and
 * transformers write them; see tokenizer_train.h.
 *
 * tokenizer_config.json names PreTrainedTokenizerFast, which takes tokenizer.json as it is: classes
 * of families would put their own normalizer in place of the one the pieces were made with.
 */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_train_parts.h"
#include "data/unicode.h"

int32_t train_special(const struct vocabulary *v, int named)
{
    static const char *const names[NAMED_COUNT][2] = {[NAMED_UNK] = {"[UNK]", "<unk>"},
                                                      [NAMED_PAD] = {"[PAD]", "<pad>"},
                                                      [NAMED_CLS] = {"[CLS]", "<s>"},
                                                      [NAMED_SEP] = {"[SEP]", "</s>"},
                                                      [NAMED_MASK] = {"[MASK]", "<mask>"}};
    for (int i = 0; i < 2 && names[named][i] != NULL; i++) {
        int32_t id = trie_find(&v->ids, names[named][i], strlen(names[named][i]));
        if (id >= 0 && id < v->specials)
            return id;
    }
    return -1;
}

static enum status add_piece(const struct vocabulary *v, int32_t id, struct str *out)
{
    const char *piece = vocabulary_piece(v, id);
    return str_add_json(out, piece, strlen(piece));
}

/* ---- tokenizer.json ---- */

static enum status add_normalizer(const struct vocabulary *v, struct str *out)
{
    static const struct {
        const char *name, *json;
    } known[] = {
        {"nfc", "{\"type\": \"NFC\"}"},
        {"nfd", "{\"type\": \"NFD\"}"},
        {"nfkc", "{\"type\": \"NFKC\"}"},
        {"nfkd", "{\"type\": \"NFKD\"}"},
        {"nmt", "{\"type\": \"Nmt\"}"},
        {"lowercase", "{\"type\": \"Lowercase\"}"},
        {"strip_accents", "{\"type\": \"StripAccents\"}"},
        {"spaces",
         "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}"},
        {"bert", "{\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": "
                 "true, \"strip_accents\": null, \"lowercase\": true}"},
        {"bert_cased", "{\"type\": \"BertNormalizer\", \"clean_text\": true, "
                       "\"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": "
                       "false}"}};
    static const char *const usual[] = {
        [TRAIN_WORDPIECE] = "bert", [TRAIN_BPE] = "none", [TRAIN_UNIGRAM] = "nmt,nfkc,spaces"};
    const char *list = v->opts->normalizer, *end;
    bool decomposed = false;
    if (strcmp(list, "auto") == 0)
        list = usual[v->opts->model];
    if (strcmp(list, "none") == 0 || *list == '\0')
        return str_addf(out, "null");
    TRY(str_addf(out, "{\"type\": \"Sequence\", \"normalizers\": ["));
    for (const char *p = list;; p = end + 1) {
        size_t n, i = 0;
        p += strspn(p, " ");
        n = strcspn(p, ", ");
        end = p + n + strspn(p + n, " ");
        while (i < sizeof known / sizeof known[0] &&
               (strlen(known[i].name) != n || memcmp(known[i].name, p, n) != 0))
            i++;
        if (i == sizeof known / sizeof known[0] || (*end != '\0' && *end != ','))
            return status_fail(STATUS_CONFIG,
                               "tokenizer.normalizer is \"%.200s\": \"%.*s\" is not known, wanted "
                               "auto, none, or nfc nfd nfkc nfkd nmt lowercase strip_accents "
                               "spaces bert bert_cased joined by commas",
                               v->opts->normalizer, (int)(n < 60 ? n : 60), p);
        decomposed = strcmp(known[i].name, "nfd") == 0 || strcmp(known[i].name, "nfkd") == 0 ||
                     (decomposed && strncmp(known[i].name, "nf", 2) != 0);
        if (strcmp(known[i].name, "strip_accents") == 0 && !decomposed)
            return status_fail(STATUS_CONFIG,
                               "tokenizer.normalizer is \"%.200s\": strip_accents finds accents "
                               "only behind nfd or nfkd",
                               v->opts->normalizer);
        TRY(str_addf(out, "%s%s", known[i].json, *end == ',' ? ", " : ""));
        if (*end == '\0')
            break;
    }
    return str_addf(out, "]}");
}

/* How words are cut, and how pieces become text again. */
static enum status add_words(const struct vocabulary *v, bool decoder, struct str *out)
{
    static const char metaspace[] = "{\"type\": \"Metaspace\", \"replacement\": \"" TRAIN_MARK
                                    "\", \"prepend_scheme\": \"always\", \"split\": true}";
    static const char *const cutters[] = {
        [TRAIN_WORDS_WHITESPACE] = "{\"type\": \"Whitespace\"}",
        [TRAIN_WORDS_SPLIT] = "{\"type\": \"WhitespaceSplit\"}",
        [TRAIN_WORDS_BERT] = "{\"type\": \"BertPreTokenizer\"}",
        [TRAIN_WORDS_BYTES] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                              "\"trim_offsets\": true, \"use_regex\": true}",
        [TRAIN_WORDS_METASPACE] = metaspace};
    enum train_words words = v->opts->words;
    if (!decoder)
        return str_addf(out, "%s", cutters[words]);
    if (v->opts->model == TRAIN_WORDPIECE)
        return str_addf(out, "{\"type\": \"WordPiece\", \"prefix\": \"" TRAIN_PREFIX
                             "\", \"cleanup\": true}");
    bool marks = words == TRAIN_WORDS_BYTES || words == TRAIN_WORDS_METASPACE;
    return str_addf(out, "%s", marks ? cutters[words] : "null");
}

static enum status add_added_tokens(const struct vocabulary *v, struct str *out)
{
    for (int32_t id = 0; id < v->specials; id++) {
        TRY(str_addf(out, "%s\n    {\"id\": %d, \"content\": ", id == 0 ? "" : ",", id));
        TRY(add_piece(v, id, out));
        TRY(str_addf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                          "\"normalized\": false, \"special\": true}"));
    }
    return STATUS_OK;
}

/* c and s: the first and last token; 1: the text A, 2: the text B; each with its type. */
static enum status add_template(const struct vocabulary *v, const char *places, struct str *out)
{
    for (const char *p = places; *p != '\0'; p += 2) {
        TRY(str_addf(out, "%s", p == places ? "[" : ", "));
        if (*p == '1' || *p == '2') {
            TRY(str_addf(out, "{\"Sequence\": {\"id\": \"%c\"", *p == '1' ? 'A' : 'B'));
        } else {
            TRY(str_addf(out, "{\"SpecialToken\": {\"id\": "));
            TRY(add_piece(v, train_special(v, *p == 'c' ? NAMED_CLS : NAMED_SEP), out));
        }
        TRY(str_addf(out, ", \"type_id\": %c}}", p[1]));
    }
    return str_addf(out, "]");
}

/* As BERT does it; as RoBERTa where the first token is RoBERTa's. */
static enum status add_post_processor(const struct vocabulary *v, struct str *out)
{
    bool roberta = vocabulary_piece(v, train_special(v, NAMED_CLS))[0] == '<';
    TRY(str_addf(out, "{\"type\": \"TemplateProcessing\", \"single\": "));
    TRY(add_template(v, "c010s0", out));
    TRY(str_addf(out, ", \"pair\": "));
    TRY(add_template(v, roberta ? "c010s0s020s0" : "c010s021s1", out));
    TRY(str_addf(out, ", \"special_tokens\": {"));
    for (int i = 0; i < 2; i++) {
        int32_t id = train_special(v, i == 0 ? NAMED_CLS : NAMED_SEP);
        TRY(add_piece(v, id, out));
        TRY(str_addf(out, ": {\"id\": "));
        TRY(add_piece(v, id, out));
        TRY(str_addf(out, ", \"ids\": [%d], \"tokens\": [", id));
        TRY(add_piece(v, id, out));
        TRY(str_addf(out, "]}%s", i == 0 ? ", " : "}}"));
    }
    return STATUS_OK;
}

/* An object of pieces and ids, each line behind indent. */
static enum status add_vocab(const struct vocabulary *v, const char *indent, struct str *out)
{
    TRY(str_addf(out, "{"));
    for (int32_t id = 0; id < (int32_t)v->count; id++) {
        TRY(str_addf(out, "%s\n%s", id == 0 ? "" : ",", indent));
        TRY(add_piece(v, id, out));
        TRY(str_addf(out, ": %d", id));
    }
    return str_addf(out, "\n%.*s}", (int)strlen(indent) - 2, indent);
}

static enum status add_scores(const struct vocabulary *v, struct str *out)
{
    TRY(str_addf(out, "["));
    for (int32_t id = 0; id < (int32_t)v->count; id++) {
        TRY(str_addf(out, "%s\n      [", id == 0 ? "" : ","));
        TRY(add_piece(v, id, out));
        TRY(str_addf(out, ", "));
        if (id < v->specials)
            TRY(str_addf(out, "0.0"));
        else
            TRY(str_add_double(out, v->scores[id]));
        TRY(str_addf(out, "]"));
    }
    return str_addf(out, "\n    ]");
}

static enum status add_model(const struct vocabulary *v, struct str *out)
{
    int32_t unk = train_special(v, NAMED_UNK);
    switch (v->opts->model) {
    case TRAIN_WORDPIECE:
        TRY(str_addf(out, "{\n    \"type\": \"WordPiece\",\n    \"unk_token\": "));
        TRY(add_piece(v, unk, out));
        TRY(str_addf(out,
                     ",\n    \"continuing_subword_prefix\": \"" TRAIN_PREFIX
                     "\",\n    \"max_input_chars_per_word\": %d,\n    \"vocab\": ",
                     TRAIN_WORDPIECE_LONGEST));
        TRY(add_vocab(v, "      ", out));
        break;
    case TRAIN_BPE:
        TRY(str_addf(out,
                     "{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": "));
        TRY(v->bytes ? str_addf(out, "null") : add_piece(v, unk, out));
        TRY(str_addf(out, ",\n    \"continuing_subword_prefix\": null,\n    "
                          "\"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    "
                          "\"byte_fallback\": false,\n    \"ignore_merges\": false,\n    "
                          "\"vocab\": "));
        TRY(add_vocab(v, "      ", out));
        TRY(str_addf(out, ",\n    \"merges\": ["));
        for (size_t i = 0; i < v->merge_count; i++) {
            TRY(str_addf(out, "%s\n      [", i == 0 ? "" : ","));
            TRY(add_piece(v, v->merges[i].left, out));
            TRY(str_addf(out, ", "));
            TRY(add_piece(v, v->merges[i].right, out));
            TRY(str_addf(out, "]"));
        }
        TRY(str_addf(out, "\n    ]"));
        break;
    case TRAIN_UNIGRAM:
        TRY(str_addf(out,
                     "{\n    \"type\": \"Unigram\",\n    \"unk_id\": %d,\n    \"vocab\": ", unk));
        TRY(add_scores(v, out));
        TRY(str_addf(out, ",\n    \"byte_fallback\": false"));
        break;
    }
    return str_addf(out, "\n  }");
}

enum status train_json(const struct vocabulary *v, struct str *out)
{
    TRY(str_addf(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                      "  \"added_tokens\": ["));
    TRY(add_added_tokens(v, out));
    TRY(str_addf(out, "\n  ],\n  \"normalizer\": "));
    TRY(add_normalizer(v, out));
    TRY(str_addf(out, ",\n  \"pre_tokenizer\": "));
    TRY(add_words(v, false, out));
    TRY(str_addf(out, ",\n  \"post_processor\": "));
    TRY(add_post_processor(v, out));
    TRY(str_addf(out, ",\n  \"decoder\": "));
    TRY(add_words(v, true, out));
    TRY(str_addf(out, ",\n  \"model\": "));
    TRY(add_model(v, out));
    return str_addf(out, "\n}\n");
}

/* ---- The other files ---- */

/* Keys of tokens that have a part, and the others, as members of an object. */
static enum status add_special_keys(const struct vocabulary *v, struct str *out)
{
    bool taken[NAMED_COUNT] = {false}, any = false;
    TRY(str_addf(out, "{"));
    for (int named = 0; named < NAMED_COUNT; named++) {
        int32_t id = train_special(v, named);
        if (id < 0)
            continue;
        taken[named] = true;
        TRY(str_addf(out, "%s\n  \"%s\": ", any ? "," : "", named_keys[named]));
        TRY(add_piece(v, id, out));
        any = true;
    }
    const char *between = ",\n  \"additional_special_tokens\": [";
    bool more = false;
    for (int32_t id = 0; id < v->specials; id++) {
        bool part = false;
        for (int named = 0; named < NAMED_COUNT; named++)
            part = part || (taken[named] && train_special(v, named) == id);
        if (part)
            continue;
        TRY(str_addf(out, "%s", more ? ", " : between));
        TRY(add_piece(v, id, out));
        more = true;
    }
    return more ? str_addf(out, "]") : STATUS_OK;
}

/* Whether a piece has white space, which merges.txt cannot hold. */
static bool has_space(const struct vocabulary *v)
{
    for (int32_t id = v->specials; id < (int32_t)v->count; id++) {
        const char *s = vocabulary_piece(v, id);
        for (size_t n = strlen(s), i = 0; i < n;) {
            uint32_t c;
            i += (size_t)utf8_decode(s + i, n - i, &c);
            if (unicode_class(c)->flags & UNICODE_SPACE)
                return true;
        }
    }
    return false;
}

static enum status write_file(const char *folder, enum tokenizer_file file, const struct str *text)
{
    char *path;
    TRY(path_join(folder, tokenizer_file_names[file], &path));
    enum status st = file_write_atomic(path, text->p, text->n);
    mem_free(path);
    return st;
}

static enum status remove_file(const char *folder, enum tokenizer_file file)
{
    char *path;
    TRY(path_join(folder, tokenizer_file_names[file], &path));
    if (file_exists(path))
        (void)unlink(path); /* tokenizer.json goes before it anyway */
    mem_free(path);
    return STATUS_OK;
}

static enum status vocab_text(const struct vocabulary *v, struct str *out)
{
    for (int32_t id = 0; id < (int32_t)v->count; id++)
        TRY(str_addf(out, "%s\n", vocabulary_piece(v, id)));
    return STATUS_OK;
}

static enum status merges_text(const struct vocabulary *v, struct str *out)
{
    TRY(str_addf(out, "#version: 0.2\n"));
    for (size_t i = 0; i < v->merge_count; i++)
        TRY(str_addf(out, "%s %s\n", vocabulary_piece(v, v->merges[i].left),
                     vocabulary_piece(v, v->merges[i].right)));
    return STATUS_OK;
}

enum status train_write(const struct vocabulary *v, const char *folder)
{
    struct str text = {0};
    enum status st = STATUS_OK;
    static const enum tokenizer_file old[] = {FILE_VOCAB, FILE_VOCAB_JSON, FILE_MERGES, FILE_ADDED};
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        TRY_GOTO(done, remove_file(folder, old[i]));
    if (v->opts->model == TRAIN_WORDPIECE) {
        TRY_GOTO(done, vocab_text(v, &text));
        TRY_GOTO(done, write_file(folder, FILE_VOCAB, &text));
    } else if (v->opts->model == TRAIN_BPE && has_space(v)) {
        log_info("no vocab.json and merges.txt: pieces hold white space, which those cannot say");
    } else if (v->opts->model == TRAIN_BPE) {
        TRY_GOTO(done, add_vocab(v, "  ", &text));
        TRY_GOTO(done, write_file(folder, FILE_VOCAB_JSON, &text));
        str_clear(&text);
        TRY_GOTO(done, merges_text(v, &text));
        TRY_GOTO(done, write_file(folder, FILE_MERGES, &text));
    }
    str_clear(&text);
    TRY_GOTO(done, add_special_keys(v, &text));
    TRY_GOTO(done, str_addf(&text, "\n}\n"));
    TRY_GOTO(done, write_file(folder, FILE_SPECIAL, &text));
    text.n -= 3; /* the same again, and the class */
    if (v->opts->max_length > 0)
        TRY_GOTO(done, str_addf(&text, ",\n  \"model_max_length\": %lld",
                                (long long)v->opts->max_length));
    TRY_GOTO(done, str_addf(&text, ",\n  \"clean_up_tokenization_spaces\": false,\n"
                                   "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n"));
    TRY_GOTO(done, write_file(folder, FILE_CONFIG, &text));
    str_clear(&text);
    TRY_GOTO(done, train_json(v, &text));
    st = write_file(folder, FILE_TOKENIZER, &text);
done:
    str_release(&text);
    return st;
}
