/*
 * block_bf16.c - one block of a bfloat16 product with AVX512-BF16; see products.h.
 *
 * Eight lines by 32 columns stay in 16 registers: a step of two k loads two vectors of B and
 * broadcasts eight pairs of A, ten loads for sixteen multiplications. A line's arithmetic is the
 * same in a block of fewer lines.
 */
#include "model/kernels/cpu/products.h"

#ifdef __x86_64__
#include <immintrin.h>

static inline __attribute__((always_inline)) void lines(int rows, int steps, const unsigned char *a,
                                                        int64_t a_line, int64_t a_step,
                                                        const uint16_t *b, bool add, float *c)
{
    __m512 sum[8][2];
    for (int i = 0; i < rows; i++) {
        sum[i][0] = add ? _mm512_loadu_ps(c + 32 * i) : _mm512_setzero_ps();
        sum[i][1] = add ? _mm512_loadu_ps(c + 32 * i + 16) : _mm512_setzero_ps();
    }
    for (int s = 0; s < steps; s++, a += a_step, b += 1024) {
        for (int pair = 0; pair < 16; pair++) {
            __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + 32 * pair);
            __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + 512 + 32 * pair);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                int32_t two;
                memcpy(&two, a + i * a_line + 4 * pair, sizeof two);
                __m512bh x = (__m512bh)_mm512_set1_epi32(two);
                sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, b0);
                sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, b1);
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_ps(c + 32 * i, sum[i][0]);
        _mm512_storeu_ps(c + 32 * i + 16, sum[i][1]);
    }
}

void block_bf16(int rows, int steps, const void *a, int64_t a_line, int64_t a_step,
                const uint16_t *b, bool add, float *c)
{
    const unsigned char *line = a;
    for (; rows >= 8; rows -= 8, line += 8 * a_line, c += 8 * 32)
        lines(8, steps, line, a_line, a_step, b, add, c);
    switch (rows) {
    case 7:
        lines(7, steps, line, a_line, a_step, b, add, c);
        break;
    case 6:
        lines(6, steps, line, a_line, a_step, b, add, c);
        break;
    case 5:
        lines(5, steps, line, a_line, a_step, b, add, c);
        break;
    case 4:
        lines(4, steps, line, a_line, a_step, b, add, c);
        break;
    case 3:
        lines(3, steps, line, a_line, a_step, b, add, c);
        break;
    case 2:
        lines(2, steps, line, a_line, a_step, b, add, c);
        break;
    case 1:
        lines(1, steps, line, a_line, a_step, b, add, c);
        break;
    default:
        break;
    }
}
#endif
