/*
 * source.h - from what a user names (text in any format, or a prepared file) to an open dataset.
 *
 * Text is tokenized by all ranks and written once; the file's bytes do not depend on the number of
 * ranks. `train` and `eval` keep what they prepared in a cache, found again by the content of the
 * text and everything that decides ids.
 */
#ifndef COHORT_WORKER_SOURCE_H
#define COHORT_WORKER_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "data/dataset.h"
#include "data/text.h"
#include "worker/model_io.h"
#include "worker/run_config.h"

/* How the configuration reads text at path. Strings are borrowed from config and path. */
void source_text_opts(const struct run_config *config, const char *path, struct text_opts *out);
/* Whether path is a prepared file (by its first bytes). */
bool source_is_prepared(const char *path);

struct prepare_report {
    int64_t seen, rows; /* rows of the text, rows selected */
    int64_t tokens;
    bool cached; /* an earlier file was found */
};
/* Tokenize text at `path` into the prepared file `out`. Collective. STATUS_DATA, STATUS_IO ... on
 * all ranks. */
NODISCARD enum status source_prepare(struct comm *comm, const struct run_config *config,
                                     const struct model_source *model, const char *path,
                                     const char *out, struct prepare_report *report);
/*
 * Open a dataset from a prepared file, or from text through the cache folder. key names the
 * configuration key in sentences. Checks that the tokenizer is the model's; with
 * model_source_none() any prepared file will do, and text is stored without tokens. STATUS_CONFIG
 * where rows of a prepared file are to be selected. Collective; every rank gets its own handle
 * (dataset_close).
 */
NODISCARD enum status source_open(struct comm *comm, const struct run_config *config,
                                  const struct model_source *model, const char *key,
                                  const char *path, const char *cache_folder, int max_length,
                                  const struct chunk_rule *chunks, struct dataset **out);

#endif
