/*
 * fold.c - folds and hold-out splits; see fold.h for the rules.
 *
 * The floating-point decisions of StratifiedGroupKFold are taken in the order in which NumPy adds
 * (pairwise along a row, row by row across folds), because ties between folds and groups are
 * decided by the last bit.
 */
#include "data/fold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "data/fold_internal.h"

static uint64_t fold_key(const struct fold_opts *o, enum fold_purpose purpose, int32_t label)
{
    return random_key(o->seed, RANDOM_FOLD, (uint64_t)purpose, (uint64_t)label);
}

static void shuffle32(uint64_t key, int32_t *p, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)random_below(key, (uint64_t)i, (uint64_t)i + 1);
        int32_t kept = p[i];
        p[i] = p[j];
        p[j] = kept;
    }
}

/* ---- classes and groups, counted ---- */

/* Rows of each class that has any, and of each group, renumbered so that neither has gaps. */
struct census {
    int32_t *class_of_label; /* (classes) dense number, or -1 where the label has no rows */
    int32_t *label_of_class; /* (nclasses) */
    int64_t *class_rows;     /* (nclasses) */
    int nclasses;            /* 1 where there is no label */
    int32_t *
        group; /* (rows) dense group numbers, in the order of the given ones; NULL without groups */
    int64_t *counts;     /* (ngroups x nclasses) */
    int64_t *group_rows; /* (ngroups) */
    int64_t ngroups;
};

static void census_release(struct census *c)
{
    mem_free(c->class_of_label);
    mem_free(c->label_of_class);
    mem_free(c->class_rows);
    mem_free(c->group);
    mem_free(c->counts);
    mem_free(c->group_rows);
}

static int class_of(const struct fold_opts *o, const struct census *c, int64_t row)
{
    return o->label == NULL ? 0 : c->class_of_label[o->label[row]];
}

static bool needs_groups(const struct fold_opts *o)
{
    return o->kind == FOLD_GROUP || o->kind == FOLD_STRATIFIED_GROUP ||
           (o->kind == FOLD_HOLDOUT && o->group != NULL);
}

static enum status take_census(const struct fold_opts *o, struct census *c)
{
    int64_t *of_label = NULL;
    enum status st = STATUS_OK;
    *c = (struct census){0};
    if (o->label == NULL) {
        c->nclasses = 1;
        TRY(mem_alloc(1, sizeof *c->label_of_class, "the classes", &c->label_of_class));
        TRY(mem_alloc(1, sizeof *c->class_rows, "the counts of classes", &c->class_rows));
        c->class_rows[0] = o->rows;
    } else {
        size_t labels = (size_t)o->classes;
        TRY(mem_alloc(labels, sizeof *of_label, "the counts of classes", &of_label));
        for (int64_t i = 0; i < o->rows; i++)
            of_label[o->label[i]]++;
        TRY_GOTO(done, mem_alloc_raw(labels, sizeof *c->class_of_label, "the classes",
                                     &c->class_of_label));
        TRY_GOTO(done, mem_alloc_raw(labels, sizeof *c->label_of_class, "the classes",
                                     &c->label_of_class));
        TRY_GOTO(done, mem_alloc_raw(labels, sizeof *c->class_rows, "the counts of classes",
                                     &c->class_rows));
        for (int32_t label = 0; label < o->classes; label++) {
            c->class_of_label[label] = -1;
            if (of_label[label] == 0)
                continue;
            c->class_of_label[label] = c->nclasses;
            c->label_of_class[c->nclasses] = label;
            c->class_rows[c->nclasses++] = of_label[label];
        }
    }
    if (needs_groups(o)) {
        size_t n;
        TRY_GOTO(done,
                 mem_alloc_raw((size_t)o->rows, sizeof *c->group, "the groups of rows", &c->group));
        TRY_GOTO(done, dense_numbers(o->group, o->rows, c->group, &c->ngroups));
        if (!size_mul((size_t)c->ngroups, (size_t)c->nclasses, &n)) {
            st = status_fail(STATUS_NOMEM, "%lld groups of %d classes are too many",
                             (long long)c->ngroups, c->nclasses);
            goto done;
        }
        TRY_GOTO(done, mem_alloc(n, sizeof *c->counts, "class counts of groups", &c->counts));
        TRY_GOTO(done, mem_alloc((size_t)c->ngroups, sizeof *c->group_rows, "sizes of groups",
                                 &c->group_rows));
        for (int64_t i = 0; i < o->rows; i++) {
            c->counts[(int64_t)c->group[i] * c->nclasses + class_of(o, c, i)]++;
            c->group_rows[c->group[i]]++;
        }
    }
done:
    mem_free(of_label);
    return st;
}

/* ---- k-fold ---- */

static enum status identity(int64_t n, int64_t **out)
{
    TRY(mem_alloc_raw((size_t)n, sizeof **out, "an order of rows", out));
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = i;
    return STATUS_OK;
}

static enum status assign_kfold(const struct fold_opts *o, int32_t *fold)
{
    int64_t *order;
    TRY(identity(o->rows, &order));
    if (o->shuffle)
        fold_shuffle64(fold_key(o, FOLD_KEY_ROWS, 0), order, o->rows);
    for (int f = 0; f < o->folds; f++) {
        for (int64_t i = fold_run_begin(o->rows, o->folds, f);
             i < fold_run_begin(o->rows, o->folds, f + 1); i++)
            fold[order[i]] = f;
    }
    mem_free(order);
    return STATUS_OK;
}

/*
 * scikit-learn sorts the labels (classes numbered by first appearance) and deals the sorted list
 * round robin, which fixes how many rows of a class each fold gets; the rows themselves are then
 * taken in blocks, in row order.
 */
static enum status assign_stratified(const struct fold_opts *o, const struct census *c,
                                     int32_t *fold)
{
    int32_t *block = NULL, *seen = NULL;
    int64_t *next = NULL, at = 0;
    int nseen = 0;
    enum status st;
    TRY_GOTO(done, mem_alloc_raw((size_t)o->rows, sizeof *block, "the folds of classes", &block));
    TRY_GOTO(done, mem_alloc_raw((size_t)c->nclasses, sizeof *seen, "the classes", &seen));
    TRY_GOTO(done, mem_alloc((size_t)c->nclasses, sizeof *next, "the classes", &next));
    for (int64_t i = 0; i < o->rows && nseen < c->nclasses; i++) {
        int k = class_of(o, c, i);
        if (next[k] == 0)
            seen[nseen++] = k;
        next[k] = 1;
    }
    for (int e = 0; e < c->nclasses; e++) {
        int k = seen[e];
        int64_t n = c->class_rows[k],
                filled = at; /* the class's places in the sorted labels: [at, at + n) */
        next[k] = at;
        for (int f = 0; f < o->folds; f++) { /* as many of them as are f modulo folds */
            int64_t share = (at + n + o->folds - 1 - f) / o->folds -
                            (at + o->folds - 1 - f) / o->folds;
            for (; share > 0; share--)
                block[filled++] = f;
        }
        if (o->shuffle)
            shuffle32(fold_key(o, FOLD_KEY_CLASS_ROWS, c->label_of_class[k]), block + at, n);
        at += n;
    }
    for (int64_t i = 0; i < o->rows; i++)
        fold[i] = block[next[class_of(o, c, i)]++];
done:
    mem_free(next);
    mem_free(block);
    mem_free(seen);
    return st;
}

/* A thing to be dealt: heavier first, then the lower place. */
struct dealt {
    double weight;
    int64_t place, group;
};

static int by_weight(const void *a, const void *b)
{
    const struct dealt *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static void rows_by_group(const struct fold_opts *o, const struct census *c, const int32_t *fold_of,
                          int32_t *fold)
{
    for (int64_t i = 0; i < o->rows; i++)
        fold[i] = fold_of[c->group[i]];
}

static enum status assign_group(const struct fold_opts *o, const struct census *c, int32_t *fold)
{
    struct dealt *dealt = NULL;
    int64_t *order = NULL, *load = NULL;
    int32_t *fold_of = NULL;
    enum status st;
    TRY_GOTO(done,
             mem_alloc_raw((size_t)c->ngroups, sizeof *fold_of, "the folds of groups", &fold_of));
    if (o->shuffle) {
        TRY_GOTO(done, identity(c->ngroups, &order));
        fold_shuffle64(fold_key(o, FOLD_KEY_GROUPS, 0), order, c->ngroups);
        for (int f = 0; f < o->folds; f++) {
            for (int64_t i = fold_run_begin(c->ngroups, o->folds, f);
                 i < fold_run_begin(c->ngroups, o->folds, f + 1); i++)
                fold_of[order[i]] = f;
        }
    } else { /* largest to the lightest fold; of equal groups scikit-learn deals the last first */
        TRY_GOTO(done,
                 mem_alloc_raw((size_t)c->ngroups, sizeof *dealt, "the order of groups", &dealt));
        TRY_GOTO(done, mem_alloc((size_t)o->folds, sizeof *load, "the sizes of folds", &load));
        for (int64_t g = 0; g < c->ngroups; g++)
            dealt[g] = (struct dealt){(double)c->group_rows[g], -g, g};
        qsort(dealt, (size_t)c->ngroups, sizeof *dealt, by_weight);
        for (int64_t i = 0; i < c->ngroups; i++) {
            int lightest = 0;
            for (int f = 1; f < o->folds; f++) {
                if (load[f] < load[lightest])
                    lightest = f;
            }
            load[lightest] += c->group_rows[dealt[i].group];
            fold_of[dealt[i].group] = lightest;
        }
    }
    rows_by_group(o, c, fold_of, fold);
done:
    mem_free(dealt);
    mem_free(order);
    mem_free(load);
    mem_free(fold_of);
    return st;
}

/* NumPy's sum of a row: plain below 8 elements, eight running sums up to 128, halves beyond. */
static double pairwise_sum(const double *p, int64_t n)
{
    if (n < 8) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += p[i];
        return sum;
    }
    if (n <= 128) {
        double r[8];
        int64_t i;
        for (int j = 0; j < 8; j++)
            r[j] = p[j];
        for (i = 8; i < n - n % 8; i += 8) {
            for (int j = 0; j < 8; j++)
                r[j] += p[i + j];
        }
        double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        for (; i < n; i++)
            sum += p[i];
        return sum;
    }
    int64_t half = n / 2 - n / 2 % 8;
    return pairwise_sum(p, half) + pairwise_sum(p + half, n - half);
}

/* np.std of one group's class counts; work is (n). */
static double spread_of(const int64_t *counts, int n, double *work)
{
    for (int k = 0; k < n; k++)
        work[k] = (double)counts[k];
    double mean = pairwise_sum(work, n) / n;
    for (int k = 0; k < n; k++)
        work[k] = (work[k] - mean) * (work[k] - mean);
    return sqrt(pairwise_sum(work, n) / n);
}

/* Groups in the order in which the stratified kinds deal them. */
static enum status order_groups(const struct fold_opts *o, const struct census *c,
                                enum fold_purpose purpose, struct dealt **out)
{
    int64_t *order = NULL;
    double *work = NULL;
    enum status st;
    *out = NULL;
    TRY_GOTO(done, identity(c->ngroups, &order));
    TRY_GOTO(done, mem_alloc_raw((size_t)c->nclasses, sizeof *work, "class counts", &work));
    TRY_GOTO(done, mem_alloc_raw((size_t)c->ngroups, sizeof **out, "the order of groups", out));
    if (o->shuffle)
        fold_shuffle64(fold_key(o, purpose, 0), order, c->ngroups);
    for (int64_t i = 0; i < c->ngroups; i++)
        (*out)[i] = (struct dealt){spread_of(c->counts + order[i] * c->nclasses, c->nclasses, work),
                                   i, order[i]};
    qsort(*out, (size_t)c->ngroups, sizeof **out, by_weight);
done:
    mem_free(order);
    mem_free(work);
    return st;
}

/*
 * How uneven the folds' shares of each class would be: the mean over classes of the standard
 * deviation over folds. share is (folds x nclasses); work is (3 x nclasses). NumPy adds row after
 * row here, not pairwise.
 */
static double unevenness(const double *share, int folds, int nclasses, double *work)
{
    double *mean = work, *sum = work + nclasses, *spread = sum + nclasses;
    memset(work, 0, 2 * (size_t)nclasses * sizeof *work);
    for (int f = 0; f < folds; f++) {
        for (int k = 0; k < nclasses; k++)
            mean[k] += share[(int64_t)f * nclasses + k];
    }
    for (int k = 0; k < nclasses; k++)
        mean[k] /= folds;
    for (int f = 0; f < folds; f++) {
        for (int k = 0; k < nclasses; k++) {
            double d = share[(int64_t)f * nclasses + k] - mean[k];
            sum[k] += d * d;
        }
    }
    for (int k = 0; k < nclasses; k++)
        spread[k] = sqrt(sum[k] / folds);
    return pairwise_sum(spread, nclasses) / nclasses;
}

static enum status assign_stratified_group(const struct fold_opts *o, const struct census *c,
                                           int32_t *fold)
{
    struct dealt *dealt = NULL;
    int64_t *counts = NULL, *load = NULL; /* (folds x nclasses), (folds) */
    double *share = NULL, *work = NULL;
    int32_t *fold_of = NULL;
    int n = c->nclasses;
    size_t cells = (size_t)o->folds * (size_t)n;
    enum status st;
    TRY_GOTO(done, order_groups(o, c, FOLD_KEY_STRATIFIED_GROUPS, &dealt));
    TRY_GOTO(done, mem_alloc(cells, sizeof *counts, "class counts of folds", &counts));
    TRY_GOTO(done, mem_alloc((size_t)o->folds, sizeof *load, "the sizes of folds", &load));
    TRY_GOTO(done, mem_alloc(cells, sizeof *share, "class shares of folds", &share));
    TRY_GOTO(done, mem_alloc_raw((size_t)n, 3 * sizeof *work, "class shares", &work));
    TRY_GOTO(done,
             mem_alloc_raw((size_t)c->ngroups, sizeof *fold_of, "the folds of groups", &fold_of));
    for (int64_t i = 0; i < c->ngroups; i++) {
        const int64_t *mine = c->counts + dealt[i].group * n;
        int best = 0;
        double least = INFINITY;
        int64_t least_rows = INT64_MAX;
        for (int f = 0; f < o->folds; f++) {
            int64_t *here = counts + (int64_t)f * n;
            for (int k = 0; k < n; k++)
                share[(int64_t)f * n + k] = (double)(here[k] + mine[k]) / (double)c->class_rows[k];
            double found = unevenness(share, o->folds, n, work);
            for (int k = 0; k < n; k++)
                share[(int64_t)f * n + k] = (double)here[k] / (double)c->class_rows[k];
            bool close = isfinite(least) &&
                         fabs(found - least) <= 1e-8 + 1e-5 * fabs(least); /* np.isclose */
            if (found < least || (close && load[f] < least_rows)) {
                least = found;
                least_rows = load[f];
                best = f;
            }
        }
        for (int k = 0; k < n; k++) {
            counts[(int64_t)best * n + k] += mine[k];
            share[(int64_t)best * n + k] = (double)counts[(int64_t)best * n + k] /
                                           (double)c->class_rows[k];
        }
        load[best] += c->group_rows[dealt[i].group];
        fold_of[dealt[i].group] = best;
    }
    rows_by_group(o, c, fold_of, fold);
done:
    mem_free(dealt);
    mem_free(counts);
    mem_free(load);
    mem_free(share);
    mem_free(work);
    mem_free(fold_of);
    return st;
}

/* ---- hold-out ---- */

/* Rows of each class that validate: what the training share of v rows fewer leaves over. held is
 * (nclasses). */
static enum status share_out(const struct fold_opts *o, const struct census *c, int64_t v,
                             int64_t *held)
{
    struct dealt *left;
    int64_t train = o->rows - v, given = 0;
    TRY(mem_alloc_raw((size_t)c->nclasses, sizeof *left, "the shares of classes", &left));
    for (int k = 0; k < c->nclasses;
         k++) { /* whole numbers: remainders that are equal must compare equal */
        __int128 exact = (__int128)train * c->class_rows[k];
        int64_t whole = (int64_t)(exact / o->rows), rest = (int64_t)(exact % o->rows);
        held[k] = c->class_rows[k] - whole;
        given += whole;
        left[k] = (struct dealt){(double)rest, k, k};
    }
    qsort(left, (size_t)c->nclasses, sizeof *left, by_weight);
    for (int64_t i = 0; i < train - given; i++)
        held[left[i].group]--;
    mem_free(left);
    return STATUS_OK;
}

static enum status hold_rows(const struct fold_opts *o, const struct census *c, const int64_t *held,
                             int32_t *fold)
{
    int64_t *rows = NULL, *next = NULL, at = 0;
    enum status st;
    TRY_GOTO(done, mem_alloc_raw((size_t)o->rows, sizeof *rows, "the rows of classes", &rows));
    TRY_GOTO(done, mem_alloc_raw((size_t)c->nclasses, sizeof *next, "the rows of classes", &next));
    for (int k = 0; k < c->nclasses; k++) {
        next[k] = at;
        at += c->class_rows[k];
    }
    for (int64_t i = 0; i < o->rows; i++)
        rows[next[class_of(o, c, i)]++] = i;
    at = 0;
    for (int k = 0; k < c->nclasses; k++) {
        if (o->shuffle)
            fold_shuffle64(fold_key(o, FOLD_KEY_HOLDOUT_ROWS, c->label_of_class[k]), rows + at,
                           c->class_rows[k]);
        at += c->class_rows[k];
        for (int64_t i = 1; i <= held[k]; i++)
            fold[rows[at - i]] = 0;
    }
done:
    mem_free(rows);
    mem_free(next);
    return st;
}

static enum status hold_groups(const struct fold_opts *o, const struct census *c,
                               const int64_t *held, int32_t *fold)
{
    struct dealt *dealt = NULL;
    int64_t *taken = NULL, ntaken = 0;
    int32_t *fold_of = NULL;
    enum status st;
    TRY_GOTO(done, order_groups(o, c, FOLD_KEY_HOLDOUT_GROUPS, &dealt));
    TRY_GOTO(done, mem_alloc((size_t)c->nclasses, sizeof *taken, "class counts", &taken));
    TRY_GOTO(done,
             mem_alloc_raw((size_t)c->ngroups, sizeof *fold_of, "the folds of groups", &fold_of));
    for (int64_t i = 0; i < c->ngroups; i++) {
        const int64_t *mine = c->counts + dealt[i].group * c->nclasses;
        double gain = 0; /* sum of squares now less sum of squares with this group */
        for (int k = 0; k < c->nclasses; k++) {
            double n = (double)c->class_rows[k], now = (double)(taken[k] - held[k]) / n;
            double then = (double)(taken[k] + mine[k] - held[k]) / n;
            gain += now * now - then * then;
        }
        bool take = gain > 0 && ntaken < c->ngroups - 1;
        fold_of[dealt[i].group] = take ? 0 : -1;
        ntaken += take;
        for (int k = 0; take && k < c->nclasses; k++)
            taken[k] += mine[k];
    }
    if (ntaken ==
        0) { /* every group alone is more than twice the share: the smallest overshoots least */
        int64_t smallest = dealt[0].group;
        for (int64_t i = 1; i < c->ngroups; i++) {
            if (c->group_rows[dealt[i].group] < c->group_rows[smallest])
                smallest = dealt[i].group;
        }
        fold_of[smallest] = 0;
    }
    rows_by_group(o, c, fold_of, fold);
done:
    mem_free(dealt);
    mem_free(taken);
    mem_free(fold_of);
    return st;
}

static enum status assign_holdout(const struct fold_opts *o, const struct census *c, int32_t *fold)
{
    int64_t *held, v = (int64_t)ceil(o->holdout * (double)o->rows);
    if (v < 1 || v >= o->rows)
        return status_fail(STATUS_CONFIG, "holding out %g of %lld rows leaves no row to %s",
                           o->holdout, (long long)o->rows, v < 1 ? "validate with" : "train on");
    TRY(mem_alloc((size_t)c->nclasses, sizeof *held, "the shares of classes", &held));
    for (int64_t i = 0; i < o->rows; i++)
        fold[i] = -1;
    enum status st = share_out(o, c, v, held);
    if (st == STATUS_OK)
        st = o->group != NULL ? hold_groups(o, c, held, fold) : hold_rows(o, c, held, fold);
    mem_free(held);
    return st;
}

/* ---- classes that are missing ---- */

static const char *const holdout_parts[] = {"trains", "validates"};

static enum status count_table(const struct fold_opts *o, const int32_t *fold,
                               struct class_table *out)
{
    bool holdout = o->kind == FOLD_HOLDOUT;
    TRY(class_table_make(out, holdout ? 2 : o->folds, o->label == NULL ? 0 : o->classes, o->names));
    if (holdout)
        out->part_names = holdout_parts;
    for (int64_t i = 0; i < o->rows; i++)
        class_table_count(out, fold[i] + holdout, o->label == NULL ? -1 : o->label[i]);
    return STATUS_OK;
}

enum status fold_table(const struct fold_opts *opts, const int32_t *fold, struct str *out)
{
    struct class_table table;
    TRY(count_table(opts, fold, &table));
    enum status st = class_table_print(&table, false, out);
    class_table_release(&table);
    return st;
}

enum status fold_check(const struct fold_opts *o, const int32_t *fold)
{
    struct class_table table;
    struct str text = {0};
    char number[16];
    int label, part;
    if (o->label == NULL || o->allow_missing_class)
        return STATUS_OK;
    TRY(count_table(o, fold, &table));
    enum status st = STATUS_OK;
    if (!class_table_lacks(&table, &label, &part))
        goto done;
    TRY_GOTO(done, class_table_print(&table, true, &text));
    while (text.n > 0 && text.p[text.n - 1] == '\n')
        text.p[--text.n] = '\0';
    const char *name = class_table_name(&table, label, number);
    long long total = 0;
    for (int p = 0; p < table.parts; p++)
        total += table.counts[(int64_t)p * (table.classes + 1) + label];
    if (o->kind == FOLD_HOLDOUT)
        st = status_fail(
            STATUS_DATA,
            "class \"%.40s\" has %lld rows, and none of them %s, so its scores would be "
            "undefined (cv.allow_missing_class=true goes on)\n%s",
            name, total, holdout_parts[part], text.p);
    else
        st =
            status_fail(STATUS_DATA,
                        "class \"%.40s\" has %lld rows, and fold %d of %d has none of them, so its "
                        "scores would be undefined (cv.allow_missing_class=true goes on)\n%s",
                        name, total, part, o->folds, text.p);
done:
    str_release(&text);
    class_table_release(&table);
    return st;
}

/* ---- entry ---- */

static enum status check_opts(const struct fold_opts *o)
{
    bool grouped = o->kind == FOLD_GROUP || o->kind == FOLD_STRATIFIED_GROUP;
    bool stratified = o->kind == FOLD_STRATIFIED || o->kind == FOLD_STRATIFIED_GROUP;
    if (o->rows < 1)
        return status_fail(STATUS_CONFIG, "there are no rows to split");
    if (o->kind != FOLD_HOLDOUT && o->folds < 2)
        return status_fail(STATUS_CONFIG, "%d folds were asked for, at least 2 are needed",
                           o->folds);
    if (o->kind != FOLD_HOLDOUT && o->rows < o->folds)
        return status_fail(STATUS_CONFIG, "%d folds were asked for, but there are only %lld rows",
                           o->folds, (long long)o->rows);
    if (o->kind == FOLD_HOLDOUT && !(o->holdout > 0 && o->holdout < 1))
        return status_fail(STATUS_CONFIG,
                           "the share to hold out is %g, wanted a number between 0 and 1",
                           o->holdout);
    if (stratified && o->label == NULL)
        return status_fail(STATUS_CONFIG, "stratified folds need classes, and the data has none");
    if (grouped && o->group == NULL)
        return status_fail(STATUS_CONFIG,
                           "folds by group need a group column, and the data has none");
    for (int64_t i = 0; o->label != NULL && i < o->rows; i++) {
        if (o->label[i] < 0 || o->label[i] >= o->classes)
            return status_fail(STATUS_ARG, "row %lld has class %d, wanted 0 to %d", (long long)i,
                               o->label[i], o->classes - 1);
    }
    for (int64_t i = 0; o->group != NULL && i < o->rows; i++) {
        if (o->group[i] < 0)
            return status_fail(STATUS_ARG, "row %lld has group %d", (long long)i, o->group[i]);
    }
    return STATUS_OK;
}

enum status fold_assign(const struct fold_opts *opts, int32_t *fold)
{
    struct census census = {0};
    int wanted = opts->kind == FOLD_HOLDOUT ? 2 : opts->folds;
    enum status st = STATUS_OK;
    TRY(check_opts(opts));
    TRY_GOTO(done, take_census(opts, &census));
    if (needs_groups(opts) && census.ngroups < wanted) {
        st = status_fail(STATUS_CONFIG, "%d parts were asked for, but there are only %lld groups",
                         wanted, (long long)census.ngroups);
        goto done;
    }
    switch (opts->kind) {
    case FOLD_KFOLD:
        st = assign_kfold(opts, fold);
        break;
    case FOLD_STRATIFIED:
        st = assign_stratified(opts, &census, fold);
        break;
    case FOLD_GROUP:
        st = assign_group(opts, &census, fold);
        break;
    case FOLD_STRATIFIED_GROUP:
        st = assign_stratified_group(opts, &census, fold);
        break;
    case FOLD_HOLDOUT:
        st = assign_holdout(opts, &census, fold);
        break;
    default:
        st = status_fail(STATUS_ARG, "no kind of folds has the number %d", (int)opts->kind);
    }
    if (st == STATUS_OK)
        st = fold_check(opts, fold);
done:
    census_release(&census);
    return st;
}
