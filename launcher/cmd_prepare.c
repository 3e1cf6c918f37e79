/* cmd_prepare.c - text to a prepared dataset. */
#include "base/file.h"
#include "base/log.h"
#include "launcher/command.h"
#include "worker/source.h"

enum status command_prepare(struct session *session)
{
    const struct run_config *config = &session->config;
    struct model_source source;
    struct prepare_report report;
    double started = clock_s();
    TRY(session_need("data.input", config->data.input, "the text to prepare"));
    TRY(session_need("out", config->out, "the .h5 file to write"));
    if (file_is_folder(config->out))
        return status_fail(STATUS_CONFIG,
                           "out=%s is a folder, wanted the name of the .h5 file to write",
                           config->out);
    session_threads(session);
    TRY(comm_watchdog_start(session->world, config->parallel.watchdog_s, NULL));
    TRY(comm_agree(session->world, model_source_open(config->model.path,
                                                     config->model.resize_embeddings, &source)));
    enum status st =
        source_prepare(session->world, config, &source, config->data.input, config->out, &report);
    model_source_close(&source);
    if (st == STATUS_OK) {
        double seconds = clock_s() - started;
        log_info("%s: %lld rows, %lld tokens in %.1f s (%.0f rows a second)", config->out,
                 (long long)report.rows, (long long)report.tokens, seconds,
                 (double)report.rows / (seconds > 0.0 ? seconds : 1e-9));
    }
    return st;
}
