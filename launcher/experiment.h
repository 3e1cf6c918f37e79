/*
 * experiment.h - a run of several trials: settings x repeats x folds, dealt to groups of ranks.
 *
 * Every rank knows every trial; rank 0 decides which runs next. A setting's run is opened when one
 * of its trials needs it. docs/architecture.md, "An experiment".
 */
#ifndef COHORT_LAUNCHER_EXPERIMENT_H
#define COHORT_LAUNCHER_EXPERIMENT_H

#include "launcher/outcome.h"
#include "launcher/schedule.h"
#include "launcher/search.h"

struct experiment {
    struct session *session;
    const char *cache;
    struct search search;
    struct schedule_opts shape; /* settings, repeats, folds that are run now, inner folds */
    int *fold;                  /* (shape.folds) their numbers; -1 without cross-validation */
    bool one_repeat;            /* folders have no level for repeats */
    int trials;
    double *work;       /* (trials) FLOPs, about */
    uint64_t *identity; /* (settings) */
    char **label;       /* (settings) "optim.lr=2e-5"; "" */
    uint64_t all;       /* hash of all identities */
    int group_ranks, groups;
    struct run_config resolved; /* what run.cfg holds */
    struct run run;             /* of setting `open` */
    int open;                   /* -1: none */
    struct run_config config;
};

/* Whether the configuration asks for more than one training run. */
bool experiment_wanted(const struct run_config *config);
/*
 * Open every setting once, so that whatever would be refused is refused now, and leave setting 0
 * open. cache is borrowed. Collective on all ranks.
 */
NODISCARD enum status experiment_open(struct session *session, const char *cache,
                                      struct experiment *out);
void experiment_close(struct experiment *e);
/* Make e->run that of a setting. Collective on comm. */
NODISCARD enum status experiment_use(struct experiment *e, struct comm *comm, int setting);

/* What trial `index` is: its fold and inner fold by number. */
void experiment_trial(const struct experiment *e, int index, struct trial_id *id);
/* Its folder below out: "setting-1/repeat-0/fold-2"; "" if there is nothing to tell apart. */
NODISCARD enum status experiment_name(const struct experiment *e, int index, struct str *out);
NODISCARD enum status experiment_folder(const struct experiment *e, int index, char **out);
/* For people: "fold 2, repeat 0, optim.lr=2e-5". setting: that of the trial. */
NODISCARD enum status experiment_say(const struct experiment *e, int index, int setting,
                                     struct str *out);

/* How all trials have ended. */
struct experiment_end {
    enum status status; /* STATUS_OK: all are finished; STATUS_REQUEUE: a signal came; else that of
                           the first trial that was given up; its sentence is the last one. The same
                           on all ranks */
    struct schedule *schedule; /* rank 0; owned */
    char **failure;            /* rank 0: (trials) sentences, or NULL; owned */
};
/* Run what is not finished yet. A failure of its own leaves *end empty. Collective on all ranks. */
NODISCARD enum status experiment_run(struct experiment *e, struct experiment_end *end);
void experiment_end_release(const struct experiment *e, struct experiment_end *end);
/*
 * Pool and score what is finished, write out-of-fold tables and log.jsonl, say the outcome, and
 * describe it in results (docs/formats.md; "train" with steps, tokens, seconds).
 * Leaves the best setting's run open. Collective on all ranks; rank 0 fills results.
 */
NODISCARD enum status experiment_results(struct experiment *e, const struct experiment_end *end,
                                         json_t *results);

#endif
