/*
 * cmd_train.c - train: one trial, or the many of an experiment; and the files of the run.
 *
 * A run's folder is its memory: run.cfg says what was asked, result.json in a trial's folder that
 * it is finished, checkpoints where it stands, results.json that all is done. So the same command,
 * given again, goes on from wherever it was.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/threads.h"
#include "ckpt/checkpoint.h"
#include "launcher/config.h"
#include "launcher/experiment.h"
#include "launcher/report_write.h"
#include "worker/evaluate.h"
#include "worker/scoring.h"

static enum status run_path(const struct run_config *config, const char *name, char **out)
{
    return path_join(config->out, name, out);
}

/* ---- what is written at the start ---- */

static json_t *manifest_of(const struct run *run, uint64_t identity)
{
    static const char *const modes[] = {"fixed", "any", "off"};
    const struct run_config *config = run->config;
    const struct session *session = run->session;
    uint64_t binary = 0;
    int64_t bytes;
    if (hash_file("/proc/self/exe", &binary, &bytes) != STATUS_OK)
        log_warning("%s", status_message());
    json_t *out =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:{s:s, s:s, s:s, s:s, s:i}}",
                  "format", "cohort-run", "version", COHORT_VERSION, "configuration",
                  json_hex64(identity), "data", json_hex64(run->train.info.content_hash),
                  "eval_data", json_hex64(run->eval.ds == NULL ? 0 : run->eval.info.content_hash),
                  "model", json_hex64(run->model_hash), "tokenizer",
                  json_hex64(run->source.tokenizer_info.hash), "binary", json_hex64(binary),
                  "ranks", comm_size(session->world), "group_ranks", run->group_ranks, "domain",
                  "backend", session->kernels->name, "device", device_domain(session->device),
                  "precision", precision_name(session->precision), "reproducible",
                  modes[config->parallel.reproducible], "grains", (int)config->parallel.grains);
    return out;
}

static enum status write_start(const struct run *run, const struct run_config *asked,
                               uint64_t identity)
{
    struct str text = {0};
    char *cfg = NULL, *path = NULL;
    json_t *manifest = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, folder_make(run->config->out));
    TRY_GOTO(done, run_path(run->config, "run.cfg", &cfg));
    TRY_GOTO(done, run_path(run->config, "manifest.json", &path));
    TRY_GOTO(done, config_text(asked, &text));
    TRY_GOTO(done, file_write_atomic(cfg, text.p, text.n));
    manifest = manifest_of(run, identity);
    st = manifest == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                          : json_write_file(path, manifest);
done:
    str_release(&text);
    json_decref(manifest);
    mem_free(cfg);
    mem_free(path);
    return st;
}

/*
 * Look at what the folder holds, and take it: run.cfg, manifest, the token of run.lock for all
 * ranks. asked: what run.cfg says; identity: of all of it. *finished: there is nothing to do.
 * Collective.
 */
static enum status begin(struct run *run, const struct run_config *asked, uint64_t identity,
                         bool several, bool *finished)
{
    struct comm *world = run->session->world;
    const char *out = run->config->out;
    int64_t done_before;
    enum status st = STATUS_OK;
    TRY(comm_check_same(world, identity, "the configuration and data"));
    if (comm_rank(world) == 0)
        st = run_folder_look(run, "run", asked, several, finished);
    if (st == STATUS_OK && comm_rank(world) == 0 && run->config->overwrite) {
        log_info("overwrite=true: removing what a run left in %s", out);
        st = run_folder_remove(out);
    }
    TRY(comm_agree(world, st));
    done_before = *finished;
    TRY(comm_broadcast(world, &done_before, sizeof done_before, 0));
    *finished = done_before;
    if (*finished) {
        log_info("the run in %s is finished; its results are in results.json", out);
        return STATUS_OK;
    }
    if (comm_rank(world) == 0 && run->leaks_text != NULL)
        log_line(leaks_any(&run->leaks) ? LOG_WARNING : LOG_INFO, "%s", run->leaks_text);
    if (comm_rank(world) == 0) {
        st = write_start(run, asked, identity);
        if (st == STATUS_OK)
            st = checkpoint_fence(out, run->fence);
    }
    TRY(comm_agree(world, st));
    return comm_broadcast(world, run->fence, sizeof run->fence,
                          0); /* leaders of other groups commit, too */
}

/* ---- results.json ---- */

static json_t *train_part(const struct run *run, int64_t steps, int64_t tokens, double seconds,
                          int64_t peak)
{
    return json_pack("{s:I, s:I, s:f, s:f, s:i, s:i, s:s, s:f}", "steps", (json_int_t)steps,
                     "tokens", (json_int_t)tokens, "seconds", seconds, "tokens_per_s",
                     seconds > 0.0 ? (double)tokens / seconds : 0.0, "ranks",
                     comm_size(run->session->world), "threads", threads_count(), "precision",
                     precision_name(run->session->precision), "peak_memory_mb", (double)peak / 1e6);
}

/* What log.parts measured, and what was replayed on a GPU. */
static void add_times(const struct trial_result *result, json_t *train)
{
    if (result->timed_steps > 0) {
        json_t *parts = json_object();
        for (int i = 0; i < TRIAL_PARTS; i++)
            (void)json_object_set_new(
                parts, trial_part_name((enum trial_part)i),
                json_real(result->part_s[i] * 1e3 / (double)result->timed_steps));
        (void)json_object_set_new(train, "parts_ms", parts);
    }
    if (result->stretches > 0)
        (void)json_object_set_new(train, "graphs",
                                  json_pack("{s:I, s:I}", "replayed", (json_int_t)result->replayed,
                                            "all", (json_int_t)result->stretches));
}

/* Collective: the largest peak memory of all ranks. */
static enum status peak_memory(struct comm *world, int64_t *bytes)
{
    double peak = (double)mem_peak_bytes();
    TRY(comm_max_double(world, &peak, 1));
    *bytes = (int64_t)peak;
    return STATUS_OK;
}

static enum status write_results(const struct run *run, json_t *results)
{
    char *path;
    if (run->leaks_text != NULL)
        (void)json_object_set_new(results, "duplicates", leaks_json(&run->leaks));
    TRY(run_path(run->config, "results.json", &path));
    enum status st = json_write_file(path, results);
    if (st == STATUS_OK) {
        log_info("results: %s", path);
        report_after_training(run->config->out);
    }
    mem_free(path);
    return st;
}

/* ---- one trial ---- */

static enum status describe_scores(const struct run *run, const struct trial_opts *opts,
                                   const struct trial_result *result, json_t *out)
{
    struct scored scored = {0};
    struct metric_values values = {0};
    enum status st = task_scored(&run->task, opts->score.targets, opts->score.rows,
                                 opts->score.count, result->logits, &scored);
    if (st == STATUS_OK)
        st = metrics_compute(&scored, &values);
    if (st == STATUS_OK) {
        json_t *described = evaluation_json(&run->task, &values, opts->score.count);
        if (described == NULL || json_object_update(out, described) != 0)
            st = status_fail(STATUS_NOMEM, "no memory for results.json");
        json_decref(described);
        double score = values.value[run->task.metric];
        if (isnan(score))
            log_info("%s on %lld rows, weights of step %lld: undefined",
                     metric_name(run->task.metric), (long long)opts->score.count,
                     (long long)result->best_step);
        else
            log_info("%s on %lld rows, weights of step %lld: %.4f", metric_name(run->task.metric),
                     (long long)opts->score.count, (long long)result->best_step, score);
    }
    metrics_release(&values);
    task_scored_release(&scored);
    return st;
}

/* Collective: data.test with the published weights. */
static enum status score_test(struct run *run, json_t *results)
{
    struct model *model = NULL;
    char *folder = NULL;
    json_t *outcome = NULL;
    const struct run_config *config = run->config;
    struct session *session = run->session;
    struct model_opts opts = {
        .encoder = run->source.encoder,
        .head = {.pooling = run->pooling, .outputs = run->task.outputs, .dropout = -1.0f},
        .precision = session->precision,
        .max_tokens = score_tokens(config, run->max_length),
        .max_rows = SCORE_ROWS,
        .dropout = 0.0f,
        .device = session->device,
        .kernels = session->kernels,
    };
    enum status st = run_path(config, "best", &folder);
    if (st == STATUS_OK)
        st = model_create(&opts, &model);
    if (st == STATUS_OK)
        st = model_load_trained(model, folder);
    TRY_GOTO(done, comm_agree(session->world, st));
    struct predict_opts predict = {.config = config,
                                   .comm = session->world,
                                   .source = &run->source,
                                   .task = &run->task,
                                   .model = model,
                                   .max_length = run->max_length,
                                   .chunks = &run->chunks};
    struct row_source source = row_source_dataset(run->test.ds);
    TRY_GOTO(done, evaluate_rows(&predict, &source, &run->test.targets, &outcome));
    if (comm_rank(session->world) == 0) {
        const json_t *score = json_object_get(outcome, "score");
        if (json_is_number(score))
            log_info("%s on the %lld rows of data.test: %.4f", metric_name(run->task.metric),
                     (long long)run->test.info.rows, json_number_value(score));
        else
            log_info("%s on data.test: undefined", metric_name(run->task.metric));
        if (json_object_set(results, "test", outcome) != 0)
            st = status_fail(STATUS_NOMEM, "no memory for results.json");
    }
    st = comm_agree(session->world, st);
done:
    json_decref(outcome);
    model_destroy(model);
    mem_free(folder);
    return st;
}

static enum status train_once(struct run *run)
{
    static const struct trial_id only = {.repeat = 0, .fold = -1, .inner = -1};
    struct comm *world = run->session->world;
    struct run_rows rows = {0};
    struct trial_opts opts;
    struct trial_result result = {0};
    json_t *results = task_json(&run->task);
    struct comm *group = NULL; /* of all ranks: what sums need is freed with it */
    int64_t peak = 0;
    enum status st = run_rows_make(run, &only, &rows);
    if (st == STATUS_OK) /* a hold-out's rows do not count */
        st = task_weigh_classes(&run->task, run->config->train.class_weights, &run->train.targets,
                                rows.train, rows.train_count);
    TRY_GOTO(done, comm_agree(world, st));
    TRY_GOTO(done, comm_group(world, comm_size(world), &group));
    TRY_GOTO(done, comm_agree(world, session_transport(run->session, group)));
    run_trial_opts(run, &rows, &only, group, run->config->out, &opts);
    TRY_GOTO(done, trial_run(&opts, &result));
    TRY_GOTO(done, peak_memory(world, &peak));
    if (comm_rank(world) == 0 && result.logits != NULL)
        st = describe_scores(run, &opts, &result, results);
    if (st == STATUS_OK && comm_rank(world) == 0 && result.logits != NULL)
        st = eval_scores_write(run, &opts.score, result.logits);
    TRY_GOTO(done, comm_agree(world, st));
    if (run->test.ds != NULL)
        TRY_GOTO(done, score_test(run, results));
    if (comm_rank(world) == 0) {
        (void)json_object_set_new(results, "best_step", json_integer(result.best_step));
        json_t *train = train_part(run, result.steps, result.tokens, result.seconds, peak);
        add_times(&result, train);
        (void)json_object_set_new(results, "train", train);
        log_info("%lld steps, %lld tokens in %.1f s: %.0f tokens/s; peak memory %.0f MB a rank",
                 (long long)result.steps, (long long)result.tokens, result.seconds,
                 result.seconds > 0.0 ? (double)result.tokens / result.seconds : 0.0,
                 (double)peak / 1e6);
        st = write_results(run, results);
    }
    st = comm_agree(world, st);
done:
    comm_group_free(group);
    json_decref(results);
    trial_result_release(&result);
    run_rows_free(&rows);
    return st;
}

static enum status train_one(struct session *session, const char *cache)
{
    struct run run;
    bool finished = false;
    TRY(run_open(session, session->world, &session->config, cache, &run));
    trial_catch_signals(); /* not before: preparing has nothing to save */
    enum status st = begin(&run, &run.resolved, run.identity, false, &finished);
    if (st == STATUS_OK && !finished)
        st = train_once(&run);
    run_close(&run);
    return st;
}

/* ---- many trials ---- */

/* Collective. Whatever the trials came to, what is finished of them is described. */
static enum status train_trials(struct experiment *e)
{
    struct comm *world = e->session->world;
    struct experiment_end end = {0};
    json_t *results = json_object();
    char *failure = NULL;
    int64_t peak = 0;
    enum status st = experiment_run(e, &end);
    if (st == STATUS_OK && end.status != STATUS_OK)
        st = mem_strdup(status_message(), &failure);
    TRY_GOTO(done, comm_agree(world, st));
    if (end.status == STATUS_REQUEUE) /* there is little time */
        goto done;
    TRY_GOTO(done, experiment_results(e, &end, results));
    TRY_GOTO(done, peak_memory(world, &peak));
    if (e->run.folds == 0 && e->run.test.ds != NULL && end.status == STATUS_OK)
        TRY_GOTO(done, score_test(&e->run, results));
    if (comm_rank(world) == 0) {
        json_t *train = json_object_get(results, "train");
        int64_t steps = json_integer_value(json_object_get(train, "steps"));
        int64_t tokens = json_integer_value(json_object_get(train, "tokens"));
        double seconds = json_number_value(json_object_get(train, "seconds"));
        (void)json_object_set_new(results, "train",
                                  train_part(&e->run, steps, tokens, seconds, peak));
        st = write_results(&e->run, results);
    }
    st = comm_agree(world, st);
done:
    if (st == STATUS_OK && end.status != STATUS_OK)
        st = status_fail(end.status, "%s", failure);
    experiment_end_release(e, &end);
    json_decref(results);
    mem_free(failure);
    return st;
}

static enum status train_many(struct session *session, const char *cache)
{
    struct experiment *e;
    bool finished = false;
    TRY(comm_agree(session->world, mem_alloc(1, sizeof *e, "the experiment", &e)));
    enum status st = experiment_open(session, cache, e);
    if (st == STATUS_OK) {
        trial_catch_signals();
        st = begin(&e->run, &e->resolved, e->all, true, &finished);
        if (st == STATUS_OK)
            st = train_trials(e);
        experiment_close(e);
    }
    mem_free(e);
    return st;
}

enum status command_train(struct session *session)
{
    const struct run_config *config = &session->config;
    struct comm *world = session->world;
    char *cache = NULL;
    enum status st = STATUS_OK;
    TRY(session_need("out", config->out, "the folder of the run"));
    TRY(session_compute(session));
    if (config->data.cache[0] != '\0')
        st = mem_strdup(config->data.cache, &cache);
    else
        st = run_path(config, "data", &cache);
    TRY_GOTO(out, comm_agree(world, st));
    TRY_GOTO(out, comm_watchdog_start(world, config->parallel.watchdog_s, NULL));
    st = experiment_wanted(config) ? train_many(session, cache) : train_one(session, cache);
out:
    mem_free(cache);
    return st;
}
