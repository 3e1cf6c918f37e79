/*
 * test_relative.c - cpu against ref in what disentangled attention needs: attention with a table of
 * positions, the table's norm and dropout, a weight gradient's lines of the table, neighbours of a
 * token; on each path that this machine has. And their bits: rows, pieces, threads.
 */
#include "model/kernels/cpu/cpu.h"
#include "model/model_impl.h"
#include "tests/model/parity.h"

static const struct shape {
    int heads, d;
    struct relative_config config;
} shapes[] = {
    {3, 12, {.span = 12, .buckets = 12, .max_distance = 30}},
    {2, 32, {.span = 16, .max_distance = 16}},
    {1, 64, {.span = 32, .buckets = 32, .max_distance = 128}},
    {2, 17, {.span = 256, .buckets = 256, .max_distance = 512}},
};
#define SHAPES (int)(sizeof shapes / sizeof shapes[0])

static int sides; /* 1: queries' side, 2: keys' side, 3: both */
static bool firsts_only;

static struct relative relative_of(const struct parity *p, const struct rows *rows, const void *table)
{
    const int c = p->channels;
    int longest = 0;
    for (int b = 0; b < rows->count; b++)
        if (rows->begin[b + 1] - rows->begin[b] > longest)
            longest = rows->begin[b + 1] - rows->begin[b];
    return (struct relative){.table = table,
                             .lines = distances_lines(&p->distances, longest),
                             .width = c * (sides == 3 ? 2 : 1) + 3, /* lines need not be full */
                             .q_at = sides & 1 ? 0 : -1,
                             .k_at = sides == 3 ? c : sides == 2 ? 1 : -1,
                             .scale = (float)(1.0 / sqrt(3.0 * c / p->heads))};
}

static void attention(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    const int64_t t = p->rows.tokens, c = p->channels;
    int32_t line[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    struct rows firsts = {.tokens = p->rows.count, .count = p->rows.count, .longest = 1, .begin = line};
    const struct rows *queries = firsts_only ? &firsts : &p->rows;
    const int64_t lines = queries->tokens;
    struct relative r = relative_of(p, &p->rows, NULL);
    void *q = parity_act(p, lines * c, 1), *kv = parity_act(p, t * 2 * c, 2),
         *table = parity_act(p, (int64_t)r.lines * r.width, 3), *dout = parity_act(p, lines * c, 4);
    const double length = p->rows.longest > 3 * c ? p->rows.longest : 3 * (double)c;
    void *out = parity_output(p, "out", true, lines * c, length);
    float *lse = parity_output(p, "lse", false, lines * p->heads, 16 * length);
    void *dq = parity_output(p, "dq", true, lines * c, 9 * length),
         *dkv = parity_output(p, "dk, dv", true, t * 2 * c, 9 * length),
         *dtable = parity_output(p, "dtable", true, 5LL * r.lines * r.width, 9.0 * (double)t);
    const int64_t half = parity_bytes(p, c);
    parity_gradients(p, 1, 1); /* for the cut alone */
    r.table = table;
    memset(dtable, 0, (size_t)parity_bytes(p, 5LL * r.lines * r.width));
    assert_ok(k->attention_relative(ctx, queries, &p->rows, p->heads, p->channels / p->heads, q, c, kv,
                                    (char *)kv + half, 2 * c, &r, &p->dropout, out, lse));
    assert_ok(k->attention_relative_backward(ctx, queries, &p->rows, p->heads, p->channels / p->heads, q, c,
                                             kv, (char *)kv + half, 2 * c, &r, &p->dropout, out, lse, dout,
                                             dq, dkv, (char *)dkv + half, dtable, &p->cut));
    /* Channels of the table that are no projection's: what is there means nothing. */
    for (int64_t l = 0; l < 5LL * r.lines; l++)
        for (int e = 0; e < r.width; e++) {
            const bool used = (r.q_at >= 0 && e >= r.q_at && e < r.q_at + c) ||
                              (r.k_at >= 0 && e >= r.k_at && e < r.k_at + c);
            if (!used)
                memset((char *)dtable + parity_bytes(p, l * r.width + e), 0, (size_t)parity_bytes(p, 1));
        }
    guard_free(q);
    guard_free(kv);
    guard_free(table);
    guard_free(dout);
}

static void over_batches(parity_case *run, const struct shape *s, const char *name, double slack, int step)
{
    struct distances distances;
    assert_ok(distances_make(&s->config, &distances));
    for (int bf16 = 0; bf16 < 2; bf16++) {
        if (bf16 && kernels_cpu()->supports(PRECISION_BF16) != STATUS_OK)
            continue;
        for (int batch = step; batch < SHAPES_BATCHES; batch += step) {
            struct parity p = {
                .bf16 = bf16, .channels = s->heads * s->d, .heads = s->heads, .distances = distances};
            parity_batch(&p, shapes_batch[batch]);
            /* one key has no gradient but rounding's */
            if (p.rows.longest == 1)
                continue;
            parity_check(run, &p, name, slack);
        }
    }
    mem_free((void *)(uintptr_t)distances.line);
}

static void attention_of(const struct shape *s, int which, int step)
{
    sides = which;
    firsts_only = false;
    over_batches(attention, s, "relative attention", 4, step);
    firsts_only = true;
    over_batches(attention, s, "relative attention of first tokens", 4, step);
}

static void test_attention(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        attention_of(&shapes[i], 3, i == 0 ? 1 : 3);
    attention_of(&shapes[0], 1, 2);
    attention_of(&shapes[0], 2, 2);
}

/* Every path that a lesser CPU takes. */
static void test_attention_of_lesser_cpus(void **state)
{
    struct cpu_features all = *cpu_features(), less = all;
    bool *const features[] = {&less.amx, &less.bf16, &less.avx512, &less.avx2};
    (void)state;
    for (int i = 0; i < 4; i++) {
        if (!*features[i])
            continue;
        *features[i] = false;
        cpu_features_cap(less);
        attention_of(&shapes[i % SHAPES], 3, 5);
        attention_of(&shapes[0], 3, 3);
    }
    cpu_features_cap(all);
}

/* More than a block of keys, a chunk of queries, and a shared slot. */
static void test_long_rows(void **state)
{
    static const int lengths[] = {530, 5, -1};
    struct cpu_features all = *cpu_features(), less = all;
    struct distances distances;
    (void)state;
    assert_ok(distances_make(&shapes[3].config, &distances));
    sides = 3;
    firsts_only = false;
    for (int i = 0; i < 2; i++) {
        for (int bf16 = 0; bf16 < 2; bf16++) {
            if (bf16 && kernels_cpu()->supports(PRECISION_BF16) != STATUS_OK)
                continue;
            struct parity p = {.bf16 = bf16, .channels = 16, .heads = 1, .distances = distances};
            parity_batch(&p, lengths);
            parity_check(attention, &p, "relative attention of long rows", 4);
        }
        less.amx = less.bf16 = less.avx512 = false;
        cpu_features_cap(less);
    }
    cpu_features_cap(all);
    mem_free((void *)(uintptr_t)distances.line);
}

/* ---- bits */

struct run {
    bool bf16;
    int heads, d, longest;
    struct distances distances;
    struct relative r;
    void *q, *kv, *table, *dout, *out, *dq, *dkv, *dtable;
    float *lse;
};

/* Rows with lengths[first .. last) of a batch whose numbers are the whole batch's. */
static void run_rows(struct run *x, const int *lengths, int all, int first, int last, int pieces,
                     const int32_t *piece_row)
{
    struct parity p = {.bf16 = x->bf16, .channels = x->heads * x->d, .heads = x->heads, .distances = x->distances};
    const int64_t c = p.channels;
    int32_t begin[9] = {0}, token[9], to[8] = {0}, merge[9] = {0};
    bool add[8] = {false};
    int64_t id[8], before = 0, total = 0;
    for (int b = 0; b < all; b++)
        total += lengths[b];
    for (int b = 0; b < first; b++)
        before += lengths[b];
    x->longest = 0;
    for (int b = first; b < last; b++) {
        begin[b - first + 1] = begin[b - first] + lengths[b];
        id[b - first] = 70 + b;
        x->longest = lengths[b] > x->longest ? lengths[b] : x->longest;
    }
    const struct rows rows = {.tokens = begin[last - first], .count = last - first, .longest = x->longest, .begin = begin};
    for (int i = 0; i <= pieces; i++)
        token[i] = begin[piece_row[i]];
    const struct grad_cut cut = {.pieces = pieces, .token = token, .row = piece_row, .to = to, .add = add, .merge_begin = merge};
    const struct dropout drop = {.p = 0.2f, .seed = 9, .step = 4, .layer = 1, .site = 1, .row = id};
    const int64_t t = rows.tokens;
    sides = 3;
    x->r = relative_of(&p, &rows, NULL);
    x->q = parity_act(&p, total * c, 1);
    x->kv = parity_act(&p, total * 2 * c, 2);
    x->dout = parity_act(&p, total * c, 4);
    x->table = parity_act(&p, 2LL * x->distances.span * x->r.width, 3);
    x->r.table = x->table;
    x->out = guard_alloc((size_t)parity_bytes(&p, t * c));
    x->dq = guard_alloc((size_t)parity_bytes(&p, t * c));
    x->dkv = guard_alloc((size_t)parity_bytes(&p, t * 2 * c));
    x->dtable = guard_alloc((size_t)parity_bytes(&p, (int64_t)pieces * x->r.lines * x->r.width));
    x->lse = guard_alloc((size_t)(t * x->heads) * sizeof(float));
    struct kernel_ctx *ctx = parity_open(kernels_cpu(), &p);
    const struct kernels *k = kernels_cpu();
    const char *q = (char *)x->q + parity_bytes(&p, before * c), *kv = (char *)x->kv + parity_bytes(&p, before * 2 * c),
               *dout = (char *)x->dout + parity_bytes(&p, before * c);
    const int64_t half = parity_bytes(&p, c);
    assert_ok(k->attention_relative(ctx, &rows, &rows, x->heads, x->d, q, c, kv, kv + half, 2 * c, &x->r, &drop,
                                    x->out, x->lse));
    assert_ok(k->attention_relative_backward(ctx, &rows, &rows, x->heads, x->d, q, c, kv, kv + half, 2 * c, &x->r,
                                             &drop, x->out, x->lse, dout, x->dq, x->dkv, (char *)x->dkv + half,
                                             x->dtable, &cut));
    k->close(ctx);
}

static void run_free(struct run *x)
{
    void *all[] = {x->q, x->kv, x->table, x->dout, x->out, x->dq, x->dkv, x->dtable, x->lse};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        guard_free(all[i]);
}

/* A row's results and a piece's table do not depend on what else is in the batch, on how long the
 * others are, or on threads. */
static void bits(bool bf16)
{
    static const int lengths[] = {40, 3, 21, 150, 33, 7};
    static const int32_t three[] = {0, 2, 3, 6}, one[] = {0, 1};
    struct run all = {.bf16 = bf16, .heads = 2, .d = 24}, alone = all;
    const struct relative_config config = {.span = 24, .buckets = 24, .max_distance = 100};
    assert_ok(distances_make(&config, &all.distances));
    alone.distances = all.distances;
    threads_set(1);
    run_rows(&all, lengths, 6, 0, 6, 3, three);
    const size_t size = bf16 ? 2 : 4, c = 48;
    int64_t at = 40 + 3;
    for (int threads = 1; threads <= 3; threads++) {
        threads_set(threads);
        run_rows(&alone, lengths, 6, 2, 3, 1, one);
        assert_memory_equal((char *)all.out + (size_t)at * c * size, alone.out, 21 * c * size);
        assert_memory_equal((char *)all.dq + (size_t)at * c * size, alone.dq, 21 * c * size);
        assert_memory_equal((char *)all.dkv + (size_t)at * 2 * c * size, alone.dkv, 21 * 2 * c * size);
        /* The piece's lines in the longer table; the rest is zero. */
        const size_t line = (size_t)all.r.width * size, n = (size_t)alone.r.lines;
        const char *piece = (char *)all.dtable + (size_t)all.r.lines * line;
        assert_true(all.r.lines > alone.r.lines && alone.r.width == all.r.width);
        for (size_t l = 0; l < (size_t)all.r.lines; l++) {
            if (l < n && memcmp(piece + l * line, (char *)alone.dtable + l * line, 2 * c * size) != 0)
                fail_msg("%s: line %zu of a piece's table differs alone, %d threads", bf16 ? "bf16" : "fp32", l, threads);
            for (size_t e = 0; l >= n && e < 2 * c * size; e++)
                assert_int_equal(piece[l * line + e] & 0x7F, 0); /* -0 is 0 */
        }
        run_free(&alone);
    }
    run_free(&all);
    mem_free((void *)(uintptr_t)all.distances.line);
}

static void test_bits(void **state)
{
    (void)state;
    bits(false);
    if (kernels_cpu()->supports(PRECISION_BF16) == STATUS_OK)
        bits(true);
}

static void test_short_table_is_refused(void **state)
{
    const struct relative_config config = {.span = 8, .max_distance = 8};
    struct parity p = {.channels = 8, .heads = 1};
    const int lengths[] = {5, -1};
    (void)state;
    assert_ok(distances_make(&config, &p.distances));
    parity_batch(&p, lengths);
    struct kernel_ctx *ctx = parity_open(kernels_cpu(), &p);
    float x[5 * 24] = {0};
    const struct relative r = {.table = x, .lines = 8, .width = 8, .q_at = 0, .k_at = -1, .scale = 1};
    assert_fails(kernels_cpu()->attention_relative(ctx, &p.rows, &p.rows, 1, 8, x, 8, x, x, 8, &r, &p.dropout, x, x),
                 STATUS_ARG, "line 8 of a table of 8");
    kernels_cpu()->close(ctx);
    mem_free((void *)(uintptr_t)p.distances.line);
}

/* ---- the table */

static bool without_norm;

static void table_norm(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    const int64_t c = p->channels;
    const int span = p->distances.span, lines = 2 * span - 3;
    float *table = parity_float(2LL * span * c, 1), *gamma = parity_float(c, 2), *beta = parity_float(c, 3);
    void *da = parity_act(p, 5LL * lines * c, 4), *out = parity_output(p, "out", true, lines * c, (double)c);
    parity_gradients(p, (2LL * span + 2) * c, 4.0 * lines);
    assert_ok(k->table_norm(ctx, lines, (int)c, table, without_norm ? NULL : gamma, without_norm ? NULL : beta,
                            1e-7f, out));
    assert_ok(k->table_norm_backward(ctx, lines, (int)c, da, table, without_norm ? NULL : gamma, 1e-7f, 0,
                                     2LL * span * c, (2LL * span + 1) * c, &p->cut));
    guard_free(table);
    guard_free(gamma);
    guard_free(beta);
    guard_free(da);
}

static void table_dropout(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    enum { lines = 21, copies = 3 };
    const int64_t n = (int64_t)copies * lines * p->channels;
    const struct dropout none = {.p = 0};
    void *x = parity_act(p, n, 1), *y = parity_output(p, "dropped", true, n, 1),
         *sum = parity_output(p, "added", true, n, 1);
    p->dropout.row = NULL; /* it is not read */
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &p->dropout, x, false, y));
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &none, y, false, sum));
    assert_ok(k->table_dropout(ctx, copies, lines, p->channels, &p->dropout, x, true, sum));
    guard_free(x);
}

static void neighbours(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    static const int taps[] = {1, 3, 5};
    const int64_t n = p->rows.tokens * p->channels;
    for (int i = 0; i < 3; i++) {
        void *x = parity_act(p, n, 1), *dout = parity_act(p, n * taps[i], 2), *before = parity_act(p, n, 3);
        void *out = parity_output(p, "neighbours", true, n * taps[i], 1), *dx = parity_output(p, "dx", true, n, 6);
        memcpy(dx, before, (size_t)parity_bytes(p, n));
        assert_ok(k->neighbours(ctx, &p->rows, p->channels, taps[i], x, out));
        assert_ok(k->neighbours_backward(ctx, &p->rows, p->channels, taps[i], dout, dx));
        guard_free(x);
        guard_free(dout);
        guard_free(before);
    }
}

static void test_tables(void **state)
{
    struct cpu_features all = *cpu_features(), less = all;
    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int s = 0; s < 3; s++) {
            without_norm = false;
            over_batches(table_norm, &shapes[s], "norm of a table", 2, 2);
            without_norm = true;
            over_batches(table_norm, &shapes[s], "a table without norm", 1, 5);
            over_batches(table_dropout, &shapes[s], "dropout of a table", 2, 5);
            over_batches(neighbours, &shapes[s], "neighbours", 1, 1);
        }
        less.avx512 = less.avx2 = less.bf16 = less.amx = false;
        cpu_features_cap(less);
    }
    cpu_features_cap(all);
}

/* ---- a weight gradient with lines of a table */

static int table_first, table_outputs;
static bool table_alone;

static void weight_gradient(const struct kernels *k, struct kernel_ctx *ctx, struct parity *p)
{
    static const int32_t count[5] = {40, 0, 7, 33, 1};
    enum { lines = 40 };
    const struct matrix *m = &p->matrices[0];
    const int64_t t = p->rows.tokens, stride = table_outputs + 5;
    void *x = parity_act(p, t * m->k, 1), *dy = parity_act(p, t * m->n, 2), *table = parity_act(p, lines * m->k, 3);
    void *dtable = parity_act(p, 5 * lines * stride, 4);
    const struct table_lines more = {.x = table, .dy = dtable, .dy_stride = stride, .lines = lines, .count = count,
                                     .first = table_first, .n = table_outputs};
    parity_gradients(p, m->offset + (int64_t)m->n * m->k + m->n + 2, (double)t + 60);
    assert_ok(k->linear_backward_weight(ctx, 0, table_alone ? 0 : t, table_alone ? NULL : x, table_alone ? NULL : dy,
                                        m->offset + (int64_t)m->n * m->k + 1, false, &more, &p->cut));
    guard_free(x);
    guard_free(dy);
    guard_free(table);
    guard_free(dtable);
}

static void test_weight_gradients(void **state)
{
    static const struct {
        int n, k, first, outputs;
    } cases[] = {{36, 50, 0, 24}, {108, 36, 0, 72}, {108, 36, 36, 36}, {72, 33, 0, 36}, {24, 12, 0, 24}, {192, 64, 64, 64}};
    struct cpu_features all = *cpu_features(), less = all;
    (void)state;
    for (int cap = 0; cap < 3; cap++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct matrix m = {.offset = 5, .n = cases[i].n, .k = cases[i].k};
            float *weights = parity_float(m.offset + (int64_t)m.n * m.k, 9);
            table_first = cases[i].first;
            table_outputs = cases[i].outputs;
            table_alone = false;
            parity_all(weight_gradient, m.k, 1, m.n, &m, 1, weights, "weight gradient with a table", 1);
            table_alone = true;
            parity_all(weight_gradient, m.k, 1, m.n, &m, 1, weights, "weight gradient of a table", 1);
            guard_free(weights);
        }
        less.amx = false;
        less.avx512 = less.bf16 = less.avx2 = cap == 0 && less.avx2;
        less.avx512 = less.bf16 = cap == 0 && all.avx512;
        cpu_features_cap(less);
    }
    cpu_features_cap(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_of_lesser_cpus),
        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_short_table_is_refused),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_weight_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
