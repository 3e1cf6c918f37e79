/*
 * roberta.c - RoBERTa, XLM-RoBERTa and CamemBERT: BERT's encoder with positions that begin behind
 * the padding's, and a head of its own (transformers' RobertaClassificationHead). All three keep
 * the prefix "roberta." on disk.
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
    .classifier_dropout = "classifier_dropout",
    .types_default = 2,
    .pad_default = 1,
    .norm_eps_default = 1e-12,
    .classifier_dropout_default = -1,
};

static const struct tensor_rule rules[] = {
    EMBEDDINGS("roberta."),
    BERT_BLOCK("roberta."),
    HEAD("classifier.dense", "classifier.out_proj"),
};

static const char *const ignored[] = {
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.dense.",
    "classifier.dense.",
    "classifier.weight", /* of tokens, of choices */
    "classifier.bias",
    "lm_head.",
    "qa_outputs.",
    NULL,
};

#define ROBERTA(type, class)                                                                       \
    {                                                                                              \
        .model_type = type, .class_name = class, .classifier = "classifier.out_proj",              \
        .prefix = "roberta.", .positions_after_pad = true,                                         \
        .pooler = {.activation = ACTIVATION_TANH, .dropout_first = true}, .config = &names,        \
        .rules = rules, .count = COUNT(rules), .ignored = ignored,                                 \
    }

const struct family family_roberta = ROBERTA("roberta", "RobertaForSequenceClassification");
const struct family family_xlm_roberta =
    ROBERTA("xlm-roberta", "XLMRobertaForSequenceClassification");
const struct family family_camembert = ROBERTA("camembert", "CamembertForSequenceClassification");
