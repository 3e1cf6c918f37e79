/*
 * text.c - opening a reader, the loop that reads and selects rows, and the checks that every format
 * shares.
 *
 * A row costs one pass for its end, one for UTF-8 and one for its columns, all in the window:
 * nothing is copied unless a field has to be unescaped or cut to its first words.
 */
#include "data/text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/text_internal.h"

#define DEFAULT_ROW_BYTES ((int64_t)64 << 20)

static const char *const role_names[TEXT_ROLES] = {"text", "pair",   "label", "group",
                                                   "id",   "weight", "time",  "fold"};

enum status text_fail(struct text_reader *r, const char *format, ...)
{
    char sentence[900];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (r->in_header)
        return status_fail(STATUS_DATA, "%s: header (line %lld): %s", r->source.name,
                           (long long)r->line, sentence);
    if (r->format == TEXT_FOLDER)
        return status_fail(STATUS_DATA, "%s (row %lld): %s", r->source.name, (long long)r->rows,
                           sentence);
    return status_fail(STATUS_DATA, "%s: row %lld (line %lld): %s", r->source.name,
                       (long long)r->rows, (long long)r->line, sentence);
}

enum status text_more(struct text_reader *r, const char *hint, bool *got)
{
    *got = false;
    if ((int64_t)(r->source.end - r->source.begin) > r->max_row_bytes)
        return text_fail(r, "longer than %lld bytes%s", (long long)r->max_row_bytes, hint);
    return text_source_more(&r->source, got);
}

enum status text_line(struct text_reader *r, char **line, size_t *n, bool *more)
{
    struct text_source *s = &r->source;
    const char *feed = NULL;
    size_t seen = 0;
    *line = NULL;
    *n = 0;
    *more = false;
    r->line += r->lines_in_row;
    r->lines_in_row = 0;
    for (;;) {
        bool got;
        if (s->end - s->begin > seen)
            feed = memchr(s->buf + s->begin + seen, '\n', s->end - s->begin - seen);
        if (feed != NULL)
            break;
        seen = s->end - s->begin;
        TRY(text_more(r, "", &got));
        if (!got) {
            if (seen == 0)
                return STATUS_OK;
            break;
        }
    }
    *line = s->buf + s->begin;
    *n = feed == NULL ? s->end - s->begin : (size_t)(feed - *line);
    if ((int64_t)*n > r->max_row_bytes)
        return text_fail(r, "longer than %lld bytes", (long long)r->max_row_bytes);
    r->row_offset = s->base + (int64_t)s->begin;
    r->lines_in_row = 1;
    s->begin += *n + (feed == NULL ? 0 : 1);
    if (*n > 0 && (*line)[*n - 1] == '\r')
        (*n)--;
    *more = true;
    return STATUS_OK;
}

static enum status fail_utf8(struct text_reader *r, const char *p, int64_t offset)
{
    unsigned byte = (unsigned char)*p;
    if (byte == 0)
        return text_fail(r, "byte %lld is NUL, wanted UTF-8 text", (long long)offset);
    if (offset == 0 && byte >= 0xFE)
        return text_fail(
            r,
            "byte 0 (0x%02X) is not UTF-8; it looks like UTF-16: convert it with iconv -f utf-16 "
            "-t utf8",
            byte);
    if (r->source.unpacker != NULL || r->source.fd <= 0)
        return text_fail(r,
                         "byte %lld (0x%02X) is not UTF-8; it looks like Latin-1: convert it with "
                         "iconv -f latin1 "
                         "-t utf8",
                         (long long)offset, byte);
    return text_fail(
        r,
        "byte %lld (0x%02X) is not UTF-8; it looks like Latin-1: convert it with iconv -f latin1 "
        "-t utf8 '%s' > utf8-file",
        (long long)offset, byte, r->source.name);
}

enum status text_check(struct text_reader *r, const char *p, size_t n, int64_t offset)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t i = 0;
    while (i < n) {
        size_t stop = n - i < 64 ? n : i + 64;
        if (stop - i == 64) { /* the compiler turns this into a few vector instructions */
            unsigned char all = 0, zero = 0;
            for (size_t j = 0; j < 64; j++) {
                all |= u[i + j];
                zero |= u[i + j] == 0;
            }
            if (all < 0x80 && zero == 0) {
                i = stop;
                continue;
            }
        }
        while (i < stop) {
            if (u[i] == 0)
                return fail_utf8(r, p + i, offset + (int64_t)i);
            if (u[i] < 0x80) {
                i++;
                continue;
            }
            size_t end = i + 1; /* no sequence reaches past a run of bytes above 0x7F */
            while (end < n && u[end] >= 0x80)
                end++;
            i += utf8_valid_prefix(p + i, end - i);
            if (i < end)
                return fail_utf8(r, p + i, offset + (int64_t)i);
        }
    }
    return STATUS_OK;
}

enum status text_add_span(struct text_reader *r, struct text_span span)
{
    if (r->span_count >= TEXT_MAX_COLUMNS)
        return text_fail(r, "more than %d columns", TEXT_MAX_COLUMNS);
    if (r->span_count == r->span_capacity)
        TRY(mem_grow(&r->spans, &r->span_capacity, r->span_count + 1, sizeof *r->spans,
                     "the columns of a row"));
    r->spans[r->span_count++] = span;
    return STATUS_OK;
}

enum status text_add_column(struct text_reader *r, const char *name, size_t n)
{
    if (r->columns >= TEXT_MAX_COLUMNS)
        return text_fail(r, "more than %d columns", TEXT_MAX_COLUMNS);
    TRY(mem_grow(&r->name_at, &r->name_capacity, r->columns + 1, sizeof *r->name_at,
                 "the columns' names"));
    r->name_at[r->columns] = r->name_bytes.n;
    TRY(str_add(&r->name_bytes, n == 0 ? "" : name, n));
    TRY(str_add(&r->name_bytes, "", 1)); /* the NUL */
    r->columns++;
    return STATUS_OK;
}

const char *text_column(const struct text_reader *r, size_t column)
{
    return r->name_bytes.p + r->name_at[column];
}

enum status text_guess_format(const char *path, enum text_format *format)
{
    static const struct {
        const char *extension;
        enum text_format format;
    } known[] = {{".tsv", TEXT_TSV},     {".tab", TEXT_TSV},      {".csv", TEXT_CSV},
                 {".jsonl", TEXT_JSONL}, {".ndjson", TEXT_JSONL}, {".arff", TEXT_ARFF}};
    struct str extension = {0};
    *format = TEXT_AUTO;
    if (strcmp(path, "-") == 0) {
        *format = TEXT_JSONL;
        return STATUS_OK;
    }
    if (file_is_folder(path)) {
        *format = TEXT_FOLDER;
        return STATUS_OK;
    }
    enum status st = path_extension(path, &extension);
    if (st == STATUS_OK) {
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (strcasecmp(extension.p, known[i].extension) == 0)
                *format = known[i].format;
        }
        if (*format == TEXT_AUTO)
            st = status_fail(STATUS_CONFIG,
                             "%s: the name does not tell the format; wanted .tsv, .csv, .jsonl or "
                             ".arff (and .gz or "
                             ".zst behind it), a folder, or data.format",
                             path);
    }
    str_release(&extension);
    return st;
}

static enum status fail_missing(const struct text_reader *r, const struct text_slot *slot)
{
    struct str known = {0};
    const char **names, *near, *role = "where", *has = "it has";
    enum status st = mem_alloc_raw(r->columns, sizeof *names, "the columns' names", &names);
    if (st != STATUS_OK)
        return st;
    for (size_t i = 0; i < r->columns; i++)
        names[i] = text_column(r, i);
    for (size_t i = 0; i < r->columns && known.n < 400 && st == STATUS_OK; i++)
        st = str_addf(&known, "%s\"%.60s\"", i == 0 ? "" : ", ", names[i]);
    if (known.n >= 400 && st == STATUS_OK)
        st = str_addf(&known, " ... (%zu in all)", r->columns);
    for (size_t i = 0; i < r->piece_count; i++)
        role = r->pieces[i].slot >= 0 && r->slots + r->pieces[i].slot == slot ? "template" : role;
    for (int i = 0; i < TEXT_ROLES; i++) {
        if (r->role_slot[i] >= 0 && r->slots + r->role_slot[i] == slot) {
            role = role_names[i];
            break;
        }
    }
    if (r->format == TEXT_JSONL)
        has = "its first row has";
    else if (!r->header && r->parser == &text_delimited)
        has = "without a header they are counted from 1:";
    near = nearest_name(slot->name, names, r->columns);
    if (st == STATUS_OK)
        st = status_fail(STATUS_CONFIG, "%s has no column \"%.100s\" (data.%s); %s %s%s%.60s%s",
                         r->source.name, slot->name, role, has, r->columns == 0 ? "none" : known.p,
                         near == NULL ? "" : "; did you mean \"", near == NULL ? "" : near,
                         near == NULL ? "" : "\"?");
    mem_free(names);
    str_release(&known);
    return st;
}

static enum status resolve_slots(struct text_reader *r)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        struct text_slot *slot = &r->slots[i];
        bool found = false;
        for (size_t c = 0; c < r->columns; c++) {
            if (strcmp(slot->name, text_column(r, c)) != 0)
                continue;
            if (found)
                return status_fail(
                    STATUS_DATA,
                    "%s: the header has the column \"%.100s\" twice, in places %zu and %zu",
                    r->source.name, slot->name, slot->column + 1, c + 1);
            slot->column = c;
            found = true;
        }
        if (!found)
            return fail_missing(r, slot);
    }
    return STATUS_OK;
}

static enum status take_opts(struct text_reader *r, const struct text_opts *opts)
{
    const char *const names[TEXT_ROLES] = {opts->text, opts->pair,   opts->label, opts->group,
                                           opts->id,   opts->weight, opts->time,  opts->fold};
    r->header = opts->header;
    r->limit = opts->limit;
    r->max_words = opts->max_words;
    r->max_row_bytes = opts->max_row_bytes == 0 ? DEFAULT_ROW_BYTES : opts->max_row_bytes;
    r->line = 1;
    for (int i = 0; i < TEXT_ROLES; i++)
        r->role_slot[i] = -1;
    if (opts->limit < 0 || opts->max_words < 0 || opts->max_row_bytes < 0)
        return status_fail(
            STATUS_CONFIG,
            "data.limit is %lld, data.max_words %d, the longest row %lld bytes: none may "
            "be negative",
            (long long)opts->limit, opts->max_words, (long long)opts->max_row_bytes);
    const bool template = opts->template != NULL && opts->template[0] != '\0';
    const bool text = opts->text != NULL && opts->text[0] != '\0';
    if (!text && !template)
        return status_fail(STATUS_CONFIG,
                           "data.text is not set: it names the column of %s that holds the text",
                           opts->path);
    if (text && template)
        return status_fail(STATUS_CONFIG, "data.text and data.template are both set; wanted one of "
                                          "them to make the text");
    if (template)
        TRY(text_parse_template(r, opts->template));
    for (int i = 0; i < TEXT_ROLES; i++) {
        size_t slot;
        if (names[i] == NULL || names[i][0] == '\0')
            continue;
        TRY(text_add_slot(r, names[i], strlen(names[i]), &slot));
        r->role_slot[i] = (int)slot;
        r->slots[slot].required = r->slots[slot].required || i == 0;
    }
    TRY(text_parse_rows(r, opts->rows));
    TRY(text_parse_where(r, opts->where));
    return mem_alloc(r->slot_count, sizeof *r->cells, "the columns asked for", &r->cells);
}

static enum status skip_byte_order_mark(struct text_reader *r)
{
    struct text_source *s = &r->source;
    bool got = true;
    while (got && s->end - s->begin < 3)
        TRY(text_source_more(s, &got));
    if (s->end - s->begin >= 3 && memcmp(s->buf + s->begin, "\xEF\xBB\xBF", 3) == 0)
        s->begin += 3;
    return STATUS_OK;
}

static enum status open_parts(struct text_reader *r, const struct text_opts *opts,
                              const void *bytes, size_t n, size_t piece)
{
    static const struct text_parser *const parsers[] = {
        [TEXT_TSV] = &text_delimited, [TEXT_CSV] = &text_delimited, [TEXT_JSONL] = &text_jsonl,
        [TEXT_ARFF] = &text_arff,     [TEXT_FOLDER] = &text_folder,
    };
    TRY(mem_strdup(opts->path, &r->path));
    r->format = opts->format;
    if (r->format == TEXT_AUTO && strcmp(opts->path, "-") != 0 && bytes == NULL &&
        !file_exists(opts->path))
        return status_fail(STATUS_NOINPUT, "%s: no such file or folder", opts->path);
    if (r->format == TEXT_AUTO)
        TRY(text_guess_format(opts->path, &r->format));
    if (r->format < TEXT_TSV || r->format > TEXT_FOLDER)
        return status_fail(STATUS_ARG, "%s: format %d is none", opts->path, (int)r->format);
    r->parser = parsers[r->format];
    TRY(take_opts(r, opts));
    if (r->format != TEXT_FOLDER) {
        if (bytes != NULL)
            TRY(text_source_open_memory(&r->source, bytes, n, piece, r->path));
        else
            TRY(text_source_open(&r->source, r->path));
        TRY(skip_byte_order_mark(r));
    } else {
        r->source.name = r->path;
    }
    TRY(r->parser->header(r));
    return resolve_slots(r);
}

static enum status open_reader(const struct text_opts *opts, const void *bytes, size_t n,
                               size_t piece, struct text_reader **out)
{
    struct text_reader *r;
    *out = NULL;
    if (opts->path == NULL || opts->path[0] == '\0')
        return status_fail(STATUS_CONFIG, "no input file was named");
    TRY(mem_alloc(1, sizeof *r, "a text reader", &r));
    enum status st = open_parts(r, opts, bytes, n, piece);
    if (st != STATUS_OK) {
        text_close(r);
        return st;
    }
    *out = r;
    return STATUS_OK;
}

enum status text_open(const struct text_opts *opts, struct text_reader **out)
{
    return open_reader(opts, NULL, 0, 0, out);
}

enum status text_open_memory(const struct text_opts *opts, const void *bytes, size_t n,
                             size_t piece, struct text_reader **out)
{
    return open_reader(opts, bytes == NULL ? "" : bytes, n, piece, out);
}

static enum status deliver(struct text_reader *r, struct text_row *row)
{
    struct text_field *const fields[TEXT_ROLES] = {&row->text,  &row->pair, &row->label,
                                                   &row->group, &row->id,   &row->weight,
                                                   &row->time,  &row->fold};
    for (int i = 0; i < TEXT_ROLES; i++) {
        if (r->role_slot[i] >= 0)
            *fields[i] = r->cells[r->role_slot[i]];
    }
    if (r->piece_count > 0) {
        TRY(text_fill_template(r));
        row->text = (struct text_field){r->joined.p, r->joined.n};
    }
    if (r->max_words > 0) {
        TRY(text_cut_words(&row->text, r->max_words, &r->scratch[0]));
        TRY(text_cut_words(&row->pair, r->max_words, &r->scratch[1]));
    }
    row->row = r->rows;
    row->byte_offset = r->row_offset;
    return STATUS_OK;
}

static enum status next_selected(struct text_reader *r, struct text_row *row, bool *more)
{
    for (;;) {
        bool found = true, past;
        bool wanted = text_in_ranges(r, &past);
        if (past || (r->limit > 0 && r->selected == r->limit)) {
            r->finished = true;
            return STATUS_OK;
        }
        if (!r->pending)
            TRY(r->parser->next(r, &found));
        r->pending = false;
        if (!found) {
            r->finished = true;
            return STATUS_OK;
        }
        if (wanted) {
            TRY(r->parser->cells(r));
            wanted = text_meets_conditions(r);
        }
        if (wanted) {
            TRY(deliver(r, row));
            r->selected++;
        }
        r->rows++;
        if (wanted) {
            *more = true;
            return STATUS_OK;
        }
    }
}

enum status text_next(struct text_reader *r, struct text_row *row, bool *more)
{
    *row = (struct text_row){0};
    *more = false;
    if (r->finished)
        return STATUS_OK;
    enum status st = next_selected(r, row, more);
    if (st !=
        STATUS_OK) { /* the place in the file is lost: a reader that failed has no more rows */
        *row = (struct text_row){0};
        r->finished = true;
    }
    return st;
}

bool text_waits(const struct text_reader *r)
{
    return !r->pending && !r->finished && r->format != TEXT_FOLDER && text_source_waits(&r->source);
}

void text_counts(const struct text_reader *r, int64_t *seen, int64_t *selected)
{
    *seen = r->rows;
    *selected = r->selected;
}

void text_close(struct text_reader *r)
{
    if (r == NULL)
        return;
    text_source_close(&r->source);
    text_jsonl_release(r);
    for (size_t i = 0; i < r->slot_count; i++)
        mem_free(r->slots[i].name);
    for (size_t i = 0; i < r->condition_count; i++)
        mem_free(r->conditions[i].value);
    folder_list_free(r->files, r->file_count);
    mem_free(r->file_path);
    mem_free(r->slots);
    mem_free(r->conditions);
    mem_free(r->ranges);
    mem_free(r->cells);
    mem_free(r->spans);
    mem_free(r->name_at);
    str_release(&r->name_bytes);
    str_release(&r->scratch[0]);
    str_release(&r->scratch[1]);
    text_template_release(r);
    mem_free(r->path);
    mem_free(r);
}
