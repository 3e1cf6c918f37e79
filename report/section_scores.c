/* section_scores.c - what the scores look like: ROC, precision and recall, calibration,
 * distribution, confusions, classes. Of the first repeat, where there are several. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "report/chart.h"
#include "report/format.h"
#include "report/sections.h"
#include "worker/curves.h"

enum {
    CURVES = 6,
    FOLD_CURVES = 12,
    POINTS = 300,
    FOLD_POINTS = 80,
    CAL_BINS = 10,
    BINS = 30,
    AXIS = 64
};

/* ---- curves ---- */

static enum status draw_curve(struct chart *chart, const struct scored *scored, int column,
                              bool roc, int series, bool faint, const char *name)
{
    struct curve curve;
    double *x = NULL, *y = NULL;
    int most = faint ? FOLD_POINTS : POINTS;
    char area[FORMAT_BYTES];
    struct str words = {0};
    enum status st = roc ? curve_roc(scored, column, most, &curve)
                         : curve_pr(scored, column, most, &curve);
    TRY_GOTO(done, st);
    if (curve.count == 0)
        goto done;
    TRY_GOTO(done, mem_alloc_raw((size_t)curve.count, sizeof *x, "a curve", &x));
    TRY_GOTO(done, mem_alloc_raw((size_t)curve.count, sizeof *y, "a curve", &y));
    for (int i = 0; i < curve.count; i++) {
        x[i] = curve.point[i].x;
        y[i] = curve.point[i].y;
    }
    if (name != NULL)
        TRY_GOTO(done, str_addf(&words, "%.40s (%s)", name, format_score(curve.area, area)));
    chart_line(chart, x, y, curve.count, series, faint, words.p);
done:
    curve_release(&curve);
    mem_free(x);
    mem_free(y);
    str_release(&words);
    return st;
}

/* Which classes or labels are drawn: class 1 of two, else those with most rows. */
static int choose_columns(const struct table *t, const struct outline *o, int column[CURVES])
{
    int n = 0;
    if (table_is_binary(t)) {
        column[0] = 1;
        return 1;
    }
    for (int c = 0; c < t->classes; c++) {
        int64_t own = o->values.per_class[c].truth;
        if (n == CURVES && own <= o->values.per_class[column[n - 1]].truth)
            continue;
        int at = n < CURVES ? n++ : n - 1;
        for (; at > 0 && own > o->values.per_class[column[at - 1]].truth; at--)
            column[at] = column[at - 1];
        column[at] = c;
    }
    return n;
}

static enum status fold_curves(struct chart *chart, const struct table *t, bool roc)
{
    int folds = 0;
    for (int64_t i = t->begin[0]; i < t->begin[1]; i++)
        folds = t->fold[i] >= folds && t->fold[i] < FOLD_CURVES ? t->fold[i] + 1 : folds;
    for (int f = 0; f < folds; f++) {
        struct scored scored;
        TRY(table_fold_scored(t, 0, f, &scored));
        enum status st = scored.n == 0 ? STATUS_OK
                                       : draw_curve(chart, &scored, 1, roc, 0, true, NULL);
        table_scored_free(&scored);
        TRY(st);
    }
    return STATUS_OK;
}

static void draw_ranking(struct page *page, const struct table *t, const struct outline *o,
                         const struct scored *scored, bool roc)
{
    int column[CURVES], n = choose_columns(t, o, column);
    bool binary = table_is_binary(t);
    struct chart chart;
    struct chart_opts opts = {
        .title = roc ? "ROC" : "Precision and recall",
        .about = roc ? "How much of a class is found (upwards) for how much of the rest that is "
                       "taken for it (to the right). In parentheses: the area under the curve."
                     : "How many of those that are reported are right (upwards) for how much of a "
                       "class is found (to the right). In parentheses: average precision.",
        .x_label = roc ? "false positive rate" : "recall",
        .y_label = roc ? "true positive rate" : "precision"};
    enum status st = STATUS_OK;
    scale_between(&opts.x, 0.0, 1.0, 5);
    scale_between(&opts.y, 0.0, 1.0, 5);
    chart_begin(&chart, page, &opts);
    if (roc)
        chart_diagonal(&chart);
    else if (binary && scored->n > 0)
        chart_level(&chart, (double)o->values.per_class[1].truth / (double)scored->n, "chance");
    if (binary)
        st = fold_curves(&chart, t, roc);
    for (int i = 0; i < n && st == STATUS_OK; i++)
        st = draw_curve(&chart, scored, column[i], roc, i, false, t->info.names[column[i]]);
    page_note(page, st);
    chart_end(&chart);
}

/* ---- calibration and distribution ---- */

/* Rows by the probability of the class that is predicted: right and wrong ones. */
static void sure_bins(const struct table *t, struct histogram_bin *bars)
{
    for (int i = 0; i < BINS; i++)
        bars[i] = (struct histogram_bin){.low = (double)i / BINS, .high = (i + 1.0) / BINS};
    for (int64_t i = 0; i < t->begin[1]; i++) {
        int at = (int)ceil(table_sure(t, i) * BINS) - 1;
        at = at < 0 ? 0 : at < BINS ? at : BINS - 1;
        bars[at].positives += table_right(t, i);
        bars[at].negatives += !table_right(t, i);
    }
}

/* All labels of several together; else class 1 of two, or the predicted class. */
static enum status add_bins(const struct table *t, const struct scored *scored,
                            struct calibration_bin *bin, struct histogram_bin *bars)
{
    struct calibration_bin own[CAL_BINS];
    struct histogram_bin own_bars[BINS];
    int columns = t->task == TASK_MULTI_LABEL ? t->classes : 1;
    double sum[CAL_BINS] = {0.0};
    for (int c = 0; c < columns; c++) {
        int column = t->task == TASK_MULTI_LABEL ? c : table_is_binary(t) ? 1 : -1;
        TRY(curve_calibration(scored, column, CAL_BINS, own));
        if (column < 0)
            sure_bins(t, own_bars);
        else
            TRY(curve_histogram(scored, column, BINS, own_bars));
        for (int i = 0; i < CAL_BINS; i++) {
            sum[i] += own[i].rows > 0 ? own[i].probability * (double)own[i].rows : 0.0;
            own[i].rows += c > 0 ? bin[i].rows : 0;
            own[i].right += c > 0 ? bin[i].right : 0;
            bin[i] = own[i];
        }
        for (int i = 0; i < BINS; i++) {
            own_bars[i].positives += c > 0 ? bars[i].positives : 0;
            own_bars[i].negatives += c > 0 ? bars[i].negatives : 0;
            bars[i] = own_bars[i];
        }
    }
    for (int i = 0; i < CAL_BINS; i++)
        bin[i].probability = bin[i].rows > 0 ? sum[i] / (double)bin[i].rows : NAN;
    return STATUS_OK;
}

/* What the axis of probabilities says. */
static const char *what_probability(const struct table *t, char text[AXIS])
{
    if (!table_is_binary(t))
        return t->task == TASK_MULTI_LABEL ? "probability of a label"
                                           : "probability of the predicted class";
    int n = snprintf(text, AXIS, "probability of \"%.24s", t->info.names[1]);
    text[utf8_valid_prefix(text, (size_t)n)] = '\0';
    (void)strcat(text, "\"");
    return text;
}

static void draw_calibration(struct page *page, const struct table *t, const struct outline *o,
                             const struct calibration_bin *bin)
{
    struct chart chart;
    struct str about = {0};
    char text[FORMAT_BYTES], axis[AXIS];
    double x[CAL_BINS], y[CAL_BINS];
    int n = 0;
    page_note(page,
              str_addf(&about, "How often what was predicted with a probability came true, in "
                               "tenths, with 95 %% intervals. On the diagonal probabilities "
                               "are honest; below it they are too high."));
    if (o->values.of_task[METRIC_ECE])
        page_note(page, str_addf(&about, " Expected calibration error: %s.",
                                 format_score(o->values.value[METRIC_ECE], text)));
    struct chart_opts opts = {.title = "Calibration",
                              .about = about.p,
                              .x_label = what_probability(t, axis),
                              .y_label = "share that came true"};
    scale_between(&opts.x, 0.0, 1.0, 5);
    scale_between(&opts.y, 0.0, 1.0, 5);
    chart_begin(&chart, page, &opts);
    chart_diagonal(&chart);
    for (int i = 0; i < CAL_BINS; i++) {
        double low, high;
        if (bin[i].rows == 0)
            continue;
        share_interval(bin[i].right, bin[i].rows, &low, &high);
        x[n] = bin[i].probability;
        y[n] = (double)bin[i].right / (double)bin[i].rows;
        chart_whisker(&chart, x[n++], low, high, 0);
    }
    chart_line(&chart, x, y, n, 0, false, "came true");
    chart_dots(&chart, x, y, n, 3.5, 0, NULL);
    chart_end(&chart);
    str_release(&about);
}

static void draw_histogram(struct page *page, const struct table *t,
                           const struct histogram_bin *bars)
{
    struct chart chart;
    struct str name[2] = {{0}};
    char axis[AXIS];
    double edge[BINS + 1], value[2][BINS], most = 0.0, most_share;
    bool binary = table_is_binary(t);
    for (int i = 0; i < BINS; i++) {
        edge[i] = bars[i].low;
        edge[i + 1] = bars[i].high;
        value[0][i] = (double)bars[i].negatives;
        value[1][i] = (double)bars[i].positives;
        most = fmax(most, fmax(value[0][i], value[1][i]));
    }
    most_share = most;
    for (int k = 0; k < 2; k++) {
        if (binary)
            page_note(page, str_addf(&name[k], "%.40s", t->info.names[k]));
        else
            page_note(page, str_addf(&name[k], "%s",
                                     t->task == TASK_MULTI_LABEL
                                         ? (k ? "label is true" : "label is false")
                                         : (k ? "right" : "wrong")));
    }
    struct chart_opts opts = {.title = "Distribution of scores",
                              .about = "Rows by probability; counts on a logarithmic scale.",
                              .x_label = what_probability(t, axis),
                              .y_label = t->task == TASK_MULTI_LABEL ? "rows and labels" : "rows"};
    scale_between(&opts.x, 0.0, 1.0, 5);
    scale_counts(&opts.y, most_share);
    chart_begin(&chart, page, &opts);
    for (int k = 0; k < 2; k++)
        chart_steps(&chart, edge, value[k], BINS, k, name[k].p == NULL ? "" : name[k].p);
    chart_end(&chart);
    str_release(&name[0]);
    str_release(&name[1]);
}

static void draw_probabilities(struct page *page, const struct table *t, const struct outline *o,
                               const struct scored *scored)
{
    struct calibration_bin bin[CAL_BINS];
    struct histogram_bin bars[BINS];
    enum status st = add_bins(t, scored, bin, bars);
    page_note(page, st);
    if (st != STATUS_OK)
        return;
    draw_calibration(page, t, o, bin);
    draw_histogram(page, t, bars);
}

/* ---- regression ---- */

enum { SCATTER = 3000, CELLS = 40 };

static void draw_values(struct page *page, const struct table *t)
{
    struct chart chart;
    int64_t n = t->begin[1];
    double low = INFINITY, high = -INFINITY, *x = NULL, *y = NULL;
    for (int64_t i = 0; i < n; i++) {
        double truth = (double)t->value[i * t->outputs], guess = (double)t->logits[i * t->outputs];
        low = fmin(low, fmin(truth, guess));
        high = fmax(high, fmax(truth, guess));
    }
    struct chart_opts opts = {.title = "Predicted and true values",
                              .about = t->outputs > 1 ? "Of the first of several outputs. On the "
                                                        "diagonal predictions are right."
                                                      : "On the diagonal predictions are right.",
                              .x_label = "true value",
                              .y_label = "predicted"};
    scale_linear(&opts.x, low, high, 5);
    scale_linear(&opts.y, low, high, 5);
    bool cells = n > SCATTER;
    enum status st = mem_alloc((size_t)(cells ? CELLS * CELLS : n), sizeof *x, "a chart", &x);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)n, sizeof *y, "a chart", &y);
    page_note(page, st);
    if (st != STATUS_OK)
        goto done;
    chart_begin(&chart, page, &opts);
    for (int64_t i = 0; i < n; i++) {
        double truth = (double)t->value[i * t->outputs], guess = (double)t->logits[i * t->outputs];
        if (cells) {
            int cx = (int)fmin(CELLS - 1.0, CELLS * scale_at(&opts.x, truth));
            int cy = (int)fmin(CELLS - 1.0, CELLS * scale_at(&opts.y, guess));
            x[cy * CELLS + cx] += 1.0;
        } else {
            x[i] = truth;
            y[i] = guess;
        }
    }
    if (cells)
        chart_cells(&chart, x, CELLS, CELLS, 0);
    else
        chart_dots(&chart, x, y, n, n > 500 ? 1.6 : 2.6, 0, NULL);
    chart_diagonal(&chart);
    chart_end(&chart);
done:
    mem_free(x);
    mem_free(y);
}

static void draw_errors(struct page *page, const struct table *t)
{
    double edge[BINS + 1], value[BINS] = {0.0}, most = 0.0, far = 0.0;
    struct chart chart;
    for (int64_t i = 0; i < t->begin[1]; i++)
        far = fmax(far, fabs((double)t->logits[i * t->outputs] - (double)t->value[i * t->outputs]));
    far = far > 0.0 ? far : 1.0;
    for (int i = 0; i <= BINS; i++)
        edge[i] = far * (2.0 * i / BINS - 1.0);
    for (int64_t i = 0; i < t->begin[1]; i++) {
        double off = (double)t->logits[i * t->outputs] - (double)t->value[i * t->outputs];
        int bin = (int)((off / far + 1.0) / 2.0 * BINS);
        bin = bin < 0 ? 0 : bin < BINS ? bin : BINS - 1;
        most = fmax(most, value[bin] += 1.0);
    }
    struct chart_opts opts = {.title = "Errors",
                              .about = "Prediction less truth, by rows.",
                              .x_label = "error",
                              .y_label = "rows"};
    scale_between(&opts.x, -far, far, 5);
    scale_linear(&opts.y, 0.0, most, 5);
    chart_begin(&chart, page, &opts);
    chart_steps(&chart, edge, value, BINS, 0, NULL);
    chart_end(&chart);
}

/* ---- confusions and classes ---- */

static void confusions_table(struct page *page, const struct table *t, const struct outline *o)
{
    static const char *const heads[] = {"true", "predicted", "#rows", "#of the true ones", NULL};
    struct confusion_cell cell[REPORT_CONFUSIONS];
    char text[FORMAT_BYTES];
    int n;
    curve_confusions(&o->values, REPORT_CONFUSIONS, cell, &n);
    if (n == 0)
        return;
    page_raw(page, "<h3>Most frequent confusions</h3>\n");
    page_table(page, heads);
    for (int i = 0; i < n; i++) {
        double all = (double)o->values.per_class[cell[i].truth].truth;
        page_row(page);
        page_cell_clip(page, t->info.names[cell[i].truth], 60);
        page_cell_clip(page, t->info.names[cell[i].predicted], 60);
        page_cell_count(page, (double)cell[i].rows);
        page_cell_number(page, format_percent((double)cell[i].rows / all, text));
        page_row_end(page);
    }
    page_table_end(page);
}

static void classes_table(struct page *page, const struct table *t, const struct outline *o)
{
    static const char *const heads[] = {"class", "#rows",    "#predicted", "#precision", "#recall",
                                        "#F1",   "#ROC AUC", "#PR AUC",    NULL};
    static const char *const label_heads[] = {"label",      "#rows",   "#predicted",
                                              "#precision", "#recall", "#F1",
                                              "#ROC AUC",   "#PR AUC", NULL};
    page_raw(page, t->task == TASK_MULTI_LABEL ? "<h3>Labels</h3>\n" : "<h3>Classes</h3>\n");
    page_table(page, t->task == TASK_MULTI_LABEL ? label_heads : heads);
    for (int c = 0; c < t->classes && c < REPORT_CLASSES; c++) {
        const struct class_values *v = &o->values.per_class[c];
        page_row(page);
        page_cell_clip(page, t->info.names[c], 60);
        page_cell_count(page, (double)v->truth);
        page_cell_count(page, (double)v->predicted);
        page_cell_score(page, v->precision);
        page_cell_score(page, v->recall);
        page_cell_score(page, v->f1);
        page_cell_score(page, v->roc_auc);
        page_cell_score(page, v->pr_auc);
        page_row_end(page);
    }
    page_table_end(page);
    if (t->classes > REPORT_CLASSES)
        page_rawf(page, "<p class=\"note\">The first %d of %d; results.json has them all.</p>\n",
                  REPORT_CLASSES, t->classes);
}

static void metrics_table(struct page *page, const struct outline *o, const json_t *results)
{
    static const char *const heads[] = {"metric", "#value", "what it says", NULL};
    const json_t *known = json_object_get(results, "metrics");
    page_raw(page, "<details><summary>All metrics</summary>\n");
    page_table(page, heads);
    for (int m = 0; m < METRIC_COUNT; m++) {
        const char *name = metric_name((enum metric)m);
        double value = o->values.value[m];
        if (!o->values.of_task[m])
            continue;
        if (isnan(value)) /* the loss, with its weights, is the trainer's */
            value = json_number_at(known, name);
        page_row(page);
        page_cell(page, metric_title(name));
        page_cell_score(page, value);
        page_raw(page, "<td class=\"text\">");
        page_text(page, metric_meaning(name));
        page_raw(page, "</td>");
        page_row_end(page);
    }
    page_table_end(page);
    page_raw(page, "</details>\n");
}

/* Each metric before, and after what was chosen on the other folds; for temperature, thresholds. */
static void calibration_table(struct page *page, const json_t *results)
{
    static const char *const heads[] = {"chosen on the other folds", "metric", "#as it is",
                                        "#with it", NULL};
    static const char *const parts[] = {"temperature", "thresholds"};
    const json_t *calibration = json_object_get(results, "calibration");
    if (json_object_size(calibration) == 0)
        return;
    page_raw(page, "<h3>Calibration</h3>\n");
    page_table(page, heads);
    for (int k = 0; k < 2; k++) {
        const json_t *part = json_object_get(calibration, parts[k]);
        json_t *before = json_object_get(part, "before"), *after = json_object_get(part, "after"),
               *value;
        const char *name;
        json_object_foreach(before, name, value)
        {
            page_row(page);
            page_cell(page, parts[k]);
            page_cell(page, metric_title(name));
            page_cell_score(page, json_number_at(before, name));
            page_cell_score(page, json_number_at(after, name));
            page_row_end(page);
        }
    }
    page_table_end(page);
    page_note_text(page, "A row's temperature and thresholds come from rows of other folds alone, "
                         "so these scores are not flattered. results.json has those of all rows, "
                         "for use with new texts.");
}

bool section_scores(struct page *page, const struct run_folder *run, const struct outline *o)
{
    const struct table *t = &run->table;
    struct scored scored;
    if (!run->has_table || !o->has_values)
        return false;
    table_scored(t, 0, &scored);
    page_section(page, "scores", "Scores");
    if (t->repeats > 1)
        page_rawf(page, "<p class=\"note\">Of the first of %d repeats.</p>\n", t->repeats);
    page_raw(page, "<div class=\"charts\">\n");
    if (t->task == TASK_REGRESSION) {
        draw_values(page, t);
        draw_errors(page, t);
    } else {
        draw_ranking(page, t, o, &scored, true);
        draw_ranking(page, t, o, &scored, false);
        draw_probabilities(page, t, o, &scored);
    }
    if (o->values.confusion != NULL && t->classes <= REPORT_MATRIX)
        chart_matrix(page, "Confusion",
                     "Rows by true and predicted class; shaded by the share of the true class.",
                     t->info.names, t->classes, o->values.confusion);
    page_raw(page, "</div>\n");
    if (t->task != TASK_REGRESSION && t->classes > CURVES)
        page_rawf(page, "<p class=\"note\">Curves of the %d with most rows, of %d.</p>\n", CURVES,
                  t->classes);
    if (t->task != TASK_REGRESSION)
        classes_table(page, t, o);
    if (o->values.confusion != NULL && t->classes > 2)
        confusions_table(page, t, o);
    calibration_table(page, run->results);
    metrics_table(page, o, run->results);
    page_section_end(page);
    return true;
}
