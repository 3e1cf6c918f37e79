/*
 * loss.c - losses in double on the host; see loss.h.
 *
 * Logits are few (rows times classes), so the exact way is also cheap: one row's loss and gradient
 * are a function of that row alone, and the sums over rows are the caller's, in row order.
 */
#include "model/loss.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

double loss_weight(const struct loss_opts *opts, const struct loss_target *target, int row)
{
    double weight = target->row_weight == NULL ? 1.0 : (double)target->row_weight[row];
    if (opts->kind == LOSS_CROSS_ENTROPY && opts->class_weights != NULL && target->label != NULL) {
        int32_t label = target->label[row];
        if (label >= 0 && label < opts->outputs) /* others are refused by loss_compute() */
            weight *= (double)opts->class_weights[label];
    }
    return weight;
}

/* log(sum of exp(x)), without overflow. */
static double log_sum_exp(const float *x, int n)
{
    double largest = (double)x[0], sum = 0;
    for (int i = 1; i < n; i++)
        largest = fmax(largest, (double)x[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

/* log(1 + exp(x)) and 1 / (1 + exp(-x)), without overflow. */
static double softplus(double x)
{
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

static double sigmoid(double x)
{
    double e = exp(-fabs(x));
    return x >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

/*
 * With u_c = class weight, s = smoothing, p = softmax: loss = (1 - s) u_y (-log p_y) + s / N sum_c
 * u_c (-log p_c), as torch, where the second term has the weights of all classes. So loss = sum_c
 * k_c (-log p_c) with
 */
static double class_share(const struct loss_opts *opts, int c, int32_t label)
{
    double u = opts->class_weights == NULL ? 1.0 : (double)opts->class_weights[c];
    return u * (opts->label_smoothing / opts->outputs +
                (c == label ? 1.0 - opts->label_smoothing : 0.0));
}

/* and the gradient is p_c (sum of k) - k_c. */
static double cross_entropy(const struct loss_opts *opts, const float *x, int32_t label,
                            double factor, float *dx)
{
    int n = opts->outputs;
    double lse = log_sum_exp(x, n), loss = 0, total = 0;
    for (int c = 0; c < n; c++) {
        double k = class_share(opts, c, label);
        loss += k * (lse - (double)x[c]);
        total += k;
    }
    for (int c = 0; dx != NULL && c < n; c++)
        dx[c] = (float)((total * exp((double)x[c] - lse) - class_share(opts, c, label)) * factor);
    return loss;
}

static double binary_cross_entropy(const struct loss_opts *opts, const float *x, const float *value,
                                   int32_t label, double factor, float *dx)
{
    int n = opts->outputs;
    double loss = 0;
    for (int c = 0; c < n; c++) {
        double y = value != NULL ? (double)value[c] : (double)label;
        double positive = opts->class_weights == NULL ? 1.0 : (double)opts->class_weights[c];
        double z = (double)x[c];
        loss += positive * y * softplus(-z) + (1.0 - y) * softplus(z);
        if (dx != NULL)
            dx[c] = (float)(((1.0 - y) * sigmoid(z) - positive * y * sigmoid(-z)) / n * factor);
    }
    return loss / n;
}

/* -log p, or log1p(exp(-z)) of a binary one, times (1 - p)^gamma: with q = 1 - p and l = -log p,
 * what the gradient of l is multiplied by to become that of q^gamma l. */
static double focal_slope(double gamma, double p, double q, double l)
{
    /* gamma q^(gamma - 1) p l + q^gamma, where l / q tends to 1 */
    return pow(q, gamma) * (gamma * p * (q > 0 ? l / q : 1.0) + 1.0);
}

static double focal_cross_entropy(const struct loss_opts *opts, const float *x, int32_t label,
                                  double factor, float *dx)
{
    int n = opts->outputs;
    double u = opts->class_weights == NULL ? 1.0 : (double)opts->class_weights[label];
    double lse = log_sum_exp(x, n), l = fmax(lse - (double)x[label], 0.0);
    double q = -expm1(-l), slope = u * focal_slope(opts->focal_gamma, 1.0 - q, q, l);
    for (int c = 0; dx != NULL && c < n; c++)
        dx[c] = (float)(slope * (exp((double)x[c] - lse) - (c == label ? 1.0 : 0.0)) * factor);
    return u * pow(q, opts->focal_gamma) * l;
}

static double focal_binary(const struct loss_opts *opts, const float *x, const float *value,
                           int32_t label, double factor, float *dx)
{
    int n = opts->outputs;
    double loss = 0, gamma = opts->focal_gamma;
    for (int c = 0; c < n; c++) {
        double y = value != NULL ? (double)value[c] : (double)label;
        double positive = opts->class_weights == NULL ? 1.0 : (double)opts->class_weights[c];
        double z = (double)x[c], p = sigmoid(z), q = sigmoid(-z);
        double l1 = softplus(-z), l0 = softplus(z); /* of a target 1, and 0 */
        loss += positive * y * pow(q, gamma) * l1 + (1.0 - y) * pow(p, gamma) * l0;
        if (dx != NULL)
            dx[c] = (float)(((1.0 - y) * focal_slope(gamma, q, p, l0) * p -
                             positive * y * focal_slope(gamma, p, q, l1) * q) /
                            n * factor);
    }
    return loss / n;
}

static double squared_error(const struct loss_opts *opts, const float *x, const float *value,
                            double factor, float *dx)
{
    int n = opts->outputs;
    double loss = 0;
    for (int c = 0; c < n; c++) {
        double d = (double)x[c] - (double)value[c];
        loss += d * d;
        if (dx != NULL)
            dx[c] = (float)(2.0 * d / n * factor);
    }
    return loss / n;
}

static enum status check_opts(const struct loss_opts *opts, const struct loss_target *target,
                              int rows, double divisor, const float *dlogits)
{
    if (opts->outputs < 1 || rows < 0)
        return status_fail(STATUS_ARG, "loss of %d rows with %d outputs", rows, opts->outputs);
    if (opts->focal_gamma > 0.0 && (opts->kind == LOSS_MSE || opts->label_smoothing > 0.0))
        return status_fail(STATUS_ARG, "a focal loss of values, or with smoothed labels");
    if (rows == 0)
        return STATUS_OK;
    bool values = opts->kind == LOSS_MSE || (opts->kind == LOSS_BCE && opts->outputs > 1);
    if (opts->kind == LOSS_CROSS_ENTROPY ? target->label == NULL : values && target->value == NULL)
        return status_fail(STATUS_ARG, "the loss needs %s as targets",
                           values ? "values" : "classes");
    if (target->label == NULL && target->value == NULL)
        return status_fail(STATUS_ARG, "the loss has no targets");
    if (dlogits != NULL && !(divisor > 0 && isfinite(divisor)))
        return status_fail(
            STATUS_DATA, "the weights of the batch's rows sum to %g, wanted more than 0", divisor);
    return STATUS_OK;
}

static enum status check_target(const struct loss_opts *opts, const struct loss_target *target,
                                int row)
{
    bool label = opts->kind == LOSS_CROSS_ENTROPY ||
                 (opts->kind == LOSS_BCE && target->value == NULL);
    int classes = opts->kind == LOSS_CROSS_ENTROPY ? opts->outputs : 2;
    if (label && (target->label[row] < 0 || target->label[row] >= classes))
        return status_fail(STATUS_DATA, "row %d of the batch has label %d, wanted 0 to %d", row,
                           (int)target->label[row], classes - 1);
    for (int c = 0; c < opts->outputs; c++) {
        if (!label && !isfinite((double)target->value[(int64_t)row * opts->outputs + c]))
            return status_fail(STATUS_DATA, "row %d of the batch: target %d is not a finite number",
                               row, c);
    }
    return STATUS_OK;
}

enum status loss_check(const struct loss_opts *opts, const struct loss_target *target, int rows,
                       double divisor)
{
    const float wanted = 0;
    TRY(check_opts(opts, target, rows, divisor, &wanted));
    for (int b = 0; b < rows; b++)
        TRY(check_target(opts, target, b));
    return STATUS_OK;
}

static enum status check_logits(const struct loss_opts *opts, int row, const float *x)
{
    for (int c = 0; c < opts->outputs; c++) {
        if (!isfinite((double)x[c]))
            return status_fail(STATUS_NUMERIC, "row %d of the batch: logit %d is %g", row, c,
                               (double)x[c]);
    }
    return STATUS_OK;
}

enum status loss_compute(const struct loss_opts *opts, const struct loss_target *target, int rows,
                         const float *logits, double divisor, double scale, double *loss,
                         float *dlogits)
{
    TRY(check_opts(opts, target, rows, divisor, dlogits));
    for (int b = 0; b < rows; b++) {
        int64_t at = (int64_t)b * opts->outputs;
        const float *x = logits + at, *value = target->value == NULL ? NULL : target->value + at;
        float *dx = dlogits == NULL ? NULL : dlogits + at;
        TRY(check_target(opts, target, b));
        TRY(check_logits(opts, b, x));
        int32_t label = target->label == NULL ? 0 : target->label[b];
        double weight = target->row_weight == NULL ? 1.0 : (double)target->row_weight[b];
        double factor = dlogits == NULL ? 0.0 : weight / divisor * scale;
        if (opts->focal_gamma > 0.0)
            loss[b] = weight * (opts->kind == LOSS_CROSS_ENTROPY
                                    ? focal_cross_entropy(opts, x, label, factor, dx)
                                    : focal_binary(opts, x, value, label, factor, dx));
        else if (opts->kind == LOSS_CROSS_ENTROPY)
            loss[b] = weight * cross_entropy(opts, x, label, factor, dx);
        else if (opts->kind == LOSS_BCE)
            loss[b] = weight * binary_cross_entropy(opts, x, value, label, factor, dx);
        else
            loss[b] = weight * squared_error(opts, x, value, factor, dx);
    }
    return STATUS_OK;
}

void loss_probabilities(const struct loss_opts *opts, int rows, const float *logits, float *out)
{
    for (int b = 0; b < rows; b++) {
        int64_t at = (int64_t)b * opts->outputs;
        double lse = opts->kind == LOSS_CROSS_ENTROPY ? log_sum_exp(logits + at, opts->outputs) : 0;
        for (int c = 0; c < opts->outputs; c++) {
            double x = (double)logits[at + c];
            if (opts->kind == LOSS_CROSS_ENTROPY)
                out[at + c] = (float)exp(x - lse);
            else
                out[at + c] = opts->kind == LOSS_BCE ? (float)sigmoid(x) : logits[at + c];
        }
    }
}
