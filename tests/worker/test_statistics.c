/* test_statistics.c - intervals over repeats, paired comparisons, McNemar, the corrected t-test: against SciPy and by hand. */
#include "tests/worker/golden_scores.h"
#include "worker/statistics.h"

enum { MOST_SETS = 3 };

static struct rows sets[MOST_SETS];

static void read_floats(const json_t *list, float *out)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
        out[i] = (float)json_number_value(value);
}

/* Systems a (two repeats, the second with some of the rows) and b of the golden file, three classes. */
static void read_systems(const json_t *of)
{
    const json_t *row = json_object_get(of, "row"), *label = json_object_get(of, "label"), *some = json_object_get(of, "some");
    int n = (int)json_array_size(row);
    memset(sets, 0, sizeof sets);
    for (int k = 0; k < MOST_SETS; k++) {
        float logits[MOST_SCORES];
        int rows_of = k == 1 ? (int)json_array_size(some) : n;
        read_floats(k == 2 ? json_object_get(of, "b") : json_array_get(json_object_get(of, "a"), (size_t)k), logits);
        bind_rows(&sets[k], TASK_CLASSES, 3, 3, rows_of);
        for (int i = 0; i < rows_of; i++) {
            int from = k == 1 ? (int)json_integer_value(json_array_get(some, (size_t)i)) : i;
            int to = k == 2 ? n - 1 - i : i; /* in another order */
            sets[k].row[to] = json_integer_value(json_array_get(row, (size_t)from));
            sets[k].label[to] = (int32_t)json_integer_value(json_array_get(label, (size_t)from));
            memcpy(sets[k].logits + 3 * to, logits + 3 * from, 3 * sizeof(float));
        }
    }
}

static void test_bootstrap_as_by_hand(void **state)
{
    json_t *of = golden_statistics("bootstrap");
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(of, "seed"));
    int resamples = (int)json_integer_value(json_object_get(of, "resamples"));
    struct scored a[2];
    struct comparison got;
    double want[2], score, ci95[2];
    (void)state;
    read_systems(of);
    a[0] = sets[0].scored;
    a[1] = sets[1].scored;
    assert_ok(statistics_interval(a, 2, METRIC_ACCURACY, seed, resamples, &score, ci95));
    (void)golden_reals(json_object_get(of, "interval"), want, 2);
    support_assert_near(score, json_number_value(json_object_get(of, "score")), 1e-14, "score");
    support_assert_near(ci95[0], want[0], 1e-14, "lower end");
    support_assert_near(ci95[1], want[1], 1e-14, "upper end");
    assert_ok(statistics_compare(a, 2, &sets[2].scored, 1, METRIC_ACCURACY, seed, resamples, &got));
    (void)golden_reals(json_object_get(of, "difference"), want, 2);
    assert_true(got.a == score);
    support_assert_near(got.b, json_number_value(json_object_get(of, "other")), 1e-14, "other score");
    support_assert_near(got.ci95[0], want[0], 1e-14, "lower end of the difference");
    support_assert_near(got.ci95[1], want[1], 1e-14, "upper end of the difference");
    support_assert_near(got.p, json_number_value(json_object_get(of, "p")), 1e-14, "p");
    assert_true(got.difference == got.b - got.a && got.rows == 25 && got.resamples == resamples);
    json_decref(of);
}

/* One set is metrics_interval(); the same set twice is no other interval; a system differs from itself by nothing. */
static void test_one_set_and_the_same_set(void **state)
{
    json_t *of = golden_statistics("bootstrap");
    struct scored twice[2];
    struct comparison got;
    double one[2], two[2], score;
    (void)state;
    read_systems(of);
    twice[0] = twice[1] = sets[2].scored;
    for (int m = 0; m < METRIC_COUNT; m++) {
        assert_ok(metrics_interval(&sets[2].scored, (enum metric)m, 3, 40, one));
        assert_ok(statistics_interval(twice, 2, (enum metric)m, 3, 40, &score, two));
        for (int i = 0; i < 2; i++)
            assert_true(isnan(one[i]) ? isnan(two[i]) : fabs(one[i] - two[i]) < 1e-14);
    }
    assert_ok(statistics_compare(twice, 1, twice, 2, METRIC_MACRO_F1, 3, 40, &got));
    assert_true(got.difference == 0.0 && got.ci95[0] == 0.0 && got.ci95[1] == 0.0 && got.p == 1.0);
    assert_ok(statistics_compare(twice, 1, twice, 1, METRIC_PEARSON, 3, 40, &got)); /* not of the task */
    assert_true(isnan(got.difference) && isnan(got.p) && got.rows == 25);
    json_decref(of);
}

/* Other orders of rows and sets give the same bits (of two sets: a sum of two is the same either way). */
static void test_order_changes_no_bit(void **state)
{
    json_t *of = golden_statistics("bootstrap");
    struct scored there[2], back[2];
    double one[2], two[2], score, other;
    static struct rows turned[2];
    (void)state;
    read_systems(of);
    for (int k = 0; k < 2; k++) {
        int n = (int)sets[k].scored.n;
        bind_rows(&turned[k], TASK_CLASSES, 3, 3, n);
        for (int i = 0; i < n; i++) {
            int j = (i * 7 + 3) % n; /* n is 25 or no multiple of 7 */
            turned[k].row[i] = sets[k].row[j];
            turned[k].label[i] = sets[k].label[j];
            memcpy(turned[k].logits + 3 * i, sets[k].logits + 3 * j, 3 * sizeof(float));
        }
        there[k] = sets[k].scored;
        back[1 - k] = turned[k].scored;
    }
    assert_true(sets[1].scored.n % 7 != 0);
    static const enum metric tried[] = {METRIC_ACCURACY, METRIC_LOG_LOSS, METRIC_ROC_AUC, METRIC_PR_AUC, METRIC_ECE,
                                        METRIC_QUADRATIC_KAPPA};
    for (size_t m = 0; m < sizeof tried / sizeof tried[0]; m++) {
        assert_ok(statistics_interval(there, 2, tried[m], 9, 30, &score, one));
        assert_ok(statistics_interval(back, 2, tried[m], 9, 30, &other, two));
        assert_memory_equal(&score, &other, sizeof score);
        assert_memory_equal(one, two, sizeof one);
        assert_false(isnan(score));
    }
    json_decref(of);
}

static void two_classes(struct rows *r, int n, int right)
{
    memset(r, 0, sizeof *r);
    for (int i = 0; i < n; i++) {
        r->label[i] = i % 2;
        r->logits[i] = (i % 2 == 1) == (i % 10 < right) ? 1.0f : -1.0f;
    }
    bind_rows(r, TASK_CLASSES, 1, 2, n);
}

/* A system that is right in 9 of 10 rows against one that is right in 5 of them, or in the same share of others. */
static void test_a_difference_is_found(void **state)
{
    struct comparison got;
    (void)state;
    two_classes(&sets[0], 200, 5);
    two_classes(&sets[1], 200, 9);
    assert_ok(statistics_compare(&sets[0].scored, 1, &sets[1].scored, 1, METRIC_ACCURACY, 1, 1000, &got));
    support_assert_near(got.difference, 0.4, 1e-12, "difference");
    support_assert_near(got.ci95[0], 0.4 - 1.96 * 0.0346, 0.01, "lower end"); /* sqrt(0.4 * 0.6 / 200) */
    support_assert_near(got.ci95[1], 0.4 + 1.96 * 0.0346, 0.01, "upper end");
    assert_true(got.p == 2.0 / 1001.0);
    assert_ok(statistics_compare(&sets[1].scored, 1, &sets[0].scored, 1, METRIC_ACCURACY, 1, 1000, &got));
    assert_true(got.difference < -0.39 && got.p == 2.0 / 1001.0);
    for (int i = 0; i < 200; i++) /* right where the other one is wrong */
        sets[1].logits[i] = -sets[0].logits[i];
    bind_rows(&sets[1], TASK_CLASSES, 1, 2, 200);
    assert_ok(statistics_compare(&sets[0].scored, 1, &sets[1].scored, 1, METRIC_ACCURACY, 1, 1000, &got));
    assert_true(got.difference == 0.0 && got.p > 0.8 && got.ci95[0] < -0.1 && got.ci95[1] > 0.1);
}

static void test_mcnemar(void **state)
{
    struct mcnemar got;
    static struct rows labels[2];
    (void)state;
    two_classes(&sets[0], 60, 5);
    two_classes(&sets[1], 60, 5);
    for (int i = 0; i < 60; i++) { /* a: the first 12 wrong alone, b: the last 3 */
        float right = i % 2 == 1 ? 1.0f : -1.0f;
        sets[0].logits[i] = i < 12 || i == 30 ? -right : right;
        sets[1].logits[i] = i >= 57 || i == 30 ? -right : right;
    }
    assert_ok(statistics_mcnemar(&sets[0].scored, &sets[1].scored, &got));
    assert_true(got.both == 44 && got.only_a == 3 && got.only_b == 12 && got.neither == 1);
    support_assert_near(got.p, 0.03515625, 1e-12, "p"); /* 2 (1 + 15 + 105 + 455) / 2^15 */
    for (int k = 0; k < 2; k++) {
        memset(&labels[k], 0, sizeof labels[k]);
        for (int i = 0; i < 8; i++)
            labels[k].value[i] = 1.0f, labels[k].logits[i] = k == 0 && i == 3 ? -1.0f : 1.0f;
        bind_rows(&labels[k], TASK_MULTI_LABEL, 2, 2, 4);
    }
    assert_ok(statistics_mcnemar(&labels[0].scored, &labels[1].scored, &got)); /* one label wrong is a wrong row */
    assert_true(got.both == 3 && got.only_b == 1 && got.p == 1.0);
}

static void test_what_is_refused(void **state)
{
    struct comparison got;
    struct mcnemar table;
    double score, ci95[2];
    (void)state;
    two_classes(&sets[0], 10, 5);
    two_classes(&sets[1], 9, 5);
    assert_fails(statistics_compare(&sets[0].scored, 1, &sets[1].scored, 1, METRIC_ACCURACY, 1, 10, &got), STATUS_DATA,
                 "row 5673 is scored by the first system only");
    assert_true(isnan(got.p) && isnan(got.a));
    assert_fails(statistics_compare(&sets[1].scored, 1, &sets[0].scored, 1, METRIC_ACCURACY, 1, 10, &got), STATUS_DATA,
                 "by the second system only");
    assert_fails(statistics_mcnemar(&sets[0].scored, &sets[1].scored, &table), STATUS_DATA, "only");
    two_classes(&sets[1], 10, 5);
    sets[1].label[3] = 0;
    assert_fails(statistics_compare(&sets[0].scored, 1, &sets[1].scored, 1, METRIC_ACCURACY, 1, 10, &got), STATUS_DATA,
                 "row 5691 has another target");
    sets[1].label[3] = 1;
    sets[1].row[4] = sets[1].row[2];
    assert_fails(statistics_interval(&sets[1].scored, 1, METRIC_ACCURACY, 1, 10, &score, ci95), STATUS_DATA, "scored twice");
    two_classes(&sets[1], 10, 5);
    sets[1].scored.outputs = 2;
    struct scored both[2] = {sets[0].scored, sets[1].scored};
    assert_fails(statistics_interval(both, 2, METRIC_ACCURACY, 1, 10, &score, ci95), STATUS_ARG, "of another task");
    assert_fails(statistics_interval(both, 0, METRIC_ACCURACY, 1, 10, &score, ci95), STATUS_ARG, "0 sets");
    assert_fails(statistics_interval(both, 1, METRIC_ACCURACY, 1, 0, &score, ci95), STATUS_ARG, "0 resamples");
    assert_fails(statistics_compare(both, 1, both, 0, METRIC_ACCURACY, 1, 5, &got), STATUS_ARG, "0 sets");
    bind_rows(&sets[0], TASK_REGRESSION, 1, 0, 10);
    assert_fails(statistics_mcnemar(&sets[0].scored, &sets[0].scored, &table), STATUS_ARG, "not of numbers");
}

static void near_share(double got, double want, double bound, const char *what)
{
    support_assert_near(got, want, bound * (want == 0.0 ? 1e-300 : fabs(want)), what);
}

static void test_distributions_as_scipy(void **state)
{
    json_t *of = golden_statistics("tests"), *one;
    size_t i;
    double v[3];
    (void)state;
    json_array_foreach(json_object_get(of, "student"), i, one) {
        (void)golden_reals(one, v, 3);
        near_share(student_two_sided(v[0], v[1]), v[2], 1e-11, "Student's t");
        assert_true(student_two_sided(-v[0], v[1]) == student_two_sided(v[0], v[1]));
    }
    json_array_foreach(json_object_get(of, "quantile"), i, one) {
        (void)golden_reals(one, v, 3);
        near_share(student_quantile(v[0], v[1]), v[2], 1e-9, "quantile of Student's t");
    }
    json_array_foreach(json_object_get(of, "binomial"), i, one) {
        (void)golden_reals(one, v, 3);
        near_share(binomial_two_sided((int64_t)v[0], (int64_t)v[1]), v[2], 1e-10, "binomial test");
    }
    assert_true(isnan(student_two_sided(NAN, 3)) && isnan(student_two_sided(1, 0)) && isnan(student_quantile(0, 3)) &&
                isnan(student_quantile(1, 3)) && student_two_sided(INFINITY, 2) == 0.0);
    json_decref(of);
}

static void test_resampled_t(void **state)
{
    json_t *all = golden_statistics("tests"), *of = json_object_get(all, "resampled");
    double a[10], b[10], ci95[2];
    struct resampled_t got;
    (void)state;
    (void)golden_reals(json_object_get(of, "a"), a, 10);
    (void)golden_reals(json_object_get(of, "b"), b, 10);
    (void)golden_reals(json_object_get(of, "ci95"), ci95, 2);
    assert_ok(statistics_resampled_t(a, b, 10, 25, 100, &got));
    near_share(got.mean, json_number_value(json_object_get(of, "mean")), 1e-12, "mean");
    near_share(got.std, json_number_value(json_object_get(of, "std")), 1e-12, "std");
    near_share(got.t, json_number_value(json_object_get(of, "t")), 1e-12, "t");
    near_share(got.p, json_number_value(json_object_get(of, "p")), 1e-10, "p");
    near_share(got.ci95[0], ci95[0], 1e-10, "lower end");
    near_share(got.ci95[1], ci95[1], 1e-10, "upper end");
    assert_true(got.n == 10 && got.freedom == 9);
    for (int i = 0; i < 10; i++) {
        a[i] = 0.25 * i;
        b[i] = a[i] + 0.5;
    }
    assert_ok(statistics_resampled_t(a, b, 10, 1, 4, &got)); /* always the same difference */
    assert_true(got.mean == 0.5 && got.std == 0.0 && isinf(got.t) && got.p == 0.0 && got.ci95[0] == 0.5);
    assert_ok(statistics_resampled_t(a, a, 10, 1, 4, &got));
    assert_true(got.mean == 0.0 && isnan(got.t) && isnan(got.p));
    assert_ok(statistics_resampled_t(a, b, 1, 1, 4, &got));
    assert_true(isnan(got.mean) && isnan(got.p));
    a[3] = NAN;
    assert_ok(statistics_resampled_t(a, b, 10, 1, 4, &got));
    assert_true(isnan(got.mean) && isnan(got.p));
    assert_fails(statistics_resampled_t(a, b, 10, 0, 4, &got), STATUS_ARG, "wanted more than 0");
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bootstrap_as_by_hand),
        cmocka_unit_test(test_one_set_and_the_same_set),
        cmocka_unit_test(test_order_changes_no_bit),
        cmocka_unit_test(test_a_difference_is_found),
        cmocka_unit_test(test_mcnemar),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_distributions_as_scipy),
        cmocka_unit_test(test_resampled_t),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
