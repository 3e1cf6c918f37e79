/*
 * products_onednn.c - float products through oneDNN; see products.h.
 *
 * oneDNN chooses kernels by shape and thread count, so both are pinned: primitives are created for
 * one thread and run by one thread each, on lines of a few fixed counts (multiples of 16 up to 256,
 * and 1 to 15), which covers any M with a bounded number of primitives; a new one costs some 0.1
 * ms, once. Weights are packed in the format that oneDNN prefers for 256 lines. Weight gradients
 * use one primitive per tile width with the number of tokens given at run time; piece by piece into
 * a tile that stays in the cache, so that the sums and merges of the cut follow at once.
 */
#include "model/kernels/cpu/products.h"

#include <dnnl.h>

#define HEIGHT 256
#define GRAIN 16
#define SIZES (HEIGHT / GRAIN + GRAIN) /* 1 .. 15, then 16, 32 .. 256 */
#define TILE_N 64                      /* outputs of a weight gradient's tile */

struct primitive {
    dnnl_primitive_t p;
    dnnl_memory_desc_t a, c;
    size_t scratch;
};

/* One orientation of one shape: y = x B (+ bias). Matrices of the same shape share it. */
struct shape {
    int k, n;
    bool transposed, bias; /* master weights hold B transposed (forward) */
    dnnl_memory_desc_t packed, plain, bias_desc, scratch_desc;
    struct primitive size[SIZES];
};

/* Weight gradients of one (n lines, ld) by k tile. */
struct tile {
    int n, k, lines;
    struct primitive p;
};

struct weights {
    int forward, forward_bias, backward; /* shapes */
    int tile, tail;                      /* tiles; -1: none */
    float *packed, *packed_backward;
};

struct products {
    dnnl_engine_t engine;
    struct matrix *matrices;
    struct weights *weights;
    struct shape *shapes;
    struct tile *tiles;
    int count, shape_count, tile_count;
};

static enum status failed(dnnl_status_t st, const char *what)
{
    return status_fail(st == dnnl_out_of_memory ? STATUS_NOMEM : STATUS_OS, "oneDNN: %s: error %d",
                       what, (int)st);
}

#define DNN(expr, what)                                                                            \
    do {                                                                                           \
        dnnl_status_t dnn_ = (expr);                                                               \
        if (dnn_ != dnnl_success)                                                                  \
            return failed(dnn_, what);                                                             \
    } while (0)

/* A matmul primitive for one thread with its scratch memory given by the caller. bias may be NULL.
 */
static enum status create(struct products *p, const dnnl_memory_desc_t *a,
                          const dnnl_memory_desc_t *b, const dnnl_memory_desc_t *bias,
                          const dnnl_memory_desc_t *c, dnnl_memory_desc_t *chosen,
                          struct primitive *out)
{
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t st = dnnl_matmul_desc_init(&desc, a, b, bias, c);
    int threads = omp_get_max_threads();
    if (st != dnnl_success)
        return failed(st, "describe a product");
    DNN(dnnl_primitive_attr_create(&attr), "attributes of a product");
    (void)dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    omp_set_num_threads(1); /* the library asks for it when it chooses a kernel */
    st = dnnl_primitive_desc_create(&pd, &desc, attr, p->engine, NULL);
    if (st == dnnl_success) {
        if (chosen != NULL)
            *chosen = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        out->scratch = dnnl_memory_desc_get_size(
            dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
        out->a = *a;
        out->c = *c;
        st = dnnl_primitive_create(&out->p, pd);
        (void)dnnl_primitive_desc_destroy(pd);
    }
    omp_set_num_threads(threads);
    (void)dnnl_primitive_attr_destroy(attr);
    if (st != dnnl_success) {
        out->p = NULL;
        return failed(st, "create a product");
    }
    return STATUS_OK;
}

static int size_index(int rows)
{
    return rows < GRAIN ? rows - 1 : GRAIN - 1 + rows / GRAIN - 1;
}

static enum status matrix_desc(dnnl_memory_desc_t *d, int64_t rows, int64_t columns,
                               int64_t row_stride, int64_t column_stride)
{
    dnnl_dims_t dims = {rows, columns}, strides = {row_stride, column_stride};
    DNN(dnnl_memory_desc_init_by_strides(d, 2, dims, dnnl_f32, strides), "describe a matrix");
    return STATUS_OK;
}

/* The primitive of a shape for `rows` lines (1 .. 15 or a multiple of 16 up to 256), made when
 * first asked for. */
static enum status shape_primitive(struct products *p, struct shape *s, int rows,
                                   struct primitive **out)
{
    struct primitive *found = &s->size[size_index(rows)];
    *out = found;
    if (found->p != NULL)
        return STATUS_OK;
    dnnl_memory_desc_t a, c;
    TRY(matrix_desc(&a, rows, s->k, s->k, 1));
    TRY(matrix_desc(&c, rows, s->n, s->n, 1));
    return create(p, &a, &s->packed, s->bias ? &s->bias_desc : NULL, &c, NULL, found);
}

static enum status shape_find(struct products *p, int k, int n, bool transposed, bool bias,
                              int *out)
{
    for (int i = 0; i < p->shape_count; i++) {
        const struct shape *s = &p->shapes[i];
        if (s->k == k && s->n == n && s->transposed == transposed && s->bias == bias) {
            *out = i;
            return STATUS_OK;
        }
    }
    struct shape *s = &p->shapes[p->shape_count];
    dnnl_memory_desc_t a, c, any;
    dnnl_dims_t dims = {k, n};
    *s = (struct shape){.k = k, .n = n, .transposed = transposed, .bias = bias};
    TRY(matrix_desc(&s->plain, k, n, transposed ? 1 : n, transposed ? k : 1));
    TRY(matrix_desc(&s->bias_desc, 1, n, n, 1));
    TRY(matrix_desc(&a, HEIGHT, k, k, 1));
    TRY(matrix_desc(&c, HEIGHT, n, n, 1));
    DNN(dnnl_memory_desc_init_by_tag(&any, 2, dims, dnnl_f32, dnnl_format_tag_any),
        "describe weights");
    TRY(create(p, &a, &any, bias ? &s->bias_desc : NULL, &c, &s->packed,
               &s->size[size_index(HEIGHT)]));
    *out = p->shape_count++;
    return STATUS_OK;
}

static enum status tile_find(struct products *p, int n, int k, int lines, int *out)
{
    *out = -1;
    if (lines == 0)
        return STATUS_OK;
    for (int i = 0; i < p->tile_count; i++) {
        if (p->tiles[i].n == n && p->tiles[i].k == k && p->tiles[i].lines == lines) {
            *out = i;
            return STATUS_OK;
        }
    }
    struct tile *t = &p->tiles[p->tile_count];
    dnnl_memory_desc_t a, b, c;
    *t = (struct tile){.n = n, .k = k, .lines = lines};
    TRY(matrix_desc(&a, lines, DNNL_RUNTIME_DIM_VAL, 1,
                    n)); /* dy transposed: a column is a token */
    TRY(matrix_desc(&b, DNNL_RUNTIME_DIM_VAL, k, k, 1));
    TRY(matrix_desc(&c, lines, k, k, 1));
    TRY(create(p, &a, &b, NULL, &c, NULL, &t->p));
    *out = p->tile_count++;
    return STATUS_OK;
}

static void products_close(struct products *p)
{
    if (p == NULL)
        return;
    for (int i = 0; i < p->shape_count; i++) {
        for (int j = 0; j < SIZES; j++) {
            if (p->shapes[i].size[j].p != NULL)
                (void)dnnl_primitive_destroy(p->shapes[i].size[j].p);
        }
    }
    for (int i = 0; i < p->tile_count; i++)
        (void)dnnl_primitive_destroy(p->tiles[i].p.p);
    for (int i = 0; i < p->count && p->weights != NULL; i++) {
        mem_free(p->weights[i].packed);
        mem_free(p->weights[i].packed_backward);
    }
    if (p->engine != NULL)
        (void)dnnl_engine_destroy(p->engine);
    mem_free(p->matrices);
    mem_free(p->weights);
    mem_free(p->shapes);
    mem_free(p->tiles);
    mem_free(p);
}

static enum status products_fill(struct products *p, const struct kernel_opts *opts)
{
    size_t count = (size_t)opts->count;
    TRY(mem_alloc(count, sizeof *p->matrices, "the list of matrices", &p->matrices));
    TRY(mem_alloc(count, sizeof *p->weights, "the list of packed matrices", &p->weights));
    TRY(mem_alloc(3 * count, sizeof *p->shapes, "the list of shapes", &p->shapes));
    TRY(mem_alloc(2 * count, sizeof *p->tiles, "the list of tiles", &p->tiles));
    DNN(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "open the CPU");
    p->count = opts->count;
    for (int i = 0; i < p->count; i++) {
        const struct matrix *m = &opts->matrices[i];
        struct weights *w = &p->weights[i];
        p->matrices[i] = *m;
        TRY(shape_find(p, m->k, m->n, true, false, &w->forward));
        TRY(shape_find(p, m->k, m->n, true, true, &w->forward_bias));
        TRY(mem_alloc(dnnl_memory_desc_get_size(&p->shapes[w->forward].packed), 1, "packed weights",
                      &w->packed));
        if (!opts->training)
            continue;
        TRY(shape_find(p, m->n, m->k, false, false, &w->backward));
        TRY(mem_alloc(dnnl_memory_desc_get_size(&p->shapes[w->backward].packed), 1,
                      "packed weights", &w->packed_backward));
        TRY(tile_find(p, m->n, m->k, m->n < TILE_N ? 0 : TILE_N, &w->tile));
        TRY(tile_find(p, m->n, m->k, m->n % TILE_N, &w->tail));
    }
    return STATUS_OK;
}

static enum status products_open(struct kernel_ctx *ctx, const struct kernel_opts *opts)
{
    struct products *p;
    ctx->products = NULL;
    TRY(mem_alloc(1, sizeof *p, "the products' state", &p));
    enum status st = products_fill(p, opts);
    if (st != STATUS_OK) {
        products_close(p);
        return st;
    }
    /* With and without bias the weights must be packed alike: they are the same kernel with another
     * epilogue. */
    for (int i = 0; i < p->count; i++) {
        const struct weights *w = &p->weights[i];
        if (!dnnl_memory_desc_equal(&p->shapes[w->forward].packed,
                                    &p->shapes[w->forward_bias].packed)) {
            products_close(p);
            return status_fail(
                STATUS_INTERNAL,
                "oneDNN packs weights differently for products with and without bias");
        }
    }
    ctx->products = p;
    return STATUS_OK;
}

static int64_t memory_bytes(const struct kernel_opts *opts)
{
    int64_t n = 0;
    for (int i = 0; i < opts->count; i++)
        n += round_up(opts->matrices[i].n, 64) * round_up(opts->matrices[i].k, 64);
    return (opts->training ? 2 * n : n) * (int64_t)sizeof(float) +
           64 * 1024 * 1024; /* and the primitives' code */
}

/* Memory object over a pointer; NULL on failure. oneDNN does not write through sources. */
static dnnl_memory_t view(dnnl_engine_t engine, const dnnl_memory_desc_t *d, const void *p)
{
    dnnl_memory_t m = NULL;
    if (dnnl_memory_create(&m, d, engine, (void *)(uintptr_t)p) != dnnl_success)
        return NULL;
    return m;
}

static dnnl_status_t repack(const struct products *p, const struct shape *s, const float *from,
                            float *to)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_memory_t a = view(p->engine, &s->plain, from), b = view(p->engine, &s->packed, to);
    dnnl_status_t st = a != NULL && b != NULL ? dnnl_success : dnnl_out_of_memory;
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&pd, &s->plain, p->engine, &s->packed, p->engine,
                                                NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&reorder, pd);
    if (st == dnnl_success)
        st = dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags);
    if (st == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, a}, {DNNL_ARG_TO, b}};
        st = dnnl_primitive_execute(reorder, stream, 2, args);
    }
    if (st == dnnl_success)
        st = dnnl_stream_wait(stream);
    (void)dnnl_stream_destroy(stream);
    (void)dnnl_primitive_destroy(reorder);
    (void)dnnl_primitive_desc_destroy(pd);
    (void)dnnl_memory_destroy(a);
    (void)dnnl_memory_destroy(b);
    return st;
}

/* A matrix for each thread: oneDNN's own division would wait for all threads at every one of them,
 * which on busy cores took fifteen times as long. */
static enum status products_weights_changed(struct kernel_ctx *ctx, const float *weights)
{
    const struct products *p = ctx->products;
    int failure = dnnl_success;
#pragma omp parallel for num_threads(cpu_threads()) schedule(dynamic) reduction(max : failure)
    for (int i = 0; i < 2 * p->count; i++) {
        const struct weights *w = &p->weights[i / 2];
        const float *from = weights + p->matrices[i / 2].offset;
        dnnl_status_t st = dnnl_success;
        if (i % 2 == 0)
            st = repack(p, &p->shapes[w->forward], from, w->packed);
        else if (w->packed_backward != NULL)
            st = repack(p, &p->shapes[w->backward], from, w->packed_backward);
        failure = (int)st > failure ? (int)st : failure;
    }
    return failure <= (int)dnnl_success ? STATUS_OK
                                        : failed((dnnl_status_t)failure, "pack weights");
}

/* One primitive on this thread; b_desc and scratch as given. */
static dnnl_status_t run(dnnl_engine_t engine, dnnl_stream_t stream, const struct primitive *p,
                         const dnnl_memory_desc_t *a_desc, const void *a,
                         const dnnl_memory_desc_t *b_desc, const void *b,
                         const dnnl_memory_desc_t *bias_desc, const float *bias, void *c,
                         void *scratch)
{
    dnnl_memory_desc_t scratch_desc;
    dnnl_dims_t size = {(int64_t)p->scratch};
    int n = 4;
    dnnl_memory_t m[5] = {view(engine, a_desc, a), view(engine, b_desc, b), view(engine, &p->c, c),
                          NULL, NULL};
    dnnl_status_t st = dnnl_memory_desc_init_by_tag(&scratch_desc, 1, size, dnnl_u8, dnnl_a);
    if (st == dnnl_success)
        m[3] = view(engine, &scratch_desc, scratch);
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, m[0]},
                               {DNNL_ARG_WEIGHTS, m[1]},
                               {DNNL_ARG_DST, m[2]},
                               {DNNL_ARG_SCRATCHPAD, m[3]}};
    if (bias != NULL) {
        m[4] = view(engine, bias_desc, bias);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, m[4]};
    }
    for (int i = 0; i < n && st == dnnl_success; i++) {
        if (m[i] == NULL)
            st = dnnl_out_of_memory;
    }
    if (st == dnnl_success)
        st = dnnl_primitive_execute(p->p, stream, n, args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(stream);
    for (int i = 0; i < 5; i++)
        (void)dnnl_memory_destroy(m[i]);
    return st;
}

static enum status multiply(struct kernel_ctx *ctx, struct shape *s, int64_t rows, const float *x,
                            const float *b, const float *bias, float *y)
{
    struct products *p = ctx->products;
    int threads = cpu_threads();
    int64_t height = round_up((rows + threads - 1) / threads, GRAIN);
    struct primitive *whole = NULL, *tail = NULL, *rest = NULL;
    int failure = dnnl_success;
    if (rows == 0)
        return STATUS_OK;
    if (height > HEIGHT)
        height = HEIGHT;
    int64_t bands = rows / height;
    int left = (int)(rows % height), left_whole = left / GRAIN * GRAIN;
    size_t scratch = 64;
    TRY(shape_primitive(p, s, (int)height, &whole));
    if (left_whole > 0)
        TRY(shape_primitive(p, s, left_whole, &tail));
    if (left % GRAIN > 0)
        TRY(shape_primitive(p, s, left % GRAIN, &rest));
    const struct primitive *used[3] = {whole, tail, rest};
    for (int i = 0; i < 3; i++) {
        if (used[i] != NULL && used[i]->scratch > scratch)
            scratch = used[i]->scratch;
    }
    TRY(cpu_scratch_reserve(ctx, scratch));
#pragma omp parallel num_threads(threads) reduction(max : failure)
    {
        dnnl_stream_t stream = NULL;
        failure = (int)dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < bands + 2; i++) {
            const struct primitive *q = i < bands ? whole : i == bands ? tail : rest;
            int64_t top = i < bands    ? i * height
                          : i == bands ? bands * height
                                       : bands * height + left_whole;
            if (q != NULL && failure == dnnl_success)
                failure = (int)run(p->engine, stream, q, &q->a, x + top * s->k, &s->packed, b,
                                   &s->bias_desc, bias, y + top * s->n, cpu_scratch(ctx));
        }
        (void)dnnl_stream_destroy(stream);
    }
    return failure == dnnl_success ? STATUS_OK : failed((dnnl_status_t)failure, "multiply");
}

static enum status products_linear(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                   const float *bias, act *y)
{
    const struct weights *w = &ctx->products->weights[m];
    struct shape *s = &ctx->products->shapes[bias != NULL ? w->forward_bias : w->forward];
    return multiply(ctx, s, rows, x, w->packed, bias, y);
}

static enum status products_linear_backward_data(struct kernel_ctx *ctx, int m, int64_t rows,
                                                 const act *dy, act *dx)
{
    const struct weights *w = &ctx->products->weights[m];
    if (w->packed_backward == NULL)
        return status_fail(STATUS_ARG,
                           "data gradient of a product in a context opened without training");
    return multiply(ctx, &ctx->products->shapes[w->backward], rows, dy, w->packed_backward, NULL,
                    dx);
}

/* sum (the tile's lines, K) of `tokens` lines; zeros where there is none. */
static dnnl_status_t gradient_sum(const struct products *p, dnnl_stream_t stream,
                                  const struct tile *t, int64_t tokens, const float *dy,
                                  const float *x, float *sum, void *scratch)
{
    dnnl_memory_desc_t a, b;
    dnnl_dims_t a_dims = {t->lines, tokens}, a_strides = {1, t->n}, b_dims = {tokens, t->k};
    dnnl_dims_t b_strides = {t->k, 1};
    if (tokens == 0) {
        memset(sum, 0, (size_t)t->lines * (size_t)t->k * sizeof *sum);
        return dnnl_success;
    }
    dnnl_status_t st = dnnl_memory_desc_init_by_strides(&a, 2, a_dims, dnnl_f32, a_strides);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_strides(&b, 2, b_dims, dnnl_f32, b_strides);
    if (st == dnnl_success)
        st = run(p->engine, stream, &t->p, &a, dy, &b, x, NULL, NULL, sum, scratch);
    return st;
}

/* The table's lines of piece i, for the tile's outputs from n0 on, to its sums and those of the
 * bias. Few and small: a line at a time. */
static void add_more(const struct table_lines *more, int i, const struct tile *t, int n0,
                     float *sum, double *column)
{
    for (int64_t l = 0; more != NULL && l < more->count[i]; l++) {
        const float *g = (const float *)more->dy + ((int64_t)i * more->lines + l) * more->dy_stride,
                    *x = (const float *)more->x + l * t->k;
        for (int e = 0; e < t->lines; e++) {
            const int n = n0 + e - more->first;
            if (n < 0 || n >= more->n)
                continue;
            column[e] += (double)g[n];
            for (int k = 0; k < t->k; k++)
                sum[(int64_t)e * t->k + k] += g[n] * x[k];
        }
    }
}

/* All pieces of TILE_N outputs from n0 (the tile's lines of dW), and their bias. line NULL: no
 * lines but those of more. */
static dnnl_status_t gradient_tile(const struct products *p, dnnl_stream_t stream,
                                   const struct tile *t, const int32_t *line, const float *x,
                                   const float *dy, const struct table_lines *more, int n0,
                                   int64_t at, int64_t bias_at, const struct grad_cut *cut,
                                   float *sum, void *scratch)
{
    for (int i = 0; i < cut->pieces; i++) {
        const int64_t tokens = line != NULL ? line[i + 1] - line[i] : 0;
        const float *g = tokens > 0 ? dy + (int64_t)line[i] * t->n + n0 : NULL;
        double column[TILE_N] = {0};
        dnnl_status_t st = gradient_sum(
            p, stream, t, tokens, g, tokens > 0 ? x + (int64_t)line[i] * t->k : NULL, sum, scratch);
        if (st != dnnl_success)
            return st;
        add_more(more, i, t, n0, sum, column);
        cpu_cut_put(cut, i, sum, at, (int64_t)t->lines * t->k);
        if (bias_at >= 0) {
            float rounded[TILE_N];
            for (int64_t r = 0; r < tokens; r++) {
                for (int e = 0; e < t->lines; e++)
                    column[e] += (double)g[r * t->n + e];
            }
            for (int e = 0; e < t->lines; e++)
                rounded[e] = (float)column[e];
            cpu_cut_put(cut, i, rounded, bias_at, t->lines);
        }
    }
    return dnnl_success;
}

static enum status products_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows,
                                                   const act *x, const act *dy, int64_t bias_offset,
                                                   bool by_row, const struct table_lines *more,
                                                   const struct grad_cut *cut)
{
    const struct products *p = ctx->products;
    const struct matrix *matrix = &p->matrices[m];
    const struct weights *w = &p->weights[m];
    int tasks = (matrix->n + TILE_N - 1) / TILE_N, failure = dnnl_success;
    size_t sums = (size_t)TILE_N * (size_t)round_up(matrix->k, 16) * sizeof(float), scratch = 64;
    (void)rows;
    if (cut->pieces == 0)
        return STATUS_OK;
    if (w->packed_backward == NULL)
        return status_fail(STATUS_ARG,
                           "weight gradient of a product in a context opened without training");
    if (w->tile >= 0)
        scratch = p->tiles[w->tile].p.scratch;
    if (w->tail >= 0 && p->tiles[w->tail].p.scratch > scratch)
        scratch = p->tiles[w->tail].p.scratch;
    TRY(cpu_scratch_reserve(ctx, sums + scratch));
#pragma omp parallel num_threads(cpu_threads()) reduction(max : failure)
    {
        dnnl_stream_t stream = NULL;
        failure = (int)dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags);
        float *sum = cpu_scratch(ctx);
#pragma omp for schedule(dynamic)
        for (int i = 0; i < tasks; i++) {
            int n0 = i * TILE_N;
            const struct tile *t = &p->tiles[n0 + TILE_N <= matrix->n ? w->tile : w->tail];
            if (failure == dnnl_success)
                failure = (int)gradient_tile(p, stream, t,
                                             x == NULL ? NULL
                                             : by_row  ? cut->row
                                                       : cut->token,
                                             x, dy, more, n0,
                                             matrix->offset + (int64_t)n0 * matrix->k,
                                             bias_offset >= 0 ? bias_offset + n0 : -1, cut, sum,
                                             (unsigned char *)sum + sums);
        }
        (void)dnnl_stream_destroy(stream);
    }
    return failure == dnnl_success ? STATUS_OK : failed((dnnl_status_t)failure, "multiply");
}

const struct products_table products_onednn = {
    .open = products_open,
    .close = products_close,
    .memory_bytes = memory_bytes,
    .weights_changed = products_weights_changed,
    .linear = products_linear,
    .linear_backward_data = products_linear_backward_data,
    .linear_backward_weight = products_linear_backward_weight,
};
