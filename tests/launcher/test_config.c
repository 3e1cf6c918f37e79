/* test_config.c - libconfig files with their traps, key=value, run.cfg and back, what two configurations differ in. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "launcher/config.h"
#include "launcher/keys.h"
#include "tests/support/support.h"

const char *__lsan_default_suppressions(void);

/* libconfig 1.5 loses the strings it was reading where a file has a syntax error. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig\n";
}

static struct run_config config, other;

static enum status parse(const char *text)
{
    return config_parse(text, strlen(text), "a.cfg", &config);
}

static int fresh(void **state)
{
    (void)state;
    assert_ok(config_defaults(&config));
    assert_ok(config_defaults(&other));
    return 0;
}

static void test_a_file_with_every_kind_of_value(void **state)
{
    (void)state;
    assert_ok(parse("# comment\n"
                    "out = \"runs/a\"; seed = 7\n"
                    "overwrite = true; // another\n"
                    "optim: { lr = 3e-5; weight_decay = 0.1, };\n"
                    "train = { precision = \"bf16\"; batch_size = 0x10; }\n"
                    "eval: { every = \"epoch\"; }; checkpoint: { every = 50; };\n"
                    "/* one\n more */ cv: { folds = 4; run_folds = [0, 2]; };"));
    assert_string_equal(config.out, "runs/a");
    assert_int_equal(config.seed, 7);
    assert_true(config.overwrite && config.optim.lr == 3e-5 && config.optim.weight_decay == 0.1);
    assert_int_equal(config.train.precision, CONFIG_PRECISION_BF16);
    assert_int_equal(config.train.batch_size, 16);
    assert_true(config.eval.every.epoch);
    assert_int_equal(config.checkpoint.every.steps, 50);
    assert_int_equal(config.cv.run_folds_count, 2);
    assert_int_equal(config.cv.run_folds[1], 2);
}

static void test_adjacent_strings_and_lists_in_parentheses(void **state)
{
    (void)state;
    assert_ok(parse("out = \"a\" \"b\"; cv: { run_folds = (1, 3); };"));
    assert_string_equal(config.out, "ab");
    assert_int_equal(config.cv.run_folds[1], 3);
}

static void test_numbers_of_more_than_32_bits(void **state)
{
    (void)state;
    assert_ok(parse("seed = 3000000000;"));
    assert_int_equal(config.seed, 3000000000);
    assert_ok(parse("seed = 4294967296L;"));
    assert_int_equal(config.seed, 4294967296);
    assert_ok(parse("seed = 2147483647;"));
    assert_int_equal(config.seed, 2147483647);
    assert_ok(parse("# 99999999999999999999\nout = \"99999999999999999999\";")); /* only where it is a number */
    assert_ok(parse("seed = 0x100000007;"));
    assert_int_equal(config.seed, 0x100000007);
    assert_ok(parse("seed = 0x7fL;"));
    assert_int_equal(config.seed, 127);
    assert_fails(parse("seed = 0x10000000000000007L;"), STATUS_CONFIG, "too large for a whole number");
    assert_fails(parse("seed = 18446744073709551623L;"), STATUS_CONFIG, "too large for a whole number");
    assert_fails(parse("\nseed = 99999999999999999999;"), STATUS_CONFIG,
                 "a.cfg:2: 99999999999999999999 is too large for a whole number");
    assert_fails(parse("seed = 9000000000000001;"), STATUS_CONFIG, "wanted a whole number from 0 to 9e+15");
}

/* The text ends where its length says: nothing behind is looked at. */
static void test_text_without_an_end(void **state)
{
    char *text = malloc(8);
    (void)state;
    assert_non_null(text);
    memcpy(text, "seed=123", 8);
    assert_ok(config_parse(text, 8, "a.cfg", &config));
    assert_int_equal(config.seed, 123);
    assert_ok(config_parse(text, 6, "a.cfg", &config));
    assert_int_equal(config.seed, 1);
    assert_ok(config_parse(text, 0, "a.cfg", &config));
    free(text);
}

static void test_whole_numbers_serve_as_numbers(void **state)
{
    (void)state;
    assert_ok(parse("optim: { lr = 1; };"));
    assert_true(config.optim.lr == 1.0);
    assert_fails(parse("\n\noptim: { lr = 1e400; };"), STATUS_CONFIG, "a.cfg:3: optim.lr is not a finite number");
    assert_fails(parse("train: { batch_size = 1.5; };"), STATUS_CONFIG, "wanted a whole number");
    assert_fails(parse("train: { batch_size = \"many\"; };"), STATUS_CONFIG,
                 "a.cfg:1: train.batch_size is \"many\", wanted a whole number from 1 to 1000000");
}

static void test_include_is_refused(void **state)
{
    (void)state;
    assert_fails(parse("seed = 1;\n\n@include \"/etc/passwd\"\n"), STATUS_CONFIG, "a.cfg:3: @include is not supported");
    assert_ok(parse("# @include \"x\"\nout = \"@include\";"));
}

/* libconfig 1.5 refuses a last line that is a comment, and takes a comment without end as one to the end. */
static void test_comments_at_the_end(void **state)
{
    (void)state;
    assert_ok(parse("seed = 1; # one"));
    assert_ok(parse("seed = 2; // two"));
    assert_ok(parse("seed = 3; /* three */"));
    assert_ok(parse("/**/"));
    assert_int_equal(config.seed, 3);
    assert_fails(parse("seed = 1;\n/* seed = 5;\n"), STATUS_CONFIG, "a.cfg:2: this comment has no end");
    assert_fails(parse("/*/ seed = 5;"), STATUS_CONFIG, "a.cfg:1: this comment has no end");
    assert_fails(parse("/*"), STATUS_CONFIG, "a.cfg:1: this comment has no end");
    assert_int_equal(config.seed, 3);
}

static void test_unknown_keys_and_groups(void **state)
{
    (void)state;
    assert_fails(parse("seed = 1;\noptim: {\n  lrr = 1.0;\n};"), STATUS_CONFIG,
                 "a.cfg:3: there is no key \"optim.lrr\", did you mean optim.lr?");
    assert_fails(parse("lr = 1.0;"), STATUS_CONFIG, "a.cfg:1: there is no key \"lr\", did you mean optim.lr?");
    assert_fails(parse("optimizer: { lr = 1.0; };"), STATUS_CONFIG, "there is no key \"optimizer.lr\"");
    assert_fails(parse("zzzzzzzzzz = 1;"), STATUS_CONFIG, "cohort help keys lists all");
    assert_fails(parse("train = 1;"), STATUS_CONFIG, "there is no key \"train\"");
    assert_fails(parse("seed: { x = 1; };"), STATUS_CONFIG, "there is no key \"seed.x\"");
}

static void test_nesting(void **state)
{
    (void)state;
    assert_fails(parse("train: { optim: { lr = 1.0; }; };"), STATUS_CONFIG, "train.optim is a group inside a group");
    assert_fails(parse("cv: { run_folds = ((1), 2); };"), STATUS_CONFIG, "cv.run_folds holds a list inside a list");
    struct str deep = {0};
    assert_ok(str_addf(&deep, "x = "));
    for (int i = 0; i < 100000; i++)
        assert_ok(str_add(&deep, "(", 1));
    assert_fails(parse(deep.p), STATUS_CONFIG, "a.cfg:1: nested more than 16 deep");
    str_release(&deep);
}

static void test_what_is_no_configuration(void **state)
{
    (void)state;
    assert_fails(parse("seed = 1;\nseed = 2;"), STATUS_CONFIG, "a.cfg:2: duplicate setting name");
    assert_fails(parse("out = \"abc;\n"), STATUS_CONFIG, "a.cfg:");
    assert_fails(parse("optim: { lr = 1.0;"), STATUS_CONFIG, "a.cfg:1: syntax error");
    assert_fails(parse("seed 1"), STATUS_CONFIG, "syntax error");
    assert_fails(parse("optim.lr = 1.0;"), STATUS_CONFIG, "a.cfg:1: syntax error");
    assert_fails(config_parse("seed = 1;\0", 10, "a.cfg", &config), STATUS_CONFIG, "a.cfg holds a NUL byte");
    assert_fails(parse("data: { text = \"\\xFF\"; };"), STATUS_CONFIG, "data.text is not UTF-8");
    char *large;
    size_t n = (1 << 20) + 1;
    assert_ok(mem_alloc_raw(n, 1, "a large text", &large));
    memset(large, '#', n);
    assert_fails(config_parse(large, n, "a.cfg", &config), STATUS_CONFIG, "a.cfg has 1048577 bytes, wanted at most 1048576");
    assert_ok(config_parse(large, n - 1, "a.cfg", &config));
    assert_fails(config_load(support_file("large.cfg", large, n), NULL, 0, &config), STATUS_FORMAT, "large.cfg");
    mem_free(large);
}

static void test_arguments(void **state)
{
    char long_name[200];
    (void)state;
    assert_ok(config_set_argument(&config, "optim.lr=3e-5"));
    assert_true(config.optim.lr == 3e-5);
    assert_ok(config_set_argument(&config, "data.where=a=b and c!=d")); /* only the first = separates */
    assert_string_equal(config.data.where, "a=b and c!=d");
    assert_ok(config_set_argument(&config, "out="));
    assert_string_equal(config.out, "");
    assert_fails(config_set_argument(&config, "optim.lrr=1"), STATUS_CONFIG,
                 "command line: there is no key \"optim.lrr\", did you mean optim.lr?");
    assert_fails(config_set_argument(&config, "lr=1"), STATUS_CONFIG, "did you mean optim.lr?");
    assert_fails(config_set_argument(&config, "optim.lr=x"), STATUS_CONFIG, "command line: optim.lr is \"x\"");
    assert_fails(config_set_argument(&config, "optim.lr"), STATUS_USAGE, "\"optim.lr\" is no key=value");
    assert_fails(config_set_argument(&config, "=1"), STATUS_USAGE, "is no key=value");
    memset(long_name, 'k', sizeof long_name);
    memcpy(long_name + sizeof long_name - 3, "=1", 3);
    assert_fails(config_set_argument(&config, long_name), STATUS_USAGE, "is no key=value");
}

static void test_arguments_win_over_the_file(void **state)
{
    static const char text[] = "seed = 1; optim: { lr = 2.0; };";
    char first[] = "seed=5", second[] = "seed=6";
    char *arguments[] = {first, second};
    (void)state;
    const char *path = support_file("run.cfg", text, sizeof text - 1);
    assert_ok(config_load(path, arguments, 2, &config));
    assert_int_equal(config.seed, 6);
    assert_true(config.optim.lr == 2.0);
    assert_fails(config_load("/nonexistent/run.cfg", NULL, 0, &config), STATUS_NOINPUT, "/nonexistent/run.cfg");
    assert_ok(config_load(NULL, NULL, 0, &config));
    assert_memory_equal(&config, &other, sizeof config);
}

/* ---- and back ---- */

static void assert_round_trip(void)
{
    struct str text = {0};
    assert_ok(config_text(&config, &text));
    enum status st = config_parse(text.p, text.n, "run.cfg", &other);
    if (st != STATUS_OK)
        fail_msg("%s in\n%s", status_message(), text.p);
    assert_memory_equal(&config, &other, sizeof config);
    str_release(&text);
}

static void test_defaults_round_trip(void **state)
{
    (void)state;
    assert_round_trip();
}

static void test_hard_values_round_trip(void **state)
{
    static const char *const arguments[] = {
        "out=a \"quoted\" \\ back\\\\slash \\n /* no comment */ # none // none; };",
        "data.text=two\nlines\r\nand a\ttab", "data.label=\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80", "data.pair=@include",
        "data.train=\x01\x7F\xFF bytes \f \v \b", "data.where=a=\"b\"", "seed=9000000000000000", "train.max_steps=2147483648",
        "train.batch_size=1000000", "optim.lr=0.1", "optim.eps=1e-20", "optim.beta2=0.9999999", "optim.weight_decay=10",
        "schedule.num_cycles=0.30000000000000004", "schedule.warmup_steps=-1", "optim.max_grad_norm=1e9",
        "train.memory_limit_gb=0.000001", "eval.every=9000000000", "checkpoint.every=0", "cv.run_folds=0,999,3",
        "model.from_scratch=yes", "train.recompute=false", "parallel.reproducible=off", "predict.score_column=0"};
    (void)state;
    for (size_t i = 0; i < sizeof arguments / sizeof arguments[0]; i++)
        assert_ok(config_set_argument(&config, arguments[i]));
    assert_round_trip();
}

/* Every key alone, at the ends of its range. */
static void test_every_key_round_trips_at_its_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < keys_count; i++) {
        if (keys[i].type != KEY_INT && keys[i].type != KEY_REAL)
            continue;
        for (int end = 0; end < 2; end++) {
            struct str text = {0};
            (void)fresh(NULL);
            assert_ok(str_add_double(&text, end == 0 ? keys[i].low : keys[i].high));
            assert_ok(key_set(&config, &keys[i], text.p, "here"));
            assert_round_trip();
            str_release(&text);
        }
    }
}

/* ---- comparing ---- */

static void test_difference_names_what_matters(void **state)
{
    struct str out = {0};
    (void)state;
    assert_ok(config_difference(&config, &other, &out));
    assert_string_equal(out.p, "");
    assert_ok(config_set_argument(&other, "optim.lr=0.001"));
    assert_ok(config_set_argument(&other, "train.precision=fp32"));
    assert_ok(config_set_argument(&other, "log.every=99")); /* cannot change a result */
    assert_ok(config_set_argument(&other, "out=elsewhere"));
    assert_ok(config_set_argument(&other, "parallel.threads=3"));
    assert_ok(config_set_argument(&other, "checkpoint.every=7"));
    assert_ok(config_difference(&config, &other, &out));
    assert_string_equal(out.p, "train.precision (auto, now fp32), optim.lr (5e-05, now 0.001)");
    str_release(&out);
}

static uint64_t identity(const struct run_config *of, int ranks)
{
    uint64_t hash;
    assert_ok(config_identity(of, ranks, &hash));
    return hash;
}

static void test_identity_under_fixed(void **state)
{
    (void)state;
    assert_true(identity(&config, 2) == identity(&other, 2));
    assert_true(identity(&config, 1) != identity(&other, 2));
    assert_ok(config_set_argument(&other, "log.every=99"));
    assert_ok(config_set_argument(&other, "parallel.threads=3"));
    assert_true(identity(&config, 2) == identity(&other, 2));
    assert_ok(config_set_argument(&other, "train.micro_tokens=4096"));
    assert_true(identity(&config, 2) != identity(&other, 2));
}

static void test_identity_under_any(void **state)
{
    (void)state;
    assert_ok(config_set_argument(&config, "parallel.reproducible=any"));
    assert_ok(config_set_argument(&other, "parallel.reproducible=any"));
    assert_true(identity(&config, 1) == identity(&other, 4));
    assert_ok(config_set_argument(&other, "train.micro_tokens=4096"));
    assert_ok(config_set_argument(&other, "cv.group_ranks=2"));
    assert_true(identity(&config, 1) == identity(&other, 4));
    struct str out = {0};
    assert_ok(config_difference(&config, &other, &out));
    assert_string_equal(out.p, "");
    str_release(&out);
    assert_ok(config_set_argument(&other, "parallel.grains=4"));
    assert_true(identity(&config, 1) != identity(&other, 1));
}

/* Every key that can change a result changes the identity, and no other does. */
static void test_identity_covers_every_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < keys_count; i++) {
        const struct key *key = &keys[i];
        char value[32];
        (void)fresh(NULL);
        if (key->type == KEY_INT || key->type == KEY_REAL)
            (void)snprintf(value, sizeof value, "%.17g", strtod(key->fallback, NULL) == key->high ? key->low : key->high);
        else if (key->type == KEY_CHOICE) /* the last, which is no default */
            (void)snprintf(value, sizeof value, "%s", strrchr(key->choices, '|') + 1);
        else if (key->type == KEY_BOOL)
            (void)snprintf(value, sizeof value, "%s", strcmp(key->fallback, "true") == 0 ? "false" : "true");
        else
            (void)snprintf(value, sizeof value, "7");
        assert_ok(key_set(&other, key, value, "here"));
        if ((identity(&config, 1) == identity(&other, 1)) != key->neutral)
            fail_msg("%s=%s: %s", key->name, value, key->neutral ? "changes the identity" : "leaves the identity");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_file_with_every_kind_of_value, fresh),
        cmocka_unit_test_setup(test_adjacent_strings_and_lists_in_parentheses, fresh),
        cmocka_unit_test_setup(test_numbers_of_more_than_32_bits, fresh),
        cmocka_unit_test_setup(test_text_without_an_end, fresh),
        cmocka_unit_test_setup(test_whole_numbers_serve_as_numbers, fresh),
        cmocka_unit_test_setup(test_include_is_refused, fresh),
        cmocka_unit_test_setup(test_comments_at_the_end, fresh),
        cmocka_unit_test_setup(test_unknown_keys_and_groups, fresh),
        cmocka_unit_test_setup(test_nesting, fresh),
        cmocka_unit_test_setup(test_what_is_no_configuration, fresh),
        cmocka_unit_test_setup(test_arguments, fresh),
        cmocka_unit_test_setup(test_arguments_win_over_the_file, fresh),
        cmocka_unit_test_setup(test_defaults_round_trip, fresh),
        cmocka_unit_test_setup(test_hard_values_round_trip, fresh),
        cmocka_unit_test_setup(test_every_key_round_trips_at_its_ends, fresh),
        cmocka_unit_test_setup(test_difference_names_what_matters, fresh),
        cmocka_unit_test_setup(test_identity_under_fixed, fresh),
        cmocka_unit_test_setup(test_identity_under_any, fresh),
        cmocka_unit_test_setup(test_identity_covers_every_key, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
