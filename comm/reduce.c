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
 * a list of additions when the range starts.
 *
 * Memory: a range keeps its slot, with staging for the slices of the other ranks, from step to
 * step. A step that starts the same ranges again allocates nothing.
 */
#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "comm/internal.h"

#define MOST_TOP_NODES 64 /* two per level of a tree over int leaves */
#define MOST_SCRATCH 33   /* intermediate sums alive at once: at most one per level and one more */
#define CHUNK 1024 /* floats summed at once over the whole tree: 4 KiB per intermediate node */
#define PARALLEL_FLOATS ((int64_t)1 << 16)
#define TAG_RANGES                                                                                 \
    511 /* tags are (range modulo this) * MOST_TOP_NODES + node, below 32,704; MPI allows 32,767   \
         */
#define ABSENT INT_MIN

/* An operand or result: source k is k, scratch vector k is -1 - k. */
struct addition {
    int left, right, to;
};

struct source {
    float *at; /* its slice that belongs to this rank's shard; NULL if that is empty and of another
                  rank */
    int first, count; /* leaves covered */
};

struct range {
    float *out;
    int64_t begin, end;        /* this rank's shard */
    struct source *source;     /* every rank's top nodes in leaf order */
    struct addition *addition; /* in order; the last one writes out */
    float *staging;            /* slices of other ranks' top nodes, one behind the other */
    size_t sources, additions;
    size_t source_capacity, addition_capacity, staging_capacity;
};

/* ---- the tree ---- */

/* The span of the root: the least power of two that covers all leaves. */
static int64_t root_span(int leaves)
{
    int64_t span = 1;
    while (span < leaves)
        span *= 2;
    return span;
}

static bool any_present(const struct reduce_tree *tree, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i++) {
        if (tree->present[i])
            return true;
    }
    return false;
}

static int add_top_nodes(const struct reduce_tree *tree, int rank, int64_t first, int64_t span,
                         struct reduce_node *nodes, int n)
{
    int64_t begin = tree->first[rank], end = begin + tree->count[rank];
    int64_t last = first + span < tree->leaves ? first + span : tree->leaves;
    if (last <= begin || first >= end)
        return n;
    if (first >= begin && last <= end) {
        if (any_present(tree, first, last))
            nodes[n++] = (struct reduce_node){(int)first, (int)(last - first)};
        return n;
    }
    n = add_top_nodes(tree, rank, first, span / 2, nodes, n);
    return add_top_nodes(tree, rank, first + span / 2, span / 2, nodes, n);
}

int reduce_top_nodes(const struct reduce_tree *tree, int rank, struct reduce_node *nodes)
{
    return tree->count[rank] > 0 ? add_top_nodes(tree, rank, 0, root_span(tree->leaves), nodes, 0)
                                 : 0;
}

/* Runs are in leaf order, apart from each other, and hold every present leaf. */
static enum status check_tree(const struct reduce_tree *tree, int ranks)
{
    int64_t covered = 0; /* leaves before this one are in a run or absent */
    if (tree->ranks != ranks || tree->leaves < 0)
        return status_fail(STATUS_ARG,
                           "a reduction over %d leaves and %d ranks was asked of %d ranks",
                           tree->leaves, tree->ranks, ranks);
    for (int r = 0; r <= ranks; r++) {
        int64_t first = r < ranks ? tree->first[r] : tree->leaves,
                count = r < ranks ? tree->count[r] : 0;
        if (r < ranks && count == 0)
            continue;
        if (count < 0 || first < covered || first + count > tree->leaves)
            return status_fail(
                STATUS_ARG,
                "rank %d has leaves [%lld, %lld) of %d, wanted a run behind the previous rank's, "
                "which ends at %lld",
                r, (long long)first, (long long)(first + count), tree->leaves, (long long)covered);
        if (any_present(tree, covered, first))
            return status_fail(STATUS_ARG, "a present leaf in [%lld, %lld) belongs to no rank",
                               (long long)covered, (long long)first);
        covered = first + count;
    }
    return STATUS_OK;
}

struct plan {
    struct range *range;
    int leaves;
    size_t next; /* sources before this one are used */
};

/*
 * The additions of node [first, first + span), with intermediate sums in scratch vectors from
 * `scratch` on. The node is met in leaf order, as the sources are sorted, so only the next source
 * can be this node or lie inside it.
 */
static int plan_node(struct plan *plan, int64_t first, int64_t span, int scratch)
{
    struct range *range = plan->range;
    int64_t end = first + span < plan->leaves ? first + span : plan->leaves;
    if (plan->next == range->sources || range->source[plan->next].first >= end)
        return ABSENT;
    const struct source *source = &range->source[plan->next];
    if (source->first == first && source->first + source->count == end)
        return (int)plan->next++;
    int left = plan_node(plan, first, span / 2, scratch);
    int right = plan_node(plan, first + span / 2, span / 2, scratch + (left == -1 - scratch));
    if (left == ABSENT || right == ABSENT)
        return left == ABSENT ? right : left;
    range->addition[range->additions++] = (struct addition){left, right, -1 - scratch};
    return -1 - scratch;
}

void shard_range(int64_t low, int64_t high, int64_t block, int rank, int ranks, int64_t *begin,
                 int64_t *end)
{
    int64_t first = low / block, blocks = high > low ? (high - 1) / block + 1 - first : 0;
    int64_t each = blocks / ranks, more = blocks % ranks;
    int64_t from = first + rank * each + (rank < more ? rank : more),
            to = from + each + (rank < more ? 1 : 0);
    *begin = from * block > low ? from * block : low;
    *end = to * block < high ? to * block : high;
    if (*begin > high)
        *begin = high;
    if (*end < *begin)
        *end = *begin;
}

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

/* List every rank's top nodes as sources; those of other ranks get their place in staging. */
static enum status find_sources(struct comm *comm, const struct reduce_tree *tree,
                                float *const *buffer, struct range *range)
{
    struct reduce_node node[MOST_TOP_NODES];
    int64_t length = range->end - range->begin, foreign = 0;
    range->sources = 0;
    for (int r = 0; r < comm->size; r++) {
        int n = reduce_top_nodes(tree, r, node);
        TRY(mem_grow(&range->source, &range->source_capacity, range->sources + (size_t)n,
                     sizeof *range->source, "nodes of a reduction"));
        for (int k = 0; k < n; k++) {
            float *at = r == comm->rank ? buffer[k] + range->begin : NULL;
            range->source[range->sources++] = (struct source){at, node[k].first, node[k].count};
            foreign += at == NULL;
        }
    }
    if (length == 0)
        return STATUS_OK;
    TRY(room_for_floats(&range->staging, &range->staging_capacity, foreign * length,
                        "slices of other ranks' sums"));
    float *staged = range->staging;
    for (size_t k = 0; k < range->sources; k++) {
        if (range->source[k].at != NULL)
            continue;
        range->source[k].at = staged;
        staged += length;
    }
    return STATUS_OK;
}

enum status comm_reduce_start(struct comm *comm, const struct reduce_tree *tree,
                              float *const *buffer, float *out, int64_t low, int64_t high,
                              int64_t block)
{
    struct reduce_node node[MOST_TOP_NODES];
    struct range *range;
    collective_begins();
    if (low < 0 || high < low || block < 1)
        return status_fail(STATUS_ARG, "elements [%lld, %lld) in blocks of %lld were to be reduced",
                           (long long)low, (long long)high, (long long)block);
    TRY(check_tree(tree, comm->size));
    TRY(take_slot(comm, &range));
    range->out = out;
    shard_range(low, high, block, comm->rank, comm->size, &range->begin, &range->end);
    TRY(find_sources(comm, tree, buffer, range));
    TRY(mem_grow(&range->addition, &range->addition_capacity, range->sources,
                 sizeof *range->addition, "additions of a reduction"));
    range->additions = 0;
    struct plan plan = {range, tree->leaves, 0};
    (void)plan_node(&plan, 0, root_span(tree->leaves), 0);

    /* Receives first, so that no message has to wait in MPI's own memory. */
    int tag = (int)(comm->ranges % TAG_RANGES) * MOST_TOP_NODES;
    int64_t length = range->end - range->begin;
    size_t k = 0;
    for (int r = 0; r < comm->size; r++) {
        int n = reduce_top_nodes(tree, r, node);
        for (int j = 0; r != comm->rank && j < n; j++)
            TRY(start_message(comm, NULL, range->source[k + (size_t)j].at, length, r, tag + j));
        k += (size_t)n;
    }
    int own = reduce_top_nodes(tree, comm->rank, node);
    for (int step = 1; step < comm->size; step++) { /* each rank begins with another owner */
        int64_t begin, end;
        int owner = (comm->rank + step) % comm->size;
        shard_range(low, high, block, owner, comm->size, &begin, &end);
        for (int j = 0; j < own; j++)
            TRY(start_message(comm, buffer[j] + begin, NULL, end - begin, owner, tag + j));
    }
    comm->ranges++;
    return STATUS_OK;
}

/* ---- moving and finishing ---- */

void comm_poke(struct comm *comm)
{
    int done = 0;
    if (comm->requests == 0 || comm->poke_status != STATUS_OK)
        return;
    comm->poke_status = mpi_status(MPI_Testsome((int)comm->requests, comm->request, &done,
                                                comm->completed, MPI_STATUSES_IGNORE),
                                   "MPI_Testsome");
    if (comm->poke_status != STATUS_OK) {
        size_t n = strnlen(status_message(), sizeof comm->poke_message - 1);
        memcpy(comm->poke_message, status_message(), n);
        comm->poke_message[n] = '\0';
        return;
    }
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

/* One chunk of the shard over the whole tree. */
static void sum_chunk(const struct range *range, int64_t at, int64_t n)
{
    _Alignas(64) float scratch[MOST_SCRATCH][CHUNK];
    for (size_t k = 0; k < range->additions; k++) {
        const struct addition *add = &range->addition[k];
        const float *left = add->left >= 0 ? range->source[add->left].at + at
                                           : scratch[-1 - add->left];
        const float *right = add->right >= 0 ? range->source[add->right].at + at
                                             : scratch[-1 - add->right];
        /* out may be a source: it is written last, when every source's chunk has been read. */
        float *to = k + 1 == range->additions ? range->out + range->begin + at
                                              : scratch[-1 - add->to];
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = left[i] + right[i];
    }
}

static void sum_range(const struct range *range)
{
    int64_t length = range->end - range->begin;
    float *out = range->out;
    if (length == 0)
        return;
    if (range->sources == 0) {
        memset(out + range->begin, 0, (size_t)length * sizeof *out);
    } else if (range->sources == 1) {
        if (range->source[0].at != out + range->begin)
            memcpy(out + range->begin, range->source[0].at, (size_t)length * sizeof *out);
    } else {
#pragma omp parallel for schedule(static) if (length >= PARALLEL_FLOATS)
        for (int64_t at = 0; at < length; at += CHUNK)
            sum_chunk(range, at, length - at < CHUNK ? length - at : CHUNK);
    }
}

enum status comm_reduce_wait(struct comm *comm)
{
    collective_begins();
    if (comm->poke_status != STATUS_OK)
        return status_fail(comm->poke_status, "%s", comm->poke_message);
    if (comm->requests > 0)
        TRY(mpi_status(MPI_Waitall((int)comm->requests, comm->request, MPI_STATUSES_IGNORE),
                       "MPI_Waitall"));
    comm->requests = 0;
    for (size_t k = 0; k < comm->ranges; k++)
        sum_range(&comm->range[k]);
    comm->ranges = 0;
    return STATUS_OK;
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
    int64_t begin, end;
    collective_begins();
    if (low < 0 || high < low || high - low > INT_MAX || block < 1)
        return status_fail(STATUS_ARG,
                           "shards of [%lld, %lld) in blocks of %lld: wanted up to %d elements, "
                           "blocks of 1 and up",
                           (long long)low, (long long)high, (long long)block, INT_MAX);
    if (comm->size == 1)
        return STATUS_OK;
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
    for (int r = 0; r < comm->size; r++) {
        comm->place[r] = r;
        comm->count[r] = 1;
    }
    TRY(comm_reduce_start(comm, &tree, &buffer, buffer, low, high, block));
    return comm_reduce_wait(comm);
}

enum status reduce_prepare(struct comm *comm)
{
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
