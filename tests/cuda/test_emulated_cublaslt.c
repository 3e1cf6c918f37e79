/* test_emulated_cublaslt.c - the emulated cuBLASLt: its products, and that it is as strict and as fickle as it says. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>

#include "base/halves.h"
#include "tests/support/cuda/emulated_cuda.h"
#include "tests/support/support.h"

#define ALGOS 6
#define WORKSPACE ((size_t)4 << 20)

static cublasLtHandle_t handle;
static cudaStream_t stream;
static void *workspace;

#define assert_cuda(expr) assert_int_equal((expr), cudaSuccess)
#define assert_lt(expr) assert_string_equal(cublasLtGetStatusName(expr), "CUBLAS_STATUS_SUCCESS")
#define assert_refused(expr, wanted) assert_string_equal(cublasLtGetStatusName(expr), #wanted)

/* D (m, n) = alpha op(A) op(B) + beta C, all in device memory of its own; beside it the same numbers on the host, rounded
 * to their types. Leading dimensions are `pad` longer than they must be. */
struct problem {
    int m, n, k, pad;
    bool ta, tb;
    cudaDataType_t in, out;
    cublasComputeType_t compute;
    uint32_t epilogue;
    int64_t lda, ldb, ldd;
    size_t na, nb, nd, nbias; /* elements */
    void *A, *B, *D, *bias;
    float *a, *b, *d, *v;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t la, lb, ld;
};

static size_t size_of(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static float rounded(float x, cudaDataType_t type)
{
    return type == CUDA_R_32F    ? x
           : type == CUDA_R_16BF ? float_from_bf16(bf16_from_float(x))
                                 : float_from_f16(f16_from_float(x));
}

/* n floats of the host as `type` in device memory, and back. */
static void upload(void *to, const float *from, size_t n, cudaDataType_t type)
{
    uint16_t *half = malloc((n + 1) * sizeof *half);
    for (size_t i = 0; i < n; i++)
        half[i] = type == CUDA_R_16BF ? bf16_from_float(from[i]) : f16_from_float(from[i]);
    assert_cuda(cudaMemcpyAsync(to, type == CUDA_R_32F ? (const void *)from : half, n * size_of(type),
                                cudaMemcpyHostToDevice, stream));
    assert_cuda(cudaStreamSynchronize(stream));
    free(half);
}

static void download(float *to, const void *from, size_t n, cudaDataType_t type)
{
    uint16_t *half = malloc((n + 1) * sizeof *half);
    assert_cuda(cudaMemcpyAsync(type == CUDA_R_32F ? (void *)to : half, from, n * size_of(type), cudaMemcpyDeviceToHost,
                                stream));
    assert_cuda(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < n && type != CUDA_R_32F; i++)
        to[i] = type == CUDA_R_16BF ? float_from_bf16(half[i]) : float_from_f16(half[i]);
    free(half);
}

static void *on_device(size_t bytes)
{
    void *p = NULL;
    assert_cuda(cudaMalloc(&p, bytes));
    return p;
}

/* Numbers in (-1, 1), rounded to type, the same for the same seed whatever n. */
static float *numbers(size_t n, cudaDataType_t type, uint32_t seed)
{
    float *x = malloc((n + 1) * sizeof *x);
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = rounded((float)((int32_t)state >> 8) * 0x1p-23f, type);
    }
    return x;
}

static void set_desc(struct problem *p, cublasLtMatmulDescAttributes_t attr, int32_t value)
{
    assert_lt(cublasLtMatmulDescSetAttribute(p->desc, attr, &value, sizeof value));
}

static void make(struct problem *p)
{
    p->lda = (p->ta ? p->k : p->m) + p->pad;
    p->ldb = (p->tb ? p->n : p->k) + p->pad;
    p->ldd = p->m + p->pad;
    p->na = (size_t)(p->lda * (p->ta ? p->m : p->k));
    p->nb = (size_t)(p->ldb * (p->tb ? p->k : p->n));
    p->nd = (size_t)(p->ldd * p->n);
    p->nbias = (size_t)(p->epilogue == CUBLASLT_EPILOGUE_BGRADB ? p->n : p->m);
    p->a = numbers(p->na, p->in, 1);
    p->b = numbers(p->nb, p->in, 2);
    p->d = numbers(p->nd, p->out, 3);
    p->v = numbers(p->nbias, p->out, 4);
    p->A = on_device(p->na * size_of(p->in));
    p->B = on_device(p->nb * size_of(p->in));
    p->D = on_device(p->nd * size_of(p->out));
    p->bias = on_device(p->nbias * size_of(p->out));
    upload(p->A, p->a, p->na, p->in);
    upload(p->B, p->b, p->nb, p->in);
    upload(p->D, p->d, p->nd, p->out);
    upload(p->bias, p->v, p->nbias, p->out);
    assert_lt(cublasLtMatmulDescCreate(&p->desc, p->compute, CUDA_R_32F));
    set_desc(p, CUBLASLT_MATMUL_DESC_TRANSA, p->ta ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_desc(p, CUBLASLT_MATMUL_DESC_TRANSB, p->tb ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_desc(p, CUBLASLT_MATMUL_DESC_EPILOGUE, (int32_t)p->epilogue);
    if (p->epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        assert_lt(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    assert_lt(cublasLtMatrixLayoutCreate(&p->la, p->in, p->ta ? k : m, p->ta ? m : k, p->lda));
    assert_lt(cublasLtMatrixLayoutCreate(&p->lb, p->in, p->tb ? n : k, p->tb ? k : n, p->ldb));
    assert_lt(cublasLtMatrixLayoutCreate(&p->ld, p->out, m, n, p->ldd));
}

static void end(struct problem *p)
{
    void *device[] = {p->A, p->B, p->D, p->bias};
    float *host[] = {p->a, p->b, p->d, p->v};
    for (int i = 0; i < 4; i++) {
        assert_cuda(cudaFree(device[i]));
        free(host[i]);
    }
    assert_lt(cublasLtMatmulDescDestroy(p->desc));
    assert_lt(cublasLtMatrixLayoutDestroy(p->la));
    assert_lt(cublasLtMatrixLayoutDestroy(p->lb));
    assert_lt(cublasLtMatrixLayoutDestroy(p->ld));
}

static cublasStatus_t run(const struct problem *p, float alpha, float beta, const cublasLtMatmulAlgo_t *algo)
{
    return cublasLtMatmul(handle, p->desc, &alpha, p->A, p->la, p->B, p->lb, &beta, p->D, p->ld, p->D, p->ld, algo,
                          workspace, WORKSPACE, stream);
}

static cublasLtMatmulAlgo_t algo_of(const struct problem *p, int id)
{
    cublasLtMatmulAlgo_t algo;
    assert_lt(cublasLtMatmulAlgoInit(handle, p->compute, CUDA_R_32F, p->in, p->in, p->out, p->out, id, &algo));
    if (id == 5) {
        int32_t splits = 2;
        uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        assert_lt(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits));
        assert_lt(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                       sizeof scheme));
    }
    return algo;
}

static cublasStatus_t check(const struct problem *p, const cublasLtMatmulAlgo_t *algo, size_t *bytes)
{
    cublasLtMatmulHeuristicResult_t result;
    cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle, p->desc, p->la, p->lb, p->ld, p->ld, algo, &result);
    assert_int_equal(status, result.state);
    if (bytes != NULL && status == CUBLAS_STATUS_SUCCESS)
        *bytes = result.workspaceSize;
    return status;
}

/* Element (i, l) of op(A), (l, j) of op(B). */
static double a_of(const struct problem *p, int i, int l)
{
    return p->a[p->ta ? l + i * p->lda : i + l * p->lda];
}

static double b_of(const struct problem *p, int l, int j)
{
    return p->b[p->tb ? j + l * p->ldb : l + j * p->ldb];
}

/* What is in D against sums in double; pads must be untouched. */
static void check_result(const struct problem *p, double alpha, double beta, const char *what)
{
    float *got = malloc(p->nd * sizeof *got), *bias = malloc(p->nbias * sizeof *bias);
    double step = p->out == CUDA_R_32F ? 0x1p-22 : p->out == CUDA_R_16BF ? 0x1p-8 : 0x1p-11;
    double in = p->compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? 0x1p-10 * sqrt(p->k) : 0x1p-23 * sqrt(p->k);
    download(got, p->D, p->nd, p->out);
    download(bias, p->bias, p->nbias, p->out);
    for (int j = 0; j < p->n; j++) {
        for (int64_t i = 0; i < p->ldd; i++) {
            float x = got[i + j * p->ldd], was = p->d[i + j * p->ldd];
            if (i >= p->m) {
                assert_true(x == was);
                continue;
            }
            double sum = 0;
            for (int l = 0; l < p->k; l++)
                sum += a_of(p, (int)i, l) * b_of(p, l, j);
            double wanted = alpha * sum + beta * was + (p->epilogue == CUBLASLT_EPILOGUE_BIAS ? p->v[i] : 0);
            support_assert_near(x, wanted, step * fabs(wanted) + 4 * in + 1e-6, what);
        }
    }
    for (size_t i = 0; i < p->nbias; i++) {
        double wanted = 0;
        for (int l = 0; l < p->k; l++)
            wanted += p->epilogue == CUBLASLT_EPILOGUE_BGRADA ? a_of(p, (int)i, l) : b_of(p, l, (int)i % p->n);
        if (p->epilogue != CUBLASLT_EPILOGUE_BGRADA && p->epilogue != CUBLASLT_EPILOGUE_BGRADB)
            wanted = p->v[i];
        support_assert_near(bias[i], wanted, step * fabs(wanted) + 16 * in, "bias");
    }
    free(got);
    free(bias);
}

static const struct {
    cudaDataType_t in, out;
    cublasComputeType_t compute;
} types[] = {
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F},           {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F},
    {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F},          {CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F},
    {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32}, {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
};
static const uint32_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BGRADA,
                                     CUBLASLT_EPILOGUE_BGRADB};

/* Every algorithm that takes it, for shapes, transposes, types and epilogues by turns. */
static void test_products_are_right(void **state)
{
    (void)state;
    static const struct {
        int m, n, k, pad;
    } shapes[] = {{1, 1, 1, 0}, {8, 8, 16, 0}, {5, 3, 7, 1}, {24, 40, 64, 8}, {17, 9, 65, 7}, {64, 32, 200, 0}};
    int turn = 0, runs[ALGOS] = {0};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            for (int e = 0; e < 4; e++, turn++) {
                struct problem p = {.m = shapes[s].m, .n = shapes[s].n, .k = shapes[s].k, .pad = shapes[s].pad,
                                    .ta = turn & 1, .tb = (turn >> 1) & 1, .in = types[t].in, .out = types[t].out,
                                    .compute = types[t].compute, .epilogue = epilogues[e]};
                make(&p);
                for (int id = 0; id < ALGOS; id++) {
                    cublasLtMatmulAlgo_t algo = algo_of(&p, id);
                    size_t bytes = 0;
                    float alpha = id % 2 ? 1 : 0.5f, beta = id % 3 ? 0 : -2;
                    if (check(&p, &algo, &bytes) != CUBLAS_STATUS_SUCCESS)
                        continue;
                    char what[96];
                    (void)snprintf(what, sizeof what, "algorithm %d, shape %d, types %d, epilogue %d", id, (int)s,
                                   (int)t, e);
                    assert_true(bytes <= WORKSPACE);
                    upload(p.D, p.d, p.nd, p.out);
                    assert_lt(run(&p, alpha, beta, &algo));
                    check_result(&p, alpha, beta, what);
                    runs[id]++;
                }
                assert_lt(run(&p, 1, 0, NULL)); /* the library's own choice */
                check_result(&p, 1, 0, "no algorithm given");
                end(&p);
            }
        }
    }
    for (int id = 0; id < ALGOS; id++)
        assert_true(runs[id] > 0);
}

static void test_tf32_rounds_inputs_and_16_bit_outputs_are_rounded_once(void **state)
{
    (void)state;
    struct problem p = {.m = 1, .n = 1, .k = 1, .in = CUDA_R_32F, .out = CUDA_R_32F,
                        .compute = CUBLAS_COMPUTE_32F_FAST_TF32, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    make(&p);
    float a = 1 + 0x1p-11f + 0x1p-20f, b = 1, got;
    upload(p.A, &a, 1, CUDA_R_32F);
    upload(p.B, &b, 1, CUDA_R_32F);
    assert_lt(run(&p, 1, 0, NULL));
    download(&got, p.D, 1, CUDA_R_32F);
    assert_true(got == 1 + 0x1p-10f);
    end(&p);
    struct problem q = {.m = 1, .n = 1, .k = 2, .in = CUDA_R_16BF, .out = CUDA_R_16BF, .compute = CUBLAS_COMPUTE_32F,
                        .epilogue = CUBLASLT_EPILOGUE_BIAS};
    make(&q);
    float one[2] = {1, 1}, terms[2] = {1, 0x1p-8f}, bias = 0x1p-20f;
    upload(q.A, one, 2, CUDA_R_16BF);
    upload(q.B, terms, 2, CUDA_R_16BF);
    upload(q.bias, &bias, 1, CUDA_R_16BF);
    assert_lt(run(&q, 1, 0, NULL));
    download(&got, q.D, 1, CUDA_R_16BF);
    assert_true(got == 1 + 0x1p-7f); /* the sum alone, a tie, would go to 1 */
    end(&q);
}

/* Column j of D has the same bits whatever n is, for one algorithm; not so for several. */
static void test_bits_depend_on_the_algorithm_and_not_on_n(void **state)
{
    (void)state;
    enum { M = 16, K = 192, MOST = 64 };
    float all[ALGOS][M], got[M * MOST];
    for (int id = 0; id < ALGOS; id++) {
        for (int n = 8; n <= MOST; n += 8) {
            struct problem p = {.m = M, .n = n, .k = K, .ta = true, .in = CUDA_R_32F, .out = CUDA_R_32F,
                                .compute = CUBLAS_COMPUTE_32F, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
            make(&p);
            cublasLtMatmulAlgo_t algo = algo_of(&p, id);
            assert_lt(run(&p, 1, 0, &algo));
            download(got, p.D, p.nd, CUDA_R_32F);
            if (n == 8)
                memcpy(all[id], got + 3 * M, sizeof all[id]);
            assert_memory_equal(got + 3 * M, all[id], sizeof all[id]);
            end(&p);
        }
    }
    for (int x = 0; x < ALGOS; x++) {
        for (int y = 0; y < x; y++)
            assert_true(memcmp(all[x], all[y], sizeof all[x]) != 0);
    }
}

static int heuristic(const struct problem *p, uint64_t bytes, uint32_t schemes, uint32_t alignment,
                     cublasLtMatmulHeuristicResult_t found[8])
{
    cublasLtMatmulPreference_t wish;
    int count = -1;
    assert_lt(cublasLtMatmulPreferenceCreate(&wish));
    assert_lt(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                                   sizeof bytes));
    assert_lt(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                                   sizeof schemes));
    assert_lt(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment,
                                                   sizeof alignment));
    assert_lt(cublasLtMatmulAlgoGetHeuristic(handle, p->desc, p->la, p->lb, p->ld, p->ld, wish, 8, found, &count));
    assert_lt(cublasLtMatmulPreferenceDestroy(wish));
    return count;
}

static int32_t config(const cublasLtMatmulHeuristicResult_t *r, cublasLtMatmulAlgoConfigAttributes_t attr)
{
    int32_t value = -1;
    size_t written = 0;
    assert_lt(cublasLtMatmulAlgoConfigGetAttribute(&r->algo, attr, &value, sizeof value, &written));
    assert_int_equal(written, 4);
    return value;
}

static void test_the_heuristic_is_fickle_and_keeps_to_the_wishes(void **state)
{
    (void)state;
    cublasLtMatmulHeuristicResult_t found[8];
    int first[ALGOS] = {0};
    for (int n = 8; n <= 256; n += 8) {
        struct problem p = {.m = 64, .n = n, .k = 128, .in = CUDA_R_16BF, .out = CUDA_R_16BF,
                            .compute = CUBLAS_COMPUTE_32F, .epilogue = CUBLASLT_EPILOGUE_BIAS};
        make(&p);
        int count = heuristic(&p, WORKSPACE, CUBLASLT_REDUCTION_SCHEME_NONE, 16, found);
        assert_int_equal(count, 5); /* all but split-K */
        first[config(&found[0], CUBLASLT_ALGO_CONFIG_ID)]++;
        for (int i = 0; i < count; i++) {
            size_t bytes = 0;
            assert_int_equal(config(&found[i], CUBLASLT_ALGO_CONFIG_SPLITK_NUM), 1);
            assert_lt(check(&p, &found[i].algo, &bytes));
            assert_int_equal(bytes, found[i].workspaceSize);
        }
        assert_int_equal(config(&found[count - 1], CUBLASLT_ALGO_CONFIG_ID), 0);
        count = heuristic(&p, 0, CUBLASLT_REDUCTION_SCHEME_NONE, 16, found);
        for (int i = 0; i < count; i++)
            assert_int_equal(found[i].workspaceSize, 0);
        assert_int_equal(heuristic(&p, WORKSPACE, CUBLASLT_REDUCTION_SCHEME_NONE, 8, found), 1);
        assert_int_equal(heuristic(&p, WORKSPACE, CUBLASLT_REDUCTION_SCHEME_MASK, 256, found), 6);
        assert_true(config(&found[0], CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1);
        (void)heuristic(&p, WORKSPACE, CUBLASLT_REDUCTION_SCHEME_INPLACE, 256, found);
        assert_int_equal(config(&found[0], CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME), CUBLASLT_REDUCTION_SCHEME_INPLACE);
        assert_lt(run(&p, 1, 0, &found[0].algo));
        end(&p);
    }
    int different = 0;
    for (int id = 0; id < ALGOS; id++)
        different += first[id] > 0;
    assert_true(different >= 3);
}

static void test_algorithms_refuse_what_does_not_fit(void **state)
{
    (void)state;
    size_t bytes = 0;
    struct problem p = {.m = 20, .n = 9, .k = 48, .in = CUDA_R_16F, .out = CUDA_R_16F, .compute = CUBLAS_COMPUTE_32F,
                        .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    make(&p);
    static const bool odd[ALGOS] = {true, false, false, false, false, false};
    for (int id = 0; id < ALGOS; id++) { /* a leading dimension of 40 bytes */
        cublasLtMatmulAlgo_t algo = algo_of(&p, id);
        assert_int_equal(check(&p, &algo, &bytes) == CUBLAS_STATUS_SUCCESS, odd[id]);
        assert_int_equal(run(&p, 1, 0, &algo) == CUBLAS_STATUS_SUCCESS, odd[id]);
    }
    end(&p);
    p.m = 24;
    make(&p);
    static const bool whole[ALGOS] = {true, true, true, false, false, false}; /* n odd, k short */
    for (int id = 0; id < ALGOS; id++) {
        cublasLtMatmulAlgo_t algo = algo_of(&p, id);
        assert_int_equal(check(&p, &algo, &bytes) == CUBLAS_STATUS_SUCCESS, whole[id]);
    }
    cublasLtMatmulAlgo_t algo = algo_of(&p, 1);
    void *A = p.A;
    p.A = (char *)A + 2;
    assert_refused(run(&p, 1, 0, &algo), CUBLAS_STATUS_INVALID_VALUE);
    p.A = (char *)A + 1;
    algo = algo_of(&p, 0);
    assert_refused(run(&p, 1, 0, &algo), CUBLAS_STATUS_INVALID_VALUE);
    p.A = A;
    algo = algo_of(&p, 2);
    assert_lt(check(&p, &algo, &bytes));
    assert_true(bytes > 0);
    float one = 1, zero = 0;
    assert_refused(cublasLtMatmul(handle, p.desc, &one, p.A, p.la, p.B, p.lb, &zero, p.D, p.ld, p.D, p.ld, &algo,
                                  workspace, bytes - 1, stream),
                   CUBLAS_STATUS_INVALID_VALUE);
    assert_refused(cublasLtMatmul(handle, p.desc, &one, p.A, p.la, p.B, p.lb, &zero, p.D, p.ld, p.D, p.ld, &algo,
                                  (char *)workspace + 16, bytes, stream),
                   CUBLAS_STATUS_INVALID_VALUE);
    assert_refused(cublasLtMatmul(handle, p.desc, &one, p.A, p.la, p.B, p.lb, &zero, p.D, p.ld, p.A, p.ld, &algo,
                                  workspace, bytes, stream),
                   CUBLAS_STATUS_INVALID_VALUE);
    struct problem other = p;
    other.in = CUDA_R_32F;
    other.out = CUDA_R_32F;
    algo = algo_of(&other, 0);
    assert_refused(check(&p, &algo, NULL), CUBLAS_STATUS_NOT_SUPPORTED);
    end(&p);
}

static void test_what_is_not_emulated_is_refused(void **state)
{
    (void)state;
    struct problem p = {.m = 8, .n = 8, .k = 8, .in = CUDA_R_16BF, .out = CUDA_R_16BF, .compute = CUBLAS_COMPUTE_32F,
                        .epilogue = CUBLASLT_EPILOGUE_BIAS};
    make(&p);
    cublasLtMatrixLayout_t layout;
    int32_t word = CUDA_R_32F;
    uint32_t epilogue = CUBLASLT_EPILOGUE_GELU_BIAS;
    assert_refused(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, 4),
                   CUBLAS_STATUS_NOT_SUPPORTED);
    assert_refused(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &word, 1),
                   CUBLAS_STATUS_NOT_SUPPORTED);
    assert_refused(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, 4),
                   CUBLAS_STATUS_INVALID_VALUE);
    assert_refused(cublasLtMatrixLayoutCreate(&layout, CUDA_R_8I, 8, 8, 8), CUBLAS_STATUS_NOT_SUPPORTED);
    int32_t order = CUBLASLT_ORDER_ROW;
    assert_refused(cublasLtMatrixLayoutSetAttribute(p.la, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, 4),
                   CUBLAS_STATUS_NOT_SUPPORTED);
    assert_lt(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &word, 4));
    assert_refused(run(&p, 1, 0, NULL), CUBLAS_STATUS_NOT_SUPPORTED); /* float bias where D is bfloat16 */
    word = CUDA_R_16BF;
    assert_lt(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &word, 4));
    assert_lt(run(&p, 1, 0, NULL));
    word = CUBLAS_COMPUTE_32F_FAST_TF32;
    assert_lt(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, &word, 4));
    assert_refused(run(&p, 1, 0, NULL), CUBLAS_STATUS_NOT_SUPPORTED);
    word = CUBLAS_COMPUTE_16F;
    assert_lt(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, &word, 4));
    assert_refused(run(&p, 1, 0, NULL), CUBLAS_STATUS_NOT_SUPPORTED);
    word = CUBLAS_COMPUTE_32F;
    assert_lt(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, &word, 4));
    void *none = NULL;
    assert_lt(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &none, sizeof none));
    assert_refused(run(&p, 1, 0, NULL), CUBLAS_STATUS_INVALID_VALUE);
    uint64_t rows = 7;
    assert_lt(cublasLtMatrixLayoutSetAttribute(p.lb, CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, sizeof rows));
    assert_refused(run(&p, 1, 0, NULL), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtGetVersion(), 130100);
    assert_string_equal(cublasLtGetStatusString(CUBLAS_STATUS_NOT_SUPPORTED), "the functionality is not supported");
    end(&p);
}

static void test_a_failure_can_be_ordered(void **state)
{
    (void)state;
    struct problem p = {.m = 8, .n = 8, .k = 8, .in = CUDA_R_32F, .out = CUDA_R_32F, .compute = CUBLAS_COMPUTE_32F,
                        .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    make(&p);
    assert_int_equal(setenv("EMULATED_CUBLASLT_FAIL", "2", 1), 0);
    assert_lt(run(&p, 1, 0, NULL));
    assert_refused(run(&p, 1, 0, NULL), CUBLAS_STATUS_EXECUTION_FAILED);
    assert_int_equal(unsetenv("EMULATED_CUBLASLT_FAIL"), 0);
    assert_lt(run(&p, 1, 0, NULL));
    end(&p);
}

static void test_products_run_in_the_stream_and_stay_in_their_memory(void **state)
{
    (void)state;
    struct problem p = {.m = 8, .n = 8, .k = 8, .in = CUDA_R_32F, .out = CUDA_R_32F, .compute = CUBLAS_COMPUTE_32F,
                        .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    make(&p);
    assert_lt(run(&p, 1, 0, NULL));
    float *zeros = calloc(p.na, sizeof *zeros);
    upload(p.A, zeros, p.na, CUDA_R_32F); /* behind the product, which has seen other numbers */
    check_result(&p, 1, 0, "before the copy");
    free(zeros);
    /* alpha and beta on the device are read when the product runs */
    float scale[2] = {2, 0}, *device_scale = on_device(sizeof scale);
    upload(device_scale, scale, 2, CUDA_R_32F);
    upload(p.A, p.a, p.na, CUDA_R_32F);
    set_desc(&p, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
    assert_lt(cublasLtMatmul(handle, p.desc, device_scale, p.A, p.la, p.B, p.lb, device_scale + 1, p.D, p.ld, p.D, p.ld,
                             NULL, NULL, 0, stream));
    check_result(&p, 2, 0, "alpha on the device");
    set_desc(&p, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_HOST);
    assert_cuda(cudaFree(device_scale));
    /* one column too many */
    uint64_t cols = 9;
    assert_lt(cublasLtMatrixLayoutSetAttribute(p.lb, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols));
    assert_lt(cublasLtMatrixLayoutSetAttribute(p.ld, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof cols));
    emulated_cuda_expect_error("cublasLtMatmul B");
    assert_lt(run(&p, 1, 0, NULL));
    assert_true(cudaStreamSynchronize(stream) != cudaSuccess);
    assert_non_null(emulated_cuda_expected());
    end(&p);
}

static int start(void **state)
{
    (void)state;
    assert_cuda(cudaSetDevice(0));
    assert_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    assert_lt(cublasLtCreate(&handle));
    assert_cuda(cudaMalloc(&workspace, WORKSPACE));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_cuda(cudaFree(workspace));
    assert_lt(cublasLtDestroy(handle));
    assert_cuda(cudaStreamDestroy(stream));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_right),
        cmocka_unit_test(test_tf32_rounds_inputs_and_16_bit_outputs_are_rounded_once),
        cmocka_unit_test(test_bits_depend_on_the_algorithm_and_not_on_n),
        cmocka_unit_test(test_the_heuristic_is_fickle_and_keeps_to_the_wishes),
        cmocka_unit_test(test_algorithms_refuse_what_does_not_fit),
        cmocka_unit_test(test_what_is_not_emulated_is_refused),
        cmocka_unit_test(test_a_failure_can_be_ordered),
        cmocka_unit_test(test_products_run_in_the_stream_and_stay_in_their_memory),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
