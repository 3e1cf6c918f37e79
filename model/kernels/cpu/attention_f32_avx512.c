/* attention_f32_avx512.c - attention in float, AVX-512. */
#ifdef __x86_64__
#define ATTENTION_BF16 0
#define ATTENTION_PATH attention_f32_avx512
#define ATTENTION_NAME "AVX-512"

#include "model/kernels/cpu/attention_product.h"
#include "model/kernels/cpu/attention_simd.h"
#endif
