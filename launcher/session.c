/* session.c - what commands share: backend and precision, required keys, output. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/threads.h"
#include "launcher/command.h"

static enum status choose_precision(struct session *session)
{
    static const enum precision values[] = {PRECISION_FP32, PRECISION_FP32, PRECISION_TF32,
                                            PRECISION_BF16, PRECISION_FP16};
    enum config_precision asked = session->config.train.precision;
    session->precision = values[asked];
    if (asked == CONFIG_PRECISION_AUTO)
        session->precision = session->kernels->supports(PRECISION_BF16) == STATUS_OK
                                 ? PRECISION_BF16
                                 : PRECISION_FP32;
    return session->kernels->supports(session->precision);
}

void session_threads(const struct session *session)
{
    int threads = (int)session->config.parallel.threads;
    int share = threads_available() / comm_local_size(session->world);
    threads_set(threads > 0 ? threads : share > 0 ? share : 1);
}

/*
 * What computes: as parallel.backend says; auto takes GPUs where every rank has one. *gpus: those
 * that this process may use. Collective.
 */
static enum status choose_backend(const struct session *session, enum device_kind *kind, int *gpus)
{
    enum config_backend asked = session->config.parallel.backend;
    *kind = DEVICE_CPU;
    *gpus = 0;
    if (asked == CONFIG_BACKEND_CPU)
        return STATUS_OK;
    enum status st = device_count(DEVICE_CUDA, gpus);
    if (asked == CONFIG_BACKEND_CUDA) {
        *kind = DEVICE_CUDA;
        return comm_agree(session->world, st);
    }
    if (st != STATUS_OK)
        log_line(LOG_DEBUG, "no GPU is used: %s", status_message());
    int64_t with = *gpus > 0;
    TRY(comm_sum_int64(session->world, &with, 1));
    if (with > 0 && with < comm_size(session->world))
        return status_fail(STATUS_UNAVAILABLE,
                           "parallel.backend=auto: %lld of %d ranks have a GPU; give every rank "
                           "one, or set parallel.backend=cpu",
                           (long long)with, comm_size(session->world));
    *kind = with > 0 ? DEVICE_CUDA : DEVICE_CPU;
    return STATUS_OK;
}

/* Which GPU: the rank's place on its node, unless a scheduler shows it just one. With MPI as
 * transport several ranks may share a GPU. */
static int gpu_of(const struct session *session, int gpus)
{
    int place = comm_local_rank(session->world);
    if (gpus == 1)
        return 0;
    return session->config.parallel.transport == CONFIG_TRANSPORT_MPI && gpus > 0 ? place % gpus
                                                                                  : place;
}

/* GPUs of different kinds give different bits. Collective. */
static enum status check_same_domain(struct session *session)
{
    const char *mine = device_domain(session->device);
    char *all = NULL;
    int ranks = comm_size(session->world), other = -1;
    int64_t *begin = NULL;
    enum status st = mem_alloc((size_t)ranks + 1, sizeof *begin, "the devices' names", &begin);
    TRY_GOTO(done, comm_agree(session->world, st));
    TRY_GOTO(done, comm_allgather(session->world, mine, (int64_t)strlen(mine) + 1, &all, begin));
    for (int r = ranks - 1; r > 0; r--)
        other = strcmp(all, all + begin[r]) == 0 ? other : r;
    if (other > 0 && session->config.parallel.reproducible != CONFIG_OFF)
        st = status_fail(STATUS_UNAVAILABLE,
                         "rank 0 computes on %s and rank %d on %s, whose bits may differ; use GPUs "
                         "of one kind, or set parallel.reproducible=off",
                         all, other, all + begin[other]);
    else if (other > 0)
        log_warning("rank 0 computes on %s and rank %d on %s", all, other, all + begin[other]);
done:
    mem_free(begin);
    mem_free(all);
    return st;
}

static const struct kernels *kernels_of(enum device_kind kind)
{
#ifdef COHORT_CUDA
    if (kind == DEVICE_CUDA)
        return kernels_cuda();
#endif
    (void)kind;
    return kernels_cpu();
}

enum status session_compute(struct session *session)
{
    enum device_kind kind;
    int gpus;
    session_threads(session);
    TRY(choose_backend(session, &kind, &gpus));
    enum status st = device_open(kind, gpu_of(session, gpus), &session->device);
    if (st == STATUS_OK) {
        session->kernels = kernels_of(kind);
        st = session->kernels == NULL
                 ? status_fail(STATUS_UNAVAILABLE,
                               "no CPU kernels in this build (made without oneDNN): compute on a "
                               "GPU with parallel.backend=cuda, or take a build that has them")
                 : choose_precision(session);
    }
    TRY(comm_agree(session->world, st));
    if (kind == DEVICE_CUDA)
        TRY(check_same_domain(session));
    return comm_check_same(session->world, (uint64_t)session->precision + 1,
                           "the precision (do all nodes have the same "
                           "CPUs? set train.precision)");
}

enum status session_transport(const struct session *session, struct comm *group)
{
    bool mpi = session->config.parallel.transport == CONFIG_TRANSPORT_MPI;
    if (device_kind(session->device) == DEVICE_CPU) {
        if (session->config.parallel.transport == CONFIG_TRANSPORT_NCCL)
            return status_fail(STATUS_CONFIG, "parallel.transport=nccl needs GPUs; on CPUs sums "
                                              "go through MPI");
        return STATUS_OK;
    }
    return comm_use_device(group, session->device, mpi ? COMM_MPI : COMM_NCCL);
}

enum status session_need(const char *key, const char *text, const char *what)
{
    if (text[0] == '\0')
        return status_fail(STATUS_CONFIG, "%s is not given; wanted %s", key, what);
    return STATUS_OK;
}

enum status session_write(const char *path, const char *bytes, size_t n)
{
    if (path[0] == '\0' || strcmp(path, "-") == 0)
        return fd_write_all(STDOUT_FILENO, bytes, n, "standard output");
    return file_write_atomic(path, bytes, n);
}
