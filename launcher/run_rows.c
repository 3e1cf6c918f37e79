/* run_rows.c - which rows train, choose and are scored in each trial; see run.h. */
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "launcher/run.h"

/* In the order of enum config_cv_kind. */
static const enum split_kind kinds[] = {SPLIT_KINDS, /* auto */
                                        SPLIT_STRATIFIED,
                                        SPLIT_KFOLD,
                                        SPLIT_GROUP,
                                        SPLIT_STRATIFIED_GROUP,
                                        SPLIT_HOLDOUT,
                                        SPLIT_SHUFFLE,
                                        SPLIT_STRATIFIED_SHUFFLE,
                                        SPLIT_LEAVE_ONE_OUT,
                                        SPLIT_LEAVE_P_OUT,
                                        SPLIT_LEAVE_ONE_GROUP_OUT,
                                        SPLIT_BINS,
                                        SPLIT_MULTI_LABEL,
                                        SPLIT_ROLLING,
                                        SPLIT_BLOCKED,
                                        SPLIT_COLUMN};

bool run_has_folds(const struct run_config *config)
{
    enum config_cv_kind kind = config->cv.kind;
    return config->cv.folds > 0 || (kind != CONFIG_CV_AUTO && kind != CONFIG_CV_HOLDOUT &&
                                    !split_kind_needs_folds(kinds[kind]));
}

enum config_cv_kind run_split_kind(const struct run *run)
{
    bool groups = run->train.targets.group != NULL, classes = run->task.task == TASK_CLASSES;
    if (run->config->cv.kind != CONFIG_CV_AUTO)
        return run->config->cv.kind;
    return classes ? (groups ? CONFIG_CV_STRATIFIED_GROUP : CONFIG_CV_STRATIFIED)
                   : (groups ? CONFIG_CV_GROUP : CONFIG_CV_KFOLD);
}

/* Kinds whose folds a repeat shuffles anew; of the others a repeat has the same splits and another
 * seed. */
static bool is_shuffled(enum split_kind kind)
{
    return kind <= SPLIT_MULTI_LABEL;
}

static bool is_in_time(enum split_kind kind)
{
    return kind == SPLIT_ROLLING || kind == SPLIT_BLOCKED;
}

static void split_options(const struct run *run, enum split_kind kind, struct split_opts *out)
{
    const struct run_config *config = run->config;
    const struct task_targets *targets = &run->train.targets;
    *out = (struct split_opts){.kind = kind,
                               .seed = (uint64_t)config->seed,
                               .shuffle = true,
                               .rows = run->train.info.rows,
                               .folds = (int)config->cv.folds,
                               .repeats = is_shuffled(kind) ? (int)config->cv.repeats : 1,
                               .test_share = config->cv.test_share,
                               .p = (int)config->cv.p,
                               .gap = config->cv.gap,
                               .max_train = config->cv.max_train,
                               .test_rows = config->cv.test_rows,
                               .bins = (int)config->cv.bins,
                               .label = targets->label,
                               .classes = run->task.classes,
                               .names = (const char *const *)run->task.labels,
                               .group = run->group,
                               .value = targets->value,
                               .outputs = run->task.outputs,
                               .time = dataset_times(run->train.ds),
                               .fold = dataset_folds(run->train.ds),
                               .fold_name = dataset_fold_names(run->train.ds),
                               .fold_names = dataset_fold_name_count(run->train.ds),
                               .allow_missing_class = config->cv.allow_missing_class};
}

/* Rows that are scored by a model that trained on a copy of them. */
static enum status count_leaks(struct run *run)
{
    struct str text = {0};
    if (run->leaks.found.same == NULL)
        return STATUS_OK;
    TRY(leaks_count(&run->leaks, run->splits, run->train.ds));
    if (run->config->cv.duplicates == CONFIG_DUPLICATES_REFUSE)
        TRY(leaks_refuse(&run->leaks, run->splits, run->train.ds));
    TRY(leaks_say(&run->leaks, run->splits, run->train.ds, &text));
    mem_free(run->leaks_text);
    run->leaks_text = text.p;
    return STATUS_OK;
}

enum status run_cut(struct run *run)
{
    const struct run_config *config = run->config;
    struct split_opts opts;
    struct split_info info;
    struct str table = {0};
    bool folds = run_has_folds(config),
         holdout = config->data.holdout > 0.0 && run->eval.ds == NULL;
    run->repeats = (int)config->cv.repeats;
    run->group = run->train.targets.group;
    if (!folds && !holdout)
        return STATUS_OK;
    if (config->cv.folds == 1 && split_kind_needs_folds(kinds[run_split_kind(run)]) &&
        is_shuffled(kinds[run_split_kind(run)]))
        return status_fail(STATUS_CONFIG,
                           "cv.folds=1 leaves nothing to train on, wanted 0 or at least 2");
    if (folds && config->cv.kind == CONFIG_CV_HOLDOUT)
        return status_fail(STATUS_CONFIG,
                           "cv.kind=holdout is one split: give data.holdout=0.25 without cv.folds");
    run->split_kind = folds ? kinds[run_split_kind(run)] : SPLIT_HOLDOUT;
    if (config->cv.duplicates == CONFIG_DUPLICATES_GROUP) {
        TRY(leaks_group(&run->leaks, run->group, &run->split_kind, &run->grouped));
        run->group = run->grouped;
    }
    split_options(run, run->split_kind, &opts);
    if (!folds)
        opts.test_share = config->data.holdout;
    TRY(split_plan_open(&opts, &run->splits));
    TRY(split_plan_table(run->splits, &table));
    run->fold_table = table.p;
    split_plan_info(run->splits, &info);
    run->partition = info.partition;
    TRY(count_leaks(run));
    TRY(checked_int(folds ? info.count / opts.repeats : 0, "the number of splits", &run->folds));
    for (int64_t i = 0; i < config->cv.run_folds_count && folds; i++) {
        if (config->cv.run_folds[i] >= run->folds)
            return status_fail(STATUS_CONFIG,
                               "cv.run_folds names fold %lld, there are folds 0 to %d",
                               (long long)config->cv.run_folds[i], run->folds - 1);
    }
    return STATUS_OK;
}

uint64_t run_trial_seed(const struct run_config *config, const struct trial_id *id)
{
    uint64_t seed = (uint64_t)config->seed;
    if (id->repeat > 0)
        seed = random_key(seed, RANDOM_REPEAT, (uint64_t)id->repeat, 0);
    if (id->fold >= 0)
        seed = random_key(seed, RANDOM_FOLD, (uint64_t)id->fold + 1, 0);
    if (id->inner >= 0)
        seed = random_key(seed, RANDOM_FOLD, (uint64_t)id->inner + 1, 2);
    return seed;
}

/* ---- splits of some of the rows ---- */

/* The columns of these rows alone, for a split inside them; owned. */
struct some_rows {
    int32_t *label, *group;
    float *value;
    double *time;
};

static void some_rows_release(struct some_rows *some)
{
    mem_free(some->label);
    mem_free(some->group);
    mem_free(some->value);
    mem_free(some->time);
}

static enum status take_columns(const struct split_opts *all, const int64_t *rows, int64_t count,
                                struct some_rows *out)
{
    size_t n = (size_t)count, outputs = (size_t)all->outputs;
    *out = (struct some_rows){0};
    if (all->label != NULL)
        TRY(mem_alloc_raw(n, sizeof *out->label, "the inner split", &out->label));
    if (all->group != NULL)
        TRY(mem_alloc_raw(n, sizeof *out->group, "the inner split", &out->group));
    if (all->value != NULL)
        TRY(mem_alloc_raw(n * outputs, sizeof *out->value, "the inner split", &out->value));
    if (all->time != NULL)
        TRY(mem_alloc_raw(n, sizeof *out->time, "the inner split", &out->time));
    for (size_t i = 0; i < n; i++) {
        if (out->label != NULL)
            out->label[i] = all->label[rows[i]];
        if (out->group != NULL)
            out->group[i] = all->group[rows[i]];
        if (out->value != NULL)
            memcpy(out->value + i * outputs, all->value + (size_t)rows[i] * outputs,
                   outputs * sizeof *out->value);
        if (out->time != NULL)
            out->time[i] = all->time[rows[i]];
    }
    return STATUS_OK;
}

/*
 * Of rows->train, those that split `split` of opts scores go to *scored, those that it trains on
 * stay. opts comes with the columns of all rows.
 */
static enum status split_training(struct split_opts *opts, int64_t split, struct run_rows *rows,
                                  int64_t **scored, int64_t *scores)
{
    struct some_rows some;
    struct split_plan *plan = NULL;
    uint8_t *role = NULL;
    size_t n = (size_t)rows->train_count;
    int64_t kept = 0;
    enum status st = take_columns(opts, rows->train, rows->train_count, &some);
    opts->rows = rows->train_count;
    opts->label = some.label;
    opts->group = some.group;
    opts->value = some.value;
    opts->time = some.time;
    TRY_GOTO(done, st);
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *role, "the inner split", &role));
    TRY_GOTO(done, mem_alloc_raw(n, sizeof **scored, "the inner split", scored));
    TRY_GOTO(done, split_plan_open(opts, &plan));
    TRY_GOTO(done, split_plan_roles(plan, split, role));
    *scores = 0;
    for (size_t i = 0; i < n; i++) {
        if (role[i] == SPLIT_SCORED)
            (*scored)[(*scores)++] = rows->train[i];
        else if (role[i] == SPLIT_TRAINS)
            rows->train[kept++] = rows->train[i];
    }
    rows->train_count = kept;
done:
    split_plan_close(plan);
    mem_free(role);
    some_rows_release(&some);
    return st;
}

/* Inner fold id->inner of the rows that train: cut as the outer folds are, or, where those have
 * names or leave rows out, stratified or by group. */
static enum status take_inner_fold(const struct run *run, const struct trial_id *id,
                                   struct run_rows *rows)
{
    struct split_opts opts;
    enum split_kind kind = run->split_kind;
    struct trial_id outer = {.repeat = id->repeat, .fold = id->fold, .inner = -1};
    int64_t *old = rows->score;
    bool classes = run->task.task == TASK_CLASSES, groups = run->group != NULL;
    if (!is_shuffled(kind) && !is_in_time(kind))
        kind = classes ? (groups ? SPLIT_STRATIFIED_GROUP : SPLIT_STRATIFIED)
                       : (groups ? SPLIT_GROUP : SPLIT_KFOLD);
    split_options(run, kind, &opts);
    opts.seed = random_key(run_trial_seed(run->config, &outer), RANDOM_FOLD, 0, 2);
    opts.folds = (int)run->config->cv.inner_folds;
    opts.repeats = 1;
    opts.allow_missing_class = true; /* it only chooses a setting */
    enum status st = split_training(&opts, id->inner, rows, &rows->score, &rows->score_count);
    mem_free(old);
    return st;
}

/* Rows that choose the step, out of those that train: a share of each class, whole groups, or the
 * latest where splits follow time. */
static enum status inner_split(const struct run *run, const struct trial_id *id,
                               struct run_rows *rows)
{
    struct split_opts opts;
    enum split_kind kind = run->split_kind;
    uint64_t seed = (uint64_t)run->config->seed;
    split_options(run, is_in_time(kind) ? SPLIT_BLOCKED : SPLIT_HOLDOUT, &opts);
    if (id->repeat > 0 || id->inner >= 0)
        seed = run_trial_seed(run->config, id);
    opts.seed = random_key(seed, RANDOM_FOLD, (uint64_t)id->fold + 1, 1);
    opts.folds = 1;
    opts.repeats = 1;
    opts.test_share = run->config->cv.inner_share;
    opts.allow_missing_class = true; /* it only chooses a step */
    return split_training(&opts, 0, rows, &rows->select, &rows->select_count);
}

/* ---- rows of a trial ---- */

static enum status copy_rows(const int64_t *from, int64_t count, int64_t **to, int64_t *to_count)
{
    TRY(mem_alloc_raw((size_t)count, sizeof **to, "row ids", to));
    if (count > 0)
        memcpy(*to, from, (size_t)count * sizeof **to);
    *to_count = count;
    return STATUS_OK;
}

/* The rows of a run without folds: all train, data.eval's are scored. */
static enum status whole_rows(const struct run *run, struct run_rows *out)
{
    TRY(copy_rows(run->train.rows, run->train.info.rows, &out->train, &out->train_count));
    TRY(copy_rows(run->eval.rows, run->eval.info.rows, &out->select, &out->select_count));
    return copy_rows(run->eval.rows, run->eval.info.rows, &out->score, &out->score_count);
}

enum status run_rows_make(const struct run *run, const struct trial_id *id, struct run_rows *out)
{
    enum status st = STATUS_OK;
    size_t n = (size_t)run->train.info.rows;
    *out = (struct run_rows){.select_is_train_data = run->splits != NULL};
    if (run->splits == NULL) {
        TRY_GOTO(fail, whole_rows(run, out));
        return STATUS_OK;
    }
    bool shuffled = id->fold >= 0 && is_shuffled(run->split_kind);
    int64_t split = id->fold < 0 ? 0 : (shuffled ? (int64_t)id->repeat * run->folds : 0) + id->fold;
    TRY_GOTO(fail, mem_alloc_raw(n, sizeof *out->train, "row ids", &out->train));
    TRY_GOTO(fail, mem_alloc_raw(n, sizeof *out->score, "row ids", &out->score));
    TRY_GOTO(fail, split_plan_rows(run->splits, split, out->train, &out->train_count, out->score,
                                   &out->score_count));
    if (id->inner >= 0)
        TRY_GOTO(fail, take_inner_fold(run, id, out));
    if (id->fold >= 0 && run->config->cv.select == CONFIG_SELECT_INNER)
        TRY_GOTO(fail, inner_split(run, id, out));
    else
        TRY_GOTO(fail, copy_rows(out->score, out->score_count, &out->select, &out->select_count));
    return STATUS_OK;
fail:
    run_rows_free(out);
    return st;
}

void run_rows_free(struct run_rows *rows)
{
    mem_free(rows->train);
    mem_free(rows->select);
    mem_free(rows->score);
    *rows = (struct run_rows){0};
}

void run_trial_opts(struct run *run, const struct run_rows *rows, const struct trial_id *id,
                    struct comm *group, const char *folder, struct trial_opts *out)
{
    const struct run_config *config = run->config;
    struct run_data *eval = rows->select_is_train_data ? &run->train : &run->eval;
    *out = (struct trial_opts){
        .config = config,
        .group = group,
        .device = run->session->device,
        .kernels = run->session->kernels,
        .precision = run->session->precision,
        .source = &run->source,
        .task = &run->task,
        .pooling = run->pooling,
        .max_length = run->max_length,
        .chunks = run->chunks,
        .train = {run->train.ds, &run->train.targets, rows->train, rows->train_count},
        .select = {eval->ds, &eval->targets, rows->select, rows->select_count},
        .score = {eval->ds, &eval->targets, rows->score, rows->score_count},
        .select_best = id->fold < 0 || config->cv.select != CONFIG_SELECT_LAST,
        .fence = run->fence[0] == '\0' ? NULL : run->fence,
        .folder = folder,
        .seed = run_trial_seed(config, id),
        .config_hash = run->identity,
    };
}
