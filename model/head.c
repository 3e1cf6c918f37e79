/*
 * head.c - pooling, dropout and classifier, forward and backward.
 *
 * As transformers: logits = classifier(dropout(pooled)). BERT's pooled is tanh(dense(first token)).
 */
#include "model/model_impl.h"

static enum status pool(struct model *m)
{
    const struct kernels *k = m->kernels;
    const struct rows *rows = &m->pass.rows;
    const int hidden = m->opts.encoder.hidden;
    act *x = m->acts.x[m->opts.encoder.layers], *pooled = m->acts.pooled;
    switch (m->opts.head.pooling) {
    case POOL_CLS:
        return STATUS_OK; /* pooled is x */
    case POOL_POOLER:
        TRY(k->linear(m->ctx, m->pooler_matrix, rows->count, x, weight_at(m, SLOT_POOLER_BIAS, 0),
                      m->acts.branch));
        return k->tanh_forward(m->ctx, (int64_t)rows->count * hidden, m->acts.branch, pooled);
    case POOL_MEAN:
        return k->mean_pool(m->ctx, rows, hidden, x, pooled);
    case POOL_MAX:
        return k->max_pool(m->ctx, rows, hidden, x, pooled, m->acts.argmax);
    }
    return status_fail(STATUS_ARG, "pooling %d", (int)m->opts.head.pooling);
}

/* What the classifier reads: pooled, through dropout where there is any. */
static bool has_dropout(const struct model *m)
{
    return m->pass.train && m->opts.head.dropout > 0;
}

enum status head_forward(struct model *m)
{
    const struct kernels *k = m->kernels;
    const int rows = m->pass.rows.count, hidden = m->opts.encoder.hidden,
              outputs = m->opts.head.outputs;
    act *x = m->acts.pooled;
    TRY(pool(m));
    if (has_dropout(m)) {
        const struct dropout drop = dropout_at(m, m->opts.head.dropout, 0, SITE_HEAD);
        TRY(k->dropout(m->ctx, &m->pass.firsts, hidden, &drop, m->acts.pooled, m->acts.dropped));
        x = m->acts.dropped;
    }
    return k->classify(m->ctx, rows, hidden, outputs, x, weight_at(m, SLOT_HEAD_WEIGHT, 0),
                       weight_at(m, SLOT_HEAD_BIAS, 0), m->acts.logits);
}

/* The gradient of what the classifier reads is in d[0], of pooled in d[pooled_gradient_at()]. */
static int pooled_gradient_at(const struct model *m)
{
    return has_dropout(m) ? 1 : 0;
}

int head_gradient_at(const struct model *m)
{
    const int from = pooled_gradient_at(m);
    const enum pooling pooling = m->opts.head.pooling;
    return pooling == POOL_CLS || pooling == POOL_POOLER ? from : (from + 1) % 3;
}

static enum status pool_backward(struct model *m, const struct grad_cut *cut)
{
    const struct kernels *k = m->kernels;
    const struct rows *rows = &m->pass.rows;
    const int hidden = m->opts.encoder.hidden, from = pooled_gradient_at(m), other = (from + 1) % 3;
    act *const *d = m->acts.d;
    switch (m->opts.head.pooling) {
    case POOL_CLS:
        return STATUS_OK;
    case POOL_POOLER:
        TRY(k->tanh_backward(m->ctx, (int64_t)rows->count * hidden, m->acts.pooled, d[from],
                             d[other]));
        TRY(k->linear_backward_weight(m->ctx, m->pooler_matrix, rows->count,
                                      m->acts.x[m->opts.encoder.layers], d[other],
                                      offset_at(m, SLOT_POOLER_BIAS, 0), true, cut));
        return k->linear_backward_data(m->ctx, m->pooler_matrix, rows->count, d[other], d[from]);
    case POOL_MEAN:
        return k->mean_pool_backward(m->ctx, rows, hidden, d[from], d[other]);
    case POOL_MAX:
        return k->max_pool_backward(m->ctx, rows, hidden, d[from], m->acts.argmax, d[other]);
    }
    return status_fail(STATUS_ARG, "pooling %d", (int)m->opts.head.pooling);
}

enum status head_backward(struct model *m, const struct grad_cut *cut)
{
    const struct kernels *k = m->kernels;
    const int rows = m->pass.rows.count, hidden = m->opts.encoder.hidden,
              outputs = m->opts.head.outputs;
    const bool dropped = has_dropout(m);
    act *const *d = m->acts.d;
    TRY(k->classify_backward(
        m->ctx, rows, hidden, outputs, dropped ? m->acts.dropped : m->acts.pooled,
        weight_at(m, SLOT_HEAD_WEIGHT, 0), m->acts.dlogits, d[0], offset_at(m, SLOT_HEAD_WEIGHT, 0),
        offset_at(m, SLOT_HEAD_BIAS, 0), cut));
    if (dropped) {
        const struct dropout drop = dropout_at(m, m->opts.head.dropout, 0, SITE_HEAD);
        TRY(k->dropout(m->ctx, &m->pass.firsts, hidden, &drop, d[0], d[1]));
    }
    return pool_backward(m, cut);
}
