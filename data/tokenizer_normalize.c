/*
 * tokenizer_normalize.c - one pass over a text; see tokenizer_parts.h.
 *
 * All of BertNormalizer is one pass: cleaning, spacing and lowercasing look at one code point, and
 * decomposing needs context only where several combining marks stand in a row. Those are written as
 * they come; if one that stays has a smaller order than the one before it, the run is sorted where
 * it lies when the next starter ends it. Marks never change case (scripts/generate-unicode checks),
 * so lowercasing first does not disturb the order.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"

void normalize_step_init(struct normalize_step *step, unsigned bits)
{
    step->bits = bits;
    for (uint32_t c = 0; c < 128; c++) {
        const struct unicode_class *class = unicode_class(c);
        step->ascii[c] = (unsigned char)c;
        if ((bits & NORMALIZE_CLEAN) && (class->flags & UNICODE_DROP))
            step->ascii[c] = NORMALIZE_GONE;
        else if ((bits & NORMALIZE_CLEAN) && (class->flags & UNICODE_BLANK))
            step->ascii[c] = ' ';
        else if (bits & NORMALIZE_LOWERCASE)
            step->ascii[c] = (unsigned char)((int32_t)c + class->lower);
    }
}

/* Marks written since the last starter. */
struct run {
    char *begin;  /* in the output; NULL: none */
    uint8_t last; /* the order of the last one */
    bool unsorted;
};

/* Sort the marks in [run->begin, end) by their order, equal ones as they are. */
static enum status run_sort(struct run *run, char *end)
{
    size_t bytes = (size_t)(end - run->begin), at[257] = {0};
    char stack[256], *copy = stack;
    uint32_t c;
    if (bytes > sizeof stack)
        TRY(mem_alloc_raw(bytes, 1, "combining marks in a row", &copy));
    memcpy(copy, run->begin, bytes);
    for (size_t i = 0; i < bytes;) {
        int n = utf8_decode(copy + i, bytes - i, &c);
        at[unicode_class(c)->order + 1] += (size_t)n;
        i += (size_t)n;
    }
    for (int i = 0; i < 256; i++)
        at[i + 1] += at[i];
    for (size_t i = 0; i < bytes;) {
        int n = utf8_decode(copy + i, bytes - i, &c);
        size_t *to = &at[unicode_class(c)->order];
        memcpy(run->begin + *to, copy + i, (size_t)n);
        *to += (size_t)n;
        i += (size_t)n;
    }
    if (copy != stack)
        mem_free(copy);
    return STATUS_OK;
}

static enum status run_end(struct run *run, char *to)
{
    enum status st = run->unsorted ? run_sort(run, to) : STATUS_OK;
    *run = (struct run){0};
    return st;
}

/* Write one code point that was cleaned, spaced and decomposed; returns where the output goes on.
 */
static char *put(uint32_t c, const struct unicode_class *class, unsigned bits, char *to)
{
    if ((bits & NORMALIZE_NONSPACING) && (class->flags & UNICODE_NONSPACING))
        return to;
    if ((bits & NORMALIZE_MARKS) && (class->flags & UNICODE_MARK))
        return to;
    if ((bits & NORMALIZE_LOWERCASE) == 0 || class->lower == 0)
        return to + utf8_encode(c, to);
    to += utf8_encode((uint32_t)((int32_t)c + class->lower), to);
    return c == 0x130 ? to + utf8_encode(0x307, to)
                      : to; /* the one letter whose lower case is two */
}

/* put(), and the order of marks. */
static enum status put_ordered(uint32_t c, unsigned bits, struct run *run, char **to)
{
    const struct unicode_class *class = unicode_class(c);
    char *begin = *to;
    if (class->order == 0) {
        TRY(run_end(run, begin));
        *to = put(c, class, bits, begin);
        return STATUS_OK;
    }
    *to = put(c, class, bits, begin);
    if (*to == begin)
        return STATUS_OK; /* removed: where it would have stood does not matter */
    if (run->begin == NULL)
        run->begin = begin;
    else if (class->order < run->last)
        run->unsorted = true;
    run->last = class->order;
    return STATUS_OK;
}

enum status normalize_run(const struct normalize_step *step, const char *from, size_t n, char *to,
                          size_t *to_n)
{
    const char *end = from + n;
    char *begin = to;
    unsigned bits = step->bits;
    struct run run = {0};
    *to_n = 0;
    while (from < end) {
        unsigned char byte = (unsigned char)*from;
        if (byte < 0x80) {
            if (step->ascii[byte] ==
                NORMALIZE_GONE) { /* no starter: it does not end a run of marks */
                from++;
                continue;
            }
            TRY(run_end(&run, to));
            do {
                *to = (char)step->ascii[byte];
                to += step->ascii[byte] != NORMALIZE_GONE;
            } while (++from < end && (byte = (unsigned char)*from) < 0x80);
            continue;
        }
        uint32_t c;
        from += utf8_decode(from, (size_t)(end - from), &c);
        const struct unicode_class *class = unicode_class(c);
        if (bits & NORMALIZE_CLEAN) {
            if (class->flags & UNICODE_DROP)
                continue;
            if (class->flags & UNICODE_BLANK) {
                c = ' ';
                class = unicode_class(c);
            }
        }
        bool spaced = (bits & NORMALIZE_CJK) && (class->flags & UNICODE_CJK);
        if ((bits & NORMALIZE_DECOMPOSE) == 0) {
            if (spaced)
                *to++ = ' ';
            to = put(c, class, bits, to);
            if (spaced)
                *to++ = ' ';
            continue;
        }
        uint32_t parts[4] = {c};
        int count = class->flags & UNICODE_DECOMPOSES ? unicode_decompose(c, parts) : 1;
        if (spaced)
            TRY(put_ordered(' ', bits, &run, &to));
        for (int i = 0; i < count; i++)
            TRY(put_ordered(parts[i], bits, &run, &to));
        if (spaced)
            TRY(put_ordered(' ', bits, &run, &to));
    }
    TRY(run_end(&run, to));
    *to_n = (size_t)(to - begin);
    return STATUS_OK;
}
