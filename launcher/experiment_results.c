/* experiment_results.c - out-of-fold tables and results.json of a run of several trials. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/experiment.h"
#include "launcher/oof.h"
#include "worker/evaluate.h"

/* The trials behind one score: those of a setting, or the outer ones under nesting. */
struct part {
    int setting; /* -1: outer trials */
    int count;   /* finished */
    int wanted;
    struct outcome *trials; /* (count) */
    int *index;             /* (count) */
    struct oof_scores scores;
    bool scored;
    int rung; /* at which its trials were dropped; -1 */
    bool failed;
};

static void part_release(struct part *part)
{
    for (int i = 0; i < part->count && part->trials != NULL; i++)
        outcome_release(&part->trials[i]);
    mem_free(part->trials);
    mem_free(part->index);
    oof_scores_release(&part->scores);
    *part = (struct part){0};
}

static bool belongs(const struct experiment *e, int index, int setting)
{
    struct schedule_trial t;
    schedule_name(&e->shape, index, &t);
    return t.setting == setting && (setting < 0 || t.inner < 0 || e->shape.inner_folds > 0);
}

/* Load what is finished of a part; e->run is open with a setting whose task is the part's. Outer
 * trials have settings of their own, whose identity is looked up. */
static enum status load_part(struct experiment *e, const struct schedule *s, int setting,
                             struct part *out)
{
    uint64_t own = e->run.identity;
    enum status st = STATUS_OK;
    *out = (struct part){.setting = setting, .rung = -1};
    for (int i = 0; i < e->trials; i++)
        out->wanted += belongs(e, i, setting);
    TRY(mem_alloc((size_t)out->wanted, sizeof *out->trials, "the folds", &out->trials));
    TRY(mem_alloc((size_t)out->wanted, sizeof *out->index, "the folds", &out->index));
    for (int i = 0; i < e->trials && st == STATUS_OK; i++) {
        const struct schedule_trial *t = schedule_trial(s, i);
        char *folder = NULL;
        struct trial_id id;
        bool finished = false;
        if (!belongs(e, i, setting))
            continue;
        out->failed = out->failed || t->state == TRIAL_GIVEN_UP;
        if (t->state == TRIAL_DROPPED)
            out->rung = t->rungs - 1;
        if (t->state != TRIAL_FINISHED)
            continue;
        comm_mark(-1, "results");
        experiment_trial(e, i, &id);
        st = experiment_folder(e, i, &folder);
        e->run.identity = e->identity[t->setting];
        if (st == STATUS_OK)
            st = outcome_load(&e->run, &id, folder, &out->trials[out->count], &finished);
        if (st == STATUS_OK && !finished)
            st = status_fail(
                STATUS_IO,
                "%s/result.json is not there, though the fold was trained; is out on a file "
                "system that all ranks share?",
                folder);
        if (st == STATUS_OK)
            out->index[out->count++] = i;
        mem_free(folder);
    }
    e->run.identity = own;
    return st;
}

static bool whole(const struct part *part)
{
    return part->count == part->wanted && part->count > 0;
}

/* ---- scores of a part ---- */

/* Where the table of a setting goes: out, or setting-<s> in it. */
static enum status part_folder(const struct experiment *e, int setting, char **out)
{
    char name[32];
    if (setting < 0 || e->shape.settings == 1)
        return mem_strdup(e->session->config.out, out);
    (void)snprintf(name, sizeof name, "setting-%d", setting);
    return path_join(e->session->config.out, name, out);
}

/* Without cross-validation: the mean over seeds of the score on the rows that are held out. */
static void score_runs(struct part *part)
{
    part->scores.repeats = 0;
    outcome_mean(part->trials, part->count, &part->scores.mean, &part->scores.std);
    part->scores.score = part->scores.mean;
    part->scores.ci95[0] = part->scores.ci95[1] = NAN;
    part->scored = true;
}

/* Pool, write the table, score. described (may be NULL): what evaluation_json() says. */
static enum status score_part(struct experiment *e, struct part *part, const char *folder,
                              json_t **described)
{
    struct oof oof;
    if (part->count == 0)
        return STATUS_OK;
    if (e->run.folds == 0) {
        score_runs(part);
        return STATUS_OK;
    }
    TRY(oof_pool(&e->run, part->trials, part->count, &oof));
    enum status st = folder_make(folder);
    if (st == STATUS_OK)
        st = oof_write(&e->run, &oof, folder);
    if (st == STATUS_OK)
        st = oof_score(&e->run, &oof, part->trials, part->count, true, &part->scores);
    part->scored = st == STATUS_OK;
    if (st == STATUS_OK && described != NULL)
        st = oof_describe(&e->run, &oof, &part->scores, described);
    oof_release(&oof);
    return st;
}

/* ---- JSON ---- */

static json_t *folds_json(const struct experiment *e, const struct schedule *s,
                          const struct part *part)
{
    json_t *list = json_array();
    for (int i = 0; i < part->count; i++) {
        const struct outcome *o = &part->trials[i];
        json_t *one = json_object();
        if (e->shape.settings > 1)
            (void)json_object_set_new(one, "setting",
                                      json_integer(schedule_trial(s, part->index[i])->setting));
        if (!e->one_repeat)
            (void)json_object_set_new(one, "repeat", json_integer(o->id.repeat));
        if (o->id.fold >= 0)
            (void)json_object_set_new(one, "fold", json_integer(o->id.fold));
        (void)json_object_update_new(
            one, json_pack("{s:o, s:I, s:I, s:I, s:I, s:f}", "score", json_finite(o->score),
                           "best_step", (json_int_t)o->best_step, "rows", (json_int_t)o->rows,
                           "steps", (json_int_t)o->steps, "tokens", (json_int_t)o->tokens,
                           "seconds", o->seconds));
        (void)json_array_append_new(list, one);
    }
    return list;
}

static json_t *values_json(const struct experiment *e, int setting)
{
    const struct run_config *config = &e->session->config;
    json_t *out = json_object();
    for (int k = 0; k < e->search.keys; k++)
        (void)json_object_set_new(out, config->search.key[k].key,
                                  json_string(e->search.setting[setting].values[k]));
    return out;
}

static json_t *setting_json(const struct experiment *e, const struct schedule *s,
                            const struct part *part)
{
    const char *state = whole(part)       ? "finished"
                        : part->failed    ? "failed"
                        : part->rung >= 0 ? "dropped"
                                          : "unfinished";
    json_t *out = json_pack("{s:i, s:o, s:s}", "setting", part->setting, "values",
                            values_json(e, part->setting), "state", state);
    if (part->rung >= 0)
        (void)json_object_set_new(out, "rung", json_integer(part->rung));
    if (part->scored)
        (void)json_object_update_new(
            out,
            json_pack("{s:o, s:o, s:o, s:[o,o]}", "score", json_finite(part->scores.score), "mean",
                      json_finite(part->scores.mean), "std", json_finite(part->scores.std), "ci95",
                      json_finite(part->scores.ci95[0]), json_finite(part->scores.ci95[1])));
    (void)json_object_set_new(out, "folds", folds_json(e, s, part));
    return out;
}

/* "numeric" of STATUS_NUMERIC. */
static json_t *status_word(enum status st)
{
    char word[32];
    const char *name = status_name(st) + strlen("STATUS_");
    size_t n = 0;
    for (; name[n] != '\0' && n + 1 < sizeof word; n++)
        word[n] = (char)(name[n] == '_' ? '_' : name[n] - 'A' + 'a');
    word[n] = '\0';
    return json_string(word);
}

static void add_failed(const struct experiment *e, const struct experiment_end *end,
                       json_t *results)
{
    json_t *list = json_array();
    for (int i = 0; i < e->trials; i++) {
        const struct schedule_trial *t = schedule_trial(end->schedule, i);
        struct trial_id id;
        if (t->state != TRIAL_GIVEN_UP)
            continue;
        experiment_trial(e, i, &id);
        json_t *one = json_object();
        if (e->shape.settings > 1 && t->setting >= 0)
            (void)json_object_set_new(one, "setting", json_integer(t->setting));
        if (!e->one_repeat)
            (void)json_object_set_new(one, "repeat", json_integer(id.repeat));
        if (id.fold >= 0)
            (void)json_object_set_new(one, "fold", json_integer(id.fold));
        if (id.inner >= 0)
            (void)json_object_set_new(one, "inner", json_integer(id.inner));
        (void)json_object_set_new(one, "status", status_word(t->failure));
        if (end->failure[i] != NULL)
            (void)json_object_set_new(one, "sentence", json_string(end->failure[i]));
        (void)json_array_append_new(list, one);
    }
    if (json_array_size(list) > 0)
        (void)json_object_set(results, "failed", list);
    json_decref(list);
}

/* ---- what is said ---- */

static const char *score_text(double score, char out[24])
{
    (void)snprintf(out, 24, isnan(score) ? "undefined" : "%.4f", score);
    return out;
}

static void say_folds(const struct experiment *e, const struct part *part)
{
    const char *metric = metric_name(e->run.task.metric);
    char text[24], low[24];
    const struct oof_scores *s = &part->scores;
    log_info("========== CV ==========");
    log_info("%sfold   rows  %10s  step", e->one_repeat ? "" : "repeat ", metric);
    for (int i = 0; i < part->count && i < 100; i++) {
        char repeat[16] = "";
        if (!e->one_repeat)
            (void)snprintf(repeat, sizeof repeat, "%6d ", part->trials[i].id.repeat);
        log_info("%s%4d %6lld  %10s  %lld", repeat, part->trials[i].id.fold,
                 (long long)part->trials[i].rows, score_text(part->trials[i].score, text),
                 (long long)part->trials[i].best_step);
    }
    if (part->count > 100)
        log_info("... and %d more", part->count - 100);
    if (isnan(s->mean))
        log_info("mean of folds: undefined");
    else
        log_info(isnan(s->std) ? "mean of folds: %.4f" : "mean of folds: %.4f +- %.4f", s->mean,
                 s->std);
    if (isnan(s->score))
        log_info("Score: undefined");
    else
        log_info("Score: %.4f", s->score);
    if (!isnan(s->ci95[0]))
        log_info("95 %% interval of the pooled %s: %s to %s%s", metric,
                 score_text(s->ci95[0], text), score_text(s->ci95[1], low),
                 e->run.config->cv.select == CONFIG_SELECT_BEST ? "  (cv.select=best: optimistic)"
                                                                : "");
}

static void say_settings(const struct experiment *e, const struct part *parts, int best)
{
    char text[24], mean[24], std[24];
    log_info("========== settings ==========");
    log_info("setting  %10s      mean       std  trials", metric_name(e->run.task.metric));
    for (int k = 0; k < e->shape.settings; k++) {
        const struct part *p = &parts[k];
        log_info("%c%6d  %10s  %9s %9s  %d/%d  %s%s", k == best ? '*' : ' ', k,
                 p->scored ? score_text(p->scores.score, text) : "-",
                 p->scored ? score_text(p->scores.mean, mean) : "-",
                 p->scored && !isnan(p->scores.std) ? score_text(p->scores.std, std) : "-",
                 p->count, p->wanted, e->label[k],
                 p->failed      ? "  (failed)"
                 : p->rung >= 0 ? "  (dropped)"
                                : "");
    }
    if (best >= 0 && e->run.folds > 0)
        log_info("the best of %d settings is chosen by the scores it is shown with, which flatters "
                 "it a little; cv.inner_folds does not",
                 e->shape.settings);
}

/* ---- the best setting ---- */

/* Of the settings whose trials are all finished; -1: none. */
static int best_setting(const struct experiment *e, const struct part *parts)
{
    int best = -1;
    for (int k = 0; k < e->shape.settings; k++) {
        if (!whole(&parts[k]) || !parts[k].scored || isnan(parts[k].scores.score))
            continue;
        if (best < 0 ||
            metric_better(e->run.task.metric, parts[k].scores.score, parts[best].scores.score))
            best = k;
    }
    return best;
}

/* How often nested cross-validation has chosen each setting. */
static void add_chosen(const struct experiment *e, const struct schedule *s, json_t *list)
{
    for (int k = 0; k < e->shape.settings; k++) {
        int chosen = 0;
        for (int i = 0; i < e->trials; i++) {
            const struct schedule_trial *t = schedule_trial(s, i);
            chosen += t->inner < 0 && t->setting == k;
        }
        (void)json_array_append_new(list, json_pack("{s:i, s:o, s:i}", "setting", k, "values",
                                                    values_json(e, k), "chosen", chosen));
        log_info("chosen in %d of %d folds: %s", chosen, e->shape.repeats * e->shape.folds,
                 e->label[k]);
    }
}

/* out/best: a link to the weights of the setting that won, for a search without folds. */
static enum status link_best(const struct experiment *e, const struct part *part)
{
    struct str target = {0};
    char *path = NULL;
    int best = 0;
    for (int i = 1; i < part->count; i++) {
        if (metric_better(e->run.task.metric, part->trials[i].score, part->trials[best].score))
            best = i;
    }
    enum status st = experiment_name(e, part->index[best], &target);
    if (st == STATUS_OK)
        st = str_addf(&target, "/best");
    if (st == STATUS_OK)
        st = path_join(e->session->config.out, "best", &path);
    if (st == STATUS_OK) {
        (void)unlink(path); /* what an earlier start has chosen */
        if (symlink(target.p, path) != 0)
            st = status_fail(STATUS_IO, "cannot make the link %s to %s", path, target.p);
        else
            log_info("best weights: %s -> %s", path, target.p);
    }
    mem_free(path);
    str_release(&target);
    return st;
}

/* log.jsonl of the run: the trials' own, in order, each line with its trial. */
static enum status add_log(const struct experiment *e, int index, struct str *text)
{
    struct schedule_trial t;
    struct trial_id id;
    struct str head = {0};
    char *folder = NULL, *path = NULL, *bytes = NULL;
    size_t n;
    enum status st = STATUS_OK;
    schedule_name(&e->shape, index, &t);
    experiment_trial(e, index, &id);
    TRY_GOTO(done, experiment_folder(e, index, &folder));
    TRY_GOTO(done, path_join(folder, "log.jsonl", &path));
    if (!file_exists(path))
        goto done;
    TRY_GOTO(done, str_addf(&head, "{"));
    if (e->shape.settings > 1 && t.setting >= 0)
        TRY_GOTO(done, str_addf(&head, "\"setting\":%d,", t.setting));
    if (!e->one_repeat)
        TRY_GOTO(done, str_addf(&head, "\"repeat\":%d,", id.repeat));
    if (id.fold >= 0)
        TRY_GOTO(done, str_addf(&head, "\"fold\":%d,", id.fold));
    if (id.inner >= 0)
        TRY_GOTO(done, str_addf(&head, "\"inner\":%d,", id.inner));
    TRY_GOTO(done, file_read(path, (size_t)1 << 32, &bytes, &n));
    for (size_t from = 0; from < n;) {
        const char *end = memchr(bytes + from, '\n', n - from);
        size_t length = end == NULL ? n - from : (size_t)(end - bytes) - from;
        if (length > 1)
            TRY_GOTO(done, str_addf(text, "%s%.*s\n", head.p, (int)length - 1, bytes + from + 1));
        from += length + 1;
    }
done:
    mem_free(bytes);
    mem_free(path);
    mem_free(folder);
    str_release(&head);
    return st;
}

static enum status join_logs(const struct experiment *e)
{
    struct str text = {0};
    char *path = NULL;
    enum status st = str_add(&text, "", 0);
    for (int i = 0; i < e->trials && st == STATUS_OK; i++)
        st = add_log(e, i, &text);
    if (st == STATUS_OK)
        st = path_join(e->session->config.out, "log.jsonl", &path);
    if (st == STATUS_OK)
        st = file_write_atomic(path, text.p, text.n);
    mem_free(path);
    str_release(&text);
    return st;
}

/* ---- everything ---- */

struct totals {
    int64_t steps, tokens;
    double seconds; /* one trial after another */
};

static void count_part(const struct part *part, struct totals *totals)
{
    for (int i = 0; i < part->count; i++) {
        totals->steps += part->trials[i].steps;
        totals->tokens += part->trials[i].tokens;
        totals->seconds += part->trials[i].seconds;
    }
}

/* The table that the run is known by: top-level score, folds and out-of-fold scores. Rank 0. */
static enum status add_main(struct experiment *e, const struct schedule *s, struct part *part,
                            json_t *results)
{
    json_t *described = NULL;
    if (e->run.folds == 0) {
        described = task_json(&e->run.task);
        (void)json_object_set_new(described, "score", json_finite(part->scores.score));
        (void)json_object_set_new(described, "mean", json_finite(part->scores.mean));
        (void)json_object_set_new(described, "std", json_finite(part->scores.std));
    } else {
        oof_scores_release(&part->scores);
        TRY(score_part(e, part, e->session->config.out, &described));
        (void)json_object_set_new(results, "oof", oof_json(&e->run, &part->scores));
        say_folds(e, part);
    }
    (void)json_object_update(results, described);
    json_decref(described);
    (void)json_object_set_new(results, "folds", folds_json(e, s, part));
    return STATUS_OK;
}

static enum status nested_results(struct experiment *e, const struct schedule *s, bool leader,
                                  json_t *results, struct totals *totals)
{
    struct part outer = {0};
    enum status st = STATUS_OK;
    if (!leader)
        return STATUS_OK;
    st = load_part(e, s, -1, &outer);
    if (st == STATUS_OK && outer.count > 0)
        st = add_main(e, s, &outer, results);
    if (st == STATUS_OK) {
        json_t *list = json_array();
        add_chosen(e, s, list);
        (void)json_object_set_new(
            results, "search", json_pack("{s:b, s:n, s:o}", "nested", 1, "best", "settings", list));
        count_part(&outer, totals);
    }
    part_release(&outer);
    return st;
}

/* Collective, because another setting may mean another model. */
static enum status settings_results(struct experiment *e, const struct schedule *s, bool leader,
                                    json_t *results, struct totals *totals)
{
    struct comm *world = e->session->world;
    struct part *parts;
    json_t *list = json_array();
    int64_t best = -1;
    enum status st = mem_alloc((size_t)e->shape.settings, sizeof *parts, "settings", &parts);
    TRY_GOTO(done, comm_agree(world, st));
    for (int k = 0; k < e->shape.settings; k++) {
        char *folder = NULL;
        comm_mark(-1, "results");
        TRY_GOTO(done, experiment_use(e, world, k));
        if (leader) {
            st = load_part(e, s, k, &parts[k]);
            if (st == STATUS_OK)
                st = part_folder(e, k, &folder);
            if (st == STATUS_OK)
                st = score_part(e, &parts[k], folder, NULL);
            if (st == STATUS_OK)
                (void)json_array_append_new(list, setting_json(e, s, &parts[k]));
            count_part(&parts[k], totals);
        }
        mem_free(folder);
        TRY_GOTO(done, comm_agree(world, st));
    }
    if (leader)
        best = e->shape.settings == 1 ? 0 : best_setting(e, parts);
    TRY_GOTO(done, comm_broadcast(world, &best, sizeof best, 0));
    if (best >= 0)
        TRY_GOTO(done, experiment_use(e, world, (int)best));
    if (leader && best >= 0 && parts[best].count > 0)
        st = add_main(e, s, &parts[best], results);
    if (leader && st == STATUS_OK && best >= 0 && e->run.folds == 0)
        st = link_best(e, &parts[best]);
    if (leader && st == STATUS_OK && e->shape.settings > 1) {
        say_settings(e, parts, (int)best);
        (void)json_object_set_new(results, "search",
                                  json_pack("{s:b, s:o, s:O}", "nested", 0, "best",
                                            best < 0 ? json_null() : json_integer(best), "settings",
                                            list));
    }
    st = comm_agree(world, st);
done:
    for (int k = 0; k < e->shape.settings && parts != NULL; k++)
        part_release(&parts[k]);
    mem_free(parts);
    json_decref(list);
    return st;
}

enum status experiment_results(struct experiment *e, const struct experiment_end *end,
                               json_t *results)
{
    struct comm *world = e->session->world;
    bool leader = comm_rank(world) == 0;
    struct totals totals = {0};
    enum status st;
    st = e->shape.inner_folds > 0
             ? comm_agree(world, nested_results(e, end->schedule, leader, results, &totals))
             : settings_results(e, end->schedule, leader, results, &totals);
    if (st != STATUS_OK || !leader)
        return comm_agree(world, st);
    json_t *search = json_object_get(results, "search");
    if (search != NULL) {
        json_t *keys = json_array();
        for (int k = 0; k < e->search.keys; k++)
            (void)json_array_append_new(keys, json_string(e->session->config.search.key[k].key));
        (void)json_object_set_new(search, "keys", keys);
        (void)json_object_set_new(
            search, "kind",
            json_string(e->session->config.search.kind == CONFIG_SEARCH_GRID ? "grid" : "random"));
    }
    add_failed(e, end, results);
    (void)json_object_set_new(results, "complete", json_boolean(end->status == STATUS_OK));
    (void)json_object_set_new(results, "train",
                              json_pack("{s:I, s:I, s:f}", "steps", (json_int_t)totals.steps,
                                        "tokens", (json_int_t)totals.tokens, "seconds",
                                        totals.seconds / e->groups));
    st = join_logs(e);
    return comm_agree(world, st);
}
