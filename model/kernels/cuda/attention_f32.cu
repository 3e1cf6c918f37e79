/*
 * attention_f32.cu - attention with float activations (fp32 and tf32), plain multiply-adds. See
 * attention.cuh for how the work is divided, attention_lanes.cuh for how a warp computes.
 */
#include "model/kernels/cuda/attention_lanes.cuh"

/* ---- forward. Shared memory: Q, K, V, weights. */
template <int D> static __global__ void forward(attention_call call)
{
    DYN_SMEM(float, shared);
    const attention_place p = place_of_block(call);
    float *out = (float *)call.forward_out;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    if (p.filler) {
        clear_filler(p, out, p.q_begin, p.nq, out_stride, call.head_size);
        clear_filler(p, call.forward_lse, p.q_begin, p.nq, call.heads, 1);
        return;
    }
    const int q0 = p.tile * TILE;
    if (q0 >= p.nq)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int line = q0 + warp * OWN; /* the warp's first query */
    const int64_t channel = (int64_t)p.head * call.head_size;
    const float *k = (const float *)call.k + p.k_begin * call.kv_stride + channel;
    const float *v = (const float *)call.v + p.k_begin * call.kv_stride + channel;
    const decisions d = decisions_of(call, p);
    float *q_tile = shared, *k_tile = q_tile + padded<D>::tile, *v_tile = k_tile + padded<D>::tile;
    float *weights = v_tile + padded<D>::tile + warp * (OWN * TILE);

    if (p.nk > 0)
        load_tile<float, TILE, D, padded<D>>(
            q_tile, (const float *)call.q + (p.q_begin + q0) * call.q_stride + channel,
            call.q_stride, p.nq - q0, call.head_size, call.aligned);
    const float to_log2 = call.scale * log2_e();
    float sum[OWN][D / 32], most[OWN], total[OWN]; /* total: of the lane's keys */
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        most[i] = minus_infinity();
        total[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < D / 32; c++)
            sum[i][c] = 0.0f;
    }
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0;
        __syncthreads(); /* nobody reads the last tile any more */
        load_tile<float, TILE, D, padded<D>>(k_tile, k + k0 * call.kv_stride, call.kv_stride, left,
                                             call.head_size, call.aligned);
        load_tile<float, TILE, D, padded<D>>(v_tile, v + k0 * call.kv_stride, call.kv_stride, left,
                                             call.head_size, call.aligned);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nq)
            continue;
        float s[OWN];
        scores<D>(s, q_tile + warp * OWN * padded<D>::width, k_tile);
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
        store_forward<D>(call, p, line, d.scale, most, total, sum);
}

/* ---- dq and delta. Shared memory: Q, dout, K, V, weights. */
template <int D> static __global__ void query_grads(attention_call call)
{
    DYN_SMEM(float, shared);
    const attention_place p = place_of_block(call);
    float *dq = (float *)call.dq;
    if (p.filler) {
        clear_filler(p, dq, p.q_begin, p.nq, call.q_stride, call.head_size);
        return;
    }
    const int q0 = p.tile * TILE;
    if (q0 >= p.nq)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int line = q0 + warp * OWN;
    const int64_t channel = (int64_t)p.head * call.head_size;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    const float *k = (const float *)call.k + p.k_begin * call.kv_stride + channel;
    const float *v = (const float *)call.v + p.k_begin * call.kv_stride + channel;
    const float *dout = (const float *)call.dout + p.q_begin * out_stride + channel;
    const decisions d = decisions_of(call, p);
    float *q_tile = shared, *g_tile = q_tile + padded<D>::tile, *k_tile = g_tile + padded<D>::tile,
          *v_tile = k_tile + padded<D>::tile;
    float *weights = v_tile + padded<D>::tile + warp * (OWN * TILE);

    if (p.nk > 0) {
        load_tile<float, TILE, D, padded<D>>(
            q_tile, (const float *)call.q + (p.q_begin + q0) * call.q_stride + channel,
            call.q_stride, p.nq - q0, call.head_size, call.aligned);
        load_tile<float, TILE, D, padded<D>>(g_tile, dout + q0 * out_stride, out_stride, p.nq - q0,
                                             call.head_size, call.aligned);
    }
    float sum[OWN][D / 32], lse[OWN], delta[OWN];
    query_stats(call, p, line, lse, delta);
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int c = 0; c < D / 32; c++)
            sum[i][c] = 0.0f;
    for (int k0 = 0; k0 < p.nk; k0 += TILE) {
        const int left = p.nk - k0;
        __syncthreads();
        load_tile<float, TILE, D, padded<D>>(k_tile, k + k0 * call.kv_stride, call.kv_stride, left,
                                             call.head_size, call.aligned);
        load_tile<float, TILE, D, padded<D>>(v_tile, v + k0 * call.kv_stride, call.kv_stride, left,
                                             call.head_size, call.aligned);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nq)
            continue;
        float s[OWN], dp[OWN];
        scores<D>(s, q_tile + warp * OWN * padded<D>::width, k_tile);
        scores<D>(dp, g_tile + warp * OWN * padded<D>::width, v_tile);
        const uint32_t kept = d.threshold != 0 ? decide_column(d, line, k0) : 0xFFu;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float prob = exp2f((s[i] * call.scale - lse[i]) * log2_e());
            const float back = kept >> i & 1 ? dp[i] * d.scale : 0.0f;
            s[i] = lane < left ? prob * (back - delta[i]) : 0.0f;
        }
        add_lines<D>(sum, s, weights, k_tile);
    }
    if (line >= p.nq)
        return;
    float factor[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++)
        factor[i] = call.scale;
    store_lines<D>(dq + p.q_begin * call.q_stride + channel, call.q_stride, line, p.nq,
                   call.head_size, sum, factor);
}

/* ---- dk and dv: own lines are keys, a lane is a query. Shared memory: K, V, Q, dout, weights. */
template <int D> static __global__ void key_grads(attention_call call)
{
    DYN_SMEM(float, shared);
    const attention_place p = place_of_block(call);
    float *dk = (float *)call.dk, *dv = (float *)call.dv;
    if (p.filler) {
        clear_filler(p, dk, p.k_begin, p.nk, call.kv_stride, call.head_size);
        clear_filler(p, dv, p.k_begin, p.nk, call.kv_stride, call.head_size);
        return;
    }
    const int k0 = p.tile * TILE;
    if (k0 >= p.nk)
        return;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int line = k0 + warp * OWN; /* the warp's first key */
    const int64_t channel = (int64_t)p.head * call.head_size;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    const int64_t kv_at = p.k_begin * call.kv_stride + channel;
    const float *q = (const float *)call.q + p.q_begin * call.q_stride + channel;
    const float *dout = (const float *)call.dout + p.q_begin * out_stride + channel;
    const decisions d = decisions_of(call, p);
    float *k_tile = shared, *v_tile = k_tile + padded<D>::tile, *q_tile = v_tile + padded<D>::tile,
          *g_tile = q_tile + padded<D>::tile;
    float *weights = g_tile + padded<D>::tile + warp * (OWN * TILE);

    if (p.nq > 0) {
        const int64_t at = kv_at + k0 * call.kv_stride;
        load_tile<float, TILE, D, padded<D>>(k_tile, (const float *)call.k + at, call.kv_stride,
                                             p.nk - k0, call.head_size, call.aligned);
        load_tile<float, TILE, D, padded<D>>(v_tile, (const float *)call.v + at, call.kv_stride,
                                             p.nk - k0, call.head_size, call.aligned);
    }
    float sum_k[OWN][D / 32], sum_v[OWN][D / 32];
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int c = 0; c < D / 32; c++)
            sum_k[i][c] = sum_v[i][c] = 0.0f;
    for (int q0 = 0; q0 < p.nq; q0 += TILE) {
        const int left = p.nq - q0;
        __syncthreads();
        load_tile<float, TILE, D, padded<D>>(q_tile, q + q0 * call.q_stride, call.q_stride, left,
                                             call.head_size, call.aligned);
        load_tile<float, TILE, D, padded<D>>(g_tile, dout + q0 * out_stride, out_stride, left,
                                             call.head_size, call.aligned);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (line >= p.nk)
            continue;
        float s[OWN], dp[OWN];
        scores<D>(s, k_tile + warp * OWN * padded<D>::width, q_tile);
        scores<D>(dp, v_tile + warp * OWN * padded<D>::width, g_tile);
        const int64_t stat = (p.q_begin + q0 + lane) * call.heads + p.head;
        const float lse = lane < left ? call.lse[stat] : -minus_infinity();
        const float delta = lane < left ? call.delta[stat] : 0.0f;
        const uint32_t kept = d.threshold != 0 ? decide_bits(d, q0 + lane, line / 8) : 0xFFu;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float prob = exp2f((s[i] * call.scale - lse) * log2_e());
            const float back = kept >> i & 1 ? dp[i] * d.scale : 0.0f;
            s[i] = kept >> i & 1 ? prob : 0.0f;
            dp[i] = prob * (back - delta);
        }
        add_lines<D>(sum_v, s, weights, g_tile);
        add_lines<D>(sum_k, dp, weights, q_tile);
    }
    if (line >= p.nk)
        return;
    float factor_k[OWN], factor_v[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        factor_k[i] = call.scale;
        factor_v[i] = d.scale;
    }
    store_lines<D>(dk + kv_at, call.kv_stride, line, p.nk, call.head_size, sum_k, factor_k);
    store_lines<D>(dv + kv_at, call.kv_stride, line, p.nk, call.head_size, sum_v, factor_v);
}

/* Bytes of shared memory for so many tiles and the weights. */
template <int D> static constexpr int shared_bytes(int tiles)
{
    return (tiles * padded<D>::tile + ATTENTION_WARPS * OWN * TILE) * (int)sizeof(float);
}

template <int D> static void queue_forward(const attention_call &call, cudaStream_t stream)
{
    const int bytes = shared_bytes<D>(3);
    (void)LAUNCH_ALLOW_SMEM((forward<D>), bytes);
    LAUNCH((forward<D>), attention_grid(call, call.queries, TILE), ATTENTION_THREADS, bytes, stream,
           call);
}

template <int D> static void queue_backward(const attention_call &call, cudaStream_t stream)
{
    const int bytes = shared_bytes<D>(4);
    (void)LAUNCH_ALLOW_SMEM((query_grads<D>), bytes);
    (void)LAUNCH_ALLOW_SMEM((key_grads<D>), bytes);
    LAUNCH((query_grads<D>), attention_grid(call, call.queries, TILE), ATTENTION_THREADS, bytes,
           stream, call);
    LAUNCH((key_grads<D>), attention_grid(call, call.keys, TILE), ATTENTION_THREADS, bytes, stream,
           call);
}

void attention_f32_forward(const attention_call &call, cudaStream_t stream)
{
    if (call.head_size <= 32)
        queue_forward<32>(call, stream);
    else if (call.head_size <= 64)
        queue_forward<64>(call, stream);
    else
        queue_forward<128>(call, stream);
}

void attention_f32_backward(const attention_call &call, cudaStream_t stream)
{
    if (call.head_size <= 32)
        queue_backward<32>(call, stream);
    else if (call.head_size <= 64)
        queue_backward<64>(call, stream);
    else
        queue_backward<128>(call, stream);
}
