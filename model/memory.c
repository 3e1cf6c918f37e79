/*
 * memory.c - plans a model: options, parameter table, matrices, and the one block that holds every
 * activation.
 *
 * model_create() allocates what is planned here and nothing else, so the figures of
 * model_plan_memory() are its own.
 */
#include <math.h>

#include "base/mem.h"
#include "model/model_impl.h"

enum { BLOCK_ALIGN = 256 }; /* bytes, as device_alloc() */

/* With these and the sizes that config.c accepts, no count of bytes leaves int64_t. */
enum { MAX_TOKENS = 1 << 26, MAX_GRAD_BUFFERS = 1024 };

/* ---- options */

static bool is_dropout(float p)
{
    return p >= 0 && p < 1;
}

static enum status resolve_opts(const struct model_opts *opts, struct model_opts *out)
{
    *out = *opts;
    struct encoder_config *e = &out->encoder;
    if (opts->kernels == NULL || opts->device == NULL)
        return status_fail(STATUS_ARG, "a model needs a device and kernels");
    if (e->embedding == 0)
        e->embedding = e->hidden;
    if (e->relative.span > 0 &&
        (e->relative.max_distance < 1 ||
         !(e->relative.content_to_position || e->relative.position_to_content)))
        return status_fail(STATUS_ARG, "relative positions without a distance or a product");
    if (e->vocab_size < 1 || e->embedding < 1 || e->first_position < 0 || e->hidden < 1 ||
        e->layers < 1 || e->heads < 1 || e->hidden % e->heads != 0 || e->intermediate < 1 ||
        e->max_positions < 1 || e->type_vocab < 0)
        return status_fail(
            STATUS_ARG,
            "an encoder of vocabulary %d, hidden %d, layers %d, heads %d, intermediate %d, "
            "positions %d",
            e->vocab_size, e->hidden, e->layers, e->heads, e->intermediate, e->max_positions);
    if (opts->head.outputs < 1 || opts->max_tokens < 1 || opts->max_tokens > MAX_TOKENS ||
        opts->max_rows < 1)
        return status_fail(STATUS_ARG, "a model of %d outputs for %lld tokens in %d rows",
                           opts->head.outputs, (long long)opts->max_tokens, opts->max_rows);
    if (opts->training && (opts->grad_buffers < 1 || opts->grad_buffers > MAX_GRAD_BUFFERS))
        return status_fail(STATUS_ARG, "training with %d gradient buffers, wanted 1 to %d",
                           opts->grad_buffers, MAX_GRAD_BUFFERS);
    if (out->frozen < 0 || out->frozen > e->layers + 1)
        return status_fail(STATUS_ARG, "%d frozen stages of %d", out->frozen, e->layers + 1);
    if (!opts->training)
        out->grad_buffers = 0;
    if (opts->kernels->line_multiple > 1)
        out->max_tokens = round_up(opts->max_tokens, opts->kernels->line_multiple);
    if (opts->max_rows > opts->max_tokens) /* every row has a token at least */
        out->max_rows = (int)opts->max_tokens;
    if (opts->max_losses < out->max_rows)
        out->max_losses = out->max_rows;
    if (out->max_pieces < 1)
        out->max_pieces = out->max_rows;

    if (out->head.dropout < 0)
        out->head.dropout = e->classifier_dropout >= 0 ? e->classifier_dropout : e->hidden_dropout;
    if (out->head.samples < 1 || !opts->training)
        out->head.samples = 1;
    if (opts->dropout >= 0)
        out->head.dropout = e->hidden_dropout = e->attention_dropout = opts->dropout;
    if (e->pooler_dropout < 0 || opts->dropout >= 0)
        e->pooler_dropout = out->head.dropout;
    if (!is_dropout(out->head.dropout) || !is_dropout(e->hidden_dropout) ||
        !is_dropout(e->attention_dropout) || !is_dropout(e->pooler_dropout))
        return status_fail(STATUS_ARG, "dropout %g, %g, %g, %g, wanted 0 or more and less than 1",
                           (double)e->hidden_dropout, (double)e->attention_dropout,
                           (double)out->head.dropout, (double)e->pooler_dropout);
    return STATUS_OK;
}

/* ---- matrices */

static int add_matrix(struct model *m, int64_t offset, int n, int k)
{
    m->matrices[m->matrix_count] = (struct matrix){.offset = offset, .n = n, .k = k};
    return m->matrix_count++;
}

/* Where a layer's projections of the table lie: as parameters of their own, or as the beginning of
 * qkv's. */
static int relative_matrix(struct model *m, int l)
{
    const struct relative_layout *r = &m->relative;
    const int64_t own = offset_at(m, SLOT_RELATIVE_WEIGHT, l);
    if (r->width == 0)
        return -1;
    return add_matrix(
        m, own >= 0 ? own : offset_at(m, SLOT_QKV_WEIGHT, l) + r->row * m->opts.encoder.hidden,
        r->width, m->opts.encoder.hidden);
}

static void plan_relative(struct model *m)
{
    const struct encoder_config *e = &m->opts.encoder;
    const bool q = e->relative.position_to_content, k = e->relative.content_to_position;
    m->relative = (struct relative_layout){.q_at = -1, .k_at = -1};
    if (e->relative.span == 0)
        return;
    m->relative = (struct relative_layout){
        .width = e->hidden * (q + k),
        .q_at = q ? 0 : -1,
        .k_at = !k  ? -1
                : q ? e->hidden
                    : 0,
        .row = q ? 0 : e->hidden,
        .scale = (float)(1.0 / sqrt((double)(e->hidden / e->heads) * (1 + q + k))),
    };
}

static enum status plan_matrices(struct model *m)
{
    const struct encoder_config *e = &m->opts.encoder;
    const int hidden = e->hidden;
    TRY(mem_alloc((size_t)e->layers, sizeof *m->layer, "the layers", &m->layer));
    TRY(mem_alloc(6 * (size_t)e->layers + 3, sizeof *m->matrices, "the matrices", &m->matrices));
    m->conv_matrix = m->project_matrix = -1;
    if (e->conv_taps > 0)
        m->conv_matrix =
            add_matrix(m, offset_at(m, SLOT_CONV_WEIGHT, 0), hidden, hidden * e->conv_taps);
    if (e->embedding != hidden)
        m->project_matrix =
            add_matrix(m, offset_at(m, SLOT_EMBED_PROJECT_WEIGHT, 0), hidden, e->embedding);
    for (int l = 0; l < e->layers; l++) {
        struct layer_matrices *at = &m->layer[l];
        *at = (struct layer_matrices){.qkv = -1, .q = -1, .kv = -1};
        int64_t qkv = offset_at(m, SLOT_QKV_WEIGHT, l);
        if (m->pooled_last && l == e->layers - 1) { /* the same parameter as two products */
            at->q = add_matrix(m, qkv, hidden, hidden);
            at->kv = add_matrix(m, qkv + (int64_t)hidden * hidden, 2 * hidden, hidden);
        } else {
            at->qkv = add_matrix(m, qkv, 3 * hidden, hidden);
        }
        at->relative = relative_matrix(m, l);
        at->attention = add_matrix(m, offset_at(m, SLOT_ATTENTION_WEIGHT, l), hidden, hidden);
        at->intermediate =
            add_matrix(m, offset_at(m, SLOT_INTERMEDIATE_WEIGHT, l), e->intermediate, hidden);
        at->output = add_matrix(m, offset_at(m, SLOT_OUTPUT_WEIGHT, l), hidden, e->intermediate);
    }
    m->pooler_matrix = -1;
    if (m->opts.head.pooling == POOL_POOLER)
        m->pooler_matrix = add_matrix(m, offset_at(m, SLOT_POOLER_WEIGHT, 0), hidden, hidden);
    return STATUS_OK;
}

static int widest(const struct encoder_config *e)
{
    const int three = 3 * e->hidden, conv = e->hidden * e->conv_taps;
    const int wide = e->intermediate > three ? e->intermediate : three;
    return conv > wide ? conv : wide;
}

struct kernel_opts model_kernel_opts(const struct model *m)
{
    const struct encoder_config *e = &m->opts.encoder;
    return (struct kernel_opts){
        .device = m->opts.device,
        .precision = m->opts.precision,
        .matrices = m->matrices,
        .count = m->matrix_count,
        .max_tokens = m->opts.max_tokens,
        .max_rows = m->opts.max_rows,
        .max_channels = widest(e),
        .distances = m->distances,
        .max_pieces = m->opts.max_pieces,
        .weight_count = m->params.total,
        .training = m->opts.training,
        .fastest = m->opts.fastest,
        .exact_pieces = m->opts.exact_pieces,
    };
}

enum status model_plan(const struct model_opts *opts, struct model *m)
{
    enum status st = STATUS_OK;
    TRY(resolve_opts(opts, &m->opts));
    m->kernels = opts->kernels;
    TRY(samples_plan(m));
    m->family = family_find(opts->encoder.model_type);
    if (m->family == NULL)
        return status_fail(STATUS_UNAVAILABLE, "model_type \"%s\": cohort has %s",
                           opts->encoder.model_type, family_list());
    const struct encoder_config *e = &m->opts.encoder;
    const bool firsts = opts->head.pooling == POOL_CLS || opts->head.pooling == POOL_POOLER;
    m->pooled_conv = firsts && e->conv_taps > 0 && e->layers == 1; /* which reads all tokens */
    m->pooled_last = firsts && !m->pooled_conv;
    size_t layers = (size_t)opts->encoder.layers;
    plan_relative(m);
    TRY_GOTO(fail, distances_make(&e->relative, &m->distances));
    TRY_GOTO(fail, params_build(m->family, &m->opts.encoder, &m->opts.head, &m->params, &m->index));
    TRY_GOTO(fail, plan_matrices(m));
    TRY_GOTO(fail, mem_alloc(layers + 1, sizeof *m->acts.x, "the layer inputs", &m->acts.x));
    TRY_GOTO(fail, mem_alloc(layers, sizeof *m->acts.layer, "the layers", &m->acts.layer));
    return STATUS_OK;
fail:
    model_unplan(m);
    return st;
}

void model_unplan(struct model *m)
{
    mem_free((void *)(uintptr_t)m->distances.line);
    m->distances.line = NULL;
    mem_free(m->acts.layer);
    mem_free(m->acts.x);
    mem_free(m->matrices);
    mem_free(m->layer);
    params_release(&m->params);
    m->acts.layer = NULL;
    m->acts.x = NULL;
    m->matrices = NULL;
    m->layer = NULL;
}

/* ---- activations */

struct cursor {
    char *block; /* NULL: only count */
    int64_t at;  /* bytes */
    int64_t act; /* bytes of one act element */
};

static void *place(struct cursor *c, int64_t elements, int64_t bytes)
{
    void *p = c->block == NULL ? NULL : c->block + c->at;
    c->at += round_up(elements * bytes, BLOCK_ALIGN);
    return p;
}

static act *place_act(struct cursor *c, int64_t lines, int64_t channels)
{
    return place(c, lines * channels, c->act);
}

static float *place_float(struct cursor *c, int64_t lines, int64_t channels)
{
    return place(c, lines * channels, (int64_t)sizeof(float));
}

static void lay_layer(const struct model *m, bool pooled, struct cursor *c, struct layer_acts *a)
{
    const struct encoder_config *e = &m->opts.encoder;
    const int64_t tokens = m->opts.max_tokens, lines = pooled ? m->opts.max_rows : tokens;
    *a = (struct layer_acts){0};
    if (pooled) {
        a->first = place_act(c, lines, e->hidden);
        a->qkv = place_act(c, lines, e->hidden);
        a->kv = place_act(c, tokens, 2 * (int64_t)e->hidden);
    } else {
        a->qkv = place_act(c, tokens, 3 * (int64_t)e->hidden);
    }
    a->attended = place_act(c, lines, e->hidden);
    a->lse = place_float(c, lines, e->heads);
    a->sum1 = place_act(c, lines, e->hidden);
    a->normed = place_act(c, lines, e->hidden);
    a->mean1 = place_float(c, lines, 1);
    a->rstd1 = place_float(c, lines, 1);
    if (m->relative.width > 0)
        a->table = place_act(c, 2 * (int64_t)e->relative.span, m->relative.width);
    a->wide = place_act(c, lines, e->intermediate);
    a->active = place_act(c, lines, e->intermediate);
    a->sum2 = place_act(c, lines, e->hidden);
    a->mean2 = place_float(c, lines, 1);
    a->rstd2 = place_float(c, lines, 1);
}

/* Layers: one after the other where all are kept, else all on the same place, which the largest of
 * them sizes. */
static void lay_layers(struct model *m, bool keep, struct cursor *c)
{
    const int64_t begin = c->at;
    int64_t end = begin;
    for (int l = 0; l < m->opts.encoder.layers; l++) {
        if (!keep)
            c->at = begin;
        lay_layer(m, m->pooled_last && l == m->opts.encoder.layers - 1, c, &m->acts.layer[l]);
        end = c->at > end ? c->at : end;
    }
    c->at = end;
}

static void lay_table(struct model *m, struct cursor *c)
{
    const struct encoder_config *e = &m->opts.encoder;
    const int64_t lines = 2 * (int64_t)e->relative.span, all = lines * m->opts.max_pieces;
    struct acts *a = &m->acts;
    if (lines == 0)
        return;
    const bool drops = m->opts.training && e->hidden_dropout > 0;
    a->table = place_act(c, lines, e->hidden);
    a->table_dropped = drops ? place_act(c, lines, e->hidden) : a->table;
    if (!m->opts.training)
        return;
    a->dtable = place_act(c, all, m->relative.width);
    a->dlines[0] = place_act(c, all, e->hidden);
    a->dlines[1] = place_act(c, all, e->hidden);
}

static void lay_conv(struct model *m, struct cursor *c)
{
    const struct encoder_config *e = &m->opts.encoder;
    const int64_t tokens = m->opts.max_tokens;
    struct acts *a = &m->acts;
    if (e->conv_taps == 0)
        return;
    a->conv_in = place_act(c, tokens, (int64_t)e->hidden * e->conv_taps);
    a->conv_out = place_act(c, tokens, e->hidden);
    a->conv_active = place_act(c, tokens, e->hidden);
    a->conv_residual = place_act(c, tokens, e->hidden);
    a->conv_sum = place_act(c, tokens, e->hidden);
    a->conv_top = m->pooled_conv ? place_act(c, tokens, e->hidden) : NULL;
    a->conv_mean = place_float(c, tokens, 1);
    a->conv_rstd = place_float(c, tokens, 1);
}

int64_t model_lay_acts(struct model *m, char *block)
{
    const struct encoder_config *e = &m->opts.encoder;
    const int64_t tokens = m->opts.max_tokens, rows = m->opts.max_rows, hidden = e->hidden;
    const bool training = m->opts.training;
    struct cursor c = {.block = block, .act = act_bytes(m->opts.precision)};
    struct acts *a = &m->acts;

    a->embed_sum = place_act(&c, tokens, e->embedding);
    a->embed_mean = place_float(&c, tokens, 1);
    a->embed_rstd = place_float(&c, tokens, 1);
    a->embed_out = e->embedding == hidden ? NULL : place_act(&c, tokens, e->embedding);
    a->x[0] = place_act(&c, tokens, hidden);
    for (int l = 1; l < e->layers; l++)
        a->x[l] = training ? place_act(&c, tokens, hidden) : a->x[0];
    lay_table(m, &c);
    lay_conv(m, &c);
    if (m->pooled_last || m->pooled_conv)
        a->x[e->layers] = place_act(&c, rows, hidden);
    else
        a->x[e->layers] = training ? place_act(&c, tokens, hidden) : a->x[0];
    lay_layers(m, training && !m->opts.recompute, &c);
    a->branch = place_act(&c, tokens, hidden);

    a->pooled = m->opts.head.pooling == POOL_CLS ? a->x[e->layers] : place_act(&c, rows, hidden);
    const int64_t samples = m->samples.count, sampled = rows * samples;
    a->dropped = training && m->opts.head.dropout > 0 ? place_act(&c, sampled, hidden) : NULL;
    a->dsamples = samples > 1 ? place_act(&c, sampled, hidden) : NULL;
    a->argmax = m->opts.head.pooling == POOL_MAX
                    ? place(&c, rows * hidden, (int64_t)sizeof(int32_t))
                    : NULL;
    const bool pooler = m->opts.head.pooling == POOL_POOLER;
    a->pooler_in = pooler && training && e->pooler_dropout > 0 ? place_act(&c, rows, hidden) : NULL;
    a->pooler_sum = pooler && e->pooler_activation != ACTIVATION_TANH ? place_act(&c, rows, hidden)
                                                                      : NULL;
    a->logits = place_float(&c, sampled, m->opts.head.outputs);
    a->losses = training ? place(&c, m->opts.max_losses * samples, (int64_t)sizeof(double)) : NULL;
    a->dlogits = training ? place_float(&c, sampled, m->opts.head.outputs) : NULL;
    if (training) {
        for (int i = 0; i < 3; i++)
            a->d[i] = place_act(&c, tokens, e->embedding > hidden ? e->embedding : hidden);
        int64_t wide = e->intermediate > 3 * hidden ? e->intermediate : 3 * hidden;
        a->dwide = place_act(&c, tokens, wide);
    }
    return c.at;
}

int64_t model_pass_bytes(const struct model *m)
{
    int64_t ids = 2 * m->opts.max_tokens, rows = 3 * (int64_t)m->opts.max_rows + 2;
    int64_t pieces = m->opts.max_pieces;
    return (ids + rows + pieces) * (int64_t)sizeof(int32_t) +
           m->opts.max_rows * (int64_t)sizeof(int64_t);
}

enum status model_plan_memory(const struct model_opts *opts, struct model_memory *out)
{
    struct model model = {0};
    *out = (struct model_memory){0};
    TRY(model_plan(opts, &model));
    const struct kernel_opts kernel_opts = model_kernel_opts(&model);
    out->weights = model.params.total * (int64_t)sizeof(float);
    out->gradients = out->weights * model.opts.grad_buffers;
    out->activations = model_lay_acts(&model, NULL);
    out->workspace = model.kernels->memory_bytes(&kernel_opts) + model_pass_bytes(&model);
    out->total = out->weights + out->gradients + out->activations + out->workspace;
    model_unplan(&model);
    return STATUS_OK;
}
