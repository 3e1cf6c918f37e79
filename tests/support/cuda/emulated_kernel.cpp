/*
 * emulated_kernel.cpp - a block's threads as fibers of one OS thread; barriers, warp operations,
 * shared memory.
 *
 * A thread is started on a stack when its turn comes and, if it ends without having waited, the
 * next one starts on the same stack: kernels without barriers are plain calls. A thread that waits
 * picks the next one that can run and switches to it directly. Which one that is (lowest, highest,
 * any) is the order of emulated_cuda.h. When none can run and not all have ended, the block is
 * stuck: that is the report of a divergent barrier.
 *
 * A warp operation collects its lanes' values; the last lane computes for all, lets the others run
 * again and goes on itself.
 *
 * After a report inside a thread the block is abandoned where it stands: control goes back to
 * kernel_run() and all stacks are made anew. Kernels have no destructors to run.
 */
#include "emulated_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { MAX_THREADS = 1024, STACK_BYTES = 256 * 1024, STATIC_SHARED_MAX = 48 * 1024, ZONE = 64 };

/* ---- fibers */

namespace
{
struct thread;
struct fiber {
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    unsigned char *stack;
    size_t stack_bytes;
    thread *start; /* the thread to run next on it */
    void *fake_stack;
};

fiber main_fiber;
fiber fibers[MAX_THREADS];
int fibers_made; /* those with a context; the others have not been used since the last report */
fiber *free_fibers[MAX_THREADS];
int free_count;
unsigned char *stacks;
} // namespace

#if defined(__x86_64__)
extern "C" void emulated_switch(void **save, void *load);
asm(".pushsection .text\n"
    ".globl emulated_switch\n"
    ".type emulated_switch, @function\n"
    "emulated_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size emulated_switch, .-emulated_switch\n"
    ".popsection\n");
#endif

static void fiber_body(void);

static void fiber_make(fiber *f)
{
#if defined(__x86_64__)
    /* Stacks start at different places of a page: their hot ends would all fall into the same cache
     * sets. */
    size_t shift = (size_t)(f - fibers) % 40 * 192;
    uintptr_t top = ((uintptr_t)f->stack + f->stack_bytes - shift) & ~(uintptr_t)15;
    void **sp = reinterpret_cast<void **>(top);
    *--sp = nullptr; /* a return address nobody returns to; keeps the stack aligned */
    *--sp = reinterpret_cast<void *>(fiber_body);
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    f->sp = sp;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fiber_body, 0);
#endif
    f->fake_stack = nullptr;
}

static inline void fiber_arrived(fiber *self)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
    if (!main_fiber.stack) { /* learnt at the first switch away from it */
        main_fiber.stack = static_cast<unsigned char *>(const_cast<void *>(bottom));
        main_fiber.stack_bytes = size;
    }
#else
    (void)self;
#endif
}

static inline void fiber_switch(fiber *from, fiber *to)
{
    emulated_kernel_counts.switches++;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#if defined(__x86_64__)
    emulated_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
    fiber_arrived(from);
}

static void stacks_make(void)
{
    void *p = mmap(nullptr, (size_t)MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("emulated CUDA: stacks");
        abort();
    }
    stacks = static_cast<unsigned char *>(p);
    for (int i = 0; i < MAX_THREADS; i++) {
        fibers[i].stack = stacks + (size_t)i * STACK_BYTES + DEVICE_PAGE;
        fibers[i].stack_bytes = STACK_BYTES - DEVICE_PAGE;
        if (mprotect(stacks + (size_t)i * STACK_BYTES, DEVICE_PAGE, PROT_NONE) != 0) {
            perror("emulated CUDA: guard page of a stack");
            abort();
        }
    }
}

bool kernel_stack_address(const void *p)
{
    return (uintptr_t)p - (uintptr_t)stacks < (uintptr_t)MAX_THREADS * STACK_BYTES;
}

/* ---- the block that runs */

namespace
{
enum warp_kind {
    WARP_NONE,
    WARP_SYNC,
    WARP_SHUFFLE,
    WARP_BALLOT,
    WARP_MMA,
    WARP_LDMATRIX,
    WARP_BARRIER /* of the block, for reports */
};
const char *const KIND_NAMES[] = {"",          "__syncwarp",  "a shuffle",    "a vote",
                                  "mma_16816", "ldmatrix_x4", "__syncthreads"};

struct pending_copy {
    unsigned char *to;
    const unsigned char *from; /* NULL: zeros */
    uint32_t group;
};

struct thread : emulated_thread_index {
    fiber *on; /* NULL before it started */
    uint32_t index, lane;
    struct warp *of;
    uint32_t warp_barriers;
    warp_kind waits; /* for what */
    bool ended;
    const char *file; /* of what it waits for */
    int line;
    uint32_t group; /* of cp_async being collected */
    std::vector<pending_copy> copies;
};

struct warp_group { /* lanes that meet; at the place of the mask's lowest lane */
    uint32_t mask, arrived;
    warp_kind kind;
    const char *file;
    int line;
};

struct warp {
    uint32_t index, exists, ready;
    warp_group groups[32];
    uint64_t value[32];
    int arg[32];
    float *d[32];
    const uint32_t *a[32], *b[32];
    uint32_t *r[32];
    const void *row[32];
};

struct place { /* one SHARED_ARRAY, or the dynamic part (key NULL) */
    const void *key;
    const char *name;
    unsigned char *at;
    size_t bytes;
};

thread threads[MAX_THREADS];
warp warps[MAX_THREADS / 32];
uint32_t thread_count, warp_count, ready_warps, arrived, ended, barriers;
bool running, abandoned;

const emulated_kernel *kernel;
const void *kernel_args;

place places[32];
int place_count;
unsigned char *arena_top; /* behind the zone of the last place */
size_t static_bytes;
alignas(128) unsigned char arena[ARENA_BYTES];
} // namespace

unsigned char *const emulated_arena = arena;
emulated_thread_index *emulated_now;
emulated_launch_index emulated_now_block;
kernel_counts emulated_kernel_counts;

static inline thread *self(void)
{
    return static_cast<thread *>(emulated_now);
}

bool kernel_running(void)
{
    return running;
}

/* The name without LAUNCH's parentheses. */
static int name_length(const char **name)
{
    int n = (int)strlen(*name);
    if (n > 1 && **name == '(' && (*name)[n - 1] == ')') {
        ++*name;
        n -= 2;
    }
    return n;
}

void kernel_where(char *text, size_t n)
{
    if (!kernel) {
        text[0] = 0;
        return;
    }
    const char *name = kernel->name;
    int length = name_length(&name);
    const uint3 &b = emulated_now_block.block;
    int at = snprintf(text, n, "kernel %.*s (%s:%d), block (%u,%u,%u)", length, name, kernel->file,
                      kernel->line, b.x, b.y, b.z);
    if (running && emulated_now && at > 0 && (size_t)at < n)
        snprintf(text + at, n - (size_t)at, ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y,
                 threadIdx.z);
}

void kernel_abandon(void)
{
    abandoned = true;
    fiber *from = self()->on;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, main_fiber.stack, main_fiber.stack_bytes);
#endif
#if defined(__x86_64__)
    emulated_switch(&from->sp, main_fiber.sp);
#else
    swapcontext(&from->context, &main_fiber.context);
#endif
    abort();
}

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        emulated_cuda_report(cudaErrorLaunchFailure, __VA_ARGS__);                                 \
        kernel_abandon();                                                                          \
    } while (0)

static inline uint32_t choose_bit(uint32_t mask)
{
    if (emulated_order_now.kind == ORDER_FORWARD)
        return (uint32_t)__builtin_ctz(mask);
    if (emulated_order_now.kind == ORDER_REVERSE)
        return 31u - (uint32_t)__builtin_clz(mask);
    uint32_t by = order_random() & 31u;
    uint32_t turned = by ? mask >> by | mask << (32 - by) : mask;
    return ((uint32_t)__builtin_ctz(turned) + by) & 31u;
}

/* The next thread that can run, taken; NULL: none. */
static inline thread *pick(void)
{
    if (!ready_warps)
        return nullptr;
    warp *w = &warps[choose_bit(ready_warps)];
    uint32_t lane = choose_bit(w->ready);
    w->ready &= ~(1u << lane);
    if (!w->ready)
        ready_warps &= ~(1u << w->index);
    return &threads[w->index * 32 + lane];
}

static inline void make_ready(warp *w, uint32_t lanes)
{
    if (lanes) {
        w->ready |= lanes;
        ready_warps |= 1u << w->index;
    }
}

/* No thread can run and not all have ended: who waits for what? */
static void report_stuck(void)
{
    const thread *first = nullptr, *other = nullptr;
    uint32_t at_first = 0, waiting = 0;
    for (uint32_t i = 0; i < thread_count; i++) {
        const thread *t = &threads[i];
        if (t->ended)
            continue;
        waiting++;
        if (!first)
            first = t;
        if (t->waits == first->waits && t->line == first->line && strcmp(t->file, first->file) == 0)
            at_first++;
        else if (!other)
            other = t;
    }
    char more[256] = "";
    if (other)
        snprintf(more, sizeof more, ", %u elsewhere (thread %u in %s at %s:%d)", waiting - at_first,
                 other->index, KIND_NAMES[other->waits], other->file, other->line);
    emulated_cuda_report(cudaErrorLaunchFailure,
                         "divergence: %u of %u threads wait in %s at %s:%d, %u have ended%s",
                         at_first, thread_count, KIND_NAMES[first->waits], first->file, first->line,
                         thread_count - waiting, more);
}

/* Go on with another thread; returns when this one is made ready and picked. */
static inline void wait_turn(thread *t)
{
    thread *next = pick();
    if (next == t)
        return;
    if (!next) {
        report_stuck();
        kernel_abandon();
    }
    fiber *to = next->on;
    if (!to) {
        if (free_count)
            to = free_fibers[--free_count];
        else {
            to = &fibers[fibers_made++];
            fiber_make(to);
        }
        to->start = next;
    } else
        emulated_now = next;
    fiber_switch(t->on, to);
}

static void fiber_body(void)
{
    fiber *me = nullptr;
    /* Which fiber this is: the one whose stack we are on. */
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    me = &fibers[(here - (uintptr_t)stacks) / STACK_BYTES];
    fiber_arrived(me);
    for (thread *t = me->start;;) {
        t->on = me;
        emulated_now = t;
        kernel->call(kernel->kernel, kernel_args);
        t->ended = true;
        t->copies.clear();
        ended++;
        thread *next = pick();
        if (next && !next->on) {
            t = next;
            continue;
        }
        if (!next && ended != thread_count) {
            report_stuck();
            kernel_abandon();
        }
        free_fibers[free_count++] = me;
        if (next)
            emulated_now = next;
        fiber_switch(me, next ? next->on : &main_fiber);
        t = me->start;
    }
}

/* ---- barriers and warp operations */

void emulated_barrier(const char *file, int line)
{
    thread *t = self();
    t->waits = WARP_BARRIER;
    t->file = file;
    t->line = line;
    if (++arrived < thread_count) {
        wait_turn(t);
        return;
    }
    for (uint32_t i = 0; i < thread_count; i++)
        if (threads[i].line != line ||
            (threads[i].file != file && strcmp(threads[i].file, file) != 0))
            FAIL("divergence: threads meet in different __syncthreads, thread %u at %s:%d, thread "
                 "%u at %s:%d",
                 i, threads[i].file, threads[i].line, t->index, file, line);
    arrived = 0;
    barriers++;
    for (uint32_t w = 0; w < warp_count; w++)
        make_ready(&warps[w], warps[w].exists);
    wait_turn(t);
}

/* Meet the lanes of mask. True for the last one, which then calls warp_leave(); false: somebody
 * has computed this lane's result. */
static inline bool warp_meet(thread *t, warp_kind kind, uint32_t mask, const char *file, int line)
{
    warp *w = t->of;
    uint32_t bit = 1u << t->lane;
    emulated_kernel_counts.warp_operations++;
    if (!(mask & bit))
        FAIL("divergence: lane %u calls %s at %s:%d with mask 0x%08x, which leaves it out", t->lane,
             KIND_NAMES[kind], file, line, mask);
    if (mask & ~w->exists)
        FAIL("divergence: %s at %s:%d has mask 0x%08x, the warp only lanes 0x%08x",
             KIND_NAMES[kind], file, line, mask, w->exists);
    warp_group *g = &w->groups[__builtin_ctz(mask)];
    if (!g->arrived) {
        g->mask = mask;
        g->kind = kind;
        g->file = file;
        g->line = line;
    } else if (g->mask != mask || g->kind != kind || g->line != line ||
               (g->file != file && strcmp(g->file, file) != 0))
        FAIL("divergence: lane %u is in %s at %s:%d with mask 0x%08x, others of its warp are in %s "
             "at %s:%d with mask 0x%08x",
             t->lane, KIND_NAMES[kind], file, line, mask, KIND_NAMES[g->kind], g->file, g->line,
             g->mask);
    g->arrived |= bit;
    if (g->arrived == mask) {
        g->arrived = 0;
        return true;
    }
    t->waits = kind;
    t->file = file;
    t->line = line;
    wait_turn(t);
    return false;
}

static inline void warp_leave(thread *t, uint32_t mask)
{
    make_ready(t->of, mask & ~(1u << t->lane));
}

void emulated_warp_barrier(uint32_t mask, const char *file, int line)
{
    thread *t = self();
    if (!warp_meet(t, WARP_SYNC, mask, file, line))
        return;
    for (uint32_t m = mask; m; m &= m - 1)
        threads[t->of->index * 32 + (uint32_t)__builtin_ctz(m)].warp_barriers++;
    warp_leave(t, mask);
}

uint64_t emulated_shuffle(emulated_shuffle_kind kind, uint32_t mask, uint64_t value, int arg,
                          int width, const char *file, int line)
{
    thread *t = self();
    warp *w = t->of;
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        FAIL("a shuffle at %s:%d has width %d, wanted a power of two up to 32", file, line, width);
    w->value[t->lane] = value;
    w->arg[t->lane] = arg;
    if (warp_meet(t, WARP_SHUFFLE, mask, file, line)) {
        uint64_t from[32];
        memcpy(from, w->value, sizeof from);
        for (uint32_t m = mask; m; m &= m - 1) {
            int lane = __builtin_ctz(m), first = lane & ~(width - 1), last = first + width - 1;
            int a = w->arg[lane], source = 0;
            switch (kind) {
            case EMULATED_IDX:
                source = first + (a & (width - 1));
                break;
            case EMULATED_XOR:
                source = lane ^ a;
                if (source > last)
                    source = lane;
                break;
            case EMULATED_UP:
                source = lane - a;
                if (source < first)
                    source = lane;
                break;
            case EMULATED_DOWN:
                source = lane + a;
                if (source > last)
                    source = lane;
                break;
            }
            /* A lane that does not take part gives anything. */
            bool takes_part = source >= 0 && source < 32 && (mask >> source & 1u);
            w->value[lane] = takes_part ? from[source] : ~(uint64_t)0;
        }
        warp_leave(t, mask);
    }
    return w->value[t->lane];
}

uint32_t emulated_ballot(uint32_t mask, bool predicate, const char *file, int line)
{
    thread *t = self();
    warp *w = t->of;
    w->value[t->lane] = predicate;
    if (warp_meet(t, WARP_BALLOT, mask, file, line)) {
        uint32_t votes = 0;
        for (uint32_t m = mask; m; m &= m - 1)
            votes |= (uint32_t)w->value[__builtin_ctz(m)] << __builtin_ctz(m);
        for (uint32_t m = mask; m; m &= m - 1)
            w->value[__builtin_ctz(m)] = votes;
        warp_leave(t, mask);
    }
    return (uint32_t)w->value[t->lane];
}

static inline float half_float(bool is_bf16, uint32_t bits)
{
    return is_bf16 ? to_float(bf16{(uint16_t)bits}) : to_float(fp16{(uint16_t)bits});
}

/* Vectors for the inner product, which -O2 alone leaves out. */
__attribute__((optimize("O3"))) void emulated_mma(bool is_bf16, float d[4], const uint32_t a[4],
                                                  const uint32_t b[2], const char *file, int line)
{
    thread *t = self();
    warp *w = t->of;
    w->d[t->lane] = d;
    w->a[t->lane] = a;
    w->b[t->lane] = b;
    w->value[t->lane] = is_bf16;
    if (!warp_meet(t, WARP_MMA, 0xffffffffu, file, line))
        return;
    float A[16][16], B[16][8], D[16][8];
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, k = lane % 4 * 2;
        const uint32_t *fa = w->a[lane], *fb = w->b[lane];
        const float *fd = w->d[lane];
        if ((bool)w->value[lane] != is_bf16)
            FAIL("lanes of one mma_16816 at %s:%d have different types", file, line);
        for (int i = 0; i < 2; i++) { /* the register's halves */
            uint32_t by = 16u * (uint32_t)i;
            A[g][k + i] = half_float(is_bf16, fa[0] >> by);
            A[g + 8][k + i] = half_float(is_bf16, fa[1] >> by);
            A[g][k + 8 + i] = half_float(is_bf16, fa[2] >> by);
            A[g + 8][k + 8 + i] = half_float(is_bf16, fa[3] >> by);
            B[k + i][g] = half_float(is_bf16, fb[0] >> by);
            B[k + 8 + i][g] = half_float(is_bf16, fb[1] >> by);
            D[g][k + i] = fd[i];
            D[g + 8][k + i] = fd[2 + i];
        }
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                D[i][j] += A[i][k] * B[k][j];
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, k = lane % 4 * 2;
        for (int i = 0; i < 2; i++) {
            w->d[lane][i] = D[g][k + i];
            w->d[lane][2 + i] = D[g + 8][k + i];
        }
    }
    warp_leave(t, 0xffffffffu);
}

static inline bool in_arena(const void *p)
{
    return (uintptr_t)p - (uintptr_t)arena < ARENA_BYTES;
}

void emulated_ldmatrix(uint32_t r[4], const void *row, bool trans, const char *file, int line)
{
    thread *t = self();
    warp *w = t->of;
    if (!in_arena(row) || (uintptr_t)row % 16 != 0)
        FAIL("ldmatrix_x4 at %s:%d: %p is not a 16-byte aligned address of shared memory", file,
             line, row);
    hooks_access(row, 16, false, false, __builtin_return_address(0));
    w->r[t->lane] = r;
    w->row[t->lane] = row;
    w->value[t->lane] = trans;
    if (!warp_meet(t, WARP_LDMATRIX, 0xffffffffu, file, line))
        return;
    for (int m = 0; m < 4; m++) {
        uint16_t M[8][8];
        for (int i = 0; i < 8; i++)
            memcpy(M[i], w->row[8 * m + i], 16);
        for (int lane = 0; lane < 32; lane++) {
            int i = lane / 4, j = lane % 4 * 2;
            uint32_t lo = trans ? M[j][i] : M[i][j], hi = trans ? M[j + 1][i] : M[i][j + 1];
            w->r[lane][m] = lo | hi << 16;
        }
    }
    warp_leave(t, 0xffffffffu);
}

/* ---- asynchronous copies: done as late as allowed; the target is undefined meanwhile */

void emulated_cp_async(void *to_shared, const void *from, bool valid)
{
    thread *t = self();
    if (!in_arena(to_shared) || (uintptr_t)to_shared % 16 != 0)
        FAIL("cp_async16: %p is not a 16-byte aligned address of shared memory", to_shared);
    bool inside = false;
    if (is_device_address(from))
        allocation_of(from, &inside);
    if (!inside || (uintptr_t)from % 16 != 0)
        FAIL("cp_async16: %p is not a 16-byte aligned address of device memory", from);
    hooks_access(to_shared, 16, true, false, __builtin_return_address(0));
    if (valid)
        hooks_access(from, 16, false, false, __builtin_return_address(0));
    hooks_shared_undefined(to_shared, 16);
    memset(to_shared, 0xff, 16);
    t->copies.push_back(pending_copy{static_cast<unsigned char *>(to_shared),
                                     valid ? static_cast<const unsigned char *>(from) : nullptr,
                                     t->group});
}

void emulated_cp_async_commit(void)
{
    self()->group++;
}

void emulated_cp_async_wait(int newest)
{
    thread *t = self();
    /* Groups are numbered from 0; `group` is still being collected. */
    int64_t finished = (int64_t)t->group - newest;
    size_t n = 0;
    for (; n < t->copies.size() && (int64_t)t->copies[n].group < finished; n++) {
        const pending_copy &c = t->copies[n];
        hooks_access(c.to, 16, true, false, __builtin_return_address(0));
        if (c.from)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    }
    t->copies.erase(t->copies.begin(), t->copies.begin() + (ptrdiff_t)n);
}

void emulated_atomic(void *p, int bytes)
{
    if (kernel_running())
        hooks_access(p, (size_t)bytes, true, true, __builtin_return_address(0));
}

/* ---- shared memory: [zone] dynamic [zone] array [zone] array [zone] ... */

static void place_add(const void *key, const char *name, size_t bytes)
{
    place *p = &places[place_count++];
    p->key = key;
    p->name = name;
    p->at = arena_top;
    p->bytes = bytes;
    memset(p->at, 0xff, bytes);
    guard_fill(p->at + bytes, (size_t)(-(intptr_t)bytes & 15) + ZONE);
    arena_top += ((bytes + 15) & ~(size_t)15) + ZONE;
    hooks_shared_place(p->at, bytes);
}

void *emulated_shared(const void *key, size_t bytes, const char *name)
{
    for (int i = 1; i < place_count; i++)
        if (places[i].key == key)
            return places[i].at;
    static_bytes += bytes;
    if (static_bytes > STATIC_SHARED_MAX || place_count == (int)(sizeof places / sizeof *places))
        FAIL("SHARED_ARRAY %s: %zu bytes of static shared memory, at most %d", name, static_bytes,
             (int)STATIC_SHARED_MAX);
    place_add(key, name, bytes);
    return places[place_count - 1].at;
}

void *emulated_dynamic_shared(void)
{
    return places[0].at;
}

/* False: reported. */
static bool zones_check(void)
{
    for (int i = 0; i < place_count; i++) {
        const place *p = &places[i];
        if (guard_whole(p->at + p->bytes, ZONE))
            continue;
        emulated_cuda_report(cudaErrorIllegalAddress,
                             "shared memory written behind the %zu bytes of %s", p->bytes, p->name);
        guard_fill(p->at + p->bytes, (size_t)(-(intptr_t)p->bytes & 15) + ZONE);
        return false;
    }
    if (!guard_whole(arena, ZONE)) {
        emulated_cuda_report(cudaErrorIllegalAddress, "shared memory written before its begin");
        guard_fill(arena, ZONE);
        return false;
    }
    return true;
}

/* ---- running */

thread_clock kernel_clock(void)
{
    const thread *t = self();
    return thread_clock{t->index, barriers, t->warp_barriers};
}

bool kernel_ordered(thread_clock before)
{
    const thread *t = self(), *o = &threads[before.thread % MAX_THREADS];
    return o == t || before.barriers != (barriers & 0x7ff) ||
           (o->of == t->of && before.warp_barriers != (o->warp_barriers & 0x3ff));
}

static void threads_make(dim3 dim)
{
    thread_count = dim.x * dim.y * dim.z;
    warp_count = (thread_count + 31) / 32;
    for (uint32_t i = 0; i < thread_count; i++) {
        thread *t = &threads[i];
        t->at = uint3{i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
        t->index = i;
        t->lane = i % 32;
        t->of = &warps[i / 32];
    }
    for (uint32_t w = 0; w < warp_count; w++) {
        uint32_t lanes = std::min(thread_count - 32 * w, 32u);
        warps[w].index = w;
        warps[w].exists = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1u;
        for (warp_group &g : warps[w].groups)
            g.arrived = 0;
    }
}

/* False: reported, and the block was given up. */
static bool block_run(void)
{
    arrived = ended = barriers = 0;
    ready_warps = 0;
    for (int i = 0; i < place_count; i++)
        memset(places[i].at, 0xff, places[i].bytes);
    for (uint32_t i = 0; i < thread_count; i++) {
        thread *t = &threads[i];
        t->on = nullptr;
        t->ended = false;
        t->warp_barriers = 0;
        t->group = 0;
    }
    for (uint32_t w = 0; w < warp_count; w++) {
        warps[w].ready = 0;
        make_ready(&warps[w], warps[w].exists);
    }
    hooks_block_begins();
    thread *first = pick();
    fiber *on = free_count ? free_fibers[--free_count] : nullptr;
    if (!on) {
        on = &fibers[fibers_made++];
        fiber_make(on);
    }
    on->start = first;
    first->on = on;
    emulated_now = first;
    running = true;
    fiber_switch(&main_fiber, on);
    running = false;
    emulated_now = nullptr;
    if (!abandoned)
        return zones_check();
    abandoned = false;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stacks, (size_t)MAX_THREADS * STACK_BYTES);
#endif
    free_count = fibers_made = 0;
    for (uint32_t i = 0; i < thread_count; i++)
        threads[i].copies.clear();
    for (uint32_t w = 0; w < warp_count; w++)
        for (warp_group &g : warps[w].groups)
            g.arrived = 0;
    return false;
}

bool kernel_run(const emulated_kernel *k, const void *args, size_t args_bytes)
{
    if (!stacks)
        stacks_make();
    kernel = k;
    kernel_args = args;
    emulated_now_block.grid_dim = k->grid;
    emulated_now_block.block_dim = k->block;
    threads_make(k->block);
    place_count = 0;
    static_bytes = 0;
    hooks_kernel_begins(args, args_bytes);
    guard_fill(arena, ZONE);
    arena_top = arena + ZONE;
    place_add(nullptr, "dynamic shared memory", k->smem);

    uint64_t blocks = (uint64_t)k->grid.x * k->grid.y * k->grid.z;
    std::vector<uint32_t> order;
    if (emulated_order_now.kind == ORDER_RANDOM) {
        order.resize(blocks);
        for (uint32_t i = 0; i < blocks; i++) {
            uint32_t at = order_random() % (i + 1);
            order[i] = order[at];
            order[at] = i;
        }
    }
    bool ok = true;
    for (uint64_t i = 0; i < blocks && ok; i++) {
        uint64_t b = !order.empty()                             ? order[i]
                     : emulated_order_now.kind == ORDER_REVERSE ? blocks - 1 - i
                                                                : i;
        emulated_now_block.block = uint3{(uint32_t)(b % k->grid.x),
                                         (uint32_t)(b / k->grid.x % k->grid.y),
                                         (uint32_t)(b / ((uint64_t)k->grid.x * k->grid.y))};
        ok = block_run();
    }
    kernel = nullptr;
    return ok;
}
