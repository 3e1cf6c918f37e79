/*
 * rows.cuh - what norm.cu and rows.cu share: lines in octets, dropout decisions, sums of a warp,
 * where a piece's sums go.
 *
 * A line is worked on in octets, eight consecutive channels each: one 16-byte load of 16-bit
 * elements (two of floats), and, where C is a multiple of 8, the eight decisions of one Philox.
 * Lane i of a line has octets i, i + lanes, ...; it is the same where loads are element by element
 * (WIDE false: C is no multiple of 8, or an address no multiple of 16), so that both give the same
 * bits.
 */
#ifndef COHORT_MODEL_KERNELS_CUDA_ROWS_CUH
#define COHORT_MODEL_KERNELS_CUDA_ROWS_CUH

#include "base/cuda.cuh"

extern "C" {
#include "model/kernels/cuda/cuda.h"
}

enum {
    OCTET = 8,
    LANES = 32, /* of a warp */
    WARPS = 8,  /* of a block */
    THREADS = WARPS * LANES,
    TILE = LANES * OCTET /* channels that a warp has at once */
};

/* ---- octets. 16-bit types: two elements in each word, the lower index in the low half. */
template <typename T> struct octet {
    uint32_t v[4];
};
template <> struct octet<float> {
    float v[8];
};

template <typename T> static __device__ __forceinline__ float octet_at(const octet<T> &x, int j)
{
    T half;
    half.bits = (uint16_t)(x.v[j / 2] >> (j % 2 * 16));
    return to_float(half);
}
template <> __device__ __forceinline__ float octet_at<float>(const octet<float> &x, int j)
{
    return x.v[j];
}

/* Channels [first, first + 8) of a line of n; zeros behind the line's end. */
template <bool WIDE, typename T>
static __device__ __forceinline__ octet<T> octet_load(const T *line, int first, int n)
{
    octet<T> x;
    if constexpr (WIDE) {
        const uint4 v = *reinterpret_cast<const uint4 *>(line + first);
        x.v[0] = v.x;
        x.v[1] = v.y;
        x.v[2] = v.z;
        x.v[3] = v.w;
    } else {
#pragma unroll
        for (int j = 0; j < OCTET; j += 2) {
            const uint32_t low = first + j < n ? line[first + j].bits : 0;
            const uint32_t high = first + j + 1 < n ? line[first + j + 1].bits : 0;
            x.v[j / 2] = low | high << 16;
        }
    }
    return x;
}
template <bool WIDE>
static __device__ __forceinline__ octet<float> octet_load(const float *line, int first, int n)
{
    octet<float> x;
    if constexpr (WIDE) {
        const float4 a = *reinterpret_cast<const float4 *>(line + first);
        const float4 b = *reinterpret_cast<const float4 *>(line + first + 4);
        x.v[0] = a.x;
        x.v[1] = a.y;
        x.v[2] = a.z;
        x.v[3] = a.w;
        x.v[4] = b.x;
        x.v[5] = b.y;
        x.v[6] = b.z;
        x.v[7] = b.w;
    } else {
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            x.v[j] = first + j < n ? line[first + j] : 0.0f;
    }
    return x;
}

template <bool WIDE, typename T>
static __device__ __forceinline__ void octet_store(T *line, int first, int n, const float x[OCTET])
{
    if constexpr (WIDE) {
        uint4 v;
        v.x = pack2<T>(x[0], x[1]);
        v.y = pack2<T>(x[2], x[3]);
        v.z = pack2<T>(x[4], x[5]);
        v.w = pack2<T>(x[6], x[7]);
        *reinterpret_cast<uint4 *>(line + first) = v;
    } else {
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            if (first + j < n)
                line[first + j] = from_float<T>(x[j]);
    }
}
template <bool WIDE>
static __device__ __forceinline__ void octet_store(float *line, int first, int n,
                                                   const float x[OCTET])
{
    if constexpr (WIDE) {
        *reinterpret_cast<float4 *>(line + first) = make_float4(x[0], x[1], x[2], x[3]);
        *reinterpret_cast<float4 *>(line + first + 4) = make_float4(x[4], x[5], x[6], x[7]);
    } else {
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            if (first + j < n)
                line[first + j] = x[j];
    }
}

static __device__ __forceinline__ void octet_zero(float x[OCTET])
{
#pragma unroll
    for (int j = 0; j < OCTET; j++)
        x[j] = 0.0f;
}

/* Whether lines of n elements at these addresses (or-ed together) can be read in wide octets. */
static inline bool lines_are_wide(int64_t n, uintptr_t addresses)
{
    return n % OCTET == 0 && addresses % 16 == 0;
}

/* ---- dropout */
static __device__ __forceinline__ uint64_t dropout_key(const dropout_device &d)
{
    return d.threshold == 0 ? 0 : device_random_key(d.seed, 3, (uint64_t)d.header->step, d.code);
}

/* What to multiply channels [first, first + 8) at a position of row `row` of the batch with: 0 or
 * the scale; row -1 is one of its own (kernels.h, table_dropout). WIDE: channels is a multiple of 8,
 * so the octet is one Philox; else it may straddle two. */
template <bool WIDE>
static __device__ __forceinline__ void dropout_factors(const dropout_device &d, uint64_t key,
                                                       int row, int position, int channels,
                                                       int first, float factor[OCTET])
{
    if (d.threshold == 0) {
#pragma unroll
        for (int j = 0; j < OCTET; j++)
            factor[j] = 1.0f;
        return;
    }
    uint64_t index = (uint64_t)position * (uint64_t)channels + (uint64_t)first;
    uint64_t id = row < 0 ? UINT64_MAX : (uint64_t)d.row[row];
    uint32_t chunk = row < 0 ? 0 : (uint32_t)d.chunk[row];
    uint32_t low = (uint32_t)id, high = (uint32_t)(id >> 32);
    philox_bits bits = device_philox(key, (uint32_t)(index / OCTET), chunk, low, high);
    uint32_t w[8] = {bits.v[0], bits.v[1], bits.v[2], bits.v[3], 0, 0, 0, 0};
    uint32_t shift = WIDE ? 0 : (uint32_t)(index % OCTET);
    if (shift > 0) {
        philox_bits next = device_philox(key, (uint32_t)(index / OCTET) + 1, chunk, low, high);
#pragma unroll
        for (int m = 0; m < 4; m++)
            w[4 + m] = next.v[m];
#pragma unroll
        for (int m = 0; m < 6; m++) /* by words that the compiler knows: no indexed registers */
            w[m] = shift & 4 ? w[m + 2] : w[m];
#pragma unroll
        for (int m = 0; m < 5; m++)
            w[m] = shift & 2 ? w[m + 1] : w[m];
#pragma unroll
        for (int m = 0; m < 4; m++)
            w[m] = shift & 1 ? w[m] >> 16 | w[m + 1] << 16 : w[m];
    }
#pragma unroll
    for (int j = 0; j < OCTET; j++) {
        uint32_t lane = w[j / 2] >> (j % 2 * 16) & 0xFFFFu;
        factor[j] = lane >= d.threshold ? d.scale : 0.0f;
    }
}

/* ---- sums. Every lane gets the same bits: a + b is b + a. */
static __device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2)
        x += __shfl_xor_sync(0xFFFFFFFFu, x, mask);
    return x;
}

/* The eight warps of a block each have a sum for every channel of a tile: added in order, and each
 * thread keeps one channel. shared (WARPS, TILE). */
static __device__ __forceinline__ float tile_sum(const float x[OCTET], float *shared)
{
    octet_store<true>(shared + threadIdx.x / LANES * TILE, (int)(threadIdx.x % LANES) * OCTET, TILE,
                      x);
    __syncthreads();
    float sum = shared[threadIdx.x];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        sum += shared[w * TILE + threadIdx.x];
    __syncthreads();
    return sum;
}

/* Piece i's sum of one parameter element to where the cut says, and the merges behind it. All of an
 * element's pieces go through one thread, in order. */
static __device__ __forceinline__ void cut_put(const cut_device &cut, int piece, int64_t at,
                                               float sum)
{
    float *to = cut.buffer[cut.to[piece]] + at;
    *to = cut.add[piece] ? *to + sum : sum;
    for (int j = cut.merge_begin[piece]; j < cut.merge_begin[piece + 1]; j++)
        cut.buffer[cut.merge_to[j]][at] += cut.buffer[cut.merge_from[j]][at];
}

/* ---- the activations' type: FOR_ACT(ctx, statements that use T) */
#define FOR_ACT(ctx, ...)                                                                          \
    switch ((ctx)->opts.precision) {                                                               \
    case PRECISION_BF16: {                                                                         \
        typedef bf16 T;                                                                            \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    case PRECISION_FP16: {                                                                         \
        typedef fp16 T;                                                                            \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    case PRECISION_FP32:                                                                           \
    case PRECISION_TF32: {                                                                         \
        typedef float T;                                                                           \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    }

#endif
