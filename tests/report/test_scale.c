/* Axes that people can read, whatever the values; curves with fewer points that look the same. */
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "report/chart.h"
#include "report/scale.h"

static void check_axis(const struct scale *s)
{
    assert_true(isfinite(s->low) && isfinite(s->high) && s->low < s->high);
    assert_true(s->ticks >= 1 && s->ticks <= SCALE_TICKS);
    for (int i = 0; i < s->ticks; i++) {
        char text[FORMAT_BYTES];
        assert_true(isfinite(s->tick[i]) && (i == 0 || s->tick[i] > s->tick[i - 1]));
        assert_true(strlen(scale_label(s, i, text)) > 0);
    }
    assert_true(scale_at(s, s->low) == 0.0 && scale_at(s, s->high) == 1.0);
    assert_true(scale_at(s, NAN) == 0.0 && scale_at(s, INFINITY) == 1.0 && scale_at(s, -INFINITY) == 0.0);
}

static void test_ticks_are_round(void **state)
{
    struct scale s;
    char text[FORMAT_BYTES];
    (void)state;
    scale_linear(&s, 0.03, 0.97, 5);
    support_assert_near(s.low, 0.0, 1e-12, "low");
    support_assert_near(s.high, 1.0, 1e-12, "high");
    assert_int_equal(s.ticks, 6);
    assert_string_equal(scale_label(&s, 1, text), "0.2");
    scale_between(&s, 0.0, 37.0, 5);
    assert_int_equal(s.ticks, 8);
    support_assert_near(s.tick[7], 35.0, 1e-12, "last tick");
    scale_log(&s, 0.01, 100.0);
    support_assert_near(scale_at(&s, 1.0), 0.5, 1e-12, "middle of a log scale");
    scale_counts(&s, 999.0);
    support_assert_near(scale_at(&s, 0.0), 0.0, 0.0, "no count");
}

static void test_any_values_make_an_axis(void **state)
{
    static const double ends[] = {0.0, 1.0, -1.0, 1e-300, -1e-300, 1e300, -1e300, 3.14159, NAN, INFINITY, -INFINITY, 1e-12};
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        for (size_t k = 0; k < sizeof ends / sizeof ends[0]; k++) {
            struct scale s;
            scale_linear(&s, ends[i], ends[k], 5);
            check_axis(&s);
            scale_between(&s, ends[i], ends[k], 5);
            check_axis(&s);
            scale_log(&s, ends[i], ends[k]);
            check_axis(&s);
            scale_counts(&s, ends[k]);
            check_axis(&s);
        }
    }
}

static void test_thinning_keeps_ends_and_peaks(void **state)
{
    enum { N = 100000, MOST = 500 };
    static double x[N], y[N];
    int64_t keep[MOST];
    bool peak = false;
    (void)state;
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = sin(i / 5000.0);
    }
    y[77777] = 9.0;
    assert_int_equal(thin(x, y, N, MOST, keep), MOST);
    assert_int_equal(keep[0], 0);
    assert_int_equal(keep[MOST - 1], N - 1);
    for (int i = 0; i < MOST; i++) {
        peak = peak || keep[i] == 77777;
        assert_true(i == 0 || keep[i] > keep[i - 1]);
    }
    assert_true(peak);
    assert_int_equal(thin(x, y, 4, MOST, keep), 4);
    assert_int_equal(thin(x, y, 0, MOST, keep), 0);
}

/* Names of the legend may be gone before the chart ends; lines without a finite point are left out. */
static void test_a_chart_keeps_its_names(void **state)
{
    struct page page = {0};
    struct chart chart;
    struct chart_opts opts = {.title = "a < b", .x_label = "x", .y_label = "y"};
    double x[] = {0, 1, 2}, y[] = {0, NAN, 1}, none[] = {NAN, NAN, NAN};
    char name[] = "first & last";
    (void)state;
    scale_linear(&opts.x, 0, 2, 5);
    scale_linear(&opts.y, 0, 1, 5);
    chart_begin(&chart, &page, &opts);
    chart_line(&chart, x, y, 3, 0, false, name);
    memset(name, '?', sizeof name - 1);
    chart_line(&chart, x, none, 3, 1, false, "gone");
    for (int i = 0; i < 20; i++)
        chart_line(&chart, x, y, 3, i, false, "many");
    chart_end(&chart);
    assert_int_equal(page.st, STATUS_OK);
    support_assert_contains(page.text.p, "<bdi>first &amp; last</bdi>");
    support_assert_contains(page.text.p, "a &lt; b");
    support_assert_contains(page.text.p, "and 7 more");
    assert_null(strstr(page.text.p, "gone"));
    assert_null(strstr(page.text.p, "nan"));
    str_release(&page.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks_are_round),
        cmocka_unit_test(test_any_values_make_an_axis),
        cmocka_unit_test(test_thinning_keeps_ends_and_peaks),
        cmocka_unit_test(test_a_chart_keeps_its_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
