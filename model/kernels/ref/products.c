/* products.c - reference products and classifier; see ref.h. */
#include "model/kernels/ref/ref.h"

/* Weight (n, k) of matrix m as products see it: rounded to bfloat16 where activations are. */
static double weight(const struct kernel_ctx *ctx, const struct matrix *m, int n, int k)
{
    float w = ctx->weights[m->offset + (int64_t)n * m->k + k];
    return ctx->bf16 ? ref_from_bf16(ref_to_bf16((double)w)) : (double)w;
}

enum status ref_linear(struct kernel_ctx *ctx, int m, int64_t rows, const act *x, const float *bias,
                       act *y)
{
    const struct matrix *w = &ctx->matrices[m];
    for (int64_t r = 0; r < rows; r++) {
        for (int n = 0; n < w->n; n++) {
            double sum = bias != NULL ? (double)bias[n] : 0.0;
            for (int k = 0; k < w->k; k++)
                sum += ref_get(ctx, x, r * w->k + k) * weight(ctx, w, n, k);
            ref_put(ctx, y, r * w->n + n, sum);
        }
    }
    return STATUS_OK;
}

enum status ref_linear_backward_data(struct kernel_ctx *ctx, int m, int64_t rows, const act *dy,
                                     act *dx)
{
    const struct matrix *w = &ctx->matrices[m];
    for (int64_t r = 0; r < rows; r++) {
        for (int k = 0; k < w->k; k++) {
            double sum = 0.0;
            for (int n = 0; n < w->n; n++)
                sum += ref_get(ctx, dy, r * w->n + n) * weight(ctx, w, n, k);
            ref_put(ctx, dx, r * w->k + k, sum);
        }
    }
    return STATUS_OK;
}

enum status ref_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                       const act *dy, int64_t bias_offset, bool by_row,
                                       const struct table_lines *more, const struct grad_cut *cut)
{
    const struct matrix *w = &ctx->matrices[m];
    const int32_t *line = by_row ? cut->row : cut->token;
    double *sum, *column;
    (void)rows;
    TRY(mem_alloc((size_t)w->n * (size_t)(w->k + 1), sizeof *sum, "weight gradient sums", &sum));
    column = sum + (int64_t)w->n * w->k;
    for (int i = 0; i < cut->pieces; i++) {
        memset(sum, 0, (size_t)w->n * (size_t)(w->k + 1) * sizeof *sum);
        for (int64_t t = line[i]; x != NULL && t < line[i + 1]; t++) {
            for (int n = 0; n < w->n; n++) {
                double g = ref_get(ctx, dy, t * w->n + n);
                column[n] += g;
                for (int k = 0; k < w->k; k++)
                    sum[(int64_t)n * w->k + k] += g * ref_get(ctx, x, t * w->k + k);
            }
        }
        for (int64_t t = 0; more != NULL && t < more->count[i]; t++) {
            for (int e = 0; e < more->n; e++) {
                double g = ref_get(ctx, more->dy, (i * more->lines + t) * more->dy_stride + e);
                int n = more->first + e;
                column[n] += g;
                for (int k = 0; k < w->k; k++)
                    sum[(int64_t)n * w->k + k] += g * ref_get(ctx, more->x, t * w->k + k);
            }
        }
        ref_cut_put(cut, i, w->offset, (int64_t)w->n * w->k, sum);
        if (bias_offset >= 0)
            ref_cut_put(cut, i, bias_offset, w->n, column);
    }
    mem_free(sum);
    return STATUS_OK;
}

enum status ref_classify(struct kernel_ctx *ctx, int rows, int channels, int outputs, const act *x,
                         const float *w, const float *bias, float *logits)
{
    for (int64_t b = 0; b < rows; b++) {
        for (int n = 0; n < outputs; n++) {
            double sum = bias != NULL ? (double)bias[n] : 0.0;
            for (int e = 0; e < channels; e++)
                sum += ref_get(ctx, x, b * channels + e) * (double)w[(int64_t)n * channels + e];
            logits[b * outputs + n] = (float)sum;
        }
    }
    return STATUS_OK;
}

enum status ref_classify_backward(struct kernel_ctx *ctx, int rows, int channels, int outputs,
                                  const act *x, const float *w, const float *dlogits, act *dx,
                                  int64_t w_offset, int64_t bias_offset, const struct grad_cut *cut)
{
    double *sum, *column;
    for (int64_t b = 0; b < rows; b++) {
        for (int e = 0; e < channels; e++) {
            double d = 0.0;
            for (int n = 0; n < outputs; n++)
                d += (double)dlogits[b * outputs + n] * (double)w[(int64_t)n * channels + e];
            ref_put(ctx, dx, b * channels + e, d);
        }
    }
    TRY(mem_alloc((size_t)outputs * (size_t)(channels + 1), sizeof *sum, "classifier gradient sums",
                  &sum));
    column = sum + (int64_t)outputs * channels;
    for (int i = 0; i < cut->pieces; i++) {
        memset(sum, 0, (size_t)outputs * (size_t)(channels + 1) * sizeof *sum);
        for (int64_t b = cut->row[i]; b < cut->row[i + 1]; b++) {
            for (int n = 0; n < outputs; n++) {
                double g = (double)dlogits[b * outputs + n];
                column[n] += g;
                for (int e = 0; e < channels; e++)
                    sum[(int64_t)n * channels + e] += g * ref_get(ctx, x, b * channels + e);
            }
        }
        ref_cut_put(cut, i, w_offset, (int64_t)outputs * channels, sum);
        if (bias_offset >= 0)
            ref_cut_put(cut, i, bias_offset, outputs, column);
    }
    mem_free(sum);
    return STATUS_OK;
}
