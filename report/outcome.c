/* outcome.c - see outcome.h. */
#include "report/outcome.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

enum { BLOCK_FLOATS = 1 << 20 };

/* ---- one row ---- */

static int greatest(const float *z, int n)
{
    int best = 0;
    if (n == 1)
        return z[0] > 0.0f;
    for (int c = 1; c < n; c++)
        best = z[c] > z[best] ? c : best;
    return best;
}

static double binary_loss(double z, bool truth)
{
    double wrong = truth ? -z : z;
    return fmax(wrong, 0.0) + log1p(exp(-fabs(z)));
}

static double class_loss(const float *z, int n, int truth)
{
    int top = greatest(z, n);
    double others = 0.0;
    if (n == 1)
        return binary_loss((double)z[0], truth == 1);
    for (int c = 0; c < n; c++)
        others += c == top ? 0.0 : exp((double)z[c] - (double)z[top]);
    return ((double)z[top] - (double)z[truth]) + log1p(others);
}

static void note_probability(struct outcome *o, double p, bool truth)
{
    int bin = (int)(fmax(0.0, fmin(1.0, p)) * OUTCOME_BINS);
    calibration_add(&o->calibration, p, truth);
    o->histogram[truth][bin < OUTCOME_BINS ? bin : OUTCOME_BINS - 1]++;
}

static void take_class(struct outcome *o, int64_t i, const float *z, const float *p)
{
    int outputs = o->info.outputs, truth = o->label[i], guess = greatest(z, outputs);
    double sure = outputs == 1 ? (guess == 1 ? (double)p[0] : 1.0 - (double)p[0]) : (double)p[guess];
    o->guess[i] = guess;
    o->sure[i] = (float)sure;
    o->right[i] = guess == truth;
    o->cost[i] = (float)class_loss(z, outputs, truth);
    o->class[truth].truth++;
    o->class[guess].predicted++;
    o->class[truth].both += guess == truth;
    if (o->confusion != NULL)
        o->confusion[(int64_t)truth * o->classes + guess]++;
    if (outcome_is_binary(o))
        note_probability(o, outputs == 1 ? (double)p[0] : (double)p[1], truth == 1);
    else
        note_probability(o, sure, guess == truth);
}

static void take_labels(struct outcome *o, int64_t i, const float *z, const float *p,
                        const float *target)
{
    double sum = 0.0;
    o->right[i] = 1;
    for (int c = 0; c < o->classes; c++) {
        bool truth = target[c] > 0.5f, guess = p[c] >= 0.5f;
        sum += binary_loss((double)z[c], truth);
        o->right[i] &= truth == guess;
        o->class[c].truth += truth;
        o->class[c].predicted += guess;
        o->class[c].both += truth && guess;
        note_probability(o, (double)p[c], truth);
    }
    o->cost[i] = (float)(sum / o->classes);
}

static void take_value(struct outcome *o, int64_t i, const float *z, const float *target)
{
    o->value[i] = target[0];
    o->predicted[i] = z[0];
    o->cost[i] = fabsf(z[0] - target[0]);
    o->right[i] = 0;
}

/* ---- the file ---- */

static enum status decide_task(struct outcome *o, const char *path)
{
    const struct scores_info *info = &o->info;
    if (info->has_label)
        o->task = TASK_CLASSES;
    else if (info->has_value && info->classes > 0)
        o->task = TASK_MULTI_LABEL;
    else if (info->has_value)
        o->task = TASK_REGRESSION;
    else
        return status_fail(STATUS_FORMAT, "%s holds neither labels nor values", path);
    o->classes = o->task == TASK_REGRESSION ? 0 : info->classes;
    o->n = info->rows;
    return STATUS_OK;
}

static enum status make_room(struct outcome *o)
{
    const size_t n = (size_t)o->n, classes = (size_t)o->classes;
    TRY(mem_alloc_raw(n, sizeof *o->row, "scored rows", &o->row));
    if (o->info.has_fold)
        TRY(mem_alloc_raw(n, sizeof *o->fold, "scored rows", &o->fold));
    TRY(mem_alloc_raw(n, sizeof *o->cost, "scored rows", &o->cost));
    TRY(mem_alloc_raw(n, sizeof *o->right, "scored rows", &o->right));
    TRY(mem_alloc(classes, sizeof *o->class, "counts of classes", &o->class));
    if (o->task == TASK_CLASSES) {
        TRY(mem_alloc_raw(n, sizeof *o->label, "scored rows", &o->label));
        TRY(mem_alloc_raw(n, sizeof *o->guess, "scored rows", &o->guess));
        TRY(mem_alloc_raw(n, sizeof *o->sure, "scored rows", &o->sure));
        if (o->classes <= OUTCOME_CONFUSION)
            TRY(mem_alloc(classes * classes, sizeof *o->confusion, "a confusion matrix",
                          &o->confusion));
    }
    if (o->task == TASK_REGRESSION) {
        TRY(mem_alloc_raw(n, sizeof *o->value, "scored rows", &o->value));
        TRY(mem_alloc_raw(n, sizeof *o->predicted, "scored rows", &o->predicted));
    }
    size_t all = n * (size_t)o->info.outputs;
    if (all <= OUTCOME_FLOATS) {
        TRY(mem_alloc_raw(all, sizeof *o->logits, "logits", &o->logits));
        TRY(mem_alloc_raw(all, sizeof *o->scores, "scores", &o->scores));
        if (o->info.has_value)
            TRY(mem_alloc_raw(all, sizeof *o->targets, "targets", &o->targets));
    }
    return STATUS_OK;
}

static enum status check_finite(const struct outcome *o, const float *values, int64_t n,
                                int64_t first, const char *what)
{
    for (int64_t i = 0; values != NULL && i < n * o->info.outputs; i++) {
        if (!isfinite(values[i]))
            return status_fail(STATUS_NUMERIC, "row %lld: %s is not finite",
                               (long long)o->row[first + i / o->info.outputs], what);
    }
    return STATUS_OK;
}

static enum status read_rows(struct outcome *o)
{
    const int outputs = o->info.outputs;
    const int64_t block = outputs < BLOCK_FLOATS ? BLOCK_FLOATS / outputs : 1;
    struct scores_columns at = {0};
    float *logits = NULL, *scores = NULL, *value = NULL;
    enum status st = STATUS_OK;
    const size_t room = (size_t)(o->n < block ? o->n : block) * (size_t)outputs;
    if (o->logits == NULL) {
        TRY_GOTO(done, mem_alloc_raw(room, sizeof *logits, "logits", &logits));
        TRY_GOTO(done, mem_alloc_raw(room, sizeof *scores, "scores", &scores));
        if (o->info.has_value)
            TRY_GOTO(done, mem_alloc_raw(room, sizeof *value, "targets", &value));
    }
    for (int64_t from = 0; from < o->n; from += block) {
        int64_t n = o->n - from < block ? o->n - from : block;
        at = (struct scores_columns){
            .row = o->row + from,
            .fold = o->fold == NULL ? NULL : o->fold + from,
            .label = o->label == NULL ? NULL : o->label + from,
            .logits = o->logits == NULL ? logits : o->logits + from * outputs,
            .scores = o->logits == NULL ? scores : o->scores + from * outputs,
            .value = !o->info.has_value ? NULL
                     : o->logits == NULL ? value
                                         : o->targets + from * outputs,
        };
        TRY_GOTO(done, scores_read(o->file, from, n, &at));
        TRY_GOTO(done, check_finite(o, at.logits, n, from, "a logit"));
        TRY_GOTO(done, check_finite(o, at.scores, n, from, "a score"));
        TRY_GOTO(done, check_finite(o, at.value, n, from, "a target"));
        for (int64_t i = 0; i < n; i++) {
            const float *z = at.logits + i * outputs, *p = at.scores + i * outputs;
            if (o->task == TASK_CLASSES)
                take_class(o, from + i, z, p);
            else if (o->task == TASK_MULTI_LABEL)
                take_labels(o, from + i, z, p, at.value + i * outputs);
            else
                take_value(o, from + i, z, at.value + i * outputs);
        }
    }
done:
    mem_free(logits);
    mem_free(scores);
    mem_free(value);
    return st;
}

enum status outcome_open(const char *path, struct outcome *out)
{
    *out = (struct outcome){0};
    TRY(scores_open(path, &out->file));
    scores_get_info(out->file, &out->info);
    TRY(decide_task(out, path));
    TRY(make_room(out));
    return read_rows(out);
}

void outcome_close(struct outcome *o)
{
    scores_close(o->file);
    mem_free(o->row);
    mem_free(o->fold);
    mem_free(o->label);
    mem_free(o->guess);
    mem_free(o->sure);
    mem_free(o->value);
    mem_free(o->predicted);
    mem_free(o->cost);
    mem_free(o->right);
    mem_free(o->class);
    mem_free(o->confusion);
    mem_free(o->logits);
    mem_free(o->scores);
    mem_free(o->targets);
    *o = (struct outcome){0};
}

bool outcome_is_binary(const struct outcome *o)
{
    return o->task == TASK_CLASSES && o->classes == 2;
}

/* ---- views ---- */

enum status outcome_column(const struct outcome *o, int c, double *score, uint8_t *truth)
{
    const int outputs = o->info.outputs;
    const bool binary = outcome_is_binary(o);
    const int64_t block = outputs < BLOCK_FLOATS ? BLOCK_FLOATS / outputs : 1;
    float *read = NULL, *value = NULL;
    enum status st = STATUS_OK;
    if (o->logits == NULL) {
        size_t room = (size_t)(o->n < block ? o->n : block) * (size_t)outputs;
        TRY_GOTO(done, mem_alloc_raw(room, sizeof *read, "scores", &read));
        if (o->task == TASK_MULTI_LABEL)
            TRY_GOTO(done, mem_alloc_raw(room, sizeof *value, "targets", &value));
    }
    for (int64_t from = 0; from < o->n; from += block) {
        int64_t n = o->n - from < block ? o->n - from : block;
        const float *z = binary ? o->logits : o->scores, *target = o->targets;
        if (o->logits == NULL) {
            struct scores_columns at = {.logits = binary ? read : NULL,
                                        .scores = binary ? NULL : read,
                                        .value = value};
            TRY_GOTO(done, scores_read(o->file, from, n, &at));
            z = read;
            target = value;
        } else {
            z += from * outputs;
            target = target == NULL ? NULL : target + from * outputs;
        }
        for (int64_t i = 0; i < n; i++, z += outputs) {
            score[from + i] = !binary        ? (double)z[c]
                              : outputs == 1 ? (double)z[0]
                                             : (double)z[1] - (double)z[0];
            truth[from + i] = o->task == TASK_MULTI_LABEL ? target[i * outputs + c] > 0.5f
                                                          : o->label[from + i] == c;
        }
    }
done:
    mem_free(read);
    mem_free(value);
    return st;
}

void outcome_scored_free(struct scored *s)
{
    mem_free((void *)(uintptr_t)s->row);
    mem_free((void *)(uintptr_t)s->logits);
    mem_free((void *)(uintptr_t)s->probabilities);
    mem_free((void *)(uintptr_t)s->label);
    mem_free((void *)(uintptr_t)s->value);
    *s = (struct scored){0};
}

enum status outcome_scored(const struct outcome *o, const int64_t *rows, int64_t count,
                           struct scored *out)
{
    const size_t outputs = (size_t)o->info.outputs, n = (size_t)(rows == NULL ? o->n : count);
    int64_t *row = NULL;
    float *logits = NULL, *scores = NULL, *value = NULL;
    int32_t *label = NULL;
    enum status st = STATUS_OK;
    *out = (struct scored){0};
    if (o->logits == NULL)
        return status_fail(STATUS_UNAVAILABLE, "there are too many scores to hold them all");
    st = mem_alloc_raw(n, sizeof *row, "rows", &row);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n * outputs, sizeof *logits, "logits", &logits);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n * outputs, sizeof *scores, "scores", &scores);
    if (st == STATUS_OK && o->targets != NULL)
        st = mem_alloc_raw(n * outputs, sizeof *value, "targets", &value);
    if (st == STATUS_OK && o->label != NULL)
        st = mem_alloc_raw(n, sizeof *label, "labels", &label);
    for (size_t i = 0; i < n && st == STATUS_OK; i++) {
        size_t at = rows == NULL ? i : (size_t)rows[i];
        row[i] = o->row[at];
        memcpy(logits + i * outputs, o->logits + at * outputs, outputs * sizeof *logits);
        memcpy(scores + i * outputs, o->scores + at * outputs, outputs * sizeof *scores);
        if (value != NULL)
            memcpy(value + i * outputs, o->targets + at * outputs, outputs * sizeof *value);
        if (label != NULL)
            label[i] = o->label[at];
    }
    *out = (struct scored){.task = o->task,
                           .n = (int64_t)n,
                           .outputs = o->info.outputs,
                           .classes = o->classes,
                           .row = row,
                           .logits = logits,
                           .probabilities = scores,
                           .label = label,
                           .value = value};
    if (st != STATUS_OK)
        outcome_scored_free(out);
    return st;
}

/* Logits of one row that says only how often each class is true, or the mean target. */
static void constant_logits(const struct outcome *o, float *z)
{
    const int outputs = o->info.outputs;
    if (o->task == TASK_REGRESSION) {
        for (int c = 0; c < outputs; c++) {
            double sum = 0.0;
            for (int64_t i = 0; i < o->n; i++)
                sum += (double)o->targets[i * outputs + c];
            z[c] = (float)(sum / (double)o->n);
        }
        return;
    }
    for (int c = 0; c < outputs; c++) {
        int k = outputs == 1 && o->task == TASK_CLASSES ? 1 : c;
        double share = (double)o->class[k].truth / (double)o->n;
        double p = fmax(1e-12, fmin(1.0 - 1e-12, share));
        bool alone = o->task == TASK_MULTI_LABEL || outputs == 1;
        z[c] = (float)(alone ? log(p / (1.0 - p)) : log(p));
    }
}

enum status outcome_constant(const struct outcome *o, enum metric metric, double *value)
{
    const size_t outputs = (size_t)o->info.outputs, n = (size_t)o->n;
    struct scored scored = {0};
    struct metric_values values = {0};
    float *z = NULL, *logits = NULL, *p = NULL;
    enum status st = STATUS_OK;
    *value = NAN;
    if (o->logits == NULL || n == 0)
        return STATUS_OK;
    TRY_GOTO(done, mem_alloc(outputs, sizeof *z, "a constant", &z));
    TRY_GOTO(done, mem_alloc_raw(n * outputs, sizeof *logits, "logits", &logits));
    TRY_GOTO(done, mem_alloc_raw(n * outputs, sizeof *p, "scores", &p));
    constant_logits(o, z);
    for (size_t i = 0; i < n * outputs; i++) {
        logits[i] = z[i % outputs];
        p[i] = o->task == TASK_REGRESSION ? logits[i] : 1.0f / (1.0f + expf(-logits[i]));
    }
    scored = (struct scored){.task = o->task,
                             .n = o->n,
                             .outputs = o->info.outputs,
                             .classes = o->classes,
                             .row = o->row,
                             .logits = logits,
                             .probabilities = p,
                             .label = o->label,
                             .value = o->targets};
    TRY_GOTO(done, metrics_compute(&scored, &values));
    *value = values.of_task[metric] ? values.value[metric] : NAN;
done:
    metrics_release(&values);
    mem_free(z);
    mem_free(logits);
    mem_free(p);
    return st;
}

int64_t outcome_worst(const struct outcome *o, int64_t most, int64_t *index)
{
    int64_t found = 0;
    for (int64_t i = 0; i < o->n; i++) {
        if (o->right[i] || (found == most && !(o->cost[i] > o->cost[index[most - 1]])))
            continue;
        int64_t at = found < most ? found++ : most - 1;
        for (; at > 0 && o->cost[i] > o->cost[index[at - 1]]; at--)
            index[at] = index[at - 1];
        index[at] = i;
    }
    return found;
}
