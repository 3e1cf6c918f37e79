/*
 * metrics_internal.h - rows sorted by id, with what metrics and curves need of them.
 *
 * Everything is computed from this table and a count for each of its rows: 1 for the metrics
 * themselves, the number of draws in a bootstrap resample. So a resample costs one pass over rows
 * that were sorted once, and both uses share one formula. Counts of rows are integers and therefore
 * exact; sums of doubles run in the order of ids.
 */
#ifndef COHORT_WORKER_METRICS_INTERNAL_H
#define COHORT_WORKER_METRICS_INTERNAL_H

#include "worker/metrics.h"

/* Rows in the order of a score. */
struct ranked {
    int32_t row;   /* of the table */
    int32_t group; /* rows of equal score have equal groups; ascending */
};

/* Rows of a class or label; both is tp. */
struct tally {
    int64_t truth, predicted, both;
};

struct table {
    const struct scored *in;
    int64_t n;
    int classes;         /* columns of tallies: classes or labels; 0 for regression */
    int32_t *at;         /* (n) where the i-th row by id is in the input */
    int32_t *predicted;  /* (n) TASK_CLASSES */
    int32_t *truth;      /* (n) TASK_CLASSES */
    double *error;       /* (n) what a metric averages, or the probability that it bins */
    int columns;         /* what is ranked, see rank_columns() */
    struct ranked *rank; /* (columns, n) ascending */
    struct tally *tally; /* (classes) working memory of one evaluation */
    double *pair;  /* (2, n) the same, for regression: predictions and targets, or their ranks */
    int64_t *tree; /* (n + 1) the same, for Kendall's tau */
};

/* Sort and classify; ranked says whether the order of scores is needed as well. Statuses as
 * metrics_compute(); released on failure. */
NODISCARD enum status table_make(struct table *t, const struct scored *in, bool ranked);
void table_release(struct table *t);
bool metric_needs_ranks(enum metric metric);

/*
 * The metric where row i counts count[i] times, total in all. The caller has called
 * table_prepare() for this metric before.
 */
double table_evaluate(struct table *t, enum metric metric, const int32_t *count, int64_t total);
/* Keep what the metric needs of each row. */
void table_prepare(struct table *t, enum metric metric);
/* Tallies of all classes into t->tally. */
void table_count(struct table *t, const int32_t *count);

/* ---- rows ---- */

const float *table_logits(const struct table *t, int64_t row);
const float *table_values(const struct table *t, int64_t row);
bool table_label_predicted(const struct table *t, int64_t row, int label);
bool table_label_true(const struct table *t, int64_t row, int label);
/* Whether the row is positive in a ranked column. */
bool table_is_positive(const struct table *t, int64_t row, int column);
/* Probability of a class or label; sigmoid of z; of the row's predicted class. */
double table_probability(const struct table *t, int64_t row, int c);
double sigmoid(double z);
double table_top_probability(const struct table *t, int64_t row);

/* Log-odds of a class or label (regression: values) of every row: out is (n). What ranks rank;
 * class 0 of two is class 1 with the sign turned. STATUS_NOMEM. */
NODISCARD enum status table_scores(const struct table *t, int column, double *out);

/* ---- ranks ---- */

/* NaN: undefined. reversed: of the others, ranked the other way round (class 0 of two). */
double table_roc_auc(const struct table *t, int column, const int32_t *count);
double table_pr_auc(const struct table *t, int column, bool reversed, const int32_t *count);

/* ---- regression (metrics_values.c) ---- */

double table_fit(struct table *t, enum metric metric, const int32_t *count, int64_t total);

#endif
