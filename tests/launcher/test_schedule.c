/* test_schedule.c - which trial runs where: order, halving, nesting, failures; the same outcome on any groups. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "launcher/schedule.h"
#include "tests/support/support.h"

enum { TRIALS_MOST = 4096, GROUPS_MOST = 64 };

/* A score that depends on what a trial is alone: higher settings are better, folds and rungs add noise. */
static double score_of(const struct schedule_trial *t, int rung, uint64_t seed)
{
    uint64_t key = random_key(seed, 99, (uint64_t)t->setting + 1, (uint64_t)(t->repeat * 1000 + t->fold * 10 + t->inner + 1));
    return t->setting * 0.1 + 0.3 * (double)random_below(key, (uint64_t)rung, 1000) / 1000.0;
}

struct world {
    struct schedule_opts opts;
    uint64_t seed;
    double speed_noise;      /* durations are work * (1 + noise) */
    int fails_at, fails;     /* this trial fails so often */
    enum status failure;
    bool uneven_work;
};

struct event {
    double at;
    int trial; /* -1: the group is idle */
};

static double *work_of(const struct world *w)
{
    int n = schedule_count(&w->opts);
    double *work = malloc((size_t)n * sizeof *work);
    for (int i = 0; i < n; i++)
        work[i] = w->uneven_work ? 1.0 + (double)random_below(w->seed, 7000 + (uint64_t)i, 100) : 10.0;
    return work;
}

static struct schedule *open_schedule(struct world *w, double *work)
{
    struct schedule *s;
    w->opts.work = work;
    assert_ok(schedule_open(&w->opts, &s));
    return s;
}

/* Run to the end (or to `most` arrivals), event after event. Returns the time of the last one. */
static double run(struct world *w, struct schedule *s, int most)
{
    struct event event[GROUPS_MOST];
    double now = 0.0;
    int failures = 0, arrivals = 0;
    for (int g = 0; g < w->opts.groups; g++)
        event[g].trial = -1;
    for (;;) {
        int next = -1;
        for (int g = 0; g < w->opts.groups; g++) {
            if (event[g].trial >= 0)
                continue;
            int i = schedule_take(s, g);
            if (i < 0)
                continue;
            const struct schedule_trial *t = schedule_trial(s, i);
            assert_int_equal(t->state, TRIAL_RUNNING);
            assert_int_equal(t->group, g);
            assert_true(t->setting >= 0);
            double share = schedule_share(s, t->rungs) - (t->rungs == 0 ? 0.0 : schedule_share(s, t->rungs - 1));
            double noise = w->speed_noise * (double)random_below(w->seed + 5, (uint64_t)(i * 64 + g), 1000) / 1000.0;
            event[g] = (struct event){now + t->work * share * (1.0 + noise), i};
        }
        for (int g = 0; g < w->opts.groups; g++) {
            if (event[g].trial >= 0 && (next < 0 || event[g].at < event[next].at))
                next = g;
        }
        if (next < 0 || (most >= 0 && arrivals == most))
            return now;
        now = event[next].at;
        int i = event[next].trial;
        const struct schedule_trial *t = schedule_trial(s, i);
        event[next].trial = -1;
        if (i == w->fails_at && failures < w->fails) {
            failures++;
            schedule_failed(s, i, w->failure);
        } else {
            schedule_arrived(s, i, score_of(t, t->rungs, w->seed));
            arrivals++;
        }
    }
}

static void assert_same_outcome(const struct schedule *a, const struct schedule *b)
{
    for (int i = 0; i < schedule_trials(a); i++) {
        const struct schedule_trial *x = schedule_trial(a, i), *y = schedule_trial(b, i);
        assert_int_equal(x->state, y->state);
        assert_int_equal(x->setting, y->setting);
        assert_int_equal(x->rungs, y->rungs);
        assert_true(x->score == y->score || (isnan(x->score) && isnan(y->score)));
        assert_true(x->state == TRIAL_FINISHED || x->state == TRIAL_DROPPED || x->state == TRIAL_GIVEN_UP);
    }
}

static struct world plain(int settings, int repeats, int folds)
{
    return (struct world){.opts = {.settings = settings, .repeats = repeats, .folds = folds, .groups = 1, .higher_is_better = true},
                          .seed = 3, .fails_at = -1, .uneven_work = true};
}

static void test_trials_have_their_names(void **state)
{
    (void)state;
    struct schedule_opts opts = {.settings = 2, .repeats = 2, .folds = 3};
    struct schedule_trial t;
    assert_int_equal(schedule_count(&opts), 12);
    schedule_name(&opts, 7, &t); /* repeat 1, fold 0, setting 1 */
    assert_int_equal(t.repeat, 1);
    assert_int_equal(t.fold, 0);
    assert_int_equal(t.setting, 1);
    assert_int_equal(t.inner, -1);
    opts.inner_folds = 4;
    assert_int_equal(schedule_count(&opts), 2 * 3 * 9);
    schedule_name(&opts, 9 + 5, &t); /* fold 1: setting 1, inner 1 */
    assert_int_equal(t.fold, 1);
    assert_int_equal(t.setting, 1);
    assert_int_equal(t.inner, 1);
    schedule_name(&opts, 17, &t);
    assert_int_equal(t.setting, -1);
    assert_int_equal(t.inner, -1);
    assert_int_equal(t.state, TRIAL_BLOCKED);
}

static void test_the_most_work_goes_first_and_the_end_is_near_the_best(void **state)
{
    (void)state;
    for (int groups = 1; groups <= 16; groups++) {
        struct world w = plain(3, 2, 5);
        w.opts.groups = groups;
        double *work = work_of(&w), sum = 0.0, longest = 0.0;
        struct schedule *s = open_schedule(&w, work);
        for (int i = 0; i < 30; i++) {
            sum += work[i];
            longest = work[i] > longest ? work[i] : longest;
        }
        int first = schedule_take(s, 0);
        assert_true(work[first] == longest);
        schedule_close(s);
        s = open_schedule(&w, work);
        double end = run(&w, s, -1), least = sum / groups > longest ? sum / groups : longest;
        assert_true(end <= least * (4.0 / 3.0)); /* Graham's bound is against the best end, which is least at the least */
        for (int i = 0; i < 30; i++)
            assert_int_equal(schedule_trial(s, i)->state, TRIAL_FINISHED);
        assert_int_equal(schedule_take(s, 0), SCHEDULE_END);
        schedule_close(s);
        free(work);
    }
}

/* ceil(n / halving) settings go on at each rung; who, is decided by the mean over all their folds. */
static void test_halving_keeps_the_best(void **state)
{
    (void)state;
    struct world w = plain(9, 1, 4);
    w.opts.halving = 3;
    w.opts.rungs = 2;
    double *work = work_of(&w), best[2] = {-1.0, -1.0};
    struct schedule *s = open_schedule(&w, work);
    assert_true(fabs(schedule_share(s, 0) - 1.0 / 9.0) < 1e-15 && fabs(schedule_share(s, 1) - 1.0 / 3.0) < 1e-15);
    assert_true(schedule_share(s, 2) == 1.0);
    run(&w, s, -1);
    int finished[9] = {0}, at_rung[3] = {0};
    for (int i = 0; i < 36; i++) {
        const struct schedule_trial *t = schedule_trial(s, i);
        finished[t->setting] += t->state == TRIAL_FINISHED;
        at_rung[t->state == TRIAL_FINISHED ? 2 : t->rungs - 1]++;
    }
    assert_int_equal(at_rung[0], 6 * 4); /* 9 settings, 3 go on, 1 ends */
    assert_int_equal(at_rung[1], 2 * 4);
    assert_int_equal(at_rung[2], 4);
    for (int rung = 0; rung < 2; rung++) { /* the winner had the best mean of rung 1 among those that it kept */
        for (int k = 0; k < 9; k++) {
            double mean = 0.0;
            for (int i = 0; i < 36; i++) {
                struct schedule_trial t = *schedule_trial(s, i);
                mean += t.setting == k && (rung == 0 || t.rungs == 2) ? score_of(&t, rung, w.seed) / 4.0 : 0.0;
            }
            best[rung] = mean > best[rung] ? mean : best[rung];
            if (rung == 1 && finished[k] > 0)
                assert_int_equal(finished[k], 4);
            if (rung == 1 && finished[k] == 0)
                assert_true(mean <= best[1]);
        }
    }
    for (int k = 0; k < 9; k++) {
        double mean = 0.0;
        for (int i = 0; i < 36; i++)
            mean += schedule_trial(s, i)->setting == k ? score_of(schedule_trial(s, i), 1, w.seed) / 4.0 : 0.0;
        if (finished[k] > 0)
            assert_true(fabs(mean - best[1]) < 1e-12);
    }
    schedule_close(s);
    free(work);
}

static void test_lower_is_better_where_it_is(void **state)
{
    (void)state;
    struct world w = plain(4, 1, 2);
    w.opts.halving = 4;
    w.opts.rungs = 1;
    for (int lower = 0; lower <= 1; lower++) {
        w.opts.higher_is_better = !lower;
        double *work = work_of(&w);
        struct schedule *s = open_schedule(&w, work);
        run(&w, s, -1);
        double kept = 0.0, other = lower ? 9.0 : -9.0;
        for (int k = 0; k < 4; k++) {
            double mean = 0.0;
            bool finished = false;
            for (int i = 0; i < 8; i++) {
                const struct schedule_trial *t = schedule_trial(s, i);
                mean += t->setting == k ? score_of(t, 0, w.seed) / 2.0 : 0.0;
                finished = finished || (t->setting == k && t->state == TRIAL_FINISHED);
            }
            if (finished)
                kept = mean;
            else if (lower ? mean < other : mean > other)
                other = mean;
        }
        assert_true(lower ? kept < other : kept > other);
        schedule_close(s);
        free(work);
    }
}

static void test_nesting_chooses_by_inner_folds_alone(void **state)
{
    (void)state;
    struct world w = plain(3, 2, 4);
    w.opts.inner_folds = 5;
    w.opts.groups = 3;
    double *work = work_of(&w);
    struct schedule *s = open_schedule(&w, work);
    run(&w, s, -1);
    for (int fold = 0; fold < 8; fold++) {
        const struct schedule_trial *outer = schedule_trial(s, fold * 16 + 15);
        double mean[3] = {0};
        for (int i = 0; i < 15; i++) {
            const struct schedule_trial *t = schedule_trial(s, fold * 16 + i);
            mean[t->setting] += score_of(t, 0, w.seed) / 5.0;
        }
        int best = mean[1] > mean[0] ? 1 : 0;
        best = mean[2] > mean[best] ? 2 : best;
        assert_int_equal(outer->state, TRIAL_FINISHED);
        assert_int_equal(outer->setting, best);
        assert_true(outer->score == score_of(outer, 0, w.seed));
    }
    schedule_close(s);
    free(work);
}

/* Groups, durations and restarts at any moment change nothing of the outcome. */
static void test_the_outcome_is_the_same_however_it_ran(void **state)
{
    (void)state;
    for (int shape = 0; shape < 4; shape++) {
        struct world w = plain(4, 2, 3), other;
        w.opts.halving = shape % 2 ? 2 : 0;
        w.opts.rungs = 2;
        w.opts.inner_folds = shape / 2 ? 2 : 0;
        double *work = work_of(&w);
        struct schedule *wanted = open_schedule(&w, work);
        run(&w, wanted, -1);
        for (int groups = 1; groups <= 7; groups += 2) {
            for (int cut = 0; cut < 30; cut += 3) {
                other = w;
                other.opts.groups = groups;
                other.speed_noise = 3.0;
                struct schedule *s = open_schedule(&other, work), *again = open_schedule(&other, work);
                run(&other, s, cut);
                /* what the first start leaves on disk: rungs and ends */
                for (bool more = true; more;) {
                    more = false;
                    for (int i = 0; i < schedule_trials(s); i++) {
                        const struct schedule_trial *was = schedule_trial(s, i), *t = schedule_trial(again, i);
                        int rungs = was->inner < 0 && shape / 2 ? 0 : w.opts.halving > 0 ? 2 : 0;
                        if (t->state != TRIAL_READY)
                            continue;
                        if (t->rungs < was->rungs) {
                            schedule_found_rung(again, i, score_of(was, t->rungs, w.seed));
                            more = true;
                        } else if (was->state == TRIAL_FINISHED && t->rungs == rungs) {
                            schedule_found_end(again, i, was->score);
                            more = true;
                        }
                    }
                }
                run(&other, again, -1);
                assert_same_outcome(wanted, again);
                schedule_close(s);
                schedule_close(again);
            }
        }
        schedule_close(wanted);
        free(work);
    }
}

static void test_a_soft_failure_is_tried_once_elsewhere(void **state)
{
    (void)state;
    struct world w = plain(1, 1, 3);
    double *work = work_of(&w);
    w.opts.groups = 2;
    struct schedule *s = open_schedule(&w, work);
    int a = schedule_take(s, 0), b = schedule_take(s, 1);
    schedule_failed(s, a, STATUS_NOMEM);
    int c = schedule_take(s, 0);
    assert_true(c >= 0 && c != a); /* not this group again */
    schedule_arrived(s, c, 0.5);
    assert_int_equal(schedule_take(s, 0), SCHEDULE_WAIT);
    schedule_arrived(s, b, 0.5);
    assert_int_equal(schedule_take(s, 1), a);
    schedule_failed(s, a, STATUS_IO); /* once is enough */
    assert_int_equal(schedule_trial(s, a)->state, TRIAL_GIVEN_UP);
    assert_int_equal(schedule_trial(s, a)->failure, STATUS_IO);
    assert_int_equal(schedule_take(s, 1), SCHEDULE_END);
    schedule_close(s);

    s = open_schedule(&w, work); /* alone: the same group */
    schedule_retire(s, 1);
    assert_int_equal(schedule_take(s, 1), SCHEDULE_END);
    a = schedule_take(s, 0);
    schedule_failed(s, a, STATUS_NUMERIC);
    assert_int_equal(schedule_take(s, 0), a);
    schedule_close(s);

    s = open_schedule(&w, work); /* what is not soft is not tried again */
    a = schedule_take(s, 0);
    schedule_failed(s, a, STATUS_DATA);
    assert_int_equal(schedule_trial(s, a)->state, TRIAL_GIVEN_UP);
    b = schedule_take(s, 1);
    assert_true(b >= 0 && b != a); /* the others go on */
    schedule_stop(s);
    assert_int_equal(schedule_take(s, 0), SCHEDULE_END);
    schedule_close(s);
    free(work);
}

static void test_a_setting_that_fails_loses(void **state)
{
    (void)state;
    struct world w = plain(3, 1, 4), nested;
    w.opts.halving = 3;
    w.opts.rungs = 1;
    w.fails = 2;
    w.failure = STATUS_NUMERIC;
    double *work = work_of(&w);
    struct schedule *s = open_schedule(&w, work);
    run(&w, s, -1);
    int winner = -1;
    for (int i = 0; i < 12; i++)
        winner = schedule_trial(s, i)->state == TRIAL_FINISHED ? schedule_trial(s, i)->setting : winner;
    schedule_close(s);
    w.fails_at = winner; /* trial k is fold 0 of setting k */
    s = open_schedule(&w, work);
    run(&w, s, -1);
    int finished = 0;
    for (int i = 0; i < 12; i++) {
        const struct schedule_trial *t = schedule_trial(s, i);
        finished += t->state == TRIAL_FINISHED;
        if (t->setting == winner)
            assert_int_equal(t->state, i == winner ? TRIAL_GIVEN_UP : TRIAL_DROPPED);
    }
    assert_int_equal(finished, 4);
    schedule_close(s);
    free(work);

    nested = plain(1, 1, 2); /* nothing left to choose: the outer trial is given up, too */
    nested.opts.inner_folds = 2;
    nested.fails_at = 0;
    nested.fails = 2;
    nested.failure = STATUS_NUMERIC;
    work = work_of(&nested);
    s = open_schedule(&nested, work);
    run(&nested, s, -1);
    assert_int_equal(schedule_trial(s, 2)->state, TRIAL_GIVEN_UP);
    assert_int_equal(schedule_trial(s, 2)->failure, STATUS_NUMERIC);
    assert_int_equal(schedule_trial(s, 5)->state, TRIAL_FINISHED);
    schedule_close(s);
    free(work);
}

static void test_how_many_ranks_a_group_has(void **state)
{
    (void)state;
    /* sums cost nothing: all groups that end at the same time are as good; more groups are taken */
    struct schedule_cost free_sums = {.flops = 1e9, .rows = 1 << 20, .bytes = 0.0, .rate = 1e9, .bandwidth = 1e9, .latency = 0.0};
    assert_int_equal(schedule_group_ranks(1, 5, &free_sums), 1);
    assert_int_equal(schedule_group_ranks(4, 8, &free_sums), 1);
    assert_int_equal(schedule_group_ranks(4, 5, &free_sums), 4); /* 5 trials one after another: no rank ever waits */
    assert_int_equal(schedule_group_ranks(8, 2, &free_sums), 4);
    assert_int_equal(schedule_group_ranks(6, 1, &free_sums), 6);
    /* sums that cost ten steps: nobody shares a trial */
    struct schedule_cost dear = {.flops = 1e9, .rows = 1 << 20, .bytes = 1e10, .rate = 1e9, .bandwidth = 1e9, .latency = 0.0};
    assert_int_equal(schedule_group_ranks(4, 5, &dear), 1);
    assert_int_equal(schedule_group_ranks(64, 2, &dear), 1);
    /* eight rows: a ninth rank has none, and few rows a rank are dear */
    free_sums.rows = 8;
    assert_int_equal(schedule_group_ranks(64, 1, &free_sums), 8);
    assert_int_equal(schedule_group_ranks(16, 5, &free_sums), 2); /* (4 + 1) / 9 once; of 16 ranks: 5 times (1 + 1) / 9 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trials_have_their_names),
        cmocka_unit_test(test_the_most_work_goes_first_and_the_end_is_near_the_best),
        cmocka_unit_test(test_halving_keeps_the_best),
        cmocka_unit_test(test_lower_is_better_where_it_is),
        cmocka_unit_test(test_nesting_chooses_by_inner_folds_alone),
        cmocka_unit_test(test_the_outcome_is_the_same_however_it_ran),
        cmocka_unit_test(test_a_soft_failure_is_tried_once_elsewhere),
        cmocka_unit_test(test_a_setting_that_fails_loses),
        cmocka_unit_test(test_how_many_ranks_a_group_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
