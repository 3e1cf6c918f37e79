/* metrics_table.c - the table behind metrics and curves: checked, sorted by id, ranked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/metrics_internal.h"

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

const float *table_logits(const struct table *t, int64_t row)
{
    return t->in->logits + (int64_t)t->at[row] * t->in->outputs;
}

const float *table_values(const struct table *t, int64_t row)
{
    return t->in->value + (int64_t)t->at[row] * t->in->outputs;
}

bool table_label_predicted(const struct table *t, int64_t row, int label)
{
    return t->in->probabilities[(int64_t)t->at[row] * t->in->outputs + label] >= 0.5f;
}

bool table_label_true(const struct table *t, int64_t row, int label)
{
    return table_values(t, row)[label] > 0.5f;
}

bool table_is_positive(const struct table *t, int64_t row, int column)
{
    if (t->in->task == TASK_MULTI_LABEL)
        return table_label_true(t, row, column);
    return t->truth[row] == (t->in->classes == 2 ? 1 : column);
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

double sigmoid(double z)
{
    return z >= 0.0 ? 1.0 / (1.0 + exp(-z)) : exp(z) / (1.0 + exp(z));
}

double table_probability(const struct table *t, int64_t row, int c)
{
    const float *z = table_logits(t, row);
    double sum = 0.0;
    if (t->in->task == TASK_MULTI_LABEL)
        return sigmoid((double)z[c]);
    if (t->in->outputs == 1)
        return sigmoid(c == 1 ? (double)z[0] : -(double)z[0]);
    for (int k = 0; k < t->in->outputs; k++)
        sum += exp((double)z[k] - (double)z[t->predicted[row]]);
    return exp((double)z[c] - (double)z[t->predicted[row]]) / sum;
}

double table_top_probability(const struct table *t, int64_t row)
{
    return table_probability(t, row, t->predicted[row]);
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

enum status table_scores(const struct table *t, int column, double *out)
{
    const struct scored *in = t->in;
    float *margins;
    TRY(mem_alloc_raw((size_t)in->outputs, sizeof *margins, "margins", &margins));
    for (int64_t i = 0; i < t->n; i++) {
        const float *z = table_logits(t, i);
        if (in->task == TASK_CLASSES && in->classes > 2) {
            class_margins(z, in->outputs, margins, 1);
            out[i] = (double)margins[column];
        } else if (in->task == TASK_CLASSES) {
            out[i] = in->outputs == 1 ? (double)z[0] : (double)z[1] - (double)z[0];
            out[i] = column == 1 ? out[i] : -out[i];
        } else {
            out[i] = (double)z[column];
        }
    }
    mem_free(margins);
    return STATUS_OK;
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
 * and Kendall rank outputs predictions and then outputs targets. */
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
            class_margins(table_logits(t, i), in->outputs, margins + i, t->n);
    }
    for (int column = 0; column < t->columns; column++) {
        for (int64_t i = 0; i < t->n; i++) {
            const float *z = table_logits(t, i);
            keys[i].row = (int32_t)i;
            if (many)
                keys[i].key = (double)margins[column * t->n + i];
            else if (in->task == TASK_CLASSES && in->outputs == 2)
                keys[i].key = (double)z[1] - (double)z[0];
            else if (column >= in->outputs)
                keys[i].key = (double)table_values(t, i)[column - in->outputs];
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

/* ---- making ---- */

void table_release(struct table *t)
{
    mem_free(t->at);
    mem_free(t->predicted);
    mem_free(t->truth);
    mem_free(t->error);
    mem_free(t->rank);
    mem_free(t->tally);
    mem_free(t->pair);
    mem_free(t->tree);
    *t = (struct table){0};
}

enum status table_make(struct table *t, const struct scored *in, bool ranked)
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
            t->predicted[i] = predicted_class(table_logits(t, i), in->outputs);
            t->truth[i] = in->label[t->at[i]];
        }
    }
    if (in->task == TASK_REGRESSION) {
        TRY_GOTO(fail, mem_alloc_raw(2 * n, sizeof *t->pair, "ranks", &t->pair));
        if (ranked)
            TRY_GOTO(fail, mem_alloc_raw(n + 1, sizeof *t->tree, "ranks", &t->tree));
    }
    if (ranked)
        TRY_GOTO(fail, rank_columns(t));
    return STATUS_OK;
fail:
    table_release(t);
    return st;
}
