/*
 * loss.h - losses on logits, with weights and the global divisor, on the host in double.
 *
 * Loss = sum of w_i loss_i / sum of w_i over the GLOBAL batch. The divisor is computed before the
 * step from labels and weights alone (loss_weight), so a row's gradient needs no other row.
 */
#ifndef COHORT_MODEL_LOSS_H
#define COHORT_MODEL_LOSS_H

#include <stdint.h>

#include "base/status.h"

enum loss_kind {
    LOSS_CROSS_ENTROPY, /* outputs = classes; softmax, label smoothing s: (1 - s) nll + s mean over
                           classes of -log p, as torch */
    LOSS_BCE,           /* outputs = labels; independent sigmoid each; mean over outputs, as torch's
                           BCEWithLogitsLoss           (with outputs 1 and class labels: target = label) */
    LOSS_MSE            /* outputs = 1 or more; mean over outputs */
};

struct loss_opts {
    enum loss_kind kind;
    int outputs;
    double label_smoothing;
    double focal_gamma; /* cross-entropy and BCE: each term -log p is multiplied by (1 - p)^gamma, p
                           being the probability of what the target says (Lin et al., Focal loss for
                           dense object detection, 2017, section 3.2; class_weights are their
                           alpha); not with label_smoothing; 0: none */
    const float *class_weights; /* (outputs) or NULL; LOSS_BCE: pos_weight as in torch */
};

/* Targets of B rows: exactly one of the three. */
struct loss_target {
    const int32_t *label;    /* (B) class */
    const float *value;      /* (B, outputs): regression values, or 0/1 per label */
    const float *row_weight; /* (B) or NULL: all 1 */
};

/* The weight of row b in the divisor: row_weight * class weight of its label (cross-entropy), or
 * row_weight. */
double loss_weight(const struct loss_opts *opts, const struct loss_target *target, int row);

/*
 * For B rows: loss[b] = w_b * loss_b (undivided, double), dlogits (B, outputs) = d(sum of loss /
 * divisor) / d logits * scale. dlogits may be NULL. STATUS_DATA: a label outside [0, outputs).
 * STATUS_NUMERIC: a logit is not finite (names the row in the batch).
 */
NODISCARD enum status loss_compute(const struct loss_opts *opts, const struct loss_target *target,
                                   int rows, const float *logits, double divisor, double scale,
                                   double *loss, float *dlogits);

/* What loss_compute() checks before it looks at logits: options, targets, the divisor. */
NODISCARD enum status loss_check(const struct loss_opts *opts, const struct loss_target *target,
                                 int rows, double divisor);

/* Probabilities from logits: softmax, or sigmoid per output for LOSS_BCE; identity for LOSS_MSE. */
void loss_probabilities(const struct loss_opts *opts, int rows, const float *logits, float *out);

#endif
