/*
 * ref.h - what the files of the reference backend share: the context, reading and writing act
 * elements, token sums.
 *
 * Plain loops, sums in double, one rounding at the end: the meaning of each operation, for tests,
 * never for training.
 */
#ifndef COHORT_MODEL_KERNELS_REF_REF_H
#define COHORT_MODEL_KERNELS_REF_REF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "base/status.h"
#include "model/kernels/kernels.h"

struct kernel_ctx {
    bool bf16;
    struct distances distances;
    struct matrix *matrices;
    int count;
    const float *weights; /* borrowed: the master weights */
};

/* Round to bfloat16, nearest, ties to even. */
static inline uint16_t ref_to_bf16(double x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (f != f)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static inline double ref_from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Element i of activations. */
static inline double ref_get(const struct kernel_ctx *ctx, const act *x, int64_t i)
{
    return ctx->bf16 ? ref_from_bf16(((const uint16_t *)x)[i]) : (double)((const float *)x)[i];
}

static inline void ref_put(const struct kernel_ctx *ctx, act *x, int64_t i, double value)
{
    if (ctx->bf16)
        ((uint16_t *)x)[i] = ref_to_bf16(value);
    else
        ((float *)x)[i] = (float)value;
}

/* What a decision multiplies its value with: 0, or the scale. row (-1: that of tables) and index as
 * kernels.h says. */
double ref_dropout(const struct dropout *d, int row, uint64_t index);

/* Put the sums of piece i, for the n elements at offset, where the cut says, and do its merges on
 * them. */
void ref_cut_put(const struct grad_cut *cut, int i, int64_t offset, int64_t n, const double *sum);

enum status ref_linear(struct kernel_ctx *ctx, int m, int64_t rows, const act *x, const float *bias,
                       act *y);
enum status ref_linear_backward_data(struct kernel_ctx *ctx, int m, int64_t rows, const act *dy,
                                     act *dx);
enum status ref_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                       const act *dy, int64_t bias_offset, bool by_row,
                                       const struct table_lines *more, const struct grad_cut *cut);
enum status ref_classify(struct kernel_ctx *ctx, int rows, int channels, int outputs, const act *x,
                         const float *w, const float *bias, float *logits);
enum status ref_classify_backward(struct kernel_ctx *ctx, int rows, int channels, int outputs,
                                  const act *x, const float *w, const float *dlogits, act *dx,
                                  int64_t w_offset, int64_t bias_offset,
                                  const struct grad_cut *cut);

enum status ref_attention(struct kernel_ctx *ctx, const struct rows *queries,
                          const struct rows *keys, int heads, int head_size, const act *q,
                          int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                          const struct dropout *dropout, act *out, float *lse);
enum status ref_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct dropout *dropout, const act *out, const float *lse,
                                   const act *dout, act *dq, act *dk, act *dv);

enum status ref_attention_relative(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct relative *relative, const struct dropout *dropout,
                                   act *out, float *lse);
enum status ref_attention_relative_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                            const struct rows *keys, int heads, int head_size,
                                            const act *q, int64_t q_stride, const act *k,
                                            const act *v, int64_t kv_stride,
                                            const struct relative *relative,
                                            const struct dropout *dropout, const act *out,
                                            const float *lse, const act *dout, act *dq, act *dk,
                                            act *dv, act *dtable, const struct grad_cut *cut);

enum status ref_table_norm(struct kernel_ctx *ctx, int lines, int channels, const float *table,
                           const float *gamma, const float *beta, float eps, act *out);
enum status ref_table_norm_backward(struct kernel_ctx *ctx, int lines, int channels, const act *da,
                                    const float *table, const float *gamma, float eps,
                                    int64_t table_offset, int64_t gamma_offset, int64_t beta_offset,
                                    const struct grad_cut *cut);
enum status ref_table_dropout(struct kernel_ctx *ctx, int copies, int lines, int channels,
                              const struct dropout *dropout, const act *x, bool add, act *y);

enum status ref_embed(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                      const int32_t *ids, const int32_t *types, const float *word,
                      const float *position, const float *type, int first_position,
                      const float *gamma, const float *beta, float eps,
                      const struct dropout *dropout, act *sum, float *mean, float *rstd, act *out);
enum status ref_embed_backward(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                               const int32_t *ids, const int32_t *types, const act *da,
                               const act *db, const act *sum, const float *mean, const float *rstd,
                               const float *gamma, const struct dropout *dropout,
                               int first_position, int64_t word_offset, int word_rows,
                               int64_t position_offset, int position_rows, int64_t type_offset,
                               int type_rows, int64_t gamma_offset, int64_t beta_offset,
                               const struct grad_cut *cut);
enum status ref_residual_norm(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                              const act *x, const act *y, const float *gamma, const float *beta,
                              float eps, const struct dropout *dropout, act *sum, float *mean,
                              float *rstd, act *out);
enum status ref_residual_norm_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                       int channels, const act *da, const act *db, const act *sum,
                                       const float *mean, const float *rstd, const float *gamma,
                                       const struct dropout *dropout, act *dx, act *dy,
                                       int64_t gamma_offset, int64_t beta_offset, bool by_row,
                                       const struct grad_cut *cut);

enum status ref_update(struct kernel_ctx *ctx, const struct update_args *args,
                       const struct adamw_segment *segments, int count);

#endif
