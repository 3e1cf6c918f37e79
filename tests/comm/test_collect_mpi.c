/* test_collect_mpi.c - agreement, broadcast, gathering, groups; on every number of ranks from 1 to 4. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"
#include "tests/comm/mpi_main.h"

#define PIECE ((int64_t)1 << 24) /* as comm/internal.h: longer messages go in pieces */

/* The byte at index i of what rank r brings. */
static char byte_of(int r, int64_t i)
{
    return (char)(i * 7 + i / 251 + r * 31);
}

static void fill(char *bytes, int64_t n, int r)
{
    for (int64_t i = 0; i < n; i++)
        bytes[i] = byte_of(r, i);
}

static void check_bytes(const char *bytes, int64_t n, int r)
{
    for (int64_t i = 0; i < n; i++) {
        if (bytes[i] != byte_of(r, i))
            fail_msg("rank %d: byte %lld of what rank %d brought is %d, wanted %d", rank, (long long)i, r, bytes[i],
                     byte_of(r, i));
    }
}

static void test_ranks_know_their_place(void **state)
{
    (void)state;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE"), *mine = getenv("OMPI_COMM_WORLD_RANK");
    assert_int_equal(ranks, size != NULL ? atoi(size) : 1);
    assert_int_equal(rank, mine != NULL ? atoi(mine) : 0);
    assert_string_equal(comm_backend(world), size != NULL ? "mpi" : "self");
    assert_int_equal(comm_local_rank(world), rank); /* the test runs on one machine */
    assert_int_equal(comm_local_size(world), ranks);
}

static void test_a_second_start_is_refused(void **state)
{
    (void)state;
    struct comm *second = world;
    assert_fails(comm_start(&second), STATUS_ARG, "second time");
    assert_null(second);
}

static void test_one_failing_rank_fails_all(void **state)
{
    (void)state;
    for (int failing = 0; failing < ranks; failing++) {
        char fault[64], wanted[128];
        (void)snprintf(fault, sizeof fault, "test.local:2@%d", failing);
        (void)snprintf(wanted, sizeof wanted, rank == failing ? "fault injected at test.local"
                                                              : "rank %d: fault injected at test.local", failing);
        assert_int_equal(setenv("COHORT_FAULT", fault, 1), 0);
        assert_ok(fault_setup(rank));
        assert_ok(comm_agree(world, fault_here("test.local")));
        assert_int_equal(comm_agree(world, fault_here("test.local")), STATUS_IO);
        assert_string_equal(status_message(), wanted);
        assert_ok(comm_agree(world, fault_here("test.local")));
    }
    assert_int_equal(unsetenv("COHORT_FAULT"), 0);
    assert_ok(fault_setup(rank));
}

static void test_the_worst_status_wins(void **state)
{
    (void)state;
    enum status mine = rank == ranks - 1 ? STATUS_INTERNAL : rank == 0 ? STATUS_USAGE : STATUS_OK;
    (void)status_fail(mine, "rank %d says %s", rank, status_name(mine));
    assert_int_equal(comm_agree(world, mine), STATUS_INTERNAL);
    char wanted[128];
    (void)snprintf(wanted, sizeof wanted, "rank %d says STATUS_INTERNAL", ranks - 1);
    support_assert_contains(status_message(), wanted);
}

static void test_ranks_failing_alike_keep_their_words(void **state)
{
    (void)state;
    char own[64];
    (void)snprintf(own, sizeof own, "disk %d is full", rank);
    assert_int_equal(comm_agree(world, status_fail(STATUS_IO, "%s", own)), STATUS_IO);
    assert_string_equal(status_message(), own);
}

static void test_flags_are_joined(void **state)
{
    (void)state;
    uint32_t flags = (uint32_t)1 << rank | 0x80000000u * (rank == ranks - 1), all = 0x80000000u;
    for (int r = 0; r < ranks; r++)
        all |= (uint32_t)1 << r;
    assert_ok(comm_agree_flags(world, STATUS_OK, &flags));
    assert_int_equal(flags, all);
    flags = rank == 0 ? 0x10 : 0;
    enum status mine = rank == ranks - 1 ? status_fail(STATUS_NUMERIC, "loss is NaN") : STATUS_OK;
    assert_int_equal(comm_agree_flags(world, mine, &flags), STATUS_NUMERIC);
    assert_int_equal(flags, 0x10);
}

static void test_check_same(void **state)
{
    (void)state;
    assert_ok(comm_check_same(world, 0xFEDCBA9876543210u, "the configuration"));
    if (ranks == 1)
        return;
    assert_fails(comm_check_same(world, rank == ranks - 1 ? 5 : 6, "the configuration"), STATUS_INTERNAL,
                 "the configuration is not the same on all ranks: "
                 "hash 0000000000000005 here, 0000000000000006 on rank 0");
}

static void test_broadcast(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 1000, PIECE - 1, PIECE, PIECE + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int root = (int)i % ranks;
        char *bytes;
        assert_ok(mem_alloc((size_t)sizes[i], 1, "bytes", &bytes));
        if (rank == root)
            fill(bytes, sizes[i], root);
        assert_ok(comm_broadcast(world, bytes, sizes[i], root));
        check_bytes(bytes, sizes[i], root);
        mem_free(bytes);
    }
}

static void test_broadcast_blob(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 777};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int root = ranks - 1;
        char given[777], *bytes = rank == root ? given : NULL;
        int64_t n = rank == root ? sizes[i] : -5;
        fill(given, sizes[i], root);
        assert_ok(comm_broadcast_blob(world, &bytes, &n, root));
        assert_int_equal(n, sizes[i]);
        check_bytes(bytes, n, root);
        if (rank == root) {
            assert_ptr_equal(bytes, given);
        } else {
            assert_int_equal(bytes[n], 0);
            mem_free(bytes);
        }
    }
}

static void test_gather(void **state)
{
    (void)state;
    static const int64_t unit[] = {0, 3, 1000, PIECE / 2 + 5}; /* last: above a piece from 3 ranks on */
    for (size_t i = 0; i < sizeof unit / sizeof unit[0]; i++) {
        for (int root = -1; root < ranks; root += ranks) { /* -1: all ranks; then the last one */
            int64_t n = rank * unit[i], begin[9];           /* rank 0 brings nothing */
            char *mine, *all = (char *)&n;
            assert_ok(mem_alloc((size_t)n, 1, "bytes", &mine));
            fill(mine, n, rank);
            if (root < 0)
                assert_ok(comm_allgather(world, mine, n, &all, begin));
            else
                assert_ok(comm_gather(world, mine, n, root, &all, begin));
            assert_int_equal(begin[0], 0);
            for (int r = 0; r < ranks; r++) {
                assert_int_equal(begin[r + 1] - begin[r], r * unit[i]);
                if (root < 0 || root == rank)
                    check_bytes(all + begin[r], begin[r + 1] - begin[r], r);
            }
            if (root < 0 || root == rank)
                assert_int_equal(all[begin[ranks]], 0);
            else
                assert_null(all);
            mem_free(all);
            mem_free(mine);
        }
    }
}

static void test_gather_refuses_a_negative_size_everywhere(void **state)
{
    (void)state;
    int64_t begin[9];
    char *all;
    assert_fails(comm_allgather(world, "x", rank == ranks - 1 ? -1 : 1, &all, begin), STATUS_ARG, "out of range");
    assert_null(all);
}

static void test_sums_and_maxima(void **state)
{
    (void)state;
    int64_t sums[2] = {rank + 1, -((int64_t)1 << 60) / ranks};
    assert_ok(comm_sum_int64(world, sums, 2));
    assert_int_equal(sums[0], ranks * (ranks + 1) / 2);
    assert_int_equal(sums[1], -((int64_t)1 << 60) / ranks * ranks);

    double v[6] = {-1.5 - rank, rank * 0.25, rank == ranks - 1 ? -(double)NAN : 1e300, rank == 0 ? -INFINITY : -DBL_MAX,
                   rank == 0 ? 0.0 : -0.0, rank == 0 ? INFINITY : 3};
    assert_ok(comm_max_double(world, v, 6));
    assert_true(v[0] == -1.5);
    assert_true(v[1] == (ranks - 1) * 0.25);
    assert_true(isnan(v[2]));
    assert_true(v[3] == (ranks == 1 ? -INFINITY : -DBL_MAX));
    assert_true(v[4] == 0 && !signbit(v[4]));
    assert_true(v[5] == INFINITY);
}

static void test_groups(void **state)
{
    (void)state;
    struct comm *group, *none = world;
    assert_fails(comm_group(world, 0, &none), STATUS_ARG, "group of 0 ranks");
    assert_null(none);
    for (int size = 1; size <= ranks + 1; size++) {
        int first = rank / size * size, wanted = first + size <= ranks ? size : ranks - first;
        assert_ok(comm_group(world, size, &group));
        assert_int_equal(comm_rank(group), rank - first);
        assert_int_equal(comm_size(group), wanted);
        assert_int_equal(comm_local_rank(group), comm_local_rank(world));
        assert_string_equal(comm_backend(group), comm_backend(world));
        int64_t sum = rank;
        assert_ok(comm_sum_int64(group, &sum, 1));
        assert_int_equal(sum, (2 * first + wanted - 1) * wanted / 2);

        /* The last rank fails: its group hears of it, then all; the sentence names the rank of the job, once. */
        char words[64], heard[96];
        (void)snprintf(words, sizeof words, "group size %d", size);
        (void)snprintf(heard, sizeof heard, "rank %d: %s", ranks - 1, words);
        enum status st = comm_agree(group, rank == ranks - 1 ? status_fail(STATUS_DATA, "%s", words) : STATUS_OK);
        assert_int_equal(st, first + wanted == ranks ? STATUS_DATA : STATUS_OK);
        assert_int_equal(comm_agree(world, st), STATUS_DATA);
        assert_string_equal(status_message(), rank == ranks - 1 ? words : heard);
        comm_group_free(group);
    }
    comm_group_free(NULL);
}

static void test_barrier_holds_everyone(void **state)
{
    (void)state;
    double waited = 0;
    for (int late = 0; late < ranks; late++) {
        assert_ok(comm_barrier(world));
        double begin = clock_s();
        while (rank == late && clock_s() < begin + 0.05)
            continue;
        assert_ok(comm_barrier(world));
        waited = clock_s() - begin;
        assert_true(waited > 0.02); /* leaves room for late clocks, none for a barrier that does not wait */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_ranks_know_their_place),
        MPI_TEST(test_a_second_start_is_refused),
        MPI_TEST(test_one_failing_rank_fails_all),
        MPI_TEST(test_the_worst_status_wins),
        MPI_TEST(test_ranks_failing_alike_keep_their_words),
        MPI_TEST(test_flags_are_joined),
        MPI_TEST(test_check_same),
        MPI_TEST(test_broadcast),
        MPI_TEST(test_broadcast_blob),
        MPI_TEST(test_gather),
        MPI_TEST(test_gather_refuses_a_negative_size_everywhere),
        MPI_TEST(test_sums_and_maxima),
        MPI_TEST(test_groups),
        MPI_TEST(test_barrier_holds_everyone),
    };
    RUN_MPI_TESTS(tests);
}
