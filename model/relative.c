/*
 * relative.c - the table of relative positions that the layers of disentangled attention share
 * (kernels.h, struct distances): which slot a distance has, its way through a pass and back.
 *
 * Sums over tokens follow the cut, and the table's gradient is such a sum. So backward has the
 * table once for each piece of the cut: each piece's part of a weight gradient is its tokens' and
 * its table's, and its merges come behind both (struct table_lines).
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/model_impl.h"

enum { LONGEST = 1 << 20 }; /* tokens of a row at most: farther distances do not occur */

/* ---- slots */

/* transformers' make_log_bucket_position() in its arithmetic, for distances >= 0. */
static int bucket_of(const struct relative_config *c, int distance)
{
    const int middle = c->buckets / 2;
    if (c->buckets == 0 || distance <= middle)
        return distance;
    const float part = logf((float)distance / (float)middle),
                whole = logf((float)((double)(c->max_distance - 1) / middle));
    return (int)ceilf(part / whole * (float)(middle - 1)) + middle;
}

enum status distances_make(const struct relative_config *c, struct distances *out)
{
    int32_t *line;
    *out = (struct distances){.span = c->span};
    if (c->span == 0)
        return STATUS_OK;
    int reach = c->span;
    while (reach < LONGEST && bucket_of(c, reach) < c->span)
        reach++;
    TRY(mem_alloc(2 * (size_t)reach + 1, sizeof *line, "slots of distances", &line));
    for (int d = 0; d <= reach; d++) {
        const int away = bucket_of(c, d) < c->span ? bucket_of(c, d) : c->span;
        /* The last slot on the side of keys ahead is one nearer: there are 2 span slots. */
        const int behind = away < c->span ? away : c->span - 1;
        line[reach + d] = behind == 0 ? 0 : 2 * behind - 1;
        line[reach - d] = away == c->span ? 2 * c->span - 1 : 2 * away;
    }
    out->reach = reach;
    out->line = line;
    return STATUS_OK;
}

int distances_lines(const struct distances *d, int length)
{
    if (d->span == 0 || length < 1)
        return 0;
    const int far = length - 1 < d->reach ? length - 1 : d->reach;
    const int32_t a = d->line[d->reach + far], b = d->line[d->reach - far];
    return 1 + (a > b ? a : b);
}

/* ---- forward */

enum status table_forward(struct model *m)
{
    const struct encoder_config *e = &m->opts.encoder;
    if (m->relative.width == 0)
        return STATUS_OK;
    return m->kernels->table_norm(m->ctx, m->pass.table_lines, e->hidden,
                                  weight_at(m, SLOT_RELATIVE_TABLE, 0),
                                  weight_at(m, SLOT_RELATIVE_GAMMA, 0),
                                  weight_at(m, SLOT_RELATIVE_BETA, 0), e->norm_eps, m->acts.table);
}

/* The layer's decisions about the table. */
static struct dropout table_drop(const struct model *m, int l)
{
    return dropout_at(m, m->opts.encoder.hidden_dropout, l, SITE_TABLE);
}

/* What layer l reads: the table through its dropout. */
static const act *table_read(const struct model *m)
{
    return m->pass.train ? m->acts.table_dropped : m->acts.table;
}

enum status table_lines_again(struct model *m, int l)
{
    const struct dropout drop = table_drop(m, l);
    if (m->relative.width == 0 || table_read(m) == m->acts.table)
        return STATUS_OK;
    return m->kernels->table_dropout(m->ctx, 1, m->pass.table_lines, m->opts.encoder.hidden, &drop,
                                     m->acts.table, false, m->acts.table_dropped);
}

enum status table_project(struct model *m, int l, struct layer_acts *a)
{
    const float *bias = weight_at(m, SLOT_RELATIVE_BIAS, l);
    TRY(table_lines_again(m, l));
    if (bias == NULL)
        bias = weight_at(m, SLOT_QKV_BIAS, l) + m->relative.row;
    return m->kernels->linear(m->ctx, m->layer[l].relative, m->pass.table_lines, table_read(m),
                              bias, a->table);
}

struct relative table_of_layer(const struct model *m, const struct layer_acts *a)
{
    return (struct relative){.table = a->table,
                             .lines = m->pass.table_lines,
                             .width = m->relative.width,
                             .q_at = m->relative.q_at,
                             .k_at = m->relative.k_at,
                             .scale = m->relative.scale};
}

/* ---- backward */

enum status table_backward_begins(struct model *m, const struct grad_cut *cut)
{
    const struct pass *p = &m->pass;
    for (int i = 0; i < cut->pieces && m->relative.width > 0; i++) {
        int longest = 0;
        for (int b = cut->row[i]; b < cut->row[i + 1]; b++)
            if (p->begin[b + 1] - p->begin[b] > longest)
                longest = p->begin[b + 1] - p->begin[b];
        p->piece_lines[i] = distances_lines(&m->distances, longest);
    }
    return STATUS_OK;
}

struct table_lines table_lines_for(const struct model *m, int from, int n)
{
    const struct relative_layout *r = &m->relative;
    struct table_lines t = {0};
    if (r->width == 0 || !m->opts.encoder.relative.shared)
        return t;
    /* The projections are outputs [row, row + width) of qkv. */
    const int begin = (int)r->row > from ? (int)r->row : from;
    const int end = (int)r->row + r->width < from + n ? (int)r->row + r->width : from + n;
    if (begin >= end)
        return t;
    t = (struct table_lines){.x = table_read(m),
                             .dy = act_at(m, m->acts.dtable, begin - r->row),
                             .dy_stride = r->width,
                             .lines = m->pass.table_lines,
                             .count = m->pass.piece_lines,
                             .first = begin - from,
                             .n = end - begin};
    return t;
}

enum status table_project_backward(struct model *m, int l, const struct grad_cut *cut)
{
    const struct kernels *k = m->kernels;
    const struct dropout drop = table_drop(m, l);
    const int lines = m->pass.table_lines, hidden = m->opts.encoder.hidden,
              w = m->layer[l].relative;
    if (!m->opts.encoder.relative.shared) {
        const struct table_lines more = {.x = table_read(m),
                                         .dy = m->acts.dtable,
                                         .dy_stride = m->relative.width,
                                         .lines = lines,
                                         .count = m->pass.piece_lines,
                                         .n = m->relative.width};
        TRY(k->linear_backward_weight(m->ctx, w, 0, NULL, NULL, offset_at(m, SLOT_RELATIVE_BIAS, l),
                                      false, &more, cut));
    }
    TRY(k->linear_backward_data(m->ctx, w, (int64_t)cut->pieces * lines, m->acts.dtable,
                                m->acts.dlines[0]));
    return k->table_dropout(m->ctx, cut->pieces, lines, hidden, &drop, m->acts.dlines[0],
                            l < m->opts.encoder.layers - 1, m->acts.dlines[1]);
}

enum status table_backward(struct model *m, const struct grad_cut *cut)
{
    const struct encoder_config *e = &m->opts.encoder;
    if (m->relative.width == 0)
        return STATUS_OK;
    return m->kernels->table_norm_backward(
        m->ctx, m->pass.table_lines, e->hidden, m->acts.dlines[1],
        weight_at(m, SLOT_RELATIVE_TABLE, 0), weight_at(m, SLOT_RELATIVE_GAMMA, 0), e->norm_eps,
        offset_at(m, SLOT_RELATIVE_TABLE, 0), offset_at(m, SLOT_RELATIVE_GAMMA, 0),
        offset_at(m, SLOT_RELATIVE_BETA, 0), cut);
}
