/*
 * tokenizer_unigram.c - Unigram: the pieces with the greatest sum of scores, as tokenizers finds
 * them; see tokenizer_parts.h. SentencePiece's own search is in tokenizer_spm.c: its sums are
 * rounded to float, so ties fall elsewhere.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"

enum status unigram_set_score(struct unigram *u, int32_t id, double score)
{
    TRY(mem_grow(&u->scores, &u->score_capacity, (size_t)id + 1, sizeof *u->scores,
                 "the scores of pieces"));
    u->scores[id] = score;
    return STATUS_OK;
}

/* The best way to an end: the last piece on it. */
struct best {
    double score;
    int32_t begin; /* -1: no way ends here */
    int32_t id;
};

static void offer(struct best *end, double score, size_t begin, int32_t id)
{
    if (end->begin < 0 || score > end->score)
        *end = (struct best){score, (int32_t)begin, id};
}

static size_t character_length(unsigned char byte)
{
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

static void search(const struct tokenizer *t, const char *word, size_t n, struct best *best)
{
    const struct unigram *u = &t->unigram;
    const struct trie *vocab = &t->vocab;
    for (size_t i = 0; i <= n; i++)
        best[i].begin = -1;
    best[0] = (struct best){0, 0, -1};
    for (size_t at = 0, length; at < n; at += length) {
        double here = best[at].score;
        bool single = false;
        uint32_t node = TRIE_ROOT;
        length = character_length((unsigned char)word[at]);
        for (size_t i = at; i < n;) {
            node = trie_next(vocab, node, (unsigned char)word[i++]);
            if (node == 0)
                break;
            int32_t id = trie_value(vocab, node);
            if (id < 0)
                continue;
            offer(&best[i], u->scores[id] + here, at, id);
            single = single || i - at == length;
        }
        if (!single)
            offer(&best[at + length], u->unk_score + here, at, t->unk);
    }
}

/* The ids of a run of unknown text, backwards from *out. */
static int32_t *add_unknown(const struct tokenizer *t, const char *s, size_t n, int32_t *out)
{
    const struct unigram *u = &t->unigram;
    int32_t id = trie_find(&t->vocab, s, n);
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++)
        bytes = u->bytes[(unsigned char)s[i]] >= 0;
    if (!bytes) {
        *--out = id >= 0 ? id : t->unk;
        return out;
    }
    for (size_t i = n; i > 0; i--)
        *--out = u->bytes[(unsigned char)s[i - 1]];
    return out;
}

static enum status unigram_encode(struct encoding *e, const char *word, size_t n)
{
    const struct tokenizer *t = e->t;
    struct id_list *ids = e->ids;
    struct best *best;
    size_t bytes;
    if (n >= INT32_MAX || !size_mul(n + 1, sizeof *best, &bytes))
        return status_fail(STATUS_NOMEM, "a word of %zu bytes is too long", n);
    if (e->scratch.capacity < bytes)
        TRY(mem_grow(&e->scratch.p, &e->scratch.capacity, bytes, 1, "a word being taken apart"));
    if (ids->capacity - ids->n < n)
        TRY(mem_grow(&ids->p, &ids->capacity, ids->n + n, sizeof *ids->p, "token ids"));
    best = (struct best *)(void *)e->scratch.p;
    search(t, word, n, best);
    int32_t *last = ids->p + ids->n + n, *out = last;
    for (size_t end = n; end > 0;) {
        size_t begin = (size_t)best[end].begin;
        if (best[end].id != t->unk) {
            *--out = best[end].id;
        } else {
            while (begin > 0 && best[begin].id == t->unk)
                begin = (size_t)best[begin].begin;
            out = add_unknown(t, word + begin, end - begin, out);
        }
        end = begin;
    }
    size_t count = (size_t)(last - out);
    memmove(ids->p + ids->n, out, count * sizeof *out);
    ids->n += count;
    return STATUS_OK;
}

const struct tokenizer_model tokenizer_unigram = {"Unigram", unigram_encode};
