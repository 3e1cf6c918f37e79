/*
 * activation_tables.h - polynomials for GELU.
 *
 * With t = 2 x^2 / 5.5^2 - 1 in [-1, 1] for |x| <= 5.5: value = x (1/2 + x V(t)), slope = 1/2 + x
 * S(t), where V = (Phi(x) - 1/2) / x and S = V + phi(x) are even in x, so that one polynomial
 * serves both signs. Coefficients are the Chebyshev interpolation in 4,000 nodes, rewritten in
 * powers of t, highest first; they stay below 0.14, so nothing cancels. Beyond 5.5 the normal
 * distribution is taken as 0 or 1 (errors 1e-7 and 6e-7).
 */
#ifndef COHORT_MODEL_KERNELS_CPU_ACTIVATION_TABLES_H
#define COHORT_MODEL_KERNELS_CPU_ACTIVATION_TABLES_H

#define GELU_LIMIT 5.5f
#define GELU_SCALE (2.0f / (5.5f * 5.5f))
#define GELU_VALUE_TERMS 16
#define GELU_SLOPE_TERMS 18

/* Largest error 5.0e-07 of the value. */
static const float gelu_value[16] = {
    -2.856763313e-04f, 6.562366616e-04f, -3.567546082e-04f, 6.399065023e-04f,
    -2.658702433e-03f, 4.723569844e-03f, -6.650678348e-03f, 1.016421244e-02f,
    -1.506252401e-02f, 2.038480714e-02f, -2.603615075e-02f, 3.206722438e-02f,
    -3.879379481e-02f, 4.773779586e-02f, -6.417231262e-02f, 1.285519302e-01f,
};

/* Largest error 1.6e-07 of the slope. */
static const float gelu_slope[18] = {
    -1.145238755e-03f, 2.699041273e-03f,  -1.153656980e-03f, 1.881005475e-03f,  -1.105473842e-02f,
    1.983454637e-02f,  -2.532828413e-02f, 3.701883927e-02f,  -5.345245823e-02f, 6.617926806e-02f,
    -7.309534401e-02f, 7.402069867e-02f,  -6.878376007e-02f, 6.034012511e-02f,  -5.373430625e-02f,
    5.366413668e-02f,  -6.573989242e-02f, 1.287592202e-01f,
};

/* 2^x for |x| <= 1/2, highest power first; relative error 2.6e-09. */
#define EXP2_TERMS 7
static const float exp2_terms[7] = {
    1.546973217e-04f, 1.340043265e-03f, 9.618025273e-03f, 5.550327152e-02f,
    2.402265072e-01f, 6.931471825e-01f, 1.000000000e+00f,
};

#endif
