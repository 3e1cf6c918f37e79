/* Scores of rows in memory: what is predicted, how wrong it is, repeats and folds; JSON by path. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "report/run_folder.h"
#include "report/table.h"

enum { ROWS = 6, OUTPUTS = 3 };
static const int64_t ROW[ROWS] = {0, 1, 5, 0, 1, 5};
static const int32_t REPEAT[ROWS] = {0, 0, 0, 1, 1, 1}, FOLD[ROWS] = {0, 1, 0, 1, 0, 1}, LABEL[ROWS] = {2, 0, 1, 2, 0, 1};
static const float LOGITS[ROWS * OUTPUTS] = {0, 0, 1, 0, 3, 0, 2, 0, 0, 1, 1, 1, 5, 0, 0, 0, 4, 0};
static const char *const NAMES[] = {"a", "b", "c"};

static void softmax(const float *z, float *p)
{
    float sum = expf(z[0]) + expf(z[1]) + expf(z[2]);
    for (int c = 0; c < 3; c++)
        p[c] = expf(z[c]) / sum;
}

static const char *write_classes(void)
{
    static float scores[ROWS * OUTPUTS];
    const char *path = support_file("classes.h5", "", 0);
    for (int i = 0; i < ROWS; i++)
        softmax(LOGITS + 3 * i, scores + 3 * i);
    struct scores_table table = {.rows = ROWS, .outputs = OUTPUTS, .classes = 3, .row = ROW, .repeat = REPEAT,
                                 .fold = FOLD, .logits = LOGITS, .scores = scores, .label = LABEL, .names = NAMES};
    assert_ok(scores_write(path, &table));
    return path;
}

static void test_classes(void **state)
{
    struct table t;
    struct scored s;
    int64_t line[4];
    double constant;
    (void)state;
    assert_ok(table_open(write_classes(), &t));
    assert_true(t.task == TASK_CLASSES && t.classes == 3 && t.repeats == 2 && t.rows_once && !table_is_binary(&t));
    assert_int_equal(t.begin[1], 3);
    assert_int_equal(table_guess(&t, 0), 2);
    assert_int_equal(table_guess(&t, 3), 0); /* the first of equal ones */
    assert_true(table_right(&t, 0) && !table_right(&t, 1));
    support_assert_near(table_cost(&t, 1), log(exp(3.0) + 2.0), 1e-12, "cost");
    support_assert_near(table_cost(&t, 0), log(exp(1.0) + 2.0) - 1.0, 1e-12, "cost of a right row");
    assert_int_equal(table_worst(&t, 4, line), 2); /* of the first repeat, the right row left out */
    assert_int_equal(line[0], 1);
    assert_int_equal(line[1], 2);
    assert_int_equal(table_worst(&t, 1, line), 1);
    table_scored(&t, 1, &s);
    assert_int_equal(s.n, 3);
    assert_true(s.logits == t.logits + 9 && s.label == t.label + 3);
    assert_ok(table_fold_scored(&t, 1, 1, &s));
    assert_int_equal(s.n, 2);
    assert_true(s.row[0] == 0 && s.row[1] == 5 && s.label[1] == 1);
    assert_memory_equal(s.logits + 3, LOGITS + 15, 3 * sizeof(float));
    table_scored_free(&s);
    assert_ok(table_constant(&t, METRIC_ACCURACY, &constant));
    support_assert_near(constant, 1.0 / 3.0, 1e-12, "share of the most frequent class");
    assert_ok(table_constant(&t, METRIC_LOG_LOSS, &constant));
    support_assert_near(constant, log(3.0), 1e-6, "entropy of the classes");
    assert_ok(table_constant(&t, METRIC_R2, &constant));
    assert_true(isnan(constant));
    table_close(&t);
}

static void test_values_and_labels(void **state)
{
    static const float values[] = {1, 2, 4}, predicted[] = {1.5f, 2, 1}, truth[] = {1, 0, 0, 1, 1, 1};
    static const float logits[] = {2, -2, -2, 2, -1, 2};
    static const int64_t rows[] = {3, 4, 9};
    float p[6];
    struct table t;
    int64_t line[3];
    double constant;
    const char *path = support_file("values.h5", "", 0);
    (void)state;
    struct scores_table table = {.rows = 3, .outputs = 1, .row = rows, .logits = predicted, .scores = predicted,
                                 .value = values};
    assert_ok(scores_write(path, &table));
    assert_ok(table_open(path, &t));
    assert_true(t.task == TASK_REGRESSION && t.classes == 0 && t.repeats == 1);
    assert_int_equal(table_worst(&t, 3, line), 3);
    assert_true(line[0] == 2 && line[1] == 0 && line[2] == 1);
    assert_ok(table_constant(&t, METRIC_MSE, &constant));
    support_assert_near(constant, 14.0 / 9.0, 1e-6, "variance of the truth");
    table_close(&t);
    for (int i = 0; i < 6; i++)
        p[i] = 1.0f / (1.0f + expf(-logits[i]));
    table = (struct scores_table){.rows = 3, .outputs = 2, .classes = 2, .row = rows, .logits = logits, .scores = p,
                                  .value = truth, .names = NAMES};
    assert_ok(scores_write(path, &table));
    assert_ok(table_open(path, &t));
    assert_true(t.task == TASK_MULTI_LABEL && !table_is_binary(&t));
    assert_true(table_right(&t, 0) && table_right(&t, 1) && !table_right(&t, 2));
    assert_int_equal(table_worst(&t, 3, line), 1);
    support_assert_near(table_cost(&t, 2), (log1p(exp(1.0)) + log1p(exp(-2.0))) / 2.0, 1e-12, "cost");
    table_close(&t);
}

static void test_scores_that_cannot_be(void **state)
{
    static const float bad[] = {1, NAN, 3};
    static const int64_t rows[] = {3, 4, 9};
    struct table t;
    const char *path = support_file("bad.h5", "", 0);
    struct scores_table table = {.rows = 3, .outputs = 1, .row = rows, .logits = bad, .scores = bad, .value = bad};
    (void)state;
    assert_ok(scores_write(path, &table));
    assert_fails(table_open(path, &t), STATUS_NUMERIC, "row 4 is not finite");
    table_close(&t);
    table.value = NULL;
    assert_ok(scores_write(path, &table));
    assert_fails(table_open(path, &t), STATUS_FORMAT, "neither labels nor values");
    table_close(&t);
}

static void test_json_by_path(void **state)
{
    json_t *object;
    static const char text[] = "{\"a\":{\"b\":[1.5,null,{\"c\":\"x\"}]},\"n\":null}";
    (void)state;
    assert_ok(json_parse(text, sizeof text - 1, "a test", &object));
    support_assert_near(json_number_at(object, "a.b.0"), 1.5, 0.0, "a.b.0");
    assert_true(isnan(json_number_at(object, "a.b.1")) && isnan(json_number_at(object, "a.b.7")));
    assert_true(isnan(json_number_at(object, "a.x.y")) && isnan(json_number_at(NULL, "a")));
    assert_string_equal(json_text_at(object, "a.b.2.c"), "x");
    assert_string_equal(json_text_at(object, "n"), "");
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_values_and_labels),
        cmocka_unit_test(test_scores_that_cannot_be),
        cmocka_unit_test(test_json_by_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
