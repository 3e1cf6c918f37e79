/*
 * test_reduce_mpi.c - the ordered reduction against a plain tree, bit by bit.
 *
 * ranks: 1 2 3 4 5 7
 *
 * The plain tree below is written from the contract in comm.h and knows nothing of ranks: that its bits come out of the
 * reduction on every number of ranks, for every deal of leaves, is the claim of docs/numerics.md.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "tests/comm/mpi_main.h"

#define MOST_LEAVES 20
#define MOST_RANKS 16
#define ELEMENTS 9000

static float leaf_table[MOST_LEAVES][ELEMENTS];

/* Floats of very different size: any other order of additions shows in the bits. */
static void make_leaves(void)
{
    for (int leaf = 0; leaf < MOST_LEAVES; leaf++) {
        for (int64_t i = 0; i < ELEMENTS; i++) {
            struct philox p = philox4x32(12345, (uint32_t)i, (uint32_t)leaf, 0, 0);
            float value = (float)(int32_t)p.v[0] / 1048576.0f;
            leaf_table[leaf][i] = (p.v[1] & 3) == 0 ? value * 4096.0f : value;
        }
    }
}

static float leaf_value(int leaf, int64_t i)
{
    return leaf_table[leaf][i];
}

/* Whole numbers: every order gives the same sum. The period is prime: a shift by a piece or a block shows. */
static float whole_value(int leaf, int64_t i)
{
    return (float)((leaf * 37 + i * 11) % 1021 - 300);
}

/* The sum over the present leaves of node [first, first + span), element i; *any says whether there is one. */
static float plain_tree(float (*value)(int, int64_t), const bool *present, int leaves, int first, int span, int64_t i,
                        bool *any)
{
    bool has_left, has_right;
    *any = false;
    if (first >= leaves)
        return 0;
    if (span == 1) {
        *any = present[first];
        return *any ? value(first, i) : 0;
    }
    float left = plain_tree(value, present, leaves, first, span / 2, i, &has_left);
    float right = plain_tree(value, present, leaves, first + span / 2, span / 2, i, &has_right);
    *any = has_left || has_right;
    return has_left && has_right ? left + right : has_left ? left : has_right ? right : 0;
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
        cut[r] = r == ranks ? leaves
                 : kind == 0 ? leaves * r / ranks
                 : kind == 1 ? leaves
                 : kind == 2 ? 0
                             : (int)random_below(random_mix((uint64_t)kind), (uint64_t)r, (uint64_t)leaves + 1);
    }
    for (int r = 1; r <= ranks; r++) { /* sort */
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

/* The least power of two that covers a node's leaves: nodes are aligned to it. */
static int span_of(int count)
{
    int span = 1;
    while (span < count)
        span *= 2;
    return span;
}

static float *buffers[64];

/* Fill this rank's buffers for the tree; returns how many top nodes it has. */
static int fill_buffers(const struct reduce_tree *tree, float (*value)(int, int64_t))
{
    struct reduce_node node[64];
    bool any;
    int n = reduce_top_nodes(tree, rank, node);
    for (int k = 0; k < n; k++) {
        for (int64_t i = 0; i < ELEMENTS; i++)
            buffers[k][i] = plain_tree(value, tree->present, tree->leaves, node[k].first, span_of(node[k].count), i,
                                       &any);
    }
    return n;
}

static void check_equal(const float *got, const float *wanted, int64_t low, int64_t high, const char *what)
{
    for (int64_t i = low; i < high; i++) {
        if (memcmp(&got[i], &wanted[i], sizeof *got) != 0)
            fail_msg("rank %d of %d, %s: element %lld is %.9g, wanted %.9g", rank, ranks, what, (long long)i,
                     (double)got[i], (double)wanted[i]);
    }
}

static void test_top_nodes_are_the_largest(void **state)
{
    (void)state;
    struct reduce_node node[64];
    bool present[MOST_LEAVES];
    for (int leaves = 0; leaves <= MOST_LEAVES; leaves++) {
        for (int kind = 0; kind < 5; kind++) {
            make_presence(kind, leaves, present);
            for (int begin = 0; begin <= leaves; begin++) {
                for (int end = begin; end <= leaves; end++) {
                    int first[1] = {begin}, count[1] = {end - begin}, at = begin;
                    struct reduce_tree tree = {leaves, 1, first, count, present};
                    int n = reduce_top_nodes(&tree, 0, node);
                    for (int k = 0; k < n; k++) {
                        for (; at < node[k].first; at++)
                            assert_false(present[at]); /* only absent leaves are left out */
                        int span = span_of(node[k].count), stop = node[k].first + node[k].count;
                        assert_int_equal(node[k].first % span, 0);
                        assert_true(stop <= end && (node[k].count == span || stop == leaves));
                        bool whole = node[k].first == 0 && stop == leaves;
                        int parent = node[k].first, parent_end = stop;
                        while (!whole && parent == node[k].first && parent_end == stop) { /* cut nodes may be equal */
                            span *= 2;
                            parent = node[k].first / span * span;
                            parent_end = parent + span < leaves ? parent + span : leaves;
                        }
                        assert_true(whole || parent < begin || parent_end > end);
                        bool any = false;
                        for (; at < stop; at++)
                            any = any || present[at];
                        assert_true(any);
                    }
                    for (; at < end; at++)
                        assert_false(present[at]);
                }
            }
        }
    }
}

static void test_shards_are_whole_blocks(void **state)
{
    (void)state;
    static const int64_t ranges[][3] = {{0, 0, 8},    {0, 100, 8},  {5, 100, 8},   {5, 6, 8},          {15, 17, 8},
                                        {64, 128, 8}, {63, 129, 8}, {0, 7, 65536}, {0, 22700000, 65536}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        int64_t low = ranges[i][0], high = ranges[i][1], block = ranges[i][2];
        for (int n = 1; n < 20; n++) {
            int64_t at = low, least = INT64_MAX, most = 0;
            for (int r = 0; r < n; r++) {
                int64_t begin, end;
                shard_range(low, high, block, r, n, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(end >= begin && end <= high);
                assert_true(end == begin || end == high || end % block == 0);
                int64_t blocks = end == begin ? 0 : (end - 1) / block - begin / block + 1;
                least = blocks < least ? blocks : least;
                most = blocks > most ? blocks : most;
                at = end;
            }
            assert_int_equal(at, high);
            assert_true(most - least <= 1);
        }
    }
}

static void test_bits_do_not_depend_on_ranks(void **state)
{
    (void)state;
    static const int leaf_counts[] = {1, 2, 3, 5, 8, 13, 20};
    static const int64_t ranges[][3] = {
        {0, ELEMENTS, 64}, {37, 4001, 64}, {0, ELEMENTS, 65536}, {3, 4, 64}, {9, 9, 64}};
    float *out, *wanted;
    bool present[MOST_LEAVES], any;
    assert_ok(mem_alloc(ELEMENTS, sizeof *out, "out", &out));
    assert_ok(mem_alloc(ELEMENTS, sizeof *wanted, "wanted", &wanted));
    int run = 0;
    for (size_t l = 0; l < sizeof leaf_counts / sizeof leaf_counts[0]; l++) {
        int leaves = leaf_counts[l];
        for (int kind = 0; kind < 5; kind++) {
            make_presence(kind, leaves, present);
            for (int64_t i = 0; i < ELEMENTS; i++)
                wanted[i] = plain_tree(leaf_value, present, leaves, 0, span_of(leaves), i, &any);
            for (int how = 0; how < 5; how++, run++) {
                const int64_t *range = ranges[run % 5];
                struct deal deal = make_deal(how, leaves);
                struct reduce_tree tree = {leaves, ranks, deal.first, deal.count, present};
                int n = fill_buffers(&tree, leaf_value);
                bool in_place = n > 0 && run % 2 == 0; /* ranks without leaves have no buffer to use as out */
                float *to = in_place ? buffers[0] : out;
                char what[96];
                (void)snprintf(what, sizeof what, "%d leaves, presence %d, deal %d, range %d", leaves, kind, how,
                               run % 5);
                assert_ok(comm_reduce_start(world, &tree, buffers, to, range[0], range[1], range[2]));
                assert_ok(comm_reduce_wait(world));
                int64_t begin, end;
                shard_range(range[0], range[1], range[2], rank, ranks, &begin, &end);
                check_equal(to, wanted, begin, end, what);
                assert_ok(comm_gather_shards(world, to, range[0], range[1], range[2]));
                check_equal(to, wanted, range[0], range[1], what);
            }
        }
    }
    mem_free(wanted);
    mem_free(out);
}

static void test_other_elements_stay_as_they_were(void **state)
{
    (void)state;
    bool present[8];
    make_presence(0, 8, present);
    struct deal deal = make_deal(0, 8);
    struct reduce_tree tree = {8, ranks, deal.first, deal.count, present};
    int n = fill_buffers(&tree, whole_value);
    float *out, *before;
    assert_ok(mem_alloc(ELEMENTS, sizeof *out, "out", &out));
    assert_ok(mem_alloc(ELEMENTS, sizeof *before, "before", &before));
    assert_ok(comm_reduce_start(world, &tree, buffers, out, 100, 5000, 64));
    assert_ok(comm_reduce_wait(world));
    check_equal(out, before, 0, 100, "below the range"); /* both zero */
    check_equal(out, before, 5000, ELEMENTS, "above the range");
    if (n > 0) {
        memcpy(before, buffers[0], ELEMENTS * sizeof *before);
        int kept = fill_buffers(&tree, whole_value);
        assert_int_equal(kept, n);
        check_equal(before, buffers[0], 0, ELEMENTS, "the buffers, when out is another array");
    }
    mem_free(before);
    mem_free(out);
}

static void test_several_ranges_under_way(void **state)
{
    (void)state;
    static const int64_t cut[] = {0, 640, 641, 3000, 3072, ELEMENTS};
    bool present[13], any;
    float *wanted;
    assert_ok(mem_alloc(ELEMENTS, sizeof *wanted, "wanted", &wanted));
    make_presence(3, 13, present);
    for (int64_t i = 0; i < ELEMENTS; i++)
        wanted[i] = plain_tree(leaf_value, present, 13, 0, 16, i, &any);
    for (int how = 0; how < 6; how++) { /* the second time on, slots are used again */
        struct deal deal = make_deal(how, 13);
        struct reduce_tree tree = {13, ranks, deal.first, deal.count, present};
        int n = fill_buffers(&tree, leaf_value);
        float *out = buffers[n > 0 ? 0 : 63];
        for (int k = 4; k >= 0; k--) { /* as backward does it: from the last layer to the first */
            float *borrowed[64];
            memcpy(borrowed, buffers, sizeof borrowed);
            assert_ok(comm_reduce_start(world, &tree, borrowed, out, cut[k], cut[k + 1], 64));
            memset(borrowed, 0, sizeof borrowed); /* the array is read during the call only */
            for (int poke = 0; poke < 5; poke++)
                comm_poke(world);
        }
        deal = (struct deal){0}; /* so is the tree */
        assert_ok(comm_reduce_wait(world));
        for (int k = 0; k < 5; k++)
            assert_ok(comm_gather_shards(world, out, cut[k], cut[k + 1], 64));
        check_equal(out, wanted, 0, ELEMENTS, "five ranges");
    }
    assert_ok(comm_reduce_wait(world)); /* nothing under way */
    comm_poke(world);
    mem_free(wanted);
}

static void test_whole_numbers_are_exact(void **state)
{
    (void)state;
    bool present[16];
    make_presence(0, 16, present);
    for (int how = 0; how < 5; how++) {
        struct deal deal = make_deal(how, 16);
        struct reduce_tree tree = {16, ranks, deal.first, deal.count, present};
        int n = fill_buffers(&tree, whole_value);
        float *out = buffers[n > 0 ? 0 : 63];
        assert_ok(comm_reduce_start(world, &tree, buffers, out, 0, ELEMENTS, 128));
        assert_ok(comm_reduce_wait(world));
        assert_ok(comm_gather_shards(world, out, 0, ELEMENTS, 128));
        for (int64_t i = 0; i < ELEMENTS; i++) {
            float sum = 0;
            for (int leaf = 0; leaf < 16; leaf++)
                sum += whole_value(leaf, i);
            assert_true(out[i] == sum);
        }
    }
}

static void test_any_order_sums_whole_numbers(void **state)
{
    (void)state;
    static const int64_t ranges[][3] = {{0, ELEMENTS, 64}, {37, 4001, 64}, {3, 4, 64}, {9, 9, 64}};
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
        int64_t low = ranges[k][0], high = ranges[k][1], block = ranges[k][2];
        for (int64_t i = 0; i < ELEMENTS; i++)
            buffers[0][i] = whole_value(rank, i);
        assert_ok(comm_reduce_any_order(world, buffers[0], low, high, block));
        assert_ok(comm_gather_shards(world, buffers[0], low, high, block));
        for (int64_t i = 0; i < ELEMENTS; i++) {
            float sum = 0;
            for (int r = 0; r < ranks; r++)
                sum += i >= low && i < high ? whole_value(r, i) : r == rank ? whole_value(r, i) : 0;
            assert_true(buffers[0][i] == sum);
        }
    }
}

static void test_messages_longer_than_a_piece(void **state)
{
    (void)state;
    /* A piece is 4 Mi floats; shards are longer than that on 2 ranks, and one message is on 3 or 4 with one block. */
    const int64_t n = ((int64_t)9 << 20) + 77;
    bool present[2] = {true, true};
    struct deal deal = make_deal(0, 2);
    struct reduce_tree tree = {2, ranks, deal.first, deal.count, present};
    struct reduce_node node[64];
    float *flat;
    if (ranks > 4)
        return; /* the memory would be all that is new */
    assert_ok(mem_alloc((size_t)n, sizeof *flat, "a long vector", &flat));
    for (int split = 0; split < 2; split++) {
        int64_t block = split == 0 ? 65536 : (int64_t)5 << 20;
        float *one[1] = {flat};
        int nodes = reduce_top_nodes(&tree, rank, node);
        for (int64_t i = 0; i < n; i++)
            flat[i] = ranks == 1 ? whole_value(0, i) + whole_value(1, i)
                      : nodes == 1 ? whole_value(node[0].first, i)
                                   : -1;
        assert_ok(comm_reduce_start(world, &tree, one, flat, 0, n, block));
        comm_poke(world);
        assert_ok(comm_reduce_wait(world));
        assert_ok(comm_gather_shards(world, flat, 0, n, block));
        for (int64_t i = 0; i < n; i++) {
            if (flat[i] != whole_value(0, i) + whole_value(1, i))
                fail_msg("rank %d: element %lld is %g", rank, (long long)i, (double)flat[i]);
        }
    }
    mem_free(flat);
}

static void test_groups_reduce_apart(void **state)
{
    (void)state;
    struct comm *group;
    assert_ok(comm_group(world, 2, &group));
    bool present[2] = {true, true};
    int size = comm_size(group), first[2] = {0, 1}, count[2] = {size == 1 ? 2 : 1, 1};
    struct reduce_tree tree = {2, size, first, count, present};
    int base = rank / 2 * 2;
    for (int64_t i = 0; i < ELEMENTS; i++)
        buffers[0][i] = size == 1 ? whole_value(rank, i) + whole_value(rank + 1, i) : whole_value(rank, i);
    assert_ok(comm_reduce_start(group, &tree, buffers, buffers[0], 0, ELEMENTS, 64));
    assert_ok(comm_reduce_wait(group));
    assert_ok(comm_gather_shards(group, buffers[0], 0, ELEMENTS, 64));
    for (int64_t i = 0; i < ELEMENTS; i++)
        assert_true(buffers[0][i] == whole_value(base, i) + whole_value(base + 1, i));
    comm_group_free(group);
}

static void test_bad_trees_are_refused(void **state)
{
    (void)state;
    bool present[4] = {true, true, true, true};
    int first[MOST_RANKS] = {0}, count[MOST_RANKS] = {0};
    struct reduce_tree tree = {4, ranks, first, count, present};
    count[0] = 3; /* leaf 3 is nobody's */
    assert_fails(comm_reduce_start(world, &tree, buffers, buffers[0], 0, 10, 8), STATUS_ARG, "belongs to no rank");
    count[0] = 5;
    assert_fails(comm_reduce_start(world, &tree, buffers, buffers[0], 0, 10, 8), STATUS_ARG, "leaves [0, 5) of 4");
    count[0] = 4;
    tree.ranks = ranks + 1;
    assert_fails(comm_reduce_start(world, &tree, buffers, buffers[0], 0, 10, 8), STATUS_ARG, "was asked of");
    tree.ranks = ranks;
    assert_fails(comm_reduce_start(world, &tree, buffers, buffers[0], 10, 0, 8), STATUS_ARG, "[10, 0)");
    assert_fails(comm_reduce_start(world, &tree, buffers, buffers[0], 0, 10, 0), STATUS_ARG, "blocks of 0");
    assert_fails(comm_gather_shards(world, buffers[0], 0, (int64_t)1 << 32, 8), STATUS_ARG, "wanted up to");
    assert_ok(comm_reduce_start(world, &tree, buffers, buffers[0], 0, 10, 8));
    assert_fails(comm_reduce_any_order(world, buffers[0], 0, 10, 8), STATUS_ARG, "1 ordered reductions are under way");
    assert_ok(comm_reduce_wait(world));
    if (ranks > 1) {
        first[1] = 3;
        count[1] = 1; /* leaf 3 is two ranks' */
        assert_fails(comm_reduce_start(world, &tree, buffers, buffers[0], 0, 10, 8), STATUS_ARG, "rank 1 has leaves");
    }
}

/* Naming the CPU as the device changes nothing; NCCL has nothing to do there. */
static void test_a_cpu_device(void **state)
{
    (void)state;
    struct device *device;
    struct comm *group;
    assert_ok(device_open(DEVICE_CPU, 0, &device));
    assert_ok(comm_group(world, ranks, &group));
    assert_fails(comm_use_device(group, device, COMM_NCCL), STATUS_UNAVAILABLE, "parallel.transport=mpi");
    assert_ok(comm_use_device(group, device, COMM_MPI));
    assert_string_equal(comm_backend(group), comm_backend(world));
    assert_false(comm_is_nccl(group));
    for (int64_t i = 0; i < 100; i++)
        buffers[0][i] = whole_value(rank, i);
    assert_ok(comm_reduce_any_order(group, buffers[0], 0, 100, 8));
    assert_ok(comm_gather_shards(group, buffers[0], 0, 100, 8));
    assert_ok(comm_settle(group, 1.0));
    for (int64_t i = 0; i < 100; i++) {
        float sum = 0;
        for (int r = 0; r < ranks; r++)
            sum += whole_value(r, i);
        assert_true(buffers[0][i] == sum);
    }
    comm_group_free(group);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_top_nodes_are_the_largest),
        MPI_TEST(test_shards_are_whole_blocks),
        MPI_TEST(test_bits_do_not_depend_on_ranks),
        MPI_TEST(test_other_elements_stay_as_they_were),
        MPI_TEST(test_several_ranges_under_way),
        MPI_TEST(test_whole_numbers_are_exact),
        MPI_TEST(test_any_order_sums_whole_numbers),
        MPI_TEST(test_messages_longer_than_a_piece),
        MPI_TEST(test_groups_reduce_apart),
        MPI_TEST(test_bad_trees_are_refused),
        MPI_TEST(test_a_cpu_device),
    };
    float *all;
    make_leaves();
    if (mem_alloc(64 * ELEMENTS, sizeof *all, "buffers", &all) != STATUS_OK)
        return 1;
    for (int k = 0; k < 64; k++)
        buffers[k] = all + k * ELEMENTS;
    RUN_MPI_TESTS(tests);
}
