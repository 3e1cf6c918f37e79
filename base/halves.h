/*
 * halves.h - 16-bit floats to and from binary32: bfloat16 and IEEE binary16.
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even; what is too large becomes infinite,
 * what is too small becomes subnormal or zero, NaN stays NaN (made quiet, sign and upper payload
 * kept). Plain integer code, so every machine writes the same bytes.
 *
 * Local.
 */
#ifndef COHORT_BASE_HALVES_H
#define COHORT_BASE_HALVES_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float float_from_bf16(uint16_t half)
{
    return float_of_bits((uint32_t)half << 16);
}

static inline uint16_t bf16_from_float(float value)
{
    uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    bits += 0x7fffu + ((bits >> 16) &
                       1u); /* a carry out of the mantissa steps the exponent, up to infinity */
    return (uint16_t)(bits >> 16);
}

static inline float float_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u,
             mantissa = half & 0x3ffu;
    if (exponent == 0) /* zero and subnormals: whole multiples of 2^-24, exact in binary32 */
        return float_of_bits(float_bits((float)mantissa * 0x1p-24f) | sign);
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000u | (mantissa << 13));
    return float_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

static inline uint16_t f16_from_float(float value)
{
    uint32_t bits = float_bits(value), sign = (bits >> 16) & 0x8000u, a = bits & 0x7fffffffu, r;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x47800000u) /* 65536 and above; 65520 to 65536 reach infinity by the carry below */
        return (uint16_t)(sign | 0x7c00u);
    if (a >= 0x38800000u) { /* 2^-14 and above: normal */
        r = a - 0x38000000u;
        r += 0xfffu + ((r >> 13) & 1u);
        return (uint16_t)(sign | (r >> 13));
    }
    if (a < 0x33000000u) /* below half of the smallest subnormal */
        return (uint16_t)sign;
    uint32_t mantissa = (a & 0x7fffffu) | 0x800000u,
             shift = 126u - (a >> 23); /* in units of 2^-24; 14 to 24 */
    uint32_t rest = mantissa & ((1u << shift) - 1u), middle = 1u << (shift - 1u);
    r = mantissa >> shift;
    if (rest > middle || (rest == middle && (r & 1u) != 0))
        r++;
    return (uint16_t)(sign | r);
}

#endif
