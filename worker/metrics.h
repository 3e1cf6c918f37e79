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
#include "base/str.h"

enum task { TASK_CLASSES, TASK_MULTI_LABEL, TASK_REGRESSION };

/* Targets and scores of n rows in any order. Borrowed. */
struct scored {
    enum task task;
    int64_t n;   /* at most 2^31 - 1 */
    int outputs; /* logits per row; TASK_CLASSES with one output: class 1 where the logit is > 0 */
    int classes; /* TASK_CLASSES: number of classes (2 where outputs is 1) */
    const int64_t *row;         /* (n) ids, all different */
    const float *logits;        /* (n, outputs); regression: the values */
    const float *probabilities; /* (n, outputs) softmax or sigmoid; TASK_MULTI_LABEL: what decides
                                   which labels are predicted; else may be NULL */
    const int32_t *label;       /* (n) TASK_CLASSES */
    const float *value;      /* (n, outputs) TASK_REGRESSION: targets; TASK_MULTI_LABEL: 0 or 1 */
    const float *row_weight; /* (n) or NULL; part of loss already, no other metric is weighted */
    const double *loss;      /* (n) weighted loss of each row, or NULL */
    double loss_divisor;     /* sum of the loss weights */
};

/*
 * What each is, for which tasks, and when it is undefined (NaN); docs/metrics.md has the formulas
 * and where degenerate cases differ from scikit-learn's. Greater is better unless "less" is said.
 * All are undefined without rows, and none but LOSS is weighted by rows.
 *
 * A row's predicted class is that of the greatest logit (the first of equal ones); a label is
 * predicted where its probability is >= 0.5, as predict prints it. tp, fp, fn, tn of a class or
 * label count rows. Probabilities are softmax or sigmoid of the logits in double.
 */
enum metric {
    /* All tasks, less: sum of loss / loss_divisor; undefined where loss is NULL or the divisor is
     * not above 0. */
    METRIC_LOSS,
    /* Classes, multi-label: share of rows whose class, or whole set of labels, is right. */
    METRIC_ACCURACY,
    /* Classes: mean recall, tp / (tp + fn), of the classes that are true somewhere. */
    METRIC_BALANCED_ACCURACY,
    /* Classes: mean of 2 tp / (2 tp + fp + fn) over the classes that are true or predicted
     * anywhere. Multi-label: over all labels; one that is neither counts as 0, and it is undefined
     * where that is all of them. */
    METRIC_MACRO_F1,
    /* Classes, multi-label: the same ratio of the sums over classes or labels; multi-label:
     * undefined where no label is true or predicted. */
    METRIC_MICRO_F1,
    /* Classes, multi-label: mean of the ratios weighted by how often each is true; undefined where
     * no label is true. */
    METRIC_WEIGHTED_F1,
    /* Multi-label: mean of the ratio over rows instead of labels; a row where no label is true or
     * predicted is right and counts 1. */
    METRIC_SAMPLES_F1,
    /* Multi-label, less: share of all (row, label) that are wrong. */
    METRIC_HAMMING_LOSS,
    /* Multi-label: label ranking average precision: of a row's true labels, the mean share of true
     * labels among those ranked as high or higher; equal logits share the lowest rank. A row with
     * no or all labels true counts 1. */
    METRIC_LRAP,
    /* Classes: Matthews' correlation of any number of classes; undefined for one true or one
     * predicted class. */
    METRIC_MCC,
    /* Classes: Cohen's kappa, 1 - disagreement / the disagreement expected from how often each
     * class is true and predicted; undefined where none is expected. QUADRATIC_KAPPA weights
     * disagreement by the squared distance of class numbers: for classes that have an order. */
    METRIC_KAPPA,
    METRIC_QUADRATIC_KAPPA,
    /* Classes with more than 3 (5) of them: share of rows whose class is among the 3 (5) greatest
     * logits, of equal ones the lower class number. */
    METRIC_TOP3_ACCURACY,
    METRIC_TOP5_ACCURACY,
    /* Classes, less: mean of -log p of the true class, by log-softmax of the logits: nothing is
     * clipped. Multi-label: mean binary cross-entropy over rows and labels. */
    METRIC_LOG_LOSS,
    /* Less. Two classes: mean of (p - y)^2 of class 1; more classes: of its sum over classes;
     * multi-label: of its mean over labels. */
    METRIC_BRIER,
    /* Classes, less: expected calibration error: rows in METRIC_ECE_BINS bins of equal width by the
     * probability of the predicted class (a bin holds its upper end, not its lower one); mean over
     * rows of |accuracy - mean probability| of their bin. */
    METRIC_ECE,
    /* Classes, multi-label: area under the ROC, by ranks, ties count one half, exact. Two classes:
     * rows ranked by z1 - z0 in double (or the only logit). More classes: mean of each against the
     * rest, ranked by log(p / (1 - p)) in double rounded to float, which orders rows as p does but
     * does not saturate at 0 and 1. Multi-label: mean over labels, ranked by logit. Undefined if it
     * is for any class or label: one that is true nowhere or everywhere. */
    METRIC_ROC_AUC,
    /* More than two classes, multi-label: the same, weighted by how often each is true; those that
     * are true nowhere are left out. Undefined where one is true everywhere, or none anywhere. */
    METRIC_WEIGHTED_ROC_AUC,
    /* Area under precision and recall as average precision: sum over the distinct scores, from the
     * greatest, of the gain in recall times the precision there. Two classes: of class 1; else the
     * mean over classes or labels, ranked as for the ROC. Undefined if one is true nowhere. */
    METRIC_PR_AUC,
    /* Two classes: of class 1. tp / (tp + fp), undefined where it is never predicted; tp / (tp +
     * fn), undefined where it is never true; 2 tp / (2 tp + fp + fn), undefined where it is
     * neither. */
    METRIC_PRECISION,
    METRIC_RECALL,
    METRIC_F1,
    /* Regression, less: mean over rows and outputs of squares; mean over outputs of the root of
     * each one's mean square; mean of absolute errors. */
    METRIC_MSE,
    METRIC_RMSE,
    METRIC_MAE,
    /* Regression: means over outputs. Undefined for fewer than two rows, or if truth or prediction
     * is constant. SPEARMAN is PEARSON of average ranks, KENDALL is tau-b. */
    METRIC_PEARSON,
    METRIC_SPEARMAN,
    METRIC_KENDALL,
    /* Regression: means over outputs of 1 - mean square error / variance of the truth, and of 1 -
     * variance of the error / variance of the truth. Undefined for fewer than two rows, or if truth
     * is constant. */
    METRIC_R2,
    METRIC_EXPLAINED_VARIANCE,
    METRIC_COUNT
};
enum { METRIC_ECE_BINS = 15 };

/* One class or label; ratios are NaN where they divide by nothing. */
struct class_values {
    int64_t truth, predicted, both; /* rows where it is true, predicted, both */
    double precision, recall, f1;
    double roc_auc, pr_auc; /* against the rest */
};
struct metric_values {
    double value[METRIC_COUNT]; /* NaN: undefined or not of this task */
    bool of_task[METRIC_COUNT];
    int64_t *confusion; /* (classes, classes), true x predicted, owned; NULL for other tasks */
    struct class_values *per_class; /* (classes), owned; NULL for regression */
    int classes;                    /* or labels; 0 for regression */
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
/* Array of an object for each class: label (where labels is given), rows, predicted, precision,
 * recall, f1, roc_auc, pr_auc; as metrics_json(). Empty for regression. */
json_t *metrics_per_class_json(const struct metric_values *values, char *const *labels);
/* All names of the task's metrics, joined by spaces, appended to out. */
NODISCARD enum status metrics_list(enum task task, int classes, struct str *out);

/*
 * 95 % percentile interval of the metric by bootstrap over rows, percentiles interpolated linearly.
 * Draw i of resample r takes the random_below(random_key(seed, RANDOM_BOOTSTRAP, r, 0), i, n)-th
 * row by id. Resamples where the metric is undefined are left out; if more than half are, or it is
 * not of the task, the interval is NaN. METRIC_LOSS keeps its divisor. Statuses as
 * metrics_compute(). statistics.h has intervals over repeats and comparisons.
 */
NODISCARD enum status metrics_interval(const struct scored *scored, enum metric metric,
                                       uint64_t seed, int resamples, double ci95[2]);

#endif
