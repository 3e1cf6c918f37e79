/*
 * block_f32.h - one block of a float product; see products.h. Included once by each of
 * block_f32_{avx2,c}.c, which define VECTOR, LANES, LOAD, STORE, BROADCAST and MULTIPLY_ADD.
 *
 * Six lines by two vectors are twelve sums, which with two vectors of B and one of A fill sixteen
 * registers. Narrower vectors take the 16 columns two at a time. A line's arithmetic is the same in
 * a block of fewer lines.
 */
#include "model/kernels/cpu/products.h"

static inline __attribute__((always_inline)) void lines(int rows, int count, const float *a,
                                                        int64_t a_line, int64_t a_step,
                                                        const float *b, bool add, float *c,
                                                        int64_t c_line)
{
    VECTOR sum[6][2];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++)
            sum[i][j] = add ? LOAD(c + i * c_line + j * LANES) : BROADCAST(0.0f);
    for (int k = 0; k < count; k++, a += a_step, b += 16) {
        const VECTOR y0 = LOAD(b), y1 = LOAD(b + LANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            const VECTOR x = BROADCAST(a[i * a_line]);
            sum[i][0] = MULTIPLY_ADD(x, y0, sum[i][0]);
            sum[i][1] = MULTIPLY_ADD(x, y1, sum[i][1]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++)
            STORE(c + i * c_line + j * LANES, sum[i][j]);
}

void BLOCK(int rows, int count, const float *a, int64_t a_line, int64_t a_step, const float *b,
           bool add, float *c, int64_t c_line)
{
    for (int j = 0; j < 16; j += 2 * LANES, b += 2 * LANES, c += 2 * LANES) {
        switch (rows) {
        case 6:
            lines(6, count, a, a_line, a_step, b, add, c, c_line);
            break;
        case 5:
            lines(5, count, a, a_line, a_step, b, add, c, c_line);
            break;
        case 4:
            lines(4, count, a, a_line, a_step, b, add, c, c_line);
            break;
        case 3:
            lines(3, count, a, a_line, a_step, b, add, c, c_line);
            break;
        case 2:
            lines(2, count, a, a_line, a_step, b, add, c, c_line);
            break;
        default:
            lines(1, count, a, a_line, a_step, b, add, c, c_line);
            break;
        }
    }
}
