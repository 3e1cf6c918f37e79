/* calibration.c - see calibration.h. */
#include "worker/calibration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/metrics_internal.h"

/* ---- temperature ---- */

#define LEAST_INVERSE 0.01 /* 1 / T */
#define MOST_INVERSE 100.0

/* One row's share of the slope d loss / d b of logits times b, and of the slope's own slope. */
static void add_row(const struct table *t, int64_t row, double b, double *slope, double *curve)
{
    const float *z = table_logits(t, row);
    int outputs = t->in->outputs;
    if (t->in->task == TASK_MULTI_LABEL || outputs == 1) {
        for (int c = 0; c < outputs; c++) {
            bool truth = t->in->task == TASK_MULTI_LABEL ? table_label_true(t, row, c)
                                                         : t->truth[row] == 1;
            double p = sigmoid(b * (double)z[c]);
            /* p - 1 as -sigmoid(-bz): no digits are lost where p is close to 1 */
            *slope += (double)z[c] * (truth ? -sigmoid(-b * (double)z[c]) : p);
            *curve += (double)z[c] * (double)z[c] * p * sigmoid(-b * (double)z[c]);
        }
        return;
    }
    double top = (double)z[t->predicted[row]], sum = 0.0, first = 0.0, second = 0.0;
    for (int c = 0; c < outputs; c++) {
        double d = (double)z[c] - top, e = exp(b * d);
        sum += e;
        first += e * d;
        second += e * d * d;
    }
    first /= sum;
    *slope += first - ((double)z[t->truth[row]] - top);
    *curve += second / sum - first * first;
}

static double slope_at(const struct table *t, const uint8_t *use, double b, double *curve)
{
    double slope = 0.0;
    *curve = 0.0;
    for (int64_t i = 0; i < t->n; i++) {
        if (use == NULL || use[t->at[i]])
            add_row(t, i, b, &slope, curve);
    }
    return slope;
}

static bool any_used(const struct table *t, const uint8_t *use)
{
    for (int64_t i = 0; i < t->n; i++) {
        if (use == NULL || use[i])
            return true;
    }
    return false;
}

/* The slope rises with b: Newton where it stays in the bracket, else the middle. */
static double fit_inverse(const struct table *t, const uint8_t *use)
{
    double low = LEAST_INVERSE, high = MOST_INVERSE, b = 1.0, curve;
    double at_low = slope_at(t, use, low, &curve), at_high = slope_at(t, use, high, &curve);
    if (at_low == 0.0 && at_high == 0.0)
        return 1.0;
    if (at_low >= 0.0)
        return low;
    if (at_high <= 0.0)
        return high;
    for (int i = 0; i < 200; i++) {
        double slope = slope_at(t, use, b, &curve), next;
        if (slope == 0.0)
            return b;
        if (slope < 0.0)
            low = b;
        else
            high = b;
        next = b - slope / curve;
        if (!(next > low && next < high))
            next = low + (high - low) / 2.0;
        if (next == b || next <= low || next >= high)
            break;
        if (fabs(next - b) <= 4e-16 * b)
            return next;
        b = next;
    }
    return b;
}

static enum status check_task(const struct scored *scored)
{
    if (scored->task == TASK_REGRESSION)
        return status_fail(STATUS_ARG, "a temperature is of probabilities, not of numbers");
    return STATUS_OK;
}

enum status temperature_fit(const struct scored *scored, const uint8_t *use, double *temperature)
{
    struct table t;
    *temperature = NAN;
    TRY(check_task(scored));
    TRY(table_make(&t, scored, false));
    if (any_used(&t, use))
        *temperature = 1.0 / fit_inverse(&t, use);
    table_release(&t);
    return STATUS_OK;
}

/* ---- folds ---- */

static enum status check_folds(const struct scored *scored, const int32_t *fold, int folds)
{
    bool several = false;
    for (int64_t i = 0; i < scored->n; i++) {
        if (fold[i] < 0 || fold[i] >= folds)
            return status_fail(STATUS_ARG, "row %lld is of fold %d, there are %d",
                               (long long)scored->row[i], fold[i], folds);
        several = several || fold[i] != fold[0];
    }
    if (!several)
        return status_fail(STATUS_DATA,
                           "all rows are of one fold: there are no others to fit on for it");
    return STATUS_OK;
}

/* Mark the rows of all folds but one. */
static void leave_out(const int32_t *fold, int64_t n, int without, uint8_t *use)
{
    for (int64_t i = 0; i < n; i++)
        use[i] = fold[i] != without;
}

enum status temperature_nested(const struct scored *scored, const int32_t *fold, int folds,
                               double *temperature, float *logits)
{
    struct table t = {0};
    uint8_t *use = NULL;
    enum status st;
    TRY(check_task(scored));
    TRY(check_folds(scored, fold, folds));
    TRY(table_make(&t, scored, false));
    TRY_GOTO(done, mem_alloc_raw((size_t)t.n, sizeof *use, "rows to fit on", &use));
    for (int f = 0; f < folds; f++) {
        leave_out(fold, t.n, f, use);
        temperature[f] = 1.0 / fit_inverse(&t, use);
    }
    for (int64_t i = 0; i < t.n * scored->outputs; i++)
        logits[i] = (float)((double)scored->logits[i] / temperature[fold[i / scored->outputs]]);
done:
    table_release(&t);
    mem_free(use);
    return st;
}

/* ---- thresholds ---- */

int threshold_count(const struct scored *scored)
{
    if (scored->task == TASK_MULTI_LABEL)
        return scored->outputs;
    return scored->task == TASK_CLASSES && scored->classes == 2 ? 1 : 0;
}

bool threshold_metric(enum metric metric, enum task task)
{
    return task != TASK_REGRESSION &&
           (metric == METRIC_F1 || metric == METRIC_MACRO_F1 || metric == METRIC_ACCURACY ||
            metric == METRIC_BALANCED_ACCURACY || metric == METRIC_MCC || metric == METRIC_KAPPA);
}

/* Decisions counted: true and false, positive and negative. */
struct decisions {
    double tp, fp, fn, tn;
};

static double f1(double tp, double wrong)
{
    return 2.0 * tp + wrong == 0.0 ? NAN : 2.0 * tp / (2.0 * tp + wrong);
}

static double worth(enum metric metric, enum task task, const struct decisions *d)
{
    double truth = d->tp + d->fn, not_truth = d->fp + d->tn, found = d->tp + d->fp,
           n = truth + not_truth, not_found = n - found;
    switch (metric) {
    case METRIC_MACRO_F1:
        if (task ==
            TASK_CLASSES) { /* of the classes that are true or predicted, as METRIC_MACRO_F1 */
            double one = f1(d->tp, d->fp + d->fn), other = f1(d->tn, d->fp + d->fn);
            return isnan(one) ? other : isnan(other) ? one : (one + other) / 2.0;
        }
        return f1(d->tp, d->fp + d->fn);
    case METRIC_ACCURACY:
        return (d->tp + d->tn) / n;
    case METRIC_BALANCED_ACCURACY:
        if (truth == 0.0 || not_truth == 0.0)
            return truth == 0.0 ? d->tn / not_truth : d->tp / truth;
        return (d->tp / truth + d->tn / not_truth) / 2.0;
    case METRIC_MCC:
        return (d->tp * d->tn - d->fp * d->fn) /
               (sqrt(truth) * sqrt(not_truth) * sqrt(found) * sqrt(not_found));
    case METRIC_KAPPA:
        return 1.0 - n * (d->fp + d->fn) / (truth * not_found + not_truth * found);
    default:
        return f1(d->tp, d->fp + d->fn);
    }
}

struct decided {
    double score;
    bool positive;
};

static int by_score(const void *a, const void *b)
{
    const struct decided *x = a, *y = b;
    return (x->score > y->score) - (x->score < y->score);
}

/* A threshold above a and below b, INFINITY standing for no neighbour: 0 if it may be. */
static double between(double a, double b)
{
    if (a < 0.0 && b > 0.0)
        return 0.0;
    if (isinf(a))
        return b - 1.0;
    if (isinf(b))
        return a + 1.0;
    double middle = a + (b - a) / 2.0;
    return middle < b ? middle : a; /* a itself is not above it */
}

static double best_threshold(struct decided *rows, int64_t n, enum metric metric, enum task task)
{
    struct decisions d = {0};
    double best = NAN, threshold = 0.0;
    if (n == 0)
        return 0.0;
    qsort(rows, (size_t)n, sizeof *rows, by_score);
    for (int64_t i = 0; i < n; i++) { /* below the least score all are positive */
        d.tp += rows[i].positive;
        d.fp += !rows[i].positive;
    }
    for (int64_t i = 0; i <= n; i++) { /* i rows are below */
        if (i == 0 || i == n || rows[i].score != rows[i - 1].score) {
            double value = worth(metric, task, &d);
            double t =
                between(i == 0 ? -INFINITY : rows[i - 1].score, i == n ? INFINITY : rows[i].score);
            if (!isnan(value) &&
                (isnan(best) || value > best || (value == best && fabs(t) < fabs(threshold)))) {
                best = value;
                threshold = t;
            }
        }
        if (i < n) {
            d.tp -= rows[i].positive;
            d.fn += rows[i].positive;
            d.fp -= !rows[i].positive;
            d.tn += !rows[i].positive;
        }
    }
    return threshold;
}

/* Scores of all columns, (columns, n) in the order of scored. */
static double score_of(const struct scored *in, int64_t i, int column)
{
    const float *z = in->logits + i * in->outputs;
    if (in->task == TASK_CLASSES && in->outputs == 2)
        return (double)z[1] - (double)z[0];
    return (double)z[column];
}

static enum status check_thresholds(const struct scored *scored, enum metric metric)
{
    if (threshold_count(scored) == 0)
        return status_fail(STATUS_ARG, "thresholds are for two classes or several labels");
    if (!threshold_metric(metric, scored->task))
        return status_fail(STATUS_CONFIG,
                           "no threshold can be fitted to %s, wanted one of f1 macro_f1 accuracy "
                           "balanced_accuracy mcc kappa",
                           metric_name(metric));
    return STATUS_OK;
}

/* rows is (n) working memory. */
static void fit_columns(const struct scored *in, const uint8_t *use, enum metric metric,
                        struct decided *rows, double *threshold)
{
    for (int c = 0; c < threshold_count(in); c++) {
        int64_t n = 0;
        for (int64_t i = 0; i < in->n; i++) {
            bool truth = in->task == TASK_CLASSES ? in->label[i] == 1
                                                  : in->value[i * in->outputs + c] > 0.5f;
            if (use == NULL || use[i])
                rows[n++] = (struct decided){score_of(in, i, c), truth};
        }
        threshold[c] = best_threshold(rows, n, metric, in->task);
    }
}

/* The table is made for its checks. */
static enum status check_rows(const struct scored *scored)
{
    struct table t;
    TRY(table_make(&t, scored, false));
    table_release(&t);
    return STATUS_OK;
}

enum status thresholds_fit(const struct scored *scored, const uint8_t *use, enum metric metric,
                           double *threshold)
{
    struct decided *rows;
    TRY(check_thresholds(scored, metric));
    TRY(check_rows(scored));
    TRY(mem_alloc_raw((size_t)scored->n, sizeof *rows, "scores", &rows));
    fit_columns(scored, use, metric, rows, threshold);
    mem_free(rows);
    return STATUS_OK;
}

static void decide(const struct scored *in, int64_t i, const double *threshold, float *out)
{
    if (in->outputs == 2 && in->task == TASK_CLASSES)
        *out++ = 0.0f;
    for (int c = 0; c < threshold_count(in); c++)
        out[c] = score_of(in, i, c) > threshold[c] ? 1.0f : -1.0f;
}

void thresholds_apply(const struct scored *scored, const double *threshold, float *decisions)
{
    for (int64_t i = 0; i < scored->n; i++)
        decide(scored, i, threshold, decisions + i * scored->outputs);
}

enum status thresholds_nested(const struct scored *scored, const int32_t *fold, int folds,
                              enum metric metric, double *threshold, float *decisions)
{
    struct decided *rows = NULL;
    uint8_t *use = NULL;
    int columns = threshold_count(scored);
    enum status st;
    TRY(check_thresholds(scored, metric));
    TRY(check_rows(scored));
    TRY(check_folds(scored, fold, folds));
    TRY_GOTO(done, mem_alloc_raw((size_t)scored->n, sizeof *rows, "scores", &rows));
    TRY_GOTO(done, mem_alloc_raw((size_t)scored->n, sizeof *use, "rows to fit on", &use));
    for (int f = 0; f < folds; f++) {
        leave_out(fold, scored->n, f, use);
        fit_columns(scored, use, metric, rows, threshold + (int64_t)f * columns);
    }
    for (int64_t i = 0; i < scored->n; i++)
        decide(scored, i, threshold + (int64_t)fold[i] * columns, decisions + i * scored->outputs);
done:
    mem_free(rows);
    mem_free(use);
    return st;
}
