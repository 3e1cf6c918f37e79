/* run_log.c - see run_log.h. A line is one write: a reader of a growing file never sees half of one
 * for long. */
#include "worker/run_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

struct run_log {
    int fd; /* -1: this rank does not write */
    char *path;
    int64_t length; /* of the whole lines */
    bool torn;      /* half a line may stand behind them */
    bool warned;
};

/* The lines of text with "step" <= keep, complete ones only. */
static enum status kept_lines(const char *text, size_t n, int64_t keep, struct str *out)
{
    size_t from = 0;
    while (from < n) {
        const char *end = memchr(text + from, '\n', n - from);
        if (end == NULL)
            break; /* a line cut short by a crash */
        size_t length = (size_t)(end - text) - from;
        json_t *line = json_loadb(text + from, length, 0, NULL);
        const json_t *step = json_object_get(line, "step");
        bool kept = line != NULL && (step == NULL || json_integer_value(step) <= keep);
        json_decref(line);
        if (kept)
            TRY(str_add(out, text + from, length + 1));
        from += length + 1;
    }
    return STATUS_OK;
}

static enum status drop_lines(const char *path, int64_t keep)
{
    char *text = NULL;
    size_t n;
    struct str out = {0};
    enum status st = STATUS_OK;
    if (!file_exists(path))
        return STATUS_OK;
    TRY_GOTO(done, file_read(path, (size_t)1 << 32, &text, &n));
    TRY_GOTO(done, kept_lines(text, n, keep, &out));
    if (out.n != n)
        st = file_write_atomic(path, out.p == NULL ? "" : out.p, out.n);
done:
    mem_free(text);
    str_release(&out);
    return st;
}

enum status run_log_open(const char *folder, bool writes, int64_t keep_step, struct run_log **out)
{
    struct run_log *log;
    enum status st = STATUS_OK;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *log, "a log", &log));
    log->fd = -1;
    if (writes) {
        TRY_GOTO(fail, folder_make(folder));
        TRY_GOTO(fail, path_join(folder, "log.jsonl", &log->path));
        TRY_GOTO(fail, drop_lines(log->path, keep_step));
        log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (log->fd < 0) {
            st = status_fail(STATUS_IO, "cannot write %s: %s", log->path, strerror(errno));
            goto fail;
        }
        TRY_GOTO(fail, file_size(log->path, &log->length));
    }
    *out = log;
    return STATUS_OK;
fail:
    run_log_close(log);
    return st;
}

/* A disk that is full now may not be for the next line: a run is worth more than its log. */
static void write_line(struct run_log *log, const char *text, size_t n)
{
    if (log->torn && ftruncate(log->fd, log->length) != 0)
        return;
    log->torn = false;
    if (fd_write_all(log->fd, text, n, log->path) == STATUS_OK) {
        log->length += (int64_t)n;
        return;
    }
    if (!log->warned)
        log_warning("%s; the run goes on, lines are missing there", status_message());
    log->warned = true;
    log->torn = ftruncate(log->fd, log->length) != 0;
}

enum status run_log_add(struct run_log *log, json_t *line)
{
    char *text = NULL;
    enum status st = STATUS_OK;
    if (log->fd >= 0) {
        text = line == NULL ? NULL : json_line(line);
        if (text == NULL) {
            st = status_fail(STATUS_NOMEM, "no memory for a line of the log");
        } else {
            size_t n = strlen(text);
            text[n] = '\n';
            write_line(log, text, n + 1);
        }
    }
    free(text);
    json_decref(line);
    return st;
}

enum status run_log_sync(struct run_log *log)
{
    if (log->fd >= 0 && fsync(log->fd) != 0 && errno != EINVAL)
        return status_fail(STATUS_IO, "cannot flush %s: %s", log->path, strerror(errno));
    return STATUS_OK;
}

void run_log_close(struct run_log *log)
{
    if (log == NULL)
        return;
    if (log->fd >= 0)
        (void)close(log->fd);
    mem_free(log->path);
    mem_free(log);
}

const char *minutes_seconds(double seconds, char buffer[32])
{
    int64_t whole = seconds > 0.0 ? (int64_t)seconds : 0;
    (void)snprintf(buffer, 32, "%lldm %llds", (long long)(whole / 60), (long long)(whole % 60));
    return buffer;
}
