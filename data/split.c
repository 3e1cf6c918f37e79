/*
 * split.c - see split.h.
 *
 * What can be cut once is cut when the plan is opened: places in time, groups, the column's folds.
 * Shuffled folds are cut for one repeat at a time and kept until another one is asked for.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "data/fold_internal.h"
#include "data/fold_labels.h"
#include "data/split_internal.h"

enum { MOST_TABLE_FOLDS = 1000, MOST_LINES = 20 };

static const char *const kind_names[SPLIT_KINDS] = {"kfold",
                                                    "stratified",
                                                    "group",
                                                    "stratified_group",
                                                    "bins",
                                                    "multi_label",
                                                    "leave_one_out",
                                                    "leave_one_group_out",
                                                    "column",
                                                    "leave_p_out",
                                                    "holdout",
                                                    "shuffle",
                                                    "stratified_shuffle",
                                                    "rolling",
                                                    "blocked"};

const char *split_kind_name(enum split_kind kind)
{
    return kind_names[kind];
}

bool split_is_folds(enum split_kind kind)
{
    return kind <= SPLIT_MULTI_LABEL;
}

bool split_is_holdout(enum split_kind kind)
{
    return kind == SPLIT_HOLDOUT || kind == SPLIT_SHUFFLE || kind == SPLIT_STRATIFIED_SHUFFLE;
}

static bool is_series(enum split_kind kind)
{
    return kind == SPLIT_ROLLING || kind == SPLIT_BLOCKED;
}

bool split_kind_needs_folds(enum split_kind kind)
{
    return split_is_folds(kind) || is_series(kind) || kind == SPLIT_SHUFFLE ||
           kind == SPLIT_STRATIFIED_SHUFFLE;
}

/* ---- folds of one repeat ---- */

void split_fold_opts(const struct split_plan *plan, int64_t repeat, struct fold_opts *out)
{
    static const enum fold_kind kinds[] = {FOLD_KFOLD, FOLD_STRATIFIED, FOLD_GROUP,
                                           FOLD_STRATIFIED_GROUP};
    const struct split_opts *o = &plan->o;
    *out = (struct fold_opts){
        .kind = FOLD_HOLDOUT,
        .folds = split_is_holdout(o->kind) ? 1 : o->folds,
        .seed = repeat == 0 ? o->seed
                            : random_key(o->seed, RANDOM_FOLD, FOLD_KEY_REPEAT, (uint64_t)repeat),
        .shuffle = o->shuffle,
        .rows = o->rows,
        .label = o->label,
        .classes = o->classes,
        .names = o->names,
        .group = o->group,
        .holdout = o->test_share,
        .allow_missing_class = o->allow_missing_class,
    };
    if (o->kind <= SPLIT_STRATIFIED_GROUP)
        out->kind = kinds[o->kind];
    if (o->kind == SPLIT_BINS) { /* a bin is no class: it may be missing from a fold */
        out->kind = o->group == NULL ? FOLD_STRATIFIED : FOLD_STRATIFIED_GROUP;
        out->label = plan->bin;
        out->classes = plan->bin_count;
        out->names = (const char *const *)plan->bin_name;
        out->allow_missing_class = true;
    }
}

static enum status cut_shuffle(struct split_plan *plan, struct fold_opts *opts)
{
    const int32_t *label = opts->label;
    opts->label = NULL; /* what is given stratifies a hold-out */
    TRY(fold_assign(opts, plan->fold));
    opts->label = label;
    return fold_check(opts, plan->fold);
}

enum status split_cut(struct split_plan *plan, int64_t repeat)
{
    const struct split_opts *o = &plan->o;
    struct fold_opts opts;
    enum status st;
    if (plan->fold_repeat == repeat)
        return STATUS_OK;
    plan->fold_repeat = -1;
    split_fold_opts(plan, repeat, &opts);
    if (o->kind == SPLIT_MULTI_LABEL) {
        struct fold_labels_opts labels = {.folds = o->folds,
                                          .seed = opts.seed,
                                          .shuffle = o->shuffle,
                                          .rows = o->rows,
                                          .value = o->value,
                                          .labels = o->outputs,
                                          .group = o->group};
        st = fold_assign_labels(&labels, plan->fold);
    } else {
        st = o->kind == SPLIT_SHUFFLE ? cut_shuffle(plan, &opts) : fold_assign(&opts, plan->fold);
    }
    if (st == STATUS_OK)
        plan->fold_repeat = repeat;
    else if (plan->repeats > 1)
        (void)status_prefix(st, "%s %lld", split_is_holdout(o->kind) ? "split" : "repeat",
                            (long long)repeat);
    return st;
}

/* ---- bins ---- */

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As numpy.quantile: from the nearer end of the two. */
static double quantile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t below = (int64_t)at;
    if (below + 1 >= n)
        return sorted[n - 1];
    double a = sorted[below], b = sorted[below + 1], t = at - (double)below;
    return t >= 0.5 ? b - (b - a) * (1.0 - t) : a + (b - a) * t;
}

static enum status cut_bins(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    int64_t n = o->rows, most = n / o->folds;
    int bins = o->bins < most ? o->bins : (int)most, count = 0;
    double *sorted = NULL, *edge = NULL; /* upper ends of bins */
    enum status st;
    TRY_GOTO(done, mem_alloc_raw((size_t)n, sizeof *sorted, "sorted values", &sorted));
    TRY_GOTO(done, mem_alloc_raw((size_t)bins, sizeof *edge, "edges of bins", &edge));
    TRY_GOTO(done, mem_alloc_raw((size_t)n, sizeof *plan->bin, "bins of values", &plan->bin));
    for (int64_t i = 0; i < n; i++)
        sorted[i] = (double)o->value[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_double);
    for (int i = 1; i <= bins; i++) {
        double end = quantile(sorted, n, (double)i / bins);
        if (i == bins ||
            (end != sorted[0] && end != sorted[n - 1] && (count == 0 || end != edge[count - 1])))
            edge[count++] = end;
    }
    for (int64_t i = 0; i < n; i++) {
        int low = 0, high = count - 1;
        while (low < high) {
            int middle = (low + high) / 2;
            if ((double)o->value[i] <= edge[middle])
                high = middle;
            else
                low = middle + 1;
        }
        plan->bin[i] = low;
    }
    TRY_GOTO(done,
             mem_alloc((size_t)count, sizeof *plan->bin_name, "names of bins", &plan->bin_name));
    for (; plan->bin_count < count; plan->bin_count++) {
        char name[48];
        (void)snprintf(name, sizeof name, "up to %.6g", edge[plan->bin_count]);
        TRY_GOTO(done, mem_strdup(name, &plan->bin_name[plan->bin_count]));
    }
done:
    mem_free(sorted);
    mem_free(edge);
    return st;
}

/* ---- units that are scored alone ---- */

static enum status take_groups(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    TRY(mem_alloc_raw((size_t)o->rows, sizeof *plan->unit, "the groups of rows", &plan->unit));
    TRY(dense_numbers(o->group, o->rows, plan->unit, &plan->count));
    if (plan->count < 2)
        return status_fail(STATUS_CONFIG,
                           "leaving out one group needs at least 2 groups, there is %lld",
                           (long long)plan->count);
    TRY(mem_alloc_raw((size_t)plan->count, sizeof *plan->number, "the groups", &plan->number));
    for (int64_t i = 0; i < o->rows; i++)
        plan->number[plan->unit[i]] = o->group[i];
    return STATUS_OK;
}

static bool never_scored(const char *name)
{
    return name[0] == '\0' || strcmp(name, "train") == 0 || strcmp(name, "-1") == 0;
}

struct fold_name {
    const char *name;
    double value;
    int32_t number;
};

static int by_name(const void *a, const void *b)
{
    const struct fold_name *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : (x->number > y->number) - (x->number < y->number);
}

static int by_value(const void *a, const void *b)
{
    const struct fold_name *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return by_name(a, b);
}

/* The names that have rows, sorted, are the splits. */
static enum status take_column(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    struct fold_name *sorted = NULL;
    int32_t *split = NULL; /* of each name: -2 it has no rows, -1 they are never scored */
    size_t names = (size_t)o->fold_names;
    bool numbers = true;
    enum status st;
    TRY_GOTO(done, mem_alloc(names, sizeof *sorted, "the names of folds", &sorted));
    TRY_GOTO(done, mem_alloc_raw(names, sizeof *split, "the names of folds", &split));
    TRY_GOTO(done,
             mem_alloc_raw((size_t)o->rows, sizeof *plan->unit, "the folds of rows", &plan->unit));
    for (size_t i = 0; i < names; i++)
        split[i] = -2;
    plan->partition = true;
    for (int64_t i = 0; i < o->rows; i++) {
        const char *name = o->fold_name[o->fold[i]];
        plan->partition = plan->partition && !never_scored(name);
        if (split[o->fold[i]] != -2)
            continue;
        split[o->fold[i]] = -1;
        if (never_scored(name))
            continue;
        sorted[plan->count] = (struct fold_name){.name = name, .number = o->fold[i]};
        numbers = numbers && parse_double(name, &sorted[plan->count].value);
        plan->count++;
    }
    if (plan->count == 0 || (plan->count == 1 && plan->partition)) {
        st = status_fail(STATUS_CONFIG,
                         plan->count == 0
                             ? "the column of folds names none: no row would be scored"
                             : "the column of folds puts all rows into one: no row would train");
        goto done;
    }
    qsort(sorted, (size_t)plan->count, sizeof *sorted, numbers ? by_value : by_name);
    TRY_GOTO(done, mem_alloc_raw((size_t)plan->count, sizeof *plan->number, "the names of folds",
                                 &plan->number));
    for (int64_t s = 0; s < plan->count; s++) {
        plan->number[s] = sorted[s].number;
        split[sorted[s].number] = (int32_t)s;
    }
    for (int64_t i = 0; i < o->rows; i++)
        plan->unit[i] = split[o->fold[i]];
done:
    mem_free(sorted);
    mem_free(split);
    return st;
}

/* C(n, p), or a number above the limit where it is larger. */
static int64_t combinations(int64_t n, int64_t p)
{
    int64_t count = 1;
    for (int64_t i = 1; i <= p; i++) {
        if (count > INT64_MAX / n)
            return INT64_MAX;
        count = count * (n - p + i) / i;
        /* C(n - p + i, i) grows with i: once above the limit it stays there */
        if (count > SPLIT_MOST_COMBINATIONS)
            return count;
    }
    return count;
}

static enum status count_combinations(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    plan->count = combinations(o->rows, o->p);
    if (plan->count <= SPLIT_MOST_COMBINATIONS)
        return STATUS_OK;
    return status_fail(STATUS_CONFIG,
                       "leaving out every %d of %lld rows would be more than %d splits; a smaller "
                       "cv.p, or cv.kind=shuffle, which draws some of them",
                       o->p, (long long)o->rows, SPLIT_MOST_COMBINATIONS);
}

/* Mark the split-th combination in lexicographic order. */
static void mark_combination(const struct split_plan *plan, int64_t split, uint8_t *role)
{
    int64_t n = plan->o.rows, next = 0;
    for (int64_t left = plan->o.p; left > 0; left--, next++) {
        for (;; next++) { /* with `next` as the smallest there are C(n - next - 1, left - 1) */
            int64_t with = left == 1 ? 1 : combinations(n - next - 1, left - 1);
            if (split < with)
                break;
            split -= with;
        }
        role[next] = SPLIT_SCORED;
    }
}

/* ---- time series ---- */

struct timed {
    double time;
    int64_t row;
};

static int by_time(const void *a, const void *b)
{
    const struct timed *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static enum status order_rows(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    struct timed *rows;
    TRY(mem_alloc_raw((size_t)o->rows, sizeof *plan->place, "the order of rows", &plan->place));
    TRY(mem_alloc_raw((size_t)o->rows, sizeof *rows, "the order of rows", &rows));
    for (int64_t i = 0; i < o->rows; i++)
        rows[i] = (struct timed){o->time == NULL ? 0.0 : o->time[i], i};
    qsort(rows, (size_t)o->rows, sizeof *rows, by_time);
    for (int64_t i = 0; i < o->rows; i++)
        plan->place[rows[i].row] = i;
    mem_free(rows);
    return STATUS_OK;
}

struct split_window split_window_of(const struct split_plan *plan, int64_t split)
{
    const struct split_opts *o = &plan->o;
    struct split_window w;
    if (o->kind == SPLIT_ROLLING) {
        w.scored = o->rows - (plan->count - split) * plan->test_rows;
        w.scored_end = w.scored + plan->test_rows;
        w.train_end = w.scored - o->gap;
        w.train = o->max_train > 0 && o->max_train < w.train_end ? w.train_end - o->max_train : 0;
    } else {
        w.train = fold_run_begin(o->rows, plan->count, split);
        w.scored_end = fold_run_begin(o->rows, plan->count, split + 1);
        w.scored = w.scored_end - (int64_t)ceil(o->test_share * (double)(w.scored_end - w.train));
        w.train_end = w.scored - o->gap;
    }
    return w;
}

static enum status lay_out_series(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    plan->count = o->folds;
    plan->test_rows = o->test_rows > 0 ? o->test_rows : o->rows / ((int64_t)o->folds + 1);
    if (o->kind == SPLIT_ROLLING && (plan->test_rows == 0 || plan->test_rows > o->rows / o->folds ||
                                     o->rows - o->folds * plan->test_rows - o->gap < 1))
        return status_fail(STATUS_CONFIG,
                           "%lld rows are too few for %d splits that score %lld rows each, after a "
                           "gap of %lld: the first would have no row to train on",
                           (long long)o->rows, o->folds,
                           (long long)(plan->test_rows == 0 ? 1 : plan->test_rows),
                           (long long)o->gap);
    for (int64_t s = 0; s < plan->count && o->kind == SPLIT_BLOCKED; s++) {
        struct split_window w = split_window_of(plan, s);
        if (w.train_end <= w.train || w.scored >= w.scored_end)
            return status_fail(STATUS_CONFIG,
                               "a block of %lld rows, of which %lld are scored after a gap of "
                               "%lld, has no row to train on; fewer folds make larger blocks",
                               (long long)(w.scored_end - w.train),
                               (long long)(w.scored_end - w.scored), (long long)o->gap);
    }
    return order_rows(plan);
}

/* ---- opening ---- */

static enum status lay_out(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    plan->fold_repeat = -1;
    plan->partition = o->kind < SPLIT_COLUMN;
    if (split_is_folds(o->kind) || split_is_holdout(o->kind)) {
        TRY(mem_alloc_raw((size_t)o->rows, sizeof *plan->fold, "the folds", &plan->fold));
        plan->folds = split_is_folds(o->kind) ? o->folds : 1;
        plan->repeats = split_is_folds(o->kind)    ? o->repeats
                        : o->kind == SPLIT_HOLDOUT ? 1
                                                   : o->folds;
        plan->count = plan->folds * plan->repeats;
        return o->kind == SPLIT_BINS ? cut_bins(plan) : STATUS_OK;
    }
    if (o->kind == SPLIT_LEAVE_P_OUT) {
        TRY(count_combinations(plan));
        plan->repeats = plan->count;
        plan->folds = 1;
        return STATUS_OK;
    }
    if (o->kind == SPLIT_LEAVE_ONE_OUT)
        plan->count = o->rows;
    else if (o->kind == SPLIT_LEAVE_ONE_GROUP_OUT)
        TRY(take_groups(plan));
    else if (o->kind == SPLIT_COLUMN)
        TRY(take_column(plan));
    else
        TRY(lay_out_series(plan));
    plan->repeats = 1;
    plan->folds = plan->count;
    return STATUS_OK;
}

enum status split_plan_open(const struct split_opts *opts, struct split_plan **out)
{
    struct split_plan *plan;
    enum status st;
    *out = NULL;
    TRY(split_check_opts(opts));
    TRY(mem_alloc(1, sizeof *plan, "a plan of splits", &plan));
    plan->o = *opts;
    TRY_GOTO(fail, lay_out(plan));
    TRY_GOTO(fail, split_check_classes(plan));
    *out = plan;
    return STATUS_OK;
fail:
    split_plan_close(plan);
    return st;
}

void split_plan_close(struct split_plan *plan)
{
    if (plan == NULL)
        return;
    for (int i = 0; i < plan->bin_count; i++)
        mem_free(plan->bin_name[i]);
    mem_free(plan->bin_name);
    mem_free(plan->bin);
    mem_free(plan->fold);
    mem_free(plan->unit);
    mem_free(plan->number);
    mem_free(plan->place);
    mem_free(plan);
}

void split_plan_info(const struct split_plan *plan, struct split_info *info)
{
    *info = (struct split_info){.kind = plan->o.kind,
                                .count = plan->count,
                                .repeats = plan->repeats,
                                .folds = plan->folds,
                                .partition = plan->partition,
                                .reshuffled = split_is_folds(plan->o.kind) && plan->repeats > 1};
}

void split_plan_place(const struct split_plan *plan, int64_t split, struct split_place *place)
{
    *place = (struct split_place){.repeat = split / plan->folds,
                                  .fold = split % plan->folds,
                                  .number = plan->number == NULL ? -1 : plan->number[split]};
}

/* ---- roles ---- */

static uint8_t role_in_window(const struct split_window *w, int64_t place)
{
    if (place >= w->scored && place < w->scored_end)
        return SPLIT_SCORED;
    return place >= w->train && place < w->train_end ? SPLIT_TRAINS : SPLIT_UNUSED;
}

enum status split_plan_roles(struct split_plan *plan, int64_t split, uint8_t *role)
{
    const struct split_opts *o = &plan->o;
    if (split < 0 || split >= plan->count)
        return status_fail(STATUS_ARG, "split %lld was asked for, there are %lld", (long long)split,
                           (long long)plan->count);
    if (plan->fold != NULL) {
        int64_t own = split % plan->folds; /* a hold-out's own rows are marked 0 */
        TRY(split_cut(plan, split / plan->folds));
        for (int64_t i = 0; i < o->rows; i++)
            role[i] = plan->fold[i] == own ? SPLIT_SCORED : SPLIT_TRAINS;
    } else if (plan->unit != NULL) {
        for (int64_t i = 0; i < o->rows; i++)
            role[i] = plan->unit[i] == split ? SPLIT_SCORED : SPLIT_TRAINS;
    } else if (plan->place != NULL) {
        struct split_window w = split_window_of(plan, split);
        for (int64_t i = 0; i < o->rows; i++)
            role[i] = role_in_window(&w, plan->place[i]);
    } else {
        memset(role, SPLIT_TRAINS, (size_t)o->rows);
        if (o->kind == SPLIT_LEAVE_ONE_OUT)
            role[split] = SPLIT_SCORED;
        else
            mark_combination(plan, split, role);
    }
    return STATUS_OK;
}

enum status split_plan_rows(struct split_plan *plan, int64_t split, int64_t *train, int64_t *trains,
                            int64_t *scored, int64_t *scores)
{
    uint8_t *role;
    *trains = *scores = 0;
    TRY(mem_alloc_raw((size_t)plan->o.rows, sizeof *role, "the roles of rows", &role));
    enum status st = split_plan_roles(plan, split, role);
    for (int64_t i = 0; i < plan->o.rows && st == STATUS_OK; i++) {
        if (role[i] == SPLIT_TRAINS)
            train[(*trains)++] = i;
        else if (role[i] == SPLIT_SCORED)
            scored[(*scores)++] = i;
    }
    mem_free(role);
    return st;
}

enum status split_plan_folds(struct split_plan *plan, int64_t repeat, int32_t *fold)
{
    size_t rows = (size_t)plan->o.rows;
    if (!plan->partition || repeat < 0 || repeat >= plan->repeats)
        return status_fail(STATUS_ARG, "folds of repeat %lld of %lld of cv.kind=%s",
                           (long long)repeat, (long long)plan->repeats,
                           split_kind_name(plan->o.kind));
    if (plan->fold != NULL)
        TRY(split_cut(plan, repeat));
    if (plan->fold != NULL || plan->unit != NULL)
        memcpy(fold, plan->fold != NULL ? plan->fold : plan->unit, rows * sizeof *fold);
    for (size_t i = 0; i < rows && plan->o.kind == SPLIT_LEAVE_ONE_OUT; i++)
        fold[i] = (int32_t)i;
    return STATUS_OK;
}

/* ---- for people ---- */

/* Labels of multi-label rows by fold: a row counts for each of its labels. */
static enum status print_labels(struct split_plan *plan, struct str *out)
{
    const struct split_opts *o = &plan->o;
    struct class_table table;
    TRY(class_table_make(&table, o->folds, o->outputs, o->names));
    for (int64_t i = 0; i < o->rows; i++) {
        class_table_count(&table, plan->fold[i], -1);
        for (int l = 0; l < o->outputs; l++)
            table.counts[(int64_t)plan->fold[i] * (o->outputs + 1) + l] +=
                o->value[i * o->outputs + l] > 0.5f;
    }
    enum status st = class_table_print(&table, false, out);
    class_table_release(&table);
    return st;
}

static enum status print_units(const struct split_plan *plan, struct str *out)
{
    const struct split_opts *o = &plan->o;
    struct class_table table;
    TRY(class_table_make(&table, (int)plan->count, o->label == NULL ? 0 : o->classes, o->names));
    for (int64_t i = 0; i < o->rows; i++)
        class_table_count(&table, plan->unit[i], o->label == NULL ? -1 : o->label[i]);
    enum status st = class_table_print(&table, false, out);
    class_table_release(&table);
    return st;
}

static enum status print_lines(struct split_plan *plan, struct str *out)
{
    uint8_t *role;
    if (plan->o.kind == SPLIT_LEAVE_ONE_OUT || plan->o.kind == SPLIT_LEAVE_P_OUT)
        return str_addf(out, "%lld splits, each of which scores %d of %lld rows\n",
                        (long long)plan->count, plan->o.kind == SPLIT_LEAVE_ONE_OUT ? 1 : plan->o.p,
                        (long long)plan->o.rows);
    TRY(mem_alloc_raw((size_t)plan->o.rows, sizeof *role, "the roles of rows", &role));
    enum status st = str_addf(out, "split     trains     scored   not used\n");
    for (int64_t s = 0; s < plan->count && s < MOST_LINES && st == STATUS_OK; s++) {
        int64_t count[3] = {0};
        TRY_GOTO(done, split_plan_roles(plan, s, role));
        for (int64_t i = 0; i < plan->o.rows; i++)
            count[role[i]]++;
        st = str_addf(out, "%5lld%11lld%11lld%11lld\n", (long long)s,
                      (long long)count[SPLIT_TRAINS], (long long)count[SPLIT_SCORED],
                      (long long)count[SPLIT_UNUSED]);
    }
    if (st == STATUS_OK && plan->count > MOST_LINES)
        st = str_addf(out, "... and %lld more\n", (long long)plan->count - MOST_LINES);
done:
    mem_free(role);
    return st;
}

enum status split_plan_table(struct split_plan *plan, struct str *out)
{
    struct fold_opts opts;
    if (plan->fold != NULL && (split_is_folds(plan->o.kind) || plan->count == 1)) {
        TRY(split_cut(plan, 0));
        if (plan->o.kind == SPLIT_MULTI_LABEL)
            return print_labels(plan, out);
        split_fold_opts(plan, 0, &opts);
        return fold_table(&opts, plan->fold, out);
    }
    if (plan->unit != NULL && plan->partition && plan->count <= MOST_TABLE_FOLDS)
        return print_units(plan, out);
    return print_lines(plan, out);
}
