/*
 * hf.h - the other files of a Hugging Face model directory: config.json, tokenizer files, the model
 * card.
 *
 * Knows files and JSON, no model: what a config.json means for an encoder is model's, which
 * tokenizer the files make is data's. What is written depends on the arguments alone (no dates, no
 * paths), so equal models have equal folders.
 *
 * Local.
 */
#ifndef COHORT_CKPT_HF_H
#define COHORT_CKPT_HF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

/* config.json of a folder, at most 8 MiB, strict JSON, an object; *out owned (json_decref).
 * STATUS_NOINPUT, STATUS_FORMAT. */
NODISCARD enum status hf_read_config(const char *folder, json_t **out);

/*
 * The names of the classes, in the order of their ids: id2label, or LABEL_0 ... for num_labels, or
 * the two that transformers takes when the config names neither. *generic: every name is
 * LABEL_<id>, so nobody chose them. id2label must name 0 to n - 1 exactly (n at most 100,000);
 * label2id is not consulted. *names is owned (hf_labels_free). STATUS_FORMAT.
 */
NODISCARD enum status hf_labels(const json_t *config, char ***names, int *count, bool *generic);
void hf_labels_free(char **names, int count);

/*
 * config.json of a trained model: base's keys, with architectures, id2label, label2id, problem_type
 * and torch_dtype "float32" set, keys sorted as transformers does, classes in the order of their
 * ids. Left out of base: what names its place on disk (_name_or_path), code to run (auto_map),
 * other ways to say the dtype or number of labels, and quantization. labels may be NULL with count
 * 0: then LABEL_0 ... for all outputs. problem_type: single_label_classification,
 * multi_label_classification or regression. *out owned (json_decref). STATUS_ARG: base is no
 * object, count is neither 0 nor outputs, a label twice, an unknown problem_type.
 */
NODISCARD enum status hf_make_config(const json_t *base, const char *const *labels, int count,
                                     const char *problem_type, const char *architecture,
                                     int outputs, json_t **out);

/* What the model card says; all strings are borrowed during the call. */
struct hf_card {
    const char *problem_type; /* as above */
    const char *architecture; /* "BertForSequenceClassification" */
    const char
        *base_model; /* a name on the hub ("bert-base-uncased") or NULL; a path is left out */
    const char *const *labels; /* (count) or NULL */
    int count;
    const char *pooling; /* "cls", "pooler", "mean", "max" */
    bool native; /* transformers' own class computes the same: the pipeline loads the folder */
    const char
        *classifier; /* prefix of the classifier's tensors ("classifier"), for the loading code */
    const char *chunks; /* how long texts are split ("chunks of 510 tokens ..."), or NULL: cut */
    const char *metric; /* or NULL */
    double score;       /* of metric; NaN is left out */
};
/* Write README.md into the folder, flushed. STATUS_IO, STATUS_ARG (unknown problem_type). */
NODISCARD enum status hf_write_readme(const char *folder, const struct hf_card *card);

/* Copy the tokenizer's files (tokenizer.json, vocab.txt, ...) that are in one folder to another,
 * flushed; *copied counts them. STATUS_NOINPUT if there is none; STATUS_IO. */
NODISCARD enum status hf_copy_tokenizer(const char *from_folder, const char *to_folder,
                                        int *copied);

#endif
