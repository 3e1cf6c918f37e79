/*
 * outcome.h - what a finished trial, a finished rung and a failure leave in the trial's folder.
 *
 * A trial is finished when result.json is there: it is written last, atomically, and names the run
 * it is of. scores.safetensors beside it holds rows and logits. All local.
 */
#ifndef COHORT_LAUNCHER_OUTCOME_H
#define COHORT_LAUNCHER_OUTCOME_H

#include "launcher/run.h"

struct outcome {
    struct trial_id id;
    double score; /* NaN: undefined */
    int64_t best_step, steps, tokens, rows;
    double seconds;
    int64_t *row;  /* (rows), owned */
    float *logits; /* (rows, outputs), owned */
};

/* The metric over rows of data.train (or, where not `of_train`, of data.eval) with these logits. */
NODISCARD enum status outcome_score(const struct run *run, bool of_train, const int64_t *rows,
                                    int64_t n, const float *logits, double *score);
/* Write scores and then result.json. */
NODISCARD enum status outcome_save(const struct run *run, const struct trial_id *id,
                                   const char *folder, const struct run_rows *rows,
                                   const struct trial_result *result);
/* *finished false where the folder has no result.json. Owned (outcome_release). STATUS_CONFIG: it
 * is of another run. */
NODISCARD enum status outcome_load(const struct run *run, const struct trial_id *id,
                                   const char *folder, struct outcome *out, bool *finished);
void outcome_release(struct outcome *outcome);

/* The score alone, of the run with this identity; of rung -1, the end. */
NODISCARD enum status outcome_peek(const char *folder, int rung, uint64_t identity, double *score,
                                   bool *finished);
/* rung-<r>.json: all there is to know of a rung. */
NODISCARD enum status outcome_save_rung(const struct run *run, const char *folder, int rung,
                                        const struct trial_result *result, double score);
/* failed.json: a setting that diverges will do so again. *failed false where there is none. */
NODISCARD enum status outcome_save_failure(uint64_t identity, const char *folder,
                                           const char *sentence);
NODISCARD enum status outcome_peek_failure(const char *folder, uint64_t identity, bool *failed);

#endif
