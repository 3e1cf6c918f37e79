/*
 * update.h - one element's step of update() in float, the same text for every backend that computes
 * in float; kernels.h has the formulas.
 *
 * `kind` and which states there are should be constants where this is called, so that one loop has
 * one rule.
 */
#ifndef COHORT_MODEL_KERNELS_UPDATE_H
#define COHORT_MODEL_KERNELS_UPDATE_H

#include <math.h>

#include "model/kernels/kernels.h"

#ifdef __CUDACC__
#define UPDATE_INLINE static __device__ __forceinline__
#else
#define UPDATE_INLINE static inline __attribute__((always_inline))
#endif

struct update_step { /* what is the same for all elements of a segment */
    float clip, beta1, beta2, eps;
    float rest1, rest2;             /* 1 - beta */
    float rate;                     /* lr; ADAM: lr / correction1 */
    float decay;                    /* added to the gradient; LAMB: to the direction */
    float correction1, correction2; /* LAMB: 1 / correction1; ADAM, LAMB: 1 / sqrt(correction2) */
};

static inline struct update_step update_step_of(const struct update_args *args,
                                                const struct adamw_segment *s)
{
    struct update_step step;
    const bool adam = args->kind == UPDATE_ADAM, lamb = args->kind == UPDATE_LAMB;
    step.clip = args->clip;
    step.beta1 = args->beta1;
    step.beta2 = args->beta2;
    step.eps = args->eps;
    step.rest1 = 1.0f - args->beta1;
    step.rest2 = 1.0f - args->beta2;
    step.rate = adam ? (float)((double)s->lr / args->correction1) : s->lr;
    step.decay = s->weight_decay;
    step.correction1 = lamb ? (float)(1.0 / args->correction1) : 1.0f;
    step.correction2 = adam || lamb ? (float)(1.0 / sqrt(args->correction2)) : 1.0f;
    return step;
}

/* has: which of the states there are; the others are not touched. */
UPDATE_INLINE void update_element(enum update_kind kind, bool nesterov, const bool has[3],
                                  const struct update_step *a, float *w, float *gradient, float *s0,
                                  float *s1, float *s2)
{
    float g = *gradient * a->clip;
    if (kind != UPDATE_LAMB)
        g = g + a->decay * *w;
    if (kind == UPDATE_SGD) {
        if (has[0]) {
            *s0 = *s0 * a->beta1 + g;
            g = nesterov ? g + a->beta1 * *s0 : *s0;
        }
        *w = *w - a->rate * g;
    } else if (kind == UPDATE_ADAGRAD) {
        *s0 = *s0 + g * g;
        *w = *w - a->rate * (g / (sqrtf(*s0) + a->eps));
    } else if (kind == UPDATE_ADADELTA) {
        *s0 = *s0 * a->beta2 + g * g * a->rest2;
        const float d = sqrtf(*s1 + a->eps) / sqrtf(*s0 + a->eps) * g;
        *s1 = *s1 * a->beta2 + d * d * a->rest2;
        *w = *w - a->rate * d;
    } else if (kind == UPDATE_RMSPROP) {
        *s0 = *s0 * a->beta2 + g * g * a->rest2;
        float square = *s0;
        if (has[2]) {
            *s2 = *s2 * a->beta2 + g * a->rest2;
            square = square - *s2 * *s2;
            square = square > 0.0f ? square : 0.0f; /* rounding may take it below */
        }
        float step = g / (sqrtf(square) + a->eps);
        if (has[1]) {
            *s1 = *s1 * a->beta1 + step;
            step = *s1;
        }
        *w = *w - a->rate * step;
    } else {
        *s0 = *s0 * a->beta1 + g * a->rest1;
        *s1 = *s1 * a->beta2 + g * g * a->rest2;
        const float root = sqrtf(*s1) * a->correction2 + a->eps;
        if (kind == UPDATE_ADAM)
            *w = *w - a->rate * (*s0 / root);
        else
            *gradient = *s0 * a->correction1 / root + a->decay * *w;
    }
}

#endif
