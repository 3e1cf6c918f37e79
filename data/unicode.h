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

#include <stddef.h>
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

/* What a second table says: compatibility forms, letters and digits of regular expressions, and
 * what part a code point plays in grapheme clusters. */
enum unicode_shape {
    SHAPE_LETTER = 1,      /* \p{L} */
    SHAPE_NUMBER = 2,      /* \p{N} */
    SHAPE_NUMERIC = 4,     /* what Digits calls a digit */
    SHAPE_COMPAT = 8,      /* NFKD differs from NFD */
    SHAPE_CONTROL = 16,    /* a cluster of its own */
    SHAPE_EXTEND = 32,     /* joins the cluster before it (Extend, ZWJ, SpacingMark) */
    SHAPE_SPACING = 64,    /* of those, SpacingMark */
    SHAPE_PREPEND = 128,   /* what follows joins it */
    SHAPE_PICTURE = 256,   /* Extended_Pictographic */
    SHAPE_CONSONANT = 512, /* Indic_Conjunct_Break: Consonant, Linker, and Linker or Extend */
    SHAPE_LINKER = 1024,
    SHAPE_INSIDE = 2048,
    SHAPE_L = 4096, /* parts of Hangul syllables; whole ones are not in the table */
    SHAPE_V = 8192,
    SHAPE_T = 16384
};

struct unicode_pair {
    uint32_t first, second, composed;
};

extern const uint8_t unicode_shape_top[]; /* as unicode_top, middle and leaves */
extern const uint16_t unicode_shape_middle[];
extern const uint8_t unicode_shape_leaves[];
extern const uint16_t unicode_shapes[];
extern const int unicode_compat_count;
extern const uint32_t unicode_compat[]; /* sorted code points that have SHAPE_COMPAT */
extern const uint16_t unicode_compat_begin[];
extern const uint32_t unicode_compat_pool[];
extern const int unicode_pair_count;
extern const struct unicode_pair unicode_pairs[]; /* sorted; Hangul syllables are not in it */

static inline unsigned unicode_shape(uint32_t c)
{
    if (c >= UNICODE_LIMIT)
        c = 0;
    unsigned block =
        unicode_shape_middle[(unsigned)unicode_shape_top[c >> 10] << 5 | (c >> 5 & 31)];
    return unicode_shapes[unicode_shape_leaves[block << 5 | (c & 31)]];
}

#define UNICODE_LONGEST 18 /* code points that one becomes at most */

/* The full compatibility decomposition (NFKD) into out; returns its length. */
int unicode_decompose_compat(uint32_t c, uint32_t out[UNICODE_LONGEST]);
/* What two code points compose to in NFC; 0: nothing. */
uint32_t unicode_compose(uint32_t first, uint32_t second);
/* The length in bytes of the grapheme cluster that begins at s, valid UTF-8 of n > 0 bytes. */
size_t unicode_cluster(const char *s, size_t n);

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
