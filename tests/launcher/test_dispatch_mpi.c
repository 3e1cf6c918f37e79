/*
 * test_dispatch_mpi.c - trials handed to groups of ranks by mail: each runs once, failures move, a signal stops all.
 *
 * ranks: 1 2 3 4 6
 */
#include <string.h>

#include "launcher/dispatch.h"
#include "tests/comm/mpi_main.h"

enum { TRIALS = 24 };

/* What rank 0 was shown. */
struct seen {
    int given[TRIALS], ended[TRIALS], places, failures;
};

static void see(void *arg, int trial, const struct trial_place *place, const struct dispatch_outcome *outcome)
{
    struct seen *seen = arg;
    assert_true(trial >= 0 && trial < TRIALS);
    if (place != NULL) {
        assert_int_equal(place->steps, 100 + trial);
        seen->places++;
    } else if (outcome == NULL) {
        seen->given[trial]++;
    } else if (outcome->status == STATUS_OK) {
        assert_true(outcome->score == trial * 0.5);
        seen->ended[trial]++;
    } else {
        assert_string_equal(outcome->sentence, "it did not work");
        seen->failures++;
    }
}

struct field {
    struct schedule *schedule;
    struct dispatch *dispatch;
    struct comm *group;
    struct seen seen;
    int size, groups, own, tries[TRIALS];
};

static void begin(struct field *f, int size)
{
    double work[TRIALS];
    struct schedule_opts opts = {.settings = 2, .repeats = 3, .folds = 4, .groups = ranks / size, .work = work,
                                 .higher_is_better = true};
    memset(f, 0, sizeof *f);
    f->size = size;
    f->groups = ranks / size;
    f->own = rank / size;
    assert_int_equal(schedule_count(&opts), TRIALS);
    for (int i = 0; i < TRIALS; i++)
        work[i] = 1 + i % 5;
    if (rank == 0)
        assert_ok(schedule_open(&opts, &f->schedule));
    assert_ok(comm_group(world, size, &f->group));
    struct dispatch_opts to = {.world = world, .group = f->group, .groups = f->groups, .own = f->own,
                               .schedule = f->schedule, .seen = see, .arg = &f->seen};
    assert_ok(dispatch_open(&to, &f->dispatch));
}

static void end(struct field *f)
{
    assert_ok(dispatch_end(f->dispatch));
    dispatch_close(f->dispatch);
    schedule_close(f->schedule);
    comm_group_free(f->group);
    comm_mark(-1, "no mail is looked at any more");
}

/* A trial's work: its group agrees some times, and its leader tells where it stands. */
static void work_on(struct field *f, int trial)
{
    for (int step = 0; step < 1 + trial % 7; step++) {
        struct trial_place place = {.step = step, .steps = 100 + trial};
        comm_mark(step, "work");
        if (comm_rank(f->group) == 0)
            dispatch_progress(f->dispatch, &place);
        assert_ok(comm_agree(f->group, STATUS_OK));
    }
}

static void test_each_trial_runs_once(void **state)
{
    (void)state;
    for (int size = 1; size <= ranks; size++) {
        struct field f;
        struct dispatch_outcome outcome = {0};
        struct dispatch_order order;
        int64_t ran[TRIALS] = {0};
        if (ranks % size != 0)
            continue;
        begin(&f, size);
        for (;;) {
            assert_ok(dispatch_next(f.dispatch, &outcome, &order));
            if (order.trial == SCHEDULE_END)
                break;
            work_on(&f, order.trial);
            assert_int_equal(order.setting, order.trial % 2);
            assert_int_equal(order.rung, 0);
            ran[order.trial] += comm_rank(f.group) == 0;
            outcome.score = order.trial * 0.5;
        }
        assert_ok(dispatch_end(f.dispatch));
        assert_ok(comm_sum_int64(world, ran, TRIALS));
        for (int i = 0; i < TRIALS; i++) {
            assert_int_equal(ran[i], 1);
            if (rank == 0) {
                assert_int_equal(f.seen.given[i], 1);
                assert_int_equal(f.seen.ended[i], 1);
                assert_int_equal(schedule_trial(f.schedule, i)->state, TRIAL_FINISHED);
            }
        }
        assert_true(rank != 0 || f.seen.places > 0);
        end(&f);
    }
}

/* Trial 3 fails at its first try, trial 7 always; group 1's second trial leaves it without sums. */
static void test_failures_move_to_another_group(void **state)
{
    (void)state;
    struct field f;
    struct dispatch_outcome outcome = {0}, fine = {0};
    struct dispatch_order order;
    int64_t ran[TRIALS] = {0}, own = 0;
    begin(&f, 1);
    for (;;) {
        assert_ok(dispatch_next(f.dispatch, &outcome, &order));
        if (order.trial == SCHEDULE_END)
            break;
        work_on(&f, order.trial);
        outcome = fine;
        outcome.score = order.trial * 0.5;
        own++;
        f.tries[order.trial]++;
        ran[order.trial]++;
        bool fails = order.trial == 7 || (order.trial == 3 && (ranks == 1 ? f.tries[3] == 1 : rank == 0 || f.own == 1));
        if (fails) {
            outcome.status = STATUS_NOMEM;
            memcpy(outcome.sentence, "it did not work", 16);
        }
        if (rank == 1 && own == 2)
            outcome.lost = true;
    }
    if (rank == 1)
        assert_true(own <= 2);
    if (f.tries[7] > 0 && ranks > 2) /* with 2, group 1 may be gone */
        assert_int_equal(f.tries[7], 1); /* not twice here */
    assert_ok(dispatch_end(f.dispatch));
    assert_ok(comm_sum_int64(world, ran, TRIALS));
    assert_int_equal(ran[7], 2);
    if (rank == 0) {
        assert_int_equal(schedule_trial(f.schedule, 7)->state, TRIAL_GIVEN_UP);
        assert_true(f.seen.failures >= 2);
        for (int i = 0; i < TRIALS; i++)
            assert_true(i == 7 || i == 3 || schedule_trial(f.schedule, i)->state == TRIAL_FINISHED);
    }
    end(&f);
}

/* The last: what was asked for stays asked. */
static void test_a_signal_in_one_group_stops_all(void **state)
{
    (void)state;
    struct field f;
    struct dispatch_outcome outcome = {0};
    struct dispatch_order order;
    int own = 0;
    begin(&f, 1);
    for (;;) {
        assert_ok(dispatch_next(f.dispatch, &outcome, &order));
        if (order.trial == SCHEDULE_END)
            break;
        outcome.score = order.trial * 0.5;
        if (rank == ranks - 1 && own == 1) { /* as if a signal had stopped its second trial */
            outcome.status = STATUS_REQUEUE;
            memcpy(outcome.sentence, "it did not work", 16);
        } else if (rank < ranks - 1 && own == 1) { /* the others learn it while they train */
            while (!trial_stop_asked())
                comm_idle("training");
            outcome.status = STATUS_REQUEUE;
            memcpy(outcome.sentence, "it did not work", 16);
        }
        own++;
    }
    assert_true(own <= 2);
    assert_true(trial_stop_asked() || ranks > 1);
    if (rank == 0) {
        int left = 0;
        for (int i = 0; i < TRIALS; i++)
            left += schedule_trial(f.schedule, i)->state == TRIAL_READY;
        assert_true(left >= TRIALS - 2 * ranks);
        assert_true(f.seen.failures >= 1);
    }
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_each_trial_runs_once),
        MPI_TEST(test_failures_move_to_another_group),
        MPI_TEST(test_a_signal_in_one_group_stops_all),
    };
    RUN_MPI_TESTS(tests);
}
