/*
 * trial_chunks.h - the loss of texts that are read in chunks: a step's logits of all chunks, pooled
 * to texts on every rank, and the gradient of the loss with respect to each chunk's logits.
 *
 * A text's chunks may lie on many ranks and in many passes, and there may be any number of them, so
 * activations are not kept until the loss is known: a pass whose activations are gone is run
 * forward once more before its backward, with the same dropout.
 *
 * Inside worker/ only.
 */
#ifndef COHORT_WORKER_TRIAL_CHUNKS_H
#define COHORT_WORKER_TRIAL_CHUNKS_H

#include "worker/trial_internal.h"

struct chunk_step; /* opaque */

NODISCARD enum status chunk_step_open(const struct trial_opts *opts, const struct trial_plan *plan,
                                      struct chunk_step **out);
void chunk_step_close(struct chunk_step *chunks);
/* Where the logits of this rank's unit go, and then its gradient is: i counts own units, in the
 * order of the step's plan. (outputs) */
float *chunk_step_own(struct chunk_step *chunks, int i);
/*
 * Collective. Once all own logits are there (st: how that ended here): exchange, pool, loss,
 * gradient. target: of the batch's rows; divisor and scale as in loss_compute(), whose statuses it
 * has.
 */
NODISCARD enum status chunk_step_loss(struct chunk_step *chunks, struct comm *group, enum status st,
                                      const struct step_plan *plan, const struct unit_list *units,
                                      const struct loss_target *target, int rows, double divisor,
                                      double scale);
/* Losses of the batch's rows, the same on every rank. */
const double *chunk_step_losses(const struct chunk_step *chunks);

#endif
