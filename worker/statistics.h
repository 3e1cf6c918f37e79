/*
 * statistics.h - how sure a score is, and whether two systems differ: bootstrap over rows,
 * McNemar's exact test, the corrected resampled t-test.
 *
 * A system's scores come as one set of rows for each repeat (one set without repeats). Sets of one
 * system may have different rows; rows are told by their ids.
 *
 * Local; the same bits for the same rows in any order.
 */
#ifndef COHORT_WORKER_STATISTICS_H
#define COHORT_WORKER_STATISTICS_H

#include "worker/metrics.h"

/*
 * 95 % percentile interval of the mean over repeats of a metric: rows are drawn, as for
 * metrics_interval(), from the rows of all sets together, and a drawn row counts in every set that
 * has it. *score is the mean itself, undefined where it is in any set, as a resample is.
 * STATUS_ARG: no set, fewer than one resample, sets of different tasks or sizes; else as
 * metrics_compute().
 */
NODISCARD enum status statistics_interval(const struct scored *sets, int count, enum metric metric,
                                          uint64_t seed, int resamples, double *score,
                                          double ci95[2]);

struct comparison {
    double a, b;       /* the two scores, means over repeats */
    double difference; /* b - a */
    double ci95[2];    /* percentile interval of the difference */
    /* Two-sided: 2 (1 + the smaller of the numbers of differences <= 0 and >= 0) / (resamples + 1),
     * at most 1: it cannot fall below 2 / (resamples + 1). */
    double p;
    int64_t rows;  /* that both have */
    int resamples; /* in which both are defined; where fewer than half are, interval and p are NaN
                    */
};
/*
 * Paired bootstrap: in each resample both systems are scored on the same drawn rows. STATUS_DATA: a
 * row that one system has and the other has not, or with another target (names it); else as
 * statistics_interval().
 */
NODISCARD enum status statistics_compare(const struct scored *a, int a_count,
                                         const struct scored *b, int b_count, enum metric metric,
                                         uint64_t seed, int resamples, struct comparison *out);

/* Rows that are right (class, or whole set of labels) in both, one or neither of two systems. */
struct mcnemar {
    int64_t both, only_a, only_b, neither;
    double p; /* two-sided, exact: 2 P(X <= min(only_a, only_b)), X binomial(only_a + only_b, 1/2),
                 at most 1 */
};
/* STATUS_ARG: regression; STATUS_DATA as statistics_compare(); else as metrics_compute(). */
NODISCARD enum status statistics_mcnemar(const struct scored *a, const struct scored *b,
                                         struct mcnemar *out);

/*
 * Corrected resampled t-test (Nadeau and Bengio, "Inference for the generalization error", 2003) of
 * the differences b[i] - a[i] of n scores, one for each fold of each repeat: t = mean / sqrt((1 / n
 * + test_rows / train_rows) s^2) with n - 1 degrees of freedom, s^2 with divisor n - 1. The folds'
 * training rows overlap, so the plain test would find differences that are not there.
 */
struct resampled_t {
    int n, freedom;
    double mean, std; /* of the differences */
    double t, p;    /* p two-sided. Differences that are all equal: t infinite and p 0, or NaN where
                       they are 0 */
    double ci95[2]; /* of the mean */
};
/* Undefined (all NaN) for n < 2, or where any score is. STATUS_ARG: rows not above 0. */
NODISCARD enum status statistics_resampled_t(const double *a, const double *b, int n,
                                             double test_rows, double train_rows,
                                             struct resampled_t *out);

/* P(|T| >= |t|) of Student's t; the t that has P(|T| >= t) = p, for 0 < p < 1. */
double student_two_sided(double t, double freedom);
double student_quantile(double p, double freedom);
/* min(1, 2 P(X <= less)) of a binomial(n, 1/2), less <= n / 2. */
double binomial_two_sided(int64_t less, int64_t n);

#endif
