/*
 * tokenizer_trie.h - byte strings to numbers, walked byte by byte: vocabularies and added tokens.
 *
 * One hash table of edges (node, byte) -> node with linear probing: built in time linear in the
 * bytes whatever the vocabulary, one probe a byte when read. Read-only once built: any number of
 * threads may walk.
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
};

/* Set the number of a string (value >= 0), replacing the one it had. STATUS_NOMEM. */
NODISCARD enum status trie_insert(struct trie *trie, const char *bytes, size_t n, int32_t value);
void trie_release(struct trie *trie);

/* The node one byte further, or 0. The trie has at least one string, or node is 0. */
static inline uint32_t trie_next(const struct trie *trie, uint32_t node, unsigned char byte)
{
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

/* The node at the end of a string, or 0; the number of a string, or -1. Both are fine with an empty
 * trie. */
uint32_t trie_walk(const struct trie *trie, const char *bytes, size_t n);
int32_t trie_find(const struct trie *trie, const char *bytes, size_t n);

#endif
