/*
 * config.c - an encoder from Hugging Face's config.json; see model.h.
 *
 * Sizes must be there: guessing them from a model_type would load weights of the wrong shape or,
 * worse, train a model nobody asked for. What transformers itself leaves out when it is the default
 * has that default here.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"
#include "model/model.h"

enum {
    MAX_VOCAB = 1 << 24,
    MAX_HIDDEN = 1 << 16,
    MAX_LAYERS = 1024,
    MAX_POSITIONS = 1 << 22,
    MAX_TYPES = 1 << 16
};

/* A size that must be given: null counts as missing. */
static enum status read_size(const json_t *config, const char *key, const char *where, int64_t low,
                             int64_t high, int *out)
{
    int64_t value;
    if (json_is_null(json_object_get(config, key)))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is null, wanted a whole number", where, key);
    TRY(json_int(config, key, where, low, high, &value));
    *out = (int)value;
    return STATUS_OK;
}

const char *pooling_name(enum pooling pooling)
{
    static const char *const names[] = {"cls", "pooler", "mean", "max"};
    return names[pooling];
}

const char *precision_name(enum precision precision)
{
    static const char *const names[] = {"fp32", "tf32", "bf16", "fp16"};
    return names[precision];
}

/* A probability that 16 bits can tell from 1; fallback, which may lie outside, where the key is
 * missing or null. */
static enum status read_dropout(const json_t *config, const char *key, const char *where,
                                double fallback, float *out)
{
    double value;
    TRY(json_real_or(config, key, where, fallback, &value));
    const json_t *given = json_object_get(config, key);
    if (given != NULL && !json_is_null(given) && (value < 0 || value > 0.999))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is %g, wanted 0 to 0.999", where, key, value);
    *out = (float)value;
    return STATUS_OK;
}

static enum status read_activation(const json_t *config, const char *where, enum activation *out)
{
    static const struct {
        const char *name;
        enum activation kind;
    } known[] = {
        {"gelu", ACTIVATION_GELU},           {"gelu_python", ACTIVATION_GELU},
        {"gelu_new", ACTIVATION_GELU_TANH},  {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
        {"gelu_fast", ACTIVATION_GELU_TANH}, {"relu", ACTIVATION_RELU},
    };
    const char *name;
    TRY(json_text_or(config, "hidden_act", where, "gelu", &name));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].kind;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_UNAVAILABLE,
                       "%s: \"hidden_act\" is \"%.40s\", cohort has gelu, gelu_new, gelu_fast, "
                       "gelu_pytorch_tanh, gelu_python and relu",
                       where, name);
}

static enum status check_kind(const json_t *config, const char *where, struct encoder_config *out)
{
    const char *type, *positions;
    bool decoder, cross;
    TRY(json_text(config, "model_type", where, &type));
    if (family_find(type) == NULL)
        return status_fail(STATUS_UNAVAILABLE, "%s: \"model_type\" is \"%.40s\", cohort has bert",
                           where, type);
    (void)snprintf(out->model_type, sizeof out->model_type, "%s", type);
    TRY(json_text_or(config, "position_embedding_type", where, "absolute", &positions));
    if (strcmp(positions, "absolute") != 0)
        return status_fail(STATUS_UNAVAILABLE,
                           "%s: \"position_embedding_type\" is \"%.40s\", cohort has absolute",
                           where, positions);
    TRY(json_bool_or(config, "is_decoder", where, false, &decoder));
    TRY(json_bool_or(config, "add_cross_attention", where, false, &cross));
    if (decoder || cross)
        return status_fail(STATUS_UNAVAILABLE, "%s: \"%s\" is true, cohort has encoders only",
                           where, decoder ? "is_decoder" : "add_cross_attention");
    return STATUS_OK;
}

enum status encoder_config_read(const json_t *config, const char *where, struct encoder_config *out)
{
    struct encoder_config c = {0};
    int64_t value;
    double real;
    *out = (struct encoder_config){0};
    if (!json_is_object(config))
        return status_fail(STATUS_FORMAT, "%s: not a JSON object", where);
    TRY(check_kind(config, where, &c));
    TRY(read_size(config, "vocab_size", where, 1, MAX_VOCAB, &c.vocab_size));
    TRY(read_size(config, "hidden_size", where, 1, MAX_HIDDEN, &c.hidden));
    TRY(read_size(config, "num_hidden_layers", where, 1, MAX_LAYERS, &c.layers));
    TRY(read_size(config, "num_attention_heads", where, 1, c.hidden, &c.heads));
    TRY(read_size(config, "intermediate_size", where, 1, 16 * MAX_HIDDEN, &c.intermediate));
    TRY(read_size(config, "max_position_embeddings", where, 1, MAX_POSITIONS, &c.max_positions));
    if (c.hidden % c.heads != 0)
        return status_fail(
            STATUS_FORMAT,
            "%s: \"hidden_size\" is %d, wanted a multiple of \"num_attention_heads\", %d", where,
            c.hidden, c.heads);
    TRY(json_int_or(config, "type_vocab_size", where, 0, MAX_TYPES, 2, &value));
    c.type_vocab = (int)value;
    TRY(json_int_or(config, "pad_token_id", where, INT_MIN, INT_MAX, 0, &value));
    c.pad_id = (int)value;

    TRY(json_real_or(config, "layer_norm_eps", where, 1e-12, &real));
    if (!(real > 0 && real < 1))
        return status_fail(STATUS_FORMAT,
                           "%s: \"layer_norm_eps\" is %g, wanted a number between 0 and 1", where,
                           real);
    c.norm_eps = (float)real;
    TRY(json_real_or(config, "initializer_range", where, 0.02, &real));
    if (!(real >= 0 && real <= 10))
        return status_fail(STATUS_FORMAT,
                           "%s: \"initializer_range\" is %g, wanted a number from 0 to 10", where,
                           real);
    c.initializer_range = (float)real;
    TRY(read_dropout(config, "hidden_dropout_prob", where, 0.1, &c.hidden_dropout));
    TRY(read_dropout(config, "attention_probs_dropout_prob", where, 0.1, &c.attention_dropout));
    TRY(read_dropout(config, "classifier_dropout", where, -1, &c.classifier_dropout));
    TRY(read_activation(config, where, &c.activation));
    *out = c;
    return STATUS_OK;
}
