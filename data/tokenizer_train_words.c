/*
 * tokenizer_train_words.c - rows to counted words; see tokenizer_train.h.
 *
 * Rows are read in batches of some megabytes, which all threads count in tables of their own; these
 * are added up behind each batch, so that what max_words cuts, at the end of a batch only, depends on
 * the rows and not on the threads. Cutting drops the least counts until half the room is free.
 */
#include <omp.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/threads.h"
#include "data/tokenizer_train_parts.h"

#define BATCH_BYTES ((size_t)8 << 20)
#define BYTES_A_WORD 32 /* room for the text of max_words words */

/* ---- The table ---- */

void word_table_release(struct word_table *t)
{
    mem_free(t->words);
    mem_free(t->text);
    mem_free(t->slots);
    *t = (struct word_table){0};
}

void word_table_settle(struct word_table *t)
{
    mem_free(t->slots);
    t->slots = NULL;
    t->slot_count = 0;
}

static void put_slot(struct word_table *t, uint32_t index)
{
    size_t mask = t->slot_count - 1, at = t->words[index].hash & mask;
    while (t->slots[at] != 0)
        at = (at + 1) & mask;
    t->slots[at] = index + 1;
}

static enum status resize_slots(struct word_table *t, size_t slot_count)
{
    word_table_settle(t); /* not both at a time: they are made of words */
    TRY(mem_alloc(slot_count, sizeof *t->slots, "the table of words", &t->slots));
    t->slot_count = slot_count;
    for (size_t i = 0; i < t->count; i++)
        put_slot(t, (uint32_t)i);
    return STATUS_OK;
}

static enum status add_hashed(struct word_table *t, const char *word, size_t length, uint64_t n,
                              uint32_t hash)
{
    size_t room = t->slot_count == 0 ? 1024 : t->slot_count;
    while (2 * (t->count + 1) > room)
        room *= 2;
    if (room != t->slot_count)
        TRY(resize_slots(t, room));
    size_t mask = t->slot_count - 1, at = hash & mask;
    t->seen += n;
    for (; t->slots[at] != 0; at = (at + 1) & mask) {
        struct train_word *w = &t->words[t->slots[at] - 1];
        if (w->hash == hash && w->n == length && memcmp(t->text + w->at, word, length) == 0) {
            w->count += n;
            return STATUS_OK;
        }
    }
    if (t->count == UINT32_MAX - 1)
        return status_fail(STATUS_NOMEM, "too many distinct words");
    TRY(mem_grow(&t->words, &t->capacity, t->count + 1, sizeof *t->words, "distinct words"));
    TRY(mem_grow(&t->text, &t->text_capacity, t->text_n + length, 1, "the text of words"));
    memcpy(t->text + t->text_n, word, length);
    t->words[t->count] = (struct train_word){n, t->text_n, (uint32_t)length, hash};
    t->text_n += length;
    t->slots[at] = (uint32_t)++t->count;
    return STATUS_OK;
}

enum status word_table_add(struct word_table *t, const char *word, size_t length, uint64_t n)
{
    return add_hashed(t, word, length, n, (uint32_t)hash_bytes(word, length));
}

static void clear(struct word_table *t)
{
    if (t->slots != NULL)
        memset(t->slots, 0, t->slot_count * sizeof *t->slots);
    t->count = t->text_n = 0;
    t->seen = t->longer = 0;
}

/* Add all of from and empty it. */
static enum status drain(struct word_table *t, struct word_table *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct train_word *w = &from->words[i];
        TRY(add_hashed(t, from->text + w->at, w->n, w->count, w->hash));
    }
    t->longer += from->longer;
    clear(from);
    return STATUS_OK;
}

/* Keep words counted more than least times. */
static enum status drop_rare(struct word_table *t, uint64_t least)
{
    size_t kept = 0, text_n = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct train_word w = t->words[i];
        if (w.count <= least)
            continue;
        memmove(t->text + text_n, t->text + w.at, w.n); /* texts lie in the order of words */
        w.at = text_n;
        text_n += w.n;
        t->words[kept++] = w;
    }
    t->count = kept;
    t->text_n = text_n;
    return resize_slots(t, t->slot_count);
}

/* Where the table has outgrown max_words: drop the least counts, all words of one count together,
 * until half the room is free. */
static enum status cut(struct word_table *t, int64_t max_words,
                       struct tokenizer_train_report *report)
{
    size_t words = (size_t)max_words, bytes = words * BYTES_A_WORD, left = t->count,
           left_bytes = t->text_n;
    if (t->count <= words && t->text_n <= bytes)
        return STATUS_OK;
    uint64_t least = 0;
    while (left > words / 2 || left_bytes > bytes / 2) {
        uint64_t next = UINT64_MAX;
        for (size_t i = 0; i < t->count; i++)
            if (t->words[i].count > least && t->words[i].count < next)
                next = t->words[i].count;
        least = next;
        for (size_t i = 0; i < t->count; i++) {
            left -= t->words[i].count == least;
            left_bytes -= t->words[i].count == least ? t->words[i].n : 0;
        }
    }
    report->cuts++;
    if (report->cut_most < (int64_t)least)
        report->cut_most = (int64_t)least;
    return drop_rare(t, least);
}

/* ---- Counting ---- */

/* One thread's work. */
struct counter {
    struct encoding e; /* first: train_word_model is given its address */
    struct word_table own, *table; /* where words go: own, or the one of all */
    size_t longest;                /* characters or bytes, as characters says */
    bool characters;
    enum status st;
    char message[512];
};

static size_t count_characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

static enum status count_word(struct encoding *e, const char *word, size_t n)
{
    struct counter *c = (struct counter *)e;
    if (n > c->longest && (!c->characters || count_characters(word, n) > c->longest)) {
        c->table->longer++;
        return STATUS_OK;
    }
    return word_table_add(c->table, word, n, 1);
}

static const struct tokenizer_model counting = {"counting", count_word};

static enum status count_text(struct counter *c, const char *text, size_t n)
{
    const struct tokenizer *t = c->e.t;
    size_t limit = text_limit(n);
    for (int i = 0; i < t->step_count; i++) {
        const struct str *first = &c->e.buffers[0];
        bool in_first = first->p != NULL && text >= first->p && text < first->p + first->capacity;
        TRY(normalize_apply(t, &t->steps[i], limit, &text, &n, &c->e.buffers[in_first]));
    }
    c->e.first = true;
    return split_encode(&c->e, text, n);
}

static void counter_release(struct counter *c, int splits)
{
    str_release(&c->e.buffers[0]);
    str_release(&c->e.buffers[1]);
    for (int i = 0; i < splits; i++)
        str_release(&c->e.splits[i]);
    word_table_release(&c->own);
}

/* Texts that wait to be counted. */
struct batch_texts {
    struct str bytes;
    size_t *begin; /* owned; (count + 1) */
    size_t count, capacity;
};

static enum status batch_add(struct batch_texts *b, const struct text_field *field)
{
    if (field->p == NULL || field->n == 0)
        return STATUS_OK;
    TRY(mem_grow(&b->begin, &b->capacity, b->count + 2, sizeof *b->begin, "texts to count"));
    b->begin[b->count++] = b->bytes.n;
    TRY(str_add(&b->bytes, field->p, field->n));
    b->begin[b->count] = b->bytes.n;
    return STATUS_OK;
}

static enum status batch_count(struct batch_texts *b, struct counter *counters, int threads,
                               struct word_table *table)
{
    for (int i = 0; i < threads; i++) {
        counters[i].st = STATUS_OK;
        counters[i].table = threads == 1 ? table : &counters[i].own;
    }
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads)
    for (size_t i = 0; i < b->count; i++) {
        struct counter *c = &counters[omp_get_thread_num()];
        if (c->st == STATUS_OK)
            c->st = count_text(c, b->bytes.p + b->begin[i], b->begin[i + 1] - b->begin[i]);
        if (c->st != STATUS_OK) /* the sentence belongs to this thread */
            (void)snprintf(c->message, sizeof c->message, "%s", status_message());
    }
    b->count = 0;
    str_clear(&b->bytes);
    for (int i = 0; i < threads; i++) {
        if (counters[i].st != STATUS_OK)
            return status_fail(counters[i].st, "%s", counters[i].message);
        if (threads > 1)
            TRY(drain(table, &counters[i].own));
    }
    return STATUS_OK;
}

/* All batches of one input. */
static enum status count_input(const struct tokenizer_train_opts *opts,
                               const struct text_opts *input, struct batch_texts *b,
                               struct counter *counters, int threads, struct word_table *table,
                               struct tokenizer_train_report *report)
{
    struct text_reader *reader;
    struct text_row row;
    bool more = true;
    TRY(text_open(input, &reader));
    enum status st = STATUS_OK;
    while (more && st == STATUS_OK) {
        TRY_GOTO(done, text_next(reader, &row, &more));
        if (more) {
            report->rows += row.text.n + row.pair.n > 0;
            report->bytes += (int64_t)(row.text.n + row.pair.n);
            TRY_GOTO(done, batch_add(b, &row.text));
            TRY_GOTO(done, batch_add(b, &row.pair));
        }
        if (more && b->bytes.n < BATCH_BYTES)
            continue;
        TRY_GOTO(done, batch_count(b, counters, threads, table));
        TRY_GOTO(done, cut(table, opts->max_words, report));
        log_progress("counting words: %.0f MB read, %zu distinct", (double)report->bytes / 1e6,
                     table->count);
    }
done:
    text_close(reader);
    return st;
}

enum status train_count(const struct tokenizer_train_opts *opts, struct tokenizer *t,
                        const struct text_opts *inputs, int count, struct word_table *table,
                        struct tokenizer_train_report *report)
{
    int threads = threads_count();
    struct counter *counters;
    struct batch_texts b = {0};
    enum status st = STATUS_OK;
    TRY(mem_alloc((size_t)threads, sizeof *counters, "counting words", &counters));
    t->model = &counting;
    for (int i = 0; i < threads; i++) {
        counters[i].e.t = t;
        counters[i].characters = opts->model == TRAIN_WORDPIECE;
        counters[i].longest = counters[i].characters ? TRAIN_WORDPIECE_LONGEST : TRAIN_LONGEST;
    }
    for (int i = 0; i < count && st == STATUS_OK; i++)
        st = count_input(opts, &inputs[i], &b, counters, threads, table, report);
    log_progress("%s", "");
    report->words = (int64_t)table->seen;
    report->distinct = (int64_t)table->count;
    report->long_words = (int64_t)table->longer;
    word_table_settle(table);
    for (int i = 0; i < threads; i++)
        counter_release(&counters[i], t->split_count);
    mem_free(counters);
    mem_free(b.begin);
    str_release(&b.bytes);
    return st;
}
