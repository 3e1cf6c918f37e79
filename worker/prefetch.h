/*
 * prefetch.h - the next batch is read and packed by a thread of its own while the current one is
 * computed.
 *
 * A row source is anything that can pack rows: a prepared dataset, or rows that were just
 * tokenized. While a prefetch is open only its thread calls the source's read(), so HDF5 is used by
 * one thread at a time.
 *
 * Local.
 */
#ifndef COHORT_WORKER_PREFETCH_H
#define COHORT_WORKER_PREFETCH_H

#include <stdint.h>

#include "base/status.h"
#include "data/dataset.h"

struct row_source {
    void *self;
    int (*length)(void *self, int64_t unit); /* tokens with special tokens */
    enum status (*read)(void *self, const int64_t *units, int count, struct batch *batch);
    /* Units of the rows before this one: units of a row are those from its first to the next row's
       first. NULL: rows are units. */
    int64_t (*first_unit)(void *self, int64_t row);
    enum chunk_pooling pooling; /* of a row's units */
};
/* Rows of an open dataset, which must outlive the source. */
struct row_source row_source_dataset(struct dataset *ds);

struct prefetch; /* opaque */

NODISCARD enum status prefetch_open(struct prefetch **out);
void prefetch_close(struct prefetch *prefetch); /* waits for what is under way; NULL is fine */
/* Ask for a batch of units, which are copied. At most two may be asked for and not yet taken:
 * STATUS_ARG. */
NODISCARD enum status prefetch_ask(struct prefetch *prefetch, const struct row_source *source,
                                   const int64_t *units, int count);
/* The oldest batch asked for: waits for it. Valid until the next take. The status is the read's. */
NODISCARD enum status prefetch_take(struct prefetch *prefetch, const struct batch **batch);
/* Wait until nothing is being read: then the caller may use the source itself. */
void prefetch_settle(struct prefetch *prefetch);
/* Batches asked for and not yet taken. */
int prefetch_pending(const struct prefetch *prefetch);

#endif
