/* test_keys.c - the table of keys: every type's good and bad values with their sentences, suggestions, docs/keys.md. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "launcher/keys.h"
#include "tests/support/support.h"

static struct run_config config;

static enum status set(const char *name, const char *text)
{
    const struct key *key = key_find(name);
    if (key == NULL)
        fail_msg("there is no key %s", name);
    return key_set(&config, key, text, "here");
}

static void assert_reads(const char *name, const char *text)
{
    struct str out = {0};
    assert_ok(key_get(&config, key_find(name), &out));
    assert_string_equal(out.p, text);
    str_release(&out);
}

static int fresh(void **state)
{
    (void)state;
    assert_ok(config_defaults(&config));
    return 0;
}

static void test_defaults_are_those_of_the_design(void **state)
{
    (void)state;
    assert_int_equal(config.seed, 42);
    assert_int_equal(config.train.batch_size, 32);
    assert_true(config.train.epochs == 3.0 && config.optim.lr == 5e-5 && config.optim.eps == 0);
    assert_true(config.optim.beta1 == 0.9 && config.optim.beta2 == 0.999 && config.optim.weight_decay == 0.01);
    assert_true(config.optim.max_grad_norm == 1.0 && config.schedule.warmup_ratio == 0.1);
    assert_true(config.eval.every.epoch && config.checkpoint.every.epoch);
    assert_int_equal(config.checkpoint.keep, 2);
    assert_int_equal(config.cv.folds, 0);
    assert_int_equal(config.cv.run_folds_count, 0);
    assert_int_equal(config.log.every, 10);
    assert_int_equal(config.parallel.grains, 8);
    assert_true(config.parallel.watchdog_s == 300.0 && config.data.header && config.data.shuffle);
    assert_int_equal(config.parallel.reproducible, CONFIG_FIXED);
    assert_int_equal(config.resume, CONFIG_RESUME_AUTO);
}

static void test_every_default_reads_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < keys_count; i++) {
        struct str typed = {0};
        static struct run_config again;
        assert_ok(config_defaults(&again));
        assert_ok(key_get(&config, &keys[i], &typed));
        assert_ok(key_set(&again, &keys[i], typed.p, "again"));
        assert_memory_equal(&again, &config, sizeof config);
        str_release(&typed);
    }
}

/* No key shares memory with another: setting one changes its own bytes alone. */
static void test_names_and_places_are_distinct(void **state)
{
    (void)state;
    for (size_t i = 0; i < keys_count; i++) {
        assert_ptr_equal(key_find(keys[i].name), &keys[i]);
        assert_true(keys[i].help[0] != '\0');
        for (size_t k = 0; k < i; k++)
            assert_true(keys[i].offset != keys[k].offset);
    }
}

static void test_whole_numbers(void **state)
{
    (void)state;
    assert_ok(set("seed", "3000000000"));
    assert_int_equal(config.seed, 3000000000);
    assert_ok(set("seed", "1e4"));
    assert_int_equal(config.seed, 10000);
    assert_ok(set("schedule.warmup_steps", "-1"));
    assert_reads("schedule.warmup_steps", "-1");
    assert_fails(set("train.batch_size", "0"), STATUS_CONFIG,
                 "here: train.batch_size is \"0\", wanted a whole number from 1 to 1000000");
    static const char *const bad[] = {"", " ", "1.5", "x", "1 2", "0x10", "1e400", "nan", "99999999999999999999", "-2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(set("schedule.warmup_steps", bad[i]), STATUS_CONFIG, "wanted a whole number");
    assert_reads("schedule.warmup_steps", "-1");
}

static void test_numbers(void **state)
{
    (void)state;
    assert_ok(set("optim.lr", "1"));
    assert_true(config.optim.lr == 1.0);
    assert_ok(set("optim.lr", "3e-5"));
    assert_true(config.optim.lr == 3e-5);
    assert_reads("optim.lr", "3e-05");
    assert_fails(set("optim.lr", "11"), STATUS_CONFIG, "here: optim.lr is \"11\", wanted a number from 0 to 10");
    static const char *const bad[] = {"", "x", "1e400", "nan", "inf", "-inf", "1,5", "3e-5x", "-1", "0x1p3 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(set("optim.lr", bad[i]), STATUS_CONFIG, "wanted a number");
    assert_true(config.optim.lr == 3e-5);
}

static void test_booleans(void **state)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_ok(set("overwrite", yes[i]));
        assert_true(config.overwrite);
        assert_ok(set("overwrite", no[i]));
        assert_false(config.overwrite);
    }
    assert_fails(set("overwrite", "maybe"), STATUS_CONFIG, "here: overwrite is \"maybe\", wanted true or false");
    assert_fails(set("overwrite", ""), STATUS_CONFIG, "wanted true or false");
    assert_fails(set("overwrite", "2"), STATUS_CONFIG, "wanted true or false");
}

static void test_choices(void **state)
{
    (void)state;
    assert_ok(set("train.precision", "bf16"));
    assert_int_equal(config.train.precision, CONFIG_PRECISION_BF16);
    assert_ok(set("parallel.reproducible", "any"));
    assert_int_equal(config.parallel.reproducible, CONFIG_ANY);
    assert_ok(set("cv.kind", "stratified_group"));
    assert_int_equal(config.cv.kind, CONFIG_CV_STRATIFIED_GROUP);
    assert_reads("cv.kind", "stratified_group");
    assert_fails(set("train.precision", "bf1"), STATUS_CONFIG,
                 "here: train.precision is \"bf1\", wanted one of auto|fp32|tf32|bf16|fp16");
    static const char *const bad[] = {"", "BF16", "bf16 ", "auto|fp32", "|"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(set("train.precision", bad[i]), STATUS_CONFIG, "wanted one of");
}

/* The words of a choice are in the order of their enum: last ones by name. */
static void test_choices_follow_their_enums(void **state)
{
    (void)state;
    assert_ok(set("model.pooling", "max"));
    assert_int_equal(config.model.pooling, CONFIG_POOLING_MAX);
    assert_ok(set("data.format", "folder"));
    assert_int_equal(config.data.format, CONFIG_FORMAT_FOLDER);
    assert_ok(set("data.task", "regression"));
    assert_int_equal(config.data.task, CONFIG_TASK_REGRESSION);
    assert_ok(set("train.precision", "fp16"));
    assert_int_equal(config.train.precision, CONFIG_PRECISION_FP16);
    assert_ok(set("train.recompute", "true"));
    assert_int_equal(config.train.recompute, CONFIG_RECOMPUTE_ON);
    assert_ok(set("train.loss", "mse"));
    assert_int_equal(config.train.loss, CONFIG_LOSS_MSE);
    assert_ok(set("schedule.name", "constant"));
    assert_int_equal(config.schedule.name, CONFIG_SCHEDULE_CONSTANT);
    assert_ok(set("schedule.name", "table"));
    assert_int_equal(config.schedule.name, CONFIG_SCHEDULE_TABLE);
    assert_ok(set("optim.name", "lamb"));
    assert_int_equal(config.optim.name, CONFIG_OPTIM_LAMB);
    assert_ok(set("schedule.mode", "exp_range"));
    assert_int_equal(config.schedule.mode, CONFIG_CYCLIC_EXP_RANGE);
    assert_ok(set("schedule.by", "epoch"));
    assert_int_equal(config.schedule.by, CONFIG_BY_EPOCH);
    assert_ok(set("cv.kind", "holdout"));
    assert_int_equal(config.cv.kind, CONFIG_CV_HOLDOUT);
    assert_ok(set("cv.kind", "leave_one_group_out"));
    assert_int_equal(config.cv.kind, CONFIG_CV_LEAVE_ONE_GROUP_OUT);
    assert_ok(set("cv.kind", "column"));
    assert_int_equal(config.cv.kind, CONFIG_CV_COLUMN);
    assert_ok(set("cv.duplicates", "refuse"));
    assert_int_equal(config.cv.duplicates, CONFIG_DUPLICATES_REFUSE);
    assert_ok(set("cv.duplicates", "ignore"));
    assert_int_equal(config.cv.duplicates, CONFIG_DUPLICATES_IGNORE);
    assert_ok(set("cv.select", "best"));
    assert_int_equal(config.cv.select, CONFIG_SELECT_BEST);
    assert_ok(set("parallel.backend", "cuda"));
    assert_int_equal(config.parallel.backend, CONFIG_BACKEND_CUDA);
    assert_ok(set("parallel.reproducible", "off"));
    assert_int_equal(config.parallel.reproducible, CONFIG_OFF);
    assert_ok(set("resume", "never"));
    assert_int_equal(config.resume, CONFIG_RESUME_NEVER);
    assert_ok(set("log.level", "debug"));
    assert_int_equal(config.log.level, CONFIG_LEVEL_DEBUG);
    assert_fails(set("log.level", "loud"), STATUS_CONFIG, "wanted one of error|warning|info|debug");
}

static void test_steps_or_epoch(void **state)
{
    (void)state;
    assert_ok(set("eval.every", "100"));
    assert_false(config.eval.every.epoch);
    assert_int_equal(config.eval.every.steps, 100);
    assert_ok(set("eval.every", "epoch"));
    assert_true(config.eval.every.epoch);
    assert_int_equal(config.eval.every.steps, 0);
    assert_fails(set("eval.every", "epochs"), STATUS_CONFIG,
                 "here: eval.every is \"epochs\", wanted a number of steps, or epoch");
    assert_fails(set("eval.every", "-1"), STATUS_CONFIG, "wanted a number of steps");
    assert_fails(set("eval.every", ""), STATUS_CONFIG, "wanted a number of steps");
}

static void test_lists(void **state)
{
    (void)state;
    assert_ok(set("cv.run_folds", "[0,2]"));
    assert_int_equal(config.cv.run_folds_count, 2);
    assert_int_equal(config.cv.run_folds[1], 2);
    assert_reads("cv.run_folds", "[0,2]");
    assert_ok(set("cv.run_folds", "3, 1"));
    assert_reads("cv.run_folds", "[3,1]");
    assert_ok(set("cv.run_folds", "[]"));
    assert_reads("cv.run_folds", "[]");
    assert_fails(set("cv.run_folds", "[0,x]"), STATUS_CONFIG, "here: cv.run_folds is \"x\", wanted a whole number");
    assert_fails(set("cv.run_folds", "1000"), STATUS_CONFIG, "from 0 to 999");
    assert_fails(set("cv.run_folds", "11111111111111111111111111111111111111111"), STATUS_CONFIG, "whole numbers: [0,2]");
    struct str many = {0};
    for (int i = 0; i <= CONFIG_LIST; i++)
        assert_ok(str_addf(&many, "%d,", i % 9));
    assert_fails(set("cv.run_folds", many.p), STATUS_CONFIG, "whole numbers");
    str_release(&many);
}

static void test_texts(void **state)
{
    char text[CONFIG_TEXT + 1];
    (void)state;
    assert_ok(set("data.text", "a \"b\" \\ \xC3\xA9\n"));
    assert_string_equal(config.data.text, "a \"b\" \\ \xC3\xA9\n");
    memset(text, 'x', sizeof text);
    text[CONFIG_TEXT - 1] = '\0';
    assert_ok(set("out", text));
    assert_int_equal(strlen(config.out), CONFIG_TEXT - 1);
    text[CONFIG_TEXT - 1] = 'x';
    text[CONFIG_TEXT] = '\0';
    assert_fails(set("out", text), STATUS_CONFIG, "here: out has 1024 bytes, wanted fewer than 1024");
    assert_int_equal(strlen(config.out), CONFIG_TEXT - 1);
    assert_fails(set("data.text", "\xFFz"), STATUS_CONFIG, "here: data.text is not UTF-8");
    assert_ok(set("data.train", "\xFFz")); /* a file's name may be any bytes */
    assert_ok(set("out", "a"));            /* nothing of a longer value stays behind it */
    for (size_t i = 1; i < CONFIG_TEXT; i++)
        assert_int_equal(config.out[i], 0);
}

static void test_misspelt_keys_get_a_suggestion(void **state)
{
    (void)state;
    assert_string_equal(key_suggest("lr"), "optim.lr");
    assert_string_equal(key_suggest("optim.lrr"), "optim.lr");
    assert_string_equal(key_suggest("batch_size"), "train.batch_size");
    assert_string_equal(key_suggest("train.batchsize"), "train.batch_size");
    assert_string_equal(key_suggest("sed"), "seed");
    assert_null(key_suggest("something.entirely.different"));
    assert_null(key_find("lr"));
}

static void test_documentation_names_every_key(void **state)
{
    struct str markdown = {0}, plain = {0};
    (void)state;
    assert_ok(keys_document(true, &markdown));
    assert_ok(keys_document(false, &plain));
    for (size_t i = 0; i < keys_count; i++) {
        char cell[96];
        (void)snprintf(cell, sizeof cell, "| `%s`%s |", keys[i].name, keys[i].neutral ? " *" : "");
        assert_non_null(strstr(markdown.p, cell));
        assert_non_null(strstr(plain.p, keys[i].name));
        assert_non_null(strstr(plain.p, keys[i].help));
    }
    str_release(&markdown);
    str_release(&plain);
}

static void test_the_page_is_up_to_date(void **state)
{
    struct str markdown = {0};
    char *bytes;
    size_t n;
    (void)state;
    assert_ok(keys_document(true, &markdown));
    assert_ok(file_read(TEST_DIR "/../docs/keys.md", 1 << 20, &bytes, &n));
    if (n != markdown.n || memcmp(bytes, markdown.p, n) != 0)
        fail_msg("docs/keys.md is not what the table says; make it again: cohort help keys=markdown > docs/keys.md");
    mem_free(bytes);
    str_release(&markdown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults_are_those_of_the_design, fresh),
        cmocka_unit_test_setup(test_every_default_reads_back, fresh),
        cmocka_unit_test_setup(test_names_and_places_are_distinct, fresh),
        cmocka_unit_test_setup(test_whole_numbers, fresh),
        cmocka_unit_test_setup(test_numbers, fresh),
        cmocka_unit_test_setup(test_booleans, fresh),
        cmocka_unit_test_setup(test_choices, fresh),
        cmocka_unit_test_setup(test_choices_follow_their_enums, fresh),
        cmocka_unit_test_setup(test_steps_or_epoch, fresh),
        cmocka_unit_test_setup(test_lists, fresh),
        cmocka_unit_test_setup(test_texts, fresh),
        cmocka_unit_test(test_misspelt_keys_get_a_suggestion),
        cmocka_unit_test(test_documentation_names_every_key),
        cmocka_unit_test(test_the_page_is_up_to_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
