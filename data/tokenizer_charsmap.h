/*
 * tokenizer_charsmap.h - SentencePiece's precompiled map of texts to texts: a double array and the
 * texts that its leaves point to.
 *
 * The map comes from files and is not trusted: no walk leaves the array, and what a leaf points to
 * is whole characters of the texts, or nothing. Read-only once made. Internal to data/.
 */
#ifndef COHORT_DATA_TOKENIZER_CHARSMAP_H
#define COHORT_DATA_TOKENIZER_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* Start with {0}: maps nothing. */
struct charsmap {
    uint32_t *units; /* owned */
    size_t count;
    char *texts; /* owned; n bytes and a NUL, each text with a NUL behind it */
    size_t n;
    const char *ascii[128]; /* what single ASCII characters become, in texts; NULL: themselves */
};

/* Make a map of the bytes in a file. n == 0 gives one that maps nothing. STATUS_FORMAT. */
NODISCARD enum status charsmap_read(struct charsmap *map, const char *bytes, size_t n,
                                    const char *where);
/* As charsmap_read, from base64 without white space. */
NODISCARD enum status charsmap_read_base64(struct charsmap *map, const char *text, size_t n,
                                           const char *where);
void charsmap_release(struct charsmap *map);

/*
 * The longest (or the shortest) beginning of s that the map has: its length, 0 if there is none,
 * and what it becomes.
 */
size_t charsmap_find(const struct charsmap *map, const char *s, size_t n, bool longest,
                     const char **to, size_t *to_n);

/* Map n bytes of valid UTF-8 as tokenizers' Precompiled does, by grapheme clusters, to at most limit
 * bytes. STATUS_NOMEM. */
NODISCARD enum status charsmap_apply(const struct charsmap *map, const char *s, size_t n,
                                     size_t limit, struct str *to);

/*
 * How long a text of n bytes may grow when files say what becomes of it. Real ones make a few times
 * as much of it; steps after steps that each make a thousand bytes of one would take all memory.
 */
size_t text_limit(size_t n);
/* str_add(), up to limit bytes. STATUS_NOMEM. */
NODISCARD enum status text_add(struct str *to, size_t limit, const char *s, size_t n);

#endif
