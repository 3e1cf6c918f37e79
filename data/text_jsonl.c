/*
 * text_jsonl.c - rows of JSON, one object a line. Jansson reads the line; a number is taken as it
 * is written, because printing what was parsed would turn the label 1.0 into 1 and 0.1 into
 * 0.10000000000000001.
 */
#include <string.h>

#include "base/json.h"
#include "data/text_internal.h"

static bool is_blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r')
            return false;
    }
    return true;
}

static const char *kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_NULL:
        return "null";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "a number";
    }
}

void text_jsonl_release(struct text_reader *r)
{
    json_decref(r->json);
    r->json = NULL;
}

static enum status jsonl_next(struct text_reader *r, bool *more)
{
    json_error_t error;
    do {
        TRY(text_line(r, &r->row, &r->row_n, more));
        if (!*more)
            return STATUS_OK;
    } while (is_blank(r->row, r->row_n));
    TRY(text_check(r, r->row, r->row_n, r->row_offset));
    text_jsonl_release(r);
    json_t *value = json_loadb(r->row, r->row_n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    r->json = value;
    if (value == NULL)
        return text_fail(r, "not valid JSON: %s", error.text);
    if (!json_is_object(value))
        return text_fail(r, "%s, wanted an object such as {\"text\": \"...\"}", kind(value));
    return STATUS_OK;
}

static enum status jsonl_header(struct text_reader *r)
{
    const char *key;
    json_t *value;
    bool more;
    TRY(jsonl_next(r, &more));
    if (!more)
        return status_fail(STATUS_DATA, "%s is empty, wanted one JSON object a line",
                           r->source.name);
    json_object_foreach(r->json, key, value) TRY(text_add_column(r, key, strlen(key)));
    r->pending = true;
    return STATUS_OK;
}

/* Behind the JSON string that begins at p[i]. */
static size_t skip_string(const char *p, size_t n, size_t i)
{
    for (i++; i < n && p[i] != '"'; i++) {
        if (p[i] == '\\')
            i++;
    }
    return i + 1;
}

/* The text of the value that stands index-th in a line which Jansson has accepted as an object. */
static struct text_field value_text(const char *p, size_t n, size_t index)
{
    size_t i = 0, depth = 0, begin = 0;
    while (i < n) {
        if (p[i] == '"') {
            i = skip_string(p, n, i);
            continue;
        }
        bool ends = depth == 1 && (p[i] == ',' || p[i] == '}');
        if (ends && index-- == 0)
            break;
        if (depth == 1 && p[i] == ':')
            begin = i + 1;
        if (p[i] == '{' || p[i] == '[')
            depth++;
        else if (p[i] == '}' || p[i] == ']')
            depth--;
        i++;
    }
    while (begin < i && (p[begin] == ' ' || p[begin] == '\t' || p[begin] == '\r'))
        begin++;
    while (i > begin && (p[i - 1] == ' ' || p[i - 1] == '\t' || p[i - 1] == '\r'))
        i--;
    return (struct text_field){p + begin, i - begin};
}

static struct text_field number_text(const struct text_reader *r, const json_t *wanted)
{
    const char *key;
    json_t *value;
    size_t index = 0;
    json_object_foreach(r->json, key, value)
    { /* in the order of the text */
        if (value == wanted)
            break;
        index++;
    }
    return value_text(r->row, r->row_n, index);
}

static enum status jsonl_cells(struct text_reader *r)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        const json_t *value = json_object_get(r->json, r->slots[i].name);
        struct text_field *cell = &r->cells[i];
        *cell = (struct text_field){0};
        if (value == NULL && r->slots[i].required)
            return text_fail(r, "no \"%s\"; a missing text is written null", r->slots[i].name);
        if (value == NULL || json_is_null(value))
            continue;
        if (json_is_string(value))
            *cell = (struct text_field){json_string_value(value), json_string_length(value)};
        else if (json_is_boolean(value))
            *cell = json_is_true(value) ? (struct text_field){"true", 4}
                                        : (struct text_field){"false", 5};
        else if (json_is_number(value))
            *cell = number_text(r, value);
        else
            return text_fail(r, "\"%s\" is %s, wanted a string, a number, true, false or null",
                             r->slots[i].name, kind(value));
    }
    return STATUS_OK;
}

const struct text_parser text_jsonl = {jsonl_header, jsonl_next, jsonl_cells};
