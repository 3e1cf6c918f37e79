/* test_json.c - JSON is read strictly, getters name the place, what is written reads back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "tests/support/support.h"

static json_t *parsed(const char *text)
{
    json_t *value;
    assert_ok(json_parse(text, strlen(text), "a.json", &value));
    return value;
}

static void test_what_is_no_json(void **state)
{
    static const char *const bad[] = {
        "", " ", "{", "{\"a\":1,}", "[1,]", "{'a':1}", "{\"a\":1}x", "{\"a\":01}", "{\"a\":+1}", "{\"a\":.5}",
        "{\"a\":nan}", "{\"a\":NaN}", "{\"a\":Infinity}", "{\"a\":1e400}", "{\"a\":99999999999999999999}", "// c\n{}",
        "{\"a\":\"\t\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\xFF\"}", "{\"a\":\"\xC0\x80\"}",
        "{\"a\":1,\"a\":2}", "{\"b\":{\"a\":1,\"a\":1}}", "\xEF\xBB\xBF{}"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *value = (json_t *)1;
        if (json_parse(bad[i], strlen(bad[i]), "a.json", &value) == STATUS_OK)
            fail_msg("accepted: %s", bad[i]);
        assert_null(value);
        support_assert_contains(status_message(), "a.json:");
        support_assert_contains(status_message(), "not valid JSON");
    }
    json_t *value;
    assert_fails(json_parse("{\"a\":\n\n1 2}", 11, "a.json", &value), STATUS_FORMAT, "a.json:3: not valid JSON");
    assert_fails(json_parse("{\"a\":\"\0\"}", 9, "a.json", &value), STATUS_FORMAT, "not valid JSON");
}

static void test_deep_nesting_is_refused(void **state)
{
    struct str deep = {0};
    json_t *value;
    (void)state;
    for (int i = 0; i < 100000; i++)
        assert_ok(str_add(&deep, "[", 1));
    assert_fails(json_parse(deep.p, deep.n, "a.json", &value), STATUS_FORMAT, "a.json:");
    str_release(&deep);
}

static void test_numbers_as_reals(void **state)
{
    json_t *value;
    (void)state;
    assert_ok(json_parse_reals("[99999999999999999999]", 22, "a.json", &value));
    assert_true(json_real_value(json_array_get(value, 0)) == 1e20);
    json_decref(value);
}

static void test_getters(void **state)
{
    json_t *o = parsed("{\"i\":7,\"r\":0.5,\"b\":true,\"s\":\"text\",\"n\":null,\"a\":[1]}");
    int64_t i;
    double r;
    bool b;
    const char *s;
    (void)state;
    assert_ok(json_int(o, "i", "a.json", 0, 10, &i));
    assert_int_equal(i, 7);
    assert_fails(json_int(o, "i", "a.json", 8, 10, &i), STATUS_FORMAT,
                 "a.json: \"i\" is 7, wanted a whole number from 8 to 10");
    assert_fails(json_int(o, "i", "a.json", 0, 6, &i), STATUS_FORMAT, "wanted a whole number from 0 to 6");
    assert_fails(json_int(o, "r", "a.json", 0, 10, &i), STATUS_FORMAT, "\"r\" is 0.5");
    assert_fails(json_int(o, "s", "a.json", 0, 10, &i), STATUS_FORMAT, "\"s\" is \"text\"");
    assert_fails(json_int(o, "x", "a.json", 0, 10, &i), STATUS_FORMAT, "a.json: \"x\" is missing");
    assert_ok(json_int_or(o, "x", "a.json", 0, 10, 99, &i));
    assert_int_equal(i, 99);
    assert_ok(json_int_or(o, "n", "a.json", 0, 10, 98, &i));
    assert_int_equal(i, 98);
    assert_fails(json_int_or(o, "a", "a.json", 0, 10, 1, &i), STATUS_FORMAT, "\"a\" is [1]");

    assert_ok(json_real_or(o, "r", "a.json", 9.0, &r));
    assert_true(r == 0.5);
    assert_ok(json_real_or(o, "i", "a.json", 9.0, &r));
    assert_true(r == 7.0);
    assert_ok(json_real_or(o, "x", "a.json", 9.0, &r));
    assert_true(r == 9.0);
    assert_fails(json_real_or(o, "s", "a.json", 9.0, &r), STATUS_FORMAT, "a.json: \"s\" is not a finite number");

    assert_ok(json_bool_or(o, "b", "a.json", false, &b));
    assert_true(b);
    assert_ok(json_bool_or(o, "x", "a.json", true, &b));
    assert_true(b);
    assert_fails(json_bool_or(o, "i", "a.json", true, &b), STATUS_FORMAT, "a.json: \"i\" is not true or false");

    assert_ok(json_text(o, "s", "a.json", &s));
    assert_string_equal(s, "text");
    assert_ok(json_text_or(o, "x", "a.json", "else", &s));
    assert_string_equal(s, "else");
    assert_fails(json_text(o, "x", "a.json", &s), STATUS_FORMAT, "a.json: \"x\" is missing, wanted a string");
    assert_fails(json_text(o, "i", "a.json", &s), STATUS_FORMAT, "a.json: \"i\" is not a string");
    json_decref(o);
}

static void test_hashes_travel_as_text(void **state)
{
    static const uint64_t values[] = {0, 1, UINT64_MAX, 0x0123456789ABCDEF, 0x8000000000000000};
    uint64_t back;
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        json_t *o = json_object();
        assert_int_equal(json_object_set_new(o, "h", json_hex64(values[i])), 0);
        assert_int_equal(strlen(json_string_value(json_object_get(o, "h"))), 16);
        assert_ok(json_get_hex64(o, "h", "a.json", &back));
        assert_true(back == values[i]);
        json_decref(o);
    }
    json_t *o = parsed("{\"short\":\"12\",\"sign\":\"-123456789abcdef\",\"x\":\"0x23456789abcdef\",\"n\":1,"
                       "\"long\":\"00123456789abcdef\",\"g\":\"0123456789abcdeg\"}");
    static const char *const bad[] = {"short", "sign", "x", "n", "long", "g", "missing"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(json_get_hex64(o, bad[i], "a.json", &back), STATUS_FORMAT, "a.json");
    json_decref(o);
}

static void test_a_file_and_back(void **state)
{
    const char *path = support_file("x.json", "", 0);
    json_t *o = json_pack("{s:f, s:o, s:s}", "third", 1.0 / 3.0, "none", json_finite(NAN), "text", "\xC3\xA9\n"), *back;
    (void)state;
    assert_ok(json_write_file(path, o));
    assert_ok(json_read_file(path, 1 << 20, &back));
    assert_true(json_equal(o, back));
    assert_true(json_real_value(json_object_get(back, "third")) == 1.0 / 3.0);
    assert_true(json_is_null(json_object_get(back, "none")));
    json_decref(back);
    assert_fails(json_read_file(path, 3, &back), STATUS_FORMAT, "wanted at most 3");
    assert_null(back);
    assert_fails(json_read_file("/nonexistent/x.json", 1 << 20, &back), STATUS_NOINPUT, "/nonexistent/x.json");
    char *line = json_line(o);
    assert_non_null(line);
    assert_null(strchr(line, '\n'));
    free(line);
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_no_json),    cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_numbers_as_reals),   cmocka_unit_test(test_getters),
        cmocka_unit_test(test_hashes_travel_as_text), cmocka_unit_test(test_a_file_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
