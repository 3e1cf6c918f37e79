/*
 * baselines.h - the baselines of a run: which trials and rows, their regressions dealt to ranks,
 * and what they leave in the folder. `cohort baseline` in three parts: cmd_baseline.c opens the run
 * and makes features, baseline_trials.c fits, baseline_results.c scores and writes.
 */
#ifndef COHORT_LAUNCHER_BASELINES_H
#define COHORT_LAUNCHER_BASELINES_H

#include "launcher/outcome.h"
#include "worker/baseline.h"

enum baseline_kind { BASELINE_TFIDF, BASELINE_EMBEDDINGS, BASELINE_TREES, BASELINE_KINDS };
/* "tfidf", "embeddings", "trees": in baseline.kinds, and a folder in out. */
const char *baseline_kind_name(enum baseline_kind kind);

enum { BASELINE_DATASETS = 3 };

struct baselines {
    struct run run;
    bool wanted[BASELINE_KINDS];
    struct trial_id *trial; /* (trials) */
    int trials, portions;   /* portions of each trial: see worker/baseline.h */
    /* data.train, data.eval, data.test: those that are there, rows numbered through */
    struct dataset *datasets[BASELINE_DATASETS];
    const char *keys[BASELINE_DATASETS];
    int dataset_count;
    struct baseline_features vectors; /* of all kinds that want them, once made */
    uint64_t texts;                   /* hash of what tfidf reads; 0 without it; rank 0 */
    uint64_t identity;                /* hash of all that can change a score; rank 0 */
};

/* One kind's logits and what is known of its regressions. */
struct baseline_trials {
    struct outcome *outcome; /* (trials) best_step, steps: iterations; score is not set. Rows are of
                                data.train; without folds of the features: the trial's own, then
                                data.test's */
    int count;
    struct str terms;    /* lines of terms.tsv */
    int64_t least, most; /* features of a trial */
    int64_t iterations;  /* the most that one regression took */
    double gradient;     /* the longest that is left */
    bool converged;      /* all */
};
void baseline_trials_release(struct baseline_trials *trials);

/* List the trials: every repeat and fold that cv.run_folds wants, or one. Local; owned. */
NODISCARD enum status baselines_list_trials(struct baselines *b);
/* Fit all trials. *out is filled on rank 0; baseline_trials_release(). Collective. */
NODISCARD enum status baselines_fit(const struct baselines *b, enum baseline_kind kind,
                                    const struct baseline_features *features,
                                    struct baseline_trials *out);

struct baseline_times {
    double features_s, fit_s; /* wall time */
};
/*
 * Score a kind's trials and write its folder: oof.tsv, oof.h5 under folds, terms.tsv of tfidf,
 * results.json last. *results is a new reference to what that says. Rank 0.
 */
NODISCARD enum status baselines_finish_kind(const struct baselines *b, enum baseline_kind kind,
                                            struct baseline_trials *trials,
                                            const struct baseline_times *times, json_t **results);
/* What an earlier start has finished of a kind; NULL: nothing that is of this run. New reference.
 * Rank 0. */
NODISCARD enum status baselines_load_kind(const struct baselines *b, enum baseline_kind kind,
                                          json_t **results);
/* A line a kind (NULL: not wanted): score, and under folds their mean and the pooled score's
 * interval. */
void baselines_say(const struct baselines *b, json_t *const results[BASELINE_KINDS]);

#endif
