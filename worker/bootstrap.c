/*
 * bootstrap.c - intervals and paired comparisons by resampling rows; see metrics.h and
 * statistics.h.
 *
 * Rows of all sets are numbered by id in one list, the union. A resample draws from it once, and
 * every set's table gets the counts of its own rows: that is what makes repeats and systems paired.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "worker/metrics_internal.h"
#include "worker/statistics.h"

struct sampled {
    struct table table;
    int32_t *member; /* (n) of a table's row in the union */
    int32_t *count;  /* (n) */
    int64_t total;
};

struct sample {
    int sets;
    struct sampled *set;
    int64_t n;      /* rows of the union */
    int64_t *id;    /* (n) ascending */
    int32_t *count; /* (n) */
    enum metric metric;
};

static void sample_release(struct sample *s)
{
    for (int i = 0; i < s->sets; i++) {
        table_release(&s->set[i].table);
        mem_free(s->set[i].member);
        mem_free(s->set[i].count);
    }
    mem_free(s->set);
    mem_free(s->id);
    mem_free(s->count);
    *s = (struct sample){0};
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t id_of(const struct table *t, int64_t row)
{
    return t->in->row[t->at[row]];
}

static enum status number_rows(struct sample *s)
{
    int64_t all = 0;
    for (int i = 0; i < s->sets; i++)
        all += s->set[i].table.n;
    TRY(mem_alloc_raw((size_t)all, sizeof *s->id, "row ids", &s->id));
    all = 0;
    for (int i = 0; i < s->sets; i++) {
        for (int64_t r = 0; r < s->set[i].table.n; r++)
            s->id[all++] = id_of(&s->set[i].table, r);
    }
    qsort(s->id, (size_t)all, sizeof *s->id, by_number);
    for (int64_t i = 0; i < all; i++) {
        if (i == 0 || s->id[i] != s->id[i - 1])
            s->id[s->n++] = s->id[i];
    }
    if (s->n > INT32_MAX)
        return status_fail(STATUS_ARG, "a bootstrap over %lld rows", (long long)s->n);
    TRY(mem_alloc_raw((size_t)s->n, sizeof *s->count, "counts of rows", &s->count));
    for (int i = 0; i < s->sets; i++) {
        struct sampled *set = &s->set[i];
        size_t n = (size_t)set->table.n;
        int32_t at = 0;
        TRY(mem_alloc_raw(n, sizeof *set->member, "row ids", &set->member));
        TRY(mem_alloc_raw(n, sizeof *set->count, "counts of rows", &set->count));
        for (size_t r = 0; r < n; r++) { /* both are sorted */
            while (s->id[at] != id_of(&set->table, (int64_t)r))
                at++;
            set->member[r] = at;
        }
    }
    return STATUS_OK;
}

/* sets: scores of one or two systems. Statuses as statistics_interval(). */
static enum status sample_make(struct sample *s, const struct scored *const *sets, int count,
                               enum metric metric)
{
    enum status st;
    *s = (struct sample){.metric = metric};
    TRY(mem_alloc((size_t)count, sizeof *s->set, "sets of scores", &s->set));
    for (; s->sets < count; s->sets++) {
        const struct scored *one = sets[s->sets];
        if (one->task != sets[0]->task || one->outputs != sets[0]->outputs ||
            one->classes != sets[0]->classes) {
            st = status_fail(STATUS_ARG, "set %d of scores is of another task than the first",
                             s->sets);
            goto fail;
        }
        TRY_GOTO(fail, table_make(&s->set[s->sets].table, one, metric_needs_ranks(metric)));
        if (metric_is_of(metric, one->task, one->classes))
            table_prepare(&s->set[s->sets].table, metric);
    }
    TRY_GOTO(fail, number_rows(s));
    return STATUS_OK;
fail:
    sample_release(s);
    return st;
}

/* resample < 0: every row once. */
static void draw(struct sample *s, uint64_t seed, int resample)
{
    uint64_t key = random_key(seed, RANDOM_BOOTSTRAP, (uint64_t)resample, 0);
    for (int64_t i = 0; i < s->n; i++)
        s->count[i] = resample < 0;
    for (int64_t i = 0; i < s->n && resample >= 0; i++)
        s->count[random_below(key, (uint64_t)i, (uint64_t)s->n)]++;
    for (int i = 0; i < s->sets; i++) {
        struct sampled *set = &s->set[i];
        set->total = 0;
        for (int64_t r = 0; r < set->table.n; r++) {
            set->count[r] = s->count[set->member[r]];
            set->total += set->count[r];
        }
    }
}

/* Mean over sets [first, last). */
static double mean_of(struct sample *s, int first, int last)
{
    double sum = 0.0;
    for (int i = first; i < last; i++)
        sum += table_evaluate(&s->set[i].table, s->metric, s->set[i].count, s->set[i].total);
    return sum / (last - first);
}

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

/* Sorts values; NaN where fewer than half of the resamples are defined. */
static void interval_of(double *values, int defined, int resamples, double ci95[2])
{
    ci95[0] = ci95[1] = NAN;
    if (defined == 0 || 2 * (int64_t)defined < resamples)
        return;
    qsort(values, (size_t)defined, sizeof *values, by_value);
    ci95[0] = percentile(values, defined, 0.025);
    ci95[1] = percentile(values, defined, 0.975);
}

static enum status check_resamples(int sets, int resamples)
{
    if (resamples < 1)
        return status_fail(STATUS_ARG, "%d resamples, wanted at least one", resamples);
    if (sets < 1)
        return status_fail(STATUS_ARG, "%d sets of scores, wanted at least one", sets);
    return STATUS_OK;
}

static enum status list_sets(const struct scored *a, int a_count, const struct scored *b,
                             int b_count, const struct scored ***out)
{
    TRY(mem_alloc_raw((size_t)(a_count + b_count), sizeof **out, "sets of scores", out));
    for (int i = 0; i < a_count; i++)
        (*out)[i] = &a[i];
    for (int i = 0; i < b_count; i++)
        (*out)[a_count + i] = &b[i];
    return STATUS_OK;
}

enum status statistics_interval(const struct scored *sets, int count, enum metric metric,
                                uint64_t seed, int resamples, double *score, double ci95[2])
{
    struct sample s = {0};
    const struct scored **list = NULL;
    double *values = NULL;
    int defined = 0;
    enum status st;
    *score = ci95[0] = ci95[1] = NAN;
    TRY(check_resamples(count, resamples));
    TRY_GOTO(done, list_sets(sets, count, NULL, 0, &list));
    TRY_GOTO(done, sample_make(&s, list, count, metric));
    if (!metric_is_of(metric, sets[0].task, sets[0].classes))
        goto done;
    TRY_GOTO(done, mem_alloc_raw((size_t)resamples, sizeof *values, "resamples", &values));
    draw(&s, seed, -1);
    *score = mean_of(&s, 0, count);
    for (int r = 0; r < resamples; r++) {
        draw(&s, seed, r);
        double value = mean_of(&s, 0, count);
        if (!isnan(value))
            values[defined++] = value;
    }
    interval_of(values, defined, resamples, ci95);
done:
    sample_release(&s);
    mem_free(list);
    mem_free(values);
    return st;
}

enum status metrics_interval(const struct scored *scored, enum metric metric, uint64_t seed,
                             int resamples, double ci95[2])
{
    double score;
    return statistics_interval(scored, 1, metric, seed, resamples, &score, ci95);
}

/* ---- two systems ---- */

static bool same_target(const struct table *a, int64_t i, const struct table *b, int64_t j)
{
    const struct scored *in = a->in;
    if (in->task == TASK_CLASSES)
        return a->truth[i] == b->truth[j];
    for (int c = 0; c < in->outputs; c++) {
        if (table_values(a, i)[c] != table_values(b, j)[c])
            return false;
    }
    return true;
}

/* Where each row of the union is first found among sets [first, last): set and row there. */
struct found {
    int32_t set, row; /* set -1: nowhere */
};

static void find_rows(const struct sample *s, int first, int last, struct found *found)
{
    for (int64_t i = 0; i < s->n; i++)
        found[i].set = -1;
    for (int k = last; k-- > first;) {
        for (int64_t r = 0; r < s->set[k].table.n; r++)
            found[s->set[k].member[r]] = (struct found){k, (int32_t)r};
    }
}

static enum status check_paired(const struct sample *s, int a_count)
{
    struct found *a = NULL, *b = NULL;
    enum status st;
    TRY_GOTO(done, mem_alloc_raw((size_t)s->n, sizeof *a, "rows of two runs", &a));
    TRY_GOTO(done, mem_alloc_raw((size_t)s->n, sizeof *b, "rows of two runs", &b));
    find_rows(s, 0, a_count, a);
    find_rows(s, a_count, s->sets, b);
    for (int64_t i = 0; i < s->n && st == STATUS_OK; i++) {
        if (a[i].set < 0 || b[i].set < 0)
            st = status_fail(STATUS_DATA,
                             "row %lld is scored by the %s system only: both must have the same "
                             "rows",
                             (long long)s->id[i], a[i].set < 0 ? "second" : "first");
        else if (!same_target(&s->set[a[i].set].table, a[i].row, &s->set[b[i].set].table, b[i].row))
            st = status_fail(STATUS_DATA, "row %lld has another target in the second system",
                             (long long)s->id[i]);
    }
done:
    mem_free(a);
    mem_free(b);
    return st;
}

static double two_sided(const double *differences, int n)
{
    int low = 0, high = 0;
    for (int i = 0; i < n; i++) {
        low += differences[i] <= 0.0;
        high += differences[i] >= 0.0;
    }
    double p = 2.0 * (1.0 + (low < high ? low : high)) / (n + 1.0);
    return p < 1.0 ? p : 1.0;
}

enum status statistics_compare(const struct scored *a, int a_count, const struct scored *b,
                               int b_count, enum metric metric, uint64_t seed, int resamples,
                               struct comparison *out)
{
    struct sample s = {0};
    const struct scored **list = NULL;
    double *values = NULL;
    int sets = a_count + b_count;
    enum status st;
    *out = (struct comparison){NAN, NAN, NAN, {NAN, NAN}, NAN, 0, 0};
    TRY(check_resamples(a_count < b_count ? a_count : b_count, resamples));
    TRY_GOTO(done, list_sets(a, a_count, b, b_count, &list));
    TRY_GOTO(done, sample_make(&s, list, sets, metric));
    TRY_GOTO(done, check_paired(&s, a_count));
    out->rows = s.n;
    if (!metric_is_of(metric, a[0].task, a[0].classes))
        goto done;
    TRY_GOTO(done, mem_alloc_raw((size_t)resamples, sizeof *values, "resamples", &values));
    draw(&s, seed, -1);
    out->a = mean_of(&s, 0, a_count);
    out->b = mean_of(&s, a_count, sets);
    out->difference = out->b - out->a;
    for (int r = 0; r < resamples; r++) {
        draw(&s, seed, r);
        double difference = mean_of(&s, a_count, sets) - mean_of(&s, 0, a_count);
        if (!isnan(difference))
            values[out->resamples++] = difference;
    }
    interval_of(values, out->resamples, resamples, out->ci95);
    if (!isnan(out->ci95[0]))
        out->p = two_sided(values, out->resamples);
done:
    sample_release(&s);
    mem_free(list);
    mem_free(values);
    return st;
}

static bool is_right(const struct table *t, int64_t row)
{
    if (t->in->task == TASK_CLASSES)
        return t->predicted[row] == t->truth[row];
    for (int c = 0; c < t->classes; c++) {
        if (table_label_predicted(t, row, c) != table_label_true(t, row, c))
            return false;
    }
    return true;
}

enum status statistics_mcnemar(const struct scored *a, const struct scored *b, struct mcnemar *out)
{
    struct sample s = {0};
    const struct scored *list[2] = {a, b};
    enum status st;
    *out = (struct mcnemar){.p = NAN};
    if (a->task == TASK_REGRESSION)
        return status_fail(STATUS_ARG, "McNemar's test is of right and wrong rows, not of numbers");
    TRY(sample_make(&s, list, 2, METRIC_ACCURACY));
    TRY_GOTO(done, check_paired(&s, 1));
    for (int64_t i = 0; i < s.n;
         i++) { /* both have all rows: rows of both are those of the union */
        bool right_a = is_right(&s.set[0].table, i), right_b = is_right(&s.set[1].table, i);
        out->both += right_a && right_b;
        out->only_a += right_a && !right_b;
        out->only_b += right_b && !right_a;
        out->neither += !right_a && !right_b;
    }
    out->p = binomial_two_sided(out->only_a < out->only_b ? out->only_a : out->only_b,
                                out->only_a + out->only_b);
done:
    sample_release(&s);
    return st;
}
