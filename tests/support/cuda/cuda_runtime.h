/*
 * cuda_runtime.h - what CUDA C++ has beyond the host interface: words of the language, built-in
 * variables and vector types, synchronisation, warp functions, integer atomics, device math.
 *
 * What is not here is not emulated: __shared__ (SHARED_ARRAY of base/cuda.cuh instead), <<< >>>
 * (LAUNCH), float atomics, fast math functions.
 */
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <cuda_runtime_api.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

template <typename T> static inline cudaError_t cudaMalloc(T **devPtr, size_t size)
{
    return ::cudaMalloc(reinterpret_cast<void **>(devPtr), size);
}
template <typename T> static inline cudaError_t cudaMallocHost(T **ptr, size_t size)
{
    return ::cudaMallocHost(reinterpret_cast<void **>(ptr), size);
}

/* ---- vector types */
struct uint3 {
    unsigned int x, y, z;
};
struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int vx = 1, unsigned int vy = 1, unsigned int vz = 1)
        : x(vx), y(vy), z(vz)
    {
    }
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z)
    {
    }
};

#define EMULATED_VECTORS(name, T)                                                                  \
    struct __align__(2 * sizeof(T)) name##2                                                        \
    {                                                                                              \
        T x, y;                                                                                    \
    };                                                                                             \
    struct __align__(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4                              \
    {                                                                                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name##2 make_##name##2(T x, T y)                                                 \
    {                                                                                              \
        return name##2 {x, y};                                                                     \
    }                                                                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                       \
    {                                                                                              \
        return name##4 {x, y, z, w};                                                               \
    }
EMULATED_VECTORS(char, signed char)
EMULATED_VECTORS(uchar, unsigned char)
EMULATED_VECTORS(short, short)
EMULATED_VECTORS(ushort, unsigned short)
EMULATED_VECTORS(int, int)
EMULATED_VECTORS(uint, unsigned int)
EMULATED_VECTORS(float, float)
EMULATED_VECTORS(double, double)
#undef EMULATED_VECTORS
struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};

/* ---- built-in variables */
struct emulated_thread_index {
    uint3 at;
};
struct emulated_launch_index {
    uint3 block;
    dim3 block_dim, grid_dim;
};
extern emulated_thread_index *emulated_now;      /* the thread that runs */
extern emulated_launch_index emulated_now_block; /* its block and launch */
#define threadIdx (emulated_now->at)
#define blockIdx (emulated_now_block.block)
#define blockDim (emulated_now_block.block_dim)
#define gridDim (emulated_now_block.grid_dim)
static const int warpSize = 32;

/* ---- synchronisation. The default arguments are the place of the call, for reports. */
void emulated_barrier(const char *file, int line);
void emulated_warp_barrier(uint32_t mask, const char *file, int line);
enum emulated_shuffle_kind { EMULATED_IDX, EMULATED_XOR, EMULATED_UP, EMULATED_DOWN };
uint64_t emulated_shuffle(emulated_shuffle_kind kind, uint32_t mask, uint64_t value, int arg,
                          int width, const char *file, int line);
uint32_t emulated_ballot(uint32_t mask, bool predicate, const char *file, int line);
/* Before an atomic access of n bytes. */
void emulated_atomic(void *p, int bytes);

#define EMULATED_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(EMULATED_PLACE)
{
    emulated_barrier(file, line);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_PLACE)
{
    emulated_warp_barrier(mask, file, line);
}
static inline void __threadfence(void)
{
}
static inline void __threadfence_block(void)
{
}

#define EMULATED_SHUFFLE(name, kind, A)                                                            \
    template <typename T>                                                                          \
    static inline T name(unsigned mask, T value, A arg, int width = 32, EMULATED_PLACE)            \
    {                                                                                              \
        static_assert(__is_trivially_copyable(T) && (sizeof(T) == 4 || sizeof(T) == 8),            \
                      "shuffles take 32 and 64-bit values");                                       \
        uint64_t bits = 0;                                                                         \
        memcpy(&bits, &value, sizeof value);                                                       \
        bits = emulated_shuffle(kind, mask, bits, (int)arg, width, file, line);                    \
        memcpy(&value, &bits, sizeof value);                                                       \
        return value;                                                                              \
    }
EMULATED_SHUFFLE(__shfl_sync, EMULATED_IDX, int)
EMULATED_SHUFFLE(__shfl_xor_sync, EMULATED_XOR, int)
EMULATED_SHUFFLE(__shfl_up_sync, EMULATED_UP, unsigned)
EMULATED_SHUFFLE(__shfl_down_sync, EMULATED_DOWN, unsigned)
#undef EMULATED_SHUFFLE

static inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATED_PLACE)
{
    return emulated_ballot(mask, predicate != 0, file, line);
}
static inline int __any_sync(unsigned mask, int predicate, EMULATED_PLACE)
{
    return emulated_ballot(mask, predicate != 0, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, EMULATED_PLACE)
{
    return emulated_ballot(mask, predicate != 0, file, line) == mask;
}

/* ---- atomics: whole numbers only, since the order of float sums would move bits. Threads never
 * run at the same time here, so plain operations do. */
#define EMULATED_ATOMIC(name, T, result)                                                           \
    __attribute__((no_sanitize("thread"))) static inline T name(T *p, T v)                         \
    {                                                                                              \
        emulated_atomic(p, (int)sizeof *p);                                                        \
        T old = *p;                                                                                \
        *p = (T)(result);                                                                          \
        return old;                                                                                \
    }
EMULATED_ATOMIC(atomicAdd, int, (unsigned)old + (unsigned)v)
EMULATED_ATOMIC(atomicAdd, unsigned int, old + v)
EMULATED_ATOMIC(atomicAdd, unsigned long long, old + v)
EMULATED_ATOMIC(atomicMax, int, old > v ? old : v)
EMULATED_ATOMIC(atomicMax, unsigned int, old > v ? old : v)
EMULATED_ATOMIC(atomicMin, int, old < v ? old : v)
EMULATED_ATOMIC(atomicMin, unsigned int, old < v ? old : v)
EMULATED_ATOMIC(atomicOr, int, old | v)
EMULATED_ATOMIC(atomicOr, unsigned int, old | v)
EMULATED_ATOMIC(atomicAnd, unsigned int, old &v)
EMULATED_ATOMIC(atomicExch, int, v)
EMULATED_ATOMIC(atomicExch, unsigned int, v)
#undef EMULATED_ATOMIC
float atomicAdd(float *, float) = delete;
double atomicAdd(double *, double) = delete;

/* ---- bits and math */
static inline int __popc(unsigned int x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline unsigned int __float_as_uint(float x)
{
    unsigned int y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline float __uint_as_float(unsigned int x)
{
    float y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}
static inline float __int_as_float(int x)
{
    return __uint_as_float((unsigned)x);
}
template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
/* Never contracted into a fused operation, on a GPU as here. */
static inline float __fadd_rn(float x, float y)
{
    return x + y;
}
static inline float __fsub_rn(float x, float y)
{
    return x - y;
}
static inline float __fmul_rn(float x, float y)
{
    return x * y;
}
static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}
static inline float __fdiv_rn(float x, float y)
{
    return x / y;
}
static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
static inline double __dadd_rn(double x, double y)
{
    return x + y;
}
static inline double __dmul_rn(double x, double y)
{
    return x * y;
}

#define EMULATED_MIN_MAX(T)                                                                        \
    static inline T min(T a, T b)                                                                  \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    static inline T max(T a, T b)                                                                  \
    {                                                                                              \
        return a < b ? b : a;                                                                      \
    }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned int)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
/* As fminf and fmaxf: a NaN gives way to a number. */
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}
static inline double min(double a, double b)
{
    return fmin(a, b);
}
static inline double max(double a, double b)
{
    return fmax(a, b);
}

#endif
