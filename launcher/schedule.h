/*
 * schedule.h - which trial runs next on which rank group. Rank 0's; knows nothing of MPI or files.
 *
 * A trial is one training run: setting x repeat x fold, and inner fold under nested
 * cross-validation. What runs depends on scores alone, never on time: which groups are free decides
 * where and when a trial runs, but not whether, so results are the same on any number of groups and
 * after any restart.
 *
 *   order       The most work first; a tie goes to the lower number. (Longest processing time
 *               first: Graham, Bounds on multiprocessing timing anomalies, 1969: at most 4/3 of the
 *               best possible end.)
 *   halving     All trials of a bracket stop at rung 0, 1, ...; when the last one has arrived, the
 *               settings are ranked by the mean of their trials' scores and the best
 *               ceil(n / halving) go on. (Synchronous successive halving: Jamieson and Talwalkar,
 *               2016.) A bracket is the whole run, or the inner trials of one outer fold.
 *   nesting     The outer trial of (repeat, fold) waits for its inner trials and then runs with the
 *               setting whose inner trials have the best mean.
 *   failures    A trial that failed softly (STATUS_NUMERIC, NOMEM, IO) runs once more, on another
 *               group if there is one. Failed again, or otherwise: it is given up, and the others
 *               go on. A setting with a trial given up loses its bracket.
 */
#ifndef COHORT_LAUNCHER_SCHEDULE_H
#define COHORT_LAUNCHER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum trial_state {
    TRIAL_BLOCKED, /* waits for its inner trials */
    TRIAL_READY,   /* can run to its next stop */
    TRIAL_RUNNING,
    TRIAL_PAUSED, /* has finished a rung and waits for the others */
    TRIAL_FINISHED,
    TRIAL_DROPPED, /* its setting lost at a rung */
    TRIAL_GIVEN_UP
};

struct schedule_trial {
    int setting; /* -1: an outer trial whose setting is not chosen yet */
    int repeat, fold;
    int inner;   /* -1: not an inner trial */
    double work; /* of the whole trial, in any unit */
    enum trial_state state;
    int rungs;    /* finished */
    double score; /* of the last finished rung, of the end once finished; NaN: undefined */
    int group;    /* that runs it, or ran it last; -1 */
    int failures;
    enum status failure; /* the last one */
};

struct schedule_opts {
    int settings, repeats, folds; /* each at least 1 */
    int inner_folds;              /* 0: not nested */
    int groups;
    int halving; /* 0: off; else 2 at least */
    int rungs;   /* with halving: stops before the end */
    bool higher_is_better;
    /* (trials), in the order of schedule_trial(); of an outer trial under nesting: of any setting.
     */
    const double *work;
};

struct schedule;

/* Trials in order: by repeat, fold, setting; under nesting by repeat, fold, (setting, inner fold),
 * with the outer trial behind its inner ones. */
int schedule_count(const struct schedule_opts *opts);
/* What trial `index` is, states aside. Local. */
void schedule_name(const struct schedule_opts *opts, int index, struct schedule_trial *out);
/* opts->work is read during the call only. *out is owned (schedule_close). STATUS_NOMEM. */
NODISCARD enum status schedule_open(const struct schedule_opts *opts, struct schedule **out);
void schedule_close(struct schedule *s);
const struct schedule_trial *schedule_trial(const struct schedule *s, int index);
int schedule_trials(const struct schedule *s);

/*
 * What an earlier start has left, before the first take; inner trials before the outer ones that
 * wait for them, rungs upwards. schedule_trial() tells which setting an outer trial has.
 */
void schedule_found_rung(struct schedule *s, int index, double score);
void schedule_found_end(struct schedule *s, int index, double score);
void schedule_found_failure(struct schedule *s, int index, enum status failure);

/* The share of a trial after which rung `rung` is (1 for rung opts.rungs, the end). */
double schedule_share(const struct schedule *s, int rung);
/* Rungs of this trial: none of an outer one. */
int schedule_rungs(const struct schedule *s, int index);

enum { SCHEDULE_WAIT = -1, SCHEDULE_END = -2 };
/* The next trial for a free group, which runs it to rung trial->rungs (opts.rungs: to its end).
 * SCHEDULE_WAIT: nothing now, later perhaps; SCHEDULE_END: nothing any more. */
int schedule_take(struct schedule *s, int group);
/* A group's trial is at its stop. */
void schedule_arrived(struct schedule *s, int index, double score);
/* It failed. */
void schedule_failed(struct schedule *s, int index, enum status failure);
/* It was stopped by a signal: it can go on at the next start. */
void schedule_put_back(struct schedule *s, int index);
/* The group can work no more. */
void schedule_retire(struct schedule *s, int group);
/* No group gets anything any more (a signal has arrived). */
void schedule_stop(struct schedule *s);
/* Whether this status may go away elsewhere. */
bool schedule_is_soft(enum status st);

/*
 * cv.group_ranks=0: the ranks of a group, a divisor of `ranks`, with the shortest estimated end of
 * `trials` equal trials. A rule, not a measurement, since under parallel.reproducible=fixed the
 * bits depend on it: a step takes flops / rate * (ceil(rows / n) + 1) / (rows + 1) on n ranks,
 * since what does not grow with the rows costs about as much as one (docs/results/cv.md), and with
 * n > 1 also 2 (n - 1) / n * bytes / bandwidth + latency * log2(n).
 */
struct schedule_cost {
    double flops;     /* of a step, all ranks */
    int64_t rows;     /* of a step, at least 1 */
    double bytes;     /* of the gradient, fp32 */
    double rate;      /* flops/s of a rank */
    double bandwidth; /* bytes/s between ranks */
    double latency;   /* s of one message */
};
int schedule_group_ranks(int ranks, int trials, const struct schedule_cost *cost);

#endif
