/*
 * attention.c - attention of the CPU table: checks, the choice of a path, and the division of work
 * over threads.
 *
 * Units (see attention.h) are dealt dynamically: rows differ in length, and which thread computes a
 * unit changes nothing in it. Long rows are cut into chunks of queries in forward; in backward a
 * row and head stay together, so that the sums over queries (dk, dv) have one order.
 */
#include "model/kernels/cpu/attention.h"

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

static enum status check(const struct rows *queries, const struct rows *keys, int heads,
                         int head_size)
{
    if (heads < 1 || head_size < 1 || head_size > ATTENTION_MAX_SIZE)
        return status_fail(STATUS_ARG,
                           "attention: %d heads of size %d, wanted at least 1 of size 1 to %d",
                           heads, head_size, ATTENTION_MAX_SIZE);
    if (queries->count != keys->count)
        return status_fail(STATUS_ARG, "attention: queries of %d rows, keys of %d", queries->count,
                           keys->count);
    return STATUS_OK;
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

/* Units a thread takes at once: few enough to balance, enough that short rows do not pay for each.
 */
static int units_at_once(int64_t units, int threads)
{
    int64_t n = units / ((int64_t)threads * 16);
    return n < 1 ? 1 : n > 16 ? 16 : (int)n;
}

enum status cpu_attention(struct kernel_ctx *ctx, const struct rows *queries,
                          const struct rows *keys, int heads, int head_size, const act *q,
                          int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                          const struct dropout *dropout, act *out, float *lse)
{
    TRY(check(queries, keys, heads, head_size));
    const struct attention_path *path = choose(ctx);
    struct attention_call a = {.queries = queries,
                               .keys = keys,
                               .heads = heads,
                               .head_size = head_size,
                               .scale = (float)(1.0 / sqrt((double)head_size)),
                               .q = q,
                               .k = k,
                               .v = v,
                               .q_stride = q_stride,
                               .kv_stride = kv_stride,
                               .out = out,
                               .lse = lse};
    cpu_dropout_init(dropout, &a.dropout);
    int most = longest(queries);
    if (most == 0)
        return STATUS_OK;
    TRY(cpu_scratch_reserve(ctx, path->forward_bytes(head_size, most, longest(keys))));

    int chunks = (most + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK;
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
                path->forward(&a, row, head, q0,
                              count < q0 + ATTENTION_CHUNK ? count : q0 + ATTENTION_CHUNK, scratch);
        }
        if (path->end != NULL)
            path->end();
    }
    return STATUS_OK;
}

enum status cpu_attention_backward(struct kernel_ctx *ctx, const struct rows *queries,
                                   const struct rows *keys, int heads, int head_size, const act *q,
                                   int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                                   const struct dropout *dropout, const act *out, const float *lse,
                                   const act *dout, act *dq, act *dk, act *dv)
{
    TRY(check(queries, keys, heads, head_size));
    const struct attention_path *path = choose(ctx);
    struct attention_call a = {.queries = queries,
                               .keys = keys,
                               .heads = heads,
                               .head_size = head_size,
                               .scale = (float)(1.0 / sqrt((double)head_size)),
                               .q = q,
                               .k = k,
                               .v = v,
                               .q_stride = q_stride,
                               .kv_stride = kv_stride,
                               .out = (void *)(uintptr_t)out,
                               .lse = (float *)(uintptr_t)lse,
                               .dout = dout,
                               .dq = dq,
                               .dk = dk,
                               .dv = dv};
    cpu_dropout_init(dropout, &a.dropout);
    int most = longest(keys);
    if (most == 0)
        return STATUS_OK;
    TRY(cpu_scratch_reserve(ctx, path->backward_bytes(head_size, longest(queries), most)));

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
                path->backward(&a, (int)(u / heads), (int)(u % heads), scratch);
        if (path->end != NULL)
            path->end();
    }
    return STATUS_OK;
}
