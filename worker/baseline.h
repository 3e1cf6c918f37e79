/*
 * baseline.h - what a text can be classified by without training an encoder: TF-IDF or a frozen
 * encoder's vectors, and a linear model (or, on vectors, trees), fitted on a fold's training rows.
 *
 * Features of all rows are made once; then each fold is local work of one rank, and whose it is
 * changes no bit. Labels of multi-label data are fitted in portions, so that they can be dealt out,
 * too.
 *
 * docs/baselines.md has formulas and what differs from scikit-learn.
 */
#ifndef COHORT_WORKER_BASELINE_H
#define COHORT_WORKER_BASELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/status.h"
#include "base/str.h"
#include "comm/comm.h"
#include "data/dataset.h"
#include "data/tfidf.h"
#include "model/model.h"
#include "worker/model_io.h"
#include "worker/run_config.h"
#include "worker/task.h"

/* Of the rows of several datasets, numbered through; one of the two is there. Start with {0}, owned
 * (baseline_features_release). */
struct baseline_features {
    int64_t rows;
    struct tfidf *tfidf;
    float *vectors; /* (rows, width) */
    int width;
};
void baseline_features_release(struct baseline_features *features);

/*
 * Count the n-grams of the datasets' texts; a pair's two texts are joined by a space. keys name the
 * datasets in sentences. Local. STATUS_DATA: a dataset without its texts, or too many n-grams.
 */
NODISCARD enum status baseline_count(const struct run_config *config,
                                     struct dataset *const *datasets, const char *const *keys,
                                     int count, struct baseline_features *out);

/* The encoder that makes vectors, with its weights as model.path has them. */
struct baseline_encoder {
    const struct run_config *config;
    struct comm *comm;
    struct device *device;
    const struct kernels *kernels;
    enum precision precision;
    const struct model_source *source;
    int max_length;
};
/* The last hidden states of the datasets' rows, pooled as baseline.pooling says: computed by all
 * ranks, on all ranks. Collective. */
NODISCARD enum status baseline_embed(const struct baseline_encoder *encoder,
                                     struct dataset *const *datasets, int count,
                                     struct baseline_features *out);

/* Portions that a fold's regressions come in: 1, or runs of labels of multi-label data. */
int baseline_portions(const struct task_spec *task);
/* Columns of the logits that a portion gives: [*first, *last). */
void baseline_columns(const struct task_spec *task, int portion, int *first, int *last);

enum baseline_model {
    BASELINE_MODEL_LINEAR,
    BASELINE_MODEL_TREES /* of vectors only: model/trees.h */
};

struct baseline_fold {
    enum baseline_model model;
    const struct run_config *config;
    const struct task_spec *task;
    const struct task_targets *targets; /* of the first dataset's rows */
    const int64_t *train;               /* (train_count) rows of the first dataset */
    const int64_t *score; /* (score_count) rows of the features, none of them in train */
    int64_t train_count, score_count;
};
struct baseline_report {
    int64_t features;   /* of the vocabulary, or of a vector */
    int64_t iterations; /* the most that one regression took; rounds of trees */
    double gradient;    /* the longest that is left */
    bool converged;
};
/*
 * Fit one portion on the training rows and give the logits of the others: (score_count, last -
 * first). Classes that no training row has get a probability of 2^-52 beside the likeliest one.
 * terms, if given, gets lines of the heaviest terms (TF-IDF): label, term, weight, parted by tabs.
 * Local. STATUS_DATA: no training row, or none of a weight above 0; STATUS_CONFIG, STATUS_DATA of
 * tfidf_fit_create(); STATUS_UNAVAILABLE: no trees here.
 */
NODISCARD enum status baseline_fit(const struct baseline_features *features,
                                   const struct baseline_fold *fold, int portion, float *logits,
                                   struct baseline_report *report, struct str *terms);

#endif
