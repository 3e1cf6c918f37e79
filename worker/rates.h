/*
 * rates.h - the learning-rate schedule of a trial: model/lr_schedule.h as the configuration asks
 * for it, together with what follows the evaluations' scores.
 *
 * Local.
 */
#ifndef COHORT_WORKER_RATES_H
#define COHORT_WORKER_RATES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/lr_schedule.h"
#include "worker/trial.h"

struct rates {
    struct lr_schedule schedule; /* milestones borrowed from the configuration */
    struct lr_point *points;     /* owned */
    bool follows_scores;         /* schedule.name=plateau */
    struct plateau_opts plateau;
};

/* plan: steps, steps_per_epoch and warmup are read. opts->config stays in use. On failure nothing
 * is owned. STATUS_CONFIG: a schedule that cannot be; the sentence names the key. */
NODISCARD enum status rates_make(struct rates *rates, const struct trial_opts *opts,
                                 const struct trial_plan *plan);
void rates_release(struct rates *rates);
/* What every peak rate is multiplied by after `step` applied steps. */
double rates_factor(const struct rates *rates, const struct plateau *plateau, int64_t step);

#endif
