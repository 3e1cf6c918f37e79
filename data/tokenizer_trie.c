/* tokenizer_trie.c - see tokenizer_trie.h. */
#include "data/tokenizer_trie.h"

#include <string.h>

#include "base/mem.h"

#define MIN_BITS 6u

static void edge_put(struct trie *trie, uint64_t edge)
{
    uint64_t mask = UINT64_MAX >> trie->shift;
    uint64_t at = ((edge >> TRIE_NODE_BITS) * 0x9E3779B97F4A7C15u) >> trie->shift;
    while (trie->edges[at] != 0)
        at = (at + 1) & mask;
    trie->edges[at] = edge;
}

/* Room for one node more; edges (one less than nodes) fill at most half of their table, so probes
 * stay short. */
static enum status trie_reserve(struct trie *trie)
{
    if (trie->nodes + 2 >= (size_t)1 << TRIE_NODE_BITS)
        return status_fail(STATUS_NOMEM, "a vocabulary needs more than %u nodes",
                           1u << TRIE_NODE_BITS);
    TRY(mem_grow(&trie->values, &trie->capacity, trie->nodes + 2, sizeof *trie->values,
                 "a vocabulary's nodes"));
    unsigned bits = trie->edges == NULL ? 0 : 64 - trie->shift;
    if (trie->edges != NULL && trie->nodes * 2 < (size_t)1 << bits)
        return STATUS_OK;
    unsigned grown = bits < MIN_BITS ? MIN_BITS : bits + 1;
    uint64_t *old = trie->edges, *edges;
    TRY(mem_alloc((size_t)1 << grown, sizeof *edges, "a vocabulary's edges", &edges));
    trie->edges = edges;
    trie->shift = 64 - grown;
    for (size_t i = 0; old != NULL && i < (size_t)1 << bits; i++)
        if (old[i] != 0)
            edge_put(trie, old[i]);
    mem_free(old);
    return STATUS_OK;
}

enum status trie_insert(struct trie *trie, const char *bytes, size_t n, int32_t value)
{
    if (trie->nodes == 0) {
        TRY(trie_reserve(trie));
        trie->nodes = TRIE_ROOT + 1; /* node 0 means "no node" */
        trie->values[TRIE_ROOT] = -1;
    }
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        uint32_t next = trie_next(trie, node, byte);
        if (next == 0) {
            TRY(trie_reserve(trie));
            next = (uint32_t)trie->nodes++;
            trie->values[next] = -1;
            edge_put(trie, ((uint64_t)node << 8 | byte) << TRIE_NODE_BITS | next);
        }
        node = next;
    }
    trie->values[node] = value;
    return STATUS_OK;
}

void trie_release(struct trie *trie)
{
    mem_free(trie->edges);
    mem_free(trie->values);
    memset(trie, 0, sizeof *trie);
}

uint32_t trie_walk(const struct trie *trie, const char *bytes, size_t n)
{
    uint32_t node = trie->nodes == 0 ? 0 : TRIE_ROOT;
    for (size_t i = 0; node != 0 && i < n; i++)
        node = trie_next(trie, node, (unsigned char)bytes[i]);
    return node;
}

int32_t trie_find(const struct trie *trie, const char *bytes, size_t n)
{
    uint32_t node = trie_walk(trie, bytes, n);
    return node == 0 ? -1 : trie->values[node];
}
