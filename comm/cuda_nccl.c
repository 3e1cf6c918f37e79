/*
 * cuda_nccl.c - NCCL between the GPUs of a group.
 *
 * Ordered sums use NCCL to move bytes only: a rank's slices go to the shard's owner by grouped
 * sends and receives, and the owner adds them in tree order (cuda_sum.cu). NCCL's own reductions
 * are used where bits may depend on the number of ranks.
 *
 * The communicator is non-blocking: NCCL then connects ranks in a thread of its own and the host
 * polls, with a limit, so a rank that is gone while others connect gives a sentence and not a hang.
 * What it costs is a short-lived thread for each group of calls; nothing waits for the messages.
 *
 * The library is loaded by name (base/cuda_library.h). It may be older or newer than the header:
 * the header's version is in the configuration that ncclCommInitRankConfig() is given.
 */
#include <stdio.h>
#include <string.h>

#include "base/cuda_library.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/cuda_transport.h"

#define NCCL_FUNCTIONS(X)                                                                          \
    X(ncclGetUniqueId)                                                                             \
    X(ncclCommInitRankConfig)                                                                      \
    X(ncclCommFinalize)                                                                            \
    X(ncclCommDestroy)                                                                             \
    X(ncclCommAbort)                                                                               \
    X(ncclCommGetAsyncError)                                                                       \
    X(ncclGetErrorString)                                                                          \
    X(ncclGetLastError)                                                                            \
    X(ncclGroupStart)                                                                              \
    X(ncclGroupEnd)                                                                                \
    X(ncclSend)                                                                                    \
    X(ncclRecv)                                                                                    \
    X(ncclBroadcast)                                                                               \
    X(ncclReduce)                                                                                  \
    X(ncclAllGather)                                                                               \
    X(ncclReduceScatter)

static struct {
    bool loaded;
#define NCCL_POINTER(name) __typeof__(&name) name;
    NCCL_FUNCTIONS(NCCL_POINTER)
#undef NCCL_POINTER
} nccl;

enum status cuda_nccl_load(void)
{
    if (nccl.loaded)
        return STATUS_OK;
    TRY(cuda_library_open(CUDA_LIBRARY_NCCL));
#define NCCL_LOAD(name) TRY(cuda_library_function(CUDA_LIBRARY_NCCL, #name, &nccl.name));
    NCCL_FUNCTIONS(NCCL_LOAD)
#undef NCCL_LOAD
    nccl.loaded = true;
    return STATUS_OK;
}

/* ---- what NCCL says ---- */

static enum status nccl_status(struct cuda_transport *cuda, ncclResult_t code, const char *what)
{
    if (code == ncclSuccess || code == ncclInProgress)
        return STATUS_OK;
    const char *more = cuda->nccl != NULL ? nccl.ncclGetLastError(cuda->nccl) : NULL;
    bool says = more != NULL && more[0] != '\0';
    return status_fail(STATUS_OS, "NCCL: %s: %s%s%.300s%s", what, nccl.ncclGetErrorString(code),
                       says ? " (" : "", says ? more : "", says ? ")" : "");
}

/* Wait until the communicator has done what it was told last: NCCL has then queued its work. */
static enum status nccl_done(struct comm *comm, ncclResult_t code, const char *what)
{
    struct cuda_transport *cuda = comm->cuda;
    int turns = 0;
    for (double begin = clock_s(); code == ncclInProgress;) {
        ncclResult_t asked = nccl.ncclCommGetAsyncError(cuda->nccl, &code);
        if (asked != ncclSuccess)
            code = asked;
        if (code == ncclInProgress && clock_s() - begin > cuda->limit_s)
            return status_fail(STATUS_OS, "NCCL: %s: other ranks have not answered within %g s",
                               what, cuda->limit_s);
        if (code == ncclInProgress) {
            TRY(cuda_news(comm, turns));
            cuda_pause(&turns);
        }
    }
    return nccl_status(cuda, code, what);
}

/* As nccl_done, for calls of a group that is in use. */
static enum status nccl_queued(struct comm *comm, ncclResult_t code, const char *what)
{
    bool others = code == ncclInProgress || code == ncclRemoteError || code == ncclSystemError;
    enum status st = nccl_done(comm, code, what);
    /* Where a call was refused for what it asked, the other ranks may be far from waiting. */
    return st == STATUS_OK ? st : cuda_lose(comm, st, others);
}

enum status cuda_nccl_state(struct cuda_transport *cuda)
{
    ncclResult_t code = ncclSuccess;
    if (cuda->nccl == NULL)
        return STATUS_OK;
    ncclResult_t asked = nccl.ncclCommGetAsyncError(cuda->nccl, &code);
    return nccl_status(cuda, asked != ncclSuccess ? asked : code, "a message between GPUs");
}

static enum status check_alive(const struct comm *comm)
{
    return comm->lost ? status_fail(STATUS_OS, "messages between GPUs have failed before")
                      : STATUS_OK;
}

/* ---- the communicator ---- */

enum status cuda_nccl_open(struct comm *comm)
{
    struct cuda_transport *cuda = comm->cuda;
    ncclUniqueId id = {{0}};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    enum status st = STATUS_OK;
    if (comm->rank == 0)
        st = nccl_status(cuda, nccl.ncclGetUniqueId(&id), "ncclGetUniqueId");
    TRY(comm_agree(comm, st));
    TRY(comm_broadcast(comm, &id, (int64_t)sizeof id, 0));
    config.blocking = 0;
    ncclResult_t code =
        nccl.ncclCommInitRankConfig(&cuda->nccl, comm->size, id, comm->rank, &config);
    if (code != ncclSuccess && code != ncclInProgress) {
        st = nccl_status(cuda, code, "ncclCommInitRankConfig");
        cuda->nccl = NULL;
    } else {
        st = nccl_done(comm, ncclInProgress, "ncclCommInitRankConfig");
    }
    st = comm_agree(comm, st);
    if (st != STATUS_OK)
        cuda_nccl_close(comm, false);
    return st;
}

void cuda_nccl_close(struct comm *comm, bool orderly)
{
    struct cuda_transport *cuda = comm->cuda;
    char kept[1024];
    if (cuda->nccl == NULL)
        return;
    (void)snprintf(kept, sizeof kept, "%.*s", (int)sizeof kept - 1, status_message());
    if (orderly &&
        nccl_done(comm, nccl.ncclCommFinalize(cuda->nccl), "ncclCommFinalize") == STATUS_OK)
        (void)nccl.ncclCommDestroy(cuda->nccl);
    else
        (void)nccl.ncclCommAbort(cuda->nccl);
    cuda->nccl = NULL;
    (void)status_fail(STATUS_OS, "%s", kept); /* what failed first stays the last sentence */
}

/* ---- ordered sums ---- */

/* Room for other ranks' slices, and where each source is. */
static enum status place_sources(struct comm *comm, struct range *range, float *const *buffer)
{
    size_t length = (size_t)(range->end - range->begin), foreign = 0;
    for (size_t k = 0; k < range->sources; k++) {
        struct source *source = &range->source[k];
        if (source->rank == comm->rank)
            source->at = buffer[source->node] + range->begin;
        else
            foreign++;
    }
    TRY(cuda_range_room(comm, range, foreign * length));
    float *staged = range->cuda->staging;
    for (size_t k = 0; k < range->sources && length > 0; k++) {
        if (range->source[k].rank == comm->rank)
            continue;
        range->source[k].at = staged;
        staged += length;
    }
    return STATUS_OK;
}

/* Own slices to their owners, and others' slices here, as one group: between two ranks, messages
 * meet in the order of the nodes. */
static ncclResult_t exchange(struct comm *comm, const struct range *range, float *const *buffer)
{
    struct cuda_transport *cuda = comm->cuda;
    size_t length = (size_t)(range->end - range->begin);
    ncclResult_t code = nccl.ncclGroupStart(), ended;
    if (code != ncclSuccess)
        return code;
    for (size_t k = 0; k < range->sources && length > 0; k++) {
        const struct source *source = &range->source[k];
        if (source->rank != comm->rank && (code == ncclSuccess || code == ncclInProgress))
            code = nccl.ncclRecv(source->at, length, ncclFloat, source->rank, cuda->nccl,
                                 cuda->stream);
    }
    for (int step = 1; step < comm->size; step++) {
        int64_t begin, end;
        int owner = (comm->rank + step) % comm->size;
        shard_range(range->low, range->high, range->block, owner, comm->size, &begin, &end);
        for (size_t k = 0; k < range->sources && end > begin; k++) {
            const struct source *source = &range->source[k];
            if (source->rank == comm->rank && (code == ncclSuccess || code == ncclInProgress))
                code = nccl.ncclSend(buffer[source->node] + begin, (size_t)(end - begin), ncclFloat,
                                     owner, cuda->nccl, cuda->stream);
        }
    }
    ended = nccl.ncclGroupEnd(); /* also after a failure: a group must not stay open */
    return code == ncclSuccess || code == ncclInProgress ? ended : code;
}

enum status cuda_nccl_start(struct comm *comm, struct range *range, float *const *buffer)
{
    TRY(check_alive(comm));
    TRY(cuda_fails(comm, cuda_range_make(range)));
    TRY(cuda_fails(comm, place_sources(comm, range, buffer)));
    /* Also behind what device_alloc() has cleared there. */
    TRY(cuda_fails(comm, cuda_follow_compute(comm->cuda)));
    if (comm->size > 1)
        TRY(nccl_queued(comm, exchange(comm, range, buffer), "sending and receiving sums"));
    return cuda_fails(comm, cuda_range_sum(comm->cuda, range));
}

enum status cuda_nccl_wait(struct comm *comm)
{
    TRY(check_alive(comm));
    return cuda_fails(comm, cuda_lead_compute(comm->cuda));
}

static void nccl_poke(struct comm *comm)
{
    (void)comm; /* NCCL moves by itself */
}

/* ---- shards ---- */

/* Whether the shards of [low, high) are of one length, as NCCL's whole collectives want them. */
static bool equal_shards(const struct comm *comm, int64_t low, int64_t high, int64_t block)
{
    int64_t begin, end;
    for (int r = 0; r < comm->size; r++) {
        shard_range(low, high, block, r, comm->size, &begin, &end);
        if ((end - begin) * comm->size != high - low)
            return false;
    }
    return true;
}

static enum status nccl_gather(struct comm *comm, float *flat, int64_t low, int64_t high,
                               int64_t block)
{
    struct cuda_transport *cuda = comm->cuda;
    int64_t begin, end;
    ncclResult_t code;
    TRY(check_alive(comm));
    if (high == low)
        return STATUS_OK;
    TRY(cuda_fails(comm, cuda_follow_compute(cuda)));
    if (equal_shards(comm, low, high, block)) {
        shard_range(low, high, block, comm->rank, comm->size, &begin, &end);
        code = nccl.ncclAllGather(flat + begin, flat + low, (size_t)(end - begin), ncclFloat,
                                  cuda->nccl, cuda->stream);
    } else {
        ncclResult_t ended;
        code = nccl.ncclGroupStart();
        for (int r = 0; r < comm->size && (code == ncclSuccess || code == ncclInProgress); r++) {
            shard_range(low, high, block, r, comm->size, &begin, &end);
            if (end > begin)
                code = nccl.ncclBroadcast(flat + begin, flat + begin, (size_t)(end - begin),
                                          ncclFloat, r, cuda->nccl, cuda->stream);
        }
        ended = nccl.ncclGroupEnd();
        if (code == ncclSuccess || code == ncclInProgress)
            code = ended;
    }
    TRY(nccl_queued(comm, code, "gathering shards"));
    return cuda_fails(comm, cuda_lead_compute(cuda));
}

static enum status nccl_any_order(struct comm *comm, float *buffer, int64_t low, int64_t high,
                                  int64_t block)
{
    struct cuda_transport *cuda = comm->cuda;
    int64_t begin, end;
    ncclResult_t code;
    TRY(check_alive(comm));
    if (high == low)
        return STATUS_OK;
    TRY(cuda_fails(comm, cuda_follow_compute(cuda)));
    if (equal_shards(comm, low, high, block)) {
        shard_range(low, high, block, comm->rank, comm->size, &begin, &end);
        code = nccl.ncclReduceScatter(buffer + low, buffer + begin, (size_t)(end - begin),
                                      ncclFloat, ncclSum, cuda->nccl, cuda->stream);
    } else {
        ncclResult_t ended;
        code = nccl.ncclGroupStart();
        for (int r = 0; r < comm->size && (code == ncclSuccess || code == ncclInProgress); r++) {
            shard_range(low, high, block, r, comm->size, &begin, &end);
            if (end > begin)
                code = nccl.ncclReduce(buffer + begin, buffer + begin, (size_t)(end - begin),
                                       ncclFloat, ncclSum, r, cuda->nccl, cuda->stream);
        }
        ended = nccl.ncclGroupEnd();
        if (code == ncclSuccess || code == ncclInProgress)
            code = ended;
    }
    return nccl_queued(comm, code, "summing over ranks");
}

const struct transport cuda_nccl_transport = {
    .name = "nccl",
    .start = cuda_nccl_start,
    .poke = nccl_poke,
    .wait = cuda_nccl_wait,
    .gather = nccl_gather,
    .any_order = nccl_any_order,
    .settle = cuda_settle,
    .give_up = cuda_give_up,
    .close = cuda_close,
};
