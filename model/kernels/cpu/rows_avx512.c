/* rows_avx512.c - the lines' kernels for float activations with AVX-512; see rows_simd.h. */
#ifdef __x86_64__
#include <immintrin.h>
#include <stdint.h>

#define ROWS_TABLE cpu_rows_avx512
#define ELEMENT float
#define LOAD(p) _mm512_loadu_ps(p)
#define MASK_LOAD(m, p) _mm512_maskz_loadu_ps(m, p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define MASK_STORE(p, m, x) _mm512_mask_storeu_ps(p, m, x)
#include "model/kernels/cpu/rows_simd.h"
#endif
