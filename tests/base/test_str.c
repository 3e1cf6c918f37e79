/* test_str.c - growing text, numbers that read back, UTF-8 by the Unicode standard's table, parsing, suggestions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "base/str.h"
#include "tests/support/support.h"

static void test_text_grows_and_keeps_its_end(void **state)
{
    struct str s = {0};
    (void)state;
    assert_ok(str_add(&s, "", 0));
    assert_string_equal(s.p, "");
    for (int i = 0; i < 5000; i++)
        assert_ok(str_addf(&s, "%d,", i % 10));
    assert_int_equal(s.n, 10000);
    assert_int_equal(strlen(s.p), 10000);
    assert_ok(str_add(&s, "a\0b", 3));
    assert_int_equal(s.n, 10003);
    assert_memory_equal(s.p + 10000, "a\0b", 4);
    str_clear(&s);
    assert_string_equal(s.p, "");
    assert_fails(str_add(&s, "x", SIZE_MAX), STATUS_NOMEM, "text of more than");
    assert_int_equal(s.n, 0);
    str_release(&s);
    assert_null(s.p);
    str_clear(&s);
}

static void test_json_strings(void **state)
{
    static const char raw[] = "a\"b\\c\n\t\r\x01\x1f\x7f/\xC3\xA9\0z";
    struct str s = {0};
    (void)state;
    assert_ok(str_add_json(&s, raw, sizeof raw - 1));
    assert_string_equal(s.p, "\"a\\\"b\\\\c\\n\\t\\r\\u0001\\u001f\x7f/\xC3\xA9\\u0000z\"");
    str_release(&s);
}

static void check_float(uint32_t bits)
{
    struct str s = {0};
    float value, back;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value))
        return;
    assert_ok(str_add_float(&s, value));
    back = strtof(s.p, NULL);
    if (memcmp(&back, &value, sizeof back) != 0)
        fail_msg("%08x is written %s", bits, s.p);
    str_release(&s);
}

static void check_double(uint64_t bits)
{
    struct str s = {0};
    double value, back;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value))
        return;
    assert_ok(str_add_double(&s, value));
    back = strtod(s.p, NULL);
    if (memcmp(&back, &value, sizeof back) != 0)
        fail_msg("%016llx is written %s", (unsigned long long)bits, s.p);
    assert_true(parse_double(s.p, &back) && memcmp(&back, &value, sizeof back) == 0);
    str_release(&s);
}

static void test_numbers_read_back_to_the_same_bits(void **state)
{
    static const uint32_t floats[] = {0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800001,
                                      0x3DCCCCCD, 0x4B800000, 0x4B7FFFFF};
    static const uint64_t doubles[] = {0, 0x8000000000000000, 1, 0x000FFFFFFFFFFFFF, 0x0010000000000000,
                                       0x7FEFFFFFFFFFFFFF, 0x3FB999999999999A, 0x3FD3333333333334, 0x4340000000000001};
    (void)state;
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++)
        check_float(floats[i]);
    for (size_t i = 0; i < sizeof doubles / sizeof doubles[0]; i++)
        check_double(doubles[i]);
    for (uint32_t i = 0; i < 100000; i++) {
        struct philox p = philox4x32(1, i, 0, 0, 0);
        check_float(p.v[0]);
        check_double((uint64_t)p.v[1] << 32 | p.v[2]);
    }
}

static void test_short_numbers_stay_short(void **state)
{
    struct str s = {0};
    (void)state;
    assert_ok(str_add_float(&s, 0.1f));
    assert_ok(str_addf(&s, " "));
    assert_ok(str_add_double(&s, 0.1));
    assert_ok(str_addf(&s, " "));
    assert_ok(str_add_double(&s, 5e-5));
    assert_ok(str_addf(&s, " "));
    assert_ok(str_add_double(&s, 3.0));
    assert_string_equal(s.p, "0.1 0.1 5e-05 3");
    str_clear(&s);
    assert_ok(str_add_double(&s, NAN));
    assert_ok(str_add_float(&s, INFINITY));
    assert_ok(str_add_float(&s, -INFINITY));
    assert_string_equal(s.p, "nullnullnull");
    str_release(&s);
}

/* Every code point but the surrogates: encoded, valid, decoded; cut anywhere it is not valid. */
static void test_every_code_point_round_trips(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char bytes[4];
        uint32_t back;
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        int n = utf8_encode(c, bytes);
        if (n != 1 + (c >= 0x80) + (c >= 0x800) + (c >= 0x10000) || utf8_valid_prefix(bytes, (size_t)n) != (size_t)n ||
            utf8_decode(bytes, (size_t)n, &back) != n || back != c)
            fail_msg("U+%04X", c);
        for (int cut = 1; cut < n; cut++)
            assert_int_equal(utf8_valid_prefix(bytes, (size_t)cut), 0);
    }
}

/* All two-byte sequences, and all three- and four-byte ones at the ends of ranges, against the standard's table 3-7. */
static bool well_formed(const unsigned char *b, int n)
{
    if (n == 1)
        return b[0] < 0x80;
    for (int i = 1; i < n; i++) {
        if (b[i] < 0x80 || b[i] > 0xBF)
            return false;
    }
    if (n == 2)
        return b[0] >= 0xC2 && b[0] <= 0xDF;
    if (n == 3)
        return (b[0] == 0xE0 && b[1] >= 0xA0) || (b[0] >= 0xE1 && b[0] <= 0xEC) || (b[0] == 0xED && b[1] <= 0x9F) ||
               b[0] == 0xEE || b[0] == 0xEF;
    return (b[0] == 0xF0 && b[1] >= 0x90) || (b[0] >= 0xF1 && b[0] <= 0xF3) || (b[0] == 0xF4 && b[1] <= 0x8F);
}

static void test_malformed_sequences_are_refused(void **state)
{
    static const unsigned char ends[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    enum { ENDS = sizeof ends };
    (void)state;
    for (int first = 0x80; first < 0x100; first++) {
        for (int second = 0; second < 0x100; second++) {
            unsigned char b[4] = {(unsigned char)first, (unsigned char)second};
            assert_int_equal(utf8_valid_prefix((char *)b, 1), 0);
            assert_int_equal(utf8_valid_prefix((char *)b, 2), well_formed(b, 2) ? 2 : 0);
            for (int i = 0; i < ENDS * ENDS; i++) {
                b[2] = ends[i / ENDS];
                b[3] = ends[i % ENDS];
                size_t wanted = well_formed(b, 3) ? 3 : well_formed(b, 2) ? 2 : 0;
                if (utf8_valid_prefix((char *)b, 3) != (wanted == 2 && b[2] < 0x80 ? 3 : wanted))
                    fail_msg("%02X %02X %02X", b[0], b[1], b[2]);
                if (well_formed(b, 4) != (utf8_valid_prefix((char *)b, 4) == 4 && first >= 0xF0))
                    fail_msg("%02X %02X %02X %02X", b[0], b[1], b[2], b[3]);
            }
        }
    }
    assert_int_equal(utf8_valid_prefix("abc\xED\xA0\x80", 6), 3);
    assert_int_equal(utf8_valid_prefix("", 0), 0);
}

static void test_decode_always_advances(void **state)
{
    uint32_t c;
    (void)state;
    assert_int_equal(utf8_decode("\xFF", 1, &c), 1);
    assert_int_equal(c, 0xFF);
    assert_int_equal(utf8_decode("\xE2\x82", 2, &c), 1);
}

static void test_parse_int64(void **state)
{
    static const char *const bad[] = {"", " ", "1 ", " 1", "\t1", "\n1", "1.0", "0x1", "9223372036854775808",
                                      "-9223372036854775809", "--1", "+", "-", "1e3", "abc"};
    int64_t value;
    (void)state;
    assert_true(parse_int64("-9223372036854775808", &value) && value == INT64_MIN);
    assert_true(parse_int64("9223372036854775807", &value) && value == INT64_MAX);
    assert_true(parse_int64("+7", &value) && value == 7);
    assert_true(parse_int64("007", &value) && value == 7);
    value = 5;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse_int64(bad[i], &value))
            fail_msg("\"%s\" was taken for %lld", bad[i], (long long)value);
    }
    assert_int_equal(value, 5);
}

static void test_parse_double(void **state)
{
    static const char *const bad[] = {"", " 1", "1 ", "nan", "inf", "infinity", "-inf", "1e400", "-1e400", "0x1p3",
                                      "1,5", "1e", "e5", ".", "+-1", "1..2", "1_000"};
    double value;
    (void)state;
    assert_true(parse_double("3e-5", &value) && value == 3e-5);
    assert_true(parse_double(".5", &value) && value == 0.5);
    assert_true(parse_double("-0", &value) && value == 0.0 && signbit(value));
    assert_true(parse_double("1e-400", &value) && value == 0.0);
    value = 5.0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse_double(bad[i], &value))
            fail_msg("\"%s\" was taken for %g", bad[i], value);
    }
    assert_true(value == 5.0);
}

static void test_parse_bool(void **state)
{
    static const char *const yes[] = {"true", "TRUE", "yes", "on", "1"}, *const no[] = {"false", "No", "off", "0"},
                      *const bad[] = {"", "t", "2", "true ", "10"};
    bool value;
    (void)state;
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        assert_true(parse_bool(yes[i], &value) && value);
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        assert_true(parse_bool(no[i], &value) && !value);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(parse_bool(bad[i], &value));
}

static void test_nearest_name(void **state)
{
    static const char *const names[] = {"train", "eval", "predict", "tokenizer"};
    char far[200];
    (void)state;
    assert_string_equal(nearest_name("trian", names, 4), "train");
    assert_string_equal(nearest_name("evla", names, 4), "eval");
    assert_string_equal(nearest_name("tokeniser", names, 4), "tokenizer");
    assert_null(nearest_name("zzzz", names, 4));
    assert_null(nearest_name("train", names, 0));
    memset(far, 'x', sizeof far - 1);
    far[sizeof far - 1] = '\0';
    assert_null(nearest_name(far, names, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_grows_and_keeps_its_end),
        cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_numbers_read_back_to_the_same_bits),
        cmocka_unit_test(test_short_numbers_stay_short),
        cmocka_unit_test(test_every_code_point_round_trips),
        cmocka_unit_test(test_malformed_sequences_are_refused),
        cmocka_unit_test(test_decode_always_advances),
        cmocka_unit_test(test_parse_int64),
        cmocka_unit_test(test_parse_double),
        cmocka_unit_test(test_parse_bool),
        cmocka_unit_test(test_nearest_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
