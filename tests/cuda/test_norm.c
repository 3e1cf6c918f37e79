/* test_norm.c - the CUDA backend's norms, embeddings and column sums against ref. */
#include "model/kernels/cuda/cuda.h"
#include "tests/cuda/cuda_parity.h"

enum { WORDS = 97, POSITIONS = 140, FIRST_POSITION = 2, TYPES = 3 };

/* Rows of the tables: fewer of long ones, with which no long row is met. */
static int64_t words_of(int c)
{
    return c > 100 ? 23 : WORDS;
}

static int64_t positions_of(int c)
{
    return c > 100 ? 40 : POSITIONS;
}

#define PARITY_ALL (PARITY_FP32 | PARITY_HALVES)

/* Every shape of a kernel: a warp's lines loaded element by element (36, 100) and wide, with one to
 * four octets for a lane (64 to 1024), a block's lines (1032 wide, 2050 not). */
static const int widths[] = {36, 64, 100, 384, 768, 1024, 1032, 2050};
#define WIDTHS (int)(sizeof widths / sizeof widths[0])

/* The two narrowest on batches of all kinds, in all types; the others on one. */
static void over_widths(cuda_parity_case *run, const struct cuda_parity *base, int64_t per_channel,
                        const char *name, double slack)
{
    static const enum precision types[] = {PRECISION_BF16, PRECISION_FP32, PRECISION_FP16};
    static const int batch[] = {20, 1, 15, -1};
    for (int i = 0; i < WIDTHS; i++) {
        struct cuda_parity p = *base;
        p.channels = widths[i];
        p.vocab = (int)words_of(p.channels); /* more than 32 in a piece: the search takes rounds */
        p.parameters = per_channel * p.channels + 5 * (per_channel > 0);
        p.cut_kind = per_channel > 0 ? CUT_TREE : CUT_NONE;
        for (int b = i < 2 ? 0 : SHAPES_BATCHES; b < SHAPES_BATCHES; b++) {
            if (b == 3 || b == 4 || (b == 6 && i > 0)) /* alike in what is met here */
                continue;
            p.precision = types[(b + i) % 3];
            cuda_parity_check(run, &p, shapes_batch[b], name, slack);
        }
        p.cut_kind = per_channel == 0 ? CUT_NONE : i % 3 ? CUT_TREE : CUT_ONE;
        p.precision = types[i % 3];
        cuda_parity_check(run, &p, batch, name, slack);
    }
}

/* ---- residual and norm */

static void residual_norm(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int c = p->channels;
    act *x = cuda_parity_lines(p, c, 1, FILLER_NAN), *y = cuda_parity_lines(p, c, 2, FILLER_NAN);
    float *gamma = cuda_parity_float(p, c, 3), *beta = cuda_parity_float(p, c, 4);
    act *sum = cuda_parity_output_lines(p, "sum", PARITY_ACT, c, 1, FILLER_FINITE);
    /* A mean near zero of numbers near one: eight times the bound of its size. */
    float *mean = cuda_parity_output_lines(p, "mean", PARITY_FLOAT, 1, 64 * c, FILLER_FINITE);
    float *rstd = cuda_parity_output_lines(p, "rstd", PARITY_FLOAT, 1, c, FILLER_FINITE);
    act *out = cuda_parity_output_lines(p, "out", PARITY_ACT, c, c, FILLER_FINITE);
    assert_ok(k->residual_norm(ctx, &p->rows, c, x, y, gamma, beta, 1e-12f, &p->dropout, sum, mean,
                               rstd, out));
}

static void residual_norm_backward(const struct kernels *k, struct kernel_ctx *ctx,
                                   struct cuda_parity *p)
{
    const int c = p->channels;
    act *da = cuda_parity_lines(p, c, 1, FILLER_ZERO),
        *db = cuda_parity_lines(p, c, 2, FILLER_ZERO),
        *sum = cuda_parity_lines(p, c, 3, FILLER_FINITE);
    float *gamma = cuda_parity_float(p, c, 4),
          *mean = cuda_parity_float_lines(p, 1, 5, FILLER_FINITE),
          *rstd = cuda_parity_float_lines(p, 1, 6, FILLER_FINITE);
    act *dx = cuda_parity_output_lines(p, "dx", PARITY_ACT, c, c, FILLER_ZERO),
        *dy = cuda_parity_output_lines(p, "dy", PARITY_ACT, c, c, FILLER_ZERO);
    assert_ok(k->residual_norm_backward(ctx, &p->rows, c, da, db, sum, mean, rstd, gamma,
                                        &p->dropout, dx, dy, 2, 3 + 2 * c, false, &p->cut));
}

/* dx in da's place, without db, without dropout. */
static void residual_norm_backward_in_place(const struct kernels *k, struct kernel_ctx *ctx,
                                            struct cuda_parity *p)
{
    const int c = p->channels;
    act *sum = cuda_parity_lines(p, c, 3, FILLER_FINITE);
    float *gamma = cuda_parity_float(p, c, 4),
          *mean = cuda_parity_float_lines(p, 1, 5, FILLER_FINITE),
          *rstd = cuda_parity_float_lines(p, 1, 6, FILLER_FINITE);
    act *dx = cuda_parity_lines(p, c, 1, FILLER_ZERO);
    struct parity_memory *m = &p->memory[p->memory_count - 1];
    m->name = "dx";
    m->n = p->rows.tokens * c;
    m->width = c;
    m->filler = FILLER_ZERO;
    m->length = c;
    act *dy = cuda_parity_output_lines(p, "dy", PARITY_ACT, c, c, FILLER_ZERO);
    p->dropout.p = 0.0f;
    assert_ok(k->residual_norm_backward(ctx, &p->rows, c, dx, NULL, sum, mean, rstd, gamma,
                                        &p->dropout, dx, dy, 0, c, false, &p->cut));
}

/* One line for each row, as behind a pooled last layer. */
static void residual_norm_by_row(const struct kernels *k, struct kernel_ctx *ctx,
                                 struct cuda_parity *p)
{
    const int c = p->channels;
    const int64_t b = p->rows.count, n = b * c;
    act *x = cuda_parity_act(p, n, 1), *y = cuda_parity_act(p, n, 2),
        *da = cuda_parity_act(p, n, 3);
    float *gamma = cuda_parity_float(p, c, 4), *beta = cuda_parity_float(p, c, 5);
    act *sum = cuda_parity_output(p, "sum", PARITY_ACT, n, 1);
    float *mean = cuda_parity_output(p, "mean", PARITY_FLOAT, b, 64 * c),
          *rstd = cuda_parity_output(p, "rstd", PARITY_FLOAT, b, c);
    act *out = cuda_parity_output(p, "out", PARITY_ACT, n, c),
        *dx = cuda_parity_output(p, "dx", PARITY_ACT, n, c),
        *dy = cuda_parity_output(p, "dy", PARITY_ACT, n, c);
    assert_ok(k->residual_norm(ctx, &p->firsts, c, x, y, gamma, beta, 1e-12f, &p->dropout, sum,
                               mean, rstd, out));
    assert_ok(k->residual_norm_backward(ctx, &p->firsts, c, da, NULL, sum, mean, rstd, gamma,
                                        &p->dropout, dx, dy, 2, 2 + c, true, &p->cut));
}

static void test_residual_norm(void **state)
{
    (void)state;
    const struct cuda_parity base = {.dropout_p = 0.1f};
    over_widths(residual_norm, &base, 0, "residual_norm", 1);
}

/* norm_backward subtracts two means of like size, which float rounds at the size of the terms: 3
 * times the bound. */
static void test_residual_norm_backward(void **state)
{
    (void)state;
    const struct cuda_parity base = {.dropout_p = 0.1f, .gradient_length = 8};
    over_widths(residual_norm_backward, &base, 3, "residual_norm_backward", 3);
}

static void test_residual_norm_backward_in_place(void **state)
{
    (void)state;
    static const int batch[] = {3, 17, 40, 1, -1};
    for (int half = 0; half < 2; half++) {
        const struct cuda_parity base = {.precision = half ? PRECISION_FP16 : PRECISION_FP32,
                                         .channels = 64,
                                         .cut_kind = half ? CUT_ONE : CUT_TREE,
                                         .parameters = 2 * 64,
                                         .gradient_length = 8};
        cuda_parity_check(residual_norm_backward_in_place, &base, batch,
                          "residual_norm_backward in place", 3);
    }
}

/* The backward takes the forward's sum and statistics: in 16 bits ref's are from other roundings,
 * and fp16's are not rounded at all on its side. */
static void test_residual_norm_by_row(void **state)
{
    (void)state;
    struct cuda_parity base = {.dropout_p = 0.2f, .channels = 100, .parameters = 2 * 100 + 2};
    cuda_parity_all(residual_norm_by_row, &base, PARITY_FP32, "residual_norm by row", 4);
}

/* ---- embeddings */

struct tables {
    float *word, *position, *type, *gamma, *beta;
};

static struct tables tables_make(struct cuda_parity *p)
{
    const int64_t c = p->channels;
    return (struct tables){.word = cuda_parity_float(p, words_of((int)c) * c, 1),
                           .position = cuda_parity_float(p, positions_of((int)c) * c, 2),
                           .type = cuda_parity_float(p, TYPES * c, 3),
                           .gamma = cuda_parity_float(p, c, 4),
                           .beta = cuda_parity_float(p, c, 5)};
}

static bool with_types, without_positions;

static void embed(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int c = p->channels;
    const struct tables t = tables_make(p);
    act *sum = cuda_parity_output_lines(p, "sum", PARITY_ACT, c, 1, FILLER_FINITE);
    float *mean = cuda_parity_output_lines(p, "mean", PARITY_FLOAT, 1, 64 * c, FILLER_FINITE);
    float *rstd = cuda_parity_output_lines(p, "rstd", PARITY_FLOAT, 1, c, FILLER_FINITE);
    act *out = cuda_parity_output_lines(p, "out", PARITY_ACT, c, c, FILLER_FINITE);
    assert_ok(k->embed(ctx, &p->rows, c, p->ids, with_types ? p->types : NULL, t.word,
                       without_positions ? NULL : t.position,
                       with_types || c == 64 ? t.type : NULL, FIRST_POSITION, t.gamma, t.beta,
                       1e-12f, &p->dropout, sum, mean, rstd, out));
}

/* Tables one behind the other; 5 elements stay free, so that nothing is aligned behind the words.
 */
static void embed_backward(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int64_t c = p->channels, words = words_of((int)c), positions = positions_of((int)c);
    const int64_t position = words * c + 5, type = position + positions * c,
                  gamma_at = type + TYPES * c;
    act *da = cuda_parity_lines(p, c, 1, FILLER_ZERO),
        *db = cuda_parity_lines(p, c, 2, FILLER_ZERO),
        *sum = cuda_parity_lines(p, c, 3, FILLER_FINITE);
    float *gamma = cuda_parity_float(p, c, 4),
          *mean = cuda_parity_float_lines(p, 1, 5, FILLER_FINITE),
          *rstd = cuda_parity_float_lines(p, 1, 6, FILLER_FINITE);
    assert_ok(k->embed_backward(ctx, &p->rows, (int)c, p->ids, with_types ? p->types : NULL, da,
                                p->dropout.p > 0 ? db : NULL, sum, mean, rstd, gamma, &p->dropout,
                                FIRST_POSITION, 0, (int)words, without_positions ? -1 : position,
                                (int)positions,
                                with_types || c == 64 ? type : -1, TYPES, gamma_at, gamma_at + c,
                                &p->cut));
}

static void test_embed(void **state)
{
    (void)state;
    const struct cuda_parity base = {.dropout_p = 0.1f};
    with_types = true;
    over_widths(embed, &base, 0, "embed", 1);
}

/* At width 64: types of zero throughout; else no type table. */
static void test_embed_without_types(void **state)
{
    (void)state;
    struct cuda_parity p = {.vocab = WORDS};
    with_types = false;
    for (p.channels = 36; p.channels <= 64; p.channels += 28)
        cuda_parity_all(embed, &p, PARITY_FP32 | 1u << PRECISION_BF16, "embed without types", 1);
}

static void test_embed_backward(void **state)
{
    (void)state;
    const struct cuda_parity base = {.dropout_p = 0.1f, .gradient_length = 8};
    with_types = true;
    over_widths(embed_backward, &base, WORDS + POSITIONS + TYPES + 2, "embed_backward", 3);
}

/* Three ids only: each has more tokens than a warp adds alone. */
static void test_embed_backward_frequent_ids(void **state)
{
    (void)state;
    struct cuda_parity p = {.precision = PRECISION_FP32, .vocab = 3, .gradient_length = 8};
    with_types = false;
    for (p.channels = 36; p.channels <= 64; p.channels += 28) {
        p.parameters = (WORDS + POSITIONS + TYPES + 2) * p.channels + 5;
        p.cut_kind = p.channels == 36 ? CUT_ONE : CUT_TREE;
        cuda_parity_check(embed_backward, &p, shapes_batch[6], "embed_backward of frequent ids", 3);
    }
}

/* As DeBERTa's. */
static void test_embed_without_positions(void **state)
{
    (void)state;
    struct cuda_parity p = {.precision = PRECISION_BF16, .vocab = WORDS, .gradient_length = 8};
    with_types = false;
    without_positions = true;
    for (p.channels = 36; p.channels <= 64; p.channels += 28) {
        cuda_parity_check(embed, &p, shapes_batch[5], "embed without positions", 1);
        p.parameters = (WORDS + POSITIONS + TYPES + 2) * p.channels + 5;
        p.cut_kind = CUT_TREE;
        cuda_parity_check(embed_backward, &p, shapes_batch[5], "embed_backward without positions",
                          3);
        p.parameters = 0;
        p.cut_kind = CUT_NONE;
        p.precision = PRECISION_FP32;
    }
    without_positions = false;
}

/* ---- column sums */

/* What ref would do: each piece's sums in double, then as the cut says. dy NULL: no lines of the
 * pieces' own. */
static void wanted_column_sums(const struct cuda_parity *p, const act *dy, const int32_t *begin,
                               int64_t at, const struct table_lines *more)
{
    const int c = p->channels;
    const size_t size = cuda_parity_act_bytes(p);
    float *line = malloc((size_t)c * sizeof *line);
    double *sum = malloc((size_t)c * sizeof *sum);
    for (int i = 0; i < p->cut.pieces; i++) {
        memset(sum, 0, (size_t)c * sizeof *sum);
        for (int64_t t = begin[i]; dy != NULL && t < begin[i + 1]; t++) {
            cuda_parity_from_act(p, (const char *)dy + (size_t)(t * c) * size, c, line);
            for (int e = 0; e < c; e++)
                sum[e] += (double)line[e];
        }
        for (int l = 0; more != NULL && l < more->lines; l++) {
            const int64_t from = ((int64_t)i * more->lines + l) * more->dy_stride;
            cuda_parity_from_act(p, (const char *)more->dy + (size_t)from * size, more->n, line);
            for (int e = 0; e < more->n; e++)
                sum[more->first + e] += (double)line[e];
        }
        for (int e = 0; e < c; e++) {
            float *to = p->buffer[p->cut.to[i]] + at + e;
            *to = p->cut.add[i] ? *to + (float)sum[e] : (float)sum[e];
            for (int j = p->cut.merge_begin[i]; j < p->cut.merge_begin[i + 1]; j++)
                p->buffer[p->cut.merge_to[j]][at + e] += p->buffer[p->cut.merge_from[j]][at + e];
        }
    }
    free(line);
    free(sum);
}

static void column_sums(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    const int c = p->channels, at = 3;
    act *dy = cuda_parity_lines(p, c, 1, FILLER_ZERO), *by_row = cuda_parity_act(p, 8 * c, 2);
    (void)k;
    if (p->reference) {
        wanted_column_sums(p, dy, p->cut.token, at, NULL);
        wanted_column_sums(p, by_row, p->cut.row, at + c, NULL);
    } else {
        assert_ok(cuda_column_sums(ctx, p->rows.tokens, c, dy, at, false, NULL));
        assert_ok(cuda_column_sums(ctx, p->rows.count, c, by_row, at + c, true, NULL));
    }
}

/* Tokens and some lines of a table for the middle half of the columns; the table alone. */
static void table_sums(const struct kernels *k, struct kernel_ctx *ctx, struct cuda_parity *p)
{
    enum { lines = 37 };
    const int c = p->channels, at = 3, n = c / 2, stride = n + (c == 64 ? 8 : 5);
    act *dy = cuda_parity_lines(p, c, 1, FILLER_ZERO);
    const struct table_lines more = {
        .dy = cuda_parity_act(p, (int64_t)p->cut.pieces * lines * stride, 3),
        .dy_stride = stride,
        .lines = lines,
        .first = c / 4,
        .n = n};
    (void)k;
    if (p->reference) {
        wanted_column_sums(p, dy, p->cut.token, at, &more);
        wanted_column_sums(p, NULL, p->cut.token, at + c, &more);
    } else {
        assert_ok(cuda_column_sums(ctx, p->rows.tokens, c, dy, at, false, &more));
        assert_ok(cuda_column_sums(ctx, 0, c, NULL, at + c, false, &more));
    }
}

static void test_column_sums(void **state)
{
    (void)state;
    const struct cuda_parity base = {0};
    over_widths(column_sums, &base, 2, "column sums", 1);
}

static void test_sums_of_tables(void **state)
{
    static const enum precision types[] = {PRECISION_BF16, PRECISION_FP32, PRECISION_FP16};
    static const int widths_here[] = {36, 64, 768};
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int t = 0; t < 3; t++) {
            const int c = widths_here[i];
            const struct cuda_parity p = {.channels = c,
                                          .precision = types[t],
                                          .parameters = 2 * c + 5,
                                          .cut_kind = (i + t) % 3 > 0 ? CUT_TREE : CUT_ONE,
                                          .gradient_length = 37};
            cuda_parity_check(table_sums, &p, shapes_batch[5], "column sums with a table", 1);
        }
}

/* ---- more pieces than one launch takes, most of them small or empty */

enum { MANY_ROWS = 200, MANY_PIECES = 150, MANY_CHANNELS = 36 };

static void many_pieces(const struct kernels *k, struct cuda_parity *p)
{
    static int32_t begin[MANY_ROWS + 1], line[MANY_ROWS + 1], token[MANY_PIECES + 1],
        row[MANY_PIECES + 1], to[MANY_PIECES], merge_begin[MANY_PIECES + 1], merge_to[MANY_PIECES],
        merge_from[MANY_PIECES], ids[4 * MANY_ROWS];
    static int64_t row_id[MANY_ROWS];
    static bool add[MANY_PIECES];
    const int c = MANY_CHANNELS;
    for (int b = 0; b < MANY_ROWS; b++) {
        begin[b + 1] = begin[b] + (b == 77 ? 70 : b % 4);
        line[b + 1] = b + 1;
        row_id[b] = b;
    }
    p->tokens = begin[MANY_ROWS];
    for (int64_t t = 0; t < p->tokens; t++)
        ids[t] = (int32_t)(t * 7 % 11);
    p->reference = k == kernels_ref();
    p->device = p->reference ? NULL : cuda_parity_device();
    p->rows = (struct rows){.tokens = p->reference ? p->tokens : round_up(p->tokens, 64),
                            .count = MANY_ROWS,
                            .longest = 70,
                            .begin = begin};
    p->firsts = (struct rows){.tokens = MANY_ROWS, .count = MANY_ROWS, .longest = 1, .begin = line};
    for (int i = 0; i <= MANY_PIECES; i++) { /* a chain: piece 0, and each other added to it */
        row[i] = i * MANY_ROWS / MANY_PIECES;
        token[i] = begin[row[i]];
        merge_begin[i] = i > 0 ? i - 1 : 0;
        if (i < MANY_PIECES) {
            to[i] = i > 0;
            merge_to[i] = 0;
            merge_from[i] = 1;
        }
    }
    p->parameters = (WORDS + POSITIONS + TYPES + 2) * c;
    p->buffer[0] = cuda_parity_output(p, "chain", PARITY_FLOAT, p->parameters, (double)p->tokens);
    p->buffer[1] = cuda_parity_output(p, NULL, PARITY_FLOAT, p->parameters, 1);
    p->cut = (struct grad_cut){.pieces = MANY_PIECES,
                               .token = token,
                               .row = row,
                               .to = to,
                               .add = add,
                               .merge_begin = merge_begin,
                               .merge_to = merge_to,
                               .merge_from = merge_from,
                               .buffer = p->buffer};
    const struct kernel_opts opts = {.device = p->device,
                                     .precision = PRECISION_FP32,
                                     .max_tokens = 2 * CUDA_PARITY_TOKENS,
                                     .max_rows = MANY_ROWS,
                                     .max_channels = c,
                                     .training = true};
    const struct pass_arrays pass = {
        .rows = &p->rows, .firsts = &p->firsts, .ids = ids, .row = row_id, .step = 3};
    const struct dropout drop = {.p = 0.1f, .seed = 5, .step = 3, .row = row_id};
    struct kernel_ctx *ctx;
    assert_ok(k->open(&opts, &ctx));
    if (!p->reference) {
        assert_ok(k->pass_begins(ctx, &pass));
        assert_ok(k->backward_begins(ctx, &p->cut));
    }
    act *da = cuda_parity_lines(p, c, 1, FILLER_ZERO),
        *sum = cuda_parity_lines(p, c, 3, FILLER_ZERO);
    float *gamma = cuda_parity_float(p, c, 4),
          *mean = cuda_parity_float_lines(p, 1, 5, FILLER_ZERO),
          *rstd = cuda_parity_float_lines(p, 1, 6, FILLER_ZERO);
    const int64_t position = WORDS * c, type = position + POSITIONS * c, at = type + TYPES * c;
    assert_ok(k->embed_backward(ctx, &p->rows, c, ids, NULL, da, NULL, sum, mean, rstd, gamma,
                                &drop, 0, 0, WORDS, position, POSITIONS, type, TYPES, at, at + c,
                                &p->cut));
    if (!p->reference)
        assert_ok(device_finish(p->device));
    k->close(ctx);
}

static void test_many_pieces(void **state)
{
    (void)state;
    static struct cuda_parity want, got;
    want = got = (struct cuda_parity){.precision = PRECISION_FP32, .channels = MANY_CHANNELS};
    many_pieces(kernels_ref(), &want);
    many_pieces(kernels_cuda(), &got);
    cuda_parity_compare(&got, &want, 0, 3, "150 pieces");
    cuda_parity_release(&want);
    cuda_parity_release(&got);
}

/* ---- a row's bits are its own: alone, and in the midst of others */

enum { ROW = 33, ALONE_OUTPUTS = 7 };

struct alone {
    void *bits[ALONE_OUTPUTS];
    size_t bytes[ALONE_OUTPUTS];
};

static void alone_keep(struct alone *a, int i, const struct cuda_parity *p, const void *from,
                       size_t first, size_t bytes)
{
    a->bits[i] = malloc(bytes);
    a->bytes[i] = bytes;
    cuda_parity_get(p, a->bits[i], (const char *)from + first, bytes);
}

/* Lines [before, before + ROW) are the row, and buffer 1 has its piece's sums. */
static void alone_run(enum precision precision, int c, int before, int behind, struct alone *out)
{
    const int32_t begin[4] = {0, before, before + ROW, before + ROW + behind},
                  line[4] = {0, 1, 2, 3};
    const int32_t rows[4] = {0, 1, 2, 3}, to[3] = {0, 1, 2}, merges[4] = {0};
    const bool add[3] = {false};
    const int64_t id[3] = {50, 51, 52}, parameters = (WORDS + POSITIONS + 2) * c;
    const int64_t at = (WORDS + POSITIONS) * c;
    int32_t ids[CUDA_PARITY_TOKENS];
    static struct cuda_parity p;
    p = (struct cuda_parity){.precision = precision, .device = cuda_parity_device()};
    p.tokens = begin[3];
    p.rows =
        (struct rows){.tokens = round_up(p.tokens, 64), .count = 3, .longest = 100, .begin = begin};
    p.firsts = (struct rows){.tokens = 3, .count = 3, .longest = 1, .begin = line};
    for (int i = 0; i < 3; i++)
        p.buffer[i] = cuda_parity_output(&p, NULL, PARITY_FLOAT, parameters, 1);
    for (int t = 0; t < p.tokens; t++)
        ids[t] = (t - before + 1000) % 5;
    p.cut = (struct grad_cut){.pieces = 3,
                              .token = begin,
                              .row = rows,
                              .to = to,
                              .add = add,
                              .merge_begin = merges,
                              .buffer = p.buffer};
    const int64_t n = p.rows.tokens * c;
    const size_t line_bytes = (size_t)c * (size_t)act_bytes(precision);
    float *numbers = calloc((size_t)n, sizeof *numbers);
    act *in[2];
    for (int i = 0; i < 2; i++) { /* the row's numbers wherever it lies */
        shapes_fill(numbers, p.tokens * c, 30 + (uint64_t)before, false);
        shapes_fill(numbers + (int64_t)before * c, ROW * c, 10 + (uint64_t)i, false);
        in[i] = cuda_parity_acts(&p, numbers, n);
    }
    free(numbers);
    act *x = in[0], *y = in[1], *made[4];
    for (int i = 0; i < 4; i++)
        made[i] = cuda_parity_output(&p, NULL, PARITY_ACT, n, 1);
    float *gamma = cuda_parity_float(&p, c, 3), *beta = cuda_parity_float(&p, c, 4);
    float *word = cuda_parity_float(&p, WORDS * c, 5),
          *table = cuda_parity_float(&p, POSITIONS * c, 6);
    float *mean = cuda_parity_output(&p, NULL, PARITY_FLOAT, p.rows.tokens, 1),
          *rstd = cuda_parity_output(&p, NULL, PARITY_FLOAT, p.rows.tokens, 1);
    const struct dropout drop = {.p = 0.1f, .seed = 5, .step = 3, .site = 1, .row = id};
    const struct pass_arrays pass = {
        .rows = &p.rows, .firsts = &p.firsts, .ids = ids, .row = id, .step = 3};
    const struct kernels *k = kernels_cuda();
    p.channels = c;
    struct kernel_ctx *ctx = cuda_parity_new(k, &p);
    assert_ok(k->pass_begins(ctx, &pass));
    assert_ok(k->backward_begins(ctx, &p.cut));
    assert_ok(k->embed(ctx, &p.rows, c, ids, NULL, word, table, NULL, 0, gamma, beta, 1e-12f, &drop,
                       made[0], mean, rstd, made[1]));
    alone_keep(out, 0, &p, made[1], (size_t)before * line_bytes, ROW * line_bytes);
    assert_ok(k->embed_backward(ctx, &p.rows, c, ids, NULL, x, y, made[0], mean, rstd, gamma, &drop,
                                0, 0, WORDS, WORDS * c, POSITIONS, -1, 0, at, at + c, &p.cut));
    alone_keep(out, 1, &p, p.buffer[1], 0, (size_t)parameters * 4);
    assert_ok(k->residual_norm(ctx, &p.rows, c, x, y, gamma, beta, 1e-12f, &drop, made[0], mean,
                               rstd, made[1]));
    alone_keep(out, 2, &p, made[1], (size_t)before * line_bytes, ROW * line_bytes);
    assert_ok(k->residual_norm_backward(ctx, &p.rows, c, y, NULL, made[0], mean, rstd, gamma, &drop,
                                        made[2], made[3], at, at + c, false, &p.cut));
    alone_keep(out, 3, &p, made[2], (size_t)before * line_bytes, ROW * line_bytes);
    alone_keep(out, 4, &p, made[3], (size_t)before * line_bytes, ROW * line_bytes);
    alone_keep(out, 5, &p, p.buffer[1] + at, 0, (size_t)c * 8);
    assert_ok(cuda_column_sums(ctx, p.rows.tokens, c, x, at, false, NULL));
    alone_keep(out, 6, &p, p.buffer[1] + at, 0, (size_t)c * 4);
    k->close(ctx);
    cuda_parity_release(&p);
}

static void test_alone(void **state)
{
    static const char *const name[ALONE_OUTPUTS] = {
        "embed", "embed_backward", "residual_norm", "dx", "dy", "gamma, beta", "column sums"};
    (void)state;
    for (int half = 0; half < 2; half++) {
        for (int c = 100; c <= 768; c += 668) {
            struct alone one, many;
            const enum precision precision = half ? PRECISION_BF16 : PRECISION_FP32;
            alone_run(precision, c, 0, 0, &one);
            alone_run(precision, c, 75, 20, &many);
            for (int i = 0; i < ALONE_OUTPUTS; i++) {
                if (memcmp(one.bits[i], many.bits[i], one.bytes[i]) != 0)
                    fail_msg("%s of %d channels, %s: other bits in a batch than alone", name[i], c,
                             cuda_parity_precision(precision));
                free(one.bits[i]);
                free(many.bits[i]);
            }
        }
    }
}

/* Lines beyond what a block holds are refused, not computed wrongly. */
static void test_longest_line(void **state)
{
    (void)state;
    static const int batch[] = {3, -1};
    static struct cuda_parity p;
    p = (struct cuda_parity){.precision = PRECISION_FP32, .device = cuda_parity_device()};
    cuda_parity_batch(&p, batch);
    const struct pass_arrays pass = {
        .rows = &p.rows, .firsts = &p.firsts, .ids = p.ids, .row = p.row, .step = 3};
    struct kernel_ctx *ctx = cuda_parity_new(kernels_cuda(), &p);
    assert_ok(kernels_cuda()->pass_begins(ctx, &pass));
    assert_fails(kernels_cuda()->residual_norm(ctx, &p.rows, 8193, NULL, NULL, NULL, NULL, 0.0f,
                                               &p.dropout, NULL, NULL, NULL, NULL),
                 STATUS_UNAVAILABLE, "8193 channels");
    kernels_cuda()->close(ctx);
}

int main(void)
{
    /* Device memory stays open to the host: closing it takes most of the time where there are many
     * small arrays, and entries that read it on the host are found by whole steps. */
    setenv("EMULATED_CUDA_PROTECT", "0", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_residual_norm),
        cmocka_unit_test(test_residual_norm_backward),
        cmocka_unit_test(test_residual_norm_backward_in_place),
        cmocka_unit_test(test_residual_norm_by_row),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_embed_without_types),
        cmocka_unit_test(test_embed_backward),
        cmocka_unit_test(test_embed_backward_frequent_ids),
        cmocka_unit_test(test_embed_without_positions),
        cmocka_unit_test(test_column_sums),
        cmocka_unit_test(test_sums_of_tables),
        cmocka_unit_test(test_many_pieces),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_longest_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
