/*
 * checkpoint.h - folders that appear whole or not at all, and that are verified before they are
 * believed.
 *
 * Commit: work in NAME.tmp, every file fsynced, ranks agree (the caller), rank 0 calls
 * checkpoint_commit(): manifest.json with size and XXH3 of every file, fsync, rename to NAME, fsync
 * of the parent. Loading verifies the manifest and falls back to the previous good folder. Names:
 * "checkpoint-<step>", "best"; letters, digits, ".", "_" and "-", at most 100.
 *
 * A folder that replaces another leaves, for a moment, only NAME.old; checkpoint_begin() and
 * checkpoint_find_last() rename it back if a crash came there. They, checkpoint_commit() and
 * checkpoint_retain() are for the one process that owns the run (see the fence);
 * checkpoint_verify() changes nothing.
 *
 * Fault points, in order: ckpt.begin, ckpt.begun, (ckpt.create, ckpt.join, ckpt.write, ckpt.finish
 * of safetensors.h), ckpt.commit, ckpt.manifest, ckpt.sync, ckpt.aside, ckpt.rename, ckpt.parent,
 * ckpt.cleanup; ckpt.publish, ckpt.retain; ckpt.link makes one file of a publication a copy instead
 * of a link.
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

/* Start a folder: removes a left-over NAME.tmp, makes it anew; *working = its path (caller's str).
 * Makes folder too if it is not there. STATUS_IO. Needs need_bytes x 1.1 of free space (0:
 * unknown): STATUS_IO naming both figures when there is less. */
NODISCARD enum status checkpoint_begin(const char *folder, const char *name, int64_t need_bytes,
                                       struct str *working);
/* Write the manifest (all files of the folder; extra is merged in, may be NULL), rename over
 * nothing, fsync. An existing NAME is replaced: renamed aside first and removed after. STATUS_IO
 * leaves NAME as it was, and NAME.tmp to checkpoint_drop(). STATUS_ARG: extra holds a key of the
 * manifest's own (format, version, files, check). */
NODISCARD enum status checkpoint_commit(const char *folder, const char *name, const json_t *extra);
/* Remove NAME.tmp after a failure; never fails loudly, and keeps the sentence of that failure. */
void checkpoint_drop(const char *folder, const char *name);
/* Verify NAME against its manifest: the manifest against its own hash and sizes always, hashes if
 * deep. Files that the manifest does not name are tolerated. STATUS_NOINPUT, STATUS_FORMAT (which
 * file, what). */
NODISCARD enum status checkpoint_verify(const char *folder, const char *name, bool deep);
/* Verify as above (not deep) and give the parsed manifest, with what was merged in; *out owned
 * (json_decref). */
NODISCARD enum status checkpoint_manifest(const char *folder, const char *name, json_t **out);
/*
 * The newest "checkpoint-<step>" that verifies (deep): *step and *name (owned, mem_free); *step =
 * -1 and NULL if there is none, or no folder. Broken ones are skipped with a warning in the log.
 */
NODISCARD enum status checkpoint_find_last(const char *folder, int64_t *step, char **name);
/*
 * Remove old "checkpoint-<step>" folders: kept are the newest that verifies (not deep), those in
 * protect[] (steps: best, last), the newest `keep` besides, broken ones newer than the newest good,
 * and folders whose manifest does not say that cohort wrote them. Also removes what crashes left
 * over (.tmp, .old) of steps before the newest. A folder is renamed to .tmp before it is removed:
 * it goes whole, too.
 */
NODISCARD enum status checkpoint_retain(const char *folder, int keep, const int64_t *protect,
                                        int protects);
/* Make NAME a copy of checkpoint-<step> without optimizer.safetensors and state.json (hard links
 * where possible), committed the same way, with the same extra and "source". STATUS_NOINPUT,
 * STATUS_IO; STATUS_FORMAT: the checkpoint is not what it was when it was committed. */
NODISCARD enum status checkpoint_publish(const char *folder, int64_t step, const char *name);

/*
 * Fence: run.lock in the run's folder holds who writes (host, pid, job, restart).
 * checkpoint_fence() writes it at the start; checkpoint_check_fence() is STATUS_FENCED when
 * somebody newer took over, or the lock is gone. Whoever comes last is newest, except that a later
 * restart of the same Slurm job is never overtaken by an earlier one (checkpoint_fence() is
 * STATUS_FENCED then). Rank 0 only.
 */
NODISCARD enum status checkpoint_fence(const char *run_folder, char token[64]);
NODISCARD enum status checkpoint_check_fence(const char *run_folder, const char token[64]);

#endif
