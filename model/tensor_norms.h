/*
 * tensor_norms.h - L2 norms of whole parameters whose elements several ranks own, with the same
 * bits on any number of ranks.
 *
 * A piece is what one parameter has in one block of PARAM_BLOCK elements: blocks have one owner, so
 * pieces have, and a norm is the root of its pieces' sums of squares added in order. Pieces are
 * numbered over the whole flat space; those of other ranks are zero here, so a maximum over the
 * ranks, element by element, puts them together exactly.
 *
 * Local.
 */
#ifndef COHORT_MODEL_TENSOR_NORMS_H
#define COHORT_MODEL_TENSOR_NORMS_H

#include <stdint.h>

#include "base/status.h"
#include "model/kernels/kernels.h"
#include "model/params.h"

struct tensor_norms; /* opaque */

/* params, ctx and kernels stay in use; owned: ascending, disjoint, whole blocks, or all of it from
 * 0; read during the call only. STATUS_NOMEM. */
NODISCARD enum status tensor_norms_open(const struct param_table *params,
                                        const struct kernels *kernels, struct kernel_ctx *ctx,
                                        const struct range *owned, int ranges,
                                        struct tensor_norms **out);
void tensor_norms_close(struct tensor_norms *norms);
/* Pieces of all parameters, over all ranks. */
int tensor_norms_pieces(const struct tensor_norms *norms);
/* x: a flat device array, owned elements are read. squares (pieces), host: sums of squares, 0 for
 * what others own. */
NODISCARD enum status tensor_norms_squares(const struct tensor_norms *norms, const float *x,
                                           double *squares);
/* norm (params->count): of each parameter, from the squares of all ranks. */
void tensor_norms_sum(const struct tensor_norms *norms, const double *squares, double *norm);

#endif
