/*
 * test_job.c - how a whole job ends when one rank is stuck, gives up, is killed, or leaves within a reduction.
 *
 * Runs itself under mpirun; each rank then does what argv[1] says. Every case must end by itself within seconds.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/comm.h"
#include "tests/support/support.h"

static const char *self;

/* ---- the ranks ---- */

static int act(const char *what, const char *folder)
{
    struct comm *world;
    static float vector[1 << 20]; /* too long for a message that MPI sends before it is asked for */
    float *buffer[1] = {vector};
    bool present[2] = {true, true};
    int first[2] = {0, 1}, count[2] = {1, 1};
    struct reduce_tree tree = {2, 2, first, count, present};
    (void)alarm(30);
    if (comm_start(&world) != STATUS_OK || comm_size(world) != 2 ||
        comm_watchdog_start(world, 0.5, folder) != STATUS_OK)
        return 1;
    log_setup(LOG_INFO, comm_rank(world), 2);
    comm_mark(12, "forward");
    if (comm_rank(world) == 1) {
        comm_mark(12, "backward");
        if (strcmp(what, "stop") == 0)
            (void)raise(SIGSTOP);
        if (strcmp(what, "kill") == 0)
            (void)raise(SIGKILL);
        if (strcmp(what, "abort") == 0)
            comm_abort("rank 1 gives up", 76);
    }
    if (strcmp(what, "leave") == 0) { /* rank 1 has no memory to start a reduction that rank 0 has started */
        enum status st = comm_rank(world) == 1 ? status_fail(STATUS_NOMEM, "no memory for slices")
                                               : comm_reduce_start(world, &tree, buffer, vector, 0, 1 << 20, 64);
        st = comm_agree(world, st);
        log_info("all know: %s", status_message());
        comm_end(world);
        return status_exit_code(st);
    }
    enum status st = comm_barrier(world); /* the other rank waits here */
    comm_end(world);
    return status_exit_code(st);
}

/* ---- the launcher ---- */

/* Run two ranks; the exit code of mpirun, and all that was said. */
static int run(const char *what, char *text, size_t size, double *took_s)
{
    char command[2048];
    (void)snprintf(command, sizeof command,
                   "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
                   "OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_odls_base_sigkill_timeout=0 "
                   "ASAN_OPTIONS=detect_leaks=0 mpirun -n 2 '%s' %s '%s' 2>&1",
                   self, what, support_folder());
    double begin = clock_s();
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, size - 1, f);
    text[n] = '\0';
    int how = pclose(f);
    *took_s = clock_s() - begin;
    assert_true(WIFEXITED(how));
    return WEXITSTATUS(how);
}

static double well_s; /* what starting and ending a job takes here, now */

static void test_a_job_that_is_well(void **state)
{
    (void)state;
    char text[16384];
    assert_int_equal(run("nothing", text, sizeof text, &well_s), 0);
    assert_string_equal(text, "");
}

static void test_a_stuck_rank_ends_the_job(void **state)
{
    (void)state;
    char text[16384];
    double took_s;
    struct comm_place place;
    int code = run("stop", text, sizeof text, &took_s);
    if (code != 70)
        fail_msg("mpirun gave %d: %s", code, text);
    support_assert_near(took_s - well_s, 0.0, 0.5 + 5, "seconds beyond a job that is well");
    support_assert_contains(text, "watchdog: no progress");
    support_assert_contains(text, "rank 0 of 2");
    support_assert_contains(text, "step 12, phase forward"); /* rank 0 waits; its own page says where rank 1 is */
    assert_ok(comm_status_read(support_folder(), 1, &place));
    assert_int_equal(place.rank, 1);
    assert_string_equal(place.phase, "backward");
}

static void test_a_killed_rank_ends_the_job(void **state)
{
    (void)state;
    char text[16384];
    double took_s;
    struct comm_place place;
    assert_int_not_equal(run("kill", text, sizeof text, &took_s), 0);
    support_assert_near(took_s - well_s, 0.0, 5, "seconds beyond a job that is well");
    assert_ok(comm_status_read(support_folder(), 1, &place));
    assert_int_equal(place.state, COMM_PLACE_RUNS);
    assert_string_equal(place.phase, "backward");
}

static void test_abort_ends_the_job(void **state)
{
    (void)state;
    char text[16384];
    double took_s;
    assert_int_equal(run("abort", text, sizeof text, &took_s), 76);
    support_assert_near(took_s - well_s, 0.0, 5, "seconds beyond a job that is well");
    support_assert_contains(text, "rank 1 gives up");
}

static void test_leaving_with_a_reduction_under_way(void **state)
{
    (void)state;
    char text[16384];
    double took_s;
    assert_int_equal(run("leave", text, sizeof text, &took_s), status_exit_code(STATUS_NOMEM));
    support_assert_near(took_s - well_s, 0.0, 5, "seconds beyond a job that is well");
    support_assert_contains(text, "all know: rank 1: no memory for slices");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_job_that_is_well),
        cmocka_unit_test(test_a_stuck_rank_ends_the_job),
        cmocka_unit_test(test_a_killed_rank_ends_the_job),
        cmocka_unit_test(test_abort_ends_the_job),
        cmocka_unit_test(test_leaving_with_a_reduction_under_way),
    };
    self = argv[0];
    if (argc == 3)
        return act(argv[1], argv[2]);
    if (system("command -v mpirun >/dev/null") != 0) {
        (void)printf("SKIP: mpirun is not in PATH\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
