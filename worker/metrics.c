/* metrics.c - names, directions, and all metrics of a set of scores; see metrics.h. */
#include "worker/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/metrics_internal.h"

/* ---- names and directions ---- */

enum { CLASSES = 1, LABELS = 2, VALUES = 4 };

/* least: classes that a task of classes must have; most: that it may have, 0: any number. */
static const struct {
    const char *name;
    bool higher;
    int tasks, least, most;
} METRICS[METRIC_COUNT] = {
    [METRIC_LOSS] = {"loss", false, CLASSES | LABELS | VALUES, 2, 0},
    [METRIC_ACCURACY] = {"accuracy", true, CLASSES | LABELS, 2, 0},
    [METRIC_BALANCED_ACCURACY] = {"balanced_accuracy", true, CLASSES, 2, 0},
    [METRIC_MACRO_F1] = {"macro_f1", true, CLASSES | LABELS, 2, 0},
    [METRIC_MICRO_F1] = {"micro_f1", true, CLASSES | LABELS, 2, 0},
    [METRIC_WEIGHTED_F1] = {"weighted_f1", true, CLASSES | LABELS, 2, 0},
    [METRIC_SAMPLES_F1] = {"samples_f1", true, LABELS, 0, 0},
    [METRIC_HAMMING_LOSS] = {"hamming_loss", false, LABELS, 0, 0},
    [METRIC_LRAP] = {"lrap", true, LABELS, 0, 0},
    [METRIC_MCC] = {"mcc", true, CLASSES, 2, 0},
    [METRIC_KAPPA] = {"kappa", true, CLASSES, 2, 0},
    [METRIC_QUADRATIC_KAPPA] = {"quadratic_kappa", true, CLASSES, 2, 0},
    [METRIC_TOP3_ACCURACY] = {"top3_accuracy", true, CLASSES, 4, 0},
    [METRIC_TOP5_ACCURACY] = {"top5_accuracy", true, CLASSES, 6, 0},
    [METRIC_LOG_LOSS] = {"log_loss", false, CLASSES | LABELS, 2, 0},
    [METRIC_BRIER] = {"brier", false, CLASSES | LABELS, 2, 0},
    [METRIC_ECE] = {"ece", false, CLASSES, 2, 0},
    [METRIC_ROC_AUC] = {"roc_auc", true, CLASSES | LABELS, 2, 0},
    [METRIC_WEIGHTED_ROC_AUC] = {"weighted_roc_auc", true, CLASSES | LABELS, 3, 0},
    [METRIC_PR_AUC] = {"pr_auc", true, CLASSES | LABELS, 2, 0},
    [METRIC_PRECISION] = {"precision", true, CLASSES, 2, 2},
    [METRIC_RECALL] = {"recall", true, CLASSES, 2, 2},
    [METRIC_F1] = {"f1", true, CLASSES, 2, 2},
    [METRIC_MSE] = {"mse", false, VALUES, 0, 0},
    [METRIC_RMSE] = {"rmse", false, VALUES, 0, 0},
    [METRIC_MAE] = {"mae", false, VALUES, 0, 0},
    [METRIC_PEARSON] = {"pearson", true, VALUES, 0, 0},
    [METRIC_SPEARMAN] = {"spearman", true, VALUES, 0, 0},
    [METRIC_KENDALL] = {"kendall", true, VALUES, 0, 0},
    [METRIC_R2] = {"r2", true, VALUES, 0, 0},
    [METRIC_EXPLAINED_VARIANCE] = {"explained_variance", true, VALUES, 0, 0},
};

const char *metric_name(enum metric metric)
{
    return METRICS[metric].name;
}

bool metric_find(const char *name, enum metric *out)
{
    for (int m = 0; m < METRIC_COUNT; m++) {
        if (strcmp(METRICS[m].name, name) == 0) {
            *out = (enum metric)m;
            return true;
        }
    }
    return false;
}

bool metric_is_of(enum metric metric, enum task task, int classes)
{
    int tasks = METRICS[metric].tasks, most = METRICS[metric].most;
    if (task == TASK_CLASSES)
        return (tasks & CLASSES) != 0 && classes >= METRICS[metric].least &&
               (most == 0 || classes <= most);
    return (tasks & (task == TASK_MULTI_LABEL ? LABELS : VALUES)) != 0;
}

bool metric_higher_is_better(enum metric metric)
{
    return METRICS[metric].higher;
}

enum metric metric_default(enum task task)
{
    return task == TASK_CLASSES       ? METRIC_ACCURACY
           : task == TASK_MULTI_LABEL ? METRIC_MICRO_F1
                                      : METRIC_PEARSON;
}

bool metric_better(enum metric metric, double a, double b)
{
    if (isnan(a))
        return false;
    if (isnan(b))
        return true;
    return metric_higher_is_better(metric) ? a > b : a < b;
}

enum status metrics_list(enum task task, int classes, struct str *out)
{
    const char *space = "";
    for (int m = 0; m < METRIC_COUNT; m++) {
        if (!metric_is_of((enum metric)m, task, classes))
            continue;
        TRY(str_addf(out, "%s%s", space, METRICS[m].name));
        space = " ";
    }
    return STATUS_OK;
}

bool metric_needs_ranks(enum metric metric)
{
    return metric == METRIC_ROC_AUC || metric == METRIC_WEIGHTED_ROC_AUC ||
           metric == METRIC_PR_AUC || metric == METRIC_SPEARMAN || metric == METRIC_KENDALL;
}

/* ---- all of them ---- */

/* The two classes have one ranked column: areas of class 0 are those of the others, turned round.
 */
static void describe_classes(struct table *t, const int32_t *count, struct class_values *out)
{
    bool two = t->in->task == TASK_CLASSES && t->classes == 2;
    table_count(t, count);
    for (int c = 0; c < t->classes; c++) {
        const struct tally *of = &t->tally[c];
        double truth = (double)of->truth, predicted = (double)of->predicted,
               both = (double)of->both;
        out[c] = (struct class_values){
            .truth = of->truth,
            .predicted = of->predicted,
            .both = of->both,
            .precision = of->predicted == 0 ? NAN : both / predicted,
            .recall = of->truth == 0 ? NAN : both / truth,
            .f1 = of->truth + of->predicted == 0 ? NAN : 2.0 * both / (truth + predicted),
            .roc_auc = table_roc_auc(t, two ? 0 : c, count),
            .pr_auc = table_pr_auc(t, two ? 0 : c, two && c == 0, count),
        };
    }
}

static enum status count_confusion(const struct table *t, int64_t **out)
{
    size_t classes = (size_t)t->classes;
    TRY(mem_alloc(classes * classes, sizeof **out, "a confusion matrix", out));
    for (int64_t i = 0; i < t->n; i++)
        (*out)[(int64_t)t->truth[i] * t->classes + t->predicted[i]]++;
    return STATUS_OK;
}

enum status metrics_compute(const struct scored *scored, struct metric_values *out)
{
    struct table t = {0};
    int32_t *count = NULL;
    enum status st;
    *out = (struct metric_values){0};
    TRY_GOTO(fail, table_make(&t, scored, true));
    TRY_GOTO(fail, mem_alloc_raw((size_t)t.n, sizeof *count, "counts of rows", &count));
    for (int64_t i = 0; i < t.n; i++)
        count[i] = 1;
    out->classes = t.classes;
    if (scored->task == TASK_CLASSES)
        TRY_GOTO(fail, count_confusion(&t, &out->confusion));
    if (scored->task != TASK_REGRESSION) {
        TRY_GOTO(fail, mem_alloc((size_t)t.classes, sizeof *out->per_class, "metrics of classes",
                                 &out->per_class));
        describe_classes(&t, count, out->per_class);
    }
    for (int m = 0; m < METRIC_COUNT; m++) {
        out->of_task[m] = metric_is_of((enum metric)m, scored->task, scored->classes);
        out->value[m] = NAN;
        if (out->of_task[m]) {
            table_prepare(&t, (enum metric)m);
            out->value[m] = table_evaluate(&t, (enum metric)m, count, t.n);
        }
    }
    table_release(&t);
    mem_free(count);
    return STATUS_OK;
fail:
    table_release(&t);
    mem_free(count);
    metrics_release(out);
    return st;
}

void metrics_release(struct metric_values *values)
{
    mem_free(values->confusion);
    mem_free(values->per_class);
    *values = (struct metric_values){0};
}

json_t *metrics_json(const struct metric_values *values)
{
    json_t *out = json_object();
    for (int m = 0; m < METRIC_COUNT && out != NULL; m++) {
        if (values->of_task[m] && json_object_set_new(out, metric_name((enum metric)m),
                                                      json_finite(values->value[m])) != 0) {
            json_decref(out);
            out = NULL;
        }
    }
    return out;
}

json_t *metrics_per_class_json(const struct metric_values *values, char *const *labels)
{
    json_t *out = json_array();
    for (int c = 0; c < values->classes && values->per_class != NULL && out != NULL; c++) {
        const struct class_values *of = &values->per_class[c];
        json_t *one = json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "rows",
                                (json_int_t)of->truth, "predicted", (json_int_t)of->predicted,
                                "precision", json_finite(of->precision), "recall",
                                json_finite(of->recall), "f1", json_finite(of->f1), "roc_auc",
                                json_finite(of->roc_auc), "pr_auc", json_finite(of->pr_auc));
        if (labels != NULL && one != NULL &&
            json_object_set_new(one, "label", json_string(labels[c])) != 0) {
            json_decref(one);
            one = NULL;
        }
        if (json_array_append_new(out, one) != 0) {
            json_decref(out);
            out = NULL;
        }
    }
    return out;
}
