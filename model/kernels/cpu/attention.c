/*
 * attention.c - attention of the CPU table: checks, the choice of a path, and the division of work
 * over threads.
 *
 * Units (see attention.h) are dealt dynamically: rows differ in length, and which thread computes a
 * unit changes nothing in it. Long rows are cut into chunks of queries in forward; in backward a
 * row and head stay together, so that the sums over queries (dk, dv) have one order.
 */
#include "model/kernels/cpu/attention.h"
#include "model/kernels/cpu/rows.h"

#define GROUPS 8          /* most of a piece: enough units for all threads, few sums to keep */
#define GROUP_TOKENS 1024 /* of a group, at least */

static const struct attention_path *choose(const struct kernel_ctx *ctx)
{
#ifdef __x86_64__
    if (!ctx->bf16 && ctx->cpu.avx2)
        return ctx->cpu.avx512 ? &attention_f32_avx512 : &attention_f32_avx2;
    if (ctx->bf16 && ctx->cpu.bf16)
        return ctx->cpu.amx ? &attention_amx : &attention_bf16;
#endif
    return ctx->bf16 ? &attention_portable_bf16 : &attention_portable_f32;
}

static int row_length(const struct rows *rows, int b)
{
    return rows->begin[b + 1] - rows->begin[b];
}

static int longest(const struct rows *rows)
{
    int most = 0;
    for (int b = 0; b < rows->count; b++)
        if (row_length(rows, b) > most)
            most = row_length(rows, b);
    return most;
}

static enum status check(struct attention_call *a)
{
    if (a->heads < 1 || a->head_size < 1 || a->head_size > ATTENTION_MAX_SIZE)
        return status_fail(STATUS_ARG,
                           "attention: %d heads of size %d, wanted at least 1 of size 1 to %d",
                           a->heads, a->head_size, ATTENTION_MAX_SIZE);
    if (a->queries->count != a->keys->count)
        return status_fail(STATUS_ARG, "attention: queries of %d rows, keys of %d",
                           a->queries->count, a->keys->count);
    a->most_queries = longest(a->queries);
    a->most_keys = longest(a->keys);
    for (int d = 1 - a->most_keys; a->relative != NULL && d < a->most_queries; d++)
        if (attention_line(a, d) >= a->relative->lines)
            return status_fail(STATUS_ARG,
                               "attention: a distance of %d wants line %d of a table of %d", d,
                               attention_line(a, d), a->relative->lines);
    return STATUS_OK;
}

/* Units a thread takes at once: few enough to balance, enough that short rows do not pay for each.
 */
static int units_at_once(int64_t units, int threads)
{
    int64_t n = units / ((int64_t)threads * 16);
    return n < 1 ? 1 : n > 16 ? 16 : (int)n;
}

/* Every head's lines by distance, at `to`. */
static void prepare_tables(const struct attention_path *path, struct attention_call *a,
                           bool backward, unsigned char *to)
{
    a->tables = to;
#pragma omp parallel num_threads(cpu_threads())
    {
        if (path->begin != NULL)
            path->begin();
#pragma omp for schedule(dynamic)
        for (int h = 0; h < a->heads; h++)
            path->table_prepare(a, h, backward, to + (size_t)h * a->table_bytes);
        if (path->end != NULL)
            path->end();
    }
}

static enum status forward(struct kernel_ctx *ctx, struct attention_call *a)
{
    TRY(check(a));
    const struct attention_path *path = choose(ctx);
    const int most = a->most_queries;
    if (most == 0)
        return STATUS_OK;
    TRY(cpu_scratch_reserve(
        ctx, path->forward_bytes(a->head_size, most, a->most_keys, a->relative != NULL)));
    if (a->relative != NULL) {
        unsigned char *tables;
        a->table_bytes = path->table_bytes(a->head_size, most, a->most_keys, false);
        TRY(cpu_shared_reserve(ctx, a->table_bytes * (size_t)a->heads, &tables));
        prepare_tables(path, a, false, tables);
    }

    const struct rows *queries = a->queries;
    const int heads = a->heads, chunks = (most + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK;
    int64_t units = (int64_t)queries->count * heads * chunks;
    int threads = cpu_threads(), take = units_at_once(units, threads);
#pragma omp parallel num_threads(threads)
    {
        if (path->begin != NULL)
            path->begin();
        unsigned char *scratch = cpu_scratch(ctx);
#pragma omp for schedule(dynamic, take)
        for (int64_t u = 0; u < units; u++) {
            int row = (int)(u / chunks / heads), head = (int)(u / chunks % heads);
            int q0 = (int)(u % chunks) * ATTENTION_CHUNK, count = row_length(queries, row);
            if (q0 < count)
                path->forward(a, row, head, q0,
                              count < q0 + ATTENTION_CHUNK ? count : q0 + ATTENTION_CHUNK, scratch);
        }
        if (path->end != NULL)
            path->end();
    }
    return STATUS_OK;
}

static enum status backward(struct kernel_ctx *ctx, struct attention_call *a)
{
    TRY(check(a));
    const struct attention_path *path = choose(ctx);
    const struct rows *keys = a->keys;
    const int heads = a->heads;
    if (a->most_keys == 0)
        return STATUS_OK;
    TRY(cpu_scratch_reserve(
        ctx, path->backward_bytes(a->head_size, a->most_queries, a->most_keys, false)));

    int64_t units = (int64_t)keys->count * heads;
    int threads = cpu_threads(), take = units_at_once(units, threads);
#pragma omp parallel num_threads(threads)
    {
        if (path->begin != NULL)
            path->begin();
        unsigned char *scratch = cpu_scratch(ctx);
#pragma omp for schedule(dynamic, take)
        for (int64_t u = 0; u < units; u++)
            if (row_length(keys, (int)(u / heads)) > 0)
                path->backward(a, (int)(u / heads), (int)(u % heads), scratch, NULL);
        if (path->end != NULL)
            path->end();
    }
    return STATUS_OK;
}

/* ---- backward with relative positions */

/* Rows [row[i], row[i + 1]) are group i; groups [of[p], of[p + 1]) are piece p. */
struct groups {
    int count;
    int32_t *row; /* (count + 1) */
    int32_t *of;  /* (pieces + 1) */
};

/* Cut each piece into groups of whole rows: an eighth of its tokens, and GROUP_TOKENS at least.
 * Rows that belong to no piece make groups, too, behind those of the pieces, since their dq, dk and
 * dv are wanted; NULL only counts. */
static int cut_into_groups(const struct attention_call *a, const struct grad_cut *cut,
                           struct groups *out)
{
    const int32_t *begin = a->keys->begin;
    int count = 0;
    for (int p = 0; p <= cut->pieces; p++) {
        const bool rest = p == cut->pieces;
        const int first = rest ? (cut->pieces > 0 ? cut->row[p] : 0) : cut->row[p],
                  last = rest ? a->keys->count : cut->row[p + 1];
        const int64_t tokens = begin[last] - begin[first];
        const int64_t most = (tokens + GROUPS - 1) / GROUPS > GROUP_TOKENS
                                 ? (tokens + GROUPS - 1) / GROUPS
                                 : GROUP_TOKENS;
        if (out != NULL)
            out->of[p] = count;
        for (int b = first; b < last; count++) {
            if (out != NULL)
                out->row[count] = b;
            const int32_t from = begin[b];
            while (b < last && begin[b] - from < most)
                b++;
        }
    }
    if (out != NULL) {
        out->row[count] = a->keys->count;
        out->count = count;
    }
    return count;
}

/* The sums of a piece's groups, rounded to dtable. */
static void put_pieces(const struct kernel_ctx *ctx, const struct attention_call *a,
                       const struct groups *groups, const float *partial, int pieces, act *dtable)
{
    const int64_t n = (int64_t)a->relative->lines * a->relative->width, some = 1024;
    const int64_t parts = (n + some - 1) / some;
#pragma omp parallel for num_threads(cpu_threads()) schedule(static)
    for (int64_t task = 0; task < pieces * parts; task++) {
        const int64_t at = task % parts * some, piece = task / parts;
        const int64_t count = n - at < some ? n - at : some;
        float sum[1024] = {0};
        for (int g = groups->of[piece]; g < groups->of[piece + 1]; g++)
            for (int64_t e = 0; e < count; e++)
                sum[e] += partial[g * n + at + e];
        ctx->rows->store(count, sum, cpu_line(ctx, dtable, piece * n + at, 1));
    }
}

static enum status backward_relative(struct kernel_ctx *ctx, struct attention_call *a, act *dtable,
                                     const struct grad_cut *cut)
{
    TRY(check(a));
    const struct attention_path *path = choose(ctx);
    const int heads = a->heads, d = a->head_size;
    const size_t line = (size_t)a->relative->lines * (size_t)a->relative->width * sizeof(float);
    const size_t scratch_bytes = path->backward_bytes(d, a->most_queries, a->most_keys, true),
                 sums_bytes = path->sums_bytes(d, a->most_queries, a->most_keys);
    const size_t lists = (size_t)round_up(
        (int64_t)((size_t)(a->keys->count + 1 + cut->pieces + 1) * sizeof(int32_t)), 64);
    a->table_bytes = path->table_bytes(d, a->most_queries, a->most_keys, true);
    struct groups groups = {.count = cut_into_groups(a, cut, NULL)};
    unsigned char *memory;
    TRY(cpu_scratch_reserve(ctx, scratch_bytes + sums_bytes));
    TRY(cpu_shared_reserve(
        ctx, lists + a->table_bytes * (size_t)heads + line * (size_t)groups.count, &memory));
    groups.row = (int32_t *)(void *)memory;
    groups.of = groups.row + a->keys->count + 1;
    float *partial = (float *)(void *)(memory + lists + a->table_bytes * (size_t)heads);
    (void)cut_into_groups(a, cut, &groups);
    if (a->most_keys > 0)
        prepare_tables(path, a, true, memory + lists);

#pragma omp parallel num_threads(cpu_threads())
    {
        if (path->begin != NULL)
            path->begin();
        unsigned char *scratch = cpu_scratch(ctx), *sums = scratch + scratch_bytes;
#pragma omp for schedule(dynamic)
        for (int64_t u = 0; u < (int64_t)groups.count * heads; u++) {
            const int group = (int)(u / heads), head = (int)(u % heads);
            memset(sums, 0, sums_bytes);
            for (int row = groups.row[group]; row < groups.row[group + 1]; row++)
                if (row_length(a->keys, row) > 0)
                    path->backward(a, row, head, scratch, sums);
            path->sums_fold(a, head, sums, partial + (size_t)group * (line / sizeof(float)));
        }
        if (path->end != NULL)
            path->end();
    }
    put_pieces(ctx, a, &groups, partial, cut->pieces, dtable);
    return STATUS_OK;
}

/* ---- entries */

static struct attention_call call_of(const struct rows *queries, const struct rows *keys, int heads,
                                     int head_size, const act *q, int64_t q_stride, const act *k,
                                     const act *v, int64_t kv_stride, const struct dropout *dropout)
{
    struct attention_call a = {.queries = queries,
                               .keys = keys,
                               .heads = heads,
                               .head_size = head_size,
                               .scale = (float)(1.0 / sqrt((double)head_size)),
                               .q = q,
                               .k = k,
                               .v = v,
                               .q_stride = q_stride,
                               .kv_stride = kv_stride};
    cpu_dropout_init(dropout, &a.dropout);
    return a;
}

static void add_relative(const struct kernel_ctx *ctx, const struct relative *relative,
                         struct attention_call *a)
{
    a->relative = relative;
    a->distances = &ctx->distances;
    a->scale = relative->scale;
}

static void add_gradients(const act *out, const float *lse, const act *dout, act *dq, act *dk,
                          act *dv, struct attention_call *a)
{
    a->out = (void *)(uintptr_t)out;
    a->lse = (float *)(uintptr_t)lse;
    a->dout = dout;
    a->dq = dq;
    a->dk = dk;
    a->dv = dv;
}

enum status cpu_attention(struct kernel_ctx *ctx, const struct rows *queries,
                          const struct rows *keys, int heads, int head_size, const act *q,
                          int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                          const struct dropout *dropout, act *out, float *lse)
{
    struct attention_call a =
        call_of(queries, keys, heads, head_size, q, q_stride, k, v, kv_stride, dropout);
    a.out = out;
    a.lse = lse;
    return forward(ctx, &a);
}

enum status cpu_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct dropout *dropout, const act *out, const float *lse,
                                   const act *dout, act *dq, act *dk, act *dv)
{
    struct attention_call a =
        call_of(queries, keys, heads, head_size, q, q_stride, k, v, kv_stride, dropout);
    add_gradients(out, lse, dout, dq, dk, dv, &a);
    return backward(ctx, &a);
}

enum status cpu_attention_relative(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct relative *relative, const struct dropout *dropout,
                                   act *out, float *lse)
{
    struct attention_call a =
        call_of(queries, keys, heads, head_size, q, q_stride, k, v, kv_stride, dropout);
    a.out = out;
    a.lse = lse;
    add_relative(ctx, relative, &a);
    return forward(ctx, &a);
}

enum status cpu_attention_relative_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                            const struct rows *keys, int heads, int head_size,
                                            const act *q, int64_t q_stride, const act *k,
                                            const act *v, int64_t kv_stride,
                                            const struct relative *relative,
                                            const struct dropout *dropout, const act *out,
                                            const float *lse, const act *dout, act *dq, act *dk,
                                            act *dv, act *dtable, const struct grad_cut *cut)
{
    struct attention_call a =
        call_of(queries, keys, heads, head_size, q, q_stride, k, v, kv_stride, dropout);
    add_gradients(out, lse, dout, dq, dk, dv, &a);
    add_relative(ctx, relative, &a);
    return backward_relative(ctx, &a, dtable, cut);
}
