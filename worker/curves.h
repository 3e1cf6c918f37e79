/*
 * curves.h - what reports draw: ROC, precision and recall, calibration, histograms of scores, the
 * most frequent confusions. Every list has a bound; points that are kept are exact.
 *
 * column is a class (of two, 0 or 1: class 0 is ranked by the negated score) or a label.
 *
 * Statuses as metrics_compute(), and STATUS_ARG: regression, no such column, a bound out of range.
 * Local; the same bits for the same rows in any order.
 */
#ifndef COHORT_WORKER_CURVES_H
#define COHORT_WORKER_CURVES_H

#include "base/json.h"
#include "worker/metrics.h"

/* Rows with scores >= threshold are called positive. Thresholds are log-odds, log(p / (1 - p));
 * INFINITY at the first point, where none is. */
struct curve_point {
    double x, y, threshold;
};

struct curve {
    struct curve_point *point; /* (count), owned (curve_release); thresholds fall */
    int count;                 /* 0 where the curve is undefined */
    int64_t vertices;          /* before thinning */
    int64_t positives, negatives;
    double area; /* exact, of all vertices: METRIC_ROC_AUC, METRIC_PR_AUC; NaN: undefined */
};

/*
 * ROC: x false positive rate, y true positive rate, from (0, 0) to (1, 1); vertices on a straight
 * line between two equal steps are left out, as scikit-learn does. Undefined where the class is
 * true nowhere or everywhere. PR: x recall, y precision, one vertex for every different score,
 * after (0, 1). Undefined where the class is true nowhere.
 *
 * More than `most` (>= 2) vertices are thinned: with the length of the curve measured as the sum of
 * |dx| + |dy|, point k is the first vertex at or behind k / (most - 1) of the whole. So the first
 * and the last are kept, and no vertex that is left out is further than that part from one that is
 * kept.
 */
NODISCARD enum status curve_roc(const struct scored *scored, int column, int most,
                                struct curve *out);
NODISCARD enum status curve_pr(const struct scored *scored, int column, int most,
                               struct curve *out);
void curve_release(struct curve *curve);
/* [[x, y, threshold], ...], null for an infinite threshold; new reference, NULL when memory ran
 * out.
 */
json_t *curve_json(const struct curve *curve);

/* Rows whose probability lies above low and up to high (the first bin also holds 0). */
struct calibration_bin {
    double low, high;
    int64_t rows, right; /* right: the class or label is true */
    double probability;  /* mean; NaN without rows */
};
/* bins of equal width over probabilities of a column; column -1: of each row's predicted class
 * (METRIC_ECE's bins where bins is METRIC_ECE_BINS), not for several labels. bin is (bins). */
NODISCARD enum status curve_calibration(const struct scored *scored, int column, int bins,
                                        struct calibration_bin *bin);

/* Rows by probability as above, those of the class or label and the others. */
struct histogram_bin {
    double low, high;
    int64_t positives, negatives;
};
NODISCARD enum status curve_histogram(const struct scored *scored, int column, int bins,
                                      struct histogram_bin *bin);

/* A cell of the confusion matrix off its diagonal. */
struct confusion_cell {
    int truth, predicted;
    int64_t rows;
};
/* The most frequent confusions, at most `most`, of equally frequent ones the lower classes first;
 * *count of them, all with rows. cell is (most). Not for other tasks than classes: *count is 0. */
void curve_confusions(const struct metric_values *values, int most, struct confusion_cell *cell,
                      int *count);

#endif
