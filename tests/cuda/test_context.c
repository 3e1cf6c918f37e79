/*
 * test_context.c - the pass and the cut on the device, memory, recorded stretches, the order of
 * tokens for the word gradient.
 */
#include "base/device_cuda.h"
#include "cuda_parity.h"
#include "model/kernels/cuda/cuda.h"

enum { C = 16, TOKENS = 256, ROWS = 8 };
static const struct matrix matrix = {.offset = 64, .n = C, .k = C};
enum { WEIGHTS = 64 + C * C + C };

static struct kernel_opts opts_of(enum precision precision)
{
    return (struct kernel_opts){.device = cuda_parity_device(),
                                .precision = precision,
                                .matrices = &matrix,
                                .count = 1,
                                .weight_count = WEIGHTS,
                                .max_tokens = TOKENS,
                                .max_rows = ROWS,
                                .max_channels = C,
                                .training = true};
}

static struct kernel_ctx *open_ctx(enum precision precision)
{
    const struct kernel_opts opts = opts_of(precision);
    struct kernel_ctx *ctx;
    assert_ok(kernels_cuda()->open(&opts, &ctx));
    return ctx;
}

/* A pass made from a number: ROWS or fewer rows, numbers that name it. */
struct host_pass {
    int32_t begin[ROWS + 1], line[ROWS + 1], ids[TOKENS], types[TOKENS], chunk[ROWS];
    int64_t row[ROWS];
    struct rows rows, firsts;
    struct pass_arrays arrays;
};

static void make_pass(struct host_pass *p, int number, int count, int length, bool full)
{
    *p = (struct host_pass){0};
    for (int b = 0; b < count; b++) {
        p->begin[b + 1] = p->begin[b] + length + b % 2;
        p->line[b + 1] = b + 1;
        p->row[b] = 100 * number + b + ((int64_t)1 << 40);
        p->chunk[b] = number + b;
    }
    for (int t = 0; t < p->begin[count]; t++) {
        p->ids[t] = (t * 7 + number) % 11 + (t % 5 == 0 ? 70000 : 0);
        p->types[t] = (t + number) % 2;
    }
    p->rows = (struct rows){.tokens = round_up(p->begin[count], LINE_MULTIPLE),
                            .count = count,
                            .longest = length + (count > 1),
                            .begin = p->begin};
    p->firsts =
        (struct rows){.tokens = count, .count = count, .longest = count > 0, .begin = p->line};
    p->arrays = (struct pass_arrays){.rows = &p->rows,
                                     .firsts = &p->firsts,
                                     .ids = p->ids,
                                     .types = full ? p->types : NULL,
                                     .row = p->row,
                                     .chunk = full ? p->chunk : NULL,
                                     .step = 1000 + number};
}

static void fetch(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        assert_ok(device_get(cuda_parity_device(), to, from, bytes));
}

static void check_pass(const struct kernel_ctx *ctx, const struct host_pass *p, bool full)
{
    const int count = p->rows.count;
    const size_t lines = (size_t)p->rows.tokens, rows = (size_t)count;
    int32_t got[TOKENS + 1];
    int64_t row[ROWS];
    struct pass_header header;
    struct rows_device r, f;
    assert_ok(ctx_rows(ctx, &p->rows, &r));
    assert_ok(ctx_rows(ctx, &p->firsts, &f));
    assert_int_equal(r.lines, lines);
    assert_int_equal(f.lines, rows);
    assert_int_equal(r.longest, p->rows.longest > 1 ? round_up(p->rows.longest, LINE_MULTIPLE)
                                                    : p->rows.longest);
    fetch(&header, ctx->header, sizeof header);
    assert_int_equal(header.step, p->arrays.step);
    assert_int_equal(header.tokens, p->begin[count]);
    assert_int_equal(header.rows, count);
    fetch(got, r.begin, (rows + 1) * 4);
    assert_memory_equal(got, p->begin, (rows + 1) * 4);
    fetch(got, f.row_of, rows * 4);
    for (int b = 0; b < count; b++)
        assert_int_equal(got[b], b);
    fetch(got, r.row_of, lines * 4);
    for (int b = 0; b < count; b++)
        for (int t = p->begin[b]; t < p->begin[b + 1]; t++)
            assert_int_equal(got[t], b);
    for (size_t t = (size_t)p->begin[count]; t < lines; t++)
        assert_int_equal(got[t], -1);
    fetch(got, ctx->ids, lines * 4); /* zeros behind the last token */
    assert_memory_equal(got, p->ids, lines * 4);
    assert_true(full == (ctx->types != NULL));
    if (full) {
        fetch(got, ctx->types, lines * 4);
        assert_memory_equal(got, p->types, lines * 4);
    }
    fetch(row, ctx->row, rows * 8);
    assert_memory_equal(row, p->row, rows * 8);
    fetch(got, ctx->chunk, rows * 4);
    for (int b = 0; b < count; b++)
        assert_int_equal(got[b], full ? p->chunk[b] : 0);
}

static void test_pass(void **state)
{
    static struct host_pass p;
    struct kernel_ctx *ctx = open_ctx(PRECISION_FP32);
    (void)state;
    for (int number = 0; number < 6; number++) {
        const bool full = number % 2 == 0;
        const int count = number == 2 ? 0 : number == 3 ? ROWS : 3;
        make_pass(&p, number, count, 20, full);
        assert_ok(kernels_cuda()->pass_begins(ctx, &p.arrays));
        check_pass(ctx, &p, full);
    }
    kernels_cuda()->close(ctx);
}

/* The host runs ahead: each pass's kernels (here: copies on the compute stream) see its own arrays,
 * though all of them lie in the same place. */
static void test_passes_are_queued(void **state)
{
    enum { passes = 7 };
    static struct host_pass p[passes];
    struct device *device = cuda_parity_device();
    struct kernel_ctx *ctx = open_ctx(PRECISION_FP32);
    int32_t *log, got[TOKENS];
    (void)state;
    assert_ok(device_alloc(device, passes * sizeof got, "a test's array", &log));
    for (int order = 0; order < 2; order++) {
        emulated_cuda_order(order == 0 ? "forward" : "reverse");
        assert_ok(device_zero(device, log, passes * sizeof got));
        for (int i = 0; i < passes; i++) {
            make_pass(&p[i], i, 4, 30, false);
            assert_ok(kernels_cuda()->pass_begins(ctx, &p[i].arrays));
            assert_ok(cuda_status(cudaMemcpyAsync(log + i * TOKENS, ctx->ids,
                                                  (size_t)p[i].rows.tokens * 4,
                                                  cudaMemcpyDeviceToDevice, ctx->stream),
                                  "copy"));
        }
        for (int i = 0; i < passes; i++) {
            fetch(got, log + i * TOKENS, sizeof got);
            assert_memory_equal(got, p[i].ids, (size_t)p[i].rows.tokens * 4);
        }
    }
    emulated_cuda_order("forward");
    device_free(device, log);
    kernels_cuda()->close(ctx);
}

/* ---- the cut */

static void test_cut(void **state)
{
    static struct host_pass p;
    struct kernel_ctx *ctx = open_ctx(PRECISION_FP32);
    float *buffer[3] = {(float *)0x1000, (float *)0x2000, (float *)0x3000};
    const int32_t row[4] = {0, 1, 1, 4}, to[3] = {0, 1, 2};
    /* Merges counted from 2, as in a list that several cuts share. */
    const int32_t merge_begin[4] = {2, 2, 3, 4}, merge_to[4] = {-7, -7, 0, 0},
                  merge_from[4] = {-7, -7, 1, 2};
    const bool add[3] = {false, true, false};
    int32_t token[4], got[TOKENS + 1], segment[TOKENS + 1], begin[4];
    (void)state;
    make_pass(&p, 1, 4, 30, true);
    for (int i = 0; i < 4; i++)
        token[i] = p.begin[row[i]];
    const struct grad_cut cut = {.pieces = 3,
                                 .token = token,
                                 .row = row,
                                 .to = to,
                                 .add = add,
                                 .merge_begin = merge_begin,
                                 .merge_to = merge_to,
                                 .merge_from = merge_from,
                                 .buffer = buffer};
    assert_fails(kernels_cuda()->backward_begins(ctx, &cut), STATUS_ARG, "before a pass");
    assert_ok(kernels_cuda()->pass_begins(ctx, &p.arrays));
    assert_ok(kernels_cuda()->backward_begins(ctx, &cut));
    const struct cut_device *d = &ctx->cut;
    assert_int_equal(d->pieces, 3);
    assert_int_equal(d->merges, 2);
    fetch(got, d->token, sizeof token);
    assert_memory_equal(got, token, sizeof token);
    fetch(got, d->row, sizeof row);
    assert_memory_equal(got, row, sizeof row);
    fetch(got, d->to, sizeof to);
    assert_memory_equal(got, to, sizeof to);
    fetch(got, d->add, 12);
    assert_true(got[0] == 0 && got[1] == 1 && got[2] == 0);
    fetch(got, d->merge_begin, 16);
    assert_true(got[0] == 0 && got[1] == 0 && got[2] == 1 && got[3] == 2);
    fetch(got, d->merge_to, 8);
    assert_true(got[0] == 0 && got[1] == 0);
    fetch(got, d->merge_from, 8);
    assert_true(got[0] == 1 && got[1] == 2);
    float *pointers[3];
    fetch(pointers, d->buffer, sizeof pointers);
    assert_memory_equal(pointers, buffer, sizeof pointers);

    fetch(begin, d->segment_begin, sizeof begin);
    fetch(got, d->order, (size_t)token[3] * 4);
    fetch(segment, d->segment, ((size_t)begin[3] + 1) * 4);
    assert_int_equal(begin[0], 0);
    assert_int_equal(begin[1], begin[2]); /* the piece without rows */
    assert_int_equal(segment[begin[3]], token[3]);
    for (int i = 0; i < 3; i++)
        for (int s = begin[i]; s < begin[i + 1]; s++)
            for (int32_t t = segment[s]; t < segment[s + 1]; t++) {
                assert_true(got[t] >= token[i] && got[t] < token[i + 1]);
                assert_int_equal(p.ids[got[t]], p.ids[got[segment[s]]]);
            }

    const struct grad_cut nothing = {.pieces = 0};
    assert_ok(kernels_cuda()->backward_begins(ctx, &nothing));
    assert_int_equal(ctx->cut.pieces, 0);
    kernels_cuda()->close(ctx);
}

static void test_refusals(void **state)
{
    static struct host_pass p;
    static int32_t zeros[MOST_PIECES + 2], high[1] = {MOST_BUFFERS};
    static bool add[MOST_PIECES + 1];
    static float *buffer[MOST_BUFFERS + 1];
    const struct kernels *k = kernels_cuda();
    struct kernel_opts opts = opts_of(PRECISION_FP32);
    struct kernel_ctx *ctx = open_ctx(PRECISION_FP32);
    struct rows_device r;
    (void)state;
    make_pass(&p, 1, 4, 30, true);
    assert_fails(ctx_rows(ctx, &p.rows, &r), STATUS_ARG, "pass_begins was not told of");
    p.rows.tokens = TOKENS + 1;
    assert_fails(k->pass_begins(ctx, &p.arrays), STATUS_ARG, "257 lines");
    p.rows.tokens = p.begin[4] - 1;
    assert_fails(k->pass_begins(ctx, &p.arrays), STATUS_ARG, "4 rows from line 0 to 122");
    make_pass(&p, 1, 4, 30, true);
    p.begin[2] = 0;
    assert_fails(k->pass_begins(ctx, &p.arrays), STATUS_ARG, "row 1 ends before it begins");
    make_pass(&p, 1, 4, 30, true);
    assert_ok(k->pass_begins(ctx, &p.arrays));
    p.rows.tokens += 64;
    assert_fails(ctx_rows(ctx, &p.rows, &r), STATUS_ARG, "192 lines");

    struct grad_cut cut = {.pieces = MOST_PIECES + 1,
                           .token = zeros,
                           .row = zeros,
                           .to = zeros,
                           .add = add,
                           .merge_begin = zeros,
                           .buffer = buffer};
    assert_fails(k->backward_begins(ctx, &cut), STATUS_ARG, "8193 pieces");
    cut.pieces = MOST_PIECES;
    assert_ok(k->backward_begins(ctx, &cut));
    cut.pieces = 1;
    cut.to = high;
    assert_fails(k->backward_begins(ctx, &cut), STATUS_ARG, "1025 gradient buffers");
    k->close(ctx);

    opts.training = false;
    assert_ok(k->open(&opts, &ctx));
    make_pass(&p, 1, 4, 30, true);
    assert_ok(k->pass_begins(ctx, &p.arrays));
    assert_fails(k->backward_begins(ctx, &cut), STATUS_ARG, "without training");
    k->close(ctx);

    assert_ok(device_open(DEVICE_CPU, 0, &opts.device));
    assert_fails(k->open(&opts, &ctx), STATUS_ARG, "need a GPU");
    assert_null(ctx);
    device_close(opts.device);
    for (int precision = 0; precision < 4; precision++)
        assert_ok(k->supports((enum precision)precision));
}

/* ---- memory */

static void test_memory_is_as_planned(void **state)
{
    (void)state;
#ifdef EMULATED_CUDA_H
    for (int precision = 0; precision < 4; precision++)
        for (int training = 0; training < 2; training++) {
            struct kernel_opts opts = opts_of((enum precision)precision);
            struct kernel_ctx *ctx;
            opts.training = training;
            const struct emulated_cuda_counts before = emulated_cuda_counts();
            assert_ok(kernels_cuda()->open(&opts, &ctx));
            assert_int_equal(emulated_cuda_counts().bytes - before.bytes,
                             kernels_cuda()->memory_bytes(&opts));
            kernels_cuda()->close(ctx);
            const struct emulated_cuda_counts after = emulated_cuda_counts();
            assert_int_equal(after.bytes, before.bytes);
            assert_int_equal(after.pinned, before.pinned);
            assert_int_equal(after.events, before.events);
        }
#else
    print_message("SKIP: only the emulation counts memory\n");
#endif
}

/* ---- recorded stretches */

struct stretch {
    struct kernel_ctx *ctx;
    struct cuda_parity p; /* owns the memory */
    act *x, *y, *dx, *dropped;
    float *buffer[2];
    bool graphs;
    int64_t replays; /* seen by run_stretch() */
};

static void stretch_open(struct stretch *s, bool graphs)
{
    *s = (struct stretch){.ctx = open_ctx(PRECISION_BF16), .graphs = graphs};
    s->p.precision = PRECISION_BF16;
    s->p.device = cuda_parity_device();
    s->p.weights = cuda_parity_float(&s->p, WEIGHTS, 9);
    s->x = cuda_parity_act(&s->p, TOKENS * C, 1);
    s->y = cuda_parity_act(&s->p, TOKENS * C, 2);
    s->dx = cuda_parity_act(&s->p, TOKENS * C, 3);
    s->dropped = cuda_parity_act(&s->p, TOKENS * C, 4);
    s->buffer[0] = cuda_parity_float(&s->p, WEIGHTS, 5);
    s->buffer[1] = cuda_parity_float(&s->p, WEIGHTS, 6);
    assert_ok(kernels_cuda()->weights_changed(s->ctx, s->p.weights));
}

static void stretch_close(struct stretch *s)
{
    kernels_cuda()->close(s->ctx);
    cuda_parity_release(&s->p);
}

static bool stretch_begins(struct stretch *s, uint64_t key)
{
    bool replayed = false;
    if (s->graphs)
        assert_ok(kernels_cuda()->graph_begins(s->ctx, key, &replayed));
    s->replays += replayed;
    return replayed;
}

static void stretch_ends(struct stretch *s, bool replayed)
{
    if (s->graphs && !replayed)
        assert_ok(kernels_cuda()->graph_ends(s->ctx));
}

/* A forward and a backward stretch on data of the number. */
static void run_stretch(struct stretch *s, int number, const struct host_pass *pass, int pieces)
{
    const struct kernels *k = kernels_cuda();
    const int count = pass->rows.count;
    const int64_t lines = pass->rows.tokens;
    const int32_t row[3] = {0, pieces == 1 ? count : 1, count},
                  token[3] = {0, pass->begin[row[1]], pass->begin[count]};
    const int32_t to[2] = {0, 1}, merge_begin[3] = {0, 0, pieces - 1}, zero[1] = {0}, one[1] = {1};
    const bool add[2] = {false, false};
    const struct grad_cut cut = {.pieces = pieces,
                                 .token = token,
                                 .row = row,
                                 .to = to,
                                 .add = add,
                                 .merge_begin = merge_begin,
                                 .merge_to = zero,
                                 .merge_from = one,
                                 .buffer = s->buffer};
    const struct dropout drop = {
        .p = 0.3f, .seed = 1, .step = pass->arrays.step, .row = pass->row, .chunk = pass->chunk};
    float x[TOKENS * C];
    uint16_t h[TOKENS * C];
    shapes_fill(x, TOKENS * C, (uint64_t)number, false);
    memset(x + pass->begin[count] * C, 0, (size_t)(TOKENS - pass->begin[count]) * C * sizeof *x);
    for (int i = 0; i < TOKENS * C; i++)
        h[i] = bf16_from_float(x[i]);
    assert_ok(device_put(s->p.device, s->x, h, sizeof h));
    assert_ok(k->pass_begins(s->ctx, &pass->arrays));
    bool replayed = stretch_begins(s, 1);
    if (!replayed) {
        assert_ok(k->linear(s->ctx, 0, lines, s->x, s->p.weights + 64 + C * C, s->y));
        assert_ok(k->dropout(s->ctx, &pass->firsts, C, &drop, s->x, s->dropped));
    }
    stretch_ends(s, replayed);
    assert_ok(k->backward_begins(s->ctx, &cut));
    replayed = stretch_begins(s, 2);
    if (!replayed) {
        assert_ok(k->linear_backward_data(s->ctx, 0, lines, s->x, s->dx));
        assert_ok(k->linear_backward_weight(s->ctx, 0, lines, s->y, s->x, 64 + C * C, false, NULL, &cut));
    }
    stretch_ends(s, replayed);
}

static void same_on_both(const struct stretch *a, const struct stretch *b, const void *from_a,
                         const void *from_b, size_t bytes, const char *what, int number)
{
    unsigned char *x = malloc(bytes), *y = malloc(bytes);
    assert_ok(device_get(a->p.device, x, from_a, bytes));
    assert_ok(device_get(b->p.device, y, from_b, bytes));
    if (memcmp(x, y, bytes) != 0)
        fail_msg("pass %d: %s of a replayed stretch has other bits", number, what);
    free(x);
    free(y);
}

/* Passes of equal shapes with other rows, tokens, steps and data: seen, recorded, replayed; the
 * same bits as without graphs. Others in between are told apart. */
static void test_graphs(void **state)
{
    static struct stretch eager, graphs;
    static struct host_pass p;
    /* rows, length, pieces. Lines: 128 but for the fourth, which has 64. 5 rows are other shapes.
     */
    static const int shape[][3] = {{4, 30, 1}, {4, 29, 1}, {4, 28, 1}, {4, 12, 1}, {4, 30, 1},
                                   {5, 20, 1}, {4, 31, 1}, {4, 30, 2}, {4, 29, 2}, {4, 30, 2}};
    /* Of the two stretches of each pass. The third pass replays what the second recorded. With two
     * pieces products depend on where they are cut: those of 30 and 29 differ in backward. */
    static const int replays[] = {0, 0, 2, 0, 2, 0, 2, 1, 1, 1};
    int64_t replayed, all, want = 0;
    (void)state;
    for (int order = 0; order < 2; order++) {
        emulated_cuda_order(order == 0 ? "forward" : "reverse");
        stretch_open(&eager, false);
        stretch_open(&graphs, true);
        want = 0;
        for (int i = 0; i < (int)(sizeof shape / sizeof shape[0]); i++) {
            make_pass(&p, i, shape[i][0], shape[i][1], i % 2 == 0);
            p.arrays.types = NULL;
            run_stretch(&eager, i, &p, shape[i][2]);
            run_stretch(&graphs, i, &p, shape[i][2]);
            const size_t lines = (size_t)p.rows.tokens * C * 2;
            same_on_both(&eager, &graphs, eager.y, graphs.y, lines, "the product", i);
            same_on_both(&eager, &graphs, eager.dx, graphs.dx, lines, "the data gradient", i);
            same_on_both(&eager, &graphs, eager.dropped, graphs.dropped,
                         (size_t)p.rows.count * C * 2, "the dropout", i);
            same_on_both(&eager, &graphs, eager.buffer[0] + 64, graphs.buffer[0] + 64,
                         (C * C + C) * 4, "the weight gradient", i);
            want += replays[i];
            if (graphs.replays != want)
                fail_msg("pass %d: %lld stretches replayed by then, wanted %lld", i,
                         (long long)graphs.replays, (long long)want);
        }
        kernels_cuda()->graph_counts(graphs.ctx, &replayed, &all);
        assert_int_equal(replayed, want);
        assert_int_equal(all, 2 * (int)(sizeof shape / sizeof shape[0]));
        stretch_close(&eager);
        stretch_close(&graphs);
    }
    emulated_cuda_order("forward");
}

static bool begins(struct kernel_ctx *ctx, uint64_t key)
{
    bool replayed;
    assert_ok(kernels_cuda()->graph_begins(ctx, key, &replayed));
    return replayed;
}

/* MOST_GRAPHS stretches are kept; the one used longest ago goes. */
static void test_graphs_are_bounded(void **state)
{
    static struct stretch s;
    static struct host_pass p;
    (void)state;
    stretch_open(&s, true);
    make_pass(&p, 0, 4, 30, false);
    assert_ok(kernels_cuda()->pass_begins(s.ctx, &p.arrays));
#ifdef EMULATED_CUDA_H
    const int64_t before = emulated_cuda_counts().graphs;
#endif
    for (int turn = 0; turn < 3; turn++)
        for (uint64_t key = 0; key <= MOST_GRAPHS; key++) {
            const uint64_t at = turn == 2 ? MOST_GRAPHS - key : key;
            for (int i = turn == 2; i < 2; i++) {
                const bool replayed = begins(s.ctx, at);
                /* The third turn runs backwards: the newest are there. */
                if (replayed != (turn == 2 && key < MOST_GRAPHS))
                    fail_msg("turn %d: stretch %d %s", turn, (int)at,
                             replayed ? "is still there" : "was dropped");
                if (replayed)
                    continue;
                assert_ok(kernels_cuda()->linear(s.ctx, 0, 64, s.x, NULL, s.y));
                assert_ok(kernels_cuda()->graph_ends(s.ctx));
            }
        }
#ifdef EMULATED_CUDA_H
    assert_true(emulated_cuda_counts().graphs - before <= MOST_GRAPHS);
#endif
    stretch_close(&s);
}

/* A call that fails inside a stretch that is being recorded: the stretch is neither launched nor
 * kept, and the context goes on. */
static void test_failed_stretch(void **state)
{
    static struct stretch s;
    static struct host_pass p;
    const struct kernels *k = kernels_cuda();
    (void)state;
    stretch_open(&s, true);
    make_pass(&p, 0, 4, 30, false);
    assert_ok(k->pass_begins(s.ctx, &p.arrays));
    for (int i = 0; i < 4; i++) {
        const bool replayed = begins(s.ctx, 5);
        assert_true(replayed == (i == 3));
        if (replayed)
            continue;
        assert_ok(k->linear(s.ctx, 0, 64, s.x, NULL, s.y));
        if (i == 1) {
            bool nested;
            assert_fails(k->graph_begins(s.ctx, 6, &nested), STATUS_ARG, "inside of another");
            assert_fails(k->linear(s.ctx, 7, 64, s.x, NULL, s.y), STATUS_ARG, "matrix 7");
            assert_fails(k->graph_ends(s.ctx), STATUS_INTERNAL, "incomplete");
        } else {
            assert_ok(k->graph_ends(s.ctx));
        }
    }
    assert_ok(device_finish(s.p.device));
    stretch_close(&s);
}

/* Nothing is asked of cuBLASLt while a stretch is recorded (it may not answer then), however many
 * numbers of lines the stretch has. */
static void test_recording_asks_nothing(void **state)
{
    static struct stretch s;
    static struct host_pass p;
    const struct kernels *k = kernels_cuda();
    (void)state;
    stretch_open(&s, true);
    make_pass(&p, 0, 4, 30, false);
    assert_ok(k->pass_begins(s.ctx, &p.arrays));
    for (int i = 0; i < 3; i++) {
        const bool replayed = begins(s.ctx, 5);
        assert_true(replayed == (i == 2));
        for (int64_t lines = 1; !replayed && lines <= TOKENS; lines *= 2) {
            assert_ok(k->linear(s.ctx, 0, lines, s.x, NULL, s.y));
            assert_ok(k->linear_backward_data(s.ctx, 0, lines, s.x, s.dx));
        }
        if (!replayed)
            assert_ok(k->graph_ends(s.ctx));
    }
    assert_ok(device_finish(s.p.device));
    stretch_close(&s);
}

/* ---- the order of tokens */

static void test_embed_sort(void **state)
{
    enum { n = 3000, pieces = 4 };
    static int32_t ids[n], order[n], segment[n + 1], scratch[n];
    const int32_t token[pieces + 1] = {0, 1, 1, 2000, n};
    int32_t begin[pieces + 1];
    (void)state;
    for (int vocab = 1; vocab < 300000; vocab *= 6) {
        for (int t = 0; t < n; t++)
            ids[t] = (int32_t)random_below((uint64_t)vocab, (uint64_t)t, (uint64_t)vocab);
        const int segments = embed_sort(ids, token, pieces, order, segment, begin, scratch);
        assert_int_equal(begin[0], 0);
        assert_int_equal(begin[pieces], segments);
        assert_int_equal(segment[segments], n);
        for (int p = 0; p < pieces; p++) {
            int s = begin[p];
            for (int32_t t = token[p]; t < token[p + 1]; t++) {
                assert_true(order[t] >= token[p] && order[t] < token[p + 1]);
                const bool first = t == token[p] || ids[order[t]] != ids[order[t - 1]];
                if (first)
                    assert_int_equal(segment[s++], t);
                if (t > token[p]) /* by id, then by token */
                    assert_true(ids[order[t - 1]] < ids[order[t]] ||
                                (ids[order[t - 1]] == ids[order[t]] && order[t - 1] < order[t]));
            }
            assert_int_equal(s, begin[p + 1]);
        }
    }
    assert_int_equal(embed_sort(ids, token, 0, order, segment, begin, scratch), 0);
    assert_int_equal(begin[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pass),
        cmocka_unit_test(test_passes_are_queued),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_memory_is_as_planned),
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_graphs_are_bounded),
        cmocka_unit_test(test_failed_stretch),
        cmocka_unit_test(test_recording_asks_nothing),
        cmocka_unit_test(test_embed_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
