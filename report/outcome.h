/*
 * outcome.h - what a file of scores says of a run: each row's prediction and how wrong it was,
 * counts of classes, calibration, columns for curves.
 *
 * The file is read in one pass of blocks. A row keeps about 40 bytes here whatever the number of
 * classes; logits of all rows are kept only where they are few enough (OUTCOME_FLOATS), and what
 * needs them is left out otherwise.
 *
 * Local.
 */
#ifndef COHORT_REPORT_OUTCOME_H
#define COHORT_REPORT_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/scores.h"
#include "report/curves.h"
#include "worker/metrics.h"

enum {
    OUTCOME_FLOATS = 1 << 25,    /* logits that are kept, 128 MiB */
    OUTCOME_CONFUSION = 1000,    /* most classes of a confusion matrix */
    OUTCOME_BINS = 40,           /* of the histogram of probabilities */
};

/* A class against the rest, or a label. */
struct outcome_class {
    int64_t truth, predicted, both; /* rows */
};

struct outcome {
    struct scores_file *file;
    struct scores_info info;
    enum task task;
    int classes;      /* classes or labels; 0: regression */
    int64_t n;        /* rows */
    int64_t *row;     /* (n) ascending */
    int32_t *fold;    /* (n) or NULL */
    int32_t *label;   /* (n) true class; NULL for other tasks */
    int32_t *guess;   /* (n) predicted class; NULL for other tasks */
    float *sure;      /* (n) probability of the predicted class; NULL for other tasks */
    float *value;     /* (n) regression: the target (the first of several) */
    float *predicted; /* (n) regression: the prediction */
    float *cost;      /* (n) how wrong: -log p of the true class, mean binary cross-entropy, or
                         absolute error */
    uint8_t *right;   /* (n) class or whole set of labels is right */
    struct outcome_class *class; /* (classes) */
    int64_t *confusion;          /* (classes, classes) true by predicted, or NULL */
    /* Two classes: probability of class 1 and whether it is true. More: of the predicted class and
     * whether it is right. Multi-label: of every label. */
    struct calibration calibration;
    int64_t histogram[2][OUTCOME_BINS]; /* of the same probabilities: false, true */
    float *logits, *targets; /* (n, outputs) all of them, or NULL; targets: multi-label, regression */
    float *scores;           /* (n, outputs) with logits */
};

/* *out is released by outcome_close() whatever the status. Those of scores_open() and scores_read();
 * STATUS_NUMERIC: a score or target that is not finite names the row. */
NODISCARD enum status outcome_open(const char *path, struct outcome *out);
void outcome_close(struct outcome *outcome);

/* Whether the task is two classes. */
bool outcome_is_binary(const struct outcome *outcome);
/* Scores by which rows are ranked for class or label c, (n) each, and whether it is true: two
 * classes by z1 - z0 (c is 1), else by probability. */
NODISCARD enum status outcome_column(const struct outcome *outcome, int c, double *score,
                                     uint8_t *truth);

/*
 * The metrics' view of the rows at `rows` (indices below n; NULL: all), in their order; owned
 * (outcome_scored_free). loss is NULL: the run's weights are not known here. STATUS_UNAVAILABLE
 * where logits are not kept.
 */
NODISCARD enum status outcome_scored(const struct outcome *outcome, const int64_t *rows,
                                     int64_t count, struct scored *out);
void outcome_scored_free(struct scored *scored);

/* The metric's value where nothing but how often each class is true is known: the majority class,
 * its frequencies as probabilities, the mean. NaN: undefined, or logits are not kept. */
NODISCARD enum status outcome_constant(const struct outcome *outcome, enum metric metric,
                                       double *value);

/* The `most` rows that are most wrong: indices, by falling cost, rows that are right left out
 * (regression: none). Returns how many. */
int64_t outcome_worst(const struct outcome *outcome, int64_t most, int64_t *index);

#endif
