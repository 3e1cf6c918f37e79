/*
 * internal.h - what the sources of comm share: the group's struct, and MPI's return codes as
 * sentences.
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

/*
 * Longer messages are cut into pieces of this size. Counts in MPI are ints and some transports
 * count bytes in ints too; 16 MiB stays far below both and lets small tests walk the same path as a
 * vector of several GiB. 256 KiB, 1, 4 and 16 MiB were tried by turns on a busy machine
 * (bench/reduce.c, 2 ranks): no difference beyond the noise.
 */
#define PIECE_BYTES ((int64_t)1 << 24)
#define PIECE_FLOATS (PIECE_BYTES / (int64_t)sizeof(float))

struct range; /* one started reduction, reduce.c */

struct comm {
    MPI_Comm mpi; /* MPI_COMM_NULL in the self backend */
    int rank, size;
    int world_rank; /* of this process, for sentences: groups of groups name ranks of the whole job
                     */
    int local_rank, local_size;

    /* Reductions under way. Slots and their memory are kept from step to step. */
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

/* Room for what a group of comm->size ranks needs (reduce.c). STATUS_NOMEM; reduce_release() all
 * the same. Local. */
NODISCARD enum status reduce_prepare(struct comm *comm);
/* Free what reductions have kept; none is under way (reduce.c). */
void reduce_release(struct comm *comm);

/* A collective begins: its number goes to the status page (watchdog.c). Local. */
void collective_begins(void);

#endif
