/* run.c - see run.h. */
#include "launcher/run.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/split.h"
#include "launcher/config.h"
#include "worker/source.h"

static enum status take_rows(struct run_data *data)
{
    dataset_get_info(data->ds, &data->info);
    TRY(mem_alloc_raw((size_t)data->info.rows, sizeof *data->rows, "row ids", &data->rows));
    for (int64_t i = 0; i < data->info.rows; i++)
        data->rows[i] = i;
    return STATUS_OK;
}

/* XXH3 of config.json and of every safetensors file of the model's folder. */
static enum status hash_model(const char *folder, uint64_t *hash)
{
    char **names, *path = NULL;
    size_t count;
    enum status st = STATUS_OK;
    *hash = 0;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        size_t n = strlen(names[i]);
        bool weights = n > 12 && strcmp(names[i] + n - 12, ".safetensors") == 0;
        uint64_t one = 0;
        int64_t bytes;
        if (strcmp(names[i], "config.json") != 0 &&
            (!weights || strcmp(names[i], "optimizer.safetensors") == 0))
            continue;
        st = path_join(folder, names[i], &path);
        if (st == STATUS_OK)
            st = hash_file(path, &one, &bytes);
        *hash = hash_combine(*hash, one);
        mem_free(path);
        path = NULL;
    }
    folder_list_free(names, count);
    return st;
}

/* What `auto` and 0 came to on this machine, with this model and data: run.cfg repeats the run
 * elsewhere. */
static void resolve(struct run *run)
{
    static const enum config_pooling poolings[] = {CONFIG_POOLING_CLS, CONFIG_POOLING_POOLER,
                                                   CONFIG_POOLING_MEAN, CONFIG_POOLING_MAX};
    static const enum config_precision precisions[] = {
        CONFIG_PRECISION_FP32, CONFIG_PRECISION_TF32, CONFIG_PRECISION_BF16, CONFIG_PRECISION_FP16};
    struct run_config *out = &run->resolved;
    const char *metric = metric_name(run->task.metric);
    *out = *run->config;
    out->model.pooling = poolings[run->pooling];
    out->train.precision = precisions[run->session->precision];
    if (run->source.tokenizer != NULL)
        out->data.max_length = run->max_length;
    out->data.long_text = run->chunks.size > 0 ? CONFIG_LONG_CHUNK : CONFIG_LONG_TRUNCATE;
    if (run->chunks.size > 0) {
        out->data.chunk_size = run->chunks.size;
        out->data.stride = run->chunks.stride;
        out->data.min_chunk = run->chunks.least;
        out->data.max_text_length = run->chunks.max_text;
        out->data.skip_contained_tail = run->chunks.skip_tail;
        out->model.chunk_pooling = run->chunks.pooling == CHUNK_MAX ? CONFIG_CHUNK_MAX
                                                                    : CONFIG_CHUNK_MEAN;
    }
    memset(out->eval.metric, 0, sizeof out->eval.metric);
    memcpy(out->eval.metric, metric, strlen(metric));
    if (run->folds > 0)
        out->cv.kind = run_split_kind(run);
}

enum status run_identify(struct run *run, int group_ranks)
{
    run->group_ranks = group_ranks;
    TRY(config_identity(&run->resolved, group_ranks, &run->identity));
    run->identity = hash_combine(run->identity, run->train.info.content_hash);
    if (run->eval.ds != NULL)
        run->identity = hash_combine(run->identity, run->eval.info.content_hash);
    run->identity = hash_combine(run->identity, run->source.tokenizer_info.hash);
    run->identity = hash_combine(run->identity, run->model_hash);
    return STATUS_OK;
}

static enum status settle_data(struct run *run, struct run_data *data, const char *path)
{
    if (data->ds == NULL)
        return STATUS_OK;
    TRY(task_map(&run->task, data->ds, path, &data->targets));
    return take_rows(data);
}

/* Everything local after the datasets are open. */
static enum status settle(struct run *run)
{
    const struct run_config *config = run->config;
    TRY(task_decide(config, &run->train.info, run->source.labels, run->source.label_count,
                    &run->task));
    run->task.head_from_model = run->task.head_from_model &&
                                run->source.head_outputs == run->task.outputs;
    TRY(settle_data(run, &run->train, config->data.train));
    TRY(settle_data(run, &run->eval, config->data.eval));
    TRY(settle_data(run, &run->test, config->data.test));
    TRY(task_weigh_classes(&run->task, config->train.class_weights, &run->train.targets, NULL,
                           run->train.info.rows));
    TRY(run_cut(run));
    resolve(run);
    return run_identify(run, run->group_ranks);
}

/* Undo settle(). */
static void unsettle(struct run *run)
{
    struct run_data *data[] = {&run->train, &run->eval, &run->test};
    for (size_t i = 0; i < sizeof data / sizeof data[0]; i++) {
        task_targets_release(&data[i]->targets);
        mem_free(data[i]->rows);
        data[i]->rows = NULL;
    }
    split_plan_close(run->splits);
    run->splits = NULL;
    mem_free(run->fold_table);
    run->fold_table = NULL;
    mem_free(run->grouped);
    run->grouped = NULL;
    run->group = NULL;
    task_release(&run->task);
}

/*
 * Copies: of rows of data.train where it is split, else of its rows in data.eval. Rows of texts
 * alone are not compared. Collective.
 */
static enum status find_leaks(struct run *run, bool with_model)
{
    const struct run_config *config = run->config;
    struct str text = {0};
    bool split = run_has_folds(config) || (config->data.holdout > 0.0 && run->eval.ds == NULL);
    enum status st = STATUS_OK;
    if (!with_model && config->cv.duplicates == CONFIG_DUPLICATES_GROUP && split)
        return status_fail(STATUS_CONFIG,
                           "cv.duplicates=group compares tokens: give model.path, whose tokenizer "
                           "makes them");
    if (!with_model || config->cv.duplicates == CONFIG_DUPLICATES_IGNORE ||
        (!split && run->eval.ds == NULL))
        return STATUS_OK;
    if (split)
        return leaks_find(run->comm, run->train.ds, config->cv.similarity, &run->leaks);
    TRY(leaks_between(run->comm, run->train.ds, run->eval.ds, config->cv.similarity, &run->leaks));
    st = leaks_between_say(&run->leaks, run->train.ds, "data.train", run->eval.ds, "data.eval",
                           &text);
    if (st == STATUS_OK && config->cv.duplicates == CONFIG_DUPLICATES_REFUSE &&
        leaks_any(&run->leaks))
        st = status_fail(STATUS_DATA, "%s; take them out, or give cv.duplicates=report", text.p);
    duplicates_release(&run->leaks.found); /* what is counted stays */
    run->leaks_text = text.p;
    return comm_agree(run->comm, st);
}

enum status run_change(struct run *run, const struct run_config *config, bool *done)
{
    bool same_model, same_data;
    *done = false;
    TRY(config_same(run->config, config, "model.", &same_model));
    TRY(config_same(run->config, config, "data.", &same_data));
    if (!same_model || !same_data || run_has_folds(run->config) != run_has_folds(config))
        return STATUS_OK;
    unsettle(run);
    run->config = config;
    TRY(settle(run));
    *done = true;
    return STATUS_OK;
}

/* Rows that are kept as text are never cut to a length; a dataset wants one all the same. */
enum { NO_LENGTH = 64 };

static enum status open_with(struct session *session, struct comm *comm,
                             const struct run_config *config, const char *cache, bool with_model,
                             struct run *out)
{
    bool folds = run_has_folds(config);
    enum status st = STATUS_OK;
    *out = (struct run){
        .session = session, .comm = comm, .config = config, .group_ranks = comm_size(comm)};
    TRY(session_need("data.train", config->data.train, "the training rows"));
    model_source_none(&out->source);
    out->max_length = NO_LENGTH;
    if (with_model)
        st = model_source_open(config->model.path, config->model.resize_embeddings, &out->source);
    if (with_model && st == STATUS_OK)
        st = model_max_length(&out->source, config->data.max_length, &out->max_length);
    if (with_model && st == STATUS_OK)
        st = model_chunks(&out->source, config, out->max_length, &out->chunks);
    TRY_GOTO(fail, comm_agree(comm, st));
    out->pooling = model_pooling(&out->source, config->model.pooling);
    TRY_GOTO(fail, source_open(comm, config, &out->source, "data.train", config->data.train, cache,
                               out->max_length, &out->chunks, &out->train.ds));
    dataset_get_info(out->train.ds, &out->train.info);
    if (config->data.eval[0] != '\0' && !folds)
        TRY_GOTO(fail, source_open(comm, config, &out->source, "data.eval", config->data.eval,
                                   cache, out->max_length, &out->chunks, &out->eval.ds));
    if (config->data.test[0] != '\0' &&
        !folds) /* now: a wrong path must not be found after training */
        TRY_GOTO(fail, source_open(comm, config, &out->source, "data.test", config->data.test,
                                   cache, out->max_length, &out->chunks, &out->test.ds));
    if (folds && (config->data.eval[0] != '\0' || config->data.test[0] != '\0'))
        log_warning(
            "data.eval and data.test are not used under cross-validation: each fold is scored on "
            "its own rows");
    if (config->data.eval[0] != '\0' && config->data.holdout > 0.0)
        log_warning("data.holdout is not used: data.eval is given");
    if (comm_rank(comm) == 0 && with_model)
        st = hash_model(config->model.path, &out->model_hash);
    TRY_GOTO(fail, comm_agree(comm, st));
    TRY_GOTO(fail, comm_broadcast(comm, &out->model_hash, sizeof out->model_hash, 0));
    TRY_GOTO(fail, find_leaks(out, with_model));
    TRY_GOTO(fail, comm_agree(comm, settle(out)));
    return STATUS_OK;
fail:
    run_close(out);
    return st;
}

enum status run_open(struct session *session, struct comm *comm, const struct run_config *config,
                     const char *cache, struct run *out)
{
    return open_with(session, comm, config, cache, true, out);
}

enum status run_open_texts(struct session *session, struct comm *comm,
                           const struct run_config *config, const char *cache, struct run *out)
{
    return open_with(session, comm, config, cache, false, out);
}

void run_close(struct run *run)
{
    unsettle(run);
    leaks_release(&run->leaks);
    mem_free(run->leaks_text);
    dataset_close(run->train.ds);
    dataset_close(run->eval.ds);
    dataset_close(run->test.ds);
    model_source_close(&run->source);
    *run = (struct run){0};
}
