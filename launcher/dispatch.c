/* dispatch.c - see dispatch.h. */
#include "launcher/dispatch.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#define PLACES_S 0.5 /* between two messages on where a trial stands */

/* One layout for all mail: whole structs between processes of the same executable. */
enum letter_kind { LETTER_OUTCOME, LETTER_PLACE, LETTER_ORDER, LETTER_STOP };
struct letter {
    enum letter_kind kind;
    int trial; /* of an outcome: -1 before the first */
    union {
        struct dispatch_outcome outcome;
        struct trial_place place;
        struct dispatch_order order;
    } of;
};
_Static_assert(sizeof(struct letter) <= COMM_MAIL_BYTES, "a letter is one message");

struct dispatch {
    struct dispatch_opts opts;
    struct comm_mail *mail;
    int world_rank, group_ranks;
    bool leader;
    struct dispatch_order order; /* this group's */
    bool has_order;
    bool *waiting; /* rank 0: (groups) that have asked and got nothing yet */
    int ended;     /* rank 0: groups that have got SCHEDULE_END */
    bool stopping; /* rank 0: a signal stops the run */
    double place_sent;
    enum status failed; /* of mail: brought to the next agreement */
    char sentence[DISPATCH_SENTENCE];
};

static void keep_failure(struct dispatch *d, enum status st)
{
    if (st == STATUS_OK || d->failed != STATUS_OK)
        return;
    d->failed = st;
    (void)snprintf(d->sentence, sizeof d->sentence, "%s", status_message());
}

static void see(const struct dispatch *d, int trial, const struct trial_place *place,
                const struct dispatch_outcome *outcome)
{
    if (d->opts.seen != NULL)
        d->opts.seen(d->opts.arg, trial, place, outcome);
}

/* ---- rank 0 ---- */

static void stop_everyone(struct dispatch *d)
{
    struct letter letter;
    if (d->stopping)
        return;
    d->stopping = true;
    schedule_stop(d->opts.schedule);
    trial_ask_stop();
    memset(&letter, 0, sizeof letter);
    letter.kind = LETTER_STOP;
    for (int g = 0; g < d->opts.groups; g++) {
        if (g != d->opts.own)
            keep_failure(d, comm_mail_send(d->mail, g * d->group_ranks, &letter, sizeof letter));
    }
}

static void take_outcome(struct dispatch *d, int group, int trial,
                         const struct dispatch_outcome *outcome)
{
    struct schedule *s = d->opts.schedule;
    d->waiting[group] = true;
    if (outcome->lost)
        schedule_retire(s, group);
    if (trial < 0)
        return;
    if (outcome->status == STATUS_OK) {
        schedule_arrived(s, trial, outcome->score);
    } else if (outcome->status == STATUS_REQUEUE) {
        schedule_put_back(s, trial);
        stop_everyone(d);
    } else {
        schedule_failed(s, trial, outcome->status);
    }
    see(d, trial, NULL, outcome);
}

/* Work for the groups that wait for it. */
static void hand_out(struct dispatch *d)
{
    for (int g = 0; g < d->opts.groups; g++) {
        struct letter letter;
        if (!d->waiting[g])
            continue;
        int trial = schedule_take(d->opts.schedule, g);
        if (trial == SCHEDULE_WAIT)
            continue;
        memset(&letter, 0, sizeof letter);
        letter.kind = LETTER_ORDER;
        letter.of.order.trial = trial;
        if (trial >= 0) {
            const struct schedule_trial *t = schedule_trial(d->opts.schedule, trial);
            bool last = t->rungs == schedule_rungs(d->opts.schedule, trial);
            letter.of.order.setting = t->setting;
            letter.of.order.rung = t->rungs;
            letter.of.order.until = last ? 1.0 : schedule_share(d->opts.schedule, t->rungs);
            see(d, trial, NULL, NULL);
        }
        d->waiting[g] = false;
        d->ended += trial == SCHEDULE_END;
        if (g != d->opts.own) {
            keep_failure(d, comm_mail_send(d->mail, g * d->group_ranks, &letter, sizeof letter));
        } else {
            d->order = letter.of.order;
            d->has_order = true;
        }
    }
}

/* ---- every leader ---- */

static void open_letter(struct dispatch *d, int from, const struct letter *letter)
{
    switch (letter->kind) {
    case LETTER_OUTCOME:
        take_outcome(d, from / d->group_ranks, letter->trial, &letter->of.outcome);
        break;
    case LETTER_PLACE:
        see(d, letter->trial, &letter->of.place, NULL);
        break;
    case LETTER_ORDER:
        d->order = letter->of.order;
        d->has_order = true;
        break;
    case LETTER_STOP:
        trial_ask_stop();
        break;
    }
}

/* Whatever has arrived; rank 0 then gives out work. Called from comm_mark(). */
static void look(void *arg)
{
    struct dispatch *d = arg;
    struct letter letter;
    int from = 0, n;
    while (from >= 0 && d->failed == STATUS_OK) {
        keep_failure(d, comm_mail_receive(d->mail, &from, &letter, &n));
        if (d->failed == STATUS_OK && from >= 0)
            open_letter(d, from, &letter);
    }
    if (d->world_rank != 0 || d->failed != STATUS_OK)
        return;
    if (trial_stop_asked())
        stop_everyone(d);
    hand_out(d);
}

enum status dispatch_open(const struct dispatch_opts *opts, struct dispatch **out)
{
    struct dispatch *d = NULL;
    enum status st = mem_alloc(1, sizeof *d, "the dispatcher", &d);
    *out = NULL;
    if (st == STATUS_OK)
        st = mem_alloc((size_t)opts->groups, sizeof *d->waiting, "the dispatcher", &d->waiting);
    TRY_GOTO(fail, comm_agree(opts->world, st));
    d->opts = *opts;
    d->world_rank = comm_rank(opts->world);
    d->group_ranks = comm_size(opts->world) / opts->groups;
    d->leader = comm_rank(opts->group) == 0;
    d->order.trial = -1;
    TRY_GOTO(fail, comm_mail_open(opts->world, &d->mail));
    if (d->leader)
        comm_on_mark(look, d);
    *out = d;
    return STATUS_OK;
fail:
    if (d != NULL)
        mem_free(d->waiting);
    mem_free(d);
    return st;
}

void dispatch_close(struct dispatch *d)
{
    if (d == NULL)
        return;
    comm_on_mark(NULL, NULL);
    comm_mail_close(d->mail);
    mem_free(d->waiting);
    mem_free(d);
}

/* The leader's part of dispatch_next(). */
static enum status ask(struct dispatch *d, const struct dispatch_outcome *outcome)
{
    int trial = d->order.trial;
    d->has_order = false;
    if (d->world_rank == 0) {
        take_outcome(d, d->opts.own, trial, outcome);
    } else {
        struct letter letter;
        memset(&letter, 0, sizeof letter);
        letter.kind = LETTER_OUTCOME;
        letter.trial = trial;
        letter.of.outcome = *outcome;
        keep_failure(d, comm_mail_send(d->mail, 0, &letter, sizeof letter));
    }
    while (!d->has_order && d->failed == STATUS_OK)
        comm_idle("waiting for work");
    return d->failed == STATUS_OK ? STATUS_OK : status_fail(d->failed, "%s", d->sentence);
}

enum status dispatch_next(struct dispatch *d, const struct dispatch_outcome *outcome,
                          struct dispatch_order *order)
{
    enum status st = d->leader ? ask(d, outcome) : STATUS_OK;
    TRY(comm_agree(d->opts.group, st));
    TRY(comm_broadcast(d->opts.group, &d->order, sizeof d->order, 0));
    *order = d->order;
    return STATUS_OK;
}

void dispatch_progress(void *arg, const struct trial_place *place)
{
    struct dispatch *d = arg;
    double now = clock_s();
    struct letter letter;
    if (d->world_rank == 0) {
        see(d, d->order.trial, place, NULL);
        return;
    }
    if (now - d->place_sent < PLACES_S)
        return;
    d->place_sent = now;
    memset(&letter, 0, sizeof letter);
    letter.kind = LETTER_PLACE;
    letter.trial = d->order.trial;
    letter.of.place = *place;
    keep_failure(d, comm_mail_send(d->mail, 0, &letter, sizeof letter));
}

enum status dispatch_end(struct dispatch *d)
{
    while (d->world_rank == 0 && d->ended < d->opts.groups && d->failed == STATUS_OK)
        comm_idle("waiting for other groups");
    if (d->failed != STATUS_OK) /* MPI has failed: nobody can be waited for */
        return status_fail(d->failed, "%s", d->sentence);
    return comm_wait(d->opts.world, "waiting for other groups");
}
