/* experiment_run.c - groups take trial after trial until nothing is left; see experiment.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/dispatch.h"
#include "launcher/experiment.h"
#include "launcher/oof.h"
#include "launcher/screen.h"

/* What the ranks of a group share while they run trials. */
struct worker {
    struct experiment *e;
    struct comm *group;
    struct dispatch *dispatch;
    bool leader, alone; /* of its group; one group runs everything */
    /* Rank 0 */
    struct screen *screen;
    struct experiment_end *end;
};

/* ---- what an earlier start has left ---- */

/* Whether there is news of a trial that waits. Rank 0. */
static enum status look_at_trial(const struct experiment *e, struct schedule *s, int i, bool *news)
{
    const struct schedule_trial *t = schedule_trial(s, i);
    int rungs = schedule_rungs(s, i);
    char *folder = NULL;
    double score = NAN;
    bool end = false, rung = false, failed = false;
    struct str name = {0};
    enum status st = STATUS_OK;
    *news = false;
    if (t->state != TRIAL_READY)
        return STATUS_OK;
    uint64_t identity = e->identity[t->setting];
    TRY(experiment_folder(e, i, &folder));
    if (t->rungs == rungs)
        TRY_GOTO(done, outcome_peek(folder, -1, identity, &score, &end));
    else
        TRY_GOTO(done, outcome_peek(folder, t->rungs, identity, &score, &rung));
    if (!end && !rung)
        TRY_GOTO(done, outcome_peek_failure(folder, identity, &failed));
    *news = end || rung || failed;
    if (end) {
        schedule_found_end(s, i, score);
        TRY_GOTO(done, experiment_say(e, i, t->setting, &name));
        log_info("%s is finished already", name.p);
    } else if (rung) {
        schedule_found_rung(s, i, score);
    } else if (failed) {
        schedule_found_failure(s, i, STATUS_NUMERIC);
    }
done:
    str_release(&name);
    mem_free(folder);
    return st;
}

static enum status look_at_folders(const struct experiment *e, struct schedule *s)
{
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < e->trials; i++) {
            bool news;
            comm_mark(-1, "opening");
            TRY(look_at_trial(e, s, i, &news));
            more = more || news;
        }
    }
    return STATUS_OK;
}

/* ---- one trial ---- */

static void say_begin(const struct worker *w, const struct trial_id *id, int index, int setting)
{
    struct str name = {0};
    if (!w->alone)
        return;
    if (w->e->trials == w->e->shape.folds && id->fold >= 0) {
        log_info("========== fold: %d training ==========", id->fold);
        return;
    }
    if (experiment_say(w->e, index, setting, &name) == STATUS_OK)
        log_info("========== %s training ==========", name.p);
    str_release(&name);
}

static void say_result(const struct worker *w, const struct trial_id *id, double score)
{
    if (!w->alone || w->e->trials != w->e->shape.folds || id->fold < 0)
        return;
    log_info("========== fold: %d result ==========", id->fold);
    if (isnan(score))
        log_info("Score: undefined");
    else
        log_info("Score: %.4f", score);
}

/* Leader: what the trial leaves in its folder. */
static enum status save_outcome(struct worker *w, const struct dispatch_order *order,
                                const struct trial_id *id, const struct trial_opts *opts,
                                const struct run_rows *rows, const struct trial_result *result,
                                double *score)
{
    const struct run *run = &w->e->run;
    bool finished;
    if (order->until < 1.0) { /* the weights that it would publish now */
        *score = opts->select_best ? result->best_score : result->last_score;
        return outcome_save_rung(run, opts->folder, order->rung, result, *score);
    }
    TRY(outcome_save(run, id, opts->folder, rows, result));
    return outcome_peek(opts->folder, -1, run->identity, score, &finished);
}

/* Collective on the group. */
static enum status run_trial(struct worker *w, const struct dispatch_order *order,
                             struct dispatch_outcome *outcome)
{
    struct experiment *e = w->e;
    struct run_rows rows = {0};
    struct trial_opts opts;
    struct trial_result result = {0};
    struct trial_id id;
    char *folder = NULL;
    enum status st = STATUS_OK;
    experiment_trial(e, order->trial, &id);
    TRY(experiment_use(e, w->group, order->setting));
    say_begin(w, &id, order->trial, order->setting);
    st = experiment_folder(e, order->trial, &folder);
    if (st == STATUS_OK)
        st = run_rows_make(&e->run, &id, &rows);
    if (st == STATUS_OK) /* class frequencies are of this trial's training rows, not of the rows it
                            is scored on */
        st = task_weigh_classes(&e->run.task, e->run.config->train.class_weights,
                                &e->run.train.targets, rows.train, rows.train_count);
    TRY_GOTO(done, comm_agree(w->group, st));
    run_trial_opts(&e->run, &rows, &id, w->group, folder, &opts);
    opts.until = order->until;
    opts.quiet = !w->alone;
    opts.progress = dispatch_progress;
    opts.progress_arg = w->dispatch;
    TRY_GOTO(done, trial_run(&opts, &result));
    if (w->leader)
        st = save_outcome(w, order, &id, &opts, &rows, &result, &outcome->score);
    outcome->steps = result.steps;
    outcome->seconds = result.seconds;
    if (st == STATUS_OK && w->leader)
        say_result(w, &id, outcome->score);
    st = comm_agree(w->group, st);
done:
    trial_result_release(&result);
    run_rows_free(&rows);
    mem_free(folder);
    return st;
}

/* ---- rank 0 ---- */

/* N16: the score of all rows that finished folds have scored so far; says nothing where it cannot.
 */
static void say_so_far(struct worker *w)
{
    struct experiment *e = w->e;
    struct schedule *s = w->end->schedule;
    struct outcome *trials;
    struct oof oof = {0};
    struct oof_scores scores = {0};
    int finished = 0;
    if (e->run.folds == 0 || e->trials != e->shape.folds || e->trials > 100 ||
        mem_alloc((size_t)e->trials, sizeof *trials, "the folds", &trials) != STATUS_OK)
        return;
    for (int i = 0; i < e->trials; i++) {
        char *folder = NULL;
        struct trial_id id;
        bool done = false;
        experiment_trial(e, i, &id);
        if (schedule_trial(s, i)->state == TRIAL_FINISHED &&
            experiment_folder(e, i, &folder) == STATUS_OK &&
            outcome_load(&e->run, &id, folder, &trials[finished], &done) == STATUS_OK && done)
            finished++;
        mem_free(folder);
    }
    if (finished > 0 && finished < e->trials &&
        oof_pool(&e->run, trials, finished, &oof) == STATUS_OK &&
        oof_score(&e->run, &oof, trials, finished, false, &scores) == STATUS_OK &&
        !isnan(scores.score))
        log_info("out-of-fold %s so far, %d of %d folds: %.4f", metric_name(e->run.task.metric),
                 finished, e->trials, scores.score);
    oof_scores_release(&scores);
    oof_release(&oof);
    for (int i = 0; i < finished; i++)
        outcome_release(&trials[i]);
    mem_free(trials);
}

/* A trial that is given up: its sentence is kept for results.json, and that of a setting that
 * diverges in its folder. */
static void note_failure(struct worker *w, int trial, const struct dispatch_outcome *outcome)
{
    const struct schedule_trial *t = schedule_trial(w->end->schedule, trial);
    char *folder = NULL;
    mem_free(w->end->failure[trial]);
    w->end->failure[trial] = NULL;
    if (mem_strdup(outcome->sentence, &w->end->failure[trial]) != STATUS_OK)
        log_warning("%s", status_message());
    if (t->state != TRIAL_GIVEN_UP || outcome->status != STATUS_NUMERIC ||
        w->e->shape.settings == 1)
        return;
    if (experiment_folder(w->e, trial, &folder) != STATUS_OK ||
        outcome_save_failure(w->e->identity[t->setting], folder, outcome->sentence) != STATUS_OK)
        log_warning("%s", status_message());
    mem_free(folder);
}

static void seen(void *arg, int trial, const struct trial_place *place,
                 const struct dispatch_outcome *outcome)
{
    struct worker *w = arg;
    if (outcome != NULL && outcome->status != STATUS_OK && outcome->status != STATUS_REQUEUE)
        note_failure(w, trial, outcome);
    screen_see(w->screen, trial, place, outcome);
    if (outcome != NULL && outcome->status == STATUS_OK)
        say_so_far(w);
}

static enum status open_rank_0(struct worker *w)
{
    struct experiment *e = w->e;
    struct experiment_end *end = w->end;
    struct schedule_opts opts = e->shape;
    opts.work = e->work;
    TRY(mem_alloc((size_t)e->trials, sizeof *end->failure, "the trials", &end->failure));
    TRY(schedule_open(&opts, &end->schedule));
    TRY(look_at_folders(e, end->schedule));
    return screen_open(e, end->schedule, &w->screen);
}

static void say_shape(const struct experiment *e)
{
    if (e->trials == e->shape.folds)
        log_info("%d fold%s over %d group%s of %d rank%s", e->trials, e->trials == 1 ? "" : "s",
                 e->groups, e->groups == 1 ? "" : "s", e->group_ranks,
                 e->group_ranks == 1 ? "" : "s");
    else
        log_info("%d trials: %d setting%s, %d repeat%s, %d fold%s%s; over %d group%s of %d rank%s",
                 e->trials, e->shape.settings, e->shape.settings == 1 ? "" : "s", e->shape.repeats,
                 e->shape.repeats == 1 ? "" : "s", e->shape.folds, e->shape.folds == 1 ? "" : "s",
                 e->shape.inner_folds > 0 ? ", nested" : "", e->groups, e->groups == 1 ? "" : "s",
                 e->group_ranks, e->group_ranks == 1 ? "" : "s");
}

/* The status of the whole, on rank 0. A setting of several that diverges is a result. */
static enum status verdict(const struct experiment *e, const struct experiment_end *end,
                           bool stopped)
{
    int failed = 0, first = -1, left = 0, settings_lost = 0;
    for (int i = 0; i < e->trials; i++) {
        const struct schedule_trial *t = schedule_trial(end->schedule, i);
        bool diverged = t->failure == STATUS_NUMERIC && e->shape.settings > 1 && t->setting >= 0 &&
                        !(e->shape.inner_folds > 0 && t->inner < 0);
        left += t->state == TRIAL_READY || t->state == TRIAL_RUNNING || t->state == TRIAL_BLOCKED ||
                t->state == TRIAL_PAUSED;
        settings_lost += t->state == TRIAL_GIVEN_UP && diverged;
        if (t->state != TRIAL_GIVEN_UP || diverged)
            continue;
        first = first < 0 ? i : first;
        failed++;
    }
    if (stopped)
        return status_fail(STATUS_REQUEUE,
                           "stopped by a signal with %d of %d trials to go; the same command goes "
                           "on from there",
                           left, e->trials);
    if (settings_lost > 0)
        log_warning("%d trials diverged; their settings are out", settings_lost);
    if (failed > 0 && e->trials == 1)
        return status_fail(schedule_trial(end->schedule, first)->failure, "%s",
                           end->failure[first]);
    if (failed > 0)
        return status_fail(schedule_trial(end->schedule, first)->failure,
                           "%d of %d trials failed; the first: %s", failed, e->trials,
                           end->failure[first] == NULL ? "no setting is left"
                                                       : end->failure[first]);
    if (left > 0)
        return status_fail(STATUS_OS, "%d of %d trials are left, and no group can go on", left,
                           e->trials);
    return STATUS_OK;
}

/* ---- all groups ---- */

/* What failed, and on which of the job's ranks: rank 0 may say it for another group. */
static void keep_sentence(const struct worker *w, struct dispatch_outcome *outcome)
{
    const char *text = status_message();
    bool named = w->alone || strncmp(text, "rank ", 5) == 0;
    int n = named ? snprintf(outcome->sentence, sizeof outcome->sentence, "%s", text)
                  : snprintf(outcome->sentence, sizeof outcome->sentence, "rank %d: %s",
                             comm_rank(w->e->session->world), text);
    (void)n; /* cut at its end it still says what failed */
}

/* Trial after trial, until there is nothing more. */
static enum status work(struct worker *w)
{
    struct dispatch_outcome outcome = {0};
    struct dispatch_order order;
    for (;;) {
        if (dispatch_next(w->dispatch, &outcome, &order) != STATUS_OK)
            comm_abort(status_message(), status_exit_code(STATUS_OS)); /* nobody can be told */
        if (order.trial == SCHEDULE_END)
            return STATUS_OK;
        memset(&outcome, 0, sizeof outcome);
        outcome.status = run_trial(w, &order, &outcome);
        if (comm_broken()) /* main() ends the job */
            return outcome.status;
        outcome.lost = comm_is_lost(w->group);
        if (outcome.status != STATUS_OK)
            keep_sentence(w, &outcome);
    }
}

enum status experiment_run(struct experiment *e, struct experiment_end *end)
{
    struct comm *world = e->session->world;
    int rank = comm_rank(world);
    struct worker w = {.e = e, .end = end, .alone = e->groups == 1};
    enum status st = STATUS_OK;
    *end = (struct experiment_end){0};
    if (rank == 0)
        say_shape(e);
    TRY(comm_group(world, e->group_ranks, &w.group));
    w.leader = comm_rank(w.group) == 0;
    st = session_transport(e->session, w.group);
    if (st == STATUS_OK && rank == 0)
        st = open_rank_0(&w);
    TRY_GOTO(done, comm_agree(world, st));
    struct dispatch_opts opts = {.world = world,
                                 .group = w.group,
                                 .groups = e->groups,
                                 .own = rank / e->group_ranks,
                                 .schedule = rank == 0 ? end->schedule : NULL,
                                 .seen = seen,
                                 .arg = &w};
    TRY_GOTO(done, dispatch_open(&opts, &w.dispatch));
    TRY_GOTO(done, work(&w));
    TRY_GOTO(done, dispatch_end(w.dispatch));
    if (rank == 0) {
        screen_save(w.screen);
        st = verdict(e, end, trial_stop_asked());
    }
    end->status = comm_agree(world, st);
    st = STATUS_OK;
done:
    dispatch_close(w.dispatch);
    screen_close(w.screen);
    comm_group_free(w.group);
    return st;
}

void experiment_end_release(const struct experiment *e, struct experiment_end *end)
{
    for (int i = 0; i < e->trials && end->failure != NULL; i++)
        mem_free(end->failure[i]);
    mem_free(end->failure);
    schedule_close(end->schedule);
    *end = (struct experiment_end){0};
}
