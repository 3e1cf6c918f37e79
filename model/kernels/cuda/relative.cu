/*
 * relative.cu - the table of relative positions (norm, dropout, their gradients), and a token's
 * neighbours for the convolution. Attention itself is in attention_relative.cu.
 *
 * The table is small (512 lines of 768 channels in DeBERTa-v3-base), so a warp takes a line and
 * reads it as often as it needs it. Gradients go through cut_put(): the thread that owns an element
 * of a parameter does all pieces in order.
 */
#include "model/kernels/cuda/rows.cuh"

static unsigned blocks_of(int64_t n, int each)
{
    return (unsigned)((n + each - 1) / each);
}

/* ---- the table's norm */

struct table_args {
    cut_device cut;
    int lines, channels, span;
    float eps;
    const float *table, *gamma, *beta; /* gamma NULL: no norm */
    int64_t table_offset, gamma_offset, beta_offset;
    float *stats; /* (lines, 2): mean, 1 / deviation */
};

/* distance_slot() and its inverse, for a slot of 0 to 2 span - 1. */
static __device__ __forceinline__ int slot_of_line(int line, int span)
{
    const int away = (line + 1) / 2;
    return line == 2 * span - 1 ? 0 : line % 2 == 1 ? span + away : span - away;
}

static __device__ __forceinline__ int line_of_slot(int slot, int span)
{
    return slot == 0 ? 2 * span - 1 : slot > span ? 2 * (slot - span) - 1 : 2 * (span - slot);
}

/* Whole warp: mean and 1 / deviation of a line. */
template <bool WIDE>
static __device__ __forceinline__ void line_moments(const float *line, int n, float eps,
                                                    float *mean, float *rstd)
{
    const int lane = (int)threadIdx.x % LANES;
    float sum = 0.0f, squares = 0.0f;
    for (int first = lane * OCTET; first < n; first += TILE) {
        const octet<float> x = octet_load<WIDE>(line, first, n);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            sum += x.v[j]; /* zeros behind the line's end */
    }
    *mean = warp_sum(sum) / (float)n;
    for (int first = lane * OCTET; first < n; first += TILE) {
        const octet<float> x = octet_load<WIDE>(line, first, n);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            if (first + (WIDE ? 0 : j) < n)
                squares += (x.v[j] - *mean) * (x.v[j] - *mean);
    }
    *rstd = 1.0f / sqrtf(warp_sum(squares) / (float)n + eps);
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS) norm_lines(table_args a, T *out)
{
    const int line = (int)(blockIdx.x * WARPS + threadIdx.x / LANES), n = a.channels;
    if (line >= a.lines)
        return;
    const float *from = a.table + (int64_t)slot_of_line(line, a.span) * n;
    float mean = 0.0f, rstd = 1.0f;
    if (a.gamma != NULL)
        line_moments<WIDE>(from, n, a.eps, &mean, &rstd);
    for (int first = (int)(threadIdx.x % LANES) * OCTET; first < n; first += TILE) {
        octet<float> x = octet_load<WIDE>(from, first, n);
        if (a.gamma != NULL) {
            const octet<float> gamma = octet_load<WIDE>(a.gamma, first, n),
                               beta = octet_load<WIDE>(a.beta, first, n);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                x.v[j] = (x.v[j] - mean) * rstd * gamma.v[j] + beta.v[j];
        }
        octet_store<WIDE>(out + (int64_t)line * n, first, n, x.v);
    }
}

extern "C" enum status cuda_table_norm(struct kernel_ctx *ctx, int lines, int channels,
                                       const float *table, const float *gamma, const float *beta,
                                       float eps, act *out)
{
    table_args a = {};
    a.lines = lines;
    a.channels = channels;
    a.span = ctx->opts.distances.span;
    a.eps = eps;
    a.table = table;
    a.gamma = gamma;
    a.beta = beta;
    if (lines == 0)
        return STATUS_OK;
    const bool wide = lines_are_wide(channels, (uintptr_t)table | (uintptr_t)gamma |
                                                   (uintptr_t)beta | (uintptr_t)out);
    FOR_ACT(ctx, {
        if (wide)
            LAUNCH((norm_lines<T, true>), blocks_of(lines, WARPS), THREADS, 0, ctx->stream, a,
                   (T *)out);
        else
            LAUNCH((norm_lines<T, false>), blocks_of(lines, WARPS), THREADS, 0, ctx->stream, a,
                   (T *)out);
    });
    return launched("norm of the table");
}

/* A warp has a slot of the table: the gradient of its line for each piece, zeros where the pieces
 * have no such line. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS) slot_grads(table_args a, const T *da)
{
    const int slot = (int)(blockIdx.x * WARPS + threadIdx.x / LANES), n = a.channels;
    const int lane = (int)threadIdx.x % LANES;
    if (slot >= 2 * a.span)
        return;
    const int line = line_of_slot(slot, a.span);
    const bool met = line < a.lines;
    const float *x = a.table + (int64_t)slot * n;
    float mean = 0.0f, rstd = 1.0f;
    if (met && a.gamma != NULL) {
        line_moments<WIDE>(x, n, a.eps, &mean, &rstd);
        if (lane == 0) {
            a.stats[2 * line] = mean;
            a.stats[2 * line + 1] = rstd;
        }
    }
    for (int piece = 0; piece < a.cut.pieces; piece++) {
        const T *from = da + ((int64_t)piece * a.lines + line) * n;
        float sum = 0.0f, dot = 0.0f;
        if (met && a.gamma != NULL) {
            for (int first = lane * OCTET; first < n; first += TILE) {
                const octet<T> g = octet_load<WIDE>(from, first, n);
                const octet<float> v = octet_load<WIDE>(x, first, n),
                                   gamma = octet_load<WIDE>(a.gamma, first, n);
#pragma unroll
                for (int j = 0; j < OCTET; j++) { /* behind the line's end gamma is zero */
                    const float d = octet_at(g, j) * gamma.v[j];
                    sum += d;
                    dot += d * ((v.v[j] - mean) * rstd);
                }
            }
            sum = warp_sum(sum) / (float)n;
            dot = warp_sum(dot) / (float)n;
        }
        for (int e = lane; e < n; e += LANES) {
            float d = met ? to_float(from[e]) : 0.0f;
            if (met && a.gamma != NULL)
                d = rstd * (d * a.gamma[e] - sum - (x[e] - mean) * rstd * dot);
            cut_put(a.cut, piece, a.table_offset + (int64_t)slot * n + e, d);
        }
    }
}

/* gamma's and beta's sums over a piece's lines: a block has a tile of channels, its warps take the
 * lines in turn. Queued behind slot_grads(), which leaves the lines' statistics. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS) table_sums(table_args a, const T *da)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const int tile = (int)blockIdx.x * TILE, n = a.channels, e = tile + (int)threadIdx.x;
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET;
    for (int piece = 0; piece < a.cut.pieces; piece++) {
        float dgamma[OCTET], dbeta[OCTET];
        octet_zero(dgamma);
        octet_zero(dbeta);
        for (int line = (int)threadIdx.x / LANES; first < n && line < a.lines; line += WARPS) {
            const octet<T> g =
                octet_load<WIDE>(da + ((int64_t)piece * a.lines + line) * n, first, n);
            const octet<float> x =
                octet_load<WIDE>(a.table + (int64_t)slot_of_line(line, a.span) * n, first, n);
            const float mean = a.stats[2 * line], rstd = a.stats[2 * line + 1];
#pragma unroll
            for (int j = 0; j < OCTET; j++) {
                dgamma[j] += octet_at(g, j) * ((x.v[j] - mean) * rstd);
                dbeta[j] += octet_at(g, j);
            }
        }
        const float gamma = tile_sum(dgamma, shared), beta = tile_sum(dbeta, shared);
        if (e < n) {
            cut_put(a.cut, piece, a.gamma_offset + e, gamma);
            cut_put(a.cut, piece, a.beta_offset + e, beta);
        }
    }
}

extern "C" enum status cuda_table_norm_backward(struct kernel_ctx *ctx, int lines, int channels,
                                                const act *da, const float *table,
                                                const float *gamma, float eps, int64_t table_offset,
                                                int64_t gamma_offset, int64_t beta_offset,
                                                const struct grad_cut *cut)
{
    (void)cut; /* the pass has it */
    table_args a = {};
    a.cut = ctx->cut;
    a.lines = lines;
    a.channels = channels;
    a.span = ctx->opts.distances.span;
    a.eps = eps;
    a.table = table;
    a.gamma = gamma;
    a.table_offset = table_offset;
    a.gamma_offset = gamma_offset;
    a.beta_offset = beta_offset;
    a.stats = ctx->scratch;
    if (a.cut.pieces == 0 || a.span == 0)
        return STATUS_OK;
    if (lines > 2 * a.span || 2 * (int64_t)lines > ctx->scratch_floats)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "%d lines of a table of %d slots, scratch "
                                                       "for %lld numbers",
                                           lines, 2 * a.span, (long long)ctx->scratch_floats));
    const bool wide =
        lines_are_wide(channels, (uintptr_t)da | (uintptr_t)table | (uintptr_t)gamma);
    const unsigned slots = blocks_of(2 * a.span, WARPS), tiles = blocks_of(channels, TILE);
    FOR_ACT(ctx, {
        if (wide)
            LAUNCH((slot_grads<T, true>), slots, THREADS, 0, ctx->stream, a, (const T *)da);
        else
            LAUNCH((slot_grads<T, false>), slots, THREADS, 0, ctx->stream, a, (const T *)da);
        if (gamma != NULL && wide)
            LAUNCH((table_sums<T, true>), tiles, THREADS, 0, ctx->stream, a, (const T *)da);
        else if (gamma != NULL)
            LAUNCH((table_sums<T, false>), tiles, THREADS, 0, ctx->stream, a, (const T *)da);
    });
    return launched("backward of the table's norm");
}

/* ---- the table's dropout: a thread for each octet of a line, which does all copies with the same
 * decisions */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    drop_table(int copies, int lines, int channels, dropout_device dropout, const T *x, bool add,
               T *y)
{
    const int octets = (channels + OCTET - 1) / OCTET;
    const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int line = (int)(thread / octets), first = (int)(thread % octets) * OCTET;
    if (line >= lines)
        return;
    float factor[OCTET], v[OCTET];
    dropout_factors<WIDE>(dropout, dropout_key(dropout), -1, line, channels, first, factor);
    for (int copy = 0; copy < copies; copy++) {
        const int64_t at = ((int64_t)copy * lines + line) * channels;
        const octet<T> a = octet_load<WIDE>(x + at, first, channels);
        octet_zero(v);
        if (add) {
            const octet<T> old = octet_load<WIDE>(y + at, first, channels);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                v[j] = octet_at(old, j);
        }
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            v[j] += octet_at(a, j) * factor[j];
        octet_store<WIDE>(y + at, first, channels, v);
    }
}

extern "C" enum status cuda_table_dropout(struct kernel_ctx *ctx, int copies, int lines,
                                          int channels, const struct dropout *dropout, const act *x,
                                          bool add, act *y)
{
    const int64_t octets = (int64_t)lines * ((channels + OCTET - 1) / OCTET);
    const bool wide = lines_are_wide(channels, (uintptr_t)x | (uintptr_t)y);
    const dropout_device drop = ctx_dropout(ctx, dropout);
    if (octets == 0 || copies == 0)
        return STATUS_OK;
    FOR_ACT(ctx, {
        if (wide)
            LAUNCH((drop_table<T, true>), blocks_of(octets, THREADS), THREADS, 0, ctx->stream,
                   copies, lines, channels, drop, (const T *)x, add, (T *)y);
        else
            LAUNCH((drop_table<T, false>), blocks_of(octets, THREADS), THREADS, 0, ctx->stream,
                   copies, lines, channels, drop, (const T *)x, add, (T *)y);
    });
    return launched("dropout of the table");
}

/* ---- neighbours. They serve one convolution in a pass, and its product is many times as long: a
 * thread has an octet of what is written and picks what belongs there. */

/* The token at `line`, moved on by `by` within its row; -1: there is none. */
static __device__ __forceinline__ int neighbour(const rows_device &rows, int row, int line, int by)
{
    const int at = line + by;
    return at >= rows.begin[row] && at < rows.begin[row + 1] ? at : -1;
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    gather_neighbours(rows_device rows, int channels, int taps, const T *x, T *out)
{
    const int n = channels * taps, octets = (n + OCTET - 1) / OCTET;
    const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int line = (int)(thread / octets), first = (int)(thread % octets) * OCTET;
    if (line >= rows.lines)
        return;
    const int row = rows.row_of[line];
    float v[OCTET];
    octet_zero(v);
    int c = first / taps, tap = first % taps;
#pragma unroll
    for (int j = 0; j < OCTET; j++) {
        const int from = row >= 0 && first + j < n ? neighbour(rows, row, line, tap - taps / 2)
                                                   : -1;
        if (from >= 0)
            v[j] = to_float(x[(int64_t)from * channels + c]);
        tap++;
        if (tap == taps) {
            tap = 0;
            c++;
        }
    }
    octet_store<WIDE>(out + (int64_t)line * n, first, n, v);
}

/* Filler stays as it is: zeros, to which zeros are added. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    spread_neighbours(rows_device rows, int channels, int taps, const T *dout, T *dx)
{
    const int octets = (channels + OCTET - 1) / OCTET;
    const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int line = (int)(thread / octets), first = (int)(thread % octets) * OCTET;
    if (line >= rows.lines || rows.row_of[line] < 0)
        return;
    const int row = rows.row_of[line];
    const octet<T> old = octet_load<WIDE>(dx + (int64_t)line * channels, first, channels);
    float v[OCTET];
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        v[j] = octet_at(old, j);
    for (int tap = 0; tap < taps; tap++) {
        const int by = neighbour(rows, row, line, taps / 2 - tap);
        if (by < 0)
            continue;
        const T *from = dout + ((int64_t)by * channels + first) * taps + tap;
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            if (first + j < channels)
                v[j] += to_float(from[j * taps]);
    }
    octet_store<WIDE>(dx + (int64_t)line * channels, first, channels, v);
}

extern "C" enum status cuda_neighbours(struct kernel_ctx *ctx, const struct rows *rows,
                                       int channels, int taps, const act *x, act *out)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const int64_t octets = lines.lines * (((int64_t)channels * taps + OCTET - 1) / OCTET);
    if (octets == 0)
        return STATUS_OK;
    FOR_ACT(ctx, {
        if (lines_are_wide((int64_t)channels * taps, (uintptr_t)out))
            LAUNCH((gather_neighbours<T, true>), blocks_of(octets, THREADS), THREADS, 0,
                   ctx->stream, lines, channels, taps, (const T *)x, (T *)out);
        else
            LAUNCH((gather_neighbours<T, false>), blocks_of(octets, THREADS), THREADS, 0,
                   ctx->stream, lines, channels, taps, (const T *)x, (T *)out);
    });
    return launched("neighbours");
}

extern "C" enum status cuda_neighbours_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                                int channels, int taps, const act *dout, act *dx)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const int64_t octets = (int64_t)lines.lines * ((channels + OCTET - 1) / OCTET);
    if (octets == 0)
        return STATUS_OK;
    FOR_ACT(ctx, {
        if (lines_are_wide(channels, (uintptr_t)dx))
            LAUNCH((spread_neighbours<T, true>), blocks_of(octets, THREADS), THREADS, 0,
                   ctx->stream, lines, channels, taps, (const T *)dout, (T *)dx);
        else
            LAUNCH((spread_neighbours<T, false>), blocks_of(octets, THREADS), THREADS, 0,
                   ctx->stream, lines, channels, taps, (const T *)dout, (T *)dx);
    });
    return launched("backward of neighbours");
}
