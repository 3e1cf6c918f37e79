/*
 * test_relative.c - what disentangled attention needs of the CUDA backend, against ref: attention
 * with a table of positions, the table's norm and dropout, a token's neighbours. And their bits: a
 * row alone, a piece alone, chunks of the scratch.
 */
#include "model/kernels/cuda/cuda.h"
#include "model/model_impl.h"
#include "tests/cuda/cuda_parity.h"

/* As in DeBERTa-v3 (short), without buckets, and so short that most distances share the last line. */
static const struct relative_config configs[] = {
    {.span = 32, .buckets = 32, .max_distance = 128},
    {.span = 40, .max_distance = 40},
    {.span = 3, .max_distance = 3},
};
enum { CONFIGS = sizeof configs / sizeof configs[0] };

/* Made once: the parity contexts that are kept are told apart by their addresses. */
static struct distances distances_of(int config)
{
    static struct distances made[CONFIGS];
    if (made[config].span == 0)
        assert_ok(distances_make(&configs[config], &made[config]));
    return made[config];
}

static struct {
    int sides;     /* 1: keys meet the table, 2: queries do, 3: both */
    bool pooled;   /* queries are the first token of each row */
    bool backward; /* name the gradients, else what forward writes */
    bool odd;      /* lines that do not begin at multiples of 16 bytes */
    bool whole;    /* the whole table, else the lines that the rows need */
    int first;     /* >= 0: the batch is rows from this one on of another one */
    bool one_hot;  /* q = 0, v and dout one-hot from key or query `from` on: shows each decision */
    int from;
} how;

static int as_usual(void **unused)
{
    (void)unused;
    memset(&how, 0, sizeof how);
    how.sides = 3;
    return 0;
}

/* (lines, width) numbers that name their row and place in it, wherever the row lies; NaN behind. */
static act *numbers(struct cuda_parity *p, const struct rows *rows, int64_t width, uint64_t seed,
                    enum parity_filler filler)
{
    const int64_t all = rows->tokens * width;
    float *x = malloc((size_t)(all + 1) * sizeof *x);
    for (int b = 0; b < rows->count; b++)
        shapes_fill(x + rows->begin[b] * width, (rows->begin[b + 1] - rows->begin[b]) * width,
                    seed + 16 * (uint64_t)(how.first + b), false);
    for (int64_t i = rows->begin[rows->count] * width; i < all; i++)
        x[i] = filler == FILLER_ZERO ? 0.0f : NAN;
    if (how.one_hot) {
        const int64_t C = p->channels, d = C / p->heads;
        for (int b = 0; b < rows->count; b++)
            for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
                for (int64_t c = 0; c < width; c++) /* dout, or q (zeros), k (zeros) and v */
                    x[t * width + c] = (width == C || c >= 2 * C) &&
                                       c % d == t - rows->begin[b] - how.from;
    }
    act *to = cuda_parity_acts(p, x, all);
    free(x);
    return to;
}

static act *at(const struct cuda_parity *p, act *x, int64_t i)
{
    return (unsigned char *)x + i * (int64_t)cuda_parity_act_bytes(p);
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

/* The rows' numbers for dropout, where they are not the first of the batch. */
static void rename_rows(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    for (int b = 0; b < p->rows.count; b++) {
        p->row[b] = 1000 + 7 * (how.first + b) + ((int64_t)(how.first + b) << 33);
        p->chunk[b] = (how.first + b) % 3;
    }
    if (k->pass_begins == NULL)
        return;
    const struct pass_arrays pass = {.rows = &p->rows,
                                     .firsts = &p->firsts,
                                     .ids = p->ids,
                                     .types = p->types,
                                     .row = p->row,
                                     .chunk = p->chunk,
                                     .step = p->dropout.step};
    assert_ok(k->pass_begins(ctx, &pass));
    if (p->cut_kind != CUT_NONE)
        assert_ok(k->backward_begins(ctx, &p->cut));
}

/* Channels of the table that are no projection's: what is there means nothing. */
static void clear_unused(const struct cuda_parity *p, act *dtable, int64_t lines,
                         const struct relative *r)
{
    const size_t size = cuda_parity_act_bytes(p), bytes = (size_t)(lines * r->width) * size;
    unsigned char *x = malloc(bytes + 1);
    if (!p->reference)
        assert_ok(device_finish(p->device));
    cuda_parity_get(p, x, dtable, bytes);
    for (int64_t l = 0; l < lines; l++)
        for (int e = 0; e < r->width; e++)
            if (!((r->q_at >= 0 && e >= r->q_at && e < r->q_at + p->channels) ||
                  (r->k_at >= 0 && e >= r->k_at && e < r->k_at + p->channels)))
                memset(x + (size_t)(l * r->width + e) * size, 0, size);
    cuda_parity_put(p, dtable, x, bytes);
    free(x);
}

/* Full: q, k, v fused as (T, 3C). Pooled: q (B, C) apart from k, v (T, 2C). */
static void attention_case(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t C = p->channels, kv_stride = (how.pooled ? 2 : 3) * C + how.odd;
    const int64_t q_stride = how.pooled ? C + how.odd : kv_stride, k_at = how.pooled ? 0 : C;
    const struct rows *queries = how.pooled ? &p->firsts : &p->rows;
    const int d = p->channels / p->heads, span = p->distances.span;
    const double length = 3 * d + p->rows.longest;
    const enum parity_filler zero = how.odd ? FILLER_NAN : FILLER_ZERO; /* nobody writes the gap */
    struct relative r = {.lines = how.whole ? 2 * span
                                            : distances_lines(&p->distances, p->rows.longest),
                         .q_at = how.sides & 1 ? 0 : -1,
                         .k_at = how.sides == 3 ? (int)C : how.sides == 2 ? 0 : -1,
                         .scale = (float)(1.0 / sqrt((how.sides == 3 ? 3.0 : 2.0) * d))};
    r.width = (int)C * (how.sides == 3 ? 2 : 1) + (how.odd ? 3 : 8);
    if (how.first > 0)
        rename_rows(k, ctx, p);
    float *table = malloc((size_t)(2 * span * r.width) * sizeof *table);
    shapes_fill(table, 2 * (int64_t)span * r.width, 5, false);
    for (int i = 0; how.one_hot && i < 2 * span * r.width; i++)
        table[i] = 0.0f;
    r.table = cuda_parity_acts(p, table, (int64_t)r.lines * r.width);
    free(table);
    act *kv = numbers(p, &p->rows, kv_stride, 1, FILLER_NAN);
    act *q = how.pooled ? numbers(p, queries, q_stride, 2, FILLER_NAN) : kv;
    act *out = output(p, !how.backward, "out", PARITY_ACT, queries, C, length, FILLER_ZERO);
    float *lse =
        output(p, !how.backward, "lse", PARITY_FLOAT, queries, p->heads, length, FILLER_FINITE);
    assert_ok(k->attention_relative(ctx, queries, &p->rows, p->heads, d, q, q_stride,
                                    at(p, kv, k_at), at(p, kv, k_at + C), kv_stride, &r,
                                    &p->dropout, out, lse));
    if (!how.backward)
        return;
    act *dout = numbers(p, queries, C, 3, FILLER_ZERO);
    act *dkv = output(p, true, how.pooled ? "dk, dv" : "dq, dk, dv", PARITY_ACT, &p->rows,
                      kv_stride, length, zero);
    act *dq = how.pooled ? output(p, true, "dq", PARITY_ACT, queries, q_stride, length, zero) : dkv;
    const int64_t lines = (int64_t)p->cut.pieces * r.lines;
    act *dtable = cuda_parity_output(p, how.one_hot ? NULL : "dtable", PARITY_ACT, lines * r.width,
                                     length + (double)p->tokens);
    assert_ok(k->attention_relative_backward(ctx, queries, &p->rows, p->heads, d, q, q_stride,
                                             at(p, kv, k_at), at(p, kv, k_at + C), kv_stride, &r,
                                             &p->dropout, out, lse, dout, dq, at(p, dkv, k_at),
                                             at(p, dkv, k_at + C), dtable, &p->cut));
    clear_unused(p, dtable, lines, &r);
}

static struct cuda_parity shape(enum precision precision, int config, int heads, int head_size,
                                float dropout)
{
    return (struct cuda_parity){.precision = precision,
                                .heads = heads,
                                .channels = heads * head_size,
                                .dropout_p = dropout,
                                .parameters = how.backward ? 1 : 0,
                                .cut_kind = how.backward ? CUT_TREE : CUT_NONE,
                                .distances = distances_of(config)};
}

static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_FP16};
enum { PRECISIONS = 3 };

static void check(enum precision precision, int config, int heads, int head_size, float dropout,
                  const int *lengths)
{
    char name[96];
    for (int backward = 0; backward < 2; backward++) {
        how.backward = backward == 1;
        const struct cuda_parity base = shape(precision, config, heads, head_size, dropout);
        snprintf(name, sizeof name, "relative attention%s%s%s, sides %d, heads of %d",
                 how.pooled ? " of first" : "", backward ? " backward" : "",
                 dropout > 0.0f ? " with dropout" : "", how.sides, head_size);
        cuda_parity_check(attention_case, &base, lengths, name, backward ? 2.0 : 1.0);
    }
}

static void test_every_instance(void **unused)
{
    (void)unused;
    static const struct {
        int config, heads, head_size;
        float dropout;
        int lengths[6];
    } table[] = {
        {0, 3, 8, 0.1f, {1, 7, 64, -1}},      {0, 2, 32, 0.1f, {65, 7, 20, -1}},
        {1, 2, 64, 0.0f, {63, 1, 9, 17, -1}}, {0, 1, 64, 0.1f, {130, 33, -1}},
        {0, 1, 128, 0.1f, {7, 65, -1}},       {2, 1, 40, 0.0f, {200, 3, -1}},
    };
    for (size_t i = 0; i < PRECISIONS; i++)
        for (size_t s = 0; s < sizeof table / sizeof *table; s++)
            check(precisions[i], table[s].config, table[s].heads, table[s].head_size,
                  table[s].dropout, table[s].lengths);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_instance, as_usual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
