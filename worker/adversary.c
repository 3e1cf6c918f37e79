/* adversary.c - see adversary.h. */
#include "worker/adversary.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/tensor_norms.h"

struct adversary {
    struct adversary_opts opts;
    const struct param_table *params;
    struct tensor_norms *norms;
    double *squares;   /* (2, pieces) of gradients and weights */
    double *norm;      /* (2, params) */
    float *kept;       /* owned weights, range after range */
    float *first;      /* owned gradient of the step */
    int64_t *range_at; /* (ranges) */
};

static double eps_of(const struct adversary *a)
{
    if (a->opts.eps > 0.0)
        return a->opts.eps;
    return a->opts.kind == CONFIG_ADVERSARIAL_FGM ? 1.0 : 0.01;
}

enum status adversary_open(const struct adversary_opts *opts, struct adversary **out)
{
    static const char *const what = "adversarial training";
    const struct shards *shards = opts->shards;
    struct adversary *a;
    enum status st;
    int64_t elements = 0;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *a, what, &a));
    a->opts = *opts;
    a->params = model_params(opts->model);
    TRY_GOTO(fail, tensor_norms_open(a->params, opts->kernels, model_kernel_ctx(opts->model),
                                     shards->owned, shards->ranges, &a->norms));
    const size_t pieces = (size_t)tensor_norms_pieces(a->norms), params = (size_t)a->params->count;
    TRY_GOTO(fail, mem_alloc(2 * pieces, sizeof *a->squares, what, &a->squares));
    TRY_GOTO(fail, mem_alloc(2 * params, sizeof *a->norm, what, &a->norm));
    TRY_GOTO(fail, mem_alloc((size_t)shards->ranges, sizeof *a->range_at, what, &a->range_at));
    for (int r = 0; r < shards->ranges; r++) {
        a->range_at[r] = elements;
        elements += shards->owned[r].end - shards->owned[r].begin;
    }
    TRY_GOTO(fail, mem_alloc((size_t)elements, sizeof *a->kept, what, &a->kept));
    TRY_GOTO(fail, mem_alloc((size_t)elements, sizeof *a->first, what, &a->first));
    *out = a;
    return STATUS_OK;
fail:
    adversary_close(a);
    return st;
}

void adversary_close(struct adversary *a)
{
    if (a == NULL)
        return;
    tensor_norms_close(a->norms);
    mem_free(a->squares);
    mem_free(a->norm);
    mem_free(a->kept);
    mem_free(a->first);
    mem_free(a->range_at);
    mem_free(a);
}

/* Whether this parameter is moved. */
static bool is_moved(const struct adversary *a, int param)
{
    const struct param *p = &a->params->params[param];
    if (a->opts.kind == CONFIG_ADVERSARIAL_FGM)
        return param == 0; /* the word embeddings stand first in every family */
    return (p->role == PARAM_WEIGHT || p->role == PARAM_EMBEDDING) &&
           a->opts.trains(a->opts.trains_arg, p);
}

/* The owned elements of a parameter. */
static void move_param(struct adversary *a, int param, float *weights)
{
    const struct shards *shards = a->opts.shards;
    const struct param *p = &a->params->params[param];
    const double g_norm = a->norm[param], w_norm = a->norm[a->params->count + param],
                 eps = eps_of(a);
    const bool fgm = a->opts.kind == CONFIG_ADVERSARIAL_FGM;
    const double scale = (fgm ? eps : a->opts.rate * w_norm) / g_norm;
    for (int r = 0; r < shards->ranges; r++) {
        const struct range *own = &shards->owned[r];
        const int64_t begin = own->begin > p->offset ? own->begin : p->offset,
                      end = own->end < p->offset + p->elements ? own->end : p->offset + p->elements;
        const float *g = a->first + a->range_at[r] - own->begin;
#pragma omp parallel for schedule(static)
        for (int64_t i = begin; i < end; i++) {
            const double w = (double)weights[i], room = eps * fabs(w), step = scale * (double)g[i];
            weights[i] = (float)(fgm ? w + step : w + fmin(fmax(step, -room), room));
        }
    }
}

enum status adversary_move(struct adversary *a, struct comm *group, const float *gradient,
                           bool *moved)
{
    const struct shards *shards = a->opts.shards;
    const int pieces = tensor_norms_pieces(a->norms), params = a->params->count;
    float *weights = model_weights(a->opts.model);
    enum status st = tensor_norms_squares(a->norms, gradient, a->squares);
    *moved = false;
    if (st == STATUS_OK)
        st = tensor_norms_squares(a->norms, weights, a->squares + pieces);
    TRY(comm_agree(group, st));
    TRY(comm_max_double(group, a->squares, 2 * pieces));
    tensor_norms_sum(a->norms, a->squares, a->norm);
    tensor_norms_sum(a->norms, a->squares + pieces, a->norm + params);
    for (int i = 0; i < params; i++)
        if (!isfinite(a->norm[i]))
            return STATUS_OK;
    for (int r = 0; r < shards->ranges; r++) {
        const struct range *own = &shards->owned[r];
        const size_t bytes = (size_t)(own->end - own->begin) * sizeof(float);
        memcpy(a->kept + a->range_at[r], weights + own->begin, bytes);
        memcpy(a->first + a->range_at[r], gradient + own->begin, bytes);
    }
    for (int i = 0; i < params; i++) {
        if (!is_moved(a, i) || !(a->norm[i] > 0.0))
            continue;
        move_param(a, i, weights);
        *moved = true;
    }
    return STATUS_OK;
}

void adversary_return(struct adversary *a, float *gradient)
{
    const struct shards *shards = a->opts.shards;
    float *weights = model_weights(a->opts.model);
    for (int r = 0; r < shards->ranges; r++) {
        const struct range *own = &shards->owned[r];
        const int64_t n = own->end - own->begin;
        const float *first = a->first + a->range_at[r];
        float *g = gradient + own->begin;
        memcpy(weights + own->begin, a->kept + a->range_at[r], (size_t)n * sizeof *weights);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++)
            g[i] = first[i] + g[i];
    }
}
