/*
 * test_kernels_ref.c - ref's backward entries against central differences of its forward entries.
 *
 * The loss is the sum of every output times a fixed number. Forward computes in double and rounds
 * once to float, so a difference over 2 h = 0.02 is right to about 1e-4 of the loss's terms.
 */
#include "tests/model/parity.h"

#define C 12
#define HEADS 3
#define T 9
#define B 3
#define H 1e-2f

static const int32_t begin[B + 1] = {0, 4, 5, 9};
static const int64_t row_id[B] = {11, 5, 70};
static const struct rows rows = {.tokens = T, .count = B, .longest = 4, .begin = begin};
static const struct dropout dropout = {
    .p = 0.25f, .seed = 3, .step = 1, .layer = 1, .site = 2, .row = row_id};
static const int32_t merge_begin[2], piece_token[2] = {0, T}, piece_row[2] = {0, B}, to[1];
static const bool add[1];

/* Inputs that are checked; the loss reads them. */
struct input {
    float *x;
    const float *dx;
    int64_t n;
    const char *name;
};

typedef double loss_fn(const struct kernels *k, struct kernel_ctx *ctx);

static float weigh[T * 64]; /* gradient of the outputs */
static float scratch[4][T * 64];

static double weighted(const float *y, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)y[i] * (double)weigh[i];
    return sum;
}

static struct kernel_ctx *ctx_of(const struct matrix *m, int count, float *w)
{
    struct parity p = {.matrices = m, .matrix_count = count, .weights = w};
    shapes_fill(weigh, (int64_t)(sizeof weigh / sizeof *weigh), 77, false);
    return parity_open(kernels_ref(), &p);
}

static void check(loss_fn *loss, struct kernel_ctx *ctx, const struct input *in, int count)
{
    for (int i = 0; i < count; i++) {
        for (int64_t e = 0; e < in[i].n; e++) {
            float old = in[i].x[e];
            in[i].x[e] = old + H;
            double up = loss(kernels_ref(), ctx);
            in[i].x[e] = old - H;
            double down = loss(kernels_ref(), ctx);
            double h = (double)(old + H) - (double)(old - H);
            in[i].x[e] = old;
            support_assert_near((double)in[i].dx[e], (up - down) / h,
                                2e-3 * (1.0 + fabs((double)in[i].dx[e])), in[i].name);
        }
    }
}

/* ---- residual and norm ---- */

static float x[T * C], y[T * C], gamma_[C], beta_[C], mean[T], rstd[T];

static double norm_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->residual_norm(ctx, &rows, C, x, y, gamma_, beta_, 1e-5f, &dropout, scratch[0],
                               mean, rstd, scratch[1]));
    return weighted(scratch[1], T * C);
}

static void test_residual_norm(void **state)
{
    static float dx[T * C], dy[T * C], gradient[2 * C], da[T * C], db[T * C];
    float *buffer[1] = {gradient};
    struct grad_cut cut = {.pieces = 1,
                           .token = piece_token,
                           .row = piece_row,
                           .to = to,
                           .add = add,
                           .merge_begin = merge_begin,
                           .buffer = buffer};
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    (void)state;
    shapes_fill(x, T * C, 1, false);
    shapes_fill(y, T * C, 2, false);
    shapes_fill(gamma_, C, 3, false);
    shapes_fill(beta_, C, 4, false);
    (void)norm_loss(kernels_ref(), ctx);
    for (int i = 0; i < T * C; i++) {
        da[i] = weigh[i] * 0.25f;
        db[i] = weigh[i] * 0.75f;
    }
    assert_ok(kernels_ref()->residual_norm_backward(ctx, &rows, C, da, db, scratch[0], mean, rstd,
                                                    gamma_, &dropout, dx, dy, 0, C, false, &cut));
    const struct input in[] = {{x, dx, T * C, "x"},
                               {y, dy, T * C, "y"},
                               {gamma_, gradient, C, "gamma"},
                               {beta_, gradient + C, C, "beta"}};
    check(norm_loss, ctx, in, 4);
    kernels_ref()->close(ctx);
}

/* ---- embeddings ---- */

#define V 5
static const int32_t ids[T] = {1, 2, 1, 0, 4, 1, 3, 3, 2}, types[T] = {0, 0, 1, 1, 0, 0, 1, 1, 1};
static float word[V * C], position[6 * C], type[2 * C];

static double embed_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->embed(ctx, &rows, C, ids, types, word, position, type, 2, gamma_, beta_, 1e-5f,
                       &dropout, scratch[0], mean, rstd, scratch[1]));
    return weighted(scratch[1], T * C);
}

static void test_embed(void **state)
{
    static float gradient[(V + 6 + 2 + 2) * C];
    float *buffer[1] = {gradient}, *dp = gradient + V * C, *dt = dp + 6 * C, *dg = dt + 2 * C;
    struct grad_cut cut = {.pieces = 1,
                           .token = piece_token,
                           .row = piece_row,
                           .to = to,
                           .add = add,
                           .merge_begin = merge_begin,
                           .buffer = buffer};
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    (void)state;
    shapes_fill(word, V * C, 1, false);
    shapes_fill(position, 6 * C, 2, false);
    shapes_fill(type, 2 * C, 3, false);
    shapes_fill(gamma_, C, 4, false);
    shapes_fill(beta_, C, 5, false);
    (void)embed_loss(kernels_ref(), ctx);
    assert_ok(kernels_ref()->embed_backward(ctx, &rows, C, ids, types, weigh, NULL, scratch[0],
                                            mean, rstd, gamma_, &dropout, 2, 0, V, V * C, 6,
                                            (V + 6) * C, 2, (V + 8) * C, (V + 9) * C, &cut));
    const struct input in[] = {{word, gradient, V * C, "word"},
                               {position, dp, 6 * C, "position"},
                               {type, dt, 2 * C, "type"},
                               {gamma_, dg, C, "gamma"},
                               {beta_, dg + C, C, "beta"}};
    check(embed_loss, ctx, in, 5);
    kernels_ref()->close(ctx);
}

/* ---- attention, over all tokens and over the first of each row ---- */

static float qkv[T * 3 * C], lse[T * HEADS];
static struct rows queries;

static double attention_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->attention(ctx, &queries, &rows, HEADS, C / HEADS, qkv, 3 * C, qkv + C, qkv + 2 * C,
                           3 * C, &dropout, scratch[0], lse));
    return weighted(scratch[0], queries.tokens * C);
}

static void test_attention(void **state)
{
    static const int32_t first[B + 1] = {0, 1, 2, 3};
    static float d[T * 3 * C];
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    (void)state;
    for (int some = 0; some < 2; some++) {
        queries = some ? (struct rows){.tokens = B, .count = B, .longest = 1, .begin = first}
                       : rows;
        shapes_fill(qkv, T * 3 * C, 1, false);
        memset(d, 0, sizeof d);
        (void)attention_loss(kernels_ref(), ctx);
        assert_ok(kernels_ref()->attention_backward(ctx, &queries, &rows, HEADS, C / HEADS, qkv,
                                                    3 * C, qkv + C, qkv + 2 * C, 3 * C, &dropout,
                                                    scratch[0], lse, weigh, d, d + C, d + 2 * C));
        const struct input in[] = {{qkv, d, T * 3 * C, "qkv"}};
        check(attention_loss, ctx, in, 1);
    }
    kernels_ref()->close(ctx);
}

/* ---- products, activations, poolings, classifier ---- */

#define N 7
static float w[N * C], bias[N];
static const struct matrix matrix = {.offset = 0, .n = N, .k = C};

static double linear_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->linear(ctx, 0, T, x, bias, scratch[0]));
    return weighted(scratch[0], T * N);
}

static void test_linear(void **state)
{
    static float dx[T * C], gradient[N * C + N];
    float *buffer[1] = {gradient};
    struct grad_cut cut = {.pieces = 1,
                           .token = piece_token,
                           .row = piece_row,
                           .to = to,
                           .add = add,
                           .merge_begin = merge_begin,
                           .buffer = buffer};
    (void)state;
    shapes_fill(x, T * C, 1, false);
    shapes_fill(w, N * C, 2, false);
    shapes_fill(bias, N, 3, false);
    struct kernel_ctx *ctx = ctx_of(&matrix, 1, w);
    assert_ok(kernels_ref()->linear_backward_data(ctx, 0, T, weigh, dx));
    assert_ok(kernels_ref()->linear_backward_weight(ctx, 0, T, x, weigh, N * C, false, NULL, &cut));
    const struct input in[] = {
        {x, dx, T * C, "x"}, {w, gradient, N * C, "w"}, {bias, gradient + N * C, N, "bias"}};
    check(linear_loss, ctx, in, 3);
    kernels_ref()->close(ctx);
}

static double classify_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->classify(ctx, B, C, N, x, w, bias, scratch[0]));
    return weighted(scratch[0], B * N);
}

static void test_classifier(void **state)
{
    static float dx[B * C], gradient[N * C + N];
    float *buffer[1] = {gradient};
    struct grad_cut cut = {.pieces = 1,
                           .token = piece_token,
                           .row = piece_row,
                           .to = to,
                           .add = add,
                           .merge_begin = merge_begin,
                           .buffer = buffer};
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    (void)state;
    shapes_fill(x, T * C, 1, false);
    shapes_fill(w, N * C, 2, false);
    assert_ok(kernels_ref()->classify_backward(ctx, B, C, N, x, w, weigh, dx, 0, N * C, &cut));
    const struct input in[] = {
        {x, dx, B * C, "x"}, {w, gradient, N * C, "w"}, {bias, gradient + N * C, N, "bias"}};
    check(classify_loss, ctx, in, 3);
    kernels_ref()->close(ctx);
}

static enum activation kind;
static int pool;
static int32_t argmax[B * C];

static double activate_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->activate(ctx, kind, T * C, x, scratch[0]));
    return weighted(scratch[0], T * C);
}

static double tanh_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->tanh_forward(ctx, T * C, x, scratch[0]));
    return weighted(scratch[0], T * C);
}

static double dropout_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    assert_ok(k->dropout(ctx, &rows, C, &dropout, x, scratch[0]));
    return weighted(scratch[0], T * C);
}

static double pool_loss(const struct kernels *k, struct kernel_ctx *ctx)
{
    if (pool == 0)
        assert_ok(k->first_tokens(ctx, &rows, C, x, scratch[0]));
    else if (pool == 1)
        assert_ok(k->mean_pool(ctx, &rows, C, x, scratch[0]));
    else
        assert_ok(k->max_pool(ctx, &rows, C, x, scratch[0], argmax));
    return weighted(scratch[0], B * C);
}

static void test_elementwise(void **state)
{
    static float dx[T * C];
    const struct kernels *k = kernels_ref();
    const struct input in[] = {{x, dx, T * C, "x"}};
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    (void)state;
    shapes_fill(x, T * C, 1, false);
    for (int i = 0; i < T * C; i++) /* keep away from ReLU's kink */
        x[i] += fabsf(x[i]) < 0.05f ? 0.2f : 0.0f;
    for (int i = 0; i < 3; i++) {
        kind = (enum activation)i;
        assert_ok(k->activate_backward(ctx, kind, T * C, x, weigh, dx));
        check(activate_loss, ctx, in, 1);
    }
    (void)tanh_loss(k, ctx);
    assert_ok(k->tanh_backward(ctx, T * C, scratch[0], weigh, dx));
    check(tanh_loss, ctx, in, 1);
    assert_ok(k->dropout(ctx, &rows, C, &dropout, weigh, dx)); /* dropout is its own gradient */
    check(dropout_loss, ctx, in, 1);
    kernels_ref()->close(ctx);
}

static void test_pools(void **state)
{
    static float dx[T * C];
    const struct kernels *k = kernels_ref();
    const struct input in[] = {{x, dx, T * C, "x"}};
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    (void)state;
    shapes_fill(x, T * C, 1, false);
    for (int i = 0; i < T * C;
         i++) /* tokens of a channel at least 0.1 apart: a maximum that h does not move */
        x[i] = rintf(x[i] * 4.0f) / 4.0f + 0.1f * (float)(i / C % 2);
    for (pool = 0; pool < 3; pool++) {
        (void)pool_loss(k, ctx);
        if (pool == 0)
            assert_ok(k->first_tokens_backward(ctx, &rows, C, weigh, false, dx));
        else if (pool == 1)
            assert_ok(k->mean_pool_backward(ctx, &rows, C, weigh, dx));
        else
            assert_ok(k->max_pool_backward(ctx, &rows, C, weigh, argmax, dx));
        if (pool < 2)
            check(pool_loss, ctx, in, 1);
    }
    /* max: ties are possible above, so the rule itself: the first largest token takes the gradient.
     */
    for (int b = 0; b < B; b++) {
        for (int e = 0; e < C; e++) {
            for (int t = begin[b]; t < begin[b + 1]; t++) {
                int best = argmax[b * C + e];
                assert_true(x[best * C + e] > x[t * C + e] ||
                            (x[best * C + e] == x[t * C + e] && best <= t));
                assert_true(dx[t * C + e] == (t == best ? weigh[b * C + e] : 0.0f));
            }
        }
    }
    kernels_ref()->close(ctx);
}

/* Kept values are scaled, their share is right, and another row, step or site draws other
 * decisions. */
static void test_dropout_share(void **state)
{
    enum { n = 4096 };
    static float one[n], a[n], b[n];
    static const int32_t whole[2] = {0, n / 64};
    struct rows one_row = {.tokens = n / 64, .count = 1, .longest = n / 64, .begin = whole};
    struct dropout d = dropout;
    struct kernel_ctx *ctx = ctx_of(NULL, 0, NULL);
    int kept = 0, same = 0;
    (void)state;
    for (int i = 0; i < n; i++)
        one[i] = 1.0f;
    assert_ok(kernels_ref()->dropout(ctx, &one_row, 64, &d, one, a));
    d.site++;
    assert_ok(kernels_ref()->dropout(ctx, &one_row, 64, &d, one, b));
    for (int i = 0; i < n; i++) {
        kept += a[i] != 0.0f;
        same += (a[i] != 0.0f) == (b[i] != 0.0f);
        assert_true(a[i] == 0.0f || a[i] == 65536.0f / (65536.0f - 16384.0f));
    }
    support_assert_near(kept, 0.75 * n, 4 * sqrt(n * 0.75 * 0.25), "decisions kept");
    support_assert_near(same, 0.625 * n, 4 * sqrt(n * 0.625 * 0.375),
                        "decisions shared by two sites");
    kernels_ref()->close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_residual_norm), cmocka_unit_test(test_embed),
        cmocka_unit_test(test_attention),     cmocka_unit_test(test_linear),
        cmocka_unit_test(test_classifier),    cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_pools),         cmocka_unit_test(test_dropout_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
