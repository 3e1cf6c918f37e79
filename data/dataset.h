/*
 * dataset.h - rows of tokens from one prepared HDF5 file, packed into batches without padding.
 *
 * Rows are ragged: "/tokens" holds all ids back to back, "/offsets" where each row begins (docs/formats.md). Special
 * tokens are added and rows cut to max_length here, so one file serves any length. The file is treated as hostile:
 * layout, filters, links, types, sizes, monotone offsets and id range are checked before use (HDF5 itself is not made
 * for hostile files: no external storage, no links, no virtual datasets, only deflate/shuffle/fletcher32).
 *
 * The unit of work is (row, chunk): today every row is one chunk, number 0.
 *
 * Local: knows nothing of ranks and never communicates. One thread at a time.
 */
#ifndef COHORT_DATA_DATASET_H
#define COHORT_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "data/tokenizer.h"

enum label_kind {
    LABEL_NONE,
    LABEL_CLASS, /* int32 class ids and their names */
    LABEL_VALUE, /* float32, regression */
    LABEL_MULTI  /* CSR lists of class ids and their names: multi-label */
};

/* What a prepared file says of itself: root attributes. Strings are borrowed from the dataset. */
struct dataset_info {
    int64_t rows;
    int64_t tokens; /* content tokens, special tokens not counted */
    int vocab_size;
    int32_t cls, sep, pad;
    uint64_t tokenizer_hash, content_hash; /* content_hash: of tokens, offsets and labels; names the data in manifests */
    bool has_pairs, has_text, has_groups, has_ids, has_weights;
    enum label_kind label_kind;
    int classes;              /* names of LABEL_CLASS and LABEL_MULTI */
    const char *const *names; /* (classes), sorted bytewise, numbers by value */
    const char *source;       /* path as given to prepare */
    const char *tokenizer_kind;
};

struct dataset; /* opaque */

struct dataset_opts {
    const char *path;
    int max_length; /* tokens per row with special tokens, >= 3 (>= 4 with pairs); longer rows are cut and counted */
};

/* A batch of B rows, T tokens, packed back to back; host memory, borrowed until the next read into the same batch. */
struct batch {
    int64_t tokens;       /* T, sum of the rows' lengths */
    int rows;             /* B; 0 is legal */
    int max_row;          /* longest row, tokens */
    int32_t *ids;         /* (T) */
    int32_t *types;       /* (T) 0 first text and its separators, 1 second text and its separator */
    int32_t *begin;       /* (B + 1) where each row begins in ids; begin[B] == T */
    int64_t *row;         /* (B) row ids, for labels, dropout keys and scores */
    int32_t *chunk;       /* (B) chunk of the row */
    size_t token_capacity, row_capacity;
};

/*
 * Open the file and check everything but the token ids: one pass over the offsets, no token is read. On success *out
 * is owned by the caller (dataset_close); on failure it is NULL. STATUS_NOINPUT, STATUS_FORMAT (says what and where).
 */
NODISCARD enum status dataset_open(const struct dataset_opts *opts, struct dataset **out);
void dataset_close(struct dataset *ds);
void dataset_get_info(const struct dataset *ds, struct dataset_info *info);

/* Tokens of a row with special tokens after cutting to max_length; whether it was cut. row in [0, rows). */
int dataset_length(const struct dataset *ds, int64_t row);
bool dataset_is_cut(const struct dataset *ds, int64_t row);

/* Labels and columns of all rows, (rows), borrowed from ds; NULL where the file has none. */
const int32_t *dataset_classes(const struct dataset *ds);
const float *dataset_values(const struct dataset *ds);
const int64_t *dataset_multi_begin(const struct dataset *ds); /* (rows + 1) */
const int32_t *dataset_multi(const struct dataset *ds);
const float *dataset_weights(const struct dataset *ds);
const int32_t *dataset_groups(const struct dataset *ds);      /* group numbers, by first appearance */
int dataset_group_count(const struct dataset *ds);
/* The row's id column ("" if none), its text and pair (if stored), its place in the source; appended to out. */
NODISCARD enum status dataset_row_id(struct dataset *ds, int64_t row, struct str *out);
NODISCARD enum status dataset_row_text(struct dataset *ds, int64_t row, struct str *text, struct str *pair);
NODISCARD enum status dataset_row_source(struct dataset *ds, int64_t row, int64_t *source_row, int64_t *byte_offset);

/*
 * Read rows[0..count) in that order into batch (grown as needed). STATUS_ARG a row outside the dataset;
 * STATUS_FORMAT an id outside the vocabulary: the message names the row; STATUS_IO.
 */
NODISCARD enum status dataset_read(struct dataset *ds, const int64_t *rows, int count, struct batch *batch);
void batch_release(struct batch *batch);

/* ---- writing ---- */

/* Rows that were tokenized, held in memory; the parts of several ranks are appended in order. Start with {0}. */
struct dataset_part {
    int64_t rows;
    struct id_list tokens;   /* both texts of each row, first then second */
    int64_t *lengths;        /* (rows) tokens of the row */
    uint32_t *split;         /* (rows) tokens of the first text; UINT32_MAX: single */
    int64_t *source_row, *source_offset;
    float *weight;           /* NaN where there is none */
    struct str bytes;        /* text, pair, label, group, id of each row, back to back ... */
    int64_t *byte_lengths;   /* (rows * 5) ... their lengths in that order; -1: missing */
    size_t capacity;
};
struct text_row;
/* Tokenize one row and append it. keep_text false stores no text and pair. */
NODISCARD enum status dataset_part_add(struct dataset_part *part, const struct tokenizer *tokenizer,
                                       const struct text_row *row, bool keep_text);
/* Append b's rows behind a's. */
NODISCARD enum status dataset_part_append(struct dataset_part *a, const struct dataset_part *b);
/* To and from bytes, for sending between ranks of one machine kind. STATUS_FORMAT on nonsense. */
NODISCARD enum status dataset_part_pack(const struct dataset_part *part, struct str *out);
NODISCARD enum status dataset_part_unpack(const char *bytes, size_t n, struct dataset_part *part);
void dataset_part_release(struct dataset_part *part);

struct dataset_write_opts {
    const char *path;        /* written under a temporary name and renamed */
    const char *source;      /* stored */
    uint64_t source_hash;
    enum label_kind label_kind;
    const char *label_separator; /* LABEL_MULTI: splits the label column; NULL: "," */
    const char *const *names; /* fixed classes in this order (the model's id2label), or NULL: found and sorted */
    int classes;
    const struct tokenizer_info *tokenizer;
    bool keep_text;
};
/*
 * Write the file: same bytes for the same parts, whatever the rank count, host and day. STATUS_DATA: a label that is
 * not among names, or is no number for LABEL_VALUE (names the row); STATUS_IO: disk full and the like.
 */
NODISCARD enum status dataset_write(const struct dataset_write_opts *opts, const struct dataset_part *part);

#endif
