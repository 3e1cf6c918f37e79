/*
 * text_folder.c - one row per .txt file (.txt.gz, .txt.zst): FOLDER/LABEL/FILE.txt, or
 * FOLDER/FILE.txt without label.
 *
 * Columns are text, label and id (the path below the folder). Rows come in the order of the ids'
 * bytes, so that every machine numbers them alike. The text is the whole file, its line breaks
 * included.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/text_internal.h"

enum { COLUMN_TEXT, COLUMN_LABEL, COLUMN_ID };

static enum status add_file(struct text_reader *r, const char *folder, const char *name)
{
    struct str extension = {0};
    enum status st = path_extension(name, &extension);
    bool is_text = st == STATUS_OK && strcmp(extension.p, ".txt") == 0;
    str_release(&extension);
    if (st != STATUS_OK || !is_text)
        return st;
    TRY(mem_grow(&r->files, &r->file_capacity, r->file_count + 1, sizeof *r->files,
                 "a folder's files"));
    char **file = &r->files[r->file_count];
    TRY(folder == NULL ? mem_strdup(name, file) : path_join(folder, name, file));
    r->file_count++;
    if (utf8_valid_prefix(*file, strlen(*file)) != strlen(*file))
        return status_fail(STATUS_DATA, "%s: the file name \"%s\" is not UTF-8", r->path, *file);
    return STATUS_OK;
}

/* Files of r->path (label NULL) or r->path/label. Names that begin with a dot and other extensions
 * are left out. */
static enum status add_folder(struct text_reader *r, const char *label)
{
    char **names = NULL, *inner = NULL, *path = NULL;
    size_t count = 0;
    enum status st = STATUS_OK;
    if (label != NULL)
        TRY_GOTO(done, path_join(r->path, label, &path));
    const char *folder = label == NULL ? r->path : path;
    TRY_GOTO(done, folder_list(folder, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (names[i][0] == '.')
            continue;
        TRY_GOTO(done, path_join(folder, names[i], &inner));
        bool is_folder = file_is_folder(inner);
        if (is_folder && label != NULL)
            st = status_fail(STATUS_DATA,
                             "%s: a folder within a label's folder; wanted %s/LABEL/FILE.txt",
                             inner, r->path);
        else if (is_folder)
            st = add_folder(r, names[i]);
        else
            st = add_file(r, label, names[i]);
        mem_free(inner);
        inner = NULL;
        if (st != STATUS_OK)
            goto done;
    }
done:
    folder_list_free(names, count);
    mem_free(path);
    return st;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum status folder_header(struct text_reader *r)
{
    if (!file_is_folder(r->path))
        return status_fail(STATUS_NOINPUT, "%s: %s, wanted a folder of .txt files", r->path,
                           file_exists(r->path) ? "is a file" : "no such folder");
    TRY(add_folder(r, NULL));
    if (r->file_count == 0)
        return status_fail(STATUS_DATA, "%s: no .txt files in the folder, nor in folders in it",
                           r->path);
    qsort(r->files, r->file_count, sizeof *r->files, by_bytes);
    TRY(text_add_column(r, "text", 4));
    TRY(text_add_column(r, "label", 5));
    return text_add_column(r, "id", 2);
}

static enum status folder_next(struct text_reader *r, bool *more)
{
    struct text_source *s = &r->source;
    bool got = true;
    *more = false;
    text_source_close(s);
    s->name = r->path;
    if (r->rows >= (int64_t)r->file_count)
        return STATUS_OK;
    mem_free(r->file_path);
    r->file_path = NULL;
    TRY(path_join(r->path, r->files[r->rows], &r->file_path));
    TRY(text_source_open(s, r->file_path));
    while (got)
        TRY(text_more(r, "", &got));
    r->row = s->buf + s->begin;
    r->row_n = s->end - s->begin;
    TRY(text_check(r, r->row, r->row_n, 0));
    if (r->row_n >= 3 && memcmp(r->row, "\xEF\xBB\xBF", 3) == 0) {
        r->row += 3;
        r->row_n -= 3;
    }
    *more = true;
    return STATUS_OK;
}

static enum status folder_cells(struct text_reader *r)
{
    const char *file = r->files[r->rows], *slash = strchr(file, '/');
    for (size_t i = 0; i < r->slot_count; i++) {
        struct text_field *cell = &r->cells[i];
        if (r->slots[i].column == COLUMN_TEXT)
            *cell = (struct text_field){r->row, r->row_n};
        else if (r->slots[i].column == COLUMN_ID)
            *cell = (struct text_field){file, strlen(file)};
        else if (slash != NULL)
            *cell = (struct text_field){file, (size_t)(slash - file)};
        else
            *cell = (struct text_field){0};
    }
    return STATUS_OK;
}

const struct text_parser text_folder = {folder_header, folder_next, folder_cells};
