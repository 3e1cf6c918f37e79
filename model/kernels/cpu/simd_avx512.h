/*
 * simd_avx512.h - small pieces that the AVX-512 files share: Philox for 16 counters, dropout masks,
 * bfloat16 loads.
 *
 * Include it only from *_avx512.c, *_bf16.c and *_amx.c.
 */
#ifndef COHORT_MODEL_KERNELS_CPU_SIMD_AVX512_H
#define COHORT_MODEL_KERNELS_CPU_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

/* Philox4x32-10 for 16 counters (c0 differs by lane, c1, c2, c3 as given); v[w] = word w of each
 * lane's result. */
static inline void philox16_avx512(uint64_t key, __m512i c0, __m512i c1, __m512i c2, __m512i c3,
                                   __m512i v[4])
{
    const __m512i m0 = _mm512_set1_epi32((int)0xD2511F53u),
                  m1 = _mm512_set1_epi32((int)0xCD9E8D57u);
    const __mmask16 odd = 0xAAAA, even = 0x5555;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        /* 32 x 32 -> 64 exists for even lanes only: once as they are, once moved down; then the
         * halves are put together. */
        __m512i p0e = _mm512_mul_epu32(c0, m0),
                p0o = _mm512_mul_epu32(_mm512_shuffle_epi32(c0, 0xF5), m0);
        __m512i p1e = _mm512_mul_epu32(c2, m1),
                p1o = _mm512_mul_epu32(_mm512_shuffle_epi32(c2, 0xF5), m1);
        __m512i hi0 = _mm512_mask_shuffle_epi32(p0o, even, p0e, 0xF5),
                lo0 = _mm512_mask_shuffle_epi32(p0e, odd, p0o, 0xA0);
        __m512i hi1 = _mm512_mask_shuffle_epi32(p1o, even, p1e, 0xF5),
                lo1 = _mm512_mask_shuffle_epi32(p1e, odd, p1o, 0xA0);
        c0 =
            _mm512_ternarylogic_epi32(hi1, c1, _mm512_set1_epi32((int)k0), 0x96); /* xor of three */
        c1 = lo1;
        c2 = _mm512_ternarylogic_epi32(hi0, c3, _mm512_set1_epi32((int)k1), 0x96);
        c3 = lo0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    v[0] = c0;
    v[1] = c1;
    v[2] = c2;
    v[3] = c3;
}

/*
 * Keep masks of the 128 consecutive decisions that begin at index 8 * block (counter word 0 =
 * block, ...): bit i % 32 of keep[i / 32] is decision i. counter[] as cpu_dropout_row() gives it.
 * Consecutive decisions are the 16-bit lanes of a counter's four words, so the results are put in
 * counter order first (a 4x4 transposition of words).
 */
static inline void philox_keep128_avx512(uint64_t key, uint32_t block, const uint32_t counter[3],
                                         uint32_t threshold, __mmask32 keep[4])
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i limit = _mm512_set1_epi16((short)threshold);
    __m512i v[4];
    philox16_avx512(key, _mm512_add_epi32(_mm512_set1_epi32((int)block), lane),
                    _mm512_set1_epi32((int)counter[0]), _mm512_set1_epi32((int)counter[1]),
                    _mm512_set1_epi32((int)counter[2]), v);
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    __m512i q0 = _mm512_unpacklo_epi64(a, c),
            q1 = _mm512_unpackhi_epi64(a, c); /* 128-bit lane l: counters 4l, 4l+1 */
    __m512i q2 = _mm512_unpacklo_epi64(b, d),
            q3 = _mm512_unpackhi_epi64(b, d); /* counters 4l+2, 4l+3 */
    __m512i q01a = _mm512_shuffle_i32x4(q0, q1, 0x44), q01b = _mm512_shuffle_i32x4(q0, q1, 0xEE);
    __m512i q23a = _mm512_shuffle_i32x4(q2, q3, 0x44), q23b = _mm512_shuffle_i32x4(q2, q3, 0xEE);
    /* q01a = counters 0, 4, 1, 5; q23a = 2, 6, 3, 7; want 0, 1, 2, 3 | 4, 5, 6, 7 */
    keep[0] = _mm512_cmpge_epu16_mask(_mm512_shuffle_i32x4(q01a, q23a, 0x88), limit);
    keep[1] = _mm512_cmpge_epu16_mask(_mm512_shuffle_i32x4(q01a, q23a, 0xDD), limit);
    keep[2] = _mm512_cmpge_epu16_mask(_mm512_shuffle_i32x4(q01b, q23b, 0x88), limit);
    keep[3] = _mm512_cmpge_epu16_mask(_mm512_shuffle_i32x4(q01b, q23b, 0xDD), limit);
}

/* 16 bfloat16 to float. */
static inline __m512 bf16_load16_avx512(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)), 16));
}

static inline __m512 bf16_maskload16_avx512(__mmask16 m, const uint16_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
}

#ifdef __AVX512BF16__
static inline void bf16_store16_avx512(uint16_t *p, __m512 x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(x));
}

static inline void bf16_maskstore16_avx512(__mmask16 m, uint16_t *p, __m512 x)
{
    _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(x));
}
#endif

#endif
