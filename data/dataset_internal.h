/*
 * dataset_internal.h - what dataset.c (reading) and dataset_write.c share: the content hash and
 * lists of names.
 */
#ifndef COHORT_DATA_DATASET_INTERNAL_H
#define COHORT_DATA_DATASET_INTERNAL_H

#include <stdint.h>

#include "base/status.h"
#include "data/dataset.h"

#define DATASET_FORMAT "cohort-dataset"
#define DATASET_VERSION 1
#define DATASET_PAIR_LAYOUT "pair_layout" /* attribute; not written where it is 0 */
#define DATASET_SINGLE UINT32_MAX         /* in /split: the row has no second text */

/* "none", "class", "value", "multi": the attribute label_kind, in the order of enum label_kind. */
extern const char *const dataset_label_kinds[4];

/* Names numbered in the order in which they were added, found by a hash table. Start with {0}. */
struct name_list {
    char **names; /* (count) NUL-terminated */
    size_t count, capacity;
    int32_t *slots; /* (nslots) number + 1, 0: free */
    size_t nslots;
};
/* The number of a name, or -1. */
int32_t name_list_find(const struct name_list *list, const char *name, size_t n);
/* The number of a name, which is added if it is new. name has no NUL inside. STATUS_NOMEM. */
NODISCARD enum status name_list_add(struct name_list *list, const char *name, size_t n,
                                    int32_t *number);
void name_list_release(struct name_list *list);

/* All that can change a result, beside the tokens. Arrays as in dataset.h; NULL where there is
 * none. */
struct content {
    int64_t rows;
    const uint64_t *offsets; /* (rows + 1) */
    const uint32_t *split;   /* (rows) */
    enum label_kind label_kind;
    const int32_t *classes;
    const float *values;
    const int64_t *multi_begin;
    const int32_t *multi;
    const float *weights;
    const int32_t *groups;
    const char *const *names;
    int nnames;
    const double *times;
    const int32_t *folds;
    const char *const *fold_names;
    int nfold_names;
};
/* Tokens are hashed in pieces of this many, each combined with the hash so far (0 at first). */
#define CONTENT_PIECE ((int64_t)1 << 20)
uint64_t content_hash_tokens(uint64_t so_far, const int32_t *tokens, int64_t n);
/* The content hash, from the tokens' hash and the rest (docs/formats.md). */
uint64_t content_hash(uint64_t tokens, const struct content *content);

#endif
