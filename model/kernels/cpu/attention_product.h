/*
 * attention_product.h - multiply() of attention_simd.h in AVX-512 registers, for float and for
 * pairs of bfloat16.
 *
 * Blocks of 8 rows and up to 3 panels of columns: 24 sums in registers, each word of A broadcast
 * from memory. Every element is one chain of multiply-adds in the order of the sum, so blocking
 * changes no bit.
 */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define SUM_STEP 1
#define ATTENTION_BEGIN NULL
#define ATTENTION_END NULL
#define KEEP_AWAKE() ((void)0)

static inline __attribute__((always_inline)) void block(int n, int words, const uint32_t *a,
                                                        int64_t a_panel, const uint32_t *b,
                                                        int64_t b_panel, float *c, int64_t c_panel,
                                                        bool add)
{
    __m512 sum[8][3];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
#pragma GCC unroll 3
        for (int j = 0; j < n; j++)
            sum[i][j] = add ? _mm512_load_ps(c + j * c_panel + 16 * i) : _mm512_setzero_ps();
    for (int w = 0; w < words; w += 16, a += a_panel) {
        const int left = words - w < 16 ? words - w : 16;
        for (int k = 0; k < left; k++, b += 16) {
            __m512i y[3];
#pragma GCC unroll 3
            for (int j = 0; j < n; j++)
                y[j] = _mm512_load_si512(b + j * b_panel);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                __m512i x = _mm512_set1_epi32((int)a[16 * i + k]);
#pragma GCC unroll 3
                for (int j = 0; j < n; j++)
#if ATTENTION_BF16
                    sum[i][j] = _mm512_dpbf16_ps(sum[i][j], (__m512bh)x, (__m512bh)y[j]);
#else
                    sum[i][j] = _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y[j]),
                                                sum[i][j]);
#endif
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
#pragma GCC unroll 3
        for (int j = 0; j < n; j++)
            _mm512_store_ps(c + j * c_panel + 16 * i, sum[i][j]);
}

/* C (rows, panels of 16) = or += A B; rows are rounded up to 8. *_panel: words from one panel to
 * the next. */
static void multiply(int rows, int panels, int words, const uint32_t *a, int64_t a_panel,
                     const uint32_t *b, int64_t b_panel, float *c, int64_t c_panel, bool add)
{
    for (int n = 0; n < panels;) {
        int take = panels - n == 4 ? 2 : panels - n < 3 ? panels - n : 3;
        for (int m = 0; m < rows; m += 8) {
            const uint32_t *x = a + m * 16, *y = b + n * b_panel;
            float *z = c + n * c_panel + m * 16;
            if (take == 3)
                block(3, words, x, a_panel, y, b_panel, z, c_panel, add);
            else if (take == 2)
                block(2, words, x, a_panel, y, b_panel, z, c_panel, add);
            else
                block(1, words, x, a_panel, y, b_panel, z, c_panel, add);
        }
        n += take;
    }
}
