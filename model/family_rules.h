/*
 * family_rules.h - tensor rules that families with BERT's block share, with the prefix of their file
 * names as an argument.
 *
 * q, k and v are three tensors on disk and one parameter here, so that a layer's three projections
 * are one product. For the sources of families only.
 */
#ifndef COHORT_MODEL_FAMILY_RULES_H
#define COHORT_MODEL_FAMILY_RULES_H

#include "model/family.h"

/* clang-format off */
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define RULE(slot, part, role, rows, columns, name, ...)                                           \
    { slot, part, role, rows, columns, name, { __VA_ARGS__ } }
#define LAYER(slot, role, rows, columns, name, ...)                                                \
    RULE(slot, PART_LAYER, role, rows, columns, "layer.#." name, __VA_ARGS__)

#define EMBEDDINGS_WITHOUT_TYPES(P)                                                                \
    RULE(SLOT_WORD, PART_EMBEDDINGS, PARAM_EMBEDDING, EXTENT_VOCAB, EXTENT_EMBEDDING,              \
         "embeddings.word.weight", P "embeddings.word_embeddings.weight"),                         \
    RULE(SLOT_POSITION, PART_EMBEDDINGS, PARAM_EMBEDDING, EXTENT_POSITIONS, EXTENT_EMBEDDING,      \
         "embeddings.position.weight", P "embeddings.position_embeddings.weight"),                 \
    RULE(SLOT_EMBED_GAMMA, PART_EMBEDDINGS, PARAM_NORM, EXTENT_EMBEDDING, EXTENT_NONE,             \
         "embeddings.norm.weight", P "embeddings.LayerNorm.weight"),                               \
    RULE(SLOT_EMBED_BETA, PART_EMBEDDINGS, PARAM_BIAS, EXTENT_EMBEDDING, EXTENT_NONE,              \
         "embeddings.norm.bias", P "embeddings.LayerNorm.bias")

#define EMBEDDINGS(P)                                                                              \
    RULE(SLOT_WORD, PART_EMBEDDINGS, PARAM_EMBEDDING, EXTENT_VOCAB, EXTENT_EMBEDDING,              \
         "embeddings.word.weight", P "embeddings.word_embeddings.weight"),                         \
    RULE(SLOT_POSITION, PART_EMBEDDINGS, PARAM_EMBEDDING, EXTENT_POSITIONS, EXTENT_EMBEDDING,      \
         "embeddings.position.weight", P "embeddings.position_embeddings.weight"),                 \
    RULE(SLOT_TYPE, PART_EMBEDDINGS, PARAM_EMBEDDING, EXTENT_TYPES, EXTENT_EMBEDDING,              \
         "embeddings.type.weight", P "embeddings.token_type_embeddings.weight"),                   \
    RULE(SLOT_EMBED_GAMMA, PART_EMBEDDINGS, PARAM_NORM, EXTENT_EMBEDDING, EXTENT_NONE,             \
         "embeddings.norm.weight", P "embeddings.LayerNorm.weight"),                               \
    RULE(SLOT_EMBED_BETA, PART_EMBEDDINGS, PARAM_BIAS, EXTENT_EMBEDDING, EXTENT_NONE,              \
         "embeddings.norm.bias", P "embeddings.LayerNorm.bias")

/* A layer: file names of q, k, v, the attention's output, its norm, the two products and the last
 * norm, each without ".weight" and ".bias". */
#define BLOCK(Q, K, V, ATTENTION, NORM1, INTERMEDIATE, OUTPUT, NORM2)                              \
    LAYER(SLOT_QKV_WEIGHT, PARAM_WEIGHT, EXTENT_QKV, EXTENT_HIDDEN, "attention.qkv.weight",        \
          Q ".weight", K ".weight", V ".weight"),                                                  \
    LAYER(SLOT_QKV_BIAS, PARAM_BIAS, EXTENT_QKV, EXTENT_NONE, "attention.qkv.bias",                \
          Q ".bias", K ".bias", V ".bias"),                                                        \
    LAYER(SLOT_ATTENTION_WEIGHT, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_HIDDEN,                       \
          "attention.output.weight", ATTENTION ".weight"),                                         \
    LAYER(SLOT_ATTENTION_BIAS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "attention.output.bias",    \
          ATTENTION ".bias"),                                                                      \
    LAYER(SLOT_ATTENTION_GAMMA, PARAM_NORM, EXTENT_HIDDEN, EXTENT_NONE, "attention.norm.weight",   \
          NORM1 ".weight"),                                                                        \
    LAYER(SLOT_ATTENTION_BETA, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "attention.norm.bias",      \
          NORM1 ".bias"),                                                                          \
    LAYER(SLOT_INTERMEDIATE_WEIGHT, PARAM_WEIGHT, EXTENT_INTERMEDIATE, EXTENT_HIDDEN,              \
          "intermediate.weight", INTERMEDIATE ".weight"),                                          \
    LAYER(SLOT_INTERMEDIATE_BIAS, PARAM_BIAS, EXTENT_INTERMEDIATE, EXTENT_NONE,                    \
          "intermediate.bias", INTERMEDIATE ".bias"),                                              \
    LAYER(SLOT_OUTPUT_WEIGHT, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_INTERMEDIATE, "output.weight",   \
          OUTPUT ".weight"),                                                                       \
    LAYER(SLOT_OUTPUT_BIAS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "output.bias",                 \
          OUTPUT ".bias"),                                                                         \
    LAYER(SLOT_OUTPUT_GAMMA, PARAM_NORM, EXTENT_HIDDEN, EXTENT_NONE, "output.norm.weight",         \
          NORM2 ".weight"),                                                                        \
    LAYER(SLOT_OUTPUT_BETA, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "output.norm.bias",            \
          NORM2 ".bias")

#define BERT_BLOCK(P)                                                                              \
    BLOCK(P "encoder.layer.#.attention.self.query", P "encoder.layer.#.attention.self.key",        \
          P "encoder.layer.#.attention.self.value", P "encoder.layer.#.attention.output.dense",    \
          P "encoder.layer.#.attention.output.LayerNorm", P "encoder.layer.#.intermediate.dense",  \
          P "encoder.layer.#.output.dense", P "encoder.layer.#.output.LayerNorm")

/* The head: file names of the dense layer on the first token and of the classifier. */
#define HEAD(POOLER, CLASSIFIER)                                                                   \
    RULE(SLOT_POOLER_WEIGHT, PART_POOLER, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_HIDDEN,              \
         "pooler.weight", POOLER ".weight"),                                                       \
    RULE(SLOT_POOLER_BIAS, PART_POOLER, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "pooler.bias",     \
         POOLER ".bias"),                                                                          \
    RULE(SLOT_HEAD_WEIGHT, PART_HEAD, PARAM_WEIGHT, EXTENT_OUTPUTS, EXTENT_HIDDEN, "head.weight",  \
         CLASSIFIER ".weight"),                                                                    \
    RULE(SLOT_HEAD_BIAS, PART_HEAD, PARAM_BIAS, EXTENT_OUTPUTS, EXTENT_NONE, "head.bias",          \
         CLASSIFIER ".bias")
/* clang-format on */

#endif
