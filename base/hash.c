/* hash.c - see hash.h. */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"

uint64_t hash_bytes(const void *bytes, size_t n)
{
    return XXH3_64bits(bytes, n);
}

struct hash128 hash_bytes128(const void *bytes, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits(bytes, n);
    return (struct hash128){hash.low64, hash.high64};
}

uint64_t hash_combine(uint64_t seed, uint64_t value)
{
    return XXH3_64bits_withSeed(&value, sizeof value, seed);
}

enum status hash_file(const char *path, uint64_t *hash, int64_t *size_bytes)
{
    enum status st = STATUS_OK;
    const size_t piece = (size_t)1 << 20;
    char *buffer = NULL;
    *hash = 0;
    *size_bytes = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return status_fail(STATUS_NOINPUT, "%s: %s", path, strerror(errno));
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL || XXH3_64bits_reset(state) != XXH_OK) {
        st = status_fail(STATUS_NOMEM, "no memory to hash %s", path);
        goto done;
    }
    TRY_GOTO(done, mem_alloc_raw(piece, 1, "a hash buffer", &buffer));
    for (;;) {
        ssize_t n = read(fd, buffer, piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = status_fail(STATUS_IO, "cannot read %s: %s", path, strerror(errno));
            goto done;
        }
        if (n == 0)
            break;
        (void)XXH3_64bits_update(state, buffer, (size_t)n);
        *size_bytes += n;
    }
    *hash = XXH3_64bits_digest(state);
done:
    mem_free(buffer);
    (void)XXH3_freeState(state);
    (void)close(fd);
    return st;
}
