/*
 * tokenizer_split.c - cutting normalized text into words; see tokenizer_parts.h.
 *
 * Each step cuts what it is given and hands the parts to the next one as it goes, the last to the
 * model: no list of parts is kept. A step that changes its text works in a buffer of its own.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"

static enum status split_run(struct encoding *e, int at, const char *text, size_t n);

/* ---- Words ---- */

static enum word_kind kind_of(unsigned bits, uint32_t c)
{
    unsigned flags = unicode_class(c)->flags;
    if ((bits & WORDS_SPACE) && (flags & UNICODE_SPACE))
        return WORD_GAP;
    if ((bits & WORDS_PUNCT) && (flags & UNICODE_PUNCT))
        return WORD_ALONE;
    return (bits & WORDS_KIND) && !(flags & UNICODE_WORD) ? WORD_OTHER : WORD_LETTER;
}

void word_rules_init(struct word_rules *rules, unsigned bits)
{
    rules->bits = bits;
    for (uint32_t c = 0; c < 128; c++)
        rules->ascii[c] = (unsigned char)kind_of(bits, c);
}

/* The kind of the character at text, and its length in bytes. */
static inline enum word_kind kind_at(const struct word_rules *rules, const char *text, size_t n,
                                     size_t *length)
{
    unsigned char byte = (unsigned char)*text;
    uint32_t c;
    if (byte < 0x80) {
        *length = 1;
        return rules->ascii[byte];
    }
    *length = (size_t)utf8_decode(text, n, &c);
    return kind_of(rules->bits, c);
}

static enum status split_words(struct encoding *e, int step, const char *text, size_t n)
{
    const struct word_rules *rules = &e->t->splits[step].words;
    bool first = e->first;
    size_t at = 0, length;
    while (at < n) {
        enum word_kind kind = kind_at(rules, text + at, n - at, &length);
        size_t begin = at;
        at += length;
        if (kind == WORD_GAP)
            continue;
        while (kind != WORD_ALONE && at < n && kind_at(rules, text + at, n - at, &length) == kind)
            at += length;
        e->first = first && begin == 0;
        TRY(split_run(e, step + 1, text + begin, at - begin));
    }
    return STATUS_OK;
}

/* ---- Digits ---- */

static enum status split_digits(struct encoding *e, int step, const char *text, size_t n)
{
    bool each = e->t->splits[step].each, first = e->first, before = false;
    size_t begin = 0, length;
    for (size_t at = 0; at <= n; at += length) {
        uint32_t c;
        length = at == n ? 1 : (size_t)utf8_decode(text + at, n - at, &c);
        bool digit = at < n && (unicode_shape(c) & SHAPE_NUMERIC) != 0;
        if (at > begin && (at == n || digit != before || (each && digit))) {
            e->first = first && begin == 0;
            TRY(split_run(e, step + 1, text + begin, at - begin));
            begin = at;
        }
        before = digit;
    }
    return STATUS_OK;
}

/* ---- Metaspace ---- */

static enum status split_metaspace(struct encoding *e, int step, const char *text, size_t n)
{
    const struct split_step *s = &e->t->splits[step];
    struct str *to = &e->splits[step];
    bool first = e->first,
         marked = n > 0 &&
                  (text[0] == ' ' || (n >= s->mark_n && memcmp(text, s->mark, s->mark_n) == 0));
    to->n = 0;
    if (!marked && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && first)))
        TRY(str_add(to, s->mark, s->mark_n));
    for (const char *space; (space = memchr(text, ' ', n)) != NULL;) {
        size_t before = (size_t)(space - text);
        TRY(str_add(to, text, before));
        TRY(str_add(to, s->mark, s->mark_n));
        text += before + 1;
        n -= before + 1;
    }
    TRY(str_add(to, text, n));
    const char *p = to->p, *end = p + to->n;
    while (p < end) {
        const char *next = s->cut ? memmem(p + 1, (size_t)(end - p - 1), s->mark, s->mark_n) : NULL;
        if (next == NULL)
            next = end;
        e->first = first && p == to->p;
        TRY(split_run(e, step + 1, p, (size_t)(next - p)));
        p = next;
    }
    return STATUS_OK;
}

/* ---- GPT-2's expression ---- */

enum gpt_kind { GPT_LETTER, GPT_NUMBER, GPT_SPACE, GPT_OTHER };

static inline enum gpt_kind gpt_kind_at(const char *s, size_t n, size_t *length)
{
    unsigned char byte = (unsigned char)*s;
    uint32_t c;
    if (byte < 0x80) {
        *length = 1;
        if ((unsigned char)((byte | 0x20) - 'a') < 26)
            return GPT_LETTER;
        if ((unsigned char)(byte - '0') < 10)
            return GPT_NUMBER;
        return byte == ' ' || (byte >= '\t' && byte <= '\r') ? GPT_SPACE : GPT_OTHER;
    }
    *length = (size_t)utf8_decode(s, n, &c);
    unsigned shape = unicode_shape(c);
    if (shape & SHAPE_LETTER)
        return GPT_LETTER;
    if (shape & SHAPE_NUMBER)
        return GPT_NUMBER;
    return unicode_class(c)->flags & UNICODE_SPACE ? GPT_SPACE : GPT_OTHER;
}

/* The length of 's 't 're 've 'm 'll 'd at s, or 0. */
static size_t gpt_short(const char *s, size_t n)
{
    if (n < 2 || s[0] != '\'')
        return 0;
    if (s[1] == 's' || s[1] == 't' || s[1] == 'm' || s[1] == 'd')
        return 2;
    if (n < 3)
        return 0;
    return (s[1] == 'r' && s[2] == 'e') || (s[1] == 'v' && s[2] == 'e') ||
                   (s[1] == 'l' && s[2] == 'l')
               ? 3
               : 0;
}

/*
 * The length of what matches at s, of n > 0 bytes:
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * so white space before other text loses its last character to that, if it is a space, or leaves it
 * behind.
 */
static size_t gpt_match(const char *s, size_t n)
{
    size_t at = gpt_short(s, n), length, last;
    if (at > 0)
        return at;
    enum gpt_kind kind = gpt_kind_at(s, n, &at);
    if (*s == ' ' && n > 1) {
        enum gpt_kind behind = gpt_kind_at(s + 1, n - 1, &length);
        if (behind != GPT_SPACE) {
            kind = behind;
            at += length;
        }
    }
    last = at;
    while (at < n && gpt_kind_at(s + at, n - at, &length) == kind) {
        last = length;
        at += length;
    }
    return kind == GPT_SPACE && at < n && at > last ? at - last : at;
}

static enum status split_bytes(struct encoding *e, int step, const char *text, size_t n)
{
    const struct split_step *s = &e->t->splits[step];
    if (s->prefix_space && text[0] != ' ') {
        struct str *to = &e->splits[step];
        to->n = 0;
        TRY(str_add(to, " ", 1));
        TRY(str_add(to, text, n));
        text = to->p;
        n = to->n;
    }
    if (!s->cut)
        return e->t->model->encode(e, text, n);
    for (size_t at = 0, length; at < n; at += length) {
        length = gpt_match(text + at, n - at);
        TRY(e->t->model->encode(e, text + at, length));
    }
    return STATUS_OK;
}

/* ---- Any ---- */

static enum status split_run(struct encoding *e, int at, const char *text, size_t n)
{
    if (n == 0)
        return STATUS_OK;
    if (at == e->t->split_count)
        return e->t->model->encode(e, text, n);
    switch (e->t->splits[at].kind) {
    case SPLIT_METASPACE:
        return split_metaspace(e, at, text, n);
    case SPLIT_BYTES:
        return split_bytes(e, at, text, n);
    case SPLIT_DIGITS:
        return split_digits(e, at, text, n);
    case SPLIT_WORDS:
        break;
    }
    return split_words(e, at, text, n);
}

enum status split_encode(struct encoding *e, const char *text, size_t n)
{
    return split_run(e, 0, text, n);
}
