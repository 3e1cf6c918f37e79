/* scores_read.c - see scores.h. Columns stay on the disk; what is asked for is read. */
#include "data/scores.h"

#include <string.h>

#include "base/mem.h"
#include "data/h5.h"

enum { MOST_CLASSES = 1 << 20, CHECK_ROWS = 1 << 16 };

struct scores_file {
    struct h5_file h5;
    struct scores_info info;
    char **names; /* (classes), owned */
    struct h5_column row, repeat, fold, logits, scores, label, value, id;
    int64_t id_width;
};

void scores_close(struct scores_file *file)
{
    if (file == NULL)
        return;
    for (int i = 0; file->names != NULL && i < file->info.classes; i++)
        mem_free(file->names[i]);
    mem_free(file->names);
    h5_close(&file->h5);
    mem_free(file);
}

static enum status check_format(const struct h5_file *h5)
{
    char *format = NULL;
    int64_t version;
    TRY(h5_get_text(h5, "format", &format));
    enum status st = strcmp(format, "cohort-scores") == 0
                         ? STATUS_OK
                         : status_fail(STATUS_FORMAT,
                                       "%s: the format is \"%.40s\", wanted "
                                       "\"cohort-scores\"",
                                       h5->path, format);
    mem_free(format);
    TRY(st);
    return h5_get_int(h5, "version", 1, 1, &version);
}

/* The i-th text of a list of texts of equal length. */
static enum status read_text(const struct scores_file *file, const struct h5_column *column,
                             int64_t width, int64_t i, struct str *out)
{
    const size_t from = out->n;
    TRY(str_add(out, "", 0));
    TRY(mem_grow(&out->p, &out->capacity, from + (size_t)width + 1, 1, "text"));
    TRY(h5_column_read(&file->h5, column, i * width, width, out->p + from));
    size_t n = strnlen(out->p + from, (size_t)width);
    bool good = utf8_valid_prefix(out->p + from, n) == n;
    out->n = good ? from + n : from;
    out->p[out->n] = '\0';
    return good ? STATUS_OK
                : status_fail(STATUS_FORMAT, "%s: text %lld of /%s is not UTF-8", file->h5.path,
                              (long long)i, column->name);
}

static enum status read_names(struct scores_file *file)
{
    struct h5_column column;
    int64_t width;
    bool found;
    TRY(h5_has(&file->h5, "names", &found));
    if (!found)
        return STATUS_OK;
    TRY(h5_texts_open(&file->h5, "names", -1, &width, &column));
    int64_t count = column.count / width;
    if (count > MOST_CLASSES)
        return status_fail(STATUS_FORMAT, "%s: /names has %lld names, wanted at most %d",
                           file->h5.path, (long long)count, MOST_CLASSES);
    TRY(mem_alloc((size_t)count, sizeof *file->names, "names of labels", &file->names));
    file->info.classes = (int)count;
    for (int64_t i = 0; i < count; i++) {
        struct str name = {0};
        enum status st = read_text(file, &column, width, i, &name);
        file->names[i] = name.p;
        TRY(st);
    }
    file->info.names = (const char *const *)file->names;
    return STATUS_OK;
}

/* A column that may be missing. width: outputs, or 0 for one value a row. */
static enum status open_optional(struct scores_file *file, const char *name, enum h5_type type,
                                 bool table, struct h5_column *column, bool *found)
{
    int64_t width = file->info.outputs;
    TRY(h5_has(&file->h5, name, found));
    if (!*found)
        return STATUS_OK;
    if (!table)
        return h5_column_open(&file->h5, name, type, file->info.rows, column);
    TRY(h5_table_open(&file->h5, name, type, file->info.rows, &width, column));
    return width == file->info.outputs
               ? STATUS_OK
               : status_fail(STATUS_FORMAT, "%s: /%s has %lld values a row, /logits has %d",
                             file->h5.path, name, (long long)width, file->info.outputs);
}

static enum status open_columns(struct scores_file *file)
{
    struct scores_info *info = &file->info;
    int64_t width, count;
    bool found;
    TRY(h5_column_open(&file->h5, "row", H5_I64, -1, &file->row));
    info->rows = file->row.count;
    if (info->rows > INT32_MAX)
        return status_fail(STATUS_FORMAT, "%s: %lld rows, wanted at most 2^31 - 1", file->h5.path,
                           (long long)info->rows);
    TRY(h5_table_open(&file->h5, "logits", H5_F32, info->rows, &width, &file->logits));
    info->outputs = (int)width;
    TRY(open_optional(file, "scores", H5_F32, true, &file->scores, &found));
    if (!found)
        return status_fail(STATUS_FORMAT, "%s: /scores is missing", file->h5.path);
    TRY(open_optional(file, "repeat", H5_I32, false, &file->repeat, &info->has_repeat));
    TRY(open_optional(file, "fold", H5_I32, false, &file->fold, &info->has_fold));
    TRY(open_optional(file, "label", H5_I32, false, &file->label, &info->has_label));
    TRY(open_optional(file, "value", H5_F32, true, &file->value, &info->has_value));
    TRY(read_names(file));
    TRY(h5_has(&file->h5, "id", &info->has_id));
    if (info->has_id)
        TRY(h5_texts_open(&file->h5, "id", info->rows, &file->id_width, &file->id));
    count = info->classes;
    bool one = info->outputs == 1 && count == 2 && info->has_label; /* two classes, one logit */
    if ((info->has_label && count < 2) || (count > 0 && count != info->outputs && !one))
        return status_fail(STATUS_FORMAT, "%s: %lld labels and %d scores a row do not fit",
                           file->h5.path, (long long)count, info->outputs);
    return STATUS_OK;
}

static enum status fail_value(const struct scores_file *file, const char *column, int64_t i,
                              int64_t value, const char *wanted)
{
    return status_fail(STATUS_FORMAT, "%s: /%s is %lld in line %lld, wanted %s", file->h5.path,
                       column, (long long)value, (long long)i, wanted);
}

/* A place in the order of lines: repeat, row, fold. */
struct place {
    int64_t row;
    int32_t repeat, fold;
};

static bool follows(const struct place *a, const struct place *b)
{
    if (b->repeat != a->repeat)
        return b->repeat > a->repeat;
    return b->row != a->row ? b->row > a->row : b->fold > a->fold;
}

/* Row numbers, repeats, folds and labels of n lines from `from` on; *before is the line ahead. */
static enum status check_block(const struct scores_file *file, const struct scores_columns *at,
                               int64_t from, int64_t n, struct place *before)
{
    for (int64_t i = 0; i < n; i++) {
        struct place here = {at->row[i], at->repeat == NULL ? 0 : at->repeat[i],
                             at->fold == NULL ? -1 : at->fold[i]};
        if (here.row < 0)
            return fail_value(file, "row", from + i, here.row, "0 or more");
        if (here.repeat < 0)
            return fail_value(file, "repeat", from + i, here.repeat, "0 or more");
        if (here.fold < -1)
            return fail_value(file, "fold", from + i, here.fold, "-1 or more");
        if (from + i > 0 && !follows(before, &here))
            return fail_value(file, "row", from + i, here.row,
                              "lines that ascend by repeat, row and fold");
        if (at->label != NULL && (at->label[i] < 0 || at->label[i] >= file->info.classes))
            return fail_value(file, "label", from + i, at->label[i], "one of the labels");
        *before = here;
    }
    return STATUS_OK;
}

static enum status check_values(const struct scores_file *file)
{
    const struct scores_info *info = &file->info;
    struct scores_columns at = {0};
    struct place before = {0};
    enum status st = STATUS_OK;
    TRY_GOTO(done, mem_alloc_raw(CHECK_ROWS, sizeof *at.row, "rows", &at.row));
    if (info->has_repeat)
        TRY_GOTO(done, mem_alloc_raw(CHECK_ROWS, sizeof *at.repeat, "repeats", &at.repeat));
    if (info->has_fold)
        TRY_GOTO(done, mem_alloc_raw(CHECK_ROWS, sizeof *at.fold, "folds", &at.fold));
    if (info->has_label)
        TRY_GOTO(done, mem_alloc_raw(CHECK_ROWS, sizeof *at.label, "labels", &at.label));
    for (int64_t from = 0; from < info->rows; from += CHECK_ROWS) {
        int64_t n = info->rows - from < CHECK_ROWS ? info->rows - from : CHECK_ROWS;
        TRY_GOTO(done, scores_read(file, from, n, &at));
        TRY_GOTO(done, check_block(file, &at, from, n, &before));
    }
done:
    mem_free(at.row);
    mem_free(at.repeat);
    mem_free(at.fold);
    mem_free(at.label);
    return st;
}

enum status scores_open(const char *path, struct scores_file **out)
{
    struct scores_file *file;
    enum status st;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *file, "a file of scores", &file));
    file->h5 = H5_FILE_NONE;
    TRY_GOTO(fail, h5_open(path, &file->h5));
    TRY_GOTO(fail, check_format(&file->h5));
    TRY_GOTO(fail, open_columns(file));
    TRY_GOTO(fail, check_values(file));
    *out = file;
    return STATUS_OK;
fail:
    scores_close(file);
    return st;
}

void scores_get_info(const struct scores_file *file, struct scores_info *info)
{
    *info = file->info;
}

enum status scores_read(const struct scores_file *file, int64_t first, int64_t n,
                        const struct scores_columns *out)
{
    const struct {
        const struct h5_column *column;
        int width;
        void *to;
    } wanted[] = {
        {&file->row, 1, out->row},
        {&file->repeat, 1, out->repeat},
        {&file->fold, 1, out->fold},
        {&file->logits, file->info.outputs, out->logits},
        {&file->scores, file->info.outputs, out->scores},
        {&file->label, 1, out->label},
        {&file->value, file->info.outputs, out->value},
    };
    if (first < 0 || n < 0 || n > file->info.rows || first > file->info.rows - n)
        return status_fail(STATUS_ARG, "%s: rows %lld to %lld were asked for, it has %lld",
                           file->h5.path, (long long)first, (long long)(first + n),
                           (long long)file->info.rows);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (wanted[i].to == NULL)
            continue;
        if (wanted[i].column->name == NULL)
            return status_fail(STATUS_ARG, "%s does not have a column that was asked for",
                               file->h5.path);
        TRY(h5_column_read(&file->h5, wanted[i].column, first * wanted[i].width,
                           n * wanted[i].width, wanted[i].to));
    }
    return STATUS_OK;
}

enum status scores_id(const struct scores_file *file, int64_t i, struct str *out)
{
    if (!file->info.has_id)
        return STATUS_OK;
    if (i < 0 || i >= file->info.rows)
        return status_fail(STATUS_ARG, "%s: row %lld was asked for, it has %lld", file->h5.path,
                           (long long)i, (long long)file->info.rows);
    return read_text(file, &file->id, file->id_width, i, out);
}
