/*
 * cuda_transport.h - what the sources share that carry numbers between GPUs: comm/cuda_*.c.
 *
 * Everything is queued on the device's comm stream. Work of a reduction or a gathering begins by
 * waiting (on the device) for what the compute stream had been given, and ends by letting the
 * compute stream wait for it.
 *
 *   cuda_transport.c  opening, closing, the order of the streams, sums in tree order, what to do
 *                     when messages do not end
 *   cuda_nccl.c       NCCL
 *   cuda_staged.c     pinned host memory and MPI
 */
#ifndef COHORT_COMM_CUDA_TRANSPORT_H
#define COHORT_COMM_CUDA_TRANSPORT_H

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "base/device_cuda.h"
#include "comm/internal.h"

/* What ranks tell each other when a transport is opened. */
struct peer {
    int world_rank;
    int allows_sharing; /* NCCL_MULTI_RANK_GPU_ENABLE */
    char host[64], boot[48], place[64];
    char host_id[64]; /* NCCL_HOSTID */
};

/* What a slot keeps from step to step. */
struct cuda_range {
    /* NCCL, and groups of one rank */
    float *staging; /* device: slices of other ranks' top nodes */
    size_t staging_floats;
    void *list; /* device: the slices' addresses, then the additions */
    char *list_pinned, *list_fresh;
    size_t list_capacity, list_bytes; /* of what was sent to list */
    cudaEvent_t list_read;            /* the copy from list_pinned is done */
    /* MPI */
    float *pinned; /* this rank's slices of all shards, node after node; then the shard's sum */
    size_t pinned_floats;
    cudaEvent_t taken; /* the slices are there */
    bool sent;
};

struct cuda_transport {
    struct device *device;
    cudaStream_t compute, stream;
    cudaEvent_t computed, moved;
    struct peer *peer; /* (size) */
    ncclComm_t nccl;   /* NULL: MPI, one rank, or aborted */
    double limit_s;    /* of waits for NCCL's own preparations */
    bool told;         /* messages were lost because another rank said so */
    bool told_asks;    /* and it asks who is still there */
    /* MPI: gathering */
    float *gather; /* pinned (size, gather_piece) */
    int64_t gather_piece;
    cudaEvent_t gather_ready; /* this rank's part is there, and earlier ones have been read */
    enum status failed;       /* MPI: of the first copy that failed */
    char why[256];
};

/* ---- cuda_transport.c */
/* What the comm stream is given from here on follows what compute was given before; the reverse. */
NODISCARD enum status cuda_follow_compute(struct cuda_transport *cuda);
NODISCARD enum status cuda_lead_compute(struct cuda_transport *cuda);
/* range->cuda is there. STATUS_NOMEM. */
NODISCARD enum status cuda_range_make(struct range *range);
/* Room for the list of a range's additions and for slices of other ranks; what is new is cleared on
 * the compute stream. STATUS_NOMEM, and as comm_settle(). */
NODISCARD enum status cuda_range_room(struct comm *comm, struct range *range,
                                      size_t staging_floats);
/* Queue the sum of source[].at, device memory, into the shard in out. */
NODISCARD enum status cuda_range_sum(struct cuda_transport *cuda, struct range *range);
/* Called in a loop that waits: gives the core away when it lasts. *turns begins at 0. */
void cuda_pause(int *turns);
/*
 * NCCL's messages have failed with `st`: the thread's last sentence says how. Aborts NCCL, tells
 * the other ranks of the group, asks (if ask, and none of them was first) whether they are alive,
 * and returns st with both in the sentence.
 */
NODISCARD enum status cuda_lose(struct comm *comm, enum status st, bool ask);
/* st is of this rank's own work: if it failed, NCCL's messages are lost, since others wait for what
 * it will not send now. */
NODISCARD enum status cuda_fails(struct comm *comm, enum status st);
/* Called in a loop that waits for others: the status and sentence of one that has lost its
 * messages. Looks only when the wait is long. */
NODISCARD enum status cuda_news(struct comm *comm, int turns);

/* ---- cuda_nccl.c */
extern const struct transport cuda_nccl_transport;
/* Find the library. STATUS_UNAVAILABLE. Local. */
NODISCARD enum status cuda_nccl_load(void);
/* Make the group's communicator. Collective: statuses are agreed. */
NODISCARD enum status cuda_nccl_open(struct comm *comm);
/* What NCCL has found out by itself. */
NODISCARD enum status cuda_nccl_state(struct cuda_transport *cuda);
/* orderly: nothing is under way and all ranks do the same. */
void cuda_nccl_close(struct comm *comm, bool orderly);
/* start and wait of struct transport; of use to a group of one rank, too, which needs no NCCL. */
NODISCARD enum status cuda_nccl_start(struct comm *comm, struct range *range, float *const *buffer);
NODISCARD enum status cuda_nccl_wait(struct comm *comm);

/* ---- cuda_staged.c */
extern const struct transport cuda_staged_transport;
NODISCARD enum status cuda_staged_open(struct comm *comm);
void cuda_staged_close(struct cuda_transport *cuda);

/* ---- both: settle, give_up and close of struct transport */
enum status cuda_settle(struct comm *comm, double timeout_s);
void cuda_give_up(struct comm *comm);
void cuda_close(struct comm *comm);

#endif
