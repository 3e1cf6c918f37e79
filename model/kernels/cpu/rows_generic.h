/*
 * rows_generic.h - the table of rows.h in plain C, for float; the compiler turns its loops into
 * vectors.
 *
 * ROWS_TABLE names the table. Nothing is contracted or reordered (-ffp-contract=off), so vector
 * body and tail agree; sums have sixteen fixed lanes, combined in a fixed order. Included by
 * rows_c.c and rows_avx2.c.
 */
#include "model/kernels/cpu/activation_tables.h"
#include "model/kernels/cpu/rows.h"

#define LANES 16

/* Sum of the lanes as a tree. */
static float fold(const float lane[LANES])
{
    float a[8];
    for (int i = 0; i < 8; i++)
        a[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        a[i] = a[i] + a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

static void load(int64_t n, const act *x, float *to)
{
    memcpy(to, x, (size_t)n * sizeof *to);
}

static void store(int64_t n, const float *x, act *to)
{
    memcpy(to, x, (size_t)n * sizeof *x);
}

static void keep(const struct cpu_dropout *d, const uint32_t counter[3], uint64_t first, int64_t n,
                 uint8_t *bits)
{
    int64_t shift = (int64_t)(first % 8), bytes = (shift + n + 7) / 8;
    for (int64_t i = 0; i < bytes; i++) {
        struct philox r = philox4x32(d->key, (uint32_t)(first / 8 + (uint64_t)i), counter[0],
                                     counter[1], counter[2]);
        unsigned byte = 0;
        for (unsigned w = 0; w < 4; w++) {
            byte |= (unsigned)((r.v[w] & 0xFFFFu) >= d->threshold) << (2 * w);
            byte |= (unsigned)((r.v[w] >> 16) >= d->threshold) << (2 * w + 1);
        }
        bits[i] = (uint8_t)byte;
    }
    bits[bytes] = 0;
    if (shift > 0) {
        for (int64_t i = 0; i < bytes; i++)
            bits[i] = (uint8_t)((bits[i] | (unsigned)bits[i + 1] << 8) >> shift);
    }
}

static inline bool kept(const uint8_t *bits, int64_t e)
{
    return (bits[e >> 3] >> (e & 7)) & 1;
}

static void drop(int64_t n, const float *x, const uint8_t *bits, float scale, act *to)
{
    float *y = to;
    for (int64_t e = 0; e < n; e++)
        y[e] = kept(bits, e) ? x[e] * scale : 0.0f;
}

static void residual(int64_t n, const act *x, const act *y, const uint8_t *bits, float scale,
                     float *s, act *sum)
{
    const float *a = x, *b = y;
    if (bits == NULL) {
        for (int64_t e = 0; e < n; e++)
            s[e] = a[e] + b[e];
    } else {
        for (int64_t e = 0; e < n; e++)
            s[e] = a[e] + (kept(bits, e) ? b[e] * scale : 0.0f);
    }
    store(n, s, sum);
}

static void gradient(int64_t n, const act *a, const act *b, const uint8_t *bits, float scale,
                     float *g)
{
    const float *p = a, *q = b;
    if (q == NULL) {
        memcpy(g, p, (size_t)n * sizeof *g);
    } else {
        for (int64_t e = 0; e < n; e++)
            g[e] = p[e] + q[e];
    }
    if (bits != NULL)
        drop(n, g, bits, scale, g);
}

static void norm(int64_t n, const float *s, const float *gamma, const float *beta, float eps,
                 const uint8_t *bits, float scale, float *mean, float *rstd, act *out)
{
    float lane[LANES] = {0}, *y = out, count = (float)n;
    int64_t e = 0;
    for (; e + LANES <= n; e += LANES) {
        for (int i = 0; i < LANES; i++)
            lane[i] += s[e + i];
    }
    for (int i = 0; e + i < n; i++)
        lane[i] += s[e + i];
    float m = fold(lane) / count;
    memset(lane, 0, sizeof lane);
    for (e = 0; e + LANES <= n; e += LANES) {
        for (int i = 0; i < LANES; i++)
            lane[i] += (s[e + i] - m) * (s[e + i] - m);
    }
    for (int i = 0; e + i < n; i++)
        lane[i] += (s[e + i] - m) * (s[e + i] - m);
    float r = 1.0f / sqrtf(fold(lane) / count + eps);
    *mean = m;
    *rstd = r;
    for (e = 0; e < n; e++)
        y[e] = (s[e] - m) * r * gamma[e] + beta[e];
    if (bits != NULL)
        drop(n, y, bits, scale, y);
}

static void norm_backward(int64_t n, const act *sum, float mean, float rstd, const float *gamma,
                          float *g, float *dgamma, float *dbeta)
{
    const float *x = sum;
    float lane[LANES] = {0}, dot[LANES] = {0};
    for (int64_t e = 0; e < n; e++) {
        dgamma[e] += g[e] * ((x[e] - mean) * rstd);
        dbeta[e] += g[e];
        g[e] *= gamma[e];
    }
    int64_t e = 0;
    for (; e + LANES <= n; e += LANES) {
        for (int i = 0; i < LANES; i++) {
            lane[i] += g[e + i];
            dot[i] += g[e + i] * ((x[e + i] - mean) * rstd);
        }
    }
    for (int i = 0; e + i < n; i++) {
        lane[i] += g[e + i];
        dot[i] += g[e + i] * ((x[e + i] - mean) * rstd);
    }
    float a = fold(lane) / (float)n, b = fold(dot) / (float)n;
    for (e = 0; e < n; e++)
        g[e] = rstd * (g[e] - a - (x[e] - mean) * rstd * b);
}

static void add(int64_t n, const float *x, float *to)
{
    for (int64_t e = 0; e < n; e++)
        to[e] += x[e];
}

static void zero(int64_t n, float *to)
{
    memset(to, 0, (size_t)n * sizeof *to);
}

static inline float polynomial(const float *c, int terms, float t)
{
    float r = c[0];
    for (int i = 1; i < terms; i++)
        r = r * t + c[i];
    return r;
}

static inline float gelu(float x)
{
    float phi = 0.5f + x * polynomial(gelu_value, GELU_VALUE_TERMS, x * x * GELU_SCALE - 1.0f);
    phi = x > GELU_LIMIT ? 1.0f : phi;
    phi = x < -GELU_LIMIT ? 0.0f : phi;
    return x * phi;
}

static inline float gelu_gradient(float x)
{
    float d = 0.5f + x * polynomial(gelu_slope, GELU_SLOPE_TERMS, x * x * GELU_SCALE - 1.0f);
    d = x > GELU_LIMIT ? 1.0f : d;
    return x < -GELU_LIMIT ? 0.0f : d;
}

/* 1 / (1 + exp(-x)); 2^n through the exponent's bits, n by adding 1.5 * 2^23. */
static inline float sigmoid(float x)
{
    float t = x * -1.44269504f;
    t = t > 126.0f ? 126.0f : t;
    t = t < -126.0f ? -126.0f : t;
    float whole = t + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &whole, sizeof bits);
    float p = polynomial(exp2_terms, EXP2_TERMS, t - (whole - 12582912.0f)), power;
    bits = (bits - 0x4B400000 + 127) * (1 << 23);
    memcpy(&power, &bits, sizeof power);
    return 1.0f / (1.0f + p * power);
}

#define TANH_A 1.59576912f /* 2 sqrt(2 / pi) */
#define TANH_B 0.044715f

static inline float gelu_tanh(float x)
{
    return x * sigmoid(TANH_A * (x + TANH_B * x * x * x));
}

static inline float gelu_tanh_gradient(float x)
{
    float s = sigmoid(TANH_A * (x + TANH_B * x * x * x));
    return s + x * s * (1.0f - s) * (TANH_A * (1.0f + 3.0f * TANH_B * x * x));
}

static void activate(enum activation kind, int64_t n, const act *x, act *y)
{
    const float *a = x;
    float *b = y;
    if (kind == ACTIVATION_GELU) {
        for (int64_t e = 0; e < n; e++)
            b[e] = gelu(a[e]);
    } else if (kind == ACTIVATION_GELU_TANH) {
        for (int64_t e = 0; e < n; e++)
            b[e] = gelu_tanh(a[e]);
    } else {
        for (int64_t e = 0; e < n; e++)
            b[e] = a[e] > 0.0f ? a[e] : 0.0f;
    }
}

static void activate_backward(enum activation kind, int64_t n, const act *x, const act *dy, act *dx)
{
    const float *a = x, *g = dy;
    float *b = dx;
    if (kind == ACTIVATION_GELU) {
        for (int64_t e = 0; e < n; e++)
            b[e] = g[e] * gelu_gradient(a[e]);
    } else if (kind == ACTIVATION_GELU_TANH) {
        for (int64_t e = 0; e < n; e++)
            b[e] = g[e] * gelu_tanh_gradient(a[e]);
    } else {
        for (int64_t e = 0; e < n; e++)
            b[e] = a[e] > 0.0f ? g[e] : 0.0f;
    }
}

static void adamw(const struct adamw_step *s, int64_t n, const float *restrict gradient,
                  float *restrict w, float *restrict m, float *restrict v)
{
    float c1 = 1.0f - s->beta1, c2 = 1.0f - s->beta2;
    for (int64_t e = 0; e < n; e++) {
        float g = gradient[e] * s->clip;
        m[e] = m[e] * s->beta1 + g * c1;
        v[e] = v[e] * s->beta2 + g * g * c2;
        w[e] = w[e] * s->keep - s->rate * (m[e] / (sqrtf(v[e]) * s->correction + s->eps));
    }
}

static double square_sum(int64_t n, const float *x)
{
    double lane[LANES] = {0};
    int64_t e = 0;
    for (; e + LANES <= n; e += LANES) {
        for (int i = 0; i < LANES; i++)
            lane[i] += (double)x[e + i] * (double)x[e + i];
    }
    for (int i = 0; e + i < n; i++)
        lane[i] += (double)x[e + i] * (double)x[e + i];
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    }
    return lane[0];
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
