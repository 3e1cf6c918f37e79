/* evaluate.c - see evaluate.h. */
#include "worker/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/text.h"
#include "worker/ensemble.h"
#include "worker/scoring.h"
#include "worker/source.h"

static const char *task_name(enum task task)
{
    static const char *const names[] = {"classes", "multi_label", "regression"};
    return names[task];
}

json_t *task_json(const struct task_spec *task)
{
    json_t *labels = json_array();
    for (int i = 0; i < task->classes; i++)
        (void)json_array_append_new(labels, json_string(task->labels[i]));
    return json_pack("{s:s, s:o, s:s}", "task", task_name(task->task), "labels", labels, "metric",
                     metric_name(task->metric));
}

json_t *evaluation_json(const struct task_spec *task, const struct metric_values *values,
                        int64_t rows)
{
    json_t *confusion = NULL, *out = task_json(task);
    if (json_object_set_new(out, "score", json_finite(values->value[task->metric])) != 0 ||
        json_object_set_new(out, "metrics", metrics_json(values)) != 0 ||
        json_object_set_new(out, "rows", json_integer(rows)) != 0) {
        json_decref(out);
        return NULL;
    }
    if (values->per_class != NULL &&
        json_object_set_new(out, "per_class", metrics_per_class_json(values, task->labels)) != 0) {
        json_decref(out);
        return NULL;
    }
    if (values->confusion == NULL)
        return out;
    confusion = json_array();
    for (int i = 0; i < values->classes; i++) {
        json_t *line = json_array();
        for (int j = 0; j < values->classes; j++)
            (void)json_array_append_new(line,
                                        json_integer(values->confusion[i * values->classes + j]));
        (void)json_array_append_new(confusion, line);
    }
    (void)json_object_set_new(out, "confusion", confusion);
    return out;
}

/* ---- labelled text in memory ---- */

static enum status read_all(const struct run_config *config, const struct model_source *source,
                            const char *path, struct dataset_part *part)
{
    struct text_opts opts;
    struct text_reader *reader;
    struct text_row row;
    bool more = true;
    source_text_opts(config, path, &opts);
    enum status st = text_open(&opts, &reader);
    while (st == STATUS_OK) {
        st = text_next(reader, &row, &more);
        if (st != STATUS_OK || !more)
            break;
        st = dataset_part_add(part, source->tokenizer, &row, false);
    }
    text_close(reader);
    if (st == STATUS_OK && part->rows == 0)
        st = status_fail(STATUS_DATA, "%s: no rows", path);
    return st;
}

static enum status bad_label(const struct task_spec *task, const char *path, int64_t row,
                             const char *label, size_t n)
{
    if (n == 0)
        return status_fail(STATUS_DATA, "%s: row %lld has no label", path, (long long)row);
    if (task->task == TASK_REGRESSION)
        return status_fail(STATUS_DATA, "%s: row %lld has the label \"%.*s\", wanted a number",
                           path, (long long)row, (int)(n < 80 ? n : 80), label);
    return status_fail(
        STATUS_DATA,
        "%s: row %lld has the label \"%.*s\", which the model does not know (it has %d: "
        "%s, ...)",
        path, (long long)row, (int)(n < 80 ? n : 80), label, task->classes, task->labels[0]);
}

static int find_label(const struct task_spec *task, const char *label, size_t n)
{
    for (int i = 0; i < task->classes; i++) {
        if (strlen(task->labels[i]) == n && memcmp(task->labels[i], label, n) == 0)
            return i;
    }
    return -1;
}

static enum status take_label(const struct run_config *config, const struct task_spec *task,
                              const char *path, const char *label, size_t n, int64_t source_row,
                              int64_t r, struct task_targets *out)
{
    if (task->task == TASK_CLASSES) {
        out->label[r] = find_label(task, label, n);
        return out->label[r] < 0 ? bad_label(task, path, source_row, label, n) : STATUS_OK;
    }
    if (task->task == TASK_REGRESSION) {
        char text[64];
        double value;
        if (n == 0 || n >= sizeof text)
            return bad_label(task, path, source_row, label, n);
        memcpy(text, label, n);
        text[n] = '\0';
        if (!parse_double(text, &value))
            return bad_label(task, path, source_row, label, n);
        out->value[r] = (float)value;
        return STATUS_OK;
    }
    char separator = config->data.label_separator[0] == '\0' ? ','
                                                             : config->data.label_separator[0];
    for (size_t i = 0; i < n;) {
        const char *end = memchr(label + i, separator, n - i);
        size_t length = end == NULL ? n - i : (size_t)(end - label) - i, from = i;
        i += length + 1;
        while (length > 0 && label[from] == ' ')
            from++, length--;
        while (length > 0 && label[from + length - 1] == ' ')
            length--;
        int id = length == 0 ? -1 : find_label(task, label + from, length);
        if (id >= 0)
            out->value[r * task->outputs + id] = 1.0f;
        else if (length > 0)
            return bad_label(task, path, source_row, label + from, length);
    }
    return STATUS_OK;
}

static enum status part_targets(const struct run_config *config, const struct task_spec *task,
                                const char *path, const struct dataset_part *part,
                                struct task_targets *out)
{
    const char *p = part->bytes.p == NULL ? "" : part->bytes.p;
    size_t rows = (size_t)part->rows;
    enum status st = STATUS_OK;
    *out = (struct task_targets){.rows = part->rows};
    if (task->task == TASK_CLASSES)
        st = mem_alloc(rows, sizeof *out->label, "the labels", &out->label);
    else
        st =
            mem_alloc(rows * (size_t)task->outputs, sizeof *out->value, "the targets", &out->value);
    if (config->data.weight[0] != '\0')
        out->weight = part->weight;
    for (int64_t r = 0; r < part->rows && st == STATUS_OK; r++) {
        for (int f = 0; f < PART_FIELDS && st == STATUS_OK; f++) {
            int64_t n = part->byte_lengths[r * PART_FIELDS + f];
            if (f == PART_LABEL)
                st = take_label(config, task, path, p, n < 0 ? 0 : (size_t)n, part->source_row[r],
                                r, out);
            p += n > 0 ? n : 0;
        }
    }
    if (st != STATUS_OK)
        task_targets_release(out);
    return st;
}

/* ---- both kinds of input ---- */

enum status evaluate_rows(const struct predict_opts *opts, const struct row_source *source,
                          const struct task_targets *targets, json_t **out)
{
    const struct task_spec *task = opts->task;
    struct metric_values values = {0};
    struct scored scored = {0};
    int64_t *rows = NULL, n = targets->rows;
    int64_t tokens = score_tokens(opts->config, opts->max_length);
    float *logits = NULL;
    enum status st = mem_alloc_raw((size_t)n, sizeof *rows, "row ids", &rows);
    if (st == STATUS_OK)
        st = mem_alloc_raw((size_t)n * (size_t)task->outputs, sizeof *logits, "logits", &logits);
    TRY_GOTO(done, comm_agree(opts->comm, st));
    for (int64_t i = 0; i < n; i++)
        rows[i] = i;
    TRY_GOTO(done, ensemble_score(opts->comm, opts->model, opts->members, opts->member_count,
                                  &task->loss, source, rows, n, tokens, logits));
    st = task_scored(task, targets, rows, n, logits, &scored);
    if (st == STATUS_OK)
        st = metrics_compute(&scored, &values);
    if (st == STATUS_OK) {
        *out = evaluation_json(task, &values, n);
        if (*out == NULL)
            st = status_fail(STATUS_NOMEM, "no memory for the metrics");
    }
    st = comm_agree(opts->comm, st);
done:
    task_scored_release(&scored);
    metrics_release(&values);
    mem_free(rows);
    mem_free(logits);
    return st;
}

enum status evaluate_input(const struct predict_opts *opts, const char *key, const char *path,
                           json_t **out)
{
    struct dataset *ds = NULL;
    struct dataset_part part = {0};
    struct part_source in_memory = {0};
    struct task_targets targets = {0};
    struct row_source source;
    enum status st = STATUS_OK;
    *out = NULL;
    if (source_is_prepared(path)) {
        TRY_GOTO(done, source_open(opts->comm, opts->config, opts->source, key, path, "",
                                   opts->max_length, opts->chunks, &ds));
        source = row_source_dataset(ds);
        st = task_map(opts->task, ds, path, &targets);
    } else {
        if (opts->config->data.label[0] == '\0')
            st = status_fail(STATUS_CONFIG, "%s=%s: name its column of labels with data.label", key,
                             path);
        if (st == STATUS_OK)
            st = read_all(opts->config, opts->source, path, &part);
        if (st == STATUS_OK)
            st = part_targets(opts->config, opts->task, path, &part, &targets);
        if (st == STATUS_OK)
            st = part_source_open(&part, &opts->source->tokenizer_info, opts->max_length,
                                  opts->chunks, &in_memory);
        source = part_source_rows(&in_memory);
    }
    TRY_GOTO(done, comm_agree(opts->comm, st));
    st = evaluate_rows(opts, &source, &targets, out);
done:
    task_targets_release(&targets);
    part_source_close(&in_memory);
    dataset_part_release(&part);
    dataset_close(ds);
    return st;
}
