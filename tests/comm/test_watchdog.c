/* test_watchdog.c - the watchdog and the status page, in child processes without MPI. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/comm.h"
#include "tests/support/support.h"

struct child {
    pid_t pid;
    int said; /* the reading end of the child's standard error */
};

/* Run body in a child that has its own comm; it ends with code 99 if body returns. */
static struct child start_child(void (*body)(struct comm *world))
{
    int ends[2];
    struct comm *world;
    assert_int_equal(pipe(ends), 0);
    struct child child = {fork(), ends[0]};
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)alarm(20);
        if (comm_start(&world) == STATUS_OK)
            body(world);
        _exit(99);
    }
    (void)close(ends[1]);
    return child;
}

/* Wait for the child's end; what it said comes back in text. */
static int end_child(struct child child, char *text, size_t size)
{
    size_t used = 0;
    ssize_t n;
    int how = 0;
    while (used + 1 < size && (n = read(child.said, text + used, size - used - 1)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    (void)close(child.said);
    assert_int_equal(waitpid(child.pid, &how, 0), child.pid);
    return how;
}

static void stand_still(struct comm *world)
{
    if (comm_watchdog_start(world, 0.4, support_folder()) != STATUS_OK)
        return;
    for (int step = 1; step <= 7; step++) { /* longer than the limit in all, but never without a mark */
        comm_mark(step, "forward");
        (void)usleep(100000);
    }
    if (comm_barrier(world) != STATUS_OK)
        return;
    comm_mark(8, "backward");
    for (;;)
        (void)pause();
}

static void test_standing_still_ends_the_process(void **state)
{
    (void)state;
    char text[2048];
    struct comm_place place;
    (void)support_folder(); /* made here, so that parent and child share it */
    double begin = clock_s();
    int how = end_child(start_child(stand_still), text, sizeof text);
    double took = clock_s() - begin;
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 70)
        fail_msg("the child ended with %x and said \"%s\"", (unsigned)how, text);
    support_assert_contains(text, "rank 0 of 1 on ");
    support_assert_contains(text, "step 8, phase backward, collective 2;"); /* comm_start() has one of its own */
    assert_true(took > 0.7 + 0.4 && took < 0.7 + 0.4 + 1.0);
    assert_ok(comm_status_read(support_folder(), 0, &place));
    assert_int_equal(place.state, COMM_PLACE_EXPIRED);
    assert_int_equal(place.step, 8);
    assert_string_equal(place.phase, "backward");
}

static void say_ready(void)
{
    if (write(STDERR_FILENO, "ready\n", 6) != 6)
        _exit(98);
}

static void save_and_wait(struct comm *world)
{
    if (comm_watchdog_start(world, 0, support_folder()) != STATUS_OK)
        return;
    comm_mark(40, "reduce");
    comm_mark(41, "a phase with a name of more than thirty-nine bytes");
    say_ready();
    for (;;)
        (void)pause();
}

static void test_a_killed_rank_can_be_placed(void **state)
{
    (void)state;
    char text[2048], host[64] = "";
    struct comm_place place;
    (void)support_folder();
    struct child child = start_child(save_and_wait);
    assert_int_equal(read(child.said, text, 6), 6);
    assert_int_equal(kill(child.pid, SIGKILL), 0);
    int how = end_child(child, text, sizeof text);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_ok(comm_status_read(support_folder(), 0, &place));
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    assert_int_equal(place.state, COMM_PLACE_RUNS);
    assert_int_equal(place.rank, 0);
    assert_int_equal(place.ranks, 1);
    assert_int_equal(place.process, child.pid);
    assert_string_equal(place.host, host);
    assert_int_equal(place.step, 41);
    assert_string_equal(place.phase, "a phase with a name of more than thirty");
    assert_true(place.marked_s > 1.6e9);
}

static void stop_for_a_while(struct comm *world)
{
    if (comm_watchdog_start(world, 0.8, NULL) != STATUS_OK)
        return;
    comm_mark(1, "forward");
    say_ready();
    for (int i = 0; i < 30; i++) /* stopped by the parent in here for longer than the limit; goes on without a mark */
        (void)usleep(10000);
    comm_mark(2, "forward");
    (void)usleep(100000);
    _exit(3);
}

static void test_a_stopped_process_was_not_idle(void **state)
{
    (void)state;
    char text[2048];
    struct child child = start_child(stop_for_a_while);
    assert_int_equal(read(child.said, text, 6), 6);
    assert_int_equal(kill(child.pid, SIGSTOP), 0);
    (void)usleep(1200000);
    assert_int_equal(kill(child.pid, SIGCONT), 0);
    int how = end_child(child, text, sizeof text);
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 3)
        fail_msg("the child ended with %x and said \"%s\"", (unsigned)how, text);
}

static void give_up(struct comm *world)
{
    if (comm_watchdog_start(world, 5, support_folder()) == STATUS_OK)
        comm_abort("the device is gone", 71);
}

static void test_abort_says_why(void **state)
{
    (void)state;
    char text[2048];
    struct comm_place place;
    (void)support_folder();
    int how = end_child(start_child(give_up), text, sizeof text);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 71);
    support_assert_contains(text, "the device is gone");
    assert_ok(comm_status_read(support_folder(), 0, &place));
    assert_int_equal(place.state, COMM_PLACE_ENDED);
}

static void come_back(struct comm *world)
{
    (void)world;
}

static void test_srun_without_pmix_is_refused(void **state)
{
    (void)state;
    char text[2048];
    assert_int_equal(setenv("SLURM_STEP_NUM_TASKS", "4", 1), 0);
    struct comm *world;
    assert_fails(comm_start(&world), STATUS_OS, "srun --mpi=pmix");
    assert_null(world);
    assert_int_equal(setenv("SLURM_STEP_NUM_TASKS", "1", 1), 0);
    int how = end_child(start_child(come_back), text, sizeof text);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 99);
    assert_int_equal(unsetenv("SLURM_STEP_NUM_TASKS"), 0);
}

static void test_pages_that_are_none_are_refused(void **state)
{
    (void)state;
    struct comm_place place;
    char bytes[4096] = "COHORTST";
    assert_fails(comm_status_read(support_folder(), 7, &place), STATUS_NOINPUT, "status.7");
    (void)support_file("status.8", bytes, 100);
    assert_fails(comm_status_read(support_folder(), 8, &place), STATUS_FORMAT, "not a status page");
    (void)support_file("status.9", bytes, sizeof bytes);
    assert_fails(comm_status_read(support_folder(), 9, &place), STATUS_FORMAT, "version 0");
    bytes[8] = 1;
    bytes[108] = 2; /* slot */
    (void)support_file("status.10", bytes, sizeof bytes);
    assert_fails(comm_status_read(support_folder(), 10, &place), STATUS_FORMAT, "slot 2");
    bytes[108] = 1;
    memset(bytes + 24, 'x', 64); /* a host and a phase without an end */
    memset(bytes + 168 + 16, 'y', 40);
    (void)support_file("status.11", bytes, sizeof bytes);
    assert_ok(comm_status_read(support_folder(), 11, &place));
    assert_int_equal(strlen(place.host), 63);
    assert_int_equal(strlen(place.phase), 39);
}

static void test_arguments(void **state)
{
    (void)state;
    struct comm *world;
    double begin = clock_s();
    assert_ok(comm_start(&world));
    assert_true(clock_s() - begin < 0.05); /* MPI is not started for a process alone */
    assert_string_equal(comm_backend(world), "self");
    assert_int_equal(comm_rank(world), 0);
    assert_int_equal(comm_size(world), 1);
    comm_mark(1, "without a watchdog");
    comm_watchdog_stop();
    assert_fails(comm_watchdog_start(world, -1, NULL), STATUS_ARG, "-1 s");
    assert_fails(comm_watchdog_start(world, 5, "/nonexistent"), STATUS_IO, "/nonexistent/status.0");
    assert_ok(comm_watchdog_start(world, 5, NULL));
    assert_fails(comm_watchdog_start(world, 5, NULL), STATUS_ARG, "runs already");
    comm_watchdog_stop();
    assert_ok(comm_watchdog_start(world, 5, NULL)); /* again after a stop */
    comm_end(world);
    comm_end(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_standing_still_ends_the_process),
        cmocka_unit_test(test_a_killed_rank_can_be_placed),
        cmocka_unit_test(test_a_stopped_process_was_not_idle),
        cmocka_unit_test(test_abort_says_why),
        cmocka_unit_test(test_srun_without_pmix_is_refused),
        cmocka_unit_test(test_pages_that_are_none_are_refused),
        cmocka_unit_test(test_arguments), /* last: it starts comm in this process */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
