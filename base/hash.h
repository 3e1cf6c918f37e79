/*
 * hash.h - XXH3 of bytes, for file manifests, cache keys and the comparison of weights. Not for
 * secrets.
 */
#ifndef COHORT_BASE_HASH_H
#define COHORT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

uint64_t hash_bytes(const void *bytes, size_t n);
/* XXH3-128: so many bits that equal hashes of different bytes need not be thought of. */
struct hash128 {
    uint64_t low, high;
};
struct hash128 hash_bytes128(const void *bytes, size_t n);
/* Mix another hash or number into seed, in order. */
uint64_t hash_combine(uint64_t seed, uint64_t value);
/* XXH3-64 of a whole file, read in pieces. STATUS_NOINPUT, STATUS_IO. */
NODISCARD enum status hash_file(const char *path, uint64_t *hash, int64_t *size_bytes);

#endif
