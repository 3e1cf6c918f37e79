/* What a page may hold: escaping of everything from outside, cut texts, tables; numbers as people read them. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "report/format.h"
#include "report/page.h"

static void expect(void (*write)(struct page *page, const char *text), const char *text, const char *wanted)
{
    struct page page = {0};
    write(&page, text);
    assert_int_equal(page.st, STATUS_OK);
    assert_string_equal(page.text.p == NULL ? "" : page.text.p, wanted);
    str_release(&page.text);
}

static void test_texts_are_escaped(void **state)
{
    (void)state;
    expect(page_text, "plain text", "plain text");
    expect(page_text, "<script>alert('&\"')</script>",
           "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;");
    expect(page_text, "a\xFF" "b\xC0\xAF" "c", "a\xEF\xBF\xBD" "b\xEF\xBF\xBD\xEF\xBF\xBD" "c");
    expect(page_text, "\x01\x1B[31m\x7F\tend\n", "\xEF\xBF\xBD\xEF\xBF\xBD[31m\xEF\xBF\xBD\tend\n");
    expect(page_text, "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");                /* a surrogate */
    expect(page_text, "\xEF\xBF\xBF \xEF\xB7\x90 x", "\xEF\xBF\xBD \xEF\xBF\xBD x");          /* noncharacters */
    expect(page_text, "\xC2\x85\xE2\x82\xAC\xF0\x9F\x98\x80", "\xEF\xBF\xBD\xE2\x82\xAC\xF0\x9F\x98\x80");
    expect(page_cell, NULL, "<td><bdi>\xE2\x80\x93</bdi></td>");
    expect(page_cell, "<b>", "<td><bdi>&lt;b&gt;</bdi></td>");
}

static void clip(struct page *page, const char *text)
{
    page_clip(page, text, strlen(text), 3);
}

static void test_long_texts_are_cut_after_whole_characters(void **state)
{
    (void)state;
    expect(clip, "abc", "abc");
    expect(clip, "abcd", "abc\xE2\x80\xA6");
    expect(clip, "\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4", "\xC3\xA4\xC3\xA4\xC3\xA4\xE2\x80\xA6");
    expect(clip, "<<<<", "&lt;&lt;&lt;\xE2\x80\xA6");
    expect(clip, "", "");
}

static void test_markup_that_is_too_long_is_our_bug(void **state)
{
    struct page page = {0};
    char text[600];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    page_rawf(&page, "%s", text);
    assert_int_equal(page.st, STATUS_INTERNAL);
    page_text(&page, "nothing is added after a failure");
    assert_true(page.text.n == 0);
    str_release(&page.text);
}

static void test_numbers(void **state)
{
    char t[FORMAT_BYTES];
    (void)state;
    assert_string_equal(format_score(0.991, t), "0.9910");
    assert_string_equal(format_score(0.0, t), "0.0000");
    assert_string_equal(format_score(123.45, t), "123.5");
    assert_string_equal(format_score(NAN, t), "\xE2\x80\x93");
    assert_string_equal(format_difference(0.012, t), "+0.0120");
    assert_string_equal(format_difference(-1.5, t), "-1.5000");
    assert_string_equal(format_count(0, t), "0");
    assert_string_equal(format_count(-1234567, t), "-1,234,567");
    assert_string_equal(format_count(INT64_MIN, t), "-9,223,372,036,854,775,808");
    assert_string_equal(format_short(950, t), "950");
    assert_string_equal(format_short(12345, t), "12.3k");
    assert_string_equal(format_short(2e-5, t), "2e-5");
    assert_string_equal(format_short(999999, t), "1M");
    assert_string_equal(format_percent(0.046, t), "4.6 %");
    assert_string_equal(format_seconds(0.44, t), "0.4 s");
    assert_string_equal(format_seconds(125, t), "2m 05s");
    assert_string_equal(format_seconds(3599.7, t), "1h 00m");
    assert_string_equal(format_seconds(-1, t), "\xE2\x80\x93");
    assert_string_equal(format_p(0.0341, t), "0.034");
    assert_string_equal(format_p(0.0001, t), "< 0.001");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_are_escaped),
        cmocka_unit_test(test_long_texts_are_cut_after_whole_characters),
        cmocka_unit_test(test_markup_that_is_too_long_is_our_bug),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
