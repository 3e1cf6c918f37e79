/*
 * tokenizer_trie.h - byte strings to numbers, walked byte by byte: vocabularies and added tokens.
 *
 * One hash table of edges (node, byte) -> node with linear probing: built in time linear in the
 * bytes whatever the vocabulary, one probe a byte when read. trie_freeze() makes a double array of
 * it, which walks faster: a byte's step is one load out of an array of eight bytes a node. Read-only
 * once built: any number of threads may walk.
 */
#ifndef COHORT_DATA_TOKENIZER_TRIE_H
#define COHORT_DATA_TOKENIZER_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define TRIE_ROOT 1u
#define TRIE_NODE_BITS 28 /* two nodes and a byte share 64 bits */

/* Start with {0}. */
struct trie {
    uint64_t *edges; /* owned; from node << 36 | byte << 28 | to node; 0: free */
    int32_t *values; /* owned; by node; -1: no string ends here */
    unsigned shift;  /* 64 - log2 of the number of edges there is room for */
    size_t nodes, capacity;
    /* Frozen, in place of the edges and values: the child of a node by a byte is at the node's base ^
     * byte, if that unit has the byte for a label. */
    struct trie_unit {
        uint32_t way; /* base << TRIE_LABEL_BITS | label */
        int32_t value;
    } * units; /* owned */
};

#define TRIE_LABEL_BITS 9 /* a byte, or TRIE_NO_LABEL */
#define TRIE_NO_LABEL 0x100u

/* Set the number of a string (value >= 0), replacing the one it had; not in a frozen trie.
 * STATUS_NOMEM. */
NODISCARD enum status trie_insert(struct trie *trie, const char *bytes, size_t n, int32_t value);
/*
 * Nothing more is inserted: walk faster from here on. Nodes get other numbers. A trie of more than
 * some million nodes stays as it is. STATUS_NOMEM (the trie is as it was).
 */
NODISCARD enum status trie_freeze(struct trie *trie);
void trie_release(struct trie *trie);

/* The node one byte further, or 0. The trie has at least one string, or node is 0. */
static inline uint32_t trie_next(const struct trie *trie, uint32_t node, unsigned char byte)
{
    if (trie->units != NULL) {
        uint32_t to = trie->units[node].way >> TRIE_LABEL_BITS ^ byte;
        return (trie->units[to].way & ((1u << TRIE_LABEL_BITS) - 1)) == byte ? to : 0;
    }
    uint64_t key = (uint64_t)node << 8 | byte;
    uint64_t mask = UINT64_MAX >> trie->shift;
    uint64_t at = (key * 0x9E3779B97F4A7C15u) >> trie->shift;
    for (;;) {
        uint64_t edge = trie->edges[at];
        if (edge >> TRIE_NODE_BITS == key)
            return (uint32_t)edge & ((1u << TRIE_NODE_BITS) - 1);
        if (edge == 0)
            return 0;
        at = (at + 1) & mask;
    }
}

/* The number of the string that ends at a node other than 0, or -1. */
static inline int32_t trie_value(const struct trie *trie, uint32_t node)
{
    return trie->units != NULL ? trie->units[node].value : trie->values[node];
}

/* The node at the end of a string, or 0; the number of a string, or -1. Both are fine with an empty
 * trie. */
uint32_t trie_walk(const struct trie *trie, const char *bytes, size_t n);
int32_t trie_find(const struct trie *trie, const char *bytes, size_t n);

#endif
