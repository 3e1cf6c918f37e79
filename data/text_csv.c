/*
 * text_csv.c - rows of TSV (no quoting: a tab or a line break always ends a field) and CSV (RFC
 * 4180).
 *
 * Positions are offsets from the row's first byte, because reading on may move the window. CSV is
 * read strictly: a quote that neither opens, closes nor doubles is refused, since guessing would
 * shift columns without a word.
 */
#include <stdio.h>
#include <string.h>

#include "data/text_internal.h"

static int64_t count_line_breaks(const char *p, size_t n)
{
    int64_t lines = 0;
    const char *end = p + n;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        lines++;
        p++;
    }
    return lines;
}

static enum status tsv_record(struct text_reader *r, bool *more)
{
    char *line;
    TRY(text_line(r, &line, &r->row_n, more));
    if (!*more)
        return STATUS_OK;
    r->row = line;
    TRY(text_check(r, line, r->row_n, r->row_offset));
    size_t begin = 0;
    for (;;) {
        const char *tab = r->row_n > begin ? memchr(line + begin, '\t', r->row_n - begin) : NULL;
        size_t end = tab == NULL ? r->row_n : (size_t)(tab - line);
        TRY(text_add_span(r, (struct text_span){.begin = begin, .n = end - begin}));
        if (tab == NULL)
            return STATUS_OK;
        begin = end + 1;
    }
}

/* The byte at offset i of the row, -1 at the end of the file. */
static enum status peek(struct text_reader *r, size_t i, int *c)
{
    struct text_source *s = &r->source;
    *c = -1;
    if (i >= s->end - s->begin) {
        bool got;
        TRY(text_more(r, "", &got));
        if (!got)
            return STATUS_OK;
    }
    *c = (unsigned char)s->buf[s->begin + i];
    return STATUS_OK;
}

/* From behind the opening quote at *i to behind the closing one. */
static enum status quoted_field(struct text_reader *r, size_t *i, struct text_span *span)
{
    struct text_source *s = &r->source;
    int64_t opened = r->line + r->lines_in_row;
    *span = (struct text_span){.begin = *i, .quote = '"'};
    for (;;) {
        const char *from = s->buf + s->begin + *i;
        size_t left = s->end - s->begin - *i;
        const char *quote = left == 0 ? NULL : memchr(from, '"', left);
        int c;
        if (quote == NULL) {
            bool got;
            *i += left;
            TRY(text_more(r, ", perhaps because a quote is not closed", &got));
            if (!got)
                return text_fail(r, "the quote opened on line %lld, column %zu, is never closed",
                                 (long long)opened, r->span_count + 1);
            continue;
        }
        *i += (size_t)(quote - from) + 1;
        TRY(peek(r, *i, &c));
        if (c != '"')
            break;
        span->escaped = true;
        (*i)++;
    }
    span->n = *i - 1 - span->begin;
    r->lines_in_row += count_line_breaks(s->buf + s->begin + span->begin, span->n);
    return STATUS_OK;
}

static enum status plain_field(struct text_reader *r, size_t *i, struct text_span *span)
{
    static const unsigned char stops[256] = {[','] = 1, ['\n'] = 1, ['"'] = 1};
    struct text_source *s = &r->source;
    *span = (struct text_span){.begin = *i};
    for (;;) {
        const unsigned char *p = (const unsigned char *)s->buf + s->begin;
        size_t end = s->end - s->begin;
        while (*i < end && stops[p[*i]] == 0)
            (*i)++;
        if (*i < end) {
            if (p[*i] == '"')
                return text_fail(r,
                                 "column %zu has a quote inside a field that is not quoted; wanted "
                                 "the whole field "
                                 "in quotes and the quote doubled",
                                 r->span_count + 1);
            break;
        }
        bool got;
        TRY(text_more(r, "", &got));
        if (!got)
            break;
    }
    span->n = *i - span->begin;
    bool ends_line = *i == s->end - s->begin || s->buf[s->begin + *i] == '\n';
    if (ends_line && span->n > 0 && s->buf[s->begin + *i - 1] == '\r')
        span->n--;
    return STATUS_OK;
}

static enum status csv_record(struct text_reader *r, bool *more)
{
    struct text_source *s = &r->source;
    struct text_span span;
    size_t i = 0;
    int c;
    *more = false;
    r->line += r->lines_in_row;
    r->lines_in_row = 0;
    TRY(peek(r, 0, &c));
    if (c < 0)
        return STATUS_OK;
    for (;;) {
        TRY(peek(r, i, &c));
        if (c == '"') {
            i++;
            TRY(quoted_field(r, &i, &span));
            TRY(peek(r, i, &c));
            if (c == '\r') { /* only as part of the line's end */
                i++;
                TRY(peek(r, i, &c));
                if (c >= 0 && c != '\n')
                    c = '\r';
            }
            if (c >= 0 && c != ',' && c != '\n')
                return text_fail(r,
                                 "column %zu goes on behind its closing quote; wanted a comma, the "
                                 "line's end, or "
                                 "the quote doubled",
                                 r->span_count + 1);
        } else {
            TRY(plain_field(r, &i, &span));
            TRY(peek(r, i, &c));
        }
        TRY(text_add_span(r, span));
        if (c != ',')
            break;
        i++;
    }
    if ((int64_t)i > r->max_row_bytes)
        return text_fail(r, "longer than %lld bytes", (long long)r->max_row_bytes);
    r->row = s->buf + s->begin;
    r->row_n = i;
    r->row_offset = s->base + (int64_t)s->begin;
    TRY(text_check(r, r->row, i, r->row_offset));
    s->begin += i + (c == '\n' ? 1 : 0);
    r->lines_in_row++;
    *more = true;
    return STATUS_OK;
}

/*
 * The next record, empty lines skipped where they cannot be rows: among several columns, and at the
 * file's end. With one column an empty line is an empty text, unless it is the last. columns 0: not
 * known yet.
 */
static enum status record(struct text_reader *r, bool *more)
{
    for (;;) {
        r->span_count = 0;
        TRY(r->format == TEXT_CSV ? csv_record(r, more) : tsv_record(r, more));
        if (!*more || r->span_count > 1 || r->spans[0].n > 0 || r->spans[0].quote != 0 ||
            r->in_header)
            return STATUS_OK;
        if (r->columns > 1)
            continue;
        if (r->source.begin == r->source.end) {
            TRY(text_more(r, "", more)); /* may move the window, but the row has no bytes */
            r->row = r->source.buf;
        }
        return STATUS_OK;
    }
}

/* CSV's doubled quotes, in place. */
static size_t undouble(char *p, size_t n)
{
    size_t to = 0;
    for (size_t from = 0; from < n; from++) {
        p[to++] = p[from];
        if (p[from] == '"')
            from++; /* the scanner saw that a second one follows */
    }
    return to;
}

static enum status delimited_header(struct text_reader *r)
{
    bool more;
    r->in_header = r->header;
    TRY(record(r, &more));
    if (r->span_count == 0)
        return status_fail(STATUS_DATA, "%s is empty, wanted %s", r->source.name,
                           r->header ? "a header and rows" : "rows");
    if (!r->header) {
        char number[16];
        for (size_t i = 0; i < r->span_count; i++) {
            int n = snprintf(number, sizeof number, "%zu", i + 1);
            TRY(text_add_column(r, number, (size_t)n));
        }
        r->pending = more;
        return STATUS_OK;
    }
    if (r->row_n == 0)
        return text_fail(r, "the line is empty, wanted the columns' names");
    for (size_t i = 0; i < r->span_count; i++) {
        struct text_span *span = &r->spans[i];
        if (span->escaped)
            span->n = undouble(r->row + span->begin, span->n);
        TRY(text_add_column(r, r->row + span->begin, span->n));
    }
    r->in_header = false;
    return STATUS_OK;
}

static enum status delimited_next(struct text_reader *r, bool *more)
{
    TRY(record(r, more));
    if (*more && r->span_count != r->columns)
        return text_fail(r, "%zu column%s, wanted %zu as in the %s", r->span_count,
                         r->span_count == 1 ? "" : "s", r->columns,
                         r->header ? "header" : "first row");
    return STATUS_OK;
}

static enum status delimited_cells(struct text_reader *r)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        const struct text_span *span = &r->spans[r->slots[i].column];
        char *p = r->row + span->begin;
        r->cells[i] = (struct text_field){p, span->escaped ? undouble(p, span->n) : span->n};
    }
    return STATUS_OK;
}

const struct text_parser text_delimited = {delimited_header, delimited_next, delimited_cells};
