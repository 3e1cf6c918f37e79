/*
 * relative.c - the CPU backend's table of relative positions (norm, dropout), and a token's
 * neighbours; attention itself is in attention.c. See kernels.h.
 *
 * Tables are small beside activations (1,022 lines at most in DeBERTa), so these are plain loops
 * over lines; sums over lines are made in blocks of BLOCK, added up in order.
 */
#include "model/kernels/cpu/cpu.h"
#include "model/kernels/cpu/rows.h"

#define BLOCK 32
#define LANES 8

int64_t cpu_relative_bytes(const struct kernel_opts *opts)
{
    const int64_t slots = 2 * (int64_t)opts->distances.span;
    const int64_t pieces = opts->max_pieces > 0 ? opts->max_pieces : opts->max_rows;
    /* table_norm_backward: a float line for each slot and piece. Attention: the projections in four
     * orders, with slots written out by distance, and a piece's and up to eight groups' sums. C is
     * not known here; F is at least as wide. */
    return opts->distances.span == 0 ? 0
                                     : (slots * (pieces + 8) + 8 * (int64_t)opts->distances.reach) *
                                           opts->max_channels * (int64_t)sizeof(float);
}

enum status cpu_table_norm(struct kernel_ctx *ctx, int lines, int channels, const float *table,
                           const float *gamma, const float *beta, float eps, act *out)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int s = 0; s < lines; s++) {
        const float *line = table + (int64_t)distance_slot(s, ctx->distances.span) * channels;
        float mean, rstd;
        if (gamma == NULL)
            ctx->rows->store(channels, line, cpu_line(ctx, out, s, channels));
        else
            ctx->rows->norm(channels, line, gamma, beta, eps, NULL, 1.0f, &mean, &rstd,
                            cpu_line(ctx, out, s, channels));
    }
    return STATUS_OK;
}

/* Sum of x[e] y[e] (y NULL: of x[e]) less the mean m of x, in LANES parts added up in order. */
static double dot(int64_t n, const float *x, double m, const float *y)
{
    double part[LANES] = {0}, sum = 0;
    int64_t e = 0;
    for (; e + LANES <= n; e += LANES)
        for (int i = 0; i < LANES; i++)
            part[i] += ((double)x[e + i] - m) * (y != NULL ? (double)y[e + i] : 1.0);
    for (int i = 0; e < n; i++, e++)
        part[i] += ((double)x[e] - m) * (y != NULL ? (double)y[e] : 1.0);
    for (int i = 0; i < LANES; i++)
        sum += part[i];
    return sum;
}

static double square(int64_t n, const float *x, double m)
{
    double part[LANES] = {0}, sum = 0;
    int64_t e = 0;
    for (; e + LANES <= n; e += LANES)
        for (int i = 0; i < LANES; i++)
            part[i] += ((double)x[e + i] - m) * ((double)x[e + i] - m);
    for (int i = 0; e < n; i++, e++)
        part[i] += ((double)x[e] - m) * ((double)x[e] - m);
    for (int i = 0; i < LANES; i++)
        sum += part[i];
    return sum;
}

/* g: gradient of norm(x) gamma + beta, becomes that of x; dgamma and dbeta are added to. */
static void norm_backward(int64_t n, const float *x, float eps, const float *gamma, float *g,
                          float *dgamma, float *dbeta)
{
    const double mean = dot(n, x, 0.0, NULL) / (double)n;
    const double rstd = 1.0 / sqrt(square(n, x, mean) / (double)n + (double)eps);
    for (int64_t e = 0; e < n; e++) {
        dgamma[e] += g[e] * (float)(((double)x[e] - mean) * rstd);
        dbeta[e] += g[e];
        g[e] *= gamma[e];
    }
    const double average = dot(n, g, 0.0, NULL) / (double)n,
                 along = dot(n, x, mean, g) * rstd / (double)n;
    for (int64_t e = 0; e < n; e++)
        g[e] = (float)(rstd * ((double)g[e] - average - ((double)x[e] - mean) * rstd * along));
}

enum status cpu_table_norm_backward(struct kernel_ctx *ctx, int lines, int channels, const act *da,
                                    const float *table, const float *gamma, float eps,
                                    int64_t table_offset, int64_t gamma_offset, int64_t beta_offset,
                                    const struct grad_cut *cut)
{
    const int64_t n = channels, blocks = (lines + BLOCK - 1) / BLOCK;
    const int span = ctx->distances.span, pieces = cut->pieces;
    float *gradient, *partial, *zeros;
    const size_t all = (size_t)pieces * (size_t)lines * (size_t)n;
    TRY(cpu_shared_reserve(
        ctx, (all + (size_t)(pieces * blocks * 2 * n) + (size_t)n) * sizeof(float), &gradient));
    partial = gradient + all; /* (pieces, blocks, 2 n): gamma, beta */
    zeros = partial + pieces * blocks * 2 * n;
    memset(zeros, 0, (size_t)n * sizeof *zeros);
#pragma omp parallel num_threads(cpu_threads())
    {
#pragma omp for schedule(dynamic)
        for (int64_t at = 0; at < pieces * blocks; at++) {
            const int64_t first = at % blocks * BLOCK;
            float *sums = partial + at * 2 * n;
            memset(sums, 0, (size_t)(2 * n) * sizeof *sums);
            for (int64_t s = first; s < lines && s < first + BLOCK; s++) {
                const int64_t line = at / blocks * lines + s;
                float *g = gradient + line * n;
                ctx->rows->load(n, cpu_line(ctx, da, line, n), g);
                if (gamma != NULL)
                    norm_backward(n, table + distance_slot((int)s, span) * n, eps, gamma, g, sums,
                                  sums + n);
            }
        }
#pragma omp for schedule(static) nowait
        for (int s = 0; s < 2 * span; s++)
            for (int i = 0; i < pieces; i++)
                cpu_cut_put(cut, i, s < lines ? gradient + ((int64_t)i * lines + s) * n : zeros,
                            table_offset + distance_slot(s, span) * n, n);
#pragma omp for schedule(static)
        for (int64_t e = 0; e < (gamma == NULL ? 0 : 2 * n); e++)
            for (int i = 0; i < pieces; i++) {
                float sum = 0.0f;
                for (int64_t b = 0; b < blocks; b++)
                    sum += partial[(i * blocks + b) * 2 * n + e];
                cpu_cut_put(cut, i, &sum, e < n ? gamma_offset + e : beta_offset + e - n, 1);
            }
    }
    return STATUS_OK;
}

enum status cpu_table_dropout(struct kernel_ctx *ctx, int copies, int lines, int channels,
                              const struct dropout *dropout, const act *x, bool add, act *y)
{
    static const uint32_t counter[3] = {0, UINT32_MAX, UINT32_MAX}; /* chunk 0, row -1 */
    const int64_t n = channels, room = round_up(n, 16);
    struct cpu_dropout drop;
    cpu_dropout_init(dropout, &drop);
    TRY(cpu_scratch_reserve(ctx, (size_t)(2 * room) * sizeof(float) + (size_t)n / 8 + 128));
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int s = 0; s < lines; s++) {
        float *g = cpu_scratch(ctx), *sum = g + room;
        uint8_t *bits = drop.on ? (uint8_t *)(sum + room) : NULL;
        if (drop.on)
            ctx->rows->keep(&drop, counter, (uint64_t)s * (uint64_t)n, n, bits);
        for (int c = 0; c < copies; c++) {
            const int64_t line = (int64_t)c * lines + s;
            ctx->rows->gradient(n, cpu_line(ctx, x, line, n), NULL, bits, drop.scale, g);
            if (add) {
                ctx->rows->load(n, cpu_line(ctx, y, line, n), sum);
                ctx->rows->add(n, sum, g);
            }
            ctx->rows->store(n, g, cpu_line(ctx, y, line, n));
        }
    }
    return STATUS_OK;
}

/* ---- neighbours */

/* The row of line t: `row` or a later one. */
static int row_at(const struct rows *rows, int row, int64_t t)
{
    while (rows->begin[row + 1] <= t)
        row++;
    return row;
}

static int first_row(const struct rows *rows, int64_t t)
{
    int low = 0, high = rows->count - 1;
    while (low < high) {
        const int middle = low + (high - low + 1) / 2;
        if (rows->begin[middle] <= t)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

enum status cpu_neighbours(struct kernel_ctx *ctx, const struct rows *rows, int channels, int taps,
                           const act *x, act *out)
{
    const int64_t n = channels;
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t t0 = 0; t0 < rows->tokens; t0 += BLOCK) {
        int b = first_row(rows, t0);
        for (int64_t t = t0; t < rows->tokens && t < t0 + BLOCK; t++) {
            b = row_at(rows, b, t);
            for (int i = 0; i < taps; i++) {
                const int64_t from = t + i - taps / 2;
                const bool inside = from >= rows->begin[b] && from < rows->begin[b + 1];
                const int64_t at = inside ? from * n : 0, to = t * n * taps + i;
                if (ctx->bf16)
                    for (int64_t e = 0; e < n; e++)
                        ((uint16_t *)out)[to + e * taps] = inside ? ((const uint16_t *)x)[at + e]
                                                                  : 0;
                else
                    for (int64_t e = 0; e < n; e++)
                        ((float *)out)[to + e * taps] = inside ? ((const float *)x)[at + e] : 0.0f;
            }
        }
    }
    return STATUS_OK;
}

enum status cpu_neighbours_backward(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                    int taps, const act *dout, act *dx)
{
    const int64_t n = channels, room = round_up(n, 16);
    TRY(cpu_scratch_reserve(ctx, (size_t)(room * (taps + 1)) * sizeof(float)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t t0 = 0; t0 < rows->tokens; t0 += BLOCK) {
        int b = first_row(rows, t0);
        float *sum = cpu_scratch(ctx), *wide = sum + room;
        for (int64_t t = t0; t < rows->tokens && t < t0 + BLOCK; t++) {
            b = row_at(rows, b, t);
            ctx->rows->load(n, cpu_line(ctx, dx, t, n), sum);
            for (int i = 0; i < taps; i++) {
                const int64_t by = t - i + taps / 2;
                if (by < rows->begin[b] || by >= rows->begin[b + 1])
                    continue;
                ctx->rows->load(n * taps, cpu_line(ctx, dout, by, n * taps), wide);
                for (int64_t e = 0; e < n; e++)
                    sum[e] += wide[e * taps + i];
            }
            ctx->rows->store(n, sum, cpu_line(ctx, dx, t, n));
        }
    }
    return STATUS_OK;
}
