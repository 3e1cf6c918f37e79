/* test_fold.c - folds equal scikit-learn's where it decides, and are sound where we do. */
#include <stdlib.h>
#include <string.h>

#include "data/fold.h"
#include "tests/support/support.h"

#define MOST_ROWS 2000

static int32_t label[MOST_ROWS], group[MOST_ROWS], wanted[MOST_ROWS], fold[MOST_ROWS], again[MOST_ROWS];

static void read_line(FILE *f, int32_t *out, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        assert_int_equal(fscanf(f, "%d", &out[i]), 1);
}

static int most(const int32_t *p, int64_t n)
{
    int32_t found = 0;
    for (int64_t i = 0; i < n; i++)
        found = p[i] > found ? p[i] : found;
    return found;
}

static void test_equals_scikit_learn(void **state)
{
    static const char *const kinds[] = {"kfold", "stratified", "group", "stratified_group"};
    char kind[32];
    int folds, cases = 0;
    long long rows;
    FILE *f = fopen(TEST_DIR "/golden/folds.txt", "r");
    (void)state;
    assert_non_null(f);
    for (; fscanf(f, "%31s %d %lld", kind, &folds, &rows) == 3; cases++) {
        struct fold_opts o = {.folds = folds, .rows = rows, .label = label, .group = group};
        o.allow_missing_class = true;
        assert_true(rows <= MOST_ROWS);
        read_line(f, label, rows);
        read_line(f, group, rows);
        read_line(f, wanted, rows);
        for (int k = 0; k < 4; k++) {
            if (strcmp(kind, kinds[k]) == 0)
                o.kind = (enum fold_kind)k;
        }
        o.classes = most(label, rows) + 1;
        assert_ok(fold_assign(&o, fold));
        for (int64_t i = 0; i < rows; i++) {
            if (fold[i] != wanted[i])
                fail_msg("case %d (%s, %d folds, %lld rows): row %lld is in fold %d, scikit-learn says %d", cases, kind,
                         folds, rows, (long long)i, fold[i], wanted[i]);
        }
    }
    assert_int_equal(cases, 36);
    (void)fclose(f);
}

static void count(const struct fold_opts *o, int32_t class, int64_t *out)
{
    memset(out, 0, (size_t)o->folds * sizeof *out);
    for (int64_t i = 0; i < o->rows; i++) {
        assert_in_range(fold[i], 0, o->folds - 1);
        out[fold[i]] += class < 0 || o->label[i] == class;
    }
}

/* N6: 1,375 and 3 essays in 4 folds; scikit-learn leaves fold 2 without a positive, and its AUC undefined. */
static void test_rare_class_is_refused_with_the_table(void **state)
{
    static const char *const names[] = {"human", "generated"};
    struct fold_opts o = {.kind = FOLD_STRATIFIED, .folds = 4, .seed = 123, .rows = 1378, .label = label, .classes = 2,
                          .names = names};
    int64_t n[4];
    (void)state;
    memset(label, 0, sizeof label);
    label[5] = label[700] = label[1300] = 1;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        o.shuffle = shuffle != 0;
        o.allow_missing_class = false;
        assert_fails(fold_assign(&o, fold), STATUS_DATA,
                     "class \"generated\" has 3 rows, and fold 2 of 4 has none of them");
        support_assert_contains(status_message(), "class          rows     fold 0     fold 1     fold 2     fold 3\n"
                                                  "generated         3          1          1          0          1");
        o.allow_missing_class = true;
        assert_ok(fold_assign(&o, fold));
        count(&o, -1, n);
        assert_true(n[0] == 345 && n[1] == 345 && n[2] == 344 && n[3] == 344);
        count(&o, 1, n);
        assert_true(n[0] == 1 && n[1] == 1 && n[2] == 0 && n[3] == 1);
    }
    struct str table = {0};
    assert_ok(fold_table(&o, fold, &table));
    support_assert_contains(table.p, "human          1375        344        344        344        343\n");
    support_assert_contains(table.p, "all            1378        345        345        344        344\n");
    str_release(&table);
}

/* A class of the model that the data does not have is no fold's fault. */
static void test_class_without_rows_is_no_failure(void **state)
{
    struct fold_opts o = {.kind = FOLD_STRATIFIED, .folds = 2, .rows = 20, .label = label, .classes = 3};
    (void)state;
    for (int i = 0; i < 20; i++)
        label[i] = i % 2 * 2;
    assert_ok(fold_assign(&o, fold));
}

static void fill(int64_t rows, int classes, int groups)
{
    for (int64_t i = 0; i < rows; i++) {
        label[i] = (int32_t)(i * 7919 % 101 * classes / 101);
        group[i] = (int32_t)(i * 104729 % 1009 % groups);
    }
}

static void test_shuffle_keeps_sizes_and_follows_the_seed(void **state)
{
    struct fold_opts o = {.folds = 5, .rows = 503, .label = label, .classes = 4, .group = group};
    (void)state;
    fill(503, 4, 41);
    for (int kind = FOLD_KFOLD; kind <= FOLD_STRATIFIED_GROUP; kind++) {
        int64_t plain[5][5], shuffled[5];
        int moved = 0, differ = 0;
        o.kind = (enum fold_kind)kind;
        o.shuffle = false;
        assert_ok(fold_assign(&o, fold));
        for (int class = -1; class < 4; class++)
            count(&o, class, plain[class + 1]);
        memcpy(wanted, fold, sizeof wanted);
        o.shuffle = true;
        o.seed = 7;
        assert_ok(fold_assign(&o, fold));
        assert_ok(fold_assign(&o, again));
        assert_memory_equal(fold, again, 503 * sizeof *fold);
        for (int i = 0; i < 503; i++)
            moved += fold[i] != wanted[i];
        for (int class = -1; class < 4 && kind <= FOLD_STRATIFIED; class++) {
            if (kind == FOLD_KFOLD && class >= 0)
                continue;
            count(&o, class, shuffled);
            assert_memory_equal(shuffled, plain[class + 1], sizeof shuffled);
        }
        for (int i = 0; i < 503 && kind >= FOLD_GROUP; i++) {
            for (int j = 0; j < i; j++)
                assert_true(group[i] != group[j] || fold[i] == fold[j]);
        }
        o.seed = 8;
        assert_ok(fold_assign(&o, again));
        for (int i = 0; i < 503; i++)
            differ += fold[i] != again[i];
        assert_true(moved > 100);
        assert_true(differ > 100);
    }
}

/* The permutation is part of stored results: these numbers may not change. */
static void test_shuffled_folds_are_pinned(void **state)
{
    static const int32_t pinned[] = {2, 1, 1, 0, 0, 2, 0, 2, 0, 1, 2, 1}; /* from a Philox in Python */
    struct fold_opts o = {.kind = FOLD_STRATIFIED, .folds = 3, .rows = 12, .label = label, .classes = 2, .seed = 42,
                          .shuffle = true};
    (void)state;
    for (int i = 0; i < 12; i++)
        label[i] = i % 3 == 0;
    assert_ok(fold_assign(&o, fold));
    for (int i = 0; i < 12; i++)
        assert_int_equal(fold[i], pinned[i]);
}

static void test_holdout_shares_classes_as_scikit_learn(void **state)
{
    /* 37.5, 24.75 and 12.75 of 75 rows train: floors 37, 24, 12, and the two left go to the remainders of .75 */
    struct fold_opts o = {.kind = FOLD_HOLDOUT, .folds = 1, .rows = 100, .label = label, .classes = 3, .holdout = 0.25};
    (void)state;
    for (int i = 0; i < 100; i++)
        label[i] = i < 50 ? 0 : i < 83 ? 1 : 2;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        int64_t held[3] = {0};
        o.shuffle = shuffle != 0;
        assert_ok(fold_assign(&o, fold));
        for (int i = 0; i < 100; i++) {
            assert_true(fold[i] == 0 || fold[i] == -1);
            held[label[i]] += fold[i] == 0;
            if (!o.shuffle && label[i] == 0)
                assert_int_equal(fold[i], i < 37 ? -1 : 0);
        }
        assert_int_equal(held[0], 13);
        assert_int_equal(held[1], 8);
        assert_int_equal(held[2], 4);
    }
    int64_t held[2] = {0};
    for (int i = 0; i < 100; i++) /* 37.5 and 37.5: the tie goes to class 0 */
        again[i] = i % 2;
    o.label = again;
    o.classes = 2;
    assert_ok(fold_assign(&o, fold));
    for (int i = 0; i < 100; i++)
        held[again[i]] += fold[i] == 0;
    assert_true(held[0] == 12 && held[1] == 13);
    o.label = label;
    o.classes = 3;
    struct str table = {0};
    assert_ok(fold_table(&o, fold, &table));
    support_assert_contains(table.p, "trains  validates\n");
    support_assert_contains(table.p, "all         100         75         25\n");
    str_release(&table);
    label[0] = 2;
    for (int i = 50; i < 83; i++)
        label[i] = 2;
    label[99] = 1; /* one row cannot be on both sides */
    assert_fails(fold_assign(&o, fold), STATUS_DATA, "class \"1\" has 1 rows, and none of them validates");
    o.label = NULL;
    o.shuffle = false;
    assert_ok(fold_assign(&o, fold));
    for (int i = 0; i < 100; i++)
        assert_int_equal(fold[i], i < 75 ? -1 : 0);
}

static void test_holdout_takes_whole_groups(void **state)
{
    struct fold_opts o = {.kind = FOLD_HOLDOUT, .folds = 1, .rows = 900, .classes = 3, .group = group, .holdout = 0.2,
                          .shuffle = true};
    (void)state;
    fill(900, 3, 60);
    for (int labelled = 0; labelled < 2; labelled++) {
        int64_t held[4] = {0}, all[4] = {0};
        o.label = labelled ? label : NULL;
        assert_ok(fold_assign(&o, fold));
        for (int i = 0; i < 900; i++) {
            held[label[i]] += fold[i] == 0;
            held[3] += fold[i] == 0;
            all[label[i]]++;
            for (int j = 0; j < i; j++)
                assert_true(group[i] != group[j] || fold[i] == fold[j]);
        }
        assert_in_range(held[3], 165, 195);
        for (int class = 0; class < 3 && labelled; class++)
            support_assert_near((double)held[class] / (double)all[class], 0.2, 0.03, "share of a class");
    }
    for (int i = 0; i < 900; i++)
        group[i] = i < 500; /* two groups, both far above the share: the smaller validates */
    o.label = NULL;
    assert_ok(fold_assign(&o, fold));
    for (int i = 0; i < 900; i++)
        assert_int_equal(fold[i], i < 500 ? -1 : 0);
    memset(group, 0, sizeof group);
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "only 1 groups");
}

/* Group numbers of a part of the data (nested splits) have gaps. */
static void test_group_numbers_may_have_gaps(void **state)
{
    struct fold_opts o = {.kind = FOLD_GROUP, .folds = 3, .rows = 100, .group = group};
    (void)state;
    fill(100, 2, 10);
    assert_ok(fold_assign(&o, fold));
    for (int i = 0; i < 100; i++)
        group[i] = group[i] * 1000 + 7;
    assert_ok(fold_assign(&o, again));
    assert_memory_equal(fold, again, 100 * sizeof *fold);
}

static void test_what_cannot_be_split_is_refused(void **state)
{
    struct fold_opts o = {.kind = FOLD_KFOLD, .folds = 11, .rows = 10};
    (void)state;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "only 10 rows");
    o.folds = 1;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "at least 2");
    o.folds = 2;
    o.kind = FOLD_STRATIFIED;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "need classes");
    o.kind = FOLD_GROUP;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "group column");
    o.kind = FOLD_STRATIFIED_GROUP;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "need classes");
    o.kind = FOLD_HOLDOUT;
    o.holdout = 1;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "between 0 and 1");
    o.holdout = 0.99;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "no row to train on");
    o.kind = FOLD_STRATIFIED;
    o.label = label;
    o.classes = 2;
    memset(label, 0, sizeof label);
    label[3] = 2;
    assert_fails(fold_assign(&o, fold), STATUS_ARG, "row 3 has class 2");
    o.rows = 0;
    assert_fails(fold_assign(&o, fold), STATUS_CONFIG, "no rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_scikit_learn),
        cmocka_unit_test(test_rare_class_is_refused_with_the_table),
        cmocka_unit_test(test_class_without_rows_is_no_failure),
        cmocka_unit_test(test_shuffle_keeps_sizes_and_follows_the_seed),
        cmocka_unit_test(test_shuffled_folds_are_pinned),
        cmocka_unit_test(test_holdout_shares_classes_as_scikit_learn),
        cmocka_unit_test(test_holdout_takes_whole_groups),
        cmocka_unit_test(test_group_numbers_may_have_gaps),
        cmocka_unit_test(test_what_cannot_be_split_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
