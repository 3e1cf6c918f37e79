/*
 * calibration.h - what is fitted on scores after training: a temperature that makes probabilities
 * honest, and thresholds that suit a metric better than one half.
 *
 * Both are fitted on some rows and used on others: for out-of-fold scores fold k is treated with
 * what the rows of all other folds say (the _nested functions), so a score of the result is as
 * honest as that of the scores themselves. What is published with a model is fitted on all rows.
 *
 * Sums run in the order of row ids: the same bits for the same rows in any order. Local.
 */
#ifndef COHORT_WORKER_CALIBRATION_H
#define COHORT_WORKER_CALIBRATION_H

#include "base/json.h"
#include "worker/metrics.h"

/*
 * The T that minimizes the mean log loss of logits / T (METRIC_LOG_LOSS; of several labels one T
 * for all), between 1/100 and 100: where the loss still falls there (rows that are all right want T
 * 0), that end. The loss is convex in 1 / T; the root of its slope is found by Newton steps inside
 * a bracket, to the last bits. use[i] says whether the i-th row of scored takes part; NULL: all do.
 * *temperature is NaN without rows, and 1 where every T is as good.
 *
 * STATUS_ARG: regression; else as metrics_compute().
 */
NODISCARD enum status temperature_fit(const struct scored *scored, const uint8_t *use,
                                      double *temperature);

/*
 * fold[i], in [0, folds), scored the i-th row of scored. temperature (folds): of fold k fitted on
 * the rows of all other folds. logits (n, outputs), in the order of scored: each row's logits
 * divided by its fold's temperature. STATUS_DATA: fewer than two folds have rows; STATUS_ARG: a
 * fold out of range.
 */
NODISCARD enum status temperature_nested(const struct scored *scored, const int32_t *fold,
                                         int folds, double *temperature, float *logits);

/*
 * Thresholds on log-odds: two classes, one threshold on z1 - z0 (or the only logit) above which a
 * row is of class 1; several labels, one for each label's logit. 0 is a probability of one half.
 */
int threshold_count(const struct scored *scored); /* 0: none (more classes, regression) */
/* Metrics that a threshold can be fitted to, each of the rows' decisions for one class or label: f1
 * (for several labels also macro_f1, the mean of them), macro_f1 (two classes), accuracy,
 * balanced_accuracy, mcc, kappa. */
bool threshold_metric(enum metric metric, enum task task);

/*
 * For each class or label the threshold with the greatest metric. Thresholds are tried between
 * neighbouring different scores (0 where it lies between them, else the middle), below the least (1
 * less, or 0) and above the greatest; of equally good ones the nearest to 0 is taken, then the
 * lower. 0 where the metric is undefined for all of them. use as above.
 *
 * STATUS_CONFIG: the metric is none of threshold_metric()'s; STATUS_ARG: no thresholds; else as
 * metrics_compute().
 */
NODISCARD enum status thresholds_fit(const struct scored *scored, const uint8_t *use,
                                     enum metric metric, double *threshold);

/*
 * Decisions as scores (n, outputs), in the order of scored: 1 where the score is above the
 * threshold, else -1; with two logits, that is the second one and the first is 0. With them as both
 * logits and probabilities, the metrics that count rows are those of the decisions.
 */
void thresholds_apply(const struct scored *scored, const double *threshold, float *decisions);

/* As temperature_nested(): threshold (folds, threshold_count()), decisions (n, outputs). */
NODISCARD enum status thresholds_nested(const struct scored *scored, const int32_t *fold, int folds,
                                        enum metric metric, double *threshold, float *decisions);

/*
 * All of it for a table of results, where fold[i] scored the i-th row:
 *   {"temperature": {"all": T, "folds": [...], "before": {"log_loss", "brier", "ece"}, "after":
 * ...}, "thresholds": {"metric": "f1", "all": [...], "folds": [[...], ...], "before": {...},
 * "after":
 *    {...}}}
 * "all" is fitted on all rows, for a model that is published; "folds" for each fold on the rows of
 * the others, and "after" are the metrics with those: no row was used to choose what it is judged
 * with. Thresholds are log-odds; their metrics are those that count rows. Keys that do not apply
 * are left out: thresholds of more classes, ece of several labels, thresholds where metric is
 * METRIC_COUNT.
 *
 * *out is a new reference, NULL on failure. Statuses as the _nested functions.
 */
NODISCARD enum status calibration_json(const struct scored *scored, const int32_t *fold, int folds,
                                       enum metric metric, json_t **out);

#endif
