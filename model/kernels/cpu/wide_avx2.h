/*
 * wide_avx2.h - the operations of AVX-512 that our kernels use, by two registers of AVX2 each.
 *
 * attention_f32_avx2.c includes it before attention_simd.h, which then computes with AVX2; tests
 * include it before all files for AVX-512, so that these run on machines without it
 * (tests/support/avx512). Names of types and operations are those of immintrin.h, whose own are
 * hidden. All four types of 512 bits are one here. Results are those of the instructions, except
 * that scalef's and reduce's subnormal results are zero, and that products of bfloat16 keep
 * subnormal numbers.
 *
 * Only operations that are used are here, with the arguments that they are used with.
 */
#ifndef COHORT_MODEL_KERNELS_CPU_WIDE_AVX2_H
#define COHORT_MODEL_KERNELS_CPU_WIDE_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#undef WIDE
#define WIDE static inline __attribute__((always_inline, unused))

#undef _mm512_setr_epi32 /* the compiler's are macros, too */
#undef _mm512_setr_epi64
#undef _mm512_roundscale_ps

typedef struct {
    __m256i lo, hi;
} wide512;

#define __m512 wide512
#define __m512i wide512
#define __m512d wide512
#define __m512bh wide512

WIDE wide512 wide_ps(__m256 lo, __m256 hi)
{
    return (wide512){_mm256_castps_si256(lo), _mm256_castps_si256(hi)};
}

WIDE wide512 wide_pd(__m256d lo, __m256d hi)
{
    return (wide512){_mm256_castpd_si256(lo), _mm256_castpd_si256(hi)};
}

#define WIDE_LO(x) _mm256_castsi256_ps((x).lo)
#define WIDE_HI(x) _mm256_castsi256_ps((x).hi)
#define WIDE_LO_PD(x) _mm256_castsi256_pd((x).lo)
#define WIDE_HI_PD(x) _mm256_castsi256_pd((x).hi)

/* ---- masks: all bits of a lane, from bits 0-7 */

WIDE __m256i wide_lanes(unsigned m)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)m), bit), bit);
}

WIDE wide512 wide_mask(__mmask16 m)
{
    return (wide512){wide_lanes(m & 0xFFu), wide_lanes((unsigned)m >> 8)};
}

WIDE __m256i wide_keep(__m256i mask, __m256i x)
{
    return _mm256_and_si256(mask, x);
}

/* m ? b : a */
WIDE __m256i wide_choose(__m256i m, __m256i a, __m256i b)
{
    return _mm256_blendv_epi8(a, b, m);
}

WIDE wide512 wide_mask_mov(wide512 a, __mmask16 k, wide512 b)
{
    const wide512 m = wide_mask(k);
    return (wide512){wide_choose(m.lo, a.lo, b.lo), wide_choose(m.hi, a.hi, b.hi)};
}
#define _mm512_mask_mov_ps(a, k, b) wide_mask_mov(a, k, b)
#define _mm512_mask_blend_ps(k, a, b) wide_mask_mov(a, k, b)

WIDE wide512 wide_maskz_mov(__mmask16 k, wide512 a)
{
    const wide512 m = wide_mask(k);
    return (wide512){wide_keep(m.lo, a.lo), wide_keep(m.hi, a.hi)};
}
#define _mm512_maskz_mov_ps(k, a) wide_maskz_mov(k, a)

/* ---- constants */

WIDE wide512 wide_set1(int x)
{
    return (wide512){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
#define _mm512_set1_epi32(x) wide_set1(x)

WIDE wide512 wide_set1_ps(float x)
{
    return wide_ps(_mm256_set1_ps(x), _mm256_set1_ps(x));
}
#define _mm512_set1_ps(x) wide_set1_ps(x)

WIDE wide512 wide_set1_16(short x)
{
    return (wide512){_mm256_set1_epi16(x), _mm256_set1_epi16(x)};
}
#define _mm512_set1_epi16(x) wide_set1_16(x)

WIDE wide512 wide_set1_64(long long x)
{
    return (wide512){_mm256_set1_epi64x(x), _mm256_set1_epi64x(x)};
}
#define _mm512_set1_epi64(x) wide_set1_64(x)

WIDE wide512 wide_zero(void)
{
    return (wide512){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
#define _mm512_setzero_ps() wide_zero()
#define _mm512_setzero_pd() wide_zero()
#define _mm512_setzero_si512() wide_zero()

#define _mm512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                          \
    ((wide512){_mm256_setr_epi32(a, b, c, d, e, f, g, h),                                          \
               _mm256_setr_epi32(i, j, k, l, m, n, o, p)})
#define _mm512_set_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                           \
    ((wide512){_mm256_set_epi32(i, j, k, l, m, n, o, p), _mm256_set_epi32(a, b, c, d, e, f, g, h)})
#define _mm512_setr_epi64(a, b, c, d, e, f, g, h)                                                  \
    ((wide512){_mm256_setr_epi64x(a, b, c, d), _mm256_setr_epi64x(e, f, g, h)})

/* ---- memory */

WIDE wide512 wide_load(const void *p)
{
    const __m256i *q = p;
    return (wide512){_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
#define _mm512_load_ps(p) wide_load(p)
#define _mm512_loadu_ps(p) wide_load(p)
#define _mm512_load_si512(p) wide_load(p)
#define _mm512_loadu_si512(p) wide_load(p)

WIDE void wide_store(void *p, wide512 x)
{
    __m256i *q = p;
    _mm256_storeu_si256(q, x.lo);
    _mm256_storeu_si256(q + 1, x.hi);
}
#define _mm512_store_ps(p, x) wide_store(p, x)
#define _mm512_storeu_ps(p, x) wide_store(p, x)
#define _mm512_store_si512(p, x) wide_store(p, x)
#define _mm512_storeu_si512(p, x) wide_store(p, x)
#define _mm512_stream_ps(p, x) wide_store(p, x)

WIDE wide512 wide_maskz_load(__mmask16 k, const void *p)
{
    const wide512 m = wide_mask(k);
    const int *q = p;
    return (wide512){_mm256_maskload_epi32(q, m.lo), _mm256_maskload_epi32(q + 8, m.hi)};
}
#define _mm512_maskz_loadu_ps(k, p) wide_maskz_load(k, p)
#define _mm512_maskz_loadu_epi32(k, p) wide_maskz_load(k, p)

WIDE void wide_mask_store(void *p, __mmask16 k, wide512 x)
{
    const wide512 m = wide_mask(k);
    int *q = p;
    _mm256_maskstore_epi32(q, m.lo, x.lo);
    _mm256_maskstore_epi32(q + 8, m.hi, x.hi);
}
#define _mm512_mask_storeu_ps(p, k, x) wide_mask_store(p, k, x)

WIDE wide512 wide_gather(wide512 other, __mmask16 k, wide512 at, const float *p)
{
    const wide512 m = wide_mask(k);
    return wide_ps(_mm256_mask_i32gather_ps(WIDE_LO(other), p, at.lo, WIDE_LO(m), 4),
                   _mm256_mask_i32gather_ps(WIDE_HI(other), p, at.hi, WIDE_HI(m), 4));
}
#define _mm512_mask_i32gather_ps(other, k, at, p, scale) wide_gather(other, k, at, p)

/* ---- float */

#define WIDE_BINARY(name, operation)                                                               \
    WIDE wide512 name(wide512 a, wide512 b)                                                        \
    {                                                                                              \
        return wide_ps(operation(WIDE_LO(a), WIDE_LO(b)), operation(WIDE_HI(a), WIDE_HI(b)));      \
    }
WIDE_BINARY(wide_add_ps, _mm256_add_ps)
WIDE_BINARY(wide_sub_ps, _mm256_sub_ps)
WIDE_BINARY(wide_mul_ps, _mm256_mul_ps)
WIDE_BINARY(wide_div_ps, _mm256_div_ps)
WIDE_BINARY(wide_max_ps, _mm256_max_ps)
WIDE_BINARY(wide_min_ps, _mm256_min_ps)
#define _mm512_add_ps(a, b) wide_add_ps(a, b)
#define _mm512_sub_ps(a, b) wide_sub_ps(a, b)
#define _mm512_mul_ps(a, b) wide_mul_ps(a, b)
#define _mm512_div_ps(a, b) wide_div_ps(a, b)
#define _mm512_max_ps(a, b) wide_max_ps(a, b)
#define _mm512_min_ps(a, b) wide_min_ps(a, b)
#define _mm512_maskz_mul_ps(k, a, b) wide_maskz_mov(k, wide_mul_ps(a, b))
#define _mm512_maskz_sub_ps(k, a, b) wide_maskz_mov(k, wide_sub_ps(a, b))
#define _mm512_mask_max_ps(other, k, a, b) wide_mask_mov(other, k, wide_max_ps(a, b))

#define WIDE_TERNARY(name, operation)                                                              \
    WIDE wide512 name(wide512 a, wide512 b, wide512 c)                                             \
    {                                                                                              \
        return wide_ps(operation(WIDE_LO(a), WIDE_LO(b), WIDE_LO(c)),                              \
                       operation(WIDE_HI(a), WIDE_HI(b), WIDE_HI(c)));                             \
    }
WIDE_TERNARY(wide_fmadd_ps, _mm256_fmadd_ps)
WIDE_TERNARY(wide_fmsub_ps, _mm256_fmsub_ps)
WIDE_TERNARY(wide_fnmadd_ps, _mm256_fnmadd_ps)
#define _mm512_fmadd_ps(a, b, c) wide_fmadd_ps(a, b, c)
#define _mm512_fmsub_ps(a, b, c) wide_fmsub_ps(a, b, c)
#define _mm512_fnmadd_ps(a, b, c) wide_fnmadd_ps(a, b, c)
#define _mm512_mask3_fmadd_ps(a, b, c, k) wide_mask_mov(c, k, wide_fmadd_ps(a, b, c))

WIDE wide512 wide_sqrt_ps(wide512 a)
{
    return wide_ps(_mm256_sqrt_ps(WIDE_LO(a)), _mm256_sqrt_ps(WIDE_HI(a)));
}
#define _mm512_sqrt_ps(a) wide_sqrt_ps(a)

#define _mm512_cmp_ps_mask(a, b, how)                                                              \
    ((__mmask16)((unsigned)_mm256_movemask_ps(_mm256_cmp_ps(WIDE_LO(a), WIDE_LO(b), how)) |        \
                 (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(WIDE_HI(a), WIDE_HI(b), how)) << 8))

#define _mm512_roundscale_ps(a, how)                                                               \
    wide_ps(_mm256_round_ps(WIDE_LO(a), (how)), _mm256_round_ps(WIDE_HI(a), (how)))

/* a 2^n for a whole number n; 0 for n below -126. */
WIDE __m256 wide_scale(__m256 a, __m256 n)
{
    n = _mm256_max_ps(n, _mm256_set1_ps(-127.0f));
    const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

/* x - floor(x): what reduce with 0x09 is. */
WIDE wide512 wide_fraction(wide512 x)
{
    return wide_ps(_mm256_sub_ps(WIDE_LO(x), _mm256_floor_ps(WIDE_LO(x))),
                   _mm256_sub_ps(WIDE_HI(x), _mm256_floor_ps(WIDE_HI(x))));
}
#define _mm512_reduce_ps(x, how) wide_fraction(x)

WIDE wide512 wide_scalef(wide512 a, wide512 b)
{
    return wide_ps(wide_scale(WIDE_LO(a), _mm256_floor_ps(WIDE_LO(b))),
                   wide_scale(WIDE_HI(a), _mm256_floor_ps(WIDE_HI(b))));
}
#define _mm512_scalef_ps(a, b) wide_scalef(a, b)
#define _mm512_maskz_scalef_ps(k, a, b) wide_maskz_mov(k, wide_scalef(a, b))

/* Mantissa in [0.75, 1.5), for normal numbers above 0. */
WIDE __m256i wide_mantissa(__m256i x)
{
    const __m256i fraction = _mm256_and_si256(x, _mm256_set1_epi32(0x007FFFFF));
    const __m256i large = _mm256_cmpgt_epi32(fraction, _mm256_set1_epi32(0x003FFFFF));
    const __m256i one = _mm256_set1_epi32(0x3F800000), half = _mm256_set1_epi32(0x3F000000);
    return _mm256_or_si256(fraction, _mm256_blendv_epi8(one, half, large));
}
WIDE wide512 wide_getmant(wide512 x)
{
    return (wide512){wide_mantissa(x.lo), wide_mantissa(x.hi)};
}
#define _mm512_getmant_ps(x, norm, sign) wide_getmant(x)

WIDE __m256 wide_exponent(__m256i x)
{
    const __m256i e = _mm256_srli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x7F800000)), 23);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(e, _mm256_set1_epi32(127)));
}
WIDE wide512 wide_getexp(wide512 x)
{
    return wide_ps(wide_exponent(x.lo), wide_exponent(x.hi));
}
#define _mm512_getexp_ps(x) wide_getexp(x)

/* In the order of GCC's _mm512_reduce_add_ps(). */
WIDE float wide_reduce_add_ps(wide512 x)
{
    const __m256 a = _mm256_add_ps(WIDE_HI(x), WIDE_LO(x));
    const __m128 b = _mm_add_ps(_mm256_extractf128_ps(a, 1), _mm256_castps256_ps128(a));
    const __m128 c = _mm_add_ps(b, _mm_shuffle_ps(b, b, 0x4E));
    return _mm_cvtss_f32(c) + _mm_cvtss_f32(_mm_shuffle_ps(c, c, 1));
}
#define _mm512_reduce_add_ps(x) wide_reduce_add_ps(x)

/* ---- double */

WIDE wide512 wide_add_pd(wide512 a, wide512 b)
{
    return wide_pd(_mm256_add_pd(WIDE_LO_PD(a), WIDE_LO_PD(b)),
                   _mm256_add_pd(WIDE_HI_PD(a), WIDE_HI_PD(b)));
}
#define _mm512_add_pd(a, b) wide_add_pd(a, b)

WIDE wide512 wide_fmadd_pd(wide512 a, wide512 b, wide512 c)
{
    return wide_pd(_mm256_fmadd_pd(WIDE_LO_PD(a), WIDE_LO_PD(b), WIDE_LO_PD(c)),
                   _mm256_fmadd_pd(WIDE_HI_PD(a), WIDE_HI_PD(b), WIDE_HI_PD(c)));
}
#define _mm512_fmadd_pd(a, b, c) wide_fmadd_pd(a, b, c)

WIDE wide512 wide_cvtps_pd(__m256 x)
{
    return wide_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                   _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
}
#define _mm512_cvtps_pd(x) wide_cvtps_pd(x)

WIDE double wide_reduce_add_pd(wide512 x)
{
    const __m256d a = _mm256_add_pd(WIDE_HI_PD(x), WIDE_LO_PD(x));
    const __m128d b = _mm_add_pd(_mm256_extractf128_pd(a, 1), _mm256_castpd256_pd128(a));
    return _mm_cvtsd_f64(b) + _mm_cvtsd_f64(_mm_unpackhi_pd(b, b));
}
#define _mm512_reduce_add_pd(x) wide_reduce_add_pd(x)

WIDE __m256 wide_maskz_load8(__mmask8 k, const float *p)
{
    return _mm256_castsi256_ps(_mm256_maskload_epi32((const int *)(const void *)p, wide_lanes(k)));
}
#define _mm256_maskz_loadu_ps(k, p) wide_maskz_load8(k, p)

/* ---- integers */

#define WIDE_BINARY_SI(name, operation)                                                            \
    WIDE wide512 name(wide512 a, wide512 b)                                                        \
    {                                                                                              \
        return (wide512){operation(a.lo, b.lo), operation(a.hi, b.hi)};                            \
    }
WIDE_BINARY_SI(wide_add_epi32, _mm256_add_epi32)
WIDE_BINARY_SI(wide_mullo_epi32, _mm256_mullo_epi32)
WIDE_BINARY_SI(wide_mul_epu32, _mm256_mul_epu32)
WIDE_BINARY_SI(wide_and, _mm256_and_si256)
WIDE_BINARY_SI(wide_or, _mm256_or_si256)
WIDE_BINARY_SI(wide_xor, _mm256_xor_si256)
#define _mm512_add_epi32(a, b) wide_add_epi32(a, b)
#define _mm512_mullo_epi32(a, b) wide_mullo_epi32(a, b)
#define _mm512_mul_epu32(a, b) wide_mul_epu32(a, b)
#define _mm512_and_si512(a, b) wide_and(a, b)
#define _mm512_or_si512(a, b) wide_or(a, b)
/* Always used with 0x96: xor of three. */
#define _mm512_ternarylogic_epi32(a, b, c, how) wide_xor(a, wide_xor(b, c))
#define _mm512_ternarylogic_epi64(a, b, c, how) wide_xor(a, wide_xor(b, c))

WIDE wide512 wide_slli(wide512 a, int n)
{
    return (wide512){_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
}
#define _mm512_slli_epi32(a, n) wide_slli(a, n)

WIDE wide512 wide_srli_64(wide512 a, int n)
{
    return (wide512){_mm256_srli_epi64(a.lo, n), _mm256_srli_epi64(a.hi, n)};
}
#define _mm512_srli_epi64(a, n) wide_srli_64(a, n)

#define _mm512_shuffle_epi32(a, how)                                                               \
    ((wide512){_mm256_shuffle_epi32((a).lo, how), _mm256_shuffle_epi32((a).hi, how)})
#define _mm512_mask_shuffle_epi32(other, k, a, how)                                                \
    wide_mask_mov(other, k, _mm512_shuffle_epi32(a, how))

/* Bit i: a[i] >= b[i], 16-bit numbers without sign. */
WIDE __mmask32 wide_cmpge_epu16(wide512 a, wide512 b)
{
    const __m256i lo = _mm256_cmpeq_epi16(_mm256_max_epu16(a.lo, b.lo), a.lo);
    const __m256i hi = _mm256_cmpeq_epi16(_mm256_max_epu16(a.hi, b.hi), a.hi);
    /* packs works in halves of 128 bits: lo0 hi0 lo1 hi1 */
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(lo, hi), 0xD8);
    return (__mmask32)_mm256_movemask_epi8(both);
}
#define _mm512_cmpge_epu16_mask(a, b) wide_cmpge_epu16(a, b)

/* ---- moving parts about */

#define WIDE_UNPACK(name, operation)                                                               \
    WIDE wide512 name(wide512 a, wide512 b)                                                        \
    {                                                                                              \
        return (wide512){operation(a.lo, b.lo), operation(a.hi, b.hi)};                            \
    }
WIDE_UNPACK(wide_unpacklo_16, _mm256_unpacklo_epi16)
WIDE_UNPACK(wide_unpackhi_16, _mm256_unpackhi_epi16)
WIDE_UNPACK(wide_unpacklo_32, _mm256_unpacklo_epi32)
WIDE_UNPACK(wide_unpackhi_32, _mm256_unpackhi_epi32)
WIDE_UNPACK(wide_unpacklo_64, _mm256_unpacklo_epi64)
WIDE_UNPACK(wide_unpackhi_64, _mm256_unpackhi_epi64)
#define _mm512_unpacklo_epi16(a, b) wide_unpacklo_16(a, b)
#define _mm512_unpackhi_epi16(a, b) wide_unpackhi_16(a, b)
#define _mm512_unpacklo_epi32(a, b) wide_unpacklo_32(a, b)
#define _mm512_unpackhi_epi32(a, b) wide_unpackhi_32(a, b)
#define _mm512_unpacklo_ps(a, b) wide_unpacklo_32(a, b)
#define _mm512_unpackhi_ps(a, b) wide_unpackhi_32(a, b)
#define _mm512_unpacklo_epi64(a, b) wide_unpacklo_64(a, b)
#define _mm512_unpackhi_epi64(a, b) wide_unpackhi_64(a, b)
#define _mm512_unpacklo_pd(a, b) wide_unpacklo_64(a, b)
#define _mm512_unpackhi_pd(a, b) wide_unpackhi_64(a, b)

/* Quarters of 128 bits i and j of a, k and l of b; constants. */
WIDE __m256i wide_quarters(wide512 a, int i, int j)
{
    const __m256i x = i < 2 ? a.lo : a.hi, y = j < 2 ? a.lo : a.hi;
    if (i % 2 == 0 && j % 2 == 0)
        return _mm256_permute2x128_si256(x, y, 0x20);
    if (i % 2 == 0)
        return _mm256_permute2x128_si256(x, y, 0x30);
    if (j % 2 == 0)
        return _mm256_permute2x128_si256(x, y, 0x21);
    return _mm256_permute2x128_si256(x, y, 0x31);
}
WIDE wide512 wide_shuffle_quarters(wide512 a, wide512 b, int how)
{
    return (wide512){wide_quarters(a, how & 3, how >> 2 & 3),
                     wide_quarters(b, how >> 4 & 3, how >> 6)};
}
#define _mm512_shuffle_f32x4(a, b, how) wide_shuffle_quarters(a, b, how)
#define _mm512_shuffle_i32x4(a, b, how) wide_shuffle_quarters(a, b, how)

WIDE wide512 wide_insert_quarter(wide512 a, __m128i x, int i)
{
    if (i == 0)
        a.lo = _mm256_inserti128_si256(a.lo, x, 0);
    else if (i == 1)
        a.lo = _mm256_inserti128_si256(a.lo, x, 1);
    else if (i == 2)
        a.hi = _mm256_inserti128_si256(a.hi, x, 0);
    else
        a.hi = _mm256_inserti128_si256(a.hi, x, 1);
    return a;
}
#define _mm512_inserti32x4(a, x, i) wide_insert_quarter(a, x, i)
#define _mm512_castsi128_si512(x) wide_insert_quarter(wide_zero(), x, 0)

WIDE wide512 wide_mask_broadcast(wide512 other, __mmask16 k, __m128i x)
{
    const __m256i both = _mm256_broadcastsi128_si256(x);
    return wide_mask_mov(other, k, (wide512){both, both});
}
#define _mm512_mask_broadcast_i32x4(other, k, x) wide_mask_broadcast(other, k, x)

/* Element at[i] of a (below 16) or b. */
WIDE __m256 wide_pick(wide512 a, __m256i at, wide512 b)
{
    const __m256 a0 = _mm256_permutevar8x32_ps(WIDE_LO(a), at),
                 a1 = _mm256_permutevar8x32_ps(WIDE_HI(a), at),
                 b0 = _mm256_permutevar8x32_ps(WIDE_LO(b), at),
                 b1 = _mm256_permutevar8x32_ps(WIDE_HI(b), at);
    const __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)),
                 second = _mm256_castsi256_ps(_mm256_slli_epi32(at, 27));
    return _mm256_blendv_ps(_mm256_blendv_ps(a0, a1, high), _mm256_blendv_ps(b0, b1, high), second);
}
WIDE wide512 wide_permutex2var(wide512 a, wide512 at, wide512 b)
{
    return wide_ps(wide_pick(a, at.lo, b), wide_pick(a, at.hi, b));
}
#define _mm512_permutex2var_ps(a, at, b) wide_permutex2var(a, at, b)

WIDE wide512 wide_permutexvar_64(wide512 at, wide512 a)
{
    int64_t from[8], index[8], to[8];
    wide_store(from, a);
    wide_store(index, at);
    for (int i = 0; i < 8; i++)
        to[i] = from[index[i] & 7];
    return wide_load(to);
}
#define _mm512_permutexvar_epi64(at, a) wide_permutexvar_64(at, a)

#define _mm512_castsi512_ps(x) (x)
#define _mm512_castps_si512(x) (x)
#define _mm512_castps_pd(x) (x)
#define _mm512_castpd_ps(x) (x)
#define _mm512_castsi512_si256(x) ((x).lo)
#define _mm512_extracti64x4_epi64(x, i) ((i) == 0 ? (x).lo : (x).hi)

/* ---- bfloat16 */

/* Round to nearest, ties to even; in the low halves of 32-bit lanes. NaN becomes quiet, subnormal
 * numbers zero, as VCVTNEPS2BF16 does. */
WIDE __m256i wide_round_bf16(__m256 x)
{
    const __m256i bits = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    __m256i y = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    y = _mm256_blendv_epi8(y, _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000)), nan);
    const __m256i exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7F800000));
    const __m256i tiny = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    y = _mm256_blendv_epi8(y, _mm256_and_si256(bits, _mm256_set1_epi32((int)0x80000000u)), tiny);
    return _mm256_srli_epi32(y, 16);
}

WIDE __m256i wide_cvtneps(wide512 a)
{
    const __m256i both =
        _mm256_packus_epi32(wide_round_bf16(WIDE_LO(a)), wide_round_bf16(WIDE_HI(a)));
    return _mm256_permute4x64_epi64(both, 0xD8);
}
#define _mm512_cvtneps_pbh(a) wide_cvtneps(a)

/* High half: a, low half: b. */
WIDE wide512 wide_cvtne2ps(wide512 a, wide512 b)
{
    return (wide512){wide_cvtneps(b), wide_cvtneps(a)};
}
#define _mm512_cvtne2ps_pbh(a, b) wide_cvtne2ps(a, b)

WIDE wide512 wide_maskz_16(__mmask32 k, wide512 a)
{
    uint16_t x[32];
    wide_store(x, a);
    for (int i = 0; i < 32; i++)
        x[i] = k >> i & 1 ? x[i] : 0;
    return wide_load(x);
}
#define _mm512_maskz_cvtne2ps_pbh(k, a, b) wide_maskz_16(k, wide_cvtne2ps(a, b))

/* sum + odd products, then + even ones, each rounded. */
WIDE wide512 wide_dpbf16(wide512 sum, wide512 a, wide512 b)
{
    const wide512 upper = wide_set1((int)0xFFFF0000u);
    sum = wide_fmadd_ps(wide_and(a, upper), wide_and(b, upper), sum);
    return wide_fmadd_ps(wide_slli(a, 16), wide_slli(b, 16), sum);
}
#define _mm512_dpbf16_ps(sum, a, b) wide_dpbf16(sum, a, b)

WIDE wide512 wide_cvtepu16(__m256i x)
{
    return (wide512){_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x)),
                     _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1))};
}
#define _mm512_cvtepu16_epi32(x) wide_cvtepu16(x)

WIDE wide512 wide_maskz_load_16(__mmask32 k, const void *p)
{
    uint16_t x[32] = {0};
    for (int i = 0; i < 32; i++)
        if (k >> i & 1)
            memcpy(x + i, (const uint16_t *)p + i, sizeof *x);
    return wide_load(x);
}
#define _mm512_maskz_loadu_epi16(k, p) wide_maskz_load_16(k, p)
#define _mm256_maskz_loadu_epi16(k, p) (wide_maskz_load_16((k)&0xFFFFu, p).lo)

WIDE void wide_mask_store_16(void *p, __mmask32 k, wide512 a)
{
    uint16_t x[32];
    wide_store(x, a);
    for (int i = 0; i < 32; i++)
        if (k >> i & 1)
            memcpy((uint16_t *)p + i, x + i, sizeof *x);
}
#define _mm512_mask_storeu_epi16(p, k, a) wide_mask_store_16(p, k, a)
#define _mm256_mask_storeu_epi16(p, k, a) wide_mask_store_16(p, (k)&0xFFFFu, (wide512){a, a})

WIDE wide512 wide_permutex2var_16(wide512 a, wide512 at, wide512 b)
{
    uint16_t from[64], index[32], to[32];
    wide_store(from, a);
    wide_store(from + 32, b);
    wide_store(index, at);
    for (int i = 0; i < 32; i++)
        to[i] = from[index[i] & 63];
    return wide_load(to);
}
#define _mm512_permutex2var_epi16(a, at, b) wide_permutex2var_16(a, at, b)

WIDE wide512 wide_mask_blend_16(__mmask32 k, wide512 a, wide512 b)
{
    uint16_t x[32], y[32];
    wide_store(x, a);
    wide_store(y, b);
    for (int i = 0; i < 32; i++)
        x[i] = k >> i & 1 ? y[i] : x[i];
    return wide_load(x);
}
#define _mm512_mask_blend_epi16(k, a, b) wide_mask_blend_16(k, a, b)

#endif
