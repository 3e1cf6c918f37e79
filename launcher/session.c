/* session.c - what commands share: backend and precision, required keys, output. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
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

enum status session_compute(struct session *session)
{
    const struct run_config *config = &session->config;
    enum device_kind kind = config->parallel.backend == CONFIG_BACKEND_CUDA ? DEVICE_CUDA
                                                                            : DEVICE_CPU;
    session_threads(session);
    enum status st = device_open(kind, comm_local_rank(session->world), &session->device);
    if (st == STATUS_OK) {
        session->kernels = kernels_cpu();
        st = choose_precision(session);
    }
    TRY(comm_agree(session->world, st));
    return comm_check_same(session->world, (uint64_t)session->precision + 1,
                           "the precision (do all nodes have the same "
                           "CPUs? set train.precision)");
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
