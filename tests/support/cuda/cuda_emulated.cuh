/*
 * cuda_emulated.cuh - the other side of base/cuda.cuh: the same wrappers without nvcc.
 *
 * Contracts stand in base/cuda.cuh and are not repeated. Warp-wide operations are gathered by
 * emulated_kernel.cpp, which computes them for all lanes when the last one arrives.
 */
#ifndef EMULATED_CUDA_CUH
#define EMULATED_CUDA_CUH

#include <stddef.h>
#include <tuple>
#include <type_traits>

#include <cuda_runtime.h>

/* ---- launches */

/* What is queued: call(kernel, args) runs one thread. */
struct emulated_kernel {
    void (*call)(const void *kernel, const void *args);
    const void *kernel;
    const char *name, *file;
    int line;
    dim3 grid, block;
    size_t smem;
};
/* Queue it; args are copied. What is wrong becomes cudaGetLastError(). */
void emulated_launch(const emulated_kernel &k, cudaStream_t stream, const void *args,
                     size_t args_bytes);

template <typename... P> struct emulated_call {
    typedef std::tuple<P...> args;
    template <size_t... I>
    static void expand(void (*kernel)(P...), const args &a, std::index_sequence<I...>)
    {
        kernel(std::get<I>(a)...);
    }
    static void run(const void *kernel, const void *a)
    {
        expand(reinterpret_cast<void (*)(P...)>(const_cast<void *>(kernel)),
               *static_cast<const args *>(a), std::index_sequence_for<P...>());
    }
};

template <typename... P, typename... A>
static inline void emulated_launch_typed(void (*kernel)(P...), const char *name, const char *file,
                                         int line, dim3 grid, dim3 block, size_t smem,
                                         cudaStream_t stream, A... a)
{
    static_assert((std::is_trivially_copyable<P>::value && ...),
                  "arguments of kernels are numbers, pointers and plain structs");
    static_assert(!(std::is_reference<P>::value || ...), "arguments of kernels go by value");
    typename emulated_call<P...>::args args(static_cast<P>(a)...);
    emulated_kernel k = {emulated_call<P...>::run,
                         reinterpret_cast<const void *>(kernel),
                         name,
                         file,
                         line,
                         grid,
                         block,
                         smem};
    emulated_launch(k, stream, &args, sizeof args);
}

#define LAUNCH(kernel, grid, block, smem, stream, ...)                                             \
    emulated_launch_typed(kernel, #kernel, __FILE__, __LINE__, dim3(grid), dim3(block), (smem),    \
                          (stream), ##__VA_ARGS__)
#define LAUNCH_ALLOW_SMEM(kernel, bytes)                                                           \
    cudaFuncSetAttribute(reinterpret_cast<const void *>(&kernel),                                  \
                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))

/* ---- shared memory: key is one place in the program, the same for all threads of the block */
void *emulated_shared(const void *key, size_t bytes, const char *name);
void *emulated_dynamic_shared(void);

#define SHARED_ARRAY(T, name, n)                                                                   \
    static const char emulated_key_##name = 0;                                                     \
    T(&name)                                                                                       \
    [n] = *reinterpret_cast<T(*)[n]>(emulated_shared(&emulated_key_##name, sizeof(T) * (n), #name))
#define DYN_SMEM(T, name) T *name = reinterpret_cast<T *>(emulated_dynamic_shared())

/* ---- 16-bit floats */
struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

static inline float to_float(float x)
{
    return x;
}
static inline float to_float(bf16 x)
{
    return __uint_as_float((uint32_t)x.bits << 16);
}
static inline float to_float(fp16 x)
{
    uint32_t magnitude = x.bits & 0x7fffu, sign = (uint32_t)(x.bits & 0x8000u) << 16;
    if (magnitude >= 0x7c00u)
        return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    /* As a float whose exponent is 112 too small; exact, subnormals too. */
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude << 13) * 0x1p112f));
}
template <typename T> static inline T from_float(float x);
template <> inline float from_float<float>(float x)
{
    return x;
}
template <> inline bf16 from_float<bf16>(float x)
{
    uint32_t u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return bf16{0x7fff}; /* the NaN that cvt gives */
    return bf16{(uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}
template <> inline fp16 from_float<fp16>(float x)
{
    uint32_t u = __float_as_uint(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return fp16{0x7fff};
    if (magnitude >= 0x477ff000u) /* 65520, half way from the largest to the next */
        return fp16{(uint16_t)(sign | 0x7c00u)};
    if (magnitude < 0x38800000u) /* below 2^-14: 0.5f + x has fp16's subnormal spacing */
        return fp16{
            (uint16_t)(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u))};
    return fp16{
        (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13)};
}
template <typename T> static inline uint32_t pack2(float lo, float hi)
{
    static_assert(sizeof(T) == 2, "pack2 makes 16-bit floats");
    return (uint32_t)from_float<T>(lo).bits | (uint32_t)from_float<T>(hi).bits << 16;
}

/* ---- warp-wide operations */
void emulated_mma(bool is_bf16, float d[4], const uint32_t a[4], const uint32_t b[2],
                  const char *file, int line);
void emulated_ldmatrix(uint32_t r[4], const void *row, bool trans, const char *file, int line);

template <typename T>
static inline void mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2], EMULATED_PLACE)
{
    static_assert(std::is_same<T, bf16>::value || std::is_same<T, fp16>::value, "bf16 or fp16");
    emulated_mma(std::is_same<T, bf16>::value, d, a, b, file, line);
}
static inline void ldmatrix_x4(uint32_t r[4], const void *row, EMULATED_PLACE)
{
    emulated_ldmatrix(r, row, false, file, line);
}
static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row, EMULATED_PLACE)
{
    emulated_ldmatrix(r, row, true, file, line);
}

/* ---- asynchronous copies */
void emulated_cp_async(void *to_shared, const void *from, bool valid);
void emulated_cp_async_commit(void);
void emulated_cp_async_wait(int newest);

static inline void cp_async16(void *to_shared, const void *from, bool valid)
{
    emulated_cp_async(to_shared, from, valid);
}
static inline void cp_async_commit(void)
{
    emulated_cp_async_commit();
}
template <int N> static inline void cp_async_wait(void)
{
    static_assert(N >= 0, "groups that may be under way");
    emulated_cp_async_wait(N);
}

static inline uint32_t mul_high(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

#endif
