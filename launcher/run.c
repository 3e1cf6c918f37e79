/* run.c - see run.h. */
#include "launcher/run.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "data/fold.h"
#include "launcher/config.h"
#include "worker/source.h"

static enum status take_rows(struct run_data *data)
{
    dataset_get_info(data->ds, &data->info);
    TRY(mem_alloc_raw((size_t)data->info.rows, sizeof *data->rows, "row ids", &data->rows));
    for (int64_t i = 0; i < data->info.rows; i++)
        data->rows[i] = i;
    return STATUS_OK;
}

static void run_data_close(struct run_data *data)
{
    task_targets_release(&data->targets);
    mem_free(data->rows);
    dataset_close(data->ds);
    *data = (struct run_data){0};
}

static enum fold_kind fold_kind_of(const struct run *run)
{
    bool groups = run->train.targets.group != NULL, classes = run->task.task == TASK_CLASSES;
    switch (run->config->cv.kind) {
    case CONFIG_CV_STRATIFIED:
        return FOLD_STRATIFIED;
    case CONFIG_CV_KFOLD:
        return FOLD_KFOLD;
    case CONFIG_CV_GROUP:
        return FOLD_GROUP;
    case CONFIG_CV_STRATIFIED_GROUP:
        return FOLD_STRATIFIED_GROUP;
    case CONFIG_CV_HOLDOUT:
        return FOLD_HOLDOUT;
    default: /* auto; cut_folds() refuses the others */
        break;
    }
    return classes ? (groups ? FOLD_STRATIFIED_GROUP : FOLD_STRATIFIED)
                   : (groups ? FOLD_GROUP : FOLD_KFOLD);
}

static void fold_options(const struct run *run, enum fold_kind kind, double share,
                         struct fold_opts *out)
{
    *out = (struct fold_opts){.kind = kind,
                              .folds = kind == FOLD_HOLDOUT ? 1 : run->folds,
                              .seed = (uint64_t)run->config->seed,
                              .shuffle = true,
                              .rows = run->train.info.rows,
                              .label = run->train.targets.label,
                              .classes = run->task.classes,
                              .names = (const char *const *)run->task.labels,
                              .group = run->train.targets.group,
                              .holdout = share,
                              .allow_missing_class = run->config->cv.allow_missing_class};
}

/* What data/split.h plans but runs do not train yet. */
static enum status refuse_splits(const struct run_config *config)
{
    if (config->cv.kind > CONFIG_CV_HOLDOUT)
        return status_fail(STATUS_CONFIG,
                           "this cv.kind is planned but not trained by this version, wanted one of "
                           "auto stratified kfold group stratified_group");
    if (config->cv.repeats > 1)
        return status_fail(STATUS_CONFIG, "cv.repeats=%lld: this version trains one repeat",
                           (long long)config->cv.repeats);
    if (config->cv.duplicates == CONFIG_DUPLICATES_GROUP)
        return status_fail(STATUS_CONFIG, "cv.duplicates=group is not used by this version");
    return STATUS_OK;
}

static enum status cut_folds(struct run *run)
{
    const struct run_config *config = run->config;
    struct fold_opts opts;
    struct str table = {0};
    bool holdout = config->data.holdout > 0.0 && run->eval.ds == NULL;
    TRY(refuse_splits(config));
    run->folds = (int)config->cv.folds;
    if (run->folds == 0 && !holdout)
        return STATUS_OK;
    if (run->folds == 1)
        return status_fail(STATUS_CONFIG,
                           "cv.folds=1 leaves nothing to train on, wanted 0 or at least 2");
    if (run->folds > 0 && config->cv.kind == CONFIG_CV_HOLDOUT)
        return status_fail(STATUS_CONFIG,
                           "cv.kind=holdout is one split: give data.holdout=0.25 without cv.folds");
    TRY(mem_alloc((size_t)run->train.info.rows, sizeof *run->fold, "the folds", &run->fold));
    fold_options(run, run->folds > 0 ? fold_kind_of(run) : FOLD_HOLDOUT, config->data.holdout,
                 &opts);
    TRY(fold_assign(&opts, run->fold));
    TRY(fold_table(&opts, run->fold, &table));
    run->fold_table = table.p;
    for (int64_t i = 0; i < config->cv.run_folds_count; i++) {
        if (config->cv.run_folds[i] >= run->folds)
            return status_fail(STATUS_CONFIG,
                               "cv.run_folds names fold %lld, there are folds 0 to %d",
                               (long long)config->cv.run_folds[i], run->folds - 1);
    }
    return STATUS_OK;
}

/*
 * cv.group_ranks=0: as many groups as divide the ranks and have a fold each, because a fold on
 * fewer ranks spends less on sums. A function of ranks and folds alone, not of the folds that are
 * run now: under `fixed` the bits depend on it.
 */
static int chosen_group(int ranks, int folds)
{
    int groups = ranks < folds ? ranks : folds;
    while (ranks % groups != 0)
        groups--;
    return ranks / groups;
}

/* XXH3 of config.json and of every safetensors file of the model's folder. */
static enum status hash_model(const char *folder, uint64_t *hash)
{
    char **names, *path = NULL;
    size_t count;
    enum status st = STATUS_OK;
    *hash = 0;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        size_t n = strlen(names[i]);
        bool weights = n > 12 && strcmp(names[i] + n - 12, ".safetensors") == 0;
        uint64_t one = 0;
        int64_t bytes;
        if (strcmp(names[i], "config.json") != 0 &&
            (!weights || strcmp(names[i], "optimizer.safetensors") == 0))
            continue;
        st = path_join(folder, names[i], &path);
        if (st == STATUS_OK)
            st = hash_file(path, &one, &bytes);
        *hash = hash_combine(*hash, one);
        mem_free(path);
        path = NULL;
    }
    folder_list_free(names, count);
    return st;
}

/* What `auto` and 0 came to on this machine, with this model and data: run.cfg repeats the run
 * elsewhere. */
static void resolve(struct run *run)
{
    static const enum config_pooling poolings[] = {CONFIG_POOLING_CLS, CONFIG_POOLING_POOLER,
                                                   CONFIG_POOLING_MEAN, CONFIG_POOLING_MAX};
    static const enum config_precision precisions[] = {
        CONFIG_PRECISION_FP32, CONFIG_PRECISION_TF32, CONFIG_PRECISION_BF16, CONFIG_PRECISION_FP16};
    static const enum config_cv_kind kinds[] = {CONFIG_CV_KFOLD, CONFIG_CV_STRATIFIED,
                                                CONFIG_CV_GROUP, CONFIG_CV_STRATIFIED_GROUP,
                                                CONFIG_CV_HOLDOUT};
    struct run_config *out = &run->resolved;
    const char *metric = metric_name(run->task.metric);
    *out = *run->config;
    out->model.pooling = poolings[run->pooling];
    out->train.precision = precisions[run->session->precision];
    out->data.max_length = run->max_length;
    memset(out->eval.metric, 0, sizeof out->eval.metric);
    memcpy(out->eval.metric, metric, strlen(metric));
    if (run->folds > 0)
        out->cv.kind = kinds[fold_kind_of(run)];
}

/* Everything local after the datasets are open. */
static enum status settle(struct run *run)
{
    const struct run_config *config = run->config;
    int ranks = comm_size(run->session->world);
    TRY(task_decide(config, &run->train.info, run->source.labels, run->source.label_count,
                    &run->task));
    run->task.head_from_model = run->task.head_from_model &&
                                run->source.head_outputs == run->task.outputs;
    TRY(task_map(&run->task, run->train.ds, config->data.train, &run->train.targets));
    TRY(take_rows(&run->train));
    if (run->eval.ds != NULL) {
        TRY(task_map(&run->task, run->eval.ds, config->data.eval, &run->eval.targets));
        TRY(take_rows(&run->eval));
    }
    if (run->test.ds != NULL) {
        TRY(task_map(&run->task, run->test.ds, config->data.test, &run->test.targets));
        TRY(take_rows(&run->test));
    }
    TRY(task_weigh_classes(&run->task, config->train.class_weights, &run->train.targets, NULL,
                           run->train.info.rows));
    TRY(cut_folds(run));
    run->group_ranks = run->folds == 0               ? ranks
                       : config->cv.group_ranks == 0 ? chosen_group(ranks, run->folds)
                                                     : (int)config->cv.group_ranks;
    run->group_ranks = run->group_ranks > ranks ? ranks : run->group_ranks;
    resolve(run);
    TRY(config_identity(&run->resolved, run->group_ranks, &run->identity));
    run->identity = hash_combine(run->identity, run->train.info.content_hash);
    if (run->eval.ds != NULL)
        run->identity = hash_combine(run->identity, run->eval.info.content_hash);
    run->identity = hash_combine(run->identity, run->source.tokenizer_info.hash);
    run->identity = hash_combine(run->identity, run->model_hash);
    return STATUS_OK;
}

enum status run_open(struct session *session, const char *cache, struct run *out)
{
    const struct run_config *config = &session->config;
    struct comm *world = session->world;
    enum status st = STATUS_OK;
    *out = (struct run){.session = session, .config = config};
    TRY(session_need("data.train", config->data.train, "the training rows"));
    if (strcmp(config->optim.name, "adamw") != 0)
        return status_fail(STATUS_CONFIG,
                           "optim.name=%s is not an optimizer of this version, wanted adamw",
                           config->optim.name);
    st = model_source_open(config->model.path, config->model.resize_embeddings, &out->source);
    if (st == STATUS_OK)
        st = model_max_length(&out->source, config->data.max_length, &out->max_length);
    TRY_GOTO(fail, comm_agree(world, st));
    out->pooling = model_pooling(&out->source, config->model.pooling);
    TRY_GOTO(fail, source_open(world, config, &out->source, "data.train", config->data.train, cache,
                               out->max_length, &out->train.ds));
    dataset_get_info(out->train.ds, &out->train.info);
    if (config->data.eval[0] != '\0' && config->cv.folds == 0)
        TRY_GOTO(fail, source_open(world, config, &out->source, "data.eval", config->data.eval,
                                   cache, out->max_length, &out->eval.ds));
    if (config->data.test[0] != '\0' &&
        config->cv.folds == 0) /* now: a wrong path must not be found after training */
        TRY_GOTO(fail, source_open(world, config, &out->source, "data.test", config->data.test,
                                   cache, out->max_length, &out->test.ds));
    if (config->cv.folds > 0 && (config->data.eval[0] != '\0' || config->data.test[0] != '\0'))
        log_warning("data.eval and data.test are not used under cv.folds: each fold is scored on "
                    "its own rows");
    if (config->data.eval[0] != '\0' && config->data.holdout > 0.0)
        log_warning("data.holdout is not used: data.eval is given");
    if (comm_rank(world) == 0)
        st = hash_model(config->model.path, &out->model_hash);
    TRY_GOTO(fail, comm_agree(world, st));
    TRY_GOTO(fail, comm_broadcast(world, &out->model_hash, sizeof out->model_hash, 0));
    TRY_GOTO(fail, comm_agree(world, settle(out)));
    return STATUS_OK;
fail:
    run_close(out);
    return st;
}

void run_close(struct run *run)
{
    run_data_close(&run->train);
    run_data_close(&run->eval);
    run_data_close(&run->test);
    task_release(&run->task);
    model_source_close(&run->source);
    mem_free(run->fold);
    mem_free(run->fold_table);
    *run = (struct run){0};
}

/* ---- rows of a trial ---- */

/* Move a share of the training rows to select: stratified, whole groups. */
static enum status inner_split(const struct run *run, struct run_rows *rows, int fold)
{
    struct fold_opts opts;
    int32_t *label = NULL, *group = NULL, *side = NULL;
    size_t n = (size_t)rows->train_count;
    int64_t kept = 0;
    enum status st = STATUS_OK;
    fold_options(run, FOLD_HOLDOUT, run->config->cv.inner_share, &opts);
    opts.seed = random_key((uint64_t)run->config->seed, RANDOM_FOLD, (uint64_t)fold + 1, 1);
    opts.rows = rows->train_count;
    opts.allow_missing_class = true; /* it only chooses a step */
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *side, "the inner split", &side));
    TRY_GOTO(done, mem_alloc_raw(n, sizeof *rows->select, "the inner split", &rows->select));
    if (opts.label != NULL)
        TRY_GOTO(done, mem_alloc_raw(n, sizeof *label, "the inner split", &label));
    if (opts.group != NULL)
        TRY_GOTO(done, mem_alloc_raw(n, sizeof *group, "the inner split", &group));
    for (size_t i = 0; i < n; i++) {
        if (label != NULL)
            label[i] = opts.label[rows->train[i]];
        if (group != NULL)
            group[i] = opts.group[rows->train[i]];
    }
    opts.label = label;
    opts.group = group;
    TRY_GOTO(done, fold_assign(&opts, side));
    for (size_t i = 0; i < n; i++) {
        if (side[i] == 0)
            rows->select[rows->select_count++] = rows->train[i];
        else
            rows->train[kept++] = rows->train[i];
    }
    rows->train_count = kept;
done:
    mem_free(label);
    mem_free(group);
    mem_free(side);
    return st;
}

static enum status copy_rows(const int64_t *from, int64_t count, int64_t **to, int64_t *to_count)
{
    TRY(mem_alloc_raw((size_t)count, sizeof **to, "row ids", to));
    if (count > 0)
        memcpy(*to, from, (size_t)count * sizeof **to);
    *to_count = count;
    return STATUS_OK;
}

enum status run_rows_make(const struct run *run, int fold, struct run_rows *out)
{
    enum status st = STATUS_OK;
    size_t n = (size_t)run->train.info.rows;
    *out = (struct run_rows){.select_is_train_data = run->fold != NULL};
    if (run->fold == NULL) {
        TRY_GOTO(fail,
                 copy_rows(run->train.rows, run->train.info.rows, &out->train, &out->train_count));
        TRY_GOTO(fail,
                 copy_rows(run->eval.rows, run->eval.info.rows, &out->select, &out->select_count));
        TRY_GOTO(fail,
                 copy_rows(run->eval.rows, run->eval.info.rows, &out->score, &out->score_count));
        return STATUS_OK;
    }
    TRY_GOTO(fail, mem_alloc_raw(n, sizeof *out->train, "row ids", &out->train));
    TRY_GOTO(fail, mem_alloc_raw(n, sizeof *out->score, "row ids", &out->score));
    int own = fold < 0 ? 0 : fold; /* a hold-out's own rows are marked 0 */
    for (size_t i = 0; i < n; i++) {
        if (run->fold[i] == own)
            out->score[out->score_count++] = (int64_t)i;
        else
            out->train[out->train_count++] = (int64_t)i;
    }
    if (fold >= 0 && run->config->cv.select == CONFIG_SELECT_INNER)
        TRY_GOTO(fail, inner_split(run, out, fold));
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

void run_trial_opts(struct run *run, const struct run_rows *rows, int fold, struct comm *group,
                    const char *folder, struct trial_opts *out)
{
    const struct run_config *config = run->config;
    struct run_data *eval = rows->select_is_train_data ? &run->train : &run->eval;
    uint64_t seed = (uint64_t)config->seed;
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
        .train = {run->train.ds, &run->train.targets, rows->train, rows->train_count},
        .select = {eval->ds, &eval->targets, rows->select, rows->select_count},
        .score = {eval->ds, &eval->targets, rows->score, rows->score_count},
        .select_best = fold < 0 || config->cv.select != CONFIG_SELECT_LAST,
        .fence = run->fence[0] == '\0' ? NULL : run->fence,
        .folder = folder,
        .fold = fold,
        .seed = fold < 0 ? seed : random_key(seed, RANDOM_FOLD, (uint64_t)fold + 1, 0),
        .config_hash = run->identity,
    };
}
