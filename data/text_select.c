/*
 * text_select.c - which rows and how much of them: data.rows, data.where, data.max_words.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/text_internal.h"

enum status text_add_slot(struct text_reader *r, const char *name, size_t n, size_t *slot)
{
    for (*slot = 0; *slot < r->slot_count; (*slot)++) {
        if (strlen(r->slots[*slot].name) == n && memcmp(r->slots[*slot].name, name, n) == 0)
            return STATUS_OK;
    }
    TRY(mem_grow(&r->slots, &r->slot_capacity, r->slot_count + 1, sizeof *r->slots,
                 "the columns asked for"));
    r->slots[*slot] = (struct text_slot){0};
    TRY(mem_strndup(name, n, &r->slots[*slot].name));
    r->slot_count++;
    return STATUS_OK;
}

/* Digits only; false where there are none or too many. */
static bool row_number(const char **p, int64_t *value)
{
    const char *from = *p;
    *value = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, **p - '0', value))
            return false;
    }
    return *p > from;
}

static int by_first(const void *a, const void *b)
{
    const struct text_range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

enum status text_parse_rows(struct text_reader *r, const char *rows)
{
    const char *p = rows;
    if (rows == NULL || rows[strspn(rows, " ")] == '\0')
        return STATUS_OK;
    for (;;) {
        struct text_range range;
        p += strspn(p, " ");
        int at = (int)(p - rows);
        if (!row_number(&p, &range.first))
            return status_fail(STATUS_CONFIG,
                               "data.rows is \"%.200s\": no row number at character %d; wanted row "
                               "numbers from 0 such as \"0-127,200,300-\"",
                               rows, at + 1);
        range.last = range.first;
        p += strspn(p, " ");
        if (*p == '-') {
            p++;
            p += strspn(p, " ");
            range.last = INT64_MAX;
            if (*p >= '0' && *p <= '9' && !row_number(&p, &range.last))
                return status_fail(STATUS_CONFIG,
                                   "data.rows is \"%.200s\": the number behind \"-\" is too large",
                                   rows);
            p += strspn(p, " ");
        }
        if (range.last < range.first)
            return status_fail(STATUS_CONFIG, "data.rows is \"%.200s\": %lld-%lld runs backwards",
                               rows, (long long)range.first, (long long)range.last);
        TRY(mem_grow(&r->ranges, &r->range_capacity, r->range_count + 1, sizeof range,
                     "ranges of rows"));
        r->ranges[r->range_count++] = range;
        if (*p == '\0')
            break;
        if (*p != ',')
            return status_fail(STATUS_CONFIG,
                               "data.rows is \"%.200s\": \"%.20s\" at character %d; wanted a comma "
                               "between ranges such as \"0-127,200,300-\"",
                               rows, p, (int)(p - rows) + 1);
        p++;
    }
    qsort(r->ranges, r->range_count, sizeof *r->ranges, by_first);
    size_t kept = 0;
    for (size_t i = 1; i < r->range_count; i++) {
        struct text_range *last = &r->ranges[kept];
        if (r->ranges[i].first > last->last)
            r->ranges[++kept] = r->ranges[i];
        else if (r->ranges[i].last > last->last)
            last->last = r->ranges[i].last;
    }
    r->range_count = kept + 1;
    return STATUS_OK;
}

bool text_in_ranges(struct text_reader *r, bool *past)
{
    *past = false;
    if (r->range_count == 0)
        return true;
    while (r->range_next < r->range_count && r->ranges[r->range_next].last < r->rows)
        r->range_next++;
    *past = r->range_next == r->range_count;
    return !*past && r->ranges[r->range_next].first <= r->rows;
}

static void trim(const char **p, size_t *n)
{
    while (*n > 0 && **p == ' ') {
        (*p)++;
        (*n)--;
    }
    while (*n > 0 && (*p)[*n - 1] == ' ')
        (*n)--;
}

static enum status add_condition(struct text_reader *r, const char *where, const char *p, size_t n)
{
    const char *equals = memchr(p, '=', n);
    struct text_condition c = {0};
    if (equals == NULL || equals == p || (equals == p + 1 && *p == '!'))
        return status_fail(STATUS_CONFIG,
                           "data.where is \"%.300s\": cannot read \"%.*s\"; wanted column=value or "
                           "column!=value, joined by \" and \"",
                           where, n > 200 ? 200 : (int)n, p);
    const char *name = p, *value = equals + 1;
    size_t name_n = (size_t)(equals - p), value_n = n - name_n - 1;
    if (name[name_n - 1] == '!') {
        c.differs = true;
        name_n--;
    }
    if (value_n > 0 && *value == '=' && !c.differs) { /* "==" as in programming languages */
        value++;
        value_n--;
    }
    trim(&name, &name_n);
    trim(&value, &value_n);
    TRY(text_add_slot(r, name, name_n, &c.slot));
    TRY(mem_grow(&r->conditions, &r->condition_capacity, r->condition_count + 1, sizeof c,
                 "conditions on rows"));
    TRY(mem_strndup(value, value_n, &c.value));
    c.n = value_n;
    r->conditions[r->condition_count++] = c;
    return STATUS_OK;
}

/*
 * " and " joins conditions only where a condition follows it: in "title=Tom and Jerry and label!=1"
 * the first one belongs to the value.
 */
enum status text_parse_where(struct text_reader *r, const char *where)
{
    static const char joint[] = " and ";
    const char *p = where;
    if (where == NULL || where[strspn(where, " ")] == '\0')
        return STATUS_OK;
    for (;;) {
        const char *end = p;
        for (;;) {
            const char *next;
            end = strstr(end, joint);
            if (end == NULL)
                break;
            next = strstr(end + 1, joint);
            const char *piece = end + sizeof joint - 1;
            size_t n = next == NULL ? strlen(piece) : next > piece ? (size_t)(next - piece) : 0;
            if (memchr(piece, '=', n) != NULL)
                break;
            end++;
        }
        TRY(add_condition(r, where, p, end == NULL ? strlen(p) : (size_t)(end - p)));
        if (end == NULL)
            return STATUS_OK;
        p = end + sizeof joint - 1;
    }
}

bool text_meets_conditions(const struct text_reader *r)
{
    for (size_t i = 0; i < r->condition_count; i++) {
        const struct text_condition *c = &r->conditions[i];
        const struct text_field *cell = &r->cells[c->slot]; /* a missing one counts as empty */
        bool same = cell->n == c->n && (c->n == 0 || memcmp(cell->p, c->value, c->n) == 0);
        if (same == c->differs)
            return false;
    }
    return true;
}

/* White space as Python's str.split() has it, on which the sources' "first 50 words" rest. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

enum status text_cut_words(struct text_field *field, int max_words, struct str *out)
{
    size_t i = 0;
    int words = 0;
    if (field->p == NULL)
        return STATUS_OK;
    str_clear(out);
    while (i < field->n && words < max_words) {
        uint32_t c;
        size_t begin = i;
        int bytes = 1;
        while (i < field->n) {
            bytes = utf8_decode(field->p + i, field->n - i, &c);
            if (is_space(c))
                break;
            i += (size_t)bytes;
        }
        if (i > begin) {
            if (words++ > 0)
                TRY(str_add(out, " ", 1));
            TRY(str_add(out, field->p + begin, i - begin));
        }
        if (i < field->n)
            i += (size_t)bytes;
    }
    TRY(str_add(out, "", 0));
    *field = (struct text_field){out->p, out->n};
    return STATUS_OK;
}

/* ---- templates ---- */

static enum status add_piece(struct text_reader *r, struct str *bytes, int slot)
{
    struct text_piece piece = {.n = bytes->n, .slot = slot};
    TRY(mem_grow(&r->pieces, &r->piece_capacity, r->piece_count + 1, sizeof piece,
                 "the pieces of data.template"));
    TRY(mem_strndup(bytes->n == 0 ? "" : bytes->p, bytes->n, &piece.bytes));
    r->pieces[r->piece_count++] = piece;
    str_clear(bytes);
    return STATUS_OK;
}

enum status text_parse_template(struct text_reader *r, const char *text)
{
    struct str bytes = {0};
    size_t columns = 0, slot;
    enum status st = STATUS_OK;
    for (const char *p = text; *p != '\0' && st == STATUS_OK; p++) {
        const bool brace = *p == '{' || *p == '}';
        if (!brace || p[0] == p[1]) { /* a byte, or a brace said twice */
            st = str_add(&bytes, p, 1);
            p += brace;
            continue;
        }
        const char *end = *p == '{' ? strpbrk(p + 1, "{}") : NULL;
        if (end == NULL || *end != '}' || end == p + 1) {
            st = status_fail(STATUS_CONFIG,
                             "data.template=\"%.200s\": the brace at character %zu belongs to no "
                             "column, wanted {column}, or {{ and }} for braces",
                             text, (size_t)(p - text) + 1);
            break;
        }
        st = text_add_slot(r, p + 1, (size_t)(end - p - 1), &slot);
        if (st == STATUS_OK)
            st = add_piece(r, &bytes, (int)slot);
        if (st == STATUS_OK)
            r->slots[slot].required = true;
        columns++;
        p = end;
    }
    if (st == STATUS_OK && columns == 0)
        st = status_fail(STATUS_CONFIG,
                         "data.template=\"%.200s\" names no column, wanted {column} in it", text);
    if (st == STATUS_OK)
        st = add_piece(r, &bytes, -1);
    str_release(&bytes);
    return st;
}

enum status text_fill_template(struct text_reader *r)
{
    str_clear(&r->joined);
    TRY(str_add(&r->joined, "", 0));
    for (size_t i = 0; i < r->piece_count; i++) {
        const struct text_piece *piece = &r->pieces[i];
        TRY(str_add(&r->joined, piece->bytes, piece->n));
        if (piece->slot >= 0 && r->cells[piece->slot].n > 0)
            TRY(str_add(&r->joined, r->cells[piece->slot].p, r->cells[piece->slot].n));
    }
    return STATUS_OK;
}

void text_template_release(struct text_reader *r)
{
    for (size_t i = 0; i < r->piece_count; i++)
        mem_free(r->pieces[i].bytes);
    mem_free(r->pieces);
    str_release(&r->joined);
}
