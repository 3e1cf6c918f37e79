/* test_lr_schedule.c - whole curves of torch's and transformers' schedulers, N11's golden values, tables, plateau. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "model/lr_schedule.h"
#include "tests/support/support.h"

static json_t *golden;

static int open_all(void **state)
{
    (void)state;
    return json_read_file(TEST_DIR "/golden/lr_schedules.json", 1 << 20, &golden) != STATUS_OK;
}

static int close_all(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

static double real(const json_t *keys, const char *name, double fallback)
{
    const json_t *value = json_object_get(keys, name);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

static int64_t whole(const json_t *keys, const char *name, int64_t fallback)
{
    return (int64_t)real(keys, name, (double)fallback);
}

static enum lr_kind kind_of(const char *name)
{
    static const char *const names[] = {"linear",      "cosine",     "constant",             "step",          "multi_step",
                                        "exponential", "polynomial", "cosine_with_restarts", "warm_restarts", "cyclic",
                                        "one_cycle",   "plateau",    "table"};
    int i = 0;
    while (strcmp(names[i], name) != 0)
        i++;
    return (enum lr_kind)i;
}

struct room {
    int64_t milestones[8];
    struct lr_point points[8];
};

static struct lr_schedule schedule_of(const json_t *entry, struct room *room)
{
    const json_t *k = json_object_get(entry, "keys"), *list = json_object_get(k, "milestones"), *one;
    const char *mode = json_string_value(json_object_get(k, "mode"));
    size_t i;
    struct lr_schedule z = {
        .kind = kind_of(json_string_value(json_object_get(entry, "name"))),
        .warmup = whole(k, "warmup", 0), .total = whole(k, "total", 0), .epoch_steps = whole(k, "epoch_steps", 0),
        .length = whole(k, "length", 0), .start = real(k, "start", 1), .end = real(k, "end", 0),
        .least = real(k, "least", 0), .cycles = real(k, "cycles", 0.5), .power = real(k, "power", 1),
        .gamma = real(k, "gamma", 0.1), .step_size = whole(k, "step_size", 0), .first_cycle = whole(k, "first_cycle", 0),
        .cycle_factor = whole(k, "cycle_factor", 1), .up = whole(k, "up", 0), .down = whole(k, "down", 0),
        .rise = real(k, "rise", 0.3), .div_factor = real(k, "div_factor", 25),
        .final_div_factor = real(k, "final_div_factor", 1e4), .three_phase = json_is_true(json_object_get(k, "three_phase")),
        .straight = json_is_true(json_object_get(k, "straight")), .milestones = room->milestones, .points = room->points,
    };
    if (mode != NULL)
        z.mode = strcmp(mode, "triangular2") == 0 ? CYCLIC_TRIANGULAR2
                                                  : strcmp(mode, "exp_range") == 0 ? CYCLIC_EXP_RANGE : CYCLIC_TRIANGULAR;
    json_array_foreach(list, i, one)
        room->milestones[z.milestone_count++] = json_integer_value(one);
    json_array_foreach(json_object_get(k, "points"), i, one)
        room->points[z.point_count++] = (struct lr_point){json_integer_value(json_array_get(one, 0)),
                                                          json_number_value(json_array_get(one, 1))};
    return z;
}

static void test_curves(void **state)
{
    (void)state;
    size_t i, s;
    const json_t *entry, *factor;
    int curves = 0;
    json_array_foreach(json_object_get(golden, "curves"), i, entry) {
        struct room room = {0};
        const struct lr_schedule z = schedule_of(entry, &room);
        assert_ok(lr_schedule_check(&z));
        json_array_foreach(json_object_get(entry, "factors"), s, factor) {
            double want = json_number_value(factor), got = lr_schedule_factor(&z, (int64_t)s);
            if (!(fabs(got - want) <= 1e-12 * (1 + fabs(want)))) {
                char *keys = json_dumps(entry, JSON_COMPACT);
                fail_msg("curve %zu, step %zu: %.17g, wanted %.17g: %.300s", i, s, got, want, keys);
            }
        }
        curves++;
    }
    assert_int_equal(curves, 128);
}

static void test_golden_n11(void **state)
{
    (void)state;
    static const int64_t s[7] = {0, 1, 13, 25, 26, 142, 257};
    static const double linear[7] = {0, .038462, .5, .961538, 1, .5, .00431}, cosine[7] = {0, .038462, .5, .961538, 1, .5, .000046};
    struct lr_schedule z = {.warmup = 26, .total = 258, .start = 1, .cycles = 0.5};
    for (int i = 0; i < 7; i++) {
        z.kind = LR_LINEAR;
        support_assert_near(lr_schedule_factor(&z, s[i]), linear[i], 5e-7, "linear");
        z.kind = LR_COSINE;
        support_assert_near(lr_schedule_factor(&z, s[i]), cosine[i], 5e-7, "cosine");
        z.kind = LR_CONSTANT;
        support_assert_near(lr_schedule_factor(&z, s[i]), i < 4 ? linear[i] : 1, 5e-7, "constant");
    }
    z.kind = LR_LINEAR;
    assert_true(lr_schedule_factor(&z, 300) == 0);
    z.warmup = 0;
    assert_true(lr_schedule_factor(&z, 0) == 1);
    z.kind = LR_COSINE;
    support_assert_near(lr_schedule_factor(&z, 20) * 2e-5, .00001970, 5e-9, "without warm-up");
    z = (struct lr_schedule){.start = 1};
    assert_true(lr_schedule_factor(&z, 0) == 0);
}

static void test_plateaus(void **state)
{
    (void)state;
    size_t i, s;
    const json_t *entry, *score, *scores = json_object_get(golden, "scores");
    json_array_foreach(json_object_get(golden, "plateaus"), i, entry) {
        const json_t *k = json_object_get(entry, "keys");
        const struct plateau_opts opts = {
            .factor = real(k, "factor", 0), .patience = whole(k, "patience", 0), .threshold = real(k, "threshold", 0),
            .relative = json_is_true(json_object_get(k, "relative")), .cooldown = whole(k, "cooldown", 0),
            .least = real(k, "least", 0), .granularity = real(k, "granularity", 0),
            .larger = json_is_true(json_object_get(k, "larger")),
        };
        struct plateau p = plateau_start();
        json_array_foreach(scores, s, score) {
            double before = p.factor;
            bool fell = plateau_score(&opts, &p, json_is_null(score) ? (double)NAN : json_number_value(score));
            support_assert_near(p.factor, json_number_value(json_array_get(json_object_get(entry, "factors"), s)), 1e-12,
                                "plateau");
            assert_int_equal(fell, p.factor < before);
        }
    }
    assert_int_equal((int)i, 12);
    struct plateau p = plateau_start(); /* a relative gain of a negative score */
    const struct plateau_opts opts = {.factor = 0.5, .patience = 0, .threshold = 0.1, .relative = true, .larger = true};
    assert_false(plateau_score(&opts, &p, -1));
    assert_false(plateau_score(&opts, &p, -0.8));
    assert_true(plateau_score(&opts, &p, -0.79));
}

static void test_swa_rates(void **state)
{
    (void)state;
    size_t i, s;
    const json_t *entry, *factor;
    json_array_foreach(json_object_get(golden, "swa"), i, entry)
        json_array_foreach(json_object_get(entry, "factors"), s, factor)
            support_assert_near(swa_factor(real(entry, "from", 0), real(entry, "to", 0), (int64_t)s,
                                           whole(entry, "length", 0), json_is_true(json_object_get(entry, "straight"))),
                                json_number_value(factor), 1e-12, "SWA");
    assert_int_equal((int)i, 4);
}

static enum status points_of(const char *text, struct lr_point **points, int64_t *count)
{
    return lr_schedule_points(text, strlen(text), "here", points, count);
}

static void test_tables(void **state)
{
    (void)state;
    struct lr_point *points;
    int64_t n;
    assert_ok(points_of("0:1, 10 : 0.5\n 20\t0 # end\n\n", &points, &n));
    assert_int_equal(n, 3);
    const struct lr_schedule stairs = {.kind = LR_TABLE, .total = 30, .points = points, .point_count = n},
                             lines = {.kind = LR_TABLE, .total = 30, .warmup = 4, .points = points, .point_count = n, .interpolate = true};
    assert_true(lr_schedule_factor(&stairs, 9) == 1 && lr_schedule_factor(&stairs, 10) == 0.5);
    assert_true(lr_schedule_factor(&stairs, 19) == 0.5 && lr_schedule_factor(&stairs, 1000) == 0);
    support_assert_near(lr_schedule_factor(&lines, 3), 0.75, 1e-15, "warm-up");
    support_assert_near(lr_schedule_factor(&lines, 9), 0.75, 1e-15, "between points");
    support_assert_near(lr_schedule_factor(&lines, 16), 0.4, 1e-15, "between points");
    assert_true(lr_schedule_factor(&lines, 100) == 0);
    mem_free(points);
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "here holds no points"},
        {"# nothing", "here holds no points"},
        {"1:1", "here:1: the first point is not that of 0"},
        {"0:1\n5:1,5:2", "here:2: points do not ascend at \"5:2\""},
        {"0:1,x:2", "here:1: no step or epoch at \"x:2\""},
        {"0:1,-3:2", "no step or epoch"},
        {"0:-1", "no factor of 0 or more at \"-1\""},
        {"0:nan", "no factor"},
        {"0:inf", "no factor"},
        {"0:1 2", "more than a point"},
        {"0", "no factor"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_fails(points_of(bad[i].text, &points, &n), STATUS_CONFIG, bad[i].why);
        assert_null(points);
        assert_int_equal(n, 0);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct lr_schedule z;
        const char *why;
    } bad[] = {
        {{.kind = LR_STEP}, "schedule.step_size is 0, wanted at least 1"},
        {{.kind = LR_MULTI_STEP}, "schedule.milestones is empty"},
        {{.kind = LR_COSINE_WITH_RESTARTS, .cycles = 0.5}, "schedule.num_cycles is 0.5, wanted at least 1"},
        {{.kind = LR_WARM_RESTARTS}, "schedule.t_0 is 0"},
        {{.kind = LR_CYCLIC}, "schedule.step_size_up is 0"},
        {{.kind = LR_TABLE}, "schedule.table is empty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(lr_schedule_check(&bad[i].z), STATUS_CONFIG, bad[i].why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curves),    cmocka_unit_test(test_golden_n11), cmocka_unit_test(test_plateaus),
        cmocka_unit_test(test_swa_rates), cmocka_unit_test(test_tables),     cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
