/*
 * optimizer.cu - AdamW, sums of squares, the 16-bit copy of the weights, merges of gradient sums.
 *
 * All of these read and write memory and little else, so each is one pass with 16-byte loads where
 * addresses allow. Every element's arithmetic is one function, spelled out in fused multiply-adds,
 * because a compiler that fuses on its own may do so differently in the wide and the narrow loop
 * and the bits would then depend on where a segment begins.
 *
 * AdamW is one launch for up to MOST_SEGMENTS segments: a block takes a chunk of one segment, which
 * it finds by bisection. Sums of squares are in double, where a product of two floats is exact;
 * thread i of a block takes elements 4 i to 4 i + 3 of every 1,024, then a fixed tree adds the
 * threads: the order is the same however the elements are loaded.
 */
#include "base/cuda.cuh"

#include <math.h>

extern "C" {
#include "base/mem.h"
#include "model/kernels/cuda/cuda.h"
}

enum { THREADS = 256, WIDE = 4, CHUNK = 4096, MOST_BLOCKS = 1 << 16 };

static bool aligned16(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Blocks of THREADS threads for n pieces of work; kernels stride over what is left. */
static unsigned int blocks_for(int64_t n)
{
    const int64_t blocks = (n + THREADS - 1) / THREADS;
    return blocks < MOST_BLOCKS ? (unsigned int)blocks : (unsigned int)MOST_BLOCKS;
}

/* ---- AdamW */

struct adamw_device {
    float *w;
    const float *g;
    float *m, *v;
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float eps, clip;
    float correction; /* 1 / sqrt(correction2) */
    const step_segment *segments;
    int count;
    bool wide; /* the arrays begin at multiples of 16 bytes */
};

static __device__ __forceinline__ void adamw_element(const adamw_device &a, const step_segment &s,
                                                     float gradient, float *w, float *m, float *v)
{
    const float g = gradient * a.clip;
    *m = fmaf(*m, a.beta1, g * a.rest1);
    *v = fmaf(g * a.rest2, g, *v * a.beta2);
    const float step = *m / fmaf(sqrtf(*v), a.correction, a.eps);
    *w = fmaf(-s.rate, step, *w * s.keep);
}

static __global__ void adamw_kernel(adamw_device a)
{
    const int64_t chunk = blockIdx.x;
    int low = 0, high = a.count; /* the last segment whose first chunk is not behind this one */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (a.segments[middle].chunk <= chunk)
            low = middle;
        else
            high = middle;
    }
    const step_segment s = a.segments[low];
    const int64_t begin = (chunk - s.chunk) * CHUNK,
                  end = begin + CHUNK < s.count ? begin + CHUNK : s.count;
    float *w = a.w + s.w, *m = a.m + s.state, *v = a.v + s.state;
    const float *g = a.g + s.g;
    int64_t at = begin;
    if (a.wide && (s.w | s.g | s.state) % WIDE == 0) {
        for (int64_t e = begin + WIDE * (int64_t)threadIdx.x; e + WIDE <= end;
             e += WIDE * THREADS) {
            const float4 g4 = *reinterpret_cast<const float4 *>(g + e);
            float4 w4 = *reinterpret_cast<float4 *>(w + e);
            float4 m4 = *reinterpret_cast<float4 *>(m + e);
            float4 v4 = *reinterpret_cast<float4 *>(v + e);
            adamw_element(a, s, g4.x, &w4.x, &m4.x, &v4.x);
            adamw_element(a, s, g4.y, &w4.y, &m4.y, &v4.y);
            adamw_element(a, s, g4.z, &w4.z, &m4.z, &v4.z);
            adamw_element(a, s, g4.w, &w4.w, &m4.w, &v4.w);
            *reinterpret_cast<float4 *>(w + e) = w4;
            *reinterpret_cast<float4 *>(m + e) = m4;
            *reinterpret_cast<float4 *>(v + e) = v4;
        }
        at = end - (end - begin) % WIDE;
    }
    for (int64_t e = at + threadIdx.x; e < end; e += THREADS) {
        float w1 = w[e], m1 = m[e], v1 = v[e];
        adamw_element(a, s, g[e], &w1, &m1, &v1);
        w[e] = w1;
        m[e] = m1;
        v[e] = v1;
    }
}

/* Segments first .. of the list that one launch takes, copied to the device; *next: the first that
 * is left; *chunks: blocks to launch. */
static enum status send_segments(struct kernel_ctx *ctx, const struct adamw_args *args,
                                 const struct adamw_segment *segments, int first, int count,
                                 int *next, int *used, int64_t *chunks)
{
    struct step_store *store = ctx->step;
    const int slot = store->next;
    struct step_segment *to = store->host[slot];
    *used = 0;
    *chunks = 0;
    TRY(cuda_status(cudaEventSynchronize(store->copied[slot]), "copy the optimizer's segments"));
    int i = first;
    for (; i < count && *used < MOST_SEGMENTS; i++) {
        const struct adamw_segment *s = &segments[i];
        if (s->count <= 0)
            continue;
        to[*used].w = s->w;
        to[*used].g = s->g;
        to[*used].state = s->state;
        to[*used].count = s->count;
        to[*used].chunk = *chunks;
        to[*used].keep = (float)(1.0 - (double)s->lr * (double)s->weight_decay);
        to[*used].rate = (float)((double)s->lr / args->correction1);
        *chunks += (s->count + CHUNK - 1) / CHUNK;
        (*used)++;
    }
    *next = i;
    if (*used == 0)
        return STATUS_OK;
    store->next = 1 - slot;
    TRY(cuda_status(cudaMemcpyAsync(store->segments, to, (size_t)*used * sizeof *to,
                                    cudaMemcpyHostToDevice, ctx->stream),
                    "copy the optimizer's segments"));
    return cuda_status(cudaEventRecord(store->copied[slot], ctx->stream),
                       "copy the optimizer's segments");
}

extern "C" enum status cuda_adamw(struct kernel_ctx *ctx, const struct adamw_args *args,
                                  const struct adamw_segment *segments, int count)
{
    adamw_device a;
    if (!ctx->opts.training || ctx_recording(ctx)) /* a replay would repeat this step's rates */
        return ctx_failed(ctx, status_fail(STATUS_ARG, "AdamW %s",
                                           ctx->opts.training ? "inside a recorded stretch"
                                                              : "without training"));
    a.w = args->weights;
    a.g = args->gradient;
    a.m = args->m;
    a.v = args->v;
    a.beta1 = args->beta1;
    a.beta2 = args->beta2;
    a.rest1 = 1.0f - args->beta1;
    a.rest2 = 1.0f - args->beta2;
    a.eps = args->eps;
    a.clip = args->clip;
    a.correction = (float)(1.0 / sqrt(args->correction2));
    a.segments = ctx->step->segments;
    a.wide = aligned16(a.w) && aligned16(a.g) && aligned16(a.m) && aligned16(a.v);
    for (int first = 0; first < count;) {
        int64_t chunks;
        TRY(send_segments(ctx, args, segments, first, count, &first, &a.count, &chunks));
        if (a.count == 0)
            break;
        if (chunks > INT32_MAX)
            return status_fail(STATUS_ARG,
                               "AdamW over %lld chunks of %d elements, wanted at most %d",
                               (long long)chunks, (int)CHUNK, INT32_MAX);
        LAUNCH(adamw_kernel, (unsigned int)chunks, THREADS, 0, ctx->stream, a);
        TRY(launched("AdamW"));
    }
    return STATUS_OK;
}

/* ---- sums of squares */

/* out[i] = sum of squares of x[i block, min((i + 1) block, n)). */
static __global__ void square_sums_kernel(const float *x, int64_t n, int64_t block, bool wide,
                                          double *out)
{
    SHARED_ARRAY(double, sums, THREADS);
    const int64_t begin = (int64_t)blockIdx.x * block, end = begin + block < n ? begin + block : n;
    double sum = 0.0;
    for (int64_t e = begin + WIDE * (int64_t)threadIdx.x; e < end; e += WIDE * THREADS) {
        float part[WIDE] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (wide && e + WIDE <= end) {
            const float4 v = *reinterpret_cast<const float4 *>(x + e);
            part[0] = v.x;
            part[1] = v.y;
            part[2] = v.z;
            part[3] = v.w;
        } else {
            for (int i = 0; i < WIDE && e + i < end; i++)
                part[i] = x[e + i];
        }
        for (int i = 0; i < WIDE; i++)
            sum += (double)part[i] * (double)part[i];
    }
    sums[threadIdx.x] = sum;
    for (int width = THREADS / 2; width > 0; width /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < width)
            sums[threadIdx.x] += sums[threadIdx.x + width];
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = sums[0];
}

/* The first `count` sums of the device, waited for. */
static enum status fetch_sums(struct kernel_ctx *ctx, int count, double *out)
{
    const struct step_store *store = ctx->step;
    TRY(cuda_status(cudaMemcpyAsync(store->sums_host, store->sums, (size_t)count * sizeof(double),
                                    cudaMemcpyDeviceToHost, ctx->stream),
                    "read sums of squares"));
    TRY(cuda_status(cudaStreamSynchronize(ctx->stream), "read sums of squares"));
    for (int i = 0; i < count; i++)
        out[i] = store->sums_host[i];
    return STATUS_OK;
}

extern "C" enum status cuda_square_sums(struct kernel_ctx *ctx, const float *x,
                                        const struct range *ranges, int count, int64_t block,
                                        double *out)
{
    int waiting = 0; /* sums that are queued and not read */
    if (!ctx->opts.training || ctx_recording(ctx) || block < 1)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "sums of squares of blocks of %lld%s",
                                           (long long)block,
                                           ctx->opts.training ? "" : ", without training"));
    for (int r = 0; r < count; r++) {
        const int64_t n = ranges[r].end - ranges[r].begin;
        const int64_t sums = (n + block - 1) / block;
        for (int64_t done = 0; done < sums;) {
            if (waiting == MOST_SUMS) {
                TRY(fetch_sums(ctx, waiting, out));
                out += waiting;
                waiting = 0;
            }
            const int64_t left = sums - done, room = MOST_SUMS - waiting;
            const int now = (int)(left < room ? left : room);
            const float *from = x + ranges[r].begin + done * block;
            LAUNCH(square_sums_kernel, (unsigned int)now, THREADS, 0, ctx->stream, from,
                   n - done * block, block, aligned16(from) && block % WIDE == 0,
                   ctx->step->sums + waiting);
            TRY(launched("sums of squares"));
            waiting += now;
            done += now;
        }
    }
    return waiting == 0 ? STATUS_OK : fetch_sums(ctx, waiting, out);
}

/* ---- the 16-bit copy of the weights */

template <typename T> static __global__ void cast_kernel(const float *x, int64_t n, T *y)
{
    const int64_t stride = (int64_t)gridDim.x * THREADS * 8,
                  first = 8 * ((int64_t)blockIdx.x * THREADS + threadIdx.x);
    for (int64_t e = first; e < n; e += stride) {
        if (e + 8 <= n) {
            const float4 a = *reinterpret_cast<const float4 *>(x + e);
            const float4 b = *reinterpret_cast<const float4 *>(x + e + 4);
            uint4 to;
            to.x = pack2<T>(a.x, a.y);
            to.y = pack2<T>(a.z, a.w);
            to.z = pack2<T>(b.x, b.y);
            to.w = pack2<T>(b.z, b.w);
            *reinterpret_cast<uint4 *>(y + e) = to;
        } else {
            for (int64_t i = e; i < n; i++)
                y[i] = from_float<T>(x[i]);
        }
    }
}

extern "C" enum status cuda_cast_weights(struct kernel_ctx *ctx, const float *weights)
{
    const int64_t n = ctx->weight_end - ctx->weight_begin;
    const float *from = weights + ctx->weight_begin; /* a multiple of 64 elements */
    if (n == 0)
        return STATUS_OK;
    if (!aligned16(from))
        return status_fail(STATUS_ARG, "weights at %p, wanted a multiple of 16 bytes",
                           (const void *)weights);
    if (ctx->opts.precision == PRECISION_FP16)
        LAUNCH((cast_kernel<fp16>), blocks_for((n + 7) / 8), THREADS, 0, ctx->stream, from, n,
               reinterpret_cast<fp16 *>(ctx->weights16));
    else
        LAUNCH((cast_kernel<bf16>), blocks_for((n + 7) / 8), THREADS, 0, ctx->stream, from, n,
               reinterpret_cast<bf16 *>(ctx->weights16));
    return launched("16-bit copy of the weights");
}

/* ---- merges */

/* buffer[to[j]][offset + e] += buffer[from[j]][offset + e] for j in [first, last), in order. A
 * thread does all merges of its elements, so nothing waits between them. */
static __global__ void merge_kernel(float *const *buffer, const int32_t *to, const int32_t *from,
                                    int first, int last, int64_t offset, int64_t n, bool wide)
{
    const int64_t step = wide ? WIDE : 1, stride = (int64_t)gridDim.x * THREADS * step;
    for (int64_t e = step * ((int64_t)blockIdx.x * THREADS + threadIdx.x); e < n; e += stride) {
        for (int j = first; j < last; j++) {
            float *a = buffer[to[j]] + offset + e;
            const float *b = buffer[from[j]] + offset + e;
            if (wide && e + WIDE <= n) {
                float4 x = *reinterpret_cast<float4 *>(a);
                const float4 y = *reinterpret_cast<const float4 *>(b);
                x.x += y.x;
                x.y += y.y;
                x.z += y.z;
                x.w += y.w;
                *reinterpret_cast<float4 *>(a) = x;
            } else {
                for (int64_t i = 0; i < step && e + i < n; i++)
                    a[i] += b[i];
            }
        }
    }
}

extern "C" enum status cuda_merge(struct kernel_ctx *ctx, int piece, int64_t offset, int64_t n)
{
    const struct grad_cut *cut = &ctx->host_cut;
    const struct cut_device *d = &ctx->cut;
    const int first = cut->merge_begin[piece], last = cut->merge_begin[piece + 1];
    bool wide = true;
    if (first == last || n == 0)
        return STATUS_OK;
    for (int j = first; j < last; j++)
        wide = wide && aligned16(cut->buffer[cut->merge_to[j]] + offset) &&
               aligned16(cut->buffer[cut->merge_from[j]] + offset);
    LAUNCH(merge_kernel, blocks_for(wide ? (n + WIDE - 1) / WIDE : n), THREADS, 0, ctx->stream,
           d->buffer, d->merge_to, d->merge_from, first, last, offset, n, wide);
    return launched("merge of gradient sums");
}
