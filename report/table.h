/*
 * table.h - the scores of a run's rows (oof.h5, eval.h5) in memory, as metrics and curves want
 * them.
 *
 * A row that several splits of one repeat have scored stands there as often. Within a repeat lines
 * have numbers of their own, `place`, by which the metrics tell them apart; across runs rows are
 * told by their numbers in the data.
 *
 * Local.
 */
#ifndef COHORT_REPORT_TABLE_H
#define COHORT_REPORT_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/scores.h"
#include "worker/metrics.h"

/* Scores that are held at most: 1 GiB of logits and as much of probabilities. */
#define TABLE_FLOATS ((int64_t)1 << 28)

struct table {
    struct scores_file *file;
    struct scores_info info;
    enum task task;
    int classes; /* classes or labels; 0: regression */
    int outputs;
    int64_t n;       /* lines, in the order of repeat, row, fold */
    int64_t *row;    /* (n) */
    int64_t *place;  /* (n) number of the line in its repeat; = row where no row is there twice */
    int32_t *repeat; /* (n) */
    int32_t *fold;   /* (n); -1: none */
    int32_t *label;  /* (n) or NULL */
    float *logits;   /* (n, outputs) */
    float *scores;   /* (n, outputs) */
    float *value;    /* (n, outputs) or NULL */
    int repeats;     /* at least 1 */
    int64_t *begin;  /* (repeats + 1) where each begins */
    bool rows_once;  /* no row twice in a repeat */
};

/* *out is released by table_close() whatever the status. Those of scores_open() and scores_read();
 * STATUS_UNAVAILABLE: more than TABLE_FLOATS scores; STATUS_FORMAT: neither labels nor values;
 * STATUS_NUMERIC: a score that is not finite (names the row). */
NODISCARD enum status table_open(const char *path, struct table *out);
void table_close(struct table *table);

bool table_is_binary(const struct table *table); /* two classes */

/* The lines of one repeat; borrowed from the table, loss NULL: the run's weights are not known. */
void table_scored(const struct table *table, int repeat, struct scored *out);
/* The lines of one fold of a repeat, copied: the arrays are owned (table_scored_free). */
NODISCARD enum status table_fold_scored(const struct table *table, int repeat, int fold,
                                        struct scored *out);
void table_scored_free(struct scored *scored);

/* The class with the greatest logit, the first of equal ones; of one logit, class 1 where it is
 * above 0. And its probability. */
int table_guess(const struct table *table, int64_t line);
double table_sure(const struct table *table, int64_t line);
/* How wrong a line is: -log p of the true class, mean binary cross-entropy over labels, mean
 * absolute error. */
double table_cost(const struct table *table, int64_t line);
/* Class, or the whole set of labels, is right; false for regression. */
bool table_right(const struct table *table, int64_t line);

/* The `most` lines of repeat 0 that are most wrong, by falling cost and then by row; lines that are
 * right are left out. Returns how many. */
int table_worst(const struct table *table, int most, int64_t *line);

/* The metric of repeat 0 where nothing but how often each class is true is known: that class, or
 * those frequencies as probabilities, or the mean. NaN: undefined. */
NODISCARD enum status table_constant(const struct table *table, enum metric metric, double *value);

#endif
