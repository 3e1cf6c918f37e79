/*
 * str.h - text that grows, UTF-8, numbers that read back to the same bits, nearest name.
 */
#ifndef COHORT_BASE_STR_H
#define COHORT_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Bytes that grow; always NUL-terminated once something was added. Start with {0}, end with
 * str_release(). */
struct str {
    char *p;  /* owned; NULL while empty */
    size_t n; /* bytes, the NUL not counted */
    size_t capacity;
};

NODISCARD enum status str_add(struct str *s, const char *bytes, size_t n);
NODISCARD enum status str_addf(struct str *s, const char *format, ...) PRINTF_LIKE(2, 3);
/* Add bytes as a JSON string, quotes included; bytes must be UTF-8. */
NODISCARD enum status str_add_json(struct str *s, const char *bytes, size_t n);
/* Add the shortest decimal that reads back to the same float or double; "NaN", "Infinity" as JSON
 * null. */
NODISCARD enum status str_add_float(struct str *s, float value);
NODISCARD enum status str_add_double(struct str *s, double value);
void str_clear(struct str *s); /* n = 0, memory kept */
void str_release(struct str *s);

/* The byte offset of the first byte that is not UTF-8 (overlong forms, surrogates and > U+10FFFF
 * are refused), or n. */
size_t utf8_valid_prefix(const char *s, size_t n);
/* Decode one code point of valid UTF-8 at s (n > 0 bytes left); returns its length in bytes. */
int utf8_decode(const char *s, size_t n, uint32_t *code_point);
/* Encode; returns the number of bytes written to out (1 to 4). */
int utf8_encode(uint32_t code_point, char out[4]);

/* Parse the whole of s; false unless it is one number in range and nothing else. "C" locale
 * whatever is set. */
bool parse_int64(const char *s, int64_t *out);
bool parse_double(const char *s, double *out); /* finite only */
bool parse_bool(const char *s, bool *out);     /* true false yes no on off 1 0 */

/* The entry of names[0..count) nearest to word by edit distance, or NULL if none is near enough to
 * suggest. */
const char *nearest_name(const char *word, const char *const *names, size_t count);

#endif
