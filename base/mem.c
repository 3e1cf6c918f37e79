/* mem.c - checked sizes and aligned host memory; see mem.h. */
#include "base/mem.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define ALIGNMENT 64

enum status checked_int(int64_t value, const char *what, int *out)
{
    *out = 0;
    if (value < INT_MIN || value > INT_MAX)
        return status_fail(STATUS_ARG, "%s is %lld, which does not fit 32 bits", what,
                           (long long)value);
    *out = (int)value;
    return STATUS_OK;
}

enum status mem_alloc_raw(size_t count, size_t size, const char *what, void *out)
{
    void *p = NULL;
    size_t bytes, padded;
    memcpy(out, &p, sizeof p);
    if (!size_mul(count, size, &bytes) || !size_add(bytes, 2 * ALIGNMENT, &padded) ||
        padded > PTRDIFF_MAX)
        return status_fail(STATUS_NOMEM,
                           "%s: %zu elements of %zu bytes are more than can be addressed", what,
                           count, size);
    if (posix_memalign(&p, ALIGNMENT, (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT) != 0)
        return status_fail(STATUS_NOMEM, "%s: no memory for %zu bytes", what, bytes);
    memcpy(out, &p, sizeof p);
    return STATUS_OK;
}

enum status mem_alloc(size_t count, size_t size, const char *what, void *out)
{
    void *p;
    TRY(mem_alloc_raw(count, size, what, out));
    memcpy(&p, out, sizeof p);
    memset(p, 0, count * size);
    return STATUS_OK;
}

void mem_free(void *p)
{
    free(p);
}

enum status mem_grow(void *array, size_t *capacity, size_t need, size_t size, const char *what)
{
    void *old, *grown;
    size_t wanted = *capacity < 16 ? 16 : *capacity;
    if (need <= *capacity)
        return STATUS_OK;
    while (wanted < need) {
        if (!size_add(wanted, wanted / 2, &wanted))
            wanted = need;
    }
    memcpy(&old, array, sizeof old);
    TRY(mem_alloc_raw(wanted, size, what, &grown));
    if (old != NULL)
        memcpy(grown, old, *capacity * size);
    memcpy(array, &grown, sizeof grown);
    free(old);
    *capacity = wanted;
    return STATUS_OK;
}

enum status mem_strndup(const char *s, size_t n, char **out)
{
    TRY(mem_alloc_raw(n + 1, 1, "a string", out));
    memcpy(*out, s, n);
    (*out)[n] = '\0';
    return STATUS_OK;
}

enum status mem_strdup(const char *s, char **out)
{
    return mem_strndup(s, strlen(s), out);
}

int64_t mem_peak_bytes(void)
{
    struct rusage usage;
    char line[128];
    long long kib = 0;
    /* Not ru_maxrss first: that begins with the size of the process that started this one. */
    FILE *f = fopen("/proc/self/status", "re");
    while (f != NULL && kib == 0 && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %lld kB", &kib) != 1)
            kib = 0;
    if (f != NULL)
        (void)fclose(f);
    if (kib == 0 && getrusage(RUSAGE_SELF, &usage) == 0)
        kib = usage.ru_maxrss;
    return (int64_t)kib * 1024;
}

static int64_t read_number(const char *path)
{
    long long value = INT64_MAX;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return INT64_MAX;
    if (fscanf(f, "%lld", &value) != 1) /* "max" in cgroup v2 */
        value = INT64_MAX;
    (void)fclose(f);
    return value;
}

int64_t mem_limit_bytes(void)
{
    int64_t limit = INT64_MAX, found;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    struct rlimit address;
    if (pages > 0 && page > 0)
        limit = (int64_t)pages * page;
    found = read_number("/sys/fs/cgroup/memory.max");
    if (found < limit)
        limit = found;
    found = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    if (found < limit)
        limit = found;
    if (getrlimit(RLIMIT_AS, &address) == 0 && address.rlim_cur != RLIM_INFINITY &&
        (int64_t)address.rlim_cur < limit)
        limit = (int64_t)address.rlim_cur;
    return limit;
}
