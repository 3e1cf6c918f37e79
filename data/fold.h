/*
 * fold.h - which rows validate in which fold, and hold-out splits. Rules follow scikit-learn's
 * where it has them.
 *
 * Local; a function of labels, groups, seed and options alone.
 */
#ifndef COHORT_DATA_FOLD_H
#define COHORT_DATA_FOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

enum fold_kind { FOLD_KFOLD, FOLD_STRATIFIED, FOLD_GROUP, FOLD_STRATIFIED_GROUP, FOLD_HOLDOUT };

struct fold_opts {
    enum fold_kind kind;
    int folds; /* >= 2 */
    uint64_t seed;
    bool shuffle;
    int64_t rows;
    const int32_t *label; /* (rows) classes; needed when stratified */
    int classes;
    const char *const *names; /* (classes), for the table of counts */
    const int32_t *group;     /* (rows); needed by the group kinds */
    double holdout; /* FOLD_HOLDOUT: share of rows that validate, in (0, 1); stratified where label
                       is given, by group where group is given; folds is 1 then */
    bool allow_missing_class;
};

/*
 * fold[i] = the fold in which row i validates (FOLD_HOLDOUT: 0 validates, -1 trains only).
 *
 * Without shuffle every row lands where scikit-learn 1.x's KFold, StratifiedKFold, GroupKFold and
 * StratifiedGroupKFold put it (the latter two with groups numbered from 0 as here). With shuffle
 * the rules are the same, the permutation is ours: Fisher and Yates, i from n - 1 down to 1, j =
 * random_below(key, i, i + 1), key = random_key(seed, RANDOM_FOLD, a, b) with (a, b) = FOLD_KFOLD
 * (1, 0) over the rows; fold f takes the f-th run of n/k rows (one more for the first n mod k)
 *   FOLD_STRATIFIED        (2, class) over the list of folds that the class's rows take, in row
 * order FOLD_GROUP             (3, 0) over the groups; fold f takes the f-th run of them
 *   FOLD_STRATIFIED_GROUP  (4, 0) over the groups before they are dealt
 *   FOLD_HOLDOUT           (5, class) over the class's rows (one class where label is NULL); (6, 0)
 * over the groups
 *
 * FOLD_HOLDOUT without groups: v = ceil(holdout * rows) rows validate, the last ones (in permuted
 * order). Where label is given, rows - v are shared out for training as scikit-learn's stratified
 * train_test_split does: class c gets floor((rows - v) * n_c / rows), what is left goes to the
 * largest remainders (ties to the lower class number, where scikit-learn draws lots), and the rest
 * of each class, v_c, validates. With groups: whole groups, widest spread of class counts first,
 * each into validation if that brings the classes' counts nearer to v_c (a smaller sum of squares
 * of (taken - v_c) / n_c); one group at least on either side.
 *
 * STATUS_DATA: a class that has rows would be missing from a fold (or, held out, from either side):
 * the message holds the table of counts, unless allow_missing_class. Only where label is given, for
 * every kind. STATUS_CONFIG: fewer rows or groups than folds, holdout outside (0, 1), a column that
 * the kind needs is missing. STATUS_ARG: a label outside [0, classes), a negative group.
 */
NODISCARD enum status fold_assign(const struct fold_opts *opts, int32_t *fold);

/* Whether every class that has rows has some in each fold, or held out on both sides, as
 * fold_assign() asks where label is given: for folds that were cut without looking at classes.
 * STATUS_DATA. */
NODISCARD enum status fold_check(const struct fold_opts *opts, const int32_t *fold);

/*
 * The table "class, rows, rows per fold" (held out: trains, validates) as text appended to out, one
 * line a class and a last one for all rows, each ended by a newline; of more than 20 folds the first 20.
 */
NODISCARD enum status fold_table(const struct fold_opts *opts, const int32_t *fold,
                                 struct str *out);

#endif
