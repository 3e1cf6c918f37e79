/*
 * run.h - a training run, opened: model, data, task, folds. `train` runs its trials, `check`
 * explains them.
 */
#ifndef COHORT_LAUNCHER_RUN_H
#define COHORT_LAUNCHER_RUN_H

#include "launcher/command.h"
#include "worker/trial.h"

/* One dataset with its targets and the list of all its rows. */
struct run_data {
    struct dataset *ds;
    struct dataset_info info;
    struct task_targets targets;
    int64_t *rows;
};

struct run {
    struct session *session;
    const struct run_config *config;
    struct model_source source;
    enum pooling pooling;
    int max_length;
    struct task_spec task;
    struct run_config resolved; /* config with what `auto` and 0 came to: what run.cfg holds */
    struct run_data train, eval, test; /* ds NULL: none */
    int folds;                         /* 0: no cross-validation */
    int32_t *fold;       /* (train rows) under cross-validation or hold-out; else NULL */
    char *fold_table;    /* classes x folds, for people; owned */
    uint64_t model_hash; /* of config.json and the weights' files */
    uint64_t identity;   /* hash of all that can change the result */
    int group_ranks;     /* ranks of one trial */
    char fence[64];      /* token of run.lock: who writes in out; "" before the run has started */
};

/* Open everything data.train, data.eval and the model name. cache: folder for prepared text.
 * Collective. */
NODISCARD enum status run_open(struct session *session, const char *cache, struct run *out);
void run_close(struct run *run);

/*
 * May this run work in `out`? STATUS_CONFIG: it holds a run of another configuration (the keys,
 * files or ranks that differ), or one at all under resume=never, or checkpoints that cohort did not
 * write, whatever overwrite says. *finished: all that is asked is there already. overwrite=true
 * asks nothing. Rank 0; writes nothing.
 */
NODISCARD enum status run_folder_look(const struct run *run, bool *finished);
/* Remove the files of a run, and nothing else, from folder; it may be missing. */
NODISCARD enum status run_folder_remove(const char *folder);

/* Rows of one trial: fold -1 is the run without cross-validation. Owned by the caller
 * (run_rows_free). */
struct run_rows {
    int64_t *train, *select, *score;
    int64_t train_count, select_count, score_count;
    bool select_is_train_data; /* select rows are of data.train (folds, hold-out), else of data.eval
                                */
};
NODISCARD enum status run_rows_make(const struct run *run, int fold, struct run_rows *out);
void run_rows_free(struct run_rows *rows);
/* The options of the trial on these rows. folder and rows are borrowed. */
void run_trial_opts(struct run *run, const struct run_rows *rows, int fold, struct comm *group,
                    const char *folder, struct trial_opts *out);

/* ---- cv.c: out-of-fold scores ---- */

/* Scores of one finished fold in <out>/fold-<k>/, and whether it is finished. */
struct fold_outcome {
    int fold;
    double score;
    int64_t best_step, steps, tokens, rows;
    double seconds;
    int64_t *row;  /* (rows), owned */
    float *logits; /* (rows, outputs), owned */
};
/* Write scores and then result.json, the mark of a finished fold. Local. */
NODISCARD enum status fold_save(const struct run *run, int fold, const char *folder,
                                const struct run_rows *rows, const struct trial_result *result);
/* *finished false where the folder has no result.json of this very run. Local. */
NODISCARD enum status fold_load(const struct run *run, int fold, const char *folder,
                                struct fold_outcome *out, bool *finished);
void fold_outcome_release(struct fold_outcome *outcome);
/* Score of the metric over the folds given, pooled by row. */
NODISCARD enum status cv_score_so_far(const struct run *run, const struct fold_outcome *folds,
                                      int count, double *score);
/* Pool the folds' scores: writes oof.tsv and oof.h5, and describes folds, oof and metrics for
 * results.json. Rank 0. */
NODISCARD enum status cv_finish(const struct run *run, struct fold_outcome *folds, int count,
                                json_t *results);

#endif
