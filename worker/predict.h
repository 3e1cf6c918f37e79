/*
 * predict.h - scores of texts that stream by: read, tokenize, score over the ranks, write in order.
 *
 * The input may be larger than memory: it goes through in windows of rows. One output line for each
 * input row.
 */
#ifndef COHORT_WORKER_PREDICT_H
#define COHORT_WORKER_PREDICT_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "data/text.h"
#include "model/model.h"
#include "worker/model_io.h"
#include "worker/prefetch.h"
#include "worker/run_config.h"
#include "worker/task.h"

/* Rows that were tokenized and are in memory, as a row source; row ids count from 0. STATUS_CONFIG:
 * chunks of pairs. */
struct part_source {
    const struct dataset_part *part;   /* borrowed */
    const struct tokenizer_info *info; /* borrowed */
    int max_length;
    struct chunk_rule chunks; /* size 0: rows are cut */
    int64_t *offset;          /* (rows + 1) into the part's tokens, owned */
    int64_t *unit;            /* (rows + 1) chunks before each row, owned; NULL: rows are cut */
};
NODISCARD enum status part_source_open(const struct dataset_part *part,
                                       const struct tokenizer_info *info, int max_length,
                                       const struct chunk_rule *chunks, struct part_source *out);
void part_source_close(struct part_source *source);
struct row_source part_source_rows(struct part_source *source);

/* What a trained folder predicts: from its config.json alone. Labels are the model's; the metric is
 * the one it was trained for, or the task's default. */
NODISCARD enum status predict_task(const struct model_source *source, struct task_spec *out);

struct predict_opts {
    const struct run_config *config;
    struct comm *comm;
    const struct model_source *source;
    const struct task_spec *task;
    struct model *model;
    char *const *members; /* folders of an ensemble; borrowed */
    int member_count;     /* 0: model as it is */
    int max_length;
    const struct chunk_rule *chunks; /* borrowed */
};
/* Rows that text_reader has next, tokenized and added to part; as many as a window takes, fewer
 * where the reader would wait. part is empty at the end. */
NODISCARD enum status predict_next_window(struct text_reader *reader,
                                          const struct tokenizer *tokenizer,
                                          struct dataset_part *part);
/* Score data.input and write `out` by rank 0. *rows counts them. Collective. */
NODISCARD enum status predict_run(const struct predict_opts *opts, int64_t *rows);

/* `tokenizer encode`: {"row":0,"ids":[...]} for each row of data.input; by one rank. */
NODISCARD enum status predict_encode(const struct run_config *config,
                                     const struct model_source *source, int max_length,
                                     int64_t *rows);

#endif
