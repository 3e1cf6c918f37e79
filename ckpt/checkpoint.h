/*
 * checkpoint.h - folders that appear whole or not at all, and that are verified before they are believed.
 *
 * Commit: work in NAME.tmp, every file fsynced, ranks agree (the caller), rank 0 calls checkpoint_commit(): manifest.json
 * with size and XXH3 of every file, fsync, rename to NAME, fsync of the parent. Loading verifies the manifest and falls
 * back to the previous good folder. Names: "checkpoint-<step>", "best".
 *
 * Local: several ranks may work in one NAME.tmp; who does what is the caller's.
 */
#ifndef COHORT_CKPT_CHECKPOINT_H
#define COHORT_CKPT_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "base/str.h"

/* Start a folder: removes a left-over NAME.tmp, makes it anew; *working = its path (caller's str). STATUS_IO. Needs
 * need_bytes x 1.1 of free space (0: unknown): STATUS_IO naming both figures when there is less. */
NODISCARD enum status checkpoint_begin(const char *folder, const char *name, int64_t need_bytes, struct str *working);
/* Write the manifest (all files of the folder; extra is merged in, may be NULL), rename over nothing, fsync. An existing
 * NAME is replaced: renamed aside first and removed after. STATUS_IO leaves NAME as it was. */
NODISCARD enum status checkpoint_commit(const char *folder, const char *name, const json_t *extra);
/* Remove NAME.tmp after a failure; never fails loudly. */
void checkpoint_drop(const char *folder, const char *name);
/* Verify NAME against its manifest: sizes always, hashes if deep. STATUS_NOINPUT, STATUS_FORMAT (which file, what). */
NODISCARD enum status checkpoint_verify(const char *folder, const char *name, bool deep);
/*
 * The newest "checkpoint-<step>" that verifies: *step and *name (owned, mem_free); *step = -1 and NULL if there is
 * none. Broken ones are skipped with a warning in the log.
 */
NODISCARD enum status checkpoint_find_last(const char *folder, int64_t *step, char **name);
/* Remove old "checkpoint-<step>" folders beyond the newest `keep`, never those in protect[] (steps: best, last). */
NODISCARD enum status checkpoint_retain(const char *folder, int keep, const int64_t *protect, int protects);
/* Make NAME a copy of checkpoint-<step> without its optimizer state (hard links where possible), committed the same way. */
NODISCARD enum status checkpoint_publish(const char *folder, int64_t step, const char *name);

/*
 * Fence: run.lock in the run's folder holds who writes (host, pid, job, restart). checkpoint_fence() writes it at the
 * start; checkpoint_check_fence() is STATUS_FENCED when somebody newer took over. Rank 0 only.
 */
NODISCARD enum status checkpoint_fence(const char *run_folder, char token[64]);
NODISCARD enum status checkpoint_check_fence(const char *run_folder, const char token[64]);

#endif
