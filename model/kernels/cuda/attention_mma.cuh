/*
 * attention_mma.cuh - what the 16-bit attention kernels share: tiles in shared memory, operands of
 * tensor-core products, softmax, dropout of scores.
 *
 * Tiles are 64 lines of up to D channels (32, 64 or 128; smaller heads are padded with zeros in
 * shared memory), a block is 4 warps and each warp owns 16 lines of its tile.
 *
 * Products are mma m16n8k16 with float accumulators. With g = lane / 4 and t = lane % 4 a thread
 * holds lines g and g + 8 and columns 2t, 2t + 1 of each 8 x 8 piece of the scores; two such
 * pieces, rounded to 16 bits, are the A operand of the product that follows, so probabilities and
 * dS never leave registers. forward and query_grads have queries as lines of the scores, key_grads
 * has keys: that way each warp has the sums over queries of its own keys to itself.
 *
 * Shared memory holds 16-byte chunks XORed with the line number, so that the eight lines that
 * ldmatrix reads at once lie in different banks.
 *
 * Dropout never draws a decision twice in a kernel. One Philox decides 8 keys of a query. Queries
 * as lines: thread t of a quad draws the group of keys of piece t (of four), and a transposition
 * over the quad hands each thread the word with its two columns. Keys as lines: the 32 lanes draw
 * 16 queries times the two groups of the warp's 16 keys, and hand out the decisions as bits.
 */
#ifndef COHORT_MODEL_KERNELS_CUDA_ATTENTION_MMA_CUH
#define COHORT_MODEL_KERNELS_CUDA_ATTENTION_MMA_CUH

#include "model/kernels/cuda/attention.cuh"

enum { TILE = 64 };

/* Where 16-byte chunk `chunk` of a line is in a tile of D channels. */
template <int D> struct swizzled {
    static constexpr int width = D;
    static __device__ __forceinline__ int at(int line, int chunk)
    {
        int flip = D == 32 ? (line >> 1) & 3 : line & 7; /* 32: two lines share 128 bytes */
        return line * D + (chunk ^ flip) * 8;
    }
};

/* A operand: lines [line, line + 16), channels [16 step, 16 step + 16). */
template <typename T, int D>
static __device__ __forceinline__ void load_a(uint32_t a[4], const T *tile, int line, int step)
{
    int lane = (int)threadIdx.x % 32;
    ldmatrix_x4(a, tile + swizzled<D>::at(line + lane % 16, 2 * step + lane / 16));
}

/* B operands of two products X^T: columns are lines [line, line + 8) (b[0], b[1]) and the next 8,
 * the inner index is channels [16 step, 16 step + 16). */
template <typename T, int D>
static __device__ __forceinline__ void load_b(uint32_t b[4], const T *tile, int line, int step)
{
    int lane = (int)threadIdx.x % 32;
    ldmatrix_x4(b,
                tile + swizzled<D>::at(line + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
}

/* B operands of two products X: the inner index is lines [line, line + 16), columns are channels
 * [16 step, 16 step + 8) (b[0], b[1]) and the next 8. */
template <typename T, int D>
static __device__ __forceinline__ void load_b_lines(uint32_t b[4], const T *tile, int line,
                                                    int step)
{
    int lane = (int)threadIdx.x % 32;
    ldmatrix_x4_trans(b, tile + swizzled<D>::at(line + lane % 16, 2 * step + lane / 16));
}

/* Two pieces of scores (columns 0 to 7 and 8 to 15) as an A operand. */
template <typename T>
static __device__ __forceinline__ void pack_a(uint32_t a[4], const float left[4],
                                              const float right[4])
{
    a[0] = pack2<T>(left[0], left[1]);
    a[1] = pack2<T>(left[2], left[3]);
    a[2] = pack2<T>(right[0], right[1]);
    a[3] = pack2<T>(right[2], right[3]);
}

/* Sum over the quad, in every thread of it the same. */
static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

static __device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

/* Words for columns 2t, 2t + 1 of the four pieces that begin at group `group`, of one query. */
static __device__ __forceinline__ philox_bits decide_pieces(const decisions &d, int query,
                                                            int group)
{
    int t = (int)threadIdx.x % 4;
    philox_bits p = decide(d, query, group + t);
    /* word j of thread i goes to word i of thread j: exchange single columns, then pairs */
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, t & 1 ? p.v[i] : p.v[i + 1], 1);
        p.v[i] = t & 1 ? got : p.v[i];
        p.v[i + 1] = t & 1 ? p.v[i + 1] : got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, t & 2 ? p.v[i] : p.v[i + 2], 2);
        p.v[i] = t & 2 ? got : p.v[i];
        p.v[i + 2] = t & 2 ? p.v[i + 2] : got;
    }
    return p;
}

/* The same as 16 bits: bit 4 n + e is set where element e of piece n stays, lines query and query +
 * 8. */
static __device__ __forceinline__ uint32_t decide_bits_of_pieces(const decisions &d, int query,
                                                                 int group)
{
    uint32_t bits = 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const philox_bits p = decide_pieces(d, query + 8 * half, group);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            bits |= (p.v[n] & 0xFFFFu) >= d.threshold ? 1u << (4 * n + 2 * half) : 0u;
            bits |= p.v[n] >> 16 >= d.threshold ? 2u << (4 * n + 2 * half) : 0u;
        }
    }
    return bits;
}

/* Zeros in the columns of four pieces that are dropped; lines query and query + 8. */
static __device__ __forceinline__ void drop_pieces(const decisions &d, float s[][4], int query,
                                                   int group)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        philox_bits p = decide_pieces(d, query + 8 * half, group);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            if ((p.v[n] & 0xFFFFu) < d.threshold)
                s[n][2 * half] = 0.0f;
            if (p.v[n] >> 16 < d.threshold)
                s[n][2 * half + 1] = 0.0f;
        }
    }
}

/* Two neighbouring elements; aligned: as one number. */
template <typename T>
static __device__ __forceinline__ void load2(const T *from, bool aligned, float x[2])
{
    if (aligned) {
        const uint32_t both = *reinterpret_cast<const uint32_t *>(from);
        T lo, hi;
        lo.bits = (uint16_t)both;
        hi.bits = (uint16_t)(both >> 16);
        x[0] = to_float(lo);
        x[1] = to_float(hi);
    } else {
        x[0] = to_float(from[0]);
        x[1] = to_float(from[1]);
    }
}

template <typename T>
static __device__ __forceinline__ void store2(T *to, float lo, float hi, bool aligned)
{
    if (aligned) {
        *reinterpret_cast<uint32_t *>(to) = pack2<T>(lo, hi);
    } else {
        to[0] = from_float<T>(lo);
        to[1] = from_float<T>(hi);
    }
}

/* A warp's 16 lines of sums, each times factor[0] (lines g) or factor[1] (lines g + 8): to lines
 * [line, line + 16) of the head at `to`, as far as there are `lines`. */
template <typename T, int D>
static __device__ __forceinline__ void store_lines(T *to, int64_t stride, int line, int lines,
                                                   int head_size, const float sum[D / 8][4],
                                                   const float factor[2], bool aligned)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int at = line + lane / 4 + 8 * half;
        if (at >= lines)
            continue;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            if (n * 8 < head_size)
                store2<T>(to + at * stride + n * 8 + lane % 4 * 2, sum[n][2 * half] * factor[half],
                          sum[n][2 * half + 1] * factor[half], aligned);
    }
}

/* Scores of the next keys, in so many pieces, become probabilities by the largest so far: lines g
 * and g + 8 in most, total (their sums, of the thread's columns) and sum (their outputs). There is
 * at least one key, so the largest score is a number from the first time on. */
template <int D, int PIECES>
static __device__ __forceinline__ void softmax_so_far(float s[PIECES][4], float to_log2,
                                                      float most[2], float total[2],
                                                      float sum[D / 8][4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = most[half];
#pragma unroll
        for (int n = 0; n < PIECES; n++)
            largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        largest = quad_max(largest);
        const float shrink = exp2f((most[half] - largest) * to_log2);
        const float offset = largest * to_log2;
        most[half] = largest;
        total[half] *= shrink;
#pragma unroll
        for (int n = 0; n < PIECES; n++) {
            s[n][2 * half] = exp2f(s[n][2 * half] * to_log2 - offset);
            s[n][2 * half + 1] = exp2f(s[n][2 * half + 1] * to_log2 - offset);
            total[half] += s[n][2 * half] + s[n][2 * half + 1];
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            sum[n][2 * half] *= shrink;
            sum[n][2 * half + 1] *= shrink;
        }
    }
}

/* The end of a tile of queries: its outputs and lse. line: the warp's first query. */
template <typename T, int D>
static __device__ __forceinline__ void store_forward(const attention_call &call,
                                                     const attention_place &p, int line,
                                                     float drop_scale, const float most[2],
                                                     const float total[2], const float sum[D / 8][4])
{
    const int lane = (int)threadIdx.x % 32;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
    T *out = (T *)call.forward_out + p.q_begin * out_stride + (int64_t)p.head * call.head_size;
    float factor[2] = {0.0f, 0.0f};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float whole = quad_sum(total[half]);
        const int at = line + lane / 4 + 8 * half;
        if (p.nk > 0)
            factor[half] = drop_scale / whole;
        if (lane % 4 == 0 && at < p.nq)
            call.forward_lse[(p.q_begin + at) * call.heads + p.head] =
                p.nk > 0 ? most[half] * call.scale + logf(whole) : 0.0f;
    }
    store_lines<T, D>(out, out_stride, line, p.nq, call.head_size, sum, factor, call.aligned);
}

/* What backward needs of queries g and g + 8 behind `line`: lse as a power of two, and delta, which
 * is left for key_grads too. */
template <typename T>
static __device__ __forceinline__ void query_stats(const attention_call &call,
                                                   const attention_place &p, int line, float lse[2],
                                                   float delta[2])
{
    const int lane = (int)threadIdx.x % 32, t = lane % 4;
    const int64_t channel = (int64_t)p.head * call.head_size;
    const int64_t out_stride = (int64_t)call.heads * call.head_size;
#pragma unroll
    for (int half = 0; half < 2; half++) { /* delta: a quad has a line's channels */
        const int at = line + lane / 4 + 8 * half;
        float part = 0.0f;
        lse[half] = -minus_infinity(); /* no such query: P = 0 */
        if (at < p.nq) {
            const int64_t from = (p.q_begin + at) * out_stride + channel;
            const T *out = (const T *)call.out + from, *dout = (const T *)call.dout + from;
            lse[half] = call.lse[(p.q_begin + at) * call.heads + p.head] * log2_e();
            for (int c = 2 * t; c < call.head_size; c += 8) {
                float x[2], y[2];
                load2(out + c, call.aligned, x);
                load2(dout + c, call.aligned, y);
                part += x[0] * y[0] + x[1] * y[1];
            }
        }
        delta[half] = quad_sum(part);
        if (t == 0 && at < p.nq)
            call.delta[(p.q_begin + at) * call.heads + p.head] = delta[half];
    }
}

#endif
