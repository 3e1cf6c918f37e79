/* attention.c - reference attention, plain and disentangled; see ref.h. Backward recomputes
 * everything from q, k and v, in double. */
#include "model/kernels/ref/ref.h"

#include <math.h>

/* One call. relative NULL: plain attention. */
struct call {
    const struct kernel_ctx *ctx;
    const struct rows *queries, *keys;
    int heads, d;
    const act *q, *k, *v;
    int64_t q_stride, kv_stride;
    const struct relative *relative;
    const struct dropout *dropout;
    double scale;
};

/* Where query i or key j of row b and head h begins. */
static int64_t query_at(const struct call *c, int b, int h, int i)
{
    return ((int64_t)c->queries->begin[b] + i) * c->q_stride + (int64_t)h * c->d;
}

static int64_t key_at(const struct call *c, int b, int h, int j)
{
    return ((int64_t)c->keys->begin[b] + j) * c->kv_stride + (int64_t)h * c->d;
}

/* Line of the table for query i and key j. */
static int64_t line_of(const struct call *c, int i, int j)
{
    const struct distances *d = &c->ctx->distances;
    int distance = i - j;
    distance = distance > d->reach ? d->reach : distance < -d->reach ? -d->reach : distance;
    return d->line[d->reach + distance];
}

/* Element of a head's line of the table. */
static int64_t table_at(const struct call *c, int64_t line, int column, int h)
{
    return line * c->relative->width + column + (int64_t)h * c->d;
}

static double product(const struct call *c, const act *a, int64_t at, const act *b, int64_t bt)
{
    double sum = 0.0;
    for (int e = 0; e < c->d; e++)
        sum += ref_get(c->ctx, a, at + e) * ref_get(c->ctx, b, bt + e);
    return sum;
}

/* p[j] = softmax over the row's keys, before dropout; returns log sum exp. */
static double softmax(const struct call *c, int b, int h, int i, int keys, double *p)
{
    const struct relative *r = c->relative;
    const int64_t q_at = query_at(c, b, h, i);
    double largest = -INFINITY, sum = 0.0;
    for (int j = 0; j < keys; j++) {
        const int64_t k_at = key_at(c, b, h, j);
        p[j] = product(c, c->q, q_at, c->k, k_at);
        if (r != NULL && r->k_at >= 0)
            p[j] += product(c, c->q, q_at, r->table, table_at(c, line_of(c, i, j), r->k_at, h));
        if (r != NULL && r->q_at >= 0)
            p[j] += product(c, c->k, k_at, r->table, table_at(c, line_of(c, i, j), r->q_at, h));
        p[j] *= c->scale;
        largest = p[j] > largest ? p[j] : largest;
    }
    for (int j = 0; j < keys; j++) {
        p[j] = exp(p[j] - largest);
        sum += p[j];
    }
    for (int j = 0; j < keys; j++)
        p[j] /= sum;
    return largest + log(sum);
}

static uint64_t decision(int h, int i, int j, int keys)
{
    return ((uint64_t)h * (uint64_t)keys + (uint64_t)i) * (uint64_t)round_up(keys, 8) + (uint64_t)j;
}

static enum status forward(const struct call *c, act *out, float *lse)
{
    double *p;
    TRY(mem_alloc((size_t)c->keys->longest, sizeof *p, "attention probabilities", &p));
    for (int b = 0; b < c->queries->count; b++) {
        int nk = c->keys->begin[b + 1] - c->keys->begin[b],
            nq = c->queries->begin[b + 1] - c->queries->begin[b];
        for (int h = 0; h < c->heads; h++) {
            for (int i = 0; i < nq; i++) {
                int64_t line = c->queries->begin[b] + i;
                lse[line * c->heads + h] = (float)softmax(c, b, h, i, nk, p);
                for (int j = 0; j < nk; j++)
                    p[j] *= ref_dropout(c->dropout, b, decision(h, i, j, nk));
                for (int e = 0; e < c->d; e++) {
                    double sum = 0.0;
                    for (int j = 0; j < nk; j++)
                        sum += p[j] * ref_get(c->ctx, c->v, key_at(c, b, h, j) + e);
                    ref_put(c->ctx, out, (line * c->heads + h) * c->d + e, sum);
                }
            }
        }
    }
    mem_free(p);
    return STATUS_OK;
}

/* Sums of one row and head that grow with the queries: gradients of its keys and values, and of the
 * table's lines (lines, width), all heads and rows of a piece. */
struct sums {
    double *k, *v, *table;
};

/* What the gradient g of query i's product with key j adds. */
static void spread(const struct call *c, int b, int h, int i, int j, double g, double *dq,
                   const struct sums *sums)
{
    const struct relative *r = c->relative;
    const int64_t q_at = query_at(c, b, h, i), k_at = key_at(c, b, h, j);
    const int64_t line = r != NULL ? line_of(c, i, j) : 0;
    for (int e = 0; e < c->d; e++) {
        const double q = ref_get(c->ctx, c->q, q_at + e), k = ref_get(c->ctx, c->k, k_at + e);
        dq[e] += g * k;
        sums->k[j * c->d + e] += g * q;
        if (r != NULL && r->k_at >= 0) {
            const int64_t at = table_at(c, line, r->k_at, h) + e;
            dq[e] += g * ref_get(c->ctx, r->table, at);
            sums->table[at] += g * q;
        }
        if (r != NULL && r->q_at >= 0) {
            const int64_t at = table_at(c, line, r->q_at, h) + e;
            sums->k[j * c->d + e] += g * ref_get(c->ctx, r->table, at);
            sums->table[at] += g * k;
        }
    }
}

static void backward_row(const struct call *c, int b, int h, const act *dout, act *dq, double *p,
                         double *dp, double *sum_q, const struct sums *sums)
{
    const int nk = c->keys->begin[b + 1] - c->keys->begin[b],
              nq = c->queries->begin[b + 1] - c->queries->begin[b];
    for (int i = 0; i < nq; i++) {
        const int64_t o_at = (((int64_t)c->queries->begin[b] + i) * c->heads + h) * c->d;
        double delta = 0.0;
        (void)softmax(c, b, h, i, nk, p);
        for (int j = 0; j < nk; j++) {
            const double keep = ref_dropout(c->dropout, b, decision(h, i, j, nk));
            dp[j] = 0.0;
            for (int e = 0; e < c->d; e++) {
                double g = ref_get(c->ctx, dout, o_at + e);
                dp[j] += g * ref_get(c->ctx, c->v, key_at(c, b, h, j) + e) * keep;
                sums->v[j * c->d + e] += p[j] * keep * g;
            }
            delta += p[j] * dp[j];
        }
        memset(sum_q, 0, (size_t)c->d * sizeof *sum_q);
        for (int j = 0; j < nk; j++)
            spread(c, b, h, i, j, p[j] * (dp[j] - delta) * c->scale, sum_q, sums);
        for (int e = 0; e < c->d; e++)
            ref_put(c->ctx, dq, query_at(c, b, h, i) + e, sum_q[e]);
    }
}

/* dtable and cut: NULL without relative positions. */
static enum status backward(const struct call *c, const act *dout, act *dq, act *dk, act *dv,
                            act *dtable, const struct grad_cut *cut)
{
    const struct relative *r = c->relative;
    const size_t keys = (size_t)c->keys->longest, d = (size_t)c->d;
    const size_t table = r != NULL ? (size_t)r->lines * (size_t)r->width : 0;
    double *p;
    TRY(mem_alloc(2 * keys * (d + 1) + d + table, sizeof *p, "attention gradient sums", &p));
    double *dp = p + keys, *sum_q = dp + keys;
    struct sums sums = {.k = sum_q + d};
    sums.v = sums.k + keys * d;
    sums.table = sums.v + keys * d;
    int piece = 0;
    for (int b = 0; b <= c->queries->count; b++) {
        while (dtable != NULL && piece < cut->pieces && cut->row[piece + 1] == b) {
            for (size_t at = 0; at < table; at++)
                ref_put(c->ctx, dtable, (int64_t)((size_t)piece * table + at), sums.table[at]);
            memset(sums.table, 0, table * sizeof *sums.table);
            piece++;
        }
        if (b == c->queries->count)
            break;
        const int nk = c->keys->begin[b + 1] - c->keys->begin[b];
        for (int h = 0; h < c->heads; h++) {
            memset(sums.k, 0, 2 * keys * d * sizeof *sums.k);
            backward_row(c, b, h, dout, dq, p, dp, sum_q, &sums);
            for (int j = 0; j < nk; j++) {
                for (int e = 0; e < c->d; e++) {
                    ref_put(c->ctx, dk, key_at(c, b, h, j) + e, sums.k[j * c->d + e]);
                    ref_put(c->ctx, dv, key_at(c, b, h, j) + e, sums.v[j * c->d + e]);
                }
            }
        }
    }
    mem_free(p);
    return STATUS_OK;
}

enum status ref_attention(struct kernel_ctx *ctx, const struct rows *queries,
                          const struct rows *keys, int heads, int head_size, const act *q,
                          int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                          const struct dropout *dropout, act *out, float *lse)
{
    const struct call c = {.ctx = ctx,
                           .queries = queries,
                           .keys = keys,
                           .heads = heads,
                           .d = head_size,
                           .q = q,
                           .k = k,
                           .v = v,
                           .q_stride = q_stride,
                           .kv_stride = kv_stride,
                           .dropout = dropout,
                           .scale = 1.0 / sqrt(head_size)};
    return forward(&c, out, lse);
}

enum status ref_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct dropout *dropout, const act *out, const float *lse,
                                   const act *dout, act *dq, act *dk, act *dv)
{
    const struct call c = {.ctx = ctx,
                           .queries = queries,
                           .keys = keys,
                           .heads = heads,
                           .d = head_size,
                           .q = q,
                           .k = k,
                           .v = v,
                           .q_stride = q_stride,
                           .kv_stride = kv_stride,
                           .dropout = dropout,
                           .scale = 1.0 / sqrt(head_size)};
    (void)out;
    (void)lse;
    return backward(&c, dout, dq, dk, dv, NULL, NULL);
}

enum status ref_attention_relative(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct relative *relative, const struct dropout *dropout,
                                   act *out, float *lse)
{
    const struct call c = {.ctx = ctx,
                           .queries = queries,
                           .keys = keys,
                           .heads = heads,
                           .d = head_size,
                           .q = q,
                           .k = k,
                           .v = v,
                           .q_stride = q_stride,
                           .kv_stride = kv_stride,
                           .relative = relative,
                           .dropout = dropout,
                           .scale = (double)relative->scale};
    return forward(&c, out, lse);
}

enum status ref_attention_relative_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                            const struct rows *keys, int heads, int head_size,
                                            const act *q, int64_t q_stride, const act *k,
                                            const act *v, int64_t kv_stride,
                                            const struct relative *relative,
                                            const struct dropout *dropout, const act *out,
                                            const float *lse, const act *dout, act *dq, act *dk,
                                            act *dv, act *dtable, const struct grad_cut *cut)
{
    const struct call c = {.ctx = ctx,
                           .queries = queries,
                           .keys = keys,
                           .heads = heads,
                           .d = head_size,
                           .q = q,
                           .k = k,
                           .v = v,
                           .q_stride = q_stride,
                           .kv_stride = kv_stride,
                           .relative = relative,
                           .dropout = dropout,
                           .scale = (double)relative->scale};
    (void)out;
    (void)lse;
    return backward(&c, dout, dq, dk, dv, dtable, cut);
}
