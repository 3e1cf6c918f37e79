/*
 * reduce.c - milliseconds of the ordered reduction beside MPI's own.
 *
 *   mpirun -n RANKS reduce [FLOATS] [RANGES] [LEAVES] [REPEATS]
 *
 * For one vector of FLOATS (default 22.7 million, MiniLM-L6) in RANGES pieces: the ordered reduction to shards (start
 * to wait), the gathering of shards, the reduction in any order, MPI_Reduce_scatter, which does the work of the first,
 * and MPI_Allreduce, which does the work of the first two. All of them go range by range.
 * Each figure is the median over REPEATS of the slowest rank. Without a launcher nothing is compared.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "comm/comm.h"

#define BLOCK 65536
#define MOST_REPEATS 99

enum what { TREE, GATHER, ANY_ORDER, SCATTER, ALLREDUCE, WHATS };
static const char *const names[WHATS] = {"ordered reduction", "gather shards", "any order",
                                          "MPI_Reduce_scatter", "MPI_Allreduce"};

struct work {
    struct comm *world;
    struct reduce_tree tree;
    float *buffer[64];
    float *shard; /* (floats) */
    int *counts;  /* (ranks) */
    int64_t floats;
    int ranges;
};

static int64_t cut(const struct work *work, int k)
{
    return k == work->ranges ? work->floats : work->floats * k / work->ranges / BLOCK * BLOCK;
}

static enum status mpi_allreduce(float *flat, int64_t n)
{
    return MPI_Allreduce(MPI_IN_PLACE, flat, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS
               ? STATUS_OK
               : status_fail(STATUS_OS, "MPI_Allreduce failed");
}

/* Into memory that is kept, as the ordered reduction keeps its staging; the copy to the shard's place is left out. */
static enum status mpi_reduce_scatter(struct work *work, int64_t low, int64_t high)
{
    for (int r = 0; r < comm_size(work->world); r++) {
        int64_t begin, end;
        shard_range(low, high, BLOCK, r, comm_size(work->world), &begin, &end);
        work->counts[r] = (int)(end - begin);
    }
    return MPI_Reduce_scatter(work->buffer[0] + low, work->shard, work->counts, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) ==
                   MPI_SUCCESS
               ? STATUS_OK
               : status_fail(STATUS_OS, "MPI_Reduce_scatter failed");
}

static enum status run(struct work *work, enum what what)
{
    float *flat = work->buffer[0];
    for (int k = work->ranges - 1; k >= 0; k--) {
        int64_t low = cut(work, k), high = cut(work, k + 1);
        TRY(what == TREE        ? comm_reduce_start(work->world, &work->tree, work->buffer, flat, low, high, BLOCK)
            : what == GATHER    ? comm_gather_shards(work->world, flat, low, high, BLOCK)
            : what == ANY_ORDER ? comm_reduce_any_order(work->world, flat, low, high, BLOCK)
            : what == SCATTER   ? mpi_reduce_scatter(work, low, high)
                                : mpi_allreduce(flat + low, high - low));
    }
    return what == TREE ? comm_reduce_wait(work->world) : STATUS_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum status measure(struct work *work, enum what what, int repeats)
{
    double ms[MOST_REPEATS];
    TRY(run(work, what)); /* memory is touched and connections are made */
    for (int i = 0; i < repeats; i++) {
        TRY(comm_barrier(work->world));
        double begin = clock_s();
        TRY(run(work, what));
        ms[i] = 1e3 * (clock_s() - begin);
        TRY(comm_max_double(work->world, &ms[i], 1));
    }
    qsort(ms, (size_t)repeats, sizeof ms[0], compare);
    if (comm_rank(work->world) == 0)
        (void)printf("%-18s %8.1f ms (least %.1f, most %.1f)\n", names[what], ms[repeats / 2], ms[0], ms[repeats - 1]);
    return STATUS_OK;
}

static int64_t argument(int argc, char **argv, int at, int64_t otherwise)
{
    int64_t value;
    return at < argc && parse_int64(argv[at], &value) && value > 0 ? value : otherwise;
}

static enum status bench(struct work *work, int argc, char **argv)
{
    int ranks = comm_size(work->world), leaves = (int)argument(argc, argv, 3, 8), *run_of;
    int repeats = (int)argument(argc, argv, 4, 9);
    bool *present;
    struct reduce_node node[64];
    work->floats = argument(argc, argv, 1, 22700000);
    work->ranges = (int)argument(argc, argv, 2, 1);
    repeats = repeats < MOST_REPEATS ? repeats : MOST_REPEATS;
    TRY(mem_alloc(2 * (size_t)ranks, sizeof *run_of, "runs of leaves", &run_of));
    TRY(mem_alloc((size_t)leaves, sizeof *present, "leaves", &present));
    memset(present, true, (size_t)leaves);
    for (int r = 0; r < ranks; r++) {
        run_of[r] = leaves * r / ranks;
        run_of[ranks + r] = leaves * (r + 1) / ranks - run_of[r];
    }
    work->tree = (struct reduce_tree){leaves, ranks, run_of, run_of + ranks, present};
    int nodes = reduce_top_nodes(&work->tree, comm_rank(work->world), node);
    TRY(mem_alloc((size_t)work->floats, sizeof(float), "a shard", &work->shard));
    TRY(mem_alloc((size_t)ranks, sizeof *work->counts, "counts", &work->counts));
    for (int k = 0; k < nodes || k == 0; k++)
        TRY(mem_alloc((size_t)work->floats, sizeof(float), "a vector", &work->buffer[k]));
    if (comm_rank(work->world) == 0)
        (void)printf("%lld floats in %d ranges, %d leaves on %d ranks (%d top nodes on rank 0)\n",
                     (long long)work->floats, work->ranges, leaves, ranks, nodes);
    for (int what = 0; what < WHATS; what++) {
        if (what < SCATTER || ranks > 1)
            TRY(measure(work, (enum what)what, repeats));
    }
    for (int k = 0; k < 64; k++)
        mem_free(work->buffer[k]);
    mem_free(work->shard);
    mem_free(work->counts);
    mem_free(present);
    mem_free(run_of);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct work work = {0};
    if (comm_start(&work.world) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", status_message());
        return 1;
    }
    if (bench(&work, argc, argv) != STATUS_OK)
        comm_abort(status_message(), 1);
    comm_end(work.world);
    return 0;
}
