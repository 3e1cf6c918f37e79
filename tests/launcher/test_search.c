/* test_search.c - search.<key>: what may be searched, lists and ranges, grids and draws, run.cfg and back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "launcher/config.h"
#include "launcher/keys.h"
#include "launcher/search.h"
#include "tests/support/support.h"

static struct run_config config, other;

static int fresh(void **state)
{
    (void)state;
    assert_ok(config_defaults(&config));
    assert_ok(config_defaults(&other));
    return 0;
}

static enum status set(const char *argument)
{
    return config_set_argument(&config, argument);
}

/* All settings' labels, joined by " | ". */
static char *labels(void)
{
    struct search search;
    struct str out = {0};
    assert_ok(search_expand(&config, &search));
    for (int s = 0; s < search.settings; s++) {
        assert_ok(str_addf(&out, "%s", s == 0 ? "" : " | "));
        assert_ok(search_label(&config, &search, s, &out));
    }
    search_release(&search);
    return out.p;
}

static void assert_labels(const char *wanted)
{
    char *got = labels();
    assert_string_equal(got, wanted);
    mem_free(got);
}

static void test_without_searched_keys_there_is_one_setting(void **state)
{
    (void)state;
    assert_labels("");
}

static void test_a_grid_has_every_combination(void **state)
{
    (void)state;
    assert_ok(set("search.optim.lr=[2e-5, 5e-5]"));
    assert_ok(set("search.train.batch_size=(16,32,64)"));
    assert_labels("optim.lr=2e-5 train.batch_size=16 | optim.lr=2e-5 train.batch_size=32 | "
                  "optim.lr=2e-5 train.batch_size=64 | optim.lr=5e-5 train.batch_size=16 | "
                  "optim.lr=5e-5 train.batch_size=32 | optim.lr=5e-5 train.batch_size=64");
    struct search search;
    assert_ok(search_expand(&config, &search));
    assert_ok(search_config(&config, &search, 4, &other));
    assert_true(other.optim.lr == 5e-5 && other.train.batch_size == 32 && other.search.count == 0);
    search_release(&search);
    assert_ok(set("search.optim.lr=3e-5")); /* replaces, in its place */
    assert_labels("optim.lr=3e-5 train.batch_size=16 | optim.lr=3e-5 train.batch_size=32 | optim.lr=3e-5 train.batch_size=64");
}

static void test_words_in_quotes_may_have_commas(void **state)
{
    (void)state;
    assert_ok(set("search.train.class_weights=[\"1,2\", balanced, \"3,\\\"4\"]"));
    assert_labels("train.class_weights=1,2 | train.class_weights=balanced | train.class_weights=3,\"4");
}

static void test_what_cannot_be_searched_is_refused(void **state)
{
    (void)state;
    assert_fails(set("search.optim.rl=[1]"), STATUS_CONFIG, "did you mean search.optim.lr?");
    assert_fails(set("search.seed=[1,2]"), STATUS_CONFIG, "cv.repeats");
    assert_fails(set("search.data.train=[a,b]"), STATUS_CONFIG, "is the same in all trials");
    assert_fails(set("search.eval.metric=[mcc,f1]"), STATUS_CONFIG, "is the same in all trials");
    assert_fails(set("search.search.kind=[grid]"), STATUS_CONFIG, "is the same in all trials");
    assert_fails(set("search.optim.lr=[]"), STATUS_CONFIG, "no values");
    assert_fails(set("search.optim.lr=[1e-5,,2e-5]"), STATUS_CONFIG, "empty");
    assert_fails(set("search.optim.lr=[1e-5,fast]"), STATUS_CONFIG, "optim.lr is \"fast\", wanted a number");
    assert_fails(set("search.model.pooling=[cls,median]"), STATUS_CONFIG, "wanted one of auto|cls|pooler|mean|max");
    assert_fails(set("search.model.pooling=uniform(1,2)"), STATUS_CONFIG, "is no number");
    assert_fails(set("search.optim.lr=log(0,1)"), STATUS_CONFIG, "0 < a < b");
    assert_fails(set("search.optim.lr=uniform(2,1)"), STATUS_CONFIG, "a < b");
    assert_fails(set("search.optim.lr=uniform(1,11)"), STATUS_CONFIG, "from 0 to 10");
    (void)fresh(NULL);
    assert_ok(set("search.data.max_length=[64,128]"));
    assert_ok(set("search.optim.lr=log(1e-5,1e-4)"));
    struct search search;
    assert_fails(search_expand(&config, &search), STATUS_CONFIG, "search.kind=random draws from");
    (void)fresh(NULL);
    char text[1000] = "search.optim.lr=[1";
    for (int i = 0; i < 199; i++)
        strcat(text, ",1");
    strcat(text, "]");
    assert_ok(set(text));
    (void)snprintf(text, sizeof text, "search.train.epochs=[1"); /* as many of another key: 40,000 of both */
    for (int i = 0; i < 199; i++)
        strcat(text, ",1");
    strcat(text, "]");
    assert_ok(set(text));
    assert_fails(search_expand(&config, &search), STATUS_CONFIG, "more than 10000 settings");
}

static void test_draws_stay_in_range_and_repeat(void **state)
{
    (void)state;
    struct search search;
    double low = 1.0, high = 0.0;
    int epochs[4] = {0};
    assert_ok(set("search.kind=random"));
    assert_ok(set("search.samples=400"));
    assert_ok(set("search.optim.lr=log(1e-6,1e-3)"));
    assert_ok(set("search.train.epochs=int(1,3)"));
    assert_ok(set("search.model.dropout=uniform(0,0.5)"));
    assert_ok(search_expand(&config, &search));
    assert_int_equal(search.settings, 400);
    int below = 0, small = 0;
    for (int s = 0; s < 400; s++) {
        assert_ok(search_config(&config, &search, s, &other));
        assert_true(other.optim.lr >= 1e-6 && other.optim.lr <= 1e-3 && other.model.dropout >= 0.0 && other.model.dropout <= 0.5);
        low = other.optim.lr < low ? other.optim.lr : low;
        high = other.optim.lr > high ? other.optim.lr : high;
        below += other.optim.lr < 3.1623e-5; /* the middle in the logarithm */
        small += other.model.dropout < 0.25;
        epochs[(int)other.train.epochs]++;
    }
    assert_true(low < 1.1e-6 && high > 9e-4);
    assert_true(below > 160 && below < 240 && small > 160 && small < 240);
    assert_true(epochs[1] > 100 && epochs[2] > 100 && epochs[3] > 100);
    search_release(&search);
    char *first = labels(), *second = labels();
    assert_string_equal(first, second);
    assert_ok(set("seed=43"));
    char *third = labels();
    assert_string_not_equal(first, third);
    mem_free(first);
    mem_free(second);
    mem_free(third);
}

static void test_draws_from_lists_are_different_settings(void **state)
{
    (void)state;
    struct search search;
    assert_ok(set("search.kind=random"));
    assert_ok(set("search.samples=10"));
    assert_ok(set("search.optim.lr=[1e-5,2e-5,3e-5]"));
    assert_ok(set("search.train.batch_size=[8,16]"));
    assert_ok(search_expand(&config, &search)); /* 6 there are; a warning tells */
    assert_int_equal(search.settings, 6);
    for (int a = 0; a < 6; a++) {
        for (int b = 0; b < a; b++)
            assert_true(strcmp(search.setting[a].values[0], search.setting[b].values[0]) != 0 ||
                        strcmp(search.setting[a].values[1], search.setting[b].values[1]) != 0);
    }
    search_release(&search);
}

static void test_files_and_back(void **state)
{
    (void)state;
    struct str text = {0}, difference = {0};
    const char *file = "search: { kind = \"random\"; samples = 3; optim: { lr = [2e-5, 5e-5]; };\n"
                       "  train: { class_weights = (\"1,2\", \"balanced\"); epochs = \"int(1,3)\"; }; };";
    assert_ok(config_parse(file, strlen(file), "a.cfg", &config));
    assert_int_equal(config.search.count, 3);
    assert_string_equal(config.search.key[1].values, "1,2\nbalanced"); /* of optim.lr, train.class_weights, train.epochs */
    assert_ok(config_text(&config, &text));
    assert_ok(config_parse(text.p, text.n, "run.cfg", &other));
    assert_memory_equal(&config.search, &other.search, sizeof config.search);
    assert_ok(config_difference(&config, &other, &difference));
    assert_string_equal(difference.p, "");
    assert_ok(config_set_argument(&other, "search.optim.lr=[1e-5]"));
    assert_ok(config_set_argument(&other, "search.model.dropout=[0,0.1]"));
    str_clear(&difference);
    assert_ok(config_difference(&config, &other, &difference));
    assert_string_equal(difference.p, "search.optim.lr (2e-05,5e-05, now 1e-5), search.model.dropout (nothing, now 0,0.1)");
    assert_fails(config_parse("search: { optim: { lr = [[1]]; }; };", 36, "a.cfg", &config), STATUS_CONFIG, "");
    assert_fails(config_parse("optim: { adam: { lr = 1; }; };", 30, "a.cfg", &config), STATUS_CONFIG, "group inside a group");
    str_release(&text);
    str_release(&difference);
}

/* What a setting's trials are named by does not depend on what else is searched. */
static void test_a_setting_is_the_run_of_its_own_configuration(void **state)
{
    (void)state;
    struct search search;
    uint64_t a, b;
    assert_ok(set("search.optim.lr=[2e-5,5e-5]"));
    assert_ok(search_expand(&config, &search));
    assert_ok(search_config(&config, &search, 1, &other));
    assert_ok(config_identity(&other, 1, &a));
    search_release(&search);
    (void)fresh(NULL);
    assert_ok(set("optim.lr=5e-5"));
    assert_ok(config_identity(&config, 1, &b));
    assert_true(a == b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_without_searched_keys_there_is_one_setting, fresh),
        cmocka_unit_test_setup(test_a_grid_has_every_combination, fresh),
        cmocka_unit_test_setup(test_words_in_quotes_may_have_commas, fresh),
        cmocka_unit_test_setup(test_what_cannot_be_searched_is_refused, fresh),
        cmocka_unit_test_setup(test_draws_stay_in_range_and_repeat, fresh),
        cmocka_unit_test_setup(test_draws_from_lists_are_different_settings, fresh),
        cmocka_unit_test_setup(test_files_and_back, fresh),
        cmocka_unit_test_setup(test_a_setting_is_the_run_of_its_own_configuration, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
