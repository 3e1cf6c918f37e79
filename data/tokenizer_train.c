/*
 * tokenizer_train.c - the order of work when a tokenizer is trained; see tokenizer_train.h.
 *
 * The finished tokenizer.json is first written without pieces and opened as any other, so training
 * cuts words with the very steps that will cut them later.
 */
#include "data/tokenizer_train.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_train_parts.h"
#include "data/unicode.h"

#define VOCAB_LIMIT (1 << 22)

/* ---- The vocabulary ---- */

enum status vocabulary_add(struct vocabulary *v, const char *piece, size_t n, int32_t *id)
{
    *id = trie_find(&v->ids, piece, n);
    if (*id >= 0)
        return STATUS_OK;
    TRY(mem_grow(&v->begin, &v->capacity, v->count + 1, sizeof *v->begin, "pieces"));
    TRY(trie_insert(&v->ids, piece, n, (int32_t)v->count));
    v->begin[v->count] = v->text.n;
    TRY(str_add(&v->text, piece, n));
    TRY(str_add(&v->text, "", 1));
    *id = (int32_t)v->count++;
    return STATUS_OK;
}

static void vocabulary_release(struct vocabulary *v)
{
    trie_release(&v->ids);
    str_release(&v->text);
    mem_free(v->begin);
    mem_free(v->scores);
    mem_free(v->merges);
    mem_free(v->letters);
}

static int64_t search_letters(const struct vocabulary *v, uint32_t c)
{
    int64_t low = 0, high = v->letter_count;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (v->letters[mid] == c)
            return mid;
        *(v->letters[mid] < c ? &low : &high) = v->letters[mid] < c ? mid + 1 : mid;
    }
    return -1;
}

int64_t alphabet_find(const struct vocabulary *v, uint32_t c)
{
    return c < 128 ? v->ascii[c] : search_letters(v, c);
}

/* The part of opts->special_tokens up to the next comma, without spaces around; *list goes behind. */
static const char *next_name(const char **list, size_t *n)
{
    const char *begin = *list + strspn(*list, " \t"), *end = begin + strcspn(begin, ",");
    *list = *end == ',' ? end + 1 : end;
    while (end > begin && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *n = (size_t)(end - begin);
    return begin;
}

static enum status add_specials(struct vocabulary *v)
{
    const char *list = v->opts->special_tokens;
    while (*list != '\0') {
        size_t n, before = v->count;
        const char *name = next_name(&list, &n);
        int32_t id;
        if (n == 0)
            return status_fail(STATUS_CONFIG, "tokenizer.special_tokens is \"%.200s\", wanted names "
                                              "joined by commas",
                               v->opts->special_tokens);
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)name[i] < ' ')
                return status_fail(STATUS_CONFIG, "tokenizer.special_tokens has a control character "
                                                  "in a name");
        TRY(vocabulary_add(v, name, n, &id));
        if (v->count == before)
            return status_fail(STATUS_CONFIG, "tokenizer.special_tokens has \"%.*s\" twice",
                               (int)(n < 60 ? n : 60), name);
    }
    v->specials = (int32_t)v->count;
    static const struct {
        int named;
        const char *text;
    } wanted[] = {{NAMED_CLS, "[CLS] or <s>, the first token of a text"},
                  {NAMED_SEP, "[SEP] or </s>, the last token of a text"},
                  {NAMED_PAD, "[PAD] or <pad>, which fills rows up in transformers"},
                  {NAMED_UNK, "[UNK] or <unk>, for what has no piece"}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (train_special(v, wanted[i].named) < 0 && !(v->bytes && wanted[i].named == NAMED_UNK))
            return status_fail(STATUS_CONFIG, "tokenizer.special_tokens is \"%.200s\", without %s",
                               v->opts->special_tokens, wanted[i].text);
    return STATUS_OK;
}

struct letter {
    uint64_t count;
    uint32_t c;
};

static int by_count(const void *a, const void *b)
{
    const struct letter *p = a, *q = b;
    if (p->count != q->count)
        return p->count > q->count ? -1 : 1;
    return (p->c > q->c) - (p->c < q->c);
}

static int by_code_point(const void *a, const void *b)
{
    uint32_t p = *(const uint32_t *)a, q = *(const uint32_t *)b;
    return (p > q) - (p < q);
}

/* The characters of the words, the most frequent where there is a limit. */
static enum status find_alphabet(struct vocabulary *v, const struct word_table *table)
{
    struct letter *letters;
    size_t count = 0, kept;
    TRY(mem_alloc(UNICODE_LIMIT, sizeof *letters, "counts of characters", &letters));
    for (size_t i = 0; i < table->count; i++) {
        const char *s = table->text + table->words[i].at;
        for (size_t k = 0, n = table->words[i].n; k < n;) {
            uint32_t c;
            k += (size_t)utf8_decode(s + k, n - k, &c);
            letters[c].count += table->words[i].count;
        }
    }
    for (uint32_t c = 0; c < UNICODE_LIMIT; c++)
        if (letters[c].count > 0)
            letters[count++] = (struct letter){letters[c].count, c};
    kept = v->opts->limit_alphabet > 0 && count > (size_t)v->opts->limit_alphabet
               ? (size_t)v->opts->limit_alphabet
               : count;
    if (kept < count)
        qsort(letters, count, sizeof *letters, by_count);
    enum status st = mem_alloc_raw(kept, sizeof *v->letters, "the alphabet", &v->letters);
    if (st == STATUS_OK) {
        for (size_t i = 0; i < kept; i++)
            v->letters[i] = letters[i].c;
        qsort(v->letters, kept, sizeof *v->letters, by_code_point);
        v->letter_count = (int64_t)kept;
        for (uint32_t c = 0; c < 128; c++)
            v->ascii[c] = (int32_t)search_letters(v, c);
    }
    mem_free(letters);
    return st;
}

/* ---- Training ---- */

static enum status check_range(const char *key, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        return status_fail(STATUS_CONFIG, "tokenizer.%s is %lld, wanted %lld to %lld", key,
                           (long long)value, (long long)low, (long long)high);
    return STATUS_OK;
}

static enum status check_options(const struct tokenizer_train_opts *opts)
{
    TRY(check_range("vocab_size", opts->vocab_size, 1, VOCAB_LIMIT));
    TRY(check_range("min_frequency", opts->min_frequency, 0, INT64_MAX));
    TRY(check_range("limit_alphabet", opts->limit_alphabet, 0, VOCAB_LIMIT));
    TRY(check_range("max_piece_length", opts->max_piece, 1, 256));
    TRY(check_range("max_words", opts->max_words, 1000, (int64_t)1 << 31));
    if (opts->words == TRAIN_WORDS_BYTES && opts->model != TRAIN_BPE)
        return status_fail(STATUS_CONFIG, "tokenizer.pre_tokenizer=bytelevel goes with "
                                          "tokenizer.model=bpe only: its words are bytes");
    if (opts->words == TRAIN_WORDS_METASPACE && opts->model == TRAIN_WORDPIECE)
        return status_fail(STATUS_CONFIG, "tokenizer.pre_tokenizer=metaspace does not go with "
                                          "tokenizer.model=wordpiece: both mark where words begin");
    return STATUS_OK;
}

/* The tokenizer without pieces. */
static enum status open_empty(const struct vocabulary *v, struct tokenizer **out)
{
    struct str json = {0};
    const char *files[TOKENIZER_FILES] = {NULL};
    size_t sizes[TOKENIZER_FILES] = {0};
    enum status st = train_json(v, &json);
    if (st == STATUS_OK) {
        files[FILE_TOKENIZER] = json.p;
        sizes[FILE_TOKENIZER] = json.n;
        st = tokenizer_open_memory("the new tokenizer", files, sizes, out);
    }
    str_release(&json);
    return st;
}

static void warn(const struct tokenizer_train_opts *opts,
                 const struct tokenizer_train_report *report)
{
    if (report->cuts > 0)
        log_warning("tokenizer.max_words=%lld: more distinct words than that; words seen up to %lld "
                    "times were cut, %lld times in the course of counting",
                    (long long)opts->max_words, (long long)report->cut_most,
                    (long long)report->cuts);
    if (report->long_words > 0)
        log_warning("%lld words were left out: longer than %d %s", (long long)report->long_words,
                    opts->model == TRAIN_WORDPIECE ? TRAIN_WORDPIECE_LONGEST : TRAIN_LONGEST,
                    opts->model == TRAIN_WORDPIECE ? "characters" : "bytes");
    if (report->vocab_size < opts->vocab_size)
        log_warning("the text gives %lld pieces, tokenizer.vocab_size is %lld",
                    (long long)report->vocab_size, (long long)opts->vocab_size);
}

enum status tokenizer_train(const struct tokenizer_train_opts *given, const struct text_opts *inputs,
                            int count, const char *folder, struct tokenizer_train_report *report)
{
    struct tokenizer_train_opts opts = *given;
    struct vocabulary v = {.opts = &opts};
    struct word_table table = {0};
    struct tokenizer *t = NULL;
    enum status st = STATUS_OK;
    *report = (struct tokenizer_train_report){0};
    if (opts.words == TRAIN_WORDS_AUTO)
        opts.words = opts.model == TRAIN_WORDPIECE ? TRAIN_WORDS_BERT
                     : opts.model == TRAIN_BPE     ? TRAIN_WORDS_BYTES
                                                   : TRAIN_WORDS_METASPACE;
    v.bytes = opts.words == TRAIN_WORDS_BYTES;
    TRY(check_options(&opts));
    TRY_GOTO(done, add_specials(&v));
    TRY_GOTO(done, open_empty(&v, &t));
    TRY_GOTO(done, folder_make(folder)); /* before the work, not behind it */
    TRY_GOTO(done, train_count(&opts, t, inputs, count, &table, report));
    if (table.count == 0) {
        st = status_fail(STATUS_DATA, "%s%s: no words in %lld rows of text", inputs[0].path,
                         count > 1 ? " and the other files" : "", (long long)report->rows);
        goto done;
    }
    log_info("counted: %lld words in %lld rows, %lld of them distinct", (long long)report->words,
             (long long)report->rows, (long long)report->distinct);
    if (!v.bytes)
        TRY_GOTO(done, find_alphabet(&v, &table));
    report->alphabet = v.bytes ? 256 : v.letter_count;
    TRY_GOTO(done, opts.model == TRAIN_UNIGRAM ? train_unigram(&v, &table, report)
                                               : train_merges(&v, &table, report));
    report->vocab_size = (int64_t)v.count;
    warn(&opts, report);
    st = train_write(&v, folder);
done:
    tokenizer_close(t);
    word_table_release(&table);
    vocabulary_release(&v);
    return st;
}
