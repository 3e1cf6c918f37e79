/* tokenizer_wordpiece.c - cutting text into words, and words into pieces; see tokenizer_parts.h. */
#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"

static enum word_kind kind_of(unsigned bits, uint32_t c)
{
    unsigned flags = unicode_class(c)->flags;
    if ((bits & WORDS_SPACE) && (flags & UNICODE_SPACE))
        return WORD_GAP;
    if ((bits & WORDS_PUNCT) && (flags & UNICODE_PUNCT))
        return WORD_ALONE;
    return (bits & WORDS_KIND) && !(flags & UNICODE_WORD) ? WORD_OTHER : WORD_LETTER;
}

void word_rules_init(struct word_rules *rules, unsigned bits)
{
    rules->bits = bits;
    for (uint32_t c = 0; c < 128; c++)
        rules->ascii[c] = (unsigned char)kind_of(bits, c);
}

/* The kind of the character at text, and its length in bytes. */
static inline enum word_kind kind_at(const struct word_rules *rules, const char *text, size_t n,
                                     size_t *length)
{
    unsigned char byte = (unsigned char)*text;
    uint32_t c;
    if (byte < 0x80) {
        *length = 1;
        return rules->ascii[byte];
    }
    *length = (size_t)utf8_decode(text, n, &c);
    return kind_of(rules->bits, c);
}

enum status words_encode(const struct tokenizer *t, const char *text, size_t n, struct id_list *ids)
{
    size_t at = 0, length;
    while (at < n) {
        enum word_kind kind = kind_at(&t->words, text + at, n - at, &length);
        size_t begin = at;
        at += length;
        if (kind == WORD_GAP)
            continue;
        while (kind != WORD_ALONE && at < n &&
               kind_at(&t->words, text + at, n - at, &length) == kind)
            at += length;
        TRY(t->model->encode(t, text + begin, at - begin, ids));
    }
    return STATUS_OK;
}

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
static enum status wordpiece_encode(const struct tokenizer *t, const char *word, size_t n,
                                    struct id_list *ids)
{
    const struct wordpiece *w = &t->wordpiece;
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
            node = trie_next(&w->pieces, node, (unsigned char)word[i++]);
            if (node != 0 && w->pieces.values[node] >= 0) {
                id = w->pieces.values[node];
                end = i;
            }
        }
        out[count++] = id;
        known = id >= 0;
    }
    if (!known) { /* one unknown part makes the whole word unknown */
        out[0] = w->unk;
        count = 1;
    }
    ids->n += count;
    return STATUS_OK;
}

const struct tokenizer_model tokenizer_wordpiece = {"WordPiece", wordpiece_encode};
