/*
 * trial_state.c - a trial's checkpoints: written by all ranks, committed by one, resumed on any
 * number.
 *
 * checkpoint-<step>/ is a Hugging Face model folder plus optimizer.safetensors (the optimizer's
 * states, "m.<parameter>", "v.<parameter>" for AdamW, fp32, by name so that any sharding can read
 * them) and state.json. Every rank writes the elements it owns. Nothing here depends on the number
 * of ranks but the work's division.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "ckpt/safetensors.h"
#include "worker/trial_internal.h"

enum { STAGING = 1 << 18, FAILED_WRITES = 3 };

enum status trial_settle(struct trial *t)
{
    return comm_settle(t->group, t->config->parallel.watchdog_s / 2.0);
}

enum status trial_hash(struct trial *t, uint64_t *hash)
{
    const struct shards *shards = &t->shards;
    int64_t all_blocks = shards->total / PARAM_BLOCK, at = 0;
    uint64_t *own = NULL, *by_block = NULL;
    float *block = NULL;
    char *all = NULL;
    int64_t *begin = NULL;
    int ranks = comm_size(t->group);
    enum status st = mem_alloc((size_t)shards->blocks, sizeof *own, "block hashes", &own);
    *hash = 0;
    if (st == STATUS_OK)
        st = trial_settle(t);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)all_blocks, sizeof *by_block, "block hashes", &by_block);
    if (st == STATUS_OK)
        st = mem_alloc_raw(PARAM_BLOCK, sizeof *block, "a block of weights", &block);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)ranks + 1, sizeof *begin, "block hashes", &begin);
    for (int r = 0; st == STATUS_OK && r < shards->ranges; r++) {
        for (int64_t e = shards->owned[r].begin; st == STATUS_OK && e < shards->owned[r].end;
             e += PARAM_BLOCK) {
            st = device_get(t->opts->device, block, model_weights(t->model) + e,
                            PARAM_BLOCK * sizeof *block);
            own[at++] = hash_bytes(block, PARAM_BLOCK * sizeof *block);
        }
    }
    TRY_GOTO(done, comm_agree(t->group, st));
    TRY_GOTO(done,
             comm_allgather(t->group, own, shards->blocks * (int64_t)sizeof *own, &all, begin));
    for (int r = 0; r < ranks; r++)
        shards_spread(shards, r, all + begin[r], sizeof *by_block, by_block);
    *hash = hash_bytes(by_block, (size_t)all_blocks * sizeof *by_block);
done:
    mem_free(own);
    mem_free(by_block);
    mem_free(block);
    mem_free(all);
    mem_free(begin);
    return st;
}

/* ---- optimizer.safetensors ---- */

enum { STATE_NAME = PARAM_NAME + 16 };

/* Tensors of a parameter: the optimizer's states, and the weights where model.safetensors has their
 * mean. */
static int states_of(const struct trial *t)
{
    return optimizer_states(&t->rule) + (t->averages != NULL);
}

/* Whether the i-th tensor is weights. */
static bool is_weight(const struct trial *t, int i)
{
    return i % states_of(t) == optimizer_states(&t->rule);
}

/* The i-th tensor: states of the first parameter, states of the second, ... */
static void state_name(const struct trial *t, int i, char name[STATE_NAME])
{
    const int states = states_of(t);
    (void)snprintf(name, STATE_NAME, "%s.%s",
                   is_weight(t, i) ? "w" : optimizer_state_name(&t->rule, i % states),
                   model_params(t->model)->params[i / states].name);
}

static int state_tensors(const struct trial *t)
{
    return states_of(t) * model_params(t->model)->count;
}

/* Owned elements of the i-th tensor, at `from` of the flat space; files are written while the mean
 * is in the weights' place. */
static enum status get_state(const struct trial *t, int i, int64_t from, int64_t n, float *out)
{
    if (!is_weight(t, i))
        return optimizer_get(t->optimizer, i % states_of(t), from, n, out);
    if (averages_count(t->averages) > 0)
        return averages_get(t->averages, from, n, out);
    return device_get(t->opts->device, out, model_weights(t->model) + from,
                      (size_t)n * sizeof *out);
}

static enum status put_state(struct trial *t, int i, int64_t from, int64_t n, const float *in)
{
    if (!is_weight(t, i))
        return optimizer_put(t->optimizer, i % states_of(t), from, n, in);
    return device_put(t->opts->device, model_weights(t->model) + from, in, (size_t)n * sizeof *in);
}

static enum status moment_entries(const struct trial *t, struct safetensors_entry **entries,
                                  char **names)
{
    const int states = states_of(t), count = state_tensors(t);
    TRY(mem_alloc((size_t)count, STATE_NAME, "names of the optimizer's states", names));
    TRY(mem_alloc((size_t)count, sizeof **entries, "the optimizer's states", entries));
    for (int i = 0; i < count; i++) {
        const struct param *param = &model_params(t->model)->params[i / states];
        char *name = *names + (size_t)i * STATE_NAME;
        state_name(t, i, name);
        (*entries)[i] =
            (struct safetensors_entry){.name = name, .dtype = TENSOR_F32, .rank = param->rank};
        for (int d = 0; d < param->rank; d++)
            (*entries)[i].shape[d] = param->shape[d];
    }
    return STATUS_OK;
}

/* Part of a parameter in the r-th range that this rank owns: [*from, *to) of the flat space; false:
 * none. */
static bool owned_part(const struct trial *t, const struct param *param, int r, int64_t *from,
                       int64_t *to)
{
    const struct range *own = &t->shards.owned[r];
    int64_t low = param->offset, high = param->offset + param->elements;
    *from = own->begin > low ? own->begin : low;
    *to = own->end < high ? own->end : high;
    return *from < *to;
}

static enum status write_moments(struct trial *t, struct safetensors_writer *file)
{
    const struct param_table *table = model_params(t->model);
    const int states = states_of(t), count = state_tensors(t);
    float *staging;
    enum status st = STATUS_OK;
    TRY(mem_alloc_raw(STAGING, sizeof *staging, "a staging buffer", &staging));
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        const struct param *param = &table->params[i / states];
        int64_t from, to;
        for (int r = 0; r < t->shards.ranges && st == STATUS_OK; r++) {
            if (!owned_part(t, param, r, &from, &to))
                continue;
            for (; from < to && st == STATUS_OK; from += STAGING) {
                int64_t n = to - from < STAGING ? to - from : STAGING;
                st = get_state(t, i, from, n, staging);
                if (st == STATUS_OK)
                    st = safetensors_write(file, i, from - param->offset, n, staging);
            }
        }
    }
    mem_free(staging);
    return st;
}

static enum status read_moments(struct trial *t, const char *path)
{
    const struct param_table *table = model_params(t->model);
    const int states = states_of(t), count = state_tensors(t);
    struct safetensors *file = NULL;
    float *staging = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, mem_alloc_raw(STAGING, sizeof *staging, "a staging buffer", &staging));
    TRY_GOTO(done, safetensors_open(path, &file));
    for (int i = 0; i < count; i++) {
        const struct param *param = &table->params[i / states];
        char name[STATE_NAME];
        int64_t from, to;
        state_name(t, i, name);
        const struct tensor_info *tensor = safetensors_find(file, name);
        if (tensor == NULL || tensor->elements != param->elements) {
            st = status_fail(STATUS_FORMAT, "%s: %s is missing or has another size", path, name);
            goto done;
        }
        for (int r = 0; r < t->shards.ranges; r++) {
            if (!owned_part(t, param, r, &from, &to))
                continue;
            for (; from < to; from += STAGING) {
                int64_t n = to - from < STAGING ? to - from : STAGING;
                TRY_GOTO(done, safetensors_read(file, tensor, from - param->offset, n, staging));
                TRY_GOTO(done, put_state(t, i, from, n, staging));
            }
        }
    }
done:
    safetensors_close(file);
    mem_free(staging);
    return st;
}

/* ---- state.json ---- */

static json_t *history_json(const struct progress *at)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < at->evaluations; i++) {
        json_t *one = json_pack("{s:I, s:o, s:o}", "step", (json_int_t)at->history[i].step, "score",
                                json_finite(at->history[i].score), "loss",
                                json_finite(at->history[i].loss));
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static enum status add_plateau(json_t *state, const struct plateau *p)
{
    json_t *one = json_pack("{s:f, s:o, s:I, s:I}", "factor", p->factor, "best",
                            json_finite(p->best), "bad", (json_int_t)p->bad, "cooldown",
                            (json_int_t)p->cooldown);
    if (one == NULL || json_object_set_new(state, "plateau", one) != 0)
        return status_fail(STATUS_NOMEM, "no memory for state.json");
    return STATUS_OK;
}

static enum status read_plateau(const json_t *state, const char *path, struct plateau *p)
{
    const json_t *one = json_object_get(state, "plateau");
    if (one == NULL)
        return status_fail(STATUS_FORMAT, "%s: plateau is missing", path);
    TRY(json_real_or(one, "factor", path, 1.0, &p->factor));
    TRY(json_real_or(one, "best", path, NAN, &p->best));
    TRY(json_int(one, "bad", path, 0, INT64_MAX, &p->bad));
    TRY(json_int(one, "cooldown", path, 0, INT64_MAX, &p->cooldown));
    if (!(p->factor >= 0.0 && p->factor <= 1.0))
        return status_fail(STATUS_FORMAT, "%s: the plateau's factor is %g, wanted 0 to 1", path,
                           p->factor);
    return STATUS_OK;
}

static enum status write_state(struct trial *t, const char *folder)
{
    const struct progress *at = &t->at;
    char *path = NULL;
    enum status st = path_join(folder, "state.json", &path);
    int64_t per_epoch = t->plan.steps_per_epoch;
    json_t *state = json_pack(
        "{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:I, s:f, s:I, s:o, s:I, "
        "s:b, s:o, s:o, s:s, s:f, s:I, s:I}", //
        "format", "cohort-state", "version", 1, "step", (json_int_t)at->step, "steps",
        (json_int_t)t->plan.steps, "epoch", (json_int_t)(at->step / per_epoch), "step_in_epoch",
        (json_int_t)(at->step % per_epoch), "optimizer_steps",
        (json_int_t)optimizer_steps(t->optimizer), "tokens", (json_int_t)at->tokens, "seconds",
        at->seconds, "epoch_loss", json_finite(at->epoch_loss), "epoch_rows",
        (json_int_t)at->epoch_rows, "epoch_seconds", at->epoch_seconds, "best_step",
        (json_int_t)at->best_step, "best_score", json_finite(at->best_score), "without_gain",
        (json_int_t)at->without_gain, "stopped", (int)at->stopped, "history", history_json(at),
        "config_hash", json_hex64(t->opts->config_hash), "metric",
        metric_name(t->opts->task->metric), "loss_scale", at->scaling.scale, "loss_scale_clean",
        (json_int_t)at->scaling.clean, "skipped_steps", (json_int_t)at->scaling.skipped);
    if (st == STATUS_OK &&
        (state == NULL || json_object_set_new(state, "seed", json_hex64(t->opts->seed)) != 0))
        st = status_fail(STATUS_NOMEM, "no memory for state.json");
    if (st == STATUS_OK && t->rates.follows_scores)
        st = add_plateau(state, &at->plateau);
    if (st == STATUS_OK && t->averages != NULL &&
        json_object_set_new(state, "averaged_steps",
                            json_integer((json_int_t)averages_count(t->averages))) != 0)
        st = status_fail(STATUS_NOMEM, "no memory for state.json");
    if (st == STATUS_OK)
        st = json_write_file(path, state);
    json_decref(state);
    mem_free(path);
    return st;
}

static enum status read_history(struct progress *at, const json_t *list)
{
    size_t n = json_array_size(list);
    TRY(mem_grow(&at->history, &at->history_capacity, n + 1, sizeof *at->history, "the history"));
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        const json_t *score = json_object_get(one, "score"), *loss = json_object_get(one, "loss");
        at->history[i] =
            (struct evaluation){.step = json_integer_value(json_object_get(one, "step")),
                                .score = json_is_number(score) ? json_number_value(score) : NAN,
                                .loss = json_is_number(loss) ? json_number_value(loss) : NAN};
    }
    at->evaluations = n;
    return STATUS_OK;
}

static enum status read_state(struct trial *t, const char *folder)
{
    struct progress *at = &t->at;
    char *path = NULL;
    json_t *state = NULL;
    int64_t steps, optimizer;
    uint64_t hash;
    enum status st = STATUS_OK;
    TRY_GOTO(done, path_join(folder, "state.json", &path));
    TRY_GOTO(done, json_read_file(path, (size_t)64 << 20, &state));
    TRY_GOTO(done, json_get_hex64(state, "config_hash", path, &hash));
    if (hash != t->opts->config_hash) {
        st = status_fail(STATUS_CONFIG, "%s is from a run with another configuration", folder);
        goto done;
    }
    TRY_GOTO(done, json_int(state, "step", path, 0, INT64_MAX, &at->step));
    TRY_GOTO(done, json_int(state, "steps", path, 0, INT64_MAX, &steps));
    TRY_GOTO(done, json_int(state, "optimizer_steps", path, 0, INT64_MAX, &optimizer));
    TRY_GOTO(done, json_int(state, "tokens", path, 0, INT64_MAX, &at->tokens));
    TRY_GOTO(done, json_real_or(state, "seconds", path, 0.0, &at->seconds));
    TRY_GOTO(done, json_real_or(state, "epoch_loss", path, 0.0, &at->epoch_loss));
    TRY_GOTO(done, json_int(state, "epoch_rows", path, 0, INT64_MAX, &at->epoch_rows));
    TRY_GOTO(done, json_real_or(state, "epoch_seconds", path, 0.0, &at->epoch_seconds));
    TRY_GOTO(done, json_int(state, "best_step", path, -1, INT64_MAX, &at->best_step));
    TRY_GOTO(done, json_real_or(state, "best_score", path, NAN, &at->best_score));
    TRY_GOTO(done, json_int(state, "without_gain", path, 0, INT64_MAX, &at->without_gain));
    TRY_GOTO(done, json_bool_or(state, "stopped", path, false, &at->stopped));
    TRY_GOTO(done, json_real_or(state, "loss_scale", path, at->scaling.scale, &at->scaling.scale));
    TRY_GOTO(done,
             json_int_or(state, "loss_scale_clean", path, 0, INT64_MAX, 0, &at->scaling.clean));
    TRY_GOTO(done,
             json_int_or(state, "skipped_steps", path, 0, INT64_MAX, 0, &at->scaling.skipped));
    if (t->rates.follows_scores)
        TRY_GOTO(done, read_plateau(state, path, &at->plateau));
    TRY_GOTO(done, read_history(at, json_object_get(state, "history")));
    if (steps != t->plan.steps || at->step > steps) {
        st = status_fail(STATUS_FORMAT, "%s: step %lld of %lld, but this run has %lld steps", path,
                         (long long)at->step, (long long)steps, (long long)t->plan.steps);
        goto done;
    }
    if (!(at->scaling.scale >= 1.0 && at->scaling.scale <= 0x1p100)) {
        st = status_fail(STATUS_FORMAT, "%s: loss_scale is %g, wanted 1 to 2^100", path,
                         at->scaling.scale);
        goto done;
    }
    if (t->averages != NULL) {
        int64_t averaged;
        TRY_GOTO(done, json_int(state, "averaged_steps", path, 0, at->step, &averaged));
        averages_resume(t->averages, model_weights(t->model), averaged);
    }
    optimizer_set_steps(t->optimizer, optimizer);
done:
    json_decref(state);
    mem_free(path);
    return st;
}

/* ---- saving ---- */

/* What every rank does between begin and commit; the caller agrees on the outcome. */
static enum status write_files(struct trial *t, const char *folder)
{
    const struct trial_opts *opts = t->opts;
    struct model_writer *model = NULL;
    struct safetensors_writer *moments = NULL;
    struct safetensors_entry *entries = NULL;
    char *names = NULL, *path = NULL;
    enum status st = STATUS_OK, end;

    st = path_join(folder, "optimizer.safetensors", &path);
    if (st == STATUS_OK)
        st = moment_entries(t, &entries, &names);
    if (st == STATUS_OK && t->leader) { /* the leader makes the files at their full size ... */
        st = model_save_create(t->model, folder, true, &model);
        if (st == STATUS_OK)
            st = safetensors_create(path, entries, state_tensors(t), NULL, true, &moments);
    }
    TRY_GOTO(done, comm_agree(t->group, st)); /* ... before the others open them */
    if (!t->leader) {
        st = model_save_create(t->model, folder, false, &model);
        if (st == STATUS_OK)
            st = safetensors_create(path, entries, state_tensors(t), NULL, false, &moments);
    }
    if (st == STATUS_OK)
        st = fault_here("checkpoint.write");
    for (int r = 0; r < t->shards.ranges && st == STATUS_OK; r++)
        st = model_save_write(model, t->model, t->shards.owned[r].begin, t->shards.owned[r].end);
    if (st == STATUS_OK)
        st = write_moments(t, moments);
    if (st == STATUS_OK && t->leader)
        st = model_save_files(opts->source, opts->task, opts->pooling, opts->max_length,
                              &opts->chunks, folder);
    if (st == STATUS_OK && t->leader)
        st = write_state(t, folder);
done:
    if (model != NULL) {
        end = model_save_finish(model);
        st = st == STATUS_OK ? end : st;
    }
    if (moments != NULL) {
        end = safetensors_finish(moments);
        st = st == STATUS_OK ? end : st;
    }
    mem_free(entries);
    mem_free(names);
    mem_free(path);
    return st;
}

/* Another start may own the folder by now: it is asked before its files are touched, and once more
 * before a rename. */
static enum status check_fence(const struct trial_opts *opts)
{
    return opts->fence == NULL ? STATUS_OK : checkpoint_check_fence(opts->config->out, opts->fence);
}

static enum status commit(struct trial *t, const char *name, bool publish, uint64_t hash)
{
    const struct trial_opts *opts = t->opts;
    int64_t protect[2] = {t->at.best_step, t->at.step};
    json_t *extra = json_pack("{s:I, s:o, s:o, s:s, s:s, s:i, s:i}", "step", (json_int_t)t->at.step,
                              "weights_hash", json_hex64(hash), "config_hash",
                              json_hex64(opts->config_hash), "backend", opts->kernels->name,
                              "device", device_domain(opts->device), "grains",
                              (int)t->config->parallel.grains, "ranks", comm_size(t->group));
    enum status st = extra == NULL ? status_fail(STATUS_NOMEM, "no memory for the manifest")
                                   : run_log_sync(t->log);
    if (st == STATUS_OK)
        st = check_fence(opts);
    if (st == STATUS_OK)
        st = checkpoint_commit(opts->folder, name, extra);
    if (st == STATUS_OK && publish)
        st = checkpoint_publish(opts->folder, t->at.step, "best");
    if (st == STATUS_OK)
        st = checkpoint_retain(opts->folder, (int)t->config->checkpoint.keep, protect, 2);
    json_decref(extra);
    return st;
}

enum status trial_save(struct trial *t, bool publish)
{
    const struct trial_opts *opts = t->opts;
    struct str working = {0}, name = {0};
    const struct model_memory *memory = &t->plan.memory;
    uint64_t hash;
    double started = clock_s();
    char *blob = NULL;
    int64_t n = 0;
    enum status st;

    comm_mark(t->at.step, "checkpoint");
    TRY_GOTO(done, trial_hash(t, &hash));
    st = str_addf(&name, "checkpoint-%lld", (long long)t->at.step);
    if (st == STATUS_OK && t->leader)
        st = check_fence(opts);
    if (st == STATUS_OK && t->leader)
        st = folder_make(opts->folder);
    if (st == STATUS_OK && t->leader)
        st = checkpoint_begin(opts->folder, name.p, 3 * memory->weights, &working);
    st = comm_agree(t->group, st);
    if (st == STATUS_OK) {
        blob = t->leader ? working.p : NULL;
        n = (int64_t)working.n;
        TRY_GOTO(done, comm_broadcast_blob(t->group, &blob, &n, 0));
        if (t->averages != NULL) /* what people load is the mean */
            averages_swap(t->averages, model_weights(t->model));
        st = write_files(t, blob);
        if (t->averages != NULL)
            averages_swap(t->averages, model_weights(t->model));
        st = comm_agree(t->group, st);
    }
    if (st == STATUS_OK)
        st = comm_agree(t->group, t->leader ? commit(t, name.p, publish, hash) : STATUS_OK);
    if (st == STATUS_OK) {
        t->write_failures = 0;
        st = run_log_add(t->log, json_pack("{s:s, s:I, s:s, s:f, s:o, s:b}", "kind", "checkpoint",
                                           "step", (json_int_t)t->at.step, "name", name.p,
                                           "seconds", clock_s() - started, "weights_hash",
                                           json_hex64(hash), "best", (int)publish));
        st = comm_agree(t->group, st);
    } else if (st == STATUS_IO) {
        if (t->leader)
            checkpoint_drop(opts->folder, name.p);
        if (++t->write_failures < FAILED_WRITES && t->at.step < t->plan.steps) {
            if (t->leader)
                log_warning("%s was not saved: %s; the one before stays, training goes on", name.p,
                            status_message());
            st = run_log_add(t->log, json_pack("{s:s, s:I, s:s, s:s}", "kind", "event", "step",
                                               (json_int_t)t->at.step, "event", "checkpoint failed",
                                               "why", status_message()));
            if (st == STATUS_IO) /* a full disk takes no log line either */
                st = STATUS_OK;
            st = comm_agree(t->group, st);
        }
    }
done:
    if (!t->leader)
        mem_free(blob);
    str_release(&working);
    str_release(&name);
    return st;
}

/* ---- restoring ---- */

/* The step whose weights best/ should hold by now; -1: none yet. */
static int64_t published_step(const struct trial *t)
{
    if (t->opts->select_best && t->opts->select.count > 0)
        return t->at.best_step;
    return t->at.step == t->plan.steps || t->at.stopped ? t->at.step : -1;
}

/*
 * Leader: finish what a crash cut short after a commit. best/ is made of a committed checkpoint,
 * and may be missing or older than the state says; removed checkpoints may lie about. Where the
 * best checkpoint is gone as well, the next evaluation takes its place: that happens when a damaged
 * checkpoint was passed over, and then repeats what it chose.
 */
static enum status repair(struct trial *t)
{
    const struct trial_opts *opts = t->opts;
    int64_t protect[2] = {t->at.best_step, t->at.step}, wanted = published_step(t), found = -1;
    json_t *manifest = NULL;
    if (wanted >= 0) {
        if (checkpoint_manifest(opts->folder, "best", &manifest) == STATUS_OK)
            found = json_integer_value(json_object_get(manifest, "step"));
        json_decref(manifest);
    }
    enum status st = found == wanted ? STATUS_OK : checkpoint_publish(opts->folder, wanted, "best");
    if (st != STATUS_OK && t->at.step < t->plan.steps && !t->at.stopped) {
        log_warning("the best weights so far, of step %lld, are lost: %s; the next evaluation "
                    "takes their place",
                    (long long)wanted, status_message());
        t->at.best_step = -1;
        t->at.best_score = NAN;
        t->at.without_gain = 0;
        st = STATUS_OK;
    }
    if (st == STATUS_OK &&
        checkpoint_retain(opts->folder, (int)t->config->checkpoint.keep, protect, 2) != STATUS_OK)
        log_warning("%s", status_message());
    return st;
}

enum status trial_restore(struct trial *t)
{
    const struct trial_opts *opts = t->opts;
    struct load_report report = {0};
    int64_t step = -1, n = 0;
    char *name = NULL, *folder = NULL, *moments = NULL;
    enum status st = STATUS_OK;
    t->at.best_step = -1;
    t->at.best_score = NAN;
    if (t->leader && file_is_folder(opts->folder)) {
        char *found = NULL;
        st = checkpoint_find_last(opts->folder, &step, &found);
        if (st == STATUS_OK && step >= 0)
            st = path_join(opts->folder, found, &name);
        mem_free(found);
    }
    TRY_GOTO(done, comm_agree(t->group, st));
    TRY_GOTO(done, comm_broadcast(t->group, &step, sizeof step, 0));
    if (step < 0) { /* a fresh start */
        if (t->config->model.from_scratch) {
            st = model_init(t->model, 0, model_params(t->model)->count, opts->seed);
            if (st == STATUS_OK)
                st = model_weights_changed(t->model);
        } else {
            st = model_load(t->model, opts->source->path, opts->task->head_from_model,
                            t->config->model.resize_embeddings, opts->seed, &report);
        }
        TRY_GOTO(done, comm_agree(t->group, st));
        if (t->leader && report.head_drawn)
            log_info("%s: %d tensors loaded, %d of other tasks skipped; a new head of %d outputs "
                     "is drawn from the seed",
                     opts->source->path, report.loaded, report.skipped, opts->task->outputs);
        else if (t->leader && report.loaded > 0)
            log_info("%s: %d tensors loaded with their head, %d skipped%s", opts->source->path,
                     report.loaded, report.skipped,
                     report.drawn > 0 ? ", the pooler drawn from the seed" : "");
        if (t->leader && report.new_ids > 0)
            log_info("%s: embeddings of %lld new ids are drawn from the seed", opts->source->path,
                     (long long)report.new_ids);
        goto done;
    }
    n = name == NULL ? 0 : (int64_t)strlen(name) + 1;
    TRY_GOTO(done, comm_broadcast_blob(t->group, &name, &n, 0));
    folder = name;
    st = model_load_trained(t->model, folder);
    if (st == STATUS_OK)
        st = read_state(t, folder);
    if (st == STATUS_OK)
        st = path_join(folder, "optimizer.safetensors", &moments);
    if (st == STATUS_OK)
        st = read_moments(t, moments);
    TRY_GOTO(done, comm_agree(t->group, st));
    if (t->averages != NULL) /* every rank has its own weights again: the others' */
        TRY_GOTO(done, comm_agree(t->group, trial_gather_weights(t)));
    TRY_GOTO(done, comm_agree(t->group, t->leader ? repair(t) : STATUS_OK));
    TRY_GOTO(done, comm_broadcast(t->group, &t->at.best_step, sizeof t->at.best_step, 0));
    TRY_GOTO(done, comm_broadcast(t->group, &t->at.best_score, sizeof t->at.best_score, 0));
    TRY_GOTO(done, comm_broadcast(t->group, &t->at.without_gain, sizeof t->at.without_gain, 0));
    if (t->leader)
        log_info("resuming %s at step %lld of %lld", opts->folder, (long long)t->at.step,
                 (long long)t->plan.steps);
done:
    mem_free(moments);
    mem_free(name);
    return st;
}
