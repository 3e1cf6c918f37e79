/*
 * tfidf.c - counting n-grams; see tfidf.h.
 *
 * There is no table of n-grams. The texts become one stream of word numbers, numbered in the words'
 * bytewise order, with 0 between rows. Its positions are sorted by the words that follow (one
 * stable counting sort for each of the ngram_max words, last word first). Then equal n-grams are
 * neighbours, and one scan meets the terms in their final order: a space sorts before every word
 * character, so joined strings compare as their lists of words do. Each position learns the numbers
 * of the terms that begin there; a walk over the rows counts them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "data/tfidf_internal.h"
#include "data/words.h"

enum {
    SMALL_COUNT = 4096, /* counts below have their level in a table */
    AHEAD = 16          /* what lies anywhere is fetched so many places before it is needed */
};

/* ---- rows ---- */

enum status tfidf_create(const struct tfidf_opts *opts, struct tfidf **out)
{
    *out = NULL;
    if (opts->ngram_min < 1 || opts->ngram_min > opts->ngram_max ||
        opts->ngram_max > TFIDF_MAX_NGRAM)
        return status_fail(STATUS_ARG, "n-grams of %d to %d words, wanted 1 to %d", opts->ngram_min,
                           opts->ngram_max, TFIDF_MAX_NGRAM);
    TRY(mem_alloc(1, sizeof **out, "the texts' words", out));
    (*out)->opts = *opts;
    return STATUS_OK;
}

void tfidf_destroy(struct tfidf *t)
{
    if (t == NULL)
        return;
    str_release(&t->bytes);
    str_release(&t->lower);
    mem_free(t->word);
    mem_free(t->slots);
    mem_free(t->stream);
    mem_free(t->begin);
    mem_free(t->row);
    mem_free(t->level);
    mem_free(t->count);
    mem_free(t->first);
    mem_free(t->length);
    mem_free(t);
}

static size_t slot_of(const struct tfidf *t, const char *p, size_t n)
{
    size_t at = (size_t)hash_bytes(p, n) & (t->nslots - 1);
    while (t->slots[at] != 0) {
        const struct word *w = &t->word[t->slots[at] - 1];
        if (w->length == n && memcmp(t->bytes.p + w->begin, p, n) == 0)
            break;
        at = (at + 1) & (t->nslots - 1);
    }
    return at;
}

/* At most half full. */
static enum status grow_slots(struct tfidf *t)
{
    mem_free(t->slots);
    t->nslots = t->nslots == 0 ? 1024 : t->nslots * 2;
    TRY(mem_alloc(t->nslots, sizeof *t->slots, "the different words", &t->slots));
    for (size_t i = 0; i < t->nwords; i++)
        t->slots[slot_of(t, t->bytes.p + t->word[i].begin, t->word[i].length)] = (int32_t)i + 1;
    return STATUS_OK;
}

static enum status add_word(struct tfidf *t, const char *p, size_t n)
{
    if (t->nwords >= t->nslots / 2)
        TRY(grow_slots(t));
    size_t at = slot_of(t, p, n);
    if (t->slots[at] == 0) {
        TRY(mem_grow(&t->word, &t->word_capacity, t->nwords + 1, sizeof *t->word,
                     "the different words"));
        t->word[t->nwords] = (struct word){.begin = t->bytes.n, .length = (uint32_t)n};
        TRY(str_add(&t->bytes, p, n));
        t->slots[at] = (int32_t)++t->nwords;
    }
    TRY(mem_grow(&t->stream, &t->stream_capacity, t->nstream + 1, sizeof *t->stream,
                 "the texts' words"));
    t->stream[t->nstream++] = (uint32_t)t->slots[at];
    t->words++;
    return STATUS_OK;
}

enum status tfidf_add(struct tfidf *t, const char *text, size_t n)
{
    size_t at = 0, begin, before = t->nstream;
    int64_t ngrams = t->opts.ngram_max - t->opts.ngram_min + 1;
    if (t->finished || t->rows == INT32_MAX)
        return status_fail(STATUS_ARG, "no more rows can be added");
    if (t->opts.lowercase) {
        str_clear(&t->lower);
        TRY(str_add(&t->lower, "", 0));
        TRY(words_lower(text, n, &t->lower));
        text = t->lower.p;
        n = t->lower.n;
    }
    while (words_next(text, n, &at, &begin))
        TRY(add_word(t, text + begin, at - begin));
    t->longest = t->nstream - before > t->longest ? t->nstream - before : t->longest;
    TRY(mem_grow(&t->stream, &t->stream_capacity, t->nstream + 1, sizeof *t->stream,
                 "the texts' words"));
    t->stream[t->nstream++] = 0;
    t->rows++;
    if ((int64_t)t->nstream > INT32_MAX / ngrams)
        return status_fail(STATUS_DATA,
                           "the texts have more than %lld n-grams up to row %lld; take fewer rows, "
                           "shorter texts or shorter n-grams",
                           (long long)INT32_MAX, (long long)t->rows - 1);
    return STATUS_OK;
}

/* ---- terms ---- */

struct named {
    const char *p;
    uint32_t length;
    int32_t number;
};

static int by_bytes(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->length < y->length ? x->length : y->length);
    if (order == 0)
        order = x->length < y->length ? -1 : x->length > y->length;
    return order;
}

/* Number the words in their bytewise order. */
static enum status sort_words(struct tfidf *t)
{
    struct named *named = NULL;
    struct word *sorted = NULL;
    uint32_t *rank = NULL;
    enum status st;
    mem_free(t->slots);
    t->slots = NULL;
    t->nslots = 0;
    TRY_GOTO(done, mem_alloc_raw(t->nwords, sizeof *named, "the different words", &named));
    TRY_GOTO(done, mem_alloc_raw(t->nwords, sizeof *sorted, "the different words", &sorted));
    TRY_GOTO(done, mem_alloc_raw(t->nwords + 1, sizeof *rank, "the different words", &rank));
    for (size_t i = 0; i < t->nwords; i++)
        named[i] = (struct named){t->bytes.p + t->word[i].begin, t->word[i].length, (int32_t)i};
    if (t->nwords > 0)
        qsort(named, t->nwords, sizeof *named, by_bytes);
    rank[0] = 0;
    for (size_t i = 0; i < t->nwords; i++) {
        sorted[i] = t->word[named[i].number];
        rank[named[i].number + 1] = (uint32_t)i + 1;
    }
    for (size_t p = 0; p < t->nstream; p++)
        t->stream[p] = rank[t->stream[p]];
    mem_free(t->word);
    t->word = sorted;
    sorted = NULL;
done:
    mem_free(named);
    mem_free(sorted);
    mem_free(rank);
    return st;
}

/*
 * The positions of words, sorted by the ngram_max words that begin there. What stands behind a
 * row's end is compared, too; it only changes the order among equal terms.
 */
static enum status sort_positions(const struct tfidf *t, uint32_t *sorted, uint32_t *other)
{
    uint32_t *next;
    int64_t n = 0;
    TRY(mem_alloc_raw(t->nwords + 2, sizeof *next, "the sorting of n-grams", &next));
    for (size_t p = 0; p < t->nstream; p++) {
        if (t->stream[p] != 0)
            sorted[n++] = (uint32_t)p;
    }
    for (int k = t->opts.ngram_max - 1; k >= 0; k--) {
        memset(next, 0, (t->nwords + 2) * sizeof *next);
        for (int64_t i = 0; i < n; i++) {
            size_t p = sorted[i] + (size_t)k;
            next[(p < t->nstream ? t->stream[p] : 0) + 1]++;
        }
        for (size_t w = 1; w <= t->nwords; w++)
            next[w] += next[w - 1];
        for (int64_t i = 0; i < n; i++) {
            size_t p = sorted[i] + (size_t)k;
            other[next[p < t->nstream ? t->stream[p] : 0]++] = sorted[i];
        }
        memcpy(sorted, other, (size_t)n * sizeof *sorted);
    }
    mem_free(next);
    return STATUS_OK;
}

/* How many words, at most limit, stand at p before the row ends. */
static int words_at(const struct tfidf *t, size_t p, int limit)
{
    int k = 0;
    while (k < limit && t->stream[p + (size_t)k] != 0) /* the stream ends with a 0 */
        k++;
    return k;
}

/*
 * Meet the terms in order. Without `term` only their number is found; with it, term[(k - ngram_min)
 * * nstream + p] is the number of the term of k words at p, and first and length describe each.
 */
static int64_t number_terms(struct tfidf *t, const uint32_t *sorted, uint32_t *term)
{
    uint32_t current[TFIDF_MAX_NGRAM + 1] = {0};
    int64_t terms = 0;
    size_t before = 0;
    int had = 0; /* words at the position before */
    for (int64_t i = 0; i < t->words; i++) {
        size_t p = sorted[i];
        __builtin_prefetch(&t->stream[sorted[i + AHEAD < t->words ? i + AHEAD : i]]);
        int here = words_at(t, p, t->opts.ngram_max), same = 0;
        while (same < here && same < had &&
               t->stream[p + (size_t)same] == t->stream[before + (size_t)same])
            same++;
        for (int k = t->opts.ngram_min; k <= here; k++) {
            if (k > same) {
                current[k] = (uint32_t)terms++;
                if (term != NULL) {
                    t->first[current[k]] = (uint32_t)p;
                    t->length[current[k]] = (uint8_t)k;
                }
            }
            if (term != NULL)
                term[(size_t)(k - t->opts.ngram_min) * t->nstream + p] = current[k];
        }
        before = p;
        had = here;
    }
    return terms;
}

/* ---- columns ---- */

static enum status level_of(struct tfidf *t, uint32_t count, uint16_t *small, uint16_t *level)
{
    if (count < SMALL_COUNT && small[count] != 0) {
        *level = (uint16_t)(small[count] - 1);
        return STATUS_OK;
    }
    for (int l = 0; count >= SMALL_COUNT && l < t->levels; l++) {
        if (t->count[l] == count) {
            *level = (uint16_t)l;
            return STATUS_OK;
        }
    }
    /* So many different counts add up to more n-grams than tfidf_add() takes. */
    if (t->levels >= UINT16_MAX)
        return status_fail(STATUS_INTERNAL, "more than %d different counts", UINT16_MAX);
    TRY(mem_grow(&t->count, &t->count_capacity, (size_t)t->levels + 1, sizeof *t->count,
                 "the different counts"));
    t->count[t->levels] = count;
    *level = (uint16_t)t->levels++;
    if (count < SMALL_COUNT)
        small[count] = (uint16_t)(*level + 1);
    return STATUS_OK;
}

static size_t row_end(const struct tfidf *t, size_t from)
{
    while (t->stream[from] != 0)
        from++;
    return from;
}

/* The numbers of all n-grams of the row at stream[from..end) into list; returns how many. */
static size_t terms_of_row(const struct tfidf *t, const uint32_t *term, size_t from, size_t end,
                           uint32_t *list)
{
    size_t n = 0;
    for (int k = t->opts.ngram_min; k <= t->opts.ngram_max; k++) {
        const uint32_t *of = term + (size_t)(k - t->opts.ngram_min) * t->nstream;
        for (size_t p = from; p + (size_t)k <= end; p++)
            list[n++] = of[p];
    }
    return n;
}

/* begin[]: how many rows have each term, summed up. seen is zero. */
static void count_rows(struct tfidf *t, const uint32_t *term, uint32_t *list, uint32_t *seen)
{
    size_t from = 0;
    for (int64_t r = 0; r < t->rows; r++) {
        size_t end = row_end(t, from), n = terms_of_row(t, term, from, end, list);
        for (size_t i = 0; i < n; i++) {
            __builtin_prefetch(&seen[list[i + AHEAD < n ? i + AHEAD : i]], 1);
            if (seen[list[i]] != (uint32_t)r + 1) {
                seen[list[i]] = (uint32_t)r + 1;
                t->begin[list[i] + 1]++;
            }
        }
        from = end + 1;
    }
    for (int64_t j = 0; j < t->terms; j++)
        t->begin[j + 1] += t->begin[j];
}

/*
 * Rows in order, so a column's rows ascend. begin[j] serves as the place of term j's next row and
 * ends as begin[j + 1]. counts is zero.
 */
static enum status fill_columns(struct tfidf *t, const uint32_t *term, uint32_t *list,
                                uint32_t *counts)
{
    uint16_t *small;
    size_t from = 0;
    enum status st = STATUS_OK;
    TRY(mem_alloc(SMALL_COUNT, sizeof *small, "the different counts", &small));
    for (int64_t r = 0; r < t->rows && st == STATUS_OK; r++) {
        size_t end = row_end(t, from), n = terms_of_row(t, term, from, end, list);
        for (size_t i = 0; i < n; i++) {
            size_t next = list[i + AHEAD < n ? i + AHEAD : i];
            __builtin_prefetch(&counts[next], 1);
            __builtin_prefetch(&t->begin[next], 1);
            counts[list[i]]++;
        }
        for (size_t i = 0; i < n && st == STATUS_OK; i++) {
            uint32_t count = counts[list[i]];
            if (count == 0)
                continue; /* written where it was met first */
            int64_t at = t->begin[list[i]]++;
            t->row[at] = (int32_t)r;
            st = level_of(t, count, small, &t->level[at]);
            counts[list[i]] = 0;
        }
        from = end + 1;
    }
    mem_free(small);
    return st;
}

static enum status make_columns(struct tfidf *t, const uint32_t *term)
{
    uint32_t *scratch = NULL, *list = NULL;
    size_t terms = (size_t)t->terms, ngrams = (size_t)(t->opts.ngram_max - t->opts.ngram_min) + 1;
    enum status st;
    TRY_GOTO(done, mem_alloc(terms, sizeof *scratch, "the terms", &scratch));
    TRY_GOTO(done, mem_alloc_raw(t->longest * ngrams, sizeof *list, "a row's terms", &list));
    TRY_GOTO(done, mem_alloc(terms + 1, sizeof *t->begin, "the terms", &t->begin));
    count_rows(t, term, list, scratch);
    t->pairs = t->begin[terms];
    TRY_GOTO(done, mem_alloc_raw((size_t)t->pairs, sizeof *t->row, "the counts of terms", &t->row));
    TRY_GOTO(done,
             mem_alloc_raw((size_t)t->pairs, sizeof *t->level, "the counts of terms", &t->level));
    memset(scratch, 0, terms * sizeof *scratch);
    TRY_GOTO(done, fill_columns(t, term, list, scratch));
    memmove(t->begin + 1, t->begin, terms * sizeof *t->begin);
    t->begin[0] = 0;
done:
    mem_free(scratch);
    mem_free(list);
    return st;
}

enum status tfidf_finish(struct tfidf *t)
{
    size_t words = (size_t)t->words;
    int ngrams = t->opts.ngram_max - t->opts.ngram_min + 1;
    uint32_t *sorted = NULL, *other = NULL, *term = NULL;
    enum status st = sort_words(t);
    str_release(&t->lower);
    t->finished = true;
    if (st != STATUS_OK)
        return st;
    TRY_GOTO(done, mem_alloc_raw(words, sizeof *sorted, "the sorting of n-grams", &sorted));
    TRY_GOTO(done, mem_alloc_raw(words, sizeof *other, "the sorting of n-grams", &other));
    TRY_GOTO(done, sort_positions(t, sorted, other));
    mem_free(other);
    other = NULL;
    t->terms = number_terms(t, sorted, NULL);
    TRY_GOTO(done, mem_alloc_raw((size_t)t->terms, sizeof *t->first, "the terms", &t->first));
    TRY_GOTO(done, mem_alloc_raw((size_t)t->terms, sizeof *t->length, "the terms", &t->length));
    TRY_GOTO(done, mem_alloc_raw(t->nstream, (size_t)ngrams * sizeof *term,
                                 "the terms of the texts", &term));
    (void)number_terms(t, sorted, term);
    mem_free(sorted);
    sorted = NULL;
    st = make_columns(t, term);
done:
    mem_free(sorted);
    mem_free(other);
    mem_free(term);
    return st;
}

void tfidf_get_info(const struct tfidf *t, struct tfidf_info *info)
{
    *info = (struct tfidf_info){
        .rows = t->rows, .words = t->words, .terms = t->terms, .pairs = t->pairs};
    info->bytes = (int64_t)(t->bytes.capacity + t->word_capacity * sizeof *t->word +
                            t->stream_capacity * sizeof *t->stream) +
                  t->terms * 13 + t->pairs * 6;
}

enum status tfidf_name(const struct tfidf *t, int64_t term, struct str *out)
{
    for (uint32_t i = 0; i < t->length[term]; i++) {
        const struct word *word = &t->word[t->stream[t->first[term] + i] - 1];
        TRY(str_add(out, " ", i > 0));
        TRY(str_add(out, t->bytes.p + word->begin, word->length));
    }
    return STATUS_OK;
}
