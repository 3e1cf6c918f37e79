/* test_params.c - config.json, the layout of the flat space, and the names of tensors on disk. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "model/family.h"
#include "model/model.h"
#include "model/model_impl.h"
#include "tests/support/support.h"

static const char small[] =
    "{\"model_type\":\"bert\",\"vocab_size\":11,\"hidden_size\":12,\"num_hidden_layers\":2,\"num_attention_heads\":3,"
    "\"intermediate_size\":7,\"max_position_embeddings\":9}";

/* The small configuration with one key set to a JSON value (or removed: value NULL), read. */
static enum status read_with(const char *key, const char *value, struct encoder_config *out)
{
    json_t *config, *set;
    assert_ok(json_parse(small, strlen(small), "small", &config));
    if (key != NULL && value == NULL)
        json_object_del(config, key);
    else if (key != NULL) {
        set = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(set);
        json_object_set_new(config, key, set);
    }
    enum status st = encoder_config_read(config, "some/config.json", out);
    json_decref(config);
    return st;
}

static void test_config_defaults(void **state)
{
    (void)state;
    struct encoder_config c;
    assert_ok(read_with(NULL, NULL, &c));
    assert_string_equal(c.model_type, "bert");
    assert_int_equal(c.vocab_size, 11);
    assert_int_equal(c.hidden, 12);
    assert_int_equal(c.layers, 2);
    assert_int_equal(c.heads, 3);
    assert_int_equal(c.intermediate, 7);
    assert_int_equal(c.max_positions, 9);
    assert_int_equal(c.type_vocab, 2);
    assert_int_equal(c.pad_id, 0);
    assert_int_equal(c.activation, ACTIVATION_GELU);
    assert_true(c.norm_eps == 1e-12f && c.initializer_range == 0.02f);
    assert_true(c.hidden_dropout == 0.1f && c.attention_dropout == 0.1f && c.classifier_dropout == -1);
    assert_ok(read_with("classifier_dropout", "null", &c));
    assert_true(c.classifier_dropout == -1);
    assert_ok(read_with("classifier_dropout", "0", &c));
    assert_true(c.classifier_dropout == 0);
    assert_ok(read_with("hidden_act", "\"gelu_new\"", &c));
    assert_int_equal(c.activation, ACTIVATION_GELU_TANH);
    assert_ok(read_with("hidden_act", "\"relu\"", &c));
    assert_int_equal(c.activation, ACTIVATION_RELU);
    assert_ok(read_with("position_embedding_type", "\"absolute\"", &c));
    assert_ok(read_with("pad_token_id", "3", &c));
    assert_int_equal(c.pad_id, 3);
    assert_ok(read_with("layer_norm_eps", "1e-5", &c));
    assert_true(c.norm_eps == 1e-5f);
}

/* What differs from BERT: where positions begin, names of values, defaults, widths of embeddings. */
static void test_config_families(void **state)
{
    (void)state;
    struct encoder_config c;
    json_t *config;
    assert_ok(read_with("model_type", "\"roberta\"", &c));
    assert_int_equal(c.pad_id, 1);
    assert_int_equal(c.first_position, 2);
    assert_string_equal(encoder_class_name(&c), "RobertaForSequenceClassification");
    assert_string_equal(encoder_classifier_name(&c), "classifier.out_proj");
    assert_ok(read_with("model_type", "\"xlm-roberta\"", &c));
    assert_string_equal(encoder_class_name(&c), "XLMRobertaForSequenceClassification");
    assert_ok(read_with("model_type", "\"camembert\"", &c));
    assert_string_equal(encoder_class_name(&c), "CamembertForSequenceClassification");
    assert_fails(read_with("model_type", "\"electra\"", &c), STATUS_FORMAT, "embedding_size");

    static const char distil[] = "{\"model_type\":\"distilbert\",\"vocab_size\":11,\"dim\":12,\"n_layers\":2,"
                                 "\"n_heads\":3,\"hidden_dim\":7,\"max_position_embeddings\":9,\"dropout\":0.3}";
    assert_ok(json_parse(distil, strlen(distil), "distil", &config));
    assert_ok(encoder_config_read(config, "some/config.json", &c));
    assert_int_equal(c.type_vocab, 0);
    assert_int_equal(c.intermediate, 7);
    assert_int_equal(c.embedding, 12);
    assert_true(c.hidden_dropout == 0.3f && c.classifier_dropout == 0.2f && c.norm_eps == 1e-12f);
    json_object_set_new(config, "n_heads", json_integer(5));
    assert_fails(encoder_config_read(config, "some/config.json", &c), STATUS_FORMAT, "\"dim\" is 12, wanted a multiple of \"n_heads\"");
    json_object_set_new(config, "model_type", json_string("roberta")); /* lacks hidden_size */
    assert_fails(encoder_config_read(config, "some/config.json", &c), STATUS_FORMAT, "hidden_size");
    json_decref(config);
    config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", "roberta", "vocab_size", 11, "hidden_size",
                       12, "num_hidden_layers", 2, "num_attention_heads", 3, "intermediate_size", 7,
                       "max_position_embeddings", 9, "pad_token_id", 8);
    assert_fails(encoder_config_read(config, "some/config.json", &c), STATUS_FORMAT, "\"pad_token_id\" is 8, wanted 0 to 7");
    json_decref(config);
}

static json_t *deberta_config(void)
{
    static const char text[] =
        "{\"model_type\":\"deberta-v2\",\"vocab_size\":11,\"hidden_size\":12,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":3,\"intermediate_size\":7,\"max_position_embeddings\":40,\"relative_attention\":true,"
        "\"pos_att_type\":\"p2c| c2p\",\"position_buckets\":8,\"position_biased_input\":false,\"type_vocab_size\":0,"
        "\"norm_rel_ebd\":\"layer_norm\",\"share_att_key\":true}";
    json_t *config;
    assert_ok(json_parse(text, strlen(text), "deberta", &config));
    return config;
}

static void test_config_deberta(void **state)
{
    (void)state;
    struct encoder_config c;
    json_t *config = deberta_config();
    assert_ok(encoder_config_read(config, "some/config.json", &c));
    assert_string_equal(encoder_class_name(&c), "DebertaV2ForSequenceClassification");
    assert_true(c.any_length && c.relative.shared && c.relative.norm && c.relative.content_to_position &&
                c.relative.position_to_content);
    assert_int_equal(c.relative.span, 8);
    assert_int_equal(c.relative.max_distance, 40);
    assert_int_equal(c.conv_taps, 0);
    assert_int_equal(c.pooler_activation, ACTIVATION_GELU);
    assert_true(c.norm_eps == 1e-7f && c.pooler_dropout == 0);
    json_object_set_new(config, "position_buckets", json_integer(-1));
    json_object_set_new(config, "max_relative_positions", json_integer(16));
    json_object_set_new(config, "pos_att_type", json_pack("[s]", "c2p"));
    json_object_set_new(config, "conv_kernel_size", json_integer(3));
    assert_ok(encoder_config_read(config, "some/config.json", &c));
    assert_int_equal(c.relative.span, 16);
    assert_int_equal(c.relative.buckets, 0);
    assert_true(!c.relative.position_to_content);
    assert_int_equal(c.conv_taps, 3);
    assert_int_equal(c.conv_activation, ACTIVATION_TANH);
    json_decref(config);

    static const struct {
        const char *key, *value;
        const char *text;
    } refused[] = {
        {"pos_att_type", "\"p2p\"", "\"pos_att_type\" has \"p2p\", cohort has c2p and p2c"},
        {"pos_att_type", "7", "\"pos_att_type\" is neither text nor a list"},
        {"pos_att_type", "null", "\"pos_att_type\" is empty"},
        {"relative_attention", "false", "\"relative_attention\" is false"},
        {"position_buckets", "3", "\"position_buckets\" is 3"},
        {"position_buckets", "200", "\"position_buckets\" is 200"},
        {"norm_rel_ebd", "\"batch_norm\"", "\"norm_rel_ebd\" is \"batch_norm\""},
        {"conv_kernel_size", "4", "a convolution of 4 taps in 1 groups"},
        {"embedding_size", "6", "\"embedding_size\" is 6"},
        {"pooler_hidden_size", "24", "\"pooler_hidden_size\" is 24"},
        {"pooler_hidden_act", "\"mish\"", "\"pooler_hidden_act\" is \"mish\", cohort has gelu"},
        {"attention_head_size", "8", "\"attention_head_size\" 8"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        json_t *value = json_loads(refused[i].value, JSON_DECODE_ANY, NULL);
        config = deberta_config();
        json_object_set_new(config, refused[i].key, value);
        enum status st = encoder_config_read(config, "some/config.json", &c);
        assert_true(st == STATUS_UNAVAILABLE || st == STATUS_FORMAT);
        assert_fails(st, st, refused[i].text);
        json_decref(config);
    }
}

/* The tensors of the file, by name and shape: projections of the table, and a convolution's three dimensions. */
static void test_layout_deberta(void **state)
{
    (void)state;
    struct encoder_config c;
    struct param_table table;
    struct param_index index;
    const struct head_config head = {.pooling = POOL_POOLER, .outputs = 2};
    json_t *config = deberta_config();
    bool skip;
    json_object_set_new(config, "conv_kernel_size", json_integer(3));
    json_object_set_new(config, "share_att_key", json_false());
    json_object_set_new(config, "pos_att_type", json_string("c2p"));
    assert_ok(encoder_config_read(config, "some/config.json", &c));
    assert_ok(params_build(family_find("deberta-v2"), &c, &head, &table, &index));
    const struct param_file_name *conv = params_match(&table, "deberta.encoder.conv.conv.weight", &skip);
    assert_non_null(conv);
    assert_int_equal(conv->rank, 3);
    assert_int_equal(conv->shape[0], 12);
    assert_int_equal(conv->shape[1], 12);
    assert_int_equal(conv->shape[2], 3);
    assert_int_equal(conv->elements, 12 * 12 * 3);
    const struct param_file_name *key = params_match(&table, "encoder.layer.1.attention.self.pos_key_proj.weight", &skip);
    assert_non_null(key);
    assert_int_equal(key->shape[0], 12);
    assert_null(params_match(&table, "deberta.encoder.layer.1.attention.self.pos_query_proj.weight", &skip));
    assert_null(params_match(&table, "deberta.embeddings.position_embeddings.weight", &skip));
    assert_true(skip);
    assert_int_equal(params_match(&table, "deberta.encoder.rel_embeddings.weight", &skip)->shape[0], 16);
    params_release(&table);
    json_decref(config);
}

/* transformers' make_log_bucket_position(distance, 8, 40), clamped to slots of -8 .. 7: computed with it once. */
static void test_slots_of_distances(void **state)
{
    static const int wanted[][2] = {{0, 0}, {1, 1}, {3, 3}, {4, 4}, {5, 5}, {8, 5}, {9, 6}, {18, 6}, {19, 7}, {39, 7}, {40, 7},
                                    {1000, 7}, {-1, -1}, {-4, -4}, {-5, -5}, {-8, -5}, {-9, -6}, {-19, -7}, {-39, -7},
                                    {-40, -8}, {-1000, -8}};
    const struct relative_config config = {.span = 8, .buckets = 8, .max_distance = 40};
    struct distances d;
    bool seen[16] = {false};
    (void)state;
    assert_ok(distances_make(&config, &d));
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        int distance = wanted[i][0];
        distance = distance > d.reach ? d.reach : distance < -d.reach ? -d.reach : distance;
        const int line = d.line[d.reach + distance], slot = distance_slot(line, d.span);
        if (slot != 8 + wanted[i][1])
            fail_msg("distance %d: slot %d, wanted %d", wanted[i][0], slot, 8 + wanted[i][1]);
    }
    for (int i = 0; i <= 2 * d.reach; i++)
        seen[d.line[i]] = true;
    for (int line = 0; line < 16; line++)
        if (!seen[line])
            fail_msg("line %d of the table is no distance's", line);
    assert_int_equal(distances_lines(&d, 1), 1);
    assert_int_equal(distances_lines(&d, 2), 3);
    assert_int_equal(distances_lines(&d, 5), 9);
    assert_int_equal(distances_lines(&d, 10), 13);
    assert_int_equal(distances_lines(&d, 41), 16);
    mem_free((void *)(uintptr_t)d.line);
}

static void test_config_refused(void **state)
{
    (void)state;
    struct encoder_config c;
    static const struct {
        const char *key, *value;
        enum status st;
        const char *text;
    } cases[] = {
        {"model_type", "\"modernbert\"", STATUS_UNAVAILABLE, "\"model_type\" is \"modernbert\", cohort has bert, distilbert"},
        {"model_type", NULL, STATUS_FORMAT, "\"model_type\" is missing"},
        {"model_type", "7", STATUS_FORMAT, "model_type"},
        {"position_embedding_type", "\"relative_key\"", STATUS_UNAVAILABLE, "relative_key"},
        {"is_decoder", "true", STATUS_UNAVAILABLE, "is_decoder"},
        {"hidden_act", "\"silu\"", STATUS_UNAVAILABLE, "silu"},
        {"vocab_size", NULL, STATUS_FORMAT, "some/config.json: \"vocab_size\" is missing"},
        {"vocab_size", "null", STATUS_FORMAT, "\"vocab_size\" is null"},
        {"hidden_size", "0", STATUS_FORMAT, "\"hidden_size\" is 0"},
        {"hidden_size", "99999999999999", STATUS_FORMAT, "hidden_size"},
        {"hidden_size", "13", STATUS_FORMAT, "\"hidden_size\" is 13, wanted a multiple of \"num_attention_heads\", 3"},
        {"num_hidden_layers", "-1", STATUS_FORMAT, "num_hidden_layers"},
        {"num_hidden_layers", "2.5", STATUS_FORMAT, "num_hidden_layers"},
        {"num_attention_heads", "24", STATUS_FORMAT, "num_attention_heads"},
        {"intermediate_size", "\"7\"", STATUS_FORMAT, "intermediate_size"},
        {"max_position_embeddings", "0", STATUS_FORMAT, "max_position_embeddings"},
        {"hidden_dropout_prob", "1", STATUS_FORMAT, "\"hidden_dropout_prob\" is 1"},
        {"hidden_dropout_prob", "-1", STATUS_FORMAT, "\"hidden_dropout_prob\" is -1"},
        {"classifier_dropout", "-1", STATUS_FORMAT, "\"classifier_dropout\" is -1"},
        {"layer_norm_eps", "0", STATUS_FORMAT, "layer_norm_eps"},
        {"initializer_range", "-0.5", STATUS_FORMAT, "initializer_range"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_fails(read_with(cases[i].key, cases[i].value, &c), cases[i].st, cases[i].text);
    json_t *list = json_array();
    assert_fails(encoder_config_read(list, "some/config.json", &c), STATUS_FORMAT, "not a JSON object");
    json_decref(list);
}

/* ---- the table */

static struct param_index params_at;

static struct param_table table_of(enum pooling pooling)
{
    struct encoder_config c;
    struct param_table table;
    const struct head_config head = {.pooling = pooling, .outputs = 4, .dropout = -1};
    assert_ok(read_with(NULL, NULL, &c));
    assert_ok(params_build(family_find("bert"), &c, &head, &table, &params_at));
    return table;
}

static void test_layout(void **state)
{
    (void)state;
    struct param_table table = table_of(POOL_POOLER);
    assert_int_equal(table.count, 5 + 2 * 12 + 2 + 2);
    assert_int_equal(table.names, 5 + 2 * 16 + 2 + 2);
    assert_int_equal(table.total, PARAM_BLOCK);
    int64_t end = 0, used = 0;
    for (int i = 0; i < table.count; i++) {
        const struct param *p = &table.params[i];
        assert_int_equal(p->offset, round_up(end, 64));
        assert_int_equal(p->elements, p->shape[0] * p->shape[1]);
        if (i > 0) { /* parts ascend, layers ascend */
            assert_true(p->part >= p[-1].part);
            assert_true(p->part != p[-1].part || p->layer >= p[-1].layer);
        }
        assert_int_equal(p->layer, p->part == PART_LAYER ? (i - 5) / 12 : -1);
        end = p->offset + p->elements;
        used += p->elements;
    }
    assert_int_equal(used, table.used);
    /* what transformers counts: 11*12 + 9*12 + 2*12 + 24, 2 x (4 x 156 + 24 + 91 + 96 + 24), 156, 52 */
    assert_int_equal(used, 288 + 2 * 859 + 156 + 52);
    const struct param *qkv = param_at(&table, &params_at, SLOT_QKV_WEIGHT, 1);
    assert_string_equal(qkv->name, "layer.1.attention.qkv.weight");
    assert_int_equal(qkv->shape[0], 36);
    assert_int_equal(qkv->shape[1], 12);
    assert_int_equal(qkv->layer, 1);
    params_release(&table);
    table = table_of(POOL_MEAN);
    assert_int_equal(table.count, 5 + 2 * 12 + 2);
    assert_null(param_at(&table, &params_at, SLOT_POOLER_WEIGHT, 0));
    params_release(&table);
}

/* Every element of every parameter has exactly one name on disk, in flat order. */
static void test_file_names_cover(void **state)
{
    (void)state;
    struct param_table table = table_of(POOL_POOLER);
    int name = 0;
    for (int i = 0; i < table.count; i++) {
        int64_t at = 0;
        for (; name < table.names && table.file[name].param == i; name++) {
            const struct param_file_name *f = &table.file[name];
            assert_int_equal(f->first, at);
            assert_int_equal(f->elements, f->shape[0] * f->shape[1]);
            at += f->elements;
        }
        assert_int_equal(at, table.params[i].elements);
    }
    assert_int_equal(name, table.names);
    params_release(&table);
}

static void assert_match(const struct param_table *table, const char *name, const char *want, int64_t first)
{
    bool skip = true;
    const struct param_file_name *f = params_match(table, name, &skip);
    if (f == NULL)
        fail_msg("%s: no match", name);
    assert_false(skip);
    assert_string_equal(table->params[f->param].name, want);
    assert_int_equal(f->first, first);
}

static void assert_no_match(const struct param_table *table, const char *name, bool want_skip)
{
    bool skip = !want_skip;
    assert_null(params_match(table, name, &skip));
    if (skip != want_skip)
        fail_msg("%s: skip is %d", name, skip);
}

static void test_match(void **state)
{
    (void)state;
    struct param_table table = table_of(POOL_POOLER);
    assert_match(&table, "bert.embeddings.word_embeddings.weight", "embeddings.word.weight", 0);
    assert_match(&table, "embeddings.word_embeddings.weight", "embeddings.word.weight", 0);
    assert_match(&table, "bert.encoder.layer.1.attention.self.query.weight", "layer.1.attention.qkv.weight", 0);
    assert_match(&table, "encoder.layer.1.attention.self.key.weight", "layer.1.attention.qkv.weight", 144);
    assert_match(&table, "bert.encoder.layer.0.attention.self.value.bias", "layer.0.attention.qkv.bias", 24);
    assert_match(&table, "bert.embeddings.LayerNorm.gamma", "embeddings.norm.weight", 0);
    assert_match(&table, "encoder.layer.0.output.LayerNorm.beta", "layer.0.output.norm.bias", 0);
    assert_match(&table, "bert.pooler.dense.weight", "pooler.weight", 0);
    assert_match(&table, "pooler.dense.bias", "pooler.bias", 0);
    assert_match(&table, "classifier.weight", "head.weight", 0);
    assert_no_match(&table, "bert.embeddings.position_ids", true);
    assert_no_match(&table, "embeddings.position_ids", true);
    assert_no_match(&table, "bert.embeddings.token_type_ids", true);
    assert_no_match(&table, "cls.predictions.transform.LayerNorm.gamma", true);
    assert_no_match(&table, "cls.seq_relationship.weight", true);
    assert_no_match(&table, "qa_outputs.bias", true);
    assert_no_match(&table, "bert.encoder.layer.2.output.dense.weight", false);
    assert_no_match(&table, "bert.bert.embeddings.word_embeddings.weight", false);
    assert_no_match(&table, "gamma", false);
    assert_no_match(&table, "", false);
    char name[1000];
    for (size_t n = 100; n < 140; n++) { /* around the length of the longest name */
        memset(name, 'x', n);
        (void)strcpy(name + n, "LayerNorm.gamma");
        assert_no_match(&table, name, false);
    }
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_no_match(&table, name, false);
    params_release(&table);
    table = table_of(POOL_CLS); /* no pooler here: a file's is known and not wanted */
    assert_no_match(&table, "bert.pooler.dense.weight", true);
    assert_no_match(&table, "pooler.dense.bias", true);
    assert_match(&table, "classifier.bias", "head.bias", 0);
    params_release(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_defaults),  cmocka_unit_test(test_config_families), cmocka_unit_test(test_config_refused),
        cmocka_unit_test(test_config_deberta), cmocka_unit_test(test_layout_deberta),
        cmocka_unit_test(test_slots_of_distances), cmocka_unit_test(test_layout),
        cmocka_unit_test(test_file_names_cover), cmocka_unit_test(test_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
