/*
 * family.h - what distinguishes one encoder family from another, as tables: tensors, their names on
 * disk, positions.
 *
 * A family is a list of tensor rules in the order of the flat space, the names of its config.json
 * and the form of its head. The encoder finds its tensors by slot, so a new family with BERT's
 * block is a new table and no new code (family_rules.h).
 *
 * Inside model/ only.
 */
#ifndef COHORT_MODEL_FAMILY_H
#define COHORT_MODEL_FAMILY_H

#include "base/status.h"
#include "model/model.h"
#include "model/params.h"

/* What a tensor is to the encoder. */
enum slot {
    SLOT_WORD,
    SLOT_POSITION,
    SLOT_TYPE,
    SLOT_EMBED_GAMMA,
    SLOT_EMBED_BETA,
    SLOT_EMBED_PROJECT_WEIGHT, /* embeddings narrower than the encoder */
    SLOT_EMBED_PROJECT_BIAS,
    SLOT_RELATIVE_TABLE, /* relative positions, their norm */
    SLOT_RELATIVE_GAMMA,
    SLOT_RELATIVE_BETA,
    SLOT_CONV_WEIGHT, /* the convolution beside the first layer */
    SLOT_CONV_BIAS,
    SLOT_CONV_GAMMA,
    SLOT_CONV_BETA,
    SLOT_QKV_WEIGHT,
    SLOT_QKV_BIAS,
    SLOT_RELATIVE_WEIGHT, /* a layer's own projections of the table; where they are not qkv's */
    SLOT_RELATIVE_BIAS,
    SLOT_ATTENTION_WEIGHT,
    SLOT_ATTENTION_BIAS,
    SLOT_ATTENTION_GAMMA,
    SLOT_ATTENTION_BETA,
    SLOT_INTERMEDIATE_WEIGHT,
    SLOT_INTERMEDIATE_BIAS,
    SLOT_OUTPUT_WEIGHT,
    SLOT_OUTPUT_BIAS,
    SLOT_OUTPUT_GAMMA,
    SLOT_OUTPUT_BETA,
    SLOT_POOLER_WEIGHT,
    SLOT_POOLER_BIAS,
    SLOT_HEAD_WEIGHT,
    SLOT_HEAD_BIAS,
    SLOT_COUNT
};

/* A length that comes from the configuration. */
enum extent {
    EXTENT_NONE, /* as columns: the tensor has rank 1 */
    EXTENT_VOCAB,
    EXTENT_POSITIONS,
    EXTENT_TYPES,
    EXTENT_EMBEDDING,
    EXTENT_HIDDEN,
    EXTENT_QKV,            /* 3 C: the rows of q, k and v stacked */
    EXTENT_RELATIVE_TABLE, /* 2 span */
    EXTENT_RELATIVE,       /* C for each of the projections of the table that there are */
    EXTENT_CONV,           /* C taps: on disk a third dimension of taps */
    EXTENT_INTERMEDIATE,
    EXTENT_OUTPUTS
};

enum { TENSOR_PARTS = 3 }; /* the most file tensors that make up one parameter */

struct tensor_rule {
    enum slot slot;
    enum param_part part;
    enum param_role role;
    enum extent rows, columns;
    const char *name; /* ours; '#' stands for the layer's number */
    const char
        *file[TENSOR_PARTS]; /* on disk, equal shares of the rows in this order; NULL: no more */
};

/* Names of config.json's values, and what is meant where a value is missing. NULL: the family has
 * no such value and the default holds. */
struct config_names {
    const char *hidden, *layers, *heads, *intermediate, *embedding, *types;
    const char *activation, *norm_eps;
    const char *hidden_dropout, *attention_dropout, *classifier_dropout;
    const char *pooler_dropout, *pooler_activation; /* NULL: as struct pooler_form says */
    int types_default, pad_default;
    double norm_eps_default, classifier_dropout_default; /* of the dropout: < 0: hidden_dropout */
    bool disentangled; /* the values of struct relative_config and the convolution's, too */
};

/* What the sequence-classification head does with a first token: [dropout], dense, activation,
 * dropout, classifier. Families whose config.json says it have it from there. */
struct pooler_form {
    enum activation activation;
    bool dropout_first; /* the head's */
};

struct family {
    const char *model_type;      /* as in config.json */
    const char *class_name;      /* transformers' class for sequence classification */
    const char *classifier;      /* its tensors' names without ".weight" */
    const char *prefix;          /* of file names; files without it are accepted */
    bool attention_output_whole; /* no dropout between attention and its residual */
    bool positions_after_pad;    /* a row's first token has position pad_id + 1, else 0 */
    struct pooler_form pooler;
    const struct config_names *config;
    const struct tensor_rule
        *rules; /* in the order of the flat space; a layer's rules stand together */
    int count;
    const char *const
        *ignored; /* beginnings of file names, prefix removed, that are skipped; NULL at the end */
};

/* The family of a model_type, or NULL. */
const struct family *family_find(const char *model_type);
extern const struct family family_bert, family_distilbert, family_roberta, family_xlm_roberta,
    family_camembert, family_electra, family_deberta_v2;
extern const struct config_names bert_config_names;
/* The model_types there are, for sentences. */
const char *family_list(void);

/* Where the tensors of each slot stand in the table. */
struct param_index {
    int first[SLOT_COUNT]; /* parameter number, of layer 0 for tensors of layers; -1: the model has
                              none */
    int per_layer;         /* parameters of one layer */
};

/*
 * The table of a model: offsets, shapes, names. *table is owned by the caller (params_release).
 * STATUS_NOMEM; STATUS_INTERNAL: a rule of the family is wrong.
 */
NODISCARD enum status params_build(const struct family *family,
                                   const struct encoder_config *encoder,
                                   const struct head_config *head, struct param_table *table,
                                   struct param_index *index);

/* The parameter of a slot; layer counts for tensors of layers only. NULL: the model has none. */
static inline const struct param *param_at(const struct param_table *table,
                                           const struct param_index *index, enum slot slot,
                                           int layer)
{
    int at = index->first[slot];
    if (at < 0)
        return NULL;
    if (table->params[at].part == PART_LAYER)
        at += layer * index->per_layer;
    return &table->params[at];
}

#endif
