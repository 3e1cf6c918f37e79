/*
 * checkpoint.c - see checkpoint.h.
 *
 * The order of a commit is the whole design: files and their folder reach the disk before the
 * manifest, the manifest before the rename, the rename before the old folder goes. At every point
 * in between, a crash leaves a folder that verifies under NAME, or under NAME.old from where it is
 * renamed back.
 *
 * The manifest carries a hash of itself ("check": its bytes with these 16 digits zero), so that a
 * flipped bit in the manifest is found like one in any other file.
 */
#include "ckpt/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#define MANIFEST "manifest.json"
#define MANIFEST_END                                                                               \
    "\"\n}\n" /* what json_dumps with indentation and our newline put behind the last value */
static const char prefix[] = "checkpoint-";
enum { NAME_MOST = 100, CHECK_DIGITS = 16, MANIFEST_MOST = 64 << 20, LOCK_MOST = 64 << 10 };

/* The three places a checkpoint can be in; all owned. */
struct paths {
    char *name, *tmp, *old;
};

static void paths_release(struct paths *paths)
{
    mem_free(paths->name);
    mem_free(paths->tmp);
    mem_free(paths->old);
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static enum status paths_init(struct paths *paths, const char *folder, const char *name)
{
    char with_end[NAME_MOST + 8];
    enum status st;
    size_t n = strlen(name);
    *paths = (struct paths){0};
    if (n == 0 || n > NAME_MOST || name[0] == '.' || ends_in(name, ".tmp") ||
        ends_in(name, ".old") ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != n)
        return status_fail(STATUS_ARG, "\"%.120s\" is no name for a checkpoint", name);
    TRY_GOTO(fail, path_join(folder, name, &paths->name));
    (void)snprintf(with_end, sizeof with_end, "%s.tmp", name);
    TRY_GOTO(fail, path_join(folder, with_end, &paths->tmp));
    (void)snprintf(with_end, sizeof with_end, "%s.old", name);
    TRY_GOTO(fail, path_join(folder, with_end, &paths->old));
    return STATUS_OK;
fail:
    paths_release(paths);
    return st;
}

static bool is_there(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Names in a manifest come from a file: they never lead out of the folder. */
static bool is_plain_name(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= NAME_MAX && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* A crash between the two renames of a commit left only NAME.old: it is the checkpoint. */
static enum status recover(const struct paths *paths)
{
    if (is_there(paths->name) || !file_is_folder(paths->old))
        return STATUS_OK;
    log_warning("%s: a commit was cut short; %s is put back", paths->name, path_base(paths->old));
    return file_rename(paths->old, paths->name);
}

/* need x 1.1 bytes are free on the disk that holds path. */
static enum status check_space(const char *path, int64_t need_bytes)
{
    struct statvfs disk;
    if (need_bytes <= 0 ||
        statvfs(path, &disk) != 0) /* a file system that does not say is found out by writing */
        return STATUS_OK;
    unsigned __int128 spare = (unsigned __int128)disk.f_bavail * disk.f_frsize;
    unsigned __int128 need = (unsigned __int128)need_bytes + (unsigned __int128)need_bytes / 10;
    if (spare >= need)
        return STATUS_OK;
    return status_fail(STATUS_IO,
                       "%s: a checkpoint needs %llu bytes with room to spare, %llu are free", path,
                       (unsigned long long)need, (unsigned long long)spare);
}

enum status checkpoint_begin(const char *folder, const char *name, int64_t need_bytes,
                             struct str *working)
{
    struct paths paths;
    enum status st;
    str_clear(working);
    TRY(paths_init(&paths, folder, name));
    TRY_GOTO(done, fault_here("ckpt.begin"));
    TRY_GOTO(done, folder_make(folder));
    TRY_GOTO(done, recover(&paths));
    TRY_GOTO(done, folder_remove(paths.tmp));
    TRY_GOTO(done, folder_remove(
                       paths.old)); /* NAME is there and was complete before this was moved aside */
    TRY_GOTO(done, check_space(folder, need_bytes));
    TRY_GOTO(done, folder_make(paths.tmp));
    TRY_GOTO(done, fault_here("ckpt.begun"));
    st = str_add(working, paths.tmp, strlen(paths.tmp));
done:
    paths_release(&paths);
    return st;
}

void checkpoint_drop(const char *folder, const char *name)
{
    struct paths paths;
    char sentence[1024];
    (void)snprintf(sentence, sizeof sentence, "%s", status_message());
    if (paths_init(&paths, folder, name) == STATUS_OK) {
        if (folder_remove(paths.tmp) != STATUS_OK)
            log_warning("%s", status_message());
        paths_release(&paths);
    }
    (void)status_fail(STATUS_IO, "%s", sentence);
}

/* ---- manifest ---- */

static enum status flush_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return status_fail(STATUS_IO, "cannot open %s: %s", path, strerror(errno));
    int failed = fsync(fd), error = errno;
    (void)close(fd);
    if (failed != 0 && error != EINVAL && error != EROFS)
        return status_fail(STATUS_IO, "cannot flush %s: %s", path, strerror(error));
    return STATUS_OK;
}

/* Flush and hash one file. expected: its entry in the manifest it was copied from, or NULL. */
static enum status add_file(json_t *files, const char *folder, const char *name,
                            const json_t *expected)
{
    struct stat info;
    char *path;
    uint64_t hash;
    int64_t size;
    TRY(path_join(folder, name, &path));
    enum status st = STATUS_OK;
    if (lstat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        st = status_fail(STATUS_IO, "%s is not a plain file, and a checkpoint holds nothing else",
                         path);
        goto done;
    }
    TRY_GOTO(done, flush_file(path));
    TRY_GOTO(done, hash_file(path, &hash, &size));
    json_t *entry = json_pack("{s:I, s:o}", "size", (json_int_t)size, "xxh3", json_hex64(hash));
    if (entry == NULL) {
        st = status_fail(STATUS_NOMEM, "%s: no memory for its manifest entry", path);
    } else if (expected != NULL && !json_equal(entry, expected)) {
        json_decref(entry);
        st = status_fail(STATUS_FORMAT, "%s is not what it was when the checkpoint was committed",
                         path);
    } else if (json_object_set_new(files, name, entry) != 0) {
        st = status_fail(STATUS_FORMAT, "%s: its name is not UTF-8", path);
    }
done:
    mem_free(path);
    return st;
}

static enum status list_files(const char *folder, const json_t *expected, json_t *files)
{
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        if (strcmp(names[i], MANIFEST) != 0) /* of a commit that failed before */
            st = add_file(files, folder, names[i], json_object_get(expected, names[i]));
    }
    folder_list_free(names, count);
    return st;
}

static bool is_own_key(const char *key)
{
    return strcmp(key, "format") == 0 || strcmp(key, "version") == 0 || strcmp(key, "files") == 0 ||
           strcmp(key, "check") == 0;
}

static enum status merge_extra(json_t *manifest, const json_t *extra)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)extra, key, value)
    {
        if (is_own_key(key))
            return status_fail(STATUS_ARG,
                               "\"%s\" is the manifest's own key and cannot be merged in", key);
        if (json_object_set(manifest, key, value) != 0)
            return status_fail(STATUS_NOMEM, "no memory for a manifest");
    }
    return STATUS_OK;
}

/* Where the 16 digits of "check" are, or NULL: the last value of the file as save_manifest() writes
 * it. */
static char *find_check(char *bytes, size_t n)
{
    size_t tail = CHECK_DIGITS + strlen(MANIFEST_END);
    if (n < tail ||
        memcmp(bytes + n - strlen(MANIFEST_END), MANIFEST_END, strlen(MANIFEST_END)) != 0)
        return NULL;
    return bytes + n - tail;
}

static enum status save_manifest(const char *path, json_t *manifest)
{
    char digits[CHECK_DIGITS + 1];
    enum status st;
    if (json_object_set_new(manifest, "check", json_hex64(0)) != 0)
        return status_fail(STATUS_NOMEM, "no memory for a manifest");
    char *text = json_dumps(manifest, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (text == NULL)
        return status_fail(STATUS_ARG, "%s: its values cannot be written as JSON", path);
    size_t n = strlen(text);
    text[n++] = '\n'; /* in place of the NUL: the length says where the text ends */
    char *check = find_check(text, n);
    if (check == NULL) {
        st = status_fail(STATUS_INTERNAL, "%s: the manifest does not end as expected", path);
    } else {
        (void)snprintf(digits, sizeof digits, "%016llx", (unsigned long long)hash_bytes(text, n));
        memcpy(check, digits, CHECK_DIGITS);
        st = file_write_atomic(path, text, n);
    }
    free(text);
    return st;
}

static enum status make_manifest(const char *folder, const json_t *extra, const json_t *expected)
{
    char *path = NULL;
    enum status st;
    json_t *files = json_object();
    json_t *manifest =
        json_pack("{s:s, s:i, s:O}", "format", "cohort-checkpoint", "version", 1, "files", files);
    if (manifest == NULL) {
        st = status_fail(STATUS_NOMEM, "no memory for a manifest");
        goto done;
    }
    TRY_GOTO(done, merge_extra(manifest, extra));
    TRY_GOTO(done, list_files(folder, expected, files));
    TRY_GOTO(done, path_join(folder, MANIFEST, &path));
    TRY_GOTO(done, fault_here("ckpt.manifest"));
    st = save_manifest(path, manifest);
done:
    mem_free(path);
    json_decref(manifest);
    json_decref(files);
    return st;
}

/* Parse manifest.json of a folder after its own hash was checked. */
static enum status load_manifest(const char *folder, json_t **out)
{
    char *path, *bytes = NULL;
    size_t n;
    uint64_t wanted;
    int64_t version;
    const char *format;
    enum status st;
    *out = NULL;
    TRY(path_join(folder, MANIFEST, &path));
    if (!file_exists(path)) {
        st = status_fail(STATUS_FORMAT, "%s has no " MANIFEST ": it was never committed", folder);
        goto done;
    }
    TRY_GOTO(done, file_read(path, MANIFEST_MOST, &bytes, &n));
    TRY_GOTO(done, json_parse(bytes, n, path, out));
    TRY_GOTO(done, json_text(*out, "format", path, &format));
    if (strcmp(format, "cohort-checkpoint") != 0) {
        st = status_fail(STATUS_FORMAT, "%s: \"format\" is \"%.40s\", wanted \"cohort-checkpoint\"",
                         path, format);
        goto done;
    }
    TRY_GOTO(done, json_int(*out, "version", path, 1, 1, &version));
    TRY_GOTO(done, json_get_hex64(*out, "check", path, &wanted));
    char *check = find_check(bytes, n);
    if (check != NULL)
        memset(check, '0', CHECK_DIGITS);
    if (check == NULL || hash_bytes(bytes, n) != wanted)
        st = status_fail(STATUS_FORMAT,
                         "%s has changed since it was written (its hash is not \"check\")", path);
done:
    if (st != STATUS_OK) {
        json_decref(*out);
        *out = NULL;
    }
    mem_free(bytes);
    mem_free(path);
    return st;
}

static enum status verify_file(const char *folder, const char *name, const json_t *entry, bool deep)
{
    struct stat info;
    char *path;
    int64_t wanted_size, size;
    uint64_t wanted, hash;
    enum status st = STATUS_OK;
    if (!is_plain_name(name))
        return status_fail(STATUS_FORMAT, "%s: " MANIFEST " names a file outside the folder",
                           folder);
    TRY(path_join(folder, name, &path));
    TRY_GOTO(done, json_int(entry, "size", path, 0, INT64_MAX, &wanted_size));
    TRY_GOTO(done, json_get_hex64(entry, "xxh3", path, &wanted));
    if (stat(path, &info) != 0)
        st = status_fail(STATUS_FORMAT, "%s is missing: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        st = status_fail(STATUS_FORMAT, "%s is not a plain file", path);
    else if (info.st_size != wanted_size)
        st = status_fail(STATUS_FORMAT, "%s has %lld bytes, its manifest says %lld", path,
                         (long long)info.st_size, (long long)wanted_size);
    if (st != STATUS_OK || !deep)
        goto done;
    TRY_GOTO(done, hash_file(path, &hash, &size));
    if (hash != wanted || size != wanted_size)
        st = status_fail(STATUS_FORMAT, "%s: its bytes hash to %016llx, its manifest says %016llx",
                         path, (unsigned long long)hash, (unsigned long long)wanted);
done:
    mem_free(path);
    return st;
}

static enum status verify_folder(const char *folder, bool deep, json_t **manifest)
{
    const char *name;
    json_t *entry;
    *manifest = NULL;
    if (!file_is_folder(folder))
        return status_fail(STATUS_NOINPUT, "%s: there is no such folder", folder);
    TRY(load_manifest(folder, manifest));
    json_t *files = json_object_get(*manifest, "files");
    enum status st = STATUS_OK;
    if (!json_is_object(files))
        st = status_fail(STATUS_FORMAT, "%s/" MANIFEST ": \"files\" is not an object", folder);
    json_object_foreach(files, name, entry)
    {
        if (st == STATUS_OK)
            st = verify_file(folder, name, entry, deep);
    }
    if (st != STATUS_OK) {
        json_decref(*manifest);
        *manifest = NULL;
    }
    return st;
}

enum status checkpoint_manifest(const char *folder, const char *name, json_t **out)
{
    struct paths paths;
    *out = NULL;
    TRY(paths_init(&paths, folder, name));
    enum status st = verify_folder(paths.name, false, out);
    paths_release(&paths);
    return st;
}

enum status checkpoint_verify(const char *folder, const char *name, bool deep)
{
    struct paths paths;
    json_t *manifest;
    TRY(paths_init(&paths, folder, name));
    enum status st = verify_folder(paths.name, deep, &manifest);
    json_decref(manifest);
    paths_release(&paths);
    return st;
}

/* ---- commit ---- */

/* Take the renames of a commit back, as far as they came; the sentence of the failure stays the
 * caller's. */
static void undo(const struct paths *paths, bool moved_in, bool moved_aside)
{
    char sentence[1024];
    (void)snprintf(sentence, sizeof sentence, "%s", status_message());
    if ((moved_in && rename(paths->name, paths->tmp) != 0) ||
        (moved_aside && rename(paths->old, paths->name) != 0))
        log_warning("%s: cannot take a failed commit back: %s", paths->name, strerror(errno));
    (void)status_fail(STATUS_IO, "%s", sentence);
}

static enum status swap_in(const char *folder, const struct paths *paths)
{
    enum status st;
    bool moved_aside = false, moved_in = false;
    if (is_there(paths->name) && !file_is_folder(paths->name))
        return status_fail(STATUS_IO, "%s: a file of that name is in the way", paths->name);
    if (file_is_folder(paths->name)) {
        TRY(folder_remove(paths->old));
        TRY(fault_here("ckpt.aside"));
        if (rename(paths->name, paths->old) != 0)
            return status_fail(STATUS_IO, "cannot rename %s to %s: %s", paths->name, paths->old,
                               strerror(errno));
        moved_aside = true;
    }
    TRY_GOTO(fail, fault_here("ckpt.rename"));
    if (rename(paths->tmp, paths->name) != 0) {
        st = status_fail(STATUS_IO, "cannot rename %s to %s: %s", paths->tmp, paths->name,
                         strerror(errno));
        goto fail;
    }
    moved_in = true;
    TRY_GOTO(fail, fault_here("ckpt.parent"));
    TRY_GOTO(fail, folder_sync(folder));
    /* From here on the commit stands; what is left is room, and the next begin takes it if this
     * does not. */
    if (moved_aside &&
        (fault_here("ckpt.cleanup") != STATUS_OK || folder_remove(paths->old) != STATUS_OK))
        log_warning("%s is committed, but %s", paths->name, status_message());
    return STATUS_OK;
fail:
    undo(paths, moved_in, moved_aside);
    return st;
}

static enum status commit(const char *folder, const char *name, const json_t *extra,
                          const json_t *expected)
{
    struct paths paths;
    enum status st;
    TRY(paths_init(&paths, folder, name));
    TRY_GOTO(done, fault_here("ckpt.commit"));
    TRY_GOTO(done, folder_sync(paths.tmp));
    TRY_GOTO(done, make_manifest(paths.tmp, extra, expected));
    TRY_GOTO(done, fault_here("ckpt.sync"));
    TRY_GOTO(done, folder_sync(paths.tmp));
    st = swap_in(folder, &paths);
done:
    paths_release(&paths);
    return st;
}

enum status checkpoint_commit(const char *folder, const char *name, const json_t *extra)
{
    return commit(folder, name, extra, NULL);
}

/* ---- many checkpoints ---- */

/* "checkpoint-120" gives 120, with end ".tmp" "checkpoint-120.tmp" does; anything else -1. */
static int64_t step_of(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end), p = strlen(prefix);
    char digits[24];
    int64_t step;
    if (n <= p + m || n - p - m >= sizeof digits || strncmp(name, prefix, p) != 0 ||
        strcmp(name + n - m, end) != 0)
        return -1;
    memcpy(digits, name + p, n - p - m);
    digits[n - p - m] = '\0';
    if (strspn(digits, "0123456789") != n - p - m || (digits[0] == '0' && digits[1] != '\0') ||
        !parse_int64(digits, &step))
        return -1;
    return step;
}

static void step_name(int64_t step, char name[NAME_MOST + 1])
{
    (void)snprintf(name, NAME_MOST + 1, "%s%lld", prefix, (long long)step);
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The steps whose names in names[] have this end, newest first; owned by the caller (mem_free). */
static enum status list_steps(char *const *names, size_t count, const char *end, int64_t **steps,
                              size_t *n)
{
    *n = 0;
    TRY(mem_alloc(count, sizeof **steps, "checkpoint steps", steps));
    for (size_t i = 0; i < count; i++) {
        int64_t step = step_of(names[i], end);
        if (step >= 0)
            (*steps)[(*n)++] = step;
    }
    if (*n > 0)
        qsort(*steps, *n, sizeof **steps, newest_first);
    return STATUS_OK;
}

/* Put back what a cut-short commit moved aside; then list the folder's names. */
static enum status recover_all(const char *folder, char ***names, size_t *count)
{
    struct paths paths;
    TRY(folder_list(folder, names, count));
    for (size_t i = 0; i < *count; i++) {
        char base[NAME_MOST + 1];
        size_t n = strlen((*names)[i]);
        if (step_of((*names)[i], ".old") < 0 && strcmp((*names)[i], "best.old") != 0)
            continue;
        (void)snprintf(base, sizeof base, "%.*s", (int)(n - 4), (*names)[i]);
        enum status st = paths_init(&paths, folder, base);
        if (st == STATUS_OK) {
            st = recover(&paths);
            paths_release(&paths);
        }
        if (st != STATUS_OK)
            log_warning("%s",
                        status_message()); /* a folder we may only read: others in it may do */
    }
    folder_list_free(*names, *count);
    return folder_list(folder, names, count);
}

enum status checkpoint_find_last(const char *folder, int64_t *step, char **name)
{
    char **names;
    size_t count, n = 0;
    int64_t *steps = NULL;
    enum status st;
    *step = -1;
    *name = NULL;
    if (!file_is_folder(folder))
        return STATUS_OK;
    TRY(recover_all(folder, &names, &count));
    TRY_GOTO(done, list_steps(names, count, "", &steps, &n));
    for (size_t i = 0; i < n && *step < 0; i++) {
        char candidate[NAME_MOST + 1];
        step_name(steps[i], candidate);
        st = checkpoint_verify(folder, candidate, true);
        if (st == STATUS_NOMEM)
            goto done;
        if (st != STATUS_OK) {
            log_warning("%s is skipped: %s", candidate, status_message());
            continue;
        }
        TRY_GOTO(done, mem_strdup(candidate, name));
        *step = steps[i];
    }
    st = STATUS_OK;
done:
    mem_free(steps);
    folder_list_free(names, count);
    return st;
}

/* Out of the way by one rename, so that a crash while its files go leaves no half checkpoint under
 * its name. */
static enum status remove_whole(const char *folder, const char *name)
{
    struct paths paths;
    enum status st;
    TRY(paths_init(&paths, folder, name));
    TRY_GOTO(done, folder_remove(paths.tmp));
    TRY_GOTO(done, file_rename(paths.name, paths.tmp));
    TRY_GOTO(done, fault_here("ckpt.retain"));
    st = folder_remove(paths.tmp);
done:
    paths_release(&paths);
    return st;
}

/* Remove "checkpoint-<step><end>" for steps before the newest good one: nobody will come back for
 * them. */
static enum status sweep(const char *folder, char *const *names, size_t count, const char *end,
                         int64_t newest)
{
    for (size_t i = 0; i < count; i++) {
        char *path;
        int64_t step = step_of(names[i], end);
        if (step < 0 || step >= newest)
            continue;
        TRY(path_join(folder, names[i], &path));
        enum status st = folder_remove(path);
        mem_free(path);
        TRY(st);
    }
    return STATUS_OK;
}

static bool is_among(int64_t step, const int64_t *steps, int count)
{
    for (int i = 0; i < count; i++) {
        if (steps[i] == step)
            return true;
    }
    return false;
}

/* Whether cohort wrote this folder, sound or not: other trainers name theirs alike. */
static bool is_ours(const char *folder, const char *name)
{
    struct paths paths;
    char *path = NULL;
    json_t *manifest = NULL;
    if (paths_init(&paths, folder, name) != STATUS_OK)
        return false;
    if (path_join(paths.name, MANIFEST, &path) != STATUS_OK ||
        json_read_file(path, MANIFEST_MOST, &manifest) != STATUS_OK)
        manifest = NULL; /* what cannot be read is left alone */
    const char *format = json_string_value(json_object_get(manifest, "format"));
    bool ours = format != NULL && strcmp(format, "cohort-checkpoint") == 0 &&
                json_integer_value(json_object_get(manifest, "version")) ==
                    1; /* another version's is kept */
    json_decref(manifest);
    mem_free(path);
    paths_release(&paths);
    return ours;
}

enum status checkpoint_retain(const char *folder, int keep, const int64_t *protect, int protects)
{
    char **names;
    size_t count, n = 0;
    int64_t *steps = NULL, newest = -1;
    int kept = 0;
    enum status st;
    TRY(recover_all(folder, &names, &count));
    TRY_GOTO(done, list_steps(names, count, "", &steps, &n));
    for (size_t i = 0; i < n; i++) {
        char name[NAME_MOST + 1];
        step_name(steps[i], name);
        enum status verified = checkpoint_verify(folder, name, false);
        bool good = verified == STATUS_OK;
        if (newest < 0) { /* broken ones above the newest good are left for somebody to look at */
            newest = good ? steps[i] : -1;
            continue;
        }
        if (is_among(steps[i], protect, protects))
            continue;
        if (good && kept < keep) {
            kept++;
            continue;
        }
        bool damaged = verified == STATUS_FORMAT; /* not: could not be read just now */
        if ((good || damaged) && is_ours(folder, name))
            TRY_GOTO(done, remove_whole(folder, name));
    }
    TRY_GOTO(done, sweep(folder, names, count, ".tmp", newest));
    st = sweep(folder, names, count, ".old", newest);
done:
    mem_free(steps);
    folder_list_free(names, count);
    return st;
}

/* ---- publishing ---- */

/* A copy in pieces: weights may be larger than memory should hold twice. */
static enum status copy_pieces(const char *from, const char *to)
{
    const size_t piece = (size_t)1 << 20;
    char *buffer = NULL;
    int out = -1;
    enum status st = STATUS_OK;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return status_fail(STATUS_NOINPUT, "%s: %s", from, strerror(errno));
    TRY_GOTO(done, mem_alloc_raw(piece, 1, "a copy buffer", &buffer));
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (out < 0) {
        st = status_fail(STATUS_IO, "cannot make %s: %s", to, strerror(errno));
        goto done;
    }
    for (;;) {
        ssize_t n = read(in, buffer, piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = status_fail(STATUS_IO, "cannot read %s: %s", from, strerror(errno));
            goto done;
        }
        if (n == 0)
            break;
        TRY_GOTO(done, fd_write_all(out, buffer, (size_t)n, to));
    }
    if (fsync(out) != 0)
        st = status_fail(STATUS_IO, "cannot flush %s: %s", to, strerror(errno));
done:
    if (out >= 0 && close(out) != 0 && st == STATUS_OK)
        st = status_fail(STATUS_IO, "cannot close %s: %s", to, strerror(errno));
    (void)close(in);
    mem_free(buffer);
    return st;
}

static enum status link_or_copy(const char *from_folder, const char *to_folder, const char *name)
{
    char *from, *to = NULL;
    TRY(path_join(from_folder, name, &from));
    enum status st = path_join(to_folder, name, &to);
    /* where links are not to be had (FAT, some network file systems, too many), a copy does */
    if (st == STATUS_OK && (fault_here("ckpt.link") != STATUS_OK || link(from, to) != 0))
        st = copy_pieces(from, to);
    mem_free(from);
    mem_free(to);
    return st;
}

static bool is_training_state(const char *name)
{
    return strcmp(name, "optimizer.safetensors") == 0 || strcmp(name, "state.json") == 0;
}

/* What was merged into the source's manifest, and where the copy comes from; *out owned. */
static enum status published_extra(const json_t *manifest, const char *source, json_t **out)
{
    const char *key;
    json_t *value;
    *out = json_object();
    bool ok = *out != NULL;
    json_object_foreach((json_t *)manifest, key, value)
    {
        if (!is_own_key(key))
            ok = ok && json_object_set(*out, key, value) == 0;
    }
    ok = ok && json_object_set_new(*out, "source", json_string(source)) == 0;
    if (ok)
        return STATUS_OK;
    json_decref(*out);
    *out = NULL;
    return status_fail(STATUS_NOMEM, "no memory for a manifest");
}

enum status checkpoint_publish(const char *folder, int64_t step, const char *name)
{
    char source[NAME_MOST + 1];
    const char *file;
    struct paths from;
    struct str working = {0};
    json_t *manifest = NULL, *extra = NULL, *entry;
    bool begun = false;
    enum status st;
    step_name(step, source);
    TRY(paths_init(&from, folder, source));
    TRY_GOTO(done, verify_folder(from.name, false, &manifest));
    TRY_GOTO(done, published_extra(manifest, source, &extra));
    TRY_GOTO(done, checkpoint_begin(folder, name, 0, &working));
    begun = true;
    json_t *files = json_object_get(manifest, "files");
    json_object_foreach(files, file, entry)
    {
        if (!is_training_state(file))
            TRY_GOTO(done, link_or_copy(from.name, working.p, file));
    }
    TRY_GOTO(done, fault_here("ckpt.publish"));
    st = commit(folder, name, extra, files);
done:
    if (st != STATUS_OK && begun)
        checkpoint_drop(folder, name);
    json_decref(manifest);
    json_decref(extra);
    str_release(&working);
    paths_release(&from);
    return st;
}

/* ---- fence ---- */

static const char *text_of(const json_t *lock, const char *key)
{
    const char *text = json_string_value(json_object_get(lock, key));
    return text == NULL ? "" : text;
}

/* The job this process belongs to, "" outside a scheduler. */
static void find_job(char *job, size_t room, int64_t *restart)
{
    const char *id = getenv("SLURM_JOB_ID"), *count = getenv("SLURM_RESTART_COUNT");
    (void)snprintf(job, room, "%s", id == NULL ? "" : id);
    if (count == NULL || !parse_int64(count, restart) || *restart < 0)
        *restart = 0;
}

/* The lock that is there already, NULL if there is none worth reading; *out owned. */
static enum status read_lock(const char *path, json_t **out)
{
    *out = NULL;
    if (!is_there(path))
        return STATUS_OK;
    enum status st = json_read_file(path, LOCK_MOST, out);
    if (st ==
        STATUS_FORMAT) { /* it is written atomically, so this is damage: nobody can be named */
        log_warning("%s is replaced: %s", path, status_message());
        st = STATUS_OK;
    }
    return st;
}

enum status checkpoint_fence(const char *run_folder, char token[64])
{
    char host[128] = "", job[64];
    char *path;
    uint64_t noise;
    int64_t restart;
    json_t *before = NULL, *lock = NULL;
    enum status st;
    token[0] = '\0';
    TRY(path_join(run_folder, "run.lock", &path));
    TRY_GOTO(done, folder_make(run_folder));
    TRY_GOTO(done, read_lock(path, &before));
    find_job(job, sizeof job, &restart);
    const json_t *restart_before = json_object_get(before, "restart");
    if (job[0] != '\0' && strcmp(text_of(before, "job"), job) == 0 &&
        json_is_integer(restart_before) && json_integer_value(restart_before) > restart) {
        st =
            status_fail(STATUS_FENCED,
                        "%s: restart %lld of job %s on %.60s has taken over from this restart %lld",
                        path, (long long)json_integer_value(restart_before), job,
                        text_of(before, "host"), (long long)restart);
        goto done;
    }
    (void)gethostname(host, sizeof host - 1);
    if (getrandom(&noise, sizeof noise, 0) != (ssize_t)sizeof noise) {
        st = status_fail(STATUS_OS, "no random numbers for %s: %s", path, strerror(errno));
        goto done;
    }
    (void)snprintf(token, 64, "%016llx-%ld", (unsigned long long)noise, (long)getpid());
    lock = json_pack("{s:s, s:s, s:I, s:s, s:I, s:s}", "format", "cohort-lock", "host", host, "pid",
                     (json_int_t)getpid(), "job", job, "restart", (json_int_t)restart, "token",
                     token);
    st = lock == NULL ? status_fail(STATUS_OS, "%s: the host's name is not UTF-8", path)
                      : json_write_file(path, lock);
done:
    if (st != STATUS_OK)
        token[0] = '\0';
    json_decref(before);
    json_decref(lock);
    mem_free(path);
    return st;
}

enum status checkpoint_check_fence(const char *run_folder, const char token[64])
{
    char *path;
    json_t *lock = NULL;
    TRY(path_join(run_folder, "run.lock", &path));
    enum status st = json_read_file(path, LOCK_MOST, &lock);
    if (st == STATUS_NOINPUT && !is_there(path))
        st = status_fail(STATUS_FENCED, "%s is gone: this run's folder was cleared", path);
    else if (st == STATUS_NOINPUT)
        st = status_prefix(STATUS_IO, "run.lock cannot be read");
    else if (st == STATUS_OK && strcmp(text_of(lock, "token"), token) != 0)
        st = status_fail(STATUS_FENCED, "%s: taken over by process %lld on %.60s%s%.60s", path,
                         (long long)json_integer_value(json_object_get(lock, "pid")),
                         text_of(lock, "host"), text_of(lock, "job")[0] == '\0' ? "" : ", job ",
                         text_of(lock, "job"));
    json_decref(lock);
    mem_free(path);
    return st;
}
