/*
 * watchdog.c - a thread that ends a process which stands still, and the status page that outlives
 * it.
 *
 * MPI offers no time limit on a wait: when one rank is stuck, the others wait for it in a
 * collective without end. Each rank's watchdog therefore looks only at its own main thread; the
 * launcher ends the job when one process ends.
 *
 * The page is a small file mapped into memory. What is stored there survives the process, however
 * it ends, because the kernel owns the memory. Layout (version 1, the machine's byte order, 256
 * bytes used of 4,096):
 *
 *   0 magic "COHORTST"  8 version u32  12 rank i32  16 ranks i32  20 process id i32  24 host
 * char[64] 88 marks u64  96 collectives begun u64  104 state u32  108 slot u32 112, 168 two places:
 * step i64, wall clock in ns i64, phase char[40]
 *
 * A place is written into the slot not in use, then `slot` is switched: a kill in the middle leaves
 * the old one whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/internal.h"

#define PAGE_BYTES 4096
#define PAGE_VERSION 1

static const char page_magic[8] = {'C', 'O', 'H', 'O', 'R', 'T', 'S', 'T'};

struct place {
    int64_t step;
    int64_t marked_ns; /* wall clock */
    char phase[40];
};

struct page {
    char magic[8];
    uint32_t version;
    int32_t rank, ranks, process;
    char host[64];
    _Atomic uint64_t marks;
    _Atomic uint64_t collectives;
    _Atomic uint32_t state;
    _Atomic uint32_t slot;
    struct place place[2];
};
_Static_assert(sizeof(struct page) == 224 && offsetof(struct page, place) == 112,
               "the layout above is a file format");

/* What the watchdog thread reads; the page is only written. */
static struct {
    _Atomic uint64_t marks, collectives;
    _Atomic int64_t step;
    _Atomic(const char *) phase;
} now = {.phase = "start"};

static struct page
    *page; /* NULL without a folder; written by the main thread, its state also by the watchdog */

static struct {
    bool runs, stops; /* stops is under lock */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    double timeout_s;
    int rank, ranks;
    char host[64];
} watchdog = {.lock = PTHREAD_MUTEX_INITIALIZER};

void collective_begins(void)
{
    uint64_t n = atomic_fetch_add_explicit(&now.collectives, 1, memory_order_relaxed) + 1;
    if (page != NULL)
        atomic_store_explicit(&page->collectives, n, memory_order_relaxed);
}

static int64_t wall_ns(void)
{
    struct timespec t = {0, 0};
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct {
    void (*look)(void *arg);
    void *arg;
    bool inside;
} on_mark;

void comm_on_mark(void (*look)(void *arg), void *arg)
{
    on_mark.look = look;
    on_mark.arg = arg;
}

static void note_place(int64_t step, const char *phase)
{
    if (step >= 0)
        atomic_store_explicit(&now.step, step, memory_order_relaxed);
    step = atomic_load_explicit(&now.step, memory_order_relaxed);
    atomic_store_explicit(&now.phase, phase, memory_order_relaxed);
    uint64_t marks = atomic_fetch_add_explicit(&now.marks, 1, memory_order_relaxed) + 1;
    if (page == NULL)
        return;
    uint32_t free_slot = 1 - atomic_load_explicit(&page->slot, memory_order_relaxed);
    struct place *place = &page->place[free_slot];
    size_t n = strnlen(phase, sizeof place->phase - 1);
    place->step = step;
    place->marked_ns = wall_ns();
    memset(place->phase, 0, sizeof place->phase);
    memcpy(place->phase, phase, n);
    atomic_store_explicit(&page->slot, free_slot, memory_order_release);
    atomic_store_explicit(&page->marks, marks, memory_order_relaxed);
}

void comm_mark(int64_t step, const char *phase)
{
    note_place(step, phase);
    if (on_mark.look == NULL || on_mark.inside)
        return;
    on_mark.inside = true;
    on_mark.look(on_mark.arg);
    on_mark.inside = false;
}

/* ---- the thread ---- */

static _Noreturn void expire(double idle_s)
{
    char line[512];
    int n =
        snprintf(line, sizeof line,
                 "cohort: error: watchdog: no progress for %.1f s: rank %d of %d on %s, step %lld, "
                 "phase %s, "
                 "collective %llu; ending with code %d\n",
                 idle_s, watchdog.rank, watchdog.ranks, watchdog.host,
                 (long long)atomic_load_explicit(&now.step, memory_order_relaxed),
                 atomic_load_explicit(&now.phase, memory_order_relaxed),
                 (unsigned long long)atomic_load_explicit(&now.collectives, memory_order_relaxed),
                 status_exit_code(STATUS_INTERNAL));
    size_t bytes = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    if (page != NULL)
        atomic_store_explicit(&page->state, COMM_PLACE_EXPIRED, memory_order_relaxed);
    ssize_t ignored = write(STDERR_FILENO, line, bytes);
    (void)ignored;
    _exit(status_exit_code(STATUS_INTERNAL));
}

static void *watch(void *unused)
{
    double tick_s = fmin(0.25, watchdog.timeout_s / 8), idle_s = 0, last = clock_s();
    uint64_t seen = atomic_load_explicit(&now.marks, memory_order_relaxed);
    (void)unused;
    (void)pthread_mutex_lock(&watchdog.lock);
    while (!watchdog.stops) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t ns = until.tv_nsec + (int64_t)(tick_s * 1e9);
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        (void)pthread_cond_timedwait(&watchdog.wake, &watchdog.lock, &until);
        uint64_t marks = atomic_load_explicit(&now.marks, memory_order_relaxed);
        double t = clock_s();
        /* A process that was stopped as a whole (SIGSTOP, a suspended job) was not idle: at most
         * two ticks count. */
        idle_s = marks != seen ? 0 : idle_s + fmin(t - last, 2 * tick_s);
        seen = marks;
        last = t;
        if (idle_s >= watchdog.timeout_s && !watchdog.stops)
            expire(idle_s);
    }
    (void)pthread_mutex_unlock(&watchdog.lock);
    return NULL;
}

static enum status start_thread(void)
{
    pthread_condattr_t clock;
    sigset_t all, before;
    int error = pthread_condattr_init(&clock);
    if (error == 0) {
        error = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        if (error == 0)
            error = pthread_cond_init(&watchdog.wake, &clock);
        (void)pthread_condattr_destroy(&clock);
    }
    watchdog.stops = false;
    if (error == 0) {
        /* Signals are for the main thread: the new one inherits a mask that blocks them all. */
        (void)sigfillset(&all);
        error = pthread_sigmask(SIG_SETMASK, &all, &before);
        if (error == 0) {
            error = pthread_create(&watchdog.thread, NULL, watch, NULL);
            (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        }
        if (error != 0)
            (void)pthread_cond_destroy(&watchdog.wake);
    }
    if (error != 0)
        return status_fail(STATUS_OS, "cannot start the watchdog thread: %s", strerror(error));
    watchdog.runs = true;
    return STATUS_OK;
}

/* ---- the page ---- */

static enum status page_path(const char *folder, int rank, char **path)
{
    char name[32];
    (void)snprintf(name, sizeof name, "status.%d", rank);
    return path_join(folder, name, path);
}

static enum status open_page(const char *folder)
{
    static const char zeros[PAGE_BYTES];
    enum status st;
    char *path = NULL;
    void *memory = MAP_FAILED;
    TRY(page_path(folder, watchdog.rank, &path));
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        st = status_fail(STATUS_IO, "cannot write the status page %s: %s", path, strerror(errno));
        goto out;
    }
    /* Written, not only extended: a store to a page that the disk has no room for would be SIGBUS.
     */
    TRY_GOTO(out, fd_write_all(fd, zeros, sizeof zeros, path));
    memory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        st = status_fail(STATUS_IO, "cannot map the status page %s: %s", path, strerror(errno));
        goto out;
    }
    page = memory;
    page->version = PAGE_VERSION;
    page->rank = watchdog.rank;
    page->ranks = watchdog.ranks;
    page->process = (int32_t)getpid();
    memcpy(page->host, watchdog.host, sizeof page->host);
    comm_mark(atomic_load_explicit(&now.step, memory_order_relaxed),
              atomic_load_explicit(&now.phase, memory_order_relaxed));
    atomic_store_explicit(&page->collectives,
                          atomic_load_explicit(&now.collectives, memory_order_relaxed),
                          memory_order_relaxed);
    memcpy(page->magic, page_magic, sizeof page_magic); /* last: before, the page is not one */
out:
    if (fd >= 0)
        (void)close(fd);
    mem_free(path);
    return st;
}

enum status comm_watchdog_start(struct comm *world, double timeout_s, const char *folder)
{
    if (watchdog.runs || page != NULL)
        return status_fail(STATUS_ARG, "the watchdog runs already");
    if (!(timeout_s >= 0 && timeout_s <= 1e9))
        return status_fail(STATUS_ARG, "a watchdog of %g s was asked for, wanted 0 (off) to 1e9",
                           timeout_s);
    watchdog.timeout_s = timeout_s;
    watchdog.rank = comm_rank(world);
    watchdog.ranks = comm_size(world);
    if (gethostname(watchdog.host, sizeof watchdog.host - 1) != 0)
        (void)snprintf(watchdog.host, sizeof watchdog.host, "?");
    if (folder != NULL)
        TRY(open_page(folder));
    enum status st = timeout_s > 0 ? start_thread() : STATUS_OK;
    if (st != STATUS_OK)
        comm_watchdog_stop();
    return st;
}

void comm_watchdog_stop(void)
{
    if (watchdog.runs) {
        (void)pthread_mutex_lock(&watchdog.lock);
        watchdog.stops = true;
        (void)pthread_cond_signal(&watchdog.wake);
        (void)pthread_mutex_unlock(&watchdog.lock);
        (void)pthread_join(watchdog.thread, NULL);
        (void)pthread_cond_destroy(&watchdog.wake);
        watchdog.runs = false;
    }
    if (page != NULL) {
        atomic_store_explicit(&page->state, COMM_PLACE_ENDED, memory_order_relaxed);
        (void)munmap(page, PAGE_BYTES);
        page = NULL;
    }
}

enum status comm_status_read(const char *folder, int rank, struct comm_place *place)
{
    enum status st;
    char *path = NULL, *bytes = NULL;
    size_t n;
    struct page found;
    *place = (struct comm_place){0};
    TRY(page_path(folder, rank, &path));
    TRY_GOTO(out, file_read(path, PAGE_BYTES, &bytes, &n));
    if (n != PAGE_BYTES || memcmp(bytes, page_magic, sizeof page_magic) != 0) {
        st = status_fail(STATUS_FORMAT, "%s is not a status page", path);
        goto out;
    }
    memcpy(&found, bytes, sizeof found);
    uint32_t slot = atomic_load(&found.slot), state = atomic_load(&found.state);
    if (found.version != PAGE_VERSION || slot > 1 || state > COMM_PLACE_EXPIRED) {
        st = status_fail(STATUS_FORMAT,
                         "%s is a status page of version %u, slot %u, state %u; wanted version %d",
                         path, found.version, slot, state, PAGE_VERSION);
        goto out;
    }
    place->rank = found.rank;
    place->ranks = found.ranks;
    place->process = found.process;
    place->state = (enum comm_place_state)state;
    place->step = found.place[slot].step;
    place->marked_s = (double)found.place[slot].marked_ns * 1e-9;
    place->collectives = atomic_load(&found.collectives);
    memcpy(place->host, found.host, sizeof place->host - 1);
    memcpy(place->phase, found.place[slot].phase, sizeof place->phase - 1);
out:
    mem_free(bytes);
    mem_free(path);
    return st;
}
