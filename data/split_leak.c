/* split_leak.c - rows of one group on both sides of a split; see duplicates.h. */
#include <string.h>

#include "base/mem.h"
#include "data/duplicates.h"
#include "data/split_internal.h"

struct leak_search {
    struct split_plan *plan;
    const int32_t *group;
    const uint8_t *skip;
    uint8_t *leaks;
    struct split_leak *out;
    int64_t rows;
    int32_t *fold; /* partitions: (rows) */
    int32_t *only; /* partitions: (rows) the only fold of the group so far; -1: none, -2: several */
    uint8_t *role; /* others: (rows) */
    int64_t *trains; /* others: (rows) the last split in which the group trains */
};

static void count_row(struct leak_search *s, int64_t row)
{
    if (s->skip != NULL && s->skip[row])
        return;
    s->out->rows += !s->leaks[row];
    s->leaks[row] = 1;
}

static bool is_counted(const struct leak_search *s, int64_t row)
{
    return s->skip == NULL || !s->skip[row];
}

/* A row leaks where its group has rows in several folds: they train where it is scored. */
static enum status look_at_repeat(struct leak_search *s, int64_t repeat)
{
    struct split_leak *out = s->out;
    TRY(split_plan_folds(s->plan, repeat, s->fold));
    for (int64_t i = 0; i < s->rows; i++)
        s->only[i] = -1;
    for (int64_t i = 0; i < s->rows; i++) {
        int32_t *only = &s->only[s->group[i]];
        *only = *only == -1 || *only == s->fold[i] ? s->fold[i] : -2;
    }
    bool found = out->split >= 0;
    for (int64_t i = 0; i < s->rows; i++) {
        if (s->only[s->group[i]] != -2)
            continue;
        count_row(s, i);
        if (!found && is_counted(s, i) && (out->split < 0 || s->fold[i] < s->fold[out->scored])) {
            out->split = repeat * s->plan->folds + s->fold[i];
            out->scored = i;
        }
    }
    for (int64_t i = 0; i < s->rows && !found && out->split >= 0; i++) {
        if (s->group[i] == s->group[out->scored] && s->fold[i] != s->fold[out->scored]) {
            out->trained = i;
            break;
        }
    }
    return STATUS_OK;
}

static enum status look_at_split(struct leak_search *s, int64_t split)
{
    struct split_leak *out = s->out;
    TRY(split_plan_roles(s->plan, split, s->role));
    for (int64_t i = 0; i < s->rows; i++) {
        if (s->role[i] == SPLIT_TRAINS)
            s->trains[s->group[i]] = split;
    }
    bool found = out->split >= 0;
    for (int64_t i = 0; i < s->rows; i++) {
        if (s->role[i] != SPLIT_SCORED || s->trains[s->group[i]] != split)
            continue;
        count_row(s, i);
        if (out->split < 0 && is_counted(s, i)) {
            out->split = split;
            out->scored = i;
        }
    }
    for (int64_t i = 0; i < s->rows && !found && out->split >= 0; i++) {
        if (s->group[i] == s->group[out->scored] && s->role[i] == SPLIT_TRAINS) {
            out->trained = i;
            break;
        }
    }
    return STATUS_OK;
}

static enum status look(struct leak_search *s)
{
    size_t n = (size_t)s->rows;
    if (s->plan->partition) {
        TRY(mem_alloc_raw(n, sizeof *s->fold, "folds", &s->fold));
        TRY(mem_alloc_raw(n, sizeof *s->only, "folds of groups", &s->only));
        for (int64_t r = 0; r < s->plan->repeats; r++)
            TRY(look_at_repeat(s, r));
        return STATUS_OK;
    }
    TRY(mem_alloc_raw(n, sizeof *s->role, "roles of rows", &s->role));
    TRY(mem_alloc_raw(n, sizeof *s->trains, "groups that train", &s->trains));
    for (size_t i = 0; i < n; i++)
        s->trains[i] = -1;
    for (int64_t split = 0; split < s->plan->count; split++)
        TRY(look_at_split(s, split));
    return STATUS_OK;
}

enum status split_leak_find(struct split_plan *plan, const int32_t *group, const uint8_t *skip,
                            uint8_t *leaks, struct split_leak *out)
{
    struct leak_search s = {.plan = plan,
                            .group = group,
                            .skip = skip,
                            .leaks = leaks,
                            .out = out,
                            .rows = plan->o.rows};
    uint8_t *own = NULL;
    bool several = false;
    enum status st = STATUS_OK;
    *out = (struct split_leak){.split = -1, .scored = -1, .trained = -1};
    for (int64_t i = 0; i < s.rows; i++) {
        if (group[i] < 0 || group[i] >= s.rows)
            return status_fail(STATUS_ARG, "row %lld is of group %d, wanted 0 to %lld",
                               (long long)i, group[i], (long long)s.rows - 1);
    }
    if (leaks == NULL) {
        TRY(mem_alloc_raw((size_t)s.rows, 1, "rows that leak", &own));
        s.leaks = own;
    }
    memset(s.leaks, 0, (size_t)s.rows);
    TRY_GOTO(done, mem_alloc((size_t)s.rows, sizeof *s.only, "sizes of groups", &s.only));
    for (int64_t i = 0; i < s.rows && !several; i++)
        several = s.only[group[i]]++ > 0;
    mem_free(s.only);
    s.only = NULL;
    if (several) /* else no split needs to be cut */
        st = look(&s);
done:
    mem_free(s.fold);
    mem_free(s.only);
    mem_free(s.role);
    mem_free(s.trains);
    mem_free(own);
    return st;
}
