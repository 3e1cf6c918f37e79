/*
 * internal.h - what the sources of comm share: the group's struct, what carries its numbers, and
 * MPI's return codes as sentences.
 *
 * A group of one rank never calls MPI, whatever the backend: every collective below is then local
 * and copies nothing.
 */
#ifndef COHORT_COMM_INTERNAL_H
#define COHORT_COMM_INTERNAL_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/comm.h"
#include "comm/tree.h"

/*
 * Longer messages are cut into pieces of this size. Counts in MPI are ints and some transports
 * count bytes in ints too; 16 MiB stays far below both and lets small tests walk the same path as a
 * vector of several GiB. 256 KiB, 1, 4 and 16 MiB were tried by turns on a busy machine
 * (bench/reduce.c, 2 ranks): no difference beyond the noise.
 */
#define PIECE_BYTES ((int64_t)1 << 24)
#define PIECE_FLOATS (PIECE_BYTES / (int64_t)sizeof(float))

/* One started reduction. Slots and their memory are kept from step to step. */
struct range {
    float *out;
    int64_t low, high, block;
    int64_t begin, end;        /* this rank's shard */
    struct source *source;     /* every rank's top nodes in leaf order */
    struct addition *addition; /* in order; the last one makes the sum */
    float *staging;            /* host: slices of other ranks' top nodes, one behind the other */
    size_t sources, additions;
    int scratch; /* vectors that the additions need */
    size_t source_capacity, addition_capacity, staging_capacity;
    struct cuda_range *cuda; /* what the GPU's transport keeps with this slot; NULL: nothing */
};

/*
 * What carries a group's float arrays: host memory and MPI (reduce.c), or one of those of
 * cuda_transport.h. The functions are those of comm.h, after their arguments were checked.
 */
struct transport {
    const char *name; /* NULL: comm_backend() says which launcher was found */
    /* range is filled but for source[].at, and is not yet among those under way. */
    enum status (*start)(struct comm *comm, struct range *range, float *const *buffer);
    void (*poke)(struct comm *comm);
    enum status (*wait)(struct comm *comm);
    enum status (*gather)(struct comm *comm, float *flat, int64_t low, int64_t high, int64_t block);
    /* NULL: the ordered sum with one leaf for each rank */
    enum status (*any_order)(struct comm *comm, float *buffer, int64_t low, int64_t high,
                             int64_t block);
    enum status (*settle)(struct comm *comm, double timeout_s);
    void (*give_up)(struct comm *comm); /* NULL: nothing to do */
    /* Free what it has opened, and ranges' .cuda; messages may be under way. */
    void (*close)(struct comm *comm);
};

struct comm {
    MPI_Comm mpi; /* MPI_COMM_NULL in the self backend */
    int rank, size;
    int world_rank; /* of this process, for sentences: groups of groups name ranks of the whole job
                     */
    int local_rank, local_size;

    const struct transport *transport;
    struct cuda_transport *cuda; /* its state; NULL: host memory */
    bool lost; /* messages are under way that will never end: MPI must not be finalized */

    struct range *range; /* (range_capacity), the first `ranges` are under way */
    size_t ranges, range_capacity;
    MPI_Request *request; /* (request_capacity), the first `requests` are not complete */
    int *completed;       /* (completed_capacity) indices that MPI_Testsome fills */
    size_t requests, request_capacity, completed_capacity;
    enum status poke_status; /* what comm_poke() could not return */
    char poke_message[256];
    int *count, *place; /* (size) of shards, for MPI */
    bool *all;          /* (size) true: every rank brings something */
};

/* STATUS_OK, or STATUS_OS with "call: MPI's sentence". After a failure comm_end() does not finalize
 * MPI. */
NODISCARD enum status mpi_status(int code, const char *call);

/*
 * The messages of a range in host memory, for transports that use MPI. Receives first, so that no
 * message has to wait in MPI's own memory. slice[j] holds this rank's node j, elements from `first`
 * on; it must not change until the messages are complete. STATUS_NOMEM, STATUS_OS.
 */
NODISCARD enum status reduce_receives(struct comm *comm, struct range *range);
NODISCARD enum status reduce_sends(struct comm *comm, const struct range *range,
                                   float *const *slice, int64_t first);
/* Let messages move; what MPI says is kept for the next. */
void reduce_poke(struct comm *comm);
void reduce_keep(struct comm *comm, enum status st);
NODISCARD enum status reduce_messages_end(struct comm *comm);
/* Sum source[].at in tree order; to[0] is the shard's first element and may be a source's. */
void reduce_sum(const struct range *range, float *to);
/* Room for what a group of comm->size ranks needs (reduce.c). STATUS_NOMEM; reduce_release() all
 * the same. Local. */
NODISCARD enum status reduce_prepare(struct comm *comm);
/* Free what reductions have kept; none is under way (reduce.c). */
void reduce_release(struct comm *comm);

#ifdef COHORT_CUDA
/* comm_use_device() for a GPU (cuda_transport.c). Collective; statuses as there. */
NODISCARD enum status cuda_transport_open(struct comm *comm, struct device *device,
                                          enum comm_transport transport);
#endif

/* The thread's last sentence came from another rank and names it (collect.c). Local. */
void sentence_adopt(void);
/* A collective begins: its number goes to the status page (watchdog.c). Local. */
void collective_begins(void);

#endif
