/*
 * tokenizer_bpe.c - words into pieces by merging pairs, as tokenizers does; see tokenizer_parts.h.
 *
 * Pairs wait in a heap by rank and place. An entry whose pair has changed meanwhile is dropped when
 * its turn comes.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"

/* GPT-2's alphabet: printable Latin-1 stands for itself, the others for U+0100 and on. */
static bool stands_for_itself(unsigned c)
{
    return (c >= '!' && c <= '~') || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

uint32_t byte_letter(unsigned char byte)
{
    uint32_t c = 0x100;
    if (stands_for_itself(byte))
        return byte;
    for (unsigned b = 0; b < byte; b++)
        c += !stands_for_itself(b);
    return c;
}

int letter_byte(uint32_t c)
{
    if (c < 0x100)
        return stands_for_itself(c) ? (int)c : -1;
    for (unsigned b = 0, next = 0x100; b < 0x100; b++)
        if (!stands_for_itself(b) && next++ == c)
            return (int)b;
    return -1;
}

/* ---- Merges ---- */

static inline size_t merge_slot(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)((key ^ key >> 29) * 0x9E3779B97F4A7C15u >> bpe->shift);
}

static inline const struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    size_t mask = SIZE_MAX >> bpe->shift;
    if (bpe->merges == NULL)
        return NULL;
    for (size_t at = merge_slot(bpe, left, right);; at = (at + 1) & mask) {
        const struct bpe_merge *m = &bpe->merges[at];
        if (m->left == left && m->right == right)
            return m;
        if (m->left < 0)
            return NULL;
    }
}

static void put_merge(struct bpe *bpe, const struct bpe_merge *merge)
{
    size_t mask = SIZE_MAX >> bpe->shift, at = merge_slot(bpe, merge->left, merge->right);
    while (bpe->merges[at].left >= 0 &&
           (bpe->merges[at].left != merge->left || bpe->merges[at].right != merge->right))
        at = (at + 1) & mask;
    bpe->merge_count += bpe->merges[at].left < 0;
    bpe->merges[at] = *merge;
}

enum status bpe_add_merge(struct bpe *bpe, int32_t left, int32_t right, int32_t merged,
                          uint32_t rank)
{
    size_t room = bpe->merges == NULL ? 0 : (size_t)1 << (64 - bpe->shift);
    if ((bpe->merge_count + 1) * 2 > room) {
        struct bpe_merge *old = bpe->merges, *grown;
        size_t size = room == 0 ? 64 : 2 * room;
        TRY(mem_alloc_raw(size, sizeof *grown, "merges", &grown));
        memset(grown, 0xFF, size * sizeof *grown);
        bpe->merges = grown;
        bpe->shift = 64 - (unsigned)__builtin_ctzll(size);
        bpe->merge_count = 0;
        for (size_t i = 0; i < room; i++)
            if (old[i].left >= 0)
                put_merge(bpe, &old[i]);
        mem_free(old);
    }
    put_merge(bpe, &(struct bpe_merge){left, right, merged, rank});
    return STATUS_OK;
}

enum status bpe_add_pair(struct tokenizer *t, const char *where, int64_t line, const char *left,
                         size_t left_n, const char *right, size_t right_n, uint32_t rank)
{
    int32_t a = trie_find(&t->vocab, left, left_n), b = trie_find(&t->vocab, right, right_n), ab;
    uint32_t node = trie_walk(&t->vocab, left, left_n);
    for (size_t i = 0; i < right_n && node != 0; i++)
        node = trie_next(&t->vocab, node, (unsigned char)right[i]);
    ab = node == 0 ? -1 : trie_value(&t->vocab, node);
    if (a < 0 || b < 0 || ab < 0)
        return status_fail(STATUS_FORMAT,
                           "%s: merge %lld, \"%.*s\" and \"%.*s\": %s is not in the vocabulary",
                           where, (long long)line, (int)(left_n < 60 ? left_n : 60), left,
                           (int)(right_n < 60 ? right_n : 60), right,
                           a < 0   ? "the first"
                           : b < 0 ? "the second"
                                   : "what they make");
    return bpe_add_merge(&t->bpe, a, b, ab, rank);
}

void byte_pieces(const struct tokenizer *t, int32_t ids[256])
{
    static const char hex[] = "0123456789ABCDEF";
    for (unsigned b = 0; b < 256; b++) {
        const char piece[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        ids[b] = trie_find(&t->vocab, piece, sizeof piece);
    }
}

void bpe_finish(struct tokenizer *t)
{
    if (!t->bpe.byte_level) {
        byte_pieces(t, t->bpe.bytes);
        return;
    }
    for (unsigned b = 0; b < 256; b++) {
        char letter[4];
        t->bpe.bytes[b] = trie_find(&t->vocab, letter,
                                    (size_t)utf8_encode(byte_letter((unsigned char)b), letter));
    }
}

/* ---- Encoding ---- */

struct symbol {
    int32_t id;   /* -1: merged into the one before */
    int32_t prev; /* -1: none */
    int32_t next; /* -1: none */
};

struct waiting {
    uint64_t order; /* rank and place of the left symbol */
    int32_t merged;
};

struct work {
    struct symbol *symbols;
    struct waiting *heap; /* the least order on top */
    size_t count, waiting;
};

static void heap_push(struct work *w, struct waiting item)
{
    size_t at = w->waiting++;
    while (at > 0 && w->heap[(at - 1) / 2].order > item.order) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = item;
}

static struct waiting heap_pop(struct work *w)
{
    struct waiting top = w->heap[0], item = w->heap[--w->waiting];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < w->waiting; at = child) {
        child += child + 1 < w->waiting && w->heap[child + 1].order < w->heap[child].order;
        if (w->heap[child].order >= item.order)
            break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = item;
    return top;
}

/* Put the pair that begins at place in the heap, if it can be merged. */
static inline void wait_for(const struct bpe *bpe, struct work *w, int32_t place)
{
    const struct symbol *s = &w->symbols[place];
    const struct bpe_merge *m = find_merge(bpe, s->id, w->symbols[s->next].id);
    if (m != NULL)
        heap_push(w, (struct waiting){(uint64_t)m->rank << 32 | (uint32_t)place, m->merged});
}

static void merge_all(const struct bpe *bpe, struct work *w)
{
    struct symbol *s = w->symbols;
    for (size_t i = 0; i + 1 < w->count; i++)
        wait_for(bpe, w, (int32_t)i);
    while (w->waiting > 0) {
        struct waiting top = heap_pop(w);
        int32_t at = (int32_t)(uint32_t)top.order, right = s[at].next;
        if (s[at].id < 0 || right < 0)
            continue;
        const struct bpe_merge *m = find_merge(bpe, s[at].id, s[right].id);
        if (m == NULL || m->merged != top.merged)
            continue;
        s[at].id = top.merged;
        s[at].next = s[right].next;
        s[right].id = -1;
        if (s[at].next >= 0) {
            s[s[at].next].prev = at;
            wait_for(bpe, w, at);
        }
        if (s[at].prev >= 0)
            wait_for(bpe, w, s[at].prev);
    }
}

static void add_symbol(struct work *w, int32_t id)
{
    int32_t at = (int32_t)w->count++;
    w->symbols[at] = (struct symbol){id, at - 1, at + 1};
}

/*
 * The symbols that a word begins with: its bytes, or its characters. An unk waits until the next
 * known character, so bytes between the two go before it, as there.
 */
static void symbols_of(const struct tokenizer *t, struct work *w, const char *word, size_t n)
{
    const struct bpe *bpe = &t->bpe;
    bool waiting = false;
    for (size_t i = 0, length; i < n; i += length) {
        int32_t id;
        uint32_t c;
        length = 1;
        if (bpe->byte_level) {
            id = bpe->bytes[(unsigned char)word[i]];
        } else {
            length = (size_t)utf8_decode(word + i, n - i, &c);
            id = trie_find(&t->vocab, word + i, length);
        }
        if (id >= 0) {
            if (waiting)
                add_symbol(w, t->unk);
            waiting = false;
            add_symbol(w, id);
            continue;
        }
        bool bytes = bpe->byte_fallback && !bpe->byte_level;
        for (size_t k = 0; bytes && k < length; k++)
            bytes = bpe->bytes[(unsigned char)word[i + k]] >= 0;
        if (bytes) {
            for (size_t k = 0; k < length; k++)
                add_symbol(w, bpe->bytes[(unsigned char)word[i + k]]);
        } else if (t->unk >= 0) {
            if (waiting && !bpe->fuse_unk)
                add_symbol(w, t->unk);
            waiting = true;
        }
    }
    if (waiting)
        add_symbol(w, t->unk);
    if (w->count > 0)
        w->symbols[w->count - 1].next = -1;
}

/* The id of a whole word, or -1. */
static int32_t whole_word(const struct tokenizer *t, const char *word, size_t n)
{
    const struct trie *vocab = &t->vocab;
    uint32_t node = vocab->nodes == 0 ? 0 : TRIE_ROOT;
    if (!t->bpe.byte_level)
        return trie_find(vocab, word, n);
    for (size_t i = 0; i < n && node != 0; i++) {
        char letter[4];
        int letter_n = utf8_encode(byte_letter((unsigned char)word[i]), letter);
        for (int k = 0; k < letter_n && node != 0; k++)
            node = trie_next(vocab, node, (unsigned char)letter[k]);
    }
    return node == 0 ? -1 : trie_value(vocab, node);
}

static enum status bpe_encode(struct encoding *e, const char *word, size_t n)
{
    const struct tokenizer *t = e->t;
    struct id_list *ids = e->ids;
    struct work w = {0};
    size_t bytes;
    if (t->bpe.ignore_merges) {
        int32_t id = whole_word(t, word, n);
        if (id >= 0) {
            TRY(mem_grow(&ids->p, &ids->capacity, ids->n + 1, sizeof *ids->p, "token ids"));
            ids->p[ids->n++] = id;
            return STATUS_OK;
        }
    }
    /* each merge takes one symbol away and adds at most two pairs: three pairs a symbol in all */
    if (n > INT32_MAX / 4 || !size_mul(n, sizeof *w.symbols + 3 * sizeof *w.heap, &bytes))
        return status_fail(STATUS_NOMEM, "a word of %zu bytes is too long", n);
    if (e->scratch.capacity < bytes)
        TRY(mem_grow(&e->scratch.p, &e->scratch.capacity, bytes, 1, "a word being merged"));
    w.heap = (struct waiting *)(void *)e->scratch.p;
    w.symbols = (struct symbol *)(void *)(e->scratch.p + 3 * n * sizeof *w.heap);
    symbols_of(t, &w, word, n);
    merge_all(&t->bpe, &w);
    if (ids->capacity - ids->n < w.count)
        TRY(mem_grow(&ids->p, &ids->capacity, ids->n + w.count, sizeof *ids->p, "token ids"));
    for (int32_t i = w.count > 0 ? 0 : -1; i >= 0; i = w.symbols[i].next)
        ids->p[ids->n++] = w.symbols[i].id;
    return STATUS_OK;
}

const struct tokenizer_model tokenizer_bpe = {"BPE", bpe_encode};
