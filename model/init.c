/*
 * init.c - weights drawn from the seed, as transformers draws them: normal(0, initializer_range),
 * norms one, biases zero; sines where positions are such.
 *
 * A number is named by the parameter's name and the element, so a model with another head, another
 * number of layers or another number of ranks has the same values where it has the same tensors.
 */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"
#include "model/model_impl.h"

/* Elements 2 i and 2 i + 1: Box and Muller's pair of normal numbers, in double and rounded once. */
static void normal_pair(uint64_t key, int64_t pair, double deviation, float out[2])
{
    const double tau = 6.28318530717958647692, unit = 0x1p-53;
    struct philox r = philox4x32(key, (uint32_t)pair, (uint32_t)((uint64_t)pair >> 32), 0, 0);
    uint64_t a = (uint64_t)r.v[1] << 32 | r.v[0], b = (uint64_t)r.v[3] << 32 | r.v[2];
    double u = ((double)(a >> 11) + 1.0) * unit; /* (0, 1] */
    double angle = tau * ((double)(b >> 11) * unit), radius = deviation * sqrt(-2.0 * log(u));
    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

/* DistilBERT's create_sinusoidal_embeddings() in transformers: sines of even channels, cosines of
 * odd ones (Vaswani et al., Attention is all you need, 2017, section 3.5). */
static void draw_waves(const struct param *p, float *out)
{
    const int64_t channels = p->shape[1];
    for (int64_t i = 0; i < p->elements; i++) {
        const int64_t position = i / channels, c = i % channels;
        const double angle = (double)position /
                             pow(10000.0, 2.0 * (double)(c / 2) / (double)channels);
        out[i] = (float)(c % 2 == 0 ? sin(angle) : cos(angle));
    }
}

static void draw(const struct model *m, const struct param *p, uint64_t seed, float *out)
{
    if (p->fixed) {
        draw_waves(p, out);
        return;
    }
    if (p->role == PARAM_BIAS)
        return; /* the memory is zero */
    if (p->role == PARAM_NORM) {
        for (int64_t i = 0; i < p->elements; i++)
            out[i] = 1.0f;
        return;
    }
    const uint64_t key = random_key(seed, RANDOM_INIT, hash_bytes(p->name, strlen(p->name)), 0);
    const double deviation = (double)m->opts.encoder.initializer_range;
    const int64_t pairs = (p->elements + 1) / 2;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < pairs; i++) {
        float pair[2];
        normal_pair(key, i, deviation, pair);
        out[2 * i] = pair[0];
        if (2 * i + 1 < p->elements)
            out[2 * i + 1] = pair[1];
    }
    const int pad = m->opts.encoder.pad_id;
    if (p == param_at(&m->params, &m->index, SLOT_WORD, 0) && pad >= 0 && pad < p->shape[0])
        memset(out + (int64_t)pad * p->shape[1], 0, (size_t)p->shape[1] * sizeof(float));
}

enum status model_init(struct model *m, int first, int count, uint64_t seed)
{
    if (first < 0 || count < 0 || first > m->params.count - count)
        return status_fail(STATUS_ARG, "parameters %d to %d of %d", first, first + count,
                           m->params.count);
    for (int i = first; i < first + count; i++) {
        const struct param *p = &m->params.params[i];
        float *values;
        TRY(mem_alloc((size_t)p->elements, sizeof *values, p->name, &values));
        draw(m, p, seed, values);
        enum status st = device_put(m->opts.device, m->weights + p->offset, values,
                                    (size_t)p->elements * sizeof(float));
        mem_free(values);
        TRY(st);
    }
    return model_weights_changed(m);
}
