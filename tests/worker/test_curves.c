/* test_curves.c - curves against scikit-learn, thinning, bins, confusions. */
#include "tests/worker/golden_scores.h"
#include "worker/curves.h"

static struct rows rows;

static void check_points(const char *what, const struct curve *got, const json_t *wanted)
{
    double want[3 * MOST_ROWS];
    int n = golden_reals(wanted, want, 3 * MOST_ROWS);
    assert_int_equal(got->count, n / 3);
    assert_int_equal(got->vertices, n / 3);
    for (int i = 0; i < got->count; i++) {
        const struct curve_point *p = &got->point[i];
        if (p->x != want[3 * i] || p->y != want[3 * i + 1] || p->threshold != want[3 * i + 2])
            fail_msg("%s, point %d is %.17g %.17g at %.17g, wanted %.17g %.17g at %.17g", what, i, p->x, p->y, p->threshold,
                     want[3 * i], want[3 * i + 1], want[3 * i + 2]);
    }
}

static void check_bins(int column, const json_t *of)
{
    struct calibration_bin bin[10];
    struct histogram_bin histogram[10];
    double want[20];
    const json_t *counts = json_object_get(of, "histogram");
    int n = golden_reals(json_object_get(of, "calibration"), want, 20), met = 0;
    assert_ok(curve_calibration(&rows.scored, column, 10, bin));
    assert_ok(curve_histogram(&rows.scored, column, 10, histogram));
    for (int b = 0; b < 10; b++) {
        assert_true(bin[b].low == b / 10.0 && bin[b].high == (b + 1) / 10.0);
        assert_int_equal(histogram[b].positives, json_integer_value(json_array_get(json_array_get(counts, 0), (size_t)b)));
        assert_int_equal(histogram[b].negatives, json_integer_value(json_array_get(json_array_get(counts, 1), (size_t)b)));
        assert_int_equal(histogram[b].positives + histogram[b].negatives, bin[b].rows);
        assert_int_equal(histogram[b].positives, bin[b].right);
        if (bin[b].rows == 0) {
            assert_true(isnan(bin[b].probability));
            continue;
        }
        support_assert_near(bin[b].probability, want[2 * met], 1e-12, "mean probability");
        support_assert_near((double)bin[b].right / (double)bin[b].rows, want[2 * met + 1], 1e-12, "share");
        met++;
    }
    assert_int_equal(met, n / 2);
}

static void test_as_scikit_learn(void **state)
{
    json_t *cases = golden_statistics("curves"), *of;
    size_t i;
    (void)state;
    json_array_foreach(cases, i, of) {
        read_rows(of, "label", &rows);
        for (int column = 0; column < 2; column++) {
            const json_t *want = json_array_get(json_object_get(of, "columns"), (size_t)column);
            struct metric_values values;
            struct curve roc, pr;
            assert_ok(curve_roc(&rows.scored, column, 1000, &roc));
            assert_ok(curve_pr(&rows.scored, column, 1000, &pr));
            check_points("ROC", &roc, json_object_get(want, "roc"));
            check_points("PR", &pr, json_object_get(want, "pr"));
            support_assert_near(roc.area, json_number_value(json_object_get(want, "roc_area")), 1e-14, "ROC area");
            support_assert_near(pr.area, json_number_value(json_object_get(want, "pr_area")), 1e-14, "PR area");
            check_bins(column, want);
            assert_ok(metrics_compute(&rows.scored, &values));
            assert_true(roc.area == values.per_class[column].roc_auc);
            assert_true(pr.area == values.per_class[column].pr_auc);
            metrics_release(&values);
            curve_release(&roc);
            curve_release(&pr);
        }
    }
    json_decref(cases);
}

/* Many rows thinned to few points: all of them vertices, the ends kept, no gap longer than it may be. */
static void test_thinning(void **state)
{
    static const int bounds[] = {2, 3, 10, 57, 200};
    (void)state;
    memset(&rows, 0, sizeof rows);
    for (int i = 0; i < MOST_ROWS; i++) {
        rows.logits[i] = (float)((unsigned)(i * 2654435761u) >> 8) / 1e6f - 8.0f;
        rows.label[i] = ((unsigned)(i * 40503u) % 17u) + (rows.logits[i] > 0 ? 6 : 0) > 9;
    }
    bind_rows(&rows, TASK_CLASSES, 1, 2, MOST_ROWS);
    for (int roc = 0; roc < 2; roc++) {
        struct curve all;
        assert_ok((roc ? curve_roc : curve_pr)(&rows.scored, 1, 10000, &all));
        assert_true(all.count > 200 && all.count == all.vertices);
        double length = 0;
        for (int i = 1; i < all.count; i++)
            length += fabs(all.point[i].x - all.point[i - 1].x) + fabs(all.point[i].y - all.point[i - 1].y);
        for (size_t k = 0; k < sizeof bounds / sizeof bounds[0]; k++) {
            struct curve few;
            int at = 0;
            double gap = 0;
            assert_ok((roc ? curve_roc : curve_pr)(&rows.scored, 1, bounds[k], &few));
            assert_true(few.count <= bounds[k] && few.count >= 2 && few.vertices == all.vertices && few.area == all.area);
            assert_memory_equal(&few.point[0], &all.point[0], sizeof all.point[0]);
            assert_memory_equal(&few.point[few.count - 1], &all.point[all.count - 1], sizeof all.point[0]);
            for (int i = 0; i < all.count; i++) { /* a left-out vertex is behind the last kept one by less than a part */
                if (i > 0)
                    gap += fabs(all.point[i].x - all.point[i - 1].x) + fabs(all.point[i].y - all.point[i - 1].y);
                if (at < few.count && memcmp(&few.point[at], &all.point[i], sizeof all.point[i]) == 0) {
                    at++;
                    gap = 0;
                } else {
                    assert_true(gap <= length / (bounds[k] - 1) + 1e-12);
                }
            }
            assert_int_equal(at, few.count);
            curve_release(&few);
        }
        json_t *json = curve_json(&all);
        assert_int_equal(json_array_size(json), all.count);
        assert_true(json_is_null(json_array_get(json_array_get(json, 0), 2)));
        assert_true(json_number_value(json_array_get(json_array_get(json, 1), 2)) == all.point[1].threshold);
        json_decref(json);
        curve_release(&all);
    }
}

/* Of three classes each is drawn against the rest; labels by their own logits; the area is the metric's. */
static void test_areas_are_those_of_the_metrics(void **state)
{
    (void)state;
    for (int task = TASK_CLASSES; task <= TASK_MULTI_LABEL; task++) {
        struct metric_values values;
        double roc_sum = 0, pr_sum = 0;
        memset(&rows, 0, sizeof rows);
        for (int i = 0; i < 90 * 3; i++) {
            rows.logits[i] = (float)((unsigned)(i * 2654435761u) >> 20) / 512.0f;
            rows.value[i] = (float)((unsigned)(i * 40503u) % 7u < 3u);
        }
        for (int i = 0; i < 90; i++)
            rows.label[i] = i * 7 % 3;
        bind_rows(&rows, (enum task)task, 3, 3, 90);
        assert_ok(metrics_compute(&rows.scored, &values));
        for (int c = 0; c < 3; c++) {
            struct curve roc, pr;
            struct calibration_bin bin[4];
            int64_t n = 0;
            assert_ok(curve_roc(&rows.scored, c, 50, &roc));
            assert_ok(curve_pr(&rows.scored, c, 50, &pr));
            assert_true(roc.area == values.per_class[c].roc_auc);
            assert_true(pr.area == values.per_class[c].pr_auc);
            assert_int_equal(roc.positives, values.per_class[c].truth);
            roc_sum += roc.area;
            pr_sum += pr.area;
            assert_ok(curve_calibration(&rows.scored, c, 4, bin));
            for (int b = 0; b < 4; b++)
                n += bin[b].rows;
            assert_int_equal(n, 90);
            curve_release(&roc);
            curve_release(&pr);
        }
        assert_true(roc_sum / 3 == values.value[METRIC_ROC_AUC]);
        assert_true(pr_sum / 3 == values.value[METRIC_PR_AUC]);
        metrics_release(&values);
    }
}

/* The bins of the top probability are those of the expected calibration error. */
static void test_top_bins_give_the_calibration_error(void **state)
{
    json_t *cases = golden_statistics("curves"), *of;
    size_t i;
    (void)state;
    json_array_foreach(cases, i, of) {
        struct calibration_bin bin[METRIC_ECE_BINS];
        struct metric_values values;
        double error = 0;
        read_rows(of, "label", &rows);
        assert_ok(curve_calibration(&rows.scored, -1, METRIC_ECE_BINS, bin));
        assert_ok(metrics_compute(&rows.scored, &values));
        for (int b = 0; b < METRIC_ECE_BINS; b++) {
            if (bin[b].rows > 0)
                error += fabs((double)bin[b].right - bin[b].probability * (double)bin[b].rows) / (double)rows.scored.n;
            assert_true(bin[b].rows == 0 || bin[b].high > 0.5); /* of two classes the predicted one */
        }
        support_assert_near(error, values.value[METRIC_ECE], 1e-14, "expected calibration error");
        metrics_release(&values);
    }
    json_decref(cases);
}

static void test_undefined_and_refused(void **state)
{
    struct curve curve;
    struct calibration_bin bin[3];
    struct histogram_bin histogram[3];
    (void)state;
    memset(&rows, 0, sizeof rows);
    bind_rows(&rows, TASK_CLASSES, 2, 2, 4);
    assert_ok(curve_roc(&rows.scored, 1, 10, &curve)); /* class 1 is nowhere */
    assert_true(curve.count == 0 && isnan(curve.area) && curve.negatives == 4);
    assert_ok(curve_pr(&rows.scored, 1, 10, &curve));
    assert_true(curve.count == 0 && isnan(curve.area));
    json_t *json = curve_json(&curve);
    assert_int_equal(json_array_size(json), 0);
    json_decref(json);
    assert_ok(curve_roc(&rows.scored, 0, 10, &curve));
    assert_int_equal(curve.count, 0);
    assert_ok(curve_pr(&rows.scored, 0, 10, &curve)); /* class 0 is everywhere */
    assert_true(curve.count == 2 && curve.area == 1.0 && curve.point[1].x == 1.0 && curve.point[1].y == 1.0);
    curve_release(&curve);
    rows.scored.n = 0;
    assert_ok(curve_roc(&rows.scored, 1, 10, &curve));
    assert_int_equal(curve.count, 0);
    assert_ok(curve_histogram(&rows.scored, 1, 3, histogram));
    assert_int_equal(histogram[2].negatives, 0);
    assert_fails(curve_roc(&rows.scored, 2, 10, &curve), STATUS_ARG, "class or label 2, there are 2");
    assert_fails(curve_pr(&rows.scored, -1, 10, &curve), STATUS_ARG, "class or label -1");
    assert_fails(curve_pr(&rows.scored, 0, 1, &curve), STATUS_ARG, "a curve of 1 points");
    assert_fails(curve_calibration(&rows.scored, 0, 0, bin), STATUS_ARG, "0 points");
    rows.scored.n = 4;
    rows.logits[3] = NAN;
    assert_fails(curve_roc(&rows.scored, 1, 10, &curve), STATUS_NUMERIC, "not finite");
    assert_null(curve.point);
    rows.logits[3] = 0;
    bind_rows(&rows, TASK_MULTI_LABEL, 2, 2, 4);
    assert_fails(curve_calibration(&rows.scored, -1, 3, bin), STATUS_ARG, "label -1");
    bind_rows(&rows, TASK_REGRESSION, 1, 0, 4);
    assert_fails(curve_roc(&rows.scored, 0, 10, &curve), STATUS_ARG, "not of numbers");
}

static void test_confusions_are_the_most_frequent(void **state)
{
    static int64_t confusion[] = {50, 3, 0, 1, 60, 3, 7, 0, 9};
    struct metric_values values = {.confusion = confusion, .classes = 3};
    static const struct confusion_cell wanted[] = {{2, 0, 7}, {0, 1, 3}, {1, 2, 3}, {1, 0, 1}};
    struct confusion_cell cell[6];
    int count;
    (void)state;
    for (int most = 0; most <= 6; most++) {
        curve_confusions(&values, most, cell, &count);
        assert_int_equal(count, most < 4 ? most : 4);
        for (int i = 0; i < count; i++)
            assert_true(cell[i].truth == wanted[i].truth && cell[i].predicted == wanted[i].predicted &&
                        cell[i].rows == wanted[i].rows);
    }
    values.confusion = NULL;
    curve_confusions(&values, 6, cell, &count);
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_scikit_learn),
        cmocka_unit_test(test_thinning),
        cmocka_unit_test(test_areas_are_those_of_the_metrics),
        cmocka_unit_test(test_top_bins_give_the_calibration_error),
        cmocka_unit_test(test_undefined_and_refused),
        cmocka_unit_test(test_confusions_are_the_most_frequent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
