/* Hugging Face folders: config.json in and out, labels, the model card, tokenizer files. */
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "ckpt/hf.h"

static const char *folder_of(const char *config)
{
    support_file("config.json", config, strlen(config));
    return support_folder();
}

static json_t *parse(const char *text)
{
    json_t *value;
    assert_ok(json_parse(text, strlen(text), "test", &value));
    return value;
}

static void expect_json(json_t *value, const char *wanted)
{
    char *line = json_line(value);
    assert_string_equal(line, wanted);
    free(line);
    json_decref(value);
}

static void test_read_config(void **state)
{
    json_t *config = (void *)1;
    (void)state;
    assert_fails(hf_read_config("/nonexistent", &config), STATUS_NOINPUT, "/nonexistent/config.json");
    assert_null(config);
    assert_fails(hf_read_config(folder_of("[]"), &config), STATUS_FORMAT, "not a JSON object");
    assert_null(config);
    assert_fails(hf_read_config(folder_of("{\"a\":1,\"a\":2}"), &config), STATUS_FORMAT, "duplicate");
    assert_fails(hf_read_config(folder_of("{\"a\":NaN}"), &config), STATUS_FORMAT, "config.json:1");
    assert_fails(hf_read_config(folder_of(""), &config), STATUS_FORMAT, "not valid JSON");
    size_t n = (8u << 20) + 1;
    char *large = test_malloc(n);
    memset(large, ' ', n);
    memcpy(large, "{}", 2);
    support_file("config.json", large, n);
    assert_fails(hf_read_config(support_folder(), &config), STATUS_FORMAT, "wanted at most 8388608");
    support_file("config.json", large, n - 1);
    assert_ok(hf_read_config(support_folder(), &config));
    json_decref(config);
    test_free(large);
}

static void expect_labels(const char *text, bool wanted_generic, int wanted, const char *const *labels)
{
    json_t *config = parse(text);
    char **names;
    int count;
    bool generic;
    assert_ok(hf_labels(config, &names, &count, &generic));
    assert_int_equal(count, wanted);
    assert_int_equal(generic, wanted_generic);
    for (int i = 0; i < count; i++)
        assert_string_equal(names[i], labels[i]);
    hf_labels_free(names, count);
    json_decref(config);
}

static void labels_refused(const char *text, const char *part)
{
    json_t *config = parse(text);
    char **names = (void *)1;
    int count = 7;
    bool generic;
    assert_fails(hf_labels(config, &names, &count, &generic), STATUS_FORMAT, part);
    assert_null(names);
    assert_int_equal(count, 0);
    json_decref(config);
}

static void test_labels(void **state)
{
    static const char *const twelve[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
    static const char *const plain[] = {"LABEL_0", "LABEL_1", "LABEL_2"};
    (void)state;
    expect_labels("{\"id2label\":{\"1\":\"yes\",\"0\":\"no\"}}", false, 2, (const char *[]){"no", "yes"});
    /* by number, not as text: "10" is not between "1" and "2" */
    expect_labels("{\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"10\":\"k\",\"11\":\"l\",\"2\":\"c\",\"3\":\"d\",\"4\":\"e\","
                  "\"5\":\"f\",\"6\":\"g\",\"7\":\"h\",\"8\":\"i\",\"9\":\"j\"}}",
                  false, 12, twelve);
    expect_labels("{\"id2label\":{\"0\":\"LABEL_0\",\"1\":\"LABEL_1\"}}", true, 2, plain);
    expect_labels("{\"id2label\":{\"0\":\"LABEL_1\",\"1\":\"LABEL_0\"}}", false, 2,
                  (const char *[]){"LABEL_1", "LABEL_0"});
    expect_labels("{\"id2label\":null,\"num_labels\":3}", true, 3, plain);
    expect_labels("{\"num_labels\":1}", true, 1, plain);
    expect_labels("{}", true, 2, plain);
    labels_refused("{\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", "none for 1");
    labels_refused("{\"id2label\":{\"00\":\"a\"}}", "none for 0");
    labels_refused("{\"id2label\":{\"1\":\"a\"}}", "none for 0");
    labels_refused("{\"id2label\":{\"0\":\"a\",\"1\":7}}", "gives 1 a name that is not a string");
    labels_refused("{\"id2label\":{\"0\":\"\"}}", "gives 0 a name");
    labels_refused("{\"id2label\":{}}", "1 to 100000 names");
    labels_refused("{\"id2label\":[\"a\"]}", "1 to 100000 names");
    labels_refused("{\"num_labels\":0}", "\"num_labels\" is 0");
    labels_refused("{\"num_labels\":100001}", "\"num_labels\" is 100001");
    labels_refused("{\"num_labels\":\"2\"}", "\"num_labels\" is");
}

static void test_make_config(void **state)
{
    static const char *const labels[] = {"no", "y\"es", "maybe"};
    json_t *base = parse("{\"vocab_size\":100,\"model_type\":\"bert\",\"_name_or_path\":\"/home/me/bert\","
                         "\"transformers_version\":\"4.1\",\"num_labels\":9,\"auto_map\":{\"AutoModel\":\"x.y\"},"
                         "\"id2label\":{\"0\":\"OLD\"},\"label2id\":{\"OLD\":0},\"dtype\":\"float16\","
                         "\"architectures\":[\"BertForMaskedLM\"],\"nested\":{\"z\":1,\"a\":2},\"eps\":1e-12}");
    json_t *before = json_deep_copy(base), *config;
    (void)state;
    assert_ok(hf_make_config(base, labels, 3, "single_label_classification", "BertForSequenceClassification", 3,
                             &config));
    expect_json(config, "{\"architectures\":[\"BertForSequenceClassification\"],\"eps\":9.9999999999999998e-13,"
                        "\"id2label\":{\"0\":\"no\",\"1\":\"y\\\"es\",\"2\":\"maybe\"},"
                        "\"label2id\":{\"no\":0,\"y\\\"es\":1,\"maybe\":2},\"model_type\":\"bert\","
                        "\"nested\":{\"z\":1,\"a\":2},\"problem_type\":\"single_label_classification\","
                        "\"torch_dtype\":\"float32\",\"transformers_version\":\"4.1\",\"vocab_size\":100}");
    assert_true(json_equal(base, before));
    assert_ok(hf_make_config(base, NULL, 0, "regression", "X", 2, &config));
    assert_string_equal(json_string_value(json_object_get(json_object_get(config, "id2label"), "1")), "LABEL_1");
    assert_string_equal(json_string_value(json_object_get(config, "problem_type")), "regression");
    char **names;
    int count;
    bool generic;
    assert_ok(hf_labels(config, &names, &count, &generic)); /* what is written reads back */
    assert_int_equal(count, 2);
    assert_true(generic);
    hf_labels_free(names, count);
    json_decref(config);
    json_decref(before);
    json_decref(base);
}

static void test_make_config_refuses(void **state)
{
    static const char *const twice[] = {"a", "b", "a"}, *const bad[] = {"\xff"};
    json_t *base = parse("{}"), *list = parse("[]"), *config = (void *)1;
    (void)state;
    assert_fails(hf_make_config(base, twice, 3, "regression", "X", 3, &config), STATUS_ARG, "\"a\" is there twice");
    assert_null(config);
    assert_fails(hf_make_config(base, twice, 2, "regression", "X", 3, &config), STATUS_ARG, "3 outputs and 2 labels");
    assert_fails(hf_make_config(base, twice, 0, "regression", "X", 0, &config), STATUS_ARG, "0 outputs");
    assert_fails(hf_make_config(base, twice, 0, "ranking", "X", 1, &config), STATUS_ARG, "problem_type is \"ranking\"");
    assert_fails(hf_make_config(list, twice, 0, "regression", "X", 1, &config), STATUS_ARG, "config.json of");
    assert_fails(hf_make_config(base, bad, 1, "regression", "X", 1, &config), STATUS_ARG, "not UTF-8");
    json_decref(base);
    json_decref(list);
}

static const char *card_text(const struct hf_card *card)
{
    static char *text;
    size_t n;
    char *path;
    mem_free(text);
    text = NULL;
    if (card == NULL)
        return NULL;
    assert_ok(hf_write_readme(support_folder(), card));
    assert_ok(path_join(support_folder(), "README.md", &path));
    assert_ok(file_read(path, 1 << 20, &text, &n));
    mem_free(path);
    return text;
}

static void test_card(void **state)
{
    static const char *const labels[] = {"no", "a`b\n---"};
    struct hf_card card = {.problem_type = "single_label_classification",
                           .architecture = "BertForSequenceClassification",
                           .base_model = "google/bert_base-uncased",
                           .labels = labels,
                           .count = 2,
                           .pooling = "pooler",
                           .native = true,
                           .metric = "accuracy",
                           .score = 0.1};
    (void)state;
    assert_string_equal(card_text(&card),
                        "---\nlibrary_name: transformers\npipeline_tag: text-classification\n"
                        "base_model: \"google/bert_base-uncased\"\ntags:\n- cohort\n---\n\n"
                        "# Single-label text classification\n\nFine-tuned with cohort. Class: "
                        "`BertForSequenceClassification`. Pooling: `pooler`.\n\nLabels (2): `no`, `a'b'---`\n\n"
                        "Score on the evaluation rows (`accuracy`): 0.1\n\n## How to load it\n\n"
                        "FOLDER is the path of this folder.\n\n```python\nfrom transformers import pipeline\n\n"
                        "classify = pipeline(\"text-classification\", model=FOLDER)\nprint(classify(\"a text\"))\n```\n");
    card.native = false;
    card.pooling = "mean";
    card.score = NAN;
    static const char *const paths[] = {"/home/me/bert", "../bert", "a/b/c", "", "x\ny", "-x", "a/", "a/../b", "a/.."};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        card.base_model = paths[i];
        assert_null(strstr(card_text(&card), "base_model"));
    }
    support_assert_contains(card_text(&card), "(hidden * mask).sum(1) / mask.sum(1)");
    support_assert_contains(card_text(&card), "weights[\"classifier.weight\"].T + weights[\"classifier.bias\"]");
    assert_null(strstr(card_text(&card), "accuracy"));
    card.pooling = "attention";
    assert_null(strstr(card_text(&card), "```python"));
    support_assert_contains(card_text(&card), "Use `cohort predict`.");
    card.problem_type = "x";
    assert_fails(hf_write_readme(support_folder(), &card), STATUS_ARG, "problem_type");
    (void)card_text(NULL);
}

static void test_copy_tokenizer(void **state)
{
    char *from, *to, *vocab;
    size_t n;
    int copied;
    (void)state;
    assert_ok(path_join(support_folder(), "from", &from));
    assert_ok(path_join(support_folder(), "to", &to));
    assert_ok(folder_make(from));
    assert_ok(folder_make(to));
    support_file("from/model.safetensors", "x", 1);
    assert_fails(hf_copy_tokenizer(from, to, &copied), STATUS_NOINPUT, "no tokenizer files");
    support_file("from/vocab.txt", "[PAD]\n", 6);
    support_file("from/tokenizer_config.json", "{}", 2);
    assert_ok(hf_copy_tokenizer(from, to, &copied));
    assert_int_equal(copied, 2);
    char **names;
    size_t count;
    assert_ok(folder_list(to, &names, &count));
    assert_int_equal(count, 2);
    folder_list_free(names, count);
    mem_free(from);
    assert_ok(path_join(to, "vocab.txt", &from));
    assert_ok(file_read(from, 100, &vocab, &n));
    assert_string_equal(vocab, "[PAD]\n");
    mem_free(vocab);
    mem_free(from);
    mem_free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_config),      cmocka_unit_test(test_labels),
        cmocka_unit_test(test_make_config),      cmocka_unit_test(test_make_config_refuses),
        cmocka_unit_test(test_card),             cmocka_unit_test(test_copy_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
