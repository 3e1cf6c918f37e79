/* split_check.c - what is refused before a plan is made, and classes that a split would lack. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "data/fold_internal.h"
#include "data/split_internal.h"

/* ---- options ---- */

static enum status check_sizes(const struct split_opts *o)
{
    bool splits = o->kind == SPLIT_SHUFFLE || o->kind == SPLIT_STRATIFIED_SHUFFLE ||
                  o->kind == SPLIT_ROLLING || o->kind == SPLIT_BLOCKED;
    const char *kind = split_kind_name(o->kind);
    if (o->rows < 1)
        return status_fail(STATUS_CONFIG, "there are no rows to split");
    if (split_kind_needs_folds(o->kind) && o->folds < (splits ? 1 : 2))
        return status_fail(STATUS_CONFIG, "%d %s asked for, at least %d needed", o->folds,
                           splits ? "splits were" : "folds were", splits ? 1 : 2);
    if (split_is_folds(o->kind) && o->rows < o->folds)
        return status_fail(STATUS_CONFIG, "%d folds were asked for, but there are only %lld rows",
                           o->folds, (long long)o->rows);
    if (o->repeats < 1)
        return status_fail(STATUS_CONFIG, "%d repeats were asked for", o->repeats);
    if (o->repeats > 1 && !split_is_folds(o->kind))
        return status_fail(STATUS_CONFIG,
                           splits && o->kind != SPLIT_ROLLING && o->kind != SPLIT_BLOCKED
                               ? "cv.kind=%s draws every split anew: give their number as cv.folds"
                               : "cv.kind=%s is the same every time it is repeated",
                           kind);
    bool again = o->repeats > 1 || (o->folds > 1 && (o->kind == SPLIT_SHUFFLE ||
                                                     o->kind == SPLIT_STRATIFIED_SHUFFLE));
    if (again && !o->shuffle)
        return status_fail(STATUS_CONFIG,
                           "folds that are not shuffled are the same every time they are repeated");
    if ((split_is_holdout(o->kind) || o->kind == SPLIT_BLOCKED) &&
        !(o->test_share > 0.0 && o->test_share < 1.0))
        return status_fail(STATUS_CONFIG, "the share to %s is %g, wanted a number between 0 and 1",
                           o->kind == SPLIT_HOLDOUT ? "hold out" : "score", o->test_share);
    if (o->gap < 0 || o->max_train < 0 || o->test_rows < 0)
        return status_fail(STATUS_CONFIG,
                           "a gap of %lld, %lld rows to train on, %lld to score: "
                           "none may be negative",
                           (long long)o->gap, (long long)o->max_train, (long long)o->test_rows);
    if (o->kind == SPLIT_LEAVE_ONE_OUT && (o->rows < 2 || o->rows > INT32_MAX))
        return status_fail(STATUS_CONFIG, "leaving out one of %lld rows cannot be done",
                           (long long)o->rows);
    if (o->kind == SPLIT_LEAVE_P_OUT && (o->p < 1 || o->p >= o->rows))
        return status_fail(STATUS_CONFIG,
                           "leaving out %d of %lld rows cannot be done, wanted 1 to %lld", o->p,
                           (long long)o->rows, (long long)o->rows - 1);
    if (o->kind == SPLIT_BINS && o->bins < 1)
        return status_fail(STATUS_CONFIG, "%d bins were asked for", o->bins);
    return STATUS_OK;
}

static enum status check_columns(const struct split_opts *o)
{
    enum split_kind k = o->kind;
    bool stratified = k == SPLIT_STRATIFIED || k == SPLIT_STRATIFIED_GROUP ||
                      k == SPLIT_STRATIFIED_SHUFFLE;
    bool grouped = k == SPLIT_GROUP || k == SPLIT_STRATIFIED_GROUP ||
                   k == SPLIT_LEAVE_ONE_GROUP_OUT;
    if (stratified && o->label == NULL)
        return status_fail(STATUS_CONFIG, "stratified folds need classes, and the data has none");
    if (grouped && o->group == NULL)
        return status_fail(STATUS_CONFIG,
                           "folds by group need a group column, and the data has none");
    if (k == SPLIT_BINS && (o->value == NULL || o->outputs != 1))
        return status_fail(STATUS_CONFIG,
                           "cv.kind=bins needs one number a row as label, and the data has none");
    if (k == SPLIT_MULTI_LABEL && o->value == NULL)
        return status_fail(STATUS_CONFIG, "cv.kind=multi_label needs rows with several labels "
                                          "(data.task=multi_label), and the data has none");
    if (k == SPLIT_COLUMN && o->fold == NULL)
        return status_fail(STATUS_CONFIG,
                           "cv.kind=column needs a column of folds (data.fold), and the data has "
                           "none");
    return STATUS_OK;
}

static enum status check_numbers(const struct split_opts *o, const char *what,
                                 const int32_t *number, int64_t limit)
{
    for (int64_t i = 0; number != NULL && i < o->rows; i++) {
        if (number[i] < 0 || number[i] >= limit)
            return status_fail(STATUS_ARG, "row %lld has %s %d, wanted 0 to %lld", (long long)i,
                               what, number[i], (long long)limit - 1);
    }
    return STATUS_OK;
}

enum status split_check_opts(const struct split_opts *o)
{
    if (o->kind < 0 || o->kind >= SPLIT_KINDS)
        return status_fail(STATUS_ARG, "no kind of splits has the number %d", (int)o->kind);
    TRY(check_sizes(o));
    TRY(check_columns(o));
    TRY(check_numbers(o, "class", o->label, o->classes));
    TRY(check_numbers(o, "group", o->group, (int64_t)INT32_MAX + 1));
    if (o->kind == SPLIT_COLUMN)
        TRY(check_numbers(o, "fold", o->fold, o->fold_names));
    for (int64_t i = 0; o->kind == SPLIT_BINS && i < o->rows; i++) {
        if (!isfinite(o->value[i]))
            return status_fail(STATUS_ARG, "row %lld has the value %g", (long long)i,
                               (double)o->value[i]);
    }
    for (int64_t i = 0; o->time != NULL && i < o->rows; i++) {
        if (!isfinite(o->time[i]))
            return status_fail(STATUS_ARG, "row %lld has the time %g", (long long)i, o->time[i]);
    }
    return STATUS_OK;
}

/* ---- classes ---- */

static enum status missing(const struct split_plan *plan, int label, int64_t rows, int64_t split,
                           bool trains)
{
    const struct split_opts *o = &plan->o;
    struct class_table table = {.names = o->names};
    char number[16];
    return status_fail(STATUS_DATA,
                       "class \"%.40s\" has %lld rows, and in split %lld of %lld none of them %s, "
                       "so its scores would be undefined (cv.allow_missing_class=true goes on)",
                       class_table_name(&table, label, number), (long long)rows, (long long)split,
                       (long long)plan->count, trains ? "trains" : "is scored");
}

/* Splits that leave out one row or p rows: a class must have more. */
static enum status check_rows_left(const struct split_plan *plan, const int64_t *rows)
{
    const struct split_opts *o = &plan->o;
    int out = o->kind == SPLIT_LEAVE_ONE_OUT ? 1 : o->p;
    struct class_table table = {.names = o->names};
    char number[16];
    for (int label = 0; label < o->classes; label++) {
        if (rows[label] > 0 && rows[label] <= out)
            return status_fail(STATUS_DATA,
                               "class \"%.40s\" has %lld rows, and where %d are left out none of "
                               "them trains (cv.allow_missing_class=true goes on)",
                               class_table_name(&table, label, number), (long long)rows[label],
                               out);
    }
    return STATUS_OK;
}

/* Splits that leave out one group or fold: a class must be in two. */
static enum status check_groups_left(const struct split_plan *plan, const int64_t *rows)
{
    const struct split_opts *o = &plan->o;
    int32_t *only; /* (classes) the one split that scores it; -1 none yet, -2 several */
    enum status st = STATUS_OK;
    TRY(mem_alloc_raw((size_t)o->classes, sizeof *only, "the classes", &only));
    for (int label = 0; label < o->classes; label++)
        only[label] = -1;
    for (int64_t i = 0; i < o->rows; i++) {
        int32_t *of = &only[o->label[i]];
        if (plan->unit[i] < 0) /* never scored: always trains */
            *of = -2;
        else
            *of = *of == -1 || *of == plan->unit[i] ? plan->unit[i] : -2;
    }
    for (int label = 0; label < o->classes && st == STATUS_OK; label++) {
        if (only[label] >= 0)
            st = missing(plan, label, rows[label], only[label], true);
    }
    mem_free(only);
    return st;
}

/* Splits by a column or in time: both sides of each. */
static enum status check_sides(struct split_plan *plan, const int64_t *rows)
{
    const struct split_opts *o = &plan->o;
    uint8_t *role = NULL;
    int64_t *count = NULL; /* (classes, 3) */
    size_t cells = 3 * (size_t)o->classes;
    enum status st;
    TRY_GOTO(done, mem_alloc_raw((size_t)o->rows, sizeof *role, "the roles of rows", &role));
    TRY_GOTO(done, mem_alloc_raw(cells, sizeof *count, "counts of classes", &count));
    for (int64_t s = 0; s < plan->count; s++) {
        memset(count, 0, cells * sizeof *count);
        TRY_GOTO(done, split_plan_roles(plan, s, role));
        for (int64_t i = 0; i < o->rows; i++)
            count[3 * o->label[i] + role[i]]++;
        for (int label = 0; label < o->classes; label++) {
            bool trains = count[3 * label + SPLIT_TRAINS] > 0;
            if (rows[label] == 0 || (trains && count[3 * label + SPLIT_SCORED] > 0))
                continue;
            st = missing(plan, label, rows[label], s, !trains);
            goto done;
        }
    }
done:
    mem_free(role);
    mem_free(count);
    return st;
}

/* A column with as many folds as rows would cost rows * rows: count by fold instead. */
static enum status check_column(struct split_plan *plan, const int64_t *rows)
{
    const struct split_opts *o = &plan->o;
    struct class_table table;
    struct str text = {0};
    int label, part;
    TRY(check_groups_left(plan, rows));
    if (plan->count > INT32_MAX / (o->classes + 1))
        return status_fail(STATUS_CONFIG, "%lld folds of %d classes are too many",
                           (long long)plan->count, o->classes);
    TRY(class_table_make(&table, (int)plan->count, o->classes, o->names));
    for (int64_t i = 0; i < o->rows; i++) {
        if (plan->unit[i] >= 0)
            class_table_count(&table, plan->unit[i], o->label[i]);
    }
    enum status st = STATUS_OK;
    for (label = 0; label < o->classes; label++) {
        for (part = 0; part < table.parts && rows[label] > 0; part++) {
            if (table.counts[(int64_t)part * (o->classes + 1) + label] > 0)
                continue;
            TRY_GOTO(done, class_table_print(&table, true, &text));
            st = missing(plan, label, rows[label], part, false);
            while (text.n > 0 && text.p[text.n - 1] == '\n')
                text.p[--text.n] = '\0';
            char sentence[512];
            (void)snprintf(sentence, sizeof sentence, "%.511s", status_message());
            st = status_fail(st, "%s\n%s", sentence, text.p);
            goto done;
        }
    }
done:
    str_release(&text);
    class_table_release(&table);
    return st;
}

enum status split_check_classes(struct split_plan *plan)
{
    const struct split_opts *o = &plan->o;
    int64_t *rows;
    enum status st = STATUS_OK;
    if (plan->fold != NULL) { /* the folds themselves refuse, repeat for repeat */
        bool checks = o->label != NULL && !o->allow_missing_class;
        for (int64_t r = checks ? plan->repeats : 1; r-- > 0;) /* 0 last: it is asked for first */
            TRY(split_cut(plan, r));
        return STATUS_OK;
    }
    if (o->label == NULL || o->allow_missing_class)
        return STATUS_OK;
    TRY(mem_alloc((size_t)o->classes, sizeof *rows, "counts of classes", &rows));
    for (int64_t i = 0; i < o->rows; i++)
        rows[o->label[i]]++;
    if (o->kind == SPLIT_LEAVE_ONE_OUT || o->kind == SPLIT_LEAVE_P_OUT)
        st = check_rows_left(plan, rows);
    else if (o->kind == SPLIT_LEAVE_ONE_GROUP_OUT)
        st = check_groups_left(plan, rows);
    else if (o->kind == SPLIT_COLUMN)
        st = check_column(plan, rows);
    else
        st = check_sides(plan, rows);
    mem_free(rows);
    return st;
}
