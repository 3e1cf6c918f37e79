/*
 * scores.h - scores of rows as an HDF5 file: out-of-fold predictions, for people who go on in
 * Python or R.
 *
 * Layout (docs/formats.md): /row int64, /repeat int32 where there are several, /fold int32 (-1:
 * none), /logits and /scores float32 (rows, outputs), /label int32 or /value float32 (rows,
 * outputs) where known, /names the labels, /id strings where the data has them: UTF-8 texts of the
 * longest's length, NUL-padded, so one very long id makes every row long. Same bytes for the same
 * table.
 *
 * Local.
 */
#ifndef COHORT_DATA_SCORES_H
#define COHORT_DATA_SCORES_H

#include <stdint.h>

#include "base/status.h"

struct scores_table {
    int64_t rows;
    int outputs, classes;
    const int64_t *row;       /* (rows) */
    const int32_t *repeat;    /* (rows) or NULL */
    const int32_t *fold;      /* (rows) or NULL */
    const float *logits;      /* (rows, outputs) */
    const float *scores;      /* (rows, outputs) probabilities, or values */
    const int32_t *label;     /* (rows) or NULL */
    const float *value;       /* (rows, outputs) or NULL */
    const char *const *names; /* (classes), or NULL */
    const char *const *id;    /* (rows) NUL-terminated, or NULL */
};

/*
 * Write path under a temporary name and rename it; no rows are fine. STATUS_IO, a file that was
 * there stays; STATUS_ARG a size out of range.
 */
NODISCARD enum status scores_write(const char *path, const struct scores_table *table);

#endif
