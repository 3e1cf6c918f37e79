/*
 * cmd_report.c - report: one HTML file about a run, or about two runs compared; with watch=true,
 * what a run is doing now, on the terminal.
 *
 * Watching only reads the run's folder, so it can be done from another machine that sees it, begun
 * and ended at any time.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/command.h"
#include "launcher/config.h"
#include "launcher/report_write.h"
#include "report/report.h"
#include "report/run_folder.h"

enum { JSON_LIMIT = 64 << 20, TAIL = 1 << 16, SHOWN = 20, LOOK_MS = 500 };
static const double PAGE_S = 30.0, LINE_S = 10.0;

/* ---- comparing ---- */

static enum status write_comparison(const char *a, const char *b, const char *out)
{
    struct run_config *config = NULL;
    struct str page = {0}, difference = {0};
    char *path = NULL;
    enum status st = mem_alloc(2, sizeof *config, "configurations", &config);
    if (st == STATUS_OK)
        st = report_config(a, &config[0]);
    if (st == STATUS_OK)
        st = report_config(b, &config[1]);
    if (st == STATUS_OK)
        st = config_difference(&config[0], &config[1], &difference);
    if (st == STATUS_OK)
        st = report_comparison(&(struct report_run){.folder = a, .config = &config[0]},
                               &(struct report_run){.folder = b, .config = &config[1]},
                               difference.p == NULL ? "" : difference.p, &page);
    if (st == STATUS_OK)
        st = out[0] == '\0' ? path_join(b, "compare.html", &path) : mem_strdup(out, &path);
    if (st == STATUS_OK)
        st = session_write(path, page.p, page.n);
    if (st == STATUS_OK && strcmp(path, "-") != 0)
        log_info("comparison: %s", path);
    str_release(&page);
    str_release(&difference);
    mem_free(path);
    mem_free(config);
    return st;
}

/* ---- watching ---- */

static const char *left_text(double seconds, char out[32])
{
    if (isnan(seconds))
        (void)snprintf(out, 32, "?");
    else if (seconds >= 3600.0)
        (void)snprintf(out, 32, "%.0fh %02.0fm", floor(seconds / 3600.0),
                       floor(fmod(seconds, 3600.0) / 60.0));
    else
        (void)snprintf(out, 32, "%.0fm %02.0fs", floor(seconds / 60.0), floor(fmod(seconds, 60.0)));
    return out;
}

static enum status show_trial(const json_t *trial, struct str *out)
{
    char left[32];
    const char *name = json_text_at(trial, "name");
    double step = json_number_at(trial, "step"), steps = json_number_at(trial, "steps");
    if (strcmp(json_text_at(trial, "state"), "running") != 0 || !(steps > 0.0))
        return STATUS_OK;
    return str_addf(out, "%-24.60s step %.0f/%.0f  loss %.4f  %.0f tokens/s  %s left\n",
                    name[0] == '\0' ? "run" : name, step, steps, json_number_at(trial, "loss"),
                    json_number_at(trial, "tokens_per_s"),
                    left_text(json_number_at(trial, "seconds_left"), left));
}

/* Of progress.json: the trials that run now, and how many there are. */
static enum status show_trials(const json_t *progress, struct str *out)
{
    const json_t *trials = json_object_get(progress, "trial");
    char left[32];
    size_t before = 0, shown = 0;
    for (size_t i = 0; i < json_array_size(trials) && shown < SHOWN; i++) {
        TRY(show_trial(json_array_get(trials, i), out));
        shown += out->n > before;
        before = out->n;
    }
    return str_addf(out, "%.0f of %.0f trials have ended, %s left",
                    json_number_at(progress, "finished"), json_number_at(progress, "trials"),
                    left_text(json_number_at(progress, "seconds_left"), left));
}

/* Of the last line about a step in log.jsonl. */
static enum status show_log(const char *folder, struct str *out)
{
    char *path, *tail = NULL;
    int64_t size = 0;
    FILE *file = NULL;
    json_t *last = NULL;
    enum status st = STATUS_OK;
    TRY(path_join(folder, "log.jsonl", &path));
    TRY_GOTO(done, mem_alloc(TAIL + 1, 1, "the end of a log", &tail));
    file = fopen(path, "re");
    if (file == NULL || file_size(path, &size) != STATUS_OK)
        goto done;
    (void)fseeko(file, size > TAIL ? size - TAIL : 0, SEEK_SET);
    size_t n = fread(tail, 1, TAIL, file);
    for (size_t from = 0; from < n;) {
        const char *end = memchr(tail + from, '\n', n - from);
        if (end == NULL)
            break;
        size_t length = (size_t)(end - tail) - from;
        json_t *line = json_loadb(tail + from, length, 0, NULL);
        if (strcmp(json_text_at(line, "kind"), "train") == 0) {
            json_decref(last);
            last = json_incref(line);
        }
        json_decref(line);
        from += length + 1;
    }
    if (last != NULL)
        st = str_addf(out, "epoch %.0f  step %.0f  loss %.4f  %.0f tokens/s",
                      json_number_at(last, "epoch"), json_number_at(last, "step"),
                      json_number_at(last, "loss"), json_number_at(last, "tokens_per_s"));
done:
    json_decref(last);
    if (file != NULL)
        (void)fclose(file);
    mem_free(tail);
    mem_free(path);
    return st;
}

/* What is said of the run now. A file that is just being replaced is looked at again next time. */
static enum status look(const char *folder, struct str *out)
{
    char *path;
    json_t *progress = NULL;
    str_clear(out);
    TRY(str_add(out, "", 0));
    TRY(path_join(folder, "progress.json", &path));
    enum status st = STATUS_OK;
    if (file_exists(path) && json_read_file(path, JSON_LIMIT, &progress) == STATUS_OK)
        st = show_trials(progress, out);
    if (st == STATUS_OK && out->n == 0)
        st = show_log(folder, out);
    if (st == STATUS_OK && out->n == 0)
        st = str_addf(out, "%s: nothing is trained yet", folder);
    json_decref(progress);
    mem_free(path);
    return st;
}

static void say(const struct str *text, const struct str *before, double *said)
{
    if (log_is_terminal()) {
        log_progress("%s", text->p);
    } else if (clock_s() - *said >= LINE_S &&
               (before->n != text->n || before->p == NULL || strcmp(before->p, text->p) != 0)) {
        const char *last = strrchr(text->p, '\n'); /* for all trials */
        log_info("%s", last == NULL ? text->p : last + 1);
        *said = clock_s();
    }
}

/* Show the run in folder until it has ended. */
static enum status watch(const char *folder, const char *out)
{
    const struct timespec pause = {0, LOOK_MS * 1000000L};
    char *results = NULL;
    struct str text = {0}, before = {0};
    double said = -LINE_S, written = -PAGE_S;
    enum status st = path_join(folder, "results.json", &results);
    if (st == STATUS_OK && !file_is_folder(folder))
        st = status_fail(STATUS_NOINPUT, "%s: there is no such folder", folder);
    while (st == STATUS_OK && !file_exists(results)) {
        st = look(folder, &text);
        if (st != STATUS_OK)
            break;
        say(&text, &before, &said);
        str_clear(&before);
        st = str_add(&before, text.p, text.n);
        if (clock_s() - written >= PAGE_S) {
            enum status page = report_write(folder, out);
            if (page == STATUS_OK)
                log_line(LOG_DEBUG, "%s/report.html is written anew", folder);
            written = clock_s();
        }
        comm_mark(-1, "watching");
        (void)nanosleep(&pause, NULL);
    }
    if (log_is_terminal())
        log_progress("%s", "");
    str_release(&text);
    str_release(&before);
    mem_free(results);
    return st;
}

/* ---- the command ---- */

static enum status say_score(const char *folder)
{
    char *path;
    json_t *results = NULL;
    TRY(path_join(folder, "results.json", &path));
    if (file_exists(path) && json_read_file(path, JSON_LIMIT, &results) == STATUS_OK) {
        double score = json_number_at(results, "score");
        const char *metric = json_text_at(results, "metric");
        if (isnan(score))
            log_info("%s: %s undefined", folder, metric);
        else
            log_info("%s: %s %.4f", folder, metric, score);
    }
    json_decref(results);
    mem_free(path);
    return STATUS_OK;
}

static enum status report_one(const struct run_config *config, const char *folder)
{
    const char *out = config->out[0] == '\0' ? NULL : config->out;
    if (config->watch)
        TRY(watch(folder, out));
    TRY(report_write(folder, out));
    if (out != NULL && strcmp(out, "-") == 0)
        return STATUS_OK;
    TRY(say_score(folder));
    log_info("report: %s%s", out == NULL ? folder : out, out == NULL ? "/report.html" : "");
    return STATUS_OK;
}

enum status command_report(struct session *session)
{
    const struct run_config *config = &session->config;
    enum status st = STATUS_OK;
    if (session->verb == NULL)
        st = status_fail(STATUS_USAGE, "report wants the folder of a run, or of two: cohort report "
                                       "runs/a [runs/b]");
    else if (session->word_count > 0 && config->watch)
        st = status_fail(STATUS_USAGE, "watch=true shows one run, not two");
    else if (comm_rank(session->world) == 0)
        st = session->word_count == 0
                 ? report_one(config, session->verb)
                 : write_comparison(session->verb, session->words[0], config->out);
    return comm_agree(session->world, st);
}
