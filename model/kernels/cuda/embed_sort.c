/*
 * embed_sort.c - the tokens of each piece in order of their ids, for the word gradient.
 *
 * The gradient of a word's row is the sum over the tokens that have its id. Sorted, those tokens
 * lie in one segment, which one group of threads adds up in the order of the tokens: no atomics,
 * and bits that depend on the piece alone. The sort is by bytes of the id, lowest first (stable),
 * with as many rounds as the piece's largest id needs: two for BERT's vocabulary.
 */
#include <string.h>

#include "model/kernels/cuda/cuda.h"

enum { DIGITS = 256 };

/* n tokens at order, sorted by ids[token]; other (n). */
static void sort_piece(const int32_t *ids, int n, int32_t *order, int32_t *other)
{
    uint32_t used = 0;
    for (int i = 0; i < n; i++)
        used |= (uint32_t)ids[order[i]];
    int32_t *from = order, *to = other;
    for (int shift = 0; shift < 32 && used >> shift != 0; shift += 8) {
        int32_t at[DIGITS] = {0};
        int32_t sum = 0;
        for (int i = 0; i < n; i++)
            at[(uint32_t)ids[from[i]] >> shift & (DIGITS - 1)]++;
        for (int d = 0; d < DIGITS; d++) {
            int32_t count = at[d];
            at[d] = sum;
            sum += count;
        }
        for (int i = 0; i < n; i++)
            to[at[(uint32_t)ids[from[i]] >> shift & (DIGITS - 1)]++] = from[i];
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != order)
        memcpy(order, from, (size_t)n * sizeof *order);
}

int embed_sort(const int32_t *ids, const int32_t *token, int pieces, int32_t *order,
               int32_t *segment, int32_t *segment_begin, int32_t *scratch)
{
    int segments = 0;
    for (int p = 0; p < pieces; p++) {
        const int32_t begin = token[p], end = token[p + 1];
        segment_begin[p] = segments;
        for (int32_t t = begin; t < end; t++)
            order[t] = t;
        sort_piece(ids, end - begin, order + begin, scratch);
        for (int32_t t = begin; t < end; t++)
            if (t == begin || ids[order[t]] != ids[order[t - 1]])
                segment[segments++] = t;
    }
    segment_begin[pieces] = segments;
    segment[segments] = pieces > 0 ? token[pieces] : 0;
    return segments;
}
