/*
 * comm.h - ranks: start and end, groups, agreement, broadcast, gathering, and sums whose bits do
 * not depend on the number of ranks.
 *
 * Backends: `self` (one process, no MPI started) and `mpi`; GPUs use `nccl` or `mpi, host-staged`
 * for reductions and shards. Every call names itself *local* or *collective*. MPI runs with
 * MPI_THREAD_FUNNELED: only the main thread calls in here. Our communicators are duplicates set to
 * MPI_ERRORS_RETURN. No collective here sums floats inside MPI.
 *
 * A rank that fails alone must not leave the others waiting: local work, comm_agree(), then the
 * collective. Every collective returns STATUS_OS with MPI's sentence where MPI fails; the group is
 * then of no more use: comm_abort(). STATUS_ARG means arguments that all ranks share are out of
 * range, and is the same on all of them. STATUS_NOMEM is agreed on before bytes move, so the group
 * can be used on; the one exception is comm_reduce_start().
 */
#ifndef COHORT_COMM_COMM_H
#define COHORT_COMM_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/status.h"

struct comm; /* a group of ranks; opaque */

/*
 * Start: joins the launcher's MPI job if there is one (environment of mpirun, srun --mpi=pmix,
 * mpiexec), else runs alone without touching MPI. Once per process. *world is owned (comm_end).
 * STATUS_OS: MPI does not start, srun offers no PMIx to several tasks, or the launcher belongs to
 * another MPI than the one this program was built with.
 */
NODISCARD enum status comm_start(struct comm **world);
/*
 * Collective. Finalizes MPI if all is well, then stops the watchdog. After a failure of MPI, or
 * with reductions started and not waited for, MPI is not finalized (its standard forbids it then)
 * and the launcher ends the other ranks when this one exits: print first. NULL is fine.
 */
void comm_end(struct comm *world);
/* Whether a call of MPI has failed in this process: then ranks can agree no more, and comm_abort()
 * is what is left. Local. */
bool comm_broken(void);
/* End the whole job now: prints the sentence, kills the watchdog, MPI_Abort(code). Does not return.
 * Local. */
_Noreturn void comm_abort(const char *sentence, int code);

int comm_rank(const struct comm *comm); /* in this group, from 0; local */
int comm_size(const struct comm *comm);
int comm_local_rank(const struct comm *comm); /* among this node's processes of the whole job */
int comm_local_size(const struct comm *comm);
/* "self", "mpi", "nccl", "mpi, host-staged"; for the log and the manifest. */
const char *comm_backend(const struct comm *comm);

/*
 * Split into groups of group_size consecutive ranks (the last may be smaller); *out is this rank's,
 * owned (comm_group_free). mpirun and srun fill node after node unless told otherwise, so a
 * group_size that divides the ranks per node gives groups that stay on one node. Collective on
 * comm. STATUS_ARG, STATUS_NOMEM.
 */
NODISCARD enum status comm_group(struct comm *comm, int group_size, struct comm **out);
void comm_group_free(struct comm *group); /* collective on group */

/*
 * Agree: every rank brings its status and gets the worst of all. Where another rank failed, this
 * rank's sentence becomes "rank R: <its sentence>", R being the lowest rank with the worst status,
 * counted in the whole job also when a group agrees. The failing rank's sentence stays its own.
 * Collective.
 */
NODISCARD enum status comm_agree(struct comm *comm, enum status mine);
/* As comm_agree, and *flags becomes the OR of all ranks' flags (signal seen, time is up, ...). */
NODISCARD enum status comm_agree_flags(struct comm *comm, enum status mine, uint32_t *flags);
/* STATUS_INTERNAL on all ranks unless hash is the same on all; what names it ("the configuration").
 * Collective. */
NODISCARD enum status comm_check_same(struct comm *comm, uint64_t hash, const char *what);
NODISCARD enum status comm_barrier(struct comm *comm);
/* As comm_barrier, but for waits that may take long for a good reason (other groups still train):
 * this rank keeps marking progress under `phase`, and gives its core away. Collective. */
NODISCARD enum status comm_wait(struct comm *comm, const char *phase);

/* Bytes from root to all, in place. Collective. More than 2 GiB is fine. */
NODISCARD enum status comm_broadcast(struct comm *comm, void *bytes, int64_t n, int root);
/* A NUL-terminated or binary string of any length from root to all: *bytes on root is given,
 * elsewhere owned by the caller afterwards (mem_free); *n likewise. Collective. */
NODISCARD enum status comm_broadcast_blob(struct comm *comm, char **bytes, int64_t *n, int root);
/*
 * Every rank's n bytes on every rank, in rank order: *all (owned by the caller, mem_free) and
 * begin[size + 1] (caller's array). Collective. comm_gather: only on root; elsewhere *all is NULL.
 */
NODISCARD enum status comm_allgather(struct comm *comm, const void *bytes, int64_t n, char **all,
                                     int64_t *begin);
NODISCARD enum status comm_gather(struct comm *comm, const void *bytes, int64_t n, int root,
                                  char **all, int64_t *begin);
/* Sum of whole numbers and maximum, exact, in place; a NaN on any rank gives NaN. Collective. */
NODISCARD enum status comm_sum_int64(struct comm *comm, int64_t *values, int count);
NODISCARD enum status comm_max_double(struct comm *comm, double *values, int count);

/*
 * ---- ordered reduction ----
 *
 * A sum over `leaves` leaves along a fixed binary tree: node (level, i) covers leaves [i * 2^level,
 * (i + 1) * 2^level) cut at `leaves`, and is the sum of its two children, or the only present one.
 * Ranks own contiguous runs of leaves (first[r], count[r]). A leaf that is not present (no rows) is
 * left out; presence is known to all ranks. A rank brings one buffer for each *top node* of its
 * run: the largest present nodes that lie wholly inside it, in leaf order. So the sum's bits depend
 * on leaves and presence alone, never on ranks.
 */
struct reduce_tree {
    int leaves;
    int ranks;
    const int *first, *count; /* (ranks) */
    const bool *present;      /* (leaves) */
};
struct reduce_node {
    int first, count; /* leaves covered */
};
/* The top nodes of rank's run, in leaf order; nodes holds 2 * 32. Returns how many. Local. */
int reduce_top_nodes(const struct reduce_tree *tree, int rank, struct reduce_node *nodes);

/*
 * Elements [*begin, *end) of [low, high) that rank owns: whole blocks of `block`, counted from
 * element 0 and cut at low and high; the numbers of blocks differ by one at most, the lower ranks
 * having more. Empty where ranks exceed blocks. Two ranges that meet inside a block may give its
 * parts to different ranks. Local.
 */
void shard_range(int64_t low, int64_t high, int64_t block, int rank, int ranks, int64_t *begin,
                 int64_t *end);

/*
 * Where the numbers of reductions and shards live, and what carries them. Without this call: host
 * memory, MPI. With a GPU `device`, all float arrays given to comm_reduce_*() and
 * comm_gather_shards() are its device memory, and these calls queue their work in order behind
 * the device's compute work and ahead of what is queued on it after the wait (or after
 * comm_gather_shards()).
 *   COMM_NCCL  one NCCL communicator of this group; sends and receives, summed by a kernel in tree
 *              order; comm_reduce_any_order(): NCCL's own reduce-scatter, or reductions to the
 *              owners. No call waits for the device, comm_settle() excepted.
 *   COMM_MPI   through pinned host memory and MPI; MPI never sees a device pointer.
 *              comm_reduce_wait() and comm_gather_shards() wait for the compute work before them;
 *              messages of a reduction start in the first comm_poke() after its slices are made
 * The bits of ordered sums are those of the CPU. A group of one rank uses neither. Once per group,
 * before its first reduction; a CPU `device` with COMM_MPI changes nothing. Collective on the
 * group. STATUS_UNAVAILABLE (NCCL missing, several ranks on one GPU: which), STATUS_NOMEM,
 * STATUS_OS. The device outlives the group.
 */
enum comm_transport { COMM_MPI, COMM_NCCL };
NODISCARD enum status comm_use_device(struct comm *comm, struct device *device,
                                      enum comm_transport transport);
/* Whether sums of this group are NCCL's; local. */
bool comm_is_nccl(const struct comm *comm);
/*
 * Wait on the host until queued messages and what follows them on the comm stream are done, looking
 * at NCCL's asynchronous errors and the clock. STATUS_OS: the device or NCCL failed, or timeout_s
 * (0: no limit) passed, and ranks that do not answer within 5 seconds are named. timeout_s also
 * limits what NCCL prepares in later calls (first connections). Nothing to wait for: returns at
 * once. Local, but other ranks must be working too.
 *
 * NCCL: a rank on which one of these calls fails aborts the communicator and tells the others of
 * the group, whose calls then fail with its status and sentence. The group carries no more numbers,
 * but its ranks can still agree. COMM_MPI: a rank whose device has failed takes part in messages
 * all the same, with whatever is in its memory, and its call fails.
 */
NODISCARD enum status comm_settle(struct comm *comm, double timeout_s);
/*
 * After an agreed failure with reductions that not all ranks have started: end what the device
 * still waits for, so that its memory can be freed. The group carries no more numbers. Local.
 */
void comm_give_up(struct comm *comm);
/* Whether messages were left that will never end: the group can agree, but sum no more. Local. */
bool comm_is_lost(const struct comm *comm);

/*
 * Begin summing elements [low, high) of the ranks' buffers: buffer[k] is this rank's k-th top node
 * (flat arrays, the same indexing on all ranks). After comm_reduce_wait() the owner of
 * each shard (shard_range with `block`) has the sum in out[] at the same index; elements of other
 * shards in out are undefined. out may be buffer[0]. An empty tree (no leaf present) gives zeros.
 * Buffers must not change before the wait. Several ranges may be under way; all ranks start them in
 * the same order. tree and the array `buffer` are read during the call only. Returns at once.
 *
 * Memory for the other ranks' slices (per range: shard times their top nodes) is kept, so a step
 * that starts the same ranges again allocates nothing. STATUS_NOMEM is this rank's alone: it brings
 * it to the next comm_agree(), and then all ranks leave without a wait. After any other agreed
 * failure comm_reduce_wait() comes first. Collective.
 */
NODISCARD enum status comm_reduce_start(struct comm *comm, const struct reduce_tree *tree,
                                        float *const *buffer, float *out, int64_t low, int64_t high,
                                        int64_t block);
/* Let messages move; cheap; called between layers. A failure of MPI is returned by the wait. Local.
 */
void comm_poke(struct comm *comm);
/* Finish all started reductions. Collective. */
NODISCARD enum status comm_reduce_wait(struct comm *comm);
/* Every rank's shard of [low, high) (at most 2^31 - 1 elements) to all ranks, in place in flat.
 * Collective. */
NODISCARD enum status comm_gather_shards(struct comm *comm, float *flat, int64_t low, int64_t high,
                                         int64_t block);
/*
 * parallel.reproducible=off: the sum of each rank's buffer; the owner of each shard of [low, high)
 * finds it there, the other shards are undefined. The bits depend on the number of ranks. No
 * ordered reduction is under way. With NCCL the sum is only queued: call comm_reduce_wait() before
 * giving the device work that uses it. Collective; statuses as comm_reduce_start().
 */
NODISCARD enum status comm_reduce_any_order(struct comm *comm, float *buffer, int64_t low,
                                            int64_t high, int64_t block);

/*
 * ---- mail ----
 *
 * Short messages between ranks outside of collectives, for whoever hands out work: rank 0 looks at
 * its mail while it trains, between two collectives, and need not be waited for. Messages from one
 * rank to another arrive in order. Local, but for open and close.
 */
enum { COMM_MAIL_BYTES = 1024 };
struct comm_mail;
/* Collective on comm. *out is owned (comm_mail_close). STATUS_NOMEM, STATUS_OS. */
NODISCARD enum status comm_mail_open(struct comm *comm, struct comm_mail **out);
/* Collective: waits for what was sent, so every message must be received by somebody. */
void comm_mail_close(struct comm_mail *mail);
/* n bytes, copied; returns at once. STATUS_ARG: to itself, out of range; STATUS_NOMEM, STATUS_OS.
 */
NODISCARD enum status comm_mail_send(struct comm_mail *mail, int to, const void *bytes, int n);
/* The next message into bytes (COMM_MAIL_BYTES); *from -1: there is none. STATUS_OS. */
NODISCARD enum status comm_mail_receive(struct comm_mail *mail, int *from, void *bytes, int *n);
/* For waits on mail: marks progress, looks (comm_on_mark) and gives the core away for 1 ms. */
void comm_idle(const char *phase);

/*
 * ---- watchdog and status page ----
 *
 * A thread of each rank watches a counter that comm_mark() bumps. No mark for `timeout_s` seconds
 * prints rank, host, step, phase and the number of the last collective, and ends the process with
 * code 70; the launcher ends the rest. Each rank keeps the same facts in a small mapped file
 * <folder>/status.<rank>, so that a killed rank's place can be read afterwards.
 */
/*
 * timeout_s 0 means no thread; folder NULL means no file. Once, from the main thread, after which
 * the process does not fork. A process that was stopped as a whole (a suspended job) is not idle
 * during that time. Local. STATUS_ARG; STATUS_IO: the file cannot be written; STATUS_OS: no thread.
 */
NODISCARD enum status comm_watchdog_start(struct comm *world, double timeout_s, const char *folder);
/* Stop the thread and note in the page that this rank ended in order. Fine if nothing was started.
 * Local. */
void comm_watchdog_stop(void);
/*
 * Progress: phase is a static string ("forward", "reduce", "checkpoint") of at most 39 bytes; step
 * -1 keeps the last one. From the main thread, with or without a watchdog; costs about the reading
 * of a clock. Local.
 */
void comm_mark(int64_t step, const char *phase);
/* Have look(arg) called at the end of every comm_mark(), on the main thread and never from inside
 * itself: a place to look at mail from while work goes on. NULL ends it. Local. */
void comm_on_mark(void (*look)(void *arg), void *arg);

enum comm_place_state {
    COMM_PLACE_RUNS,   /* it runs, or was killed: compare process with those alive on host */
    COMM_PLACE_ENDED,  /* comm_watchdog_stop() was reached */
    COMM_PLACE_EXPIRED /* the watchdog ended it */
};
/* Where a rank is, or was when it ended. */
struct comm_place {
    int rank, ranks;
    int process; /* process id on host */
    char host[64];
    enum comm_place_state state;
    int64_t step;
    char phase[40];
    double marked_s;      /* wall clock of the last mark, seconds since 1970 */
    uint64_t collectives; /* how many this rank has begun */
};
/* Read <folder>/status.<rank>. STATUS_NOINPUT: there is none; STATUS_FORMAT: it is not a status
 * page. Local. */
NODISCARD enum status comm_status_read(const char *folder, int rank, struct comm_place *place);

#endif
