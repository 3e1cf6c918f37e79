/*
 * test_attention.c - attention of the CPU backend on each path that this machine has, against plain loops in double.
 *
 * Inputs are rounded to the activation type first, so that the loops see what the kernels see. Outputs are filled with
 * NaN and lie between guard zones. Measured errors stand beside the bounds.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/kernels/cpu/attention.h"
#include "tests/support/support.h"

#define GUARD 64
#define SEED 7

struct kind {
    const char *name;
    bool bf16, avx2, avx512, words, tiles; /* activations; features that the path needs */
};

static const struct kind kinds[] = {{"float, portable", false, false, false, false, false},
                                    {"float, AVX2", false, true, false, false, false},
                                    {"float, AVX-512", false, true, true, false, false},
                                    {"bfloat16, portable", true, false, false, false, false},
                                    {"bfloat16, AVX512-BF16", true, true, true, true, false},
                                    {"bfloat16, AMX", true, true, true, true, true}};

static bool present(const struct kind *kind)
{
    const struct cpu_features *f = cpu_features();
    return (!kind->avx2 || f->avx2) && (!kind->avx512 || f->avx512) && (!kind->words || f->bf16) && (!kind->tiles || f->amx);
}

static struct kernel_ctx *open_kind(const struct kind *kind)
{
    struct kernel_ctx *ctx = NULL;
    assert_ok(mem_alloc(1, sizeof *ctx, "a context", &ctx));
    ctx->bf16 = kind->bf16;
    ctx->precision = kind->bf16 ? PRECISION_BF16 : PRECISION_FP32;
    ctx->cpu = (struct cpu_features){kind->avx2, kind->avx512, kind->words, kind->tiles};
    return ctx;
}

static void close_kind(struct kernel_ctx *ctx)
{
    for (int i = 0; i < CPU_MAX_THREADS; i++)
        mem_free(ctx->scratch[i].p);
    mem_free(ctx->shared.p);
    mem_free(ctx);
}

/* A block of activations between guard zones. */
struct block {
    bool bf16;
    int64_t count;
    unsigned char *p;
};

static struct block block_new(bool bf16, int64_t count)
{
    struct block b = {.bf16 = bf16, .count = count};
    size_t size = bf16 ? 2 : 4;
    b.p = malloc((size_t)(count + 2 * GUARD) * size);
    assert_non_null(b.p);
    memset(b.p, 0xFF, (size_t)(count + 2 * GUARD) * size); /* NaN in both types */
    return b;
}

static void *at(const struct block *b)
{
    return b->p + GUARD * (b->bf16 ? 2 : 4);
}

static size_t block_bytes(const struct block *b)
{
    return (size_t)b->count * (b->bf16 ? 2 : 4);
}

static float get(const struct block *b, int64_t i)
{
    return b->bf16 ? bf16_to_float(((const uint16_t *)at(b))[i]) : ((const float *)at(b))[i];
}

static void set(struct block *b, int64_t i, float x)
{
    if (b->bf16)
        ((uint16_t *)at(b))[i] = bf16_from_float(x);
    else
        ((float *)at(b))[i] = x;
}

static void block_end(struct block *b, const char *what)
{
    size_t size = b->bf16 ? 2 : 4;
    for (size_t i = 0; i < GUARD * size; i++)
        if (b->p[i] != 0xFF || b->p[GUARD * size + block_bytes(b) + i] != 0xFF)
            fail_msg("%s: written outside", what);
    free(b->p);
}

static uint64_t state;

static float normal(void)
{
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) {
        state = random_mix(state + 1);
        sum += (float)(state >> 40) * 0x1p-24f;
    }
    return sum;
}

/* One call with all its arrays: q, k, v fused as (T, 3, H, d) where all queries take part, else q apart. */
struct problem {
    int rows, heads, d;
    const int *keys, *queries; /* (rows); queries NULL: all */
    float p, scale;            /* dropout; factor on q and k */
    int64_t first_row;         /* dropout's name of row 0 */

    int32_t kbegin[64], qbegin[64], chunk[64];
    int64_t row[64], T, Tq, q_stride, kv_stride;
    struct rows krows, qrows;
    struct dropout dropout;
    struct block q, kv, out, dout, dq, dkv, lse;
};

static void prepare(struct problem *x, bool bf16)
{
    int64_t C = (int64_t)x->heads * x->d;
    x->kbegin[0] = x->qbegin[0] = 0;
    x->krows = (struct rows){.count = x->rows, .begin = x->kbegin};
    x->qrows = (struct rows){.count = x->rows, .begin = x->qbegin};
    for (int b = 0; b < x->rows; b++) {
        int n = x->queries == NULL ? x->keys[b] : x->queries[b];
        x->kbegin[b + 1] = x->kbegin[b] + x->keys[b];
        x->qbegin[b + 1] = x->qbegin[b] + n;
        x->krows.longest = x->keys[b] > x->krows.longest ? x->keys[b] : x->krows.longest;
        x->qrows.longest = n > x->qrows.longest ? n : x->qrows.longest;
        x->row[b] = x->first_row + b + ((int64_t)(b & 1) << 33);
        x->chunk[b] = b % 3;
    }
    x->T = x->krows.tokens = x->kbegin[x->rows];
    x->Tq = x->qrows.tokens = x->qbegin[x->rows];
    x->dropout = (struct dropout){.p = x->p, .seed = SEED, .step = 3, .layer = 2, .site = 1, .row = x->row, .chunk = x->chunk};
    x->q_stride = C + 5;
    x->kv_stride = 2 * C + 3;
    x->q = block_new(bf16, x->Tq * x->q_stride);
    x->dq = block_new(bf16, x->Tq * x->q_stride);
    x->kv = block_new(bf16, x->T * x->kv_stride);
    x->dkv = block_new(bf16, x->T * x->kv_stride);
    x->out = block_new(bf16, x->Tq * C);
    x->dout = block_new(bf16, x->Tq * C);
    x->lse = block_new(false, x->Tq * x->heads);
    state = SEED;
    float scale = x->scale == 0 ? 1 : x->scale;
    for (int64_t t = 0; t < x->T; t++)
        for (int64_t c = 0; c < 2 * C; c++)
            set(&x->kv, t * x->kv_stride + c, normal() * (c < C ? scale : 1));
    for (int64_t t = 0; t < x->Tq; t++)
        for (int64_t c = 0; c < C; c++) {
            set(&x->q, t * x->q_stride + c, normal() * scale);
            set(&x->dout, t * C + c, normal());
        }
}

static void release(struct problem *x)
{
    block_end(&x->q, "q");
    block_end(&x->kv, "kv");
    block_end(&x->out, "out");
    block_end(&x->dout, "dout");
    block_end(&x->dq, "dq");
    block_end(&x->dkv, "dkv");
    block_end(&x->lse, "lse");
}

static void *kv_at(const struct problem *x, const struct block *b, bool value)
{
    return (unsigned char *)at(b) + (value ? (size_t)(x->heads * x->d) : 0) * (b->bf16 ? 2 : 4);
}

static void run_forward(struct kernel_ctx *ctx, struct problem *x)
{
    assert_ok(cpu_attention(ctx, &x->qrows, &x->krows, x->heads, x->d, at(&x->q), x->q_stride, kv_at(x, &x->kv, false),
                            kv_at(x, &x->kv, true), x->kv_stride, &x->dropout, at(&x->out), at(&x->lse)));
}

static void run_both(struct kernel_ctx *ctx, struct problem *x)
{
    run_forward(ctx, x);
    assert_ok(cpu_attention_backward(ctx, &x->qrows, &x->krows, x->heads, x->d, at(&x->q), x->q_stride,
                                     kv_at(x, &x->kv, false), kv_at(x, &x->kv, true), x->kv_stride, &x->dropout,
                                     at(&x->out), at(&x->lse), at(&x->dout), at(&x->dq), kv_at(x, &x->dkv, false),
                                     kv_at(x, &x->dkv, true)));
}

/* Scale of a decision as kernels.h defines it: 0, or 1 / (part kept). */
static double decision(const struct problem *x, int b, int h, int i, int j)
{
    if (x->p == 0)
        return 1;
    uint32_t threshold = (uint32_t)rint((double)x->p * 65536);
    uint64_t key = random_key(SEED, RANDOM_DROPOUT, 3, 2 * 16 + 1);
    int64_t index = ((int64_t)h * x->keys[b] + i) * round_up(x->keys[b], 8) + j;
    struct philox r = philox4x32(key, (uint32_t)(index / 8), (uint32_t)x->chunk[b], (uint32_t)x->row[b],
                                 (uint32_t)((uint64_t)x->row[b] >> 32));
    uint32_t lane = (r.v[index % 8 / 2] >> (16 * (index % 2))) & 0xFFFF;
    return lane >= threshold ? 65536.0 / (65536 - threshold) : 0;
}

/* Sums of squares of errors and of values. */
struct error {
    double error, value;
};

static void compare(struct error *e, double found, double wanted, const char *what)
{
    if (!isfinite(found))
        fail_msg("%s: %g where %g is wanted", what, found, wanted);
    e->error += (found - wanted) * (found - wanted);
    e->value += wanted * wanted;
}

static double relative(const struct error *e)
{
    return e->value > 0 ? sqrt(e->error / e->value) : sqrt(e->error);
}

struct errors {
    struct error out, dq, dk, dv;
    double lse; /* largest difference */
};

/* The plain loops. */
static struct errors check_against_loops(struct problem *x)
{
    struct errors e;
    memset(&e, 0, sizeof e);
    int d = x->d, most = x->krows.longest;
    int64_t C = (int64_t)x->heads * d;
    double scale = 1 / sqrt(d), *p = malloc((size_t)most * sizeof *p), *keep = malloc((size_t)most * sizeof *p);
    double *dk = malloc((size_t)most * d * sizeof *p), *dv = malloc((size_t)most * d * sizeof *p);
    double *k = malloc((size_t)most * d * sizeof *p), *v = malloc((size_t)most * d * sizeof *p);
    double q[ATTENTION_MAX_SIZE], g[ATTENTION_MAX_SIZE], o[ATTENTION_MAX_SIZE], dq[ATTENTION_MAX_SIZE];
    for (int b = 0; b < x->rows; b++)
        for (int h = 0; h < x->heads; h++) {
            int n = x->keys[b];
            memset(dk, 0, (size_t)n * d * sizeof *dk);
            memset(dv, 0, (size_t)n * d * sizeof *dv);
            for (int j = 0; j < n; j++)
                for (int c = 0; c < d; c++) {
                    k[j * d + c] = get(&x->kv, (x->kbegin[b] + j) * x->kv_stride + h * d + c);
                    v[j * d + c] = get(&x->kv, (x->kbegin[b] + j) * x->kv_stride + C + h * d + c);
                }
            for (int64_t t = x->qbegin[b]; t < x->qbegin[b + 1]; t++) {
                double top = -INFINITY, sum = 0, delta = 0;
                for (int c = 0; c < d; c++) {
                    q[c] = get(&x->q, t * x->q_stride + h * d + c);
                    g[c] = get(&x->dout, t * C + h * d + c);
                    o[c] = dq[c] = 0;
                }
                for (int j = 0; j < n; j++) {
                    double s = 0;
                    for (int c = 0; c < d; c++)
                        s += q[c] * k[j * d + c];
                    p[j] = s * scale;
                    top = fmax(top, p[j]);
                }
                for (int j = 0; j < n; j++)
                    sum += p[j] = exp(p[j] - top);
                for (int j = 0; j < n; j++) {
                    p[j] /= sum;
                    keep[j] = decision(x, b, h, (int)(t - x->qbegin[b]), j);
                    for (int c = 0; c < d; c++) {
                        o[c] += p[j] * keep[j] * v[j * d + c];
                        dv[j * d + c] += p[j] * keep[j] * g[c];
                    }
                }
                for (int c = 0; c < d; c++) {
                    delta += g[c] * o[c];
                    compare(&e.out, get(&x->out, t * C + h * d + c), o[c], "out");
                }
                e.lse = fmax(e.lse, fabs(get(&x->lse, t * x->heads + h) - (top + log(sum))));
                for (int j = 0; j < n; j++) {
                    double dp = 0;
                    for (int c = 0; c < d; c++)
                        dp += g[c] * v[j * d + c];
                    double ds = p[j] * (dp * keep[j] - delta) * scale;
                    for (int c = 0; c < d; c++) {
                        dq[c] += ds * k[j * d + c];
                        dk[j * d + c] += ds * q[c];
                    }
                }
                for (int c = 0; c < d; c++)
                    compare(&e.dq, get(&x->dq, t * x->q_stride + h * d + c), dq[c], "dq");
            }
            for (int j = 0; j < n; j++)
                for (int c = 0; c < d; c++) {
                    compare(&e.dk, get(&x->dkv, (x->kbegin[b] + j) * x->kv_stride + h * d + c), dk[j * d + c], "dk");
                    compare(&e.dv, get(&x->dkv, (x->kbegin[b] + j) * x->kv_stride + C + h * d + c), dv[j * d + c], "dv");
                }
        }
    free(p), free(keep), free(dk), free(dv), free(k), free(v);
    return e;
}

static void check_bound(const char *kind, const struct problem *x, const char *what, double found, double bound)
{
    if (!(found <= bound))
        fail_msg("%s, %d heads of %d, %d rows, first of %d keys, p %g: error of %s %.3g, allowed %.3g", kind, x->heads, x->d,
                 x->rows, x->keys[0], (double)x->p, what, found, bound);
}

/* What lies between the lines of dq, dk, dv stays as it was. */
static void check_gaps(const struct problem *x)
{
    int64_t C = (int64_t)x->heads * x->d;
    for (int64_t t = 0; t < x->Tq; t++)
        for (int64_t c = C; c < x->q_stride; c++)
            assert_true(isnan(get(&x->dq, t * x->q_stride + c)));
    for (int64_t t = 0; t < x->T; t++)
        for (int64_t c = 2 * C; c < x->kv_stride; c++)
            assert_true(isnan(get(&x->dkv, t * x->kv_stride + c)));
}

static double worst[2][5];

/* Bounds on relative RMS errors. float: sums of up to max(d, L) products, two of them in a row. bfloat16: P, dS and the results are
 * rounded to 2^-9 each, and delta comes from rounded out. Gradients through one key are differences of nearly equal
 * numbers (dS = P (dP - delta) is exactly 0 for one key): there errors count against the size of dP. */
static void parity(struct kernel_ctx *ctx, const struct kind *kind, struct problem *x)
{
    prepare(x, kind->bf16);
    run_both(ctx, x);
    struct errors e = check_against_loops(x);
    check_gaps(x);
    int longest = x->krows.longest, sum = longest > x->d ? longest : x->d;
    double bound = kind->bf16 ? 0x1p-8 : 4 * 0x1p-24 * sqrt(sum);
    bool single = true;
    for (int b = 0; b < x->rows; b++)
        single = single && x->keys[b] <= 1;
    double wide = x->scale > 1 ? 40 : 1; /* scores of +-80: their rounding is 2^-24 * 80 in the exponent */
    if (kind->bf16)
        wide = 1;
    double found[5] = {relative(&e.out), relative(&e.dq), relative(&e.dk), relative(&e.dv), e.lse};
    if (single) /* dq and dk are 0: errors are of the order of the rounding of delta */
        found[1] = found[2] = 0;
    for (int i = 0; i < 5; i++)
        worst[kind->bf16][i] = fmax(worst[kind->bf16][i], found[i] / (i < 4 ? bound * wide : 1));
    check_bound(kind->name, x, "out", found[0], bound * wide);
    check_bound(kind->name, x, "dq", found[1], 3 * bound * wide);
    check_bound(kind->name, x, "dk", found[2], 3 * bound * wide);
    check_bound(kind->name, x, "dv", found[3], bound * wide);
    check_bound(kind->name, x, "lse", e.lse, 2e-6 * (x->scale > 1 ? 20 : 1));
    release(x);
}

static void test_every_length_and_head_size(void **unused)
{
    (void)unused;
    static const struct {
        int length, heads, d;
    } table[] = {{1, 3, 32},   {2, 1, 64},   {7, 3, 12},   {16, 1, 32},  {17, 3, 17},  {31, 1, 64},  {32, 3, 32},
                 {33, 12, 12}, {63, 1, 128}, {64, 3, 32},  {65, 3, 32}, {128, 1, 64}, {129, 1, 32}, {129, 1, 17},
                 {512, 1, 32}, {16, 3, 1},   {20, 2, 256}, {40, 1, 200}, {8, 12, 32},  {257, 1, 24}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!present(&kinds[i])) {
            print_message("SKIP %s: this CPU lacks it\n", kinds[i].name);
            continue;
        }
        struct kernel_ctx *ctx = open_kind(&kinds[i]);
        for (size_t s = 0; s < sizeof table / sizeof *table; s++)
            for (int drop = 0; drop < 2; drop++) {
                struct problem x = {.rows = 1, .heads = table[s].heads, .d = table[s].d, .keys = &table[s].length,
                                    .p = drop ? 0.1f : 0};
                parity(ctx, &kinds[i], &x);
            }
        close_kind(ctx);
    }
    for (int i = 0; i < 2; i++)
        print_message("%s: worst errors / bound: out %.2f dq %.2f dk %.2f dv %.2f; lse %.2g\n", i ? "bfloat16" : "float",
                      worst[i][0], worst[i][1], worst[i][2], worst[i][3], worst[i][4]);
}

static void test_ragged_batches_query_subsets_and_long_rows(void **unused)
{
    (void)unused;
    static const int lengths[] = {20, 1, 33, 8, 0, 65, 17, 130}, some[] = {1, 1, 20, 1, 0, 65, 0, 129}, lengthy[] = {530, 5};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!present(&kinds[i]))
            continue;
        struct kernel_ctx *ctx = open_kind(&kinds[i]);
        for (int drop = 0; drop < 2; drop++) {
            float p = drop ? 0.25f : 0;
            struct problem ragged = {.rows = 8, .heads = 3, .d = 32, .keys = lengths, .p = p};
            parity(ctx, &kinds[i], &ragged);
            struct problem subset = {.rows = 8, .heads = 3, .d = 24, .keys = lengths, .queries = some, .p = p};
            parity(ctx, &kinds[i], &subset);
            struct problem large = {.rows = 2, .heads = 1, .d = 16, .keys = lengthy, .p = p};
            parity(ctx, &kinds[i], &large);
        }
        close_kind(ctx);
    }
}

static void test_large_scores_are_stable(void **unused)
{
    (void)unused;
    static const int lengths[] = {40, 520};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!present(&kinds[i]))
            continue;
        struct kernel_ctx *ctx = open_kind(&kinds[i]);
        struct problem x = {.rows = 2, .heads = 1, .d = 32, .keys = lengths, .scale = 5};
        parity(ctx, &kinds[i], &x);
        close_kind(ctx);
    }
}

/* q = 0 makes all probabilities equal; with v one-hot, channel c of query i's result is not 0 exactly where key j0 + c is
 * kept. In backward the same for dv with dout one-hot. */
static void test_decisions_are_those_of_philox(void **unused)
{
    (void)unused;
    static const int lengths[] = {70, 9, 520};
    enum { d = 64, heads = 2 };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!present(&kinds[i]))
            continue;
        struct kernel_ctx *ctx = open_kind(&kinds[i]);
        struct problem x = {.rows = 3, .heads = heads, .d = d, .keys = lengths, .p = 0.3f, .first_row = 12345};
        prepare(&x, kinds[i].bf16);
        const int64_t C = heads * d;
        for (int j0 = 0; j0 < 520; j0 = j0 == 64 ? 512 : j0 + d) { /* a block of keys begins at 512 */
            for (int b = 0; b < x.rows; b++)
                for (int j = 0; j < lengths[b]; j++)
                    for (int c = 0; c < C; c++) {
                        int64_t t = x.kbegin[b] + j;
                        set(&x.q, t * x.q_stride + c, 0);
                        set(&x.kv, t * x.kv_stride + C + c, c % d == j - j0);
                        set(&x.dout, t * C + c, c % d == j - j0);
                    }
            run_both(ctx, &x);
            for (int b = 0; b < x.rows; b++)
                for (int h = 0; h < heads; h++)
                    for (int i1 = 0; i1 < lengths[b]; i1++)
                        for (int c = 0; c < d && j0 + c < lengths[b]; c++) {
                            int64_t t = x.kbegin[b] + i1;
                            if ((get(&x.out, t * C + h * d + c) != 0) != (decision(&x, b, h, i1, j0 + c) != 0))
                                fail_msg("%s: forward, row %d head %d query %d key %d", kinds[i].name, b, h, i1, j0 + c);
                            if ((get(&x.dkv, t * x.kv_stride + C + h * d + c) != 0) != (decision(&x, b, h, j0 + c, i1) != 0))
                                fail_msg("%s: backward, row %d head %d query %d key %d", kinds[i].name, b, h, j0 + c, i1);
                        }
        }
        release(&x);
        close_kind(ctx);
    }
}

static void assert_same(const struct block *a, int64_t i, const struct block *b, int64_t j, int64_t count, const char *kind,
                        const char *what)
{
    size_t size = a->bf16 ? 2 : 4;
    if (memcmp((unsigned char *)at(a) + (size_t)i * size, (unsigned char *)at(b) + (size_t)j * size, (size_t)count * size) != 0)
        fail_msg("%s: %s differs in bits", kind, what);
}

static void test_bits_depend_on_neither_threads_nor_neighbours(void **unused)
{
    (void)unused;
    static const int lengths[] = {20, 1, 530, 33, 129}, first[] = {1, 1, 1, 1, 1}, some[] = {20, 1, 17, 2, 129};
    const int threads = omp_get_max_threads();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!present(&kinds[i]))
            continue;
        const char *name = kinds[i].name;
        struct kernel_ctx *ctx = open_kind(&kinds[i]);
        struct problem x = {.rows = 5, .heads = 3, .d = 32, .keys = lengths, .p = 0.1f};
        const int64_t C = 96;
        prepare(&x, kinds[i].bf16);
        run_both(ctx, &x);
        for (int n = 1; n <= 3; n++) {
            struct problem y = {.rows = 5, .heads = 3, .d = 32, .keys = lengths, .p = 0.1f};
            omp_set_num_threads(n);
            prepare(&y, kinds[i].bf16);
            run_both(ctx, &y);
            assert_same(&x.out, 0, &y.out, 0, x.out.count, name, "out on other threads");
            assert_same(&x.lse, 0, &y.lse, 0, x.lse.count, name, "lse on other threads");
            assert_same(&x.dq, 0, &y.dq, 0, x.dq.count, name, "dq on other threads");
            assert_same(&x.dkv, 0, &y.dkv, 0, x.dkv.count, name, "dk, dv on other threads");
            release(&y);
        }
        omp_set_num_threads(threads);
        for (int b = 0; b < 5; b++) { /* each row on its own */
            struct problem y = {.rows = 1, .heads = 3, .d = 32, .keys = lengths + b, .p = 0.1f};
            prepare(&y, kinds[i].bf16);
            y.row[0] = x.row[b];
            y.chunk[0] = x.chunk[b];
            memcpy(at(&y.q), (unsigned char *)at(&x.q) + block_bytes(&x.q) / (size_t)x.T * (size_t)x.kbegin[b], block_bytes(&y.q));
            memcpy(at(&y.kv), (unsigned char *)at(&x.kv) + block_bytes(&x.kv) / (size_t)x.T * (size_t)x.kbegin[b], block_bytes(&y.kv));
            memcpy(at(&y.dout), (unsigned char *)at(&x.dout) + block_bytes(&x.dout) / (size_t)x.T * (size_t)x.kbegin[b], block_bytes(&y.dout));
            run_both(ctx, &y);
            assert_same(&x.out, x.kbegin[b] * C, &y.out, 0, y.out.count, name, "out of a row alone");
            assert_same(&x.lse, x.kbegin[b] * 3, &y.lse, 0, y.lse.count, name, "lse of a row alone");
            assert_same(&x.dq, x.kbegin[b] * x.q_stride, &y.dq, 0, y.dq.count, name, "dq of a row alone");
            assert_same(&x.dkv, x.kbegin[b] * x.kv_stride, &y.dkv, 0, y.dkv.count, name, "dk, dv of a row alone");
            release(&y);
        }
        for (int which = 0; which < 2; which++) { /* only the first queries */
            struct problem y = {.rows = 5, .heads = 3, .d = 32, .keys = lengths, .queries = which ? some : first, .p = 0.1f};
            prepare(&y, kinds[i].bf16);
            size_t line = block_bytes(&x.q) / (size_t)x.T;
            memcpy(at(&y.kv), at(&x.kv), block_bytes(&x.kv));
            for (int b = 0; b < 5; b++)
                memcpy((unsigned char *)at(&y.q) + (size_t)y.qbegin[b] * line,
                       (unsigned char *)at(&x.q) + (size_t)x.qbegin[b] * line, line * (size_t)y.queries[b]);
            run_forward(ctx, &y);
            for (int b = 0; b < 5; b++) {
                assert_same(&x.out, x.qbegin[b] * C, &y.out, y.qbegin[b] * C, C * y.queries[b], name, "out of first queries");
                assert_same(&x.lse, x.qbegin[b] * 3, &y.lse, y.qbegin[b] * 3, 3 * y.queries[b], name, "lse of first queries");
            }
            release(&y);
        }
        release(&x);
        close_kind(ctx);
    }
}

static void test_nothing_to_do_and_bad_arguments(void **unused)
{
    (void)unused;
    struct kernel_ctx *ctx = open_kind(&kinds[0]);
    static const int32_t begin[] = {0, 0};
    static const struct rows none = {.begin = begin}, empty = {.count = 1, .begin = begin};
    const struct dropout off = {.p = 0};
    assert_ok(cpu_attention(ctx, &none, &none, 2, 8, NULL, 16, NULL, NULL, 16, &off, NULL, NULL));
    assert_ok(cpu_attention(ctx, &empty, &empty, 2, 8, NULL, 16, NULL, NULL, 16, &off, NULL, NULL));
    assert_ok(cpu_attention_backward(ctx, &empty, &empty, 2, 8, NULL, 16, NULL, NULL, 16, &off, NULL, NULL, NULL, NULL, NULL, NULL));
    assert_fails(cpu_attention(ctx, &none, &none, 2, 257, NULL, 16, NULL, NULL, 16, &off, NULL, NULL), STATUS_ARG, "257");
    assert_fails(cpu_attention(ctx, &none, &empty, 2, 8, NULL, 16, NULL, NULL, 16, &off, NULL, NULL), STATUS_ARG, "rows");
    close_kind(ctx);
}

/* A call reserves for its longest row, and shorter rows must fit in that. */
static void test_scratch_never_shrinks_with_the_row(void **state)
{
    static const struct {
        const struct attention_path *path;
        const struct kind *kind;
    } paths[] = {
        {&attention_portable_f32, &kinds[0]}, {&attention_portable_bf16, &kinds[3]},
#ifdef __x86_64__
        {&attention_f32_avx2, &kinds[1]},     {&attention_f32_avx512, &kinds[2]},
        {&attention_bf16, &kinds[4]},         {&attention_amx, &kinds[5]},
#endif
    };
    static const int sizes[] = {12, 16, 32, 64, 128};
    (void)state;
    for (size_t p = 0; p < sizeof paths / sizeof paths[0]; p++) {
        if (!present(paths[p].kind)) /* even these few sums may be compiled to its instructions */
            continue;
        for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
            const bool relative = i % 2 == 1;
            size_t forward = 0, backward = 0;
            for (int n = 1; n <= 700; n++) {
                size_t f = paths[p].path->forward_bytes(sizes[i / 2], n, n, relative),
                       b = paths[p].path->backward_bytes(sizes[i / 2], n, n, relative);
                if (f < forward || b < backward)
                    fail_msg("path %zu, head size %d: %d tokens need less scratch than %d", p, sizes[i / 2], n, n - 1);
                forward = f;
                backward = b;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length_and_head_size),
        cmocka_unit_test(test_ragged_batches_query_subsets_and_long_rows),
        cmocka_unit_test(test_large_scores_are_stable),
        cmocka_unit_test(test_decisions_are_those_of_philox),
        cmocka_unit_test(test_bits_depend_on_neither_threads_nor_neighbours),
        cmocka_unit_test(test_nothing_to_do_and_bad_arguments),
        cmocka_unit_test(test_scratch_never_shrinks_with_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
