/* tensor_norms.c - see tensor_norms.h. */
#include "model/tensor_norms.h"

#include <math.h>

#include "base/mem.h"

struct tensor_norms {
    const struct param_table *params;
    const struct kernels *kernels;
    struct kernel_ctx *ctx;
    int pieces;
    /* Owned runs of one parameter, cut where its first block ends, so that square_sums() counts
     * blocks as the flat space does. */
    struct range *runs;
    int *first_piece; /* (count) of a run */
    int count;
    double *sums; /* scratch: (pieces) */
};

static int pieces_of(int64_t begin, int64_t end)
{
    return (int)((end - 1) / PARAM_BLOCK - begin / PARAM_BLOCK + 1);
}

static void add_run(struct tensor_norms *z, const struct param *p, int first, int64_t begin,
                    int64_t end)
{
    if (begin >= end)
        return;
    z->runs[z->count] = (struct range){begin, end};
    z->first_piece[z->count++] = first + (int)(begin / PARAM_BLOCK - p->offset / PARAM_BLOCK);
}

static void find_runs(struct tensor_norms *z, const struct range *owned, int ranges)
{
    int first = 0;
    for (int i = 0; i < z->params->count; i++) {
        const struct param *p = &z->params->params[i];
        const int64_t p_end = p->offset + p->elements;
        for (int r = 0; r < ranges; r++) {
            int64_t begin = p->offset > owned[r].begin ? p->offset : owned[r].begin;
            int64_t end = p_end < owned[r].end ? p_end : owned[r].end;
            int64_t edge = (begin / PARAM_BLOCK + 1) * PARAM_BLOCK;
            add_run(z, p, first, begin, end < edge ? end : edge);
            add_run(z, p, first, edge, end);
        }
        first += pieces_of(p->offset, p_end);
    }
}

enum status tensor_norms_open(const struct param_table *params, const struct kernels *kernels,
                              struct kernel_ctx *ctx, const struct range *owned, int ranges,
                              struct tensor_norms **out)
{
    struct tensor_norms *z = NULL;
    enum status st = STATUS_OK;
    *out = NULL;
    TRY_GOTO(fail, mem_alloc(1, sizeof *z, "norms of tensors", &z));
    z->params = params;
    z->kernels = kernels;
    z->ctx = ctx;
    for (int i = 0; i < params->count; i++)
        z->pieces += pieces_of(params->params[i].offset,
                               params->params[i].offset + params->params[i].elements);
    size_t runs = 2 * ((size_t)params->count + (size_t)ranges);
    TRY_GOTO(fail, mem_alloc(runs, sizeof *z->runs, "norms of tensors", &z->runs));
    TRY_GOTO(fail, mem_alloc(runs, sizeof *z->first_piece, "norms of tensors", &z->first_piece));
    TRY_GOTO(fail, mem_alloc((size_t)z->pieces + 1, sizeof *z->sums, "norms of tensors", &z->sums));
    find_runs(z, owned, ranges);
    *out = z;
    return STATUS_OK;
fail:
    tensor_norms_close(z);
    return st;
}

void tensor_norms_close(struct tensor_norms *z)
{
    if (z == NULL)
        return;
    mem_free(z->runs);
    mem_free(z->first_piece);
    mem_free(z->sums);
    mem_free(z);
}

int tensor_norms_pieces(const struct tensor_norms *z)
{
    return z->pieces;
}

enum status tensor_norms_squares(const struct tensor_norms *z, const float *x, double *squares)
{
    const double *from = z->sums;
    TRY(z->kernels->square_sums(z->ctx, x, z->runs, z->count, PARAM_BLOCK, z->sums));
    for (int i = 0; i < z->pieces; i++)
        squares[i] = 0.0;
    for (int r = 0; r < z->count; r++) {
        int n = pieces_of(z->runs[r].begin, z->runs[r].end);
        for (int i = 0; i < n; i++)
            squares[z->first_piece[r] + i] = *from++;
    }
    return STATUS_OK;
}

void tensor_norms_sum(const struct tensor_norms *z, const double *squares, double *norm)
{
    for (int i = 0; i < z->params->count; i++) {
        const struct param *p = &z->params->params[i];
        double sum = 0.0;
        for (int n = pieces_of(p->offset, p->offset + p->elements); n > 0; n--)
            sum += *squares++;
        norm[i] = sqrt(sum);
    }
}
