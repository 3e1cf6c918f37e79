/*
 * scoring.h - logits, or pooled vectors, of many rows, computed by all ranks of a group and known
 * to all of them afterwards, keyed by row.
 *
 * Rows are dealt so that tokens balance; a row's logits do not depend on who computed them beside
 * which others, so every metric is exact for any sharding. What is dealt are units: where rows are
 * split into chunks, those of one row go to many ranks, and a row's logits are pooled from them.
 */
#ifndef COHORT_WORKER_SCORING_H
#define COHORT_WORKER_SCORING_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "model/model.h"
#include "worker/prefetch.h"
#include "worker/run_config.h"

/* Rows and tokens of one scoring pass: what a model that scores is made for. */
enum { SCORE_ROWS = 512 };
int64_t score_tokens(const struct run_config *config, int max_length);

/*
 * logits[i * outputs ...] of rows[i] for i in [0, n), on every rank. max_tokens, max_rows: of one
 * pass, not above what the model was made for. Collective.
 */
NODISCARD enum status score_rows(struct comm *group, struct model *model,
                                 const struct row_source *source, const int64_t *rows, int64_t n,
                                 int outputs, int64_t max_tokens, int max_rows, float *logits);
/* The same for pooled vectors (n, hidden): what the model's head reads; of chunks the mean.
 * Collective. */
NODISCARD enum status embed_rows(struct comm *group, struct model *model,
                                 const struct row_source *source, const int64_t *rows, int64_t n,
                                 int hidden, int64_t max_tokens, int max_rows, float *vectors);
#endif
