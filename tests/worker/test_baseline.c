/*
 * test_baseline.c - TF-IDF or vectors with a linear model: scores equal scikit-learn's pipelines, portions fit together,
 * what is said of the terms, what is refused.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/text.h"
#include "model/trees.h"
#include "tests/support/support.h"
#include "worker/baseline.h"

enum { ROWS = 64, WIDEST = 20 };
#define BOUND 2e-6 /* what the golden numbers are good for is 1e-6, and scores are floats */

static const char *text_at(const json_t *line, const char *key, size_t i)
{
    return json_string_value(json_array_get(json_object_get(line, key), i));
}

static int64_t read_rows(const json_t *list, int64_t *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = json_integer_value(json_array_get(list, i));
    return (int64_t)json_array_size(list);
}

/* A case's rows without tokens, as a run without a model has them. */
static struct dataset *dataset_of(const json_t *line, bool keep_text)
{
    struct dataset_part part = {0};
    struct dataset *ds;
    struct model_source none;
    char *path, weight[ROWS][32];
    const char *kind = json_string_value(json_object_get(line, "kind"));
    bool weighted = json_is_array(json_object_get(line, "weight")), pairs = json_is_array(json_object_get(line, "pairs"));
    model_source_none(&none);
    assert_ok(path_join(support_folder(), "data.h5", &path));
    for (size_t i = 0; i < json_array_size(json_object_get(line, "label")); i++) {
        const char *label = text_at(line, "label", i), *text = text_at(line, "texts", i), *pair = pairs ? text_at(line, "pairs", i) : NULL;
        struct text_row row = {.row = (int64_t)i, .label = {label, strlen(label)}};
        row.text = text == NULL ? (struct text_field){"", 0} : (struct text_field){text, strlen(text)};
        if (pair != NULL)
            row.pair = (struct text_field){pair, strlen(pair)};
        if (weighted) {
            (void)snprintf(weight[i], sizeof weight[i], "%.17g",
                           json_number_value(json_array_get(json_object_get(line, "weight"), i)));
            row.weight = (struct text_field){weight[i], strlen(weight[i])};
        }
        assert_ok(dataset_part_add(&part, NULL, &row, keep_text));
    }
    struct dataset_write_opts write = {.path = path,
                                       .source = "train.tsv",
                                       .label_kind = strcmp(kind, "classes") == 0      ? LABEL_CLASS
                                                     : strcmp(kind, "regression") == 0 ? LABEL_VALUE
                                                                                       : LABEL_MULTI,
                                       .tokenizer = &none.tokenizer_info,
                                       .keep_text = keep_text};
    assert_ok(dataset_write(&write, &part));
    dataset_part_release(&part);
    assert_ok(dataset_open(&(struct dataset_opts){.path = path, .max_length = 64}, &ds));
    mem_free(path);
    return ds;
}

/* A case, ready to be fitted. */
struct setup {
    const char *name;
    struct run_config config;
    struct dataset *ds;
    struct task_spec task;
    struct task_targets targets;
    struct baseline_features features;
    int64_t train[ROWS], score[ROWS];
    struct baseline_fold fold;
};

static void set_up(const json_t *line, struct setup *s)
{
    struct dataset_info info;
    const json_t *vectors = json_object_get(line, "vectors");
    const char *keys[] = {"train.tsv"};
    memset(s, 0, sizeof *s);
    s->name = json_string_value(json_object_get(line, "name"));
    s->config.baseline.C = json_number_value(json_object_get(line, "C"));
    s->config.baseline.tolerance = 1e-9;
    s->config.baseline.max_iterations = 100000;
    s->config.baseline.ngram_min = 1;
    s->config.baseline.ngram_max = json_integer_value(json_object_get(line, "ngram_max"));
    s->config.baseline.lowercase = s->config.baseline.sublinear = true;
    s->config.baseline.min_df = (double)json_integer_value(json_object_get(line, "min_df"));
    s->config.baseline.max_df = 1.0;
    s->config.baseline.standardize = json_is_true(json_object_get(line, "standardize"));
    if (json_is_true(json_object_get(line, "balanced")))
        (void)snprintf(s->config.train.class_weights, sizeof s->config.train.class_weights, "balanced");
    s->ds = dataset_of(line, true);
    dataset_get_info(s->ds, &info);
    assert_ok(task_decide(&s->config, &info, NULL, 0, &s->task));
    assert_ok(task_map(&s->task, s->ds, "train.tsv", &s->targets));
    if (vectors == NULL) {
        assert_ok(baseline_count(&s->config, &s->ds, keys, 1, &s->features));
    } else {
        s->features = (struct baseline_features){.rows = info.rows,
                                                 .width = (int)json_integer_value(json_object_get(line, "columns"))};
        assert_ok(mem_alloc(json_array_size(vectors), sizeof *s->features.vectors, "vectors", &s->features.vectors));
        for (size_t i = 0; i < json_array_size(vectors); i++)
            s->features.vectors[i] = (float)json_number_value(json_array_get(vectors, i));
    }
    assert_int_equal(s->features.rows, info.rows);
    s->fold = (struct baseline_fold){.config = &s->config, .task = &s->task, .targets = &s->targets, .train = s->train, .score = s->score};
    s->fold.train_count = read_rows(json_object_get(line, "fitted"), s->train);
    s->fold.score_count = read_rows(json_object_get(line, "scored"), s->score);
}

static void tear_down(struct setup *s)
{
    baseline_features_release(&s->features);
    task_targets_release(&s->targets);
    task_release(&s->task);
    dataset_close(s->ds);
}

/* All portions, put together. */
static void fit(struct setup *s, float *logits, struct str *terms)
{
    static float some[ROWS * WIDEST];
    struct baseline_report report;
    int columns = 0;
    for (int p = 0; p < baseline_portions(&s->task); p++) {
        int first, last;
        baseline_columns(&s->task, p, &first, &last);
        assert_int_equal(first, columns);
        columns = last;
        assert_ok(baseline_fit(&s->features, &s->fold, p, some, &report, terms));
        if (!report.converged || report.gradient > 1e-9)
            fail_msg("%s: |g| is %g after %d iterations", s->name, report.gradient, (int)report.iterations);
        for (int64_t i = 0; i < s->fold.score_count; i++)
            memcpy(logits + i * s->task.outputs + first, some + i * (last - first), (size_t)(last - first) * sizeof *some);
    }
    assert_int_equal(columns, s->task.outputs);
}

static json_t *golden(void)
{
    json_t *list;
    assert_ok(json_read_file(TEST_DIR "/golden/baseline.json", 1 << 22, &list));
    return list;
}

/* The case of that name; borrowed from list. */
static const json_t *golden_case(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *line = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(line, "name")), name) == 0)
            return line;
    }
    fail_msg("no case %s", name);
    return NULL;
}

/* ---- beside scikit-learn ---- */

static void test_scores_are_those_of_scikit_learn(void **state)
{
    static float logits[ROWS * WIDEST], p[ROWS * WIDEST];
    static struct setup s;
    json_t *list = golden();
    (void)state;
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *line = json_array_get(list, k), *wanted = json_object_get(line, "p");
        set_up(line, &s);
        fit(&s, logits, NULL);
        loss_probabilities(&s.task.loss, (int)s.fold.score_count, logits, p);
        double unit = s.task.task == TASK_REGRESSION ? 20.0 : 1.0; /* the values' deviation */
        assert_int_equal(json_array_size(wanted), s.fold.score_count * s.task.outputs);
        for (size_t i = 0; i < json_array_size(wanted); i++) {
            double want = json_number_value(json_array_get(wanted, i));
            if (!(fabs((double)p[i] - want) <= BOUND * unit))
                fail_msg("%s: row %d, output %d: %.9g, scikit-learn has %.9g", s.name, (int)i / s.task.outputs,
                         (int)i % s.task.outputs, (double)p[i], want);
        }
        tear_down(&s);
    }
    json_decref(list);
}

/* ---- trees ---- */

static bool have_trees(void)
{
    const char *version;
    if (trees_library(&version) == STATUS_OK)
        return true;
    print_message("SKIP: %s\n", status_message());
    return false;
}

static void with_trees(struct setup *s)
{
    s->fold.model = BASELINE_MODEL_TREES;
    s->config.baseline.trees = 30;
    s->config.baseline.tree_depth = 4;
    s->config.baseline.tree_rate = 0.3;
    s->config.baseline.tolerance = 1e-9;
}

static void test_trees_learn_classes_and_values(void **state)
{
    static float logits[ROWS * WIDEST];
    static struct setup s;
    json_t *list;
    int right = 0;
    double error = 0.0, spread = 0.0, mean = 0.0;
    (void)state;
    if (!have_trees())
        skip();
    list = golden();
    set_up(golden_case(list, "vectors"), &s);
    with_trees(&s);
    fit(&s, logits, NULL);
    for (int64_t i = 0; i < s.fold.score_count; i++) {
        int best = 0;
        for (int c = 1; c < 3; c++)
            best = logits[i * 3 + c] > logits[i * 3 + best] ? c : best;
        right += best == s.targets.label[s.score[i]];
    }
    if (right * 2 < s.fold.score_count) /* chance: a third */
        fail_msg("%d of %d right", right, (int)s.fold.score_count);
    tear_down(&s);
    set_up(golden_case(list, "vectors, values"), &s);
    with_trees(&s);
    fit(&s, logits, NULL);
    for (int64_t i = 0; i < s.fold.score_count; i++)
        mean += (double)s.targets.value[s.score[i]] / (double)s.fold.score_count;
    for (int64_t i = 0; i < s.fold.score_count; i++) {
        double y = (double)s.targets.value[s.score[i]];
        error += (y - (double)logits[i]) * (y - (double)logits[i]);
        spread += (y - mean) * (y - mean);
    }
    assert_true(error < 0.4 * spread);
    tear_down(&s);
    json_decref(list);
}

/* Labels of several portions, some of them constant; the vectors say which row has label 0. */
static void test_trees_of_many_labels(void **state)
{
    static float logits[ROWS * WIDEST];
    static struct setup s;
    json_t *list;
    int right = 0;
    (void)state;
    if (!have_trees())
        skip();
    list = golden();
    set_up(golden_case(list, "nineteen labels"), &s);
    with_trees(&s);
    int64_t rows = s.features.rows;
    baseline_features_release(&s.features);
    s.features = (struct baseline_features){.rows = rows, .width = 2};
    assert_ok(mem_alloc((size_t)rows * 2, sizeof *s.features.vectors, "vectors", &s.features.vectors));
    for (int64_t i = 0; i < rows; i++)
        s.features.vectors[i * 2 + 1] = s.targets.value[i * s.task.outputs];
    fit(&s, logits, NULL);
    for (int64_t i = 0; i < s.fold.score_count; i++) {
        const float *z = logits + i * s.task.outputs;
        right += (z[0] > 0.0f) == (s.targets.value[s.score[i] * s.task.outputs] > 0.5f);
        assert_true(z[3] > 36.0f && z[17] < -36.0f);
    }
    assert_int_equal(right, s.fold.score_count);
    tear_down(&s);
    json_decref(list);
}

/* ---- what else is said ---- */

static void test_heaviest_terms_are_named(void **state)
{
    static float logits[ROWS * WIDEST];
    static struct setup s;
    json_t *list = golden();
    struct str terms = {0};
    int lines = 0, own = 0;
    (void)state;
    set_up(golden_case(list, "two classes"), &s);
    fit(&s, logits, &terms);
    double before = HUGE_VAL;
    const char *label_before = "";
    for (char *save = NULL, *line = strtok_r(terms.p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save), lines++) {
        char *rest = NULL, *label = strtok_r(line, "\t", &rest), *term = strtok_r(NULL, "\t", &rest), *weight = strtok_r(NULL, "\t", &rest);
        assert_non_null(weight);
        if (strcmp(label, label_before) != 0)
            before = HUGE_VAL;
        assert_true(strtod(weight, NULL) > 0.0 && strtod(weight, NULL) <= before);
        before = strtod(weight, NULL);
        label_before = label;
        own += strstr(term, label) != NULL; /* a class's own words begin with its name */
    }
    assert_int_equal(lines, 40);
    assert_true(own >= 20);
    str_release(&terms);
    tear_down(&s);
    json_decref(list);
}

static void test_class_without_training_rows_is_never_likely(void **state)
{
    static float logits[ROWS * WIDEST], p[ROWS * WIDEST];
    static struct setup s;
    json_t *list = golden();
    (void)state;
    set_up(golden_case(list, "a class that no training row has"), &s);
    fit(&s, logits, NULL);
    loss_probabilities(&s.task.loss, (int)s.fold.score_count, logits, p);
    for (int64_t i = 0; i < s.fold.score_count; i++)
        assert_true(p[i * 4 + 1] > 0.0f && p[i * 4 + 1] < 1e-15f);
    /* One class alone: always that one. */
    int64_t kept = 0;
    for (int64_t i = 0; i < s.fold.train_count; i++) {
        if (s.targets.label[s.train[i]] == 2)
            s.train[kept++] = s.train[i];
    }
    s.fold.train_count = kept;
    assert_true(kept > 0);
    fit(&s, logits, NULL);
    for (int64_t i = 0; i < s.fold.score_count; i++) {
        for (int c = 0; c < 4; c++)
            assert_true(c == 2 ? logits[i * 4 + c] == 0.0f : logits[i * 4 + c] < -36.0f);
    }
    tear_down(&s);
    json_decref(list);
}

static void test_rows_that_are_refused(void **state)
{
    static float logits[ROWS * WIDEST];
    static struct setup s;
    struct baseline_report report;
    struct baseline_features features;
    json_t *list = golden();
    const char *keys[] = {"train.h5"};
    (void)state;
    set_up(golden_case(list, "two classes"), &s);
    int64_t n = s.fold.train_count;
    s.fold.train_count = 0;
    assert_fails(baseline_fit(&s.features, &s.fold, 0, logits, &report, NULL), STATUS_DATA, "no training rows");
    s.fold.train_count = n;
    s.config.baseline.min_df = 1000;
    assert_fails(baseline_fit(&s.features, &s.fold, 0, logits, &report, NULL), STATUS_CONFIG, "at least 1000");
    s.config.baseline.min_df = 1;
    float none[ROWS] = {0};
    s.targets.weight = none;
    assert_fails(baseline_fit(&s.features, &s.fold, 0, logits, &report, NULL), STATUS_DATA, "weight 0");
    s.targets.weight = NULL;
    tear_down(&s);
    struct dataset *ds = dataset_of(golden_case(list, "two classes"), false);
    assert_fails(baseline_count(&s.config, &ds, keys, 1, &features), STATUS_DATA, "train.h5 was prepared without its texts");
    dataset_close(ds);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_are_those_of_scikit_learn),
        cmocka_unit_test(test_trees_learn_classes_and_values),
        cmocka_unit_test(test_trees_of_many_labels),
        cmocka_unit_test(test_heaviest_terms_are_named),
        cmocka_unit_test(test_class_without_training_rows_is_never_likely),
        cmocka_unit_test(test_rows_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
