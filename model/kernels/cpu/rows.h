/*
 * rows.h - kernels over one line of activations, one table per instruction set and element type.
 *
 * The drivers in cpu.c divide lines over threads and follow the rows of a batch; these compute. A
 * line is n elements; float lines (s, g) are the thread's scratch. Dropout decisions of a line are
 * bits, bit e for element e, readable 4 bytes past the last; NULL keeps everything. Within a table
 * an element's result does not depend on its place in the line or on n; a sum over a line depends
 * on n alone.
 */
#ifndef COHORT_MODEL_KERNELS_CPU_ROWS_H
#define COHORT_MODEL_KERNELS_CPU_ROWS_H

#include "model/kernels/cpu/cpu.h"

struct adamw_step { /* what is the same for all elements of a segment */
    float clip, beta1, beta2, eps;
    float keep;       /* 1 - lr decay */
    float rate;       /* lr / correction1 */
    float correction; /* 1 / sqrt(correction2) */
};

struct cpu_rows {
    void (*load)(int64_t n, const act *x, float *to);
    void (*store)(int64_t n, const float *x, act *to);
    /* Decisions `first` .. first + n; bits has room for n / 8 + 72 bytes. */
    void (*keep)(const struct cpu_dropout *d, const uint32_t counter[3], uint64_t first, int64_t n,
                 uint8_t *bits);
    /* to = x scale where kept, else 0. */
    void (*drop)(int64_t n, const float *x, const uint8_t *bits, float scale, act *to);
    /* s = x + drop(y), also stored as sum. */
    void (*residual)(int64_t n, const act *x, const act *y, const uint8_t *bits, float scale,
                     float *s, act *sum);
    /* g = drop(a + b); b may be NULL. */
    void (*gradient)(int64_t n, const act *a, const act *b, const uint8_t *bits, float scale,
                     float *g);
    /* Mean and 1 / sqrt(variance + eps) of s; out = drop((s - mean) rstd gamma + beta). */
    void (*norm)(int64_t n, const float *s, const float *gamma, const float *beta, float eps,
                 const uint8_t *bits, float scale, float *mean, float *rstd, act *out);
    /* g: gradient of norm(sum) gamma + beta, becomes that of sum; dgamma and dbeta are added to. */
    void (*norm_backward)(int64_t n, const act *sum, float mean, float rstd, const float *gamma,
                          float *g, float *dgamma, float *dbeta);
    /* to[e] += x[e]. */
    void (*add)(int64_t n, const float *x, float *to);
    /* Zeros past the caches: tables are large and read much later. */
    void (*zero)(int64_t n, float *to);
    void (*activate)(enum activation kind, int64_t n, const act *x, act *y);
    void (*activate_backward)(enum activation kind, int64_t n, const act *x, const act *dy,
                              act *dx);
    void (*adamw)(const struct adamw_step *step, int64_t n, const float *gradient, float *w,
                  float *m, float *v);
    double (*square_sum)(int64_t n, const float *x);
};

extern const struct cpu_rows cpu_rows_c, cpu_rows_avx2, cpu_rows_avx512, cpu_rows_bf16;

#endif
