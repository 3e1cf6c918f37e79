/*
 * rows.cu - elementwise operations, poolings, the classifier and the loss.
 *
 * All are small beside the products; activations alone run over much memory. Elementwise kernels
 * have a thread for each octet. Sums (mean pooling, classifier) go over eight warps that take lines
 * in turn and are added in order, so that they depend on the row or the piece alone.
 *
 * Losses. Targets come from the host with every call: they are put into one of a few slots of
 * pinned memory, copied on the compute stream and read there. A slot is written again when its copy
 * is done, which it has long been. Not to be recorded in a graph: what the host puts into a slot is
 * not.
 */
#include <math.h>
#include <string.h>

#include "model/kernels/cuda/rows.cuh"

extern "C" {
#include "base/mem.h"
#include "model/loss.h"
}

/* Blocks of 256 threads for n of them. */
static unsigned blocks_of(int64_t n)
{
    return (unsigned)((n + THREADS - 1) / THREADS);
}

static __device__ __forceinline__ int64_t global_thread(void)
{
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

/* ---- elementwise ---- */

enum operation {
    OPERATION_GELU,
    OPERATION_GELU_TANH,
    OPERATION_RELU,
    OPERATION_TANH,
    OPERATION_GELU_BACKWARD, /* of x and dy */
    OPERATION_GELU_TANH_BACKWARD,
    OPERATION_RELU_BACKWARD,
    OPERATION_TANH_BACKWARD, /* of y and dy */
    OPERATION_ADD
};

template <int OPERATION> static __device__ __forceinline__ float compute(float x, float dy)
{
    const float half_root = 0.70710678118654752f; /* 1 / sqrt 2 */
    const float density = 0.39894228040143268f;   /* 1 / sqrt(2 pi) */
    const float a = 0.79788456080286536f, b = 0.044715f;
    switch (OPERATION) {
    case OPERATION_GELU:
        return 0.5f * x * (1.0f + erff(x * half_root));
    case OPERATION_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(a * (x + b * x * x * x)));
    case OPERATION_RELU:
        return x > 0.0f ? x : 0.0f;
    case OPERATION_TANH:
        return tanhf(x);
    case OPERATION_GELU_BACKWARD:
        return dy * (0.5f * (1.0f + erff(x * half_root)) + x * density * expf(-0.5f * x * x));
    case OPERATION_GELU_TANH_BACKWARD: {
        const float t = tanhf(a * (x + b * x * x * x));
        return dy * (0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * a * (1.0f + 3.0f * b * x * x));
    }
    case OPERATION_RELU_BACKWARD:
        return x > 0.0f ? dy : 0.0f * dy;
    case OPERATION_ADD:
        return x + dy;
    default:
        return dy * (1.0f - x * x);
    }
}

/* out[i] = operation(x[i], dy[i]); out may be x or dy. aligned: all addresses are multiples of 16.
 */
template <typename T, int OPERATION>
static __global__ void __launch_bounds__(THREADS)
    elementwise(int64_t n, bool aligned, const T *x, const T *dy, T *out)
{
    const int64_t at = global_thread() * OCTET;
    if (at >= n)
        return;
    const int left = n - at < OCTET ? (int)(n - at) : OCTET;
    const bool wide = aligned && left == OCTET;
    const octet<T> a = wide ? octet_load<true>(x + at, 0, left)
                            : octet_load<false>(x + at, 0, left);
    octet<T> g = a;
    if (OPERATION >= OPERATION_GELU_BACKWARD)
        g = wide ? octet_load<true>(dy + at, 0, left) : octet_load<false>(dy + at, 0, left);
    float y[OCTET];
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        y[j] = compute<OPERATION>(octet_at(a, j), octet_at(g, j));
    if (wide)
        octet_store<true>(out + at, 0, left, y);
    else
        octet_store<false>(out + at, 0, left, y);
}

template <int OPERATION>
static enum status launch_elementwise(const struct kernel_ctx *ctx, int64_t n, const act *x,
                                      const act *dy, act *out, const char *what)
{
    const bool aligned = ((uintptr_t)x | (uintptr_t)dy | (uintptr_t)out) % 16 == 0;
    if (n == 0)
        return STATUS_OK;
    FOR_ACT(ctx, LAUNCH((elementwise<T, OPERATION>), blocks_of((n + OCTET - 1) / OCTET), THREADS, 0,
                        ctx->stream, n, aligned, (const T *)x, (const T *)dy, (T *)out));
    return launched(what);
}

extern "C" enum status cuda_activate(struct kernel_ctx *ctx, enum activation kind, int64_t n,
                                     const act *x, act *y)
{
    switch (kind) {
    case ACTIVATION_GELU:
        return launch_elementwise<OPERATION_GELU>(ctx, n, x, NULL, y, "GELU");
    case ACTIVATION_GELU_TANH:
        return launch_elementwise<OPERATION_GELU_TANH>(ctx, n, x, NULL, y, "GELU");
    case ACTIVATION_RELU:
        return launch_elementwise<OPERATION_RELU>(ctx, n, x, NULL, y, "ReLU");
    case ACTIVATION_TANH:
        break;
    }
    return status_fail(STATUS_ARG, "activation %d", (int)kind);
}

extern "C" enum status cuda_activate_backward(struct kernel_ctx *ctx, enum activation kind,
                                              int64_t n, const act *x, const act *dy, act *dx)
{
    switch (kind) {
    case ACTIVATION_GELU:
        return launch_elementwise<OPERATION_GELU_BACKWARD>(ctx, n, x, dy, dx, "backward of GELU");
    case ACTIVATION_GELU_TANH:
        return launch_elementwise<OPERATION_GELU_TANH_BACKWARD>(ctx, n, x, dy, dx,
                                                                "backward of GELU");
    case ACTIVATION_RELU:
        return launch_elementwise<OPERATION_RELU_BACKWARD>(ctx, n, x, dy, dx, "backward of ReLU");
    case ACTIVATION_TANH:
        break;
    }
    return status_fail(STATUS_ARG, "activation %d", (int)kind);
}

extern "C" enum status cuda_tanh_forward(struct kernel_ctx *ctx, int64_t n, const act *x, act *y)
{
    return launch_elementwise<OPERATION_TANH>(ctx, n, x, NULL, y, "tanh");
}

extern "C" enum status cuda_tanh_backward(struct kernel_ctx *ctx, int64_t n, const act *y,
                                          const act *dy, act *dx)
{
    return launch_elementwise<OPERATION_TANH_BACKWARD>(ctx, n, y, dy, dx, "backward of tanh");
}

extern "C" enum status cuda_add(struct kernel_ctx *ctx, int64_t n, const act *a, const act *b,
                                act *y)
{
    return launch_elementwise<OPERATION_ADD>(ctx, n, a, b, y, "a sum of activations");
}

/* ---- lines: kernels with a thread for each octet of each line ---- */

/* The octet of this thread; false: it has none. */
static __device__ __forceinline__ bool line_octet(int lines, int channels, int *line, int *first)
{
    const int octets = (channels + OCTET - 1) / OCTET;
    const int64_t at = global_thread();
    *line = (int)(at / octets);
    *first = (int)(at % octets) * OCTET;
    return at < (int64_t)lines * octets;
}

static unsigned line_octet_blocks(int lines, int channels)
{
    return blocks_of((int64_t)lines * ((channels + OCTET - 1) / OCTET));
}

/* Launch kernel<T, WIDE> over the octets of lines; arguments follow. */
#define LAUNCH_LINES(kernel, wide, lines, channels, stream, ...)                                   \
    do {                                                                                           \
        if ((lines) == 0)                                                                          \
            break;                                                                                 \
        if (wide)                                                                                  \
            LAUNCH((kernel<T, true>), line_octet_blocks(lines, channels), THREADS, 0, stream,      \
                   __VA_ARGS__);                                                                   \
        else                                                                                       \
            LAUNCH((kernel<T, false>), line_octet_blocks(lines, channels), THREADS, 0, stream,     \
                   __VA_ARGS__);                                                                   \
    } while (0)

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    dropout_lines(rows_device rows, int channels, dropout_device dropout, const T *x, T *y)
{
    int line, first;
    if (!line_octet(rows.lines, channels, &line, &first))
        return;
    const int row = rows.row_of[line];
    const int64_t at = (int64_t)line * channels;
    float v[OCTET];
    octet_zero(v);
    if (row >= 0) {
        const octet<T> a = octet_load<WIDE>(x + at, first, channels);
        dropout_factors<WIDE>(dropout, dropout_key(dropout), row, line - rows.begin[row], channels,
                              first, v);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            v[j] *= octet_at(a, j);
    }
    octet_store<WIDE>(y + at, first, channels, v);
}

extern "C" enum status cuda_dropout(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                    const struct dropout *dropout, const act *x, act *y)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const bool wide = lines_are_wide(channels, (uintptr_t)x | (uintptr_t)y);
    const dropout_device drop = ctx_dropout(ctx, dropout);
    FOR_ACT(ctx, LAUNCH_LINES(dropout_lines, wide, lines.lines, channels, ctx->stream, lines,
                              channels, drop, (const T *)x, (T *)y));
    return launched("dropout");
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    first_lines(rows_device rows, int channels, const T *x, T *out)
{
    int b, first;
    if (!line_octet(rows.count, channels, &b, &first))
        return;
    float v[OCTET];
    octet_zero(v);
    if (rows.begin[b] < rows.begin[b + 1]) {
        const octet<T> a = octet_load<WIDE>(x + (int64_t)rows.begin[b] * channels, first, channels);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            v[j] = octet_at(a, j);
    }
    octet_store<WIDE>(out + (int64_t)b * channels, first, channels, v);
}

extern "C" enum status cuda_first_tokens(struct kernel_ctx *ctx, const struct rows *rows,
                                         int channels, const act *x, act *out)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const bool wide = lines_are_wide(channels, (uintptr_t)x | (uintptr_t)out);
    FOR_ACT(ctx, LAUNCH_LINES(first_lines, wide, lines.count, channels, ctx->stream, lines,
                              channels, (const T *)x, (T *)out));
    return launched("first tokens");
}

/* What the poolings' backward kernels do with dout of a line's row. */
enum spread { SPREAD_FIRST, SPREAD_MEAN, SPREAD_MAX };

/* dx of each line, zero for filler. argmax (B, C) for SPREAD_MAX. */
template <typename T, bool WIDE, int SPREAD>
static __device__ __forceinline__ void spread_line(const rows_device &rows, int channels,
                                                   const T *dout, const int32_t *argmax, T *dx)
{
    int line, first;
    if (!line_octet(rows.lines, channels, &line, &first))
        return;
    const int row = rows.row_of[line];
    float v[OCTET];
    octet_zero(v);
    if (row >= 0 && (SPREAD != SPREAD_FIRST || line == rows.begin[row])) {
        const int64_t at = (int64_t)row * channels;
        const octet<T> g = octet_load<WIDE>(dout + at, first, channels);
        const float length = (float)(rows.begin[row + 1] - rows.begin[row]);
#pragma unroll
        for (int j = 0; j < OCTET; j++) {
            v[j] = octet_at(g, j);
            if (SPREAD == SPREAD_MEAN)
                v[j] /= length;
            if (SPREAD == SPREAD_MAX && first + j < channels && argmax[at + first + j] != line)
                v[j] = 0.0f;
        }
    }
    octet_store<WIDE>(dx + (int64_t)line * channels, first, channels, v);
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    spread_first(rows_device rows, int channels, const T *dout, T *dx)
{
    spread_line<T, WIDE, SPREAD_FIRST>(rows, channels, dout, NULL, dx);
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    spread_mean(rows_device rows, int channels, const T *dout, T *dx)
{
    spread_line<T, WIDE, SPREAD_MEAN>(rows, channels, dout, NULL, dx);
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    spread_max(rows_device rows, int channels, const T *dout, const int32_t *argmax, T *dx)
{
    spread_line<T, WIDE, SPREAD_MAX>(rows, channels, dout, argmax, dx);
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    add_first(rows_device rows, int channels, const T *dout, T *dx)
{
    int b, first;
    if (!line_octet(rows.count, channels, &b, &first) || rows.begin[b] == rows.begin[b + 1])
        return;
    T *to = dx + (int64_t)rows.begin[b] * channels;
    const octet<T> g = octet_load<WIDE>(dout + (int64_t)b * channels, first, channels),
                   old = octet_load<WIDE>(to, first, channels);
    float v[OCTET];
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        v[j] = octet_at(old, j) + octet_at(g, j);
    octet_store<WIDE>(to, first, channels, v);
}

extern "C" enum status cuda_first_tokens_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                                  int channels, const act *dout, bool add, act *dx)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const bool wide = lines_are_wide(channels, (uintptr_t)dout | (uintptr_t)dx);
    if (add)
        FOR_ACT(ctx, LAUNCH_LINES(add_first, wide, lines.count, channels, ctx->stream, lines,
                                  channels, (const T *)dout, (T *)dx))
    else
        FOR_ACT(ctx, LAUNCH_LINES(spread_first, wide, lines.lines, channels, ctx->stream, lines,
                                  channels, (const T *)dout, (T *)dx))
    return launched("backward of first tokens");
}

/* ---- poolings: a block has a tile of a row; its warps take tokens in turn ---- */

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    mean_rows(rows_device rows, int channels, const T *x, T *out)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const int b = (int)blockIdx.x, tile = (int)blockIdx.y * TILE;
    const int begin = rows.begin[b], end = rows.begin[b + 1];
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET, e = tile + (int)threadIdx.x;
    float sum[OCTET];
    octet_zero(sum);
    for (int t = begin + (int)threadIdx.x / LANES; first < channels && t < end; t += WARPS) {
        const octet<T> a = octet_load<WIDE>(x + (int64_t)t * channels, first, channels);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            sum[j] += octet_at(a, j);
    }
    const float total = tile_sum(sum, shared);
    if (e < channels)
        out[(int64_t)b * channels + e] =
            from_float<T>(end > begin ? total / (float)(end - begin) : 0.0f);
}

/* The first of the largest, as strict comparison from the first token on finds it: a first token
 * that is NaN stays, others never win. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    max_rows(rows_device rows, int channels, const T *x, T *out, int32_t *argmax)
{
    SHARED_ARRAY(float, values, WARPS *TILE);
    SHARED_ARRAY(int, tokens, WARPS *TILE);
    const int b = (int)blockIdx.x, tile = (int)blockIdx.y * TILE;
    const int begin = rows.begin[b], end = rows.begin[b + 1];
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    const int first = tile + lane * OCTET, e = tile + (int)threadIdx.x;
    float best[OCTET];
    int at[OCTET];
#pragma unroll
    for (int j = 0; j < OCTET; j++) {
        best[j] = -INFINITY;
        at[j] = INT32_MAX;
    }
    for (int t = begin + warp; first < channels && t < end; t += WARPS) {
        const octet<T> a = octet_load<WIDE>(x + (int64_t)t * channels, first, channels);
#pragma unroll
        for (int j = 0; j < OCTET; j++) {
            const float v = octet_at(a, j);
            if (v > best[j] || (v == best[j] && at[j] == INT32_MAX)) {
                best[j] = v;
                at[j] = t;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < OCTET; j++) {
        values[warp * TILE + lane * OCTET + j] = best[j];
        tokens[warp * TILE + lane * OCTET + j] = at[j];
    }
    __syncthreads();
    if (e >= channels)
        return;
    const int64_t to = (int64_t)b * channels + e;
    if (begin == end) {
        argmax[to] = -1;
        out[to] = from_float<T>(0.0f);
        return;
    }
    float most = values[threadIdx.x];
    int token = tokens[threadIdx.x];
    for (int w = 1; w < WARPS; w++) {
        const float v = values[w * TILE + threadIdx.x];
        const int t = tokens[w * TILE + threadIdx.x];
        if (v > most || (v == most && t < token)) {
            most = v;
            token = t;
        }
    }
    const T v = x[(int64_t)begin * channels + e];
    const bool stays = to_float(v) != to_float(v);
    argmax[to] = stays ? begin : token;
    out[to] = stays ? v : x[(int64_t)token * channels + e];
}

static dim3 pool_grid(const struct rows_device *rows, int channels)
{
    return dim3((unsigned)rows->count, (unsigned)((channels + TILE - 1) / TILE));
}

extern "C" enum status cuda_mean_pool(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                      const act *x, act *out)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    if (lines.count == 0)
        return STATUS_OK;
    const dim3 grid = pool_grid(&lines, channels);
    FOR_ACT(ctx, {
        if (lines_are_wide(channels, (uintptr_t)x))
            LAUNCH((mean_rows<T, true>), grid, THREADS, 0, ctx->stream, lines, channels,
                   (const T *)x, (T *)out);
        else
            LAUNCH((mean_rows<T, false>), grid, THREADS, 0, ctx->stream, lines, channels,
                   (const T *)x, (T *)out);
    });
    return launched("mean pooling");
}

extern "C" enum status cuda_mean_pool_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                               int channels, const act *dout, act *dx)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const bool wide = lines_are_wide(channels, (uintptr_t)dout | (uintptr_t)dx);
    FOR_ACT(ctx, LAUNCH_LINES(spread_mean, wide, lines.lines, channels, ctx->stream, lines,
                              channels, (const T *)dout, (T *)dx));
    return launched("backward of mean pooling");
}

extern "C" enum status cuda_max_pool(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                     const act *x, act *out, int32_t *argmax)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    if (lines.count == 0)
        return STATUS_OK;
    const dim3 grid = pool_grid(&lines, channels);
    FOR_ACT(ctx, {
        if (lines_are_wide(channels, (uintptr_t)x))
            LAUNCH((max_rows<T, true>), grid, THREADS, 0, ctx->stream, lines, channels,
                   (const T *)x, (T *)out, argmax);
        else
            LAUNCH((max_rows<T, false>), grid, THREADS, 0, ctx->stream, lines, channels,
                   (const T *)x, (T *)out, argmax);
    });
    return launched("max pooling");
}

extern "C" enum status cuda_max_pool_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                              int channels, const act *dout, const int32_t *argmax,
                                              act *dx)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    const bool wide = lines_are_wide(channels, (uintptr_t)dout | (uintptr_t)dx);
    FOR_ACT(ctx, LAUNCH_LINES(spread_max, wide, lines.lines, channels, ctx->stream, lines, channels,
                              (const T *)dout, argmax, (T *)dx));
    return launched("backward of max pooling");
}

/* ---- classifier ---- */

/* A warp for each logit. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    classify_rows(int rows, int channels, int outputs, const T *x, const float *w,
                  const float *bias, float *logits)
{
    const int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES;
    const int lane = (int)threadIdx.x % LANES, n = (int)(at % outputs);
    if (at >= (int64_t)rows * outputs)
        return;
    const T *line = x + at / outputs * channels;
    float sum = 0.0f;
    for (int first = lane * OCTET; first < channels; first += TILE) {
        const octet<T> a = octet_load<WIDE>(line, first, channels);
        const octet<float> b = octet_load<WIDE>(w + (int64_t)n * channels, first, channels);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            sum += octet_at(a, j) * b.v[j];
    }
    sum = warp_sum(sum);
    if (lane == 0)
        logits[at] = bias == NULL ? sum : sum + bias[n];
}

extern "C" enum status cuda_classify(struct kernel_ctx *ctx, int rows, int channels, int outputs,
                                     const act *x, const float *w, const float *bias, float *logits)
{
    if (rows == 0)
        return STATUS_OK;
    const unsigned blocks = blocks_of((int64_t)rows * outputs * LANES);
    FOR_ACT(ctx, {
        if (lines_are_wide(channels, (uintptr_t)x | (uintptr_t)w))
            LAUNCH((classify_rows<T, true>), blocks, THREADS, 0, ctx->stream, rows, channels,
                   outputs, (const T *)x, w, bias, logits);
        else
            LAUNCH((classify_rows<T, false>), blocks, THREADS, 0, ctx->stream, rows, channels,
                   outputs, (const T *)x, w, bias, logits);
    });
    return launched("classifier");
}

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    classify_data(int rows, int channels, int outputs, const float *w, const float *dlogits, T *dx)
{
    int b, first;
    if (!line_octet(rows, channels, &b, &first))
        return;
    float v[OCTET];
    octet_zero(v);
    for (int n = 0; n < outputs; n++) {
        const float g = dlogits[(int64_t)b * outputs + n];
        const octet<float> a = octet_load<WIDE>(w + (int64_t)n * channels, first, channels);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            v[j] += g * a.v[j];
    }
    octet_store<WIDE>(dx + (int64_t)b * channels, first, channels, v);
}

/* A block has a tile of output blockIdx.x's weights, to which its bias counts as channel C. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    classify_weights(cut_device cut, int channels, int outputs, const T *x, const float *dlogits,
                     int64_t w_offset, int64_t bias_offset)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const int n = (int)blockIdx.x, tile = (int)blockIdx.y * TILE;
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET, e = tile + (int)threadIdx.x;
    for (int piece = 0; piece < cut.pieces; piece++) {
        float sum[OCTET];
        octet_zero(sum);
        for (int b = cut.row[piece] + (int)threadIdx.x / LANES; b < cut.row[piece + 1];
             b += WARPS) {
            const float g = dlogits[(int64_t)b * outputs + n];
            if (first < channels) {
                const octet<T> a = octet_load<WIDE>(x + (int64_t)b * channels, first, channels);
#pragma unroll
                for (int j = 0; j < OCTET; j++)
                    sum[j] += g * octet_at(a, j);
            }
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                if (first + j == channels)
                    sum[j] += g;
        }
        const float total = tile_sum(sum, shared);
        if (e < channels)
            cut_put(cut, piece, w_offset + (int64_t)n * channels + e, total);
        else if (e == channels && bias_offset >= 0)
            cut_put(cut, piece, bias_offset + n, total);
    }
}

extern "C" enum status cuda_classify_backward(struct kernel_ctx *ctx, int rows, int channels,
                                              int outputs, const act *x, const float *w,
                                              const float *dlogits, act *dx, int64_t w_offset,
                                              int64_t bias_offset, const struct grad_cut *cut)
{
    (void)cut; /* the pass has it */
    const dim3 grid((unsigned)outputs, (unsigned)(channels / TILE + 1));
    FOR_ACT(ctx, {
        LAUNCH_LINES(classify_data, lines_are_wide(channels, (uintptr_t)w | (uintptr_t)dx), rows,
                     channels, ctx->stream, rows, channels, outputs, w, dlogits, (T *)dx);
        if (ctx->cut.pieces > 0) {
            if (lines_are_wide(channels, (uintptr_t)x))
                LAUNCH((classify_weights<T, true>), grid, THREADS, 0, ctx->stream, ctx->cut,
                       channels, outputs, (const T *)x, dlogits, w_offset, bias_offset);
            else
                LAUNCH((classify_weights<T, false>), grid, THREADS, 0, ctx->stream, ctx->cut,
                       channels, outputs, (const T *)x, dlogits, w_offset, bias_offset);
        }
    });
    return launched("backward of the classifier");
}

/* ---- loss ---- */

enum {
    LOSS_SLOTS = 4,
    LOSS_BYTES = 1 << 18, /* of a slot: targets of more rows go in several parts */
    LOSS_THREADS = 64
};

struct loss_store {
    unsigned char *host[LOSS_SLOTS]; /* pinned */
    unsigned char *device;           /* what the running kernel reads */
    cudaEvent_t copied[LOSS_SLOTS];
    int next;
};

/* Some rows of struct loss_args, in device memory. */
struct loss_call {
    int kind, outputs, rows;
    double label_smoothing, focal_gamma, divisor, scale;
    const float *class_weights;
    const int32_t *label;
    const float *value, *row_weight;
    const float *logits;
    double *loss;
    float *dlogits;
};

extern "C" int64_t cuda_rows_bytes(const struct kernel_opts *opts)
{
    return opts->training ? LOSS_BYTES : 0;
}

extern "C" enum status cuda_rows_open(struct kernel_ctx *ctx)
{
    struct device *device = ctx->opts.device;
    if (!ctx->opts.training)
        return STATUS_OK;
    TRY(mem_alloc(1, sizeof *ctx->loss, "the loss's state", &ctx->loss));
    struct loss_store *store = ctx->loss;
    TRY(device_alloc(device, LOSS_BYTES, "targets", &store->device));
    for (int i = 0; i < LOSS_SLOTS; i++) {
        TRY(device_cuda_host_alloc(device, LOSS_BYTES, "targets", &store->host[i]));
        TRY(cuda_status(cudaEventCreateWithFlags(&store->copied[i], cudaEventDisableTiming),
                        "create an event"));
    }
    return STATUS_OK;
}

extern "C" void cuda_rows_close(struct kernel_ctx *ctx)
{
    struct loss_store *store = ctx->loss;
    if (store == NULL)
        return;
    for (int i = 0; i < LOSS_SLOTS; i++) {
        if (store->copied[i] != NULL)
            (void)cudaEventDestroy(store->copied[i]);
        if (store->host[i] != NULL)
            device_cuda_host_free(ctx->opts.device, store->host[i]);
    }
    if (store->device != NULL)
        device_free(ctx->opts.device, store->device);
    mem_free(store);
    ctx->loss = NULL;
}

/* The functions below are those of model/loss.c, operation for operation. */

static __device__ double log_sum_exp(const float *x, int n)
{
    double largest = (double)x[0], sum = 0;
    for (int i = 1; i < n; i++)
        largest = fmax(largest, (double)x[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

static __device__ double softplus(double x)
{
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

static __device__ double sigmoid(double x)
{
    const double e = exp(-fabs(x));
    return x >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

static __device__ double class_share(const loss_call &a, int c, int label)
{
    const double u = a.class_weights == NULL ? 1.0 : (double)a.class_weights[c];
    return u * (a.label_smoothing / a.outputs + (c == label ? 1.0 - a.label_smoothing : 0.0));
}

static __device__ double cross_entropy(const loss_call &a, const float *x, int label, double factor,
                                       float *dx)
{
    const int n = a.outputs;
    const double lse = log_sum_exp(x, n);
    double loss = 0, total = 0;
    for (int c = 0; c < n; c++) {
        const double k = class_share(a, c, label);
        loss += k * (lse - (double)x[c]);
        total += k;
    }
    for (int c = 0; dx != NULL && c < n; c++)
        dx[c] = (float)((total * exp((double)x[c] - lse) - class_share(a, c, label)) * factor);
    return loss;
}

static __device__ double binary_cross_entropy(const loss_call &a, const float *x,
                                              const float *value, int label, double factor,
                                              float *dx)
{
    const int n = a.outputs;
    double loss = 0;
    for (int c = 0; c < n; c++) {
        const double y = value != NULL ? (double)value[c] : (double)label;
        const double positive = a.class_weights == NULL ? 1.0 : (double)a.class_weights[c];
        const double z = (double)x[c];
        loss += positive * y * softplus(-z) + (1.0 - y) * softplus(z);
        if (dx != NULL)
            dx[c] = (float)(((1.0 - y) * sigmoid(z) - positive * y * sigmoid(-z)) / n * factor);
    }
    return loss / n;
}

static __device__ double focal_slope(double gamma, double p, double q, double l)
{
    return pow(q, gamma) * (gamma * p * (q > 0 ? l / q : 1.0) + 1.0);
}

static __device__ double focal_cross_entropy(const loss_call &a, const float *x, int label,
                                             double factor, float *dx)
{
    const int n = a.outputs;
    const double u = a.class_weights == NULL ? 1.0 : (double)a.class_weights[label];
    const double lse = log_sum_exp(x, n), l = fmax(lse - (double)x[label], 0.0);
    const double q = -expm1(-l), slope = u * focal_slope(a.focal_gamma, 1.0 - q, q, l);
    for (int c = 0; dx != NULL && c < n; c++)
        dx[c] = (float)(slope * (exp((double)x[c] - lse) - (c == label ? 1.0 : 0.0)) * factor);
    return u * pow(q, a.focal_gamma) * l;
}

static __device__ double focal_binary(const loss_call &a, const float *x, const float *value,
                                      int label, double factor, float *dx)
{
    const int n = a.outputs;
    double loss = 0;
    for (int c = 0; c < n; c++) {
        const double y = value != NULL ? (double)value[c] : (double)label;
        const double positive = a.class_weights == NULL ? 1.0 : (double)a.class_weights[c];
        const double z = (double)x[c], p = sigmoid(z), q = sigmoid(-z);
        const double l1 = softplus(-z), l0 = softplus(z), gamma = a.focal_gamma;
        loss += positive * y * pow(q, gamma) * l1 + (1.0 - y) * pow(p, gamma) * l0;
        if (dx != NULL)
            dx[c] = (float)(((1.0 - y) * focal_slope(gamma, q, p, l0) * p -
                             positive * y * focal_slope(gamma, p, q, l1) * q) /
                            n * factor);
    }
    return loss / n;
}

static __device__ double squared_error(const loss_call &a, const float *x, const float *value,
                                       double factor, float *dx)
{
    const int n = a.outputs;
    double loss = 0;
    for (int c = 0; c < n; c++) {
        const double d = (double)x[c] - (double)value[c];
        loss += d * d;
        if (dx != NULL)
            dx[c] = (float)(2.0 * d / n * factor);
    }
    return loss / n;
}

/* A thread for each row. */
static __global__ void __launch_bounds__(LOSS_THREADS) row_losses(loss_call a)
{
    const int b = (int)(blockIdx.x * LOSS_THREADS + threadIdx.x), n = a.outputs;
    if (b >= a.rows)
        return;
    const float *x = a.logits + (int64_t)b * n;
    const float *value = a.value == NULL ? NULL : a.value + (int64_t)b * n;
    float *dx = a.dlogits == NULL ? NULL : a.dlogits + (int64_t)b * n;
    bool finite = true;
    for (int c = 0; c < n; c++)
        finite = finite && fabsf(x[c]) < INFINITY; /* false for NaN too */
    if (!finite) {
        a.loss[b] = (double)NAN;
        for (int c = 0; dx != NULL && c < n; c++)
            dx[c] = NAN;
        return;
    }
    const int label = a.label == NULL ? 0 : a.label[b];
    const double weight = a.row_weight == NULL ? 1.0 : (double)a.row_weight[b];
    const double factor = dx == NULL ? 0.0 : weight / a.divisor * a.scale;
    if (a.focal_gamma > 0.0)
        a.loss[b] = weight * (a.kind == LOSS_CROSS_ENTROPY
                                  ? focal_cross_entropy(a, x, label, factor, dx)
                                  : focal_binary(a, x, value, label, factor, dx));
    else if (a.kind == LOSS_CROSS_ENTROPY)
        a.loss[b] = weight * cross_entropy(a, x, label, factor, dx);
    else if (a.kind == LOSS_BCE)
        a.loss[b] = weight * binary_cross_entropy(a, x, value, label, factor, dx);
    else
        a.loss[b] = weight * squared_error(a, x, value, factor, dx);
}

/* Targets that the host can check, as loss_compute() does. */
static enum status check_targets(const struct loss_args *args, int rows)
{
    const bool label = args->kind == LOSS_CROSS_ENTROPY ||
                       (args->kind == LOSS_BCE && args->value == NULL);
    const int classes = args->kind == LOSS_CROSS_ENTROPY ? args->outputs : 2;
    if (label ? args->label == NULL : args->value == NULL)
        return status_fail(STATUS_ARG, "the loss needs %s as targets",
                           label ? "classes" : "values");
    for (int b = 0; b < rows; b++) {
        if (label && (args->label[b] < 0 || args->label[b] >= classes))
            return status_fail(STATUS_DATA, "row %d of the batch has label %d, wanted 0 to %d", b,
                               (int)args->label[b], classes - 1);
        for (int c = 0; !label && c < args->outputs; c++)
            if (!isfinite((double)args->value[(int64_t)b * args->outputs + c]))
                return status_fail(STATUS_DATA,
                                   "row %d of the batch: target %d is not a finite number", b, c);
    }
    return STATUS_OK;
}

/* Where the next n 4-byte elements go in a slot; *device: where the kernel finds them. NULL, NULL
 * where the host has none. */
template <typename E>
static void put_targets(unsigned char *host, unsigned char *device, size_t *used, const E *from,
                        size_t n, const E **out)
{
    *out = NULL;
    if (from == NULL)
        return;
    memcpy(host + *used, from, n * sizeof *from);
    *out = (const E *)(device + *used);
    *used += n * sizeof *from;
}

/* Rows [first, first + call->rows): targets to the device, and the kernel behind them. */
static enum status launch_losses(struct kernel_ctx *ctx, const struct loss_args *args, int first,
                                 loss_call call)
{
    static const char what[] = "copy targets to the device";
    struct loss_store *store = ctx->loss;
    const int slot = store->next;
    const size_t rows = (size_t)call.rows, n = (size_t)args->outputs;
    const int64_t at = (int64_t)first * args->outputs;
    unsigned char *host = store->host[slot];
    size_t used = 0;
    store->next = (slot + 1) % LOSS_SLOTS;
    TRY(cuda_status(cudaEventSynchronize(store->copied[slot]), what));
    put_targets(host, store->device, &used, args->class_weights, n, &call.class_weights);
    put_targets(host, store->device, &used, args->label == NULL ? NULL : args->label + first, rows,
                &call.label);
    put_targets(host, store->device, &used, args->value == NULL ? NULL : args->value + at, rows * n,
                &call.value);
    put_targets(host, store->device, &used,
                args->row_weight == NULL ? NULL : args->row_weight + first, rows, &call.row_weight);
    if (used > 0) {
        TRY(cuda_status(
            cudaMemcpyAsync(store->device, host, used, cudaMemcpyHostToDevice, ctx->stream), what));
        TRY(cuda_status(cudaEventRecord(store->copied[slot], ctx->stream), what));
    }
    call.logits += at;
    call.loss += first;
    if (call.dlogits != NULL)
        call.dlogits += at;
    LAUNCH(row_losses, (unsigned)((call.rows + LOSS_THREADS - 1) / LOSS_THREADS), LOSS_THREADS, 0,
           ctx->stream, call);
    return launched("losses");
}

extern "C" enum status cuda_loss(struct kernel_ctx *ctx, const struct loss_args *args, int rows,
                                 const float *logits, double *loss, float *dlogits)
{
    loss_call call = {};
    if (ctx->loss == NULL || args->outputs < 1)
        return status_fail(STATUS_ARG, "losses of %d outputs%s", args->outputs,
                           ctx->loss == NULL ? ", in kernels opened without training" : "");
    TRY(check_targets(args, rows));
    if (dlogits != NULL && rows > 0 && !(args->divisor > 0 && isfinite(args->divisor)))
        return status_fail(STATUS_DATA,
                           "the weights of the batch's rows sum to %g, wanted more than 0",
                           args->divisor);
    const int64_t of_class = 4 * (int64_t)args->outputs, of_row = 8 + 4 * (int64_t)args->outputs;
    const int64_t most = (LOSS_BYTES - of_class) / of_row;
    if (most < 1)
        return status_fail(STATUS_UNAVAILABLE, "a loss of %d outputs: the CUDA backend has %d",
                           args->outputs, (int)(LOSS_BYTES / 8 - 1));
    call.kind = args->kind;
    call.outputs = args->outputs;
    call.label_smoothing = args->label_smoothing;
    call.focal_gamma = args->focal_gamma;
    call.divisor = args->divisor;
    call.scale = args->scale;
    call.logits = logits;
    call.loss = loss;
    call.dlogits = dlogits;
    for (int first = 0; first < rows; first += call.rows) {
        call.rows = rows - first < most ? rows - first : (int)most;
        TRY(launch_losses(ctx, args, first, call));
    }
    return STATUS_OK;
}
