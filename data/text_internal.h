/*
 * text_internal.h - what the files behind text.h share: the window of bytes, the reader, and one
 * function per format.
 *
 * Bytes flow from a source (file, standard input or memory; gzip and zstd unpacked) into one window
 * that holds the current row whole. A format finds the row's end and fills reader->cells, one per
 * column that was asked for; text.c then selects. Nothing here is for use outside data/text*.c,
 * their tests and the fuzz target.
 */
#ifndef COHORT_DATA_TEXT_INTERNAL_H
#define COHORT_DATA_TEXT_INTERNAL_H

#include "base/str.h"
#include "data/text.h"

struct unpacker; /* gzip or zstd state, text_source.c */
struct text_parser;

/* Unpacked bytes [begin, end) of buf, the row being read first; begin is at byte base + begin of
 * the unpacked file. */
struct text_source {
    const char *name; /* for sentences, borrowed */
    int fd;           /* -1: memory */
    bool close_fd;
    const char *memory; /* not yet read, borrowed */
    size_t memory_left, piece;
    struct unpacker *unpacker; /* NULL: plain bytes */
    char *raw;                 /* bytes as stored: the first block, then the unpacker's input */
    size_t raw_begin, raw_end;
    char *buf;
    size_t begin, end, capacity;
    int64_t base;
    bool ended;
};

/* path "-" is standard input. STATUS_NOINPUT, STATUS_IO; STATUS_DATA for damaged gzip or zstd.
 * Close in any case. */
NODISCARD enum status text_source_open(struct text_source *source, const char *path);
/* piece: the most bytes one read delivers, so that tests can break a row anywhere; 0: as many as
 * fit. */
NODISCARD enum status text_source_open_memory(struct text_source *source, const void *bytes,
                                              size_t n, size_t piece, const char *name);
/* Bring bytes behind end, keeping [begin, end), which may move; *got = false at the end of the
 * file. */
NODISCARD enum status text_source_more(struct text_source *source, bool *got);
/* Whether there is no whole line in the window and nothing to read at once. */
bool text_source_waits(const struct text_source *source);
void text_source_close(struct text_source *source);

enum {
    TEXT_ROLES = 8
}; /* text, pair, label, group, id, weight, time, fold: the order of the fields of struct text_row
    */
enum { TEXT_MAX_COLUMNS = 65536 };

/* A column that the caller or a condition asks for. */
struct text_slot {
    char *name;    /* owned */
    size_t column; /* place in the file; unused for JSONL */
    bool required; /* JSONL: the key must be in every row: of the text */
};

/* A piece of opts->template: bytes, then a column. */
struct text_piece {
    char *bytes; /* owned */
    size_t n;
    int slot; /* -1: none, at the end */
};

/* Where a value lies in the row: offsets from the row's first byte. */
struct text_span {
    size_t begin, n;
    char quote;   /* '"' or '\'' where it was quoted, else 0; quotes themselves are outside */
    bool escaped; /* has doubled quotes (CSV) or backslashes (ARFF) that are still to be undone */
};

struct text_condition {
    size_t slot;
    bool differs;
    char *value; /* owned */
    size_t n;
};

struct text_range {
    int64_t first, last; /* inclusive */
};

struct text_reader {
    char *path; /* owned */
    const struct text_parser *parser;
    enum text_format format;
    bool header;
    struct text_source source;
    int64_t max_row_bytes, limit;
    int max_words;

    /* Columns of the file, in order. JSONL: keys of the first row. */
    struct str name_bytes;
    size_t *name_at;
    size_t columns, name_capacity;

    struct text_slot *slots;
    size_t slot_count, slot_capacity;
    int role_slot[TEXT_ROLES]; /* -1: not asked for */
    struct text_condition *conditions;
    size_t condition_count, condition_capacity;
    struct text_range *ranges; /* ascending, apart; range_count 0: all rows */
    size_t range_count, range_capacity, range_next;

    /* The row just read. */
    int64_t rows; /* read so far: the row being read has this number */
    char *row;    /* its bytes, in the window */
    size_t row_n;
    int64_t selected;
    int64_t line; /* line of the file on which it begins, from 1 */
    int64_t lines_in_row;
    int64_t row_offset;       /* of its first byte */
    struct text_field *cells; /* one per slot */
    struct text_span *spans;
    size_t span_count, span_capacity;
    bool in_header; /* for sentences */
    bool pending;   /* JSONL and headerless files: the first row was read by text_open() */
    bool finished;

    void *json;   /* json_t of a JSONL row, owned */
    char **files; /* TEXT_FOLDER: paths below the folder, sorted bytewise */
    size_t file_count, file_capacity;
    char *file_path;           /* of the file being read, owned; source.name */
    struct str scratch[2];     /* cut text and pair */
    struct text_piece *pieces; /* of the template; piece_count 0: none */
    size_t piece_count, piece_capacity;
    struct str joined; /* the text that the template makes */
};

/*
 * As text_open(), reading n bytes of memory, which must stay until text_close(), piece bytes at a
 * time (0: all). opts->path only names it; opts->format is none that needs a folder.
 */
NODISCARD enum status text_open_memory(const struct text_opts *opts, const void *bytes, size_t n,
                                       size_t piece, struct text_reader **out);

/* text.c: */
/* STATUS_DATA with "FILE: row R (line L): " before the sentence. */
enum status text_fail(struct text_reader *r, const char *format, ...) PRINTF_LIKE(2, 3);
/* text_source_more() that refuses rows of more than max_row_bytes. hint is added to that sentence.
 */
NODISCARD enum status text_more(struct text_reader *r, const char *hint, bool *got);
/* The next line without its line break, in the window; consumed. *more = false at the end of the
 * file. */
NODISCARD enum status text_line(struct text_reader *r, char **line, size_t *n, bool *more);
/* Refuse bytes that are not UTF-8, and NUL. offset is that of p[0] in the file. */
NODISCARD enum status text_check(struct text_reader *r, const char *p, size_t n, int64_t offset);
NODISCARD enum status text_add_span(struct text_reader *r, struct text_span span);
NODISCARD enum status text_add_column(struct text_reader *r, const char *name, size_t n);
const char *text_column(const struct text_reader *r, size_t column);

/*
 * One table per format. header() fills the columns; next() reads a row into the window; cells()
 * fills reader->cells from it, for rows that the ranges want.
 */
struct text_parser {
    enum status (*header)(struct text_reader *r);
    enum status (*next)(struct text_reader *r, bool *more);
    enum status (*cells)(struct text_reader *r);
};
extern const struct text_parser text_delimited, text_jsonl, text_arff, text_folder;
void text_jsonl_release(struct text_reader *r);

/* text_select.c: */
NODISCARD enum status text_parse_rows(struct text_reader *r, const char *rows);
NODISCARD enum status text_parse_where(struct text_reader *r, const char *where);
/* The slot of a column, made if need be; names are checked once the header is known. */
NODISCARD enum status text_add_slot(struct text_reader *r, const char *name, size_t n,
                                    size_t *slot);
/* STATUS_CONFIG: braces that do not pair, or no column in it. */
NODISCARD enum status text_parse_template(struct text_reader *r, const char *text);
/* The cells put into the template: r->joined. */
NODISCARD enum status text_fill_template(struct text_reader *r);
void text_template_release(struct text_reader *r);
/* Whether the next row (r->rows) is within the ranges; *past: neither it nor any behind it is. */
bool text_in_ranges(struct text_reader *r, bool *past);
/* Whether the cells meet every condition. */
bool text_meets_conditions(const struct text_reader *r);
/* The first max_words words of field, joined by single spaces in out. */
NODISCARD enum status text_cut_words(struct text_field *field, int max_words, struct str *out);

#endif
