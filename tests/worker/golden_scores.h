/* golden_scores.h - what the tests of curves, calibration and statistics share: rows of scores out of a golden file. */
#ifndef COHORT_TESTS_WORKER_GOLDEN_SCORES_H
#define COHORT_TESTS_WORKER_GOLDEN_SCORES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/support/support.h"
#include "worker/metrics.h"

enum { MOST_ROWS = 512, MOST_SCORES = 2048 };

struct rows {
    struct scored scored;
    int64_t row[MOST_ROWS];
    float logits[MOST_SCORES], probabilities[MOST_SCORES], value[MOST_SCORES];
    int32_t label[MOST_ROWS];
};

static inline json_t *golden_statistics(const char *part)
{
    json_t *all;
    assert_ok(json_read_file(TEST_DIR "/golden/statistics.json", 1 << 20, &all));
    json_t *of = json_incref(json_object_get(all, part));
    assert_non_null(of);
    json_decref(all);
    return of;
}

/* null is infinite */
static inline int golden_reals(const json_t *list, double *out, int most)
{
    size_t i;
    json_t *value;
    assert_true(json_array_size(list) <= (size_t)most);
    json_array_foreach(list, i, value)
        out[i] = json_is_null(value) ? INFINITY : json_number_value(value);
    return (int)json_array_size(list);
}

/* Point scored at the arrays, with ids that neither begin at 0 nor ascend. */
static inline void bind_rows(struct rows *r, enum task task, int outputs, int classes, int64_t n)
{
    r->scored = (struct scored){.task = task, .n = n, .outputs = outputs, .classes = classes, .row = r->row,
                                .logits = r->logits, .probabilities = r->probabilities,
                                .label = task == TASK_CLASSES ? r->label : NULL,
                                .value = task == TASK_CLASSES ? NULL : r->value};
    for (int64_t i = 0; i < n; i++)
        r->row[i] = 700 - 3 * i + (i % 2) * 5000;
    for (int64_t i = 0; i < n * outputs; i++)
        r->probabilities[i] = (float)(1.0 / (1.0 + exp(-r->logits[i])));
}

static inline void read_rows(const json_t *of, const char *target, struct rows *r)
{
    const char *name = json_string_value(json_object_get(of, "task"));
    enum task task = name == NULL || name[0] == 'c' ? TASK_CLASSES : TASK_MULTI_LABEL;
    int outputs = (int)json_integer_value(json_object_get(of, "outputs"));
    const json_t *classes = json_object_get(of, "classes");
    size_t i;
    json_t *value;
    memset(r, 0, sizeof *r);
    json_array_foreach(json_object_get(of, "logits"), i, value)
        r->logits[i] = (float)json_number_value(value);
    int64_t n = (int64_t)i / outputs;
    json_array_foreach(json_object_get(of, target), i, value) {
        if (task == TASK_CLASSES)
            r->label[i] = (int32_t)json_integer_value(value);
        r->value[i] = (float)json_number_value(value);
    }
    bind_rows(r, task, outputs, classes == NULL ? 2 : (int)json_integer_value(classes), n);
}

#endif
