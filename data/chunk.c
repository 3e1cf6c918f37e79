/* chunk.c - see chunk.h. */
#include "data/chunk.h"

#include <stddef.h>

const char *chunk_pooling_name(enum chunk_pooling pooling)
{
    return pooling == CHUNK_MEAN ? "mean" : "max";
}

static int64_t kept_tokens(const struct chunk_rule *rule, int64_t n)
{
    return rule->max_text > 0 && n > rule->max_text ? rule->max_text : n;
}

int64_t chunk_count(const struct chunk_rule *rule, int64_t n)
{
    if (rule->size == 0)
        return 1;
    n = kept_tokens(rule, n);
    if (n <= 0)
        return 1;
    int64_t windows = (n + rule->stride - 1) / rule->stride;
    if (rule->skip_tail) /* the first that reaches the end is the last */
        windows = n <= rule->size ? 1 : (n - rule->size + rule->stride - 1) / rule->stride + 1;
    /* Windows from k * stride on hold less than `least` where k * stride > n - least: a run at the
     * end. */
    int64_t whole = n < rule->least ? 0 : (n - rule->least) / rule->stride + 1;
    if (rule->least > rule->size)
        whole = 0;
    windows = windows < whole ? windows : whole;
    return windows < 1 ? 1 : windows;
}

void chunk_at(const struct chunk_rule *rule, int64_t n, int64_t k, int64_t *first, int64_t *length)
{
    *first = 0;
    *length = n;
    if (rule->size == 0)
        return;
    n = kept_tokens(rule, n);
    *first = k * rule->stride;
    *length = n - *first < rule->size ? n - *first : rule->size;
}

int64_t chunk_row(const int64_t *begin, int64_t rows, int64_t unit)
{
    int64_t low = 0, high = rows; /* begin[low] <= unit < begin[high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (begin[middle] <= unit)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void chunk_tally_add(struct chunk_tally *tally, const struct chunk_rule *rule, int64_t n)
{
    const int64_t count = chunk_count(rule, n);
    int64_t first = 0, length = n, inside = 0;
    for (int64_t k = 0; k < count; k++) {
        chunk_at(rule, n, k, &first, &length);
        inside += length;
    }
    const int64_t covered = first + length; /* strides are not longer than windows: no gaps */
    tally->texts++;
    tally->split += count > 1;
    tally->chunks += count;
    tally->most = count > tally->most ? count : tally->most;
    tally->tokens += n;
    tally->lost += n - covered;
    tally->repeated += inside - covered;
}

void chunk_pool(enum chunk_pooling pooling, const int64_t *begin, int64_t texts, int width,
                const float *chunk, float *text, int64_t *winner)
{
    for (int64_t i = 0; i < texts; i++) {
        for (int c = 0; c < width; c++) {
            double sum = 0.0;
            int64_t best = begin[i];
            for (int64_t k = begin[i]; k < begin[i + 1]; k++) {
                const float z = chunk[k * width + c];
                sum += (double)z;
                /* a value that is no number wins, and so is seen */
                best = z > chunk[best * width + c] || z != z ? k : best;
            }
            if (winner != NULL)
                winner[i * width + c] = best;
            text[i * width + c] = pooling == CHUNK_MEAN
                                      ? (float)(sum / (double)(begin[i + 1] - begin[i]))
                                      : chunk[best * width + c];
        }
    }
}

void chunk_pool_backward(enum chunk_pooling pooling, const int64_t *begin, int64_t texts, int width,
                         const float *dtext, const int64_t *winner, float *dchunk)
{
    for (int64_t i = 0; i < texts; i++) {
        const double share = 1.0 / (double)(begin[i + 1] - begin[i]);
        for (int64_t k = begin[i]; k < begin[i + 1]; k++)
            for (int c = 0; c < width; c++) {
                const float d = dtext[i * width + c];
                dchunk[k * width + c] = pooling == CHUNK_MEAN        ? (float)((double)d * share)
                                        : winner[i * width + c] == k ? d
                                                                     : 0.0f;
            }
    }
}
