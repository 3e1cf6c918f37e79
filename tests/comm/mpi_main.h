/* mpi_main.h - the frame of the programs that run under mpirun: start, a watchdog, the tests, the end. */
#ifndef COHORT_TESTS_COMM_MPI_MAIN_H
#define COHORT_TESTS_COMM_MPI_MAIN_H

#include "base/log.h"
#include "comm/comm.h"
#include "tests/support/support.h"

static struct comm *world;
static int rank, ranks;

/*
 * A check that fails on one rank leaves the others waiting in the next collective; the watchdog then ends the job. Each
 * test begins with a mark.
 */
static int begin_test(void **state)
{
    (void)state;
    comm_mark(0, "test");
    return 0;
}

#define MPI_TEST(f) cmocka_unit_test_setup(f, begin_test)

#define RUN_MPI_TESTS(tests)                                                                                           \
    do {                                                                                                               \
        if (comm_start(&world) != STATUS_OK) {                                                                         \
            fprintf(stderr, "comm_start: %s\n", status_message());                                                    \
            return 1;                                                                                                  \
        }                                                                                                              \
        rank = comm_rank(world);                                                                                       \
        ranks = comm_size(world);                                                                                      \
        log_setup(LOG_ERROR, rank, ranks);                                                                             \
        if (comm_watchdog_start(world, 40, NULL) != STATUS_OK)                                                         \
            comm_abort(status_message(), 1);                                                                           \
        int failed = cmocka_run_group_tests(tests, NULL, NULL);                                                        \
        comm_end(world);                                                                                               \
        return failed;                                                                                                 \
    } while (0)

#endif
