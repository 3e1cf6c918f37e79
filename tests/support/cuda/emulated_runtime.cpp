/*
 * emulated_runtime.cpp - devices, memory, streams, events and graphs of the emulated toolkit.
 *
 * Every queued operation is a node of one DAG: it comes after the last operation of its stream and
 * after the events its stream waits for. `ready` holds the nodes whose predecessors are done;
 * drive() runs them until what somebody waits for is done, in the order of emulated_cuda.h. A
 * captured graph is a list of such nodes without a place in the DAG; a launch copies them into it.
 *
 * Each operation belongs to a lane (a stream, or a stream within one graph), in which it has a
 * number, and knows by a clock what it comes after: the last number of each lane, from its
 * predecessors and from what the host has waited for. Only the hooks read these.
 *
 * One lock for everything. It is given up between two polls of an operation that is not done.
 */
#include "emulated_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

typedef std::vector<uint32_t> lane_clock;

enum op_kind { OP_KERNEL, OP_COPY, OP_SET, OP_HOST, OP_RUN, OP_POLL, OP_MARK };

struct node_work { /* what an operation does; copied for each launch of a graph */
    op_kind kind = OP_MARK;
    std::string name;
    int device = 0;
    emulated_kernel kernel = {};
    std::vector<unsigned char> bytes; /* arguments, or the host's bytes of a copy */
    void *to = nullptr;
    const void *from = nullptr; /* NULL: bytes */
    size_t count = 0;
    int value = 0;
    cudaHostFn_t host = nullptr;
    void *user = nullptr;
    void (*run)(void *) = nullptr;
    bool (*poll)(void *) = nullptr;
};

struct op {
    node_work work;
    uint64_t number = 0; /* in the order of the calls */
    int waits = 0;       /* predecessors that are not done */
    bool done = false, asked = false, needed = false;
    std::vector<std::shared_ptr<op>> next, before; /* before: until done */
    uint32_t lane = 0, seq = 0;
    lane_clock clock;
    double time_ms = 0;
};
typedef std::shared_ptr<op> op_ref;

struct graph_node {
    node_work work;
    std::vector<int> before;
    CUstream_st *stream; /* where it was captured: a name, never followed */
};

struct CUgraph_st {
    std::vector<graph_node> nodes;
    int capturing = 0; /* streams in it */
    bool broken = false;
    CUstream_st *origin = nullptr;
};

struct CUgraphExec_st {
    std::vector<graph_node> nodes;
    std::map<CUstream_st *, uint32_t> lanes;
    op_ref last; /* launches of one graph come one after the other */
};

struct CUstream_st {
    int device;
    uint32_t lane;
    op_ref last;
    std::vector<op_ref> waits;
    CUgraph_st *graph = nullptr; /* being captured */
    std::vector<int> graph_last;
};

struct CUevent_st {
    unsigned flags;
    op_ref at;
    CUgraph_st *graph = nullptr; /* recorded in a capture */
    std::vector<int> graph_at;
};

namespace
{
struct device {
    int physical;
    std::string name;
    size_t used = 0;
    uintptr_t top = 0;                 /* of its window, 0: not reserved */
    std::map<uintptr_t, size_t> holes; /* freed places */
};

struct settings {
    bool read = false;
    int driver = 13000;
    size_t memory = (size_t)4 << 30;
    int capability = 90, processors = 4;
    bool protect = true;
    std::string fail_name;
    int64_t fail_at = 0, fail_seen = 0;
};

std::recursive_mutex lock;
settings set;
std::vector<device> devices;
std::map<uintptr_t, allocation> allocations; /* by begin */
std::map<uintptr_t, size_t> pinned;
std::set<CUstream_st *> streams;
std::set<CUevent_st *> events;
std::set<CUgraph_st *> graphs;
std::set<CUgraphExec_st *> execs;
std::map<const void *, int> dynamic_limits;

std::map<uint64_t, op_ref> ready;
std::set<op_ref> pending;
uint64_t next_number = 1;
std::vector<uint32_t> lane_seq;
lane_clock host_clock;

cudaError_t sticky = cudaSuccess;
bool expecting;
std::string expected_text, expected_line;
std::vector<std::string> kept;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

int open_depth;
bool opened;
const op *now_running;
struct emulated_cuda_counts counts;
} // namespace

emulated_order_state emulated_order_now;

/* ---- reports and errors */

void emulated_cuda_report(cudaError_t error, const char *format, ...)
{
    char line[1024], where[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    kernel_where(where, sizeof where);
    if (!where[0] && now_running)
        snprintf(where, sizeof where, "operation %s", now_running->work.name.c_str());
    if (where[0] && n > 0 && (size_t)n < sizeof line)
        snprintf(line + n, sizeof line - (size_t)n, "; in %s", where);
    std::lock_guard<std::recursive_mutex> hold(lock);
    if (sticky == cudaSuccess)
        sticky = error;
    if (expecting) {
        kept.push_back(line);
        if (expected_line.empty() && strstr(line, expected_text.c_str()))
            expected_line = line;
    } else
        fprintf(stderr, "emulated CUDA: %s\n", line);
}

static cudaError_t fail(cudaError_t error)
{
    last_error = error;
    return error;
}

static void drop_everything(void)
{
    for (const op_ref &o : pending) {
        o->done = true;
        o->next.clear();
        o->before.clear();
    }
    pending.clear();
    ready.clear();
}

void emulated_cuda_expect_error(const char *text)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    expecting = true;
    expected_text = text;
    expected_line.clear();
    kept.clear();
}

const char *emulated_cuda_expected(void)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    if (expecting && expected_line.empty())
        for (const std::string &line : kept)
            fprintf(stderr, "emulated CUDA: %s\n", line.c_str());
    expecting = false;
    if (sticky != cudaSuccess)
        drop_everything();
    sticky = last_error = cudaSuccess;
    return expected_line.empty() ? nullptr : expected_line.c_str();
}

/* ---- guard zones */

void guard_fill(unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = guard_byte(p + i);
}

bool guard_whole(const unsigned char *p, size_t n)
{
    size_t i = 0;
    for (; i < n && (uintptr_t)(p + i) % 8 != 0; i++)
        if (p[i] != guard_byte(p + i))
            return false;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        if (word != 0x7fd57fd57fd57fd5u)
            return false;
    }
    for (; i < n; i++)
        if (p[i] != guard_byte(p + i))
            return false;
    return true;
}

/* ---- settings */

bool emulated_cuda_hooks(void)
{
#ifdef EMULATED_CUDA_HOOKS
    return true;
#else
    return false;
#endif
}

void emulated_cuda_order(const char *order)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    if (strcmp(order, "forward") == 0)
        emulated_order_now.kind = ORDER_FORWARD;
    else if (strcmp(order, "reverse") == 0)
        emulated_order_now.kind = ORDER_REVERSE;
    else if (strncmp(order, "random:", 7) == 0) {
        emulated_order_now.kind = ORDER_RANDOM;
        emulated_order_now.state = strtoull(order + 7, nullptr, 10) * 0x9E3779B97F4A7C15u +
                                   0x2545F4914F6CDD1Du;
    } else {
        fprintf(stderr, "emulated CUDA: order %s: wanted forward, reverse or random:<seed>\n",
                order);
        abort();
    }
}

static void settings_read(void)
{
    set.read = true;
    auto number = [](const char *name, long long value) {
        const char *text = getenv(name);
        return text && *text ? strtoll(text, nullptr, 10) : value;
    };
    int count = (int)std::min(number("EMULATED_CUDA_DEVICES", 8), (long long)MAX_DEVICES);
    set.memory = (size_t)number("EMULATED_CUDA_MEMORY", (long long)set.memory);
    set.capability = (int)number("EMULATED_CUDA_CAPABILITY", set.capability);
    set.processors = (int)number("EMULATED_CUDA_PROCESSORS", set.processors);
    set.protect = number("EMULATED_CUDA_PROTECT", 1) != 0;
    const char *driver = getenv("EMULATED_CUDA_DRIVER");
    if (driver && strcmp(driver, "missing") == 0)
        set.driver = 0;
    else if (driver && strcmp(driver, "old") == 0)
        set.driver = 12020;
    const char *order = getenv("EMULATED_CUDA_ORDER");
    if (order && *order)
        emulated_cuda_order(order);
    const char *failing = getenv("EMULATED_CUDA_FAIL");
    if (failing && *failing) {
        const char *at = strrchr(failing, '@');
        set.fail_name = at ? std::string(failing, (size_t)(at - failing)) : failing;
        set.fail_at = at ? strtoll(at + 1, nullptr, 10) : 1;
    }
    std::vector<int> visible;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list)
        for (int i = 0; i < count; i++)
            visible.push_back(i);
    else
        for (char *end; *list; list = *end ? end + 1 : end) {
            long i = strtol(list, &end, 10);
            if (end == list || i < 0 || i >= count ||
                std::find(visible.begin(), visible.end(), (int)i) != visible.end())
                break;
            visible.push_back((int)i);
            if (*end && *end != ',')
                break;
        }
    std::vector<std::string> names;
    const char *text = getenv("EMULATED_CUDA_NAMES");
    for (std::string rest = text ? text : ""; !rest.empty();) {
        size_t at = rest.find(';');
        names.push_back(rest.substr(0, at));
        rest = at == std::string::npos ? "" : rest.substr(at + 1);
    }
    if (names.empty())
        names.push_back("Emulated GPU");
    for (int physical : visible) {
        device d;
        d.physical = physical;
        d.name = names[std::min((size_t)physical, names.size() - 1)];
        devices.push_back(d);
    }
}

/* Success, or why no device can be used. */
static cudaError_t usable(void)
{
    if (!set.read)
        settings_read();
    if (set.driver < CUDART_VERSION)
        return cudaErrorInsufficientDriver;
    return devices.empty() ? cudaErrorNoDevice : cudaSuccess;
}

/* At the head of every call that needs a device. */
#define ENTER()                                                                                    \
    std::lock_guard<std::recursive_mutex> hold(lock);                                              \
    do {                                                                                           \
        cudaError_t enter_ = usable();                                                             \
        if (enter_ == cudaSuccess)                                                                 \
            enter_ = sticky;                                                                       \
        if (enter_ != cudaSuccess)                                                                 \
            return fail(enter_);                                                                   \
    } while (0)

/* At the head of calls that give something back: they do so after an error too, and return it. */
#define ENTER_RELEASE()                                                                            \
    std::lock_guard<std::recursive_mutex> hold(lock);                                              \
    do {                                                                                           \
        cudaError_t enter_ = usable();                                                             \
        if (enter_ != cudaSuccess)                                                                 \
            return fail(enter_);                                                                   \
    } while (0)
#define RELEASED() (sticky != cudaSuccess ? fail(sticky) : cudaSuccess)

/* ---- memory */

static void protect_all(int how)
{
    if (!set.protect)
        return;
    const uintptr_t huge = (uintptr_t)2 << 20;
    for (size_t i = 0; i < devices.size(); i++) {
        uintptr_t base = DEVICE_BASE + i * DEVICE_WINDOW;
        if (devices[i].top > base &&
            mprotect(reinterpret_cast<void *>(base),
                     (devices[i].top - base + huge - 1) & ~(huge - 1), how) != 0) {
            perror("emulated CUDA: mprotect");
            abort();
        }
    }
}

static void faults_catch(void);

static void memory_open(void)
{
    if (!opened) {
        faults_catch();
        protect_all(PROT_READ | PROT_WRITE);
        opened = true;
    }
}

static void memory_close(void)
{
    if (opened && open_depth == 0) {
        protect_all(PROT_NONE);
        opened = false;
    }
}

void emulated_device_memory_open(void)
{
    lock.lock(); /* held until closed: no other thread may close it meanwhile */
    open_depth++;
    memory_open();
}

void emulated_device_memory_close(void)
{
    open_depth--;
    memory_close();
    lock.unlock();
}

/* Found lately, by page: the hooks ask at every access. Forgotten when one is freed. */
enum { RECENT = 256 };
static const allocation *allocations_recent[RECENT];

const allocation *allocation_of(const void *p, bool *inside)
{
    const allocation *a = allocations_recent[(uintptr_t)p / DEVICE_PAGE % RECENT];
    if (!a || (uintptr_t)p - (uintptr_t)a->begin >= a->reserved) {
        *inside = false;
        auto it = allocations.upper_bound((uintptr_t)p);
        if (it == allocations.begin())
            return nullptr;
        a = &(--it)->second;
        allocations_recent[(uintptr_t)p / DEVICE_PAGE % RECENT] = a;
    }
    *inside = (uintptr_t)p - (uintptr_t)a->begin < a->bytes;
    return a;
}

void describe_address(const void *p, char *text, size_t n)
{
    bool inside;
    const allocation *a = allocation_of(p, &inside);
    if (!is_device_address(p))
        snprintf(text, n, "%p, not device memory", p);
    else if (!a)
        snprintf(text, n, "%p, before any allocation", p);
    else if (inside)
        snprintf(text, n, "%p, byte %zu of the %zu bytes at %p", p,
                 (size_t)((const unsigned char *)p - a->begin), a->bytes, (void *)a->begin);
    else
        snprintf(text, n, "%p, %zu bytes behind the end of the %zu bytes at %p", p,
                 (size_t)((const unsigned char *)p - a->begin - a->bytes), a->bytes,
                 (void *)a->begin);
}

/* All of [p, p + bytes) lies in one live allocation. */
static bool range_lives(const void *p, size_t bytes)
{
    bool inside;
    const allocation *a = allocation_of(p, &inside);
    if (!a || !is_device_address(p))
        return false;
    size_t at = (size_t)((const unsigned char *)p - a->begin);
    return at <= a->bytes && bytes <= a->bytes - at;
}

static bool check_range(const void *p, size_t bytes, const char *what)
{
    if (range_lives(p, bytes))
        return true;
    char text[256];
    describe_address(p, text, sizeof text);
    emulated_cuda_report(cudaErrorIllegalAddress, "%s: %zu bytes at %s", what, bytes, text);
    return false;
}

bool emulated_device_check(const void *p, size_t bytes, bool write, const char *what)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    return check_range(p, bytes, what) && hooks_range(p, bytes, write, what);
}

/* Bytes behind an allocation that are looked at after each kernel, and by each wait. */
enum { GUARD_NEAR = 64, GUARD_WAIT = 1024 };

/* False: reported (once: the zone is made whole again). Memory is open. */
static bool guards_check(size_t bytes)
{
    for (auto &item : allocations) {
        const allocation &a = item.second;
        size_t n = std::min(bytes, a.reserved - a.bytes);
        if (guard_whole(a.begin + a.bytes, n))
            continue;
        emulated_cuda_report(cudaErrorIllegalAddress,
                             "device memory written behind the end of the %zu bytes at %p", a.bytes,
                             (void *)a.begin);
        guard_fill(a.begin + a.bytes, n);
        return false;
    }
    return true;
}

static struct sigaction old_fault;

[[maybe_unused]] static void faulted(int signal, siginfo_t *info, void *context)
{
    (void)context;
    char text[256];
    describe_address(info->si_addr, text, sizeof text);
    if (kernel_running()) {
        if (kernel_stack_address(info->si_addr))
            emulated_cuda_report(cudaErrorIllegalAddress, "a thread's stack overflows");
        else
            emulated_cuda_report(cudaErrorIllegalAddress, "access to %s", text);
        kernel_abandon();
    }
    if (is_device_address(info->si_addr))
        fprintf(stderr, "emulated CUDA: host code touches device memory: %s\n", text);
    else if (now_running)
        fprintf(stderr, "emulated CUDA: operation %s touches %s\n", now_running->work.name.c_str(),
                text);
    sigaction(signal, &old_fault, nullptr); /* and fault again, the ordinary way */
}

/* Before kernels run: others (test frameworks) may have set their own handler meanwhile. */
static void faults_catch(void)
{
#if !defined(__SANITIZE_ADDRESS__) /* the sanitizer tells of faults */
    static thread_local unsigned char *stack;
    if (!stack) {
        size_t bytes = 64 * 1024;
        void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return;
        stack = static_cast<unsigned char *>(p);
        stack_t alternative = {};
        alternative.ss_sp = stack;
        alternative.ss_size = bytes;
        sigaltstack(&alternative, nullptr);
    }
    struct sigaction action = {}, before;
    action.sa_sigaction = faulted;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before);
    if (!(before.sa_flags & SA_SIGINFO) || before.sa_sigaction != faulted)
        old_fault = before;
#endif
}

static cudaError_t drive(const std::vector<op_ref> &targets, bool wait);
static cudaError_t drive_device(int which);
/* Calls that a capture forbids: none may be going on. */
static bool capturing_anywhere(void)
{
    for (CUstream_st *s : streams)
        if (s->graph)
            return true;
    return false;
}
static cudaError_t capture_breaks(void)
{
    for (CUstream_st *s : streams)
        if (s->graph)
            s->graph->broken = true;
    return fail(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    ENTER();
    if (!out)
        return fail(cudaErrorInvalidValue);
    *out = nullptr;
    if (capturing_anywhere())
        return capture_breaks();
    if (bytes == 0)
        return cudaSuccess;
    device &d = devices[(size_t)current_device];
    uintptr_t base = DEVICE_BASE + (uintptr_t)current_device * DEVICE_WINDOW;
    if (bytes > set.memory || d.used > set.memory - bytes)
        return fail(cudaErrorMemoryAllocation);
    if (!d.top) {
        void *p = mmap(reinterpret_cast<void *>(base), DEVICE_WINDOW, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (p != reinterpret_cast<void *>(base)) {
            perror("emulated CUDA: mmap of device memory");
            abort();
        }
        /* Large pages, for otherwise opening and closing costs as much as the products. */
        madvise(p, DEVICE_WINDOW, MADV_HUGEPAGE);
        if (!set.protect && mprotect(p, DEVICE_WINDOW, PROT_READ | PROT_WRITE) != 0)
            abort();
        d.top = base + DEVICE_PAGE; /* nothing at the begin: catches small negative offsets */
    }
    size_t reserved = ((bytes + DEVICE_PAGE - 1) & ~(size_t)(DEVICE_PAGE - 1)) + DEVICE_PAGE;
    uintptr_t at = d.top;
    if (d.top - base > DEVICE_WINDOW / 4 || reserved > DEVICE_WINDOW / 2)
        for (auto &hole : d.holes) /* fresh addresses are better while they last */
            if (hole.second >= reserved) {
                at = hole.first;
                break;
            }
    if (at == d.top) {
        if (reserved > base + DEVICE_WINDOW - d.top)
            return fail(cudaErrorMemoryAllocation);
        d.top += reserved;
        opened = false; /* open what is new, too */
    } else {
        size_t left = d.holes[at] - reserved;
        d.holes.erase(at);
        if (left)
            d.holes[at + reserved] = left;
    }
    memory_open();
    allocation a = {reinterpret_cast<unsigned char *>(at), bytes, reserved, current_device};
    memset(a.begin, 0xff, bytes);
    guard_fill(a.begin + bytes, reserved - bytes);
    allocations[at] = a;
    hooks_allocation(&a, true);
    memory_close();
    d.used += bytes;
    counts.allocations++;
    counts.bytes += (int64_t)bytes;
    *out = a.begin;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    ENTER_RELEASE();
    if (!p)
        return cudaSuccess;
    if (capturing_anywhere())
        return capture_breaks();
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end())
        return fail(cudaErrorInvalidValue);
    if (sticky == cudaSuccess)
        (void)drive_device(it->second.device);
    memory_open();
    if (sticky == cudaSuccess)
        guards_check(~(size_t)0);
    memory_close();
    allocation a = it->second;
    device &d = devices[(size_t)a.device];
    allocations.erase(it);
    memset(allocations_recent, 0, sizeof allocations_recent);
    hooks_allocation(&a, false);
    madvise(a.begin, a.reserved, MADV_DONTNEED);
    d.used -= a.bytes;
    counts.allocations--;
    counts.bytes -= (int64_t)a.bytes;
    uintptr_t at = (uintptr_t)a.begin;
    auto after = d.holes.emplace(at, a.reserved).first;
    if (std::next(after) != d.holes.end() && std::next(after)->first == at + after->second) {
        after->second += std::next(after)->second;
        d.holes.erase(std::next(after));
    }
    if (after != d.holes.begin()) {
        auto prior = std::prev(after);
        if (prior->first + prior->second == at) {
            prior->second += after->second;
            d.holes.erase(after);
        }
    }
    return RELEASED();
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned int flags)
{
    (void)flags;
    ENTER();
    if (!out)
        return fail(cudaErrorInvalidValue);
    *out = nullptr;
    if (capturing_anywhere())
        return capture_breaks();
    if (bytes == 0)
        return cudaSuccess;
    void *p = nullptr;
    if (posix_memalign(&p, DEVICE_PAGE, bytes) != 0)
        return fail(cudaErrorMemoryAllocation);
    memset(p, 0xff, bytes);
    pinned[(uintptr_t)p] = bytes;
    counts.pinned++;
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    return cudaHostAlloc(out, bytes, 0);
}

cudaError_t cudaFreeHost(void *p)
{
    ENTER_RELEASE();
    if (!p)
        return cudaSuccess;
    if (capturing_anywhere())
        return capture_breaks();
    auto it = pinned.find((uintptr_t)p);
    if (it == pinned.end())
        return fail(cudaErrorInvalidValue);
    for (size_t i = 0; i < devices.size() && sticky == cudaSuccess; i++)
        (void)drive_device((int)i);
    pinned.erase(it);
    counts.pinned--;
    free(p);
    return RELEASED();
}

static bool is_pinned(const void *p, size_t bytes)
{
    auto it = pinned.upper_bound((uintptr_t)p);
    if (it == pinned.begin())
        return false;
    --it;
    size_t at = (uintptr_t)p - it->first;
    return at <= it->second && bytes <= it->second - at;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    ENTER();
    if (!free_bytes || !total)
        return fail(cudaErrorInvalidValue);
    *total = set.memory;
    *free_bytes = set.memory - devices[(size_t)current_device].used;
    return cudaSuccess;
}

/* ---- running operations */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void clock_join(lane_clock &clock, const lane_clock &other)
{
    if (clock.size() < other.size())
        clock.resize(other.size());
    for (size_t i = 0; i < other.size(); i++)
        clock[i] = std::max(clock[i], other[i]);
}

/* True: done. A report has made the error sticky. */
static bool op_run(op *o)
{
    node_work &w = o->work;
    now_running = o;
    bool done = true;
    if (w.kind != OP_MARK && w.kind != OP_HOST) {
        memory_open();
        hooks_operation(w.name.c_str(), o->lane, o->seq, o->clock.data(), o->clock.size());
    }
    switch (w.kind) {
    case OP_KERNEL:
        counts.launches++;
        if (set.fail_at && w.name.find(set.fail_name) != std::string::npos &&
            ++set.fail_seen == set.fail_at) {
            emulated_cuda_report(cudaErrorLaunchFailure, "launch %lld of %s fails as asked for",
                                 (long long)set.fail_at, w.name.c_str());
            break;
        }
        if (kernel_run(&w.kernel, w.bytes.data(), w.bytes.size()))
            guards_check(GUARD_NEAR);
        break;
    case OP_COPY: {
        counts.copies++;
        const void *from = w.from ? w.from : w.bytes.data();
        if (is_device_address(from) && !(check_range(from, w.count, "copy from") &&
                                         hooks_range(from, w.count, false, "copy from")))
            break;
        if (is_device_address(w.to) &&
            !(check_range(w.to, w.count, "copy to") && hooks_range(w.to, w.count, true, "copy to")))
            break;
        memmove(w.to, from, w.count);
        break;
    }
    case OP_SET:
        if (check_range(w.to, w.count, "fill") && hooks_range(w.to, w.count, true, "fill"))
            memset(w.to, w.value, w.count);
        break;
    case OP_HOST: {
        bool was = opened && open_depth == 0;
        memory_close();
        w.host(w.user);
        if (was)
            memory_open();
        break;
    }
    case OP_RUN:
        w.run(w.bytes.data());
        break;
    case OP_POLL:
        done = w.poll(w.bytes.data());
        break;
    case OP_MARK:
        o->time_ms = now_ms();
        break;
    }
    now_running = nullptr;
    return done;
}

static void op_finished(const op_ref &o)
{
    o->done = true;
    o->before.clear();
    for (const op_ref &n : o->next)
        if (--n->waits == 0)
            ready[n->number] = n;
    o->next.clear();
    pending.erase(o);
}

static void need(const op_ref &target)
{
    std::vector<op *> todo;
    if (!target->done && !target->needed)
        todo.push_back(target.get());
    while (!todo.empty()) {
        op *o = todo.back();
        todo.pop_back();
        if (o->needed)
            continue;
        o->needed = true;
        for (const op_ref &b : o->before)
            if (!b->done && !b->needed)
                todo.push_back(b.get());
    }
}

/* The operation to run next, by the order; NULL: those that could run are all waiting polls. */
static op_ref choose(const std::set<uint64_t> &stalled)
{
    auto allowed = [&](const op_ref &o) {
        if (stalled.count(o->number))
            return false;
        return o->needed || (emulated_order_now.kind != ORDER_FORWARD && o->work.kind != OP_POLL);
    };
    if (emulated_order_now.kind == ORDER_FORWARD) {
        for (auto &r : ready)
            if (allowed(r.second))
                return r.second;
        return nullptr;
    }
    if (emulated_order_now.kind == ORDER_REVERSE) {
        for (auto r = ready.rbegin(); r != ready.rend(); ++r)
            if (allowed(r->second))
                return r->second;
        return nullptr;
    }
    std::vector<op_ref> can;
    for (auto &r : ready)
        if (allowed(r.second))
            can.push_back(r.second);
    return can.empty() ? nullptr : can[order_random() % can.size()];
}

/* Run until the targets are done (wait), or as far as one look at each goes. cudaErrorNotReady if
 * not done; most: operations to run, at most. */
static cudaError_t drive_most(const std::vector<op_ref> &targets, bool wait, int64_t most)
{
    for (const op_ref &t : targets)
        need(t);
    auto all_done = [&]() {
        for (const op_ref &t : targets)
            if (!t->done)
                return false;
        return true;
    };
    std::set<uint64_t> stalled;
    while (sticky == cudaSuccess && !all_done() && most != 0) {
        op_ref o = choose(stalled);
        if (!o) {
            if (!wait)
                break;
            memory_close();
            lock.unlock();
            usleep(50);
            lock.lock();
            stalled.clear();
            continue;
        }
        ready.erase(o->number);
        if (op_run(o.get())) {
            op_finished(o);
            most--;
        } else {
            ready[o->number] = o;
            stalled.insert(o->number);
        }
    }
    if (opened) {
        if (sticky == cudaSuccess)
            guards_check(GUARD_WAIT);
        memory_close();
    }
    if (sticky != cudaSuccess) {
        drop_everything();
        return fail(sticky);
    }
    if (!all_done())
        return cudaErrorNotReady;
    for (const op_ref &t : targets) {
        clock_join(host_clock, t->clock);
        if (host_clock.size() <= t->lane)
            host_clock.resize(t->lane + 1u);
        host_clock[t->lane] = std::max(host_clock[t->lane], t->seq);
    }
    return cudaSuccess;
}

static cudaError_t drive(const std::vector<op_ref> &targets, bool wait)
{
    return drive_most(targets, wait, -1);
}

/* Everything queued on a device. */
static cudaError_t drive_device(int which)
{
    std::vector<op_ref> all;
    for (const op_ref &o : pending)
        if (o->work.device == which)
            all.push_back(o);
    return drive(all, true);
}

/* A query: one operation when asked for the first time, as far as it goes after that. */
static cudaError_t ask(const op_ref &o)
{
    if (!o || o->done)
        return drive(o ? std::vector<op_ref>{o} : std::vector<op_ref>{}, false);
    bool first = !o->asked;
    o->asked = true;
    cudaError_t e = drive_most({o}, false, first ? 1 : -1);
    return first && e == cudaSuccess ? cudaErrorNotReady : e;
}

/* ---- queuing */

static uint32_t new_lane(void)
{
    lane_seq.push_back(0);
    return (uint32_t)lane_seq.size() - 1;
}

/* Put an operation into the DAG behind `before`. */
static op_ref insert(node_work &&work, const std::vector<op_ref> &before, uint32_t lane)
{
    op_ref o = std::make_shared<op>();
    o->work = std::move(work);
    o->number = next_number++;
    o->lane = lane;
    o->seq = ++lane_seq[lane];
    o->clock = host_clock;
    for (const op_ref &b : before) {
        if (!b)
            continue;
        clock_join(o->clock, b->clock);
        if (o->clock.size() <= b->lane)
            o->clock.resize(b->lane + 1u);
        o->clock[b->lane] = std::max(o->clock[b->lane], b->seq);
        if (!b->done) {
            o->waits++;
            b->next.push_back(o);
            o->before.push_back(b);
        }
    }
    pending.insert(o);
    if (o->waits == 0)
        ready[o->number] = o;
    return o;
}

/* Queue on a stream, or put into the graph that it is captured into. */
static cudaError_t queue(CUstream_st *s, node_work &&work)
{
    work.device = s->device;
    if (s->graph) {
        if (s->graph->broken)
            return fail(cudaErrorStreamCaptureInvalidated);
        s->graph->nodes.push_back(graph_node{std::move(work), s->graph_last, s});
        s->graph_last = {(int)s->graph->nodes.size() - 1};
        return cudaSuccess;
    }
    std::vector<op_ref> before = std::move(s->waits);
    s->waits.clear();
    before.push_back(s->last);
    s->last = insert(std::move(work), before, s->lane);
    return cudaSuccess;
}

/* A live stream, or the reason why not. */
#define STREAM(s)                                                                                  \
    do {                                                                                           \
        if (!streams.count(s)) {                                                                   \
            if (!(s))                                                                              \
                emulated_cuda_report(cudaErrorInvalidResourceHandle,                               \
                                     "%s on the default stream, which is not emulated", __func__); \
            return fail(cudaErrorInvalidResourceHandle);                                           \
        }                                                                                          \
    } while (0)

void emulated_launch(const emulated_kernel &k, cudaStream_t stream, const void *args,
                     size_t args_bytes)
{
    auto go = [&]() -> cudaError_t {
        ENTER();
        STREAM(stream);
        if (stream->device != current_device)
            return fail(cudaErrorInvalidResourceHandle);
        uint64_t threads = (uint64_t)k.block.x * k.block.y * k.block.z;
        int most = set.capability >= 90 ? 227 * 1024 : 163 * 1024, limit = 48 * 1024;
        auto it = dynamic_limits.find(k.kernel);
        if (it != dynamic_limits.end())
            limit = std::min(it->second, most);
        char why[128] = "";
        if (threads == 0 || threads > 1024 || k.block.z > 64)
            snprintf(why, sizeof why, "a block of (%u,%u,%u) threads", k.block.x, k.block.y,
                     k.block.z);
        else if (k.grid.x == 0 || k.grid.x > 0x7fffffffu || k.grid.y == 0 || k.grid.y > 65535u ||
                 k.grid.z == 0 || k.grid.z > 65535u)
            snprintf(why, sizeof why, "a grid of (%u,%u,%u) blocks", k.grid.x, k.grid.y, k.grid.z);
        else if (k.smem > (size_t)limit)
            snprintf(why, sizeof why, "%zu bytes of dynamic shared memory, at most %d allowed",
                     k.smem, limit);
        if (why[0]) { /* an error of the launch, not of the device */
            char line[512];
            snprintf(line, sizeof line, "launch of %s (%s:%d) with %s", k.name, k.file, k.line,
                     why);
            if (expecting) {
                kept.push_back(line);
                if (expected_line.empty() && strstr(line, expected_text.c_str()))
                    expected_line = line;
            } else
                fprintf(stderr, "emulated CUDA: %s\n", line);
            return fail(k.smem > (size_t)limit ? cudaErrorInvalidValue
                                               : cudaErrorInvalidConfiguration);
        }
        node_work w;
        w.kind = OP_KERNEL;
        w.name = k.name;
        w.kernel = k;
        w.bytes.assign(static_cast<const unsigned char *>(args),
                       static_cast<const unsigned char *>(args) + args_bytes);
        return queue(stream, std::move(w));
    };
    (void)go();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    if (bytes == 0)
        return cudaSuccess;
    bool device_to = is_device_address(to), device_from = is_device_address(from);
    bool wanted_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool wanted_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && (device_to != wanted_to || device_from != wanted_from))
        return fail(cudaErrorInvalidValue);
    if ((device_to && !range_lives(to, bytes)) || (device_from && !range_lives(from, bytes))) {
        char text[256];
        describe_address(device_to && !range_lives(to, bytes) ? to : from, text, sizeof text);
        emulated_cuda_report(cudaErrorInvalidValue, "cudaMemcpyAsync of %zu bytes: %s", bytes,
                             text);
        return fail(cudaErrorInvalidValue);
    }
    node_work w;
    w.kind = OP_COPY;
    w.name = "cudaMemcpyAsync";
    w.to = to;
    w.from = from;
    w.count = bytes;
    bool pageable_from = !device_from && !is_pinned(from, bytes);
    bool pageable_to = !device_to && !is_pinned(to, bytes);
    if (stream->graph && (pageable_from || pageable_to)) {
        stream->graph->broken = true;
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    if (pageable_from) {
        w.from = nullptr;
        w.bytes.assign(static_cast<const unsigned char *>(from),
                       static_cast<const unsigned char *>(from) + bytes);
    }
    cudaError_t e = queue(stream, std::move(w));
    return e == cudaSuccess && pageable_to ? drive({stream->last}, true) : e;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    ENTER();
    STREAM(stream);
    if (bytes == 0)
        return cudaSuccess;
    if (!range_lives(to, bytes)) {
        char text[256];
        describe_address(to, text, sizeof text);
        emulated_cuda_report(cudaErrorInvalidValue, "cudaMemsetAsync of %zu bytes: %s", bytes,
                             text);
        return fail(cudaErrorInvalidValue);
    }
    node_work w;
    w.kind = OP_SET;
    w.name = "cudaMemsetAsync";
    w.to = to;
    w.value = value;
    w.count = bytes;
    return queue(stream, std::move(w));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *user)
{
    ENTER();
    STREAM(stream);
    node_work w;
    w.kind = OP_HOST;
    w.name = "cudaLaunchHostFunc";
    w.host = fn;
    w.user = user;
    return queue(stream, std::move(w));
}

static cudaError_t enqueue(cudaStream_t stream, void (*run)(void *), bool (*poll)(void *),
                           const void *arg, size_t arg_bytes, const char *name)
{
    ENTER();
    STREAM(stream);
    node_work w;
    w.kind = run ? OP_RUN : OP_POLL;
    w.name = name;
    w.run = run;
    w.poll = poll;
    w.bytes.assign(static_cast<const unsigned char *>(arg),
                   static_cast<const unsigned char *>(arg) + arg_bytes);
    return queue(stream, std::move(w));
}

cudaError_t emulated_enqueue(cudaStream_t stream, void (*run)(void *arg), void *arg,
                             size_t arg_bytes, const char *name)
{
    return enqueue(stream, run, nullptr, arg, arg_bytes, name);
}

cudaError_t emulated_enqueue_poll(cudaStream_t stream, bool (*poll)(void *arg), void *arg,
                                  size_t arg_bytes, const char *name)
{
    return enqueue(stream, nullptr, poll, arg, arg_bytes, name);
}

/* ---- streams */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned int flags)
{
    return cudaStreamCreateWithPriority(out, flags, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned int flags, int priority)
{
    (void)priority;
    ENTER();
    if (!out || (flags & ~(unsigned)cudaStreamNonBlocking) != 0)
        return fail(cudaErrorInvalidValue);
    CUstream_st *s = new CUstream_st();
    s->device = current_device;
    s->lane = new_lane();
    streams.insert(s);
    counts.streams++;
    *out = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    ENTER_RELEASE();
    STREAM(s);
    streams.erase(s); /* what it has queued still runs */
    counts.streams--;
    delete s;
    return RELEASED();
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    ENTER();
    STREAM(s);
    if (s->graph) {
        s->graph->broken = true;
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    return drive(s->last ? std::vector<op_ref>{s->last} : std::vector<op_ref>{}, true);
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    ENTER();
    STREAM(s);
    if (s->graph) {
        s->graph->broken = true;
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    return ask(s->last);
}

cudaError_t cudaDeviceSynchronize(void)
{
    ENTER();
    if (capturing_anywhere())
        return capture_breaks();
    return drive_device(current_device);
}

int emulated_stream_device(cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    return streams.count(s) ? s->device : -1;
}

bool emulated_stream_capturing(cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    return streams.count(s) && s->graph;
}

bool emulated_capturing(void)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    return capturing_anywhere();
}

/* ---- events */

#define EVENT(e)                                                                                   \
    do {                                                                                           \
        if (!events.count(e))                                                                      \
            return fail(cudaErrorInvalidResourceHandle);                                           \
    } while (0)

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned int flags)
{
    ENTER();
    if (!out || (flags & ~3u) != 0)
        return fail(cudaErrorInvalidValue);
    CUevent_st *e = new CUevent_st();
    e->flags = flags;
    events.insert(e);
    counts.events++;
    *out = e;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    ENTER_RELEASE();
    EVENT(e);
    events.erase(e);
    counts.events--;
    delete e;
    return RELEASED();
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    ENTER();
    EVENT(e);
    STREAM(s);
    if (s->graph) {
        if (s->graph->broken)
            return fail(cudaErrorStreamCaptureInvalidated);
        e->at = nullptr;
        e->graph = s->graph;
        e->graph_at = s->graph_last;
        return cudaSuccess;
    }
    node_work w;
    w.kind = OP_MARK;
    w.name = "cudaEventRecord";
    cudaError_t code = queue(s, std::move(w));
    e->at = s->last;
    e->graph = nullptr;
    return code;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned int flags)
{
    (void)flags;
    ENTER();
    EVENT(e);
    STREAM(s);
    if (e->graph && graphs.count(e->graph) && e->graph->capturing) {
        if (s->graph && s->graph != e->graph)
            return fail(cudaErrorStreamCaptureMerge);
        if (!s->graph) { /* joins the capture */
            s->graph = e->graph;
            s->graph->capturing++;
            s->graph_last.clear();
        }
        for (int at : e->graph_at)
            if (std::find(s->graph_last.begin(), s->graph_last.end(), at) == s->graph_last.end())
                s->graph_last.push_back(at);
        return cudaSuccess;
    }
    if (s->graph) {
        s->graph->broken = true;
        return fail(cudaErrorStreamCaptureIsolation);
    }
    if (e->at)
        s->waits.push_back(e->at);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    ENTER();
    EVENT(e);
    if (e->graph) {
        if (graphs.count(e->graph))
            e->graph->broken = true;
        return fail(cudaErrorCapturedEvent);
    }
    return ask(e->at);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    ENTER();
    EVENT(e);
    if (e->graph) {
        if (graphs.count(e->graph))
            e->graph->broken = true;
        return fail(cudaErrorCapturedEvent);
    }
    return drive(e->at ? std::vector<op_ref>{e->at} : std::vector<op_ref>{}, true);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    ENTER();
    EVENT(from);
    EVENT(to);
    if (!ms)
        return fail(cudaErrorInvalidValue);
    if ((from->flags | to->flags) & cudaEventDisableTiming || !from->at || !to->at)
        return fail(cudaErrorInvalidResourceHandle);
    if (!from->at->done || !to->at->done)
        return fail(cudaErrorNotReady);
    *ms = (float)(to->at->time_ms - from->at->time_ms);
    return cudaSuccess;
}

/* ---- graphs */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)mode; /* all are as strict as global */
    ENTER();
    STREAM(s);
    if (s->graph)
        return fail(cudaErrorInvalidValue);
    CUgraph_st *g = new CUgraph_st();
    g->origin = s;
    g->capturing = 1;
    graphs.insert(g);
    counts.graphs++;
    s->graph = g;
    s->graph_last.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status)
{
    ENTER();
    STREAM(s);
    if (!status)
        return fail(cudaErrorInvalidValue);
    *status = !s->graph          ? cudaStreamCaptureStatusNone
              : s->graph->broken ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    ENTER();
    STREAM(s);
    if (!out)
        return fail(cudaErrorInvalidValue);
    *out = nullptr;
    CUgraph_st *g = s->graph;
    if (!g)
        return fail(cudaErrorInvalidValue);
    if (g->origin != s)
        return fail(cudaErrorStreamCaptureUnmatched);
    /* Everything captured comes before the stream's end, or something was never joined. */
    std::vector<bool> reached(g->nodes.size());
    std::vector<int> todo = s->graph_last;
    while (!todo.empty()) {
        int at = todo.back();
        todo.pop_back();
        if (reached[(size_t)at])
            continue;
        reached[(size_t)at] = true;
        for (int before : g->nodes[(size_t)at].before)
            todo.push_back(before);
    }
    cudaError_t code = g->broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    if (code == cudaSuccess && std::find(reached.begin(), reached.end(), false) != reached.end())
        code = cudaErrorStreamCaptureUnjoined;
    for (CUstream_st *other : streams)
        if (other->graph == g) {
            other->graph = nullptr;
            other->graph_last.clear();
        }
    g->capturing = 0;
    if (code != cudaSuccess) {
        graphs.erase(g);
        counts.graphs--;
        delete g;
        return fail(code);
    }
    *out = g;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags)
{
    (void)flags;
    ENTER();
    if (!out || !graphs.count(g) || g->capturing)
        return fail(cudaErrorInvalidValue);
    CUgraphExec_st *x = new CUgraphExec_st();
    x->nodes = g->nodes;
    for (const graph_node &n : x->nodes)
        if (!x->lanes.count(n.stream))
            x->lanes[n.stream] = new_lane();
    execs.insert(x);
    counts.graphs++;
    *out = x;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t x, cudaStream_t s)
{
    ENTER();
    STREAM(s);
    return execs.count(x) ? cudaSuccess : fail(cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    ENTER();
    STREAM(s);
    if (!execs.count(x))
        return fail(cudaErrorInvalidValue);
    if (s->graph) {
        s->graph->broken = true;
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    if (x->last)
        s->waits.push_back(x->last);
    node_work begin;
    begin.name = "cudaGraphLaunch";
    cudaError_t code = queue(s, std::move(begin));
    if (code != cudaSuccess)
        return code;
    op_ref root = s->last;
    std::vector<op_ref> made;
    for (const graph_node &n : x->nodes) {
        std::vector<op_ref> before = {root};
        for (int at : n.before)
            before.push_back(made[(size_t)at]);
        node_work w = n.work;
        made.push_back(insert(std::move(w), before, x->lanes[n.stream]));
    }
    for (const op_ref &o : made)
        s->waits.push_back(o);
    node_work end;
    end.name = "the end of a graph";
    code = queue(s, std::move(end));
    x->last = s->last;
    return code;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    ENTER_RELEASE();
    if (!graphs.count(g) || g->capturing)
        return fail(cudaErrorInvalidValue);
    graphs.erase(g);
    counts.graphs--;
    delete g;
    return RELEASED();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    ENTER_RELEASE();
    if (!execs.count(x))
        return fail(cudaErrorInvalidValue);
    execs.erase(x);
    counts.graphs--;
    delete x;
    return RELEASED();
}

/* ---- functions */

cudaError_t cudaFuncSetAttribute(const void *func, enum cudaFuncAttribute attr, int value)
{
    ENTER();
    if (!func)
        return fail(cudaErrorInvalidDeviceFunction);
    if (attr == cudaFuncAttributePreferredSharedMemoryCarveout)
        return cudaSuccess;
    int most = set.capability >= 90 ? 227 * 1024 : 163 * 1024;
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > most)
        return fail(cudaErrorInvalidValue);
    dynamic_limits[func] = value;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr, const void *func)
{
    ENTER();
    if (!attr || !func)
        return fail(cudaErrorInvalidValue);
    memset(attr, 0, sizeof *attr);
    attr->maxThreadsPerBlock = 1024;
    attr->numRegs = 64;
    attr->ptxVersion = attr->binaryVersion = set.capability;
    auto it = dynamic_limits.find(func);
    attr->maxDynamicSharedSizeBytes = it != dynamic_limits.end() ? it->second : 48 * 1024;
    return cudaSuccess;
}

/* ---- devices */

cudaError_t cudaDriverGetVersion(int *version)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    if (!set.read)
        settings_read();
    if (!version)
        return fail(cudaErrorInvalidValue);
    *version = set.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    if (!version)
        return fail(cudaErrorInvalidValue);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    if (!count)
        return fail(cudaErrorInvalidValue);
    *count = 0;
    cudaError_t e = usable();
    if (e != cudaSuccess)
        return fail(e);
    *count = (int)devices.size();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int which)
{
    ENTER();
    if (which < 0 || which >= (int)devices.size())
        return fail(cudaErrorInvalidDevice);
    current_device = which;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *which)
{
    ENTER();
    if (!which)
        return fail(cudaErrorInvalidValue);
    *which = current_device;
    return cudaSuccess;
}

#define DEVICE(which)                                                                              \
    do {                                                                                           \
        if ((which) < 0 || (which) >= (int)devices.size())                                         \
            return fail(cudaErrorInvalidDevice);                                                   \
    } while (0)

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int which)
{
    ENTER();
    DEVICE(which);
    if (!p)
        return fail(cudaErrorInvalidValue);
    const device &d = devices[(size_t)which];
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", d.name.c_str());
    memcpy(p->uuid.bytes, "emulated", 8);
    p->uuid.bytes[15] = (char)(d.physical + 1);
    p->totalGlobalMem = set.memory;
    p->sharedMemPerBlock = 48 * 1024;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = set.capability / 10;
    p->minor = set.capability % 10;
    p->multiProcessorCount = set.processors;
    p->pciBusID = d.physical + 1;
    p->asyncEngineCount = 2;
    p->unifiedAddressing = 1;
    p->l2CacheSize = 32 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerBlockOptin = (set.capability >= 90 ? 227u : 163u) * 1024;
    p->sharedMemPerMultiprocessor = p->sharedMemPerBlockOptin + 1024;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int which)
{
    cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, which);
    if (e != cudaSuccess)
        return e;
    if (!value)
        return fail(cudaErrorInvalidValue);
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)p.sharedMemPerBlock;
        break;
    case cudaDevAttrWarpSize:
        *value = p.warpSize;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        break;
    case cudaDevAttrPciBusId:
        *value = p.pciBusID;
        break;
    case cudaDevAttrPciDeviceId:
        *value = p.pciDeviceID;
        break;
    case cudaDevAttrPciDomainId:
        *value = p.pciDomainID;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        break;
    default:
        return fail(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int len, int which)
{
    ENTER();
    DEVICE(which);
    if (!text || len < 13)
        return fail(cudaErrorInvalidValue);
    snprintf(text, (size_t)len, "0000:%02X:00.0", devices[(size_t)which].physical + 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER();
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return cudaSuccess;
}

/* ---- errors */

cudaError_t cudaPeekAtLastError(void)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    return sticky != cudaSuccess ? sticky : last_error;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return e;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define EMULATED_CUDA_NAME(name, value, text)                                                      \
    case name:                                                                                     \
        return #name;
        EMULATED_CUDA_ERRORS(EMULATED_CUDA_NAME)
#undef EMULATED_CUDA_NAME
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define EMULATED_CUDA_TEXT(name, value, text)                                                      \
    case name:                                                                                     \
        return text;
        EMULATED_CUDA_ERRORS(EMULATED_CUDA_TEXT)
#undef EMULATED_CUDA_TEXT
    }
    return "unrecognized error code";
}

struct emulated_cuda_counts emulated_cuda_counts(void)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    counts.switches = emulated_kernel_counts.switches;
    counts.warp_operations = emulated_kernel_counts.warp_operations;
    return counts;
}
