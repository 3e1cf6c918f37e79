/*
 * trees.c - see trees.h.
 *
 * The functions are declared here as XGBoost's C interface has them since 1.0; its header is not
 * needed. The handle is kept until the process ends: the library has threads of its own.
 */
#include "model/trees.h"

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define LIBRARY "libxgboost.so.0"
enum { OLDEST_MAJOR = 1, OLDEST_MINOR = 2, MARGIN = 1 /* logits, not probabilities */ };

typedef uint64_t xgb_ulong;

static struct {
    void *library;
    char version[32];
    const char *(*last_error)(void);
    void (*get_version)(int *, int *, int *);
    int (*matrix_create)(const float *, xgb_ulong, xgb_ulong, float, void **);
    int (*matrix_set)(void *, const char *, const float *, xgb_ulong);
    int (*matrix_free)(void *);
    int (*create)(void *const *, xgb_ulong, void **);
    int (*set)(void *, const char *, const char *);
    int (*update)(void *, int, void *);
    int (*predict)(void *, void *, int, unsigned, int, xgb_ulong *, const float **);
    int (*destroy)(void *);
} xgb;

/* A function pointer from an object pointer, which C has no cast for. */
static bool find(void *library, const char *name, void *function, size_t bytes)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, bytes);
    return symbol != NULL;
}

#define FIND(library, name, function) find(library, name, &(function), sizeof(function))

static bool find_all(void *library)
{
    return FIND(library, "XGBGetLastError", xgb.last_error) &&
           FIND(library, "XGBoostVersion", xgb.get_version) &&
           FIND(library, "XGDMatrixCreateFromMat", xgb.matrix_create) &&
           FIND(library, "XGDMatrixSetFloatInfo", xgb.matrix_set) &&
           FIND(library, "XGDMatrixFree", xgb.matrix_free) &&
           FIND(library, "XGBoosterCreate", xgb.create) &&
           FIND(library, "XGBoosterSetParam", xgb.set) &&
           FIND(library, "XGBoosterUpdateOneIter", xgb.update) &&
           FIND(library, "XGBoosterPredict", xgb.predict) &&
           FIND(library, "XGBoosterFree", xgb.destroy);
}

enum status trees_library(const char **version)
{
    int major, minor, patch;
    *version = xgb.version;
    if (xgb.library != NULL)
        return STATUS_OK;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        return status_fail(STATUS_UNAVAILABLE, "trees need XGBoost (Debian: libxgboost0): %s",
                           why == NULL ? LIBRARY " cannot be loaded" : why);
    }
    if (!find_all(library))
        return status_fail(STATUS_UNAVAILABLE, LIBRARY " lacks functions that XGBoost %d.%d has",
                           OLDEST_MAJOR, OLDEST_MINOR);
    xgb.get_version(&major, &minor, &patch);
    (void)snprintf(xgb.version, sizeof xgb.version, "%d.%d.%d", major, minor, patch);
    if (major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR))
        return status_fail(STATUS_UNAVAILABLE, LIBRARY " is XGBoost %s, wanted %d.%d or newer",
                           xgb.version, OLDEST_MAJOR, OLDEST_MINOR);
    xgb.library = library;
    return STATUS_OK;
}

/* XGBoost's own codes: 0 is success. */
static enum status said(int code, const char *what)
{
    if (code == 0)
        return STATUS_OK;
    return status_fail(STATUS_INTERNAL, "XGBoost, %s: %.300s", what, xgb.last_error());
}

/* ---- tables ---- */

/* Rows of x as XGBoost holds them; *out is owned (matrix_free). */
static enum status make_matrix(const float *x, int d, const int64_t *rows, int64_t n, void **out)
{
    float *table;
    *out = NULL;
    TRY(mem_alloc_raw((size_t)n * (size_t)d, sizeof *table, "the rows of trees", &table));
    enum status st = STATUS_OK;
    for (int64_t i = 0; i < n && st == STATUS_OK; i++) {
        const float *row = x + rows[i] * d;
        for (int c = 0; c < d; c++) {
            if (!isfinite(row[c]))
                st = status_fail(STATUS_ARG, "feature %d of row %lld is %g", c, (long long)rows[i],
                                 (double)row[c]);
        }
        memcpy(table + i * d, row, (size_t)d * sizeof *table);
    }
    if (st == STATUS_OK)
        st = said(xgb.matrix_create(table, (xgb_ulong)n, (xgb_ulong)d, NAN, out), "rows");
    mem_free(table);
    return st;
}

static enum status set_column(void *matrix, const char *name, const struct linear_problem *p,
                              int64_t n, bool weights, float *scratch)
{
    for (int64_t i = 0; i < n; i++)
        scratch[i] = weights                     ? (float)p->weight[i]
                     : p->loss == LINEAR_SQUARED ? (float)p->value[i]
                                                 : (float)p->label[i];
    return said(xgb.matrix_set(matrix, name, scratch, (xgb_ulong)n), name);
}

static enum status set_targets(void *matrix, const struct linear_problem *p, int64_t n)
{
    float *scratch;
    TRY(mem_alloc_raw((size_t)n, sizeof *scratch, "the targets", &scratch));
    enum status st = set_column(matrix, "label", p, n, false, scratch);
    if (st == STATUS_OK && p->weight != NULL)
        st = set_column(matrix, "weight", p, n, true, scratch);
    mem_free(scratch);
    return st;
}

/* ---- fitting ---- */

static enum status set(void *booster, const char *name, const char *value)
{
    return said(xgb.set(booster, name, value), name);
}

static enum status set_number(void *booster, const char *name, double value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.9g", value);
    return set(booster, name, text);
}

static double mean_value(const struct linear_problem *p, int64_t n)
{
    double sum = 0.0, weights = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double weight = p->weight == NULL ? 1.0 : p->weight[i];
        sum += weight * p->value[i];
        weights += weight;
    }
    return weights > 0.0 ? sum / weights : 0.0;
}

static enum status set_all(void *booster, const struct linear_problem *p, int64_t n,
                           const struct trees_opts *opts)
{
    static const char *const objectives[] = {"binary:logistic", "multi:softprob",
                                             "reg:squarederror"};
    TRY(set(booster, "verbosity", "0"));
    TRY(set(booster, "nthread", "1"));
    TRY(set(booster, "booster", "gbtree"));
    TRY(set(booster, "tree_method", "hist"));
    TRY(set(booster, "seed", "0"));
    TRY(set(booster, "disable_default_eval_metric", "1"));
    TRY(set(booster, "objective", objectives[p->loss]));
    if (p->loss == LINEAR_SOFTMAX)
        TRY(set_number(booster, "num_class", p->k));
    TRY(set_number(booster, "base_score", p->loss == LINEAR_SQUARED ? mean_value(p, n) : 0.5));
    TRY(set_number(booster, "max_depth", opts->depth));
    TRY(set_number(booster, "eta", opts->rate));
    return set_number(booster, "lambda", opts->penalty);
}

/* The booster's logits of all rows of a matrix. */
static enum status take_logits(void *booster, void *matrix, int64_t wanted, double *z)
{
    xgb_ulong found = 0;
    const float *logits = NULL; /* the library's, until it is asked again */
    TRY(said(xgb.predict(booster, matrix, MARGIN, 0, 0, &found, &logits), "scoring"));
    if (found != (xgb_ulong)wanted)
        return status_fail(STATUS_INTERNAL, "XGBoost gave %llu logits, wanted %lld",
                           (unsigned long long)found, (long long)wanted);
    for (int64_t i = 0; i < wanted; i++)
        z[i] = (double)logits[i];
    return STATUS_OK;
}

enum status trees_fit(const float *x, int d, const int64_t *fitted, int64_t n,
                      const int64_t *scored, int64_t count, const struct linear_problem *problem,
                      const struct trees_opts *opts, void (*on_round)(void), double *z)
{
    void *train = NULL, *rest = NULL, *booster = NULL;
    const char *version;
    int whole;
    enum status st;
    TRY(trees_library(&version));
    TRY(checked_int(n, "the number of training rows", &whole));
    TRY(checked_int(count * problem->k, "the number of logits", &whole));
    if (count == 0)
        return STATUS_OK;
    TRY_GOTO(done, make_matrix(x, d, fitted, n, &train));
    TRY_GOTO(done, make_matrix(x, d, scored, count, &rest));
    TRY_GOTO(done, set_targets(train, problem, n));
    TRY_GOTO(done, said(xgb.create(&train, 1, &booster), "a model"));
    TRY_GOTO(done, set_all(booster, problem, n, opts));
    for (int round = 0; round < opts->rounds; round++) {
        TRY_GOTO(done, said(xgb.update(booster, round, train), "a round"));
        if (on_round != NULL)
            on_round();
    }
    st = take_logits(booster, rest, count * problem->k, z);
done:
    if (booster != NULL)
        (void)xgb.destroy(booster);
    if (train != NULL)
        (void)xgb.matrix_free(train);
    if (rest != NULL)
        (void)xgb.matrix_free(rest);
    return st;
}
