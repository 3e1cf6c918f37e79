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

/* ---- Freezing ---- */

#define BLOCK 256u      /* units; a node's children are in the block of its base */
#define OPEN_BLOCKS 16u /* the last ones, where free units are looked for */
#define MOST_TRIES 256  /* free units that do not fit; then a new block does */
#define MOST_UNITS (1u << (32 - TRIE_LABEL_BITS))

/* Children of the old trie's nodes: those of node i are byte[first[i]..first[i + 1]), and to. */
struct children {
    uint32_t *first; /* owned; (nodes + 1) */
    uint32_t *to;    /* owned */
    unsigned char *byte; /* owned */
};

struct frozen {
    struct trie_unit *units; /* owned; whole blocks */
    struct room {
        uint32_t before, behind; /* the next free units of the open blocks; 0: none */
        bool is_base;            /* this unit's number is the base of a node */
    } * room;                    /* owned; by unit. room[0] is the list's two ends */
    size_t count, unit_capacity, room_capacity;
};

static enum status list_children(const struct trie *trie, struct children *c)
{
    size_t edges = trie->nodes - TRIE_ROOT - 1, table = (size_t)1 << (64 - trie->shift);
    TRY(mem_alloc(trie->nodes + 2, sizeof *c->first, "a vocabulary's nodes", &c->first));
    TRY(mem_alloc_raw(edges, sizeof *c->to, "a vocabulary's nodes", &c->to));
    TRY(mem_alloc_raw(edges, 1, "a vocabulary's nodes", &c->byte));
    for (size_t i = 0; i < table; i++) /* counts, two places further than their sums will be */
        if (trie->edges[i] != 0)
            c->first[(trie->edges[i] >> (TRIE_NODE_BITS + 8)) + 2]++;
    for (size_t i = 2; i <= trie->nodes; i++)
        c->first[i] += c->first[i - 1];
    for (size_t i = 0; i < table; i++) {
        if (trie->edges[i] == 0)
            continue;
        uint32_t at = c->first[(trie->edges[i] >> (TRIE_NODE_BITS + 8)) + 1]++;
        c->byte[at] = (unsigned char)(trie->edges[i] >> TRIE_NODE_BITS);
        c->to[at] = (uint32_t)trie->edges[i] & ((1u << TRIE_NODE_BITS) - 1);
    }
    return STATUS_OK;
}

static bool is_free(const struct frozen *f, size_t unit)
{
    return (f->units[unit].way & TRIE_NO_LABEL) != 0;
}

static void take_out(struct frozen *f, uint32_t unit)
{
    f->room[f->room[unit].before].behind = f->room[unit].behind;
    f->room[f->room[unit].behind].before = f->room[unit].before;
}

/* One block more, whose units are free; what is left of the one that is no longer open stays empty. */
static enum status add_block(struct frozen *f)
{
    size_t begin = f->count;
    TRY(mem_grow(&f->units, &f->unit_capacity, begin + BLOCK, sizeof *f->units,
                 "a vocabulary's nodes"));
    TRY(mem_grow(&f->room, &f->room_capacity, begin + BLOCK, sizeof *f->room,
                 "a vocabulary's nodes"));
    f->count += BLOCK;
    for (size_t i = begin; i < f->count; i++) {
        f->units[i] = (struct trie_unit){TRIE_NO_LABEL, -1};
        f->room[i] = (struct room){0, 0, false};
        if (begin == 0)
            continue; /* block 0 is not given away */
        f->room[i].before = f->room[0].before;
        f->room[f->room[0].before].behind = (uint32_t)i;
        f->room[0].before = (uint32_t)i;
    }
    if (f->count <= OPEN_BLOCKS * BLOCK)
        return STATUS_OK;
    size_t closed = f->count - (OPEN_BLOCKS + 1) * BLOCK;
    for (size_t i = closed; closed > 0 && i < closed + BLOCK; i++)
        if (is_free(f, i))
            take_out(f, (uint32_t)i);
    return STATUS_OK;
}

/* A base from which the units of n > 0 bytes are free. */
static enum status find_base(struct frozen *f, const unsigned char *byte, size_t n, uint32_t *base)
{
    uint32_t unit = f->room[0].behind;
    for (int tries = 0; unit != 0 && tries < MOST_TRIES; tries++, unit = f->room[unit].behind) {
        size_t k = 1;
        *base = unit ^ byte[0];
        if (f->room[*base].is_base)
            continue;
        while (k < n && is_free(f, *base ^ byte[k]))
            k++;
        if (k == n)
            return STATUS_OK;
    }
    *base = (uint32_t)f->count;
    return add_block(f);
}

/*
 * Nodes in the order they were made in, parents first: so those of one string stand close together.
 * Block 0 is the root's alone: its other units are free for good, and the base of a node without
 * children leads there.
 */
static enum status place_nodes(const struct trie *trie, const struct children *c, struct frozen *f,
                               uint32_t *number)
{
    TRY(add_block(f));
    number[TRIE_ROOT] = TRIE_ROOT;
    f->units[TRIE_ROOT].value = trie->values[TRIE_ROOT];
    for (size_t node = TRIE_ROOT; node < trie->nodes; node++) {
        uint32_t first = c->first[node], n = c->first[node + 1] - first, base;
        if (n == 0)
            continue;
        TRY(find_base(f, c->byte + first, n, &base));
        if (f->count > MOST_UNITS)
            return STATUS_OK;
        f->room[base].is_base = true;
        f->units[number[node]].way |= base << TRIE_LABEL_BITS;
        for (uint32_t i = first; i < first + n; i++) {
            uint32_t unit = base ^ c->byte[i];
            take_out(f, unit);
            f->units[unit] = (struct trie_unit){c->byte[i], trie->values[c->to[i]]};
            number[c->to[i]] = unit;
        }
    }
    return STATUS_OK;
}

enum status trie_freeze(struct trie *trie)
{
    struct children c = {0};
    struct frozen f = {0};
    uint32_t *number = NULL;
    enum status st = STATUS_OK;
    if (trie->nodes <= TRIE_ROOT + 1 || trie->nodes > MOST_UNITS)
        return STATUS_OK;
    TRY_GOTO(out, list_children(trie, &c));
    TRY_GOTO(out, mem_alloc_raw(trie->nodes, sizeof *number, "a vocabulary's nodes", &number));
    TRY_GOTO(out, place_nodes(trie, &c, &f, number));
    if (f.count > MOST_UNITS)
        goto out; /* the hash table does it, too */
    mem_free(trie->edges);
    mem_free(trie->values);
    trie->edges = NULL;
    trie->values = NULL;
    trie->units = f.units;
    f.units = NULL;
out:
    mem_free(c.first);
    mem_free(c.to);
    mem_free(c.byte);
    mem_free(f.units);
    mem_free(f.room);
    mem_free(number);
    return st;
}

void trie_release(struct trie *trie)
{
    mem_free(trie->edges);
    mem_free(trie->values);
    mem_free(trie->units);
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
    return node == 0 ? -1 : trie_value(trie, node);
}
