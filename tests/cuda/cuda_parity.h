/*
 * cuda_parity.h - run an operation on ref and on the CUDA backend, emulated or real, and compare.
 *
 * A case is a function that makes inputs, registers outputs and calls entries of a table; it is run
 * once on ref (host memory, no filler) and several times on cuda: every order of the emulated
 * threads, each twice (once where accesses are looked at). Everything a case makes comes from the functions below and is released by
 * them; the same seed gives the same numbers on both sides. cuda's bits must be the same in all
 * runs, its filler lines as promised, its distance to ref bounded.
 *
 * ref has fp32 and bf16. fp16 and tf32 are compared with ref in fp32 on inputs rounded to the type;
 * what a case hands on from one entry to the next is then not rounded on the side of ref, so such a
 * case gives slack.
 *
 * Before the case runs, pass_begins has been told p->rows, p->firsts, p->ids, p->types, p->row,
 * p->chunk and, where p->parameters > 0, backward_begins p->cut.
 */
#ifndef COHORT_TESTS_CUDA_PARITY_H
#define COHORT_TESTS_CUDA_PARITY_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "base/halves.h"
#include "base/mem.h"
#include "base/philox.h"
#include "model/kernels/kernels.h"
#include "tests/support/shapes.h"
#include "tests/support/support.h"

#if __has_include(<emulated_cuda.h>)
#include <emulated_cuda.h>
#else /* a real GPU has its own order */
static inline void emulated_cuda_order(const char *order)
{
    (void)order;
}
static inline bool emulated_cuda_hooks(void)
{
    return false;
}
#endif

enum {
    CUDA_PARITY_BUFFERS = 4,
    CUDA_PARITY_MEMORY = 96,
    CUDA_PARITY_ROWS = 48,
    CUDA_PARITY_TOKENS = 512,
    CUDA_PARITY_ZONE = 256
};

enum parity_type { PARITY_ACT, PARITY_FLOAT, PARITY_INT };
/* What lines behind the last row hold: any finite numbers, zeros, or NaN (as an output: not looked
 * at). */
enum parity_filler { FILLER_FINITE, FILLER_ZERO, FILLER_NAN };
enum parity_cut { CUT_NONE, CUT_TREE, CUT_ONE };

struct cuda_parity {
    /* Given by the test. */
    enum precision precision;
    int channels, heads, inner;
    int vocab;       /* ids are below it; 0: 1000 */
    float dropout_p; /* of p->dropout */
    const struct matrix *matrices;
    int matrix_count;
    int64_t weight_count;   /* elements of p->weights; 0: none */
    int64_t parameters;     /* elements of a gradient buffer; 0: no backward */
    double gradient_length; /* terms of a gradient's sum beside T, for the bound; 0: none */
    bool fastest;
    struct distances distances; /* of the context */
    int max_channels;           /* of the context; 0: 4096 */

    /* Made for the case. */
    bool reference; /* this is ref's side */
    enum parity_cut cut_kind;
    struct device *device;
    int32_t begin[CUDA_PARITY_ROWS + 1], line[CUDA_PARITY_ROWS + 1];
    struct rows rows, firsts;
    int64_t tokens; /* begin[B]; rows.tokens may be more, on the side of cuda */
    int64_t row[CUDA_PARITY_ROWS];
    int32_t chunk[CUDA_PARITY_ROWS];
    int32_t ids[CUDA_PARITY_TOKENS], types[CUDA_PARITY_TOKENS];
    struct dropout dropout;
    float *weights;
    float *buffer[CUDA_PARITY_BUFFERS];
    int32_t token[6], piece_row[6];
    struct grad_cut cut;

    struct parity_memory {
        unsigned char *raw; /* with its zones */
        size_t bytes;
        const char *name; /* NULL: not an output */
        enum parity_type type;
        int64_t n, width; /* width 0: no lines */
        enum parity_filler filler;
        double length;
    } memory[CUDA_PARITY_MEMORY];
    int memory_count;
};

typedef void cuda_parity_case(const struct kernels *k, struct kernel_ctx *ctx,
                              struct cuda_parity *p);

/* The GPU, opened once for the process. Without one, which only the real toolkit lets happen, the
 * program ends as skipped. */
static inline struct device *cuda_parity_device(void)
{
    static struct device *device;
    int count;
    if (device == NULL && device_count(DEVICE_CUDA, &count) != STATUS_OK) {
        printf("SKIP: %s\n", status_message());
        exit(77);
    }
    if (device == NULL)
        assert_ok(device_open(DEVICE_CUDA, 0, &device));
    return device;
}

static inline bool cuda_parity_is_half(enum precision precision)
{
    return precision == PRECISION_BF16 || precision == PRECISION_FP16;
}

static inline const char *cuda_parity_precision(enum precision precision)
{
    static const char *const name[] = {"fp32", "tf32", "bf16", "fp16"};
    return name[precision];
}

/* Round to what activations of this precision can hold. */
static inline float cuda_parity_round(enum precision precision, float x)
{
    if (precision == PRECISION_BF16)
        return float_from_bf16(bf16_from_float(x));
    if (precision == PRECISION_FP16)
        return float_from_f16(f16_from_float(x));
    return x;
}

/* Bytes of one activation on this side: ref keeps fp16's in float. */
static inline size_t cuda_parity_act_bytes(const struct cuda_parity *p)
{
    if (p->reference)
        return p->precision == PRECISION_BF16 ? 2 : 4;
    return cuda_parity_is_half(p->precision) ? 2 : 4;
}

static inline void cuda_parity_to_act(const struct cuda_parity *p, const float *x, int64_t n,
                                      void *to)
{
    for (int64_t i = 0; i < n; i++) {
        if (cuda_parity_act_bytes(p) == 4)
            ((float *)to)[i] = cuda_parity_round(p->precision, x[i]);
        else
            ((uint16_t *)to)[i] = p->precision == PRECISION_FP16 ? f16_from_float(x[i])
                                                                 : bf16_from_float(x[i]);
    }
}

static inline void cuda_parity_from_act(const struct cuda_parity *p, const void *x, int64_t n,
                                        float *to)
{
    for (int64_t i = 0; i < n; i++) {
        if (cuda_parity_act_bytes(p) == 4)
            to[i] = ((const float *)x)[i];
        else
            to[i] = p->precision == PRECISION_FP16 ? float_from_f16(((const uint16_t *)x)[i])
                                                   : float_from_bf16(((const uint16_t *)x)[i]);
    }
}

static inline void cuda_parity_put(const struct cuda_parity *p, void *to, const void *from,
                                   size_t bytes)
{
    if (p->reference)
        memcpy(to, from, bytes);
    else
        assert_ok(device_put(p->device, to, from, bytes));
}

static inline void cuda_parity_get(const struct cuda_parity *p, void *to, const void *from,
                                   size_t bytes)
{
    if (p->reference)
        memcpy(to, from, bytes);
    else
        assert_ok(device_get(p->device, to, from, bytes));
}

/* Blocks of device memory that no case uses: taken again for the same size, since allocating takes
 * longer than most kernels here. */
struct cuda_parity_pool {
    unsigned char *raw[4 * CUDA_PARITY_MEMORY];
    size_t bytes[4 * CUDA_PARITY_MEMORY];
    int count;
};

static inline struct cuda_parity_pool *cuda_parity_pool(void)
{
    static struct cuda_parity_pool pool;
    return &pool;
}

static inline unsigned char *cuda_parity_take(struct device *device, size_t bytes)
{
    struct cuda_parity_pool *pool = cuda_parity_pool();
    unsigned char *raw = NULL;
    for (int i = 0; i < pool->count; i++)
        if (pool->bytes[i] == bytes) {
            raw = pool->raw[i];
            pool->count--;
            pool->raw[i] = pool->raw[pool->count];
            pool->bytes[i] = pool->bytes[pool->count];
            return raw;
        }
    assert_ok(device_alloc(device, bytes, "a test's array", &raw));
    return raw;
}

static inline void cuda_parity_give(struct device *device, unsigned char *raw, size_t bytes)
{
    struct cuda_parity_pool *pool = cuda_parity_pool();
    if (pool->count == (int)(sizeof pool->bytes / sizeof pool->bytes[0])) {
        device_free(device, raw);
        return;
    }
    pool->raw[pool->count] = raw;
    pool->bytes[pool->count++] = bytes;
}

/* Memory of p's side between guard zones: a copy of from, or (NULL) all bits set, which is NaN in
 * every type. */
static inline struct parity_memory *cuda_parity_memory(struct cuda_parity *p, const void *from,
                                                       size_t bytes)
{
    assert_true(p->memory_count < CUDA_PARITY_MEMORY);
    struct parity_memory *m = &p->memory[p->memory_count++];
    const size_t all = bytes + 2 * CUDA_PARITY_ZONE;
    unsigned char *fill = malloc(all);
    memset(fill, 0xA5, all);
    if (from == NULL)
        memset(fill + CUDA_PARITY_ZONE, 0xFF, bytes);
    else
        memcpy(fill + CUDA_PARITY_ZONE, from, bytes);
    *m = (struct parity_memory){.bytes = bytes};
    m->raw = p->reference ? malloc(all) : cuda_parity_take(p->device, all);
    cuda_parity_put(p, m->raw, fill, all);
    free(fill);
    return m;
}

static inline void *cuda_parity_place(const struct parity_memory *m)
{
    return m->raw + CUDA_PARITY_ZONE;
}

static inline void cuda_parity_release(struct cuda_parity *p)
{
    for (int i = 0; i < p->memory_count; i++) {
        if (p->reference)
            free(p->memory[i].raw);
        else
            cuda_parity_give(p->device, p->memory[i].raw,
                             p->memory[i].bytes + 2 * CUDA_PARITY_ZONE);
    }
    p->memory_count = 0;
}

/* ---- inputs */

static inline void *cuda_parity_bytes(struct cuda_parity *p, const void *from, size_t bytes)
{
    return cuda_parity_place(cuda_parity_memory(p, from, bytes));
}

static inline float *cuda_parity_floats(struct cuda_parity *p, const float *x, int64_t n)
{
    return cuda_parity_bytes(p, x, (size_t)n * sizeof *x);
}

static inline float *cuda_parity_float(struct cuda_parity *p, int64_t n, uint64_t seed)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    shapes_fill(x, n, seed, false);
    float *to = cuda_parity_floats(p, x, n);
    free(x);
    return to;
}

/* Activations of these numbers, rounded to the type. */
static inline act *cuda_parity_acts(struct cuda_parity *p, const float *x, int64_t n)
{
    const size_t bytes = (size_t)n * cuda_parity_act_bytes(p);
    void *a = malloc(bytes + 1);
    cuda_parity_to_act(p, x, n, a);
    act *to = cuda_parity_bytes(p, a, bytes);
    free(a);
    return to;
}

static inline act *cuda_parity_act(struct cuda_parity *p, int64_t n, uint64_t seed)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    shapes_fill(x, n, seed, false);
    act *to = cuda_parity_acts(p, x, n);
    free(x);
    return to;
}

/* (T, width) numbers of a seed and filler behind them; freed by the caller. */
static inline float *cuda_parity_line_numbers(const struct cuda_parity *p, int64_t width,
                                              uint64_t seed, enum parity_filler filler)
{
    const int64_t n = p->tokens * width, all = p->rows.tokens * width;
    float *x = malloc((size_t)(all + 1) * sizeof *x);
    shapes_fill(x, n, seed, false);
    for (int64_t i = n; i < all; i++)
        x[i] = filler == FILLER_ZERO ? 0.0f : filler == FILLER_NAN ? NAN : 100.0f;
    return x;
}

/* One line of width per token, filler behind them. */
static inline act *cuda_parity_lines(struct cuda_parity *p, int64_t width, uint64_t seed,
                                     enum parity_filler filler)
{
    float *x = cuda_parity_line_numbers(p, width, seed, filler);
    act *to = cuda_parity_acts(p, x, p->rows.tokens * width);
    free(x);
    return to;
}

static inline float *cuda_parity_float_lines(struct cuda_parity *p, int64_t width, uint64_t seed,
                                             enum parity_filler filler)
{
    float *x = cuda_parity_line_numbers(p, width, seed, filler);
    float *to = cuda_parity_floats(p, x, p->rows.tokens * width);
    free(x);
    return to;
}

/* ---- outputs. length: terms of the sums, for the bound of float sums. Pre-filled with NaN. */

static inline size_t cuda_parity_size(const struct cuda_parity *p, enum parity_type type)
{
    return type == PARITY_ACT ? cuda_parity_act_bytes(p) : 4;
}

static inline void *cuda_parity_output(struct cuda_parity *p, const char *name,
                                       enum parity_type type, int64_t n, double length)
{
    struct parity_memory *m = cuda_parity_memory(p, NULL, (size_t)n * cuda_parity_size(p, type));
    m->name = name;
    m->type = type;
    m->n = n;
    m->length = length;
    return cuda_parity_place(m);
}

/* One line of width per token; filler: what the entry promises for the lines behind the last row.
 */
static inline void *cuda_parity_output_lines(struct cuda_parity *p, const char *name,
                                             enum parity_type type, int64_t width, double length,
                                             enum parity_filler filler)
{
    void *to = cuda_parity_output(p, name, type, p->rows.tokens * width, length);
    p->memory[p->memory_count - 1].width = width;
    p->memory[p->memory_count - 1].filler = filler;
    return to;
}

/* ---- the run */

/* Buffers and pieces: a tree over four pieces and one that adds, some of them empty; or one piece.
 */
static inline void cuda_parity_cut(struct cuda_parity *p)
{
    static const int32_t to[5] = {0, 1, 1, 2, 3}, merge_begin[6] = {0, 0, 1, 1, 3, 3};
    static const int32_t merge_to[3] = {0, 1, 0}, merge_from[3] = {1, 2, 1};
    static const bool add[5] = {false, false, false, false, true};
    static const int32_t no_merge[2] = {0, 0};
    const int pieces = p->cut_kind == CUT_TREE ? 5 : 1;
    const double length = (double)p->tokens + 1 + p->gradient_length;
    for (int i = 0; i < CUDA_PARITY_BUFFERS; i++)
        p->buffer[i] = cuda_parity_output(p,
                                          i == 0                              ? "sum of pieces"
                                          : i == 3 && p->cut_kind == CUT_TREE ? "added piece"
                                                                              : NULL,
                                          PARITY_FLOAT, p->parameters, length);
    float *old = malloc((size_t)(p->parameters + 1) * sizeof *old);
    shapes_fill(old, p->parameters, 99, false);
    cuda_parity_put(p, p->buffer[3], old, (size_t)p->parameters * sizeof *old);
    free(old);
    for (int i = 0; i <= pieces; i++) {
        p->piece_row[i] = (int32_t)(p->rows.count * i / pieces);
        p->token[i] = p->begin[p->piece_row[i]];
    }
    p->cut = (struct grad_cut){.pieces = pieces,
                               .token = p->token,
                               .row = p->piece_row,
                               .to = to,
                               .add = add,
                               .merge_begin = pieces == 1 ? no_merge : merge_begin,
                               .merge_to = merge_to,
                               .merge_from = merge_from,
                               .buffer = p->buffer};
}

static inline void cuda_parity_batch(struct cuda_parity *p, const int *lengths)
{
    const int n = shapes_rows(lengths, p->begin);
    const int vocab = p->vocab > 0 ? p->vocab : 1000;
    int longest = 0;
    p->tokens = p->begin[n];
    assert_true(p->tokens <= CUDA_PARITY_TOKENS);
    for (int b = 0; b < n; b++) {
        const int length = p->begin[b + 1] - p->begin[b];
        longest = length > longest ? length : longest;
        p->row[b] = 1000 + 7 * b + ((int64_t)b << 33);
        p->chunk[b] = b % 3;
    }
    for (int b = 0; b <= n; b++)
        p->line[b] = b;
    for (int64_t t = 0; t < p->tokens; t++) { /* few different ids: rows of a table meet often */
        p->ids[t] = (int32_t)(random_below(7, (uint64_t)t, 1000) *
                              random_below(8, (uint64_t)t, 1000) / 1000 % (uint64_t)vocab);
        p->types[t] = (int32_t)(t % 3 == 1);
    }
    const int64_t multiple = p->reference ? 1 : kernels_cuda()->line_multiple;
    p->rows = (struct rows){
        .tokens = round_up(p->tokens, multiple), .count = n, .longest = longest, .begin = p->begin};
    p->firsts = (struct rows){.tokens = n, .count = n, .longest = n > 0, .begin = p->line};
    p->dropout = (struct dropout){.p = p->dropout_p,
                                  .seed = 5,
                                  .step = 3,
                                  .layer = 2,
                                  .site = 1,
                                  .row = p->row,
                                  .chunk = p->chunk};
}

static inline struct kernel_ctx *cuda_parity_new(const struct kernels *k,
                                                 const struct cuda_parity *p)
{
    struct kernel_ctx *ctx;
    const struct kernel_opts opts = {
        .device = p->device,
        .precision = p->reference && p->precision != PRECISION_BF16 ? PRECISION_FP32 : p->precision,
        .matrices = p->matrices,
        .count = p->matrix_count,
        .weight_count = p->weight_count,
        .max_tokens = 2 * CUDA_PARITY_TOKENS,
        .max_rows = 64,
        .max_channels = p->max_channels > 0 ? p->max_channels : 4096,
        .max_pieces = 5,
        .distances = p->distances,
        .training = true,
        .fastest = p->fastest};
    assert_ok(k->open(&opts, &ctx));
    return ctx;
}

/* A context for p's side. The last one of cuda is kept for the next runs that ask for the same,
 * since opening one takes longer than most cases. */
static inline struct kernel_ctx *cuda_parity_open(const struct kernels *k,
                                                  const struct cuda_parity *p)
{
    enum { most = 4 };
    static struct kernel_ctx *kept;
    static struct cuda_parity of;
    static struct matrix matrices[most];
    const size_t bytes = (size_t)p->matrix_count * sizeof *matrices;
    if (p->reference)
        return cuda_parity_new(k, p);
    assert_true(p->matrix_count <= most);
    if (kept != NULL && of.precision == p->precision && of.matrix_count == p->matrix_count &&
        of.weight_count == p->weight_count && of.fastest == p->fastest &&
        of.distances.line == p->distances.line &&
        (bytes == 0 || memcmp(matrices, p->matrices, bytes) == 0))
        return kept;
    if (kept != NULL)
        k->close(kept);
    kept = cuda_parity_new(k, p);
    of = *p;
    if (bytes > 0)
        memcpy(matrices, p->matrices, bytes);
    return kept;
}

/* Fill p from base for one side and run the case. p is not copied afterwards: its rows, cut and
 * ids are named by their addresses. */
static inline void cuda_parity_run(cuda_parity_case *run, const struct kernels *k,
                                   const struct cuda_parity *base, const int *lengths,
                                   struct cuda_parity *p)
{
    *p = *base;
    p->reference = k == kernels_ref();
    p->device = p->reference ? NULL : cuda_parity_device();
    cuda_parity_batch(p, lengths);
    struct kernel_ctx *ctx = cuda_parity_open(k, p);
    if (p->weight_count > 0) {
        /* Rounded, so that the 16-bit copy of the weights says what the master weights say. */
        float *w = malloc((size_t)p->weight_count * sizeof *w);
        shapes_fill(w, p->weight_count, 9, false);
        for (int64_t i = 0; i < p->weight_count; i++)
            w[i] = cuda_parity_round(p->precision, w[i]);
        p->weights = cuda_parity_floats(p, w, p->weight_count);
        free(w);
        assert_ok(k->weights_changed(ctx, p->weights));
    }
    if (k->pass_begins != NULL) {
        const struct pass_arrays pass = {.rows = &p->rows,
                                         .firsts = &p->firsts,
                                         .ids = p->ids,
                                         .types = p->types,
                                         .row = p->row,
                                         .chunk = p->chunk,
                                         .step = p->dropout.step};
        assert_ok(k->pass_begins(ctx, &pass));
    }
    if (p->cut_kind != CUT_NONE) {
        cuda_parity_cut(p);
        if (k->backward_begins != NULL)
            assert_ok(k->backward_begins(ctx, &p->cut));
    }
    run(k, ctx, p);
    if (p->reference)
        k->close(ctx);
    else
        assert_ok(device_finish(p->device));
}

/* RMS bound of STYLE.md, by the type of an output. */
static inline double cuda_parity_bound(const struct cuda_parity *p, const struct parity_memory *m)
{
    const double sums = ldexp(4.0, -24) * sqrt(m->length < 1 ? 1.0 : m->length);
    if (p->precision == PRECISION_TF32)
        return ldexp(1.0, -10);
    if (m->type == PARITY_ACT && p->precision == PRECISION_BF16)
        return ldexp(1.0, -8);
    if (m->type == PARITY_ACT && p->precision == PRECISION_FP16)
        return ldexp(1.0, -11);
    return sums;
}

/* The memory of an output with its zones, copied to the host and checked; freed by the caller. */
static inline unsigned char *cuda_parity_fetch(const struct cuda_parity *p,
                                               const struct parity_memory *m, const char *what)
{
    const size_t all = m->bytes + 2 * CUDA_PARITY_ZONE;
    unsigned char *x = malloc(all);
    cuda_parity_get(p, x, m->raw, all);
    for (size_t i = 0; i < CUDA_PARITY_ZONE; i++)
        if (x[i] != 0xA5 || x[all - 1 - i] != 0xA5)
            fail_msg("%s: written outside of it", what);
    return x;
}

/* Compare one output of both sides; elements that nobody wrote are NaN in both. */
static inline void cuda_parity_compare(const struct cuda_parity *got,
                                       const struct cuda_parity *want, int i, double slack,
                                       const char *what)
{
    const struct parity_memory *a = &got->memory[i], *b = &want->memory[i];
    const int64_t lines = a->width > 0 ? got->tokens * a->width : a->n;
    unsigned char *x = cuda_parity_fetch(got, a, what), *y = cuda_parity_fetch(want, b, what);
    float *f = malloc((size_t)(a->n + lines + 1) * sizeof *f), *g = f + a->n;
    const void *xs = x + CUDA_PARITY_ZONE, *ys = y + CUDA_PARITY_ZONE;
    if (a->type == PARITY_INT) {
        if (memcmp(xs, ys, (size_t)lines * 4) != 0)
            fail_msg("%s: other whole numbers than ref", what);
    } else {
        if (a->type == PARITY_ACT) {
            cuda_parity_from_act(got, xs, a->n, f);
            cuda_parity_from_act(want, ys, lines, g);
        } else {
            memcpy(f, xs, (size_t)a->n * 4);
            memcpy(g, ys, (size_t)lines * 4);
        }
        for (int64_t e = 0; e < lines; e++)
            if (f[e] != f[e] && g[e] != g[e])
                f[e] = g[e] = 0.0f;
        const double error = shapes_error(f, g, lines), bound = cuda_parity_bound(got, a) * slack;
        if (!(error <= bound))
            fail_msg("%s: RMS relative error %.3g, wanted at most %.3g", what, error, bound);
        for (int64_t e = lines; e < a->n; e++)
            if ((a->filler == FILLER_FINITE && !isfinite(f[e])) ||
                (a->filler == FILLER_ZERO && f[e] != 0.0f))
                fail_msg("%s: filler line %lld has %g", what, (long long)(e / a->width),
                         (double)f[e]);
    }
    free(f);
    free(x);
    free(y);
}

static inline void cuda_parity_same(const struct cuda_parity *first, const struct cuda_parity *got,
                                    int i, const char *what)
{
    unsigned char *x = cuda_parity_fetch(first, &first->memory[i], what);
    unsigned char *y = cuda_parity_fetch(got, &got->memory[i], what);
    if (memcmp(x, y, first->memory[i].bytes + 2 * CUDA_PARITY_ZONE) != 0)
        fail_msg("%s: other bits than in the first run", what);
    free(x);
    free(y);
}

/* The case on one batch: ref once, cuda in each order of the emulation, twice (once where every
 * access is looked at). slack multiplies the bounds (1 unless the case says why). */
static inline void cuda_parity_check(cuda_parity_case *run, const struct cuda_parity *base,
                                     const int *lengths, const char *name, double slack)
{
    static struct cuda_parity want, first, got;
    cuda_parity_run(run, kernels_ref(), base, lengths, &want);
    const int turns = emulated_cuda_hooks() ? 2 : 4;
    for (int turn = 0; turn < turns; turn++) {
        struct cuda_parity *p = turn == 0 ? &first : &got;
        emulated_cuda_order(turn % 2 == 0 ? "forward" : "reverse");
        cuda_parity_run(run, kernels_cuda(), base, lengths, p);
        assert_int_equal(p->memory_count, want.memory_count);
        for (int i = 0; i < p->memory_count; i++) {
            char what[240];
            if (p->memory[i].name == NULL)
                continue;
            snprintf(what, sizeof what,
                     "%s: %s (%s, C %d, F %d, T %lld, B %d, %d pieces, order %d)", name,
                     p->memory[i].name, cuda_parity_precision(p->precision), p->channels, p->inner,
                     (long long)p->tokens, p->rows.count, p->cut.pieces, turn % 2);
            if (turn == 0)
                cuda_parity_compare(p, &want, i, slack, what);
            else
                cuda_parity_same(&first, p, i, what);
        }
        if (turn > 0)
            cuda_parity_release(&got);
    }
    emulated_cuda_order("forward");
    cuda_parity_release(&first);
    cuda_parity_release(&want);
}

/* The case in each precision of the mask (1 << enum precision), on all batches; with parameters,
 * cut as a tree and as one piece. */
static inline void cuda_parity_all(cuda_parity_case *run, const struct cuda_parity *base,
                                   unsigned precisions, const char *name, double slack)
{
    for (int precision = 0; precision < 4; precision++) {
        if ((precisions >> precision & 1u) == 0)
            continue;
        for (int batch = 0; batch < SHAPES_BATCHES; batch++) {
            static struct cuda_parity p;
            p = *base;
            p.precision = (enum precision)precision;
            p.cut_kind = p.parameters > 0 ? CUT_TREE : CUT_NONE;
            cuda_parity_check(run, &p, shapes_batch[batch], name, slack);
            if (p.parameters == 0)
                continue;
            p.cut_kind = CUT_ONE;
            cuda_parity_check(run, &p, shapes_batch[batch], name, slack);
        }
    }
}

#define PARITY_FP32 (1u << PRECISION_FP32)
#define PARITY_TF32 (1u << PRECISION_TF32)
#define PARITY_HALVES (1u << PRECISION_BF16 | 1u << PRECISION_FP16)

#endif
