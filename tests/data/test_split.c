/* test_split.c - plans of splits: scikit-learn's splits row for row, repeats, leaks, refusals, memory. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "data/fold.h"
#include "data/fold_labels.h"
#include "data/split.h"
#include "tests/support/support.h"

enum { MOST = 2000 };

static int32_t label[MOST], group[MOST], fold_of[MOST], fold[MOST], again[MOST];
static float value[MOST * 8];
static double when[MOST];
static const char *names[MOST];
static uint8_t role[MOST];

static struct split_plan *open_plan(const struct split_opts *o)
{
    struct split_plan *plan;
    assert_ok(split_plan_open(o, &plan));
    return plan;
}

static struct split_opts opts_of(enum split_kind kind, int64_t rows, int folds)
{
    return (struct split_opts){.kind = kind, .rows = rows, .folds = folds, .repeats = 1, .test_share = 0.2, .p = 2,
                               .bins = 10, .shuffle = true, .seed = 42};
}

static void fails(const struct split_opts *o, enum status wanted, const char *sentence)
{
    struct split_plan *plan = (struct split_plan *)1;
    assert_fails(split_plan_open(o, &plan), wanted, sentence);
    assert_null(plan);
}

/* ---- scikit-learn ---- */

static int64_t number(const json_t *of, const char *key)
{
    return json_integer_value(json_object_get(of, key));
}

static void read_columns(const json_t *of, struct split_opts *o)
{
    json_t *list = json_object_get(of, "label"), *item;
    size_t i;
    int most = 0;
    json_array_foreach(list, i, item) {
        label[i] = (int32_t)json_integer_value(item);
        most = label[i] > most ? label[i] : most;
    }
    o->label = list == NULL ? NULL : label;
    o->classes = most + 1;
    json_array_foreach(json_object_get(of, "group"), i, item)
        group[i] = (int32_t)json_integer_value(item);
    o->group = json_object_get(of, "group") == NULL ? NULL : group;
    json_array_foreach(json_object_get(of, "value"), i, item)
        value[i] = (float)json_number_value(item);
    o->value = value;
    o->outputs = (int)number(of, "outputs");
    json_array_foreach(json_object_get(of, "time"), i, item)
        when[i] = json_number_value(item);
    o->time = json_object_get(of, "time") == NULL ? NULL : when;
    json_array_foreach(json_object_get(of, "fold"), i, item) { /* every row has a name of its own, some of them twice */
        names[i] = json_string_value(item);
        fold_of[i] = 0;
        while (strcmp(names[fold_of[i]], names[i]) != 0)
            fold_of[i]++;
    }
    o->fold = fold_of;
    o->fold_name = names;
    o->fold_names = (int)o->rows;
}

static void test_equals_scikit_learn(void **state)
{
    json_t *cases, *of, *item;
    size_t at, s;
    int kinds[SPLIT_KINDS] = {0};
    (void)state;
    assert_ok(json_read_file(TEST_DIR "/golden/splits.json", 1 << 20, &cases));
    json_array_foreach(cases, at, of) {
        const char *kind = json_string_value(json_object_get(of, "kind"));
        const json_t *splits = json_object_get(of, "splits");
        struct split_opts o = opts_of(SPLIT_KFOLD, number(of, "rows"), (int)number(of, "folds"));
        struct split_info info;
        while (o.kind < SPLIT_KINDS && strcmp(split_kind_name(o.kind), kind) != 0)
            o.kind++;
        kinds[o.kind]++;
        o.shuffle = false;
        o.allow_missing_class = true;
        o.p = (int)number(of, "p");
        o.gap = number(of, "gap");
        o.max_train = number(of, "max_train");
        o.test_rows = number(of, "test_rows");
        o.bins = (int)number(of, "bins");
        read_columns(of, &o);
        struct split_plan *plan = open_plan(&o);
        split_plan_info(plan, &info);
        assert_int_equal(info.count, json_array_size(splits));
        json_array_foreach(splits, s, item) {
            const char *wanted = json_string_value(item);
            assert_int_equal(strlen(wanted), o.rows);
            assert_ok(split_plan_roles(plan, (int64_t)s, role));
            for (int64_t i = 0; i < o.rows; i++) {
                if (".ts"[role[i]] != wanted[i])
                    fail_msg("case %zu (%s, %lld rows), split %zu: row %lld is %c, wanted %c", at, kind, (long long)o.rows,
                             s, (long long)i, ".ts"[role[i]], wanted[i]);
            }
        }
        split_plan_close(plan);
    }
    for (int k = 0; k < SPLIT_KINDS; k++)
        assert_int_equal(kinds[k] > 0, k != SPLIT_HOLDOUT && k != SPLIT_SHUFFLE && k != SPLIT_STRATIFIED_SHUFFLE &&
                                           k != SPLIT_BLOCKED);
    json_decref(cases);
}

/* ---- what holds for every kind ---- */

static void fill(int64_t rows, int groups)
{
    for (int64_t i = 0; i < rows; i++) {
        label[i] = (int32_t)(i * 7919 % 101 % 3);
        group[i] = (int32_t)(i * 104729 % 1009 % groups);
        when[i] = (double)(i * 31 % 17);
        fold_of[i] = (int32_t)(i * 13 % 4);
        for (int l = 0; l < 8; l++)
            value[8 * i + l] = (float)((i * (l + 3)) % 7 < 2);
    }
    names[0] = "second", names[1] = "first", names[2] = "third", names[3] = "train";
}

static struct split_opts full_opts(enum split_kind kind, int64_t rows)
{
    struct split_opts o = opts_of(kind, rows, 5);
    o.label = kind == SPLIT_BINS || kind == SPLIT_MULTI_LABEL ? NULL : label;
    o.classes = 3;
    o.group = group;
    o.value = value;
    o.outputs = kind == SPLIT_BINS ? 1 : 8;
    o.time = when;
    o.fold = fold_of;
    o.fold_name = names;
    o.fold_names = 4;
    o.allow_missing_class = true;
    return o;
}

/* No row has two roles, something trains and something is scored, groups stay whole where they should. */
static void check_split(struct split_plan *plan, int64_t split, int64_t rows, bool whole_groups)
{
    int64_t train[MOST], scored[MOST], trains, scores;
    uint8_t seen[MOST] = {0}, side[MOST] = {0};
    assert_ok(split_plan_roles(plan, split, role));
    assert_ok(split_plan_rows(plan, split, train, &trains, scored, &scores));
    assert_true(trains > 0 && scores > 0 && trains + scores <= rows);
    for (int64_t i = 0; i < trains; i++) {
        assert_true(i == 0 || train[i] > train[i - 1]);
        seen[train[i]] = SPLIT_TRAINS;
        side[group[train[i]]] |= 1;
    }
    for (int64_t i = 0; i < scores; i++) {
        assert_true(i == 0 || scored[i] > scored[i - 1]);
        assert_int_equal(seen[scored[i]], 0);
        seen[scored[i]] = SPLIT_SCORED;
        side[group[scored[i]]] |= 2;
    }
    assert_memory_equal(seen, role, (size_t)rows);
    for (int g = 0; whole_groups && g < MOST; g++)
        assert_true(side[g] != 3);
}

static void test_every_kind_keeps_its_promises(void **state)
{
    enum { ROWS = 103 };
    (void)state;
    for (int kind = 0; kind < SPLIT_KINDS; kind++) {
        struct split_opts o = full_opts((enum split_kind)kind, kind == SPLIT_LEAVE_P_OUT ? 40 : ROWS);
        bool whole = kind == SPLIT_GROUP || kind == SPLIT_STRATIFIED_GROUP || kind == SPLIT_BINS ||
                     kind == SPLIT_MULTI_LABEL || kind == SPLIT_LEAVE_ONE_GROUP_OUT || kind == SPLIT_HOLDOUT ||
                     kind == SPLIT_SHUFFLE || kind == SPLIT_STRATIFIED_SHUFFLE;
        struct split_info info;
        int scored[4][ROWS] = {{0}};
        fill(ROWS, 23);
        o.repeats = kind <= SPLIT_MULTI_LABEL ? 4 : 1;
        struct split_plan *plan = open_plan(&o);
        split_plan_info(plan, &info);
        assert_int_equal(info.kind, kind);
        assert_int_equal(info.count, info.repeats * info.folds);
        assert_int_equal(info.partition, kind < SPLIT_COLUMN);
        assert_int_equal(info.reshuffled, kind <= SPLIT_MULTI_LABEL);
        for (int64_t s = 0; s < info.count; s++) {
            struct split_place place;
            split_plan_place(plan, s, &place);
            assert_int_equal(place.repeat * info.folds + place.fold, s);
            check_split(plan, s, o.rows, whole);
            for (int64_t i = 0; i < o.rows; i++)
                scored[place.repeat % 4][i] += role[i] == SPLIT_SCORED && place.repeat < 4;
            if (kind == SPLIT_COLUMN)
                assert_string_equal(names[place.number], s == 0 ? "first" : s == 1 ? "second" : "third");
            else if (kind == SPLIT_LEAVE_ONE_GROUP_OUT)
                for (int64_t i = 0; i < o.rows; i++)
                    assert_int_equal(role[i] == SPLIT_SCORED, group[i] == place.number);
            else
                assert_int_equal(place.number, -1);
        }
        for (int64_t r = 0; r < info.repeats && r < 4; r++) {
            for (int64_t i = 0; i < o.rows; i++)
                assert_true(info.partition ? scored[r][i] == 1 : scored[r][i] <= 1);
        }
        for (int64_t r = 0; r < info.repeats && info.partition; r++) { /* the same, as folds */
            assert_ok(split_plan_folds(plan, r, fold));
            for (int64_t f = 0; f < info.folds; f += 1 + info.folds / 7) {
                assert_ok(split_plan_roles(plan, r * info.folds + f, role));
                for (int64_t i = 0; i < o.rows; i++)
                    assert_int_equal(role[i], fold[i] == f ? SPLIT_SCORED : SPLIT_TRAINS);
            }
        }
        if (!info.partition)
            assert_fails(split_plan_folds(plan, 0, fold), STATUS_ARG, split_kind_name((enum split_kind)kind));
        assert_fails(split_plan_roles(plan, info.count, role), STATUS_ARG, "was asked for");
        assert_fails(split_plan_roles(plan, -1, role), STATUS_ARG, "split -1");
        split_plan_close(plan);
    }
}

/* Repeat 0 is the assignment without repeats; the others differ from it and from each other, and come back in any order. */
static void test_repeats_are_reshuffled(void **state)
{
    static const enum fold_kind kinds[] = {FOLD_KFOLD, FOLD_STRATIFIED, FOLD_GROUP, FOLD_STRATIFIED_GROUP};
    enum { ROWS = 200 };
    static int32_t all[6][ROWS];
    (void)state;
    fill(ROWS, 31);
    for (int kind = 0; kind <= SPLIT_MULTI_LABEL; kind++) {
        struct split_opts o = full_opts((enum split_kind)kind, ROWS);
        o.repeats = 6;
        struct split_plan *plan = open_plan(&o);
        for (int64_t r = 0; r < 6; r++)
            assert_ok(split_plan_folds(plan, r, all[r]));
        for (int64_t r = 6; r-- > 0;) {
            assert_ok(split_plan_folds(plan, r, again));
            assert_memory_equal(again, all[r], sizeof all[r]);
            for (int64_t other = 0; other < r; other++) {
                int differ = 0;
                for (int i = 0; i < ROWS; i++)
                    differ += all[r][i] != all[other][i];
                assert_true(differ > ROWS / 4);
            }
        }
        split_plan_close(plan);
        if (kind <= SPLIT_STRATIFIED_GROUP) {
            struct fold_opts f = {.kind = kinds[kind], .folds = 5, .seed = 42, .shuffle = true, .rows = ROWS, .label = label,
                                  .classes = 3, .group = group, .allow_missing_class = true};
            assert_ok(fold_assign(&f, fold));
            assert_memory_equal(fold, all[0], sizeof all[0]);
        }
        o.repeats = 1;
        plan = open_plan(&o);
        assert_ok(split_plan_folds(plan, 0, fold));
        assert_memory_equal(fold, all[0], sizeof all[0]);
        split_plan_close(plan);
    }
    struct split_opts o = full_opts(SPLIT_KFOLD, ROWS); /* stored results depend on the keys */
    o.repeats = 2;
    struct split_plan *plan = open_plan(&o);
    static const int32_t pinned[] = {0, 1, 1, 4, 3, 2, 4, 2, 2, 0, 0, 3, 0, 1, 2, 3}; /* from a Philox in Python */
    assert_ok(split_plan_folds(plan, 1, fold));
    assert_memory_equal(fold, pinned, sizeof pinned);
    split_plan_close(plan);
}

static void test_random_sub_samples(void **state)
{
    enum { ROWS = 100 };
    (void)state;
    fill(ROWS, 31);
    for (int i = 0; i < ROWS; i++)
        label[i] = i % 10 == 0;
    for (int stratified = 0; stratified < 2; stratified++) {
        struct split_opts o = opts_of(stratified ? SPLIT_STRATIFIED_SHUFFLE : SPLIT_SHUFFLE, ROWS, 20);
        int often[ROWS] = {0}, uneven = 0;
        o.label = label;
        o.classes = 2;
        o.test_share = 0.3;
        o.allow_missing_class = true;
        struct split_plan *plan = open_plan(&o);
        for (int64_t s = 0; s < 20; s++) {
            int scored = 0, ones = 0;
            assert_ok(split_plan_roles(plan, s, role));
            for (int i = 0; i < ROWS; i++) {
                often[i] += role[i] == SPLIT_SCORED;
                scored += role[i] == SPLIT_SCORED;
                ones += role[i] == SPLIT_SCORED && label[i] == 1;
            }
            assert_int_equal(scored, 30);
            uneven += ones != 3;
        }
        assert_true(stratified ? uneven == 0 : uneven > 5);
        int never = 0;
        for (int i = 0; i < ROWS; i++)
            never += often[i] == 0;
        assert_true(never < 5); /* 0.7^20 is 0.0008 */
        split_plan_close(plan);
        o.folds = 1; /* the first split is the hold-out of the same seed */
        o.kind = stratified ? SPLIT_HOLDOUT : SPLIT_SHUFFLE;
        plan = open_plan(&o);
        assert_ok(split_plan_roles(plan, 0, role));
        struct fold_opts f = {.kind = FOLD_HOLDOUT, .folds = 1, .seed = 42, .shuffle = true, .rows = ROWS, .holdout = 0.3,
                              .label = stratified ? label : NULL, .classes = 2};
        assert_ok(fold_assign(&f, fold));
        for (int i = 0; i < ROWS; i++)
            assert_int_equal(role[i], fold[i] == 0 ? SPLIT_SCORED : SPLIT_TRAINS);
        split_plan_close(plan);
    }
}

/* 10 rows in 3 blocks of 4, 3 and 3 places; half of each, rounded up, is scored; one place between. */
static void test_blocks_do_not_overlap(void **state)
{
    struct split_opts o = opts_of(SPLIT_BLOCKED, 10, 3);
    (void)state;
    o.test_share = 0.4;
    struct split_plan *plan = open_plan(&o);
    static const char *const wanted[] = {"ttss......", "....tss...", ".......tss"};
    for (int s = 0; s < 3; s++) {
        assert_ok(split_plan_roles(plan, s, role));
        for (int i = 0; i < 10; i++)
            assert_int_equal(".ts"[role[i]], wanted[s][i]);
    }
    split_plan_close(plan);
    o.folds = 2;
    o.gap = 1;
    o.time = when; /* the other way round */
    for (int i = 0; i < 10; i++)
        when[i] = -i;
    plan = open_plan(&o);
    static const char *const backwards[] = {".....ss.tt", "ss.tt....."};
    for (int s = 0; s < 2; s++) {
        assert_ok(split_plan_roles(plan, s, role));
        for (int i = 0; i < 10; i++)
            assert_int_equal(".ts"[role[i]], backwards[s][i]);
    }
    split_plan_close(plan);
    o.gap = 3;
    fails(&o, STATUS_CONFIG, "a block of 5 rows, of which 2 are scored after a gap of 3, has no row to train on");
    o.gap = 0;
    o.folds = 11;
    fails(&o, STATUS_CONFIG, "a block of 1 rows");
}

/* ---- several labels ---- */

/* Labels spread more evenly than by plain k-fold, and folds are of nearly equal size. */
static void test_labels_are_spread_evenly(void **state)
{
    enum { ROWS = 1000, LABELS = 8, FOLDS = 5 };
    double uneven[2] = {0, 0};
    (void)state;
    for (int i = 0; i < ROWS * LABELS; i++)
        value[i] = (float)((i * 2654435761u >> 13) % 100 < 3u * (unsigned)(i % LABELS + 1));
    for (int kind = 0; kind < 2; kind++) {
        struct split_opts o = opts_of(kind == 0 ? SPLIT_MULTI_LABEL : SPLIT_KFOLD, ROWS, FOLDS);
        int count[FOLDS][LABELS] = {{0}}, rows[FOLDS] = {0}, total[LABELS] = {0};
        o.value = value;
        o.outputs = LABELS;
        struct split_plan *plan = open_plan(&o);
        assert_ok(split_plan_folds(plan, 0, fold));
        for (int i = 0; i < ROWS; i++) {
            rows[fold[i]]++;
            for (int l = 0; l < LABELS; l++) {
                count[fold[i]][l] += value[i * LABELS + l] > 0.5f;
                total[l] += value[i * LABELS + l] > 0.5f;
            }
        }
        for (int f = 0; f < FOLDS; f++) {
            for (int l = 0; l < LABELS; l++) {
                double off = count[f][l] - total[l] / (double)FOLDS;
                uneven[kind] += off * off / (total[l] + 1);
            }
            assert_in_range(rows[f], 190, 210);
        }
        split_plan_close(plan);
    }
    print_message("squared unevenness %.3f, plain k-fold %.3f\n", uneven[0], uneven[1]);
    assert_true(uneven[0] * 5 < uneven[1]);
}

/* ---- the table ---- */

static void assert_table(const struct split_opts *o, const char *wanted)
{
    struct split_plan *plan = open_plan(o);
    struct str out = {0};
    assert_ok(split_plan_table(plan, &out));
    support_assert_contains(out.p, wanted);
    str_release(&out);
    split_plan_close(plan);
}

static void test_tables(void **state)
{
    static const char *const classes[] = {"no", "yes"}, *const tags[] = {"x", "y"};
    (void)state;
    for (int i = 0; i < 12; i++) {
        label[i] = i % 3 == 0;
        value[i] = (float)i;
        fold_of[i] = i % 2;
    }
    struct split_opts o = opts_of(SPLIT_STRATIFIED, 12, 2);
    o.label = label;
    o.classes = 2;
    o.names = classes;
    o.repeats = 3;
    assert_table(&o, "class      rows     fold 0     fold 1\nno            8          4          4\nyes           4          2          2\n"
                     "all          12          6          6\n");
    o.repeats = 1;
    o.kind = SPLIT_HOLDOUT;
    o.test_share = 0.5;
    assert_table(&o, "class      rows     trains  validates\nno            8          4          4\n");
    o.kind = SPLIT_COLUMN;
    o.fold = fold_of;
    o.fold_name = tags;
    o.fold_names = 2;
    assert_table(&o, "all          12          6          6\n");
    o.label = NULL;
    o.kind = SPLIT_LEAVE_P_OUT;
    assert_table(&o, "66 splits, each of which scores 2 of 12 rows\n");
    o.kind = SPLIT_LEAVE_ONE_OUT;
    assert_table(&o, "12 splits, each of which scores 1 of 12 rows\n");
    o.kind = SPLIT_ROLLING;
    o.gap = 1;
    assert_table(&o, "split     trains     scored   not used\n    0          3          4          5\n    1          7          4          1\n");
    o.gap = 0;
    o.kind = SPLIT_SHUFFLE;
    o.folds = 25;
    assert_table(&o, "\n   19          6          6          0\n... and 5 more\n");
    o.kind = SPLIT_BINS;
    o.folds = 2;
    o.bins = 3;
    o.value = value;
    o.outputs = 1;
    assert_table(&o, "class              rows     fold 0     fold 1\nup to 3.66667         4          2          2\n"
                     "up to 7.33333         4          2          2\nup to 11              4          2          2\n");
    o.kind = SPLIT_MULTI_LABEL;
    o.names = classes;
    o.outputs = 2;
    for (int i = 0; i < 24; i++)
        value[i] = (float)(i % 4 < 3);
    assert_table(&o, "no           12          6          6\nyes           6          3          3\nall          12          6          6\n");
    o.folds = 12;
    o.kind = SPLIT_KFOLD;
    for (int i = 0; i < 200; i++)
        label[i] = 0;
    o.rows = 200;
    o.folds = 50;
    o.label = label;
    o.classes = 1;
    o.names = NULL;
    assert_table(&o, "    fold 19  ...\n0           200          4"); /* no line is longer than 20 folds */
}

/* ---- refusals ---- */

static void test_what_cannot_be_done_is_refused(void **state)
{
    struct split_opts o = opts_of(SPLIT_KFOLD, 10, 11);
    (void)state;
    memset(label, 0, sizeof label);
    memset(group, 0, sizeof group);
    fails(&o, STATUS_CONFIG, "11 folds were asked for, but there are only 10 rows");
    o.folds = 1;
    fails(&o, STATUS_CONFIG, "1 folds were asked for, at least 2 needed");
    o.folds = 2;
    o.repeats = 0;
    fails(&o, STATUS_CONFIG, "0 repeats");
    o.repeats = 2;
    o.shuffle = false;
    fails(&o, STATUS_CONFIG, "not shuffled are the same");
    o.shuffle = true;
    o.kind = SPLIT_LEAVE_ONE_OUT;
    fails(&o, STATUS_CONFIG, "cv.kind=leave_one_out is the same every time it is repeated");
    o.kind = SPLIT_SHUFFLE;
    fails(&o, STATUS_CONFIG, "cv.kind=shuffle draws every split anew: give their number as cv.folds");
    o.repeats = 1;
    o.shuffle = false;
    fails(&o, STATUS_CONFIG, "not shuffled are the same");
    o.shuffle = true;
    o.test_share = 1.0;
    fails(&o, STATUS_CONFIG, "the share to score is 1");
    o.test_share = 0.99;
    fails(&o, STATUS_CONFIG, "no row to train on");
    o.folds = 0;
    fails(&o, STATUS_CONFIG, "0 splits were asked for");
    o = opts_of(SPLIT_STRATIFIED, 10, 2);
    fails(&o, STATUS_CONFIG, "need classes");
    o.kind = SPLIT_STRATIFIED_SHUFFLE;
    fails(&o, STATUS_CONFIG, "need classes");
    o.kind = SPLIT_GROUP;
    fails(&o, STATUS_CONFIG, "group column");
    o.group = group;
    fails(&o, STATUS_CONFIG, "only 1 groups");
    o.kind = SPLIT_LEAVE_ONE_GROUP_OUT;
    fails(&o, STATUS_CONFIG, "at least 2 groups, there is 1");
    o.kind = SPLIT_MULTI_LABEL;
    fails(&o, STATUS_CONFIG, "several labels");
    o.value = value;
    o.outputs = 2;
    fails(&o, STATUS_CONFIG, "only 1 groups");
    o.kind = SPLIT_BINS;
    fails(&o, STATUS_CONFIG, "one number a row");
    o.outputs = 1;
    o.bins = 0;
    fails(&o, STATUS_CONFIG, "0 bins");
    o.bins = 2;
    value[3] = 0.0f / 0.0f;
    fails(&o, STATUS_ARG, "row 3 has the value");
    value[3] = 0.0f;
    o.kind = SPLIT_COLUMN;
    fails(&o, STATUS_CONFIG, "data.fold");
    o.fold = fold_of;
    o.fold_name = names;
    o.fold_names = 2;
    names[0] = "train", names[1] = "a";
    memset(fold_of, 0, sizeof fold_of);
    fails(&o, STATUS_CONFIG, "names none");
    for (int i = 0; i < 10; i++)
        fold_of[i] = 1;
    fails(&o, STATUS_CONFIG, "all rows into one");
    fold_of[9] = 2;
    fails(&o, STATUS_ARG, "row 9 has fold 2, wanted 0 to 1");
    o.kind = SPLIT_LEAVE_P_OUT;
    o.p = 10;
    fails(&o, STATUS_CONFIG, "leaving out 10 of 10 rows cannot be done, wanted 1 to 9");
    o.p = 0;
    fails(&o, STATUS_CONFIG, "leaving out 0");
    o.rows = 143; /* 142 * 141 / 2 = 10,011 */
    o.p = 2;
    fails(&o, STATUS_CONFIG, "more than 10000 splits");
    o.rows = 1000000;
    o.p = 500000;
    o.group = NULL;
    fails(&o, STATUS_CONFIG, "more than 10000 splits");
    o.rows = 1;
    o.kind = SPLIT_LEAVE_ONE_OUT;
    fails(&o, STATUS_CONFIG, "leaving out one of 1 rows");
    o.rows = 0;
    fails(&o, STATUS_CONFIG, "no rows");
    o = opts_of(SPLIT_ROLLING, 10, 10);
    fails(&o, STATUS_CONFIG, "10 rows are too few for 10 splits that score 1 rows each");
    o.folds = 3;
    o.gap = 4;
    fails(&o, STATUS_CONFIG, "after a gap of 4: the first would have no row to train on");
    o.gap = INT64_MAX;
    fails(&o, STATUS_CONFIG, "too few");
    o.gap = 0;
    o.test_rows = INT64_MAX;
    fails(&o, STATUS_CONFIG, "too few");
    o.test_rows = -1;
    fails(&o, STATUS_CONFIG, "none may be negative");
    o.test_rows = 0;
    o.time = when;
    when[2] = 0.0 / 0.0;
    fails(&o, STATUS_ARG, "row 2 has the time");
    when[2] = 0.0;
    o.label = label;
    o.classes = 1;
    label[7] = 1;
    fails(&o, STATUS_ARG, "row 7 has class 1, wanted 0 to 0");
    label[7] = 0;
    o.group = group;
    group[1] = -1;
    fails(&o, STATUS_ARG, "row 1 has group -1");
    group[1] = 0;
    o.kind = SPLIT_KINDS;
    fails(&o, STATUS_ARG, "no kind of splits");
}

static void test_missing_classes_are_refused(void **state)
{
    static const char *const classes[] = {"common", "rare"}, *const parts[] = {"train", "a", "b"};
    struct split_opts o = opts_of(SPLIT_LEAVE_ONE_OUT, 20, 2);
    struct split_plan *plan;
    (void)state;
    memset(label, 0, sizeof label);
    label[19] = 1;
    for (int i = 0; i < 20; i++) {
        group[i] = i / 4;
        fold_of[i] = i / 7;
        when[i] = i;
    }
    o.label = label;
    o.classes = 2;
    o.names = classes;
    o.group = group;
    o.time = when;
    fails(&o, STATUS_DATA, "class \"rare\" has 1 rows, and where 1 are left out none of them trains");
    o.kind = SPLIT_LEAVE_P_OUT;
    label[18] = 1;
    fails(&o, STATUS_DATA, "class \"rare\" has 2 rows, and where 2 are left out");
    o.p = 1;
    plan = open_plan(&o);
    split_plan_close(plan);
    o.kind = SPLIT_LEAVE_ONE_GROUP_OUT;
    fails(&o, STATUS_DATA, "class \"rare\" has 2 rows, and in split 4 of 5 none of them trains");
    label[0] = 1; /* a group without a class is no failure here: it is scored with the others */
    plan = open_plan(&o);
    split_plan_close(plan);
    o.kind = SPLIT_ROLLING;
    label[0] = 0;
    fails(&o, STATUS_DATA, "in split 0 of 2 none of them trains");
    label[0] = 1;
    fails(&o, STATUS_DATA, "in split 0 of 2 none of them is scored");
    support_assert_contains(status_message(), "cv.allow_missing_class=true goes on");
    label[10] = 1;
    plan = open_plan(&o);
    split_plan_close(plan);
    o.kind = SPLIT_COLUMN;
    o.fold = fold_of;
    o.fold_name = parts;
    o.fold_names = 3;
    plan = open_plan(&o);
    split_plan_close(plan);
    label[10] = 0;
    fails(&o, STATUS_DATA, "in split 0 of 2 none of them is scored, so its scores would be undefined");
    support_assert_contains(status_message(), "\nrare           2          0          2");
    label[0] = 0;
    fails(&o, STATUS_DATA, "in split 1 of 2 none of them trains");
    o.kind = SPLIT_KFOLD; /* repeats are looked at, too, and named */
    o.folds = 10;
    label[0] = label[4] = label[8] = label[13] = label[16] = 1;
    o.repeats = 50;
    fails(&o, STATUS_DATA, "repeat 49: class ");
    o.kind = SPLIT_SHUFFLE;
    o.folds = 30;
    o.repeats = 1;
    o.group = NULL;
    o.test_share = 0.1;
    fails(&o, STATUS_DATA, "split ");
    support_assert_contains(status_message(), "none of them validates");
    o.allow_missing_class = true;
    plan = open_plan(&o);
    split_plan_close(plan);
    o.allow_missing_class = false;
    o.label = NULL;
    plan = open_plan(&o);
    split_plan_close(plan);
}

/* A hundred thousand splits of a hundred thousand rows: nothing is kept for a row of a split. */
static void test_leave_one_out_is_small(void **state)
{
    enum { ROWS = 100000 };
    struct split_opts o = opts_of(SPLIT_LEAVE_ONE_OUT, ROWS, 0);
    uint8_t *roles = malloc(ROWS);
    int32_t *many = malloc(ROWS * sizeof *many), *out = malloc(ROWS * sizeof *out);
    int64_t before = mem_peak_bytes();
    (void)state;
    for (int i = 0; i < ROWS; i++)
        many[i] = i % 20000;
    for (int kind = 0; kind < 2; kind++) {
        struct split_info info;
        o.kind = kind == 0 ? SPLIT_LEAVE_ONE_OUT : SPLIT_LEAVE_ONE_GROUP_OUT;
        o.group = many;
        o.label = many;
        o.classes = 20000;
        o.allow_missing_class = kind == 1; /* 20,000 groups that each have a class of their own */
        struct split_plan *plan = open_plan(&o);
        split_plan_info(plan, &info);
        assert_int_equal(info.count, kind == 0 ? ROWS : 20000);
        for (int64_t s = 0; s < info.count; s += info.count / 50) {
            int64_t scored = 0;
            assert_ok(split_plan_roles(plan, s, roles));
            for (int i = 0; i < ROWS; i++)
                scored += roles[i] == SPLIT_SCORED;
            assert_int_equal(scored, kind == 0 ? 1 : 5);
            assert_int_equal(roles[s], SPLIT_SCORED);
        }
        assert_ok(split_plan_folds(plan, 0, out));
        for (int i = 0; i < ROWS; i++)
            assert_int_equal(out[i], kind == 0 ? i : i % 20000);
        split_plan_close(plan);
    }
    assert_true(mem_peak_bytes() - before < 20000000);
    free(roles);
    free(many);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leave_one_out_is_small),
        cmocka_unit_test(test_equals_scikit_learn),
        cmocka_unit_test(test_every_kind_keeps_its_promises),
        cmocka_unit_test(test_repeats_are_reshuffled),
        cmocka_unit_test(test_random_sub_samples),
        cmocka_unit_test(test_blocks_do_not_overlap),
        cmocka_unit_test(test_labels_are_spread_evenly),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_what_cannot_be_done_is_refused),
        cmocka_unit_test(test_missing_classes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
