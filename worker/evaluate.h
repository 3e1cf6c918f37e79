/*
 * evaluate.h - metrics of a trained model on labelled rows: text in memory or a prepared file.
 */
#ifndef COHORT_WORKER_EVALUATE_H
#define COHORT_WORKER_EVALUATE_H

#include "base/json.h"
#include "worker/predict.h"

/*
 * Score `path` (config key `key`) and describe the outcome: task, labels, metric, score, metrics,
 * confusion, rows. *out is a new reference, the same on every rank. STATUS_DATA: a label the model
 * does not know names the row. Collective.
 */
NODISCARD enum status evaluate_input(const struct predict_opts *opts, const char *key,
                                     const char *path, json_t **out);

/* As evaluate_input, for rows that are open already: all rows of targets. Collective. */
NODISCARD enum status evaluate_rows(const struct predict_opts *opts,
                                    const struct row_source *source,
                                    const struct task_targets *targets, json_t **out);

/* task, labels and metric: what every results.json has. New reference, or NULL. */
json_t *task_json(const struct task_spec *task);
/* The description of scores: what evaluate_input returns, for scores one already has. New
 * reference, or NULL. */
json_t *evaluation_json(const struct task_spec *task, const struct metric_values *values,
                        int64_t rows);

#endif
