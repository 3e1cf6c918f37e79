/* outcome.c - see outcome.h. */
#include "launcher/outcome.h"

#include <math.h>
#include <stdio.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/safetensors.h"

static enum status write_scores(const char *path, const int64_t *row, int64_t rows, int outputs,
                                const float *logits)
{
    struct safetensors_entry entries[2] = {
        {.name = "logits", .dtype = TENSOR_F32, .rank = 2, .shape = {rows, outputs}},
        {.name = "row", .dtype = TENSOR_I64, .rank = 1, .shape = {rows}},
    };
    struct safetensors_writer *writer;
    TRY(safetensors_create(path, entries, 2, NULL, true, &writer));
    enum status st = safetensors_write(writer, 0, 0, rows * outputs, logits), end;
    if (st == STATUS_OK)
        st = safetensors_write_bytes(writer, 1, 0, rows * (int64_t)sizeof *row, row);
    end = safetensors_finish(writer);
    return st == STATUS_OK ? end : st;
}

enum status outcome_score(const struct run *run, bool of_train, const int64_t *rows, int64_t n,
                          const float *logits, double *score)
{
    struct scored scored;
    struct metric_values values;
    TRY(task_scored(&run->task, of_train ? &run->train.targets : &run->eval.targets, rows, n,
                    logits, &scored));
    enum status st = metrics_compute(&scored, &values);
    if (st == STATUS_OK) {
        *score = values.value[run->task.metric];
        metrics_release(&values);
    }
    task_scored_release(&scored);
    return st;
}

enum status outcome_save(const struct run *run, const struct trial_id *id, const char *folder,
                         const struct run_rows *rows, const struct trial_result *result)
{
    char *scores = NULL, *path = NULL;
    double score = NAN;
    json_t *object = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, path_join(folder, "scores.safetensors", &scores));
    TRY_GOTO(done, path_join(folder, "result.json", &path));
    TRY_GOTO(done, outcome_score(run, rows->select_is_train_data, rows->score, rows->score_count,
                                 result->logits, &score));
    TRY_GOTO(done, write_scores(scores, rows->score, rows->score_count, run->task.outputs,
                                result->logits));
    object = json_pack("{s:s, s:i, s:i, s:i, s:s, s:o, s:I, s:I, s:I, s:I, s:f, s:o}", "format",
                       "cohort-fold", "repeat", id->repeat, "fold", id->fold, "inner", id->inner,
                       "metric", metric_name(run->task.metric), "score", json_finite(score),
                       "best_step", (json_int_t)result->best_step, "steps",
                       (json_int_t)result->steps, "tokens", (json_int_t)result->tokens, "rows",
                       (json_int_t)rows->score_count, "seconds", result->seconds, "run",
                       json_hex64(run->identity));
    st = object == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                        : json_write_file(path, object);
done:
    json_decref(object);
    mem_free(scores);
    mem_free(path);
    return st;
}

static enum status read_scores(const struct run *run, const char *path, struct outcome *out)
{
    struct safetensors *file;
    int64_t rows = run->splits != NULL ? run->train.info.rows : run->eval.info.rows;
    enum status st = STATUS_OK;
    TRY(safetensors_open(path, &file));
    const struct tensor_info *logits = safetensors_find(file, "logits"),
                             *row = safetensors_find(file, "row");
    if (logits == NULL || row == NULL || row->dtype != TENSOR_I64 || row->elements != out->rows ||
        logits->elements != out->rows * run->task.outputs) {
        st = status_fail(STATUS_FORMAT, "%s does not hold the logits of %lld rows", path,
                         (long long)out->rows);
        goto done;
    }
    TRY_GOTO(done, mem_alloc_raw((size_t)out->rows, sizeof *out->row, "row ids", &out->row));
    TRY_GOTO(done,
             mem_alloc_raw((size_t)logits->elements, sizeof *out->logits, "logits", &out->logits));
    TRY_GOTO(done, safetensors_read(file, logits, 0, logits->elements, out->logits));
    TRY_GOTO(done, safetensors_read_bytes(file, row, 0, row->size_bytes, out->row));
    for (int64_t i = 0; i < out->rows; i++) {
        if (out->row[i] < 0 || out->row[i] >= rows) {
            st = status_fail(STATUS_FORMAT, "%s names row %lld, the data has %lld", path,
                             (long long)out->row[i], (long long)rows);
            goto done;
        }
    }
done:
    safetensors_close(file);
    return st;
}

/* NULL where there is no such file. */
static enum status read_mark(const char *folder, const char *name, uint64_t run, char **path,
                             json_t **out)
{
    uint64_t identity;
    enum status st = STATUS_OK;
    *out = NULL;
    TRY(path_join(folder, name, path));
    if (!file_exists(*path))
        return STATUS_OK;
    TRY(json_read_file(*path, 1 << 20, out));
    TRY_GOTO(fail, json_get_hex64(*out, "run", *path, &identity));
    if (identity == run)
        return STATUS_OK;
    st = status_fail(STATUS_CONFIG, "%s is of a run with another configuration", folder);
fail:
    json_decref(*out);
    *out = NULL;
    return st;
}

enum status outcome_load(const struct run *run, const struct trial_id *id, const char *folder,
                         struct outcome *out, bool *finished)
{
    char *scores = NULL, *path = NULL;
    json_t *object = NULL;
    enum status st = STATUS_OK;
    *out = (struct outcome){.id = *id};
    *finished = false;
    TRY_GOTO(done, path_join(folder, "scores.safetensors", &scores));
    TRY_GOTO(done, read_mark(folder, "result.json", run->identity, &path, &object));
    if (object == NULL)
        goto done;
    TRY_GOTO(done, json_real_or(object, "score", path, NAN, &out->score));
    TRY_GOTO(done, json_int(object, "best_step", path, 0, INT64_MAX, &out->best_step));
    TRY_GOTO(done, json_int(object, "steps", path, 0, INT64_MAX, &out->steps));
    TRY_GOTO(done, json_int(object, "tokens", path, 0, INT64_MAX, &out->tokens));
    TRY_GOTO(done, json_int(object, "rows", path, 0, INT64_MAX, &out->rows));
    TRY_GOTO(done, json_real_or(object, "seconds", path, 0.0, &out->seconds));
    TRY_GOTO(done, read_scores(run, scores, out));
    *finished = true;
done:
    json_decref(object);
    mem_free(scores);
    mem_free(path);
    if (st != STATUS_OK)
        outcome_release(out);
    return st;
}

void outcome_release(struct outcome *outcome)
{
    mem_free(outcome->row);
    mem_free(outcome->logits);
    outcome->row = NULL;
    outcome->logits = NULL;
}

enum status outcome_peek(const char *folder, int rung, uint64_t identity, double *score,
                         bool *finished)
{
    char name[32], *path = NULL;
    json_t *object = NULL;
    *finished = false;
    (void)snprintf(name, sizeof name, rung < 0 ? "result.json" : "rung-%d.json", rung);
    enum status st = read_mark(folder, name, identity, &path, &object);
    if (st == STATUS_OK && object != NULL) {
        st = json_real_or(object, "score", path, NAN, score);
        *finished = st == STATUS_OK;
    }
    json_decref(object);
    mem_free(path);
    return st;
}

static enum status write_mark(const char *folder, const char *name, json_t *object)
{
    char *path = NULL;
    enum status st = path_join(folder, name, &path);
    if (st == STATUS_OK)
        st = object == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                            : json_write_file(path, object);
    json_decref(object);
    mem_free(path);
    return st;
}

enum status outcome_save_rung(const struct run *run, const char *folder, int rung,
                              const struct trial_result *result, double score)
{
    char name[32];
    (void)snprintf(name, sizeof name, "rung-%d.json", rung);
    return write_mark(folder, name,
                      json_pack("{s:s, s:i, s:I, s:s, s:o, s:o}", "format", "cohort-rung", "rung",
                                rung, "step", (json_int_t)result->steps, "metric",
                                metric_name(run->task.metric), "score", json_finite(score), "run",
                                json_hex64(run->identity)));
}

enum status outcome_save_failure(uint64_t identity, const char *folder, const char *sentence)
{
    TRY(folder_make(folder));
    return write_mark(folder, "failed.json",
                      json_pack("{s:s, s:s, s:o}", "format", "cohort-failure", "sentence", sentence,
                                "run", json_hex64(identity)));
}

enum status outcome_peek_failure(const char *folder, uint64_t identity, bool *failed)
{
    char *path = NULL;
    json_t *object = NULL;
    enum status st = read_mark(folder, "failed.json", identity, &path, &object);
    *failed = object != NULL;
    json_decref(object);
    mem_free(path);
    return st;
}
