/* log.c - see log.h. One line is one write, so that lines of several ranks do not mix. */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static enum log_level threshold = LOG_INFO;
static int my_rank;
static int all_ranks = 1;
static char host[64];
static FILE *copy;
static enum { REDRAW_AUTO, REDRAW_NEVER, REDRAW_ALWAYS } redraw;
static int progress_lines; /* on the terminal, to be redrawn; 0: none */

enum { PROGRESS_MOST = 60, PROGRESS_BYTES = 16384, ERASE_BYTES = 4 * PROGRESS_MOST + 8 };

void log_setup(enum log_level level, int rank, int nranks)
{
    threshold = level;
    my_rank = rank;
    all_ranks = nranks;
    if (gethostname(host, sizeof host) != 0)
        host[0] = '\0';
    host[sizeof host - 1] = '\0';
}

void log_redraw(bool wanted)
{
    redraw = wanted ? REDRAW_ALWAYS : REDRAW_NEVER;
}

bool log_is_terminal(void)
{
    return my_rank == 0 && redraw != REDRAW_NEVER &&
           (redraw == REDRAW_ALWAYS || isatty(STDERR_FILENO) == 1);
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

/* Go back to where the progress lines begin, and clear from there. */
static size_t erase_progress(char out[ERASE_BYTES])
{
    size_t used = 0;
    out[used++] = '\r';
    for (int i = 1; i < progress_lines; i++, used += 3)
        memcpy(out + used, "\033[A", 3);
    memcpy(out + used, "\033[J", 3);
    progress_lines = 0;
    return used + 3;
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[ERASE_BYTES + 2048];
    size_t used = 0;
    if (level > threshold || (my_rank != 0 && level >= LOG_INFO))
        return;
    if (progress_lines > 0)
        used = erase_progress(line);
    size_t start = used, end = start + 2048; /* a line is as long with progress as without */
    if (my_rank != 0)
        used += (size_t)snprintf(line + used, end - used, "[rank %d %s] ", my_rank, host);
    if (level == LOG_ERROR)
        used += (size_t)snprintf(line + used, end - used, "cohort: error: ");
    else if (level == LOG_WARNING)
        used += (size_t)snprintf(line + used, end - used, "warning: ");
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, end - used - 1, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < end - used - 1 ? (size_t)n : end - used - 2;
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

/* Bytes of the line at s that a terminal of `columns` shows without a break. Each character counts
 * as one column. */
static size_t shown_bytes(const char *s, size_t n, int columns)
{
    int column = 0;
    for (size_t i = 0; i < n; i++) {
        if (((unsigned char)s[i] & 0xC0) != 0x80 && ++column > columns)
            return i;
    }
    return n;
}

/* Lines beyond the terminal's height could not be taken back: the last one, which sums up, stays.
 */
void log_progress(const char *format, ...)
{
    static char text[PROGRESS_BYTES], out[PROGRESS_BYTES + ERASE_BYTES];
    struct winsize size = {0};
    if (!log_is_terminal() || threshold < LOG_INFO)
        return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    no_controls(text, length);
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 && size.ws_row > 1;
    int columns = known ? size.ws_col - 1 : 79, most = known ? size.ws_row - 1 : 23;
    most = most < PROGRESS_MOST ? most : PROGRESS_MOST;
    size_t used = erase_progress(out);
    for (size_t from = 0; from < length;) {
        const char *end = memchr(text + from, '\n', length - from);
        size_t line = end == NULL ? length - from : (size_t)(end - text) - from;
        if (end != NULL && progress_lines + 1 >= most) {
            from += line + 1;
            continue;
        }
        if (progress_lines++ > 0)
            out[used++] = '\n';
        size_t shown = shown_bytes(text + from, line, columns);
        memcpy(out + used, text + from, shown);
        used += shown;
        from += line + 1;
    }
    ssize_t ignored = write(STDERR_FILENO, out, used);
    (void)ignored;
}

double clock_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
