/*
 * tokenizer_train_merge.c - BPE and WordPiece: the best pair of neighbours becomes a piece, until
 * there are enough; see tokenizer_train.h.
 *
 * Every pair knows how often it occurs and in which words; a heap of pairs has the best on top. A
 * merge visits the words of its pair, and what that changes of other counts goes into the heap
 * afterwards, pair by pair. WordPiece's score has the frequencies of both pieces in it, so a merge
 * also moves all pairs that share a piece with it: each piece knows its pairs. Scores are doubles:
 * counts and their products are exact below 2^53, so equal fractions are equal numbers, and the
 * division rounds alike everywhere.
 *
 * Memory is that of the distinct words: four bytes a letter, and as much for the places of pairs, whose
 * chunks are used again once their pair is merged. They lie in blocks, because an array of all would
 * be there twice whenever it grows.
 */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_train_parts.h"

#define NOWHERE UINT32_MAX
#define CHUNK_WORDS 7
#define BLOCK_CHUNKS ((uint32_t)1 << 16)

struct pair {
    int64_t count;
    int32_t left, right;
    uint32_t heap_at; /* NOWHERE: not in the heap */
    uint32_t words;   /* its last chunk of words; 0: none */
    bool changed;     /* count has changed since the heap saw it */
    bool merged;      /* is a merge already */
    bool never;       /* would make a special token */
    bool listed[2];   /* WordPiece: its left, its right piece knows it */
    uint8_t filled;   /* words in its last chunk; CHUNK_WORDS: no room in it */
};

/* Words that hold a pair, the newest chunk first; or a chunk that is free. */
struct chunk {
    uint32_t next; /* 0: none */
    uint32_t words[CHUNK_WORDS];
};

struct entry {
    double score;
    int64_t count;
    uint32_t pair;
};

/* The pairs of one piece. */
struct pair_list {
    uint32_t *p; /* owned */
    size_t n, capacity;
};

struct merger {
    struct vocabulary *v;
    bool likelihood;
    int64_t least; /* pairs with smaller counts are not merged */

    int32_t *symbols; /* owned; ids of all words back to back; -1: a character outside the alphabet */
    size_t *begin;    /* owned; (words) into symbols */
    uint32_t *length; /* owned; (words) */
    int64_t *counts;  /* owned; (words) */
    size_t words;

    struct pair *pairs; /* owned */
    size_t pair_count, pair_capacity;
    uint32_t *slots; /* owned; hash table of 1 + index of a pair; 0: free */
    size_t slot_count;
    struct chunk **blocks; /* owned, each BLOCK_CHUNKS long; chunk 0 is not used */
    size_t block_count, block_capacity;
    uint32_t chunk_count; /* chunks that were ever used */
    uint32_t free_chunk;  /* the first of those that are free; 0: none */
    uint32_t *changed; /* owned; pairs to look at */
    size_t changed_count, changed_capacity;

    struct entry *heap; /* owned */
    size_t heap_count, heap_capacity;

    int64_t *frequency; /* owned; (vocab_size) of pieces; WordPiece */
    struct pair_list *lists; /* owned; (vocab_size) WordPiece */
    struct str scratch;
};

/* ---- Pairs ---- */

static inline uint64_t pair_slot(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (key ^ key >> 29) * 0x9E3779B97F4A7C15u >> 20;
}

static enum status grow_slots(struct merger *m)
{
    size_t size = m->slot_count == 0 ? 1 << 12 : 2 * m->slot_count, mask = size - 1;
    mem_free(m->slots);
    m->slots = NULL;
    TRY(mem_alloc(size, sizeof *m->slots, "the table of pairs", &m->slots));
    m->slot_count = size;
    for (size_t i = 0; i < m->pair_count; i++) {
        size_t at = pair_slot(m->pairs[i].left, m->pairs[i].right) & mask;
        while (m->slots[at] != 0)
            at = (at + 1) & mask;
        m->slots[at] = (uint32_t)i + 1;
    }
    return STATUS_OK;
}

/* The pair of two pieces, made if it is new. */
static enum status find_pair(struct merger *m, int32_t left, int32_t right, uint32_t *out)
{
    if (2 * (m->pair_count + 1) > m->slot_count)
        TRY(grow_slots(m));
    size_t mask = m->slot_count - 1, at = pair_slot(left, right) & mask;
    for (; m->slots[at] != 0; at = (at + 1) & mask) {
        const struct pair *p = &m->pairs[m->slots[at] - 1];
        if (p->left == left && p->right == right) {
            *out = m->slots[at] - 1;
            return STATUS_OK;
        }
    }
    if (m->pair_count == NOWHERE - 1)
        return status_fail(STATUS_NOMEM, "too many pairs of pieces");
    TRY(mem_grow(&m->pairs, &m->pair_capacity, m->pair_count + 1, sizeof *m->pairs, "pairs"));
    *out = (uint32_t)m->pair_count++;
    m->slots[at] = *out + 1;
    m->pairs[*out] = (struct pair){
        .left = left, .right = right, .heap_at = NOWHERE, .filled = CHUNK_WORDS};
    return STATUS_OK;
}

static inline struct chunk *chunk_at(const struct merger *m, uint32_t index)
{
    return &m->blocks[index / BLOCK_CHUNKS][index % BLOCK_CHUNKS];
}

static enum status new_chunk(struct merger *m, uint32_t *out)
{
    if (m->free_chunk != 0) {
        *out = m->free_chunk;
        m->free_chunk = chunk_at(m, *out)->next;
        return STATUS_OK;
    }
    if (m->chunk_count == m->block_count * BLOCK_CHUNKS) {
        if (m->chunk_count >= NOWHERE - BLOCK_CHUNKS)
            return status_fail(STATUS_NOMEM, "too many places of pairs");
        TRY(mem_grow(&m->blocks, &m->block_capacity, m->block_count + 1, sizeof *m->blocks,
                     "blocks of places"));
        TRY(mem_alloc_raw(BLOCK_CHUNKS, sizeof **m->blocks, "places of pairs",
                          &m->blocks[m->block_count]));
        m->block_count++;
    }
    *out = m->chunk_count++;
    return STATUS_OK;
}

/* Remember that a word holds the pair. */
static enum status add_word(struct merger *m, uint32_t pair, uint32_t word)
{
    struct pair *p = &m->pairs[pair];
    if (p->filled < CHUNK_WORDS) {
        uint32_t *last = &chunk_at(m, p->words)->words[p->filled];
        if (last[-1] == word)
            return STATUS_OK;
        *last = word;
        p->filled++;
        return STATUS_OK;
    }
    if (p->words != 0 && chunk_at(m, p->words)->words[CHUNK_WORDS - 1] == word)
        return STATUS_OK;
    uint32_t chunk;
    TRY(new_chunk(m, &chunk));
    *chunk_at(m, chunk) = (struct chunk){.next = p->words, .words = {word}};
    p->words = chunk;
    p->filled = 1;
    return STATUS_OK;
}

/* count more (or fewer) of a pair in a word; left or right may be outside the alphabet. */
static enum status change(struct merger *m, int32_t left, int32_t right, int64_t count,
                          uint32_t word)
{
    uint32_t pair = 0;
    if (left < 0 || right < 0)
        return STATUS_OK;
    TRY(find_pair(m, left, right, &pair));
    m->pairs[pair].count += count;
    if (count > 0)
        TRY(add_word(m, pair, word));
    if (m->pairs[pair].changed)
        return STATUS_OK;
    TRY(mem_grow(&m->changed, &m->changed_capacity, m->changed_count + 1, sizeof *m->changed,
                 "changed pairs"));
    m->changed[m->changed_count++] = pair;
    m->pairs[pair].changed = true;
    return STATUS_OK;
}

/* ---- The heap ---- */

static bool before(const struct merger *m, const struct entry *a, const struct entry *b)
{
    if (a->score != b->score)
        return a->score > b->score;
    if (a->count != b->count)
        return a->count > b->count;
    const struct pair *p = &m->pairs[a->pair], *q = &m->pairs[b->pair];
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static void place(struct merger *m, size_t at, struct entry entry)
{
    m->heap[at] = entry;
    m->pairs[entry.pair].heap_at = (uint32_t)at;
}

/* Put an entry where it belongs, from a place that is free. */
static void settle(struct merger *m, size_t at, struct entry entry)
{
    while (at > 0 && before(m, &entry, &m->heap[(at - 1) / 2])) {
        place(m, at, m->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < m->heap_count; at = child) {
        if (child + 1 < m->heap_count && before(m, &m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(m, &m->heap[child], &entry))
            break;
        place(m, at, m->heap[child]);
    }
    place(m, at, entry);
}

static void heap_remove(struct merger *m, uint32_t pair)
{
    size_t at = m->pairs[pair].heap_at;
    m->pairs[pair].heap_at = NOWHERE;
    struct entry last = m->heap[--m->heap_count];
    if (last.pair != pair)
        settle(m, at, last);
}

/* Let the heap know a pair as it is now. */
static enum status heap_update(struct merger *m, uint32_t pair)
{
    struct pair *p = &m->pairs[pair];
    if (p->count < m->least || p->never) {
        if (p->heap_at != NOWHERE)
            heap_remove(m, pair);
        return STATUS_OK;
    }
    struct entry entry = {(double)p->count, p->count, pair};
    if (m->likelihood)
        entry.score /= (double)m->frequency[p->left] * (double)m->frequency[p->right];
    if (p->heap_at != NOWHERE) {
        const struct entry *old = &m->heap[p->heap_at];
        if (old->score != entry.score || old->count != entry.count)
            settle(m, p->heap_at, entry);
        return STATUS_OK;
    }
    if (m->heap_count >= NOWHERE - 1)
        return status_fail(STATUS_NOMEM, "too many pairs of pieces");
    TRY(mem_grow(&m->heap, &m->heap_capacity, m->heap_count + 1, sizeof *m->heap,
                 "the heap of pairs"));
    settle(m, m->heap_count++, entry);
    return STATUS_OK;
}

/* Let a piece know a pair (side 0: as its left piece). */
static enum status list_pair(struct merger *m, uint32_t pair, int side)
{
    struct pair *p = &m->pairs[pair];
    struct pair_list *list = &m->lists[side == 0 ? p->left : p->right];
    if (p->listed[side] || (side == 1 && p->left == p->right))
        return STATUS_OK;
    TRY(mem_grow(&list->p, &list->capacity, list->n + 1, sizeof *list->p, "pairs of a piece"));
    list->p[list->n++] = pair;
    p->listed[side] = true;
    return STATUS_OK;
}

static enum status update_changed(struct merger *m)
{
    for (size_t i = 0; i < m->changed_count; i++) {
        uint32_t pair = m->changed[i];
        m->pairs[pair].changed = false;
        if (m->likelihood && m->pairs[pair].count >= m->least) {
            TRY(list_pair(m, pair, 0));
            TRY(list_pair(m, pair, 1));
        }
        TRY(heap_update(m, pair));
    }
    m->changed_count = 0;
    return STATUS_OK;
}

/* The frequency of a piece has changed, and with it the scores of its pairs. Those of too small a
 * count leave its list until update_changed() brings them back. */
static enum status update_piece(struct merger *m, int32_t piece)
{
    struct pair_list *list = &m->lists[piece];
    size_t kept = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct pair *p = &m->pairs[list->p[i]];
        if (p->count < m->least) {
            p->listed[p->left != piece] = false;
            continue;
        }
        list->p[kept++] = list->p[i];
        TRY(heap_update(m, list->p[i]));
    }
    list->n = kept;
    return STATUS_OK;
}

/* ---- Merging ---- */

/* Make one piece of each left and right that stand together in a word. */
static enum status merge_word(struct merger *m, uint32_t word, int32_t left, int32_t right,
                              int32_t piece)
{
    int32_t *s = m->symbols + m->begin[word];
    uint32_t n = m->length[word], to = 0;
    int64_t count = m->counts[word];
    for (uint32_t i = 0; i < n; i++) {
        if (s[i] != left || i + 1 == n || s[i + 1] != right) {
            s[to++] = s[i];
            continue;
        }
        if (to > 0) {
            TRY(change(m, s[to - 1], left, -count, word));
            TRY(change(m, s[to - 1], piece, count, word));
        }
        if (i + 2 < n) {
            TRY(change(m, right, s[i + 2], -count, word));
            TRY(change(m, piece, s[i + 2], count, word));
        }
        TRY(change(m, left, right, -count, word));
        m->frequency[left] -= count;
        m->frequency[right] -= count;
        m->frequency[piece] += count;
        s[to++] = piece;
        i++;
    }
    m->length[word] = to;
    return STATUS_OK;
}

/* What a pair makes; -1: a special token. */
static enum status merged_piece(struct merger *m, const struct pair *p, int32_t *out)
{
    struct vocabulary *v = m->v;
    const char *right = vocabulary_piece(v, p->right);
    if (m->likelihood) /* WordPiece's right pieces are inside words */
        right += sizeof TRAIN_PREFIX - 1;
    str_clear(&m->scratch);
    TRY(str_addf(&m->scratch, "%s%s", vocabulary_piece(v, p->left), right));
    TRY(vocabulary_add(v, m->scratch.p, m->scratch.n, out));
    if (*out < v->specials)
        *out = -1;
    return STATUS_OK;
}

static enum status merge_best(struct merger *m)
{
    struct vocabulary *v = m->v;
    uint32_t best = m->heap[0].pair;
    struct pair pair = m->pairs[best];
    int32_t piece;
    TRY(merged_piece(m, &pair, &piece));
    if (piece < 0) {
        m->pairs[best].never = true;
        return heap_update(m, best);
    }
    if (!pair.merged && v->opts->model == TRAIN_BPE) {
        /* its piece may come in two ways, and this pair about again: it is a merge once */
        TRY(mem_grow(&v->merges, &v->merge_capacity, v->merge_count + 1, sizeof *v->merges,
                     "merges"));
        v->merges[v->merge_count++] = (struct train_merge){pair.left, pair.right};
    }
    m->pairs[best].merged = true;
    m->pairs[best].words = 0; /* words that come to hold it again begin a new list */
    m->pairs[best].filled = CHUNK_WORDS;
    uint32_t filled = pair.filled;
    for (uint32_t at = pair.words, next; at != 0; at = next, filled = CHUNK_WORDS) {
        struct chunk *chunk = chunk_at(m, at);
        for (uint32_t i = 0; i < filled; i++)
            TRY(merge_word(m, chunk->words[i], pair.left, pair.right, piece));
        next = chunk->next;
        chunk->next = m->free_chunk;
        m->free_chunk = at;
    }
    TRY(update_changed(m));
    if (m->likelihood) {
        TRY(update_piece(m, pair.left));
        TRY(update_piece(m, pair.right));
        TRY(update_piece(m, piece));
    }
    return STATUS_OK;
}

/* ---- Beginning ---- */

/* The characters or bytes of a word as symbols; returns how many. */
static uint32_t spell(struct merger *m, const int32_t *first, const int32_t *inside,
                      const char *word, size_t n, int32_t *out)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n;) {
        int64_t letter = (unsigned char)word[i];
        uint32_t c;
        size_t length = m->v->bytes ? 1 : (size_t)utf8_decode(word + i, n - i, &c);
        if (!m->v->bytes)
            letter = alphabet_find(m->v, c);
        out[count++] = letter < 0 ? -1 : (i == 0 ? first : inside)[letter];
        i += length;
    }
    return count;
}

static enum status spell_words(struct merger *m, const struct word_table *table,
                               const int32_t *first, const int32_t *inside)
{
    TRY(mem_alloc_raw(table->text_n, sizeof *m->symbols, "the letters of words", &m->symbols));
    TRY(mem_alloc_raw(table->count, sizeof *m->begin, "words", &m->begin));
    TRY(mem_alloc_raw(table->count, sizeof *m->length, "words", &m->length));
    TRY(mem_alloc_raw(table->count, sizeof *m->counts, "words", &m->counts));
    size_t at = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct train_word *w = &table->words[i];
        m->begin[i] = at;
        m->counts[i] = (int64_t)w->count;
        m->length[i] = spell(m, first, inside, table->text + w->at, w->n, m->symbols + at);
        at += m->length[i];
    }
    m->words = table->count;
    return STATUS_OK;
}

/*
 * Pieces of one letter: what a letter is at the beginning of a word, and inside one. Inside words
 * WordPiece's have the prefix; they are added where they occur, behind all others.
 */
static enum status add_letters(struct merger *m, const struct word_table *table, int32_t *first,
                               int32_t *inside)
{
    struct vocabulary *v = m->v;
    char letter[8];
    size_t prefix = m->likelihood ? sizeof TRAIN_PREFIX - 1 : 0;
    bool *found;
    memcpy(letter, TRAIN_PREFIX, prefix);
    for (uint32_t c = 0, limit = v->bytes ? 0x200 : 0; c < limit; c++) {
        int byte = letter_byte(c); /* in the order of letters, as tokenizers has them */
        if (byte >= 0)
            TRY(vocabulary_add(v, letter, (size_t)utf8_encode(c, letter), &first[byte]));
    }
    for (int64_t i = 0; !v->bytes && i < v->letter_count; i++)
        TRY(vocabulary_add(v, letter + prefix,
                           (size_t)utf8_encode(v->letters[i], letter + prefix), &first[i]));
    memcpy(inside, first, (size_t)(v->bytes ? 256 : v->letter_count) * sizeof *inside);
    if (!m->likelihood)
        return STATUS_OK;
    TRY(mem_alloc((size_t)v->letter_count, sizeof *found, "letters inside words", &found));
    for (size_t i = 0; i < table->count; i++) {
        const char *s = table->text + table->words[i].at;
        uint32_t c;
        for (size_t n = table->words[i].n, k = 0; k < n;) {
            size_t length = (size_t)utf8_decode(s + k, n - k, &c);
            int64_t at = k == 0 ? -1 : alphabet_find(v, c);
            if (at >= 0)
                found[at] = true;
            k += length;
        }
    }
    enum status st = STATUS_OK;
    for (int64_t i = 0; i < v->letter_count && st == STATUS_OK; i++)
        if (found[i])
            st = vocabulary_add(v, letter,
                                prefix + (size_t)utf8_encode(v->letters[i], letter + prefix),
                                &inside[i]);
    mem_free(found);
    return st;
}

static enum status count_pairs(struct merger *m)
{
    size_t ids = (size_t)m->v->opts->vocab_size;
    uint32_t none;
    TRY(new_chunk(m, &none)); /* number 0 means "no chunk" */
    if (ids < m->v->count)
        ids = m->v->count;
    TRY(mem_alloc(ids + 1, sizeof *m->frequency, "frequencies of pieces", &m->frequency));
    if (m->likelihood)
        TRY(mem_alloc(ids + 1, sizeof *m->lists, "pairs of pieces", &m->lists));
    for (size_t w = 0; w < m->words; w++) {
        const int32_t *s = m->symbols + m->begin[w];
        for (uint32_t i = 0; i < m->length[w]; i++) {
            if (s[i] >= 0)
                m->frequency[s[i]] += m->counts[w];
            if (i > 0)
                TRY(change(m, s[i - 1], s[i], m->counts[w], (uint32_t)w));
        }
    }
    return update_changed(m);
}

static void merger_release(struct merger *m)
{
    for (size_t i = 0; m->lists != NULL && i <= (size_t)m->v->opts->vocab_size; i++)
        mem_free(m->lists[i].p);
    mem_free(m->lists);
    mem_free(m->frequency);
    mem_free(m->symbols);
    mem_free(m->begin);
    mem_free(m->length);
    mem_free(m->counts);
    mem_free(m->pairs);
    mem_free(m->slots);
    for (size_t i = 0; i < m->block_count; i++)
        mem_free(m->blocks[i]);
    mem_free(m->blocks);
    mem_free(m->changed);
    mem_free(m->heap);
    str_release(&m->scratch);
}

enum status train_merges(struct vocabulary *v, struct word_table *table,
                         struct tokenizer_train_report *report)
{
    const struct tokenizer_train_opts *opts = v->opts;
    struct merger m = {.v = v, .likelihood = opts->model == TRAIN_WORDPIECE};
    int32_t *first = NULL, *inside = NULL;
    size_t letters = v->bytes ? 256 : (size_t)v->letter_count;
    enum status st = STATUS_OK;
    m.least = opts->min_frequency < 1 ? 1 : opts->min_frequency;
    TRY_GOTO(done, mem_alloc(letters, sizeof *first, "the alphabet", &first));
    TRY_GOTO(done, mem_alloc(letters, sizeof *inside, "the alphabet", &inside));
    TRY_GOTO(done, add_letters(&m, table, first, inside));
    if (v->count > (size_t)opts->vocab_size) {
        st = status_fail(STATUS_CONFIG,
                         "tokenizer.vocab_size is %lld, but the special tokens and the pieces of "
                         "one character are %zu: raise it, or set tokenizer.limit_alphabet",
                         (long long)opts->vocab_size, v->count);
        goto done;
    }
    TRY_GOTO(done, spell_words(&m, table, first, inside));
    word_table_release(table);
    TRY_GOTO(done, count_pairs(&m));
    while (v->count < (size_t)opts->vocab_size && m.heap_count > 0) {
        if (v->count % 64 == 0)
            log_progress("merging pairs: %zu of %lld pieces", v->count,
                         (long long)opts->vocab_size);
        TRY_GOTO(done, merge_best(&m));
    }
    log_progress("%s", "");
    double pieces = 0, words = 0;
    for (size_t w = 0; w < m.words; w++) {
        pieces += (double)m.counts[w] * m.length[w];
        words += (double)m.counts[w];
    }
    report->pieces_a_word = pieces / words;
done:
    merger_release(&m);
    mem_free(first);
    mem_free(inside);
    return st;
}
