/* fold_labels.c - see fold_labels.h. */
#include "data/fold_labels.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "data/fold_internal.h"

/* A unit (row or group) of one label, and how many of its rows have the label. */
struct of_label {
    int64_t unit, rows, place;
};

struct state {
    const struct fold_labels_opts *o;
    int64_t units;
    int32_t *unit_of;          /* (rows) dense group numbers; NULL: every row is a unit */
    int64_t *order;            /* (units) in which units are taken */
    int64_t *size;             /* (units) rows */
    int64_t *begin;            /* (units + 1) into of_unit ... */
    struct of_label *of_unit;  /* ... labels of each unit: .unit is the label */
    int64_t *label_begin;      /* (labels + 1) into units_of ... */
    struct of_label *units_of; /* ... units of each label, in their order */
    int64_t *left;             /* (labels) rows that are not in a fold yet */
    int64_t *owed;             /* (folds, labels) times folds */
    int64_t *owed_rows;        /* (folds) times folds */
    int32_t *fold_of;          /* (units) or -1 */
};

static void state_release(struct state *s)
{
    mem_free(s->unit_of);
    mem_free(s->order);
    mem_free(s->size);
    mem_free(s->begin);
    mem_free(s->of_unit);
    mem_free(s->label_begin);
    mem_free(s->units_of);
    mem_free(s->left);
    mem_free(s->owed);
    mem_free(s->owed_rows);
    mem_free(s->fold_of);
}

static bool has_label(const struct fold_labels_opts *o, int64_t row, int label)
{
    return o->value[row * o->labels + label] > 0.5f;
}

static enum status number_units(struct state *s)
{
    const struct fold_labels_opts *o = s->o;
    s->units = o->rows;
    if (o->group == NULL)
        return STATUS_OK;
    for (int64_t i = 0; i < o->rows; i++) {
        if (o->group[i] < 0)
            return status_fail(STATUS_ARG, "row %lld has group %d", (long long)i, o->group[i]);
    }
    TRY(mem_alloc_raw((size_t)o->rows, sizeof *s->unit_of, "the groups of rows", &s->unit_of));
    return dense_numbers(o->group, o->rows, s->unit_of, &s->units);
}

static int64_t unit_of(const struct state *s, int64_t row)
{
    return s->unit_of == NULL ? row : s->unit_of[row];
}

/* Sort rows by unit, then count each unit's labels. */
static enum status count_labels(struct state *s)
{
    const struct fold_labels_opts *o = s->o;
    int64_t *row_begin = NULL, *rows = NULL, *count = NULL, pairs = 0;
    size_t units = (size_t)s->units;
    enum status st;
    TRY_GOTO(done, mem_alloc(units, sizeof *s->size, "sizes of groups", &s->size));
    TRY_GOTO(done, mem_alloc(units + 1, sizeof *row_begin, "rows of groups", &row_begin));
    TRY_GOTO(done, mem_alloc((size_t)o->rows, sizeof *rows, "rows of groups", &rows));
    TRY_GOTO(done, mem_alloc((size_t)o->labels, sizeof *count, "counts of labels", &count));
    for (int64_t i = 0; i < o->rows; i++) {
        s->size[unit_of(s, i)]++;
        for (int l = 0; l < o->labels; l++)
            pairs += has_label(o, i, l);
    }
    for (int64_t u = 0; u < s->units; u++)
        row_begin[u + 1] = row_begin[u] + s->size[u];
    for (int64_t i = o->rows; i-- > 0;)
        rows[--row_begin[unit_of(s, i) + 1]] = i;
    for (int64_t u = 0; u < s->units; u++) /* the ends are begins now */
        row_begin[u] = row_begin[u + 1];
    TRY_GOTO(done, mem_alloc(units + 1, sizeof *s->begin, "labels of groups", &s->begin));
    TRY_GOTO(done, mem_alloc((size_t)pairs, sizeof *s->of_unit, "labels of groups", &s->of_unit));
    for (int64_t u = 0, at = 0; u < s->units; u++) {
        for (int64_t i = row_begin[u]; i < row_begin[u] + s->size[u]; i++) {
            for (int l = 0; l < o->labels; l++)
                count[l] += has_label(o, rows[i], l);
        }
        for (int l = 0; l < o->labels; l++) {
            if (count[l] > 0)
                s->of_unit[at++] = (struct of_label){.unit = l, .rows = count[l]};
            count[l] = 0;
        }
        s->begin[u + 1] = at;
    }
done:
    mem_free(row_begin);
    mem_free(rows);
    mem_free(count);
    return st;
}

static int by_rows(const void *a, const void *b)
{
    const struct of_label *x = a, *y = b;
    if (x->rows != y->rows)
        return x->rows > y->rows ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* Units of each label, in the order in which they are taken. */
static enum status list_units(struct state *s)
{
    const struct fold_labels_opts *o = s->o;
    size_t labels = (size_t)o->labels;
    int64_t *next = NULL;
    enum status st;
    TRY_GOTO(done, mem_alloc((size_t)s->units, sizeof *s->order, "the order of rows", &s->order));
    TRY_GOTO(done,
             mem_alloc(labels + 1, sizeof *s->label_begin, "rows of labels", &s->label_begin));
    TRY_GOTO(done, mem_alloc((size_t)s->begin[s->units], sizeof *s->units_of, "rows of labels",
                             &s->units_of));
    TRY_GOTO(done, mem_alloc(labels + 1, sizeof *next, "rows of labels", &next));
    for (int64_t i = 0; i < s->units; i++)
        s->order[i] = i;
    if (o->shuffle)
        fold_shuffle64(random_key(o->seed, RANDOM_FOLD, FOLD_KEY_LABEL_UNITS, 0), s->order,
                       s->units);
    for (int64_t i = 0; i < s->begin[s->units]; i++)
        s->label_begin[s->of_unit[i].unit + 1]++;
    for (size_t l = 0; l < labels; l++)
        next[l + 1] = s->label_begin[l + 1] += s->label_begin[l];
    for (int64_t i = 0; i < s->units; i++) {
        int64_t u = s->order[i];
        for (int64_t j = s->begin[u]; j < s->begin[u + 1]; j++)
            s->units_of[next[s->of_unit[j].unit]++] =
                (struct of_label){.unit = u, .rows = s->of_unit[j].rows, .place = i};
    }
    for (size_t l = 0; l < labels && o->group != NULL; l++) {
        int64_t first = s->label_begin[l], n = s->label_begin[l + 1] - first;
        if (n > 1)
            qsort(s->units_of + first, (size_t)n, sizeof *s->units_of, by_rows);
    }
done:
    mem_free(next);
    return st;
}

static enum status owe(struct state *s)
{
    const struct fold_labels_opts *o = s->o;
    size_t folds = (size_t)o->folds, labels = (size_t)o->labels;
    TRY(mem_alloc(labels, sizeof *s->left, "rows of labels", &s->left));
    TRY(mem_alloc(folds * labels, sizeof *s->owed, "what folds are owed", &s->owed));
    TRY(mem_alloc(folds, sizeof *s->owed_rows, "what folds are owed", &s->owed_rows));
    TRY(mem_alloc_raw((size_t)s->units, sizeof *s->fold_of, "the folds of rows", &s->fold_of));
    for (int64_t i = 0; i < s->begin[s->units]; i++)
        s->left[s->of_unit[i].unit] += s->of_unit[i].rows;
    for (size_t f = 0; f < folds; f++) {
        s->owed_rows[f] = o->rows;
        if (labels > 0)
            memcpy(s->owed + f * labels, s->left, labels * sizeof *s->left);
    }
    for (int64_t u = 0; u < s->units; u++)
        s->fold_of[u] = -1;
    return STATUS_OK;
}

/* label < 0: the unit has none. */
static void give(struct state *s, int64_t unit, int label)
{
    const struct fold_labels_opts *o = s->o;
    int best = 0;
    for (int f = 1; f < o->folds; f++) {
        int64_t more = label < 0 ? 0
                                 : s->owed[(int64_t)f * o->labels + label] -
                                       s->owed[(int64_t)best * o->labels + label];
        if (more > 0 || (more == 0 && s->owed_rows[f] > s->owed_rows[best]))
            best = f;
    }
    s->fold_of[unit] = best;
    s->owed_rows[best] -= o->folds * s->size[unit];
    for (int64_t i = s->begin[unit]; i < s->begin[unit + 1]; i++) {
        s->owed[(int64_t)best * o->labels + s->of_unit[i].unit] -= o->folds * s->of_unit[i].rows;
        s->left[s->of_unit[i].unit] -= s->of_unit[i].rows;
    }
}

static void give_all(struct state *s)
{
    for (;;) {
        int rarest = -1;
        for (int l = 0; l < s->o->labels; l++) {
            if (s->left[l] > 0 && (rarest < 0 || s->left[l] < s->left[rarest]))
                rarest = l;
        }
        if (rarest < 0)
            break;
        for (int64_t i = s->label_begin[rarest]; i < s->label_begin[rarest + 1]; i++) {
            if (s->fold_of[s->units_of[i].unit] < 0)
                give(s, s->units_of[i].unit, rarest);
        }
    }
    for (int64_t i = 0; i < s->units; i++) {
        if (s->fold_of[s->order[i]] < 0)
            give(s, s->order[i], -1);
    }
}

enum status fold_assign_labels(const struct fold_labels_opts *opts, int32_t *fold)
{
    struct state s = {.o = opts};
    enum status st;
    if (opts->folds < 2)
        return status_fail(STATUS_CONFIG, "%d folds were asked for, at least 2 are needed",
                           opts->folds);
    TRY_GOTO(done, number_units(&s));
    if (s.units < opts->folds) {
        st = status_fail(STATUS_CONFIG, "%d folds were asked for, but there are only %lld %s",
                         opts->folds, (long long)s.units, opts->group == NULL ? "rows" : "groups");
        goto done;
    }
    TRY_GOTO(done, count_labels(&s));
    TRY_GOTO(done, list_units(&s));
    TRY_GOTO(done, owe(&s));
    give_all(&s);
    for (int64_t i = 0; i < opts->rows; i++)
        fold[i] = s.fold_of[unit_of(&s, i)];
done:
    state_release(&s);
    return st;
}
