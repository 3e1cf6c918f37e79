/*
 * cpu.h - what the files of the CPU backend share: what this CPU can do, the context, scratch
 * memory, work divisions.
 *
 * Files are named by the instruction set they are compiled for (*_avx2.c, *_avx512.c, *_bf16.c =
 * AVX-512 with BF16,
 * *_amx.c); nothing in them runs before cpu_features() said so. cpu.c holds the table and decides;
 * it is compiled for any CPU. Threads are OpenMP's, work is divided over independent outputs only,
 * and every loop over a vector ends in the same arithmetic as its body (masked lanes), so that no
 * bit depends on the number of threads or on a position.
 *
 * Scratch: an entry calls cpu_scratch_reserve() before its parallel region (it may fail) and
 * cpu_scratch() inside.
 */
#ifndef COHORT_MODEL_KERNELS_CPU_CPU_H
#define COHORT_MODEL_KERNELS_CPU_CPU_H

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "base/status.h"
#include "model/kernels/kernels.h"

struct cpu_features {
    bool avx2;   /* AVX2, FMA */
    bool avx512; /* F, BW, VL, DQ, VBMI: what the files *_avx512.c are compiled for */
    bool bf16;   /* avx512 and AVX512-BF16 */
    bool amx;    /* bf16 and AMX tiles with BF16, and the kernel gave permission to use them */
};

/* Asked once (CPUID, XCR0, and arch_prctl for AMX's tile data), then the same for the life of the
 * process. */
const struct cpu_features *cpu_features(void);
/* Pretend that the CPU lacks what cap lacks: for tests of the slower paths. Contexts opened before
 * keep what they chose. */
void cpu_features_cap(struct cpu_features cap);

#define CPU_MAX_THREADS 512

struct cpu_scratch {
    unsigned char *p;
    size_t bytes;
};

struct products; /* products.h */
struct products_table;
struct cpu_rows; /* rows.h */

struct kernel_ctx {
    struct device *device;
    enum precision precision;
    bool bf16; /* act is bfloat16, else float */
    bool training, fastest;
    struct cpu_features cpu; /* as it was when the context was opened */
    int64_t max_tokens;
    int max_rows, max_channels;
    struct distances distances;
    struct cpu_scratch scratch[CPU_MAX_THREADS]; /* by thread number */
    struct cpu_scratch shared;                   /* one block that all threads of a call see */
    struct products *products;
    const struct products_table *product_table;
    const struct cpu_rows *rows; /* rows.h: kernels over lines of activations */
};

/* Threads a parallel region of this context uses: num_threads(cpu_threads()) of every region. */
static inline int cpu_threads(void)
{
    int n = omp_get_max_threads();
    return n < CPU_MAX_THREADS ? n : CPU_MAX_THREADS;
}

/* At least bytes for each thread of the next region; contents are not kept. 64-byte aligned.
 * STATUS_NOMEM. */
NODISCARD enum status cpu_scratch_reserve(struct kernel_ctx *ctx, size_t bytes);
/* The calling thread's block. */
static inline void *cpu_scratch(struct kernel_ctx *ctx)
{
    return ctx->scratch[omp_get_thread_num()].p;
}
/* At least bytes that the whole call shares; contents are not kept. 64-byte aligned. STATUS_NOMEM.
 */
NODISCARD enum status cpu_shared_reserve(struct kernel_ctx *ctx, size_t bytes, void *out);

/* Put the n sums of piece i, at `at` of the flat buffers, where the cut says, and do the piece's
 * merges on them. */
void cpu_cut_put(const struct grad_cut *cut, int i, const float *sum, int64_t at, int64_t n);

/* One more than the largest buffer that the cut names; 1 without pieces. */
int cpu_cut_buffers(const struct grad_cut *cut);

static inline float bf16_to_float(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest, ties to even; NaN stays NaN. Subnormals are kept (VCVTNEPS2BF16 makes them
 * zero). */
static inline uint16_t bf16_from_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* A call's dropout, ready for use: key and threshold of kernels.h. on false: keep everything,
 * scale 1. */
struct cpu_dropout {
    bool on;
    uint64_t key;
    uint32_t threshold; /* keep a 16-bit lane >= threshold; 1 .. 65535 */
    float scale;        /* 65536 / (65536 - threshold) */
    const int64_t *row;
    const int32_t *chunk;
};
void cpu_dropout_init(const struct dropout *dropout, struct cpu_dropout *out);

/* Counter words 1..3 of row b of the batch. */
static inline void cpu_dropout_row(const struct cpu_dropout *d, int b, uint32_t counter[3])
{
    counter[0] = d->chunk != NULL ? (uint32_t)d->chunk[b] : 0;
    counter[1] = (uint32_t)(uint64_t)d->row[b];
    counter[2] = (uint32_t)((uint64_t)d->row[b] >> 32);
}

/* Element `line` (of n each) of activations. */
static inline act *cpu_line(const struct kernel_ctx *ctx, const act *x, int64_t line, int64_t n)
{
    return (unsigned char *)(uintptr_t)x + line * n * (ctx->bf16 ? 2 : 4);
}

/* relative.c; exactly the entries of kernels.h. */
NODISCARD enum status cpu_table_norm(struct kernel_ctx *ctx, int lines, int channels,
                                     const float *table, const float *gamma, const float *beta,
                                     float eps, act *out);
NODISCARD enum status cpu_table_norm_backward(struct kernel_ctx *ctx, int lines, int channels,
                                              const act *da, const float *table, const float *gamma,
                                              float eps, int64_t table_offset, int64_t gamma_offset,
                                              int64_t beta_offset, const struct grad_cut *cut);
NODISCARD enum status cpu_table_dropout(struct kernel_ctx *ctx, int copies, int lines, int channels,
                                        const struct dropout *dropout, const act *x, bool add,
                                        act *y);
NODISCARD enum status cpu_neighbours(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                     int taps, const act *x, act *out);
NODISCARD enum status cpu_neighbours_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                              int channels, int taps, const act *dout, act *dx);
/* What they and disentangled attention take of the shared block, about. */
int64_t cpu_relative_bytes(const struct kernel_opts *opts);

/* attention.c; exactly the entries of kernels.h. */
NODISCARD enum status cpu_attention_relative(struct kernel_ctx *ctx, const struct rows *queries,
                                             const struct rows *keys, int heads, int head_size,
                                             const act *q, int64_t q_stride, const act *k,
                                             const act *v, int64_t kv_stride,
                                             const struct relative *relative,
                                             const struct dropout *dropout, act *out, float *lse);
NODISCARD enum status
cpu_attention_relative_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                const struct rows *keys, int heads, int head_size, const act *q,
                                int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                const struct relative *relative, const struct dropout *dropout,
                                const act *out, const float *lse, const act *dout, act *dq, act *dk,
                                act *dv, act *dtable, const struct grad_cut *cut);
NODISCARD enum status cpu_attention(struct kernel_ctx *ctx, const struct rows *queries,
                                    const struct rows *keys, int heads, int head_size, const act *q,
                                    int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                    const struct dropout *dropout, act *out, float *lse);
NODISCARD enum status cpu_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                             const struct rows *keys, int heads, int head_size,
                                             const act *q, int64_t q_stride, const act *k,
                                             const act *v, int64_t kv_stride,
                                             const struct dropout *dropout, const act *out,
                                             const float *lse, const act *dout, act *dq, act *dk,
                                             act *dv);

NODISCARD enum status cpu_update(struct kernel_ctx *ctx, const struct update_args *args,
                                 const struct adamw_segment *segments, int count);

#endif
