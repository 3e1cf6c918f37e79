/*
 * sampler.h - which rows a step takes, and which rank computes which of them.
 *
 * Everything here is a function of seed, epoch and step alone; ranks are plain numbers. The order
 * of an epoch is a permutation keyed by (seed, epoch), so any step can be found again without
 * replaying the steps before it: Fisher and Yates's shuffle, i from count - 1 down to 1, swapping
 * places i and random_below(key, i, i + 1) with key = random_key(seed, RANDOM_SHUFFLE, epoch, 0).
 * Stored runs depend on it: it may not change.
 *
 * Local.
 */
#ifndef COHORT_DATA_SAMPLER_H
#define COHORT_DATA_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct sampler_opts {
    const int64_t *rows; /* (count) the rows to train on; copied */
    int64_t count;
    int64_t batch_size; /* rows per optimizer step over all ranks; the last batch of an epoch may be
                           shorter */
    bool shuffle;       /* false: the order of rows */
    uint64_t seed;
};
struct sampler; /* opaque */

/* On success *out is owned by the caller (sampler_close), else NULL. STATUS_ARG: no rows, or
 * batch_size < 1. */
NODISCARD enum status sampler_open(const struct sampler_opts *opts, struct sampler **out);
void sampler_close(struct sampler *sampler);
/* Steps in one epoch: ceil(count / batch_size). */
int64_t sampler_steps(const struct sampler *sampler);
/*
 * The rows of step `step` (from 0) of epoch `epoch` (from 0): *rows (*count), borrowed until the
 * next call. The first call for an epoch makes its order (about 60 ns a row). STATUS_ARG: no such
 * step.
 */
NODISCARD enum status sampler_next(struct sampler *sampler, int64_t epoch, int64_t step,
                                   const int64_t **rows, int *count);

/*
 * A plan deals the rows of one global batch to `grains` grains so that the sums of lengths balance
 * (longest first to the lightest grain, ties to the lower number; rows of equal length in the
 * batch's order), as a function of (row, length) alone. Inside a grain rows keep the batch's order.
 */
struct batch_plan {
    int grains;
    int rows;              /* of the global batch */
    int32_t *grain_begin;  /* (grains + 1) into position */
    int32_t *position;     /* (rows) positions in the global batch, grain by grain */
    int64_t *grain_tokens; /* (grains) */
    int row_capacity, grain_capacity;
    uint64_t *order; /* the rest is working memory */
    int32_t *grain_of, *heap;
};
/* length[i] tokens of the i-th row of the batch. Memory is reused from call to call; start with
 * {0}. STATUS_ARG. */
NODISCARD enum status batch_plan(struct batch_plan *plan, const int32_t *length, int rows,
                                 int grains);
void batch_plan_release(struct batch_plan *plan);

/* Grains [*first, *first + *count) of rank: contiguous runs, sizes differ by one at most, larger
 * runs first. */
void plan_grains_of_rank(int grains, int rank, int nranks, int *first, int *count);

#endif
