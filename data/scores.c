/*
 * scores.c - see scores.h. Texts get one length, that of the longest: h5py, R and others read such
 * columns without a second one of offsets, and the file stays one that our own writer can lay out
 * (data/h5.h).
 */
#include "data/scores.h"

#include <string.h>

#include "data/h5.h"

struct texts {
    const char *const *text;
    int64_t count, width; /* width: bytes of the longest, at least 1 */
};

static struct texts texts_of(const char *const *text, int64_t count)
{
    struct texts t = {text, count, 1};
    for (int64_t i = 0; i < count; i++) {
        int64_t n = (int64_t)strlen(text[i]);
        t.width = n > t.width ? n : t.width;
    }
    return t;
}

static enum status emit_texts(struct h5_sink *sink, const void *context)
{
    static const char zeros[256];
    const struct texts *t = context;
    for (int64_t i = 0; i < t->count; i++) {
        size_t n = strlen(t->text[i]), padding = (size_t)t->width - n;
        TRY(h5_sink_add(sink, t->text[i], n));
        for (size_t part; padding > 0; padding -= part) {
            part = padding < sizeof zeros ? padding : sizeof zeros;
            TRY(h5_sink_add(sink, zeros, part));
        }
    }
    return STATUS_OK;
}

static struct h5_output text_column(const char *name, const struct texts *t)
{
    return (struct h5_output){.name = name,
                              .type = H5_BYTES,
                              .count = t->count * t->width,
                              .emit = emit_texts,
                              .context = t,
                              .width = t->width,
                              .text = true};
}

static struct h5_output column(const char *name, enum h5_type type, int64_t rows, int width,
                               const void *values)
{
    return (struct h5_output){.name = name,
                              .type = type,
                              .count = width == 0 ? rows : rows * width,
                              .values = values,
                              .width = width};
}

enum status scores_write(const char *path, const struct scores_table *table)
{
    static const struct h5_attribute attributes[] = {
        {.name = "format", .text = "cohort-scores"},
        {.name = "version", .number = 1},
        {.name = "tool", .text = "cohort " COHORT_VERSION},
    };
    struct h5_output columns[9];
    struct texts names, ids;
    int n = 0;
    if (table->rows < 0 || table->outputs < 1 || table->classes < 0)
        return status_fail(STATUS_ARG, "%s: %lld rows of %d scores and %d labels cannot be written",
                           path, (long long)table->rows, table->outputs, table->classes);
    columns[n++] = column("row", H5_I64, table->rows, 0, table->row);
    if (table->repeat != NULL)
        columns[n++] = column("repeat", H5_I32, table->rows, 0, table->repeat);
    if (table->fold != NULL)
        columns[n++] = column("fold", H5_I32, table->rows, 0, table->fold);
    columns[n++] = column("logits", H5_F32, table->rows, table->outputs, table->logits);
    columns[n++] = column("scores", H5_F32, table->rows, table->outputs, table->scores);
    if (table->label != NULL)
        columns[n++] = column("label", H5_I32, table->rows, 0, table->label);
    if (table->value != NULL)
        columns[n++] = column("value", H5_F32, table->rows, table->outputs, table->value);
    if (table->names != NULL && table->classes > 0) {
        names = texts_of(table->names, table->classes);
        columns[n++] = text_column("names", &names);
    }
    if (table->id != NULL) {
        ids = texts_of(table->id, table->rows);
        columns[n++] = text_column("id", &ids);
    }
    return h5_write(path, attributes, (int)(sizeof attributes / sizeof attributes[0]), columns, n);
}

enum status vectors_write(const char *path, const struct vectors_table *table)
{
    static const struct h5_attribute attributes[] = {
        {.name = "format", .text = "cohort-vectors"},
        {.name = "version", .number = 1},
        {.name = "tool", .text = "cohort " COHORT_VERSION},
    };
    struct h5_output columns[3];
    struct texts ids;
    int n = 0;
    if (table->rows < 0 || table->width < 1)
        return status_fail(STATUS_ARG, "%s: %lld vectors of %d numbers cannot be written", path,
                           (long long)table->rows, table->width);
    columns[n++] = column("row", H5_I64, table->rows, 0, table->row);
    columns[n++] = column("vectors", H5_F32, table->rows, table->width, table->vectors);
    if (table->id != NULL) {
        ids = texts_of(table->id, table->rows);
        columns[n++] = text_column("id", &ids);
    }
    return h5_write(path, attributes, (int)(sizeof attributes / sizeof attributes[0]), columns, n);
}
