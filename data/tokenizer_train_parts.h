/*
 * tokenizer_train_parts.h - what the parts of tokenizer training share; see tokenizer_train.h.
 *
 * tokenizer_train.c       options, the order of work
 * tokenizer_train_words.c rows to counted words
 * tokenizer_train_merge.c BPE and WordPiece
 * tokenizer_train_seeds.c frequent substrings, Unigram's first vocabulary
 * tokenizer_train_unigram.c Unigram
 * tokenizer_train_write.c the files
 *
 * Internal to data/.
 */
#ifndef COHORT_DATA_TOKENIZER_TRAIN_PARTS_H
#define COHORT_DATA_TOKENIZER_TRAIN_PARTS_H

#include "data/tokenizer_parts.h"
#include "data/tokenizer_train.h"

#define TRAIN_MARK "\xE2\x96\x81" /* U+2581 */
#define TRAIN_PREFIX "##"
#define TRAIN_WORDPIECE_LONGEST 100 /* characters: longer words are unknown to WordPiece */
#define TRAIN_LONGEST 4096          /* bytes of a word of the other models */

/* ---- Words ---- */

struct train_word {
    uint64_t count;
    uint64_t at; /* in text */
    uint32_t n;  /* bytes */
    uint32_t hash;
};

/* Distinct words with their counts; start with {0}. */
struct word_table {
    struct train_word *words; /* owned; (count) */
    size_t count, capacity;
    char *text; /* owned */
    size_t text_n, text_capacity;
    uint32_t *slots; /* owned; a hash table of 1 + index; 0: free */
    size_t slot_count;
    uint64_t seen, longer; /* words counted; words left out as too long */
};

void word_table_release(struct word_table *table);
/* Count a word n times more. STATUS_NOMEM. */
NODISCARD enum status word_table_add(struct word_table *table, const char *word, size_t length,
                                     uint64_t n);

/* Count the words of all rows, as t's steps cut them (its model is replaced), with at most
 * opts->max_words words kept. Statuses of the text reader; STATUS_NOMEM. */
NODISCARD enum status train_count(const struct tokenizer_train_opts *opts, struct tokenizer *t,
                                  const struct text_opts *inputs, int count,
                                  struct word_table *table, struct tokenizer_train_report *report);

/* ---- A vocabulary in the making ---- */

struct train_merge {
    int32_t left, right;
};

struct vocabulary {
    const struct tokenizer_train_opts *opts;
    bool bytes;       /* the letters of words are bytes */
    int32_t specials; /* ids below are special tokens */
    struct trie ids;  /* pieces to ids */
    struct str text;  /* pieces, each with a NUL behind it */
    size_t *begin;    /* owned; (count) into text */
    size_t count, capacity;
    double *scores; /* owned; (count), Unigram; NULL */
    struct train_merge *merges; /* owned */
    size_t merge_count, merge_capacity;
    /* The alphabet: characters in order, and what of it each letter is. */
    uint32_t *letters; /* owned; sorted code points; bytes: not used */
    int64_t letter_count;
    int32_t ascii[128]; /* what alphabet_find() says of ASCII */
};

static inline const char *vocabulary_piece(const struct vocabulary *v, int32_t id)
{
    return v->text.p + v->begin[id];
}

/* The id of a piece, which is added if it is new. STATUS_NOMEM. */
NODISCARD enum status vocabulary_add(struct vocabulary *v, const char *piece, size_t n,
                                     int32_t *id);
/* The place of a character in the alphabet, or -1. */
int64_t alphabet_find(const struct vocabulary *v, uint32_t c);

/* Fill v by merging pairs (BPE, WordPiece). STATUS_NOMEM. */
NODISCARD enum status train_merges(struct vocabulary *v, const struct word_table *table,
                                   struct tokenizer_train_report *report);
/* Fill v by Unigram. STATUS_NOMEM. */
NODISCARD enum status train_unigram(struct vocabulary *v, const struct word_table *table,
                                    struct tokenizer_train_report *report);

/* Sort offsets of NUL-terminated strings in text bytewise, from the strings' byte depth on. */
void sort_strings(const char *text, uint32_t *at, size_t count, size_t depth);

/* A substring of words; at is where it occurs. */
struct seed {
    uint64_t score; /* occurrences in distinct words times characters */
    uint32_t at, n; /* bytes */
};
/*
 * The at most limit best substrings of 2 to longest characters that at least least of the
 * NUL-terminated words in text (n bytes) have, best first, equal scores by bytes: right-maximal ones
 * only. *seeds is owned by the caller (mem_free). STATUS_NOMEM.
 */
NODISCARD enum status train_seeds(const char *text, size_t n, int64_t longest, int64_t least,
                                  size_t limit, struct seed **seeds, size_t *count);

/* ---- Files ---- */

/* tokenizer.json of v. STATUS_CONFIG: an option does not fit (named). */
NODISCARD enum status train_json(const struct vocabulary *v, struct str *out);
/* All files. STATUS_IO. */
NODISCARD enum status train_write(const struct vocabulary *v, const char *folder);
/* Which special token plays a part of enum NAMED_...: NAMED_UNK, PAD, CLS, SEP, MASK; or -1. */
int32_t train_special(const struct vocabulary *v, int named);

#endif
