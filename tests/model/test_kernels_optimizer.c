/* test_kernels_optimizer.c - AdamW and sums of squares: cpu against ref, bits, a step worked out by
 * hand. */
#include "model/kernels/cpu/cpu.h"
#include "tests/model/parity.h"

#define N 1003

struct moments {
    float w[N], m[N], v[N], g[N];
};

static void fill(struct moments *s)
{
    shapes_fill(s->w, N, 1, false);
    shapes_fill(s->m, N, 2, false);
    shapes_fill(s->v, N, 3, false);
    shapes_fill(s->g, N, 4, false);
    for (int i = 0; i < N; i++)
        s->v[i] = s->v[i] * s->v[i];
}

static struct adamw_args args_of(struct moments *s)
{
    return (struct adamw_args){.weights = s->w,
                               .gradient = s->g,
                               .m = s->m,
                               .v = s->v,
                               .beta1 = 0.9f,
                               .beta2 = 0.999f,
                               .eps = 1e-8f,
                               .clip = 0.7f,
                               .correction1 = 1.0 - pow(0.9, 3),
                               .correction2 = 1.0 - pow(0.999, 3)};
}

static void run(const struct kernels *k, struct moments *s, const struct adamw_segment *segments,
                int count)
{
    struct parity p = {.bf16 = false};
    struct kernel_ctx *ctx = parity_open(k, &p);
    struct adamw_args args = args_of(s);
    assert_ok(k->adamw(ctx, &args, segments, count));
    k->close(ctx);
}

static void test_parity(void **state)
{
    static struct moments want, got;
    /* Two segments with other rates, elements between and behind them that must stay. */
    const struct adamw_segment segments[2] = {
        {.w = 3, .g = 3, .state = 3, .count = 500, .lr = 1e-2f, .weight_decay = 0.1f},
        {.w = 510, .g = 600, .state = 520, .count = 301, .lr = 1e-3f}};
    (void)state;
    fill(&want);
    run(kernels_ref(), &want, segments, 2);
    for (int threads = 1; threads <= 3; threads++) {
        threads_set(threads);
        fill(&got);
        run(kernels_cpu(), &got, segments, 2);
        assert_true(shapes_error(got.w, want.w, N) <= ldexp(4.0, -24));
        assert_true(shapes_error(got.m, want.m, N) <= ldexp(4.0, -24));
        assert_true(shapes_error(got.v, want.v, N) <= ldexp(4.0, -24));
        for (int i = 503; i < 510; i++)
            assert_memory_equal(&got.w[i], &want.w[i], sizeof(float));
    }
}

/* The same elements as one segment or as several, wherever they begin: the same bits. */
static void test_bits_do_not_depend_on_segments(void **state)
{
    static struct moments whole, parts;
    struct adamw_segment one = {.count = N, .lr = 1e-2f, .weight_decay = 0.1f}, some[40];
    struct cpu_features all = *cpu_features(), less = all;
    (void)state;
    for (int level = 0; level < 3; level++) {
        int count = 0;
        less.avx512 = all.avx512 && level == 0;
        less.avx2 = all.avx2 && level < 2;
        cpu_features_cap(less);
        fill(&whole);
        fill(&parts);
        run(kernels_cpu(), &whole, &one, 1);
        for (int64_t at = 0; at < N; count++) {
            some[count] = one;
            some[count].w = some[count].g = some[count].state = at;
            some[count].count = at + 1 + 3 * count < N ? 1 + 3 * count : N - at;
            at += some[count].count;
        }
        run(kernels_cpu(), &parts, some, count);
        assert_memory_equal(&whole, &parts, sizeof whole);
    }
    cpu_features_cap(all);
}

/* First step of weight 1, gradient 2, lr 0.1, decay 0.5: w = 0.95 - 0.1 * 2 / (2 + eps). */
static void test_by_hand(void **state)
{
    const struct kernels *tables[2] = {kernels_ref(), kernels_cpu()};
    (void)state;
    for (int i = 0; i < 2; i++) {
        float w = 1, m = 0, v = 0, g = 4;
        struct parity p = {.bf16 = false};
        struct kernel_ctx *ctx = parity_open(tables[i], &p);
        struct adamw_segment segment = {.count = 1, .lr = 0.1f, .weight_decay = 0.5f};
        struct adamw_args args = {.weights = &w,
                                  .gradient = &g,
                                  .m = &m,
                                  .v = &v,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.999f,
                                  .eps = 1e-8f,
                                  .clip = 0.5f,
                                  .correction1 = 1 - (double)0.9f,
                                  .correction2 = 1 - (double)0.999f};
        assert_ok(tables[i]->adamw(ctx, &args, &segment, 1));
        support_assert_near(w, 0.85, 1e-6, "weight");
        support_assert_near(m, 0.2, 1e-6, "first moment");
        support_assert_near(v, 0.004, 1e-7, "second moment");
        tables[i]->close(ctx);
    }
}

static void test_square_sums(void **state)
{
    const int64_t sizes[] = {0, 1, 7, 8, 33, 100, 1003};
    struct parity p = {.bf16 = false};
    struct kernel_ctx *ref = parity_open(kernels_ref(), &p), *cpu = parity_open(kernels_cpu(), &p);
    static struct moments s;
    (void)state;
    fill(&s);
    for (int i = 0; i < 7; i++) {
        double want[16], one[16] = {0}, got[16];
        int64_t blocks = (sizes[i] + 99) / 100;
        /* Two ranges: blocks are counted from the beginning of each. */
        const struct range ranges[] = {{0, sizes[i] / 2}, {sizes[i] / 2, sizes[i]}};
        blocks = (sizes[i] / 2 + 99) / 100 + (sizes[i] - sizes[i] / 2 + 99) / 100;
        assert_ok(kernels_ref()->square_sums(ref, s.w, ranges, 2, 100, want));
        for (int threads = 1; threads <= 3; threads++) {
            threads_set(threads);
            assert_ok(
                kernels_cpu()->square_sums(cpu, s.w, ranges, 2, 100, threads == 1 ? one : got));
            if (threads > 1)
                assert_memory_equal(one, got, (size_t)blocks * sizeof(double));
        }
        for (int64_t b = 0; b < blocks; b++)
            support_assert_near(one[b], want[b], 1e-13 * want[b], "sum of squares");
    }
    kernels_ref()->close(ref);
    kernels_cpu()->close(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_bits_do_not_depend_on_segments),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_square_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
