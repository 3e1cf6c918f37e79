/*
 * deberta.c - DeBERTa-v2 and v3 (transformers' DebertaV2ForSequenceClassification): BERT's block
 * with disentangled attention and a table of relative positions that all layers share; v2's
 * convolution beside the first layer; a head with GELU.
 */
#include "model/family_rules.h"

static const struct config_names names = {
    .hidden = "hidden_size",
    .layers = "num_hidden_layers",
    .heads = "num_attention_heads",
    .intermediate = "intermediate_size",
    .types = "type_vocab_size",
    .activation = "hidden_act",
    .norm_eps = "layer_norm_eps",
    .hidden_dropout = "hidden_dropout_prob",
    .attention_dropout = "attention_probs_dropout_prob",
    .classifier_dropout = "cls_dropout",
    .pooler_dropout = "pooler_dropout",
    .pooler_activation = "pooler_hidden_act",
    .norm_eps_default = 1e-7,
    .classifier_dropout_default = -1,
    .disentangled = true,
};

#define P "deberta."
#define LAYER_P P "encoder.layer.#."

static const struct tensor_rule rules[] = {
    EMBEDDINGS(P),
    RULE(SLOT_RELATIVE_TABLE, PART_EMBEDDINGS, PARAM_EMBEDDING, EXTENT_RELATIVE_TABLE,
         EXTENT_HIDDEN, "embeddings.relative.weight", P "encoder.rel_embeddings.weight"),
    RULE(SLOT_RELATIVE_GAMMA, PART_EMBEDDINGS, PARAM_NORM, EXTENT_HIDDEN, EXTENT_NONE,
         "embeddings.relative.norm.weight", P "encoder.LayerNorm.weight"),
    RULE(SLOT_RELATIVE_BETA, PART_EMBEDDINGS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE,
         "embeddings.relative.norm.bias", P "encoder.LayerNorm.bias"),
    RULE(SLOT_CONV_WEIGHT, PART_EMBEDDINGS, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_CONV, "conv.weight",
         P "encoder.conv.conv.weight"),
    RULE(SLOT_CONV_BIAS, PART_EMBEDDINGS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "conv.bias",
         P "encoder.conv.conv.bias"),
    RULE(SLOT_CONV_GAMMA, PART_EMBEDDINGS, PARAM_NORM, EXTENT_HIDDEN, EXTENT_NONE,
         "conv.norm.weight", P "encoder.conv.LayerNorm.weight"),
    RULE(SLOT_CONV_BETA, PART_EMBEDDINGS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE, "conv.norm.bias",
         P "encoder.conv.LayerNorm.bias"),
    BLOCK(LAYER_P "attention.self.query_proj", LAYER_P "attention.self.key_proj",
          LAYER_P "attention.self.value_proj", LAYER_P "attention.output.dense",
          LAYER_P "attention.output.LayerNorm", LAYER_P "intermediate.dense",
          LAYER_P "output.dense", LAYER_P "output.LayerNorm"),
    LAYER(SLOT_RELATIVE_WEIGHT, PARAM_WEIGHT, EXTENT_RELATIVE, EXTENT_HIDDEN,
          "attention.relative.weight", LAYER_P "attention.self.pos_query_proj.weight",
          LAYER_P "attention.self.pos_key_proj.weight"),
    LAYER(SLOT_RELATIVE_BIAS, PARAM_BIAS, EXTENT_RELATIVE, EXTENT_NONE, "attention.relative.bias",
          LAYER_P "attention.self.pos_query_proj.bias", LAYER_P "attention.self.pos_key_proj.bias"),
    HEAD("pooler.dense", "classifier"),
};

static const char *const ignored[] = {
    "embeddings.position_ids",
    "embeddings.position_embeddings.",
    "encoder.LayerNorm.", /* where there are no relative positions */
    "pooler.dense.",
    "cls.",
    "lm_predictions.",
    "mask_predictions.",
    "qa_outputs.",
    NULL,
};

const struct family family_deberta_v2 = {
    .model_type = "deberta-v2",
    .class_name = "DebertaV2ForSequenceClassification",
    .classifier = "classifier",
    .prefix = P,
    .pooler = {.activation = ACTIVATION_GELU},
    .config = &names,
    .rules = rules,
    .count = COUNT(rules),
    .ignored = ignored,
};
