/*
 * cuda_sum.cu - see cuda_sum.h.
 *
 * A thread walks the whole list of additions for its elements: each slice is read from memory once
 * and intermediate sums stay in shared memory, where a thread has a column of its own, so that no
 * thread waits for another. Several elements a thread, a block apart, keep that many loads under
 * way; the list itself is the same for all threads and comes from the cache.
 */
#include "base/cuda.cuh"

extern "C" {
#include "base/device_cuda.h"
#include "comm/cuda_sum.h"
}

enum { THREADS = 128, ELEMENTS = 4, MOST_SHARED = 48 * 1024 };

template <int N>
static __global__ void __launch_bounds__(THREADS)
    tree_sum(const float *const *source, const addition *list, int additions, float *to, int64_t n)
{
    DYN_SMEM(float, scratch); /* (vectors, N, THREADS) */
    int64_t first = (int64_t)blockIdx.x * (THREADS * N) + threadIdx.x;
    for (int k = 0; k < additions; k++) {
        addition a = list[k];
        bool last = k + 1 == additions;
        float left[N], right[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            int64_t i = first + j * THREADS;
            bool inside = i < n;
            left[j] = a.left < 0 ? scratch[((-1 - a.left) * N + j) * THREADS + threadIdx.x]
                      : inside   ? source[a.left][i]
                                 : 0.0f;
            right[j] = a.right < 0 ? scratch[((-1 - a.right) * N + j) * THREADS + threadIdx.x]
                       : inside    ? source[a.right][i]
                                   : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            int64_t i = first + j * THREADS;
            /* to may be a source: its element was read above, or in an earlier round, by this
             * thread alone. */
            if (!last)
                scratch[((-1 - a.to) * N + j) * THREADS + threadIdx.x] = left[j] + right[j];
            else if (i < n)
                to[i] = left[j] + right[j];
        }
    }
}

extern "C" enum status cuda_tree_sum(const float *const *source, const struct addition *addition,
                                     int additions, int scratch, float *to, int64_t n,
                                     cudaStream_t stream)
{
    int64_t wide = (int64_t)THREADS * ELEMENTS * (int64_t)sizeof(float) * scratch;
    if (wide <= MOST_SHARED) {
        int64_t blocks = (n + THREADS * ELEMENTS - 1) / (THREADS * ELEMENTS);
        LAUNCH((tree_sum<ELEMENTS>), (unsigned)blocks, THREADS, (size_t)wide, stream, source,
               addition, additions, to, n);
    } else { /* a tree of more than 2^24 leaves */
        int64_t blocks = (n + THREADS - 1) / THREADS;
        LAUNCH((tree_sum<1>), (unsigned)blocks, THREADS, (size_t)(wide / ELEMENTS), stream, source,
               addition, additions, to, n);
    }
    return cuda_status(cudaGetLastError(), "summing the ranks' gradients");
}
