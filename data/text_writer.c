/*
 * text_writer.c - result rows as TSV, CSV or JSONL.
 *
 * Rows are gathered in memory and written in blocks; on a pipe or a terminal each row goes out at
 * once, since somebody may be reading along. Lists in TSV and CSV are parted by spaces: a comma
 * would need quotes in every CSV row.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "data/text.h"

#define BLOCK_BYTES ((size_t)256 << 10)

struct text_writer {
    char *path, *temporary; /* owned; temporary is NULL where bytes go straight to path */
    enum text_format format;
    int fd;
    bool close_fd, row_by_row;
    struct str block;
    char **names; /* the first row's columns */
    int columns;  /* -1: no row yet */
    bool failed;
};

static enum status output_format(const char *path, enum text_format *format)
{
    struct str extension = {0};
    enum status st = path_extension(path, &extension);
    const char *dot = strrchr(path_base(path), '.');
    *format = TEXT_JSONL;
    if (st == STATUS_OK && dot != NULL &&
        (strcasecmp(dot, ".gz") == 0 || strcasecmp(dot, ".zst") == 0))
        st = status_fail(STATUS_CONFIG,
                         "%s: results are not compressed; wanted .tsv, .csv or .jsonl", path);
    else if (st == STATUS_OK && strcasecmp(extension.p, ".tsv") == 0)
        *format = TEXT_TSV;
    else if (st == STATUS_OK && strcasecmp(extension.p, ".csv") == 0)
        *format = TEXT_CSV;
    else if (st == STATUS_OK && extension.n > 0 && strcasecmp(extension.p, ".jsonl") != 0 &&
             strcasecmp(extension.p, ".ndjson") != 0)
        st = status_fail(STATUS_CONFIG, "%s: no format for \"%s\"; wanted .tsv, .csv or .jsonl",
                         path, extension.p);
    str_release(&extension);
    return st;
}

static enum status open_output(struct text_writer *w, const char *path)
{
    struct stat info;
    TRY(mem_strdup(path, &w->path));
    if (strcmp(path, "-") == 0) {
        w->format = TEXT_JSONL;
        w->fd = STDOUT_FILENO;
        w->row_by_row = fstat(w->fd, &info) != 0 || !S_ISREG(info.st_mode);
        return STATUS_OK;
    }
    bool there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode))
        return status_fail(STATUS_IO, "cannot write %s: it is a folder", path);
    if (there &&
        !S_ISREG(
            info.st_mode)) { /* /dev/null, a named pipe: renaming a file over it would destroy it */
        w->format = TEXT_JSONL;
        w->row_by_row = true;
        w->fd = open(path, O_WRONLY | O_CLOEXEC);
    } else {
        TRY(output_format(path, &w->format));
        size_t room = strlen(path) + 32;
        TRY(mem_alloc_raw(room, 1, "a path", &w->temporary));
        (void)snprintf(w->temporary, room, "%s.tmp.%ld", path, (long)getpid());
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    }
    w->close_fd = w->fd >= 0;
    if (w->fd < 0)
        return status_fail(STATUS_IO, "cannot write %s: %s", path, strerror(errno));
    return STATUS_OK;
}

static void destroy(struct text_writer *w)
{
    if (w->close_fd)
        (void)close(w->fd);
    for (int i = 0; i < w->columns; i++)
        mem_free(w->names[i]);
    mem_free(w->names);
    str_release(&w->block);
    mem_free(w->temporary);
    mem_free(w->path);
    mem_free(w);
}

enum status text_writer_open(const char *path, struct text_writer **out)
{
    struct text_writer *w;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *w, "a text writer", &w));
    w->columns = -1;
    w->fd = -1;
    enum status st = open_output(w, path);
    if (st != STATUS_OK) {
        destroy(w);
        return st;
    }
    *out = w;
    return STATUS_OK;
}

static enum status flush(struct text_writer *w)
{
    if (w->block.n == 0)
        return STATUS_OK;
    TRY(fault_here("data.write"));
    TRY(fd_write_all(w->fd, w->block.p, w->block.n, w->path));
    str_clear(&w->block);
    return STATUS_OK;
}

/* A number in the format's words. JSON has no NaN, and "-0" would be read as an integer and lose
 * its sign. */
static enum status add_float(struct text_writer *w, float value)
{
    if (value == 0 && signbit(value))
        return str_add(&w->block, "-0.0", 4);
    if (!isfinite(value) && w->format != TEXT_JSONL)
        return str_addf(&w->block, "%s", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    return str_add_float(&w->block, value);
}

/* One field of TSV or CSV. alone: an empty field would look like an empty line. */
static enum status add_field(struct text_writer *w, const char *p, size_t n, bool alone)
{
    struct str *b = &w->block;
    if (w->format == TEXT_TSV) {
        size_t at = b->n;
        TRY(str_add(b, n == 0 ? "" : p, n));
        for (size_t i = at; i < b->n; i++) {
            if (b->p[i] == '\t' || b->p[i] == '\n' || b->p[i] == '\r')
                b->p[i] = ' ';
        }
        return STATUS_OK;
    }
    bool quoted = n == 0 && alone;
    for (size_t i = 0; i < n && !quoted; i++)
        quoted = p[i] == ',' || p[i] == '"' || p[i] == '\n' || p[i] == '\r';
    if (!quoted)
        return str_add(b, n == 0 ? "" : p, n);
    TRY(str_add(b, "\"", 1));
    for (size_t from = 0; from < n;) {
        const char *quote = memchr(p + from, '"', n - from);
        size_t to = quote == NULL ? n : (size_t)(quote - p) + 1;
        TRY(str_add(b, p + from, to - from));
        if (quote != NULL)
            TRY(str_add(b, "\"", 1));
        from = to;
    }
    return str_add(b, "\"", 1);
}

static enum status add_list(struct text_writer *w, const struct text_cell *cell)
{
    bool json = w->format == TEXT_JSONL;
    if (json)
        TRY(str_add(&w->block, "[", 1));
    for (int64_t i = 0; i < cell->n; i++) {
        if (i > 0)
            TRY(str_add(&w->block, json ? "," : " ", 1));
        if (cell->kind == CELL_FLOATS)
            TRY(add_float(w, cell->floats[i]));
        else
            TRY(str_addf(&w->block, "%d", (int)cell->ints[i]));
    }
    return json ? str_add(&w->block, "]", 1) : STATUS_OK;
}

static enum status add_cell(struct text_writer *w, const struct text_cell *cell, bool alone)
{
    const struct text_field *text = &cell->text;
    switch (cell->kind) {
    case CELL_INT:
        return str_addf(&w->block, "%lld", (long long)cell->integer);
    case CELL_FLOATS:
    case CELL_INTS:
        return add_list(w, cell);
    case CELL_TEXT:
        if (w->format != TEXT_JSONL)
            return add_field(w, text->p, text->p == NULL ? 0 : text->n, alone);
        if (text->p == NULL)
            return str_add(&w->block, "null", 4);
        return str_add_json(&w->block, text->p, text->n);
    }
    return status_fail(STATUS_ARG, "%s: cell \"%s\" is of no kind", w->path, cell->name);
}

static enum status add_header(struct text_writer *w, const struct text_cell *cells, int count)
{
    TRY(mem_alloc((size_t)count, sizeof *w->names, "the columns' names", &w->names));
    w->columns = 0;
    for (int i = 0; i < count; i++) {
        TRY(mem_strdup(cells[i].name, &w->names[i]));
        w->columns++;
        if (w->format == TEXT_JSONL)
            continue;
        if (i > 0)
            TRY(str_add(&w->block, w->format == TEXT_TSV ? "\t" : ",", 1));
        TRY(add_field(w, cells[i].name, strlen(cells[i].name), count == 1));
    }
    return w->format == TEXT_JSONL ? STATUS_OK : str_add(&w->block, "\n", 1);
}

static enum status add_row(struct text_writer *w, const struct text_cell *cells, int count)
{
    bool json = w->format == TEXT_JSONL;
    for (int i = 0; i < count; i++) {
        if (json) {
            TRY(str_add(&w->block, i == 0 ? "{" : ",", 1));
            TRY(str_add_json(&w->block, cells[i].name, strlen(cells[i].name)));
            TRY(str_add(&w->block, ":", 1));
        } else if (i > 0) {
            TRY(str_add(&w->block, w->format == TEXT_TSV ? "\t" : ",", 1));
        }
        TRY(add_cell(w, &cells[i], count == 1));
    }
    TRY(json ? str_add(&w->block, "}\n", 2) : str_add(&w->block, "\n", 1));
    return w->row_by_row || w->block.n >= BLOCK_BYTES ? flush(w) : STATUS_OK;
}

enum status text_writer_row(struct text_writer *w, const struct text_cell *cells, int count)
{
    if (w->failed)
        return status_fail(STATUS_IO, "cannot write %s: an earlier row failed", w->path);
    if (count < 1)
        return status_fail(STATUS_ARG, "%s: a row of %d cells", w->path, count);
    enum status st = w->columns < 0 ? add_header(w, cells, count) : STATUS_OK;
    if (st == STATUS_OK && count != w->columns)
        st = status_fail(STATUS_ARG, "%s: a row of %d cells, wanted %d as in the first", w->path,
                         count, w->columns);
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        if (strcmp(cells[i].name, w->names[i]) != 0)
            st = status_fail(STATUS_ARG, "%s: cell %d is \"%s\", wanted \"%s\" as in the first row",
                             w->path, i, cells[i].name, w->names[i]);
    }
    if (st == STATUS_OK)
        st = add_row(w, cells, count);
    w->failed = st != STATUS_OK; /* half a row may be in the block */
    return st;
}

static enum status finish(struct text_writer *w)
{
    if (w->failed)
        return status_fail(STATUS_IO, "cannot write %s: an earlier row failed", w->path);
    TRY(flush(w));
    if (w->temporary == NULL)
        return STATUS_OK;
    if (fsync(w->fd) != 0 && errno != EINVAL && errno != EROFS)
        return status_fail(STATUS_IO, "cannot flush %s: %s", w->path, strerror(errno));
    w->close_fd = false;
    if (close(w->fd) != 0)
        return status_fail(STATUS_IO, "cannot close %s: %s", w->path, strerror(errno));
    return file_rename(w->temporary, w->path);
}

enum status text_writer_close(struct text_writer *w, bool keep)
{
    if (w == NULL)
        return STATUS_OK;
    enum status st = keep ? finish(w) : STATUS_OK;
    if (w->temporary != NULL && (!keep || st != STATUS_OK))
        (void)unlink(w->temporary);
    destroy(w);
    return st;
}
