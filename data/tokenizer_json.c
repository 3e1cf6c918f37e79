/*
 * tokenizer_json.c - the parts of a tokenizer from tokenizer.json, as Hugging Face's tokenizers
 * writes it.
 *
 * What is known is taken, what would change ids and is not known is refused by name. truncation and
 * padding are ignored: length is the caller's.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"

#define MAX_NESTING 8

/* object[key] as a bool that must be there: tokenizers refuses files without it. */
static enum status need_bool(const json_t *object, const char *key, const char *where, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = false;
    if (!json_is_boolean(value))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not true or false", where, key);
    *out = json_is_true(value);
    return STATUS_OK;
}

/* object["type"], of an object that is part of the file; what names it in sentences. */
static enum status type_of(const json_t *object, const char *what, const char *where,
                           const char **type)
{
    *type = json_string_value(json_object_get(object, "type"));
    if (*type == NULL)
        return status_fail(STATUS_FORMAT, "%s: %s is not an object with a \"type\"", where, what);
    return STATUS_OK;
}

static enum status unknown_part(const char *where, const char *what, const char *type,
                                const char *known)
{
    return status_fail(STATUS_FORMAT, "%s: %s \"%.60s\" is not known here, wanted %s", where, what,
                       type, known);
}

/* object[key] as a text of one character. */
static enum status need_character(const json_t *object, const char *key, const char *where,
                                  const char **out)
{
    uint32_t c;
    TRY(json_text(object, key, where, out));
    size_t n = strlen(*out);
    if (n == 0 || (size_t)utf8_decode(*out, n, &c) != n)
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not one character", where, key);
    return STATUS_OK;
}

/* ---- Normalizers ---- */

/* Replace: any text, or one of the expressions for white space that the families use. */
static enum status read_replace(struct tokenizer *t, const json_t *object, const char *where)
{
    static const struct {
        const char *expression;
        bool any, breaks;
        int least;
    } known[] = {{" {2,}", false, false, 2},
                 {" +", false, false, 1},
                 {"\\s+", true, false, 1},
                 {"\\s{2,}", true, false, 2},
                 {"\\s{2,}|[\\n\\r\\t]", true, true, 2}};
    const json_t *pattern = json_object_get(object, "pattern");
    const char *from = json_string_value(json_object_get(pattern, "String")),
               *expression = json_string_value(json_object_get(pattern, "Regex")), *to;
    struct normalize_step *step = NULL;
    size_t i = 0;
    TRY(json_text(object, "content", where, &to));
    if ((from == NULL || *from == '\0') && expression == NULL)
        return status_fail(STATUS_FORMAT,
                           "%s: the \"pattern\" of Replace is not a String or a Regex", where);
    while (from == NULL && i < sizeof known / sizeof known[0] &&
           strcmp(expression, known[i].expression) != 0)
        i++;
    if (i == sizeof known / sizeof known[0])
        return unknown_part(where, "Replace with the expression", expression,
                            "a String, \" {2,}\", \" +\", \"\\s+\", \"\\s{2,}\" or "
                            "\"\\s{2,}|[\\n\\r\\t]\"");
    TRY(tokenizer_add_step(t, where, from != NULL ? NORMALIZE_REPLACE : NORMALIZE_SPACES, &step));
    step->to_n = strlen(to);
    TRY(mem_strdup(to, &step->to));
    if (from == NULL) {
        step->spaces.any = known[i].any;
        step->spaces.breaks = known[i].breaks;
        step->spaces.least = known[i].least;
        return STATUS_OK;
    }
    step->from_n = strlen(from);
    return mem_strdup(from, &step->from);
}

static enum status read_bert_normalizer(struct tokenizer *t, const json_t *object,
                                        const char *where)
{
    bool clean, cjk, strip, lowercase;
    struct normalize_step *step = NULL;
    TRY(need_bool(object, "clean_text", where, &clean));
    TRY(need_bool(object, "handle_chinese_chars", where, &cjk));
    TRY(need_bool(object, "lowercase", where, &lowercase));
    TRY(json_bool_or(object, "strip_accents", where, lowercase, &strip));
    TRY(tokenizer_add_step(t, where, NORMALIZE_PASS, &step));
    normalize_step_init(step, (clean ? NORMALIZE_CLEAN : 0u) | (cjk ? NORMALIZE_CJK : 0u) |
                                  (strip ? NORMALIZE_DECOMPOSE | NORMALIZE_NONSPACING : 0u) |
                                  (lowercase ? NORMALIZE_LOWERCASE : 0u));
    return STATUS_OK;
}

/* Those that have options; *known is whether type is one of them. */
static enum status read_rich_normalizer(struct tokenizer *t, const json_t *object, const char *type,
                                        const char *where, bool *known)
{
    struct normalize_step *step = NULL;
    const char *text;
    *known = true;
    if (strcmp(type, "BertNormalizer") == 0)
        return read_bert_normalizer(t, object, where);
    if (strcmp(type, "Replace") == 0)
        return read_replace(t, object, where);
    if (strcmp(type, "Strip") == 0) {
        TRY(tokenizer_add_step(t, where, NORMALIZE_STRIP, &step));
        TRY(need_bool(object, "strip_left", where, &step->strip.left));
        return need_bool(object, "strip_right", where, &step->strip.right);
    }
    if (strcmp(type, "Prepend") == 0) {
        TRY(json_text(object, "prepend", where, &text));
        TRY(tokenizer_add_step(t, where, NORMALIZE_PREPEND, &step));
        step->to_n = strlen(text);
        return mem_strdup(text, &step->to);
    }
    if (strcmp(type, "Precompiled") == 0) {
        if (json_is_null(json_object_get(object, "precompiled_charsmap")))
            return STATUS_OK;
        TRY(json_text(object, "precompiled_charsmap", where, &text));
        TRY(tokenizer_add_step(t, where, NORMALIZE_CHARSMAP, &step));
        return charsmap_read_base64(&step->charsmap, text, strlen(text), where);
    }
    *known = false;
    return STATUS_OK;
}

static enum status read_normalizer(struct tokenizer *t, const json_t *object, const char *where,
                                   int nesting)
{
    static const struct {
        const char *type;
        unsigned bits;
        bool form, compat, compose, nmt;
    } plain[] = {{"NFD", NORMALIZE_DECOMPOSE, false, false, false, false},
                 {"Lowercase", NORMALIZE_LOWERCASE, false, false, false, false},
                 {"StripAccents", NORMALIZE_MARKS, false, false, false, false},
                 {"NFC", 0, true, false, true, false},
                 {"NFKC", 0, true, true, true, false},
                 {"NFKD", 0, true, true, false, false},
                 {"Nmt", 0, false, false, false, true}};
    const char *type = NULL;
    struct normalize_step *step = NULL;
    bool known;
    if (object == NULL || json_is_null(object))
        return STATUS_OK;
    TRY(type_of(object, "the normalizer", where, &type));
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (strcmp(type, plain[i].type) != 0)
            continue;
        TRY(tokenizer_add_step(t, where,
                               plain[i].form  ? NORMALIZE_FORM
                               : plain[i].nmt ? NORMALIZE_NMT
                                              : NORMALIZE_PASS,
                               &step));
        step->form.compat = plain[i].compat;
        step->form.compose = plain[i].compose;
        if (step->kind == NORMALIZE_PASS)
            normalize_step_init(step, plain[i].bits);
        return STATUS_OK;
    }
    TRY(read_rich_normalizer(t, object, type, where, &known));
    if (known)
        return STATUS_OK;
    if (strcmp(type, "Sequence") != 0)
        return unknown_part(where, "normalizer", type,
                            "BertNormalizer, NFC, NFD, NFKC, NFKD, Nmt, Lowercase, StripAccents, "
                            "Strip, Replace, Prepend, Precompiled or a Sequence");
    const json_t *parts = json_object_get(object, "normalizers"), *part;
    size_t i;
    if (!json_is_array(parts) || nesting == MAX_NESTING)
        return status_fail(STATUS_FORMAT,
                           "%s: a Sequence without \"normalizers\", or nested too deep", where);
    json_array_foreach(parts, i, part) TRY(read_normalizer(t, part, where, nesting + 1));
    return STATUS_OK;
}

/* ---- Pre-tokenizers ---- */

/* Rules of words that follow each other are one step. */
static enum status add_words(struct tokenizer *t, const char *where, unsigned bits)
{
    struct split_step *split = t->split_count == 0 ? NULL : &t->splits[t->split_count - 1];
    if (split == NULL || split->kind != SPLIT_WORDS)
        TRY(tokenizer_add_split(t, where, SPLIT_WORDS, &split));
    word_rules_init(&split->words, split->words.bits | bits);
    return STATUS_OK;
}

/* prepend_scheme and the older add_prefix_space. */
static enum status read_scheme(const json_t *object, const char *where, struct split_step *split)
{
    const char *scheme;
    bool space;
    TRY(json_text_or(object, "prepend_scheme", where, "always", &scheme));
    TRY(json_bool_or(object, "add_prefix_space", where, true, &space));
    split->prepend = strcmp(scheme, "always") == 0  ? PREPEND_ALWAYS
                     : strcmp(scheme, "first") == 0 ? PREPEND_FIRST
                                                    : PREPEND_NEVER;
    if (split->prepend == PREPEND_NEVER && strcmp(scheme, "never") != 0)
        return unknown_part(where, "prepend_scheme", scheme, "always, first or never");
    if (!space && split->prepend != PREPEND_NEVER)
        return status_fail(STATUS_FORMAT,
                           "%s: Metaspace has \"add_prefix_space\" false and \"prepend_scheme\" "
                           "\"%s\"",
                           where, scheme);
    return STATUS_OK;
}

static enum status read_metaspace(struct tokenizer *t, const json_t *object, const char *where)
{
    struct split_step *split = NULL;
    const char *mark;
    TRY(need_character(object, "replacement", where, &mark));
    TRY(tokenizer_add_split(t, where, SPLIT_METASPACE, &split));
    split->mark_n = strlen(mark);
    memcpy(split->mark, mark, split->mark_n + 1);
    TRY(json_bool_or(object, "split", where, true, &split->cut));
    return read_scheme(object, where, split);
}

/* One that is no Sequence. */
static enum status read_split(struct tokenizer *t, const json_t *object, const char *type,
                              const char *where)
{
    struct split_step *split = NULL;
    const char *behavior;
    if (t->split_count > 0 && t->splits[t->split_count - 1].kind == SPLIT_BYTES)
        return status_fail(STATUS_FORMAT,
                           "%s: pre_tokenizer \"%.60s\" behind ByteLevel is not "
                           "known here",
                           where, type);
    if (strcmp(type, "BertPreTokenizer") == 0)
        return add_words(t, where, WORDS_SPACE | WORDS_PUNCT);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_words(t, where, WORDS_SPACE);
    if (strcmp(type, "Whitespace") == 0)
        return add_words(t, where, WORDS_SPACE | WORDS_KIND);
    if (strcmp(type, "Punctuation") == 0) {
        TRY(json_text_or(object, "behavior", where, "Isolated", &behavior));
        if (strcmp(behavior, "Isolated") != 0)
            return unknown_part(where, "Punctuation with behavior", behavior, "Isolated");
        return add_words(t, where, WORDS_PUNCT);
    }
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, object, where);
    if (strcmp(type, "Digits") == 0) {
        TRY(tokenizer_add_split(t, where, SPLIT_DIGITS, &split));
        return need_bool(object, "individual_digits", where, &split->each);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        TRY(tokenizer_add_split(t, where, SPLIT_BYTES, &split));
        TRY(json_bool_or(object, "use_regex", where, true, &split->cut));
        return need_bool(object, "add_prefix_space", where, &split->prefix_space);
    }
    return unknown_part(where, "pre_tokenizer", type,
                        "BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation, Metaspace, "
                        "ByteLevel, Digits or a Sequence");
}

static enum status read_splits(struct tokenizer *t, const json_t *object, const char *where,
                               int nesting)
{
    const char *type = NULL;
    if (object == NULL || json_is_null(object))
        return STATUS_OK;
    TRY(type_of(object, "the pre_tokenizer", where, &type));
    if (strcmp(type, "Sequence") != 0)
        return read_split(t, object, type, where);
    const json_t *parts = json_object_get(object, "pretokenizers"), *part;
    size_t i;
    if (!json_is_array(parts) || nesting == MAX_NESTING)
        return status_fail(STATUS_FORMAT,
                           "%s: a Sequence without \"pretokenizers\", or nested too deep", where);
    json_array_foreach(parts, i, part) TRY(read_splits(t, part, where, nesting + 1));
    return STATUS_OK;
}

/* ---- Decoders ---- */

/* A step that is made of texts: from, and to where there is one. */
static enum status add_decoder(struct tokenizer *t, const char *where, enum decode_kind kind,
                               const char *from, const char *to, struct decode_step **out)
{
    TRY(tokenizer_add_decoder(t, where, kind, out));
    (*out)->from_n = strlen(from);
    TRY(mem_strdup(from, &(*out)->from));
    if (to == NULL)
        return STATUS_OK;
    (*out)->to_n = strlen(to);
    return mem_strdup(to, &(*out)->to);
}

static enum status read_text_decoder(struct tokenizer *t, const json_t *object, const char *type,
                                     const char *where)
{
    struct decode_step *step = NULL;
    const char *from, *to;
    int64_t left, right;
    if (strcmp(type, "Metaspace") == 0) {
        struct split_step scheme = {0};
        TRY(need_character(object, "replacement", where, &from));
        TRY(read_scheme(object, where, &scheme));
        TRY(add_decoder(t, where, DECODE_MARK, from, NULL, &step));
        step->drop = scheme.prepend != PREPEND_NEVER;
        return STATUS_OK;
    }
    if (strcmp(type, "Replace") == 0) {
        TRY(json_text(json_object_get(object, "pattern"), "String", where, &from));
        TRY(json_text(object, "content", where, &to));
        if (*from == '\0')
            return status_fail(STATUS_FORMAT, "%s: a Replace of nothing", where);
        return add_decoder(t, where, DECODE_REPLACE, from, to, &step);
    }
    if (strcmp(type, "Strip") == 0) {
        TRY(need_character(object, "content", where, &from));
        TRY(json_int(object, "start", where, 0, 1000, &left));
        TRY(json_int(object, "stop", where, 0, 1000, &right));
        TRY(add_decoder(t, where, DECODE_STRIP, from, NULL, &step));
        step->left = (int)left;
        step->right = (int)right;
        return STATUS_OK;
    }
    return unknown_part(where, "decoder", type,
                        "WordPiece, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip or a "
                        "Sequence");
}

static enum status read_decoder(struct tokenizer *t, const json_t *object, const char *where,
                                int nesting)
{
    static const struct {
        const char *type;
        enum decode_kind kind;
    } plain[] = {
        {"ByteLevel", DECODE_BYTES}, {"ByteFallback", DECODE_FALLBACK}, {"Fuse", DECODE_FUSE}};
    const char *type = NULL, *prefix;
    struct decode_step *step = NULL;
    if (object == NULL || json_is_null(object))
        return STATUS_OK;
    TRY(type_of(object, "the decoder", where, &type));
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(type, plain[i].type) == 0)
            return tokenizer_add_decoder(t, where, plain[i].kind, &step);
    if (strcmp(type, "WordPiece") == 0 && nesting == 0) {
        TRY(json_text(object, "prefix", where, &prefix));
        TRY(add_decoder(t, where, DECODE_WORDPIECE, prefix, NULL, &step));
        return need_bool(object, "cleanup", where, &step->cleanup);
    }
    if (strcmp(type, "Sequence") != 0)
        return read_text_decoder(t, object, type, where);
    const json_t *parts = json_object_get(object, "decoders"), *part;
    size_t i;
    if (!json_is_array(parts) || nesting == MAX_NESTING)
        return status_fail(STATUS_FORMAT, "%s: a Sequence without \"decoders\", or nested too deep",
                           where);
    json_array_foreach(parts, i, part) TRY(read_decoder(t, part, where, nesting + 1));
    return STATUS_OK;
}

/* ---- Models ---- */

/* An object of pieces and their ids. */
static enum status read_pieces(struct tokenizer *t, const json_t *object, const char *where)
{
    const char *piece;
    json_t *vocab = json_object_get(object, "vocab"), *id;
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return status_fail(STATUS_FORMAT,
                           "%s: the model's \"vocab\" is not an object with pieces and their ids",
                           where);
    json_object_foreach(vocab, piece, id)
    {
        if (!json_is_integer(id))
            return status_fail(STATUS_FORMAT, "%s: the id of \"%.60s\" is not a whole number",
                               where, piece);
        TRY(tokenizer_add_piece(t, where, piece, strlen(piece), json_integer_value(id)));
    }
    return STATUS_OK;
}

static enum status find_unk(struct tokenizer *t, const char *where, const char *unk)
{
    t->unk = trie_find(&t->vocab, unk, strlen(unk));
    if (t->unk < 0)
        return status_fail(STATUS_FORMAT, "%s: the vocabulary lacks its unk_token \"%.60s\"", where,
                           unk);
    return STATUS_OK;
}

static enum status read_wordpiece(struct tokenizer *t, const json_t *object, const char *where)
{
    struct wordpiece *w = &t->wordpiece;
    const char *unk, *prefix;
    t->model = &tokenizer_wordpiece;
    TRY(json_text(object, "continuing_subword_prefix", where, &prefix));
    TRY(json_int(object, "max_input_chars_per_word", where, 0, INT64_MAX, &w->max_word));
    TRY(json_text(object, "unk_token", where, &unk));
    TRY(mem_strdup(prefix, &w->prefix));
    TRY(read_pieces(t, object, where));
    return find_unk(t, where, unk);
}

/* "left right", or ["left", "right"]. */
static enum status read_merge(struct tokenizer *t, const json_t *merge, size_t number,
                              const char *where, uint32_t *rank)
{
    const char *left = json_string_value(merge), *right = NULL;
    size_t left_n = 0;
    if (left != NULL) {
        if (strncmp(left, "#version", 8) == 0)
            return STATUS_OK;
        right = strchr(left, ' ');
        left_n = right == NULL ? 0 : (size_t)(right++ - left);
        if (right != NULL && strchr(right, ' ') != NULL)
            right = NULL;
    } else if (json_array_size(merge) == 2) {
        left = json_string_value(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
        left_n = left == NULL ? 0 : strlen(left);
    }
    if (left == NULL || right == NULL)
        return status_fail(STATUS_FORMAT, "%s: merge %zu is not two pieces", where, number);
    return bpe_add_pair(t, where, (int64_t)number, left, left_n, right, strlen(right), (*rank)++);
}

static enum status read_bpe(struct tokenizer *t, const json_t *object, const char *where)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *merges = json_object_get(object, "merges"), *merge;
    const char *text;
    double dropout;
    size_t i;
    uint32_t rank = 0;
    t->model = &tokenizer_bpe;
    for (i = 0; i < 2; i++) {
        TRY(json_text_or(object, affixes[i], where, "", &text));
        if (text != NULL && *text != '\0')
            return unknown_part(where, affixes[i], text, "none");
    }
    TRY(json_real_or(object, "dropout", where, 0, &dropout));
    if (dropout != 0)
        return status_fail(STATUS_FORMAT, "%s: dropout of merges is not known here", where);
    TRY(json_bool_or(object, "fuse_unk", where, false, &t->bpe.fuse_unk));
    TRY(json_bool_or(object, "byte_fallback", where, false, &t->bpe.byte_fallback));
    TRY(json_bool_or(object, "ignore_merges", where, false, &t->bpe.ignore_merges));
    TRY(read_pieces(t, object, where));
    TRY(json_text_or(object, "unk_token", where, NULL, &text));
    if (text != NULL)
        TRY(find_unk(t, where, text));
    if (!json_is_array(merges))
        return status_fail(STATUS_FORMAT, "%s: the model's \"merges\" is not a list", where);
    json_array_foreach(merges, i, merge) TRY(read_merge(t, merge, i, where, &rank));
    return STATUS_OK;
}

static enum status read_unigram(struct tokenizer *t, const json_t *object, const char *where)
{
    const json_t *vocab = json_object_get(object, "vocab"), *entry;
    struct unigram *u = &t->unigram;
    int64_t unk;
    size_t i;
    double least = HUGE_VAL;
    t->model = &tokenizer_unigram;
    if (json_array_size(vocab) == 0)
        return status_fail(STATUS_FORMAT,
                           "%s: the model's \"vocab\" is not a list of pieces and their scores",
                           where);
    json_array_foreach(vocab, i, entry)
    {
        const char *piece = json_string_value(json_array_get(entry, 0));
        const json_t *score = json_array_get(entry, 1);
        if (piece == NULL || !json_is_number(score) || json_array_size(entry) != 2)
            return status_fail(STATUS_FORMAT,
                               "%s: entry %zu of \"vocab\" is not a piece and its "
                               "score",
                               where, i);
        TRY(tokenizer_add_piece(t, where, piece, strlen(piece), (int64_t)i));
        TRY(unigram_set_score(u, (int32_t)i, json_number_value(score)));
    }
    unigram_round_scores(u->scores, i, t->files[FILE_TOKENIZER].bytes, t->files[FILE_TOKENIZER].n);
    for (size_t k = 0; k < i; k++)
        least = u->scores[k] < least ? u->scores[k] : least;
    TRY(json_int(object, "unk_id", where, 0, (int64_t)i - 1, &unk));
    TRY(json_bool_or(object, "byte_fallback", where, false, &u->byte_fallback));
    t->unk = (int32_t)unk;
    u->unk_score = least - 10;
    byte_pieces(t, u->bytes);
    return STATUS_OK;
}

/* Files of old versions do not name the model: its fields do. */
static enum status read_model(struct tokenizer *t, const json_t *object, const char *where)
{
    const char *type, *usual = "WordPiece";
    if (!json_is_object(object))
        return status_fail(STATUS_FORMAT, "%s: no \"model\"", where);
    if (json_object_get(object, "merges") != NULL)
        usual = "BPE";
    else if (json_is_array(json_object_get(object, "vocab")))
        usual = "Unigram";
    TRY(json_text_or(object, "type", where, usual, &type));
    if (strcmp(type, "WordPiece") == 0)
        return read_wordpiece(t, object, where);
    if (strcmp(type, "BPE") == 0)
        return read_bpe(t, object, where);
    if (strcmp(type, "Unigram") == 0)
        return read_unigram(t, object, where);
    return unknown_part(where, "model", type, "WordPiece, BPE or Unigram");
}

/*
 * prepend_scheme "first" asks whether a word's text stood at the very beginning of the text as it
 * came: only answered where no normalizer can remove a beginning.
 */
static enum status check_first(const struct tokenizer *t, const char *where)
{
    bool first = false;
    for (int i = 0; i < t->split_count; i++)
        first = first ||
                (t->splits[i].kind == SPLIT_METASPACE && t->splits[i].prepend == PREPEND_FIRST);
    for (int i = 0; first && i < t->step_count; i++) {
        const struct normalize_step *s = &t->steps[i];
        bool keeps = (s->kind == NORMALIZE_PASS && s->bits == NORMALIZE_LOWERCASE) ||
                     (s->kind == NORMALIZE_FORM && s->form.compose) ||
                     (s->kind == NORMALIZE_SPACES && s->to_n > 0) ||
                     (s->kind == NORMALIZE_STRIP && !s->strip.left);
        if (!keeps)
            return status_fail(STATUS_FORMAT,
                               "%s: prepend_scheme \"first\" behind a normalizer that may remove "
                               "the beginning of a text is not known here",
                               where);
    }
    return STATUS_OK;
}

/* ByteLevel makes letters of bytes, which only BPE takes. */
static enum status fit_model(struct tokenizer *t, const char *where)
{
    TRY(check_first(t, where));
    bool bytes = t->split_count > 0 && t->splits[t->split_count - 1].kind == SPLIT_BYTES;
    if (bytes && t->model != &tokenizer_bpe)
        return status_fail(STATUS_FORMAT,
                           "%s: pre_tokenizer \"ByteLevel\" with the model %s is "
                           "not known here, wanted BPE",
                           where, t->model->kind);
    t->bpe.byte_level = bytes;
    if (t->model == &tokenizer_bpe)
        bpe_finish(t);
    return STATUS_OK;
}

/* ---- Added tokens ---- */

static enum status read_added_tokens(struct tokenizer *t, const json_t *list, const char *where)
{
    const json_t *object;
    size_t i;
    if (list == NULL || json_is_null(list))
        return STATUS_OK;
    if (!json_is_array(list))
        return status_fail(STATUS_FORMAT, "%s: \"added_tokens\" is not a list", where);
    json_array_foreach(list, i, object)
    {
        struct added_token token = {0};
        int64_t id;
        bool special; /* decoding may leave it out; matching does not ask */
        if (!json_is_object(object))
            return status_fail(STATUS_FORMAT, "%s: added token %zu is not an object", where, i);
        TRY(json_text(object, "content", where, &token.content));
        TRY(json_int(object, "id", where, 0, INT32_MAX, &id));
        TRY(need_bool(object, "single_word", where, &token.single_word));
        TRY(need_bool(object, "lstrip", where, &token.lstrip));
        TRY(need_bool(object, "rstrip", where, &token.rstrip));
        TRY(need_bool(object, "normalized", where, &token.normalized));
        TRY(need_bool(object, "special", where, &special));
        TRY(tokenizer_add_token(t, where, &token, id));
    }
    return STATUS_OK;
}

/* The single id that post_processor.special_tokens gives a name. */
static enum status template_id(const struct tokenizer *t, const json_t *object, const char *name,
                               const char *where, int32_t *id)
{
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(object, "special_tokens"), name), "ids");
    const json_t *value = json_array_get(ids, 0);
    if (json_array_size(ids) != 1 || !json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= t->info.vocab_size)
        return status_fail(STATUS_FORMAT, "%s: post_processor: \"%.60s\" has no single id below %d",
                           where, name, t->info.vocab_size);
    *id = (int32_t)json_integer_value(value);
    return STATUS_OK;
}

/*
 * One place of a template: kind "SpecialToken" or "Sequence", with this type_id. *name is its id;
 * NULL if it is anything else.
 */
static const char *template_place(const json_t *list, size_t at, const char *kind, int64_t type)
{
    const json_t *place = json_object_get(json_array_get(list, at), kind);
    const json_t *type_id = json_object_get(place, "type_id");
    if (!json_is_integer(type_id) || json_integer_value(type_id) != type)
        return NULL;
    return json_string_value(json_object_get(place, "id"));
}

/* Whether list is "[CLS] A [SEP]" and then, for a pair, one or two "[SEP]", "B [SEP]"; names[0] and
 * names[1] are found by the single one. */
static bool template_fits(const json_t *list, bool pair, bool two, int type, const char *names[2])
{
    const struct {
        const char *kind, *name; /* NULL: any */
        int type;
    } places[] = {
        {"SpecialToken", pair ? names[0] : NULL, 0},
        {"Sequence", "A", 0},
        {"SpecialToken", pair ? names[1] : NULL, 0},
        {"SpecialToken", names[1], 0},
        {"Sequence", "B", type},
        {"SpecialToken", names[1], type},
    };
    size_t at = 0;
    for (size_t i = 0; i < (pair ? 6u : 3u); i++) {
        if (i == 3 && !two)
            continue;
        const char *name = template_place(list, at++, places[i].kind, places[i].type);
        if (name == NULL || (places[i].name != NULL && strcmp(name, places[i].name) != 0))
            return false;
        if (!pair && i != 1)
            names[i / 2] = name;
    }
    return json_array_size(list) == at;
}

/* The forms that tokenizer_join() knows. */
static enum status read_template(struct tokenizer *t, const json_t *object, const char *where)
{
    const json_t *single = json_object_get(object, "single"),
                 *pair = json_object_get(object, "pair");
    const char *names[2] = {NULL, NULL};
    if (json_array_size(single) == 1 && template_place(single, 0, "Sequence", 0) != NULL &&
        json_array_size(pair) == 2 && template_place(pair, 0, "Sequence", 0) != NULL &&
        template_place(pair, 1, "Sequence", 1) != NULL)
        return STATUS_OK; /* A, and A B: nothing is placed */
    if (!template_fits(single, false, false, 0, names))
        return status_fail(STATUS_FORMAT,
                           "%s: post_processor: the template for \"single\" is not known here, "
                           "wanted [CLS] A [SEP] with type 0, or A with the pair A B",
                           where);
    /* What is written where nothing was said of pairs: A B, with nothing around them. */
    t->info.no_pairs = json_array_size(pair) == 2 &&
                       template_place(pair, 0, "Sequence", 0) != NULL &&
                       template_place(pair, 1, "Sequence", 1) != NULL;
    t->info.two_separators = template_fits(pair, true, true, 0, names);
    t->info.one_type = t->info.two_separators || template_fits(pair, true, false, 0, names);
    if (!t->info.no_pairs && !t->info.one_type && !template_fits(pair, true, false, 1, names))
        return status_fail(STATUS_FORMAT,
                           "%s: post_processor: the template for \"pair\" is not known here, "
                           "wanted [CLS] A [SEP] B [SEP] with types 0 and 1 or all 0, or "
                           "[CLS] A [SEP] [SEP] B [SEP] with types 0",
                           where);
    TRY(template_id(t, object, names[0], where, &t->info.cls));
    return template_id(t, object, names[1], where, &t->info.sep);
}

/* BertProcessing's ["[CLS]", 101]. */
static enum status processing_id(const struct tokenizer *t, const json_t *object, const char *key,
                                 const char *where, int32_t *id)
{
    const json_t *value = json_array_get(json_object_get(object, key), 1);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= t->info.vocab_size)
        return status_fail(STATUS_FORMAT, "%s: post_processor: \"%s\" has no id below %d", where,
                           key, t->info.vocab_size);
    *id = (int32_t)json_integer_value(value);
    return STATUS_OK;
}

/* Those that place special tokens; ByteLevel does not. */
static enum status read_post_processor(struct tokenizer *t, const json_t *object, const char *where,
                                       int nesting)
{
    const char *type = NULL;
    TRY(type_of(object, "the post_processor", where, &type));
    if (strcmp(type, "ByteLevel") == 0)
        return STATUS_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, object, where);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(object, "processors"), *part;
        size_t i;
        if (!json_is_array(parts) || nesting == MAX_NESTING)
            return status_fail(STATUS_FORMAT,
                               "%s: a Sequence without \"processors\", or nested too deep", where);
        json_array_foreach(parts, i, part)
        {
            if (t->info.cls >= 0)
                return status_fail(STATUS_FORMAT,
                                   "%s: post_processor: more than one in a Sequence places "
                                   "special tokens",
                                   where);
            TRY(read_post_processor(t, part, where, nesting + 1));
        }
        return STATUS_OK;
    }
    bool roberta = strcmp(type, "RobertaProcessing") == 0;
    if (!roberta && strcmp(type, "BertProcessing") != 0)
        return unknown_part(where, "post_processor", type,
                            "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel or a "
                            "Sequence");
    t->info.two_separators = t->info.one_type = roberta;
    TRY(processing_id(t, object, "cls", where, &t->info.cls));
    return processing_id(t, object, "sep", where, &t->info.sep);
}

static enum status read_parts(struct tokenizer *t, const json_t *root, const char *where,
                              const struct tokenizer_config *config)
{
    const char *version, *side;
    if (!json_is_object(root))
        return status_fail(STATUS_FORMAT, "%s: wanted a JSON object", where);
    TRY(json_text_or(root, "version", where, "1.0", &version));
    if (strcmp(version, "1.0") != 0)
        return unknown_part(where, "version", version, "1.0");
    /* Its length is not that of the rows here, but its side is transformers' where nothing else
     * says one. */
    TRY(json_text_or(json_object_get(root, "truncation"), "direction", where, "Right", &side));
    if (strcmp(side, "Right") != 0 && json_object_get(config->config, "truncation_side") == NULL)
        return status_fail(
            STATUS_FORMAT,
            "%s: truncation: the direction is \"%.20s\"; long texts are cut at their "
            "end here, wanted \"Right\"",
            where, side);
    TRY(read_model(t, json_object_get(root, "model"), where));
    TRY(read_normalizer(t, json_object_get(root, "normalizer"), where, 0));
    TRY(read_splits(t, json_object_get(root, "pre_tokenizer"), where, 0));
    TRY(fit_model(t, where));
    TRY(read_decoder(t, json_object_get(root, "decoder"), where, 0));
    TRY(read_added_tokens(t, json_object_get(root, "added_tokens"), where));
    const json_t *post = json_object_get(root, "post_processor");
    if (post != NULL && !json_is_null(post))
        TRY(read_post_processor(t, post, where, 0));
    if (t->info.cls < 0)
        TRY(tokenizer_ends_of_class(t, where, config));
    return tokenizer_obey_config(t, where, config);
}

enum status tokenizer_read_json(struct tokenizer *t, const char *bytes, size_t n, const char *where,
                                const struct tokenizer_config *config)
{
    json_t *root;
    TRY(json_parse(bytes, n, where, &root));
    enum status st = read_parts(t, root, where, config);
    json_decref(root);
    return st;
}
