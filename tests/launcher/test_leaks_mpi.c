/*
 * test_leaks_mpi.c - copies on both sides of folds and of two sets: counted, told, refused, kept together; on any ranks.
 *
 * ranks: 1 3
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "launcher/leaks.h"
#include "tests/comm/mpi_main.h"
#include "tests/data/id_rows.h"

enum { ROWS = 60, LENGTH = 40 };

static int32_t word(uint64_t i)
{
    return ID_FIRST + (int32_t)random_below(3, i, 5000);
}

static void row_of(int i, int32_t *ids)
{
    for (int k = 0; k < LENGTH; k++)
        ids[k] = word((uint64_t)(i * LENGTH + k));
}

/* Rows `from` to `to`, each different; then copies of rows `equal`, and of rows `near` with another last id. */
static struct dataset *write_rows(const char *name, int from, int to, const int *equal, int equals, const int *near,
                                  int nears)
{
    struct dataset_part part = {0};
    struct dataset *ds;
    char path[256];
    int32_t ids[LENGTH];
    for (int i = from; i < to; i++) {
        row_of(i, ids);
        assert_ok(id_rows_add(&part, ids, LENGTH));
    }
    for (int i = 0; i < equals; i++) {
        row_of(equal[i], ids);
        assert_ok(id_rows_add(&part, ids, LENGTH));
    }
    for (int i = 0; i < nears; i++) {
        row_of(near[i], ids);
        ids[LENGTH - 1] = ID_FIRST + 6000;
        assert_ok(id_rows_add(&part, ids, LENGTH));
    }
    (void)snprintf(path, sizeof path, "%s/%s.h5", support_folder(), name);
    assert_ok(id_rows_write(path, &part));
    dataset_part_release(&part);
    assert_ok(dataset_open(&(struct dataset_opts){.path = path, .max_length = 512}, &ds));
    return ds;
}

static struct split_plan *plan_of(enum split_kind kind, int64_t rows, const int32_t *group, int folds)
{
    struct split_plan *plan;
    struct split_opts o = {.kind = kind, .rows = rows, .folds = folds, .repeats = 1, .test_share = 0.25, .p = 2,
                           .bins = 2, .group = group};
    assert_ok(split_plan_open(&o, &plan));
    return plan;
}

static void says(const struct leaks *leaks, const struct split_plan *plan, struct dataset *ds, const char *wanted)
{
    struct str text = {0};
    assert_ok(leaks_say(leaks, plan, ds, &text));
    assert_string_equal(text.p, wanted);
    str_release(&text);
}

static void test_none(void **state)
{
    struct dataset *ds = write_rows("none", 0, ROWS, NULL, 0, NULL, 0);
    struct split_plan *plan = plan_of(SPLIT_KFOLD, ROWS, NULL, 4);
    struct leaks leaks;
    (void)state;
    assert_ok(leaks_find(world, ds, 0.8, &leaks));
    assert_ok(leaks_count(&leaks, plan, ds));
    assert_false(leaks_any(&leaks));
    says(&leaks, plan, ds, "duplicates: none");
    assert_ok(leaks_refuse(&leaks, plan, ds));
    leaks_release(&leaks);
    split_plan_close(plan);
    dataset_close(ds);
}

/* Unshuffled 4 folds of 64 rows: 0-15, 16-31, 32-47, 48-63. */
static void test_across_folds(void **state)
{
    static const int equal[] = {17, 50}, near[] = {2, 40};
    struct dataset *ds = write_rows("across", 0, ROWS, equal, 2, near, 2);
    struct split_plan *plan = plan_of(SPLIT_KFOLD, ROWS + 4, NULL, 4);
    enum split_kind kind = SPLIT_KFOLD;
    struct leaks leaks;
    int32_t *group;
    char wanted[512];
    json_t *json, *expected;
    (void)state;
    assert_ok(leaks_find(world, ds, 0.8, &leaks));
    assert_ok(leaks_count(&leaks, plan, ds));
    assert_int_equal(leaks.equal.rows, 2); /* 17 and its copy; 50 and its copy are of one fold */
    assert_int_equal(leaks.near.rows, 4);
    support_assert_near(leaks.likeness, 38.0 / 42.0, 0.0, "similarity"); /* of 40 shingles each two differ */
    (void)snprintf(wanted, sizeof wanted,
                   "duplicates: 2 of 64 rows are scored by a model that trained on an equal row (first: row 17, equal to row "
                   "60, in fold 1), 4 more on a nearly equal one (first: row 2, 0.90 like row 62, in fold 0)");
    says(&leaks, plan, ds, wanted);
    assert_fails(leaks_refuse(&leaks, plan, ds), STATUS_DATA, wanted);
    assert_fails(leaks_refuse(&leaks, plan, ds), STATUS_DATA, "cv.duplicates=group");
    json = leaks_json(&leaks);
    expected = json_pack("{s:f, s:i, s:i, s:i, s:i}", "similarity", 0.8, "copies", 2, "near_copies", 2, "scored_on_copies",
                         2, "scored_on_near_copies", 4);
    assert_true(json_equal(json, expected));
    json_decref(json);
    json_decref(expected);
    split_plan_close(plan);

    assert_ok(leaks_group(&leaks, NULL, &kind, &group)); /* kept together */
    assert_int_equal(kind, SPLIT_GROUP);
    plan = plan_of(kind, ROWS + 4, group, 4);
    assert_ok(leaks_count(&leaks, plan, ds));
    assert_false(leaks_any(&leaks));
    assert_true(isnan(leaks.likeness));
    says(&leaks, plan, ds, "duplicates: 2 rows equal an earlier one, 2 more nearly (similarity 0.8); no model is scored on a "
                           "copy of what it trained on");
    split_plan_close(plan);
    mem_free(group);
    leaks_release(&leaks);

    assert_ok(leaks_find(world, ds, 1.0, &leaks)); /* equal rows only */
    plan = plan_of(SPLIT_KFOLD, ROWS + 4, NULL, 4);
    assert_ok(leaks_count(&leaks, plan, ds));
    says(&leaks, plan, ds, "duplicates: 2 of 64 rows are scored by a model that trained on an equal row (first: row 17, equal "
                           "to row 60, in fold 1)");
    split_plan_close(plan);
    leaks_release(&leaks);
    dataset_close(ds);
}

static void test_near_alone(void **state)
{
    static const int near[] = {3};
    struct dataset *ds = write_rows("near", 0, 7, NULL, 0, near, 1);
    struct split_plan *plan = plan_of(SPLIT_HOLDOUT, 8, NULL, 1); /* the last rows are scored */
    struct leaks leaks;
    (void)state;
    assert_ok(leaks_find(world, ds, 0.9, &leaks));
    assert_ok(leaks_count(&leaks, plan, ds));
    says(&leaks, plan, ds, "duplicates: 1 of 8 rows is scored by a model that trained on a nearly equal row (first: row 7, "
                           "0.90 like row 3)");
    split_plan_close(plan);
    leaks_release(&leaks);
    dataset_close(ds);
}

static void test_between_sets(void **state)
{
    static const int equal[] = {5, 9, 90}, near[] = {8};
    struct dataset *trains = write_rows("trains", 0, 20, NULL, 0, NULL, 0), *other = write_rows("other", 30, 40, NULL, 0, NULL, 0),
                   *scored = write_rows("scored", 80, 92, equal, 3, near, 1);
    struct leaks leaks;
    struct str text = {0};
    (void)state;
    assert_ok(leaks_between(world, trains, scored, 0.8, &leaks));
    assert_ok(leaks_between_say(&leaks, trains, "data.train", scored, "data.eval", &text));
    assert_string_equal(text.p, "duplicates: 2 of 16 rows of data.eval equal a row of data.train (first: row 12, equal to row "
                                "5), 1 more nearly (first: row 15, 0.90 like row 8)");
    assert_int_equal(leaks.found.copies, 3); /* and 90, which scored has twice */
    leaks_release(&leaks);
    text.n = 0;
    assert_ok(leaks_between(world, trains, other, 0.8, &leaks));
    assert_ok(leaks_between_say(&leaks, trains, "data.train", other, "data.test", &text));
    assert_string_equal(text.p, "duplicates: no row of data.test equals one of data.train or nearly does");
    leaks_release(&leaks);
    str_release(&text);
    dataset_close(trains);
    dataset_close(other);
    dataset_close(scored);
}

static void test_kinds(void **state)
{
    int32_t same[] = {0, 1, 0, 3}, given[] = {0, 1, 2, 2};
    struct leaks leaks = {.similarity = 1.0, .found = {.rows = 4, .same = same, .like = same}};
    int32_t *group;
    (void)state;
    for (int k = 0; k < SPLIT_KINDS; k++) {
        enum split_kind kind = (enum split_kind)k, was = kind;
        if (k == SPLIT_COLUMN || k == SPLIT_LEAVE_P_OUT || k == SPLIT_ROLLING || k == SPLIT_BLOCKED) {
            assert_fails(leaks_group(&leaks, given, &kind, &group), STATUS_CONFIG, split_kind_name(kind));
            assert_null(group);
            continue;
        }
        assert_ok(leaks_group(&leaks, given, &kind, &group));
        bool heeds = kind == was; /* the data's groups */
        assert_int_equal(heeds, was != SPLIT_KFOLD && was != SPLIT_STRATIFIED && was != SPLIT_LEAVE_ONE_OUT);
        assert_memory_equal(group, heeds ? ((int32_t[]){0, 1, 0, 0}) : ((int32_t[]){0, 1, 0, 2}), sizeof given);
        mem_free(group);
    }
}

/* Rank 0 alone reads the tokens: its failure is everyone's. */
static void test_failure_is_agreed(void **state)
{
    struct dataset *ds = write_rows("fails", 0, 5, NULL, 0, NULL, 0);
    struct leaks leaks;
    (void)state;
    assert_fails(leaks_find(world, ds, 0.3, &leaks), STATUS_ARG, "wanted 0.5 to 1");
    assert_null(leaks.found.same);
    dataset_close(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_none),         MPI_TEST(test_across_folds), MPI_TEST(test_near_alone),
        MPI_TEST(test_between_sets), MPI_TEST(test_kinds),        MPI_TEST(test_failure_is_agreed),
    };
    RUN_MPI_TESTS(tests);
}
