/*
 * attention_amx.c - attention in bfloat16 on AMX tiles: a panel of 16 rows is a tile as it lies
 * (stride 64 bytes).
 *
 * Tile configuration belongs to the thread: begin() loads it, end() releases it, so that oneDNN's
 * own kernels find none.
 */
#ifdef __x86_64__
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ATTENTION_BF16 1
#define ATTENTION_PATH attention_amx
#define ATTENTION_NAME "AMX-BF16"
#define ATTENTION_BEGIN tiles_begin
#define ATTENTION_END tiles_end
#define SUM_STEP 16 /* a tile takes 16 words along the sum */

/* GCC 12's tile loads do not say that they read memory: stores before must not be moved behind them
 * or left out. */
#define IN_MEMORY() __asm__ volatile("" ::: "memory")

/*
 * The unit that multiplies tiles falls asleep after about 1,000 cycles without a product, and the
 * next one then waits 0.25 us (measured: 848 instead of 218 ticks of 2.6 GHz for four products). So
 * work between products drops in one whose result nobody reads; tiles are free outside multiply().
 */
#define KEEP_AWAKE() _tile_dpbf16ps(0, 4, 6)

static void tiles_begin(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) {
        c.bytes[i] = 64;
        c.rows[i] = 16;
    }
    IN_MEMORY(); /* GCC 12 says of LDTILECFG only that it reads 8 bytes */
    _tile_loadconfig(&c);
}

static void tiles_end(void)
{
    _tile_release();
}

#define TILE_START(t, at)                                                                          \
    do {                                                                                           \
        if (add)                                                                                   \
            _tile_loadd(t, at, 64);                                                                \
        else                                                                                       \
            _tile_zero(t);                                                                         \
    } while (0)

/* Two tiles of rows (m2) and n = 1 or 2 panels of columns, or one and n = 1..4. m2 and n are
 * constants. */
static inline __attribute__((always_inline)) void block(bool m2, int n, int words,
                                                        const uint32_t *a, int64_t a_panel,
                                                        const uint32_t *b, int64_t b_panel,
                                                        float *c, int64_t c_panel, bool add)
{
    IN_MEMORY();
    TILE_START(0, c);
    if (n > 1)
        TILE_START(1, c + c_panel);
    if (m2)
        TILE_START(2, c + 256);
    if (m2 && n > 1)
        TILE_START(3, c + c_panel + 256);
    if (!m2 && n > 2)
        TILE_START(2, c + 2 * c_panel);
    if (!m2 && n > 3)
        TILE_START(3, c + 3 * c_panel);
    for (int k = 0; k < words; k += 16, a += a_panel, b += 256) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (n > 1) {
            _tile_loadd(7, b + b_panel, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (m2) {
            _tile_loadd(5, a + 256, 64);
            _tile_dpbf16ps(2, 5, 6);
            if (n > 1)
                _tile_dpbf16ps(3, 5, 7);
        } else {
            if (n > 2) {
                _tile_loadd(5, b + 2 * b_panel, 64);
                _tile_dpbf16ps(2, 4, 5);
            }
            if (n > 3) {
                _tile_loadd(6, b + 3 * b_panel, 64);
                _tile_dpbf16ps(3, 4, 6);
            }
        }
    }
    _tile_stored(0, c, 64);
    if (n > 1)
        _tile_stored(1, c + c_panel, 64);
    if (m2)
        _tile_stored(2, c + 256, 64);
    if (m2 && n > 1)
        _tile_stored(3, c + c_panel + 256, 64);
    if (!m2 && n > 2)
        _tile_stored(2, c + 2 * c_panel, 64);
    if (!m2 && n > 3)
        _tile_stored(3, c + 3 * c_panel, 64);
}

/* C (rows, panels of 16) = or += A B; rows are rounded up to 16. *_panel: words from one panel to
 * the next. */
static void multiply(int rows, int panels, int words, const uint32_t *a, int64_t a_panel,
                     const uint32_t *b, int64_t b_panel, float *c, int64_t c_panel, bool add)
{
    int m = 0;
    for (; m + 16 < rows; m += 32) {
        int n = 0;
        for (; n + 2 <= panels; n += 2)
            block(true, 2, words, a + m * 16, a_panel, b + n * b_panel, b_panel,
                  c + n * c_panel + m * 16, c_panel, add);
        if (n < panels)
            block(true, 1, words, a + m * 16, a_panel, b + n * b_panel, b_panel,
                  c + n * c_panel + m * 16, c_panel, add);
    }
    if (m >= rows)
        return;
    a += m * 16;
    c += m * 16;
    for (; panels > 3; panels -= 4, b += 4 * b_panel, c += 4 * c_panel)
        block(false, 4, words, a, a_panel, b, b_panel, c, c_panel, add);
    if (panels == 3)
        block(false, 3, words, a, a_panel, b, b_panel, c, c_panel, add);
    else if (panels == 2)
        block(false, 2, words, a, a_panel, b, b_panel, c, c_panel, add);
    else if (panels == 1)
        block(false, 1, words, a, a_panel, b, b_panel, c, c_panel, add);
}

#include "model/kernels/cpu/attention_simd.h"
#endif
