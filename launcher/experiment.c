/* experiment.c - the trials of a run, their settings and folders; see experiment.h. */
#include "launcher/experiment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/config.h"

enum { TRIALS_MOST = 100000 };

bool experiment_wanted(const struct run_config *config)
{
    return run_has_folds(config) || config->search.count > 0 || config->cv.repeats > 1 ||
           config->cv.inner_folds > 0;
}

/* ---- what there is to run ---- */

static bool wanted_fold(const struct run_config *config, int fold)
{
    bool wanted = config->cv.run_folds_count == 0;
    for (int64_t i = 0; i < config->cv.run_folds_count; i++)
        wanted = wanted || config->cv.run_folds[i] == fold;
    return wanted;
}

/* What cannot be compared or nested. */
static enum status check_shape(const struct experiment *e)
{
    const struct run_config *config = &e->session->config;
    const struct run *run = &e->run;
    if (run->folds == 0 && run->splits == NULL && run->eval.ds == NULL)
        return status_fail(STATUS_CONFIG,
                           "several trials are compared on rows that they do not train on: give "
                           "cv.folds, data.eval or data.holdout");
    if (config->cv.inner_folds == 1)
        return status_fail(STATUS_CONFIG, "cv.inner_folds=1 leaves nothing to train on, wanted 0 "
                                          "or at least 2");
    if (config->cv.inner_folds > 0 && run->folds == 0)
        return status_fail(STATUS_CONFIG, "cv.inner_folds nests in cv.folds, which is not given");
    if (config->cv.inner_folds > 0 && e->search.settings == 1)
        return status_fail(STATUS_CONFIG,
                           "cv.inner_folds chooses between settings, and nothing is searched: give "
                           "search.<key>=[...]");
    if (config->search.halving == 1)
        return status_fail(STATUS_CONFIG,
                           "search.halving=1 keeps every setting, wanted 0 or at least 2");
    return STATUS_OK;
}

/* The list of trials, once setting 0 is open. */
static enum status shape(struct experiment *e)
{
    const struct run_config *config = &e->session->config;
    const struct run *run = &e->run;
    int folds = run->folds > 0 ? run->folds : 1;
    int64_t all;
    TRY(check_shape(e));
    TRY(mem_alloc((size_t)folds, sizeof *e->fold, "the folds", &e->fold));
    e->one_repeat = run->repeats == 1;
    e->shape = (struct schedule_opts){
        .settings = e->search.settings,
        .repeats = run->repeats,
        .inner_folds = (int)config->cv.inner_folds,
        .groups = 1,
        .halving = e->search.settings > 1 ? (int)config->search.halving : 0,
        .rungs = (int)config->search.rungs,
        .higher_is_better = metric_higher_is_better(run->task.metric),
    };
    for (int k = 0; k < folds; k++) {
        if (run->folds == 0 || wanted_fold(config, k))
            e->fold[e->shape.folds++] = run->folds == 0 ? -1 : k;
    }
    all = (int64_t)e->shape.repeats * e->shape.folds *
          (e->shape.inner_folds > 0 ? (int64_t)e->shape.settings * e->shape.inner_folds + 1
                                    : e->shape.settings);
    if (all > TRIALS_MOST)
        return status_fail(STATUS_CONFIG, "%lld trials were asked for, wanted at most %d",
                           (long long)all, TRIALS_MOST);
    e->trials = schedule_count(&e->shape);
    TRY(mem_alloc((size_t)e->trials, sizeof *e->work, "the trials", &e->work));
    TRY(mem_alloc((size_t)e->shape.settings, sizeof *e->identity, "settings", &e->identity));
    return mem_alloc((size_t)e->shape.settings, sizeof *e->label, "settings", &e->label);
}

void experiment_trial(const struct experiment *e, int index, struct trial_id *id)
{
    struct schedule_trial t;
    schedule_name(&e->shape, index, &t);
    *id = (struct trial_id){.repeat = t.repeat, .fold = e->fold[t.fold], .inner = t.inner};
}

/* ---- how much work a trial is ---- */

/* FLOPs for each token, forward and backward: the layers' products. */
static double token_flops(const struct encoder_config *c)
{
    double hidden = c->hidden;
    return 6.0 * c->layers * (4.0 * hidden * hidden + 2.0 * hidden * c->intermediate);
}

static double mean_length(const struct run *run)
{
    double sum = 0.0;
    for (int64_t i = 0; i < run->train.info.rows; i++)
        sum += (double)dataset_row_length(run->train.ds, i);
    return run->train.info.rows == 0 ? 0.0 : sum / (double)run->train.info.rows;
}

static enum status trained_rows(const struct run *run, const struct trial_id *id, int64_t *rows)
{
    struct run_rows made;
    TRY(run_rows_make(run, id, &made));
    *rows = made.train_count;
    run_rows_free(&made);
    return STATUS_OK;
}

/* Work of the trials of the open setting; under nesting the outer trials' is the greatest of all
 * settings, since nobody knows yet which it will be. */
static enum status measure_work(struct experiment *e, int setting)
{
    const struct run *run = &e->run;
    const struct run_config *config = &e->config;
    double flops = token_flops(&run->source.encoder) * mean_length(run);
    struct schedule_trial t;
    struct trial_id id = {0}, last = {.repeat = -1};
    int64_t rows = 0;
    for (int i = 0; i < e->trials; i++) {
        schedule_name(&e->shape, i, &t);
        if (t.setting >= 0 && t.setting != setting)
            continue;
        experiment_trial(e, i, &id);
        int inner = id.inner;
        id.inner = -1;
        if (id.repeat != last.repeat || id.fold != last.fold)
            TRY(trained_rows(run, &id, &rows));
        last = id;
        double share = inner < 0 ? 1.0 : 1.0 - 1.0 / e->shape.inner_folds;
        double seen = config->train.max_steps > 0
                          ? (double)config->train.max_steps * (double)config->train.batch_size
                          : share * (double)rows * config->train.epochs;
        e->work[i] = fmax(e->work[i], flops * seen);
    }
    return STATUS_OK;
}

/*
 * cv.group_ranks=0: a function of ranks, trials (not of those that are run now: under `fixed` the
 * bits depend on it), model and rows. The rates are those of a CPU rank with a few cores and of a
 * GPU, to one digit: only their ratio counts.
 */
static enum status choose_groups(struct experiment *e)
{
    const struct run *run = &e->run;
    const struct encoder_config *c = &run->source.encoder;
    int ranks = comm_size(e->session->world), folds = run->folds > 0 ? run->folds : 1;
    bool gpu = device_kind(e->session->device) == DEVICE_CUDA;
    double hidden = c->hidden;
    struct schedule_cost cost = {
        .flops = token_flops(c) * mean_length(run) * (double)e->config.train.batch_size,
        .rows = (int64_t)e->config.train.batch_size,
        .bytes = 4.0 * (c->layers * (4.0 * hidden * hidden + 2.0 * hidden * c->intermediate) +
                        (double)c->vocab_size * hidden),
        .rate = gpu ? 1e14 : 5e10,
        .bandwidth = gpu ? 5e10 : 1e9,
        .latency = gpu ? 2e-5 : 5e-5,
    };
    int64_t trials = (int64_t)e->shape.settings * e->shape.repeats * folds *
                     (e->shape.inner_folds > 0 ? e->shape.inner_folds : 1);
    e->group_ranks = (int)e->session->config.cv.group_ranks;
    if (e->group_ranks == 0)
        e->group_ranks = schedule_group_ranks(ranks, (int)trials, &cost);
    e->group_ranks = e->group_ranks > ranks ? ranks : e->group_ranks;
    if (ranks % e->group_ranks != 0)
        return status_fail(STATUS_CONFIG, "cv.group_ranks=%d does not divide the %d ranks",
                           e->group_ranks, ranks);
    e->groups = ranks / e->group_ranks;
    e->shape.groups = e->groups;
    return STATUS_OK;
}

/* ---- opening ---- */

/* Make what is open serve this setting, if it can. Local. */
static enum status change_setting(struct experiment *e, int setting,
                                  const struct run_config *config, bool *done)
{
    *done = e->open == setting;
    if (*done || e->open < 0)
        return STATUS_OK;
    TRY(run_change(&e->run, config, done));
    if (*done) {
        e->config = *config;
        e->run.config = &e->config;
    }
    return STATUS_OK;
}

/* The ranks may come from different settings, which another group's trials have left open. */
enum status experiment_use(struct experiment *e, struct comm *comm, int setting)
{
    struct run_config *next = NULL;
    char fence[sizeof e->run.fence];
    bool done = false;
    enum status st = STATUS_OK;
    st = mem_alloc_raw(1, sizeof *next, "a configuration", &next);
    if (st == STATUS_OK)
        st = search_config(&e->session->config, &e->search, setting, next);
    memcpy(fence, e->run.fence, sizeof fence);
    if (st == STATUS_OK)
        st = change_setting(e, setting, next, &done);
    uint32_t open_again = !done;
    st = comm_agree_flags(comm, st, &open_again);
    if (e->open >= 0 && (st != STATUS_OK || open_again != 0))
        run_close(&e->run);
    e->open = -1;
    TRY_GOTO(done, st);
    if (open_again != 0) {
        e->config = *next;
        TRY_GOTO(done, run_open(e->session, comm, &e->config, e->cache, &e->run));
    }
    memcpy(e->run.fence, fence, sizeof fence);
    e->open = setting;
    if (e->group_ranks > 0) /* else it is not known yet */
        st = run_identify(&e->run, e->group_ranks);
done:
    mem_free(next);
    return st;
}

/* run.cfg: what was asked, with what auto and 0 came to; searched keys stay as they were given. */
static enum status resolve_all(struct experiment *e)
{
    const struct run_config *asked = &e->session->config;
    e->resolved = e->run.resolved;
    e->resolved.search = asked->search;
    for (int64_t i = 0; i < asked->search.count; i++)
        TRY(config_copy_key(asked, asked->search.key[i].key, &e->resolved));
    return STATUS_OK;
}

static enum status open_setting(struct experiment *e, int setting)
{
    struct str label = {0};
    TRY(experiment_use(e, e->session->world, setting));
    enum status st = STATUS_OK;
    if (setting == 0)
        st = shape(e);
    if (st == STATUS_OK && (e->run.folds > 0 ? e->run.folds : 1) < e->shape.folds)
        st = status_fail(STATUS_INTERNAL, "settings have different folds");
    if (st == STATUS_OK)
        st = search_label(&e->session->config, &e->search, setting, &label);
    if (st == STATUS_OK) {
        e->label[setting] = label.p;
        st = measure_work(e, setting);
    }
    if (st == STATUS_OK && setting == 0)
        st = choose_groups(e);
    if (st == STATUS_OK)
        st = run_identify(&e->run, e->group_ranks);
    if (st == STATUS_OK) {
        e->identity[setting] = e->run.identity;
        e->all = hash_combine(e->all, e->run.identity);
    }
    if (st != STATUS_OK && e->label != NULL && e->label[setting] != label.p)
        str_release(&label);
    if (st != STATUS_OK && setting > 0)
        st = status_prefix(st, "%s", e->label[setting] == NULL ? "a setting" : e->label[setting]);
    return comm_agree(e->session->world, st);
}

enum status experiment_open(struct session *session, const char *cache, struct experiment *e)
{
    enum status st = STATUS_OK;
    *e = (struct experiment){.session = session, .cache = cache, .open = -1};
    TRY(comm_agree(session->world, search_expand(&session->config, &e->search)));
    for (int s = 0; s < e->search.settings && st == STATUS_OK; s++) {
        comm_mark(-1, "opening");
        st = open_setting(e, s);
    }
    TRY_GOTO(fail, st);
    TRY_GOTO(fail, experiment_use(e, session->world, 0));
    TRY_GOTO(fail, comm_agree(session->world, resolve_all(e)));
    return STATUS_OK;
fail:
    experiment_close(e);
    return st;
}

void experiment_close(struct experiment *e)
{
    if (e->open >= 0)
        run_close(&e->run);
    for (int s = 0; s < e->shape.settings && e->label != NULL; s++)
        mem_free(e->label[s]);
    mem_free(e->label);
    mem_free(e->identity);
    mem_free(e->work);
    mem_free(e->fold);
    search_release(&e->search);
    e->open = -1;
    e->label = NULL;
    e->identity = NULL;
    e->work = NULL;
    e->fold = NULL;
}

/* ---- names ---- */

static enum status add_level(struct str *out, const char *name, int number)
{
    return str_addf(out, "%s%s-%d", out->n == 0 ? "" : "/", name, number);
}

enum status experiment_name(const struct experiment *e, int index, struct str *out)
{
    struct schedule_trial t;
    struct str name = {0};
    enum status st = STATUS_OK;
    schedule_name(&e->shape, index, &t);
    bool several = e->shape.settings > 1, nested = e->shape.inner_folds > 0;
    TRY_GOTO(done, str_add(&name, "", 0));
    if (several && !nested)
        TRY_GOTO(done, add_level(&name, "setting", t.setting));
    if (!e->one_repeat)
        TRY_GOTO(done, add_level(&name, "repeat", t.repeat));
    if (e->fold[t.fold] >= 0)
        TRY_GOTO(done, add_level(&name, "fold", e->fold[t.fold]));
    if (t.inner >= 0) {
        TRY_GOTO(done, add_level(&name, "inner", t.inner));
        TRY_GOTO(done, add_level(&name, "setting", t.setting));
    }
    st = str_addf(out, "%s", name.p);
done:
    str_release(&name);
    return st;
}

enum status experiment_folder(const struct experiment *e, int index, char **out)
{
    struct str name = {0};
    *out = NULL;
    enum status st = experiment_name(e, index, &name);
    if (st == STATUS_OK)
        st = name.n == 0 ? mem_strdup(e->session->config.out, out)
                         : path_join(e->session->config.out, name.p, out);
    str_release(&name);
    return st;
}

enum status experiment_say(const struct experiment *e, int index, int setting, struct str *out)
{
    struct trial_id id;
    size_t from = out->n;
    experiment_trial(e, index, &id);
    if (id.fold >= 0)
        TRY(str_addf(out, "fold %d", id.fold));
    if (id.inner >= 0)
        TRY(str_addf(out, ", inner fold %d", id.inner));
    if (!e->one_repeat)
        TRY(str_addf(out, "%srepeat %d", out->n > from ? ", " : "", id.repeat));
    if (e->shape.settings > 1 && setting >= 0)
        TRY(str_addf(out, "%s%s", out->n > from ? ", " : "", e->label[setting]));
    return str_add(out, out->n > from ? "" : "the run", out->n > from ? 0 : 7);
}
