/*
 * log.h - lines for people, on standard error.
 *
 * Rank 0 speaks; other ranks speak on errors, with "[rank r host]" in front. Results that programs
 * read go to files, never through here. log_setup() is called once by the launcher.
 */
#ifndef COHORT_BASE_LOG_H
#define COHORT_BASE_LOG_H

#include <stdbool.h>

#include "base/status.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* rank of nranks, for the prefix; lines above level are dropped. */
void log_setup(enum log_level level, int rank, int nranks);
/* One line; a newline is added. INFO and DEBUG only on rank 0. A progress line on the terminal is
 * cleared first. */
void log_line(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
/* Also write every line of rank 0 to this file (append); NULL closes it. */
NODISCARD enum status log_to_file(const char *path);
/* Redraw progress in place, or never, whatever standard error is. */
void log_redraw(bool redraw);
/* Whether this is rank 0 and progress is redrawn in place: by default, if standard error is a
 * terminal. */
bool log_is_terminal(void);
/* Redraw the progress line, or several with newlines between them, on a terminal, cut to its width
 * and height; nothing elsewhere. "" clears them. */
void log_progress(const char *format, ...) PRINTF_LIKE(1, 2);

/* Seconds of a clock that never goes back. */
double clock_s(void);

#endif
