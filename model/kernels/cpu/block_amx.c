/*
 * block_amx.c - one block of a bfloat16 product with AMX tiles; see products.h.
 *
 * Tiles 0-3 hold the 32 x 32 sums, 4-5 the lines of A, 6-7 the columns of B: two loads serve four
 * multiplications.
 */
#include "model/kernels/cpu/products.h"

#ifdef __x86_64__
#include <immintrin.h>

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Tiles for blocks of `rows` lines, 1 to 32. Tiles of the unused second half keep one line; they
 * are not touched. */
static void configure(int rows)
{
    struct tile_config c = {.palette = 1};
    uint8_t upper = (uint8_t)(rows < 16 ? rows : 16), lower = (uint8_t)(rows > 16 ? rows - 16 : 1);
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = 16;
    }
    c.rows[0] = c.rows[1] = c.rows[4] = upper;
    c.rows[2] = c.rows[3] = c.rows[5] = lower;
    /* gcc 12's intrinsics do not say that they read memory: without this the stores above may be
     * left out. Operands of the tile loads below come through a call, which is barrier enough. */
    __asm__ volatile("" : : "r"(&c) : "memory");
    _tile_loadconfig(&c);
}

void block_amx_begin(void)
{
    configure(32);
}

void block_amx_end(void)
{
    _tile_release();
}

/* Sixteen lines or fewer: the upper half alone. */
static void block_upper(int steps, const unsigned char *a, int64_t a_line, int64_t a_step,
                        const uint16_t *b, bool add, float *c)
{
    if (add) {
        _tile_loadd(0, c, 128);
        _tile_loadd(1, c + 16, 128);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (int s = 0; s < steps; s++, a += a_step, b += 1024) {
        _tile_loadd(4, a, a_line);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + 512, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, 128);
    _tile_stored(1, c + 16, 128);
}

static void block_both(int steps, const unsigned char *a, int64_t a_line, int64_t a_step,
                       const uint16_t *b, bool add, float *c)
{
    if (add) {
        _tile_loadd(0, c, 128);
        _tile_loadd(1, c + 16, 128);
        _tile_loadd(2, c + 512, 128);
        _tile_loadd(3, c + 528, 128);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int s = 0; s < steps; s++, a += a_step, b += 1024) {
        _tile_loadd(4, a, a_line);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + 512, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * a_line, a_line);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 128);
    _tile_stored(1, c + 16, 128);
    _tile_stored(2, c + 512, 128);
    _tile_stored(3, c + 528, 128);
}

void block_amx(int rows, int steps, const void *a, int64_t a_line, int64_t a_step,
               const uint16_t *b, bool add, float *c)
{
    if (rows == 32) {
        block_both(steps, a, a_line, a_step, b, add, c);
        return;
    }
    configure(rows);
    if (rows > 16)
        block_both(steps, a, a_line, a_step, b, add, c);
    else
        block_upper(steps, a, a_line, a_step, b, add, c);
    configure(32);
}
#endif
