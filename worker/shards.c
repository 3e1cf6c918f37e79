/* shards.c - see shards.h. */
#include "worker/shards.h"

#include <string.h>

#include "base/mem.h"
#include "comm/comm.h"
#include "model/params.h"

enum status shards_make(struct shards *s, int64_t total, int64_t bucket_bytes, int rank, int ranks)
{
    int64_t blocks = (bucket_bytes / (int64_t)sizeof(float) + PARAM_BLOCK - 1) / PARAM_BLOCK;
    if (blocks < ranks)
        blocks = ranks;
    *s = (struct shards){
        .total = total, .bucket = blocks * PARAM_BLOCK, .rank = rank, .ranks = ranks};
    s->buckets = (int)((total + s->bucket - 1) / s->bucket);
    TRY(mem_alloc((size_t)s->buckets, sizeof *s->owned, "owned elements", &s->owned));
    for (int i = 0; i < s->buckets; i++) {
        int64_t low, high;
        struct range own;
        shards_bucket(s, i, &low, &high);
        shard_range(low, high, PARAM_BLOCK, rank, ranks, &own.begin, &own.end);
        if (own.begin == own.end)
            continue;
        s->blocks += (own.end - own.begin) / PARAM_BLOCK;
        if (s->ranges > 0 && s->owned[s->ranges - 1].end == own.begin)
            s->owned[s->ranges - 1].end = own.end;
        else
            s->owned[s->ranges++] = own;
    }
    return STATUS_OK;
}

void shards_release(struct shards *s)
{
    mem_free(s->owned);
    *s = (struct shards){0};
}

void shards_bucket(const struct shards *s, int i, int64_t *low, int64_t *high)
{
    *low = i * s->bucket;
    *high = *low + s->bucket < s->total ? *low + s->bucket : s->total;
}

int64_t shards_blocks_of(const struct shards *s, int rank)
{
    int64_t blocks = 0;
    for (int i = 0; i < s->buckets; i++) {
        int64_t low, high, begin, end;
        shards_bucket(s, i, &low, &high);
        shard_range(low, high, PARAM_BLOCK, rank, s->ranks, &begin, &end);
        blocks += (end - begin) / PARAM_BLOCK;
    }
    return blocks;
}

void shards_spread(const struct shards *s, int rank, const void *values, size_t size,
                   void *by_block)
{
    const char *from = values;
    for (int i = 0; i < s->buckets; i++) {
        int64_t low, high, begin, end;
        shards_bucket(s, i, &low, &high);
        shard_range(low, high, PARAM_BLOCK, rank, s->ranks, &begin, &end);
        size_t bytes = (size_t)((end - begin) / PARAM_BLOCK) * size;
        memcpy((char *)by_block + (size_t)(begin / PARAM_BLOCK) * size, from, bytes);
        from += bytes;
    }
}
