/* test_calibration.c - temperatures and thresholds against SciPy and brute force, nested over folds, degenerate rows. */
#include "tests/worker/golden_scores.h"
#include "worker/calibration.h"

enum { FOLDS = 4 };

static struct rows rows, shuffled;
static int32_t fold[MOST_ROWS];

static void read_folds(const json_t *of)
{
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(of, "fold"), i, value)
        fold[i] = (int32_t)json_integer_value(value);
}

static double log_loss_of(const float *logits)
{
    struct scored scored = rows.scored;
    struct metric_values values;
    scored.logits = logits;
    assert_ok(metrics_compute(&scored, &values));
    double loss = values.value[METRIC_LOG_LOSS];
    metrics_release(&values);
    return loss;
}

static void test_temperature_is_the_best(void **state)
{
    json_t *cases = golden_statistics("calibration"), *of;
    size_t at;
    (void)state;
    json_array_foreach(cases, at, of) {
        double want = json_number_value(json_object_get(of, "temperature")), got, nested[FOLDS], wanted[FOLDS];
        float scaled[MOST_SCORES];
        read_rows(of, "target", &rows);
        read_folds(of);
        assert_ok(temperature_fit(&rows.scored, NULL, &got));
        support_assert_near(got, want, 1e-13 * want, "temperature");
        for (int i = 0; i < rows.scored.n * rows.scored.outputs; i++)
            scaled[i] = (float)((double)rows.logits[i] / got);
        support_assert_near(log_loss_of(scaled), json_number_value(json_object_get(of, "loss")), 1e-7, "loss");
        for (double off = 0.8; off < 1.3; off += 0.4) { /* no other temperature is better */
            for (int i = 0; i < rows.scored.n * rows.scored.outputs; i++)
                scaled[i] = (float)((double)rows.logits[i] / (got * off));
            assert_true(log_loss_of(scaled) > json_number_value(json_object_get(of, "loss")));
        }
        (void)golden_reals(json_object_get(of, "nested"), wanted, FOLDS);
        assert_ok(temperature_nested(&rows.scored, fold, FOLDS, nested, scaled));
        for (int f = 0; f < FOLDS; f++)
            support_assert_near(nested[f], wanted[f], 1e-13 * wanted[f], "temperature of a fold");
        for (int i = 0; i < rows.scored.n * rows.scored.outputs; i++)
            assert_true(scaled[i] == (float)((double)rows.logits[i] / nested[fold[i / rows.scored.outputs]]));
    }
    json_decref(cases);
}

/* A fold's own rows do not matter to its temperature and thresholds, and the order of rows to none. */
static void test_folds_do_not_see_themselves(void **state)
{
    json_t *cases = golden_statistics("calibration"), *of;
    size_t at;
    (void)state;
    json_array_foreach(cases, at, of) {
        double before[FOLDS], after[FOLDS];
        double bounds[FOLDS * 4], others[FOLDS * 4];
        float scaled[MOST_SCORES];
        read_rows(of, "target", &rows);
        read_folds(of);
        int outputs = rows.scored.outputs, columns = threshold_count(&rows.scored);
        assert_ok(temperature_nested(&rows.scored, fold, FOLDS, before, scaled));
        if (columns > 0)
            assert_ok(thresholds_nested(&rows.scored, fold, FOLDS, METRIC_F1, bounds, scaled));
        for (int i = 0; i < rows.scored.n; i++) { /* turn fold 2 upside down */
            for (int c = 0; c < outputs && fold[i] == 2; c++)
                rows.logits[i * outputs + c] *= -3.0f;
        }
        assert_ok(temperature_nested(&rows.scored, fold, FOLDS, after, scaled));
        for (int f = 0; f < FOLDS; f++)
            assert_true((before[f] == after[f]) == (f == 2));
        if (columns > 0) {
            int differ = 0;
            assert_ok(thresholds_nested(&rows.scored, fold, FOLDS, METRIC_F1, others, scaled));
            assert_memory_equal(bounds + 2 * columns, others + 2 * columns, (size_t)columns * sizeof *bounds);
            for (int i = 0; i < FOLDS * columns; i++)
                differ += bounds[i] != others[i];
            assert_true(differ > 0);
        }
        read_rows(of, "target", &rows);
        shuffled = rows;
        bind_rows(&shuffled, rows.scored.task, outputs, rows.scored.classes, rows.scored.n);
        int n = (int)rows.scored.n;
        for (int i = 0; i < n; i++) { /* the same rows, from the last to the first */
            int j = n - 1 - i;
            shuffled.row[i] = rows.row[j];
            shuffled.label[i] = rows.label[j];
            memcpy(shuffled.logits + i * outputs, rows.logits + j * outputs, (size_t)outputs * sizeof(float));
            memcpy(shuffled.value + i * outputs, rows.value + j * outputs, (size_t)outputs * sizeof(float));
        }
        assert_ok(temperature_fit(&rows.scored, NULL, &before[0]));
        assert_ok(temperature_fit(&shuffled.scored, NULL, &after[0]));
        assert_true(before[0] == after[0]);
    }
    json_decref(cases);
}

static void test_degenerate_temperatures(void **state)
{
    double t;
    uint8_t use[4] = {0, 0, 0, 0};
    (void)state;
    memset(&rows, 0, sizeof rows);
    bind_rows(&rows, TASK_CLASSES, 2, 2, 4);
    assert_ok(temperature_fit(&rows.scored, NULL, &t)); /* all logits are 0 */
    assert_true(t == 1.0);
    assert_ok(temperature_fit(&rows.scored, use, &t));
    assert_true(isnan(t));
    for (int i = 0; i < 4; i++)
        rows.logits[2 * i] = 1.0f + (float)i; /* all right */
    assert_ok(temperature_fit(&rows.scored, NULL, &t));
    assert_true(t == 0.01);
    for (int i = 0; i < 4; i++)
        rows.label[i] = 1; /* all wrong */
    assert_ok(temperature_fit(&rows.scored, NULL, &t));
    assert_true(t == 100.0);
    use[1] = 1;
    rows.label[1] = 0;
    assert_ok(temperature_fit(&rows.scored, use, &t)); /* the one row that is looked at is right */
    assert_true(t == 0.01);
    static const float far[] = {500.0f, -500.0f, -300.0f, 400.0f, 3e38f, -3e38f, -2.0f, 1.0f};
    memcpy(rows.logits, far, sizeof far);
    rows.label[0] = 0, rows.label[2] = 1;
    assert_ok(temperature_fit(&rows.scored, NULL, &t)); /* one row is wrong beyond any temperature */
    assert_true(t == 100.0);
    rows.label[3] = 2;
    assert_fails(temperature_fit(&rows.scored, NULL, &t), STATUS_DATA, "label 2");
    bind_rows(&rows, TASK_REGRESSION, 1, 0, 4);
    assert_fails(temperature_fit(&rows.scored, NULL, &t), STATUS_ARG, "not of numbers");
}

static void test_thresholds_are_the_best(void **state)
{
    json_t *cases = golden_statistics("calibration"), *of, *list, *one;
    size_t at, c;
    const char *name;
    int compared = 0;
    (void)state;
    json_array_foreach(cases, at, of) {
        double got[8], nested[8 * FOLDS], want[8];
        float decisions[MOST_SCORES];
        read_rows(of, "target", &rows);
        read_folds(of);
        json_object_foreach(json_object_get(of, "thresholds"), name, list) {
            enum metric metric = METRIC_COUNT;
            assert_true(metric_find(name, &metric) && threshold_metric(metric, rows.scored.task));
            assert_ok(thresholds_fit(&rows.scored, NULL, metric, got));
            json_array_foreach(list, c, one) {
                double wanted = json_number_value(json_array_get(one, 0));
                if (got[c] != wanted)
                    fail_msg("case %zu: threshold %zu for %s is %.17g, wanted %.17g", at, c, name, got[c], wanted);
                compared++;
            }
            if (rows.scored.task != TASK_CLASSES)
                continue;
            struct metric_values values; /* the decisions are worth what brute force says */
            struct scored decided = rows.scored;
            thresholds_apply(&rows.scored, got, decisions);
            decided.logits = decisions;
            assert_ok(metrics_compute(&decided, &values));
            support_assert_near(values.value[metric], json_number_value(json_array_get(json_array_get(list, 0), 1)), 1e-12, name);
            metrics_release(&values);
        }
        int columns = threshold_count(&rows.scored);
        if (columns == 0)
            continue;
        assert_ok(thresholds_nested(&rows.scored, fold, FOLDS, METRIC_F1, nested, decisions));
        json_array_foreach(json_object_get(of, "nested_f1"), c, one) {
            (void)golden_reals(one, want, 8);
            assert_memory_equal(nested + c * (size_t)columns, want, (size_t)columns * sizeof *want);
        }
        for (int i = 0; i < rows.scored.n * columns; i++) {
            int row = i / columns, column = i % columns, outputs = rows.scored.outputs;
            double score = rows.scored.task == TASK_CLASSES && outputs == 2
                               ? (double)rows.logits[2 * row + 1] - (double)rows.logits[2 * row]
                               : (double)rows.logits[i];
            bool above = score > nested[fold[row] * columns + column];
            assert_true(decisions[row * outputs + (outputs - columns) + column] == (above ? 1.0f : -1.0f));
        }
    }
    assert_true(compared > 30);
    json_decref(cases);
}

/* Decisions of several labels, as logits and as probabilities, count as they say. */
static void test_decisions_are_metrics(void **state)
{
    static const double threshold[] = {1.5, -0.5};
    static const float logits[] = {1.0f, -1.0f, 2.0f, 0.0f, 1.5f, -0.5f};
    static const float truth[] = {0, 0, 1, 1, 1, 1};
    float decisions[6];
    struct metric_values values;
    (void)state;
    memset(&rows, 0, sizeof rows);
    memcpy(rows.logits, logits, sizeof logits);
    memcpy(rows.value, truth, sizeof truth);
    bind_rows(&rows, TASK_MULTI_LABEL, 2, 2, 3);
    thresholds_apply(&rows.scored, threshold, decisions);
    static const float wanted[] = {-1, -1, 1, 1, -1, -1}; /* not above is below */
    assert_memory_equal(decisions, wanted, sizeof wanted);
    rows.scored.logits = rows.scored.probabilities = decisions;
    assert_ok(metrics_compute(&rows.scored, &values));
    assert_true(values.value[METRIC_ACCURACY] == 2.0 / 3.0 && values.value[METRIC_MICRO_F1] == 2.0 / 3.0);
    metrics_release(&values);
}

static void test_thresholds_without_a_choice(void **state)
{
    double t[2] = {9, 9};
    float decisions[8];
    uint8_t use[4] = {0, 0, 0, 0};
    (void)state;
    memset(&rows, 0, sizeof rows);
    for (int i = 0; i < 4; i++)
        rows.logits[i] = 3.0f + (float)i;
    bind_rows(&rows, TASK_CLASSES, 1, 2, 4);
    assert_ok(thresholds_fit(&rows.scored, use, METRIC_F1, t)); /* no rows */
    assert_true(t[0] == 0.0);
    assert_ok(thresholds_fit(&rows.scored, NULL, METRIC_ACCURACY, t)); /* all are of class 0: above the greatest */
    assert_true(t[0] == 7.0);
    assert_ok(thresholds_fit(&rows.scored, NULL, METRIC_F1, t)); /* 0 wherever it is defined */
    assert_true(t[0] == 0.0);
    assert_ok(thresholds_fit(&rows.scored, NULL, METRIC_MCC, t)); /* undefined everywhere */
    assert_true(t[0] == 0.0);
    for (int i = 0; i < 4; i++)
        rows.label[i] = 1;
    assert_ok(thresholds_fit(&rows.scored, NULL, METRIC_F1, t));
    assert_true(t[0] == 0.0);
    for (int i = 0; i < 4; i++)
        rows.logits[i] = -3.0f - (float)i;
    assert_ok(thresholds_fit(&rows.scored, NULL, METRIC_F1, t)); /* below the least */
    assert_true(t[0] == -7.0);
    assert_fails(thresholds_fit(&rows.scored, NULL, METRIC_ROC_AUC, t), STATUS_CONFIG, "no threshold can be fitted to roc_auc");
    assert_false(threshold_metric(METRIC_LOG_LOSS, TASK_CLASSES));
    assert_false(threshold_metric(METRIC_F1, TASK_REGRESSION));
    memset(fold, 0, sizeof fold);
    assert_fails(thresholds_nested(&rows.scored, fold, 3, METRIC_F1, t, decisions), STATUS_DATA, "all rows are of one fold");
    assert_fails(temperature_nested(&rows.scored, fold, 3, t, decisions), STATUS_DATA, "all rows are of one fold");
    fold[2] = 3;
    assert_fails(temperature_nested(&rows.scored, fold, 3, t, decisions), STATUS_ARG, "is of fold 3, there are 3");
    bind_rows(&rows, TASK_CLASSES, 3, 3, 1);
    assert_int_equal(threshold_count(&rows.scored), 0);
    assert_fails(thresholds_fit(&rows.scored, NULL, METRIC_F1, t), STATUS_ARG, "two classes or several labels");
}

static double real_at(const json_t *of, const char *part, const char *key, const char *name)
{
    const json_t *inner = json_object_get(json_object_get(of, part), key);
    const json_t *value = name == NULL ? inner : json_object_get(inner, name);
    assert_non_null(value);
    return json_number_value(value);
}

/* The table of results has what the functions give, of every task. */
static void test_json(void **state)
{
    json_t *cases = golden_statistics("calibration"), *of;
    size_t at;
    (void)state;
    json_array_foreach(cases, at, of) {
        double all, nested[FOLDS], bounds[FOLDS * 4];
        float scaled[MOST_SCORES], decisions[MOST_SCORES];
        struct metric_values before, after;
        json_t *got, *list, *value;
        size_t i;
        read_rows(of, "target", &rows);
        read_folds(of);
        int columns = threshold_count(&rows.scored);
        enum metric shown = rows.scored.task == TASK_CLASSES ? METRIC_F1 : METRIC_MACRO_F1;
        assert_ok(calibration_json(&rows.scored, fold, FOLDS, METRIC_F1, &got));
        assert_ok(temperature_fit(&rows.scored, NULL, &all));
        assert_ok(temperature_nested(&rows.scored, fold, FOLDS, nested, scaled));
        assert_true(real_at(got, "temperature", "all", NULL) == all);
        list = json_object_get(json_object_get(got, "temperature"), "folds");
        assert_int_equal(json_array_size(list), FOLDS);
        json_array_foreach(list, i, value)
            assert_true(json_number_value(value) == nested[i]);
        assert_true(real_at(got, "temperature", "before", "log_loss") == log_loss_of(rows.logits));
        assert_true(real_at(got, "temperature", "after", "log_loss") == log_loss_of(scaled));
        assert_int_equal(json_object_size(json_object_get(json_object_get(got, "temperature"), "after")),
                         rows.scored.task == TASK_CLASSES ? 3 : 2);
        assert_int_equal(json_object_get(got, "thresholds") != NULL, columns > 0);
        if (columns > 0) {
            struct scored decided = rows.scored;
            assert_ok(thresholds_nested(&rows.scored, fold, FOLDS, METRIC_F1, bounds, decisions));
            decided.logits = decided.probabilities = decisions;
            assert_ok(metrics_compute(&rows.scored, &before));
            assert_ok(metrics_compute(&decided, &after));
            assert_true(real_at(got, "thresholds", "before", metric_name(shown)) == before.value[shown]);
            assert_true(real_at(got, "thresholds", "after", metric_name(shown)) == after.value[shown]);
            list = json_object_get(json_object_get(got, "thresholds"), "folds");
            for (int k = 0; k < FOLDS * columns; k++) {
                value = json_array_get(json_array_get(list, (size_t)(k / columns)), (size_t)(k % columns));
                assert_true(json_number_value(value) == bounds[k]);
            }
            assert_int_equal(json_array_size(json_object_get(json_object_get(got, "thresholds"), "all")), columns);
            metrics_release(&before);
            metrics_release(&after);
        }
        json_decref(got);
        assert_ok(calibration_json(&rows.scored, fold, FOLDS, METRIC_COUNT, &got));
        assert_null(json_object_get(got, "thresholds"));
        json_decref(got);
    }
    json_t *none;
    memset(fold, 0, sizeof fold);
    assert_fails(calibration_json(&rows.scored, fold, FOLDS, METRIC_F1, &none), STATUS_DATA, "all rows are of one fold");
    assert_null(none);
    json_decref(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temperature_is_the_best),   cmocka_unit_test(test_folds_do_not_see_themselves),
        cmocka_unit_test(test_degenerate_temperatures),   cmocka_unit_test(test_thresholds_are_the_best),
        cmocka_unit_test(test_decisions_are_metrics),     cmocka_unit_test(test_thresholds_without_a_choice),
        cmocka_unit_test(test_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
