/* test_words.c - lower case and words are Python's, character by character and in texts that are easily got wrong. */
#include <string.h>

#include "base/json.h"
#include "data/words.h"
#include "tests/support/support.h"

static json_t *golden;

static int open_golden(void **state)
{
    (void)state;
    assert_ok(json_read_file(TEST_DIR "/golden/words.json", 1 << 20, &golden));
    return 0;
}

static int close_golden(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

static void test_texts(void **state)
{
    const json_t *texts = json_object_get(golden, "texts"), *line;
    size_t i;
    (void)state;
    assert_true(json_array_size(texts) > 140);
    json_array_foreach(texts, i, line)
    {
        const char *text = json_string_value(json_object_get(line, "text"));
        const char *wanted = json_string_value(json_object_get(line, "lower"));
        const json_t *words = json_object_get(line, "words");
        struct str lower = {0};
        size_t at = 0, begin, found = 0;
        assert_ok(str_add(&lower, "", 0));
        assert_ok(words_lower(text, strlen(text), &lower));
        assert_string_equal(lower.p, wanted);
        while (words_next(lower.p, lower.n, &at, &begin)) {
            const char *word = json_string_value(json_array_get(words, found++));
            if (word == NULL || strlen(word) != at - begin || memcmp(word, lower.p + begin, at - begin) != 0)
                fail_msg("text %zu, \"%s\": word %zu is \"%.*s\", Python has \"%s\"", i, text, found - 1, (int)(at - begin),
                         lower.p + begin, word == NULL ? "(no more)" : word);
        }
        if (found != json_array_size(words))
            fail_msg("text %zu, \"%s\": %zu words, Python has %zu", i, text, found, json_array_size(words));
        str_release(&lower);
    }
}

static uint64_t whole(const char *name, const char *field)
{
    uint64_t value = 0;
    const char *p = json_string_value(json_object_get(json_object_get(golden, name), field));
    assert_non_null(p);
    for (; *p != '\0'; p++)
        value = value * 10 + (uint64_t)(*p - '0');
    return value;
}

static void test_every_code_point(void **state)
{
    uint64_t words = 0, lowered = 0, changed = 0;
    int64_t count = 0;
    (void)state;
    for (uint64_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000)
            continue;
        if (words_flags((uint32_t)c) & WORDS_WORD) {
            count++;
            words += c * c;
        }
        lowered += c * words_lower_point((uint32_t)c);
        changed += words_lower_point((uint32_t)c) != c;
    }
    assert_int_equal(count, json_integer_value(json_object_get(json_object_get(golden, "word"), "count")));
    assert_int_equal(changed, json_integer_value(json_object_get(json_object_get(golden, "lower"), "count")));
    assert_true(words == whole("word", "sum"));
    assert_true(lowered == whole("lower", "sum"));
}

/* A text of capital sigmas and marks that are skipped takes time in proportion to its length. */
static void test_long_contexts(void **state)
{
    struct str text = {0}, lower = {0};
    (void)state;
    for (int i = 0; i < 200000; i++)
        assert_ok(str_add(&text, i % 1000 == 0 ? "Σ" : "'", i % 1000 == 0 ? 2 : 1));
    assert_ok(words_lower(text.p, text.n, &lower));
    assert_int_equal(lower.n, text.n);
    assert_memory_equal(lower.p, "σ", 2);                     /* nothing cased before the first */
    assert_memory_equal(lower.p + text.n - 1001, "ς", 2); /* and nothing behind the last */
    str_release(&text);
    str_release(&lower);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_long_contexts),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
