/* test_ensemble.c - the mean of several models' scores: beside plain arithmetic, and where that would overflow. */
#include <math.h>

#include "tests/support/support.h"
#include "worker/ensemble.h"

enum { ROWS = 3, OUTPUTS = 4, MODELS = 5, SCORES = ROWS * OUTPUTS };

static float logit(int model, int i)
{
    return 6.0f * sinf(1.7f * (float)i + 2.9f * (float)model);
}

/* As long as nothing overflows, probabilities of the result are means of probabilities. */
static void check_kind(enum loss_kind kind)
{
    struct loss_opts loss = {.kind = kind, .outputs = OUTPUTS};
    struct ensemble_mean mean;
    double wanted[SCORES] = {0.0};
    float logits[SCORES], p[SCORES];
    assert_ok(ensemble_begin(&loss, ROWS, &mean));
    for (int k = 0; k < MODELS; k++) {
        for (int i = 0; i < SCORES; i++)
            logits[i] = logit(k, i);
        loss_probabilities(&loss, ROWS, logits, p);
        for (int i = 0; i < SCORES; i++)
            wanted[i] += (double)p[i] / MODELS;
        ensemble_add(&mean, logits);
    }
    ensemble_end(&mean, logits);
    loss_probabilities(&loss, ROWS, logits, p);
    for (int i = 0; i < SCORES; i++)
        support_assert_near(p[i], wanted[i], kind == LOSS_MSE ? 2e-6 : 2e-7, "mean");
    ensemble_release(&mean);
}

static void test_mean_of_probabilities(void **state)
{
    (void)state;
    check_kind(LOSS_CROSS_ENTROPY);
    check_kind(LOSS_BCE);
    check_kind(LOSS_MSE);
}

/* One model is itself, but for softmax's free constant. */
static void test_one_model(void **state)
{
    const float z[4] = {-1000.0f, 1000.0f, 30.0f, -0.5f};
    struct loss_opts softmax = {.kind = LOSS_CROSS_ENTROPY, .outputs = 4}, bce = {.kind = LOSS_BCE, .outputs = 4};
    struct ensemble_mean mean;
    float out[4];
    (void)state;
    assert_ok(ensemble_begin(&bce, 1, &mean));
    ensemble_add(&mean, z);
    ensemble_end(&mean, out);
    for (int i = 0; i < 4; i++)
        support_assert_near(out[i], z[i], 1e-4, "logit");
    ensemble_release(&mean);
    assert_ok(ensemble_begin(&softmax, 1, &mean));
    ensemble_add(&mean, z);
    ensemble_end(&mean, out);
    for (int i = 0; i < 4; i++)
        support_assert_near(out[i] - out[1], z[i] - z[1], 1e-3, "logit");
    ensemble_release(&mean);
}

/* Scores far below what a float or a double can hold as a probability keep their order. */
static void test_extreme_scores_stay_finite(void **state)
{
    const float a[3] = {5000.0f, 0.0f, -3000.0f}, b[3] = {5000.0f, -1.0f, -3001.0f};
    struct loss_opts kinds[] = {{.kind = LOSS_CROSS_ENTROPY, .outputs = 3}, {.kind = LOSS_BCE, .outputs = 3}};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct ensemble_mean mean;
        float out[3];
        assert_ok(ensemble_begin(&kinds[k], 1, &mean));
        ensemble_add(&mean, a);
        ensemble_add(&mean, b);
        ensemble_end(&mean, out);
        assert_true(isfinite(out[0]) && isfinite(out[1]) && isfinite(out[2]) && out[0] > out[1] && out[1] > out[2]);
        ensemble_release(&mean);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean_of_probabilities),
        cmocka_unit_test(test_one_model),
        cmocka_unit_test(test_extreme_scores_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
