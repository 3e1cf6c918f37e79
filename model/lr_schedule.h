/*
 * lr_schedule.h - learning-rate schedules: one factor for each step, by which every group's peak
 * rate is multiplied.
 *
 * The formulas are those of transformers.optimization (T) and torch.optim.lr_scheduler (P), written
 * as functions of the step alone, so that a resumed run needs no state. Only the plateau has one,
 * because it follows scores.
 *
 *   linear                LinearLR (P); with start 1 and end 0 get_linear_schedule_with_warmup (T)
 *   cosine                get_cosine_schedule_with_warmup, ..._with_min_lr_... (T);
 *                         CosineAnnealingLR (P) where length is T_max
 *   constant              get_constant_schedule_with_warmup (T); ConstantLR (P) with start
 *   step, multi_step      StepLR, MultiStepLR (P)
 *   exponential           ExponentialLR (P)
 *   polynomial            get_polynomial_decay_schedule_with_warmup (T), PolynomialLR (P)
 *   cosine_with_restarts  get_cosine_with_hard_restarts_schedule_with_warmup (T)
 *   warm_restarts         CosineAnnealingWarmRestarts (P)
 *   cyclic                CyclicLR (P), without its cycle of momentum
 *   one_cycle             OneCycleLR (P), without its cycle of momentum
 *   plateau               ReduceLROnPlateau (P)
 *   table                 LambdaLR (P) of a function given by points
 *
 * Warm-up comes in front of each: s / warmup of where the schedule begins (of 1 for most), as
 * SequentialLR (P) with LinearLR, or the T functions, have it. Behind it the schedule counts from
 * 0, in steps or in epochs.
 *
 * Local.
 */
#ifndef COHORT_MODEL_LR_SCHEDULE_H
#define COHORT_MODEL_LR_SCHEDULE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum lr_kind {
    LR_LINEAR,
    LR_COSINE,
    LR_CONSTANT,
    LR_STEP,
    LR_MULTI_STEP,
    LR_EXPONENTIAL,
    LR_POLYNOMIAL,
    LR_COSINE_WITH_RESTARTS,
    LR_WARM_RESTARTS,
    LR_CYCLIC,
    LR_ONE_CYCLE,
    LR_PLATEAU,
    LR_TABLE
};
enum cyclic_mode { CYCLIC_TRIANGULAR, CYCLIC_TRIANGULAR2, CYCLIC_EXP_RANGE };

/* A point of a table: from step (or epoch) `at` on. */
struct lr_point {
    int64_t at;
    double factor;
};

/* t is what the schedule counts, n how much of it there is in all, both behind the warm-up. */
struct lr_schedule {
    enum lr_kind kind;
    int64_t warmup, total; /* steps */
    int64_t epoch_steps;   /* stepped per epoch: the steps of one; 0: per step */
    int64_t length;    /* n of linear, cosine, polynomial, one_cycle and, for start, constant; 0:
                          what there is (constant: 0) */
    double start, end; /* factors: linear's both, constant's first */
    double least;      /* cosine, polynomial, both restarts, cyclic: lowest factor */
    double cycles;     /* waves of cosine, cycles of cosine_with_restarts */
    double power;
    double gamma; /* step, multi_step, exponential, cyclic with exp_range */
    int64_t step_size;
    const int64_t *milestones; /* (milestone_count), in any order, borrowed */
    int64_t milestone_count;
    int64_t first_cycle, cycle_factor; /* warm_restarts: T_0, T_mult */
    int64_t up, down;                  /* cyclic: steps of each side; down 0: up */
    enum cyclic_mode mode;
    double rise, div_factor, final_div_factor; /* one_cycle: pct_start and so on */
    bool three_phase, straight;                /* straight: annealed linearly, not by a cosine */
    const struct lr_point *points;             /* table: (point_count), borrowed */
    int64_t point_count;
    bool interpolate; /* between points; else the last point holds */
};

/* STATUS_CONFIG: a value that the kind cannot work with, in one sentence with its key's name. */
NODISCARD enum status lr_schedule_check(const struct lr_schedule *schedule);
/* The factor for s applied steps before this one. The plateau's own factor is not in it. */
double lr_schedule_factor(const struct lr_schedule *schedule, int64_t s);

/*
 * Points from text: "0:1, 100:0.5" or one a line, "0 1" (',' or newline between points; ':', blanks
 * or a tab inside one; '#' begins a comment). Points ascend and begin at 0; factors are finite and
 * not negative. *points is owned (mem_free). STATUS_CONFIG names the place.
 */
NODISCARD enum status lr_schedule_points(const char *text, size_t n, const char *where,
                                         struct lr_point **points, int64_t *count);

/* ---- the plateau: a state that follows scores */

struct plateau_opts {
    double factor;      /* of the rate, each time */
    int64_t patience;   /* scores without gain before that */
    double threshold;   /* what counts as a gain */
    bool relative;      /* threshold is a share of the best */
    int64_t cooldown;   /* scores that are not counted afterwards */
    double least;       /* lowest factor */
    double granularity; /* smaller changes of the factor are not made: torch's eps / the rate */
    bool larger;        /* scores grow */
};
struct plateau {
    double factor; /* 1 at first */
    double best;   /* NaN: none yet */
    int64_t bad, cooldown;
};
static inline struct plateau plateau_start(void)
{
    return (struct plateau){.factor = 1.0, .best = (double)NAN};
}
/* A new score; an undefined one (NaN) is no gain. Returns whether the factor fell. A relative
 * threshold is a share of the best's size, so it has the same sense for negative scores, where
 * torch's has not. */
bool plateau_score(const struct plateau_opts *opts, struct plateau *plateau, double score);

/* ---- the rate of stochastic weight averaging (torch.optim.swa_utils.SWALR): `step` steps after it
 * begins, from factor `from` to factor `to` within `length` steps */
double swa_factor(double from, double to, int64_t step, int64_t length, bool straight);

#endif
