/*
 * statistics.c - tests that need a distribution; see statistics.h. bootstrap.c has the others.
 *
 * Both distributions are incomplete beta functions, computed in long double: lgamma of a million
 * has too few digits behind the point in double.
 */
#include "worker/statistics.h"

#include <math.h>

/* Lentz's evaluation of the continued fraction of I_x(a, b); converges fast for x < (a + 1) / (a +
 * b
 * + 2). */
static long double beta_fraction(long double a, long double b, long double x)
{
    const long double tiny = 1e-4000L, close = 1e-19L;
    long double c = 1.0L, d = 1.0L - (a + b) * x / (a + 1.0L), h;
    d = 1.0L / (fabsl(d) < tiny ? tiny : d);
    h = d;
    for (int m = 1; m < 100000; m++) {
        long double even = m * (b - m) * x / ((a + 2 * m - 1.0L) * (a + 2 * m));
        long double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0L));
        d = 1.0L + even * d;
        c = 1.0L + even / c;
        d = 1.0L / (fabsl(d) < tiny ? tiny : d);
        c = fabsl(c) < tiny ? tiny : c;
        h *= d * c;
        d = 1.0L + odd * d;
        c = 1.0L + odd / c;
        d = 1.0L / (fabsl(d) < tiny ? tiny : d);
        c = fabsl(c) < tiny ? tiny : c;
        h *= d * c;
        if (fabsl(d * c - 1.0L) < close)
            break;
    }
    return h;
}

/* The regularized incomplete beta function. y is 1 - x, given because x may be all but 1. */
static long double incomplete_beta(long double a, long double b, long double x, long double y)
{
    if (x <= 0.0L || y <= 0.0L)
        return x <= 0.0L ? 0.0L : 1.0L;
    long double front = expl(lgammal(a + b) - lgammal(a) - lgammal(b) + a * logl(x) + b * logl(y));
    if (x < (a + 1.0L) / (a + b + 2.0L))
        return front * beta_fraction(a, b, x) / a;
    return 1.0L - front * beta_fraction(b, a, y) / b;
}

double student_two_sided(double t, double freedom)
{
    long double square = (long double)t * t, all = freedom + square;
    if (isnan(t) || !(freedom > 0.0))
        return NAN;
    if (isinf(square))
        return 0.0;
    return (double)incomplete_beta(freedom / 2.0L, 0.5L, freedom / all, square / all);
}

double student_quantile(double p, double freedom)
{
    double low = 0.0, high = 1.0;
    if (!(p > 0.0 && p < 1.0) || !(freedom > 0.0))
        return NAN;
    while (student_two_sided(high, freedom) > p && high < 1e300)
        high *= 2.0;
    for (int i = 0; i < 200; i++) {
        double middle = low + (high - low) / 2.0;
        if (middle <= low || middle >= high)
            break;
        if (student_two_sided(middle, freedom) > p)
            low = middle;
        else
            high = middle;
    }
    return high;
}

double binomial_two_sided(int64_t less, int64_t n)
{
    if (2 * less >= n)
        return 1.0;
    long double p = 2.0L *
                    incomplete_beta((long double)(n - less), (long double)less + 1.0L, 0.5L, 0.5L);
    return p < 1.0L ? (double)p : 1.0;
}

enum status statistics_resampled_t(const double *a, const double *b, int n, double test_rows,
                                   double train_rows, struct resampled_t *out)
{
    double sum = 0.0, squares = 0.0;
    *out = (struct resampled_t){n, n - 1, NAN, NAN, NAN, NAN, {NAN, NAN}};
    if (!(test_rows > 0.0) || !(train_rows > 0.0))
        return status_fail(STATUS_ARG, "%g rows scored and %g trained on, wanted more than 0",
                           test_rows, train_rows);
    if (n < 2)
        return STATUS_OK;
    for (int i = 0; i < n; i++)
        sum += b[i] - a[i];
    if (isnan(sum))
        return STATUS_OK;
    out->mean = sum / n;
    bool equal = true; /* their mean may be rounded away from them */
    for (int i = 0; i < n; i++) {
        double d = b[i] - a[i] - out->mean;
        squares += d * d;
        equal = equal && b[i] - a[i] == b[0] - a[0];
    }
    if (equal) {
        out->mean = b[0] - a[0];
        squares = 0.0;
    }
    out->std = sqrt(squares / (n - 1));
    double error = out->std * sqrt(1.0 / n + test_rows / train_rows);
    double reach = student_quantile(0.05, n - 1) * error;
    out->t = out->mean / error;
    out->p = student_two_sided(out->t, n - 1);
    out->ci95[0] = out->mean - reach;
    out->ci95[1] = out->mean + reach;
    return STATUS_OK;
}
