/*
 * dispatch.h - hands the trials of a schedule to rank groups, by mail.
 *
 * Rank 0 has the schedule and trains as well: it looks at its mail whenever it marks progress
 * (comm_on_mark). The rank 0 of each group, its leader, asks for work and tells what came of it;
 * the group's other ranks learn it by broadcast. A signal that stops one group stops all.
 */
#ifndef COHORT_LAUNCHER_DISPATCH_H
#define COHORT_LAUNCHER_DISPATCH_H

#include "comm/comm.h"
#include "launcher/schedule.h"
#include "worker/trial.h"

enum { DISPATCH_SENTENCE = 600 };

struct dispatch_order {
    int trial;    /* SCHEDULE_END: there is nothing more */
    int setting;  /* that it runs with */
    int rung;     /* to which it runs */
    double until; /* the share of its steps at which that is; 1: its end */
};

/* What came of a trial. */
struct dispatch_outcome {
    enum status status; /* STATUS_OK: at its stop; STATUS_REQUEUE: stopped by a signal */
    double score;
    bool lost;     /* the group can carry no more sums */
    int64_t steps; /* for people */
    double seconds;
    char sentence[DISPATCH_SENTENCE]; /* of a failure */
};

struct dispatch_opts {
    struct comm *world, *group;
    int groups, own;           /* number of groups; this rank's */
    struct schedule *schedule; /* rank 0; elsewhere NULL */
    /* Rank 0: something has happened to a trial: it is given out (both NULL), it stands somewhere,
     * or it has ended. Called between collectives; must be quick. */
    void (*seen)(void *arg, int trial, const struct trial_place *place,
                 const struct dispatch_outcome *outcome);
    void *arg;
};

struct dispatch;

/* Collective on world. *out is owned (dispatch_close). opts is copied. */
NODISCARD enum status dispatch_open(const struct dispatch_opts *opts, struct dispatch **out);
/* Collective on world, after every group has got SCHEDULE_END or after a failure that all know. */
void dispatch_close(struct dispatch *d);
/* What came of the group's last order (the leader's word counts), and the next one. Collective on
 * the group. */
NODISCARD enum status dispatch_next(struct dispatch *d, const struct dispatch_outcome *outcome,
                                    struct dispatch_order *order);
/* Where the group's trial stands: struct trial_opts' progress, with d as its argument. Leader. */
void dispatch_progress(void *d, const struct trial_place *place);
/* Collective on world: wait until every group has got SCHEDULE_END. */
NODISCARD enum status dispatch_end(struct dispatch *d);

#endif
