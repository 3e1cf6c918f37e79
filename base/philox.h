/*
 * philox.h - counter-based random numbers: the same key and counter give the same bits anywhere.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011). A random number is named, never drawn from a stream: the key says what for, the counter
 * which one. Nothing here knows ranks, threads or launches, so recomputation repeats dropout
 * exactly and no generator state is saved.
 */
#ifndef COHORT_BASE_PHILOX_H
#define COHORT_BASE_PHILOX_H

#include <stdint.h>

/* What a random number is for; part of the key, so that no two uses share numbers. Values are
 * stored in results. */
enum random_purpose {
    RANDOM_INIT = 1,    /* weights drawn from the seed */
    RANDOM_SHUFFLE = 2, /* order of an epoch */
    RANDOM_DROPOUT = 3,
    RANDOM_FOLD = 4,      /* folds and hold-out splits */
    RANDOM_BOOTSTRAP = 5, /* confidence intervals */
    RANDOM_REPEAT = 6,    /* seeds of repeats */
    RANDOM_SEARCH = 7     /* settings of a random search */
};

struct philox {
    uint32_t v[4];
};

/* A 64-bit mixer (splitmix64's finalizer, Steele, Lea, Flood 2014): spreads seeds and purposes over
 * keys. */
static inline uint64_t random_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* The key for one purpose; a and b narrow it (step, fold, layer, ...). */
static inline uint64_t random_key(uint64_t seed, enum random_purpose purpose, uint64_t a,
                                  uint64_t b)
{
    return random_mix(random_mix(random_mix(seed ^ ((uint64_t)purpose << 56)) ^ a) ^ b);
}

/* Ten rounds on counter (c0, c1, c2, c3) under key. */
static inline struct philox philox4x32(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                       uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct philox){{c0, c1, c2, c3}};
}

/* A whole number below n (n > 0), without bias worth speaking of: 64 random bits times n, the high
 * half. */
static inline uint64_t random_below(uint64_t key, uint64_t index, uint64_t n)
{
    struct philox p = philox4x32(key, (uint32_t)index, (uint32_t)(index >> 32), 0, 0);
    uint64_t bits = ((uint64_t)p.v[1] << 32) | p.v[0];
    return (uint64_t)(((unsigned __int128)bits * n) >> 64);
}

#endif
