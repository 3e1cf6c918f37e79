/*
 * trees.h - gradient-boosted trees on a table of numbers, by XGBoost: what a linear model misses.
 *
 * XGBoost (Chen and Guestrin 2016) is no part of this program: its library, libxgboost.so.0, is
 * loaded when it is first asked for. Trees are grown from histograms by one thread, without drawing
 * rows or columns, so the same table gives the same trees anywhere; another version of the library
 * may grow others.
 *
 * Local.
 */
#ifndef COHORT_MODEL_TREES_H
#define COHORT_MODEL_TREES_H

#include <stdint.h>

#include "base/status.h"
#include "model/linear.h"

struct trees_opts {
    int rounds;     /* trees for each logit, >= 1 */
    int depth;      /* of a tree, >= 1 */
    double rate;    /* each tree's values are multiplied by it, in (0, 1] */
    double penalty; /* L2, on the values of leaves, >= 0: XGBoost's lambda */
};

/* Load the library and say which it is: version "1.7.4", valid until the process ends. Cheap after
 * the first call. STATUS_UNAVAILABLE: it is not there, or too old, and what to install. */
NODISCARD enum status trees_library(const char **version);

/*
 * Fit rows fitted[0..n) of x (all rows, d) and give the logits z (count, k) of rows
 * scored[0..count). The problem's rows are the fitted ones, in their order; of LINEAR_SOFTMAX all k
 * classes must occur; for LINEAR_SQUARED the trees start from the weighted mean. on_round, if
 * given, is called after each round. STATUS_UNAVAILABLE as above; STATUS_NOMEM; STATUS_ARG: a
 * number that is not finite, or sizes above 2^31 - 1; STATUS_INTERNAL: what XGBoost says.
 */
NODISCARD enum status trees_fit(const float *x, int d, const int64_t *fitted, int64_t n,
                                const int64_t *scored, int64_t count,
                                const struct linear_problem *problem, const struct trees_opts *opts,
                                void (*on_round)(void), double *z);

#endif
