/*
 * fold_labels.h - folds of rows that have several labels: iterative stratification.
 *
 * Local; a function of targets, groups, seed and options alone.
 */
#ifndef COHORT_DATA_FOLD_LABELS_H
#define COHORT_DATA_FOLD_LABELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct fold_labels_opts {
    int folds; /* >= 2 */
    uint64_t seed;
    bool shuffle;
    int64_t rows;
    const float *value; /* (rows, labels): a row has a label where it is above 0.5 */
    int labels;
    const int32_t *group; /* (rows) or NULL; >= 0 */
};

/*
 * fold[i] = the fold that scores row i, after Sechidis, Tsoumakas and Vlahavas, "On the
 * stratification of multi-label data" (2011), section 3.1: each fold is owed rows / folds rows, and
 * of each label its rows / folds. As long as rows with labels are left, the label with the fewest
 * rows left is taken (ties: the lower number), and each of its rows goes to the fold that is owed
 * most of that label; ties: that is owed most rows; ties: the lower number, where the paper draws
 * lots. Rows without labels come last, each to the fold that is owed most rows. What is owed is
 * counted in whole numbers, times folds, so that ties are ties.
 *
 * Rows are taken in their order, or shuffled in that of Fisher and Yates's permutation (fold.h)
 * keyed by random_key(seed, RANDOM_FOLD, 2^30, 0). With groups the units are groups, in the order
 * of their numbers or permuted, and of one label's groups those with most rows of it come first.
 *
 * Only labels are looked at: a label of fewer rows than folds is missing from some of them.
 * STATUS_CONFIG: fewer rows or groups than folds, or fewer than 2 folds; STATUS_ARG: a negative
 * group.
 */
NODISCARD enum status fold_assign_labels(const struct fold_labels_opts *opts, int32_t *fold);

#endif
