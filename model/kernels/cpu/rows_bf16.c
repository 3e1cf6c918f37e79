/* rows_bf16.c - the lines' kernels for bfloat16 activations with AVX512-BF16; see rows_simd.h. */
#ifdef __x86_64__
#include "model/kernels/cpu/simd_avx512.h"

#define ROWS_TABLE cpu_rows_bf16
#define ELEMENT uint16_t
#define LOAD(p) bf16_load16_avx512(p)
#define MASK_LOAD(m, p) bf16_maskload16_avx512(m, p)
#define STORE(p, x) bf16_store16_avx512(p, x)
#define MASK_STORE(p, m, x) bf16_maskstore16_avx512(m, p, x)
#include "model/kernels/cpu/rows_simd.h"
#endif
