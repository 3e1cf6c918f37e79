/* test_metrics.c - metrics against scikit-learn, undefined ones, order of rows, the bootstrap. */
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/philox.h"
#include "worker/metrics.h"

enum { MOST = 1024 };

/* Rows of one case, with ids that are neither dense nor sorted. */
struct rows {
    struct scored scored;
    int64_t row[MOST];
    float logits[MOST], probabilities[MOST], value[MOST], weight[MOST];
    int32_t label[MOST];
    double loss[MOST];
};

static void bind(struct rows *r)
{
    struct scored *s = &r->scored;
    s->row = r->row;
    s->logits = r->logits;
    s->probabilities = r->probabilities;
    s->label = s->task == TASK_CLASSES ? r->label : NULL;
    s->value = s->task == TASK_CLASSES ? NULL : r->value;
    s->loss = r->loss;
    s->loss_divisor = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        r->row[i] = 1000 - 7 * i + (i % 2) * 5000;
        r->loss[i] = 0.1 * (double)(i + 1) / 3.0;
        s->loss_divisor += 1.0;
    }
    for (int64_t i = 0; i < s->n * s->outputs; i++)
        r->probabilities[i] = s->task == TASK_REGRESSION ? r->logits[i] : (float)(1.0 / (1.0 + exp(-r->logits[i])));
}

static int read_floats(const json_t *list, float *out)
{
    size_t i;
    json_t *value;
    assert_true(json_array_size(list) <= MOST);
    json_array_foreach(list, i, value)
        out[i] = (float)json_number_value(value);
    return (int)json_array_size(list);
}

static void read_case(const json_t *of, struct rows *r)
{
    const char *task = json_string_value(json_object_get(of, "task"));
    struct scored *s = &r->scored;
    size_t i;
    json_t *value;
    memset(r, 0, sizeof *r);
    s->task = task[0] == 'c' ? TASK_CLASSES : task[0] == 'm' ? TASK_MULTI_LABEL : TASK_REGRESSION;
    s->outputs = (int)json_integer_value(json_object_get(of, "outputs"));
    s->classes = (int)json_integer_value(json_object_get(of, "classes"));
    s->n = read_floats(json_object_get(of, "logits"), r->logits) / s->outputs;
    (void)read_floats(json_object_get(of, "value"), r->value);
    json_array_foreach(json_object_get(of, "label"), i, value)
        r->label[i] = (int32_t)json_integer_value(value);
    bind(r);
}

static json_t *golden(void)
{
    json_t *cases;
    assert_ok(json_read_file(TEST_DIR "/golden/metrics.json", (size_t)1 << 24, &cases));
    return cases;
}

static bool differs(double value, const json_t *wanted)
{
    double want = json_is_null(wanted) ? NAN : json_number_value(wanted);
    return isnan(value) != isnan(want) || fabs(value - want) > 1e-13 * (fabs(want) > 1.0 ? fabs(want) : 1.0);
}

static void check_class(const char *name, int c, const json_t *of, const struct class_values *got)
{
    const double values[] = {got->precision, got->recall, got->f1, got->roc_auc, got->pr_auc};
    static const char *const keys[] = {"precision", "recall", "f1", "roc_auc", "pr_auc"};
    assert_int_equal(got->truth, json_integer_value(json_object_get(of, "rows")));
    assert_int_equal(got->predicted, json_integer_value(json_object_get(of, "predicted")));
    for (int i = 0; i < 5; i++) {
        if (differs(values[i], json_object_get(of, keys[i])))
            fail_msg("%s: %s of class %d is %.17g, wanted %.17g", name, keys[i], c, values[i],
                     json_number_value(json_object_get(of, keys[i])));
    }
}

/* Equal to some 1e-13, or both undefined; a metric that the case does not list is not of the task. */
static void check_case(const json_t *of, const struct metric_values *got)
{
    const char *name = json_string_value(json_object_get(of, "name"));
    const json_t *metrics = json_object_get(of, "metrics"), *confusion = json_object_get(of, "confusion");
    for (int m = METRIC_LOSS + 1; m < METRIC_COUNT; m++) {
        const json_t *wanted = json_object_get(metrics, metric_name((enum metric)m));
        double value = got->value[m];
        if (got->of_task[m] != (wanted != NULL))
            fail_msg("%s: %s is%s of the task", name, metric_name((enum metric)m), wanted != NULL ? "" : " not");
        if (wanted == NULL)
            assert_true(isnan(value));
        else if (differs(value, wanted))
            fail_msg("%s: %s is %.17g, wanted %.17g", name, metric_name((enum metric)m), value, json_number_value(wanted));
    }
    const json_t *per_class = json_object_get(of, "per_class");
    assert_int_equal(got->per_class != NULL, per_class != NULL);
    assert_int_equal(got->classes, json_array_size(per_class));
    for (int c = 0; c < got->classes; c++)
        check_class(name, c, json_array_get(per_class, (size_t)c), &got->per_class[c]);
    assert_int_equal(got->confusion != NULL, confusion != NULL);
    for (int i = 0; i < got->classes * got->classes && confusion != NULL; i++)
        assert_int_equal(got->confusion[i], json_integer_value(json_array_get(
                                                json_array_get(confusion, (size_t)(i / got->classes)),
                                                (size_t)(i % got->classes))));
}

static void test_as_scikit_learn(void **state)
{
    static struct rows rows;
    json_t *cases = golden(), *of;
    size_t i;
    (void)state;
    assert_true(json_array_size(cases) > 40);
    json_array_foreach(cases, i, of) {
        struct metric_values got;
        read_case(of, &rows);
        assert_ok(metrics_compute(&rows.scored, &got));
        check_case(of, &got);
        metrics_release(&got);
    }
    json_decref(cases);
}

static void shuffle(const struct rows *from, struct rows *to, uint64_t key)
{
    int n = (int)from->scored.n, outputs = from->scored.outputs, order[MOST];
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)random_below(key, (uint64_t)i, (uint64_t)i + 1), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    *to = *from;
    bind(to);
    for (int i = 0; i < n; i++) {
        size_t size = (size_t)outputs * sizeof(float);
        to->row[i] = from->row[order[i]];
        to->label[i] = from->label[order[i]];
        to->loss[i] = from->loss[order[i]];
        memcpy(to->logits + i * outputs, from->logits + order[i] * outputs, size);
        memcpy(to->probabilities + i * outputs, from->probabilities + order[i] * outputs, size);
        memcpy(to->value + i * outputs, from->value + order[i] * outputs, size);
    }
}

static void test_order_of_rows_changes_no_bit(void **state)
{
    static struct rows rows, other;
    json_t *cases = golden(), *of;
    size_t i;
    (void)state;
    json_array_foreach(cases, i, of) {
        struct metric_values a, b;
        read_case(of, &rows);
        assert_ok(metrics_compute(&rows.scored, &a));
        for (uint64_t key = 0; key < 5; key++) {
            shuffle(&rows, &other, key);
            assert_ok(metrics_compute(&other.scored, &b));
            assert_memory_equal(a.value, b.value, sizeof a.value);
            for (int m = 0; m < METRIC_COUNT && key == 0; m++) {
                double x[2], y[2];
                assert_ok(metrics_interval(&rows.scored, (enum metric)m, 5, 20, x));
                assert_ok(metrics_interval(&other.scored, (enum metric)m, 5, 20, y));
                assert_memory_equal(x, y, sizeof x);
            }
            metrics_release(&b);
        }
        metrics_release(&a);
    }
    json_decref(cases);
}

static void two_classes(struct rows *r, int n, uint64_t key)
{
    memset(r, 0, sizeof *r);
    r->scored = (struct scored){.task = TASK_CLASSES, .n = n, .outputs = 2, .classes = 2};
    for (int i = 0; i < n; i++) {
        r->label[i] = (int32_t)random_below(key, (uint64_t)(3 * i), 2);
        r->logits[2 * i] = (float)random_below(key, (uint64_t)(3 * i + 1), 16) / 4.0f;
        r->logits[2 * i + 1] = (float)random_below(key, (uint64_t)(3 * i + 2), 16) / 4.0f + (float)r->label[i];
    }
    bind(r);
}

static void test_no_rows_are_undefined(void **state)
{
    static struct rows rows;
    (void)state;
    for (int task = TASK_CLASSES; task <= TASK_REGRESSION; task++) {
        struct metric_values got;
        double ci95[2] = {0, 0};
        two_classes(&rows, 0, 1);
        rows.scored.task = (enum task)task;
        assert_ok(metrics_compute(&rows.scored, &got));
        for (int m = 0; m < METRIC_COUNT; m++) {
            assert_true(isnan(got.value[m]));
            assert_ok(metrics_interval(&rows.scored, (enum metric)m, 1, 10, ci95));
            assert_true(isnan(ci95[0]) && isnan(ci95[1]));
        }
        metrics_release(&got);
    }
}

static void test_loss_is_summed_by_row(void **state)
{
    static struct rows rows;
    struct metric_values got;
    (void)state;
    two_classes(&rows, 3, 1);
    rows.row[0] = 30, rows.row[1] = 10, rows.row[2] = 20;
    rows.loss[0] = 1e16, rows.loss[1] = 1.0, rows.loss[2] = 1.0; /* by id: (1 + 1) + 1e16 */
    rows.scored.loss_divisor = 2.0;
    assert_ok(metrics_compute(&rows.scored, &got));
    assert_true(got.value[METRIC_LOSS] == (1e16 + 2.0) / 2.0);
    metrics_release(&got);
    rows.scored.loss_divisor = 0.0;
    assert_ok(metrics_compute(&rows.scored, &got));
    assert_true(got.of_task[METRIC_LOSS] && isnan(got.value[METRIC_LOSS]));
    metrics_release(&got);
    rows.scored.loss_divisor = 2.0;
    rows.scored.loss = NULL;
    assert_ok(metrics_compute(&rows.scored, &got));
    assert_true(isnan(got.value[METRIC_LOSS]));
    metrics_release(&got);
}

static void test_what_is_refused(void **state)
{
    static struct rows rows;
    struct metric_values got;
    double ci95[2];
    (void)state;
    two_classes(&rows, 5, 1);
    rows.row[4] = rows.row[1];
    assert_fails(metrics_compute(&rows.scored, &got), STATUS_DATA, "row 5993 was scored twice");
    assert_null(got.confusion);
    assert_fails(metrics_interval(&rows.scored, METRIC_ACCURACY, 1, 10, ci95), STATUS_DATA, "twice");
    assert_true(isnan(ci95[0]));
    two_classes(&rows, 5, 1);
    rows.label[2] = 2;
    assert_fails(metrics_compute(&rows.scored, &got), STATUS_DATA, "row 986 has the label 2");
    rows.label[2] = -1;
    assert_fails(metrics_compute(&rows.scored, &got), STATUS_DATA, "label -1");
    two_classes(&rows, 5, 1);
    rows.logits[5] = NAN;
    assert_fails(metrics_compute(&rows.scored, &got), STATUS_NUMERIC, "row 986: score 1 is not finite");
    two_classes(&rows, 5, 1);
    rows.scored.classes = 3;
    assert_fails(metrics_compute(&rows.scored, &got), STATUS_ARG, "3 classes");
    two_classes(&rows, 5, 1);
    assert_fails(metrics_interval(&rows.scored, METRIC_ACCURACY, 1, 0, ci95), STATUS_ARG, "0 resamples");
}

static void test_names_and_directions(void **state)
{
    enum metric found = METRIC_R2;
    (void)state;
    for (int m = 0; m < METRIC_COUNT; m++) {
        bool error = m == METRIC_LOSS || m == METRIC_LOG_LOSS || m == METRIC_MSE || m == METRIC_MAE || m == METRIC_RMSE ||
                     m == METRIC_BRIER || m == METRIC_ECE || m == METRIC_HAMMING_LOSS;
        double good = error ? 0.1 : 0.9, bad = error ? 0.9 : 0.1;
        assert_true(metric_find(metric_name((enum metric)m), &found));
        assert_int_equal(found, m);
        assert_int_equal(metric_higher_is_better(found), !error);
        assert_true(metric_better(found, good, bad));
        assert_false(metric_better(found, bad, good));
        assert_false(metric_better(found, good, good));
        assert_true(metric_better(found, bad, NAN));
        assert_false(metric_better(found, NAN, bad));
        assert_false(metric_better(found, NAN, NAN));
    }
    found = METRIC_R2;
    assert_false(metric_find("auc", &found));
    assert_false(metric_find("", &found));
    assert_int_equal(found, METRIC_R2);
    assert_false(metric_is_of(METRIC_TOP3_ACCURACY, TASK_CLASSES, 3));
    assert_true(metric_is_of(METRIC_TOP3_ACCURACY, TASK_CLASSES, 4));
    assert_false(metric_is_of(METRIC_TOP5_ACCURACY, TASK_CLASSES, 5));
    assert_false(metric_is_of(METRIC_WEIGHTED_ROC_AUC, TASK_CLASSES, 2));
    assert_true(metric_is_of(METRIC_WEIGHTED_ROC_AUC, TASK_MULTI_LABEL, 2));
    struct str list = {0};
    assert_ok(metrics_list(TASK_REGRESSION, 0, &list));
    assert_string_equal(list.p, "loss mse rmse mae pearson spearman kendall r2 explained_variance");
    str_release(&list);
    assert_false(metric_is_of(METRIC_F1, TASK_CLASSES, 3));
    assert_true(metric_is_of(METRIC_F1, TASK_CLASSES, 2));
    assert_false(metric_is_of(METRIC_MCC, TASK_MULTI_LABEL, 2));
    for (int task = TASK_CLASSES; task <= TASK_REGRESSION; task++)
        assert_true(metric_is_of(metric_default((enum task)task), (enum task)task, 3));
}

static void test_json_has_null_for_undefined(void **state)
{
    static struct rows rows;
    struct metric_values got;
    (void)state;
    two_classes(&rows, 4, 1);
    for (int i = 0; i < 4; i++)
        rows.label[i] = 1;
    assert_ok(metrics_compute(&rows.scored, &got));
    json_t *json = metrics_json(&got);
    assert_true(json_is_null(json_object_get(json, "roc_auc")));
    assert_true(json_is_real(json_object_get(json, "accuracy")));
    assert_true(json_is_real(json_object_get(json, "loss")));
    assert_null(json_object_get(json, "mse"));
    json_decref(json);
    char *labels[] = {"no", "yes"};
    json = metrics_per_class_json(&got, labels);
    assert_int_equal(json_array_size(json), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json, 1), "label")), "yes");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(json, 1), "rows")), 4);
    assert_true(json_is_null(json_object_get(json_array_get(json, 0), "recall")));
    assert_true(json_is_null(json_object_get(json_array_get(json, 1), "roc_auc")));
    assert_true(json_number_value(json_object_get(json_array_get(json, 1), "pr_auc")) == 1.0);
    json_decref(json);
    metrics_release(&got);
}

/* One resample is the metric of the drawn rows, drawn as the header says; here with copies under new ids. */
static void test_resample_is_metric_of_the_drawn_rows(void **state)
{
    static struct rows rows, drawn;
    json_t *cases = golden(), *of;
    size_t at;
    (void)state;
    json_array_foreach(cases, at, of) {
        struct metric_values want;
        int order[MOST];
        read_case(of, &rows);
        int n = (int)rows.scored.n, outputs = rows.scored.outputs;
        for (int i = 0; i < n; i++) { /* place of the i-th row by id */
            int smaller = 0;
            for (int j = 0; j < n; j++)
                smaller += rows.row[j] < rows.row[i];
            order[smaller] = i;
        }
        drawn = rows;
        bind(&drawn);
        for (int i = 0; i < n; i++) {
            int from = order[random_below(random_key(11, RANDOM_BOOTSTRAP, 0, 0), (uint64_t)i, (uint64_t)n)];
            size_t size = (size_t)outputs * sizeof(float);
            drawn.row[i] = i;
            drawn.label[i] = rows.label[from];
            drawn.loss[i] = rows.loss[from];
            memcpy(drawn.logits + i * outputs, rows.logits + from * outputs, size);
            memcpy(drawn.probabilities + i * outputs, rows.probabilities + from * outputs, size);
            memcpy(drawn.value + i * outputs, rows.value + from * outputs, size);
        }
        assert_ok(metrics_compute(&drawn.scored, &want));
        for (int m = 0; m < METRIC_COUNT; m++) {
            double got[2];
            assert_ok(metrics_interval(&rows.scored, (enum metric)m, 11, 1, got));
            if (isnan(got[0]) != isnan(want.value[m]) || fabs(got[0] - want.value[m]) > 1e-12 * fabs(got[0]) + 1e-14 ||
                (!isnan(got[0]) && got[1] != got[0]))
                fail_msg("%s: %s of one resample is %.17g, wanted %.17g",
                         json_string_value(json_object_get(of, "name")), metric_name((enum metric)m), got[0],
                         want.value[m]);
        }
        metrics_release(&want);
    }
    json_decref(cases);
}

/* The accuracy of 400 rows of which 300 are right: mean 0.75, standard error sqrt(0.75 * 0.25 / 400) = 0.02165. */
static void test_interval_has_the_binomial_width(void **state)
{
    static struct rows rows;
    double a[2], b[2];
    (void)state;
    two_classes(&rows, 400, 9);
    for (int i = 0; i < 400; i++) {
        rows.logits[2 * i] = 0.0f;
        rows.logits[2 * i + 1] = (rows.label[i] == 1) == (i % 4 != 0) ? 1.0f : -1.0f;
    }
    assert_ok(metrics_interval(&rows.scored, METRIC_ACCURACY, 1, 4000, a));
    support_assert_near(a[0], 0.75 - 1.96 * 0.02165, 0.005, "lower end");
    support_assert_near(a[1], 0.75 + 1.96 * 0.02165, 0.005, "upper end");
    assert_ok(metrics_interval(&rows.scored, METRIC_ACCURACY, 1, 4000, b));
    assert_memory_equal(a, b, sizeof a);
    assert_ok(metrics_interval(&rows.scored, METRIC_LOSS, 1, 400, a));
    assert_ok(metrics_interval(&rows.scored, METRIC_LOSS, 2, 400, b));
    assert_true(a[0] != b[0]);
}

/* A resample draws one certain row with probability 1 - (1 - 1/n)^n, about 0.63, and two certain rows with 0.4. */
static void test_interval_of_rarely_defined_metrics(void **state)
{
    static struct rows rows;
    double ci95[2];
    (void)state;
    two_classes(&rows, 30, 2);
    for (int i = 0; i < 30; i++)
        rows.label[i] = i == 17;
    assert_ok(metrics_interval(&rows.scored, METRIC_ROC_AUC, 1, 500, ci95));
    assert_false(isnan(ci95[0]) || isnan(ci95[1]));
    rows.scored.task = TASK_MULTI_LABEL; /* two labels with one positive row each */
    rows.scored.value = rows.value;
    memset(rows.value, 0, sizeof rows.value);
    rows.value[0] = rows.value[7] = 1.0f;
    assert_ok(metrics_interval(&rows.scored, METRIC_ROC_AUC, 1, 500, ci95));
    assert_true(isnan(ci95[0]) && isnan(ci95[1]));
}

static void test_interval_is_fast(void **state)
{
    enum { N = 10000 };
    struct scored scored = {.task = TASK_CLASSES, .n = N, .outputs = 2, .classes = 2};
    int64_t *row;
    int32_t *label;
    float *logits;
    double ci95[2];
    (void)state;
    assert_ok(mem_alloc(N, sizeof *row, "rows", &row));
    assert_ok(mem_alloc(N, sizeof *label, "labels", &label));
    assert_ok(mem_alloc(2 * N, sizeof *logits, "logits", &logits));
    for (int i = 0; i < N; i++) {
        row[i] = i;
        label[i] = i % 3 == 0;
        logits[2 * i] = (float)random_below(4, (uint64_t)i, 100000) / 100000.0f + 0.1f * (float)label[i];
    }
    scored.row = row;
    scored.label = label;
    scored.logits = logits;
    clock_t begin = clock();
    assert_ok(metrics_interval(&scored, METRIC_ROC_AUC, 1, 1000, ci95));
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    print_message("1,000 resamples of 10,000 rows: %.2f s of CPU\n", seconds);
    assert_true(ci95[0] < ci95[1] && ci95[1] - ci95[0] < 0.05);
    assert_true(seconds < 20.0); /* a guard against sorting in each resample, under sanitizers too */
    mem_free(row);
    mem_free(label);
    mem_free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_scikit_learn),
        cmocka_unit_test(test_order_of_rows_changes_no_bit),
        cmocka_unit_test(test_no_rows_are_undefined),
        cmocka_unit_test(test_loss_is_summed_by_row),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_names_and_directions),
        cmocka_unit_test(test_json_has_null_for_undefined),
        cmocka_unit_test(test_resample_is_metric_of_the_drawn_rows),
        cmocka_unit_test(test_interval_has_the_binomial_width),
        cmocka_unit_test(test_interval_of_rarely_defined_metrics),
        cmocka_unit_test(test_interval_is_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
