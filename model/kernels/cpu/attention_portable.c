/*
 * attention_portable.c - attention in plain C for any CPU, float and bfloat16 (products in float).
 *
 * One query at a time against all keys of its row. K and V are widened to float and transposed once
 * per unit, so that every inner loop runs over neighbouring elements without a running sum, and
 * compilers vectorize it with whatever the CPU has; the order of the sums stays the one written
 * here.
 */
#include "model/kernels/cpu/attention.h"

#define LOG2E 1.44269504088896340736f

/* The polynomial of attention_simd.h; below 2^-126 the result is 2^-126, which no sum notices. */
static inline float power_of_two(float y)
{
    y = y < -126.0f ? -126.0f : y;
    float whole = (y + 12582912.0f) - 12582912.0f; /* nearest, by the rounding of 1.5 * 2^23 */
    whole = whole > y ? whole - 1.0f : whole;
    float f = y - whole, p = 0x1.e97502p-10f;
    p = p * f + 0x1.277854p-7f;
    p = p * f + 0x1.c91ce6p-5f;
    p = p * f + 0x1.ebdb56p-3f;
    p = p * f + 0x1.62e4bap-1f;
    p = p * f + 1.0f;
    union {
        uint32_t bits;
        float value;
    } scale = {.bits = (uint32_t)((int)whole + 127) << 23};
    return p * scale.value;
}

static inline float load(const void *p, int64_t i, bool bf16)
{
    return bf16 ? bf16_to_float(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static inline void store(void *p, int64_t i, float x, bool bf16)
{
    if (bf16)
        ((uint16_t *)p)[i] = bf16_from_float(x);
    else
        ((float *)p)[i] = x;
}

/* keep[j] = 1 or 0 for query i of the row. */
static void draw(float *keep, const struct attention_random *r, int i, int keys)
{
    uint32_t counter = r->first + (uint32_t)i * r->per_query;
    for (int j = 0; j < keys; j += 8, counter++) {
        struct philox x = philox4x32(r->key, counter, r->word[0], r->word[1], r->word[2]);
        for (int e = 0; e < 8 && j + e < keys; e++)
            keep[j + e] = ((x.v[e / 2] >> (16 * (e % 2))) & 0xFFFFu) >= r->threshold ? 1.0f : 0.0f;
    }
}

struct scratch {
    float *k, *kt, *v, *vt, *dk, *dv; /* (keys, d) or, transposed, (d, keys) */
    float *s, *dp, *keep;             /* (keys) */
    float *q, *g, *dq;                /* (d) */
};

static size_t carve(int d, int keys, bool backward, unsigned char *base, struct scratch *f)
{
    size_t at = 0;
    int64_t n = (int64_t)keys * d;
    f->kt = attention_carve(base, &at, n, sizeof(float));
    f->v = attention_carve(base, &at, backward ? 0 : n, sizeof(float));
    f->k = attention_carve(base, &at, backward ? n : 0, sizeof(float));
    f->vt = attention_carve(base, &at, backward ? n : 0, sizeof(float));
    f->dk = attention_carve(base, &at, backward ? n : 0, sizeof(float));
    f->dv = attention_carve(base, &at, backward ? n : 0, sizeof(float));
    f->s = attention_carve(base, &at, keys, sizeof(float));
    f->dp = attention_carve(base, &at, keys, sizeof(float));
    f->keep = attention_carve(base, &at, keys, sizeof(float));
    f->q = attention_carve(base, &at, d, sizeof(float));
    f->g = attention_carve(base, &at, d, sizeof(float));
    f->dq = attention_carve(base, &at, d, sizeof(float));
    return at;
}

static size_t forward_bytes(int head_size, int queries, int keys)
{
    struct scratch f;
    (void)queries;
    return carve(head_size, keys, false, NULL, &f);
}

static size_t backward_bytes(int head_size, int queries, int keys)
{
    struct scratch f;
    (void)queries;
    return carve(head_size, keys, true, NULL, &f);
}

/* x (keys, d) and xt (d, keys), either may be NULL, from lines of activations. */
static void widen(float *x, float *xt, const void *from, int64_t at, int64_t stride, int keys,
                  int d, bool bf16)
{
    for (int j = 0; j < keys; j++)
        for (int c = 0; c < d; c++) {
            float y = load(from, at + j * stride + c, bf16);
            if (x != NULL)
                x[(int64_t)j * d + c] = y;
            if (xt != NULL)
                xt[(int64_t)c * keys + j] = y;
        }
}

/* y[0..n) (+)= x[i] m[i][0..n) summed over i < count */
static inline void combine(float *restrict y, const float *restrict x, const float *restrict m,
                           int count, int n)
{
    for (int j = 0; j < n; j++)
        y[j] = 0.0f;
    for (int i = 0; i < count; i++)
        for (int j = 0; j < n; j++)
            y[j] += x[i] * m[(int64_t)i * n + j];
}

/* m[i][0..n) += x[i] y[0..n) for i < count */
static inline void spread(float *restrict m, const float *restrict x, const float *restrict y,
                          int count, int n)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < n; j++)
            m[(int64_t)i * n + j] += x[i] * y[j];
}

static inline void forward(const struct attention_call *a, int row, int head, int q0, int q1,
                           unsigned char *scratch, bool bf16)
{
    const int d = a->head_size, keys = a->keys->begin[row + 1] - a->keys->begin[row];
    const int64_t at = (int64_t)head * d, kv = a->keys->begin[row] * a->kv_stride + at;
    const bool drop = a->dropout.on;
    const struct attention_random random = drop ? attention_random(a, row, head)
                                                : (struct attention_random){0};
    struct scratch f;
    carve(d, keys, false, scratch, &f);
    widen(NULL, f.kt, a->k, kv, a->kv_stride, keys, d, bf16);
    widen(f.v, NULL, a->v, kv, a->kv_stride, keys, d, bf16);
    for (int i = q0; i < q1; i++) {
        const int64_t line = a->queries->begin[row] + i;
        for (int c = 0; c < d; c++)
            f.q[c] = load(a->q, line * a->q_stride + at + c, bf16);
        combine(f.s, f.q, f.kt, d, keys);
        float most = f.s[0];
        for (int j = 1; j < keys; j++)
            most = f.s[j] > most ? f.s[j] : most;
        for (int j = 0; j < keys; j++)
            f.s[j] = power_of_two((f.s[j] - most) * (a->scale * LOG2E));
        double sum = 0.0;
        for (int j = 0; j < keys; j++)
            sum += (double)f.s[j];
        if (drop) {
            draw(f.keep, &random, i, keys);
            for (int j = 0; j < keys; j++)
                f.s[j] *= f.keep[j];
        }
        combine(f.dq, f.s, f.v, keys, d);
        const float factor = (float)((double)a->dropout.scale / sum);
        for (int c = 0; c < d; c++)
            store(a->out, line * a->heads * d + at + c, f.dq[c] * factor, bf16);
        a->lse[line * a->heads + head] = (float)((double)most * (double)a->scale + log(sum));
    }
}

static inline void backward(const struct attention_call *a, int row, int head,
                            unsigned char *scratch, bool bf16)
{
    const int d = a->head_size, keys = a->keys->begin[row + 1] - a->keys->begin[row];
    const int queries = a->queries->begin[row + 1] - a->queries->begin[row];
    const int64_t at = (int64_t)head * d, kv = a->keys->begin[row] * a->kv_stride + at;
    const bool drop = a->dropout.on;
    const struct attention_random random = drop ? attention_random(a, row, head)
                                                : (struct attention_random){0};
    struct scratch f;
    carve(d, keys, true, scratch, &f);
    widen(f.k, f.kt, a->k, kv, a->kv_stride, keys, d, bf16);
    widen(NULL, f.vt, a->v, kv, a->kv_stride, keys, d, bf16);
    memset(f.dk, 0, (size_t)keys * (size_t)d * sizeof(float));
    memset(f.dv, 0, (size_t)keys * (size_t)d * sizeof(float));
    for (int i = 0; i < queries; i++) {
        const int64_t line = a->queries->begin[row] + i, to = line * a->heads * d + at;
        float delta = 0.0f;
        for (int c = 0; c < d; c++) {
            f.q[c] = load(a->q, line * a->q_stride + at + c, bf16);
            f.g[c] = load(a->dout, to + c, bf16);
            delta += f.g[c] * load(a->out, to + c, bf16);
        }
        const float lse = a->lse[line * a->heads + head];
        combine(f.s, f.q, f.kt, d, keys);
        combine(f.dp, f.g, f.vt, d, keys);
        for (int j = 0; j < keys; j++)
            f.s[j] = power_of_two((f.s[j] * a->scale - lse) * LOG2E);
        if (drop) {
            draw(f.keep, &random, i, keys);
            for (int j = 0; j < keys; j++) {
                f.keep[j] *= a->dropout.scale;
                f.dp[j] = f.s[j] * (f.dp[j] * f.keep[j] - delta);
                f.s[j] *= f.keep[j];
            }
        } else {
            for (int j = 0; j < keys; j++)
                f.dp[j] = f.s[j] * (f.dp[j] - delta);
        }
        spread(f.dv, f.s, f.g, keys, d);
        spread(f.dk, f.dp, f.q, keys, d);
        combine(f.dq, f.dp, f.k, keys, d);
        for (int c = 0; c < d; c++)
            store(a->dq, line * a->q_stride + at + c, f.dq[c] * a->scale, bf16);
    }
    for (int j = 0; j < keys; j++)
        for (int c = 0; c < d; c++) {
            store(a->dk, kv + j * a->kv_stride + c, f.dk[(int64_t)j * d + c] * a->scale, bf16);
            store(a->dv, kv + j * a->kv_stride + c, f.dv[(int64_t)j * d + c], bf16);
        }
}

static void forward_f32(const struct attention_call *a, int row, int head, int q0, int q1,
                        unsigned char *scratch)
{
    forward(a, row, head, q0, q1, scratch, false);
}

static void forward_bf16(const struct attention_call *a, int row, int head, int q0, int q1,
                         unsigned char *scratch)
{
    forward(a, row, head, q0, q1, scratch, true);
}

static void backward_f32(const struct attention_call *a, int row, int head, unsigned char *scratch)
{
    backward(a, row, head, scratch, false);
}

static void backward_bf16(const struct attention_call *a, int row, int head, unsigned char *scratch)
{
    backward(a, row, head, scratch, true);
}

const struct attention_path attention_portable_f32 = {.name = "portable",
                                                      .forward_bytes = forward_bytes,
                                                      .backward_bytes = backward_bytes,
                                                      .forward = forward_f32,
                                                      .backward = backward_f32};
const struct attention_path attention_portable_bf16 = {.name = "portable",
                                                       .forward_bytes = forward_bytes,
                                                       .backward_bytes = backward_bytes,
                                                       .forward = forward_bf16,
                                                       .backward = backward_bf16};
