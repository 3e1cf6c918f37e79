/*
 * cpu.c - the CPU backend's table: what the CPU can do, context and scratch, and the entries that
 * are neither products nor attention; see cpu.h.
 *
 * These entries divide lines or blocks of fixed size over threads and call the lines' kernels
 * (rows.h). Token sums are made in blocks of BLOCK tokens counted from a piece's beginning, added
 * up in order of the blocks.
 */
#include "model/kernels/cpu/cpu.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model/kernels/cpu/products.h"
#include "model/kernels/cpu/rows.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#define BLOCK 32 /* lines a thread takes at a time, tokens of a partial sum */

/* ---- what this CPU can do ---- */

static struct cpu_features found, capped;
static pthread_once_t asked = PTHREAD_ONCE_INIT;

static void ask(void)
{
#ifdef COHORT_EMULATED_AVX512 /* tests/support/avx512 */
    found = (struct cpu_features){true, true, true, true};
#elif defined(__x86_64__)
    unsigned a, b, c, d, low = 0, high = 0;
    found.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    found.avx512 = found.avx2 && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi");
    found.bf16 = found.avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5)) != 0;
    bool tiles = found.bf16 && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
                 (d & (1u << 22)) != 0 && /* AMX-BF16 */
                 (d & (1u << 24)) != 0;   /* AMX-TILE */
    if (tiles) {
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        /* Tile data (feature 18) is large, so Linux gives it to a process that asks
         * (ARCH_REQ_XCOMP_PERM), once. */
        found.amx = (low & 0x60000u) == 0x60000u && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    }
#endif
    capped = found;
}

const struct cpu_features *cpu_features(void)
{
    (void)pthread_once(&asked, ask);
    return &capped;
}

void cpu_features_cap(struct cpu_features cap)
{
    (void)cpu_features();
    capped.avx2 = found.avx2 && cap.avx2;
    capped.avx512 = found.avx512 && capped.avx2 && cap.avx512;
    capped.bf16 = found.bf16 && capped.avx512 && cap.bf16;
    capped.amx = found.amx && capped.bf16 && cap.amx;
}

/* ---- scratch ---- */

static enum status scratch_grow(struct cpu_scratch *s, size_t bytes)
{
    if (s->bytes >= bytes)
        return STATUS_OK;
    mem_free(s->p);
    s->bytes = 0;
    TRY(mem_alloc_raw(bytes, 1, "scratch memory of a kernel", &s->p));
    s->bytes = bytes;
    return STATUS_OK;
}

enum status cpu_scratch_reserve(struct kernel_ctx *ctx, size_t bytes)
{
    for (int i = 0; i < cpu_threads(); i++)
        TRY(scratch_grow(&ctx->scratch[i], bytes));
    return STATUS_OK;
}

enum status cpu_shared_reserve(struct kernel_ctx *ctx, size_t bytes, void *out)
{
    TRY(scratch_grow(&ctx->shared, bytes));
    memcpy(out, &ctx->shared.p, sizeof ctx->shared.p);
    return STATUS_OK;
}

/* ---- context ---- */

static enum status cpu_supports(enum precision precision)
{
    if (precision == PRECISION_FP32)
        return STATUS_OK;
    if (precision != PRECISION_BF16)
        return status_fail(STATUS_UNAVAILABLE,
                           "train.precision: the CPU backend computes in fp32 and bf16, not in %s",
                           precision == PRECISION_FP16 ? "fp16" : "tf32");
    /* oneDNN would emulate bfloat16 on plain AVX-512, slower than float: such machines are better
     * off with fp32. */
    if (!cpu_features()->bf16)
        return status_fail(STATUS_UNAVAILABLE, "train.precision=bf16: this CPU has no AVX512-BF16 "
                                               "instructions; fp32 works on every CPU");
    return STATUS_OK;
}

static const struct products_table *products_for(enum precision precision)
{
#ifdef __x86_64__
    if (precision == PRECISION_BF16)
        return &products_bf16;
#ifndef COHORT_EMULATED_AVX512 /* oneDNN asks the CPU itself */
    if (cpu_features()->avx512)
        return &products_onednn;
#endif
#endif
    (void)precision;
    return &products_f32;
}

static const struct cpu_rows *rows_for(const struct cpu_features *cpu, bool bf16)
{
#ifdef __x86_64__
    if (bf16)
        return &cpu_rows_bf16;
    if (cpu->avx512)
        return &cpu_rows_avx512;
    if (cpu->avx2)
        return &cpu_rows_avx2;
#endif
    (void)cpu;
    (void)bf16;
    return &cpu_rows_c;
}

static int64_t cpu_memory_bytes(const struct kernel_opts *opts)
{
    /* The largest shared block beside the products' is the embeddings' gradient: a float line per
     * token. */
    int64_t lines = opts->training ? opts->max_tokens * opts->max_channels * (int64_t)sizeof(float)
                                   : 0;
    int64_t tables = cpu_relative_bytes(opts);
    return (int64_t)sizeof(struct kernel_ctx) + products_for(opts->precision)->memory_bytes(opts) +
           (tables > lines ? tables : lines) + cpu_threads() * (int64_t)(4 << 20);
}

static void cpu_close(struct kernel_ctx *ctx)
{
    if (ctx == NULL)
        return;
    ctx->product_table->close(ctx->products);
    for (int i = 0; i < CPU_MAX_THREADS; i++)
        mem_free(ctx->scratch[i].p);
    mem_free(ctx->shared.p);
    mem_free(ctx);
}

static enum status cpu_open(const struct kernel_opts *opts, struct kernel_ctx **out)
{
    struct kernel_ctx *ctx;
    *out = NULL;
    TRY(cpu_supports(opts->precision));
    TRY(mem_alloc(1, sizeof *ctx, "a kernel context", &ctx));
    ctx->device = opts->device;
    ctx->precision = opts->precision;
    ctx->bf16 = opts->precision == PRECISION_BF16;
    ctx->training = opts->training;
    ctx->fastest = opts->fastest;
    ctx->cpu = *cpu_features();
    ctx->max_tokens = opts->max_tokens;
    ctx->max_rows = opts->max_rows;
    ctx->max_channels = opts->max_channels;
    ctx->distances = opts->distances;
    ctx->rows = rows_for(&ctx->cpu, ctx->bf16);
    ctx->product_table = products_for(opts->precision);
    enum status st = ctx->product_table->open(ctx, opts);
    if (st != STATUS_OK) {
        mem_free(ctx);
        return st;
    }
    *out = ctx;
    return STATUS_OK;
}

static enum status cpu_weights_changed(struct kernel_ctx *ctx, const float *weights)
{
    return ctx->product_table->weights_changed(ctx, weights);
}

static enum status cpu_linear(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                              const float *bias, act *y)
{
    return ctx->product_table->linear(ctx, m, rows, x, bias, y);
}

static enum status cpu_linear_backward_data(struct kernel_ctx *ctx, int m, int64_t rows,
                                            const act *dy, act *dx)
{
    return ctx->product_table->linear_backward_data(ctx, m, rows, dy, dx);
}

static enum status cpu_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows,
                                              const act *x, const act *dy, int64_t bias_offset,
                                              bool by_row, const struct table_lines *more,
                                              const struct grad_cut *cut)
{
    return ctx->product_table->linear_backward_weight(ctx, m, rows, x, dy, bias_offset, by_row,
                                                      more, cut);
}

/* ---- lines ---- */

void cpu_dropout_init(const struct dropout *dropout, struct cpu_dropout *out)
{
    memset(out, 0, sizeof *out);
    out->scale = 1.0f;
    if (dropout == NULL || dropout->p <= 0.0f)
        return;
    double threshold = rint((double)dropout->p * 65536.0);
    if (threshold < 1.0)
        return;
    out->on = true;
    out->key = random_key(dropout->seed, RANDOM_DROPOUT, (uint64_t)dropout->step,
                          (uint64_t)(dropout->layer * 16 + dropout->site));
    out->threshold = (uint32_t)threshold;
    out->scale = (float)(65536.0 / (65536.0 - threshold));
    out->row = dropout->row;
    out->chunk = dropout->chunk;
}

/* Lines with their rows: where the walk over consecutive lines is. */
struct walk {
    const struct rows *rows;
    const struct cpu_dropout *drop;
    const struct cpu_rows *kernels;
    int channels;
    int b;
    uint8_t *bits;
};

/* The last row that begins at t or before; rows without tokens are passed over. */
static int row_at(const struct rows *rows, int64_t t)
{
    int low = 0, high = rows->count - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (rows->begin[middle] <= t)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static struct walk walk_at(const struct kernel_ctx *ctx, const struct rows *rows,
                           const struct cpu_dropout *drop, int channels, int64_t t, uint8_t *bits)
{
    return (struct walk){.rows = rows,
                         .drop = drop,
                         .kernels = ctx->rows,
                         .channels = channels,
                         .b = row_at(rows, t),
                         .bits = bits};
}

/* Move to line t (the next one); returns its position in its row. */
static int64_t walk_to(struct walk *w, int64_t t)
{
    while (w->rows->begin[w->b + 1] <= t)
        w->b++;
    return t - w->rows->begin[w->b];
}

/* Decisions of the line at `position` of the walk's row; NULL without dropout. */
static const uint8_t *walk_bits(const struct walk *w, int64_t position)
{
    uint32_t counter[3];
    if (!w->drop->on)
        return NULL;
    cpu_dropout_row(w->drop, w->b, counter);
    w->kernels->keep(w->drop, counter, (uint64_t)position * (uint64_t)w->channels, w->channels,
                     w->bits);
    return w->bits;
}

/* A thread's scratch for lines of n elements: two float lines, sums to throw away, decisions. */
struct lines {
    float *s, *g, *waste;
    uint8_t *bits;
};

static size_t lines_bytes(int64_t n)
{
    return (size_t)(round_up(n, 16) * 4 * (int64_t)sizeof(float) + n / 8 + 128);
}

static struct lines lines_of(struct kernel_ctx *ctx, int64_t n)
{
    float *p = cpu_scratch(ctx);
    int64_t room = round_up(n, 16);
    return (struct lines){
        .s = p, .g = p + room, .waste = p + 2 * room, .bits = (uint8_t *)(p + 4 * room)};
}

static enum status cpu_residual_norm(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                     const act *x, const act *y, const float *gamma,
                                     const float *beta, float eps, const struct dropout *dropout,
                                     act *sum, float *mean, float *rstd, act *out)
{
    struct cpu_dropout drop;
    int64_t n = channels;
    cpu_dropout_init(dropout, &drop);
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t t0 = 0; t0 < rows->tokens; t0 += BLOCK) {
        struct lines l = lines_of(ctx, n);
        struct walk w = walk_at(ctx, rows, &drop, channels, t0, l.bits);
        for (int64_t t = t0; t < rows->tokens && t < t0 + BLOCK; t++) {
            const uint8_t *bits = walk_bits(&w, walk_to(&w, t));
            ctx->rows->residual(n, cpu_line(ctx, x, t, n), cpu_line(ctx, y, t, n), bits, drop.scale,
                                l.s, cpu_line(ctx, sum, t, n));
            ctx->rows->norm(n, l.s, gamma, beta, eps, NULL, 1.0f, &mean[t], &rstd[t],
                            cpu_line(ctx, out, t, n));
        }
    }
    return STATUS_OK;
}

static enum status cpu_embed(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                             const int32_t *ids, const int32_t *types, const float *word,
                             const float *position, const float *type, int first_position,
                             const float *gamma, const float *beta, float eps,
                             const struct dropout *dropout, act *sum, float *mean, float *rstd,
                             act *out)
{
    struct cpu_dropout drop;
    int64_t n = channels;
    cpu_dropout_init(dropout, &drop);
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t t0 = 0; t0 < rows->tokens; t0 += BLOCK) {
        struct lines l = lines_of(ctx, n);
        struct walk w = walk_at(ctx, rows, &drop, channels, t0, l.bits);
        for (int64_t t = t0; t < rows->tokens && t < t0 + BLOCK; t++) {
            int64_t at = walk_to(&w, t);
            const uint8_t *bits = walk_bits(&w, at);
            memcpy(l.s, word + ids[t] * n, (size_t)n * sizeof *l.s);
            if (position != NULL)
                ctx->rows->add(n, position + (first_position + at) * n, l.s);
            if (type != NULL)
                ctx->rows->add(n, type + (types != NULL ? types[t] : 0) * n, l.s);
            ctx->rows->store(n, l.s, cpu_line(ctx, sum, t, n));
            ctx->rows->norm(n, l.s, gamma, beta, eps, bits, drop.scale, &mean[t], &rstd[t],
                            cpu_line(ctx, out, t, n));
        }
    }
    return STATUS_OK;
}

static enum status cpu_dropout_lines(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                     const struct dropout *dropout, const act *x, act *y)
{
    struct cpu_dropout drop;
    int64_t n = channels;
    cpu_dropout_init(dropout, &drop);
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t t0 = 0; t0 < rows->tokens; t0 += BLOCK) {
        struct lines l = lines_of(ctx, n);
        struct walk w = walk_at(ctx, rows, &drop, channels, t0, l.bits);
        for (int64_t t = t0; t < rows->tokens && t < t0 + BLOCK; t++) {
            const uint8_t *bits = walk_bits(&w, walk_to(&w, t));
            ctx->rows->gradient(n, cpu_line(ctx, x, t, n), NULL, bits, drop.scale, l.s);
            ctx->rows->store(n, l.s, cpu_line(ctx, y, t, n));
        }
    }
    return STATUS_OK;
}

/* ---- token sums of norms ---- */

void cpu_cut_put(const struct grad_cut *cut, int i, const float *sum, int64_t at, int64_t n)
{
    float *to = cut->buffer[cut->to[i]] + at;
    if (cut->add[i]) {
        for (int64_t e = 0; e < n; e++)
            to[e] += sum[e];
    } else {
        memcpy(to, sum, (size_t)n * sizeof *to);
    }
    for (int32_t j = cut->merge_begin[i]; j < cut->merge_begin[i + 1]; j++) {
        float *into = cut->buffer[cut->merge_to[j]] + at;
        const float *from = cut->buffer[cut->merge_from[j]] + at;
        for (int64_t e = 0; e < n; e++)
            into[e] += from[e];
    }
}

int cpu_cut_buffers(const struct grad_cut *cut)
{
    int most = 0;
    for (int i = 0; i < cut->pieces; i++) {
        most = cut->to[i] > most ? cut->to[i] : most;
        for (int32_t j = cut->merge_begin[i]; j < cut->merge_begin[i + 1]; j++) {
            most = cut->merge_to[j] > most ? cut->merge_to[j] : most;
            most = cut->merge_from[j] > most ? cut->merge_from[j] : most;
        }
    }
    return most + 1;
}

/* Lines cut into blocks that do not cross pieces; partial sums (2 n: gamma, beta) of the blocks
 * that belong to one. */
struct blocks {
    int count;
    struct block {
        int32_t begin, end;
        int32_t piece; /* -1: in none */
    } * block;
    int32_t *first;      /* (pieces + 1) blocks before piece i; a piece's blocks are together */
    float *partial;      /* (count, 2 n) */
    unsigned char *room; /* more, as asked for */
};

static int blocks_between(const struct grad_cut *cut, const int32_t *line, int64_t lines,
                          struct blocks *out)
{
    int count = 0;
    for (int i = -1; i <= cut->pieces;
         i++) { /* before the first piece, the pieces, behind the last */
        bool piece = i >= 0 && i < cut->pieces;
        int64_t begin = i < 0 ? 0 : cut->pieces > 0 ? line[i] : 0, end = lines;
        if (i < cut->pieces)
            end = cut->pieces == 0 ? 0 : line[i + 1];
        if (out != NULL && i >= 0 && i <= cut->pieces)
            out->first[i] = count;
        for (int64_t t = begin; t < end; t += BLOCK, count++) {
            if (out != NULL)
                out->block[count] = (struct block){
                    (int32_t)t, (int32_t)(t + BLOCK < end ? t + BLOCK : end), piece ? i : -1};
        }
    }
    return count;
}

/* Blocks and memory for them, and `more` bytes, in the context's shared block. */
static enum status blocks_make(struct kernel_ctx *ctx, const struct grad_cut *cut, bool by_row,
                               int64_t lines, int64_t n, size_t more, struct blocks *out)
{
    const int32_t *line = by_row ? cut->row : cut->token;
    unsigned char *p;
    out->count = blocks_between(cut, line, lines, NULL);
    size_t first = (size_t)round_up((cut->pieces + 1) * (int64_t)sizeof *out->first, 64);
    size_t list = (size_t)round_up(out->count * (int64_t)sizeof *out->block, 64);
    size_t partial = (size_t)round_up(out->count * 2 * n * (int64_t)sizeof *out->partial, 64);
    TRY(cpu_shared_reserve(ctx, first + list + partial + more, &p));
    out->first = (int32_t *)(void *)p;
    out->block = (struct block *)(void *)(p + first);
    out->partial = (float *)(void *)(p + first + list);
    out->room = p + first + list + partial;
    (void)blocks_between(cut, line, lines, out);
    return STATUS_OK;
}

/* Add up partial sums and put them: gamma's and beta's. Called by all threads of a region. */
static void blocks_put(const struct blocks *blocks, const struct grad_cut *cut, int64_t n,
                       int64_t gamma_offset, int64_t beta_offset)
{
#pragma omp for schedule(static)
    for (int64_t c0 = 0; c0 < 2 * n; c0 += BLOCK) {
        for (int i = 0; i < cut->pieces; i++) {
            float sum[BLOCK] = {0};
            int64_t some = 2 * n - c0 < BLOCK ? 2 * n - c0 : BLOCK;
            for (int j = blocks->first[i]; j < blocks->first[i + 1]; j++) {
                for (int64_t e = 0; e < some; e++)
                    sum[e] += blocks->partial[j * 2 * n + c0 + e];
            }
            int64_t gammas = n - c0 < 0      ? 0
                             : n - c0 < some ? n - c0
                                             : some; /* n need not be a multiple of BLOCK */
            if (gammas > 0)
                cpu_cut_put(cut, i, sum, gamma_offset + c0, gammas);
            if (some > gammas)
                cpu_cut_put(cut, i, sum + gammas, beta_offset + (c0 + gammas - n), some - gammas);
        }
    }
}

static enum status cpu_residual_norm_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                              int channels, const act *da, const act *db,
                                              const act *sum, const float *mean, const float *rstd,
                                              const float *gamma, const struct dropout *dropout,
                                              act *dx, act *dy, int64_t gamma_offset,
                                              int64_t beta_offset, bool by_row,
                                              const struct grad_cut *cut)
{
    struct cpu_dropout drop;
    struct blocks blocks;
    int64_t n = channels;
    cpu_dropout_init(dropout, &drop);
    TRY(blocks_make(ctx, cut, by_row, rows->tokens, n, 0, &blocks));
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel num_threads(cpu_threads())
    {
        struct lines l = lines_of(ctx, n);
#pragma omp for schedule(static)
        for (int i = 0; i < blocks.count; i++) {
            const struct block *block = &blocks.block[i];
            float *sums = block->piece >= 0 ? blocks.partial + i * 2 * n : l.waste;
            struct walk w = walk_at(ctx, rows, &drop, channels, block->begin, l.bits);
            memset(sums, 0, (size_t)(2 * n) * sizeof *sums);
            for (int64_t t = block->begin; t < block->end; t++) {
                ctx->rows->gradient(n, cpu_line(ctx, da, t, n),
                                    db != NULL ? cpu_line(ctx, db, t, n) : NULL, NULL, 1.0f, l.g);
                ctx->rows->norm_backward(n, cpu_line(ctx, sum, t, n), mean[t], rstd[t], gamma, l.g,
                                         sums, sums + n);
                ctx->rows->store(n, l.g, cpu_line(ctx, dx, t, n));
                const uint8_t *bits = walk_bits(&w, walk_to(&w, t));
                if (bits != NULL)
                    ctx->rows->drop(n, l.g, bits, drop.scale, cpu_line(ctx, dy, t, n));
                else
                    ctx->rows->store(n, l.g, cpu_line(ctx, dy, t, n));
            }
        }
        blocks_put(&blocks, cut, n, gamma_offset, beta_offset);
    }
    return STATUS_OK;
}

/* ---- embedding tables ---- */

/* Tokens by the table row they read: a run is one row that some read, or several neighbours that
 * none reads. */
struct run {
    int32_t key, keys;   /* rows [key, key + keys) */
    int32_t first, last; /* its tokens: sorted[first .. last) */
};

struct table {
    int64_t offset;
    int rows;
    const int32_t *key; /* (T) */
    int32_t *sorted;    /* (T) tokens by key, in order of tokens within one */
    int32_t *count;     /* (rows + 1) scratch */
    struct run *run;    /* table_runs() of them */
    int runs;
};

#define GAP 64 /* rows of a run that no token reads: small enough to divide over threads */

static int64_t table_runs(int rows, int64_t tokens)
{
    int64_t touched = tokens < rows ? tokens : rows;
    return 2 * touched + rows / GAP + 2;
}

static size_t table_bytes(int rows, int64_t tokens)
{
    return (size_t)(round_up(tokens * 4, 64) * 2 + round_up((rows + 1) * 4LL, 64) +
                    round_up(table_runs(rows, tokens) * (int64_t)sizeof(struct run), 64));
}

static void gap(struct table *t, int32_t from, int32_t to, int32_t at)
{
    for (int32_t k = from; k < to; k += GAP)
        t->run[t->runs++] = (struct run){k, to - k < GAP ? to - k : GAP, at, at};
}

/* Counting sort of the tokens, then the runs. keys of a table's own are in `key` already. */
static void table_sort(struct table *t, int64_t tokens)
{
    int32_t end = 0;
    memset(t->count, 0, (size_t)(t->rows + 1) * sizeof *t->count);
    for (int64_t i = 0; i < tokens; i++)
        t->count[t->key[i] + 1]++;
    for (int k = 0; k < t->rows; k++)
        t->count[k + 1] += t->count[k];
    for (int64_t i = 0; i < tokens; i++)
        t->sorted[t->count[t->key[i]]++] =
            (int32_t)i; /* count[k] ends as where row k's tokens end */
    t->runs = 0;
    int32_t open = 0, first = 0;
    for (int32_t k = 0; k < t->rows; k++, first = end) {
        end = t->count[k];
        if (end == first)
            continue;
        gap(t, open, k, first);
        t->run[t->runs++] = (struct run){k, 1, first, end};
        open = k + 1;
    }
    gap(t, open, t->rows, first);
}

/* What a buffer holds, in the rows of a run, while the cut is followed. */
enum content {
    CONTENT_OLD,   /* what it held before the call */
    CONTENT_ZERO,  /* zero, but not written yet */
    CONTENT_SUM,   /* written */
    CONTENT_MERGED /* added to another: nobody needs it until it is written again */
};

/* to (=, or += where add) the lines of the tokens at p .. end, in order. */
static void sum_tokens(const struct cpu_rows *kernels, const int32_t *p, const int32_t *end,
                       const float *line, int64_t n, int64_t some, float *to)
{
    memset(to, 0, (size_t)some * sizeof *to);
    for (; p < end; p++)
        kernels->add(some, line + *p * n, to);
}

/* Rows [run->key, + keys) that no piece has tokens for: nothing is added, zeros are written once,
 * at the end, and only where they are not merged away; what earlier calls left is merged. */
static void table_gap(const struct cpu_rows *kernels, const struct table *t, const struct run *run,
                      const struct grad_cut *cut, int64_t n, int64_t c0, int64_t some,
                      uint8_t *content, int buffers)
{
    int64_t at = t->offset + run->key * n + c0;
    memset(content, CONTENT_OLD, (size_t)buffers);
    for (int i = 0; i < cut->pieces; i++) {
        if (!cut->add[i])
            content[cut->to[i]] = CONTENT_ZERO;
        for (int32_t j = cut->merge_begin[i]; j < cut->merge_begin[i + 1]; j++) {
            int into = cut->merge_to[j], from = cut->merge_from[j];
            for (int64_t k = 0; k < run->keys && content[from] != CONTENT_ZERO; k++) {
                float *sum = cut->buffer[into] + at + k * n;
                if (content[into] == CONTENT_ZERO)
                    memcpy(sum, cut->buffer[from] + at + k * n, (size_t)some * sizeof *sum);
                else
                    kernels->add(some, cut->buffer[from] + at + k * n, sum);
            }
            if (content[from] != CONTENT_ZERO && content[into] == CONTENT_ZERO)
                content[into] = CONTENT_SUM;
            content[from] = CONTENT_MERGED;
        }
    }
    for (int b = 0; b < buffers; b++) {
        if (content[b] == CONTENT_ZERO && some == n)
            kernels->zero(run->keys * n, cut->buffer[b] + at);
        for (int64_t k = 0; k < run->keys && content[b] == CONTENT_ZERO && some < n; k++)
            kernels->zero(some, cut->buffer[b] + at + k * n);
    }
}

/* One row that tokens read: sums of all buffers stay in the thread's lines (buffers + 1 of n), and
 * each buffer that holds something at the end is written once. */
static void table_row(const struct cpu_rows *kernels, const struct table *t, const struct run *run,
                      const struct grad_cut *cut, const float *line, int64_t n, int64_t c0,
                      int64_t some, uint8_t *content, int buffers, float *sums)
{
    const int32_t *p = t->sorted + run->first, *end = t->sorted + run->last;
    int64_t at = t->offset + run->key * n + c0;
    size_t bytes = (size_t)some * sizeof(float);
    memset(content, CONTENT_OLD, (size_t)buffers);
    while (p < end && *p < cut->token[0])
        p++;
    for (int i = 0; i < cut->pieces; i++) {
        int to = cut->to[i];
        const int32_t *begin = p;
        while (p < end && *p < cut->token[i + 1])
            p++;
        if (!cut->add[i]) {
            sum_tokens(kernels, begin, p, line + c0, n, some, sums + to * n);
            content[to] = CONTENT_SUM;
        } else if (p > begin) {
            if (content[to] == CONTENT_OLD)
                memcpy(sums + to * n, cut->buffer[to] + at, bytes);
            sum_tokens(kernels, begin, p, line + c0, n, some, sums + buffers * n);
            kernels->add(some, sums + buffers * n, sums + to * n);
            content[to] = CONTENT_SUM;
        }
        for (int32_t j = cut->merge_begin[i]; j < cut->merge_begin[i + 1]; j++) {
            int into = cut->merge_to[j], from = cut->merge_from[j];
            if (content[into] == CONTENT_OLD)
                memcpy(sums + into * n, cut->buffer[into] + at, bytes);
            kernels->add(some,
                         content[from] == CONTENT_OLD ? cut->buffer[from] + at : sums + from * n,
                         sums + into * n);
            content[into] = CONTENT_SUM;
            content[from] = CONTENT_MERGED;
        }
    }
    for (int b = 0; b < buffers; b++) {
        if (content[b] == CONTENT_SUM)
            memcpy(cut->buffer[b] + at, sums + b * n, bytes);
    }
}

static enum status cpu_embed_backward(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                      const int32_t *ids, const int32_t *types, const act *da,
                                      const act *db, const act *sum, const float *mean,
                                      const float *rstd, const float *gamma,
                                      const struct dropout *dropout, int first_position,
                                      int64_t word_offset, int word_rows, int64_t position_offset,
                                      int position_rows, int64_t type_offset, int type_rows,
                                      int64_t gamma_offset, int64_t beta_offset,
                                      const struct grad_cut *cut)
{
    struct cpu_dropout drop;
    struct blocks blocks;
    int64_t n = channels, tokens = rows->tokens;
    struct table table[3] = {{.offset = word_offset, .rows = word_rows, .key = ids}};
    int tables = 1;
    const int positions = position_offset >= 0 ? tables++ : -1;
    if (positions > 0)
        table[positions] = (struct table){.offset = position_offset, .rows = position_rows};
    if (type_offset >= 0)
        table[tables++] = (struct table){.offset = type_offset, .rows = type_rows, .key = types};
    const int buffers = cpu_cut_buffers(cut);
    if (cut->pieces == 0)
        return STATUS_OK;
    cpu_dropout_init(dropout, &drop);
    size_t line_bytes = (size_t)round_up(tokens * n * (int64_t)sizeof(float), 64),
           room = line_bytes;
    for (int i = 0; i < tables; i++)
        room += table_bytes(table[i].rows, tokens);
    TRY(blocks_make(ctx, cut, false, tokens, n, room, &blocks));
    float *line = (float *)(void *)blocks.room; /* (T, n) gradients of the sums */
    unsigned char *p = blocks.room + line_bytes;
    for (int i = 0; i < tables; i++) {
        int32_t *key = (int32_t *)(void *)p;
        const bool counted = i == positions, all_zero = !counted && table[i].key == NULL;
        if (counted || all_zero)
            table[i].key = key;
        p += round_up(tokens * 4, 64);
        table[i].sorted = (int32_t *)(void *)p;
        p += round_up(tokens * 4, 64);
        table[i].count = (int32_t *)(void *)p;
        p += round_up((table[i].rows + 1) * 4LL, 64);
        table[i].run = (struct run *)(void *)p;
        p += round_up(table_runs(table[i].rows, tokens) * (int64_t)sizeof(struct run), 64);
        for (int b = 0; b < rows->count && counted; b++) {
            for (int32_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
                key[t] = first_position + (t - rows->begin[b]);
        }
        if (all_zero)
            memset(key, 0, (size_t)tokens * sizeof *key);
    }
    size_t lines = (size_t)round_up((int64_t)lines_bytes(n), 64);
    TRY(cpu_scratch_reserve(ctx,
                            lines + (size_t)((buffers + 1) * n) * sizeof(float) + (size_t)buffers));
#pragma omp parallel num_threads(cpu_threads())
    {
        struct lines l = lines_of(ctx, n);
        float *sums = (float *)(void *)((unsigned char *)cpu_scratch(ctx) + lines);
        uint8_t *content = (uint8_t *)(sums + (buffers + 1) * n);
#pragma omp for schedule(dynamic) nowait
        for (int i = 0; i < tables; i++)
            table_sort(&table[i], tokens);
#pragma omp for schedule(dynamic)
        for (int i = 0; i < blocks.count; i++) {
            const struct block *block = &blocks.block[i];
            float *sums = block->piece >= 0 ? blocks.partial + i * 2 * n : l.waste;
            struct walk w = walk_at(ctx, rows, &drop, channels, block->begin, l.bits);
            memset(sums, 0, (size_t)(2 * n) * sizeof *sums);
            for (int64_t t = block->begin; t < block->end; t++) {
                float *g = line + t * n;
                const uint8_t *bits = walk_bits(&w, walk_to(&w, t));
                ctx->rows->gradient(n, cpu_line(ctx, da, t, n),
                                    db != NULL ? cpu_line(ctx, db, t, n) : NULL, bits, drop.scale,
                                    g);
                ctx->rows->norm_backward(n, cpu_line(ctx, sum, t, n), mean[t], rstd[t], gamma, g,
                                         sums, sums + n);
            }
        }
        for (int i = 0; i < tables; i++) {
            /* A table of few rows (types) is divided by columns. */
            int64_t some = table[i].runs < 4 * cpu_threads() ? 2 * BLOCK : n,
                    parts = (n + some - 1) / some;
#pragma omp for schedule(dynamic, 16) nowait
            for (int64_t task = 0; task < table[i].runs * parts; task++) {
                int64_t c0 = task % parts * some;
                const struct run *run = &table[i].run[task / parts];
                int64_t width = n - c0 < some ? n - c0 : some;
                if (run->first == run->last)
                    table_gap(ctx->rows, &table[i], run, cut, n, c0, width, content, buffers);
                else
                    table_row(ctx->rows, &table[i], run, cut, line, n, c0, width, content, buffers,
                              sums);
            }
        }
        blocks_put(&blocks, cut, n, gamma_offset, beta_offset);
    }
    return STATUS_OK;
}

/* ---- elementwise ---- */

#define CHUNK 4096 /* elements a thread takes at a time */

static enum status cpu_activate(struct kernel_ctx *ctx, enum activation kind, int64_t n,
                                const act *x, act *y)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t i = 0; i < n; i += CHUNK)
        ctx->rows->activate(kind, n - i < CHUNK ? n - i : CHUNK, cpu_line(ctx, x, i, 1),
                            cpu_line(ctx, y, i, 1));
    return STATUS_OK;
}

static enum status cpu_activate_backward(struct kernel_ctx *ctx, enum activation kind, int64_t n,
                                         const act *x, const act *dy, act *dx)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t i = 0; i < n; i += CHUNK)
        ctx->rows->activate_backward(kind, n - i < CHUNK ? n - i : CHUNK, cpu_line(ctx, x, i, 1),
                                     cpu_line(ctx, dy, i, 1), cpu_line(ctx, dx, i, 1));
    return STATUS_OK;
}

#define TANH_CHUNK 256 /* for what few elements go through: the pooler, projected embeddings */

static enum status cpu_add(struct kernel_ctx *ctx, int64_t n, const act *a, const act *b, act *y)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t i = 0; i < n; i += TANH_CHUNK) {
        float v[TANH_CHUNK], w[TANH_CHUNK];
        int64_t some = n - i < TANH_CHUNK ? n - i : TANH_CHUNK;
        ctx->rows->load(some, cpu_line(ctx, a, i, 1), v);
        ctx->rows->load(some, cpu_line(ctx, b, i, 1), w);
        for (int64_t e = 0; e < some; e++)
            v[e] += w[e];
        ctx->rows->store(some, v, cpu_line(ctx, y, i, 1));
    }
    return STATUS_OK;
}

static enum status cpu_tanh(struct kernel_ctx *ctx, int64_t n, const act *x, act *y)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t i = 0; i < n; i += TANH_CHUNK) {
        float v[TANH_CHUNK];
        int64_t some = n - i < TANH_CHUNK ? n - i : TANH_CHUNK;
        ctx->rows->load(some, cpu_line(ctx, x, i, 1), v);
        for (int64_t e = 0; e < some; e++)
            v[e] = tanhf(v[e]);
        ctx->rows->store(some, v, cpu_line(ctx, y, i, 1));
    }
    return STATUS_OK;
}

static enum status cpu_tanh_backward(struct kernel_ctx *ctx, int64_t n, const act *y, const act *dy,
                                     act *dx)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t i = 0; i < n; i += TANH_CHUNK) {
        float v[TANH_CHUNK], g[TANH_CHUNK];
        int64_t some = n - i < TANH_CHUNK ? n - i : TANH_CHUNK;
        ctx->rows->load(some, cpu_line(ctx, y, i, 1), v);
        ctx->rows->load(some, cpu_line(ctx, dy, i, 1), g);
        for (int64_t e = 0; e < some; e++)
            g[e] *= 1.0f - v[e] * v[e];
        ctx->rows->store(some, g, cpu_line(ctx, dx, i, 1));
    }
    return STATUS_OK;
}

/* ---- rows ---- */

static enum status cpu_first_tokens(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                    const act *x, act *out)
{
    size_t bytes = (size_t)channels * (ctx->bf16 ? 2 : 4);
    for (int b = 0; b < rows->count; b++) {
        if (rows->begin[b] < rows->begin[b + 1])
            memcpy(cpu_line(ctx, out, b, channels), cpu_line(ctx, x, rows->begin[b], channels),
                   bytes);
        else
            memset(cpu_line(ctx, out, b, channels), 0, bytes);
    }
    return STATUS_OK;
}

/* Zero lines [0, count). */
static void zero_lines(struct kernel_ctx *ctx, act *x, int64_t count, int64_t n)
{
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t t = 0; t < count; t += BLOCK) {
        int64_t some = count - t < BLOCK ? count - t : BLOCK;
        memset(cpu_line(ctx, x, t, n), 0, (size_t)(some * n) * (ctx->bf16 ? 2 : 4));
    }
}

static enum status cpu_first_tokens_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                             int channels, const act *dout, bool add, act *dx)
{
    int64_t n = channels;
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
    if (!add)
        zero_lines(ctx, dx, rows->tokens, n);
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int b = 0; b < rows->count; b++) {
        struct lines l = lines_of(ctx, n);
        act *to = cpu_line(ctx, dx, rows->begin[b], n);
        if (rows->begin[b] == rows->begin[b + 1])
            continue;
        ctx->rows->gradient(n, cpu_line(ctx, dout, b, n), add ? to : NULL, NULL, 1.0f, l.g);
        ctx->rows->store(n, l.g, to);
    }
    return STATUS_OK;
}

static enum status cpu_mean_pool(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                 const act *x, act *out)
{
    int64_t n = channels;
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(dynamic)
    for (int b = 0; b < rows->count; b++) {
        struct lines l = lines_of(ctx, n);
        int length = rows->begin[b + 1] - rows->begin[b];
        memset(l.s, 0, (size_t)n * sizeof *l.s);
        for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++) {
            ctx->rows->load(n, cpu_line(ctx, x, t, n), l.g);
            ctx->rows->add(n, l.g, l.s);
        }
        for (int64_t e = 0; e < n && length > 0; e++)
            l.s[e] /= (float)length;
        ctx->rows->store(n, l.s, cpu_line(ctx, out, b, n));
    }
    return STATUS_OK;
}

static enum status cpu_mean_pool_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                          int channels, const act *dout, act *dx)
{
    int64_t n = channels;
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(dynamic)
    for (int b = 0; b < rows->count; b++) {
        struct lines l = lines_of(ctx, n);
        int length = rows->begin[b + 1] - rows->begin[b];
        ctx->rows->load(n, cpu_line(ctx, dout, b, n), l.g);
        for (int64_t e = 0; e < n && length > 0; e++)
            l.g[e] /= (float)length;
        for (int64_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
            ctx->rows->store(n, l.g, cpu_line(ctx, dx, t, n));
    }
    return STATUS_OK;
}

static enum status cpu_max_pool(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                const act *x, act *out, int32_t *argmax)
{
    int64_t n = channels;
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(dynamic)
    for (int b = 0; b < rows->count; b++) {
        struct lines l = lines_of(ctx, n);
        int32_t *best = argmax + b * n;
        bool empty = rows->begin[b] == rows->begin[b + 1];
        memset(l.s, 0, (size_t)n * sizeof *l.s);
        if (!empty)
            ctx->rows->load(n, cpu_line(ctx, x, rows->begin[b], n), l.s);
        for (int64_t e = 0; e < n; e++)
            best[e] = empty ? -1 : rows->begin[b];
        for (int32_t t = rows->begin[b] + 1; t < rows->begin[b + 1]; t++) {
            ctx->rows->load(n, cpu_line(ctx, x, t, n), l.g);
            for (int64_t e = 0; e < n; e++) {
                best[e] = l.g[e] > l.s[e] ? t : best[e];
                l.s[e] = l.g[e] > l.s[e] ? l.g[e] : l.s[e];
            }
        }
        ctx->rows->store(n, l.s, cpu_line(ctx, out, b, n));
    }
    return STATUS_OK;
}

static enum status cpu_max_pool_backward(struct kernel_ctx *ctx, const struct rows *rows,
                                         int channels, const act *dout, const int32_t *argmax,
                                         act *dx)
{
    int64_t n = channels;
    size_t size = ctx->bf16 ? 2 : 4;
    zero_lines(ctx, dx, rows->tokens, n);
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int b = 0; b < rows->count; b++) {
        for (int64_t e = 0; e < n; e++) {
            int64_t t = argmax[b * n + e];
            if (t >= 0)
                memcpy(cpu_line(ctx, dx, t * n + e, 1), cpu_line(ctx, dout, b * n + e, 1), size);
        }
    }
    return STATUS_OK;
}

/* ---- classifier: small, in float ---- */

#define LANES 16

static float dot(const float *x, const float *y, int64_t n)
{
    float lane[LANES] = {0};
    int64_t e = 0;
    for (; e + LANES <= n; e += LANES) {
        for (int i = 0; i < LANES; i++)
            lane[i] += x[e + i] * y[e + i];
    }
    for (int i = 0; e + i < n; i++)
        lane[i] += x[e + i] * y[e + i];
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    }
    return lane[0];
}

static enum status cpu_classify(struct kernel_ctx *ctx, int rows, int channels, int outputs,
                                const act *x, const float *w, const float *bias, float *logits)
{
    int64_t n = channels;
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t b = 0; b < rows; b++) {
        struct lines l = lines_of(ctx, n);
        ctx->rows->load(n, cpu_line(ctx, x, b, n), l.s);
        for (int64_t o = 0; o < outputs; o++)
            logits[b * outputs + o] = dot(l.s, w + o * n, n) + (bias != NULL ? bias[o] : 0.0f);
    }
    return STATUS_OK;
}

/* to += a x */
static void add_scaled(int64_t n, float a, const float *x, float *to)
{
    for (int64_t e = 0; e < n; e++)
        to[e] += a * x[e];
}

static enum status cpu_classify_backward(struct kernel_ctx *ctx, int rows, int channels,
                                         int outputs, const act *x, const float *w,
                                         const float *dlogits, act *dx, int64_t w_offset,
                                         int64_t bias_offset, const struct grad_cut *cut)
{
    int64_t n = channels;
    TRY(cpu_scratch_reserve(ctx, lines_bytes(n)));
#pragma omp parallel num_threads(cpu_threads())
    {
        struct lines l = lines_of(ctx, n);
#pragma omp for schedule(static) nowait
        for (int64_t b = 0; b < rows; b++) {
            memset(l.g, 0, (size_t)n * sizeof *l.g);
            for (int64_t o = 0; o < outputs; o++)
                add_scaled(n, dlogits[b * outputs + o], w + o * n, l.g);
            ctx->rows->store(n, l.g, cpu_line(ctx, dx, b, n));
        }
#pragma omp for schedule(static)
        for (int64_t o = 0; o < outputs; o++) {
            for (int i = 0; i < cut->pieces; i++) {
                float column = 0.0f;
                memset(l.g, 0, (size_t)n * sizeof *l.g);
                for (int64_t b = cut->row[i]; b < cut->row[i + 1]; b++) {
                    float g = dlogits[b * outputs + o];
                    ctx->rows->load(n, cpu_line(ctx, x, b, n), l.s);
                    add_scaled(n, g, l.s, l.g);
                    column += g;
                }
                cpu_cut_put(cut, i, l.g, w_offset + o * n, n);
                if (bias_offset >= 0)
                    cpu_cut_put(cut, i, &column, bias_offset + o, 1);
            }
        }
    }
    return STATUS_OK;
}

/* ---- optimizer ---- */

#define ADAMW_BLOCK 16384

static enum status cpu_adamw(struct kernel_ctx *ctx, const struct adamw_args *args,
                             const struct adamw_segment *segments, int count)
{
#pragma omp parallel num_threads(cpu_threads())
    for (int s = 0; s < count; s++) {
        const struct adamw_segment *seg = &segments[s];
        struct adamw_step step = {
            .clip = args->clip,
            .beta1 = args->beta1,
            .beta2 = args->beta2,
            .eps = args->eps,
            .keep = (float)(1.0 - (double)seg->lr * (double)seg->weight_decay),
            .rate = (float)((double)seg->lr / args->correction1),
            .correction = (float)(1.0 / sqrt(args->correction2)),
        };
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < seg->count; i += ADAMW_BLOCK) {
            int64_t n = seg->count - i < ADAMW_BLOCK ? seg->count - i : ADAMW_BLOCK;
            ctx->rows->adamw(&step, n, args->gradient + seg->g + i, args->weights + seg->w + i,
                             args->m + seg->state + i, args->v + seg->state + i);
        }
    }
    return STATUS_OK;
}

static enum status cpu_square_sums(struct kernel_ctx *ctx, const float *x,
                                   const struct range *ranges, int count, int64_t block,
                                   double *out)
{
    for (int r = 0; r < count; r++) {
        const float *from = x + ranges[r].begin;
        const int64_t n = ranges[r].end - ranges[r].begin, blocks = (n + block - 1) / block;
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
        for (int64_t i = 0; i < blocks; i++)
            out[i] = ctx->rows->square_sum(n - i * block < block ? n - i * block : block,
                                           from + i * block);
        out += blocks;
    }
    return STATUS_OK;
}

const struct kernels *kernels_cpu(void)
{
    static const struct kernels table = {
        .name = "cpu",
        .supports = cpu_supports,
        .memory_bytes = cpu_memory_bytes,
        .open = cpu_open,
        .close = cpu_close,
        .weights_changed = cpu_weights_changed,
        .embed = cpu_embed,
        .embed_backward = cpu_embed_backward,
        .linear = cpu_linear,
        .linear_backward_data = cpu_linear_backward_data,
        .linear_backward_weight = cpu_linear_backward_weight,
        .attention = cpu_attention,
        .attention_backward = cpu_attention_backward,
        .table_norm = cpu_table_norm,
        .table_norm_backward = cpu_table_norm_backward,
        .table_dropout = cpu_table_dropout,
        .attention_relative = cpu_attention_relative,
        .attention_relative_backward = cpu_attention_relative_backward,
        .neighbours = cpu_neighbours,
        .neighbours_backward = cpu_neighbours_backward,
        .residual_norm = cpu_residual_norm,
        .residual_norm_backward = cpu_residual_norm_backward,
        .add = cpu_add,
        .activate = cpu_activate,
        .activate_backward = cpu_activate_backward,
        .tanh_forward = cpu_tanh,
        .tanh_backward = cpu_tanh_backward,
        .dropout = cpu_dropout_lines,
        .first_tokens = cpu_first_tokens,
        .first_tokens_backward = cpu_first_tokens_backward,
        .mean_pool = cpu_mean_pool,
        .mean_pool_backward = cpu_mean_pool_backward,
        .max_pool = cpu_max_pool,
        .max_pool_backward = cpu_max_pool_backward,
        .classify = cpu_classify,
        .classify_backward = cpu_classify_backward,
        .adamw = cpu_adamw,
        .update = cpu_update,
        .square_sums = cpu_square_sums,
    };
    return &table;
}
