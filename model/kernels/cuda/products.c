/*
 * products.c - matrix products through cuBLASLt.
 *
 * Row-major (M, K) is column-major (K, M), so with all matrices as cuBLASLt sees them:
 *   forward   y (n, M)  = W (k, n)^T x (k, M)      bias along n: the epilogue's
 *   data      dx (k, M) = W (k, n) dy (n, M)
 *   weight    dW (k, n) = x (k, T) dy (n, T)^T     in float whatever the activations are
 *
 * Plans. What a product is described with (operation, layouts, algorithm) is made when its shape is
 * first seen and kept; a call only puts the number of lines into the layouts. Asking the library
 * for an algorithm takes tens of microseconds, a call with a plan some three.
 *
 * Bits. Without opts.fastest the algorithm of forward and data is the library's first choice for
 * 4,096 lines, of those that take any number of lines and add up k in one go (no split-K): one
 * algorithm for every M, so a line's result depends on the line alone. Where a later M is refused
 * nothing else is tried, since any other algorithm could give the line other bits: that fails with
 * a sentence. The weight gradient's algorithm depends on the matrix and on the power of two above
 * the piece's extent; it may split the tokens where the parts are added up in float in a second
 * step, in order, which small matrices need to fill the device. Whether a piece is stored or added
 * is no part of the plan, so a piece has the same sum either way. Neither the workspace nor the
 * reference shapes depend on how much a context has room for, because ranks may differ in that.
 *
 * A piece that is alone in its cut takes all lines, filler included (dy is zero there), so that
 * shapes repeat from pass to pass. Its bits may then differ from those of the same piece among
 * others, which opts.exact_pieces forbids: see kernels.h.
 *
 * With opts.fastest the best of the library's first eight is taken, timed once for lines of a size
 * class, outside of recorded stretches.
 *
 * A piece's lines of a table (struct table_lines) are a second product that is added to the rows of
 * dW that they belong to, before the merges. It takes all lines that there are, since those behind
 * the piece's own are zero: so its shape, and with it the order of its sum, is the same for every
 * piece and pass. Where the piece is added to what was there, its two parts are, one after the
 * other; that is the case only where a piece was split over passes, which promises no bits.
 *
 * Bias gradients are column sums of our own kernel. cuBLASLt's epilogue for them only overwrites
 * and says nothing about the order of its sum, so pieces that are added could not use it.
 */
#include <string.h>

#include <cublasLt.h>

#include "base/cuda_library.h"
#include "base/mem.h"
#include "model/kernels/cuda/cuda.h"

enum kind { FORWARD, DATA, WEIGHT };
enum {
    REFERENCE_LINES = 4096,
    CANDIDATES = 32, /* asked for */
    TIMED = 8,       /* of them with opts.fastest */
    TIMED_RUNS = 3,
    CHECKED = 256,
    MOST_ALIGNMENT = 16 /* bytes: all that kernels ask for */
};

struct plan {
    enum kind kind;
    int n, k;
    int64_t size;  /* class of extents; 0: any */
    int bias;      /* alignment of the bias, bytes; 0: none */
    int alignment; /* of the parameter's matrix, bytes */
    int y_alignment; /* of lines of n, bytes */
    int64_t y_stride; /* elements from one to the next */
    bool timed;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
    int64_t checked[CHECKED]; /* extents that the library was asked about: see checked_at() */
};

struct library {
    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtGetStatusName) *status_name;
    __typeof__(cublasLtMatrixLayoutCreate) *layout_create;
    __typeof__(cublasLtMatrixLayoutDestroy) *layout_destroy;
    __typeof__(cublasLtMatrixLayoutSetAttribute) *layout_set;
    __typeof__(cublasLtMatmulDescCreate) *desc_create;
    __typeof__(cublasLtMatmulDescDestroy) *desc_destroy;
    __typeof__(cublasLtMatmulDescSetAttribute) *desc_set;
    __typeof__(cublasLtMatmulPreferenceCreate) *preference_create;
    __typeof__(cublasLtMatmulPreferenceDestroy) *preference_destroy;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *preference_set;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *heuristic;
    __typeof__(cublasLtMatmulAlgoCheck) *check;
    __typeof__(cublasLtMatmulAlgoConfigGetAttribute) *config_get;
    __typeof__(cublasLtMatmul) *matmul;
};

struct products {
    struct library lib;
    cublasLtHandle_t handle;
    void *workspace; /* device */
    size_t workspace_bytes;
    struct plan *plans;
    size_t count, capacity;
    cudaEvent_t start, stop; /* with opts.fastest */
};

/* ---- errors */

static const char *kind_name(enum kind kind)
{
    static const char *const name[] = {"product", "gradient of the input",
                                       "gradient of the weights"};
    return name[kind];
}

static const char *precision_name(enum precision precision)
{
    static const char *const name[] = {"fp32", "tf32", "bf16", "fp16"};
    return name[precision];
}

/* STATUS_OK, or a sentence with the library's code. */
static enum status lt_status(const struct kernel_ctx *ctx, cublasStatus_t code, const char *what)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return STATUS_OK;
    return ctx_failed(ctx,
                      status_fail(code == CUBLAS_STATUS_ALLOC_FAILED ? STATUS_NOMEM : STATUS_OS,
                                  "cuBLASLt: %s: %s", what, ctx->products->lib.status_name(code)));
}

static enum status with_shape(const struct kernel_ctx *ctx, const struct plan *p, int64_t extent,
                              enum status st)
{
    if (st == STATUS_OK)
        return st;
    return ctx_failed(ctx, status_prefix(st, "%s of %lld lines with a matrix of %d x %d in %s",
                                         kind_name(p->kind), (long long)extent, p->n, p->k,
                                         precision_name(ctx->opts.precision)));
}

/* ---- open and close */

/* Room for eight parts of a sum that is split, up to what NVIDIA recommends for an H100. An A100
 * gets as much: parts lie apart here, so the 4 MiB that are recommended there would leave a
 * gradient of 768 x 768 whole, and two thirds of the GPU without work. */
static size_t workspace_bytes(const struct kernel_opts *opts)
{
    const int64_t most = 32 << 20, least = 1 << 16;
    int64_t want = least;
    for (int i = 0; i < opts->count; i++) {
        const int64_t bytes = 8 * (int64_t)sizeof(float) * opts->matrices[i].n *
                              opts->matrices[i].k;
        want = bytes > want ? bytes : want;
    }
    return (size_t)round_up(want < most ? want : most, 256);
}

int64_t products_bytes(const struct kernel_opts *opts)
{
    return (int64_t)workspace_bytes(opts);
}

static enum status load(struct library *lib)
{
    const struct {
        const char *name;
        void *out;
    } functions[] = {
        {"cublasLtCreate", &lib->create},
        {"cublasLtDestroy", &lib->destroy},
        {"cublasLtGetStatusName", &lib->status_name},
        {"cublasLtMatrixLayoutCreate", &lib->layout_create},
        {"cublasLtMatrixLayoutDestroy", &lib->layout_destroy},
        {"cublasLtMatrixLayoutSetAttribute", &lib->layout_set},
        {"cublasLtMatmulDescCreate", &lib->desc_create},
        {"cublasLtMatmulDescDestroy", &lib->desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &lib->desc_set},
        {"cublasLtMatmulPreferenceCreate", &lib->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &lib->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &lib->preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", &lib->heuristic},
        {"cublasLtMatmulAlgoCheck", &lib->check},
        {"cublasLtMatmulAlgoConfigGetAttribute", &lib->config_get},
        {"cublasLtMatmul", &lib->matmul},
    };
    TRY(cuda_library_open(CUDA_LIBRARY_CUBLASLT));
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        TRY(cuda_library_function(CUDA_LIBRARY_CUBLASLT, functions[i].name, functions[i].out));
    return STATUS_OK;
}

enum status products_open(struct kernel_ctx *ctx, struct products **out)
{
    struct products *p;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *p, "the products' state", &p));
    *out = ctx->products = p;
    p->workspace_bytes = workspace_bytes(&ctx->opts);
    TRY(load(&p->lib));
    TRY(device_alloc(ctx->opts.device, p->workspace_bytes, "the products' workspace",
                     &p->workspace));
    TRY(lt_status(ctx, p->lib.create(&p->handle), "open the library"));
    if (!ctx->opts.fastest)
        return STATUS_OK;
    TRY(cuda_status(cudaEventCreateWithFlags(&p->start, cudaEventDefault), "create an event"));
    return cuda_status(cudaEventCreateWithFlags(&p->stop, cudaEventDefault), "create an event");
}

static void plan_release(const struct library *lib, struct plan *p)
{
    if (p->desc != NULL)
        (void)lib->desc_destroy(p->desc);
    if (p->a != NULL)
        (void)lib->layout_destroy(p->a);
    if (p->b != NULL)
        (void)lib->layout_destroy(p->b);
    if (p->d != NULL)
        (void)lib->layout_destroy(p->d);
}

void products_close(struct kernel_ctx *ctx, struct products *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->count; i++)
        plan_release(&p->lib, &p->plans[i]);
    if (p->handle != NULL)
        (void)p->lib.destroy(p->handle);
    if (p->workspace != NULL)
        device_free(ctx->opts.device, p->workspace);
    if (p->start != NULL)
        (void)cudaEventDestroy(p->start);
    if (p->stop != NULL)
        (void)cudaEventDestroy(p->stop);
    mem_free(p->plans);
    mem_free(p);
}

/* ---- plans */

/* A product that is asked for: operands as cuBLASLt names them. */
struct call {
    enum kind kind;
    int n, k;
    int64_t extent; /* lines */
    const void *a, *b;
    void *d;
    const void *bias; /* NULL: none */
    float beta;
    int alignment, y_alignment;
    int64_t y_stride;
};

/* Largest power of two that divides bytes, at most MOST_ALIGNMENT. */
static int alignment_of(int64_t bytes)
{
    int a = 1;
    while (a < MOST_ALIGNMENT && bytes % (2 * a) == 0)
        a *= 2;
    return a;
}

static int bias_alignment(const struct call *c)
{
    return c->bias == NULL ? 0 : alignment_of((int64_t)(uintptr_t)c->bias);
}

static int64_t power_above(int64_t extent)
{
    int64_t size = LINE_MULTIPLE;
    while (size < extent)
        size *= 2;
    return size;
}

/* The class of extents that share a plan. */
static int64_t size_class(const struct kernel_ctx *ctx, const struct call *c)
{
    if (!ctx->opts.fastest)
        return c->kind == WEIGHT ? power_above(c->extent) : 0;
    const int64_t step = power_above(c->extent) / 8; /* four to eight classes for each doubling */
    return round_up(c->extent, step);
}

/* Where a plan remembers an extent. Most are multiples of LINE_MULTIPLE, which have places of their
 * own up to CHECKED of them. */
static int64_t *checked_at(struct plan *p, int64_t extent)
{
    return &p->checked[(extent / LINE_MULTIPLE + extent % LINE_MULTIPLE) % CHECKED];
}

/* Put the number of lines into the layouts. */
static enum status set_extent(const struct kernel_ctx *ctx, const struct plan *p, int64_t extent)
{
    const struct library *lib = &ctx->products->lib;
    const uint64_t lines = (uint64_t)extent;
    cublasLtMatrixLayout_t one = p->b, other = p->kind == WEIGHT ? p->a : p->d;
    TRY(lt_status(ctx, lib->layout_set(one, CUBLASLT_MATRIX_LAYOUT_COLS, &lines, sizeof lines),
                  "describe a matrix"));
    return lt_status(ctx, lib->layout_set(other, CUBLASLT_MATRIX_LAYOUT_COLS, &lines, sizeof lines),
                     "describe a matrix");
}

static enum status set_bias(const struct kernel_ctx *ctx, const struct plan *p, const void *bias)
{
    if (p->bias == 0)
        return STATUS_OK;
    return lt_status(
        ctx,
        ctx->products->lib.desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
        "set a bias");
}

static enum status describe(const struct kernel_ctx *ctx, const struct call *c, struct plan *p)
{
    static const char what[] = "describe a product";
    const struct library *lib = &ctx->products->lib;
    const enum precision precision = ctx->opts.precision;
    const cudaDataType_t type = precision == PRECISION_BF16   ? CUDA_R_16BF
                                : precision == PRECISION_FP16 ? CUDA_R_16F
                                                              : CUDA_R_32F;
    const cublasComputeType_t compute = precision == PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                    : CUBLAS_COMPUTE_32F;
    const uint64_t n = (uint64_t)c->n, k = (uint64_t)c->k, lines = (uint64_t)c->extent;
    const cublasOperation_t op_a = c->kind == FORWARD ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_b = c->kind == WEIGHT ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t a = (int32_t)op_a, b = (int32_t)op_b;
    TRY(lt_status(ctx, lib->desc_create(&p->desc, compute, CUDA_R_32F), what));
    TRY(lt_status(ctx, lib->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a), what));
    TRY(lt_status(ctx, lib->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b), what));
    if (c->bias != NULL) { /* of the type of y */
        const uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        TRY(lt_status(
            ctx, lib->desc_set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
            what));
    }
    if (c->kind == WEIGHT) {
        TRY(lt_status(ctx, lib->layout_create(&p->a, type, k, lines, c->k), what));
        TRY(lt_status(ctx, lib->layout_create(&p->b, type, n, lines, c->y_stride), what));
        return lt_status(ctx, lib->layout_create(&p->d, CUDA_R_32F, k, n, c->k), what);
    }
    const uint64_t in = c->kind == FORWARD ? k : n, out = c->kind == FORWARD ? n : k;
    TRY(lt_status(ctx, lib->layout_create(&p->a, type, k, n, c->k), what));
    TRY(lt_status(ctx, lib->layout_create(&p->b, type, in, lines, (int64_t)in), what));
    return lt_status(ctx, lib->layout_create(&p->d, type, out, lines, (int64_t)out), what);
}

/* What algorithms may do: the reductions that a split sum may use, workspace, alignments. */
static enum status set_preference(const struct kernel_ctx *ctx, const struct plan *p,
                                  cublasLtMatmulPreference_t preference)
{
    static const char what[] = "say what algorithms may do";
    const struct products *products = ctx->products;
    const struct library *lib = &products->lib;
    const int64_t size = act_bytes(ctx->opts.precision);
    const int x = alignment_of(p->k * size), y = p->y_alignment;
    /* There is no preference for the bias, which kernels may load as they store D. */
    const int out = p->bias != 0 && p->bias < y ? p->bias : y;
    const uint64_t workspace = products->workspace_bytes;
    uint32_t reductions = p->kind == WEIGHT ? (uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                            : (uint32_t)CUBLASLT_REDUCTION_SCHEME_NONE;
    if (ctx->opts.fastest)
        reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t bytes;
    } alignments[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
         (uint32_t)(p->kind == WEIGHT ? x : p->alignment)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)(p->kind == FORWARD ? x : y)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)(p->kind == WEIGHT    ? p->alignment
                                                                : p->kind == FORWARD ? out
                                                                                     : x)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)(p->kind == WEIGHT    ? p->alignment
                                                                : p->kind == FORWARD ? out
                                                                                     : x)},
    };
    TRY(lt_status(ctx,
                  lib->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                      &workspace, sizeof workspace),
                  what));
    TRY(lt_status(ctx,
                  lib->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                      &reductions, sizeof reductions),
                  what));
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++)
        TRY(lt_status(ctx,
                      lib->preference_set(preference, alignments[i].name, &alignments[i].bytes,
                                          sizeof alignments[i].bytes),
                      what));
    return STATUS_OK;
}

/* The library's choices for `extent` lines, best first. It takes the alignment of the bias from the
 * pointer, without reading there: it is shown the least aligned address that the plan is for, so
 * that the choice does not depend on which of many biases comes first. */
static enum status candidates(const struct kernel_ctx *ctx, const struct plan *p, int64_t extent,
                              cublasLtMatmulHeuristicResult_t *found, int *count)
{
    const struct products *products = ctx->products;
    const struct library *lib = &products->lib;
    cublasLtMatmulPreference_t preference = NULL;
    *count = 0;
    TRY(lt_status(ctx, lib->preference_create(&preference), "say what algorithms may do"));
    enum status st = set_preference(ctx, p, preference);
    if (st == STATUS_OK)
        st = set_bias(ctx, p, (const void *)(uintptr_t)p->bias);
    if (st == STATUS_OK)
        st = set_extent(ctx, p, extent);
    if (st == STATUS_OK) {
        cublasStatus_t code = lib->heuristic(products->handle, p->desc, p->a, p->b, p->d, p->d,
                                             preference, CANDIDATES, found, count);
        if (code == CUBLAS_STATUS_NOT_SUPPORTED) /* said of none found */
            *count = 0;
        else
            st = lt_status(ctx, code, "choose an algorithm");
    }
    (void)lib->preference_destroy(preference);
    return st;
}

/* Whether the plan's algorithm takes this extent. The library is asked once for each. */
static enum status takes(const struct kernel_ctx *ctx, struct plan *p, int64_t extent, bool *yes)
{
    const struct products *products = ctx->products;
    cublasLtMatmulHeuristicResult_t result;
    memset(&result, 0, sizeof result);
    TRY(set_extent(ctx, p, extent));
    const cublasStatus_t code =
        products->lib.check(products->handle, p->desc, p->a, p->b, p->d, p->d, &p->algo, &result);
    *yes = code == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= products->workspace_bytes;
    if (*yes)
        *checked_at(p, extent) = extent;
    return STATUS_OK;
}

/* Whether an algorithm's sums are in one fixed order: no split, or (weight gradients) parts that a
 * second step adds up in float. The preferences say so already; bits are worth asking twice. */
static enum status ordered(const struct kernel_ctx *ctx, const struct plan *p,
                           const cublasLtMatmulAlgo_t *algo, bool *yes)
{
    const struct library *lib = &ctx->products->lib;
    int32_t parts = 0;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t written;
    TRY(lt_status(
        ctx, lib->config_get(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, &written),
        "ask how an algorithm sums"));
    TRY(lt_status(ctx,
                  lib->config_get(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                                  sizeof reduction, &written),
                  "ask how an algorithm sums"));
    *yes = (parts >= 0 && parts <= 1 && reduction == CUBLASLT_REDUCTION_SCHEME_NONE) ||
           (p->kind == WEIGHT && parts > 1 && reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    return STATUS_OK;
}

/* The first choice whose sums are ordered and that takes every extent of its class (a few are
 * tried). */
static enum status pin(const struct kernel_ctx *ctx, struct plan *p)
{
    static const int64_t any_lines[] = {1, 64, 1000, REFERENCE_LINES, 65536};
    const int64_t some_lines[] = {p->size > LINE_MULTIPLE ? p->size / 2 + 1 : 1, p->size - 1,
                                  p->size};
    const int64_t *probe = p->kind == WEIGHT ? some_lines : any_lines;
    const int probes = p->kind == WEIGHT ? 3 : 5;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count;
    TRY(candidates(ctx, p, p->kind == WEIGHT ? p->size : REFERENCE_LINES, found, &count));
    for (int i = 0; i < count; i++) {
        bool good = found[i].state == CUBLAS_STATUS_SUCCESS;
        if (good)
            TRY(ordered(ctx, p, &found[i].algo, &good));
        p->algo = found[i].algo;
        for (int j = 0; good && j < probes; j++)
            TRY(takes(ctx, p, probe[j], &good));
        if (good)
            return STATUS_OK;
    }
    return status_fail(STATUS_UNAVAILABLE,
                       "none of cuBLASLt's %d choices sums in a fixed order for every number of "
                       "lines; parallel.reproducible=off takes any",
                       count);
}

static enum status queue(const struct kernel_ctx *ctx, const struct plan *p, const struct call *c,
                         float beta, const cublasLtMatmulAlgo_t *algo)
{
    const struct products *products = ctx->products;
    const float one = 1.0f;
    TRY(set_bias(ctx, p, c->bias));
    return lt_status(ctx,
                     products->lib.matmul(products->handle, p->desc, &one, c->a, p->a, c->b, p->b,
                                          &beta, c->d, p->d, c->d, p->d, algo, products->workspace,
                                          products->workspace_bytes, ctx->stream),
                     "multiply");
}

static enum status time_one(const struct kernel_ctx *ctx, const struct plan *p,
                            const struct call *c, const cublasLtMatmulAlgo_t *algo, float *ms)
{
    const struct products *products = ctx->products;
    TRY(queue(ctx, p, c, 0.0f, algo)); /* loads the kernel */
    TRY(cuda_status(cudaEventRecord(products->start, ctx->stream), "time a product"));
    for (int i = 0; i < TIMED_RUNS; i++)
        TRY(queue(ctx, p, c, 0.0f, algo));
    TRY(cuda_status(cudaEventRecord(products->stop, ctx->stream), "time a product"));
    TRY(cuda_status(cudaEventSynchronize(products->stop), "time a product"));
    return cuda_status(cudaEventElapsedTime(ms, products->start, products->stop), "time a product");
}

/* opts.fastest: the fastest choice for this call, which is run in the course of it; its output is
 * overwritten, so a product that adds takes the library's first choice until one that does not
 * comes. */
static enum status choose_fastest(const struct kernel_ctx *ctx, struct plan *p,
                                  const struct call *c)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    float best = 0.0f;
    int count, usable = 0;
    TRY(candidates(ctx, p, c->extent, found, &count));
    p->timed = c->beta == 0.0f && !ctx_recording(ctx);
    for (int i = 0; i < count && usable < TIMED; i++) {
        float ms = 0.0f;
        if (found[i].state != CUBLAS_STATUS_SUCCESS ||
            found[i].workspaceSize > ctx->products->workspace_bytes)
            continue;
        if (p->timed)
            TRY(time_one(ctx, p, c, &found[i].algo, &ms));
        if (usable++ == 0 || ms < best) {
            best = ms;
            p->algo = found[i].algo;
        }
        if (!p->timed)
            break;
    }
    if (usable == 0)
        return status_fail(STATUS_UNAVAILABLE, "cuBLASLt has no algorithm");
    memset(p->checked, 0, sizeof p->checked);
    *checked_at(p, c->extent) = c->extent;
    return STATUS_OK;
}

static struct plan *find_plan(const struct products *products, const struct call *c, int64_t size)
{
    for (size_t i = 0; i < products->count; i++) {
        struct plan *p = &products->plans[i];
        if (p->kind == c->kind && p->n == c->n && p->k == c->k && p->size == size &&
            p->bias == bias_alignment(c) && p->alignment == c->alignment &&
            p->y_alignment == c->y_alignment && p->y_stride == c->y_stride)
            return p;
    }
    return NULL;
}

static enum status get_plan(struct kernel_ctx *ctx, const struct call *c, struct plan **out)
{
    struct products *products = ctx->products;
    const int64_t size = size_class(ctx, c);
    *out = find_plan(products, c, size);
    if (*out != NULL) {
        if (ctx->opts.fastest && !(*out)->timed && c->beta == 0.0f && !ctx_recording(ctx))
            return choose_fastest(ctx, *out, c);
        return STATUS_OK;
    }
    TRY(mem_grow(&products->plans, &products->capacity, products->count + 1,
                 sizeof *products->plans, "the plans of products"));
    struct plan *p = &products->plans[products->count];
    *p = (struct plan){.kind = c->kind,
                       .n = c->n,
                       .k = c->k,
                       .size = size,
                       .bias = bias_alignment(c),
                       .alignment = c->alignment,
                       .y_alignment = c->y_alignment,
                       .y_stride = c->y_stride};
    enum status st = describe(ctx, c, p);
    if (st == STATUS_OK)
        st = ctx->opts.fastest ? choose_fastest(ctx, p, c) : pin(ctx, p);
    if (st != STATUS_OK) {
        st = with_shape(ctx, p, c->extent, st);
        plan_release(&products->lib, p);
        return st;
    }
    products->count++;
    *out = p;
    return STATUS_OK;
}

/* ---- one product */

static bool is_aligned(const void *p, int alignment)
{
    return (uintptr_t)p % (uintptr_t)alignment == 0;
}

/* The plan was made for lines that begin at multiples of their size. */
static enum status check_operands(const struct kernel_ctx *ctx, const struct call *c)
{
    const int x = alignment_of(c->k * act_bytes(ctx->opts.precision)), y = c->y_alignment,
              w = c->alignment;
    const int a = c->kind == WEIGHT ? x : w, b = c->kind == FORWARD ? x : y,
              d = c->kind == WEIGHT    ? w
                  : c->kind == FORWARD ? y
                                       : x;
    if (is_aligned(c->a, a) && is_aligned(c->b, b) && is_aligned(c->d, d))
        return STATUS_OK;
    return ctx_failed(ctx,
                      status_fail(STATUS_ARG,
                                  "%s with a matrix of %d x %d: operands at %p, %p, %p, wanted "
                                  "multiples of %d, %d and %d bytes",
                                  kind_name(c->kind), c->n, c->k, c->a, c->b, c->d, a, b, d));
}

static enum status multiply(struct kernel_ctx *ctx, const struct call *c)
{
    struct plan *p;
    bool yes = true;
    TRY(check_operands(ctx, c));
    TRY(get_plan(ctx, c, &p));
    /* A stretch that is recorded has run before with the same extents; and cuBLASLt may be unable
     * to answer while its thread records (reported of CUDA 13.3's heuristic on a GA100). */
    if (!ctx_recording(ctx) && *checked_at(p, c->extent) != c->extent) {
        enum status st = takes(ctx, p, c->extent, &yes);
        if (st == STATUS_OK && !yes && ctx->opts.fastest)
            st = choose_fastest(ctx, p, c);
        else if (st == STATUS_OK && !yes)
            st = status_fail(STATUS_UNAVAILABLE,
                             "cuBLASLt refuses the algorithm that it chose for %lld lines, and "
                             "another could give other bits",
                             (long long)(p->kind == WEIGHT ? p->size : REFERENCE_LINES));
        TRY(with_shape(ctx, p, c->extent, st));
    }
    enum status st = set_extent(ctx, p, c->extent);
    if (st == STATUS_OK)
        st = queue(ctx, p, c, c->beta, &p->algo);
    return with_shape(ctx, p, c->extent, st);
}

/* ---- entries */

static enum status check_call(const struct kernel_ctx *ctx, int m, int64_t rows)
{
    if (m < 0 || m >= ctx->opts.count)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "matrix %d of %d", m, ctx->opts.count));
    if (rows < 0 || rows > INT32_MAX)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "a product of %lld lines", (long long)rows));
    if (ctx->weights == NULL)
        return ctx_failed(ctx, status_fail(STATUS_ARG, "a product before weights_changed"));
    return STATUS_OK;
}

static const void *weights_of(const struct kernel_ctx *ctx, const struct matrix *w)
{
    if (ctx->weights16 != NULL)
        return ctx->weights16 + (w->offset - ctx->weight_begin);
    return ctx->weights + w->offset;
}

/* How the matrix's first element is aligned, where the first of the flat space is by 256 bytes. */
static int weight_alignment(const struct kernel_ctx *ctx, const struct matrix *w)
{
    return alignment_of(w->offset * act_bytes(ctx->opts.precision));
}

/* How lines of n activations are, where the first one is. */
static int line_alignment(const struct kernel_ctx *ctx, int n)
{
    return alignment_of(n * act_bytes(ctx->opts.precision));
}

/* The bias as the epilogue reads it: in the type of y. */
static enum status bias_of(const struct kernel_ctx *ctx, const struct matrix *w, const float *bias,
                           const void **out)
{
    *out = bias;
    if (bias == NULL || ctx->weights16 == NULL)
        return STATUS_OK;
    const ptrdiff_t at = bias - ctx->weights;
    if (at < ctx->weight_begin || at + w->n > ctx->weight_end)
        return ctx_failed(ctx, status_fail(STATUS_ARG,
                                           "a bias of %d elements at %lld of the weights, of which "
                                           "%lld to %lld have a 16-bit copy",
                                           w->n, (long long)at, (long long)ctx->weight_begin,
                                           (long long)ctx->weight_end));
    *out = ctx->weights16 + (at - ctx->weight_begin);
    return STATUS_OK;
}

enum status cuda_linear(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                        const float *bias, act *y)
{
    TRY(check_call(ctx, m, rows));
    const struct matrix *w = &ctx->opts.matrices[m];
    struct call c = {.kind = FORWARD,
                     .n = w->n,
                     .k = w->k,
                     .extent = rows,
                     .a = weights_of(ctx, w),
                     .b = x,
                     .d = y,
                     .alignment = weight_alignment(ctx, w),
                     .y_alignment = line_alignment(ctx, w->n)};
    TRY(bias_of(ctx, w, bias, &c.bias));
    return rows == 0 ? STATUS_OK : multiply(ctx, &c);
}

enum status cuda_linear_backward_data(struct kernel_ctx *ctx, int m, int64_t rows, const act *dy,
                                      act *dx)
{
    TRY(check_call(ctx, m, rows));
    const struct matrix *w = &ctx->opts.matrices[m];
    const struct call c = {.kind = DATA,
                           .n = w->n,
                           .k = w->k,
                           .extent = rows,
                           .a = weights_of(ctx, w),
                           .b = dy,
                           .d = dx,
                           .alignment = weight_alignment(ctx, w),
                           .y_alignment = line_alignment(ctx, w->n)};
    return rows == 0 ? STATUS_OK : multiply(ctx, &c);
}

/* Outputs [first, first + n) of a matrix and a piece's lines for them. */
struct part {
    int first, n;
    int64_t lines;
    const void *x, *dy;
    int64_t dy_stride;
    int dy_alignment; /* bytes */
};

/* Add the part to the piece's buffer; write: put it there instead. */
static enum status add_part(struct kernel_ctx *ctx, const struct matrix *w, int i,
                            const struct part *part, bool write)
{
    const struct grad_cut *cut = &ctx->host_cut;
    const int64_t at = w->offset + (int64_t)part->first * w->k;
    float *to = cut->buffer[cut->to[i]] + at;
    const struct call c = {.kind = WEIGHT,
                           .n = part->n,
                           .k = w->k,
                           .extent = part->lines,
                           .a = part->x,
                           .b = part->dy,
                           .d = to,
                           .beta = write ? 0.0f : 1.0f,
                           .alignment = alignment_of(at * (int64_t)sizeof(float)),
                           .y_stride = part->dy_stride,
                           .y_alignment = part->dy_alignment};
    if (c.extent > 0)
        return multiply(ctx, &c);
    if (!write)
        return STATUS_OK;
    return cuda_status(
        cudaMemsetAsync(to, 0, (size_t)part->n * (size_t)w->k * sizeof(float), ctx->stream),
        "zeros of a piece without lines");
}

/* Lines [begin, end) of one piece, and its table's, into its buffer. */
static enum status piece(struct kernel_ctx *ctx, const struct matrix *w, int i, int64_t begin,
                         int64_t end, const char *x, const char *dy,
                         const struct table_lines *more)
{
    const int64_t size = act_bytes(ctx->opts.precision);
    const bool add = ctx->host_cut.add[i];
    struct part own = {.n = w->n, .dy_stride = w->n, .dy_alignment = line_alignment(ctx, w->n)},
                table = {0};
    if (x != NULL) {
        own.lines = end - begin;
        own.x = x + begin * w->k * size;
        own.dy = dy + begin * w->n * size;
    }
    if (more != NULL)
        table = (struct part){.first = more->first,
                              .n = more->n,
                              .lines = more->lines,
                              .x = more->x,
                              .dy = (const char *)more->dy +
                                    (int64_t)i * more->lines * more->dy_stride * size,
                              .dy_stride = more->dy_stride,
                              .dy_alignment = alignment_of((int64_t)(uintptr_t)more->dy |
                                                           more->dy_stride * size)};
    if (x == NULL && table.n == w->n) /* there is nothing else */
        return add_part(ctx, w, i, &table, !add);
    TRY(add_part(ctx, w, i, &own, !add));
    return more == NULL ? STATUS_OK : add_part(ctx, w, i, &table, false);
}

static enum status check_table(const struct kernel_ctx *ctx, const struct matrix *w,
                               const struct table_lines *more)
{
    if (more == NULL || (more->lines >= 0 && more->first >= 0 && more->n > 0 &&
                         more->n <= w->n - more->first && more->dy_stride >= more->n))
        return STATUS_OK;
    return ctx_failed(
        ctx, status_fail(STATUS_ARG,
                         "%d lines of a table for outputs %d to %d of %d, lines of %lld elements",
                         more->lines, more->first, more->first + more->n, w->n,
                         (long long)more->dy_stride));
}

enum status cuda_linear_backward_weight(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                        const act *dy, int64_t bias_offset, bool by_row,
                                        const struct table_lines *more, const struct grad_cut *cut)
{
    const struct grad_cut *own = &ctx->host_cut;
    TRY(check_call(ctx, m, rows));
    const struct matrix *w = &ctx->opts.matrices[m];
    TRY(check_table(ctx, w, more));
    if (cut->pieces != own->pieces)
        return ctx_failed(ctx, status_fail(STATUS_ARG,
                                           "a cut of %d pieces, backward_begins was told of %d",
                                           cut->pieces, own->pieces));
    if (own->pieces == 0)
        return STATUS_OK;
    const int32_t *line = by_row ? own->row : own->token;
    if (x != NULL && line[own->pieces] > rows)
        return ctx_failed(ctx, status_fail(STATUS_ARG,
                                           "pieces up to line %d of a gradient of %lld lines",
                                           (int)line[own->pieces], (long long)rows));
    const bool whole = own->pieces == 1 && line[0] == 0 && !ctx->opts.exact_pieces;
    for (int i = 0; i < own->pieces; i++) {
        TRY(piece(ctx, w, i, line[i], whole ? rows : line[i + 1], x, dy, more));
        if (own->merge_begin[i] < own->merge_begin[i + 1])
            TRY(cuda_merge(ctx, i, w->offset, (int64_t)w->n * w->k));
    }
    if (bias_offset < 0)
        return STATUS_OK;
    return cuda_column_sums(ctx, x == NULL ? 0 : rows, w->n, dy, bias_offset, by_row, more);
}
