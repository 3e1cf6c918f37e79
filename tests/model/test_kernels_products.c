/* test_kernels_products.c - cpu's products against ref, and their bits: a line alone, any number of
 * lines, any threads. */
#include <sys/mman.h>
#include <unistd.h>

#include "model/kernels/cpu/cpu.h"
#include "tests/model/parity.h"

/* Widths that are no multiples of 32 or 16, odd ones, one past a block, and a real one. */
static const int shapes[][2] = {{1, 1},   {36, 50},  {50, 36}, {33, 65},
                                {64, 64}, {384, 96}, {96, 640}};
#define SHAPES (int)(sizeof shapes / sizeof shapes[0])

static void products(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    const struct matrix *m = &p->matrices[0];
    int64_t t = p->rows.tokens;
    void *x = parity_act(p, t * m->k, 1), *dy = parity_act(p, t * m->n, 2);
    float *bias = parity_float(m->n, 3);
    void *y = parity_output(p, "y", true, t * m->n, m->k + 1);
    void *plain = parity_output(p, "y without bias", true, t * m->n, m->k);
    void *dx = parity_output(p, "dx", true, t * m->k, m->n);
    parity_gradients(p, m->offset + (int64_t)m->n * m->k + m->n + 2, (double)t + 1);
    assert_ok(k->linear(ctx, 0, t, x, bias, y));
    assert_ok(k->linear(ctx, 0, t, x, NULL, plain));
    assert_ok(k->linear_backward_data(ctx, 0, t, dy, dx));
    assert_ok(k->linear_backward_weight(ctx, 0, t, x, dy, m->offset + (int64_t)m->n * m->k + 1,
                                        false, NULL, &p->cut));
    guard_free(x);
    guard_free(dy);
    guard_free(bias);
}

/* One line per row of the batch; no bias. */
static void products_by_row(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    const struct matrix *m = &p->matrices[0];
    int64_t b = p->rows.count;
    void *x = parity_act(p, b * m->k, 1), *dy = parity_act(p, b * m->n, 2);
    parity_gradients(p, m->offset + (int64_t)m->n * m->k, (double)b + 1);
    assert_ok(k->linear_backward_weight(ctx, 0, b, x, dy, -1, true, NULL, &p->cut));
    guard_free(x);
    guard_free(dy);
}

static void parity_of_shapes(void)
{
    for (int i = 0; i < SHAPES; i++) {
        struct matrix m = {.offset = 5, .n = shapes[i][0], .k = shapes[i][1]};
        float *weights = parity_float(m.offset + (int64_t)m.n * m.k, 9);
        parity_all(products, m.k, 1, m.n, &m, 1, weights, "products", 1);
        parity_all(products_by_row, m.k, 1, m.n, &m, 1, weights, "products by row", 1);
        guard_free(weights);
    }
}

static void test_parity(void **state)
{
    (void)state;
    parity_of_shapes();
}

/* Every line equals the line computed alone, for many M, one to three threads. */
static void lines_alone(bool bf16, int n, int k)
{
    enum { most = 1000 };
    struct matrix m = {.offset = 0, .n = n, .k = k};
    struct parity p = {.bf16 = bf16,
                       .matrices = &m,
                       .matrix_count = 1,
                       .weights = parity_float((int64_t)n * k, 9)};
    const struct kernels *t = kernels_cpu();
    struct kernel_ctx *ctx = parity_open(t, &p);
    size_t x_line = (size_t)parity_bytes(&p, k), y_line = (size_t)parity_bytes(&p, n);
    unsigned char *x = parity_act(&p, (int64_t)most * k, 1),
                  *dy = parity_act(&p, (int64_t)most * n, 2);
    float *bias = parity_float(n, 3);
    unsigned char *y = guard_alloc(most * y_line), *dx = guard_alloc(most * x_line);
    unsigned char *some = guard_alloc(most * (x_line > y_line ? x_line : y_line));
    threads_set(1);
    for (int i = 0; i < most; i++) {
        assert_ok(t->linear(ctx, 0, 1, x + (size_t)i * x_line, bias, y + (size_t)i * y_line));
        assert_ok(
            t->linear_backward_data(ctx, 0, 1, dy + (size_t)i * y_line, dx + (size_t)i * x_line));
    }
    for (int rows = 1; rows <= most; rows = rows < 70     ? rows + 1
                                            : rows == 70  ? 127
                                            : rows == 127 ? 128
                                            : rows == 128 ? 129
                                            : rows == 129 ? 300
                                            : rows == 300 ? 640
                                            : rows == 640 ? 1000
                                                          : most + 1) {
        for (int threads = 1; threads <= 3; threads++) {
            threads_set(threads);
            assert_ok(t->linear(ctx, 0, rows, x, bias, some));
            if (memcmp(some, y, (size_t)rows * y_line) != 0)
                fail_msg("forward, %s, %d x %d: other bits for M = %d with %d threads",
                         bf16 ? "bf16" : "fp32", n, k, rows, threads);
            assert_ok(t->linear_backward_data(ctx, 0, rows, dy, some));
            if (memcmp(some, dx, (size_t)rows * x_line) != 0)
                fail_msg("data gradient, %s, %d x %d: other bits for M = %d with %d threads",
                         bf16 ? "bf16" : "fp32", n, k, rows, threads);
        }
    }
    guard_check(some, "lines");
    guard_free(x);
    guard_free(dy);
    guard_free(bias);
    guard_free(y);
    guard_free(dx);
    guard_free(some);
    guard_free(p.weights);
    t->close(ctx);
}

/* A piece's sums do not depend on what is in the other pieces or on how many there are. */
static void piece_alone(bool bf16, int n, int k)
{
    enum { tokens = 700, first = 77, last = 631 };
    struct matrix m = {.offset = 0, .n = n, .k = k};
    struct parity p = {.bf16 = bf16,
                       .matrices = &m,
                       .matrix_count = 1,
                       .weights = parity_float((int64_t)n * k, 9)};
    const struct kernels *t = kernels_cpu();
    struct kernel_ctx *ctx = parity_open(t, &p);
    int64_t size = (int64_t)n * k + n;
    unsigned char *x = parity_act(&p, (int64_t)tokens * k, 1),
                  *dy = parity_act(&p, (int64_t)tokens * n, 2);
    float *buffer[2] = {guard_alloc((size_t)size * 4), guard_alloc((size_t)size * 4)};
    const int32_t merge_begin[4] = {0}, all[4] = {0, first, last, tokens}, to[3] = {0, 1, 0};
    const bool add[3] = {false};
    struct grad_cut cut = {.pieces = 3,
                           .token = all,
                           .row = all,
                           .to = to,
                           .add = add,
                           .merge_begin = merge_begin,
                           .buffer = buffer};
    assert_ok(t->linear_backward_weight(ctx, 0, tokens, x, dy, (int64_t)n * k, false, NULL, &cut));
    const int32_t alone[2] = {0, last - first};
    float *again[1] = {guard_alloc((size_t)size * 4)};
    for (int threads = 1; threads <= 3; threads++) {
        cut = (struct grad_cut){.pieces = 1,
                                .token = alone,
                                .row = alone,
                                .to = to,
                                .add = add,
                                .merge_begin = merge_begin,
                                .buffer = again};
        threads_set(threads);
        assert_ok(t->linear_backward_weight(
            ctx, 0, last - first, x + parity_bytes(&p, (int64_t)first * k),
            dy + parity_bytes(&p, (int64_t)first * n), (int64_t)n * k, false, NULL, &cut));
        if (memcmp(again[0], buffer[1], (size_t)size * 4) != 0)
            fail_msg("%s, %d x %d: a piece alone has other bits, %d threads",
                     bf16 ? "bf16" : "fp32", n, k, threads);
    }
    guard_free(x);
    guard_free(dy);
    guard_free(buffer[0]);
    guard_free(buffer[1]);
    guard_free(again[0]);
    guard_free(p.weights);
    t->close(ctx);
}

/* Lines that end where the readable memory ends: no tile or vector reaches behind the last one.
 * (Guard zones see writes only, and AddressSanitizer does not know AMX's loads.) */
static void test_reads_stay_inside(void **state)
{
    enum { k = 64, most = 65 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = 8 * page;
    struct matrix m = {.offset = 0, .n = k, .k = k};
    unsigned char *memory =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    assert_true(memory != MAP_FAILED);
    assert_int_equal(mprotect(memory + room, page, PROT_NONE), 0);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        if (bf16 && kernels_cpu()->supports(PRECISION_BF16) != STATUS_OK)
            continue;
        struct parity p = {
            .bf16 = bf16, .matrices = &m, .matrix_count = 1, .weights = parity_float(k * k, 9)};
        struct kernel_ctx *ctx = parity_open(kernels_cpu(), &p);
        float *buffer[1] = {guard_alloc((k * k + k) * 4)};
        void *y = guard_alloc(most * k * 4);
        threads_set(1);
        for (int rows = 1; rows <= most; rows++) {
            const int32_t merge_begin[2] = {0}, piece[2] = {0, rows}, to[1] = {0};
            const bool add[1] = {false};
            struct grad_cut cut = {.pieces = 1,
                                   .token = piece,
                                   .row = piece,
                                   .to = to,
                                   .add = add,
                                   .merge_begin = merge_begin,
                                   .buffer = buffer};
            unsigned char *x = memory + room - parity_bytes(&p, (int64_t)rows * k);
            assert_ok(kernels_cpu()->linear(ctx, 0, rows, x, NULL, y));
            assert_ok(kernels_cpu()->linear_backward_data(ctx, 0, rows, x, y));
            assert_ok(
                kernels_cpu()->linear_backward_weight(ctx, 0, rows, x, x, k * k, false, NULL, &cut));
        }
        guard_free(y);
        guard_free(buffer[0]);
        guard_free(p.weights);
        kernels_cpu()->close(ctx);
    }
    assert_int_equal(munmap(memory, room + page), 0);
}

static void test_bits_fp32(void **state)
{
    (void)state;
    lines_alone(false, 384, 384);
    lines_alone(false, 50, 36);
    lines_alone(false, 96, 1536);
    piece_alone(false, 384, 96);
    piece_alone(false, 50, 36);
}

static void bits_bf16(void)
{
    lines_alone(true, 384, 384);
    lines_alone(true, 50, 36);
    lines_alone(true, 96, 1536);
    piece_alone(true, 384, 96);
    piece_alone(true, 50, 36);
}

static void test_bits_bf16(void **state)
{
    (void)state;
    if (kernels_cpu()->supports(PRECISION_BF16) != STATUS_OK)
        skip();
    bits_bf16();
}

/* AVX512-BF16 without AMX, as on Zen 4 and 5; then no AVX-512 at all. */
static void test_lesser_cpus(void **state)
{
    struct cpu_features all = *cpu_features(), less = all;
    (void)state;
    if (!all.amx || !all.bf16)
        print_message("SKIP: no AMX here, so the other tests ran without it\n");
    less.amx = false;
    cpu_features_cap(less);
    parity_of_shapes();
    if (all.bf16)
        bits_bf16();
    less.avx512 = false;
    cpu_features_cap(less);
    assert_fails(kernels_cpu()->supports(PRECISION_BF16), STATUS_UNAVAILABLE, "AVX512-BF16");
    cpu_features_cap(all);
}

static void test_without_training(void **state)
{
    struct matrix m = {.offset = 0, .n = 4, .k = 4};
    float weights[16] = {0}, x[16] = {0};
    struct kernel_opts opts = {.precision = PRECISION_FP32,
                               .matrices = &m,
                               .count = 1,
                               .max_tokens = 8,
                               .max_rows = 8,
                               .max_channels = 8};
    struct kernel_ctx *ctx;
    (void)state;
    assert_ok(kernels_cpu()->open(&opts, &ctx));
    assert_ok(kernels_cpu()->weights_changed(ctx, weights));
    assert_ok(kernels_cpu()->linear(ctx, 0, 1, x, NULL, x + 8));
    assert_fails(kernels_cpu()->linear_backward_data(ctx, 0, 1, x, x + 8), STATUS_ARG,
                 "without training");
    kernels_cpu()->close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),           cmocka_unit_test(test_bits_fp32),
        cmocka_unit_test(test_bits_bf16),        cmocka_unit_test(test_lesser_cpus),
        cmocka_unit_test(test_without_training), cmocka_unit_test(test_reads_stay_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
