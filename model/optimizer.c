/*
 * optimizer.c - AdamW on owned ranges; see optimizer.h.
 *
 * The flat space is cut once, at open, into segments that lie in one owned range and one parameter;
 * a step only fills in the rates and hands the list to the kernel. State is packed: range after
 * range, without what other ranks own.
 */
#include "model/optimizer.h"

#include <math.h>

#include "base/mem.h"

enum { GROUPS = 4 };

struct group {
    const char *name;
    bool head, decays;
};

static const struct group groups[GROUPS] = {
    {"encoder, decays", false, true},
    {"encoder, no decay", false, false},
    {"head, decays", true, true},
    {"head, no decay", true, false},
};

struct optimizer {
    struct optimizer_opts opts;
    struct range *owned; /* copy of opts.owned */
    int64_t *state_at;   /* (ranges) where each owned range begins in m and v */
    struct adamw_segment *segments;
    int *segment_group;
    int count;
    float *m, *v; /* device */
    int64_t steps;
};

static bool belongs(const struct group *g, const struct param *p)
{
    bool decays = p->role == PARAM_WEIGHT || p->role == PARAM_EMBEDDING;
    bool plain = p->role == PARAM_BIAS || p->role == PARAM_NORM;
    bool head = p->part == PART_HEAD;
    bool encoder = p->part == PART_EMBEDDINGS || p->part == PART_LAYER || p->part == PART_POOLER;
    return (g->head ? head : encoder) && (g->decays ? decays : plain);
}

static double group_lr(const struct optimizer_opts *opts, int g)
{
    return groups[g].head ? opts->head_lr : opts->lr;
}

static double group_decay(const struct optimizer_opts *opts, int g)
{
    if (!groups[g].decays)
        return 0;
    return groups[g].head ? opts->head_weight_decay : opts->weight_decay;
}

/* The group of each parameter; fails unless every parameter lies in exactly one and no two share an
 * element. */
static enum status partition(const struct param_table *params, int *group_of)
{
    int64_t end = 0, used = 0;
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->params[i];
        int found = 0;
        for (int g = 0; g < GROUPS; g++) {
            if (belongs(&groups[g], p)) {
                group_of[i] = g;
                found++;
            }
        }
        if (found != 1)
            return status_fail(STATUS_INTERNAL, "parameter %s is in %d optimizer groups, wanted 1",
                               p->name, found);
        if (p->offset < end || p->elements < 1 || p->offset + p->elements > params->total)
            return status_fail(STATUS_INTERNAL,
                               "parameter %s takes elements %lld to %lld, wanted %lld to %lld",
                               p->name, (long long)p->offset, (long long)(p->offset + p->elements),
                               (long long)end, (long long)params->total);
        end = p->offset + p->elements;
        used += p->elements;
    }
    if (used != params->used)
        return status_fail(STATUS_INTERNAL,
                           "the optimizer groups hold %lld elements, the model %lld",
                           (long long)used, (long long)params->used);
    return STATUS_OK;
}

static enum status check_opts(const struct optimizer_opts *o)
{
    int64_t end = 0;
    for (int r = 0; r < o->ranges; r++) {
        if (o->owned[r].begin < end || o->owned[r].end < o->owned[r].begin ||
            o->owned[r].end > o->params->total)
            return status_fail(STATUS_ARG,
                               "owned range %d is [%lld, %lld), wanted it in [%lld, %lld]", r,
                               (long long)o->owned[r].begin, (long long)o->owned[r].end,
                               (long long)end, (long long)o->params->total);
        end = o->owned[r].end;
    }
    bool rates = o->lr >= 0 && o->head_lr >= 0 && o->weight_decay >= 0 && o->head_weight_decay >= 0;
    bool betas = o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1 && o->eps > 0;
    if (!rates || !betas ||
        !isfinite(o->lr + o->head_lr + o->weight_decay + o->head_weight_decay + o->eps))
        return status_fail(
            STATUS_ARG, "AdamW with lr %g, head lr %g, decay %g and %g, betas %g and %g, eps %g",
            o->lr, o->head_lr, o->weight_decay, o->head_weight_decay, o->beta1, o->beta2, o->eps);
    return STATUS_OK;
}

/* Both lists ascend, so each intersection is met once; every step moves on in one of them. */
static void cut_segments(struct optimizer *z, const int *group_of)
{
    const struct param_table *params = z->opts.params;
    int r = 0, i = 0;
    while (r < z->opts.ranges && i < params->count) {
        const struct param *p = &params->params[i];
        const struct range *own = &z->owned[r];
        int64_t begin = p->offset > own->begin ? p->offset : own->begin;
        int64_t p_end = p->offset + p->elements, end = p_end < own->end ? p_end : own->end;
        if (begin < end) {
            struct adamw_segment *s = &z->segments[z->count];
            s->w = s->g = begin;
            s->state = z->state_at[r] + begin - own->begin;
            s->count = end - begin;
            s->weight_decay = (float)group_decay(&z->opts, group_of[i]);
            z->segment_group[z->count++] = group_of[i];
        }
        if (p_end <= own->end)
            i++;
        else
            r++;
    }
}

enum status optimizer_open(const struct optimizer_opts *opts, struct optimizer **out)
{
    enum status st = STATUS_OK;
    struct optimizer *z = NULL;
    int *group_of = NULL;
    *out = NULL;
    TRY(check_opts(opts));
    TRY_GOTO(fail, mem_alloc(1, sizeof *z, "the optimizer", &z));
    z->opts = *opts;
    size_t ranges = (size_t)opts->ranges, params = (size_t)opts->params->count;
    TRY_GOTO(fail, mem_alloc(params, sizeof *group_of, "the optimizer groups", &group_of));
    TRY_GOTO(fail, partition(opts->params, group_of));
    TRY_GOTO(fail, mem_alloc(ranges, sizeof *z->owned, "the owned ranges", &z->owned));
    TRY_GOTO(fail, mem_alloc(ranges, sizeof *z->state_at, "the owned ranges", &z->state_at));
    TRY_GOTO(fail, mem_alloc(ranges + params, sizeof *z->segments, "the optimizer segments",
                             &z->segments));
    TRY_GOTO(fail, mem_alloc(ranges + params, sizeof *z->segment_group, "the optimizer segments",
                             &z->segment_group));
    int64_t elements = 0;
    for (int r = 0; r < opts->ranges; r++) {
        z->owned[r] = opts->owned[r];
        z->state_at[r] = elements;
        elements += opts->owned[r].end - opts->owned[r].begin;
    }
    z->opts.owned = z->owned;
    size_t bytes = (size_t)elements * sizeof(float);
    TRY_GOTO(fail, device_alloc(opts->device, bytes, "AdamW's first moments", &z->m));
    TRY_GOTO(fail, device_alloc(opts->device, bytes, "AdamW's second moments", &z->v));
    cut_segments(z, group_of);
    mem_free(group_of);
    *out = z;
    return STATUS_OK;
fail:
    mem_free(group_of);
    optimizer_close(z);
    return st;
}

void optimizer_close(struct optimizer *z)
{
    if (z == NULL)
        return;
    device_free(z->opts.device, z->m);
    device_free(z->opts.device, z->v);
    mem_free(z->segment_group);
    mem_free(z->segments);
    mem_free(z->state_at);
    mem_free(z->owned);
    mem_free(z);
}

int64_t optimizer_steps(const struct optimizer *z)
{
    return z->steps;
}

void optimizer_set_steps(struct optimizer *z, int64_t steps)
{
    z->steps = steps;
}

enum status optimizer_step(struct optimizer *z, float *weights, const float *gradient,
                           double factor, float clip)
{
    const struct optimizer_opts *o = &z->opts;
    for (int i = 0; i < z->count; i++)
        z->segments[i].lr = (float)(group_lr(o, z->segment_group[i]) * factor);
    /* The corrections are of the betas that the kernel uses: 1 - 0.999 and 1 - (float)0.999 differ
     * by 1.3e-5 of it. */
    const float beta1 = (float)o->beta1, beta2 = (float)o->beta2;
    const double step = (double)(z->steps + 1);
    const struct adamw_args args = {
        .weights = weights,
        .gradient = gradient,
        .m = z->m,
        .v = z->v,
        .beta1 = beta1,
        .beta2 = beta2,
        .eps = (float)o->eps,
        .clip = clip,
        .correction1 = 1.0 - pow((double)beta1, step),
        .correction2 = 1.0 - pow((double)beta2, step),
    };
    TRY(o->kernels->adamw(o->ctx, &args, z->segments, z->count));
    z->steps++;
    return STATUS_OK;
}

/* Run through the owned pieces of [first, first + count): copy from `in` to the state, or from the
 * state to `out`. */
static enum status move_state(const struct optimizer *z, int which, int64_t first, int64_t count,
                              float *out, const float *in)
{
    float *state = which == 0 ? z->m : z->v;
    int64_t at = first, end = first + count;
    if (which < 0 || which > 1 || count < 0)
        return status_fail(STATUS_ARG, "optimizer state %d, %lld elements", which,
                           (long long)count);
    for (int r = 0; r < z->opts.ranges && at < end; r++) {
        const struct range *own = &z->owned[r];
        if (at < own->begin || at >= own->end)
            continue;
        int64_t n = (end < own->end ? end : own->end) - at;
        float *place = state + z->state_at[r] + at - own->begin;
        size_t bytes = (size_t)n * sizeof(float);
        if (out != NULL)
            TRY(device_get(z->opts.device, out + (at - first), place, bytes));
        else
            TRY(device_put(z->opts.device, place, in + (at - first), bytes));
        at += n;
    }
    if (at < end)
        return status_fail(STATUS_ARG, "optimizer state of element %lld is not owned here",
                           (long long)at);
    return STATUS_OK;
}

enum status optimizer_get(const struct optimizer *z, int which, int64_t first, int64_t count,
                          float *out)
{
    return move_state(z, which, first, count, out, NULL);
}

enum status optimizer_put(struct optimizer *z, int which, int64_t first, int64_t count,
                          const float *in)
{
    return move_state(z, which, first, count, NULL, in);
}

enum status optimizer_describe(const struct param_table *params, const struct optimizer_opts *opts,
                               struct str *out)
{
    TRY(str_addf(out, "%-18s %8s %14s %12s %12s\n", "group", "tensors", "parameters", "lr",
                 "weight decay"));
    for (int g = 0; g < GROUPS; g++) {
        int tensors = 0;
        int64_t elements = 0;
        for (int i = 0; i < params->count; i++) {
            if (belongs(&groups[g], &params->params[i])) {
                tensors++;
                elements += params->params[i].elements;
            }
        }
        TRY(str_addf(out, "%-18s %8d %14lld %12g %12g\n", groups[g].name, tensors,
                     (long long)elements, group_lr(opts, g), group_decay(opts, g)));
    }
    return STATUS_OK;
}
