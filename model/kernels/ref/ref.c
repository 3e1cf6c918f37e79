/* ref.c - the reference table: context, elementwise operations, poolings, optimizer; see ref.h. */
#include "model/kernels/ref/ref.h"

#include <math.h>

double ref_dropout(const struct dropout *d, int row, uint64_t index)
{
    if (d == NULL || d->p <= 0.0f)
        return 1.0;
    uint64_t key =
        random_key(d->seed, RANDOM_DROPOUT, (uint64_t)d->step, (uint64_t)(d->layer * 16 + d->site));
    uint64_t id = row < 0 ? UINT64_MAX : (uint64_t)d->row[row];
    uint32_t chunk = row < 0 || d->chunk == NULL ? 0 : (uint32_t)d->chunk[row];
    struct philox r =
        philox4x32(key, (uint32_t)(index / 8), chunk, (uint32_t)id, (uint32_t)(id >> 32));
    uint32_t lane = (r.v[index % 8 / 2] >> (index % 2 * 16)) & 0xFFFFu;
    uint32_t threshold = (uint32_t)rint((double)d->p * 65536.0);
    return lane >= threshold ? 65536.0 / (65536.0 - threshold) : 0.0;
}

void ref_cut_put(const struct grad_cut *cut, int i, int64_t offset, int64_t n, const double *sum)
{
    float *to = cut->buffer[cut->to[i]] + offset;
    for (int64_t e = 0; e < n; e++)
        to[e] = cut->add[i] ? to[e] + (float)sum[e] : (float)sum[e];
    for (int32_t j = cut->merge_begin[i]; j < cut->merge_begin[i + 1]; j++) {
        float *into = cut->buffer[cut->merge_to[j]] + offset;
        const float *from = cut->buffer[cut->merge_from[j]] + offset;
        for (int64_t e = 0; e < n; e++)
            into[e] += from[e];
    }
}

static enum status ref_supports(enum precision precision)
{
    if (precision != PRECISION_FP32 && precision != PRECISION_BF16)
        return status_fail(STATUS_UNAVAILABLE,
                           "the reference kernels compute in fp32 and bf16 only");
    return STATUS_OK;
}

static int64_t ref_memory_bytes(const struct kernel_opts *opts)
{
    return (int64_t)sizeof(struct kernel_ctx) + opts->count * (int64_t)sizeof(struct matrix);
}

static void ref_close(struct kernel_ctx *ctx)
{
    if (ctx != NULL)
        mem_free(ctx->matrices);
    mem_free(ctx);
}

static enum status ref_open(const struct kernel_opts *opts, struct kernel_ctx **out)
{
    enum status st;
    struct kernel_ctx *ctx;
    *out = NULL;
    TRY(ref_supports(opts->precision));
    TRY(mem_alloc(1, sizeof *ctx, "a kernel context", &ctx));
    ctx->bf16 = opts->precision == PRECISION_BF16;
    ctx->distances = opts->distances;
    ctx->count = opts->count;
    TRY_GOTO(fail, mem_alloc((size_t)opts->count, sizeof *ctx->matrices, "the list of matrices",
                             &ctx->matrices));
    if (opts->count > 0)
        memcpy(ctx->matrices, opts->matrices, (size_t)opts->count * sizeof *ctx->matrices);
    *out = ctx;
    return STATUS_OK;
fail:
    ref_close(ctx);
    return st;
}

static enum status ref_weights_changed(struct kernel_ctx *ctx, const float *weights)
{
    ctx->weights = weights;
    return STATUS_OK;
}

/* GELU's two forms and ReLU, with their derivatives. */
static double activation_value(enum activation kind, double x)
{
    switch (kind) {
    case ACTIVATION_GELU:
        return 0.5 * x * (1.0 + erf(x * M_SQRT1_2));
    case ACTIVATION_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACTIVATION_RELU:
        return x > 0.0 ? x : 0.0;
    case ACTIVATION_TANH:
        break;
    }
    return 0.0;
}

static double activation_slope(enum activation kind, double x)
{
    switch (kind) {
    case ACTIVATION_GELU:
        return 0.5 * (1.0 + erf(x * M_SQRT1_2)) + x * exp(-0.5 * x * x) / sqrt(2.0 * M_PI);
    case ACTIVATION_GELU_TANH: {
        double a = sqrt(2.0 / M_PI), t = tanh(a * (x + 0.044715 * x * x * x));
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * a * (1.0 + 3.0 * 0.044715 * x * x);
    }
    case ACTIVATION_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case ACTIVATION_TANH:
        break;
    }
    return 0.0;
}

static enum status ref_add(struct kernel_ctx *ctx, int64_t n, const act *a, const act *b, act *y)
{
    for (int64_t i = 0; i < n; i++)
        ref_put(ctx, y, i, ref_get(ctx, a, i) + ref_get(ctx, b, i));
    return STATUS_OK;
}

static enum status ref_activate(struct kernel_ctx *ctx, enum activation kind, int64_t n,
                                const act *x, act *y)
{
    for (int64_t i = 0; i < n; i++)
        ref_put(ctx, y, i, activation_value(kind, ref_get(ctx, x, i)));
    return STATUS_OK;
}

static enum status ref_activate_backward(struct kernel_ctx *ctx, enum activation kind, int64_t n,
                                         const act *x, const act *dy, act *dx)
{
    for (int64_t i = 0; i < n; i++)
        ref_put(ctx, dx, i, ref_get(ctx, dy, i) * activation_slope(kind, ref_get(ctx, x, i)));
    return STATUS_OK;
}

static enum status ref_tanh(struct kernel_ctx *ctx, int64_t n, const act *x, act *y)
{
    for (int64_t i = 0; i < n; i++)
        ref_put(ctx, y, i, tanh(ref_get(ctx, x, i)));
    return STATUS_OK;
}

static enum status ref_tanh_backward(struct kernel_ctx *ctx, int64_t n, const act *y, const act *dy,
                                     act *dx)
{
    for (int64_t i = 0; i < n; i++) {
        double t = ref_get(ctx, y, i);
        ref_put(ctx, dx, i, ref_get(ctx, dy, i) * (1.0 - t * t));
    }
    return STATUS_OK;
}

static enum status ref_dropout_forward(struct kernel_ctx *ctx, const struct rows *rows,
                                       int channels, const struct dropout *dropout, const act *x,
                                       act *y)
{
    for (int b = 0; b < rows->count; b++) {
        for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++) {
            for (int e = 0; e < channels; e++) {
                uint64_t index = (uint64_t)(t - rows->begin[b]) * (uint64_t)channels + (uint64_t)e;
                ref_put(ctx, y, t * channels + e,
                        ref_get(ctx, x, t * channels + e) * ref_dropout(dropout, b, index));
            }
        }
    }
    return STATUS_OK;
}

static enum status ref_first_tokens(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                    const act *x, act *out)
{
    for (int b = 0; b < rows->count; b++) {
        bool empty = rows->begin[b] == rows->begin[b + 1];
        for (int e = 0; e < channels; e++) {
            int64_t at = (int64_t)rows->begin[b] * channels + e;
            ref_put(ctx, out, (int64_t)b * channels + e, empty ? 0.0 : ref_get(ctx, x, at));
        }
    }
    return STATUS_OK;
}

static enum status ref_first_tokens_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                             int channels, const act *dout, bool add, act *dx)
{
    if (!add) {
        for (int64_t i = 0; i < rows->tokens * channels; i++)
            ref_put(ctx, dx, i, 0.0);
    }
    for (int b = 0; b < rows->count; b++) {
        if (rows->begin[b] == rows->begin[b + 1])
            continue;
        for (int e = 0; e < channels; e++) {
            int64_t at = (int64_t)rows->begin[b] * channels + e;
            double old = add ? ref_get(ctx, dx, at) : 0.0;
            ref_put(ctx, dx, at, old + ref_get(ctx, dout, (int64_t)b * channels + e));
        }
    }
    return STATUS_OK;
}

static enum status ref_mean_pool(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                 const act *x, act *out)
{
    for (int b = 0; b < rows->count; b++) {
        int length = rows->begin[b + 1] - rows->begin[b];
        for (int e = 0; e < channels; e++) {
            double sum = 0.0;
            for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
                sum += ref_get(ctx, x, t * channels + e);
            ref_put(ctx, out, (int64_t)b * channels + e, length > 0 ? sum / length : 0.0);
        }
    }
    return STATUS_OK;
}

static enum status ref_mean_pool_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                          int channels, const act *dout, act *dx)
{
    for (int b = 0; b < rows->count; b++) {
        int length = rows->begin[b + 1] - rows->begin[b];
        for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++) {
            for (int e = 0; e < channels; e++)
                ref_put(ctx, dx, t * channels + e,
                        ref_get(ctx, dout, (int64_t)b * channels + e) / length);
        }
    }
    return STATUS_OK;
}

static enum status ref_max_pool(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                const act *x, act *out, int32_t *argmax)
{
    for (int b = 0; b < rows->count; b++) {
        for (int e = 0; e < channels; e++) {
            int32_t best = rows->begin[b];
            for (int32_t t = best + 1; t < rows->begin[b + 1]; t++) {
                if (ref_get(ctx, x, (int64_t)t * channels + e) >
                    ref_get(ctx, x, (int64_t)best * channels + e))
                    best = t;
            }
            bool empty = rows->begin[b] == rows->begin[b + 1];
            argmax[(int64_t)b * channels + e] = empty ? -1 : best;
            ref_put(ctx, out, (int64_t)b * channels + e,
                    empty ? 0.0 : ref_get(ctx, x, (int64_t)best * channels + e));
        }
    }
    return STATUS_OK;
}

static enum status ref_max_pool_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                         int channels, const act *dout, const int32_t *argmax,
                                         act *dx)
{
    for (int64_t i = 0; i < rows->tokens * channels; i++)
        ref_put(ctx, dx, i, 0.0);
    for (int64_t i = 0; i < (int64_t)rows->count * channels; i++) {
        if (argmax[i] >= 0)
            ref_put(ctx, dx, (int64_t)argmax[i] * channels + i % channels, ref_get(ctx, dout, i));
    }
    return STATUS_OK;
}

static enum status ref_neighbours(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                  int taps, const act *x, act *out)
{
    for (int b = 0; b < rows->count; b++)
        for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
            for (int e = 0; e < channels; e++)
                for (int i = 0; i < taps; i++) {
                    int64_t from = t + i - taps / 2;
                    bool inside = from >= rows->begin[b] && from < rows->begin[b + 1];
                    ref_put(ctx, out, (t * channels + e) * taps + i,
                            inside ? ref_get(ctx, x, from * channels + e) : 0.0);
                }
    return STATUS_OK;
}

static enum status ref_neighbours_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                           int channels, int taps, const act *dout, act *dx)
{
    for (int b = 0; b < rows->count; b++)
        for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
            for (int e = 0; e < channels; e++) {
                double sum = ref_get(ctx, dx, t * channels + e);
                for (int i = 0; i < taps; i++) {
                    int64_t by = t - i + taps / 2;
                    if (by >= rows->begin[b] && by < rows->begin[b + 1])
                        sum += ref_get(ctx, dout, (by * channels + e) * taps + i);
                }
                ref_put(ctx, dx, t * channels + e, sum);
            }
    return STATUS_OK;
}

static enum status ref_adamw(struct kernel_ctx *ctx, const struct adamw_args *args,
                             const struct adamw_segment *segments, int count)
{
    (void)ctx;
    for (int s = 0; s < count; s++) {
        const struct adamw_segment *seg = &segments[s];
        for (int64_t i = 0; i < seg->count; i++) {
            double g = (double)args->clip * (double)args->gradient[seg->g + i];
            double w = (double)args->weights[seg->w + i] *
                       (1.0 - (double)seg->lr * (double)seg->weight_decay);
            double b1 = (double)args->beta1, b2 = (double)args->beta2;
            double m = b1 * (double)args->m[seg->state + i] + (1.0 - b1) * g;
            double v = b2 * (double)args->v[seg->state + i] + (1.0 - b2) * g * g;
            w -= (double)seg->lr / args->correction1 * m /
                 (sqrt(v / args->correction2) + (double)args->eps);
            args->weights[seg->w + i] = (float)w;
            args->m[seg->state + i] = (float)m;
            args->v[seg->state + i] = (float)v;
        }
    }
    return STATUS_OK;
}

static enum status ref_square_sums(struct kernel_ctx *ctx, const float *x,
                                   const struct range *ranges, int count, int64_t block,
                                   double *out)
{
    (void)ctx;
    for (int r = 0; r < count; r++) {
        for (int64_t begin = ranges[r].begin; begin < ranges[r].end; begin += block) {
            double sum = 0.0;
            for (int64_t e = begin; e < ranges[r].end && e < begin + block; e++)
                sum += (double)x[e] * (double)x[e];
            *out++ = sum;
        }
    }
    return STATUS_OK;
}

const struct kernels *kernels_ref(void)
{
    static const struct kernels table = {
        .name = "ref",
        .supports = ref_supports,
        .memory_bytes = ref_memory_bytes,
        .open = ref_open,
        .close = ref_close,
        .weights_changed = ref_weights_changed,
        .embed = ref_embed,
        .embed_backward = ref_embed_backward,
        .linear = ref_linear,
        .linear_backward_data = ref_linear_backward_data,
        .linear_backward_weight = ref_linear_backward_weight,
        .attention = ref_attention,
        .attention_backward = ref_attention_backward,
        .table_norm = ref_table_norm,
        .table_norm_backward = ref_table_norm_backward,
        .table_dropout = ref_table_dropout,
        .attention_relative = ref_attention_relative,
        .attention_relative_backward = ref_attention_relative_backward,
        .neighbours = ref_neighbours,
        .neighbours_backward = ref_neighbours_backward,
        .residual_norm = ref_residual_norm,
        .residual_norm_backward = ref_residual_norm_backward,
        .add = ref_add,
        .activate = ref_activate,
        .activate_backward = ref_activate_backward,
        .tanh_forward = ref_tanh,
        .tanh_backward = ref_tanh_backward,
        .dropout = ref_dropout_forward,
        .first_tokens = ref_first_tokens,
        .first_tokens_backward = ref_first_tokens_backward,
        .mean_pool = ref_mean_pool,
        .mean_pool_backward = ref_mean_pool_backward,
        .max_pool = ref_max_pool,
        .max_pool_backward = ref_max_pool_backward,
        .classify = ref_classify,
        .classify_backward = ref_classify_backward,
        .adamw = ref_adamw,
        .update = ref_update,
        .square_sums = ref_square_sums,
    };
    return &table;
}
