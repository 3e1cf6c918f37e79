/*
 * prefetch.c - see prefetch.h.
 *
 * Three slots go round: one is held by the taker, up to two are asked for or being read. One mutex,
 * one condition.
 */
#include "worker/prefetch.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"

enum { SLOTS = 3 };

struct slot {
    struct row_source source;
    int64_t *rows;
    int count, capacity;
    struct batch batch;
    enum status status;
    char sentence[1024];
};

struct prefetch {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct slot slot[SLOTS];
    int64_t asked, read, taken; /* counts; slot = count % SLOTS */
    bool stop;
};

static int dataset_source_length(void *self, int64_t unit)
{
    return dataset_length(self, unit);
}

static enum status dataset_source_read(void *self, const int64_t *units, int count,
                                       struct batch *batch)
{
    return dataset_read(self, units, count, batch);
}

static int64_t dataset_source_first(void *self, int64_t row)
{
    return dataset_first_unit(self, row);
}

struct row_source row_source_dataset(struct dataset *ds)
{
    const struct chunk_rule *chunks = dataset_chunks(ds);
    return (struct row_source){.self = ds,
                               .length = dataset_source_length,
                               .read = dataset_source_read,
                               .first_unit = chunks->size > 0 ? dataset_source_first : NULL,
                               .pooling = chunks->pooling};
}

static void *work(void *argument)
{
    struct prefetch *p = argument;
    (void)pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->stop && p->read == p->asked)
            (void)pthread_cond_wait(&p->changed, &p->mutex);
        if (p->stop)
            break;
        struct slot *slot = &p->slot[p->read % SLOTS];
        (void)pthread_mutex_unlock(&p->mutex);
        slot->status = fault_here("data.read");
        if (slot->status == STATUS_OK)
            slot->status =
                slot->source.read(slot->source.self, slot->rows, slot->count, &slot->batch);
        if (slot->status != STATUS_OK) /* the sentence is per thread: carry it over */
            (void)snprintf(slot->sentence, sizeof slot->sentence, "%s", status_message());
        (void)pthread_mutex_lock(&p->mutex);
        p->read++;
        (void)pthread_cond_broadcast(&p->changed);
    }
    (void)pthread_mutex_unlock(&p->mutex);
    return NULL;
}

enum status prefetch_open(struct prefetch **out)
{
    sigset_t all, before;
    struct prefetch *p;
    TRY(mem_alloc(1, sizeof *p, "the reading thread", &p));
    (void)pthread_mutex_init(&p->mutex, NULL);
    (void)pthread_cond_init(&p->changed, NULL);
    (void)sigfillset(&all); /* signals go to the main thread */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&p->thread, NULL, work, p);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        mem_free(p);
        *out = NULL;
        return status_fail(STATUS_OS, "cannot start the reading thread: %s", strerror(error));
    }
    *out = p;
    return STATUS_OK;
}

void prefetch_close(struct prefetch *p)
{
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&p->mutex);
    p->stop = true;
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->mutex);
    (void)pthread_join(p->thread, NULL);
    for (int i = 0; i < SLOTS; i++) {
        batch_release(&p->slot[i].batch);
        mem_free(p->slot[i].rows);
    }
    (void)pthread_cond_destroy(&p->changed);
    (void)pthread_mutex_destroy(&p->mutex);
    mem_free(p);
}

enum status prefetch_ask(struct prefetch *p, const struct row_source *source, const int64_t *rows,
                         int count)
{
    struct slot *slot = &p->slot[p->asked % SLOTS];
    if (prefetch_pending(p) >= SLOTS - 1)
        return status_fail(STATUS_ARG, "more than %d batches asked for", SLOTS - 1);
    if (count > slot->capacity) {
        mem_free(slot->rows);
        slot->capacity = 0;
        TRY(mem_alloc_raw((size_t)count, sizeof *slot->rows, "a batch's rows", &slot->rows));
        slot->capacity = count;
    }
    if (count > 0)
        memcpy(slot->rows, rows, (size_t)count * sizeof *rows);
    slot->count = count;
    slot->source = *source;
    (void)pthread_mutex_lock(&p->mutex);
    p->asked++;
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->mutex);
    return STATUS_OK;
}

enum status prefetch_take(struct prefetch *p, const struct batch **batch)
{
    *batch = NULL;
    if (prefetch_pending(p) == 0)
        return status_fail(STATUS_ARG, "no batch was asked for");
    struct slot *slot = &p->slot[p->taken % SLOTS];
    (void)pthread_mutex_lock(&p->mutex);
    while (p->read <= p->taken)
        (void)pthread_cond_wait(&p->changed, &p->mutex);
    p->taken++;
    (void)pthread_mutex_unlock(&p->mutex);
    if (slot->status != STATUS_OK)
        return status_fail(slot->status, "%s", slot->sentence);
    *batch = &slot->batch;
    return STATUS_OK;
}

void prefetch_settle(struct prefetch *p)
{
    (void)pthread_mutex_lock(&p->mutex);
    while (p->read < p->asked)
        (void)pthread_cond_wait(&p->changed, &p->mutex);
    (void)pthread_mutex_unlock(&p->mutex);
}

int prefetch_pending(const struct prefetch *p)
{
    return (int)(p->asked - p->taken); /* both are the caller's */
}
