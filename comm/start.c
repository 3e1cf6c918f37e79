/*
 * start.c - joining the launcher's job, ending it, groups.
 *
 * MPI is started only where a launcher's environment is found: MPI_Init of a lone process took 0.27
 * to 0.29 s (Open MPI 4.1.4, five runs), which `cohort inspect` has no use for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "comm/internal.h"

static struct {
    bool started;    /* comm_start() has succeeded in this process */
    bool mpi;        /* MPI is initialized and not yet finalized */
    bool mpi_failed; /* MPI_Finalize is not safe any more */
    bool broken;     /* an MPI call has failed */
} job;

enum status mpi_status(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS)
        return STATUS_OK;
    job.mpi_failed = job.broken = true;
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS)
        (void)snprintf(text, sizeof text, "error code %d", code);
    return status_fail(STATUS_OS, "%s failed: %s", call, text);
}

/* The number in environment variable name, or -1. */
static int64_t environment_number(const char *name)
{
    const char *text = getenv(name);
    int64_t value;
    return text != NULL && parse_int64(text, &value) ? value : -1;
}

/*
 * Whether a launcher that MPI can talk to has started this process, and how many it says it started
 * (-1: it does not say). Open MPI's mpirun sets OMPI_*, srun --mpi=pmix and PRRTE set PMIX_*,
 * MPICH's mpiexec and its kin set PMI_*.
 */
static enum status find_launcher(bool *found, int64_t *started)
{
    int64_t tasks = environment_number("SLURM_STEP_NUM_TASKS");
    *started = environment_number("OMPI_COMM_WORLD_SIZE");
    if (*started < 0)
        *started = environment_number("PMI_SIZE");
    if (*started < 0)
        *started = tasks;
    *found = getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_RANK") != NULL ||
             getenv("PMI_RANK") != NULL;
    if (!*found && tasks > 1) /* each would train alone and write over the others' files */
        return status_fail(STATUS_OS,
                           "srun started %lld tasks without PMIx, so they cannot find each other: "
                           "use srun --mpi=pmix, or mpirun",
                           (long long)tasks);
    return STATUS_OK;
}

static enum status init_mpi(struct comm *world, int64_t started)
{
    enum status st;
    MPI_Comm node = MPI_COMM_NULL;
    int provided = MPI_THREAD_SINGLE;
    TRY(mpi_status(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    job.mpi = true;
    if (provided < MPI_THREAD_FUNNELED) {
        job.mpi_failed = true;
        return status_fail(STATUS_OS, "MPI gives thread level %d, wanted MPI_THREAD_FUNNELED (%d)",
                           provided, MPI_THREAD_FUNNELED);
    }
    /* Errors that belong to no communicator go to the world's handler (MPI 3) or to that of
     * MPI_COMM_SELF (MPI 4). */
    TRY(mpi_status(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                   "MPI_Comm_set_errhandler"));
    TRY(mpi_status(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN),
                   "MPI_Comm_set_errhandler"));
    TRY(mpi_status(MPI_Comm_dup(MPI_COMM_WORLD, &world->mpi), "MPI_Comm_dup"));
    TRY(mpi_status(MPI_Comm_set_errhandler(world->mpi, MPI_ERRORS_RETURN),
                   "MPI_Comm_set_errhandler"));
    TRY(mpi_status(MPI_Comm_rank(world->mpi, &world->rank), "MPI_Comm_rank"));
    TRY(mpi_status(MPI_Comm_size(world->mpi, &world->size), "MPI_Comm_size"));
    world->world_rank = world->rank;
    if (world->size == 1 && started > 1) {
        job.mpi_failed = true;
        return status_fail(STATUS_OS,
                           "the launcher started %lld processes, but each sees itself alone: "
                           "mpirun, mpiexec or srun belongs to another MPI than the one this "
                           "program was built with",
                           (long long)started);
    }
    TRY(mpi_status(
        MPI_Comm_split_type(world->mpi, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &node),
        "MPI_Comm_split_type"));
    TRY_GOTO(out, mpi_status(MPI_Comm_rank(node, &world->local_rank), "MPI_Comm_rank"));
    TRY_GOTO(out, mpi_status(MPI_Comm_size(node, &world->local_size), "MPI_Comm_size"));
out:
    if (st == STATUS_OK)
        st = mpi_status(MPI_Comm_free(&node), "MPI_Comm_free");
    return st;
}

enum status comm_start(struct comm **out)
{
    enum status st;
    struct comm *world = NULL;
    bool found;
    int64_t started;
    *out = NULL;
    if (job.started)
        return status_fail(STATUS_ARG, "comm_start() was called a second time");
    TRY(find_launcher(&found, &started));
    TRY(mem_alloc(1, sizeof *world, "the communicator", &world));
    world->mpi = MPI_COMM_NULL;
    world->size = 1;
    world->local_size = 1;
    if (found)
        TRY_GOTO(fail, init_mpi(world, started));
    TRY_GOTO(fail, comm_agree(world, reduce_prepare(world)));
    job.started = true;
    *out = world;
    return STATUS_OK;
fail:
    job.mpi_failed = true; /* MPI is left as it is: the others may be elsewhere */
    reduce_release(world);
    mem_free(world);
    return st;
}

void comm_end(struct comm *world)
{
    if (world == NULL)
        return;
    world->transport->close(world);
    bool idle = world->requests == 0 && !world->lost;
    if (idle)
        reduce_release(world); /* else messages may still be written into that memory: the process's
                                  end frees it */
    /*
     * Without MPI_Finalize the launcher sees this process end early and ends the others. With
     * messages under way MPI's standard forbids it; Open MPI 4.1.4 finished all the same when
     * tried, so no test can show the difference there.
     */
    if (job.mpi && !job.mpi_failed && idle) {
        job.mpi = false;
        if (mpi_status(MPI_Comm_free(&world->mpi), "MPI_Comm_free") != STATUS_OK ||
            mpi_status(MPI_Finalize(), "MPI_Finalize") != STATUS_OK)
            log_warning("%s", status_message());
    }
    comm_watchdog_stop(); /* last: it also guards MPI_Finalize */
    mem_free(world);
}

bool comm_broken(void)
{
    return job.broken;
}

_Noreturn void comm_abort(const char *sentence, int code)
{
    log_line(LOG_ERROR, "%s", sentence);
    comm_watchdog_stop();
    if (job.mpi)
        (void)MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

int comm_rank(const struct comm *comm)
{
    return comm->rank;
}

int comm_size(const struct comm *comm)
{
    return comm->size;
}

int comm_local_rank(const struct comm *comm)
{
    return comm->local_rank;
}

int comm_local_size(const struct comm *comm)
{
    return comm->local_size;
}

bool comm_is_lost(const struct comm *comm)
{
    return comm->lost || comm->requests > 0;
}

const char *comm_backend(const struct comm *comm)
{
    return comm->transport->name != NULL ? comm->transport->name
           : comm->mpi == MPI_COMM_NULL  ? "self"
                                         : "mpi";
}

enum status comm_group(struct comm *comm, int group_size, struct comm **out)
{
    enum status st = STATUS_OK;
    struct comm *group = NULL;
    *out = NULL;
    if (group_size < 1)
        return status_fail(STATUS_ARG, "a group of %d ranks was asked for, wanted at least 1",
                           group_size);
    TRY(comm_agree(comm, mem_alloc(1, sizeof *group, "a group of ranks", &group)));
    *group = (struct comm){.mpi = MPI_COMM_NULL,
                           .size = 1,
                           .world_rank = comm->world_rank,
                           .local_rank = comm->local_rank,
                           .local_size = comm->local_size};
    if (comm->mpi != MPI_COMM_NULL) {
        collective_begins();
        TRY_GOTO(fail, mpi_status(MPI_Comm_split(comm->mpi, comm->rank / group_size, comm->rank,
                                                 &group->mpi),
                                  "MPI_Comm_split"));
        TRY_GOTO(fail, mpi_status(MPI_Comm_set_errhandler(group->mpi, MPI_ERRORS_RETURN),
                                  "MPI_Comm_set_errhandler"));
        TRY_GOTO(fail, mpi_status(MPI_Comm_rank(group->mpi, &group->rank), "MPI_Comm_rank"));
        TRY_GOTO(fail, mpi_status(MPI_Comm_size(group->mpi, &group->size), "MPI_Comm_size"));
    }
    TRY_GOTO(fail, comm_agree(comm, reduce_prepare(group)));
    *out = group;
    return STATUS_OK;
fail:
    reduce_release(group);
    mem_free(group);
    return st;
}

void comm_group_free(struct comm *group)
{
    if (group == NULL)
        return;
    group->transport->close(group);
    bool idle = group->requests == 0 && !group->lost;
    if (idle)
        reduce_release(group);
    else
        job.mpi_failed = true; /* messages are still under way: MPI must not be finalized */
    if (group->mpi != MPI_COMM_NULL && !job.mpi_failed &&
        mpi_status(MPI_Comm_free(&group->mpi), "MPI_Comm_free") != STATUS_OK)
        log_warning("%s", status_message());
    mem_free(group);
}
