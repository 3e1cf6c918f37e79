/*
 * trial_plan.c - walks through all steps of a trial without computing: how many, how large the
 * passes get, and what memory that takes. The training loop, `check` and the refusal of runs that
 * do not fit use the same walk.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "worker/scoring.h"
#include "worker/trial_internal.h"

static int64_t count_steps(const struct run_config *config, int64_t per_epoch)
{
    if (config->train.max_steps > 0)
        return config->train.max_steps;
    return (int64_t)ceil(config->train.epochs * (double)per_epoch - 1e-9);
}

static void step_options(const struct trial_opts *opts, int rank, int ranks, struct step_opts *out)
{
    const struct run_config *config = opts->config;
    bool any = config->parallel.reproducible == CONFIG_ANY;
    *out = (struct step_opts){.leaves = any ? (int)config->parallel.grains : ranks,
                              .split = !any,
                              .cut_long = opts->chunks.size > 0,
                              .rank = rank,
                              .ranks = ranks,
                              .micro_tokens = config->train.micro_tokens};
}

/*
 * A bound on the largest pass of any rank over all steps: a rank's run of leaves, cut at
 * micro_tokens, but never below what cannot be split (a leaf under `any`, a row otherwise, and a
 * chunk). Each step is dealt once, not once per rank.
 */
static enum status walk(const struct trial_opts *opts, struct sampler *sampler, int ranks,
                        struct trial_plan *plan)
{
    struct batch_plan deal = {0};
    struct step_opts step;
    struct unit_list units = {0};
    const struct row_source source = row_source_dataset(opts->train.ds);
    enum status st = STATUS_OK;
    for (int64_t s = 0; st == STATUS_OK && s < plan->steps; s++) {
        const int64_t *rows;
        int count;
        st = sampler_next(sampler, s / plan->steps_per_epoch, s % plan->steps_per_epoch, &rows,
                          &count);
        if (st == STATUS_OK)
            st = units_of_rows(&source, rows, count, &units);
        if (st == STATUS_OK)
            st = checked_int(units.count, "the chunks of a batch", &count);
        step_options(opts, 0, ranks, &step);
        if (s % 1024 == 0)
            comm_mark(-1, "planning");
        if (st == STATUS_OK)
            st = batch_plan(&deal, units.length, count, step.leaves);
        plan->tokens += units.tokens;
        plan->max_batch_units = count > plan->max_batch_units ? count : plan->max_batch_units;
        for (int rank = 0; st == STATUS_OK && rank < ranks; rank++) {
            int first, own;
            int64_t tokens = 0, whole = step.split || step.cut_long ? units.longest : 0;
            plan_grains_of_rank(step.leaves, rank, ranks, &first, &own);
            for (int leaf = first; leaf < first + own; leaf++) {
                tokens += deal.grain_tokens[leaf];
                if (!step.split && !step.cut_long && deal.grain_tokens[leaf] > whole)
                    whole = deal.grain_tokens[leaf];
            }
            int rows_of_rank = deal.grain_begin[first + own] - deal.grain_begin[first];
            int64_t pass = tokens < step.micro_tokens ? tokens : step.micro_tokens;
            pass = whole > pass ? whole : pass;
            plan->max_pass_tokens = pass > plan->max_pass_tokens ? pass : plan->max_pass_tokens;
            if (units.shortest > 0 && pass / units.shortest < rows_of_rank)
                rows_of_rank = (int)(pass / units.shortest);
            plan->max_pass_rows = rows_of_rank > plan->max_pass_rows ? rows_of_rank
                                                                     : plan->max_pass_rows;
        }
    }
    units_release(&units);
    batch_plan_release(&deal);
    return st;
}

/* Ranks that share the memory of this rank's device. */
static int sharing(const struct trial_opts *opts)
{
    int local = opts->group == NULL ? 1 : comm_local_size(opts->group), gpus;
    if (device_kind(opts->device) == DEVICE_CPU)
        return local;
    if (device_count(DEVICE_CUDA, &gpus) != STATUS_OK || gpus < 2)
        return 1; /* a GPU of its own, as a scheduler gave it */
    return (local + gpus - 1) / gpus;
}

static enum status plan_memory(const struct trial_opts *opts, int ranks, struct trial_plan *plan)
{
    const struct run_config *config = opts->config;
    double gb = config->train.memory_limit_gb;
    int64_t limit = gb > 0.0 ? (int64_t)(gb * 1e9) : device_memory_bytes(opts->device);
    int local = sharing(opts);
    struct model_opts model;
    struct optimizer_opts rates;
    trial_rates(config, &rates);
    const int states = optimizer_states(&rates);
    plan->recompute = config->train.recompute == CONFIG_RECOMPUTE_ON;
    for (;;) {
        trial_model_opts(opts, plan, &model);
        TRY(model_plan_memory(&model, &plan->memory));
        int64_t state = states * plan->memory.weights / ranks; /* of owned parameters */
        if (config->train.average != CONFIG_AVERAGE_NONE)
            state += plan->memory.weights / ranks;
        if (config->train.adversarial != CONFIG_ADVERSARIAL_NONE)
            state += 2 * plan->memory.weights / ranks;
        int64_t staging = plan->memory.weights; /* received parts of sums */
        plan->memory_bytes = plan->memory.total + state + staging;
        if (plan->memory_bytes <= limit / local ||
            config->train.recompute != CONFIG_RECOMPUTE_AUTO || plan->recompute)
            break;
        plan->recompute = true; /* bits do not change, only time and memory */
    }
    if (plan->memory_bytes > limit / local)
        return status_fail(
            STATUS_CONFIG,
            "one rank would need %.1f GB (weights %.2f, gradients %.2f, activations %.2f, "
            "optimizer and messages %.2f) and %d rank%s sharing %s have %.1f GB; lower "
            "train.micro_tokens (%lld) or data.max_length%s, or use fewer ranks a node",
            (double)plan->memory_bytes / 1e9, (double)plan->memory.weights / 1e9,
            (double)plan->memory.gradients / 1e9, (double)plan->memory.activations / 1e9,
            (double)(plan->memory_bytes - plan->memory.total) / 1e9, local, local == 1 ? "" : "s",
            device_kind(opts->device) == DEVICE_CPU ? "this node" : device_name(opts->device),
            (double)limit / 1e9, (long long)config->train.micro_tokens,
            plan->recompute ? "" : ", set train.recompute=true");
    return STATUS_OK;
}

void trial_rates(const struct run_config *config, struct optimizer_opts *out)
{
    double lr = config->optim.lr, head_lr = config->optim.head_lr;
    double decay = config->optim.weight_decay, head_decay = config->optim.head_weight_decay;
    const enum config_optim name = config->optim.name;
    out->kind = (enum optimizer_kind)name; /* in the same order */
    out->lr = lr;
    out->head_lr = head_lr < 0.0 ? lr : head_lr;
    out->weight_decay = decay;
    out->head_weight_decay = head_decay < 0.0 ? decay : head_decay;
    out->beta1 = config->optim.beta1;
    out->beta2 = config->optim.beta2;
    out->eps = config->optim.eps;
    out->nesterov = config->optim.nesterov;
    out->centered = config->optim.centered;
    out->layer_decay = config->optim.layer_decay;
    out->freeze_embeddings = config->model.freeze_embeddings;
    out->freeze_layers = (int)config->model.freeze_layers;
    if (name == CONFIG_OPTIM_SGD || name == CONFIG_OPTIM_RMSPROP)
        out->beta1 = config->optim.momentum;
    if (name == CONFIG_OPTIM_RMSPROP)
        out->beta2 = config->optim.alpha;
    if (name == CONFIG_OPTIM_ADADELTA)
        out->beta2 = config->optim.rho;
    if (out->eps == 0.0)
        out->eps = name == CONFIG_OPTIM_ADAGRAD                                 ? 1e-10
                   : name == CONFIG_OPTIM_ADADELTA || name == CONFIG_OPTIM_LAMB ? 1e-6
                                                                                : 1e-8;
}

/* What backward need not reach: frozen layers with frozen embeddings below them. */
static int frozen_stages(const struct trial_opts *opts)
{
    const struct run_config *config = opts->config;
    const int layers = opts->source->encoder.layers;
    if (!config->model.freeze_embeddings)
        return 0;
    return 1 + (config->model.freeze_layers < layers ? (int)config->model.freeze_layers : layers);
}

void trial_model_opts(const struct trial_opts *opts, const struct trial_plan *plan,
                      struct model_opts *out)
{
    const struct run_config *config = opts->config;
    int64_t scoring = score_tokens(config, opts->max_length);
    *out = (struct model_opts){
        .encoder = opts->source->encoder,
        .head = {.pooling = opts->pooling,
                 .outputs = opts->task->outputs,
                 .dropout = -1.0f,
                 .samples = (int)config->model.dropout_samples},
        .precision = opts->precision,
        .max_tokens = plan->max_pass_tokens > scoring ? plan->max_pass_tokens : scoring,
        .max_rows = plan->max_pass_rows > SCORE_ROWS ? plan->max_pass_rows : SCORE_ROWS,
        .training = true,
        .recompute = plan->recompute,
        .grad_buffers = plan->gradient_buffers,
        .max_pieces = plan->max_pieces,
        .dropout = (float)config->model.dropout,
        .seed = opts->seed,
        .fastest = config->parallel.reproducible == CONFIG_OFF,
        .exact_pieces = config->parallel.reproducible == CONFIG_ANY,
        .device = opts->device,
        .kernels = opts->kernels,
        .max_losses = (int)config->train.batch_size,
        .eager = !config->parallel.graphs,
        .frozen = frozen_stages(opts),
    };
}

/* The first step that something counts in which begins after so many epochs: one that never would
 * is refused. */
static enum status first_step(const char *key, double epochs, const struct trial_plan *plan,
                              int64_t *out)
{
    const double from = ceil(epochs * (double)plan->steps_per_epoch - 1e-9);
    if (from >= (double)plan->steps)
        return status_fail(STATUS_CONFIG,
                           "%s=%g epochs are %.0f steps, and the run has %lld: it would never "
                           "begin; wanted a start before the last step",
                           key, epochs, from, (long long)plan->steps);
    *out = (int64_t)from;
    return STATUS_OK;
}

/* When tricks begin, what is computed on the host's memory, and what does not go together. */
static enum status plan_tricks(const struct trial_opts *opts, struct trial_plan *plan)
{
    const struct run_config *config = opts->config;
    const char *key = config->train.average != CONFIG_AVERAGE_NONE           ? "train.average"
                      : config->train.adversarial != CONFIG_ADVERSARIAL_NONE ? "train.adversarial"
                                                                             : NULL;
    if (key != NULL && device_kind(opts->device) != DEVICE_CPU)
        return status_fail(STATUS_CONFIG,
                           "the %s backend has no %s, wanted none, or parallel.backend=cpu",
                           opts->kernels->name, key);
    if (config->train.adversarial != CONFIG_ADVERSARIAL_NONE && opts->chunks.size > 0)
        return status_fail(
            STATUS_CONFIG,
            "train.adversarial and data.long=chunk are both asked for, and do not go "
            "together");
    if (config->train.adversarial == CONFIG_ADVERSARIAL_FGM && config->model.freeze_embeddings)
        return status_fail(STATUS_CONFIG, "train.adversarial=fgm moves the word embeddings, which "
                                          "model.freeze_embeddings keeps; wanted awp or none");
    if (config->model.dropout_samples > 1 && opts->chunks.size > 0)
        return status_fail(STATUS_CONFIG,
                           "model.dropout_samples and data.long=chunk are both asked for, and do "
                           "not go together");
    if (config->train.adversarial == CONFIG_ADVERSARIAL_AWP &&
        !(config->train.adversarial_rate > 0.0))
        return status_fail(STATUS_CONFIG,
                           "train.adversarial_rate=0 moves no weight, wanted more than 0 with "
                           "train.adversarial=awp");
    plan->average_from = plan->adversary_from = plan->steps;
    if (config->train.average != CONFIG_AVERAGE_NONE)
        TRY(first_step("train.average_start", config->train.average_start, plan,
                       &plan->average_from));
    if (config->train.adversarial != CONFIG_ADVERSARIAL_NONE)
        TRY(first_step("train.adversarial_start", config->train.adversarial_start, plan,
                       &plan->adversary_from));
    return STATUS_OK;
}

enum status trial_plan_make(const struct trial_opts *opts, int ranks, struct trial_plan *plan)
{
    const struct run_config *config = opts->config;
    struct sampler_opts sampling = {.rows = opts->train.rows,
                                    .count = opts->train.count,
                                    .batch_size = config->train.batch_size,
                                    .shuffle = config->data.shuffle,
                                    .seed = opts->seed};
    struct sampler *sampler;
    *plan = (struct trial_plan){0};
    if (opts->train.count == 0)
        return status_fail(STATUS_DATA, "there are no rows to train on");
    TRY(sampler_open(&sampling, &sampler));
    plan->steps_per_epoch = sampler_steps(sampler);
    plan->steps = count_steps(config, plan->steps_per_epoch);
    if (plan->steps == 0) {
        sampler_close(sampler);
        return status_fail(STATUS_CONFIG, "train.epochs=%g gives no step, wanted at least one",
                           config->train.epochs);
    }
    plan->warmup = config->schedule.warmup_steps >= 0
                       ? config->schedule.warmup_steps
                       : (int64_t)ceil(config->schedule.warmup_ratio * (double)plan->steps - 1e-9);
    struct rates rates; /* what is wrong with them should be known now */
    enum status st = plan_tricks(opts, plan);
    if (st == STATUS_OK) {
        st = rates_make(&rates, opts, plan);
        rates_release(&rates);
    }
    if (st != STATUS_OK) {
        sampler_close(sampler);
        return st;
    }
    for (int64_t i = 0; i < opts->train.count; i++)
        plan->cut_rows += dataset_is_cut(opts->train.ds, opts->train.rows[i]);
    st = walk(opts, sampler, ranks, plan);
    sampler_close(sampler);
    if (st != STATUS_OK)
        return st;
    for (int rank = 0; rank < ranks; rank++) {
        struct step_opts step_opts;
        step_options(opts, rank, ranks, &step_opts);
        int buffers = step_plan_buffers(&step_opts), first, leaves;
        plan_grains_of_rank(step_opts.leaves, rank, ranks, &first, &leaves);
        const int pieces = step_opts.split ? 1 : leaves; /* of a pass; no rank has more at once */
        plan->max_pieces = pieces > plan->max_pieces ? pieces : plan->max_pieces;
        plan->gradient_buffers = buffers > plan->gradient_buffers ? buffers
                                                                  : plan->gradient_buffers;
    }
    return plan_memory(opts, ranks, plan);
}

void trial_step_opts(const struct trial *trial, struct step_opts *out)
{
    step_options(trial->opts, comm_rank(trial->group), comm_size(trial->group), out);
}
