/*
 * score_rows.c - metrics of rows of scores, for tests/long/scores.py.
 *
 * Usage: long_score_rows < CASES > METRICS. A line is a case as in tests/golden/metrics.json (its metrics are not looked at);
 * the answer is a line {"metrics": {...}, "confusion": [[...]], "per_class": [...]}, null where something is undefined. Rows
 * are handed over in a shuffled order.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "worker/metrics.h"

/* Row i of the case is stored at (a i + b) mod n, with ids that ascend with i. */
static int64_t place_of(int64_t i, int64_t n)
{
    int64_t a = 7919;
    while (n % a == 0)
        a += 2;
    return (a * i + 5) % n;
}

static double item(const json_t *list, int64_t i)
{
    return json_number_value(json_array_get(list, (size_t)i));
}

static json_t *score(const json_t *of)
{
    const char *task = json_string_value(json_object_get(of, "task"));
    const json_t *logits = json_object_get(of, "logits"), *label = json_object_get(of, "label"),
                 *value = json_object_get(of, "value");
    int outputs = (int)json_integer_value(json_object_get(of, "outputs"));
    int64_t n = (int64_t)json_array_size(logits) / outputs;
    struct scored s = {.task = task[0] == 'c' ? TASK_CLASSES : task[0] == 'm' ? TASK_MULTI_LABEL : TASK_REGRESSION,
                       .n = n,
                       .outputs = outputs,
                       .classes = (int)json_integer_value(json_object_get(of, "classes"))};
    int64_t *row = calloc((size_t)n, sizeof *row);
    float *z = calloc((size_t)(n * outputs), sizeof *z), *p = calloc((size_t)(n * outputs), sizeof *p),
          *v = calloc((size_t)(n * outputs), sizeof *v);
    int32_t *y = calloc((size_t)n, sizeof *y);
    struct metric_values got;
    json_t *out, *confusion;
    if (row == NULL || z == NULL || p == NULL || v == NULL || y == NULL)
        return NULL;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = place_of(i, n);
        row[at] = 3 * i + 11;
        y[at] = (int32_t)item(label, i);
        for (int c = 0; c < outputs; c++) {
            z[at * outputs + c] = (float)item(logits, i * outputs + c);
            v[at * outputs + c] = (float)item(value, i * outputs + c);
            p[at * outputs + c] = (float)(1.0 / (1.0 + exp(-(double)z[at * outputs + c])));
        }
    }
    s.row = row;
    s.logits = z;
    s.probabilities = p;
    s.label = s.task == TASK_CLASSES ? y : NULL;
    s.value = s.task == TASK_CLASSES ? NULL : v;
    if (metrics_compute(&s, &got) != STATUS_OK)
        return NULL;
    confusion = json_array();
    for (int t = 0; got.confusion != NULL && t < got.classes; t++) {
        json_t *line = json_array();
        for (int c = 0; c < got.classes; c++)
            json_array_append_new(line, json_integer(got.confusion[t * got.classes + c]));
        json_array_append_new(confusion, line);
    }
    out = json_pack("{s:o, s:o, s:o}", "metrics", metrics_json(&got), "confusion", confusion, "per_class",
                    metrics_per_class_json(&got, NULL));
    metrics_release(&got);
    free(row);
    free(z);
    free(p);
    free(v);
    free(y);
    return out;
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        json_t *of;
        if (json_parse(line, (size_t)n, "a case", &of) != STATUS_OK) {
            fprintf(stderr, "%s\n", status_message());
            return 1;
        }
        json_t *got = score(of);
        char *text = got == NULL ? NULL : json_dumps(got, JSON_COMPACT | JSON_REAL_PRECISION(17));
        if (text == NULL) {
            fprintf(stderr, "%s: %s\n", json_string_value(json_object_get(of, "name")), status_message());
            return 1;
        }
        puts(text);
        free(text);
        json_decref(got);
        json_decref(of);
    }
    free(line);
    return 0;
}
