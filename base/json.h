/*
 * json.h - JSON through Jansson, read strictly and with sentences that name the place.
 *
 * Reading: duplicate keys, bad UTF-8, numbers out of range and deep nesting are refused. Values are
 * Jansson's json_t; the getters here fail with "FILE: KEY is ..., wanted ...". 64-bit hashes travel
 * as hex strings.
 */
#ifndef COHORT_BASE_JSON_H
#define COHORT_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Parse n bytes; name is used in sentences. *out is owned (json_decref). STATUS_FORMAT. */
NODISCARD enum status json_parse(const char *bytes, size_t n, const char *name, json_t **out);
/* As json_parse, but every number becomes a real: for files that may hold whole numbers of more
 * than 64 bits. */
NODISCARD enum status json_parse_reals(const char *bytes, size_t n, const char *name, json_t **out);
/* Parse a whole file of at most limit bytes. STATUS_NOINPUT, STATUS_IO, STATUS_FORMAT. */
NODISCARD enum status json_read_file(const char *path, size_t limit, json_t **out);
/* Write atomically (file_write_atomic), indented by 2, keys in insertion order, reals with 17
 * digits. */
NODISCARD enum status json_write_file(const char *path, const json_t *value);
/* One line without spaces, as a string owned by the caller (free()); NULL when memory ran out. */
char *json_line(const json_t *value);

/*
 * Fetch object[key]. where names the file. A missing key gives fallback (the _or forms) or
 * STATUS_FORMAT; a value of another type or out of [low, high] is STATUS_FORMAT in both forms.
 * Strings are borrowed from object.
 */
NODISCARD enum status json_int(const json_t *object, const char *key, const char *where,
                               int64_t low, int64_t high, int64_t *out);
NODISCARD enum status json_int_or(const json_t *object, const char *key, const char *where,
                                  int64_t low, int64_t high, int64_t fallback, int64_t *out);
NODISCARD enum status json_real_or(const json_t *object, const char *key, const char *where,
                                   double fallback, double *out);
NODISCARD enum status json_bool_or(const json_t *object, const char *key, const char *where,
                                   bool fallback, bool *out);
NODISCARD enum status json_text(const json_t *object, const char *key, const char *where,
                                const char **out);
NODISCARD enum status json_text_or(const json_t *object, const char *key, const char *where,
                                   const char *fallback, const char **out);
/* A real that JSON can hold: null for NaN and infinities. New reference; NULL when memory ran out.
 */
json_t *json_finite(double value);
/* "0123456789abcdef"; new reference. */
json_t *json_hex64(uint64_t value);
NODISCARD enum status json_get_hex64(const json_t *object, const char *key, const char *where,
                                     uint64_t *out);

#endif
