/*
 * tree.c - the fixed binary tree over leaves, and who owns which shard; see comm.h and tree.h.
 */
#include "comm/tree.h"

#include <limits.h>
#include <stdbool.h>

#include "comm/comm.h"

#define ABSENT INT_MIN

/* The span of the root: the least power of two that covers all leaves. */
static int64_t root_span(int leaves)
{
    int64_t span = 1;
    while (span < leaves)
        span *= 2;
    return span;
}

static bool any_present(const struct reduce_tree *tree, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i++) {
        if (tree->present[i])
            return true;
    }
    return false;
}

static int add_top_nodes(const struct reduce_tree *tree, int rank, int64_t first, int64_t span,
                         struct reduce_node *nodes, int n)
{
    int64_t begin = tree->first[rank], end = begin + tree->count[rank];
    int64_t last = first + span < tree->leaves ? first + span : tree->leaves;
    if (last <= begin || first >= end)
        return n;
    if (first >= begin && last <= end) {
        if (any_present(tree, first, last))
            nodes[n++] = (struct reduce_node){(int)first, (int)(last - first)};
        return n;
    }
    n = add_top_nodes(tree, rank, first, span / 2, nodes, n);
    return add_top_nodes(tree, rank, first + span / 2, span / 2, nodes, n);
}

int reduce_top_nodes(const struct reduce_tree *tree, int rank, struct reduce_node *nodes)
{
    return tree->count[rank] > 0 ? add_top_nodes(tree, rank, 0, root_span(tree->leaves), nodes, 0)
                                 : 0;
}

enum status tree_check(const struct reduce_tree *tree, int ranks)
{
    int64_t covered = 0; /* leaves before this one are in a run or absent */
    if (tree->ranks != ranks || tree->leaves < 0)
        return status_fail(STATUS_ARG,
                           "a reduction over %d leaves and %d ranks was asked of %d ranks",
                           tree->leaves, tree->ranks, ranks);
    for (int r = 0; r <= ranks; r++) {
        int64_t first = r < ranks ? tree->first[r] : tree->leaves,
                count = r < ranks ? tree->count[r] : 0;
        if (r < ranks && count == 0)
            continue;
        if (count < 0 || first < covered || first + count > tree->leaves)
            return status_fail(
                STATUS_ARG,
                "rank %d has leaves [%lld, %lld) of %d, wanted a run behind the previous rank's, "
                "which ends at %lld",
                r, (long long)first, (long long)(first + count), tree->leaves, (long long)covered);
        if (any_present(tree, covered, first))
            return status_fail(STATUS_ARG, "a present leaf in [%lld, %lld) belongs to no rank",
                               (long long)covered, (long long)first);
        covered = first + count;
    }
    return STATUS_OK;
}

struct plan {
    const struct source *source;
    size_t sources, next; /* sources before `next` are used */
    struct addition *addition;
    size_t additions;
    int leaves, scratch;
};

/*
 * The additions of node [first, first + span), with intermediate sums in scratch vectors from
 * `scratch` on. The node is met in leaf order, as the sources are sorted, so only the next source
 * can be this node or lie inside it.
 */
static int plan_node(struct plan *plan, int64_t first, int64_t span, int scratch)
{
    int64_t end = first + span < plan->leaves ? first + span : plan->leaves;
    if (plan->next == plan->sources || plan->source[plan->next].first >= end)
        return ABSENT;
    const struct source *source = &plan->source[plan->next];
    if (source->first == first && source->first + source->count == end)
        return (int)plan->next++;
    int left = plan_node(plan, first, span / 2, scratch);
    int right = plan_node(plan, first + span / 2, span / 2, scratch + (left == -1 - scratch));
    if (left == ABSENT || right == ABSENT)
        return left == ABSENT ? right : left;
    plan->addition[plan->additions++] = (struct addition){left, right, -1 - scratch};
    if (plan->additions + 1 < plan->sources && scratch + 1 > plan->scratch) /* not the last */
        plan->scratch = scratch + 1;
    return -1 - scratch;
}

size_t tree_additions(int leaves, const struct source *source, size_t sources,
                      struct addition *addition, int *scratch)
{
    struct plan plan = {source, sources, 0, addition, 0, leaves, 0};
    (void)plan_node(&plan, 0, root_span(leaves), 0);
    *scratch = plan.scratch;
    return plan.additions;
}

void shard_range(int64_t low, int64_t high, int64_t block, int rank, int ranks, int64_t *begin,
                 int64_t *end)
{
    int64_t first = low / block, blocks = high > low ? (high - 1) / block + 1 - first : 0;
    int64_t each = blocks / ranks, more = blocks % ranks;
    int64_t from = first + rank * each + (rank < more ? rank : more),
            to = from + each + (rank < more ? 1 : 0);
    *begin = from * block > low ? from * block : low;
    *end = to * block < high ? to * block : high;
    if (*begin > high)
        *begin = high;
    if (*end < *begin)
        *end = *begin;
}
