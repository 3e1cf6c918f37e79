/*
 * scores.h - scores of rows as an HDF5 file: out-of-fold predictions and those of an evaluation,
 * for people who go on in Python or R, and for reports.
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

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

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

/* Vectors of texts: /row int64, /vectors float32 (rows, width), /id as above. */
struct vectors_table {
    int64_t rows;
    int width;
    const int64_t *row;    /* (rows) */
    const float *vectors;  /* (rows, width) */
    const char *const *id; /* (rows), or NULL */
};
/* As scores_write(). */
NODISCARD enum status vectors_write(const char *path, const struct vectors_table *table);

/* ---- reading ---- */

struct scores_file; /* opaque */

struct scores_info {
    int64_t rows; /* at most 2^31 - 1 */
    int outputs, classes;
    bool has_repeat, has_fold, has_label, has_value, has_id;
    const char *const
        *names; /* (classes), UTF-8, borrowed from the file; NULL where classes is 0 */
};

/*
 * Open a file that scores_write() wrote and check what it says of itself: sizes, that row numbers
 * are not negative, that repeat, row and fold ascend in this order, labels, repeats and folds are
 * in range, names are UTF-8. Scores and values are not looked at. Treated as hostile, like every
 * file (data/h5.h). On success *out is owned by the caller (scores_close). STATUS_NOINPUT,
 * STATUS_FORMAT (says what and where), STATUS_IO, STATUS_NOMEM.
 */
NODISCARD enum status scores_open(const char *path, struct scores_file **out);
void scores_close(struct scores_file *file);
void scores_get_info(const struct scores_file *file, struct scores_info *info);

/* Columns of rows [first, first + n); NULL: not wanted. STATUS_ARG: rows outside the file, or a
 * column that it does not have; STATUS_IO. */
struct scores_columns {
    int64_t *row;    /* (n) */
    int32_t *repeat; /* (n) */
    int32_t *fold;   /* (n) */
    float *logits;   /* (n, outputs) */
    float *scores;   /* (n, outputs) */
    int32_t *label;  /* (n) */
    float *value;    /* (n, outputs) */
};
NODISCARD enum status scores_read(const struct scores_file *file, int64_t first, int64_t n,
                                  const struct scores_columns *out);
/* The id of the i-th row, appended; nothing where the file has none. STATUS_ARG; STATUS_FORMAT: not
 * UTF-8; STATUS_IO. */
NODISCARD enum status scores_id(const struct scores_file *file, int64_t i, struct str *out);

#endif
