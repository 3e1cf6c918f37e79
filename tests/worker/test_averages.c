/* test_averages.c - means of weights beside torch.optim.swa_utils, the same bits however they are owned, exchanged with the
 * weights and back, and gone on with after a restart. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/params.h"
#include "tests/support/support.h"
#include "worker/averages.h"

enum { BLOCKS = 5, STEPS = 7, RANKS = 3 };
static const int64_t total = (int64_t)BLOCKS * PARAM_BLOCK;

/* The weights of make_tricks.py after a step. */
static void fill(float *weights, int step)
{
    for (int64_t i = 0; i < total; i++)
        weights[i] = (float)((7 * i + 3 * step) % 11 - 5) / 16.0F;
}

struct all {
    struct shards shards[1 + RANKS]; /* one owner of all, then three */
    struct averages *averages[1 + RANKS];
};

static void open_all(struct all *a, enum config_average kind, double decay)
{
    for (int i = 0; i <= RANKS; i++) {
        assert_ok(shards_make(&a->shards[i], total, 2 * PARAM_BLOCK * (int64_t)sizeof(float), i == 0 ? 0 : i - 1,
                              i == 0 ? 1 : RANKS));
        assert_ok(averages_open(kind, decay, &a->shards[i], &a->averages[i]));
    }
}

static void close_all(struct all *a)
{
    for (int i = 0; i <= RANKS; i++) {
        averages_close(a->averages[i]);
        shards_release(&a->shards[i]);
    }
}

static void check(const json_t *entry)
{
    const bool ema = strcmp(json_string_value(json_object_get(entry, "kind")), "ema") == 0;
    const json_t *means = json_object_get(entry, "means");
    float *weights = malloc((size_t)total * sizeof *weights), *kept = malloc((size_t)total * sizeof *kept),
          *alone = malloc((size_t)total * sizeof *alone);
    struct all a;
    open_all(&a, ema ? CONFIG_AVERAGE_EMA : CONFIG_AVERAGE_SWA, json_number_value(json_object_get(entry, "decay")));
    for (int step = 0; step < STEPS; step++) {
        fill(weights, step);
        memcpy(kept, weights, (size_t)total * sizeof *weights);
        for (int i = 0; i <= RANKS; i++) {
            averages_add(a.averages[i], weights);
            assert_int_equal(averages_count(a.averages[i]), step + 1);
        }
        averages_swap(a.averages[0], weights);
        for (int64_t i = 0; i < total; i++) {
            const double want = json_number_value(json_array_get(json_array_get(means, (size_t)step), (size_t)(i % 11)));
            if (!(fabs((double)weights[i] - want) <= 1e-7))
                fail_msg("element %lld after %d: %.9g, wanted %.9g", (long long)i, step + 1, (double)weights[i], want);
        }
        memcpy(alone, weights, (size_t)total * sizeof *weights);
        averages_swap(a.averages[0], weights); /* back, and nothing was rounded */
        assert_memory_equal(weights, kept, (size_t)total * sizeof *weights);
        for (int i = 1; i <= RANKS; i++)
            averages_swap(a.averages[i], weights);
        assert_memory_equal(weights, alone, (size_t)total * sizeof *weights);
        for (int i = 1; i <= RANKS; i++)
            averages_swap(a.averages[i], weights);
    }
    close_all(&a);
    free(weights);
    free(kept);
    free(alone);
}

static void test_as_torch(void **state)
{
    (void)state;
    json_t *golden;
    const json_t *entry;
    size_t i;
    assert_ok(json_read_file(TEST_DIR "/golden/tricks.json", 1 << 20, &golden));
    json_array_foreach(json_object_get(golden, "means"), i, entry) check(entry);
    assert_int_equal((int)i, 4);
    json_decref(golden);
}

/* What a checkpoint holds is enough: the mean in the weights' place, the weights beside it, and how many were added. */
static void test_resumed(void **state)
{
    (void)state;
    float *weights = malloc((size_t)total * sizeof *weights), *on = malloc((size_t)total * sizeof *on);
    struct averages *later;
    struct all a;
    float own[100];
    open_all(&a, CONFIG_AVERAGE_SWA, 0);
    for (int step = 0; step < 4; step++) {
        fill(weights, step);
        averages_add(a.averages[0], weights);
    }
    averages_swap(a.averages[0], weights); /* as while it is written */
    assert_ok(averages_get(a.averages[0], PARAM_BLOCK - 50, 100, own));
    for (int i = 0; i < 100; i++)
        assert_true(own[i] == (float)((7 * (PARAM_BLOCK - 50 + i) + 9) % 11 - 5) / 16.0F);
    assert_ok(averages_open(CONFIG_AVERAGE_SWA, 0, &a.shards[0], &later));
    averages_resume(later, weights, 4);
    averages_swap(a.averages[0], weights);
    fill(weights, 4);
    averages_add(a.averages[0], weights);
    averages_add(later, weights);
    memcpy(on, weights, (size_t)total * sizeof *on);
    averages_swap(a.averages[0], weights);
    averages_swap(later, on);
    assert_memory_equal(weights, on, (size_t)total * sizeof *on);
    averages_close(later);
    close_all(&a);
    free(weights);
    free(on);
}

static void test_ends(void **state)
{
    (void)state;
    float *weights = malloc((size_t)total * sizeof *weights), one;
    struct all a;
    open_all(&a, CONFIG_AVERAGE_EMA, 0.5);
    fill(weights, 1);
    averages_swap(a.averages[0], weights); /* of nothing: nothing */
    assert_true(weights[0] == -2.0F / 16.0F && averages_count(a.averages[0]) == 0);
    const int64_t elsewhere = a.shards[2].owned[0].begin;
    assert_fails(averages_get(a.averages[1], elsewhere, 1, &one), STATUS_ARG, "not owned");
    close_all(&a);
    averages_close(NULL);
    free(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_torch),
        cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
