/* curves.c - see curves.h. */
#include "worker/curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "worker/metrics_internal.h"

struct scored_row {
    double score;
    bool positive;
};

static int by_score(const void *a, const void *b)
{
    const struct scored_row *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return y->positive - x->positive;
}

static bool truth_of(const struct table *t, int64_t row, int column)
{
    return t->in->task == TASK_MULTI_LABEL ? table_label_true(t, row, column)
                                           : t->truth[row] == column;
}

static enum status check(const struct scored *scored, int column, int least, int most, int bound)
{
    int columns = scored->task == TASK_CLASSES ? scored->classes : scored->outputs;
    if (scored->task == TASK_REGRESSION)
        return status_fail(STATUS_ARG, "curves are of classes and labels, not of numbers");
    if (column < least || column >= columns)
        return status_fail(STATUS_ARG, "a curve of class or label %d, there are %d", column,
                           columns);
    if (most < bound || most > 1000000)
        return status_fail(STATUS_ARG, "a curve of %d points, wanted %d to 1000000", most, bound);
    return STATUS_OK;
}

/* Rows of a column, the greatest score first, and how many are positive. */
static enum status sort_column(const struct scored *scored, int column, struct scored_row **rows,
                               struct curve *out)
{
    struct table t;
    double *score = NULL;
    enum status st;
    *rows = NULL;
    TRY(table_make(&t, scored, false));
    TRY_GOTO(done, mem_alloc_raw((size_t)t.n, sizeof *score, "scores", &score));
    TRY_GOTO(done, mem_alloc_raw((size_t)t.n, sizeof **rows, "scores", rows));
    TRY_GOTO(done, table_scores(&t, column, score));
    for (int64_t i = 0; i < t.n; i++) {
        (*rows)[i] = (struct scored_row){score[i], truth_of(&t, i, column)};
        out->positives += (*rows)[i].positive;
    }
    out->negatives = t.n - out->positives;
    qsort(*rows, (size_t)t.n, sizeof **rows, by_score);
done:
    table_release(&t);
    mem_free(score);
    return st;
}

/* ---- thinning ---- */

static double step_length(const struct curve_point *a, const struct curve_point *b)
{
    return fabs(b->x - a->x) + fabs(b->y - a->y);
}

/* Kept points move to the front. */
static void thin(struct curve *curve, int64_t vertices, int most)
{
    double length = 0.0, at = 0.0;
    struct curve_point before = curve->point[0];
    int part = 0;
    curve->vertices = vertices;
    curve->count = (int)(vertices <= most ? vertices : 0);
    for (int64_t i = 1; i < vertices; i++)
        length += step_length(&curve->point[i - 1], &curve->point[i]);
    for (int64_t i = 0; i < vertices && vertices > most; i++) {
        struct curve_point point = curve->point[i];
        at += step_length(&before, &point);
        before = point;
        if (i + 1 < vertices && (part > most - 2 || at < length * part / (most - 1)))
            continue;
        curve->point[curve->count++] = point;
        while (part <= most - 2 && at >= length * part / (most - 1))
            part++;
    }
}

/* ---- ROC, precision and recall ---- */

void curve_release(struct curve *curve)
{
    mem_free(curve->point);
    *curve = (struct curve){0};
}

/* Vertices as counts: x false positives, y true positives, for each different score. */
static int64_t count_vertices(const struct scored_row *rows, int64_t n, struct curve_point *out)
{
    int64_t vertices = 0;
    double tp = 0.0, fp = 0.0;
    for (int64_t i = 0; i < n; i++) {
        tp += rows[i].positive;
        fp += !rows[i].positive;
        if (i + 1 == n || rows[i + 1].score != rows[i].score)
            out[vertices++] = (struct curve_point){fp, tp, rows[i].score};
    }
    return vertices;
}

/* Drop vertices between two equal steps. The first and the last stay. */
static int64_t drop_straight(struct curve_point *p, int64_t vertices)
{
    int64_t kept = 0;
    struct curve_point before = p[0];
    for (int64_t i = 0; i < vertices; i++) {
        struct curve_point here = p[i];
        bool inside = i > 0 && i + 1 < vertices;
        if (!inside || p[i + 1].x - here.x != here.x - before.x ||
            p[i + 1].y - here.y != here.y - before.y)
            p[kept++] = here;
        before = here;
    }
    return kept;
}

/* Twice the area in whole squares: exact below 2^53, as the ranks' own formula is. */
static double roc_area(const struct curve_point *p, int64_t vertices, const struct curve *curve)
{
    __int128 doubled = 0;
    int64_t x = 0, y = 0;
    for (int64_t i = 0; i < vertices; i++) {
        doubled += (__int128)((int64_t)p[i].x - x) * ((int64_t)p[i].y + y);
        x = (int64_t)p[i].x;
        y = (int64_t)p[i].y;
    }
    return (double)doubled / (2.0 * (double)curve->positives * (double)curve->negatives);
}

static double pr_area(const struct curve_point *p, int64_t vertices, const struct curve *curve)
{
    double sum = 0.0, before = 0.0;
    for (int64_t i = 0; i < vertices; i++) {
        if (p[i].y > before)
            sum += (p[i].y - before) * (p[i].y / (p[i].x + p[i].y));
        before = p[i].y;
    }
    return sum / (double)curve->positives;
}

static enum status make(const struct scored *scored, int column, int most, bool roc,
                        struct curve *out)
{
    struct scored_row *rows = NULL;
    int64_t vertices;
    enum status st;
    *out = (struct curve){.area = NAN};
    TRY(check(scored, column, 0, most, 2));
    TRY_GOTO(fail, sort_column(scored, column, &rows, out));
    if (out->positives == 0 || (roc && out->negatives == 0))
        goto done;
    TRY_GOTO(fail,
             mem_alloc_raw((size_t)scored->n + 1, sizeof *out->point, "a curve", &out->point));
    struct curve_point *p = out->point + 1;
    vertices = count_vertices(rows, scored->n, p);
    out->area = roc ? roc_area(p, vertices, out) : pr_area(p, vertices, out);
    if (roc)
        vertices = drop_straight(p, vertices);
    for (int64_t i = 0; i < vertices; i++) {
        double fp = p[i].x, tp = p[i].y;
        p[i].x = roc ? fp / (double)out->negatives : tp / (double)out->positives;
        p[i].y = roc ? tp / (double)out->positives : tp / (tp + fp);
    }
    out->point[0] = (struct curve_point){0.0, roc ? 0.0 : 1.0, INFINITY};
    thin(out, vertices + 1, most);
done:
    mem_free(rows);
    return STATUS_OK;
fail:
    mem_free(rows);
    curve_release(out);
    return st;
}

enum status curve_roc(const struct scored *scored, int column, int most, struct curve *out)
{
    return make(scored, column, most, true, out);
}

enum status curve_pr(const struct scored *scored, int column, int most, struct curve *out)
{
    return make(scored, column, most, false, out);
}

json_t *curve_json(const struct curve *curve)
{
    json_t *out = json_array();
    for (int i = 0; i < curve->count && out != NULL; i++) {
        const struct curve_point *p = &curve->point[i];
        json_t *one =
            json_pack("[o, o, o]", json_finite(p->x), json_finite(p->y), json_finite(p->threshold));
        if (json_array_append_new(out, one) != 0) {
            json_decref(out);
            out = NULL;
        }
    }
    return out;
}

/* ---- bins of probability ---- */

static int bin_of(double p, int bins)
{
    int bin = (int)ceil(p * bins) - 1;
    return bin < 0 ? 0 : bin >= bins ? bins - 1 : bin;
}

enum status curve_calibration(const struct scored *scored, int column, int bins,
                              struct calibration_bin *bin)
{
    struct table t;
    TRY(check(scored, column, scored->task == TASK_CLASSES ? -1 : 0, bins, 1));
    TRY(table_make(&t, scored, false));
    for (int b = 0; b < bins; b++)
        bin[b] = (struct calibration_bin){.low = (double)b / bins, .high = (double)(b + 1) / bins};
    for (int64_t i = 0; i < t.n; i++) {
        int c = column < 0 ? t.predicted[i] : column;
        double p = table_probability(&t, i, c);
        struct calibration_bin *of = &bin[bin_of(p, bins)];
        of->rows++;
        of->right += truth_of(&t, i, c);
        of->probability += p;
    }
    for (int b = 0; b < bins; b++)
        bin[b].probability = bin[b].rows == 0 ? NAN : bin[b].probability / (double)bin[b].rows;
    table_release(&t);
    return STATUS_OK;
}

enum status curve_histogram(const struct scored *scored, int column, int bins,
                            struct histogram_bin *bin)
{
    struct table t;
    TRY(check(scored, column, 0, bins, 1));
    TRY(table_make(&t, scored, false));
    for (int b = 0; b < bins; b++)
        bin[b] = (struct histogram_bin){.low = (double)b / bins, .high = (double)(b + 1) / bins};
    for (int64_t i = 0; i < t.n; i++) {
        struct histogram_bin *of = &bin[bin_of(table_probability(&t, i, column), bins)];
        bool truth = truth_of(&t, i, column);
        of->positives += truth;
        of->negatives += !truth;
    }
    table_release(&t);
    return STATUS_OK;
}

/* ---- confusions ---- */

/* Insertion into a short sorted list: there are few places and many cells. */
void curve_confusions(const struct metric_values *values, int most, struct confusion_cell *cell,
                      int *count)
{
    *count = 0;
    if (values->confusion == NULL || most < 1)
        return;
    for (int truth = 0; truth < values->classes; truth++) {
        for (int predicted = 0; predicted < values->classes; predicted++) {
            int64_t rows = values->confusion[(int64_t)truth * values->classes + predicted];
            int at = *count;
            if (truth == predicted || rows == 0 || (at == most && cell[at - 1].rows >= rows))
                continue;
            at = at == most ? most - 1 : at;
            for (; at > 0 && cell[at - 1].rows < rows; at--)
                cell[at] = cell[at - 1];
            cell[at] = (struct confusion_cell){truth, predicted, rows};
            *count += *count < most;
        }
    }
}
