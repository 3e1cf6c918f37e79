/*
 * text_arff.c - Weka's ARFF: a header of @relation, @attribute and @data, then one row a line.
 *
 * Read as Weka's own loader reads it: keywords in any case, values parted by commas or white space,
 * strings in single or double quotes with backslashes, ? for missing, % to the end of the line is a
 * comment. A value is not held against its attribute's type: labels and numbers are checked where
 * they are used.
 */
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "data/text_internal.h"

struct cursor {
    char *p;
    size_t n, i;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static void skip_space(struct cursor *c)
{
    while (c->i < c->n && is_space(c->p[c->i]))
        c->i++;
}

static bool at_end(const struct cursor *c)
{
    return c->i == c->n || c->p[c->i] == '%';
}

/* One value at the cursor, which stands on neither space, comma nor brace. what names it in
 * sentences. */
static enum status value(struct text_reader *r, struct cursor *c, const char *what, size_t number,
                         struct text_span *span)
{
    char quote = c->p[c->i];
    if (quote == '"' || quote == '\'') {
        *span = (struct text_span){.begin = ++c->i, .quote = quote};
        for (; c->i < c->n && c->p[c->i] != quote; c->i++) {
            if (c->p[c->i] == '\\') {
                span->escaped = true;
                c->i++;
            }
        }
        if (c->i >= c->n)
            return text_fail(r, "%s %zu: the quote %c is not closed on its line", what, number,
                             quote);
        span->n = c->i++ - span->begin;
        if (c->i < c->n && !is_space(c->p[c->i]) && strchr(",}%", c->p[c->i]) == NULL)
            return text_fail(
                r, "%s %zu goes on behind its closing quote; a quote within is written \\%c", what,
                number, quote);
        return STATUS_OK;
    }
    *span = (struct text_span){.begin = c->i};
    while (!at_end(c) && !is_space(c->p[c->i]) && strchr(",{}", c->p[c->i]) == NULL) {
        if (c->p[c->i] == '"' || c->p[c->i] == '\'')
            return text_fail(r, "%s %zu has a quote inside; wanted the whole value in quotes", what,
                             number);
        c->i++;
    }
    span->n = c->i - span->begin;
    return STATUS_OK;
}

static bool hex4(const char *p, size_t n, uint32_t *out)
{
    *out = 0;
    if (n < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)((c | 0x20) - 'a') + 10;
        else
            return false;
        *out = *out << 4 | digit;
    }
    return true;
}

/* \uXXXX, or two of them that make one code point; p[0] is the first behind the u. *used of n
 * bytes. */
static bool unicode_escape(const char *p, size_t n, uint32_t *c, size_t *used)
{
    uint32_t low;
    *used = 4;
    if (!hex4(p, n, c) || *c == 0)
        return false;
    if (*c < 0xD800 || *c > 0xDFFF)
        return true;
    if (*c > 0xDBFF || n < 10 || p[4] != '\\' || p[5] != 'u' || !hex4(p + 6, n - 6, &low) ||
        low < 0xDC00 || low > 0xDFFF)
        return false;
    *c = 0x10000 + ((*c - 0xD800) << 10) + (low - 0xDC00);
    *used = 10;
    return true;
}

/* Undo backslashes in place. A backslash before punctuation stands for it, as Weka writes \' \"
 * \\ and \%. */
static enum status unescape(struct text_reader *r, char *p, size_t n, size_t *out)
{
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\\') {
            p[to++] = p[i];
            continue;
        }
        i++; /* the scanner saw that something follows */
        unsigned char c = (unsigned char)p[i];
        if (c == 'n') {
            p[to++] = '\n';
        } else if (c == 't') {
            p[to++] = '\t';
        } else if (c == 'r') {
            p[to++] = '\r';
        } else if (c == 'u') {
            uint32_t code_point;
            size_t used;
            if (!unicode_escape(p + i + 1, n - i - 1, &code_point, &used))
                return text_fail(
                    r,
                    "\\u%.*s is no character; wanted \\u and four hex digits, not 0000 nor half a "
                    "pair",
                    n - i - 1 < 4 ? (int)(n - i - 1) : 4, p + i + 1);
            to += (size_t)utf8_encode(code_point, p + to);
            i += used;
        } else if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')) {
            return text_fail(
                r, "\\%c is not an escape; wanted \\n \\t \\r \\uXXXX or a backslash before a sign",
                c);
        } else {
            p[to++] = p[i];
        }
    }
    *out = to;
    return STATUS_OK;
}

/* {a, 'b c'}: read over. */
static enum status nominal(struct text_reader *r, struct cursor *c)
{
    struct text_span ignored;
    for (c->i++;;) {
        while (c->i < c->n && (is_space(c->p[c->i]) || c->p[c->i] == ','))
            c->i++;
        if (at_end(c) || c->p[c->i] == '{')
            return text_fail(r, "attribute %zu: the list of values is not closed by } on its line",
                             r->columns);
        if (c->p[c->i] == '}') {
            c->i++;
            return STATUS_OK;
        }
        TRY(value(r, c, "attribute", r->columns, &ignored));
    }
}

static enum status attribute(struct text_reader *r, struct cursor *c)
{
    static const char *const types[] = {"numeric", "real", "integer", "string", "date"};
    struct text_span name, type;
    skip_space(c);
    if (at_end(c) || strchr(",{}", c->p[c->i]) != NULL)
        return text_fail(r, "@attribute %zu has no name", r->columns + 1);
    TRY(value(r, c, "attribute", r->columns + 1, &name));
    if (name.escaped)
        TRY(unescape(r, c->p + name.begin, name.n, &name.n));
    TRY(text_add_column(r, c->p + name.begin, name.n));
    skip_space(c);
    if (at_end(c) || strchr(",}", c->p[c->i]) != NULL)
        return text_fail(r, "attribute \"%s\" has no type; wanted numeric, string, date or {a, b}",
                         text_column(r, r->columns - 1));
    if (c->p[c->i] == '{') {
        TRY(nominal(r, c));
    } else {
        bool known = false;
        TRY(value(r, c, "attribute", r->columns, &type));
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
            if (strlen(types[i]) == type.n && strncasecmp(types[i], c->p + type.begin, type.n) == 0)
                known = true;
        }
        if (!known)
            return text_fail(
                r, "attribute \"%s\" has the type \"%.*s\"; wanted numeric, string, date or {a, b}",
                text_column(r, r->columns - 1), type.n > 40 ? 40 : (int)type.n, c->p + type.begin);
        skip_space(c);
        if (!at_end(c) && strchr(",{}", c->p[c->i]) == NULL) /* a date's format */
            TRY(value(r, c, "attribute", r->columns, &type));
    }
    skip_space(c);
    if (!at_end(c))
        return text_fail(r, "attribute \"%s\": cannot read what follows its type",
                         text_column(r, r->columns - 1));
    return STATUS_OK;
}

/* The next line that is neither empty nor a comment, the cursor on its first sign. */
static enum status content_line(struct text_reader *r, struct cursor *c, bool *more)
{
    do {
        c->i = 0;
        TRY(text_line(r, &c->p, &c->n, more));
        if (!*more)
            return STATUS_OK;
        TRY(text_check(r, c->p, c->n, r->row_offset));
        skip_space(c);
    } while (at_end(c));
    return STATUS_OK;
}

static bool keyword(struct cursor *c, const char *word)
{
    size_t n = strlen(word);
    if (c->n - c->i < n || strncasecmp(c->p + c->i, word, n) != 0)
        return false;
    if (c->n - c->i > n && !is_space(c->p[c->i + n]) && c->p[c->i + n] != '%')
        return false;
    c->i += n;
    return true;
}

static enum status arff_header(struct text_reader *r)
{
    struct cursor c = {0};
    bool more, any = false;
    r->in_header = true;
    for (;;) {
        TRY(content_line(r, &c, &more));
        if (!more && !any)
            return status_fail(STATUS_DATA, "%s is empty, wanted an ARFF header and rows",
                               r->source.name);
        if (!more)
            return text_fail(r, "the file ends before @data");
        any = true;
        if (keyword(&c, "@data"))
            break;
        if (keyword(&c, "@attribute"))
            TRY(attribute(r, &c));
        else if (!keyword(&c, "@relation"))
            return text_fail(r, "cannot read \"%.*s\"; wanted @relation, @attribute or @data",
                             c.n - c.i > 40 ? 40 : (int)(c.n - c.i), c.p + c.i);
    }
    if (r->columns == 0)
        return text_fail(r, "@data without an @attribute before it");
    r->in_header = false;
    return STATUS_OK;
}

static enum status arff_next(struct text_reader *r, bool *more)
{
    struct cursor c;
    TRY(content_line(r, &c, more));
    if (!*more)
        return STATUS_OK;
    if (c.p[c.i] == '{')
        return text_fail(
            r, "sparse ARFF rows ({index value, ...}) are not supported; save the data with Weka's "
               "SparseToNonSparse filter");
    r->row = c.p;
    r->row_n = c.n;
    r->span_count = 0;
    for (;;) {
        struct text_span span;
        skip_space(&c);
        if (at_end(&c) || c.p[c.i] == ',')
            return text_fail(r, "value %zu is empty; a missing value is written ?",
                             r->span_count + 1);
        if (c.p[c.i] == '{' || c.p[c.i] == '}')
            return text_fail(r,
                             "value %zu begins with %c; instance weights are not supported, make "
                             "them a column and "
                             "name it in data.weight",
                             r->span_count + 1, c.p[c.i]);
        TRY(value(r, &c, "value", r->span_count + 1, &span));
        TRY(text_add_span(r, span));
        skip_space(&c);
        if (at_end(&c))
            break;
        if (c.p[c.i] == ',')
            c.i++;
    }
    if (r->span_count != r->columns)
        return text_fail(r, "%zu value%s, wanted %zu, one for each @attribute", r->span_count,
                         r->span_count == 1 ? "" : "s", r->columns);
    return STATUS_OK;
}

static enum status arff_cells(struct text_reader *r)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        const struct text_span *span = &r->spans[r->slots[i].column];
        char *p = r->row + span->begin;
        size_t n = span->n;
        r->cells[i] = (struct text_field){0};
        if (span->quote == 0 && n == 1 && *p == '?')
            continue;
        if (span->escaped)
            TRY(unescape(r, p, span->n, &n));
        r->cells[i] = (struct text_field){p, n};
    }
    return STATUS_OK;
}

const struct text_parser text_arff = {arff_header, arff_next, arff_cells};
