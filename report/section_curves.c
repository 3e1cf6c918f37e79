/* section_curves.c - how training went: loss, score, learning rate, gradients; and progress of a
 * run that goes on. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "report/chart.h"
#include "report/format.h"
#include "report/sections.h"

enum { LINES = 40, NAMED = 12 };

/* Columns of one trial's log, as charts want them. */
struct course {
    int64_t n;
    double *x, *y;
};

static enum status course_make(int64_t room, struct course *out)
{
    *out = (struct course){0};
    TRY(mem_alloc_raw((size_t)room, sizeof *out->x, "a curve", &out->x));
    return mem_alloc_raw((size_t)room, sizeof *out->y, "a curve", &out->y);
}

static void course_release(struct course *course)
{
    mem_free(course->x);
    mem_free(course->y);
}

enum what { LOSS, SMOOTH_LOSS, RATE, HEAD_RATE, NORM, SPEED, EVAL_LOSS, EVAL_SCORE };

static double value_of(const struct log_step *s, enum what what)
{
    switch (what) {
    case LOSS:
    case SMOOTH_LOSS:
        return s->loss;
    case RATE:
        return s->lr;
    case HEAD_RATE:
        return s->head_lr;
    case NORM:
        return s->grad_norm;
    default:
        return s->tokens_per_s;
    }
}

/* A running mean whose weights fall to 1/e over a thirtieth of the points, corrected for its start.
 */
static void smooth(double *y, int64_t n)
{
    double keep = exp(-30.0 / (double)(n > 30 ? n : 30)), sum = 0.0, weight = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(y[i]))
            continue;
        sum = keep * sum + y[i];
        weight = keep * weight + 1.0;
        y[i] = sum / weight;
    }
}

static enum status take(const struct trial_log *trial, enum what what, struct course *out)
{
    bool of_evals = what == EVAL_LOSS || what == EVAL_SCORE;
    int64_t n = of_evals ? trial->evals : trial->steps;
    TRY(course_make(n, out));
    out->n = n;
    for (int64_t i = 0; i < n; i++) {
        out->x[i] = of_evals ? trial->eval[i].step : trial->step[i].step;
        out->y[i] = what == EVAL_LOSS    ? trial->eval[i].loss
                    : what == EVAL_SCORE ? trial->eval[i].score
                                         : value_of(&trial->step[i], what);
    }
    if (what == SMOOTH_LOSS)
        smooth(out->y, n);
    return STATUS_OK;
}

/* ---- which trials ---- */

/* Trials that are drawn: not those inside nested folds, where there are others. */
static int choose(const struct run_folder *run, int chosen[LINES])
{
    int n = 0;
    bool outer = false;
    for (int i = 0; i < run->trials; i++)
        outer = outer || run->trial[i].inner < 0;
    for (int i = 0; i < run->trials && n < LINES; i++) {
        if (!outer || run->trial[i].inner < 0)
            chosen[n++] = i;
    }
    return n;
}

static void widen(const struct course *c, double *low, double *high)
{
    for (int64_t i = 0; i < c->n; i++) {
        if (isfinite(c->y[i])) {
            *low = fmin(*low, c->y[i]);
            *high = fmax(*high, c->y[i]);
        }
    }
}

/* ---- one chart ---- */

struct line {
    enum what what;
    const char *name; /* of a run of one trial; NULL: the trial's */
    int series;       /* of a run of one trial */
    bool faint;
};

struct picture {
    const char *title, *about, *y_label;
    bool from_zero, log;
    struct line line[3];
    int lines;
};

static enum status trial_name(const struct trial_log *trial, struct str *out)
{
    return trial_words(trial->setting, trial->repeat, trial->fold, trial->inner, out);
}

static enum status draw_trial(struct chart *chart, const struct picture *p,
                              const struct trial_log *trial, int at, int n)
{
    struct str name = {0};
    enum status st = trial_name(trial, &name);
    for (int k = 0; k < p->lines && st == STATUS_OK; k++) {
        struct course c;
        const struct line *line = &p->line[k];
        if (n > 4 && line->faint) /* a thicket */
            continue;
        st = take(trial, line->what, &c);
        if (st == STATUS_OK && c.n > 0)
            chart_line(chart, c.x, c.y, c.n, n == 1 ? line->series : at, line->faint,
                       line->faint ? NULL
                       : n == 1    ? line->name
                                   : name.p);
        course_release(&c);
    }
    str_release(&name);
    return st;
}

static enum status range_of(const struct picture *p, const struct run_folder *run,
                            const int *chosen, int n, double *last, double *low, double *high)
{
    *last = 0.0;
    *low = INFINITY;
    *high = -INFINITY;
    for (int i = 0; i < n; i++) {
        const struct trial_log *trial = &run->trial[chosen[i]];
        for (int k = 0; k < p->lines; k++) {
            struct course c;
            if (n > 4 && p->line[k].faint)
                continue;
            enum status st = take(trial, p->line[k].what, &c);
            if (st == STATUS_OK)
                widen(&c, low, high);
            for (int64_t j = 0; j < c.n && st == STATUS_OK; j++)
                *last = fmax(*last, isfinite(c.x[j]) ? c.x[j] : 0.0);
            course_release(&c);
            TRY(st);
        }
    }
    return STATUS_OK;
}

static void draw(struct page *page, const struct picture *p, const struct run_folder *run)
{
    int chosen[LINES], n = choose(run, chosen);
    double last, low, high;
    struct chart chart;
    enum status st = range_of(p, run, chosen, n, &last, &low, &high);
    page_note(page, st);
    if (st != STATUS_OK || !(high >= low))
        return;
    struct chart_opts opts = {.title = p->title,
                              .about = p->about,
                              .x_label = "step",
                              .y_label = p->y_label,
                              .points = n > 4 ? 2000 / n : CHART_POINTS};
    scale_between(&opts.x, 0.0, last, 5);
    if (p->log && low > 0.0 && high > 20.0 * low)
        scale_log(&opts.y, low, high);
    else
        scale_linear(&opts.y, p->from_zero ? fmin(0.0, low) : low, high, 5);
    chart_begin(&chart, page, &opts);
    for (int i = 0; i < n && st == STATUS_OK; i++)
        st = draw_trial(&chart, p, &run->trial[chosen[i]], i, n);
    page_note(page, st);
    chart_end(&chart);
}

static bool any_evals(const struct run_folder *run)
{
    int64_t n = 0;
    for (int i = 0; i < run->trials; i++)
        n += run->trial[i].evals;
    return n > 0;
}

static bool any_head_rate(const struct run_folder *run)
{
    for (int i = 0; i < run->trials; i++) {
        for (int64_t k = 0; k < run->trial[i].steps; k++) {
            if (run->trial[i].step[k].head_lr != run->trial[i].step[k].lr)
                return true;
        }
    }
    return false;
}

bool section_curves(struct page *page, const struct run_folder *run, const struct outline *o)
{
    bool one = run->trials == 1;
    const struct picture loss = {
        "Training loss",
        one ? "Mean loss of a step's rows; strong: a running mean. A training loss that falls "
              "while the evaluation's rises is overfitting."
            : "Running mean of the loss of a step's rows.",
        "loss",
        false,
        false,
        {{LOSS, NULL, 0, true},
         {SMOOTH_LOSS, "training", 0, false},
         {EVAL_LOSS, "evaluation", 1, false}},
        one ? 3 : 2};
    const struct picture eval_loss = {"Evaluation loss",
                                      "Mean loss of the rows that decide, after each evaluation.",
                                      "loss",
                                      false,
                                      false,
                                      {{EVAL_LOSS, "evaluation", 1, false}},
                                      1};
    const struct picture score = {"Score in training",
                                  "On the rows that decide, after each evaluation.",
                                  o->metric_name,
                                  false,
                                  false,
                                  {{EVAL_SCORE, o->metric_name, 1, false}},
                                  1};
    const struct picture rate = {
        "Learning rate",
        NULL,
        "learning rate",
        true,
        false,
        {{RATE, any_head_rate(run) ? "encoder" : "learning rate", 0, false},
         {HEAD_RATE, "head", 1, false}},
        any_head_rate(run) && one ? 2 : 1};
    const struct picture norm = {
        "Gradient norm", "Before clipping.", "norm", true, true, {{NORM, "norm", 0, false}}, 1};
    int64_t steps = 0;
    for (int i = 0; i < run->trials; i++)
        steps += run->trial[i].steps;
    if (steps == 0)
        return false;
    page_section(page, "training", "Learning curves");
    page_raw(page, "<div class=\"charts\">\n");
    draw(page, &loss, run);
    if (any_evals(run)) {
        if (!one)
            draw(page, &eval_loss, run);
        draw(page, &score, run);
    }
    draw(page, &rate, run);
    draw(page, &norm, run);
    page_raw(page, "</div>\n");
    if (run->trials > LINES)
        page_rawf(page, "<p class=\"note\">The first %d of %d trials are drawn.</p>\n", LINES,
                  run->trials);
    page_section_end(page);
    return true;
}

void chart_speed(struct page *page, const struct run_folder *run)
{
    const struct picture speed = {"Throughput",
                                  "Tokens a second of each step, special tokens "
                                  "included, all ranks of the trial together.",
                                  "tokens/s",
                                  true,
                                  false,
                                  {{SPEED, "tokens/s", 0, false}},
                                  1};
    draw(page, &speed, run);
}

/* ---- a run that goes on ---- */

static void progress_row(struct page *page, const json_t *trial)
{
    static const char *const numbers[] = {"step", "steps"};
    char text[FORMAT_BYTES];
    const char *name = json_text_at(trial, "name");
    page_row(page);
    page_cell(page, name[0] == '\0' ? "run" : name);
    page_cell(page, json_text_at(trial, "state"));
    for (int i = 0; i < 2; i++) {
        double value = json_number_at(trial, numbers[i]);
        if (isnan(value))
            page_cell_number(page, "\xE2\x80\x93");
        else
            page_cell_count(page, value);
    }
    page_cell_score(page, json_number_at(trial, "loss"));
    page_cell_number(page, format_short(json_number_at(trial, "tokens_per_s"), text));
    page_cell_seconds(page, json_number_at(trial, "seconds_left"));
    page_cell_score(page, json_number_at(trial, "score"));
    page_row_end(page);
}

bool section_progress(struct page *page, const struct run_folder *run)
{
    static const char *const heads[] = {"trial",     "state", "#step",  "#of", "#loss",
                                        "#tokens/s", "#left", "#score", NULL};
    const json_t *trials = json_object_get(run->progress, "trial");
    size_t n = json_array_size(trials);
    char text[FORMAT_BYTES];
    if (run->results != NULL || n == 0)
        return false;
    page_section(page, "progress", "Progress");
    page_rawf(page, "<p>%.0f of %.0f trials have ended", json_number_at(run->progress, "finished"),
              json_number_at(run->progress, "trials"));
    if (!isnan(json_number_at(run->progress, "seconds_left")))
        page_rawf(page, "; about %s left",
                  format_seconds(json_number_at(run->progress, "seconds_left"), text));
    page_raw(page, ".</p>\n");
    page_table(page, heads);
    for (size_t i = 0; i < n && i < REPORT_TRIALS; i++)
        progress_row(page, json_array_get(trials, i));
    page_table_end(page);
    page_section_end(page);
    return true;
}
