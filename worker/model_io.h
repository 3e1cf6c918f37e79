/*
 * model_io.h - Hugging Face model folders in and out of a model's flat parameters.
 */
#ifndef COHORT_WORKER_MODEL_IO_H
#define COHORT_WORKER_MODEL_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "data/chunk.h"
#include "data/tokenizer.h"
#include "model/model.h"
#include "worker/run_config.h"
#include "worker/task.h"

/* A model folder, read but for its weights. */
struct model_source {
    char *path;     /* owned */
    json_t *config; /* owned */
    struct encoder_config encoder;
    char **labels; /* owned: id2label in id order, or LABEL_0 ... where the folder names none */
    int label_count;
    int head_outputs;       /* logits of its classifier; 0: that of another task */
    const char *other_task; /* borrowed from config: the class that saved it, if its head is one
                               of tokens or choices; else NULL */
    struct tokenizer *tokenizer; /* owned */
    struct tokenizer_info tokenizer_info;
    json_t *cohort; /* borrowed from config: what cohort stored there (pooling, max_length, outputs,
                       metric), or NULL */
};

/* grow: where the tokenizer has more ids than the model, the encoder (and config.json as it will be
 * saved) gets so many; otherwise that is STATUS_FORMAT. STATUS_NOINPUT no such folder or
 * config.json; STATUS_FORMAT, STATUS_UNAVAILABLE as the parts say. */
NODISCARD enum status model_source_open(const char *path, bool grow, struct model_source *out);
/* No model: for runs that read texts and labels alone. Its tokenizer is NULL, tokenizer_info names
 * none. */
void model_source_none(struct model_source *out);
void model_source_close(struct model_source *source);

/* The longest row the model takes: data.max_length, else the model's own limit. STATUS_CONFIG if it
 * is too long. */
NODISCARD enum status model_max_length(const struct model_source *source, int64_t wanted, int *out);
/* The chunks that the keys ask for, whether or not texts are read in chunks; room: content tokens
 * of a row. Not checked. */
struct chunk_rule model_chunk_keys(const struct run_config *config, int room);
/*
 * How long texts are read: the keys under data.long=chunk, what a cohort model was trained with
 * under auto, else size 0. max_length: of a chunk with its special tokens. STATUS_CONFIG: chunks
 * that do not fit, or keys of chunks where there are none; STATUS_FORMAT: config.json.
 */
NODISCARD enum status model_chunks(const struct model_source *source,
                                   const struct run_config *config, int max_length,
                                   struct chunk_rule *out);
/* The pooling asked for, or the one stored with a cohort model, or the family's own. */
enum pooling model_pooling(const struct model_source *source, enum config_pooling wanted);

/* What loading found; sentences for the log are built from it. */
struct load_report {
    int loaded;  /* tensors taken */
    int skipped; /* tensors of other tasks and buffers */
    int drawn;   /* parameters newly drawn from the seed: the head, or a missing pooler */
    bool head_drawn;
    const char *missing; /* the first of these in the file's names, the model's; NULL: none */
    int64_t new_ids;     /* whose embeddings were drawn, since the file has none */
};
/*
 * Load the weights in folder into model. load_head: take the classifier from the file; otherwise,
 * or if the file has none, the head (and a missing pooler) is drawn from seed. Any other missing or
 * unfitting tensor is STATUS_FORMAT with its name and both shapes; grow: but for a table of words
 * with fewer rows, whose other rows are drawn. Local; every rank does the same.
 */
NODISCARD enum status model_load(struct model *model, const char *folder, bool load_head, bool grow,
                                 uint64_t seed, struct load_report *report);

/* As model_load() with the head, for a model that is to be used as it was trained: a tensor that
 * the files lack is STATUS_DATA and named. Local. */
NODISCARD enum status model_load_trained(struct model *model, const char *folder);

/*
 * Write the model's part of a checkpoint into folder: every rank writes the elements of the flat
 * space it owns
 * ([begin, end)) into model.safetensors; rank 0 (create) makes the file first and writes
 * config.json, the tokenizer's files and README.md. The caller agrees between _create and _write
 * and after _write.
 */
struct model_writer; /* opaque */
NODISCARD enum status model_save_create(const struct model *model, const char *folder, bool create,
                                        struct model_writer **out);
NODISCARD enum status model_save_write(struct model_writer *writer, struct model *model,
                                       int64_t begin, int64_t end);
NODISCARD enum status model_save_finish(struct model_writer *writer);
NODISCARD enum status model_save_files(const struct model_source *source,
                                       const struct task_spec *task, enum pooling pooling,
                                       int max_length, const struct chunk_rule *chunks,
                                       const char *folder);

#endif
