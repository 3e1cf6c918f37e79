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

/* tanh only where the model can apply it. */
static enum status read_activation(const json_t *config, const char *key, const char *where,
                                   const char *fallback, bool tanh_too, enum activation *out)
{
    static const struct {
        const char *name;
        enum activation kind;
    } known[] = {
        {"gelu", ACTIVATION_GELU},           {"gelu_python", ACTIVATION_GELU},
        {"gelu_new", ACTIVATION_GELU_TANH},  {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
        {"gelu_fast", ACTIVATION_GELU_TANH}, {"relu", ACTIVATION_RELU},
        {"tanh", ACTIVATION_TANH},
    };
    const char *name;
    TRY(json_text_or(config, key, where, fallback, &name));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0 && (tanh_too || known[i].kind != ACTIVATION_TANH)) {
            *out = known[i].kind;
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_UNAVAILABLE,
                       "%s: \"%s\" is \"%.40s\", cohort has gelu, gelu_new, gelu_fast, "
                       "gelu_pytorch_tanh, gelu_python%s",
                       where, key, name, tanh_too ? ", relu and tanh" : " and relu");
}

/* "p2c|c2p", or a list of such names. */
static enum status read_position_types(const json_t *config, const char *where,
                                       struct relative_config *r)
{
    static const char key[] = "pos_att_type";
    const json_t *value = json_object_get(config, key);
    const bool list = json_is_array(value);
    size_t n = list ? json_array_size(value) : 1;
    if (value == NULL || json_is_null(value))
        n = 0;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(list ? json_array_get(value, i) : value);
        if (text == NULL)
            return status_fail(STATUS_FORMAT, "%s: \"%s\" is neither text nor a list of it", where,
                               key);
        for (const char *p = text; *p != '\0';) {
            const size_t size = strcspn(p, "|"), skip = strspn(p, " ");
            const char *name = p + skip;
            if (size >= skip + 3 && strncmp(name, "c2p", 3) == 0)
                r->content_to_position = true;
            else if (size >= skip + 3 && strncmp(name, "p2c", 3) == 0)
                r->position_to_content = true;
            else
                return status_fail(STATUS_UNAVAILABLE,
                                   "%s: \"%s\" has \"%.*s\", cohort has c2p and p2c", where, key,
                                   (int)(size < 40 ? size : 40), p);
            p += size + (p[size] == '|');
        }
    }
    return STATUS_OK;
}

/* DeBERTa's positions. */
static enum status read_relative(const json_t *config, const char *where, struct encoder_config *c)
{
    struct relative_config *r = &c->relative;
    bool relative, biased;
    int64_t most, buckets;
    const char *norm;
    TRY(json_bool_or(config, "position_biased_input", where, true, &biased));
    c->any_length = !biased;
    TRY(json_bool_or(config, "relative_attention", where, false, &relative));
    TRY(read_position_types(config, where, r));
    if (!relative) {
        if (r->content_to_position || r->position_to_content)
            return status_fail(STATUS_UNAVAILABLE,
                               "%s: \"pos_att_type\" is given and \"relative_attention\" is false, "
                               "wanted both or neither",
                               where);
        return STATUS_OK;
    }
    if (!r->content_to_position && !r->position_to_content)
        return status_fail(STATUS_UNAVAILABLE,
                           "%s: \"relative_attention\" is true and \"pos_att_type\" is empty, "
                           "wanted c2p, p2c or both",
                           where);
    TRY(json_int_or(config, "max_relative_positions", where, -1, MAX_POSITIONS, -1, &most));
    r->max_distance = most < 1 ? c->max_positions : (int)most;
    TRY(json_int_or(config, "position_buckets", where, -1, MAX_POSITIONS, -1, &buckets));
    r->buckets = buckets < 1 ? 0 : (int)buckets;
    r->span = r->buckets > 0 ? r->buckets : r->max_distance;
    if (r->buckets > 0 && (r->buckets < 4 || r->max_distance - 1 <= r->buckets / 2))
        return status_fail(
            STATUS_UNAVAILABLE,
            "%s: \"position_buckets\" is %d with distances up to %d, wanted at least "
            "4 and at most twice the distance",
            where, r->buckets, r->max_distance);
    TRY(json_bool_or(config, "share_att_key", where, false, &r->shared));
    TRY(json_text_or(config, "norm_rel_ebd", where, "none", &norm));
    r->norm = strcmp(norm, "layer_norm") == 0;
    if (!r->norm && strcmp(norm, "none") != 0)
        return status_fail(STATUS_UNAVAILABLE,
                           "%s: \"norm_rel_ebd\" is \"%.40s\", cohort has layer_norm and none",
                           where, norm);
    return STATUS_OK;
}

/* DeBERTa-v2's convolution, and what its pooler may say. */
static enum status read_deberta(const json_t *config, const char *where, struct encoder_config *c)
{
    int64_t taps, groups, size;
    TRY(read_relative(config, where, c));
    TRY(json_int_or(config, "conv_kernel_size", where, 0, 255, 0, &taps));
    TRY(json_int_or(config, "conv_groups", where, 1, INT_MAX, 1, &groups));
    if (taps > 0 && (taps % 2 == 0 || groups != 1))
        return status_fail(STATUS_UNAVAILABLE,
                           "%s: a convolution of %lld taps in %lld groups, cohort has odd numbers "
                           "of taps in one group",
                           where, (long long)taps, (long long)groups);
    c->conv_taps = (int)taps;
    TRY(read_activation(config, "conv_act", where, "tanh", true, &c->conv_activation));
    static const char *const sizes[] = {"pooler_hidden_size", "embedding_size"};
    for (int i = 0; i < 2; i++) {
        TRY(json_int_or(config, sizes[i], where, 1, MAX_HIDDEN, c->hidden, &size));
        if (size != c->hidden)
            return status_fail(
                STATUS_UNAVAILABLE,
                "%s: \"%s\" is %lld, cohort has DeBERTa with that of \"hidden_size\","
                " %d",
                where, sizes[i], (long long)size, c->hidden);
    }
    TRY(json_int_or(config, "attention_head_size", where, 1, MAX_HIDDEN, c->hidden / c->heads,
                    &size));
    if (size * c->heads != c->hidden)
        return status_fail(
            STATUS_UNAVAILABLE,
            "%s: %d heads of \"attention_head_size\" %lld, cohort wants them to make "
            "up \"hidden_size\", %d",
            where, c->heads, (long long)size, c->hidden);
    return STATUS_OK;
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
    TRY(json_bool_or(config, "sinusoidal_pos_embds", where, false, &c.sinusoidal));
    c.sinusoidal = c.sinusoidal && family == &family_distilbert;
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
    TRY(read_activation(config, names->activation, where, "gelu", false, &c.activation));
    c.pooler_activation = family->pooler.activation;
    c.pooler_dropout = family->pooler.dropout_first ? -1.0f : 0.0f;
    if (names->pooler_dropout != NULL)
        TRY(read_dropout(config, names->pooler_dropout, where, 0, &c.pooler_dropout));
    if (names->pooler_activation != NULL)
        TRY(read_activation(config, names->pooler_activation, where, "gelu", true,
                            &c.pooler_activation));
    if (names->disentangled)
        TRY(read_deberta(config, where, &c));
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
