/*
 * cv.c - finished folds on disk, and the out-of-fold table made of them; see run.h.
 *
 * A fold is finished when fold-<k>/result.json is there: it is written last, atomically, and names
 * the run it is of. The pooled score treats all folds' scores as one set; models of different folds
 * are calibrated differently, so the mean of the folds' own scores is reported beside it.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/safetensors.h"
#include "data/scores.h"
#include "data/text.h"
#include "launcher/run.h"
#include "worker/evaluate.h"

enum { RESAMPLES = 1000 };

/* ---- one fold ---- */

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

static enum status score_of(const struct run *run, const int64_t *rows, int64_t n,
                            const float *logits, double *score)
{
    struct scored scored;
    struct metric_values values;
    TRY(task_scored(&run->task, &run->train.targets, rows, n, logits, &scored));
    enum status st = metrics_compute(&scored, &values);
    if (st == STATUS_OK) {
        *score = values.value[run->task.metric];
        metrics_release(&values);
    }
    task_scored_release(&scored);
    return st;
}

enum status fold_save(const struct run *run, int fold, const char *folder,
                      const struct run_rows *rows, const struct trial_result *result)
{
    char *scores = NULL, *path = NULL;
    double score = NAN;
    json_t *object = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, path_join(folder, "scores.safetensors", &scores));
    TRY_GOTO(done, path_join(folder, "result.json", &path));
    TRY_GOTO(done, score_of(run, rows->score, rows->score_count, result->logits, &score));
    TRY_GOTO(done, write_scores(scores, rows->score, rows->score_count, run->task.outputs,
                                result->logits));
    object = json_pack("{s:s, s:i, s:s, s:o, s:I, s:I, s:I, s:I, s:f, s:o}", "format",
                       "cohort-fold", "fold", fold, "metric", metric_name(run->task.metric),
                       "score", json_finite(score), "best_step", (json_int_t)result->best_step,
                       "steps", (json_int_t)result->steps, "tokens", (json_int_t)result->tokens,
                       "rows", (json_int_t)rows->score_count, "seconds", result->seconds, "run",
                       json_hex64(run->identity));
    st = object == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                        : json_write_file(path, object);
done:
    json_decref(object);
    mem_free(scores);
    mem_free(path);
    return st;
}

static enum status read_scores(const struct run *run, const char *path, struct fold_outcome *out)
{
    struct safetensors *file;
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
        if (out->row[i] < 0 || out->row[i] >= run->train.info.rows) {
            st = status_fail(STATUS_FORMAT, "%s names row %lld, the data has %lld", path,
                             (long long)out->row[i], (long long)run->train.info.rows);
            goto done;
        }
    }
done:
    safetensors_close(file);
    return st;
}

enum status fold_load(const struct run *run, int fold, const char *folder, struct fold_outcome *out,
                      bool *finished)
{
    char *scores = NULL, *path = NULL;
    json_t *object = NULL;
    uint64_t identity;
    enum status st = STATUS_OK;
    *out = (struct fold_outcome){.fold = fold};
    *finished = false;
    TRY_GOTO(done, path_join(folder, "scores.safetensors", &scores));
    TRY_GOTO(done, path_join(folder, "result.json", &path));
    if (!file_exists(path))
        goto done;
    TRY_GOTO(done, json_read_file(path, 1 << 20, &object));
    TRY_GOTO(done, json_get_hex64(object, "run", path, &identity));
    if (identity != run->identity) {
        st = status_fail(STATUS_CONFIG, "%s is of a run with another configuration", folder);
        goto done;
    }
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
        fold_outcome_release(out);
    return st;
}

void fold_outcome_release(struct fold_outcome *outcome)
{
    mem_free(outcome->row);
    mem_free(outcome->logits);
    outcome->row = NULL;
    outcome->logits = NULL;
}

/* ---- all folds ---- */

struct oof {
    int64_t rows;
    int64_t *row;
    int32_t *fold;
    float *logits, *scores;
    char **id; /* NULL where the data has none */
};

static void oof_release(struct oof *oof)
{
    for (int64_t i = 0; oof->id != NULL && i < oof->rows; i++)
        mem_free(oof->id[i]);
    mem_free(oof->id);
    mem_free(oof->row);
    mem_free(oof->fold);
    mem_free(oof->logits);
    mem_free(oof->scores);
}

/* All folds' rows in the order of their ids. */
static enum status pool(const struct run *run, const struct fold_outcome *folds, int count,
                        struct oof *out)
{
    int64_t n = run->train.info.rows;
    int rows;
    size_t outputs = (size_t)run->task.outputs;
    int64_t *place = NULL; /* index of a row in the pooled table, + 1 */
    enum status st = STATUS_OK;
    *out = (struct oof){0};
    TRY_GOTO(done, mem_alloc((size_t)n, sizeof *place, "the out-of-fold table", &place));
    for (int f = 0; f < count; f++) {
        for (int64_t i = 0; i < folds[f].rows; i++) {
            if (place[folds[f].row[i]] != 0) {
                st = status_fail(STATUS_INTERNAL, "row %lld was scored by two folds",
                                 (long long)folds[f].row[i]);
                goto done;
            }
            place[folds[f].row[i]] = 1;
        }
    }
    for (int64_t r = 0; r < n; r++) {
        if (place[r] != 0)
            place[r] = ++out->rows;
    }
    TRY_GOTO(done, checked_int(out->rows, "the number of scored rows", &rows));
    TRY_GOTO(done, mem_alloc_raw((size_t)out->rows, sizeof *out->row, "the out-of-fold table",
                                 &out->row));
    TRY_GOTO(done, mem_alloc_raw((size_t)out->rows, sizeof *out->fold, "the out-of-fold table",
                                 &out->fold));
    TRY_GOTO(done, mem_alloc_raw((size_t)out->rows * outputs, sizeof *out->logits,
                                 "the out-of-fold table", &out->logits));
    TRY_GOTO(done, mem_alloc_raw((size_t)out->rows * outputs, sizeof *out->scores,
                                 "the out-of-fold table", &out->scores));
    for (int f = 0; f < count; f++) {
        for (int64_t i = 0; i < folds[f].rows; i++) {
            int64_t at = place[folds[f].row[i]] - 1;
            out->row[at] = folds[f].row[i];
            out->fold[at] = folds[f].fold;
            memcpy(out->logits + (size_t)at * outputs, folds[f].logits + (size_t)i * outputs,
                   outputs * sizeof *out->logits);
        }
    }
    loss_probabilities(&run->task.loss, rows, out->logits, out->scores);
    if (run->train.info.has_ids) {
        TRY_GOTO(done, mem_alloc((size_t)out->rows, sizeof *out->id, "row names", &out->id));
        for (int64_t i = 0; i < out->rows && st == STATUS_OK; i++) {
            struct str id = {0};
            st = str_add(&id, "", 0);
            if (st == STATUS_OK)
                st = dataset_row_id(run->train.ds, out->row[i], &id);
            out->id[i] = id.p;
        }
    }
done:
    mem_free(place);
    return st;
}

enum status cv_score_so_far(const struct run *run, const struct fold_outcome *folds, int count,
                            double *score)
{
    struct oof oof = {0};
    enum status st = pool(run, folds, count, &oof);
    *score = NAN;
    if (st == STATUS_OK)
        st = score_of(run, oof.row, oof.rows, oof.logits, score);
    oof_release(&oof);
    return st;
}

static enum status add_target(const struct run *run, int64_t row, struct str *out)
{
    const struct task_targets *targets = &run->train.targets;
    if (targets->label != NULL)
        return str_addf(out, "%s", run->task.labels[targets->label[row]]);
    for (int c = 0; c < run->task.outputs; c++) {
        TRY(str_add(out, ",", c == 0 ? 0 : 1));
        TRY(str_add_float(out, targets->value[row * run->task.outputs + c]));
    }
    return STATUS_OK;
}

static enum status write_tsv(const struct run *run, const struct oof *oof, const char *path)
{
    const struct task_spec *task = &run->task;
    struct text_writer *writer;
    struct str *names = NULL;
    struct text_cell *cells = NULL;
    struct str target = {0};
    int outputs = task->outputs;
    TRY(text_writer_open(path, &writer));
    enum status st = mem_alloc((size_t)outputs, sizeof *names, "column names", &names);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)outputs + 4, sizeof *cells, "columns", &cells);
    for (int c = 0; c < outputs && st == STATUS_OK; c++)
        st = outputs == 1 ? str_addf(&names[c], "preds")
                          : str_addf(&names[c], "pred_%s", task->labels[c]);
    for (int64_t i = 0; i < oof->rows && st == STATUS_OK; i++) {
        int n = 0;
        str_clear(&target);
        st = str_add(&target, "", 0);
        if (st == STATUS_OK)
            st = add_target(run, oof->row[i], &target);
        cells[n++] = (struct text_cell){.name = "row", .kind = CELL_INT, .integer = oof->row[i]};
        if (oof->id != NULL)
            cells[n++] = (struct text_cell){
                .name = "id",
                .kind = CELL_TEXT,
                .text = {oof->id[i], oof->id[i] == NULL ? 0 : strlen(oof->id[i])}};
        cells[n++] = (struct text_cell){.name = "fold", .kind = CELL_INT, .integer = oof->fold[i]};
        cells[n++] =
            (struct text_cell){.name = "label", .kind = CELL_TEXT, .text = {target.p, target.n}};
        for (int c = 0; c < outputs; c++)
            cells[n++] = (struct text_cell){.name = names[c].p,
                                            .kind = CELL_FLOATS,
                                            .floats = oof->scores + i * outputs + c,
                                            .n = 1};
        if (st == STATUS_OK)
            st = text_writer_row(writer, cells, n);
    }
    enum status end = text_writer_close(writer, st == STATUS_OK);
    for (int c = 0; c < outputs && names != NULL; c++)
        str_release(&names[c]);
    mem_free(names);
    mem_free(cells);
    str_release(&target);
    return st == STATUS_OK ? end : st;
}

static enum status write_hdf5(const struct run *run, const struct oof *oof, const char *path)
{
    const struct task_targets *targets = &run->train.targets;
    size_t n = (size_t)oof->rows, outputs = (size_t)run->task.outputs;
    int32_t *label = NULL;
    float *value = NULL;
    enum status st = STATUS_OK;
    if (targets->label != NULL)
        TRY(mem_alloc_raw(n, sizeof *label, "labels", &label));
    else
        TRY(mem_alloc_raw(n * outputs, sizeof *value, "targets", &value));
    for (size_t i = 0; i < n; i++) {
        if (label != NULL)
            label[i] = targets->label[oof->row[i]];
        else
            memcpy(value + i * outputs, targets->value + (size_t)oof->row[i] * outputs,
                   outputs * sizeof *value);
    }
    struct scores_table table = {.rows = oof->rows,
                                 .outputs = run->task.outputs,
                                 .classes = run->task.classes,
                                 .row = oof->row,
                                 .fold = oof->fold,
                                 .logits = oof->logits,
                                 .scores = oof->scores,
                                 .label = label,
                                 .value = value,
                                 .names = (const char *const *)run->task.labels,
                                 .id = (const char *const *)oof->id};
    st = scores_write(path, &table);
    mem_free(label);
    mem_free(value);
    return st;
}

/* Mean and standard deviation (n - 1) of the folds' scores; NaN where one is undefined. */
static void mean_and_std(const struct fold_outcome *folds, int count, double *mean, double *std)
{
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < count; i++)
        sum += folds[i].score;
    *mean = sum / count;
    for (int i = 0; i < count; i++)
        squares += (folds[i].score - *mean) * (folds[i].score - *mean);
    *std = count > 1 ? sqrt(squares / (count - 1)) : NAN;
}

static enum status describe(const struct run *run, const struct oof *oof,
                            const struct fold_outcome *folds, int count, json_t *results)
{
    static const char *const selects[] = {"last", "inner", "best"};
    struct scored scored = {0};
    struct metric_values values = {0};
    double mean, std, ci95[2];
    json_t *list = json_array();
    enum status st =
        task_scored(&run->task, &run->train.targets, oof->row, oof->rows, oof->logits, &scored);
    if (st == STATUS_OK)
        st = metrics_compute(&scored, &values);
    if (st == STATUS_OK)
        st = metrics_interval(&scored, run->task.metric, (uint64_t)run->config->seed, RESAMPLES,
                              ci95);
    if (st == STATUS_OK) {
        json_t *described = evaluation_json(&run->task, &values, oof->rows);
        double score = values.value[run->task.metric];
        mean_and_std(folds, count, &mean, &std);
        for (int i = 0; i < count; i++)
            (void)json_array_append_new(
                list, json_pack("{s:i, s:o, s:I, s:I, s:I, s:f}", "fold", folds[i].fold, "score",
                                json_finite(folds[i].score), "best_step",
                                (json_int_t)folds[i].best_step, "rows", (json_int_t)folds[i].rows,
                                "steps", (json_int_t)folds[i].steps, "seconds", folds[i].seconds));
        (void)json_object_update(results, described);
        json_decref(described);
        (void)json_object_set(results, "folds", list);
        (void)json_object_set_new(
            results, "oof",
            json_pack("{s:o, s:o, s:o, s:[o,o], s:s, s:b}", "score", json_finite(score), "mean",
                      json_finite(mean), "std", json_finite(std), "ci95", json_finite(ci95[0]),
                      json_finite(ci95[1]), "select", selects[run->config->cv.select], "optimistic",
                      (int)(run->config->cv.select == CONFIG_SELECT_BEST)));
    }
    json_decref(list);
    metrics_release(&values);
    task_scored_release(&scored);
    return st;
}

static void say(const struct run *run, const struct fold_outcome *folds, int count,
                const json_t *results)
{
    const json_t *oof = json_object_get(results, "oof"), *ci = json_object_get(oof, "ci95");
    const char *metric = metric_name(run->task.metric);
    double mean, std;
    mean_and_std(folds, count, &mean, &std);
    log_info("========== CV ==========");
    log_info("fold   rows  %10s  step", metric);
    for (int i = 0; i < count; i++) {
        char score[24];
        (void)snprintf(score, sizeof score, isnan(folds[i].score) ? "undefined" : "%.4f",
                       folds[i].score);
        log_info("%4d %6lld  %10s  %lld", folds[i].fold, (long long)folds[i].rows, score,
                 (long long)folds[i].best_step);
    }
    if (isnan(mean))
        log_info("mean of folds: undefined");
    else
        log_info(isnan(std) ? "mean of folds: %.4f" : "mean of folds: %.4f +- %.4f", mean, std);
    const json_t *score = json_object_get(oof, "score");
    if (!json_is_number(score))
        log_info("Score: undefined");
    else
        log_info("Score: %.4f", json_number_value(score));
    if (json_is_number(json_array_get(ci, 0)))
        log_info("95 %% interval of the pooled %s: %.4f to %.4f%s", metric,
                 json_number_value(json_array_get(ci, 0)), json_number_value(json_array_get(ci, 1)),
                 run->config->cv.select == CONFIG_SELECT_BEST ? "  (cv.select=best: optimistic)"
                                                              : "");
}

enum status cv_finish(const struct run *run, struct fold_outcome *folds, int count, json_t *results)
{
    struct oof oof = {0};
    char *tsv = NULL, *hdf5 = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, pool(run, folds, count, &oof));
    TRY_GOTO(done, path_join(run->config->out, "oof.tsv", &tsv));
    TRY_GOTO(done, path_join(run->config->out, "oof.h5", &hdf5));
    TRY_GOTO(done, write_tsv(run, &oof, tsv));
    TRY_GOTO(done, write_hdf5(run, &oof, hdf5));
    TRY_GOTO(done, describe(run, &oof, folds, count, results));
    say(run, folds, count, results);
done:
    oof_release(&oof);
    mem_free(tsv);
    mem_free(hdf5);
    return st;
}
