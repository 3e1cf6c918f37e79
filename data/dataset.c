/*
 * dataset.c - reading a prepared file; see dataset.h, docs/formats.md, and h5.h for what is refused
 * before this.
 *
 * What a row needs for planning (offsets, split, labels, weights, groups) is held in memory and was
 * checked; tokens, text and ids stay in the file and are checked when they are read, since anyone
 * may change a file under our hands.
 */
#include "data/dataset.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"
#include "data/dataset_internal.h"
#include "data/h5.h"

struct dataset {
    struct h5_file file;
    int max_length;
    struct chunk_rule chunks;
    int64_t *units; /* (rows + 1) units before each row; NULL: rows are units */
    struct dataset_info info;
    struct tokenizer_info tokenizer;
    char *source, *kind, *tool;
    uint64_t *offsets; /* (rows + 1) */
    uint32_t *split;   /* (rows) */
    int32_t *classes;
    float *values;
    int64_t *multi_begin; /* (rows + 1) */
    int32_t *multi;
    float *weights;
    int32_t *groups, *folds;
    double *times;
    struct name_list names, group_names, fold_names;
    struct h5_column tokens, text, text_offsets, id, id_offsets, source_row, source_offset;
    int32_t *scratch; /* (2 * max_length + 2) tokens of one row */
};

/* ---- opening ---- */

static enum status read_attributes(struct dataset *ds)
{
    const struct h5_file *file = &ds->file;
    struct tokenizer_info *t = &ds->tokenizer;
    char *text;
    int64_t value;
    const struct {
        const char *name;
        int32_t *id;
        int64_t least;
    } ids[] = {
        {"cls", &t->cls, 0},  {"sep", &t->sep, 0},    {"pad", &t->pad, 0},
        {"unk", &t->unk, -1}, {"mask", &t->mask, -1},
    };

    TRY(h5_get_text(file, "format", &text));
    bool ours = strcmp(text, DATASET_FORMAT) == 0;
    mem_free(text);
    if (!ours)
        return status_fail(STATUS_FORMAT, "%s: attribute \"format\" is not \"" DATASET_FORMAT "\"",
                           file->path);
    TRY(h5_get_int(file, "version", INT64_MIN, INT64_MAX, &value));
    if (value != DATASET_VERSION)
        return status_fail(
            STATUS_FORMAT,
            "%s: prepared dataset of version %lld, this cohort reads version %d: prepare "
            "it again",
            file->path, (long long)value, DATASET_VERSION);
    TRY(h5_get_text(file, "tool", &ds->tool));
    TRY(h5_get_text(file, "source", &ds->source));
    TRY(h5_get_text(file, "tokenizer", &ds->kind));
    TRY(h5_get_hash(file, "source_hash", &ds->info.source_hash));
    TRY(h5_get_hash(file, "content_hash", &ds->info.content_hash));
    TRY(h5_get_hash(file, "tokenizer_hash", &t->hash));
    TRY(h5_get_int(file, "vocab_size", 1, INT32_MAX, &value));
    t->vocab_size = (int)value;
    TRY(h5_get_int_or(file, DATASET_PAIR_LAYOUT, 0, 7, 0, &value));
    t->one_type = (value & 1) != 0;
    t->two_separators = (value & 2) != 0;
    t->no_ends = (value & 4) != 0;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        const bool none = i < 2 && t->no_ends;
        TRY(h5_get_int(file, ids[i].name, none ? -1 : ids[i].least, none ? -1 : t->vocab_size - 1,
                       &value));
        *ids[i].id = (int32_t)value;
    }
    TRY(h5_get_int(file, "model_max_length", 0, INT32_MAX, &value));
    t->model_max_length = (int)value;
    t->kind = ds->kind;
    TRY(h5_get_text(file, "label_kind", &text));
    int kind = 0;
    while (kind < 4 && strcmp(text, dataset_label_kinds[kind]) != 0)
        kind++;
    mem_free(text);
    if (kind == 4)
        return status_fail(
            STATUS_FORMAT,
            "%s: attribute \"label_kind\" is unknown, wanted none, class, value or multi",
            file->path);
    ds->info.label_kind = (enum label_kind)kind;
    return STATUS_OK;
}

/* Read a whole column of count values (any number if < 0) into fresh memory. */
static enum status load(const struct h5_file *file, const char *name, enum h5_type type,
                        int64_t count, void *out, int64_t *found)
{
    struct h5_column column;
    void *values = NULL;
    memcpy(out, &values, sizeof values);
    TRY(h5_column_open(file, name, type, count, &column));
    enum status st = mem_alloc_raw((size_t)column.count, h5_type_size(type), name, &values);
    if (st == STATUS_OK)
        st = h5_column_read(file, &column, 0, column.count, values);
    if (st == STATUS_OK) {
        memcpy(out, &values, sizeof values);
        if (found != NULL)
            *found = column.count;
    } else {
        mem_free(values);
    }
    return st;
}

static enum status open_rows(struct dataset *ds)
{
    const struct h5_file *file = &ds->file;
    int64_t count;
    TRY(h5_column_open(file, "tokens", H5_U32, -1, &ds->tokens));
    TRY(load(file, "offsets", H5_U64, -1, &ds->offsets, &count));
    if (count < 2)
        return status_fail(STATUS_FORMAT, "%s: /offsets has %lld values: there are no rows",
                           file->path, (long long)count);
    const int64_t rows = count - 1;
    ds->info.rows = rows;
    ds->info.tokens = ds->tokens.count;
    TRY(load(file, "split", H5_U32, rows, &ds->split, NULL));
    if (ds->offsets[0] != 0)
        return status_fail(STATUS_FORMAT, "%s: /offsets begins with %llu, wanted 0", file->path,
                           (unsigned long long)ds->offsets[0]);
    for (int64_t i = 0; i < rows; i++) {
        uint64_t from = ds->offsets[i], to = ds->offsets[i + 1];
        if (to < from || to - from > INT32_MAX)
            return status_fail(STATUS_FORMAT, "%s: row %lld begins at token %llu and ends at %llu",
                               file->path, (long long)i, (unsigned long long)from,
                               (unsigned long long)to);
        if (ds->split[i] != DATASET_SINGLE && ds->split[i] > to - from)
            return status_fail(
                STATUS_FORMAT, "%s: row %lld has %llu tokens, %u of them in its first text",
                file->path, (long long)i, (unsigned long long)(to - from), ds->split[i]);
        ds->info.has_pairs |= ds->split[i] != DATASET_SINGLE;
    }
    if (ds->offsets[rows] != (uint64_t)ds->tokens.count)
        return status_fail(STATUS_FORMAT, "%s: the last row ends at token %llu, /tokens has %lld",
                           file->path, (unsigned long long)ds->offsets[rows],
                           (long long)ds->tokens.count);
    return STATUS_OK;
}

/* Names as bytes and offsets: UTF-8, no NUL, all different. */
static enum status load_names(const struct h5_file *file, const char *bytes_name,
                              const char *offsets_name, struct name_list *list)
{
    char *bytes = NULL;
    uint64_t *offsets = NULL;
    int64_t nbytes, count;
    int32_t number;
    enum status st;
    TRY_GOTO(done, load(file, bytes_name, H5_BYTES, -1, &bytes, &nbytes));
    TRY_GOTO(done, load(file, offsets_name, H5_U64, -1, &offsets, &count));
    if (count < 1 || offsets[0] != 0 || offsets[count - 1] != (uint64_t)nbytes ||
        count > INT32_MAX / 4) {
        st = status_fail(STATUS_FORMAT, "%s: /%s does not cover /%s", file->path, offsets_name,
                         bytes_name);
        goto done;
    }
    for (int64_t i = 0; i + 1 < count; i++) {
        if (offsets[i + 1] < offsets[i] || offsets[i + 1] > (uint64_t)nbytes) {
            st = status_fail(STATUS_FORMAT, "%s: /%s runs backwards at %lld", file->path,
                             offsets_name, (long long)i);
            goto done;
        }
        const char *p = bytes + offsets[i];
        size_t n = (size_t)(offsets[i + 1] - offsets[i]);
        if (utf8_valid_prefix(p, n) != n || memchr(p, '\0', n) != NULL) {
            st = status_fail(STATUS_FORMAT, "%s: name %lld of /%s is not UTF-8 text", file->path,
                             (long long)i, bytes_name);
            goto done;
        }
        TRY_GOTO(done, name_list_add(list, p, n, &number));
        if (number != i) {
            st = status_fail(STATUS_FORMAT, "%s: names %d and %lld of /%s are the same", file->path,
                             number, (long long)i, bytes_name);
            goto done;
        }
    }
done:
    mem_free(bytes);
    mem_free(offsets);
    return st;
}

static enum status check_range(const struct h5_file *file, const char *name, const int32_t *values,
                               int64_t n, size_t names)
{
    for (int64_t i = 0; i < n; i++) {
        if (values[i] < 0 || (size_t)values[i] >= names)
            return status_fail(STATUS_FORMAT, "%s: value %lld of /%s is %d, there are %zu names",
                               file->path, (long long)i, name, values[i], names);
    }
    return STATUS_OK;
}

static enum status check_floats(const struct h5_file *file, const char *name, const float *values,
                                int64_t n, float low)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(values[i]) || values[i] < low)
            return status_fail(STATUS_FORMAT, "%s: value %lld of /%s is %g", file->path,
                               (long long)i, name, (double)values[i]);
    }
    return STATUS_OK;
}

static enum status check_doubles(const struct h5_file *file, const char *name, const double *values,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return status_fail(STATUS_FORMAT, "%s: value %lld of /%s is %g", file->path,
                               (long long)i, name, values[i]);
    }
    return STATUS_OK;
}

static enum status load_multi(struct dataset *ds)
{
    const struct h5_file *file = &ds->file;
    const int64_t rows = ds->info.rows;
    int64_t count;
    TRY(load(file, "label/multi_begin", H5_I64, rows + 1, &ds->multi_begin, NULL));
    TRY(load(file, "label/multi", H5_I32, -1, &ds->multi, &count));
    const int64_t *begin = ds->multi_begin;
    if (begin[0] != 0 || begin[rows] != count)
        return status_fail(STATUS_FORMAT,
                           "%s: /label/multi_begin covers %lld to %lld of %lld labels", file->path,
                           (long long)begin[0], (long long)begin[rows], (long long)count);
    for (int64_t i = 0; i < rows; i++) {
        if (begin[i + 1] < begin[i] || begin[i + 1] > count)
            return status_fail(STATUS_FORMAT, "%s: /label/multi_begin runs backwards at row %lld",
                               file->path, (long long)i);
        for (int64_t j = begin[i] + 1; j < begin[i + 1]; j++) {
            if (ds->multi[j] <= ds->multi[j - 1])
                return status_fail(STATUS_FORMAT, "%s: the labels of row %lld are not ascending",
                                   file->path, (long long)i);
        }
    }
    return check_range(file, "label/multi", ds->multi, count, ds->names.count);
}

static enum status open_labels(struct dataset *ds)
{
    const struct h5_file *file = &ds->file;
    const int64_t rows = ds->info.rows;
    if (ds->info.label_kind == LABEL_NONE)
        return STATUS_OK;
    if (ds->info.label_kind == LABEL_VALUE) {
        TRY(load(file, "label/value", H5_F32, rows, &ds->values, NULL));
        return check_floats(file, "label/value", ds->values, rows, -INFINITY);
    }
    TRY(load_names(file, "label/names", "label/name_offsets", &ds->names));
    ds->info.classes = (int)ds->names.count;
    ds->info.names = (const char *const *)ds->names.names;
    if (ds->info.label_kind == LABEL_MULTI)
        return load_multi(ds);
    TRY(load(file, "label/class", H5_I32, rows, &ds->classes, NULL));
    return check_range(file, "label/class", ds->classes, rows, ds->names.count);
}

static enum status open_columns(struct dataset *ds)
{
    const struct h5_file *file = &ds->file;
    const int64_t rows = ds->info.rows;
    TRY(h5_column_open(file, "row/source_row", H5_I64, rows, &ds->source_row));
    TRY(h5_column_open(file, "row/source_offset", H5_I64, rows, &ds->source_offset));
    TRY(h5_has(file, "row/weight", &ds->info.has_weights));
    if (ds->info.has_weights) {
        TRY(load(file, "row/weight", H5_F32, rows, &ds->weights, NULL));
        TRY(check_floats(file, "row/weight", ds->weights, rows, 0));
    }
    TRY(h5_has(file, "row/group", &ds->info.has_groups));
    if (ds->info.has_groups) {
        TRY(load(file, "row/group", H5_I32, rows, &ds->groups, NULL));
        TRY(load_names(file, "row/group_names", "row/group_name_offsets", &ds->group_names));
        TRY(check_range(file, "row/group", ds->groups, rows, ds->group_names.count));
    }
    TRY(h5_has(file, "row/time", &ds->info.has_times));
    if (ds->info.has_times) {
        TRY(load(file, "row/time", H5_F64, rows, &ds->times, NULL));
        TRY(check_doubles(file, "row/time", ds->times, rows));
    }
    TRY(h5_has(file, "row/fold", &ds->info.has_folds));
    if (ds->info.has_folds) {
        TRY(load(file, "row/fold", H5_I32, rows, &ds->folds, NULL));
        TRY(load_names(file, "row/fold_names", "row/fold_name_offsets", &ds->fold_names));
        TRY(check_range(file, "row/fold", ds->folds, rows, ds->fold_names.count));
    }
    TRY(h5_has(file, "row/id", &ds->info.has_ids));
    if (ds->info.has_ids) {
        TRY(h5_column_open(file, "row/id", H5_BYTES, -1, &ds->id));
        TRY(h5_column_open(file, "row/id_offsets", H5_U64, rows + 1, &ds->id_offsets));
    }
    TRY(h5_has(file, "text/bytes", &ds->info.has_text));
    if (ds->info.has_text) {
        TRY(h5_column_open(file, "text/bytes", H5_BYTES, -1, &ds->text));
        TRY(h5_column_open(file, "text/offsets", H5_U64, rows * (ds->info.has_pairs ? 2 : 1) + 1,
                           &ds->text_offsets));
    }
    return STATUS_OK;
}

static enum status check_max_length(const struct dataset *ds)
{
    int least = !ds->info.has_pairs ? 3 : ds->tokenizer.two_separators ? 5 : 4;
    if (ds->max_length < least || ds->max_length > INT32_MAX / 4)
        return status_fail(STATUS_ARG, "%s: rows are to be cut to %d tokens, wanted at least %d",
                           ds->file.path, ds->max_length, least);
    return STATUS_OK;
}

static enum status count_units(struct dataset *ds)
{
    const int64_t rows = ds->info.rows;
    if (ds->chunks.size == 0)
        return STATUS_OK;
    if (ds->info.has_pairs)
        return status_fail(STATUS_CONFIG,
                           "%s has pairs of texts, and data.long=chunk splits single ones; wanted "
                           "data.long=truncate",
                           ds->file.path);
    TRY(mem_alloc_raw((size_t)rows + 1, sizeof *ds->units, "the chunks of rows", &ds->units));
    ds->units[0] = 0;
    for (int64_t i = 0; i < rows; i++)
        ds->units[i + 1] = ds->units[i] +
                           chunk_count(&ds->chunks, (int64_t)(ds->offsets[i + 1] - ds->offsets[i]));
    return STATUS_OK;
}

enum status dataset_open(const struct dataset_opts *opts, struct dataset **out)
{
    struct dataset *ds;
    enum status st;
    *out = NULL;
    TRY(fault_here("data.open"));
    TRY(mem_alloc(1, sizeof *ds, "a dataset", &ds));
    ds->file = H5_FILE_NONE;
    ds->max_length = opts->max_length;
    ds->chunks = opts->chunks;
    TRY_GOTO(fail, h5_open(opts->path, &ds->file));
    TRY_GOTO(fail, read_attributes(ds));
    TRY_GOTO(fail, open_rows(ds));
    TRY_GOTO(fail, check_max_length(ds));
    TRY_GOTO(fail, count_units(ds));
    TRY_GOTO(fail, open_labels(ds));
    TRY_GOTO(fail, open_columns(ds));
    TRY_GOTO(fail, mem_alloc_raw(2 * (size_t)ds->max_length + 2, sizeof *ds->scratch,
                                 "the tokens of a row", &ds->scratch));
    ds->info.vocab_size = ds->tokenizer.vocab_size;
    ds->info.cls = ds->tokenizer.cls;
    ds->info.sep = ds->tokenizer.sep;
    ds->info.pad = ds->tokenizer.pad;
    ds->info.model_max_length = ds->tokenizer.model_max_length;
    ds->info.tokenizer_hash = ds->tokenizer.hash;
    ds->info.source = ds->source;
    ds->info.tokenizer_kind = ds->kind;
    ds->info.tool = ds->tool;
    *out = ds;
    return STATUS_OK;
fail:
    dataset_close(ds);
    return st;
}

void dataset_close(struct dataset *ds)
{
    if (ds == NULL)
        return;
    h5_close(&ds->file);
    mem_free(ds->source);
    mem_free(ds->kind);
    mem_free(ds->tool);
    mem_free(ds->offsets);
    mem_free(ds->units);
    mem_free(ds->split);
    mem_free(ds->classes);
    mem_free(ds->values);
    mem_free(ds->multi_begin);
    mem_free(ds->multi);
    mem_free(ds->weights);
    mem_free(ds->groups);
    mem_free(ds->folds);
    mem_free(ds->times);
    name_list_release(&ds->names);
    name_list_release(&ds->group_names);
    name_list_release(&ds->fold_names);
    mem_free(ds->scratch);
    mem_free(ds);
}

/* ---- what is known of rows ---- */

void dataset_get_info(const struct dataset *ds, struct dataset_info *info)
{
    *info = ds->info;
}

/* Content tokens of the two texts; *nb is -1 for a single text. */
static void content_lengths(const struct dataset *ds, int64_t row, int64_t *na, int64_t *nb)
{
    int64_t n = (int64_t)(ds->offsets[row + 1] - ds->offsets[row]);
    bool single = ds->split[row] == DATASET_SINGLE;
    *na = single ? n : (int64_t)ds->split[row];
    *nb = single ? -1 : n - *na;
}

int64_t dataset_first_unit(const struct dataset *ds, int64_t row)
{
    return ds->units == NULL ? row : ds->units[row];
}

const struct chunk_rule *dataset_chunks(const struct dataset *ds)
{
    return &ds->chunks;
}

/* The row of a unit, and which of its chunks it is. */
static int64_t row_of_unit(const struct dataset *ds, int64_t unit, int64_t *chunk)
{
    *chunk = 0;
    if (ds->units == NULL)
        return unit;
    const int64_t row = chunk_row(ds->units, ds->info.rows, unit);
    *chunk = unit - ds->units[row];
    return row;
}

int dataset_length(const struct dataset *ds, int64_t unit)
{
    int64_t na, nb, chunk, first, row = row_of_unit(ds, unit, &chunk);
    content_lengths(ds, row, &na, &nb);
    if (ds->units != NULL)
        chunk_at(&ds->chunks, na, chunk, &first, &na);
    return tokenizer_length(&ds->tokenizer, na, nb, ds->max_length);
}

int64_t dataset_content_length(const struct dataset *ds, int64_t row)
{
    return (int64_t)(ds->offsets[row + 1] - ds->offsets[row]);
}

int64_t dataset_row_length(const struct dataset *ds, int64_t row)
{
    int64_t sum = 0;
    for (int64_t u = dataset_first_unit(ds, row); u < dataset_first_unit(ds, row + 1); u++)
        sum += dataset_length(ds, u);
    return sum;
}

void dataset_tally(const struct dataset *ds, int64_t row, struct chunk_tally *tally)
{
    chunk_tally_add(tally, &ds->chunks, dataset_content_length(ds, row));
}

bool dataset_is_cut(const struct dataset *ds, int64_t row)
{
    struct chunk_tally tally = {0};
    int64_t na, nb;
    content_lengths(ds, row, &na, &nb);
    if (ds->units != NULL) {
        dataset_tally(ds, row, &tally);
        return tally.lost > 0;
    }
    return na + (nb < 0 ? 0 : nb) +
               tokenizer_length(&ds->tokenizer, 0, nb < 0 ? -1 : 0, INT32_MAX) >
           ds->max_length;
}

const int32_t *dataset_classes(const struct dataset *ds)
{
    return ds->classes;
}

const float *dataset_values(const struct dataset *ds)
{
    return ds->values;
}

const int64_t *dataset_multi_begin(const struct dataset *ds)
{
    return ds->multi_begin;
}

const int32_t *dataset_multi(const struct dataset *ds)
{
    return ds->multi;
}

const float *dataset_weights(const struct dataset *ds)
{
    return ds->weights;
}

const int32_t *dataset_groups(const struct dataset *ds)
{
    return ds->groups;
}

int dataset_group_count(const struct dataset *ds)
{
    return (int)ds->group_names.count;
}

const char *dataset_group_name(const struct dataset *ds, int32_t group)
{
    return ds->group_names.names[group];
}

const double *dataset_times(const struct dataset *ds)
{
    return ds->times;
}

const int32_t *dataset_folds(const struct dataset *ds)
{
    return ds->folds;
}

const char *const *dataset_fold_names(const struct dataset *ds)
{
    return (const char *const *)ds->fold_names.names;
}

int dataset_fold_name_count(const struct dataset *ds)
{
    return (int)ds->fold_names.count;
}

static enum status check_row(const struct dataset *ds, int64_t row)
{
    if (row < 0 || row >= ds->info.rows)
        return status_fail(STATUS_ARG, "%s: row %lld was asked for, there are %lld", ds->file.path,
                           (long long)row, (long long)ds->info.rows);
    return STATUS_OK;
}

/* Append the at-th piece of a column of bytes to out. */
static enum status read_piece(struct dataset *ds, const struct h5_column *bytes,
                              const struct h5_column *offsets, int64_t at, struct str *out)
{
    uint64_t range[2];
    char *piece;
    TRY(h5_column_read(&ds->file, offsets, at, 2, range));
    if (range[1] < range[0] || range[1] > (uint64_t)bytes->count)
        return status_fail(STATUS_FORMAT,
                           "%s: piece %lld of /%s begins at byte %llu and ends at %llu of %lld",
                           ds->file.path, (long long)at, bytes->name, (unsigned long long)range[0],
                           (unsigned long long)range[1], (long long)bytes->count);
    const size_t n = (size_t)(range[1] - range[0]);
    TRY(mem_alloc_raw(n, 1, "the text of a row", &piece));
    enum status st = h5_column_read(&ds->file, bytes, (int64_t)range[0], (int64_t)n, piece);
    if (st == STATUS_OK && utf8_valid_prefix(piece, n) != n)
        st = status_fail(STATUS_FORMAT, "%s: piece %lld of /%s is not UTF-8", ds->file.path,
                         (long long)at, bytes->name);
    if (st == STATUS_OK)
        st = str_add(out, piece, n);
    mem_free(piece);
    return st;
}

enum status dataset_row_id(struct dataset *ds, int64_t row, struct str *out)
{
    TRY(check_row(ds, row));
    return ds->info.has_ids ? read_piece(ds, &ds->id, &ds->id_offsets, row, out)
                            : str_add(out, "", 0);
}

enum status dataset_row_text(struct dataset *ds, int64_t row, struct str *text, struct str *pair)
{
    TRY(check_row(ds, row));
    TRY(str_add(text, "", 0));
    TRY(str_add(pair, "", 0));
    if (!ds->info.has_text)
        return STATUS_OK;
    if (!ds->info.has_pairs)
        return read_piece(ds, &ds->text, &ds->text_offsets, row, text);
    TRY(read_piece(ds, &ds->text, &ds->text_offsets, 2 * row, text));
    return read_piece(ds, &ds->text, &ds->text_offsets, 2 * row + 1, pair);
}

enum status dataset_row_source(struct dataset *ds, int64_t row, int64_t *source_row,
                               int64_t *byte_offset)
{
    *source_row = *byte_offset = 0;
    TRY(check_row(ds, row));
    TRY(h5_column_read(&ds->file, &ds->source_row, row, 1, source_row));
    return h5_column_read(&ds->file, &ds->source_offset, row, 1, byte_offset);
}

/* ---- tokens ---- */

enum status batch_reserve(struct batch *batch, size_t tokens, size_t rows)
{
    if (tokens > batch->token_capacity || batch->ids == NULL) {
        size_t n = tokens + tokens / 4 + 1; /* what is in it is not kept, so nothing is copied */
        mem_free(batch->ids);
        mem_free(batch->types);
        batch->ids = batch->types = NULL;
        batch->token_capacity = 0;
        TRY(mem_alloc_raw(n, sizeof *batch->ids, "the tokens of a batch", &batch->ids));
        TRY(mem_alloc_raw(n, sizeof *batch->types, "the token types of a batch", &batch->types));
        batch->token_capacity = n;
    }
    if (rows > batch->row_capacity || batch->begin == NULL) {
        size_t n = rows + rows / 4 + 1;
        mem_free(batch->begin);
        mem_free(batch->row);
        mem_free(batch->chunk);
        batch->begin = batch->chunk = NULL;
        batch->row = NULL;
        batch->row_capacity = 0;
        TRY(mem_alloc_raw(n + 1, sizeof *batch->begin, "the rows of a batch", &batch->begin));
        TRY(mem_alloc_raw(n, sizeof *batch->row, "the rows of a batch", &batch->row));
        TRY(mem_alloc_raw(n, sizeof *batch->chunk, "the rows of a batch", &batch->chunk));
        batch->row_capacity = n;
    }
    return STATUS_OK;
}

void batch_release(struct batch *batch)
{
    mem_free(batch->ids);
    mem_free(batch->types);
    mem_free(batch->begin);
    mem_free(batch->row);
    mem_free(batch->chunk);
    *batch = (struct batch){0};
}

/* The first bad id of n, or n. */
static int64_t first_bad(const struct dataset *ds, const int32_t *ids, int64_t n)
{
    uint32_t vocab = (uint32_t)ds->tokenizer.vocab_size, worst = 0;
    int64_t i = 0;
    for (int64_t j = 0; j < n;
         j++) /* all of them without a branch first: bad ids are the exception */
        worst |= (uint32_t)((uint32_t)ids[j] >= vocab);
    if (worst == 0)
        return n;
    while ((uint32_t)ids[i] < vocab)
        i++;
    return i;
}

static enum status read_tokens(struct dataset *ds, int64_t row, int64_t first, int64_t n,
                               int32_t *out)
{
    int64_t source_row, source_byte;
    TRY(h5_column_read(&ds->file, &ds->tokens, (int64_t)ds->offsets[row] + first, n, out));
    int64_t bad = first_bad(ds, out, n);
    if (bad == n)
        return STATUS_OK;
    TRY(dataset_row_source(ds, row, &source_row, &source_byte));
    return status_fail(
        STATUS_FORMAT,
        "%s: token %lld of row %lld (row %lld of %s, byte %lld) is %u, the vocabulary "
        "has %d",
        ds->file.path, (long long)(first + bad), (long long)row, (long long)source_row, ds->source,
        (long long)source_byte, (uint32_t)out[bad], ds->tokenizer.vocab_size);
}

/*
 * Only what may survive the cut is read: a row of a million tokens costs no more than one of
 * max_length. One token more than that is kept of each text, since longest-first cutting asks which
 * of the two is the longer.
 */
static enum status read_row(struct dataset *ds, int64_t row, int64_t chunk, int32_t *ids,
                            int32_t *types, int *length)
{
    int64_t na, nb, first = 0, most = (int64_t)ds->max_length + 1;
    int32_t *second = ds->scratch;
    content_lengths(ds, row, &na, &nb);
    if (ds->units != NULL)
        chunk_at(&ds->chunks, na, chunk, &first, &na);
    int64_t ka = na < most ? na : na > nb ? most : most - 1;
    int64_t kb = nb < most ? nb : nb > na ? most : most - 1;
    if (nb < 0) {
        ka = na < most ? na : most;
        TRY(read_tokens(ds, row, first, ka, ds->scratch));
    } else if (ka == na) { /* side by side: one read */
        second = ds->scratch + ka;
        TRY(read_tokens(ds, row, 0, ka + kb, ds->scratch));
    } else {
        second = ds->scratch + ka;
        TRY(read_tokens(ds, row, 0, ka, ds->scratch));
        TRY(read_tokens(ds, row, na, kb, second));
    }
    *length =
        tokenizer_join(&ds->tokenizer, ds->scratch, ka, second, kb, ds->max_length, ids, types);
    return STATUS_OK;
}

static enum status check_unit(const struct dataset *ds, int64_t unit)
{
    const int64_t units = dataset_first_unit(ds, ds->info.rows);
    if (ds->units == NULL)
        return check_row(ds, unit);
    if (unit < 0 || unit >= units)
        return status_fail(STATUS_ARG, "%s: chunk %lld was asked for, there are %lld",
                           ds->file.path, (long long)unit, (long long)units);
    return STATUS_OK;
}

enum status dataset_read(struct dataset *ds, const int64_t *units, int count, struct batch *batch)
{
    int64_t total = 0, at = 0;
    batch->rows = 0;
    batch->tokens = 0;
    batch->max_row = 0;
    TRY(fault_here("data.read"));
    if (count < 0)
        return status_fail(STATUS_ARG, "a batch of %d rows", count);
    for (int i = 0; i < count; i++) {
        TRY(check_unit(ds, units[i]));
        total += dataset_length(ds, units[i]);
    }
    if (total > INT32_MAX - ds->max_length)
        return status_fail(STATUS_ARG, "a batch of %lld tokens", (long long)total);
    /* tokenizer_join() may use all of max_length, so the last row needs that much behind it */
    TRY(batch_reserve(batch, (size_t)(total + ds->max_length), (size_t)count));
    for (int i = 0; i < count; i++) {
        int length = 0;
        int64_t chunk, row = row_of_unit(ds, units[i], &chunk);
        TRY(read_row(ds, row, chunk, batch->ids + at, batch->types + at, &length));
        batch->begin[i] = (int32_t)at;
        batch->row[i] = row;
        batch->chunk[i] = (int32_t)chunk;
        batch->max_row = length > batch->max_row ? length : batch->max_row;
        at += length;
    }
    batch->begin[count] = (int32_t)at;
    batch->rows = count;
    batch->tokens = at;
    return STATUS_OK;
}

enum status dataset_verify(struct dataset *ds)
{
    const int64_t n = ds->tokens.count;
    const struct content content = {
        .rows = ds->info.rows,
        .offsets = ds->offsets,
        .split = ds->split,
        .label_kind = ds->info.label_kind,
        .classes = ds->classes,
        .values = ds->values,
        .multi_begin = ds->multi_begin,
        .multi = ds->multi,
        .weights = ds->weights,
        .groups = ds->groups,
        .names = ds->info.names,
        .nnames = ds->info.classes,
        .times = ds->times,
        .folds = ds->folds,
        .fold_names = (const char *const *)ds->fold_names.names,
        .nfold_names = (int)ds->fold_names.count,
    };
    uint64_t hash = 0;
    int32_t *piece;
    enum status st = STATUS_OK;
    TRY(mem_alloc_raw((size_t)CONTENT_PIECE, sizeof *piece, "a piece of the tokens", &piece));
    for (int64_t at = 0; at < n; at += CONTENT_PIECE) {
        int64_t m = n - at < CONTENT_PIECE ? n - at : CONTENT_PIECE;
        TRY_GOTO(done, h5_column_read(&ds->file, &ds->tokens, at, m, piece));
        int64_t bad = first_bad(ds, piece, m);
        if (bad < m) {
            st = status_fail(STATUS_FORMAT,
                             "%s: value %lld of /tokens is %u, the vocabulary has %d",
                             ds->file.path, (long long)(at + bad), (uint32_t)piece[bad],
                             ds->tokenizer.vocab_size);
            goto done;
        }
        hash = content_hash_tokens(hash, piece, m);
    }
    hash = content_hash(hash, &content);
    if (hash != ds->info.content_hash)
        st = status_fail(
            STATUS_FORMAT,
            "%s: its content has hash %016llx, it was written with %016llx: the file was "
            "changed or damaged",
            ds->file.path, (unsigned long long)hash, (unsigned long long)ds->info.content_hash);
done:
    mem_free(piece);
    return st;
}
