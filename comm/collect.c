/*
 * collect.c - agreement, broadcast, gathering, and exact sums and maxima.
 *
 * Memory that one rank alone may fail to get is agreed on before the bytes move, so that no rank
 * waits for another that has left.
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "comm/internal.h"

#define SENTENCE_BYTES 1024 /* as base/status.c keeps */
#define LARGE_TAG 32767     /* the largest that every MPI allows; reduce.c stays below */

/* The last sentence of this process that came from another rank: it names its rank already. */
static char adopted[SENTENCE_BYTES];

void sentence_adopt(void)
{
    (void)snprintf(adopted, sizeof adopted, "%s", status_message());
}

/*
 * Everyone learns the sentence of the lowest rank that has the worst status. Ranks that brought
 * this status themselves keep their own words.
 */
static enum status share_sentence(struct comm *comm, enum status mine, enum status worst)
{
    char text[SENTENCE_BYTES] = "";
    int from = mine == worst ? comm->rank : INT_MAX, lowest = 0;
    collective_begins();
    TRY(mpi_status(MPI_Allreduce(&from, &lowest, 1, MPI_INT, MPI_MIN, comm->mpi), "MPI_Allreduce"));
    if (lowest == comm->rank) {
        const char *own = status_message();
        int n = adopted[0] != '\0' && strcmp(own, adopted) == 0
                    ? snprintf(text, sizeof text, "%s", own)
                    : snprintf(text, sizeof text, "rank %d: %s", comm->world_rank, own);
        (void)n; /* a sentence cut at its end still says what failed */
    }
    collective_begins();
    TRY(mpi_status(MPI_Bcast(text, (int)sizeof text, MPI_CHAR, lowest, comm->mpi), "MPI_Bcast"));
    text[sizeof text - 1] = '\0';
    if (mine != worst) {
        (void)status_fail(worst, "%s", text);
        sentence_adopt();
    }
    return worst;
}

enum status comm_agree_flags(struct comm *comm, enum status mine, uint32_t *flags)
{
    /*
     * Status s is bit s and the statuses are ordered by severity, so one OR of one word carries the
     * worst status (its highest bit) and all flags: one small reduction per step, no user-defined
     * operation.
     */
    _Static_assert(STATUS_COUNT <= 32, "a status is one bit of 32");
    uint64_t word = (uint64_t)1 << mine | (uint64_t)*flags << 32;
    collective_begins();
    if (comm->size == 1)
        return mine;
    TRY(mpi_status(MPI_Allreduce(MPI_IN_PLACE, &word, 1, MPI_UINT64_T, MPI_BOR, comm->mpi),
                   "MPI_Allreduce"));
    *flags = (uint32_t)(word >> 32);
    enum status worst = (enum status)(31 - __builtin_clz((uint32_t)word));
    return worst == STATUS_OK ? STATUS_OK : share_sentence(comm, mine, worst);
}

enum status comm_agree(struct comm *comm, enum status mine)
{
    uint32_t none = 0;
    return comm_agree_flags(comm, mine, &none);
}

enum status comm_check_same(struct comm *comm, uint64_t hash, const char *what)
{
    uint64_t first = hash;
    enum status st = STATUS_OK;
    TRY(comm_broadcast(comm, &first, (int64_t)sizeof first, 0));
    if (hash != first)
        st = status_fail(STATUS_INTERNAL,
                         "%s is not the same on all ranks: hash %016llx here, %016llx on rank %d",
                         what, (unsigned long long)hash, (unsigned long long)first,
                         comm->world_rank - comm->rank);
    return comm_agree(comm, st);
}

enum status comm_barrier(struct comm *comm)
{
    collective_begins();
    return comm->size == 1 ? STATUS_OK : mpi_status(MPI_Barrier(comm->mpi), "MPI_Barrier");
}

enum status comm_wait(struct comm *comm, const char *phase)
{
    MPI_Request request;
    int done = 0;
    collective_begins();
    if (comm->size == 1)
        return STATUS_OK;
    TRY(mpi_status(MPI_Ibarrier(comm->mpi, &request), "MPI_Ibarrier"));
    while (!done) {
        comm_mark(-1, phase);
        TRY(mpi_status(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test"));
        if (!done)
            (void)usleep(2000); /* polls a condition that others bring about; it hides no race */
    }
    return STATUS_OK;
}

enum status comm_broadcast(struct comm *comm, void *bytes, int64_t n, int root)
{
    collective_begins();
    if (comm->size == 1)
        return STATUS_OK;
    for (int64_t at = 0; at < n; at += PIECE_BYTES) {
        int piece = (int)(n - at < PIECE_BYTES ? n - at : PIECE_BYTES);
        TRY(mpi_status(MPI_Bcast((char *)bytes + at, piece, MPI_BYTE, root, comm->mpi),
                       "MPI_Bcast"));
    }
    return STATUS_OK;
}

enum status comm_broadcast_blob(struct comm *comm, char **bytes, int64_t *n, int root)
{
    enum status st = STATUS_OK;
    bool receives = comm->rank != root;
    if (comm->size == 1)
        return STATUS_OK;
    if (receives)
        *bytes = NULL;
    TRY(comm_broadcast(comm, n, (int64_t)sizeof *n, root));
    if (*n < 0)
        return status_fail(STATUS_ARG, "a broadcast of %lld bytes was asked for", (long long)*n);
    if (receives)
        st = mem_alloc_raw((size_t)*n + 1, 1, "a broadcast", bytes);
    TRY_GOTO(fail, comm_agree(comm, st));
    TRY_GOTO(fail, comm_broadcast(comm, *bytes, *n, root));
    if (receives)
        (*bytes)[*n] = '\0';
    return STATUS_OK;
fail:
    if (receives) {
        mem_free(*bytes);
        *bytes = NULL;
    }
    return st;
}

/* Every rank's n as begin[size + 1]; the same STATUS_ARG everywhere if one is out of range. */
static enum status gather_begin(struct comm *comm, int64_t n, int64_t *begin)
{
    begin[0] = 0;
    begin[1] = n;
    collective_begins();
    if (comm->size > 1)
        TRY(mpi_status(MPI_Allgather(&n, 1, MPI_INT64_T, begin + 1, 1, MPI_INT64_T, comm->mpi),
                       "MPI_Allgather"));
    for (int r = 0; r < comm->size; r++) {
        if (begin[r + 1] < 0 || __builtin_add_overflow(begin[r], begin[r + 1], &begin[r + 1]))
            return status_fail(STATUS_ARG,
                               "rank %d brings a number of bytes out of range to a gathering", r);
    }
    return STATUS_OK;
}

/* The pieces of one rank's bytes to root, for totals that MPI's int displacements cannot reach. */
static enum status gather_large(struct comm *comm, const void *bytes, int root, char *all,
                                const int64_t *begin)
{
    for (int r = 0; r < comm->size; r++) {
        int64_t n = begin[r + 1] - begin[r];
        if (r == root && comm->rank == root && n > 0)
            memcpy(all + begin[r], bytes, (size_t)n);
        for (int64_t at = 0; r != root && at < n; at += PIECE_BYTES) {
            int piece = (int)(n - at < PIECE_BYTES ? n - at : PIECE_BYTES);
            if (comm->rank == r)
                TRY(mpi_status(
                    MPI_Send((const char *)bytes + at, piece, MPI_BYTE, root, LARGE_TAG, comm->mpi),
                    "MPI_Send"));
            if (comm->rank == root)
                TRY(mpi_status(MPI_Recv(all + begin[r] + at, piece, MPI_BYTE, r, LARGE_TAG,
                                        comm->mpi, MPI_STATUS_IGNORE),
                               "MPI_Recv"));
        }
    }
    return STATUS_OK;
}

/* Both gatherings: root < 0 means that all ranks get all. */
static enum status gather(struct comm *comm, const void *bytes, int64_t n, int root, char **out,
                          int64_t *begin)
{
    enum status st = STATUS_OK;
    char *all = NULL;
    int *counts = NULL, *displacements = NULL;
    bool receives = root < 0 || comm->rank == root;
    *out = NULL;
    TRY(gather_begin(comm, n, begin));
    int64_t total = begin[comm->size];
    bool small = total <= PIECE_BYTES;
    if (receives)
        st = mem_alloc_raw((size_t)total + 1, 1, "gathered bytes", &all);
    if (st == STATUS_OK && small)
        st = mem_alloc((size_t)comm->size, sizeof *counts, "counts of a gathering", &counts);
    if (st == STATUS_OK && small)
        st = mem_alloc((size_t)comm->size, sizeof *displacements, "places of a gathering",
                       &displacements);
    TRY_GOTO(out, comm_agree(comm, st));
    for (int r = 0; small && r < comm->size; r++) {
        counts[r] = (int)(begin[r + 1] - begin[r]);
        displacements[r] = (int)begin[r];
    }
    collective_begins();
    if (comm->size == 1) {
        if (n > 0)
            memcpy(all, bytes, (size_t)n);
    } else if (small && root < 0) {
        TRY_GOTO(out, mpi_status(MPI_Allgatherv(bytes, (int)n, MPI_BYTE, all, counts, displacements,
                                                MPI_BYTE, comm->mpi),
                                 "MPI_Allgatherv"));
    } else if (small) {
        TRY_GOTO(out, mpi_status(MPI_Gatherv(bytes, (int)n, MPI_BYTE, all, counts, displacements,
                                             MPI_BYTE, root, comm->mpi),
                                 "MPI_Gatherv"));
    } else if (root < 0) {
        if (n > 0)
            memcpy(all + begin[comm->rank], bytes, (size_t)n);
        for (int r = 0; r < comm->size; r++)
            TRY_GOTO(out, comm_broadcast(comm, all + begin[r], begin[r + 1] - begin[r], r));
    } else {
        TRY_GOTO(out, gather_large(comm, bytes, root, all, begin));
    }
    if (receives)
        all[total] = '\0';
    *out = all;
    all = NULL;
out:
    mem_free(displacements);
    mem_free(counts);
    mem_free(all);
    return st;
}

enum status comm_allgather(struct comm *comm, const void *bytes, int64_t n, char **all,
                           int64_t *begin)
{
    return gather(comm, bytes, n, -1, all, begin);
}

enum status comm_gather(struct comm *comm, const void *bytes, int64_t n, int root, char **all,
                        int64_t *begin)
{
    return gather(comm, bytes, n, root, all, begin);
}

enum status comm_sum_int64(struct comm *comm, int64_t *values, int count)
{
    collective_begins();
    if (comm->size == 1)
        return STATUS_OK;
    return mpi_status(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_INT64_T, MPI_SUM, comm->mpi),
                      "MPI_Allreduce");
}

/*
 * MPI_MAX of doubles says nothing about NaN and may differ with the order of ranks. Whole numbers
 * in the same order as the doubles have neither problem: negative ones have their lower bits turned
 * over, and NaN becomes the largest.
 */
static int64_t order_key(int64_t bits)
{
    return bits ^ ((bits >> 63) & INT64_MAX);
}

enum status comm_max_double(struct comm *comm, double *values, int count)
{
    enum status st = STATUS_OK;
    int64_t bits;
    collective_begins();
    if (comm->size == 1)
        return STATUS_OK;
    _Static_assert(sizeof bits == sizeof *values, "a double is 64 bits");
    for (int i = 0; i < count; i++) {
        double value = isnan(values[i]) ? fabs((double)NAN) : values[i];
        memcpy(&bits, &value, sizeof bits);
        bits = order_key(bits);
        memcpy(&values[i], &bits, sizeof bits);
    }
    st = mpi_status(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_INT64_T, MPI_MAX, comm->mpi),
                    "MPI_Allreduce");
    for (int i = 0; i < count; i++) {
        memcpy(&bits, &values[i], sizeof bits);
        bits = order_key(bits);
        memcpy(&values[i], &bits, sizeof bits);
    }
    return st;
}
