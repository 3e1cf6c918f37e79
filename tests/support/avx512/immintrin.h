/*
 * immintrin.h - stands before the compiler's own where the CPU kernels are built for tests on any
 * x86-64 with AVX2: AVX-512 and AVX512-BF16 by wide_avx2.h, AMX's tiles here, in memory.
 *
 * What it proves is the logic of the kernels for such machines (packing, masks, order of sums),
 * neither their speed nor the last bit of their products. A tile that was not configured, or an
 * operand outside the configured size, ends the test.
 */
#ifndef COHORT_TESTS_SUPPORT_AVX512_IMMINTRIN_H
#define COHORT_TESTS_SUPPORT_AVX512_IMMINTRIN_H

#include_next <immintrin.h>

#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/kernels/cpu/wide_avx2.h"

#undef __AVX512BF16__
#define __AVX512BF16__ 1 /* for our own headers */

#ifndef WIDE
#define WIDE static inline __attribute__((always_inline, unused)) /* wide_avx2.h includes us and goes on later */
#endif

struct emulated_tiles {
    int configured;
    int rows[8], bytes[8];
    uint8_t data[8][16][64];
};
static __thread struct emulated_tiles emulated_tiles __attribute__((unused));

WIDE struct emulated_tiles *emulated_tile(int t)
{
    if (!emulated_tiles.configured || emulated_tiles.rows[t] == 0) {
        fprintf(stderr, "tile %d is used and not configured\n", t);
        abort();
    }
    return &emulated_tiles;
}

WIDE void emulated_loadconfig(const void *config)
{
    const uint8_t *c = config;
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
    emulated_tiles.configured = c[0] == 1;
    for (int t = 0; t < 8; t++) {
        emulated_tiles.bytes[t] = c[16 + 2 * t] | c[17 + 2 * t] << 8;
        emulated_tiles.rows[t] = c[48 + t];
    }
}

WIDE void emulated_zero(int t)
{
    memset(emulated_tile(t)->data[t], 0, sizeof emulated_tiles.data[t]);
}

WIDE void emulated_loadd(int t, const void *from, int64_t stride)
{
    struct emulated_tiles *e = emulated_tile(t);
    memset(e->data[t], 0, sizeof e->data[t]);
    for (int r = 0; r < e->rows[t]; r++)
        memcpy(e->data[t][r], (const char *)from + r * stride, (size_t)e->bytes[t]);
}

WIDE void emulated_stored(int t, void *to, int64_t stride)
{
    struct emulated_tiles *e = emulated_tile(t);
    for (int r = 0; r < e->rows[t]; r++)
        memcpy((char *)to + r * stride, e->data[t][r], (size_t)e->bytes[t]);
}

/* c (rows of a, columns of b) += a b, pairs of bfloat16: even and odd products are added up apart. */
static inline __attribute__((unused)) void emulated_dpbf16(int c, int a, int b)
{
    struct emulated_tiles *e = emulated_tile(c);
    (void)emulated_tile(a), (void)emulated_tile(b);
    const int pairs = e->bytes[a] / 4;
    if (e->rows[c] != e->rows[a] || e->bytes[c] != e->bytes[b] || e->rows[b] != pairs) {
        fprintf(stderr, "tiles %d, %d, %d do not fit\n", c, a, b);
        abort();
    }
    const __m256i upper = _mm256_set1_epi32((int)0xFFFF0000u);
    for (int m = 0; m < e->rows[c]; m++) {
        for (int half = 0; half < 64; half += 32) {
            __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
            float *sum = (float *)(e->data[c][m] + half);
            for (int k = 0; k < pairs; k++) {
                int32_t word;
                memcpy(&word, e->data[a][m] + 4 * k, sizeof word);
                const __m256i x = _mm256_set1_epi32(word), y = _mm256_loadu_si256((const __m256i *)(e->data[b][k] + half));
                even = _mm256_add_ps(even, _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
                                                         _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))));
                odd = _mm256_add_ps(odd, _mm256_mul_ps(_mm256_castsi256_ps(_mm256_and_si256(x, upper)),
                                                       _mm256_castsi256_ps(_mm256_and_si256(y, upper))));
            }
            _mm256_storeu_ps(sum, _mm256_add_ps(_mm256_loadu_ps(sum), _mm256_add_ps(even, odd)));
        }
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(p) emulated_loadconfig(p)
#define _tile_release() ((void)(emulated_tiles.configured = 0))
#define _tile_zero(t) emulated_zero(t)
#define _tile_loadd(t, p, stride) emulated_loadd(t, p, stride)
#define _tile_stored(t, p, stride) emulated_stored(t, p, stride)
#define _tile_dpbf16ps(c, a, b) emulated_dpbf16(c, a, b)

#endif
