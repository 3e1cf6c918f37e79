/* words.c - see words.h. */
#include "data/words.h"

#define SIGMA 0x3A3u
#define SIGMA_SMALL 0x3C3u
#define SIGMA_FINAL 0x3C2u
#define I_DOTTED 0x130u
#define DOT_ABOVE 0x307u

unsigned words_flags(uint32_t c)
{
    int low = 0, high = words_run_count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (words_runs[middle] >> 3 <= c)
            low = middle;
        else
            high = middle;
    }
    return words_runs[low] & 7;
}

uint32_t words_lower_point(uint32_t c)
{
    int low = 0, high = words_lower_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (words_lower_runs[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    const struct words_lower_run *run = &words_lower_runs[low];
    if (low == words_lower_count || c < run->first || (c - run->first) % run->step != 0)
        return c;
    return (uint32_t)((int32_t)c + run->add);
}

/* Whether a sigma at text[at..next) ends a word: a cased letter before it and none behind it,
 * ignorable ones skipped. */
static bool sigma_is_final(const char *text, size_t n, size_t at, size_t next)
{
    uint32_t c;
    unsigned flags = 0;
    while (at > 0) {
        do
            at--;
        while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80);
        (void)utf8_decode(text + at, n - at, &c);
        flags = words_flags(c);
        if (!(flags & WORDS_IGNORABLE))
            break;
    }
    if (!(flags & WORDS_CASED))
        return false;
    for (flags = 0; next < n;) {
        next += (size_t)utf8_decode(text + next, n - next, &c);
        flags = words_flags(c);
        if (!(flags & WORDS_IGNORABLE))
            break;
    }
    return !(flags & WORDS_CASED);
}

enum status words_lower(const char *text, size_t n, struct str *out)
{
    char bytes[8];
    for (size_t at = 0; at < n;) {
        size_t plain = at;
        while (plain < n && !(text[plain] & 0x80) && !(text[plain] >= 'A' && text[plain] <= 'Z'))
            plain++;
        if (plain > at) {
            TRY(str_add(out, text + at, plain - at));
            at = plain;
            continue;
        }
        if (!(text[at] & 0x80)) {
            bytes[0] = (char)(text[at++] - 'A' + 'a');
            TRY(str_add(out, bytes, 1));
            continue;
        }
        uint32_t c;
        size_t next = at + (size_t)utf8_decode(text + at, n - at, &c);
        uint32_t low = c == SIGMA ? (sigma_is_final(text, n, at, next) ? SIGMA_FINAL : SIGMA_SMALL)
                                  : words_lower_point(c);
        int length = utf8_encode(low, bytes);
        if (c == I_DOTTED)
            length += utf8_encode(DOT_ABOVE, bytes + length);
        TRY(str_add(out, bytes, (size_t)length));
        at = next;
    }
    return STATUS_OK;
}

static bool ascii_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool words_next(const char *text, size_t n, size_t *at, size_t *begin)
{
    size_t i = *at;
    int characters = 0;
    *begin = i;
    while (i < n) {
        uint32_t c;
        size_t length = 1;
        bool word = ascii_word(text[i]);
        if (text[i] & 0x80) {
            length = (size_t)utf8_decode(text + i, n - i, &c);
            word = (words_flags(c) & WORDS_WORD) != 0;
        }
        if (word) {
            characters++;
        } else {
            if (characters >= 2)
                break;
            characters = 0;
            *begin = i + length;
        }
        i += length;
    }
    *at = i;
    return characters >= 2;
}
