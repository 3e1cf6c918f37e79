/*
 * trial.h - one training run of one rank group: from weights and rows to checkpoints and scores.
 *
 * A trial is all of a plain `train`, or one fold of a cross-validation. It resumes by itself from
 * the newest good checkpoint in its folder, at any step, on any rank count. All calls are
 * collective on the group.
 */
#ifndef COHORT_WORKER_TRIAL_H
#define COHORT_WORKER_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/status.h"
#include "comm/comm.h"
#include "data/dataset.h"
#include "model/model.h"
#include "model/optimizer.h"
#include "worker/model_io.h"
#include "worker/run_config.h"
#include "worker/task.h"

/* Rows of one dataset and their targets. */
struct trial_rows {
    struct dataset *ds;
    const struct task_targets *targets;
    const int64_t *rows;
    int64_t count;
};

/* Where a trial stands. */
struct trial_place {
    int64_t step, steps;
    double loss;         /* of this step */
    double tokens_per_s; /* of the steps so far */
    double seconds_left; /* at this rate */
};

struct trial_opts {
    const struct run_config *config;
    struct comm *group;
    struct device *device;
    const struct kernels *kernels;
    enum precision precision;
    const struct model_source *source;
    struct task_spec *task;
    enum pooling pooling;
    int max_length;
    struct chunk_rule chunks; /* those of the datasets, saved with the model; size 0: none */
    struct trial_rows train;
    struct trial_rows
        select; /* rows that are evaluated while training and choose the best; count 0: none */
    struct trial_rows
        score;        /* rows that the chosen weights are scored on at the end; count 0: none */
    bool select_best; /* publish the best of the evaluations; false: the last */
    const char
        *fence; /* token of run.lock in config->out, checked before each commit; NULL: none */
    const char *folder;   /* where checkpoint-<step>, best and log.jsonl go */
    uint64_t seed;        /* of this trial: weights, order, dropout */
    uint64_t config_hash; /* of everything that can change the result */
    double until; /* in (0, 1): evaluate, save and pause after this share of the steps, rounded up;
                     else: to the end */
    bool quiet; /* no lines on steps and evaluations: several trials run, and a screen shows them */
    void (*progress)(void *arg, const struct trial_place *place); /* after each step, on the group's
                                                                     rank 0; NULL: nobody asks */
    void *progress_arg;
};

/* Parts of a step whose time log.parts tells. */
enum trial_part {
    TIME_FORWARD,
    TIME_BACKWARD,
    TIME_REDUCE,
    TIME_NORM,
    TIME_ADAMW,
    TIME_GATHER,
    TRIAL_PARTS
};
const char *trial_part_name(enum trial_part part); /* "forward" */

struct trial_result {
    bool paused;                 /* at opts->until: there is more to do, and logits is NULL */
    int64_t steps, best_step;    /* steps run; the step whose weights were chosen */
    double best_score;           /* of the selection metric; NaN: no evaluation */
    double last_score;           /* of the last evaluation; NaN: none */
    int64_t tokens;              /* real tokens with specials, trained on */
    double seconds;              /* wall time of training steps */
    double part_s[TRIAL_PARTS];  /* of this start's steps, with log.parts */
    int64_t timed_steps;         /* of this start; 0 without log.parts */
    int64_t replayed, stretches; /* model_replays() */
    float *
        logits; /* (score.count, outputs) of the chosen weights, on every rank; owned; NULL: none */
};

/* STATUS_REQUEUE: stopped by a signal after a durable checkpoint. Other failures lose nothing that
 * was committed. */
NODISCARD enum status trial_run(const struct trial_opts *opts, struct trial_result *result);
void trial_result_release(struct trial_result *result);

/* Fill in the rates, decays and constants that the configuration asks of the optimizer. */
void trial_rates(const struct run_config *config, struct optimizer_opts *out);

/* What a trial will do, before it is started: for `check`, and for the planner itself. */
struct trial_plan {
    int64_t steps_per_epoch, steps, warmup;
    /* Steps before the first whose weights count in the mean, and before the first that is run
     * twice; all steps where that is not asked for. */
    int64_t average_from, adversary_from;
    int64_t tokens;          /* of all steps, over all ranks */
    int64_t max_pass_tokens; /* largest pass of any rank */
    int max_pass_rows;       /* units */
    int max_batch_units;     /* of a step, over all ranks */
    int gradient_buffers;
    int max_pieces;             /* of a pass's cut, on any rank */
    int64_t cut_rows;           /* training rows longer than max_length */
    struct model_memory memory; /* per rank */
    int64_t memory_bytes;       /* per rank, all told */
    bool recompute;
};
NODISCARD enum status trial_plan_make(const struct trial_opts *opts, int ranks,
                                      struct trial_plan *plan);

/* From here on SIGUSR1 and SIGTERM stop a trial after a checkpoint, SIGUSR2 checkpoints and goes
 * on. For a process that is about to train: where nobody looks at them, signals should do what they
 * do everywhere. */
void trial_catch_signals(void);
/* As if a signal had asked for a stop, for a trial that must end because another group's does; and
 * whether one has. Local. */
void trial_ask_stop(void);
bool trial_stop_asked(void);

#endif
