/* tokenizer_wordpiece.c - words into pieces, the longest first; see tokenizer_parts.h. */
#include "base/mem.h"
#include "data/tokenizer_parts.h"

static size_t characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

/*
 * The pieces are matched bytewise: a piece and a word are both whole characters, so where a piece
 * that matches ends, a character of the word ends too. A piece inside a word is looked up behind
 * the prefix's node.
 */
static enum status wordpiece_encode(struct encoding *e, const char *word, size_t n)
{
    const struct wordpiece *w = &e->t->wordpiece;
    const struct trie *vocab = &e->t->vocab;
    struct id_list *ids = e->ids;
    bool known = (int64_t)n <= w->max_word || (int64_t)characters(word, n) <= w->max_word;
    size_t room = known ? n : 1, count = 0;
    if (ids->capacity - ids->n < room)
        TRY(mem_grow(&ids->p, &ids->capacity, ids->n + room, sizeof *ids->p, "token ids"));
    int32_t *out = ids->p + ids->n;
    for (size_t at = 0, end; known && at < n; at = end) {
        uint32_t node = at == 0 ? TRIE_ROOT : w->inside;
        int32_t id = -1;
        end = at;
        for (size_t i = at; i < n && node != 0;) {
            node = trie_next(vocab, node, (unsigned char)word[i++]);
            if (node != 0 && trie_value(vocab, node) >= 0) {
                id = trie_value(vocab, node);
                end = i;
            }
        }
        out[count++] = id;
        known = id >= 0;
    }
    if (!known) { /* one unknown part makes the whole word unknown */
        out[0] = e->t->unk;
        count = 1;
    }
    ids->n += count;
    return STATUS_OK;
}

const struct tokenizer_model tokenizer_wordpiece = {"WordPiece", wordpiece_encode};
