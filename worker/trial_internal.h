/* trial_internal.h - the state of a running trial, shared by trial.c (the loop) and trial_state.c
 * (checkpoints). */
#ifndef COHORT_WORKER_TRIAL_INTERNAL_H
#define COHORT_WORKER_TRIAL_INTERNAL_H

#include "base/str.h"
#include "model/optimizer.h"
#include "worker/adversary.h"
#include "worker/averages.h"
#include "worker/prefetch.h"
#include "worker/loss_scale.h"
#include "worker/rates.h"
#include "worker/run_log.h"
#include "worker/shards.h"
#include "worker/step_plan.h"
#include "worker/trial.h"
#include "worker/units.h"

/* One evaluation, for the history in state.json. */
struct evaluation {
    int64_t step;
    double score, loss;
};

/* What a checkpoint carries beside weights and moments. */
struct progress {
    int64_t step; /* steps run */
    int64_t tokens;
    double seconds;    /* of training steps, over all starts */
    double epoch_loss; /* sum over the epoch's steps of loss * rows */
    int64_t epoch_rows;
    double epoch_seconds;
    int64_t best_step; /* -1: none yet */
    double best_score;
    int64_t without_gain; /* evaluations since the best */
    struct loss_scale scaling;
    struct plateau plateau; /* schedule.name=plateau */
    bool stopped;           /* early stopping ended the trial */
    struct evaluation *history;
    size_t evaluations, history_capacity;
};

struct trial {
    const struct trial_opts *opts;
    const struct run_config *config;
    struct comm *group;
    bool leader; /* rank 0 of the group */
    struct trial_plan plan;
    int64_t until; /* steps of this start: plan.steps, or where it pauses */
    struct model *model;
    struct optimizer *optimizer;
    struct optimizer_opts rule; /* what it was opened with; ranges borrowed from shards */
    struct sampler *sampler;
    struct prefetch *prefetch;
    struct run_log *log;
    struct progress at;
    struct rates rates;
    struct step_opts step_opts;
    struct step_plan step[2]; /* this step's and the next one's, which is read ahead */
    struct shards shards;
    struct averages *averages;   /* train.average; NULL: none */
    bool messages_left;          /* a reduction was begun by some ranks and not by others */
    int started;                 /* buckets of this step whose reduction was started */
    struct adversary *adversary; /* train.adversarial; NULL: none */
    bool losses_read;            /* this step's are in row_loss: its passes were run again */
    double *row_loss;
    int64_t *batch_rows[2];
    struct unit_list units[2]; /* of these rows: positions of the plans are places in it */
    struct chunk_step *chunks; /* trial_chunks.c; NULL: texts are cut */
    int batch_count[2];
    double part_s[TRIAL_PARTS], part_from; /* log.parts */
    int64_t timed_steps;
    int write_failures; /* checkpoints that failed in a row */
    int64_t seed;
};

/* The model a plan asks for; how the group's batches are cut. */
void trial_model_opts(const struct trial_opts *opts, const struct trial_plan *plan,
                      struct model_opts *out);
void trial_step_opts(const struct trial *trial, struct step_opts *out);

/* Wait for messages between devices that are under way, within half of the watchdog's time, so that
 * this side is the one to say what is wrong: before numbers are read that come behind them. Local.
 */
NODISCARD enum status trial_settle(struct trial *trial);
/* Local, but for its messages: the weights that each rank owns to all of them. */
NODISCARD enum status trial_gather_weights(struct trial *trial);
/* Collective. Save checkpoint-<step>; publish it as best if asked. A full disk is a warning until
 * the third in a row. */
NODISCARD enum status trial_save(struct trial *trial, bool publish);
/* Collective. Load the newest good checkpoint if there is one; else the model's weights. */
NODISCARD enum status trial_restore(struct trial *trial);
/* Collective. XXH3 over the master weights, block by block. */
NODISCARD enum status trial_hash(struct trial *trial, uint64_t *hash);

#endif
