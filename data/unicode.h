/*
 * unicode.h - what Hugging Face's tokenizers knows about each code point, for ids equal to its own.
 *
 * The tables are pinned: scripts/generate-unicode asks the library about every code point, because
 * it mixes several frozen Unicode versions. They are not for other uses (they call some assigned
 * characters unassigned).
 *
 * Local, read-only, thread-safe.
 */
#ifndef COHORT_DATA_UNICODE_H
#define COHORT_DATA_UNICODE_H

#include <stdint.h>

#define UNICODE_LIMIT 0x110000u /* code points are below */

enum unicode_flag {
    UNICODE_DROP =
        1, /* clean_text removes it: control, format, private use, unassigned, U+0000, U+FFFD */
    UNICODE_BLANK = 2,       /* clean_text makes it a space */
    UNICODE_SPACE = 4,       /* white space: separates words */
    UNICODE_PUNCT = 8,       /* punctuation: a word by itself */
    UNICODE_NONSPACING = 16, /* strip_accents of BertNormalizer removes it (category Mn) */
    UNICODE_MARK = 32,       /* StripAccents removes it (category M) */
    UNICODE_WORD = 64,       /* \w of regular expressions */
    UNICODE_CJK = 128,       /* handle_chinese_chars puts spaces around it */
    UNICODE_DECOMPOSES = 256 /* NFD changes it */
};

struct unicode_class {
    uint16_t flags;
    uint8_t order; /* canonical combining class; 0: a starter */
    int32_t
        lower; /* what lowercasing adds to the code point; U+0130 is followed by U+0307 as well */
};

extern const char unicode_source[];     /* "tokenizers 0.23.3": part of a tokenizer's hash */
extern const uint8_t unicode_top[];     /* by code point / 1024: a block of unicode_middle */
extern const uint16_t unicode_middle[]; /* blocks of 32: a block of unicode_leaves */
extern const uint8_t unicode_leaves[];  /* blocks of 32: an entry of unicode_classes */
extern const struct unicode_class unicode_classes[];
extern const int unicode_decomposition_count;
extern const uint32_t unicode_decomposed[];          /* sorted; Hangul syllables are not in it */
extern const uint16_t unicode_decomposition_begin[]; /* into unicode_decomposition */
extern const uint32_t unicode_decomposition[];

/* The properties of a code point; those of U+0000 (dropped) where there is no such code point. */
static inline const struct unicode_class *unicode_class(uint32_t c)
{
    if (c >= UNICODE_LIMIT)
        c = 0;
    unsigned block = unicode_middle[(unsigned)unicode_top[c >> 10] << 5 | (c >> 5 & 31)];
    return &unicode_classes[unicode_leaves[block << 5 | (c & 31)]];
}

/* The full canonical decomposition into out; returns its length, 1 (c itself) where c does not
 * decompose. */
int unicode_decompose(uint32_t c, uint32_t out[4]);

#endif
