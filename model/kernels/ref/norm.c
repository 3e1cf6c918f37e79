/* norm.c - reference embeddings, tables of positions and residual + norm, forward and backward; see
 * ref.h. */
#include "model/kernels/ref/ref.h"

#include <math.h>

/* The row of the batch that token t is in, and its position there. */
static int row_of(const struct rows *rows, int64_t t, int64_t *position)
{
    int b = 0;
    while (rows->begin[b + 1] <= t)
        b++;
    *position = t - rows->begin[b];
    return b;
}

static uint64_t decision(int64_t position, int channels, int e)
{
    return (uint64_t)position * (uint64_t)channels + (uint64_t)e;
}

static void moments(const double *x, int n, double eps, double *mean, double *rstd)
{
    double sum = 0.0, square = 0.0;
    for (int e = 0; e < n; e++)
        sum += x[e];
    *mean = sum / n;
    for (int e = 0; e < n; e++)
        square += (x[e] - *mean) * (x[e] - *mean);
    *rstd = 1.0 / sqrt(square / n + eps);
}

/* g: gradient of norm(x) gamma + beta. Writes dx (in g's place) and adds to dgamma and dbeta. */
static void norm_backward(const double *x, int n, double mean, double rstd, const float *gamma,
                          double *g, double *dgamma, double *dbeta)
{
    double sum = 0.0, dot = 0.0;
    for (int e = 0; e < n; e++) {
        double hat = (x[e] - mean) * rstd;
        dgamma[e] += g[e] * hat;
        dbeta[e] += g[e];
        g[e] *= (double)gamma[e];
        sum += g[e];
        dot += g[e] * hat;
    }
    for (int e = 0; e < n; e++)
        g[e] = rstd * (g[e] - sum / n - (x[e] - mean) * rstd * dot / n);
}

enum status ref_embed(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                      const int32_t *ids, const int32_t *types, const float *word,
                      const float *position, const float *type, int first_position,
                      const float *gamma, const float *beta, float eps,
                      const struct dropout *dropout, act *sum, float *mean, float *rstd, act *out)
{
    double *x;
    TRY(mem_alloc((size_t)channels, sizeof *x, "one token's channels", &x));
    for (int64_t t = 0; t < rows->tokens; t++) {
        int64_t p;
        double m, r;
        int b = row_of(rows, t, &p);
        for (int e = 0; e < channels; e++) {
            float s = word[(int64_t)ids[t] * channels + e];
            if (position != NULL)
                s += position[(p + first_position) * channels + e];
            if (type != NULL)
                s += type[(int64_t)(types != NULL ? types[t] : 0) * channels + e];
            x[e] = (double)s;
            ref_put(ctx, sum, t * channels + e, x[e]);
        }
        moments(x, channels, (double)eps, &m, &r);
        mean[t] = (float)m;
        rstd[t] = (float)r;
        for (int e = 0; e < channels; e++) {
            double y = (x[e] - m) * r * (double)gamma[e] + (double)beta[e];
            ref_put(ctx, out, t * channels + e,
                    y * ref_dropout(dropout, b, decision(p, channels, e)));
        }
    }
    mem_free(x);
    return STATUS_OK;
}

enum status ref_embed_backward(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                               const int32_t *ids, const int32_t *types, const act *da,
                               const act *db, const act *sum, const float *mean, const float *rstd,
                               const float *gamma, const struct dropout *dropout,
                               int first_position, int64_t word_offset, int word_rows,
                               int64_t position_offset, int position_rows, int64_t type_offset,
                               int type_rows, int64_t gamma_offset, int64_t beta_offset,
                               const struct grad_cut *cut)
{
    position_rows = position_offset >= 0 ? position_rows : 0;
    int64_t lines = (int64_t)word_rows + position_rows + (type_offset >= 0 ? type_rows : 0) + 4;
    double *words, *positions, *tables, *dgamma, *dbeta, *x, *g;
    TRY(mem_alloc((size_t)(lines * channels), sizeof *words, "embedding gradient sums", &words));
    positions = words + (int64_t)word_rows * channels;
    tables = positions + (int64_t)position_rows * channels;
    dgamma = tables + (type_offset >= 0 ? (int64_t)type_rows * channels : 0);
    dbeta = dgamma + channels;
    x = dbeta + channels;
    g = x + channels;
    for (int i = 0; i < cut->pieces; i++) {
        memset(words, 0, (size_t)(lines * channels) * sizeof *words);
        for (int64_t t = cut->token[i]; t < cut->token[i + 1]; t++) {
            int64_t p;
            int b = row_of(rows, t, &p);
            for (int e = 0; e < channels; e++) {
                int64_t at = t * channels + e;
                x[e] = ref_get(ctx, sum, at);
                g[e] = ref_get(ctx, da, at) + (db != NULL ? ref_get(ctx, db, at) : 0.0);
                g[e] *= ref_dropout(dropout, b, decision(p, channels, e));
            }
            norm_backward(x, channels, (double)mean[t], (double)rstd[t], gamma, g, dgamma, dbeta);
            for (int e = 0; e < channels; e++) {
                words[(int64_t)ids[t] * channels + e] += g[e];
                if (position_offset >= 0)
                    positions[(p + first_position) * channels + e] += g[e];
                if (type_offset >= 0)
                    tables[(int64_t)(types != NULL ? types[t] : 0) * channels + e] += g[e];
            }
        }
        ref_cut_put(cut, i, word_offset, (int64_t)word_rows * channels, words);
        if (position_offset >= 0)
            ref_cut_put(cut, i, position_offset, (int64_t)position_rows * channels, positions);
        if (type_offset >= 0)
            ref_cut_put(cut, i, type_offset, (int64_t)type_rows * channels, tables);
        ref_cut_put(cut, i, gamma_offset, channels, dgamma);
        ref_cut_put(cut, i, beta_offset, channels, dbeta);
    }
    mem_free(words);
    return STATUS_OK;
}

enum status ref_residual_norm(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                              const act *x, const act *y, const float *gamma, const float *beta,
                              float eps, const struct dropout *dropout, act *sum, float *mean,
                              float *rstd, act *out)
{
    double *s;
    TRY(mem_alloc((size_t)channels, sizeof *s, "one token's channels", &s));
    for (int64_t t = 0; t < rows->tokens; t++) {
        int64_t p;
        double m, r;
        int b = row_of(rows, t, &p);
        for (int e = 0; e < channels; e++) {
            double kept = ref_get(ctx, y, t * channels + e) *
                          ref_dropout(dropout, b, decision(p, channels, e));
            s[e] = ref_get(ctx, x, t * channels + e) + kept;
        }
        moments(s, channels, (double)eps, &m, &r);
        mean[t] = (float)m;
        rstd[t] = (float)r;
        for (int e = 0; e < channels; e++) {
            ref_put(ctx, sum, t * channels + e, s[e]);
            ref_put(ctx, out, t * channels + e,
                    (s[e] - m) * r * (double)gamma[e] + (double)beta[e]);
        }
    }
    mem_free(s);
    return STATUS_OK;
}

enum status ref_residual_norm_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                       int channels, const act *da, const act *db, const act *sum,
                                       const float *mean, const float *rstd, const float *gamma,
                                       const struct dropout *dropout, act *dx, act *dy,
                                       int64_t gamma_offset, int64_t beta_offset, bool by_row,
                                       const struct grad_cut *cut)
{
    double *dgamma, *dbeta, *x, *g;
    const int32_t *line = by_row ? cut->row : cut->token;
    TRY(mem_alloc((size_t)channels * 4, sizeof *dgamma, "norm gradient sums", &dgamma));
    dbeta = dgamma + channels;
    x = dbeta + channels;
    g = x + channels;
    int piece = 0;
    for (int64_t t = 0; t <= rows->tokens; t++) {
        while (piece < cut->pieces && line[piece + 1] == t) {
            ref_cut_put(cut, piece, gamma_offset, channels, dgamma);
            ref_cut_put(cut, piece, beta_offset, channels, dbeta);
            memset(dgamma, 0, (size_t)channels * 2 * sizeof *dgamma);
            piece++;
        }
        if (t == rows->tokens)
            break;
        int64_t p;
        int b = row_of(rows, t, &p);
        for (int e = 0; e < channels; e++) {
            int64_t at = t * channels + e;
            x[e] = ref_get(ctx, sum, at);
            g[e] = ref_get(ctx, da, at) + (db != NULL ? ref_get(ctx, db, at) : 0.0);
        }
        norm_backward(x, channels, (double)mean[t], (double)rstd[t], gamma, g, dgamma, dbeta);
        for (int e = 0; e < channels; e++) {
            ref_put(ctx, dx, t * channels + e, g[e]);
            ref_put(ctx, dy, t * channels + e,
                    g[e] * ref_dropout(dropout, b, decision(p, channels, e)));
        }
    }
    mem_free(dgamma);
    return STATUS_OK;
}

enum status ref_table_norm(struct kernel_ctx *ctx, int lines, int channels, const float *table,
                           const float *gamma, const float *beta, float eps, act *out)
{
    double *x;
    TRY(mem_alloc((size_t)channels, sizeof *x, "one line's channels", &x));
    for (int s = 0; s < lines; s++) {
        const float *line = table + (int64_t)distance_slot(s, ctx->distances.span) * channels;
        double m, r;
        for (int e = 0; e < channels; e++)
            x[e] = (double)line[e];
        moments(x, channels, (double)eps, &m, &r);
        for (int e = 0; e < channels; e++)
            ref_put(ctx, out, (int64_t)s * channels + e,
                    gamma == NULL ? x[e] : (x[e] - m) * r * (double)gamma[e] + (double)beta[e]);
    }
    mem_free(x);
    return STATUS_OK;
}

enum status ref_table_norm_backward(struct kernel_ctx *ctx, int lines, int channels, const act *da,
                                    const float *table, const float *gamma, float eps,
                                    int64_t table_offset, int64_t gamma_offset, int64_t beta_offset,
                                    const struct grad_cut *cut)
{
    const int slots = 2 * ctx->distances.span;
    double *sums, *dgamma, *dbeta, *x;
    TRY(mem_alloc((size_t)(slots + 3) * (size_t)channels, sizeof *sums, "table gradient sums",
                  &sums));
    dgamma = sums + (int64_t)slots * channels;
    dbeta = dgamma + channels;
    x = dbeta + channels;
    for (int i = 0; i < cut->pieces; i++) {
        memset(sums, 0, (size_t)(slots + 3) * (size_t)channels * sizeof *sums);
        for (int s = 0; s < lines; s++) {
            const int64_t slot = distance_slot(s, ctx->distances.span);
            double *g = sums + slot * channels, m, r;
            for (int e = 0; e < channels; e++) {
                x[e] = (double)table[slot * channels + e];
                g[e] = ref_get(ctx, da, ((int64_t)i * lines + s) * channels + e);
            }
            moments(x, channels, (double)eps, &m, &r);
            if (gamma != NULL)
                norm_backward(x, channels, m, r, gamma, g, dgamma, dbeta);
        }
        ref_cut_put(cut, i, table_offset, (int64_t)slots * channels, sums);
        if (gamma == NULL)
            continue;
        ref_cut_put(cut, i, gamma_offset, channels, dgamma);
        ref_cut_put(cut, i, beta_offset, channels, dbeta);
    }
    mem_free(sums);
    return STATUS_OK;
}

enum status ref_table_dropout(struct kernel_ctx *ctx, int copies, int lines, int channels,
                              const struct dropout *dropout, const act *x, bool add, act *y)
{
    for (int64_t at = 0; at < (int64_t)copies * lines * channels; at++) {
        const uint64_t index = (uint64_t)(at % ((int64_t)lines * channels));
        double v = ref_get(ctx, x, at) * ref_dropout(dropout, -1, index);
        ref_put(ctx, y, at, add ? ref_get(ctx, y, at) + v : v);
    }
    return STATUS_OK;
}
