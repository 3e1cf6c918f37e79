/*
 * scoring.c - see scoring.h.
 *
 * Positions are sorted by length, longest first, and dealt to the ranks back and forth (0 1 2 2 1 0
 * ...): the loads differ by less than one row. Each rank packs its rows, still sorted, into passes.
 * Ties are settled by position, so all ranks know the deal without talking.
 */
#include "worker/scoring.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "worker/units.h"

struct place {
    int64_t position;
    int length;
};

static int longest_first(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

int64_t score_tokens(const struct run_config *config, int max_length)
{
    return config->eval.batch_tokens > max_length ? config->eval.batch_tokens : max_length;
}

static int rank_of(int64_t sorted, int ranks)
{
    int64_t round = sorted / ranks;
    int place = (int)(sorted % ranks);
    return round % 2 == 0 ? place : ranks - 1 - place;
}

/* Rows of the pass that begins at mine[from]. */
static int pass_rows(const struct place *mine, int64_t from, int64_t count, int64_t max_tokens,
                     int max_rows)
{
    int64_t tokens = 0;
    int rows = 0;
    while (from + rows < count && rows < max_rows &&
           (rows == 0 || tokens + mine[from + rows].length <= max_tokens))
        tokens += mine[from + rows++].length;
    return rows;
}

/* out: (count, width) logits, or pooled vectors. */
static enum status score_mine(struct model *model, const struct row_source *source,
                              const int64_t *rows, const struct place *mine, int64_t count,
                              int width, bool pooled, int64_t max_tokens, int max_rows, float *out)
{
    struct batch batch = {0};
    int64_t *ids = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, mem_alloc_raw((size_t)max_rows, sizeof *ids, "a pass's rows", &ids));
    for (int64_t from = 0; from < count;) {
        int n = pass_rows(mine, from, count, max_tokens, max_rows);
        for (int i = 0; i < n; i++)
            ids[i] = rows[mine[from + i].position];
        TRY_GOTO(done, source->read(source->self, ids, n, &batch));
        struct model_input input = {.tokens = batch.tokens,
                                    .rows = batch.rows,
                                    .max_row = batch.max_row,
                                    .ids = batch.ids,
                                    .types = batch.types,
                                    .begin = batch.begin,
                                    .row = batch.row,
                                    .chunk = batch.chunk};
        TRY_GOTO(done, model_forward(model, &input, false, 0, pooled ? NULL : out + from * width));
        if (pooled)
            TRY_GOTO(done, model_pooled(model, out + from * width));
        comm_mark(-1, "scoring");
        from += n;
        if (count > 4096)
            log_progress("scoring: %lld of %lld rows", (long long)from, (long long)count);
    }
done:
    batch_release(&batch);
    mem_free(ids);
    return st;
}

static enum status on_all_ranks(struct comm *group, struct model *model,
                                const struct row_source *source, const int64_t *rows, int64_t n,
                                int width, bool pooled, int64_t max_tokens, int max_rows,
                                float *out)
{
    struct place *places = NULL, *mine = NULL;
    float *own = NULL;
    char *all = NULL;
    int64_t *begin = NULL, own_count = 0;
    int ranks = comm_size(group), rank = comm_rank(group);
    enum status st = mem_alloc_raw((size_t)n, sizeof *places, "the rows to score", &places);
    if (st == STATUS_OK)
        st = mem_alloc_raw((size_t)(n / ranks + 2), sizeof *mine, "the rows to score", &mine);
    if (st == STATUS_OK)
        st = mem_alloc_raw((size_t)((n / ranks + 2) * width), sizeof *own, "scores", &own);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)ranks + 1, sizeof *begin, "scores", &begin);
    if (st == STATUS_OK) {
        for (int64_t i = 0; i < n; i++)
            places[i] = (struct place){i, source->length(source->self, rows[i])};
        if (n > 0)
            qsort(places, (size_t)n, sizeof *places, longest_first);
        for (int64_t i = 0; i < n; i++) {
            if (rank_of(i, ranks) == rank)
                mine[own_count++] = places[i];
        }
        st = score_mine(model, source, rows, mine, own_count, width, pooled, max_tokens, max_rows,
                        own);
    }
    TRY_GOTO(done, comm_agree(group, st));
    TRY_GOTO(done,
             comm_allgather(group, own, own_count * width * (int64_t)sizeof *own, &all, begin));
    int64_t *next = begin; /* reused: where each rank's next scores lie */
    for (int64_t i = 0; i < n; i++) {
        int owner = rank_of(i, ranks);
        memcpy(out + places[i].position * width, all + next[owner], (size_t)width * sizeof *out);
        next[owner] += width * (int64_t)sizeof *out;
    }
done:
    mem_free(all);
    mem_free(begin);
    mem_free(own);
    mem_free(mine);
    mem_free(places);
    return st;
}

/* Units, and what came of them pooled by rows. Collective. */
static enum status pooled_rows(struct comm *group, struct model *model,
                               const struct row_source *source, const int64_t *rows, int64_t n,
                               int width, bool vectors, int64_t max_tokens, int max_rows,
                               float *out)
{
    struct unit_list units = {0};
    float *each = NULL;
    if (source->first_unit == NULL)
        return on_all_ranks(group, model, source, rows, n, width, vectors, max_tokens, max_rows,
                            out);
    enum status st = units_of_rows(source, rows, n, &units);
    if (st == STATUS_OK)
        st = mem_alloc_raw((size_t)(units.count * width), sizeof *each, "scores of chunks", &each);
    TRY_GOTO(done, comm_agree(group, st));
    TRY_GOTO(done, on_all_ranks(group, model, source, units.unit, units.count, width, vectors,
                                max_tokens, max_rows, each));
    chunk_pool(vectors ? CHUNK_MEAN : source->pooling, units.begin, n, width, each, out, NULL);
done:
    mem_free(each);
    units_release(&units);
    return st;
}

enum status score_rows(struct comm *group, struct model *model, const struct row_source *source,
                       const int64_t *rows, int64_t n, int outputs, int64_t max_tokens,
                       int max_rows, float *logits)
{
    return pooled_rows(group, model, source, rows, n, outputs, false, max_tokens, max_rows, logits);
}

enum status embed_rows(struct comm *group, struct model *model, const struct row_source *source,
                       const int64_t *rows, int64_t n, int hidden, int64_t max_tokens, int max_rows,
                       float *vectors)
{
    return pooled_rows(group, model, source, rows, n, hidden, true, max_tokens, max_rows, vectors);
}
