/* test_kernels_rows.c - cpu against ref: embeddings, norms, activations, dropout, poolings,
 * classifier. */
#include "base/philox.h"
#include "model/kernels/cpu/cpu.h"
#include "tests/model/parity.h"

static const int widths[] = {36, 50, 64, 100};
#define WIDTHS (int)(sizeof widths / sizeof widths[0])
#define WORDS 97
#define POSITIONS 150

static int width_count = WIDTHS;

static void over_widths(parity_case *run, const char *name, double slack)
{
    for (int i = 0; i < width_count; i++)
        parity_all(run, widths[i], 1, 0, NULL, 0, NULL, name, slack);
}

static void residual_norm(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    void *x = parity_act(p, n, 1), *y = parity_act(p, n, 2);
    float *gamma = parity_float(p->channels, 3), *beta = parity_float(p->channels, 4);
    void *sum = parity_output(p, "sum", true, n, 1);
    /* A mean near zero of numbers near one: eight times the bound of its size. */
    float *mean = parity_output(p, "mean", false, p->rows.tokens, 64 * p->channels);
    float *rstd = parity_output(p, "rstd", false, p->rows.tokens, p->channels);
    void *out = parity_output(p, "out", true, n, p->channels);
    assert_ok(k->residual_norm(ctx, &p->rows, p->channels, x, y, gamma, beta, 1e-12f, &p->dropout,
                               sum, mean, rstd, out));
    guard_free(x);
    guard_free(y);
    guard_free(gamma);
    guard_free(beta);
}

static void residual_norm_backward(const struct kernels *k, struct kernel_ctx *ctx,
                                   struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels, c = p->channels;
    void *da = parity_act(p, n, 1), *db = parity_act(p, n, 2), *sum = parity_act(p, n, 3);
    float *gamma = parity_float(c, 4), *mean = parity_float(p->rows.tokens, 5),
          *rstd = parity_float(p->rows.tokens, 6);
    void *dx = parity_output(p, "dx", true, n, p->channels),
         *dy = parity_output(p, "dy", true, n, p->channels);
    parity_gradients(p, 3 * c + 5, (double)p->rows.tokens + 1);
    assert_ok(k->residual_norm_backward(ctx, &p->rows, p->channels, da, db, sum, mean, rstd, gamma,
                                        &p->dropout, dx, dy, 2, 3 + 2 * c, false, &p->cut));
    guard_free(da);
    guard_free(db);
    guard_free(sum);
    guard_free(gamma);
    guard_free(mean);
    guard_free(rstd);
}

/* dx in da's place, without db, without dropout. */
static void residual_norm_backward_in_place(const struct kernels *k, struct kernel_ctx *ctx,
                                            struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels, c = p->channels;
    void *given = parity_act(p, n, 1), *sum = parity_act(p, n, 3);
    float *gamma = parity_float(c, 4), *mean = parity_float(p->rows.tokens, 5),
          *rstd = parity_float(p->rows.tokens, 6);
    void *dx = parity_output(p, "dx", true, n, p->channels),
         *dy = parity_output(p, "dy", true, n, p->channels);
    memcpy(dx, given, (size_t)parity_bytes(p, n));
    parity_gradients(p, 2 * c, (double)p->rows.tokens + 1);
    p->dropout.p = 0.0f;
    assert_ok(k->residual_norm_backward(ctx, &p->rows, p->channels, dx, NULL, sum, mean, rstd,
                                        gamma, &p->dropout, dx, dy, 0, c, false, &p->cut));
    guard_free(given);
    guard_free(sum);
    guard_free(gamma);
    guard_free(mean);
    guard_free(rstd);
}

struct tokens {
    int32_t *ids, *types;
    float *word, *position, *type, *gamma, *beta;
};

static struct tokens tokens_make(const struct parity *p)
{
    int64_t t = p->rows.tokens, c = p->channels;
    struct tokens x = {.ids = guard_alloc((size_t)t * 4),
                       .types = guard_alloc((size_t)t * 4),
                       .word = parity_float(WORDS * c, 1),
                       .position = parity_float(POSITIONS * c, 2),
                       .type = parity_float(2 * c, 3),
                       .gamma = parity_float(c, 4),
                       .beta = parity_float(c, 5)};
    for (int64_t i = 0; i < t; i++) {
        struct philox r = philox4x32(7, (uint32_t)i, 0, 0, 0);
        x.ids[i] = r.v[0] % 3 == 0 ? 1 : (int32_t)(r.v[1] % WORDS); /* one frequent id */
        x.types[i] = (int32_t)(r.v[2] % 2);
    }
    return x;
}

static void tokens_free(struct tokens *x)
{
    guard_free(x->ids);
    guard_free(x->types);
    guard_free(x->word);
    guard_free(x->position);
    guard_free(x->type);
    guard_free(x->gamma);
    guard_free(x->beta);
}

static void embed(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    struct tokens x = tokens_make(p);
    void *sum = parity_output(p, "sum", true, n, 1);
    float *mean = parity_output(p, "mean", false, p->rows.tokens, 64 * p->channels);
    float *rstd = parity_output(p, "rstd", false, p->rows.tokens, p->channels);
    void *out = parity_output(p, "out", true, n, p->channels);
    assert_ok(k->embed(ctx, &p->rows, p->channels, x.ids, x.types, x.word, x.position, x.type, 2,
                       x.gamma, x.beta, 1e-12f, &p->dropout, sum, mean, rstd, out));
    tokens_free(&x);
}

static void embed_without_types(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    struct tokens x = tokens_make(p);
    void *sum = parity_output(p, "sum", true, n, 1);
    float *mean = parity_output(p, "mean", false, p->rows.tokens, 64 * p->channels);
    float *rstd = parity_output(p, "rstd", false, p->rows.tokens, p->channels);
    void *out = parity_output(p, "out", true, n, p->channels);
    p->dropout.p = 0.0f;
    assert_ok(k->embed(ctx, &p->rows, p->channels, x.ids, NULL, x.word, x.position, NULL, 0,
                       x.gamma, x.beta, 1e-12f, &p->dropout, sum, mean, rstd, out));
    tokens_free(&x);
}

static void embed_backward(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels, c = p->channels, t = p->rows.tokens;
    struct tokens x = tokens_make(p);
    void *da = parity_act(p, n, 11), *db = parity_act(p, n, 12), *sum = parity_act(p, n, 13);
    float *mean = parity_float(t, 14), *rstd = parity_float(t, 15);
    /* word, 3 unused elements, position, type, gamma, beta */
    int64_t position = WORDS * c + 3, type = position + POSITIONS * c, gamma = type + 2 * c;
    parity_gradients(p, gamma + 2 * c, (double)p->rows.tokens + p->channels);
    assert_ok(k->embed_backward(ctx, &p->rows, p->channels, x.ids, x.types, da, db, sum, mean, rstd,
                                x.gamma, &p->dropout, 2, 0, WORDS, position, POSITIONS, type, 2,
                                gamma, gamma + c, &p->cut));
    guard_free(da);
    guard_free(db);
    guard_free(sum);
    guard_free(mean);
    guard_free(rstd);
    tokens_free(&x);
}

static void add(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    void *a = parity_act(p, n, 1), *b = parity_act(p, n, 2);
    void *y = parity_output(p, "y", true, n, 1), *in_place = parity_output(p, "in place", true, n, 1);
    memcpy(in_place, a, (size_t)parity_bytes(p, n));
    assert_ok(k->add(ctx, n, a, b, y));
    assert_ok(k->add(ctx, n, in_place, b, in_place));
    assert_memory_equal(y, in_place, (size_t)parity_bytes(p, n));
    guard_free(a);
    guard_free(b);
}

static enum activation kind;

static void activate(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    float *x = parity_float(n, 1);
    void *a = guard_alloc((size_t)parity_bytes(p, n));
    for (int64_t i = 0; i < n; i++)
        x[i] *= i % 7 == 0 ? 10.0f : 1.0f; /* beyond the polynomials' range too */
    shapes_to_act(x, n, p->bf16, a);
    void *y = parity_output(p, "y", true, n, 16);
    assert_ok(k->activate(ctx, kind, n, a, y));
    guard_free(x);
    guard_free(a);
}

static void activate_backward(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    void *x = parity_act(p, n, 1), *dy = parity_act(p, n, 2);
    void *dx = parity_output(p, "dx", true, n, 16);
    memcpy(dx, dy, (size_t)parity_bytes(p, n)); /* in place */
    assert_ok(k->activate_backward(ctx, kind, n, x, dx, dx));
    guard_free(x);
    guard_free(dy);
}

static void tanh_both(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels;
    void *x = parity_act(p, n, 1), *dy = parity_act(p, n, 2);
    void *y = parity_output(p, "y", true, n, 1), *dx = parity_output(p, "dx", true, n, 16);
    assert_ok(k->tanh_forward(ctx, n, x, y));
    assert_ok(k->tanh_backward(ctx, n, x, dy, dx));
    guard_free(x);
    guard_free(dy);
}

static void dropout(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    static const int32_t chunk[8] = {0, 3, 1, 4, 1, 5, 9, 2};
    int64_t n = p->rows.tokens * p->channels;
    void *x = parity_act(p, n, 1), *y = parity_output(p, "y", true, n, 1);
    p->dropout.chunk = chunk;
    p->dropout.p = 0.3f;
    assert_ok(k->dropout(ctx, &p->rows, p->channels, &p->dropout, x, y));
    guard_free(x);
}

static void pools(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    int64_t n = p->rows.tokens * p->channels, m = (int64_t)p->rows.count * p->channels;
    void *x = parity_act(p, n, 1), *dout = parity_act(p, m, 2);
    void *first = parity_output(p, "first", true, m, 1),
         *dfirst = parity_output(p, "dfirst", true, n, 1);
    void *mean = parity_output(p, "mean", true, m, p->rows.longest);
    void *dmean = parity_output(p, "dmean", true, n, 1);
    void *most = parity_output(p, "max", true, m, 1), *dmost = parity_output(p, "dmax", true, n, 1);
    int32_t *argmax = parity_output(p, "argmax", false, m, 1);
    void *added = parity_output(p, "added", true, n, 1);
    assert_ok(k->first_tokens(ctx, &p->rows, p->channels, x, first));
    assert_ok(k->first_tokens_backward(ctx, &p->rows, p->channels, dout, false, dfirst));
    memcpy(added, x, (size_t)parity_bytes(p, n));
    assert_ok(k->first_tokens_backward(ctx, &p->rows, p->channels, dout, true, added));
    assert_ok(k->mean_pool(ctx, &p->rows, p->channels, x, mean));
    assert_ok(k->mean_pool_backward(ctx, &p->rows, p->channels, dout, dmean));
    assert_ok(k->max_pool(ctx, &p->rows, p->channels, x, most, argmax));
    assert_ok(k->max_pool_backward(ctx, &p->rows, p->channels, dout, argmax, dmost));
    guard_free(x);
    guard_free(dout);
}

static void classify(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    enum { outputs = 7 };
    int b = p->rows.count, c = p->channels;
    void *x = parity_act(p, (int64_t)b * c, 1);
    float *w = parity_float(outputs * c, 2), *bias = parity_float(outputs, 3),
          *dlogits = parity_float(b * outputs, 4);
    float *logits = parity_output(p, "logits", false, b * outputs, c);
    void *dx = parity_output(p, "dx", true, (int64_t)b * c, outputs);
    parity_gradients(p, outputs * (c + 1) + 3, b + 1);
    assert_ok(k->classify(ctx, b, c, outputs, x, w, bias, logits));
    assert_ok(
        k->classify_backward(ctx, b, c, outputs, x, w, dlogits, dx, 0, outputs * c + 3, &p->cut));
    guard_free(x);
    guard_free(w);
    guard_free(bias);
    guard_free(dlogits);
}

static void test_residual_norm(void **state)
{
    (void)state;
    over_widths(residual_norm, "residual_norm", 1);
}

/* norm_backward subtracts two means of like size, which float rounds at the size of the terms: 3
 * times the bound. */
static void test_residual_norm_backward(void **state)
{
    (void)state;
    over_widths(residual_norm_backward, "residual_norm_backward", 3);
    over_widths(residual_norm_backward_in_place, "residual_norm_backward in place", 3);
}

static void test_embed(void **state)
{
    (void)state;
    over_widths(embed, "embed", 1);
    over_widths(embed_without_types, "embed without types", 1);
}

static void test_embed_backward(void **state)
{
    (void)state;
    over_widths(embed_backward, "embed_backward", 3);
}

static void test_add(void **state)
{
    (void)state;
    over_widths(add, "add", 1);
}

static void test_activations(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        kind = (enum activation)i;
        over_widths(activate, "activate", 1);
        over_widths(activate_backward, "activate_backward", 1);
    }
    over_widths(tanh_both, "tanh", 1);
}

static void test_dropout(void **state)
{
    (void)state;
    over_widths(dropout, "dropout", 1);
}

static void test_pools(void **state)
{
    (void)state;
    over_widths(pools, "pools", 1);
}

static void test_classifier(void **state)
{
    (void)state;
    over_widths(classify, "classify", 1);
}

/* The same on CPUs that have less: the tables below are entered only there. */
static void test_lesser_cpus(void **state)
{
    struct cpu_features all = *cpu_features(), less = all;
    (void)state;
    width_count = 2;
    for (int step = 0; step < 2; step++) {
        less.avx512 = false;
        less.avx2 = step == 0;
        cpu_features_cap(less);
        over_widths(residual_norm, "residual_norm", 1);
        over_widths(residual_norm_backward, "residual_norm_backward", 3);
        over_widths(dropout, "dropout", 1);
        test_activations(NULL);
    }
    width_count = WIDTHS;
    cpu_features_cap(all);
}

/* Errors stay below 1e-6 over the whole range, not only in the mean. */
static void test_gelu_error(void **state)
{
    (void)state;
    const struct kernels *k = kernels_cpu();
    struct parity p = {.bf16 = false};
    struct kernel_ctx *ctx = parity_open(k, &p);
    enum { n = 160001 };
    float *x = parity_float(n, 1), *y = parity_float(n, 1), *one = parity_float(n, 1),
          *dx = parity_float(n, 1);
    for (int i = 0; i < n; i++) {
        x[i] = (float)(i - n / 2) * 1e-4f;
        one[i] = 1.0f;
    }
    assert_ok(k->activate(ctx, ACTIVATION_GELU, n, x, y));
    assert_ok(k->activate_backward(ctx, ACTIVATION_GELU, n, x, one, dx));
    for (int i = 0; i < n; i++) {
        double v = x[i], phi = 0.5 * (1.0 + erf(v * M_SQRT1_2)),
               slope = phi + v * exp(-0.5 * v * v) / sqrt(2.0 * M_PI);
        support_assert_near(y[i], v * phi, 1e-6, "GELU");
        support_assert_near(dx[i], slope, 1e-6, "slope of GELU");
    }
    guard_free(x);
    guard_free(y);
    guard_free(one);
    guard_free(dx);
    k->close(ctx);
}

/* Random123's kat_vectors: philox4x32-10. */
static void test_philox_known_answers(void **state)
{
    (void)state;
    struct philox zero = philox4x32(0, 0, 0, 0, 0), ones = philox4x32(~0ull, ~0u, ~0u, ~0u, ~0u);
    const uint32_t wanted[2][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                   {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(zero.v[i], wanted[0][i]);
        assert_int_equal(ones.v[i], wanted[1][i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_residual_norm),
        cmocka_unit_test(test_residual_norm_backward),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_embed_backward),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_lesser_cpus),
        cmocka_unit_test(test_gelu_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
