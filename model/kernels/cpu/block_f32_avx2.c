/* block_f32_avx2.c - a block of a float product with AVX2 and FMA; see block_f32.h. */
#ifdef __x86_64__
#include <immintrin.h>

#define BLOCK block_f32_avx2
#define VECTOR __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define BROADCAST(x) _mm256_set1_ps(x)
#define MULTIPLY_ADD(x, y, sum) _mm256_fmadd_ps(x, y, sum)

#include "model/kernels/cpu/block_f32.h"
#endif
