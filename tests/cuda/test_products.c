/* test_products.c - cuBLASLt's products against ref, and their bits: a line alone, a piece alone.
 */
#include "base/device_cuda.h"
#include "cuda_parity.h"
#include "model/kernels/cuda/cuda.h"

/* (n, k): one, odd, widths that are aligned to 4, 8 and 16 bytes only, one past a block, a real
 * one. */
static const int shapes[][2] = {{1, 1}, {36, 50}, {50, 36}, {33, 65}, {64, 64}, {96, 200}};
#define SHAPES (int)(sizeof shapes / sizeof shapes[0])

/* Where widths are aligned, the matrix and its bias are, too; else neither. */
static struct matrix matrix_of(int i)
{
    const int n = shapes[i][0], k = shapes[i][1];
    return (struct matrix){.offset = n % 8 == 0 && k % 8 == 0 ? 64 : 5, .n = n, .k = k};
}

static int64_t bias_of(const struct matrix *m)
{
    return m->offset + (int64_t)m->n * m->k + (m->offset == 64 ? 0 : 3);
}

static int64_t end_of(const struct matrix *m)
{
    return bias_of(m) + m->n;
}

static void forward(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const struct matrix *m = &p->matrices[0];
    const int64_t t = p->rows.tokens, b = p->rows.count;
    const float *bias = p->weights + bias_of(m);
    act *x = cuda_parity_lines(p, m->k, 1, FILLER_FINITE), *few = cuda_parity_act(p, b * m->k, 2);
    act *y = cuda_parity_output_lines(p, "y", PARITY_ACT, m->n, m->k + 1, FILLER_FINITE);
    act *plain =
        cuda_parity_output_lines(p, "y without bias", PARITY_ACT, m->n, m->k, FILLER_FINITE);
    act *rows = cuda_parity_output(p, "y of rows", PARITY_ACT, b * m->n, m->k + 1);
    assert_ok(k->linear(ctx, 0, t, x, bias, y));
    assert_ok(k->linear(ctx, 0, t, x, NULL, plain));
    assert_ok(k->linear(ctx, 0, b, few, bias, rows));
}

static void backward(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const struct matrix *m = &p->matrices[0];
    const int64_t t = p->rows.tokens;
    act *x = cuda_parity_lines(p, m->k, 1, FILLER_FINITE);
    act *dy = cuda_parity_lines(p, m->n, 2, FILLER_ZERO);
    act *dx = cuda_parity_output_lines(p, "dx", PARITY_ACT, m->k, m->n, FILLER_ZERO);
    assert_ok(k->linear_backward_data(ctx, 0, t, dy, dx));
    assert_ok(k->linear_backward_weight(ctx, 0, t, x, dy, bias_of(m), false, NULL, &p->cut));
}

static void backward_by_row(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const struct matrix *m = &p->matrices[0];
    const int64_t b = p->rows.count;
    act *x = cuda_parity_act(p, b * m->k, 1), *dy = cuda_parity_act(p, b * m->n, 2);
    assert_ok(k->linear_backward_weight(ctx, 0, b, x, dy, -1, true, NULL, &p->cut));
}

/* Lines of a table for outputs [table_first, table_first + table_outputs), with and without lines of
 * the pieces' own. */
static int table_first, table_outputs;
static bool table_alone;

static void backward_with_table(const struct kernels *k, struct kernel_ctx *ctx,
                                struct cuda_parity *p)
{
    enum { lines = 40, pieces = 5 };
    static const int32_t count[pieces] = {40, 0, 7, 33, 1};
    const struct matrix *m = &p->matrices[0];
    const int64_t t = p->rows.tokens, stride = table_outputs + (table_first % 8 == 0 ? 8 : 5);
    act *x = cuda_parity_lines(p, m->k, 1, FILLER_FINITE);
    act *dy = cuda_parity_lines(p, m->n, 2, FILLER_ZERO);
    float *dtable = malloc((size_t)(pieces * lines * stride) * sizeof *dtable);
    shapes_fill(dtable, pieces * lines * stride, 4, false);
    for (int64_t l = 0; l < pieces * lines; l++)
        for (int64_t e = 0; l % lines >= count[l / lines] && e < stride; e++)
            dtable[l * stride + e] = 0.0f;
    const struct table_lines more = {.x = cuda_parity_act(p, lines * m->k, 3),
                                     .dy = cuda_parity_acts(p, dtable, pieces * lines * stride),
                                     .dy_stride = stride,
                                     .lines = lines,
                                     .count = count,
                                     .first = table_first,
                                     .n = table_outputs};
    free(dtable);
    if (table_alone)
        assert_ok(k->linear_backward_weight(ctx, 0, 0, NULL, NULL, bias_of(m), false, &more,
                                            &p->cut));
    else
        assert_ok(k->linear_backward_weight(ctx, 0, t, x, dy, bias_of(m), false, &more, &p->cut));
}

static void test_tables(void **state)
{
    static const struct {
        int shape, first, outputs;
    } table[] = {{1, 0, 24}, {2, 25, 25}, {4, 0, 64}, {5, 32, 64}};
    static const enum precision types[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_FP16};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof table / sizeof *table; i++) {
        const struct matrix m = matrix_of(table[i / 2].shape);
        struct cuda_parity p = {.channels = m.k,
                                .inner = m.n,
                                .matrices = &m,
                                .matrix_count = 1,
                                .weight_count = end_of(&m),
                                .parameters = end_of(&m),
                                .gradient_length = 40};
        table_first = table[i / 2].first;
        table_outputs = table[i / 2].outputs;
        table_alone = i % 2 == 1;
        for (size_t t = 0; t < 3; t++) {
            p.precision = types[t];
            p.cut_kind = (i / 2 + t) % 3 > 0 ? CUT_TREE : CUT_ONE;
            cuda_parity_check(backward_with_table, &p, shapes_batch[5],
                              table_alone ? "gradients of a table" : "gradients with a table", 1);
        }
    }
}

static void parity(unsigned precisions, int first)
{
    for (int i = first; i < SHAPES; i++) {
        const struct matrix m = matrix_of(i);
        struct cuda_parity p = {.channels = m.k,
                                .inner = m.n,
                                .matrices = &m,
                                .matrix_count = 1,
                                .weight_count = end_of(&m)};
        cuda_parity_all(forward, &p, precisions, "product", 1);
        p.parameters = end_of(&m);
        cuda_parity_all(backward, &p, precisions, "gradients of a product", 1);
        cuda_parity_all(backward_by_row, &p, precisions, "gradients of a product by row", 1);
    }
}

static void test_float(void **state)
{
    (void)state;
    parity(PARITY_FP32, 0);
}

static void test_tf32(void **state)
{
    (void)state;
    parity(PARITY_TF32, 4);
}

static void test_halves(void **state)
{
    (void)state;
    parity(PARITY_HALVES, 2);
}

/* Timed algorithms. Which one is taken depends on the clock, so only sums are compared with ref. */
static void test_fastest(void **state)
{
    const struct matrix m = matrix_of(5);
    const struct cuda_parity base = {.channels = m.k,
                                     .inner = m.n,
                                     .precision = PRECISION_BF16,
                                     .matrices = &m,
                                     .matrix_count = 1,
                                     .weight_count = end_of(&m),
                                     .parameters = end_of(&m),
                                     .cut_kind = CUT_TREE,
                                     .fastest = true};
    static struct cuda_parity want, got;
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        cuda_parity_case *run = turn == 0 ? forward : backward;
        cuda_parity_run(run, kernels_ref(), &base, shapes_batch[5], &want);
        cuda_parity_run(run, kernels_cuda(), &base, shapes_batch[5], &got);
        for (int i = 0; i < got.memory_count; i++)
            if (got.memory[i].name != NULL)
                cuda_parity_compare(&got, &want, i, 1, got.memory[i].name);
        cuda_parity_release(&got);
        cuda_parity_release(&want);
    }
}

/* ---- bits. A context with one matrix, operands of `most` lines on the device. */
struct bench {
    struct cuda_parity p; /* memory and precision */
    struct matrix m;
    struct kernel_ctx *ctx;
    size_t x_line, y_line; /* bytes */
    unsigned char *x, *dy;
    const float *bias;
    int32_t begin[2], line[2];
    struct rows rows, firsts;
    int64_t row[1];
};

static void bench_open(struct bench *t, enum precision precision, int n, int k, int most,
                       bool exact)
{
    *t = (struct bench){.m = {.offset = 64, .n = n, .k = k}};
    struct cuda_parity *p = &t->p;
    p->precision = precision;
    p->device = cuda_parity_device();
    p->weight_count = 64 + (int64_t)n * k + n + 8; /* room for biases that begin elsewhere */
    const struct kernel_opts opts = {.device = p->device,
                                     .precision = precision,
                                     .matrices = &t->m,
                                     .count = 1,
                                     .weight_count = p->weight_count,
                                     .max_tokens = most,
                                     .max_rows = 8,
                                     .max_channels = n > k ? n : k,
                                     .training = true,
                                     .exact_pieces = exact};
    assert_ok(kernels_cuda()->open(&opts, &t->ctx));
    p->weights = cuda_parity_float(p, p->weight_count, 9);
    assert_ok(kernels_cuda()->weights_changed(t->ctx, p->weights));
    t->bias = p->weights + 64 + (int64_t)n * k;
    t->x_line = (size_t)k * cuda_parity_act_bytes(p);
    t->y_line = (size_t)n * cuda_parity_act_bytes(p);
    t->x = cuda_parity_act(p, (int64_t)most * k, 1);
    t->dy = cuda_parity_act(p, (int64_t)most * n, 2);
}

static void bench_close(struct bench *t)
{
    kernels_cuda()->close(t->ctx);
    cuda_parity_release(&t->p);
}

/* A pass of one row of these lines, and a cut of it. */
static void bench_pass(struct bench *t, int lines, const struct grad_cut *cut)
{
    t->begin[1] = lines;
    t->line[1] = 1;
    t->rows = (struct rows){.tokens = lines, .count = 1, .longest = lines, .begin = t->begin};
    t->firsts = (struct rows){.tokens = 1, .count = 1, .longest = 1, .begin = t->line};
    int32_t *ids = calloc((size_t)lines + 1, sizeof *ids);
    const struct pass_arrays pass = {
        .rows = &t->rows, .firsts = &t->firsts, .ids = ids, .row = t->row};
    assert_ok(kernels_cuda()->pass_begins(t->ctx, &pass));
    if (cut != NULL)
        assert_ok(kernels_cuda()->backward_begins(t->ctx, cut));
    free(ids);
}

/* Each line of a larger product equals the line computed alone, for many M. */
static void lines_alone(enum precision precision, int n, int k)
{
    enum { most = 300 };
    static const int counts[] = {1, 2, 3, 7, 8, 63, 64, 65, 128, 200, 256, most};
    static struct bench t;
    const struct kernels *c = kernels_cuda();
    bench_open(&t, precision, n, k, most, false);
    const size_t y_bytes = most * t.y_line, x_bytes = most * t.x_line;
    unsigned char *y = cuda_parity_place(cuda_parity_memory(&t.p, NULL, y_bytes));
    unsigned char *dx = cuda_parity_place(cuda_parity_memory(&t.p, NULL, x_bytes));
    unsigned char *y1 = malloc(y_bytes), *y2 = malloc(y_bytes), *x1 = malloc(x_bytes),
                  *x2 = malloc(x_bytes);
    for (size_t i = 0; i < most; i++) {
        assert_ok(c->linear(t.ctx, 0, 1, t.x + i * t.x_line, t.bias, y + i * t.y_line));
        assert_ok(c->linear_backward_data(t.ctx, 0, 1, t.dy + i * t.y_line, dx + i * t.x_line));
    }
    assert_ok(device_get(t.p.device, y1, y, y_bytes));
    assert_ok(device_get(t.p.device, x1, dx, x_bytes));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const size_t m = (size_t)counts[i];
        assert_ok(c->linear(t.ctx, 0, counts[i], t.x, t.bias, y));
        assert_ok(c->linear_backward_data(t.ctx, 0, counts[i], t.dy, dx));
        assert_ok(device_get(t.p.device, y2, y, m * t.y_line));
        assert_ok(device_get(t.p.device, x2, dx, m * t.x_line));
        if (memcmp(y1, y2, m * t.y_line) != 0)
            fail_msg("product, %s, %d x %d: other bits among %d lines than alone",
                     cuda_parity_precision(precision), n, k, counts[i]);
        if (memcmp(x1, x2, m * t.x_line) != 0)
            fail_msg("data gradient, %s, %d x %d: other bits among %d lines than alone",
                     cuda_parity_precision(precision), n, k, counts[i]);
    }
    free(y1);
    free(y2);
    free(x1);
    free(x2);
    bench_close(&t);
}

static void test_lines_alone(void **state)
{
    (void)state;
    for (int precision = 0; precision < 4; precision++) {
        lines_alone((enum precision)precision, 64, 96);
        lines_alone((enum precision)precision, 32, 64);
        lines_alone((enum precision)precision, 50, 36);
    }
}

/* With exact_pieces a piece has the same sums among others, alone, and added to zeros. (That the
 * number of lines can change the bits is not to be seen in emulation, that filler is read is.) */
static void piece_alone(enum precision precision, int n, int k)
{
    enum { tokens = 500, first = 77, last = 431, alone_lines = 384 };
    static struct bench t;
    const struct kernels *c = kernels_cuda();
    bench_open(&t, precision, n, k, tokens, true);
    const int64_t size = t.p.weight_count, matrix = (int64_t)n * k;
    float *device = cuda_parity_float(&t.p, 2 * size, 3), *host[3];
    float *buffer[2] = {device, device + size};
    for (int i = 0; i < 3; i++)
        host[i] = malloc((size_t)size * sizeof *host[i]);
    const int32_t none[4] = {0}, pieces[4] = {0, first, last, tokens}, one[2] = {0, last - first};
    const int32_t row[4] = {0, 0, 0, 1}, row_of_one[2] = {0, 1}, to[3] = {0, 1, 0};
    bool add[3] = {false};
    struct grad_cut cut = {.pieces = 3,
                           .token = pieces,
                           .row = row,
                           .to = to,
                           .add = add,
                           .merge_begin = none,
                           .buffer = buffer};
    bench_pass(&t, tokens, &cut);
    assert_ok(c->linear_backward_weight(t.ctx, 0, tokens, t.x, t.dy, -1, false, NULL, &cut));
    assert_ok(device_get(t.p.device, host[0], buffer[1] + t.m.offset, (size_t)matrix * 4));
    /* Alone, with filler: zeros for dy, NaN for x, which says whether it was read. */
    unsigned char *x = cuda_parity_place(cuda_parity_memory(&t.p, NULL, alone_lines * t.x_line));
    unsigned char *dy = cuda_parity_place(cuda_parity_memory(&t.p, NULL, alone_lines * t.y_line));
    unsigned char *copy = malloc(alone_lines * (t.x_line + t.y_line));
    memset(copy, 0xFF, alone_lines * t.x_line);
    assert_ok(device_get(t.p.device, copy, t.x + first * t.x_line, (last - first) * t.x_line));
    assert_ok(device_put(t.p.device, x, copy, alone_lines * t.x_line));
    memset(copy, 0, alone_lines * t.y_line);
    assert_ok(device_get(t.p.device, copy, t.dy + first * t.y_line, (last - first) * t.y_line));
    assert_ok(device_put(t.p.device, dy, copy, alone_lines * t.y_line));
    free(copy);
    for (int turn = 0; turn < 2; turn++) {
        add[0] = turn == 1;
        assert_ok(device_zero(t.p.device, buffer[0], (size_t)size * 4));
        cut = (struct grad_cut){.pieces = 1,
                                .token = one,
                                .row = row_of_one,
                                .to = to,
                                .add = add,
                                .merge_begin = none,
                                .buffer = buffer};
        bench_pass(&t, last - first, &cut);
        assert_ok(c->linear_backward_weight(t.ctx, 0, alone_lines, x, dy, -1, false, NULL, &cut));
        assert_ok(
            device_get(t.p.device, host[1 + turn], buffer[0] + t.m.offset, (size_t)matrix * 4));
        if (memcmp(host[0], host[1 + turn], (size_t)matrix * 4) != 0)
            fail_msg("%s, %d x %d: a piece %s has other bits than among others",
                     cuda_parity_precision(precision), n, k, turn == 1 ? "added" : "alone");
    }
    for (int i = 0; i < 3; i++)
        free(host[i]);
    bench_close(&t);
}

static void test_piece_alone(void **state)
{
    (void)state;
    piece_alone(PRECISION_FP32, 64, 96);
    piece_alone(PRECISION_BF16, 64, 96);
    piece_alone(PRECISION_FP16, 36, 50);
}

/* A piece without lines: zeros where it is written, nothing where it is added. */
static void test_no_lines(void **state)
{
    static struct bench t;
    (void)state;
    bench_open(&t, PRECISION_BF16, 8, 8, 64, false);
    float *device = cuda_parity_float(&t.p, 2 * t.p.weight_count, 3);
    float *buffer[2] = {device, device + t.p.weight_count};
    float before[64], after[2][64];
    const int32_t none[3] = {0}, to[2] = {0, 1};
    const bool add[2] = {false, true};
    const struct grad_cut cut = {.pieces = 2,
                                 .token = none,
                                 .row = none,
                                 .to = to,
                                 .add = add,
                                 .merge_begin = none,
                                 .buffer = buffer};
    bench_pass(&t, 0, &cut);
    assert_ok(device_get(t.p.device, before, buffer[1] + 64, sizeof before));
    assert_ok(kernels_cuda()->linear(t.ctx, 0, 0, t.x, t.bias, t.dy));
    assert_ok(kernels_cuda()->linear_backward_data(t.ctx, 0, 0, t.dy, t.x));
    assert_ok(kernels_cuda()->linear_backward_weight(t.ctx, 0, 0, t.x, t.dy, -1, false, NULL, &cut));
    for (int i = 0; i < 2; i++)
        assert_ok(device_get(t.p.device, after[i], buffer[i] + 64, sizeof after[i]));
    for (int i = 0; i < 64; i++)
        assert_true(after[0][i] == 0.0f);
    assert_memory_equal(before, after[1], sizeof before);
    bench_close(&t);
}

/* Biases of one shape may be aligned differently, which algorithms care about: each gets the same
 * bits whichever comes first. */
static void test_biases(void **state)
{
    enum { lines = 40, biases = 3 };
    static const int order[2][biases] = {{0, 1, 4},
                                         {4, 1, 0}}; /* elements behind the aligned one */
    const struct kernels *c = kernels_cuda();
    static struct bench t;
    (void)state;
    for (int precision = 0; precision < 4; precision++) {
        unsigned char *y[2][5] = {{NULL}};
        for (int turn = 0; turn < 2; turn++) {
            bench_open(&t, (enum precision)precision, 64, 96, lines, false);
            for (int i = 0; i < biases; i++) {
                const int at = order[turn][i];
                y[turn][at] = malloc(lines * t.y_line);
                assert_ok(c->linear(t.ctx, 0, lines, t.x, t.bias + at, t.dy));
                assert_ok(device_get(t.p.device, y[turn][at], t.dy, lines * t.y_line));
            }
            bench_close(&t);
        }
        for (int at = 0; at < 5; at++) {
            if (y[0][at] != NULL)
                assert_memory_equal(y[0][at], y[1][at], lines * t.y_line);
            free(y[0][at]);
            free(y[1][at]);
        }
    }
}

static void test_refusals(void **state)
{
    static struct bench t;
    const struct kernels *c = kernels_cuda();
    (void)state;
    bench_open(&t, PRECISION_BF16, 64, 64, 64, false);
    assert_fails(c->linear(t.ctx, 1, 8, t.x, t.bias, t.dy), STATUS_ARG, "matrix 1 of 1");
    assert_fails(c->linear(t.ctx, 0, 8, t.x, t.bias, t.dy + 2), STATUS_ARG,
                 "wanted multiples of 16");
    assert_fails(c->linear(t.ctx, 0, 8, t.x, (float *)t.x, t.dy), STATUS_ARG, "16-bit copy");
    const struct grad_cut cut = {.pieces = 1};
    assert_fails(c->linear_backward_weight(t.ctx, 0, 8, t.x, t.dy, -1, false, NULL, &cut), STATUS_ARG,
                 "backward_begins was told of 0");
    bench_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float),       cmocka_unit_test(test_tf32),
        cmocka_unit_test(test_halves),      cmocka_unit_test(test_tables),
        cmocka_unit_test(test_fastest),     cmocka_unit_test(test_lines_alone),
        cmocka_unit_test(test_piece_alone), cmocka_unit_test(test_no_lines),
        cmocka_unit_test(test_biases),      cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
