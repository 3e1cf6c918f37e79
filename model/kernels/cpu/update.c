/*
 * update.c - the optimizers that are not AdamW, on the CPU.
 *
 * Memory bounds them, so the compiler's vectors will do; without contraction a vector's body and
 * its tail give the same bits, so those do not depend on where a segment begins.
 */
#include "model/kernels/update.h"

#include "model/kernels/cpu/cpu.h"

enum { UPDATE_BLOCK = 16384 };

struct place { /* the first of n elements */
    float *w, *g, *s0, *s1, *s2;
};

UPDATE_INLINE void run(enum update_kind kind, bool nesterov, bool has0, bool has1, bool has2,
                       const struct update_step *a, int64_t n, const struct place *at)
{
    float *restrict w = at->w, *restrict g = at->g;
    float *restrict s0 = at->s0, *restrict s1 = at->s1, *restrict s2 = at->s2;
    const bool has[3] = {has0, has1, has2};
    for (int64_t e = 0; e < n; e++) {
        float weight = w[e], gradient = g[e];
        float x0 = has0 ? s0[e] : 0.0f, x1 = has1 ? s1[e] : 0.0f, x2 = has2 ? s2[e] : 0.0f;
        update_element(kind, nesterov, has, a, &weight, &gradient, &x0, &x1, &x2);
        if (kind == UPDATE_LAMB)
            g[e] = gradient;
        else
            w[e] = weight;
        if (has0)
            s0[e] = x0;
        if (has1)
            s1[e] = x1;
        if (has2)
            s2[e] = x2;
    }
}

static void run_rmsprop(const struct update_args *args, const struct update_step *a, int64_t n,
                        const struct place *at)
{
    const bool momentum = args->state[1] != NULL, centered = args->state[2] != NULL;
    if (momentum && centered)
        run(UPDATE_RMSPROP, false, true, true, true, a, n, at);
    else if (momentum)
        run(UPDATE_RMSPROP, false, true, true, false, a, n, at);
    else if (centered)
        run(UPDATE_RMSPROP, false, true, false, true, a, n, at);
    else
        run(UPDATE_RMSPROP, false, true, false, false, a, n, at);
}

static void run_kind(const struct update_args *args, const struct update_step *a, int64_t n,
                     const struct place *at)
{
    switch (args->kind) {
    case UPDATE_SGD:
        if (args->state[0] == NULL)
            run(UPDATE_SGD, false, false, false, false, a, n, at);
        else if (args->nesterov)
            run(UPDATE_SGD, true, true, false, false, a, n, at);
        else
            run(UPDATE_SGD, false, true, false, false, a, n, at);
        break;
    case UPDATE_ADAGRAD:
        run(UPDATE_ADAGRAD, false, true, false, false, a, n, at);
        break;
    case UPDATE_ADADELTA:
        run(UPDATE_ADADELTA, false, true, true, false, a, n, at);
        break;
    case UPDATE_RMSPROP:
        run_rmsprop(args, a, n, at);
        break;
    case UPDATE_ADAM:
        run(UPDATE_ADAM, false, true, true, false, a, n, at);
        break;
    case UPDATE_LAMB:
        run(UPDATE_LAMB, false, true, true, false, a, n, at);
        break;
    }
}

static float *place_of(float *x, int64_t at)
{
    return x == NULL ? NULL : x + at;
}

enum status cpu_update(struct kernel_ctx *ctx, const struct update_args *args,
                       const struct adamw_segment *segments, int count)
{
    (void)ctx;
#pragma omp parallel num_threads(cpu_threads())
    for (int s = 0; s < count; s++) {
        const struct adamw_segment *seg = &segments[s];
        const struct update_step step = update_step_of(args, seg);
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < seg->count; i += UPDATE_BLOCK) {
            const struct place at = {.w = args->weights + seg->w + i,
                                     .g = args->gradient + seg->g + i,
                                     .s0 = place_of(args->state[0], seg->state + i),
                                     .s1 = place_of(args->state[1], seg->state + i),
                                     .s2 = place_of(args->state[2], seg->state + i)};
            run_kind(args, &step, seg->count - i < UPDATE_BLOCK ? seg->count - i : UPDATE_BLOCK,
                     &at);
        }
    }
    return STATUS_OK;
}
