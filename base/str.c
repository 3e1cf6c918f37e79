/* str.c - see str.h. */
#include "base/str.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

enum status str_add(struct str *s, const char *bytes, size_t n)
{
    size_t need;
    if (!size_add(s->n, n, &need) || !size_add(need, 1, &need))
        return status_fail(STATUS_NOMEM, "text of more than %zu bytes", s->n);
    TRY(mem_grow(&s->p, &s->capacity, need, 1, "text"));
    if (n > 0)
        memcpy(s->p + s->n, bytes, n);
    s->n += n;
    s->p[s->n] = '\0';
    return STATUS_OK;
}

enum status str_addf(struct str *s, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    enum status st = STATUS_OK;
    if (n < 0)
        st = status_fail(STATUS_INTERNAL, "cannot format \"%s\"", format);
    else
        st = mem_grow(&s->p, &s->capacity, s->n + (size_t)n + 1, 1, "text");
    if (st == STATUS_OK) {
        (void)vsnprintf(s->p + s->n, (size_t)n + 1, format, again);
        s->n += (size_t)n;
    }
    va_end(again);
    return st;
}

enum status str_add_json(struct str *s, const char *bytes, size_t n)
{
    TRY(str_add(s, "\"", 1));
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        TRY(str_add(s, bytes + from, i - from));
        from = i + 1;
        if (c == '"')
            TRY(str_add(s, "\\\"", 2));
        else if (c == '\\')
            TRY(str_add(s, "\\\\", 2));
        else if (c == '\n')
            TRY(str_add(s, "\\n", 2));
        else if (c == '\t')
            TRY(str_add(s, "\\t", 2));
        else if (c == '\r')
            TRY(str_add(s, "\\r", 2));
        else
            TRY(str_addf(s, "\\u%04x", c));
    }
    TRY(str_add(s, bytes + from, n - from));
    return str_add(s, "\"", 1);
}

enum status str_add_float(struct str *s, float value)
{
    char text[40];
    if (!isfinite(value))
        return str_add(s, "null", 4);
    for (int digits = 6; digits <= 9; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return str_add(s, text, strlen(text));
}

enum status str_add_double(struct str *s, double value)
{
    char text[40];
    if (!isfinite(value))
        return str_add(s, "null", 4);
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return str_add(s, text, strlen(text));
}

void str_clear(struct str *s)
{
    s->n = 0;
    if (s->p != NULL)
        s->p[0] = '\0';
}

void str_release(struct str *s)
{
    mem_free(s->p);
    *s = (struct str){0};
}

/* Length of a well-formed sequence at s, 0 if it is none (Unicode standard, table 3-7). */
static size_t sequence_length(const unsigned char *s, size_t n)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t length;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        length = 2;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        length = 3;
        if (s[0] == 0xE0)
            low = 0xA0;
        if (s[0] == 0xED)
            high = 0x9F;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        length = 4;
        if (s[0] == 0xF0)
            low = 0x90;
        if (s[0] == 0xF4)
            high = 0x8F;
    } else {
        return 0;
    }
    if (n < length || s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    return length;
}

size_t utf8_valid_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t length = sequence_length((const unsigned char *)s + i, n - i);
        if (length == 0)
            return i;
        i += length;
    }
    return n;
}

int utf8_decode(const char *s, size_t n, uint32_t *code_point)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t length = sequence_length(u, n);
    switch (length) {
    case 2:
        *code_point = (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
        return 2;
    case 3:
        *code_point = (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 | (u[2] & 0x3F);
        return 3;
    case 4:
        *code_point = (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3F) << 12 |
                      (uint32_t)(u[2] & 0x3F) << 6 | (u[3] & 0x3F);
        return 4;
    default: /* ASCII; a byte that is no UTF-8 stands for itself, so that callers always advance */
        *code_point = u[0];
        return 1;
    }
}

int utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

bool parse_int64(const char *s, int64_t *out)
{
    char *end;
    if (s[strspn(s, "0123456789+-")] != '\0') /* no white space in front, which strtoll() skips */
        return false;
    errno = 0;
    long long value = strtoll(s, &end, 10);
    if (end == s || *end != '\0' || errno != 0)
        return false;
    *out = value;
    return true;
}

bool parse_double(const char *s, double *out)
{
    char *end;
    if (s[strspn(s, "0123456789+-.eE")] != '\0') /* no hex, no "nan", no "inf", no spaces */
        return false;
    double value = strtod(s, &end); /* LC_NUMERIC is "C": the launcher never sets another */
    if (end == s || *end != '\0' || !isfinite(value))
        return false;
    *out = value;
    return true;
}

bool parse_bool(const char *s, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(s, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[64], na = strlen(a), nb = strlen(b);
    if (na >= 64 || nb >= 64)
        return SIZE_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t up = row[j], best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            if (up + 1 < best)
                best = up + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[nb];
}

const char *nearest_name(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 2; /* "lr" may be one off, "optim.warmup" five */
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance < least) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}
