/* trial_chunks.c - see trial_chunks.h. */
#include "worker/trial_chunks.h"

#include <string.h>

#include "base/mem.h"

struct chunk_step {
    const struct loss_opts *loss; /* borrowed */
    enum chunk_pooling pooling;
    int outputs;
    float *own;          /* (units of a batch, outputs) of this rank, in the order of its plan */
    float *each, *deach; /* (units of a batch, outputs) logits of all units, and gradients */
    float *text, *dtext; /* (rows of a batch, outputs) */
    int64_t *winner;     /* (rows of a batch, outputs) */
    double *row_loss;    /* (rows of a batch) */
    int64_t *received_begin; /* (ranks + 1) */
};

enum status chunk_step_open(const struct trial_opts *opts, const struct trial_plan *plan,
                            struct chunk_step **out)
{
    static const char *const what = "logits of chunks";
    const size_t outputs = (size_t)opts->task->outputs,
                 rows = (size_t)opts->config->train.batch_size,
                 units = (size_t)plan->max_batch_units;
    struct chunk_step *c;
    enum status st;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *c, what, &c));
    c->loss = &opts->task->loss;
    c->pooling = opts->chunks.pooling;
    c->outputs = opts->task->outputs;
    TRY_GOTO(fail, mem_alloc_raw(units * outputs, sizeof *c->own, what, &c->own));
    TRY_GOTO(fail, mem_alloc_raw(units * outputs, sizeof *c->each, what, &c->each));
    TRY_GOTO(fail, mem_alloc_raw(units * outputs, sizeof *c->deach, what, &c->deach));
    TRY_GOTO(fail, mem_alloc_raw(rows * outputs, sizeof *c->text, what, &c->text));
    TRY_GOTO(fail, mem_alloc_raw(rows * outputs, sizeof *c->dtext, what, &c->dtext));
    TRY_GOTO(fail, mem_alloc_raw(rows * outputs, sizeof *c->winner, what, &c->winner));
    TRY_GOTO(fail, mem_alloc(rows, sizeof *c->row_loss, what, &c->row_loss));
    TRY_GOTO(fail, mem_alloc((size_t)comm_size(opts->group) + 1, sizeof *c->received_begin, what,
                             &c->received_begin));
    *out = c;
    return STATUS_OK;
fail:
    chunk_step_close(c);
    return st;
}

void chunk_step_close(struct chunk_step *c)
{
    if (c == NULL)
        return;
    mem_free(c->own);
    mem_free(c->each);
    mem_free(c->deach);
    mem_free(c->text);
    mem_free(c->dtext);
    mem_free(c->winner);
    mem_free(c->row_loss);
    mem_free(c->received_begin);
    mem_free(c);
}

float *chunk_step_own(struct chunk_step *c, int i)
{
    return c->own + (size_t)i * (size_t)c->outputs;
}

const double *chunk_step_losses(const struct chunk_step *c)
{
    return c->row_loss;
}

enum status chunk_step_loss(struct chunk_step *c, struct comm *group, enum status st,
                            const struct step_plan *plan, const struct unit_list *units,
                            const struct loss_target *target, int rows, double divisor,
                            double scale)
{
    const size_t width = (size_t)c->outputs * sizeof(float);
    char *all = NULL;
    TRY(comm_agree(group, st));
    TRY(comm_allgather(group, c->own, plan->own_rows * (int64_t)width, &all, c->received_begin));
    /* Ranks have runs of leaves in order, and what they sent is in the order of the deal. */
    for (int i = 0; i < plan->deal.rows; i++)
        memcpy(c->each + (size_t)plan->deal.position[i] * (size_t)c->outputs,
               all + (size_t)i * width, width);
    mem_free(all);
    chunk_pool(c->pooling, units->begin, rows, c->outputs, c->each, c->text, c->winner);
    st = loss_compute(c->loss, target, rows, c->text, divisor, scale, c->row_loss, c->dtext);
    if (st == STATUS_OK) {
        chunk_pool_backward(c->pooling, units->begin, rows, c->outputs, c->dtext, c->winner,
                            c->deach);
        for (int i = 0; i < plan->own_rows; i++)
            memcpy(chunk_step_own(c, i), c->deach + (size_t)plan->order[i] * (size_t)c->outputs,
                   width);
    }
    return st; /* the same everywhere: all ranks computed the same */
}
