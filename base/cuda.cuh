/*
 * cuda.cuh - what device code is written with: launches, shared memory, 16-bit floats, tensor-core
 * products, asynchronous copies, Philox.
 *
 * Kernels use these and plain CUDA C++ (threadIdx, blockIdx, __syncthreads, __syncwarp, __shfl_*_sync,
 * __ballot_sync, math functions) and no PTX of their own, so that tests/support/cuda can compile them
 * for the CPU. This file is the only place that knows both sides: with nvcc the wrappers are PTX
 * (needs sm_80), without it they come from the emulated toolkit's cuda_emulated.cuh.
 *
 * Rules for kernels, so that they run in emulation:
 *   - shared memory is declared with SHARED_ARRAY or DYN_SMEM only, at the top of the kernel's body
 *   - launches go through LAUNCH; a template is given in parentheses: LAUNCH((k<float, 64>), ...)
 *   - no float atomics anywhere (bits); no warp-synchronous code without *_sync
 *   - arguments are passed by value: pointers to device memory, numbers, small structs of those
 */
#ifndef COHORT_BASE_CUDA_CUH
#define COHORT_BASE_CUDA_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __CUDACC__

/* Queue kernel<<<grid, block, smem, stream>>>(args...). Errors of the launch are cudaGetLastError()'s:
 * see launched(). smem above 48 KiB needs LAUNCH_ALLOW_SMEM(kernel, bytes) once before. */
#define LAUNCH(kernel, grid, block, smem, stream, ...)                                             \
    kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__)
/* A static shared array of n elements (n a constant). */
#define SHARED_ARRAY(T, name, n) __shared__ __align__(16) T name[n]
/* The launch's dynamic shared memory, 16-byte aligned, as T name[]. One per kernel. */
#define DYN_SMEM(T, name)                                                                          \
    extern __shared__ __align__(16) unsigned char dyn_smem_[];                                     \
    T *name = reinterpret_cast<T *>(dyn_smem_)

/* ---- 16-bit floats. Plain bits in memory; arithmetic is in float. ---- */
struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

static __device__ __forceinline__ float to_float(float x)
{
    return x;
}
static __device__ __forceinline__ float to_float(bf16 x)
{
    return __uint_as_float((uint32_t)x.bits << 16);
}
static __device__ __forceinline__ float to_float(fp16 x)
{
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
/* Rounded to nearest, ties to even. fp16: overflow gives infinity. */
template <typename T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ fp16 from_float<fp16>(float x)
{
    fp16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
/* Two at once: lo in the low half. */
template <typename T> static __device__ __forceinline__ uint32_t pack2(float lo, float hi);
template <> __device__ __forceinline__ uint32_t pack2<bf16>(float lo, float hi)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}
template <> __device__ __forceinline__ uint32_t pack2<fp16>(float lo, float hi)
{
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}

/* ---- tensor cores: D (16 x 8, float) += A (16 x 16) B (16 x 8), one warp. Fragments as the PTX ISA
 * manual gives them for mma.m16n8k16 (section "Matrix Fragments for mma.m16n8k16 with floating point
 * type"): with g = lane / 4, t = lane % 4,
 *   a[0] = A[g][2t, 2t+1]      a[1] = A[g+8][2t, 2t+1]    a[2] = A[g][2t+8, 2t+9]   a[3] = A[g+8][2t+8, 2t+9]
 *   b[0] = B[2t, 2t+1][g]      b[1] = B[2t+8, 2t+9][g]
 *   d[0], d[1] = D[g][2t], D[g][2t+1]       d[2], d[3] = D[g+8][2t], D[g+8][2t+1]
 * the element with the lower index in the low half of each register. */
template <typename T>
static __device__ __forceinline__ void mma_16816(float d[4], const uint32_t a[4],
                                                 const uint32_t b[2]);
template <>
__device__ __forceinline__ void mma_16816<bf16>(float d[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma_16816<fp16>(float d[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* ---- ldmatrix: four 8 x 8 matrices of 16-bit elements from shared memory. Lane i gives the address
 * (16-byte aligned) of row i % 8 of matrix i / 8. Thread gets in r[m] of matrix m row lane / 4,
 * columns 2 (lane % 4) and + 1; _trans: the matrix transposed. */
static __device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* ---- cp.async: 16 bytes from global to shared memory, both 16-byte aligned; !valid writes zeros and
 * reads nothing (from must still be a valid address of the array). Copies belong to the next commit;
 * wait<N> waits until at most the N newest groups are under way; then __syncthreads(). */
static __device__ __forceinline__ void cp_async16(void *to_shared, const void *from, bool valid)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to_shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> static __device__ __forceinline__ void cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* High half of a 32 x 32-bit product. */
static __device__ __forceinline__ uint32_t mul_high(uint32_t a, uint32_t b)
{
    return __umulhi(a, b);
}

/* Let a kernel use `bytes` of dynamic shared memory. Returns a cudaError_t. */
#define LAUNCH_ALLOW_SMEM(kernel, bytes)                                                           \
    cudaFuncSetAttribute(reinterpret_cast<const void *>(&kernel),                                  \
                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))

#else
#include <cuda_emulated.cuh>
#endif

/* ---- Philox4x32-10 and the key of base/philox.h, for device code ---- */
struct philox_bits {
    uint32_t v[4];
};

static __device__ inline uint64_t device_random_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* As random_key() of base/philox.h; purpose 3 is RANDOM_DROPOUT. */
static __device__ inline uint64_t device_random_key(uint64_t seed, uint32_t purpose, uint64_t a,
                                                    uint64_t b)
{
    return device_random_mix(
        device_random_mix(device_random_mix(seed ^ ((uint64_t)purpose << 56)) ^ a) ^ b);
}

static __device__ inline philox_bits device_philox(uint64_t key, uint32_t c0, uint32_t c1,
                                                   uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t h0 = mul_high(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        uint32_t h1 = mul_high(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    philox_bits p;
    p.v[0] = c0;
    p.v[1] = c1;
    p.v[2] = c2;
    p.v[3] = c3;
    return p;
}

#endif
