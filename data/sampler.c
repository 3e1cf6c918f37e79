/*
 * sampler.c - the order of an epoch and the dealing of a batch to grains; see sampler.h.
 *
 * Both run once per step on every rank, so that no rank needs to be told: the permutation of an
 * epoch is made when its first step is asked for and kept, a plan is a radix sort and a heap of
 * grains (linear in rows but for the heap's depth).
 */
#include "data/sampler.h"

#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"

struct sampler {
    int64_t *rows;  /* (count) as given */
    int64_t *order; /* (count) rows in the order of `epoch`; NULL where nothing is shuffled */
    int64_t count, batch_size;
    int64_t epoch; /* that order holds; -1: none yet */
    uint64_t seed;
};

enum status sampler_open(const struct sampler_opts *opts, struct sampler **out)
{
    struct sampler *s;
    enum status st;
    *out = NULL;
    if (opts->count < 1 || opts->batch_size < 1 || opts->batch_size > INT_MAX)
        return status_fail(STATUS_ARG,
                           "a sampler of %lld rows in batches of %lld: both must be at least 1",
                           (long long)opts->count, (long long)opts->batch_size);
    TRY(mem_alloc(1, sizeof *s, "a sampler", &s));
    s->count = opts->count;
    s->batch_size = opts->batch_size;
    s->seed = opts->seed;
    s->epoch = -1;
    TRY_GOTO(fail,
             mem_alloc_raw((size_t)s->count, sizeof *s->rows, "the sampler's rows", &s->rows));
    memcpy(s->rows, opts->rows, (size_t)s->count * sizeof *s->rows);
    if (opts->shuffle)
        TRY_GOTO(fail, mem_alloc_raw((size_t)s->count, sizeof *s->order, "the order of an epoch",
                                     &s->order));
    *out = s;
    return STATUS_OK;
fail:
    sampler_close(s);
    return st;
}

void sampler_close(struct sampler *sampler)
{
    if (sampler == NULL)
        return;
    mem_free(sampler->rows);
    mem_free(sampler->order);
    mem_free(sampler);
}

int64_t sampler_steps(const struct sampler *sampler)
{
    return sampler->count / sampler->batch_size + (sampler->count % sampler->batch_size != 0);
}

/* Always from the given order, never from the last epoch's: epoch 7 is the same whether or not 6
 * was ever asked for. */
static void shuffle_rows(struct sampler *s, int64_t epoch)
{
    uint64_t key = random_key(s->seed, RANDOM_SHUFFLE, (uint64_t)epoch, 0);
    memcpy(s->order, s->rows, (size_t)s->count * sizeof *s->rows);
    for (int64_t i = s->count - 1; i > 0; i--) {
        int64_t j = (int64_t)random_below(key, (uint64_t)i, (uint64_t)i + 1);
        int64_t kept = s->order[i];
        s->order[i] = s->order[j];
        s->order[j] = kept;
    }
    s->epoch = epoch;
}

enum status sampler_next(struct sampler *sampler, int64_t epoch, int64_t step, const int64_t **rows,
                         int *count)
{
    *rows = NULL;
    *count = 0;
    if (epoch < 0 || step < 0 || step >= sampler_steps(sampler))
        return status_fail(STATUS_ARG,
                           "step %lld of epoch %lld was asked for; an epoch has %lld steps",
                           (long long)step, (long long)epoch, (long long)sampler_steps(sampler));
    if (sampler->order != NULL && sampler->epoch != epoch)
        shuffle_rows(sampler, epoch);
    int64_t first = step * sampler->batch_size, left = sampler->count - first;
    *rows = (sampler->order != NULL ? sampler->order : sampler->rows) + first;
    *count = (int)(left < sampler->batch_size ? left : sampler->batch_size);
    return STATUS_OK;
}

/* ---- the plan of one batch ---- */

static enum status plan_reserve(struct batch_plan *plan, int rows, int grains)
{
    if (rows > plan->row_capacity) {
        size_t n = (size_t)rows + (size_t)rows / 2;
        mem_free(plan->position);
        mem_free(plan->grain_of);
        mem_free(plan->order);
        plan->position = plan->grain_of = NULL;
        plan->order = NULL;
        plan->row_capacity = 0;
        TRY(mem_alloc_raw(n, sizeof *plan->position, "a batch plan", &plan->position));
        TRY(mem_alloc_raw(n, sizeof *plan->grain_of, "a batch plan", &plan->grain_of));
        TRY(mem_alloc_raw(n, 2 * sizeof *plan->order, "a batch plan", &plan->order));
        plan->row_capacity = (int)(n > INT_MAX ? INT_MAX : n);
    }
    if (grains > plan->grain_capacity) {
        mem_free(plan->grain_begin);
        mem_free(plan->grain_tokens);
        mem_free(plan->heap);
        plan->grain_begin = plan->heap = NULL;
        plan->grain_tokens = NULL;
        plan->grain_capacity = 0;
        TRY(mem_alloc_raw((size_t)grains + 1, sizeof *plan->grain_begin, "a batch plan",
                          &plan->grain_begin));
        TRY(mem_alloc_raw((size_t)grains, sizeof *plan->grain_tokens, "a batch plan",
                          &plan->grain_tokens));
        TRY(mem_alloc_raw((size_t)grains, sizeof *plan->heap, "a batch plan", &plan->heap));
        plan->grain_capacity = grains;
    }
    return STATUS_OK;
}

/*
 * Positions by falling length, equal lengths in the batch's order, into plan->order as (length <<
 * 32 | position). A stable radix sort of eight bits a pass; passes above the longest row's highest
 * byte are left out, so that usual rows take two.
 */
static const uint64_t *sort_by_length(struct batch_plan *plan, const int32_t *length, int rows)
{
    uint64_t *from = plan->order, *to = plan->order + rows;
    uint32_t longest = 0;
    for (int i = 0; i < rows; i++) {
        from[i] = (uint64_t)(uint32_t)length[i] << 32 | (uint32_t)i;
        if ((uint32_t)length[i] > longest)
            longest = (uint32_t)length[i];
    }
    for (int shift = 0; shift < 32 && longest >> shift != 0; shift += 8) {
        int begin[256] = {0}, at = 0;
        for (int i = 0; i < rows; i++)
            begin[from[i] >> (32 + shift) & 255]++;
        for (int bin = 255; bin >= 0; bin--) {
            int n = begin[bin];
            begin[bin] = at;
            at += n;
        }
        for (int i = 0; i < rows; i++)
            to[begin[from[i] >> (32 + shift) & 255]++] = from[i];
        uint64_t *kept = from;
        from = to;
        to = kept;
    }
    return from;
}

static bool lighter(const struct batch_plan *plan, int32_t a, int32_t b)
{
    int64_t ta = plan->grain_tokens[a], tb = plan->grain_tokens[b];
    return ta < tb || (ta == tb && a < b);
}

/* The root of the heap became heavier: let it sink. */
static void sink_root(struct batch_plan *plan)
{
    int32_t *heap = plan->heap, grain = heap[0];
    int at = 0;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= plan->grains)
            break;
        if (child + 1 < plan->grains && lighter(plan, heap[child + 1], heap[child]))
            child++;
        if (!lighter(plan, heap[child], grain))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = grain;
}

enum status batch_plan(struct batch_plan *plan, const int32_t *length, int rows, int grains)
{
    if (rows < 0 || grains < 1)
        return status_fail(STATUS_ARG, "a plan of %d rows for %d grains", rows, grains);
    for (int i = 0; i < rows; i++) {
        if (length[i] < 0)
            return status_fail(STATUS_ARG, "row %d of the batch has %d tokens", i, length[i]);
    }
    TRY(plan_reserve(plan, rows, grains));
    plan->rows = rows;
    plan->grains = grains;
    for (int g = 0; g < grains; g++) {
        plan->grain_tokens[g] = 0;
        plan->grain_begin[g] = 0;
        plan->heap[g] = g; /* all empty: ordered by number, which is a heap */
    }
    plan->grain_begin[grains] = 0;
    const uint64_t *order = sort_by_length(plan, length, rows);
    for (int i = 0; i < rows; i++) {
        int32_t at = (int32_t)(uint32_t)order[i], grain = plan->heap[0];
        plan->grain_of[at] = grain;
        plan->grain_tokens[grain] += length[at];
        plan->grain_begin[grain + 1]++;
        sink_root(plan);
    }
    for (int g = 0; g < grains; g++) {
        plan->grain_begin[g + 1] += plan->grain_begin[g];
        plan->heap[g] = plan->grain_begin[g]; /* from here on: the next free place of each grain */
    }
    for (int i = 0; i < rows; i++)
        plan->position[plan->heap[plan->grain_of[i]]++] = i;
    return STATUS_OK;
}

void batch_plan_release(struct batch_plan *plan)
{
    mem_free(plan->grain_begin);
    mem_free(plan->position);
    mem_free(plan->grain_tokens);
    mem_free(plan->order);
    mem_free(plan->grain_of);
    mem_free(plan->heap);
    *plan = (struct batch_plan){0};
}

void plan_grains_of_rank(int grains, int rank, int nranks, int *first, int *count)
{
    int each = grains / nranks, larger = grains % nranks;
    *first = rank * each + (rank < larger ? rank : larger);
    *count = each + (rank < larger);
}
