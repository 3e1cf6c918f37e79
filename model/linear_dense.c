/*
 * linear_dense.c - a table of numbers as the features of a linear model; see linear.h.
 *
 * X X^T a = X (X^T a): the sum over rows in a fixed number of blocks of rows, added in their order,
 * then row by row. A column of `a` meets the same additions in the same order whatever stands
 * beside it.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/linear.h"

enum { BLOCKS = 16, TOGETHER = 4 };

struct linear_dense {
    const float *x; /* (all rows, d) */
    int d;
    int64_t n;
    int64_t *rows;       /* (n) */
    double *mean, *unit; /* (d) 1 / standard deviation; 0 and 1 where nothing is standardized */
    double *w;           /* (BLOCKS, d, k) */
    double *shift;       /* (k) */
    size_t capacity;     /* k that there is room for */
};

enum status linear_dense_create(const float *x, int d, const int64_t *rows, int64_t n,
                                bool standardize, struct linear_dense **out)
{
    struct linear_dense *f;
    size_t width = (size_t)d;
    enum status st;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *f, "features", &f));
    f->x = x;
    f->d = d;
    f->n = n;
    TRY_GOTO(fail, mem_alloc_raw((size_t)n, sizeof *f->rows, "features", &f->rows));
    TRY_GOTO(fail, mem_alloc(width, sizeof *f->mean, "features", &f->mean));
    TRY_GOTO(fail, mem_alloc(width, sizeof *f->unit, "features", &f->unit));
    for (int64_t i = 0; i < n; i++)
        f->rows[i] = rows[i];
    for (int64_t i = 0; standardize && i < n; i++) {
        for (int j = 0; j < d; j++)
            f->mean[j] += (double)x[rows[i] * d + j];
    }
    for (int j = 0; j < d; j++)
        f->mean[j] /= n > 0 ? (double)n : 1.0;
    for (int64_t i = 0; standardize && i < n; i++) {
        for (int j = 0; j < d; j++) {
            double e = (double)x[rows[i] * d + j] - f->mean[j];
            f->unit[j] += e * e;
        }
    }
    for (int j = 0; j < d; j++) /* what rounding leaves of a constant is no deviation */
        f->unit[j] = sqrt(f->unit[j] / (double)n) > 1e-12 * fabs(f->mean[j]) && f->unit[j] > 0.0
                         ? sqrt((double)n / f->unit[j])
                         : 1.0;
    *out = f;
    return STATUS_OK;
fail:
    linear_dense_destroy(f);
    return st;
}

void linear_dense_destroy(struct linear_dense *f)
{
    if (f == NULL)
        return;
    mem_free(f->rows);
    mem_free(f->mean);
    mem_free(f->unit);
    mem_free(f->w);
    mem_free(f->shift);
    mem_free(f);
}

static enum status make_room(struct linear_dense *f, int k)
{
    size_t wanted = (size_t)k;
    if (wanted <= f->capacity)
        return STATUS_OK;
    mem_free(f->w);
    mem_free(f->shift);
    f->w = f->shift = NULL;
    f->capacity = 0;
    TRY(mem_alloc_raw(wanted * BLOCKS, (size_t)f->d * sizeof *f->w, "weights", &f->w));
    TRY(mem_alloc_raw(wanted, sizeof *f->shift, "weights", &f->shift));
    f->capacity = wanted;
    return STATUS_OK;
}

/* w[0] (d, k) = the weights by which raw values are multiplied, shift (k) what is then subtracted.
 */
static void take_weights(struct linear_dense *f, int k, const double *a)
{
    size_t cells = (size_t)f->d * (size_t)k;
    int d = f->d;
#pragma omp parallel for schedule(dynamic, 1)
    for (int b = 0; b < BLOCKS; b++) {
        double *w = f->w + cells * (size_t)b;
        memset(w, 0, cells * sizeof *w);
        for (int64_t i = f->n * b / BLOCKS; i < f->n * (b + 1) / BLOCKS; i++) {
            const float *x = f->x + f->rows[i] * d;
            const double *row = a + i * k;
            if (k == 1) {
                double factor = row[0];
                for (int j = 0; j < d; j++)
                    w[j] += (double)x[j] * factor;
                continue;
            }
            for (int j = 0; j < d; j++) {
                double value = (double)x[j], *to = w + (size_t)j * (size_t)k;
                for (int c = 0; c < k; c++)
                    to[c] += value * row[c];
            }
        }
    }
    for (int b = 1; b < BLOCKS; b++) {
        for (size_t i = 0; i < cells; i++)
            f->w[i] += f->w[cells * (size_t)b + i];
    }
    for (int c = 0; c < k; c++) {
        double sum = 0.0, shift = 0.0;
        for (int64_t i = 0; i < f->n; i++)
            sum += a[i * k + c];
        for (int j = 0; j < d; j++) {
            double *w = &f->w[(size_t)j * (size_t)k + (size_t)c];
            *w = (*w - f->mean[j] * sum) * f->unit[j] * f->unit[j];
            shift += f->mean[j] * *w;
        }
        f->shift[c] = shift;
    }
}

/* z of `rows`: TOGETHER at a time where k is 1, so that their sums need not wait for each other. */
static void apply(const struct linear_dense *f, const int64_t *rows, int64_t count, int k,
                  double *z)
{
    int d = f->d;
#pragma omp parallel for schedule(static)
    for (int64_t from = 0; from < count; from += TOGETHER) {
        int64_t to = from + TOGETHER < count ? from + TOGETHER : count;
        if (k == 1 && to - from == TOGETHER) {
            const float *x0 = f->x + rows[from] * d, *x1 = f->x + rows[from + 1] * d;
            const float *x2 = f->x + rows[from + 2] * d, *x3 = f->x + rows[from + 3] * d;
            double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
            for (int j = 0; j < d; j++) {
                s0 += (double)x0[j] * f->w[j];
                s1 += (double)x1[j] * f->w[j];
                s2 += (double)x2[j] * f->w[j];
                s3 += (double)x3[j] * f->w[j];
            }
            z[from] = s0 - f->shift[0];
            z[from + 1] = s1 - f->shift[0];
            z[from + 2] = s2 - f->shift[0];
            z[from + 3] = s3 - f->shift[0];
            continue;
        }
        for (int64_t i = from; i < to; i++) {
            const float *x = f->x + rows[i] * d;
            double *out = z + i * k;
            for (int c = 0; c < k; c++)
                out[c] = 0.0;
            for (int j = 0; j < d; j++) {
                const double *w = f->w + (size_t)j * (size_t)k;
                double value = (double)x[j];
                for (int c = 0; c < k; c++)
                    out[c] += value * w[c];
            }
            for (int c = 0; c < k; c++)
                out[c] -= f->shift[c];
        }
    }
}

enum status linear_dense_gram(void *self, int k, const double *a, double *z)
{
    struct linear_dense *f = self;
    TRY(make_room(f, k));
    take_weights(f, k, a);
    apply(f, f->rows, f->n, k, z);
    return STATUS_OK;
}

enum status linear_dense_cross(struct linear_dense *f, const int64_t *rows, int64_t count, int k,
                               const double *a, double *z)
{
    TRY(make_room(f, k));
    take_weights(f, k, a);
    apply(f, rows, count, k, z);
    return STATUS_OK;
}
