/*
 * model.c - a model's life: memory, weights, and one pass over packed rows; see model.h.
 *
 * The rows of a forward pass are copied, because backward needs them when the caller's batch may be
 * gone.
 */
#include "model/model.h"

#include <math.h>
#include <string.h>

#include "base/halves.h"
#include "base/mem.h"
#include "model/model_impl.h"

/* ---- life */

static enum status check_kernels(const struct model *m)
{
    const struct kernels *k = m->kernels;
    const enum pooling pooling = m->opts.head.pooling;
    const struct {
        const char *name;
        bool have, forward;
    } entries[] = {
        {"embed", k->embed != NULL, true},
        {"linear", k->linear != NULL, true},
        {"attention", k->attention != NULL, true},
        {"attention_relative",
         m->relative.width == 0 || (k->attention_relative != NULL && k->table_norm != NULL), true},
        {"attention_relative_backward",
         m->relative.width == 0 || (k->attention_relative_backward != NULL &&
                                    k->table_norm_backward != NULL && k->table_dropout != NULL),
         false},
        {"neighbours",
         m->conv_matrix < 0 || (k->neighbours != NULL && k->neighbours_backward != NULL), true},
        {"residual_norm", k->residual_norm != NULL, true},
        {"activate", k->activate != NULL, true},
        {"classify", k->classify != NULL, true},
        {"first_tokens", !(m->pooled_last || m->pooled_conv) || k->first_tokens != NULL, true},
        {"add", m->project_matrix < 0 || k->add != NULL, false},
        {"tanh", pooling != POOL_POOLER || (k->tanh_forward != NULL && k->tanh_backward != NULL),
         true},
        {"mean_pool",
         pooling != POOL_MEAN || (k->mean_pool != NULL && k->mean_pool_backward != NULL), true},
        {"max_pool", pooling != POOL_MAX || (k->max_pool != NULL && k->max_pool_backward != NULL),
         true},
        {"embed_backward", k->embed_backward != NULL, false},
        {"linear_backward", k->linear_backward_data != NULL && k->linear_backward_weight != NULL,
         false},
        {"attention_backward", k->attention_backward != NULL, false},
        {"residual_norm_backward", k->residual_norm_backward != NULL, false},
        {"activate_backward", k->activate_backward != NULL, false},
        {"dropout", k->dropout != NULL, false},
        {"first_tokens_backward",
         !(m->pooled_last || m->pooled_conv) || k->first_tokens_backward != NULL, false},
        {"classify_backward", k->classify_backward != NULL, false},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        if (!entries[i].have && (entries[i].forward || m->opts.training))
            return status_fail(STATUS_UNAVAILABLE, "the %s kernels have no %s", k->name,
                               entries[i].name);
    return k->supports(m->opts.precision);
}

static enum status alloc_pass(struct model *m)
{
    struct pass *p = &m->pass;
    const size_t tokens = (size_t)m->opts.max_tokens, rows = (size_t)m->opts.max_rows;
    TRY(mem_alloc(tokens, sizeof *p->ids, "token ids", &p->ids));
    TRY(mem_alloc(tokens, sizeof *p->types, "token types", &p->types));
    TRY(mem_alloc(rows + 1, sizeof *p->begin, "row offsets", &p->begin));
    TRY(mem_alloc(rows + 1, sizeof *p->line, "row lines", &p->line));
    TRY(mem_alloc(rows, sizeof *p->chunk, "chunk numbers", &p->chunk));
    TRY(mem_alloc(rows, sizeof *p->row, "row ids", &p->row));
    TRY(mem_alloc((size_t)m->opts.max_pieces, sizeof *p->piece_lines, "the pieces' tables",
                  &p->piece_lines));
    for (size_t b = 0; b <= rows; b++)
        p->line[b] = (int32_t)b;
    return STATUS_OK;
}

enum status model_create(const struct model_opts *opts, struct model **out)
{
    enum status st = STATUS_OK;
    struct model *m = NULL;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *m, "the model", &m));
    TRY_GOTO(fail, model_plan(opts, m));
    TRY_GOTO(fail, check_kernels(m));
    TRY_GOTO(fail, alloc_pass(m));
    TRY_GOTO(fail, samples_open(m));
    const size_t weights = (size_t)m->params.total * sizeof(float);
    TRY_GOTO(fail, device_alloc(m->opts.device, weights, "the weights", &m->weights));
    if (m->opts.grad_buffers > 0)
        TRY_GOTO(fail, device_alloc(m->opts.device, weights * (size_t)m->opts.grad_buffers,
                                    "the gradients", &m->gradients));
    const size_t acts = (size_t)model_lay_acts(m, NULL);
    TRY_GOTO(fail, device_alloc(m->opts.device, acts, "the activations", &m->block));
    (void)model_lay_acts(m, m->block);
    const struct kernel_opts kernel_opts = model_kernel_opts(m);
    TRY_GOTO(fail, m->kernels->open(&kernel_opts, &m->ctx));
    TRY_GOTO(fail, model_weights_changed(m));
    *out = m;
    return STATUS_OK;
fail:
    model_destroy(m);
    return st;
}

void model_destroy(struct model *m)
{
    if (m == NULL)
        return;
    if (m->ctx != NULL)
        m->kernels->close(m->ctx);
    if (m->block != NULL)
        device_free(m->opts.device, m->block);
    if (m->gradients != NULL)
        device_free(m->opts.device, m->gradients);
    if (m->weights != NULL)
        device_free(m->opts.device, m->weights);
    samples_close(m);
    mem_free(m->pass.row);
    mem_free(m->pass.piece_lines);
    mem_free(m->pass.chunk);
    mem_free(m->pass.line);
    mem_free(m->pass.begin);
    mem_free(m->pass.types);
    mem_free(m->pass.ids);
    model_unplan(m);
    mem_free(m);
}

const struct param_table *model_params(const struct model *m)
{
    return &m->params;
}

float *model_weights(struct model *m)
{
    return m->weights;
}

float *model_gradient(struct model *m, int k)
{
    return k < 0 || k >= m->opts.grad_buffers ? NULL : m->gradients + (int64_t)k * m->params.total;
}

enum status model_weights_changed(struct model *m)
{
    m->pass.ready = false; /* its activations belong to the old weights */
    return m->kernels->weights_changed(m->ctx, m->weights);
}

struct kernel_ctx *model_kernel_ctx(struct model *m)
{
    return m->ctx;
}

struct device *model_device(const struct model *m)
{
    return m->opts.device;
}

int64_t model_part_begin(const struct model *m, enum param_part part, int layer)
{
    for (int i = 0; i < m->params.count; i++) {
        const struct param *p = &m->params.params[i];
        if (p->part > part || (p->part == part && (part != PART_LAYER || p->layer >= layer)))
            return p->offset;
    }
    return m->params.total;
}

/* ---- one pass */

static enum status check_rows(const struct model *m, const struct model_input *in)
{
    const struct encoder_config *e = &m->opts.encoder;
    if (in->rows < 0 || in->rows > m->opts.max_rows || in->tokens < 0 ||
        in->tokens > m->opts.max_tokens)
        return status_fail(
            STATUS_ARG, "a pass of %lld tokens in %d rows, the model has room for %lld in %d",
            (long long)in->tokens, in->rows, (long long)m->opts.max_tokens, m->opts.max_rows);
    if (in->rows == 0)
        return in->tokens == 0
                   ? STATUS_OK
                   : status_fail(STATUS_ARG, "%lld tokens in no row", (long long)in->tokens);
    if (in->begin[0] != 0 || in->begin[in->rows] != in->tokens)
        return status_fail(STATUS_ARG, "rows take tokens %d to %d, wanted 0 to %lld",
                           (int)in->begin[0], (int)in->begin[in->rows], (long long)in->tokens);
    const int longest = e->any_length ? INT32_MAX : e->max_positions - e->first_position;
    for (int b = 0; b < in->rows; b++) {
        int64_t n = (int64_t)in->begin[b + 1] - in->begin[b];
        if (n < 1 || n > longest)
            return status_fail(STATUS_DATA, "row %lld has %lld tokens, wanted 1 to %d",
                               (long long)in->row[b], (long long)n, longest);
        for (int64_t t = in->begin[b]; t < in->begin[b + 1]; t++) {
            if (in->ids[t] < 0 || in->ids[t] >= e->vocab_size)
                return status_fail(STATUS_DATA,
                                   "row %lld: token %lld is %d, the model's vocabulary has %d",
                                   (long long)in->row[b], (long long)(t - in->begin[b]),
                                   (int)in->ids[t], e->vocab_size);
            if (in->types != NULL && e->type_vocab > 0 &&
                (in->types[t] < 0 || in->types[t] >= e->type_vocab))
                return status_fail(STATUS_DATA,
                                   "row %lld: token %lld has type %d, the model has %d types",
                                   (long long)in->row[b], (long long)(t - in->begin[b]),
                                   (int)in->types[t], e->type_vocab);
        }
    }
    return STATUS_OK;
}

static void keep_rows(struct model *m, const struct model_input *in)
{
    struct pass *p = &m->pass;
    const size_t tokens = (size_t)in->tokens, rows = (size_t)in->rows;
    const int64_t multiple = m->kernels->line_multiple > 1 ? m->kernels->line_multiple : 1;
    p->tokens = in->tokens;
    p->has_types = in->types != NULL && m->opts.encoder.type_vocab > 0;
    p->has_chunks = in->chunk != NULL;
    p->begin[0] = 0;
    int longest = 0;
    if (rows > 0) {
        memcpy(p->ids, in->ids, tokens * sizeof *p->ids);
        if (p->has_types)
            memcpy(p->types, in->types, tokens * sizeof *p->types);
        memcpy(p->begin, in->begin, (rows + 1) * sizeof *p->begin);
        memcpy(p->row, in->row, rows * sizeof *p->row);
        if (p->has_chunks)
            memcpy(p->chunk, in->chunk, rows * sizeof *p->chunk);
    }
    for (int b = 0; b < in->rows; b++)
        if (p->begin[b + 1] - p->begin[b] > longest)
            longest = p->begin[b + 1] - p->begin[b];
    p->rows = (struct rows){.tokens = (in->tokens + multiple - 1) / multiple * multiple,
                            .count = in->rows,
                            .longest = longest,
                            .begin = p->begin};
    /* Where shapes are to repeat, always the whole table. */
    p->table_lines = multiple > 1 ? 2 * m->distances.span : distances_lines(&m->distances, longest);
    p->firsts = (struct rows){
        .tokens = in->rows, .count = in->rows, .longest = in->rows > 0, .begin = p->line};
}

/* Tell the kernels what the pass's host arrays hold, where they do not read them as they come. */
static enum status pass_begins(struct model *m)
{
    const struct pass *p = &m->pass;
    const struct pass_arrays arrays = {.rows = &p->rows,
                                       .firsts = &p->firsts,
                                       .ids = p->ids,
                                       .types = p->has_types ? p->types : NULL,
                                       .row = p->row,
                                       .chunk = p->has_chunks ? p->chunk : NULL,
                                       .step = p->step};
    return m->kernels->pass_begins == NULL ? STATUS_OK : m->kernels->pass_begins(m->ctx, &arrays);
}

enum status model_forward(struct model *m, const struct model_input *in, bool train, int64_t step,
                          float *logits)
{
    m->pass.ready = false;
    if (train && !m->opts.training)
        return status_fail(STATUS_ARG, "a training pass of a model made for evaluation");
    if (train && logits != NULL && m->samples.count > 1)
        return status_fail(STATUS_ARG, "logits of a training pass with %d samples of dropout",
                           m->samples.count);
    TRY(check_rows(m, in));
    keep_rows(m, in);
    m->pass.train = train;
    m->pass.step = step;
    if (in->rows > 0) {
        bool replayed;
        TRY(pass_begins(m));
        TRY(stretch_begin(m, train ? STRETCH_FORWARD : STRETCH_EVALUATE, 0, &replayed));
        enum status st = replayed ? STATUS_OK : encoder_forward(m);
        if (st == STATUS_OK && !replayed)
            st = head_forward(m);
        TRY(stretch_end(m, replayed, st));
        if (logits != NULL)
            TRY(device_get(m->opts.device, logits, m->acts.logits,
                           (size_t)in->rows * (size_t)m->opts.head.outputs * sizeof(float)));
    }
    m->pass.ready = train;
    return STATUS_OK;
}

enum status model_loss(struct model *m, const struct loss_opts *opts,
                       const struct loss_target *target, double divisor, double scale, int at)
{
    const int rows = m->pass.rows.count;
    if (!m->pass.ready)
        return status_fail(STATUS_ARG, "losses without a training forward before them");
    if (at < 0 || at > m->opts.max_losses - rows)
        return status_fail(STATUS_ARG, "losses of %d rows from slot %d of %d", rows, at,
                           m->opts.max_losses);
    if (opts->outputs != m->opts.head.outputs)
        return status_fail(STATUS_ARG, "a loss of %d outputs for a model of %d", opts->outputs,
                           m->opts.head.outputs);
    if (m->samples.count > 1)
        return samples_loss(m, opts, target, divisor, scale, at);
    if (m->kernels->loss == NULL) /* then the device's memory is the host's */
        return loss_compute(opts, target, rows, m->acts.logits, divisor, scale, m->acts.losses + at,
                            m->acts.dlogits);
    TRY(loss_check(opts, target, rows, divisor));
    const struct loss_args args = {.kind = (int)opts->kind,
                                   .outputs = opts->outputs,
                                   .label_smoothing = opts->label_smoothing,
                                   .focal_gamma = opts->focal_gamma,
                                   .class_weights = opts->class_weights,
                                   .label = target->label,
                                   .value = target->value,
                                   .row_weight = target->row_weight,
                                   .divisor = divisor,
                                   .scale = scale};
    return m->kernels->loss(m->ctx, &args, rows, m->acts.logits, m->acts.losses + at,
                            m->acts.dlogits);
}

enum status model_losses(struct model *m, int n, double *loss)
{
    if (n < 0 || n > m->opts.max_losses)
        return status_fail(STATUS_ARG, "%d losses of %d", n, m->opts.max_losses);
    if (m->samples.count > 1)
        samples_losses(m, n, loss);
    else
        TRY(device_get(m->opts.device, loss, m->acts.losses, (size_t)n * sizeof *loss));
    for (int i = 0; i < n; i++)
        if (!isfinite(loss[i]))
            return status_fail(STATUS_NUMERIC, "row %d of this rank's batch: a logit is not finite",
                               i);
    return STATUS_OK;
}

enum status model_pooled(struct model *m, float *out)
{
    const size_t n = (size_t)m->pass.rows.count * (size_t)m->opts.encoder.hidden;
    if (m->opts.precision == PRECISION_FP32 || m->opts.precision == PRECISION_TF32)
        return device_get(m->opts.device, out, m->acts.pooled, n * sizeof(float));
    char *bytes =
        (char *)out; /* its first half holds the 16-bit numbers until each is widened, last first */
    TRY(device_get(m->opts.device, bytes, m->acts.pooled, n * sizeof(uint16_t)));
    for (size_t i = n; i-- > 0;) {
        uint16_t half;
        memcpy(&half, bytes + i * sizeof half, sizeof half);
        float wide = m->opts.precision == PRECISION_BF16 ? float_from_bf16(half)
                                                         : float_from_f16(half);
        memcpy(bytes + i * sizeof wide, &wide, sizeof wide);
    }
    return STATUS_OK;
}

static enum status check_cut(const struct pass *p, const struct grad_cut *cut, int most)
{
    const int last = cut->pieces;
    if (last == 0)
        return STATUS_OK;
    if (last > most)
        return status_fail(STATUS_ARG, "a cut of %d pieces, the model has room for %d", last, most);
    if (cut->token[0] != 0 || cut->row[0] != 0 || cut->token[last] != p->tokens ||
        cut->row[last] != p->rows.count)
        return status_fail(
            STATUS_ARG, "the pieces take %d tokens and %d rows, the pass has %lld and %d",
            (int)cut->token[last], (int)cut->row[last], (long long)p->tokens, p->rows.count);
    for (int i = 0; i <= last; i++)
        if (cut->row[i] < 0 || cut->row[i] > p->rows.count ||
            cut->token[i] != p->begin[cut->row[i]])
            return status_fail(
                STATUS_ARG,
                "piece %d begins at row %d and token %d, which is not where that row begins", i,
                (int)cut->row[i], (int)cut->token[i]);
    return STATUS_OK;
}

/* The ranges of a backward pass that has nothing to add: what encoder_backward() and the head
 * announce, in their order. */
static void announce_all(const struct model *m, void (*ready)(void *arg, int64_t low, int64_t high),
                         void *arg)
{
    const int64_t head = model_part_begin(m, PART_HEAD, 0);
    int64_t high = model_part_begin(m, PART_POOLER, 0);
    ready(arg, head, m->params.total);
    if (high < head)
        ready(arg, high, head);
    for (int l = m->opts.encoder.layers - 1; l >= 0; l--) {
        int64_t low = model_part_begin(m, PART_LAYER, l);
        ready(arg, low, high);
        high = low;
    }
    ready(arg, 0, high);
}

enum status model_backward(struct model *m, const float *dlogits, const struct grad_cut *cut,
                           void (*ready)(void *arg, int64_t low, int64_t high), void *arg)
{
    if (!m->pass.ready)
        return status_fail(STATUS_ARG, "backward without a training forward before it");
    TRY(check_cut(&m->pass, cut, m->opts.max_pieces));
    m->pass.ready = false; /* recomputation and shared memory leave nothing for a second backward */
    if (cut->pieces == 0) {
        if (ready != NULL)
            announce_all(m, ready, arg);
        return STATUS_OK;
    }
    const int64_t head = model_part_begin(m, PART_HEAD, 0),
                  pooler = model_part_begin(m, PART_POOLER, 0);
    const size_t bytes = (size_t)m->pass.rows.count * (size_t)m->opts.head.outputs * sizeof(float);
    bool replayed;
    if (dlogits != NULL && m->samples.count > 1)
        return status_fail(STATUS_ARG, "gradients of logits with %d samples of dropout",
                           m->samples.count);
    if (dlogits != NULL)
        TRY(device_put(m->opts.device, m->acts.dlogits, dlogits, bytes));
    if (m->kernels->backward_begins != NULL)
        TRY(m->kernels->backward_begins(m->ctx, cut));
    TRY(table_backward_begins(m, cut));
    TRY(stretch_begin(m, STRETCH_HEAD, 0, &replayed));
    TRY(stretch_end(m, replayed, replayed ? STATUS_OK : head_backward(m, cut)));
    const int at = head_gradient_at(m);
    if (ready != NULL)
        ready(arg, head, m->params.total);
    if (ready != NULL && pooler < head)
        ready(arg, pooler, head);
    return encoder_backward(m, at, cut, ready, arg);
}
