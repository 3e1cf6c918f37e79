/* attention_bf16.c - attention in bfloat16 by VDPBF16PS, for CPUs with AVX512-BF16 and without AMX.
 */
#ifdef __x86_64__
#define ATTENTION_BF16 1
#define ATTENTION_PATH attention_bf16
#define ATTENTION_NAME "AVX512-BF16"

#include "model/kernels/cpu/attention_product.h"
#include "model/kernels/cpu/attention_simd.h"
#endif
