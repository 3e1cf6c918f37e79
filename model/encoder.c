/*
 * encoder.c - the post-norm transformer encoder, forward and backward; see model_impl.h for who
 * keeps what.
 *
 * A layer's output has two uses, the next layer's products and its residual, so its gradient
 * arrives in two addends: "da" and "db" of the kernels. They are added inside the norm's backward,
 * where both are read anyway.
 *
 * Backward finishes parameters from the end of the flat space and announces each layer when its
 * last sum is written.
 */
#include "model/model_impl.h"

/* ---- forward */

static enum status embed(struct model *m)
{
    const struct encoder_config *e = &m->opts.encoder;
    const struct pass *p = &m->pass;
    const struct dropout drop = dropout_at(m, e->hidden_dropout, 0, SITE_EMBEDDINGS);
    act *out = m->project_matrix < 0 ? m->acts.x[0] : m->acts.embed_out;
    TRY(m->kernels->embed(
        m->ctx, &p->rows, e->embedding, p->ids, p->has_types ? p->types : NULL,
        weight_at(m, SLOT_WORD, 0), weight_at(m, SLOT_POSITION, 0), weight_at(m, SLOT_TYPE, 0),
        e->first_position, weight_at(m, SLOT_EMBED_GAMMA, 0), weight_at(m, SLOT_EMBED_BETA, 0),
        e->norm_eps, &drop, m->acts.embed_sum, m->acts.embed_mean, m->acts.embed_rstd, out));
    if (m->project_matrix < 0)
        return STATUS_OK;
    return m->kernels->linear(m->ctx, m->project_matrix, p->rows.tokens, out,
                              weight_at(m, SLOT_EMBED_PROJECT_BIAS, 0), m->acts.x[0]);
}

/* Whether layer l works on first tokens only, and on which lines everything behind its queries
 * does. */
static bool is_pooled(const struct model *m, int l)
{
    return m->pooled_last && l == m->opts.encoder.layers - 1;
}

static const struct rows *lines_of(const struct model *m, int l)
{
    return is_pooled(m, l) ? &m->pass.firsts : &m->pass.rows;
}

/* Where q, k and v (or their gradients, in blocks laid out alike) lie. */
struct qkv {
    act *q, *k, *v;
    int64_t q_stride, kv_stride;
};

static struct qkv split_qkv(const struct model *m, bool pooled, act *qkv, act *kv)
{
    const int64_t c = m->opts.encoder.hidden;
    if (pooled)
        return (struct qkv){qkv, kv, act_at(m, kv, c), c, 2 * c};
    return (struct qkv){qkv, act_at(m, qkv, c), act_at(m, qkv, 2 * c), 3 * c, 3 * c};
}

static enum status project(struct model *m, int l, const act *x, struct layer_acts *a)
{
    const struct kernels *k = m->kernels;
    const struct layer_matrices *w = &m->layer[l];
    const struct pass *p = &m->pass;
    const float *bias = weight_at(m, SLOT_QKV_BIAS, l);
    const int hidden = m->opts.encoder.hidden;
    if (!is_pooled(m, l))
        return k->linear(m->ctx, w->qkv, p->rows.tokens, x, bias, a->qkv);
    TRY(k->first_tokens(m->ctx, &p->rows, hidden, x, a->first));
    TRY(k->linear(m->ctx, w->q, p->rows.count, a->first, bias, a->qkv));
    return k->linear(m->ctx, w->kv, p->rows.tokens, x, bias + hidden, a->kv);
}

static enum status attend(struct model *m, int l, struct layer_acts *a)
{
    const struct encoder_config *e = &m->opts.encoder;
    const struct qkv s = split_qkv(m, is_pooled(m, l), a->qkv, a->kv);
    const struct dropout drop = dropout_at(m, e->attention_dropout, l, SITE_ATTENTION);
    if (m->relative.width > 0) {
        const struct relative relative = table_of_layer(m, a);
        TRY(table_project(m, l, a));
        return m->kernels->attention_relative(m->ctx, lines_of(m, l), &m->pass.rows, e->heads,
                                              e->hidden / e->heads, s.q, s.q_stride, s.k, s.v,
                                              s.kv_stride, &relative, &drop, a->attended, a->lse);
    }
    return m->kernels->attention(m->ctx, lines_of(m, l), &m->pass.rows, e->heads,
                                 e->hidden / e->heads, s.q, s.q_stride, s.k, s.v, s.kv_stride,
                                 &drop, a->attended, a->lse);
}

/* Between attention's product and its residual. */
static struct dropout attention_output_dropout(const struct model *m, int l)
{
    const float p = m->family->attention_output_whole ? 0.0f : m->opts.encoder.hidden_dropout;
    return dropout_at(m, p, l, SITE_ATTENTION_OUTPUT);
}

/* One layer: x -> out. out may be x, which is not read any more when out is written. */
static enum status layer_forward(struct model *m, int l, const act *x, struct layer_acts *a,
                                 act *out)
{
    const struct kernels *k = m->kernels;
    const struct encoder_config *e = &m->opts.encoder;
    const struct layer_matrices *w = &m->layer[l];
    const struct rows *lines = lines_of(m, l);
    const int64_t n = lines->tokens;
    act *branch = m->acts.branch;

    TRY(project(m, l, x, a));
    TRY(attend(m, l, a));
    TRY(k->linear(m->ctx, w->attention, n, a->attended, weight_at(m, SLOT_ATTENTION_BIAS, l),
                  branch));
    const struct dropout drop1 = attention_output_dropout(m, l);
    TRY(k->residual_norm(m->ctx, lines, e->hidden, is_pooled(m, l) ? a->first : x, branch,
                         weight_at(m, SLOT_ATTENTION_GAMMA, l),
                         weight_at(m, SLOT_ATTENTION_BETA, l), e->norm_eps, &drop1, a->sum1,
                         a->mean1, a->rstd1, a->normed));

    TRY(k->linear(m->ctx, w->intermediate, n, a->normed, weight_at(m, SLOT_INTERMEDIATE_BIAS, l),
                  a->wide));
    TRY(k->activate(m->ctx, e->activation, n * e->intermediate, a->wide, a->active));
    TRY(k->linear(m->ctx, w->output, n, a->active, weight_at(m, SLOT_OUTPUT_BIAS, l), branch));
    const struct dropout drop2 = dropout_at(m, e->hidden_dropout, l, SITE_OUTPUT);
    return k->residual_norm(m->ctx, lines, e->hidden, a->normed, branch,
                            weight_at(m, SLOT_OUTPUT_GAMMA, l), weight_at(m, SLOT_OUTPUT_BETA, l),
                            e->norm_eps, &drop2, a->sum2, a->mean2, a->rstd2, out);
}

/* The convolution beside the first layer: out = norm(residual + activation(dropout(conv(x)))). out
 * may be x. */
static enum status conv_forward(struct model *m, const act *x, const act *residual, act *out)
{
    const struct kernels *k = m->kernels;
    const struct encoder_config *e = &m->opts.encoder;
    const struct acts *a = &m->acts;
    const struct rows *rows = &m->pass.rows;
    const int64_t n = rows->tokens;
    const struct dropout drop = dropout_at(m, e->hidden_dropout, 0, SITE_CONV),
                         none = dropout_at(m, 0, 0, SITE_CONV);
    TRY(k->neighbours(m->ctx, rows, e->hidden, e->conv_taps, x, a->conv_in));
    TRY(k->linear(m->ctx, m->conv_matrix, n, a->conv_in, weight_at(m, SLOT_CONV_BIAS, 0),
                  a->conv_out));
    if (drop.p > 0)
        TRY(k->dropout(m->ctx, rows, e->hidden, &drop, a->conv_out, a->conv_out));
    TRY(apply(m, e->conv_activation, n * e->hidden, a->conv_out, a->conv_active));
    return k->residual_norm(m->ctx, rows, e->hidden, residual, a->conv_active,
                            weight_at(m, SLOT_CONV_GAMMA, 0), weight_at(m, SLOT_CONV_BETA, 0),
                            e->norm_eps, &none, a->conv_sum, a->conv_mean, a->conv_rstd, out);
}

enum status encoder_forward(struct model *m)
{
    const int layers = m->opts.encoder.layers;
    const bool keep = m->pass.train;
    TRY(embed(m));
    TRY(table_forward(m));
    for (int l = 0; l < layers; l++) {
        act *x = m->acts.x[keep ? l : 0];
        act *out = m->acts.x[keep || l == layers - 1 ? l + 1 : 0];
        struct layer_acts *a = &m->acts.layer[keep || is_pooled(m, l) ? l : 0];
        const bool conv = l == 0 && m->conv_matrix >= 0;
        TRY(layer_forward(m, l, x, a, conv ? m->acts.conv_residual : out));
        if (conv)
            TRY(conv_forward(m, x, m->acts.conv_residual, m->pooled_conv ? m->acts.conv_top : out));
        if (m->pooled_conv)
            TRY(m->kernels->first_tokens(m->ctx, &m->pass.rows, m->opts.encoder.hidden,
                                         m->acts.conv_top, out));
    }
    return STATUS_OK;
}

/* ---- backward */

/* Gradients of a layer's output (going in) or input (coming out): buffers d[da] and d[db]; db < 0:
 * one addend only. */
struct incoming {
    int da, db;
};

/* The buffers that hold neither addend. */
static void free_buffers(struct incoming in, int out[3])
{
    int n = 0;
    for (int i = 0; i < 3; i++)
        if (i != in.da && i != in.db)
            out[n++] = i;
}

/* Feed-forward half: the gradient of out becomes that of normed. */
static enum status wide_backward(struct model *m, int l, struct layer_acts *a,
                                 const struct grad_cut *cut, struct incoming *at)
{
    const struct kernels *k = m->kernels;
    const struct encoder_config *e = &m->opts.encoder;
    const struct layer_matrices *w = &m->layer[l];
    const struct rows *lines = lines_of(m, l);
    const bool by_row = is_pooled(m, l);
    const int64_t n = lines->tokens;
    act *const *d = m->acts.d;
    act *dwide = m->acts.dwide;
    int spare[3];
    free_buffers(*at, spare);
    act *dx = d[at->da], *dy = d[spare[0]];

    const struct dropout drop = dropout_at(m, e->hidden_dropout, l, SITE_OUTPUT);
    TRY(k->residual_norm_backward(m->ctx, lines, e->hidden, dx, at->db < 0 ? NULL : d[at->db],
                                  a->sum2, a->mean2, a->rstd2, weight_at(m, SLOT_OUTPUT_GAMMA, l),
                                  &drop, dx, dy, offset_at(m, SLOT_OUTPUT_GAMMA, l),
                                  offset_at(m, SLOT_OUTPUT_BETA, l), by_row, cut));
    TRY(k->linear_backward_weight(m->ctx, w->output, n, a->active, dy,
                                  offset_at(m, SLOT_OUTPUT_BIAS, l), by_row, NULL, cut));
    TRY(k->linear_backward_data(m->ctx, w->output, n, dy, dwide));
    TRY(k->activate_backward(m->ctx, e->activation, n * e->intermediate, a->wide, dwide, dwide));
    TRY(k->linear_backward_weight(m->ctx, w->intermediate, n, a->normed, dwide,
                                  offset_at(m, SLOT_INTERMEDIATE_BIAS, l), by_row, NULL, cut));
    TRY(k->linear_backward_data(m->ctx, w->intermediate, n, dwide, dy));
    at->db = spare[0];
    return STATUS_OK;
}

/* The gradients of q, k, v lie in dwide; on to the layer's input x. sum: d of the residual; other:
 * two buffers to use. */
static enum status project_backward(struct model *m, int l, const act *x,
                                    const struct layer_acts *a, act *dq, act *dkv,
                                    const struct grad_cut *cut, int sum, const int other[2],
                                    struct incoming *at)
{
    const struct kernels *k = m->kernels;
    const struct layer_matrices *w = &m->layer[l];
    const struct rows *rows = &m->pass.rows;
    const int hidden = m->opts.encoder.hidden;
    const int64_t bias = offset_at(m, SLOT_QKV_BIAS, l);
    act *const *d = m->acts.d;
    if (!is_pooled(m, l)) {
        const struct table_lines more = table_lines_for(m, 0, 3 * hidden);
        TRY(k->linear_backward_weight(m->ctx, w->qkv, rows->tokens, x, dq, bias, false,
                                      more.n > 0 ? &more : NULL, cut));
        TRY(k->linear_backward_data(m->ctx, w->qkv, rows->tokens, dq, d[other[0]]));
        *at = (struct incoming){sum, other[0]};
        return STATUS_OK;
    }
    const struct table_lines to_q = table_lines_for(m, 0, hidden),
                             to_k = table_lines_for(m, hidden, 2 * hidden);
    TRY(k->linear_backward_weight(m->ctx, w->q, rows->count, a->first, dq, bias, true,
                                  to_q.n > 0 ? &to_q : NULL, cut));
    TRY(k->linear_backward_weight(m->ctx, w->kv, rows->tokens, x, dkv, bias + hidden, false,
                                  to_k.n > 0 ? &to_k : NULL, cut));
    TRY(k->linear_backward_data(m->ctx, w->q, rows->count, dq, d[other[1]]));
    TRY(k->linear_backward_data(m->ctx, w->kv, rows->tokens, dkv, d[other[0]]));
    TRY(k->first_tokens_backward(m->ctx, rows, hidden, d[other[1]], true, d[other[0]]));
    TRY(k->first_tokens_backward(m->ctx, rows, hidden, d[sum], true, d[other[0]]));
    *at = (struct incoming){other[0], -1};
    return STATUS_OK;
}

/* Attention half: the gradient of normed becomes that of x. */
static enum status attention_half_backward(struct model *m, int l, const act *x,
                                           struct layer_acts *a, const struct grad_cut *cut,
                                           struct incoming *at)
{
    const struct kernels *k = m->kernels;
    const struct encoder_config *e = &m->opts.encoder;
    const struct rows *lines = lines_of(m, l);
    const bool pooled = is_pooled(m, l);
    act *const *d = m->acts.d;
    int spare[3];
    free_buffers(*at, spare);
    const int sum = at->da, other[2] = {at->db, spare[0]};

    const struct dropout drop = attention_output_dropout(m, l);
    TRY(k->residual_norm_backward(m->ctx, lines, e->hidden, d[sum], d[at->db], a->sum1, a->mean1,
                                  a->rstd1, weight_at(m, SLOT_ATTENTION_GAMMA, l), &drop, d[sum],
                                  d[other[1]], offset_at(m, SLOT_ATTENTION_GAMMA, l),
                                  offset_at(m, SLOT_ATTENTION_BETA, l), pooled, cut));
    TRY(k->linear_backward_weight(m->ctx, m->layer[l].attention, lines->tokens, a->attended,
                                  d[other[1]], offset_at(m, SLOT_ATTENTION_BIAS, l), pooled, NULL,
                                  cut));
    TRY(k->linear_backward_data(m->ctx, m->layer[l].attention, lines->tokens, d[other[1]],
                                d[other[0]]));

    /* dwide holds (T, 3 C): dq (B, C) takes the first C channels' worth where k and v stand apart,
     * and B <= T. */
    act *dq = m->acts.dwide, *dkv = act_at(m, dq, m->opts.max_tokens * e->hidden);
    const struct qkv s = split_qkv(m, pooled, a->qkv, a->kv), g = split_qkv(m, pooled, dq, dkv);
    const struct dropout drop_p = dropout_at(m, e->attention_dropout, l, SITE_ATTENTION);
    if (m->relative.width > 0) {
        const struct relative relative = table_of_layer(m, a);
        TRY(table_lines_again(m, l));
        TRY(k->attention_relative_backward(m->ctx, lines, &m->pass.rows, e->heads,
                                           e->hidden / e->heads, s.q, s.q_stride, s.k, s.v,
                                           s.kv_stride, &relative, &drop_p, a->attended, a->lse,
                                           d[other[0]], g.q, g.k, g.v, m->acts.dtable, cut));
        TRY(project_backward(m, l, x, a, dq, dkv, cut, sum, other, at));
        return table_project_backward(m, l, cut);
    }
    TRY(k->attention_backward(m->ctx, lines, &m->pass.rows, e->heads, e->hidden / e->heads, s.q,
                              s.q_stride, s.k, s.v, s.kv_stride, &drop_p, a->attended, a->lse,
                              d[other[0]], g.q, g.k, g.v));
    return project_backward(m, l, x, a, dq, dkv, cut, sum, other, at);
}

static enum status embed_backward(struct model *m, struct incoming in, const struct grad_cut *cut)
{
    const struct encoder_config *e = &m->opts.encoder;
    const struct pass *p = &m->pass;
    const struct dropout drop = dropout_at(m, e->hidden_dropout, 0, SITE_EMBEDDINGS);
    if (m->project_matrix >= 0) { /* the product wants the sum of the two addends */
        const struct kernels *k = m->kernels;
        const int64_t n = p->rows.tokens;
        int spare[3];
        free_buffers(in, spare);
        act *dy = m->acts.d[in.da], *dx = m->acts.d[spare[0]];
        if (in.db >= 0)
            TRY(k->add(m->ctx, n * e->hidden, dy, m->acts.d[in.db], dy));
        TRY(k->linear_backward_weight(m->ctx, m->project_matrix, n, m->acts.embed_out, dy,
                                      offset_at(m, SLOT_EMBED_PROJECT_BIAS, 0), false, NULL, cut));
        TRY(k->linear_backward_data(m->ctx, m->project_matrix, n, dy, dx));
        in = (struct incoming){spare[0], -1};
    }
    return m->kernels->embed_backward(
        m->ctx, &p->rows, e->embedding, p->ids, p->has_types ? p->types : NULL, m->acts.d[in.da],
        in.db < 0 ? NULL : m->acts.d[in.db], m->acts.embed_sum, m->acts.embed_mean,
        m->acts.embed_rstd, weight_at(m, SLOT_EMBED_GAMMA, 0), &drop, e->first_position,
        offset_at(m, SLOT_WORD, 0), e->vocab_size, offset_at(m, SLOT_POSITION, 0), e->max_positions,
        offset_at(m, SLOT_TYPE, 0), e->type_vocab, offset_at(m, SLOT_EMBED_GAMMA, 0),
        offset_at(m, SLOT_EMBED_BETA, 0), cut);
}

/* The gradient of the convolution's output becomes that of the first layer's, in the same buffer;
 * that of its input stays in conv_in, one line for each token and its neighbours. */
static enum status conv_backward(struct model *m, const struct grad_cut *cut, struct incoming *at)
{
    const struct kernels *k = m->kernels;
    const struct encoder_config *e = &m->opts.encoder;
    const struct acts *a = &m->acts;
    const struct rows *rows = &m->pass.rows;
    const int64_t n = rows->tokens;
    const struct dropout drop = dropout_at(m, e->hidden_dropout, 0, SITE_CONV),
                         none = dropout_at(m, 0, 0, SITE_CONV);
    int spare[3];
    free_buffers(*at, spare);
    if (m->pooled_conv) { /* the head's gradient is of first tokens, in one addend */
        TRY(k->first_tokens_backward(m->ctx, rows, e->hidden, a->d[at->da], false, a->d[spare[0]]));
        *at = (struct incoming){spare[0], -1};
        free_buffers(*at, spare);
    }
    act *dx = a->d[at->da], *dy = a->d[spare[0]];
    TRY(k->residual_norm_backward(
        m->ctx, rows, e->hidden, dx, at->db < 0 ? NULL : a->d[at->db], a->conv_sum, a->conv_mean,
        a->conv_rstd, weight_at(m, SLOT_CONV_GAMMA, 0), &none, dx, dy,
        offset_at(m, SLOT_CONV_GAMMA, 0), offset_at(m, SLOT_CONV_BETA, 0), false, cut));
    TRY(apply_backward(m, e->conv_activation, n * e->hidden, a->conv_out, a->conv_active, dy, dy));
    if (drop.p > 0)
        TRY(k->dropout(m->ctx, rows, e->hidden, &drop, dy, dy));
    TRY(k->linear_backward_weight(m->ctx, m->conv_matrix, n, a->conv_in, dy,
                                  offset_at(m, SLOT_CONV_BIAS, 0), false, NULL, cut));
    TRY(k->linear_backward_data(m->ctx, m->conv_matrix, n, dy, a->conv_in));
    at->db = -1;
    return STATUS_OK;
}

/* All of layer l: the gradient of its output becomes that of its input. */
static enum status layer_backward(struct model *m, int l, const struct grad_cut *cut,
                                  struct incoming *at)
{
    struct layer_acts *a = &m->acts.layer[l];
    const act *x = m->acts.x[l];
    const bool conv = l == 0 && m->conv_matrix >= 0;
    if (conv)
        TRY(conv_backward(m, cut, at));
    /* The last layer was the last to run forward, so shared memory still holds its values. */
    if (m->opts.recompute && l < m->opts.encoder.layers - 1)
        TRY(layer_forward(m, l, x, a, conv ? m->acts.conv_residual : m->acts.x[l + 1]));
    TRY(wide_backward(m, l, a, cut, at));
    TRY(attention_half_backward(m, l, x, a, cut, at));
    if (conv)
        return m->kernels->neighbours_backward(m->ctx, &m->pass.rows, m->opts.encoder.hidden,
                                               m->opts.encoder.conv_taps, m->acts.conv_in,
                                               m->acts.d[at->da]);
    return STATUS_OK;
}

/* Where layer_backward() leaves the gradient: what its two halves do to *at. */
static struct incoming incoming_after(const struct model *m, int l, struct incoming at)
{
    int spare[3];
    if (l == 0 && m->conv_matrix >= 0) { /* conv_backward */
        free_buffers(at, spare);
        at = (struct incoming){m->pooled_conv ? spare[0] : at.da, -1};
    }
    free_buffers(at, spare);
    at.db = spare[0]; /* wide_backward */
    return is_pooled(m, l) ? (struct incoming){at.db, -1} : (struct incoming){at.da, at.db};
}

enum status encoder_backward(struct model *m, int at, const struct grad_cut *cut,
                             void (*ready)(void *arg, int64_t low, int64_t high), void *arg)
{
    const int layers = m->opts.encoder.layers;
    struct incoming in = {at, -1};
    int64_t high = model_part_begin(m, PART_POOLER, 0);
    const int frozen = m->opts.frozen, stop = frozen > 0 ? frozen - 1 : 0;
    bool replayed;
    for (int l = layers - 1; l >= stop; l--) {
        TRY(stretch_begin(m, STRETCH_LAYER, l, &replayed));
        const struct incoming before = in;
        TRY(stretch_end(m, replayed, replayed ? STATUS_OK : layer_backward(m, l, cut, &in)));
        if (replayed)
            in = incoming_after(m, l, before);
        int64_t low = model_part_begin(m, PART_LAYER, l);
        if (ready != NULL)
            ready(arg, low, high);
        high = low;
    }
    if (frozen > 0) {
        if (ready != NULL && high > 0)
            ready(arg, 0, high);
        return STATUS_OK;
    }
    TRY(stretch_begin(m, STRETCH_EMBEDDINGS, 0, &replayed));
    enum status st = replayed ? STATUS_OK : table_backward(m, cut);
    if (st == STATUS_OK && !replayed)
        st = embed_backward(m, in, cut);
    TRY(stretch_end(m, replayed, st));
    if (ready != NULL)
        ready(arg, 0, high);
    return STATUS_OK;
}
