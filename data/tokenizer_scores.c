/*
 * tokenizer_scores.c - the scores of a Unigram model in tokenizer.json, rounded as tokenizers
 * rounds them.
 *
 * tokenizers reads numbers with serde_json, whose quick way (digits as a whole number, divided by a
 * power of ten) is off by one unit in the last place where there are 16 digits or more. Ties
 * between ways through a text, "aaaa" as aaa a or a aaa, are decided by that unit. The parser that
 * the file went through keeps only correctly rounded numbers, so the digits are looked up in the
 * file again.
 *
 * The file was parsed before: it is JSON. What is not found where it should be is left as it is.
 */
#include <string.h>

#include "data/tokenizer_parts.h"

struct scan {
    const char *p, *end;
};

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

/* Step over c, after white space; false if something else is there. */
static bool take(struct scan *s, char c)
{
    skip_space(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

/* Step over a string, whose text (escapes as they are written) is *text. */
static bool take_string(struct scan *s, const char **text, size_t *n)
{
    if (!take(s, '"'))
        return false;
    *text = s->p;
    while (s->p < s->end && *s->p != '"')
        s->p += *s->p == '\\' && s->p + 1 < s->end ? 2 : 1;
    *n = (size_t)(s->p - *text);
    return take(s, '"');
}

/* Step over any value. */
static bool take_value(struct scan *s)
{
    const char *text;
    size_t n, depth = 0;
    do {
        skip_space(s);
        if (s->p == s->end)
            return false;
        char c = *s->p;
        if (c == '"') {
            if (!take_string(s, &text, &n))
                return false;
            continue;
        }
        s->p++;
        if (c == '[' || c == '{')
            depth++;
        else if (c == ']' || c == '}')
            depth--;
        else if (depth == 0) /* a number or a word: to its end */
            while (s->p < s->end && strchr(",]} \n\r\t", *s->p) == NULL)
                s->p++;
    } while (depth > 0);
    return true;
}

/* Go from the beginning of an object to the value of a key in it. */
static bool find_key(struct scan *s, const char *key)
{
    const char *text;
    size_t n;
    if (!take(s, '{'))
        return false;
    do {
        if (!take_string(s, &text, &n) || !take(s, ':'))
            return false;
        if (n == strlen(key) && memcmp(text, key, n) == 0)
            return true;
        if (!take_value(s))
            return false;
    } while (take(s, ','));
    return false;
}

static bool is_digit(const struct scan *s)
{
    return s->p < s->end && *s->p >= '0' && *s->p <= '9';
}

/* A number with a point or an exponent, as serde_json reads it; false: leave what is there. */
static bool take_real(struct scan *s, double *out)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t digits = 0;
    int exponent = 0, said = 0;
    skip_space(s);
    bool negative = s->p < s->end && *s->p == '-', point = false, full = false, down;
    s->p += negative;
    for (;; s->p++) {
        if (s->p < s->end && *s->p == '.' && !point) {
            point = true;
            continue;
        }
        if (!is_digit(s))
            break;
        unsigned digit = (unsigned)(*s->p - '0');
        if (full || digits > (UINT64_MAX - digit) / 10) { /* the rest is ignored there */
            if (!point)
                return false;
            full = true;
            continue;
        }
        digits = digits * 10 + digit;
        exponent -= point;
    }
    if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        s->p++;
        down = s->p < s->end && *s->p == '-';
        s->p += s->p < s->end && (*s->p == '-' || *s->p == '+');
        for (; is_digit(s) && said < 1000; s->p++)
            said = said * 10 + (*s->p - '0');
        exponent += down ? -said : said;
    }
    if (exponent < -22 || exponent > 22)
        return false;
    *out = exponent < 0 ? (double)digits / tens[-exponent] : (double)digits * tens[exponent];
    if (negative)
        *out = -*out;
    return true;
}

void unigram_round_scores(double *scores, size_t count, const char *bytes, size_t n)
{
    struct scan s = {bytes, bytes + n};
    const char *text;
    size_t text_n;
    if (!find_key(&s, "model") || !find_key(&s, "vocab") || !take(&s, '['))
        return;
    for (size_t i = 0; i < count; i++) {
        double score;
        if (!take(&s, '[') || !take_string(&s, &text, &text_n) || !take(&s, ','))
            return;
        struct scan number = s;
        if (take_real(&number, &score))
            scores[i] = score;
        if (!take_value(&s) || !take(&s, ']'))
            return;
        if (!take(&s, ','))
            return;
    }
}
