/*
 * shards.h - who owns which elements of the flat space, and when a sum may start.
 *
 * The flat space is cut into buckets of whole blocks (PARAM_BLOCK). Each bucket is reduced by
 * itself, from the last to the first, as soon as backward has finished it; its blocks are dealt to
 * the ranks (shard_range), who update their share and give it back. So every rank owns a part of
 * every bucket, and messages of one bucket use all links.
 *
 * What is computed per block (norms, hashes) is put together in the order of blocks, so it depends
 * neither on buckets nor on ranks.
 *
 * Local: rank and ranks are plain numbers.
 */
#ifndef COHORT_WORKER_SHARDS_H
#define COHORT_WORKER_SHARDS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/kernels/kernels.h"

struct shards {
    int64_t total;  /* elements, a multiple of PARAM_BLOCK */
    int64_t bucket; /* elements of every bucket but the last */
    int buckets, rank, ranks;
    struct range *owned; /* (ranges) of this rank: ascending, neighbours joined, none empty */
    int ranges;
    int64_t blocks; /* owned */
};

/* bucket_bytes is rounded up to whole blocks, one for each rank at least. STATUS_NOMEM. */
NODISCARD enum status shards_make(struct shards *shards, int64_t total, int64_t bucket_bytes,
                                  int rank, int ranks);
void shards_release(struct shards *shards);
/* Elements [*low, *high) of bucket i. */
void shards_bucket(const struct shards *shards, int i, int64_t *low, int64_t *high);
/* Blocks that `rank` owns. */
int64_t shards_blocks_of(const struct shards *shards, int rank);
/* One value of `size` bytes for each block that `rank` owns, ascending: to their places in by_block
 * (total / PARAM_BLOCK values). */
void shards_spread(const struct shards *shards, int rank, const void *values, size_t size,
                   void *by_block);

#endif
