/*
 * mem.h - checked sizes and aligned host memory.
 *
 * Sizes that come from files or configurations are multiplied and added with overflow checks;
 * memory for numbers is 64-byte aligned (one cache line, one AVX-512 register). Failure is
 * STATUS_NOMEM with the size in the sentence.
 */
#ifndef COHORT_BASE_MEM_H
#define COHORT_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* *out = a * b or a + b; false, and *out untouched, where the result does not fit. */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool size_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* Round n up to a multiple of step (step > 0; the caller knows that n + step fits). */
static inline int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

/* STATUS_ARG unless value fits an int (MPI counts, oneDNN strides of old interfaces); what names it
 * in the sentence. */
NODISCARD enum status checked_int(int64_t value, const char *what, int *out);

/*
 * count elements of size bytes, 64-byte aligned, zeroed, owned by the caller (mem_free). count 0
 * gives a valid pointer. what names the use in the sentence: "the row offsets". STATUS_NOMEM; *out
 * is NULL then.
 */
NODISCARD enum status mem_alloc(size_t count, size_t size, const char *what, void *out);

/* As mem_alloc, but not zeroed: for blocks that are written before they are read. */
NODISCARD enum status mem_alloc_raw(size_t count, size_t size, const char *what, void *out);

/* Free memory of mem_alloc; NULL is fine. */
void mem_free(void *p);

/*
 * Make room for need elements in *array, growing geometrically; *array is from this function or
 * NULL and is freed with mem_free(). *capacity counts elements. STATUS_NOMEM leaves both as they
 * were.
 */
NODISCARD enum status mem_grow(void *array, size_t *capacity, size_t need, size_t size,
                               const char *what);

/* A copy of the n bytes at s with a NUL behind them, owned by the caller (mem_free). */
NODISCARD enum status mem_strndup(const char *s, size_t n, char **out);
NODISCARD enum status mem_strdup(const char *s, char **out);

/* Peak resident memory of this process in bytes; 0 where the system does not say. */
int64_t mem_peak_bytes(void);
/* Memory this process may use, in bytes: the least of physical memory, cgroup and address-space
 * limits. */
int64_t mem_limit_bytes(void);

#endif
