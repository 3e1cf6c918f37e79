/*
 * products_f32.c - float products with our own blocks of 6 x 16 outputs, for CPUs without AVX-512;
 * see products.h.
 *
 * oneDNN's kernels for AVX2 give a line other bits in a batch of another size (2.6.3 on a Zen 3:
 * two lines of 384 differ from each line alone, and weight gradients from piece to piece), so they
 * cannot keep what kernels.h promises. Here a sum runs over K from the first to the last, in one
 * float per output, whatever the batch: lines, panels, chunks and threads only decide when a part
 * of the chain is computed.
 *
 * Weights are packed once a step, in both orientations, into panels of 16 columns. Lines of
 * activations are read where they are, a chunk of K at a time, so that a panel's chunk stays in the
 * first cache and the lines' in the second. For weight gradients the tokens are the summed
 * dimension: a task owns a tile of outputs and inputs and packs, for each chunk of tokens, dy like
 * A and x like B.
 *
 * Measured beside oneDNN 2.6.3 (bench/products.c, in turns, one busy core of an EPYC with Zen 3),
 * GFLOP/s (640 lines; weight gradients 2,048):
 *
 *   N x K              forward        data gradient   weight gradient
 *                      own   oneDNN   own    oneDNN   own    oneDNN
 *   384 x 384          74.8  77.4     76.5   81.4     65.6   66.5
 *   1536 x 384         67.3  52.0     77.9   76.4     57.7   49.8
 *   384 x 1536         79.4  78.6     67.1   60.0     66.3   66.3
 *   2304 x 768         75.2  79.7     79.9   74.7     61.6   61.8
 *   3072 x 768         74.9  39.2     77.3   72.9     59.1   34.7
 *   768 x 3072         71.2  71.5     70.8   40.7     61.0   31.7
 */
#include "model/kernels/cpu/products.h"

#define LINES 6    /* of a block */
#define PANEL 16   /* columns of a block */
#define CHUNK 512  /* of K at a time: 512 did as well as all, 256 cost 5 to 15 % */
#define HEIGHT 192 /* lines of a task: a chunk of them is 384 KiB */
#define TOKENS 128 /* of a weight gradient's sum at a time */
#define TILE_N                                                                                     \
    384 /* outputs and inputs of such a task, at most: what x costs to pack is shared by */
#define TILE_K 128 /* the outputs, what dy costs by the inputs */

struct packed {
    float *forward;  /* B of x W^T: (panels of n, k, 16) */
    float *backward; /* B of dy W: (panels of k, n, 16); NULL without training */
};

struct products {
    struct matrix *matrices;
    struct packed *packed;
    int *first_panel; /* (count + 1) panels, of both orientations, before matrix i */
    int count;
    bool training;
    float *memory;
    block_f32 *block;
};

static int panels_of(int n)
{
    return (n + PANEL - 1) / PANEL;
}

static int64_t packed_elements(const struct kernel_opts *opts)
{
    int64_t n = 0;
    for (int i = 0; i < opts->count; i++) {
        const struct matrix *m = &opts->matrices[i];
        n += (int64_t)panels_of(m->n) * PANEL * m->k;
        n += opts->training ? (int64_t)panels_of(m->k) * PANEL * m->n : 0;
    }
    return n;
}

static size_t gradient_bytes(void)
{
    return sizeof(float) * (TILE_N * TILE_K + TOKENS * (TILE_K + TILE_N));
}

static int64_t memory_bytes(const struct kernel_opts *opts)
{
    return packed_elements(opts) * (int64_t)sizeof(float) +
           (opts->training ? cpu_threads() * (int64_t)gradient_bytes() : 0);
}

static void products_close(struct products *p)
{
    if (p == NULL)
        return;
    mem_free(p->matrices);
    mem_free(p->packed);
    mem_free(p->first_panel);
    mem_free(p->memory);
    mem_free(p);
}

static enum status products_open(struct kernel_ctx *ctx, const struct kernel_opts *opts)
{
    enum status st;
    struct products *p;
    const size_t count = (size_t)opts->count;
    ctx->products = NULL;
    TRY(mem_alloc(1, sizeof *p, "the products' state", &p));
    p->count = opts->count;
    p->training = opts->training;
    p->block = block_f32_c;
#ifdef __x86_64__
    if (ctx->cpu.avx2)
        p->block = block_f32_avx2;
#endif
    TRY_GOTO(fail, mem_alloc(count, sizeof *p->matrices, "the list of matrices", &p->matrices));
    TRY_GOTO(fail, mem_alloc(count, sizeof *p->packed, "the list of packed matrices", &p->packed));
    TRY_GOTO(fail,
             mem_alloc(count + 1, sizeof *p->first_panel, "the list of panels", &p->first_panel));
    TRY_GOTO(fail, mem_alloc((size_t)packed_elements(opts), sizeof *p->memory, "the packed weights",
                             &p->memory));
    float *at = p->memory;
    for (int i = 0; i < opts->count; i++) {
        const struct matrix *m = &opts->matrices[i];
        p->matrices[i] = *m;
        p->packed[i].forward = at;
        at += (int64_t)panels_of(m->n) * PANEL * m->k;
        p->first_panel[i + 1] = p->first_panel[i] + panels_of(m->n);
        if (!opts->training)
            continue;
        p->packed[i].backward = at;
        at += (int64_t)panels_of(m->k) * PANEL * m->n;
        p->first_panel[i + 1] += panels_of(m->k);
    }
    ctx->products = p;
    return STATUS_OK;
fail:
    products_close(p);
    return st;
}

/* ---- packing ---- */

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Panel of outputs n0.. : to[k][j] = w[n0 + j][k]. Eight k at a time, so that the lines written
 * stay in the first cache while 16 lines of w are read. */
static void pack_forward(const float *w, const struct matrix *m, int n0, float *to)
{
    const int columns = least(PANEL, m->n - n0);
    for (int k0 = 0; k0 < m->k; k0 += 8, to += 8 * PANEL) {
        const int some = least(8, m->k - k0);
        for (int j = 0; j < PANEL; j++)
            for (int k = 0; k < some; k++)
                to[k * PANEL + j] = j < columns ? w[(int64_t)(n0 + j) * m->k + k0 + k] : 0.0f;
    }
}

/* Panel of inputs k0.. : to[n][j] = w[n][k0 + j]. */
static void pack_backward(const float *w, const struct matrix *m, int k0, float *to)
{
    const int columns = least(PANEL, m->k - k0);
    for (int n = 0; n < m->n; n++, to += PANEL)
        for (int j = 0; j < PANEL; j++)
            to[j] = j < columns ? w[(int64_t)n * m->k + k0 + j] : 0.0f;
}

static enum status products_weights_changed(struct kernel_ctx *ctx, const float *weights)
{
    const struct products *p = ctx->products;
    const int panels = p->first_panel[p->count];
#pragma omp parallel for num_threads(cpu_threads()) schedule(dynamic, 4)
    for (int i = 0; i < panels; i++) {
        int at = 0;
        while (p->first_panel[at + 1] <= i)
            at++;
        const struct matrix *m = &p->matrices[at];
        const int panel = i - p->first_panel[at], back = panel - panels_of(m->n);
        const float *w = weights + m->offset;
        if (back < 0)
            pack_forward(w, m, panel * PANEL,
                         p->packed[at].forward + (int64_t)panel * PANEL * m->k);
        else
            pack_backward(w, m, back * PANEL,
                          p->packed[at].backward + (int64_t)back * PANEL * m->n);
    }
    return STATUS_OK;
}

/* ---- forward and data gradient ---- */

/* One block of y, columns [n0, n0 + columns), over part [k0, k0 + some) of a sum of `k`. */
static void multiply_block(block_f32 *block, int lines, const float *x, int k, int k0, int some,
                           const float *b, const float *bias, float *y, int64_t y_line, int columns)
{
    const bool first = k0 == 0, last = k0 + some == k;
    float edge[LINES * PANEL], *c = y;
    int64_t c_line = y_line;
    if (columns < PANEL) { /* a narrow last panel goes through a whole block */
        c = edge;
        c_line = PANEL;
        for (int i = 0; i < lines && !first; i++)
            memcpy(edge + i * PANEL, y + i * y_line, (size_t)columns * sizeof *y);
        if (!first)
            for (int i = 0; i < lines; i++)
                memset(edge + i * PANEL + columns, 0, (size_t)(PANEL - columns) * sizeof *edge);
    }
    block(lines, some, x + k0, k, 1, b, !first, c, c_line);
    if (last && bias != NULL)
        for (int i = 0; i < lines; i++)
            for (int j = 0; j < columns; j++)
                c[i * c_line + j] += bias[j];
    if (columns < PANEL)
        for (int i = 0; i < lines; i++)
            memcpy(y + i * y_line, edge + i * PANEL, (size_t)columns * sizeof *y);
}

static enum status multiply_all(struct kernel_ctx *ctx, const float *b, int k, int n, int64_t rows,
                                const float *x, const float *bias, float *y)
{
    const struct products *p = ctx->products;
    const int panels = panels_of(n), threads = cpu_threads();
    if (rows == 0)
        return STATUS_OK;
    /* Lines are divided; columns too where there are too few lines for all threads. */
    int64_t height = round_up((rows + threads - 1) / threads, LINES);
    height = height < HEIGHT ? height : HEIGHT;
    const int64_t bands = (rows + height - 1) / height;
    const int wide = bands >= threads ? panels : (int)((panels * bands + threads - 1) / threads);
    const int64_t columns = (panels + wide - 1) / wide;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < bands * columns; task++) {
        const int64_t top = task / columns * height;
        const int lines = (int)(rows - top < height ? rows - top : height);
        const int first = (int)(task % columns) * wide, last = least(panels, first + wide);
        for (int k0 = 0; k0 < k; k0 += CHUNK) {
            const int some = least(CHUNK, k - k0);
            for (int i = first; i < last; i++)
                for (int r = 0; r < lines; r += LINES)
                    multiply_block(p->block, least(LINES, lines - r), x + (top + r) * k, k, k0,
                                   some, b + ((int64_t)i * k + k0) * PANEL,
                                   bias != NULL ? bias + i * PANEL : NULL,
                                   y + (top + r) * n + i * PANEL, n, least(PANEL, n - i * PANEL));
        }
    }
    return STATUS_OK;
}

static enum status products_linear(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                   const float *bias, act *y)
{
    const struct matrix *w = &ctx->products->matrices[m];
    return multiply_all(ctx, ctx->products->packed[m].forward, w->k, w->n, rows, x, bias, y);
}

static enum status products_linear_backward_data(struct kernel_ctx *ctx, int m, int64_t rows,
                                                 const act *dy, act *dx)
{
    const struct matrix *w = &ctx->products->matrices[m];
    if (!ctx->products->training)
        return status_fail(STATUS_ARG,
                           "data gradient of a product in a context opened without training");
    return multiply_all(ctx, ctx->products->packed[m].backward, w->n, w->k, rows, dy, NULL, dx);
}

/* ---- weight gradient ---- */

struct gradient {
    block_f32 *block;
    const float *x, *dy;
    int n, k; /* of the matrix: lines of dy and x */
    int64_t offset, bias_offset;
    const int32_t *line;            /* (pieces + 1) the cut's tokens or rows; NULL: no lines */
    const struct table_lines *more; /* or NULL */
    const struct grad_cut *cut;
};

/* Lines of one piece that are summed up together. */
struct lines {
    const float *x, *dy;
    int64_t count, x_line, dy_line;
};

static struct lines own_lines(const struct gradient *g, int i)
{
    if (g->line == NULL)
        return (struct lines){0};
    return (struct lines){.x = g->x + (int64_t)g->line[i] * g->k,
                          .dy = g->dy + (int64_t)g->line[i] * g->n,
                          .count = g->line[i + 1] - g->line[i],
                          .x_line = g->k,
                          .dy_line = g->n};
}

/* The table's, so placed that output n of dy is the matrix's. */
static struct lines more_lines(const struct gradient *g, int i)
{
    const struct table_lines *m = g->more;
    if (m == NULL)
        return (struct lines){0};
    return (struct lines){.x = m->x,
                          .dy = (const float *)m->dy + (int64_t)i * m->lines * m->dy_stride -
                                m->first,
                          .count = m->count[i],
                          .x_line = g->k,
                          .dy_line = m->dy_stride};
}

/* Columns [c0, c0 + wide) of lines [t0, t1) in panels of `panel` columns; the last one is filled up
 * with zeros. `panel` is a constant in each copy. */
static inline __attribute__((always_inline)) void pack_lines(const float *from, int64_t width,
                                                             int64_t t0, int64_t t1, int c0,
                                                             int wide, int panel, float *to)
{
    for (int p = 0; p < wide; p += panel) {
        const float *line = from + t0 * width + c0 + p;
        const int columns = wide - p;
        if (columns >= panel) {
            for (int64_t t = t0; t < t1; t++, to += panel, line += width)
                memcpy(to, line, (size_t)panel * sizeof *to);
            continue;
        }
        for (int64_t t = t0; t < t1; t++, to += panel, line += width)
            for (int j = 0; j < panel; j++)
                to[j] = j < columns ? line[j] : 0.0f;
    }
}

/* sum (rows of outputs, TILE_K) = or, add, += the lines' for one tile. */
static void gradient_sum(const struct gradient *g, const struct lines *l, bool add, int n0,
                         int rows, int k0, int wide, float *sum, float *packed_x, float *packed_dy)
{
    if (l->count == 0 && !add)
        memset(sum, 0, sizeof(float) * (size_t)rows * TILE_K);
    for (int64_t t = 0; t < l->count; t += TOKENS, add = true) {
        const int some = (int)(l->count - t < TOKENS ? l->count - t : TOKENS);
        pack_lines(l->x, l->x_line, t, t + some, k0, wide, PANEL, packed_x);
        pack_lines(l->dy, l->dy_line, t, t + some, n0, rows, LINES, packed_dy);
        for (int j = 0; j < wide; j += PANEL)
            for (int i = 0; i < rows; i += LINES)
                g->block(least(LINES, rows - i), some, packed_dy + (int64_t)i * some, 1, LINES,
                         packed_x + (int64_t)j * some, add, sum + i * TILE_K + j, TILE_K);
    }
}

/* The outputs of a tile that the table has lines for: [*from, *to). */
static void more_outputs(const struct gradient *g, int n0, int rows, int *from, int *to)
{
    const struct table_lines *m = g->more;
    *from = m == NULL || m->first < n0 ? n0 : m->first;
    *to = m == NULL ? n0 : least(n0 + rows, m->first + m->n);
}

static void bias_sum(const struct gradient *g, int i, int n0, int rows)
{
    const struct lines own = own_lines(g, i), more = more_lines(g, i);
    double column[TILE_N] = {0};
    float rounded[TILE_N];
    int from, to;
    for (int64_t t = 0; t < own.count; t++)
        for (int e = 0; e < rows; e++)
            column[e] += (double)own.dy[t * own.dy_line + n0 + e];
    more_outputs(g, n0, rows, &from, &to);
    for (int64_t t = 0; t < more.count; t++)
        for (int e = from; e < to; e++)
            column[e - n0] += (double)more.dy[t * more.dy_line + e];
    for (int e = 0; e < rows; e++)
        rounded[e] = (float)column[e];
    cpu_cut_put(g->cut, i, rounded, g->bias_offset + n0, rows);
}

static enum status products_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows,
                                                   const act *x, const act *dy, int64_t bias_offset,
                                                   bool by_row, const struct table_lines *more,
                                                   const struct grad_cut *cut)
{
    const struct products *p = ctx->products;
    const struct matrix *w = &p->matrices[m];
    const int threads = cpu_threads();
    struct gradient g = {.block = p->block,
                         .x = x,
                         .dy = dy,
                         .n = w->n,
                         .k = w->k,
                         .offset = w->offset,
                         .bias_offset = bias_offset,
                         .line = x == NULL ? NULL
                                 : by_row  ? cut->row
                                           : cut->token,
                         .more = more,
                         .cut = cut};
    (void)rows;
    if (!p->training)
        return status_fail(STATUS_ARG,
                           "weight gradient of a product in a context opened without training");
    if (cut->pieces == 0)
        return STATUS_OK;
    TRY(cpu_scratch_reserve(ctx, gradient_bytes()));
    int tile_n = TILE_N, tile_k = TILE_K; /* smaller where there are too few for all threads */
    while (((g.n + tile_n - 1) / tile_n) * ((g.k + tile_k - 1) / tile_k) < 3 * threads &&
           (tile_n > LINES || tile_k > PANEL)) {
        if (tile_k > tile_n && tile_k > PANEL)
            tile_k /= 2;
        else
            tile_n = tile_n > LINES ? tile_n / 2 / LINES * LINES : tile_n;
        tile_n = tile_n < LINES ? LINES : tile_n;
    }
    const int tiles_n = (g.n + tile_n - 1) / tile_n, tiles_k = (g.k + tile_k - 1) / tile_k;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int task = 0; task < tiles_n * tiles_k; task++) {
        const int n0 = task / tiles_k * tile_n, k0 = task % tiles_k * tile_k;
        const int lines = least(tile_n, g.n - n0), wide = least(tile_k, g.k - k0);
        float *sum = cpu_scratch(ctx), *packed_x = sum + TILE_N * TILE_K,
              *packed_dy = packed_x + TOKENS * TILE_K;
        for (int i = 0; i < cut->pieces; i++) {
            const struct lines own = own_lines(&g, i), table = more_lines(&g, i);
            int from, to;
            gradient_sum(&g, &own, false, n0, lines, k0, wide, sum, packed_x, packed_dy);
            more_outputs(&g, n0, lines, &from, &to);
            if (from < to)
                gradient_sum(&g, &table, true, from, to - from, k0, wide,
                             sum + (from - n0) * TILE_K, packed_x, packed_dy);
            for (int e = 0; e < lines; e++)
                cpu_cut_put(cut, i, sum + e * TILE_K, g.offset + (int64_t)(n0 + e) * g.k + k0,
                            wide);
            if (bias_offset >= 0 && k0 == 0)
                bias_sum(&g, i, n0, lines);
        }
    }
    return STATUS_OK;
}

const struct products_table products_f32 = {
    .open = products_open,
    .close = products_close,
    .memory_bytes = memory_bytes,
    .weights_changed = products_weights_changed,
    .linear = products_linear,
    .linear_backward_data = products_linear_backward_data,
    .linear_backward_weight = products_linear_backward_weight,
};
