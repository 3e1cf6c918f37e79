/* log.c - see log.h. One line is one write, so that lines of several ranks do not mix. */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level threshold = LOG_INFO;
static int my_rank;
static int all_ranks = 1;
static char host[64];
static FILE *copy;
static bool progress_shown;

void log_setup(enum log_level level, int rank, int nranks)
{
    threshold = level;
    my_rank = rank;
    all_ranks = nranks;
    if (gethostname(host, sizeof host) != 0)
        host[0] = '\0';
    host[sizeof host - 1] = '\0';
}

bool log_is_terminal(void)
{
    return my_rank == 0 && isatty(STDERR_FILENO) == 1;
}

/* Lines quote what files hold: no escape sequence of theirs may reach a terminal. */
static void no_controls(char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i], next = i + 1 < n ? (unsigned char)s[i + 1] : 0;
        if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7F)
            s[i] = '?';
        else if (c == 0xC2 && next >= 0x80 && next < 0xA0) /* U+0080 to U+009F */
            s[i] = s[i + 1] = '?';
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[2048];
    size_t used = 0;
    if (level > threshold || (my_rank != 0 && level >= LOG_INFO))
        return;
    if (progress_shown) {
        memcpy(line, "\r\033[K", 4);
        used = 4;
        progress_shown = false;
    }
    size_t start = used;
    if (my_rank != 0)
        used += (size_t)snprintf(line + used, sizeof line - used, "[rank %d %s] ", my_rank, host);
    if (level == LOG_ERROR)
        used += (size_t)snprintf(line + used, sizeof line - used, "cohort: error: ");
    else if (level == LOG_WARNING)
        used += (size_t)snprintf(line + used, sizeof line - used, "warning: ");
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < sizeof line - used - 1 ? (size_t)n : sizeof line - used - 2;
    no_controls(line + start, used - start);
    line[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored;
    if (copy != NULL) {
        (void)fwrite(line + start, 1, used - start, copy);
        (void)fflush(copy);
    }
}

enum status log_to_file(const char *path)
{
    if (copy != NULL)
        (void)fclose(copy);
    copy = NULL;
    if (path == NULL || my_rank != 0)
        return STATUS_OK;
    copy = fopen(path, "ae");
    if (copy == NULL)
        return status_fail(STATUS_IO, "cannot write the log %s: %s", path, strerror(errno));
    return STATUS_OK;
}

void log_progress(const char *format, ...)
{
    char line[512];
    size_t used = 4;
    if (!log_is_terminal() || threshold < LOG_INFO)
        return;
    memcpy(line, "\r\033[K", 4);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, sizeof line - used, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < sizeof line - used ? (size_t)n : sizeof line - used - 1;
    progress_shown = n > 0;
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored;
}

double clock_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
