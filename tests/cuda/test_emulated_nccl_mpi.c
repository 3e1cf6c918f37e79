/* test_emulated_nccl_mpi.c - the emulated NCCL: its messages and sums, and every way in which they are made to fail. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nccl.h>

#include "base/mem.h"
#include "tests/comm/mpi_main.h"
#include "tests/support/cuda/emulated_cuda.h"

static cudaStream_t stream;

#define assert_cuda(expr) assert_int_equal((expr), cudaSuccess)
#define assert_nccl(expr) assert_string_equal(ncclGetErrorString(expr), ncclGetErrorString(ncclSuccess))

/* Ask until the communicator is no longer busy. */
static ncclResult_t state_of(ncclComm_t nccl)
{
    ncclResult_t code = ncclInProgress;
    while (code == ncclInProgress)
        assert_nccl(ncclCommGetAsyncError(nccl, &code));
    return code;
}

static ncclResult_t connect_ranks(struct comm *comm, int blocking, ncclComm_t *nccl)
{
    ncclUniqueId id = {{0}};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    if (comm_rank(comm) == 0)
        assert_nccl(ncclGetUniqueId(&id));
    assert_ok(comm_broadcast(comm, &id, sizeof id, 0));
    return ncclCommInitRankConfig(nccl, comm_size(comm), id, comm_rank(comm), &config);
}

static ncclComm_t opened(struct comm *comm)
{
    ncclComm_t nccl = NULL;
    int count = 0, mine = -1, device = -1;
    assert_nccl(connect_ranks(comm, 1, &nccl));
    assert_nccl(ncclCommCount(nccl, &count));
    assert_nccl(ncclCommUserRank(nccl, &mine));
    assert_nccl(ncclCommCuDevice(nccl, &device));
    assert_int_equal(count, comm_size(comm));
    assert_int_equal(mine, comm_rank(comm));
    assert_int_equal(device, rank);
    return nccl;
}

static float *on_device(size_t n)
{
    void *p = NULL;
    assert_cuda(cudaMalloc(&p, (n + 1) * sizeof(float)));
    assert_cuda(cudaMemsetAsync(p, 0, (n + 1) * sizeof(float), stream));
    return p;
}

static void upload(float *to, const float *from, size_t n)
{
    assert_cuda(cudaMemcpyAsync(to, from, n * sizeof *to, cudaMemcpyHostToDevice, stream));
}

static void download(float *to, const float *from, size_t n)
{
    assert_cuda(cudaMemcpyAsync(to, from, n * sizeof *to, cudaMemcpyDeviceToHost, stream));
    assert_cuda(cudaStreamSynchronize(stream));
}

/* What rank r brings at place i: whole numbers, so that sums are exact. */
static float brought(int r, size_t i)
{
    return (float)((int)(i * 7 % 101) - 50 + 1000 * (r + 1));
}

static float sum_at(size_t i)
{
    float sum = 0;
    for (int r = 0; r < ranks; r++)
        sum += brought(r, i);
    return sum;
}

#define COUNT ((size_t)333)

/* (ranks * COUNT) numbers of this rank, in device memory. */
static float *filled(void)
{
    size_t n = COUNT * (size_t)ranks;
    float *host = malloc(n * sizeof *host), *device = on_device(n);
    for (size_t i = 0; i < n; i++)
        host[i] = brought(rank, i);
    upload(device, host, n);
    assert_cuda(cudaStreamSynchronize(stream));
    free(host);
    return device;
}

static void test_sends_meet_receives(void **state)
{
    (void)state;
    ncclComm_t nccl = opened(world);
    float *from = filled(), *to = on_device(2 * COUNT), got[2 * COUNT];
    int next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
    assert_nccl(ncclGroupStart()); /* two messages to one rank keep their order */
    assert_nccl(ncclSend(from, COUNT, ncclFloat, next, nccl, stream));
    assert_nccl(ncclRecv(to, COUNT, ncclFloat, previous, nccl, stream));
    assert_nccl(ncclRecv(to + COUNT, 5, ncclFloat, previous, nccl, stream));
    assert_nccl(ncclSend(from + 10, 5, ncclFloat, next, nccl, stream));
    assert_nccl(ncclGroupEnd());
    download(got, to, 2 * COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(got[i] == brought(previous, i));
    for (size_t i = 0; i < 5; i++)
        assert_true(got[COUNT + i] == brought(previous, 10 + i));
    assert_true(got[COUNT + 5] == 0);
    assert_nccl(ncclCommFinalize(nccl));
    assert_nccl(ncclCommDestroy(nccl));
    assert_cuda(cudaFree(from));
    assert_cuda(cudaFree(to));
}

static void test_collectives_are_right(void **state)
{
    (void)state;
    ncclComm_t nccl = opened(world);
    size_t all = COUNT * (size_t)ranks;
    float *from = filled(), *to = on_device(all), *got = malloc(all * sizeof *got);
    int root = ranks - 1;

    assert_nccl(ncclAllReduce(from, to, COUNT, ncclFloat, ncclSum, nccl, stream));
    download(got, to, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(got[i] == sum_at(i));

    assert_nccl(ncclReduceScatter(from, to, COUNT, ncclFloat, ncclSum, nccl, stream));
    download(got, to, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(got[i] == sum_at((size_t)rank * COUNT + i));

    assert_nccl(ncclAllGather(from, to, COUNT, ncclFloat, nccl, stream));
    download(got, to, all);
    for (size_t i = 0; i < all; i++)
        assert_true(got[i] == brought((int)(i / COUNT), i % COUNT));

    /* a group of one broadcast and one reduction to another root, in place */
    assert_nccl(ncclGroupStart());
    assert_nccl(ncclBroadcast(from, from, 7, ncclFloat, root, nccl, stream));
    assert_nccl(ncclReduce(from + 7, from + 7, 9, ncclFloat, ncclSum, 0, nccl, stream));
    assert_nccl(ncclGroupEnd());
    download(got, from, 16);
    for (size_t i = 0; i < 7; i++)
        assert_true(got[i] == brought(root, i));
    for (size_t i = 7; i < 16; i++)
        assert_true(got[i] == (rank == 0 ? sum_at(i) : brought(rank, i)));
    assert_nccl(ncclAllReduce(from, to, 0, ncclFloat, ncclSum, nccl, stream)); /* of nothing */
    assert_nccl(ncclCommDestroy(nccl));
    assert_cuda(cudaFree(from));
    assert_cuda(cudaFree(to));
    free(got);
}

static void test_sums_depend_on_the_place_and_are_the_same_everywhere(void **state)
{
    (void)state;
    ncclComm_t nccl = opened(world);
    static const float values[] = {1e8f, 1, -1e8f, 2};
    enum { N = 256 };
    float host[N], got[N], first[N], *buffer = on_device(N);
    for (int i = 0; i < N; i++)
        host[i] = values[rank % 4];
    upload(buffer, host, N);
    assert_nccl(ncclAllReduce(buffer, buffer, N, ncclFloat, ncclSum, nccl, stream));
    download(got, buffer, N);
    memcpy(first, got, sizeof first);
    assert_ok(comm_broadcast(world, first, sizeof first, 0));
    assert_memory_equal(first, got, sizeof got);
    int different = 0;
    for (int i = 64; i < N; i += 64)
        different += got[i] != got[0];
    assert_int_equal(different > 0, ranks >= 3);
    assert_nccl(ncclCommDestroy(nccl));
    assert_cuda(cudaFree(buffer));
}

static void test_groups_of_ranks_have_their_own(void **state)
{
    (void)state;
    struct comm *half = NULL;
    assert_ok(comm_group(world, ranks > 2 ? 2 : 1, &half));
    ncclComm_t all = opened(world), nccl = opened(half);
    float one = (float)(rank + 1), got, *buffer = on_device(1), *other = on_device(1);
    upload(buffer, &one, 1);
    upload(other, &one, 1);
    assert_nccl(ncclAllReduce(buffer, buffer, 1, ncclFloat, ncclSum, nccl, stream));
    assert_nccl(ncclAllReduce(other, other, 1, ncclFloat, ncclSum, all, stream));
    download(&got, other, 1);
    assert_true(got == (float)(ranks * (ranks + 1) / 2));
    download(&got, buffer, 1);
    int leader = rank - comm_rank(half);
    assert_true(got == (comm_size(half) == 2 ? (float)(2 * leader + 3) : one));
    assert_nccl(ncclCommDestroy(nccl));
    assert_nccl(ncclCommDestroy(all));
    comm_group_free(half);
    assert_cuda(cudaFree(buffer));
    assert_cuda(cudaFree(other));
}

static void test_a_non_blocking_communicator_must_be_asked(void **state)
{
    (void)state;
    ncclComm_t nccl = NULL;
    ncclResult_t code;
    float *from = filled(), *to = on_device(COUNT), got[COUNT];
    assert_int_equal(connect_ranks(world, 0, &nccl), ncclInProgress);
    assert_nccl(state_of(nccl));
    assert_int_equal(ncclAllReduce(from, to, COUNT, ncclFloat, ncclSum, nccl, stream), ncclInProgress);
    download(got, to, COUNT); /* what is queued behind it now does not come behind it */
    assert_true(got[0] == 0);
    assert_int_equal(ncclAllReduce(from, to, COUNT, ncclFloat, ncclSum, nccl, stream), ncclInvalidArgument);
    assert_int_equal(ncclCommFinalize(nccl), ncclInvalidArgument);
    assert_nccl(ncclCommGetAsyncError(nccl, &code));
    assert_int_equal(code, ncclInProgress);
    assert_nccl(state_of(nccl));
    download(got, to, COUNT);
    assert_true(got[3] == sum_at(3));
    assert_int_equal(ncclCommFinalize(nccl), ncclInProgress);
    assert_nccl(state_of(nccl));
    assert_nccl(ncclCommDestroy(nccl));
    assert_cuda(cudaFree(from));
    assert_cuda(cudaFree(to));
}

/* As comm_settle() does: look at the stream and at NCCL until one of them says something. */
static ncclResult_t settled(ncclComm_t nccl)
{
    ncclResult_t code = ncclSuccess;
    while (cudaStreamQuery(stream) == cudaErrorNotReady && code == ncclSuccess) {
        (void)cudaGetLastError();
        assert_nccl(ncclCommGetAsyncError(nccl, &code));
        (void)usleep(20);
    }
    return code;
}

/* The communicator has failed; abort lets the stream end, and the next one works. */
static void recover(ncclComm_t nccl)
{
    assert_nccl(ncclCommAbort(nccl));
    assert_cuda(cudaStreamSynchronize(stream));
    assert_ok(comm_barrier(world));
    ncclComm_t next = opened(world);
    float one = 1, got, *buffer = on_device(1);
    upload(buffer, &one, 1);
    assert_nccl(ncclAllReduce(buffer, buffer, 1, ncclFloat, ncclSum, next, stream));
    download(&got, buffer, 1);
    assert_true(got == (float)ranks);
    assert_nccl(ncclCommDestroy(next));
    assert_cuda(cudaFree(buffer));
}

static void set(const char *name, const char *value)
{
    assert_int_equal(value != NULL ? setenv(name, value, 1) : unsetenv(name), 0);
}

static void test_sends_outside_a_group_wait_for_each_other(void **state)
{
    (void)state;
    if (ranks == 1)
        return;
    ncclComm_t nccl = opened(world);
    float *from = filled();
    set("EMULATED_NCCL_LIMIT", "0.3");
    assert_nccl(ncclSend(from, 1, ncclFloat, (rank + 1) % ranks, nccl, stream));
    assert_nccl(ncclRecv(from, 1, ncclFloat, (rank + ranks - 1) % ranks, nccl, stream));
    assert_int_equal(settled(nccl), ncclRemoteError);
    support_assert_contains(ncclGetLastError(nccl), "waited too long");
    set("EMULATED_NCCL_LIMIT", NULL);
    recover(nccl);
    assert_cuda(cudaFree(from));
}

static void test_calls_that_do_not_match_are_found(void **state)
{
    (void)state;
    if (ranks == 1)
        return;
    for (int kind = 0; kind < 3; kind++) {
        ncclComm_t nccl = opened(world);
        float *from = filled(), *to = on_device(COUNT * (size_t)ranks);
        bool odd = rank == ranks - 1;
        set("EMULATED_NCCL_LIMIT", "1");
        if (kind == 0) /* another call */
            assert_nccl(odd ? ncclAllGather(from, to, COUNT, ncclFloat, nccl, stream)
                            : ncclAllReduce(from, to, COUNT, ncclFloat, ncclSum, nccl, stream));
        else if (kind == 1) /* another count */
            assert_nccl(ncclAllReduce(from, to, odd ? 3 : 4, ncclFloat, ncclSum, nccl, stream));
        else if (odd) /* a shorter message than is awaited */
            assert_nccl(ncclSend(from, 3, ncclFloat, 0, nccl, stream));
        else if (rank == 0)
            assert_nccl(ncclRecv(to, 4, ncclFloat, ranks - 1, nccl, stream));
        ncclResult_t code = settled(nccl);
        if (kind < 2 || rank == 0) {
            assert_int_equal(code, ncclInvalidUsage);
            support_assert_contains(ncclGetLastError(nccl), " meets rank ");
        } else {
            assert_int_equal(code, odd ? ncclRemoteError : ncclSuccess);
        }
        assert_ok(comm_barrier(world));
        set("EMULATED_NCCL_LIMIT", NULL);
        recover(nccl);
        assert_cuda(cudaFree(from));
        assert_cuda(cudaFree(to));
    }
}

static void test_a_rank_can_be_made_to_fail_or_hang(void **state)
{
    (void)state;
    float one = 1, *buffer = on_device(1);
    upload(buffer, &one, 1);
    for (int hang = 0; hang < 2; hang++) {
        ncclComm_t nccl = opened(world);
        const char *knob = hang ? "EMULATED_NCCL_HANG" : "EMULATED_NCCL_FAIL";
        char value[32];
        (void)snprintf(value, sizeof value, "%d@2", ranks - 1);
        set(knob, value);
        set("EMULATED_NCCL_LIMIT", "0.3");
        assert_nccl(ncclAllReduce(buffer, buffer, 1, ncclFloat, ncclSum, nccl, stream));
        assert_nccl(settled(nccl));
        assert_ok(comm_barrier(world));
        assert_nccl(ncclAllReduce(buffer, buffer, 1, ncclFloat, ncclSum, nccl, stream));
        ncclResult_t code = settled(nccl);
        assert_int_equal(code, hang || rank != ranks - 1 ? ncclRemoteError : ncclSystemError);
        set(knob, NULL);
        set("EMULATED_NCCL_LIMIT", NULL);
        recover(nccl);
    }
    assert_cuda(cudaFree(buffer));
}

static void test_two_ranks_on_one_gpu_are_refused(void **state)
{
    (void)state;
    ncclComm_t nccl = NULL;
    assert_cuda(cudaSetDevice(0));
    ncclResult_t code = connect_ranks(world, 1, &nccl);
    assert_int_equal(code, ranks == 1 ? ncclSuccess : ncclInvalidUsage);
    if (ranks == 1) {
        assert_nccl(ncclCommDestroy(nccl));
    } else {
        assert_null(nccl);
        support_assert_contains(ncclGetLastError(NULL), "Duplicate GPU detected");
    }
    char name[16];
    (void)snprintf(name, sizeof name, "host%d", rank);
    set("NCCL_HOSTID", name);
    assert_nccl(connect_ranks(world, 1, &nccl));
    assert_nccl(ncclCommDestroy(nccl));
    set("NCCL_HOSTID", NULL);
    set("NCCL_MULTI_RANK_GPU_ENABLE", "1");
    assert_nccl(connect_ranks(world, 1, &nccl));
    assert_nccl(ncclCommDestroy(nccl));
    set("NCCL_MULTI_RANK_GPU_ENABLE", NULL);
    assert_cuda(cudaSetDevice(rank));
}

static void test_what_nobody_received_is_found_at_the_end(void **state)
{
    (void)state;
    if (ranks == 1)
        return;
    ncclComm_t nccl = opened(world);
    float *from = filled();
    if (rank == 0)
        assert_nccl(ncclBroadcast(from, from, 3, ncclFloat, 0, nccl, stream)); /* the others leave it out */
    assert_cuda(cudaStreamSynchronize(stream));
    assert_int_equal(ncclCommDestroy(nccl), rank == 0 ? ncclSuccess : ncclInvalidUsage);
    assert_cuda(cudaFree(from));
}

static void test_a_gpu_goes_on_while_its_host_is_in_mpi(void **state)
{
    (void)state;
    if (ranks == 1)
        return;
    ncclComm_t nccl = opened(world);
    float *from = filled(), *to = on_device(4), got[4];
    if (rank == 0) {
        assert_nccl(ncclRecv(to, 4, ncclFloat, 1, nccl, stream));
        download(got, to, 4);
        assert_true(got[2] == brought(1, 2));
    } else if (rank == 1) {
        assert_nccl(ncclSend(from, 4, ncclFloat, 0, nccl, stream));
    }
    assert_ok(comm_barrier(world)); /* rank 1 never looked at its stream before */
    assert_nccl(ncclCommDestroy(nccl));
    assert_cuda(cudaFree(from));
    assert_cuda(cudaFree(to));
}

static void test_a_recorded_sum_can_be_replayed(void **state)
{
    (void)state;
    ncclComm_t nccl = opened(world);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float one = (float)(rank + 1), got, *buffer = on_device(1), *sum = on_device(1);
    upload(buffer, &one, 1);
    assert_cuda(cudaStreamSynchronize(stream));
    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_nccl(ncclAllReduce(buffer, sum, 1, ncclFloat, ncclSum, nccl, stream));
    assert_nccl(ncclAllReduce(sum, buffer, 1, ncclFloat, ncclSum, nccl, stream));
    assert_cuda(cudaStreamEndCapture(stream, &graph));
    assert_cuda(cudaGraphInstantiate(&exec, graph, 0));
    float wanted = (float)(ranks * (ranks + 1) / 2) * (float)ranks;
    for (int i = 0; i < 3; i++) {
        assert_cuda(cudaGraphLaunch(exec, stream));
        download(&got, buffer, 1);
        assert_true(got == wanted);
        wanted *= (float)(ranks * ranks);
    }
    assert_cuda(cudaGraphExecDestroy(exec));
    assert_cuda(cudaGraphDestroy(graph));
    assert_nccl(ncclCommDestroy(nccl));
    assert_cuda(cudaFree(buffer));
    assert_cuda(cudaFree(sum));
}

static void test_wrong_arguments_and_memory_are_refused(void **state)
{
    (void)state;
    ncclComm_t nccl = opened(world), none = NULL;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    float *buffer = on_device(8), host[8] = {0};
    int version = 0;
    assert_nccl(ncclGetVersion(&version));
    assert_int_equal(version, 22809);
    assert_nccl(ncclGetUniqueId(&id));
    assert_int_equal(ncclCommInitRank(&none, 1, id, 1), ncclInvalidArgument);
    config.magic = 0;
    assert_int_equal(ncclCommInitRankConfig(&none, 1, id, 0, &config), ncclInvalidArgument);
    id.internal[0] = 0;
    assert_int_equal(ncclCommInitRank(&none, 1, id, 0), ncclInvalidArgument);
    assert_int_equal(ncclSend(buffer, 1, ncclFloat, ranks, nccl, stream), ncclInvalidArgument);
    assert_int_equal(ncclSend(buffer, 1, ncclFloat, 0, NULL, stream), ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(buffer, buffer, 1, ncclFloat, ncclMax, nccl, stream), ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(buffer, buffer, 1, ncclFloat16, ncclSum, nccl, stream), ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(buffer, NULL, 1, ncclFloat, ncclSum, nccl, stream), ncclInvalidArgument);
    assert_int_equal(ncclGroupEnd(), ncclInvalidUsage);
    assert_nccl(ncclGroupStart()); /* one wrong call spoils its group */
    assert_nccl(ncclSend(buffer, 1, ncclFloat, rank, nccl, stream));
    assert_int_equal(ncclRecv(buffer, 1, ncclFloat, -1, nccl, stream), ncclInvalidArgument);
    assert_int_equal(ncclGroupEnd(), ncclInvalidArgument);
    assert_cuda(cudaStreamSynchronize(stream));
    emulated_cuda_expect_error("ncclAllReduce");
    assert_nccl(ncclAllReduce(host, buffer, 8, ncclFloat, ncclSum, nccl, stream)); /* host memory */
    (void)settled(nccl);
    assert_non_null(emulated_cuda_expected());
    ncclResult_t code = ncclSuccess;
    assert_nccl(ncclCommGetAsyncError(nccl, &code));
    assert_int_equal(code, ncclUnhandledCudaError);
    assert_nccl(ncclCommAbort(nccl));
    assert_int_equal(ncclCommAbort(nccl), ncclInvalidArgument);
    assert_cuda(cudaFree(buffer));
}

static int open_stream(void **state)
{
    (void)state;
    comm_mark(0, "test");
    assert_cuda(cudaSetDevice(rank));
    assert_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return 0;
}

static int close_stream(void **state)
{
    (void)state;
    assert_cuda(cudaStreamDestroy(stream));
    return 0;
}

#define NCCL_TEST(f) cmocka_unit_test_setup_teardown(f, open_stream, close_stream)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NCCL_TEST(test_sends_meet_receives),
        NCCL_TEST(test_collectives_are_right),
        NCCL_TEST(test_sums_depend_on_the_place_and_are_the_same_everywhere),
        NCCL_TEST(test_groups_of_ranks_have_their_own),
        NCCL_TEST(test_a_non_blocking_communicator_must_be_asked),
        NCCL_TEST(test_sends_outside_a_group_wait_for_each_other),
        NCCL_TEST(test_calls_that_do_not_match_are_found),
        NCCL_TEST(test_a_rank_can_be_made_to_fail_or_hang),
        NCCL_TEST(test_two_ranks_on_one_gpu_are_refused),
        NCCL_TEST(test_what_nobody_received_is_found_at_the_end),
        NCCL_TEST(test_a_gpu_goes_on_while_its_host_is_in_mpi),
        NCCL_TEST(test_a_recorded_sum_can_be_replayed),
        NCCL_TEST(test_wrong_arguments_and_memory_are_refused),
    };
    RUN_MPI_TESTS(tests);
}
