/*
 * kernels.h - the operations a model is made of, as one table of functions per backend.
 *
 * `ref` (plain loops, sums in double) is the meaning of each operation and stays slow; `cpu`
 * (oneDNN and our own SIMD) is CPU speed; `cuda` comes behind the same table. The backend is chosen
 * once at start and logged. An entry is right or NULL; nothing falls back silently inside a step.
 *
 * Shapes: T packed tokens of B rows (row b's tokens are [begin[b], begin[b+1])), C channels, H
 * heads of d = C/H, F intermediate, V vocabulary. Activations (`act *`) are float or bfloat16, one
 * kind for a context (act_type); statistics, master weights, gradients of parameters, logits are
 * float. All pointers are device memory of the context's device unless said "host". Parameter
 * gradients go where `cut` says; other outputs are overwritten (=). Inputs and outputs do not
 * overlap unless said. T = 0 and B = 0 are legal and do nothing (token sums then write zeros as cut
 * says).
 *
 * Bits: an output row depends on its own inputs alone, never on T, on the other rows or on the
 * number of threads. Token sums depend on the pieces of the cut alone. So results are equal for any
 * sharding of the rows (docs/numerics.md).
 */
#ifndef COHORT_MODEL_KERNELS_H
#define COHORT_MODEL_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/status.h"

enum precision { PRECISION_FP32, PRECISION_TF32, PRECISION_BF16, PRECISION_FP16 };
enum activation {
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_TANH /* tanh_forward() and tanh_backward(), not activate() */
};                  /* GELU: x/2 (1 + erf(x / sqrt 2)) */

typedef void act; /* float or bfloat16 (uint16_t, the upper half of a float): the context knows */

/* A weight matrix that products use: (N outputs, K inputs), row-major at `offset` of the flat
 * master weights. */
struct matrix {
    int64_t offset;
    int n, k;
};

/*
 * Disentangled attention (He et al. 2021, DeBERTa), as transformers' DebertaV2Model has it. A
 * distance (query - key) has a slot of 0 to 2 span - 1, a row of the table of relative positions.
 * Tables of activations have the slots in the order of their distance from slot span, which is
 * distance 0: span, span + 1, span - 1, span + 2, ... and slot 0 last. So the lines that short rows
 * need come first, and a table of fewer lines is the beginning of one of more.
 */
struct distances {
    int span;            /* 0: the model has none, the rest is unused */
    int reach;           /* distances beyond have the line of reach or of -reach */
    const int32_t *line; /* (2 reach + 1), host: of distance d at [reach + d] */
};

static inline int distance_slot(int line, int span)
{
    const int away = (line + 1) / 2;
    return line == 2 * span - 1 ? 0 : line % 2 == 1 ? span + away : span - away;
}

struct kernel_opts {
    struct device *device;
    enum precision precision;
    const struct matrix *matrices; /* (count), copied; products name a matrix by its index here */
    int count;
    int64_t max_tokens;   /* largest T */
    int max_rows;         /* largest B */
    int max_channels;     /* largest C or F of any call */
    int64_t weight_count; /* elements of the flat master weights that biases may lie in; 0: none
                             behind the last matrix */
    struct distances distances; /* line: must stay as long as the context */
    int max_pieces;             /* most pieces of a cut; 0: max_rows */
    bool training;
    bool fastest;      /* parallel.reproducible=off: bits may depend on threads */
    bool exact_pieces; /* parallel.reproducible=any: a piece that is alone in its cut has the bits
                          that it has among others; where filler lines could change them, they are
                          left out of its sums */
};

/*
 * How sums over tokens (or rows) are cut into pieces and where the pieces' sums go. Piece i sums
 * tokens [token[i], token[i+1]) and rows [row[i], row[i+1]) from zero, in an order that depends on
 * the piece alone. Its sum is written to buffer[to[i]] (=), or added (+=) where add[i]. Then, for j
 * in [merge_begin[i], merge_begin[i+1]): buffer[merge_to[j]] += buffer[merge_from[j]], element by
 * element, in order of j. Buffers are flat like the master weights; a kernel touches its
 * parameters' elements only. pieces 0: nothing is written. A buffer that was merged into another
 * and not written with = since holds nothing useful afterwards: a kernel may keep such sums in its
 * cache only.
 */
struct grad_cut {
    int pieces;
    const int32_t *token, *row; /* (pieces + 1), host; row[] counts rows of the batch */
    const int32_t *to;          /* (pieces), host */
    const bool *add;            /* (pieces), host */
    const int32_t *merge_begin; /* (pieces + 1), host */
    const int32_t *merge_to, *merge_from;
    float *const *buffer;
};

/* Names the dropout decisions of one call. Element e (from 0) of packed token t: row r = row[b] of
 * t's row, position p in it: index i = p * channels + e; decision = 16-bit lane (i % 8) of
 * Philox(key = random_key(seed, RANDOM_DROPOUT, step, layer * 16 + site), counter = (i / 8, chunk,
 * row low 32, row high 32)): lanes v[0] low half, v[0] high half, v[1] low, ... Kept where lane >=
 * threshold, threshold = rint(p * 65536), scaled by 65536 / (65536 - threshold). Attention (head h,
 * query i, key j; Lk keys): index ((h * nq + i) * round_up(Lk, 8) + j) the same way, nq = the row's
 * number of TOKENS (keys), so that a forward of fewer queries draws the same decisions. */
struct dropout {
    float p; /* 0: no dropout, the rest is unused */
    uint64_t seed;
    int64_t step;
    int layer, site;      /* sites: 0 embeddings, 1 attention, 2 attention output, 3 output, 4 head,
                             5 pooler, 6 table of relative positions, 7 convolution */
    const int64_t *row;   /* (B) host */
    const int32_t *chunk; /* (B) host, or NULL: all 0 */
};

/* Rows of a packed batch. Where a backend has a line_multiple, tokens may exceed begin[count]: the
 * lines behind the last row are filler. Forward entries write any finite numbers there, whatever
 * they find; backward entries are given zeros there and write zeros. */
struct rows {
    int64_t tokens; /* T: lines of the activations */
    int count;      /* B */
    int longest;
    const int32_t *begin; /* (B + 1), host */
};

struct range {
    int64_t begin, end; /* elements of the flat space */
};

/* What a layer makes of the first `lines` lines of the table: its projections to queries in
 * channels [q_at, q_at + C) and to keys in [k_at, k_at + C) of each line; -1: the model has none.
 */
struct relative {
    const act *table; /* (lines, width) */
    int lines, width;
    int q_at, k_at;
    float scale; /* of the scores */
};

/* More lines of a weight gradient, for outputs [first, first + n) alone: those of a table that all
 * rows of a piece read. x (lines, K): the same for all pieces. dy: piece i's lines begin at line
 * i * lines, of dy_stride elements; n of each belong here. */
struct table_lines {
    const act *x, *dy;
    int64_t dy_stride;
    int lines;
    const int32_t *count; /* (pieces), host: lines that piece i used; its dy is 0 behind them */
    int first, n;
};

struct kernel_ctx; /* a backend's state: device streams, cached primitives, packed weights */

struct adamw_segment { /* elements of one parameter that share a rate and a decay */
    int64_t w;         /* where in weights[] */
    int64_t g;         /* where in gradient[] */
    int64_t state;     /* where in m[] and v[] */
    int64_t count;
    float lr, weight_decay;
};
struct adamw_args {
    float *weights;
    const float *gradient;
    float *m, *v;
    float beta1, beta2, eps;
    float clip;                      /* gradient is multiplied by it first */
    double correction1, correction2; /* 1 - beta^t */
};

/* The optimizers that are not AdamW, a rule each; update() has the formulas. */
enum update_kind {
    UPDATE_SGD,
    UPDATE_ADAGRAD,
    UPDATE_ADADELTA,
    UPDATE_RMSPROP,
    UPDATE_ADAM,
    UPDATE_LAMB
};
enum { UPDATE_STATES = 3 };
struct update_args {
    enum update_kind kind;
    float *weights;
    float *gradient;             /* LAMB: becomes the direction */
    float *state[UPDATE_STATES]; /* NULL where the rule has no use for it */
    float beta1, beta2, eps;
    bool nesterov;                   /* SGD with state[0] */
    float clip;                      /* gradient is multiplied by it first */
    double correction1, correction2; /* ADAM, LAMB: 1 - beta^t */
};

/* A pass as the model will describe it to the entries: the same host addresses. */
struct pass_arrays {
    const struct rows *rows;    /* all tokens */
    const struct rows *firsts;  /* one line for each row: begin[b] = b */
    const int32_t *ids, *types; /* (begin[B]), NULL as in embed() */
    const int64_t *row;         /* (B) */
    const int32_t *chunk;       /* (B) or NULL */
    int64_t step;               /* as in struct dropout */
};

/* Losses of B rows on the device, as model/loss.h defines them; all pointers host, copied. */
struct loss_args {
    int kind;    /* enum loss_kind */
    int outputs; /* N */
    double label_smoothing, focal_gamma;
    const float *class_weights; /* (N) or NULL */
    const int32_t *label;       /* (B) or NULL */
    const float *value;         /* (B, N) or NULL */
    const float *row_weight;    /* (B) or NULL */
    double divisor, scale;
};

struct kernels {
    const char *name;
    /* Lines of a pass are a multiple of this (0 and 1: any number); see struct rows. */
    int line_multiple;

    /* STATUS_UNAVAILABLE with the reason if this machine lacks what the precision needs. Local. */
    enum status (*supports)(enum precision precision);
    /* What the context allocates itself beyond what it is given, in bytes. */
    int64_t (*memory_bytes)(const struct kernel_opts *opts);
    enum status (*open)(const struct kernel_opts *opts, struct kernel_ctx **out);
    void (*close)(struct kernel_ctx *ctx);

    /* The master weights changed: cast and pack what the products need. weights must stay valid
     * until the next call. */
    enum status (*weights_changed)(struct kernel_ctx *ctx, const float *weights);

    /* ---- a pass. NULL where entries read host arrays as they are given them (ref, cpu).
     * Before the first entry of a pass: copies what it is told. Rows that later entries are given
     * are one of the two (by address of begin). */
    enum status (*pass_begins)(struct kernel_ctx *ctx, const struct pass_arrays *pass);
    /* Before the first entry that takes a cut: the one that all of them will be given. */
    enum status (*backward_begins)(struct kernel_ctx *ctx, const struct grad_cut *cut);
    /* A stretch of entries that may be recorded and replayed. key names everything that the calls
     * depend on beside what pass_begins and backward_begins bring. *replayed: the stretch is
     * queued, skip its calls; else make them and call graph_ends (also after a failure). No reading
     * back in between. NULL: there are no graphs. */
    enum status (*graph_begins)(struct kernel_ctx *ctx, uint64_t key, bool *replayed);
    enum status (*graph_ends)(struct kernel_ctx *ctx);
    /* Stretches replayed and stretches in all since open. NULL as above. */
    void (*graph_counts)(const struct kernel_ctx *ctx, int64_t *replayed, int64_t *all);

    /* ---- embeddings: sum[t] = word[id] + position[p] + type[type] (float sum, rounded once to
     * act); out[t] = dropout(norm(sum[t]) * gamma + beta). ids, types (T) host; types NULL: type 0,
     * position or type table NULL: none. Word, position, type tables are float, (V, C), (P, C),
     * (2, C). mean, rstd (T). position p counts from `first_position`. */
    enum status (*embed)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                         const int32_t *ids, const int32_t *types, const float *word,
                         const float *position, const float *type, int first_position,
                         const float *gamma, const float *beta, float eps,
                         const struct dropout *dropout, act *sum, float *mean, float *rstd,
                         act *out);
    /* Gradient da + db (db may be NULL) of out. Offsets of the five parameters in the flat buffers;
     * position_offset or type_offset < 0: none. A piece's word, position and type gradients are
     * complete tables: rows not met are zero (written by this call when the piece is written with
     * =). Rows of a table: V, P, types. */
    enum status (*embed_backward)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                  const int32_t *ids, const int32_t *types, const act *da,
                                  const act *db, const act *sum, const float *mean,
                                  const float *rstd, const float *gamma,
                                  const struct dropout *dropout, int first_position,
                                  int64_t word_offset, int word_rows, int64_t position_offset,
                                  int position_rows, int64_t type_offset, int type_rows,
                                  int64_t gamma_offset, int64_t beta_offset,
                                  const struct grad_cut *cut);

    /* ---- products. y (M, N) = x (M, K) W^T + bias (float, N; NULL: none) for matrix `m`. */
    enum status (*linear)(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                          const float *bias, act *y);
    /* dx (M, K) = dy (M, N) W. */
    enum status (*linear_backward_data)(struct kernel_ctx *ctx, int m, int64_t rows, const act *dy,
                                        act *dx);
    /* dW (N, K) at the matrix's offset: sums of dy^T x; db (N) at bias_offset (< 0: none): sums of
     * dy. by_row: x and dy have one line per row of the batch, and the cut's row[] applies; else
     * one per token. x NULL: a piece has no lines of its own. more (NULL: none) belongs to a
     * piece's sum, before its merges. */
    enum status (*linear_backward_weight)(struct kernel_ctx *ctx, int m, int64_t rows, const act *x,
                                          const act *dy, int64_t bias_offset, bool by_row,
                                          const struct table_lines *more,
                                          const struct grad_cut *cut);

    /* ---- attention over each row, no stored probabilities. q (Tq, ..) has line stride q_stride, k
     * and v (T, ..) have kv_stride (elements); head h is channels [h d, (h + 1) d). queries->begin
     * says which q lines are row b's: the first queries of the row. P = dropout(softmax(q k^T /
     * sqrt d)); out (Tq, C) = P v; lse (Tq, H) = log sum exp of the scaled scores. Row b has
     * keys->begin[b+1] - keys->begin[b] keys. */
    enum status (*attention)(struct kernel_ctx *ctx, const struct rows *queries,
                             const struct rows *keys, int heads, int head_size, const act *q,
                             int64_t q_stride, const act *k, const act *v, int64_t kv_stride,
                             const struct dropout *dropout, act *out, float *lse);
    /* dq, dk, dv have the strides of q, k, v. */
    enum status (*attention_backward)(struct kernel_ctx *ctx, const struct rows *queries,
                                      const struct rows *keys, int heads, int head_size,
                                      const act *q, int64_t q_stride, const act *k, const act *v,
                                      int64_t kv_stride, const struct dropout *dropout,
                                      const act *out, const float *lse, const act *dout, act *dq,
                                      act *dk, act *dv);

    /* ---- relative positions; NULL where a backend has no disentangled attention. The first
     * `lines` lines of the table (2 span, C) of slots, float: out (lines, C) = norm(line) gamma +
     * beta. gamma and beta NULL: no norm. */
    enum status (*table_norm)(struct kernel_ctx *ctx, int lines, int channels, const float *table,
                              const float *gamma, const float *beta, float eps, act *out);
    /* da (pieces, lines, C): each piece's gradient of out. Offsets of table, gamma and beta; a
     * piece's gradient of the table is complete, other slots are zero. */
    enum status (*table_norm_backward)(struct kernel_ctx *ctx, int lines, int channels,
                                       const act *da, const float *table, const float *gamma,
                                       float eps, int64_t table_offset, int64_t gamma_offset,
                                       int64_t beta_offset, const struct grad_cut *cut);
    /* y (copies, lines, C) = or, add, += dropout(x), of the same shape. Decisions: row -1, chunk 0
     * (dropout->row is not read), position = line, the same in all copies. y may be x. */
    enum status (*table_dropout)(struct kernel_ctx *ctx, int copies, int lines, int channels,
                                 const struct dropout *dropout, const act *x, bool add, act *y);
    /* As attention() with the scores scale (q_i k_j + q_i TK[line] + k_j TQ[line]), line that of
     * distance i - j, TQ and TK those of relative; a row's distances are within its lines. */
    enum status (*attention_relative)(struct kernel_ctx *ctx, const struct rows *queries,
                                      const struct rows *keys, int heads, int head_size,
                                      const act *q, int64_t q_stride, const act *k, const act *v,
                                      int64_t kv_stride, const struct relative *relative,
                                      const struct dropout *dropout, act *out, float *lse);
    /* dtable (pieces, lines, width): each piece's gradient of the table, summed over its rows in
     * float and rounded once; zeros where no distance leads. */
    enum status (*attention_relative_backward)(struct kernel_ctx *ctx, const struct rows *queries,
                                               const struct rows *keys, int heads, int head_size,
                                               const act *q, int64_t q_stride, const act *k,
                                               const act *v, int64_t kv_stride,
                                               const struct relative *relative,
                                               const struct dropout *dropout, const act *out,
                                               const float *lse, const act *dout, act *dq, act *dk,
                                               act *dv, act *dtable, const struct grad_cut *cut);

    /* ---- a token and its neighbours in the row, for a convolution over tokens as a product: out
     * (T, C taps), out[t][c taps + i] = x[t + i - taps / 2][c], 0 outside of the row. taps is odd.
     * Backward: dx += the sum of those that read it, rounded once. */
    enum status (*neighbours)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                              int taps, const act *x, act *out);
    enum status (*neighbours_backward)(struct kernel_ctx *ctx, const struct rows *rows,
                                       int channels, int taps, const act *dout, act *dx);

    /* ---- residual and norm: sum = x + dropout(y); out = norm(sum) gamma + beta. (M, C); norm in
     * float from the unrounded sum; sum is stored rounded for backward. rows tells positions for
     * dropout. */
    enum status (*residual_norm)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                 const act *x, const act *y, const float *gamma, const float *beta,
                                 float eps, const struct dropout *dropout, act *sum, float *mean,
                                 float *rstd, act *out);
    /* Gradient da + db (db may be NULL) of out. dx = gradient of sum (for x); dy = dx through the
     * dropout (for y); dx may be da. by_row as in linear_backward_weight, for gamma's and beta's
     * sums. */
    enum status (*residual_norm_backward)(struct kernel_ctx *ctx, const struct rows *rows,
                                          int channels, const act *da, const act *db,
                                          const act *sum, const float *mean, const float *rstd,
                                          const float *gamma, const struct dropout *dropout,
                                          act *dx, act *dy, int64_t gamma_offset,
                                          int64_t beta_offset, bool by_row,
                                          const struct grad_cut *cut);

    /* ---- activation, elementwise over n. dx may be dy. kind is not ACTIVATION_TANH. */
    enum status (*activate)(struct kernel_ctx *ctx, enum activation kind, int64_t n, const act *x,
                            act *y);
    enum status (*activate_backward)(struct kernel_ctx *ctx, enum activation kind, int64_t n,
                                     const act *x, const act *dy, act *dx);
    /* y = a + b, rounded once. y may be a. */
    enum status (*add)(struct kernel_ctx *ctx, int64_t n, const act *a, const act *b, act *y);
    enum status (*tanh_forward)(struct kernel_ctx *ctx, int64_t n, const act *x, act *y);
    enum status (*tanh_backward)(struct kernel_ctx *ctx, int64_t n, const act *y, const act *dy,
                                 act *dx);
    /* y = dropout(x), the same for gradients; rows of one token each. */
    enum status (*dropout)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                           const struct dropout *dropout, const act *x, act *y);

    /* ---- rows. First token of each row: out (B, C) = x[begin[b]]. add: dx[begin[b]] += dout,
     * others untouched; not add: all other lines become zero. */
    enum status (*first_tokens)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                const act *x, act *out);
    enum status (*first_tokens_backward)(struct kernel_ctx *ctx, const struct rows *rows,
                                         int channels, const act *dout, bool add, act *dx);
    /* Mean over the row's tokens (sum in float, rounded once); max per channel, argmax = token in
     * the packed batch. */
    enum status (*mean_pool)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                             const act *x, act *out);
    enum status (*mean_pool_backward)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                      const act *dout, act *dx);
    enum status (*max_pool)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                            const act *x, act *out, int32_t *argmax);
    enum status (*max_pool_backward)(struct kernel_ctx *ctx, const struct rows *rows, int channels,
                                     const act *dout, const int32_t *argmax, act *dx);

    /* ---- classifier, in float: logits (B, N) = x (B, C) W^T + bias, W float (N, C). */
    enum status (*classify)(struct kernel_ctx *ctx, int rows, int channels, int outputs,
                            const act *x, const float *w, const float *bias, float *logits);
    enum status (*classify_backward)(struct kernel_ctx *ctx, int rows, int channels, int outputs,
                                     const act *x, const float *w, const float *dlogits, act *dx,
                                     int64_t w_offset, int64_t bias_offset,
                                     const struct grad_cut *cut);

    /* Row losses (undivided, double) and dlogits = d(sum of loss / divisor) / d logits * scale,
     * from logits (B, N); loss (B), dlogits (B, N) device. dlogits NULL: losses only. A row with a
     * logit that is not finite gets loss NaN. NULL: the model computes losses on the host. */
    enum status (*loss)(struct kernel_ctx *ctx, const struct loss_args *args, int rows,
                        const float *logits, double *loss, float *dlogits);

    /* ---- optimizer. Decoupled weight decay (Loshchilov, Hutter 2019), as torch.optim.AdamW: g =
     * clip * gradient; w *= 1 - lr decay; m, v; w -= lr / correction1 * m / (sqrt(v / correction2)
     * + eps). Same arithmetic for every element, so that the bits do not depend on where a segment
     * begins. */
    enum status (*adamw)(struct kernel_ctx *ctx, const struct adamw_args *args,
                         const struct adamw_segment *segments, int count);
    /*
     * The other rules, as torch.optim has them, by segments like adamw(); a segment's weight_decay
     * is added to the gradient (L2), except for LAMB: g = clip * gradient + decay w.
     *   SGD       s0 NULL: w -= lr g; else s0 = beta1 s0 + g and w -= lr s0, nesterov: lr (g +
     *             beta1 s0)
     *   ADAGRAD   s0 += g g; w -= lr g / (sqrt(s0) + eps)
     *   ADADELTA  s0 = beta2 s0 + (1 - beta2) g g; d = g sqrt(s1 + eps) / sqrt(s0 + eps);
     *             s1 = beta2 s1 + (1 - beta2) d d; w -= lr d
     *   RMSPROP   s0 = beta2 s0 + (1 - beta2) g g; r = sqrt(s0) + eps, with s2 (centered):
     *             s2 = beta2 s2 + (1 - beta2) g, r = sqrt(s0 - s2 s2) + eps; with s1 (momentum):
     *             s1 = beta1 s1 + g / r, w -= lr s1; without: w -= lr g / r
     *   ADAM      s0 = beta1 s0 + (1 - beta1) g; s1 = beta2 s1 + (1 - beta2) g g; w -= lr /
     *             correction1 * s0 / (sqrt(s1 / correction2) + eps)
     *   LAMB      g = clip * gradient; s0, s1 as ADAM; gradient = s0 / correction1 / (sqrt(s1 /
     *             correction2) + eps) + decay w; w stays (You et al. 2020: the step needs norms)
     * NULL: AdamW is all there is.
     */
    enum status (*update)(struct kernel_ctx *ctx, const struct update_args *args,
                          const struct adamw_segment *segments, int count);
    /* Sums of squares (host, double), in a fixed order: one for each `block` elements of each range
     * of x, the last of a range over what is left; range after range. */
    enum status (*square_sums)(struct kernel_ctx *ctx, const float *x, const struct range *ranges,
                               int count, int64_t block, double *out);
};

const struct kernels *kernels_ref(void);
const struct kernels *kernels_cpu(void);
#ifdef COHORT_CUDA
const struct kernels *kernels_cuda(void);
#endif

/* Size of one act element: 4 or 2. */
static inline int64_t act_bytes(enum precision precision)
{
    return precision == PRECISION_BF16 || precision == PRECISION_FP16 ? 2 : 4;
}

#endif
