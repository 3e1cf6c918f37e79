/*
 * test_transport_mpi.c - sums and shards in GPU memory, over NCCL and over MPI.
 *
 * The ordered sums must have the bits of the CPU's, which tests/comm/test_reduce_mpi.c compares with a plain tree. Here
 * the same reductions run on host memory (the world) and on device memory (a group for each transport). The emulated
 * streams run as late as they may, in two orders: an order between compute and messages that is only hoped for shows
 * as wrong numbers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/device_cuda.h"
#include "base/mem.h"
#include "base/philox.h"
#include "tests/comm/mpi_main.h"
#if __has_include(<emulated_cuda.h>)
#  include <emulated_cuda.h>
#  define EMULATED 1
#else
#  define EMULATED 0
#endif

#define MOST_LEAVES 20
#define MOST_RANKS 8
#define MOST_TOPS 12
#define ELEMENTS 1500

static struct device *device;
static struct comm *group[2]; /* MPI, NCCL; NULL: left out */
static const char *const transport_name[2] = {"mpi, host-staged", "nccl"};

static float *host[MOST_TOPS], *host_out, *got;
static float *gpu[MOST_TOPS], *gpu_out;

/* Run queued work in another order from now on. */
static void set_order(int run)
{
#if EMULATED
    static const char *const order[] = {"forward", "reverse", "random:7"};
    emulated_cuda_order(order[run % 3]);
#else
    (void)run;
#endif
}

struct deal {
    int first[MOST_RANKS], count[MOST_RANKS];
};

/* kind 0: as even as can be; 1: all to the first; 2: all to the last; from 3: cut at random places. */
static struct deal make_deal(int kind, int leaves)
{
    struct deal deal;
    int cut[MOST_RANKS + 1] = {0};
    for (int r = 1; r <= ranks; r++) {
        cut[r] = r == ranks  ? leaves
                 : kind == 0 ? leaves * r / ranks
                 : kind == 1 ? leaves
                 : kind == 2 ? 0
                             : (int)random_below(random_mix((uint64_t)kind), (uint64_t)r, (uint64_t)leaves + 1);
        for (int k = r; k > 1 && cut[k] < cut[k - 1]; k--) {
            int t = cut[k];
            cut[k] = cut[k - 1];
            cut[k - 1] = t;
        }
    }
    for (int r = 0; r < ranks; r++) {
        deal.first[r] = cut[r];
        deal.count[r] = cut[r + 1] - cut[r];
    }
    return deal;
}

/* kind 0: all present; 1: none; 2: the last alone; from 3: about half. */
static void make_presence(int kind, int leaves, bool *present)
{
    for (int i = 0; i < leaves; i++)
        present[i] = kind == 0 || (kind == 2 && i == leaves - 1) ||
                     (kind >= 3 && random_below(random_mix((uint64_t)kind), (uint64_t)i, 2) == 0);
}

/* Floats of very different size: any other order of additions shows in the bits. */
static float value(int a, int b, int64_t i)
{
    struct philox p = philox4x32(777, (uint32_t)i, (uint32_t)a, (uint32_t)b, 0);
    float x = (float)(int32_t)p.v[0] / 1048576.0f;
    return (p.v[1] & 3) == 0 ? x * 4096.0f : x;
}

/* This rank's top nodes in host and in device memory; returns how many. */
static int fill(const struct reduce_tree *tree, int seed)
{
    struct reduce_node node[64];
    int n = reduce_top_nodes(tree, rank, node);
    assert_true(n <= MOST_TOPS);
    for (int k = 0; k < n; k++) {
        for (int64_t i = 0; i < ELEMENTS; i++)
            host[k][i] = value(seed, node[k].first, i);
        assert_ok(device_put(device, gpu[k], host[k], ELEMENTS * sizeof(float)));
    }
    return n;
}

static void check_equal(const float *found, const float *wanted, int64_t low, int64_t high, const char *what, int t)
{
    for (int64_t i = low; i < high; i++) {
        if (memcmp(&found[i], &wanted[i], sizeof *found) != 0)
            fail_msg("rank %d of %d, %s, %s: element %lld is %.9g, wanted %.9g", rank, ranks, transport_name[t], what,
                     (long long)i, (double)found[i], (double)wanted[i]);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        if (group[t] == NULL)
            continue;
        assert_string_equal(comm_backend(group[t]), ranks == 1 ? comm_backend(world) : transport_name[t]);
        assert_int_equal(comm_is_nccl(group[t]), t == 1 && ranks > 1);
        assert_ok(comm_settle(group[t], 10)); /* nothing under way */
        assert_fails(comm_use_device(group[t], device, COMM_MPI), STATUS_ARG, "chosen once");
    }
}

static void test_bits_are_those_of_the_cpu(void **state)
{
    (void)state;
    static const int leaf_counts[] = {1, 3, 8, 13, 20};
    static const int64_t ranges[][3] = {
        {0, ELEMENTS, 64}, {37, 901, 64}, {0, ELEMENTS, 65536}, {3, 4, 64}, {9, 9, 64}, {0, 1024, 256}};
    bool present[MOST_LEAVES];
    int run = 0;
    for (size_t l = 0; l < sizeof leaf_counts / sizeof leaf_counts[0]; l++) {
        int leaves = leaf_counts[l];
        for (int kind = 0; kind < 4; kind++) {
            make_presence(kind, leaves, present);
            for (int how = 0; how < 4; how++, run++) {
                const int64_t *range = ranges[run % 6];
                struct deal deal = make_deal(how, leaves);
                struct reduce_tree tree = {leaves, ranks, deal.first, deal.count, present};
                char what[96];
                int64_t begin, end;
                (void)snprintf(what, sizeof what, "%d leaves, presence %d, deal %d, range %d", leaves, kind, how,
                               run % 6);
                shard_range(range[0], range[1], range[2], rank, ranks, &begin, &end);
                set_order(run);
                int n = fill(&tree, run);
                assert_ok(comm_reduce_start(world, &tree, host, host_out, range[0], range[1], range[2]));
                assert_ok(comm_reduce_wait(world));
                for (int t = 0; t < 2; t++) {
                    if (group[t] == NULL)
                        continue;
                    bool in_place = n > 0 && run % 2 == 0; /* ranks without leaves have no buffer to use as out */
                    float *to = in_place ? gpu[0] : gpu_out;
                    if (t == 1 && in_place) /* the other transport's sum is there */
                        assert_ok(device_put(device, gpu[0], host[0], ELEMENTS * sizeof(float)));
                    assert_ok(comm_reduce_start(group[t], &tree, gpu, to, range[0], range[1], range[2]));
                    assert_ok(comm_reduce_wait(group[t]));
                    assert_ok(device_get(device, got, to, ELEMENTS * sizeof(float)));
                    check_equal(got, host_out, begin, end, what, t);
                }
                assert_ok(comm_gather_shards(world, host_out, range[0], range[1], range[2]));
                for (int t = 0; t < 2; t++) {
                    if (group[t] == NULL)
                        continue;
                    float *to = n > 0 && run % 2 == 0 ? gpu[0] : gpu_out;
                    assert_ok(comm_gather_shards(group[t], to, range[0], range[1], range[2]));
                    assert_ok(comm_settle(group[t], 20));
                    assert_ok(device_get(device, got, to, ELEMENTS * sizeof(float)));
                    check_equal(got, host_out, range[0], range[1], what, t);
                }
            }
        }
    }
}

static void copy(float *to, const float *from, int64_t n, enum cudaMemcpyKind kind)
{
    assert_int_equal(
        cudaMemcpyAsync(to, from, (size_t)n * sizeof(float), kind, device_cuda_stream(device, STREAM_COMPUTE)),
        cudaSuccess);
}

/*
 * As backward does it: a range's gradients are made, its reduction starts, the next range's are made; and after the wait
 * the buffers are used for something else at once.
 */
static void test_several_ranges_beside_compute_work(void **state)
{
    (void)state;
    static const int64_t cut[] = {0, 64, 65, 700, 960, ELEMENTS};
    bool present[13];
    float *pinned, *taken;
    assert_ok(device_cuda_host_alloc(device, MOST_TOPS * ELEMENTS * sizeof(float), "a test", &pinned));
    assert_ok(device_cuda_host_alloc(device, ELEMENTS * sizeof(float), "a test", &taken));
    make_presence(3, 13, present);
    for (int how = 0; how < 6; how++) { /* slots are used again, with other trees */
        set_order(how);
        struct deal deal = make_deal(how, 13);
        struct reduce_tree tree = {13, ranks, deal.first, deal.count, present};
        int n = fill(&tree, 100 + how);
        for (int k = 0; k < n; k++)
            memcpy(pinned + k * ELEMENTS, host[k], ELEMENTS * sizeof(float));
        assert_ok(comm_reduce_start(world, &tree, host, host_out, 0, ELEMENTS, 64));
        assert_ok(comm_reduce_wait(world));
        assert_ok(comm_gather_shards(world, host_out, 0, ELEMENTS, 64));
        for (int t = 0; t < 2; t++) {
            if (group[t] == NULL)
                continue;
            for (int k = 0; k < n; k++)
                assert_ok(device_zero(device, gpu[k], ELEMENTS * sizeof(float)));
            for (int r = 4; r >= 0; r--) {
                float *borrowed[MOST_TOPS];
                memcpy(borrowed, gpu, sizeof borrowed);
                for (int k = 0; k < n; k++)
                    copy(gpu[k] + cut[r], pinned + k * ELEMENTS + cut[r], cut[r + 1] - cut[r], cudaMemcpyHostToDevice);
                assert_ok(comm_reduce_start(group[t], &tree, borrowed, gpu_out, cut[r], cut[r + 1], 64));
                memset(borrowed, 0, sizeof borrowed); /* the array is read during the call only */
                for (int poke = 0; poke < 3; poke++)
                    comm_poke(group[t]);
            }
            assert_ok(comm_reduce_wait(group[t]));
            for (int k = 0; k < n; k++)
                assert_ok(device_zero(device, gpu[k], ELEMENTS * sizeof(float)));
            for (int r = 0; r < 5; r++)
                assert_ok(comm_gather_shards(group[t], gpu_out, cut[r], cut[r + 1], 64));
            copy(taken, gpu_out, ELEMENTS, cudaMemcpyDeviceToHost);
            assert_ok(device_zero(device, gpu_out, ELEMENTS * sizeof(float)));
            assert_ok(comm_settle(group[t], 20));
            assert_ok(device_finish(device));
            check_equal(taken, host_out, 0, ELEMENTS, "five ranges", t);
        }
    }
    for (int t = 0; t < 2; t++) {
        if (group[t] != NULL)
            assert_ok(comm_reduce_wait(group[t])); /* nothing under way */
    }
    device_cuda_host_free(device, taken);
    device_cuda_host_free(device, pinned);
}

/* Steps as a trial makes them (sum, new weights in the own shard, gathering), queued without a wait in between. */
static void test_steps_queued_behind_each_other(void **state)
{
    (void)state;
    enum { STEPS = 3, LEAVES = 13, BLOCK = 64 };
    bool present[LEAVES];
    float *pinned, *sums, *taken, *weights;
    int64_t begin, end;
    assert_ok(device_cuda_host_alloc(device, STEPS * MOST_TOPS * ELEMENTS * sizeof(float), "a test", &pinned));
    assert_ok(device_cuda_host_alloc(device, 2 * STEPS * ELEMENTS * sizeof(float), "a test", &taken));
    assert_ok(device_cuda_host_alloc(device, STEPS * ELEMENTS * sizeof(float), "a test", &weights));
    assert_ok(mem_alloc(STEPS * ELEMENTS, sizeof *sums, "a test", &sums));
    make_presence(0, LEAVES, present);
    shard_range(0, ELEMENTS, BLOCK, rank, ranks, &begin, &end);
    for (int t = 0; t < 2; t++) {
        for (int order = 0; order < 3 && group[t] != NULL; order++) {
            set_order(order);
            for (int step = 0; step < STEPS; step++) { /* what has to come out */
                struct deal deal = make_deal(step, LEAVES);
                struct reduce_tree tree = {LEAVES, ranks, deal.first, deal.count, present};
                int n = fill(&tree, 200 + step);
                for (int k = 0; k < n; k++)
                    memcpy(pinned + (step * MOST_TOPS + k) * ELEMENTS, host[k], ELEMENTS * sizeof(float));
                assert_ok(comm_reduce_start(world, &tree, host, sums + step * ELEMENTS, 0, ELEMENTS, BLOCK));
                assert_ok(comm_reduce_wait(world));
                for (int64_t i = 0; i < ELEMENTS; i++)
                    weights[step * ELEMENTS + i] = value(300 + step, 0, i);
            }
            assert_ok(device_zero(device, gpu_out, ELEMENTS * sizeof(float)));
            assert_ok(device_finish(device));
            for (int step = 0; step < STEPS; step++) {
                struct deal deal = make_deal(step, LEAVES);
                struct reduce_tree tree = {LEAVES, ranks, deal.first, deal.count, present};
                struct reduce_node node[64];
                int n = reduce_top_nodes(&tree, rank, node);
                for (int k = 0; k < n; k++)
                    copy(gpu[k], pinned + (step * MOST_TOPS + k) * ELEMENTS, ELEMENTS, cudaMemcpyHostToDevice);
                assert_ok(comm_reduce_start(group[t], &tree, gpu, gpu_out, 0, ELEMENTS, BLOCK));
                assert_ok(comm_reduce_wait(group[t]));
                copy(taken + 2 * step * ELEMENTS, gpu_out, ELEMENTS, cudaMemcpyDeviceToHost);
                copy(gpu_out + begin, weights + step * ELEMENTS + begin, end - begin, cudaMemcpyHostToDevice);
                assert_ok(comm_gather_shards(group[t], gpu_out, 0, ELEMENTS, BLOCK));
                copy(taken + (2 * step + 1) * ELEMENTS, gpu_out, ELEMENTS, cudaMemcpyDeviceToHost);
            }
            assert_ok(comm_settle(group[t], 20));
            assert_ok(device_finish(device));
            for (int step = 0; step < STEPS; step++) {
                check_equal(taken + 2 * step * ELEMENTS, sums + step * ELEMENTS, begin, end, "the sums of a step", t);
                check_equal(taken + (2 * step + 1) * ELEMENTS, weights + step * ELEMENTS, 0, ELEMENTS,
                            "the weights of a step", t);
            }
        }
    }
    mem_free(sums);
    device_cuda_host_free(device, weights);
    device_cuda_host_free(device, taken);
    device_cuda_host_free(device, pinned);
}

static void test_other_elements_stay_as_they_were(void **state)
{
    (void)state;
    bool present[8];
    make_presence(0, 8, present);
    struct deal deal = make_deal(0, 8);
    struct reduce_tree tree = {8, ranks, deal.first, deal.count, present};
    int n = fill(&tree, 5);
    for (int t = 0; t < 2; t++) {
        if (group[t] == NULL)
            continue;
        assert_ok(device_zero(device, gpu_out, ELEMENTS * sizeof(float)));
        assert_ok(comm_reduce_start(group[t], &tree, gpu, gpu_out, 100, 1000, 64));
        assert_ok(comm_reduce_wait(group[t]));
        assert_ok(device_get(device, got, gpu_out, ELEMENTS * sizeof(float)));
        for (int64_t i = 0; i < ELEMENTS; i++)
            assert_true((i >= 100 && i < 1000) || got[i] == 0.0f);
        for (int k = 0; k < n; k++) {
            assert_ok(device_get(device, got, gpu[k], ELEMENTS * sizeof(float)));
            check_equal(got, host[k], 0, ELEMENTS, "the buffers, when out is another array", t);
        }
    }
}

static void test_any_order(void **state)
{
    (void)state;
    static const int64_t ranges[][3] = {{0, ELEMENTS, 64}, {0, 768, 64}, {37, 901, 64}, {3, 4, 64}, {9, 9, 64}};
    for (int t = 0; t < 2; t++) {
        for (size_t k = 0; k < sizeof ranges / sizeof ranges[0] && group[t] != NULL; k++) {
            const int64_t *range = ranges[k];
            for (int64_t i = 0; i < ELEMENTS; i++)
                host[0][i] = value(50, rank, i);
            assert_ok(device_put(device, gpu[0], host[0], ELEMENTS * sizeof(float)));
            assert_ok(comm_reduce_any_order(group[t], gpu[0], range[0], range[1], range[2]));
            assert_ok(comm_reduce_wait(group[t]));
            assert_ok(comm_gather_shards(group[t], gpu[0], range[0], range[1], range[2]));
            assert_ok(comm_settle(group[t], 20));
            assert_ok(device_get(device, got, gpu[0], ELEMENTS * sizeof(float)));
            for (int64_t i = 0; i < ELEMENTS; i++) {
                double sum = 0, sizes = 0;
                for (int r = 0; r < ranks; r++) {
                    sum += (double)value(50, r, i);
                    sizes += fabs((double)value(50, r, i));
                }
                bool inside = i >= range[0] && i < range[1];
                support_assert_near((double)got[i], inside ? sum : (double)host[0][i], inside ? 1e-6 * sizes : 0.0,
                                    transport_name[t]);
            }
        }
    }
}

/* Groups have communicators of their own, and ranks of their own. */
static void test_groups_reduce_apart(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        struct comm *half;
        if (group[t] == NULL)
            continue;
        assert_ok(comm_group(world, 2, &half));
        assert_ok(comm_use_device(half, device, t == 1 ? COMM_NCCL : COMM_MPI));
        int size = comm_size(half), first[2] = {0, 1}, count[2] = {1, 1}, lowest = rank - comm_rank(half);
        bool present[2] = {true, true};
        struct reduce_tree tree = {size, size, first, count, present};
        for (int step = 0; step < 2; step++) {
            for (int64_t i = 0; i < ELEMENTS; i++)
                host[0][i] = value(60 + step, rank, i);
            assert_ok(device_put(device, gpu[0], host[0], ELEMENTS * sizeof(float)));
            assert_ok(comm_reduce_start(half, &tree, gpu, gpu[0], 0, ELEMENTS, 64));
            assert_ok(comm_reduce_wait(half));
            assert_ok(comm_gather_shards(half, gpu[0], 0, ELEMENTS, 64));
            assert_ok(comm_settle(half, 20));
            assert_ok(device_get(device, got, gpu[0], ELEMENTS * sizeof(float)));
            for (int64_t i = 0; i < ELEMENTS; i++)
                host_out[i] = size == 1 ? value(60 + step, lowest, i)
                                        : value(60 + step, lowest, i) + value(60 + step, lowest + 1, i);
            check_equal(got, host_out, 0, ELEMENTS, "groups of two", t);
        }
        comm_group_free(half);
    }
}

/* Longer than a piece of a message (16 MiB) and than the memory that shards are gathered through. */
static void test_long_shards(void **state)
{
    (void)state;
    int64_t n = ((int64_t)5 << 20) + 12345;
    float *mine, *back;
    if (ranks != 2) /* the rest is as with short ones */
        return;
    assert_ok(device_alloc(device, (size_t)n * sizeof(float), "a test", &mine));
    assert_ok(mem_alloc((size_t)n, sizeof(float), "a test", &back));
    for (int t = 0; t < 2; t++) {
        int64_t begin, end;
        if (group[t] == NULL)
            continue;
        shard_range(0, n, 65536, rank, ranks, &begin, &end);
        memset(back, 0, (size_t)n * sizeof(float));
        for (int64_t i = begin; i < end; i++)
            back[i] = (float)(i % 65521);
        assert_ok(device_put(device, mine, back, (size_t)n * sizeof(float)));
        assert_ok(comm_gather_shards(group[t], mine, 0, n, 65536));
        assert_ok(comm_settle(group[t], 20));
        assert_ok(device_get(device, back, mine, (size_t)n * sizeof(float)));
        for (int64_t i = 0; i < n; i++) {
            if (back[i] != (float)(i % 65521))
                fail_msg("%s: element %lld is %g", transport_name[t], (long long)i, (double)back[i]);
        }
    }
    mem_free(back);
    device_free(device, mine);
}

static enum status open_all(void)
{
    int count;
    TRY(device_count(DEVICE_CUDA, &count));
    TRY(device_open(DEVICE_CUDA, comm_local_rank(world) % count, &device));
    for (int k = 0; k < MOST_TOPS; k++) {
        TRY(mem_alloc(ELEMENTS, sizeof(float), "a test", &host[k]));
        TRY(device_alloc(device, ELEMENTS * sizeof(float), "a test", &gpu[k]));
    }
    TRY(mem_alloc(ELEMENTS, sizeof(float), "a test", &host_out));
    TRY(mem_alloc(ELEMENTS, sizeof(float), "a test", &got));
    return device_alloc(device, ELEMENTS * sizeof(float), "a test", &gpu_out);
}

static void test_transports_open(void **state)
{
    (void)state;
    assert_ok(open_all());
    for (int t = 0; t < 2; t++) {
        assert_ok(comm_group(world, ranks, &group[t]));
        enum status st = comm_use_device(group[t], device, t == 1 ? COMM_NCCL : COMM_MPI);
        if (st == STATUS_UNAVAILABLE && t == 1 && !EMULATED) { /* a machine without NCCL, or with one GPU */
            print_message("without NCCL: %s\n", status_message());
            comm_group_free(group[t]);
            group[t] = NULL;
            continue;
        }
        assert_ok(st);
    }
}

static void test_transports_close(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++)
        comm_group_free(group[t]);
    for (int k = 0; k < MOST_TOPS; k++) {
        mem_free(host[k]);
        device_free(device, gpu[k]);
    }
    mem_free(host_out);
    mem_free(got);
    device_free(device, gpu_out);
    assert_ok(device_finish(device));
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_transports_open),
        MPI_TEST(test_names),
        MPI_TEST(test_bits_are_those_of_the_cpu),
        MPI_TEST(test_several_ranges_beside_compute_work),
        MPI_TEST(test_steps_queued_behind_each_other),
        MPI_TEST(test_other_elements_stay_as_they_were),
        MPI_TEST(test_any_order),
        MPI_TEST(test_groups_reduce_apart),
        MPI_TEST(test_long_shards),
        MPI_TEST(test_transports_close),
    };
    int count;
    if (device_count(DEVICE_CUDA, &count) == STATUS_UNAVAILABLE) {
        printf("SKIP: %s\n", status_message());
        return 77;
    }
    RUN_MPI_TESTS(tests);
}
