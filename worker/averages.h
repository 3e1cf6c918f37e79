/*
 * averages.h - the mean of the weights over training steps, which is what is evaluated, chosen and
 * saved in their place: exponential (EMA) or equal (SWA; Izmailov et al., Averaging weights leads
 * to wider optima and better generalization, 2018).
 *
 * A rank holds the mean of the elements it owns, as the optimizer does its states, so nothing
 * depends on the number of ranks. As torch.optim.swa_utils: the first weights that count are
 * copied; after n of them the mean moves by (w - mean) (1 - decay), or (w - mean) / (n + 1). CPU
 * only.
 *
 * Local.
 */
#ifndef COHORT_WORKER_AVERAGES_H
#define COHORT_WORKER_AVERAGES_H

#include <stdint.h>

#include "base/status.h"
#include "worker/run_config.h"
#include "worker/shards.h"

struct averages; /* opaque */

/* shards is borrowed. STATUS_NOMEM. */
NODISCARD enum status averages_open(enum config_average kind, double decay,
                                    const struct shards *shards, struct averages **out);
void averages_close(struct averages *averages);
/* weights: the flat space in host memory; owned elements are read or written. */
void averages_add(struct averages *averages, const float *weights);
int64_t averages_count(const struct averages *averages); /* weights added */
/* The mean to weights, and the weights to where the mean was; again: back, bit for bit. Nothing
 * where nothing was added. */
void averages_swap(struct averages *averages, float *weights);
/* After a swap: the weights of owned elements [first, first + count). STATUS_ARG if not owned. */
NODISCARD enum status averages_get(const struct averages *averages, int64_t first, int64_t count,
                                   float *out);
/* For a resumed run, whose weights are the mean of `count` so far: keep it, and give the owned
 * elements their own weights piece by piece. */
void averages_resume(struct averages *averages, const float *weights, int64_t count);

#endif
