/*
 * test_transport_errors.c - GPUs' messages that cannot be sent or do not end: a sentence each, and no hang.
 *
 * Runs itself under mpirun, with an environment that makes the emulated toolkit fail; each rank then does what argv[1]
 * says and tells how it ended. Every case must end by itself within seconds.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/device_cuda.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "tests/support/cuda/emulated_cuda.h"
#include "tests/support/support.h"

#define RANKS 3
#define ELEMENTS 4096
#define LIMIT_S 1.0

static const char *self;

/* ---- the ranks ---- */

static struct comm *world, *group;
static struct device *device;
static float *buffer[1];

static enum status open_group(const char *what)
{
    int count;
    TRY(device_count(DEVICE_CUDA, &count));
    TRY(device_open(DEVICE_CUDA, comm_local_rank(world) % count, &device));
    TRY(device_alloc(device, ELEMENTS * sizeof(float), "a test", &buffer[0]));
    TRY(comm_group(world, RANKS, &group));
    TRY(comm_use_device(group, device, strcmp(what, "mpi") == 0 ? COMM_MPI : COMM_NCCL));
    return comm_barrier(group);
}

/* One step: sums and weights as a trial makes them. */
static enum status step(float *to, int64_t n, bool agrees)
{
    int first[RANKS] = {0, 1, 2}, count[RANKS] = {1, 1, 1};
    bool present[RANKS] = {true, true, true};
    struct reduce_tree tree = {RANKS, RANKS, first, count, present};
    enum status st = comm_reduce_start(group, &tree, buffer, to, 0, n, 64);
    TRY(agrees ? comm_agree(group, st) : st);
    TRY(comm_reduce_wait(group));
    TRY(comm_gather_shards(group, to, 0, n, 64));
    TRY(comm_settle(group, LIMIT_S));
    return device_finish(device);
}

static enum status act(const char *what)
{
    float *large;
    int last = comm_rank(world) == RANKS - 1;
    TRY(open_group(what));
    TRY(step(buffer[0], ELEMENTS, true));
    if (last && strcmp(what, "absent") == 0)
        (void)sleep(20); /* neither takes part nor answers */
    if (last && strcmp(what, "killed") == 0)
        (void)raise(SIGKILL);
    if (strcmp(what, "memory") == 0) { /* 24 MiB each: rank 0's slices of the others do not fit beside them */
        int64_t n = (int64_t)6 << 20;
        TRY(device_alloc(device, (size_t)n * sizeof(float), "the gradients", &large));
        buffer[0] = large;
        return step(large, n, true);
    }
    for (int k = 0; k < 4; k++)
        TRY(step(buffer[0], ELEMENTS, strcmp(what, "absent") != 0));
    return STATUS_OK;
}

static int rank_main(const char *what)
{
    (void)alarm(40);
    char id[16];
    const char *number = getenv("OMPI_COMM_WORLD_RANK");
    if (strcmp(what, "hostid") == 0) {
        (void)snprintf(id, sizeof id, "host%s", number == NULL ? "" : number);
        (void)setenv("NCCL_HOSTID", id, 1);
    }
    if (comm_start(&world) != STATUS_OK || comm_size(world) != RANKS)
        return 1;
    log_setup(LOG_INFO, comm_rank(world), RANKS);
    enum status st = act(what);
    fprintf(stderr, "end of rank %d: %s: %s\n", comm_rank(world), status_name(st),
            st == STATUS_OK ? "" : status_message());
    if (st != STATUS_OK)
        (void)usleep(200000); /* mpirun ends the others with the first that fails: let them speak */
    comm_group_free(group);
    comm_end(world);
    return status_exit_code(st);
}

/* ---- the launcher ---- */

static char text[65536];

/* Run three ranks with these settings ("A=1 B=2"); mpirun's exit code; what was said is in text. */
static int run(const char *settings, const char *what, double limit_s)
{
    char command[2048];
    (void)snprintf(command, sizeof command,
                   "%s OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
                   "OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_odls_base_sigkill_timeout=0 "
                   "OMPI_MCA_btl_vader_single_copy_mechanism=none ASAN_OPTIONS=detect_leaks=0 "
                   "mpirun -n 3 '%s' %s 2>&1",
                   settings, self, what);
    double begin = clock_s();
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    int how = pclose(f);
    double took_s = clock_s() - begin;
    assert_true(WIFEXITED(how));
    if (took_s > limit_s)
        fail_msg("%s took %.1f s: %s", what, took_s, text);
    return WEXITSTATUS(how);
}

/* Every rank ended with what contains this. */
static void all_say(const char *status)
{
    for (int r = 0; r < RANKS; r++) {
        char line[256];
        (void)snprintf(line, sizeof line, "end of rank %d: %s", r, status);
        support_assert_contains(text, line);
    }
}

static void test_jobs_that_are_well(void **state)
{
    (void)state;
    assert_int_equal(run("", "nccl", 15), 0);
    all_say("STATUS_OK: \n");
}

static void test_nccl_is_missing(void **state)
{
    (void)state;
    assert_int_not_equal(run("EMULATED_CUDA_LIBRARIES=nonccl", "nccl", 15), 0);
    all_say("STATUS_UNAVAILABLE: ");
    support_assert_contains(text, "parallel.transport=nccl (mpi does without): libnccl.so.2 is not on this machine");
    assert_int_not_equal(run("EMULATED_CUDA_LIBRARIES=noncclCommAbort", "nccl", 15), 0);
    all_say("STATUS_UNAVAILABLE: ");
    support_assert_contains(text, "has no function ncclCommAbort");
    assert_int_equal(run("EMULATED_CUDA_LIBRARIES=nonccl", "mpi", 15), 0); /* not needed there */
}

static void test_ranks_that_share_a_gpu(void **state)
{
    (void)state;
    assert_int_equal(run("EMULATED_CUDA_DEVICES=1", "nccl", 15), status_exit_code(STATUS_UNAVAILABLE));
    all_say("STATUS_UNAVAILABLE: ranks 0 and 1 both have GPU ");
    support_assert_contains(text, "parallel.transport=mpi");
    assert_int_equal(run("EMULATED_CUDA_DEVICES=1", "mpi", 15), 0);
    assert_int_equal(run("EMULATED_CUDA_DEVICES=1", "hostid", 15), 0); /* NCCL is told of three hosts */
    all_say("STATUS_OK: \n");
}

static void test_a_rank_that_is_gone_is_named(void **state)
{
    (void)state;
    assert_int_not_equal(run("", "absent", 30), 0);
    /* Ranks 0 and 1 notice at about the same time; the launcher ends both with the first that leaves. */
    support_assert_contains(text, ": STATUS_OS: ");
    support_assert_contains(text, "NCCL: ");
    support_assert_contains(text, "; rank 2 (host ");
    support_assert_contains(text, ") does not answer");
}

static void test_nccl_fails(void **state)
{
    (void)state;
    assert_int_equal(run("EMULATED_NCCL_FAIL=1@5", "nccl", 20), status_exit_code(STATUS_OS));
    support_assert_contains(text, ": STATUS_OS: "); /* the launcher ends the others with the first that leaves */
    support_assert_contains(text, "NCCL: ");
    support_assert_contains(text, "unhandled system error");
    support_assert_contains(text, "; all other ranks answer");
}

static void test_nccl_hangs(void **state)
{
    (void)state;
    assert_int_equal(run("EMULATED_NCCL_HANG=1@8", "nccl", 20), status_exit_code(STATUS_OS));
    support_assert_contains(text, "STATUS_OS: ");
    support_assert_contains(text, "NCCL: messages between GPUs have not ended within 1 s; all other ranks answer");
}

static void test_a_killed_rank_ends_the_job(void **state)
{
    (void)state;
    assert_int_not_equal(run("", "killed", 20), 0);
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    assert_int_equal(run("EMULATED_CUDA_MEMORY=33554432", "memory", 20), status_exit_code(STATUS_NOMEM));
    all_say("STATUS_NOMEM: ");
    support_assert_contains(text, "slices of other ranks' sums: ");
}

static void test_a_kernel_fails(void **state)
{
    (void)state;
    assert_int_not_equal(run("EMULATED_CUDA_FAIL=tree_sum@2", "nccl", 20), 0);
    support_assert_contains(text, "STATUS_OS: messages between GPUs: cudaErrorLaunchFailure");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs_that_are_well),
        cmocka_unit_test(test_nccl_is_missing),
        cmocka_unit_test(test_ranks_that_share_a_gpu),
        cmocka_unit_test(test_a_rank_that_is_gone_is_named),
        cmocka_unit_test(test_nccl_fails),
        cmocka_unit_test(test_nccl_hangs),
        cmocka_unit_test(test_a_killed_rank_ends_the_job),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_a_kernel_fails),
    };
    if (argc > 1)
        return rank_main(argv[1]);
    self = argv[0];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
