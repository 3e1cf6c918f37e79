/*
 * words.h - lowercase and words as Python has them: str.lower(), and the matches of \b\w\w+\b,
 * scikit-learn's default token pattern.
 *
 * A word is two or more word characters: letters and numbers of any kind, and the underscore.
 * Combining marks are none, so that Indic vowel signs and decomposed accents part words, as they do
 * there. Tables are pinned (scripts/generate-words) and differ from data/unicode.h, which answers
 * for other libraries.
 *
 * Local, read-only, thread-safe.
 */
#ifndef COHORT_DATA_WORDS_H
#define COHORT_DATA_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

enum words_flag {
    WORDS_WORD = 1,  /* \w */
    WORDS_CASED = 2, /* these two decide which sigma is a final one */
    WORDS_IGNORABLE = 4
};
struct words_lower_run {
    uint32_t first, last, step; /* every step-th code point */
    int32_t add;
};

extern const char words_source[]; /* "Unicode 14.0.0" */
extern const int words_run_count;
extern const uint32_t words_runs[]; /* sorted: first code point << 3 | flags, up to the next */
extern const int words_lower_count;
extern const struct words_lower_run words_lower_runs[]; /* sorted */

/* Flags of a code point. */
unsigned words_flags(uint32_t c);
/* What a code point becomes alone; U+0130 is followed by U+0307 as well. */
uint32_t words_lower_point(uint32_t c);

/* Append n bytes of valid UTF-8 in lower case. STATUS_NOMEM. */
NODISCARD enum status words_lower(const char *text, size_t n, struct str *out);
/* The next word that begins at or behind *at in n bytes of valid UTF-8: its bytes are [*begin, *at)
 * afterwards. false: there is none. */
bool words_next(const char *text, size_t n, size_t *at, size_t *begin);

#endif
