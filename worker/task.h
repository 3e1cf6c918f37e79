/*
 * task.h - what a run learns: labels and their order, targets of every row, the loss, the metric.
 *
 * Labels: the model's id2label if it has the data's labels, else the data's own, sorted bytewise,
 * numbers by value; never by row order. Every dataset of a run is mapped onto one list.
 *
 * Local.
 */
#ifndef COHORT_WORKER_TASK_H
#define COHORT_WORKER_TASK_H

#include <stdint.h>

#include "base/status.h"
#include "data/dataset.h"
#include "model/loss.h"
#include "worker/metrics.h"
#include "worker/run_config.h"

struct task_spec {
    enum task task;
    int outputs;   /* logits per row */
    int classes;   /* labels (0 for regression) */
    char **labels; /* (classes), owned */
    struct loss_opts loss;
    float *class_weights; /* (outputs) owned, what loss.class_weights points at; NULL: none */
    enum metric metric;   /* what chooses the best and is the score */
    bool head_from_model; /* the model's own classification head fits: load it */
};

/* Targets of all rows of one dataset in the task's terms; owned (task_targets_release). */
struct task_targets {
    int64_t rows;
    int32_t *label;       /* (rows) classes; NULL for other tasks */
    float *value;         /* (rows, outputs) values, or 0/1; NULL for classes */
    const float *weight;  /* (rows) borrowed from the dataset, or NULL */
    const int32_t *group; /* (rows) borrowed, or NULL */
};

/*
 * Decide the task from the configuration, the training data's labels and the model's labels
 * (model_labels NULL: none). STATUS_CONFIG: a loss or metric that does not fit the task (what
 * would); STATUS_DATA: data without labels.
 */
NODISCARD enum status task_decide(const struct run_config *config, const struct dataset_info *train,
                                  char *const *model_labels, int model_label_count,
                                  struct task_spec *out);
/* Set task->metric from eval.metric; it stays what it is where that is not given. STATUS_CONFIG:
 * none of this task. */
NODISCARD enum status task_decide_metric(const struct run_config *config, struct task_spec *task);
void task_release(struct task_spec *task);

/* Map a dataset's labels onto the task's. STATUS_DATA: a label that the task does not have (row,
 * label, file name `what`). */
NODISCARD enum status task_map(const struct task_spec *task, struct dataset *ds, const char *what,
                               struct task_targets *out);
void task_targets_release(struct task_targets *targets);
/* class_weights=balanced: n / (classes * n_c) over the given rows (all if rows is NULL). Sets
 * loss.class_weights. */
NODISCARD enum status task_weigh_classes(struct task_spec *task, const char *setting,
                                         const struct task_targets *targets, const int64_t *rows,
                                         int64_t count);

/* The loss's and the metrics' view of rows[0..n) with their logits; arrays are the caller's to free
 * (task_scored_release). STATUS_ARG: more than 2^31 - 1 rows. */
NODISCARD enum status task_scored(const struct task_spec *task, const struct task_targets *targets,
                                  const int64_t *rows, int64_t n, const float *logits,
                                  struct scored *out);
void task_scored_release(struct scored *scored);

#endif
