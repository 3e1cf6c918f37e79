/*
 * metrics.c - see metrics.h.
 *
 * Everything is computed from a table of rows sorted by id and a count for each of them: 1 for the
 * metrics themselves, the number of draws in a bootstrap resample. So a resample costs one pass
 * over rows that were sorted once, and both uses share one formula. Counts of rows are integers and
 * therefore exact; sums of doubles run in the order of ids.
 */
#include "worker/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"

/* ---- names and directions ---- */

static const struct {
    const char *name;
    bool higher, classes, multi_label, regression, two_classes;
} METRICS[METRIC_COUNT] = {
    [METRIC_LOSS] = {"loss", false, true, true, true, false},
    [METRIC_ACCURACY] = {"accuracy", true, true, true, false, false},
    [METRIC_MACRO_F1] = {"macro_f1", true, true, true, false, false},
    [METRIC_MICRO_F1] = {"micro_f1", true, true, true, false, false},
    [METRIC_WEIGHTED_F1] = {"weighted_f1", true, true, true, false, false},
    [METRIC_MCC] = {"mcc", true, true, false, false, false},
    [METRIC_LOG_LOSS] = {"log_loss", false, true, true, false, false},
    [METRIC_ROC_AUC] = {"roc_auc", true, true, true, false, false},
    [METRIC_PRECISION] = {"precision", true, true, false, false, true},
    [METRIC_RECALL] = {"recall", true, true, false, false, true},
    [METRIC_F1] = {"f1", true, true, false, false, true},
    [METRIC_MSE] = {"mse", false, false, false, true, false},
    [METRIC_MAE] = {"mae", false, false, false, true, false},
    [METRIC_PEARSON] = {"pearson", true, false, false, true, false},
    [METRIC_SPEARMAN] = {"spearman", true, false, false, true, false},
    [METRIC_R2] = {"r2", true, false, false, true, false},
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
    if (task == TASK_CLASSES)
        return METRICS[metric].classes && (classes == 2 || !METRICS[metric].two_classes);
    return task == TASK_MULTI_LABEL ? METRICS[metric].multi_label : METRICS[metric].regression;
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

/* ---- the table ---- */

/* Rows in the order of a score. */
struct ranked {
    int32_t row;   /* of the table */
    int32_t group; /* rows of equal score have equal groups; ascending */
};

struct tally {
    int64_t truth, predicted, both; /* rows of a class or label; both is tp */
};

struct table {
    const struct scored *in;
    int64_t n;
    int classes;         /* columns of tallies: classes or labels; 0 for regression */
    int32_t *at;         /* (n) where the i-th row by id is in the input */
    int32_t *predicted;  /* (n) TASK_CLASSES */
    int32_t *truth;      /* (n) TASK_CLASSES */
    double *error;       /* (n) of what is averaged: log loss, squared or absolute error */
    int columns;         /* what is ranked, see rank_columns() */
    struct ranked *rank; /* (columns, n) */
    struct tally *tally; /* (classes) working memory of one evaluation */
    double *pair; /* (2, n) the same, for regression: predictions and targets, or their ranks */
};

struct id_at {
    int64_t id;
    int32_t at;
};

static int by_id(const void *a, const void *b)
{
    const struct id_at *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static enum status sort_rows(struct table *t)
{
    struct id_at *rows;
    enum status st = STATUS_OK;
    TRY(mem_alloc_raw((size_t)t->n, sizeof *rows, "sorted row ids", &rows));
    for (int64_t i = 0; i < t->n; i++)
        rows[i] = (struct id_at){t->in->row[i], (int32_t)i};
    qsort(rows, (size_t)t->n, sizeof *rows, by_id);
    for (int64_t i = 0; i < t->n; i++) {
        if (i > 0 && rows[i].id == rows[i - 1].id) {
            st = status_fail(STATUS_DATA, "row %lld was scored twice, wanted each row once",
                             (long long)rows[i].id);
            break;
        }
        t->at[i] = rows[i].at;
    }
    mem_free(rows);
    return st;
}

static const float *logits_of(const struct table *t, int64_t row)
{
    return t->in->logits + (int64_t)t->at[row] * t->in->outputs;
}

static const float *values_of(const struct table *t, int64_t row)
{
    return t->in->value + (int64_t)t->at[row] * t->in->outputs;
}

static bool label_predicted(const struct table *t, int64_t row, int label)
{
    return t->in->probabilities[(int64_t)t->at[row] * t->in->outputs + label] >= 0.5f;
}

static bool label_true(const struct table *t, int64_t row, int label)
{
    return values_of(t, row)[label] > 0.5f;
}

static enum status check(const struct scored *in)
{
    bool classes = in->task == TASK_CLASSES;
    if (in->n < 0 || in->n > INT32_MAX || in->outputs < 1 ||
        (classes && in->classes != in->outputs && !(in->outputs == 1 && in->classes == 2)) ||
        (classes && in->classes < 2))
        return status_fail(
            STATUS_ARG, "metrics of %lld rows, %d outputs and %d classes: these sizes do not fit",
            (long long)in->n, in->outputs, in->classes);
    for (int64_t i = 0; i < in->n; i++) {
        for (int c = 0; c < in->outputs; c++) {
            if (!isfinite(in->logits[i * in->outputs + c]))
                return status_fail(STATUS_NUMERIC, "row %lld: score %d is not finite",
                                   (long long)in->row[i], c);
            if (!classes && !isfinite(in->value[i * in->outputs + c]))
                return status_fail(STATUS_NUMERIC, "row %lld: target %d is not finite",
                                   (long long)in->row[i], c);
        }
        if (classes && (in->label[i] < 0 || in->label[i] >= in->classes))
            return status_fail(STATUS_DATA, "row %lld has the label %d, wanted one below %d",
                               (long long)in->row[i], (int)in->label[i], in->classes);
    }
    return STATUS_OK;
}

/* ---- scores of single rows ---- */

static int predicted_class(const float *z, int outputs)
{
    int best = 0;
    if (outputs == 1)
        return z[0] > 0.0f;
    for (int c = 1; c < outputs; c++)
        best = z[c] > z[best] ? c : best;
    return best;
}

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
static double class_log_loss(const float *z, int outputs, int y)
{
    int top = predicted_class(z, outputs);
    double others = 0.0;
    for (int c = 0; c < outputs; c++)
        others += c == top ? 0.0 : exp((double)z[c] - (double)z[top]);
    return ((double)z[top] - (double)z[y]) + log1p(others);
}

/*
 * log(p / (1 - p)) of every class: z_c - log of the sum of exp of the other logits. For the top
 * class the sum runs from the second; for the others it contains the top one's 1, so that leaving c
 * out of it cancels nothing.
 */
static void class_margins(const float *z, int outputs, float *out, int64_t stride)
{
    int top = predicted_class(z, outputs), second = top == 0 ? 1 : 0;
    double all = 0.0, others = 0.0;
    for (int c = 0; c < outputs; c++)
        second = c != top && z[c] > z[second] ? c : second;
    for (int c = 0; c < outputs; c++) {
        all += exp((double)z[c] - (double)z[top]);
        others += c == top ? 0.0 : exp((double)z[c] - (double)z[second]);
    }
    for (int c = 0; c < outputs; c++) {
        double rest = c == top ? (double)z[second] + log(others)
                               : (double)z[top] + log(all - exp((double)z[c] - (double)z[top]));
        out[c * stride] = (float)((double)z[c] - rest);
    }
}

/* ---- order of scores ---- */

struct keyed {
    double key;
    int32_t row;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

static void rank_column(struct table *t, int column, struct keyed *keys)
{
    struct ranked *rank = t->rank + (int64_t)column * t->n;
    int32_t group = 0;
    qsort(keys, (size_t)t->n, sizeof *keys, by_key);
    for (int64_t i = 0; i < t->n; i++) {
        group += i > 0 && keys[i].key != keys[i - 1].key;
        rank[i] = (struct ranked){keys[i].row, group};
    }
}

/* AUC ranks one column of scores for two classes, one for each class or label for more; Spearman
 * ranks outputs predictions and then outputs targets. */
static enum status rank_columns(struct table *t)
{
    const struct scored *in = t->in;
    bool many = in->task == TASK_CLASSES && in->classes > 2;
    struct keyed *keys = NULL;
    float *margins = NULL;
    enum status st;
    t->columns = in->task == TASK_REGRESSION            ? 2 * in->outputs
                 : in->task == TASK_MULTI_LABEL || many ? in->outputs
                                                        : 1;
    TRY_GOTO(done, mem_alloc_raw((size_t)t->n, sizeof *keys, "scores to sort", &keys));
    TRY_GOTO(done, mem_alloc_raw((size_t)t->n * (size_t)t->columns, sizeof *t->rank,
                                 "ranks of scores", &t->rank));
    if (many) {
        TRY_GOTO(done, mem_alloc_raw((size_t)t->n * (size_t)t->columns, sizeof *margins, "margins",
                                     &margins));
        for (int64_t i = 0; i < t->n; i++)
            class_margins(logits_of(t, i), in->outputs, margins + i, t->n);
    }
    for (int column = 0; column < t->columns; column++) {
        for (int64_t i = 0; i < t->n; i++) {
            const float *z = logits_of(t, i);
            keys[i].row = (int32_t)i;
            if (many)
                keys[i].key = (double)margins[column * t->n + i];
            else if (in->task == TASK_CLASSES && in->outputs == 2)
                keys[i].key = (double)z[1] - (double)z[0];
            else if (column >= in->outputs)
                keys[i].key = (double)values_of(t, i)[column - in->outputs];
            else
                keys[i].key = (double)z[column];
        }
        rank_column(t, column, keys);
    }
done:
    mem_free(keys);
    mem_free(margins);
    return st;
}

static void table_release(struct table *t)
{
    mem_free(t->at);
    mem_free(t->predicted);
    mem_free(t->truth);
    mem_free(t->error);
    mem_free(t->rank);
    mem_free(t->tally);
    mem_free(t->pair);
    *t = (struct table){0};
}

/* Sort and classify; ranked says whether the order of scores is needed as well. */
static enum status table_make(struct table *t, const struct scored *in, bool ranked)
{
    size_t n = (size_t)in->n;
    enum status st;
    *t = (struct table){.in = in, .n = in->n};
    TRY(check(in));
    t->classes = in->task == TASK_CLASSES       ? in->classes
                 : in->task == TASK_MULTI_LABEL ? in->outputs
                                                : 0;
    TRY_GOTO(fail, mem_alloc_raw(n, sizeof *t->at, "sorted rows", &t->at));
    TRY_GOTO(fail, mem_alloc_raw(n, sizeof *t->error, "errors of rows", &t->error));
    TRY_GOTO(fail,
             mem_alloc_raw((size_t)t->classes, sizeof *t->tally, "counts of classes", &t->tally));
    TRY_GOTO(fail, sort_rows(t));
    if (in->task == TASK_CLASSES) {
        TRY_GOTO(fail, mem_alloc_raw(n, sizeof *t->predicted, "predictions", &t->predicted));
        TRY_GOTO(fail, mem_alloc_raw(n, sizeof *t->truth, "labels", &t->truth));
        for (int64_t i = 0; i < t->n; i++) {
            t->predicted[i] = predicted_class(logits_of(t, i), in->outputs);
            t->truth[i] = in->label[t->at[i]];
        }
    }
    if (in->task == TASK_REGRESSION)
        TRY_GOTO(fail, mem_alloc_raw(2 * n, sizeof *t->pair, "ranks", &t->pair));
    if (ranked)
        TRY_GOTO(fail, rank_columns(t));
    return STATUS_OK;
fail:
    table_release(t);
    return st;
}

/* ---- means ---- */

static double row_error(const struct table *t, enum metric metric, int64_t row)
{
    const struct scored *in = t->in;
    const float *z = logits_of(t, row);
    double sum = 0.0;
    if (in->task == TASK_CLASSES)
        return in->outputs == 1 ? binary_log_loss((double)z[0], t->truth[row] == 1)
                                : class_log_loss(z, in->outputs, t->truth[row]);
    for (int c = 0; c < in->outputs; c++) {
        double d = (double)z[c] - (double)values_of(t, row)[c];
        sum += metric == METRIC_LOG_LOSS ? binary_log_loss((double)z[c], label_true(t, row, c))
               : metric == METRIC_MSE    ? d * d
                                         : fabs(d);
    }
    return sum / in->outputs;
}

/* What the mean metrics average is kept for the resamples. */
static void find_errors(struct table *t, enum metric metric)
{
    if (metric != METRIC_LOG_LOSS && metric != METRIC_MSE && metric != METRIC_MAE)
        return;
    for (int64_t i = 0; i < t->n; i++)
        t->error[i] = row_error(t, metric, i);
}

static double mean_error(const struct table *t, const int32_t *count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < t->n; i++)
        sum += count[i] * t->error[i];
    return sum / (double)t->n;
}

static double mean_loss(const struct table *t, const int32_t *count)
{
    double sum = 0.0;
    if (t->in->loss == NULL || !(t->in->loss_divisor > 0.0))
        return NAN;
    for (int64_t i = 0; i < t->n; i++)
        sum += count[i] * t->in->loss[t->at[i]];
    return sum / t->in->loss_divisor;
}

/* ---- counts ---- */

static double accuracy(const struct table *t, const int32_t *count)
{
    int64_t right = 0;
    for (int64_t i = 0; i < t->n; i++) {
        bool same = true;
        if (t->in->task == TASK_CLASSES)
            same = t->predicted[i] == t->truth[i];
        else
            for (int c = 0; c < t->classes && same; c++)
                same = label_predicted(t, i, c) == label_true(t, i, c);
        right += same ? count[i] : 0;
    }
    return (double)right / (double)t->n;
}

static void count_classes(struct table *t, const int32_t *count)
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
            bool truth = label_true(t, i, c), predicted = label_predicted(t, i, c);
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

/* Covariances of the one-hot columns, as scikit-learn sums them; below 2^53 up to 94 million rows.
 */
static double matthews(const struct table *t)
{
    double n = (double)t->n, right = 0.0, cross = 0.0, truth = 0.0, predicted = 0.0;
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

/* ---- ranks ---- */

static bool is_positive(const struct table *t, int64_t row, int column)
{
    if (t->in->task == TASK_MULTI_LABEL)
        return label_true(t, row, column);
    return t->truth[row] == (t->in->classes == 2 ? 1 : column);
}

/* Pairs of a positive and a negative in which the positive ranks higher, ties one half: counted
 * doubled, in integers. */
static double auc_of(const struct table *t, int column, const int32_t *count)
{
    const struct ranked *rank = t->rank + (int64_t)column * t->n;
    int64_t positives = 0, negatives = 0, tied_positives = 0, tied_negatives = 0;
    unsigned __int128 doubled = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int32_t row = rank[i].row;
        if (is_positive(t, row, column))
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

static double roc_auc(const struct table *t, const int32_t *count)
{
    double sum = 0.0;
    for (int column = 0; column < t->columns; column++)
        sum += auc_of(t, column, count);
    return sum / t->columns;
}

static void average_ranks(const struct table *t, int column, const int32_t *count, double *out)
{
    const struct ranked *rank = t->rank + (int64_t)column * t->n;
    int64_t before = 0;
    for (int64_t i = 0, end; i < t->n; i = end) {
        int64_t rows = 0;
        for (end = i; end < t->n && rank[end].group == rank[i].group; end++)
            rows += count[rank[end].row];
        for (int64_t j = i; j < end; j++)
            out[rank[j].row] = (double)before + ((double)rows + 1.0) / 2.0;
        before += rows;
    }
}

/* ---- correlations of one output ---- */

/* Predictions x and targets y with their spreads. */
struct moments {
    bool x_varies, y_varies;
    double xx, yy, xy; /* sums of squares and products around the means */
    double residual;   /* sum of (x - y)^2 */
};

static struct moments moments_of(const struct table *t, const double *x, const double *y,
                                 const int32_t *count)
{
    struct moments m = {0};
    double mean_x = 0.0, mean_y = 0.0;
    int64_t first = -1;
    for (int64_t i = 0; i < t->n; i++) {
        if (count[i] == 0)
            continue;
        first = first < 0 ? i : first;
        /* Not by xx > 0: the mean of equal numbers may be rounded away from them. */
        m.x_varies = m.x_varies || x[i] != x[first];
        m.y_varies = m.y_varies || y[i] != y[first];
        mean_x += count[i] * x[i];
        mean_y += count[i] * y[i];
    }
    mean_x /= (double)t->n;
    mean_y /= (double)t->n;
    for (int64_t i = 0; i < t->n; i++) {
        double dx = x[i] - mean_x, dy = y[i] - mean_y, d = x[i] - y[i];
        m.xx += count[i] * (dx * dx);
        m.yy += count[i] * (dy * dy);
        m.xy += count[i] * (dx * dy);
        m.residual += count[i] * (d * d);
    }
    return m;
}

static double correlation(const struct moments *m)
{
    if (!m->x_varies || !m->y_varies)
        return NAN;
    double r = m->xy / (sqrt(m->xx) * sqrt(m->yy));
    return r > 1.0 ? 1.0 : r < -1.0 ? -1.0 : r;
}

static double fit(const struct table *t, enum metric metric, const int32_t *count)
{
    int outputs = t->in->outputs;
    double sum = 0.0, *x = t->pair, *y = t->pair + t->n;
    for (int c = 0; c < outputs; c++) {
        if (metric == METRIC_SPEARMAN) {
            average_ranks(t, c, count, x);
            average_ranks(t, outputs + c, count, y);
        } else {
            for (int64_t i = 0; i < t->n; i++) {
                x[i] = (double)logits_of(t, i)[c];
                y[i] = (double)values_of(t, i)[c];
            }
        }
        struct moments m = moments_of(t, x, y, count);
        if (metric == METRIC_R2)
            sum += m.y_varies ? 1.0 - m.residual / m.yy : NAN;
        else
            sum += correlation(&m);
    }
    return sum / outputs;
}

/* ---- all of them ---- */

/* The metric where row i counts count[i] times, n in all. find_errors() went before. */
static double evaluate(struct table *t, enum metric metric, const int32_t *count)
{
    if (t->n == 0)
        return NAN;
    switch (metric) {
    case METRIC_LOSS:
        return mean_loss(t, count);
    case METRIC_ACCURACY:
        return accuracy(t, count);
    case METRIC_LOG_LOSS:
    case METRIC_MSE:
    case METRIC_MAE:
        return mean_error(t, count);
    case METRIC_ROC_AUC:
        return roc_auc(t, count);
    case METRIC_PEARSON:
    case METRIC_SPEARMAN:
    case METRIC_R2:
        return fit(t, metric, count);
    default:
        break;
    }
    count_classes(t, count);
    switch (metric) {
    case METRIC_MICRO_F1:
        return micro_f1(t);
    case METRIC_MCC:
        return matthews(t);
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

enum status metrics_compute(const struct scored *scored, struct metric_values *out)
{
    struct table t = {0};
    int32_t *count = NULL;
    enum status st;
    *out = (struct metric_values){0};
    TRY_GOTO(done, table_make(&t, scored, true));
    TRY_GOTO(done, mem_alloc_raw((size_t)t.n, sizeof *count, "counts of rows", &count));
    for (int64_t i = 0; i < t.n; i++)
        count[i] = 1;
    if (scored->task == TASK_CLASSES) {
        size_t classes = (size_t)scored->classes;
        TRY_GOTO(done, mem_alloc(classes * classes, sizeof *out->confusion, "a confusion matrix",
                                 &out->confusion));
        out->classes = scored->classes;
        for (int64_t i = 0; i < t.n; i++)
            out->confusion[(int64_t)t.truth[i] * scored->classes + t.predicted[i]]++;
    }
    for (int m = 0; m < METRIC_COUNT; m++) {
        out->of_task[m] = metric_is_of((enum metric)m, scored->task, scored->classes);
        out->value[m] = NAN;
        if (out->of_task[m]) {
            find_errors(&t, (enum metric)m);
            out->value[m] = evaluate(&t, (enum metric)m, count);
        }
    }
done:
    table_release(&t);
    mem_free(count);
    return st;
}

void metrics_release(struct metric_values *values)
{
    mem_free(values->confusion);
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

/* ---- interval ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(const double *sorted, int n, double share)
{
    double at = share * (n - 1);
    int below = (int)at;
    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

enum status metrics_interval(const struct scored *scored, enum metric metric, uint64_t seed,
                             int resamples, double ci95[2])
{
    struct table t = {0};
    int32_t *count = NULL;
    double *values = NULL;
    int defined = 0;
    enum status st;
    ci95[0] = ci95[1] = NAN;
    if (resamples < 1)
        return status_fail(STATUS_ARG, "%d resamples, wanted at least one", resamples);
    TRY_GOTO(done, table_make(&t, scored, metric == METRIC_ROC_AUC || metric == METRIC_SPEARMAN));
    if (!metric_is_of(metric, scored->task, scored->classes))
        goto done;
    TRY_GOTO(done, mem_alloc_raw((size_t)t.n, sizeof *count, "counts of rows", &count));
    TRY_GOTO(done, mem_alloc_raw((size_t)resamples, sizeof *values, "resamples", &values));
    find_errors(&t, metric);
    for (int r = 0; r < resamples; r++) {
        uint64_t key = random_key(seed, RANDOM_BOOTSTRAP, (uint64_t)r, 0);
        memset(count, 0, (size_t)t.n * sizeof *count);
        for (int64_t i = 0; i < t.n; i++)
            count[random_below(key, (uint64_t)i, (uint64_t)t.n)]++;
        double value = evaluate(&t, metric, count);
        if (!isnan(value))
            values[defined++] = value;
    }
    if (defined > 0 && 2 * (int64_t)defined >= resamples) {
        qsort(values, (size_t)defined, sizeof *values, by_value);
        ci95[0] = percentile(values, defined, 0.025);
        ci95[1] = percentile(values, defined, 0.975);
    }
done:
    table_release(&t);
    mem_free(count);
    mem_free(values);
    return st;
}
