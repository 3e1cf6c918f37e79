/*
 * dataset.h - rows of tokens from one prepared HDF5 file, packed into batches without padding.
 *
 * Rows are ragged: "/tokens" holds all ids back to back, "/offsets" where each row begins
 * (docs/formats.md). Special tokens are added and rows cut to max_length here, so one file serves
 * any length. The file is treated as hostile: headers, links, types, sizes, monotone offsets and id
 * range are checked before use, by a reader of our own, since the HDF5 library is not made for
 * hostile files (data/h5.h): no external storage, soft links, virtual datasets, filters.
 *
 * The unit of work is (row, chunk). Units are numbered through the file, row by row; without a rule
 * for chunks every row is one unit of its number.
 *
 * Local: knows nothing of ranks and never communicates. One thread at a time.
 */
#ifndef COHORT_DATA_DATASET_H
#define COHORT_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "data/chunk.h"
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
    int model_max_length; /* the tokenizer's default maximum; 0: not said */
    uint64_t tokenizer_hash;
    uint64_t source_hash;  /* as given to prepare */
    uint64_t content_hash; /* of all that can change a result (not text, ids, places); names the
                              data in manifests */
    bool has_pairs, has_text, has_groups, has_ids, has_weights, has_times, has_folds;
    enum label_kind label_kind;
    int classes;              /* names of LABEL_CLASS and LABEL_MULTI */
    const char *const *names; /* (classes), sorted bytewise, numbers by value */
    const char *source;       /* path as given to prepare */
    const char *tokenizer_kind;
    const char *tool; /* "cohort 0.1.0", which wrote the file */
};

struct dataset; /* opaque */

struct dataset_opts {
    const char *path;
    int max_length;           /* tokens per row with special tokens, >= 3 (with pairs 4, or 5 if two
                                 separators stand between texts); longer rows are cut and counted */
    struct chunk_rule chunks; /* with a size: rows are split instead; max_length holds a chunk and
                                 its special tokens */
};

/* A batch of B rows, T tokens, packed back to back; host memory, borrowed until the next read into
 * the same batch. */
struct batch {
    int64_t tokens; /* T, sum of the rows' lengths */
    int rows;       /* B, units; 0 is legal */
    int max_row;    /* longest row, tokens */
    int32_t *ids;   /* (T) */
    int32_t *types; /* (T) 0 first text and its separators, 1 second text and its separator */
    int32_t *begin; /* (B + 1) where each row begins in ids; begin[B] == T */
    int64_t *row;   /* (B) row ids, for labels, dropout keys and scores */
    int32_t *chunk; /* (B) chunk of the row */
    size_t token_capacity, row_capacity;
};

/*
 * Open the file and check everything but token ids and stored text, which are checked where they
 * are read: one pass over offsets, labels and columns, no token is read. On success *out is owned
 * by the caller (dataset_close); on failure it is NULL. STATUS_NOINPUT, STATUS_FORMAT (says what
 * and where), STATUS_ARG max_length too small, STATUS_CONFIG chunks of pairs.
 */
NODISCARD enum status dataset_open(const struct dataset_opts *opts, struct dataset **out);
/* Read every token, check ids and content hash: for inspect and check. STATUS_FORMAT: changed or
 * damaged. */
NODISCARD enum status dataset_verify(struct dataset *ds);
void dataset_close(struct dataset *ds);
void dataset_get_info(const struct dataset *ds, struct dataset_info *info);

/* Units of rows before `row`, which is in [0, rows]: the first unit of the row; of all of them. */
int64_t dataset_first_unit(const struct dataset *ds, int64_t row);
const struct chunk_rule *dataset_chunks(const struct dataset *ds); /* size 0: none */
/* Tokens of a unit with special tokens after cutting to max_length. unit in [0, units). */
int dataset_length(const struct dataset *ds, int64_t unit);
/* Tokens of a row's texts, special tokens not counted, nothing cut. */
int64_t dataset_content_length(const struct dataset *ds, int64_t row);
/* Tokens of all units of a row. */
int64_t dataset_row_length(const struct dataset *ds, int64_t row);
/* Whether tokens of the row are in none of its units. row in [0, rows). */
bool dataset_is_cut(const struct dataset *ds, int64_t row);
/* What was done to the row's text, added. */
void dataset_tally(const struct dataset *ds, int64_t row, struct chunk_tally *tally);

/* Labels and columns of all rows, (rows), borrowed from ds; NULL where the file has none. */
const int32_t *dataset_classes(const struct dataset *ds);
const float *dataset_values(const struct dataset *ds);
const int64_t *dataset_multi_begin(const struct dataset *ds); /* (rows + 1) */
const int32_t *dataset_multi(const struct dataset *ds);
const float *dataset_weights(const struct dataset *ds);
const int32_t *dataset_groups(const struct dataset *ds); /* group numbers, by first appearance */
int dataset_group_count(const struct dataset *ds);
const char *dataset_group_name(const struct dataset *ds,
                               int32_t group);         /* borrowed; group in [0, count) */
const double *dataset_times(const struct dataset *ds); /* numbers, or seconds since 1970 (UTC) */
/* Numbers of what the fold column says, by first appearance, and the names of these numbers. */
const int32_t *dataset_folds(const struct dataset *ds);
const char *const *dataset_fold_names(const struct dataset *ds); /* (count), borrowed */
int dataset_fold_name_count(const struct dataset *ds);
/*
 * The row's id column ("" if none), its text and pair (nothing where none is stored), appended; its
 * place in the source. STATUS_ARG a row outside the dataset, STATUS_FORMAT damaged text, STATUS_IO.
 */
NODISCARD enum status dataset_row_id(struct dataset *ds, int64_t row, struct str *out);
NODISCARD enum status dataset_row_text(struct dataset *ds, int64_t row, struct str *text,
                                       struct str *pair);
NODISCARD enum status dataset_row_source(struct dataset *ds, int64_t row, int64_t *source_row,
                                         int64_t *byte_offset);

/*
 * Read units[0..count) in that order into batch (grown as needed; start with {0}). STATUS_ARG a
 * unit outside the dataset or more than 2^31 - 1 tokens; STATUS_FORMAT an id outside the
 * vocabulary: the message names the row and its place in the source; STATUS_IO.
 */
NODISCARD enum status dataset_read(struct dataset *ds, const int64_t *units, int count,
                                   struct batch *batch);
/* Room for rows and tokens in a batch that another source packs; what was in it is lost.
 * STATUS_NOMEM. */
NODISCARD enum status batch_reserve(struct batch *batch, size_t tokens, size_t rows);
void batch_release(struct batch *batch);

/* ---- writing ---- */

/* What a row has as bytes, in this order in dataset_part.bytes. */
enum part_field {
    PART_TEXT,
    PART_PAIR,
    PART_LABEL,
    PART_GROUP,
    PART_ID,
    PART_TIME,
    PART_FOLD,
    PART_FIELDS
};

/* Rows that were tokenized, held in memory; the parts of several ranks are appended in order. Start
 * with {0}. */
struct dataset_part {
    int64_t rows;
    struct id_list tokens; /* both texts of each row, first then second */
    int64_t *lengths;      /* (rows) tokens of the row */
    uint32_t *split;       /* (rows) tokens of the first text; UINT32_MAX: single */
    int64_t *source_row, *source_offset;
    float *weight;    /* NaN where there is none */
    struct str bytes; /* what rows have as bytes, in the order of part_field, back to back ... */
    int64_t *byte_lengths; /* (rows * PART_FIELDS) ... their lengths in that order; -1: missing */
    size_t capacity;
};
struct text_row;
/*
 * Tokenize one row and append it; without a tokenizer (NULL) it has texts and labels, but no
 * tokens. keep_text false stores no text and pair. STATUS_DATA: a weight that is no number >= 0
 * (names the row), or the tokenizer's; the part is then as before.
 */
NODISCARD enum status dataset_part_add(struct dataset_part *part, const struct tokenizer *tokenizer,
                                       const struct text_row *row, bool keep_text);
/*
 * The same for count rows at once, tokenized by the process's threads (threads_set): the same bytes
 * for any number of them. The rows' fields must all stay valid during the call. On failure, which
 * is that of the first bad row, the part is as before.
 */
NODISCARD enum status dataset_part_add_many(struct dataset_part *part,
                                            const struct tokenizer *tokenizer,
                                            const struct text_row *rows, int64_t count,
                                            bool keep_text);
/* Append b's rows behind a's. */
NODISCARD enum status dataset_part_append(struct dataset_part *a, const struct dataset_part *b);
/* To (appended) and from bytes, for sending between ranks of one machine kind. */
NODISCARD enum status dataset_part_pack(const struct dataset_part *part, struct str *out);
/* Fill a part that is {0}; it stays so on failure. STATUS_FORMAT: lengths that contradict each
 * other or n. */
NODISCARD enum status dataset_part_unpack(const char *bytes, size_t n, struct dataset_part *part);
void dataset_part_release(struct dataset_part *part);

struct dataset_write_opts {
    const char *path;   /* written under a temporary name and renamed */
    const char *source; /* stored */
    uint64_t source_hash;
    enum label_kind label_kind;
    const char *label_separator; /* LABEL_MULTI: splits the label column; NULL: "," */
    const char *const
        *names;  /* fixed classes in this order (the model's id2label), or NULL: found and sorted */
    int classes; /* how many names */
    const struct tokenizer_info *tokenizer;
    bool keep_text;
};
/*
 * Write the file: same bytes for the same rows, however they were divided over parts, on any host
 * and day (the headers come from the HDF5 library: other versions of it may lay them out
 * differently).
 *
 * Classes that were found are sorted bytewise, by value where all of them are numbers. LABEL_MULTI
 * labels lose white space around them, empty ones and repetitions; a row without any is legal.
 * Weights, groups, ids, times and folds are stored where any row has one; then all rows must have a
 * weight, a group that is not empty and a time; ids and folds may be missing (""). A time is a
 * number, or a date (row_time.h); not both in one file.
 *
 * STATUS_DATA, naming the row: a label that is missing or empty, not among names, no number for
 * LABEL_VALUE, not UTF-8 or with a NUL inside; a missing weight, group or time, or a time that is
 * none; no rows at all.
 * STATUS_CONFIG: a name twice in names. STATUS_IO: disk full and the like; a file that was there
 * stays.
 */
NODISCARD enum status dataset_write(const struct dataset_write_opts *opts,
                                    const struct dataset_part *part);

#endif
