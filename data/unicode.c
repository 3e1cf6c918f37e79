/* unicode.c - see unicode.h. */
#include "data/unicode.h"

#include <stdbool.h>

#include "base/str.h"

#define HANGUL_BASE 0xAC00u
#define HANGUL_COUNT 11172u

/* Copy the entry of c from a table of sorted code points; returns its length, 0 if there is none.
 */
static int look_up(uint32_t c, const uint32_t *sorted, int count, const uint16_t *begins,
                   const uint32_t *pool, uint32_t *out)
{
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (sorted[middle] < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == count || sorted[low] != c)
        return 0;
    int n = begins[low + 1] - begins[low];
    for (int i = 0; i < n; i++)
        out[i] = pool[begins[low] + i];
    return n;
}

int unicode_decompose(uint32_t c, uint32_t out[4])
{
    if (c - HANGUL_BASE <
        HANGUL_COUNT) { /* syllables are arithmetic: 28 tails for each of 21 vowels */
        uint32_t i = c - HANGUL_BASE;
        out[0] = 0x1100 + i / 588;
        out[1] = 0x1161 + i % 588 / 28;
        out[2] = 0x11A7 + i % 28;
        return i % 28 == 0 ? 2 : 3;
    }
    int n = look_up(c, unicode_decomposed, unicode_decomposition_count, unicode_decomposition_begin,
                    unicode_decomposition, out);
    if (n == 0)
        out[0] = c;
    return n == 0 ? 1 : n;
}

int unicode_decompose_compat(uint32_t c, uint32_t out[UNICODE_LONGEST])
{
    int n = look_up(c, unicode_compat, unicode_compat_count, unicode_compat_begin,
                    unicode_compat_pool, out);
    return n == 0 ? unicode_decompose(c, out) : n;
}

uint32_t unicode_compose(uint32_t first, uint32_t second)
{
    if (first - 0x1100 < 19 && second - 0x1161 < 21)
        return HANGUL_BASE + (first - 0x1100) * 588 + (second - 0x1161) * 28;
    if (first - HANGUL_BASE < HANGUL_COUNT && (first - HANGUL_BASE) % 28 == 0 &&
        second - 0x11A8 < 27)
        return first + second - 0x11A7;
    int low = 0, high = unicode_pair_count;
    while (low < high) {
        int middle = (low + high) / 2;
        const struct unicode_pair *p = &unicode_pairs[middle];
        if (p->first < first || (p->first == first && p->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == unicode_pair_count || unicode_pairs[low].first != first ||
        unicode_pairs[low].second != second)
        return 0;
    return unicode_pairs[low].composed;
}

/* The parts of Hangul that c ends with (as the left of two) or begins with. */
static unsigned hangul(uint32_t c, unsigned shape, bool left)
{
    if (c - HANGUL_BASE >= HANGUL_COUNT)
        return shape & (SHAPE_L | SHAPE_V | SHAPE_T);
    return !left ? SHAPE_L : (c - HANGUL_BASE) % 28 == 0 ? SHAPE_V : SHAPE_T;
}

/*
 * Unicode's rules GB3 to GB11. Flags in pairs (GB12, GB13) are left out: a cluster of six bytes or
 * more is handled character by character, and two of them have eight.
 */
size_t unicode_cluster(const char *s, size_t n)
{
    enum { NO_PICTURE, PICTURE, PICTURE_JOINED } picture;
    enum { NO_CONSONANT, CONSONANT, CONSONANT_LINKED } conjunct;
    uint32_t last, c;
    size_t at = (size_t)utf8_decode(s, n, &last);
    unsigned shape = unicode_shape(last), next;
    picture = shape & SHAPE_PICTURE ? PICTURE : NO_PICTURE;
    conjunct = shape & SHAPE_CONSONANT ? CONSONANT : NO_CONSONANT;
    if (shape & SHAPE_CONTROL)
        return last == '\r' && at < n && s[at] == '\n' ? 2 : at;
    for (size_t length; at < n; at += length, last = c, shape = next) {
        length = (size_t)utf8_decode(s + at, n - at, &c);
        next = unicode_shape(c);
        if (next & SHAPE_CONTROL)
            break;
        unsigned left = hangul(last, shape, true), right = hangul(c, next, false);
        bool joined = (next & SHAPE_EXTEND) != 0 || (shape & SHAPE_PREPEND) != 0 ||
                      ((left & SHAPE_L) && (right & (SHAPE_L | SHAPE_V))) ||
                      ((left & SHAPE_V) && (right & (SHAPE_V | SHAPE_T))) ||
                      ((left & SHAPE_T) && (right & SHAPE_T)) ||
                      (conjunct == CONSONANT_LINKED && (next & SHAPE_CONSONANT)) ||
                      (picture == PICTURE_JOINED && (next & SHAPE_PICTURE));
        if (!joined)
            break;
        if (next & SHAPE_PICTURE)
            picture = PICTURE;
        else if (picture == PICTURE && c == 0x200D)
            picture = PICTURE_JOINED;
        else
            picture = picture == PICTURE && (next & SHAPE_EXTEND) && !(next & SHAPE_SPACING)
                          ? PICTURE
                          : NO_PICTURE;
        if (next & SHAPE_CONSONANT)
            conjunct = CONSONANT;
        else if (conjunct != NO_CONSONANT && (next & SHAPE_LINKER))
            conjunct = CONSONANT_LINKED;
        else if (!(next & SHAPE_INSIDE))
            conjunct = NO_CONSONANT;
    }
    return at;
}
