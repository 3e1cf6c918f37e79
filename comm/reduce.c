/*
 * reduce.c - sums whose bits do not depend on the number of ranks.
 *
 * Each range of elements is cut into one shard per rank. A rank sends its top nodes' slices of
 * every other shard to the shard's owner, and the owner finishes the tree. MPI only moves bytes;
 * the order of additions is that of the tree, so it depends on leaves and presence alone. On the
 * wire this is a reduce-scatter when the number of ranks is a power of two that divides the leaves
 * (one top node per rank), and at most 2 log2(leaves) times that otherwise.
 *
 * The owner sums chunk by chunk over the whole tree rather than vector by vector: intermediate
 * nodes then live in the cache, and each slice is read from memory once. The tree is flattened into
 * a list of additions when the range starts (tree.c).
 *
 * Memory: a range keeps its slot, with staging for the slices of the other ranks, from step to
 * step. A step that starts the same ranges again allocates nothing.
 *
 * What comm.h promises is checked here and done by the group's transport: the one at the end of
 * this file, for numbers in host memory, or a GPU's (cuda_transport.c).
 */
#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "comm/internal.h"

#define CHUNK 1024 /* floats summed at once over the whole tree: 4 KiB per intermediate node */
#define PARALLEL_FLOATS ((int64_t)1 << 16)
#define TAG_RANGES                                                                                 \
    511 /* tags are (range modulo this) * MOST_TOP_NODES + node, below 32,704; MPI allows 32,767   \
         */

/* ---- starting ---- */

static enum status room_for_floats(float **memory, size_t *capacity, int64_t need, const char *what)
{
    if (need <= (int64_t)*capacity)
        return STATUS_OK;
    mem_free(*memory); /* nothing worth copying: it is written before it is read */
    *memory = NULL;
    *capacity = 0;
    TRY(mem_alloc_raw((size_t)need, sizeof(float), what, memory));
    *capacity = (size_t)need;
    return STATUS_OK;
}

/* The next free slot, kept from an earlier step or new. */
static enum status take_slot(struct comm *comm, struct range **out)
{
    size_t before = comm->range_capacity;
    TRY(mem_grow(&comm->range, &comm->range_capacity, comm->ranges + 1, sizeof *comm->range,
                 "reductions under way"));
    for (size_t i = before; i < comm->range_capacity; i++)
        comm->range[i] = (struct range){0};
    *out = &comm->range[comm->ranges];
    return STATUS_OK;
}

/* Every rank's top nodes, in leaf order, and the additions over them. */
static enum status plan_range(struct comm *comm, const struct reduce_tree *tree,
                              struct range *range)
{
    struct reduce_node node[MOST_TOP_NODES];
    range->sources = 0;
    for (int r = 0; r < comm->size; r++) {
        int n = reduce_top_nodes(tree, r, node);
        TRY(mem_grow(&range->source, &range->source_capacity, range->sources + (size_t)n,
                     sizeof *range->source, "nodes of a reduction"));
        for (int k = 0; k < n; k++)
            range->source[range->sources++] =
                (struct source){NULL, node[k].first, node[k].count, r, k};
    }
    TRY(mem_grow(&range->addition, &range->addition_capacity, range->sources,
                 sizeof *range->addition, "additions of a reduction"));
    range->additions = tree_additions(tree->leaves, range->source, range->sources, range->addition,
                                      &range->scratch);
    return STATUS_OK;
}

enum status comm_reduce_start(struct comm *comm, const struct reduce_tree *tree,
                              float *const *buffer, float *out, int64_t low, int64_t high,
                              int64_t block)
{
    struct range *range;
    collective_begins();
    if (low < 0 || high < low || block < 1)
        return status_fail(STATUS_ARG, "elements [%lld, %lld) in blocks of %lld were to be reduced",
                           (long long)low, (long long)high, (long long)block);
    TRY(tree_check(tree, comm->size));
    TRY(take_slot(comm, &range));
    range->out = out;
    range->low = low;
    range->high = high;
    range->block = block;
    shard_range(low, high, block, comm->rank, comm->size, &range->begin, &range->end);
    TRY(plan_range(comm, tree, range));
    TRY(comm->transport->start(comm, range, buffer));
    comm->ranges++;
    return STATUS_OK;
}

void comm_poke(struct comm *comm)
{
    comm->transport->poke(comm);
}

enum status comm_reduce_wait(struct comm *comm)
{
    collective_begins();
    TRY(comm->transport->wait(comm));
    comm->ranges = 0;
    return STATUS_OK;
}

enum status comm_settle(struct comm *comm, double timeout_s)
{
    return comm->transport->settle(comm, timeout_s);
}

void comm_give_up(struct comm *comm)
{
    if (comm->transport->give_up != NULL)
        comm->transport->give_up(comm);
}

/* ---- messages of MPI ---- */

static enum status start_message(struct comm *comm, const float *from, float *to, int64_t n,
                                 int peer, int tag)
{
    for (int64_t at = 0; at < n; at += PIECE_FLOATS) {
        int piece = (int)(n - at < PIECE_FLOATS ? n - at : PIECE_FLOATS);
        TRY(mem_grow(&comm->request, &comm->request_capacity, comm->requests + 1,
                     sizeof *comm->request, "messages of a reduction"));
        TRY(mem_grow(&comm->completed, &comm->completed_capacity, comm->requests + 1,
                     sizeof *comm->completed, "messages of a reduction"));
        MPI_Request *request = &comm->request[comm->requests];
        if (to != NULL)
            TRY(mpi_status(MPI_Irecv(to + at, piece, MPI_FLOAT, peer, tag, comm->mpi, request),
                           "MPI_Irecv"));
        else
            TRY(mpi_status(MPI_Isend(from + at, piece, MPI_FLOAT, peer, tag, comm->mpi, request),
                           "MPI_Isend"));
        comm->requests++;
    }
    return STATUS_OK;
}

static int tag_of(const struct comm *comm, const struct range *range, int node)
{
    return (int)((range - comm->range) % TAG_RANGES) * MOST_TOP_NODES + node;
}

enum status reduce_receives(struct comm *comm, struct range *range)
{
    int64_t length = range->end - range->begin, foreign = 0;
    if (length == 0)
        return STATUS_OK;
    for (size_t k = 0; k < range->sources; k++)
        foreign += range->source[k].rank != comm->rank;
    TRY(room_for_floats(&range->staging, &range->staging_capacity, foreign * length,
                        "slices of other ranks' sums"));
    float *staged = range->staging;
    for (size_t k = 0; k < range->sources; k++) {
        struct source *source = &range->source[k];
        if (source->rank == comm->rank)
            continue;
        source->at = staged;
        staged += length;
        TRY(start_message(comm, NULL, source->at, length, source->rank,
                          tag_of(comm, range, source->node)));
    }
    return STATUS_OK;
}

enum status reduce_sends(struct comm *comm, const struct range *range, float *const *slice,
                         int64_t first)
{
    for (int step = 1; step < comm->size; step++) { /* each rank begins with another owner */
        int64_t begin, end;
        int owner = (comm->rank + step) % comm->size;
        shard_range(range->low, range->high, range->block, owner, comm->size, &begin, &end);
        for (size_t k = 0; k < range->sources; k++) {
            int node = range->source[k].node;
            if (range->source[k].rank == comm->rank)
                TRY(start_message(comm, slice[node] + (begin - first), NULL, end - begin, owner,
                                  tag_of(comm, range, node)));
        }
    }
    return STATUS_OK;
}

void reduce_keep(struct comm *comm, enum status st)
{
    comm->poke_status = st;
    if (st == STATUS_OK)
        return;
    size_t n = strnlen(status_message(), sizeof comm->poke_message - 1);
    memcpy(comm->poke_message, status_message(), n);
    comm->poke_message[n] = '\0';
}

void reduce_poke(struct comm *comm)
{
    int done = 0;
    if (comm->requests == 0 || comm->poke_status != STATUS_OK)
        return;
    reduce_keep(comm, mpi_status(MPI_Testsome((int)comm->requests, comm->request, &done,
                                              comm->completed, MPI_STATUSES_IGNORE),
                                 "MPI_Testsome"));
    if (comm->poke_status != STATUS_OK)
        return;
    if (done <= 0) /* MPI_UNDEFINED is negative */
        return;
    size_t left = 0; /* complete requests are MPI_REQUEST_NULL now: close up, so that later pokes
                        look at fewer */
    for (size_t i = 0; i < comm->requests; i++) {
        if (comm->request[i] != MPI_REQUEST_NULL)
            comm->request[left++] = comm->request[i];
    }
    comm->requests = left;
}

enum status reduce_messages_end(struct comm *comm)
{
    if (comm->poke_status != STATUS_OK)
        return status_fail(comm->poke_status, "%s", comm->poke_message);
    if (comm->requests > 0)
        TRY(mpi_status(MPI_Waitall((int)comm->requests, comm->request, MPI_STATUSES_IGNORE),
                       "MPI_Waitall"));
    comm->requests = 0;
    return STATUS_OK;
}

/* ---- sums ---- */

/* One chunk of the shard over the whole tree. */
static void sum_chunk(const struct range *range, float *out, int64_t at, int64_t n)
{
    _Alignas(64) float scratch[MOST_SCRATCH][CHUNK];
    for (size_t k = 0; k < range->additions; k++) {
        const struct addition *add = &range->addition[k];
        const float *left = add->left >= 0 ? range->source[add->left].at + at
                                           : scratch[-1 - add->left];
        const float *right = add->right >= 0 ? range->source[add->right].at + at
                                             : scratch[-1 - add->right];
        /* out may be a source: it is written last, when every source's chunk has been read. */
        float *to = k + 1 == range->additions ? out + at : scratch[-1 - add->to];
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = left[i] + right[i];
    }
}

void reduce_sum(const struct range *range, float *to)
{
    int64_t length = range->end - range->begin;
    if (length == 0)
        return;
    if (range->sources == 0) {
        memset(to, 0, (size_t)length * sizeof *to);
    } else if (range->sources == 1) {
        if (range->source[0].at != to)
            memcpy(to, range->source[0].at, (size_t)length * sizeof *to);
    } else {
#pragma omp parallel for schedule(static) if (length >= PARALLEL_FLOATS)
        for (int64_t at = 0; at < length; at += CHUNK)
            sum_chunk(range, to, at, length - at < CHUNK ? length - at : CHUNK);
    }
}

/* ---- shards ---- */

/* What each shard of [low, high) has between its elements `from` and `to`, as counts and places
 * behind low. */
static void shard_pieces(struct comm *comm, int64_t low, int64_t high, int64_t block, int64_t from,
                         int64_t to)
{
    for (int r = 0; r < comm->size; r++) {
        int64_t begin, end;
        shard_range(low, high, block, r, comm->size, &begin, &end);
        int64_t first = begin + from < end ? begin + from : end,
                last = begin + to < end ? begin + to : end;
        comm->count[r] = (int)(last - first);
        comm->place[r] = last > first ? (int)(first - low) : 0;
    }
}

enum status comm_gather_shards(struct comm *comm, float *flat, int64_t low, int64_t high,
                               int64_t block)
{
    collective_begins();
    if (low < 0 || high < low || high - low > INT_MAX || block < 1)
        return status_fail(STATUS_ARG,
                           "shards of [%lld, %lld) in blocks of %lld: wanted up to %d elements, "
                           "blocks of 1 and up",
                           (long long)low, (long long)high, (long long)block, INT_MAX);
    if (comm->size == 1)
        return STATUS_OK;
    return comm->transport->gather(comm, flat, low, high, block);
}

/*
 * MPI_Reduce_scatter does the same job and was slower in every trial of bench/reduce.c, so this is
 * the ordered sum with one leaf for each rank. Tried: Open MPI 4.1.4, 2 ranks sharing 2 cores, 22.7
 * million floats; 92 to 97 ms against 17 to 20 in one range, 22 to 23 against 16 to 17 in twelve.
 * Not tried: more ranks, several nodes, another MPI.
 */
enum status comm_reduce_any_order(struct comm *comm, float *buffer, int64_t low, int64_t high,
                                  int64_t block)
{
    struct reduce_tree tree = {comm->size, comm->size, comm->place, comm->count, comm->all};
    if (comm->ranges > 0)
        return status_fail(STATUS_ARG, "%zu ordered reductions are under way, wanted none",
                           comm->ranges);
    if (comm->transport->any_order != NULL && low >= 0 && high >= low && block >= 1) {
        collective_begins();
        return comm->transport->any_order(comm, buffer, low, high, block);
    }
    for (int r = 0; r < comm->size; r++) {
        comm->place[r] = r;
        comm->count[r] = 1;
    }
    TRY(comm_reduce_start(comm, &tree, &buffer, buffer, low, high, block));
    return comm_reduce_wait(comm);
}

/* ---- numbers in host memory ---- */

static enum status host_start(struct comm *comm, struct range *range, float *const *buffer)
{
    for (size_t k = 0; k < range->sources; k++) {
        if (range->source[k].rank == comm->rank)
            range->source[k].at = buffer[range->source[k].node] + range->begin;
    }
    TRY(reduce_receives(comm, range));
    return reduce_sends(comm, range, buffer, 0);
}

static enum status host_wait(struct comm *comm)
{
    TRY(reduce_messages_end(comm));
    for (size_t k = 0; k < comm->ranges; k++)
        reduce_sum(&comm->range[k], comm->range[k].out + comm->range[k].begin);
    return STATUS_OK;
}

static enum status host_gather(struct comm *comm, float *flat, int64_t low, int64_t high,
                               int64_t block)
{
    int64_t begin, end;
    shard_range(low, high, block, 0, comm->size, &begin, &end);
    int64_t longest = end - begin +
                      block; /* rank 0 has the most blocks, but its first may be a part of one */
    for (int64_t at = 0; at < longest; at += PIECE_FLOATS) {
        shard_pieces(comm, low, high, block, at, at + PIECE_FLOATS);
        TRY(mpi_status(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, flat + low, comm->count,
                                      comm->place, MPI_FLOAT, comm->mpi),
                       "MPI_Allgatherv"));
    }
    return STATUS_OK;
}

static enum status host_settle(struct comm *comm, double timeout_s)
{
    (void)comm;
    (void)timeout_s;
    return STATUS_OK;
}

static void host_close(struct comm *comm)
{
    (void)comm;
}

static const struct transport host_transport = {
    .start = host_start,
    .poke = reduce_poke,
    .wait = host_wait,
    .gather = host_gather,
    .settle = host_settle,
    .close = host_close,
};

bool comm_is_nccl(const struct comm *comm)
{
    return comm->transport->any_order != NULL;
}

enum status comm_use_device(struct comm *comm, struct device *device, enum comm_transport transport)
{
    collective_begins();
    if (comm->ranges > 0 || comm->transport != &host_transport)
        return status_fail(STATUS_ARG, "a group's device is chosen once, before its reductions");
#ifdef COHORT_CUDA
    if (device_kind(device) == DEVICE_CUDA)
        return cuda_transport_open(comm, device, transport);
#else
    (void)device;
#endif
    if (transport == COMM_NCCL)
        return status_fail(STATUS_UNAVAILABLE,
                           "parallel.transport=nccl moves GPU memory and this run computes on the "
                           "CPU: set parallel.transport=mpi");
    return STATUS_OK;
}

enum status reduce_prepare(struct comm *comm)
{
    comm->transport = &host_transport;
    TRY(mem_alloc((size_t)comm->size, sizeof *comm->count, "counts of shards", &comm->count));
    TRY(mem_alloc((size_t)comm->size, sizeof *comm->place, "places of shards", &comm->place));
    TRY(mem_alloc((size_t)comm->size, sizeof *comm->all, "ranks", &comm->all));
    memset(comm->all, true, (size_t)comm->size * sizeof *comm->all);
    return STATUS_OK;
}

void reduce_release(struct comm *comm)
{
    for (size_t k = 0; k < comm->range_capacity; k++) {
        mem_free(comm->range[k].source);
        mem_free(comm->range[k].addition);
        mem_free(comm->range[k].staging);
    }
    mem_free(comm->range);
    mem_free(comm->request);
    mem_free(comm->completed);
    mem_free(comm->count);
    mem_free(comm->place);
    mem_free(comm->all);
}
