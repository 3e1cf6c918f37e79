/*
 * products_bf16.c - bfloat16 products with our own blocks of 32 x 32 outputs; see products.h.
 *
 * Weights are cast and packed once a step, in both orientations, into panels of 32 columns: a step
 * of 32 k is two AMX tiles, which are also two vectors for each pair of k. Lines of activations are
 * read where they are. For weight gradients the tokens are the summed dimension: dy is packed like
 * A (32 outputs by 32 tokens) and x like B, piece by piece, filled up to steps of 32 tokens with
 * zeros; then every thread computes all pieces, and their merges, of its own tiles while they are
 * in its cache.
 *
 * A sum runs over K from the first to the last, in one float per output, whatever the batch:
 * results of a line or of a piece do not depend on anything else.
 *
 * Measured beside oneDNN 2.6.3 (weights in the format it prefers), in turns, on one core of a Xeon
 * with AMX that other work kept busy, so these are lower bounds; best of three runs, GFLOP/s:
 *
 *   N x K, M          forward        data gradient   weight gradient
 *                     own   oneDNN   own    oneDNN   own: 1 piece, 8 pieces   oneDNN: no pieces
 *   384 x 384, 640    1,644 2,005    1,629  2,003    961  634                 1,069
 *   1152 x 384, 640   1,376 1,656    1,375  1,478    877  601                 963
 *   1536 x 384, 640   1,364 1,563    1,280  1,379    883  603                 989
 *   384 x 1536, 640   1,356 1,328    1,411  1,542    854  607                 741
 *   384 x 384, 4096   1,335 1,607    1,303  1,606    695  669                 740
 *
 * oneDNN is ahead by 10 to 20 % forward where K is 384; it gives weight gradients neither pieces
 * nor merges and needs primitives for every number of lines. Without AMX, AVX512-BF16 runs at 117
 * on this core. Prefetching tiles, and rounding a block while the next is computed, gained nothing
 * at K of 384.
 */
#include "model/kernels/cpu/products.h"

#ifdef __x86_64__
#include "model/kernels/cpu/simd_avx512.h"

#define STEP 32   /* lines, columns and k of a block */
#define TILE 1024 /* elements of a packed step, floats of a block */
#define LONG_STEPS                                                                                 \
    16 /* more are added up in chunks, so that A and B of a block stay in the first cache */
#define CHUNK_STEPS 12

struct packed {
    uint16_t *forward;  /* B of x W^T: k by n */
    uint16_t *backward; /* B of dy W: n by k; NULL without training */
};

struct products {
    struct matrix *matrices;
    struct packed *packed;
    int *first_panel; /* (count + 1) panels of 32 outputs before matrix i */
    int count;
    uint16_t *memory;
    block_kernel *block;
    bool amx;
};

static int steps_of(int64_t n)
{
    return (int)((n + STEP - 1) / STEP);
}

static int64_t packed_elements(const struct kernel_opts *opts)
{
    int64_t n = 0;
    for (int i = 0; i < opts->count; i++)
        n += (int64_t)steps_of(opts->matrices[i].n) * steps_of(opts->matrices[i].k) * TILE;
    return opts->training ? 2 * n : n;
}

static int64_t memory_bytes(const struct kernel_opts *opts)
{
    int64_t widest = 0;
    for (int i = 0; i < opts->count; i++) {
        int64_t both = round_up(opts->matrices[i].n, STEP) + round_up(opts->matrices[i].k, STEP);
        widest = both > widest ? both : widest;
    }
    /* Packed dy and x of the widest matrix; a step of padding for each of some 64 pieces. */
    int64_t tokens = opts->training ? round_up(opts->max_tokens, STEP) + 64 * STEP : 0;
    return packed_elements(opts) * 2 + tokens * widest * 2;
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
    size_t count = (size_t)opts->count;
    ctx->products = NULL;
    TRY(mem_alloc(1, sizeof *p, "the products' state", &p));
    p->count = opts->count;
    p->amx = ctx->cpu.amx;
    p->block = ctx->cpu.amx ? block_amx : block_bf16;
    TRY_GOTO(fail, mem_alloc(count, sizeof *p->matrices, "the list of matrices", &p->matrices));
    TRY_GOTO(fail, mem_alloc(count, sizeof *p->packed, "the list of packed matrices", &p->packed));
    TRY_GOTO(fail,
             mem_alloc(count + 1, sizeof *p->first_panel, "the list of panels", &p->first_panel));
    TRY_GOTO(fail, mem_alloc((size_t)packed_elements(opts), sizeof *p->memory, "the packed weights",
                             &p->memory));
    uint16_t *at = p->memory;
    for (int i = 0; i < opts->count; i++) {
        const struct matrix *m = &opts->matrices[i];
        int64_t size = (int64_t)steps_of(m->n) * steps_of(m->k) * TILE;
        p->matrices[i] = *m;
        p->packed[i].forward = at;
        at += size;
        if (opts->training) {
            p->packed[i].backward = at;
            at += size;
        }
        p->first_panel[i + 1] = p->first_panel[i] + steps_of(m->n);
    }
    ctx->products = p;
    return STATUS_OK;
fail:
    products_close(p);
    return st;
}

/* ---- packing ---- */

static inline __mmask16 lanes16(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xFFFFu : n <= 0 ? 0u : (1u << n) - 1u);
}

static inline __mmask32 lanes32(int64_t n)
{
    return n >= 32 ? 0xFFFFFFFFu : n <= 0 ? 0 : (1u << n) - 1u;
}

/* Transpose 16 x 16 words in place. */
static inline __attribute__((always_inline)) void transpose16(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD);
    }
}

/* Words {x[c], y[c]} for columns 0-15 (lo) and 16-31 (hi) of two lines. */
static inline __attribute__((always_inline)) void interleave(__m512i x, __m512i y, __m512i *lo,
                                                             __m512i *hi)
{
    __m512i xl = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)),
            xh = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1));
    __m512i yl = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(y)),
            yh = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(y, 1));
    *lo = _mm512_or_si512(xl, _mm512_slli_epi32(yl, 16));
    *hi = _mm512_or_si512(xh, _mm512_slli_epi32(yh, 16));
}

/* One panel (32 outputs from n0) of a matrix: all its k, both orientations. */
static void pack_panel(const float *w, const struct matrix *m, int n0, const struct packed *to)
{
    int steps_k = steps_of(m->k), steps_n = steps_of(m->n);
    int panel = n0 / STEP, lines = m->n - n0 < STEP ? m->n - n0 : STEP;
    for (int s = 0; s < steps_k; s++) {
        __m512i row[STEP];
        __mmask16 lo = lanes16(m->k - s * STEP), hi = lanes16(m->k - s * STEP - 16);
        for (int i = 0; i < STEP; i++) {
            row[i] = _mm512_setzero_si512();
            if (i < lines) {
                const float *line = w + (int64_t)(n0 + i) * m->k + s * STEP;
                row[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, line + 16),
                                                      _mm512_maskz_loadu_ps(lo, line));
            }
        }
        if (to->backward != NULL) {
            uint16_t *b = to->backward + ((int64_t)s * steps_n + panel) * TILE;
            for (int i = 0; i < 16; i++) {
                __m512i left, right;
                interleave(row[2 * i], row[2 * i + 1], &left, &right);
                _mm512_storeu_si512(b + 32 * i, left);
                _mm512_storeu_si512(b + 512 + 32 * i, right);
            }
        }
        uint16_t *f = to->forward + ((int64_t)panel * steps_k + s) * TILE;
        transpose16(row);
        transpose16(row + 16);
        for (int i = 0; i < STEP; i++)
            _mm512_storeu_si512(f + 32 * i, row[i]);
    }
}

static enum status products_weights_changed(struct kernel_ctx *ctx, const float *weights)
{
    const struct products *p = ctx->products;
    int panels = p->first_panel[p->count];
#pragma omp parallel for num_threads(cpu_threads()) schedule(dynamic, 4)
    for (int i = 0; i < panels; i++) {
        int m = 0;
        while (p->first_panel[m + 1] <= i)
            m++;
        pack_panel(weights + p->matrices[m].offset, &p->matrices[m], (i - p->first_panel[m]) * STEP,
                   &p->packed[m]);
    }
    return STATUS_OK;
}

/* ---- forward and data gradient ---- */

/* c (rows lines of 32 floats) + bias, rounded, to y. */
static inline void store_lines(const float *c, int rows, const float *bias, int columns,
                               uint16_t *y, int64_t y_line)
{
    __mmask16 lo = lanes16(columns), hi = lanes16(columns - 16);
    __mmask32 both = lanes32(columns);
    __m512 b0 = _mm512_setzero_ps(), b1 = _mm512_setzero_ps();
    if (bias != NULL) {
        b0 = _mm512_maskz_loadu_ps(lo, bias);
        b1 = _mm512_maskz_loadu_ps(hi, bias + 16);
    }
    for (int i = 0; i < rows; i++, c += 32, y += y_line) {
        __m512i v = (__m512i)_mm512_cvtne2ps_pbh(_mm512_add_ps(_mm512_loadu_ps(c + 16), b1),
                                                 _mm512_add_ps(_mm512_loadu_ps(c), b0));
        if (columns >= 32)
            _mm512_storeu_si512(y, v);
        else
            _mm512_mask_storeu_epi16(y, both, v);
    }
}

/* Lines whose length is no multiple of 32 are copied with zeros behind them; 64-byte steps of A
 * then exist whole. */
static void pad_lines(const uint16_t *x, int64_t rows, int k, uint16_t *to)
{
    int steps = steps_of(k);
    for (int64_t i = 0; i < rows; i++) {
        for (int s = 0; s < steps; s++) {
            __m512i v = _mm512_maskz_loadu_epi16(lanes32(k - s * STEP), x + i * k + s * STEP);
            _mm512_storeu_si512(to + (i * steps + s) * STEP, v);
        }
    }
}

struct job {
    block_kernel *block;
    const uint16_t *b;
    const float *bias;
    int k, n;  /* summed and output dimension */
    int chunk; /* steps of k at a time */
    int group; /* panels at a time */
};

/* y = x B for `rows` lines and panels [first, last). A block's lines stay in the first cache while
 * a group of panels, which the second holds, goes by in order: 6 % faster than the other way round.
 * c has room for a group's blocks, pad for the lines. */
static void multiply(const struct job *j, const uint16_t *x, int rows, int first, int last,
                     float *c, uint16_t *pad, uint16_t *y)
{
    int steps = steps_of(j->k);
    int64_t line = (int64_t)j->k * 2;
    if (j->k % STEP != 0) {
        pad_lines(x, rows, j->k, pad);
        x = pad;
        line = (int64_t)steps * STEP * 2;
    }
    const unsigned char *a = (const unsigned char *)x;
    for (int p0 = first; p0 < last; p0 += j->group) {
        int p1 = p0 + j->group < last ? p0 + j->group : last;
        for (int r = 0; r < rows; r += STEP) {
            int lines = rows - r < STEP ? rows - r : STEP;
            for (int s = 0; s < steps; s += j->chunk) {
                int n = steps - s < j->chunk ? steps - s : j->chunk;
                for (int p = p0; p < p1; p++) {
                    float *sum = j->chunk < steps ? c + (int64_t)(p - p0) * TILE : c;
                    j->block(lines, n, a + r * line + s * STEP * 2, line, STEP * 2,
                             j->b + ((int64_t)p * steps + s) * TILE, s > 0, sum);
                    if (s + n == steps)
                        store_lines(sum, lines, j->bias != NULL ? j->bias + p * STEP : NULL,
                                    j->n - p * STEP, y + (int64_t)r * j->n + p * STEP, j->n);
                }
            }
        }
    }
}

static enum status multiply_all(struct kernel_ctx *ctx, const uint16_t *b, int k, int n,
                                int64_t rows, const uint16_t *x, const float *bias, uint16_t *y)
{
    const struct products *p = ctx->products;
    int steps = steps_of(k), panels = steps_of(n), threads = cpu_threads();
    struct job job = {.block = p->block, .b = b, .bias = bias, .k = k, .n = n, .chunk = steps};
    if (steps > LONG_STEPS) /* chunks of nearly equal length */
        job.chunk = (steps + (steps + CHUNK_STEPS - 1) / CHUNK_STEPS - 1) /
                    ((steps + CHUNK_STEPS - 1) / CHUNK_STEPS);
    if (rows == 0)
        return STATUS_OK;
    /* Lines of a task: as many as stay in the second cache while the panels go by; columns are
     * divided where there are too few lines for all threads. */
    int64_t height = 768 * 1024 / (steps * STEP * 2) / STEP * STEP;
    height = height < 64 ? 64 : height;
    int64_t share = round_up((rows + threads - 1) / threads, STEP);
    height = share < height ? share : height;
    int64_t bands = (rows + height - 1) / height;
    int wide = bands >= threads ? panels : (int)((panels * bands + threads - 1) / threads);
    int64_t columns = (panels + wide - 1) / wide;
    job.group = 512 * 1024 / (steps * TILE * 2);
    job.group = job.group < 1 ? 1 : job.group;
    size_t c_bytes = (size_t)job.group * TILE * sizeof(float);
    size_t pad_bytes = k % STEP != 0 ? (size_t)(height * steps * STEP) * sizeof(uint16_t) : 0;
    TRY(cpu_scratch_reserve(ctx, c_bytes + pad_bytes));
#pragma omp parallel num_threads(threads)
    {
        float *c = cpu_scratch(ctx);
        uint16_t *pad = (uint16_t *)(void *)((unsigned char *)c + c_bytes);
        if (p->amx)
            block_amx_begin();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < bands * columns; task++) {
            int64_t top = task / columns * height;
            int first = (int)(task % columns) * wide,
                last = first + wide < panels ? first + wide : panels;
            int lines = (int)(rows - top < height ? rows - top : height);
            multiply(&job, x + top * k, lines, first, last, c, pad, y + top * n);
        }
        if (p->amx)
            block_amx_end();
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
    if (ctx->products->packed[m].backward == NULL)
        return status_fail(STATUS_ARG,
                           "data gradient of a product in a context opened without training");
    return multiply_all(ctx, ctx->products->packed[m].backward, w->n, w->k, rows, dy, NULL, dx);
}

/* ---- weight gradient ---- */

struct gradient {
    const struct products *p;
    const struct grad_cut *cut;
    const struct table_lines *more; /* or NULL */
    const int32_t *line; /* (pieces + 1) the cut's tokens or rows; NULL: no lines but more's */
    const int32_t *step; /* (pieces + 1) steps before piece i: its lines', then more's */
    const int32_t *own;  /* (pieces) steps of its lines */
    const uint16_t *x, *dy;
    uint16_t *packed_x, *packed_dy;
    int n, k;
    int64_t offset, bias_offset;
    int tile_n, tile_k; /* panels of a task */
    int buffers;        /* of the cut */
    bool by_block;
};

static size_t content_bytes(const struct gradient *g)
{
    return (size_t)round_up((int64_t)g->tile_n * g->tile_k * g->buffers, 64);
}

/* 32 lines of 32 elements, `line` apart, transposed to 32 lines of 32. Four groups of eight lines
 * are put side by side by the loads (which is free beside shuffles), so that a transposition of 8 x
 * 8 in each quarter of the vectors is all. */
static void transpose_lines(const uint16_t *from, int64_t line, uint16_t *to)
{
    for (int c = 0; c < 4; c++, from += 8) {
        __m512i r[8], t[8];
        for (int i = 0; i < 8; i++) {
            const uint16_t *p = from + i * line;
            __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
            v = _mm512_mask_broadcast_i32x4(
                v, 0x00F0, _mm_loadu_si128((const __m128i *)(const void *)(p + 8 * line)));
            v = _mm512_mask_broadcast_i32x4(
                v, 0x0F00, _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * line)));
            r[i] = _mm512_mask_broadcast_i32x4(
                v, 0xF000, _mm_loadu_si128((const __m128i *)(const void *)(p + 24 * line)));
        }
        for (int i = 0; i < 4; i++) {
            t[2 * i] = _mm512_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
        }
        for (int i = 0; i < 2; i++) {
            r[4 * i] = _mm512_unpacklo_epi32(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm512_unpackhi_epi32(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm512_unpacklo_epi32(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm512_unpackhi_epi32(t[4 * i + 1], t[4 * i + 3]);
        }
        for (int i = 0; i < 4; i++) {
            _mm512_storeu_si512(to + (8 * c + 2 * i) * STEP, _mm512_unpacklo_epi64(r[i], r[4 + i]));
            _mm512_storeu_si512(to + (8 * c + 2 * i + 1) * STEP,
                                _mm512_unpackhi_epi64(r[i], r[4 + i]));
        }
    }
}

/* 32 lines of 32 elements as B: pairs of lines side by side. Columns come in the order of the
 * instruction, 0-3, 8-11, 16-19, 24-27 in the first tile and the others in the second; load_block()
 * and store_block() know. */
static void pair_lines(const uint16_t *from, int64_t line, uint16_t *to)
{
    for (int i = 0; i < 16; i++) {
        __m512i x = _mm512_loadu_si512(from + 2 * i * line),
                y = _mm512_loadu_si512(from + (2 * i + 1) * line);
        _mm512_storeu_si512(to + 32 * i, _mm512_unpacklo_epi16(x, y));
        _mm512_storeu_si512(to + 512 + 32 * i, _mm512_unpackhi_epi16(x, y));
    }
}

/* Whether panel n of outputs has lines of the table. */
static bool has_more(const struct gradient *g, int n)
{
    return g->more != NULL && n * STEP < g->more->first + g->more->n &&
           (n + 1) * STEP > g->more->first;
}

/* Steps of piece i for panel n of outputs. */
static int steps_for(const struct gradient *g, int i, int n)
{
    return has_more(g, n) ? g->step[i + 1] - g->step[i] : g->own[i];
}

/* Pack `lines` lines (at most 32) as step s: dy, of lines that hold outputs [first, first + n),
 * transposed, x in pairs; zeros where there is nothing. */
static void pack_tokens(const struct gradient *g, int s, int lines, const uint16_t *dy,
                        int64_t dy_line, int first, int n, const uint16_t *x)
{
    int64_t steps = g->step[g->cut->pieces];
    for (int which = 0; which < 2; which++) {
        const int begin = which == 0 ? first : 0, end = which == 0 ? first + n : g->k;
        for (int p = begin / STEP; p * STEP < end; p++) {
            uint16_t *to = (which == 0 ? g->packed_dy : g->packed_x) + (p * steps + s) * TILE;
            const uint16_t *corner = (which == 0 ? dy - begin : x) + p * STEP;
            int64_t line = which == 0 ? dy_line : g->k;
            uint16_t edge[TILE];
            if (lines < STEP || end - p * STEP < STEP || p * STEP < begin) {
                __mmask32 columns = lanes32(end - p * STEP) & ~lanes32(begin - p * STEP);
                for (int64_t i = 0; i < STEP; i++) {
                    __m512i v = i < lines ? _mm512_maskz_loadu_epi16(columns, corner + i * line)
                                          : _mm512_setzero_si512();
                    _mm512_storeu_si512(edge + i * STEP, v);
                }
                corner = edge;
                line = STEP;
            }
            if (which == 0)
                transpose_lines(corner, line, to);
            else
                pair_lines(corner, line, to);
        }
    }
}

/* Where a block lies in the flat buffers, and its shape. */
struct place {
    int64_t at, line; /* element of its corner, elements between lines */
    int rows, columns;
};

static struct place place_of(const struct gradient *g, int n, int k)
{
    return (struct place){.at = g->offset + (int64_t)n * STEP * g->k + k * STEP,
                          .line = g->k,
                          .rows = g->n - n * STEP < STEP ? g->n - n * STEP : STEP,
                          .columns = g->k - k * STEP};
}

static void load_block(const float *buffer, const struct place *p, float *c)
{
    const __m512i first =
        _mm512_set_epi32(27, 26, 25, 24, 19, 18, 17, 16, 11, 10, 9, 8, 3, 2, 1, 0);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
    __mmask16 lo = lanes16(p->columns), hi = lanes16(p->columns - 16);
    const float *from = buffer + p->at;
    for (int r = 0; r < p->rows; r++, from += p->line, c += 32) {
        __m512 x = _mm512_maskz_loadu_ps(lo, from), y = _mm512_maskz_loadu_ps(hi, from + 16);
        _mm512_storeu_ps(c, _mm512_permutex2var_ps(x, first, y));
        _mm512_storeu_ps(c + 16, _mm512_permutex2var_ps(x, second, y));
    }
}

static void store_block(float *buffer, const struct place *p, const float *c)
{
    const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    __mmask16 lo = lanes16(p->columns), hi = lanes16(p->columns - 16);
    float *to = buffer + p->at;
    for (int r = 0; r < p->rows; r++, to += p->line, c += 32) {
        __m512 x = _mm512_loadu_ps(c), y = _mm512_loadu_ps(c + 16);
        _mm512_mask_storeu_ps(to, lo, _mm512_permutex2var_ps(x, first, y));
        _mm512_mask_storeu_ps(to + 16, hi, _mm512_permutex2var_ps(x, second, y));
    }
}

static void add_block(const float *from, float *to, int rows)
{
    for (int e = 0; e < rows * 32; e += 16)
        _mm512_storeu_ps(to + e, _mm512_add_ps(_mm512_loadu_ps(to + e), _mm512_loadu_ps(from + e)));
}

/* The sums of one block in the thread's scratch: a slot for each buffer and one more for a sum that
 * will be added. A slot is filled from its buffer when first needed, and written back, once, when
 * all pieces are done. */
struct slots {
    float *c;         /* (buffers + 1, TILE) */
    uint8_t *content; /* (buffers) */
};
enum { SLOT_EMPTY, SLOT_SUM, SLOT_MERGED };

static void slot_load(const struct gradient *g, const struct place *p, const struct slots *s, int b)
{
    if (s->content[b] == SLOT_EMPTY)
        load_block(g->cut->buffer[b], p, s->c + (int64_t)b * TILE);
    s->content[b] = SLOT_SUM;
}

/* Where the sum of piece i is to be computed. */
static float *slot_begin(const struct gradient *g, int i, const struct slots *s)
{
    return s->c + (int64_t)(g->cut->add[i] ? g->buffers : g->cut->to[i]) * TILE;
}

/* The sum of piece i is there: add it if it has to be, then do the piece's merges. */
static void slot_end(const struct gradient *g, int i, const struct place *p, const struct slots *s)
{
    const struct grad_cut *cut = g->cut;
    int to = cut->to[i];
    if (cut->add[i]) {
        slot_load(g, p, s, to);
        add_block(s->c + (int64_t)g->buffers * TILE, s->c + (int64_t)to * TILE, p->rows);
    }
    s->content[to] = SLOT_SUM;
    for (int32_t j = cut->merge_begin[i]; j < cut->merge_begin[i + 1]; j++) {
        int into = cut->merge_to[j], from = cut->merge_from[j];
        slot_load(g, p, s, into);
        slot_load(g, p, s, from);
        add_block(s->c + (int64_t)from * TILE, s->c + (int64_t)into * TILE, p->rows);
        s->content[from] = SLOT_MERGED;
    }
}

static void slots_store(const struct gradient *g, const struct place *p, const struct slots *s)
{
    for (int b = 0; b < g->buffers; b++) {
        if (s->content[b] == SLOT_SUM)
            store_block(g->cut->buffer[b], p, s->c + (int64_t)b * TILE);
    }
}

/* All steps of piece i, `some` from step `done` of it, of block (n, k). */
static void gradient_steps(const struct gradient *g, int i, int done, int some, int n, int k,
                           float *sum)
{
    int64_t at = g->step[i] + done, steps = g->step[g->cut->pieces];
    g->p->block(STEP, some, g->packed_dy + (n * steps + at) * TILE, STEP * 2, TILE * 2,
                g->packed_x + (k * steps + at) * TILE, done > 0, sum);
}

/* One task: panels [n0, n1) of outputs by [k0, k1) of inputs. Few tokens: block by block, all
 * pieces of one in the first cache, where the merges are cheap. Many: piece by piece, in chunks of
 * steps, so that dy and x come from the second cache. */
static void gradient_tile(const struct gradient *g, int n0, int n1, int k0, int k1, void *scratch)
{
    int pieces = g->cut->pieces, wide = n1 - n0, blocks = wide * (k1 - k0);
    uint8_t *content = scratch;
    float *c = (float *)(void *)((unsigned char *)scratch + content_bytes(g));
    memset(content, SLOT_EMPTY, (size_t)(blocks * g->buffers));
    for (int pass = 0; pass < (g->by_block ? blocks : 1); pass++) {
        int first = g->by_block ? pass : 0, last = g->by_block ? pass + 1 : blocks;
        for (int i = 0; i < pieces; i++) {
            int most = g->step[i + 1] - g->step[i], done = 0, next;
            do {
                next = most - done > LONG_STEPS ? done + CHUNK_STEPS : most;
                for (int b = first; b < last; b++) {
                    int n = n0 + b % wide, k = k0 + b / wide, all = steps_for(g, i, n);
                    if (done > 0 && done >= all)
                        continue;
                    int some = (next < all ? next : all) - done;
                    struct slots s = {c + (int64_t)(g->by_block ? 0 : b) * (g->buffers + 1) * TILE,
                                      content + (int64_t)b * g->buffers};
                    struct place p = place_of(g, n, k);
                    gradient_steps(g, i, done, some, n, k, slot_begin(g, i, &s));
                    if (done + some == all)
                        slot_end(g, i, &p, &s);
                    if (done + some == all && i == pieces - 1)
                        slots_store(g, &p, &s);
                }
                done = next;
            } while (done < most);
        }
    }
}

/* Bias gradient of panel n: sums of packed dy's lines; multiplied by ones, two at a time. */
static void gradient_bias(const struct gradient *g, int n)
{
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3F803F80);
    int64_t steps = g->step[g->cut->pieces];
    for (int i = 0; i < g->cut->pieces; i++) {
        float column[STEP];
        for (int half = 0; half < 2; half++) {
            __m512 sum[16];
            for (int r = 0; r < 16; r++)
                sum[r] = _mm512_setzero_ps();
            for (int s = g->step[i]; s < g->step[i] + steps_for(g, i, n); s++) {
                const uint16_t *a = g->packed_dy + (n * steps + s) * TILE + half * 512;
                for (int r = 0; r < 16; r++)
                    sum[r] =
                        _mm512_dpbf16_ps(sum[r], ones, (__m512bh)_mm512_loadu_si512(a + 32 * r));
            }
            for (int r = 0; r < 16; r++)
                column[half * 16 + r] = _mm512_reduce_add_ps(sum[r]);
        }
        cpu_cut_put(g->cut, i, column, g->bias_offset + (int64_t)n * STEP,
                    g->n - n * STEP < STEP ? g->n - n * STEP : STEP);
    }
}

/* Lines of piece i, and those of the table. */
static int own_lines(const struct gradient *g, int i)
{
    return g->line == NULL ? 0 : g->line[i + 1] - g->line[i];
}

static int more_lines(const struct gradient *g, int i)
{
    return g->more == NULL ? 0 : g->more->count[i];
}

/* Step s, which is one of piece i's. */
static void pack_step(const struct gradient *g, int i, int s)
{
    const struct table_lines *m = g->more;
    const bool own = s - g->step[i] < g->own[i];
    const int at = (s - g->step[i] - (own ? 0 : g->own[i])) * STEP;
    const int left = (own ? own_lines(g, i) : more_lines(g, i)) - at,
              lines = left < STEP ? left : STEP;
    if (own) {
        const int64_t t = g->line[i] + at;
        pack_tokens(g, s, lines, g->dy + t * g->n, g->n, 0, g->n, g->x + t * g->k);
    } else {
        pack_tokens(g, s, lines,
                    (const uint16_t *)m->dy + ((int64_t)i * m->lines + at) * m->dy_stride,
                    m->dy_stride, m->first, m->n, (const uint16_t *)m->x + (int64_t)at * g->k);
    }
}

static enum status products_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows,
                                                   const act *x, const act *dy, int64_t bias_offset,
                                                   bool by_row, const struct table_lines *more,
                                                   const struct grad_cut *cut)
{
    const struct products *p = ctx->products;
    const struct matrix *w = &p->matrices[m];
    int threads = cpu_threads(), panels_n = steps_of(w->n), panels_k = steps_of(w->k),
        pieces = cut->pieces;
    struct gradient g = {.p = p,
                         .cut = cut,
                         .more = more,
                         .line = x == NULL ? NULL
                                 : by_row  ? cut->row
                                           : cut->token,
                         .x = x,
                         .dy = dy,
                         .n = w->n,
                         .k = w->k,
                         .offset = w->offset,
                         .bias_offset = bias_offset,
                         .tile_n = 4,
                         .tile_k = 12};
    (void)rows;
    if (pieces == 0)
        return STATUS_OK;
    int64_t steps = 0;
    for (int i = 0; i < pieces; i++)
        steps += steps_of(own_lines(&g, i)) + steps_of(more_lines(&g, i));
    size_t header = (size_t)round_up((2 * pieces + 1) * (int64_t)sizeof(int32_t), 64);
    size_t tile_bytes = TILE * sizeof(uint16_t) * (size_t)steps;
    unsigned char *memory;
    TRY(cpu_shared_reserve(ctx, header + tile_bytes * (size_t)(panels_n + panels_k), &memory));
    int32_t *step = (int32_t *)(void *)memory, *own = step + pieces + 1;
    step[0] = 0;
    for (int i = 0; i < pieces; i++) {
        own[i] = steps_of(own_lines(&g, i));
        step[i + 1] = step[i] + own[i] + steps_of(more_lines(&g, i));
    }
    g.step = step;
    g.own = own;
    g.packed_dy = (uint16_t *)(void *)(memory + header);
    g.packed_x = g.packed_dy + (int64_t)panels_n * steps * TILE;
    /* Tiles as large as the second cache likes, but enough of them for all threads. */
    g.buffers = cpu_cut_buffers(cut);
    if (g.buffers > 2)
        g.tile_k = 6;
    while ((g.tile_n > 1 || g.tile_k > 1) &&
           ((panels_n + g.tile_n - 1) / g.tile_n) * ((panels_k + g.tile_k - 1) / g.tile_k) <
               3 * threads) {
        if (g.tile_k > 2 * g.tile_n || g.tile_n == 1)
            g.tile_k = (g.tile_k + 1) / 2;
        else
            g.tile_n = (g.tile_n + 1) / 2;
    }
    int tiles_n = (panels_n + g.tile_n - 1) / g.tile_n,
        tiles_k = (panels_k + g.tile_k - 1) / g.tile_k;
    int longest = 0;
    for (int i = 0; i < pieces; i++)
        longest = step[i + 1] - step[i] > longest ? step[i + 1] - step[i] : longest;
    g.by_block = longest <= LONG_STEPS &&
                 (g.tile_n + g.tile_k) * steps * TILE * (int64_t)sizeof(uint16_t) <= 1 << 20;
    size_t slots = (size_t)(g.by_block ? 1 : g.tile_n * g.tile_k) * (size_t)(g.buffers + 1);
    TRY(cpu_scratch_reserve(ctx, content_bytes(&g) + slots * TILE * sizeof(float)));
#pragma omp parallel num_threads(threads)
    {
        void *scratch = cpu_scratch(ctx);
        if (p->amx)
            block_amx_begin();
#pragma omp for schedule(static)
        for (int64_t s = 0; s < steps; s++) {
            int i = 0;
            while (step[i + 1] <= s)
                i++;
            pack_step(&g, i, (int)s);
        }
#pragma omp for schedule(dynamic) nowait
        for (int task = 0; task < tiles_n * tiles_k; task++) {
            int n0 = task / tiles_k * g.tile_n, k0 = task % tiles_k * g.tile_k;
            gradient_tile(&g, n0, n0 + g.tile_n < panels_n ? n0 + g.tile_n : panels_n, k0,
                          k0 + g.tile_k < panels_k ? k0 + g.tile_k : panels_k, scratch);
        }
        if (bias_offset >= 0) {
#pragma omp for schedule(dynamic)
            for (int n = 0; n < panels_n; n++)
                gradient_bias(&g, n);
        }
        if (p->amx)
            block_amx_end();
    }
    return STATUS_OK;
}

const struct products_table products_bf16 = {
    .open = products_open,
    .close = products_close,
    .memory_bytes = memory_bytes,
    .weights_changed = products_weights_changed,
    .linear = products_linear,
    .linear_backward_data = products_linear_backward_data,
    .linear_backward_weight = products_linear_backward_weight,
};
#endif
