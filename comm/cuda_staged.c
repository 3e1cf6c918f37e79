/*
 * cuda_staged.c - GPUs without NCCL: through pinned host memory and MPI.
 *
 * For several ranks on one GPU, for machines without NCCL, and as a second opinion. MPI never sees
 * a device pointer: Debian's Open MPI cannot read one. A reduction's slices are copied to the host
 * behind the compute stream's work; comm_poke() and comm_reduce_wait() see the copy done and start
 * MPI's messages; the owner sums on the host, in the same code as a CPU run, and copies the sum
 * back.
 *
 * Pinned memory of a slot: this rank's nodes, [low, high) of each, then its shard's sum. The comm
 * stream orders the copies of one step behind those of the step before; the host writes there only
 * behind `taken`.
 *
 * Where a copy fails (as every call does on a GPU that has failed), this rank's messages go on with
 * whatever is in that memory, since other ranks wait for them in MPI; the call then says what
 * failed.
 */
#include <stdio.h>

#include "base/mem.h"
#include "comm/cuda_transport.h"

#define GATHER_FLOATS ((int64_t)4 << 20) /* all ranks together */
#define LEAST_PIECE 1024

enum status cuda_staged_open(struct comm *comm)
{
    struct cuda_transport *cuda = comm->cuda;
    cuda->gather_piece = GATHER_FLOATS / comm->size;
    if (cuda->gather_piece < LEAST_PIECE)
        cuda->gather_piece = LEAST_PIECE;
    TRY(device_cuda_host_alloc(cuda->device,
                               (size_t)comm->size * (size_t)cuda->gather_piece * sizeof(float),
                               "shards on their way", &cuda->gather));
    return cuda_status(cudaEventCreateWithFlags(&cuda->gather_ready, cudaEventDisableTiming),
                       "making an event");
}

void cuda_staged_close(struct cuda_transport *cuda)
{
    device_cuda_host_free(cuda->device, cuda->gather);
    if (cuda->gather_ready != NULL)
        (void)cudaEventDestroy(cuda->gather_ready);
}

/* Keep the first failure. */
static void keep(struct cuda_transport *cuda, enum status st)
{
    if (st == STATUS_OK || cuda->failed != STATUS_OK)
        return;
    cuda->failed = st;
    (void)snprintf(cuda->why, sizeof cuda->why, "%s", status_message());
}

static enum status copies_end(const struct cuda_transport *cuda)
{
    return cuda->failed == STATUS_OK ? STATUS_OK : status_fail(cuda->failed, "%s", cuda->why);
}

/* ---- sums ---- */

static enum status pinned_room(struct cuda_transport *cuda, struct cuda_range *kept, size_t floats)
{
    if (floats <= kept->pinned_floats)
        return STATUS_OK;
    if (kept->pinned != NULL) /* an earlier sum may still be read from there */
        TRY(cuda_status(cudaStreamSynchronize(cuda->stream), "waiting for an earlier copy"));
    device_cuda_host_free(cuda->device, kept->pinned);
    kept->pinned = NULL;
    kept->pinned_floats = 0;
    TRY(device_cuda_host_alloc(cuda->device, floats * sizeof(float), "sums on their way",
                               &kept->pinned));
    kept->pinned_floats = floats;
    return STATUS_OK;
}

/* This rank's nodes in pinned memory, elements from range->low on; returns how many. */
static int slices_of(const struct comm *comm, const struct range *range, float **slice)
{
    int n = 0;
    for (size_t k = 0; k < range->sources; k++) {
        if (range->source[k].rank == comm->rank) {
            slice[n] = range->cuda->pinned + n * (range->high - range->low);
            n++;
        }
    }
    return n;
}

static enum status staged_start(struct comm *comm, struct range *range, float *const *buffer)
{
    struct cuda_transport *cuda = comm->cuda;
    float *slice[MOST_TOP_NODES];
    size_t width = (size_t)(range->high - range->low), length = (size_t)(range->end - range->begin);
    int own = 0;
    for (size_t k = 0; k < range->sources; k++)
        own += range->source[k].rank == comm->rank;
    TRY(cuda_range_make(range));
    TRY(pinned_room(cuda, range->cuda, (size_t)own * width + length));
    (void)slices_of(comm, range, slice);
    for (size_t k = 0; k < range->sources; k++) {
        struct source *source = &range->source[k];
        if (source->rank == comm->rank)
            source->at = slice[source->node] + (range->begin - range->low);
    }
    TRY(cuda_follow_compute(cuda));
    for (int k = 0; k < own && width > 0; k++)
        TRY(cuda_status(cudaMemcpyAsync(slice[k], buffer[k] + range->low, width * sizeof(float),
                                        cudaMemcpyDeviceToHost, cuda->stream),
                        "copying sums to the host"));
    TRY(cuda_status(cudaEventRecord(range->cuda->taken, cuda->stream), "copying sums to the host"));
    range->cuda->sent = false;
    return reduce_receives(comm, range);
}

/* Start the messages of ranges whose slices have arrived on the host. *waits: some have not. */
static enum status send_ready(struct comm *comm, bool *waits)
{
    float *slice[MOST_TOP_NODES];
    *waits = false;
    for (size_t k = 0; k < comm->ranges; k++) {
        struct range *range = &comm->range[k];
        if (range->cuda->sent)
            continue;
        cudaError_t code = cudaEventQuery(range->cuda->taken);
        if (code == cudaErrorNotReady) {
            (void)cudaGetLastError(); /* no error that a later launch should find */
            *waits = true;
            return STATUS_OK; /* later ranges are behind this one */
        }
        keep(comm->cuda, cuda_status(code, "copying sums to the host"));
        (void)slices_of(comm, range, slice);
        TRY(reduce_sends(comm, range, slice, range->low));
        range->cuda->sent = true;
    }
    return STATUS_OK;
}

static void staged_poke(struct comm *comm)
{
    bool waits;
    if (comm->poke_status == STATUS_OK)
        reduce_keep(comm, send_ready(comm, &waits));
    reduce_poke(comm);
}

static enum status staged_wait(struct comm *comm)
{
    struct cuda_transport *cuda = comm->cuda;
    float *slice[MOST_TOP_NODES];
    int turns = 0;
    for (bool waits = true; waits;) {
        TRY(send_ready(comm, &waits));
        reduce_poke(comm);
        if (waits)
            cuda_pause(&turns);
    }
    TRY(reduce_messages_end(comm));
    for (size_t k = 0; k < comm->ranges; k++) {
        struct range *range = &comm->range[k];
        int64_t length = range->end - range->begin;
        float *sum = range->cuda->pinned +
                     slices_of(comm, range, slice) * (range->high - range->low);
        if (length == 0)
            continue;
        reduce_sum(range, sum);
        keep(cuda, cuda_status(cudaMemcpyAsync(range->out + range->begin, sum,
                                               (size_t)length * sizeof(float),
                                               cudaMemcpyHostToDevice, cuda->stream),
                               "copying sums to the GPU"));
    }
    TRY(copies_end(cuda));
    return cuda_lead_compute(cuda);
}

/* ---- shards ---- */

/* Elements [*first, *last) of rank's shard that travel in the piece that begins at its element
 * `at`. */
static void piece_of(const struct comm *comm, int64_t low, int64_t high, int64_t block, int rank,
                     int64_t at, int64_t *first, int64_t *last)
{
    int64_t begin, end;
    shard_range(low, high, block, rank, comm->size, &begin, &end);
    *first = begin + at < end ? begin + at : end;
    *last = *first + comm->cuda->gather_piece < end ? *first + comm->cuda->gather_piece : end;
}

static enum status staged_gather(struct comm *comm, float *flat, int64_t low, int64_t high,
                                 int64_t block)
{
    struct cuda_transport *cuda = comm->cuda;
    int64_t piece = cuda->gather_piece, first, last, longest = 0;
    for (int r = 0; r < comm->size; r++) {
        shard_range(low, high, block, r, comm->size, &first, &last);
        longest = last - first > longest ? last - first : longest;
    }
    keep(cuda, cuda_follow_compute(cuda));
    for (int64_t at = 0; at < longest; at += piece) {
        for (int r = 0; r < comm->size; r++) {
            piece_of(comm, low, high, block, r, at, &first, &last);
            comm->count[r] = (int)(last - first);
            comm->place[r] = (int)(r * piece);
        }
        piece_of(comm, low, high, block, comm->rank, at, &first, &last);
        if (last > first)
            keep(cuda, cuda_status(cudaMemcpyAsync(cuda->gather + comm->rank * piece, flat + first,
                                                   (size_t)(last - first) * sizeof(float),
                                                   cudaMemcpyDeviceToHost, cuda->stream),
                                   "copying shards to the host"));
        /* Also behind the copies from this memory, a piece or a gathering ago. */
        keep(cuda, cuda_status(cudaEventRecord(cuda->gather_ready, cuda->stream),
                               "copying shards to the host"));
        keep(cuda,
             cuda_status(cudaEventSynchronize(cuda->gather_ready), "copying shards to the host"));
        TRY(mpi_status(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, cuda->gather, comm->count,
                                      comm->place, MPI_FLOAT, comm->mpi),
                       "MPI_Allgatherv"));
        for (int r = 0; r < comm->size; r++) {
            piece_of(comm, low, high, block, r, at, &first, &last);
            if (r != comm->rank && last > first)
                keep(cuda, cuda_status(cudaMemcpyAsync(flat + first, cuda->gather + r * piece,
                                                       (size_t)(last - first) * sizeof(float),
                                                       cudaMemcpyHostToDevice, cuda->stream),
                                       "copying shards to the GPU"));
        }
    }
    TRY(copies_end(cuda));
    return cuda_lead_compute(cuda);
}

const struct transport cuda_staged_transport = {
    .name = "mpi, host-staged",
    .start = staged_start,
    .poke = staged_poke,
    .wait = staged_wait,
    .gather = staged_gather,
    .settle = cuda_settle,
    .give_up = cuda_give_up,
    .close = cuda_close,
};
