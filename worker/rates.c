/* rates.c - see rates.h. */
#include "worker/rates.h"

#include <string.h>

#include "base/mem.h"
#include "worker/metrics.h"

static enum status of_config(struct rates *rates, const struct run_config *config,
                             const struct trial_plan *plan)
{
    struct lr_schedule *z = &rates->schedule;
    *z = (struct lr_schedule){
        .kind = (enum lr_kind)config->schedule.name, /* in the same order */
        .warmup = plan->warmup,
        .total = plan->steps,
        .epoch_steps = config->schedule.by == CONFIG_BY_EPOCH ? plan->steps_per_epoch : 0,
        .length = config->schedule.length,
        .start = config->schedule.start,
        .end = config->schedule.end,
        .least = config->schedule.min_factor,
        .cycles = config->schedule.num_cycles,
        .power = config->schedule.power,
        .gamma = config->schedule.gamma,
        .step_size = config->schedule.step_size,
        .milestones = config->schedule.milestones,
        .milestone_count = config->schedule.milestones_count,
        .first_cycle = config->schedule.t_0,
        .cycle_factor = config->schedule.t_mult,
        .up = config->schedule.step_size_up,
        .down = config->schedule.step_size_down,
        .mode = (enum cyclic_mode)config->schedule.mode,
        .rise = config->schedule.pct_start,
        .div_factor = config->schedule.div_factor,
        .final_div_factor = config->schedule.final_div_factor,
        .three_phase = config->schedule.three_phase,
        .straight = config->schedule.anneal == CONFIG_ANNEAL_LINEAR,
        .interpolate = config->schedule.interpolate,
    };
    if (z->kind == LR_TABLE && config->schedule.table[0] != '\0')
        TRY(lr_schedule_points(config->schedule.table, strlen(config->schedule.table),
                               "schedule.table", &rates->points, &z->point_count));
    z->points = rates->points;
    return lr_schedule_check(z);
}

enum status rates_make(struct rates *rates, const struct trial_opts *opts,
                       const struct trial_plan *plan)
{
    const struct run_config *config = opts->config;
    *rates = (struct rates){.follows_scores = config->schedule.name == CONFIG_SCHEDULE_PLATEAU};
    enum status st = of_config(rates, config, plan);
    if (st == STATUS_OK && rates->follows_scores && opts->select.count == 0)
        st = status_fail(STATUS_CONFIG, "schedule.name=plateau follows the scores of evaluations, "
                                        "and there are no rows to evaluate on: wanted data.eval or "
                                        "data.holdout, or cv.select=inner or best");
    if (st != STATUS_OK) {
        rates_release(rates);
        return st;
    }
    rates->plateau = (struct plateau_opts){
        .factor = config->schedule.factor,
        .patience = config->schedule.patience,
        .threshold = config->schedule.threshold,
        .relative = config->schedule.threshold_mode == CONFIG_THRESHOLD_REL,
        .cooldown = config->schedule.cooldown,
        .least = config->schedule.min_factor,
        .granularity = config->optim.lr > 0.0 ? config->schedule.eps / config->optim.lr : 0.0,
        .larger = metric_better(opts->task->metric, 1.0, 0.0),
    };
    return STATUS_OK;
}

void rates_release(struct rates *rates)
{
    mem_free(rates->points);
    *rates = (struct rates){0};
}

double rates_factor(const struct rates *rates, const struct plateau *plateau, int64_t step)
{
    double factor = lr_schedule_factor(&rates->schedule, step);
    return rates->follows_scores ? factor * plateau->factor : factor;
}
