/* test_task.c - labels, losses and metrics that a run decides on, and what it refuses. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/text.h"
#include "worker/task.h"

/* ---- datasets ---- */

static struct tokenizer *tokenizer;
static struct tokenizer_info info;

static int open_tokenizer(void **state)
{
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n";
    char *folder;
    (void)state;
    assert_ok(path_join(support_folder(), "tokenizer", &folder));
    assert_ok(folder_make(folder));
    (void)support_file("tokenizer/vocab.txt", vocab, sizeof vocab - 1);
    assert_ok(tokenizer_open(folder, &tokenizer));
    tokenizer_get_info(tokenizer, &info);
    mem_free(folder);
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

/* A dataset of rows 10, 11, ... of its source with these labels (NULL ends) and weights 1, 2, ... */
static struct dataset *dataset_of(enum label_kind kind, const char *const *labels)
{
    struct dataset_part part = {0};
    struct dataset *ds;
    char *path, weight[16];
    assert_ok(path_join(support_folder(), "data.h5", &path));
    for (int64_t i = 0; i == 0 || labels[i] != NULL; i++) {
        (void)snprintf(weight, sizeof weight, "%d", (int)i + 1);
        struct text_row row = {.row = 10 + i, .text = {"a b", 3}, .weight = {weight, strlen(weight)}};
        if (labels[i] != NULL)
            row.label = (struct text_field){labels[i], strlen(labels[i])};
        assert_ok(dataset_part_add(&part, tokenizer, &row, false));
    }
    struct dataset_write_opts write = {
        .path = path, .source = "train.tsv", .label_kind = kind, .tokenizer = &info};
    assert_ok(dataset_write(&write, &part));
    dataset_part_release(&part);
    assert_ok(dataset_open(&(struct dataset_opts){.path = path, .max_length = 16}, &ds));
    mem_free(path);
    return ds;
}

#define DATASET(kind, ...) dataset_of(kind, (const char *const[]){__VA_ARGS__, NULL})

static struct run_config config_of(enum config_loss loss, const char *metric)
{
    struct run_config config = {.train.loss = loss};
    (void)snprintf(config.eval.metric, sizeof config.eval.metric, "%s", metric);
    return config;
}

static enum status decide(const struct dataset *ds, char *const *model_labels, int count, enum config_loss loss,
                          const char *metric, struct task_spec *out)
{
    static struct run_config config;
    struct dataset_info train;
    config = config_of(loss, metric);
    dataset_get_info(ds, &train);
    return task_decide(&config, &train, model_labels, count, out);
}

static void check_labels(const struct task_spec *task, int count, const char *const *want)
{
    assert_int_equal(task->classes, count);
    for (int i = 0; i < count; i++)
        assert_string_equal(task->labels[i], want[i]);
}

#define LABELS(...) ((const char *const[]){__VA_ARGS__})
#define MODEL(...) ((char *const[]){__VA_ARGS__})

/* ---- labels ---- */

static void test_labels_of_the_data_are_sorted(void **state)
{
    struct dataset *ds = DATASET(LABEL_CLASS, "10", "9", "2", "9");
    struct task_spec task;
    (void)state;
    assert_ok(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task));
    check_labels(&task, 3, LABELS("2", "9", "10"));
    assert_int_equal(task.task, TASK_CLASSES);
    assert_int_equal(task.outputs, 3);
    assert_int_equal(task.loss.kind, LOSS_CROSS_ENTROPY);
    assert_int_equal(task.metric, METRIC_ACCURACY);
    assert_false(task.head_from_model);
    task_release(&task);
    dataset_close(ds);
}

static void test_labels_of_the_model_where_it_has_them(void **state)
{
    struct dataset *ds = DATASET(LABEL_CLASS, "no", "yes", "no");
    struct task_spec task;
    struct task_targets targets;
    (void)state;
    assert_ok(decide(ds, MODEL("yes", "maybe", "no"), 3, CONFIG_LOSS_AUTO, "", &task));
    check_labels(&task, 3, LABELS("yes", "maybe", "no"));
    assert_true(task.head_from_model);
    assert_ok(task_map(&task, ds, "train.tsv", &targets));
    assert_int_equal(targets.rows, 3);
    assert_int_equal(targets.label[0], 2);
    assert_int_equal(targets.label[1], 0);
    assert_int_equal(targets.label[2], 2);
    assert_true(targets.weight[2] == 3.0f && targets.value == NULL && targets.group == NULL);
    task_targets_release(&targets);
    task_release(&task);
    /* One of the data's labels is not among the model's: the model's are of another task. */
    assert_ok(decide(ds, MODEL("yes", "maybe"), 2, CONFIG_LOSS_AUTO, "", &task));
    check_labels(&task, 2, LABELS("no", "yes"));
    assert_false(task.head_from_model);
    task_release(&task);
    dataset_close(ds);
}

static void test_unknown_label_names_row_and_label(void **state)
{
    struct dataset *train = DATASET(LABEL_CLASS, "no", "yes");
    struct task_spec task;
    struct task_targets targets;
    (void)state;
    assert_ok(decide(train, NULL, 0, CONFIG_LOSS_AUTO, "", &task));
    dataset_close(train);
    struct dataset *eval = DATASET(LABEL_CLASS, "no", "yes", "perhaps");
    assert_fails(task_map(&task, eval, "eval.tsv", &targets), STATUS_DATA,
                 "eval.tsv: row 12 has the label \"perhaps\", which training did not have; known: no, yes");
    assert_null(targets.label);
    dataset_close(eval);
    eval = DATASET(LABEL_VALUE, "1", "2");
    assert_fails(task_map(&task, eval, "eval.tsv", &targets), STATUS_DATA, "of another kind");
    dataset_close(eval);
    eval = DATASET(LABEL_CLASS, "yes"); /* fewer labels than training is fine, and they keep their numbers */
    assert_ok(task_map(&task, eval, "eval.tsv", &targets));
    assert_int_equal(targets.label[0], 1);
    task_targets_release(&targets);
    dataset_close(eval);
    task_release(&task);
}

static void test_multi_label_targets(void **state)
{
    struct dataset *ds = DATASET(LABEL_MULTI, "b,a", "", "c");
    struct task_spec task;
    struct task_targets targets;
    static const float want[] = {1, 1, 0, 0, 0, 0, 0, 0, 1}, model[] = {1, 0, 1, 0, 0, 0, 0, 1, 0};
    (void)state;
    assert_ok(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task));
    assert_int_equal(task.task, TASK_MULTI_LABEL);
    assert_int_equal(task.loss.kind, LOSS_BCE);
    assert_int_equal(task.metric, METRIC_MICRO_F1);
    assert_ok(task_map(&task, ds, "train.tsv", &targets));
    assert_null(targets.label);
    assert_memory_equal(targets.value, want, sizeof want);
    task_targets_release(&targets);
    task_release(&task);
    assert_ok(decide(ds, MODEL("b", "c", "a"), 3, CONFIG_LOSS_AUTO, "", &task));
    assert_ok(task_map(&task, ds, "train.tsv", &targets));
    assert_memory_equal(targets.value, model, sizeof model);
    task_targets_release(&targets);
    dataset_close(ds);
    ds = DATASET(LABEL_MULTI, "a", "d,a");
    assert_fails(task_map(&task, ds, "eval.tsv", &targets), STATUS_DATA, "row 11 has the label \"d\"");
    dataset_close(ds);
    task_release(&task);
}

static void test_regression_and_data_without_labels(void **state)
{
    struct dataset *ds = DATASET(LABEL_VALUE, "1.5", "-2");
    struct task_spec task;
    struct task_targets targets;
    (void)state;
    assert_ok(decide(ds, MODEL("LABEL_0"), 1, CONFIG_LOSS_AUTO, "", &task));
    assert_int_equal(task.task, TASK_REGRESSION);
    assert_int_equal(task.outputs, 1);
    assert_int_equal(task.classes, 0);
    assert_int_equal(task.loss.kind, LOSS_MSE);
    assert_int_equal(task.metric, METRIC_PEARSON);
    assert_true(task.head_from_model);
    assert_ok(task_map(&task, ds, "train.tsv", &targets));
    assert_true(targets.value[0] == 1.5f && targets.value[1] == -2.0f);
    task_targets_release(&targets);
    task_release(&task);
    assert_ok(decide(ds, MODEL("a", "b"), 2, CONFIG_LOSS_AUTO, "", &task));
    assert_false(task.head_from_model);
    task_release(&task);
    dataset_close(ds);
    ds = dataset_of(LABEL_NONE, (const char *const[]){NULL, NULL});
    assert_fails(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task), STATUS_DATA, "train.tsv has no labels");
    dataset_close(ds);
    ds = DATASET(LABEL_CLASS, "only", "only");
    assert_fails(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task), STATUS_DATA, "1 class, wanted at least two");
    assert_null(task.labels);
    dataset_close(ds);
}

/* ---- losses and metrics ---- */

static void test_losses_that_fit(void **state)
{
    struct dataset *two = DATASET(LABEL_CLASS, "a", "b");
    struct task_spec task;
    (void)state;
    assert_ok(decide(two, NULL, 0, CONFIG_LOSS_BCE, "f1", &task)); /* one logit for two classes */
    assert_int_equal(task.outputs, 1);
    assert_int_equal(task.classes, 2);
    assert_int_equal(task.loss.outputs, 1);
    task_release(&task);
    assert_fails(decide(two, NULL, 0, CONFIG_LOSS_MSE, "", &task), STATUS_CONFIG,
                 "train.loss=mse does not fit this task, wanted cross_entropy, or bce with two classes");
    dataset_close(two);
    struct dataset *three = DATASET(LABEL_CLASS, "a", "b", "c");
    assert_fails(decide(three, NULL, 0, CONFIG_LOSS_BCE, "", &task), STATUS_CONFIG, "train.loss=bce does not fit");
    dataset_close(three);
    struct dataset *multi = DATASET(LABEL_MULTI, "a,b", "b");
    assert_fails(decide(multi, NULL, 0, CONFIG_LOSS_CROSS_ENTROPY, "", &task), STATUS_CONFIG, "wanted bce");
    dataset_close(multi);
    struct dataset *value = DATASET(LABEL_VALUE, "1", "2");
    assert_fails(decide(value, NULL, 0, CONFIG_LOSS_BCE, "", &task), STATUS_CONFIG, "wanted mse");
    struct run_config config = config_of(CONFIG_LOSS_AUTO, "");
    struct dataset_info train;
    dataset_get_info(value, &train);
    config.train.focal_gamma = 2;
    assert_fails(task_decide(&config, &train, NULL, 0, &task), STATUS_CONFIG, "focal_gamma works with");
    config.train.focal_gamma = 0;
    config.train.label_smoothing = 0.1;
    assert_fails(task_decide(&config, &train, NULL, 0, &task), STATUS_CONFIG, "label_smoothing");
    dataset_close(value);
}

/* Every metric is taken or refused as the task has it or not. */
static void test_metrics_that_fit(void **state)
{
    struct dataset *sets[] = {DATASET(LABEL_CLASS, "a", "b"), NULL, NULL, NULL};
    static const char *const bad[] = {"does not fit classes", "is of two classes, this data has 3",
                                      "does not fit multi-label data", "does not fit regression"};
    (void)state;
    for (int s = 0; s < 4; s++) {
        if (s == 1)
            sets[s] = DATASET(LABEL_CLASS, "a", "b", "c");
        else if (s == 2)
            sets[s] = DATASET(LABEL_MULTI, "a,b", "b");
        else if (s == 3)
            sets[s] = DATASET(LABEL_VALUE, "1", "2");
        for (int m = 0; m < METRIC_COUNT; m++) {
            struct task_spec task;
            const char *name = metric_name((enum metric)m);
            enum task kind = s < 2 ? TASK_CLASSES : s == 2 ? TASK_MULTI_LABEL : TASK_REGRESSION;
            enum status st = decide(sets[s], NULL, 0, CONFIG_LOSS_AUTO, name, &task);
            if (metric_is_of((enum metric)m, kind, s == 0 ? 2 : 3)) {
                assert_ok(st);
                assert_int_equal(task.metric, m);
                task_release(&task);
            } else {
                bool more = s < 2 && metric_is_of((enum metric)m, TASK_CLASSES, 100);
                bool two = s == 1 && metric_is_of((enum metric)m, TASK_CLASSES, 2);
                assert_fails(st, STATUS_CONFIG, more ? "needs more classes, this data has" : two ? bad[1] : s == 1 ? bad[0] : bad[s]);
                support_assert_contains(status_message(), name);
            }
        }
        struct task_spec task;
        assert_fails(decide(sets[s], NULL, 0, CONFIG_LOSS_AUTO, "auc", &task), STATUS_CONFIG,
                     s == 3 ? "eval.metric=auc is not a metric, wanted one of loss mse" : "is not a metric, wanted one of loss accuracy");
        dataset_close(sets[s]);
    }
}

static void test_class_weights(void **state)
{
    struct dataset *ds = DATASET(LABEL_CLASS, "a", "b", "b", "b", "c", "c");
    struct task_spec task;
    struct task_targets targets;
    static const int64_t rows[] = {0, 4, 5};
    (void)state;
    assert_ok(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task));
    assert_ok(task_map(&task, ds, "train.tsv", &targets));
    assert_ok(task_weigh_classes(&task, "", &targets, NULL, targets.rows));
    assert_null(task.loss.class_weights);
    assert_ok(task_weigh_classes(&task, "balanced", &targets, NULL, targets.rows));
    assert_ptr_equal(task.loss.class_weights, task.class_weights);
    assert_true(task.class_weights[0] == 2.0f && task.class_weights[1] == (float)(6.0 / 9.0) &&
                task.class_weights[2] == 1.0f);
    assert_ok(task_weigh_classes(&task, "balanced", &targets, rows, 3)); /* b is not among them */
    assert_true(task.class_weights[0] == 1.0f && task.class_weights[1] == 0.0f && task.class_weights[2] == 0.5f);
    assert_ok(task_weigh_classes(&task, "1,2.5,0", &targets, NULL, targets.rows));
    assert_true(task.class_weights[0] == 1.0f && task.class_weights[1] == 2.5f && task.class_weights[2] == 0.0f);
    static const char *const wrong[] = {"1,2", "1,2,3,4", "1,2,-3", "1,2,nan", "1;2;3", "1,2,x", "even", "1,2,3,"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_fails(task_weigh_classes(&task, wrong[i], &targets, NULL, targets.rows), STATUS_CONFIG,
                     "wanted balanced, or 3 numbers");
    task_targets_release(&targets);
    task_release(&task);
    dataset_close(ds);
    ds = DATASET(LABEL_VALUE, "1", "2");
    assert_ok(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task));
    assert_fails(task_weigh_classes(&task, "balanced", NULL, NULL, 0), STATUS_CONFIG, "for classes");
    task_release(&task);
    dataset_close(ds);
}

/* ---- scores ---- */

static void test_scored_rows_are_picked_in_any_order(void **state)
{
    struct dataset *ds = DATASET(LABEL_CLASS, "a", "b", "a", "b");
    struct task_spec task;
    struct task_targets targets;
    struct scored scored;
    struct metric_values values;
    static const int64_t rows[] = {3, 0};
    static const float logits[] = {0.0f, 1.0f, 0.0f, 3.0f};
    (void)state;
    assert_ok(decide(ds, NULL, 0, CONFIG_LOSS_AUTO, "", &task));
    assert_ok(task_map(&task, ds, "train.tsv", &targets));
    assert_ok(task_weigh_classes(&task, "3,0.5", &targets, NULL, 4));
    assert_ok(task_scored(&task, &targets, rows, 2, logits, &scored));
    assert_int_equal(scored.row[0], 3);
    assert_int_equal(scored.label[0], 1);
    assert_int_equal(scored.label[1], 0);
    assert_true(scored.row_weight[0] == 4.0f && scored.row_weight[1] == 1.0f);
    assert_true(scored.loss_divisor == 4.0 * 0.5 + 1.0 * 3.0);
    support_assert_near(scored.loss[0], 4.0 * 0.5 * log1p(exp(-1.0)), 1e-12, "loss of row 3");
    support_assert_near(scored.loss[1], 3.0 * (3.0 + log1p(exp(-3.0))), 1e-12, "loss of row 0");
    support_assert_near(scored.probabilities[1], 1.0 / (1.0 + exp(-1.0)), 1e-6, "probability");
    assert_ok(metrics_compute(&scored, &values));
    assert_true(values.value[METRIC_ACCURACY] == 0.5);
    support_assert_near(values.value[METRIC_LOSS], (scored.loss[0] + scored.loss[1]) / 5.0, 1e-12, "loss");
    metrics_release(&values);
    task_scored_release(&scored);
    static const float broken[] = {0.0f, 1.0f, NAN, 3.0f};
    assert_fails(task_scored(&task, &targets, rows, 2, broken, &scored), STATUS_NUMERIC, "1");
    assert_null(scored.row);
    assert_fails(task_scored(&task, &targets, rows, (int64_t)INT32_MAX + 1, logits, &scored), STATUS_ARG,
                 "scored rows is 2147483648");
    assert_null(scored.row);
    task_targets_release(&targets);
    task_release(&task);
    dataset_close(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_of_the_data_are_sorted),
        cmocka_unit_test(test_labels_of_the_model_where_it_has_them),
        cmocka_unit_test(test_unknown_label_names_row_and_label),
        cmocka_unit_test(test_multi_label_targets),
        cmocka_unit_test(test_regression_and_data_without_labels),
        cmocka_unit_test(test_losses_that_fit),
        cmocka_unit_test(test_metrics_that_fit),
        cmocka_unit_test(test_class_weights),
        cmocka_unit_test(test_scored_rows_are_picked_in_any_order),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
