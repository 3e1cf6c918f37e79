/*
 * tfidf_fit.c - the vocabulary of some rows, and products with their matrix; see tfidf.h.
 *
 * X X^T by columns. The columns are read one after another (their row numbers and counts), each
 * adds to a vector over rows, which stays in the cache. A term of one single training row reaches
 * no other row: it is part of a diagonal, and four of five trigrams are such. Columns are dealt to
 * a fixed number of blocks with a vector each, whose sum is taken in block order, so that threads
 * change nothing.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/tfidf_internal.h"

enum {
    BLOCKS = 8, /* of columns */
    WIDE = 16   /* columns of `a` computed together at most */
};
/* Of the blocks' vectors: fewer columns of `a` go together where rows are many. */
#define SCRATCH_BYTES ((size_t)256 << 20)

struct tfidf_fit {
    const struct tfidf *tfidf;
    int64_t n;        /* rows fitted on */
    int64_t *rows;    /* (n) */
    int32_t *df;      /* (terms) rows of the fit that have the term; 0: not in the vocabulary */
    double *idf;      /* (n + 1) by df */
    double *weight;   /* (levels) of a count */
    double *scale;    /* (all rows) 1 / norm; 0 where the row is zero */
    double *diagonal; /* (all rows) sum of squares of terms of this row of the fit alone, before the
                         norm */
    int32_t
        *columns; /* (ncolumns) terms of several rows: first those of several rows of the fit ... */
    int64_t ncolumns, nshared;                             /* ... nshared of them */
    int64_t shared_cuts[BLOCKS + 1], all_cuts[BLOCKS + 1]; /* blocks of columns */
    uint8_t *mine; /* (all rows) whether it is one of the fit's */
    int64_t features;
    double *q, *u; /* scratch: (all rows, wide), (blocks, all rows, wide) */
    int wide;      /* columns that the scratch holds; 0: not made yet */
};

/* ---- a fit ---- */

static int falling(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x > y ? -1 : x < y;
}

/* Keep the `wanted` terms that stand most often in the fit's rows. */
static enum status keep_most_frequent(struct tfidf_fit *f, int64_t wanted)
{
    const struct tfidf *t = f->tfidf;
    uint32_t *total = NULL, *sorted = NULL; /* all n-grams are fewer than 2^31 */
    int64_t n = 0, room = wanted;
    enum status st;
    TRY_GOTO(done, mem_alloc((size_t)t->terms, sizeof *total, "the terms", &total));
    TRY_GOTO(done, mem_alloc_raw((size_t)f->features, sizeof *sorted, "the terms", &sorted));
    for (int64_t j = 0; j < t->terms; j++) {
        if (f->df[j] == 0)
            continue;
        for (int64_t e = t->begin[j]; e < t->begin[j + 1]; e++)
            total[j] += f->mine[t->row[e]] ? t->count[t->level[e]] : 0;
        sorted[n++] = total[j];
    }
    qsort(sorted, (size_t)n, sizeof *sorted, falling);
    uint32_t least = sorted[wanted - 1]; /* all above it stay, of those with it the first ones */
    for (int64_t i = 0; i < wanted && sorted[i] > least; i++)
        room--;
    for (int64_t j = 0; j < t->terms; j++) {
        if (total[j] == least && room > 0)
            room--;
        else if (total[j] <= least)
            f->df[j] = 0;
    }
    f->features = wanted;
done:
    mem_free(total);
    mem_free(sorted);
    return st;
}

static enum status choose_vocabulary(struct tfidf_fit *f, const struct tfidf_fit_opts *opts)
{
    const struct tfidf *t = f->tfidf;
    double n = (double)f->n;
    double low = opts->min_df < 1.0 ? opts->min_df * n : opts->min_df;
    double high = opts->max_df <= 1.0 ? opts->max_df * n : opts->max_df;
    int64_t seen = 0;
    for (int64_t j = 0; j < t->terms; j++) {
        int32_t df = 0;
        for (int64_t e = t->begin[j]; e < t->begin[j + 1]; e++)
            df += f->mine[t->row[e]];
        seen += df > 0;
        f->df[j] = df > 0 && df >= low && df <= high ? df : 0;
        f->features += f->df[j] > 0;
    }
    if (seen == 0)
        return status_fail(STATUS_DATA,
                           "none of the %lld texts has a term: a word has two letters or digits at "
                           "least",
                           (long long)f->n);
    if (high < low)
        return status_fail(STATUS_CONFIG,
                           "a term may stand in at most %g of %lld rows and must stand in at least "
                           "%g, so none is left",
                           high, (long long)f->n, low);
    if (f->features == 0)
        return status_fail(STATUS_DATA, "none of %lld terms stands in %g to %g of the %lld texts",
                           (long long)seen, low, high, (long long)f->n);
    if (opts->max_features > 0 && f->features > opts->max_features)
        return keep_most_frequent(f, opts->max_features);
    return STATUS_OK;
}

/* Where the blocks of columns[0..count) begin, so that each has about as many pairs. */
static void cut(const struct tfidf_fit *f, int64_t count, int64_t *cuts)
{
    const struct tfidf *t = f->tfidf;
    int64_t all = 0, behind = 0, i = 0;
    for (int64_t c = 0; c < count; c++)
        all += t->begin[f->columns[c] + 1] - t->begin[f->columns[c]];
    for (int b = 0; b <= BLOCKS; b++) {
        for (; i < count && behind < all / BLOCKS * b; i++)
            behind += t->begin[f->columns[i] + 1] - t->begin[f->columns[i]];
        cuts[b] = b == BLOCKS ? count : i;
    }
}

static enum status weigh(struct tfidf_fit *f, const struct tfidf_fit_opts *opts)
{
    const struct tfidf *t = f->tfidf;
    int64_t shared = 0, alone = 0;
    for (int64_t df = 0; df <= f->n; df++)
        f->idf[df] = log((double)(1 + f->n) / (double)(1 + df)) + 1.0;
    for (int l = 0; l < t->levels; l++)
        f->weight[l] = opts->sublinear ? 1.0 + log((double)t->count[l]) : (double)t->count[l];
    for (int64_t j = 0; j < t->terms; j++) {
        shared += f->df[j] > 1;
        alone += f->df[j] == 1 && t->begin[j + 1] - t->begin[j] > 1;
    }
    f->nshared = shared;
    f->ncolumns = shared + alone;
    TRY(mem_alloc_raw((size_t)f->ncolumns, sizeof *f->columns, "the vocabulary", &f->columns));
    alone = shared;
    shared = 0;
    for (int64_t j = 0; j < t->terms; j++) {
        if (f->df[j] == 0)
            continue;
        if (f->df[j] > 1)
            f->columns[shared++] = (int32_t)j;
        else if (t->begin[j + 1] - t->begin[j] > 1)
            f->columns[alone++] = (int32_t)j;
        for (int64_t e = t->begin[j]; e < t->begin[j + 1]; e++) {
            double value = f->weight[t->level[e]] * f->idf[f->df[j]];
            f->scale[t->row[e]] += value * value;
            if (f->df[j] == 1 && f->mine[t->row[e]])
                f->diagonal[t->row[e]] += value * value;
        }
    }
    for (int64_t r = 0; r < t->rows; r++)
        f->scale[r] = f->scale[r] > 0.0 ? 1.0 / sqrt(f->scale[r]) : 0.0;
    cut(f, f->nshared, f->shared_cuts);
    cut(f, f->ncolumns, f->all_cuts);
    return STATUS_OK;
}

enum status tfidf_fit_create(const struct tfidf *t, const struct tfidf_fit_opts *opts,
                             const int64_t *rows, int64_t n, struct tfidf_fit **out)
{
    struct tfidf_fit *f;
    size_t all = (size_t)t->rows;
    enum status st;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *f, "a vocabulary", &f));
    f->tfidf = t;
    f->n = n;
    TRY_GOTO(fail, mem_alloc(all, sizeof *f->mine, "the fitted rows", &f->mine));
    TRY_GOTO(fail, mem_alloc_raw((size_t)n, sizeof *f->rows, "the fitted rows", &f->rows));
    for (int64_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= t->rows || f->mine[rows[i]]) {
            st = status_fail(STATUS_ARG, "row %lld of %lld, wanted each once", (long long)rows[i],
                             (long long)t->rows);
            goto fail;
        }
        f->mine[rows[i]] = 1;
        f->rows[i] = rows[i];
    }
    TRY_GOTO(fail, mem_alloc_raw((size_t)t->terms, sizeof *f->df, "the vocabulary", &f->df));
    TRY_GOTO(fail, mem_alloc_raw((size_t)n + 1, sizeof *f->idf, "the idf", &f->idf));
    TRY_GOTO(fail, mem_alloc_raw((size_t)t->levels, sizeof *f->weight, "the counts", &f->weight));
    TRY_GOTO(fail, mem_alloc(all, sizeof *f->scale, "the rows' norms", &f->scale));
    TRY_GOTO(fail, mem_alloc(all, sizeof *f->diagonal, "the rows' norms", &f->diagonal));
    TRY_GOTO(fail, choose_vocabulary(f, opts));
    TRY_GOTO(fail, weigh(f, opts));
    *out = f;
    return STATUS_OK;
fail:
    tfidf_fit_destroy(f);
    return st;
}

void tfidf_fit_destroy(struct tfidf_fit *f)
{
    if (f == NULL)
        return;
    mem_free(f->rows);
    mem_free(f->mine);
    mem_free(f->df);
    mem_free(f->idf);
    mem_free(f->weight);
    mem_free(f->scale);
    mem_free(f->diagonal);
    mem_free(f->columns);
    mem_free(f->q);
    mem_free(f->u);
    mem_free(f);
}

int64_t tfidf_fit_features(const struct tfidf_fit *f)
{
    return f->features;
}

/* ---- products ---- */

static enum status make_scratch(struct tfidf_fit *f, int k)
{
    size_t rows = (size_t)f->tfidf->rows,
           fit = SCRATCH_BYTES / (sizeof(double) * BLOCKS) / (rows + 1);
    int wide = k < WIDE ? k : WIDE;
    wide = fit < (size_t)wide ? (fit < 1 ? 1 : (int)fit) : wide;
    if (f->wide >= wide)
        return STATUS_OK;
    mem_free(f->q);
    mem_free(f->u);
    f->q = f->u = NULL;
    f->wide = 0;
    TRY(mem_alloc_raw(rows * (size_t)wide, sizeof *f->q, "a product", &f->q));
    TRY(mem_alloc_raw(rows * (size_t)wide * BLOCKS, sizeof *f->u, "a product", &f->u));
    f->wide = wide;
    return STATUS_OK;
}

/* q = a / norm on the fit's rows, 0 on the others: columns [from, from + k) of `of`. */
static void scatter(struct tfidf_fit *f, const double *a, int of, int from, int k)
{
    memset(f->q, 0, (size_t)f->tfidf->rows * (size_t)k * sizeof *f->q);
    for (int64_t i = 0; i < f->n; i++) {
        double scale = f->scale[f->rows[i]];
        for (int c = 0; c < k; c++)
            f->q[f->rows[i] * k + c] = a[i * of + from + c] * scale;
    }
}

static void columns_one(const struct tfidf_fit *f, const int32_t *columns, int64_t count, double *u)
{
    const struct tfidf *t = f->tfidf;
    const double *q = f->q, *weight = f->weight;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin = t->begin[columns[i]], end = t->begin[columns[i] + 1];
        double idf = f->idf[f->df[columns[i]]], sum = 0.0;
        for (int64_t e = begin; e < end; e++)
            sum += weight[t->level[e]] * q[t->row[e]];
        sum *= idf * idf;
        for (int64_t e = begin; e < end; e++)
            u[t->row[e]] += weight[t->level[e]] * sum;
    }
}

static void columns_many(const struct tfidf_fit *f, const int32_t *columns, int64_t count, int k,
                         double *u)
{
    const struct tfidf *t = f->tfidf;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin = t->begin[columns[i]], end = t->begin[columns[i] + 1];
        double idf = f->idf[f->df[columns[i]]], sum[WIDE] = {0};
        for (int64_t e = begin; e < end; e++) {
            const double *q = f->q + (size_t)t->row[e] * (size_t)k;
            double weight = f->weight[t->level[e]];
            for (int c = 0; c < k; c++)
                sum[c] += weight * q[c];
        }
        for (int c = 0; c < k; c++)
            sum[c] *= idf * idf;
        for (int64_t e = begin; e < end; e++) {
            double *to = u + (size_t)t->row[e] * (size_t)k, weight = f->weight[t->level[e]];
            for (int c = 0; c < k; c++)
                to[c] += weight * sum[c];
        }
    }
}

/* u[0] (all rows, k) = the sum over blocks of columns of sum_j idf_j^2 w_j (w_j . q). */
static void spread(struct tfidf_fit *f, const int64_t *cuts, int k)
{
    size_t cells = (size_t)f->tfidf->rows * (size_t)k;
#pragma omp parallel for schedule(dynamic, 1)
    for (int b = 0; b < BLOCKS; b++) {
        int64_t from = cuts[b], to = cuts[b + 1];
        double *u = f->u + cells * (size_t)b;
        memset(u, 0, cells * sizeof *u);
        if (k == 1)
            columns_one(f, f->columns + from, to - from, u);
        else
            columns_many(f, f->columns + from, to - from, k, u);
    }
    for (int b = 1; b < BLOCKS; b++) {
        const double *u = f->u + cells * (size_t)b;
        for (size_t i = 0; i < cells; i++)
            f->u[i] += u[i];
    }
}

enum status tfidf_gram(struct tfidf_fit *f, int k, const double *a, double *z)
{
    TRY(make_scratch(f, k));
    for (int from = 0; from < k; from += f->wide) {
        int some = k - from < f->wide ? k - from : f->wide;
        scatter(f, a, k, from, some);
        spread(f, f->shared_cuts, some);
        for (int64_t i = 0; i < f->n; i++) {
            int64_t r = f->rows[i];
            for (int c = 0; c < some; c++)
                z[i * k + from + c] = f->scale[r] *
                                      (f->u[r * some + c] + f->diagonal[r] * f->q[r * some + c]);
        }
    }
    return STATUS_OK;
}

enum status tfidf_cross(struct tfidf_fit *f, const int64_t *rows, int64_t count, int k,
                        const double *a, double *z)
{
    TRY(make_scratch(f, k));
    for (int64_t i = 0; i < count; i++) {
        if (rows[i] < 0 || rows[i] >= f->tfidf->rows || f->mine[rows[i]])
            return status_fail(STATUS_ARG, "row %lld of %lld, wanted one that was not fitted on",
                               (long long)rows[i], (long long)f->tfidf->rows);
    }
    for (int from = 0; from < k; from += f->wide) {
        int some = k - from < f->wide ? k - from : f->wide;
        scatter(f, a, k, from, some);
        spread(f, f->all_cuts, some);
        for (int64_t i = 0; i < count; i++) {
            for (int c = 0; c < some; c++)
                z[i * k + from + c] = f->scale[rows[i]] * f->u[rows[i] * some + c];
        }
    }
    return STATUS_OK;
}

/* Scratch holds `wide` columns of a; here all k are needed at once, so they have memory of their
 * own. */
enum status tfidf_weights(struct tfidf_fit *f, int k, const double *a,
                          enum status (*visit)(void *arg, int64_t term, const double *w), void *arg)
{
    const struct tfidf *t = f->tfidf;
    double *q = NULL, *w = NULL;
    enum status st;
    TRY_GOTO(done, mem_alloc((size_t)t->rows * (size_t)k, sizeof *q, "the terms' weights", &q));
    TRY_GOTO(done, mem_alloc_raw((size_t)k, sizeof *w, "the terms' weights", &w));
    for (int64_t i = 0; i < f->n; i++) {
        for (int c = 0; c < k; c++)
            q[f->rows[i] * k + c] = a[i * k + c] * f->scale[f->rows[i]];
    }
    for (int64_t j = 0; j < t->terms; j++) {
        if (f->df[j] == 0)
            continue;
        memset(w, 0, (size_t)k * sizeof *w);
        for (int64_t e = t->begin[j]; e < t->begin[j + 1]; e++) {
            double value = f->weight[t->level[e]] * f->idf[f->df[j]];
            for (int c = 0; c < k; c++)
                w[c] += value * q[(int64_t)t->row[e] * k + c];
        }
        TRY_GOTO(done, visit(arg, j, w));
    }
done:
    mem_free(q);
    mem_free(w);
    return st;
}
