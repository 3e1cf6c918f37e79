/*
 * head.c - pooling, dropout and classifier, forward and backward.
 *
 * As transformers: logits = classifier(dropout(pooled)). pooled by a pooler is
 * activation(dense([dropout](first token))), as the encoder's configuration says.
 */
#include "model/model_impl.h"

/* Dropout before the pooler's product, in this pass. */
static bool has_pooler_dropout(const struct model *m)
{
    return m->pass.train && m->acts.pooler_in != NULL;
}

static enum status pooler(struct model *m)
{
    const struct kernels *k = m->kernels;
    const struct rows *lines = &m->pass.firsts;
    const int rows = lines->count, hidden = m->opts.encoder.hidden;
    const act *x = m->acts.x[m->opts.encoder.layers];
    const enum activation kind = m->opts.encoder.pooler_activation;
    act *sum = kind == ACTIVATION_TANH ? m->acts.branch : m->acts.pooler_sum;
    if (has_pooler_dropout(m)) {
        const struct dropout drop = dropout_at(m, m->opts.encoder.pooler_dropout, 0, SITE_POOLER);
        TRY(k->dropout(m->ctx, lines, hidden, &drop, x, m->acts.pooler_in));
        x = m->acts.pooler_in;
    }
    TRY(k->linear(m->ctx, m->pooler_matrix, rows, x, weight_at(m, SLOT_POOLER_BIAS, 0), sum));
    return apply(m, kind, (int64_t)rows * hidden, sum, m->acts.pooled);
}

/* The gradient of pooled is in d[from]; that of the first tokens goes to d[head_gradient_at()]. */
static enum status pooler_backward(struct model *m, int from, const struct grad_cut *cut)
{
    const struct kernels *k = m->kernels;
    const struct rows *lines = &m->pass.firsts;
    const int rows = lines->count, hidden = m->opts.encoder.hidden, other = (from + 1) % 3;
    const int64_t n = (int64_t)rows * hidden;
    const bool dropped = has_pooler_dropout(m);
    act *const *d = m->acts.d;
    TRY(apply_backward(m, m->opts.encoder.pooler_activation, n, m->acts.pooler_sum, m->acts.pooled,
                       d[from], d[other]));
    TRY(k->linear_backward_weight(m->ctx, m->pooler_matrix, rows,
                                  dropped ? m->acts.pooler_in : m->acts.x[m->opts.encoder.layers],
                                  d[other], offset_at(m, SLOT_POOLER_BIAS, 0), true, NULL, cut));
    TRY(k->linear_backward_data(m->ctx, m->pooler_matrix, rows, d[other], d[from]));
    if (!dropped)
        return STATUS_OK;
    const struct dropout drop = dropout_at(m, m->opts.encoder.pooler_dropout, 0, SITE_POOLER);
    return k->dropout(m->ctx, lines, hidden, &drop, d[from], d[other]);
}

static enum status pool(struct model *m)
{
    const struct kernels *k = m->kernels;
    const struct rows *rows = &m->pass.rows;
    const int hidden = m->opts.encoder.hidden;
    const act *x = m->acts.x[m->opts.encoder.layers];
    act *pooled = m->acts.pooled;
    switch (m->opts.head.pooling) {
    case POOL_CLS:
        return STATUS_OK; /* pooled is x */
    case POOL_POOLER:
        return pooler(m);
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

/* Whether this pass has several samples of that dropout. */
static bool has_samples(const struct model *m)
{
    return m->pass.train && m->samples.count > 1;
}

enum status head_forward(struct model *m)
{
    const struct kernels *k = m->kernels;
    const int rows = m->pass.rows.count, hidden = m->opts.encoder.hidden,
              outputs = m->opts.head.outputs;
    act *x = m->acts.pooled;
    TRY(pool(m));
    int lines = rows;
    if (has_dropout(m)) {
        const struct dropout drop = dropout_at(m, m->opts.head.dropout, 0, SITE_HEAD);
        const struct rows all = has_samples(m) ? samples_rows(m) : m->pass.firsts;
        x = m->acts.pooled;
        if (has_samples(m)) {
            lines = rows * m->samples.count;
            samples_repeat(m, x, m->acts.dropped);
            x = m->acts.dropped;
        }
        TRY(k->dropout(m->ctx, &all, hidden, &drop, x, m->acts.dropped));
        x = m->acts.dropped;
    }
    return k->classify(m->ctx, lines, hidden, outputs, x, weight_at(m, SLOT_HEAD_WEIGHT, 0),
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
    if (pooling == POOL_CLS || (pooling == POOL_POOLER && !has_pooler_dropout(m)))
        return from;
    return (from + 1) % 3;
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
        return pooler_backward(m, from, cut);
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
    if (has_samples(m)) {
        const struct grad_cut lines = samples_cut(m, cut);
        const struct rows all = samples_rows(m);
        const struct dropout drop = dropout_at(m, m->opts.head.dropout, 0, SITE_HEAD);
        TRY(k->classify_backward(m->ctx, rows * m->samples.count, hidden, outputs, m->acts.dropped,
                                 weight_at(m, SLOT_HEAD_WEIGHT, 0), m->acts.dlogits,
                                 m->acts.dsamples, offset_at(m, SLOT_HEAD_WEIGHT, 0),
                                 offset_at(m, SLOT_HEAD_BIAS, 0), &lines));
        TRY(k->dropout(m->ctx, &all, hidden, &drop, m->acts.dsamples, m->acts.dsamples));
        samples_add_up(m, m->acts.dsamples, d[1]);
        return pool_backward(m, cut);
    }
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
