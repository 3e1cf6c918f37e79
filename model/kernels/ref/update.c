/* update.c - the optimizers that are not AdamW, in double; kernels.h has the formulas. */
#include <math.h>

#include "model/kernels/ref/ref.h"

struct element {
    double w, g, s[UPDATE_STATES];
};

static void step(const struct update_args *a, const struct adamw_segment *seg, struct element *x)
{
    const double lr = (double)seg->lr, decay = (double)seg->weight_decay, eps = (double)a->eps;
    const double b1 = (double)a->beta1, b2 = (double)a->beta2, clipped = (double)a->clip * x->g;
    const double g = a->kind == UPDATE_LAMB ? clipped : clipped + decay * x->w;
    double *s = x->s, d;
    switch (a->kind) {
    case UPDATE_SGD:
        d = g;
        if (a->state[0] != NULL) {
            s[0] = b1 * s[0] + g;
            d = a->nesterov ? g + b1 * s[0] : s[0];
        }
        x->w -= lr * d;
        break;
    case UPDATE_ADAGRAD:
        s[0] += g * g;
        x->w -= lr * g / (sqrt(s[0]) + eps);
        break;
    case UPDATE_ADADELTA:
        s[0] = b2 * s[0] + (1.0 - b2) * g * g;
        d = g * sqrt(s[1] + eps) / sqrt(s[0] + eps);
        s[1] = b2 * s[1] + (1.0 - b2) * d * d;
        x->w -= lr * d;
        break;
    case UPDATE_RMSPROP:
        s[0] = b2 * s[0] + (1.0 - b2) * g * g;
        s[2] = b2 * s[2] + (1.0 - b2) * g;
        d = g / (sqrt(a->state[2] != NULL ? fmax(0.0, s[0] - s[2] * s[2]) : s[0]) + eps);
        s[1] = b1 * s[1] + d;
        x->w -= lr * (a->state[1] != NULL ? s[1] : d);
        break;
    case UPDATE_ADAM:
    case UPDATE_LAMB:
        s[0] = b1 * s[0] + (1.0 - b1) * g;
        s[1] = b2 * s[1] + (1.0 - b2) * g * g;
        d = s[0] / a->correction1 / (sqrt(s[1] / a->correction2) + eps);
        if (a->kind == UPDATE_ADAM)
            x->w -= lr * d;
        else
            x->g = d + decay * x->w;
        break;
    }
}

enum status ref_update(struct kernel_ctx *ctx, const struct update_args *args,
                       const struct adamw_segment *segments, int count)
{
    (void)ctx;
    for (int k = 0; k < count; k++) {
        const struct adamw_segment *seg = &segments[k];
        for (int64_t i = 0; i < seg->count; i++) {
            struct element x = {.w = (double)args->weights[seg->w + i],
                                .g = (double)args->gradient[seg->g + i]};
            for (int n = 0; n < UPDATE_STATES; n++) {
                if (args->state[n] != NULL)
                    x.s[n] = (double)args->state[n][seg->state + i];
            }
            step(args, seg, &x);
            args->weights[seg->w + i] = (float)x.w;
            if (args->kind == UPDATE_LAMB)
                args->gradient[seg->g + i] = (float)x.g;
            for (int n = 0; n < UPDATE_STATES; n++) {
                if (args->state[n] != NULL)
                    args->state[n][seg->state + i] = (float)x.s[n];
            }
        }
    }
    return STATUS_OK;
}
