/* averages.c - see averages.h. */
#include "worker/averages.h"

#include <string.h>

#include "base/mem.h"

struct averages {
    enum config_average kind;
    float share; /* 1 - decay */
    const struct shards *shards;
    float *mean;       /* owned elements, range after range */
    int64_t *range_at; /* (ranges) where each begins */
    int64_t count;
};

enum status averages_open(enum config_average kind, double decay, const struct shards *shards,
                          struct averages **out)
{
    struct averages *a;
    enum status st;
    int64_t elements = 0;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *a, "the mean of the weights", &a));
    *a = (struct averages){.kind = kind, .share = (float)(1.0 - decay), .shards = shards};
    TRY_GOTO(fail, mem_alloc((size_t)shards->ranges, sizeof *a->range_at, "the mean of the weights",
                             &a->range_at));
    for (int r = 0; r < shards->ranges; r++) {
        a->range_at[r] = elements;
        elements += shards->owned[r].end - shards->owned[r].begin;
    }
    TRY_GOTO(fail,
             mem_alloc((size_t)elements, sizeof *a->mean, "the mean of the weights", &a->mean));
    *out = a;
    return STATUS_OK;
fail:
    averages_close(a);
    return st;
}

void averages_close(struct averages *a)
{
    if (a == NULL)
        return;
    mem_free(a->mean);
    mem_free(a->range_at);
    mem_free(a);
}

int64_t averages_count(const struct averages *a)
{
    return a->count;
}

static void copy(struct averages *a, const float *weights)
{
    for (int r = 0; r < a->shards->ranges; r++) {
        const struct range *own = &a->shards->owned[r];
        memcpy(a->mean + a->range_at[r], weights + own->begin,
               (size_t)(own->end - own->begin) * sizeof *weights);
    }
}

void averages_add(struct averages *a, const float *weights)
{
    const float share = a->kind == CONFIG_AVERAGE_EMA ? a->share : 1.0f / (float)(a->count + 1);
    if (a->count++ == 0) {
        copy(a, weights);
        return;
    }
    for (int r = 0; r < a->shards->ranges; r++) {
        const struct range *own = &a->shards->owned[r];
        const int64_t n = own->end - own->begin;
        const float *w = weights + own->begin;
        float *mean = a->mean + a->range_at[r];
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++)
            mean[i] += (w[i] - mean[i]) * share;
    }
}

void averages_swap(struct averages *a, float *weights)
{
    for (int r = 0; a->count > 0 && r < a->shards->ranges; r++) {
        const struct range *own = &a->shards->owned[r];
        const int64_t n = own->end - own->begin;
        float *w = weights + own->begin, *mean = a->mean + a->range_at[r];
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            const float kept = w[i];
            w[i] = mean[i];
            mean[i] = kept;
        }
    }
}

enum status averages_get(const struct averages *a, int64_t first, int64_t count, float *out)
{
    for (int r = 0; r < a->shards->ranges; r++) {
        const struct range *own = &a->shards->owned[r];
        if (first < own->begin || first + count > own->end)
            continue;
        memcpy(out, a->mean + a->range_at[r] + first - own->begin, (size_t)count * sizeof *out);
        return STATUS_OK;
    }
    return status_fail(STATUS_ARG, "elements %lld to %lld are not owned here", (long long)first,
                       (long long)(first + count));
}

void averages_resume(struct averages *a, const float *weights, int64_t count)
{
    a->count = count;
    copy(a, weights);
}
