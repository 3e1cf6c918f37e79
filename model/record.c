/*
 * record.c - stretches of a pass that a backend may record and replay (kernels.h, graph_begins).
 *
 * Forward is one stretch. Backward is one for the head, one for each layer and one for the
 * embeddings, because the ranges that are final are announced between them.
 */
#include "model/model_impl.h"

enum status stretch_begin(struct model *m, enum stretch stretch, int layer, bool *replayed)
{
    *replayed = false;
    if (m->kernels->graph_begins == NULL || m->opts.eager)
        return STATUS_OK;
    return m->kernels->graph_begins(m->ctx, ((uint64_t)stretch << 32) | (uint32_t)layer, replayed);
}

enum status stretch_end(struct model *m, bool replayed, enum status st)
{
    if (m->kernels->graph_ends == NULL || m->opts.eager || replayed)
        return st;
    if (st == STATUS_OK)
        return m->kernels->graph_ends(m->ctx);
    enum status end = m->kernels->graph_ends(m->ctx); /* the first failure is the one to tell */
    (void)end;
    return st;
}

void model_replays(const struct model *m, int64_t *replayed, int64_t *all)
{
    *replayed = *all = 0;
    if (m->kernels->graph_counts != NULL)
        m->kernels->graph_counts(m->ctx, replayed, all);
}
