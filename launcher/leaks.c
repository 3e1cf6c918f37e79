/* leaks.c - see leaks.h. */
#include "launcher/leaks.h"

#include <math.h>

#include "base/mem.h"

/* ---- finding ---- */

static void mark(void)
{
    comm_mark(-1, "looking for copies");
}

static enum status find_on_root(struct comm *comm, const struct duplicates_opts *opts,
                                struct duplicates *found)
{
    bool root = comm_rank(comm) == 0;
    int64_t counts[4];
    enum status st = root ? duplicates_find(opts, found) : STATUS_OK;
    TRY(comm_wait(comm, "waiting for rank 0")); /* its threads may have this rank's core */
    TRY(comm_agree(comm, st));
    if (comm_size(comm) == 1)
        return STATUS_OK;
    counts[0] = found->rows;
    counts[1] = found->copies;
    counts[2] = found->near_copies;
    counts[3] = found->compared;
    TRY(comm_broadcast(comm, counts, (int64_t)sizeof counts, 0));
    size_t n = (size_t)counts[0];
    if (!root) {
        *found = (struct duplicates){.rows = counts[0],
                                     .copies = counts[1],
                                     .near_copies = counts[2],
                                     .compared = counts[3]};
        st = mem_alloc_raw(n, sizeof *found->same, "equal rows", &found->same);
        if (st == STATUS_OK)
            st = mem_alloc_raw(n, sizeof *found->like, "nearly equal rows", &found->like);
    }
    TRY(comm_agree(comm, st));
    TRY(comm_broadcast(comm, found->same, (int64_t)(n * sizeof *found->same), 0));
    return comm_broadcast(comm, found->like, (int64_t)(n * sizeof *found->like), 0);
}

static enum status find(struct comm *comm, struct dataset *const *sets, int count,
                        double similarity, struct leaks *out)
{
    const struct split_leak none = {.split = -1, .scored = -1, .trained = -1};
    struct duplicates_opts opts = {.sets = sets, .count = count, .near = similarity, .mark = mark};
    *out = (struct leaks){.similarity = similarity, .equal = none, .near = none, .likeness = NAN};
    enum status st = find_on_root(comm, &opts, &out->found);
    if (st != STATUS_OK)
        leaks_release(out);
    return st;
}

enum status leaks_find(struct comm *comm, struct dataset *ds, double similarity, struct leaks *out)
{
    return find(comm, &ds, 1, similarity, out);
}

void leaks_release(struct leaks *leaks)
{
    duplicates_release(&leaks->found);
    *leaks = (struct leaks){0};
}

/* ---- groups ---- */

/* The kind that keeps groups together, or SPLIT_KINDS; *heeds: kind itself does where groups are
 * given. */
static enum split_kind grouped(enum split_kind kind, bool *heeds)
{
    *heeds = false;
    switch (kind) {
    case SPLIT_KFOLD:
        return SPLIT_GROUP;
    case SPLIT_STRATIFIED:
        return SPLIT_STRATIFIED_GROUP;
    case SPLIT_LEAVE_ONE_OUT:
        return SPLIT_LEAVE_ONE_GROUP_OUT;
    case SPLIT_GROUP:
    case SPLIT_STRATIFIED_GROUP:
    case SPLIT_BINS:
    case SPLIT_MULTI_LABEL:
    case SPLIT_LEAVE_ONE_GROUP_OUT:
    case SPLIT_HOLDOUT:
    case SPLIT_SHUFFLE:
    case SPLIT_STRATIFIED_SHUFFLE:
        *heeds = true;
        return kind;
    case SPLIT_COLUMN:
    case SPLIT_LEAVE_P_OUT:
    case SPLIT_ROLLING:
    case SPLIT_BLOCKED:
    case SPLIT_KINDS:
        break;
    }
    return SPLIT_KINDS;
}

enum status leaks_group(const struct leaks *leaks, const int32_t *given, enum split_kind *kind,
                        int32_t **group)
{
    int32_t count;
    bool heeds;
    enum split_kind to = grouped(*kind, &heeds);
    *group = NULL;
    if (to == SPLIT_KINDS)
        return status_fail(STATUS_CONFIG,
                           "cv.duplicates=group cannot keep copies in one fold under cv.kind=%s, "
                           "which puts rows where they belong by other rules",
                           split_kind_name(*kind));
    TRY(mem_alloc_raw((size_t)leaks->found.rows, sizeof **group, "groups of copies", group));
    enum status st = duplicates_groups(&leaks->found, heeds ? given : NULL, *group, &count);
    if (st != STATUS_OK) {
        mem_free(*group);
        *group = NULL;
        return st;
    }
    *kind = to;
    return STATUS_OK;
}

/* ---- counting ---- */

enum status leaks_count(struct leaks *leaks, struct split_plan *plan, struct dataset *ds)
{
    struct duplicates_opts opts = {.sets = &ds, .count = 1, .near = leaks->similarity};
    uint8_t *equal;
    enum status st;
    leaks->likeness = NAN;
    TRY(mem_alloc((size_t)leaks->found.rows, 1, "rows that leak", &equal));
    TRY_GOTO(done, split_leak_find(plan, leaks->found.same, NULL, equal, &leaks->equal));
    TRY_GOTO(done, split_leak_find(plan, leaks->found.like, equal, NULL, &leaks->near));
    if (leaks->near.split >= 0)
        TRY_GOTO(done, duplicates_similarity(&opts, leaks->near.scored, leaks->near.trained,
                                             &leaks->likeness));
done:
    mem_free(equal);
    return st;
}

bool leaks_any(const struct leaks *leaks)
{
    return leaks->equal.rows > 0 || leaks->near.rows > 0;
}

/* Rows of the second set that have a row of the first before them in first[] (same[] or like[]);
 * those that have one in same[] are left out. */
static void count_between(const int32_t *first, int64_t trains, int64_t rows, const int32_t *same,
                          struct split_leak *out)
{
    for (int64_t i = trains; i < rows; i++) {
        if (first[i] >= trains || (same != NULL && same[i] < trains))
            continue;
        if (out->rows++ > 0)
            continue;
        out->split = 0;
        out->scored = i - trains;
        out->trained = first[i];
    }
}

enum status leaks_between(struct comm *comm, struct dataset *trains, struct dataset *scored,
                          double similarity, struct leaks *out)
{
    struct dataset *sets[2] = {trains, scored};
    struct duplicates_opts opts = {.sets = sets, .count = 2, .near = similarity};
    struct dataset_info info;
    enum status st = STATUS_OK;
    TRY(find(comm, sets, 2, similarity, out));
    dataset_get_info(trains, &info);
    count_between(out->found.same, info.rows, out->found.rows, NULL, &out->equal);
    count_between(out->found.like, info.rows, out->found.rows, out->found.same, &out->near);
    if (out->near.rows > 0)
        st = duplicates_similarity(&opts, out->near.trained, info.rows + out->near.scored,
                                   &out->likeness);
    st = comm_agree(comm, st);
    if (st != STATUS_OK)
        leaks_release(out);
    return st;
}

/* ---- telling ---- */

static enum status say_row(struct dataset *ds, int64_t row, struct str *out)
{
    struct dataset_info info;
    struct str id = {0};
    dataset_get_info(ds, &info);
    enum status st = str_addf(out, "row %lld", (long long)row);
    if (st == STATUS_OK && info.has_ids)
        st = dataset_row_id(ds, row, &id);
    if (st == STATUS_OK && id.n > 0)
        st = str_addf(out, " (%.*s)", id.n < 100 ? (int)id.n : 100, id.p);
    str_release(&id);
    return st;
}

static enum status say_split(const struct split_plan *plan, int64_t split, struct str *out)
{
    struct split_info info;
    struct split_place place;
    split_plan_info(plan, &info);
    split_plan_place(plan, split, &place);
    if (info.kind == SPLIT_HOLDOUT)
        return STATUS_OK;
    TRY(str_addf(out, ", in fold %lld", (long long)place.fold));
    return info.repeats > 1 ? str_addf(out, " of repeat %lld", (long long)place.repeat) : STATUS_OK;
}

/* "(first: row 17, equal to row 3, in fold 0)"; plan NULL: no fold. */
static enum status say_first(const struct split_leak *leak, double likeness, struct dataset *scored,
                             struct dataset *trains, const struct split_plan *plan, struct str *out)
{
    TRY(str_addf(out, " (first: "));
    TRY(say_row(scored, leak->scored, out));
    if (isnan(likeness))
        TRY(str_addf(out, ", equal to "));
    else
        TRY(str_addf(out, ", %.2f like ", likeness));
    TRY(say_row(trains, leak->trained, out));
    if (plan != NULL)
        TRY(say_split(plan, leak->split, out));
    return str_addf(out, ")");
}

static const char *plural(int64_t n)
{
    return n == 1 ? "" : "s";
}

/* Copies that no split tears apart. */
static enum status say_copies(const struct leaks *leaks, struct str *out)
{
    const struct duplicates *d = &leaks->found;
    if (d->copies == 0 && d->near_copies == 0)
        return str_addf(out, "duplicates: none");
    TRY(str_addf(out, "duplicates: %lld row%s equal%s an earlier one", (long long)d->copies,
                 plural(d->copies), d->copies == 1 ? "s" : ""));
    if (leaks->similarity < 1.0)
        TRY(str_addf(out, ", %lld more nearly (similarity %g)", (long long)d->near_copies,
                     leaks->similarity));
    return str_addf(out, "; no model is scored on a copy of what it trained on");
}

enum status leaks_say(const struct leaks *leaks, const struct split_plan *plan, struct dataset *ds,
                      struct str *out)
{
    const struct split_leak *equal = &leaks->equal, *near = &leaks->near;
    if (!leaks_any(leaks))
        return say_copies(leaks, out);
    if (equal->rows == 0) {
        TRY(str_addf(out,
                     "duplicates: %lld of %lld rows %s scored by a model that trained on a nearly "
                     "equal row",
                     (long long)near->rows, (long long)leaks->found.rows,
                     near->rows == 1 ? "is" : "are"));
        return say_first(near, leaks->likeness, ds, ds, plan, out);
    }
    TRY(str_addf(
        out, "duplicates: %lld of %lld rows %s scored by a model that trained on an equal row",
        (long long)equal->rows, (long long)leaks->found.rows, equal->rows == 1 ? "is" : "are"));
    TRY(say_first(equal, NAN, ds, ds, plan, out));
    if (near->rows == 0)
        return STATUS_OK;
    TRY(str_addf(out, ", %lld more on a nearly equal one", (long long)near->rows));
    return say_first(near, leaks->likeness, ds, ds, plan, out);
}

enum status leaks_refuse(const struct leaks *leaks, const struct split_plan *plan,
                         struct dataset *ds)
{
    struct str text = {0};
    if (!leaks_any(leaks))
        return STATUS_OK;
    enum status st = leaks_say(leaks, plan, ds, &text);
    if (st == STATUS_OK)
        st = status_fail(STATUS_DATA,
                         "%s; cv.duplicates=group keeps copies in one fold, report goes on",
                         text.p);
    str_release(&text);
    return st;
}

json_t *leaks_json(const struct leaks *leaks)
{
    return json_pack("{s:f, s:I, s:I, s:I, s:I}", "similarity", leaks->similarity, "copies",
                     (json_int_t)leaks->found.copies, "near_copies",
                     (json_int_t)leaks->found.near_copies, "scored_on_copies",
                     (json_int_t)leaks->equal.rows, "scored_on_near_copies",
                     (json_int_t)leaks->near.rows);
}

enum status leaks_between_say(const struct leaks *leaks, struct dataset *trains,
                              const char *trains_name, struct dataset *scored,
                              const char *scored_name, struct str *out)
{
    const struct split_leak *equal = &leaks->equal, *near = &leaks->near;
    struct dataset_info info;
    dataset_get_info(scored, &info);
    if (!leaks_any(leaks))
        return str_addf(out, "duplicates: no row of %s equals one of %s%s", scored_name,
                        trains_name, leaks->similarity < 1.0 ? " or nearly does" : "");
    TRY(str_addf(out, "duplicates: %lld of %lld rows of %s equal%s a row of %s",
                 (long long)equal->rows, (long long)info.rows, scored_name,
                 equal->rows == 1 ? "s" : "", trains_name));
    if (equal->rows > 0)
        TRY(say_first(equal, NAN, scored, trains, NULL, out));
    if (near->rows == 0)
        return STATUS_OK;
    TRY(str_addf(out, ", %lld%s nearly", (long long)near->rows, equal->rows > 0 ? " more" : ""));
    return say_first(near, leaks->likeness, scored, trains, NULL, out);
}
