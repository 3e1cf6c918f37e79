/*
 * tokenizer_json.c - the parts of a tokenizer from tokenizer.json, as Hugging Face's tokenizers
 * writes it.
 *
 * What is known is taken, what would change ids and is not known is refused by name. truncation and
 * padding are ignored: length is the caller's.
 */
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

static enum status add_step(struct tokenizer *t, const char *where, unsigned bits)
{
    if (t->step_count == TOKENIZER_MAX_STEPS)
        return status_fail(STATUS_FORMAT, "%s: more than %d normalizers", where,
                           TOKENIZER_MAX_STEPS);
    normalize_step_init(&t->steps[t->step_count++], bits);
    return STATUS_OK;
}

static enum status read_normalizer(struct tokenizer *t, const json_t *object, const char *where,
                                   int nesting)
{
    const char *type = NULL;
    if (object == NULL || json_is_null(object))
        return STATUS_OK;
    TRY(type_of(object, "the normalizer", where, &type));
    if (strcmp(type, "NFD") == 0)
        return add_step(t, where, NORMALIZE_DECOMPOSE);
    if (strcmp(type, "Lowercase") == 0)
        return add_step(t, where, NORMALIZE_LOWERCASE);
    if (strcmp(type, "StripAccents") == 0)
        return add_step(t, where, NORMALIZE_MARKS);
    if (strcmp(type, "BertNormalizer") == 0) {
        bool clean, cjk, strip, lowercase;
        TRY(need_bool(object, "clean_text", where, &clean));
        TRY(need_bool(object, "handle_chinese_chars", where, &cjk));
        TRY(need_bool(object, "lowercase", where, &lowercase));
        TRY(json_bool_or(object, "strip_accents", where, lowercase, &strip));
        return add_step(t, where,
                        (clean ? NORMALIZE_CLEAN : 0u) | (cjk ? NORMALIZE_CJK : 0u) |
                            (strip ? NORMALIZE_DECOMPOSE | NORMALIZE_NONSPACING : 0u) |
                            (lowercase ? NORMALIZE_LOWERCASE : 0u));
    }
    if (strcmp(type, "Sequence") != 0)
        return unknown_part(where, "normalizer", type,
                            "BertNormalizer, NFD, Lowercase, StripAccents or a Sequence");
    const json_t *parts = json_object_get(object, "normalizers"), *part;
    size_t i;
    if (!json_is_array(parts) || nesting == MAX_NESTING)
        return status_fail(STATUS_FORMAT,
                           "%s: a Sequence without \"normalizers\", or nested too deep", where);
    json_array_foreach(parts, i, part) TRY(read_normalizer(t, part, where, nesting + 1));
    return STATUS_OK;
}

static enum status read_word_rules(const json_t *object, const char *where, int nesting,
                                   unsigned *bits)
{
    const char *type = NULL, *behavior;
    if (object == NULL || json_is_null(object))
        return STATUS_OK;
    TRY(type_of(object, "the pre_tokenizer", where, &type));
    if (strcmp(type, "BertPreTokenizer") == 0) {
        *bits |= WORDS_SPACE | WORDS_PUNCT;
    } else if (strcmp(type, "WhitespaceSplit") == 0) {
        *bits |= WORDS_SPACE;
    } else if (strcmp(type, "Whitespace") == 0) {
        *bits |= WORDS_SPACE | WORDS_KIND;
    } else if (strcmp(type, "Punctuation") == 0) {
        TRY(json_text_or(object, "behavior", where, "Isolated", &behavior));
        if (strcmp(behavior, "Isolated") != 0)
            return unknown_part(where, "Punctuation with behavior", behavior, "Isolated");
        *bits |= WORDS_PUNCT;
    } else if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(object, "pretokenizers"), *part;
        size_t i;
        if (!json_is_array(parts) || nesting == MAX_NESTING)
            return status_fail(STATUS_FORMAT,
                               "%s: a Sequence without \"pretokenizers\", or nested too deep",
                               where);
        json_array_foreach(parts, i, part) TRY(read_word_rules(part, where, nesting + 1, bits));
    } else {
        return unknown_part(
            where, "pre_tokenizer", type,
            "BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation or a Sequence");
    }
    return STATUS_OK;
}

static enum status read_decoder(struct tokenizer *t, const json_t *object, const char *where)
{
    const char *type = NULL, *prefix;
    if (object == NULL || json_is_null(object))
        return STATUS_OK;
    TRY(type_of(object, "the decoder", where, &type));
    if (strcmp(type, "WordPiece") != 0)
        return unknown_part(where, "decoder", type, "WordPiece");
    TRY(json_text(object, "prefix", where, &prefix));
    TRY(need_bool(object, "cleanup", where, &t->cleanup));
    t->has_decoder = true;
    return mem_strdup(prefix, &t->decoder_prefix);
}

static enum status read_model(struct tokenizer *t, const json_t *object, const char *where)
{
    struct wordpiece *w = &t->wordpiece;
    const char *type, *unk, *prefix, *piece;
    json_t *vocab, *id;
    if (!json_is_object(object))
        return status_fail(STATUS_FORMAT, "%s: no \"model\"", where);
    /* Files of old versions do not name the model: the fields that only WordPiece has are asked for
     * below. */
    TRY(json_text_or(object, "type", where, "WordPiece", &type));
    if (strcmp(type, "WordPiece") != 0)
        return unknown_part(where, "model", type, "WordPiece");
    TRY(json_text(object, "continuing_subword_prefix", where, &prefix));
    TRY(json_int(object, "max_input_chars_per_word", where, 0, INT64_MAX, &w->max_word));
    TRY(json_text(object, "unk_token", where, &unk));
    TRY(mem_strdup(prefix, &w->prefix));
    vocab = json_object_get(object, "vocab");
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
    w->unk = trie_find(&w->pieces, unk, strlen(unk));
    if (w->unk < 0)
        return status_fail(STATUS_FORMAT, "%s: the vocabulary lacks its unk_token \"%.60s\"", where,
                           unk);
    return STATUS_OK;
}

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

/* [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with B's type 1: what tokenizer_join() does. */
static enum status read_template(struct tokenizer *t, const json_t *object, const char *where)
{
    static const struct {
        const char *kind;
        int type;
    } places[] = {{"SpecialToken", 0},
                  {"Sequence", 0},
                  {"SpecialToken", 0},
                  {"Sequence", 1},
                  {"SpecialToken", 1}};
    static const char *const keys[] = {"single", "pair"};
    const char *names[5];
    for (size_t k = 0; k < 2; k++) {
        const json_t *list = json_object_get(object, keys[k]);
        size_t count = k == 0 ? 3 : 5;
        bool known = json_array_size(list) == count;
        for (size_t i = 0; known && i < count; i++) {
            const char *name = template_place(list, i, places[i].kind, places[i].type);
            known = name != NULL && (k == 0 || i >= 3 || strcmp(name, names[i]) == 0);
            names[i] = name;
        }
        known = known && strcmp(names[1], "A") == 0;
        if (known && k == 1)
            known = strcmp(names[3], "B") == 0 && strcmp(names[4], names[2]) == 0;
        if (!known)
            return status_fail(
                STATUS_FORMAT,
                "%s: post_processor: the template for \"%s\" is not known here, wanted "
                "[CLS] A [SEP] and [CLS] A [SEP] B [SEP] with types 0 and 1",
                where, keys[k]);
    }
    TRY(template_id(t, object, names[0], where, &t->info.cls));
    return template_id(t, object, names[2], where, &t->info.sep);
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

static enum status read_post_processor(struct tokenizer *t, const json_t *object, const char *where,
                                       const struct tokenizer_config *config)
{
    const char *type = NULL;
    if (object == NULL ||
        json_is_null(object)) /* transformers' BertTokenizer then takes the names, too */
        return tokenizer_named_ends(t, where, config);
    TRY(type_of(object, "the post_processor", where, &type));
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, object, where);
    if (strcmp(type, "BertProcessing") != 0)
        return unknown_part(where, "post_processor", type, "TemplateProcessing or BertProcessing");
    TRY(processing_id(t, object, "cls", where, &t->info.cls));
    return processing_id(t, object, "sep", where, &t->info.sep);
}

static enum status read_parts(struct tokenizer *t, const json_t *root, const char *where,
                              const struct tokenizer_config *config)
{
    const char *version;
    unsigned words = 0;
    if (!json_is_object(root))
        return status_fail(STATUS_FORMAT, "%s: wanted a JSON object", where);
    TRY(json_text_or(root, "version", where, "1.0", &version));
    if (strcmp(version, "1.0") != 0)
        return unknown_part(where, "version", version, "1.0");
    TRY(read_model(t, json_object_get(root, "model"), where));
    TRY(read_normalizer(t, json_object_get(root, "normalizer"), where, 0));
    TRY(read_word_rules(json_object_get(root, "pre_tokenizer"), where, 0, &words));
    word_rules_init(&t->words, words);
    TRY(read_decoder(t, json_object_get(root, "decoder"), where));
    TRY(read_added_tokens(t, json_object_get(root, "added_tokens"), where));
    return read_post_processor(t, json_object_get(root, "post_processor"), where, config);
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
