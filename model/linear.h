/*
 * linear.h - linear models with an L2 penalty on features that are given: logistic and softmax
 * regression, ridge.
 *
 * What is minimised, over weights W (features, k) and intercepts b (k), is scikit-learn's objective
 * of LogisticRegression(C), and of Ridge(alpha = 1 / C):
 *
 *     F(W, b) = 1/2 |W|^2 + C sum_i s_i l(y_i, x_i W + b)         the intercepts are not penalised
 *
 *     LINEAR_LOGISTIC  k = 1      l = ln(1 + exp(-y z)), y = -1 or 1
 *     LINEAR_SOFTMAX   k classes  l = ln(sum_c exp z_c) - z_y
 *     LINEAR_SQUARED   k = 1      l = 1/2 (y - z)^2
 *
 * F is strictly convex in W, so the solution is one, and |g| <= tolerance at its end bounds what is
 * left: the weights are then within `tolerance` of the solution for the intercepts found, a logit
 * within tolerance * |x|.
 *
 * The features are seen through one function, z = X X^T a. That is enough, because W = X^T a for
 * some a (rows, k): an iteration takes one such product, memory grows with rows and not with
 * features, and W, which may have millions of rows, is never stored.
 *
 * Local, one thread but for the products. In double; the same bits for the same products.
 */
#ifndef COHORT_MODEL_LINEAR_H
#define COHORT_MODEL_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum linear_loss { LINEAR_LOGISTIC, LINEAR_SOFTMAX, LINEAR_SQUARED };

struct linear_features {
    int64_t rows; /* n */
    void *self;
    /* z (n, k) = X X^T a (n, k); column c of z must depend on column c of a alone. */
    enum status (*gram)(void *self, int k, const double *a, double *z);
};

struct linear_problem {
    enum linear_loss loss;
    int k;                /* 1; LINEAR_SOFTMAX: classes, at least 2 */
    const int32_t *label; /* (n) LINEAR_LOGISTIC: 0 or 1, LINEAR_SOFTMAX: a class; each of them
                             somewhere with s > 0 */
    const double *value;  /* (n) LINEAR_SQUARED */
    const double *weight; /* (n) s, not negative, positive somewhere; NULL: all 1 */
};

struct linear_opts {
    double C;           /* > 0 */
    double tolerance;   /* of |g|, the Euclidean norm of F's gradient in (W, b); LINEAR_SQUARED: of
                           the problem whose values   are divided by their standard deviation */
    int max_iterations; /* of one problem */
};

/* A solution: the logits of a row x are x X^T a + bias. Start with {0}; owned (linear_fit_release).
 */
struct linear_fit {
    double *a;                  /* (n, k) */
    double *bias;               /* (k) */
    double objective, gradient; /* F and |g| there */
    int iterations;
    bool converged; /* false: max_iterations were not enough, or doubles are not */
};

/*
 * Solve `count` problems on the same features side by side: their products are taken together. A
 * solution does not depend on which others are solved with it. STATUS_NOMEM, STATUS_ARG: options or
 * targets out of range; STATUS_NUMERIC: a product is not finite; or the status of gram.
 */
NODISCARD enum status linear_solve(const struct linear_features *features,
                                   const struct linear_problem *problems, int count,
                                   const struct linear_opts *opts, struct linear_fit *fits);
void linear_fit_release(struct linear_fit *fit);

/* sum_i s_i l(y_i, z_i) for logits z (n, k); r (n, k), if given, becomes its derivative by z. */
double linear_loss(const struct linear_problem *problem, int64_t n, const double *z, double *r);

/* ---- features that are a table of numbers ---- */

struct linear_dense; /* opaque */

/*
 * Rows rows[0..n) of x (all rows, d), borrowed as x is; standardize: each column less its mean over
 * these rows, divided by its standard deviation (1 where it is constant), as scikit-learn's
 * StandardScaler. *out is owned (linear_dense_destroy). STATUS_NOMEM.
 */
NODISCARD enum status linear_dense_create(const float *x, int d, const int64_t *rows, int64_t n,
                                          bool standardize, struct linear_dense **out);
void linear_dense_destroy(struct linear_dense *dense);
/* As linear_features.gram, self being a struct linear_dense. */
NODISCARD enum status linear_dense_gram(void *self, int k, const double *a, double *z);
/* z (count, k) = Y X^T a for any rows of the table, treated as those of X are. */
NODISCARD enum status linear_dense_cross(struct linear_dense *dense, const int64_t *rows,
                                         int64_t count, int k, const double *a, double *z);

#endif
