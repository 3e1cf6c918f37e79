/*
 * tokenizer_spm.c - SentencePiece's own models, Unigram and BPE, on a text that its normalizer
 * made; see tokenizer_parts.h.
 *
 * Scores are floats and sums are rounded to floats, as there (0.2.3), because ties between ways are
 * common and rounding decides them.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"

#define UNKNOWN_PENALTY 10.0f
#define MOST_ENTRIES ((size_t)INT32_MAX / 8)

static enum status make_room(struct encoding *e, size_t bytes, size_t ids)
{
    if (e->scratch.capacity < bytes)
        TRY(mem_grow(&e->scratch.p, &e->scratch.capacity, bytes, 1, "a text being taken apart"));
    if (e->ids->capacity - e->ids->n < ids)
        TRY(mem_grow(&e->ids->p, &e->ids->capacity, e->ids->n + ids, sizeof *e->ids->p,
                     "token ids"));
    return STATUS_OK;
}

static size_t character_length(unsigned char byte)
{
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

static bool may_match(const struct spm *spm, int32_t id)
{
    return id >= 0 && (spm->types[id] == SPM_NORMAL || spm->types[id] == SPM_USER ||
                       spm->types[id] == SPM_UNUSED);
}

/* Put the ids of one piece of text at *out (room for a place a byte): known, bytes, or one unk for
 * a whole run. */
static void add_piece(const struct tokenizer *t, struct id_list *ids, const char *s, size_t n,
                      int32_t id, bool *after_unk)
{
    bool unknown = id < 0 || id == t->unk;
    if (!unknown)
        ids->p[ids->n++] = id;
    else if (t->spm.byte_fallback)
        for (size_t i = 0; i < n; i++)
            ids->p[ids->n++] = t->spm.bytes[(unsigned char)s[i]];
    else if (!*after_unk)
        ids->p[ids->n++] = t->unk;
    *after_unk = unknown;
}

/* ---- Unigram ---- */

struct best {
    float score;
    int32_t begin; /* -1: no way ends here */
    int32_t id;
};

static void search(const struct tokenizer *t, const char *text, size_t n, struct best *best)
{
    const struct spm *spm = &t->spm;
    const struct trie *vocab = &t->vocab;
    float unk_score = spm->least - UNKNOWN_PENALTY;
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct best){0, -1, -1};
    for (size_t at = 0, length; at < n; at += length) {
        float here = best[at].score;
        bool single = false;
        uint32_t node = TRIE_ROOT;
        length = character_length((unsigned char)text[at]);
        for (size_t i = at; i < n;) {
            node = trie_next(vocab, node, (unsigned char)text[i++]);
            if (node == 0)
                break;
            int32_t id = trie_value(vocab, node);
            float gain = id < 0 ? NAN : spm->gains[id];
            if (isnan(gain))
                continue;
            if (gain == HUGE_VALF)
                gain = (float)(i - at) * spm->greatest - 0.1f;
            float sum = gain + here;
            if (best[i].begin < 0 || sum > best[i].score)
                best[i] = (struct best){sum, (int32_t)at, id};
            single = single || i - at == length;
        }
        if (single)
            continue;
        struct best *end = &best[at + length];
        if (end->begin < 0 || unk_score + here > end->score)
            *end = (struct best){unk_score + here, (int32_t)at, t->unk};
    }
}

static enum status unigram_encode(struct encoding *e, const char *text, size_t n)
{
    const struct tokenizer *t = e->t;
    struct best *best;
    if (n >= MOST_ENTRIES)
        return status_fail(STATUS_NOMEM, "a text of %zu bytes is too long", n);
    TRY(make_room(e, (n + 1) * sizeof *best, n));
    best = (struct best *)(void *)e->scratch.p;
    search(t, text, n, best);
    /* turn the way round: at each place the piece that begins there, not the one that ends there */
    struct best piece = best[n];
    for (int32_t end = (int32_t)n; end > 0;) {
        int32_t begin = piece.begin;
        struct best earlier = best[begin];
        best[begin] = (struct best){0, end, piece.id};
        end = begin;
        piece = earlier;
    }
    bool after_unk = false;
    for (int32_t at = 0; at < (int32_t)n; at = best[at].begin)
        add_piece(t, e->ids, text + at, (size_t)(best[at].begin - at), best[at].id, &after_unk);
    return STATUS_OK;
}

const struct tokenizer_model tokenizer_spm_unigram = {"Unigram", unigram_encode};

/* ---- BPE ---- */

struct symbol {
    int32_t begin, n;   /* in the text; n 0: merged into the one before */
    int32_t prev, next; /* -1: none */
    bool frozen;        /* a user-defined piece */
};

struct waiting {
    float score;
    int32_t left, right, n, id;
};

struct work {
    const struct tokenizer *t;
    const char *text;
    struct symbol *symbols;
    struct waiting *heap;
    size_t count, waiting;
    struct trie cuts; /* id of an unused piece to the length of its left part */
};

static bool before(const struct waiting *a, const struct waiting *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(struct work *w, struct waiting item)
{
    size_t at = w->waiting++;
    while (at > 0 && before(&item, &w->heap[(at - 1) / 2])) {
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
        child += child + 1 < w->waiting && before(&w->heap[child + 1], &w->heap[child]);
        if (!before(&w->heap[child], &item))
            break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = item;
    return top;
}

/* Put a symbol and the next one in the heap, if they make a piece. */
static enum status wait_for(struct work *w, int32_t left)
{
    const struct symbol *a = left < 0 ? NULL : &w->symbols[left];
    if (a == NULL || a->next < 0 || a->frozen || w->symbols[a->next].frozen)
        return STATUS_OK;
    int32_t n = a->n + w->symbols[a->next].n;
    int32_t id = trie_find(&w->t->vocab, w->text + a->begin, (size_t)n);
    if (!may_match(&w->t->spm, id))
        return STATUS_OK;
    heap_push(w, (struct waiting){w->t->spm.scores[id], left, a->next, n, id});
    if (w->t->spm.types[id] ==
        SPM_UNUSED) /* the last word counts, whether they are merged or not */
        return trie_insert(&w->cuts, (const char *)&id, sizeof id, a->n);
    return STATUS_OK;
}

static enum status merge_all(struct work *w)
{
    struct symbol *s = w->symbols;
    for (size_t i = 0; i + 1 < w->count; i++)
        TRY(wait_for(w, (int32_t)i));
    while (w->waiting > 0) {
        struct waiting top = heap_pop(w);
        struct symbol *left = &s[top.left], *right = &s[top.right];
        if (left->n == 0 || right->n == 0 || left->n + right->n != top.n)
            continue;
        left->n = top.n;
        left->next = right->next;
        right->n = 0;
        if (left->next >= 0)
            s[left->next].prev = top.left;
        TRY(wait_for(w, left->prev));
        TRY(wait_for(w, top.left));
    }
    return STATUS_OK;
}

/* Cut the text into user-defined pieces and characters. */
static void symbols_of(struct work *w, size_t n)
{
    const struct trie *user = &w->t->spm.user;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t node = user->nodes == 0 ? 0 : TRIE_ROOT;
        bool frozen = false;
        length = character_length((unsigned char)w->text[at]);
        for (size_t i = at; i < n && node != 0; i++) {
            node = trie_next(user, node, (unsigned char)w->text[i]);
            if (node != 0 && trie_value(user, node) >= 0) {
                length = i + 1 - at;
                frozen = true;
            }
        }
        int32_t place = (int32_t)w->count++;
        w->symbols[place] =
            (struct symbol){(int32_t)at, (int32_t)length, place - 1, place + 1, frozen};
    }
    w->symbols[w->count - 1].next = -1;
}

/* Add the ids of one symbol; an unused piece is taken apart again. stack has room for 2 numbers a
 * byte of it. */
static void add_symbol(struct work *w, struct id_list *ids, const struct symbol *symbol,
                       int32_t *stack, bool *after_unk)
{
    size_t depth = 0;
    stack[depth++] = symbol->begin;
    stack[depth++] = symbol->n;
    while (depth > 0) {
        int32_t n = stack[--depth], begin = stack[--depth], left = -1;
        int32_t id = trie_find(&w->t->vocab, w->text + begin, (size_t)n);
        if (id >= 0 && w->t->spm.types[id] == SPM_UNUSED)
            left = trie_find(&w->cuts, (const char *)&id, sizeof id);
        if (left <= 0 || left >= n) {
            add_piece(w->t, ids, w->text + begin, (size_t)n, id, after_unk);
            continue;
        }
        stack[depth++] = begin + left;
        stack[depth++] = n - left;
        stack[depth++] = begin;
        stack[depth++] = left;
    }
}

static enum status bpe_encode(struct encoding *e, const char *text, size_t n)
{
    struct work w = {.t = e->t, .text = text};
    enum status st;
    if (n >= MOST_ENTRIES)
        return status_fail(STATUS_NOMEM, "a text of %zu bytes is too long", n);
    /* three pairs a symbol at most, see tokenizer_bpe.c */
    size_t heap = 3 * n * sizeof *w.heap, symbols = n * sizeof *w.symbols;
    TRY(make_room(e, heap + symbols + (2 * n + 2) * sizeof(int32_t), n));
    w.heap = (struct waiting *)(void *)e->scratch.p;
    w.symbols = (struct symbol *)(void *)(e->scratch.p + heap);
    int32_t *stack = (int32_t *)(void *)(e->scratch.p + heap + symbols);
    symbols_of(&w, n);
    st = merge_all(&w);
    bool after_unk = false;
    for (int32_t i = st == STATUS_OK ? 0 : -1; i >= 0; i = w.symbols[i].next)
        add_symbol(&w, e->ids, &w.symbols[i], stack, &after_unk);
    trie_release(&w.cuts);
    return st;
}

const struct tokenizer_model tokenizer_spm_bpe = {"BPE", bpe_encode};
