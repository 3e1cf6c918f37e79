/*
 * tokenizer_train_seeds.c - frequent substrings of words, Unigram's first vocabulary; see
 * tokenizer_train.h.
 *
 * All suffixes of all words are sorted; neighbours that begin alike form the inner nodes of a suffix
 * tree, which a stack finds in one pass. Only these need looking at: any other substring occurs
 * exactly where a longer one does. Words are short, so sorting by bytes (Bentley and Sedgewick,
 * "Fast algorithms for sorting and searching strings", 1997) beats the linear-time constructions,
 * and it needs nothing beside the suffixes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_train_parts.h"

/* ---- Sorting ---- */

static int byte_at(const char *text, uint32_t at, size_t depth)
{
    return (unsigned char)text[at + depth];
}

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t t = *a;
    *a = *b;
    *b = t;
}

static void insertion_sort(const char *text, uint32_t *at, size_t count, size_t depth)
{
    for (size_t i = 1; i < count; i++) {
        uint32_t item = at[i];
        size_t k = i;
        for (; k > 0 && strcmp(text + at[k - 1] + depth, text + item + depth) > 0; k--)
            at[k] = at[k - 1];
        at[k] = item;
    }
}

static int middle(int a, int b, int c)
{
    return a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
}

/* The recursion goes one byte deeper or into a smaller half; the rest is the loop's. */
void sort_strings(const char *text, uint32_t *at, size_t count, size_t depth)
{
    while (count > 12) {
        int pivot = middle(byte_at(text, at[0], depth), byte_at(text, at[count / 2], depth),
                           byte_at(text, at[count - 1], depth));
        size_t less = 0, more = count;
        for (size_t i = 0; i < more;) {
            int byte = byte_at(text, at[i], depth);
            if (byte < pivot)
                swap(&at[less++], &at[i++]);
            else if (byte > pivot)
                swap(&at[--more], &at[i]);
            else
                i++;
        }
        if (pivot != 0)
            sort_strings(text, at + less, more - less, depth + 1);
        if (less < count - more) {
            sort_strings(text, at, less, depth);
            at += more;
            count -= more;
        } else {
            sort_strings(text, at + more, count - more, depth);
            count = less;
        }
    }
    insertion_sort(text, at, count, depth);
}

/* Sort suffixes, first by their first byte, so that threads have parts of their own. */
static void sort_suffixes(const char *text, uint32_t *at, size_t count)
{
    size_t begin[257] = {0}, next[256];
    for (size_t i = 0; i < count; i++)
        begin[byte_at(text, at[i], 0) + 1]++;
    for (int c = 0; c < 256; c++) {
        begin[c + 1] += begin[c];
        next[c] = begin[c];
    }
    for (int c = 0; c < 256; c++) { /* each swap brings one to where it belongs */
        while (next[c] < begin[c + 1]) {
            int own = byte_at(text, at[next[c]], 0);
            if (own == c)
                next[c]++;
            else
                swap(&at[next[c]], &at[next[own]++]);
        }
    }
#pragma omp parallel for schedule(dynamic)
    for (int c = 0; c < 256; c++)
        sort_strings(text, at + begin[c], begin[c + 1] - begin[c], 1);
}

/* Whether a suffix begins at a byte: no end of a word, and not inside a character. */
static bool begins(char byte)
{
    return byte != '\0' && ((unsigned char)byte & 0xC0) != 0x80;
}

/* ---- Nodes ---- */

struct node {
    uint32_t depth; /* bytes */
    size_t left;    /* its first suffix */
};

struct search {
    const char *text;
    const uint32_t *at; /* sorted suffixes */
    int64_t longest, least;
    size_t limit;
    struct seed *seeds; /* owned */
    size_t count, capacity;
    struct node *stack; /* owned */
    size_t stack_count, stack_capacity;
};

static const char *sorted_text; /* of compare_seeds(): qsort passes nothing on */
#pragma omp threadprivate(sorted_text)

static int compare_seeds(const void *a, const void *b)
{
    const struct seed *p = a, *q = b;
    if (p->score != q->score)
        return p->score > q->score ? -1 : 1;
    int order = memcmp(sorted_text + p->at, sorted_text + q->at, p->n < q->n ? p->n : q->n);
    return order != 0 ? order : (p->n > q->n) - (p->n < q->n);
}

static void keep_best(struct search *s)
{
    sorted_text = s->text;
    qsort(s->seeds, s->count, sizeof *s->seeds, compare_seeds);
    if (s->count > s->limit)
        s->count = s->limit;
}

/* Bytes that two strings have in common at their beginnings, whole characters only. */
static uint32_t common(const char *a, const char *b)
{
    uint32_t n = 0;
    while (a[n] != '\0' && a[n] == b[n])
        n++;
    while (n > 0 && ((unsigned char)a[n] & 0xC0) == 0x80) /* the character is not whole */
        n--;
    return n;
}

/* The suffixes from node->left to right begin with node->depth common bytes. */
static enum status offer(struct search *s, const struct node *node, size_t right)
{
    const char *p = s->text + s->at[node->left];
    int64_t occurrences = (int64_t)(right - node->left + 1), characters = 0;
    for (uint32_t i = 0; i < node->depth; i++)
        characters += ((unsigned char)p[i] & 0xC0) != 0x80;
    if (characters < 2 || characters > s->longest || occurrences < s->least)
        return STATUS_OK;
    if (s->count >= 4 * s->limit)
        keep_best(s);
    TRY(mem_grow(&s->seeds, &s->capacity, s->count + 1, sizeof *s->seeds, "substrings"));
    s->seeds[s->count++] =
        (struct seed){(uint64_t)(occurrences * characters), s->at[node->left], node->depth};
    return STATUS_OK;
}

static enum status find_nodes(struct search *s, size_t count)
{
    for (size_t i = 1; i <= count; i++) {
        uint32_t depth = i == count ? 0 : common(s->text + s->at[i - 1], s->text + s->at[i]);
        size_t left = i - 1;
        while (s->stack_count > 0 && s->stack[s->stack_count - 1].depth > depth) {
            struct node node = s->stack[--s->stack_count];
            TRY(offer(s, &node, i - 1));
            left = node.left;
        }
        if (s->stack_count > 0 && s->stack[s->stack_count - 1].depth == depth)
            continue;
        TRY(mem_grow(&s->stack, &s->stack_capacity, s->stack_count + 1, sizeof *s->stack,
                     "nodes of suffixes"));
        s->stack[s->stack_count++] = (struct node){depth, left};
    }
    return STATUS_OK;
}

enum status train_seeds(const char *text, size_t n, int64_t longest, int64_t least, size_t limit,
                        struct seed **seeds, size_t *count)
{
    struct search s = {.text = text,
                       .longest = longest,
                       .least = least < 2 ? 2 : least,
                       .limit = limit};
    uint32_t *at;
    size_t suffixes = 0;
    *seeds = NULL;
    *count = 0;
    if (n > UINT32_MAX)
        return status_fail(STATUS_NOMEM, "distinct words have %zu bytes, at most %u fit", n,
                           UINT32_MAX);
    for (size_t i = 0; i < n; i++)
        suffixes += begins(text[i]);
    TRY(mem_alloc_raw(suffixes, sizeof *at, "suffixes of words", &at));
    for (size_t i = 0, to = 0; i < n; i++)
        if (begins(text[i]))
            at[to++] = (uint32_t)i;
    s.at = at;
    sort_suffixes(text, at, suffixes);
    enum status st = limit > 0 ? find_nodes(&s, suffixes) : STATUS_OK;
    if (st == STATUS_OK && s.count > 0)
        keep_best(&s);
    mem_free(at);
    mem_free(s.stack);
    if (st != STATUS_OK) {
        mem_free(s.seeds);
        return st;
    }
    *seeds = s.seeds;
    *count = s.count;
    return STATUS_OK;
}
