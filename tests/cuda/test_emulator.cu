/*
 * test_emulator.cu - the emulated CUDA toolkit itself: every wrapper of base/cuda.cuh against plain
 * loops, streams, events and graphs, and kernels that are wrong on purpose, each of which must be
 * told or give a wrong result in one of the orders. Host code that must die, and settings that are
 * read once, run in child processes: this program with the case's name.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/cuda.cuh"

extern "C" {
#include "base/philox.h"
#include "emulated_cuda.h"
#include "tests/support/support.h"
}

static cudaStream_t first, second;

#define CUDA(call)                                                                                 \
    do {                                                                                           \
        cudaError_t cuda_ = (call);                                                                \
        if (cuda_ != cudaSuccess)                                                                  \
            fail_msg("%s: %s", #call, cudaGetErrorName(cuda_));                                    \
    } while (0)
#define FINISH(stream)                                                                             \
    do {                                                                                           \
        CUDA(cudaGetLastError());                                                                  \
        CUDA(cudaStreamSynchronize(stream));                                                       \
    } while (0)

/* Device memory with the numbers; freed by release(). */
static std::vector<void *> owned;
template <typename T> static T *device_array(size_t n)
{
    T *p;
    CUDA(cudaMalloc(&p, n * sizeof(T)));
    owned.push_back(p);
    return p;
}
template <typename T> static T *device_copy(const std::vector<T> &v)
{
    T *p = device_array<T>(v.size());
    CUDA(cudaMemcpyAsync(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice, first));
    return p;
}
template <typename T> static std::vector<T> host_copy(const T *p, size_t n)
{
    std::vector<T> v(n);
    CUDA(cudaMemcpyAsync(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, first));
    return v;
}
static void release(void)
{
    for (void *p : owned)
        CUDA(cudaFree(p));
    owned.clear();
}

static int setup(void **state)
{
    (void)state;
    emulated_cuda_order("forward");
    return cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking) ||
           cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
}

static int teardown(void **state)
{
    (void)state;
    release();
    return cudaStreamDestroy(first) || cudaStreamDestroy(second);
}

static const char *const ORDERS[] = {"forward", "reverse", "random:1", "random:7"};

/* ---- launches and indices */

template <typename T, int N> static __global__ void indices(T *out, T add)
{
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = (T)(block * N + thread) + add;
}

static void test_every_thread_runs_once(void **state)
{
    (void)state;
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        dim3 grid(3, 2, 2), block(5, 7, 2);
        int *out = device_array<int>(12 * 70);
        LAUNCH((indices<int, 1000>), grid, block, 0, first, out, 5);
        FINISH(first);
        std::vector<int> got = host_copy(out, 12 * 70);
        for (int b = 0; b < 12; b++)
            for (int t = 0; t < 70; t++)
                assert_int_equal(got[(size_t)(b * 70 + t)], b * 1000 + t + 5);
    }
}

struct plain_args {
    const float *x;
    int n;
    double scale;
};
static __global__ void with_struct(plain_args a, float *out, unsigned char bias)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < a.n)
        out[i] = (float)(a.x[i] * a.scale) + bias;
}

static void test_arguments_are_copied_at_the_launch(void **state)
{
    (void)state;
    std::vector<float> x(100);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = (float)i;
    float *out = device_array<float>(100);
    plain_args a = {device_copy(x), 100, 2.0};
    LAUNCH(with_struct, 4, 32, 0, first, a, out, 1);
    a.scale = 0;
    std::vector<float> got = host_copy(out, 100);
    for (size_t i = 0; i < 100; i++)
        assert_true(got[i] == 2.0f * (float)i + 1.0f);
}

/* ---- barriers, shared memory */

static __global__ void block_sum(const float *x, float *out)
{
    SHARED_ARRAY(float, sum, 96);
    DYN_SMEM(double, wide);
    sum[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (unsigned half = 48; half >= 3; half /= 2) {
        if (threadIdx.x < half)
            sum[threadIdx.x] += sum[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        wide[0] = (double)sum[0] + (double)sum[1] + (double)sum[2];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = (float)wide[0];
}

static void test_barriers_and_shared_memory(void **state)
{
    (void)state;
    std::vector<float> x(96 * 5);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = (float)(i % 37);
    float *dx = device_copy(x);
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        float *out = device_array<float>(x.size());
        LAUNCH(block_sum, 5, 96, 4 * sizeof(double), first, dx, out);
        std::vector<float> got = host_copy(out, x.size());
        for (size_t b = 0; b < 5; b++) {
            float want = 0;
            for (size_t i = 0; i < 96; i++)
                want += x[b * 96 + i];
            for (size_t i = 0; i < 96; i++)
                assert_true(got[b * 96 + i] == want);
        }
    }
}

/* ---- warp operations */

template <typename T> static __global__ void shuffles(const T *x, T *out)
{
    unsigned i = threadIdx.x;
    T v = x[i];
    out[0 * 64 + i] = __shfl_sync(0xffffffffu, v, 5);
    out[1 * 64 + i] = __shfl_sync(0xffffffffu, v, (int)(i + 3), 8);
    out[2 * 64 + i] = __shfl_xor_sync(0xffffffffu, v, 9);
    out[3 * 64 + i] = __shfl_up_sync(0xffffffffu, v, 2, 8);
    out[4 * 64 + i] = __shfl_down_sync(0xffffffffu, v, 3, 16);
    T half = v; /* two groups of one warp at the same time */
    if (i % 32 < 16)
        half = __shfl_xor_sync(0x0000ffffu, v, 1);
    else
        half = __shfl_xor_sync(0xffff0000u, v, 2);
    out[5 * 64 + i] = half;
}

template <typename T> static void shuffles_of(void)
{
    std::vector<T> x(64);
    for (size_t i = 0; i < 64; i++)
        x[i] = (T)(1000 + 7 * i) * (T)(sizeof(T) == 8 ? 1000003 : 1);
    T *dx = device_copy(x), *out = device_array<T>(6 * 64);
    LAUNCH(shuffles<T>, 1, 64, 0, first, dx, out);
    std::vector<T> got = host_copy(out, 6 * 64);
    for (size_t i = 0; i < 64; i++) {
        size_t w = i / 32 * 32, lane = i % 32;
        assert_true(got[i] == x[w + 5]);
        assert_true(got[64 + i] == x[w + lane / 8 * 8 + (i + 3) % 8]);
        assert_true(got[128 + i] == x[w + (lane ^ 9)]);
        assert_true(got[192 + i] == x[w + (lane % 8 < 2 ? lane : lane - 2)]);
        assert_true(got[256 + i] == x[w + (lane % 16 + 3 < 16 ? lane + 3 : lane)]);
        assert_true(got[320 + i] == x[w + (lane ^ (lane < 16 ? 1 : 2))]);
    }
}

static void test_shuffles(void **state)
{
    (void)state;
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        shuffles_of<int>();
        shuffles_of<unsigned>();
        shuffles_of<float>();
        shuffles_of<double>();
        shuffles_of<int64_t>();
    }
}

static __global__ void votes(const int *x, unsigned *out)
{
    SHARED_ARRAY(int, turn, 64);
    int v = x[threadIdx.x];
    out[threadIdx.x] = __ballot_sync(0xffffffffu, v > 3);
    out[64 + threadIdx.x] =
        (unsigned)(__any_sync(0xffffffffu, v == 9) * 2 + __all_sync(0xffffffffu, v < 10));
    turn[threadIdx.x] = v;
    __syncwarp();
    out[128 + threadIdx.x] = (unsigned)turn[threadIdx.x ^ 31u];
}

static void test_votes_and_syncwarp(void **state)
{
    (void)state;
    std::vector<int> x(64);
    for (int i = 0; i < 64; i++)
        x[(size_t)i] = i < 32 ? i % 10 : i % 7;
    int *dx = device_copy(x);
    unsigned ballot[2] = {0, 0};
    for (size_t i = 0; i < 64; i++)
        ballot[i / 32] |= (unsigned)(x[i] > 3) << (i % 32);
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        unsigned *out = device_array<unsigned>(192);
        LAUNCH(votes, 1, 64, 0, first, dx, out);
        std::vector<unsigned> got = host_copy(out, 192);
        for (size_t i = 0; i < 64; i++) {
            assert_int_equal(got[i], ballot[i / 32]);
            assert_int_equal(got[64 + i], i < 32 ? 3 : 1);
            assert_int_equal(got[128 + i], x[i ^ 31]);
        }
    }
}

/* ---- tensor cores and ldmatrix, by the layout that base/cuda.cuh states */

template <typename T>
static __global__ void product(const uint16_t *a, const uint16_t *b, const float *c, float *d)
{
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto A = [&](unsigned i, unsigned k) { return (uint32_t)a[i * 16 + k]; };
    auto B = [&](unsigned k, unsigned j) { return (uint32_t)b[k * 8 + j]; };
    uint32_t fa[4] = {
        A(g, 2 * t) | A(g, 2 * t + 1) << 16, A(g + 8, 2 * t) | A(g + 8, 2 * t + 1) << 16,
        A(g, 2 * t + 8) | A(g, 2 * t + 9) << 16, A(g + 8, 2 * t + 8) | A(g + 8, 2 * t + 9) << 16};
    uint32_t fb[2] = {B(2 * t, g) | B(2 * t + 1, g) << 16, B(2 * t + 8, g) | B(2 * t + 9, g) << 16};
    float acc[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t],
                    c[(g + 8) * 8 + 2 * t + 1]};
    mma_16816<T>(acc, fa, fb);
    d[g * 8 + 2 * t] = acc[0];
    d[g * 8 + 2 * t + 1] = acc[1];
    d[(g + 8) * 8 + 2 * t] = acc[2];
    d[(g + 8) * 8 + 2 * t + 1] = acc[3];
}

template <typename T> static void product_of(void)
{
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> c(128), fa(256), fb(128);
    for (size_t i = 0; i < 256; i++) { /* whole numbers: sums are exact in any order */
        fa[i] = (float)((int)(i * 7 % 23) - 11);
        a[i] = from_float<T>(fa[i]).bits;
    }
    for (size_t i = 0; i < 128; i++) {
        fb[i] = (float)((int)(i * 5 % 19) - 9);
        b[i] = from_float<T>(fb[i]).bits;
        c[i] = (float)i * 0.5f;
    }
    float *d = device_array<float>(128);
    uint16_t *da = device_copy(a), *db = device_copy(b);
    float *dc = device_copy(c);
    LAUNCH(product<T>, 1, 32, 0, first, da, db, dc, d);
    std::vector<float> got = host_copy(d, 128);
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 8; j++) {
            float want = c[i * 8 + j];
            for (size_t k = 0; k < 16; k++)
                want += fa[i * 16 + k] * fb[k * 8 + j];
            assert_true(got[i * 8 + j] == want);
        }
}

static void test_mma_is_a_product(void **state)
{
    (void)state;
    product_of<bf16>();
    product_of<fp16>();
}

/* Row i of matrix m of the manual's figure holds 100 m + 10 i + column. */
static __global__ void matrices(uint32_t *out)
{
    SHARED_ARRAY(uint16_t, s, 4 * 8 * 24); /* rows 24 apart: the addresses are what counts */
    for (unsigned i = threadIdx.x; i < 4 * 8 * 8; i += 32)
        s[i / 8 * 24 + i % 8] = (uint16_t)(i / 64 * 100 + i / 8 % 8 * 10 + i % 8);
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4(r, &s[threadIdx.x * 24]);
    for (unsigned m = 0; m < 4; m++)
        out[threadIdx.x * 8 + m] = r[m];
    ldmatrix_x4_trans(r, &s[threadIdx.x * 24]);
    for (unsigned m = 0; m < 4; m++)
        out[threadIdx.x * 8 + 4 + m] = r[m];
}

static void test_ldmatrix(void **state)
{
    (void)state;
    uint32_t *out = device_array<uint32_t>(32 * 8);
    LAUNCH(matrices, 1, 32, 0, first, out);
    std::vector<uint32_t> got = host_copy(out, 32 * 8);
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned m = 0; m < 4; m++) {
            unsigned row = lane / 4, column = 2 * (lane % 4);
            unsigned lo = m * 100 + row * 10 + column, lo_trans = m * 100 + column * 10 + row;
            assert_int_equal(got[lane * 8 + m], lo | (lo + 1) << 16);
            assert_int_equal(got[lane * 8 + 4 + m], lo_trans | (lo_trans + 10) << 16);
        }
}

/* ---- 16-bit floats */

static void test_halves_round_to_even(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint16_t bf16_bits, fp16_bits;
    } rows[] = {
        {0.0f, 0x0000, 0x0000},
        {-0.0f, 0x8000, 0x8000},
        {1.0f, 0x3f80, 0x3c00},
        {-2.0f, 0xc000, 0xc000},
        {65504.0f, 0x4780, 0x7bff},
        {65519.0f, 0x4780, 0x7bff},
        {65520.0f, 0x4780, 0x7c00},
        {1e6f, 0x4974, 0x7c00},
        {-1e6f, 0xc974, 0xfc00},
        {INFINITY, 0x7f80, 0x7c00},
        {0x1p-14f, 0x3880, 0x0400},
        {0x1p-24f, 0x3380, 0x0001},   /* the smallest subnormal */
        {0x1p-25f, 0x3300, 0x0000},   /* half of it: to even */
        {0x1.8p-24f, 0x33c0, 0x0002}, /* one and a half: to even */
        {0x1.000002p-25f, 0x3300, 0x0001},
        {0x1.ff8p-15f, 0x3880, 0x03ff}, /* the largest subnormal */
        {0x1.ffcp-15f, 0x3880, 0x0400}, /* half way to the smallest normal */
        {0x1.002p0f, 0x3f80, 0x3c00},   /* 1 + 2^-11: half way, to even */
        {0x1.006p0f, 0x3f80, 0x3c02},
        {0x1.01p0f, 0x3f80, 0x3c04}, /* 1 + 2^-8: half way for bf16 */
        {0x1.03p0f, 0x3f82, 0x3c0c},
        {0x1.010002p0f, 0x3f81, 0x3c04},
        {3.4e38f, 0x7f80, 0x7c00},
    };
    for (const auto &row : rows) {
        assert_int_equal(from_float<bf16>(row.x).bits, row.bf16_bits);
        assert_int_equal(from_float<fp16>(row.x).bits, row.fp16_bits);
    }
    assert_true(isnan(to_float(from_float<bf16>(NAN))) && isnan(to_float(from_float<fp16>(NAN))));
    assert_int_equal(pack2<bf16>(1.0f, -2.0f), 0xc0003f80u);
    assert_int_equal(pack2<fp16>(1.0f, -2.0f), 0xc0003c00u);
    for (unsigned i = 0; i < 65536; i++) { /* every number comes back; nothing is in between */
        fp16 h = {(uint16_t)i};
        bf16 b = {(uint16_t)i};
        if (!isnan(to_float(h)))
            assert_int_equal(from_float<fp16>(to_float(h)).bits, i);
        if (!isnan(to_float(b)))
            assert_int_equal(from_float<bf16>(to_float(b)).bits, i);
        if ((i & 0x7fff) < 0x7c00) {
            int e = (int)(i >> 10 & 31), f = (int)(i & 1023);
            double want = ldexp(e ? 1024 + f : f, (e ? e : 1) - 25);
            assert_true(to_float(h) == (float)(i & 0x8000 ? -want : want));
        }
    }
}

/* ---- asynchronous copies */

template <bool Wait> static __global__ void staged(const float *x, float *out, int n)
{
    SHARED_ARRAY(float, stage, 2 * 128);
    int steps = (n + 127) / 128;
    unsigned at = threadIdx.x * 4;
    for (int s = 0; s < steps; s++) {
        if (s == 0) {
            cp_async16(&stage[at], &x[at], (int)at < n);
            cp_async_commit();
        }
        if (s + 1 < steps) {
            int from = (s + 1) * 128 + (int)at;
            cp_async16(&stage[(s + 1) % 2 * 128 + (int)at], &x[from < n ? from : 0], from < n);
        }
        cp_async_commit();
        if (Wait)
            cp_async_wait<1>();
        __syncthreads();
        for (unsigned i = 0; i < 4; i++)
            out[s * 128 + (int)(127 - at - i)] = stage[s % 2 * 128 + (int)(at + i)];
        __syncthreads();
    }
}

static void test_cp_async(void **state)
{
    (void)state;
    std::vector<float> x(128 * 4);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = (float)i;
    float *dx = device_copy(x), *out = device_array<float>(x.size());
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        LAUNCH(staged<true>, 1, 32, 0, first, dx, out, 128 * 3 + 64);
        std::vector<float> got = host_copy(out, x.size());
        for (size_t i = 0; i < x.size(); i++) {
            size_t from = i / 128 * 128 + 127 - i % 128;
            assert_true(got[i] == (from < 128 * 3 + 64 ? x[from] : 0.0f));
        }
    }
}

/* ---- atomics, bits, math, Philox */

static __global__ void whole_atomics(int *i, unsigned *u, unsigned long long *l)
{
    SHARED_ARRAY(int, most, 1);
    if (threadIdx.x == 0)
        most[0] = -100;
    __syncthreads();
    atomicMax(&most[0], (int)(threadIdx.x * 7 % 50));
    atomicAdd(i, (int)threadIdx.x - 10);
    atomicOr(u, 1u << (threadIdx.x % 31));
    atomicAdd(l, 1ull << 33);
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(i + 1, most[0]);
}

static void test_atomics(void **state)
{
    (void)state;
    int *i = device_copy(std::vector<int>{0, 0});
    unsigned *u = device_copy(std::vector<unsigned>{0});
    unsigned long long *l = device_copy(std::vector<unsigned long long>{0});
    LAUNCH(whole_atomics, 3, 64, 0, first, i, u, l);
    std::vector<int> got = host_copy(i, 2);
    assert_int_equal(got[0], 3 * (63 * 64 / 2 - 640));
    assert_int_equal(got[1], 3 * 49);
    assert_int_equal(host_copy(u, 1)[0], 0x7fffffffu);
    assert_true(host_copy(l, 1)[0] == 192ull << 33);
}

static __global__ void functions(float *out)
{
    float x = 0.25f * (float)(threadIdx.x + 1);
    float *o = out + threadIdx.x * 12;
    o[0] = rsqrtf(x);
    o[1] = fmaf(x, x, 1.0f);
    o[2] = erff(x) + expf(x) + logf(x) + tanhf(x);
    o[3] = min(x, 2.0f) + max(x, 3.0f);
    o[4] = (float)(min((int64_t)threadIdx.x, (int64_t)3) + max(2, (int)threadIdx.x));
    o[5] = (float)(__popc(threadIdx.x) * 10000 + __ffs((int)threadIdx.x) * 100 +
                   __clz((int)threadIdx.x));
    o[6] = __uint_as_float(__float_as_uint(x) ^ 0x80000000u);
    o[7] = (float)(mul_high(0xffffffffu, threadIdx.x + 1) + 1);
    o[8] = __fadd_rn(__fmul_rn(x, x), 1.0f);
    float4 v = make_float4(x, 1, 2, 3);
    int2 w = make_int2(4, 5);
    o[9] = v.x + v.w + (float)w.y;
    o[10] = __ldg(&out[threadIdx.x * 12]);
    o[11] = (float)(sizeof(float4) + sizeof(float2) + alignof(float4) + alignof(ushort4));
}

static void test_functions(void **state)
{
    (void)state;
    float *out = device_array<float>(64 * 12);
    LAUNCH(functions, 1, 64, 0, first, out);
    std::vector<float> got = host_copy(out, 64 * 12);
    for (unsigned i = 0; i < 64; i++) {
        const float *o = &got[i * 12], x = 0.25f * (float)(i + 1);
        assert_true(o[0] == 1.0f / sqrtf(x) && o[1] == fmaf(x, x, 1.0f));
        assert_true(o[2] == erff(x) + expf(x) + logf(x) + tanhf(x));
        assert_true(o[3] == (x < 2 ? x : 2) + (x > 3 ? x : 3));
        assert_true(o[4] == (float)((i < 3 ? i : 3) + (i > 2 ? i : 2)));
        assert_true(o[5] == (float)(__builtin_popcount(i) * 10000 + __builtin_ffs((int)i) * 100 +
                                    (i ? __builtin_clz(i) : 32)));
        assert_true(o[6] == -x && o[7] == (float)(i + 1));
        assert_true(o[8] == x * x + 1.0f && o[9] == x + 3 + 5 && o[10] == o[0]);
        assert_true(o[11] == 16 + 8 + 16 + 8);
    }
}

static __global__ void random_bits(uint32_t *out, uint64_t seed)
{
    uint64_t key = device_random_key(seed, RANDOM_DROPOUT, threadIdx.x, 5);
    philox_bits p = device_philox(key, threadIdx.x, 1, 2, 0xffffffffu);
    for (int i = 0; i < 4; i++)
        out[threadIdx.x * 4 + (unsigned)i] = p.v[i];
}

static void test_device_philox_is_philox(void **state)
{
    (void)state;
    uint32_t *out = device_array<uint32_t>(256);
    LAUNCH(random_bits, 1, 64, 0, first, out, 0x123456789abcdefu);
    std::vector<uint32_t> got = host_copy(out, 256);
    for (uint32_t i = 0; i < 64; i++) {
        philox p =
            philox4x32(random_key(0x123456789abcdefu, RANDOM_DROPOUT, i, 5), i, 1, 2, 0xffffffffu);
        assert_memory_equal(&got[i * 4], p.v, 16);
    }
}

/* ---- streams, events, copies, graphs */

static __global__ void add(float *x, float v, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        x[i] += v;
}
static __global__ void times(const float *x, float *y, float v, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        y[i] = x[i] * v;
}

static void test_streams_are_lazy(void **state)
{
    (void)state;
    int64_t before = emulated_cuda_counts().launches;
    float *x = device_copy(std::vector<float>(8));
    FINISH(first);
    LAUNCH(add, 1, 8, 0, first, x, 1.0f, 8);
    LAUNCH(add, 1, 8, 0, first, x, 1.0f, 8);
    assert_int_equal(emulated_cuda_counts().launches, before);
    assert_int_equal(cudaStreamQuery(first), cudaErrorNotReady); /* one of the two */
    assert_int_equal(emulated_cuda_counts().launches, before + 1);
    assert_int_equal(cudaStreamQuery(first), cudaSuccess);
    assert_int_equal(emulated_cuda_counts().launches, before + 2);
    assert_int_equal(cudaStreamQuery(second), cudaSuccess);
    assert_true(host_copy(x, 8)[7] == 2.0f);
}

static void test_events_order_streams(void **state)
{
    (void)state;
    cudaEvent_t e, begin, end;
    CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    CUDA(cudaEventCreateWithFlags(&begin, cudaEventDefault));
    CUDA(cudaEventCreateWithFlags(&end, cudaEventDefault));
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        float *x = device_copy(std::vector<float>(8)), *y = device_array<float>(8);
        FINISH(first);
        CUDA(cudaEventRecord(begin, first));
        LAUNCH(add, 1, 8, 0, first, x, 3.0f, 8);
        CUDA(cudaEventRecord(e, first));
        CUDA(cudaStreamWaitEvent(second, e, 0));
        LAUNCH(times, 1, 8, 0, second, x, y, 2.0f, 8);
        CUDA(cudaEventRecord(end, second));
        CUDA(cudaStreamWaitEvent(first, end, 0));
        LAUNCH(add, 1, 8, 0, first, x, 100.0f, 8);
        float ms = -1;
        assert_int_equal(cudaEventElapsedTime(&ms, begin, end), cudaErrorNotReady);
        CUDA(cudaEventSynchronize(end));
        CUDA(cudaEventElapsedTime(&ms, begin, end));
        assert_true(ms >= 0);
        assert_int_equal(cudaEventElapsedTime(&ms, e, end), cudaErrorInvalidResourceHandle);
        (void)cudaGetLastError();
        assert_true(host_copy(x, 8)[0] == 103.0f);
        assert_true(host_copy(y, 8)[0] == 6.0f);
    }
    CUDA(cudaEventDestroy(e));
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
}

static void test_copies_and_fills(void **state)
{
    (void)state;
    unsigned char *a = device_array<unsigned char>(100), *b = device_array<unsigned char>(100);
    unsigned char *pin;
    CUDA(cudaMallocHost(&pin, 100));
    std::vector<unsigned char> pageable(100, 3);
    CUDA(cudaMemsetAsync(a, 7, 100, first));
    CUDA(cudaMemcpyAsync(a + 10, pageable.data(), 20, cudaMemcpyHostToDevice, first));
    pageable.assign(100, 9); /* was copied at the call */
    CUDA(cudaMemcpyAsync(b, a, 100, cudaMemcpyDeviceToDevice, first));
    CUDA(cudaMemcpyAsync(pin, b, 100, cudaMemcpyDeviceToHost, first));
    assert_int_equal(pin[0], 0xff); /* not yet */
    FINISH(first);
    assert_int_equal(pin[0], 7);
    assert_int_equal(pin[10], 3);
    assert_int_equal(pin[30], 7);
    assert_int_equal(cudaMemcpyAsync(a, pin, 100, cudaMemcpyDeviceToHost, first),
                     cudaErrorInvalidValue);
    (void)cudaGetLastError();
    CUDA(cudaFreeHost(pin));
}

static void graph_of(cudaGraphExec_t *exec, float *x, float *y, float *pin)
{
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    CUDA(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CUDA(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    CUDA(cudaMemcpyAsync(x, pin, 32, cudaMemcpyHostToDevice, first));
    CUDA(cudaEventRecord(fork, first));
    CUDA(cudaStreamWaitEvent(second, fork, 0));
    LAUNCH(times, 1, 8, 0, second, x, y, 10.0f, 8);
    CUDA(cudaEventRecord(join, second));
    CUDA(cudaStreamWaitEvent(first, join, 0));
    LAUNCH(add, 1, 8, 0, first, y, 1.0f, 8);
    enum cudaStreamCaptureStatus status;
    CUDA(cudaStreamIsCapturing(second, &status));
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    CUDA(cudaStreamEndCapture(first, &graph));
    CUDA(cudaStreamIsCapturing(second, &status));
    assert_int_equal(status, cudaStreamCaptureStatusNone);
    CUDA(cudaGraphInstantiate(exec, graph, 0));
    CUDA(cudaGraphDestroy(graph));
    CUDA(cudaEventDestroy(fork));
    CUDA(cudaEventDestroy(join));
}

static void test_graphs_replay(void **state)
{
    (void)state;
    float *x = device_array<float>(8), *y = device_array<float>(8), *pin;
    CUDA(cudaMallocHost(&pin, 32));
    cudaGraphExec_t exec;
    int64_t before = emulated_cuda_counts().launches;
    graph_of(&exec, x, y, pin);
    assert_int_equal(emulated_cuda_counts().launches, before); /* captured, not run */
    for (const char *order : ORDERS) {
        emulated_cuda_order(order);
        for (int i = 0; i < 3; i++) {
            pin[0] = (float)i;
            for (int k = 1; k < 8; k++)
                pin[k] = 0;
            CUDA(cudaGraphLaunch(exec, first));
            LAUNCH(add, 1, 8, 0, first, y, 1000.0f, 8);
            assert_true(host_copy(y, 8)[0] == (float)i * 10 + 1001);
        }
    }
    CUDA(cudaGraphExecDestroy(exec));
    CUDA(cudaFreeHost(pin));
}

static void test_captures_forbid_what_cuda_forbids(void **state)
{
    (void)state;
    cudaGraph_t graph;
    void *p;
    float *x = device_copy(std::vector<float>(8));
    std::vector<float> pageable(8);
    FINISH(first);
    CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaMalloc(&p, 8), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);

    CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaStreamSynchronize(first), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);

    CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaMemcpyAsync(x, pageable.data(), 32, cudaMemcpyHostToDevice, first),
                     cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);

    cudaEvent_t e; /* a stream that joined and is never joined back */
    CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    LAUNCH(add, 1, 8, 0, first, x, 1.0f, 8);
    CUDA(cudaEventRecord(e, first));
    CUDA(cudaStreamWaitEvent(second, e, 0));
    LAUNCH(add, 1, 8, 0, second, x, 1.0f, 8);
    assert_int_equal(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureUnjoined);
    (void)cudaGetLastError();
    CUDA(cudaEventRecord(e, second)); /* now outside a capture */
    CUDA(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaStreamWaitEvent(first, e, 0), cudaErrorStreamCaptureIsolation);
    assert_int_equal(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);
    (void)cudaGetLastError();
    CUDA(cudaEventDestroy(e));
    FINISH(second);
    assert_true(host_copy(x, 8)[0] == 0.0f);
}

static int calls_left;
static bool poll_thrice(void *arg)
{
    **(float **)arg += 1.0f;
    return --calls_left == 0;
}
static void run_once(void *arg)
{
    **(float **)arg *= 5.0f;
}
static void host_note(void *arg)
{
    *(int *)arg += 1;
}

static void test_operations_of_libraries(void **state)
{
    (void)state;
    float *x = device_copy(std::vector<float>{1.0f});
    int noted = 0;
    CUDA(emulated_enqueue(first, run_once, &x, sizeof x, "times five"));
    CUDA(emulated_enqueue_poll(first, poll_thrice, &x, sizeof x, "plus three"));
    CUDA(cudaLaunchHostFunc(first, host_note, &noted));
    calls_left = 3;
    int asked = 0;
    while (cudaStreamQuery(first) == cudaErrorNotReady)
        asked++;
    assert_int_equal(asked, 3); /* one operation; two polls that are not the last */
    assert_int_equal(noted, 1);
    calls_left = 3;
    CUDA(emulated_enqueue_poll(first, poll_thrice, &x, sizeof x, "plus three"));
    CUDA(cudaStreamSynchronize(first));
    assert_true(host_copy(x, 1)[0] == 11.0f);
    assert_int_equal(emulated_stream_device(first), 0);
}

static void test_calls_that_are_wrong(void **state)
{
    (void)state;
    float *x = device_copy(std::vector<float>(8));
    void *p;
    emulated_cuda_expect_error("1025");
    LAUNCH(add, 1, 1025, 0, first, x, 1.0f, 8);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_non_null(emulated_cuda_expected());
    emulated_cuda_expect_error("dynamic shared memory");
    LAUNCH(add, 1, 8, 49153, first, x, 1.0f, 8);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_non_null(emulated_cuda_expected());
    CUDA(LAUNCH_ALLOW_SMEM(add, 100000));
    LAUNCH(add, 1, 8, 100000, first, x, 1.0f, 8);
    FINISH(first);
    assert_int_equal(LAUNCH_ALLOW_SMEM(add, 300000), cudaErrorInvalidValue);
    emulated_cuda_expect_error("");
    LAUNCH(add, 0, 8, 0, first, x, 1.0f, 8);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_non_null(emulated_cuda_expected());
    assert_int_equal(cudaMalloc(&p, (size_t)1 << 50), cudaErrorMemoryAllocation);
    assert_null(p);
    assert_int_equal(cudaSetDevice(100), cudaErrorInvalidDevice);
    assert_int_equal(cudaFree(x + 1), cudaErrorInvalidValue);
    (void)cudaGetLastError();
    emulated_cuda_expect_error("cudaMemsetAsync of 33 bytes");
    assert_int_equal(cudaMemsetAsync(x, 0, 33, first), cudaErrorInvalidValue);
    assert_non_null(emulated_cuda_expected());
    emulated_cuda_expect_error("default stream");
    LAUNCH(add, 1, 8, 0, nullptr, x, 1.0f, 8);
    assert_non_null(emulated_cuda_expected());
    assert_true(host_copy(x, 8)[0] == 1.0f); /* by the one launch that was right */
}

static void test_nothing_is_left(void **state)
{
    (void)state;
    struct emulated_cuda_counts c = emulated_cuda_counts();
    assert_int_equal(c.allocations, 0);
    assert_int_equal(c.bytes, 0);
    assert_int_equal(c.pinned, 0);
    assert_int_equal(c.graphs, 0);
    assert_int_equal(c.events, 0);
    assert_int_equal(c.streams, 2); /* of this test */
}

/* ---- wrong on purpose. Each is told, or gives a wrong result, in one of two orders. */

/* What `broken` does to out[0..32) on the streams; each wanted to become 1.0 everywhere. */
static bool detected(void (*broken)(float *out), const char *text)
{
    int seen = 0;
    for (const char *order : {"forward", "reverse"}) {
        emulated_cuda_order(order);
        float *out = device_copy(std::vector<float>(32));
        FINISH(first);
        emulated_cuda_expect_error(text);
        broken(out);
        cudaError_t e = cudaStreamSynchronize(first);
        e = e ? e : cudaStreamSynchronize(second);
        const char *line = emulated_cuda_expected();
        if (line)
            seen++;
        else {
            assert_int_equal(e, cudaSuccess);
            for (float x : host_copy(out, 32))
                if (!(x == 1.0f)) {
                    seen++;
                    break;
                }
        }
    }
    return seen > 0;
}

template <bool Barrier> static __global__ void neighbours(float *out)
{
    SHARED_ARRAY(float, s, 64);
    s[threadIdx.x] = 1.0f;
    if (Barrier)
        __syncthreads();
    if (threadIdx.x < 32)
        out[threadIdx.x] = s[63 - threadIdx.x];
}
static void launch_neighbours(float *out)
{
    LAUNCH(neighbours<true>, 1, 64, 0, first, out);
}
static void launch_no_barrier(float *out)
{
    LAUNCH(neighbours<false>, 1, 64, 0, first, out);
}

template <bool Sync> static __global__ void lanes(float *out)
{
    SHARED_ARRAY(float, s, 32);
    s[threadIdx.x] = 1.0f;
    if (Sync)
        __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 16u];
}
static void launch_lanes(float *out)
{
    LAUNCH(lanes<true>, 1, 32, 0, first, out);
}
static void launch_no_syncwarp(float *out)
{
    LAUNCH(lanes<false>, 1, 32, 0, first, out);
}

static __global__ void some_barrier(float *out)
{
    if (threadIdx.x < 20)
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}
static void launch_some_barrier(float *out)
{
    LAUNCH(some_barrier, 1, 32, 0, first, out);
}
static __global__ void two_barriers(float *out)
{
    if (threadIdx.x < 20)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}
static void launch_two_barriers(float *out)
{
    LAUNCH(two_barriers, 1, 32, 0, first, out);
}
static __global__ void half_warp(float *out)
{
    float v = 1.0f;
    if (threadIdx.x < 16)
        v = __shfl_xor_sync(0xffffffffu, v, 1);
    out[threadIdx.x] = v;
}
static void launch_half_warp(float *out)
{
    LAUNCH(half_warp, 1, 32, 0, first, out);
}
static void launch_short_warp(float *out)
{
    LAUNCH(half_warp, 1, 20, 0, first, out);
}
static __global__ void left_out(float *out)
{
    out[threadIdx.x] = __shfl_xor_sync(0x7fffffffu, 1.0f, 1);
}
static void launch_left_out(float *out)
{
    LAUNCH(left_out, 1, 32, 0, first, out);
}
static __global__ void overrun(float *out, unsigned n)
{
    out[threadIdx.x] = 1.0f;
    out[n + threadIdx.x % 2] = 2.0f;
}
static void launch_overrun(float *out)
{
    LAUNCH(overrun, 1, 32, 0, first, out, 32u);
}
static void launch_wild(float *out)
{
    LAUNCH(overrun, 1, 32, 0, first, out, 0xf0000000u);
}
static __global__ void shared_overrun(float *out)
{
    SHARED_ARRAY(float, a, 32);
    SHARED_ARRAY(float, b, 32);
    float *start = a;
    start[threadIdx.x + 1] = 1.0f; /* a[32] is not b[0] here */
    b[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = b[threadIdx.x];
}
static void launch_shared_overrun(float *out)
{
    LAUNCH(shared_overrun, 1, 32, 0, first, out);
}
static __global__ void unwritten(float *out)
{
    SHARED_ARRAY(float, s, 33);
    s[threadIdx.x] = 0.0f;
    __syncthreads();
    if (threadIdx.x == 5)
        out[threadIdx.x] = 1.0f + s[32];
    else
        out[threadIdx.x] = 1.0f;
}
static void launch_unwritten(float *out)
{
    LAUNCH(unwritten, 1, 32, 0, first, out);
}
static __global__ void copy_of(const float *x, float *out)
{
    out[threadIdx.x] = x[threadIdx.x];
}
static void launch_fresh_memory(float *out)
{
    float *fresh = device_array<float>(32);
    LAUNCH(copy_of, 1, 32, 0, first, fresh, out);
}
static float *ones(void)
{
    float *x = device_copy(std::vector<float>(1024, 1.0f));
    FINISH(first);
    return x;
}
static void launch_no_async_wait(float *out)
{
    float *x = ones(), *y = device_array<float>(128);
    LAUNCH(staged<false>, 1, 32, 0, first, x, y, 128);
    LAUNCH(copy_of, 1, 32, 0, first, y, out);
}
/* The second stream fills what the first one reads. */
static void fill_and_read(float *out, bool wait)
{
    float *x = device_copy(std::vector<float>(32)), *from = ones();
    cudaEvent_t e;
    CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    LAUNCH(copy_of, 1, 32, 0, second, from, x);
    CUDA(cudaEventRecord(e, second));
    if (wait)
        CUDA(cudaStreamWaitEvent(first, e, 0));
    LAUNCH(copy_of, 1, 32, 0, first, x, out);
    CUDA(cudaEventDestroy(e));
}
static void launch_waits(float *out)
{
    fill_and_read(out, true);
}
static void launch_no_wait(float *out)
{
    fill_and_read(out, false);
}
/* The second stream overwrites what the first one still reads. */
static void launch_overwritten(float *out)
{
    float *x = ones(), *from = device_copy(std::vector<float>(32));
    FINISH(first);
    LAUNCH(copy_of, 1, 32, 0, first, x, out);
    LAUNCH(copy_of, 1, 32, 0, second, from, x);
}
static void staging(float *out, bool wait)
{
    float *pin;
    CUDA(cudaMallocHost(&pin, 128));
    for (int i = 0; i < 32; i++)
        pin[i] = 1.0f;
    CUDA(cudaMemcpyAsync(out, pin, 128, cudaMemcpyHostToDevice, first));
    if (wait)
        CUDA(cudaStreamSynchronize(first));
    pin[3] = 2.0f; /* the next step's numbers */
    CUDA(cudaFreeHost(pin));
}
static void launch_staging(float *out)
{
    staging(out, true);
}
static void launch_early_staging(float *out)
{
    staging(out, false);
}
/* Blocks have no order among each other. */
static __global__ void chain(float *out, float *cell)
{
    if (blockIdx.x == 0 && threadIdx.x == 0)
        cell[0] = 1.0f;
    if (blockIdx.x == 1)
        out[threadIdx.x] = cell[0];
}
static void launch_chain(float *out)
{
    float *cell = device_copy(std::vector<float>(1));
    LAUNCH(chain, 2, 32, 0, first, out, cell);
}

static void test_right_kernels_are_not_reported(void **state)
{
    (void)state;
    assert_false(detected(launch_neighbours, ""));
    assert_false(detected(launch_lanes, ""));
    assert_false(detected(launch_waits, ""));
    assert_false(detected(launch_staging, ""));
}

static void test_missing_barriers(void **state)
{
    (void)state;
    assert_true(detected(launch_no_barrier, ""));
    assert_true(detected(launch_no_syncwarp, ""));
    assert_true(detected(launch_no_async_wait, ""));
    assert_true(detected(launch_chain, ""));
}

static void test_divergence(void **state)
{
    (void)state;
    static const struct {
        void (*broken)(float *);
        const char *text;
    } rows[] = {
        {launch_some_barrier, "20 of 32 threads wait in __syncthreads at "},
        {launch_two_barriers, "different __syncthreads"},
        {launch_half_warp, "16 of 32 threads wait in a shuffle"},
        {launch_short_warp, "the warp only lanes 0x000fffff"},
        {launch_left_out, "lane 31 calls a shuffle"},
    };
    for (const auto &row : rows)
        for (const char *order : ORDERS) {
            emulated_cuda_order(order);
            float *out = device_copy(std::vector<float>(32));
            emulated_cuda_expect_error(row.text);
            row.broken(out);
            assert_int_equal(cudaStreamSynchronize(first), cudaErrorLaunchFailure);
            assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure); /* and stays */
            assert_int_equal(cudaMemsetAsync(out, 0, 4, first), cudaErrorLaunchFailure);
            const char *line = emulated_cuda_expected();
            assert_non_null(line);
            support_assert_contains(line, "kernel ");
            support_assert_contains(line, "test_emulator.cu");
        }
    assert_false(detected(launch_neighbours, "")); /* goes on after a report */
}

static void test_wrong_addresses(void **state)
{
    (void)state;
    assert_true(detected(launch_overrun, "behind the end of the 128 bytes"));
    assert_true(detected(launch_shared_overrun, ""));
#if !defined(__SANITIZE_ADDRESS__) /* which ends the process */
    assert_true(detected(launch_wild, "behind the end"));
    assert_false(detected(launch_lanes, ""));
#endif
}

static void test_unwritten_memory(void **state)
{
    (void)state;
    assert_true(detected(launch_unwritten, ""));
    assert_true(detected(launch_fresh_memory, ""));
}

static void test_missing_waits(void **state)
{
    (void)state;
    assert_true(detected(launch_no_wait, ""));
    assert_true(detected(launch_overwritten, ""));
    assert_true(detected(launch_early_staging, ""));
}

#if defined(__SANITIZE_THREAD__)
static void launch_host_memory(float *out)
{
    static float host[32];
    LAUNCH(copy_of, 1, 32, 0, first, host, out);
}
static __global__ void far_behind(float *out)
{
    out[threadIdx.x] = 1.0f;
    if (threadIdx.x == 7)
        out[1000000] = 1.0f;
}
static void launch_far_behind(float *out)
{
    LAUNCH(far_behind, 1, 32, 0, first, out);
}

/* With hooks the report names the fault and its line, in every order. */
static void test_hooks_name_the_fault(void **state)
{
    (void)state;
    static const struct {
        void (*broken)(float *);
        const char *text;
    } rows[] = {
        {launch_no_barrier, ""}, /* a race, or not written yet */
        {launch_no_syncwarp, ""},
        {launch_chain, "race with another block"},
        {launch_no_async_wait, "never written"},
        {launch_unwritten, "never written"},
        {launch_fresh_memory, "never written"},
        {launch_no_wait, "in another stream, no event between"},
        {launch_overwritten, "in another stream, no event between"},
        {launch_overrun, "outside the allocations"},
        {launch_far_behind, "outside the allocations"},
        {launch_shared_overrun, "outside the shared arrays"},
        {launch_host_memory, "host memory used by a kernel"},
    };
    for (const auto &row : rows)
        for (const char *order : ORDERS) {
            emulated_cuda_order(order);
            float *out = device_copy(std::vector<float>(32));
            FINISH(first);
            emulated_cuda_expect_error(row.text);
            row.broken(out);
            (void)cudaStreamSynchronize(first);
            (void)cudaStreamSynchronize(second);
            const char *line = emulated_cuda_expected();
            if (!line)
                fail_msg("not reported in order %s: %s", order, row.text);
            support_assert_contains(line, "test_emulator.cu:");
        }
}
#endif

/* ---- children */

static int child_touches_device_memory(void)
{
    float *x;
    if (cudaMalloc(&x, 400) == cudaSuccess)
        x[3] = 1.0f;
    return 0;
}
static int child_devices(void)
{
    int n = -1, driver = -1;
    char bus[32] = "";
    cudaError_t e = cudaGetDeviceCount(&n);
    (void)cudaDriverGetVersion(&driver);
    cudaDeviceProp p = {};
    if (n > 0 && (cudaGetDeviceProperties(&p, n - 1) || cudaDeviceGetPCIBusId(bus, 32, n - 1)))
        return 1;
    printf("%s %d, driver %d, %s %d.%d %s\n", cudaGetErrorName(e), n, driver, p.name, p.major,
           p.minor, bus);
    return 0;
}
static int child_memory(void)
{
    void *a, *b;
    size_t left = 0, total = 0;
    cudaError_t first_error = cudaMalloc(&a, 600), error = cudaMalloc(&b, 401);
    cudaMemGetInfo(&left, &total);
    printf("%s %s %zu of %zu\n", cudaGetErrorName(first_error), cudaGetErrorName(error), left,
           total);
    return 0;
}
static int child_fails(void)
{
    float *x;
    cudaStream_t s;
    if (cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) || cudaMalloc(&x, 32) ||
        cudaMemsetAsync(x, 0, 32, s))
        return 1;
    for (int i = 0; i < 3; i++) {
        LAUNCH(times, 1, 8, 0, s, x, x, 1.0f, 8);
        LAUNCH(add, 1, 8, 0, s, x, 1.0f, 8);
        printf("%s ", cudaGetErrorName(cudaGetLastError()));
        printf("%s ", cudaGetErrorName(cudaStreamSynchronize(s)));
    }
    printf("%ld\n", (long)emulated_cuda_counts().launches);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} CHILDREN[] = {{"touch", child_touches_device_memory},
                {"devices", child_devices},
                {"memory", child_memory},
                {"fails", child_fails}};

/* What it prints on both outputs; *status as waitpid gives it. settings: "NAME=value" or NULL. */
static std::string child(const char *name, const char *setting, const char *other, int *status)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        for (const char *s : {setting, other})
            if (s)
                putenv(strdup(s));
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* children end without cleaning up */
        execl("/proc/self/exe", "test_emulator", name, (char *)nullptr);
        _exit(127);
    }
    close(ends[1]);
    std::string text;
    char buffer[512];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, (size_t)n);
    close(ends[0]);
    assert_true(waitpid(pid, status, 0) == pid);
    return text;
}

static void test_host_code_cannot_touch_device_memory(void **state)
{
    (void)state;
    int status;
    std::string text = child("touch", nullptr, nullptr, &status);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0); /* the sanitizer exits */
#if !defined(__SANITIZE_ADDRESS__)
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    support_assert_contains(text.c_str(), "host code touches device memory");
    support_assert_contains(text.c_str(), "byte 12 of the 400 bytes");
#endif
}

static void test_settings(void **state)
{
    (void)state;
    static const struct {
        const char *name, *setting, *other, *text;
    } rows[] = {
        {"devices", nullptr, nullptr, "cudaSuccess 8, driver 13000, Emulated GPU 9.0 0000:08:00.0"},
        {"devices", "EMULATED_CUDA_DEVICES=0", nullptr, "cudaErrorNoDevice 0, driver 13000"},
        {"devices", "EMULATED_CUDA_DRIVER=missing", nullptr,
         "cudaErrorInsufficientDriver 0, driver 0"},
        {"devices", "EMULATED_CUDA_DRIVER=old", nullptr,
         "cudaErrorInsufficientDriver 0, driver 12020"},
        {"devices", "CUDA_VISIBLE_DEVICES=5,2", nullptr,
         "cudaSuccess 2, driver 13000, Emulated GPU 9.0 0000:03"},
        {"devices", "CUDA_VISIBLE_DEVICES=1,99,2", nullptr, "cudaSuccess 1,"},
        {"devices", "CUDA_VISIBLE_DEVICES=", nullptr, "cudaErrorNoDevice"},
        {"devices", "EMULATED_CUDA_NAMES=A 1;B 2", "EMULATED_CUDA_DEVICES=2", " B 2 9.0"},
        {"devices", "EMULATED_CUDA_CAPABILITY=70", nullptr, " 7.0 "},
        {"memory", "EMULATED_CUDA_MEMORY=1000", nullptr,
         "cudaSuccess cudaErrorMemoryAllocation 400 of 1000"},
        {"fails", "EMULATED_CUDA_FAIL=add@2", nullptr,
         "emulated CUDA: launch 2 of add fails as asked for"},
        {"fails", "EMULATED_CUDA_FAIL=add@2", nullptr,
         "cudaSuccess cudaSuccess cudaSuccess cudaErrorLaunchFailure cudaErrorLaunchFailure "
         "cudaErrorLaunchFailure 4"},
    };
    for (const auto &row : rows) {
        int status;
        std::string text = child(row.name, row.setting, row.other, &status);
        support_assert_contains(text.c_str(), row.text);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2)
        for (const auto &c : CHILDREN)
            if (strcmp(argv[1], c.name) == 0)
                return c.run();
    for (const char *name : {"EMULATED_CUDA_DEVICES", "EMULATED_CUDA_MEMORY", "EMULATED_CUDA_NAMES",
                             "EMULATED_CUDA_CAPABILITY", "EMULATED_CUDA_DRIVER",
                             "EMULATED_CUDA_FAIL", "CUDA_VISIBLE_DEVICES"})
        unsetenv(name);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_every_thread_runs_once),
        TEST(test_arguments_are_copied_at_the_launch),
        TEST(test_barriers_and_shared_memory),
        TEST(test_shuffles),
        TEST(test_votes_and_syncwarp),
        TEST(test_mma_is_a_product),
        TEST(test_ldmatrix),
        TEST(test_halves_round_to_even),
        TEST(test_cp_async),
        TEST(test_atomics),
        TEST(test_functions),
        TEST(test_device_philox_is_philox),
        TEST(test_streams_are_lazy),
        TEST(test_events_order_streams),
        TEST(test_copies_and_fills),
        TEST(test_graphs_replay),
        TEST(test_captures_forbid_what_cuda_forbids),
        TEST(test_operations_of_libraries),
        TEST(test_calls_that_are_wrong),
        TEST(test_right_kernels_are_not_reported),
        TEST(test_missing_barriers),
        TEST(test_divergence),
        TEST(test_wrong_addresses),
        TEST(test_unwritten_memory),
        TEST(test_missing_waits),
#if defined(__SANITIZE_THREAD__)
        TEST(test_hooks_name_the_fault),
#endif
        TEST(test_host_code_cannot_touch_device_memory),
        TEST(test_settings),
        TEST(test_nothing_is_left),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
