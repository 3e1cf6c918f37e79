/* eval_scores.c - eval.h5: what a run without cross-validation was scored on; see report_write.h.
 */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/scores.h"
#include "launcher/report_write.h"

static enum status read_ids(struct dataset *ds, const int64_t *rows, int64_t n, char **ids)
{
    for (int64_t i = 0; i < n; i++) {
        struct str id = {0};
        enum status st = str_add(&id, "", 0);
        if (st == STATUS_OK)
            st = dataset_row_id(ds, rows[i], &id);
        ids[i] = id.p;
        TRY(st);
    }
    return STATUS_OK;
}

/* Targets of the rows, in their order; one of *label and *value. */
static enum status take_targets(const struct task_spec *task, const struct trial_rows *scored,
                                int32_t **label, float **value)
{
    const struct task_targets *targets = scored->targets;
    const size_t outputs = (size_t)task->outputs, n = (size_t)scored->count;
    if (targets->label != NULL)
        TRY(mem_alloc_raw(n, sizeof **label, "labels", label));
    else
        TRY(mem_alloc_raw(n * outputs, sizeof **value, "targets", value));
    for (size_t i = 0; i < n; i++) {
        size_t row = (size_t)scored->rows[i];
        if (*label != NULL)
            (*label)[i] = targets->label[row];
        else
            memcpy(*value + i * outputs, targets->value + row * outputs, outputs * sizeof **value);
    }
    return STATUS_OK;
}

enum status eval_scores_write(const struct run *run, const struct trial_rows *scored,
                              const float *logits)
{
    const struct task_spec *task = &run->task;
    const size_t n = (size_t)scored->count;
    struct dataset_info info;
    float *probabilities = NULL, *value = NULL;
    int32_t *label = NULL;
    char **ids = NULL, *path = NULL;
    int rows;
    enum status st = STATUS_OK;
    dataset_get_info(scored->ds, &info);
    TRY_GOTO(done, checked_int(scored->count, "the number of scored rows", &rows));
    TRY_GOTO(done, mem_alloc_raw(n * (size_t)task->outputs, sizeof *probabilities, "scores",
                                 &probabilities));
    loss_probabilities(&task->loss, rows, logits, probabilities);
    TRY_GOTO(done, take_targets(task, scored, &label, &value));
    if (info.has_ids) {
        TRY_GOTO(done, mem_alloc(n, sizeof *ids, "row names", &ids));
        TRY_GOTO(done, read_ids(scored->ds, scored->rows, scored->count, ids));
    }
    struct scores_table table = {.rows = scored->count,
                                 .outputs = task->outputs,
                                 .classes = task->classes,
                                 .row = scored->rows,
                                 .logits = logits,
                                 .scores = probabilities,
                                 .label = label,
                                 .value = value,
                                 .names = (const char *const *)task->labels,
                                 .id = (const char *const *)ids};
    TRY_GOTO(done, path_join(run->config->out, "eval.h5", &path));
    st = scores_write(path, &table);
done:
    for (size_t i = 0; ids != NULL && i < n; i++)
        mem_free(ids[i]);
    mem_free(ids);
    mem_free(label);
    mem_free(value);
    mem_free(probabilities);
    mem_free(path);
    return st;
}
