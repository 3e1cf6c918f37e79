/*
 * dataset_write.c - tokenized rows into a prepared file; see dataset.h and docs/formats.md.
 *
 * Labels, groups and ids travel as bytes and get their numbers here, on the one process that
 * writes, so that numbers do not depend on how rows were divided.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/dataset.h"
#include "data/dataset_internal.h"
#include "data/h5.h"
#include "data/row_time.h"

#define MOST_COLUMNS 32

struct writer {
    const struct dataset_write_opts *opts;
    const struct dataset_part *part;
    const char **start; /* (rows) where each row's bytes begin */
    uint64_t *offsets;  /* (rows + 1) of tokens */
    struct name_list label_names, group_names, fold_names;
    char **names;         /* classes in their final order; borrowed from label_names */
    int32_t *classes;     /* (rows) */
    float *values;        /* (rows) */
    int64_t *multi_begin; /* (rows + 1) */
    int32_t *multi;
    size_t multi_count, multi_capacity;
    int32_t *groups; /* (rows) */
    int32_t *folds;  /* (rows) */
    double *times;   /* (rows) */
    bool pairs, ids, weighted;
    uint64_t *text_offsets, *id_offsets, *label_name_offsets, *group_name_offsets,
        *fold_name_offsets;
    struct str label_name_bytes, group_name_bytes, fold_name_bytes, source;
    struct h5_output columns[MOST_COLUMNS];
    int ncolumns;
};

static void writer_release(struct writer *w)
{
    mem_free(w->start);
    mem_free(w->offsets);
    name_list_release(&w->label_names);
    name_list_release(&w->group_names);
    name_list_release(&w->fold_names);
    mem_free(w->names);
    mem_free(w->classes);
    mem_free(w->values);
    mem_free(w->multi_begin);
    mem_free(w->multi);
    mem_free(w->groups);
    mem_free(w->folds);
    mem_free(w->times);
    mem_free(w->text_offsets);
    mem_free(w->id_offsets);
    mem_free(w->label_name_offsets);
    mem_free(w->group_name_offsets);
    mem_free(w->fold_name_offsets);
    str_release(&w->label_name_bytes);
    str_release(&w->group_name_bytes);
    str_release(&w->fold_name_bytes);
    str_release(&w->source);
}

/* A field of a row; *n is -1 and the pointer meaningless where it is missing. */
static const char *field_of(const struct writer *w, int64_t row, enum part_field field, int64_t *n)
{
    const int64_t *lengths = w->part->byte_lengths + row * PART_FIELDS;
    const char *p = w->start[row];
    for (int f = 0; f < (int)field; f++)
        p += lengths[f] > 0 ? lengths[f] : 0;
    *n = lengths[field];
    return p;
}

static enum status fail_row(const struct writer *w, int64_t row, const char *what)
{
    return status_fail(STATUS_DATA, "%s, row %lld: %s", w->opts->source,
                       (long long)w->part->source_row[row], what);
}

/* ---- what rows have ---- */

static enum status survey(struct writer *w)
{
    const struct dataset_part *part = w->part;
    const char *at = part->bytes.p;
    TRY(mem_alloc_raw((size_t)part->rows, sizeof *w->start, "the places of rows", &w->start));
    TRY(mem_alloc_raw((size_t)part->rows + 1, sizeof *w->offsets, "the token offsets",
                      &w->offsets));
    w->offsets[0] = 0;
    for (int64_t i = 0; i < part->rows; i++) {
        w->start[i] = at;
        for (int f = 0; f < PART_FIELDS; f++)
            at += part->byte_lengths[i * PART_FIELDS + f] > 0
                      ? part->byte_lengths[i * PART_FIELDS + f]
                      : 0;
        w->offsets[i + 1] = w->offsets[i] + (uint64_t)part->lengths[i];
        w->pairs |= part->split[i] != DATASET_SINGLE;
        w->ids |= part->byte_lengths[i * PART_FIELDS + PART_ID] >= 0;
        w->weighted |= !isnan(part->weight[i]);
    }
    for (int64_t i = 0; w->weighted && i < part->rows; i++) {
        if (isnan(part->weight[i]))
            return fail_row(w, i, "no weight, though other rows have one");
    }
    return STATUS_OK;
}

static bool any_has(const struct writer *w, enum part_field field)
{
    for (int64_t i = 0; i < w->part->rows; i++) {
        if (w->part->byte_lengths[i * PART_FIELDS + field] >= 0)
            return true;
    }
    return false;
}

static bool is_text(const char *p, size_t n)
{
    return utf8_valid_prefix(p, n) == n && memchr(p, '\0', n) == NULL;
}

static enum status number_groups(struct writer *w)
{
    int64_t n;
    if (!any_has(w, PART_GROUP))
        return STATUS_OK;
    TRY(mem_alloc_raw((size_t)w->part->rows, sizeof *w->groups, "the groups of rows", &w->groups));
    for (int64_t i = 0; i < w->part->rows; i++) {
        const char *p = field_of(w, i, PART_GROUP, &n);
        if (n <= 0) /* one group of all the rows that have none would tie strangers together */
            return fail_row(w, i, "no group, though other rows have one");
        if (!is_text(p, (size_t)n))
            return fail_row(w, i, "the group is not UTF-8 text");
        TRY(name_list_add(&w->group_names, p, (size_t)n, &w->groups[i]));
    }
    return STATUS_OK;
}

/* A row without a fold says "": it never is scored. */
static enum status number_folds(struct writer *w)
{
    if (!any_has(w, PART_FOLD))
        return STATUS_OK;
    TRY(mem_alloc_raw((size_t)w->part->rows, sizeof *w->folds, "the folds of rows", &w->folds));
    for (int64_t i = 0; i < w->part->rows; i++) {
        int64_t length;
        const char *p = field_of(w, i, PART_FOLD, &length);
        size_t n = length < 0 ? 0 : (size_t)length;
        if (n > 0 && !is_text(p, n))
            return fail_row(w, i, "the fold is not UTF-8 text");
        TRY(name_list_add(&w->fold_names, n == 0 ? "" : p, n, &w->folds[i]));
    }
    return STATUS_OK;
}

static enum status read_times(struct writer *w)
{
    bool dates = false;
    if (!any_has(w, PART_TIME))
        return STATUS_OK;
    TRY(mem_alloc_raw((size_t)w->part->rows, sizeof *w->times, "the times of rows", &w->times));
    for (int64_t i = 0; i < w->part->rows; i++) {
        int64_t n;
        bool date;
        const char *p = field_of(w, i, PART_TIME, &n);
        if (n <= 0) /* it cannot be put in order */
            return fail_row(w, i, "no time, though other rows have one");
        if (!row_time_parse(p, (size_t)n, &w->times[i], &date))
            return status_fail(STATUS_DATA,
                               "%s, row %lld: time \"%.*s\" is neither a number nor a date such as "
                               "2024-03-01 or 2024-03-01T12:30:00Z",
                               w->opts->source, (long long)w->part->source_row[i],
                               (int)(n < 40 ? n : 40), p);
        if (i > 0 && date != dates)
            return fail_row(w, i,
                            date ? "its time is a date, those before it are numbers"
                                 : "its time is a number, those before it are dates");
        dates = date;
    }
    return STATUS_OK;
}

/* ---- labels ---- */

/* The number of a label: found or added to the names, or refused where the names are fixed. */
static enum status number_label(struct writer *w, int64_t row, const char *p, size_t n,
                                int32_t *number)
{
    struct str known = {0};
    enum status st;
    if (!is_text(p, n))
        return fail_row(w, row, "the label is not UTF-8 text");
    if (w->opts->names == NULL)
        return name_list_add(&w->label_names, p, n, number);
    *number = name_list_find(&w->label_names, p, n);
    if (*number >= 0)
        return STATUS_OK;
    for (size_t i = 0; i < w->label_names.count && i < 6; i++)
        TRY_GOTO(done,
                 str_addf(&known, "%s\"%.40s\"", i == 0 ? "" : ", ", w->label_names.names[i]));
    st = status_fail(STATUS_DATA, "%s, row %lld: label \"%.*s\" is not one of the %zu known: %s%s",
                     w->opts->source, (long long)w->part->source_row[row], (int)(n < 80 ? n : 80),
                     p, w->label_names.count, known.p == NULL ? "" : known.p,
                     w->label_names.count > 6 ? ", ..." : "");
done:
    str_release(&known);
    return st;
}

static enum status add_fixed_names(struct writer *w)
{
    int32_t number;
    for (int i = 0; i < w->opts->classes; i++) {
        const char *name = w->opts->names[i];
        TRY(name_list_add(&w->label_names, name, strlen(name), &number));
        if (number != i)
            return status_fail(STATUS_CONFIG, "labels %d and %d are both \"%s\"", number, i, name);
    }
    return STATUS_OK;
}

static enum status read_classes(struct writer *w)
{
    int64_t n;
    TRY(mem_alloc_raw((size_t)w->part->rows, sizeof *w->classes, "the labels", &w->classes));
    for (int64_t i = 0; i < w->part->rows; i++) {
        const char *p = field_of(w, i, PART_LABEL, &n);
        if (n <= 0)
            return fail_row(w, i, "no label");
        TRY(number_label(w, i, p, (size_t)n, &w->classes[i]));
    }
    return STATUS_OK;
}

static enum status read_values(struct writer *w)
{
    int64_t n;
    TRY(mem_alloc_raw((size_t)w->part->rows, sizeof *w->values, "the labels", &w->values));
    for (int64_t i = 0; i < w->part->rows; i++) {
        const char *p = field_of(w, i, PART_LABEL, &n);
        char text[64];
        double value;
        if (n <= 0)
            return fail_row(w, i, "no label");
        size_t kept = n < 63 ? (size_t)n : 63;
        memcpy(text, p, kept);
        text[kept] = '\0';
        if (kept != (size_t)n || strlen(text) != kept || !parse_double(text, &value) ||
            !isfinite((float)value))
            return status_fail(STATUS_DATA, "%s, row %lld: label \"%s\" is not a number",
                               w->opts->source, (long long)w->part->source_row[i], text);
        w->values[i] = (float)value;
    }
    return STATUS_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static enum status add_multi(struct writer *w, int64_t row, const char *p, size_t n)
{
    int32_t number;
    while (n > 0 && is_blank(*p)) {
        p++;
        n--;
    }
    while (n > 0 && is_blank(p[n - 1]))
        n--;
    if (n == 0)
        return STATUS_OK;
    TRY(number_label(w, row, p, n, &number));
    TRY(mem_grow(&w->multi, &w->multi_capacity, w->multi_count + 1, sizeof *w->multi,
                 "the labels"));
    w->multi[w->multi_count++] = number;
    return STATUS_OK;
}

static enum status read_multi(struct writer *w)
{
    const char *separator = w->opts->label_separator == NULL ? "," : w->opts->label_separator;
    const size_t wide = strlen(separator);
    int64_t length;
    TRY(mem_alloc_raw((size_t)w->part->rows + 1, sizeof *w->multi_begin, "the labels",
                      &w->multi_begin));
    TRY(mem_grow(&w->multi, &w->multi_capacity, 1, sizeof *w->multi, "the labels"));
    w->multi_begin[0] = 0;
    for (int64_t i = 0; i < w->part->rows; i++) {
        const char *p = field_of(w, i, PART_LABEL, &length);
        if (length < 0)
            return fail_row(w, i, "no label");
        size_t n = (size_t)length;
        const char *cut;
        while (wide > 0 && n > 0 && (cut = memmem(p, n, separator, wide)) != NULL) {
            TRY(add_multi(w, i, p, (size_t)(cut - p)));
            n -= (size_t)(cut - p) + wide;
            p = cut + wide;
        }
        TRY(add_multi(w, i, p, n));
        w->multi_begin[i + 1] = (int64_t)w->multi_count;
    }
    return STATUS_OK;
}

/* A name with what it is sorted by. */
struct sorted_name {
    const char *name;
    double value;
    int32_t number; /* by first appearance */
};

static int by_bytes(const void *a, const void *b)
{
    return strcmp(((const struct sorted_name *)a)->name, ((const struct sorted_name *)b)->name);
}

static int by_value(const void *a, const void *b)
{
    const struct sorted_name *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return by_bytes(a, b); /* "1" and "1.0" are two classes */
}

static int by_class(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* From numbers by first appearance to final ones: order of the file must not decide what class 0
 * is. */
static enum status sort_names(struct writer *w)
{
    const size_t n = w->label_names.count;
    struct sorted_name *sorted = NULL;
    int32_t *final = NULL;
    bool numbers = true;
    enum status st;
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *w->names, "the names of classes", &w->names));
    TRY_GOTO(done, mem_alloc(n, sizeof *sorted, "the names of classes", &sorted));
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *final, "the names of classes", &final));
    for (size_t i = 0; i < n; i++) {
        sorted[i].name = w->label_names.names[i];
        sorted[i].number = (int32_t)i;
        numbers = numbers && parse_double(sorted[i].name, &sorted[i].value);
    }
    if (w->opts->names == NULL && n > 1)
        qsort(sorted, n, sizeof *sorted, numbers ? by_value : by_bytes);
    for (size_t i = 0; i < n; i++) {
        w->names[i] = w->label_names.names[sorted[i].number];
        final[sorted[i].number] = (int32_t)i;
    }
    for (int64_t i = 0; w->classes != NULL && i < w->part->rows; i++)
        w->classes[i] = final[w->classes[i]];
    for (size_t i = 0; i < w->multi_count; i++)
        w->multi[i] = final[w->multi[i]];
done:
    mem_free(sorted);
    mem_free(final);
    return st;
}

/* Each row's classes ascending, each once. */
static void tidy_multi(struct writer *w)
{
    int64_t kept = 0, begin = 0;
    for (int64_t i = 0; i < w->part->rows; i++) {
        int64_t end = w->multi_begin[i + 1], first = kept;
        if (end - begin > 1)
            qsort(w->multi + begin, (size_t)(end - begin), sizeof *w->multi, by_class);
        for (int64_t j = begin; j < end; j++) {
            if (kept == first || w->multi[kept - 1] != w->multi[j])
                w->multi[kept++] = w->multi[j];
        }
        begin = end;
        w->multi_begin[i + 1] = kept;
    }
    w->multi_count = (size_t)kept;
}

static enum status read_labels(struct writer *w)
{
    if (w->opts->label_kind == LABEL_NONE)
        return STATUS_OK;
    if (w->opts->label_kind == LABEL_VALUE)
        return read_values(w);
    if (w->opts->names != NULL)
        TRY(add_fixed_names(w));
    TRY(w->opts->label_kind == LABEL_CLASS ? read_classes(w) : read_multi(w));
    TRY(sort_names(w));
    if (w->opts->label_kind == LABEL_MULTI)
        tidy_multi(w);
    return STATUS_OK;
}

/* ---- columns ---- */

static struct h5_output *add_column(struct writer *w, const char *name, enum h5_type type,
                                    int64_t count, const void *values)
{
    struct h5_output *c = &w->columns[w->ncolumns++];
    *c = (struct h5_output){.name = name, .type = type, .count = count, .values = values};
    return c;
}

/* Names as bytes back to back, and where each begins. */
static enum status add_names(struct writer *w, const char *bytes_name, const char *offsets_name,
                             char *const *names, size_t count, struct str *bytes,
                             uint64_t **offsets)
{
    TRY(mem_alloc_raw(count + 1, sizeof **offsets, "the offsets of names", offsets));
    TRY(str_add(bytes, "", 0));
    for (size_t i = 0; i < count; i++) {
        (*offsets)[i] = bytes->n;
        TRY(str_add(bytes, names[i], strlen(names[i])));
    }
    (*offsets)[count] = bytes->n;
    (void)add_column(w, bytes_name, H5_BYTES, (int64_t)bytes->n, bytes->p);
    (void)add_column(w, offsets_name, H5_U64, (int64_t)count + 1, *offsets);
    return STATUS_OK;
}

static enum status emit_fields(struct h5_sink *sink, const struct writer *w, enum part_field first,
                               enum part_field last)
{
    int64_t n;
    for (int64_t i = 0; i < w->part->rows; i++) {
        for (int f = (int)first; f <= (int)last; f++) {
            const char *p = field_of(w, i, (enum part_field)f, &n);
            if (n > 0)
                TRY(h5_sink_add(sink, p, (size_t)n));
        }
    }
    return STATUS_OK;
}

static enum status emit_text(struct h5_sink *sink, const void *writer)
{
    const struct writer *w = writer;
    return emit_fields(sink, w, PART_TEXT, w->pairs ? PART_PAIR : PART_TEXT);
}

static enum status emit_ids(struct h5_sink *sink, const void *writer)
{
    return emit_fields(sink, writer, PART_ID, PART_ID);
}

/* Fields first..last of all rows as one column of bytes (written from where they lie) and one of
 * offsets. */
static enum status add_fields(struct writer *w, const char *bytes_name, const char *offsets_name,
                              enum part_field first, enum part_field last,
                              enum status (*emit)(struct h5_sink *, const void *),
                              uint64_t **offsets)
{
    const int64_t per_row = (int64_t)last - (int64_t)first + 1;
    uint64_t at = 0;
    int64_t next = 0;
    TRY(mem_alloc_raw((size_t)(w->part->rows * per_row) + 1, sizeof **offsets,
                      "the offsets of text", offsets));
    for (int64_t i = 0; i < w->part->rows; i++) {
        for (int f = (int)first; f <= (int)last; f++) {
            int64_t n = w->part->byte_lengths[i * PART_FIELDS + f];
            (*offsets)[next++] = at;
            at += n > 0 ? (uint64_t)n : 0;
        }
    }
    (*offsets)[next] = at;
    struct h5_output *c = add_column(w, bytes_name, H5_BYTES, (int64_t)at, NULL);
    c->emit = emit;
    c->context = w;
    (void)add_column(w, offsets_name, H5_U64, next + 1, *offsets);
    return STATUS_OK;
}

static enum status list_columns(struct writer *w)
{
    const struct dataset_part *part = w->part;
    const int64_t rows = part->rows;
    (void)add_column(w, "tokens", H5_U32, (int64_t)part->tokens.n, part->tokens.p);
    (void)add_column(w, "offsets", H5_U64, rows + 1, w->offsets);
    (void)add_column(w, "split", H5_U32, rows, part->split);
    if (w->classes != NULL)
        (void)add_column(w, "label/class", H5_I32, rows, w->classes);
    if (w->values != NULL)
        (void)add_column(w, "label/value", H5_F32, rows, w->values);
    if (w->multi_begin != NULL) {
        (void)add_column(w, "label/multi_begin", H5_I64, rows + 1, w->multi_begin);
        (void)add_column(w, "label/multi", H5_I32, (int64_t)w->multi_count, w->multi);
    }
    if (w->names != NULL)
        TRY(add_names(w, "label/names", "label/name_offsets", w->names, w->label_names.count,
                      &w->label_name_bytes, &w->label_name_offsets));
    (void)add_column(w, "row/source_row", H5_I64, rows, part->source_row);
    (void)add_column(w, "row/source_offset", H5_I64, rows, part->source_offset);
    if (w->weighted)
        (void)add_column(w, "row/weight", H5_F32, rows, part->weight);
    if (w->groups != NULL) {
        (void)add_column(w, "row/group", H5_I32, rows, w->groups);
        TRY(add_names(w, "row/group_names", "row/group_name_offsets", w->group_names.names,
                      w->group_names.count, &w->group_name_bytes, &w->group_name_offsets));
    }
    if (w->times != NULL)
        (void)add_column(w, "row/time", H5_F64, rows, w->times);
    if (w->folds != NULL) {
        (void)add_column(w, "row/fold", H5_I32, rows, w->folds);
        TRY(add_names(w, "row/fold_names", "row/fold_name_offsets", w->fold_names.names,
                      w->fold_names.count, &w->fold_name_bytes, &w->fold_name_offsets));
    }
    if (w->ids)
        TRY(add_fields(w, "row/id", "row/id_offsets", PART_ID, PART_ID, emit_ids, &w->id_offsets));
    if (w->opts->keep_text)
        TRY(add_fields(w, "text/bytes", "text/offsets", PART_TEXT, w->pairs ? PART_PAIR : PART_TEXT,
                       emit_text, &w->text_offsets));
    return STATUS_OK;
}

/* ---- attributes ---- */

static uint64_t hash_all(const struct writer *w)
{
    const struct dataset_part *part = w->part;
    const int64_t n = (int64_t)part->tokens.n;
    uint64_t tokens = 0;
    for (int64_t at = 0; at < n; at += CONTENT_PIECE)
        tokens = content_hash_tokens(tokens, part->tokens.p + at,
                                     n - at < CONTENT_PIECE ? n - at : CONTENT_PIECE);
    struct content content = {
        .rows = part->rows,
        .offsets = w->offsets,
        .split = part->split,
        .label_kind = w->opts->label_kind,
        .classes = w->classes,
        .values = w->values,
        .multi_begin = w->multi_begin,
        .multi = w->multi,
        .weights = w->weighted ? part->weight : NULL,
        .groups = w->groups,
        .names = (const char *const *)w->names,
        .nnames = (int)w->label_names.count,
        .times = w->times,
        .folds = w->folds,
        .fold_names = (const char *const *)w->fold_names.names,
        .nfold_names = (int)w->fold_names.count,
    };
    return content_hash(tokens, &content);
}

/* Paths may hold any bytes, attributes hold UTF-8: what is none becomes a question mark. */
static enum status copy_source(struct writer *w)
{
    const char *s = w->opts->source;
    size_t n = strnlen(s, 4096);
    TRY(str_add(&w->source, "", 0));
    for (size_t at = 0; at < n;) {
        size_t good = utf8_valid_prefix(s + at, n - at);
        TRY(str_add(&w->source, s + at, good));
        at += good;
        if (at < n) {
            TRY(str_add(&w->source, "?", 1));
            at++;
        }
    }
    return STATUS_OK;
}

static enum status write_file(struct writer *w)
{
    const struct tokenizer_info *t = w->opts->tokenizer;
    const int64_t layout = (t->no_ends ? 4 : 0) | (t->two_separators ? 2 : 0) |
                           (t->one_type ? 1 : 0);
    TRY(copy_source(w));
    const struct h5_attribute attributes[] = {
        {.name = "format", .text = DATASET_FORMAT},
        {.name = "version", .number = DATASET_VERSION},
        {.name = "tool", .text = "cohort " COHORT_VERSION},
        {.name = "source", .text = w->source.p},
        {.name = "source_hash", .is_hash = true, .hash = w->opts->source_hash},
        {.name = "content_hash", .is_hash = true, .hash = hash_all(w)},
        {.name = "tokenizer", .text = t->kind},
        {.name = "tokenizer_hash", .is_hash = true, .hash = t->hash},
        {.name = "vocab_size", .number = t->vocab_size},
        {.name = "cls", .number = t->cls},
        {.name = "sep", .number = t->sep},
        {.name = "pad", .number = t->pad},
        {.name = "unk", .number = t->unk},
        {.name = "mask", .number = t->mask},
        {.name = "model_max_length", .number = t->model_max_length},
        {.name = "label_kind", .text = dataset_label_kinds[w->opts->label_kind]},
        {.name = DATASET_PAIR_LAYOUT, .number = layout},
    };
    /* left out where it says nothing: so files of BERT are as they always were */
    int count = (int)(sizeof attributes / sizeof attributes[0]) - (layout == 0);
    return h5_write(w->opts->path, attributes, count, w->columns, w->ncolumns);
}

enum status dataset_write(const struct dataset_write_opts *opts, const struct dataset_part *part)
{
    struct writer w = {.opts = opts, .part = part};
    enum status st;
    if (part->rows == 0)
        return status_fail(STATUS_DATA, "%s: no rows to prepare", opts->source);
    TRY_GOTO(done, survey(&w));
    TRY_GOTO(done, read_labels(&w));
    TRY_GOTO(done, number_groups(&w));
    TRY_GOTO(done, read_times(&w));
    TRY_GOTO(done, number_folds(&w));
    TRY_GOTO(done, list_columns(&w));
    TRY_GOTO(done, write_file(&w));
done:
    writer_release(&w);
    return st;
}
