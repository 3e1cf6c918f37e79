/*
 * metrics.h - what a set of scores is worth. Computed from the exact multiset of (row, scores,
 * target); order and sharding of the rows do not matter to the last bit, because rows are sorted by
 * id first.
 *
 * An undefined metric (AUC of one class, MCC of a constant) is NaN here, "undefined" on the screen
 * and null in JSON: never 0 or 0.5. Each metric knows its direction. Formulas as scikit-learn's
 * functions of the same name, in double.
 *
 * Local.
 */
#ifndef COHORT_WORKER_METRICS_H
#define COHORT_WORKER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

enum task { TASK_CLASSES, TASK_MULTI_LABEL, TASK_REGRESSION };

/* Targets and scores of n rows in any order. Borrowed. */
struct scored {
    enum task task;
    int64_t n;   /* at most 2^31 - 1 */
    int outputs; /* logits per row; TASK_CLASSES with one output: class 1 where the logit is > 0 */
    int classes; /* TASK_CLASSES: number of classes (2 where outputs is 1) */
    const int64_t *row;         /* (n) ids, all different */
    const float *logits;        /* (n, outputs); regression: the values */
    const float *probabilities; /* (n, outputs) softmax or sigmoid; read for TASK_MULTI_LABEL only,
                                   else may be NULL */
    const int32_t *label;       /* (n) TASK_CLASSES */
    const float *value;      /* (n, outputs) TASK_REGRESSION: targets; TASK_MULTI_LABEL: 0 or 1 */
    const float *row_weight; /* (n) or NULL; part of loss already, no other metric is weighted */
    const double *loss;      /* (n) weighted loss of each row, or NULL */
    double loss_divisor;     /* sum of the loss weights */
};

/*
 * What each is, and when it is undefined (NaN). All are undefined without rows.
 *
 * A row's predicted class is that of the greatest logit (the first of equal ones); a label is
 * predicted where its probability is >= 0.5, as predict prints it. tp, fp, fn of a class or label
 * count rows.
 *
 * LOSS         sum of loss / loss_divisor; undefined where loss is NULL or the divisor is not above
 * 0 ACCURACY     share of rows whose class, or whole set of labels, is right MACRO_F1     mean of 2
 * tp / (2 tp + fp + fn) over the classes that are true or predicted anywhere; over all labels for
 * multi-label, where a label that is neither true nor predicted counts as 0, and undefined where
 *              that is all of them
 * MICRO_F1     the same ratio of the sums over classes or labels; multi-label: undefined where no
 * label is true or predicted WEIGHTED_F1  mean of the ratios weighted by how often each is true;
 * undefined where no label is true MCC          classes: Matthews' correlation of any number of
 * classes; undefined for one true or one predicted class LOG_LOSS     mean of -log p of the true
 * class, by log-softmax of the logits: nothing is clipped. Multi-label: mean binary cross-entropy
 * over rows and labels ROC_AUC      rank statistic, ties count one half, exact. Two classes: rows
 * ranked by z1 - z0 in double (or the only logit); undefined unless both are true somewhere. More
 * classes: mean of each against the rest, ranked by log(p / (1 - p)) in double rounded to float,
 * which orders rows as p does but does not saturate at 0 and 1; multi-label: mean over labels,
 * ranked by logit. Undefined if it is for any class or label PRECISION    of class 1 of two, tp /
 * (tp + fp): undefined where class 1 is never predicted RECALL       of class 1 of two, tp / (tp +
 * fn): undefined where class 1 is never true F1           of class 1 of two: undefined where class
 * 1 is neither true nor predicted MSE, MAE     mean over rows and outputs PEARSON      mean over
 * outputs; undefined for fewer than two rows, or if truth or prediction is constant SPEARMAN
 * Pearson of average ranks, the same R2           mean over outputs; undefined for fewer than two
 * rows, or if truth is constant
 */
enum metric {
    METRIC_LOSS,
    METRIC_ACCURACY,
    METRIC_MACRO_F1,
    METRIC_MICRO_F1,
    METRIC_WEIGHTED_F1,
    METRIC_MCC,
    METRIC_LOG_LOSS,
    METRIC_ROC_AUC,
    METRIC_PRECISION,
    METRIC_RECALL,
    METRIC_F1,
    METRIC_MSE,
    METRIC_MAE,
    METRIC_PEARSON,
    METRIC_SPEARMAN,
    METRIC_R2,
    METRIC_COUNT
};
struct metric_values {
    double value[METRIC_COUNT]; /* NaN: undefined or not of this task */
    bool of_task[METRIC_COUNT];
    int64_t *confusion; /* (classes, classes), true x predicted, owned; NULL for other tasks */
    int classes;
};

/*
 * All metrics of the task. STATUS_DATA: a row id twice, or a label outside the classes;
 * STATUS_NUMERIC: a logit or target that is not finite (both name the row); STATUS_ARG: sizes out
 * of range. *out is then empty.
 */
NODISCARD enum status metrics_compute(const struct scored *scored, struct metric_values *out);
void metrics_release(struct metric_values *values);

const char *metric_name(enum metric metric); /* "roc_auc" */
/* The metric of exactly this name; *out is untouched where there is none. */
bool metric_find(const char *name, enum metric *out);
/* Whether a task has the metric; classes matters to TASK_CLASSES alone. */
bool metric_is_of(enum metric metric, enum task task, int classes);
bool metric_higher_is_better(enum metric metric);
enum metric metric_default(enum task task); /* accuracy, micro_f1, pearson */
/* Whether a is better than b; undefined is worse than anything, and never better. */
bool metric_better(enum metric metric, double a, double b);
/* Object of all metrics of the task: null for undefined; new reference, NULL when memory ran out.
 */
json_t *metrics_json(const struct metric_values *values);

/*
 * 95 % percentile interval of the metric by bootstrap over rows, percentiles interpolated linearly.
 * Draw i of resample r takes the random_below(random_key(seed, RANDOM_BOOTSTRAP, r, 0), i, n)-th
 * row by id. Resamples where the metric is undefined are left out; if more than half are, or it is
 * not of the task, the interval is NaN. METRIC_LOSS keeps its divisor. 1,000 resamples of 10,000
 * rows take about 0.12 s. Statuses as metrics_compute().
 */
NODISCARD enum status metrics_interval(const struct scored *scored, enum metric metric,
                                       uint64_t seed, int resamples, double ci95[2]);

#endif
