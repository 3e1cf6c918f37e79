/*
 * safetensors.h - read and write the safetensors format, without trusting a file.
 *
 * Format: 8 bytes little-endian header length, JSON header {name: {dtype, shape, data_offsets}},
 * data. Rules (each has a test): header <= 100,000,000 bytes and <= file, first byte '{', UTF-8, no
 * duplicate keys, dtypes from the list, rank <= 8, dimensions <= 2^40, names of 1 to 512 bytes
 * without control characters, products checked for overflow, offsets tile the data exactly, nothing
 * else in a tensor's entry, __metadata__ strings only, <= 262,144 tensors. Files are read with
 * pread: one that shrinks meanwhile is an error, not a signal.
 *
 * Local. A file may be written by several ranks: all compute the same layout, one writes the
 * header, each writes ranges.
 */
#ifndef COHORT_CKPT_SAFETENSORS_H
#define COHORT_CKPT_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

enum tensor_dtype {
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_F64,
    TENSOR_I64,
    TENSOR_I32,
    TENSOR_I16,
    TENSOR_I8,
    TENSOR_U8,
    TENSOR_BOOL
};

struct tensor_info {
    const char *name; /* borrowed from the file */
    enum tensor_dtype dtype;
    int rank;
    int64_t shape[8];
    int64_t elements;
    int64_t offset; /* of the data in the file, bytes */
    int64_t size_bytes;
};

struct safetensors; /* an open file, or several of one model (model.safetensors.index.json); opaque
                     */

/* Open one file. STATUS_NOINPUT, STATUS_FORMAT (file, what, where), STATUS_IO. *out owned
 * (safetensors_close); NULL on failure, here and below. */
NODISCARD enum status safetensors_open(const char *path, struct safetensors **out);
/*
 * Open a model folder's weights: model.safetensors, or the shards of model.safetensors.index.json
 * (plain file names in the same folder, at most 512; index and shards must agree on every tensor).
 * A folder with only pytorch_model.bin or
 * *.pt is refused (STATUS_FORMAT) with the name of a converter; nothing is ever unpickled.
 */
NODISCARD enum status safetensors_open_folder(const char *folder, struct safetensors **out);
void safetensors_close(struct safetensors *file);
int64_t safetensors_count(const struct safetensors *file);
/* In file order, shard after shard (sorted by name); NULL if index is out of range. */
const struct tensor_info *safetensors_at(const struct safetensors *file, int64_t index);
/* By name; NULL if there is none. */
const struct tensor_info *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_metadata(const struct safetensors *file,
                                 const char *key); /* NULL if none; borrowed */
/* Read elements [first, first + count) as floats; F16, BF16, F64 are converted; integers are
 * STATUS_FORMAT, as is a file whose size changed since it was opened; a range outside the tensor is
 * STATUS_ARG. */
NODISCARD enum status safetensors_read(const struct safetensors *file,
                                       const struct tensor_info *tensor, int64_t first,
                                       int64_t count, float *out);
/* Read raw little-endian bytes of a tensor of any dtype. */
NODISCARD enum status safetensors_read_bytes(const struct safetensors *file,
                                             const struct tensor_info *tensor, int64_t first_byte,
                                             int64_t n, void *out);

/* ---- writing ---- */
struct safetensors_entry {
    const char *name;
    enum tensor_dtype dtype;
    int rank;
    int64_t shape[8];
};
struct safetensors_writer; /* opaque */
/*
 * Lay out entries in the given order (8-byte aligned data start, {"format":"pt"} and metadata if
 * any, strings only) and open path. create true: this rank makes the file, which must not be there
 * yet, at its full size (posix_fallocate; a full disk is STATUS_IO with needed and free bytes, and
 * leaves no file) and writes the header; others open it after an agreement, and are refused
 * (STATUS_IO) if size or header are not what they laid out themselves. The bytes depend on entries,
 * metadata and values alone. Values that nobody writes are zero. STATUS_ARG: entries that cannot be
 * laid out (names twice, shapes too large). Wider dtypes first keep every tensor aligned.
 */
NODISCARD enum status safetensors_create(const char *path, const struct safetensors_entry *entries,
                                         int64_t count, const json_t *metadata, bool create,
                                         struct safetensors_writer **out);
/* Write elements [first, first + n) of entry `index`; values are floats and are converted (round to
 * nearest even). STATUS_IO; STATUS_ARG: an integer entry, or a range outside the entry. */
NODISCARD enum status safetensors_write(struct safetensors_writer *writer, int64_t index,
                                        int64_t first, int64_t n, const float *values);
/* Write raw little-endian bytes of an integer entry. */
NODISCARD enum status safetensors_write_bytes(struct safetensors_writer *writer, int64_t index,
                                              int64_t first_byte, int64_t n, const void *bytes);
/* fsync and close. Always closes. STATUS_IO. */
NODISCARD enum status safetensors_finish(struct safetensors_writer *writer);
/* Close without flushing, after a failure: the sentence of the failure stays. The file is left to
 * checkpoint_drop(). NULL is fine. */
void safetensors_abandon(struct safetensors_writer *writer);

#endif
