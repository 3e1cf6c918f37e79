/*
 * emulated_internal.h - what the emulator's own sources share: emulated_runtime.cpp (devices,
 * memory, streams, graphs), emulated_kernel.cpp (blocks, threads, warps), emulated_hooks.cpp
 * (shadow memory, with EMULATED_CUDA_HOOKS).
 */
#ifndef EMULATED_INTERNAL_H
#define EMULATED_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "cuda_emulated.cuh"
#include "emulated_cuda.h"

/* Guard zones: 0x7FD5 in 16-bit steps, a NaN as bf16, fp16, float and double. */
static inline unsigned char guard_byte(const unsigned char *p)
{
    return (uintptr_t)p & 1 ? 0x7f : 0xd5;
}
void guard_fill(unsigned char *p, size_t n);
bool guard_whole(const unsigned char *p, size_t n);

/* ---- device memory: emulated_runtime.cpp */
static const uintptr_t DEVICE_BASE = 0x200000000000u;
static const uintptr_t DEVICE_WINDOW = (uintptr_t)1 << 36; /* addresses for each device */
enum { MAX_DEVICES = 16, DEVICE_PAGE = 4096 };
static inline bool is_device_address(const void *p)
{
    return (uintptr_t)p - DEVICE_BASE < MAX_DEVICES * DEVICE_WINDOW;
}
struct allocation {
    unsigned char *begin; /* page aligned */
    size_t bytes;
    size_t reserved; /* with the guard zone behind it */
    int device;
};
/* The live allocation around p, or the closest one before it (*inside false), or NULL. */
const allocation *allocation_of(const void *p, bool *inside);
/* "12 bytes behind the 4096 bytes at 0x..." */
void describe_address(const void *p, char *text, size_t n);

/* ---- order: emulated_runtime.cpp */
enum emulated_order_kind { ORDER_FORWARD, ORDER_REVERSE, ORDER_RANDOM };
struct emulated_order_state {
    emulated_order_kind kind;
    uint64_t state; /* random */
};
extern emulated_order_state emulated_order_now;
static inline uint32_t order_random(void)
{
    uint64_t x = emulated_order_now.state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    emulated_order_now.state = x;
    return (uint32_t)(x >> 32);
}

/* ---- kernels: emulated_kernel.cpp */
struct kernel_counts {
    int64_t switches, warp_operations;
};
extern kernel_counts emulated_kernel_counts;
/* Run all blocks; false: reported. */
bool kernel_run(const emulated_kernel *k, const void *args, size_t args_bytes);
/* In a kernel's thread: where, for reports: "kernel k, block (0,0,0), thread (1,0,0)"; else "". */
void kernel_where(char *text, size_t n);
bool kernel_running(void);
/* Give up the kernel that runs (after a report); does not return. */
[[noreturn]] void kernel_abandon(void);
/* Part of a thread's stack. */
bool kernel_stack_address(const void *p);

/* ---- hooks: emulated_hooks.cpp */
#ifdef EMULATED_CUDA_HOOKS
/* An operation (kernel, copy, library call) begins to run; lane and seq name it, clock is what it
 * comes after: clock[lane] = last seq of that lane, lanes entries. */
void hooks_operation(const char *name, uint32_t lane, uint32_t seq, const uint32_t *clock,
                     size_t lanes);
void hooks_allocation(const allocation *a, bool live);
/* Of an operation that is not a kernel. False: reported. */
bool hooks_range(const void *p, size_t bytes, bool write, const char *what);
/* Of a thread; pc for the report, 0: none. */
void hooks_access(const void *p, size_t bytes, bool write, bool atomic, const void *pc);
void hooks_block_begins(void);
void hooks_kernel_begins(const void *args, size_t args_bytes);
void hooks_shared_place(const void *p, size_t bytes); /* of the launch that runs */
void hooks_shared_undefined(const void *p, size_t bytes);
#else
static inline void hooks_operation(const char *, uint32_t, uint32_t, const uint32_t *, size_t)
{
}
static inline void hooks_allocation(const allocation *, bool)
{
}
static inline bool hooks_range(const void *, size_t, bool, const char *)
{
    return true;
}
static inline void hooks_access(const void *, size_t, bool, bool, const void *)
{
}
static inline void hooks_block_begins(void)
{
}
static inline void hooks_kernel_begins(const void *, size_t)
{
}
static inline void hooks_shared_place(const void *, size_t)
{
}
static inline void hooks_shared_undefined(const void *, size_t)
{
}
#endif

/* For the hooks: the thread that runs, and whether what another thread did at (barriers, warp
 * barriers) comes before it. */
struct thread_clock {
    uint32_t thread, barriers, warp_barriers;
};
thread_clock kernel_clock(void);
bool kernel_ordered(thread_clock before);
/* The shared arena of the block that runs. */
extern unsigned char *const emulated_arena;
enum { ARENA_BYTES = 320 * 1024 };

#endif
