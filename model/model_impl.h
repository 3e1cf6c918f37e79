/*
 * model_impl.h - what model.c, memory.c, encoder.c, head.c and init.c share: the model's blocks and
 * its last pass.
 *
 * Activations. Every layer reads x[l] and writes x[l + 1], with its own intermediate values in
 * layer[l]. A training model keeps all of them; with recompute it keeps x alone and all layers
 * share one layer's memory; an evaluating pass uses x[0] in place and one layer's memory whatever
 * the model is.
 *
 * Relative positions (struct distances in kernels.h). All layers read one table: its first lines,
 * as many as the pass's longest row needs, normed once a pass and dropped anew by each layer, whose
 * projections of it are in layer_acts.table. Backward keeps a gradient of these lines for each
 * piece of the cut, because sums over tokens follow the cut.
 *
 * Pooled last layer. Where the pooling reads first tokens only, the last layer has queries and
 * everything behind them for B lines instead of T ("lines" below), keys and values for all tokens.
 *
 * Inside model/ only.
 */
#ifndef COHORT_MODEL_IMPL_H
#define COHORT_MODEL_IMPL_H

#include "model/family.h"
#include "model/kernels/kernels.h"
#include "model/model.h"

enum dropout_site {
    SITE_EMBEDDINGS,
    SITE_ATTENTION,
    SITE_ATTENTION_OUTPUT,
    SITE_OUTPUT,
    SITE_HEAD,
    SITE_POOLER,
    SITE_TABLE,
    SITE_CONV
};

/* What one layer keeps from forward to backward. Lines: T, or B in a pooled last layer. */
struct layer_acts {
    act *first;         /* (B, C) first tokens of x; pooled last layer only */
    act *qkv;           /* (T, 3 C); pooled: q (B, C) */
    act *kv;            /* pooled: (T, 2 C) */
    act *attended;      /* (lines, C) */
    float *lse;         /* (lines, H) */
    act *sum1, *normed; /* (lines, C) attention's residual sum and its norm */
    float *mean1, *rstd1;
    act *wide, *active; /* (lines, F) before and after the activation */
    act *sum2;          /* (lines, C) */
    float *mean2, *rstd2;
    act *table; /* (lines of the table, W): its projections to queries and keys */
};

/* Indices of a layer's matrices in the kernel context. */
struct layer_matrices {
    int qkv, q, kv; /* qkv, or q and kv in a pooled last layer; the others are -1 */
    int attention, intermediate, output;
    int relative; /* the projections of the table; -1: none */
};

/* Device memory of activations and of gradients with respect to them, all in one block. */
struct acts {
    act **x; /* (L + 1) layer inputs and the encoder's output; entries may be shared */
    struct layer_acts *layer; /* (L); entries may be shared */
    act *embed_sum;           /* (T, E) */
    act *embed_out;           /* (T, E) before the projection; NULL: there is none */
    float *embed_mean, *embed_rstd;
    act *branch; /* (T, C) a product before it is added to the residual */
    act *pooled,
        *dropped;    /* (B, C); pooled is x[L] for POOL_CLS, dropped is NULL without dropout. Where
                        there are samples: (B, samples, C), as logits and their gradients are */
    act *dsamples;   /* (B, samples, C) gradient of dropped, or NULL */
    act *pooler_in;  /* (B, C) what the pooler's product reads where dropout comes first, or NULL */
    act *pooler_sum; /* (B, C) its product before an activation that is not tanh, or NULL */
    int32_t *argmax; /* (B, C), POOL_MAX only */
    float *logits, *dlogits; /* (B, outputs) */
    double *losses;          /* (max_losses), training only */
    act *table;              /* (S, C) the table of relative positions, normed; S: all its lines */
    act *table_dropped;      /* (S, C) the same for one layer; is table without dropout */
    act *dtable;             /* (pieces, S, W) gradient of a layer's projections, training only */
    act *dlines[2];          /* (pieces, S, C) of the table: one layer's, and the sum */
    act *conv_in;            /* (T, C taps) a token and its neighbours, then the gradient of it */
    act *conv_out;           /* (T, C) before the activation */
    act *conv_active;        /* (T, C) behind it */
    act *conv_residual;      /* (T, C) the first layer's output, which it is added to */
    act *conv_sum;           /* (T, C) */
    act *conv_top;           /* (T, C) behind its norm, where only first tokens go on; or NULL */
    float *conv_mean, *conv_rstd;
    act *d[3];  /* (T, C) gradients, training only */
    act *dwide; /* (T, max(F, 3 C)), training only */
};

/* The rows of the last forward pass, host memory of ours. */
struct pass {
    bool ready; /* a training forward was done and its activations are whole */
    bool train;
    int64_t step;
    int64_t tokens;     /* without filler */
    struct rows rows;   /* all tokens, and filler up to the kernels' line_multiple */
    struct rows firsts; /* one line for each row */
    int32_t *ids, *types, *begin, *line, *chunk;
    int64_t *row;
    bool has_types, has_chunks;
    int table_lines;      /* of the table that this pass needs */
    int32_t *piece_lines; /* (max_pieces) that each piece of the cut needs */
};

/* Several samples of the head's dropout: line b count + k is the k-th of row b. Host memory. */
struct samples {
    int count;             /* 1: none of this */
    int32_t *begin, *cut;  /* (max_rows + 1), (max_pieces + 1) */
    int32_t *label;        /* (max_rows, count) targets, repeated */
    float *value, *weight; /* (max_rows, count, outputs), (max_rows, count) */
};

struct model {
    struct model_opts
        opts; /* max_tokens is a multiple of the kernels' line_multiple, max_rows is at most
                 max_tokens, max_losses, head.dropout and encoder dropouts are resolved */
    const struct family *family;
    const struct kernels *kernels;
    struct kernel_ctx *ctx;
    struct param_table params;
    struct param_index index;
    struct matrix *matrices;
    int matrix_count;
    struct layer_matrices *layer;                   /* (L) */
    int pooler_matrix, project_matrix, conv_matrix; /* -1: none */
    struct distances distances;                     /* line is ours */
    struct relative_layout {
        int width;      /* W: C for each projection */
        int q_at, k_at; /* channels of the projections to queries and keys; -1: none */
        int64_t row;    /* of qkv's matrix where they are shared: the first one's line */
        float scale;    /* of the scores */
    } relative;
    bool pooled_last;           /* the last layer computes first tokens only */
    bool pooled_conv;           /* so does what follows the convolution of a single layer */
    float *weights, *gradients; /* device blocks */
    char *block;                /* device block of activations */
    struct acts acts;
    struct pass pass;
    struct samples samples;
};

/* ---- memory.c */

/* Check opts and set the parts of a model that need no device memory: sizes, table, matrices. model
 * is zeroed. */
NODISCARD enum status model_plan(const struct model_opts *opts, struct model *model);
/* Lay out the activations from block, or only count them where block is NULL; returns bytes. */
int64_t model_lay_acts(struct model *model, char *block);
struct kernel_opts model_kernel_opts(const struct model *model);
/* Bytes of host memory for one pass's rows. */
int64_t model_pass_bytes(const struct model *model);
void model_unplan(struct model *model);

/* ---- encoder.c: x[0] from the tokens, ... , x[L]; and back from the gradient of x[L] in d[at] */
NODISCARD enum status encoder_forward(struct model *model);
NODISCARD enum status encoder_backward(struct model *model, int at, const struct grad_cut *cut,
                                       void (*ready)(void *arg, int64_t low, int64_t high),
                                       void *arg);

/* ---- relative.c: the table of relative positions. Everything is a no-op without one. */

/* Slots of all distances. */
NODISCARD enum status distances_make(const struct relative_config *config, struct distances *out);
/* Lines of the table that rows of up to `length` tokens need. */
int distances_lines(const struct distances *d, int length);
NODISCARD enum status table_forward(struct model *model);
/* A layer's projections of the table. */
NODISCARD enum status table_project(struct model *model, int l, struct layer_acts *a);
struct relative table_of_layer(const struct model *model, const struct layer_acts *a);
/* Before a layer's weight gradients: what their sums need of the table, for outputs [first, first +
 * n) of a matrix whose first output is qkv's output `from`. n is 0 where there is nothing. */
struct table_lines table_lines_for(const struct model *model, int from, int n);
NODISCARD enum status table_backward_begins(struct model *model, const struct grad_cut *cut);
/* The lines that layer l read, again; then what acts.dtable means for its parameters (those that
 * are its own) and for the table. */
NODISCARD enum status table_lines_again(struct model *model, int l);
NODISCARD enum status table_project_backward(struct model *model, int l,
                                             const struct grad_cut *cut);
NODISCARD enum status table_backward(struct model *model, const struct grad_cut *cut);

/* ---- head.c: acts.logits of x[L]; backward, from acts.dlogits, leaves the gradient of x[L] in
 * d[head_gradient_at()] */
NODISCARD enum status head_forward(struct model *model);
NODISCARD enum status head_backward(struct model *model, const struct grad_cut *cut);
int head_gradient_at(const struct model *model);

/* ---- samples.c: several samples of the head's dropout; all but the first two only where there are
 */
/* From the options: how many there are, and what is refused; nothing to free. */
NODISCARD enum status samples_plan(struct model *model);
NODISCARD enum status samples_open(struct model *model);
void samples_close(struct model *model);
/* The lines of all samples, as rows of `count` lines. */
struct rows samples_rows(const struct model *model);
/* (B, C) to (B, samples, C), and the sum over samples back. */
void samples_repeat(const struct model *model, const act *from, act *to);
void samples_add_up(const struct model *model, const act *from, act *to);
/* The same cut of these lines; its rows are the model's until the next. */
struct grad_cut samples_cut(struct model *model, const struct grad_cut *cut);
/* As model_loss(); the rows' means of what it left. */
NODISCARD enum status samples_loss(struct model *model, const struct loss_opts *opts,
                                   const struct loss_target *target, double divisor, double scale,
                                   int at);
void samples_losses(const struct model *model, int rows, double *loss);

/* ---- record.c: stretches of kernels that a backend may record and replay. The name says what is
 * computed beside what the pass and the cut say; also after a failure inside. */
enum stretch { STRETCH_EVALUATE, STRETCH_FORWARD, STRETCH_HEAD, STRETCH_LAYER, STRETCH_EMBEDDINGS };
NODISCARD enum status stretch_begin(struct model *model, enum stretch stretch, int layer,
                                    bool *replayed);
NODISCARD enum status stretch_end(struct model *model, bool replayed, enum status st);

/* ---- small things all of them use */

/* The flat space from the first parameter of a part (and layer) on. */
int64_t model_part_begin(const struct model *model, enum param_part part, int layer);

/* Weights of a slot, NULL where the model has none. */
static inline const float *weight_at(const struct model *m, enum slot slot, int layer)
{
    const struct param *p = param_at(&m->params, &m->index, slot, layer);
    return p == NULL ? NULL : m->weights + p->offset;
}

/* Offset of a slot in the flat space, -1 where the model has none. */
static inline int64_t offset_at(const struct model *m, enum slot slot, int layer)
{
    const struct param *p = param_at(&m->params, &m->index, slot, layer);
    return p == NULL ? -1 : p->offset;
}

/* The dropout of a site in this pass; none while evaluating. */
static inline struct dropout dropout_at(const struct model *m, float p, int layer,
                                        enum dropout_site site)
{
    return (struct dropout){
        .p = m->pass.train ? p : 0,
        .seed = m->opts.seed,
        .step = m->pass.step,
        .layer = layer,
        .site = (int)site,
        .row = m->pass.row,
        .chunk = m->pass.has_chunks ? m->pass.chunk : NULL,
    };
}

/* y = activation(x); n elements. */
static inline enum status apply(const struct model *m, enum activation kind, int64_t n,
                                const act *x, act *y)
{
    if (kind == ACTIVATION_TANH)
        return m->kernels->tanh_forward(m->ctx, n, x, y);
    return m->kernels->activate(m->ctx, kind, n, x, y);
}

/* dx from dy, x and y = activation(x). dx may be dy. */
static inline enum status apply_backward(const struct model *m, enum activation kind, int64_t n,
                                         const act *x, const act *y, const act *dy, act *dx)
{
    if (kind == ACTIVATION_TANH)
        return m->kernels->tanh_backward(m->ctx, n, y, dy, dx);
    return m->kernels->activate_backward(m->ctx, kind, n, x, dy, dx);
}

/* p moved on by n act elements. */
static inline act *act_at(const struct model *m, act *p, int64_t n)
{
    return (char *)p + n * act_bytes(m->opts.precision);
}

#endif
