/*
 * metrics.h - what a set of scores is worth. Computed from the exact multiset of (row, scores, target); order and
 * sharding of the rows do not matter, because rows are sorted by id first.
 *
 * An undefined metric (AUC of one class, MCC of a constant) is NaN here, "undefined" on the screen and null in JSON:
 * never 0 or 0.5. Each metric knows its direction. Formulas as scikit-learn's functions of the same name.
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

/* Targets and scores of n rows in any order. */
struct scored {
    enum task task;
    int64_t n;
    int outputs;             /* logits per row; TASK_CLASSES with one output: class 1 where the logit is > 0 */
    int classes;             /* TASK_CLASSES: number of classes (2 where outputs is 1) */
    const int64_t *row;      /* (n) ids, all different */
    const float *logits;     /* (n, outputs) */
    const float *probabilities; /* (n, outputs) softmax or sigmoid; regression: the values */
    const int32_t *label;    /* (n) TASK_CLASSES */
    const float *value;      /* (n, outputs) TASK_REGRESSION: targets; TASK_MULTI_LABEL: 0 or 1 */
    const float *row_weight; /* (n) or NULL */
    const double *loss;      /* (n) weighted loss of each row, or NULL */
    double loss_divisor;     /* sum of the loss weights */
};

enum metric {
    METRIC_LOSS, METRIC_ACCURACY, METRIC_MACRO_F1, METRIC_MICRO_F1, METRIC_WEIGHTED_F1, METRIC_MCC, METRIC_LOG_LOSS,
    METRIC_ROC_AUC, METRIC_PRECISION, METRIC_RECALL, METRIC_F1, METRIC_MSE, METRIC_MAE, METRIC_PEARSON, METRIC_SPEARMAN,
    METRIC_R2, METRIC_COUNT
};
struct metric_values {
    double value[METRIC_COUNT]; /* NaN: undefined or not of this task */
    bool of_task[METRIC_COUNT];
    int64_t *confusion;         /* (classes, classes), true x predicted, owned; NULL for other tasks */
    int classes;
};

/* Accuracy: weighted by nothing; roc_auc: binary, exact with ties, on the class-1 probability (macro one-vs-rest for more
 * classes); f1, precision, recall: of class 1, binary only; log_loss: mean -log p of the true class from the logits.
 * STATUS_DATA: a row id twice. */
NODISCARD enum status metrics_compute(const struct scored *scored, struct metric_values *out);
void metrics_release(struct metric_values *values);

const char *metric_name(enum metric metric); /* "roc_auc" */
bool metric_find(const char *name, enum metric *out);
bool metric_higher_is_better(enum metric metric);
enum metric metric_default(enum task task); /* accuracy, micro_f1, pearson */
/* Whether a is better than b; undefined is worse than anything, and never better. */
bool metric_better(enum metric metric, double a, double b);
/* Object of all metrics of the task: null for undefined; new reference. */
json_t *metrics_json(const struct metric_values *values);

/*
 * 95 % percentile interval of the metric by bootstrap over rows (resamples drawn by Philox from seed; resamples where
 * the metric is undefined are left out, and if more than half are, the interval is NaN).
 */
NODISCARD enum status metrics_interval(const struct scored *scored, enum metric metric, uint64_t seed, int resamples,
                                       double ci95[2]);

#endif
