/*
 * cmd_check.c - check: what a run would do, before it is queued.
 *
 * Goes through everything that train does up to the first step: opens model, data and folds, plans
 * every trial with the planner that train uses, loads the weights. So what train would refuse is
 * refused here, with the same sentence. The estimated time comes from a forward pass that was
 * measured on the run's own rows, or is left out.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/threads.h"
#include "data/sampler.h"
#include "launcher/experiment.h"
#include "model/optimizer.h"
#include "worker/source.h"
#include "worker/units.h"

enum { CLASS_LINES = 50, PASSES = 2 };

/* One trial with its plan. */
struct planned {
    struct trial_id id;
    int setting; /* -1: not known before training */
    int64_t rows;
    struct trial_plan plan;
};

struct check {
    struct session *session;
    struct run *run;               /* of the setting whose trial is the largest */
    struct experiment *experiment; /* NULL: one trial, of `alone` */
    struct run alone;
    struct planned *trials;
    int count, largest;
    double padding; /* share of slots that padded batches of the largest trial's rows would waste;
                       its first epoch */
    int64_t per_epoch; /* tokens */
    double seconds;    /* of training, estimated; 0: not measured */
    bool head_drawn;
    struct str groups; /* of the optimizer */
};

/* ---- where prepared text goes ---- */

/*
 * data.cache, or a new folder below TMPDIR whose path goes into *temporary too. Rank 0 makes it; a
 * folder of one node's cannot serve text to others. Collective; *folder is owned.
 */
static enum status cache_folder(struct session *session, char **folder, bool *temporary)
{
    const struct run_config *config = &session->config;
    struct comm *world = session->world;
    const char *base = getenv("TMPDIR");
    int64_t n = 0;
    enum status st = STATUS_OK;
    *temporary = config->data.cache[0] == '\0';
    *folder = NULL;
    if (!*temporary)
        return comm_agree(world, mem_strdup(config->data.cache, folder));
    if (config->data.train[0] != '\0' && !source_is_prepared(config->data.train) &&
        comm_local_size(world) < comm_size(world))
        st = status_fail(
            STATUS_CONFIG,
            "data.train=%s is text and there are several nodes: give data.cache, a folder "
            "that all of them see",
            config->data.train);
    if (st == STATUS_OK && comm_rank(world) == 0) {
        st = path_join(base == NULL || base[0] == '\0' ? "/tmp" : base, "cohort-check-XXXXXX",
                       folder);
        if (st == STATUS_OK && mkdtemp(*folder) == NULL) {
            st = status_fail(
                STATUS_IO, "cannot make the folder %s for prepared text; give data.cache", *folder);
            mem_free(*folder);
            *folder = NULL;
        }
        n = *folder == NULL ? 0 : (int64_t)strlen(*folder) + 1;
    }
    TRY(comm_agree(world, st));
    return comm_broadcast_blob(world, folder, &n, 0);
}

/* ---- plans ---- */

static enum status plan_trial(struct check *check, const struct trial_id *id, int index)
{
    struct run *run = check->run;
    struct run_rows rows;
    struct trial_opts opts;
    struct planned *planned = &check->trials[check->count];
    struct str name = {0};
    comm_mark(-1, "check");
    TRY(run_rows_make(run, id, &rows));
    run_trial_opts(run, &rows, id, check->session->world, "", &opts);
    planned->id = *id;
    planned->setting = check->experiment == NULL ? 0 : check->experiment->open;
    planned->rows = rows.train_count;
    enum status st = trial_plan_make(&opts, run->group_ranks, &planned->plan);
    run_rows_free(&rows);
    if (st != STATUS_OK && check->experiment != NULL) {
        char *failure = NULL;
        if (mem_strdup(status_message(), &failure) == STATUS_OK &&
            experiment_say(check->experiment, index, planned->setting, &name) == STATUS_OK)
            st = status_fail(st, "%s: %s", name.p, failure);
        mem_free(failure);
        str_release(&name);
    }
    TRY(st);
    if (planned->plan.memory_bytes > check->trials[check->largest].plan.memory_bytes)
        check->largest = check->count;
    check->count++;
    return STATUS_OK;
}

/* The outer trials of nested folds have whichever setting is chosen: planned with the last one. */
static enum status plan_setting(struct check *check, int setting)
{
    struct experiment *e = check->experiment;
    bool last = setting == e->shape.settings - 1;
    for (int i = 0; i < e->trials; i++) {
        struct schedule_trial t;
        struct trial_id id;
        schedule_name(&e->shape, i, &t);
        if (t.setting != setting && !(t.setting < 0 && last))
            continue;
        experiment_trial(e, i, &id);
        TRY(plan_trial(check, &id, i));
    }
    return STATUS_OK;
}

/* Plan every trial; leaves the largest one's setting open. Collective. */
static enum status plan_all(struct check *check)
{
    static const struct trial_id only = {.repeat = 0, .fold = -1, .inner = -1};
    struct comm *world = check->session->world;
    struct experiment *e = check->experiment;
    size_t count = e == NULL ? 1 : (size_t)e->trials;
    TRY(comm_agree(world, mem_alloc(count, sizeof *check->trials, "the trials", &check->trials)));
    if (e == NULL)
        return comm_agree(world, plan_trial(check, &only, 0));
    for (int s = 0; s < e->shape.settings; s++) {
        TRY(experiment_use(e, world, s));
        TRY(comm_agree(world, plan_setting(check, s)));
    }
    return experiment_use(e, world, check->trials[check->largest].setting);
}

/* ---- the first epoch, batch by batch ---- */

struct first_rows {
    int64_t *units; /* of this rank's first pass; owned */
    int count;
    int64_t tokens;
};

/* This rank's share of the first batch, as far as one pass takes it. */
static enum status take_first(const struct check *check, const struct unit_list *units,
                              struct first_rows *first)
{
    const struct comm *world = check->session->world;
    const struct run *run = check->run;
    const struct trial_plan *plan = &check->trials[check->largest].plan;
    TRY(mem_alloc_raw((size_t)units->count, sizeof *first->units, "a pass's rows", &first->units));
    for (int64_t i = comm_rank(world) % run->group_ranks; i < units->count; i += run->group_ranks) {
        if (first->tokens + units->length[i] > plan->max_pass_tokens ||
            first->count >= plan->max_pass_rows)
            break;
        first->units[first->count++] = units->unit[i];
        first->tokens += units->length[i];
    }
    return STATUS_OK;
}

static enum status walk_epoch(struct check *check, struct first_rows *first)
{
    struct run *run = check->run;
    struct run_rows rows;
    struct trial_opts opts;
    struct sampler *sampler = NULL;
    struct unit_list units = {0};
    const struct row_source source = row_source_dataset(run->train.ds);
    int64_t slots = 0;
    const struct trial_id *id = &check->trials[check->largest].id;
    enum status st = STATUS_OK;
    TRY(run_rows_make(run, id, &rows));
    run_trial_opts(run, &rows, id, check->session->world, "", &opts);
    struct sampler_opts sampling = {.rows = rows.train,
                                    .count = rows.train_count,
                                    .batch_size = run->config->train.batch_size,
                                    .shuffle = run->config->data.shuffle,
                                    .seed = opts.seed};
    TRY_GOTO(done, sampler_open(&sampling, &sampler));
    for (int64_t s = 0; s < sampler_steps(sampler); s++) {
        const int64_t *batch;
        int count;
        TRY_GOTO(done, sampler_next(sampler, 0, s, &batch, &count));
        TRY_GOTO(done, units_of_rows(&source, batch, count, &units));
        if (s == 0)
            TRY_GOTO(done, take_first(check, &units, first));
        check->per_epoch += units.tokens;
        slots += units.longest * units.count;
    }
    check->padding = slots == 0 ? 0.0 : 1.0 - (double)check->per_epoch / (double)slots;
done:
    units_release(&units);
    sampler_close(sampler);
    run_rows_free(&rows);
    return st;
}

/* ---- sums between ranks ---- */

/* Open what would carry the sums and close it again: a library that is missing, ranks that share a
 * GPU, a network that NCCL does not get through are found here. Collective. */
static enum status try_transport(const struct check *check)
{
    struct comm *world = check->session->world, *group = NULL;
    TRY(comm_group(world, check->run->group_ranks, &group));
    enum status st = comm_agree(world, session_transport(check->session, group));
    comm_group_free(group);
    return st;
}

/* ---- a forward pass ---- */

static enum status describe_groups(struct check *check, const struct model *model)
{
    struct optimizer_opts opts = {.params = model_params(model)};
    trial_rates(check->run->config, &opts);
    return optimizer_describe(model_params(model), &opts, &check->groups);
}

/* Seconds of this rank's first pass, the last of two: the first one also fills caches and makes
 * products. */
static enum status time_pass(struct check *check, struct model *model,
                             const struct first_rows *first, double *seconds)
{
    struct batch batch = {0};
    float *logits = NULL;
    enum status st = STATUS_OK;
    *seconds = 0.0;
    if (first->count == 0)
        return STATUS_OK;
    TRY_GOTO(done, mem_alloc((size_t)first->count * (size_t)check->run->task.outputs,
                             sizeof *logits, "logits", &logits));
    TRY_GOTO(done, dataset_read(check->run->train.ds, first->units, first->count, &batch));
    struct model_input input = {.tokens = batch.tokens,
                                .rows = batch.rows,
                                .max_row = batch.max_row,
                                .ids = batch.ids,
                                .types = batch.types,
                                .begin = batch.begin,
                                .row = batch.row,
                                .chunk = batch.chunk};
    for (int i = 0; i < PASSES; i++) {
        double started = clock_s();
        TRY_GOTO(done, model_forward(model, &input, false, 0, logits));
        *seconds = clock_s() - started;
    }
done:
    batch_release(&batch);
    mem_free(logits);
    return st;
}

static enum status load_model(struct check *check, const struct first_rows *first,
                              struct model **model)
{
    const struct run *run = check->run;
    struct session *session = check->session;
    struct load_report report = {0};
    struct model_opts opts = {
        .encoder = run->source.encoder,
        .head = {.pooling = run->pooling, .outputs = run->task.outputs, .dropout = -1.0f},
        .precision = session->precision,
        .max_tokens = first->tokens > 0 ? first->tokens : 1,
        .max_rows = first->count > 0 ? first->count : 1,
        .dropout = (float)run->config->model.dropout,
        .device = session->device,
        .kernels = session->kernels,
    };
    TRY(model_create(&opts, model));
    check->head_drawn = true;
    if (run->config->model.from_scratch)
        return model_init(*model, 0, model_params(*model)->count, (uint64_t)run->config->seed);
    TRY(model_load(*model, run->source.path, run->task.head_from_model,
                   run->config->model.resize_embeddings, (uint64_t)run->config->seed, &report));
    check->head_drawn = report.head_drawn;
    return STATUS_OK;
}

/* Tokens of adversarial steps, which are run twice. */
static int64_t tokens_again(const struct trial_plan *plan)
{
    const double share = (double)(plan->steps - plan->adversary_from) / (double)plan->steps;
    return (int64_t)((double)plan->tokens * share);
}

/* Load the weights, describe the optimizer's groups, and measure. Collective. */
static enum status measure(struct check *check, const struct first_rows *first)
{
    struct comm *world = check->session->world;
    const struct run *run = check->run;
    struct model *model = NULL;
    double pass = 0.0;
    int groups = (comm_size(world) + run->group_ranks - 1) / run->group_ranks;
    int rounds = (check->count + groups - 1) / groups; /* groups work side by side */
    int64_t tokens = 0;
    enum status st = load_model(check, first, &model);
    if (st == STATUS_OK)
        st = describe_groups(check, model);
    TRY_GOTO(done, comm_agree(world, st)); /* all ranks compute at the same time, as they will */
    comm_mark(-1, "check");
    TRY_GOTO(done, comm_agree(world, time_pass(check, model, first, &pass)));
    double a_token = first->tokens == 0 ? 0.0 : pass / (double)first->tokens;
    TRY_GOTO(done, comm_max_double(world, &a_token, 1));
    for (int i = 0; i < check->count; i++)
        tokens += check->trials[i].plan.tokens + tokens_again(&check->trials[i].plan);
    check->seconds = 3.0 * a_token * (double)tokens / check->count * rounds / run->group_ranks;
done:
    model_destroy(model);
    return st;
}

/* ---- the report ---- */

static enum status add_classes(const struct run *run, struct str *out)
{
    const struct task_spec *task = &run->task;
    int64_t *count;
    if (task->task == TASK_REGRESSION)
        return str_addf(out, "task          regression\n");
    TRY(mem_alloc((size_t)task->classes, sizeof *count, "label counts", &count));
    for (int64_t i = 0; i < run->train.info.rows; i++) {
        if (run->train.targets.label != NULL) {
            count[run->train.targets.label[i]]++;
            continue;
        }
        for (int c = 0; c < task->classes; c++)
            count[c] += run->train.targets.value[i * task->outputs + c] > 0.5f;
    }
    enum status st = str_addf(out, "task          %s, %d labels\n",
                              task->task == TASK_CLASSES ? "classes" : "multi_label",
                              task->classes);
    for (int c = 0; c < task->classes && c < CLASS_LINES && st == STATUS_OK; c++)
        st = str_addf(out, "  %8lld  %s\n", (long long)count[c], task->labels[c]);
    if (st == STATUS_OK && task->classes > CLASS_LINES)
        st = str_addf(out, "  ... and %d more\n", task->classes - CLASS_LINES);
    mem_free(count);
    return st;
}

static enum status add_rows(const struct run_data *data, const char *name, int max_length,
                            struct str *out)
{
    int64_t cut = 0, rows = data->info.rows;
    struct chunk_tally tally = {0};
    if (dataset_chunks(data->ds)->size > 0) {
        for (int64_t i = 0; i < rows; i++)
            dataset_tally(data->ds, i, &tally);
        return str_addf(out,
                        "%-13s %lld rows, %lld split into %lld chunks, the longest into %lld; of "
                        "%lld tokens %lld in none, %lld read twice\n",
                        name, (long long)rows, (long long)tally.split,
                        (long long)(tally.chunks - (tally.texts - tally.split)),
                        (long long)tally.most, (long long)tally.tokens, (long long)tally.lost,
                        (long long)tally.repeated);
    }
    for (int64_t i = 0; i < rows; i++)
        cut += dataset_is_cut(data->ds, i);
    return str_addf(out, "%-13s %lld rows, %lld (%.2f %%) cut to %d tokens\n", name,
                    (long long)rows, (long long)cut,
                    rows == 0 ? 0.0 : 100.0 * (double)cut / (double)rows, max_length);
}

static enum status add_machine(const struct check *check, struct str *out)
{
    const struct session *session = check->session;
    const struct run *run = check->run;
    int ranks = comm_size(session->world);
    TRY(str_addf(out, "device        %s, %s, %s, %d thread%s a rank\n",
                 device_name(session->device), session->kernels->name,
                 precision_name(session->precision), threads_count(),
                 threads_count() == 1 ? "" : "s"));
    return str_addf(out, "ranks         %d, %d a trial, %d on this node\n", ranks, run->group_ranks,
                    comm_local_size(session->world));
}

static enum status add_steps(const struct check *check, struct str *out)
{
    const struct planned *planned = &check->trials[check->largest];
    const struct trial_plan *plan = &planned->plan;
    const struct run_config *config = check->run->config;
    if (planned->id.fold >= 0)
        TRY(str_addf(out, "largest fold  %d\n", planned->id.fold));
    TRY(str_addf(out,
                 "training      %lld rows in batches of %lld: %lld steps an epoch, %lld steps, "
                 "%lld of them warm-up\n",
                 (long long)planned->rows, (long long)config->train.batch_size,
                 (long long)plan->steps_per_epoch, (long long)plan->steps,
                 (long long)plan->warmup));
    TRY(str_addf(out, "passes        of at most %lld tokens and %d rows\n",
                 (long long)plan->max_pass_tokens, plan->max_pass_rows));
    return str_addf(out,
                    "tokens        %lld an epoch, %lld in all; padded batches would waste %.1f %% "
                    "of their slots\n",
                    (long long)check->per_epoch, (long long)plan->tokens, 100.0 * check->padding);
}

/* What is not done in every run, and from which step on. */
static enum status add_tricks(const struct check *check, struct str *out)
{
    const struct trial_plan *plan = &check->trials[check->largest].plan;
    const struct run_config *config = check->run->config;
    if (config->train.average != CONFIG_AVERAGE_NONE)
        TRY(str_addf(out, "mean          %s of the weights after steps %lld to %lld\n",
                     config->train.average == CONFIG_AVERAGE_EMA ? "exponential" : "equal",
                     (long long)plan->average_from + 1, (long long)plan->steps));
    if (config->train.adversarial != CONFIG_ADVERSARIAL_NONE)
        TRY(str_addf(out, "adversarial   %s in steps %lld to %lld, which are run twice\n",
                     config->train.adversarial == CONFIG_ADVERSARIAL_FGM ? "fgm" : "awp",
                     (long long)plan->adversary_from + 1, (long long)plan->steps));
    return STATUS_OK;
}

static enum status add_memory(const struct check *check, struct str *out)
{
    const struct trial_plan *plan = &check->trials[check->largest].plan;
    const struct model_memory *m = &plan->memory;
    double gb = check->run->config->train.memory_limit_gb;
    double limit = gb > 0.0 ? gb * 1e9 : (double)device_memory_bytes(check->session->device);
    int local = comm_local_size(check->session->world);
    TRY(str_addf(out,
                 "memory        %.2f GB a rank: weights %.2f, gradients %.2f (%d buffer%s), "
                 "activations %.2f%s, "
                 "workspace %.2f, optimizer and messages %.2f\n",
                 (double)plan->memory_bytes / 1e9, (double)m->weights / 1e9,
                 (double)m->gradients / 1e9, plan->gradient_buffers,
                 plan->gradient_buffers == 1 ? "" : "s", (double)m->activations / 1e9,
                 plan->recompute ? " (recomputed)" : "", (double)m->workspace / 1e9,
                 (double)(plan->memory_bytes - m->total) / 1e9));
    return str_addf(out, "              %.2f GB for %d rank%s on this node, which has %.2f GB%s\n",
                    (double)plan->memory_bytes * local / 1e9, local, local == 1 ? "" : "s",
                    limit / 1e9, gb > 0.0 ? " (train.memory_limit_gb)" : "");
}

static enum status add_trials(const struct check *check, struct str *out)
{
    const struct experiment *e = check->experiment;
    if (e == NULL)
        return STATUS_OK;
    TRY(str_addf(out, "trials        %d: %d setting%s, %d repeat%s, %d fold%s", e->trials,
                 e->shape.settings, e->shape.settings == 1 ? "" : "s", e->shape.repeats,
                 e->shape.repeats == 1 ? "" : "s", e->run.folds > 0 ? e->shape.folds : 0,
                 e->shape.folds == 1 && e->run.folds > 0 ? "" : "s"));
    if (e->shape.inner_folds > 0)
        TRY(str_addf(out, ", each with %d inner folds", e->shape.inner_folds));
    TRY(str_addf(out, "; %d side by side\n", e->groups));
    for (int s = 0; s < e->shape.settings && e->shape.settings > 1; s++)
        TRY(str_addf(out, "  setting %-3d %s\n", s, e->label[s]));
    for (int i = 0; i < check->count; i++) {
        const struct planned *planned = &check->trials[i];
        if (planned->setting != check->trials[check->largest].setting || planned->id.repeat > 0 ||
            planned->id.inner >= 0 || planned->id.fold < 0)
            continue;
        TRY(str_addf(out, "  fold %-3d    trains on %lld rows, %lld steps, %.2f GB a rank%s\n",
                     planned->id.fold, (long long)planned->rows, (long long)planned->plan.steps,
                     (double)planned->plan.memory_bytes / 1e9,
                     i == check->largest ? ", the largest" : ""));
    }
    return STATUS_OK;
}

static enum status add_model(const struct check *check, struct str *out)
{
    const struct encoder_config *e = &check->run->source.encoder;
    return str_addf(out, "model         %s: %s, %d layers, hidden %d, heads %d; pooling %s; %s\n",
                    check->run->source.path, e->model_type, e->layers, e->hidden, e->heads,
                    pooling_name(check->run->pooling),
                    check->run->config->model.from_scratch ? "all weights drawn from seed"
                    : check->head_drawn                    ? "weights loaded, head drawn from seed"
                                                           : "weights and head loaded");
}

static enum status print_report(const struct check *check)
{
    const struct run *run = check->run;
    struct str out = {0};
    enum status st = STATUS_OK;
    TRY_GOTO(done, add_machine(check, &out));
    TRY_GOTO(done, add_model(check, &out));
    TRY_GOTO(done, add_rows(&run->train, "data.train", run->max_length, &out));
    if (run->eval.ds != NULL)
        TRY_GOTO(done, add_rows(&run->eval, "data.eval", run->max_length, &out));
    TRY_GOTO(done, add_classes(run, &out));
    if (run->fold_table != NULL)
        TRY_GOTO(done,
                 str_addf(&out, "%s\n%s", run->folds > 0 ? "folds" : "held out", run->fold_table));
    if (run->leaks_text != NULL)
        TRY_GOTO(done, str_addf(&out, "%s\n", run->leaks_text));
    TRY_GOTO(done, add_trials(check, &out));
    TRY_GOTO(done, add_steps(check, &out));
    TRY_GOTO(done, add_tricks(check, &out));
    TRY_GOTO(done, add_memory(check, &out));
    TRY_GOTO(done, str_addf(&out, "optimizer     %s\n%s",
                            optimizer_name((enum optimizer_kind)run->config->optim.name),
                            check->groups.p));
    if (check->seconds > 0.0)
        TRY_GOTO(done,
                 str_addf(&out,
                          "training time about %.3g minutes, from a measured forward pass x 3\n",
                          check->seconds / 60.0));
    if (run->config->out[0] == '\0')
        TRY_GOTO(done, str_addf(&out, "out is not given: train will ask for it\n"));
    st = session_write("-", out.p, out.n);
done:
    str_release(&out);
    return st;
}

/* Open the run, or all settings of an experiment. Collective. */
static enum status open_run(struct check *check, const char *cache, bool *finished)
{
    struct session *session = check->session;
    struct comm *world = session->world;
    bool several = experiment_wanted(&session->config);
    enum status st = STATUS_OK;
    if (several) {
        TRY(comm_agree(
            world, mem_alloc(1, sizeof *check->experiment, "the experiment", &check->experiment)));
        check->run = &check->experiment->run;
        st = experiment_open(session, cache, check->experiment);
        if (st != STATUS_OK) {
            mem_free(check->experiment);
            check->experiment = NULL;
            check->run = NULL;
            return st;
        }
    } else {
        TRY(run_open(session, world, &session->config, cache, &check->alone));
        check->run = &check->alone;
    }
    if (comm_rank(world) == 0 && session->config.out[0] != '\0')
        st = run_folder_look(check->run, "run",
                             several ? &check->experiment->resolved : &check->run->resolved,
                             several, finished);
    return comm_agree(world, st);
}

static void close_run(struct check *check)
{
    if (check->experiment != NULL)
        experiment_close(check->experiment);
    else if (check->run != NULL)
        run_close(check->run);
    mem_free(check->experiment);
}

enum status command_check(struct session *session)
{
    struct comm *world = session->world;
    struct check check = {.session = session};
    struct first_rows first = {0};
    char *cache = NULL;
    bool temporary = false, finished = false;
    enum status st = STATUS_OK;
    TRY(session_compute(session));
    TRY(comm_watchdog_start(world, session->config.parallel.watchdog_s, NULL));
    TRY_GOTO(done, cache_folder(session, &cache, &temporary));
    TRY_GOTO(done, open_run(&check, cache, &finished));
    TRY_GOTO(done, try_transport(&check));
    TRY_GOTO(done, plan_all(&check));
    TRY_GOTO(done, comm_agree(world, walk_epoch(&check, &first)));
    TRY_GOTO(done, measure(&check, &first));
    st = comm_agree(world, comm_rank(world) == 0 ? print_report(&check) : STATUS_OK);
done:
    str_release(&check.groups);
    mem_free(first.units);
    mem_free(check.trials);
    close_run(&check);
    if (temporary && cache != NULL && comm_rank(world) == 0 && folder_remove(cache) != STATUS_OK)
        log_warning("%s is left over", cache);
    mem_free(cache);
    return st;
}
