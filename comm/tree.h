/*
 * tree.h - a reduction's tree as a list: which sums come in, and which additions make one of them.
 *
 * What comm_reduce_start() is given (comm.h) is checked and flattened here; the sums themselves are
 * made by the processor (reduce.c) or by a GPU (cuda_sum.cu), both in the order of the list. Inside
 * comm only; knows nothing of MPI.
 */
#ifndef COHORT_COMM_TREE_H
#define COHORT_COMM_TREE_H

#include <stddef.h>

#include "base/status.h"

struct reduce_tree;

#define MOST_TOP_NODES 64 /* two per level of a tree over int leaves */
#define MOST_SCRATCH 33   /* intermediate sums alive at once: at most one per level and one more */

/* An operand or result: source k is k, scratch vector k is -1 - k. */
struct addition {
    int left, right, to;
};

/* One top node of some rank. */
struct source {
    float *at; /* its slice that belongs to this rank's shard; NULL if that is empty and of another
                  rank */
    int first, count; /* leaves covered */
    int rank, node;   /* whose, and which of its top nodes */
};

/* STATUS_ARG unless runs are in leaf order, apart from each other, and hold every present leaf. */
NODISCARD enum status tree_check(const struct reduce_tree *tree, int ranks);
/*
 * The additions, at most sources - 1, that sum all sources, which are in leaf order; the last one
 * makes the sum. Returns how many; *scratch is how many scratch vectors the others need.
 */
size_t tree_additions(int leaves, const struct source *source, size_t sources,
                      struct addition *addition, int *scratch);

#endif
