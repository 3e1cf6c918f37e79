/*
 * emulated_cublaslt.cpp - cuBLASLt on the CPU, as strict as its documentation and harder to please.
 *
 * What the real library leaves open is made adverse here, so that a backend whose bits depend on
 * the shape of a product is found out:
 *   - The heuristic's order of algorithms is a hash of (m, n, k): another number of tokens gives
 *     another first algorithm.
 *   - Each algorithm groups the sum over k differently (below). One algorithm with one
 *     configuration gives an element of D the same bits whatever m and n are.
 *   - Algorithms refuse shapes: by alignment of leading dimensions, by n, by short k; some want
 *     workspace. Split-K comes first where the preferences allow it and k is long.
 *
 *   id  chunk of k  sums                               needs
 *   0   k           one chain                          nothing: any alignment, any shape
 *   1   16          chunks from zero, added in order   alignment
 *   2   32          as 1                               alignment, workspace
 *   3   32          even and odd chunks apart          alignment, n a multiple of 8
 *   4   64          as 1                               alignment, k >= 64
 *   5   32          split-K parts, each as 1           alignment, k >= 64, a reduction scheme
 *
 * Alignment: 16 bytes for matrices, leading dimensions and the bias. Workspace of 2: 64 bytes a
 * tile of D; of 5: the parts, unless summed in place. 5 is the only one with a SPLITK_NUM above 1,
 * and never has 1; 3 has no bias gradients.
 *
 * Sums and products are in float, tf32 inputs rounded first, and D is rounded once (split-K by
 * INPLACE and OUTPUT_TYPE rounds each part, as it says).
 *
 * Refused with CUBLAS_STATUS_NOT_SUPPORTED and a line on stderr that begins "emulated cuBLASLt:":
 * whatever is not emulated (types, orders, batches, epilogues but DEFAULT, BIAS, BGRADA, BGRADB)
 * and what the documentation forbids (bias of another type than D, 16-bit inputs with TF32). Calls
 * of cublasLtMatmul() that break a promise made to the heuristic or to cublasLtMatmulAlgoCheck()
 * (alignment, workspace size, layout) fail with CUBLAS_STATUS_INVALID_VALUE and such a line;
 * refusals of the heuristic and of AlgoCheck that a caller must expect are silent. While a stream
 * is captured both fail with CUBLAS_STATUS_INTERNAL_ERROR, as CUDA 13.3's heuristic has been seen
 * to.
 *
 * EMULATED_CUBLASLT_FAIL=<n>: the n-th cublasLtMatmul() (from 1) after the variable was set returns
 * CUBLAS_STATUS_EXECUTION_FAILED.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>

#include "base/halves.h"
#include "emulated_cuda.h"

namespace
{

enum { MAGIC_LAYOUT = 0x4c61796f, MAGIC_DESC = 0x44657363, MAGIC_ALGO = 0x416c676f };
enum { MAGIC_PREFERENCE = 0x50726566 };
enum { ALGOS = 6, ALIGNMENT = 16 };

struct layout {
    uint32_t magic, type;
    uint64_t rows, cols;
    int64_t ld;
};
struct desc {
    uint32_t magic;
    int32_t compute, scale, pointer_mode, transa, transb;
    uint32_t epilogue;
    int32_t bias_type; /* -1: as D */
    void *bias;
};
struct preference {
    uint32_t magic, schemes;
    uint64_t workspace;
    uint32_t alignment[4]; /* A, B, C, D */
};
struct algo {
    uint32_t magic;
    int32_t id;
    uint32_t tile, stages;
    int32_t splits;
    uint32_t scheme;
    int32_t compute, ab_type, d_type; /* it was made for */
};
static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
static_assert(sizeof(desc) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits");
static_assert(sizeof(algo) <= sizeof(cublasLtMatmulAlgo_t), "fits");

struct {
    int64_t chunk; /* 0: all of k */
    uint32_t tile, stages;
} const kinds[ALGOS] = {
    {0, CUBLASLT_MATMUL_TILE_64x64, CUBLASLT_MATMUL_STAGES_UNDEFINED},
    {16, CUBLASLT_MATMUL_TILE_64x64, CUBLASLT_MATMUL_STAGES_16x1},
    {32, CUBLASLT_MATMUL_TILE_64x128, CUBLASLT_MATMUL_STAGES_32x3},
    {32, CUBLASLT_MATMUL_TILE_128x64, CUBLASLT_MATMUL_STAGES_32x3},
    {64, CUBLASLT_MATMUL_TILE_128x128, CUBLASLT_MATMUL_STAGES_64x3},
    {32, CUBLASLT_MATMUL_TILE_128x128, CUBLASLT_MATMUL_STAGES_32x3},
};

/* A product with all that its execution needs, by value. Column major: D (m, n) = alpha op(A) (m,
 * k) op(B) (k, n) + beta C. */
struct product {
    desc d;
    layout a, b, c, out;
    algo how;
    int64_t m, n, k;
    float alpha, beta; /* pointer mode host */
    const float *device_alpha, *device_beta;
    const void *A, *B, *C;
    void *D, *workspace;
    size_t workspace_bytes;
};

cublasStatus_t refuse(cublasStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
cublasStatus_t refuse(cublasStatus_t status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("emulated cuBLASLt: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    return status;
}

const char *type_name(uint32_t type)
{
    return type == CUDA_R_32F    ? "CUDA_R_32F"
           : type == CUDA_R_16F  ? "CUDA_R_16F"
           : type == CUDA_R_16BF ? "CUDA_R_16BF"
                                 : "a type that is not emulated";
}

int64_t size_of(uint32_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

/* Plain structs in and out of the opaque ones. */
template <typename T, typename O> bool get(T *out, const O *from, uint32_t magic)
{
    if (from == NULL)
        return false;
    memcpy(out, from, sizeof *out);
    return out->magic == magic;
}
template <typename T, typename O> void put(const T *from, O *to)
{
    memset(to, 0, sizeof *to);
    memcpy(to, from, sizeof *from);
}
template <typename T> bool value_of(T *out, const void *buf, size_t n)
{
    if (buf == NULL || n != sizeof *out)
        return false;
    memcpy(out, buf, sizeof *out);
    return true;
}

/* ---- arithmetic ---- */

enum { MR = 8, NR = 4 }; /* a tile of D: MR rows, NR columns */
typedef float four __attribute__((vector_size(16)));

float load(const void *p, uint32_t type, int64_t i)
{
    if (type == CUDA_R_32F)
        return ((const float *)p)[i];
    uint16_t half = ((const uint16_t *)p)[i];
    return type == CUDA_R_16BF ? float_from_bf16(half) : float_from_f16(half);
}

float rounded(float x, uint32_t type)
{
    return type == CUDA_R_32F    ? x
           : type == CUDA_R_16BF ? float_from_bf16(bf16_from_float(x))
                                 : float_from_f16(f16_from_float(x));
}

void store(void *p, uint32_t type, int64_t i, float x)
{
    if (type == CUDA_R_32F)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = type == CUDA_R_16BF ? bf16_from_float(x) : f16_from_float(x);
}

/* 10 bits of mantissa, to nearest, ties away from zero (cvt.rna.tf32). */
float tf32(float x)
{
    uint32_t bits = float_bits(x);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return x;
    return float_of_bits((bits + 0x1000u) & ~0x1fffu);
}

/* Lines of `width` values: out[panel][kk][width] of an operand whose `lines` long side is m or n;
 * element (line, kk) lies at line * by_line + kk * by_k. Missing lines are zeros. */
void pack(float *out, int width, const void *p, uint32_t type, bool as_tf32, int64_t lines,
          int64_t k, int64_t by_line, int64_t by_k)
{
    for (int64_t first = 0; first < lines; first += width) {
        for (int64_t kk = 0; kk < k; kk++) {
            for (int w = 0; w < width; w++) {
                float x = first + w < lines ? load(p, type, (first + w) * by_line + kk * by_k) : 0;
                *out++ = as_tf32 ? tf32(x) : x;
            }
        }
    }
}

/* sum[j][i] = sum over k, in order and from zero, of a[kk][i] b[kk][j]. */
void chain(const float *a, const float *b, int64_t k, four sum[NR][2])
{
    four s[NR][2] = {};
    for (int64_t kk = 0; kk < k; kk++, a += MR, b += NR) {
        four low, high;
        memcpy(&low, a, sizeof low);
        memcpy(&high, a + 4, sizeof high);
        for (int j = 0; j < NR; j++) {
            s[j][0] += low * b[j];
            s[j][1] += high * b[j];
        }
    }
    memcpy(sum, s, sizeof s);
}

/* One tile over packed k, grouped as algorithm `id` does. */
void tile(int id, const float *a, const float *b, int64_t k, four total[NR][2])
{
    four part[2][NR][2] = {}, sum[NR][2];
    int64_t chunk = kinds[id].chunk != 0 ? kinds[id].chunk : k;
    int which = 0;
    for (int64_t at = 0; at < k; at += chunk) {
        chain(a + at * MR, b + at * NR, at + chunk < k ? chunk : k - at, sum);
        for (int j = 0; j < NR; j++) {
            part[which][j][0] += sum[j][0];
            part[which][j][1] += sum[j][1];
        }
        which ^= id == 3;
    }
    for (int j = 0; j < NR; j++) {
        total[j][0] = part[0][j][0];
        total[j][1] = part[0][j][1];
        if (id == 3) {
            total[j][0] += part[1][j][0];
            total[j][1] += part[1][j][1];
        }
    }
}

/* out (m, n) = the product of packed a and b over [from, to) of k. */
void multiply(int id, const float *a, const float *b, int64_t m, int64_t n, int64_t k, int64_t from,
              int64_t to, float *out)
{
    for (int64_t j = 0; j < n; j += NR) {
        for (int64_t i = 0; i < m; i += MR) {
            four total[NR][2];
            float values[NR][MR];
            tile(id, a + i * k + from * MR, b + j * k + from * NR, to - from, total);
            memcpy(values, total, sizeof values);
            for (int64_t jj = 0; jj < NR && j + jj < n; jj++) {
                for (int64_t ii = 0; ii < MR && i + ii < m; ii++)
                    out[i + ii + (j + jj) * m] = values[jj][ii];
            }
        }
    }
}

int64_t up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

float *floats(int64_t n)
{
    float *p = (float *)malloc((size_t)(n > 0 ? n : 1) * sizeof *p);
    if (p == NULL) {
        (void)fputs("emulated cuBLASLt: out of host memory\n", stderr);
        abort();
    }
    return p;
}

/* The type in which a split-K part is kept. */
uint32_t kept_as(const product &p)
{
    if (p.how.scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        return CUDA_R_32F;
    return p.out.type;
}

/* The parts of k, summed as the reduction scheme says; parts that a scheme keeps in the workspace
 * are kept there. */
void multiply_split(const product &p, const float *a, const float *b, float *sum)
{
    int64_t elements = p.m * p.n, run = up((p.k + p.how.splits - 1) / p.how.splits, 32);
    uint32_t kept = kept_as(p);
    float *part = floats(elements);
    for (int64_t i = 0; i < elements; i++)
        sum[i] = 0;
    for (int s = 0; s < p.how.splits; s++) {
        int64_t from = s * run < p.k ? s * run : p.k, to = from + run < p.k ? from + run : p.k;
        multiply(p.how.id, a, b, p.m, p.n, p.k, from, to, part);
        for (int64_t i = 0; i < elements; i++) {
            if (p.how.scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE)
                sum[i] = rounded(sum[i] + rounded(part[i], kept), kept);
            else
                store(p.workspace, kept, s * elements + i, part[i]);
        }
    }
    for (int s = 0; s < p.how.splits && p.how.scheme != CUBLASLT_REDUCTION_SCHEME_INPLACE; s++) {
        for (int64_t i = 0; i < elements; i++)
            sum[i] += load(p.workspace, kept, s * elements + i);
    }
    free(part);
}

void compute(const product &p)
{
    bool as_tf32 = p.d.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    float *a = floats(up(p.m, MR) * p.k), *b = floats(up(p.n, NR) * p.k);
    float *sum = floats(p.m * p.n);
    pack(a, MR, p.A, p.a.type, as_tf32, p.m, p.k, p.d.transa != 0 ? p.a.ld : 1,
         p.d.transa != 0 ? 1 : p.a.ld);
    pack(b, NR, p.B, p.b.type, as_tf32, p.n, p.k, p.d.transb != 0 ? 1 : p.b.ld,
         p.d.transb != 0 ? p.b.ld : 1);
    if (p.how.splits > 1) {
        multiply_split(p, a, b, sum);
    } else {
        if (p.workspace != NULL)
            memset(p.workspace, 0xee, p.workspace_bytes); /* it is ours during the call */
        multiply(p.how.id, a, b, p.m, p.n, p.k, 0, p.k, sum);
    }
    float alpha = p.device_alpha != NULL ? *p.device_alpha : p.alpha;
    float beta = p.device_beta != NULL ? *p.device_beta : p.beta;
    for (int64_t j = 0; j < p.n; j++) {
        for (int64_t i = 0; i < p.m; i++) {
            float x = alpha * sum[i + j * p.m];
            if (beta != 0)
                x += beta * load(p.C, p.c.type, i + j * p.c.ld);
            if (p.d.epilogue == CUBLASLT_EPILOGUE_BIAS)
                x += load(p.d.bias, p.out.type, i);
            store(p.D, p.out.type, i + j * p.out.ld, x);
        }
    }
    /* bias gradients: the same sums with ones in the other operand's place */
    bool of_a = p.d.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    if (of_a || p.d.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
        float *ones = of_a ? b : a;
        for (int64_t i = 0; i < (of_a ? NR : MR) * p.k; i++)
            ones[i] = 1;
        multiply(p.how.id, a, b, of_a ? p.m : 1, of_a ? 1 : p.n, p.k, 0, p.k, sum);
        for (int64_t i = 0; i < (of_a ? p.m : p.n); i++)
            store(p.d.bias, p.out.type, i, sum[i]);
    }
    free(a);
    free(b);
    free(sum);
}

/* Every byte that a matrix has, column by column where columns do not touch. */
bool check_matrix(const void *p, const layout &l, bool write, const char *what)
{
    int64_t size = size_of(l.type), rows = (int64_t)l.rows, cols = (int64_t)l.cols;
    if (l.ld == rows)
        return emulated_device_check(p, (size_t)(rows * cols * size), write, what);
    for (int64_t j = 0; j < cols; j++) {
        if (!emulated_device_check((const char *)p + j * l.ld * size, (size_t)(rows * size), write,
                                   what))
            return false;
    }
    return true;
}

bool has_bias(uint32_t epilogue)
{
    return epilogue != CUBLASLT_EPILOGUE_DEFAULT;
}

size_t bias_bytes(const product &p)
{
    int64_t n = p.d.epilogue == CUBLASLT_EPILOGUE_BGRADB ? p.n : p.m;
    return (size_t)(n * size_of(p.out.type));
}

void run_product(void *arg)
{
    const product &p = *(const product *)arg;
    float beta = p.beta;
    if (p.device_alpha != NULL) {
        if (!emulated_device_check(p.device_alpha, 4, false, "cublasLtMatmul alpha") ||
            !emulated_device_check(p.device_beta, 4, false, "cublasLtMatmul beta"))
            return;
        beta = *p.device_beta;
    }
    bool gradient = has_bias(p.d.epilogue) && p.d.epilogue != CUBLASLT_EPILOGUE_BIAS;
    if (!check_matrix(p.A, p.a, false, "cublasLtMatmul A") ||
        !check_matrix(p.B, p.b, false, "cublasLtMatmul B") ||
        (beta != 0 && !check_matrix(p.C, p.c, false, "cublasLtMatmul C")) ||
        !check_matrix(p.D, p.out, true, "cublasLtMatmul D") ||
        (has_bias(p.d.epilogue) &&
         !emulated_device_check(p.d.bias, bias_bytes(p), gradient, "cublasLtMatmul bias")) ||
        (p.workspace != NULL &&
         !emulated_device_check(p.workspace, p.workspace_bytes, true, "cublasLtMatmul workspace")))
        return;
    compute(p);
}

/* ---- what is allowed ---- */

/* Fill p's descriptors and sizes; a status and, for what no caller should ever ask, a line. */
cublasStatus_t describe(product *p, cublasLtMatmulDesc_t desc_, cublasLtMatrixLayout_t A,
                        cublasLtMatrixLayout_t B, cublasLtMatrixLayout_t C,
                        cublasLtMatrixLayout_t D)
{
    memset(p, 0, sizeof *p);
    if (!get(&p->d, desc_, MAGIC_DESC))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not a matmul descriptor");
    if (!get(&p->a, A, MAGIC_LAYOUT) || !get(&p->b, B, MAGIC_LAYOUT) ||
        !get(&p->c, C, MAGIC_LAYOUT) || !get(&p->out, D, MAGIC_LAYOUT))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not a matrix layout");
    p->m = (int64_t)(p->d.transa ? p->a.cols : p->a.rows);
    p->k = (int64_t)(p->d.transa ? p->a.rows : p->a.cols);
    p->n = (int64_t)(p->d.transb ? p->b.rows : p->b.cols);
    int64_t kb = (int64_t)(p->d.transb ? p->b.cols : p->b.rows);
    if (p->m <= 0 || p->n <= 0 || p->k <= 0 || kb != p->k || (int64_t)p->out.rows != p->m ||
        (int64_t)p->out.cols != p->n || p->c.rows != p->out.rows || p->c.cols != p->out.cols)
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "shapes do not fit: op(A) %lld x %lld, op(B) %lld x %lld, C %lld x %lld, D "
                      "%lld x %lld",
                      (long long)p->m, (long long)p->k, (long long)kb, (long long)p->n,
                      (long long)p->c.rows, (long long)p->c.cols, (long long)p->out.rows,
                      (long long)p->out.cols);
    if (p->d.scale != CUDA_R_32F)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "scale type %d, wanted CUDA_R_32F", p->d.scale);
    if (p->d.compute != CUBLAS_COMPUTE_32F && p->d.compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "compute type %d", p->d.compute);
    if (p->a.type != p->b.type || p->c.type != p->out.type ||
        (p->out.type != p->a.type && p->out.type != CUDA_R_32F))
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types A %s, B %s, C %s, D %s",
                      type_name(p->a.type), type_name(p->b.type), type_name(p->c.type),
                      type_name(p->out.type));
    if (p->d.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && p->a.type != CUDA_R_32F)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_COMPUTE_32F_FAST_TF32 with %s inputs",
                      type_name(p->a.type));
    if (has_bias(p->d.epilogue) && p->d.bias_type != -1 && p->d.bias_type != (int32_t)p->out.type)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "bias type %d where D is %s", p->d.bias_type,
                      type_name(p->out.type));
    return CUBLAS_STATUS_SUCCESS;
}

/* NULL, or why this algorithm cannot do this product. The products's own layouts and bias pointer
 * count; the pointers of matrices do not. */
const char *unfit(const product &p, const algo &how)
{
    if (how.id < 0 || how.id >= ALGOS)
        return "no such algorithm";
    if (how.compute != p.d.compute || how.ab_type != (int32_t)p.a.type ||
        how.d_type != (int32_t)p.out.type)
        return "the algorithm was made for other types";
    if (how.tile != kinds[how.id].tile || how.stages != kinds[how.id].stages)
        return "the algorithm has no such tile or stages";
    bool parts = how.scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE ||
                 how.scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE ||
                 how.scheme == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    if (how.splits < 1 || (how.splits > 1) != (how.id == 5) || (how.splits > 1) != parts)
        return "SPLITK_NUM and REDUCTION_SCHEME do not go together or with the algorithm";
    if (how.id == 0)
        return NULL;
    const layout *all[4] = {&p.a, &p.b, &p.c, &p.out};
    for (int i = 0; i < 4; i++) {
        if (all[i]->ld * size_of(all[i]->type) % ALIGNMENT != 0)
            return "the algorithm wants leading dimensions in multiples of 16 bytes";
    }
    if (has_bias(p.d.epilogue) && (uintptr_t)p.d.bias % ALIGNMENT != 0)
        return "the algorithm wants a bias on a multiple of 16 bytes";
    if (how.id == 3 &&
        (p.n % 8 != 0 || (has_bias(p.d.epilogue) && p.d.epilogue != CUBLASLT_EPILOGUE_BIAS)))
        return "the algorithm wants n in multiples of 8 and has no bias gradients";
    if ((how.id == 4 || how.id == 5) && p.k < 64)
        return "the algorithm wants k of 64 or more";
    if (how.splits > 1 && how.splits * 32 > up(p.k, 32))
        return "the algorithm wants at least 32 of k in each part";
    return NULL;
}

size_t workspace_of(const product &p, const algo &how)
{
    if (how.id == 2)
        return (size_t)(64 * up(p.m, 64) / 64 * up(p.n, 128) / 128);
    if (how.splits > 1 && how.scheme != CUBLASLT_REDUCTION_SCHEME_INPLACE) {
        int64_t size = how.scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE ? 4
                                                                            : size_of(p.out.type);
        return (size_t)(how.splits * p.m * p.n * size);
    }
    return 0;
}

algo algo_for(const product &p, int id, int splits, uint32_t scheme)
{
    algo how = {};
    how.magic = MAGIC_ALGO;
    how.id = id;
    how.tile = kinds[id].tile;
    how.stages = kinds[id].stages;
    how.splits = splits;
    how.scheme = scheme;
    how.compute = p.d.compute;
    how.ab_type = (int32_t)p.a.type;
    how.d_type = (int32_t)p.out.type;
    return how;
}

uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct offer {
    algo how;
    uint64_t rank;
};

int by_rank(const void *a, const void *b)
{
    const offer *x = (const offer *)a, *y = (const offer *)b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* What the preferences allow, best first: split-K for long k, then an order that the shape decides,
 * the algorithm for any alignment last. Returns how many. */
int offers(const product &p, const preference &wish, algo out[ALGOS])
{
    offer list[ALGOS];
    int count = 0;
    uint64_t shape = mixed(mixed(mixed((uint64_t)p.m) + (uint64_t)p.n) + (uint64_t)p.k);
    bool aligned = true;
    for (int i = 0; i < 4; i++)
        aligned = aligned && wish.alignment[i] >= ALIGNMENT;
    for (int id = 0; id < ALGOS; id++) {
        int splits = 1;
        uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
        if (id == 5) {
            splits = p.k >= 256 ? 4 : 2;
            scheme = (shape & 1) != 0 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                      : CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
            if ((scheme & wish.schemes) == 0) /* the lowest that is allowed */
                scheme = wish.schemes & (~wish.schemes + 1u);
        }
        algo how = algo_for(p, id, splits, scheme);
        if (unfit(p, how) != NULL || workspace_of(p, how) > wish.workspace || (id != 0 && !aligned))
            continue;
        list[count].how = how;
        list[count].rank = id == 0                 ? UINT64_MAX
                           : id == 5 && p.k >= 128 ? 0
                                                   : 1 + (mixed(shape + (uint64_t)id) >> 2);
        count++;
    }
    qsort(list, (size_t)count, sizeof *list, by_rank);
    for (int i = 0; i < count; i++)
        out[i] = list[i].how;
    return count;
}

void fill(const product &p, const algo &how, cublasLtMatmulHeuristicResult_t *result)
{
    memset(result, 0, sizeof *result);
    put(&how, &result->algo);
    result->workspaceSize = workspace_of(p, how);
    result->state = CUBLAS_STATUS_SUCCESS;
    result->wavesCount = (float)(up(p.m, 64) / 64 * (up(p.n, 64) / 64) * how.splits) /
                         4; /* 4 multiprocessors */
}

const preference default_preference = {
    MAGIC_PREFERENCE, CUBLASLT_REDUCTION_SCHEME_MASK, 0, {256, 256, 256, 256}};

/* Two matrices touch the same bytes. Columns of one wider matrix that lie beside each other do not.
 */
bool overlap(const void *a, const layout &la, const void *b, const layout &lb)
{
    int64_t x = (int64_t)(uintptr_t)a, y = (int64_t)(uintptr_t)b;
    int64_t sa = size_of(la.type), sb = size_of(lb.type);
    int64_t nx = (((int64_t)la.cols - 1) * la.ld + (int64_t)la.rows) * sa;
    int64_t ny = (((int64_t)lb.cols - 1) * lb.ld + (int64_t)lb.rows) * sb;
    if (x >= y + ny || y >= x + nx)
        return false;
    int64_t stride = la.ld * sa;
    if (stride != lb.ld * sb)
        return true;
    int64_t apart = ((y - x) % stride + stride) % stride; /* b's column begins behind a's by this */
    return apart < (int64_t)la.rows * sa || apart + (int64_t)lb.rows * sb > stride;
}

/* Count calls since EMULATED_CUBLASLT_FAIL was set; true for the one that it names. */
bool fails_now(void)
{
    static long calls;
    static char set[24];
    const char *which = getenv("EMULATED_CUBLASLT_FAIL");
    if (which == NULL)
        which = "";
    if (strncmp(which, set, sizeof set - 1) != 0) {
        (void)snprintf(set, sizeof set, "%s", which);
        calls = 0;
    }
    calls++;
    return strtol(which, NULL, 10) == calls;
}

} // namespace

struct cublasLtContext {
    uint32_t alive;
};

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (handle == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    int device;
    if (cudaGetDevice(&device) != cudaSuccess) {
        *handle = NULL;
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    *handle = new cublasLtContext{1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

#define STATUSES(X)                                                                                \
    X(CUBLAS_STATUS_SUCCESS, "success")                                                            \
    X(CUBLAS_STATUS_NOT_INITIALIZED, "the library was not initialized")                            \
    X(CUBLAS_STATUS_ALLOC_FAILED, "the resource allocation failed")                                \
    X(CUBLAS_STATUS_INVALID_VALUE, "an unsupported value or parameter was passed")                 \
    X(CUBLAS_STATUS_ARCH_MISMATCH, "an absent device architectural feature is required")           \
    X(CUBLAS_STATUS_MAPPING_ERROR, "an access to GPU memory space failed")                         \
    X(CUBLAS_STATUS_EXECUTION_FAILED, "the GPU program failed to execute")                         \
    X(CUBLAS_STATUS_INTERNAL_ERROR, "an internal operation failed")                                \
    X(CUBLAS_STATUS_NOT_SUPPORTED, "the functionality is not supported")                           \
    X(CUBLAS_STATUS_LICENSE_ERROR, "the license was not found")

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
#define NAME(name, text)                                                                           \
    case name:                                                                                     \
        return #name;
        STATUSES(NAME)
    }
    return "CUBLAS_STATUS_UNKNOWN";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
#define STRING(name, text)                                                                         \
    case name:                                                                                     \
        return text;
        STATUSES(STRING)
    }
    return "unknown status";
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

size_t cublasLtGetCudartVersion(void)
{
    return CUDART_VERSION;
}

/* ---- descriptors ---- */

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    if (out == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = NULL;
    if (type != CUDA_R_32F && type != CUDA_R_16F && type != CUDA_R_16BF)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matrix of type %d", (int)type);
    layout l = {MAGIC_LAYOUT, (uint32_t)type, rows, cols, ld};
    *out = new cublasLtMatrixLayoutOpaque_t;
    put(&l, *out);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t opaque,
                                                cublasLtMatrixLayoutAttribute_t attr,
                                                const void *buf, size_t n)
{
    layout l;
    int32_t word;
    bool ok = true;
    if (!get(&l, opaque, MAGIC_LAYOUT))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not a matrix layout");
    switch (attr) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        ok = value_of(&l.type, buf, n);
        if (ok && l.type != CUDA_R_32F && l.type != CUDA_R_16F && l.type != CUDA_R_16BF)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matrix of type %u", l.type);
        break;
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        ok = value_of(&l.rows, buf, n);
        break;
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        ok = value_of(&l.cols, buf, n);
        break;
    case CUBLASLT_MATRIX_LAYOUT_LD:
        ok = value_of(&l.ld, buf, n);
        break;
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        ok = value_of(&word, buf, n);
        if (ok && word != CUBLASLT_ORDER_COL)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matrix order %d", word);
        break;
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        ok = value_of(&word, buf, n);
        if (ok && word != 1)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "batch of %d", word);
        break;
    default:
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matrix layout attribute %d", (int)attr);
    }
    if (!ok)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "matrix layout attribute %d with %zu bytes",
                      (int)attr, n);
    put(&l, opaque);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (out == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    desc d = {MAGIC_DESC,
              compute,
              scale,
              CUBLASLT_POINTER_MODE_HOST,
              CUBLAS_OP_N,
              CUBLAS_OP_N,
              CUBLASLT_EPILOGUE_DEFAULT,
              -1,
              NULL};
    *out = new cublasLtMatmulDescOpaque_t;
    put(&d, *out);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t attr, const void *buf,
                                              size_t n)
{
    desc d;
    int32_t word;
    bool ok = true;
    if (!get(&d, opaque, MAGIC_DESC))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not a matmul descriptor");
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        ok = value_of(&d.compute, buf, n);
        break;
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        ok = value_of(&d.scale, buf, n);
        break;
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        ok = value_of(&d.pointer_mode, buf, n);
        if (ok && d.pointer_mode != CUBLASLT_POINTER_MODE_HOST &&
            d.pointer_mode != CUBLASLT_POINTER_MODE_DEVICE)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "pointer mode %d", d.pointer_mode);
        break;
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB:
    case CUBLASLT_MATMUL_DESC_TRANSC:
        ok = value_of(&word, buf, n);
        if (ok && word != CUBLAS_OP_N &&
            (word != CUBLAS_OP_T || attr == CUBLASLT_MATMUL_DESC_TRANSC))
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "operation %d for attribute %d", word,
                          (int)attr);
        if (ok && attr != CUBLASLT_MATMUL_DESC_TRANSC)
            (attr == CUBLASLT_MATMUL_DESC_TRANSA ? d.transa : d.transb) = word;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        ok = value_of(&d.epilogue, buf, n);
        if (ok && d.epilogue != CUBLASLT_EPILOGUE_DEFAULT && d.epilogue != CUBLASLT_EPILOGUE_BIAS &&
            d.epilogue != CUBLASLT_EPILOGUE_BGRADA && d.epilogue != CUBLASLT_EPILOGUE_BGRADB)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "epilogue %u", d.epilogue);
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        ok = value_of(&d.bias, buf, n);
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        ok = value_of(&d.bias_type, buf, n);
        break;
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET: /* a hint only */
        ok = value_of(&word, buf, n);
        break;
    default:
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matmul attribute %d", (int)attr);
    }
    if (!ok)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "matmul attribute %d with %zu bytes", (int)attr,
                      n);
    put(&d, opaque);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    if (out == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new cublasLtMatmulPreferenceOpaque_t;
    put(&default_preference, *out);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *buf, size_t n)
{
    preference p;
    uint32_t word;
    bool ok = true;
    if (!get(&p, opaque, MAGIC_PREFERENCE))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not a matmul preference");
    switch (attr) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
        ok = value_of(&word, buf, n);
        if (ok && word != CUBLASLT_SEARCH_BEST_FIT)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "search mode %u", word);
        break;
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        ok = value_of(&p.workspace, buf, n);
        break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        ok = value_of(&p.schemes, buf, n);
        break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        ok = value_of(&p.alignment[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], buf, n);
        break;
    default:
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matmul preference %d", (int)attr);
    }
    if (!ok)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "matmul preference %d with %zu bytes", (int)attr,
                      n);
    put(&p, opaque);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- algorithms ---- */

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc_,
                                              cublasLtMatrixLayout_t A, cublasLtMatrixLayout_t B,
                                              cublasLtMatrixLayout_t C, cublasLtMatrixLayout_t D,
                                              cublasLtMatmulPreference_t wanted, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *returned)
{
    product p;
    preference wish;
    algo list[ALGOS];
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (returned == NULL || results == NULL || requested <= 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    *returned = 0;
    if (emulated_capturing())
        return refuse(CUBLAS_STATUS_INTERNAL_ERROR, "a heuristic during a capture");
    cublasStatus_t status = describe(&p, desc_, A, B, C, D);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (!get(&wish, wanted, MAGIC_PREFERENCE))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not a matmul preference");
    int count = offers(p, wish, list);
    for (int i = 0; i < count && i < requested; i++)
        fill(p, list[i], &results[(*returned)++]);
    return *returned > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetIds(cublasLtHandle_t handle, cublasComputeType_t,
                                        cudaDataType_t, cudaDataType_t, cudaDataType_t,
                                        cudaDataType_t, cudaDataType_t, int requested, int ids[],
                                        int *returned)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (ids == NULL || returned == NULL || requested <= 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    *returned = requested < ALGOS ? requested : (int)ALGOS;
    for (int i = 0; i < *returned; i++)
        ids[i] = i;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t compute,
                                      cudaDataType_t scale, cudaDataType_t a, cudaDataType_t b,
                                      cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t *out)
{
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (out == NULL || id < 0 || id >= ALGOS)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a != b || c != d || scale != CUDA_R_32F)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "an algorithm for types %d %d %d %d scale %d",
                      (int)a, (int)b, (int)c, (int)d, (int)scale);
    product p = {};
    p.d.compute = compute;
    p.a.type = (uint32_t)a;
    p.out.type = (uint32_t)d;
    algo how = algo_for(p, id, 1, CUBLASLT_REDUCTION_SCHEME_NONE);
    put(&how, out);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc_,
                                       cublasLtMatrixLayout_t A, cublasLtMatrixLayout_t B,
                                       cublasLtMatrixLayout_t C, cublasLtMatrixLayout_t D,
                                       const cublasLtMatmulAlgo_t *opaque,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    product p;
    algo how;
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (emulated_capturing())
        return refuse(CUBLAS_STATUS_INTERNAL_ERROR, "an AlgoCheck during a capture");
    cublasStatus_t status = describe(&p, desc_, A, B, C, D);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (result == NULL || !get(&how, opaque, MAGIC_ALGO))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "AlgoCheck without result or algorithm");
    if (unfit(p, how) != NULL) {
        result->state = CUBLAS_STATUS_NOT_SUPPORTED;
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    fill(p, how, result);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t *opaque,
                                                    cublasLtMatmulAlgoConfigAttributes_t attr,
                                                    const void *buf, size_t n)
{
    algo how;
    bool ok = true;
    if (!get(&how, opaque, MAGIC_ALGO))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not an algorithm");
    switch (attr) {
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
        ok = value_of(&how.tile, buf, n);
        break;
    case CUBLASLT_ALGO_CONFIG_STAGES_ID:
        ok = value_of(&how.stages, buf, n);
        break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
        ok = value_of(&how.splits, buf, n);
        break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
        ok = value_of(&how.scheme, buf, n);
        break;
    default:
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "setting algorithm attribute %d", (int)attr);
    }
    if (!ok)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm attribute %d with %zu bytes",
                      (int)attr, n);
    put(&how, opaque);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *opaque,
                                                    cublasLtMatmulAlgoConfigAttributes_t attr,
                                                    void *buf, size_t n, size_t *written)
{
    algo how;
    uint32_t value = 0;
    size_t size = 4;
    if (!get(&how, opaque, MAGIC_ALGO))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not an algorithm");
    switch (attr) {
    case CUBLASLT_ALGO_CONFIG_ID:
        value = (uint32_t)how.id;
        break;
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
        value = how.tile;
        break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
        value = (uint32_t)how.splits;
        break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
        value = how.scheme;
        break;
    case CUBLASLT_ALGO_CONFIG_STAGES_ID:
        value = how.stages;
        break;
    case CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING:
    case CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION:
        break;
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID:
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID:
        size = 2;
        break;
    default:
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm attribute %d", (int)attr);
    }
    if (n == 0 && written != NULL) {
        *written = size;
        return CUBLAS_STATUS_SUCCESS;
    }
    if (buf == NULL || n != size)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm attribute %d into %zu bytes",
                      (int)attr, n);
    memcpy(buf, &value, size);
    if (written != NULL)
        *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc_,
                              const void *alpha, const void *A, cublasLtMatrixLayout_t Adesc,
                              const void *B, cublasLtMatrixLayout_t Bdesc, const void *beta,
                              const void *C, cublasLtMatrixLayout_t Cdesc, void *D,
                              cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *opaque,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    product p;
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (fails_now())
        return CUBLAS_STATUS_EXECUTION_FAILED;
    cublasStatus_t status = describe(&p, desc_, Adesc, Bdesc, Cdesc, Ddesc);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (alpha == NULL || beta == NULL || A == NULL || B == NULL || D == NULL)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "a NULL argument of cublasLtMatmul");
    if (p.d.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE) {
        p.device_alpha = (const float *)alpha;
        p.device_beta = (const float *)beta;
    } else {
        memcpy(&p.alpha, alpha, sizeof p.alpha);
        memcpy(&p.beta, beta, sizeof p.beta);
    }
    if (C == NULL && (p.beta != 0 || p.device_beta != NULL))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "C is NULL where beta is not 0");
    if (C == D && (p.c.ld != p.out.ld || p.c.type != p.out.type))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "C and D share memory with different layouts");
    if (overlap(D, p.out, A, p.a) || overlap(D, p.out, B, p.b))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "D overlaps an input");
    if (has_bias(p.d.epilogue) && p.d.bias == NULL)
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "epilogue %u without CUBLASLT_MATMUL_DESC_"
                      "BIAS_POINTER",
                      p.d.epilogue);
    if ((uintptr_t)workspace % 256 != 0)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "workspace %p is not aligned to 256 bytes",
                      workspace);
    const void *const pointers[4] = {A, B, C, D};
    const uint32_t types[4] = {p.a.type, p.b.type, p.c.type, p.out.type};
    uint32_t aligned[4];
    for (int i = 0; i < 4; i++) {
        uintptr_t at = (uintptr_t)pointers[i];
        aligned[i] = at == 0 ? 256 : (uint32_t)(at & (~at + 1u) & 0x1ffu);
        if (aligned[i] == 0)
            aligned[i] = 256;
        if (aligned[i] < (uint32_t)size_of(types[i]))
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "%c is at %p, which no %s can be", "ABCD"[i],
                          pointers[i], type_name(types[i]));
    }
    if (opaque == NULL) { /* the library's own choice, with default preferences */
        preference wish = default_preference;
        algo list[ALGOS];
        wish.workspace = workspace != NULL ? workspace_bytes : 0;
        memcpy(wish.alignment, aligned, sizeof wish.alignment);
        (void)offers(p, wish, list); /* algorithm 0 fits everything */
        p.how = list[0];
    } else if (!get(&p.how, opaque, MAGIC_ALGO)) {
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "not an algorithm");
    }
    const char *why = unfit(p, p.how);
    if (why != NULL)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                      "algorithm %d for m %lld, n %lld, k %lld, ld %lld %lld %lld: %s", p.how.id,
                      (long long)p.m, (long long)p.n, (long long)p.k, (long long)p.a.ld,
                      (long long)p.b.ld, (long long)p.out.ld, why);
    for (int i = 0; i < 4 && p.how.id != 0; i++) {
        if (aligned[i] < ALIGNMENT)
            return refuse(CUBLAS_STATUS_INVALID_VALUE,
                          "%c is at %p, and algorithm %d wants 16 bytes of alignment", "ABCD"[i],
                          pointers[i], p.how.id);
    }
    size_t needed = workspace_of(p, p.how);
    if (needed > 0 && (workspace == NULL || workspace_bytes < needed))
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "a workspace of %zu bytes, where algorithm %d wants %zu",
                      workspace != NULL ? workspace_bytes : 0, p.how.id, needed);
    p.workspace = needed > 0 ? workspace : NULL;
    p.workspace_bytes = needed;
    p.A = A;
    p.B = B;
    p.C = C;
    p.D = D;
    return emulated_enqueue(stream, run_product, &p, sizeof p, "cublasLtMatmul") == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
