/* schedule.c - see schedule.h. */
#include "launcher/schedule.h"

#include <math.h>

#include "base/mem.h"

/* Settings that compete with each other: all of them, or those inside one outer fold. */
struct bracket {
    int rung;    /* that its trials run to next */
    bool *alive; /* (settings) */
};

struct schedule {
    struct schedule_opts opts;
    int trials, brackets;
    struct schedule_trial *trial;
    struct bracket *bracket;
    bool *alive;   /* (brackets, settings) */
    bool *retired; /* (groups) */
    double *mean;  /* (settings), while settings are ranked */
    int *place;    /* (settings): how many come before it */
    bool stopped;
};

/* ---- trials and their places ---- */

static int inner_trials(const struct schedule_opts *opts)
{
    return opts->settings * opts->inner_folds;
}

/* Trials of one (repeat, fold). */
static int per_fold(const struct schedule_opts *opts)
{
    return opts->inner_folds > 0 ? inner_trials(opts) + 1 : opts->settings;
}

int schedule_count(const struct schedule_opts *opts)
{
    return opts->repeats * opts->folds * per_fold(opts);
}

void schedule_name(const struct schedule_opts *opts, int index, struct schedule_trial *out)
{
    int in_fold = index % per_fold(opts), fold = index / per_fold(opts);
    bool nested = opts->inner_folds > 0, outer = nested && in_fold == inner_trials(opts);
    *out = (struct schedule_trial){.repeat = fold / opts->folds,
                                   .fold = fold % opts->folds,
                                   .inner = -1,
                                   .group = -1,
                                   .score = NAN};
    out->setting = outer ? -1 : nested ? in_fold / opts->inner_folds : in_fold;
    if (nested && !outer)
        out->inner = in_fold % opts->inner_folds;
    out->state = outer ? TRIAL_BLOCKED : TRIAL_READY;
}

static bool is_outer(const struct schedule *s, int index)
{
    return s->opts.inner_folds > 0 && s->trial[index].inner < 0;
}

static int bracket_of(const struct schedule *s, int index)
{
    return s->opts.inner_folds > 0 ? index / per_fold(&s->opts) : 0;
}

/* Trials [first, end) of a bracket; the outer one is none of them. */
static void bracket_trials(const struct schedule *s, int bracket, int *first, int *end)
{
    bool nested = s->opts.inner_folds > 0;
    *first = nested ? bracket * per_fold(&s->opts) : 0;
    *end = nested ? *first + inner_trials(&s->opts) : s->trials;
}

enum status schedule_open(const struct schedule_opts *opts, struct schedule **out)
{
    struct schedule *s;
    enum status st;
    *out = NULL;
    TRY(mem_alloc(1, sizeof *s, "the schedule", &s));
    s->opts = *opts;
    s->opts.rungs = opts->halving > 0 ? opts->rungs : 0;
    s->trials = schedule_count(opts);
    s->brackets = opts->inner_folds > 0 ? opts->repeats * opts->folds : 1;
    size_t settings = (size_t)opts->settings, brackets = (size_t)s->brackets;
    st = mem_alloc((size_t)s->trials, sizeof *s->trial, "the schedule", &s->trial);
    TRY_GOTO(fail, st);
    TRY_GOTO(fail, mem_alloc(brackets, sizeof *s->bracket, "the schedule", &s->bracket));
    TRY_GOTO(fail, mem_alloc(brackets * settings, sizeof *s->alive, "the schedule", &s->alive));
    TRY_GOTO(fail,
             mem_alloc((size_t)opts->groups, sizeof *s->retired, "the schedule", &s->retired));
    TRY_GOTO(fail, mem_alloc(settings, sizeof *s->mean, "the schedule", &s->mean));
    TRY_GOTO(fail, mem_alloc(settings, sizeof *s->place, "the schedule", &s->place));
    for (int i = 0; i < s->trials; i++) {
        schedule_name(opts, i, &s->trial[i]);
        s->trial[i].work = opts->work[i];
    }
    s->opts.work = NULL;
    for (int b = 0; b < s->brackets; b++) {
        s->bracket[b].alive = s->alive + (size_t)b * settings;
        for (int k = 0; k < opts->settings; k++)
            s->bracket[b].alive[k] = true;
    }
    *out = s;
    return STATUS_OK;
fail:
    schedule_close(s);
    return st;
}

void schedule_close(struct schedule *s)
{
    if (s == NULL)
        return;
    mem_free(s->trial);
    mem_free(s->bracket);
    mem_free(s->alive);
    mem_free(s->retired);
    mem_free(s->mean);
    mem_free(s->place);
    mem_free(s);
}

const struct schedule_trial *schedule_trial(const struct schedule *s, int index)
{
    return &s->trial[index];
}

int schedule_trials(const struct schedule *s)
{
    return s->trials;
}

double schedule_share(const struct schedule *s, int rung)
{
    return rung >= s->opts.rungs ? 1.0 : pow((double)s->opts.halving, rung - s->opts.rungs);
}

/* ---- ranking settings ---- */

/* a before b: a score that is defined before one that is not, the better one, the lower setting. */
static bool before(const struct schedule *s, int a, int b)
{
    double x = s->mean[a], y = s->mean[b];
    if (isnan(x) != isnan(y))
        return isnan(y);
    if (!isnan(x) && x != y)
        return s->opts.higher_is_better ? x > y : x < y;
    return a < b;
}

/* mean[k] of each setting's trials in the bracket, NaN where one is undefined or given up, and
 * place[k] among the settings that are alive. Returns how many are. */
static int rank_settings(struct schedule *s, int bracket)
{
    const bool *alive = s->bracket[bracket].alive;
    int first, end, count = 0;
    bracket_trials(s, bracket, &first, &end);
    for (int k = 0; k < s->opts.settings; k++) {
        int trials = 0;
        double sum = 0.0;
        for (int i = first; i < end; i++) {
            if (s->trial[i].setting != k)
                continue;
            sum += s->trial[i].state == TRIAL_GIVEN_UP ? (double)NAN : s->trial[i].score;
            trials++;
        }
        s->mean[k] = sum / trials;
        count += alive[k];
    }
    for (int k = 0; k < s->opts.settings; k++) {
        s->place[k] = 0;
        for (int j = 0; j < s->opts.settings; j++)
            s->place[k] += alive[j] && j != k && before(s, j, k);
    }
    return count;
}

/* Trials that still run or could. */
static bool bracket_busy(const struct schedule *s, int bracket)
{
    int first, end;
    bracket_trials(s, bracket, &first, &end);
    for (int i = first; i < end; i++) {
        if (s->trial[i].state == TRIAL_READY || s->trial[i].state == TRIAL_RUNNING)
            return true;
    }
    return false;
}

/* All trials of the bracket's rung have arrived: the losers are dropped, the others go on. */
static void decide_rung(struct schedule *s, int bracket)
{
    struct bracket *b = &s->bracket[bracket];
    int first, end, alive = rank_settings(s, bracket);
    int keep = (alive + s->opts.halving - 1) / s->opts.halving;
    bracket_trials(s, bracket, &first, &end);
    for (int k = 0; k < s->opts.settings; k++)
        b->alive[k] = b->alive[k] && s->place[k] < keep;
    for (int i = first; i < end; i++) {
        struct schedule_trial *t = &s->trial[i];
        if (t->state == TRIAL_PAUSED)
            t->state = b->alive[t->setting] ? TRIAL_READY : TRIAL_DROPPED;
    }
    b->rung++;
}

/* The inner trials of an outer fold are done: its outer trial gets the best setting. */
static void choose_setting(struct schedule *s, int bracket)
{
    int first, end;
    bracket_trials(s, bracket, &first, &end);
    struct schedule_trial *outer = &s->trial[end];
    rank_settings(s, bracket);
    for (int k = 0; k < s->opts.settings; k++) {
        bool wins = s->bracket[bracket].alive[k] && s->place[k] == 0;
        if (wins && isnan(s->mean[k])) {
            outer->state = TRIAL_GIVEN_UP;
            outer->failure = STATUS_NUMERIC;
        } else if (wins) {
            outer->setting = k;
            outer->state = TRIAL_READY;
        }
    }
}

/* A trial of the bracket has come to a stop. */
static void look_at_bracket(struct schedule *s, int bracket)
{
    int first, end;
    if (bracket_busy(s, bracket))
        return;
    bracket_trials(s, bracket, &first, &end);
    while (s->bracket[bracket].rung < s->opts.rungs && !bracket_busy(s, bracket))
        decide_rung(s, bracket);
    if (s->opts.inner_folds > 0 && !bracket_busy(s, bracket) &&
        s->trial[end].state == TRIAL_BLOCKED)
        choose_setting(s, bracket);
}

/* ---- what happens to trials ---- */

int schedule_rungs(const struct schedule *s, int index)
{
    return is_outer(s, index) ? 0 : s->opts.rungs;
}

static void arrive(struct schedule *s, int index, double score)
{
    struct schedule_trial *t = &s->trial[index];
    int rungs = schedule_rungs(s, index);
    t->score = score;
    if (t->rungs >= rungs) {
        t->state = TRIAL_FINISHED;
    } else {
        t->rungs++;
        t->state = TRIAL_PAUSED;
    }
    if (!is_outer(s, index))
        look_at_bracket(s, bracket_of(s, index));
}

static void give_up(struct schedule *s, int index)
{
    s->trial[index].state = TRIAL_GIVEN_UP;
    if (!is_outer(s, index))
        look_at_bracket(s, bracket_of(s, index));
}

void schedule_found_rung(struct schedule *s, int index, double score)
{
    if (s->trial[index].state == TRIAL_READY)
        arrive(s, index, score);
}

void schedule_found_end(struct schedule *s, int index, double score)
{
    if (s->trial[index].state != TRIAL_READY)
        return;
    s->trial[index].rungs = schedule_rungs(s, index);
    arrive(s, index, score);
}

void schedule_found_failure(struct schedule *s, int index, enum status failure)
{
    if (s->trial[index].state != TRIAL_READY)
        return;
    s->trial[index].failure = failure;
    give_up(s, index);
}

void schedule_arrived(struct schedule *s, int index, double score)
{
    arrive(s, index, score);
}

bool schedule_is_soft(enum status st)
{
    return st == STATUS_NUMERIC || st == STATUS_NOMEM || st == STATUS_IO;
}

void schedule_failed(struct schedule *s, int index, enum status failure)
{
    struct schedule_trial *t = &s->trial[index];
    t->failure = failure;
    t->failures++;
    if (schedule_is_soft(failure) && t->failures == 1)
        t->state = TRIAL_READY;
    else
        give_up(s, index);
}

void schedule_put_back(struct schedule *s, int index)
{
    s->trial[index].state = TRIAL_READY;
}

void schedule_retire(struct schedule *s, int group)
{
    s->retired[group] = true;
}

void schedule_stop(struct schedule *s)
{
    s->stopped = true;
}

/* ---- handing out ---- */

static double work_left(const struct schedule *s, int index)
{
    const struct schedule_trial *t = &s->trial[index];
    if (schedule_rungs(s, index) == 0)
        return t->work;
    double before_it = t->rungs == 0 ? 0.0 : schedule_share(s, t->rungs - 1);
    return t->work * (schedule_share(s, t->rungs) - before_it);
}

/* A failed trial goes elsewhere, if there is an elsewhere. */
static bool fits(const struct schedule *s, const struct schedule_trial *t, int group)
{
    if (t->failures == 0 || t->group != group)
        return true;
    for (int g = 0; g < s->opts.groups; g++) {
        if (g != group && !s->retired[g])
            return false;
    }
    return true;
}

int schedule_take(struct schedule *s, int group)
{
    int best = SCHEDULE_END;
    double most = -1.0;
    if (s->stopped || s->retired[group])
        return SCHEDULE_END;
    for (int i = 0; i < s->trials; i++) {
        const struct schedule_trial *t = &s->trial[i];
        bool later = t->state == TRIAL_BLOCKED || t->state == TRIAL_RUNNING ||
                     t->state == TRIAL_PAUSED || t->state == TRIAL_READY;
        if (best == SCHEDULE_END && later)
            best = SCHEDULE_WAIT;
        if (t->state == TRIAL_READY && fits(s, t, group) && work_left(s, i) > most) {
            best = i;
            most = work_left(s, i);
        }
    }
    if (best >= 0) {
        s->trial[best].state = TRIAL_RUNNING;
        s->trial[best].group = group;
    }
    return best;
}

/* ---- how many ranks a group has ---- */

static double end_of(int ranks, int n, int trials, const struct schedule_cost *cost)
{
    int groups = ranks / n;
    double rows = (double)((cost->rows + n - 1) / n); /* of the rank that has the most */
    double step = cost->flops / cost->rate * (rows + 1.0) / ((double)cost->rows + 1.0);
    if (n > 1)
        step += 2.0 * (n - 1) / n * cost->bytes / cost->bandwidth + cost->latency * log2((double)n);
    return step * ((trials + groups - 1) / groups);
}

int schedule_group_ranks(int ranks, int trials, const struct schedule_cost *cost)
{
    int best = 1;
    for (int n = 2; n <= ranks; n++) {
        if (ranks % n == 0 && end_of(ranks, n, trials, cost) < end_of(ranks, best, trials, cost))
            best = n;
    }
    return best;
}
