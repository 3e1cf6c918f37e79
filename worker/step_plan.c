/*
 * step_plan.c - see step_plan.h.
 *
 * The stack holds tree nodes from left to right. Every leaf of the run is pushed, present or not;
 * after each push the top node is joined with its left sibling while it is a right child and the
 * sibling lies inside the run. Joining two present nodes is a merge of buffers; joining with an
 * absent one only renames. A run that reaches the last leaf goes on with absent leaves up to the
 * next power of two, which closes the nodes that the tree cuts off there.
 */
#include "worker/step_plan.h"

#include <string.h>

#include "base/mem.h"

struct node {
    int level, index;
    int buffer; /* -1: absent */
};

/* Grow a plain array to count elements, contents not kept; on failure it is NULL with capacity 0.
 */
static enum status make_room(void *array, int *capacity, int count, size_t size)
{
    void *old, *none = NULL;
    if (count <= *capacity)
        return STATUS_OK;
    memcpy(&old, array, sizeof old);
    mem_free(old);
    memcpy(array, &none, sizeof none);
    *capacity = 0;
    TRY(mem_alloc_raw((size_t)count, size, "a step's plan", array));
    *capacity = count;
    return STATUS_OK;
}

static int lowest_free(const struct node *stack, int depth)
{
    for (int b = 0;; b++) {
        bool used = false;
        for (int i = 0; i < depth; i++)
            used = used || stack[i].buffer == b;
        if (!used)
            return b;
    }
}

struct merge_sink {
    int32_t *to, *from;
    int count;
};

/* Push leaf (buffer or -1) and join siblings inside a run that begins at leaf `begin`. */
static int push_leaf(struct node *stack, int depth, int leaf, int buffer, int begin,
                     struct merge_sink *merges)
{
    stack[depth++] = (struct node){0, leaf, buffer};
    while (depth >= 2) {
        struct node *top = &stack[depth - 1], *left = &stack[depth - 2];
        if (top->index % 2 == 0 || ((top->index - 1) << top->level) < begin)
            break;
        if (left->buffer < 0) {
            left->buffer = top->buffer;
        } else if (top->buffer >= 0 && merges != NULL) {
            merges->to[merges->count] = left->buffer;
            merges->from[merges->count++] = top->buffer;
        }
        left->level++;
        left->index /= 2;
        depth--;
    }
    return depth;
}

static int closed_end(int leaves, int end)
{
    int full = 1;
    if (end < leaves)
        return end;
    while (full < leaves)
        full *= 2;
    return full;
}

int step_plan_buffers(const struct step_opts *opts)
{
    struct node stack[64];
    int first, count, depth = 0, most = 1;
    plan_grains_of_rank(opts->leaves, opts->rank, opts->ranks, &first, &count);
    for (int leaf = first; leaf < first + count; leaf++) {
        int buffer = lowest_free(stack, depth);
        most = buffer + 1 > most ? buffer + 1 : most;
        depth = push_leaf(stack, depth, leaf, buffer, first, NULL);
    }
    return most;
}

static enum status plan_ranks(struct step_plan *plan, const struct step_opts *opts)
{
    if (opts->ranks > plan->rank_capacity_) {
        int capacity = 0;
        plan->rank_capacity_ = 0; /* of both arrays: none, should the first fail */
        TRY(make_room(&plan->first, &capacity, opts->ranks, sizeof *plan->first));
        TRY(make_room(&plan->count, &plan->rank_capacity_, opts->ranks, sizeof *plan->count));
    }
    TRY(make_room(&plan->present, &plan->leaf_capacity_, opts->leaves, sizeof *plan->present));
    for (int r = 0; r < opts->ranks; r++)
        plan_grains_of_rank(opts->leaves, r, opts->ranks, &plan->first[r], &plan->count[r]);
    for (int leaf = 0; leaf < opts->leaves; leaf++)
        plan->present[leaf] = plan->deal.grain_begin[leaf + 1] > plan->deal.grain_begin[leaf];
    plan->tree = (struct reduce_tree){.leaves = opts->leaves,
                                      .ranks = opts->ranks,
                                      .first = plan->first,
                                      .count = plan->count,
                                      .present = plan->present};
    return STATUS_OK;
}

static enum status plan_memory(struct step_plan *plan, int pieces, int leaves)
{
    int need =
        2 * (pieces + 1); /* token, row and merge_begin have one entry more per pass than pieces */
    if (need > plan->piece_capacity_) {
        int32_t **const arrays[] = {&plan->token_, &plan->row_, &plan->to_, &plan->merge_begin_};
        plan->piece_capacity_ = 0;
        for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
            int capacity = 0;
            TRY(make_room(arrays[i], &capacity, need, sizeof **arrays[i]));
        }
        TRY(make_room(&plan->add_, &plan->piece_capacity_, need, sizeof *plan->add_));
    }
    if (leaves + 1 > plan->merge_capacity_) {
        int capacity = 0;
        plan->merge_capacity_ = 0;
        TRY(make_room(&plan->merge_to_, &capacity, leaves + 1, sizeof *plan->merge_to_));
        TRY(make_room(&plan->merge_from_, &plan->merge_capacity_, leaves + 1,
                      sizeof *plan->merge_from_));
    }
    TRY(make_room(&plan->pass, &plan->pass_capacity_, pieces + 1, sizeof *plan->pass));
    return STATUS_OK;
}

/* Writing position while passes are laid out: entries of pass p begin at `entry` of the shared
 * arrays. */
struct layout {
    struct step_plan *plan;
    struct step_pass *pass; /* the open one, NULL before the first */
    int entry; /* next free entry of token_, row_, merge_begin_; to_ and add_ run beside them */
    struct merge_sink merges;
};

static void open_pass(struct layout *at, int first)
{
    struct step_plan *plan = at->plan;
    at->entry += at->pass == NULL ? 0 : at->pass->cut.pieces + 1;
    at->pass = &plan->pass[plan->passes++];
    *at->pass = (struct step_pass){.first = first};
    at->pass->cut = (struct grad_cut){.token = plan->token_ + at->entry,
                                      .row = plan->row_ + at->entry,
                                      .to = plan->to_ + at->entry,
                                      .add = plan->add_ + at->entry,
                                      .merge_begin = plan->merge_begin_ + at->entry,
                                      .merge_to = plan->merge_to_,
                                      .merge_from = plan->merge_from_};
    plan->token_[at->entry] = 0;
    plan->row_[at->entry] = 0;
    plan->merge_begin_[at->entry] = at->merges.count;
}

static void add_piece(struct layout *at, int rows, int64_t tokens, int buffer, bool add)
{
    struct step_plan *plan = at->plan;
    int i = at->entry + at->pass->cut.pieces;
    plan->to_[i] = buffer;
    plan->add_[i] = add;
    at->pass->rows += rows;
    at->pass->tokens += tokens;
    plan->token_[i + 1] = (int32_t)at->pass->tokens;
    plan->row_[i + 1] = at->pass->rows;
    plan->merge_begin_[i + 1] = at->merges.count;
    at->pass->cut.pieces++;
}

enum status step_plan_make(struct step_plan *plan, const struct step_opts *opts,
                           const int32_t *length, int rows)
{
    struct node stack[64];
    int first, count, depth = 0;
    TRY(batch_plan(&plan->deal, length, rows, opts->leaves));
    TRY(plan_ranks(plan, opts));
    plan_grains_of_rank(opts->leaves, opts->rank, opts->ranks, &first, &count);

    const int32_t *grain = plan->deal.grain_begin;
    plan->own_rows = grain[first + count] - grain[first];
    plan->order = plan->deal.position + grain[first];
    plan->own_tokens = 0;
    plan->passes = 0;
    const bool splits = opts->split || opts->cut_long;
    TRY(plan_memory(plan, splits ? plan->own_rows + count + 1 : count + 1, opts->leaves));

    struct layout at = {.plan = plan, .merges = {plan->merge_to_, plan->merge_from_, 0}};
    int row = 0; /* of own rows */
    int end = closed_end(opts->leaves, first + count);
    for (int leaf = first; count > 0 && leaf < end; leaf++) {
        int leaf_rows = leaf < opts->leaves ? grain[leaf + 1] - grain[leaf] : 0;
        int buffer = leaf_rows > 0 ? lowest_free(stack, depth) : -1;
        bool added = false, split = opts->split;
        if (leaf_rows > 0 && opts->cut_long && plan->deal.grain_tokens[leaf] > opts->micro_tokens)
            split = true;
        while (leaf_rows > 0) {
            int take = split ? 0 : leaf_rows;
            int64_t tokens = split ? 0 : plan->deal.grain_tokens[leaf];
            int64_t room = at.pass == NULL ? 0 : opts->micro_tokens - at.pass->tokens;
            if (split) { /* as many rows as fit; at least one in a fresh pass */
                room = opts->micro_tokens;
                while (take < leaf_rows &&
                       (take == 0 || tokens + length[plan->order[row + take]] <= room))
                    tokens += length[plan->order[row + take++]];
            }
            if (at.pass == NULL || split || tokens > room)
                open_pass(&at, row);
            add_piece(&at, take, tokens, buffer, added);
            added = true;
            row += take;
            leaf_rows -= take;
            plan->own_tokens += tokens;
        }
        depth = push_leaf(stack, depth, leaf, buffer, first, &at.merges);
        if (at.pass != NULL) /* merges belong to the last piece that was laid out */
            plan->merge_begin_[at.entry + at.pass->cut.pieces] = at.merges.count;
    }
    plan->tops = 0;
    for (int i = 0; i < depth; i++) {
        if (stack[i].buffer >= 0)
            plan->top_buffer[plan->tops++] = stack[i].buffer;
    }
    struct reduce_node nodes[64];
    int wanted = reduce_top_nodes(&plan->tree, opts->rank, nodes);
    if (wanted != plan->tops)
        return status_fail(STATUS_INTERNAL,
                           "the step's plan has %d top nodes, the reduction wants %d", plan->tops,
                           wanted);
    return STATUS_OK;
}

void step_plan_release(struct step_plan *plan)
{
    batch_plan_release(&plan->deal);
    mem_free(plan->present);
    mem_free(plan->first);
    mem_free(plan->count);
    mem_free(plan->pass);
    mem_free(plan->token_);
    mem_free(plan->row_);
    mem_free(plan->to_);
    mem_free(plan->add_);
    mem_free(plan->merge_begin_);
    mem_free(plan->merge_to_);
    mem_free(plan->merge_from_);
    *plan = (struct step_plan){0};
}
