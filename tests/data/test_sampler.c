/* test_sampler.c - the order of epochs, and the dealing of batches to grains. */
#include <stdlib.h>
#include <string.h>

#include "data/sampler.h"
#include "tests/support/support.h"

#define N 1000

static int64_t rows[N];

static struct sampler *open_sampler(int64_t count, int64_t batch, bool shuffle, uint64_t seed)
{
    struct sampler *s;
    struct sampler_opts o = {rows, count, batch, shuffle, seed};
    for (int64_t i = 0; i < N; i++)
        rows[i] = 3 * i + 1;
    assert_ok(sampler_open(&o, &s));
    return s;
}

/* Stored runs depend on the permutation. From an independent Philox in Python. */
static void test_order_is_pinned(void **state)
{
    static const int64_t first[10] = {0, 3, 7, 5, 1, 4, 8, 2, 9, 6}, fourth[10] = {4, 5, 8, 0, 6, 1, 3, 9, 2, 7};
    struct sampler *s = open_sampler(10, 10, true, 42);
    const int64_t *got;
    int n;
    (void)state;
    assert_ok(sampler_next(s, 0, 0, &got, &n));
    for (int i = 0; i < 10; i++)
        assert_int_equal(got[i], 3 * first[i] + 1);
    assert_ok(sampler_next(s, 3, 0, &got, &n));
    for (int i = 0; i < 10; i++)
        assert_int_equal(got[i], 3 * fourth[i] + 1);
    sampler_close(s);
}

static void test_epoch_has_each_row_once_and_a_short_last_batch(void **state)
{
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        struct sampler *s = open_sampler(N, 64, shuffle != 0, 9);
        int seen[3 * N + 1] = {0}, n;
        const int64_t *got;
        (void)state;
        assert_int_equal(sampler_steps(s), 16);
        for (int64_t step = 0; step < 16; step++) {
            assert_ok(sampler_next(s, 5, step, &got, &n));
            assert_int_equal(n, step < 15 ? 64 : 40);
            for (int i = 0; i < n; i++) {
                seen[got[i]]++;
                if (shuffle == 0)
                    assert_int_equal(got[i], rows[step * 64 + i]);
            }
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(seen[rows[i]], 1);
        sampler_close(s);
    }
}

/* Resume: any step is found without the steps before it, and in any order of asking. */
static void test_steps_are_found_without_replay(void **state)
{
    struct sampler *a = open_sampler(N, 7, true, 1), *b = open_sampler(N, 7, true, 1);
    const int64_t *p, *q;
    int n, m, differ = 0;
    (void)state;
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        for (int64_t step = 0; step < sampler_steps(a); step++)
            assert_ok(sampler_next(a, epoch, step, &p, &n));
    }
    assert_ok(sampler_next(a, 2, 31, &p, &n));
    assert_ok(sampler_next(b, 2, 31, &q, &m));
    assert_int_equal(n, m);
    assert_memory_equal(p, q, (size_t)n * sizeof *p);
    assert_ok(sampler_next(b, 1, 31, &q, &m));
    for (int i = 0; i < n; i++)
        differ += p[i] != q[i];
    assert_true(differ > 0);
    sampler_close(a);
    sampler_close(b);
}

static void test_what_does_not_exist_is_refused(void **state)
{
    struct sampler *s = open_sampler(10, 4, true, 1), *none;
    struct sampler_opts o = {rows, 0, 4, true, 1};
    const int64_t *got;
    int n;
    (void)state;
    assert_int_equal(sampler_steps(s), 3);
    assert_fails(sampler_next(s, 0, 3, &got, &n), STATUS_ARG, "has 3 steps");
    assert_fails(sampler_next(s, -1, 0, &got, &n), STATUS_ARG, "epoch -1");
    sampler_close(s);
    assert_fails(sampler_open(&o, &none), STATUS_ARG, "at least 1");
    assert_null(none);
    o.count = 1;
    o.batch_size = 0;
    assert_fails(sampler_open(&o, &none), STATUS_ARG, "at least 1");
}

/* The rule of sampler.h, done the slow way. */
static void check_plan(const struct batch_plan *plan, const int32_t *length, int n, int grains)
{
    int32_t *grain_of = calloc((size_t)n + 1, sizeof *grain_of);
    int64_t *sum = calloc((size_t)grains, sizeof *sum);
    char *done = calloc((size_t)n + 1, 1);
    for (int k = 0; k < n; k++) {
        int longest = -1, lightest = 0;
        for (int i = 0; i < n; i++) {
            if (!done[i] && (longest < 0 || length[i] > length[longest]))
                longest = i;
        }
        for (int g = 1; g < grains; g++)
            lightest = sum[g] < sum[lightest] ? g : lightest;
        done[longest] = 1;
        grain_of[longest] = lightest;
        sum[lightest] += length[longest];
    }
    assert_int_equal(plan->rows, n);
    assert_int_equal(plan->grains, grains);
    assert_int_equal(plan->grain_begin[0], 0);
    assert_int_equal(plan->grain_begin[grains], n);
    for (int g = 0; g < grains; g++) {
        assert_int_equal(plan->grain_tokens[g], sum[g]);
        for (int i = plan->grain_begin[g]; i < plan->grain_begin[g + 1]; i++) {
            assert_int_equal(grain_of[plan->position[i]], g);
            if (i > plan->grain_begin[g])
                assert_true(plan->position[i] > plan->position[i - 1]);
        }
    }
    free(grain_of);
    free(sum);
    free(done);
}

static void test_plan_follows_its_rule(void **state)
{
    static const int shapes[][3] = {/* rows, grains, longest */
                                    {0, 4, 1},     {1, 1, 9},     {1, 8, 9},      {32, 8, 60}, {33, 8, 600},
                                    {512, 8, 512}, {700, 64, 3},  {300, 1024, 70}, {64, 7, 70000}, {40, 3, 2000000000}};
    struct batch_plan plan = {0};
    int32_t length[1024];
    uint32_t x = 12345;
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (int i = 0; i < shapes[s][0]; i++) {
            x = x * 1664525u + 1013904223u;
            length[i] = (int32_t)(x / 2 % (uint32_t)shapes[s][2]);
        }
        assert_ok(batch_plan(&plan, length, shapes[s][0], shapes[s][1]));
        check_plan(&plan, length, shapes[s][0], shapes[s][1]);
    }
    batch_plan_release(&plan);
}

static void test_plan_example(void **state)
{
    /* 9 | 7 | 5 then 5 -> grain 2 (5), 4 -> grain 1 (7), 3 -> grain 0 (9) */
    static const int32_t length[] = {5, 9, 4, 7, 5, 3}, want[] = {1, 5, 2, 3, 0, 4};
    struct batch_plan plan = {0};
    (void)state;
    assert_ok(batch_plan(&plan, length, 6, 3));
    for (int i = 0; i < 6; i++)
        assert_int_equal(plan.position[i], want[i]);
    assert_int_equal(plan.grain_tokens[0], 12);
    assert_int_equal(plan.grain_tokens[1], 11);
    assert_int_equal(plan.grain_tokens[2], 10);
    static const int32_t bad[] = {3, -1};
    assert_fails(batch_plan(&plan, bad, 2, 3), STATUS_ARG, "row 1");
    assert_fails(batch_plan(&plan, length, 6, 0), STATUS_ARG, "0 grains");
    batch_plan_release(&plan);
}

static void test_grains_of_ranks_are_runs(void **state)
{
    (void)state;
    for (int grains = 1; grains <= 20; grains++) {
        for (int nranks = 1; nranks <= 24; nranks++) {
            int next = 0, last = grains, first, count;
            for (int rank = 0; rank < nranks; rank++) {
                plan_grains_of_rank(grains, rank, nranks, &first, &count);
                assert_int_equal(first, next);
                assert_true(count <= last && count >= grains / nranks && count <= grains / nranks + 1);
                next += count;
                last = count;
            }
            assert_int_equal(next, grains);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_is_pinned),
        cmocka_unit_test(test_epoch_has_each_row_once_and_a_short_last_batch),
        cmocka_unit_test(test_steps_are_found_without_replay),
        cmocka_unit_test(test_what_does_not_exist_is_refused),
        cmocka_unit_test(test_plan_follows_its_rule),
        cmocka_unit_test(test_plan_example),
        cmocka_unit_test(test_grains_of_ranks_are_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
