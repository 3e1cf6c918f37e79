/*
 * run_folder.c - what a folder named by `out` already holds: nothing, this run, or another; see
 * run.h.
 */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/config.h"
#include "launcher/run.h"

static enum status run_path(const struct run_config *config, const char *name, char **out)
{
    return path_join(config->out, name, out);
}

static bool starts_with(const char *name, const char *start)
{
    return strncmp(name, start, strlen(start)) == 0;
}

/* A level above a trial's files. */
static bool is_level(const char *name)
{
    return starts_with(name, "setting-") || starts_with(name, "repeat-") ||
           starts_with(name, "fold-") || starts_with(name, "inner-");
}

enum status run_folder_remove(const char *folder)
{
    static const char *const own[] = {"best",        "log.jsonl",     "results.json",  "oof.tsv",
                                      "oof.h5",      "manifest.json", "progress.json", "run.lock",
                                      "report.html", "eval.h5",       "eval.tsv",      "terms.tsv"};
    char **names;
    size_t count;
    enum status st = STATUS_OK;
    if (!file_is_folder(folder))
        return STATUS_OK;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        bool ours = starts_with(names[i], "checkpoint-") || is_level(names[i]) ||
                    starts_with(names[i], "best.") || starts_with(names[i], "run.cfg") ||
                    starts_with(names[i], "events.out.tfevents.");
        char *path = NULL;
        for (size_t k = 0; k < sizeof own / sizeof own[0]; k++)
            ours = ours || strcmp(names[i], own[k]) == 0;
        if (!ours)
            continue;
        st = path_join(folder, names[i], &path);
        if (st == STATUS_OK)
            st = folder_remove(path);
        mem_free(path);
    }
    folder_list_free(names, count);
    return st;
}

/*
 * Whether something was trained in folder: a start that was refused (too little memory, a broken
 * model) leaves run.cfg and may be repeated with another configuration, as its sentence advised.
 */
static enum status holds_training(const char *folder, bool *holds)
{
    char **names, *path = NULL;
    size_t count;
    enum status st = STATUS_OK;
    *holds = false;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK && !*holds; i++) {
        int64_t bytes = 0;
        st = path_join(folder, names[i], &path);
        if (st == STATUS_OK && strcmp(names[i], "log.jsonl") == 0)
            st = file_size(path, &bytes);
        if (st == STATUS_OK && is_level(names[i]) && file_is_folder(path))
            st = holds_training(path, holds);
        *holds = *holds || bytes > 0 || starts_with(names[i], "checkpoint-") ||
                 strcmp(names[i], "best") == 0 || strcmp(names[i], "result.json") == 0 ||
                 strcmp(names[i], "results.json") == 0;
        mem_free(path);
        path = NULL;
    }
    folder_list_free(names, count);
    return st;
}

static enum status add_difference(struct str *out, const char *what)
{
    return str_addf(out, "%s%s", out->n == 0 ? "" : ", ", what);
}

/* What the earlier run's manifest says was another: data, model, tokenizer, ranks, precision.
 * Nothing if it is gone. */
static enum status manifest_difference(const struct run *run, struct str *out)
{
    const struct {
        const char *key, *what;
        uint64_t now;
    } hashes[] = {
        {"data", "the content of data.train", run->train.info.content_hash},
        {"eval_data", "the content of data.eval",
         run->eval.ds == NULL ? 0 : run->eval.info.content_hash},
        {"model", "the files in model.path", run->model_hash},
        {"tokenizer", "the tokenizer", run->source.tokenizer_info.hash},
    };
    char *path = NULL;
    json_t *manifest = NULL;
    enum status st = STATUS_OK;
    TRY_GOTO(done, run_path(run->config, "manifest.json", &path));
    if (!file_exists(path))
        goto done;
    TRY_GOTO(done, json_read_file(path, 1 << 20, &manifest));
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0] && st == STATUS_OK; i++) {
        uint64_t then;
        if (json_object_get(manifest, hashes[i].key) == NULL)
            continue;
        TRY_GOTO(done, json_get_hex64(manifest, hashes[i].key, path, &then));
        if (then != hashes[i].now)
            st = add_difference(out, hashes[i].what);
    }
    const char *device =
        json_string_value(json_object_get(json_object_get(manifest, "domain"), "device"));
    if (device != NULL && strcmp(device, device_domain(run->session->device)) != 0)
        log_warning("this run was begun on %s and goes on on %s: its bits will not be those of one "
                    "machine kind",
                    device, device_domain(run->session->device));
    int64_t ranks = json_integer_value(json_object_get(manifest, "group_ranks"));
    if (st == STATUS_OK && run->config->parallel.reproducible != CONFIG_ANY && ranks > 0 &&
        ranks != run->group_ranks)
        st = str_addf(out,
                      "%sthe number of ranks of a trial (%lld, now %d; parallel.reproducible=any "
                      "would allow it)",
                      out->n == 0 ? "" : ", ", (long long)ranks, run->group_ranks);
done:
    json_decref(manifest);
    mem_free(path);
    return st;
}

/* Whether the finished run's results.json has all that is asked now: data.test may be named later.
 */
static bool has_test(const char *results)
{
    json_t *object = NULL;
    bool has = json_read_file(results, (size_t)64 << 20, &object) == STATUS_OK &&
               json_object_get(object, "test") != NULL;
    json_decref(object);
    return has;
}

/* A folder of another trainer is not ours to add to, nor to tidy: every run of ours has run.cfg
 * before a checkpoint. */
static enum status refuse_foreign(const char *folder)
{
    char **names, *path = NULL;
    size_t count;
    enum status st = STATUS_OK;
    if (!file_is_folder(folder))
        return STATUS_OK;
    TRY(folder_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == STATUS_OK; i++) {
        if (!starts_with(names[i], "checkpoint-"))
            continue;
        st = path_join(folder, names[i], &path);
        if (st == STATUS_OK && file_is_folder(path))
            st = status_fail(STATUS_CONFIG,
                             "out=%s holds checkpoints that cohort did not write; give another out",
                             folder);
        mem_free(path);
        path = NULL;
    }
    folder_list_free(names, count);
    return st;
}

/* Whose results the folder holds, as its manifest says; one without a manifest is not looked at. */
static enum status refuse_other_command(const struct run_config *config, const char *command)
{
    char *path = NULL;
    json_t *manifest = NULL;
    const char *format = NULL;
    enum status st = run_path(config, "manifest.json", &path);
    if (st == STATUS_OK && file_exists(path))
        st = json_read_file(path, 1 << 20, &manifest);
    if (st == STATUS_OK)
        format = json_string_value(json_object_get(manifest, "format"));
    if (format != NULL && strncmp(format, "cohort-", 7) == 0 && strcmp(format + 7, command) != 0)
        st = status_fail(STATUS_CONFIG, "out=%s holds a %s, not a %s; give another out",
                         config->out, format + 7, command);
    json_decref(manifest);
    mem_free(path);
    return st;
}

enum status run_folder_look(const struct run *run, const char *command,
                            const struct run_config *asked, bool several, bool *finished)
{
    const struct run_config *config = run->config;
    static struct run_config earlier;
    struct str difference = {0};
    char *cfg = NULL, *results = NULL;
    enum status st = STATUS_OK;
    *finished = false;
    TRY_GOTO(done, run_path(config, "run.cfg", &cfg));
    TRY_GOTO(done, run_path(config, "results.json", &results));
    if (!file_exists(cfg)) {
        st = refuse_foreign(config->out);
        goto done;
    }
    TRY_GOTO(done, refuse_other_command(config, command));
    bool trained;
    TRY_GOTO(done, holds_training(config->out, &trained));
    if (!trained)
        goto done;
    if (config->overwrite)
        goto done;
    if (config->resume == CONFIG_RESUME_NEVER) {
        st = status_fail(STATUS_CONFIG,
                         "out=%s already holds a run and resume=never; give another out, or "
                         "overwrite=true",
                         config->out);
        goto done;
    }
    TRY_GOTO(done, config_load(cfg, NULL, 0, &earlier));
    TRY_GOTO(done, config_difference(&earlier, asked, &difference));
    TRY_GOTO(done, manifest_difference(run, &difference));
    if (st == STATUS_OK && difference.n > 0)
        st = status_fail(STATUS_CONFIG,
                         "out=%s holds a run with another configuration: %s; give another out, or "
                         "overwrite=true",
                         config->out, difference.p);
    *finished = st == STATUS_OK && !several && file_exists(results) &&
                (run->test.ds == NULL || has_test(results));
done:
    str_release(&difference);
    mem_free(cfg);
    mem_free(results);
    return st;
}
