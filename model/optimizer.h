/*
 * optimizer.h - the rule that moves the parameters a rank owns, with groups by role and part.
 *
 * A group is (role decays or not) x (encoder or head): decay follows the parameter's role, never
 * its name. The groups partition the parameters: optimizer_open() checks that each element of the
 * flat space that is a parameter lies in exactly one group. State is held for owned ranges only.
 *
 * Rules are those of torch.optim (Loshchilov, Hutter 2019 for AdamW) and LAMB (You et al. 2020);
 * kernels.h has the formulas. Decay is decoupled in AdamW, part of LAMB's direction, and added to
 * the gradient in the others, as torch does.
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

enum optimizer_kind {
    OPTIMIZER_ADAMW,
    OPTIMIZER_ADAM,
    OPTIMIZER_SGD,
    OPTIMIZER_ADAGRAD,
    OPTIMIZER_ADADELTA,
    OPTIMIZER_RMSPROP,
    OPTIMIZER_LAMB
};

struct optimizer_opts {
    enum optimizer_kind kind;
    const struct param_table *params;
    struct kernel_ctx *ctx; /* of the model: model_kernel_ctx() */
    const struct kernels *kernels;
    struct device *device;
    const struct range *owned; /* ascending, disjoint */
    int ranges;
    double lr, head_lr, weight_decay,
        head_weight_decay;    /* peak rates; the schedule's factor comes per step */
    double beta1, beta2, eps; /* SGD, RMSprop: beta1 is the momentum, 0: none; RMSprop, Adadelta:
                                 beta2 is alpha, rho */
    bool nesterov;            /* SGD with momentum */
    bool centered;            /* RMSprop */
    /* Peak rates of layer l of L are multiplied by layer_decay^(L - l), of embeddings by
     * layer_decay^(L + 1); 1, or 0: none. */
    double layer_decay;
    bool freeze_embeddings; /* these parameters are left as they are, as freeze_layers first ones */
    int freeze_layers;
    /* LAMB needs sums over ranks: put together what all ranks have of n values, by maximum; st is
     * this rank's status so far, the worst of all ranks' is returned. NULL: one rank has it all. */
    enum status (*combine)(void *arg, enum status st, double *values, int n);
    void *combine_arg;
};
struct optimizer; /* opaque */

/* opts is copied. STATUS_ARG: numbers out of range; STATUS_CONFIG: a rule that the kernels do not
 * have. */
NODISCARD enum status optimizer_open(const struct optimizer_opts *opts, struct optimizer **out);
void optimizer_close(struct optimizer *optimizer);
/* Applied steps so far: the exponent of the bias corrections. */
int64_t optimizer_steps(const struct optimizer *optimizer);
void optimizer_set_steps(struct optimizer *optimizer, int64_t steps);
/* Zero the owned gradients of frozen parameters: before norms are taken. */
NODISCARD enum status optimizer_mask(const struct optimizer *optimizer, float *gradient);
/* weights, gradient: flat device arrays; only owned elements are read or written; LAMB leaves its
 * direction in gradient. factor: of the schedule. clip: see adamw_args. Advances the applied step
 * by one. Local, but collective through opts->combine for LAMB. */
NODISCARD enum status optimizer_step(struct optimizer *optimizer, float *weights, float *gradient,
                                     double factor, float clip);
/* Whether a parameter is moved at all; only what is frozen is read of opts. */
bool optimizer_trains(const struct optimizer_opts *opts, const struct param *param);
const char *optimizer_name(enum optimizer_kind kind); /* "AdamW" */
/* Arrays of state, which are numbered from 0, and their names: "m", "v". */
int optimizer_states(const struct optimizer_opts *opts);
const char *optimizer_state_name(const struct optimizer_opts *opts, int which);
/* State of owned elements [first, first + count), host memory. STATUS_ARG if not owned. */
NODISCARD enum status optimizer_get(const struct optimizer *optimizer, int which, int64_t first,
                                    int64_t count, float *out);
NODISCARD enum status optimizer_put(struct optimizer *optimizer, int which, int64_t first,
                                    int64_t count, const float *in);
/* A table of the groups: name, parameters, rate, decay; for the log and for check. */
NODISCARD enum status optimizer_describe(const struct param_table *params,
                                         const struct optimizer_opts *opts, struct str *out);

#endif
