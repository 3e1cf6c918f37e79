/*
 * tokenizer_train_parts.h - what the parts of tokenizer training share; see tokenizer_train.h.
 *
 * tokenizer_train.c       options, the order of work
 * tokenizer_train_words.c rows to counted words
 * tokenizer_train_merge.c BPE and WordPiece
 * tokenizer_train_seeds.c frequent substrings, Unigram's first vocabulary
 * tokenizer_train_unigram.c Unigram
 * tokenizer_train_lattice.c the ways to make a word of its pieces
 * tokenizer_train_write.c the files
 *
 * Internal to data/.
 */
#ifndef COHORT_DATA_TOKENIZER_TRAIN_PARTS_H
#define COHORT_DATA_TOKENIZER_TRAIN_PARTS_H

#include <math.h>

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
/* Free what only adding needs; a word that is added after all brings it back. */
void word_table_settle(struct word_table *table);
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

/* Fill v by merging pairs (BPE, WordPiece). The table is emptied once its words are taken: both need
 * not be there at a time. STATUS_NOMEM. */
NODISCARD enum status train_merges(struct vocabulary *v, struct word_table *table,
                                   struct tokenizer_train_report *report);
/* Fill v by Unigram; the table is emptied, too. STATUS_NOMEM. */
NODISCARD enum status train_unigram(struct vocabulary *v, struct word_table *table,
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

/* A piece that Unigram thinks about. */
struct train_piece {
    uint32_t at, n;     /* its text; bytes */
    uint32_t order;     /* characters by code point, then the order of seeds: settles ties */
    bool single, alive; /* single: one character */
    double score;       /* logarithm of its probability */
};

/* A trie of pieces, each with its value: a probability or its logarithm. Start with {0}. */
struct piece_index {
    struct piece_node {
        double value;           /* of the piece; PIECE_GONE: there is none, or it is not alive */
        int32_t piece;          /* the piece that ends here; -1: none */
        uint32_t children, end; /* children have the numbers from children to end */
    } * nodes;             /* owned; (count) by depth; 0: the root */
    unsigned char *labels; /* owned; (count) the byte that leads to a node; ascending among children */
    uint32_t count;
};

#define PIECE_GONE HUGE_VAL

/* Build it anew of pieces that are sorted by the bytes of their texts, all different and not empty.
 * STATUS_NOMEM. */
NODISCARD enum status piece_index_build(struct piece_index *index, const char *text,
                                        const struct train_piece *pieces, size_t count);
/* Set the values of all pieces; PIECE_GONE for those that are not alive. */
void piece_index_values(struct piece_index *index, const double *values);
void piece_index_release(struct piece_index *index);

#define LATTICE_LONGEST 1600 /* bytes of a word */

/* The ways through one word at a time. */
struct lattice; /* opaque */
NODISCARD enum status lattice_create(struct lattice **out);
void lattice_free(struct lattice *l); /* NULL is fine */
/*
 * Read a word of n bytes that begins with the same bytes as the one before, read with the same index
 * and values. With sums, which lattice_expect() is going to add to, all ways are added up; without
 * them (NULL) the best way is found. All ways go without one piece (-1: with all). Each character of
 * the word is a piece. STATUS_NOMEM.
 */
NODISCARD enum status lattice_read(struct lattice *l, const struct piece_index *index,
                                   const char *word, size_t n, size_t same, const double *sums,
                                   int32_t without);
/* Values are probabilities: add how often each piece is expected in count times the word that was
 * read. Returns the logarithm of the word's probability. */
double lattice_expect(struct lattice *l, size_t n, double count, double *sums);
/* Values are logarithms: that of the best way, the first of equal ones. */
double lattice_best(const struct lattice *l, size_t n);
/* The last piece on the best way to *end > 0, which becomes the place where that piece begins. */
int32_t lattice_last(const struct lattice *l, size_t *end);

/* ---- Files ---- */

/* tokenizer.json of v. STATUS_CONFIG: an option does not fit (named). */
NODISCARD enum status train_json(const struct vocabulary *v, struct str *out);
/* All files. STATUS_IO. */
NODISCARD enum status train_write(const struct vocabulary *v, const char *folder);
/* Which special token plays a part of enum NAMED_...: NAMED_UNK, PAD, CLS, SEP, MASK; or -1. */
int32_t train_special(const struct vocabulary *v, int named);

#endif
