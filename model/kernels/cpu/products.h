/*
 * products.h - matrix products of the CPU backend: weights cast, packed and multiplied.
 *
 * float with AVX-512: oneDNN, each thread its own lines (products_onednn.c). float elsewhere: our
 * own blocks of 6 x 16 outputs (products_f32.c drives, block_f32_*.c compute). bfloat16: our own
 * blocks of 32 x 32 outputs, with AMX or AVX512-BF16 (products_bf16.c drives, block_amx.c and
 * block_bf16.c compute). All add up K in an order that does not depend on the number of lines, so a
 * line's result is the same in any batch.
 */
#ifndef COHORT_MODEL_KERNELS_CPU_PRODUCTS_H
#define COHORT_MODEL_KERNELS_CPU_PRODUCTS_H

#include "model/kernels/cpu/cpu.h"

/* The entries of kernels.h that are products; open and close are part of the context's. */
struct products_table {
    enum status (*open)(struct kernel_ctx *ctx, const struct kernel_opts *opts);
    void (*close)(struct products *p);
    int64_t (*memory_bytes)(const struct kernel_opts *opts);
    enum status (*weights_changed)(struct kernel_ctx *ctx, const float *weights);
    enum status (*linear)(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                          const float *bias, act *y);
    enum status (*linear_backward_data)(struct kernel_ctx *ctx, int m, int64_t rows, const act *dy,
                                        act *dx);
    enum status (*linear_backward_weight)(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                          const act *dy, int64_t bias_offset, bool by_row,
                                          const struct table_lines *more,
                                          const struct grad_cut *cut);
};

extern const struct products_table products_onednn; /* float; these bits hold with AVX-512 only */
extern const struct products_table products_f32;    /* float, any CPU */
extern const struct products_table products_bf16;   /* bfloat16, needs cpu_features()->bf16 */

/*
 * One block of floats: c, `rows` (1 to 6) lines of 16, c_line apart, = (add: +=) the product of A
 * and B over `count` terms. A: term k of line i is a[i * a_line + k * a_step]. B: packed, 16
 * columns a term.
 */
typedef void block_f32(int rows, int count, const float *a, int64_t a_line, int64_t a_step,
                       const float *b, bool add, float *c, int64_t c_line);
block_f32 block_f32_avx2, block_f32_c;

/*
 * One block of bfloat16: c (32 lines of 32 floats), or its first `rows` lines, = (add: +=) the
 * product of A and B over `steps` steps of 32. A: line i of step s begins at a + i * a_line + s *
 * a_step (bytes), 32 bfloat16 each. B: packed, 1,024 bfloat16 a step: two tiles of 16 pairs of k,
 * 16 columns, 2.
 */
typedef void block_kernel(int rows, int steps, const void *a, int64_t a_line, int64_t a_step,
                          const uint16_t *b, bool add, float *c);
block_kernel block_bf16, block_amx;
/* Before a thread's first block_amx() of a parallel region, and after its last. */
void block_amx_begin(void);
void block_amx_end(void);

#endif
