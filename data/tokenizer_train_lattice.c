/*
 * tokenizer_train_lattice.c - the ways to make words of Unigram's pieces; see
 * tokenizer_train_parts.h.
 *
 * Training spends its time on looking up which pieces are in a word, and that on waiting for
 * memory: a million pieces do not fit a cache. So the words come sorted, and what was found in the
 * beginning that a word shares with the one before stays; the trie of pieces has its nodes by
 * depth, so that the upper ones, which are asked for most, stand close together; whether there is a
 * way on is seen from a table of one byte a node; and places of memory are asked for as soon as
 * they are known. All of training on 100 MB took 122 s so, and 161 s with a hash table of edges.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_train_parts.h"

/* ---- Pieces by their texts ---- */

/* The pieces below a node: those from from to to, which begin with the same depth bytes. */
struct below {
    uint32_t from, to, depth;
    uint32_t children; /* number of the first child */
};

struct build {
    const char *text;
    const struct train_piece *pieces;
    struct below *below; /* owned; (nodes) */
    size_t capacity, label_capacity;
};

static enum status add_node(struct piece_index *index, struct build *b, struct below below,
                            unsigned char label)
{
    if (index->count == UINT32_MAX)
        return status_fail(STATUS_NOMEM, "too many beginnings of pieces");
    TRY(mem_grow(&b->below, &b->capacity, (size_t)index->count + 1, sizeof *b->below, "pieces"));
    TRY(mem_grow(&index->labels, &b->label_capacity, (size_t)index->count + 1, 1, "pieces"));
    b->below[index->count] = below;
    index->labels[index->count++] = label;
    return STATUS_OK;
}

/* Cut what is below a node by the next byte; children get numbers in a row. */
static enum status add_children(struct piece_index *index, struct build *b, uint32_t node)
{
    struct below all = b->below[node];
    b->below[node].children = index->count;
    while (all.from < all.to) {
        const struct train_piece *p = &b->pieces[all.from];
        if (p->n == all.depth) { /* the node's own piece: shorter, so first */
            all.from++;
            continue;
        }
        char label = b->text[p->at + all.depth];
        struct below child = {all.from, all.from, all.depth + 1, 0};
        while (child.to < all.to && b->text[b->pieces[child.to].at + all.depth] == label)
            child.to++;
        TRY(add_node(index, b, child, (unsigned char)label));
        all.from = child.to;
    }
    return STATUS_OK;
}

enum status piece_index_build(struct piece_index *index, const char *text,
                              const struct train_piece *pieces, size_t count)
{
    struct build b = {.text = text, .pieces = pieces};
    enum status st = STATUS_OK;
    piece_index_release(index);
    TRY_GOTO(out, add_node(index, &b, (struct below){.to = (uint32_t)count}, 0));
    for (uint32_t node = 0; node < index->count; node++)
        TRY_GOTO(out, add_children(index, &b, node));
    TRY_GOTO(out, mem_alloc_raw(index->count, sizeof *index->nodes, "pieces", &index->nodes));
    for (uint32_t i = 0; i < index->count; i++) {
        const struct below *own = &b.below[i];
        bool ends = own->from < own->to && pieces[own->from].n == own->depth;
        index->nodes[i] =
            (struct piece_node){.value = PIECE_GONE,
                                .piece = ends ? (int32_t)own->from : -1,
                                .children = own->children,
                                .end = i + 1 < index->count ? own[1].children : index->count};
    }
out:
    mem_free(b.below);
    return st;
}

void piece_index_values(struct piece_index *index, const double *values)
{
#pragma omp parallel for
    for (uint32_t i = 0; i < index->count; i++)
        if (index->nodes[i].piece >= 0)
            index->nodes[i].value = values[index->nodes[i].piece];
}

void piece_index_release(struct piece_index *index)
{
    mem_free(index->nodes);
    mem_free(index->labels);
    *index = (struct piece_index){0};
}

/* ---- Ways through a word ---- */

/* A piece that ends at some byte of a word. */
struct edge {
    uint32_t begin;
    int32_t piece;
    double value;
};

/* What was read since begin is the beginning of pieces: the node. */
struct open_piece {
    uint32_t begin, node;
};

struct lattice {
    struct edge *edges; /* owned */
    size_t edge_capacity;
    struct open_piece *open; /* owned */
    size_t open_capacity;
    size_t ends[LATTICE_LONGEST + 1];  /* edges[ends[k - 1]..ends[k]) end behind k bytes */
    size_t opens[LATTICE_LONGEST + 2]; /* open[opens[k]..opens[k + 1]) are open behind k bytes */
    long double forward[LATTICE_LONGEST + 1], backward[LATTICE_LONGEST + 1];
    double best[LATTICE_LONGEST + 1];      /* the score of the best way to each place */
    struct edge last[LATTICE_LONGEST + 1]; /* its last piece */
};

enum status lattice_create(struct lattice **out)
{
    struct lattice *l;
    TRY(mem_alloc_raw(1, sizeof *l, "ways through a word", &l));
    l->edges = NULL;
    l->open = NULL;
    l->edge_capacity = l->open_capacity = 0;
    l->ends[0] = l->opens[0] = l->opens[1] = 0;
    l->forward[0] = 1;
    l->best[0] = 0;
    *out = l;
    return STATUS_OK;
}

void lattice_free(struct lattice *l)
{
    if (l == NULL)
        return;
    mem_free(l->edges);
    mem_free(l->open);
    mem_free(l);
}

/* The child of a node by a byte; 0: there is none. */
static inline uint32_t find_child(const struct piece_index *index, uint32_t node,
                                  unsigned char byte)
{
    uint32_t low = index->nodes[node].children, high = index->nodes[node].end;
    while (high - low > 8) {
        uint32_t middle = low + (high - low) / 2;
        if (index->labels[middle] > byte)
            high = middle;
        else
            low = middle;
    }
    for (; low < high; low++)
        if (index->labels[low] == byte)
            return low;
    return 0;
}

/* Find the pieces that end with byte number k, by where they begin, but not the piece without. */
static inline enum status find_edges(const struct piece_index *index, struct lattice *l, size_t k,
                                     unsigned char byte, const double *sums, int32_t without)
{
    size_t from = l->opens[k], to = l->opens[k + 1], opens = to, ends = l->ends[k];
    size_t most = to - from + 1;
    if (l->open_capacity < to + most)
        TRY(mem_grow(&l->open, &l->open_capacity, to + most, sizeof *l->open, "pieces in a word"));
    if (l->edge_capacity < ends + most)
        TRY(mem_grow(&l->edges, &l->edge_capacity, ends + most, sizeof *l->edges,
                     "pieces in a word"));
    for (size_t i = from; i < to; i++) {
        uint32_t child = find_child(index, l->open[i].node, byte);
        __builtin_prefetch(&index->nodes[child]);
        l->open[opens] = (struct open_piece){l->open[i].begin, child};
        opens += child != 0;
    }
    if ((byte & 0xC0) != 0x80) { /* a character begins */
        l->open[opens] = (struct open_piece){(uint32_t)k, find_child(index, 0, byte)};
        opens += l->open[opens].node != 0;
    }
    for (size_t i = to; i < opens; i++) {
        const struct piece_node *node = &index->nodes[l->open[i].node];
        __builtin_prefetch(&index->labels[node->children]);
        if (node->value == PIECE_GONE || node->piece == without)
            continue;
        if (sums != NULL)
            __builtin_prefetch(&sums[node->piece], 1);
        l->edges[ends++] = (struct edge){l->open[i].begin, node->piece, node->value};
    }
    l->opens[k + 2] = opens;
    l->ends[k + 1] = ends;
    return STATUS_OK;
}

/* The probability of all ways to the place behind byte number k. */
static inline void add_ways(struct lattice *l, size_t k)
{
    long double sum = 0;
    for (size_t i = l->ends[k]; i < l->ends[k + 1]; i++)
        sum += l->forward[l->edges[i].begin] * l->edges[i].value;
    l->forward[k + 1] = sum;
}

/* The best way to there; the first of equal ones, whose last piece is the longest. */
static inline void choose_way(struct lattice *l, size_t k)
{
    double best = -HUGE_VAL;
    for (size_t i = l->ends[k]; i < l->ends[k + 1]; i++) {
        const struct edge *e = &l->edges[i];
        double score = l->best[e->begin] + e->value;
        if (i > l->ends[k] && !(score > best))
            continue;
        best = score;
        l->last[k + 1] = *e;
    }
    l->best[k + 1] = best;
}

enum status lattice_read(struct lattice *l, const struct piece_index *index, const char *word,
                         size_t n, size_t same, const double *sums, int32_t without)
{
    for (size_t k = same; k < n; k++) {
        TRY(find_edges(index, l, k, (unsigned char)word[k], sums, without));
        if (sums != NULL)
            add_ways(l, k);
        else
            choose_way(l, k);
    }
    return STATUS_OK;
}

double lattice_expect(struct lattice *l, size_t n, double count, double *sums)
{
    memset(l->backward, 0, (n + 1) * sizeof *l->backward);
    l->backward[n] = 1;
    long double scale = count / l->forward[n];
    for (size_t end = n; end > 0; end--) {
        long double there = l->backward[end];
        for (size_t i = l->ends[end - 1]; i < l->ends[end]; i++) {
            const struct edge *e = &l->edges[i];
            long double behind = there * e->value;
            l->backward[e->begin] += behind;
            sums[e->piece] += (double)(l->forward[e->begin] * behind * scale);
        }
    }
    return (double)logl(l->forward[n]);
}

double lattice_best(const struct lattice *l, size_t n)
{
    return l->best[n];
}

int32_t lattice_last(const struct lattice *l, size_t *end)
{
    const struct edge *e = &l->last[*end];
    *end = e->begin;
    return e->piece;
}
