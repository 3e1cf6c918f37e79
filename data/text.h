/*
 * text.h - rows of text out of TSV, CSV, JSONL, ARFF files and folders of .txt, plain or
 * compressed.
 *
 * A reader streams: it holds one row, whatever the file's size. .tsv has no quoting, .csv is RFC
 * 4180 (quotes, line breaks inside fields), .jsonl is one object a line, .arff is Weka's format
 * (quoted strings, ? is missing), a folder gives one row per .txt file, its sub-folder's name being
 * the label. gzip and zstd are told by their first bytes. A byte-order mark and CRLF are accepted.
 * Text must be UTF-8 without NUL; the failing row is named, with the byte where it lies. Row
 * selection happens here, so that every command selects alike.
 *
 * Columns. TSV and CSV: by the header, or "1", "2", ... without one; every row has as many as the
 * first. An empty line is skipped among several columns and at the file's end; otherwise, with one
 * column, it is an empty text. JSONL: keys; those asked for must be in the first row, and the
 * text's in every row; null is missing; numbers and booleans are taken as they are written; blank
 * lines are skipped. ARFF: @attribute names. A folder: text, label and id (the path below the
 * folder, by whose bytes the rows are sorted; files beside the sub-folders have no label; names
 * that begin with a dot and other extensions are left out).
 *
 * Local: knows nothing of ranks.
 */
#ifndef COHORT_DATA_TEXT_H
#define COHORT_DATA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum text_format { TEXT_AUTO, TEXT_TSV, TEXT_CSV, TEXT_JSONL, TEXT_ARFF, TEXT_FOLDER };

struct text_opts {
    const char
        *path; /* file or folder; "-" is standard input (then format must be given, or is JSONL) */
    enum text_format format;
    bool header;      /* first line names the columns; false: columns are named "1", "2", ... */
    const char *text; /* columns by name; NULL: none. text, or template, is required ... */
    /* In place of text: columns in braces, other bytes as they are, {{ and }} for braces:
     * "{title} [SEP] {body}". A missing cell is empty. NULL or "": none. */
    const char *template;
    const char *pair; /* ... the others are optional */
    const char *label;
    const char *group;
    const char *id;
    const char *weight;
    const char *time;
    const char *fold;
    /*
     * "column=value", "column!=value" ("==" is "="), several joined by " and "; NULL: all rows.
     * Bytes are compared; spaces around column and value do not count; a missing cell counts as
     * empty. An " and " that no condition follows belongs to the value.
     */
    const char *where;
    const char
        *rows;     /* "0-127,200,300-": row numbers of the file, from 0, in any order; NULL: all */
    int64_t limit; /* stop after this many selected rows, reading no further; 0: all */
    int max_words; /* keep the first words of text and pair separated by (Unicode) white space,
                    * joined by one space (D3); 0: the texts as they are */
    int64_t max_row_bytes; /* longer rows are refused by number; 0: 64 MiB */
};

/* A piece of text: n bytes of UTF-8, not NUL-terminated; p is NULL where the column was not asked
 * for or is missing. */
struct text_field {
    const char *p;
    size_t n;
};

struct text_row {
    int64_t row;         /* number in the file, from 0, header not counted */
    int64_t byte_offset; /* of the row's first byte in the (decompressed) file; of the file in a
                            folder: 0 */
    struct text_field text, pair, label, group, id, weight, time,
        fold; /* borrowed until the next call */
};

struct text_reader; /* opaque */

/*
 * Open and read the header. opts is copied. On success *out is owned by the caller (text_close),
 * else NULL. STATUS_NOINPUT the file is missing; STATUS_CONFIG a column is not in the file (the
 * message lists those that are), where/rows cannot be read, or the format is not known; STATUS_DATA
 * an empty file, a broken header, a column asked for that is there twice (JSONL and files without
 * header: also a broken first row); STATUS_IO, STATUS_NOMEM. A header without rows is legal.
 */
NODISCARD enum status text_open(const struct text_opts *opts, struct text_reader **out);

/*
 * The next selected row, or *more = false at the end. STATUS_DATA names file, row and what is
 * wrong; STATUS_IO, STATUS_NOMEM; a file that vanishes from a folder is STATUS_NOINPUT. After a
 * failure there are no more rows.
 */
NODISCARD enum status text_next(struct text_reader *reader, struct text_row *row, bool *more);

/* Whether text_next() would wait for whoever writes to a pipe or terminal; never of a file. */
bool text_waits(const struct text_reader *reader);

/* Rows seen and rows selected so far. */
void text_counts(const struct text_reader *reader, int64_t *seen, int64_t *selected);
void text_close(struct text_reader *reader);

/* The format opts->path would be read as; STATUS_CONFIG where the name does not tell. */
NODISCARD enum status text_guess_format(const char *path, enum text_format *format);

/*
 * Writing rows of results as TSV, CSV or JSONL by extension (JSONL where there is none); "-" is
 * standard output, JSONL, each row written at once unless it is a file. The file appears under its
 * name when text_writer_close() succeeds (temporary name, fsync, rename); a device or pipe is
 * written directly. Fields are quoted as the format asks; a TSV field's tabs and line breaks become
 * spaces; lists are JSON arrays, in TSV and CSV numbers parted by spaces; missing text is null or
 * empty; NaN and infinities are null, in TSV and CSV nan, inf, -inf. Without rows the file is
 * empty. STATUS_CONFIG an extension without a format; STATUS_IO; STATUS_ARG a row unlike the first.
 */
enum text_cell_kind { CELL_TEXT, CELL_INT, CELL_FLOATS, CELL_INTS };
struct text_cell {
    const char *name; /* column, and key in JSONL */
    enum text_cell_kind kind;
    struct text_field text;
    int64_t integer;
    const float *floats; /* CELL_FLOATS: n of them; each reads back to the same bits */
    const int32_t *ints; /* CELL_INTS */
    int64_t n;
};
struct text_writer; /* opaque */
NODISCARD enum status text_writer_open(const char *path, struct text_writer **out);
/* The first row fixes the header. */
NODISCARD enum status text_writer_row(struct text_writer *writer, const struct text_cell *cells,
                                      int count);
/* keep false: drop what was written. NULL is fine. */
NODISCARD enum status text_writer_close(struct text_writer *writer, bool keep);

#endif
