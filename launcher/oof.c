/* oof.c - see oof.h. */
#include "launcher/oof.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/scores.h"
#include "data/text.h"
#include "worker/calibration.h"
#include "worker/evaluate.h"

enum { RESAMPLES = 1000, CALIBRATED_FOLDS = 100 };

/* ---- the table ---- */

/* One row scored by one trial. */
struct entry {
    int64_t row;
    int repeat, fold;
    const float *logits;
};

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->repeat != y->repeat)
        return x->repeat < y->repeat ? -1 : 1;
    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    return (x->fold > y->fold) - (x->fold < y->fold);
}

static enum status take_entries(const struct run *run, const struct outcome *trials, int count,
                                int64_t rows, struct entry *entry)
{
    int64_t n = 0;
    for (int t = 0; t < count; t++) {
        for (int64_t i = 0; i < trials[t].rows; i++)
            entry[n++] = (struct entry){.row = trials[t].row[i],
                                        .repeat = trials[t].id.repeat,
                                        .fold = trials[t].id.fold,
                                        .logits = trials[t].logits + i * run->task.outputs};
    }
    qsort(entry, (size_t)rows, sizeof *entry, by_place);
    for (int64_t i = 1; i < rows && run->partition; i++) {
        if (entry[i].repeat == entry[i - 1].repeat && entry[i].row == entry[i - 1].row)
            return status_fail(STATUS_INTERNAL, "row %lld was scored by folds %d and %d",
                               (long long)entry[i].row, entry[i - 1].fold, entry[i].fold);
    }
    return STATUS_OK;
}

static enum status take_ids(const struct run *run, struct oof *out)
{
    TRY(mem_alloc((size_t)out->rows, sizeof *out->id, "row names", &out->id));
    for (int64_t i = 0; i < out->rows; i++) {
        struct str id = {0};
        enum status st = str_add(&id, "", 0);
        if (st == STATUS_OK)
            st = dataset_row_id(run->train.ds, out->row[i], &id);
        out->id[i] = id.p;
        TRY(st);
    }
    return STATUS_OK;
}

enum status oof_pool(const struct run *run, const struct outcome *trials, int count,
                     struct oof *out)
{
    size_t outputs = (size_t)run->task.outputs, n;
    struct entry *entry = NULL;
    int rows;
    enum status st = STATUS_OK;
    *out = (struct oof){.repeats = run->repeats};
    for (int t = 0; t < count; t++)
        out->rows += trials[t].rows;
    TRY(checked_int(out->rows, "the number of scored rows", &rows));
    n = (size_t)rows;
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *entry, "the out-of-fold table", &entry));
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *out->row, "the out-of-fold table", &out->row));
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *out->repeat, "the out-of-fold table", &out->repeat));
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *out->fold, "the out-of-fold table", &out->fold));
    TRY_GOTO(done, mem_alloc_raw(n * outputs, sizeof *out->logits, "the out-of-fold table",
                                 &out->logits));
    TRY_GOTO(done, mem_alloc_raw(n * outputs, sizeof *out->scores, "the out-of-fold table",
                                 &out->scores));
    TRY_GOTO(done, take_entries(run, trials, count, rows, entry));
    for (size_t i = 0; i < n; i++) {
        out->row[i] = entry[i].row;
        out->repeat[i] = entry[i].repeat;
        out->fold[i] = entry[i].fold;
        memcpy(out->logits + i * outputs, entry[i].logits, outputs * sizeof *out->logits);
    }
    loss_probabilities(&run->task.loss, rows, out->logits, out->scores);
    if (run->train.info.has_ids)
        TRY_GOTO(done, take_ids(run, out));
done:
    mem_free(entry);
    if (st != STATUS_OK)
        oof_release(out);
    return st;
}

void oof_release(struct oof *oof)
{
    for (int64_t i = 0; oof->id != NULL && i < oof->rows; i++)
        mem_free(oof->id[i]);
    mem_free(oof->id);
    mem_free(oof->row);
    mem_free(oof->repeat);
    mem_free(oof->fold);
    mem_free(oof->logits);
    mem_free(oof->scores);
    *oof = (struct oof){0};
}

/* ---- files ---- */

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
        st = mem_alloc((size_t)outputs + 5, sizeof *cells, "columns", &cells);
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
        if (oof->repeats > 1)
            cells[n++] =
                (struct text_cell){.name = "repeat", .kind = CELL_INT, .integer = oof->repeat[i]};
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
                                 .repeat = oof->repeats > 1 ? oof->repeat : NULL,
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

enum status oof_write(const struct run *run, const struct oof *oof, const char *folder)
{
    char *tsv = NULL, *hdf5 = NULL;
    enum status st = path_join(folder, "oof.tsv", &tsv);
    if (st == STATUS_OK)
        st = path_join(folder, "oof.h5", &hdf5);
    if (st == STATUS_OK)
        st = write_tsv(run, oof, tsv);
    if (st == STATUS_OK)
        st = write_hdf5(run, oof, hdf5);
    mem_free(tsv);
    mem_free(hdf5);
    return st;
}

/* ---- scores ---- */

/* The rows of one repeat, as the metrics want them; a row that several splits have scored counts
 * each time. Released by task_scored_release(). */
static enum status scored_of(const struct run *run, const struct oof *oof, int repeat,
                             struct scored *out)
{
    int64_t first = 0, end;
    while (first < oof->rows && oof->repeat[first] < repeat)
        first++;
    for (end = first; end < oof->rows && oof->repeat[end] == repeat; end++)
        ;
    TRY(task_scored(&run->task, &run->train.targets, oof->row + first, end - first,
                    oof->logits + first * run->task.outputs, out));
    int64_t *place = (int64_t *)out->row; /* ours until it is released */
    for (int64_t i = 0; i < end - first && !run->partition; i++)
        place[i] = i;
    return STATUS_OK;
}

void outcome_mean(const struct outcome *trials, int count, double *mean, double *std)
{
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < count; i++)
        sum += trials[i].score;
    *mean = sum / count;
    for (int i = 0; i < count; i++)
        squares += (trials[i].score - *mean) * (trials[i].score - *mean);
    *std = count > 1 ? sqrt(squares / (count - 1)) : NAN;
}

static enum status score_repeat(const struct run *run, const struct oof *oof, int repeat,
                                bool with_interval, struct oof_scores *out)
{
    struct scored scored;
    struct metric_values values = {0};
    double ends[2];
    uint64_t seed = (uint64_t)run->config->seed;
    TRY(scored_of(run, oof, repeat, &scored));
    enum status st = metrics_compute(&scored, &values);
    if (st == STATUS_OK)
        out->repeat[repeat] = values.value[run->task.metric];
    if (st == STATUS_OK && with_interval) {
        st = metrics_interval(&scored, run->task.metric, seed, RESAMPLES, ends);
        for (int e = 0; e < 2 && st == STATUS_OK; e++)
            out->ci95[e] += ends[e] / oof->repeats;
    }
    metrics_release(&values);
    task_scored_release(&scored);
    return st;
}

enum status oof_score(const struct run *run, const struct oof *oof, const struct outcome *trials,
                      int count, bool with_interval, struct oof_scores *out)
{
    enum status st = STATUS_OK;
    *out = (struct oof_scores){.repeats = oof->repeats};
    TRY(mem_alloc((size_t)oof->repeats, sizeof *out->repeat, "scores", &out->repeat));
    for (int r = 0; r < oof->repeats && st == STATUS_OK; r++) {
        comm_mark(-1, "scoring");
        st = score_repeat(run, oof, r, with_interval, out);
        out->score += out->repeat[r] / oof->repeats;
    }
    if (!with_interval)
        out->ci95[0] = out->ci95[1] = NAN;
    outcome_mean(trials, count, &out->mean, &out->std);
    if (st != STATUS_OK)
        oof_scores_release(out);
    return st;
}

void oof_scores_release(struct oof_scores *scores)
{
    mem_free(scores->repeat);
    *scores = (struct oof_scores){0};
}

json_t *oof_json(const struct run *run, const struct oof_scores *scores)
{
    static const char *const selects[] = {"last", "inner", "best"};
    json_t *out = json_pack("{s:o, s:o, s:o, s:[o,o], s:s, s:b}", "score",
                            json_finite(scores->score), "mean", json_finite(scores->mean), "std",
                            json_finite(scores->std), "ci95", json_finite(scores->ci95[0]),
                            json_finite(scores->ci95[1]), "select", selects[run->config->cv.select],
                            "optimistic", (int)(run->config->cv.select == CONFIG_SELECT_BEST));
    if (scores->repeats > 1) {
        json_t *list = json_array();
        for (int r = 0; r < scores->repeats; r++)
            (void)json_array_append_new(list, json_finite(scores->repeat[r]));
        (void)json_object_set_new(out, "repeats", list);
    }
    return out;
}

/* "calibration": what a temperature and thresholds, chosen for each fold on the others' rows, would
 * make of the table's first repeat. Each of very many folds would see nearly all rows. */
static enum status add_calibration(const struct run *run, const struct oof *oof,
                                   const struct scored *scored, json_t *out)
{
    json_t *calibration = NULL;
    bool several = false;
    for (int i = 1; i < scored->n; i++)
        several = several || oof->fold[i] != oof->fold[0];
    if (run->task.task == TASK_REGRESSION || !run->partition || !several ||
        run->folds > CALIBRATED_FOLDS)
        return STATUS_OK;
    enum metric metric = threshold_metric(run->task.metric, run->task.task) ? run->task.metric
                                                                            : METRIC_F1;
    TRY(calibration_json(scored, oof->fold, run->folds, metric, &calibration));
    return json_object_set_new(out, "calibration", calibration) == 0
               ? STATUS_OK
               : status_fail(STATUS_NOMEM, "no memory for results.json");
}

enum status oof_describe(const struct run *run, const struct oof *oof,
                         const struct oof_scores *scores, json_t **out)
{
    struct scored scored;
    struct metric_values values = {0};
    *out = NULL;
    TRY(scored_of(run, oof, 0, &scored));
    enum status st = metrics_compute(&scored, &values);
    if (st == STATUS_OK) {
        *out = evaluation_json(&run->task, &values, scored.n);
        if (*out == NULL || json_object_set_new(*out, "score", json_finite(scores->score)) != 0)
            st = status_fail(STATUS_NOMEM, "no memory for results.json");
    }
    if (st == STATUS_OK)
        st = add_calibration(run, oof, &scored, *out);
    metrics_release(&values);
    task_scored_release(&scored);
    return st;
}
