/* shapes.c - see shapes.h. */
#include "tests/support/shapes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "tests/support/support.h"

const int shapes_batch[SHAPES_BATCHES][8] = {
    {-1},
    {1, -1},
    {5, 1, 7, -1},
    {33, 2, -1},
    {64, 1, 65, -1},
    {3, 129, 17, 32, -1},
    {130, 1, 61, 9, 64, 31, -1},
};

int shapes_rows(const int *lengths, int32_t *begin)
{
    int rows = 0;
    begin[0] = 0;
    for (; lengths[rows] >= 0; rows++)
        begin[rows + 1] = begin[rows] + lengths[rows];
    return rows;
}

static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

void shapes_fill(float *x, int64_t n, uint64_t seed, bool bf16)
{
    for (int64_t i = 0; i < n; i++) {
        struct philox r = philox4x32(seed, (uint32_t)i, (uint32_t)(i >> 32), 0, 0);
        /* Sum of three uniform numbers: bell-shaped enough. */
        double u = ((double)r.v[0] + (double)r.v[1] + (double)r.v[2]) / 4294967296.0 - 1.5;
        x[i] = (float)(u * 2.0);
        if (bf16)
            x[i] = from_bf16(to_bf16(x[i]));
    }
}

void shapes_to_act(const float *x, int64_t n, bool bf16, void *to)
{
    if (!bf16) {
        memcpy(to, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        ((uint16_t *)to)[i] = to_bf16(x[i]);
}

void shapes_from_act(const void *x, int64_t n, bool bf16, float *to)
{
    if (!bf16) {
        memcpy(to, x, (size_t)n * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = from_bf16(((const uint16_t *)x)[i]);
}

#define ZONE 256

struct guard {
    size_t bytes;
    unsigned char pad[ZONE - sizeof(size_t)];
};

void *guard_alloc(size_t bytes)
{
    unsigned char *p = NULL;
    if (posix_memalign((void **)&p, ZONE,
                       (sizeof(struct guard) + bytes + ZONE + ZONE) / ZONE * ZONE) != 0)
        fail_msg("no memory for %zu bytes", bytes);
    memset(p, 0xA5, sizeof(struct guard));
    memcpy(p, &bytes, sizeof bytes);
    memset(p + sizeof(struct guard), 0xFF, bytes);
    memset(p + sizeof(struct guard) + bytes, 0xA5, ZONE);
    return p + sizeof(struct guard);
}

void guard_check(const void *p, const char *what)
{
    const unsigned char *at = (const unsigned char *)p - sizeof(struct guard);
    size_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    for (size_t i = sizeof bytes; i < ZONE; i++) {
        if (at[i] != 0xA5)
            fail_msg("%s: written %zu bytes before its beginning", what, ZONE - i);
    }
    for (size_t i = 0; i < ZONE; i++) {
        if (at[sizeof(struct guard) + bytes + i] != 0xA5)
            fail_msg("%s: written %zu bytes behind its end", what, i + 1);
    }
}

void guard_free(void *p)
{
    if (p != NULL)
        free((unsigned char *)p - sizeof(struct guard));
}

double shapes_error(const float *a, const float *b, int64_t n)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        if (d != d)
            return INFINITY;
        difference += d * d;
        size += (double)b[i] * (double)b[i];
    }
    if (difference == 0.0)
        return 0.0;
    return sqrt(difference / size);
}
