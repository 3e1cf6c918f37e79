/* json.c - see json.h. */
#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

static enum status parse(const char *bytes, size_t n, const char *name, size_t flags, json_t **out)
{
    json_error_t error;
    *out = json_loadb(bytes, n, flags, &error);
    if (*out == NULL)
        return status_fail(STATUS_FORMAT, "%s:%d: not valid JSON: %s", name, error.line,
                           error.text);
    return STATUS_OK;
}

enum status json_parse(const char *bytes, size_t n, const char *name, json_t **out)
{
    return parse(bytes, n, name, JSON_REJECT_DUPLICATES, out);
}

enum status json_parse_reals(const char *bytes, size_t n, const char *name, json_t **out)
{
    return parse(bytes, n, name, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, out);
}

enum status json_read_file(const char *path, size_t limit, json_t **out)
{
    char *bytes;
    size_t n;
    *out = NULL;
    TRY(file_read(path, limit, &bytes, &n));
    enum status st = json_parse(bytes, n, path, out);
    mem_free(bytes);
    return st;
}

enum status json_write_file(const char *path, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (text == NULL)
        return status_fail(STATUS_NOMEM, "%s: no memory to write JSON", path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL: the length says where the text ends */
    enum status st = file_write_atomic(path, text, n + 1);
    free(text);
    return st;
}

char *json_line(const json_t *value)
{
    return json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(17));
}

enum status json_int_or(const json_t *object, const char *key, const char *where, int64_t low,
                        int64_t high, int64_t fallback, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        *out = fallback;
        return STATUS_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < low ||
        json_integer_value(value) > high) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        enum status st = status_fail(
            STATUS_FORMAT, "%s: \"%s\" is %.60s, wanted a whole number from %lld to %lld", where,
            key, text == NULL ? "?" : text, (long long)low, (long long)high);
        free(text);
        *out = fallback;
        return st;
    }
    *out = json_integer_value(value);
    return STATUS_OK;
}

enum status json_int(const json_t *object, const char *key, const char *where, int64_t low,
                     int64_t high, int64_t *out)
{
    *out = 0;
    if (json_object_get(object, key) == NULL)
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is missing, wanted a whole number", where,
                           key);
    return json_int_or(object, key, where, low, high, 0, out);
}

enum status json_real_or(const json_t *object, const char *key, const char *where, double fallback,
                         double *out)
{
    const json_t *value = json_object_get(object, key);
    *out = fallback;
    if (value == NULL || json_is_null(value))
        return STATUS_OK;
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not a finite number", where, key);
    *out = json_number_value(value);
    return STATUS_OK;
}

enum status json_bool_or(const json_t *object, const char *key, const char *where, bool fallback,
                         bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = fallback;
    if (value == NULL || json_is_null(value))
        return STATUS_OK;
    if (!json_is_boolean(value))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not true or false", where, key);
    *out = json_is_true(value);
    return STATUS_OK;
}

enum status json_text_or(const json_t *object, const char *key, const char *where,
                         const char *fallback, const char **out)
{
    const json_t *value = json_object_get(object, key);
    *out = fallback;
    if (value == NULL || json_is_null(value))
        return STATUS_OK;
    if (!json_is_string(value))
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is not a string", where, key);
    *out = json_string_value(value);
    return STATUS_OK;
}

enum status json_text(const json_t *object, const char *key, const char *where, const char **out)
{
    *out = NULL;
    if (json_object_get(object, key) == NULL)
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is missing, wanted a string", where, key);
    return json_text_or(object, key, where, "", out);
}

json_t *json_finite(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *json_hex64(uint64_t value)
{
    char text[17];
    (void)snprintf(text, sizeof text, "%016" PRIx64, value);
    return json_string(text);
}

enum status json_get_hex64(const json_t *object, const char *key, const char *where, uint64_t *out)
{
    const char *text;
    char *end;
    *out = 0;
    TRY(json_text(object, key, where, &text));
    if (strlen(text) != 16 || text[strspn(text, "0123456789abcdef")] != '\0')
        return status_fail(STATUS_FORMAT, "%s: \"%s\" is \"%.40s\", wanted 16 hex digits", where,
                           key, text);
    *out = strtoull(text, &end, 16);
    return STATUS_OK;
}
