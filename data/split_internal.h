/* split_internal.h - a plan from the inside, for split.c and split_check.c. */
#ifndef COHORT_DATA_SPLIT_INTERNAL_H
#define COHORT_DATA_SPLIT_INTERNAL_H

#include "data/fold.h"
#include "data/split.h"

struct split_plan {
    struct split_opts o;
    int64_t count, repeats, folds;
    bool partition;

    /* Kinds that cut folds: the folds of one repeat, cut when another is asked for. */
    int32_t *fold;       /* (rows) fold that scores the row; hold-outs: 0, or -1 it trains */
    int64_t fold_repeat; /* whose folds they are; -1: nobody's */
    int32_t *bin;        /* (rows) BINS */
    char **bin_name;     /* (bin_count) "up to 1.5" */
    int bin_count;

    /* LEAVE_ONE_GROUP_OUT, COLUMN: the split that scores the row, or -1. */
    int32_t *unit;
    int32_t *number; /* (count) the group's or the fold name's number */

    /* Time series: where the row stands in time. */
    int64_t *place; /* (rows) */
    int64_t test_rows;
};

/* A time series' split: places [train, train_end) train, [scored, scored_end) are scored. */
struct split_window {
    int64_t train, train_end, scored, scored_end;
};
struct split_window split_window_of(const struct split_plan *plan, int64_t split);

/* fold_assign()'s view of one repeat of the plan; checks classes as the plan's options say. */
void split_fold_opts(const struct split_plan *plan, int64_t repeat, struct fold_opts *out);
/* Make plan->fold that of a repeat. */
NODISCARD enum status split_cut(struct split_plan *plan, int64_t repeat);

bool split_is_folds(enum split_kind kind);   /* KFOLD to MULTI_LABEL */
bool split_is_holdout(enum split_kind kind); /* HOLDOUT and the SHUFFLE kinds */

/* split_check.c: what split_plan_open() promises of options, and of classes once the plan is made.
 */
NODISCARD enum status split_check_opts(const struct split_opts *o);
NODISCARD enum status split_check_classes(struct split_plan *plan);

#endif
