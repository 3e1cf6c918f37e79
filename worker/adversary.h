/*
 * adversary.h - adversarial training: after the gradient of a step is known, the weights are moved
 * a little to where the loss grows, the step's passes are run there once more, and both gradients
 * are added; then the weights are as they were, bit for bit.
 *
 * fgm: the word embeddings, by r = eps g / |g| of the whole table's gradient (Miyato, Dai,
 * Goodfellow, Adversarial training methods for semi-supervised text classification, 2017, applied
 * to the table instead of one row's vectors, as is usual for encoders).
 *
 * awp: every matrix and table that is trained, by r = rate |w| g / |g| of the tensor, each element
 * then kept within eps of itself, w - eps |w| ... w + eps |w| (Wu, Xia, Wang, Adversarial weight
 * perturbation helps robust generalization, 2020, with the bound that is usual for encoders).
 *
 * A rank moves the elements it owns; norms are summed in one order (model/tensor_norms.h), so
 * nothing depends on the number of ranks. CPU only.
 */
#ifndef COHORT_WORKER_ADVERSARY_H
#define COHORT_WORKER_ADVERSARY_H

#include <stdbool.h>

#include "base/status.h"
#include "comm/comm.h"
#include "model/model.h"
#include "worker/run_config.h"
#include "worker/shards.h"

struct adversary; /* opaque */

struct adversary_opts {
    enum config_adversarial kind;
    double eps, rate; /* eps 0: the kind's own */
    struct model *model;
    const struct kernels *kernels;
    const struct shards *shards;                          /* borrowed */
    bool (*trains)(void *arg, const struct param *param); /* whether it is not frozen */
    void *trains_arg;
};
NODISCARD enum status adversary_open(const struct adversary_opts *opts, struct adversary **out);
void adversary_close(struct adversary *adversary);
/*
 * Collective. Keep the owned weights and gradient, and move the weights. *moved false, on all
 * ranks: the gradient is zero or not finite, and nothing was done.
 */
NODISCARD enum status adversary_move(struct adversary *adversary, struct comm *group,
                                     const float *gradient, bool *moved);
/* The owned weights as they were, and the gradient that was kept added to this one. Local. */
void adversary_return(struct adversary *adversary, float *gradient);

#endif
