/*
 * run_log.h - log.jsonl: one JSON object a line, for programs; and the lines people read while a
 * trial trains.
 *
 * Rank 0 of a group writes; on other ranks every call does nothing. Resuming drops lines of steps
 * that will run again.
 */
#ifndef COHORT_WORKER_RUN_LOG_H
#define COHORT_WORKER_RUN_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

struct run_log; /* opaque */

/* Open <folder>/log.jsonl for appending after dropping lines whose "step" is above keep_step (-1:
 * all). STATUS_IO. */
NODISCARD enum status run_log_open(const char *folder, bool writes, int64_t keep_step,
                                   struct run_log **out);
/*
 * Append one object; steals the reference (also on failure). NULL means that memory ran out:
 * STATUS_NOMEM. A line that cannot be written (full disk) is left out whole, with one warning for
 * all of them; the next one is tried again.
 */
NODISCARD enum status run_log_add(struct run_log *log, json_t *line);
/* Flush to the disk: before a checkpoint is committed. */
NODISCARD enum status run_log_sync(struct run_log *log);
void run_log_close(struct run_log *log);

/* "%dm %ds" of seconds, as the source's log prints it (N13). buffer holds 32. */
const char *minutes_seconds(double seconds, char buffer[32]);

#endif
