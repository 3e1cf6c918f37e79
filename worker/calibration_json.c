/* calibration_json.c - temperatures and thresholds of out-of-fold scores as JSON; see
 * calibration.h.
 */
#include "base/mem.h"
#include "worker/calibration.h"

static const enum metric of_probabilities[] = {METRIC_LOG_LOSS, METRIC_BRIER, METRIC_ECE};
static const enum metric of_decisions[] = {
    METRIC_ACCURACY, METRIC_BALANCED_ACCURACY, METRIC_MACRO_F1,    METRIC_MICRO_F1,
    METRIC_F1,       METRIC_PRECISION,         METRIC_RECALL,      METRIC_MCC,
    METRIC_KAPPA,    METRIC_SAMPLES_F1,        METRIC_HAMMING_LOSS};

/* Those of the metrics that are of the task. */
static enum status metrics_of(const struct scored *scored, const enum metric *list, size_t count,
                              json_t **out)
{
    struct metric_values values;
    TRY(metrics_compute(scored, &values));
    *out = json_object();
    for (size_t i = 0; i < count && *out != NULL; i++) {
        if (values.of_task[list[i]] &&
            json_object_set_new(*out, metric_name(list[i]), json_finite(values.value[list[i]])) !=
                0) {
            json_decref(*out);
            *out = NULL;
        }
    }
    metrics_release(&values);
    return *out != NULL ? STATUS_OK : status_fail(STATUS_NOMEM, "no memory for metrics");
}

static json_t *reals(const double *values, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count && list != NULL; i++) {
        if (json_array_append_new(list, json_finite(values[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *real_rows(const double *values, int rows, int columns)
{
    json_t *list = json_array();
    for (int i = 0; i < rows && list != NULL; i++) {
        if (json_array_append_new(list, reals(values + (int64_t)i * columns, columns)) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* {key: part}, all parts given away; NULL parts and lack of memory are STATUS_NOMEM. */
static enum status set(json_t *object, const char *key, json_t *part)
{
    if (part == NULL || json_object_set_new(object, key, part) != 0)
        return status_fail(STATUS_NOMEM, "no memory for %s", key);
    return STATUS_OK;
}

static enum status set_metrics(json_t *object, const char *key, const struct scored *scored,
                               const enum metric *list, size_t count)
{
    json_t *part;
    TRY(metrics_of(scored, list, count, &part));
    return set(object, key, part);
}

static enum status add_temperature(const struct scored *scored, const int32_t *fold, int folds,
                                   double *chosen, float *logits, json_t *out)
{
    const size_t count = sizeof of_probabilities / sizeof *of_probabilities;
    struct scored scaled = *scored;
    double all;
    TRY(temperature_fit(scored, NULL, &all));
    TRY(temperature_nested(scored, fold, folds, chosen, logits));
    scaled.logits = logits; /* which labels are predicted stays: no temperature changes a sign */
    TRY(set(out, "all", json_finite(all)));
    TRY(set(out, "folds", reals(chosen, folds)));
    TRY(set_metrics(out, "before", scored, of_probabilities, count));
    return set_metrics(out, "after", &scaled, of_probabilities, count);
}

static enum status add_thresholds(const struct scored *scored, const int32_t *fold, int folds,
                                  enum metric metric, double *chosen, float *decisions, json_t *out)
{
    const size_t count = sizeof of_decisions / sizeof *of_decisions;
    const int columns = threshold_count(scored);
    struct scored decided = *scored;
    TRY(thresholds_fit(scored, NULL, metric, chosen));
    TRY(set(out, "metric", json_string(metric_name(metric))));
    TRY(set(out, "all", reals(chosen, columns)));
    TRY(thresholds_nested(scored, fold, folds, metric, chosen, decisions));
    decided.logits = decided.probabilities = decisions;
    TRY(set(out, "folds", real_rows(chosen, folds, columns)));
    TRY(set_metrics(out, "before", scored, of_decisions, count));
    return set_metrics(out, "after", &decided, of_decisions, count);
}

enum status calibration_json(const struct scored *scored, const int32_t *fold, int folds,
                             enum metric metric, json_t **out)
{
    const int columns = metric == METRIC_COUNT ? 0 : threshold_count(scored);
    double *chosen = NULL;
    float *scores = NULL;
    json_t *part;
    enum status st;
    *out = json_object();
    if (*out == NULL)
        return status_fail(STATUS_NOMEM, "no memory for a table of calibration");
    TRY_GOTO(done, mem_alloc((size_t)folds * (size_t)(columns > 1 ? columns : 1), sizeof *chosen,
                             "temperatures and thresholds", &chosen));
    TRY_GOTO(done, mem_alloc_raw((size_t)scored->n * (size_t)scored->outputs, sizeof *scores,
                                 "scores", &scores));
    part = json_object();
    TRY_GOTO(done, set(*out, "temperature", part));
    TRY_GOTO(done, add_temperature(scored, fold, folds, chosen, scores, part));
    if (columns == 0)
        goto done;
    part = json_object();
    TRY_GOTO(done, set(*out, "thresholds", part));
    TRY_GOTO(done, add_thresholds(scored, fold, folds, metric, chosen, scores, part));
done:
    mem_free(chosen);
    mem_free(scores);
    if (st != STATUS_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return st;
}
