/* table.c - see table.h. */
#include "report/table.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static enum status decide_task(struct table *t, const char *path)
{
    const struct scores_info *info = &t->info;
    if (info->has_label)
        t->task = TASK_CLASSES;
    else if (info->has_value && info->classes > 0)
        t->task = TASK_MULTI_LABEL;
    else if (info->has_value)
        t->task = TASK_REGRESSION;
    else
        return status_fail(STATUS_FORMAT, "%s holds neither labels nor values", path);
    t->classes = t->task == TASK_REGRESSION ? 0 : info->classes;
    t->outputs = info->outputs;
    t->n = info->rows;
    if (t->n > TABLE_FLOATS / t->outputs)
        return status_fail(STATUS_UNAVAILABLE,
                           "%s holds %lld rows of %d scores, wanted at most "
                           "%lld scores",
                           path, (long long)t->n, t->outputs, (long long)TABLE_FLOATS);
    return STATUS_OK;
}

static enum status read_lines(struct table *t)
{
    const size_t n = (size_t)t->n, all = n * (size_t)t->outputs;
    TRY(mem_alloc_raw(n, sizeof *t->row, "scored rows", &t->row));
    TRY(mem_alloc_raw(n, sizeof *t->place, "scored rows", &t->place));
    TRY(mem_alloc(n, sizeof *t->repeat, "repeats", &t->repeat));
    TRY(mem_alloc_raw(n, sizeof *t->fold, "folds", &t->fold));
    TRY(mem_alloc_raw(all, sizeof *t->logits, "logits", &t->logits));
    TRY(mem_alloc_raw(all, sizeof *t->scores, "scores", &t->scores));
    if (t->info.has_label)
        TRY(mem_alloc_raw(n, sizeof *t->label, "labels", &t->label));
    else
        TRY(mem_alloc_raw(all, sizeof *t->value, "targets", &t->value));
    for (size_t i = 0; i < n; i++)
        t->fold[i] = -1;
    struct scores_columns columns = {.row = t->row,
                                     .repeat = t->info.has_repeat ? t->repeat : NULL,
                                     .fold = t->info.has_fold ? t->fold : NULL,
                                     .logits = t->logits,
                                     .scores = t->scores,
                                     .label = t->label,
                                     .value = t->value};
    TRY(scores_read(t->file, 0, t->n, &columns));
    for (size_t i = 0; i < all; i++) {
        if (!isfinite(t->logits[i]) || !isfinite(t->scores[i]) ||
            (t->value != NULL && !isfinite(t->value[i])))
            return status_fail(STATUS_NUMERIC, "a score or target of row %lld is not finite",
                               (long long)t->row[i / (size_t)t->outputs]);
    }
    return STATUS_OK;
}

static enum status find_repeats(struct table *t)
{
    int32_t last = t->n > 0 ? t->repeat[t->n - 1] : 0;
    if (last > 0 && last >= t->n)
        return status_fail(STATUS_FORMAT, "repeat %d of %lld scored rows", last, (long long)t->n);
    t->repeats = last + 1;
    TRY(mem_alloc((size_t)t->repeats + 1, sizeof *t->begin, "repeats", &t->begin));
    for (int64_t i = 0; i < t->n; i++)
        t->begin[t->repeat[i] + 1]++;
    for (int r = 0; r < t->repeats; r++)
        t->begin[r + 1] += t->begin[r];
    t->rows_once = true;
    for (int64_t i = 1; i < t->n; i++)
        t->rows_once = t->rows_once &&
                       (t->repeat[i] != t->repeat[i - 1] || t->row[i] != t->row[i - 1]);
    for (int64_t i = 0; i < t->n; i++)
        t->place[i] = t->rows_once ? t->row[i] : i - t->begin[t->repeat[i]];
    return STATUS_OK;
}

enum status table_open(const char *path, struct table *out)
{
    *out = (struct table){0};
    TRY(scores_open(path, &out->file));
    scores_get_info(out->file, &out->info);
    TRY(decide_task(out, path));
    enum status st = read_lines(out);
    if (st == STATUS_OK)
        st = find_repeats(out);
    return st == STATUS_OK ? st : status_prefix(st, "%s", path);
}

void table_close(struct table *t)
{
    scores_close(t->file);
    mem_free(t->row);
    mem_free(t->place);
    mem_free(t->repeat);
    mem_free(t->fold);
    mem_free(t->label);
    mem_free(t->logits);
    mem_free(t->scores);
    mem_free(t->value);
    mem_free(t->begin);
    *t = (struct table){0};
}

bool table_is_binary(const struct table *t)
{
    return t->task == TASK_CLASSES && t->classes == 2;
}

/* ---- views ---- */

void table_scored(const struct table *t, int repeat, struct scored *out)
{
    const int64_t from = t->begin[repeat];
    const int64_t at = from * t->outputs;
    *out = (struct scored){.task = t->task,
                           .n = t->begin[repeat + 1] - from,
                           .outputs = t->outputs,
                           .classes = t->classes,
                           .row = t->place + from,
                           .logits = t->logits + at,
                           .probabilities = t->scores + at,
                           .label = t->label == NULL ? NULL : t->label + from,
                           .value = t->value == NULL ? NULL : t->value + at};
}

void table_scored_free(struct scored *s)
{
    mem_free((void *)(uintptr_t)s->row);
    mem_free((void *)(uintptr_t)s->logits);
    mem_free((void *)(uintptr_t)s->probabilities);
    mem_free((void *)(uintptr_t)s->label);
    mem_free((void *)(uintptr_t)s->value);
    *s = (struct scored){0};
}

enum status table_fold_scored(const struct table *t, int repeat, int fold, struct scored *out)
{
    const size_t outputs = (size_t)t->outputs, line = outputs * sizeof(float);
    int64_t *row = NULL;
    float *logits = NULL, *scores = NULL, *value = NULL;
    int32_t *label = NULL;
    size_t n = 0;
    enum status st;
    for (int64_t i = t->begin[repeat]; i < t->begin[repeat + 1]; i++)
        n += t->fold[i] == fold;
    st = mem_alloc_raw(n, sizeof *row, "rows of a fold", &row);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n, line, "logits of a fold", &logits);
    if (st == STATUS_OK)
        st = mem_alloc_raw(n, line, "scores of a fold", &scores);
    if (st == STATUS_OK && t->value != NULL)
        st = mem_alloc_raw(n, line, "targets of a fold", &value);
    if (st == STATUS_OK && t->label != NULL)
        st = mem_alloc_raw(n, sizeof *label, "labels of a fold", &label);
    size_t k = 0;
    for (int64_t i = t->begin[repeat]; i < t->begin[repeat + 1] && st == STATUS_OK; i++) {
        if (t->fold[i] != fold)
            continue;
        row[k] = t->place[i];
        memcpy(logits + k * outputs, t->logits + (size_t)i * outputs, line);
        memcpy(scores + k * outputs, t->scores + (size_t)i * outputs, line);
        if (value != NULL)
            memcpy(value + k * outputs, t->value + (size_t)i * outputs, line);
        if (label != NULL)
            label[k] = t->label[i];
        k++;
    }
    *out = (struct scored){.task = t->task,
                           .n = (int64_t)n,
                           .outputs = t->outputs,
                           .classes = t->classes,
                           .row = row,
                           .logits = logits,
                           .probabilities = scores,
                           .label = label,
                           .value = value};
    if (st != STATUS_OK)
        table_scored_free(out);
    return st;
}

/* ---- one line ---- */

int table_guess(const struct table *t, int64_t line)
{
    const float *z = t->logits + line * t->outputs;
    int best = 0;
    if (t->outputs == 1)
        return z[0] > 0.0f;
    for (int c = 1; c < t->outputs; c++)
        best = z[c] > z[best] ? c : best;
    return best;
}

double table_sure(const struct table *t, int64_t line)
{
    const float *p = t->scores + line * t->outputs;
    int guess = table_guess(t, line);
    return t->outputs > 1 ? (double)p[guess] : guess == 1 ? (double)p[0] : 1.0 - (double)p[0];
}

static double binary_loss(double z, bool truth)
{
    double wrong = truth ? -z : z;
    return fmax(wrong, 0.0) + log1p(exp(-fabs(z)));
}

static double class_loss(const float *z, int n, int top, int truth)
{
    double others = 0.0;
    if (n == 1)
        return binary_loss((double)z[0], truth == 1);
    for (int c = 0; c < n; c++)
        others += c == top ? 0.0 : exp((double)z[c] - (double)z[top]);
    return ((double)z[top] - (double)z[truth]) + log1p(others);
}

double table_cost(const struct table *t, int64_t line)
{
    const float *z = t->logits + line * t->outputs;
    double sum = 0.0;
    if (t->task == TASK_CLASSES)
        return class_loss(z, t->outputs, table_guess(t, line), t->label[line]);
    const float *target = t->value + line * t->outputs;
    for (int c = 0; c < t->outputs; c++)
        sum += t->task == TASK_REGRESSION ? fabs((double)z[c] - (double)target[c])
                                          : binary_loss((double)z[c], target[c] > 0.5f);
    return sum / t->outputs;
}

bool table_right(const struct table *t, int64_t line)
{
    bool right = true;
    if (t->task == TASK_CLASSES)
        return table_guess(t, line) == t->label[line];
    if (t->task == TASK_REGRESSION)
        return false;
    for (int c = 0; c < t->outputs; c++)
        right = right && (t->scores[line * t->outputs + c] >= 0.5f) ==
                             (t->value[line * t->outputs + c] > 0.5f);
    return right;
}

int table_worst(const struct table *t, int most, int64_t *line)
{
    double cost[64];
    int found = 0;
    most = most > 64 ? 64 : most;
    for (int64_t i = t->begin[0]; i < t->begin[1]; i++) {
        double own = table_right(t, i) ? -1.0 : table_cost(t, i);
        if (own < 0.0 || (found == most && own <= cost[most - 1]))
            continue;
        int at = found < most ? found++ : most - 1;
        for (; at > 0 && own > cost[at - 1]; at--) {
            cost[at] = cost[at - 1];
            line[at] = line[at - 1];
        }
        cost[at] = own;
        line[at] = i;
    }
    return found;
}

/* ---- what is nothing to be proud of ---- */

/* Logits of one line that says only how often each class is true, or the mean target. */
static void constant_line(const struct scored *s, float *z)
{
    for (int c = 0; c < s->outputs; c++) {
        double sum = 0.0;
        bool one = s->task == TASK_CLASSES && s->outputs == 1;
        for (int64_t i = 0; i < s->n; i++)
            sum += s->label != NULL ? s->label[i] == (one ? 1 : c)
                                    : (double)s->value[i * s->outputs + c];
        double share = s->n > 0 ? sum / (double)s->n : 0.0;
        double p = fmax(1e-12, fmin(1.0 - 1e-12, share));
        z[c] = (float)(s->task == TASK_REGRESSION           ? share
                       : one || s->task == TASK_MULTI_LABEL ? log(p / (1.0 - p))
                                                            : log(p));
    }
}

enum status table_constant(const struct table *t, enum metric metric, double *value)
{
    struct scored s;
    struct metric_values values = {0};
    float *z = NULL, *logits = NULL, *p = NULL;
    enum status st = STATUS_OK;
    *value = NAN;
    table_scored(t, 0, &s);
    size_t outputs = (size_t)s.outputs, all = (size_t)s.n * outputs;
    if (s.n == 0 || !metric_is_of(metric, t->task, t->classes))
        return STATUS_OK;
    TRY_GOTO(done, mem_alloc(outputs, sizeof *z, "a constant", &z));
    TRY_GOTO(done, mem_alloc_raw(all, sizeof *logits, "logits", &logits));
    TRY_GOTO(done, mem_alloc_raw(all, sizeof *p, "scores", &p));
    constant_line(&s, z);
    for (size_t i = 0; i < all; i++) {
        logits[i] = z[i % outputs];
        p[i] = t->task == TASK_REGRESSION ? logits[i] : 1.0f / (1.0f + expf(-logits[i]));
    }
    s.logits = logits;
    s.probabilities = p;
    TRY_GOTO(done, metrics_compute(&s, &values));
    *value = values.value[metric];
done:
    metrics_release(&values);
    mem_free(z);
    mem_free(logits);
    mem_free(p);
    return st;
}
