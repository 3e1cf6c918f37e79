/*
 * rows_simd.h - the table of rows.h with AVX-512, for the element type its includer names (ELEMENT,
 * LOAD, STORE, ...).
 *
 * Every loop is written once, for 16 lanes and a mask: whole vectors pass a constant full mask,
 * which the compiler drops, and the tail passes its own, so both do the same arithmetic. Sums use
 * four vectors, combined in a fixed order.
 */
#include "model/kernels/cpu/activation_tables.h"
#include "model/kernels/cpu/rows.h"
#include "model/kernels/cpu/simd_avx512.h"

#define INLINE static inline __attribute__((always_inline))
#define FULL ((__mmask16)0xFFFF)

/* Run body for e = 0, 16, ... with m the lanes that exist; `full` is constant in each copy. */
#define FOR_LANES(n, body)                                                                         \
    do {                                                                                           \
        int64_t e = 0;                                                                             \
        for (; e + 16 <= (n); e += 16) {                                                           \
            const __mmask16 m = FULL;                                                              \
            body                                                                                   \
        }                                                                                          \
        if (e < (n)) {                                                                             \
            const __mmask16 m = (__mmask16)((1u << ((n)-e)) - 1u);                                 \
            body                                                                                   \
        }                                                                                          \
    } while (0)

INLINE __m512 get(const ELEMENT *p, __mmask16 m)
{
    return m == FULL ? LOAD(p) : MASK_LOAD(m, p);
}

INLINE void put(ELEMENT *p, __mmask16 m, __m512 x)
{
    if (m == FULL)
        STORE(p, x);
    else
        MASK_STORE(p, m, x);
}

INLINE __m512 get_float(const float *p, __mmask16 m)
{
    return m == FULL ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(m, p);
}

INLINE void put_float(float *p, __mmask16 m, __m512 x)
{
    if (m == FULL)
        _mm512_storeu_ps(p, x);
    else
        _mm512_mask_storeu_ps(p, m, x);
}

INLINE __mmask16 kept(const uint8_t *bits, int64_t e)
{
    uint16_t m;
    memcpy(&m, bits + (e >> 3), sizeof m);
    return (__mmask16)m;
}

static void load(int64_t n, const act *x, float *to)
{
    const ELEMENT *a = x;
    FOR_LANES(n, { put_float(to + e, m, get(a + e, m)); });
}

static void store(int64_t n, const float *x, act *to)
{
    ELEMENT *y = to;
    FOR_LANES(n, { put(y + e, m, get_float(x + e, m)); });
}

static void keep(const struct cpu_dropout *d, const uint32_t counter[3], uint64_t first, int64_t n,
                 uint8_t *bits)
{
    int64_t shift = (int64_t)(first % 8), bytes = (shift + n + 7) / 8, i = 0;
    for (; i < bytes; i += 16) {
        __mmask32 mask[4];
        philox_keep128_avx512(d->key, (uint32_t)(first / 8 + (uint64_t)i), counter, d->threshold,
                              mask);
        memcpy(bits + i, mask, sizeof mask);
    }
    if (shift > 0) {
        for (i = 0; i < bytes; i++)
            bits[i] = (uint8_t)((bits[i] | (unsigned)bits[i + 1] << 8) >> shift);
    }
}

static void drop(int64_t n, const float *x, const uint8_t *bits, float scale, act *to)
{
    const __m512 by = _mm512_set1_ps(scale);
    ELEMENT *y = to;
    FOR_LANES(n, { put(y + e, m, _mm512_maskz_mul_ps(kept(bits, e), get_float(x + e, m), by)); });
}

static void residual(int64_t n, const act *x, const act *y, const uint8_t *bits, float scale,
                     float *s, act *sum)
{
    const __m512 by = _mm512_set1_ps(scale);
    const ELEMENT *a = x, *b = y;
    ELEMENT *out = sum;
    if (bits == NULL) {
        FOR_LANES(n, {
            __m512 v = _mm512_add_ps(get(a + e, m), get(b + e, m));
            put_float(s + e, m, v);
            put(out + e, m, v);
        });
    } else {
        FOR_LANES(n, {
            __m512 v =
                _mm512_add_ps(get(a + e, m), _mm512_maskz_mul_ps(kept(bits, e), get(b + e, m), by));
            put_float(s + e, m, v);
            put(out + e, m, v);
        });
    }
}

static void gradient(int64_t n, const act *a, const act *b, const uint8_t *bits, float scale,
                     float *g)
{
    const __m512 by = _mm512_set1_ps(scale);
    const ELEMENT *p = a, *q = b;
    FOR_LANES(n, {
        __m512 v = get(p + e, m);
        if (q != NULL)
            v = _mm512_add_ps(v, get(q + e, m));
        if (bits != NULL)
            v = _mm512_maskz_mul_ps(kept(bits, e), v, by);
        put_float(g + e, m, v);
    });
}

/* Sums of a line: vector i of it goes to sum i % 4. */
INLINE float fold(const __m512 s[4])
{
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])));
}

static void norm(int64_t n, const float *s, const float *gamma, const float *beta, float eps,
                 const uint8_t *bits, float scale, float *mean, float *rstd, act *out)
{
    __m512 sum[4], square[4];
    ELEMENT *y = out;
    int64_t e;
    for (int i = 0; i < 4; i++)
        sum[i] = square[i] = _mm512_setzero_ps();
    for (e = 0; e + 64 <= n; e += 64) {
        for (int i = 0; i < 4; i++)
            sum[i] = _mm512_add_ps(sum[i], _mm512_loadu_ps(s + e + 16 * i));
    }
    for (int i = 0; e < n; i++, e += 16) {
        __mmask16 m = (__mmask16)(n - e >= 16 ? 0xFFFFu : (1u << (n - e)) - 1u);
        sum[i] = _mm512_add_ps(sum[i], _mm512_maskz_loadu_ps(m, s + e));
    }
    float average = fold(sum) / (float)n;
    const __m512 mu = _mm512_set1_ps(average);
    for (e = 0; e + 64 <= n; e += 64) {
        for (int i = 0; i < 4; i++) {
            __m512 v = _mm512_sub_ps(_mm512_loadu_ps(s + e + 16 * i), mu);
            square[i] = _mm512_fmadd_ps(v, v, square[i]);
        }
    }
    for (int i = 0; e < n; i++, e += 16) {
        __mmask16 m = (__mmask16)(n - e >= 16 ? 0xFFFFu : (1u << (n - e)) - 1u);
        __m512 v = _mm512_maskz_sub_ps(m, _mm512_maskz_loadu_ps(m, s + e), mu);
        square[i] = _mm512_fmadd_ps(v, v, square[i]);
    }
    float inverse = 1.0f / sqrtf(fold(square) / (float)n + eps);
    const __m512 by = _mm512_set1_ps(inverse), rescale = _mm512_set1_ps(scale);
    *mean = average;
    *rstd = inverse;
    FOR_LANES(n, {
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(get_float(s + e, m), mu), by);
        v = _mm512_fmadd_ps(v, get_float(gamma + e, m), get_float(beta + e, m));
        if (bits != NULL)
            v = _mm512_maskz_mul_ps(kept(bits, e), v, rescale);
        put(y + e, m, v);
    });
}

static void norm_backward(int64_t n, const act *sum, float mean, float rstd, const float *gamma,
                          float *g, float *dgamma, float *dbeta)
{
    const ELEMENT *x = sum;
    const __m512 mu = _mm512_set1_ps(mean), by = _mm512_set1_ps(rstd);
    __m512 total[4], dot[4];
    for (int i = 0; i < 4; i++)
        total[i] = dot[i] = _mm512_setzero_ps();
#define STEP_BACKWARD(i, m)                                                                        \
    do {                                                                                           \
        __m512 hat = _mm512_mul_ps(_mm512_sub_ps(get(x + e, m), mu), by), v = get_float(g + e, m); \
        put_float(dgamma + e, m, _mm512_fmadd_ps(v, hat, get_float(dgamma + e, m)));               \
        put_float(dbeta + e, m, _mm512_add_ps(v, get_float(dbeta + e, m)));                        \
        v = _mm512_mul_ps(v, get_float(gamma + e, m));                                             \
        put_float(g + e, m, v);                                                                    \
        total[i] = _mm512_add_ps(total[i], v);                                                     \
        dot[i] = _mm512_fmadd_ps(v, hat, dot[i]); /* lanes that do not exist add 0 */              \
    } while (0)
    int64_t e = 0;
    for (int64_t whole = n / 64 * 64; e < whole;) {
        STEP_BACKWARD(0, FULL);
        e += 16;
        STEP_BACKWARD(1, FULL);
        e += 16;
        STEP_BACKWARD(2, FULL);
        e += 16;
        STEP_BACKWARD(3, FULL);
        e += 16;
    }
    for (int i = 0; e < n; i++, e += 16) {
        __mmask16 m = (__mmask16)(n - e >= 16 ? 0xFFFFu : (1u << (n - e)) - 1u);
        STEP_BACKWARD(i, m);
    }
#undef STEP_BACKWARD
    const __m512 a = _mm512_set1_ps(fold(total) / (float)n),
                 b = _mm512_set1_ps(fold(dot) / (float)n);
    FOR_LANES(n, {
        __m512 hat = _mm512_mul_ps(_mm512_sub_ps(get(x + e, m), mu), by);
        __m512 v = _mm512_fnmadd_ps(hat, b, _mm512_sub_ps(get_float(g + e, m), a));
        put_float(g + e, m, _mm512_mul_ps(v, by));
    });
}

static void add(int64_t n, const float *x, float *to)
{
    FOR_LANES(n,
              { put_float(to + e, m, _mm512_add_ps(get_float(to + e, m), get_float(x + e, m))); });
}

static void zero(int64_t n, float *to)
{
    int64_t e = 0, first = (int64_t)((64 - ((uintptr_t)to & 63)) & 63) / (int64_t)sizeof *to;
    for (; e < n && e < first; e++)
        to[e] = 0.0f;
    for (; e + 16 <= n; e += 16)
        _mm512_stream_ps(to + e, _mm512_setzero_ps());
    for (; e < n; e++)
        to[e] = 0.0f;
    _mm_sfence(); /* before other threads may read them */
}

INLINE __m512 polynomial(const float *c, int terms, __m512 t)
{
    __m512 r = _mm512_set1_ps(c[0]);
#pragma GCC unroll 20
    for (int i = 1; i < terms; i++)
        r = _mm512_fmadd_ps(r, t, _mm512_set1_ps(c[i]));
    return r;
}

/* 1/2 + x P(t), but 0 below -limit and 1 above. NaN stays NaN. */
INLINE __m512 between(__m512 x, const float *c, int terms)
{
    const __m512 limit = _mm512_set1_ps(GELU_LIMIT);
    __m512 t =
        _mm512_fmsub_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(GELU_SCALE), _mm512_set1_ps(1.0f));
    __m512 v = _mm512_fmadd_ps(x, polynomial(c, terms, t), _mm512_set1_ps(0.5f));
    v = _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), _mm512_set1_ps(1.0f));
    return _mm512_mask_mov_ps(
        v, _mm512_cmp_ps_mask(x, _mm512_sub_ps(_mm512_setzero_ps(), limit), _CMP_LT_OQ),
        _mm512_setzero_ps());
}

INLINE __m512 gelu(__m512 x)
{
    return _mm512_mul_ps(x, between(x, gelu_value, GELU_VALUE_TERMS));
}

INLINE __m512 gelu_gradient(__m512 x)
{
    return between(x, gelu_slope, GELU_SLOPE_TERMS);
}

INLINE __m512 sigmoid(__m512 x)
{
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    t = _mm512_min_ps(_mm512_max_ps(t, _mm512_set1_ps(-126.0f)), _mm512_set1_ps(126.0f));
    __m512 whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_scalef_ps(polynomial(exp2_terms, EXP2_TERMS, _mm512_sub_ps(t, whole)), whole);
    return _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(_mm512_set1_ps(1.0f), p));
}

#define TANH_A 1.59576912f /* 2 sqrt(2 / pi) */
#define TANH_B 0.044715f

/* x^2 and the argument of the sigmoid, A x (1 + B x^2). */
INLINE __m512 tanh_argument(__m512 x, __m512 xx)
{
    __m512 v = _mm512_fmadd_ps(xx, _mm512_set1_ps(TANH_B), _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(_mm512_mul_ps(x, v), _mm512_set1_ps(TANH_A));
}

INLINE __m512 gelu_tanh(__m512 x)
{
    return _mm512_mul_ps(x, sigmoid(tanh_argument(x, _mm512_mul_ps(x, x))));
}

INLINE __m512 gelu_tanh_gradient(__m512 x)
{
    __m512 xx = _mm512_mul_ps(x, x), s = sigmoid(tanh_argument(x, xx));
    __m512 slope =
        _mm512_fmadd_ps(xx, _mm512_set1_ps(3.0f * TANH_A * TANH_B), _mm512_set1_ps(TANH_A));
    __m512 v = _mm512_mul_ps(_mm512_mul_ps(x, s), _mm512_sub_ps(_mm512_set1_ps(1.0f), s));
    return _mm512_fmadd_ps(v, slope, s);
}

static void activate(enum activation kind, int64_t n, const act *x, act *y)
{
    const ELEMENT *a = x;
    ELEMENT *b = y;
    if (kind == ACTIVATION_GELU)
        FOR_LANES(n, { put(b + e, m, gelu(get(a + e, m))); });
    else if (kind == ACTIVATION_GELU_TANH)
        FOR_LANES(n, { put(b + e, m, gelu_tanh(get(a + e, m))); });
    else
        FOR_LANES(n, { put(b + e, m, _mm512_max_ps(get(a + e, m), _mm512_setzero_ps())); });
}

static void activate_backward(enum activation kind, int64_t n, const act *x, const act *dy, act *dx)
{
    const ELEMENT *a = x, *g = dy;
    ELEMENT *b = dx;
    if (kind == ACTIVATION_GELU)
        FOR_LANES(n,
                  { put(b + e, m, _mm512_mul_ps(get(g + e, m), gelu_gradient(get(a + e, m)))); });
    else if (kind == ACTIVATION_GELU_TANH)
        FOR_LANES(
            n, { put(b + e, m, _mm512_mul_ps(get(g + e, m), gelu_tanh_gradient(get(a + e, m)))); });
    else
        FOR_LANES(n, {
            __mmask16 positive = _mm512_cmp_ps_mask(get(a + e, m), _mm512_setzero_ps(), _CMP_GT_OQ);
            put(b + e, m, _mm512_maskz_mov_ps(positive, get(g + e, m)));
        });
}

static void adamw(const struct adamw_step *s, int64_t n, const float *gradient, float *w,
                  float *first, float *second)
{
    const __m512 clip = _mm512_set1_ps(s->clip), b1 = _mm512_set1_ps(s->beta1),
                 b2 = _mm512_set1_ps(s->beta2);
    const __m512 c1 = _mm512_set1_ps(1.0f - s->beta1), c2 = _mm512_set1_ps(1.0f - s->beta2);
    const __m512 keep_part = _mm512_set1_ps(s->keep), rate = _mm512_set1_ps(s->rate);
    const __m512 correction = _mm512_set1_ps(s->correction), eps = _mm512_set1_ps(s->eps);
    FOR_LANES(n, {
        __m512 g = _mm512_mul_ps(get_float(gradient + e, m), clip);
        __m512 mean = _mm512_fmadd_ps(get_float(first + e, m), b1, _mm512_mul_ps(g, c1));
        __m512 square =
            _mm512_fmadd_ps(get_float(second + e, m), b2, _mm512_mul_ps(_mm512_mul_ps(g, g), c2));
        __m512 step = _mm512_div_ps(mean, _mm512_fmadd_ps(_mm512_sqrt_ps(square), correction, eps));
        put_float(first + e, m, mean);
        put_float(second + e, m, square);
        put_float(w + e, m,
                  _mm512_fnmadd_ps(rate, step, _mm512_mul_ps(get_float(w + e, m), keep_part)));
    });
}

static double square_sum(int64_t n, const float *x)
{
    __m512d s[4];
    int64_t e = 0;
    for (int i = 0; i < 4; i++)
        s[i] = _mm512_setzero_pd();
    for (; e + 32 <= n; e += 32) {
        for (int i = 0; i < 4; i++) {
            __m512d v = _mm512_cvtps_pd(_mm256_loadu_ps(x + e + 8 * i));
            s[i] = _mm512_fmadd_pd(v, v, s[i]);
        }
    }
    for (int i = 0; e < n; i++, e += 8) {
        __mmask8 m = (__mmask8)(n - e >= 8 ? 0xFFu : (1u << (n - e)) - 1u);
        __m512d v = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(m, x + e));
        s[i] = _mm512_fmadd_pd(v, v, s[i]);
    }
    return _mm512_reduce_add_pd(
        _mm512_add_pd(_mm512_add_pd(s[0], s[1]), _mm512_add_pd(s[2], s[3])));
}

const struct cpu_rows ROWS_TABLE = {
    .load = load,
    .store = store,
    .keep = keep,
    .drop = drop,
    .residual = residual,
    .gradient = gradient,
    .norm = norm,
    .norm_backward = norm_backward,
    .add = add,
    .zero = zero,
    .activate = activate,
    .activate_backward = activate_backward,
    .adamw = adamw,
    .square_sum = square_sum,
};
