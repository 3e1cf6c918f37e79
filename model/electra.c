/*
 * electra.c - ELECTRA (transformers' ElectraForSequenceClassification, of a discriminator): BERT's
 * encoder, embeddings that may be narrower than it and are then projected, a head with GELU.
 */
#include "model/family_rules.h"

static const struct config_names names = {
    .hidden = "hidden_size",
    .layers = "num_hidden_layers",
    .heads = "num_attention_heads",
    .intermediate = "intermediate_size",
    .embedding = "embedding_size",
    .types = "type_vocab_size",
    .activation = "hidden_act",
    .norm_eps = "layer_norm_eps",
    .hidden_dropout = "hidden_dropout_prob",
    .attention_dropout = "attention_probs_dropout_prob",
    .classifier_dropout = "classifier_dropout",
    .types_default = 2,
    .norm_eps_default = 1e-12,
    .classifier_dropout_default = -1,
};

static const struct tensor_rule rules[] = {
    EMBEDDINGS("electra."),
    RULE(SLOT_EMBED_PROJECT_WEIGHT, PART_EMBEDDINGS, PARAM_WEIGHT, EXTENT_HIDDEN, EXTENT_EMBEDDING,
         "embeddings.project.weight", "electra.embeddings_project.weight"),
    RULE(SLOT_EMBED_PROJECT_BIAS, PART_EMBEDDINGS, PARAM_BIAS, EXTENT_HIDDEN, EXTENT_NONE,
         "embeddings.project.bias", "electra.embeddings_project.bias"),
    BERT_BLOCK("electra."),
    HEAD("classifier.dense", "classifier.out_proj"),
};

static const char *const ignored[] = {
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "classifier.dense.",
    "classifier.weight", /* of tokens, of choices */
    "classifier.bias",
    "sequence_summary.", /* of choices */
    "discriminator_predictions.",
    "generator_predictions.",
    "generator_lm_head.",
    "qa_outputs.",
    NULL,
};

const struct family family_electra = {
    .model_type = "electra",
    .class_name = "ElectraForSequenceClassification",
    .classifier = "classifier.out_proj",
    .prefix = "electra.",
    .pooler = {.activation = ACTIVATION_GELU, .dropout_first = true},
    .config = &names,
    .rules = rules,
    .count = COUNT(rules),
    .ignored = ignored,
};
