/*
 * file.h - whole files, atomic replacement, folders and paths.
 *
 * A file that others rely on is written under a temporary name beside it, flushed to the disk and
 * renamed, so a reader sees the old file or the new one and a crash leaves the old one.
 */
#ifndef COHORT_BASE_FILE_H
#define COHORT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* Join folder and name with one slash. STATUS_NOMEM. *out is owned by the caller (mem_free). */
NODISCARD enum status path_join(const char *folder, const char *name, char **out);
/* The part behind the last slash; borrowed from path. */
const char *path_base(const char *path);
/* The extension with its dot (".tsv"), "" if there is none; ".gz" and ".zst" are skipped:
 * "a.tsv.gz" gives ".tsv". */
NODISCARD enum status path_extension(const char *path, struct str *out);

bool file_exists(const char *path); /* a file or folder is there */
bool file_is_folder(const char *path);
/* STATUS_NOINPUT if it is not there. */
NODISCARD enum status file_size(const char *path, int64_t *size_bytes);
/* mkdir -p. STATUS_IO. */
NODISCARD enum status folder_make(const char *path);
/* Names in a folder, sorted bytewise, without "." and ".."; owned by the caller (folder_list_free).
 */
NODISCARD enum status folder_list(const char *path, char ***names, size_t *count);
void folder_list_free(char **names, size_t count);
/* rm -r of a folder we made ourselves; does not follow links. Missing is fine. */
NODISCARD enum status folder_remove(const char *path);
/* fsync a folder, so that a rename in it is durable. */
NODISCARD enum status folder_sync(const char *path);
/* rename(2) and folder_sync of the parent. */
NODISCARD enum status file_rename(const char *from, const char *to);

/* Read all of a file of at most limit bytes (STATUS_FORMAT if larger); NUL behind; owned by the
 * caller (mem_free). */
NODISCARD enum status file_read(const char *path, size_t limit, char **bytes, size_t *n);
/* Write path.tmp.<pid>, fsync, rename, fsync the folder. On failure the old file is untouched.
 * STATUS_IO. */
NODISCARD enum status file_write_atomic(const char *path, const void *bytes, size_t n);
/* Copy one file's bytes to a new place, fsynced. */
NODISCARD enum status file_copy(const char *from, const char *to);
/* write(2) and pwrite(2) until all n bytes are out; a short disk is STATUS_IO with the path in the
 * sentence. */
NODISCARD enum status fd_write_all(int fd, const void *bytes, size_t n, const char *path);
NODISCARD enum status fd_pwrite_all(int fd, const void *bytes, size_t n, int64_t offset,
                                    const char *path);
NODISCARD enum status fd_pread_all(int fd, void *bytes, size_t n, int64_t offset, const char *path);

#endif
