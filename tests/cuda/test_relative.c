/*
 * test_relative.c - what disentangled attention needs of the CUDA backend, against ref: attention
 * with a table of positions, the table's norm and dropout, a token's neighbours. And their bits: a
 * row alone, a piece alone, chunks of the scratch.
 *
 * Worst errors found, of the bounds: out 0.56, gradients 0.94 (bf16); of first queries 1.15, where
 * the bound is doubled: as in test_attention.c, the sum of dout * out takes out as it was rounded,
 * which shows where one key has nearly all the probability. Tables and neighbours 0.47.
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
    bool forward;  /* name what forward writes */
    bool backward; /* run backward and name the gradients */
    bool odd;      /* lines that do not begin at multiples of 16 bytes */
    bool whole;    /* the whole table, else the lines that the rows need */
    int first;     /* >= 0: the batch is rows from this one on of another one */
    bool one_hot;  /* q = 0, v and dout one-hot from key or query `from` on: shows each decision */
    int from;
    int64_t room;           /* > 0: floats of the scratch that backward may use */
    const int32_t *cut_row; /* rows where pieces begin, and the last one ends; NULL: as usual */
    int cut_pieces;
} how;

static int as_usual(void **unused)
{
    (void)unused;
    memset(&how, 0, sizeof how);
    how.sides = 3;
    how.forward = true;
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

/* Other pieces than usual; none is merged. */
static void cut_again(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    static const int32_t no_merge[6];
    p->cut.pieces = how.cut_pieces;
    p->cut.merge_begin = no_merge;
    for (int i = 0; i <= how.cut_pieces; i++) {
        p->piece_row[i] = how.cut_row[i];
        p->token[i] = p->begin[how.cut_row[i]];
    }
    if (k->backward_begins != NULL)
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
    if (how.backward && how.cut_row != NULL)
        cut_again(k, ctx, p);
    float *table = malloc((size_t)(2 * span * r.width) * sizeof *table);
    shapes_fill(table, 2 * (int64_t)span * r.width, 5, false);
    for (int i = 0; how.one_hot && i < 2 * span * r.width; i++)
        table[i] = 0.0f;
    r.table = cuda_parity_acts(p, table, (int64_t)r.lines * r.width);
    free(table);
    act *kv = numbers(p, &p->rows, kv_stride, 1, FILLER_NAN);
    act *q = how.pooled ? numbers(p, queries, q_stride, 2, FILLER_NAN) : kv;
    act *out = output(p, how.forward, "out", PARITY_ACT, queries, C, length, FILLER_ZERO);
    float *lse =
        output(p, how.forward, "lse", PARITY_FLOAT, queries, p->heads, length, FILLER_FINITE);
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
    const int64_t all = p->reference ? 0 : ctx->scratch_floats;
    if (how.room > 0 && !p->reference)
        ctx->scratch_floats = how.room;
    const enum status st = k->attention_relative_backward(
        ctx, queries, &p->rows, p->heads, d, q, q_stride, at(p, kv, k_at), at(p, kv, k_at + C),
        kv_stride, &r, &p->dropout, out, lse, dout, dq, at(p, dkv, k_at), at(p, dkv, k_at + C),
        dtable, &p->cut);
    if (!p->reference)
        ctx->scratch_floats = all;
    if (how.room > 0 && st != STATUS_OK) { /* what they are tried for */
        assert_non_null(strstr(status_message(), "scratch for"));
        how.room = -1;
        return;
    }
    assert_ok(st);
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
                                .distances = distances_of(config),
                                .max_channels = 768};
}

static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_FP16};
enum { PRECISIONS = 3 };

static void check(enum precision precision, int config, int heads, int head_size, float dropout,
                  const int *lengths)
{
    char name[96];
    how.backward = true;
    struct cuda_parity base = shape(precision, config, heads, head_size, dropout);
    if (how.pooled && how.forward) {
        how.backward = false;
        base.parameters = 0;
        base.cut_kind = CUT_NONE;
    }
    snprintf(name, sizeof name, "relative attention%s%s, sides %d, heads of %d",
             how.pooled ? " of first" : "", dropout > 0.0f ? " with dropout" : "", how.sides,
             head_size);
    cuda_parity_check(attention_case, &base, lengths, name, how.pooled && !how.forward ? 2.0 : 1.0);
}

/* fp16 differs from bf16 in what numbers are rounded to, so it has one shape. */
static void test_every_instance(void **unused)
{
    (void)unused;
    static const struct {
        unsigned precisions;
        int config, heads, head_size;
        float dropout;
        int lengths[6];
    } table[] = {
        {PARITY_FP32 | PARITY_HALVES, 0, 2, 8, 0.1f, {1, 7, 64, 20, 9, -1}},
        {1u << PRECISION_BF16, 0, 2, 32, 0.1f, {65, 7, -1}},
        {PARITY_FP32, 0, 1, 64, 0.1f, {70, 1, 9, -1}},
        {1u << PRECISION_BF16, 0, 1, 64, 0.1f, {130, -1}},
        {PARITY_FP32, 0, 1, 128, 0.1f, {7, 33, -1}},
        {1u << PRECISION_BF16, 0, 1, 128, 0.1f, {7, 65, -1}},
        {PARITY_FP32, 2, 1, 8, 0.0f, {70, 3, -1}},
        {1u << PRECISION_BF16, 2, 1, 40, 0.0f, {130, -1}},
    };
    for (size_t i = 0; i < PRECISIONS; i++)
        for (size_t s = 0; s < sizeof table / sizeof *table; s++)
            if (table[s].precisions >> precisions[i] & 1u)
                check(precisions[i], table[s].config, table[s].heads, table[s].head_size,
                      table[s].dropout, table[s].lengths);
}

static void test_one_projection(void **unused)
{
    (void)unused;
    static const int lengths[] = {20, 35, 5, -1};
    for (size_t i = 0; i < 2; i++)
        for (how.sides = 1; how.sides < 3; how.sides++)
            check(precisions[i], 1, 2, 16, 0.1f, lengths);
}

static void test_first_queries_only(void **unused)
{
    (void)unused;
    static const int lengths[] = {130, 1, 64, 9, -1};
    how.pooled = true;
    for (size_t i = 0; i < 2; i++)
        for (int forward = 0; forward < 2; forward++) {
            how.forward = forward == 1;
            check(precisions[i], i == 0 ? 2 : 0, 2, i == 0 ? 16 : 32, 0.1f, lengths);
        }
}

static void test_lines_that_are_not_aligned(void **unused)
{
    (void)unused;
    static const int lengths[] = {5, 66, -1};
    how.odd = true;
    for (size_t i = 0; i < 2; i++) {
        how.pooled = i == 1;
        check(precisions[i], 0, 2, 16, 0.1f, lengths);
    }
}

static void test_no_rows_and_empty_rows(void **unused)
{
    (void)unused;
    static const int none[] = {-1}, empty[] = {0, 3, 0, -1};
    how.whole = true; /* no rows need no lines, and want zeros all the same */
    for (size_t i = 0; i < 2; i++) {
        check(precisions[i], 0, 2, 8, 0.1f, none);
        check(precisions[i], 0, 2, 8, 0.1f, empty);
    }
}

/* More tiles than a segment of the table's gradient has. */
static void test_many_rows(void **unused)
{
    (void)unused;
    static const int32_t cut_row[] = {0, 4, 44, 45};
    int lengths[46] = {0};
    for (int b = 0; b < 45; b++)
        lengths[b] = 3 + b % 3;
    lengths[45] = -1;
    how.cut_row = cut_row;
    how.cut_pieces = 3;
    for (size_t i = 0; i < 2; i++)
        check(precisions[i], 0, 1, 8, 0.0f, lengths);
}

/* ---- bits */

static unsigned char *bytes_of(struct cuda_parity *p, int m, size_t *bytes)
{
    unsigned char *x = cuda_parity_fetch(p, &p->memory[m], "an output");
    *bytes = p->memory[m].bytes;
    return x;
}

/* Outputs of `one`, rows [first, ...) alone, against those rows of `all`; its only piece against
 * `piece` of all. */
static void compare_alone(struct cuda_parity *all, struct cuda_parity *one, int first, int piece)
{
    assert_int_equal(all->memory_count, one->memory_count);
    for (int m = 0; m < all->memory_count; m++) {
        const struct parity_memory *x = &all->memory[m], *y = &one->memory[m];
        if (x->n == 0 || y->n == 0) /* an input, or a buffer of gradients */
            continue;
        size_t a_bytes, b_bytes, from, line;
        unsigned char *a = bytes_of(all, m, &a_bytes), *b = bytes_of(one, m, &b_bytes);
        if (x->name != NULL && strcmp(x->name, "dtable") == 0) {
            line = a_bytes / (size_t)all->cut.pieces;
            from = (size_t)piece * line;
            for (size_t e = b_bytes; e < line; e++) /* -0 is 0 */
                assert_int_equal(a[CUDA_PARITY_ZONE + from + e] & 0x7F, 0);
            b_bytes = b_bytes < line ? b_bytes : line;
        } else if (x->width > 0) {
            line = a_bytes / (size_t)all->rows.tokens;
            from = (size_t)all->begin[first] * line;
            b_bytes = (size_t)one->tokens * line;
        } else {
            line = a_bytes / (size_t)all->rows.count;
            from = (size_t)first * line;
        }
        if (memcmp(a + CUDA_PARITY_ZONE + from, b + CUDA_PARITY_ZONE, b_bytes) != 0)
            fail_msg("%s, %s%s: rows from %d on have other bits alone",
                     cuda_parity_precision(all->precision),
                     x->name != NULL ? x->name : "what forward writes",
                     how.pooled ? " of first queries" : "", first);
        free(a);
        free(b);
    }
}

static void alone(enum precision precision, int heads, int head_size, const int *lengths,
                  const int32_t *cut_row, int pieces)
{
    static struct cuda_parity all, one;
    const struct cuda_parity base = shape(precision, 0, heads, head_size, 0.1f);
    how.cut_row = cut_row;
    how.cut_pieces = pieces;
    cuda_parity_run(attention_case, kernels_cuda(), &base, lengths, &all);
    for (int i = 0; i < pieces; i++) {
        const int32_t whole[] = {0, cut_row[i + 1] - cut_row[i]};
        int some[CUDA_PARITY_ROWS + 1];
        if (whole[1] == 0)
            continue;
        memcpy(some, lengths + cut_row[i], (size_t)whole[1] * sizeof *some);
        some[whole[1]] = -1;
        how.cut_row = whole;
        how.cut_pieces = 1;
        how.first = cut_row[i];
        cuda_parity_run(attention_case, kernels_cuda(), &base, some, &one);
        compare_alone(&all, &one, cut_row[i], i);
        cuda_parity_release(&one);
        how.first = 0;
    }
    cuda_parity_release(&all);
}

/* Neighbours, T, the longest row and the place in the batch change no bit: not of a row, and not of
 * a piece's gradient of the table, whose longer tables have zeros behind. */
static void test_pieces_alone_have_the_same_bits(void **unused)
{
    (void)unused;
    static const int lengths[] = {20, 7, 70, 3, 66, -1};
    static const int32_t cut_row[] = {0, 2, 2, 4, 5}, many_cut[] = {0, 2, 40, 42};
    int many[43];
    for (int b = 0; b < 42; b++)
        many[b] = 1 + b % 3;
    many[42] = -1;
    how.backward = true;
    for (size_t i = 0; i < 2; i++) {
        how.pooled = false;
        how.whole = i == 1;
        alone(precisions[i], 1, 32, lengths, cut_row, 4);
        how.whole = i != 1;
        alone(precisions[i], 1, 8, many, many_cut, 3);
        how.pooled = true;
        alone(precisions[i], 1, 32, lengths, cut_row, 4);
    }
}

/* However little of the scratch there is, heads and tiles at a time: the same bits, or a sentence. */
static void test_chunks(void **unused)
{
    (void)unused;
    static const int lengths[] = {70, 5, -1};
    /* Numbers: all heads at once, two and one, one head's tiles in two and in more parts, too few. */
    static const int64_t rooms[] = {1 << 18, 160000, 100000, 53500, 48500, 1000};
    static struct cuda_parity want, got;
    how.backward = true;
    for (size_t i = 0; i < 2; i++) {
        const struct cuda_parity base = shape(precisions[i], 0, 3, 8, 0.1f);
        int ways = 0;
        how.room = 0;
        cuda_parity_run(attention_case, kernels_cuda(), &base, lengths, &want);
        int64_t launches = 0;
        for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
            how.room = rooms[r];
#ifdef EMULATED_CUDA_H
            const int64_t before = emulated_cuda_counts().launches;
#endif
            cuda_parity_run(attention_case, kernels_cuda(), &base, lengths, &got);
#ifdef EMULATED_CUDA_H
            const int64_t queued = emulated_cuda_counts().launches - before;
            ways += how.room > 0 && queued > launches;
            launches = queued;
#else
            ways += how.room > 0;
#endif
            for (int m = 0; how.room > 0 && m < got.memory_count; m++)
                if (got.memory[m].n > 0 && got.memory[m].name != NULL)
                    cuda_parity_same(&want, &got, m, got.memory[m].name);
            cuda_parity_release(&got);
        }
        assert_int_equal(ways, 5);
        assert_int_equal(how.room, -1);
        cuda_parity_release(&want);
    }
}

/* As in test_attention.c: with equal probabilities and one-hot v, channel c of query i's result is 0
 * exactly where key from + c is dropped; dv with one-hot dout the same for query from + c. */
static void test_each_decision(void **unused)
{
    (void)unused;
    static const int lengths[] = {70, 9, -1};
    static struct cuda_parity want, got;
    how.one_hot = true;
    for (size_t i = 0; i < PRECISIONS; i++)
        for (how.from = 0; how.from < 70; how.from += 64)
            for (int backward = 0; backward < 2; backward++) {
                int64_t kept = 0, dropped = 0;
                how.backward = backward == 1;
                const struct cuda_parity base = shape(precisions[i], 0, 1, 64, 0.3f);
                cuda_parity_run(attention_case, kernels_ref(), &base, lengths, &want);
                cuda_parity_run(attention_case, kernels_cuda(), &base, lengths, &got);
                for (int m = 0; m < got.memory_count; m++) {
                    const struct parity_memory *x = &got.memory[m], *y = &want.memory[m];
                    if (x->name == NULL || x->type != PARITY_ACT || x->width == 0)
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
    struct relative r = {.lines = 60, .width = 16, .q_at = 0, .k_at = -1, .scale = 1.0f};
    assert_fails(k->attention_relative(ctx, &p->rows, &p->rows, 2, 12, NULL, 0, NULL, NULL, 0, &r,
                                       &p->dropout, NULL, NULL),
                 STATUS_UNAVAILABLE, "12, wanted a multiple of 8 from 8 to 128");
    r.lines = 8;
    assert_fails(k->attention_relative(ctx, &p->rows, &p->rows, 2, 8, NULL, 0, NULL, NULL, 0, &r,
                                       &p->dropout, NULL, NULL),
                 STATUS_ARG, "distance -5 has line 10 of a table of 8");
    const struct grad_cut cut = {.pieces = 7};
    r.lines = 64;
    assert_fails(k->attention_relative_backward(ctx, &p->rows, &p->rows, 2, 8, NULL, 0, NULL, NULL,
                                                0, &r, &p->dropout, NULL, NULL, NULL, NULL, NULL,
                                                NULL, NULL, &cut),
                 STATUS_ARG, "7 pieces");
    assert_fails(k->table_norm_backward(ctx, 65, 8, NULL, NULL, NULL, 1e-7f, 0, 0, 0, &p->cut),
                 STATUS_ARG, "65 lines of a table of 64 slots");
}

static void without_distances(const struct kernels *k, struct kernel_ctx *ctx,
                              struct cuda_parity *p)
{
    const struct relative r = {.lines = 1, .width = 8, .q_at = 0, .k_at = -1, .scale = 1.0f};
    assert_fails(k->attention_relative(ctx, &p->rows, &p->rows, 1, 8, NULL, 0, NULL, NULL, 0, &r,
                                       &p->dropout, NULL, NULL),
                 STATUS_ARG, "opened without distances");
}

static void test_refusals(void **unused)
{
    (void)unused;
    static const int lengths[] = {6, -1};
    static struct cuda_parity p;
    how.backward = true;
    struct cuda_parity base = shape(PRECISION_BF16, 0, 2, 8, 0.0f);
    cuda_parity_run(refused_case, kernels_cuda(), &base, lengths, &p);
    cuda_parity_release(&p);
    base.distances = (struct distances){0};
    cuda_parity_run(without_distances, kernels_cuda(), &base, lengths, &p);
    cuda_parity_release(&p);

    static const int32_t wrong[] = {0, 4, 2};
    struct kernel_ctx *ctx;
    const struct kernel_opts opts = {.device = cuda_parity_device(),
                                     .precision = PRECISION_FP32,
                                     .max_tokens = 64,
                                     .max_rows = 1,
                                     .distances = {.span = 2, .reach = 1, .line = wrong}};
    assert_fails(kernels_cuda()->open(&opts, &ctx), STATUS_ARG, "distance 0 has line 4");
}

/* ---- the table */

static bool without_norm;

static void table_norm(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t c = p->channels, slots = 2 * (int64_t)p->distances.span;
    const int lines = (int)slots - 3;
    float *table = cuda_parity_float(p, slots * c, 1), *gamma = cuda_parity_float(p, c, 2),
          *beta = cuda_parity_float(p, c, 3);
    act *da = cuda_parity_act(p, p->cut.pieces * lines * c, 4);
    act *out = cuda_parity_output(p, "out", PARITY_ACT, lines * c, (double)c);
    assert_ok(k->table_norm(ctx, lines, (int)c, table, without_norm ? NULL : gamma,
                            without_norm ? NULL : beta, 1e-7f, out));
    assert_ok(k->table_norm_backward(ctx, lines, (int)c, da, table, without_norm ? NULL : gamma,
                                     1e-7f, 2, 2 + slots * c, 3 + (slots + 1) * c, &p->cut));
}

static void table_dropout(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    enum { lines = 21, copies = 3 };
    const int64_t n = (int64_t)copies * lines * p->channels;
    const struct dropout none = {.p = 0};
    act *x = cuda_parity_act(p, n, 1), *y = cuda_parity_output(p, "dropped", PARITY_ACT, n, 1);
    act *sum = cuda_parity_output(p, "added", PARITY_ACT, n, 1);
    struct dropout drop = p->dropout;
    drop.row = NULL; /* it is not read */
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &drop, x, false, y));
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &none, y, false, sum));
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &drop, x, true, sum));
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &none, y, false, y));
}

static void neighbours(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    static const int taps[] = {1, 3, 5};
    for (int i = 0; i < 3; i++) {
        act *x = cuda_parity_lines(p, p->channels, 1, FILLER_NAN);
        act *dout = cuda_parity_lines(p, p->channels * taps[i], 2, FILLER_ZERO);
        act *out = cuda_parity_output_lines(p, "neighbours", PARITY_ACT, p->channels * taps[i], 1,
                                            FILLER_FINITE);
        act *dx = cuda_parity_lines(p, p->channels, 3, FILLER_ZERO);
        struct parity_memory *m = &p->memory[p->memory_count - 1];
        m->name = "dx";
        m->n = p->rows.tokens * p->channels;
        m->width = p->channels;
        m->filler = FILLER_ZERO;
        m->length = taps[i] + 1;
        assert_ok(k->neighbours(ctx, &p->rows, p->channels, taps[i], x, out));
        assert_ok(k->neighbours_backward(ctx, &p->rows, p->channels, taps[i], dout, dx));
    }
}

/* Widths of wide lines and of others, up to several tiles of a warp. */
static void test_tables(void **unused)
{
    static const int widths[] = {36, 64, 40, 768, 300};
    static const int lengths[] = {20, 1, 15, 3, 9, -1};
    (void)unused;
    for (int w = 0; w < 5; w++) {
        struct cuda_parity p = {.precision = precisions[w % PRECISIONS],
                                .channels = widths[w],
                                .dropout_p = 0.1f,
                                .cut_kind = w % 2 == 0 ? CUT_TREE : CUT_ONE,
                                .gradient_length = 60,
                                .distances = distances_of(w % 2),
                                .max_channels = 768};
        p.parameters = (2 * p.distances.span + 3) * (int64_t)p.channels;
        without_norm = w == 2;
        cuda_parity_check(table_norm, &p, lengths, "norm of a table", 1);
        p.parameters = 0;
        p.cut_kind = CUT_NONE;
        cuda_parity_check(table_dropout, &p, lengths, "dropout of a table", 1);
        if (p.channels < 100)
            cuda_parity_check(neighbours, &p, lengths, "neighbours", 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_instance, as_usual),
        cmocka_unit_test_setup(test_one_projection, as_usual),
        cmocka_unit_test_setup(test_first_queries_only, as_usual),
        cmocka_unit_test_setup(test_lines_that_are_not_aligned, as_usual),
        cmocka_unit_test_setup(test_no_rows_and_empty_rows, as_usual),
        cmocka_unit_test_setup(test_many_rows, as_usual),
        cmocka_unit_test_setup(test_pieces_alone_have_the_same_bits, as_usual),
        cmocka_unit_test_setup(test_chunks, as_usual),
        cmocka_unit_test_setup(test_each_decision, as_usual),
        cmocka_unit_test_setup(test_refusals, as_usual),
        cmocka_unit_test_setup(test_tables, as_usual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
