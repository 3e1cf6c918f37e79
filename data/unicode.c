/* unicode.c - see unicode.h. */
#include "data/unicode.h"

#define HANGUL_BASE 0xAC00u
#define HANGUL_COUNT 11172u

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
    int low = 0, high = unicode_decomposition_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (unicode_decomposed[middle] < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == unicode_decomposition_count || unicode_decomposed[low] != c) {
        out[0] = c;
        return 1;
    }
    int begin = unicode_decomposition_begin[low], n = unicode_decomposition_begin[low + 1] - begin;
    for (int i = 0; i < n; i++)
        out[i] = unicode_decomposition[begin + i];
    return n;
}
