/* test_tokenizer_config.c - what stands beside a tokenizer.json, by transformers' rules; tests/long/tokenizer_config.py compares
 * whole folders with AutoTokenizer. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "data/dataset.h"
#include "data/text.h"
#include "data/tokenizer_parts.h"
#include "tests/support/support.h"

#define PIECES "{\"[PAD]\":0,\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"[MASK]\":4,\"word\":5,\"Word\":6,\"new\":7,\"##s\":8}"
#define ADDED "{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}"
#define PLACE(kind, name, type) "{\"" kind "\":{\"id\":\"" name "\",\"type_id\":" type "}}"
#define TEMPLATE(pair)                                                                                                 \
    TEMPLATE_OF(PLACE("SpecialToken", "[CLS]", "0") "," PLACE("Sequence", "A", "0") "," PLACE("SpecialToken", "[SEP]", \
    "0"), pair)
#define TEMPLATE_OF(single, pair)                                                                                      \
    "{\"type\":\"TemplateProcessing\",\"single\":[" single "],\"pair\":[" pair "],\"special_tokens\":{\"[CLS]\":{\"id\":"        \
    "\"[CLS]\",\"ids\":[2],\"tokens\":[\"[CLS]\"]},\"[SEP]\":{\"id\":\"[SEP]\",\"ids\":[3],\"tokens\":[\"[SEP]\"]}}}"
#define PAIR                                                                                                           \
    PLACE("SpecialToken", "[CLS]", "0") "," PLACE("Sequence", "A", "0") "," PLACE("SpecialToken", "[SEP]", "0") ","    \
    PLACE("Sequence", "B", "1") "," PLACE("SpecialToken", "[SEP]", "1")

static struct tokenizer *t;

/* A cased WordPiece tokenizer.json with this post_processor, and the files beside it; NULL: none. */
static enum status open_with(const char *post, const char *config, const char *special, const char *added,
                             const char *model)
{
    static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    const char *files[TOKENIZER_FILES] = {NULL};
    size_t sizes[TOKENIZER_FILES] = {0};
    struct str json = {0};
    assert_ok(str_addf(&json, "{\"version\":\"1.0\",\"added_tokens\":["));
    for (int i = 0; i < 5; i++)
        assert_ok(str_addf(&json, "%s" ADDED, i == 0 ? "" : ",", i, names[i]));
    assert_ok(str_addf(&json,
                       "],\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,"
                       "\"strip_accents\":false,\"lowercase\":false},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
                       "\"post_processor\":%s,\"decoder\":null,\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
                       "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,\"vocab\":" PIECES "}}",
                       post));
    files[FILE_TOKENIZER] = json.p;
    files[FILE_CONFIG] = config;
    files[FILE_SPECIAL] = special;
    files[FILE_ADDED] = added;
    files[FILE_MODEL_CONFIG] = model;
    for (int i = 0; i < TOKENIZER_FILES; i++)
        sizes[i] = files[i] == NULL ? 0 : strlen(files[i]);
    enum status st = tokenizer_open_memory("folder", files, sizes, &t);
    str_release(&json);
    return st;
}

/* The ids of "Word words [MASK] new", and the ends. */
static void expect(const int32_t *wanted, size_t n, int32_t cls, int32_t sep)
{
    static const char text[] = "Word words [MASK] newest";
    struct id_list ids = {0};
    struct tokenizer_info info;
    assert_ok(tokenizer_encode(t, text, sizeof text - 1, &ids));
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.p, wanted, n * sizeof *wanted);
    tokenizer_get_info(t, &info);
    assert_int_equal(info.cls, cls);
    assert_int_equal(info.sep, sep);
    id_list_release(&ids);
    tokenizer_close(t);
}
#define EXPECT(cls, sep, ...)                                                                                          \
    expect((const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), cls, sep)

static void test_classes(void **state)
{
    (void)state;
    const char *post = TEMPLATE(PAIR);
    /* Nothing said, and a class without rules of its own: the file as it is. */
    assert_ok(open_with(post, NULL, NULL, NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 1);
    assert_ok(open_with(post, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"do_lower_case\":true}", NULL, NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 1);
    /* BERT's: lower case unless it says otherwise, also by config.json's model_type. */
    assert_ok(open_with(post, "{\"tokenizer_class\":\"BertTokenizer\",\"do_lower_case\":false}", NULL, NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 1);
    assert_ok(open_with(post, "{\"tokenizer_class\":\"DistilBertTokenizerFast\"}", NULL, NULL, NULL));
    EXPECT(2, 3, 5, 5, 8, 4, 1);
    assert_ok(open_with(post, NULL, NULL, NULL, "{\"model_type\":\"electra\"}"));
    EXPECT(2, 3, 5, 5, 8, 4, 1);
}

static void test_tokens(void **state)
{
    (void)state;
    const char *post = TEMPLATE(PAIR);
    /* A token that the vocabulary lacks gets the next id; one that it has is found inside a word. */
    assert_ok(open_with(post, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"extra_special_tokens\":[\"est\"]}", NULL,
                        NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 7, 9);
    assert_ok(open_with(post, NULL, "{\"additional_special_tokens\":[\"new\"]}", NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 7, 1);
    assert_ok(open_with(post, NULL, NULL, "{\"est\":9}", NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 7, 9);
    /* The ends of a class with rules are those that hold. */
    assert_ok(open_with(post, "{\"tokenizer_class\":\"BertTokenizer\",\"do_lower_case\":false,\"sep_token\":\"[PAD]\"}",
                        "{\"cls_token\":\"[MASK]\"}", NULL, NULL));
    EXPECT(4, 0, 6, 5, 8, 4, 1);
}

static void test_post_processor(void **state)
{
    (void)state;
    struct dataset_part part = {0};
    struct text_row row = {.text = {"word", 4}};
    assert_ok(open_with("null", "{\"tokenizer_class\":\"BertTokenizer\",\"do_lower_case\":false}", NULL, NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 1);
    /* A class without rules of its own places nothing; nor does a template of the texts alone. */
    const char *const none[] = {"null", TEMPLATE_OF(PLACE("Sequence", "A", "0"),
                                                    PLACE("Sequence", "A", "0") "," PLACE("Sequence", "B", "1"))};
    for (int i = 0; i < 2; i++) {
        static const int32_t a[] = {7, 8}, b[] = {5}, wanted[] = {7, 8, 5}, types_wanted[] = {0, 0, 1};
        int32_t out[8], types[8];
        struct tokenizer_info info;
        assert_ok(open_with(none[i], "{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}", NULL, NULL, NULL));
        tokenizer_get_info(t, &info);
        assert_true(info.no_ends && !info.no_pairs);
        assert_int_equal(tokenizer_length(&info, 2, -1, 8), 2);
        assert_int_equal(tokenizer_join(&info, a, 2, NULL, -1, 8, out, types), 2);
        assert_memory_equal(out, a, sizeof a);
        assert_int_equal(tokenizer_join(&info, a, 2, b, 1, 8, out, types), 3);
        assert_memory_equal(out, wanted, sizeof wanted);
        assert_memory_equal(types, types_wanted, sizeof types_wanted);
        assert_int_equal(tokenizer_join(&info, a, 2, b, 1, 2, out, types), 2);
        assert_memory_equal(out, (((const int32_t[]){7, 5})), 2 * sizeof *out);
        struct text_row empty = {.text = {"", 0}};
        assert_fails(dataset_part_add(&part, t, &empty, false), STATUS_DATA, "has no tokens");
        EXPECT(-1, -1, 6, 5, 8, 4, 1);
    }
    /* A template that was made for single texts alone takes those. */
    assert_ok(open_with(TEMPLATE(PLACE("Sequence", "A", "0") "," PLACE("Sequence", "B", "1")), NULL, NULL, NULL, NULL));
    assert_ok(dataset_part_add(&part, t, &row, false));
    row.pair = row.text;
    assert_fails(dataset_part_add(&part, t, &row, false), STATUS_DATA, "is a pair of texts");
    dataset_part_release(&part);
    EXPECT(2, 3, 6, 5, 8, 4, 1);
}

static void test_refusals(void **state)
{
    (void)state;
    const char *post = TEMPLATE(PAIR);
    assert_fails(open_with(post, "{\"truncation_side\":\"left\"}", NULL, NULL, NULL), STATUS_FORMAT, "truncation_side");
    assert_fails(open_with(post, "{\"split_special_tokens\":true}", NULL, NULL, NULL), STATUS_FORMAT, "split_special_tokens");
    assert_fails(open_with(post, "{\"tokenizer_class\":\"DebertaV2Tokenizer\",\"do_lower_case\":true}", NULL, NULL, NULL),
                 STATUS_FORMAT, "do_lower_case is true, and the normalizer");
    assert_fails(open_with(post, "{\"tokenizer_class\":\"DebertaV2Tokenizer\",\"split_by_punct\":true}", NULL, NULL, NULL),
                 STATUS_FORMAT, "split_by_punct");
    assert_ok(open_with(post, "{\"truncation_side\":\"right\",\"split_special_tokens\":false}", NULL, NULL, NULL));
    tokenizer_close(t);
    /* The side of tokenizer.json, unless the configuration has one. */
    post = TEMPLATE(PAIR) ",\"truncation\":{\"direction\":\"Left\",\"max_length\":8}";
    assert_fails(open_with(post, NULL, NULL, NULL, NULL), STATUS_FORMAT, "truncation: the direction is \"Left\"");
    assert_ok(open_with(post, "{\"truncation_side\":\"right\"}", NULL, NULL, NULL));
    tokenizer_close(t);
    /* Classes that one version of transformers leaves tokenizer.json to: both alike, or refused. */
    post = TEMPLATE(PAIR);
    assert_fails(open_with(post, "{\"tokenizer_class\":\"XLMRobertaTokenizer\",\"bos_token\":\"[PAD]\"}", NULL, NULL, NULL),
                 STATUS_FORMAT, "bos_token is \"[PAD]\", and the post_processor");
    assert_ok(open_with(post, "{\"tokenizer_class\":\"CamembertTokenizer\",\"bos_token\":\"[CLS]\",\"cls_token\":\"[PAD]\"}",
                        NULL, NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 1);
    assert_fails(open_with(post, "{\"tokenizer_class\":\"AlbertTokenizer\",\"do_lower_case\":true}", NULL, NULL, NULL),
                 STATUS_FORMAT, "do_lower_case is true, and the normalizer");
    assert_fails(open_with(post, "{\"tokenizer_class\":\"AlbertTokenizer\",\"keep_accents\":false}", NULL, NULL, NULL),
                 STATUS_FORMAT, "keep_accents is false, and the normalizer");
    assert_ok(open_with(post, "{\"tokenizer_class\":\"AlbertTokenizer\",\"do_lower_case\":false}", NULL, NULL, NULL));
    EXPECT(2, 3, 6, 5, 8, 4, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_post_processor),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
