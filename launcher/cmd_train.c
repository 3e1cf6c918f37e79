/*
 * cmd_train.c - train: one trial, or the folds of a cross-validation dealt to rank groups; and the
 * files of the run.
 *
 * A run's folder is its memory: run.cfg says what was asked, fold-<k>/result.json which folds are
 * finished, checkpoints where a trial stands, results.json that all is done. So the same command,
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
#include "launcher/run.h"
#include "worker/evaluate.h"
#include "worker/scoring.h"

static enum status run_path(const struct run_config *config, const char *name, char **out)
{
    return path_join(config->out, name, out);
}

/* ---- what is written at the start ---- */

static json_t *manifest_of(const struct run *run)
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
                  json_hex64(run->identity), "data", json_hex64(run->train.info.content_hash),
                  "eval_data", json_hex64(run->eval.ds == NULL ? 0 : run->eval.info.content_hash),
                  "model", json_hex64(run->model_hash), "tokenizer",
                  json_hex64(run->source.tokenizer_info.hash), "binary", json_hex64(binary),
                  "ranks", comm_size(session->world), "group_ranks", run->group_ranks, "domain",
                  "backend", session->kernels->name, "device", device_domain(session->device),
                  "precision", precision_name(session->precision), "reproducible",
                  modes[config->parallel.reproducible], "grains", (int)config->parallel.grains);
    return out;
}

static enum status write_start(const struct run *run)
{
    struct str text = {0};
    char *cfg = NULL, *path = NULL;
    json_t *manifest = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, folder_make(run->config->out));
    TRY_GOTO(done, run_path(run->config, "run.cfg", &cfg));
    TRY_GOTO(done, run_path(run->config, "manifest.json", &path));
    TRY_GOTO(done, config_text(&run->resolved, &text));
    TRY_GOTO(done, file_write_atomic(cfg, text.p, text.n));
    manifest = manifest_of(run);
    st = manifest == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                          : json_write_file(path, manifest);
done:
    str_release(&text);
    json_decref(manifest);
    mem_free(cfg);
    mem_free(path);
    return st;
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
    TRY(run_path(run->config, "results.json", &path));
    enum status st = json_write_file(path, results);
    if (st == STATUS_OK)
        log_info("results: %s", path);
    mem_free(path);
    return st;
}

/* ---- without cross-validation ---- */

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
    struct load_report report;
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
        st = model_load(model, folder, true, false, 0, &report);
    TRY_GOTO(done, comm_agree(session->world, st));
    struct predict_opts predict = {.config = config,
                                   .comm = session->world,
                                   .source = &run->source,
                                   .task = &run->task,
                                   .model = model,
                                   .max_length = run->max_length};
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
    struct comm *world = run->session->world;
    struct run_rows rows = {0};
    struct trial_opts opts;
    struct trial_result result = {0};
    json_t *results = task_json(&run->task);
    struct comm *group = NULL; /* of all ranks: what sums need is freed with it */
    int64_t peak = 0;
    enum status st = run_rows_make(run, -1, &rows);
    if (st == STATUS_OK) /* a hold-out's rows do not count */
        st = task_weigh_classes(&run->task, run->config->train.class_weights, &run->train.targets,
                                rows.train, rows.train_count);
    TRY_GOTO(done, comm_agree(world, st));
    TRY_GOTO(done, comm_group(world, comm_size(world), &group));
    TRY_GOTO(done, comm_agree(world, session_transport(run->session, group)));
    run_trial_opts(run, &rows, -1, group, run->config->out, &opts);
    TRY_GOTO(done, trial_run(&opts, &result));
    TRY_GOTO(done, peak_memory(world, &peak));
    if (comm_rank(world) == 0 && result.logits != NULL)
        st = describe_scores(run, &opts, &result, results);
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

/* ---- cross-validation ---- */

static enum status fold_folder(const struct run *run, int fold, char **out)
{
    char name[32];
    (void)snprintf(name, sizeof name, "fold-%d", fold);
    return run_path(run->config, name, out);
}

/* Collective on the group. */
static enum status train_fold(struct run *run, struct comm *group, int fold)
{
    struct run_rows rows = {0};
    struct trial_opts opts;
    struct trial_result result = {0};
    struct fold_outcome earlier = {0};
    bool leader = comm_rank(group) == 0, finished = false;
    int64_t done_before = 0;
    char *folder = NULL;
    enum status st = fold_folder(run, fold, &folder);
    if (st == STATUS_OK && leader)
        st = fold_load(run, fold, folder, &earlier, &finished);
    TRY_GOTO(done, comm_agree(group, st));
    done_before = finished;
    TRY_GOTO(done, comm_broadcast(group, &done_before, sizeof done_before, 0));
    if (done_before) {
        log_info("fold %d is finished already", fold);
        goto done;
    }
    log_info("========== fold: %d training ==========", fold);
    st = run_rows_make(run, fold, &rows);
    if (st == STATUS_OK) /* class frequencies are of this fold's training rows, not of the rows it
                            is scored on */
        st = task_weigh_classes(&run->task, run->config->train.class_weights, &run->train.targets,
                                rows.train, rows.train_count);
    TRY_GOTO(done, comm_agree(group, st));
    run_trial_opts(run, &rows, fold, group, folder, &opts);
    TRY_GOTO(done, trial_run(&opts, &result));
    if (leader)
        st = fold_save(run, fold, folder, &rows, &result);
    if (st == STATUS_OK && leader) {
        fold_outcome_release(&earlier);
        st = fold_load(run, fold, folder, &earlier, &finished);
    }
    TRY_GOTO(done, comm_agree(group, st));
    log_info("========== fold: %d result ==========", fold);
    if (isnan(earlier.score))
        log_info("Score: undefined");
    else
        log_info("Score: %.4f", earlier.score);
done:
    fold_outcome_release(&earlier);
    trial_result_release(&result);
    run_rows_free(&rows);
    mem_free(folder);
    return st;
}

/* The folds to run, ascending, each once. */
static int wanted_folds(const struct run *run, int *folds)
{
    int count = 0;
    for (int k = 0; k < run->folds; k++) {
        bool wanted = run->config->cv.run_folds_count == 0;
        for (int64_t i = 0; i < run->config->cv.run_folds_count; i++)
            wanted = wanted || run->config->cv.run_folds[i] == k;
        if (wanted)
            folds[count++] = k;
    }
    return count;
}

/* log.jsonl of the run: the folds' own, in order, each line with its fold. Rank 0. */
static enum status join_logs(const struct run *run, const int *folds, int count)
{
    struct str text = {0};
    char *folder = NULL, *path = NULL, *bytes = NULL;
    size_t n;
    enum status st = str_add(&text, "", 0);
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        TRY_GOTO(done, fold_folder(run, folds[i], &folder));
        TRY_GOTO(done, path_join(folder, "log.jsonl", &path));
        TRY_GOTO(done, file_read(path, (size_t)1 << 32, &bytes, &n));
        for (size_t from = 0; from < n;) {
            const char *end = memchr(bytes + from, '\n', n - from);
            size_t length = end == NULL ? n - from : (size_t)(end - bytes) - from;
            if (length > 1)
                TRY_GOTO(done, str_addf(&text, "{\"fold\":%d,%.*s\n", folds[i], (int)length - 1,
                                        bytes + from + 1));
            from += length + 1;
        }
        mem_free(bytes);
        mem_free(path);
        mem_free(folder);
        bytes = path = folder = NULL;
    }
    TRY_GOTO(done, run_path(run->config, "log.jsonl", &path));
    st = file_write_atomic(path, text.p, text.n);
done:
    mem_free(bytes);
    mem_free(path);
    mem_free(folder);
    str_release(&text);
    return st;
}

static enum status finish_folds(const struct run *run, const int *folds, int count, int64_t peak)
{
    struct fold_outcome *outcomes;
    json_t *results = json_object();
    int64_t steps = 0, tokens = 0;
    /* Groups trained side by side: the wall time is that of the group that trained longest. */
    int groups = comm_size(run->session->world) / run->group_ranks;
    double seconds = 0.0, *of_group = NULL;
    enum status st = STATUS_OK;
    TRY(mem_alloc((size_t)count, sizeof *outcomes, "the folds", &outcomes));
    st = mem_alloc((size_t)groups, sizeof *of_group, "the groups", &of_group);
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        char *folder = NULL;
        bool finished = false;
        st = fold_folder(run, folds[i], &folder);
        if (st == STATUS_OK)
            st = fold_load(run, folds[i], folder, &outcomes[i], &finished);
        if (st == STATUS_OK && !finished)
            st = status_fail(
                STATUS_IO,
                "%s/result.json is not there, though the fold was trained; is out on a file "
                "system that all ranks share?",
                folder);
        steps += outcomes[i].steps;
        tokens += outcomes[i].tokens;
        of_group[i % groups] += outcomes[i].seconds;
        mem_free(folder);
    }
    for (int g = 0; g < groups && of_group != NULL; g++)
        seconds = of_group[g] > seconds ? of_group[g] : seconds;
    if (st == STATUS_OK)
        st = cv_finish(run, outcomes, count, results);
    if (st == STATUS_OK)
        st = join_logs(run, folds, count);
    if (st == STATUS_OK) {
        (void)json_object_set_new(results, "train", train_part(run, steps, tokens, seconds, peak));
        st = write_results(run, results);
    }
    for (int i = 0; i < count; i++)
        fold_outcome_release(&outcomes[i]);
    mem_free(outcomes);
    mem_free(of_group);
    json_decref(results);
    return st;
}

/* N16: the score of all rows that finished folds have scored so far. Rank 0; says nothing where it
 * cannot. */
static void say_so_far(const struct run *run, const int *folds, int count)
{
    struct fold_outcome *outcomes;
    double score = NAN;
    int finished = 0;
    if (mem_alloc((size_t)count, sizeof *outcomes, "the folds", &outcomes) != STATUS_OK)
        return;
    for (int i = 0; i < count; i++) {
        char *folder = NULL;
        bool done = false;
        if (fold_folder(run, folds[i], &folder) == STATUS_OK &&
            fold_load(run, folds[i], folder, &outcomes[finished], &done) == STATUS_OK && done)
            finished++;
        mem_free(folder);
    }
    if (finished > 0 && finished < count &&
        cv_score_so_far(run, outcomes, finished, &score) == STATUS_OK && !isnan(score))
        log_info("out-of-fold %s so far, %d of %d folds: %.4f", metric_name(run->task.metric),
                 finished, count, score);
    for (int i = 0; i < count; i++)
        fold_outcome_release(&outcomes[i]);
    mem_free(outcomes);
}

/* Fold after fold in each group; group g takes every groups-th fold. A fold does not know who else
 * runs. */
static enum status train_folds(struct run *run)
{
    struct comm *world = run->session->world, *group = NULL;
    int folds[1000], count = wanted_folds(run, folds), ranks = comm_size(world);
    int groups = (ranks + run->group_ranks - 1) / run->group_ranks,
        own = comm_rank(world) / run->group_ranks;
    int64_t peak = 0;
    enum status st = STATUS_OK;
    if (ranks % run->group_ranks != 0)
        return status_fail(STATUS_CONFIG, "cv.group_ranks=%d does not divide the %d ranks",
                           run->group_ranks, ranks);
    log_info("%d fold%s over %d group%s of %d rank%s", count, count == 1 ? "" : "s", groups,
             groups == 1 ? "" : "s", run->group_ranks, run->group_ranks == 1 ? "" : "s");
    TRY(comm_group(world, run->group_ranks, &group));
    st = comm_agree(world, session_transport(run->session, group));
    if (st != STATUS_OK) {
        comm_group_free(group);
        return st;
    }
    for (int i = own; i < count && st == STATUS_OK; i += groups) {
        st = train_fold(run, group, folds[i]);
        if (st == STATUS_OK && comm_rank(world) == 0)
            say_so_far(run, folds, count);
    }
    if (st != STATUS_OK && comm_rank(group) == 0 &&
        comm_rank(world) != 0) /* the others may train for hours yet */
        log_line(LOG_ERROR, "%s", status_message());
    comm_group_free(group);
    TRY(comm_wait(world, "waiting for other groups"));
    TRY(comm_agree(world, st));
    TRY(peak_memory(world, &peak));
    return comm_agree(world,
                      comm_rank(world) == 0 ? finish_folds(run, folds, count, peak) : STATUS_OK);
}

enum status command_train(struct session *session)
{
    const struct run_config *config = &session->config;
    struct comm *world = session->world;
    struct run run;
    bool finished = false;
    int64_t done_before = 0;
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
    TRY_GOTO(out, run_open(session, cache, &run));
    trial_catch_signals(); /* not before: preparing has nothing to save */
    TRY_GOTO(done, comm_check_same(world, run.identity, "the configuration and data"));
    if (comm_rank(world) == 0)
        st = run_folder_look(&run, &finished);
    if (st == STATUS_OK && comm_rank(world) == 0 && config->overwrite) {
        log_info("overwrite=true: removing what a run left in %s", config->out);
        st = run_folder_remove(config->out);
    }
    done_before = finished;
    TRY_GOTO(done, comm_agree(world, st));
    TRY_GOTO(done, comm_broadcast(world, &done_before, sizeof done_before, 0));
    if (done_before) {
        log_info("the run in %s is finished; its results are in results.json", config->out);
        goto done;
    }
    if (comm_rank(world) == 0) {
        st = write_start(&run);
        if (st == STATUS_OK)
            st = checkpoint_fence(config->out, run.fence);
    }
    TRY_GOTO(done, comm_agree(world, st));
    TRY_GOTO(done, comm_broadcast(world, run.fence, sizeof run.fence,
                                  0)); /* leaders of other groups commit, too */
    st = run.folds > 0 ? train_folds(&run) : train_once(&run);
done:
    run_close(&run);
out:
    mem_free(cache);
    return st;
}
