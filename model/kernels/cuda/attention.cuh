/*
 * attention.cuh - what the attention sources share: the arguments of a call, where a block works,
 * dropout decisions, copies into tiles, filler.
 *
 * attention.cu holds the entries and the 16-bit kernels (tensor cores), attention_f32.cu the float
 * ones; attention_relative.cu and attention_relative_f32.cu the same of disentangled attention. A
 * block works on one tile of lines of one row and one head. Tiles begin at the row's first
 * line and other tiles are visited in order, so nothing that a line's bits depend on knows where
 * the row lies in the batch. No probabilities in memory: the backward kernels compute scores and
 * decisions again, each output is written once, by the one block that owns it:
 *
 *   forward       tile of queries, over key tiles: out, lse
 *   query_grads   tile of queries, over key tiles: dq; also delta = sum of dout * out, to scratch
 *   key_grads     tile of keys, over query tiles: dk, dv; reads delta, so it is queued second
 *
 * With s = scale q k, L = lse: P = exp(s - L), P' = P * keep * drop, dP = dout v * keep * drop,
 * dv = P'^T dout, dS = P (dP - delta), dq = scale dS k, dk = scale dS^T q.
 */
#ifndef COHORT_MODEL_KERNELS_CUDA_ATTENTION_CUH
#define COHORT_MODEL_KERNELS_CUDA_ATTENTION_CUH

#include "base/cuda.cuh"

extern "C" {
#include "model/kernels/cuda/cuda.h"
}

enum { ATTENTION_THREADS = 128, ATTENTION_WARPS = 4 };

/* A call, by value. Pointers as in kernels.h, elements of the activations' type. */
struct attention_call {
    rows_device queries, keys;
    dropout_device dropout;
    int heads, head_size; /* head_size: a multiple of 8, at most the instance's D */
    bool aligned;         /* heads of all lines begin at multiples of 16 bytes */
    float scale;          /* 1 / sqrt(head_size) */
    int64_t q_stride, kv_stride;
    const void *q, *k, *v, *dout, *out;
    const float *lse;
    void *forward_out; /* what forward writes */
    float *forward_lse;
    float *delta; /* (Tq, H): query_grads writes, key_grads reads */
    void *dq, *dk, *dv;
};

/* Check what all entries are given, and fill in what they share. attention.cu. */
NODISCARD enum status attention_prepare(const struct kernel_ctx *ctx, const struct rows *queries,
                                        const struct rows *keys, int heads, int head_size,
                                        const act *q, int64_t q_stride, const act *k, const act *v,
                                        int64_t kv_stride, const struct dropout *dropout,
                                        attention_call *call);

static inline bool aligned16(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* attention_f32.cu; queued on stream, errors are cudaGetLastError()'s. */
void attention_f32_forward(const attention_call &call, cudaStream_t stream);
void attention_f32_backward(const attention_call &call, cudaStream_t stream);

/* The grid: as many tiles as the longest row has for each row and for the filler, times heads. */
static inline dim3 attention_grid(const attention_call &call, const rows_device &rows, int tile)
{
    int tiles = rows.longest < 1 ? 1 : (rows.longest + tile - 1) / tile;
    return dim3((unsigned)(tiles * (rows.count + 1)), (unsigned)call.heads);
}

/* log2 e: scores go through exp2f. */
static __device__ __forceinline__ float log2_e(void)
{
    return 1.4426950408889634f;
}

static __device__ __forceinline__ float minus_infinity(void)
{
    return __uint_as_float(0xFF800000u);
}

/* Where a block works: its tile of `rows`, the lines of the row in both sets. */
struct attention_place {
    int row, head, tile, tiles;
    int64_t q_begin, k_begin; /* first line */
    int nq, nk;
    bool filler; /* no row: the lines behind the last */
};

static __device__ __forceinline__ attention_place place_of_block(const attention_call &call)
{
    attention_place p;
    p.tiles = (int)gridDim.x / (call.queries.count + 1);
    p.row = (int)blockIdx.x / p.tiles;
    p.tile = (int)blockIdx.x % p.tiles;
    p.head = (int)blockIdx.y;
    p.filler = p.row >= call.queries.count;
    if (p.filler) {
        p.q_begin = call.queries.begin[call.queries.count];
        p.k_begin = call.keys.begin[call.keys.count];
        p.nq = call.queries.lines - (int)p.q_begin;
        p.nk = call.keys.lines - (int)p.k_begin;
    } else {
        p.q_begin = call.queries.begin[p.row];
        p.k_begin = call.keys.begin[p.row];
        p.nq = call.queries.begin[p.row + 1] - (int)p.q_begin;
        p.nk = call.keys.begin[p.row + 1] - (int)p.k_begin;
    }
    return p;
}

/* Zeros in `width` elements of a head in each of n filler lines from line `begin` on, shared out
 * over the place's tiles. */
template <typename T>
static __device__ void clear_filler(const attention_place &p, T *x, int64_t begin, int n,
                                    int64_t stride, int width)
{
    for (int i = p.tile * ATTENTION_THREADS + (int)threadIdx.x; i < n * width;
         i += p.tiles * ATTENTION_THREADS)
        x[(begin + i / width) * stride + p.head * width + i % width] = from_float<T>(0.0f);
}

/* ---- dropout (kernels.h): one Philox decides 8 neighbouring keys of one query. */
struct decisions {
    uint64_t key;
    uint32_t chunk, row_low, row_high;
    uint32_t threshold; /* 0: none; the rest is unused */
    uint32_t first;     /* number of query 0's first group */
    uint32_t groups;    /* of 8 keys, in each query */
    float scale;        /* 1 without dropout */
};

static __device__ __forceinline__ decisions decisions_of(const attention_call &call,
                                                         const attention_place &p)
{
    decisions d;
    d.key = 0;
    d.chunk = d.row_low = d.row_high = d.first = d.groups = 0;
    d.threshold = call.dropout.threshold;
    d.scale = 1.0f;
    if (d.threshold != 0) {
        uint64_t id = (uint64_t)call.dropout.row[p.row];
        d.key = device_random_key(call.dropout.seed, 3, (uint64_t)call.dropout.header->step,
                                  call.dropout.code);
        d.chunk = (uint32_t)call.dropout.chunk[p.row];
        d.row_low = (uint32_t)id;
        d.row_high = (uint32_t)(id >> 32);
        d.groups = (uint32_t)(p.nk + 7) / 8;
        d.first = (uint32_t)p.head * (uint32_t)p.nk * d.groups;
        d.scale = call.dropout.scale;
    }
    return d;
}

/* The eight 16-bit lanes for keys [8 group, 8 group + 8) of a query. */
static __device__ __forceinline__ philox_bits decide(const decisions &d, int query, int group)
{
    return device_philox(d.key, d.first + (uint32_t)query * d.groups + (uint32_t)group, d.chunk,
                         d.row_low, d.row_high);
}

/* The same as 8 bits: bit i is set where key 8 group + i is kept. */
static __device__ __forceinline__ uint32_t decide_bits(const decisions &d, int query, int group)
{
    philox_bits p = decide(d, query, group);
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        bits |= (p.v[i] & 0xFFFFu) >= d.threshold ? 1u << (2 * i) : 0u;
        bits |= (p.v[i] >> 16) >= d.threshold ? 2u << (2 * i) : 0u;
    }
    return bits;
}

/* Copy `lines` lines of a head into a tile of ROWS lines and D channels; zeros in the tile's other
 * lines and channels. Layout::at(line, chunk) is the tile's element where 16 bytes number `chunk`
 * of a line go; a line 8 further on is 8 Layout::width elements further on. Where the source is
 * aligned the copies are asynchronous and belong to the next commit. from: the head's first channel
 * of the first line. */
template <typename T, int ROWS, int D, typename Layout>
static __device__ __forceinline__ void load_tile(T *tile, const T *from, int64_t stride, int lines,
                                                 int head_size, bool aligned)
{
    /* A thread brings the same chunk of every step-th line: few addresses to keep. */
    constexpr int each = 16 / (int)sizeof(T), chunks = D / each;
    constexpr int step = ATTENTION_THREADS / chunks;
    static_assert(step >= 4 && ROWS % step == 0, "a tile is copied in whole steps");
    const int first = (int)threadIdx.x / chunks, chunk = (int)threadIdx.x % chunks;
    lines = chunk * each < head_size ? lines : 0;
    const T *source = from + first * stride + chunk * each;
#pragma unroll
    for (int i = 0; i < ROWS; i += step) {
        const bool valid = first + i < lines;
        T *target = step % 8 == 0 ? tile + Layout::at(first, chunk) + i * Layout::width
                                  : tile + Layout::at(first + i, chunk);
        if (aligned) {
            cp_async16(target, valid ? source : from, valid);
        } else {
            for (int e = 0; e < each; e++)
                target[e] = valid ? source[e] : from_float<T>(0.0f);
        }
        source += step * stride;
    }
}

#endif
