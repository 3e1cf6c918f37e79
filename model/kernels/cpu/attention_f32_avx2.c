/*
 * attention_f32_avx2.c - attention in float with AVX2 and FMA: attention_simd.h on pairs of
 * registers.
 *
 * multiply() has four rows by one panel of 16 columns: eight sums, two vectors of B and one of A.
 * Every element is one chain of multiply-adds in the order of the sum, so blocking changes no bit.
 */
#ifdef __x86_64__
#include <stdbool.h>

#include "model/kernels/cpu/wide_avx2.h"

#define ATTENTION_BF16 0
#define ATTENTION_PATH attention_f32_avx2
#define ATTENTION_NAME "AVX2"
#define SUM_STEP 1
#define ATTENTION_BEGIN NULL
#define ATTENTION_END NULL
#define KEEP_AWAKE() ((void)0)

static inline __attribute__((always_inline)) void block(int words, const float *a, int64_t a_panel,
                                                        const float *b, float *c, bool add)
{
    __m256 sum[4][2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        sum[i][0] = add ? _mm256_load_ps(c + 16 * i) : _mm256_setzero_ps();
        sum[i][1] = add ? _mm256_load_ps(c + 16 * i + 8) : _mm256_setzero_ps();
    }
    for (int w = 0; w < words; w += 16, a += a_panel) {
        const int left = words - w < 16 ? words - w : 16;
        for (int k = 0; k < left; k++, b += 16) {
            const __m256 y0 = _mm256_load_ps(b), y1 = _mm256_load_ps(b + 8);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const __m256 x = _mm256_broadcast_ss(a + 16 * i + k);
                sum[i][0] = _mm256_fmadd_ps(x, y0, sum[i][0]);
                sum[i][1] = _mm256_fmadd_ps(x, y1, sum[i][1]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_store_ps(c + 16 * i, sum[i][0]);
        _mm256_store_ps(c + 16 * i + 8, sum[i][1]);
    }
}

/* C (rows, panels of 16) = or += A B; rows are rounded up to 8. *_panel: words from one panel to
 * the next. */
static void multiply(int rows, int panels, int words, const uint32_t *a, int64_t a_panel,
                     const uint32_t *b, int64_t b_panel, float *c, int64_t c_panel, bool add)
{
    rows = (rows + 7) / 8 * 8;
    for (int n = 0; n < panels; n++)
        for (int m = 0; m < rows; m += 4)
            block(words, (const float *)(const void *)(a + m * 16), a_panel,
                  (const float *)(const void *)(b + n * b_panel), c + n * c_panel + m * 16, add);
}

#include "model/kernels/cpu/attention_simd.h"
#endif
