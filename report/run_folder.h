/*
 * run_folder.h - a run's folder as reports read it: what it was asked, what came out, how its
 * trials went, and the data behind it.
 *
 * Everything may be missing, since a run is also looked at while it goes on: then the pointer is
 * NULL or the count 0. What is there but damaged is left out with a note. docs/formats.md has the
 * files.
 *
 * Local; nothing in the folder is changed.
 */
#ifndef COHORT_REPORT_RUN_FOLDER_H
#define COHORT_REPORT_RUN_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "base/str.h"
#include "data/dataset.h"
#include "report/table.h"
#include "worker/run_config.h"

/* A line of log.jsonl; numbers that it does not have are NaN. */
struct log_step {
    double step, epoch, loss, lr, head_lr, grad_norm, rows, tokens, tokens_per_s;
};
struct log_eval {
    double step, score, loss, rows, seconds;
};

/* One trial: a folder with a log.jsonl. */
struct trial_log {
    char *name;                       /* "fold-2", "" for a run of one trial; owned */
    int setting, repeat, fold, inner; /* -1: there is none */
    struct log_step *step;            /* (steps), owned */
    int64_t steps;
    struct log_eval *eval; /* (evals), owned */
    int64_t evals;
    int64_t checkpoints;
    double checkpoint_s, eval_s; /* seconds of all of them */
    bool finished;               /* result.json is there */
    size_t step_room, eval_room;
};

struct run_folder {
    char *path;                      /* owned */
    const struct run_config *config; /* of run.cfg; the caller's */
    struct str cfg;                  /* run.cfg */
    json_t *results, *manifest, *progress;
    struct trial_log *trial; /* (trials) sorted by setting, repeat, fold, inner; owned */
    int trials;
    bool several;             /* the run has trials in folders of their own */
    bool has_table, of_train; /* table is out-of-fold, of data.train; else of an evaluation */
    struct table table;
    struct dataset *train;  /* uncut; NULL: not found */
    struct dataset *scored; /* whose rows the table names; train, or data.eval's; NULL: not found */
    struct str note;        /* sentences on what is left out, each behind a newline */
};

/*
 * path: the folder; config: its run.cfg, or all defaults where it has none. On success *out is
 * released by run_folder_close(), on failure empty. STATUS_NOINPUT: no such folder, or not one of a
 * run (neither run.cfg nor results.json nor log.jsonl in it). STATUS_NOMEM.
 */
NODISCARD enum status run_folder_open(const char *path, const struct run_config *config,
                                      struct run_folder *out);
void run_folder_close(struct run_folder *run);

/* The longest text in tokens that datasets are opened with: more than any has. */
enum { RUN_FOLDER_UNCUT = 1 << 22 };

/* Whether a folder's name is one of the levels of trials ("fold-3"), and the number in it. */
bool run_folder_level(const char *name, const char *level, int *number);

/* Numbers of results.json and the like: NaN where there is none. `path` is keys with dots between
 * them, "oof.ci95.0" the first of a list. */
double json_number_at(const json_t *object, const char *path);
/* Text, "" where there is none; borrowed. */
const char *json_text_at(const json_t *object, const char *path);

#endif
