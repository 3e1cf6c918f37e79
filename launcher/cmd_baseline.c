/*
 * cmd_baseline.c - baseline: what TF-IDF, and the vectors of a frozen encoder, are worth with a
 * linear model or trees, on the rows that train would train and score on.
 *
 * Features are made once for all rows, then the trials' regressions are dealt to the ranks one by
 * one; rank 0 gets their logits and goes on as after train's folds. A kind takes seconds or minutes
 * (embeddings: one pass of the encoder), so one that was stopped begins again, and one that is
 * finished does not: its results.json is the mark of that.
 */
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/threads.h"
#include "data/words.h"
#include "launcher/baselines.h"
#include "launcher/config.h"
#include "launcher/keys.h"
#include "model/trees.h"
#include "worker/evaluate.h"

static bool leads(const struct baselines *b)
{
    return comm_rank(b->run.session->world) == 0;
}

/* ---- what is asked for ---- */

static enum status read_kinds(const struct run_config *config, bool *wanted)
{
    const char *p = config->baseline.kinds;
    wanted[BASELINE_TFIDF] = p[0] == '\0';
    wanted[BASELINE_EMBEDDINGS] = p[0] == '\0' && config->model.path[0] != '\0';
    while (*p != '\0') {
        size_t n = strcspn(p, ",");
        bool known = false;
        for (int k = 0; k < BASELINE_KINDS; k++) {
            const char *name = baseline_kind_name((enum baseline_kind)k);
            if (strlen(name) == n && memcmp(name, p, n) == 0)
                wanted[k] = known = true;
        }
        if (!known)
            return status_fail(STATUS_CONFIG,
                               "baseline.kinds=%s: \"%.*s\" is not a kind, wanted tfidf, "
                               "embeddings or trees, joined by commas",
                               config->baseline.kinds, (int)n, p);
        p += n + (p[n] == ',');
    }
    if (wanted[BASELINE_EMBEDDINGS] || wanted[BASELINE_TREES])
        TRY(session_need("model.path", config->model.path,
                         "the model whose embeddings are the features"));
    if (config->baseline.ngram_min > config->baseline.ngram_max)
        return status_fail(STATUS_CONFIG, "baseline.ngram_min=%d is above baseline.ngram_max=%d",
                           (int)config->baseline.ngram_min, (int)config->baseline.ngram_max);
    if (config->search.count > 0)
        log_warning("search.* is not used: baselines are fitted with the settings they are given");
    return STATUS_OK;
}

static void list_datasets(struct baselines *b)
{
    const struct run_config *config = b->run.config;
    const struct run_data *const all[BASELINE_DATASETS] = {&b->run.train, &b->run.eval,
                                                           &b->run.test};
    const char *const names[BASELINE_DATASETS] = {config->data.train, config->data.eval,
                                                  config->data.test};
    for (int i = 0; i < BASELINE_DATASETS; i++) {
        if (all[i]->ds == NULL)
            continue;
        b->keys[b->dataset_count] = names[i];
        b->datasets[b->dataset_count++] = all[i]->ds;
    }
}

/* ---- what the scores depend on ---- */

static enum status hash_texts(struct baselines *b)
{
    struct str text = {0}, pair = {0};
    enum status st = STATUS_OK;
    b->texts = 1;
    for (int d = 0; d < b->dataset_count; d++) {
        struct dataset_info info;
        dataset_get_info(b->datasets[d], &info);
        for (int64_t r = 0; info.has_text && r < info.rows; r++) {
            str_clear(&text);
            str_clear(&pair);
            TRY_GOTO(done, dataset_row_text(b->datasets[d], r, &text, &pair));
            b->texts = hash_combine(b->texts, hash_bytes(text.n == 0 ? "" : text.p, text.n));
            b->texts = hash_combine(b->texts, hash_bytes(pair.n == 0 ? "" : pair.p, pair.n));
        }
    }
done:
    str_release(&text);
    str_release(&pair);
    return st;
}

/* baseline.* does not count when training runs are compared; here it does. */
static bool is_own_key(const struct key *key)
{
    return strncmp(key->name, "baseline.", 9) == 0 && strcmp(key->name, "baseline.kinds") != 0;
}

static enum status identify(struct baselines *b)
{
    struct str value = {0};
    enum status st = STATUS_OK;
    if (b->wanted[BASELINE_TFIDF])
        TRY(hash_texts(b));
    b->identity = hash_combine(b->run.identity, b->texts);
    b->identity = hash_combine(b->identity, hash_bytes(words_source, strlen(words_source)));
    if (b->run.test.ds != NULL)
        b->identity = hash_combine(b->identity, b->run.test.info.content_hash);
    for (size_t i = 0; i < keys_count; i++) {
        if (!is_own_key(&keys[i]))
            continue;
        str_clear(&value);
        TRY_GOTO(done, key_get(&b->run.resolved, &keys[i], &value));
        b->identity = hash_combine(b->identity, hash_bytes(value.p, value.n));
    }
done:
    str_release(&value);
    return st;
}

/* ---- the folder ---- */

static enum status write_start(const struct baselines *b, const char *folder)
{
    const struct run *run = &b->run;
    struct str text = {0};
    char *cfg = NULL, *path = NULL;
    json_t *manifest = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, folder_make(folder));
    TRY_GOTO(done, path_join(folder, "run.cfg", &cfg));
    TRY_GOTO(done, path_join(folder, "manifest.json", &path));
    TRY_GOTO(done, config_text(&run->resolved, &text));
    TRY_GOTO(done, file_write_atomic(cfg, text.p, text.n));
    manifest = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s}", "format", "cohort-baseline", "version",
        COHORT_VERSION, "data", json_hex64(run->train.info.content_hash), "eval_data",
        json_hex64(run->eval.ds == NULL ? 0 : run->eval.info.content_hash), "model",
        json_hex64(run->model_hash), "tokenizer", json_hex64(run->source.tokenizer_info.hash),
        "texts", json_hex64(b->texts), "words", words_source);
    st = manifest == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                          : json_write_file(path, manifest);
done:
    str_release(&text);
    json_decref(manifest);
    mem_free(cfg);
    mem_free(path);
    return st;
}

/* The same for every kind's folder, so that each can be read alone. */
static enum status write_starts(const struct baselines *b)
{
    TRY(write_start(b, b->run.config->out));
    for (int k = 0; k < BASELINE_KINDS; k++) {
        char *folder;
        if (!b->wanted[k])
            continue;
        TRY(path_join(b->run.config->out, baseline_kind_name((enum baseline_kind)k), &folder));
        enum status st = write_start(b, folder);
        mem_free(folder);
        TRY(st);
    }
    return STATUS_OK;
}

/* What a finished baseline was asked that run_folder_look() does not compare. */
static enum status own_differences(const struct baselines *b, const char *cfg, const char *manifest,
                                   struct str *out)
{
    struct run_config *earlier;
    struct str then = {0}, now = {0};
    json_t *object = NULL;
    uint64_t texts;
    enum status st;
    TRY(mem_alloc(1, sizeof *earlier, "the configuration", &earlier));
    TRY_GOTO(done, config_load(cfg, NULL, 0, earlier));
    for (size_t i = 0; i < keys_count; i++) {
        if (strncmp(keys[i].name, "baseline.", 9) != 0)
            continue;
        str_clear(&then);
        str_clear(&now);
        TRY_GOTO(done, key_get(earlier, &keys[i], &then));
        TRY_GOTO(done, key_get(&b->run.resolved, &keys[i], &now));
        if (strcmp(then.p, now.p) != 0)
            TRY_GOTO(done, str_addf(out, "%s%s (%s, now %s)", out->n == 0 ? "" : ", ", keys[i].name,
                                    then.p, now.p));
    }
    TRY_GOTO(done, json_read_file(manifest, 1 << 20, &object));
    TRY_GOTO(done, json_get_hex64(object, "texts", manifest, &texts));
    if (texts != b->texts)
        st = str_addf(out, "%sthe texts", out->n == 0 ? "" : ", ");
done:
    json_decref(object);
    str_release(&then);
    str_release(&now);
    mem_free(earlier);
    return st;
}

/* As run_folder_look(), and *finished is said of a baseline. Rank 0. */
static enum status look_at_folder(const struct baselines *b, bool *finished)
{
    const struct run_config *config = b->run.config;
    struct str difference = {0};
    char *cfg = NULL, *manifest = NULL, *results = NULL;
    enum status st;
    *finished = false;
    TRY_GOTO(done, path_join(config->out, "run.cfg", &cfg));
    TRY_GOTO(done, path_join(config->out, "manifest.json", &manifest));
    TRY_GOTO(done, path_join(config->out, "results.json", &results));
    TRY_GOTO(done, run_folder_look(&b->run, "baseline", &b->run.resolved, false, finished));
    *finished = file_exists(cfg) && file_exists(manifest) && file_exists(results) &&
                !config->overwrite;
    if (!*finished)
        goto done;
    TRY_GOTO(done, own_differences(b, cfg, manifest, &difference));
    if (difference.n > 0)
        st = status_fail(STATUS_CONFIG,
                         "out=%s holds a baseline with another configuration: %s; give another "
                         "out, or overwrite=true",
                         config->out, difference.p);
done:
    str_release(&difference);
    mem_free(cfg);
    mem_free(manifest);
    mem_free(results);
    return st;
}

/* What an earlier baseline left, other kinds' folders too. Rank 0. */
static enum status tidy(const struct baselines *b)
{
    log_info("overwrite=true: removing what a baseline left in %s", b->run.config->out);
    TRY(run_folder_remove(b->run.config->out));
    for (int k = 0; k < BASELINE_KINDS; k++) {
        char *folder;
        TRY(path_join(b->run.config->out, baseline_kind_name((enum baseline_kind)k), &folder));
        enum status st = run_folder_remove(folder);
        mem_free(folder);
        TRY(st);
    }
    return STATUS_OK;
}

/* Whether there is anything to score, and the folder is free. *done: it is finished already.
 * Collective. */
static enum status begin(struct baselines *b, bool *done)
{
    struct run *run = &b->run;
    const struct run_config *config = run->config;
    struct comm *world = run->session->world;
    int64_t finished_before;
    bool finished = false;
    enum status st = baselines_list_trials(b);
    list_datasets(b);
    if (st == STATUS_OK)
        st = run_identify(run, 1); /* a fold is one rank's, however many there are */
    TRY(comm_agree(world, st));
    if (run->splits == NULL && run->eval.ds == NULL && run->test.ds == NULL)
        return status_fail(STATUS_CONFIG,
                           "there are no rows to score: give cv.folds, data.holdout, data.eval or "
                           "data.test");
    TRY(comm_check_same(world, run->identity, "the configuration and data"));
    if (leads(b)) {
        st = identify(b);
        if (st == STATUS_OK)
            st = look_at_folder(b, &finished);
        if (st == STATUS_OK && config->overwrite)
            st = tidy(b);
        if (st == STATUS_OK && !finished)
            st = write_starts(b);
    }
    finished_before = finished;
    TRY(comm_agree(world, st));
    TRY(comm_broadcast(world, &finished_before, sizeof finished_before, 0));
    *done = finished_before != 0;
    if (*done)
        log_info("the baseline in %s is finished; its results are in results.json", config->out);
    return STATUS_OK;
}

/* ---- one kind ---- */

/* Whether this rank has any of the regressions. */
static bool takes_part(const struct baselines *b)
{
    return comm_rank(b->run.session->world) < b->trials * b->portions;
}

static enum status count_words(const struct baselines *b, struct baseline_features *out)
{
    const struct run *run = &b->run;
    struct comm *world = run->session->world;
    struct tfidf_info info;
    enum status st = STATUS_OK;
    *out = (struct baseline_features){0};
    if (takes_part(b))
        st = baseline_count(run->config, b->datasets, b->keys, b->dataset_count, out);
    TRY(comm_wait(world, "waiting for the counts of words"));
    st = comm_agree(world, st);
    if (st == STATUS_OK && leads(b)) {
        tfidf_get_info(out->tfidf, &info);
        log_info("tfidf: %lld rows, %lld words, %lld terms, %lld pairs of both, %.0f MB",
                 (long long)info.rows, (long long)info.words, (long long)info.terms,
                 (long long)info.pairs, (double)info.bytes / 1e6);
    }
    return st;
}

/* b->vectors, unless an earlier kind has made them. */
static enum status make_vectors(struct baselines *b)
{
    const struct run *run = &b->run;
    const struct session *session = run->session;
    const struct baseline_encoder encoder = {.config = run->config,
                                             .comm = session->world,
                                             .device = session->device,
                                             .kernels = session->kernels,
                                             .precision = session->precision,
                                             .source = &run->source,
                                             .max_length = run->max_length};
    if (b->vectors.vectors != NULL)
        return STATUS_OK;
    return baseline_embed(&encoder, b->datasets, b->dataset_count, &b->vectors);
}

static enum status compute_kind(struct baselines *b, enum baseline_kind kind, json_t **results)
{
    struct baseline_features words = {0};
    struct baseline_trials trials = {0};
    struct baseline_times times;
    const char *version;
    double started = clock_s(), made;
    enum status st = STATUS_OK;
    if (kind == BASELINE_TREES) /* before anything is computed */
        st = trees_library(&version);
    TRY_GOTO(done, comm_agree(b->run.session->world, st));
    TRY_GOTO(done, kind == BASELINE_TFIDF ? count_words(b, &words) : make_vectors(b));
    made = clock_s();
    TRY_GOTO(done, baselines_fit(b, kind, kind == BASELINE_TFIDF ? &words : &b->vectors, &trials));
    times = (struct baseline_times){made - started, clock_s() - made};
    if (leads(b))
        st = baselines_finish_kind(b, kind, &trials, &times, results);
    st = comm_agree(b->run.session->world, st);
done:
    baseline_features_release(&words);
    baseline_trials_release(&trials);
    return st;
}

/* *results on rank 0: new reference. Collective. */
static enum status run_kind(struct baselines *b, enum baseline_kind kind, json_t **results)
{
    struct comm *world = b->run.session->world;
    int64_t before;
    enum status st = leads(b) ? baselines_load_kind(b, kind, results) : STATUS_OK;
    before = *results != NULL;
    if (before && leads(b))
        log_info("%s was finished before", baseline_kind_name(kind));
    TRY(comm_agree(world, st));
    TRY(comm_broadcast(world, &before, sizeof before, 0));
    if (before)
        return STATUS_OK;
    st = comm_agree(world, fault_here("baseline.kind"));
    if (st == STATUS_OK)
        st = compute_kind(b, kind, results);
    return st != STATUS_OK ? status_prefix(st, "%s", baseline_kind_name(kind)) : st;
}

/* ---- all kinds ---- */

/* results.json of all kinds together, the mark of a finished baseline. Rank 0. */
static enum status finish(const struct baselines *b, json_t *const outcomes[BASELINE_KINDS],
                          double seconds, int64_t peak)
{
    json_t *results = task_json(&b->run.task), *kinds = json_object();
    char *path = NULL;
    enum status st = path_join(b->run.config->out, "results.json", &path);
    (void)json_object_set_new(results, "format", json_string("cohort-baseline"));
    for (int k = 0; k < BASELINE_KINDS; k++) {
        if (outcomes[k] != NULL)
            (void)json_object_set(kinds, baseline_kind_name((enum baseline_kind)k), outcomes[k]);
    }
    (void)json_object_set_new(results, "kinds", kinds);
    (void)json_object_set_new(results, "seconds", json_real(seconds));
    (void)json_object_set_new(results, "ranks", json_integer(comm_size(b->run.session->world)));
    (void)json_object_set_new(results, "threads", json_integer(threads_count()));
    (void)json_object_set_new(results, "peak_memory_mb", json_real((double)peak / 1e6));
    if (st == STATUS_OK)
        st = json_write_file(path, results);
    if (st == STATUS_OK) {
        baselines_say(b, outcomes);
        log_info("%.1f s in all, peak memory %.0f MB a rank; results: %s", seconds,
                 (double)peak / 1e6, path);
    }
    json_decref(results);
    mem_free(path);
    return st;
}

/* Collective. */
static enum status run_kinds(struct baselines *b, double started)
{
    struct comm *world = b->run.session->world;
    json_t *outcomes[BASELINE_KINDS] = {0};
    double peak;
    enum status st = STATUS_OK;
    for (int k = 0; k < BASELINE_KINDS; k++) {
        if (b->wanted[k])
            TRY_GOTO(done, run_kind(b, (enum baseline_kind)k, &outcomes[k]));
    }
    peak = (double)mem_peak_bytes();
    TRY_GOTO(done, comm_max_double(world, &peak, 1));
    if (leads(b))
        st = finish(b, outcomes, clock_s() - started, (int64_t)peak);
    st = comm_agree(world, st);
done:
    for (int k = 0; k < BASELINE_KINDS; k++)
        json_decref(outcomes[k]);
    return st;
}

static enum status open_run(struct session *session, const char *cache, struct run *out)
{
    const struct run_config *config = &session->config;
    if (config->model.path[0] != '\0')
        return run_open(session, session->world, config, cache, out);
    return run_open_texts(session, session->world, config, cache, out);
}

enum status command_baseline(struct session *session)
{
    struct run_config *config = &session->config;
    struct comm *world = session->world;
    struct baselines *b;
    char *cache = NULL;
    bool done = false;
    double started = clock_s();
    enum status st;
    TRY(session_need("out", config->out, "the folder of the results"));
    TRY(mem_alloc(1, sizeof *b, "the baselines", &b));
    TRY_GOTO(out, read_kinds(config, b->wanted));
    config->data.keep_text = true;          /* of text that is prepared on the way */
    config->cv.select = CONFIG_SELECT_LAST; /* a regression has no steps to choose from */
    if (b->wanted[BASELINE_EMBEDDINGS] || b->wanted[BASELINE_TREES])
        TRY_GOTO(out, session_compute(session));
    else
        session_threads(session);
    st = config->data.cache[0] != '\0' ? mem_strdup(config->data.cache, &cache)
                                       : path_join(config->out, "data", &cache);
    TRY_GOTO(out, comm_agree(world, st));
    TRY_GOTO(out, comm_watchdog_start(world, config->parallel.watchdog_s, NULL));
    TRY_GOTO(out, open_run(session, cache, &b->run));
    TRY_GOTO(close, begin(b, &done));
    if (!done)
        st = run_kinds(b, started);
close:
    run_close(&b->run);
    baseline_features_release(&b->vectors);
    mem_free(b->trial);
out:
    mem_free(cache);
    mem_free(b);
    return st;
}
