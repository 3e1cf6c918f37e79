/* task.c - see task.h. */
#include "worker/task.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

static int find_label(char *const *labels, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(labels[i], name) == 0)
            return i;
    }
    return -1;
}

static bool has_all(char *const *labels, int count, const struct dataset_info *info)
{
    for (int i = 0; i < info->classes; i++) {
        if (find_label(labels, count, info->names[i]) < 0)
            return false;
    }
    return count > 0 && info->classes > 0;
}

static enum status take_labels(struct task_spec *task, char *const *labels, int count)
{
    TRY(mem_alloc((size_t)count, sizeof *task->labels, "the labels", &task->labels));
    for (int i = 0; i < count; i++) {
        task->classes = i + 1;
        TRY(mem_strdup(labels[i], &task->labels[i]));
    }
    return STATUS_OK;
}

static enum status decide_loss(const struct run_config *config, struct task_spec *task)
{
    static const char *const names[] = {"cross_entropy", "bce", "mse"};
    enum loss_kind wanted = task->task == TASK_CLASSES       ? LOSS_CROSS_ENTROPY
                            : task->task == TASK_MULTI_LABEL ? LOSS_BCE
                                                             : LOSS_MSE;
    enum loss_kind asked = wanted;
    if (config->train.loss != CONFIG_LOSS_AUTO)
        asked = config->train.loss == CONFIG_LOSS_CROSS_ENTROPY ? LOSS_CROSS_ENTROPY
                : config->train.loss == CONFIG_LOSS_BCE         ? LOSS_BCE
                                                                : LOSS_MSE;
    bool one_logit = asked == LOSS_BCE && task->task == TASK_CLASSES && task->classes == 2;
    if (asked != wanted && !one_logit)
        return status_fail(STATUS_CONFIG, "train.loss=%s does not fit this task, wanted %s%s",
                           names[asked], names[wanted],
                           task->task == TASK_CLASSES ? ", or bce with two classes" : "");
    if (one_logit)
        task->outputs = 1;
    if (config->train.label_smoothing > 0.0 && asked != LOSS_CROSS_ENTROPY)
        return status_fail(STATUS_CONFIG,
                           "train.label_smoothing works with train.loss=cross_entropy only");
    if (config->train.focal_gamma > 0.0 && asked == LOSS_MSE)
        return status_fail(STATUS_CONFIG,
                           "train.focal_gamma works with train.loss=cross_entropy and bce only");
    if (config->train.focal_gamma > 0.0 && config->train.label_smoothing > 0.0)
        return status_fail(STATUS_CONFIG,
                           "train.focal_gamma and train.label_smoothing are both given; wanted one "
                           "of them");
    task->loss = (struct loss_opts){.kind = asked,
                                    .outputs = task->outputs,
                                    .label_smoothing = config->train.label_smoothing,
                                    .focal_gamma = config->train.focal_gamma};
    return STATUS_OK;
}

enum status task_decide_metric(const struct run_config *config, struct task_spec *task)
{
    static const char *const kinds[] = {"classes", "multi-label data", "regression"};
    struct str known = {0};
    if (config->eval.metric[0] == '\0')
        return STATUS_OK;
    if (!metric_find(config->eval.metric, &task->metric)) {
        enum status st = metrics_list(task->task, task->classes, &known);
        if (st == STATUS_OK)
            st = status_fail(STATUS_CONFIG, "eval.metric=%s is not a metric, wanted one of %s",
                             config->eval.metric, known.p);
        str_release(&known);
        return st;
    }
    if (metric_is_of(task->metric, task->task, task->classes))
        return STATUS_OK;
    if (task->task == TASK_CLASSES && metric_is_of(task->metric, TASK_CLASSES, INT_MAX))
        return status_fail(STATUS_CONFIG, "eval.metric=%s needs more classes, this data has %d",
                           config->eval.metric, task->classes);
    if (task->task == TASK_CLASSES && metric_is_of(task->metric, TASK_CLASSES, 2))
        return status_fail(STATUS_CONFIG,
                           "eval.metric=%s is of two classes, this data has %d; macro_f1, micro_f1 "
                           "or weighted_f1 fit",
                           config->eval.metric, task->classes);
    return status_fail(STATUS_CONFIG, "eval.metric=%s does not fit %s", config->eval.metric,
                       kinds[task->task]);
}

enum status task_decide(const struct run_config *config, const struct dataset_info *train,
                        char *const *model_labels, int model_label_count, struct task_spec *out)
{
    enum status st = STATUS_OK;
    *out = (struct task_spec){0};
    if (train->label_kind == LABEL_NONE)
        return status_fail(STATUS_DATA, "%s has no labels; name their column with data.label",
                           train->source);
    out->task = train->label_kind == LABEL_CLASS   ? TASK_CLASSES
                : train->label_kind == LABEL_MULTI ? TASK_MULTI_LABEL
                                                   : TASK_REGRESSION;
    if (out->task == TASK_REGRESSION) {
        out->outputs = 1;
        out->head_from_model = model_label_count == 1;
    } else if (has_all(model_labels, model_label_count, train)) {
        TRY_GOTO(fail, take_labels(out, model_labels, model_label_count));
        out->head_from_model = true;
    } else {
        for (int i = 0; i < train->classes; i++) {
            if (i == 0)
                TRY_GOTO(fail, mem_alloc((size_t)train->classes, sizeof *out->labels, "the labels",
                                         &out->labels));
            TRY_GOTO(fail, mem_strdup(train->names[i], &out->labels[i]));
            out->classes = i + 1;
        }
    }
    if (out->task == TASK_CLASSES && out->classes < 2) {
        st = status_fail(STATUS_DATA, "%s has %d class%s, wanted at least two", train->source,
                         out->classes, out->classes == 1 ? "" : "es");
        goto fail;
    }
    if (out->task != TASK_REGRESSION)
        out->outputs = out->classes;
    TRY_GOTO(fail, decide_loss(config, out));
    out->metric = metric_default(out->task);
    TRY_GOTO(fail, task_decide_metric(config, out));
    return STATUS_OK;
fail:
    task_release(out);
    return st;
}

void task_release(struct task_spec *task)
{
    for (int i = 0; i < task->classes && task->labels != NULL; i++)
        mem_free(task->labels[i]);
    mem_free(task->labels);
    mem_free(task->class_weights);
    *task = (struct task_spec){0};
}

static enum status unknown_label(const struct task_spec *task, struct dataset *ds, const char *what,
                                 int64_t row, const char *name)
{
    struct str known = {0};
    int64_t source_row = row, offset;
    enum status st = dataset_row_source(ds, row, &source_row, &offset);
    for (int i = 0; st == STATUS_OK && i < task->classes && i < 8; i++)
        st = str_addf(&known, "%s%s", i == 0 ? "" : ", ", task->labels[i]);
    if (st == STATUS_OK && task->classes > 8)
        st = str_addf(&known, ", ... (%d in all)", task->classes);
    if (st == STATUS_OK)
        st =
            status_fail(STATUS_DATA,
                        "%s: row %lld has the label \"%s\", which training did not have; known: %s",
                        what, (long long)source_row, name, known.p);
    str_release(&known);
    return st;
}

enum status task_map(const struct task_spec *task, struct dataset *ds, const char *what,
                     struct task_targets *out)
{
    struct dataset_info info;
    int32_t *id = NULL; /* of the dataset's classes in the task's terms */
    enum status st = STATUS_OK;
    *out = (struct task_targets){0};
    dataset_get_info(ds, &info);
    enum label_kind wanted = task->task == TASK_CLASSES       ? LABEL_CLASS
                             : task->task == TASK_MULTI_LABEL ? LABEL_MULTI
                                                              : LABEL_VALUE;
    if (info.label_kind != wanted)
        return status_fail(
            STATUS_DATA, "%s: its labels are of another kind than the training data's, or missing",
            what);
    out->rows = info.rows;
    out->weight = dataset_weights(ds);
    out->group = dataset_groups(ds);
    size_t rows = (size_t)info.rows;
    TRY_GOTO(fail, mem_alloc((size_t)info.classes + 1, sizeof *id, "the label map", &id));
    for (int i = 0; i < info.classes; i++)
        id[i] = find_label(task->labels, task->classes, info.names[i]);
    if (wanted == LABEL_CLASS) {
        const int32_t *class = dataset_classes(ds);
        TRY_GOTO(fail, mem_alloc_raw(rows, sizeof *out->label, "the labels", &out->label));
        for (int64_t r = 0; r < info.rows; r++) {
            out->label[r] = id[class[r]];
            if (out->label[r] < 0) {
                st = unknown_label(task, ds, what, r, info.names[class[r]]);
                goto fail;
            }
        }
    } else {
        TRY_GOTO(fail, mem_alloc(rows * (size_t)task->outputs, sizeof *out->value, "the targets",
                                 &out->value));
        const int64_t *begin = dataset_multi_begin(ds);
        const int32_t *class = dataset_multi(ds);
        for (int64_t r = 0; r < info.rows; r++) {
            if (wanted == LABEL_VALUE) {
                out->value[r] = dataset_values(ds)[r];
                continue;
            }
            for (int64_t i = begin[r]; i < begin[r + 1]; i++) {
                if (id[class[i]] < 0) {
                    st = unknown_label(task, ds, what, r, info.names[class[i]]);
                    goto fail;
                }
                out->value[r * task->outputs + id[class[i]]] = 1.0f;
            }
        }
    }
    mem_free(id);
    return STATUS_OK;
fail:
    mem_free(id);
    task_targets_release(out);
    return st;
}

void task_targets_release(struct task_targets *targets)
{
    mem_free(targets->label);
    mem_free(targets->value);
    *targets = (struct task_targets){0};
}

static enum status balanced_weights(struct task_spec *task, const struct task_targets *targets,
                                    const int64_t *rows, int64_t count)
{
    int64_t *seen;
    TRY(mem_alloc((size_t)task->outputs, sizeof *seen, "class counts", &seen));
    for (int64_t i = 0; i < count; i++)
        seen[targets->label[rows == NULL ? i : rows[i]]]++;
    for (int c = 0; c < task->outputs; c++)
        task->class_weights[c] =
            seen[c] == 0 ? 0.0f
                         : (float)((double)count / ((double)task->outputs * (double)seen[c]));
    mem_free(seen);
    return STATUS_OK;
}

enum status task_weigh_classes(struct task_spec *task, const char *setting,
                               const struct task_targets *targets, const int64_t *rows,
                               int64_t count)
{
    if (setting[0] == '\0' || strcmp(setting, "none") == 0)
        return STATUS_OK;
    if (task->task == TASK_REGRESSION)
        return status_fail(STATUS_CONFIG,
                           "train.class_weights is for classes, this data has numbers");
    mem_free(task->class_weights);
    task->class_weights = NULL;
    TRY(mem_alloc((size_t)task->outputs, sizeof *task->class_weights, "class weights",
                  &task->class_weights));
    task->loss.class_weights = task->class_weights;
    if (strcmp(setting, "balanced") == 0) {
        if (task->loss.kind != LOSS_CROSS_ENTROPY)
            return status_fail(
                STATUS_CONFIG,
                "train.class_weights=balanced works with train.loss=cross_entropy only");
        return balanced_weights(task, targets, rows, count);
    }
    const char *p = setting;
    for (int c = 0; c < task->outputs; c++) {
        char *end;
        double w = strtod(p, &end);
        bool last = c == task->outputs - 1;
        if (end == p || !isfinite(w) || w < 0.0 || *end != (last ? '\0' : ','))
            return status_fail(
                STATUS_CONFIG,
                "train.class_weights=\"%s\": wanted balanced, or %d numbers >= 0 joined "
                "by commas, one for each label in order",
                setting, task->outputs);
        task->class_weights[c] = (float)w;
        p = end + 1;
    }
    return STATUS_OK;
}

enum status task_scored(const struct task_spec *task, const struct task_targets *targets,
                        const int64_t *rows, int64_t n, const float *logits, struct scored *out)
{
    enum status st = STATUS_OK;
    size_t count = (size_t)n, outputs = (size_t)task->outputs;
    int64_t *ids = NULL;
    float *probabilities = NULL, *value = NULL, *weight = NULL;
    int32_t *label = NULL;
    double *loss = NULL;
    int checked;
    *out = (struct scored){0};
    TRY(checked_int(n, "the number of scored rows", &checked));
    TRY_GOTO(fail, mem_alloc_raw(count, sizeof *ids, "row ids", &ids));
    TRY_GOTO(fail, mem_alloc_raw(count * outputs, sizeof *probabilities, "probabilities",
                                 &probabilities));
    TRY_GOTO(fail, mem_alloc_raw(count, sizeof *loss, "losses", &loss));
    if (targets->label != NULL)
        TRY_GOTO(fail, mem_alloc_raw(count, sizeof *label, "labels", &label));
    else
        TRY_GOTO(fail, mem_alloc_raw(count * outputs, sizeof *value, "targets", &value));
    if (targets->weight != NULL)
        TRY_GOTO(fail, mem_alloc_raw(count, sizeof *weight, "row weights", &weight));
    for (size_t i = 0; i < count; i++) {
        ids[i] = rows[i];
        if (label != NULL)
            label[i] = targets->label[rows[i]];
        else
            memcpy(value + i * outputs, targets->value + (size_t)rows[i] * outputs,
                   outputs * sizeof *value);
        if (weight != NULL)
            weight[i] = targets->weight[rows[i]];
    }
    struct loss_target target = {.label = label, .value = value, .row_weight = weight};
    double divisor = 0.0;
    for (int i = 0; i < checked; i++)
        divisor += loss_weight(&task->loss, &target, i);
    TRY_GOTO(fail, loss_compute(&task->loss, &target, checked, logits, 1.0, 1.0, loss, NULL));
    loss_probabilities(&task->loss, checked, logits, probabilities);
    *out = (struct scored){.task = task->task,
                           .n = n,
                           .outputs = task->outputs,
                           .classes = task->classes,
                           .row = ids,
                           .logits = logits,
                           .probabilities = probabilities,
                           .label = label,
                           .value = value,
                           .row_weight = weight,
                           .loss = loss,
                           .loss_divisor = divisor};
    return STATUS_OK;
fail:
    mem_free(ids);
    mem_free(probabilities);
    mem_free(value);
    mem_free(weight);
    mem_free(label);
    mem_free(loss);
    return st;
}

void task_scored_release(struct scored *scored)
{
    mem_free((void *)scored->row);
    mem_free((void *)scored->probabilities);
    mem_free((void *)scored->label);
    mem_free((void *)scored->value);
    mem_free((void *)scored->row_weight);
    mem_free((void *)scored->loss);
    *scored = (struct scored){0};
}
