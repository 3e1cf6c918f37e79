/*
 * units.h - rows as what is computed: their chunks, or the rows themselves where texts are cut.
 *
 * Local.
 */
#ifndef COHORT_WORKER_UNITS_H
#define COHORT_WORKER_UNITS_H

#include <stdint.h>

#include "base/status.h"
#include "worker/prefetch.h"

/* Units of some rows, in their order. Start with {0}; memory is reused from call to call. */
struct unit_list {
    int64_t count;
    int64_t *unit;   /* (count) */
    int32_t *length; /* (count) tokens with special tokens */
    int64_t *begin;  /* (rows + 1) where those of each row begin */
    int64_t tokens;
    int32_t longest, shortest; /* 0 where there are none */
    size_t unit_capacity, length_capacity, begin_capacity;
};
NODISCARD enum status units_of_rows(const struct row_source *source, const int64_t *rows, int64_t n,
                                    struct unit_list *out);
void units_release(struct unit_list *units);

#endif
