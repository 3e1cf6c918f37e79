/*
 * cuda_sum.h - a reduction's additions on a GPU.
 *
 * The same additions in the same order as reduce_sum() makes them on the processor, so the same
 * bits. Local.
 */
#ifndef COHORT_COMM_CUDA_SUM_H
#define COHORT_COMM_CUDA_SUM_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/tree.h"

/*
 * Queue to[i] = sum of source[k][i] as `addition` says, for i in [0, n); additions >= 1. source,
 * addition, what source points to, and to are device memory; to may be a source. scratch as from
 * tree_additions(). STATUS_OS: the launch failed.
 */
NODISCARD enum status cuda_tree_sum(const float *const *source, const struct addition *addition,
                                    int additions, int scratch, float *to, int64_t n,
                                    cudaStream_t stream);

#endif
