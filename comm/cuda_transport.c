/*
 * cuda_transport.c - see cuda_transport.h.
 *
 * Waits. A GPU that waits for another rank's message waits for ever when that rank is gone, and a
 * process that then synchronizes with its GPU hangs in the driver. So the host looks at the stream
 * instead, at NCCL's errors, at news from other ranks and at the clock; when messages do not end it
 * aborts NCCL, which frees the GPU, tells the other ranks over MPI why, and asks who is still
 * there.
 */
#include "comm/cuda_transport.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/cuda_sum.h"

#define START_LIMIT_S 120.0 /* until comm_settle() has named another limit */
#define CLOSE_LIMIT_S 5.0
#define ANSWER_LIMIT_S 5.0
#define NEWS_TAG 32766     /* reductions' tags stay below, collect.c has the next */
#define PATIENT_TURNS 1000 /* of a wait, before it is a long one */
#define MOST_NAMED 4

/* ---- order ---- */

enum status cuda_follow_compute(struct cuda_transport *cuda)
{
    TRY(cuda_status(cudaEventRecord(cuda->computed, cuda->compute), "ordering messages"));
    return cuda_status(cudaStreamWaitEvent(cuda->stream, cuda->computed, 0), "ordering messages");
}

enum status cuda_lead_compute(struct cuda_transport *cuda)
{
    TRY(cuda_status(cudaEventRecord(cuda->moved, cuda->stream), "ordering messages"));
    return cuda_status(cudaStreamWaitEvent(cuda->compute, cuda->moved, 0), "ordering messages");
}

void cuda_pause(int *turns)
{
    if (++*turns < PATIENT_TURNS)
        (void)sched_yield();
    else
        (void)usleep(20);
}

/* ---- sums ---- */

enum status cuda_range_make(struct range *range)
{
    if (range->cuda == NULL)
        TRY(mem_alloc(1, sizeof *range->cuda, "a reduction under way", &range->cuda));
    cudaEvent_t *event[] = {&range->cuda->list_read, &range->cuda->taken};
    for (size_t k = 0; k < sizeof event / sizeof event[0]; k++) {
        if (*event[k] == NULL)
            TRY(cuda_status(cudaEventCreateWithFlags(event[k], cudaEventDisableTiming),
                            "making an event"));
    }
    return STATUS_OK;
}

static void range_release(struct device *device, struct range *range)
{
    struct cuda_range *cuda = range->cuda;
    if (cuda == NULL)
        return;
    device_free(device, cuda->staging);
    device_free(device, cuda->list);
    device_cuda_host_free(device, cuda->list_pinned);
    device_cuda_host_free(device, cuda->pinned);
    mem_free(cuda->list_fresh);
    if (cuda->list_read != NULL)
        (void)cudaEventDestroy(cuda->list_read);
    if (cuda->taken != NULL)
        (void)cudaEventDestroy(cuda->taken);
    mem_free(cuda);
    range->cuda = NULL;
}

static size_t list_bytes(const struct range *range)
{
    return range->sources * sizeof(float *) + range->additions * sizeof *range->addition;
}

enum status cuda_range_room(struct comm *comm, struct range *range, size_t staging_floats)
{
    struct cuda_transport *cuda = comm->cuda;
    struct cuda_range *kept = range->cuda;
    size_t bytes = list_bytes(range);
    bool longer = bytes > kept->list_capacity, wider = staging_floats > kept->staging_floats;
    /* Freeing waits for the device; a wait with a limit first. */
    if ((longer && kept->list != NULL) || (wider && kept->staging != NULL))
        TRY(cuda_settle(comm, cuda->limit_s));
    if (longer) {
        device_free(cuda->device, kept->list);
        device_cuda_host_free(cuda->device, kept->list_pinned);
        mem_free(kept->list_fresh);
        kept->list = NULL;
        kept->list_pinned = kept->list_fresh = NULL;
        kept->list_capacity = kept->list_bytes = 0;
        TRY(device_alloc(cuda->device, bytes, "the order of a sum", &kept->list));
        TRY(device_cuda_host_alloc(cuda->device, bytes, "the order of a sum", &kept->list_pinned));
        TRY(mem_alloc_raw(bytes, 1, "the order of a sum", &kept->list_fresh));
        kept->list_capacity = bytes;
    }
    if (wider) {
        device_free(cuda->device, kept->staging);
        kept->staging = NULL;
        kept->staging_floats = 0;
        TRY(device_alloc(cuda->device, staging_floats * sizeof(float),
                         "slices of other ranks' sums", &kept->staging));
        kept->staging_floats = staging_floats;
    }
    return STATUS_OK;
}

/* The list in device memory. Most steps sum as the step before did: then it is there already. */
static enum status send_list(struct cuda_transport *cuda, const struct range *range)
{
    struct cuda_range *kept = range->cuda;
    size_t addresses = range->sources * sizeof(float *), bytes = list_bytes(range);
    for (size_t k = 0; k < range->sources; k++)
        memcpy(kept->list_fresh + k * sizeof(float *), &range->source[k].at, sizeof(float *));
    memcpy(kept->list_fresh + addresses, range->addition, bytes - addresses);
    if (bytes == kept->list_bytes && memcmp(kept->list_fresh, kept->list_pinned, bytes) == 0)
        return STATUS_OK;
    /* A copy that was queued may not have read the pinned memory yet. */
    TRY(cuda_status(cudaEventSynchronize(kept->list_read), "sending the order of a sum"));
    memcpy(kept->list_pinned, kept->list_fresh, bytes);
    kept->list_bytes = bytes;
    TRY(cuda_status(
        cudaMemcpyAsync(kept->list, kept->list_pinned, bytes, cudaMemcpyHostToDevice, cuda->stream),
        "sending the order of a sum"));
    return cuda_status(cudaEventRecord(kept->list_read, cuda->stream),
                       "sending the order of a sum");
}

enum status cuda_range_sum(struct cuda_transport *cuda, struct range *range)
{
    int64_t length = range->end - range->begin;
    float *to = range->out + range->begin;
    if (length == 0)
        return STATUS_OK;
    if (range->sources == 0)
        return cuda_status(cudaMemsetAsync(to, 0, (size_t)length * sizeof *to, cuda->stream),
                           "clearing a sum of nothing");
    if (range->sources == 1) {
        if (range->source[0].at == to)
            return STATUS_OK;
        return cuda_status(cudaMemcpyAsync(to, range->source[0].at, (size_t)length * sizeof *to,
                                           cudaMemcpyDeviceToDevice, cuda->stream),
                           "copying a sum");
    }
    TRY(send_list(cuda, range));
    const char *list = range->cuda->list;
    return cuda_tree_sum(
        (const float *const *)(const void *)list,
        (const struct addition *)(const void *)(list + range->sources * sizeof(float *)),
        (int)range->additions, range->scratch, to, length, cuda->stream);
}

/* ---- messages that do not end ---- */

/* What a rank that has lost its messages tells each other rank of the group, once. */
struct news {
    int status;
    int named; /* why names its rank already: it was news to the sender, too */
    int asks;  /* nobody knows yet which rank is at fault */
    char why[512];
};

static void tell(struct comm *comm, enum status st, const char *why, bool asks)
{
    static struct news news; /* outlives the call: a rank that is gone never takes it */
    MPI_Request ignored;
    news.status = (int)st;
    news.named = comm->cuda->told;
    news.asks = asks;
    (void)snprintf(news.why, sizeof news.why, "%s", why);
    for (int r = 0; r < comm->size; r++) {
        if (r != comm->rank && (MPI_Isend(&news, (int)sizeof news, MPI_BYTE, r, NEWS_TAG, comm->mpi,
                                          &ignored) != MPI_SUCCESS ||
                                MPI_Request_free(&ignored) != MPI_SUCCESS))
            return; /* MPI is broken, too */
    }
}

enum status cuda_news(struct comm *comm, int turns)
{
    struct news news;
    MPI_Status from;
    int there = 0;
    if (comm->size == 1 || turns < PATIENT_TURNS ||
        MPI_Iprobe(MPI_ANY_SOURCE, NEWS_TAG, comm->mpi, &there, &from) != MPI_SUCCESS || !there ||
        MPI_Recv(&news, (int)sizeof news, MPI_BYTE, from.MPI_SOURCE, NEWS_TAG, comm->mpi,
                 MPI_STATUS_IGNORE) != MPI_SUCCESS)
        return STATUS_OK;
    comm->cuda->told = true;
    comm->cuda->told_asks = news.asks != 0;
    if (news.named)
        (void)status_fail((enum status)news.status, "%.*s", (int)sizeof news.why - 1, news.why);
    else
        (void)status_fail((enum status)news.status, "rank %d: %.*s",
                          comm->cuda->peer[from.MPI_SOURCE].world_rank, (int)sizeof news.why - 1,
                          news.why);
    sentence_adopt();
    return (enum status)news.status;
}

/*
 * Who of the group answers within ANSWER_LIMIT_S, as "; rank 3 (host b) does not answer": an answer
 * is the news of a rank that has lost its messages, too. A rank that is not waiting for one now
 * does not answer either.
 */
static void roll_call(struct comm *comm, char *text, size_t bytes)
{
    struct cuda_transport *cuda = comm->cuda;
    MPI_Request *answer = NULL;
    struct news *word = NULL;
    int missing = comm->size - 1, named = 0, turns = 0;
    size_t used = 0;
    text[0] = '\0';
    if (mem_alloc((size_t)comm->size, sizeof *answer, "answers", &answer) != STATUS_OK ||
        mem_alloc((size_t)comm->size, sizeof *word, "answers", &word) != STATUS_OK)
        return;
    for (int r = 0; r < comm->size; r++) {
        answer[r] = MPI_REQUEST_NULL;
        if (r == comm->rank)
            continue;
        if (MPI_Irecv(&word[r], (int)sizeof *word, MPI_BYTE, r, NEWS_TAG, comm->mpi, &answer[r]) !=
            MPI_SUCCESS)
            return; /* MPI is broken, too: nothing more can be said */
    }
    for (double begin = clock_s(); missing > 0 && clock_s() - begin < ANSWER_LIMIT_S;) {
        missing = 0;
        for (int r = 0; r < comm->size; r++) {
            int done = 1;
            if (answer[r] != MPI_REQUEST_NULL &&
                MPI_Test(&answer[r], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
                done = 0;
            missing += !done;
        }
        cuda_pause(&turns);
    }
    for (int r = 0; r < comm->size && used < bytes; r++) {
        if (answer[r] == MPI_REQUEST_NULL)
            continue;
        int n = named++ < MOST_NAMED
                    ? snprintf(text + used, bytes - used, "; rank %d (host %s) does not answer",
                               cuda->peer[r].world_rank, cuda->peer[r].host)
                    : snprintf(text + used, bytes - used, "; nor do others");
        used += n > 0 ? (size_t)n : 0;
        if (named > MOST_NAMED)
            break;
    }
    if (named == 0)
        (void)snprintf(text, bytes, "; all other ranks answer");
    /* answer and word are left: MPI may still write there, and the process ends. */
}

enum status cuda_lose(struct comm *comm, enum status st, bool ask)
{
    char why[512], who[384] = "";
    (void)snprintf(why, sizeof why, "%.*s", (int)sizeof why - 1, status_message());
    cuda_nccl_close(comm, false);
    comm->lost = true;
    ask = comm->cuda->told ? comm->cuda->told_asks : ask;
    tell(comm, st, why, ask);
    if (ask)
        roll_call(comm, who, sizeof who);
    (void)status_fail(st, "%s%s", why, who);
    if (comm->cuda->told) /* it still names the rank it began at */
        sentence_adopt();
    return st;
}

enum status cuda_fails(struct comm *comm, enum status st)
{
    return st == STATUS_OK || comm->cuda->nccl == NULL ? st : cuda_lose(comm, st, false);
}

void cuda_give_up(struct comm *comm)
{
    if (comm->cuda->nccl == NULL)
        return;
    cuda_nccl_close(comm, false);
    comm->lost = true;
}

enum status cuda_settle(struct comm *comm, double timeout_s)
{
    struct cuda_transport *cuda = comm->cuda;
    double begin = clock_s();
    int turns = 0;
    if (comm->lost)
        return status_fail(STATUS_OS, "messages between GPUs have failed before");
    if (timeout_s > 0)
        cuda->limit_s = timeout_s;
    for (;;) {
        cudaError_t code = cudaStreamQuery(cuda->stream);
        if (code == cudaSuccess)
            return STATUS_OK;
        if (code != cudaErrorNotReady)
            return cuda_fails(comm, cuda_status(code, "messages between GPUs"));
        (void)cudaGetLastError(); /* "not ready" is no error that a later launch should find */
        enum status st = cuda_nccl_state(cuda);
        if (st == STATUS_OK && cuda->nccl != NULL)
            st = cuda_news(comm, turns);
        if (st == STATUS_OK && timeout_s > 0 && clock_s() - begin > timeout_s)
            st = status_fail(STATUS_OS, "%smessages between GPUs have not ended within %g s",
                             cuda->nccl != NULL ? "NCCL: " : "", timeout_s);
        if (st != STATUS_OK)
            return cuda->nccl != NULL ? cuda_lose(comm, st, true) : st;
        cuda_pause(&turns);
    }
}

/* ---- opening and closing ---- */

static const struct transport alone_transport = {
    .start = cuda_nccl_start,
    .poke = reduce_poke,
    .wait = cuda_nccl_wait,
    .settle = cuda_settle,
    .give_up = cuda_give_up,
    .close = cuda_close,
};

static void copy_environment(char *to, size_t bytes, const char *name)
{
    const char *text = getenv(name);
    (void)snprintf(to, bytes, "%.*s", (int)bytes - 1, text == NULL ? "" : text);
}

/* What the kernel drew when it started: two nodes whose containers are named alike differ in it. */
static void read_boot_id(char *to, size_t bytes)
{
    char *text = NULL;
    size_t n = 0;
    to[0] = '\0';
    if (file_read("/proc/sys/kernel/random/boot_id", 256, &text, &n) == STATUS_OK)
        (void)snprintf(to, bytes, "%.*s", (int)bytes - 1, text);
    mem_free(text);
}

/* Every rank's place on every rank. */
static enum status meet(struct comm *comm)
{
    struct cuda_transport *cuda = comm->cuda;
    struct peer me = {.world_rank = comm->world_rank};
    char *all = NULL, sharing[8];
    int64_t *begin = NULL;
    if (gethostname(me.host, sizeof me.host - 1) != 0)
        (void)snprintf(me.host, sizeof me.host, "?");
    read_boot_id(me.boot, sizeof me.boot);
    (void)snprintf(me.place, sizeof me.place, "%s", device_place(cuda->device));
    copy_environment(me.host_id, sizeof me.host_id, "NCCL_HOSTID");
    copy_environment(sharing, sizeof sharing, "NCCL_MULTI_RANK_GPU_ENABLE");
    me.allows_sharing = sharing[0] != '\0' && strcmp(sharing, "0") != 0;
    enum status st =
        mem_alloc((size_t)comm->size + 1, sizeof *begin, "places of the ranks", &begin);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)comm->size, sizeof *cuda->peer, "places of the ranks", &cuda->peer);
    TRY_GOTO(out, comm_agree(comm, st));
    TRY_GOTO(out, comm_allgather(comm, &me, (int64_t)sizeof me, &all, begin));
    memcpy(cuda->peer, all, (size_t)comm->size * sizeof me);
out:
    mem_free(begin);
    mem_free(all);
    return st;
}

/* NCCL wants a GPU for each rank, unless it was told otherwise. The same on all ranks. */
static enum status check_places(struct comm *comm)
{
    for (int b = 0; b < comm->size; b++) {
        for (int a = 0; a < b; a++) {
            const struct peer *one = &comm->cuda->peer[a], *two = &comm->cuda->peer[b];
            if (strcmp(one->host, two->host) == 0 && strcmp(one->boot, two->boot) == 0 &&
                strcmp(one->place, two->place) == 0 && strcmp(one->host_id, two->host_id) == 0 &&
                !(one->allows_sharing && two->allows_sharing))
                return status_fail(STATUS_UNAVAILABLE,
                                   "ranks %d and %d both have GPU %s of host %s, and NCCL wants a "
                                   "GPU for each: start fewer ranks, or set "
                                   "parallel.transport=mpi",
                                   one->world_rank, two->world_rank, two->place, two->host);
        }
    }
    return STATUS_OK;
}

enum status cuda_transport_open(struct comm *comm, struct device *device,
                                enum comm_transport transport)
{
    struct cuda_transport *cuda = NULL;
    bool nccl = transport == COMM_NCCL && comm->size > 1;
    enum status st = mem_alloc(1, sizeof *cuda, "messages between GPUs", &cuda);
    if (st == STATUS_OK) {
        cuda->device = device;
        cuda->compute = device_cuda_stream(device, STREAM_COMPUTE);
        cuda->stream = device_cuda_stream(device, STREAM_COMM);
        cuda->limit_s = START_LIMIT_S;
        comm->cuda = cuda;
        st = cuda_status(cudaEventCreateWithFlags(&cuda->computed, cudaEventDisableTiming),
                         "making an event");
    }
    if (st == STATUS_OK)
        st = cuda_status(cudaEventCreateWithFlags(&cuda->moved, cudaEventDisableTiming),
                         "making an event");
    if (st == STATUS_OK && nccl) {
        st = cuda_nccl_load();
        if (st != STATUS_OK)
            st = status_prefix(st, "parallel.transport=nccl (mpi does without)");
    }
    TRY_GOTO(fail, comm_agree(comm, st));
    if (comm->size == 1) {
        comm->transport = &alone_transport;
        return STATUS_OK;
    }
    TRY_GOTO(fail, meet(comm));
    if (nccl) {
        TRY_GOTO(fail, check_places(comm));
        TRY_GOTO(fail, cuda_nccl_open(comm));
        comm->transport = &cuda_nccl_transport;
    } else {
        TRY_GOTO(fail, comm_agree(comm, cuda_staged_open(comm)));
        comm->transport = &cuda_staged_transport;
    }
    return STATUS_OK;
fail:
    cuda_close(comm);
    return st;
}

/* Whether the comm stream came to its end. */
static bool drained(struct cuda_transport *cuda)
{
    int turns = 0;
    cudaError_t code = cudaErrorNotReady;
    for (double begin = clock_s();
         code == cudaErrorNotReady && clock_s() - begin < CLOSE_LIMIT_S;) {
        code = cudaStreamQuery(cuda->stream);
        if (code != cudaSuccess)
            (void)cudaGetLastError();
        if (code == cudaErrorNotReady && cuda_nccl_state(cuda) != STATUS_OK)
            break;
        cuda_pause(&turns);
    }
    return code == cudaSuccess;
}

void cuda_close(struct comm *comm)
{
    struct cuda_transport *cuda = comm->cuda;
    if (cuda == NULL)
        return;
    bool ended = drained(cuda);
    cuda->limit_s = CLOSE_LIMIT_S;
    cuda_nccl_close(comm, ended && !comm->lost);
    if (!ended)
        ended = drained(cuda);          /* an abort frees the stream */
    if (ended && comm->requests == 0) { /* else a copy or MPI may still write there */
        for (size_t k = 0; k < comm->range_capacity; k++)
            range_release(cuda->device, &comm->range[k]);
        cuda_staged_close(cuda);
        if (cuda->computed != NULL)
            (void)cudaEventDestroy(cuda->computed);
        if (cuda->moved != NULL)
            (void)cudaEventDestroy(cuda->moved);
    }
    mem_free(cuda->peer);
    mem_free(cuda);
    comm->cuda = NULL;
}
