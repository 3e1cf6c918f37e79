/* test_rows.c - the CUDA backend's elementwise operations, poolings, classifier and losses, against
 * ref and model/loss.c. */
#include "model/kernels/cuda/cuda.h"
#include "model/loss.h"
#include "tests/cuda/cuda_parity.h"

#define PARITY_ALL (PARITY_FP32 | PARITY_HALVES)

static const int widths[] = {36, 64};

static void over_widths(cuda_parity_case *run, const struct cuda_parity *base, const char *name,
                        double slack)
{
    static const int batch[] = {5, 33, 2, -1};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        struct cuda_parity p = *base;
        p.channels = widths[i];
        cuda_parity_all(run, &p, i == 0 ? PARITY_FP32 : PARITY_HALVES, name, slack);
    }
    static const int long_widths[] = {100, 768, 1032};
    for (size_t i = 0; i < sizeof long_widths / sizeof long_widths[0]; i++) {
        struct cuda_parity p = *base;
        p.channels = long_widths[i];
        p.precision = i % 2 ? PRECISION_FP32 : PRECISION_BF16;
        cuda_parity_check(run, &p, batch, name, slack);
    }
}

/* ---- elementwise */

static enum activation kind;

static void activation(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t n = p->rows.tokens * p->channels;
    float *numbers = cuda_parity_line_numbers(p, p->channels, 1, FILLER_ZERO);
    for (int64_t i = 0; i < p->tokens * p->channels; i++)
        numbers[i] *= i % 7 == 0 ? 10.0f : 1.0f; /* where erf is 1 too */
    act *x = cuda_parity_acts(p, numbers, n);
    free(numbers);
    act *y = cuda_parity_output_lines(p, "y", PARITY_ACT, p->channels, 16, FILLER_FINITE);
    act *dy = cuda_parity_lines(p, p->channels, 2, FILLER_ZERO);
    act *dx = cuda_parity_output_lines(p, "dx", PARITY_ACT, p->channels, 16, FILLER_ZERO);
    assert_ok(k->activate(ctx, kind, n, x, y));
    assert_ok(k->activate_backward(ctx, kind, n, x, dy, dx));
    assert_ok(k->activate_backward(ctx, kind, n, x, dy, dy)); /* in place */
    struct parity_memory *m = &p->memory[p->memory_count - 2];
    m->name = "dx in dy";
    m->type = PARITY_ACT;
    m->n = n;
    m->width = p->channels;
    m->length = 16;
}

static void add(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t n = p->rows.tokens * p->channels;
    act *a = cuda_parity_lines(p, p->channels, 1, FILLER_ZERO);
    act *b = cuda_parity_lines(p, p->channels, 2, FILLER_ZERO);
    act *y = cuda_parity_output_lines(p, "y", PARITY_ACT, p->channels, 1, FILLER_ZERO);
    assert_ok(k->add(ctx, n, a, b, y));
}

static void test_add(void **state)
{
    const struct cuda_parity base = {0};
    (void)state;
    over_widths(add, &base, "sum", 1);
}

static void test_activations(void **state)
{
    static const char *const name[] = {"GELU", "GELU's tanh form", "ReLU"};
    const struct cuda_parity base = {0};
    (void)state;
    for (int i = 0; i < 3; i++) {
        kind = (enum activation)i;
        over_widths(activation, &base, name[i], 1);
    }
}

/* Neither a multiple of eight nor aligned: elements one by one, the same numbers. */
static void odd_elements(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t n = 8 * 256 + 13, at = 3;
    const size_t size = cuda_parity_act_bytes(p);
    char *x = cuda_parity_act(p, n + at, 1);
    char *y = cuda_parity_output(p, "y", PARITY_ACT, n + at, 16);
    assert_ok(k->activate(ctx, ACTIVATION_GELU, n, x + at * (int64_t)size, y + at * (int64_t)size));
}

static void test_odd_elements(void **state)
{
    (void)state;
    const struct cuda_parity base = {.channels = 1};
    cuda_parity_all(odd_elements, &base, PARITY_ALL, "GELU of odd elements", 1);
}

/* Errors stay below 1e-6 over the whole range, not only in the mean. */
static void gelu_error(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    enum { n = 40001 };
    float *x = malloc(n * sizeof *x), *got = malloc(n * sizeof *got);
    if (p->reference) {
        free(x);
        free(got);
        return;
    }
    for (int i = 0; i < n; i++)
        x[i] = (float)(i - n / 2) * 4e-4f;
    float *a = cuda_parity_floats(p, x, n), *y = cuda_parity_float(p, n, 1);
    assert_ok(k->activate(ctx, ACTIVATION_GELU, n, a, y));
    cuda_parity_get(p, got, y, n * sizeof *got);
    for (int i = 0; i < n; i++) {
        const double v = x[i];
        support_assert_near(got[i], v * 0.5 * (1.0 + erf(v * M_SQRT1_2)), 1e-6, "GELU");
    }
    free(x);
    free(got);
}

static void test_gelu_error(void **state)
{
    (void)state;
    static const int none[] = {-1};
    static struct cuda_parity p;
    const struct cuda_parity base = {.precision = PRECISION_FP32};
    cuda_parity_run(gelu_error, kernels_cuda(), &base, none, &p);
    cuda_parity_release(&p);
}

static void tanh_both(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t n = p->rows.tokens * p->channels;
    act *x = cuda_parity_lines(p, p->channels, 1, FILLER_FINITE),
        *y = cuda_parity_lines(p, p->channels, 2, FILLER_FINITE),
        *dy = cuda_parity_lines(p, p->channels, 3, FILLER_ZERO);
    act *out = cuda_parity_output_lines(p, "y", PARITY_ACT, p->channels, 1, FILLER_FINITE),
        *dx = cuda_parity_output_lines(p, "dx", PARITY_ACT, p->channels, 16, FILLER_ZERO);
    assert_ok(k->tanh_forward(ctx, n, x, out));
    assert_ok(k->tanh_backward(ctx, n, y, dy, dx));
}

static void test_tanh(void **state)
{
    (void)state;
    const struct cuda_parity base = {.channels = 36};
    cuda_parity_all(tanh_both, &base, PARITY_ALL, "tanh", 1);
}

/* ---- dropout: the head's rows of one token each, and whole rows */

static void dropout(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t n = (int64_t)p->rows.count * p->channels;
    act *x = cuda_parity_act(p, n, 1), *y = cuda_parity_output(p, "y", PARITY_ACT, n, 1);
    act *all = cuda_parity_lines(p, p->channels, 2, FILLER_NAN);
    act *out = cuda_parity_output_lines(p, "lines", PARITY_ACT, p->channels, 1, FILLER_FINITE);
    assert_ok(k->dropout(ctx, &p->firsts, p->channels, &p->dropout, x, y));
    assert_ok(k->dropout(ctx, &p->rows, p->channels, &p->dropout, all, out));
}

static void test_dropout(void **state)
{
    (void)state;
    struct cuda_parity base = {.dropout_p = 0.3f};
    over_widths(dropout, &base, "dropout", 1);
    base.channels = 37; /* octets begin anywhere in a Philox */
    cuda_parity_all(dropout, &base, PARITY_ALL, "dropout", 1);
}

/* ---- poolings */

/* Numbers of few values, so that the largest is met more than once; some NaN. */
static act *rough_lines(struct cuda_parity *p, bool nan)
{
    const int c = p->channels;
    float *x = cuda_parity_line_numbers(p, c, 1, FILLER_NAN);
    for (int64_t i = 0; i < p->tokens * c; i++)
        x[i] = nan && i % 11 == 3 ? NAN : rintf(x[i]);
    for (int e = 0; nan && e < c && p->tokens > 0; e += 5)
        x[e] = NAN; /* of a first token: it stays the largest */
    act *to = cuda_parity_acts(p, x, p->rows.tokens * c);
    free(x);
    return to;
}

static void pools(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int c = p->channels;
    const int64_t m = (int64_t)p->rows.count * c;
    act *x = cuda_parity_lines(p, c, 1, FILLER_NAN), *dout = cuda_parity_act(p, m, 2);
    act *first = cuda_parity_output(p, "first", PARITY_ACT, m, 1),
        *mean = cuda_parity_output(p, "mean", PARITY_ACT, m, (double)p->tokens);
    act *dfirst = cuda_parity_output_lines(p, "dfirst", PARITY_ACT, c, 1, FILLER_ZERO),
        *dmean = cuda_parity_output_lines(p, "dmean", PARITY_ACT, c, 1, FILLER_ZERO);
    act *added = cuda_parity_lines(p, c, 3, FILLER_ZERO);
    struct parity_memory *sums = &p->memory[p->memory_count - 1];
    sums->name = "added";
    sums->n = p->rows.tokens * c;
    sums->width = c;
    sums->filler = FILLER_ZERO;
    assert_ok(k->first_tokens(ctx, &p->rows, c, x, first));
    assert_ok(k->first_tokens_backward(ctx, &p->rows, c, dout, false, dfirst));
    assert_ok(k->first_tokens_backward(ctx, &p->rows, c, dout, true, added));
    assert_ok(k->mean_pool(ctx, &p->rows, c, x, mean));
    assert_ok(k->mean_pool_backward(ctx, &p->rows, c, dout, dmean));
}

static void max_pools(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int c = p->channels;
    const int64_t m = (int64_t)p->rows.count * c;
    act *x[2] = {rough_lines(p, false), rough_lines(p, true)}, *dout = cuda_parity_act(p, m, 2);
    for (int i = 0; i < 2; i++) {
        act *most = cuda_parity_output(p, i ? "max with NaN" : "max", PARITY_ACT, m, 1);
        int32_t *argmax = cuda_parity_output(p, i ? "argmax with NaN" : "argmax", PARITY_INT, m, 1);
        act *dx = cuda_parity_output_lines(p, "dx", PARITY_ACT, c, 1, FILLER_ZERO);
        assert_ok(k->max_pool(ctx, &p->rows, c, x[i], most, argmax));
        assert_ok(k->max_pool_backward(ctx, &p->rows, c, dout, argmax, dx));
    }
}

static void test_pools(void **state)
{
    (void)state;
    static const int with_empty[] = {4, 0, 19, 0, -1};
    struct cuda_parity base = {0};
    over_widths(pools, &base, "pools", 1);
    over_widths(max_pools, &base, "max pools", 1);
    base.channels = 64;
    cuda_parity_check(pools, &base, with_empty, "pools of empty rows", 1);
    cuda_parity_check(max_pools, &base, with_empty, "max pools of empty rows", 1);
}

/* ---- classifier */

static void classify(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    enum { outputs = 7 };
    const int c = p->channels, b = p->rows.count;
    act *x = cuda_parity_act(p, (int64_t)b * c, 1);
    float *w = cuda_parity_float(p, outputs * c, 2), *bias = cuda_parity_float(p, outputs, 3),
          *dlogits = cuda_parity_float(p, b * outputs, 4);
    float *logits = cuda_parity_output(p, "logits", PARITY_FLOAT, b * outputs, c);
    act *dx = cuda_parity_output(p, "dx", PARITY_ACT, (int64_t)b * c, outputs);
    assert_ok(k->classify(ctx, b, c, outputs, x, w, bias, logits));
    assert_ok(
        k->classify_backward(ctx, b, c, outputs, x, w, dlogits, dx, 0, outputs * c + 3, &p->cut));
}

static void test_classifier(void **state)
{
    (void)state;
    for (int c = 36; c <= 64; c += 28) {
        const struct cuda_parity base = {.channels = c, .parameters = 7 * (c + 1) + 3};
        cuda_parity_all(classify, &base, PARITY_ALL, "classify", 1);
    }
    static const int batch[] = {1, 2, 3, 1, 2, 3, 1, -1};
    for (int c = 768; c <= 1032;
         c += 264) { /* 768 a whole number of tiles, so the bias has its own */
        const struct cuda_parity base = {.precision = PRECISION_BF16,
                                         .channels = c,
                                         .cut_kind = CUT_TREE,
                                         .parameters = 7 * (c + 1) + 3};
        cuda_parity_check(classify, &base, batch, "classify", 1);
    }
}

/* ---- losses */

enum { LOSS_ROWS = 600, LOSS_OUTPUTS = 150 };

struct loss_case {
    enum loss_kind kind;
    int outputs, rows;
    double smoothing;
    bool class_weights, row_weights, labels, gradient;
    double focal;
};

static const struct loss_case losses[] = {
    {LOSS_CROSS_ENTROPY, 2, 1, 0, false, false, true, true, 0},
    {LOSS_CROSS_ENTROPY, 5, 66, 0, true, true, true, true, 2.0},
    {LOSS_BCE, 4, 40, 0, true, false, false, true, 0.75},
    {LOSS_CROSS_ENTROPY, 7, 70, 0, true, false, true, true, 0},
    {LOSS_CROSS_ENTROPY, 150, 600, 0.1, true, true, true, true, 0},
    {LOSS_CROSS_ENTROPY, 3, 33, 0.2, false, true, true, false, 0},
    {LOSS_BCE, 1, 65, 0, false, true, true, true, 0},
    {LOSS_BCE, 7, 5, 0, true, false, false, true, 0},
    {LOSS_BCE, 150, 600, 0, true, true, false, true, 0}, /* more targets than a slot holds */
    {LOSS_MSE, 1, 64, 0, false, false, false, true, 0},
    {LOSS_MSE, 5, 33, 0, false, true, false, true, 0},
    {LOSS_MSE, 5, 0, 0, false, false, false, true, 0},
};
#define LOSSES (int)(sizeof losses / sizeof losses[0])

static struct kernel_ctx *loss_ctx;
static struct cuda_parity loss_memory;

struct loss_numbers {
    float logits[LOSS_ROWS * LOSS_OUTPUTS], value[LOSS_ROWS * LOSS_OUTPUTS];
    float class_weights[LOSS_OUTPUTS], row_weight[LOSS_ROWS];
    int32_t label[LOSS_ROWS];
};

static void loss_fill(struct loss_numbers *x, const struct loss_case *c, uint64_t seed)
{
    shapes_fill(x->logits, LOSS_ROWS * LOSS_OUTPUTS, seed, false);
    shapes_fill(x->value, LOSS_ROWS * LOSS_OUTPUTS, seed + 1, false);
    shapes_fill(x->class_weights, LOSS_OUTPUTS, seed + 2, false);
    shapes_fill(x->row_weight, LOSS_ROWS, seed + 3, false);
    for (int i = 0; i < LOSS_ROWS * LOSS_OUTPUTS; i++) {
        x->logits[i] *= i % 13 == 0 ? 200.0f : 1.0f; /* far out: no overflow */
        x->value[i] = c->kind == LOSS_BCE ? (float)(x->value[i] > 0) : x->value[i];
    }
    for (int i = 0; i < LOSS_OUTPUTS; i++)
        x->class_weights[i] = fabsf(x->class_weights[i]) + 0.1f;
    for (int b = 0; b < LOSS_ROWS; b++) {
        x->row_weight[b] = fabsf(x->row_weight[b]);
        x->label[b] = (int32_t)random_below(seed, (uint64_t)b,
                                            c->kind == LOSS_BCE ? 2 : (uint64_t)c->outputs);
    }
}

static struct loss_args loss_args_of(const struct loss_case *c, const struct loss_numbers *x)
{
    return (struct loss_args){.kind = (int)c->kind,
                              .outputs = c->outputs,
                              .label_smoothing = c->smoothing,
                              .focal_gamma = c->focal,
                              .class_weights = c->class_weights ? x->class_weights : NULL,
                              .label = c->labels ? x->label : NULL,
                              .value = c->labels ? NULL : x->value,
                              .row_weight = c->row_weights ? x->row_weight : NULL,
                              .divisor = 17.5,
                              .scale = 1024.0};
}

static void loss_wanted(const struct loss_case *c, const struct loss_numbers *x, double *loss,
                        float *dlogits)
{
    const struct loss_args a = loss_args_of(c, x);
    const struct loss_opts opts = {.kind = c->kind,
                                   .outputs = c->outputs,
                                   .label_smoothing = c->smoothing,
                                   .focal_gamma = c->focal,
                                   .class_weights = a.class_weights};
    const struct loss_target target = {
        .label = a.label, .value = a.value, .row_weight = a.row_weight};
    assert_ok(loss_compute(&opts, &target, c->rows, x->logits, a.divisor, a.scale, loss, dlogits));
}

/* Exactly the host's arithmetic, but for exp and log of another library. */
static void loss_compare(const struct loss_case *c, const double *loss, const float *dlogits,
                         const double *want, const float *dwant)
{
    for (int b = 0; b < c->rows; b++)
        support_assert_near(loss[b], want[b], 1e-13 * (1 + fabs(want[b])), "a row's loss");
    for (int i = 0; c->gradient && i < c->rows * c->outputs; i++)
        support_assert_near(dlogits[i], dwant[i], 1e-7 * fabs(dwant[i]) + 1e-12,
                            "a logit's gradient");
}

static int loss_open(void **state)
{
    (void)state;
    loss_memory = (struct cuda_parity){.precision = PRECISION_FP32, .device = cuda_parity_device()};
    loss_ctx = cuda_parity_new(kernels_cuda(), &loss_memory);
    return 0;
}

static int loss_close(void **state)
{
    (void)state;
    kernels_cuda()->close(loss_ctx);
    cuda_parity_release(&loss_memory);
    return 0;
}

/* All cases are queued before any is looked at, from one host array that changes in between: slots
 * are used again only when they have been copied. */
static void test_losses(void **state)
{
    static struct loss_numbers x;
    static double loss[LOSS_ROWS], want[LOSSES][LOSS_ROWS];
    static float dlogits[LOSS_ROWS * LOSS_OUTPUTS], dwant[LOSSES][LOSS_ROWS * LOSS_OUTPUTS];
    double *at[LOSSES];
    float *dat[LOSSES], *logits[LOSSES];
    (void)state;
    for (int i = 0; i < LOSSES; i++) { /* these copies wait for the device, so they go first */
        const struct loss_case *c = &losses[i];
        const int64_t n = (int64_t)c->rows * c->outputs;
        loss_fill(&x, c, 10 * (uint64_t)i);
        loss_wanted(c, &x, want[i], dwant[i]);
        at[i] = cuda_parity_output(&loss_memory, NULL, PARITY_FLOAT, 2 * c->rows, 1);
        dat[i] = c->gradient ? cuda_parity_output(&loss_memory, NULL, PARITY_FLOAT, n, 1) : NULL;
        logits[i] = cuda_parity_floats(&loss_memory, x.logits, n);
    }
    for (int i = 0; i < LOSSES; i++) {
        const struct loss_case *c = &losses[i];
        loss_fill(&x, c, 10 * (uint64_t)i);
        const struct loss_args args = loss_args_of(c, &x);
        assert_ok(kernels_cuda()->loss(loss_ctx, &args, c->rows, logits[i], at[i], dat[i]));
        memset(&x, 0xFF, sizeof x); /* copied: the caller may do as it likes */
    }
    for (int i = 0; i < LOSSES; i++) {
        const struct loss_case *c = &losses[i];
        cuda_parity_get(&loss_memory, loss, at[i], (size_t)c->rows * sizeof *loss);
        if (c->gradient)
            cuda_parity_get(&loss_memory, dlogits, dat[i],
                            (size_t)(c->rows * c->outputs) * sizeof *dlogits);
        loss_compare(c, loss, dlogits, want[i], dwant[i]);
    }
}

/* A row with a logit that is not finite: NaN, and nothing else changes. */
static void test_loss_of_bad_logits(void **state)
{
    static struct loss_numbers x;
    static double loss[8], want[8];
    static float dlogits[40], dwant[40];
    (void)state;
    for (int kind_of = 0; kind_of < 3; kind_of++) {
        const struct loss_case c = {.kind = (enum loss_kind)kind_of,
                                    .outputs = 5,
                                    .rows = 8,
                                    .labels = kind_of == 0,
                                    .gradient = true};
        loss_fill(&x, &c, 3);
        loss_wanted(&c, &x, want, dwant);
        x.logits[5 * 2 + 4] = NAN;
        x.logits[5 * 5] = INFINITY;
        x.logits[5 * 7 + 1] = -INFINITY;
        double *at = cuda_parity_output(&loss_memory, NULL, PARITY_FLOAT, 16, 1);
        float *dat = cuda_parity_output(&loss_memory, NULL, PARITY_FLOAT, 40, 1);
        const struct loss_args args = loss_args_of(&c, &x);
        assert_ok(kernels_cuda()->loss(loss_ctx, &args, 8,
                                       cuda_parity_floats(&loss_memory, x.logits, 40), at, dat));
        cuda_parity_get(&loss_memory, loss, at, sizeof loss);
        cuda_parity_get(&loss_memory, dlogits, dat, sizeof dlogits);
        for (int b = 0; b < 8; b++) {
            const bool bad = b == 2 || b == 5 || b == 7;
            assert_true(bad == isnan(loss[b]));
            for (int e = 0; e < 5; e++)
                assert_true(bad == isnan(dlogits[5 * b + e]));
            if (bad) {
                loss[b] = want[b];
                memcpy(dlogits + 5 * b, dwant + 5 * b, 5 * sizeof *dlogits);
            }
        }
        loss_compare(&c, loss, dlogits, want, dwant);
    }
}

static void test_loss_refuses(void **state)
{
    static struct loss_numbers x;
    const struct kernels *k = kernels_cuda();
    const struct loss_case c = {
        .kind = LOSS_CROSS_ENTROPY, .outputs = 3, .rows = 4, .labels = true};
    (void)state;
    loss_fill(&x, &c, 1);
    double *at = cuda_parity_output(&loss_memory, NULL, PARITY_FLOAT, 8, 1);
    float *dat = cuda_parity_output(&loss_memory, NULL, PARITY_FLOAT, 12, 1),
          *logits = cuda_parity_floats(&loss_memory, x.logits, 12);
    struct loss_args args = loss_args_of(&c, &x);
    x.label[2] = 3;
    assert_fails(k->loss(loss_ctx, &args, 4, logits, at, dat), STATUS_DATA, "row 2 of the batch");
    x.label[2] = 0;
    args.divisor = 0;
    assert_fails(k->loss(loss_ctx, &args, 4, logits, at, dat), STATUS_DATA, "sum to 0");
    assert_ok(k->loss(loss_ctx, &args, 4, logits, at, NULL));
    args.label = NULL;
    assert_fails(k->loss(loss_ctx, &args, 4, logits, at, NULL), STATUS_ARG, "needs classes");
    args.kind = LOSS_MSE;
    args.value = x.value;
    x.value[7] = INFINITY;
    assert_fails(k->loss(loss_ctx, &args, 4, logits, at, NULL), STATUS_DATA, "target 1");
    x.value[7] = 0;
    args.outputs = 1 << 20;
    assert_fails(k->loss(loss_ctx, &args, 0, logits, at, NULL), STATUS_UNAVAILABLE, "outputs");
}

/* ---- a row's bits are its own */

enum { ROW = 33, ALONE_OUTPUTS = 6, CHANNELS = 100, OUTPUTS = 5 };

/* The row lies behind `before` tokens of another; its results, one behind the other. */
static void alone_run(enum precision precision, int before, unsigned char *bits)
{
    const int lengths[] = {before, ROW, before / 2, -1}, c = CHANNELS;
    static struct cuda_parity p;
    p = (struct cuda_parity){.precision = precision, .device = cuda_parity_device()};
    cuda_parity_batch(&p, lengths);
    p.channels = c;
    float *numbers = calloc((size_t)(p.rows.tokens * c), sizeof *numbers);
    shapes_fill(numbers, p.tokens * c, 7 + (uint64_t)before, false);
    shapes_fill(numbers + before * c, ROW * c, 3, false);
    act *x = cuda_parity_acts(&p, numbers, p.rows.tokens * c);
    free(numbers);
    const struct kernels *k = kernels_cuda();
    const struct pass_arrays pass = {
        .rows = &p.rows, .firsts = &p.firsts, .ids = p.ids, .row = p.row, .step = p.dropout.step};
    p.dropout.p = 0.1f;
    p.dropout.chunk = NULL;
    act *dropped = cuda_parity_output(&p, NULL, PARITY_ACT, p.rows.tokens * c, 1),
        *y = cuda_parity_output(&p, NULL, PARITY_ACT, p.rows.tokens * c, 1);
    act *pooled[3];
    for (int i = 0; i < 3; i++)
        pooled[i] = cuda_parity_output(&p, NULL, PARITY_ACT, 3 * c, 1);
    int32_t *argmax = cuda_parity_output(&p, NULL, PARITY_INT, 3 * c, 1);
    float *w = cuda_parity_float(&p, OUTPUTS * c, 2), *bias = cuda_parity_float(&p, OUTPUTS, 3),
          *logits = cuda_parity_output(&p, NULL, PARITY_FLOAT, 3 * OUTPUTS, 1);
    struct kernel_ctx *ctx = cuda_parity_new(k, &p);
    assert_ok(k->pass_begins(ctx, &pass));
    assert_ok(k->dropout(ctx, &p.rows, c, &p.dropout, x, dropped));
    assert_ok(k->activate(ctx, ACTIVATION_GELU, p.rows.tokens * c, dropped, y));
    assert_ok(k->first_tokens(ctx, &p.rows, c, x, pooled[0]));
    assert_ok(k->mean_pool(ctx, &p.rows, c, x, pooled[1]));
    assert_ok(k->max_pool(ctx, &p.rows, c, x, pooled[2], argmax));
    assert_ok(k->classify(ctx, 3, c, OUTPUTS, pooled[1], w, bias, logits));
    const size_t line = (size_t)c * (size_t)act_bytes(precision);
    cuda_parity_get(&p, bits, (char *)y + (size_t)before * line, ROW * line);
    bits += ROW * line;
    for (int i = 0; i < 3; i++, bits += line)
        cuda_parity_get(&p, bits, (char *)pooled[i] + line, line);
    cuda_parity_get(&p, bits, logits + OUTPUTS, OUTPUTS * sizeof *logits);
    k->close(ctx);
    cuda_parity_release(&p);
}

static void test_alone(void **state)
{
    enum { BYTES = (ROW + 3) * CHANNELS * 4 + OUTPUTS * 4 };
    static unsigned char one[BYTES], many[BYTES];
    (void)state;
    for (int half = 0; half < 2; half++) {
        alone_run(half ? PRECISION_BF16 : PRECISION_FP32, 0, one);
        alone_run(half ? PRECISION_BF16 : PRECISION_FP32, 75, many);
        assert_memory_equal(one, many, BYTES);
    }
}

int main(void)
{
    /* Device memory stays open to the host: closing it takes most of the time where there are many
     * small arrays, and entries that read it on the host are found by whole steps. */
    setenv("EMULATED_CUDA_PROTECT", "0", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_odd_elements),
        cmocka_unit_test(test_gelu_error),
        cmocka_unit_test(test_tanh),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test_setup_teardown(test_losses, loss_open, loss_close),
        cmocka_unit_test_setup_teardown(test_loss_of_bad_logits, loss_open, loss_close),
        cmocka_unit_test_setup_teardown(test_loss_refuses, loss_open, loss_close),
        cmocka_unit_test(test_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
