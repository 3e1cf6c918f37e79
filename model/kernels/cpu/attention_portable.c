/*
 * attention_portable.c - attention in plain C for any CPU, float and bfloat16 (products in float).
 *
 * One query at a time against all keys of its row. K and V are widened to float and transposed once
 * per unit, so that every inner loop runs over neighbouring elements without a running sum, and
 * compilers vectorize it with whatever the CPU has; the order of the sums stays the one written
 * here.
 *
 * Disentangled attention: a head's lines of the table as they are, no need to write them out by
 * distance. A query's products with all lines, and each key's, are made once and picked by line.
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
    float *by_line, *dby_line;        /* (lines): the query's product with TK; its gradient */
    float *by_key, *dby_key;          /* (keys, lines): keys' products with TQ; their gradient */
};

/* Lines of the table that rows of so many tokens can need (kernels.h, struct distances). */
static int most_lines(int queries, int keys)
{
    return 2 * (queries > keys ? queries : keys);
}

/* keys of the row; lines of the table, 0 without. */
static size_t carve(int d, int keys, int64_t lines, bool backward, unsigned char *base,
                    struct scratch *f)
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
    f->by_line = attention_carve(base, &at, lines, sizeof(float));
    f->by_key = attention_carve(base, &at, keys * lines, sizeof(float));
    f->dby_line = attention_carve(base, &at, backward ? lines : 0, sizeof(float));
    f->dby_key = attention_carve(base, &at, backward ? keys * lines : 0, sizeof(float));
    return at;
}

static size_t forward_bytes(int head_size, int queries, int keys, bool relative)
{
    struct scratch f;
    return carve(head_size, keys, relative ? most_lines(queries, keys) : 0, false, NULL, &f);
}

static size_t backward_bytes(int head_size, int queries, int keys, bool relative)
{
    struct scratch f;
    return carve(head_size, keys, relative ? most_lines(queries, keys) : 0, true, NULL, &f);
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

/* ---- relative positions */

/* A head's lines in float, and transposed; NULL where there is no such side. */
struct tables {
    int lines;
    float *key, *key_t, *query, *query_t; /* (lines, d), (d, lines) */
};

static size_t tables_carve(int d, int lines, unsigned char *base, struct tables *t)
{
    size_t at = 0;
    const int64_t n = (int64_t)lines * d;
    t->lines = lines;
    t->key = attention_carve(base, &at, n, sizeof(float));
    t->key_t = attention_carve(base, &at, n, sizeof(float));
    t->query = attention_carve(base, &at, n, sizeof(float));
    t->query_t = attention_carve(base, &at, n, sizeof(float));
    return at;
}

static size_t table_bytes(int head_size, int queries, int keys, bool backward)
{
    struct tables t;
    (void)backward;
    return tables_carve(head_size, most_lines(queries, keys), NULL, &t);
}

/* Those of the table's lines that the call's rows can need. */
static int lines_of(const struct attention_call *a)
{
    const int most = most_lines(a->most_queries, a->most_keys);
    return most < a->relative->lines ? most : a->relative->lines;
}

static inline void prepare(const struct attention_call *a, int head, unsigned char *to, bool bf16)
{
    const struct relative *r = a->relative;
    const int64_t at = (int64_t)head * a->head_size;
    struct tables t;
    (void)tables_carve(a->head_size, lines_of(a), to, &t);
    if (r->k_at >= 0)
        widen(t.key, t.key_t, r->table, r->k_at + at, r->width, t.lines, a->head_size, bf16);
    if (r->q_at >= 0)
        widen(t.query, t.query_t, r->table, r->q_at + at, r->width, t.lines, a->head_size, bf16);
}

static struct tables tables_of(const struct attention_call *a, int head)
{
    struct tables t;
    (void)tables_carve(a->head_size, lines_of(a),
                       (unsigned char *)(uintptr_t)a->tables + (size_t)head * a->table_bytes, &t);
    if (a->relative->k_at < 0)
        t.key = t.key_t = NULL;
    if (a->relative->q_at < 0)
        t.query = t.query_t = NULL;
    return t;
}

/* Sums of the table's gradient over a group's rows, (lines, d) for keys and for queries. */
static size_t sums_bytes(int head_size, int queries, int keys)
{
    return 2 * (size_t)most_lines(queries, keys) * (size_t)head_size * sizeof(float);
}

static void sums_fold(const struct attention_call *a, int head, const unsigned char *sums,
                      float *partial)
{
    const struct relative *r = a->relative;
    const int d = a->head_size, lines = lines_of(a);
    for (int side = 0; side < 2; side++) {
        const int column = side == 0 ? r->k_at : r->q_at;
        const float *from = (const float *)(const void *)sums + (int64_t)side * lines * d;
        for (int64_t l = 0; column >= 0 && l < r->lines; l++)
            for (int c = 0; c < d; c++)
                partial[l * r->width + column + (int64_t)head * d + c] =
                    l < lines ? a->scale * from[l * d + c] : 0.0f;
    }
}

/* Keys' products with all lines. */
static inline void by_key(const struct attention_call *a, const struct tables *t,
                          const struct scratch *f, int64_t kv, int keys, bool bf16)
{
    for (int j = 0; t->query != NULL && j < keys; j++) {
        for (int c = 0; c < a->head_size; c++)
            f->q[c] = load(a->k, kv + j * a->kv_stride + c, bf16);
        combine(f->by_key + (int64_t)j * t->lines, f->q, t->query_t, a->head_size, t->lines);
    }
}

/* Add to query i's scores what positions add. */
static inline void add_positions(const struct attention_call *a, const struct tables *t,
                                 const struct scratch *f, int i, int keys)
{
    if (t->key != NULL)
        combine(f->by_line, f->q, t->key_t, a->head_size, t->lines);
    for (int j = 0; j < keys; j++) {
        const int line = attention_line(a, i - j);
        if (t->key != NULL)
            f->s[j] += f->by_line[line];
        if (t->query != NULL)
            f->s[j] += f->by_key[(int64_t)j * t->lines + line];
    }
}

/* What query i's dS adds to dq and to the sums; its keys' part is kept by line. */
static inline void spread_positions(const struct attention_call *a, const struct tables *t,
                                    const struct scratch *f, int i, int keys, float *sums)
{
    const int d = a->head_size;
    memset(f->dby_line, 0, (size_t)t->lines * sizeof(float));
    for (int j = 0; j < keys; j++) {
        const int line = attention_line(a, i - j);
        f->dby_line[line] += f->dp[j];
        if (t->query != NULL)
            f->dby_key[(int64_t)j * t->lines + line] += f->dp[j];
    }
    if (t->key == NULL)
        return;
    for (int l = 0; l < t->lines; l++)
        for (int c = 0; c < d; c++)
            f->dq[c] += f->dby_line[l] * t->key[(int64_t)l * d + c];
    spread(sums, f->dby_line, f->q, t->lines, d);
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
    const bool relative = a->relative != NULL;
    const struct tables tables = relative ? tables_of(a, head) : (struct tables){0};
    carve(d, keys, tables.lines, false, scratch, &f);
    widen(NULL, f.kt, a->k, kv, a->kv_stride, keys, d, bf16);
    widen(f.v, NULL, a->v, kv, a->kv_stride, keys, d, bf16);
    if (relative)
        by_key(a, &tables, &f, kv, keys, bf16);
    for (int i = q0; i < q1; i++) {
        const int64_t line = a->queries->begin[row] + i;
        for (int c = 0; c < d; c++)
            f.q[c] = load(a->q, line * a->q_stride + at + c, bf16);
        combine(f.s, f.q, f.kt, d, keys);
        if (relative)
            add_positions(a, &tables, &f, i, keys);
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
                            unsigned char *scratch, unsigned char *memory, bool bf16)
{
    const int d = a->head_size, keys = a->keys->begin[row + 1] - a->keys->begin[row];
    const int queries = a->queries->begin[row + 1] - a->queries->begin[row];
    const int64_t at = (int64_t)head * d, kv = a->keys->begin[row] * a->kv_stride + at;
    const bool drop = a->dropout.on;
    const struct attention_random random = drop ? attention_random(a, row, head)
                                                : (struct attention_random){0};
    struct scratch f;
    const bool relative = a->relative != NULL;
    const struct tables tables = relative ? tables_of(a, head) : (struct tables){0};
    float *sums = (float *)(void *)memory;
    carve(d, keys, tables.lines, true, scratch, &f);
    widen(f.k, f.kt, a->k, kv, a->kv_stride, keys, d, bf16);
    widen(NULL, f.vt, a->v, kv, a->kv_stride, keys, d, bf16);
    memset(f.dk, 0, (size_t)keys * (size_t)d * sizeof(float));
    memset(f.dv, 0, (size_t)keys * (size_t)d * sizeof(float));
    if (relative) {
        by_key(a, &tables, &f, kv, keys, bf16);
        memset(f.dby_key, 0, (size_t)keys * (size_t)tables.lines * sizeof(float));
    }
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
        if (relative)
            add_positions(a, &tables, &f, i, keys);
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
        if (relative)
            spread_positions(a, &tables, &f, i, keys, sums);
        for (int c = 0; c < d; c++)
            store(a->dq, line * a->q_stride + at + c, f.dq[c] * a->scale, bf16);
    }
    for (int j = 0; tables.query != NULL && j < keys; j++) {
        const float *by_line = f.dby_key + (int64_t)j * tables.lines;
        for (int l = 0; l < tables.lines; l++)
            for (int c = 0; c < d; c++)
                f.dk[(int64_t)j * d + c] += by_line[l] * tables.query[(int64_t)l * d + c];
        spread(sums + (int64_t)tables.lines * d, by_line, f.k + (int64_t)j * d, tables.lines, d);
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

static void backward_f32(const struct attention_call *a, int row, int head, unsigned char *scratch,
                         unsigned char *sums)
{
    backward(a, row, head, scratch, sums, false);
}

static void backward_bf16(const struct attention_call *a, int row, int head, unsigned char *scratch,
                          unsigned char *sums)
{
    backward(a, row, head, scratch, sums, true);
}

static void prepare_f32(const struct attention_call *a, int head, bool backward, unsigned char *to)
{
    (void)backward;
    prepare(a, head, to, false);
}

static void prepare_bf16(const struct attention_call *a, int head, bool backward, unsigned char *to)
{
    (void)backward;
    prepare(a, head, to, true);
}

const struct attention_path attention_portable_f32 = {.name = "portable",
                                                      .forward_bytes = forward_bytes,
                                                      .backward_bytes = backward_bytes,
                                                      .forward = forward_f32,
                                                      .backward = backward_f32,
                                                      .table_bytes = table_bytes,
                                                      .table_prepare = prepare_f32,
                                                      .sums_bytes = sums_bytes,
                                                      .sums_fold = sums_fold};
const struct attention_path attention_portable_bf16 = {.name = "portable",
                                                       .forward_bytes = forward_bytes,
                                                       .backward_bytes = backward_bytes,
                                                       .forward = forward_bf16,
                                                       .backward = backward_bf16,
                                                       .table_bytes = table_bytes,
                                                       .table_prepare = prepare_bf16,
                                                       .sums_bytes = sums_bytes,
                                                       .sums_fold = sums_fold};
