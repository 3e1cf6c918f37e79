/* baseline_results.c - scores and files of one kind of baseline; see baselines.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/baselines.h"
#include "launcher/oof.h"
#include "model/trees.h"
#include "worker/evaluate.h"

const char *baseline_kind_name(enum baseline_kind kind)
{
    static const char *const names[] = {"tfidf", "embeddings", "trees"};
    return names[kind];
}

static enum status kind_path(const struct baselines *b, enum baseline_kind kind, const char *name,
                             char **out)
{
    char *folder;
    TRY(path_join(b->run.config->out, baseline_kind_name(kind), &folder));
    enum status st = path_join(folder, name, out);
    mem_free(folder);
    return st;
}

/* ---- without folds ---- */

/* Metrics of n rows of one dataset; row ids count in it. */
static enum status evaluate(const struct run *run, const struct task_targets *targets,
                            const int64_t *rows, int64_t n, const float *logits, const char *what,
                            json_t **out)
{
    struct scored scored = {0};
    struct metric_values values = {0};
    enum status st = task_scored(&run->task, targets, rows, n, logits, &scored);
    if (st == STATUS_OK)
        st = metrics_compute(&scored, &values);
    if (st == STATUS_OK) {
        double score = values.value[run->task.metric];
        if (isnan(score))
            log_info("%s on the %lld rows of %s: undefined", metric_name(run->task.metric),
                     (long long)n, what);
        else
            log_info("%s on the %lld rows of %s: %.4f", metric_name(run->task.metric), (long long)n,
                     what, score);
        *out = evaluation_json(&run->task, &values, n);
        if (*out == NULL)
            st = status_fail(STATUS_NOMEM, "no memory for the metrics");
    }
    metrics_release(&values);
    task_scored_release(&scored);
    return st;
}

/* The rows of data.eval or the hold-out, and those of data.test. */
static enum status describe_once(const struct run *run, const struct outcome *trial,
                                 json_t *results)
{
    bool held_out = run->eval.ds == NULL;
    const struct run_data *eval = held_out ? &run->train : &run->eval;
    int64_t tests = run->test.ds == NULL ? 0 : run->test.info.rows, own = trial->rows - tests;
    json_t *described;
    for (int64_t i = 0; !held_out && i < own; i++) /* from rows of the features */
        trial->row[i] -= run->train.info.rows;
    if (own > 0) {
        TRY(evaluate(run, &eval->targets, trial->row, own, trial->logits,
                     held_out ? "the hold-out" : "data.eval", &described));
        (void)json_object_update(results, described);
        json_decref(described);
    }
    if (tests > 0) {
        TRY(evaluate(run, &run->test.targets, run->test.rows, tests,
                     trial->logits + own * run->task.outputs, "data.test", &described));
        (void)json_object_set_new(results, "test", described);
    }
    return STATUS_OK;
}

/* ---- with folds ---- */

static json_t *folds_json(const struct run *run, const struct baseline_trials *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->count; i++) {
        const struct outcome *o = &t->outcome[i];
        json_t *one = json_object();
        if (run->repeats > 1)
            (void)json_object_set_new(one, "repeat", json_integer(o->id.repeat));
        (void)json_object_set_new(one, "fold", json_integer(o->id.fold));
        (void)json_object_update_new(one, json_pack("{s:o, s:I, s:I, s:f}", "score",
                                                    json_finite(o->score), "rows",
                                                    (json_int_t)o->rows, "iterations",
                                                    (json_int_t)o->steps, "seconds", o->seconds));
        (void)json_array_append_new(list, one);
    }
    return list;
}

static void say_folds(const struct run *run, const struct baseline_trials *t,
                      const struct oof_scores *s)
{
    const char *metric = metric_name(run->task.metric);
    log_info("%sfold   rows  %10s  iterations", run->repeats > 1 ? "repeat " : "", metric);
    for (int i = 0; i < t->count && i < 100; i++) {
        const struct outcome *o = &t->outcome[i];
        char repeat[16] = "", score[24];
        if (run->repeats > 1)
            (void)snprintf(repeat, sizeof repeat, "%6d ", o->id.repeat);
        (void)snprintf(score, sizeof score, isnan(o->score) ? "undefined" : "%.4f", o->score);
        log_info("%s%4d %6lld  %10s  %lld", repeat, o->id.fold, (long long)o->rows, score,
                 (long long)o->steps);
    }
    if (t->count > 100)
        log_info("... and %d more", t->count - 100);
    if (isnan(s->score))
        log_info("Score: undefined");
    else
        log_info("Score: %.4f", s->score);
}

static enum status describe_folds(const struct run *run, const char *folder,
                                  struct baseline_trials *t, json_t *results)
{
    struct oof oof;
    struct oof_scores scores = {0};
    json_t *described = NULL;
    for (int i = 0; i < t->count; i++)
        TRY(outcome_score(run, true, t->outcome[i].row, t->outcome[i].rows, t->outcome[i].logits,
                          &t->outcome[i].score));
    TRY(oof_pool(run, t->outcome, t->count, &oof));
    enum status st = oof_write(run, &oof, folder);
    if (st == STATUS_OK)
        st = oof_score(run, &oof, t->outcome, t->count, true, &scores);
    if (st == STATUS_OK)
        st = oof_describe(run, &oof, &scores, &described);
    if (st == STATUS_OK) {
        (void)json_object_update(results, described);
        (void)json_object_set_new(results, "folds", folds_json(run, t));
        (void)json_object_set_new(results, "oof", oof_json(run, &scores));
        say_folds(run, t, &scores);
    }
    json_decref(described);
    oof_scores_release(&scores);
    oof_release(&oof);
    return st;
}

/* ---- a kind's folder ---- */

static json_t *features_json(const struct run_config *config, enum baseline_kind kind)
{
    if (kind == BASELINE_TFIDF)
        return json_pack("{s:[i,i], s:b, s:b, s:f, s:f, s:I}", "ngrams",
                         (int)config->baseline.ngram_min, (int)config->baseline.ngram_max,
                         "lowercase", (int)config->baseline.lowercase, "sublinear",
                         (int)config->baseline.sublinear, "min_df", config->baseline.min_df,
                         "max_df", config->baseline.max_df, "max_features",
                         (json_int_t)config->baseline.max_features);
    const char *pooling = config->baseline.pooling == CONFIG_BASELINE_CLS ? "cls" : "mean";
    if (kind == BASELINE_EMBEDDINGS)
        return json_pack("{s:s, s:b}", "pooling", pooling, "standardize",
                         (int)config->baseline.standardize);
    const char *version;
    if (trees_library(&version) != STATUS_OK)
        version = "";
    return json_pack("{s:s, s:s, s:I, s:I, s:f}", "pooling", pooling, "xgboost", version, "trees",
                     (json_int_t)config->baseline.trees, "depth",
                     (json_int_t)config->baseline.tree_depth, "rate", config->baseline.tree_rate);
}

static json_t *baseline_json(const struct baselines *b, enum baseline_kind kind,
                             const struct baseline_trials *t, const struct baseline_times *times)
{
    const struct run_config *config = b->run.config;
    return json_pack("{s:s, s:[I,I], s:o, s:f, s:f, s:I, s:f, s:b, s:f, s:f, s:o}", "kind",
                     baseline_kind_name(kind), "features", (json_int_t)t->least,
                     (json_int_t)t->most, "made", features_json(config, kind), "C",
                     config->baseline.C, "tolerance", config->baseline.tolerance, "iterations",
                     (json_int_t)t->iterations, "gradient", t->gradient, "converged",
                     (int)t->converged, "features_s", times->features_s, "fit_s", times->fit_s,
                     "run", json_hex64(b->identity));
}

static enum status write_terms(const struct run *run, const char *folder, const struct str *lines)
{
    struct str text = {0};
    char *path = NULL;
    enum status st = str_addf(&text, "%s%slabel\tterm\tweight\n",
                              run->folds > 0 && run->repeats > 1 ? "repeat\t" : "",
                              run->folds > 0 ? "fold\t" : "");
    if (st == STATUS_OK && lines->n > 0)
        st = str_add(&text, lines->p, lines->n);
    if (st == STATUS_OK)
        st = path_join(folder, "terms.tsv", &path);
    if (st == STATUS_OK)
        st = file_write_atomic(path, text.p, text.n);
    str_release(&text);
    mem_free(path);
    return st;
}

enum status baselines_finish_kind(const struct baselines *b, enum baseline_kind kind,
                                  struct baseline_trials *t, const struct baseline_times *times,
                                  json_t **results)
{
    const struct run *run = &b->run;
    json_t *out = task_json(&run->task);
    char *folder = NULL, *path = NULL;
    enum status st;
    *results = NULL;
    TRY_GOTO(done, path_join(run->config->out, baseline_kind_name(kind), &folder));
    TRY_GOTO(done, kind_path(b, kind, "results.json", &path));
    log_info("========== baseline: %s ==========", baseline_kind_name(kind));
    st = run->folds > 0 ? describe_folds(run, folder, t, out)
                        : describe_once(run, &t->outcome[0], out);
    TRY_GOTO(done, st);
    if (kind == BASELINE_TFIDF)
        TRY_GOTO(done, write_terms(run, folder, &t->terms));
    if (!t->converged)
        log_warning("%s: a gradient of %.2g is left, baseline.tolerance is %.2g: the scores may "
                    "move; give a lower baseline.C or more baseline.max_iterations (%lld)",
                    baseline_kind_name(kind), t->gradient, run->config->baseline.tolerance,
                    (long long)run->config->baseline.max_iterations);
    (void)json_object_set_new(out, "complete", json_true());
    (void)json_object_set_new(out, "baseline", baseline_json(b, kind, t, times));
    TRY_GOTO(done, json_write_file(path, out));
    *results = json_incref(out);
done:
    json_decref(out);
    mem_free(folder);
    mem_free(path);
    return st;
}

enum status baselines_load_kind(const struct baselines *b, enum baseline_kind kind,
                                json_t **results)
{
    char *path;
    json_t *object = NULL;
    uint64_t identity = 0;
    *results = NULL;
    TRY(kind_path(b, kind, "results.json", &path));
    enum status st = STATUS_OK;
    if (!file_exists(path))
        goto done;
    TRY_GOTO(done, json_read_file(path, (size_t)64 << 20, &object));
    TRY_GOTO(done, json_get_hex64(json_object_get(object, "baseline"), "run", path, &identity));
    if (identity == b->identity)
        *results = json_incref(object);
done:
    json_decref(object);
    mem_free(path);
    return st;
}

/* ---- the table ---- */

static void say_number(char *out, size_t n, const json_t *value)
{
    (void)snprintf(out, n, json_is_number(value) ? "%.4f" : "undefined", json_number_value(value));
}

void baselines_say(const struct baselines *b, json_t *const results[BASELINE_KINDS])
{
    char score[32], mean[32], low[32], high[32];
    bool folds = b->run.folds > 0;
    log_info("========== baselines ==========");
    log_info("%-10s  %10s  %10s  %-18s  %10s  %10s  %8s", "", metric_name(b->run.task.metric),
             folds ? "folds" : "", folds ? "95 % interval" : "", "features", "iterations",
             "seconds");
    for (int k = 0; k < BASELINE_KINDS; k++) {
        const json_t *oof = json_object_get(results[k], "oof"), *ci = json_object_get(oof, "ci95"),
                     *own = json_object_get(results[k], "baseline");
        const json_t *value = json_object_get(results[k], "score");
        char interval[80] = "";
        if (results[k] == NULL)
            continue;
        if (value == NULL)
            value = json_object_get(json_object_get(results[k], "test"), "score");
        say_number(score, sizeof score, value);
        say_number(mean, sizeof mean, json_object_get(oof, "mean"));
        say_number(low, sizeof low, json_array_get(ci, 0));
        say_number(high, sizeof high, json_array_get(ci, 1));
        if (folds)
            (void)snprintf(interval, sizeof interval, "%s to %s", low, high);
        log_info("%-10s  %10s  %10s  %-18s  %10lld  %10lld  %8.1f",
                 baseline_kind_name((enum baseline_kind)k), score, folds ? mean : "", interval,
                 (long long)json_integer_value(json_array_get(json_object_get(own, "features"), 1)),
                 (long long)json_integer_value(json_object_get(own, "iterations")),
                 json_number_value(json_object_get(own, "features_s")) +
                     json_number_value(json_object_get(own, "fit_s")));
    }
}
