/*
 * h5.h - HDF5 files of columns and root attributes. Private to data/. A column has one dimension,
 * or is a table of numbers (two), or a list of texts of one length.
 *
 * Reading does without the HDF5 library. It says itself that it is not made for hostile files,
 * and 1.10.8 did crash on forged headers of a prepared file (tests/data/test_dataset_hostile.c,
 * test_forged_headers_never_crash). What cohort writes needs little of the format: superblock 2 or
 * 3, object headers, links and attributes inside the headers, values in one piece. Exactly that is
 * read, by a parser that takes every address and length for a lie until it was checked; all else
 * (links that are not hard, external storage, virtual datasets, chunks, filters, other types, more
 * dimensions, values outside the file) is refused by name. No other file is ever opened. Values are
 * read with pread: at random, through the page cache, and a file cut short under our hands is an
 * error and not a signal.
 *
 * Writing goes through the library, but 1.10 crashes in its exit handler after a write that failed
 * (disk full). So it never writes to the disk: it lays out the file (a few KB of headers, columns
 * as holes) in shared memory, and headers and columns are then written by our own calls under a
 * temporary name and renamed. Same columns and attributes, same bytes: no times are stored and the
 * format is pinned to HDF5 1.8's. One thread at a time (the library's own rule).
 */
#ifndef COHORT_DATA_H5_H
#define COHORT_DATA_H5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

/* Stored types, all little-endian. H5_BYTES is text in pieces: uint8. */
enum h5_type { H5_BYTES, H5_I32, H5_U32, H5_F32, H5_I64, H5_U64, H5_F64 };
size_t h5_type_size(enum h5_type type);

/* ---- reading ---- */

/* One message of an object header: n bytes at `at` of h5_header.bytes, which lie at `place` in the
 * file. */
struct h5_message {
    int type;
    size_t at, n;
    int64_t place;
};

/* An object header, read and cut into messages. */
struct h5_header {
    struct str bytes;
    struct h5_message *messages;
    size_t count, capacity;
};

/* An open file; start with H5_FILE_NONE. */
struct h5_file {
    int fd;
    int64_t size; /* bytes */
    char *path;   /* owned */
    struct h5_header root;
};
#define H5_FILE_NONE ((struct h5_file){.fd = -1})

/* A column of a file; nothing to release. */
struct h5_column {
    const char *name; /* "label/class", borrowed */
    enum h5_type type;
    int64_t count;  /* values */
    int64_t offset; /* of the first value in the file */
};

/*
 * Open path for reading. On failure *file is empty. STATUS_NOINPUT: cannot be opened;
 * STATUS_FORMAT: no HDF5 file, cut short, damaged (checksums of headers), another superblock.
 * h5_close() takes an empty file too.
 */
NODISCARD enum status h5_open(const char *path, struct h5_file *file);
void h5_close(struct h5_file *file);

/* Root attributes: one int64 in a range, one uint64, text of fixed length (at most 65,535 bytes).
 * STATUS_FORMAT. */
NODISCARD enum status h5_get_int(const struct h5_file *file, const char *name, int64_t low,
                                 int64_t high, int64_t *out);
/* The same, or fallback where there is no such attribute. */
NODISCARD enum status h5_get_int_or(const struct h5_file *file, const char *name, int64_t low,
                                    int64_t high, int64_t fallback, int64_t *out);
NODISCARD enum status h5_get_hash(const struct h5_file *file, const char *name, uint64_t *out);
/* Valid UTF-8, up to the first NUL; owned by the caller (mem_free). */
NODISCARD enum status h5_get_text(const struct h5_file *file, const char *name, char **out);

/* Whether the file has a column (or group) of this name, with at most one '/'. STATUS_FORMAT: it is
 * no hard link. */
NODISCARD enum status h5_has(const struct h5_file *file, const char *name, bool *found);
/* Find a column and check it. count < 0: any number of values. STATUS_FORMAT. */
NODISCARD enum status h5_column_open(const struct h5_file *file, const char *name,
                                     enum h5_type type, int64_t count, struct h5_column *column);
/* The same of a table (rows, *width): its values line by line. rows < 0: any number. */
NODISCARD enum status h5_table_open(const struct h5_file *file, const char *name, enum h5_type type,
                                    int64_t rows, int64_t *width, struct h5_column *column);
/* The same of texts of fixed length, padded with NUL: H5_BYTES, each *width of them a text. */
NODISCARD enum status h5_texts_open(const struct h5_file *file, const char *name, int64_t count,
                                    int64_t *width, struct h5_column *column);
/* Values [first, first + n) of the column. STATUS_ARG outside of it; STATUS_IO; STATUS_FORMAT the
 * file ends early. */
NODISCARD enum status h5_column_read(const struct h5_file *file, const struct h5_column *column,
                                     int64_t first, int64_t n, void *out);

/* ---- writing ---- */

/* One root attribute: text where text is not NULL, else a hash or a number. */
struct h5_attribute {
    const char *name;
    const char *text;
    bool is_hash;
    int64_t number;
    uint64_t hash;
};

struct h5_sink; /* opaque: where bytes of a column go */
NODISCARD enum status h5_sink_add(struct h5_sink *sink, const void *bytes, size_t n);

/* One column: its values in memory, or a function that adds exactly count values' bytes to the
 * sink. */
struct h5_output {
    const char *name; /* at most one '/'; the group is made on the way */
    enum h5_type type;
    int64_t count;
    const void *values;
    enum status (*emit)(struct h5_sink *sink, const void *context);
    const void *context;
    int64_t width; /* 0: one dimension; else the values are (count / width, width) */
    bool text; /* H5_BYTES with a width: count / width texts, UTF-8, each NUL-padded to width bytes
                */
};

/*
 * Write a file of these attributes and columns, in this order, atomically. STATUS_IO: the disk (or
 * the process's file size limit) is too small, which is asked before anything is written, or a
 * write failed; a file that was there stays.
 */
NODISCARD enum status h5_write(const char *path, const struct h5_attribute *attributes,
                               int nattributes, const struct h5_output *columns, int ncolumns);

#endif
