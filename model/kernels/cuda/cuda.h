/*
 * cuda.h - what the sources of the CUDA backend share. Inside model/kernels/cuda only.
 *
 * Files: context.c (life, the pass in device memory, graphs, the table of entries), products.c
 * (cuBLASLt), *.cu (our kernels, each entry of the table an extern "C" function that queues
 * launches on the compute stream and returns). Everything an entry does is queued on ctx->stream;
 * no entry waits for the device or allocates, square_sums and losses_read excepted, which read
 * numbers back and wait for them.
 *
 * The pass. Host arrays that describe a pass (rows, ids, dropout keys) are copied once, by
 * pass_begins, to fixed places in device memory (struct pass_device); the cut of gradient sums by
 * backward_begins (struct cut_device). Entries are given the same host arrays again and never read
 * their elements; by the address of rows->begin they only tell which of the pass's two sets of rows
 * is meant (ctx_rows). Whatever changes from step to step behind equal shapes is read from device
 * memory, so a recorded graph can be replayed.
 *
 * Filler. rows->tokens of a pass is rounded up to LINE_MULTIPLE; lines behind the last row's end
 * are filler (kernels.h). row_of is -1 there.
 *
 * Precision. Activations are float, bf16 or fp16 by ctx->opts.precision (tf32: float). Master
 * weights, statistics, parameter gradients, logits are float. Products read a 16-bit copy of all
 * weights (weights16), or the master weights in fp32 and tf32.
 */
#ifndef COHORT_MODEL_KERNELS_CUDA_H
#define COHORT_MODEL_KERNELS_CUDA_H

#include "base/device_cuda.h"
#include "model/kernels/kernels.h"

enum { LINE_MULTIPLE = 64 };

/* Recorded stretches that are kept. A pass of a base model has 15: some 60 shapes. */
enum { MOST_GRAPHS = 1024 };

/* In device memory: what changes from pass to pass. */
struct pass_header {
    int64_t step;
    int32_t tokens; /* without filler: begin[rows] */
    int32_t rows;
};

/* One set of rows on the device. */
struct rows_device {
    int lines;             /* host: rows->tokens, filler included */
    int count;             /* host: B */
    int longest;           /* host: bound on a row's length, rounded up to LINE_MULTIPLE when > 1 */
    const int32_t *begin;  /* device (B + 1) */
    const int32_t *row_of; /* device (lines) row of each line, -1: filler */
};

/* How a kernel draws dropout decisions (kernels.h, struct dropout). By value. keep = lane >=
 * threshold; threshold 0: no dropout. key = device_random_key(seed, 3, header->step, code). */
struct dropout_device {
    uint64_t seed;
    const struct pass_header *header;
    const int64_t *row;   /* (B) */
    const int32_t *chunk; /* (B), zeros where the host had none */
    uint32_t threshold, code; /* code: layer * 16 + site */
    float scale;
};

/* The cut of a backward pass on the device; arrays as in struct grad_cut. */
struct cut_device {
    int pieces, merges;          /* host; 0 pieces: write nothing */
    const int32_t *token, *row;  /* (pieces + 1) */
    const int32_t *to;           /* (pieces) */
    const int32_t *add;          /* (pieces) 0 or 1 */
    const int32_t *merge_begin;  /* (pieces + 1), counted from 0 */
    const int32_t *merge_to, *merge_from; /* (merges) */
    float *const *buffer;        /* device array of device pointers */
    /* word gradient: tokens of each piece sorted by (id, token). segment s covers order[segment[s],
     * segment[s + 1]), all of one id; pieces own segments [segment_begin[i], segment_begin[i + 1]).
     * The number of segments is read on the device (it changes from pass to pass). */
    const int32_t *order, *segment, *segment_begin;
};

/* struct distances in device memory, and the other way round. */
struct distances_device {
    const int32_t *line; /* (2 reach + 1) of distance d at [reach + d] */
    /* distances of line l: distance[line_begin[l]] to [line_begin[l + 1]), from the lowest */
    const int32_t *line_begin, *distance; /* (2 span + 1), (2 reach + 1) */
};

struct products; /* products.c: cuBLASLt's handle, plans, workspace */
struct pass_store; /* context.c: pinned staging, device places, graphs */
struct step_store; /* optimizer.cu's, below */
struct loss_store; /* rows.cu: targets on their way to the device */

struct kernel_ctx {
    struct kernel_opts opts;
    cudaStream_t stream; /* the device's compute stream */
    const float *weights; /* master, as last given to weights_changed */
    /* 16-bit precisions: a copy of the master weights [weight_begin, weight_end), which hold all
     * matrices and their biases; else NULL. Element i of the master weights is weights16[i -
     * weight_begin]. */
    uint16_t *weights16;
    int64_t weight_begin, weight_end;
    struct products *products;
    struct pass_store *store;
    struct step_store *step;
    struct loss_store *loss; /* NULL: not training */

    struct rows_device rows, firsts; /* of the pass */
    const int32_t *rows_key, *firsts_key; /* the host addresses of their begin arrays */
    const int32_t *ids, *types;      /* device (lines); types NULL: none */
    const struct pass_header *header;
    const int64_t *row;
    const int32_t *chunk;
    struct distances_device distances; /* NULLs without relative positions */
    struct cut_device cut;
    /* Copies of the host's arrays. Launches may depend on to, add and the merges, and where there
     * are several pieces (or opts.exact_pieces) on token and row: graphs are told apart by these. */
    struct grad_cut host_cut;

    float *scratch;        /* device, for partial sums; one kernel chain at a time */
    int64_t scratch_floats;
};

/* ---- context.c */
/* The pass's rows meant by `rows` (by address of begin). STATUS_ARG: not of this pass. */
NODISCARD enum status ctx_rows(const struct kernel_ctx *ctx, const struct rows *rows,
                               struct rows_device *out);
/* Decisions of one call; p 0 gives threshold 0. */
struct dropout_device ctx_dropout(const struct kernel_ctx *ctx, const struct dropout *dropout);
/* STATUS_OK, or what the launch of `what` said (cudaGetLastError). Call after launches. */
NODISCARD enum status launched(const char *what);
/* The stretch that is being recorded, if any, is incomplete and will not be launched. Returns st. */
enum status ctx_failed(const struct kernel_ctx *ctx, enum status st);
/* Whether the compute stream is being recorded: queued work is not done, only noted. */
bool ctx_recording(const struct kernel_ctx *ctx);
/* Most pieces a cut may have (limits the scratch and the pinned copies), merges and buffers. */
enum { MOST_PIECES = 8192, MOST_MERGES = 2 * MOST_PIECES, MOST_BUFFERS = 1024 };

/* What optimizer.cu works with, laid out by context.c: segments of one launch, sums of one
 * read-back. */
enum { MOST_SEGMENTS = 4096, MOST_SUMS = 8192 };
struct step_segment { /* struct adamw_segment as the kernel reads it */
    int64_t w, g, state, count;
    int64_t chunk; /* number of chunks before it */
    float keep, rate; /* 1 - lr decay, lr / correction1 */
};
struct step_store {
    struct step_segment *host[2]; /* pinned, two slots of MOST_SEGMENTS */
    cudaEvent_t copied[2];        /* the copy from the slot is done */
    int next;
    struct step_segment *segments; /* device (MOST_SEGMENTS) */
    double *sums_host, *sums;      /* pinned, device (MOST_SUMS) */
};

/* ---- products.c */
int64_t products_bytes(const struct kernel_opts *opts);
/* After a failure *out is for products_close() too. */
NODISCARD enum status products_open(struct kernel_ctx *ctx, struct products **out);
void products_close(struct kernel_ctx *ctx, struct products *products);

/* Column sums for bias gradients, defined in norm.cu and used by products.c: dy (lines, n) of act,
 * or NULL; db at bias_offset as the cut says. by_row and more as in linear_backward_weight. */
enum status cuda_column_sums(struct kernel_ctx *ctx, int64_t lines, int n, const act *dy,
                             int64_t offset, bool by_row, const struct table_lines *more);
/* buffer[to[i]] region [offset, offset + n): the merges behind piece i, element by element (i =
 * the host cut's piece). Defined in optimizer.cu. */
enum status cuda_merge(struct kernel_ctx *ctx, int piece, int64_t offset, int64_t n);
/* weights16 = round(weights), all of its elements; weights: the master weights from element 0.
 * Defined in optimizer.cu. */
enum status cuda_cast_weights(struct kernel_ctx *ctx, const float *weights);
/* ids of the pass sorted per piece into order/segment/segment_begin (host, pure function of its
 * arguments; embed_sort.c). order (tokens), segment (tokens + 1), segment_begin (pieces + 1); scratch
 * (tokens). Returns the number of segments. */
int embed_sort(const int32_t *ids, const int32_t *token, int pieces, int32_t *order,
               int32_t *segment, int32_t *segment_begin, int32_t *scratch);

/* ---- entries of the table, by file. Signatures as in struct kernels. */
/* products.c */
enum status cuda_linear(struct kernel_ctx *, int, int64_t, const act *, const float *, act *);
enum status cuda_linear_backward_data(struct kernel_ctx *, int, int64_t, const act *, act *);
enum status cuda_linear_backward_weight(struct kernel_ctx *, int, int64_t, const act *, const act *,
                                        int64_t, bool, const struct table_lines *,
                                        const struct grad_cut *);
/* attention.cu */
enum status cuda_attention(struct kernel_ctx *, const struct rows *, const struct rows *, int, int,
                           const act *, int64_t, const act *, const act *, int64_t,
                           const struct dropout *, act *, float *);
enum status cuda_attention_backward(struct kernel_ctx *, const struct rows *, const struct rows *,
                                    int, int, const act *, int64_t, const act *, const act *,
                                    int64_t, const struct dropout *, const act *, const float *,
                                    const act *, act *, act *, act *);
int64_t cuda_attention_scratch_floats(const struct kernel_opts *opts); /* for backward: (T, H) */
/* attention_relative.cu */
enum status cuda_attention_relative(struct kernel_ctx *, const struct rows *, const struct rows *,
                                    int, int, const act *, int64_t, const act *, const act *,
                                    int64_t, const struct relative *, const struct dropout *, act *,
                                    float *);
enum status cuda_attention_relative_backward(struct kernel_ctx *, const struct rows *,
                                             const struct rows *, int, int, const act *, int64_t,
                                             const act *, const act *, int64_t,
                                             const struct relative *, const struct dropout *,
                                             const act *, const float *, const act *, act *, act *,
                                             act *, act *, const struct grad_cut *);
int64_t cuda_attention_relative_scratch_floats(const struct kernel_opts *opts);
/* relative.cu: the table of relative positions, a token's neighbours */
enum status cuda_table_norm(struct kernel_ctx *, int, int, const float *, const float *,
                            const float *, float, act *);
enum status cuda_table_norm_backward(struct kernel_ctx *, int, int, const act *, const float *,
                                     const float *, float, int64_t, int64_t, int64_t,
                                     const struct grad_cut *);
enum status cuda_table_dropout(struct kernel_ctx *, int, int, int, const struct dropout *,
                               const act *, bool, act *);
enum status cuda_neighbours(struct kernel_ctx *, const struct rows *, int, int, const act *, act *);
enum status cuda_neighbours_backward(struct kernel_ctx *, const struct rows *, int, int,
                                     const act *, act *);
/* norm.cu: LayerNorm with what surrounds it */
enum status cuda_embed(struct kernel_ctx *, const struct rows *, int, const int32_t *,
                       const int32_t *, const float *, const float *, const float *, int,
                       const float *, const float *, float, const struct dropout *, act *, float *,
                       float *, act *);
enum status cuda_embed_backward(struct kernel_ctx *, const struct rows *, int, const int32_t *,
                                const int32_t *, const act *, const act *, const act *,
                                const float *, const float *, const float *, const struct dropout *,
                                int, int64_t, int, int64_t, int, int64_t, int, int64_t, int64_t,
                                const struct grad_cut *);
enum status cuda_residual_norm(struct kernel_ctx *, const struct rows *, int, const act *,
                               const act *, const float *, const float *, float,
                               const struct dropout *, act *, float *, float *, act *);
enum status cuda_residual_norm_backward(struct kernel_ctx *, const struct rows *, int, const act *,
                                        const act *, const act *, const float *, const float *,
                                        const float *, const struct dropout *, act *, act *,
                                        int64_t, int64_t, bool, const struct grad_cut *);
int64_t cuda_norm_scratch_floats(const struct kernel_opts *opts);
/* rows.cu: elementwise operations, poolings, classifier, loss. Open sets ctx->loss (training only);
 * bytes: the device memory that it takes. Close also takes what a failed open has left. */
NODISCARD enum status cuda_rows_open(struct kernel_ctx *ctx);
void cuda_rows_close(struct kernel_ctx *ctx);
int64_t cuda_rows_bytes(const struct kernel_opts *opts);
enum status cuda_activate(struct kernel_ctx *, enum activation, int64_t, const act *, act *);
enum status cuda_activate_backward(struct kernel_ctx *, enum activation, int64_t, const act *,
                                   const act *, act *);
enum status cuda_add(struct kernel_ctx *, int64_t, const act *, const act *, act *);
enum status cuda_tanh_forward(struct kernel_ctx *, int64_t, const act *, act *);
enum status cuda_tanh_backward(struct kernel_ctx *, int64_t, const act *, const act *, act *);
enum status cuda_dropout(struct kernel_ctx *, const struct rows *, int, const struct dropout *,
                         const act *, act *);
enum status cuda_first_tokens(struct kernel_ctx *, const struct rows *, int, const act *, act *);
enum status cuda_first_tokens_backward(struct kernel_ctx *, const struct rows *, int, const act *,
                                       bool, act *);
enum status cuda_mean_pool(struct kernel_ctx *, const struct rows *, int, const act *, act *);
enum status cuda_mean_pool_backward(struct kernel_ctx *, const struct rows *, int, const act *,
                                    act *);
enum status cuda_max_pool(struct kernel_ctx *, const struct rows *, int, const act *, act *,
                          int32_t *);
enum status cuda_max_pool_backward(struct kernel_ctx *, const struct rows *, int, const act *,
                                   const int32_t *, act *);
enum status cuda_classify(struct kernel_ctx *, int, int, int, const act *, const float *,
                          const float *, float *);
enum status cuda_classify_backward(struct kernel_ctx *, int, int, int, const act *, const float *,
                                   const float *, act *, int64_t, int64_t,
                                   const struct grad_cut *);
enum status cuda_loss(struct kernel_ctx *, const struct loss_args *, int, const float *, double *,
                      float *);
/* optimizer.cu */
enum status cuda_adamw(struct kernel_ctx *, const struct adamw_args *, const struct adamw_segment *,
                       int);
enum status cuda_square_sums(struct kernel_ctx *, const float *, const struct range *, int, int64_t,
                             double *);

#endif
