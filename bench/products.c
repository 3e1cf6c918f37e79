/*
 * products.c - times matrix products of the CPU backend alone: GFLOP/s of our own kernels and of oneDNN, in turns.
 *
 *     OMP_NUM_THREADS=1 bench_products [lines [pieces]]
 *
 * float, for shapes of MiniLM and BERT-base: forward, gradient of the input, gradient of the weights over `pieces` pieces.
 * The time is the main thread's CPU time, the least of ROUNDS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/kernels/cpu/products.h"

#define ROUNDS 7

static const int shapes[][2] = {{384, 384}, {1152, 384}, {1536, 384}, {384, 1536}, {2304, 768}, {3072, 768}, {768, 3072}};
#define SHAPES (int)(sizeof shapes / sizeof shapes[0])

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *numbers(int64_t n, uint64_t seed)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x != NULL && i < n; i++)
        x[i] = (float)(random_mix(seed + (uint64_t)i) >> 40) * 0x1p-23f - 1.0f;
    return x;
}

struct side {
    const char *name;
    const struct products_table *table;
    struct kernel_ctx ctx;
    double best[3];
};

static enum status time_side(struct side *s, const struct matrix *m, int64_t lines, const float *x, const float *dy,
                             const float *bias, float *y, float *dx, const struct grad_cut *cut)
{
    double start = now(), took[3];
    TRY(s->table->linear(&s->ctx, 0, lines, x, bias, y));
    took[0] = now() - start;
    start = now();
    TRY(s->table->linear_backward_data(&s->ctx, 0, lines, dy, dx));
    took[1] = now() - start;
    start = now();
    TRY(s->table->linear_backward_weight(&s->ctx, 0, lines, x, dy, (int64_t)m->n * m->k, false, NULL, cut));
    took[2] = now() - start;
    for (int i = 0; i < 3; i++)
        s->best[i] = s->best[i] == 0 || took[i] < s->best[i] ? took[i] : s->best[i];
    return STATUS_OK;
}

static enum status time_shape(int n, int k, int64_t lines, int pieces)
{
    struct matrix m = {.offset = 0, .n = n, .k = k};
    struct kernel_opts opts = {.precision = PRECISION_FP32, .matrices = &m, .count = 1, .max_tokens = lines,
                               .max_rows = 64, .max_channels = 4096, .training = true};
    struct side sides[2] = {{.name = "own", .table = &products_f32}, {.name = "oneDNN", .table = &products_onednn}};
    float *w = numbers((int64_t)n * k, 1), *x = numbers(lines * k, 2), *dy = numbers(lines * n, 3), *bias = numbers(n, 4);
    float *y = numbers(lines * n, 5), *dx = numbers(lines * k, 6), *buffer[2];
    int32_t token[65], to[64], merge_begin[65], merge_to[64], merge_from[64];
    bool add[64] = {false};
    buffer[0] = numbers((int64_t)n * k + n, 7);
    buffer[1] = numbers((int64_t)n * k + n, 8);
    for (int i = 0; i <= pieces; i++) {
        token[i] = (int32_t)(lines * i / pieces);
        merge_begin[i] = i > 1 ? i - 1 : 0;
        if (i < pieces) {
            to[i] = i > 0;
            merge_to[i] = 0;
            merge_from[i] = 1;
        }
    }
    const struct grad_cut cut = {.pieces = pieces, .token = token, .row = token, .to = to, .add = add,
                                 .merge_begin = merge_begin, .merge_to = merge_to, .merge_from = merge_from,
                                 .buffer = buffer};
    for (int i = 0; i < 2; i++) {
        sides[i].ctx.cpu = *cpu_features();
        sides[i].ctx.training = true;
        TRY(sides[i].table->open(&sides[i].ctx, &opts));
        TRY(sides[i].table->weights_changed(&sides[i].ctx, w));
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 2; i++)
            TRY(time_side(&sides[i], &m, lines, x, dy, bias, y, dx, &cut));
    const double flops = 2e-9 * (double)n * (double)k * (double)lines;
    printf("%5d x %4d, %lld lines:", n, k, (long long)lines);
    for (int j = 0; j < 3; j++)
        printf("  %s %6.1f %6.1f (%.2f)", j == 0 ? "forward" : j == 1 ? "data" : "weight", flops / sides[0].best[j],
               flops / sides[1].best[j], sides[1].best[j] / sides[0].best[j]);
    printf("\n");
    for (int i = 0; i < 2; i++)
        sides[i].table->close(sides[i].ctx.products);
    free(w), free(x), free(dy), free(bias), free(y), free(dx), free(buffer[0]), free(buffer[1]);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    const int64_t lines = argc > 1 ? atoll(argv[1]) : 640;
    const int pieces = argc > 2 ? atoi(argv[2]) : 1;
    if (lines < 1 || pieces < 1 || pieces > 64) {
        fprintf(stderr, "bench_products: [lines [pieces]], 1 to 64 pieces\n");
        return 64;
    }
    printf("GFLOP/s, own and oneDNN (own's speed over oneDNN's), %d threads, %d pieces\n", cpu_threads(), pieces);
    for (int i = 0; i < SHAPES; i++) {
        if (time_shape(shapes[i][0], shapes[i][1], lines, pieces) != STATUS_OK) {
            fprintf(stderr, "bench_products: %s\n", status_message());
            return 70;
        }
    }
    return 0;
}
