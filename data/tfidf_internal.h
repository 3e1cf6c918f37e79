/*
 * tfidf_internal.h - the counts, as tfidf.c makes them and tfidf_fit.c reads them.
 */
#ifndef COHORT_DATA_TFIDF_INTERNAL_H
#define COHORT_DATA_TFIDF_INTERNAL_H

#include "data/tfidf.h"

struct word {
    size_t begin;
    uint32_t length;
};

struct tfidf {
    struct tfidf_opts opts;
    int64_t rows, words; /* words of the texts */
    struct str bytes;    /* the different words, back to back */
    struct word *word;   /* (nwords) by number; sorted bytewise by tfidf_finish() */
    size_t nwords, word_capacity;
    int32_t *slots; /* (nslots) hash table: index of a word + 1; gone after tfidf_finish() */
    size_t nslots;
    uint32_t *stream;                         /* (nstream) word number + 1, 0 behind each row */
    size_t nstream, stream_capacity, longest; /* longest: words of a row */
    struct str lower;                         /* scratch */
    bool finished;
    /* columns */
    int64_t terms, pairs;
    int64_t *begin;  /* (terms + 1) */
    int32_t *row;    /* (pairs) ascending in a column */
    uint16_t *level; /* (pairs) which count */
    uint32_t *count; /* (levels) the counts that there are */
    int levels;
    size_t count_capacity;
    uint32_t *first; /* (terms) a place in the stream where the term stands */
    uint8_t *length; /* (terms) its words */
};

#endif
