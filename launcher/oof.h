/*
 * oof.h - the out-of-fold table: every row's scores by a model that did not train on it.
 *
 * A repeat's score is the metric of all its rows together. Models of different folds are calibrated
 * differently, so the mean of the folds' own scores stands beside it. Rank 0's; all local.
 */
#ifndef COHORT_LAUNCHER_OOF_H
#define COHORT_LAUNCHER_OOF_H

#include "launcher/outcome.h"

struct oof {
    int64_t rows;
    int repeats;
    int64_t *row;           /* (rows), in the order of repeat, row, fold */
    int32_t *repeat, *fold; /* (rows) */
    float *logits, *scores; /* (rows, outputs) */
    char **id;              /* (rows) or NULL */
};

/* All rows of these trials. STATUS_INTERNAL: two folds of a partition have scored the same row. */
NODISCARD enum status oof_pool(const struct run *run, const struct outcome *trials, int count,
                               struct oof *out);
void oof_release(struct oof *oof);
/* oof.tsv and oof.h5 in folder. */
NODISCARD enum status oof_write(const struct run *run, const struct oof *oof, const char *folder);

struct oof_scores {
    double score;     /* mean over repeats of the pooled metric */
    double mean, std; /* of the trials' own scores; std with n - 1, NaN for one */
    double ci95[2];   /* bootstrap over rows; with repeats, the mean of each repeat's ends */
    double *repeat;   /* (repeats) pooled, owned (oof_scores_release) */
    int repeats;
};
NODISCARD enum status oof_score(const struct run *run, const struct oof *oof,
                                const struct outcome *trials, int count, bool with_interval,
                                struct oof_scores *out);
void oof_scores_release(struct oof_scores *scores);
/* Mean and standard deviation of trials' scores; NaN where one is undefined. */
void outcome_mean(const struct outcome *trials, int count, double *mean, double *std);
/* "oof" of results.json; new reference or NULL. */
json_t *oof_json(const struct run *run, const struct oof_scores *scores);
/* task, labels, metric, score, metrics, confusion of the table's first repeat, with `score` that of
 * all of them; new reference. */
NODISCARD enum status oof_describe(const struct run *run, const struct oof *oof,
                                   const struct oof_scores *scores, json_t **out);

#endif
