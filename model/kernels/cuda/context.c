/*
 * context.c - the CUDA backend's context: its memory, the pass on the device, graphs, the table.
 *
 * Memory. One block of device memory and one of pinned host memory, cut up by lay_out(), which is
 * run without a base to count the bytes: memory_bytes() is exact.
 *
 * The pass. The arrays of a pass are put together in pinned memory as one image and copied on the
 * copy stream, beside the kernels of the pass before, into one of two slots of device memory; a
 * copy on the compute stream then brings the image to its fixed place, where all kernels read it.
 * (The fixed place is what a recorded graph refers to, and the compute stream is what orders its
 * overwriting behind the last pass's kernels; the second copy takes a few microseconds.) Two slots:
 * the host may be two passes ahead of the device, no more. The cut of a backward pass goes the same
 * way. Where an array lies in its image depends on the shapes of the pass, which the keys of graphs
 * hold.
 *
 * Graphs. A stretch is run as it is when its key is first seen, which also lets libraries make up
 * their minds about the shapes; the second time it is recorded, afterwards replayed. To the
 * caller's key comes everything that launches read on the host: the shapes of the pass and, in
 * backward, where the pieces' sums go.
 */
#include <math.h>
#include <string.h>

#include "base/cuda_library.h"
#include "base/hash.h"
#include "base/mem.h"
#include "model/kernels/cuda/cuda.h"

enum { SLOTS = 2, ALIGN = 256, IMAGE_ALIGN = 64 };

struct image {
    unsigned char *host[SLOTS], *slot[SLOTS], *place; /* pinned, device, device */
    size_t capacity;
    cudaEvent_t copied[SLOTS]; /* host -> slot is done */
    cudaEvent_t taken[SLOTS];  /* slot -> place is done */
    int at;                    /* slot of the image that is being made */
    size_t used;
};

struct graph {
    uint64_t key, last_use;
    cudaGraphExec_t exec; /* NULL: seen, not recorded */
};

struct pass_store {
    cudaStream_t copy;
    struct image pass, cut;
    void *device_block, *host_block;
    const int32_t *ids_host; /* of the pass, in its slot */
    int64_t lines;           /* most lines of a pass */
    bool in_backward;        /* backward_begins was called in this pass */
    uint64_t pass_shape, cut_shape;
    int32_t *sort_scratch; /* (lines) */

    struct graph graphs[MOST_GRAPHS];
    int graph_count;
    struct graph *recording;
    bool failed; /* something inside the recorded stretch failed */
    uint64_t clock;
    int64_t replayed, all;
};

/* launched() has no context: the thread remembers that it failed. */
static _Thread_local bool launch_failed;

enum status launched(const char *what)
{
    enum status st = cuda_status(cudaGetLastError(), what);
    launch_failed = launch_failed || st != STATUS_OK;
    return st;
}

enum status ctx_failed(const struct kernel_ctx *ctx, enum status st)
{
    ctx->store->failed = true;
    return st;
}

bool ctx_recording(const struct kernel_ctx *ctx)
{
    return ctx->store->recording != NULL;
}

/* ---- memory */

/* Where everything lies; pointers are NULL + offset when the bases are NULL. */
struct layout {
    size_t device, pinned; /* bytes */
};

static void *carve(unsigned char *base, size_t *used, size_t bytes)
{
    void *at = base == NULL ? NULL : base + *used;
    *used = (size_t)round_up((int64_t)(*used + bytes), ALIGN);
    return at;
}

static size_t image_bytes(size_t n, size_t size)
{
    return (size_t)round_up((int64_t)(n * size), IMAGE_ALIGN);
}

static size_t pass_image_bytes(const struct kernel_opts *o)
{
    const size_t lines = (size_t)round_up(o->max_tokens, LINE_MULTIPLE), rows = (size_t)o->max_rows;
    const size_t firsts = (size_t)round_up(o->max_rows, LINE_MULTIPLE);
    return image_bytes(1, sizeof(struct pass_header)) + 2 * image_bytes(rows + 1, 4) +
           3 * image_bytes(lines, 4) + image_bytes(firsts, 4) + image_bytes(rows, 8) +
           image_bytes(rows, 4);
}

static size_t cut_image_bytes(const struct kernel_opts *o)
{
    const size_t lines = (size_t)round_up(o->max_tokens, LINE_MULTIPLE);
    if (!o->training)
        return 0;
    return 4 * image_bytes(MOST_PIECES + 1, 4) + 2 * image_bytes(MOST_PIECES, 4) +
           2 * image_bytes(MOST_MERGES, 4) + image_bytes(MOST_BUFFERS, sizeof(float *)) +
           image_bytes(lines, 4) + image_bytes(lines + 1, 4);
}

static void lay_out_image(struct image *image, size_t bytes, unsigned char *device,
                          unsigned char *pinned, struct layout *used)
{
    image->capacity = bytes;
    for (int i = 0; i < SLOTS; i++) {
        image->host[i] = carve(pinned, &used->pinned, bytes);
        image->slot[i] = carve(device, &used->device, bytes);
    }
    image->place = carve(device, &used->device, bytes);
}

/* The range of weights that matrices (and, where the options say how far, biases) lie in. */
static void weight_range(const struct kernel_opts *o, int64_t *begin, int64_t *end)
{
    *begin = o->count > 0 ? INT64_MAX : 0;
    *end = o->weight_count;
    for (int i = 0; i < o->count; i++) {
        const struct matrix *m = &o->matrices[i];
        const int64_t last = m->offset + (int64_t)m->n * m->k;
        *begin = m->offset < *begin ? m->offset : *begin;
        *end = last > *end ? last : *end;
    }
    *begin = *begin / LINE_MULTIPLE *
             LINE_MULTIPLE; /* so that the copy is aligned like its source */
    if (*end < *begin)
        *end = *begin;
}

static int64_t scratch_floats(const struct kernel_opts *o)
{
    const int64_t each[] = {cuda_attention_scratch_floats(o),
                            cuda_attention_relative_scratch_floats(o), cuda_norm_scratch_floats(o)};
    int64_t most = 0;
    for (size_t i = 0; o->training && i < sizeof each / sizeof each[0]; i++)
        most = each[i] > most ? each[i] : most;
    return most;
}

/* Cut the blocks up; with NULL blocks only *used is right. */
static void lay_out(struct kernel_ctx *ctx, unsigned char *device, unsigned char *pinned,
                    struct layout *used)
{
    const struct kernel_opts *o = &ctx->opts;
    struct step_store *step = ctx->step;
    *used = (struct layout){0};
    ctx->weights16 = NULL;
    weight_range(o, &ctx->weight_begin, &ctx->weight_end);
    if (act_bytes(o->precision) == 2)
        ctx->weights16 =
            carve(device, &used->device, (size_t)(ctx->weight_end - ctx->weight_begin) * 2);
    lay_out_image(&ctx->store->pass, pass_image_bytes(o), device, pinned, used);
    lay_out_image(&ctx->store->cut, cut_image_bytes(o), device, pinned, used);
    if (o->distances.span > 0) {
        const size_t distances = (size_t)(2 * o->distances.reach + 1) * 4,
                     lines = (size_t)(2 * o->distances.span + 1) * 4;
        ctx->distances.line = carve(device, &used->device, distances);
        ctx->distances.distance = carve(device, &used->device, distances);
        ctx->distances.line_begin = carve(device, &used->device, lines);
    }
    ctx->scratch_floats = scratch_floats(o);
    ctx->scratch = carve(device, &used->device, (size_t)ctx->scratch_floats * sizeof(float));
    if (!o->training)
        return;
    for (int i = 0; i < SLOTS; i++)
        step->host[i] = carve(pinned, &used->pinned, MOST_SEGMENTS * sizeof *step->segments);
    step->segments = carve(device, &used->device, MOST_SEGMENTS * sizeof *step->segments);
    step->sums_host = carve(pinned, &used->pinned, MOST_SUMS * sizeof(double));
    step->sums = carve(device, &used->device, MOST_SUMS * sizeof(double));
}

static int64_t cuda_memory_bytes(const struct kernel_opts *opts)
{
    struct pass_store store = {0};
    struct step_store step = {0};
    struct kernel_ctx ctx = {.opts = *opts, .store = &store, .step = &step};
    struct layout used;
    lay_out(&ctx, NULL, NULL, &used);
    return (int64_t)used.device + products_bytes(opts) + cuda_rows_bytes(opts);
}

/* ---- life */

static enum status cuda_supports(enum precision precision)
{
    (void)precision; /* the device's capability, 80 or more, has all four */
    return cuda_library_open(CUDA_LIBRARY_CUBLASLT);
}

static enum status image_events(struct image *image)
{
    for (int i = 0; i < SLOTS; i++) {
        TRY(cuda_status(cudaEventCreateWithFlags(&image->copied[i], cudaEventDisableTiming),
                        "create an event"));
        TRY(cuda_status(cudaEventCreateWithFlags(&image->taken[i], cudaEventDisableTiming),
                        "create an event"));
    }
    return STATUS_OK;
}

static void event_close(cudaEvent_t event)
{
    if (event != NULL)
        (void)cudaEventDestroy(event);
}

static void store_close(struct kernel_ctx *ctx)
{
    struct pass_store *s = ctx->store;
    if (s == NULL)
        return;
    for (int i = 0; i < s->graph_count; i++)
        if (s->graphs[i].exec != NULL)
            (void)cudaGraphExecDestroy(s->graphs[i].exec);
    for (int i = 0; i < SLOTS; i++) {
        event_close(s->pass.copied[i]);
        event_close(s->pass.taken[i]);
        event_close(s->cut.copied[i]);
        event_close(s->cut.taken[i]);
        if (ctx->step != NULL)
            event_close(ctx->step->copied[i]);
    }
    if (s->device_block != NULL)
        device_free(ctx->opts.device, s->device_block);
    if (s->host_block != NULL)
        device_cuda_host_free(ctx->opts.device, s->host_block);
    mem_free(s->sort_scratch);
}

static void cut_close(struct grad_cut *c)
{
    void *arrays[] = {(void *)(uintptr_t)c->token,       (void *)(uintptr_t)c->row,
                      (void *)(uintptr_t)c->to,          (void *)(uintptr_t)c->add,
                      (void *)(uintptr_t)c->merge_begin, (void *)(uintptr_t)c->merge_to,
                      (void *)(uintptr_t)c->merge_from,  (void *)(uintptr_t)c->buffer};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        mem_free(arrays[i]);
}

static void cuda_close(struct kernel_ctx *ctx)
{
    if (ctx == NULL)
        return;
    /* Queued kernels may still use what is freed here; what they did wrong was told elsewhere. */
    enum status st = ctx->opts.device != NULL ? device_finish(ctx->opts.device) : STATUS_OK;
    (void)st;
    cuda_rows_close(ctx);
    products_close(ctx, ctx->products);
    store_close(ctx);
    cut_close(&ctx->host_cut);
    mem_free(ctx->store);
    mem_free(ctx->step);
    mem_free((void *)(uintptr_t)ctx->opts.matrices);
    mem_free(ctx);
}

static enum status open_cut(struct grad_cut *c)
{
    TRY(mem_alloc(MOST_PIECES + 1, sizeof *c->token, "the cut's tokens", &c->token));
    TRY(mem_alloc(MOST_PIECES + 1, sizeof *c->row, "the cut's rows", &c->row));
    TRY(mem_alloc(MOST_PIECES, sizeof *c->to, "the cut's buffers", &c->to));
    TRY(mem_alloc(MOST_PIECES, sizeof *c->add, "the cut's buffers", &c->add));
    TRY(mem_alloc(MOST_PIECES + 1, sizeof *c->merge_begin, "the cut's merges", &c->merge_begin));
    TRY(mem_alloc(MOST_MERGES, sizeof *c->merge_to, "the cut's merges", &c->merge_to));
    TRY(mem_alloc(MOST_MERGES, sizeof *c->merge_from, "the cut's merges", &c->merge_from));
    return mem_alloc(MOST_BUFFERS, sizeof *c->buffer, "the cut's buffers", &c->buffer);
}

/* Each distance's line, and each line's distances, to the device. */
static enum status put_distances(struct kernel_ctx *ctx)
{
    const struct distances *d = &ctx->opts.distances;
    const int count = 2 * d->reach + 1, lines = 2 * d->span;
    enum status st = STATUS_OK;
    int32_t *begin, *distance;
    if (d->span == 0)
        return STATUS_OK;
    for (int i = 0; i < count; i++)
        if (d->line[i] < 0 || d->line[i] >= lines)
            return status_fail(STATUS_ARG, "distance %d has line %d of a table of %d", i - d->reach,
                               (int)d->line[i], lines);
    TRY(mem_alloc((size_t)(lines + 2 + count), sizeof *begin, "distances of lines", &begin));
    distance = begin + lines + 2;
    for (int i = 0; i < count; i++) /* counts, then ends, of which each becomes the next's begin */
        begin[d->line[i] + 2]++;
    for (int l = 2; l < lines + 2; l++)
        begin[l] += begin[l - 1];
    for (int i = 0; i < count; i++)
        distance[begin[d->line[i] + 1]++] = i - d->reach;
    const struct {
        const int32_t *to, *from;
        int n;
    } copies[] = {{ctx->distances.line, d->line, count},
                  {ctx->distances.line_begin, begin, lines + 1},
                  {ctx->distances.distance, distance, count}};
    for (size_t i = 0; st == STATUS_OK && i < sizeof copies / sizeof copies[0]; i++)
        st = device_put(ctx->opts.device, (void *)(uintptr_t)copies[i].to, copies[i].from,
                        (size_t)copies[i].n * sizeof *copies[i].to);
    mem_free(begin);
    return st;
}

static enum status open_store(struct kernel_ctx *ctx)
{
    struct pass_store *s = ctx->store;
    struct layout used;
    const size_t lines = (size_t)round_up(ctx->opts.max_tokens, LINE_MULTIPLE);
    s->copy = device_cuda_stream(ctx->opts.device, STREAM_COPY);
    s->lines = (int64_t)lines;
    lay_out(ctx, NULL, NULL, &used);
    TRY(device_alloc(ctx->opts.device, used.device, "the kernels' own memory", &s->device_block));
    TRY(device_cuda_host_alloc(ctx->opts.device, used.pinned, "the kernels' pinned memory",
                               &s->host_block));
    lay_out(ctx, s->device_block, s->host_block, &used);
    /* New memory is zeroed in the order of the compute stream, which the copy stream does not know.
     */
    TRY(put_distances(ctx));
    TRY(device_finish(ctx->opts.device));
    TRY(image_events(&s->pass));
    if (!ctx->opts.training)
        return STATUS_OK;
    TRY(image_events(&s->cut));
    for (int i = 0; i < SLOTS; i++)
        TRY(cuda_status(cudaEventCreateWithFlags(&ctx->step->copied[i], cudaEventDisableTiming),
                        "create an event"));
    TRY(mem_alloc(lines, sizeof *s->sort_scratch, "the order of tokens", &s->sort_scratch));
    return open_cut(&ctx->host_cut);
}

static enum status cuda_open(const struct kernel_opts *opts, struct kernel_ctx **out)
{
    enum status st;
    struct kernel_ctx *ctx = NULL;
    *out = NULL;
    if (opts->device == NULL || device_kind(opts->device) != DEVICE_CUDA)
        return status_fail(STATUS_ARG, "the CUDA kernels need a GPU as their device");
    if (opts->max_tokens < 0 || opts->max_rows < 0 ||
        opts->max_tokens > INT32_MAX - LINE_MULTIPLE || opts->max_rows > INT32_MAX - LINE_MULTIPLE)
        return status_fail(STATUS_ARG, "kernels for %lld tokens in %d rows",
                           (long long)opts->max_tokens, opts->max_rows);
    TRY(cuda_supports(opts->precision));
    TRY(mem_alloc(1, sizeof *ctx, "a kernel context", &ctx));
    ctx->opts = *opts;
    ctx->opts.matrices = NULL;
    ctx->stream = device_cuda_stream(opts->device, STREAM_COMPUTE);
    TRY_GOTO(fail, mem_alloc(1, sizeof *ctx->store, "the pass's state", &ctx->store));
    TRY_GOTO(fail, mem_alloc(1, sizeof *ctx->step, "the optimizer's state", &ctx->step));
    TRY_GOTO(fail, mem_alloc((size_t)opts->count, sizeof *opts->matrices, "the list of matrices",
                             &ctx->opts.matrices));
    if (opts->count > 0)
        memcpy((void *)(uintptr_t)ctx->opts.matrices, opts->matrices,
               (size_t)opts->count * sizeof *opts->matrices);
    TRY_GOTO(fail, open_store(ctx));
    TRY_GOTO(fail, products_open(ctx, &ctx->products));
    TRY_GOTO(fail, cuda_rows_open(ctx));
    *out = ctx;
    return STATUS_OK;
fail:
    cuda_close(ctx);
    return st;
}

static enum status cuda_weights_changed(struct kernel_ctx *ctx, const float *weights)
{
    ctx->weights = weights;
    return ctx->weights16 == NULL ? STATUS_OK : cuda_cast_weights(ctx, weights);
}

/* ---- the pass */

/* Wait until the next slot of pinned memory may be written. */
static enum status image_begins(struct image *image)
{
    image->at = (image->at + 1) % SLOTS;
    image->used = 0;
    return cuda_status(cudaEventSynchronize(image->copied[image->at]), "copy a pass to the device");
}

/* The next n elements: where the host writes them; *device: where kernels find them. */
static void *image_take(struct image *image, size_t n, size_t size, void *device)
{
    unsigned char *at = image->host[image->at] + image->used;
    void *place = image->place + image->used;
    memcpy(device, &place, sizeof place);
    image->used += image_bytes(n, size);
    return at;
}

static void image_put(struct image *image, size_t n, size_t size, const void *from, void *device)
{
    void *at = image_take(image, n, size, device);
    if (n > 0)
        memcpy(at, from, n * size);
}

static enum status image_send(const struct kernel_ctx *ctx, struct image *image)
{
    static const char what[] = "copy a pass to the device";
    const int i = image->at;
    const cudaStream_t copy = ctx->store->copy;
    TRY(cuda_status(cudaStreamWaitEvent(copy, image->taken[i], 0), what));
    TRY(cuda_status(
        cudaMemcpyAsync(image->slot[i], image->host[i], image->used, cudaMemcpyHostToDevice, copy),
        what));
    TRY(cuda_status(cudaEventRecord(image->copied[i], copy), what));
    TRY(cuda_status(cudaStreamWaitEvent(ctx->stream, image->copied[i], 0), what));
    TRY(cuda_status(cudaMemcpyAsync(image->place, image->slot[i], image->used,
                                    cudaMemcpyDeviceToDevice, ctx->stream),
                    what));
    return cuda_status(cudaEventRecord(image->taken[i], ctx->stream), what);
}

static enum status check_rows(const struct rows *rows, int64_t most_lines, int most_rows,
                              const char *what)
{
    if (rows->count < 0 || rows->count > most_rows || rows->begin[0] != 0 ||
        rows->tokens < rows->begin[rows->count] || rows->tokens > most_lines)
        return status_fail(STATUS_ARG,
                           "%s: %d rows from line %d to %d, %lld lines; wanted at most %d rows, "
                           "%lld lines",
                           what, rows->count, (int)rows->begin[0],
                           rows->count < 0 ? 0 : (int)rows->begin[rows->count],
                           (long long)rows->tokens, most_rows, (long long)most_lines);
    for (int b = 0; b < rows->count; b++)
        if (rows->begin[b + 1] < rows->begin[b])
            return status_fail(STATUS_ARG, "%s: row %d ends before it begins", what, b);
    return STATUS_OK;
}

static void put_rows(struct image *image, const struct rows *rows, struct rows_device *out)
{
    int32_t *row_of;
    *out = (struct rows_device){
        .lines = (int)rows->tokens,
        .count = rows->count,
        .longest = rows->longest > 1 ? (int)round_up(rows->longest, LINE_MULTIPLE) : rows->longest};
    image_put(image, (size_t)rows->count + 1, sizeof *rows->begin, rows->begin, &out->begin);
    row_of = image_take(image, (size_t)rows->tokens, sizeof *row_of, &out->row_of);
    for (int b = 0; b < rows->count; b++)
        for (int32_t t = rows->begin[b]; t < rows->begin[b + 1]; t++)
            row_of[t] = b;
    for (int64_t t = rows->begin[rows->count]; t < rows->tokens; t++)
        row_of[t] = -1;
}

/* ids or types with zeros for filler. */
static const int32_t *put_lines(struct image *image, const struct rows *rows, const int32_t *from,
                                const int32_t **device)
{
    const size_t tokens = (size_t)rows->begin[rows->count];
    int32_t *at = image_take(image, (size_t)rows->tokens, sizeof *at, device);
    if (tokens > 0)
        memcpy(at, from, tokens * sizeof *at);
    memset(at + tokens, 0, ((size_t)rows->tokens - tokens) * sizeof *at);
    return at;
}

static uint64_t hash_of_rows(uint64_t hash, const struct rows_device *rows)
{
    const int shape[3] = {rows->lines, rows->count, rows->longest};
    return hash_combine(hash, hash_bytes(shape, sizeof shape));
}

static enum status cuda_pass_begins(struct kernel_ctx *ctx, const struct pass_arrays *pass)
{
    struct pass_store *s = ctx->store;
    struct image *image = &s->pass;
    const size_t rows = (size_t)pass->rows->count;
    int32_t *chunk;
    ctx->rows_key = ctx->firsts_key = NULL; /* no entry runs if this fails */
    TRY(check_rows(pass->rows, s->lines, ctx->opts.max_rows, "a pass"));
    TRY(check_rows(pass->firsts, round_up(ctx->opts.max_rows, LINE_MULTIPLE), ctx->opts.max_rows,
                   "a pass's first tokens"));
    if (pass->firsts->count != pass->rows->count)
        return status_fail(STATUS_ARG, "a pass of %d rows with first tokens of %d",
                           pass->rows->count, pass->firsts->count);
    TRY(image_begins(image));

    const struct pass_header header = {
        .step = pass->step, .tokens = pass->rows->begin[rows], .rows = pass->rows->count};
    image_put(image, 1, sizeof header, &header, &ctx->header);
    put_rows(image, pass->rows, &ctx->rows);
    put_rows(image, pass->firsts, &ctx->firsts);
    image_put(image, rows, sizeof *pass->row, pass->row, &ctx->row);
    chunk = image_take(image, rows, sizeof *chunk, &ctx->chunk);
    for (size_t b = 0; b < rows; b++)
        chunk[b] = pass->chunk != NULL ? pass->chunk[b] : 0;
    s->ids_host = put_lines(image, pass->rows, pass->ids, &ctx->ids);
    ctx->types = NULL;
    if (pass->types != NULL)
        (void)put_lines(image, pass->rows, pass->types, &ctx->types);
    TRY(image_send(ctx, image));

    s->in_backward = false;
    s->pass_shape = hash_of_rows(hash_of_rows(pass->types != NULL, &ctx->rows), &ctx->firsts);
    ctx->rows_key = pass->rows->begin;
    ctx->firsts_key = pass->firsts->begin;
    return STATUS_OK;
}

enum status ctx_rows(const struct kernel_ctx *ctx, const struct rows *rows, struct rows_device *out)
{
    *out = (struct rows_device){0};
    if (ctx->rows_key != NULL && rows->begin == ctx->rows_key)
        *out = ctx->rows;
    else if (ctx->firsts_key != NULL && rows->begin == ctx->firsts_key)
        *out = ctx->firsts;
    else
        return ctx_failed(ctx, status_fail(STATUS_ARG, "rows that pass_begins was not told of"));
    if (rows->tokens != out->lines || rows->count != out->count)
        return ctx_failed(
            ctx, status_fail(STATUS_ARG, "%d rows in %lld lines, pass_begins was told of %d in %d",
                             rows->count, (long long)rows->tokens, out->count, out->lines));
    return STATUS_OK;
}

struct dropout_device ctx_dropout(const struct kernel_ctx *ctx, const struct dropout *dropout)
{
    struct dropout_device d = {.header = ctx->header, .row = ctx->row, .chunk = ctx->chunk};
    if (dropout == NULL || !(dropout->p > 0.0f))
        return d;
    d.seed = dropout->seed;
    d.threshold = (uint32_t)rint((double)dropout->p * 65536.0);
    d.code = (uint32_t)(dropout->layer * 16 + dropout->site);
    d.scale = (float)(65536.0 / (65536.0 - (double)d.threshold));
    return d;
}

/* ---- the cut */

static enum status check_cut(const struct kernel_ctx *ctx, const struct grad_cut *cut, int *buffers)
{
    *buffers = 0;
    if (cut->pieces < 0 || cut->pieces > MOST_PIECES)
        return status_fail(STATUS_ARG, "%d pieces of a gradient sum, wanted 0 to %d", cut->pieces,
                           MOST_PIECES);
    if (cut->pieces == 0)
        return STATUS_OK;
    const int merges = cut->merge_begin[cut->pieces], first = cut->merge_begin[0];
    if (first < 0 || merges < first || merges - first > MOST_MERGES)
        return status_fail(STATUS_ARG, "merges %d to %d of gradient sums, wanted at most %d", first,
                           merges, MOST_MERGES);
    if (cut->token[0] < 0 || cut->token[cut->pieces] > ctx->rows.lines || cut->row[0] < 0 ||
        cut->row[cut->pieces] > ctx->rows.count)
        return status_fail(STATUS_ARG, "pieces up to token %d and row %d, the pass has %d and %d",
                           (int)cut->token[cut->pieces], (int)cut->row[cut->pieces],
                           ctx->rows.lines, ctx->rows.count);
    for (int i = 0; i < cut->pieces; i++) {
        if (cut->token[i + 1] < cut->token[i] || cut->row[i + 1] < cut->row[i] ||
            cut->merge_begin[i + 1] < cut->merge_begin[i] || cut->to[i] < 0)
            return status_fail(STATUS_ARG, "piece %d of a gradient sum ends before it begins", i);
        *buffers = cut->to[i] >= *buffers ? cut->to[i] + 1 : *buffers;
    }
    for (int j = first; j < merges; j++) {
        const int32_t to = cut->merge_to[j], from = cut->merge_from[j];
        if (to < 0 || from < 0)
            return status_fail(STATUS_ARG, "merge %d of gradient sums is of buffer %d into %d", j,
                               (int)from, (int)to);
        *buffers = to >= *buffers ? to + 1 : *buffers;
        *buffers = from >= *buffers ? from + 1 : *buffers;
    }
    if (*buffers > MOST_BUFFERS)
        return status_fail(STATUS_ARG, "%d gradient buffers, wanted at most %d", *buffers,
                           MOST_BUFFERS);
    return STATUS_OK;
}

static void keep(const void *kept, const void *from, size_t n, size_t size)
{
    if (n > 0)
        memcpy((void *)(uintptr_t)kept, from, n * size);
}

/* Copies for entries that loop over pieces on the host; merges counted from 0. */
static void keep_cut(struct grad_cut *to, const struct grad_cut *from, int buffers)
{
    const size_t pieces = from->pieces > 0 ? (size_t)from->pieces : 0;
    const int first = from->merge_begin[0];
    const size_t merges = (size_t)(from->merge_begin[pieces] - first);
    to->pieces = from->pieces;
    keep(to->token, from->token, pieces + 1, sizeof *to->token);
    keep(to->row, from->row, pieces + 1, sizeof *to->row);
    keep(to->to, from->to, pieces, sizeof *to->to);
    keep(to->add, from->add, pieces, sizeof *to->add);
    for (size_t i = 0; i <= pieces; i++)
        ((int32_t *)(uintptr_t)to->merge_begin)[i] = from->merge_begin[i] - first;
    if (merges > 0) {
        keep(to->merge_to, from->merge_to + first, merges, sizeof *to->merge_to);
        keep(to->merge_from, from->merge_from + first, merges, sizeof *to->merge_from);
    }
    keep(to->buffer, from->buffer, (size_t)buffers, sizeof *to->buffer);
}

/* Everything about the cut that launches or places in the image depend on. */
static uint64_t hash_of_cut(const struct kernel_ctx *ctx, int buffers)
{
    const struct grad_cut *c = &ctx->host_cut;
    const size_t pieces = (size_t)c->pieces, merges = (size_t)c->merge_begin[pieces];
    uint64_t hash = hash_combine(pieces, merges);
    hash = hash_combine(hash, hash_bytes(c->to, pieces * sizeof *c->to));
    hash = hash_combine(hash, hash_bytes(c->add, pieces * sizeof *c->add));
    hash = hash_combine(hash, hash_bytes(c->merge_begin, (pieces + 1) * sizeof *c->merge_begin));
    hash = hash_combine(hash, hash_bytes(c->merge_to, merges * sizeof *c->merge_to));
    hash = hash_combine(hash, hash_bytes(c->merge_from, merges * sizeof *c->merge_from));
    hash = hash_combine(hash, hash_bytes(c->buffer, (size_t)buffers * sizeof *c->buffer));
    if (pieces > 1 || ctx->opts.exact_pieces) { /* else products sum over all lines, with filler */
        hash = hash_combine(hash, hash_bytes(c->token, (pieces + 1) * sizeof *c->token));
        hash = hash_combine(hash, hash_bytes(c->row, (pieces + 1) * sizeof *c->row));
    }
    return hash;
}

static void put_cut(struct kernel_ctx *ctx, struct image *image, int buffers)
{
    const struct grad_cut *c = &ctx->host_cut;
    struct cut_device *d = &ctx->cut;
    const size_t pieces = (size_t)c->pieces, merges = (size_t)c->merge_begin[pieces],
                 lines = (size_t)ctx->rows.lines;
    int32_t *add, *order, *segment, *segment_begin;
    *d = (struct cut_device){.pieces = c->pieces, .merges = (int)merges};
    image_put(image, pieces + 1, sizeof *c->token, c->token, &d->token);
    image_put(image, pieces + 1, sizeof *c->row, c->row, &d->row);
    image_put(image, pieces, sizeof *c->to, c->to, &d->to);
    add = image_take(image, pieces, sizeof *add, &d->add);
    for (size_t i = 0; i < pieces; i++)
        add[i] = c->add[i];
    image_put(image, pieces + 1, sizeof *c->merge_begin, c->merge_begin, &d->merge_begin);
    image_put(image, merges, sizeof *c->merge_to, c->merge_to, &d->merge_to);
    image_put(image, merges, sizeof *c->merge_from, c->merge_from, &d->merge_from);
    image_put(image, (size_t)buffers, sizeof *c->buffer, c->buffer, &d->buffer);
    order = image_take(image, lines, sizeof *order, &d->order);
    segment = image_take(image, lines + 1, sizeof *segment, &d->segment);
    segment_begin = image_take(image, pieces + 1, sizeof *segment_begin, &d->segment_begin);
    (void)embed_sort(ctx->store->ids_host, c->token, c->pieces, order, segment, segment_begin,
                     ctx->store->sort_scratch);
}

static enum status cuda_backward_begins(struct kernel_ctx *ctx, const struct grad_cut *cut)
{
    struct pass_store *s = ctx->store;
    int buffers;
    if (!ctx->opts.training || ctx->rows_key == NULL)
        return status_fail(STATUS_ARG, ctx->opts.training
                                           ? "backward before a pass has begun"
                                           : "backward of kernels opened without training");
    TRY(check_cut(ctx, cut, &buffers));
    s->in_backward = true;
    ctx->cut = (struct cut_device){0};
    ctx->host_cut.pieces = 0;
    s->cut_shape = 0;
    if (cut->pieces == 0)
        return STATUS_OK;
    keep_cut(&ctx->host_cut, cut, buffers);
    TRY(image_begins(&s->cut));
    put_cut(ctx, &s->cut, buffers);
    TRY(image_send(ctx, &s->cut));
    s->cut_shape = hash_of_cut(ctx, buffers);
    return STATUS_OK;
}

/* ---- graphs */

static struct graph *graph_find(struct pass_store *s, uint64_t key)
{
    for (int i = 0; i < s->graph_count; i++)
        if (s->graphs[i].key == key)
            return &s->graphs[i];
    return NULL;
}

/* A free place, or that of the graph used longest ago. */
static struct graph *graph_place(struct pass_store *s)
{
    if (s->graph_count < MOST_GRAPHS)
        return &s->graphs[s->graph_count++];
    struct graph *oldest = &s->graphs[0];
    for (int i = 1; i < s->graph_count; i++)
        if (s->graphs[i].last_use < oldest->last_use)
            oldest = &s->graphs[i];
    if (oldest->exec != NULL)
        (void)cudaGraphExecDestroy(oldest->exec); /* a running launch keeps what it needs */
    return oldest;
}

static enum status cuda_graph_begins(struct kernel_ctx *ctx, uint64_t key, bool *replayed)
{
    struct pass_store *s = ctx->store;
    *replayed = false;
    if (s->recording != NULL)
        return status_fail(STATUS_ARG, "a recorded stretch inside of another");
    key = hash_combine(hash_combine(key, s->pass_shape), (uint64_t)(uintptr_t)ctx->weights);
    if (s->in_backward)
        key = hash_combine(key, s->cut_shape);
    s->all++;
    s->clock++;
    struct graph *g = graph_find(s, key);
    if (g == NULL) {
        *graph_place(s) = (struct graph){.key = key, .last_use = s->clock};
        return STATUS_OK;
    }
    g->last_use = s->clock;
    if (g->exec != NULL) {
        TRY(cuda_status(cudaGraphLaunch(g->exec, ctx->stream), "replay a recorded stretch"));
        s->replayed++;
        *replayed = true;
        return STATUS_OK;
    }
    TRY(cuda_status(cudaStreamBeginCapture(ctx->stream, cudaStreamCaptureModeThreadLocal),
                    "record a stretch"));
    s->recording = g;
    s->failed = launch_failed = false;
    return STATUS_OK;
}

static enum status cuda_graph_ends(struct kernel_ctx *ctx)
{
    struct pass_store *s = ctx->store;
    struct graph *g = s->recording;
    cudaGraph_t graph = NULL;
    if (g == NULL)
        return STATUS_OK;
    s->recording = NULL;
    enum status st =
        cuda_status(cudaStreamEndCapture(ctx->stream, &graph), "end the recording of a stretch");
    if (st == STATUS_OK && (s->failed || launch_failed))
        st = status_fail(STATUS_INTERNAL,
                         "a recorded stretch is incomplete, since a call in it failed");
    if (st == STATUS_OK)
        st = cuda_status(cudaGraphInstantiate(&g->exec, graph, 0), "make a graph of a stretch");
    if (st == STATUS_OK)
        st = cuda_status(cudaGraphLaunch(g->exec, ctx->stream), "launch a recorded stretch");
    if (graph != NULL)
        (void)cudaGraphDestroy(graph);
    return st;
}

static void cuda_graph_counts(const struct kernel_ctx *ctx, int64_t *replayed, int64_t *all)
{
    *replayed = ctx->store->replayed;
    *all = ctx->store->all;
}

const struct kernels *kernels_cuda(void)
{
    static const struct kernels table = {
        .name = "cuda",
        .line_multiple = LINE_MULTIPLE,
        .supports = cuda_supports,
        .memory_bytes = cuda_memory_bytes,
        .open = cuda_open,
        .close = cuda_close,
        .weights_changed = cuda_weights_changed,
        .pass_begins = cuda_pass_begins,
        .backward_begins = cuda_backward_begins,
        .graph_begins = cuda_graph_begins,
        .graph_ends = cuda_graph_ends,
        .graph_counts = cuda_graph_counts,
        .embed = cuda_embed,
        .embed_backward = cuda_embed_backward,
        .linear = cuda_linear,
        .linear_backward_data = cuda_linear_backward_data,
        .linear_backward_weight = cuda_linear_backward_weight,
        .attention = cuda_attention,
        .attention_backward = cuda_attention_backward,
        .table_norm = cuda_table_norm,
        .table_norm_backward = cuda_table_norm_backward,
        .table_dropout = cuda_table_dropout,
        .attention_relative = cuda_attention_relative,
        .attention_relative_backward = cuda_attention_relative_backward,
        .neighbours = cuda_neighbours,
        .neighbours_backward = cuda_neighbours_backward,
        .residual_norm = cuda_residual_norm,
        .residual_norm_backward = cuda_residual_norm_backward,
        .activate = cuda_activate,
        .activate_backward = cuda_activate_backward,
        .add = cuda_add,
        .tanh_forward = cuda_tanh_forward,
        .tanh_backward = cuda_tanh_backward,
        .dropout = cuda_dropout,
        .first_tokens = cuda_first_tokens,
        .first_tokens_backward = cuda_first_tokens_backward,
        .mean_pool = cuda_mean_pool,
        .mean_pool_backward = cuda_mean_pool_backward,
        .max_pool = cuda_max_pool,
        .max_pool_backward = cuda_max_pool_backward,
        .classify = cuda_classify,
        .classify_backward = cuda_classify_backward,
        .loss = cuda_loss,
        .adamw = cuda_adamw,
        .square_sums = cuda_square_sums,
    };
    return &table;
}
