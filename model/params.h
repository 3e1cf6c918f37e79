/*
 * params.h - the parameters of a model: one flat space of floats, a table of what lies where, and
 * their names on disk.
 *
 * Order: embeddings, layers from first to last, pooler, head: so backward finishes the space from
 * its end. Each tensor starts at a multiple of 64 elements; the space is padded to whole blocks of
 * PARAM_BLOCK elements, the unit of sharding, norm, hash and reduction. Padding elements stay zero.
 */
#ifndef COHORT_MODEL_PARAMS_H
#define COHORT_MODEL_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { PARAM_BLOCK = 65536, PARAM_NAME = 128 };

enum param_role {
    PARAM_WEIGHT,
    PARAM_BIAS,
    PARAM_NORM,
    PARAM_EMBEDDING
}; /* decay: weights and embeddings only */
enum param_part {
    PART_EMBEDDINGS,
    PART_LAYER,
    PART_POOLER,
    PART_HEAD
}; /* PART_HEAD: the classifier; a pooler may be the encoder's or the head's, see outside */

struct param {
    char name[PARAM_NAME];    /* ours: "layer.3.attention.qkv.weight" */
    int64_t offset, elements; /* in the flat space */
    int rank;
    int64_t shape[2]; /* rank 1: (n), rank 2: (rows = outputs, columns = inputs) */
    enum param_role role;
    enum param_part part;
    int layer;    /* of PART_LAYER, else -1 */
    bool fixed;   /* never trained */
    bool outside; /* of the encoder: transformers keeps it beside the base model */
};

/* One tensor on disk: rows [first, first + elements) of a parameter (q, k and v are three names of
 * one parameter). */
struct param_file_name {
    char name[PARAM_NAME]; /* as transformers' ForSequenceClassification saves it:
                              "bert.encoder.layer.0. ..." */
    int param;
    int64_t first, elements;
    int rank;
    int64_t shape[3]; /* a convolution's is (outputs, inputs, taps), one parameter's line each */
};

struct param_table {
    int count;
    struct param *params;
    int names;
    struct param_file_name *file; /* in flat order */
    int64_t total;                /* elements, a multiple of PARAM_BLOCK */
    int64_t used;               /* elements that are parameters: what "22.7 M parameters" counts */
    char prefix[32];            /* "bert.": files without it are accepted (the bare encoder) */
    const char *const *ignored; /* beginnings of file names, prefix removed, that are skipped;
                                   static, NULL at the end */
};

/*
 * The file name under which a tensor named `name` in a file belongs, or NULL: accepts a missing
 * prefix and the old "gamma"/"beta". *skip is true for known tensors that cohort ignores
 * (position_ids, heads of other tasks).
 */
const struct param_file_name *params_match(const struct param_table *table, const char *name,
                                           bool *skip);
void params_release(struct param_table *table);

#endif
