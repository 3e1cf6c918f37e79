/*
 * optimizer.h - AdamW over the parameters a rank owns, with groups by role and part.
 *
 * A group is (role decays or not) x (encoder or head): decay follows the parameter's role, never
 * its name. The groups partition the parameters: optimizer_open() checks that each element of the
 * flat space that is a parameter lies in exactly one group. State (m, v) is held for owned ranges
 * only.
 *
 * Local.
 */
#ifndef COHORT_MODEL_OPTIMIZER_H
#define COHORT_MODEL_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "model/model.h"
#include "model/params.h"

struct optimizer_opts {
    const struct param_table *params;
    struct kernel_ctx *ctx; /* of the model: model_kernel_ctx() */
    const struct kernels *kernels;
    struct device *device;
    const struct range *owned; /* ascending, disjoint */
    int ranges;
    double lr, head_lr, weight_decay,
        head_weight_decay; /* peak rates; the schedule's factor comes per step */
    double beta1, beta2, eps;
};
struct optimizer; /* opaque */

NODISCARD enum status optimizer_open(const struct optimizer_opts *opts, struct optimizer **out);
void optimizer_close(struct optimizer *optimizer);
/* Applied steps so far: the exponent of the bias corrections. */
int64_t optimizer_steps(const struct optimizer *optimizer);
void optimizer_set_steps(struct optimizer *optimizer, int64_t steps);
/* weights, gradient: flat device arrays; only owned elements are read or written. factor: of the
 * schedule. clip: see adamw_args. Advances the applied step by one. */
NODISCARD enum status optimizer_step(struct optimizer *optimizer, float *weights,
                                     const float *gradient, double factor, float clip);
/* State of owned elements [first, first + count), host memory: which 0 = m, 1 = v. STATUS_ARG if
 * not owned. */
NODISCARD enum status optimizer_get(const struct optimizer *optimizer, int which, int64_t first,
                                    int64_t count, float *out);
NODISCARD enum status optimizer_put(struct optimizer *optimizer, int which, int64_t first,
                                    int64_t count, const float *in);
/* A table of the groups: name, parameters, rate, decay; for the log and for check. */
NODISCARD enum status optimizer_describe(const struct param_table *params,
                                         const struct optimizer_opts *opts, struct str *out);

#endif
