/*
 * embed.h - vectors of texts that stream by, as predict.h's scores do.
 */
#ifndef COHORT_WORKER_EMBED_H
#define COHORT_WORKER_EMBED_H

#include "worker/predict.h"

/*
 * The pooled vector of each row of data.input, of length 1 under embed.normalize, to `out` by rank
 * 0: JSONL, TSV or CSV (row, id, vector), or HDF5 (/row int64, /vectors float32 (rows, channels),
 * /id), which holds all vectors in memory. Of a text in chunks: the mean of their vectors. The task
 * of opts is not looked at. *rows counts them. Collective.
 */
NODISCARD enum status embed_run(const struct predict_opts *opts, int64_t *rows);

#endif
