/*
 * step_plan.h - how one rank computes its share of a step: passes, pieces of gradient sums, and the
 * tree they feed.
 *
 * The global batch is dealt to leaves (data/sampler.h's grains). Under `any` there are
 * parallel.grains leaves whatever the ranks, and a leaf is never split, but for a leaf of chunks
 * that is longer than micro_tokens: its cut depends on the leaf alone. Under `fixed` and `off`
 * every rank is one leaf, which may be split into passes whose sums are added. A rank goes through
 * its leaves in order with a small stack of gradient buffers, adding two neighbours of the tree as
 * soon as both are complete, so it needs about log2(leaves) buffers, not one per leaf.
 *
 * Local: rank and ranks are plain numbers.
 */
#ifndef COHORT_WORKER_STEP_PLAN_H
#define COHORT_WORKER_STEP_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "data/sampler.h"
#include "model/kernels/kernels.h"

struct step_opts {
    int leaves;    /* parallel.grains under any, else ranks */
    bool split;    /* a leaf may be split into passes (fixed, off) */
    bool cut_long; /* not split: a leaf longer than micro_tokens is split all the same, into passes
                      of its own: chunks of long texts, of which a leaf may have any number */
    int rank, ranks;
    int64_t micro_tokens; /* tokens of a pass; a row, or an unsplit leaf, larger than that is a pass
                             of its own */
};

struct step_pass {
    int first, rows; /* of order[] */
    int64_t tokens;
    struct grad_cut cut; /* cut.buffer is set by the caller */
};

struct step_plan {
    struct batch_plan deal;
    int32_t *order; /* (own_rows) positions in the global batch, pass after pass */
    int own_rows;
    int64_t own_tokens;
    int passes;
    struct step_pass *pass;
    int tops;           /* top nodes this rank brings to the reduction */
    int top_buffer[64]; /* which gradient buffer holds each */
    bool *present;      /* (leaves) */
    int *first, *count; /* (ranks) leaves of each rank */
    struct reduce_tree tree;

    /* memory behind the above */
    int32_t *token_, *row_, *to_, *merge_begin_, *merge_to_, *merge_from_;
    bool *add_;
    int piece_capacity_, merge_capacity_, pass_capacity_, row_capacity_, leaf_capacity_,
        rank_capacity_;
};

/* Plan the step whose global batch has `rows` rows of length[] tokens. plan starts as {0}; memory
 * is reused. */
NODISCARD enum status step_plan_make(struct step_plan *plan, const struct step_opts *opts,
                                     const int32_t *length, int rows);
void step_plan_release(struct step_plan *plan);
/* Gradient buffers a rank needs at most, whatever the rows. */
int step_plan_buffers(const struct step_opts *opts);

#endif
