/* block_f32_c.c - a block of a float product for any CPU, in vectors of four; see block_f32.h. */
#include <string.h>

typedef float vector4 __attribute__((vector_size(16)));

static inline vector4 load(const float *p)
{
    vector4 x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline void store(float *p, vector4 x)
{
    memcpy(p, &x, sizeof x);
}

#define BLOCK block_f32_c
#define VECTOR vector4
#define LANES 4
#define LOAD(p) load(p)
#define STORE(p, x) store(p, x)
#define BROADCAST(x) ((vector4){x, x, x, x})
#define MULTIPLY_ADD(x, y, sum) ((sum) + (x) * (y))

#include "model/kernels/cpu/block_f32.h"
