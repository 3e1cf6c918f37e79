/* test_duplicates.c - copies and near copies beside all pairs compared, groups of them, rows on both sides of splits. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "base/threads.h"
#include "data/duplicates.h"
#include "tests/data/id_rows.h"
#include "tests/support/support.h"

enum { MOST = 700, LONGEST = 90 };

/* Rows of ids, in memory and as a dataset. */
struct rows {
    int32_t ids[MOST][LONGEST];
    int length[MOST], count;
    struct dataset *ds;
};

static uint64_t counter;

static int below(int n)
{
    return (int)random_below(7, counter++, (uint64_t)n);
}

static void add(struct rows *r, const int32_t *ids, int n)
{
    assert_true(r->count < MOST && n <= LONGEST);
    memcpy(r->ids[r->count], ids, (size_t)n * sizeof *ids);
    r->length[r->count++] = n;
}

static int random_ids(int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = ID_FIRST + below(2000);
    return n;
}

static struct dataset *write_rows(const struct rows *r, int from, int to, int max_length)
{
    static int file;
    char name[64];
    struct dataset_part part = {0};
    struct dataset *ds;
    for (int i = from; i < to; i++)
        assert_ok(id_rows_add(&part, r->ids[i], (size_t)r->length[i]));
    (void)snprintf(name, sizeof name, "%s/rows%d.h5", support_folder(), file++);
    assert_ok(id_rows_write(name, &part));
    dataset_part_release(&part);
    assert_ok(dataset_open(&(struct dataset_opts){.path = name, .max_length = max_length}, &ds));
    return ds;
}

static struct rows *new_rows(void)
{
    struct rows *r = calloc(1, sizeof *r);
    assert_non_null(r);
    return r;
}

static void close_rows(struct rows *r)
{
    dataset_close(r->ds);
    free(r);
}

static int marks;

static void count_marks(void)
{
    marks++;
}

static void find(struct dataset *ds, double near, struct duplicates *out)
{
    assert_ok(duplicates_find(&(struct duplicates_opts){&ds, 1, near, count_marks}, out));
}

/* Texts of all lengths: new ones, copies, and copies with a few ids changed, dropped or added. */
static void fill(struct rows *r, int count)
{
    while (r->count < count) {
        int32_t ids[LONGEST];
        int kind = r->count < 20 ? 0 : below(5), n;
        if (kind <= 1) {
            n = random_ids(ids, below(LONGEST - 5));
        } else {
            int of = below(r->count);
            n = r->length[of];
            memcpy(ids, r->ids[of], sizeof ids);
            for (int k = kind - 2; k > 0 && n > 1; k--) {
                int at = below(n);
                if (below(3) == 0 && n < LONGEST)
                    ids[n++] = ID_FIRST + below(2000);
                else if (below(2) == 0)
                    memmove(ids + at, ids + at + 1, (size_t)(--n - at) * sizeof *ids);
                else
                    ids[at] = ID_FIRST + below(2000);
            }
        }
        add(r, ids, n);
    }
}

/* ---- all pairs, by hand */

static int with_special(const struct rows *r, int row, int max_length, int32_t *out)
{
    int n = r->length[row] < max_length - 2 ? r->length[row] : max_length - 2;
    out[0] = ID_CLS;
    memcpy(out + 1, r->ids[row], (size_t)n * sizeof *out);
    out[n + 1] = ID_SEP;
    return n + 2;
}

static bool has(const int32_t *ids, int n, const int32_t *run)
{
    for (int i = 0; i + 3 <= n; i++) {
        if (memcmp(ids + i, run, 3 * sizeof *ids) == 0)
            return true;
    }
    return false;
}

static double similarity(const struct rows *r, int a, int b, int max_length)
{
    int32_t x[LONGEST + 2], y[LONGEST + 2];
    int n = with_special(r, a, max_length, x), m = with_special(r, b, max_length, y), both = 0, all = 0;
    if (n < 3 || m < 3)
        return n == m ? 1.0 : 0.0; /* rows without ids of their own */
    for (int i = 0; i + 3 <= n; i++) {
        if (has(x, i + 2, x + i)) /* seen before */
            continue;
        all++;
        both += has(y, m, x + i);
    }
    for (int i = 0; i + 3 <= m; i++)
        all += !has(y, i + 2, y + i) && !has(x, n, y + i);
    return (double)both / all;
}

static bool equal(const struct rows *r, int a, int b, int max_length)
{
    int32_t x[LONGEST + 2], y[LONGEST + 2];
    int n = with_special(r, a, max_length, x), m = with_special(r, b, max_length, y);
    return n == m && memcmp(x, y, (size_t)n * sizeof *x) == 0;
}

static int root(const int *parent, int i)
{
    while (parent[i] != i)
        i = parent[i];
    return i;
}

static double similar[MOST][MOST]; /* -1: equal */

static void compare_all(const struct rows *r, int max_length)
{
    for (int i = 0; i < r->count; i++) {
        for (int j = 0; j < i; j++)
            similar[i][j] = equal(r, i, j, max_length) ? -1.0 : similarity(r, i, j, max_length);
    }
}

/* same[] is exact; what hangs together is similar; *missed of *pairs similar pairs do not hang together. */
static void check_all_pairs(const struct rows *r, const struct duplicates *d, double near, int *missed, int *pairs)
{
    static int parent[MOST];
    int copies = 0, near_copies = 0;
    *missed = *pairs = 0;
    assert_int_equal(d->rows, r->count);
    for (int i = 0; i < r->count; i++)
        parent[i] = i;
    for (int i = 0; i < r->count; i++) {
        int first = i;
        for (int j = 0; j < i; j++) {
            bool same = similar[i][j] < 0.0;
            if (same && first == i)
                first = j;
            if (!same && (near >= 1.0 || similar[i][j] < near))
                continue;
            int a = root(parent, i), b = root(parent, j);
            parent[a > b ? a : b] = a > b ? b : a;
            *missed += d->like[i] != d->like[j];
            ++*pairs;
        }
        assert_int_equal(d->same[i], first);
        copies += first != i;
    }
    for (int i = 0; i < r->count; i++) {
        assert_true(d->like[i] <= d->same[i] && d->like[d->like[i]] == d->like[i]);
        assert_int_equal(root(parent, i), root(parent, d->like[i]));
        near_copies += d->same[i] == i && d->like[i] != i;
    }
    assert_int_equal(d->copies, copies);
    assert_int_equal(d->near_copies, near_copies);
}

static void test_beside_all_pairs(void **state)
{
    static const double nears[] = {0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0};
    struct rows *r = new_rows();
    (void)state;
    counter = 0;
    fill(r, 500);
    r->ds = write_rows(r, 0, r->count, 512);
    compare_all(r, 512);
    for (size_t k = 0; k < sizeof nears / sizeof *nears; k++) {
        struct duplicates d;
        int missed, pairs;
        find(r->ds, nears[k], &d);
        check_all_pairs(r, &d, nears[k], &missed, &pairs);
        assert_true(pairs > 100 && missed * 50 <= pairs);
        assert_true(nears[k] < 1.0 ? d.compared >= d.near_copies : d.compared == 0);
        duplicates_release(&d);
    }
    close_rows(r);
}

static void test_what_is_cut_is_not_compared(void **state)
{
    struct rows *r = new_rows();
    struct duplicates d;
    int missed, pairs;
    (void)state;
    counter = 1000000;
    fill(r, 200);
    r->ds = write_rows(r, 0, r->count, 12);
    compare_all(r, 12);
    find(r->ds, 0.8, &d);
    check_all_pairs(r, &d, 0.8, &missed, &pairs);
    assert_int_equal(missed, 0);
    duplicates_release(&d);
    close_rows(r);
}

static void test_edges(void **state)
{
    static const int32_t a[] = {10, 11, 12}, b[] = {10}, c[] = {10, 11, 12, 12, 12, 12}, e[] = {10, 11, 12, 12, 12, 12, 12};
    struct rows *r = new_rows();
    struct duplicates d;
    double s;
    (void)state;
    add(r, a, 3); /* one row */
    r->ds = write_rows(r, 0, 1, 512);
    marks = 0;
    find(r->ds, 0.8, &d);
    assert_true(marks > 0);
    assert_true(d.same[0] == 0 && d.like[0] == 0 && d.copies == 0 && d.near_copies == 0 && d.rows == 1);
    duplicates_release(&d);
    dataset_close(r->ds);

    add(r, a, 0); /* rows without ids are equal to each other and like no other */
    add(r, b, 1);
    add(r, b, 0);
    add(r, c, 6); /* equal sets of shingles, other ids: near, not equal */
    add(r, e, 7);
    r->ds = write_rows(r, 0, r->count, 512);
    find(r->ds, 0.8, &d);
    assert_int_equal(d.same[3], 1);
    assert_int_equal(d.copies, 1);
    assert_int_equal(d.like[2], 2);
    assert_int_equal(d.same[5], 5);
    assert_int_equal(d.like[5], 4);
    assert_int_equal(d.near_copies, 1);
    duplicates_release(&d);
    assert_ok(duplicates_similarity(&(struct duplicates_opts){&r->ds, 1, 0.8, NULL}, 4, 5, &s));
    support_assert_near(s, 1.0, 0.0, "similarity");
    assert_ok(duplicates_similarity(&(struct duplicates_opts){&r->ds, 1, 0.8, NULL}, 0, 4, &s));
    support_assert_near(s, similarity(r, 0, 4, 512), 0.0, "similarity");
    assert_fails(duplicates_similarity(&(struct duplicates_opts){&r->ds, 1, 0.8, NULL}, 0, 6, &s), STATUS_ARG, "there are 6");
    assert_fails(duplicates_find(&(struct duplicates_opts){&r->ds, 1, 0.4, NULL}, &d), STATUS_ARG, "0.4");
    assert_fails(duplicates_find(&(struct duplicates_opts){&r->ds, 1, NAN, NULL}, &d), STATUS_ARG, "0.5 to 1");
    assert_null(d.same);
    close_rows(r);
}

/* Thousands of equal rows, and rows that all hang together: no time is lost on pairs. */
static void test_all_alike(void **state)
{
    struct dataset_part part = {0};
    struct dataset *ds;
    struct duplicates d;
    int32_t ids[60];
    char name[64];
    (void)state;
    counter = 2000000;
    for (int i = 0; i < 60; i++)
        ids[i] = ID_FIRST + below(2000);
    for (int i = 0; i < 20000; i++) {
        if (i >= 10000)
            ids[58] = ID_FIRST + i; /* 57 of 63 shingles are shared by any two of these */
        assert_ok(id_rows_add(&part, ids, 60));
    }
    (void)snprintf(name, sizeof name, "%s/alike.h5", support_folder());
    assert_ok(id_rows_write(name, &part));
    dataset_part_release(&part);
    assert_ok(dataset_open(&(struct dataset_opts){.path = name, .max_length = 512}, &ds));
    find(ds, 0.8, &d);
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(d.same[i], i < 10000 ? 0 : i);
        assert_int_equal(d.like[i], 0);
    }
    assert_int_equal(d.copies, 9999);
    assert_int_equal(d.near_copies, 10000);
    assert_in_range(d.compared, 10000, 20000);
    duplicates_release(&d);
    dataset_close(ds);
}

static void assert_same(const struct duplicates *a, const struct duplicates *b)
{
    assert_int_equal(a->rows, b->rows);
    assert_memory_equal(a->same, b->same, (size_t)a->rows * sizeof *a->same);
    assert_memory_equal(a->like, b->like, (size_t)a->rows * sizeof *a->like);
    assert_int_equal(a->compared, b->compared);
}

/* One set or several, one thread or three. */
static void test_sets_and_threads(void **state)
{
    struct rows *r = new_rows();
    struct dataset *sets[3];
    struct duplicates whole, cut;
    double s, t;
    int threads = threads_count();
    (void)state;
    counter = 3000000;
    fill(r, 300);
    r->ds = write_rows(r, 0, 300, 64);
    sets[0] = write_rows(r, 0, 7, 64);
    sets[1] = write_rows(r, 7, 200, 64);
    sets[2] = write_rows(r, 200, 300, 64);
    threads_set(1);
    find(r->ds, 0.7, &whole);
    threads_set(3);
    assert_ok(duplicates_find(&(struct duplicates_opts){sets, 3, 0.7, NULL}, &cut));
    threads_set(threads);
    assert_true(whole.near_copies > 20);
    assert_same(&whole, &cut);
    assert_ok(duplicates_similarity(&(struct duplicates_opts){&r->ds, 1, 0.7, NULL}, 3, 250, &s));
    assert_ok(duplicates_similarity(&(struct duplicates_opts){sets, 3, 0.7, NULL}, 3, 250, &t));
    support_assert_near(s, t, 0.0, "similarity");
    duplicates_release(&whole);
    duplicates_release(&cut);
    for (int i = 0; i < 3; i++)
        dataset_close(sets[i]);
    close_rows(r);
}

/* ---- groups ---- */

static void test_groups(void **state)
{
    int32_t same[] = {0, 1, 0, 3, 4, 5, 6}, like[] = {0, 1, 0, 1, 4, 5, 6}, group[] = {9, 9, 4, 7, 2, 7, 1000}, out[7], count;
    struct duplicates d = {.rows = 7, .same = same, .like = like};
    (void)state;
    assert_ok(duplicates_groups(&d, NULL, out, &count));
    assert_memory_equal(out, ((int32_t[]){0, 1, 0, 1, 2, 3, 4}), sizeof out);
    assert_int_equal(count, 5);
    assert_ok(duplicates_groups(&d, group, out, &count)); /* 0-2 and 1-3 by likeness, 0-1 and 3-5 by group */
    assert_memory_equal(out, ((int32_t[]){0, 0, 0, 0, 1, 0, 2}), sizeof out);
    assert_int_equal(count, 3);
    group[5] = -1;
    assert_fails(duplicates_groups(&d, group, out, &count), STATUS_ARG, "row 5");
}

/* ---- splits ---- */

static struct split_opts split_of(enum split_kind kind, int64_t rows, int folds)
{
    return (struct split_opts){.kind = kind, .rows = rows, .folds = folds, .repeats = 1, .test_share = 0.2, .p = 2,
                               .bins = 3, .shuffle = true, .seed = 42};
}

/* By the definition, split by split. */
static void check_leaks(struct split_plan *plan, int64_t rows, const int32_t *group, const uint8_t *skip)
{
    static uint8_t role[MOST], wanted[MOST], got[MOST];
    struct split_info info;
    struct split_leak leak;
    int64_t count = 0, split = -1, scored = -1, trained = -1;
    memset(wanted, 0, sizeof wanted);
    split_plan_info(plan, &info);
    for (int64_t s = 0; s < info.count; s++) {
        assert_ok(split_plan_roles(plan, s, role));
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < rows && role[i] == SPLIT_SCORED && !(skip != NULL && skip[i]); j++) {
                if (role[j] != SPLIT_TRAINS || group[i] != group[j])
                    continue;
                count += !wanted[i];
                wanted[i] = 1;
                if (split < 0) {
                    split = s;
                    scored = i;
                    trained = j;
                }
                break;
            }
        }
    }
    assert_ok(split_leak_find(plan, group, skip, got, &leak));
    assert_int_equal(leak.rows, count);
    assert_memory_equal(got, wanted, (size_t)rows);
    assert_int_equal(leak.split, split);
    assert_int_equal(leak.scored, scored);
    assert_int_equal(leak.trained, trained);
    assert_ok(split_leak_find(plan, group, skip, NULL, &leak));
    assert_int_equal(leak.rows, count);
}

static void test_leaks_of_every_kind(void **state)
{
    enum { N = 90 };
    static int32_t label[N], group[N], copies[N], fold[N];
    static float value[N];
    static double when[N];
    static uint8_t skip[N];
    static const char *const folds[] = {"a", "b", "train"};
    (void)state;
    counter = 4000000;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            label[i] = i % 2;
            group[i] = i / 3;
            value[i] = (float)below(2);
            when[i] = below(40);
            fold[i] = below(round == 0 ? 2 : 3);
            copies[i] = round == 2 ? i : i > 0 && below(4) == 0 ? copies[below(i)] : i;
            skip[i] = below(10) == 0;
        }
        for (int kind = 0; kind < SPLIT_KINDS; kind++) {
            struct split_opts o = split_of((enum split_kind)kind, kind == SPLIT_LEAVE_P_OUT ? 20 : N, 3);
            struct split_plan *plan;
            o.label = label;
            o.classes = 2;
            o.group = group;
            o.value = value;
            o.outputs = 1;
            o.time = when;
            o.fold = fold;
            o.fold_name = folds;
            o.fold_names = 3;
            o.allow_missing_class = true;
            o.repeats = kind <= SPLIT_MULTI_LABEL ? 3 : 1;
            assert_ok(split_plan_open(&o, &plan));
            check_leaks(plan, o.rows, copies, NULL);
            check_leaks(plan, o.rows, copies, skip);
            split_plan_close(plan);
        }
    }
}

/* The planted leak: every text stands twice, its copy has the same label. */
static void test_planted_leak(void **state)
{
    enum { N = 120 };
    static int32_t label[2 * N], group[2 * N];
    struct rows *r = new_rows();
    struct duplicates d;
    struct split_plan *plan;
    struct split_leak leak;
    int32_t ids[LONGEST], count;
    (void)state;
    counter = 5000000;
    for (int i = 0; i < N; i++)
        add(r, ids, random_ids(ids, 30 + below(30)));
    for (int i = 0; i < N; i++) {
        memcpy(ids, r->ids[i], sizeof ids);
        if (i % 3 == 0)
            ids[r->length[i] - 1]++; /* the last word differs */
        add(r, ids, r->length[i]);
        label[i] = label[N + i] = below(2);
    }
    r->ds = write_rows(r, 0, 2 * N, 512);
    find(r->ds, 0.8, &d);
    assert_int_equal(d.copies, N - N / 3);
    assert_int_equal(d.near_copies, N / 3);
    struct split_opts o = split_of(SPLIT_STRATIFIED, 2 * N, 5);
    o.label = label;
    o.classes = 2;
    assert_ok(split_plan_open(&o, &plan));
    check_leaks(plan, 2 * N, d.same, NULL);
    check_leaks(plan, 2 * N, d.like, NULL);
    assert_ok(split_leak_find(plan, d.like, NULL, NULL, &leak));
    assert_in_range(leak.rows, N, 2 * N);
    split_plan_close(plan);

    assert_ok(duplicates_groups(&d, NULL, group, &count));
    assert_int_equal(count, N);
    o.kind = SPLIT_STRATIFIED_GROUP;
    o.group = group;
    assert_ok(split_plan_open(&o, &plan));
    assert_ok(split_leak_find(plan, d.like, NULL, NULL, &leak));
    assert_true(leak.rows == 0 && leak.split == -1 && leak.scored == -1);
    d.like[3] = 2 * N;
    assert_fails(split_leak_find(plan, d.like, NULL, NULL, &leak), STATUS_ARG, "row 3");
    split_plan_close(plan);
    duplicates_release(&d);
    close_rows(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beside_all_pairs),
        cmocka_unit_test(test_what_is_cut_is_not_compared),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_all_alike),
        cmocka_unit_test(test_sets_and_threads),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_leaks_of_every_kind),
        cmocka_unit_test(test_planted_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
