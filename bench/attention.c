/*
 * attention.c - times attention of the CPU backend alone: microseconds per token and layer, forward and backward.
 *
 *     OMP_NUM_THREADS=1 bench_attention [heads [tokens [size [length [path [relative]]]]]]
 *
 * relative 1: DeBERTa-v3's attention, with a table of 512 positions (its projections are not part of it).
 * For each path of this machine, head size and row length: a batch of about `tokens` tokens (default 2,048), fused QKV
 * (T, 3, H, d), without and with dropout 0.1. The time is the main thread's CPU time, the least of many calls; the
 * cases take turns, so that a change of the machine's speed touches all of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/kernels/cpu/attention.h"
#include "model/model_impl.h"

#define ROUNDS 7
#define CALLS_S 0.02 /* CPU time of a round */

struct one {
    const char *name;
    bool bf16;
    struct cpu_features cpu;
    int d, length, drop;
    bool relative;
    double forward, backward; /* least so far, us per token */
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(void *p, int64_t n, bool bf16, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        float x = (float)(random_mix(seed + (uint64_t)i) >> 40) * 0x1p-23f - 1.0f;
        if (bf16)
            ((uint16_t *)p)[i] = bf16_from_float(x);
        else
            ((float *)p)[i] = x;
    }
}

static double least(double a, double b)
{
    return a == 0 || b < a ? b : a;
}

static enum status time_one(struct one *o, int heads, int tokens)
{
    int rows = tokens / o->length < 1 ? 1 : tokens / o->length;
    int64_t T = (int64_t)rows * o->length, C = (int64_t)heads * o->d;
    size_t size = o->bf16 ? 2 : 4;
    struct kernel_ctx *ctx = NULL;
    unsigned char *qkv = NULL, *dqkv = NULL, *out = NULL, *dout = NULL;
    float *lse = NULL;
    int32_t *begin = NULL;
    int64_t *row = NULL;
    enum status st;
    struct distances distances = {0};
    const struct relative_config config = {.span = 256, .buckets = 256, .max_distance = 512};
    unsigned char *table = NULL, *dtable = NULL;
    if (o->relative)
        TRY_GOTO(done, distances_make(&config, &distances));
    const struct kernel_opts opts = {.precision = o->bf16 ? PRECISION_BF16 : PRECISION_FP32, .max_tokens = T,
                                     .max_rows = rows, .max_channels = (int)(3 * C), .distances = distances,
                                     .max_pieces = 1, .training = true};
    cpu_features_cap(o->cpu);
    TRY_GOTO(done, kernels_cpu()->open(&opts, &ctx));
    const int lines = distances_lines(&distances, o->length);
    TRY_GOTO(done, mem_alloc((size_t)(lines * 2 * C), size, "the table", &table));
    TRY_GOTO(done, mem_alloc((size_t)(lines * 2 * C), size, "its gradient", &dtable));
    fill(table, lines * 2 * C, o->bf16, 3);
    TRY_GOTO(done, mem_alloc((size_t)(3 * T * C), size, "q, k, v", &qkv));
    TRY_GOTO(done, mem_alloc((size_t)(3 * T * C), size, "gradients of q, k, v", &dqkv));
    TRY_GOTO(done, mem_alloc((size_t)(T * C), size, "results", &out));
    TRY_GOTO(done, mem_alloc((size_t)(T * C), size, "gradients of results", &dout));
    TRY_GOTO(done, mem_alloc((size_t)(T * heads), sizeof *lse, "log sums", &lse));
    TRY_GOTO(done, mem_alloc((size_t)rows + 1, sizeof *begin, "begins of rows", &begin));
    TRY_GOTO(done, mem_alloc((size_t)rows, sizeof *row, "rows", &row));
    for (int b = 0; b < rows; b++) {
        begin[b + 1] = begin[b] + o->length;
        row[b] = b;
    }
    fill(qkv, 3 * T * C, o->bf16, 1);
    fill(dout, T * C, o->bf16, 2);
    struct rows r = {.tokens = T, .count = rows, .longest = o->length, .begin = begin};
    struct dropout dropout = {.p = o->drop ? 0.1f : 0.0f, .seed = 1, .step = 1, .row = row};
    size_t part = (size_t)C * size;
    const struct relative relative = {.table = table, .lines = lines, .width = (int)(2 * C), .q_at = 0, .k_at = (int)C,
                                      .scale = 0.1f};
    int32_t token[2] = {0, (int32_t)T}, piece[2] = {0, rows}, to[1] = {0}, merges[2] = {0};
    bool add[1] = {false};
    const struct grad_cut cut = {.pieces = 1, .token = token, .row = piece, .to = to, .add = add, .merge_begin = merges};
    for (double begun = now(); now() < begun + CALLS_S;) {
        double t0 = now();
        if (o->relative)
            TRY_GOTO(done, cpu_attention_relative(ctx, &r, &r, heads, o->d, qkv, 3 * C, qkv + part, qkv + 2 * part,
                                                  3 * C, &relative, &dropout, out, lse));
        else
            TRY_GOTO(done, cpu_attention(ctx, &r, &r, heads, o->d, qkv, 3 * C, qkv + part, qkv + 2 * part, 3 * C,
                                         &dropout, out, lse));
        double t1 = now();
        if (o->relative)
            TRY_GOTO(done, cpu_attention_relative_backward(ctx, &r, &r, heads, o->d, qkv, 3 * C, qkv + part,
                                                           qkv + 2 * part, 3 * C, &relative, &dropout, out, lse, dout,
                                                           dqkv, dqkv + part, dqkv + 2 * part, dtable, &cut));
        else
            TRY_GOTO(done, cpu_attention_backward(ctx, &r, &r, heads, o->d, qkv, 3 * C, qkv + part, qkv + 2 * part,
                                                  3 * C, &dropout, out, lse, dout, dqkv, dqkv + part,
                                                  dqkv + 2 * part));
        double t2 = now();
        o->forward = least(o->forward, (t1 - t0) / (double)T * 1e6);
        o->backward = least(o->backward, (t2 - t1) / (double)T * 1e6);
    }
done:
    if (ctx != NULL)
        kernels_cpu()->close(ctx);
    cpu_features_cap((struct cpu_features){true, true, true, true});
    mem_free((void *)(uintptr_t)distances.line);
    mem_free(table);
    mem_free(dtable);
    mem_free(qkv);
    mem_free(dqkv);
    mem_free(out);
    mem_free(dout);
    mem_free(lse);
    mem_free(begin);
    mem_free(row);
    return st;
}

int main(int argc, char **argv)
{
    int heads = argc > 1 ? atoi(argv[1]) : 12, tokens = argc > 2 ? atoi(argv[2]) : 2048;
    int only_size = argc > 3 ? atoi(argv[3]) : 0, only_length = argc > 4 ? atoi(argv[4]) : 0;
    const bool relative = argc > 6 && atoi(argv[6]) == 1;
    int only_path = argc > 5 ? atoi(argv[5]) : 0; /* 1 to 5 */
    static const int sizes[] = {32, 64}, lengths[] = {20, 128, 512};
    static struct one cases[64];
    int count = 0;
    if (heads < 1 || tokens < 1) {
        (void)fprintf(stderr, "usage: %s [heads [tokens [size [length [path [relative]]]]]]\n", argv[0]);
        return 64;
    }
    const struct cpu_features all = *cpu_features();
    struct one paths[] = {
        {.name = "AMX", .bf16 = true, .cpu = {true, true, true, true}},
        {.name = "AVX512-BF16", .bf16 = true, .cpu = {true, true, true, false}},
        {.name = "AVX-512 float", .bf16 = false, .cpu = {true, true, false, false}},
        {.name = "AVX2 float", .bf16 = false, .cpu = {true, false, false, false}},
        {.name = "any CPU float", .bf16 = false, .cpu = {false, false, false, false}},
    };
    const bool have[] = {all.amx, all.bf16, all.avx512, all.avx2, true};
    for (int p = 0; p < 5; p++)
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 3; j++)
                for (int drop = 0; drop < 2 && have[p]; drop++) {
                    if ((only_path != 0 && only_path != p + 1) || (only_size != 0 && only_size != sizes[i]) || (only_length != 0 && only_length != lengths[j]))
                        continue;
                    cases[count] = paths[p];
                    cases[count].d = sizes[i];
                    cases[count].length = lengths[j];
                    cases[count].relative = relative;
                    cases[count++].drop = drop;
                }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < count; i++)
            if (time_one(&cases[i], heads, tokens) != STATUS_OK) {
                (void)fprintf(stderr, "%s\n", status_message());
                return 1;
            }
    printf("%d heads, about %d tokens, %d threads; us per token and layer\n", heads, tokens, cpu_threads());
    printf("%-14s %4s %5s %8s %8s %8s\n", "path", "d", "L", "dropout", "forward", "backward");
    for (int i = 0; i < count; i++)
        printf("%-14s %4d %5d %8s %8.3f %8.3f\n", cases[i].name, cases[i].d, cases[i].length, cases[i].drop ? "0.1" : "-",
               cases[i].forward, cases[i].backward);
    return 0;
}
