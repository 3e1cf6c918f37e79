/*
 * samples.c - several samples of the head's dropout in one training pass: the classifier sees each
 * row's vector once for every sample, and a row's loss is the mean over them.
 *
 * The lines of a row stand together, so the pieces of a cut are runs of lines as they are of rows,
 * and a decision is named by the row and the number of the sample. In host memory: such a model is
 * refused where the kernels have their own.
 */
#include <string.h>

#include "base/halves.h"
#include "base/mem.h"
#include "model/model_impl.h"

enum status samples_plan(struct model *m)
{
    const int n = m->opts.head.samples;
    m->samples.count = n;
    if (n > 1 && device_kind(m->opts.device) != DEVICE_CPU)
        return status_fail(STATUS_CONFIG,
                           "the %s backend has one sample of the head's dropout; wanted "
                           "model.dropout_samples=1, or parallel.backend=cpu",
                           m->kernels->name);
    if (n > 1 && !(m->opts.head.dropout > 0))
        return status_fail(STATUS_CONFIG,
                           "model.dropout_samples=%d of a head without dropout would all be the "
                           "same; wanted model.dropout above 0, or model.dropout_samples=1",
                           n);
    return STATUS_OK;
}

enum status samples_open(struct model *m)
{
    struct samples *s = &m->samples;
    const size_t n = (size_t)s->count, rows = (size_t)m->opts.max_rows * n;
    if (s->count == 1)
        return STATUS_OK;
    TRY(mem_alloc((size_t)m->opts.max_rows + 1, sizeof *s->begin, "samples", &s->begin));
    TRY(mem_alloc((size_t)m->opts.max_pieces + 1, sizeof *s->cut, "samples", &s->cut));
    TRY(mem_alloc(rows, sizeof *s->label, "samples", &s->label));
    TRY(mem_alloc(rows * (size_t)m->opts.head.outputs, sizeof *s->value, "samples", &s->value));
    TRY(mem_alloc(rows, sizeof *s->weight, "samples", &s->weight));
    for (int b = 0; b <= m->opts.max_rows; b++)
        s->begin[b] = b * s->count;
    return STATUS_OK;
}

void samples_close(struct model *m)
{
    struct samples *s = &m->samples;
    mem_free(s->begin);
    mem_free(s->cut);
    mem_free(s->label);
    mem_free(s->value);
    mem_free(s->weight);
}

struct rows samples_rows(const struct model *m)
{
    const int rows = m->pass.rows.count;
    return (struct rows){.tokens = (int64_t)rows * m->samples.count,
                         .count = rows,
                         .longest = rows > 0 ? m->samples.count : 0,
                         .begin = m->samples.begin};
}

static size_t line_bytes(const struct model *m)
{
    const bool wide = m->opts.precision == PRECISION_FP32 || m->opts.precision == PRECISION_TF32;
    return (size_t)m->opts.encoder.hidden * (wide ? sizeof(float) : sizeof(uint16_t));
}

void samples_repeat(const struct model *m, const act *from, act *to)
{
    const size_t bytes = line_bytes(m);
    const char *in = (const char *)from;
    char *out = (char *)to;
    for (int b = 0; b < m->pass.rows.count; b++)
        for (int k = 0; k < m->samples.count; k++)
            memcpy(out + ((size_t)b * (size_t)m->samples.count + (size_t)k) * bytes,
                   in + (size_t)b * bytes, bytes);
}

static float widen(uint16_t half, bool bf16)
{
    return bf16 ? float_from_bf16(half) : float_from_f16(half);
}

void samples_add_up(const struct model *m, const act *from, act *to)
{
    const int64_t hidden = m->opts.encoder.hidden, n = m->samples.count;
    const bool wide = line_bytes(m) == (size_t)hidden * sizeof(float);
    const bool bf16 = m->opts.precision == PRECISION_BF16;
    const void *in = from;
    void *out = to;
    for (int64_t b = 0; b < m->pass.rows.count; b++) {
        for (int64_t c = 0; c < hidden; c++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < n; k++) {
                const int64_t at = (b * n + k) * hidden + c;
                sum += wide ? ((const float *)in)[at] : widen(((const uint16_t *)in)[at], bf16);
            }
            if (wide)
                ((float *)out)[b * hidden + c] = sum;
            else
                ((uint16_t *)out)[b * hidden + c] = bf16 ? bf16_from_float(sum)
                                                         : f16_from_float(sum);
        }
    }
}

struct grad_cut samples_cut(struct model *m, const struct grad_cut *cut)
{
    struct grad_cut out = *cut;
    for (int i = 0; i <= cut->pieces; i++)
        m->samples.cut[i] = cut->row[i] * m->samples.count;
    out.row = m->samples.cut;
    return out;
}

enum status samples_loss(struct model *m, const struct loss_opts *opts,
                         const struct loss_target *target, double divisor, double scale, int at)
{
    struct samples *s = &m->samples;
    const int rows = m->pass.rows.count, n = s->count, outputs = opts->outputs;
    for (int i = 0; i < rows * n; i++) {
        const int b = i / n;
        if (target->label != NULL)
            s->label[i] = target->label[b];
        if (target->row_weight != NULL)
            s->weight[i] = target->row_weight[b];
        if (target->value != NULL)
            memcpy(s->value + (int64_t)i * outputs, target->value + (int64_t)b * outputs,
                   (size_t)outputs * sizeof *s->value);
    }
    const struct loss_target repeated = {.label = target->label == NULL ? NULL : s->label,
                                         .value = target->value == NULL ? NULL : s->value,
                                         .row_weight = target->row_weight == NULL ? NULL
                                                                                  : s->weight};
    return loss_compute(opts, &repeated, rows * n, m->acts.logits, divisor * n, scale,
                        m->acts.losses + (int64_t)at * n, m->acts.dlogits);
}

void samples_losses(const struct model *m, int rows, double *loss)
{
    const int n = m->samples.count;
    for (int b = 0; b < rows; b++) {
        double sum = 0.0;
        for (int k = 0; k < n; k++)
            sum += m->acts.losses[(int64_t)b * n + k];
        loss[b] = sum / n;
    }
}
