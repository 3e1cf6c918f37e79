/*
 * attention.h - what attention.c and the paths for one instruction set share. Private to
 * attention*.c and its test.
 *
 * Work is cut into units that write disjoint outputs: forward into (row, head, up to
 * ATTENTION_CHUNK queries), backward into (row, head). A unit's result depends on its row alone. A
 * path computes one unit on one thread, in scratch memory that the caller provides; it allocates
 * nothing and cannot fail.
 */
#ifndef COHORT_MODEL_KERNELS_CPU_ATTENTION_H
#define COHORT_MODEL_KERNELS_CPU_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "model/kernels/cpu/cpu.h"

#define ATTENTION_CHUNK 512    /* queries of a forward unit: a long row is shared by threads */
#define ATTENTION_MAX_SIZE 256 /* largest head size */

/* One call's arguments as in kernels.h, checked. */
struct attention_call {
    const struct rows *queries, *keys;
    int heads, head_size;
    float scale; /* 1 / sqrt(head_size) */
    const void *q, *k, *v;
    int64_t q_stride, kv_stride; /* elements */
    struct cpu_dropout dropout;
    void *out;  /* forward writes, backward reads */
    float *lse; /* the same */
    const void *dout;
    void *dq, *dk, *dv;
};

/* Counters of one row's dropout decisions: counter words and where head h, query 0 begins. */
struct attention_random {
    uint64_t key;
    uint32_t word[3];   /* counter words 1..3 */
    uint32_t per_query; /* counters of one query: round_up(Lk, 8) / 8 */
    uint32_t first;     /* counter of (head, query 0, key 0) */
    uint32_t threshold;
};

static inline struct attention_random attention_random(const struct attention_call *a, int row,
                                                       int head)
{
    int keys = a->keys->begin[row + 1] - a->keys->begin[row];
    struct attention_random r = {.key = a->dropout.key, .threshold = a->dropout.threshold};
    cpu_dropout_row(&a->dropout, row, r.word);
    r.per_query = ((uint32_t)keys + 7) / 8;
    r.first = (uint32_t)head * (uint32_t)keys * r.per_query;
    return r;
}

struct attention_path {
    const char *name;
    /* Scratch of one unit whose row has at most so many queries and keys; grows with both. */
    size_t (*forward_bytes)(int head_size, int queries, int keys);
    size_t (*backward_bytes)(int head_size, int queries, int keys);
    /* Called by each thread around its units; NULL: nothing to do. */
    void (*begin)(void);
    void (*end)(void);
    /* Queries [q0, q1) of the row, q0 a multiple of 16. */
    void (*forward)(const struct attention_call *a, int row, int head, int q0, int q1,
                    unsigned char *scratch);
    void (*backward)(const struct attention_call *a, int row, int head, unsigned char *scratch);
};

extern const struct attention_path attention_portable_f32, attention_portable_bf16; /* any CPU */
extern const struct attention_path attention_f32_avx2;   /* features.avx2 */
extern const struct attention_path attention_f32_avx512; /* features.avx512 */
extern const struct attention_path attention_bf16;       /* features.bf16 */
extern const struct attention_path attention_amx;        /* features.amx */

/* A piece of scratch memory: *at moves behind it. base NULL only measures. */
static inline void *attention_carve(unsigned char *base, size_t *at, int64_t count, size_t size)
{
    size_t from = *at;
    *at = from + (((size_t)count * size + 63) & ~(size_t)63);
    return base == NULL ? NULL : base + from;
}

#endif
