/*
 * attention.h - what attention.c and the paths for one instruction set share. Private to
 * attention*.c and its test.
 *
 * Work is cut into units that write disjoint outputs: forward into (row, head, up to
 * ATTENTION_CHUNK queries), backward into (row, head). A unit's result depends on its row alone. A
 * path computes one unit on one thread, in scratch memory that the caller provides; it allocates
 * nothing and cannot fail.
 *
 * Disentangled attention (relative != NULL): each head's lines of the table are written out by
 * distance once a call (table_prepare), so that neighbouring keys read neighbouring lines.
 * Backward's units are (group of rows, head): the table's gradient is summed over a group in the
 * thread's memory, by distance, then folded into lines, and the groups of a piece are added up in
 * order. Where a group begins depends on the piece alone.
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
    const struct relative *relative; /* NULL: plain attention, the rest is unused */
    const struct distances *distances;
    int most_queries, most_keys; /* of a row */
    const unsigned char *tables; /* what table_prepare() made, table_bytes for each head */
    size_t table_bytes;
};

/* Line of a distance; it is one of the table's where the call's longest row has the distance. */
static inline int attention_line(const struct attention_call *a, int distance)
{
    const int reach = a->distances->reach;
    distance = distance > reach ? reach : distance < -reach ? -reach : distance;
    return a->distances->line[reach + distance];
}

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
    size_t (*forward_bytes)(int head_size, int queries, int keys, bool relative);
    size_t (*backward_bytes)(int head_size, int queries, int keys, bool relative);
    /* Called by each thread around its units; NULL: nothing to do. */
    void (*begin)(void);
    void (*end)(void);
    /* Queries [q0, q1) of the row, q0 a multiple of 16. */
    void (*forward)(const struct attention_call *a, int row, int head, int q0, int q1,
                    unsigned char *scratch);
    void (*backward)(const struct attention_call *a, int row, int head, unsigned char *scratch,
                     unsigned char *sums);
    /* ---- relative positions. A head's lines by distance, of a call with so long rows; queries,
     * keys: the most of a row. */
    size_t (*table_bytes)(int head_size, int queries, int keys, bool backward);
    void (*table_prepare)(const struct attention_call *a, int head, bool backward,
                          unsigned char *to);
    /* The sums that backward() adds to over a group's rows of one head, zero at the beginning; and
     * what they come to: columns of the head in partial (lines, width), =. */
    size_t (*sums_bytes)(int head_size, int queries, int keys);
    void (*sums_fold)(const struct attention_call *a, int head, const unsigned char *sums,
                      float *partial);
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
