/*
 * optimizer.c - the rules on owned ranges; see optimizer.h.
 *
 * The flat space is cut once, at open, into segments that lie in one owned range and one parameter;
 * a step only fills in the rates and hands the list to the kernel. State is packed: range after
 * range, without what other ranks own.
 */
#include "model/optimizer.h"

#include <math.h>

#include "base/mem.h"
#include "model/tensor_norms.h"

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

/* Which states a rule has, and what they are called on disk; in the order of update_args. */
struct rule {
    const char *name;
    enum update_kind kind; /* unless AdamW */
    const char *state[UPDATE_STATES];
};

static const struct rule rules[] = {
    [OPTIMIZER_ADAMW] = {"AdamW", UPDATE_ADAM, {"m", "v"}},
    [OPTIMIZER_ADAM] = {"Adam", UPDATE_ADAM, {"m", "v"}},
    [OPTIMIZER_SGD] = {"SGD", UPDATE_SGD, {"momentum"}},
    [OPTIMIZER_ADAGRAD] = {"Adagrad", UPDATE_ADAGRAD, {"square"}},
    [OPTIMIZER_ADADELTA] = {"Adadelta", UPDATE_ADADELTA, {"square", "delta"}},
    [OPTIMIZER_RMSPROP] = {"RMSprop", UPDATE_RMSPROP, {"square", "momentum", "mean"}},
    [OPTIMIZER_LAMB] = {"LAMB", UPDATE_LAMB, {"m", "v"}},
};

const char *optimizer_name(enum optimizer_kind kind)
{
    return rules[kind].name;
}

static bool has_state(const struct optimizer_opts *o, int slot)
{
    if (rules[o->kind].state[slot] == NULL)
        return false;
    if (o->kind == OPTIMIZER_SGD || (o->kind == OPTIMIZER_RMSPROP && slot == 1))
        return o->beta1 > 0.0;
    return o->kind != OPTIMIZER_RMSPROP || slot == 0 || o->centered;
}

/* The slot of the which-th state; UPDATE_STATES: there are fewer. */
static int slot_of(const struct optimizer_opts *o, int which)
{
    int slot = 0;
    for (; slot < UPDATE_STATES; slot++) {
        if (has_state(o, slot) && which-- == 0)
            break;
    }
    return slot;
}

int optimizer_states(const struct optimizer_opts *o)
{
    int n = 0;
    while (slot_of(o, n) < UPDATE_STATES)
        n++;
    return n;
}

const char *optimizer_state_name(const struct optimizer_opts *o, int which)
{
    return rules[o->kind].state[slot_of(o, which)];
}

struct optimizer {
    struct optimizer_opts opts;
    struct range *owned; /* copy of opts.owned */
    int64_t *state_at;   /* (ranges) where each owned range begins in the states */
    struct adamw_segment *segments;
    int *segment_param;
    int *group_of; /* (params) */
    int count;
    struct range *frozen; /* owned elements that stay */
    int frozen_count;
    float *state[UPDATE_STATES]; /* device, NULL where there is none */
    struct tensor_norms *norms;  /* LAMB */
    double *squares;             /* (2, pieces) of weights and directions */
    double *norm;                /* (2, params) */
    int64_t steps;
};

static bool belongs(const struct group *g, const struct param *p)
{
    bool decays = p->role == PARAM_WEIGHT || p->role == PARAM_EMBEDDING;
    bool plain = p->role == PARAM_BIAS || p->role == PARAM_NORM;
    return g->head == p->outside && (g->decays ? decays : plain);
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

static bool is_frozen(const struct optimizer_opts *o, const struct param *p)
{
    return p->fixed || (o->freeze_embeddings && p->part == PART_EMBEDDINGS) ||
           (p->part == PART_LAYER && p->layer < o->freeze_layers);
}

bool optimizer_trains(const struct optimizer_opts *opts, const struct param *param)
{
    return !is_frozen(opts, param);
}

static int layers_of(const struct param_table *params)
{
    int layers = 0;
    for (int i = 0; i < params->count; i++)
        layers = params->params[i].layer >= layers ? params->params[i].layer + 1 : layers;
    return layers;
}

/* What a parameter's depth makes of its rate. */
static double depth_factor(const struct optimizer_opts *o, int layers, const struct param *p)
{
    if (o->layer_decay <= 0.0 || p->part == PART_HEAD || p->part == PART_POOLER)
        return 1.0;
    return pow(o->layer_decay,
               p->part == PART_EMBEDDINGS ? (double)layers + 1.0 : (double)(layers - p->layer));
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
        return status_fail(STATUS_ARG,
                           "%s with lr %g, head lr %g, decay %g and %g, betas %g and %g, eps %g",
                           rules[o->kind].name, o->lr, o->head_lr, o->weight_decay,
                           o->head_weight_decay, o->beta1, o->beta2, o->eps);
    if (!(o->layer_decay >= 0.0 && o->layer_decay <= 1.0) || o->freeze_layers < 0)
        return status_fail(STATUS_ARG, "layer decay %g, wanted 0 to 1; %d layers frozen",
                           o->layer_decay, o->freeze_layers);
    if (o->kind != OPTIMIZER_ADAMW && o->kernels->update == NULL)
        return status_fail(STATUS_CONFIG,
                           "the %s backend has no %s, wanted AdamW, or parallel.backend=cpu",
                           o->kernels->name, rules[o->kind].name);
    return STATUS_OK;
}

/* Both lists ascend, so each intersection is met once; every step moves on in one of them. */
static void cut_segments(struct optimizer *z)
{
    const struct param_table *params = z->opts.params;
    int r = 0, i = 0;
    while (r < z->opts.ranges && i < params->count) {
        const struct param *p = &params->params[i];
        const struct range *own = &z->owned[r];
        int64_t begin = p->offset > own->begin ? p->offset : own->begin;
        int64_t p_end = p->offset + p->elements, end = p_end < own->end ? p_end : own->end;
        if (begin < end && is_frozen(&z->opts, p)) {
            z->frozen[z->frozen_count++] = (struct range){begin, end};
        } else if (begin < end) {
            struct adamw_segment *s = &z->segments[z->count];
            s->w = s->g = begin;
            s->state = z->state_at[r] + begin - own->begin;
            s->count = end - begin;
            s->weight_decay = (float)group_decay(&z->opts, z->group_of[i]);
            z->segment_param[z->count++] = i;
        }
        if (p_end <= own->end)
            i++;
        else
            r++;
    }
}

static enum status open_norms(struct optimizer *z)
{
    const struct optimizer_opts *o = &z->opts;
    TRY(tensor_norms_open(o->params, o->kernels, o->ctx, z->owned, o->ranges, &z->norms));
    size_t pieces = (size_t)tensor_norms_pieces(z->norms), params = (size_t)o->params->count;
    TRY(mem_alloc(2 * pieces, sizeof *z->squares, "LAMB's norms", &z->squares));
    return mem_alloc(2 * params, sizeof *z->norm, "LAMB's norms", &z->norm);
}

enum status optimizer_open(const struct optimizer_opts *opts, struct optimizer **out)
{
    enum status st = STATUS_OK;
    struct optimizer *z = NULL;
    *out = NULL;
    TRY(check_opts(opts));
    TRY_GOTO(fail, mem_alloc(1, sizeof *z, "the optimizer", &z));
    z->opts = *opts;
    size_t ranges = (size_t)opts->ranges, params = (size_t)opts->params->count;
    size_t most = ranges + params;
    TRY_GOTO(fail, mem_alloc(params, sizeof *z->group_of, "the optimizer groups", &z->group_of));
    TRY_GOTO(fail, partition(opts->params, z->group_of));
    TRY_GOTO(fail, mem_alloc(ranges, sizeof *z->owned, "the owned ranges", &z->owned));
    TRY_GOTO(fail, mem_alloc(ranges, sizeof *z->state_at, "the owned ranges", &z->state_at));
    TRY_GOTO(fail, mem_alloc(most, sizeof *z->frozen, "the frozen ranges", &z->frozen));
    TRY_GOTO(fail, mem_alloc(most, sizeof *z->segments, "the optimizer segments", &z->segments));
    TRY_GOTO(fail, mem_alloc(most, sizeof *z->segment_param, "the optimizer segments",
                             &z->segment_param));
    int64_t elements = 0;
    for (int r = 0; r < opts->ranges; r++) {
        z->owned[r] = opts->owned[r];
        z->state_at[r] = elements;
        elements += opts->owned[r].end - opts->owned[r].begin;
    }
    z->opts.owned = z->owned;
    size_t bytes = (size_t)elements * sizeof(float);
    for (int slot = 0; slot < UPDATE_STATES; slot++) {
        if (has_state(opts, slot))
            TRY_GOTO(fail,
                     device_alloc(opts->device, bytes, "the optimizer's state", &z->state[slot]));
    }
    if (opts->kind == OPTIMIZER_LAMB)
        TRY_GOTO(fail, open_norms(z));
    cut_segments(z);
    *out = z;
    return STATUS_OK;
fail:
    optimizer_close(z);
    return st;
}

void optimizer_close(struct optimizer *z)
{
    if (z == NULL)
        return;
    for (int slot = 0; slot < UPDATE_STATES; slot++)
        device_free(z->opts.device, z->state[slot]);
    tensor_norms_close(z->norms);
    mem_free(z->squares);
    mem_free(z->norm);
    mem_free(z->frozen);
    mem_free(z->segment_param);
    mem_free(z->segments);
    mem_free(z->group_of);
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

enum status optimizer_mask(const struct optimizer *z, float *gradient)
{
    for (int i = 0; i < z->frozen_count; i++) {
        const struct range *r = &z->frozen[i];
        TRY(device_zero(z->opts.device, gradient + r->begin,
                        (size_t)(r->end - r->begin) * sizeof(float)));
    }
    return STATUS_OK;
}

static enum status adamw(struct optimizer *z, float *weights, const float *gradient, float clip)
{
    const struct optimizer_opts *o = &z->opts;
    /* The corrections are of the betas that the kernel uses: 1 - 0.999 and 1 - (float)0.999 differ
     * by 1.3e-5 of it. */
    const float beta1 = (float)o->beta1, beta2 = (float)o->beta2;
    const double step = (double)(z->steps + 1);
    const struct adamw_args args = {
        .weights = weights,
        .gradient = gradient,
        .m = z->state[0],
        .v = z->state[1],
        .beta1 = beta1,
        .beta2 = beta2,
        .eps = (float)o->eps,
        .clip = clip,
        .correction1 = 1.0 - pow((double)beta1, step),
        .correction2 = 1.0 - pow((double)beta2, step),
    };
    return o->kernels->adamw(o->ctx, &args, z->segments, z->count);
}

static enum status update(struct optimizer *z, float *weights, float *gradient, float clip)
{
    const struct optimizer_opts *o = &z->opts;
    const float beta1 = (float)o->beta1, beta2 = (float)o->beta2;
    const double step = (double)(z->steps + 1);
    const struct update_args args = {
        .kind = rules[o->kind].kind,
        .weights = weights,
        .gradient = gradient,
        .state = {z->state[0], z->state[1], z->state[2]},
        .beta1 = beta1,
        .beta2 = beta2,
        .eps = (float)o->eps,
        .nesterov = o->nesterov,
        .clip = clip,
        .correction1 = 1.0 - pow((double)beta1, step),
        .correction2 = 1.0 - pow((double)beta2, step),
    };
    return o->kernels->update(o->ctx, &args, z->segments, z->count);
}

/* LAMB's second half: along the directions that update() left in gradient, each tensor by the ratio
 * of its norm to its direction's. Tensors that do not decay (biases, norms) are not scaled, as in
 * the authors' code. */
static enum status step_by_norms(struct optimizer *z, float *weights, float *gradient,
                                 enum status st)
{
    const struct optimizer_opts *o = &z->opts;
    const int pieces = tensor_norms_pieces(z->norms), params = o->params->count;
    if (st == STATUS_OK)
        st = tensor_norms_squares(z->norms, weights, z->squares);
    if (st == STATUS_OK)
        st = tensor_norms_squares(z->norms, gradient, z->squares + pieces);
    TRY(o->combine == NULL ? st : o->combine(o->combine_arg, st, z->squares, 2 * pieces));
    tensor_norms_sum(z->norms, z->squares, z->norm);
    tensor_norms_sum(z->norms, z->squares + pieces, z->norm + params);
    for (int i = 0; i < z->count; i++) {
        int p = z->segment_param[i];
        double of_weight = z->norm[p], of_step = z->norm[params + p];
        if (groups[z->group_of[p]].decays && of_weight > 0.0 && of_step > 0.0)
            z->segments[i].lr = (float)((double)z->segments[i].lr * (of_weight / of_step));
        z->segments[i].weight_decay = 0.0f;
    }
    const struct update_args args = {.kind = UPDATE_SGD,
                                     .weights = weights,
                                     .gradient = gradient,
                                     .clip = 1.0f,
                                     .correction1 = 1.0,
                                     .correction2 = 1.0};
    return o->kernels->update(o->ctx, &args, z->segments, z->count);
}

enum status optimizer_step(struct optimizer *z, float *weights, float *gradient, double factor,
                           float clip)
{
    const struct optimizer_opts *o = &z->opts;
    const int layers = layers_of(o->params);
    for (int i = 0; i < z->count; i++) {
        const struct param *p = &o->params->params[z->segment_param[i]];
        const int g = z->group_of[z->segment_param[i]];
        z->segments[i].lr = (float)(group_lr(o, g) * depth_factor(o, layers, p) * factor);
        z->segments[i].weight_decay = (float)group_decay(o, g);
    }
    if (o->kind == OPTIMIZER_ADAMW) {
        TRY(adamw(z, weights, gradient, clip));
    } else {
        enum status st = update(z, weights, gradient, clip);
        if (o->kind == OPTIMIZER_LAMB) /* the other ranks wait for this one's norms */
            st = step_by_norms(z, weights, gradient, st);
        if (st != STATUS_OK)
            return st;
    }
    z->steps++;
    return STATUS_OK;
}

/* Run through the owned pieces of [first, first + count): copy from `in` to the state, or from the
 * state to `out`. */
static enum status move_state(const struct optimizer *z, int which, int64_t first, int64_t count,
                              float *out, const float *in)
{
    int64_t at = first, end = first + count;
    const int slot = which < 0 ? UPDATE_STATES : slot_of(&z->opts, which);
    if (slot == UPDATE_STATES || count < 0)
        return status_fail(STATUS_ARG, "optimizer state %d, %lld elements", which,
                           (long long)count);
    for (int r = 0; r < z->opts.ranges && at < end; r++) {
        const struct range *own = &z->owned[r];
        if (at < own->begin || at >= own->end)
            continue;
        int64_t n = (end < own->end ? end : own->end) - at;
        float *place = z->state[slot] + z->state_at[r] + at - own->begin;
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

/* One line for each depth whose rate differs, and what is frozen. */
static enum status describe_depths(const struct param_table *params, const struct optimizer_opts *o,
                                   struct str *out)
{
    const int layers = layers_of(params);
    int64_t frozen = 0;
    if (o->layer_decay > 0.0 && o->layer_decay < 1.0) {
        TRY(str_addf(out, "rates by depth: embeddings %g", pow(o->layer_decay, layers + 1.0)));
        for (int l = 0; l < layers; l++)
            TRY(str_addf(out, ", layer %d %g", l, pow(o->layer_decay, (double)(layers - l))));
        TRY(str_addf(out, " of the encoder's\n"));
    }
    for (int i = 0; i < params->count; i++)
        frozen += is_frozen(o, &params->params[i]) ? params->params[i].elements : 0;
    if (frozen > 0)
        TRY(str_addf(out, "frozen: %s%s%d of %d layers, %lld parameters\n",
                     o->freeze_embeddings ? "embeddings" : "", o->freeze_embeddings ? " and " : "",
                     o->freeze_layers < layers ? o->freeze_layers : layers, layers,
                     (long long)frozen));
    return STATUS_OK;
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
    return describe_depths(params, opts, out);
}
