/*
 * attention.cu - attention on the GPU: the entries, and the 16-bit kernels on tensor cores. See
 * attention.cuh for how the work is divided, attention_mma.cuh for products and fragments.
 *
 * The tile that a block walks over is double-buffered with cp.async: at the top of a step the block
 * waits for the tile that was asked for one step ago, then asks for the next, then computes. One
 * barrier a step. A operands that serve every step stay in registers up to D 64; at 128 they are
 * read again, or registers would spill.
 */
#include <math.h>

#include "model/kernels/cuda/attention_mma.cuh"

/* Blocks that a multiprocessor can hold by their registers: what the compiler is asked for. It gets
 * there without spilling on sm_80 and sm_90; unasked, query_grads takes 194 registers at D 64. */
template <int D> static constexpr int residents = D == 32 ? 4 : D == 64 ? 3 : 2;

/* ---- forward. Shared memory: Q, then K and V twice. */
template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, residents<D>)
    forward(attention_call call)
{
    DYN_SMEM(T, shared);
    const attention_place p = place_of_block(call);
    T *out = (T *)call.forward_out;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    if (p.filler) {
        clear_filler(p, out, p.q_begin, p.nq, out_stride, call.head_size);
        clear_filler(p, call.forward_lse, p.q_begin, p.nq, call.heads, 1);
        return;
    }
    const int q0 = p.tile * TILE;
    if (q0 >= p.nq)
        return;
    constexpr bool keep = D <= 64;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int line = q0 + warp * 16; /* the warp's first query */
    const int64_t channel = (int64_t)p.head * call.head_size;
    const T *k = (const T *)call.k + p.k_begin * call.kv_stride + channel;
    const T *v = (const T *)call.v + p.k_begin * call.kv_stride + channel;
    const decisions d = decisions_of(call, p);
    T *q_tile = shared, *kv_tile = shared + TILE * D;

    if (p.nk > 0) {
        load_tile<T, TILE, D, swizzled<D>>(
            q_tile, (const T *)call.q + (p.q_begin + q0) * call.q_stride + channel, call.q_stride,
            p.nq - q0, call.head_size, call.aligned);
        load_tile<T, TILE, D, swizzled<D>>(kv_tile, k, call.kv_stride, p.nk, call.head_size,
                                           call.aligned);
        load_tile<T, TILE, D, swizzled<D>>(kv_tile + TILE * D, v, call.kv_stride, p.nk,
                                           call.head_size, call.aligned);
        cp_async_commit();
    }

    const float to_log2 = call.scale * log2_e();
    float sum[D / 8][4], most[2] = {minus_infinity(), minus_infinity()}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
    uint32_t q[keep ? D / 16 : 1][4];
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0; /* keys of this tile and behind it */
        const T *k_tile = kv_tile + (k0 / TILE & 1) * (2 * TILE * D), *v_tile = k_tile + TILE * D;
        cp_async_wait<0>();
        __syncthreads();
        if (left > TILE) {
            T *next = kv_tile + (~(k0 / TILE) & 1) * (2 * TILE * D);
            const int64_t at = (int64_t)(k0 + TILE) * call.kv_stride;
            load_tile<T, TILE, D, swizzled<D>>(next, k + at, call.kv_stride, left - TILE,
                                               call.head_size, call.aligned);
            load_tile<T, TILE, D, swizzled<D>>(next + TILE * D, v + at, call.kv_stride, left - TILE,
                                               call.head_size, call.aligned);
            cp_async_commit();
        }
        if (line >= p.nq)
            continue;
        if (keep && k0 == 0) {
#pragma unroll
            for (int step = 0; step < D / 16; step++)
                load_a<T, D>(q[keep ? step : 0], q_tile, warp * 16, step);
        }

        float s[TILE / 8][4];
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
            s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            const int i = keep ? step : 0;
            if (!keep)
                load_a<T, D>(q[i], q_tile, warp * 16, step);
#pragma unroll
            for (int j = 0; j < TILE / 16; j++) {
                if (16 * j < left) {
                    uint32_t b[4];
                    load_b<T, D>(b, k_tile, 16 * j, step);
                    mma_16816<T>(s[2 * j], q[i], b);
                    mma_16816<T>(s[2 * j + 1], q[i], b + 2);
                }
            }
        }
        if (left < TILE) {
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (n * 8 + 2 * t + e % 2 >= left)
                        s[n][e] = minus_infinity();
        }

        softmax_so_far<D, TILE / 8>(s, to_log2, most, total, sum);
        if (d.threshold != 0) {
#pragma unroll
            for (int n = 0; n < TILE / 8; n += 4)
                if (n * 8 < left)
                    drop_pieces(d, s + n, line + lane / 4, k0 / 8 + n);
        }
#pragma unroll
        for (int j = 0; j < TILE / 16; j++) {
            if (16 * j < left) {
                uint32_t a[4];
                pack_a<T>(a, s[2 * j], s[2 * j + 1]);
#pragma unroll
                for (int step = 0; step < D / 16; step++) {
                    uint32_t b[4];
                    load_b_lines<T, D>(b, v_tile, 16 * j, step);
                    mma_16816<T>(sum[2 * step], a, b);
                    mma_16816<T>(sum[2 * step + 1], a, b + 2);
                }
            }
        }
    }
    if (line >= p.nq)
        return;

    store_forward<T, D>(call, p, line, d.scale, most, total, sum);
}

/* ---- dq and delta. Shared memory: Q, dout, then K and V twice. Scores are made for 32 keys at a
 * time. */
template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, residents<D>)
    query_grads(attention_call call)
{
    DYN_SMEM(T, shared);
    const attention_place p = place_of_block(call);
    T *dq = (T *)call.dq;
    if (p.filler) {
        clear_filler(p, dq, p.q_begin, p.nq, call.q_stride, call.head_size);
        return;
    }
    const int q0 = p.tile * TILE;
    if (q0 >= p.nq)
        return;
    constexpr bool keep = D <= 64;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int line = q0 + warp * 16;
    const int64_t channel = (int64_t)p.head * call.head_size;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    const T *k = (const T *)call.k + p.k_begin * call.kv_stride + channel;
    const T *v = (const T *)call.v + p.k_begin * call.kv_stride + channel;
    const decisions d = decisions_of(call, p);
    T *q_tile = shared, *g_tile = shared + TILE * D, *kv_tile = shared + 2 * TILE * D;

    if (p.nk > 0) {
        load_tile<T, TILE, D, swizzled<D>>(
            q_tile, (const T *)call.q + (p.q_begin + q0) * call.q_stride + channel, call.q_stride,
            p.nq - q0, call.head_size, call.aligned);
        load_tile<T, TILE, D, swizzled<D>>(
            g_tile, (const T *)call.dout + (p.q_begin + q0) * out_stride + channel, out_stride,
            p.nq - q0, call.head_size, call.aligned);
        load_tile<T, TILE, D, swizzled<D>>(kv_tile, k, call.kv_stride, p.nk, call.head_size,
                                           call.aligned);
        load_tile<T, TILE, D, swizzled<D>>(kv_tile + TILE * D, v, call.kv_stride, p.nk,
                                           call.head_size, call.aligned);
        cp_async_commit();
    }

    const float to_log2 = call.scale * log2_e();
    float sum[D / 8][4], lse[2], delta[2];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
    query_stats<T>(call, p, line, lse, delta);

    uint32_t q[keep ? D / 16 : 1][4], g[keep ? D / 16 : 1][4];
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0;
        const T *k_tile = kv_tile + (k0 / TILE & 1) * (2 * TILE * D), *v_tile = k_tile + TILE * D;
        cp_async_wait<0>();
        __syncthreads();
        if (left > TILE) {
            T *next = kv_tile + (~(k0 / TILE) & 1) * (2 * TILE * D);
            const int64_t at = (int64_t)(k0 + TILE) * call.kv_stride;
            load_tile<T, TILE, D, swizzled<D>>(next, k + at, call.kv_stride, left - TILE,
                                               call.head_size, call.aligned);
            load_tile<T, TILE, D, swizzled<D>>(next + TILE * D, v + at, call.kv_stride, left - TILE,
                                               call.head_size, call.aligned);
            cp_async_commit();
        }
        if (line >= p.nq)
            continue;
        if (keep && k0 == 0) {
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                load_a<T, D>(q[keep ? step : 0], q_tile, warp * 16, step);
                load_a<T, D>(g[keep ? step : 0], g_tile, warp * 16, step);
            }
        }
#pragma unroll
        for (int j0 = 0; j0 < TILE; j0 += 32) { /* keys k0 + j0 to k0 + j0 + 31 */
            if (j0 >= left)
                break;
            float s[4][4], dp[4][4];
#pragma unroll
            for (int n = 0; n < 4; n++) {
                s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
                dp[n][0] = dp[n][1] = dp[n][2] = dp[n][3] = 0.0f;
            }
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                const int i = keep ? step : 0;
                if (!keep) {
                    load_a<T, D>(q[i], q_tile, warp * 16, step);
                    load_a<T, D>(g[i], g_tile, warp * 16, step);
                }
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    uint32_t b[4];
                    load_b<T, D>(b, k_tile, j0 + 16 * j, step);
                    mma_16816<T>(s[2 * j], q[i], b);
                    mma_16816<T>(s[2 * j + 1], q[i], b + 2);
                    load_b<T, D>(b, v_tile, j0 + 16 * j, step);
                    mma_16816<T>(dp[2 * j], g[i], b);
                    mma_16816<T>(dp[2 * j + 1], g[i], b + 2);
                }
            }
            if (d.threshold != 0)
                drop_pieces(d, dp, line + lane / 4, (k0 + j0) / 8);
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float prob = exp2f(s[n][e] * to_log2 - lse[e / 2]);
                    s[n][e] = prob * (dp[n][e] * d.scale - delta[e / 2]);
                    if (j0 + n * 8 + 2 * t + e % 2 >= left)
                        s[n][e] = 0.0f;
                }
#pragma unroll
            for (int j = 0; j < 2; j++) {
                uint32_t a[4];
                pack_a<T>(a, s[2 * j], s[2 * j + 1]);
#pragma unroll
                for (int step = 0; step < D / 16; step++) {
                    uint32_t b[4];
                    load_b_lines<T, D>(b, k_tile, j0 + 16 * j, step);
                    mma_16816<T>(sum[2 * step], a, b);
                    mma_16816<T>(sum[2 * step + 1], a, b + 2);
                }
            }
        }
    }
    if (line >= p.nq)
        return;
    const float factor[2] = {call.scale, call.scale};
    store_lines<T, D>(dq + p.q_begin * call.q_stride + channel, call.q_stride, line, p.nq,
                      call.head_size, sum, factor, call.aligned);
}

/* ---- dk and dv. Shared memory: K, V, then Q and dout twice; behind them (float) lse and delta of
 * the queries, twice. Scores are made transposed, for 16 queries at a time. */
template <typename T, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS, residents<D>)
    key_grads(attention_call call)
{
    DYN_SMEM(T, shared);
    const attention_place p = place_of_block(call);
    T *dk = (T *)call.dk, *dv = (T *)call.dv;
    if (p.filler) {
        clear_filler(p, dk, p.k_begin, p.nk, call.kv_stride, call.head_size);
        clear_filler(p, dv, p.k_begin, p.nk, call.kv_stride, call.head_size);
        return;
    }
    const int k0 = p.tile * TILE;
    if (k0 >= p.nk)
        return;
    constexpr bool keep = D <= 64;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int line = k0 + warp * 16; /* the warp's first key */
    const int64_t channel = (int64_t)p.head * call.head_size;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    const int64_t kv_at = p.k_begin * call.kv_stride + channel;
    const T *q = (const T *)call.q + p.q_begin * call.q_stride + channel;
    const T *dout = (const T *)call.dout + p.q_begin * out_stride + channel;
    const decisions d = decisions_of(call, p);
    T *k_tile = shared, *v_tile = shared + TILE * D, *qg_tile = shared + 2 * TILE * D;
    float *stats = reinterpret_cast<float *>(shared + 6 * TILE * D); /* [2][lse, delta][TILE] */
    /* Each thread brings one number of a tile: lse (its power of two) or delta of one query. */
    const int stat_query = (int)threadIdx.x % TILE;
    const bool stat_lse = (int)threadIdx.x < TILE;

    if (p.nq > 0) {
        const int64_t at = kv_at + k0 * call.kv_stride;
        load_tile<T, TILE, D, swizzled<D>>(k_tile, (const T *)call.k + at, call.kv_stride,
                                           p.nk - k0, call.head_size, call.aligned);
        load_tile<T, TILE, D, swizzled<D>>(v_tile, (const T *)call.v + at, call.kv_stride,
                                           p.nk - k0, call.head_size, call.aligned);
    }

    const float to_log2 = call.scale * log2_e();
    float sum_k[D / 8][4], sum_v[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        sum_k[n][0] = sum_k[n][1] = sum_k[n][2] = sum_k[n][3] = 0.0f;
        sum_v[n][0] = sum_v[n][1] = sum_v[n][2] = sum_v[n][3] = 0.0f;
    }
    uint32_t k[keep ? D / 16 : 1][4], v[keep ? D / 16 : 1][4];
    for (int ask = 0; ask < p.nq + TILE; ask += TILE) { /* ask for a tile, compute the one before */
        if (ask > 0) {
            cp_async_wait<0>();
            __syncthreads();
        }
        if (ask < p.nq) {
            const int turn = ask / TILE & 1, at = ask + stat_query;
            T *next = qg_tile + turn * (2 * TILE * D);
            load_tile<T, TILE, D, swizzled<D>>(next, q + ask * call.q_stride, call.q_stride,
                                               p.nq - ask, call.head_size, call.aligned);
            load_tile<T, TILE, D, swizzled<D>>(next + TILE * D, dout + ask * out_stride, out_stride,
                                               p.nq - ask, call.head_size, call.aligned);
            cp_async_commit();
            float stat = stat_lse ? -minus_infinity() : 0.0f; /* no such query: P = 0 */
            if (at < p.nq) {
                const int64_t from = (p.q_begin + at) * call.heads + p.head;
                stat = stat_lse ? call.lse[from] * log2_e() : call.delta[from];
            }
            stats[turn * (2 * TILE) + (int)threadIdx.x] = stat;
        }
        if (ask == 0 || line >= p.nk)
            continue;
        const int q0 = ask - TILE, left = p.nq - q0;
        const T *q_tile = qg_tile + (q0 / TILE & 1) * (2 * TILE * D), *g_tile = q_tile + TILE * D;
        const float *lse = stats + (q0 / TILE & 1) * (2 * TILE), *delta = lse + TILE;
        if (keep && q0 == 0) {
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                load_a<T, D>(k[keep ? step : 0], k_tile, warp * 16, step);
                load_a<T, D>(v[keep ? step : 0], v_tile, warp * 16, step);
            }
        }
        for (int i0 = 0; i0 < TILE && i0 < left; i0 += 16) { /* queries q0 + i0 to q0 + i0 + 15 */
            float s[2][4], dp[2][4];
#pragma unroll
            for (int n = 0; n < 2; n++) {
                s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
                dp[n][0] = dp[n][1] = dp[n][2] = dp[n][3] = 0.0f;
            }
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                const int i = keep ? step : 0;
                uint32_t b[4];
                if (!keep) {
                    load_a<T, D>(k[i], k_tile, warp * 16, step);
                    load_a<T, D>(v[i], v_tile, warp * 16, step);
                }
                load_b<T, D>(b, q_tile, i0, step);
                mma_16816<T>(s[0], k[i], b);
                mma_16816<T>(s[1], k[i], b + 2);
                load_b<T, D>(b, g_tile, i0, step);
                mma_16816<T>(dp[0], v[i], b);
                mma_16816<T>(dp[1], v[i], b + 2);
            }
            /* Lane l: decisions of query i0 + l % 16 about the warp's 16 keys, key g in bit g. */
            uint32_t kept = 0xFFFFu;
            if (d.threshold != 0) {
                kept = decide_bits(d, q0 + i0 + lane % 16, line / 8 + lane / 16) << (lane / 16 * 8);
                kept |= __shfl_xor_sync(0xFFFFFFFFu, kept, 16);
            }
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) { /* the query in column 2t + c */
                    const int query = n * 8 + 2 * t + c;
                    uint32_t mine = kept;
                    if (d.threshold != 0)
                        mine = __shfl_sync(0xFFFFFFFFu, kept, query);
                    mine >>= lane / 4;
#pragma unroll
                    for (int half = 0; half < 2; half++) { /* key g, key g + 8 */
                        const int e = 2 * half + c;
                        const bool stays = mine >> (8 * half) & 1;
                        const float prob = exp2f(s[n][e] * to_log2 - lse[i0 + query]);
                        const float back = stays ? dp[n][e] * d.scale : 0.0f;
                        s[n][e] = stays ? prob : 0.0f;
                        dp[n][e] = prob * (back - delta[i0 + query]);
                    }
                }
            uint32_t a_v[4], a_k[4];
            pack_a<T>(a_v, s[0], s[1]);
            pack_a<T>(a_k, dp[0], dp[1]);
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                uint32_t b[4];
                load_b_lines<T, D>(b, g_tile, i0, step);
                mma_16816<T>(sum_v[2 * step], a_v, b);
                mma_16816<T>(sum_v[2 * step + 1], a_v, b + 2);
                load_b_lines<T, D>(b, q_tile, i0, step);
                mma_16816<T>(sum_k[2 * step], a_k, b);
                mma_16816<T>(sum_k[2 * step + 1], a_k, b + 2);
            }
        }
    }
    if (line >= p.nk)
        return;
    const float factor_k[2] = {call.scale, call.scale}, factor_v[2] = {d.scale, d.scale};
    store_lines<T, D>(dk + kv_at, call.kv_stride, line, p.nk, call.head_size, sum_k, factor_k,
                      call.aligned);
    store_lines<T, D>(dv + kv_at, call.kv_stride, line, p.nk, call.head_size, sum_v, factor_v,
                      call.aligned);
}

template <typename T, int D> static void queue_forward(const attention_call &call, cudaStream_t st)
{
    const int bytes = 5 * TILE * D * 2;
    (void)LAUNCH_ALLOW_SMEM((forward<T, D>), bytes);
    LAUNCH((forward<T, D>), attention_grid(call, call.queries, TILE), ATTENTION_THREADS, bytes, st,
           call);
}

template <typename T, int D> static void queue_backward(const attention_call &call, cudaStream_t st)
{
    const int bytes = 6 * TILE * D * 2, stats = 4 * TILE * (int)sizeof(float);
    (void)LAUNCH_ALLOW_SMEM((query_grads<T, D>), bytes);
    (void)LAUNCH_ALLOW_SMEM((key_grads<T, D>), bytes + stats);
    LAUNCH((query_grads<T, D>), attention_grid(call, call.queries, TILE), ATTENTION_THREADS, bytes,
           st, call);
    LAUNCH((key_grads<T, D>), attention_grid(call, call.keys, TILE), ATTENTION_THREADS,
           bytes + stats, st, call);
}

template <typename T>
static void queue(const attention_call &call, bool backward, cudaStream_t stream)
{
    if (call.head_size <= 32)
        backward ? queue_backward<T, 32>(call, stream) : queue_forward<T, 32>(call, stream);
    else if (call.head_size <= 64)
        backward ? queue_backward<T, 64>(call, stream) : queue_forward<T, 64>(call, stream);
    else
        backward ? queue_backward<T, 128>(call, stream) : queue_forward<T, 128>(call, stream);
}

/* ---- entries */
enum status attention_prepare(const struct kernel_ctx *ctx, const struct rows *queries,
                              const struct rows *keys, int heads, int head_size, const act *q,
                              int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                              const struct dropout *dropout, attention_call *call)
{
    if (head_size < 8 || head_size > 128 || head_size % 8 != 0)
        return ctx_failed(
            ctx, status_fail(STATUS_UNAVAILABLE,
                             "attention on a GPU: heads of size %d, wanted a multiple of 8 from 8 "
                             "to 128",
                             head_size));
    if (heads < 1 || heads > 65535)
        return ctx_failed(ctx,
                          status_fail(STATUS_ARG, "attention: %d heads, wanted 1 to 65535", heads));
    TRY(ctx_rows(ctx, queries, &call->queries));
    TRY(ctx_rows(ctx, keys, &call->keys));
    if (call->queries.count != call->keys.count)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "attention: queries of %d rows, keys of %d",
                                           call->queries.count, call->keys.count));
    call->dropout = ctx_dropout(ctx, dropout);
    call->heads = heads;
    call->head_size = head_size;
    call->scale = (float)(1.0 / sqrt((double)head_size));
    call->q = q;
    call->k = k;
    call->v = v;
    call->q_stride = q_stride;
    call->kv_stride = kv_stride;
    const int64_t line = 16 / act_bytes(ctx->opts.precision); /* elements in 16 bytes */
    call->aligned = aligned16(q) && aligned16(k) && aligned16(v) && q_stride % line == 0 &&
                    kv_stride % line == 0;
    return STATUS_OK;
}

enum status cuda_attention(struct kernel_ctx *ctx, const struct rows *queries,
                           const struct rows *keys, int heads, int head_size, const act *q,
                           int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                           const struct dropout *dropout, act *out, float *lse)
{
    attention_call call = {};
    TRY(attention_prepare(ctx, queries, keys, heads, head_size, q, q_stride, k, v, kv_stride,
                          dropout, &call));
    if (call.queries.lines == 0)
        return STATUS_OK;
    call.forward_out = out;
    call.forward_lse = lse;
    call.aligned = call.aligned && aligned16(out);
    if (ctx->opts.precision == PRECISION_BF16)
        queue<bf16>(call, false, ctx->stream);
    else if (ctx->opts.precision == PRECISION_FP16)
        queue<fp16>(call, false, ctx->stream);
    else
        attention_f32_forward(call, ctx->stream);
    return launched("attention");
}

enum status cuda_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                    const struct rows *keys, int heads, int head_size, const act *q,
                                    int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                    const struct dropout *dropout, const act *out, const float *lse,
                                    const act *dout, act *dq, act *dk, act *dv)
{
    attention_call call = {};
    TRY(attention_prepare(ctx, queries, keys, heads, head_size, q, q_stride, k, v, kv_stride,
                          dropout, &call));
    if (call.keys.lines == 0)
        return STATUS_OK;
    if ((int64_t)call.queries.lines * heads > ctx->scratch_floats)
        return ctx_failed(
            ctx, status_fail(STATUS_ARG,
                             "attention backward: %d lines of %d heads, scratch for %lld numbers",
                             call.queries.lines, heads, (long long)ctx->scratch_floats));
    call.out = out;
    call.lse = lse;
    call.dout = dout;
    call.delta = ctx->scratch;
    call.dq = dq;
    call.dk = dk;
    call.dv = dv;
    call.aligned = call.aligned && aligned16(out) && aligned16(dout) && aligned16(dq) &&
                   aligned16(dk) && aligned16(dv);
    if (ctx->opts.precision == PRECISION_BF16)
        queue<bf16>(call, true, ctx->stream);
    else if (ctx->opts.precision == PRECISION_FP16)
        queue<fp16>(call, true, ctx->stream);
    else
        attention_f32_backward(call, ctx->stream);
    return launched("attention backward");
}

int64_t cuda_attention_scratch_floats(const struct kernel_opts *opts)
{
    int64_t lines = (opts->max_tokens + LINE_MULTIPLE - 1) / LINE_MULTIPLE * LINE_MULTIPLE;
    return opts->training ? lines * (opts->max_channels / 8) : 0; /* no head is smaller than 8 */
}
