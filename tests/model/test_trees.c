/*
 * test_trees.c - boosted trees: logits are those of XGBoost's own program, they learn what no linear model can, what is refused.
 */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "model/trees.h"
#include "tests/support/support.h"

enum { ROWS = 90, FITTED = 60, COLUMNS = 5, MOST = 4 };
#define BOUND 2e-5 /* of the deviation of values; the program prints 6 digits */

static float x[ROWS * COLUMNS];
static double value[FITTED], weight[FITTED], z[ROWS * MOST];
static int32_t label[FITTED];
static int64_t fitted[FITTED], scored[ROWS - FITTED];
static int rounds;

static void count_round(void)
{
    rounds++;
}

static double number(const json_t *line, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(line, key), i));
}

static struct linear_problem read_case(const json_t *line, struct trees_opts *opts)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i] = (float)number(line, "x", (size_t)i);
    for (int i = 0; i < FITTED; i++) {
        fitted[i] = i;
        value[i] = number(line, "y", (size_t)i);
        label[i] = strcmp(kind, "values") == 0 ? 0 : (int32_t)value[i];
        weight[i] = number(line, "weight", (size_t)i);
    }
    for (int i = FITTED; i < ROWS; i++)
        scored[i - FITTED] = i;
    *opts = (struct trees_opts){.rounds = (int)json_integer_value(json_object_get(line, "rounds")),
                                .depth = (int)json_integer_value(json_object_get(line, "depth")),
                                .rate = json_number_value(json_object_get(line, "rate")),
                                .penalty = json_number_value(json_object_get(line, "penalty"))};
    return (struct linear_problem){.loss = strcmp(kind, "two") == 0    ? LINEAR_LOGISTIC
                                           : strcmp(kind, "many") == 0 ? LINEAR_SOFTMAX
                                                                       : LINEAR_SQUARED,
                                   .k = (int)json_integer_value(json_object_get(line, "k")),
                                   .label = label,
                                   .value = value,
                                   .weight = json_is_array(json_object_get(line, "weight")) ? weight : NULL};
}

static json_t *golden(void)
{
    json_t *list;
    assert_ok(json_read_file(TEST_DIR "/golden/trees.json", 1 << 22, &list));
    return list;
}

static void test_logits_are_those_of_xgboost(void **state)
{
    json_t *list = golden();
    const char *version;
    struct trees_opts opts;
    (void)state;
    assert_ok(trees_library(&version));
    if (strncmp(version, "1.7.", 4) != 0) {
        print_message("SKIP: the golden numbers are of XGBoost 1.7, here is %s\n", version);
        json_decref(list);
        skip();
    }
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *line = json_array_get(list, k);
        const struct linear_problem problem = read_case(line, &opts);
        int64_t n = (ROWS - FITTED) * problem.k;
        rounds = 0;
        assert_ok(trees_fit(x, COLUMNS, fitted, FITTED, scored, ROWS - FITTED, &problem, &opts, count_round, z));
        assert_int_equal(rounds, opts.rounds);
        assert_int_equal(json_array_size(json_object_get(line, "z")), n);
        double unit = problem.loss == LINEAR_SQUARED ? 10.0 : 1.0;
        for (int64_t i = 0; i < n; i++) {
            double want = number(line, "z", (size_t)i);
            if (!(fabs(z[i] - want) <= BOUND * unit))
                fail_msg("%s: logit %d: %.9g, XGBoost has %.9g", json_string_value(json_object_get(line, "name")), (int)i, z[i],
                         want);
        }
    }
    json_decref(list);
}

static void test_either_or_is_learned(void **state)
{
    json_t *list = golden();
    struct trees_opts opts;
    int right = 0;
    (void)state;
    const struct linear_problem problem = read_case(json_array_get(list, 0), &opts);
    assert_ok(trees_fit(x, COLUMNS, fitted, FITTED, fitted, FITTED, &problem, &opts, NULL, z));
    for (int i = 0; i < FITTED; i++)
        right += (z[i] > 0.0) == label[i];
    assert_true(right >= FITTED - 2);
    json_decref(list);
}

static void test_what_is_refused(void **state)
{
    json_t *list = golden();
    struct trees_opts opts;
    (void)state;
    const struct linear_problem problem = read_case(json_array_get(list, 0), &opts);
    assert_ok(trees_fit(x, COLUMNS, fitted, FITTED, scored, 0, &problem, &opts, NULL, z));
    x[7 * COLUMNS + 2] = NAN;
    assert_fails(trees_fit(x, COLUMNS, fitted, FITTED, scored, 2, &problem, &opts, NULL, z), STATUS_ARG, "feature 2 of row 7");
    x[7 * COLUMNS + 2] = 0.0f;
    opts.depth = -1;
    assert_fails(trees_fit(x, COLUMNS, fitted, FITTED, scored, 2, &problem, &opts, NULL, z), STATUS_INTERNAL, "XGBoost, ");
    json_decref(list);
}

int main(void)
{
    const char *version;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_are_those_of_xgboost),
        cmocka_unit_test(test_either_or_is_learned),
        cmocka_unit_test(test_what_is_refused),
    };
    if (trees_library(&version) == STATUS_UNAVAILABLE) {
        printf("SKIP: %s\n", status_message());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
