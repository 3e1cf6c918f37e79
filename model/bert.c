/* bert.c - BERT, with the names that transformers' BertForSequenceClassification saves. */
#include "model/family_rules.h"

const struct config_names bert_config_names = {
    .hidden = "hidden_size",
    .layers = "num_hidden_layers",
    .heads = "num_attention_heads",
    .intermediate = "intermediate_size",
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
    EMBEDDINGS("bert."),
    BERT_BLOCK("bert."),
    HEAD("bert.pooler.dense", "classifier"),
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
    .class_name = "BertForSequenceClassification",
    .classifier = "classifier",
    .prefix = "bert.",
    .pooler = {.activation = ACTIVATION_TANH},
    .config = &bert_config_names,
    .rules = rules,
    .count = COUNT(rules),
    .ignored = ignored,
};
