/*
 * emulated_hooks.cpp - every access of a kernel looked at, with EMULATED_CUDA_HOOKS.
 *
 * Kernels compiled with -fsanitize=thread call __tsan_read4() and the like before each access; the
 * functions are here instead of in libtsan. Two shadows, of device memory and of the shared arena,
 * hold for every two bytes who wrote last and who read last: which run (one block of a launch, one
 * copy, one library call), which thread, and the thread's counts of barriers. Cells are two bytes
 * wide because 16-bit neighbours belong to different threads; single bytes are not told apart, so
 * races are not looked for in accesses of one byte.
 *
 * An access races with an earlier one of
 *   the same run       if another thread did it and no barrier (block or warp) lies between
 *   another block      of the same launch, always
 *   another operation  if the operation does not come after it (the lanes' clocks)
 * unless both only read or both are atomic. Only the last reader is kept, so some writes after
 * reads escape. A cell without a writer has never been written.
 */
#ifdef EMULATED_CUDA_HOOKS

#include "emulated_internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <vector>

namespace
{
struct access {   /* 8 bytes */
    uint32_t run; /* 0: none */
    uint32_t thread : 10, barriers : 11, warp_barriers : 10, atomic : 1;
};
struct cell {
    access write, read;
};

struct operation { /* that has run, or runs */
    uint32_t first_run, lane, seq;
    std::string name;
};

cell *device_shadow[MAX_DEVICES]; /* reserved, filled as it is touched */
cell arena_shadow[ARENA_BYTES / 2];
bool arena_place[ARENA_BYTES];
uint32_t arena_used;

std::vector<operation> operations;
std::vector<uint32_t> clock_now; /* of the operation that runs */
uint32_t run_now;                /* 0: nothing has run */
const unsigned char *args_begin;
size_t args_bytes;

/* Runs of earlier operations that the one that runs was found to come after. */
struct run_range {
    uint32_t from, to;
};
enum { ORDERED = 64 };
run_range ordered[ORDERED];
} // namespace

static cell *shadow_of(const void *p)
{
    uintptr_t at = (uintptr_t)p - (uintptr_t)emulated_arena;
    if (at < ARENA_BYTES)
        return &arena_shadow[at / 2];
    at = (uintptr_t)p - DEVICE_BASE;
    size_t device = at / DEVICE_WINDOW;
    if (!device_shadow[device]) {
        void *m = mmap(nullptr, DEVICE_WINDOW / 2 * sizeof(cell), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m == MAP_FAILED) {
            perror("emulated CUDA: shadow memory");
            abort();
        }
        device_shadow[device] = static_cast<cell *>(m);
    }
    return &device_shadow[device][at % DEVICE_WINDOW / 2];
}

static const operation *operation_of(uint32_t run)
{
    auto it = std::upper_bound(operations.begin(), operations.end(), run,
                               [](uint32_t r, const operation &o) { return r < o.first_run; });
    return &*--it;
}

/* "file:line" of a call before pc, or the address. */
static std::string place_of(const void *pc)
{
    Dl_info info;
    if (!pc || !dladdr(pc, &info) || !info.dli_fname)
        return "";
    char command[768], line[512] = "";
    snprintf(command, sizeof command, "addr2line -e '%s' %#lx 2>/dev/null", info.dli_fname,
             (unsigned long)((uintptr_t)pc - (uintptr_t)info.dli_fbase) - 1);
    FILE *f = popen(command, "r");
    if (f) {
        if (!fgets(line, sizeof line, f))
            line[0] = 0;
        pclose(f);
    }
    line[strcspn(line, "\n")] = 0;
    return std::string(" at ") + (line[0] && line[0] != '?' ? line : "an unknown line");
}

/* Report and, in a kernel's thread, give up. */
static void complain(const void *p, size_t bytes, bool write, const void *pc, const char *what)
{
    char where[256];
    uintptr_t in_arena = (uintptr_t)p - (uintptr_t)emulated_arena;
    if (in_arena < ARENA_BYTES)
        snprintf(where, sizeof where, "shared memory, byte %zu of the arena", (size_t)in_arena);
    else
        describe_address(p, where, sizeof where);
    emulated_cuda_report(cudaErrorIllegalAddress, "%s of %zu bytes%s: %s; %s",
                         write ? "write" : "read", bytes, place_of(pc).c_str(), what, where);
    if (kernel_running())
        kernel_abandon();
}

/* What the earlier access is to this one; NULL: in order. */
static const char *race_with(const access &earlier, bool atomic, char *text, size_t n)
{
    if (!earlier.run || (earlier.atomic && atomic))
        return nullptr;
    if (earlier.run == run_now) {
        if (!kernel_running())
            return nullptr;
        thread_clock before = {earlier.thread, earlier.barriers, earlier.warp_barriers};
        if (kernel_ordered(before))
            return nullptr;
        snprintf(text, n, "race with thread %u of the block, no barrier between", earlier.thread);
        return text;
    }
    const operation *now = &operations.back();
    if (earlier.run >= now->first_run) {
        snprintf(text, n, "race with another block");
        return text;
    }
    run_range *known = &ordered[earlier.run % ORDERED];
    if (earlier.run >= known->from && earlier.run < known->to)
        return nullptr;
    const operation *o = operation_of(earlier.run);
    if (o->lane == now->lane || (o->lane < clock_now.size() && clock_now[o->lane] >= o->seq)) {
        *known = run_range{o->first_run, o[1].first_run};
        return nullptr;
    }
    snprintf(text, n, "race with %s in another stream, no event between", o->name.c_str());
    return text;
}

/* False: reported. */
static bool look(const void *p, size_t bytes, bool write, bool atomic, const void *pc)
{
    access now = {run_now, 0, 0, 0, atomic};
    if (kernel_running()) {
        thread_clock c = kernel_clock();
        now.thread = c.thread & 0x3ff;
        now.barriers = c.barriers & 0x7ff;
        now.warp_barriers = c.warp_barriers & 0x3ff;
    }
    cell *c = shadow_of(p), *end = shadow_of((const unsigned char *)p + bytes - 1) + 1;
    bool shared = (uintptr_t)p - (uintptr_t)emulated_arena < ARENA_BYTES;
    char text[256];
    access fine_write = {}, fine_read = {}; /* run 0: nobody */
    for (; c < end; c++) {
        access last = c->write;
        bool written = last.run != 0 && (!shared || last.run == run_now);
        if ((!write || atomic) && !written) {
            complain(p, bytes, write, pc, "of memory that was never written");
            return false;
        }
        if (bytes > 1) {
            /* Neighbours mostly have the same past: look once. */
            const char *why = nullptr;
            if ((!shared || written) && memcmp(&last, &fine_write, sizeof last) != 0) {
                why = race_with(last, atomic, text, sizeof text);
                fine_write = last;
            }
            if (!why && write && !(shared && c->read.run != run_now) &&
                memcmp(&c->read, &fine_read, sizeof fine_read) != 0) {
                why = race_with(c->read, atomic, text, sizeof text);
                fine_read = c->read;
            }
            if (why) {
                complain(p, bytes, write, pc, why);
                return false;
            }
        }
        if (write)
            c->write = now;
        else
            c->read = now;
    }
    return true;
}

void hooks_access(const void *p, size_t bytes, bool write, bool atomic, const void *pc)
{
    uintptr_t in_arena = (uintptr_t)p - (uintptr_t)emulated_arena;
    if (in_arena < ARENA_BYTES) {
        if (!arena_place[in_arena] ||
            !arena_place[std::min(in_arena + bytes - 1, (uintptr_t)ARENA_BYTES - 1)]) {
            complain(p, bytes, write, pc, "outside the shared arrays");
            return;
        }
    } else if (is_device_address(p)) {
        bool inside;
        const allocation *a = allocation_of(p, &inside);
        if (!inside ||
            bytes > a->bytes - (size_t)(static_cast<const unsigned char *>(p) - a->begin)) {
            complain(p, bytes, write, pc, "outside the allocations");
            return;
        }
    } else {
        bool own = kernel_stack_address(p) || (uintptr_t)p - (uintptr_t)args_begin < args_bytes ||
                   p == &emulated_now ||
                   (uintptr_t)p - (uintptr_t)&emulated_now_block < sizeof emulated_now_block ||
                   (uintptr_t)p - (uintptr_t)emulated_now < sizeof *emulated_now;
        if (!own)
            complain(p, bytes, write, pc, "host memory used by a kernel");
        return;
    }
    look(p, bytes, write, atomic, pc);
}

bool hooks_range(const void *p, size_t bytes, bool write, const char *what)
{
    (void)what; /* the operation's name is in the report */
    return bytes == 0 || look(p, bytes, write, false, nullptr);
}

void hooks_operation(const char *name, uint32_t lane, uint32_t seq, const uint32_t *clock,
                     size_t lanes)
{
    run_now++;
    operations.push_back(operation{run_now, lane, seq, name});
    clock_now.assign(clock, clock + lanes);
    memset(ordered, 0, sizeof ordered);
}

void hooks_block_begins(void)
{
    run_now++;
}

void hooks_kernel_begins(const void *args, size_t bytes)
{
    args_begin = static_cast<const unsigned char *>(args);
    args_bytes = bytes;
    memset(arena_place, 0, arena_used);
    arena_used = 0;
}

void hooks_shared_place(const void *p, size_t bytes)
{
    size_t at = (size_t)(static_cast<const unsigned char *>(p) - emulated_arena);
    memset(arena_place + at, 1, bytes);
    arena_used = std::max(arena_used, (uint32_t)(at + bytes));
}

void hooks_shared_undefined(const void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 2)
        shadow_of(static_cast<const unsigned char *>(p) + i)->write.run = 0;
}

void hooks_allocation(const allocation *a, bool live)
{
    if (!live)
        return;
    /* Pages of zeros: nobody has written. */
    madvise(shadow_of(a->begin), a->reserved / 2 * sizeof(cell), MADV_DONTNEED);
}

/* ---- what -fsanitize=thread calls */
extern "C" {
#define HOOK(name, bytes, write)                                                                   \
    void name(void *p);                                                                            \
    void name(void *p)                                                                             \
    {                                                                                              \
        if (kernel_running())                                                                      \
            hooks_access(p, bytes, write, false, __builtin_return_address(0));                     \
    }
#define HOOKS(n)                                                                                   \
    HOOK(__tsan_read##n, n, false)                                                                 \
    HOOK(__tsan_write##n, n, true)                                                                 \
    HOOK(__tsan_unaligned_read##n, n, false)                                                       \
    HOOK(__tsan_unaligned_write##n, n, true)                                                       \
    HOOK(__tsan_volatile_read##n, n, false)                                                        \
    HOOK(__tsan_volatile_write##n, n, true)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void *p, size_t bytes);
void __tsan_read_range(void *p, size_t bytes)
{
    if (kernel_running() && bytes)
        hooks_access(p, bytes, false, false, __builtin_return_address(0));
}
void __tsan_write_range(void *p, size_t bytes);
void __tsan_write_range(void *p, size_t bytes)
{
    if (kernel_running() && bytes)
        hooks_access(p, bytes, true, false, __builtin_return_address(0));
}
void __tsan_init(void);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *);
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void *);
void __tsan_func_exit(void *)
{
}
void __tsan_vptr_update(void *, void *);
void __tsan_vptr_update(void *, void *)
{
}
}

#endif
