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

static enum status read_activation(const json_t *config, const char *key, const char *where,
                                   enum activation *out)
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
    TRY(json_text_or(config, key, where, "gelu", &name));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].kind;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_UNAVAILABLE,
                       "%s: \"%s\" is \"%.40s\", cohort has gelu, gelu_new, gelu_fast, "
                       "gelu_pytorch_tanh, gelu_python and relu",
                       where, key, name);
}

static enum status check_kind(const json_t *config, const char *where, struct encoder_config *out)
{
    const char *type, *positions;
    bool decoder, cross;
    TRY(json_text(config, "model_type", where, &type));
    if (family_find(type) == NULL)
        return status_fail(STATUS_UNAVAILABLE, "%s: \"model_type\" is \"%.40s\", cohort has %s",
                           where, type, family_list());
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
    const struct family *family = family_find(c.model_type);
    const struct config_names *names = family->config;
    TRY(read_size(config, "vocab_size", where, 1, MAX_VOCAB, &c.vocab_size));
    TRY(read_size(config, names->hidden, where, 1, MAX_HIDDEN, &c.hidden));
    TRY(read_size(config, names->layers, where, 1, MAX_LAYERS, &c.layers));
    TRY(read_size(config, names->heads, where, 1, c.hidden, &c.heads));
    TRY(read_size(config, names->intermediate, where, 1, 16 * MAX_HIDDEN, &c.intermediate));
    TRY(read_size(config, "max_position_embeddings", where, 1, MAX_POSITIONS, &c.max_positions));
    if (c.hidden % c.heads != 0)
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is %d, wanted a multiple of \"%s\", %d",
                           where, names->hidden, c.hidden, names->heads, c.heads);
    c.embedding = c.hidden;
    if (names->embedding != NULL)
        TRY(read_size(config, names->embedding, where, 1, MAX_HIDDEN, &c.embedding));
    if (names->types != NULL) {
        TRY(json_int_or(config, names->types, where, 0, MAX_TYPES, names->types_default, &value));
        c.type_vocab = (int)value;
    }
    TRY(json_int_or(config, "pad_token_id", where, INT_MIN, INT_MAX, names->pad_default, &value));
    c.pad_id = (int)value;
    if (family->positions_after_pad) {
        if (c.pad_id < 0 || c.pad_id >= c.max_positions - 1)
            return status_fail(STATUS_FORMAT,
                               "%s: \"pad_token_id\" is %d, wanted 0 to %d: positions begin behind "
                               "it",
                               where, c.pad_id, c.max_positions - 2);
        c.first_position = c.pad_id + 1;
    }

    real = names->norm_eps_default;
    if (names->norm_eps != NULL)
        TRY(json_real_or(config, names->norm_eps, where, names->norm_eps_default, &real));
    if (!(real > 0 && real < 1))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is %g, wanted a number between 0 and 1",
                           where, names->norm_eps, real);
    c.norm_eps = (float)real;
    TRY(json_real_or(config, "initializer_range", where, 0.02, &real));
    if (!(real >= 0 && real <= 10))
        return status_fail(STATUS_FORMAT,
                           "%s: \"initializer_range\" is %g, wanted a number from 0 to 10", where,
                           real);
    c.initializer_range = (float)real;
    TRY(read_dropout(config, names->hidden_dropout, where, 0.1, &c.hidden_dropout));
    TRY(read_dropout(config, names->attention_dropout, where, 0.1, &c.attention_dropout));
    TRY(read_dropout(config, names->classifier_dropout, where, names->classifier_dropout_default,
                     &c.classifier_dropout));
    TRY(read_activation(config, names->activation, where, &c.activation));
    *out = c;
    return STATUS_OK;
}

const char *encoder_class_name(const struct encoder_config *encoder)
{
    const struct family *family = family_find(encoder->model_type);
    return family == NULL ? "" : family->class_name;
}

const char *encoder_classifier_name(const struct encoder_config *encoder)
{
    const struct family *family = family_find(encoder->model_type);
    return family == NULL ? "" : family->classifier;
}
