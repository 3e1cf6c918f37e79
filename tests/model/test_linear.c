/*
 * test_linear.c - linear models: solutions equal scikit-learn's objective at its minimum, derivatives by finite differences,
 * company and threads that change nothing, what is refused.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/philox.h"
#include "base/threads.h"
#include "model/linear.h"
#include "tests/support/support.h"

enum { ROWS = 64, WIDEST = 64 };

static double uniform(uint32_t what, uint32_t i) /* in (-1, 1) */
{
    return (double)philox4x32(99, what, i, 0, 0).v[0] / 2147483648.0 - 1.0;
}

/* ---- beside scikit-learn ---- */

static int64_t read_numbers(const json_t *list, double *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = json_number_value(json_array_get(list, i));
    return (int64_t)json_array_size(list);
}

static void check_case(const json_t *line)
{
    static double numbers[ROWS * WIDEST], wanted[ROWS * 8], y[ROWS], weight[ROWS], value[ROWS], s[ROWS], z[ROWS * 8];
    static float x[ROWS * WIDEST];
    static int32_t label[ROWS];
    static int64_t every[ROWS], fitted[ROWS];
    const char *name = json_string_value(json_object_get(line, "name"));
    int d = (int)json_integer_value(json_object_get(line, "columns"));
    int classes = (int)json_integer_value(json_object_get(line, "classes")), k = classes > 2 ? classes : 1;
    int64_t rows = read_numbers(json_object_get(line, "x"), numbers) / d, n = json_array_size(json_object_get(line, "fitted"));
    bool weighted = read_numbers(json_object_get(line, "weight"), weight) > 0;
    struct linear_dense *dense;
    struct linear_fit fit = {0};
    for (int64_t i = 0; i < rows * d; i++)
        x[i] = (float)numbers[i];
    (void)read_numbers(json_object_get(line, "y"), y);
    (void)read_numbers(json_object_get(line, "z"), wanted);
    for (int64_t i = 0; i < rows; i++)
        every[i] = i;
    for (int64_t i = 0; i < n; i++) {
        fitted[i] = json_integer_value(json_array_get(json_object_get(line, "fitted"), (size_t)i));
        value[i] = y[fitted[i]];
        label[i] = classes > 0 ? (int32_t)y[fitted[i]] : 0;
        s[i] = weight[fitted[i]];
    }
    assert_ok(linear_dense_create(x, d, fitted, n, json_is_true(json_object_get(line, "standardize")), &dense));
    const struct linear_features features = {n, dense, linear_dense_gram};
    const struct linear_problem problem = {.loss = classes == 0   ? LINEAR_SQUARED
                                                   : classes == 2 ? LINEAR_LOGISTIC
                                                                  : LINEAR_SOFTMAX,
                                           .k = k,
                                           .label = label,
                                           .value = value,
                                           .weight = weighted ? s : NULL};
    const struct linear_opts opts = {json_number_value(json_object_get(line, "C")), 1e-9, 10000};
    assert_ok(linear_solve(&features, &problem, 1, &opts, &fit));
    if (!fit.converged || fit.gradient > opts.tolerance)
        fail_msg("%s: |g| is %g after %d iterations", name, fit.gradient, fit.iterations);
    assert_ok(linear_dense_cross(dense, every, rows, k, fit.a, z));
    double unit = classes == 0 ? 250.0 : 1.0; /* the values' deviation, to which their tolerance is relative */
    for (int64_t i = 0; i < rows * k; i++) {
        double found = z[i] + fit.bias[i % k];
        if (!(fabs(found - wanted[i]) <= 1e-7 * unit))
            fail_msg("%s: row %d, output %d: %.12g, scikit-learn has %.12g (%d iterations)", name, (int)(i / k),
                     (int)(i % k), found, wanted[i], fit.iterations);
    }
    double objective = json_number_value(json_object_get(line, "objective"));
    support_assert_near(fit.objective, objective, 1e-9 * objective, name);
    linear_fit_release(&fit);
    linear_dense_destroy(dense);
}

static void test_equals_scikit_learn(void **state)
{
    json_t *golden;
    const json_t *line;
    size_t i;
    (void)state;
    assert_ok(json_read_file(TEST_DIR "/golden/linear.json", 1 << 21, &golden));
    assert_int_equal(json_array_size(golden), 12);
    json_array_foreach(golden, i, line) check_case(line);
    json_decref(golden);
}

/* ---- derivatives ---- */

static void test_derivatives_of_losses(void **state)
{
    enum { N = 7, K = 4 };
    const double h = 1e-5, weight[N] = {1, 0.5, 2, 0, 1, 3, 1}, value[N] = {-1, 0, 2, 5, 1, 1, 1};
    const int32_t two[N] = {0, 1, 0, 1, 1, 0, 1}, four[N] = {0, 1, 2, 3, 0, 1, 2};
    (void)state;
    for (int loss = 0; loss < 3; loss++) {
        const struct linear_problem p = {.loss = (enum linear_loss)loss,
                                         .k = loss == LINEAR_SOFTMAX ? K : 1,
                                         .label = loss == LINEAR_SOFTMAX ? four : two,
                                         .value = value,
                                         .weight = weight};
        double z[N * K], r[N * K];
        for (int i = 0; i < N * p.k; i++)
            z[i] = 3.0 * uniform(1, (uint32_t)i);
        double at = linear_loss(&p, N, z, r);
        assert_true(at == linear_loss(&p, N, z, NULL));
        for (int i = 0; i < N * p.k; i++) {
            double keep = z[i], up, down;
            z[i] = keep + h;
            up = linear_loss(&p, N, z, NULL);
            z[i] = keep - h;
            down = linear_loss(&p, N, z, NULL);
            z[i] = keep;
            support_assert_near((up - down) / (2 * h), r[i], 1e-9, "a derivative");
        }
    }
}

/* Logits that no exponential can hold. */
static void test_losses_far_out(void **state)
{
    const int32_t label[] = {0, 1};
    const double z[] = {1000, 1000}, wide[] = {1000, -1000, 1000, -1000};
    double r[4];
    (void)state;
    const struct linear_problem two = {.loss = LINEAR_LOGISTIC, .k = 1, .label = label};
    const struct linear_problem many = {.loss = LINEAR_SOFTMAX, .k = 2, .label = label};
    assert_true(linear_loss(&two, 2, z, r) == 1000.0 && r[0] == 1.0 && r[1] == 0.0);
    assert_true(linear_loss(&many, 2, wide, r) == 2000.0 && r[0] == 0.0 && r[1] == 0.0 && r[2] == 1.0 && r[3] == -1.0);
}

/* ---- random problems ---- */

struct table {
    float x[ROWS * 24];
    int64_t rows[ROWS];
    int32_t label[ROWS], binary[3][ROWS];
    double value[ROWS];
    struct linear_dense *dense;
    struct linear_features features;
};

static void make_table(struct table *t)
{
    for (int i = 0; i < ROWS * 24; i++)
        t->x[i] = (float)uniform(2, (uint32_t)i);
    for (int i = 0; i < ROWS; i++) {
        double hidden = t->x[i * 24] - 0.5 * t->x[i * 24 + 7] + 0.3 * uniform(3, (uint32_t)i);
        t->rows[i] = i;
        t->label[i] = hidden < -0.3 ? 0 : hidden < 0.3 ? 1 : 2;
        t->value[i] = hidden;
        for (int c = 0; c < 3; c++)
            t->binary[c][i] = t->label[i] == c;
    }
    assert_ok(linear_dense_create(t->x, 24, t->rows, ROWS, true, &t->dense));
    t->features = (struct linear_features){ROWS, t->dense, linear_dense_gram};
}

/* F (weights are X^T a) straight from its definition. */
static double objective(struct table *t, const struct linear_problem *p, double C, const double *a, const double *b)
{
    double z[ROWS * 3], product[ROWS * 3], penalty = 0.0;
    assert_ok(linear_dense_gram(t->dense, p->k, a, product));
    for (int i = 0; i < ROWS * p->k; i++) {
        penalty += a[i] * product[i];
        z[i] = product[i] + b[i % p->k];
    }
    return 0.5 * penalty + C * linear_loss(p, ROWS, z, NULL);
}

/* Any direction in weights and intercepts: F rises by its curvature and has no slope. */
static void test_a_solution_is_a_minimum(void **state)
{
    static struct table t;
    const double h = 1e-3;
    (void)state;
    make_table(&t);
    for (int loss = 0; loss < 3; loss++) {
        const struct linear_problem p = {.loss = (enum linear_loss)loss,
                                         .k = loss == LINEAR_SOFTMAX ? 3 : 1,
                                         .label = loss == LINEAR_SOFTMAX ? t.label : t.binary[2],
                                         .value = t.value};
        const struct linear_opts opts = {0.7, 1e-10, 1000};
        struct linear_fit fit = {0};
        double a[ROWS * 3], b[3];
        assert_ok(linear_solve(&t.features, &p, 1, &opts, &fit));
        assert_true(fit.converged);
        double least = objective(&t, &p, opts.C, fit.a, fit.bias);
        support_assert_near(fit.objective, least, 1e-12 * least, "the objective");
        for (uint32_t direction = 0; direction < 6; direction++) {
            double rise[2];
            for (int side = 0; side < 2; side++) {
                double step = side == 0 ? h : -h;
                for (int i = 0; i < ROWS * p.k; i++)
                    a[i] = fit.a[i] + step * uniform(10 + direction, (uint32_t)i);
                for (int c = 0; c < p.k; c++)
                    b[c] = fit.bias[c] + step * uniform(20 + direction, (uint32_t)c);
                rise[side] = objective(&t, &p, opts.C, a, b) - least;
                assert_true(rise[side] > 0.0);
            }
            support_assert_near(rise[0] / rise[1], 1.0, 0.02, "rise on both sides");
        }
        linear_fit_release(&fit);
    }
    linear_dense_destroy(t.dense);
}

static void assert_same_fit(const struct linear_fit *a, const struct linear_fit *b, int k)
{
    assert_memory_equal(a->a, b->a, ROWS * (size_t)k * sizeof *a->a);
    assert_memory_equal(a->bias, b->bias, (size_t)k * sizeof *a->bias);
    assert_int_equal(a->iterations, b->iterations);
}

static void test_company_and_threads_change_no_bit(void **state)
{
    static struct table t;
    struct linear_problem problems[4];
    struct linear_fit together[4], alone = {0}, again[4];
    const struct linear_opts opts = {2.0, 1e-7, 1000};
    int least = 1000, most = 0;
    (void)state;
    make_table(&t);
    for (int c = 0; c < 3; c++)
        problems[c] = (struct linear_problem){.loss = LINEAR_LOGISTIC, .k = 1, .label = t.binary[c]};
    problems[3] = (struct linear_problem){.loss = LINEAR_SOFTMAX, .k = 3, .label = t.label};
    assert_ok(linear_solve(&t.features, problems, 4, &opts, together));
    for (int i = 0; i < 4; i++) {
        least = together[i].iterations < least ? together[i].iterations : least;
        most = together[i].iterations > most ? together[i].iterations : most;
        assert_ok(linear_solve(&t.features, &problems[i], 1, &opts, &alone));
        assert_same_fit(&alone, &together[i], problems[i].k);
        linear_fit_release(&alone);
    }
    assert_true(least < most); /* so some went on with fewer beside them */
    threads_set(3);
    assert_ok(linear_solve(&t.features, problems, 4, &opts, again));
    threads_set(1);
    for (int i = 0; i < 4; i++) {
        assert_same_fit(&again[i], &together[i], problems[i].k);
        linear_fit_release(&again[i]);
        linear_fit_release(&together[i]);
    }
    linear_dense_destroy(t.dense);
}

/* Features that say nothing: the intercepts say how often a class is, or the mean. */
static void test_features_of_zero(void **state)
{
    enum { N = 6 };
    static const float x[N];
    const int64_t rows[N] = {0, 1, 2, 3, 4, 5};
    const int32_t label[N] = {0, 0, 0, 1, 2, 2};
    const int32_t two[N] = {0, 0, 0, 0, 0, 1};
    const double value[N] = {1, 2, 3, 4, 5, 9}, same[N] = {7, 7, 7, 7, 7, 7};
    struct linear_dense *dense;
    struct linear_fit fits[4];
    const struct linear_problem problems[4] = {{.loss = LINEAR_SOFTMAX, .k = 3, .label = label},
                                               {.loss = LINEAR_LOGISTIC, .k = 1, .label = two},
                                               {.loss = LINEAR_SQUARED, .k = 1, .value = value},
                                               {.loss = LINEAR_SQUARED, .k = 1, .value = same}};
    const struct linear_opts opts = {1.0, 1e-9, 100};
    (void)state;
    assert_ok(linear_dense_create(x, 1, rows, N, true, &dense));
    const struct linear_features features = {N, dense, linear_dense_gram};
    assert_ok(linear_solve(&features, problems, 4, &opts, fits));
    support_assert_near(fits[0].bias[0] - fits[0].bias[1], log(3.0), 1e-9, "three rows to one");
    support_assert_near(fits[0].bias[2] - fits[0].bias[1], log(2.0), 1e-9, "two rows to one");
    support_assert_near(fits[1].bias[0], -log(5.0), 1e-9, "one row to five");
    support_assert_near(fits[2].bias[0], 4.0, 1e-9, "the mean");
    assert_true(fits[3].bias[0] == 7.0 && fits[3].objective == 0.0);
    for (int i = 0; i < 4; i++) {
        assert_true(fits[i].converged);
        linear_fit_release(&fits[i]);
    }
    linear_dense_destroy(dense);
}

static void test_what_is_not_reached_is_said(void **state)
{
    static struct table t;
    struct linear_fit fit = {0};
    (void)state;
    make_table(&t);
    const struct linear_problem p = {.loss = LINEAR_LOGISTIC, .k = 1, .label = t.binary[0]};
    assert_ok(linear_solve(&t.features, &p, 1, &(struct linear_opts){1.0, 1e-9, 3}, &fit));
    assert_false(fit.converged);
    assert_int_equal(fit.iterations, 3);
    assert_true(fit.gradient > 1e-9);
    linear_fit_release(&fit);
    assert_ok(linear_solve(&t.features, &p, 1, &(struct linear_opts){1.0, 0.0, 10000}, &fit)); /* no double reaches that */
    assert_false(fit.converged);
    assert_true(fit.iterations < 10000 && fit.gradient < 1e-10);
    linear_fit_release(&fit);
    linear_dense_destroy(t.dense);
}

/* ---- what is refused ---- */

static enum status broken_gram(void *self, int k, const double *a, double *z)
{
    (void)a;
    for (int i = 0; i < 3 * k; i++)
        z[i] = NAN;
    return self == NULL ? STATUS_OK : status_fail(STATUS_NOMEM, "no memory for this");
}

static void test_refusals(void **state)
{
    struct linear_features features = {3, NULL, broken_gram};
    int32_t label[] = {0, 1, 2};
    double weight[] = {1, 1, -1}, value[] = {0, 1, INFINITY};
    struct linear_opts opts = {1.0, 1e-6, 10};
    struct linear_fit fit;
    (void)state;
    struct linear_problem p = {.loss = LINEAR_LOGISTIC, .k = 1, .label = label, .value = value};
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_ARG, "row 2");
    label[2] = 1;
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_NUMERIC, "not finite");
    assert_null(fit.a);
    features.self = label;
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_NOMEM, "no memory for this");
    p.weight = weight;
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_ARG, "row 2");
    weight[0] = weight[2] = 0; /* class 0 has no weight */
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_ARG, "a class without any");
    p.k = 2;
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_ARG, "2 outputs");
    p.loss = LINEAR_SQUARED;
    p.k = 1;
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_ARG, "row 2");
    value[2] = 1;
    opts.C = 0.0;
    assert_fails(linear_solve(&features, &p, 1, &opts, &fit), STATUS_ARG, "C 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_scikit_learn),
        cmocka_unit_test(test_derivatives_of_losses),
        cmocka_unit_test(test_losses_far_out),
        cmocka_unit_test(test_a_solution_is_a_minimum),
        cmocka_unit_test(test_company_and_threads_change_no_bit),
        cmocka_unit_test(test_features_of_zero),
        cmocka_unit_test(test_what_is_not_reached_is_said),
        cmocka_unit_test(test_refusals),
    };
    threads_set(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
