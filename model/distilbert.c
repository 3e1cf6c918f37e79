/*
 * distilbert.c - DistilBERT (transformers' DistilBertForSequenceClassification): BERT's block under
 * other names, no token types, a ReLU in the head.
 */
#include "model/family_rules.h"

#define FILE_LAYER "distilbert.transformer.layer.#."

static const struct config_names names = {
    .hidden = "dim",
    .layers = "n_layers",
    .heads = "n_heads",
    .intermediate = "hidden_dim",
    .activation = "activation",
    .hidden_dropout = "dropout",
    .attention_dropout = "attention_dropout",
    .classifier_dropout = "seq_classif_dropout",
    .norm_eps_default = 1e-12,
    .classifier_dropout_default = 0.2,
};

static const struct tensor_rule rules[] = {
    EMBEDDINGS_WITHOUT_TYPES("distilbert."),
    BLOCK(FILE_LAYER "attention.q_lin", FILE_LAYER "attention.k_lin", FILE_LAYER "attention.v_lin",
          FILE_LAYER "attention.out_lin", FILE_LAYER "sa_layer_norm", FILE_LAYER "ffn.lin1",
          FILE_LAYER "ffn.lin2", FILE_LAYER "output_layer_norm"),
    HEAD("pre_classifier", "classifier"),
};

static const char *const ignored[] = {
    "embeddings.position_ids",
    "pre_classifier.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "qa_outputs.",
    NULL,
};

const struct family family_distilbert = {
    .model_type = "distilbert",
    .class_name = "DistilBertForSequenceClassification",
    .classifier = "classifier",
    .prefix = "distilbert.",
    .attention_output_whole = true,
    .pooler = {.activation = ACTIVATION_RELU},
    .config = &names,
    .rules = rules,
    .count = COUNT(rules),
    .ignored = ignored,
};
