/*
 * run.h - a training run, opened: model, data, task, folds. `train` runs its trials, `check`
 * explains them.
 */
#ifndef COHORT_LAUNCHER_RUN_H
#define COHORT_LAUNCHER_RUN_H

#include "data/split.h"
#include "launcher/command.h"
#include "launcher/leaks.h"
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
    struct comm *comm; /* the ranks that opened it */
    const struct run_config *config;
    struct model_source source;
    enum pooling pooling;
    int max_length;
    struct chunk_rule chunks; /* size 0: texts are cut */
    struct task_spec task;
    struct run_config resolved; /* config with what `auto` and 0 came to: what run.cfg holds */
    struct run_data train, eval, test; /* ds NULL: none */
    struct split_plan *splits;         /* of cross-validation or a hold-out; else NULL */
    enum split_kind split_kind;        /* of splits */
    const int32_t
        *group;         /* (rows) what stays in one fold: the data's groups, with copies; or NULL */
    int32_t *grouped;   /* the same if copies count, owned */
    struct leaks leaks; /* copies of rows across splits, or between data.train and data.eval */
    char *leaks_text;   /* for people; NULL: nobody looked; owned */
    int folds;          /* 0: no cross-validation */
    int repeats;        /* seeds, each with folds of its own where the kind shuffles them */
    bool partition;     /* each repeat scores every row once */
    char *fold_table;   /* classes x folds, for people; owned */
    uint64_t model_hash; /* of config.json and the weights' files */
    uint64_t identity;   /* hash of all that can change the result of a trial */
    int group_ranks;     /* ranks of one trial */
    char fence[64];      /* token of run.lock: who writes in out; "" before the run has started */
};

/* Open everything data.train, data.eval and the model name, as config says, which stays the
 * caller's and unchanged. cache: folder for prepared text. Trials are on all ranks of comm until
 * run_identify() says otherwise. Collective on comm. */
NODISCARD enum status run_open(struct session *session, struct comm *comm,
                               const struct run_config *config, const char *cache, struct run *out);
/* The same without model.path, for what needs texts, labels and folds alone: source has no model,
 * rows have no tokens. Collective on comm. */
NODISCARD enum status run_open_texts(struct session *session, struct comm *comm,
                                     const struct run_config *config, const char *cache,
                                     struct run *out);
void run_close(struct run *run);
/*
 * Make run that of another configuration, if what is open serves it: the same model and data. *done
 * false: it does not, and run is as it was. After a failure it is only good for run_close(). Local;
 * config stays the caller's. group_ranks stays.
 */
NODISCARD enum status run_change(struct run *run, const struct run_config *config, bool *done);
/* Set group_ranks and identity. Local. */
NODISCARD enum status run_identify(struct run *run, int group_ranks);

/*
 * May this run work in `out`? STATUS_CONFIG: it holds a run of another configuration (the keys,
 * files or ranks that differ), or one at all under resume=never, or checkpoints that cohort did not
 * write, whatever overwrite says. overwrite=true asks nothing. asked: what run.cfg will hold.
 * several: of several trials, each of which knows whether it is finished; else *finished: all that
 * is asked is there already. command is what runs here, "run" for train: a folder of another's is
 * refused. Rank 0; writes nothing.
 */
NODISCARD enum status run_folder_look(const struct run *run, const char *command,
                                      const struct run_config *asked, bool several, bool *finished);
/* Remove the files of a run, and nothing else, from folder; it may be missing. */
NODISCARD enum status run_folder_remove(const char *folder);

/* One trial of a run. */
struct trial_id {
    int repeat;
    int fold;  /* -1: a run without cross-validation */
    int inner; /* inner fold; -1: none */
};

/* Rows of one trial; owned by the caller (run_rows_free). */
struct run_rows {
    int64_t *train, *select, *score;
    int64_t train_count, select_count, score_count;
    bool select_is_train_data; /* select rows are of data.train (folds, hold-out), else of data.eval
                                */
};
NODISCARD enum status run_rows_make(const struct run *run, const struct trial_id *id,
                                    struct run_rows *out);
void run_rows_free(struct run_rows *rows);
/* The options of the trial on these rows. folder and rows are borrowed. */
void run_trial_opts(struct run *run, const struct run_rows *rows, const struct trial_id *id,
                    struct comm *group, const char *folder, struct trial_opts *out);
/* Of weights, order and dropout: a function of seed, repeat, fold and inner fold alone. */
uint64_t run_trial_seed(const struct run_config *config, const struct trial_id *id);
/* Whether the run cuts folds, and cut them or a hold-out. Used by run_open(). */
bool run_has_folds(const struct run_config *config);
/* What cv.kind=auto comes to. */
enum config_cv_kind run_split_kind(const struct run *run);
NODISCARD enum status run_cut(struct run *run);

#endif
