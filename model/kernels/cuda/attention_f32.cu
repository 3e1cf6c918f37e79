/*
 * attention_f32.cu - attention with float activations (fp32 and tf32), plain multiply-adds. See
 * attention.cuh for how the work is divided.
 *
 * A block is 4 warps, a tile 32 lines. A warp owns 8 lines of the block's tile and walks over tiles
 * of the other kind; for scores a lane is one line of that other tile and keeps the 8 owned lines'
 * sums (one 16-byte read of its own line and 8 broadcasts for 32 multiply-adds); for the products
 * that follow a lane is D / 32 channels, and probabilities come back as broadcasts from shared
 * memory. Lines there are 4 floats longer than D: 16-byte reads of 8 neighbouring lines then touch
 * all 32 banks.
 */
#include "model/kernels/cuda/attention.cuh"

enum { TILE = 32, OWN = TILE / ATTENTION_WARPS };

template <int D> struct padded {
    static constexpr int width = D + 4, tile = TILE * width;
    static __device__ __forceinline__ int at(int line, int chunk)
    {
        return line * width + chunk * 4;
    }
};

static __device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, step));
    return x;
}

/* score[i] = line i of own . the lane's line of other. own: the warp's first line. */
template <int D>
static __device__ __forceinline__ void scores(float score[OWN], const float *own,
                                              const float *other)
{
    const float *mine = other + (int)threadIdx.x % 32 * padded<D>::width;
#pragma unroll
    for (int i = 0; i < OWN; i++)
        score[i] = 0.0f;
#pragma unroll 4
    for (int e = 0; e < D; e += 4) {
        const float4 b = *reinterpret_cast<const float4 *>(mine + e);
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float4 a = *reinterpret_cast<const float4 *>(own + i * padded<D>::width + e);
            score[i] += a.x * b.x;
            score[i] += a.y * b.y;
            score[i] += a.z * b.z;
            score[i] += a.w * b.w;
        }
    }
}

/* sum[i][c] += weight of line i and the other tile's line j, times its channel lane + 32 c; over
 * all j. The lane brings the weights of its line; `weights` is the warp's room for OWN x TILE. */
template <int D>
static __device__ __forceinline__ void add_lines(float sum[OWN][D / 32], const float weight[OWN],
                                                 float *weights, const float *other)
{
    const int lane = (int)threadIdx.x % 32;
    __syncwarp(); /* the last use of weights is over */
#pragma unroll
    for (int i = 0; i < OWN; i++)
        weights[i * TILE + lane] = weight[i];
    __syncwarp();
#pragma unroll 2
    for (int j = 0; j < TILE; j += 4) {
        float x[4][D / 32];
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int c = 0; c < D / 32; c++)
                x[e][c] = other[(j + e) * padded<D>::width + lane + 32 * c];
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float4 w = *reinterpret_cast<const float4 *>(weights + i * TILE + j);
#pragma unroll
            for (int c = 0; c < D / 32; c++) {
                sum[i][c] += w.x * x[0][c];
                sum[i][c] += w.y * x[1][c];
                sum[i][c] += w.z * x[2][c];
                sum[i][c] += w.w * x[3][c];
            }
        }
    }
}

/* The warp's lines [line, line + OWN), as far as there are `lines`, times factor. */
template <int D>
static __device__ __forceinline__ void store_lines(float *to, int64_t stride, int line, int lines,
                                                   int head_size, const float sum[OWN][D / 32],
                                                   const float factor[OWN])
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int c = 0; c < D / 32; c++)
            if (line + i < lines && lane + 32 * c < head_size)
                to[(line + i) * stride + lane + 32 * c] = sum[i][c] * factor[i];
}

/* Decisions of OWN queries from `query` on about the lane's key of the tile at k0: bit i. Lane l
 * draws those of query l % 8 about keys 8 (l / 8) to 8 (l / 8) + 7. */
static __device__ __forceinline__ uint32_t decide_column(const decisions &d, int query, int k0)
{
    const int lane = (int)threadIdx.x % 32;
    const uint32_t drawn = decide_bits(d, query + lane % 8, k0 / 8 + lane / 8);
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const uint32_t keys = __shfl_sync(0xFFFFFFFFu, drawn, lane / 8 * 8 + i);
        bits |= (keys >> (lane % 8) & 1u) << i;
    }
    return bits;
}

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
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            if (lane >= left)
                s[i] = minus_infinity();
            const float largest = fmaxf(most[i], warp_max(s[i]));
            const float shrink = exp2f((most[i] - largest) * to_log2);
            most[i] = largest;
            s[i] = exp2f((s[i] - largest) * to_log2);
            total[i] = total[i] * shrink + s[i];
#pragma unroll
            for (int c = 0; c < D / 32; c++)
                sum[i][c] *= shrink;
        }
        if (d.threshold != 0) {
            const uint32_t kept = decide_column(d, line, k0);
#pragma unroll
            for (int i = 0; i < OWN; i++)
                if ((kept >> i & 1) == 0)
                    s[i] = 0.0f;
        }
        add_lines<D>(sum, s, weights, v_tile);
    }
    if (line >= p.nq)
        return;
    float factor[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const float whole = warp_sum(total[i]);
        factor[i] = p.nk > 0 ? d.scale / whole : 0.0f;
        if (lane == 0 && line + i < p.nq)
            call.forward_lse[(p.q_begin + line + i) * call.heads + p.head] =
                p.nk > 0 ? most[i] * call.scale + logf(whole) : 0.0f;
    }
    store_lines<D>(out + p.q_begin * out_stride + channel, out_stride, line, p.nq, call.head_size,
                   sum, factor);
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
    const float *out = (const float *)call.out + p.q_begin * out_stride + channel;
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
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const int at = line + i;
        float part = 0.0f;
        lse[i] = -minus_infinity(); /* no such query: P = 0 */
        if (at < p.nq) {
            lse[i] = call.lse[(p.q_begin + at) * call.heads + p.head];
            for (int c = lane; c < call.head_size; c += 32)
                part += out[at * out_stride + c] * dout[at * out_stride + c];
        }
        delta[i] = warp_sum(part);
        if (lane == 0 && at < p.nq)
            call.delta[(p.q_begin + at) * call.heads + p.head] = delta[i];
#pragma unroll
        for (int c = 0; c < D / 32; c++)
            sum[i][c] = 0.0f;
    }
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
