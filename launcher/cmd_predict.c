/* cmd_predict.c - eval, predict, embed and tokenizer: commands on a trained folder. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/command.h"
#include "worker/embed.h"
#include "worker/evaluate.h"
#include "worker/scoring.h"

/* A trained folder, ready to score. */
struct scorer {
    struct model_source source;
    struct task_spec task;
    struct model *model;
    char **members; /* of an ensemble; owned */
    int member_count;
    int max_length;
    struct chunk_rule chunks;
};

static void scorer_close(struct scorer *scorer)
{
    model_destroy(scorer->model);
    task_release(&scorer->task);
    model_source_close(&scorer->source);
    for (int i = 0; i < scorer->member_count; i++)
        mem_free(scorer->members[i]);
    mem_free(scorer->members);
}

/* The weights of one of the trials behind a run's score. */
static enum status member_folder(const char *run, const json_t *fold, bool nested, char **out)
{
    static const char *const levels[] = {"setting", "repeat", "fold"};
    struct str path = {0};
    enum status st = str_addf(&path, "%s", run);
    for (size_t i = 0; i < 3 && st == STATUS_OK; i++) {
        const json_t *number = json_object_get(fold, levels[i]);
        if (json_is_integer(number) && !(nested && i == 0))
            st = str_addf(&path, "/%s-%d", levels[i], (int)json_integer_value(number));
    }
    if (st == STATUS_OK)
        st = str_addf(&path, "/best");
    *out = path.p;
    if (st != STATUS_OK)
        str_release(&path);
    return st;
}

/* model.path may be the folder of a cross-validation: its models are an ensemble. */
static enum status find_members(const char *folder, struct scorer *scorer)
{
    char *config = NULL, *path = NULL;
    json_t *results = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, path_join(folder, "config.json", &config));
    TRY_GOTO(done, path_join(folder, "results.json", &path));
    if (file_exists(config) || !file_exists(path))
        goto done;
    TRY_GOTO(done, json_read_file(path, (size_t)64 << 20, &results));
    const json_t *folds = json_object_get(results, "folds");
    size_t count = json_array_size(folds);
    if (count == 0) {
        st = status_fail(STATUS_CONFIG,
                         "model.path=%s is the folder of a run; its model is %s/best", folder,
                         folder);
        goto done;
    }
    if (json_is_false(json_object_get(results, "complete"))) {
        st = status_fail(STATUS_CONFIG,
                         "model.path=%s is a run with trials that failed; give it to train again, "
                         "or name one model, such as a fold's best",
                         folder);
        goto done;
    }
    bool nested = json_is_true(json_object_get(json_object_get(results, "search"), "nested"));
    TRY_GOTO(done, mem_alloc(count, sizeof *scorer->members, "models", &scorer->members));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        st = member_folder(folder, json_array_get(folds, i), nested, &scorer->members[i]);
        scorer->member_count += st == STATUS_OK;
    }
done:
    json_decref(results);
    mem_free(config);
    mem_free(path);
    return st;
}

static enum status scorer_load(struct session *session, struct scorer *scorer)
{
    const struct run_config *config = &session->config;
    TRY(find_members(config->model.path, scorer));
    const char *folder = scorer->member_count > 0 ? scorer->members[0] : config->model.path;
    TRY(model_source_open(folder, false, &scorer->source));
    if (scorer->source.other_task != NULL)
        return status_fail(STATUS_DATA,
                           "model.path=%s was saved by %s, whose head does not classify texts; "
                           "cohort train makes one that does",
                           folder, scorer->source.other_task);
    TRY(model_max_length(&scorer->source, config->data.max_length, &scorer->max_length));
    TRY(model_chunks(&scorer->source, config, scorer->max_length, &scorer->chunks));
    TRY(predict_task(&scorer->source, &scorer->task));
    TRY(task_decide_metric(config, &scorer->task));
    struct model_opts opts = {
        .encoder = scorer->source.encoder,
        .head = {.pooling = model_pooling(&scorer->source, config->model.pooling),
                 .outputs = scorer->task.outputs,
                 .dropout = -1.0f},
        .precision = session->precision,
        .max_tokens = score_tokens(config, scorer->max_length),
        .max_rows = SCORE_ROWS,
        .dropout = 0.0f,
        .device = session->device,
        .kernels = session->kernels,
    };
    TRY(model_create(&opts, &scorer->model));
    return model_load_trained(scorer->model, folder);
}

static enum status scorer_open(struct session *session, struct scorer *scorer)
{
    const struct run_config *config = &session->config;
    *scorer = (struct scorer){0};
    TRY(session_need("model.path", config->model.path, "a trained folder, such as runs/a/best"));
    TRY(session_need("data.input", config->data.input, "the file to score"));
    TRY(session_compute(session));
    TRY(comm_watchdog_start(session->world, config->parallel.watchdog_s, NULL));
    enum status st = comm_agree(session->world, scorer_load(session, scorer));
    if (st == STATUS_OK && scorer->member_count > 1)
        log_info("the mean of %d models of %s", scorer->member_count, config->model.path);
    if (st != STATUS_OK)
        scorer_close(scorer);
    return st;
}

static struct predict_opts options(const struct session *session, const struct scorer *scorer)
{
    return (struct predict_opts){.config = &session->config,
                                 .comm = session->world,
                                 .source = &scorer->source,
                                 .task = &scorer->task,
                                 .model = scorer->model,
                                 .members = scorer->members,
                                 .member_count = scorer->member_count,
                                 .max_length = scorer->max_length,
                                 .chunks = &scorer->chunks};
}

enum status command_predict(struct session *session)
{
    struct scorer scorer;
    int64_t rows;
    double started = clock_s();
    TRY(scorer_open(session, &scorer));
    struct predict_opts opts = options(session, &scorer);
    enum status st = predict_run(&opts, &rows);
    if (st == STATUS_OK)
        log_info("%lld rows in %.1f s", (long long)rows, clock_s() - started);
    scorer_close(&scorer);
    return st;
}

static enum status encoder_load(struct session *session, struct scorer *scorer)
{
    static const enum pooling poolings[] = {POOL_MEAN, POOL_CLS, POOL_MAX};
    const struct run_config *config = &session->config;
    struct load_report report;
    TRY(model_source_open(config->model.path, false, &scorer->source));
    TRY(model_max_length(&scorer->source, config->data.max_length, &scorer->max_length));
    TRY(model_chunks(&scorer->source, config, scorer->max_length, &scorer->chunks));
    struct model_opts opts = {
        .encoder = scorer->source.encoder,
        .head = {.pooling = poolings[config->embed.pooling], .outputs = 1, .dropout = 0.0f},
        .precision = session->precision,
        .max_tokens = score_tokens(config, scorer->max_length),
        .max_rows = SCORE_ROWS,
        .dropout = 0.0f,
        .device = session->device,
        .kernels = session->kernels,
    };
    TRY(model_create(&opts, &scorer->model));
    return model_load(scorer->model, config->model.path, false, false, 0, &report);
}

enum status command_embed(struct session *session)
{
    const struct run_config *config = &session->config;
    struct scorer scorer = {0};
    int64_t rows;
    double started = clock_s();
    TRY(session_need("model.path", config->model.path, "the folder of an encoder"));
    TRY(session_need("data.input", config->data.input, "the file of texts"));
    TRY(session_compute(session));
    TRY(comm_watchdog_start(session->world, config->parallel.watchdog_s, NULL));
    enum status st = comm_agree(session->world, encoder_load(session, &scorer));
    struct predict_opts opts = options(session, &scorer);
    if (st == STATUS_OK)
        st = embed_run(&opts, &rows);
    if (st == STATUS_OK)
        log_info("%lld rows in %.1f s", (long long)rows, clock_s() - started);
    scorer_close(&scorer);
    return st;
}

enum status command_eval(struct session *session)
{
    struct scorer scorer;
    json_t *outcome = NULL;
    TRY(scorer_open(session, &scorer));
    struct predict_opts opts = options(session, &scorer);
    enum status st = evaluate_input(&opts, "data.input", session->config.data.input, &outcome);
    if (st == STATUS_OK && comm_rank(session->world) == 0) {
        char *text = json_dumps(outcome, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
        if (text == NULL) {
            st = status_fail(STATUS_NOMEM, "no memory for the metrics");
        } else {
            size_t n = strlen(text);
            text[n] = '\n';
            st = session_write(session->config.out, text, n + 1);
        }
        free(text);
    }
    json_decref(outcome);
    scorer_close(&scorer);
    return st;
}

static enum status decode_line(const struct model_source *source, const json_t *line,
                               const char *path, int64_t row, struct str *out)
{
    const json_t *ids = json_object_get(line, "ids");
    size_t n = json_array_size(ids);
    int32_t *list;
    TRY(mem_alloc_raw(n, sizeof *list, "ids", &list));
    enum status st = STATUS_OK;
    for (size_t i = 0; i < n && st == STATUS_OK; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= source->encoder.vocab_size)
            st = status_fail(STATUS_DATA,
                             "%s: line %lld: \"ids\" holds something that is no id of this model",
                             path, (long long)row + 1);
        list[i] = (int32_t)json_integer_value(id);
    }
    if (st == STATUS_OK)
        st = tokenizer_decode(source->tokenizer, list, (int64_t)n, out);
    mem_free(list);
    return st;
}

/* {"row":0,"ids":[...]} a line to {"row":0,"text":"..."}. */
static enum status decode(const struct run_config *config, const struct model_source *source)
{
    char *bytes;
    size_t n;
    struct str out = {0}, text = {0};
    int64_t row = 0;
    TRY(file_read(config->data.input, (size_t)1 << 32, &bytes, &n));
    enum status st = str_add(&out, "", 0);
    for (size_t from = 0; from < n && st == STATUS_OK; row++) {
        const char *end = memchr(bytes + from, '\n', n - from);
        size_t length = end == NULL ? n - from : (size_t)(end - bytes) - from;
        json_t *line = NULL;
        str_clear(&text);
        st = json_parse(bytes + from, length, config->data.input, &line);
        if (st == STATUS_OK)
            st = decode_line(source, line, config->data.input, row, &text);
        if (st == STATUS_OK)
            st = str_addf(&out, "{\"row\":%lld,\"text\":", (long long)row);
        if (st == STATUS_OK)
            st = str_add_json(&out, text.p == NULL ? "" : text.p, text.n);
        if (st == STATUS_OK)
            st = str_add(&out, "}\n", 2);
        json_decref(line);
        from += length + 1;
    }
    if (st == STATUS_OK)
        st = session_write(config->out, out.p, out.n);
    str_release(&out);
    str_release(&text);
    mem_free(bytes);
    return st;
}

static enum status tokenizer_verb(struct session *session)
{
    const struct run_config *config = &session->config;
    const char *verb = session->verb == NULL ? "" : session->verb;
    bool encode = strcmp(verb, "encode") == 0;
    struct model_source source;
    int64_t rows;
    int max_length;
    if (strcmp(verb, "train") == 0)
        return tokenizer_train_verb(session);
    if (!encode && strcmp(verb, "decode") != 0)
        return status_fail(STATUS_USAGE, "tokenizer %s: wanted train, encode or decode", verb);
    TRY(session_need("data.input", config->data.input, "the file to read"));
    if (encode && config->data.template[0] == '\0')
        TRY(session_need("data.text", config->data.text, "the column of the text"));
    TRY(model_source_open(config->model.path, config->model.resize_embeddings, &source));
    enum status st = model_max_length(&source, config->data.max_length, &max_length);
    if (st == STATUS_OK)
        st = encode ? predict_encode(config, &source, max_length, &rows) : decode(config, &source);
    model_source_close(&source);
    return st;
}

enum status command_tokenizer(struct session *session)
{
    enum status st = comm_rank(session->world) == 0 ? tokenizer_verb(session) : STATUS_OK;
    /* training takes minutes: the others must not spin on cores that its threads could have */
    enum status waited = comm_wait(session->world, "waiting for rank 0");
    return st == STATUS_OK ? waited : st;
}
