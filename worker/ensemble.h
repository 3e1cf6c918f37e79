/*
 * ensemble.h - scores of several models of one shape, such as those of the folds of a
 * cross-validation, as one.
 *
 * Probabilities are averaged (Lakshminarayanan, Pritzel and Blundell, Simple and scalable
 * predictive uncertainty estimation using deep ensembles, 2017), values of a regression too. What
 * comes out are logits that have these probabilities: log of the mean, or log(m / (1 - m)) where
 * each output is for itself.
 */
#ifndef COHORT_WORKER_ENSEMBLE_H
#define COHORT_WORKER_ENSEMBLE_H

#include "model/loss.h"
#include "worker/scoring.h"

/* A mean that is added to model by model, in logarithms: no score is too small for it. */
struct ensemble_mean {
    const struct loss_opts *loss; /* borrowed */
    int64_t n;                    /* rows * outputs */
    int models;                   /* added so far */
    double *yes, *no;             /* (n) logs of sums of p and 1 - p (MSE: sums of values); owned */
};
NODISCARD enum status ensemble_begin(const struct loss_opts *loss, int64_t rows,
                                     struct ensemble_mean *out);
/* logits: (rows, outputs) of the next model. */
void ensemble_add(struct ensemble_mean *mean, const float *logits);
void ensemble_end(const struct ensemble_mean *mean, float *logits);
void ensemble_release(struct ensemble_mean *mean);

/*
 * As score_rows(), by the models in these folders one after another, each loaded into model, whose
 * shape they must have (statuses of model_load()). count 0: by model as it is. Collective.
 */
NODISCARD enum status ensemble_score(struct comm *group, struct model *model, char *const *folders,
                                     int count, const struct loss_opts *loss,
                                     const struct row_source *source, const int64_t *rows,
                                     int64_t n, int64_t max_tokens, float *logits);

#endif
