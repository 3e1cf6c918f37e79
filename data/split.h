/*
 * split.h - every way to split rows into those that train and those that are scored, again and
 * again: k-fold and its relatives, repeated or not, random sub-samples, leave some out, time
 * series, folds that the data names. Rules are scikit-learn's where they are well defined.
 *
 * A plan has count splits, numbered from 0. A split is one fold of one repeat; within one repeat no
 * row is scored twice. A plan whose repeats score every row exactly once is a partition: its scores
 * are out-of-fold scores of all rows. Roles are computed when they are asked for: a plan holds a
 * few numbers a row, never something for every row of every split.
 *
 * Local; a function of columns, seed and options alone.
 */
#ifndef COHORT_DATA_SPLIT_H
#define COHORT_DATA_SPLIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/*
 * Kinds up to COLUMN are partitions, COLUMN if no row is outside all folds. KFOLD, STRATIFIED,
 * LEAVE_ONE_OUT, LEAVE_P_OUT, COLUMN and the time series do not look at groups.
 */
enum split_kind {
    /* folds * repeats splits: fold_assign() (fold.h). Repeat 0 has seed itself, repeat r > 0 has
     * random_key(seed, RANDOM_FOLD, 2^30 + 1, r). */
    SPLIT_KFOLD,
    SPLIT_STRATIFIED,
    SPLIT_GROUP,
    SPLIT_STRATIFIED_GROUP,
    /* The same by quantile bins of the value: STRATIFIED, or STRATIFIED_GROUP where group is given.
     * The edges are the quantiles i / bins, interpolated linearly, equal ones merged; a bin holds
     * what lies above its lower edge up to its upper one, the first also the least value. At most
     * rows / folds bins are made. */
    SPLIT_BINS,
    /* The same by fold_assign_labels() (fold_labels.h), whole groups where group is given. */
    SPLIT_MULTI_LABEL,
    SPLIT_LEAVE_ONE_OUT,       /* rows splits: split r scores row r */
    SPLIT_LEAVE_ONE_GROUP_OUT, /* as many splits as groups, by ascending group number */
    /* As many splits as the column names folds: numbers by value if all names are numbers, else
     * bytewise. "train", "" and -1 (as in PredefinedSplit) are never scored and always train. */
    SPLIT_COLUMN,
    /* C(rows, p) splits, SPLIT_MOST_COMBINATIONS at most, in lexicographic order. */
    SPLIT_LEAVE_P_OUT,
    SPLIT_HOLDOUT, /* one split: FOLD_HOLDOUT (fold.h), stratified where label is given */
    /* folds splits: split s is a hold-out of test_share with the seed of repeat s above, whole
     * groups where group is given; SHUFFLE does not look at labels. */
    SPLIT_SHUFFLE,
    SPLIT_STRATIFIED_SHUFFLE,
    /* folds splits, as TimeSeriesSplit. Rows are put in order of time; rows of equal time, and all
     * rows where time is NULL, in that of their numbers. The last folds * test_rows of them are
     * scored, test_rows at a time; what lies before them, less the gap, trains, at most its last
     * max_train rows. Rows of one time may stand on both sides. */
    SPLIT_ROLLING,
    /* folds splits: rows in the same order, cut into folds blocks, the first rows mod folds of them
     * one row longer. Of each block the last ceil(test_share * n) rows are scored, the gap before
     * them is not used, the rest trains. */
    SPLIT_BLOCKED,
    SPLIT_KINDS
};

enum { SPLIT_MOST_COMBINATIONS = 10000 };

/* Columns have rows values each; those that the kind does not use may be NULL. Borrowed until
 * split_plan_close(). */
struct split_opts {
    enum split_kind kind;
    uint64_t seed;
    bool shuffle; /* false: scikit-learn's order without shuffling; HOLDOUT and SHUFFLE kinds: the
                     last rows of each class or of all */
    int64_t rows;
    int folds;                /* >= 2; SHUFFLE, ROLLING, BLOCKED >= 1 */
    int repeats;              /* >= 1; more only for KFOLD to MULTI_LABEL, shuffled */
    double test_share;        /* HOLDOUT, SHUFFLE kinds, BLOCKED: in (0, 1) */
    int p;                    /* LEAVE_P_OUT: >= 1 */
    int64_t gap;              /* ROLLING, BLOCKED: rows between training and scored rows, >= 0 */
    int64_t max_train;        /* ROLLING: 0: all */
    int64_t test_rows;        /* ROLLING: 0: rows / (folds + 1) */
    int bins;                 /* BINS: >= 1 */
    const int32_t *label;     /* classes; where given, no class may be missing (below) */
    int classes;              /* labels below it */
    const char *const *names; /* (classes), for tables and sentences, or NULL */
    const int32_t *group;     /* >= 0 */
    const float *value;       /* (rows, outputs): BINS, with one output; MULTI_LABEL: 0 or 1 */
    int outputs;
    const double *time;  /* finite */
    const int32_t *fold; /* COLUMN: below fold_names */
    const char *const *fold_name;
    int fold_names;
    bool allow_missing_class;
};

struct split_plan; /* opaque */

/*
 * Check everything and cut what can be cut once. On success *out is owned by the caller
 * (split_plan_close), else NULL.
 *
 * STATUS_CONFIG: what was asked for cannot be done with so many rows, groups or folds, or a column
 * that the kind needs is missing; STATUS_DATA: where label is given and allow_missing_class is
 * false, a class that has rows would be missing from the rows that train, or from those that are
 * scored, in some split (where a split scores one row, one group or p rows: from those that train);
 * the message holds the table of counts where there is one. STATUS_ARG: a number outside its
 * column's range.
 */
NODISCARD enum status split_plan_open(const struct split_opts *opts, struct split_plan **out);
void split_plan_close(struct split_plan *plan);

struct split_info {
    enum split_kind kind;
    int64_t count;   /* splits: repeats * folds */
    int64_t repeats; /* of which one row may be scored once in each */
    int64_t folds;   /* splits of a repeat */
    bool partition;  /* each repeat scores every row exactly once; all others train */
    bool reshuffled; /* more than one repeat of the same folds */
};
void split_plan_info(const struct split_plan *plan, struct split_info *info);

/* Split s is fold `fold` of repeat `repeat`: s = repeat * folds + fold. */
struct split_place {
    int64_t repeat, fold;
    int32_t number; /* LEAVE_ONE_GROUP_OUT: the group that is scored; COLUMN: the number of the
                       fold's name; else -1 */
};
void split_plan_place(const struct split_plan *plan, int64_t split, struct split_place *place);

enum split_role { SPLIT_UNUSED, SPLIT_TRAINS, SPLIT_SCORED };
/*
 * The role of every row in a split: role is (rows) of enum split_role. One pass over the rows; a
 * step to another repeat cuts the rows anew. STATUS_ARG: no such split; STATUS_NOMEM.
 */
NODISCARD enum status split_plan_roles(struct split_plan *plan, int64_t split, uint8_t *role);
/* The same as ascending row numbers: train and scored have room for (rows) each. */
NODISCARD enum status split_plan_rows(struct split_plan *plan, int64_t split, int64_t *train,
                                      int64_t *trains, int64_t *scored, int64_t *scores);
/* A partition's fold of every row in a repeat: fold is (rows). STATUS_ARG: not a partition, no such
 * repeat. */
NODISCARD enum status split_plan_folds(struct split_plan *plan, int64_t repeat, int32_t *fold);

/*
 * For people, appended to out: of a partition with at most 1,000 folds the table of classes
 * (labels, bins) by folds, of a hold-out by sides, both of repeat 0 as fold_table() has it; of
 * other kinds a line for each of the first 20 splits with how many rows train, are scored, are not
 * used, or one line where every split scores one row or p rows.
 */
NODISCARD enum status split_plan_table(struct split_plan *plan, struct str *out);

const char *split_kind_name(enum split_kind kind); /* "leave_p_out": the word of cv.kind */
/* Whether cv.folds decides how many splits there are. */
bool split_kind_needs_folds(enum split_kind kind);

#endif
