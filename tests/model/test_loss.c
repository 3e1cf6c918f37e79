/* test_loss.c - losses against torch's (tests/golden/loss.json, made by make_loss.py), and what they refuse. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "model/loss.h"
#include "tests/support/support.h"

enum { ROWS = 4, OUTPUTS = 3, ALL = ROWS * OUTPUTS };

static float logits[ALL], values[ALL], weights[OUTPUTS];
static int32_t labels[ROWS];
static json_t *golden;

static double number(const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(golden, key), i));
}

static double number2(const char *key, size_t i, size_t j)
{
    return json_number_value(json_array_get(json_array_get(json_object_get(golden, key), i), j));
}

static int open_golden(void **state)
{
    (void)state;
    if (json_read_file(TEST_DIR "/golden/loss.json", 1 << 20, &golden) != STATUS_OK)
        return 1;
    for (size_t r = 0; r < ROWS; r++) {
        labels[r] = (int32_t)number("labels", r);
        for (size_t c = 0; c < OUTPUTS; c++) {
            logits[r * OUTPUTS + c] = (float)number2("logits", r, c);
            values[r * OUTPUTS + c] = (float)number2("values", r, c);
            weights[c] = (float)number("weights", c);
        }
    }
    return 0;
}

static int close_golden(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

static const json_t *want(const char *name)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(golden, "losses"), i, entry)
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return entry;
    fail_msg("no loss %s", name);
    return NULL;
}

/* Each case whole, and row by row with the same divisor: the sum of the parts is the whole. */
static void check(const char *name, const struct loss_opts *opts, const struct loss_target *target)
{
    const json_t *entry = want(name), *gradient = json_object_get(entry, "gradient");
    double loss[ROWS], one, divisor = 0, sum = 0;
    float dlogits[ALL], dx[OUTPUTS];
    for (int r = 0; r < ROWS; r++)
        divisor += loss_weight(opts, target, r);
    assert_ok(loss_compute(opts, target, ROWS, logits, divisor, 1, loss, dlogits));
    for (int r = 0; r < ROWS; r++) {
        const struct loss_target part = {
            .label = target->label == NULL ? NULL : target->label + r,
            .value = target->value == NULL ? NULL : target->value + r * OUTPUTS,
        };
        sum += loss[r];
        assert_ok(loss_compute(opts, &part, 1, logits + r * OUTPUTS, divisor, 1, &one, dx));
        assert_true(one == loss[r]);
        assert_memory_equal(dx, dlogits + r * OUTPUTS, sizeof dx);
    }
    support_assert_near(sum / divisor, json_number_value(json_object_get(entry, "loss")), 1e-6 * fabs(sum / divisor),
                        name);
    for (size_t i = 0; i < ALL; i++) {
        double g = json_number_value(json_array_get(gradient, i));
        support_assert_near((double)dlogits[i], g, 1e-6 * fabs(g) + 1e-12, name);
    }
    float scaled[ALL];
    assert_ok(loss_compute(opts, target, ROWS, logits, divisor, 1024, loss, scaled));
    for (int i = 0; i < ALL; i++)
        assert_true(scaled[i] == 1024 * dlogits[i] || fabsf(dlogits[i]) < 1e-30f); /* subnormal numbers round */
}

static void test_as_torch(void **state)
{
    (void)state;
    const struct loss_target by_label = {.label = labels}, by_value = {.value = values};
    struct loss_opts o = {.kind = LOSS_CROSS_ENTROPY, .outputs = OUTPUTS};
    check("cross_entropy", &o, &by_label);
    o.class_weights = weights;
    check("cross_entropy_weights", &o, &by_label);
    o.label_smoothing = 0.3;
    check("cross_entropy_both", &o, &by_label);
    o.class_weights = NULL;
    o.label_smoothing = 0.1;
    check("cross_entropy_smooth", &o, &by_label);
    o = (struct loss_opts){.kind = LOSS_BCE, .outputs = OUTPUTS};
    check("bce", &o, &by_value);
    o.class_weights = weights;
    check("bce_weights", &o, &by_value);
    o = (struct loss_opts){.kind = LOSS_MSE, .outputs = OUTPUTS};
    check("mse", &o, &by_value);
    o = (struct loss_opts){.kind = LOSS_CROSS_ENTROPY, .outputs = OUTPUTS, .focal_gamma = 2};
    check("focal_2", &o, &by_label);
    o.focal_gamma = 0.5;
    o.class_weights = weights;
    check("focal_half_weights", &o, &by_label);
    o = (struct loss_opts){.kind = LOSS_BCE, .outputs = OUTPUTS, .class_weights = weights, .focal_gamma = 1.5};
    check("focal_bce", &o, &by_value);
}

/* A target that is certain: the limit, no division by zero. */
static void test_focal_ends(void **state)
{
    (void)state;
    const float x[2] = {-800, 800};
    const int32_t label = 1;
    const struct loss_target target = {.label = &label};
    for (int bce = 0; bce < 2; bce++) {
        const struct loss_opts o = {.kind = bce ? LOSS_BCE : LOSS_CROSS_ENTROPY, .outputs = bce ? 1 : 2, .focal_gamma = 0.5};
        double loss;
        float dx[2];
        assert_ok(loss_compute(&o, &target, 1, x + bce, 1, 1, &loss, dx));
        assert_true(loss == 0 && dx[0] == 0 && (bce || dx[1] == 0));
    }
    const struct loss_opts smooth = {.kind = LOSS_CROSS_ENTROPY, .outputs = 2, .focal_gamma = 1, .label_smoothing = 0.1};
    double loss;
    assert_fails(loss_compute(&smooth, &target, 1, x, 1, 1, &loss, NULL), STATUS_ARG, "focal");
}

/* D2: logits 0.0368 0.0659, label 1. */
static void test_known_value(void **state)
{
    (void)state;
    const float x[2] = {0.0368f, 0.0659f};
    const int32_t label = 1;
    const struct loss_opts o = {.kind = LOSS_CROSS_ENTROPY, .outputs = 2};
    const struct loss_target target = {.label = &label};
    double loss;
    assert_ok(loss_compute(&o, &target, 1, x, 1, 1, &loss, NULL));
    support_assert_near(loss, 0.6787, 5e-5, "loss");
}

static void test_row_weights(void **state)
{
    (void)state;
    const float row_weight[ROWS] = {1, 0, 2.5f, 0.5f};
    struct loss_opts o = {.kind = LOSS_CROSS_ENTROPY, .outputs = OUTPUTS, .class_weights = weights};
    const struct loss_target plain = {.label = labels}, weighted = {.label = labels, .row_weight = row_weight};
    double a[ROWS], b[ROWS];
    float da[ALL], db[ALL];
    support_assert_near(loss_weight(&o, &weighted, 2), 2.5 * (double)weights[1], 0, "weight");
    o.kind = LOSS_BCE;
    support_assert_near(loss_weight(&o, &weighted, 2), 2.5, 0, "weight");
    o.kind = LOSS_CROSS_ENTROPY;
    assert_ok(loss_compute(&o, &plain, ROWS, logits, 4, 1, a, da));
    assert_ok(loss_compute(&o, &weighted, ROWS, logits, 4, 1, b, db));
    for (int r = 0; r < ROWS; r++) {
        assert_true(b[r] == (double)row_weight[r] * a[r]);
        for (int c = 0; c < OUTPUTS; c++)
            support_assert_near((double)db[r * OUTPUTS + c], (double)(row_weight[r] * da[r * OUTPUTS + c]),
                                2e-7 * fabs((double)da[r * OUTPUTS + c]), "gradient");
    }
}

static void test_one_output_with_labels(void **state)
{
    (void)state;
    const float x[2] = {0.7f, -1.2f}, value[2] = {1, 0};
    const int32_t label[2] = {1, 0};
    const struct loss_opts o = {.kind = LOSS_BCE, .outputs = 1};
    const struct loss_target by_label = {.label = label}, by_value = {.value = value};
    double a[2], b[2];
    float da[2], db[2];
    assert_ok(loss_compute(&o, &by_label, 2, x, 2, 1, a, da));
    assert_ok(loss_compute(&o, &by_value, 2, x, 2, 1, b, db));
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(da, db, sizeof da);
    support_assert_near(a[0], log(1 + exp(-0.7)), 1e-7, "loss");
}

static void test_probabilities(void **state)
{
    (void)state;
    float p[ALL];
    struct loss_opts o = {.kind = LOSS_CROSS_ENTROPY, .outputs = OUTPUTS};
    loss_probabilities(&o, ROWS, logits, p);
    for (size_t i = 0; i < ALL; i++)
        support_assert_near((double)p[i], number("softmax", i), 1e-7, "softmax");
    o.kind = LOSS_BCE;
    loss_probabilities(&o, ROWS, logits, p);
    for (size_t i = 0; i < ALL; i++)
        support_assert_near((double)p[i], number("sigmoid", i), 1e-7, "sigmoid");
    o.kind = LOSS_MSE;
    loss_probabilities(&o, ROWS, logits, p);
    assert_memory_equal(p, logits, sizeof p);
}

static void test_refused(void **state)
{
    (void)state;
    struct loss_opts o = {.kind = LOSS_CROSS_ENTROPY, .outputs = OUTPUTS, .class_weights = weights};
    int32_t bad[ROWS] = {0, 1, 3, 2};
    float x[ALL], v[ALL], dx[ALL];
    double loss[ROWS];
    const struct loss_target target = {.label = bad}, good = {.label = labels}, value = {.value = v}, none = {0};
    memcpy(x, logits, sizeof x);
    memcpy(v, values, sizeof v);
    (void)loss_weight(&o, &target, 2);
    assert_fails(loss_compute(&o, &target, ROWS, x, 1, 1, loss, dx), STATUS_DATA, "row 2 of the batch has label 3");
    bad[2] = -1;
    (void)loss_weight(&o, &target, 2);
    assert_fails(loss_compute(&o, &target, ROWS, x, 1, 1, loss, dx), STATUS_DATA, "label -1, wanted 0 to 2");
    assert_fails(loss_compute(&o, &good, ROWS, x, 0, 1, loss, dx), STATUS_DATA, "sum to 0");
    x[10] = NAN;
    assert_fails(loss_compute(&o, &good, ROWS, x, 1, 1, loss, dx), STATUS_NUMERIC, "row 3 of the batch: logit 1");
    x[10] = INFINITY;
    assert_fails(loss_compute(&o, &good, ROWS, x, 1, 1, loss, NULL), STATUS_NUMERIC, "logit 1 is inf");
    o.kind = LOSS_MSE;
    assert_fails(loss_compute(&o, &good, ROWS, logits, 1, 1, loss, dx), STATUS_ARG, "values");
    v[4] = NAN;
    assert_fails(loss_compute(&o, &value, ROWS, logits, 1, 1, loss, dx), STATUS_DATA, "row 1 of the batch: target 1");
    o.kind = LOSS_BCE;
    o.outputs = 1;
    assert_fails(loss_compute(&o, &none, ROWS, logits, 1, 1, loss, dx), STATUS_ARG, "no targets");
    bad[2] = 2;
    assert_fails(loss_compute(&o, &target, ROWS, logits, 1, 1, loss, dx), STATUS_DATA, "row 2 of the batch has label 2");
    assert_ok(loss_compute(&o, &none, 0, NULL, 0, 1, NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_torch),     cmocka_unit_test(test_focal_ends), cmocka_unit_test(test_known_value),
        cmocka_unit_test(test_row_weights),  cmocka_unit_test(test_one_output_with_labels),
        cmocka_unit_test(test_probabilities), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
