/*
 * tokenizer_vocab.c - the parts of a tokenizer from vocab.txt, one piece a line, by the rules of
 * transformers' BertTokenizer; and for all families the special and added tokens of
 * tokenizer_config.json, special_tokens_map.json and added_tokens.json.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"

/* ---- Special tokens
 * -------------------------------------------------------------------------------------------- */

/*
 * What is said about "cls_token" and the like; NULL if nothing. special_tokens_map.json goes before
 * the configuration, unless that lists its added tokens itself (a file of newer versions).
 */
static const json_t *config_token(const struct tokenizer_config *c, const char *key,
                                  const char **where)
{
    const json_t *value = NULL;
    *where = c->where[FILE_SPECIAL];
    if (json_object_get(c->config, "added_tokens_decoder") == NULL)
        value = json_object_get(c->special, key);
    if (value != NULL)
        return value;
    *where = c->where[FILE_CONFIG];
    return json_object_get(c->config, key);
}

enum status config_token_text(const struct tokenizer_config *c, const char *key,
                              const char *fallback, const char **out)
{
    const char *where;
    const json_t *value = config_token(c, key, &where);
    *out = value == NULL ? fallback : NULL;
    if (value == NULL || json_is_null(value))
        return STATUS_OK;
    *out = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    if (*out == NULL)
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not a text or an object with \"content\"",
                           where, key);
    return STATUS_OK;
}

enum status tokenizer_named_ends(struct tokenizer *t, const char *where,
                                 const struct tokenizer_config *config,
                                 const char *const defaults[NAMED_COUNT])
{
    static const int which[] = {NAMED_CLS, NAMED_SEP};
    int32_t *ids[] = {&t->info.cls, &t->info.sep};
    for (int i = 0; i < 2; i++) {
        const char *key = named_keys[which[i]], *text;
        TRY(config_token_text(config, key, defaults[which[i]], &text));
        *ids[i] = text == NULL ? -1 : tokenizer_find(t, text, strlen(text));
        if (*ids[i] < 0)
            return status_fail(STATUS_FORMAT, "%s: no %s: \"%.60s\" is not in the vocabulary",
                               where, key, text == NULL ? "null" : text);
    }
    return STATUS_OK;
}

/* A token that is a text or an object; its flags are false where nothing is said. */
static enum status read_token(const json_t *value, const char *where, bool normalized,
                              struct added_token *token)
{
    *token = (struct added_token){.content = json_string_value(value), .normalized = normalized};
    if (token->content != NULL)
        return STATUS_OK;
    if (!json_is_object(value))
        return status_fail(STATUS_FORMAT, "%s: a special or added token is not a text or an object",
                           where);
    TRY(json_text(value, "content", where, &token->content));
    TRY(json_bool_or(value, "single_word", where, false, &token->single_word));
    TRY(json_bool_or(value, "lstrip", where, false, &token->lstrip));
    TRY(json_bool_or(value, "rstrip", where, false, &token->rstrip));
    return json_bool_or(value, "normalized", where, normalized, &token->normalized);
}

/* One entry of added_tokens_decoder or added_tokens.json. */
struct listed {
    int64_t id;
    struct added_token token;
};

static int listed_compare(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool whole_number(double value, int64_t *out)
{
    if (!(value >= 0 && value < TOKENIZER_ID_LIMIT) || value != floor(value))
        return false;
    *out = (int64_t)value;
    return true;
}

const char *const named_keys[NAMED_COUNT] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                             "pad_token", "cls_token", "mask_token"};
const char *const bert_names[NAMED_COUNT] = {NULL,    NULL,    "[UNK]", "[SEP]",
                                             "[PAD]", "[CLS]", "[MASK]"};

enum status config_names(const struct tokenizer_config *c, const char *const defaults[NAMED_COUNT],
                         const char *names[NAMED_COUNT])
{
    for (int i = 0; i < NAMED_COUNT; i++)
        TRY(config_token_text(c, named_keys[i], defaults[i], &names[i]));
    return STATUS_OK;
}

/* Whether text is one of the special tokens that have a name or are listed as additional. */
static bool is_special(const char *const names[NAMED_COUNT], const json_t *extra, const char *text)
{
    const json_t *value;
    size_t i;
    bool found = false;
    for (i = 0; i < NAMED_COUNT; i++)
        found = found || (names[i] != NULL && strcmp(names[i], text) == 0);
    json_array_foreach(extra, i, value)
    {
        const char *content =
            json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
        found = found || (content != NULL && strcmp(content, text) == 0);
    }
    return found;
}

/* The tokens of added_tokens_decoder {"101": {...}} or, in files of old versions, added_tokens.json
 * {"text": id}. */
static enum status read_listed(const struct tokenizer_config *c,
                               const char *const names[NAMED_COUNT], const json_t *extra,
                               struct listed *list, size_t *count)
{
    json_t *decoder = json_object_get(c->config, "added_tokens_decoder"), *value;
    const char *key, *where = c->where[decoder != NULL ? FILE_CONFIG : FILE_ADDED];
    if (decoder != NULL) {
        json_object_foreach(decoder, key, value)
        {
            struct listed *entry = &list[*count];
            bool special;
            if (!parse_int64(key, &entry->id) || entry->id < 0 || entry->id >= TOKENIZER_ID_LIMIT)
                return status_fail(STATUS_FORMAT,
                                   "%s: added_tokens_decoder: \"%.60s\" is not an id", where, key);
            if (!json_is_object(value))
                return status_fail(STATUS_FORMAT,
                                   "%s: added_tokens_decoder: \"%.60s\" is not an object", where,
                                   key);
            TRY(json_bool_or(value, "special", where, false, &special));
            TRY(read_token(value, where, !special, &entry->token));
            ++*count;
        }
        return STATUS_OK;
    }
    json_object_foreach((json_t *)(uintptr_t)c->added, key, value)
    {
        struct listed *entry = &list[*count];
        if (!json_is_number(value) || !whole_number(json_number_value(value), &entry->id))
            return status_fail(STATUS_FORMAT,
                               "%s: the id of \"%.60s\" is not a whole number from 0 to %d", where,
                               key, TOKENIZER_ID_LIMIT - 1);
        entry->token =
            (struct added_token){.content = key, .normalized = !is_special(names, extra, key)};
        ++*count;
    }
    return STATUS_OK;
}

enum status config_add_tokens(struct tokenizer *t, const struct tokenizer_config *c,
                              const char *const defaults[NAMED_COUNT], bool raw)
{
    const bool beside_json = t->files[FILE_TOKENIZER].bytes != NULL;
    static const char *const extra_keys[] = {"extra_special_tokens", "additional_special_tokens"};
    const json_t *extra = NULL, *value;
    const char *where = c->where[FILE_CONFIG], *token_where, *names[NAMED_COUNT];
    struct listed *list;
    struct added_token token;
    size_t count = 0, i;
    enum status st = STATUS_OK;
    for (i = 0; i < 2 && extra == NULL; i++)
        extra = config_token(c, extra_keys[i], &where);
    if (extra != NULL && !json_is_null(extra) && !json_is_array(extra))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not a list", where, extra_keys[i - 1]);
    const json_t *decoder = json_object_get(c->config, "added_tokens_decoder");
    if (decoder != NULL && !json_is_object(decoder))
        return status_fail(STATUS_FORMAT, "%s: \"added_tokens_decoder\" is not an object",
                           c->where[FILE_CONFIG]);
    TRY(config_names(c, defaults, names));
    TRY(mem_alloc(json_object_size(decoder) + json_object_size(c->added), sizeof *list,
                  "added tokens", &list));
    TRY_GOTO(out, read_listed(c, names, extra, list, &count));
    qsort(list, count, sizeof *list, listed_compare);
    for (i = 0; i < count; i++) {
        const char *content = list[i].token.content;
        if (beside_json && trie_find(&t->added_by_content, content, strlen(content)) >= 0)
            continue;
        TRY_GOTO(out, tokenizer_add_token(t, c->where[decoder != NULL ? FILE_CONFIG : FILE_ADDED],
                                          &list[i].token, list[i].id));
    }
    for (i = 0; i < NAMED_COUNT; i++) {
        const char *text = names[i];
        value = config_token(c, named_keys[i], &token_where);
        if (text == NULL || trie_find(&t->added_by_content, text, strlen(text)) >= 0)
            continue;
        if (beside_json && value == NULL && tokenizer_find(t, text, strlen(text)) < 0)
            continue; /* a usual name that nobody gave: no id of its own */
        if (value != NULL)
            TRY_GOTO(out, read_token(value, token_where, false, &token));
        else
            token = (struct added_token){.content = text};
        TRY_GOTO(out, tokenizer_add_token(t, token_where, &token, -1));
    }
    json_array_foreach(extra, i, value)
    {
        TRY_GOTO(out, read_token(value, where, false, &token));
        if (trie_find(&t->added_by_content, token.content, strlen(token.content)) < 0)
            TRY_GOTO(out, tokenizer_add_token(t, where, &token, -1));
    }
    for (i = 0; raw && i < t->added_count; i++)
        t->added[i].normalized = false;
out:
    mem_free(list);
    return st;
}

/* ---- Options
 * ----------------------------------------------------------------------------------------------------
 */

enum status config_bert_normalizer(struct tokenizer *t, const struct tokenizer_config *c)
{
    const char *where = c->where[FILE_CONFIG];
    bool lowercase, cjk, strip;
    struct normalize_step *step = NULL;
    TRY(json_bool_or(c->config, "do_lower_case", where, true, &lowercase));
    TRY(json_bool_or(c->config, "tokenize_chinese_chars", where, true, &cjk));
    TRY(json_bool_or(c->config, "strip_accents", where, lowercase, &strip));
    TRY(tokenizer_add_step(t, where, NORMALIZE_PASS, &step));
    normalize_step_init(step, NORMALIZE_CLEAN | (cjk ? NORMALIZE_CJK : 0u) |
                                  (strip ? NORMALIZE_DECOMPOSE | NORMALIZE_NONSPACING : 0u) |
                                  (lowercase ? NORMALIZE_LOWERCASE : 0u));
    return STATUS_OK;
}

static enum status read_options(struct tokenizer *t, const struct tokenizer_config *c)
{
    const char *where = c->where[FILE_CONFIG];
    struct split_step *split = NULL;
    struct decode_step *decoder = NULL;
    TRY(config_bert_normalizer(t, c));
    TRY(tokenizer_add_split(t, where, SPLIT_WORDS, &split));
    word_rules_init(&split->words, WORDS_SPACE | WORDS_PUNCT);
    TRY(tokenizer_add_decoder(t, where, DECODE_WORDPIECE, &decoder));
    decoder->cleanup = true;
    decoder->from_n = 2;
    TRY(mem_strdup("##", &decoder->from));
    t->wordpiece.max_word = 100;
    return mem_strdup("##", &t->wordpiece.prefix);
}

/* ---- Pieces
 * -----------------------------------------------------------------------------------------------------
 */

/* The length without white space at the end. */
static size_t trimmed(const char *s, size_t n)
{
    while (n > 0) {
        size_t begin = n - 1;
        uint32_t c;
        while (begin > 0 && ((unsigned char)s[begin] & 0xC0) == 0x80)
            begin--;
        utf8_decode(s + begin, n - begin, &c);
        if ((unicode_class(c)->flags & UNICODE_SPACE) == 0)
            break;
        n = begin;
    }
    return n;
}

static enum status read_pieces(struct tokenizer *t, const char *bytes, size_t n, const char *where)
{
    int64_t line = 0;
    if (n >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0)
        return status_fail(
            STATUS_FORMAT,
            "%s: begins with a byte-order mark, which would be part of the first piece", where);
    for (size_t at = 0; at < n; line++) {
        const char *piece = bytes + at, *end = memchr(piece, '\n', n - at);
        size_t length = end == NULL ? n - at : (size_t)(end - piece);
        at += length + 1;
        if (utf8_valid_prefix(piece, length) < length)
            return status_fail(STATUS_FORMAT, "%s:%lld: not UTF-8", where, (long long)line + 1);
        if (memchr(piece, '\0', length) != NULL)
            return status_fail(STATUS_FORMAT, "%s:%lld: a piece with a zero byte", where,
                               (long long)line + 1);
        length = trimmed(piece, length);
        int32_t before = trie_find(&t->vocab, piece, length);
        if (before >= 0) { /* said twice: the later line counts, and no piece has the earlier id */
            t->piece_begin[before] = NO_PIECE;
            t->model_pieces--;
        }
        TRY(tokenizer_add_piece(t, where, piece, length, line));
    }
    if (line == 0)
        return status_fail(STATUS_FORMAT, "%s: is empty, wanted one piece a line", where);
    return STATUS_OK;
}

enum status tokenizer_read_vocab(struct tokenizer *t, const char *bytes, size_t n,
                                 const char *where, const struct tokenizer_config *config)
{
    const char *unk;
    TRY(read_options(t, config));
    TRY(read_pieces(t, bytes, n, where));
    TRY(config_token_text(config, "unk_token", "[UNK]", &unk));
    t->unk = unk == NULL ? -1 : trie_find(&t->vocab, unk, strlen(unk));
    if (t->unk < 0)
        return status_fail(STATUS_FORMAT, "%s: the vocabulary lacks its unk_token \"%.60s\"", where,
                           unk == NULL ? "null" : unk);
    t->save_class = config->config == NULL ? "BertTokenizer" : NULL;
    TRY(config_add_tokens(t, config, bert_names, false));
    return tokenizer_named_ends(t, where, config, bert_names);
}
