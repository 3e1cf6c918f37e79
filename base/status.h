/*
 * status.h - what a function that can fail returns, and the one sentence that says why.
 *
 * The place that detects a failure calls status_fail() with the value found and the value wanted;
 * callers pass the code on with TRY() or TRY_GOTO(). The sentence is kept per thread until the next
 * failure of that thread.
 *
 * Local: knows nothing of ranks. comm_agree() makes a status everyone's.
 */
#ifndef COHORT_BASE_STATUS_H
#define COHORT_BASE_STATUS_H

#include <stdarg.h>

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(at, first) __attribute__((format(printf, at, first)))

/* name, exit code (sysexits.h), meaning. Ordered by severity: comm_agree() takes the largest of all
 * ranks. */
#define STATUS_LIST(X)                                                                             \
    X(STATUS_OK, 0, "success")                                                                     \
    X(STATUS_USAGE, 64, "command line or argument is wrong")                                       \
    X(STATUS_CONFIG, 78, "configuration is wrong")                                                 \
    X(STATUS_NOINPUT, 66, "an input file is missing or cannot be opened")                          \
    X(STATUS_DATA, 65, "data does not say what it should")                                         \
    X(STATUS_FORMAT, 65, "a file is not in the format it claims")                                  \
    X(STATUS_UNAVAILABLE, 69, "something the request needs is not on this machine")                \
    X(STATUS_ARG, 70, "a function was called with an argument out of range (our bug)")             \
    X(STATUS_NOMEM, 71, "memory ran out")                                                          \
    X(STATUS_OS, 71, "operating system, MPI or device failed")                                     \
    X(STATUS_IO, 74, "reading or writing failed")                                                  \
    X(STATUS_NUMERIC, 65, "a number became NaN or infinite")                                       \
    X(STATUS_FENCED, 76, "another run has taken over")                                             \
    X(STATUS_REQUEUE, 75, "stopped on request after a checkpoint: start again to go on")           \
    X(STATUS_INTERNAL, 70, "internal error or watchdog")

enum status {
#define STATUS_ENUM(name, code, text) name,
    STATUS_LIST(STATUS_ENUM)
#undef STATUS_ENUM
        STATUS_COUNT
};

/* Record the sentence (no trailing full stop or newline) for this thread and return code. Truncated
 * at 1,023 bytes. */
enum status status_fail(enum status code, const char *format, ...) PRINTF_LIKE(2, 3);

/* Put "prefix: " before this thread's sentence; returns code, so that a caller can add where it
 * happened. */
enum status status_prefix(enum status code, const char *format, ...) PRINTF_LIKE(2, 3);

/* The last sentence of this thread; "" if there was none. Valid until the next status_fail() of
 * this thread. */
const char *status_message(void);

/* The name ("STATUS_IO"), the meaning ("reading or writing failed") and the process exit code of a
 * status. */
const char *status_name(enum status code);
const char *status_text(enum status code);
int status_exit_code(enum status code);

/* Return the status of expr from this function unless it is STATUS_OK. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (expr);                                                          \
        if (try_status_ != STATUS_OK)                                                              \
            return try_status_;                                                                    \
    } while (0)

/* Set st to the status of expr and go to label unless it is STATUS_OK. The function has a local
 * "enum status st". */
#define TRY_GOTO(label, expr)                                                                      \
    do {                                                                                           \
        st = (expr);                                                                               \
        if (st != STATUS_OK)                                                                       \
            goto label;                                                                            \
    } while (0)

#endif
