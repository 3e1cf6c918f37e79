/*
 * parity.h - run an operation on ref and on cpu, with 1, 2 and 3 threads, and compare.
 *
 * A case is a function that reads inputs and calls one entry of a table. Outputs are pre-filled
 * with NaN between guard zones. cpu's bits must be the same for every thread count and when
 * repeated; its distance to ref is bounded.
 */
#ifndef COHORT_TESTS_MODEL_PARITY_H
#define COHORT_TESTS_MODEL_PARITY_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "model/kernels/kernels.h"
#include "tests/support/shapes.h"
#include "tests/support/support.h"

#define PARITY_OUTPUTS 12
#define PARITY_BUFFERS 4

/* One shape and its batch; a case knows the rest. */
struct parity {
    bool bf16;
    int channels, heads, inner;
    int32_t begin[9];
    struct rows rows;
    int64_t row_id[8];
    struct dropout dropout;
    /* Five pieces over the tokens (or rows): a tree over four, and one that adds. Buffers 0 and 3
     * hold results. */
    int32_t token[6], row[6];
    float *buffer[PARITY_BUFFERS];
    struct grad_cut cut;
    int64_t parameters;
    const struct matrix *matrices;
    int matrix_count;
    float *weights;
    struct distances distances;
    int output_count;
    struct {
        const char *name;
        void *p;
        bool is_act;
        int64_t n;
        double length; /* of the sums: for the bound */
    } output[PARITY_OUTPUTS];
};

typedef void parity_case(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p);

static inline int64_t parity_bytes(const struct parity *p, int64_t n)
{
    return n * (p->bf16 ? 2 : 4);
}

/* Activations with numbers of this seed, in guard zones; freed by the caller. */
static inline void *parity_act(const struct parity *p, int64_t n, uint64_t seed)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    void *a = guard_alloc((size_t)parity_bytes(p, n));
    shapes_fill(x, n, seed, p->bf16);
    shapes_to_act(x, n, p->bf16, a);
    free(x);
    return a;
}

static inline float *parity_float(int64_t n, uint64_t seed)
{
    float *x = guard_alloc((size_t)n * sizeof *x);
    shapes_fill(x, n, seed, false);
    return x;
}

static inline void *parity_output(struct parity *p, const char *name, bool is_act, int64_t n,
                                  double length)
{
    int i = p->output_count++;
    p->output[i].name = name;
    p->output[i].is_act = is_act;
    p->output[i].n = n;
    p->output[i].length = length;
    p->output[i].p = guard_alloc((size_t)n * (is_act && p->bf16 ? 2 : 4));
    return p->output[i].p;
}

/* Parameter gradients of a case: buffers of n elements, results first. */
static inline void parity_gradients(struct parity *p, int64_t n, double length)
{
    static const int32_t to[5] = {0, 1, 1, 2, 3}, merge_begin[6] = {0, 0, 1, 1, 3, 3};
    static const int32_t merge_to[3] = {0, 1, 0}, merge_from[3] = {1, 2, 1};
    static const bool add[5] = {false, false, false, false, true};
    for (int i = 0; i < PARITY_BUFFERS; i++)
        p->buffer[i] = parity_output(p,
                                     i == 0   ? "sum of four pieces"
                                     : i == 3 ? "added piece"
                                              : NULL,
                                     false, n, length);
    shapes_fill(p->buffer[3], n, 99, false);
    p->cut = (struct grad_cut){.pieces = 5,
                               .token = p->token,
                               .row = p->row,
                               .to = to,
                               .add = add,
                               .merge_begin = merge_begin,
                               .merge_to = merge_to,
                               .merge_from = merge_from,
                               .buffer = p->buffer};
    p->parameters = n;
}

static inline void parity_batch(struct parity *p, const int *lengths)
{
    int n = shapes_rows(lengths, p->begin);
    p->rows = (struct rows){.tokens = p->begin[n], .count = n, .longest = 1, .begin = p->begin};
    for (int b = 0; b < n; b++) {
        int length = p->begin[b + 1] - p->begin[b];
        p->rows.longest = length > p->rows.longest ? length : p->rows.longest;
        p->row_id[b] = 1000 + 7 * b + ((int64_t)b << 33);
    }
    for (int i = 0; i <= 5; i++) { /* pieces are whole rows; some are empty */
        p->row[i] = (int32_t)(n * i / 5);
        p->token[i] = p->begin[p->row[i]];
    }
    p->dropout =
        (struct dropout){.p = 0.1f, .seed = 5, .step = 3, .layer = 2, .site = 1, .row = p->row_id};
}

static inline struct kernel_ctx *parity_open(const struct kernels *k, const struct parity *p)
{
    struct kernel_ctx *ctx;
    struct kernel_opts opts = {.precision = p->bf16 ? PRECISION_BF16 : PRECISION_FP32,
                               .matrices = p->matrices,
                               .count = p->matrix_count,
                               .max_tokens = 4096,
                               .max_rows = 64,
                               .max_channels = 4096,
                               .distances = p->distances,
                               .training = true};
    assert_ok(k->open(&opts, &ctx));
    if (p->matrix_count > 0)
        assert_ok(k->weights_changed(ctx, p->weights));
    return ctx;
}

static inline void parity_release(struct parity *p)
{
    for (int i = 0; i < p->output_count; i++)
        guard_free(p->output[i].p);
    p->output_count = 0;
}

/* RMS bound of STYLE.md: 4 eps sqrt(K) for float, 2^-8 for bfloat16 outputs. */
static inline double parity_bound(const struct parity *p, int i)
{
    double eps = ldexp(1.0, -24) * 4.0 * sqrt(p->output[i].length);
    return p->bf16 && p->output[i].is_act ? ldexp(1.0, -8) : eps;
}

/* Run the case on both tables; slack multiplies the bound (1 unless the case says why). */
static inline void parity_check(parity_case *run, const struct parity *base, const char *name,
                                double slack)
{
    struct parity want = *base;
    struct kernel_ctx *ref = parity_open(kernels_ref(), &want),
                      *cpu = parity_open(kernels_cpu(), &want);
    run(kernels_ref(), ref, &want);
    struct parity first;
    for (int threads = 1; threads <= 4; threads++) { /* the fourth repeats two */
        struct parity got = *base;
        char what[200];
        threads_set(threads < 4 ? threads : 2);
        run(kernels_cpu(), cpu, &got);
        for (int i = 0; i < got.output_count; i++) {
            int64_t n = got.output[i].n;
            bool bf16 = got.bf16 && got.output[i].is_act;
            if (got.output[i].name == NULL)
                continue;
            snprintf(what, sizeof what, "%s: %s (%s, C %d, F %d, T %lld, B %d, %d threads)", name,
                     got.output[i].name, got.bf16 ? "bf16" : "fp32", got.channels, got.inner,
                     (long long)got.rows.tokens, got.rows.count, threads);
            guard_check(got.output[i].p, what);
            if (threads > 1 &&
                memcmp(first.output[i].p, got.output[i].p, (size_t)(n * (bf16 ? 2 : 4))) != 0)
                fail_msg("%s: other bits than with one thread", what);
            float *a = malloc((size_t)(n + 1) * 2 * sizeof *a), *b = a + n;
            shapes_from_act(got.output[i].p, n, bf16, a);
            shapes_from_act(want.output[i].p, n, bf16, b);
            for (int64_t e = 0; e < n; e++) { /* elements nobody writes stay NaN in both */
                if (a[e] != a[e] && b[e] != b[e])
                    a[e] = b[e] = 0.0f;
            }
            double error = shapes_error(a, b, n), bound = parity_bound(&got, i) * slack;
            if (!(error <= bound))
                fail_msg("%s: RMS relative error %.3g, wanted at most %.3g", what, error, bound);
            free(a);
        }
        if (threads == 1)
            first = got;
        else
            parity_release(&got);
    }
    parity_release(&first);
    parity_release(&want);
    kernels_ref()->close(ref);
    kernels_cpu()->close(cpu);
}

/* Both precisions, all batches; bf16 only where the CPU has it. */
static inline void parity_all(parity_case *run, int channels, int heads, int inner,
                              const struct matrix *matrices, int matrix_count, float *weights,
                              const char *name, double slack)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        if (bf16 && kernels_cpu()->supports(PRECISION_BF16) != STATUS_OK) {
            static bool said;
            if (!said)
                print_message("SKIP bf16: %s\n", status_message());
            said = true;
            continue;
        }
        for (int batch = 0; batch < SHAPES_BATCHES; batch++) {
            struct parity p = {.bf16 = bf16,
                               .channels = channels,
                               .heads = heads,
                               .inner = inner,
                               .matrices = matrices,
                               .matrix_count = matrix_count,
                               .weights = weights};
            parity_batch(&p, shapes_batch[batch]);
            parity_check(run, &p, name, slack);
        }
    }
}

#endif
