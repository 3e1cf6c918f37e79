/*
 * test_optimizer.c - AdamW and sums of squares against ref, their bits, the 16-bit copy of the
 * weights.
 */
#include "cuda_parity.h"
#include "model/kernels/cuda/cuda.h"

enum { N = 12345, ARRAYS = 4 };

/* w, m, v, g on both sides. */
struct moments {
    float host[ARRAYS][N];
    float *device[ARRAYS];
};

static struct kernel_ctx *open_ctx(const struct kernels *k, bool training)
{
    struct kernel_ctx *ctx;
    const struct kernel_opts opts = {.device = k == kernels_ref() ? NULL : cuda_parity_device(),
                                     .precision = PRECISION_FP32,
                                     .max_tokens = 64,
                                     .max_rows = 8,
                                     .max_channels = 64,
                                     .training = training};
    assert_ok(k->open(&opts, &ctx));
    return ctx;
}

static void fill(struct moments *s)
{
    for (int a = 0; a < ARRAYS; a++)
        shapes_fill(s->host[a], N, (uint64_t)a + 1, false);
    for (int i = 0; i < N; i++)
        s->host[2][i] = s->host[2][i] * s->host[2][i];
}

static struct adamw_args args_of(float *const *array)
{
    return (struct adamw_args){.weights = array[0],
                               .m = array[1],
                               .v = array[2],
                               .gradient = array[3],
                               .beta1 = 0.9f,
                               .beta2 = 0.999f,
                               .eps = 1e-8f,
                               .clip = 0.7f,
                               .correction1 = 1.0 - pow(0.9, 3),
                               .correction2 = 1.0 - pow(0.999, 3)};
}

static void run_ref(struct moments *s, const struct adamw_segment *segments, int count)
{
    float *const array[ARRAYS] = {s->host[0], s->host[1], s->host[2], s->host[3]};
    struct kernel_ctx *ctx = open_ctx(kernels_ref(), true);
    const struct adamw_args args = args_of(array);
    assert_ok(kernels_ref()->adamw(ctx, &args, segments, count));
    kernels_ref()->close(ctx);
}

/* On the device and back; the arrays begin `shift` elements behind a multiple of 256 bytes. */
static void run_cuda(struct moments *s, const struct adamw_segment *segments, int count, int shift)
{
    struct device *device = cuda_parity_device();
    struct kernel_ctx *ctx = open_ctx(kernels_cuda(), true);
    float *raw[ARRAYS], *array[ARRAYS];
    for (int a = 0; a < ARRAYS; a++) {
        assert_ok(device_alloc(device, (N + 4) * sizeof(float), "a test's array", &raw[a]));
        array[a] = raw[a] + shift;
        assert_ok(device_put(device, array[a], s->host[a], N * sizeof(float)));
    }
    const struct adamw_args args = args_of(array);
    assert_ok(kernels_cuda()->adamw(ctx, &args, segments, count));
    for (int a = 0; a < ARRAYS; a++) {
        assert_ok(device_get(device, s->host[a], array[a], N * sizeof(float)));
        device_free(device, raw[a]);
    }
    kernels_cuda()->close(ctx);
}

static void test_parity(void **state)
{
    static struct moments want, got;
    /* Other rates, an empty segment, elements between and behind them that must stay, one segment
     * of several chunks. */
    const struct adamw_segment segments[4] = {
        {.w = 3, .g = 3, .state = 3, .count = 500, .lr = 1e-2f, .weight_decay = 0.1f},
        {.w = 505, .g = 505, .state = 505, .count = 0},
        {.w = 510, .g = 600, .state = 520, .count = 301, .lr = 1e-3f},
        {.w = 1024, .g = 1028, .state = 1032, .count = 10001, .lr = 1e-3f, .weight_decay = 0.01f}};
    (void)state;
    fill(&want);
    run_ref(&want, segments, 4);
    for (int order = 0; order < 2; order++) {
        emulated_cuda_order(order == 0 ? "forward" : "reverse");
        fill(&got);
        run_cuda(&got, segments, 4, 0);
        for (int a = 0; a < ARRAYS; a++)
            assert_true(shapes_error(got.host[a], want.host[a], N) <= ldexp(4.0, -24));
        for (int i = 503; i < 510; i++)
            assert_memory_equal(&got.host[0][i], &want.host[0][i], sizeof(float));
        for (int i = 11025; i < N; i++)
            assert_memory_equal(&got.host[0][i], &want.host[0][i], sizeof(float));
    }
    emulated_cuda_order("forward");
}

/* The same elements as one segment or as thousands, wherever they and the arrays begin: the same
 * bits. */
static void test_bits_do_not_depend_on_segments(void **state)
{
    static struct moments whole, parts;
    static struct adamw_segment some[N];
    const struct adamw_segment one = {.count = N, .lr = 1e-2f, .weight_decay = 0.1f};
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        int count = 0;
        fill(&whole);
        fill(&parts);
        run_cuda(&whole, &one, 1, 0);
        for (int64_t at = 0; at < N; count++) {
            const int64_t size = kind == 0 ? 1 + 3 * count : kind == 1 ? 2 : N;
            some[count] = one;
            some[count].w = some[count].g = some[count].state = at;
            some[count].count = at + size < N ? size : N - at;
            at += some[count].count;
        }
        assert_true(kind != 1 || count > MOST_SEGMENTS);
        run_cuda(&parts, some, count, kind == 2);
        for (int a = 0; a < ARRAYS; a++)
            assert_memory_equal(whole.host[a], parts.host[a], sizeof whole.host[a]);
    }
}

/* First step of weight 1, gradient 2 (half of 4), lr 0.1, decay 0.5: w = 0.95 - 0.1 * 2 / 2. */
static void test_by_hand(void **state)
{
    const struct adamw_segment segment = {.count = 1, .lr = 0.1f, .weight_decay = 0.5f};
    struct device *device = cuda_parity_device();
    struct kernel_ctx *ctx = open_ctx(kernels_cuda(), true);
    float *array, w = 1, m = 0, v = 0, g = 4;
    (void)state;
    assert_ok(device_alloc(device, 4096, "a test's array", &array));
    float *const places[ARRAYS] = {array, array + 64, array + 128, array + 192};
    assert_ok(device_put(device, places[0], &w, sizeof w));
    assert_ok(device_put(device, places[3], &g, sizeof g));
    struct adamw_args args = args_of(places);
    args.clip = 0.5f;
    args.correction1 = 1.0 - (double)args.beta1;
    args.correction2 = 1.0 - (double)args.beta2;
    assert_ok(kernels_cuda()->adamw(ctx, &args, &segment, 1));
    assert_ok(device_get(device, &w, places[0], sizeof w));
    assert_ok(device_get(device, &m, places[1], sizeof m));
    assert_ok(device_get(device, &v, places[2], sizeof v));
    support_assert_near((double)w, 0.85, 1e-6, "the weight");
    support_assert_near((double)m, 0.2, 1e-6, "the first moment");
    support_assert_near((double)v, 0.004, 1e-6, "the second moment");
    device_free(device, array);
    kernels_cuda()->close(ctx);
}

static void test_square_sums(void **state)
{
    enum { block = 1000, most = 40 };
    static float x[N];
    const struct range ranges[4] = {{0, 2500}, {2500, 2500}, {2503, 9999}, {10000, N}};
    double want[most], got[2][most];
    struct device *device = cuda_parity_device();
    struct kernel_ctx *ref = open_ctx(kernels_ref(), true), *ctx = open_ctx(kernels_cuda(), true);
    float *array;
    (void)state;
    shapes_fill(x, N, 1, false);
    assert_ok(device_alloc(device, (N + 4) * sizeof(float), "a test's array", &array));
    assert_ok(kernels_ref()->square_sums(ref, x, ranges, 4, block, want));
    for (int shift = 0; shift < 2; shift++) { /* aligned or not: the same order, the same bits */
        emulated_cuda_order(shift == 0 ? "forward" : "reverse");
        assert_ok(device_put(device, array + shift, x, sizeof x));
        assert_ok(kernels_cuda()->square_sums(ctx, array + shift, ranges, 4, block, got[shift]));
        for (int i = 0; i < 3 + 8 + 3; i++)
            support_assert_near(got[shift][i], want[i], 1e-13 * want[i], "a sum of squares");
    }
    assert_memory_equal(got[0], got[1], (3 + 8 + 3) * sizeof(double));
    emulated_cuda_order("forward");
    device_free(device, array);
    kernels_ref()->close(ref);
    kernels_cuda()->close(ctx);
}

/* More sums than are read back at once. */
static void test_many_square_sums(void **state)
{
    static float x[N];
    static double sums[N];
    const struct range ranges[2] = {{0, 5}, {5, N}};
    struct device *device = cuda_parity_device();
    struct kernel_ctx *ctx = open_ctx(kernels_cuda(), true);
    float *array;
    (void)state;
    assert_true((int)N > (int)MOST_SUMS);
    shapes_fill(x, N, 1, false);
    assert_ok(device_alloc(device, sizeof x, "a test's array", &array));
    assert_ok(device_put(device, array, x, sizeof x));
    assert_ok(kernels_cuda()->square_sums(ctx, array, ranges, 2, 1, sums));
    for (int i = 0; i < N; i++)
        assert_true(sums[i] == (double)x[i] * (double)x[i]);
    device_free(device, array);
    kernels_cuda()->close(ctx);
}

/* All elements that matrices and biases lie in, rounded; from a multiple of 64, to the odd end. */
static void test_weights_in_16_bits(void **state)
{
    const struct matrix m = {.offset = 200, .n = 5, .k = 7};
    const int64_t n = 40011;
    float *x = malloc((size_t)n * sizeof *x);
    (void)state;
    shapes_fill(x, n, 1, false);
    x[300] = 1e30f; /* too large for fp16 */
    x[301] = 1e-7f;
    x[302] = NAN;
    for (int precision = PRECISION_BF16; precision <= PRECISION_FP16; precision++) {
        struct device *device = cuda_parity_device();
        const struct kernel_opts opts = {.device = device,
                                         .precision = (enum precision)precision,
                                         .matrices = &m,
                                         .count = 1,
                                         .weight_count = n,
                                         .max_tokens = 64,
                                         .max_rows = 8,
                                         .max_channels = 64};
        struct kernel_ctx *ctx;
        float *weights;
        assert_ok(kernels_cuda()->open(&opts, &ctx));
        assert_ok(device_alloc(device, (size_t)n * sizeof *x, "a test's array", &weights));
        assert_ok(device_put(device, weights, x, (size_t)n * sizeof *x));
        assert_ok(kernels_cuda()->weights_changed(ctx, weights));
        assert_int_equal(ctx->weight_begin, 192);
        assert_int_equal(ctx->weight_end, n);
        uint16_t *got = malloc((size_t)(n - 192) * sizeof *got);
        assert_ok(device_get(device, got, ctx->weights16, (size_t)(n - 192) * sizeof *got));
        for (int64_t i = 192; i < n; i++) {
            const float back = precision == PRECISION_FP16 ? float_from_f16(got[i - 192])
                                                           : float_from_bf16(got[i - 192]);
            const float want = cuda_parity_round((enum precision)precision, x[i]);
            if (back != want && !(back != back && want != want))
                fail_msg("%s: element %lld is %g, wanted %g",
                         cuda_parity_precision((enum precision)precision), (long long)i,
                         (double)back, (double)want);
        }
        free(got);
        device_free(device, weights);
        kernels_cuda()->close(ctx);
    }
    free(x);
}

static void test_refusals(void **state)
{
    const struct adamw_segment segment = {.count = 1};
    const struct adamw_args args = {.correction1 = 1, .correction2 = 1};
    const struct range range = {0, 1};
    struct kernel_ctx *ctx = open_ctx(kernels_cuda(), false);
    double sum;
    (void)state;
    assert_fails(kernels_cuda()->adamw(ctx, &args, &segment, 1), STATUS_ARG, "without training");
    assert_fails(kernels_cuda()->square_sums(ctx, NULL, &range, 1, 1, &sum), STATUS_ARG,
                 "without training");
    kernels_cuda()->close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_bits_do_not_depend_on_segments),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_square_sums),
        cmocka_unit_test(test_many_square_sums),
        cmocka_unit_test(test_weights_in_16_bits),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
