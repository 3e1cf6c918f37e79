/* metrics_evaluate.c - the metrics of classes and labels, from a table and a count for each row. */
#include <math.h>
#include <string.h>

#include "worker/metrics_internal.h"

/* ---- means over rows ---- */

/* -log sigmoid(z) for a true target, -log sigmoid(-z) for a false one. */
static double binary_log_loss(double z, bool truth)
{
    double wrong = truth ? -z : z;
    return (wrong > 0.0 ? wrong : 0.0) + log1p(exp(-fabs(z)));
}

/*
 * -log p of class y. The greatest logit's own term, 1, is kept out of the sum, so that a confident
 * row keeps the digits of a loss far below 1.
 */
static double class_log_loss(const float *z, int outputs, int top, int y)
{
    double others = 0.0;
    for (int c = 0; c < outputs; c++)
        others += c == top ? 0.0 : exp((double)z[c] - (double)z[top]);
    return ((double)z[top] - (double)z[y]) + log1p(others);
}

static double log_loss(const struct table *t, int64_t row)
{
    const struct scored *in = t->in;
    const float *z = table_logits(t, row);
    double sum = 0.0;
    if (in->task == TASK_CLASSES)
        return in->outputs == 1 ? binary_log_loss((double)z[0], t->truth[row] == 1)
                                : class_log_loss(z, in->outputs, t->predicted[row], t->truth[row]);
    for (int c = 0; c < in->outputs; c++)
        sum += binary_log_loss((double)z[c], table_label_true(t, row, c));
    return sum / in->outputs;
}

static double brier(const struct table *t, int64_t row)
{
    const float *z = table_logits(t, row);
    double sum = 0.0, all = 0.0, d;
    if (t->in->task == TASK_CLASSES && t->in->classes == 2) {
        d = table_probability(t, row, 1) - (t->truth[row] == 1);
        return d * d;
    }
    if (t->in->task == TASK_MULTI_LABEL) {
        for (int c = 0; c < t->classes; c++) {
            d = sigmoid((double)z[c]) - table_label_true(t, row, c);
            sum += d * d;
        }
        return sum / t->classes;
    }
    double top = (double)z[t->predicted[row]];
    for (int c = 0; c < t->classes; c++)
        all += exp((double)z[c] - top);
    for (int c = 0; c < t->classes; c++) {
        d = exp((double)z[c] - top) / all - (t->truth[row] == c);
        sum += d * d;
    }
    return sum;
}

/* Whether the true class is among the k greatest logits. */
static double among_top(const struct table *t, int64_t row, int k)
{
    const float *z = table_logits(t, row);
    int y = t->truth[row], before = 0;
    for (int c = 0; c < t->in->outputs; c++)
        before += z[c] > z[y] || (z[c] == z[y] && c < y);
    return before < k;
}

static double wrong_labels(const struct table *t, int64_t row)
{
    int wrong = 0;
    for (int c = 0; c < t->classes; c++)
        wrong += table_label_predicted(t, row, c) != table_label_true(t, row, c);
    return wrong;
}

static double row_f1(const struct table *t, int64_t row)
{
    int truth = 0, predicted = 0, both = 0;
    for (int c = 0; c < t->classes; c++) {
        bool is = table_label_true(t, row, c), found = table_label_predicted(t, row, c);
        truth += is;
        predicted += found;
        both += is && found;
    }
    return truth + predicted == 0 ? 1.0 : 2.0 * both / (truth + predicted);
}

static double ranking_precision(const struct table *t, int64_t row)
{
    const float *z = table_logits(t, row);
    double sum = 0.0;
    int truth = 0;
    for (int c = 0; c < t->classes; c++) {
        int rank = 0, right = 0;
        if (!table_label_true(t, row, c))
            continue;
        for (int k = 0; k < t->classes; k++) {
            rank += z[k] >= z[c];
            right += z[k] >= z[c] && table_label_true(t, row, k);
        }
        sum += (double)right / rank;
        truth++;
    }
    return truth == 0 || truth == t->classes ? 1.0 : sum / truth;
}

static double square_or_distance(const struct table *t, enum metric metric, int64_t row)
{
    double sum = 0.0;
    for (int c = 0; c < t->in->outputs; c++) {
        double d = (double)table_logits(t, row)[c] - (double)table_values(t, row)[c];
        sum += metric == METRIC_MSE ? d * d : fabs(d);
    }
    return sum / t->in->outputs;
}

static double row_error(const struct table *t, enum metric metric, int64_t row)
{
    switch (metric) {
    case METRIC_LOG_LOSS:
        return log_loss(t, row);
    case METRIC_BRIER:
        return brier(t, row);
    case METRIC_TOP3_ACCURACY:
        return among_top(t, row, 3);
    case METRIC_TOP5_ACCURACY:
        return among_top(t, row, 5);
    case METRIC_HAMMING_LOSS:
        return wrong_labels(t, row);
    case METRIC_SAMPLES_F1:
        return row_f1(t, row);
    case METRIC_LRAP:
        return ranking_precision(t, row);
    case METRIC_ECE:
        return table_top_probability(t, row);
    default:
        return square_or_distance(t, metric, row);
    }
}

static bool is_mean(enum metric metric)
{
    static const enum metric means[] = {
        METRIC_LOG_LOSS,      METRIC_BRIER,        METRIC_TOP3_ACCURACY,
        METRIC_TOP5_ACCURACY, METRIC_HAMMING_LOSS, METRIC_SAMPLES_F1,
        METRIC_LRAP,          METRIC_MSE,          METRIC_MAE};
    for (size_t i = 0; i < sizeof means / sizeof means[0]; i++) {
        if (means[i] == metric)
            return true;
    }
    return false;
}

void table_prepare(struct table *t, enum metric metric)
{
    if (!is_mean(metric) && metric != METRIC_ECE)
        return;
    for (int64_t i = 0; i < t->n; i++)
        t->error[i] = row_error(t, metric, i);
}

static double mean_error(const struct table *t, const int32_t *count, int64_t total)
{
    double sum = 0.0;
    for (int64_t i = 0; i < t->n; i++)
        sum += count[i] * t->error[i];
    return sum / (double)total;
}

/* The divisor is of all rows; a resample of another size has its share of it. */
static double mean_loss(const struct table *t, const int32_t *count, int64_t total)
{
    double sum = 0.0;
    if (t->in->loss == NULL || !(t->in->loss_divisor > 0.0))
        return NAN;
    for (int64_t i = 0; i < t->n; i++)
        sum += count[i] * t->in->loss[t->at[i]];
    return sum / (t->in->loss_divisor * ((double)total / (double)t->n));
}

static double calibration_error(const struct table *t, const int32_t *count, int64_t total)
{
    double probability[METRIC_ECE_BINS] = {0}, sum = 0.0;
    int64_t right[METRIC_ECE_BINS] = {0};
    for (int64_t i = 0; i < t->n; i++) {
        int bin = (int)ceil(t->error[i] * METRIC_ECE_BINS) - 1;
        bin = bin < 0 ? 0 : bin >= METRIC_ECE_BINS ? METRIC_ECE_BINS - 1 : bin;
        probability[bin] += count[i] * t->error[i];
        right[bin] += t->predicted[i] == t->truth[i] ? count[i] : 0;
    }
    for (int b = 0; b < METRIC_ECE_BINS; b++)
        sum += fabs((double)right[b] - probability[b]);
    return sum / (double)total;
}

/* ---- counts ---- */

static double accuracy(const struct table *t, const int32_t *count, int64_t total)
{
    int64_t right = 0;
    for (int64_t i = 0; i < t->n; i++) {
        bool same = true;
        if (t->in->task == TASK_CLASSES)
            same = t->predicted[i] == t->truth[i];
        else
            for (int c = 0; c < t->classes && same; c++)
                same = table_label_predicted(t, i, c) == table_label_true(t, i, c);
        right += same ? count[i] : 0;
    }
    return (double)right / (double)total;
}

void table_count(struct table *t, const int32_t *count)
{
    memset(t->tally, 0, (size_t)t->classes * sizeof *t->tally);
    for (int64_t i = 0; i < t->n; i++) {
        if (t->in->task == TASK_CLASSES) {
            t->tally[t->truth[i]].truth += count[i];
            t->tally[t->predicted[i]].predicted += count[i];
            t->tally[t->truth[i]].both += t->truth[i] == t->predicted[i] ? count[i] : 0;
            continue;
        }
        for (int c = 0; c < t->classes; c++) {
            bool truth = table_label_true(t, i, c), predicted = table_label_predicted(t, i, c);
            t->tally[c].truth += truth ? count[i] : 0;
            t->tally[c].predicted += predicted ? count[i] : 0;
            t->tally[c].both += truth && predicted ? count[i] : 0;
        }
    }
}

/* A ratio of counts; undefined where there is nothing to divide by. */
static double ratio(int64_t part, int64_t of)
{
    return of == 0 ? NAN : (double)part / (double)of;
}

static double f1_of(const struct tally *c)
{
    return ratio(2 * c->both, c->truth + c->predicted); /* 2 tp + fp + fn */
}

static double mean_f1(const struct table *t, enum metric metric)
{
    double sum = 0.0;
    int64_t weights = 0;
    int met = 0;
    for (int c = 0; c < t->classes; c++) {
        const struct tally *of = &t->tally[c];
        double f1 = f1_of(of);
        int64_t weight = metric == METRIC_WEIGHTED_F1
                             ? of->truth
                             : t->in->task == TASK_MULTI_LABEL || !isnan(f1);
        met += !isnan(f1);
        weights += weight;
        sum += isnan(f1) ? 0.0 : (double)weight * f1;
    }
    return met == 0 || weights == 0 ? NAN : sum / (double)weights;
}

static double micro_f1(const struct table *t)
{
    struct tally sum = {0};
    for (int c = 0; c < t->classes; c++) {
        sum.truth += t->tally[c].truth;
        sum.predicted += t->tally[c].predicted;
        sum.both += t->tally[c].both;
    }
    return f1_of(&sum);
}

static double balanced_accuracy(const struct table *t)
{
    double sum = 0.0;
    int met = 0;
    for (int c = 0; c < t->classes; c++) {
        if (t->tally[c].truth == 0)
            continue;
        sum += ratio(t->tally[c].both, t->tally[c].truth);
        met++;
    }
    return sum / met;
}

/* Covariances of the one-hot columns, as scikit-learn sums them; below 2^53 up to 94 million rows.
 */
static double matthews(const struct table *t, int64_t total)
{
    double n = (double)total, right = 0.0, cross = 0.0, truth = 0.0, predicted = 0.0;
    for (int c = 0; c < t->classes; c++) {
        const struct tally *of = &t->tally[c];
        right += (double)of->both;
        cross += (double)of->truth * (double)of->predicted;
        truth += (double)of->truth * (double)of->truth;
        predicted += (double)of->predicted * (double)of->predicted;
    }
    double truth_spread = n * n - truth, predicted_spread = n * n - predicted;
    if (truth_spread == 0.0 || predicted_spread == 0.0)
        return NAN;
    return (right * n - cross) / (sqrt(truth_spread) * sqrt(predicted_spread));
}

/*
 * 1 - disagreement / expected disagreement, both times total^2, in whole numbers. The expected
 * square distance of independent draws is that of sums: total * (sum of truth c^2 + predicted c^2)
 * - 2 * sum of truth c * sum of predicted c.
 */
static double kappa(const struct table *t, bool quadratic, const int32_t *count, int64_t total)
{
    __int128 wrong = 0, expected = 0, first[2] = {0}, second = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int64_t d = t->truth[i] - t->predicted[i];
        wrong += (__int128)count[i] * (quadratic ? d * d : d != 0);
    }
    for (int64_t c = 0; c < t->classes; c++) {
        const struct tally *of = &t->tally[c];
        first[0] += (__int128)of->truth * c;
        first[1] += (__int128)of->predicted * c;
        second += (__int128)(of->truth + of->predicted) * c * c;
        expected += (__int128)of->truth * of->predicted;
    }
    expected = quadratic ? total * second - 2 * first[0] * first[1]
                         : (__int128)total * total - expected;
    return expected == 0 ? NAN : 1.0 - (double)(wrong * total) / (double)expected;
}

/* ---- ranks ---- */

/* Pairs of a positive and a negative in which the positive ranks higher, ties one half: counted
 * doubled, in integers. */
double table_roc_auc(const struct table *t, int column, const int32_t *count)
{
    const struct ranked *rank = t->rank + (int64_t)column * t->n;
    int64_t positives = 0, negatives = 0, tied_positives = 0, tied_negatives = 0;
    unsigned __int128 doubled = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int32_t row = rank[i].row;
        if (table_is_positive(t, row, column))
            tied_positives += count[row];
        else
            tied_negatives += count[row];
        if (i + 1 == t->n || rank[i + 1].group != rank[i].group) {
            doubled += (unsigned __int128)tied_positives *
                       (uint64_t)(2 * negatives + tied_negatives);
            positives += tied_positives;
            negatives += tied_negatives;
            tied_positives = tied_negatives = 0;
        }
    }
    if (positives == 0 || negatives == 0)
        return NAN;
    return (double)doubled / (2.0 * (double)positives * (double)negatives);
}

double table_pr_auc(const struct table *t, int column, bool reversed, const int32_t *count)
{
    const struct ranked *rank = t->rank + (int64_t)column * t->n;
    int64_t positives = 0, above = 0, tied = 0;
    double sum = 0.0;
    for (int64_t k = 0; k < t->n; k++) { /* the greatest score first */
        int64_t i = reversed ? k : t->n - 1 - k, next = reversed ? i + 1 : i - 1;
        int32_t row = rank[i].row;
        above += count[row];
        if (table_is_positive(t, row, column) != reversed)
            tied += count[row];
        if (k + 1 == t->n || rank[next].group != rank[i].group) {
            positives += tied;
            if (tied > 0)
                sum += (double)tied * ((double)positives / (double)above);
            tied = 0;
        }
    }
    return positives == 0 ? NAN : sum / (double)positives;
}

static double mean_area(const struct table *t, enum metric metric, const int32_t *count)
{
    double sum = 0.0;
    for (int column = 0; column < t->columns; column++)
        sum += metric == METRIC_PR_AUC ? table_pr_auc(t, column, false, count)
                                       : table_roc_auc(t, column, count);
    return sum / t->columns;
}

static double weighted_area(const struct table *t, const int32_t *count)
{
    double sum = 0.0, weights = 0.0;
    for (int column = 0; column < t->columns; column++) {
        double weight = (double)t->tally[column].truth;
        if (weight > 0.0)
            sum += weight * table_roc_auc(t, column, count);
        weights += weight;
    }
    return weights == 0.0 ? NAN : sum / weights;
}

/* ---- all of them ---- */

double table_evaluate(struct table *t, enum metric metric, const int32_t *count, int64_t total)
{
    if (total == 0)
        return NAN;
    switch (metric) {
    case METRIC_LOSS:
        return mean_loss(t, count, total);
    case METRIC_ACCURACY:
        return accuracy(t, count, total);
    case METRIC_HAMMING_LOSS:
        return mean_error(t, count, total) / t->classes;
    case METRIC_ECE:
        return calibration_error(t, count, total);
    case METRIC_ROC_AUC:
    case METRIC_PR_AUC:
        return mean_area(t, metric, count);
    case METRIC_RMSE:
    case METRIC_PEARSON:
    case METRIC_SPEARMAN:
    case METRIC_KENDALL:
    case METRIC_R2:
    case METRIC_EXPLAINED_VARIANCE:
        return table_fit(t, metric, count, total);
    default:
        break;
    }
    if (is_mean(metric))
        return mean_error(t, count, total);
    table_count(t, count);
    switch (metric) {
    case METRIC_BALANCED_ACCURACY:
        return balanced_accuracy(t);
    case METRIC_MICRO_F1:
        return micro_f1(t);
    case METRIC_MCC:
        return matthews(t, total);
    case METRIC_KAPPA:
        return kappa(t, false, count, total);
    case METRIC_QUADRATIC_KAPPA:
        return kappa(t, true, count, total);
    case METRIC_WEIGHTED_ROC_AUC:
        return weighted_area(t, count);
    case METRIC_PRECISION:
        return ratio(t->tally[1].both, t->tally[1].predicted);
    case METRIC_RECALL:
        return ratio(t->tally[1].both, t->tally[1].truth);
    case METRIC_F1:
        return f1_of(&t->tally[1]);
    default:
        return mean_f1(t, metric);
    }
}
