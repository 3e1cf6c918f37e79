/*
 * attention_relative.cu - disentangled attention on the GPU: the entries, and the 16-bit kernels on
 * tensor cores. See attention_relative.cuh for the design, attention_mma.cuh for fragments.
 *
 * Shared memory: own tile (forward: Q; query_grads: Q, dout; key_grads: K, V), the other two tiles
 * of a step, and the windows of both projections, 2 T lines each. Tiles are not double-buffered: at
 * D 64 that leaves room for three blocks on a multiprocessor of a GPU with 228 KiB, whose steps hide
 * each other's waits, and takes 64 KiB at most, which every GPU has; heads of more than 64 channels
 * want up to 129 KiB.
 *
 * A warp makes the scores of its 16 own lines and 16 other lines at a time: the plain product (two
 * 16 x 8 x 16 products a step of 16 channels), own lines times 16 lines of the window (two; the 16
 * before are those of the last time) and 32 lines of the window times the other lines (four). That
 * is 4 times the products of plain scores. Sharing the last among the block's warps would want 3.5
 * times, a trip through shared memory and a barrier.
 *
 * A band is dS of 16 own lines by offset, in groups of 16 offsets: group i has offsets [16 (i - 1),
 * 16 i) less the first own line, of which other line 16 i - 16 + column + row is the one that they
 * are about. In memory the four 8 x 8 pieces of a group follow each other as the A operand has them,
 * 128 bytes each: stores of a warp are whole, and ldmatrix finds its lines.
 */
#include "model/kernels/cuda/attention_mma.cuh"
#include "model/kernels/cuda/attention_relative.cuh"

enum { RING = 2 * TILE, GROUP = 16 * 16 /* elements of a group of a band */ };

/* Blocks that a multiprocessor can hold by their registers, as in attention.cu. */
template <int D> static constexpr int forward_residents = D == 32 ? 4 : D == 64 ? 3 : 2;
template <int D> static constexpr int grad_residents = D == 32 ? 3 : 2;
/* Steps of a product that are unrolled: all that registers are left for. */
template <int D> static constexpr int unrolled = D <= 64 ? D / 16 : 2;

/* ---- skew. A quad has columns 2t and 2t + 1 of a piece's lines g and g + 8, so a shift along the
 * line moves numbers within the quad and to the next piece, a shift along the column between quads;
 * what a lane sends is chosen by where it goes. */

/* s[r][c] += x[r][16 + c - r] for 16 x 16 scores; x: own lines times 32 lines of the window, the
 * first 16 in `before`. */
static __device__ __forceinline__ void add_own(float s[2][4], const float before[2][4],
                                               const float now[2][4])
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            /* Sent: column 2t + (e or its neighbour, so that after the shift it is e's). */
            const bool odd = g & 1, wraps = 2 * t + (odd ? 1 - e : e) + g >= 8;
            const int from = (lane & ~3) | (((2 * t + e - g) & 7) >> 1);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const int piece = 1 + n - half; /* the next one's where it does not wrap */
                const float *low = piece < 2 ? before[piece] : now[piece - 2];
                const float *high = piece + 1 < 2 ? before[piece + 1] : now[piece - 1];
                const float a = odd ? low[2 * half + 1 - e] : low[2 * half + e];
                const float b = odd ? high[2 * half + 1 - e] : high[2 * half + e];
                s[n][2 * half + e] += __shfl_sync(0xFFFFFFFFu, wraps ? a : b, from);
            }
        }
}

/* s[r][c] += y[16 + c - r][c]; y: 32 lines of the window times other lines, in two products of 16
 * lines. */
static __device__ __forceinline__ void add_other(float s[2][4], const float y[2][2][4])
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const bool wraps = g > 2 * t + e;
        const int from = (((2 * t + e - g) & 7) << 2) | t;
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const int octet = 1 + n - half; /* of lines; the next one's where it does not wrap */
                const float a = y[octet / 2][n][2 * (octet % 2) + e];
                const float b = y[(octet + 1) / 2][n][2 * ((octet + 1) % 2) + e];
                s[n][2 * half + e] += __shfl_sync(0xFFFFFFFFu, wraps ? a : b, from);
            }
    }
}

/* The group of a band between 16 other lines and the next 16: band[r][u] = s[r][u + r] of dS of
 * both, as an A operand. */
template <typename T>
static __device__ __forceinline__ void make_band(uint32_t a[4], const float before[2][4],
                                                 const float now[2][4])
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float x[2][4];
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const bool odd = g & 1, wraps = 2 * t + (odd ? 1 - e : e) < g;
            const int from = (lane & ~3) | (((2 * t + e + g) & 7) >> 1);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const int piece = n + half; /* the next one's where it wraps */
                const float *low = piece < 2 ? before[piece] : now[piece - 2];
                const float *high = piece + 1 < 2 ? before[piece + 1] : now[piece - 1];
                const float p = odd ? low[2 * half + 1 - e] : low[2 * half + e];
                const float q = odd ? high[2 * half + 1 - e] : high[2 * half + e];
                x[n][2 * half + e] = __shfl_sync(0xFFFFFFFFu, wraps ? q : p, from);
            }
        }
    pack_a<T>(a, x[0], x[1]);
}

/* ---- scores of 16 own and 16 other lines, positions and all */

/* A warp's own lines as A operands, kept up to D 64. */
template <typename T, int D> struct own_lines {
    static constexpr bool keep = D <= 64;
    const T *tile;
    uint32_t a[keep ? D / 16 : 1][4];

    __device__ __forceinline__ void load(void)
    {
        if (keep) {
#pragma unroll
            for (int step = 0; step < D / 16; step++)
                load_a<T, D>(a[keep ? step : 0], tile, (int)threadIdx.x / 32 * 16, step);
        }
    }
    __device__ __forceinline__ const uint32_t *at(int step)
    {
        if (!keep)
            load_a<T, D>(a[0], tile, (int)threadIdx.x / 32 * 16, step);
        return a[keep ? step : 0];
    }
};

/* s = own lines times the 16 lines at `lines` of a tile: a multiple of 16 from its beginning, as in
 * what follows. */
template <typename T, int D>
static __device__ __forceinline__ void multiply(float s[2][4], own_lines<T, D> &own, const T *lines)
{
#pragma unroll
    for (int n = 0; n < 2; n++)
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll unrolled<D>
    for (int step = 0; step < D / 16; step++) {
        const uint32_t *a = own.at(step);
        uint32_t b[4];
        load_b<T, D>(b, lines, 0, step);
        mma_16816<T>(s[0], a, b);
        mma_16816<T>(s[1], a, b + 2);
    }
}

/* Windows in shared memory: that of the projection which own lines meet, and that of other lines.
 * before: own lines times the 16 lines of the window ahead of those that come next. */
template <typename T> struct windows {
    T *own, *other;
    float before[2][4];
};

/* Line of the ring for the offset of an other line and the warp's first own line. 16 other lines
 * from this one on have those of the 16 lines here and the 16 before. */
static __device__ __forceinline__ int ring_line(int other)
{
    return (other + TILE - (int)threadIdx.x / 32 * 16) & (RING - 1);
}

/* Once, when the first tiles are there. */
template <typename T, int D>
static __device__ __forceinline__ void begin_scores(own_lines<T, D> &own, windows<T> &w)
{
    own.load();
    multiply<T, D>(w.before, own, w.own + ring_line(-16) * D);
}

/* s = scores of the warp's own lines and other lines [other, other + 16), which are those at
 * `lines`. Called for each 16 other lines in order, from 0 on. */
template <typename T, int D>
static __device__ __forceinline__ void scores(float s[2][4], own_lines<T, D> &own, windows<T> &w,
                                              const T *lines, int other)
{
    const int ring = ring_line(other) * D, ring_before = ring_line(other - 16) * D;
    float y[2][2][4], now[2][4];
#pragma unroll
    for (int n = 0; n < 2; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
        y[0][n][0] = y[0][n][1] = y[0][n][2] = y[0][n][3] = 0.0f;
        y[1][n][0] = y[1][n][1] = y[1][n][2] = y[1][n][3] = 0.0f;
    }
#pragma unroll unrolled<D>
    for (int step = 0; step < D / 16; step++) { /* what has the other lines as its B operand */
        uint32_t a[4], b[4];
        load_b<T, D>(b, lines, 0, step);
        const uint32_t *own_a = own.at(step);
        mma_16816<T>(s[0], own_a, b);
        mma_16816<T>(s[1], own_a, b + 2);
        load_a<T, D>(a, w.other + ring_before, 0, step);
        mma_16816<T>(y[0][0], a, b);
        mma_16816<T>(y[0][1], a, b + 2);
        load_a<T, D>(a, w.other + ring, 0, step);
        mma_16816<T>(y[1][0], a, b);
        mma_16816<T>(y[1][1], a, b + 2);
    }
    add_other(s, y);
    multiply<T, D>(now, own, w.own + ring);
    add_own(s, w.before, now);
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            w.before[n][e] = now[n][e];
}

/* sum += a (16 x 16) times 16 lines of a tile. */
template <typename T, int D>
static __device__ __forceinline__ void add_product(float sum[D / 8][4], const uint32_t a[4],
                                                   const T *lines)
{
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        uint32_t b[4];
        load_b_lines<T, D>(b, lines, 0, step);
        mma_16816<T>(sum[2 * step], a, b);
        mma_16816<T>(sum[2 * step + 1], a, b + 2);
    }
}

/* ---- bands */

/* Groups of a band of rows with up to `others` other lines. */
static __host__ __device__ __forceinline__ int band_groups(int others)
{
    return (others + 15) / 16 + 1;
}

static int64_t band_elements(int others)
{
    return (int64_t)ATTENTION_WARPS * band_groups(others) * GROUP;
}

/* A warp's band on its way to memory. */
template <typename T> struct band_store {
    uint32_t *to; /* the warp's first group, the lane's words; NULL: not wanted */
    float last[2][4]; /* dS of the last 16 other lines */

    __device__ __forceinline__ void open(const relative_call &call, int slot, int others)
    {
        const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
        to = NULL;
        if (call.bands != NULL) {
            const int64_t tile = (int64_t)(slot - call.slot_begin) * gridDim.y + blockIdx.y;
            T *band = (T *)call.bands + tile * call.band + (int64_t)warp * band_groups(others) * GROUP;
            to = reinterpret_cast<uint32_t *>(band) + lane;
        }
#pragma unroll
        for (int n = 0; n < 2; n++)
            last[n][0] = last[n][1] = last[n][2] = last[n][3] = 0.0f;
    }
    /* Group i from dS of other lines [16 i, 16 i + 16) and those before; a: the same as an operand. */
    __device__ __forceinline__ void put(int i, const float s[2][4], uint32_t a[4])
    {
        make_band<T>(a, last, s);
        if (to != NULL) {
#pragma unroll
            for (int piece = 0; piece < 4; piece++)
                to[i * (GROUP / 2) + piece * 32] = a[piece];
        }
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                last[n][e] = s[n][e];
    }
};

/* ---- forward. Shared memory: Q, K, V, the windows. */
template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, forward_residents<D>)
    forward(relative_call call)
{
    DYN_SMEM(T, shared);
    const attention_place p = relative_place(call);
    const attention_call &c = call.a;
    if (p.filler) {
        const int64_t out_stride = (int64_t)c.heads * c.head_size;
        clear_filler(p, (T *)c.forward_out, p.q_begin, p.nq, out_stride, c.head_size);
        clear_filler(p, c.forward_lse, p.q_begin, p.nq, c.heads, 1);
        return;
    }
    const int q0 = p.tile * TILE;
    if (q0 >= p.nq)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int line = q0 + warp * 16; /* the warp's first query */
    const int64_t channel = (int64_t)p.head * c.head_size;
    const T *k = (const T *)c.k + p.k_begin * c.kv_stride + channel;
    const T *v = (const T *)c.v + p.k_begin * c.kv_stride + channel;
    const decisions d = decisions_of(c, p);
    T *q_tile = shared, *k_tile = shared + TILE * D, *v_tile = shared + 2 * TILE * D;
    windows<T> w;
    w.own = shared + 3 * TILE * D;
    w.other = w.own + RING * D;

    if (p.nk > 0) {
        load_tile<T, TILE, D, swizzled<D>>(
            q_tile, (const T *)c.q + (p.q_begin + q0) * c.q_stride + channel, c.q_stride,
            p.nq - q0, c.head_size, c.aligned);
        load_window<T, TILE, D, swizzled<D>>(w.own, call, TO_KEYS, -1, p.head, q0, 0);
        load_window<T, TILE, D, swizzled<D>>(w.other, call, TO_QUERIES, -1, p.head, q0, 0);
    }
    const float to_log2 = c.scale * log2_e();
    float sum[D / 8][4], most[2] = {minus_infinity(), minus_infinity()}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
    own_lines<T, D> q;
    q.tile = q_tile;
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0; /* keys of this tile and behind it */
        if (k0 > 0)
            __syncthreads(); /* nobody reads the last tile any more */
        load_tile<T, TILE, D, swizzled<D>>(k_tile, k + k0 * c.kv_stride, c.kv_stride, left,
                                           c.head_size, c.aligned);
        load_tile<T, TILE, D, swizzled<D>>(v_tile, v + k0 * c.kv_stride, c.kv_stride, left,
                                           c.head_size, c.aligned);
        load_window<T, TILE, D, swizzled<D>>(w.own, call, TO_KEYS, -1, p.head, q0, k0 + TILE);
        load_window<T, TILE, D, swizzled<D>>(w.other, call, TO_QUERIES, -1, p.head, q0, k0 + TILE);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nq)
            continue;
        if (k0 == 0)
            begin_scores<T, D>(q, w);
#pragma unroll 1
        for (int j0 = 0; j0 < TILE && j0 < left; j0 += 32) { /* keys k0 + j0 to k0 + j0 + 31 */
            float s[4][4] = {};
            /* In a loop: unrolled, the two would be interleaved and want registers for both. */
#pragma unroll 1
            for (int j = 0; j < 32; j += 16) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    s[0][e] = s[2][e];
                    s[1][e] = s[3][e];
                }
                scores<T, D>(s + 2, q, w, k_tile + (j0 + j) * D, k0 + j0 + j);
            }
            if (left - j0 < 32) {
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        if (j0 + n * 8 + 2 * t + e % 2 >= left)
                            s[n][e] = minus_infinity();
            }
            softmax_so_far<D, 4>(s, to_log2, most, total, sum);
            if (d.threshold != 0)
                drop_pieces(d, s, line + lane / 4, (k0 + j0) / 8);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                uint32_t a[4];
                pack_a<T>(a, s[2 * j], s[2 * j + 1]);
                add_product<T, D>(sum, a, v_tile + (j0 + 16 * j) * D);
            }
        }
    }
    if (line < p.nq)
        store_forward<T, D>(c, p, line, d.scale, most, total, sum);
}

/* ---- dq, delta, and the bands of queries. Shared memory: Q, dout, K, V, the windows. */
template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, grad_residents<D>)
    query_grads(relative_call call)
{
    DYN_SMEM(T, shared);
    const attention_place p = relative_place(call);
    const attention_call &c = call.a;
    T *dq = (T *)c.dq;
    if (p.filler) {
        clear_filler(p, dq, p.q_begin, p.nq, c.q_stride, c.head_size);
        return;
    }
    const int q0 = p.tile * TILE, slot = slot_of_row<TILE>(c.queries, p.row) + p.tile;
    if (q0 >= p.nq || slot < call.slot_begin || slot >= call.slot_end)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int line = q0 + warp * 16;
    const int64_t channel = (int64_t)p.head * c.head_size;
    const int64_t out_stride = (int64_t)c.heads * c.head_size;
    const int64_t kv_at = p.k_begin * c.kv_stride + channel;
    const decisions d = decisions_of(c, p);
    T *q_tile = shared, *g_tile = shared + TILE * D;
    T *k_tile = shared + 2 * TILE * D, *v_tile = shared + 3 * TILE * D;
    windows<T> w;
    w.own = shared + 4 * TILE * D;
    w.other = w.own + RING * D;

    if (p.nk > 0) {
        load_tile<T, TILE, D, swizzled<D>>(
            q_tile, (const T *)c.q + (p.q_begin + q0) * c.q_stride + channel, c.q_stride,
            p.nq - q0, c.head_size, c.aligned);
        load_tile<T, TILE, D, swizzled<D>>(
            g_tile, (const T *)c.dout + (p.q_begin + q0) * out_stride + channel, out_stride,
            p.nq - q0, c.head_size, c.aligned);
        load_window<T, TILE, D, swizzled<D>>(w.own, call, TO_KEYS, -1, p.head, q0, 0);
        load_window<T, TILE, D, swizzled<D>>(w.other, call, TO_QUERIES, -1, p.head, q0, 0);
    }
    const float to_log2 = c.scale * log2_e();
    float sum[D / 8][4], lse[2], delta[2];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
    query_stats<T>(c, p, line, lse, delta);
    own_lines<T, D> q, g;
    q.tile = q_tile;
    g.tile = g_tile;
    band_store<T> band;
    band.open(call, slot, c.keys.longest);
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0;
        if (k0 > 0)
            __syncthreads();
        const int64_t at = kv_at + k0 * c.kv_stride;
        load_tile<T, TILE, D, swizzled<D>>(k_tile, (const T *)c.k + at, c.kv_stride, left,
                                           c.head_size, c.aligned);
        load_tile<T, TILE, D, swizzled<D>>(v_tile, (const T *)c.v + at, c.kv_stride, left,
                                           c.head_size, c.aligned);
        load_window<T, TILE, D, swizzled<D>>(w.own, call, TO_KEYS, -1, p.head, q0, k0 + TILE);
        load_window<T, TILE, D, swizzled<D>>(w.other, call, TO_QUERIES, -1, p.head, q0, k0 + TILE);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nq)
            continue;
        if (k0 == 0) {
            begin_scores<T, D>(q, w);
            g.load();
        }
        uint32_t kept = 0;
#pragma unroll 1
        for (int j = 0; j < TILE && j < left; j += 16) { /* keys k0 + j to k0 + j + 15 */
            float s[2][4], dp[2][4];
            scores<T, D>(s, q, w, k_tile + j * D, k0 + j);
            multiply<T, D>(dp, g, v_tile + j * D);
            if (d.threshold != 0) /* decisions of 32 keys, half of which serve the next time */
                kept = j % 32 == 0 ? decide_bits_of_pieces(d, line + lane / 4, (k0 + j) / 8)
                                   : kept >> 8;
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const bool stays = d.threshold == 0 || (kept >> (4 * n + e) & 1);
                    const float prob = exp2f(s[n][e] * to_log2 - lse[e / 2]);
                    const float back = stays ? dp[n][e] * d.scale : 0.0f;
                    s[n][e] = prob * (back - delta[e / 2]);
                    if (j + n * 8 + 2 * t + e % 2 >= left)
                        s[n][e] = 0.0f;
                }
            uint32_t a[4];
            pack_a<T>(a, s[0], s[1]);
            add_product<T, D>(sum, a, k_tile + j * D);
            band.put((k0 + j) / 16, s, a);
            add_product<T, D>(sum, a, w.own + ring_line(k0 + j - 16) * D);
        }
    }
    if (line >= p.nq)
        return;
    if (p.nk > 0) { /* what the last keys have of the group behind them */
        const int end = (p.nk + 15) / 16;
        const float none[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
        uint32_t a[4];
        band.put(end, none, a);
        add_product<T, D>(sum, a, w.own + ring_line(16 * end - 16) * D);
    }
    const float factor[2] = {c.scale, c.scale};
    store_lines<T, D>(dq + p.q_begin * c.q_stride + channel, c.q_stride, line, p.nq, c.head_size,
                      sum, factor, c.aligned);
}

/* ---- dk, dv, and the bands of keys. Shared memory: K, V, Q, dout, the windows; behind them (float)
 * lse and delta of the queries. Scores are made transposed, for 16 queries at a time. */
template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, grad_residents<D>)
    key_grads(relative_call call)
{
    DYN_SMEM(T, shared);
    const attention_place p = relative_place(call);
    const attention_call &c = call.a;
    T *dk = (T *)c.dk, *dv = (T *)c.dv;
    if (p.filler) {
        clear_filler(p, dk, p.k_begin, p.nk, c.kv_stride, c.head_size);
        clear_filler(p, dv, p.k_begin, p.nk, c.kv_stride, c.head_size);
        return;
    }
    const int k0 = p.tile * TILE, slot = slot_of_row<TILE>(c.keys, p.row) + p.tile;
    if (k0 >= p.nk || slot < call.slot_begin || slot >= call.slot_end)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int line = k0 + warp * 16; /* the warp's first key */
    const int64_t channel = (int64_t)p.head * c.head_size;
    const int64_t out_stride = (int64_t)c.heads * c.head_size;
    const int64_t kv_at = p.k_begin * c.kv_stride + channel;
    const T *q = (const T *)c.q + p.q_begin * c.q_stride + channel;
    const T *dout = (const T *)c.dout + p.q_begin * out_stride + channel;
    const decisions d = decisions_of(c, p);
    T *k_tile = shared, *v_tile = shared + TILE * D;
    T *q_tile = shared + 2 * TILE * D, *g_tile = shared + 3 * TILE * D;
    windows<T> w;
    w.own = shared + 4 * TILE * D;
    w.other = w.own + RING * D;
    float *lse = reinterpret_cast<float *>(w.other + RING * D), *delta = lse + TILE;
    /* Each thread brings one number of a tile: lse (its power of two) or delta of one query. */
    const int stat_query = (int)threadIdx.x % TILE;
    const bool stat_lse = (int)threadIdx.x < TILE;

    if (p.nq > 0) {
        const int64_t at = kv_at + k0 * c.kv_stride;
        load_tile<T, TILE, D, swizzled<D>>(k_tile, (const T *)c.k + at, c.kv_stride, p.nk - k0,
                                           c.head_size, c.aligned);
        load_tile<T, TILE, D, swizzled<D>>(v_tile, (const T *)c.v + at, c.kv_stride, p.nk - k0,
                                           c.head_size, c.aligned);
        load_window<T, TILE, D, swizzled<D>>(w.own, call, TO_QUERIES, 1, p.head, k0, 0);
        load_window<T, TILE, D, swizzled<D>>(w.other, call, TO_KEYS, 1, p.head, k0, 0);
    }
    const float to_log2 = c.scale * log2_e();
    float sum_k[D / 8][4], sum_v[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        sum_k[n][0] = sum_k[n][1] = sum_k[n][2] = sum_k[n][3] = 0.0f;
        sum_v[n][0] = sum_v[n][1] = sum_v[n][2] = sum_v[n][3] = 0.0f;
    }
    own_lines<T, D> k, v;
    k.tile = k_tile;
    v.tile = v_tile;
    band_store<T> band;
    band.open(call, slot, c.queries.longest);
    for (int q0 = 0; q0 < p.nq; q0 += TILE) {
        const int left = p.nq - q0;
        if (q0 > 0)
            __syncthreads();
        load_tile<T, TILE, D, swizzled<D>>(q_tile, q + q0 * c.q_stride, c.q_stride, left,
                                           c.head_size, c.aligned);
        load_tile<T, TILE, D, swizzled<D>>(g_tile, dout + q0 * out_stride, out_stride, left,
                                           c.head_size, c.aligned);
        load_window<T, TILE, D, swizzled<D>>(w.own, call, TO_QUERIES, 1, p.head, k0, q0 + TILE);
        load_window<T, TILE, D, swizzled<D>>(w.other, call, TO_KEYS, 1, p.head, k0, q0 + TILE);
        cp_async_commit();
        float stat = stat_lse ? -minus_infinity() : 0.0f; /* no such query: P = 0 */
        if (q0 + stat_query < p.nq) {
            const int64_t from = (p.q_begin + q0 + stat_query) * c.heads + p.head;
            stat = stat_lse ? c.lse[from] * log2_e() : c.delta[from];
        }
        lse[(int)threadIdx.x] = stat;
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nk)
            continue;
        if (q0 == 0) {
            begin_scores<T, D>(k, w);
            v.load();
        }
#pragma unroll 1
        for (int i0 = 0; i0 < TILE && i0 < left; i0 += 16) { /* queries q0 + i0 to q0 + i0 + 15 */
            float s[2][4], dp[2][4];
            scores<T, D>(s, k, w, q_tile + i0 * D, q0 + i0);
            multiply<T, D>(dp, v, g_tile + i0 * D);
            /* Lane l: decisions of query i0 + l % 16 about the warp's 16 keys, key g in bit g. */
            uint32_t kept = 0xFFFFu;
            if (d.threshold != 0) {
                kept = decide_bits(d, q0 + i0 + lane % 16, line / 8 + lane / 16) << (lane / 16 * 8);
                kept |= __shfl_xor_sync(0xFFFFFFFFu, kept, 16);
            }
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int column = 0; column < 2; column++) { /* the query in column 2t + column */
                    const int query = n * 8 + 2 * t + column;
                    uint32_t mine = kept;
                    if (d.threshold != 0)
                        mine = __shfl_sync(0xFFFFFFFFu, kept, query);
                    mine >>= lane / 4;
#pragma unroll
                    for (int half = 0; half < 2; half++) { /* key g, key g + 8 */
                        const int e = 2 * half + column;
                        const bool stays = mine >> (8 * half) & 1;
                        const bool is_key = line + lane / 4 + 8 * half < p.nk;
                        const float prob = exp2f(s[n][e] * to_log2 - lse[i0 + query]);
                        const float back = stays ? dp[n][e] * d.scale : 0.0f;
                        s[n][e] = stays ? prob : 0.0f;
                        /* Bands are summed over keys: there must be nothing behind the last. */
                        dp[n][e] = is_key ? prob * (back - delta[i0 + query]) : 0.0f;
                    }
                }
            uint32_t a[4];
            pack_a<T>(a, s[0], s[1]);
            add_product<T, D>(sum_v, a, g_tile + i0 * D);
            pack_a<T>(a, dp[0], dp[1]);
            add_product<T, D>(sum_k, a, q_tile + i0 * D);
            band.put((q0 + i0) / 16, dp, a);
            add_product<T, D>(sum_k, a, w.own + ring_line(q0 + i0 - 16) * D);
        }
    }
    if (line >= p.nk)
        return;
    if (p.nq > 0) {
        const int end = (p.nq + 15) / 16;
        const float none[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
        uint32_t a[4];
        band.put(end, none, a);
        add_product<T, D>(sum_k, a, w.own + ring_line(16 * end - 16) * D);
    }
    const float factor_k[2] = {c.scale, c.scale}, factor_v[2] = {d.scale, d.scale};
    store_lines<T, D>(dk + kv_at, c.kv_stride, line, p.nk, c.head_size, sum_k, factor_k, c.aligned);
    store_lines<T, D>(dv + kv_at, c.kv_stride, line, p.nk, c.head_size, sum_v, factor_v, c.aligned);
}

/* ---- the table's gradient by offset. A warp has 16 offsets and all channels; a step of the product
 * is the 16 own lines of one band. Shared memory: own lines, and 4 groups of 4 bands. */

/* A operand: offsets by own lines, from a group of a band. */
static __device__ __forceinline__ void load_band(uint32_t a[4], const void *group)
{
    const int lane = (int)threadIdx.x % 32, piece = lane / 8 % 2 * 2 + lane / 16;
    ldmatrix_x4_trans(a, static_cast<const char *>(group) + piece * 128 + lane % 8 * 16);
}

template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS) table_grads(side_call call)
{
    SHARED_ARRAY(T, x_tile, TILE *D);
    SHARED_ARRAY(T, bands, ATTENTION_WARPS *ATTENTION_WARPS *GROUP);
    const int parts = call.low + call.high, part = (int)blockIdx.x % parts;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int head = (int)blockIdx.y, heads = (int)gridDim.y;
    const segment_place place = find_segment<TILE>(call, (int)blockIdx.x / parts);
    if (place.first_row == place.end_row)
        return;
    float *partial = partial_of<TILE, D>(call, (int)blockIdx.x / parts, heads, head, part) +
                     (16 * warp + lane / 4) * D + lane % 4 * 2;
    const int64_t channel = (int64_t)(call.first_head + head) * call.head_size;
    const int all_groups = band_groups(call.other.longest);
    float sum[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
    bool some = call.slot_begin == 0; /* else sums may go on from the chunk before */
    for (int row = place.first_row; row < place.end_row; row++) {
        const some_range tiles = tiles_in_segment<TILE>(call, place, row);
        const int first_own = call.own.begin[row], own = call.own.begin[row + 1] - first_own;
        const int other = call.other.begin[row + 1] - call.other.begin[row];
        const int slot = slot_of_row<TILE>(call.own, row) - call.slot_begin;
        for (int tile = tiles.begin; other > 0 && tile < tiles.end; tile++) {
            const T *x = (const T *)call.x + (int64_t)(first_own + tile * TILE) * call.x_stride;
            const T *band = (const T *)call.bands + ((int64_t)(slot + tile) * heads + head) * call.band;
            const some_range offsets = offsets_of_part<TILE>(call, part, tile, other);
            if (!some) {
#pragma unroll
                for (int n = 0; n < D / 8; n++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        sum[n][2 * half] = partial[8 * half * D + 8 * n];
                        sum[n][2 * half + 1] = partial[8 * half * D + 8 * n + 1];
                    }
            }
            some = true;
            for (int at = offsets.begin; at < offsets.end; at++) {
                __syncthreads(); /* nobody reads the last tile any more */
                load_tile<T, TILE, D, swizzled<D>>(x_tile, x + channel, call.x_stride,
                                                   own - tile * TILE, call.head_size, call.aligned);
                /* Warp `warp` brings group `warp` of each band, a lane its 16 bytes. */
#pragma unroll
                for (int i = 0; i < ATTENTION_WARPS; i++) {
                    const int group = 4 * (at + tile) + 1 + warp + i;
                    const bool valid = tile * TILE + 16 * i < own && group >= 0 &&
                                       group < band_groups(other);
                    cp_async16(bands + (i * ATTENTION_WARPS + warp) * GROUP + lane * 8,
                               valid ? band + (i * all_groups + group) * GROUP + lane * 8 : band,
                               valid);
                }
                cp_async_commit();
                cp_async_wait<0>();
                __syncthreads();
#pragma unroll
                for (int i = 0; i < ATTENTION_WARPS; i++) {
                    uint32_t a[4];
                    load_band(a, bands + (i * ATTENTION_WARPS + warp) * GROUP);
                    add_product<T, D>(sum, a, x_tile + 16 * i * D);
                }
            }
        }
    }
    if (!some)
        return;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            partial[8 * half * D + 8 * n] = sum[n][2 * half];
            partial[8 * half * D + 8 * n + 1] = sum[n][2 * half + 1];
        }
}

/* ---- launches */

template <typename T, int D>
static cudaError_t queue_forward(const relative_call &call, cudaStream_t stream)
{
    const int bytes = (3 * TILE + 2 * RING) * D * 2;
    const cudaError_t error = LAUNCH_ALLOW_SMEM((forward<T, D>), bytes);
    if (error == cudaSuccess)
        LAUNCH((forward<T, D>), attention_grid(call.a, call.a.queries, TILE), ATTENTION_THREADS,
               bytes, stream, call);
    return error;
}

static dim3 grid_of_heads(const relative_call &call, const rows_device &rows, int heads)
{
    dim3 grid = attention_grid(call.a, rows, TILE);
    grid.y = (unsigned)heads;
    return grid;
}

template <typename T, int D>
static cudaError_t queue_query_grads(const relative_call &call, int heads, cudaStream_t stream)
{
    const int bytes = (4 * TILE + 2 * RING) * D * 2;
    const cudaError_t error = LAUNCH_ALLOW_SMEM((query_grads<T, D>), bytes);
    if (error == cudaSuccess)
        LAUNCH((query_grads<T, D>), grid_of_heads(call, call.a.queries, heads), ATTENTION_THREADS,
               bytes, stream, call);
    return error;
}

template <typename T, int D>
static cudaError_t queue_key_grads(const relative_call &call, int heads, cudaStream_t stream)
{
    const int bytes = (4 * TILE + 2 * RING) * D * 2 + 2 * TILE * (int)sizeof(float);
    const cudaError_t error = LAUNCH_ALLOW_SMEM((key_grads<T, D>), bytes);
    if (error == cudaSuccess)
        LAUNCH((key_grads<T, D>), grid_of_heads(call, call.a.keys, heads), ATTENTION_THREADS, bytes,
               stream, call);
    return error;
}

template <typename T, int D>
static cudaError_t queue_table_grads(const side_call &call, int segments, int heads,
                                     cudaStream_t stream)
{
    const dim3 grid((unsigned)(segments * (call.low + call.high)), (unsigned)heads);
    LAUNCH((table_grads<T, D>), grid, ATTENTION_THREADS, 0, stream, call);
    return cudaSuccess;
}

template <typename T, int D> static const relative_kernels *kernels_of(void)
{
    static const relative_kernels kernels = {TILE,
                                             D,
                                             band_elements,
                                             queue_forward<T, D>,
                                             queue_query_grads<T, D>,
                                             queue_key_grads<T, D>,
                                             queue_table_grads<T, D>,
                                             queue_fold<T, TILE, D>};
    return &kernels;
}

template <typename T> static const relative_kernels *kernels_for(int head_size)
{
    return head_size <= 32   ? kernels_of<T, 32>()
           : head_size <= 64 ? kernels_of<T, 64>()
                             : kernels_of<T, 128>();
}

static const relative_kernels *kernels_in(enum precision precision, int head_size)
{
    return precision == PRECISION_BF16   ? kernels_for<bf16>(head_size)
           : precision == PRECISION_FP16 ? kernels_for<fp16>(head_size)
                                         : attention_relative_f32(head_size);
}

/* ---- entries */

/* Fill in what both entries share, and find the kernels. */
static enum status prepare(const struct kernel_ctx *ctx, const struct rows *queries,
                           const struct rows *keys, int heads, int head_size, const act *q,
                           int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                           const struct relative *relative, const struct dropout *dropout,
                           relative_call *call, const relative_kernels **kernels)
{
    const struct distances *d = &ctx->opts.distances;
    const int64_t size = act_bytes(ctx->opts.precision);
    TRY(attention_prepare(ctx, queries, keys, heads, head_size, q, q_stride, k, v, kv_stride,
                          dropout, &call->a));
    if (d->span == 0)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "relative positions in kernels opened "
                                                       "without distances"));
    const int far = keys->longest - 1 < d->reach ? keys->longest - 1 : d->reach;
    for (int i = -far; i <= far && relative->lines < 2 * d->span; i++)
        if (d->line[d->reach + i] >= relative->lines)
            return ctx_failed(
                ctx, status_fail(STATUS_ARG, "distance %d has line %d of a table of %d", i,
                                 (int)d->line[d->reach + i], relative->lines));
    const int at[SIDES] = {relative->k_at, relative->q_at};
    for (int side = 0; side < SIDES; side++)
        if (at[side] >= 0) {
            call->table[side] = (const char *)relative->table + at[side] * size;
            call->a.aligned = call->a.aligned && aligned16(call->table[side]);
        }
    call->a.aligned = call->a.aligned && relative->width * size % 16 == 0;
    call->a.scale = relative->scale;
    call->table_stride = relative->width;
    call->table_lines = relative->lines;
    call->line = ctx->distances.line;
    call->reach = d->reach;
    call->slot_end = INT32_MAX;
    *kernels = kernels_in(ctx->opts.precision, head_size);
    return STATUS_OK;
}

/* What was wrong with a launch: too much shared memory for this GPU, or nothing yet. */
static enum status queued(const struct kernel_ctx *ctx, const relative_call *call, cudaError_t error)
{
    if (error == cudaSuccess)
        return STATUS_OK;
    (void)cudaGetLastError();
    return ctx_failed(ctx, status_fail(STATUS_UNAVAILABLE,
                                       "attention with relative positions: heads of %d channels "
                                       "want more shared memory than this GPU has (%s)",
                                       call->a.head_size, cudaGetErrorString(error)));
}

extern "C" enum status cuda_attention_relative(struct kernel_ctx *ctx, const struct rows *queries,
                                               const struct rows *keys, int heads, int head_size,
                                               const act *q, int64_t q_stride, const act *k,
                                               const act *v, int64_t kv_stride,
                                               const struct relative *relative,
                                               const struct dropout *dropout, act *out, float *lse)
{
    relative_call call = {};
    const relative_kernels *kernels;
    TRY(prepare(ctx, queries, keys, heads, head_size, q, q_stride, k, v, kv_stride, relative,
                dropout, &call, &kernels));
    if (call.a.queries.lines == 0)
        return STATUS_OK;
    call.a.forward_out = out;
    call.a.forward_lse = lse;
    call.a.aligned = call.a.aligned && aligned16(out);
    TRY(queued(ctx, &call, kernels->forward(call, ctx->stream)));
    return launched("attention with relative positions");
}

/* Where the scratch goes, in floats; bands are elements of the activations' type. */
struct side_plan {
    int low, high, segments;
    int slots, slots_at_once;
    int64_t band, partial; /* of a head: of one slot, of all segments; band 0: nothing to do */
};
struct scratch_plan {
    int heads; /* at a time */
    int64_t delta, partial;
    side_plan side[SIDES];
};

static int64_t band_floats(const struct kernel_ctx *ctx, const side_plan *s, int64_t slots)
{
    return (slots * s->band * act_bytes(ctx->opts.precision) + 3) / 4;
}

static enum status plan_scratch(const struct kernel_ctx *ctx, const relative_call *call,
                                const relative_kernels *kernels, scratch_plan *plan)
{
    const int tile = kernels->tile, far = (call->reach + tile - 1) / tile + 1;
    int chunks = 1;
    *plan = {};
    plan->delta = ((int64_t)call->a.queries.lines * call->a.heads + 63) / 64 * 64;
    const int64_t room = ctx->scratch_floats - plan->delta;
    for (int i = 0; i < SIDES; i++) {
        const rows_device &own = i == TO_KEYS ? call->a.queries : call->a.keys;
        const rows_device &other = i == TO_KEYS ? call->a.keys : call->a.queries;
        side_plan *s = &plan->side[i];
        if (call->table[i] == NULL || own.longest == 0 || other.longest == 0)
            continue;
        const int before = (own.longest - 1 + tile - 1) / tile, behind = (other.longest - 1) / tile + 1;
        s->low = before < far ? before : far;
        s->high = behind < far ? behind : far;
        s->slots = own.lines / tile + own.count;
        s->segments = s->slots / SEGMENT + ctx->cut.pieces;
        s->band = kernels->band(other.longest);
        s->partial = (int64_t)s->segments * (s->low + s->high) * tile * kernels->width;
        const int64_t each = s->partial + band_floats(ctx, s, s->slots) + 4;
        const int64_t heads = room / each;
        const int wanted = heads < 1 ? call->a.heads : (int)((call->a.heads + heads - 1) / heads);
        chunks = wanted > chunks ? wanted : chunks;
        plan->partial = s->partial > plan->partial ? s->partial : plan->partial;
    }
    plan->heads = (call->a.heads + chunks - 1) / chunks;
    plan->partial = (plan->partial * plan->heads + 3) / 4 * 4;
    for (int i = 0; i < SIDES; i++) {
        side_plan *s = &plan->side[i];
        if (s->band == 0)
            continue;
        const int64_t left = (room - plan->partial) / plan->heads * 4;
        const int64_t fit = left / (s->band * act_bytes(ctx->opts.precision));
        if (fit < 1)
            return ctx_failed(
                ctx, status_fail(STATUS_ARG,
                                 "gradient of relative positions: rows of up to %d tokens, scratch "
                                 "for %lld numbers",
                                 call->a.keys.longest, (long long)ctx->scratch_floats));
        s->slots_at_once = fit < s->slots ? (int)fit : s->slots;
    }
    return STATUS_OK;
}

/* One side's kernel for the heads of a chunk, with the bands' share of the table's gradient. */
static enum status side_backward(const struct kernel_ctx *ctx, relative_call *call,
                                 const relative_kernels *kernels, const scratch_plan *plan,
                                 int which, int heads, const struct relative *relative, act *dtable)
{
    const side_plan *s = &plan->side[which];
    const int64_t size = act_bytes(ctx->opts.precision);
    const bool queries = which == TO_KEYS;
    side_call side = {};
    side.own = queries ? call->a.queries : call->a.keys;
    side.other = queries ? call->a.keys : call->a.queries;
    side.piece_row = ctx->cut.row;
    side.pieces = ctx->cut.pieces;
    side.head_size = call->a.head_size;
    side.first_head = call->first_head;
    side.x = queries ? call->a.q : call->a.k;
    side.x_stride = queries ? call->a.q_stride : call->a.kv_stride;
    side.aligned = call->a.aligned;
    side.partial = ctx->scratch + plan->delta;
    side.bands = side.partial + plan->partial;
    side.band = s->band;
    side.low = s->low;
    side.high = s->high;
    call->band = s->band;
    call->bands = s->band == 0 || side.pieces == 0 ? NULL : (void *)side.bands;
    const int slots = call->bands == NULL ? 1 : s->slots;
    const int step = call->bands == NULL ? 1 : s->slots_at_once;
    for (int slot = 0; slot < slots; slot += step) {
        call->slot_begin = side.slot_begin = slot;
        call->slot_end = side.slot_end = call->bands == NULL ? INT32_MAX : slot + step;
        TRY(queued(ctx, call,
                   queries ? kernels->query_grads(*call, heads, ctx->stream)
                           : kernels->key_grads(*call, heads, ctx->stream)));
        if (call->bands != NULL)
            TRY(queued(ctx, call, kernels->table_grads(side, s->segments, heads, ctx->stream)));
    }
    if (call->table[which] == NULL || side.pieces == 0)
        return STATUS_OK;
    side.line_begin = ctx->distances.line_begin;
    side.distance = ctx->distances.distance;
    side.reach = call->reach;
    side.lines = relative->lines;
    side.sign = queries ? -1 : 1;
    side.scale = relative->scale;
    side.dtable = (char *)dtable + (queries ? relative->k_at : relative->q_at) * size;
    side.width = relative->width;
    return queued(ctx, call, kernels->fold(side, heads, ctx->stream));
}

extern "C" enum status cuda_attention_relative_backward(
    struct kernel_ctx *ctx, const struct rows *queries, const struct rows *keys, int heads,
    int head_size, const act *q, int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
    const struct relative *relative, const struct dropout *dropout, const act *out,
    const float *lse, const act *dout, act *dq, act *dk, act *dv, act *dtable,
    const struct grad_cut *cut)
{
    relative_call call = {};
    const relative_kernels *kernels;
    scratch_plan plan;
    TRY(prepare(ctx, queries, keys, heads, head_size, q, q_stride, k, v, kv_stride, relative,
                dropout, &call, &kernels));
    if (cut->pieces != ctx->cut.pieces)
        return ctx_failed(ctx, status_fail(STATUS_ARG,
                                           "a cut of %d pieces, backward_begins was told of %d",
                                           cut->pieces, ctx->cut.pieces));
    if (call.a.keys.lines == 0 && cut->pieces == 0)
        return STATUS_OK;
    TRY(plan_scratch(ctx, &call, kernels, &plan));
    call.a.out = out;
    call.a.lse = lse;
    call.a.dout = dout;
    call.a.delta = ctx->scratch;
    call.a.dq = dq;
    call.a.dk = dk;
    call.a.dv = dv;
    call.a.aligned = call.a.aligned && aligned16(out) && aligned16(dout) && aligned16(dq) &&
                     aligned16(dk) && aligned16(dv);
    for (int first = 0; first < heads; first += plan.heads) {
        const int count = heads - first < plan.heads ? heads - first : plan.heads;
        call.first_head = first;
        TRY(side_backward(ctx, &call, kernels, &plan, TO_KEYS, count, relative, dtable));
        TRY(side_backward(ctx, &call, kernels, &plan, TO_QUERIES, count, relative, dtable));
    }
    return launched("backward of attention with relative positions");
}

/* delta; sums by offset of one head, for heads of up to 128 channels and rows as long as there is
 * room for; and bands: all of them up to a few times an activation of the widest kind and
 * MOST_BAND_BYTES, but at least those of one tile. */
int64_t cuda_attention_relative_scratch_floats(const struct kernel_opts *opts)
{
    const int64_t most_band_bytes = 256 << 20;
    const int64_t lines = (opts->max_tokens + LINE_MULTIPLE - 1) / LINE_MULTIPLE * LINE_MULTIPLE;
    const int64_t pieces = opts->max_pieces > 0 ? opts->max_pieces : opts->max_rows;
    const int64_t size = act_bytes(opts->precision), tile = size == 2 ? TILE : TILE / 2;
    if (!opts->training || opts->distances.span == 0)
        return 0;
    const int64_t far = (opts->distances.reach + tile - 1) / tile + 1, tiles = lines / tile;
    const int64_t parts = 2 * (tiles < far ? tiles : far);
    const int64_t segments = (tiles + opts->max_rows) / SEGMENT + pieces;
    const int64_t least = size * tile * (lines + TILE);
    int64_t bands = 2 * lines * opts->max_channels * size;
    bands = bands < most_band_bytes ? bands : most_band_bytes;
    bands = bands < least ? least : bands;
    return lines * (opts->max_channels / 8) + 64 + segments * parts * tile * 128 + bands / 4 + 16;
}
