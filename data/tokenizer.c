/*
 * tokenizer.c - opening, encoding, decoding and saving; see tokenizer.h, and tokenizer_parts.h for
 * how it is made.
 */
#include "data/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"

const char *const tokenizer_file_names[TOKENIZER_FILES] = {
    [FILE_TOKENIZER] = "tokenizer.json",
    [FILE_VOCAB] = "vocab.txt",
    [FILE_CONFIG] = "tokenizer_config.json",
    [FILE_SPECIAL] = "special_tokens_map.json",
    [FILE_ADDED] = "added_tokens.json",
    [FILE_VOCAB_JSON] = "vocab.json",
    [FILE_MERGES] = "merges.txt",
    [FILE_SPM] = "spm.model",
    [FILE_SPM_XLM] = "sentencepiece.bpe.model",
    [FILE_SPM_ALBERT] = "spiece.model",
    [FILE_MODEL_CONFIG] = "config.json",
};

/* ---- Making
 * ----------------------------------------------------------------------------------------------------
 */

/* Let id be written as text, whatever it was before. */
static enum status piece_set(struct tokenizer *t, const char *text, size_t n, int32_t id)
{
    size_t old = (size_t)t->info.vocab_size, need = (size_t)id + 1;
    TRY(mem_grow(&t->piece_begin, &t->piece_capacity, need, sizeof *t->piece_begin,
                 "the table of pieces"));
    for (size_t i = old; i < need; i++)
        t->piece_begin[i] = NO_PIECE;
    if (need > old)
        t->info.vocab_size = (int)need;
    if (t->pieces.n + n + 1 >= NO_PIECE)
        return status_fail(STATUS_FORMAT, "the pieces of a vocabulary are longer than %u bytes",
                           NO_PIECE);
    t->piece_begin[id] = (uint32_t)t->pieces.n;
    TRY(str_add(&t->pieces, text, n));
    return str_add(&t->pieces, "", 1);
}

enum status tokenizer_add_piece(struct tokenizer *t, const char *where, const char *piece, size_t n,
                                int64_t id)
{
    int shown = (int)(n < 60 ? n : 60);
    if (id < 0 || id >= TOKENIZER_ID_LIMIT)
        return status_fail(STATUS_FORMAT, "%s: \"%.*s\" has id %lld, wanted 0 to %d", where, shown,
                           piece, (long long)id, TOKENIZER_ID_LIMIT - 1);
    const char *other = tokenizer_piece(t, (int32_t)id);
    if (other != NULL)
        return status_fail(STATUS_FORMAT, "%s: \"%.60s\" and \"%.*s\" both have id %lld", where,
                           other, shown, piece, (long long)id);
    TRY(trie_insert(&t->vocab, piece, n, (int32_t)id));
    TRY(piece_set(t, piece, n, (int32_t)id));
    t->model_pieces++;
    return STATUS_OK;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n)
{
    int32_t index = trie_find(&t->added_by_content, text, n);
    return index >= 0 ? t->added[index].id : trie_find(&t->vocab, text, n);
}

/* Run all normalize steps; *out is a view of text itself (no steps) or of one of the two buffers.
 */
static enum status normalize_all(const struct tokenizer *t, const char *text, size_t n,
                                 struct str buffers[2], const char **out, size_t *out_n)
{
    size_t limit = text_limit(n);
    for (int i = 0; i < t->step_count; i++) {
        /* the text lies in one of the buffers, or in neither */
        bool in_first = buffers[0].p != NULL && text >= buffers[0].p &&
                        text < buffers[0].p + buffers[0].capacity;
        TRY(normalize_apply(t, &t->steps[i], limit, &text, &n, &buffers[in_first]));
    }
    *out = text;
    *out_n = n;
    return STATUS_OK;
}

static enum status matcher_add(struct tokenizer *t, struct token_matcher *m, const char *where,
                               const char *pattern, size_t n, int32_t index)
{
    const char *content = t->added[index].content;
    if (n == 0)
        return status_fail(STATUS_FORMAT,
                           "%s: nothing is left of the added token \"%.60s\" once it is normalized",
                           where, content);
    int32_t other = trie_find(&m->patterns, pattern, n);
    if (other >= 0)
        return status_fail(
            STATUS_FORMAT,
            "%s: the added tokens \"%.60s\" and \"%.60s\" are looked for as the same text", where,
            t->added[other].content, content);
    TRY(trie_insert(&m->patterns, pattern, n, index));
    unsigned char byte = (unsigned char)pattern[0];
    m->only_first = m->count++ == 0 || m->only_first == byte ? byte : -1;
    m->first[byte] = 1;
    return STATUS_OK;
}

enum status tokenizer_add_token(struct tokenizer *t, const char *where,
                                const struct added_token *token, int64_t file_id)
{
    size_t n = strlen(token->content);
    int32_t id = tokenizer_find(t, token->content, n);
    if (n == 0)
        return STATUS_OK; /* ignored there, too */
    int32_t index = trie_find(&t->added_by_content, token->content, n);
    if (index >= 0) { /* said again: the last word counts; patterns are made at the end */
        struct added_token *old = &t->added[index];
        old->single_word = token->single_word;
        old->lstrip = token->lstrip;
        old->rstrip = token->rstrip;
        old->normalized = token->normalized;
        return STATUS_OK;
    }
    if (id < 0) {
        id = (int32_t)(t->model_pieces + t->added_new++);
        if (id >= TOKENIZER_ID_LIMIT || tokenizer_piece(t, id) != NULL)
            return status_fail(STATUS_FORMAT,
                               "%s: the added token \"%.60s\" is not in the vocabulary and gets id "
                               "%d, which is taken "
                               "(the vocabulary's ids have holes or it repeats a piece)",
                               where, token->content, id);
    }
    if (file_id >= 0 && file_id != id)
        log_warning("%s: the added token \"%.60s\" is said to have id %lld; it gets %d, as in "
                    "Hugging Face's tokenizers",
                    where, token->content, (long long)file_id, id);
    TRY(mem_grow(&t->added, &t->added_capacity, t->added_count + 1, sizeof *t->added,
                 "added tokens"));
    struct added_token *added = &t->added[t->added_count];
    char *copy;
    TRY(mem_strdup(token->content, &copy));
    *added = *token;
    added->content = copy;
    added->id = id;
    t->added_count++; /* from here on it is released with the tokenizer */
    TRY(piece_set(t, copy, n, id));
    return trie_insert(&t->added_by_content, copy, n, (int32_t)t->added_count - 1);
}

static uint64_t hash_text(uint64_t hash, const char *text, size_t n)
{
    return text == NULL ? hash : hash_combine(hash, hash_bytes(text, n));
}

/* BERT's parts first, and others only where they are: so a hash stays when other kinds are added.
 */
static uint64_t hash_parts(const struct tokenizer *t, uint64_t hash)
{
    for (int i = 0; i < t->step_count; i++) {
        const struct normalize_step *s = &t->steps[i];
        hash = hash_combine(hash, s->bits);
        if (s->kind == NORMALIZE_PASS)
            continue;
        hash = hash_combine(
            hash, (uint64_t)s->kind << 32 | (uint64_t)s->spaces.least << 16 |
                      (uint64_t)s->spaces.any << 9 | (uint64_t)s->spaces.breaks << 8 |
                      (uint64_t)s->form.compat << 7 | (uint64_t)s->form.compose << 6 |
                      (uint64_t)s->strip.left << 5 | (uint64_t)s->strip.right << 4 |
                      (uint64_t)s->spm.dummy_prefix << 3 | (uint64_t)s->spm.remove_extra << 2 |
                      (uint64_t)s->spm.escape << 1 | (uint64_t)s->spm.suffix);
        hash = hash_text(hash, s->from, s->from_n);
        hash = hash_text(hash, s->to, s->to_n);
        hash = hash_text(hash, (const char *)s->charsmap.units,
                         s->charsmap.count * sizeof *s->charsmap.units);
        hash = hash_text(hash, s->charsmap.texts, s->charsmap.n);
    }
    for (int i = 0; i < t->split_count; i++) {
        const struct split_step *s = &t->splits[i];
        hash = hash_combine(hash, s->words.bits);
        if (s->kind == SPLIT_WORDS)
            continue;
        hash = hash_combine(hash, (uint64_t)s->kind << 8 | (uint64_t)s->prepend << 4 |
                                      (uint64_t)s->cut << 3 | (uint64_t)s->prefix_space << 2 |
                                      (uint64_t)s->each << 1);
        hash = hash_text(hash, s->mark, s->mark_n);
    }
    if (t->split_count == 0)
        hash = hash_combine(hash, 0);
    return hash;
}

/* The tables of models other than WordPiece. */
static uint64_t hash_model(const struct tokenizer *t, uint64_t hash)
{
    const struct bpe *b = &t->bpe;
    uint64_t merges = 0; /* a sum: their place in the table does not matter */
    if (t->model == &tokenizer_bpe) {
        for (size_t i = 0; b->merges != NULL && i < (size_t)1 << (64 - b->shift); i++)
            if (b->merges[i].left >= 0)
                merges += hash_bytes(&b->merges[i], sizeof *b->merges);
        hash = hash_combine(hash, merges);
        hash = hash_combine(hash, (uint64_t)b->byte_level << 3 | (uint64_t)b->byte_fallback << 2 |
                                      (uint64_t)b->fuse_unk << 1 | (uint64_t)b->ignore_merges);
    } else if (t->model == &tokenizer_unigram) {
        hash = hash_text(hash, (const char *)t->unigram.scores,
                         (size_t)t->model_pieces * sizeof *t->unigram.scores);
        hash = hash_combine(hash, t->unigram.byte_fallback);
    } else if (t->model != &tokenizer_wordpiece) {
        hash =
            hash_text(hash, (const char *)t->spm.scores, t->model_pieces * sizeof *t->spm.scores);
        hash = hash_text(hash, (const char *)t->spm.types, t->model_pieces);
        hash =
            hash_combine(hash, (uint64_t)t->spm.punct_alone << 1 | (uint64_t)t->spm.byte_fallback);
    }
    return hash;
}

/* Everything that decides ids. */
static uint64_t tokenizer_hash(const struct tokenizer *t)
{
    const struct wordpiece *w = &t->wordpiece;
    uint64_t hash = hash_bytes(unicode_source, strlen(unicode_source));
    hash = hash_combine(hash, hash_bytes(t->model->kind, strlen(t->model->kind)));
    hash = hash_parts(t, hash);
    hash = hash_combine(hash, hash_bytes(w->prefix, strlen(w->prefix)));
    hash = hash_combine(hash, (uint64_t)w->max_word);
    hash = hash_combine(hash, (uint64_t)t->unk);
    hash = hash_combine(hash, (uint64_t)t->info.cls);
    hash = hash_combine(hash, (uint64_t)t->info.sep);
    hash = hash_model(t, hash);
    if (t->info.two_separators || t->info.one_type) /* no ends: cls is -1 */
        hash =
            hash_combine(hash, (uint64_t)t->info.two_separators << 1 | (uint64_t)t->info.one_type);
    for (int32_t id = 0; id < t->info.vocab_size; id++) {
        const char *piece = tokenizer_piece(t, id);
        hash = hash_combine(hash, piece == NULL ? 0 : hash_bytes(piece, strlen(piece)));
    }
    uint64_t added = 0; /* a sum: their order does not matter */
    for (size_t i = 0; i < t->added_count; i++) {
        const struct added_token *a = &t->added[i];
        added += hash_combine(hash_bytes(a->content, strlen(a->content)),
                              (uint64_t)a->id << 4 | (uint64_t)a->single_word << 3 |
                                  (uint64_t)a->lstrip << 2 | (uint64_t)a->rstrip << 1 |
                                  (uint64_t)a->normalized);
    }
    return hash_combine(hash, added);
}

/* The id of a token that the configuration may name, and of one of two usual names if not. */
static enum status find_named(const struct tokenizer *t, const struct tokenizer_config *config,
                              const char *key, const char *usual, const char *other, int32_t *id)
{
    const char *text;
    TRY(config_token_text(config, key, "", &text));
    *id = text == NULL ? -1 : tokenizer_find(t, text, strlen(text));
    if (text == NULL || *text != '\0')
        return STATUS_OK;
    *id = tokenizer_find(t, usual, strlen(usual));
    if (*id < 0)
        *id = tokenizer_find(t, other, strlen(other));
    return STATUS_OK;
}

/* Once all parts are there: patterns of added tokens, special ids, the hash. */
static enum status tokenizer_finish(struct tokenizer *t, const char *where,
                                    const struct tokenizer_config *config)
{
    struct str buffers[2] = {{0}};
    enum status st = STATUS_OK;
    if (t->wordpiece.prefix == NULL)
        TRY_GOTO(out, mem_strdup("", &t->wordpiece.prefix));
    TRY_GOTO(out, trie_freeze(&t->vocab));
    t->wordpiece.inside = trie_walk(&t->vocab, t->wordpiece.prefix, strlen(t->wordpiece.prefix));
    for (size_t i = 0; i < t->added_count; i++) {
        const struct added_token *a = &t->added[i];
        const char *pattern = a->content;
        size_t n = strlen(pattern);
        if (a->normalized)
            TRY_GOTO(out, normalize_all(t, a->content, n, buffers, &pattern, &n));
        TRY_GOTO(out, matcher_add(t, a->normalized ? &t->normalized : &t->raw, where, pattern, n,
                                  (int32_t)i));
        if (pattern != a->content)
            TRY_GOTO(out,
                     piece_set(t, pattern, n, a->id)); /* decoded as it is looked for, as there */
    }
    t->info.kind = t->model->kind;
    t->info.unk = t->unk;
    if (t->unk < 0)
        TRY_GOTO(out, find_named(t, config, "unk_token", "[UNK]", "<unk>", &t->info.unk));
    TRY_GOTO(out, find_named(t, config, "pad_token", "[PAD]", "<pad>", &t->info.pad));
    TRY_GOTO(out, find_named(t, config, "mask_token", "[MASK]", "<mask>", &t->info.mask));
    for (int i = 0; i < t->step_count; i++)
        t->info.lowercase = t->info.lowercase || (t->steps[i].bits & NORMALIZE_LOWERCASE) != 0;
    double longest;
    TRY_GOTO(out, json_real_or(config->config, "model_max_length", config->where[FILE_CONFIG], 0,
                               &longest));
    /* transformers writes 1e30 where it knows no limit */
    t->info.model_max_length = longest >= 1 && longest <= 1e9 ? (int)longest : 0;
    t->info.hash = tokenizer_hash(t);
out:
    str_release(&buffers[0]);
    str_release(&buffers[1]);
    return st;
}

/* ---- Opening
 * ---------------------------------------------------------------------------------------------------
 */

static enum status parse_side_file(const struct tokenizer *t, enum tokenizer_file file,
                                   const char *where, json_t **out)
{
    *out = NULL;
    if (t->files[file].bytes == NULL)
        return STATUS_OK;
    TRY(json_parse_reals(t->files[file].bytes, t->files[file].n, where, out));
    if (!json_is_object(*out))
        return status_fail(STATUS_FORMAT, "%s: wanted a JSON object", where);
    return STATUS_OK;
}

/* What would change ids and is not known here. */
static enum status refuse_unknown(const struct tokenizer_config *c)
{
    const char *where = c->where[FILE_CONFIG], *side;
    bool split;
    TRY(json_text_or(c->config, "truncation_side", where, "right", &side));
    if (strcmp(side, "right") != 0)
        return status_fail(
            STATUS_FORMAT,
            "%s: truncation_side is \"%.20s\"; long texts are cut at their end here, "
            "wanted \"right\"",
            where, side);
    TRY(json_bool_or(c->config, "split_special_tokens", where, false, &split));
    if (split)
        return status_fail(
            STATUS_FORMAT,
            "%s: split_special_tokens is true, which is not known here; wanted false", where);
    return STATUS_OK;
}

/* Make the tokenizer of the files it holds. */
static enum status tokenizer_build(struct tokenizer *t, const char *folder)
{
    struct tokenizer_config config = {0};
    json_t *parsed[TOKENIZER_FILES] = {NULL};
    enum status st = STATUS_OK;
    t->model = &tokenizer_wordpiece;
    t->info.cls = t->info.sep = t->info.pad = t->info.unk = t->info.mask = t->unk = -1;
    for (int i = 0; i < TOKENIZER_FILES; i++)
        TRY_GOTO(out, path_join(folder, tokenizer_file_names[i], &config.where[i]));
    for (int i = FILE_CONFIG; i <= FILE_ADDED; i++)
        TRY_GOTO(out, parse_side_file(t, (enum tokenizer_file)i, config.where[i], &parsed[i]));
    config.config = parsed[FILE_CONFIG];
    config.special = parsed[FILE_SPECIAL];
    config.added = parsed[FILE_ADDED];
    const char *where = config.where[FILE_TOKENIZER];
    TRY_GOTO(out, refuse_unknown(&config));
    TRY_GOTO(out, parse_side_file(t, FILE_MODEL_CONFIG, config.where[FILE_MODEL_CONFIG],
                                  &parsed[FILE_MODEL_CONFIG]));
    config.model = parsed[FILE_MODEL_CONFIG];
    if (t->files[FILE_TOKENIZER].bytes != NULL) {
        TRY_GOTO(out, tokenizer_read_json(t, t->files[FILE_TOKENIZER].bytes,
                                          t->files[FILE_TOKENIZER].n, where, &config));
    } else {
        TRY_GOTO(out, tokenizer_read_files(t, &config, &where));
    }
    TRY_GOTO(out, tokenizer_finish(t, where, &config));
out:
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        mem_free(config.where[i]);
        json_decref(parsed[i]);
    }
    return st;
}

enum status tokenizer_open_memory(const char *folder, const char *const files[TOKENIZER_FILES],
                                  const size_t sizes[TOKENIZER_FILES], struct tokenizer **out)
{
    struct tokenizer *t;
    enum status st = STATUS_OK;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *t, "a tokenizer", &t));
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        if (files[i] == NULL)
            continue;
        TRY_GOTO(fail, mem_strndup(files[i], sizes[i], &t->files[i].bytes));
        t->files[i].n = sizes[i];
    }
    TRY_GOTO(fail, tokenizer_build(t, folder));
    *out = t;
    return STATUS_OK;
fail:
    tokenizer_close(t);
    return st;
}

enum status tokenizer_open(const char *folder, struct tokenizer **out)
{
    char *bytes[TOKENIZER_FILES] = {NULL}, *path = NULL;
    const char *files[TOKENIZER_FILES];
    size_t sizes[TOKENIZER_FILES] = {0};
    enum status st = STATUS_OK;
    *out = NULL;
    for (int i = 0; i < TOKENIZER_FILES; i++) {
        TRY_GOTO(out, path_join(folder, tokenizer_file_names[i], &path));
        if (file_exists(path))
            TRY_GOTO(out, file_read(path, TOKENIZER_FILE_LIMIT, &bytes[i], &sizes[i]));
        mem_free(path);
        path = NULL;
        files[i] = bytes[i];
    }
    if (files[FILE_TOKENIZER] == NULL && files[FILE_VOCAB] == NULL &&
        files[FILE_VOCAB_JSON] == NULL && files[FILE_SPM] == NULL && files[FILE_SPM_XLM] == NULL &&
        files[FILE_SPM_ALBERT] == NULL)
        st = status_fail(STATUS_NOINPUT,
                         "%s: no tokenizer here: wanted tokenizer.json or vocab.txt, vocab.json "
                         "with merges.txt, spm.model, sentencepiece.bpe.model or spiece.model",
                         folder);
    else
        st = tokenizer_open_memory(folder, files, sizes, out);
out:
    mem_free(path);
    for (int i = 0; i < TOKENIZER_FILES; i++)
        mem_free(bytes[i]);
    return st;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < t->step_count; i++)
        normalize_step_release(&t->steps[i]);
    for (int i = 0; i < t->decoder_count; i++) {
        mem_free(t->decoder[i].from);
        mem_free(t->decoder[i].to);
    }
    trie_release(&t->vocab);
    mem_free(t->wordpiece.prefix);
    mem_free(t->bpe.merges);
    mem_free(t->unigram.scores);
    mem_free(t->spm.scores);
    mem_free(t->spm.gains);
    mem_free(t->spm.types);
    trie_release(&t->spm.user);
    for (size_t i = 0; i < t->added_count; i++)
        mem_free((void *)(uintptr_t)t->added[i].content);
    mem_free(t->added);
    trie_release(&t->added_by_content);
    trie_release(&t->raw.patterns);
    trie_release(&t->normalized.patterns);
    str_release(&t->pieces);
    mem_free(t->piece_begin);
    for (int i = 0; i < TOKENIZER_FILES; i++)
        mem_free(t->files[i].bytes);
    mem_free(t);
}

void tokenizer_get_info(const struct tokenizer *t, struct tokenizer_info *info)
{
    *info = t->info;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->info.vocab_size || t->piece_begin[id] == NO_PIECE)
        return NULL;
    return t->pieces.p + t->piece_begin[id];
}

int32_t tokenizer_id(const struct tokenizer *t, const char *piece)
{
    return tokenizer_find(t, piece, strlen(piece));
}

void id_list_release(struct id_list *ids)
{
    mem_free(ids->p);
    *ids = (struct id_list){0};
}

/* ---- Encoding
 * --------------------------------------------------------------------------------------------------
 */

static const struct unicode_class *class_at(const char *text, size_t n, size_t *length)
{
    uint32_t c;
    *length = (size_t)utf8_decode(text, n, &c);
    return unicode_class(c);
}

/* The class of the character that ends at text + n (n > 0), and its length. */
static const struct unicode_class *class_before(const char *text, size_t n, size_t *length)
{
    size_t begin = n - 1;
    while (begin > 0 && n - begin < 4 && ((unsigned char)text[begin] & 0xC0) == 0x80)
        begin--;
    *length = n - begin;
    uint32_t c;
    utf8_decode(text + begin, n - begin, &c);
    return unicode_class(c);
}

/* Find the first added token in text[*begin..n): its index, or -1, and where it is. */
static int32_t matcher_find(const struct token_matcher *m, const char *text, size_t n,
                            size_t *begin, size_t *end)
{
    if (m->count == 0)
        return -1;
    for (size_t at = *begin; at < n; at++) {
        if (m->only_first >= 0) {
            const char *hit = memchr(text + at, m->only_first, n - at);
            if (hit == NULL)
                return -1;
            at = (size_t)(hit - text);
        } else if (!m->first[(unsigned char)text[at]]) {
            continue;
        }
        uint32_t node = TRIE_ROOT;
        int32_t index = -1;
        for (size_t i = at;
             i < n && (node = trie_next(&m->patterns, node, (unsigned char)text[i])) != 0; i++) {
            if (trie_value(&m->patterns, node) >= 0) {
                index = trie_value(&m->patterns, node);
                *end = i + 1;
            }
        }
        if (index >= 0) {
            *begin = at;
            return index;
        }
    }
    return -1;
}

static enum status id_add(struct id_list *ids, int32_t id)
{
    TRY(mem_grow(&ids->p, &ids->capacity, ids->n + 1, sizeof *ids->p, "token ids"));
    ids->p[ids->n++] = id;
    return STATUS_OK;
}

/* first: the text begins where the whole text does. */
typedef enum status encode_between(struct encoding *e, const char *text, size_t n, bool first);

/*
 * Cut the matcher's tokens out of a text and pass what is between them on. As in tokenizers, the
 * next match is looked for behind the token itself, not behind the white space that rstrip gave it;
 * a match that single_word discards is not looked into either.
 */
static enum status encode_around(struct encoding *e, const struct token_matcher *m,
                                 const char *text, size_t n, bool first, encode_between *between)
{
    size_t done = 0, begin = 0, end = 0, length;
    int32_t index;
    for (; (index = matcher_find(m, text, n, &begin, &end)) >= 0; begin = end) {
        const struct added_token *token = &e->t->added[index];
        size_t from = begin, to = end;
        if (token->single_word &&
            ((from > 0 && (class_before(text, from, &length)->flags & UNICODE_WORD)) ||
             (to < n && (class_at(text + to, n - to, &length)->flags & UNICODE_WORD))))
            continue;
        while (token->lstrip && from > done &&
               (class_before(text, from, &length)->flags & UNICODE_SPACE))
            from -= length;
        if (token->rstrip && to < done) /* white space that the one before took: not once more */
            to = done;
        while (token->rstrip && to < n &&
               (class_at(text + to, n - to, &length)->flags & UNICODE_SPACE))
            to += length;
        if (from > done)
            TRY(between(e, text + done, from - done, first && done == 0));
        TRY(id_add(e->ids, token->id));
        done = to;
    }
    return done < n ? between(e, text + done, n - done, first && done == 0) : STATUS_OK;
}

static enum status encode_words(struct encoding *e, const char *text, size_t n, bool first)
{
    e->first = first;
    return split_encode(e, text, n);
}

static enum status encode_text(struct encoding *e, const char *text, size_t n, bool first)
{
    TRY(normalize_all(e->t, text, n, e->buffers, &text, &n));
    return encode_around(e, &e->t->normalized, text, n, first, encode_words);
}

static enum status encode_raw(struct encoding *e, const char *text, size_t n, bool first)
{
    size_t begin = 0, length;
    if (!e->t->spm.punct_alone)
        return encode_text(e, text, n, first);
    for (size_t at = 0; at < n; at += length) {
        if ((class_at(text + at, n - at, &length)->flags & UNICODE_PUNCT) == 0)
            continue;
        if (at > begin)
            TRY(encode_text(e, text + begin, at - begin, false));
        TRY(encode_text(e, text + at, length, false));
        begin = at + length;
    }
    return begin < n ? encode_text(e, text + begin, n - begin, false) : STATUS_OK;
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                             struct id_list *ids)
{
    struct encoding e = {.t = t, .ids = ids};
    size_t before = ids->n;
    enum status st = encode_around(&e, &t->raw, text, n, true, encode_raw);
    if (st != STATUS_OK)
        ids->n = before;
    str_release(&e.buffers[0]);
    str_release(&e.buffers[1]);
    for (int i = 0; i < t->split_count; i++)
        str_release(&e.splits[i]);
    str_release(&e.scratch);
    return st;
}

/* ---- Saving
 * ----------------------------------------------------------------------------------------------------
 */

/* What transformers needs to know of a vocabulary that came without a configuration. */
static enum status save_config(const struct tokenizer *t, const char *path)
{
    static const char *const keys[] = {"unk_token", "sep_token", "pad_token", "cls_token",
                                       "mask_token"};
    const int32_t ids[] = {t->info.unk, t->info.sep, t->info.pad, t->info.cls, t->info.mask};
    json_t *config = json_pack("{s:s}", "tokenizer_class", t->save_class);
    bool whole = config != NULL;
    if (t->model == &tokenizer_wordpiece)
        whole = whole &&
                json_object_set_new(config, "do_lower_case", json_boolean(t->info.lowercase)) ==
                    0 &&
                json_object_set_new(config, "tokenize_chinese_chars", json_true()) == 0 &&
                json_object_set_new(config, "strip_accents", json_null()) == 0;
    for (size_t i = 0; whole && i < sizeof ids / sizeof ids[0]; i++) {
        const char *piece = tokenizer_piece(t, ids[i]);
        if (piece != NULL)
            whole = json_object_set_new(config, keys[i], json_string(piece)) == 0;
    }
    enum status st = whole ? json_write_file(path, config)
                           : status_fail(STATUS_NOMEM, "%s: no memory to write JSON", path);
    json_decref(config);
    return st;
}

enum status tokenizer_save(const struct tokenizer *t, const char *folder)
{
    for (int i = 0; i < FILE_MODEL_CONFIG; i++) {
        char *path;
        enum status st = STATUS_OK;
        TRY(path_join(folder, tokenizer_file_names[i], &path));
        if (t->files[i].bytes != NULL)
            st = file_write_atomic(path, t->files[i].bytes, t->files[i].n);
        else if (i == FILE_CONFIG && t->save_class != NULL)
            st = save_config(t, path);
        mem_free(path);
        TRY(st);
    }
    return STATUS_OK;
}

/* ---- Joining
 * ---------------------------------------------------------------------------------------------------
 */

/* Special tokens around a text, or a pair. */
static int specials(const struct tokenizer_info *info, bool pair)
{
    return info->no_ends ? 0 : !pair ? 2 : info->two_separators ? 4 : 3;
}

/* How many ids of a and b stay (b: 0 of a single text), and the specials around them that fit as
 * well. */
static void join_plan(const struct tokenizer_info *info, int64_t na, int64_t nb, int max_length,
                      int64_t *keep_a, int64_t *keep_b)
{
    int64_t room = max_length - specials(info, nb >= 0);
    if (room < 0)
        room = 0;
    *keep_a = na;
    *keep_b = nb < 0 ? 0 : nb;
    if (*keep_a + *keep_b <= room)
        return;
    if (nb < 0) {
        *keep_a = room;
        return;
    }
    /* tokenizers' longest_first: the shorter text keeps all it can, else both keep half, the longer
     * the odd one */
    bool swap = na > nb;
    int64_t shorter = swap ? nb : na, longer;
    longer = shorter > room ? shorter : (room - shorter > shorter ? room - shorter : shorter);
    if (shorter + longer > room) {
        shorter = room / 2;
        longer = shorter + room % 2;
    }
    *keep_a = swap ? longer : shorter;
    *keep_b = swap ? shorter : longer;
}

int tokenizer_length(const struct tokenizer_info *info, int64_t na, int64_t nb, int max_length)
{
    int64_t keep_a, keep_b;
    join_plan(info, na, nb, max_length, &keep_a, &keep_b);
    int64_t n = keep_a + keep_b + specials(info, nb >= 0);
    return (int)(n < max_length ? n : max_length < 0 ? 0 : max_length);
}

int tokenizer_join(const struct tokenizer_info *info, const int32_t *a, int64_t na,
                   const int32_t *b, int64_t nb, int max_length, int32_t *out, int32_t *types)
{
    int64_t keep_a, keep_b;
    int n = tokenizer_length(info, na, nb, max_length);
    join_plan(info, na, nb, max_length, &keep_a, &keep_b);
    const int first = info->no_ends ? 0 : 1, between = specials(info, true) - 2 * first;
    for (int i = 0; i < n;
         i++) { /* n is below what the specials need only for a max_length of 0 to 3 */
        int64_t in_b = i - keep_a - first - between;
        if (i < first)
            out[i] = info->cls;
        else if (i - first < keep_a)
            out[i] = a[i - first];
        else
            out[i] = in_b >= 0 && in_b < keep_b ? b[in_b] : info->sep;
        if (types != NULL)
            types[i] = in_b >= 0 && !info->one_type;
    }
    return n;
}
