/*
 * baseline_trials.c - regressions of all trials, dealt to the ranks one by one; see baselines.h.
 *
 * A fold's regression has the same bits wherever it is fitted, so any dealing will do. What ranks
 * find travels to rank 0 as one run of bytes each: header, logits, terms, again and again.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "launcher/baselines.h"

/* ---- trials ---- */

static bool wanted_fold(const struct run_config *config, int fold)
{
    bool wanted = config->cv.run_folds_count == 0;
    for (int64_t i = 0; i < config->cv.run_folds_count; i++)
        wanted = wanted || config->cv.run_folds[i] == fold;
    return wanted;
}

enum status baselines_list_trials(struct baselines *b)
{
    const struct run *run = &b->run;
    int folds = run->folds > 0 ? run->folds : 1;
    int repeats = run->folds > 0 ? run->repeats : 1; /* seeds change nothing but folds */
    TRY(mem_alloc((size_t)folds * (size_t)repeats, sizeof *b->trial, "the folds", &b->trial));
    for (int r = 0; r < repeats; r++) {
        for (int k = 0; k < folds; k++) {
            if (run->folds == 0 || wanted_fold(run->config, k))
                b->trial[b->trials++] =
                    (struct trial_id){.repeat = r, .fold = run->folds == 0 ? -1 : k, .inner = -1};
        }
    }
    b->portions = baseline_portions(&run->task);
    return checked_int((int64_t)b->trials * b->portions, "the number of regressions", &folds);
}

/* Rows of one trial, and of the features those that it scores: its own first, then data.test's. */
struct scored_rows {
    struct run_rows rows;
    int64_t *score, score_count;
};

static void scored_rows_free(struct scored_rows *t)
{
    run_rows_free(&t->rows);
    mem_free(t->score);
}

static enum status scored_rows_make(const struct baselines *b, int trial, struct scored_rows *out)
{
    const struct run *run = &b->run;
    int64_t tests = run->test.ds == NULL ? 0 : run->test.info.rows;
    int64_t from = run->train.info.rows, own;
    *out = (struct scored_rows){0};
    TRY(run_rows_make(run, &b->trial[trial], &out->rows));
    own = out->rows.score_count;
    enum status st =
        mem_alloc_raw((size_t)(own + tests), sizeof *out->score, "the rows to score", &out->score);
    if (st != STATUS_OK) {
        scored_rows_free(out);
        return st;
    }
    for (int64_t i = 0; i < own; i++)
        out->score[i] = out->rows.score[i] + (out->rows.select_is_train_data ? 0 : from);
    from += run->eval.ds == NULL ? 0 : run->eval.info.rows;
    for (int64_t i = 0; i < tests; i++)
        out->score[own + i] = from + i;
    out->score_count = own + tests;
    return STATUS_OK;
}

/* ---- fitting ---- */

/* What goes before each portion's logits and terms on their way to rank 0. */
struct header {
    int32_t trial, portion; /* trial: its place in the list */
    struct baseline_report report;
    double seconds;
    int64_t floats, terms; /* of logits; bytes of terms */
};

static enum status pack(struct str *packed, struct header *header, const float *logits,
                        const struct str *terms)
{
    header->terms = (int64_t)terms->n;
    TRY(str_add(packed, (const char *)header, sizeof *header));
    TRY(str_add(packed, (const char *)logits, (size_t)header->floats * sizeof *logits));
    return terms->n == 0 ? STATUS_OK : str_add(packed, terms->p, terms->n);
}

static enum status fit_portion(const struct baselines *b, enum baseline_kind kind,
                               const struct baseline_features *features, int trial, int portion,
                               struct str *packed)
{
    const struct run *run = &b->run;
    struct header header;
    struct scored_rows rows;
    struct str terms = {0};
    float *logits = NULL;
    int first, last;
    double started = clock_s();
    enum status st;
    memset(&header, 0, sizeof header); /* its padding travels, too */
    header.trial = trial;
    header.portion = portion;
    TRY(scored_rows_make(b, trial, &rows));
    baseline_columns(&run->task, portion, &first, &last);
    header.floats = rows.score_count * (last - first);
    const struct baseline_fold part = {.model = kind == BASELINE_TREES ? BASELINE_MODEL_TREES
                                                                       : BASELINE_MODEL_LINEAR,
                                       .config = run->config,
                                       .task = &run->task,
                                       .targets = &run->train.targets,
                                       .train = rows.rows.train,
                                       .train_count = rows.rows.train_count,
                                       .score = rows.score,
                                       .score_count = rows.score_count};
    TRY_GOTO(done, mem_alloc_raw((size_t)header.floats, sizeof *logits, "logits", &logits));
    TRY_GOTO(done, baseline_fit(features, &part, portion, logits, &header.report, &terms));
    header.seconds = clock_s() - started;
    st = pack(packed, &header, logits, &terms);
done:
    scored_rows_free(&rows);
    str_release(&terms);
    mem_free(logits);
    if (st != STATUS_OK && b->trial[trial].fold >= 0)
        return status_prefix(st, "fold %d", b->trial[trial].fold);
    return st;
}

/* ---- on rank 0 ---- */

void baseline_trials_release(struct baseline_trials *t)
{
    for (int i = 0; t->outcome != NULL && i < t->count; i++)
        outcome_release(&t->outcome[i]);
    mem_free(t->outcome);
    str_release(&t->terms);
    *t = (struct baseline_trials){0};
}

static enum status make_room(const struct baselines *b, struct baseline_trials *t)
{
    TRY(mem_alloc((size_t)b->trials, sizeof *t->outcome, "the folds", &t->outcome));
    t->count = b->trials;
    for (int i = 0; i < b->trials; i++) {
        struct outcome *o = &t->outcome[i];
        struct scored_rows rows;
        TRY(scored_rows_make(b, i, &rows));
        o->id = b->trial[i];
        o->rows = rows.score_count;
        o->row = rows.score;
        rows.score = NULL;
        scored_rows_free(&rows);
        TRY(mem_alloc_raw((size_t)o->rows * (size_t)b->run.task.outputs, sizeof *o->logits,
                          "logits", &o->logits));
    }
    return STATUS_OK;
}

static enum status add_terms(struct str *out, const struct run *run, const struct trial_id *id,
                             const char *lines, size_t n)
{
    for (size_t at = 0; at < n;) {
        const char *end = memchr(lines + at, '\n', n - at);
        size_t length = end == NULL ? n - at : (size_t)(end - lines) + 1 - at;
        if (run->folds > 0 && run->repeats > 1)
            TRY(str_addf(out, "%d\t", id->repeat));
        if (id->fold >= 0)
            TRY(str_addf(out, "%d\t", id->fold));
        TRY(str_add(out, lines + at, length));
        at += length;
    }
    return STATUS_OK;
}

/* One portion into its columns; returns the bytes it took. */
static int64_t take_portion(const struct baselines *b, const char *from, struct baseline_trials *t,
                            struct header *header)
{
    int first, last, outputs = b->run.task.outputs;
    memcpy(header, from, sizeof *header);
    baseline_columns(&b->run.task, header->portion, &first, &last);
    struct outcome *o = &t->outcome[header->trial];
    const struct baseline_report *report = &header->report;
    const char *logits = from + sizeof *header;
    size_t line = (size_t)(last - first) * sizeof(float);
    for (int64_t i = 0; i < o->rows; i++)
        memcpy(o->logits + i * outputs + first, logits + (size_t)i * line, line);
    o->seconds += header->seconds;
    if (report->iterations > o->steps)
        o->steps = o->best_step = report->iterations;
    t->least = report->features < t->least ? report->features : t->least;
    t->most = report->features > t->most ? report->features : t->most;
    t->iterations = report->iterations > t->iterations ? report->iterations : t->iterations;
    t->gradient = report->gradient > t->gradient ? report->gradient : t->gradient;
    t->converged = t->converged && report->converged;
    return (int64_t)sizeof *header + header->floats * (int64_t)sizeof(float) + header->terms;
}

static enum status unpack(const struct baselines *b, const char *all, int64_t n,
                          struct baseline_trials *t)
{
    const char **terms = NULL; /* by trial and portion: their place in `all` */
    int64_t *lengths = NULL;
    int units = b->trials * b->portions;
    enum status st;
    TRY_GOTO(done, make_room(b, t));
    TRY_GOTO(done, mem_alloc((size_t)units, sizeof *terms, "the terms", &terms));
    TRY_GOTO(done, mem_alloc((size_t)units, sizeof *lengths, "the terms", &lengths));
    t->converged = true;
    t->least = INT64_MAX;
    for (int64_t at = 0; at < n;) {
        struct header header;
        at += take_portion(b, all + at, t, &header);
        int unit = header.trial * b->portions + header.portion;
        terms[unit] = all + at - header.terms;
        lengths[unit] = header.terms;
    }
    for (int unit = 0; unit < units; unit++)
        TRY_GOTO(done, add_terms(&t->terms, &b->run, &b->trial[unit / b->portions], terms[unit],
                                 (size_t)lengths[unit]));
done:
    mem_free(terms);
    mem_free(lengths);
    return st;
}

/* ---- on all ranks ---- */

static enum status fit_mine(const struct baselines *b, enum baseline_kind kind,
                            const struct baseline_features *features, struct str *packed)
{
    const struct comm *world = b->run.session->world;
    int ranks = comm_size(world), units = b->trials * b->portions;
    enum status st = STATUS_OK;
    for (int unit = comm_rank(world); unit < units && st == STATUS_OK; unit += ranks) {
        st = fit_portion(b, kind, features, unit / b->portions, unit % b->portions, packed);
        log_progress("regression %d of %d", unit + 1, units);
    }
    log_progress("%s", "");
    return st;
}

enum status baselines_fit(const struct baselines *b, enum baseline_kind kind,
                          const struct baseline_features *features, struct baseline_trials *out)
{
    struct comm *world = b->run.session->world;
    struct str packed = {0};
    char *all = NULL;
    int64_t *begin = NULL;
    *out = (struct baseline_trials){0};
    enum status st, mine;
    mine = mem_alloc((size_t)comm_size(world) + 1, sizeof *begin, "the logits", &begin);
    if (mine == STATUS_OK)
        mine = fit_mine(b, kind, features, &packed);
    TRY_GOTO(done, comm_wait(world, "waiting for other regressions"));
    TRY_GOTO(done, comm_agree(world, mine));
    TRY_GOTO(done,
             comm_gather(world, packed.n == 0 ? "" : packed.p, (int64_t)packed.n, 0, &all, begin));
    if (comm_rank(world) == 0)
        st = unpack(b, all, begin[comm_size(world)], out);
    st = comm_agree(world, st);
done:
    if (st != STATUS_OK)
        baseline_trials_release(out);
    str_release(&packed);
    mem_free(begin);
    mem_free(all);
    return st;
}
