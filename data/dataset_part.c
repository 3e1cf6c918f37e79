/*
 * dataset_part.c - tokenized rows in memory, and their way between ranks; see dataset.h.
 *
 * Rows are tokenized in parallel in blocks of consecutive rows, each into a part of its own, and
 * the blocks appended in order: nothing depends on which thread took which block.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "data/dataset.h"
#include "data/text.h"

#define BLOCK_ROWS                                                                                 \
    32 /* a thread's portion: enough rows to hide the appending, few enough to balance long texts  \
        */

/* Room for `more` rows. All columns have the same capacity, byte_lengths PART_FIELDS times as much.
 */
static enum status reserve(struct dataset_part *part, int64_t more)
{
    size_t need, capacity = part->capacity, fields;
    if (!size_add((size_t)part->rows, (size_t)more, &need) ||
        !size_mul(need, 2 * PART_FIELDS, &fields))
        return status_fail(STATUS_NOMEM, "%lld rows and %lld more are too many",
                           (long long)part->rows, (long long)more);
    if (need <= capacity)
        return STATUS_OK;
    TRY(mem_grow(&part->lengths, &capacity, need, sizeof *part->lengths, "tokenized rows"));
    size_t grown = capacity;
    capacity = part->capacity;
    TRY(mem_grow(&part->split, &capacity, need, sizeof *part->split, "tokenized rows"));
    capacity = part->capacity;
    TRY(mem_grow(&part->source_row, &capacity, need, sizeof *part->source_row, "tokenized rows"));
    capacity = part->capacity;
    TRY(mem_grow(&part->source_offset, &capacity, need, sizeof *part->source_offset,
                 "tokenized rows"));
    capacity = part->capacity;
    TRY(mem_grow(&part->weight, &capacity, need, sizeof *part->weight, "tokenized rows"));
    capacity = part->capacity * PART_FIELDS;
    TRY(mem_grow(&part->byte_lengths, &capacity, grown * PART_FIELDS, sizeof *part->byte_lengths,
                 "tokenized rows"));
    part->capacity = grown;
    return STATUS_OK;
}

static enum status read_weight(const struct text_row *row, float *weight)
{
    char text[64];
    double value;
    *weight = NAN;
    if (row->weight.p == NULL)
        return STATUS_OK;
    (void)snprintf(text, sizeof text, "%.*s", (int)(row->weight.n < 63 ? row->weight.n : 63),
                   row->weight.p);
    if (row->weight.n >= sizeof text || strlen(text) != row->weight.n ||
        !parse_double(text, &value) || !(value >= 0) || value > 3e38)
        return status_fail(STATUS_DATA,
                           "row %lld: weight \"%s\", wanted a number that is not negative",
                           (long long)row->row, text);
    *weight = (float)value;
    return STATUS_OK;
}

static enum status add_tokens(struct dataset_part *part, const struct tokenizer *tokenizer,
                              const struct text_row *row, int64_t *length, uint32_t *split)
{
    size_t before = part->tokens.n;
    struct tokenizer_info info = {0};
    if (tokenizer != NULL)
        tokenizer_get_info(tokenizer, &info);
    if (info.no_pairs && row->pair.p != NULL)
        return status_fail(
            STATUS_DATA,
            "row %lld is a pair of texts, and the tokenizer's template puts no [CLS] "
            "and [SEP] around pairs (post_processor, \"pair\")",
            (long long)row->row);
    if (tokenizer != NULL && row->text.n > 0)
        TRY(tokenizer_encode(tokenizer, row->text.p, row->text.n, &part->tokens));
    size_t first = part->tokens.n - before;
    if (tokenizer != NULL && row->pair.p != NULL && row->pair.n > 0)
        TRY(tokenizer_encode(tokenizer, row->pair.p, row->pair.n, &part->tokens));
    size_t all = part->tokens.n - before;
    if (all > INT32_MAX)
        return status_fail(STATUS_DATA, "row %lld has %zu tokens, wanted at most %d",
                           (long long)row->row, all, INT32_MAX);
    if (info.no_ends && all == 0)
        return status_fail(STATUS_DATA,
                           "row %lld has no tokens: its text is empty, and the tokenizer puts no "
                           "[CLS] and [SEP] around texts",
                           (long long)row->row);
    *length = (int64_t)all;
    *split = row->pair.p == NULL ? UINT32_MAX : (uint32_t)first;
    return STATUS_OK;
}

/* Undo what a call that failed had appended. */
static void cut_back(struct dataset_part *part, int64_t rows, size_t tokens, size_t bytes)
{
    part->rows = rows;
    part->tokens.n = tokens;
    part->bytes.n = bytes;
    if (part->bytes.p != NULL)
        part->bytes.p[bytes] = '\0';
}

enum status dataset_part_add(struct dataset_part *part, const struct tokenizer *tokenizer,
                             const struct text_row *row, bool keep_text)
{
    const struct text_field fields[PART_FIELDS] = {row->text, row->pair, row->label, row->group,
                                                   row->id,   row->time, row->fold};
    const size_t tokens_before = part->tokens.n, bytes_before = part->bytes.n;
    const int64_t at = part->rows;
    enum status st;
    TRY(reserve(part, 1));
    TRY(read_weight(row, &part->weight[at]));
    TRY_GOTO(fail, add_tokens(part, tokenizer, row, &part->lengths[at], &part->split[at]));
    for (int f = 0; f < PART_FIELDS; f++) {
        bool dropped = fields[f].p == NULL || (f <= PART_PAIR && !keep_text);
        part->byte_lengths[at * PART_FIELDS + f] = dropped ? -1 : (int64_t)fields[f].n;
        if (!dropped)
            TRY_GOTO(fail, str_add(&part->bytes, fields[f].p, fields[f].n));
    }
    part->source_row[at] = row->row;
    part->source_offset[at] = row->byte_offset;
    part->rows++;
    return STATUS_OK;
fail:
    cut_back(part, at, tokens_before, bytes_before);
    return st;
}

/* One thread's work; the sentence of a failure lives in the thread that failed and is carried over
 * here. */
struct block {
    struct dataset_part part;
    enum status st;
    char message[1024];
};

static void tokenize_block(struct block *block, const struct tokenizer *tokenizer,
                           const struct text_row *rows, int64_t count, bool keep_text)
{
    block->st = STATUS_OK;
    for (int64_t i = 0; i < count && block->st == STATUS_OK; i++)
        block->st = dataset_part_add(&block->part, tokenizer, &rows[i], keep_text);
    if (block->st != STATUS_OK)
        (void)snprintf(block->message, sizeof block->message, "%s", status_message());
}

enum status dataset_part_add_many(struct dataset_part *part, const struct tokenizer *tokenizer,
                                  const struct text_row *rows, int64_t count, bool keep_text)
{
    const int64_t nblocks = (count + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const size_t tokens_before = part->tokens.n, bytes_before = part->bytes.n;
    const int64_t rows_before = part->rows;
    struct block *blocks;
    enum status st = STATUS_OK;
    TRY(mem_alloc((size_t)nblocks, sizeof *blocks, "blocks of rows", &blocks));
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < nblocks; b++) {
        int64_t first = b * BLOCK_ROWS, left = count - first;
        tokenize_block(&blocks[b], tokenizer, rows + first, left < BLOCK_ROWS ? left : BLOCK_ROWS,
                       keep_text);
    }
    for (int64_t b = 0; b < nblocks && st == STATUS_OK; b++) {
        st = blocks[b].st;
        if (st != STATUS_OK)
            (void)status_fail(st, "%s", blocks[b].message);
        else
            st = dataset_part_append(part, &blocks[b].part);
    }
    if (st != STATUS_OK)
        cut_back(part, rows_before, tokens_before, bytes_before);
    for (int64_t b = 0; b < nblocks; b++)
        dataset_part_release(&blocks[b].part);
    mem_free(blocks);
    return st;
}

/* memcpy that may be told to copy nothing from nowhere. */
static void copy(void *to, const void *from, size_t n)
{
    if (n > 0)
        memcpy(to, from, n);
}

enum status dataset_part_append(struct dataset_part *a, const struct dataset_part *b)
{
    const size_t n = (size_t)b->rows, at = (size_t)a->rows;
    size_t tokens;
    if (!size_add(a->tokens.n, b->tokens.n, &tokens))
        return status_fail(STATUS_NOMEM, "too many tokens");
    if (n == 0)
        return STATUS_OK;
    TRY(reserve(a, b->rows));
    TRY(mem_grow(&a->tokens.p, &a->tokens.capacity, tokens, sizeof *a->tokens.p, "tokens"));
    TRY(str_add(&a->bytes, b->bytes.p, b->bytes.n));
    copy(a->tokens.p + a->tokens.n, b->tokens.p, b->tokens.n * sizeof *b->tokens.p);
    copy(a->lengths + at, b->lengths, n * sizeof *b->lengths);
    copy(a->split + at, b->split, n * sizeof *b->split);
    copy(a->source_row + at, b->source_row, n * sizeof *b->source_row);
    copy(a->source_offset + at, b->source_offset, n * sizeof *b->source_offset);
    copy(a->weight + at, b->weight, n * sizeof *b->weight);
    copy(a->byte_lengths + at * PART_FIELDS, b->byte_lengths,
         n * PART_FIELDS * sizeof *b->byte_lengths);
    a->tokens.n = tokens;
    a->rows += b->rows;
    return STATUS_OK;
}

void dataset_part_release(struct dataset_part *part)
{
    id_list_release(&part->tokens);
    mem_free(part->lengths);
    mem_free(part->split);
    mem_free(part->source_row);
    mem_free(part->source_offset);
    mem_free(part->weight);
    str_release(&part->bytes);
    mem_free(part->byte_lengths);
    *part = (struct dataset_part){0};
}

/* ---- packing ---- */

/* The head of a packed part; behind it the columns of dataset_part in the order of its declaration.
 */
struct packed_head {
    char magic[8];
    uint64_t rows, tokens, bytes;
};
static const char magic[8] = {'C', 'H', 'P', 'A', 'R', 'T', '0', '2'};

enum status dataset_part_pack(const struct dataset_part *part, struct str *out)
{
    const size_t n = (size_t)part->rows;
    struct packed_head head = {.rows = n, .tokens = part->tokens.n, .bytes = part->bytes.n};
    memcpy(head.magic, magic, sizeof magic);
    TRY(str_add(out, (const char *)&head, sizeof head));
    TRY(str_add(out, (const char *)part->tokens.p, part->tokens.n * sizeof *part->tokens.p));
    TRY(str_add(out, (const char *)part->lengths, n * sizeof *part->lengths));
    TRY(str_add(out, (const char *)part->split, n * sizeof *part->split));
    TRY(str_add(out, (const char *)part->source_row, n * sizeof *part->source_row));
    TRY(str_add(out, (const char *)part->source_offset, n * sizeof *part->source_offset));
    TRY(str_add(out, (const char *)part->weight, n * sizeof *part->weight));
    TRY(str_add(out, part->bytes.p, part->bytes.n));
    return str_add(out, (const char *)part->byte_lengths,
                   n * PART_FIELDS * sizeof *part->byte_lengths);
}

static void take(const char **from, void *to, size_t n)
{
    copy(to, *from, n);
    *from += n;
}

/* The lengths must add up to what is there, or a reader would run past the end. */
static enum status check_part(const struct dataset_part *part)
{
    uint64_t tokens = 0, bytes = 0;
    for (size_t i = 0; i < part->tokens.n; i++) {
        if (part->tokens.p[i] < 0)
            return status_fail(STATUS_FORMAT, "packed rows: token %zu is %d", i, part->tokens.p[i]);
    }
    for (int64_t i = 0; i < part->rows; i++) {
        int64_t n = part->lengths[i];
        if (n < 0 || n > INT32_MAX || (part->split[i] != UINT32_MAX && part->split[i] > n))
            return status_fail(STATUS_FORMAT,
                               "packed rows: row %lld has %lld tokens, %u in the first text",
                               (long long)i, (long long)n, part->split[i]);
        tokens += (uint64_t)n;
        if (part->weight[i] < 0 || isinf(part->weight[i]))
            return status_fail(STATUS_FORMAT, "packed rows: row %lld has weight %g", (long long)i,
                               (double)part->weight[i]);
        for (int f = 0; f < PART_FIELDS; f++) {
            int64_t length = part->byte_lengths[i * PART_FIELDS + f];
            if (length < -1 || (uint64_t)length + 1 > part->bytes.n + 1 - bytes)
                return status_fail(STATUS_FORMAT, "packed rows: row %lld has a field of %lld bytes",
                                   (long long)i, (long long)length);
            bytes += length > 0 ? (uint64_t)length : 0;
        }
    }
    if (tokens != part->tokens.n || bytes != part->bytes.n)
        return status_fail(
            STATUS_FORMAT,
            "packed rows: rows have %llu tokens and %llu bytes, there are %zu and %zu",
            (unsigned long long)tokens, (unsigned long long)bytes, part->tokens.n, part->bytes.n);
    return STATUS_OK;
}

enum status dataset_part_unpack(const char *bytes, size_t n, struct dataset_part *part)
{
    const size_t per_row = sizeof *part->lengths + sizeof *part->split + sizeof *part->source_row +
                           sizeof *part->source_offset + sizeof *part->weight +
                           PART_FIELDS * sizeof *part->byte_lengths;
    struct packed_head head;
    const char *from = bytes;
    enum status st;
    if (n < sizeof head)
        return status_fail(STATUS_FORMAT, "packed rows: %zu bytes", n);
    take(&from, &head, sizeof head);
    const uint64_t left = n - sizeof head; /* counts are bounded by it before they are multiplied */
    if (memcmp(head.magic, magic, sizeof magic) != 0 || head.rows > left / per_row ||
        head.tokens > left / 4 || head.bytes > left ||
        head.rows * per_row + head.tokens * 4 + head.bytes != left)
        return status_fail(STATUS_FORMAT,
                           "packed rows: %zu bytes do not hold %llu rows, %llu tokens, %llu bytes",
                           n, (unsigned long long)head.rows, (unsigned long long)head.tokens,
                           (unsigned long long)head.bytes);
    const size_t rows = (size_t)head.rows, tokens = (size_t)head.tokens;
    TRY_GOTO(fail, reserve(part, (int64_t)rows));
    TRY_GOTO(fail, mem_grow(&part->tokens.p, &part->tokens.capacity, tokens, sizeof *part->tokens.p,
                            "tokens"));
    part->tokens.n = tokens;
    take(&from, part->tokens.p, tokens * sizeof *part->tokens.p);
    take(&from, part->lengths, rows * sizeof *part->lengths);
    take(&from, part->split, rows * sizeof *part->split);
    take(&from, part->source_row, rows * sizeof *part->source_row);
    take(&from, part->source_offset, rows * sizeof *part->source_offset);
    take(&from, part->weight, rows * sizeof *part->weight);
    TRY_GOTO(fail, str_add(&part->bytes, from, (size_t)head.bytes));
    from += head.bytes;
    take(&from, part->byte_lengths, rows * PART_FIELDS * sizeof *part->byte_lengths);
    part->rows = (int64_t)rows;
    TRY_GOTO(fail, check_part(part));
    return STATUS_OK;
fail:
    dataset_part_release(part);
    return st;
}
