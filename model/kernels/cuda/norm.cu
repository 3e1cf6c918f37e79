/*
 * norm.cu - LayerNorm with what surrounds it, forward and backward; embeddings and their gradients;
 * column sums.
 *
 * All of it is bound by memory, so each pass over the activations does everything that can be done
 * while a line is in registers. A line of up to 1024 channels belongs to one warp, a longer one to
 * a block. Statistics are float, from the sum before it is rounded, mean first, then squares.
 *
 * Sums over lines (gamma, beta, biases, types). A piece is cut into chunks of CHUNK lines, counted
 * from its first line. One block sums a chunk into a slot of the scratch; then finish() adds a
 * piece's slots in an order that their number alone tells, and does what the cut says. Where pieces
 * begin is known to the device only, so the grid is a bound: piece i has the slots from
 * begin[i] / CHUNK + i on, which cannot meet the next piece's, and a block finds the piece of its
 * slot by bisection. Pieces go GROUP at a time, which bounds the scratch.
 *
 * Embedding gradients. The gradient g of a token's sum is not stored: it is cheap to compute again
 * from the incoming gradient, the stored sum and two numbers of the token that the first kernel
 * keeps. The word table is gone through row by row, not token by token: a warp finds its id among
 * the piece's sorted segments, adds the segment's tokens in order, and writes the table's row,
 * zeros mostly. So the table is written once, merges meet what was just written, and no atomics are
 * needed.
 */
#include "model/kernels/cuda/rows.cuh"

enum {
    CHUNK = 32,          /* lines that a block sums */
    GROUP = 64,          /* pieces of one launch */
    SHORT_LINE = 1024,   /* channels that a warp can hold: 4 octets a lane */
    LONGEST_LINE = 8192, /* channels that a block can hold */
    SHORT_SEGMENT = 16,  /* tokens of one id that a warp adds alone */
    FINISH_WARPS = 32
};

/* ---- forward ---- */

template <typename T> struct forward_args {
    rows_device rows;
    dropout_device dropout;
    int channels;
    float eps;
    const float *gamma, *beta;
    const T *x, *y;             /* residual */
    const int32_t *ids, *types; /* embeddings; types NULL: 0, position or type NULL: none */
    const float *word, *position, *type;
    int first_position;
    T *sum, *out;
    float *mean, *rstd;
};

/* Sum over all threads of a line, the same bits in each. shared: one float per warp. */
template <int LINE_WARPS> static __device__ __forceinline__ float line_sum(float x, float *shared)
{
    x = warp_sum(x);
    if (LINE_WARPS == 1)
        return x;
    __syncthreads(); /* the last sum has been read */
    if (threadIdx.x % LANES == 0)
        shared[threadIdx.x / LANES] = x;
    __syncthreads();
    x = shared[0];
#pragma unroll
    for (int w = 1; w < LINE_WARPS; w++)
        x += shared[w];
    return x;
}

/* The unrounded sum of an octet: word + position + type, as far as there are tables. */
template <bool WIDE, typename T>
static __device__ __forceinline__ void embedded_sum(const forward_args<T> &a, int line,
                                                    int position, int first, float s[OCTET])
{
    const int c = a.channels;
    octet<float> w = octet_load<WIDE>(a.word + (int64_t)a.ids[line] * c, first, c);
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        s[j] = w.v[j];
    if (a.position != NULL) {
        octet<float> p =
            octet_load<WIDE>(a.position + (int64_t)(position + a.first_position) * c, first, c);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            s[j] += p.v[j];
    }
    if (a.type == NULL)
        return;
    int type = a.types == NULL ? 0 : a.types[line];
    octet<float> t = octet_load<WIDE>(a.type + (int64_t)type * c, first, c);
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        s[j] += t.v[j];
}

/* x + dropout(y). */
template <bool WIDE, typename T>
static __device__ __forceinline__ void residual_sum(const forward_args<T> &a, int line,
                                                    const float factor[OCTET], int first,
                                                    float s[OCTET])
{
    const int64_t at = (int64_t)line * a.channels;
    octet<T> x = octet_load<WIDE>(a.x + at, first, a.channels);
    octet<T> y = octet_load<WIDE>(a.y + at, first, a.channels);
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        s[j] = octet_at(x, j) + octet_at(y, j) * factor[j];
}

/* Filler: zeros, whatever was found. */
template <int OCTETS, int LINE_WARPS, bool WIDE, typename T>
static __device__ void forward_filler(const forward_args<T> &a, int line, int thread)
{
    const int64_t at = (int64_t)line * a.channels;
    float zero[OCTET];
    octet_zero(zero);
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        int first = (thread + k * LANES * LINE_WARPS) * OCTET;
        if (first < a.channels) {
            octet_store<WIDE>(a.sum + at, first, a.channels, zero);
            octet_store<WIDE>(a.out + at, first, a.channels, zero);
        }
    }
    if (thread == 0)
        a.mean[line] = a.rstd[line] = 0.0f;
}

/* out = norm(sum) gamma + beta, EMBED: through dropout. A line for LINE_WARPS warps. */
template <typename T, int OCTETS, int LINE_WARPS, bool WIDE, bool EMBED>
static __global__ void __launch_bounds__(THREADS) norm_forward(forward_args<T> a)
{
    SHARED_ARRAY(float, shared, WARPS);
    const int line = LINE_WARPS == 1 ? (int)(blockIdx.x * WARPS + threadIdx.x / LANES)
                                     : (int)blockIdx.x;
    const int thread = (int)(threadIdx.x % (LANES * LINE_WARPS)), c = a.channels;
    if (line >= a.rows.lines)
        return;
    const int row = a.rows.row_of[line];
    if (row < 0) {
        forward_filler<OCTETS, LINE_WARPS, WIDE>(a, line, thread);
        return;
    }
    const int position = line - a.rows.begin[row];
    const int64_t at = (int64_t)line * c;
    const uint64_t key = dropout_key(a.dropout);
    float s[OCTETS][OCTET], factor[OCTET];

    float total = 0.0f;
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        const int first = (thread + k * LANES * LINE_WARPS) * OCTET;
        if (first >= c)
            continue;
        if (EMBED) {
            embedded_sum<WIDE>(a, line, position, first, s[k]);
        } else {
            dropout_factors<WIDE>(a.dropout, key, row, position, c, first, factor);
            residual_sum<WIDE>(a, line, factor, first, s[k]);
        }
        octet_store<WIDE>(a.sum + at, first, c, s[k]);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            total += s[k][j]; /* zeros behind the line's end */
    }
    const float mean = line_sum<LINE_WARPS>(total, shared) / (float)c;

    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        const int first = (thread + k * LANES * LINE_WARPS) * OCTET;
#pragma unroll
        for (int j = 0; j < OCTET; j++) {
            if (first + (WIDE ? 0 : j) < c)
                squares += (s[k][j] - mean) * (s[k][j] - mean);
        }
    }
    const float rstd = 1.0f / sqrtf(line_sum<LINE_WARPS>(squares, shared) / (float)c + a.eps);
    if (thread == 0) {
        a.mean[line] = mean;
        a.rstd[line] = rstd;
    }

#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        const int first = (thread + k * LANES * LINE_WARPS) * OCTET;
        if (first >= c)
            continue;
        const octet<float> gamma = octet_load<WIDE>(a.gamma, first, c),
                           beta = octet_load<WIDE>(a.beta, first, c);
        if (EMBED)
            dropout_factors<WIDE>(a.dropout, key, row, position, c, first, factor);
#pragma unroll
        for (int j = 0; j < OCTET; j++) {
            s[k][j] = (s[k][j] - mean) * rstd * gamma.v[j] + beta.v[j];
            if (EMBED)
                s[k][j] *= factor[j];
        }
        octet_store<WIDE>(a.out + at, first, c, s[k]);
    }
}

/* The kernel that fits a line of c channels: CALL(OCTETS, LINE_WARPS, WIDE). */
#define LINE_SHAPE(c, wide, CALL)                                                                  \
    do {                                                                                           \
        if (!(wide) && (c) <= SHORT_LINE)                                                          \
            CALL(4, 1, false);                                                                     \
        else if ((c) <= 2 * TILE)                                                                  \
            CALL(2, 1, true);                                                                      \
        else if ((c) <= 3 * TILE)                                                                  \
            CALL(3, 1, true);                                                                      \
        else if ((c) <= SHORT_LINE)                                                                \
            CALL(4, 1, true);                                                                      \
        else if ((wide) && (c) <= WARPS * TILE)                                                    \
            CALL(1, WARPS, true);                                                                  \
        else                                                                                       \
            CALL(4, WARPS, false);                                                                 \
    } while (0)

static enum status check_channels(int channels)
{
    if (channels > LONGEST_LINE)
        return status_fail(STATUS_UNAVAILABLE,
                           "lines of %d channels: the CUDA backend has norms of %d", channels,
                           (int)LONGEST_LINE);
    return STATUS_OK;
}

template <typename T, bool EMBED>
static void launch_forward(const forward_args<T> &a, bool wide, cudaStream_t stream)
{
    if (a.rows.lines == 0)
        return;
    const unsigned lines = (unsigned)a.rows.lines;
#define FORWARD(OCTETS, LINE_WARPS, WIDE)                                                          \
    LAUNCH((norm_forward<T, OCTETS, LINE_WARPS, WIDE, EMBED>),                                     \
           (LINE_WARPS) == 1 ? (lines + WARPS - 1) / WARPS : lines, THREADS, 0, stream, a)
    LINE_SHAPE(a.channels, wide, FORWARD);
#undef FORWARD
}

extern "C" enum status cuda_embed(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                  const int32_t *ids, const int32_t *types, const float *word,
                                  const float *position, const float *type, int first_position,
                                  const float *gamma, const float *beta, float eps,
                                  const struct dropout *dropout, act *sum, float *mean, float *rstd,
                                  act *out)
{
    rows_device lines;
    (void)ids; /* the pass has them */
    TRY(ctx_rows(ctx, rows, &lines));
    TRY(check_channels(channels));
    const bool wide = lines_are_wide(
        channels, (uintptr_t)word | (uintptr_t)position | (uintptr_t)type | (uintptr_t)gamma |
                      (uintptr_t)beta | (uintptr_t)sum | (uintptr_t)out);
    FOR_ACT(ctx, {
        forward_args<T> a = {};
        a.rows = lines;
        a.dropout = ctx_dropout(ctx, dropout);
        a.channels = channels;
        a.eps = eps;
        a.gamma = gamma;
        a.beta = beta;
        a.ids = ctx->ids;
        a.types = types == NULL ? NULL : ctx->types;
        a.word = word;
        a.position = position;
        a.type = type;
        a.first_position = first_position;
        a.sum = (T *)sum;
        a.out = (T *)out;
        a.mean = mean;
        a.rstd = rstd;
        launch_forward<T, true>(a, wide, ctx->stream);
    });
    return launched("embeddings");
}

extern "C" enum status cuda_residual_norm(struct kernel_ctx *ctx, const struct rows *rows,
                                          int channels, const act *x, const act *y,
                                          const float *gamma, const float *beta, float eps,
                                          const struct dropout *dropout, act *sum, float *mean,
                                          float *rstd, act *out)
{
    rows_device lines;
    TRY(ctx_rows(ctx, rows, &lines));
    TRY(check_channels(channels));
    const bool wide = lines_are_wide(channels, (uintptr_t)x | (uintptr_t)y | (uintptr_t)gamma |
                                                   (uintptr_t)beta | (uintptr_t)sum |
                                                   (uintptr_t)out);
    FOR_ACT(ctx, {
        forward_args<T> a = {};
        a.rows = lines;
        a.dropout = ctx_dropout(ctx, dropout);
        a.channels = channels;
        a.eps = eps;
        a.gamma = gamma;
        a.beta = beta;
        a.x = (const T *)x;
        a.y = (const T *)y;
        a.sum = (T *)sum;
        a.out = (T *)out;
        a.mean = mean;
        a.rstd = rstd;
        launch_forward<T, false>(a, wide, ctx->stream);
    });
    return launched("residual and norm");
}

/* ---- chunks of pieces ---- */

/* The pieces [first, last) of a cut, and how lines belong to them. With rest, the lines behind the
 * last piece (filler) count as one piece more, which has no sums. */
struct piece_lines {
    const int32_t *begin; /* (pieces + 1), device; NULL: pieces without lines */
    int pieces, first, last, lines;
    bool rest;
};

struct chunk {
    int piece, line, lines;
};

static __device__ __forceinline__ int piece_begin(const piece_lines &p, int piece)
{
    if (piece == 0 || p.begin == NULL)
        return 0;
    return piece <= p.pieces ? p.begin[piece] : p.lines;
}

static __device__ __forceinline__ int piece_slot(const piece_lines &p, int piece)
{
    return piece_begin(p, piece) / CHUNK - piece_begin(p, p.first) / CHUNK + piece - p.first;
}

/* The chunk of a slot; lines 0: none. */
static __device__ __forceinline__ chunk chunk_of_slot(const piece_lines &p, int slot)
{
    int low = p.first,
        high = p.last + (p.rest && p.last == p.pieces); /* the piece is in [low, high) */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (piece_slot(p, middle) <= slot)
            low = middle;
        else
            high = middle;
    }
    chunk c;
    c.piece = low;
    c.line = piece_begin(p, low) + (slot - piece_slot(p, low)) * CHUNK;
    c.lines = piece_begin(p, low + 1) - c.line;
    c.lines = c.lines > CHUNK ? CHUNK : c.lines < 0 ? 0 : c.lines;
    return c;
}

static int slots_of(int64_t lines, int pieces)
{
    return (int)(lines / CHUNK) + pieces + 1;
}

static piece_lines group_of_pieces(const struct cut_device *cut, bool by_row, int64_t lines,
                                   int first, bool rest)
{
    piece_lines p;
    p.begin = by_row ? cut->row : cut->token;
    p.pieces = cut->pieces;
    p.first = first;
    p.last = first + GROUP < cut->pieces ? first + GROUP : cut->pieces;
    p.lines = (int)lines;
    p.rest = rest;
    return p;
}

/* Sums of more lines for columns [first, first + n): (pieces of the group, chunks, n). */
struct more_sums {
    const float *partial;
    int first, n, chunks;
};

/* Add the slots of each piece, and put the sums where the cut says. partial (slots, sets, n): set s
 * belongs to the parameter at offset[s] (< 0: to none). A block has 32 columns of one set. */
struct finish_args {
    piece_lines pieces;
    cut_device cut;
    const float *partial;
    more_sums more; /* of the first set; n 0: none */
    int64_t offset[2];
    int sets, n;
};

static __global__ void __launch_bounds__(FINISH_WARPS *LANES) finish(finish_args a)
{
    SHARED_ARRAY(float, shared, FINISH_WARPS *LANES);
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    const int e = (int)blockIdx.x * LANES + lane, set = (int)blockIdx.y;
    const int64_t offset = set == 0 ? a.offset[0] : a.offset[1];
    if (offset < 0)
        return;
    for (int piece = a.pieces.first; piece < a.pieces.last; piece++) {
        const int lines = piece_begin(a.pieces, piece + 1) - piece_begin(a.pieces, piece);
        const int slot = piece_slot(a.pieces, piece), chunks = (lines + CHUNK - 1) / CHUNK;
        float sum = 0.0f;
        if (e < a.n) {
            for (int k = warp; k < chunks; k += FINISH_WARPS)
                sum += a.partial[((int64_t)(slot + k) * a.sets + set) * a.n + e];
            const int at = e - a.more.first;
            if (at >= 0 && at < a.more.n) {
                const int64_t before = (int64_t)(piece - a.pieces.first) * a.more.chunks;
                for (int k = warp; k < a.more.chunks; k += FINISH_WARPS)
                    sum += a.more.partial[(before + k) * a.more.n + at];
            }
        }
        shared[warp * LANES + lane] = sum;
        __syncthreads();
        if (warp == 0 && e < a.n) {
            for (int w = 1; w < FINISH_WARPS; w++)
                sum += shared[w * LANES + lane];
            cut_put(a.cut, piece, offset + e, sum);
        }
        __syncthreads();
    }
}

static void launch_finish(const struct kernel_ctx *ctx, const piece_lines *pieces,
                          const float *partial, int sets, int n, int64_t offset0, int64_t offset1,
                          const more_sums *more = NULL)
{
    if (pieces->last == pieces->first || n == 0)
        return;
    finish_args a = {};
    if (more != NULL)
        a.more = *more;
    a.pieces = *pieces;
    a.cut = ctx->cut;
    a.partial = partial;
    a.offset[0] = offset0;
    a.offset[1] = offset1;
    a.sets = sets;
    a.n = n;
    LAUNCH(finish, dim3((unsigned)((n + LANES - 1) / LANES), (unsigned)sets), FINISH_WARPS * LANES,
           0, ctx->stream, a);
}

/* ---- column sums ---- */

template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    column_chunks(piece_lines pieces, const T *x, int64_t stride, int n, float *partial)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const chunk c = chunk_of_slot(pieces, (int)blockIdx.x);
    if (c.lines == 0)
        return;
    const int tile = (int)blockIdx.y * TILE, warp = (int)threadIdx.x / LANES;
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET;
    float sum[OCTET];
    octet_zero(sum);
    if (first < n) {
#pragma unroll
        for (int k = 0; k < CHUNK / WARPS; k++) {
            const int l = warp + k * WARPS;
            if (l >= c.lines)
                continue;
            octet<T> v = octet_load<WIDE>(x + (c.line + l) * stride, first, n);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                sum[j] += octet_at(v, j);
        }
    }
    const float total = tile_sum(sum, shared);
    const int e = tile + (int)threadIdx.x;
    if (e < n)
        partial[(int64_t)blockIdx.x * n + e] = total;
}

/* The same of a table's lines: chunk blockIdx.x % chunks of piece blockIdx.x / chunks; x (pieces,
 * lines) lines of `stride`. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS)
    table_chunks(int lines, int chunks, const T *x, int64_t stride, int n, float *partial)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const int tile = (int)blockIdx.y * TILE, warp = (int)threadIdx.x / LANES;
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET;
    const int line = (int)blockIdx.x % chunks * CHUNK;
    x += ((int64_t)((int)blockIdx.x / chunks) * lines + line) * stride;
    float sum[OCTET];
    octet_zero(sum);
    if (first < n) {
#pragma unroll
        for (int k = 0; k < CHUNK / WARPS; k++) {
            const int l = warp + k * WARPS;
            if (line + l >= lines)
                continue;
            octet<T> v = octet_load<WIDE>(x + l * stride, first, n);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                sum[j] += octet_at(v, j);
        }
    }
    const float total = tile_sum(sum, shared);
    const int e = tile + (int)threadIdx.x;
    if (e < n)
        partial[(int64_t)blockIdx.x * n + e] = total;
}

/* Sums of the group's lines of a table, for what it has of columns [at, at + n). */
template <typename T>
static more_sums launch_table_chunks(const struct kernel_ctx *ctx, const piece_lines *pieces,
                                     const struct table_lines *more, int at, int n, float *partial)
{
    more_sums sums = {};
    const int end = more->first + more->n < at + n ? more->first + more->n : at + n;
    const int begin = more->first > at ? more->first : at;
    if (begin >= end || more->lines == 0)
        return sums;
    sums.partial = partial;
    sums.first = begin - at;
    sums.n = end - begin;
    sums.chunks = (more->lines + CHUNK - 1) / CHUNK;
    const T *x = (const T *)more->dy + pieces->first * (more->lines * more->dy_stride) + begin -
                 more->first;
    const dim3 grid((unsigned)((pieces->last - pieces->first) * sums.chunks),
                    (unsigned)((sums.n + TILE - 1) / TILE));
    if (lines_are_wide(more->dy_stride, (uintptr_t)x) && sums.n % OCTET == 0)
        LAUNCH((table_chunks<T, true>), grid, THREADS, 0, ctx->stream, more->lines, sums.chunks, x,
               more->dy_stride, sums.n, partial);
    else
        LAUNCH((table_chunks<T, false>), grid, THREADS, 0, ctx->stream, more->lines, sums.chunks,
               x, more->dy_stride, sums.n, partial);
    return sums;
}

extern "C" enum status cuda_column_sums(struct kernel_ctx *ctx, int64_t lines, int n, const act *dy,
                                        int64_t offset, bool by_row, const struct table_lines *more)
{
    const int chunks = more == NULL ? 0 : (more->lines + CHUNK - 1) / CHUNK;
    for (int first = 0; first < ctx->cut.pieces; first += GROUP) {
        piece_lines pieces = group_of_pieces(&ctx->cut, by_row, lines, first, false);
        const int slots = slots_of(lines, pieces.last - first);
        const int tables = (pieces.last - first) * chunks;
        if (dy == NULL)
            pieces.begin = NULL;
        /* As many columns at a time as the scratch has room for: a multiple of the tile. */
        int64_t most = ctx->scratch_floats / (slots + tables) / TILE * TILE;
        if (most == 0)
            return status_fail(STATUS_ARG, "sums of %lld lines need more than %lld floats",
                               (long long)lines, (long long)ctx->scratch_floats);
        for (int64_t at = 0; at < n; at += most) {
            const int part = (int)(n - at < most ? n - at : most);
            const dim3 grid((unsigned)slots, (unsigned)((part + TILE - 1) / TILE));
            more_sums sums = {};
            FOR_ACT(ctx, {
                const T *x = dy == NULL ? NULL : (const T *)dy + at;
                if (more != NULL)
                    sums = launch_table_chunks<T>(ctx, &pieces, more, (int)at, part,
                                                  ctx->scratch + (int64_t)slots * part);
                if (x != NULL && lines_are_wide(n, (uintptr_t)x) && part % OCTET == 0)
                    LAUNCH((column_chunks<T, true>), grid, THREADS, 0, ctx->stream, pieces, x,
                           (int64_t)n, part, ctx->scratch);
                else if (x != NULL)
                    LAUNCH((column_chunks<T, false>), grid, THREADS, 0, ctx->stream, pieces, x,
                           (int64_t)n, part, ctx->scratch);
            });
            launch_finish(ctx, &pieces, ctx->scratch, 1, part, offset + at, -1, &sums);
        }
    }
    return launched("column sums");
}

/* ---- norm backward ---- */

template <typename T> struct backward_args {
    piece_lines pieces;
    rows_device rows;
    dropout_device dropout;
    int channels;
    const T *da, *db, *sum; /* db may be NULL */
    const float *mean, *rstd, *gamma;
    T *dx, *dy;     /* residual; dx may be da */
    float *stats;   /* embeddings: (lines, 2), what embed_gradient() needs */
    float *partial; /* (slots, 2, C): gamma's and beta's sums */
};

template <int OCTETS, int LINE_WARPS, bool WIDE, typename T>
static __device__ void backward_filler(const backward_args<T> &a, int line, int thread)
{
    const int64_t at = (int64_t)line * a.channels;
    float zero[OCTET];
    octet_zero(zero);
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        int first = (thread + k * LANES * LINE_WARPS) * OCTET;
        if (first < a.channels) {
            octet_store<WIDE>(a.dx + at, first, a.channels, zero);
            octet_store<WIDE>(a.dy + at, first, a.channels, zero);
        }
    }
}

/* One line; adds to the thread's sums of gamma and beta. */
template <typename T, int OCTETS, int LINE_WARPS, bool WIDE, bool EMBED>
static __device__ __forceinline__ void
backward_line(const backward_args<T> &a, int line, int thread, uint64_t key, float *shared,
              float dgamma[OCTETS][OCTET], float dbeta[OCTETS][OCTET])
{
    const int c = a.channels, row = a.rows.row_of[line];
    if (row < 0) {
        if (!EMBED)
            backward_filler<OCTETS, LINE_WARPS, WIDE>(a, line, thread);
        return;
    }
    const int position = line - a.rows.begin[row];
    const int64_t at = (int64_t)line * c;
    const float mean = a.mean[line], rstd = a.rstd[line];
    octet<T> x[OCTETS];
    float g[OCTETS][OCTET], factor[OCTET];

    float sum = 0.0f, dot = 0.0f;
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        const int first = (thread + k * LANES * LINE_WARPS) * OCTET;
        if (first >= c)
            continue;
        x[k] = octet_load<WIDE>(a.sum + at, first, c);
        const octet<T> da = octet_load<WIDE>(a.da + at, first, c);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            g[k][j] = octet_at(da, j);
        if (a.db != NULL) {
            const octet<T> db = octet_load<WIDE>(a.db + at, first, c);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                g[k][j] += octet_at(db, j);
        }
        if (EMBED) {
            dropout_factors<WIDE>(a.dropout, key, row, position, c, first, factor);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                g[k][j] *= factor[j];
        }
        const octet<float> gamma = octet_load<WIDE>(a.gamma, first, c);
#pragma unroll
        for (int j = 0; j < OCTET; j++) { /* behind the line's end g is zero */
            const float hat = (octet_at(x[k], j) - mean) * rstd;
            dgamma[k][j] += g[k][j] * hat;
            dbeta[k][j] += g[k][j];
            g[k][j] *= gamma.v[j];
            sum += g[k][j];
            dot += g[k][j] * hat;
        }
    }
    sum = line_sum<LINE_WARPS>(sum, shared) / (float)c;
    dot = line_sum<LINE_WARPS>(dot, shared) / (float)c;
    if constexpr (EMBED) {
        if (thread == 0) {
            a.stats[2 * (int64_t)line] = sum;
            a.stats[2 * (int64_t)line + 1] = dot;
        }
    } else {
#pragma unroll
        for (int k = 0; k < OCTETS; k++) {
            const int first = (thread + k * LANES * LINE_WARPS) * OCTET;
            if (first >= c)
                continue;
#pragma unroll
            for (int j = 0; j < OCTET; j++) {
                const float hat = (octet_at(x[k], j) - mean) * rstd;
                g[k][j] = rstd * (g[k][j] - sum - hat * dot);
            }
            octet_store<WIDE>(a.dx + at, first, c, g[k]);
            dropout_factors<WIDE>(a.dropout, key, row, position, c, first, factor);
#pragma unroll
            for (int j = 0; j < OCTET; j++)
                g[k][j] *= factor[j];
            octet_store<WIDE>(a.dy + at, first, c, g[k]);
        }
    }
}

/* A block has one chunk of lines: LINE_WARPS 1: its warps take lines in turn; else one line at a
 * time. */
template <typename T, int OCTETS, int LINE_WARPS, bool WIDE, bool EMBED>
static __global__ void __launch_bounds__(THREADS) norm_backward(backward_args<T> a)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const chunk c = chunk_of_slot(a.pieces, (int)blockIdx.x);
    if (c.lines == 0)
        return;
    const int thread = (int)(threadIdx.x % (LANES * LINE_WARPS));
    const uint64_t key = dropout_key(a.dropout);
    float dgamma[OCTETS][OCTET], dbeta[OCTETS][OCTET];
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        octet_zero(dgamma[k]);
        octet_zero(dbeta[k]);
    }
    for (int l = LINE_WARPS == 1 ? (int)threadIdx.x / LANES : 0; l < c.lines;
         l += WARPS / LINE_WARPS)
        backward_line<T, OCTETS, LINE_WARPS, WIDE, EMBED>(a, c.line + l, thread, key, shared,
                                                          dgamma, dbeta);
    if (c.piece == a.pieces.pieces)
        return; /* filler */

    float *to = a.partial + (int64_t)blockIdx.x * 2 * a.channels;
#pragma unroll
    for (int k = 0; k < OCTETS; k++) {
        if (LINE_WARPS == 1) {
            const int e = k * TILE + (int)threadIdx.x;
            if (k * TILE >= a.channels)
                continue;
            const float gamma = tile_sum(dgamma[k], shared), beta = tile_sum(dbeta[k], shared);
            if (e < a.channels) {
                to[e] = gamma;
                to[a.channels + e] = beta;
            }
        } else {
            const int first = (thread + k * LANES * LINE_WARPS) * OCTET;
            if (first < a.channels) {
                octet_store<WIDE>(to, first, a.channels, dgamma[k]);
                octet_store<WIDE>(to + a.channels, first, a.channels, dbeta[k]);
            }
        }
    }
}

/* What the embeddings' backward keeps of each token, in front of the partial sums. */
static int64_t stats_floats(int64_t lines)
{
    return (lines + 1) / 2 * 4; /* the partial sums stay aligned */
}

extern "C" int64_t cuda_norm_scratch_floats(const struct kernel_opts *opts)
{
    if (!opts->training)
        return 0;
    int64_t lines = opts->max_tokens > opts->max_rows ? opts->max_tokens : opts->max_rows;
    lines += LINE_MULTIPLE;
    const int64_t width = opts->max_channels > TILE ? opts->max_channels : TILE;
    const int64_t norm = stats_floats(lines) + 2 * width * slots_of(lines, GROUP);
    const int64_t tables = GROUP * ((2 * (int64_t)opts->distances.span + CHUNK - 1) / CHUNK);
    const int64_t columns = (slots_of(lines, GROUP) + tables) * TILE; /* a tile at a time */
    return columns > norm ? columns : norm;
}

/* Lines' gradients, and gamma's and beta's sums: two kernels for each group of pieces. */
template <typename T, bool EMBED>
static enum status launch_backward(const struct kernel_ctx *ctx, backward_args<T> a, bool wide,
                                   bool by_row, int64_t gamma_offset, int64_t beta_offset)
{
    const int c = a.channels;
    const int64_t room = ctx->scratch_floats - (a.partial - ctx->scratch);
    int first = 0;
    do {
        a.pieces = group_of_pieces(&ctx->cut, by_row, a.rows.lines, first, true);
        const int slots = slots_of(a.rows.lines, a.pieces.last - first);
        if ((int64_t)slots * 2 * c > room)
            return status_fail(STATUS_ARG,
                               "a norm's backward of %d lines of %d channels: room for %lld floats",
                               a.rows.lines, c, (long long)room);
#define BACKWARD(OCTETS, LINE_WARPS, WIDE)                                                         \
    LAUNCH((norm_backward<T, OCTETS, LINE_WARPS, WIDE, EMBED>), (unsigned)slots, THREADS, 0,       \
           ctx->stream, a)
        LINE_SHAPE(c, wide, BACKWARD);
#undef BACKWARD
        launch_finish(ctx, &a.pieces, a.partial, 2, c, gamma_offset, beta_offset);
        first += GROUP;
    } while (first < ctx->cut.pieces);
    return STATUS_OK;
}

extern "C" enum status cuda_residual_norm_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                                   int channels, const act *da, const act *db,
                                                   const act *sum, const float *mean,
                                                   const float *rstd, const float *gamma,
                                                   const struct dropout *dropout, act *dx, act *dy,
                                                   int64_t gamma_offset, int64_t beta_offset,
                                                   bool by_row, const struct grad_cut *cut)
{
    rows_device lines;
    (void)cut; /* the pass has it */
    TRY(ctx_rows(ctx, rows, &lines));
    TRY(check_channels(channels));
    const bool wide = lines_are_wide(channels, (uintptr_t)da | (uintptr_t)db | (uintptr_t)sum |
                                                   (uintptr_t)gamma | (uintptr_t)dx |
                                                   (uintptr_t)dy);
    FOR_ACT(ctx, {
        backward_args<T> a = {};
        a.rows = lines;
        a.dropout = ctx_dropout(ctx, dropout);
        a.channels = channels;
        a.da = (const T *)da;
        a.db = (const T *)db;
        a.sum = (const T *)sum;
        a.mean = mean;
        a.rstd = rstd;
        a.gamma = gamma;
        a.dx = (T *)dx;
        a.dy = (T *)dy;
        a.partial = ctx->scratch;
        TRY((launch_backward<T, false>(ctx, a, wide, by_row, gamma_offset, beta_offset)));
    });
    return launched("backward of residual and norm");
}

/* ---- embedding gradients ---- */

template <typename T> struct embed_sums {
    backward_args<T> norm; /* stats are there */
    cut_device cut;
    const int32_t *ids, *types; /* types NULL: 0 */
    int64_t offset;             /* of the table in the flat buffers */
    int table_rows;
    bool wide_table;
};

/* to += the gradient of the sum of the token at `line`, position p of a row. */
template <bool WIDE, typename T>
static __device__ __forceinline__ void embed_gradient(const backward_args<T> &a, uint64_t key,
                                                      const octet<float> &gamma, int line, int row,
                                                      int p, int first, float to[OCTET])
{
    const int c = a.channels;
    const int64_t at = (int64_t)line * c;
    const float mean = a.mean[line], rstd = a.rstd[line];
    const float sum = a.stats[2 * (int64_t)line], dot = a.stats[2 * (int64_t)line + 1];
    const octet<T> x = octet_load<WIDE>(a.sum + at, first, c),
                   da = octet_load<WIDE>(a.da + at, first, c);
    float g[OCTET], factor[OCTET];
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        g[j] = octet_at(da, j);
    if (a.db != NULL) {
        const octet<T> db = octet_load<WIDE>(a.db + at, first, c);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            g[j] += octet_at(db, j);
    }
    dropout_factors<WIDE>(a.dropout, key, row, p, c, first, factor);
#pragma unroll
    for (int j = 0; j < OCTET; j++) {
        const float hat = (octet_at(x, j) - mean) * rstd;
        to[j] += rstd * (g[j] * factor[j] * gamma.v[j] - sum - hat * dot);
    }
}

/* cut_put() of an octet. some false: the sum is zero, so nothing needs adding. */
static __device__ __forceinline__ void put_octet(const cut_device &cut, int piece, int64_t at,
                                                 int n, bool wide, bool some, const float x[OCTET])
{
    if (!wide) {
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            if (j < n)
                cut_put(cut, piece, at + j, x[j]);
        return;
    }
    float *to = cut.buffer[cut.to[piece]] + at;
    float y[OCTET];
    if (!cut.add[piece]) {
        octet_store<true>(to, 0, OCTET, x);
    } else if (some) {
        const octet<float> old = octet_load<true>(to, 0, OCTET);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            y[j] = old.v[j] + x[j];
        octet_store<true>(to, 0, OCTET, y);
    }
    for (int m = cut.merge_begin[piece]; m < cut.merge_begin[piece + 1]; m++) {
        float *into = cut.buffer[cut.merge_to[m]] + at;
        const octet<float> a = octet_load<true>(into, 0, OCTET),
                           b = octet_load<true>(cut.buffer[cut.merge_from[m]] + at, 0, OCTET);
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            y[j] = a.v[j] + b.v[j];
        octet_store<true>(into, 0, OCTET, y);
    }
}

/* Whole warp: the tokens of this id in a piece, [begin, end) of cut.order; 0, 0: none. Each round
 * narrows [low, high), where the first segment with an id of at least this one is, 32 times. */
static __device__ __forceinline__ void find_segment(const cut_device &cut, const int32_t *ids,
                                                    int piece, int id, int *begin, int *end)
{
    const int lane = (int)threadIdx.x % LANES, last = cut.segment_begin[piece + 1];
    int low = cut.segment_begin[piece], high = last;
    while (low < high) {
        const int step = (high - low + LANES - 1) / LANES, at = low + lane * step;
        const bool less = at < high && ids[cut.order[cut.segment[at]]] < id;
        const int count = __popc(__ballot_sync(0xFFFFFFFFu, less));
        if (count == 0) {
            high = low;
        } else {
            const int next = low + count * step;
            high = next < high ? next : high;
            low += (count - 1) * step + 1;
        }
    }
    const bool found = low < last && ids[cut.order[cut.segment[low]]] == id;
    *begin = found ? cut.segment[low] : 0;
    *end = found ? cut.segment[low + 1] : 0;
}

/* to += gradients of the tokens order[k], k = begin, begin + step, ... */
template <bool WIDE, typename T>
static __device__ __forceinline__ void add_tokens(const embed_sums<T> &a, uint64_t key, int begin,
                                                  int end, int step, int first, float to[OCTET])
{
    const octet<float> gamma = octet_load<WIDE>(a.norm.gamma, first, a.norm.channels);
    for (int k = begin; k < end; k += step) {
        const int line = a.cut.order[k], row = a.norm.rows.row_of[line];
        embed_gradient<WIDE>(a.norm, key, gamma, line, row, line - a.norm.rows.begin[row], first,
                             to);
    }
}

/* Word table: a block has eight rows of it, a warp each. Ids with many tokens are added by all
 * warps, and put by the row's own. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS, 3) word_sums(embed_sums<T> a)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    SHARED_ARRAY(int, begins, WARPS);
    SHARED_ARRAY(int, ends, WARPS);
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    const int c = a.norm.channels, own = (int)blockIdx.x * WARPS + warp;
    const int64_t at = a.offset + (int64_t)own * c;
    const uint64_t key = dropout_key(a.norm.dropout);
    for (int piece = 0; piece < a.cut.pieces; piece++) {
        int begin, end;
        find_segment(a.cut, a.ids, piece, own, &begin, &end);
        if (lane == 0) {
            begins[warp] = begin;
            ends[warp] = end;
        }
        if (own < a.table_rows && end - begin <= SHORT_SEGMENT) {
            for (int first = lane * OCTET; first < c; first += TILE) {
                float sum[OCTET];
                octet_zero(sum);
                if (end > begin)
                    add_tokens<WIDE>(a, key, begin, end, 1, first, sum);
                put_octet(a.cut, piece, at + first, c - first, a.wide_table, end > begin, sum);
            }
        }
        __syncthreads();
        for (int r = 0; r < WARPS; r++) {
            if (ends[r] - begins[r] <= SHORT_SEGMENT)
                continue;
            for (int tile = 0; tile < c; tile += TILE) {
                const int first = tile + lane * OCTET;
                float sum[OCTET];
                octet_zero(sum);
                if (first < c)
                    add_tokens<WIDE>(a, key, begins[r] + warp, ends[r], WARPS, first, sum);
                octet_store<true>(shared + warp * TILE, lane * OCTET, TILE, sum);
                __syncthreads();
                if (warp == r && first < c) {
                    octet_zero(sum);
                    for (int w = 0; w < WARPS; w++) {
#pragma unroll
                        for (int j = 0; j < OCTET; j++)
                            sum[j] += shared[w * TILE + lane * OCTET + j];
                    }
                    put_octet(a.cut, piece, at + first, c - first, a.wide_table, true, sum);
                }
                __syncthreads();
            }
        }
        __syncthreads(); /* begins and ends have been read */
    }
}

/* Position table: a block has a tile of one row of it; its warps take the piece's rows in turn. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS) position_sums(embed_sums<T> a, int first_position)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const int tile = (int)blockIdx.y * TILE, e = tile + (int)threadIdx.x, c = a.norm.channels;
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET;
    const int p = (int)blockIdx.x - first_position;
    const int64_t at = a.offset + (int64_t)blockIdx.x * c + e;
    const uint64_t key = dropout_key(a.norm.dropout);
    const int32_t *begin = a.norm.rows.begin;
    const bool met = p >= 0 && p < a.norm.rows.longest; /* the block has tokens at all */
    octet<float> gamma;
    if (met && first < c)
        gamma = octet_load<WIDE>(a.norm.gamma, first, c);
    for (int piece = 0; piece < a.cut.pieces; piece++) {
        float total = 0.0f;
        if (met) {
            float sum[OCTET];
            octet_zero(sum);
            for (int b = a.cut.row[piece] + (int)threadIdx.x / LANES;
                 first < c && b < a.cut.row[piece + 1]; b += WARPS) {
                const int line = begin[b] + p;
                if (line < begin[b + 1])
                    embed_gradient<WIDE>(a.norm, key, gamma, line, b, p, first, sum);
            }
            total = tile_sum(sum, shared);
        }
        if (e < c)
            cut_put(a.cut, piece, at, total);
    }
}

/* Types `type` and type + 1: two sets of sums for each chunk of lines. */
template <typename T, bool WIDE>
static __global__ void __launch_bounds__(THREADS) type_chunks(embed_sums<T> a, int type)
{
    SHARED_ARRAY(float, shared, WARPS *TILE);
    const chunk c = chunk_of_slot(a.norm.pieces, (int)blockIdx.x);
    if (c.lines == 0)
        return;
    const int n = a.norm.channels, tile = (int)blockIdx.y * TILE;
    const int first = tile + (int)(threadIdx.x % LANES) * OCTET;
    const uint64_t key = dropout_key(a.norm.dropout);
    float sum[2][OCTET];
    octet_zero(sum[0]);
    octet_zero(sum[1]);
    if (first < n) {
        const octet<float> gamma = octet_load<WIDE>(a.norm.gamma, first, n);
        for (int l = (int)threadIdx.x / LANES; l < c.lines; l += WARPS) {
            const int line = c.line + l, row = a.norm.rows.row_of[line];
            const int is = (a.types == NULL ? 0 : a.types[line]) - type;
            if (is != 0 && is != 1)
                continue;
            float g[OCTET];
            octet_zero(g);
            embed_gradient<WIDE>(a.norm, key, gamma, line, row, line - a.norm.rows.begin[row],
                                 first, g);
#pragma unroll
            for (int j = 0; j < OCTET; j++) {
                sum[0][j] += is == 0 ? g[j] : 0.0f;
                sum[1][j] += is == 1 ? g[j] : 0.0f;
            }
        }
    }
    const int e = tile + (int)threadIdx.x;
    float *to = a.norm.partial + (int64_t)blockIdx.x * 2 * n;
    for (int set = 0; set < 2; set++) {
        const float total = tile_sum(sum[set], shared);
        if (e < n)
            to[set * n + e] = total;
    }
}

template <typename T, bool WIDE>
static void launch_type_sums(const struct kernel_ctx *ctx, embed_sums<T> a, int type_rows)
{
    const int c = a.norm.channels, tiles = (c + TILE - 1) / TILE;
    for (int type = 0; type < type_rows; type += 2) {
        for (int first = 0; first < ctx->cut.pieces; first += GROUP) {
            a.norm.pieces = group_of_pieces(&ctx->cut, false, a.norm.rows.lines, first, false);
            const int slots = slots_of(a.norm.rows.lines, a.norm.pieces.last - first);
            LAUNCH((type_chunks<T, WIDE>), dim3((unsigned)slots, (unsigned)tiles), THREADS, 0,
                   ctx->stream, a, type);
            launch_finish(ctx, &a.norm.pieces, a.norm.partial, 2, c, a.offset + (int64_t)type * c,
                          type + 1 < type_rows ? a.offset + (int64_t)(type + 1) * c : -1);
        }
    }
}

template <typename T, bool WIDE>
static void launch_tables(const struct kernel_ctx *ctx, embed_sums<T> a, int first_position,
                          int64_t word_offset, int word_rows, int64_t position_offset,
                          int position_rows, int64_t type_offset, int type_rows)
{
    const int c = a.norm.channels, tiles = (c + TILE - 1) / TILE;
    if (ctx->cut.pieces == 0)
        return;
    a.offset = word_offset;
    a.table_rows = word_rows;
    a.wide_table = WIDE && word_offset % 4 == 0;
    LAUNCH((word_sums<T, WIDE>), (unsigned)((word_rows + WARPS - 1) / WARPS), THREADS, 0,
           ctx->stream, a);
    a.offset = position_offset;
    if (position_offset >= 0)
        LAUNCH((position_sums<T, WIDE>), dim3((unsigned)position_rows, (unsigned)tiles), THREADS, 0,
               ctx->stream, a, first_position);
    a.offset = type_offset;
    if (type_offset >= 0)
        launch_type_sums<T, WIDE>(ctx, a, type_rows);
}

extern "C" enum status cuda_embed_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                           int channels, const int32_t *ids, const int32_t *types,
                                           const act *da, const act *db, const act *sum,
                                           const float *mean, const float *rstd, const float *gamma,
                                           const struct dropout *dropout, int first_position,
                                           int64_t word_offset, int word_rows,
                                           int64_t position_offset, int position_rows,
                                           int64_t type_offset, int type_rows, int64_t gamma_offset,
                                           int64_t beta_offset, const struct grad_cut *cut)
{
    rows_device lines;
    (void)ids; /* the pass has them and the cut */
    (void)cut;
    TRY(ctx_rows(ctx, rows, &lines));
    TRY(check_channels(channels));
    const bool wide =
        lines_are_wide(channels, (uintptr_t)da | (uintptr_t)db | (uintptr_t)sum | (uintptr_t)gamma);
    FOR_ACT(ctx, {
        embed_sums<T> a = {};
        a.norm.rows = lines;
        a.norm.dropout = ctx_dropout(ctx, dropout);
        a.norm.channels = channels;
        a.norm.da = (const T *)da;
        a.norm.db = (const T *)db;
        a.norm.sum = (const T *)sum;
        a.norm.mean = mean;
        a.norm.rstd = rstd;
        a.norm.gamma = gamma;
        a.norm.stats = ctx->scratch;
        a.norm.partial = ctx->scratch + stats_floats(lines.lines);
        a.cut = ctx->cut;
        a.ids = ctx->ids;
        a.types = types == NULL ? NULL : ctx->types;
        TRY((launch_backward<T, true>(ctx, a.norm, wide, false, gamma_offset, beta_offset)));
        if (wide)
            launch_tables<T, true>(ctx, a, first_position, word_offset, word_rows, position_offset,
                                   position_rows, type_offset, type_rows);
        else
            launch_tables<T, false>(ctx, a, first_position, word_offset, word_rows, position_offset,
                                    position_rows, type_offset, type_rows);
    });
    return launched("backward of the embeddings");
}
