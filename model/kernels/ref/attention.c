/* attention.c - reference attention; see ref.h. Backward recomputes everything from q, k and v, in
 * double. */
#include "model/kernels/ref/ref.h"

#include <math.h>

/* p[j] = softmax over the row's keys of query line i, head h, before dropout; returns log sum exp.
 */
static double softmax(const struct kernel_ctx *ctx, int d, const act *q, int64_t q_at, const act *k,
                      int64_t k_at, int64_t kv_stride, int keys, double *p)
{
    double largest = -INFINITY, sum = 0.0;
    for (int j = 0; j < keys; j++) {
        p[j] = 0.0;
        for (int e = 0; e < d; e++)
            p[j] += ref_get(ctx, q, q_at + e) * ref_get(ctx, k, k_at + j * kv_stride + e);
        p[j] /= sqrt(d);
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

enum status ref_attention(struct kernel_ctx *ctx, const struct rows *queries,
                          const struct rows *keys, int heads, int head_size, const act *q,
                          int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                          const struct dropout *dropout, act *out, float *lse)
{
    double *p;
    TRY(mem_alloc((size_t)keys->longest, sizeof *p, "attention probabilities", &p));
    for (int b = 0; b < queries->count; b++) {
        int nk = keys->begin[b + 1] - keys->begin[b],
            nq = queries->begin[b + 1] - queries->begin[b];
        for (int h = 0; h < heads; h++) {
            for (int i = 0; i < nq; i++) {
                int64_t line = queries->begin[b] + i,
                        kv_at = keys->begin[b] * kv_stride + h * head_size;
                double l = softmax(ctx, head_size, q, line * q_stride + h * head_size, k, kv_at,
                                   kv_stride, nk, p);
                lse[line * heads + h] = (float)l;
                for (int j = 0; j < nk; j++)
                    p[j] *= ref_dropout(dropout, b, decision(h, i, j, nk));
                for (int e = 0; e < head_size; e++) {
                    double sum = 0.0;
                    for (int j = 0; j < nk; j++)
                        sum += p[j] * ref_get(ctx, v, kv_at + j * kv_stride + e);
                    ref_put(ctx, out, line * heads * head_size + h * head_size + e, sum);
                }
            }
        }
    }
    mem_free(p);
    return STATUS_OK;
}

enum status ref_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct dropout *dropout, const act *out, const float *lse,
                                   const act *dout, act *dq, act *dk, act *dv)
{
    int d = head_size;
    double *p, *dp, *sums;
    (void)out;
    (void)lse;
    size_t longest = (size_t)keys->longest;
    TRY(mem_alloc(longest * (size_t)(2 + 2 * d), sizeof *p, "attention probabilities", &p));
    dp = p + longest;
    sums = dp + longest; /* dk (longest, d), then dv */
    for (int b = 0; b < queries->count; b++) {
        int nk = keys->begin[b + 1] - keys->begin[b],
            nq = queries->begin[b + 1] - queries->begin[b];
        for (int h = 0; h < heads; h++) {
            double *sum_k = sums, *sum_v = sums + (int64_t)longest * d;
            int64_t kv_at = keys->begin[b] * kv_stride + h * d;
            memset(sums, 0, longest * (size_t)(2 * d) * sizeof *sums);
            for (int i = 0; i < nq; i++) {
                int64_t line = queries->begin[b] + i, q_at = line * q_stride + h * d,
                        o_at = line * heads * d + h * d;
                double delta = 0.0;
                (void)softmax(ctx, d, q, q_at, k, kv_at, kv_stride, nk, p);
                for (int j = 0; j < nk; j++) {
                    double keep = ref_dropout(dropout, b, decision(h, i, j, nk));
                    dp[j] = 0.0;
                    for (int e = 0; e < d; e++) {
                        double g = ref_get(ctx, dout, o_at + e);
                        dp[j] += g * ref_get(ctx, v, kv_at + j * kv_stride + e) * keep;
                        sum_v[j * d + e] += p[j] * keep * g;
                    }
                    delta += p[j] * dp[j];
                }
                for (int j = 0; j < nk; j++)
                    dp[j] = p[j] * (dp[j] - delta) / sqrt(d); /* gradient of q . k */
                for (int e = 0; e < d; e++) {
                    double sum = 0.0;
                    for (int j = 0; j < nk; j++) {
                        sum += dp[j] * ref_get(ctx, k, kv_at + j * kv_stride + e);
                        sum_k[j * d + e] += dp[j] * ref_get(ctx, q, q_at + e);
                    }
                    ref_put(ctx, dq, q_at + e, sum);
                }
            }
            for (int j = 0; j < nk; j++) {
                for (int e = 0; e < d; e++) {
                    ref_put(ctx, dk, kv_at + j * kv_stride + e, sum_k[j * d + e]);
                    ref_put(ctx, dv, kv_at + j * kv_stride + e, sum_v[j * d + e]);
                }
            }
        }
    }
    mem_free(p);
    return STATUS_OK;
}
