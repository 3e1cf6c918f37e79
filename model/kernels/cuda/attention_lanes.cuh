/*
 * attention_lanes.cuh - what the float attention kernels share.
 *
 * A block is 4 warps, a tile 32 lines. A warp owns 8 lines of the block's tile and walks over tiles
 * of the other kind; for scores a lane is one line of that other tile and keeps the 8 owned lines'
 * sums (one 16-byte read of its own line and 8 broadcasts for 32 multiply-adds); for the products
 * that follow a lane is D / 32 channels, and probabilities come back as broadcasts from shared
 * memory. Lines there are 4 floats longer than D: 16-byte reads of 8 neighbouring lines then touch
 * all 32 banks.
 */
#ifndef COHORT_MODEL_KERNELS_CUDA_ATTENTION_LANES_CUH
#define COHORT_MODEL_KERNELS_CUDA_ATTENTION_LANES_CUH

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

/* score[i] = line i of own . the lane's line `mine`. own: the warp's first line. */
template <int D>
static __device__ __forceinline__ void scores_of(float score[OWN], const float *own,
                                                 const float *mine)
{
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

/* The lane's line is that of the tile `other`. */
template <int D>
static __device__ __forceinline__ void scores(float score[OWN], const float *own,
                                              const float *other)
{
    scores_of<D>(score, own, other + (int)threadIdx.x % 32 * padded<D>::width);
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

/* A tile's scores become probabilities by the largest so far: the warp's lines in most, total (their
 * sums, of the lane's keys) and sum (their outputs). key: the lane has one. */
template <int D>
static __device__ __forceinline__ void softmax_so_far(float s[OWN], bool key, float to_log2,
                                                      float most[OWN], float total[OWN],
                                                      float sum[OWN][D / 32])
{
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        if (!key)
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
}

/* The end of a tile of queries: its outputs and lse. line: the warp's first query. */
template <int D>
static __device__ __forceinline__ void store_forward(const attention_call &call,
                                                     const attention_place &p, int line,
                                                     float drop_scale, const float most[OWN],
                                                     const float total[OWN],
                                                     const float sum[OWN][D / 32])
{
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    float *out =
        (float *)call.forward_out + p.q_begin * out_stride + (int64_t)p.head * call.head_size;
    float factor[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const float whole = warp_sum(total[i]);
        factor[i] = p.nk > 0 ? drop_scale / whole : 0.0f;
        if (threadIdx.x % 32 == 0 && line + i < p.nq)
            call.forward_lse[(p.q_begin + line + i) * call.heads + p.head] =
                p.nk > 0 ? most[i] * call.scale + logf(whole) : 0.0f;
    }
    store_lines<D>(out, out_stride, line, p.nq, call.head_size, sum, factor);
}

/* What backward needs of the warp's queries: lse, and delta, which is left for key_grads too. */
static __device__ __forceinline__ void query_stats(const attention_call &call,
                                                   const attention_place &p, int line,
                                                   float lse[OWN], float delta[OWN])
{
    const int lane = (int)threadIdx.x % 32;
    const int64_t channel = (int64_t)p.head * call.head_size;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const int at = line + i;
        float part = 0.0f;
        lse[i] = -minus_infinity(); /* no such query: P = 0 */
        if (at < p.nq) {
            const int64_t from = (p.q_begin + at) * out_stride + channel;
            const float *out = (const float *)call.out + from,
                        *dout = (const float *)call.dout + from;
            lse[i] = call.lse[(p.q_begin + at) * call.heads + p.head];
            for (int c = lane; c < call.head_size; c += 32)
                part += out[c] * dout[c];
        }
        delta[i] = warp_sum(part);
        if (lane == 0 && at < p.nq)
            call.delta[(p.q_begin + at) * call.heads + p.head] = delta[i];
    }
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

#endif
