/*
 * bert.c - BERT's tensors, with the names that transformers' BertForSequenceClassification saves.
 *
 * q, k and v are three tensors on disk and one parameter here, so that a layer's three projections
 * are one product.
 */
#include "model/family.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define LAYER(slot, role, rows, columns, name, ...)                                                \
    {                                                                                              \
        slot, PART_LAYER, role, rows, columns, "layer.#." name,                                    \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define FILE_LAYER "bert.encoder.layer.#."

static const struct tensor_rule rules[] = {
    {SLOT_WORD,
     PART_EMBEDDINGS,
     PARAM_EMBEDDING,
     EXTENT_VOCAB,
     EXTENT_HIDDEN,
     "embeddings.word.weight",
     {"bert.embeddings.word_embeddings.weight"}},
    {SLOT_POSITION,
     PART_EMBEDDINGS,
     PARAM_EMBEDDING,
     EXTENT_POSITIONS,
     EXTENT_HIDDEN,
     "embeddings.position.weight",
     {"bert.embeddings.position_embeddings.weight"}},
    {SLOT_TYPE,
     PART_EMBEDDINGS,
     PARAM_EMBEDDING,
     EXTENT_TYPES,
     EXTENT_HIDDEN,
     "embeddings.type.weight",
     {"bert.embeddings.token_type_embeddings.weight"}},
    {SLOT_EMBED_GAMMA,
     PART_EMBEDDINGS,
     PARAM_NORM,
     EXTENT_HIDDEN,
     EXTENT_NONE,
     "embeddings.norm.weight",
     {"bert.embeddings.LayerNorm.weight"}},
    {SLOT_EMBED_BETA,
     PART_EMBEDDINGS,
     PARAM_BIAS,
     EXTENT_HIDDEN,
     EXTENT_NONE,
     "embeddings.norm.bias",
     {"bert.embeddings.LayerNorm.bias"}},

    LAYER(SLOT_QKV_WEIGHT, PARAM_WEIGHT, EXTENT_QKV, EXTENT_HIDDEN, "attention.qkv.weight",
          FILE_LAYER "attention.self.query.weight", FILE_LAYER "attention.self.key.weight",
          FILE_LAYER "attention.self.value.weight"),
    LAYER(SLOT_QKV_BIAS, PARAM_BIAS, EXTENT_QKV, EXTENT_NONE, "attention.qkv.bias",
          FILE_LAYER "attention.self.query.bias", FILE_LAYER "attention.self.key.bias",
          FILE_LAYER "attention.self.value.bias"),
    LAYER(SLOT_ATTENTION_WEIGHT, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_HIDDEN,
          "attention.output.weight", FILE_LAYER "attention.output.dense.weight"),
    LAYER(SLOT_ATTENTION_BIAS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "attention.output.bias",
          FILE_LAYER "attention.output.dense.bias"),
    LAYER(SLOT_ATTENTION_GAMMA, PARAM_NORM, EXTENT_HIDDEN, EXTENT_NONE, "attention.norm.weight",
          FILE_LAYER "attention.output.LayerNorm.weight"),
    LAYER(SLOT_ATTENTION_BETA, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "attention.norm.bias",
          FILE_LAYER "attention.output.LayerNorm.bias"),
    LAYER(SLOT_INTERMEDIATE_WEIGHT, PARAM_WEIGHT, EXTENT_INTERMEDIATE, EXTENT_HIDDEN,
          "intermediate.weight", FILE_LAYER "intermediate.dense.weight"),
    LAYER(SLOT_INTERMEDIATE_BIAS, PARAM_BIAS, EXTENT_INTERMEDIATE, EXTENT_NONE, "intermediate.bias",
          FILE_LAYER "intermediate.dense.bias"),
    LAYER(SLOT_OUTPUT_WEIGHT, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_INTERMEDIATE, "output.weight",
          FILE_LAYER "output.dense.weight"),
    LAYER(SLOT_OUTPUT_BIAS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "output.bias",
          FILE_LAYER "output.dense.bias"),
    LAYER(SLOT_OUTPUT_GAMMA, PARAM_NORM, EXTENT_HIDDEN, EXTENT_NONE, "output.norm.weight",
          FILE_LAYER "output.LayerNorm.weight"),
    LAYER(SLOT_OUTPUT_BETA, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "output.norm.bias",
          FILE_LAYER "output.LayerNorm.bias"),

    {SLOT_POOLER_WEIGHT,
     PART_POOLER,
     PARAM_WEIGHT,
     EXTENT_HIDDEN,
     EXTENT_HIDDEN,
     "pooler.weight",
     {"bert.pooler.dense.weight"}},
    {SLOT_POOLER_BIAS,
     PART_POOLER,
     PARAM_BIAS,
     EXTENT_HIDDEN,
     EXTENT_NONE,
     "pooler.bias",
     {"bert.pooler.dense.bias"}},
    {SLOT_HEAD_WEIGHT,
     PART_HEAD,
     PARAM_WEIGHT,
     EXTENT_OUTPUTS,
     EXTENT_HIDDEN,
     "head.weight",
     {"classifier.weight"}},
    {SLOT_HEAD_BIAS,
     PART_HEAD,
     PARAM_BIAS,
     EXTENT_OUTPUTS,
     EXTENT_NONE,
     "head.bias",
     {"classifier.bias"}},
};

/* The pooler is matched before this list is asked, so its entry counts only for models without one.
 */
static const char *const ignored[] = {
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.",
    "cls.",
    "qa_outputs.",
    NULL,
};

const struct family family_bert = {
    .model_type = "bert",
    .prefix = "bert.",
    .first_position = 0,
    .rules = rules,
    .count = COUNT(rules),
    .ignored = ignored,
};
