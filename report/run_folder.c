/* run_folder.c - see run_folder.h. */
#include "report/run_folder.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

enum { JSON_LIMIT = 256 << 20, CFG_LIMIT = 1 << 20 };

/* ---- JSON ---- */

static const json_t *json_at(const json_t *object, const char *path)
{
    char key[64];
    while (object != NULL && *path != '\0') {
        size_t n = strcspn(path, ".");
        int64_t index;
        if (n >= sizeof key)
            return NULL;
        memcpy(key, path, n);
        key[n] = '\0';
        if (json_is_array(object))
            object = parse_int64(key, &index) && index >= 0 ? json_array_get(object, (size_t)index)
                                                            : NULL;
        else
            object = json_object_get(object, key);
        path += path[n] == '.' ? n + 1 : n;
    }
    return object;
}

double json_number_at(const json_t *object, const char *path)
{
    const json_t *value = json_at(object, path);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *json_text_at(const json_t *object, const char *path)
{
    const char *text = json_string_value(json_at(object, path));
    return text == NULL ? "" : text;
}

/* ---- log.jsonl ---- */

static double number(const json_t *line, const char *key)
{
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static enum status take_line(struct trial_log *trial, const json_t *line)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    if (kind == NULL)
        return STATUS_OK;
    if (strcmp(kind, "train") == 0) {
        TRY(mem_grow(&trial->step, &trial->step_room, (size_t)trial->steps + 1, sizeof *trial->step,
                     "steps of a log"));
        trial->step[trial->steps++] =
            (struct log_step){.step = number(line, "step"),
                              .epoch = number(line, "epoch"),
                              .loss = number(line, "loss"),
                              .lr = number(line, "lr"),
                              .head_lr = number(line, "head_lr"),
                              .grad_norm = number(line, "grad_norm"),
                              .rows = number(line, "rows"),
                              .tokens = number(line, "tokens"),
                              .tokens_per_s = number(line, "tokens_per_s")};
    } else if (strcmp(kind, "eval") == 0) {
        double seconds = number(line, "seconds");
        TRY(mem_grow(&trial->eval, &trial->eval_room, (size_t)trial->evals + 1, sizeof *trial->eval,
                     "evaluations of a log"));
        trial->eval[trial->evals++] = (struct log_eval){.step = number(line, "step"),
                                                        .score = number(line, "score"),
                                                        .loss = number(line, "loss"),
                                                        .rows = number(line, "rows"),
                                                        .seconds = seconds};
        trial->eval_s += isfinite(seconds) ? seconds : 0.0;
    } else if (strcmp(kind, "checkpoint") == 0) {
        double seconds = number(line, "seconds");
        trial->checkpoint_s += isfinite(seconds) ? seconds : 0.0;
        trial->checkpoints++;
    }
    return STATUS_OK;
}

/* Lines that are no JSON are left out: the last one may be half written. */
static enum status read_log(const char *path, struct trial_log *trial)
{
    char *text = NULL;
    size_t room = 0;
    ssize_t n;
    enum status st = STATUS_OK;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return status_fail(STATUS_IO, "cannot read %s: %s", path, strerror(errno));
    while (st == STATUS_OK && (n = getline(&text, &room, file)) > 0) {
        json_t *line = json_loadb(text, (size_t)n, 0, NULL);
        if (line != NULL)
            st = take_line(trial, line);
        json_decref(line);
    }
    free(text);
    (void)fclose(file);
    return st;
}

/* ---- trials ---- */

bool run_folder_level(const char *name, const char *level, int *number)
{
    size_t n = strlen(level);
    int64_t value;
    if (strncmp(name, level, n) != 0 || name[n] != '-' || !parse_int64(name + n + 1, &value) ||
        value < 0 || value > INT32_MAX)
        return false;
    *number = (int)value;
    return true;
}

static bool take_level(const char *name, struct trial_log *trial)
{
    return run_folder_level(name, "setting", &trial->setting) ||
           run_folder_level(name, "repeat", &trial->repeat) ||
           run_folder_level(name, "fold", &trial->fold) ||
           run_folder_level(name, "inner", &trial->inner);
}

static enum status add_trial(struct run_folder *run, const struct trial_log *at, const char *folder,
                             size_t *room)
{
    struct trial_log *trial;
    char *log = NULL, *result = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, path_join(folder, "log.jsonl", &log));
    TRY_GOTO(done, path_join(folder, "result.json", &result));
    if (!file_exists(log))
        goto done;
    TRY_GOTO(done,
             mem_grow(&run->trial, room, (size_t)run->trials + 1, sizeof *run->trial, "trials"));
    trial = &run->trial[run->trials++];
    *trial = *at;
    trial->name = NULL;
    trial->finished = file_exists(result);
    TRY_GOTO(done, mem_strdup(at->name, &trial->name));
    st = read_log(log, trial);
done:
    mem_free(log);
    mem_free(result);
    return st;
}

/* The trials in the levels below a folder; at is what their place says so far. */
static enum status find_trials(struct run_folder *run, const struct trial_log *at,
                               const char *folder, int depth, size_t *room)
{
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK && depth < 4; i++) {
        struct trial_log below = *at;
        struct str name = {0};
        char *path = NULL;
        if (!take_level(names[i], &below))
            continue;
        st = str_addf(&name, "%s%s%s", at->name, at->name[0] == '\0' ? "" : "/", names[i]);
        if (st == STATUS_OK)
            st = path_join(folder, names[i], &path);
        below.name = name.p;
        if (st == STATUS_OK && file_is_folder(path)) {
            run->several = true;
            st = add_trial(run, &below, path, room);
            if (st == STATUS_OK)
                st = find_trials(run, &below, path, depth + 1, room);
        }
        str_release(&name);
        mem_free(path);
    }
    folder_list_free(names, count);
    return st;
}

static int by_place(const void *a, const void *b)
{
    const struct trial_log *x = a, *y = b;
    const int left[] = {x->setting, x->repeat, x->fold, x->inner};
    const int right[] = {y->setting, y->repeat, y->fold, y->inner};
    for (int i = 0; i < 4; i++) {
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    }
    return 0;
}

static enum status read_trials(struct run_folder *run)
{
    char top[] = "";
    const struct trial_log none = {
        .name = top, .setting = -1, .repeat = -1, .fold = -1, .inner = -1};
    size_t room = 0;
    TRY(find_trials(run, &none, run->path, 0, &room));
    if (!run->several) /* else the run's log is that of its trials again */
        TRY(add_trial(run, &none, run->path, &room));
    if (run->trials > 1)
        qsort(run->trial, (size_t)run->trials, sizeof *run->trial, by_place);
    return STATUS_OK;
}

/* ---- other files ---- */

static enum status leave_out(struct run_folder *run, enum status st)
{
    if (st == STATUS_OK || st == STATUS_NOMEM)
        return st;
    return str_addf(&run->note, "\n%s", status_message());
}

static enum status read_json(struct run_folder *run, const char *name, json_t **out)
{
    char *path;
    TRY(path_join(run->path, name, &path));
    enum status st = file_exists(path) ? json_read_file(path, JSON_LIMIT, out) : STATUS_OK;
    mem_free(path);
    return leave_out(run, st);
}

static enum status read_cfg(struct run_folder *run)
{
    char *path, *bytes = NULL;
    size_t n = 0;
    TRY(path_join(run->path, "run.cfg", &path));
    enum status st = file_exists(path) ? file_read(path, CFG_LIMIT, &bytes, &n) : STATUS_OK;
    if (st == STATUS_OK)
        st = str_add(&run->cfg, bytes == NULL ? "" : bytes, n);
    mem_free(bytes);
    mem_free(path);
    return leave_out(run, st);
}

static enum status read_table(struct run_folder *run)
{
    static const char *const names[] = {"oof.h5", "eval.h5"};
    for (int i = 0; i < 2 && !run->has_table; i++) {
        char *path;
        TRY(path_join(run->path, names[i], &path));
        enum status st = STATUS_OK;
        if (file_exists(path)) {
            st = table_open(path, &run->table);
            run->has_table = st == STATUS_OK && run->table.n > 0;
            if (!run->has_table)
                table_close(&run->table);
        }
        mem_free(path);
        TRY(leave_out(run, st));
        run->of_train = i == 0 || run->config->data.eval[0] == '\0';
    }
    return STATUS_OK;
}

/* ---- data ---- */

/* Open the prepared file at path if it is the one with this content. */
static bool open_data(const char *path, uint64_t content, struct dataset **out)
{
    const struct dataset_opts opts = {.path = path, .max_length = RUN_FOLDER_UNCUT};
    struct dataset_info info;
    if (!file_exists(path) || file_is_folder(path) || dataset_open(&opts, out) != STATUS_OK)
        return false;
    dataset_get_info(*out, &info);
    if (info.content_hash == content)
        return true;
    dataset_close(*out);
    *out = NULL;
    return false;
}

static enum status search_cache(const char *cache, uint64_t content, struct dataset **out)
{
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    if (!file_is_folder(cache))
        return STATUS_OK;
    TRY(folder_list(cache, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK && *out == NULL; i++) {
        char *path;
        size_t n = strlen(names[i]);
        if (n < 4 || strcmp(names[i] + n - 3, ".h5") != 0)
            continue;
        st = path_join(cache, names[i], &path);
        if (st == STATUS_OK)
            (void)open_data(path, content, out);
        mem_free(path);
    }
    folder_list_free(names, count);
    return st;
}

/*
 * The prepared file of data.train or data.eval, found by the content that the manifest names: the
 * file itself, or in data.cache, or in the run's own cache.
 */
static enum status find_data(struct run_folder *run, const char *hash, const char *named,
                             struct dataset **out)
{
    uint64_t content;
    char *cache = NULL;
    if (json_object_get(run->manifest, hash) == NULL ||
        json_get_hex64(run->manifest, hash, "manifest.json", &content) != STATUS_OK || content == 0)
        return STATUS_OK;
    if (named[0] != '\0' && open_data(named, content, out))
        return STATUS_OK;
    enum status st = STATUS_OK;
    if (run->config->data.cache[0] != '\0')
        st = search_cache(run->config->data.cache, content, out);
    if (st == STATUS_OK && *out == NULL)
        st = path_join(run->path, "data", &cache);
    if (st == STATUS_OK && *out == NULL)
        st = search_cache(cache, content, out);
    mem_free(cache);
    return st;
}

static enum status read_data(struct run_folder *run)
{
    struct dataset_info info;
    TRY(leave_out(run, find_data(run, "data", run->config->data.train, &run->train)));
    run->scored = run->train;
    if (!run->of_train) {
        run->scored = NULL;
        TRY(leave_out(run, find_data(run, "eval_data", run->config->data.eval, &run->scored)));
    }
    if (run->scored == NULL || !run->has_table)
        return STATUS_OK;
    dataset_get_info(run->scored, &info);
    for (int64_t i = 0; i < run->table.n; i++) {
        if (run->table.row[i] < info.rows)
            continue;
        if (run->scored != run->train)
            dataset_close(run->scored);
        run->scored = NULL;
        return str_addf(&run->note, "\nrow %lld was scored, but its data has %lld rows",
                        (long long)run->table.row[i], (long long)info.rows);
    }
    return STATUS_OK;
}

/* ---- the folder ---- */

static bool is_run(const struct run_folder *run)
{
    return run->results != NULL || run->cfg.n > 0 || run->trials > 0;
}

enum status run_folder_open(const char *path, const struct run_config *config,
                            struct run_folder *out)
{
    enum status st = STATUS_OK;
    *out = (struct run_folder){.config = config};
    if (!file_is_folder(path))
        return status_fail(STATUS_NOINPUT, "%s: there is no such folder", path);
    TRY_GOTO(fail, mem_strdup(path, &out->path));
    TRY_GOTO(fail, str_add(&out->note, "", 0));
    TRY_GOTO(fail, read_cfg(out));
    TRY_GOTO(fail, read_json(out, "results.json", &out->results));
    TRY_GOTO(fail, read_json(out, "manifest.json", &out->manifest));
    TRY_GOTO(fail, read_json(out, "progress.json", &out->progress));
    TRY_GOTO(fail, read_trials(out));
    if (!is_run(out)) {
        st = status_fail(
            STATUS_NOINPUT,
            "%s is not the folder of a run: no run.cfg, results.json or log.jsonl in it", path);
        goto fail;
    }
    TRY_GOTO(fail, read_table(out));
    TRY_GOTO(fail, read_data(out));
    return STATUS_OK;
fail:
    run_folder_close(out);
    return st;
}

void run_folder_close(struct run_folder *run)
{
    for (int i = 0; i < run->trials; i++) {
        mem_free(run->trial[i].name);
        mem_free(run->trial[i].step);
        mem_free(run->trial[i].eval);
    }
    mem_free(run->trial);
    json_decref(run->results);
    json_decref(run->manifest);
    json_decref(run->progress);
    table_close(&run->table);
    if (run->scored != run->train)
        dataset_close(run->scored);
    dataset_close(run->train);
    str_release(&run->cfg);
    str_release(&run->note);
    mem_free(run->path);
    *run = (struct run_folder){0};
}
