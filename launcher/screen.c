/* screen.c - see screen.h. */
#include "launcher/screen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#define SAVE_S 1.0
#define DRAW_S 0.2
enum { GROUP_LINES = 20, DETAILED = 2000 };

struct screen {
    const struct experiment *e;
    const struct schedule *schedule;
    struct trial_place *place; /* (trials), of those that have run in this start */
    int *at;                   /* (groups) trial that a group works on; -1 */
    int finished_before;       /* before this start */
    double work_done;          /* of this start, ended trials */
    double started, saved, drawn;
    int64_t wall_started;
    bool warned;
};

static int count_state(const struct screen *s, enum trial_state state)
{
    int n = 0;
    for (int i = 0; i < s->e->trials; i++)
        n += schedule_trial(s->schedule, i)->state == state;
    return n;
}

static int ended(const struct screen *s)
{
    return count_state(s, TRIAL_FINISHED) + count_state(s, TRIAL_DROPPED) +
           count_state(s, TRIAL_GIVEN_UP);
}

enum status screen_open(const struct experiment *e, const struct schedule *schedule,
                        struct screen **out)
{
    struct screen *s;
    enum status st;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *s, "the screen", &s));
    s->e = e;
    s->schedule = schedule;
    s->started = clock_s();
    s->wall_started = (int64_t)time(NULL);
    st = mem_alloc((size_t)e->trials, sizeof *s->place, "the screen", &s->place);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)e->groups, sizeof *s->at, "the screen", &s->at);
    if (st != STATUS_OK) {
        screen_close(s);
        return st;
    }
    for (int g = 0; g < e->groups; g++)
        s->at[g] = -1;
    s->finished_before = ended(s);
    *out = s;
    return STATUS_OK;
}

void screen_close(struct screen *screen)
{
    if (screen == NULL)
        return;
    log_progress("%s", "");
    mem_free(screen->place);
    mem_free(screen->at);
    mem_free(screen);
}

/* ---- how long it will take ---- */

static double share_done(const struct screen *s, int trial)
{
    const struct trial_place *place = &s->place[trial];
    return place->steps > 0 ? (double)place->step / (double)place->steps : 0.0;
}

/* By the work that this start has done; trials that may yet be dropped count as whole. NaN: nothing
 * is done. */
static double seconds_left(const struct screen *s)
{
    double done = s->work_done, left = 0.0;
    for (int i = 0; i < s->e->trials; i++) {
        const struct schedule_trial *t = schedule_trial(s->schedule, i);
        double share = share_done(s, i);
        if (t->state == TRIAL_RUNNING)
            done += t->work * share;
        if (t->state == TRIAL_READY || t->state == TRIAL_RUNNING || t->state == TRIAL_BLOCKED ||
            t->state == TRIAL_PAUSED)
            left += t->work * (1.0 - share);
    }
    return done > 0.0 ? left / done * (clock_s() - s->started) : NAN;
}

/* ---- progress.json ---- */

static const char *state_name(enum trial_state state)
{
    static const char *const names[] = {"blocked",  "ready",   "running", "paused",
                                        "finished", "dropped", "failed"};
    return names[state];
}

static json_t *trial_json(const struct screen *s, int index)
{
    const struct schedule_trial *t = schedule_trial(s->schedule, index);
    const struct trial_place *place = &s->place[index];
    struct trial_id id;
    struct str name = {0};
    experiment_trial(s->e, index, &id);
    if (experiment_name(s->e, index, &name) != STATUS_OK)
        return NULL;
    json_t *out = json_pack("{s:s, s:s}", "name", name.p == NULL ? "" : name.p, "state",
                            state_name(t->state));
    str_release(&name);
    if (s->e->shape.settings > 1)
        (void)json_object_set_new(out, "setting",
                                  t->setting < 0 ? json_null() : json_integer(t->setting));
    if (!s->e->one_repeat)
        (void)json_object_set_new(out, "repeat", json_integer(id.repeat));
    if (id.fold >= 0)
        (void)json_object_set_new(out, "fold", json_integer(id.fold));
    if (id.inner >= 0)
        (void)json_object_set_new(out, "inner", json_integer(id.inner));
    if (t->group >= 0)
        (void)json_object_set_new(out, "group", json_integer(t->group));
    if (place->steps > 0)
        (void)json_object_update_new(
            out, json_pack("{s:I, s:I, s:o, s:o, s:o}", "step", (json_int_t)place->step, "steps",
                           (json_int_t)place->steps, "loss", json_finite(place->loss),
                           "tokens_per_s", json_finite(place->tokens_per_s), "seconds_left",
                           json_finite(place->seconds_left)));
    if (t->state == TRIAL_FINISHED || t->rungs > 0)
        (void)json_object_set_new(out, "score", json_finite(t->score));
    return out;
}

static enum status save(const struct screen *s)
{
    char *path = NULL;
    json_t *list = json_array();
    json_t *out = json_pack("{s:s, s:I, s:I, s:i, s:i, s:i, s:o, s:o}", "format", "cohort-progress",
                            "updated", (json_int_t)time(NULL), "started",
                            (json_int_t)s->wall_started, "groups", s->e->groups, "trials",
                            s->e->trials, "finished", ended(s), "seconds_left",
                            json_finite(seconds_left(s)), "trial", list);
    /* Of very many trials, those that have run or run now: the file is written again and again. */
    for (int i = 0; i < s->e->trials; i++) {
        enum trial_state state = schedule_trial(s->schedule, i)->state;
        if (s->e->trials <= DETAILED || state == TRIAL_RUNNING || s->place[i].steps > 0)
            (void)json_array_append_new(list, trial_json(s, i));
    }
    enum status st = path_join(s->e->session->config.out, "progress.json", &path);
    if (st == STATUS_OK)
        st = out == NULL ? status_fail(STATUS_NOMEM, "no memory for %s", path)
                         : json_write_file(path, out);
    json_decref(out);
    mem_free(path);
    return st;
}

void screen_save(struct screen *screen)
{
    screen->saved = clock_s();
    if (save(screen) == STATUS_OK || screen->warned)
        return;
    screen->warned = true;
    log_warning("%s; the run goes on", status_message());
}

/* ---- the terminal ---- */

static const char *duration(double seconds, char out[24])
{
    if (!isfinite(seconds))
        (void)snprintf(out, 24, "?");
    else if (seconds < 3600.0)
        (void)snprintf(out, 24, "%dm %02ds", (int)seconds / 60, (int)seconds % 60);
    else
        (void)snprintf(out, 24, "%dh %02dm", (int)(seconds / 3600.0),
                       (int)fmod(seconds / 60.0, 60.0));
    return out;
}

static enum status draw(struct screen *s)
{
    struct str out = {0};
    char left[24];
    int busy = 0, more = 0;
    enum status st = STATUS_OK;
    for (int g = 0; g < s->e->groups && st == STATUS_OK; g++) {
        int i = s->at[g];
        if (i < 0)
            continue;
        busy++;
        if (busy > GROUP_LINES) {
            more++;
            continue;
        }
        const struct trial_place *place = &s->place[i];
        st = str_addf(&out, "  group %-3d ", g);
        if (st == STATUS_OK)
            st = experiment_say(s->e, i, schedule_trial(s->schedule, i)->setting, &out);
        if (st == STATUS_OK && place->steps > 0)
            st = str_addf(&out, "  step %lld/%lld  loss %.4f  %.0f tokens/s  %s left",
                          (long long)place->step, (long long)place->steps, place->loss,
                          place->tokens_per_s, duration(place->seconds_left, left));
        if (st == STATUS_OK)
            st = str_add(&out, "\n", 1);
    }
    if (st == STATUS_OK && more > 0)
        st = str_addf(&out, "  ... and %d more groups\n", more);
    if (st == STATUS_OK)
        st = str_addf(&out, "%d of %d trials have ended, %d run; %s left", ended(s), s->e->trials,
                      busy, duration(seconds_left(s), left));
    if (st == STATUS_OK)
        log_progress("%s", out.p);
    str_release(&out);
    return st;
}

/* ---- what happens ---- */

static enum status say_end(const struct screen *s, int trial,
                           const struct dispatch_outcome *outcome)
{
    const struct schedule_trial *t = schedule_trial(s->schedule, trial);
    const char *metric = metric_name(s->e->run.task.metric);
    struct str name = {0};
    char score[24], took[24];
    TRY(experiment_say(s->e, trial, t->setting, &name));
    (void)snprintf(score, sizeof score, isnan(outcome->score) ? "undefined" : "%.4f",
                   outcome->score);
    if (outcome->status != STATUS_OK)
        log_warning("%s on group %d: %s%s", name.p, t->group, outcome->sentence,
                    t->state == TRIAL_READY && outcome->status != STATUS_REQUEUE
                        ? "; it is tried again"
                        : "");
    else if (s->e->groups > 1)
        log_info("[%d/%d] %s: %s %s, step %lld, %s, group %d%s", ended(s), s->e->trials, name.p,
                 metric, score, (long long)outcome->steps, duration(outcome->seconds, took),
                 t->group, t->state == TRIAL_FINISHED ? "" : " (rung)");
    else if (t->state != TRIAL_FINISHED)
        log_info("%s: %s %s at step %lld, rung %d", name.p, metric, score,
                 (long long)outcome->steps, t->rungs - 1);
    str_release(&name);
    return STATUS_OK;
}

void screen_see(struct screen *screen, int trial, const struct trial_place *place,
                const struct dispatch_outcome *outcome)
{
    const struct schedule_trial *t = schedule_trial(screen->schedule, trial);
    double now = clock_s();
    bool events = false;
    enum status st = STATUS_OK;
    if (place != NULL) {
        screen->place[trial] = *place;
        events = place->step == place->steps;
    } else if (outcome == NULL) {
        screen->at[t->group] = trial;
    } else {
        screen->at[t->group] = -1;
        if (outcome->status == STATUS_OK)
            screen->work_done += t->work * share_done(screen, trial);
        st = say_end(screen, trial, outcome);
        events = true;
    }
    if (now - screen->saved >= SAVE_S)
        screen_save(screen);
    bool drawn = screen->e->groups > 1 && log_is_terminal();
    if (st == STATUS_OK && drawn && (events || now - screen->drawn >= DRAW_S)) {
        screen->drawn = now;
        st = draw(screen);
    }
    if (st != STATUS_OK && !screen->warned) {
        screen->warned = true;
        log_warning("%s; the run goes on", status_message());
    }
}
