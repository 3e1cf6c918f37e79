/* metrics_values.c - the metrics of regression, from a table and a count for each row. */
#include <math.h>
#include <string.h>

#include "worker/metrics_internal.h"

/* Predictions x and targets y with their spreads. */
struct moments {
    bool x_varies, y_varies;
    double xx, yy, xy; /* sums of squares and products around the means */
    double residual;   /* sum of (x - y)^2 */
    double spread;     /* sum of (x - y - mean of x - y)^2 */
};

static struct moments moments_of(const struct table *t, const double *x, const double *y,
                                 const int32_t *count, int64_t total)
{
    struct moments m = {0};
    double mean_x = 0.0, mean_y = 0.0, mean_d = 0.0;
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
        mean_d += count[i] * (x[i] - y[i]);
    }
    mean_x /= (double)total;
    mean_y /= (double)total;
    mean_d /= (double)total;
    for (int64_t i = 0; i < t->n; i++) {
        double dx = x[i] - mean_x, dy = y[i] - mean_y, d = x[i] - y[i];
        m.xx += count[i] * (dx * dx);
        m.yy += count[i] * (dy * dy);
        m.xy += count[i] * (dx * dy);
        m.residual += count[i] * (d * d);
        m.spread += count[i] * ((d - mean_d) * (d - mean_d));
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

/* ---- Kendall's tau ---- */

/* tree: sums over prefixes (Fenwick), place from 0. */
static void tree_add(int64_t *tree, int64_t n, int64_t place, int64_t value)
{
    for (int64_t i = place + 1; i <= n; i += i & -i)
        tree[i] += value;
}

static int64_t tree_before(const int64_t *tree, int64_t place)
{
    int64_t sum = 0;
    for (int64_t i = place; i > 0; i -= i & -i)
        sum += tree[i];
    return sum;
}

/* Pairs of the rows of one column that are tied. */
static __int128 tied_pairs(const struct table *t, int column, const int32_t *count)
{
    const struct ranked *rank = t->rank + (int64_t)column * t->n;
    __int128 pairs = 0;
    for (int64_t i = 0, end; i < t->n; i = end) {
        int64_t rows = 0;
        for (end = i; end < t->n && rank[end].group == rank[i].group; end++)
            rows += count[rank[end].row];
        pairs += (__int128)rows * (rows - 1) / 2;
    }
    return pairs;
}

/*
 * tau-b = (concordant - discordant) / sqrt((pairs - tied in x) (pairs - tied in y)), all in whole
 * numbers. Rows enter the tree by their place in y, one group of equal x after the other, so that
 * pairs that are tied in x are never met.
 */
static double kendall(struct table *t, int output, const int32_t *count, int64_t total)
{
    int x = output, y = t->in->outputs + output;
    const struct ranked *by_x = t->rank + (int64_t)x * t->n, *by_y = t->rank + (int64_t)y * t->n;
    double *place = t->pair; /* of a row in y */
    __int128 pairs = (__int128)total * (total - 1) / 2, surplus = 0;
    __int128 free_x = pairs - tied_pairs(t, x, count), free_y = pairs - tied_pairs(t, y, count);
    int64_t seen = 0;
    if (free_x == 0 || free_y == 0)
        return NAN;
    memset(t->tree, 0, ((size_t)t->n + 1) * sizeof *t->tree);
    for (int64_t i = 0; i < t->n; i++)
        place[by_y[i].row] = (double)by_y[i].group;
    for (int64_t i = 0, end; i < t->n; i = end) {
        for (end = i; end < t->n && by_x[end].group == by_x[i].group; end++) {
            int64_t at = (int64_t)place[by_x[end].row];
            int64_t lower = tree_before(t->tree, at), higher = seen - tree_before(t->tree, at + 1);
            surplus += (__int128)count[by_x[end].row] * (lower - higher);
        }
        for (int64_t j = i; j < end; j++) {
            tree_add(t->tree, t->n, (int64_t)place[by_x[j].row], count[by_x[j].row]);
            seen += count[by_x[j].row];
        }
    }
    double tau = (double)surplus / (sqrt((double)free_x) * sqrt((double)free_y));
    return tau > 1.0 ? 1.0 : tau < -1.0 ? -1.0 : tau;
}

/* ---- all of them ---- */

static double fit_output(struct table *t, enum metric metric, int output, const int32_t *count,
                         int64_t total)
{
    double *x = t->pair, *y = t->pair + t->n;
    if (metric == METRIC_KENDALL)
        return kendall(t, output, count, total);
    if (metric == METRIC_SPEARMAN) {
        average_ranks(t, output, count, x);
        average_ranks(t, t->in->outputs + output, count, y);
    } else {
        for (int64_t i = 0; i < t->n; i++) {
            x[i] = (double)table_logits(t, i)[output];
            y[i] = (double)table_values(t, i)[output];
        }
    }
    struct moments m = moments_of(t, x, y, count, total);
    switch (metric) {
    case METRIC_RMSE:
        return sqrt(m.residual / (double)total);
    case METRIC_R2:
        return m.y_varies ? 1.0 - m.residual / m.yy : NAN;
    case METRIC_EXPLAINED_VARIANCE:
        return m.y_varies ? 1.0 - m.spread / m.yy : NAN;
    default:
        return correlation(&m);
    }
}

double table_fit(struct table *t, enum metric metric, const int32_t *count, int64_t total)
{
    double sum = 0.0;
    for (int c = 0; c < t->in->outputs; c++)
        sum += fit_output(t, metric, c, count, total);
    return sum / t->in->outputs;
}
