/* file.c - see file.h. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum status path_join(const char *folder, const char *name, char **out)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t bytes = n + strlen(name) + 2;
    TRY(mem_alloc_raw(bytes, 1, "a path", out));
    (void)snprintf(*out, bytes, "%.*s%s%s", (int)n, folder, n == 1 && folder[0] == '/' ? "" : "/",
                   name);
    return STATUS_OK;
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && memcmp(s + n - m, end, m) == 0;
}

enum status path_extension(const char *path, struct str *out)
{
    const char *base = path_base(path);
    size_t n = strlen(base);
    str_clear(out);
    if (ends_with(base, n, ".gz"))
        n -= 3;
    else if (ends_with(base, n, ".zst"))
        n -= 4;
    for (size_t i = n; i-- > 1;) {
        if (base[i] == '.')
            return str_add(out, base + i, n - i);
    }
    return str_add(out, "", 0);
}

bool file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum status file_size(const char *path, int64_t *size_bytes)
{
    struct stat info;
    *size_bytes = 0;
    if (stat(path, &info) != 0)
        return status_fail(STATUS_NOINPUT, "%s: %s", path, strerror(errno));
    *size_bytes = info.st_size;
    return STATUS_OK;
}

enum status folder_make(const char *path)
{
    char *copy;
    enum status st = STATUS_OK;
    TRY(mem_strdup(path, &copy));
    for (char *p = copy + 1; st == STATUS_OK; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            st = status_fail(STATUS_IO, "cannot make the folder %s: %s", copy, strerror(errno));
        else if (!file_is_folder(copy))
            st = status_fail(STATUS_IO,
                             "cannot make the folder %s: a file of that name is in the way", copy);
        *p = kept;
        if (kept == '\0')
            break;
    }
    mem_free(copy);
    return st;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum status folder_list(const char *path, char ***names, size_t *count)
{
    size_t capacity = 0;
    enum status st = STATUS_OK;
    const struct dirent *entry;
    *names = NULL;
    *count = 0;
    DIR *folder = opendir(path);
    if (folder == NULL)
        return status_fail(STATUS_NOINPUT, "cannot list the folder %s: %s", path, strerror(errno));
    while ((entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        TRY_GOTO(fail, mem_grow(names, &capacity, *count + 1, sizeof **names, "a folder's names"));
        TRY_GOTO(fail, mem_strdup(entry->d_name, &(*names)[*count]));
        (*count)++;
    }
    (void)closedir(folder);
    if (*count > 0)
        qsort(*names, *count, sizeof **names, by_bytes);
    return STATUS_OK;
fail:
    (void)closedir(folder);
    folder_list_free(*names, *count);
    *names = NULL;
    *count = 0;
    return st;
}

void folder_list_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
}

enum status folder_remove(const char *path)
{
    struct stat info;
    char **names, *inner;
    size_t count;
    enum status st = STATUS_OK;
    if (lstat(path, &info) != 0)
        return STATUS_OK;
    if (!S_ISDIR(info.st_mode)) {
        if (unlink(path) != 0 && errno != ENOENT)
            return status_fail(STATUS_IO, "cannot remove %s: %s", path, strerror(errno));
        return STATUS_OK;
    }
    TRY(folder_list(path, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        st = path_join(path, names[i], &inner);
        if (st == STATUS_OK) {
            st = folder_remove(inner);
            mem_free(inner);
        }
    }
    folder_list_free(names, count);
    if (st == STATUS_OK && rmdir(path) != 0 && errno != ENOENT)
        st = status_fail(STATUS_IO, "cannot remove the folder %s: %s", path, strerror(errno));
    return st;
}

enum status folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return status_fail(STATUS_IO, "cannot open the folder %s: %s", path, strerror(errno));
    if (fsync(fd) != 0 && errno != EINVAL) { /* EINVAL: a file system without it */
        int error = errno;
        (void)close(fd);
        return status_fail(STATUS_IO, "cannot flush the folder %s: %s", path, strerror(error));
    }
    (void)close(fd);
    return STATUS_OK;
}

static enum status parent_sync(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent;
    if (slash == NULL)
        return folder_sync(".");
    TRY(mem_strndup(path, slash == path ? 1 : (size_t)(slash - path), &parent));
    enum status st = folder_sync(parent);
    mem_free(parent);
    return st;
}

enum status file_rename(const char *from, const char *to)
{
    if (rename(from, to) != 0)
        return status_fail(STATUS_IO, "cannot rename %s to %s: %s", from, to, strerror(errno));
    return parent_sync(to);
}

enum status file_read(const char *path, size_t limit, char **bytes, size_t *n)
{
    struct stat info;
    enum status st = STATUS_OK;
    *bytes = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (fd < 0)
        return status_fail(STATUS_NOINPUT, "%s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0) {
        st = status_fail(STATUS_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        st = status_fail(STATUS_NOINPUT, "%s is %s, wanted a file", path,
                         S_ISDIR(info.st_mode) ? "a folder" : "no plain file");
        goto done;
    }
    if (info.st_size < 0 || (uint64_t)info.st_size > limit) {
        st = status_fail(STATUS_FORMAT, "%s has %lld bytes, wanted at most %zu", path,
                         (long long)info.st_size, limit);
        goto done;
    }
    TRY_GOTO(done, mem_alloc_raw((size_t)info.st_size + 1, 1, "a file's bytes", bytes));
    TRY_GOTO(done, fd_pread_all(fd, *bytes, (size_t)info.st_size, 0, path));
    *n = (size_t)info.st_size;
    (*bytes)[*n] = '\0';
done:
    (void)close(fd);
    if (st != STATUS_OK) {
        mem_free(*bytes);
        *bytes = NULL;
    }
    return st;
}

enum status fd_write_all(int fd, const void *bytes, size_t n, const char *path)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return status_fail(STATUS_IO, "cannot write %s: %s", path,
                               done < 0 ? strerror(errno) : "nothing written");
        p += done;
        n -= (size_t)done;
    }
    return STATUS_OK;
}

enum status fd_pwrite_all(int fd, const void *bytes, size_t n, int64_t offset, const char *path)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t done = pwrite(fd, p, n, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return status_fail(STATUS_IO, "cannot write %s: %s", path,
                               done < 0 ? strerror(errno) : "nothing written");
        p += done;
        offset += done;
        n -= (size_t)done;
    }
    return STATUS_OK;
}

enum status fd_pread_all(int fd, void *bytes, size_t n, int64_t offset, const char *path)
{
    char *p = bytes;
    while (n > 0) {
        ssize_t done = pread(fd, p, n, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return status_fail(STATUS_IO, "cannot read %s: %s", path, strerror(errno));
        if (done == 0)
            return status_fail(STATUS_FORMAT, "%s ends at byte %lld, %zu bytes early", path,
                               (long long)offset, n);
        p += done;
        offset += done;
        n -= (size_t)done;
    }
    return STATUS_OK;
}

static enum status write_and_sync(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return status_fail(STATUS_IO, "cannot write %s: %s", path, strerror(errno));
    enum status st = fd_write_all(fd, bytes, n, path);
    if (st == STATUS_OK && fsync(fd) != 0 && errno != EINVAL && errno != EROFS)
        st = status_fail(STATUS_IO, "cannot flush %s: %s", path, strerror(errno));
    if (close(fd) != 0 && st == STATUS_OK)
        st = status_fail(STATUS_IO, "cannot close %s: %s", path, strerror(errno));
    return st;
}

enum status file_write_atomic(const char *path, const void *bytes, size_t n)
{
    size_t room = strlen(path) + 32;
    char *temporary;
    TRY(mem_alloc_raw(room, 1, "a path", &temporary));
    (void)snprintf(temporary, room, "%s.tmp.%ld", path, (long)getpid());
    enum status st = write_and_sync(temporary, bytes, n);
    if (st == STATUS_OK)
        st = file_rename(temporary, path);
    if (st != STATUS_OK)
        (void)unlink(temporary);
    mem_free(temporary);
    return st;
}

enum status file_copy(const char *from, const char *to)
{
    char *bytes;
    size_t n;
    TRY(file_read(from, (size_t)1 << 32, &bytes, &n)); /* tokenizer files: a few MB */
    enum status st = write_and_sync(to, bytes, n);
    mem_free(bytes);
    return st;
}
