/*
 * model.h - one encoder with its head: parameters, forward, backward.
 *
 * The model is built from a Hugging Face config.json, a head description and a kernel table
 * (model/kernels/kernels.h). It knows packed rows, no files, no ranks and no padding. Memory is one
 * device block each for parameters, gradients and activations, planned before the run; a training
 * step allocates nothing.
 *
 * Local.
 */
#ifndef COHORT_MODEL_MODEL_H
#define COHORT_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/json.h"
#include "base/status.h"
#include "model/kernels/kernels.h"
#include "model/loss.h"
#include "model/params.h"

enum pooling { POOL_CLS, POOL_POOLER, POOL_MEAN, POOL_MAX }; /* pooler: CLS, then dense and tanh */

/* "mean", "bf16": as keys and files say them. */
const char *pooling_name(enum pooling pooling);
const char *precision_name(enum precision precision);

/* Disentangled attention (struct distances in kernels.h): how distances are bucketed into slots,
 * and which of the two products with the table there are. span 0: plain attention. */
struct relative_config {
    int span;         /* half the rows of the table */
    int buckets;      /* distances beyond half of them share slots by their logarithm; 0: none do */
    int max_distance; /* where the last bucket begins */
    bool content_to_position, position_to_content; /* "c2p", "p2c" */
    bool shared; /* the layer's projections of queries and keys serve the table, too */
    bool norm;   /* the table passes through a norm */
};

/* An encoder as config.json describes it. */
struct encoder_config {
    char model_type[24]; /* "bert" */
    int vocab_size, hidden, layers, heads, intermediate, max_positions, type_vocab;
    int embedding;      /* channels of the embeddings: hidden, unless they are projected */
    int first_position; /* of a row's first token; a row has max_positions - this at most */
    bool any_length;    /* there is no table of positions, so rows may be longer */
    struct relative_config relative;
    int conv_taps; /* a convolution over neighbours beside the first layer (DeBERTa-v2); 0: none */
    enum activation conv_activation;
    float norm_eps;
    float hidden_dropout, attention_dropout;
    float classifier_dropout; /* < 0: hidden_dropout */
    float pooler_dropout;     /* before the pooler's product; < 0: that of the head */
    enum activation pooler_activation;
    float initializer_range;
    bool sinusoidal;            /* positions are sines and cosines, which are not trained */
    enum activation activation; /* GELU (erf) unless config.json says otherwise */
    int pad_id;
};
/* From parsed config.json; where names it in sentences. STATUS_FORMAT: missing or impossible
 * values; STATUS_UNAVAILABLE: a model_type, activation or position scheme cohort does not have
 * (named). */
NODISCARD enum status encoder_config_read(const json_t *config, const char *where,
                                          struct encoder_config *out);
/* transformers' class for sequence classification with such an encoder:
 * "BertForSequenceClassification". */
const char *encoder_class_name(const struct encoder_config *encoder);
/* Which part of its saved tensors' names is the classifier: "classifier", "classifier.out_proj". */
const char *encoder_classifier_name(const struct encoder_config *encoder);

struct head_config {
    enum pooling pooling;
    int outputs;   /* logits per row */
    float dropout; /* before the classifier; < 0: the encoder's classifier_dropout */
    int samples;   /* of that dropout in a training pass, each with a loss of its own, which are
                      averaged (Inoue, Multi-sample dropout, 2019); 0, 1: one. CPU only */
};

struct model_opts {
    struct encoder_config encoder;
    struct head_config head;
    enum precision precision;
    int64_t max_tokens; /* of one forward pass (micro-batch) */
    int max_rows;
    int max_losses;    /* slots of model_loss(); 0: max_rows */
    bool training;     /* false: no gradients, activations of one layer only */
    bool recompute;    /* keep only layer inputs, run each layer's forward again in backward */
    bool fastest;      /* parallel.reproducible=off: bits may depend on threads */
    bool exact_pieces; /* parallel.reproducible=any: see struct kernel_opts */
    bool eager;        /* record and replay nothing (kernels.h, graph_begins) */
    int grad_buffers;  /* flat gradient buffers to allocate (>= 1 when training) */
    int max_pieces;    /* most pieces of a cut; 0: max_rows */
    int frozen;    /* backward leaves out the first so many stages: embeddings, then layers; their
                      gradients stay zero, but for a convolution's, which the first layer brings. 0:
                      none */
    float dropout; /* < 0: as config.json says; else overrides hidden, attention, pooler and
                      classifier dropout */
    uint64_t seed; /* names the dropout decisions */
    struct device *device;
    const struct kernels *kernels;
};

struct model; /* opaque */

/* Memory the model would take, in bytes, by kind. The same planner serves `check`. */
struct model_memory {
    int64_t weights, gradients, activations, workspace, total;
};
NODISCARD enum status model_plan_memory(const struct model_opts *opts, struct model_memory *out);

/* Lay out and allocate. Weights are zero until loaded or model_init(). *out is owned
 * (model_destroy). */
NODISCARD enum status model_create(const struct model_opts *opts, struct model **out);
void model_destroy(struct model *model);

const struct param_table *model_params(const struct model *model);
/* The fp32 master weights, flat (params->total), device memory, borrowed. After writing to them:
 * model_weights_changed(). */
float *model_weights(struct model *model);
/* Gradient buffer k, flat (params->total), device memory, borrowed. */
float *model_gradient(struct model *model, int k);
NODISCARD enum status model_weights_changed(struct model *model);
/* The backend's state, for the optimizer; borrowed. */
struct kernel_ctx *model_kernel_ctx(struct model *model);
struct device *model_device(const struct model *model); /* the one it was made with */

/* Draw parameters [first, first + count) of the table anew from seed: truncated-free normal(0,
 * initializer_range) for weights and embeddings (padding row zero), zero biases, one for norm
 * weights, as transformers does; keyed by parameter name and element, so equal on any rank count.
 * Calls model_weights_changed(). */
NODISCARD enum status model_init(struct model *model, int first, int count, uint64_t seed);

/* Packed rows, as in data/dataset.h's struct batch; host memory, read during the call only. */
struct model_input {
    int64_t tokens;
    int rows;
    int max_row;
    const int32_t *ids, *types; /* (T); types NULL: all 0 */
    const int32_t *begin;       /* (B + 1) */
    const int64_t *row;         /* (B) row ids: dropout keys */
    const int32_t *chunk;       /* (B) or NULL */
};

/*
 * Forward: logits (B, outputs) to host memory, which waits for the device; NULL: they stay where
 * they are, for model_loss(), and nothing is waited for (the only way where a training pass has
 * several samples of dropout). train: with dropout of optimizer step
 * `step`, activations kept for model_backward(). Row results do not depend on which other rows are
 * in the batch. rows 0 is fine.
 */
NODISCARD enum status model_forward(struct model *model, const struct model_input *input,
                                    bool train, int64_t step, float *logits);
/* The pooled vectors (B, hidden) of the last forward, to host memory. */
NODISCARD enum status model_pooled(struct model *model, float *out);

/*
 * Losses of the last training forward and the gradient that model_backward() begins with, as
 * loss_compute() defines both. Row b's loss goes to slot at + b of the model's max_losses slots.
 * Where the kernels compute losses themselves nothing is waited for, and a logit that is not finite
 * is told by model_losses(). Statuses of loss_compute(); STATUS_ARG: no training forward, or slots
 * out of range.
 */
NODISCARD enum status model_loss(struct model *model, const struct loss_opts *opts,
                                 const struct loss_target *target, double divisor, double scale,
                                 int at);
/* Slots [0, n) to host memory, waiting for the device. STATUS_NUMERIC: a logit of that row was not
 * finite. */
NODISCARD enum status model_losses(struct model *model, int n, double *loss);
/* Stretches of work that were replayed from a recording, and all of them, since the model was
 * made; zeros where the kernels have no recordings. */
void model_replays(const struct model *model, int64_t *replayed, int64_t *all);

/*
 * Backward of the last training forward, from dlogits (B, outputs) in host memory, or NULL: those
 * of model_loss(). Parameter
 * gradients are cut and added as `cut` says (kernels.h). ready(arg, low, high), if given, is called
 * when elements [low, high) of all gradient buffers are final for this pass: from the head's end of
 * the flat space down to the embeddings.
 */
NODISCARD enum status model_backward(struct model *model, const float *dlogits,
                                     const struct grad_cut *cut,
                                     void (*ready)(void *arg, int64_t low, int64_t high),
                                     void *arg);

#endif
