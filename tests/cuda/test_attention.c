/*
 * test_attention.c - attention of the CUDA backend (emulated) against ref: every instance of the
 * kernels, lengths around their tiles, one query a row, dropout, filler, lines that are not
 * aligned.
 *
 * Worst errors found, of the bounds: out 0.60 (bf16), 0.55 (fp16), 0.10 (fp32); gradients 1.18,
 * 0.96, 0.20. Theirs are twice the bound: as everywhere, the sum of dout * out takes out as it was
 * rounded, which shows where one key has nearly all the probability.
 */
#include "tests/cuda/cuda_parity.h"

static struct {
    bool pooled;   /* queries are the first token of each row */
    bool backward; /* name the gradients, else what forward writes */
    bool odd;      /* lines that do not begin at multiples of 16 bytes */
    int alone;     /* >= 0: the batch is row `alone` of another one */
    bool one_hot;  /* q = 0, v and dout one-hot from key or query `from` on: shows each decision */
    int from;
} how;

/* (lines, width) numbers that name their row and place in it, wherever the row lies; NaN behind. */
static act *numbers(struct cuda_parity *p, const struct rows *rows, int64_t width, uint64_t seed,
                    enum parity_filler filler)
{
    const int64_t all = rows->tokens * width;
    float *x = malloc((size_t)(all + 1) * sizeof *x);
    for (int b = 0; b < rows->count; b++)
        shapes_fill(x + rows->begin[b] * width, (rows->begin[b + 1] - rows->begin[b]) * width,
                    seed + 16 * (uint64_t)(how.alone >= 0 ? how.alone : b), false);
    for (int64_t i = rows->begin[rows->count] * width; i < all; i++)
        x[i] = filler == FILLER_ZERO ? 0.0f : NAN;
    if (how.one_hot) {
        const int64_t C = p->channels, d = C / p->heads;
        for (int b = 0; b < rows->count; b++)
            for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
                for (int64_t c = 0; c < width; c++) /* dout, or q (zeros), k and v */
                    x[t * width + c] = (width == C || c >= 2 * C) &&
                                       c % d == t - rows->begin[b] - how.from;
    }
    act *to = cuda_parity_acts(p, x, all);
    free(x);
    return to;
}

static act *at(const struct cuda_parity *p, act *x, int64_t i)
{
    return (unsigned char *)x + (size_t)i * cuda_parity_act_bytes(p);
}

static void *output(struct cuda_parity *p, bool named, const char *name, enum parity_type type,
                    const struct rows *rows, int64_t width, double length,
                    enum parity_filler filler)
{
    void *to = cuda_parity_output(p, named ? name : NULL, type, rows->tokens * width, length);
    if (rows == &p->rows) {
        p->memory[p->memory_count - 1].width = width;
        p->memory[p->memory_count - 1].filler = filler;
    }
    return to;
}

/* Full: q, k, v fused as (T, 3C). Pooled: q (B, C) apart from k, v (T, 2C). */
static void attention_case(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t C = p->channels, kv_stride = (how.pooled ? 2 : 3) * C + how.odd;
    const int64_t q_stride = how.pooled ? C + how.odd : kv_stride, k_at = how.pooled ? 0 : C;
    const struct rows *queries = how.pooled ? &p->firsts : &p->rows;
    const int d = p->channels / p->heads;
    const double length = d + p->rows.longest;
    const enum parity_filler zero = how.odd ? FILLER_NAN : FILLER_ZERO; /* nobody writes the gap */
    if (how.alone >= 0 && p->rows.count == 1) {
        p->row[0] = 1000 + 7 * how.alone + ((int64_t)how.alone << 33);
        p->chunk[0] = how.alone % 3;
        if (k->pass_begins != NULL)
            assert_ok(k->pass_begins(ctx, &(struct pass_arrays){.rows = &p->rows,
                                                                .firsts = &p->firsts,
                                                                .ids = p->ids,
                                                                .types = p->types,
                                                                .row = p->row,
                                                                .chunk = p->chunk,
                                                                .step = p->dropout.step}));
    }
    act *kv = numbers(p, &p->rows, kv_stride, 1, FILLER_NAN);
    act *q = how.pooled ? numbers(p, queries, q_stride, 2, FILLER_NAN) : kv;
    act *out = output(p, !how.backward, "out", PARITY_ACT, queries, C, length, FILLER_ZERO);
    float *lse =
        output(p, !how.backward, "lse", PARITY_FLOAT, queries, p->heads, length, FILLER_FINITE);
    assert_ok(k->attention(ctx, queries, &p->rows, p->heads, d, q, q_stride, at(p, kv, k_at),
                           at(p, kv, k_at + C), kv_stride, &p->dropout, out, lse));
    if (!how.backward)
        return;
    act *dout = numbers(p, queries, C, 3, FILLER_ZERO);
    act *dkv = output(p, true, how.pooled ? "dk, dv" : "dq, dk, dv", PARITY_ACT, &p->rows,
                      kv_stride, length, zero);
    act *dq = how.pooled ? output(p, true, "dq", PARITY_ACT, queries, q_stride, length, zero) : dkv;
    assert_ok(k->attention_backward(ctx, queries, &p->rows, p->heads, d, q, q_stride,
                                    at(p, kv, k_at), at(p, kv, k_at + C), kv_stride, &p->dropout,
                                    out, lse, dout, dq, at(p, dkv, k_at), at(p, dkv, k_at + C)));
}

static struct cuda_parity shape(enum precision precision, int heads, int head_size, float dropout)
{
    return (struct cuda_parity){.precision = precision,
                                .heads = heads,
                                .channels = heads * head_size,
                                .dropout_p = dropout};
}

static int as_usual(void **unused)
{
    (void)unused;
    memset(&how, 0, sizeof how);
    how.alone = -1;
    return 0;
}

static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_FP16};

static void check(enum precision precision, int heads, int head_size, float dropout,
                  const int *lengths)
{
    char name[64];
    for (int backward = 0; backward < 2; backward++) {
        const struct cuda_parity base = shape(precision, heads, head_size, dropout);
        how.backward = backward == 1;
        snprintf(name, sizeof name, "attention%s%s%s, heads of %d", how.pooled ? " of first" : "",
                 backward ? " backward" : "", dropout > 0.0f ? " with dropout" : "", head_size);
        cuda_parity_check(attention_case, &base, lengths, name, backward ? 2.0 : 1.0);
    }
}

static void test_every_instance(void **unused)
{
    (void)unused;
    static const struct {
        int heads, head_size;
        float dropout;
        int lengths[4];
    } table[] = {
        {3, 8, 0.1f, {1, 7, 64, -1}}, {2, 16, 0.0f, {63, 2, -1}},  {2, 32, 0.1f, {65, 7, -1}},
        {1, 40, 0.1f, {64, 9, -1}},   {2, 64, 0.0f, {63, 1, -1}},  {1, 64, 0.1f, {130, 33, -1}},
        {1, 128, 0.0f, {1, 17, -1}},  {1, 128, 0.1f, {7, 65, -1}}, {1, 72, 0.1f, {20, -1}},
        {1, 32, 0.1f, {257, -1}},
    };
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        for (size_t s = 0; s < sizeof table / sizeof *table; s++)
            check(precisions[i], table[s].heads, table[s].head_size, table[s].dropout,
                  table[s].lengths);
}

static void test_first_queries_only(void **unused)
{
    (void)unused;
    static const int lengths[] = {130, 1, 64, 9, -1};
    how.pooled = true;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        check(precisions[i], 2, 32, 0.1f, lengths);
        check(precisions[i], 1, 64, 0.1f, lengths);
        check(precisions[i], 1, 128, 0.0f, lengths);
    }
}

static void test_lines_that_are_not_aligned(void **unused)
{
    (void)unused;
    static const int lengths[] = {5, 66, -1};
    how.odd = true;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        check(precisions[i], 2, 16, 0.1f, lengths);
        how.pooled = true;
        check(precisions[i], 2, 16, 0.1f, lengths);
        how.pooled = false;
    }
}

static void test_no_rows_and_empty_rows(void **unused)
{
    (void)unused;
    static const int none[] = {-1}, empty[] = {0, 3, 0, -1};
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        check(precisions[i], 2, 8, 0.1f, none);
        check(precisions[i], 2, 8, 0.1f, empty);
    }
}

/* Neighbours, T and the place in the batch change no bit. */
static void test_a_row_alone_has_the_same_bits(void **unused)
{
    (void)unused;
    static const int lengths[] = {20, 70, 1, -1};
    static struct cuda_parity batch, single;
    how.backward = true;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        const struct cuda_parity base = shape(precisions[i], 2, 32, 0.1f);
        how.alone = -1;
        cuda_parity_run(attention_case, kernels_cuda(), &base, lengths, &batch);
        for (int b = 0; b < 3; b++) {
            const int length[] = {lengths[b], -1};
            how.alone = b;
            cuda_parity_run(attention_case, kernels_cuda(), &base, length, &single);
            for (int m = 0; m < batch.memory_count; m++) {
                const struct parity_memory *x = &batch.memory[m], *y = &single.memory[m];
                if (x->n == 0) /* an input */
                    continue;
                const size_t line = (size_t)(x->n / batch.rows.tokens) *
                                    cuda_parity_size(&batch, x->type);
                unsigned char *all = cuda_parity_fetch(&batch, x, "a batch"),
                              *one = cuda_parity_fetch(&single, y, "a row alone");
                if (memcmp(all + CUDA_PARITY_ZONE + line * (size_t)batch.begin[b],
                           one + CUDA_PARITY_ZONE, line * (size_t)lengths[b]) != 0)
                    fail_msg("%s, output %d: other bits where row %d is alone",
                             cuda_parity_precision(precisions[i]), m, b);
                free(all);
                free(one);
            }
            cuda_parity_release(&single);
        }
        cuda_parity_release(&batch);
    }
}

/* With equal probabilities and one-hot v, channel c of query i's result is 0 exactly where key from
 * + c is dropped; dv with one-hot dout the same for query from + c. */
static void test_each_decision(void **unused)
{
    (void)unused;
    static const int lengths[] = {70, 9, 130, -1};
    static struct cuda_parity want, got;
    how.one_hot = true;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        for (how.from = 0; how.from < 130; how.from += 64)
            for (int backward = 0; backward < 2; backward++) {
                const struct cuda_parity base = shape(precisions[i], 1, 64, 0.3f);
                int64_t kept = 0, dropped = 0;
                how.backward = backward == 1;
                cuda_parity_run(attention_case, kernels_ref(), &base, lengths, &want);
                cuda_parity_run(attention_case, kernels_cuda(), &base, lengths, &got);
                for (int m = 0; m < got.memory_count; m++) {
                    const struct parity_memory *x = &got.memory[m], *y = &want.memory[m];
                    if (x->name == NULL || x->type != PARITY_ACT)
                        continue;
                    const int64_t n = y->n, width = x->width;
                    unsigned char *a = cuda_parity_fetch(&got, x, x->name),
                                  *b = cuda_parity_fetch(&want, y, y->name);
                    float *f = malloc((size_t)n * 2 * sizeof *f), *g = f + n;
                    cuda_parity_from_act(&got, a + CUDA_PARITY_ZONE, n, f);
                    cuda_parity_from_act(&want, b + CUDA_PARITY_ZONE, n, g);
                    for (int64_t e = 0; e < n; e++) {
                        if (e % width < width - 64) /* dq and dk are differences: not 0 */
                            continue;
                        if ((f[e] == 0.0f) != (g[e] == 0.0f))
                            fail_msg("%s (%s), %s: token %lld, channel %lld is %g, ref has %g",
                                     x->name, cuda_parity_precision(precisions[i]),
                                     backward ? "query in the channel" : "key in the channel",
                                     (long long)(e / width), (long long)(e % width), (double)f[e],
                                     (double)g[e]);
                        kept += g[e] != 0.0f;
                        dropped += g[e] == 0.0f;
                    }
                    free(f);
                    free(a);
                    free(b);
                }
                assert_true(kept > 0 && dropped > 0);
                cuda_parity_release(&want);
                cuda_parity_release(&got);
            }
}

static void refused_case(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    static const int sizes[] = {12, 136, 0};
    for (int i = 0; i < 3; i++) {
        char text[40];
        snprintf(text, sizeof text, "%d, wanted a multiple of 8 from 8 to 128", sizes[i]);
        assert_fails(k->attention(ctx, &p->rows, &p->rows, 2, sizes[i], NULL, 0, NULL, NULL, 0,
                                  &p->dropout, NULL, NULL),
                     STATUS_UNAVAILABLE, text);
    }
    assert_fails(k->attention(ctx, &p->rows, &p->rows, 0, 8, NULL, 0, NULL, NULL, 0, &p->dropout,
                              NULL, NULL),
                 STATUS_ARG, "0 heads");
}

static void test_refused_sizes(void **unused)
{
    (void)unused;
    static const int lengths[] = {3, -1};
    static struct cuda_parity p;
    const struct cuda_parity base = shape(PRECISION_BF16, 2, 8, 0.0f);
    cuda_parity_run(refused_case, kernels_cuda(), &base, lengths, &p);
    cuda_parity_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_instance, as_usual),
        cmocka_unit_test_setup(test_first_queries_only, as_usual),
        cmocka_unit_test_setup(test_lines_that_are_not_aligned, as_usual),
        cmocka_unit_test_setup(test_no_rows_and_empty_rows, as_usual),
        cmocka_unit_test_setup(test_a_row_alone_has_the_same_bits, as_usual),
        cmocka_unit_test_setup(test_each_decision, as_usual),
        cmocka_unit_test_setup(test_refused_sizes, as_usual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
