/*
 * attention_relative_f32.cu - disentangled attention with float activations (fp32 and tf32), plain
 * multiply-adds. See attention_relative.cuh for the design, attention_lanes.cuh for how a warp
 * computes.
 *
 * Scores of 8 own lines and 32 other lines, a lane each: own lines times the window is made as the
 * plain product is, a lane for each line of the window, and comes to the lanes of its other lines by
 * a shuffle; of a tile's 39 lines the first 7 were made for the tile before. For other lines times
 * the window a lane reads the 8 lines that its own one meets, each neighbours of those of the next
 * lane.
 *
 * A band is dS as it is: (own line, other line), with the other lines of the longest row.
 */
#include "model/kernels/cuda/attention_lanes.cuh"
#include "model/kernels/cuda/attention_relative.cuh"

enum {
    RING = 2 * TILE,
    SHIFTED = TILE + OWN,           /* weights by line of the window, of one own line */
    WEIGHTS = OWN * (TILE + SHIFTED) /* of a warp: by other line, and shifted */
};

template <int D> static constexpr int ring_floats = RING * padded<D>::width;

/* Windows in shared memory, as in attention_relative.cu; before: own lines times the 32 lines of
 * the window ahead of those that come next. */
struct windows {
    float *own, *other;
    float before[OWN];
};

/* The lane's line of a window: that of its other line, of the tile at `other`, and the warp's first
 * own line; the one of own line i is i lines before. */
static __device__ __forceinline__ int ring_line(int other)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    return other + TILE - warp * OWN + lane;
}

template <int D>
static __device__ __forceinline__ const float *line_at(const float *window, int line)
{
    return window + (line & (RING - 1)) * padded<D>::width;
}

/* score[i] += the lane's line `mine` . line - i of the window. */
template <int D>
static __device__ __forceinline__ void add_other(float score[OWN], const float *mine,
                                                 const float *window, int line)
{
    const float *meets[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++)
        meets[i] = line_at<D>(window, line - i);
#pragma unroll 2
    for (int e = 0; e < D; e += 4) {
        const float4 a = *reinterpret_cast<const float4 *>(mine + e);
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float4 b = *reinterpret_cast<const float4 *>(meets[i] + e);
            score[i] += a.x * b.x;
            score[i] += a.y * b.y;
            score[i] += a.z * b.z;
            score[i] += a.w * b.w;
        }
    }
}

/* score[i]: the warp's own line i and the lane's other line of the tile at `other`, positions and
 * all. Called for each tile in order, from 0 on. own: the warp's first own line. */
template <int D>
static __device__ __forceinline__ void relative_scores(float score[OWN], const float *own,
                                                       const float *tile, windows &w, int other)
{
    const int lane = (int)threadIdx.x % 32, line = ring_line(other);
    float now[OWN];
    if (other == 0)
        scores_of<D>(w.before, own, line_at<D>(w.own, line - TILE));
    scores<D>(score, own, tile);
    scores_of<D>(now, own, line_at<D>(w.own, line));
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const float sent = lane >= 32 - i ? w.before[i] : now[i];
        score[i] += __shfl_sync(0xFFFFFFFFu, sent, (lane - i) & 31);
        w.before[i] = now[i];
    }
    add_other<D>(score, tile + lane * padded<D>::width, w.other, line);
}

/* The warp's room for weights, the shifted ones zero where no other line comes. */
static __device__ __forceinline__ float *open_weights(float *all)
{
    float *weights = all + (int)threadIdx.x / 32 * WEIGHTS;
    for (int i = (int)threadIdx.x % 32; i < OWN * SHIFTED; i += 32)
        weights[OWN * TILE + i] = 0.0f;
    return weights;
}

/* sum[i] += dS of own line i times other lines and times the lines of the window between them. */
template <int D>
static __device__ __forceinline__ void add_both(float sum[OWN][D / 32], const float ds[OWN],
                                                float *weights, const float *tile,
                                                const float *window, int other)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    float *shifted = weights + OWN * TILE;
    const int first = other + TILE - warp * OWN - OWN;
    add_lines<D>(sum, ds, weights, tile);
#pragma unroll
    for (int i = 0; i < OWN; i++)
        shifted[i * SHIFTED + lane - i + OWN] = ds[i];
    __syncwarp();
#pragma unroll 2
    for (int j = 0; j < SHIFTED; j += 4) {
        const float *lines = line_at<D>(window, first + j);
        float x[4][D / 32];
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int c = 0; c < D / 32; c++)
                x[e][c] = lines[e * padded<D>::width + lane + 32 * c];
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float4 v = *reinterpret_cast<const float4 *>(shifted + i * SHIFTED + j);
#pragma unroll
            for (int c = 0; c < D / 32; c++) {
                sum[i][c] += v.x * x[0][c];
                sum[i][c] += v.y * x[1][c];
                sum[i][c] += v.z * x[2][c];
                sum[i][c] += v.w * x[3][c];
            }
        }
    }
    /* add_lines() waits before weights are written again, and with it for the shifted ones */
}

static int64_t band_elements(int others)
{
    return (int64_t)TILE * ((others + TILE - 1) / TILE * TILE);
}

/* The warp's lines of a tile's band, at the lane's other line; NULL: not wanted. */
static __device__ __forceinline__ float *band_of(const relative_call &call, int slot, int others)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    if (call.bands == NULL)
        return NULL;
    const int64_t tile = (int64_t)(slot - call.slot_begin) * gridDim.y + blockIdx.y;
    return (float *)call.bands + tile * call.band +
           warp * OWN * ((others + TILE - 1) / TILE * TILE) + lane;
}

static __device__ __forceinline__ void put_band(float *band, int others, int other,
                                                const float ds[OWN])
{
    if (band == NULL)
        return;
#pragma unroll
    for (int i = 0; i < OWN; i++)
        band[i * ((others + TILE - 1) / TILE * TILE) + other] = ds[i];
}

/* ---- forward. Shared memory: Q, K, V, the windows, weights. */
template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS) forward(relative_call call)
{
    DYN_SMEM(float, shared);
    const attention_place p = relative_place(call);
    const attention_call &c = call.a;
    float *out = (float *)c.forward_out;
    const int64_t out_stride = (int64_t)c.heads * c.head_size;
    if (p.filler) {
        clear_filler(p, out, p.q_begin, p.nq, out_stride, c.head_size);
        clear_filler(p, c.forward_lse, p.q_begin, p.nq, c.heads, 1);
        return;
    }
    const int q0 = p.tile * TILE;
    if (q0 >= p.nq)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int line = q0 + warp * OWN; /* the warp's first query */
    const int64_t channel = (int64_t)p.head * c.head_size;
    const float *k = (const float *)c.k + p.k_begin * c.kv_stride + channel;
    const float *v = (const float *)c.v + p.k_begin * c.kv_stride + channel;
    const decisions d = decisions_of(c, p);
    float *q_tile = shared, *k_tile = q_tile + padded<D>::tile, *v_tile = k_tile + padded<D>::tile;
    windows w;
    w.own = v_tile + padded<D>::tile;
    w.other = w.own + ring_floats<D>;
    float *weights = w.other + ring_floats<D> + warp * WEIGHTS;

    if (p.nk > 0) {
        load_tile<float, TILE, D, padded<D>>(
            q_tile, (const float *)c.q + (p.q_begin + q0) * c.q_stride + channel, c.q_stride,
            p.nq - q0, c.head_size, c.aligned);
        load_window<float, TILE, D, padded<D>>(w.own, call, TO_KEYS, -1, p.head, q0, 0);
        load_window<float, TILE, D, padded<D>>(w.other, call, TO_QUERIES, -1, p.head, q0, 0);
    }
    const float to_log2 = c.scale * log2_e();
    float sum[OWN][D / 32], most[OWN], total[OWN]; /* total: of the lane's keys */
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        most[i] = minus_infinity();
        total[i] = 0.0f;
#pragma unroll
        for (int e = 0; e < D / 32; e++)
            sum[i][e] = 0.0f;
    }
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0;
        __syncthreads(); /* nobody reads the last tile any more */
        load_tile<float, TILE, D, padded<D>>(k_tile, k + k0 * c.kv_stride, c.kv_stride, left,
                                             c.head_size, c.aligned);
        load_tile<float, TILE, D, padded<D>>(v_tile, v + k0 * c.kv_stride, c.kv_stride, left,
                                             c.head_size, c.aligned);
        load_window<float, TILE, D, padded<D>>(w.own, call, TO_KEYS, -1, p.head, q0, k0 + TILE);
        load_window<float, TILE, D, padded<D>>(w.other, call, TO_QUERIES, -1, p.head, q0,
                                               k0 + TILE);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nq)
            continue;
        float s[OWN];
        relative_scores<D>(s, q_tile + warp * OWN * padded<D>::width, k_tile, w, k0);
        softmax_so_far<D>(s, lane < left, to_log2, most, total, sum);
        if (d.threshold != 0) {
            const uint32_t kept = decide_column(d, line, k0);
#pragma unroll
            for (int i = 0; i < OWN; i++)
                if ((kept >> i & 1) == 0)
                    s[i] = 0.0f;
        }
        add_lines<D>(sum, s, weights, v_tile);
    }
    if (line < p.nq)
        store_forward<D>(c, p, line, d.scale, most, total, sum);
}

/* ---- dq, delta, and the bands of queries. Shared memory: Q, dout, K, V, the windows, weights. */
template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS) query_grads(relative_call call)
{
    DYN_SMEM(float, shared);
    const attention_place p = relative_place(call);
    const attention_call &c = call.a;
    float *dq = (float *)c.dq;
    if (p.filler) {
        clear_filler(p, dq, p.q_begin, p.nq, c.q_stride, c.head_size);
        return;
    }
    const int q0 = p.tile * TILE, slot = slot_of_row<TILE>(c.queries, p.row) + p.tile;
    if (q0 >= p.nq || slot < call.slot_begin || slot >= call.slot_end)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int line = q0 + warp * OWN;
    const int64_t channel = (int64_t)p.head * c.head_size;
    const int64_t out_stride = (int64_t)c.heads * c.head_size;
    const float *k = (const float *)c.k + p.k_begin * c.kv_stride + channel;
    const float *v = (const float *)c.v + p.k_begin * c.kv_stride + channel;
    const decisions d = decisions_of(c, p);
    float *q_tile = shared, *g_tile = q_tile + padded<D>::tile, *k_tile = g_tile + padded<D>::tile,
          *v_tile = k_tile + padded<D>::tile;
    windows w;
    w.own = v_tile + padded<D>::tile;
    w.other = w.own + ring_floats<D>;
    float *weights = open_weights(w.other + ring_floats<D>);
    float *band = band_of(call, slot, c.keys.longest);

    if (p.nk > 0) {
        load_tile<float, TILE, D, padded<D>>(
            q_tile, (const float *)c.q + (p.q_begin + q0) * c.q_stride + channel, c.q_stride,
            p.nq - q0, c.head_size, c.aligned);
        load_tile<float, TILE, D, padded<D>>(
            g_tile, (const float *)c.dout + (p.q_begin + q0) * out_stride + channel, out_stride,
            p.nq - q0, c.head_size, c.aligned);
        load_window<float, TILE, D, padded<D>>(w.own, call, TO_KEYS, -1, p.head, q0, 0);
        load_window<float, TILE, D, padded<D>>(w.other, call, TO_QUERIES, -1, p.head, q0, 0);
    }
    float sum[OWN][D / 32], lse[OWN], delta[OWN];
    query_stats(c, p, line, lse, delta);
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int e = 0; e < D / 32; e++)
            sum[i][e] = 0.0f;
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0;
        __syncthreads();
        load_tile<float, TILE, D, padded<D>>(k_tile, k + k0 * c.kv_stride, c.kv_stride, left,
                                             c.head_size, c.aligned);
        load_tile<float, TILE, D, padded<D>>(v_tile, v + k0 * c.kv_stride, c.kv_stride, left,
                                             c.head_size, c.aligned);
        load_window<float, TILE, D, padded<D>>(w.own, call, TO_KEYS, -1, p.head, q0, k0 + TILE);
        load_window<float, TILE, D, padded<D>>(w.other, call, TO_QUERIES, -1, p.head, q0,
                                               k0 + TILE);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nq)
            continue;
        float s[OWN], dp[OWN];
        relative_scores<D>(s, q_tile + warp * OWN * padded<D>::width, k_tile, w, k0);
        scores<D>(dp, g_tile + warp * OWN * padded<D>::width, v_tile);
        const uint32_t kept = d.threshold != 0 ? decide_column(d, line, k0) : 0xFFu;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float prob = exp2f((s[i] * c.scale - lse[i]) * log2_e());
            const float back = kept >> i & 1 ? dp[i] * d.scale : 0.0f;
            s[i] = lane < left ? prob * (back - delta[i]) : 0.0f;
        }
        put_band(band, c.keys.longest, k0, s);
        add_both<D>(sum, s, weights, k_tile, w.own, k0);
    }
    if (line >= p.nq)
        return;
    float factor[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++)
        factor[i] = c.scale;
    store_lines<D>(dq + p.q_begin * c.q_stride + channel, c.q_stride, line, p.nq, c.head_size, sum,
                   factor);
}

/* ---- dk, dv, and the bands of keys: own lines are keys, a lane is a query. Shared memory: K, V, Q,
 * dout, the windows, weights. */
template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS) key_grads(relative_call call)
{
    DYN_SMEM(float, shared);
    const attention_place p = relative_place(call);
    const attention_call &c = call.a;
    float *dk = (float *)c.dk, *dv = (float *)c.dv;
    if (p.filler) {
        clear_filler(p, dk, p.k_begin, p.nk, c.kv_stride, c.head_size);
        clear_filler(p, dv, p.k_begin, p.nk, c.kv_stride, c.head_size);
        return;
    }
    const int k0 = p.tile * TILE, slot = slot_of_row<TILE>(c.keys, p.row) + p.tile;
    if (k0 >= p.nk || slot < call.slot_begin || slot >= call.slot_end)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int line = k0 + warp * OWN; /* the warp's first key */
    const int64_t channel = (int64_t)p.head * c.head_size;
    const int64_t out_stride = (int64_t)c.heads * c.head_size;
    const int64_t kv_at = p.k_begin * c.kv_stride + channel;
    const float *q = (const float *)c.q + p.q_begin * c.q_stride + channel;
    const float *dout = (const float *)c.dout + p.q_begin * out_stride + channel;
    const decisions d = decisions_of(c, p);
    float *k_tile = shared, *v_tile = k_tile + padded<D>::tile, *q_tile = v_tile + padded<D>::tile,
          *g_tile = q_tile + padded<D>::tile;
    windows w;
    w.own = g_tile + padded<D>::tile;
    w.other = w.own + ring_floats<D>;
    float *weights = open_weights(w.other + ring_floats<D>);
    float *band = band_of(call, slot, c.queries.longest);

    if (p.nq > 0) {
        const int64_t at = kv_at + k0 * c.kv_stride;
        load_tile<float, TILE, D, padded<D>>(k_tile, (const float *)c.k + at, c.kv_stride,
                                             p.nk - k0, c.head_size, c.aligned);
        load_tile<float, TILE, D, padded<D>>(v_tile, (const float *)c.v + at, c.kv_stride,
                                             p.nk - k0, c.head_size, c.aligned);
        load_window<float, TILE, D, padded<D>>(w.own, call, TO_QUERIES, 1, p.head, k0, 0);
        load_window<float, TILE, D, padded<D>>(w.other, call, TO_KEYS, 1, p.head, k0, 0);
    }
    float sum_k[OWN][D / 32], sum_v[OWN][D / 32];
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int e = 0; e < D / 32; e++)
            sum_k[i][e] = sum_v[i][e] = 0.0f;
    for (int q0 = 0; q0 < p.nq; q0 += TILE) {
        const int left = p.nq - q0;
        __syncthreads();
        load_tile<float, TILE, D, padded<D>>(q_tile, q + q0 * c.q_stride, c.q_stride, left,
                                             c.head_size, c.aligned);
        load_tile<float, TILE, D, padded<D>>(g_tile, dout + q0 * out_stride, out_stride, left,
                                             c.head_size, c.aligned);
        load_window<float, TILE, D, padded<D>>(w.own, call, TO_QUERIES, 1, p.head, k0, q0 + TILE);
        load_window<float, TILE, D, padded<D>>(w.other, call, TO_KEYS, 1, p.head, k0, q0 + TILE);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nk)
            continue;
        float s[OWN], dp[OWN];
        relative_scores<D>(s, k_tile + warp * OWN * padded<D>::width, q_tile, w, q0);
        scores<D>(dp, v_tile + warp * OWN * padded<D>::width, g_tile);
        const int64_t stat = (p.q_begin + q0 + lane) * c.heads + p.head;
        const float lse = lane < left ? c.lse[stat] : -minus_infinity();
        const float delta = lane < left ? c.delta[stat] : 0.0f;
        const uint32_t kept = d.threshold != 0 ? decide_bits(d, q0 + lane, line / 8) : 0xFFu;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float prob = exp2f((s[i] * c.scale - lse) * log2_e());
            const float back = kept >> i & 1 ? dp[i] * d.scale : 0.0f;
            s[i] = kept >> i & 1 ? prob : 0.0f;
            /* Bands are summed over keys: there must be nothing behind the last. */
            dp[i] = line + i < p.nk ? prob * (back - delta) : 0.0f;
        }
        put_band(band, c.queries.longest, q0, dp);
        add_lines<D>(sum_v, s, weights, g_tile);
        add_both<D>(sum_k, dp, weights, q_tile, w.own, q0);
    }
    if (line >= p.nk)
        return;
    float factor_k[OWN], factor_v[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        factor_k[i] = c.scale;
        factor_v[i] = d.scale;
    }
    store_lines<D>(dk + kv_at, c.kv_stride, line, p.nk, c.head_size, sum_k, factor_k);
    store_lines<D>(dv + kv_at, c.kv_stride, line, p.nk, c.head_size, sum_v, factor_v);
}

/* ---- the table's gradient by offset: a warp has 8 offsets, a lane D / 32 channels. Shared memory:
 * own lines, and their dS by offset. */
template <int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 4) table_grads(side_call call)
{
    SHARED_ARRAY(float, x_tile, padded<D>::tile);
    SHARED_ARRAY(float, weights, TILE *TILE);
    const int parts = call.low + call.high, part = (int)blockIdx.x % parts;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int head = (int)blockIdx.y, heads = (int)gridDim.y;
    const int band_line = (call.other.longest + TILE - 1) / TILE * TILE;
    const segment_place place = find_segment<TILE>(call, (int)blockIdx.x / parts);
    if (place.first_row == place.end_row)
        return;
    float *partial = partial_of<TILE, D>(call, (int)blockIdx.x / parts, heads, head, part) +
                     warp * OWN * D + lane;
    const int64_t channel = (int64_t)(call.first_head + head) * call.head_size;
    float sum[OWN][D / 32];
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int e = 0; e < D / 32; e++)
            sum[i][e] = 0.0f;
    bool some = call.slot_begin == 0; /* else sums may go on from the chunk before */
    for (int row = place.first_row; row < place.end_row; row++) {
        const some_range tiles = tiles_in_segment<TILE>(call, place, row);
        const int first_own = call.own.begin[row], own = call.own.begin[row + 1] - first_own;
        const int other = call.other.begin[row + 1] - call.other.begin[row];
        const int slot = slot_of_row<TILE>(call.own, row) - call.slot_begin;
        for (int tile = tiles.begin; other > 0 && tile < tiles.end; tile++) {
            const float *x =
                (const float *)call.x + (int64_t)(first_own + tile * TILE) * call.x_stride;
            const float *band =
                (const float *)call.bands + ((int64_t)(slot + tile) * heads + head) * call.band;
            const some_range offsets = offsets_of_part<TILE>(call, part, tile, other);
            if (!some) {
#pragma unroll
                for (int i = 0; i < OWN; i++)
#pragma unroll
                    for (int e = 0; e < D / 32; e++)
                        sum[i][e] = partial[i * D + 32 * e];
            }
            some = true;
            for (int at = offsets.begin; at < offsets.end; at++) {
                __syncthreads(); /* nobody reads the last tile any more */
                load_tile<float, TILE, D, padded<D>>(x_tile, x + channel, call.x_stride,
                                                     own - tile * TILE, call.head_size,
                                                     call.aligned);
                cp_async_commit();
                for (int i = (int)threadIdx.x; i < TILE * TILE; i += ATTENTION_THREADS) {
                    const int line = i / TILE, to = (at + tile) * TILE + i % TILE + line;
                    const bool valid = tile * TILE + line < own && to >= 0 && to < other;
                    weights[i] = valid ? band[line * band_line + to] : 0.0f;
                }
                cp_async_wait<0>();
                __syncthreads();
#pragma unroll 2
                for (int line = 0; line < TILE; line++) {
                    const float *w = weights + line * TILE + warp * OWN;
                    const float4 low = *reinterpret_cast<const float4 *>(w),
                                 high = *reinterpret_cast<const float4 *>(w + 4);
#pragma unroll
                    for (int e = 0; e < D / 32; e++) {
                        const float v = x_tile[line * padded<D>::width + lane + 32 * e];
                        sum[0][e] += low.x * v;
                        sum[1][e] += low.y * v;
                        sum[2][e] += low.z * v;
                        sum[3][e] += low.w * v;
                        sum[4][e] += high.x * v;
                        sum[5][e] += high.y * v;
                        sum[6][e] += high.z * v;
                        sum[7][e] += high.w * v;
                    }
                }
            }
        }
    }
    if (!some)
        return;
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int e = 0; e < D / 32; e++)
            partial[i * D + 32 * e] = sum[i][e];
}

/* ---- launches */

template <int D> static constexpr int shared_bytes(int tiles)
{
    return (tiles * padded<D>::tile + 2 * ring_floats<D> + ATTENTION_WARPS * WEIGHTS) *
           (int)sizeof(float);
}

static dim3 grid_of_heads(const relative_call &call, const rows_device &rows, int heads)
{
    dim3 grid = attention_grid(call.a, rows, TILE);
    grid.y = (unsigned)heads;
    return grid;
}

template <int D> static cudaError_t queue_forward(const relative_call &call, cudaStream_t stream)
{
    const int bytes = shared_bytes<D>(3);
    const cudaError_t error = LAUNCH_ALLOW_SMEM((forward<D>), bytes);
    if (error == cudaSuccess)
        LAUNCH((forward<D>), attention_grid(call.a, call.a.queries, TILE), ATTENTION_THREADS, bytes,
               stream, call);
    return error;
}

template <int D>
static cudaError_t queue_query_grads(const relative_call &call, int heads, cudaStream_t stream)
{
    const int bytes = shared_bytes<D>(4);
    const cudaError_t error = LAUNCH_ALLOW_SMEM((query_grads<D>), bytes);
    if (error == cudaSuccess)
        LAUNCH((query_grads<D>), grid_of_heads(call, call.a.queries, heads), ATTENTION_THREADS,
               bytes, stream, call);
    return error;
}

template <int D>
static cudaError_t queue_key_grads(const relative_call &call, int heads, cudaStream_t stream)
{
    const int bytes = shared_bytes<D>(4);
    const cudaError_t error = LAUNCH_ALLOW_SMEM((key_grads<D>), bytes);
    if (error == cudaSuccess)
        LAUNCH((key_grads<D>), grid_of_heads(call, call.a.keys, heads), ATTENTION_THREADS, bytes,
               stream, call);
    return error;
}

template <int D>
static cudaError_t queue_table_grads(const side_call &call, int segments, int heads,
                                     cudaStream_t stream)
{
    const dim3 grid((unsigned)(segments * (call.low + call.high)), (unsigned)heads);
    LAUNCH((table_grads<D>), grid, ATTENTION_THREADS, 0, stream, call);
    return cudaSuccess;
}

template <int D> static const relative_kernels *kernels_of(void)
{
    static const relative_kernels kernels = {TILE,
                                             D,
                                             band_elements,
                                             queue_forward<D>,
                                             queue_query_grads<D>,
                                             queue_key_grads<D>,
                                             queue_table_grads<D>,
                                             queue_fold<float, TILE, D>};
    return &kernels;
}

const relative_kernels *attention_relative_f32(int head_size)
{
    return head_size <= 32 ? kernels_of<32>() : head_size <= 64 ? kernels_of<64>() : kernels_of<128>();
}
