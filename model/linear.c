/*
 * linear.c - see linear.h.
 *
 * L-BFGS (Nocedal and Wright, algorithm 7.4) on W and b, with every vector of the space of W held
 * by what it does on the rows: v = X^T a is the pair (a, z = X v). Such pairs add and scale; the
 * inner product of two is a of the one times z of the other. The gradient of F is X^T (r + a) with
 * r = C s dl/dz, so its pair needs one product X X^T r, and nothing else does: along a direction
 * with pair (da, dz) the logits are z + t dz, so a line search costs no product and is done by
 * Newton's method to a tenth of the slope. One iteration is one product.
 *
 * The features are centred without touching them: with H = I - 1 1^T / n, H X X^T H is the product
 * of the features less their means. As intercepts are free that changes only the intercepts of the
 * solution, but the iteration sees a better conditioned problem.
 *
 * z is kept by adding up, so it drifts by rounding. A solution is accepted only after X X^T a was
 * taken anew.
 */
#include "model/linear.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    HISTORY = 10,      /* pairs of steps that L-BFGS remembers, fewer where memory is short */
    LEAST_HISTORY = 3, /* below that it is a slow method */
    SEARCH_STEPS = 40
};
#define HISTORY_BYTES ((size_t)512 << 20)
#define SLOPE_LEFT 0.1 /* a line search ends where this share of the slope is left */

/* ---- losses ---- */

static double row_weight(const struct linear_problem *p, int64_t i)
{
    return p->weight == NULL ? 1.0 : p->weight[i];
}

/* ln(1 + exp(x)) without overflow. */
static double softplus(double x)
{
    return x > 0.0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double sigmoid(double x)
{
    double e = exp(-fabs(x));
    return x >= 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

/* p (k), if given, becomes softmax of z; returns ln(sum exp z). */
static double softmax(const double *z, int k, double *p)
{
    double largest = z[0], sum = 0.0;
    for (int c = 1; c < k; c++)
        largest = z[c] > largest ? z[c] : largest;
    for (int c = 0; c < k; c++) {
        double e = exp(z[c] - largest);
        sum += e;
        if (p != NULL)
            p[c] = e;
    }
    for (int c = 0; p != NULL && c < k; c++)
        p[c] /= sum;
    return largest + log(sum);
}

double linear_loss(const struct linear_problem *p, int64_t n, const double *z, double *r)
{
    double total = 0.0;
    int k = p->k;
    for (int64_t i = 0; i < n; i++) {
        double s = row_weight(p, i);
        if (p->loss == LINEAR_LOGISTIC) {
            double sign = p->label[i] ? 1.0 : -1.0;
            total += s * softplus(-sign * z[i]);
            if (r != NULL)
                r[i] = -sign * s * sigmoid(-sign * z[i]);
        } else if (p->loss == LINEAR_SQUARED) {
            total += s * 0.5 * (z[i] - p->value[i]) * (z[i] - p->value[i]);
            if (r != NULL)
                r[i] = s * (z[i] - p->value[i]);
        } else {
            double *out = r == NULL ? NULL : r + i * k;
            double sum = softmax(z + i * k, k, out);
            total += s * (sum - z[i * k + p->label[i]]);
            for (int c = 0; out != NULL && c < k; c++)
                out[c] = s * (out[c] - (c == p->label[i]));
        }
    }
    return total;
}

/* Value, slope and curvature in t of the loss at logits z + t d. */
static void loss_along(const struct linear_problem *p, int64_t n, const double *z, const double *d,
                       double t, double *scratch, double out[3])
{
    int k = p->k;
    out[0] = out[1] = out[2] = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double s = row_weight(p, i);
        if (p->loss == LINEAR_LOGISTIC) {
            double sign = p->label[i] ? 1.0 : -1.0, at = z[i] + t * d[i], q = sigmoid(-sign * at);
            out[0] += s * softplus(-sign * at);
            out[1] -= s * sign * q * d[i];
            out[2] += s * q * (1.0 - q) * d[i] * d[i];
        } else if (p->loss == LINEAR_SQUARED) {
            double e = z[i] + t * d[i] - p->value[i];
            out[0] += s * 0.5 * e * e;
            out[1] += s * e * d[i];
            out[2] += s * d[i] * d[i];
        } else {
            double *at = scratch, *q = scratch + k, mean = 0.0, square = 0.0;
            const double *step = d + i * k;
            for (int c = 0; c < k; c++)
                at[c] = z[i * k + c] + t * step[c];
            double sum = softmax(at, k, q);
            for (int c = 0; c < k; c++) {
                mean += q[c] * step[c];
                square += q[c] * step[c] * step[c];
            }
            out[0] += s * (sum - at[p->label[i]]);
            out[1] += s * (mean - step[p->label[i]]);
            out[2] += s * (square - mean * mean);
        }
    }
}

/* ---- vectors: a (n, k), z (n, k), b (k) in one piece ---- */

static double dot(const double *x, const double *y, size_t n)
{
    double s[4] = {0}; /* four sums, so that additions need not wait for each other */
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int j = 0; j < 4; j++)
            s[j] += x[i + (size_t)j] * y[i + (size_t)j];
    }
    for (; i < n; i++)
        s[0] += x[i] * y[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static void add_scaled(double *to, double factor, const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += factor * x[i];
}

/* ---- one problem under way ---- */

enum phase {
    GRADIENT, /* waits for X X^T r: then the gradient at x is known */
    REFRESH,  /* waits for X X^T a: then z is exact again */
    DONE
};

struct state {
    const struct linear_problem *given;
    struct linear_problem problem; /* values scaled, if any */
    double *values, scale, shift;  /* LINEAR_SQUARED: value = shift + scale * problem.value */
    int64_t n;
    size_t cells, length; /* n * k, and of a vector */
    enum phase phase;
    double *x, *g, *d, *old; /* point, gradient, direction, the gradient before */
    double *r, *logits,
        *step;       /* (n, k) derivative of C * loss, logits, what a direction adds to them */
    double *history; /* (2 * kept) vectors: steps and differences of gradients, oldest first from
                        `oldest` */
    double rho[HISTORY];
    int kept, held, oldest;
    double *scratch,
        *means;  /* (2 k); (k) of the columns of X X^T a, which centring hides in the intercepts */
    double loss; /* C * loss at x */
    double gradient;
    int iterations;
    bool exact, converged;
};

static double inner(const struct state *s, const double *p, const double *q)
{
    return dot(p, q + s->cells, s->cells) +
           dot(p + 2 * s->cells, q + 2 * s->cells, (size_t)s->problem.k);
}

/*
 * |v|, not below what rounding may hide: where the features are fewer than the rows, a and z are
 * orthogonal for most of their length, and their product comes from cancellation.
 */
static double norm(const struct state *s, const double *v)
{
    const double *z = v + s->cells;
    double square = inner(s, v, v);
    double noise = DBL_EPSILON * sqrt(dot(v, v, s->cells) * dot(z, z, s->cells));
    return sqrt((square > 0.0 ? square : 0.0) + noise);
}

static double *step_of(const struct state *s,
                       int i) /* i-th oldest; behind it the difference of gradients */
{
    return s->history + (size_t)((s->oldest + i) % s->kept) * 2 * s->length;
}

/* logits = z + b of a vector. */
static void logits_of(const struct state *s, const double *v, double *out)
{
    int k = s->problem.k;
    const double *z = v + s->cells, *b = v + 2 * s->cells;
    for (int64_t i = 0; i < s->n; i++) {
        for (int c = 0; c < k; c++)
            out[i * k + c] = z[i * k + c] + b[c];
    }
}

/* Columns less their means (k), which are handed out if asked for. */
static void centre(double *v, int64_t n, int k, double *means)
{
    for (int c = 0; c < k; c++) {
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++)
            sum += v[i * k + c];
        sum /= (double)n;
        for (int64_t i = 0; i < n; i++)
            v[i * k + c] -= sum;
        if (means != NULL)
            means[c] = sum;
    }
}

/* Loss and r at x, and the column sums of r, the intercepts' gradient; r is centred then. */
static void take_loss(struct state *s, double C)
{
    int k = s->problem.k;
    double *b = s->g + 2 * s->cells;
    logits_of(s, s->x, s->logits);
    s->loss = C * linear_loss(&s->problem, s->n, s->logits, s->r);
    for (int c = 0; c < k; c++)
        b[c] = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        for (int c = 0; c < k; c++) {
            s->r[i * k + c] *= C;
            b[c] += s->r[i * k + c];
        }
    }
    centre(s->r, s->n, k, NULL);
}

/* The intercepts that are best while all weights are zero: the shares of the classes, or the mean.
 */
static enum status start(struct state *s)
{
    double *share, *b = s->x + 2 * s->cells, mean = 0.0;
    int k = s->problem.k;
    if (s->problem.loss == LINEAR_SQUARED)
        return STATUS_OK; /* the values' mean is 0 */
    TRY(mem_alloc((size_t)k + 1, sizeof *share, "the shares of classes", &share));
    for (int64_t i = 0; i < s->n; i++)
        share[s->problem.label[i]] += row_weight(&s->problem, i);
    if (s->problem.loss == LINEAR_LOGISTIC) {
        b[0] = log(share[1] / share[0]);
    } else {
        for (int c = 0; c < k; c++)
            mean += log(share[c]) / k;
        for (int c = 0; c < k; c++)
            b[c] = log(share[c]) - mean;
    }
    mem_free(share);
    return STATUS_OK;
}

/* d = - H g. */
static void direct(struct state *s)
{
    double alpha[HISTORY];
    for (size_t i = 0; i < s->length; i++)
        s->d[i] = -s->g[i];
    for (int i = s->held - 1; i >= 0; i--) {
        const double *step = step_of(s, i), *change = step + s->length;
        alpha[i] = s->rho[(s->oldest + i) % s->kept] * inner(s, step, s->d);
        add_scaled(s->d, -alpha[i], change, s->length);
    }
    if (s->held > 0) {
        const double *step = step_of(s, s->held - 1), *change = step + s->length;
        double factor = inner(s, step, change) / inner(s, change, change);
        for (size_t i = 0; i < s->length; i++)
            s->d[i] *= factor;
    }
    for (int i = 0; i < s->held; i++) {
        const double *step = step_of(s, i), *change = step + s->length;
        double beta = s->rho[(s->oldest + i) % s->kept] * inner(s, change, s->d);
        add_scaled(s->d, alpha[i] - beta, step, s->length);
    }
}

/*
 * How far to go along d: where a tenth of the slope is left and F is not above where it was. 0:
 * nowhere, rounding hides what could be gained. F is convex, so a root of the slope is bracketed by
 * its signs.
 */
static double search(const struct state *s, double C, double slope)
{
    /* the penalty along d, in the weights alone: 1/2 |W|^2 + t W d + 1/2 t^2 |d|^2 */
    double da_z = dot(s->x, s->d + s->cells, s->cells);
    double da_dz = dot(s->d, s->d + s->cells, s->cells);
    double low = 0.0, high = INFINITY, t, at[3];
    loss_along(&s->problem, s->n, s->logits, s->step, 0.0, s->scratch, at);
    double curvature = da_dz + C * at[2], before = C * at[0];
    if (!(curvature > 0.0))
        return 0.0;
    t = -slope / curvature;
    for (int i = 0; i < SEARCH_STEPS; i++) {
        loss_along(&s->problem, s->n, s->logits, s->step, t, s->scratch, at);
        double gain = t * da_z + 0.5 * t * t * da_dz + (C * at[0] - before);
        double now = da_z + t * da_dz + C * at[1];
        if (fabs(now) <= SLOPE_LEFT * fabs(slope) && gain <= 1e-12 * fabs(before))
            return t;
        if (now < 0.0)
            low = t;
        else
            high = t;
        double next = t - now / (da_dz + C * at[2]);
        if (!(next > low && next < high))
            next = isfinite(high) ? 0.5 * (low + high) : 2.0 * t;
        if (next == t)
            break;
        t = next;
    }
    return low;
}

/* The last step and what it did to the gradient; the product of the two is positive as F is convex.
 */
static void remember(struct state *s, double t)
{
    if (s->held == s->kept)
        s->oldest = (s->oldest + 1) % s->kept;
    else
        s->held++;
    int at = (s->oldest + s->held - 1) % s->kept;
    double *step = s->history + (size_t)at * 2 * s->length, *change = step + s->length;
    for (size_t i = 0; i < s->length; i++) {
        step[i] = t * s->d[i];
        change[i] = s->old[i]; /* minus, until the gradient is known */
    }
}

static void finish_memory(struct state *s)
{
    double *step = step_of(s, s->held - 1), *change = step + s->length;
    for (size_t i = 0; i < s->length; i++)
        change[i] = s->g[i] - change[i];
    double product = inner(s, step, change);
    if (product > 0.0 && inner(s, change, change) > 0.0)
        s->rho[(s->oldest + s->held - 1) % s->kept] = 1.0 / product;
    else
        s->held--; /* rounding is all there is */
}

/* Choose the next point, or find that there is none: then the solution is looked at once more. */
static void move(struct state *s, const struct linear_opts *opts)
{
    double slope = 0.0, t = 0.0;
    if (s->gradient > opts->tolerance && s->iterations < opts->max_iterations) {
        for (int tries = s->held > 0 ? 2 : 1; tries > 0 && t == 0.0; tries--) {
            direct(s);
            slope = inner(s, s->d, s->g);
            logits_of(s, s->d, s->step);
            t = slope < 0.0 ? search(s, opts->C, slope) : 0.0;
            if (t == 0.0)
                s->held = 0; /* once more, along the gradient itself */
        }
    }
    if (t == 0.0) {
        s->phase = s->exact ? DONE : REFRESH;
        s->converged = s->gradient <= opts->tolerance;
        return;
    }
    memcpy(s->old, s->g, s->length * sizeof *s->old);
    remember(s, t);
    add_scaled(s->x, t, s->d, s->length);
    s->exact = false;
    s->iterations++;
    take_loss(s, opts->C);
    s->phase = GRADIENT;
}

/* What the next product is taken of. */
static const double *asks(const struct state *s)
{
    return s->phase == GRADIENT ? s->r : s->x;
}

/* The product is there: (n, k) at `column` of rows of `wide`. */
static enum status advance(struct state *s, const struct linear_opts *opts, const double *product,
                           int wide, int column)
{
    int k = s->problem.k;
    double *z = s->phase == GRADIENT ? s->g + s->cells : s->x + s->cells;
    for (int64_t i = 0; i < s->n; i++)
        memcpy(z + i * k, product + i * wide + column, (size_t)k * sizeof *z);
    for (size_t i = 0; i < s->cells; i++) {
        if (!isfinite(z[i]))
            return status_fail(STATUS_NUMERIC, "a product of the features is not finite");
    }
    centre(z, s->n, k, s->phase == REFRESH ? s->means : NULL);
    if (s->phase == REFRESH) {
        s->exact = true;
        s->held = 0;
        take_loss(s, opts->C);
        s->phase = GRADIENT;
        return STATUS_OK;
    }
    for (size_t i = 0; i < s->cells; i++) {
        s->g[i] = s->r[i] + s->x[i];
        z[i] += s->x[s->cells + i];
    }
    s->gradient = norm(s, s->g);
    if (s->held > 0)
        finish_memory(s);
    move(s, opts);
    return STATUS_OK;
}

/* ---- beginning and end ---- */

static enum status check(const struct linear_problem *p, int64_t n)
{
    bool labelled = p->loss != LINEAR_SQUARED;
    int classes = p->loss == LINEAR_LOGISTIC ? 2 : p->k, present = 0;
    double *share, total = 0.0;
    enum status st = STATUS_OK;
    if (p->k < 1 || (p->loss == LINEAR_SOFTMAX ? p->k < 2 : p->k != 1))
        return status_fail(STATUS_ARG, "a regression with %d outputs", p->k);
    TRY(mem_alloc((size_t)classes, sizeof *share, "the shares of classes", &share));
    for (int64_t i = 0; i < n && st == STATUS_OK; i++) {
        double w = row_weight(p, i);
        bool fits = labelled ? p->label[i] >= 0 && p->label[i] < classes : isfinite(p->value[i]);
        if (!(w >= 0.0) || !isfinite(w) || !fits)
            st = status_fail(STATUS_ARG, "row %lld of a regression: weight or target out of range",
                             (long long)i);
        else if (labelled)
            share[p->label[i]] += w;
        total += w;
    }
    for (int c = 0; c < classes; c++)
        present += share[c] > 0.0;
    if (st == STATUS_OK && (!(total > 0.0) || (labelled && present < classes)))
        st = status_fail(STATUS_ARG, "a regression without rows, or with a class without any");
    mem_free(share);
    return st;
}

/* Values with mean 0 and standard deviation 1, so that the tolerance means the same for all of
 * them. */
static enum status scale_values(struct state *s)
{
    double total = 0.0, mean = 0.0, square = 0.0;
    s->scale = 1.0;
    if (s->given->loss != LINEAR_SQUARED)
        return STATUS_OK;
    TRY(mem_alloc_raw((size_t)s->n, sizeof *s->values, "the values", &s->values));
    for (int64_t i = 0; i < s->n; i++) {
        total += row_weight(s->given, i);
        mean += row_weight(s->given, i) * s->given->value[i];
    }
    s->shift = mean / total;
    for (int64_t i = 0; i < s->n; i++) {
        double e = s->given->value[i] - s->shift;
        square += row_weight(s->given, i) * e * e;
    }
    s->scale = square > 0.0 ? sqrt(square / total) : 1.0;
    for (int64_t i = 0; i < s->n; i++)
        s->values[i] = (s->given->value[i] - s->shift) / s->scale;
    s->problem.value = s->values;
    return STATUS_OK;
}

static enum status state_open(struct state *s, const struct linear_problem *problem, int64_t n,
                              int count)
{
    size_t k = (size_t)problem->k;
    TRY(check(problem, n));
    s->given = problem;
    s->problem = *problem;
    s->n = n;
    s->cells = (size_t)n * k;
    s->length = 2 * s->cells + k;
    size_t fit = HISTORY_BYTES / (size_t)count / (2 * s->length * sizeof(double));
    s->kept = fit > HISTORY ? HISTORY : fit < LEAST_HISTORY ? LEAST_HISTORY : (int)fit;
    TRY(scale_values(s));
    TRY(mem_alloc(s->length, sizeof(double), "a regression", &s->x));
    TRY(mem_alloc(s->length, sizeof(double), "a regression", &s->g));
    TRY(mem_alloc(s->length, sizeof(double), "a regression", &s->d));
    TRY(mem_alloc(s->length, sizeof(double), "a regression", &s->old));
    TRY(mem_alloc(s->cells, sizeof(double), "a regression", &s->r));
    TRY(mem_alloc(s->cells, sizeof(double), "a regression", &s->logits));
    TRY(mem_alloc(s->cells, sizeof(double), "a regression", &s->step));
    TRY(mem_alloc(2 * k, sizeof(double), "a regression", &s->scratch));
    TRY(mem_alloc(k, sizeof(double), "a regression", &s->means));
    TRY(mem_alloc_raw(s->length * 2, (size_t)s->kept * sizeof(double), "the steps of a regression",
                      &s->history));
    s->exact = true; /* all zero */
    return start(s);
}

static void state_close(struct state *s)
{
    double *const all[] = {s->values, s->x,      s->g,       s->d,     s->old,    s->r,
                           s->step,   s->logits, s->scratch, s->means, s->history};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mem_free(all[i]);
}

static enum status hand_over(const struct state *s, struct linear_fit *fit)
{
    size_t k = (size_t)s->problem.k;
    TRY(mem_alloc_raw(s->cells, sizeof *fit->a, "a solution", &fit->a));
    TRY(mem_alloc_raw(k, sizeof *fit->bias, "a solution", &fit->bias));
    for (size_t i = 0; i < s->cells; i++)
        fit->a[i] = s->x[i] * s->scale;
    for (size_t c = 0; c < k; c++)
        fit->bias[c] = (s->x[2 * s->cells + c] - s->means[c]) * s->scale + s->shift;
    double penalty = dot(s->x, s->x + s->cells, s->cells);
    fit->objective = s->scale * s->scale * (0.5 * penalty + s->loss);
    fit->gradient = s->gradient;
    fit->iterations = s->iterations;
    fit->converged = s->converged;
    return STATUS_OK;
}

void linear_fit_release(struct linear_fit *fit)
{
    mem_free(fit->a);
    mem_free(fit->bias);
    *fit = (struct linear_fit){0};
}

enum status linear_solve(const struct linear_features *features,
                         const struct linear_problem *problems, int count,
                         const struct linear_opts *opts, struct linear_fit *fits)
{
    struct state *states = NULL;
    double *a = NULL, *z = NULL;
    int64_t n = features->rows;
    int k = 0, wide;
    enum status st = STATUS_OK;
    for (int i = 0; i < count; i++) {
        fits[i] = (struct linear_fit){0};
        k += problems[i].k;
    }
    if (!(opts->C > 0.0) || !(opts->tolerance >= 0.0))
        return status_fail(STATUS_ARG, "a regression with C %g and tolerance %g", opts->C,
                           opts->tolerance);
    TRY_GOTO(done, mem_alloc((size_t)count, sizeof *states, "the regressions", &states));
    for (int i = 0; i < count; i++)
        TRY_GOTO(done, state_open(&states[i], &problems[i], n, count));
    TRY_GOTO(done, mem_alloc_raw((size_t)n * (size_t)k, sizeof *a, "a product", &a));
    TRY_GOTO(done, mem_alloc_raw((size_t)n * (size_t)k, sizeof *z, "a product", &z));
    for (int i = 0; i < count; i++)
        take_loss(&states[i], opts->C);
    for (;;) {
        wide = 0;
        for (int i = 0; i < count; i++)
            wide += states[i].phase == DONE ? 0 : states[i].problem.k;
        if (wide == 0)
            break;
        for (int i = 0, column = 0; i < count; i++) {
            struct state *s = &states[i];
            if (s->phase == DONE)
                continue;
            for (int64_t row = 0; row < n; row++)
                memcpy(a + row * wide + column, asks(s) + row * s->problem.k,
                       (size_t)s->problem.k * sizeof *a);
            column += s->problem.k;
        }
        TRY_GOTO(done, features->gram(features->self, wide, a, z));
        for (int i = 0, column = 0; i < count; i++) {
            struct state *s = &states[i];
            if (s->phase == DONE)
                continue;
            TRY_GOTO(done, advance(s, opts, z, wide, column));
            column += s->problem.k;
        }
    }
    for (int i = 0; i < count && st == STATUS_OK; i++)
        st = hand_over(&states[i], &fits[i]);
done:
    for (int i = 0; states != NULL && i < count; i++)
        state_close(&states[i]);
    for (int i = 0; st != STATUS_OK && i < count; i++)
        linear_fit_release(&fits[i]);
    mem_free(states);
    mem_free(a);
    mem_free(z);
    return st;
}
