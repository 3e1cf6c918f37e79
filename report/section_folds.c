/* section_folds.c - the trials behind a score, and the settings of a search. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "report/chart.h"
#include "report/format.h"
#include "report/sections.h"

enum { CHART_LINES = 40 };

static int number_or(const json_t *object, const char *key, int fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? (int)json_integer_value(value) : fallback;
}

/* ---- intervals of folds ---- */

/* NaN where the scores are not at hand. */
static enum status fold_interval(const struct run_folder *run, const struct outline *o, int repeat,
                                 int fold, double ci95[2])
{
    struct scored scored;
    ci95[0] = ci95[1] = NAN;
    if (!run->has_table || !o->has_metric || fold < 0 || repeat >= run->table.repeats)
        return STATUS_OK;
    TRY(table_fold_scored(&run->table, repeat, fold, &scored));
    enum status st = STATUS_OK;
    if (scored.n > 1)
        st = metrics_interval(&scored, o->metric, (uint64_t)run->config->seed,
                              resamples_for(run->table.n), ci95);
    table_scored_free(&scored);
    return st;
}

/* ---- the table ---- */

static void fold_row(struct page *page, const struct run_folder *run, const json_t *fold,
                     const struct chart_bar *bar)
{
    double tokens = json_number_at(fold, "tokens"), seconds = json_number_at(fold, "seconds");
    double ranks = json_number_at(run->manifest, "group_ranks");
    char text[FORMAT_BYTES], high[FORMAT_BYTES];
    struct str interval = {0};
    page_row(page);
    page_cell(page, bar->label);
    page_cell_count(page, json_number_at(fold, "rows"));
    page_cell_score(page, bar->value);
    page_note(page, isnan(bar->low) ? str_addf(&interval, "\xE2\x80\x93")
                                    : str_addf(&interval, "%s to %s", format_score(bar->low, text),
                                               format_score(bar->high, high)));
    page_cell_number(page, interval.p == NULL ? "" : interval.p);
    page_cell_count(page, json_number_at(fold, "best_step"));
    page_cell_number(page, format_short(tokens, text));
    page_cell_seconds(page, seconds);
    page_cell_number(page, format_short(tokens / seconds / (ranks > 0.0 ? ranks : 1.0), text));
    page_row_end(page);
    str_release(&interval);
}

static void sum_rows(struct page *page, const struct outline *o)
{
    char a[FORMAT_BYTES], b[FORMAT_BYTES];
    struct str text = {0};
    page_raw(page, "<tr class=\"sum\"><td>mean \xC2\xB1 deviation</td><td></td>");
    page_note(page, str_addf(&text, isnan(o->std) ? "%s" : "%s \xC2\xB1 %s",
                             format_score(o->mean, a), format_score(o->std, b)));
    page_cell_number(page, text.p == NULL ? "" : text.p);
    page_raw(page,
             "<td colspan=\"5\"></td></tr>\n<tr class=\"sum\"><td>all rows together</td><td></td>");
    page_cell_score(page, o->score);
    str_clear(&text);
    page_note(page, isnan(o->low) ? str_addf(&text, "\xE2\x80\x93")
                                  : str_addf(&text, "%s to %s", format_score(o->low, a),
                                             format_score(o->high, b)));
    page_cell_number(page, text.p == NULL ? "" : text.p);
    page_raw(page, "<td colspan=\"4\"></td></tr>\n");
    str_release(&text);
}

static enum status make_bars(const struct run_folder *run, const struct outline *o,
                             const json_t *folds, int n, struct str *label, struct chart_bar *bar)
{
    for (int i = 0; i < n; i++) {
        const json_t *fold = json_array_get(folds, (size_t)i);
        int number = number_or(fold, "fold", -1), repeat = number_or(fold, "repeat", -1);
        double ci95[2];
        TRY(trial_words(number_or(fold, "setting", -1), repeat, number, -1, &label[i]));
        TRY(fold_interval(run, o, repeat < 0 ? 0 : repeat, number, ci95));
        bar[i] = (struct chart_bar){.label = label[i].p,
                                    .value = json_number_at(fold, "score"),
                                    .low = ci95[0],
                                    .high = ci95[1],
                                    .series = repeat < 0 ? 0 : repeat};
    }
    return STATUS_OK;
}

bool section_folds(struct page *page, const struct run_folder *run, const struct outline *o)
{
    static const char *const heads[] = {"fold",       "#rows",   "#score", "#95 % interval",
                                        "#best step", "#tokens", "#time",  "#tokens/s a rank",
                                        NULL};
    const json_t *folds = json_object_get(run->results, "folds");
    size_t all = json_array_size(folds);
    int n = all > REPORT_TRIALS ? REPORT_TRIALS : (int)all;
    struct chart_bar *bar = NULL;
    struct str *label = NULL;
    enum status st;
    if (n == 0)
        return false;
    st = mem_alloc((size_t)n, sizeof *bar, "folds", &bar);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)n, sizeof *label, "folds", &label);
    if (st == STATUS_OK)
        st = make_bars(run, o, folds, n, label, bar);
    page_note(page, st);
    if (st == STATUS_OK) {
        page_section(page, "folds", "Folds");
        page_raw(page, "<div class=\"charts\">\n");
        chart_intervals(page, o->metric_name,
                        "Each fold's score, on the rows that its model was not trained on, with a "
                        "95 % bootstrap interval over these rows; dashed: all rows together.",
                        o->metric_name, bar, n < CHART_LINES ? n : CHART_LINES, o->score, NULL);
        page_raw(page, "</div>\n");
        page_table(page, heads);
        for (int i = 0; i < n; i++)
            fold_row(page, run, json_array_get(folds, (size_t)i), &bar[i]);
        sum_rows(page, o);
        page_table_end(page);
        if (all > (size_t)n)
            page_note_text(page, "Further folds are in results.json.");
        page_note_text(page,
                       "Models of different folds are calibrated differently, so the score of all "
                       "rows together and the mean of the folds may differ.");
        page_section_end(page);
    }
    for (int i = 0; i < n && label != NULL; i++)
        str_release(&label[i]);
    mem_free(label);
    mem_free(bar);
    return true;
}

/* ---- settings ---- */

static enum status setting_label(const json_t *one, struct str *out)
{
    const char *key;
    json_t *value, *values = json_object_get(one, "values");
    TRY(str_add(out, "", 0));
    json_object_foreach(values, key, value)
    {
        const char *text = json_string_value(value);
        TRY(str_addf(out, "%s%s=%s", out->n == 0 ? "" : ", ", key, text == NULL ? "" : text));
    }
    return STATUS_OK;
}

static void setting_row(struct page *page, const json_t *one, const char *label, bool best,
                        bool nested)
{
    char a[FORMAT_BYTES], b[FORMAT_BYTES];
    struct str text = {0};
    page_raw(page, best ? "<tr class=\"best\">" : "<tr>");
    page_rawf(page, "<td class=\"n\">%d</td>", number_or(one, "setting", -1));
    page_raw(page, "<td class=\"value\">");
    page_clip(page, label, strlen(label), 200);
    page_raw(page, best ? " (best)</td>" : "</td>");
    if (nested) {
        page_cell_count(page, (double)number_or(one, "chosen", 0));
    } else {
        double std = json_number_at(one, "std"), low = json_number_at(one, "ci95.0");
        page_cell_score(page, json_number_at(one, "score"));
        page_note(page,
                  str_addf(&text, isnan(std) ? "%s" : "%s \xC2\xB1 %s",
                           format_score(json_number_at(one, "mean"), a), format_score(std, b)));
        page_cell_number(page, text.p == NULL ? "" : text.p);
        str_clear(&text);
        page_note(page, isnan(low) ? str_addf(&text, "\xE2\x80\x93")
                                   : str_addf(&text, "%s to %s", format_score(low, a),
                                              format_score(json_number_at(one, "ci95.1"), b)));
        page_cell_number(page, text.p == NULL ? "" : text.p);
        page_cell_count(page, (double)json_array_size(json_object_get(one, "folds")));
        page_cell(page, json_text_at(one, "state"));
    }
    page_row_end(page);
    str_release(&text);
}

static void settings_table(struct page *page, const json_t *settings, int n, int best, bool nested,
                           const struct str *label)
{
    static const char *const heads[] = {
        "#setting",       "values",  "#score", "#mean \xC2\xB1 deviation",
        "#95 % interval", "#trials", "state",  NULL};
    static const char *const nested_heads[] = {"#setting", "values", "#chosen in", NULL};
    page_table(page, nested ? nested_heads : heads);
    for (int i = 0; i < n; i++) {
        const json_t *one = json_array_get(settings, (size_t)i);
        setting_row(page, one, label[i].p, number_or(one, "setting", -1) == best, nested);
    }
    page_table_end(page);
}

bool section_search(struct page *page, const struct run_folder *run, const struct outline *o)
{
    const json_t *search = json_object_get(run->results, "search");
    const json_t *settings = json_object_get(search, "settings");
    size_t all = json_array_size(settings);
    int n = all > REPORT_TRIALS ? REPORT_TRIALS : (int)all, scored = 0;
    bool nested = json_is_true(json_object_get(search, "nested"));
    struct chart_bar *bar = NULL;
    struct str *label = NULL;
    if (n == 0)
        return false;
    enum status st = mem_alloc((size_t)n, sizeof *bar, "settings", &bar);
    if (st == STATUS_OK)
        st = mem_alloc((size_t)n, sizeof *label, "settings", &label);
    for (int i = 0; i < n && st == STATUS_OK; i++) {
        const json_t *one = json_array_get(settings, (size_t)i);
        st = setting_label(one, &label[i]);
        double score = json_number_at(one, "score");
        if (isnan(score) || scored == CHART_LINES || nested)
            continue;
        bar[scored++] = (struct chart_bar){.label = label[i].p,
                                           .value = score,
                                           .low = json_number_at(one, "ci95.0"),
                                           .high = json_number_at(one, "ci95.1"),
                                           .series = 0};
    }
    page_note(page, st);
    if (st == STATUS_OK) {
        page_section(page, "search", "Settings");
        if (scored > 0) {
            page_raw(page, "<div class=\"charts\">\n");
            chart_intervals(page, "Settings", "Score of each setting with its 95 % interval.",
                            o->metric_name, bar, scored, NAN, NULL);
            page_raw(page, "</div>\n");
        }
        settings_table(page, settings, n, number_or(search, "best", -1), nested, label);
        if (all > (size_t)n)
            page_note_text(page, "Further settings are in results.json.");
        page_note_text(page, nested ? "Each outer fold chose its setting by folds of its own "
                                      "training rows, so the score is not flattered by the choice."
                                    : "The best setting is chosen by the scores it is shown with, "
                                      "which flatters it a little; cv.inner_folds does not.");
        page_section_end(page);
    }
    for (int i = 0; i < n && label != NULL; i++)
        str_release(&label[i]);
    mem_free(label);
    mem_free(bar);
    return true;
}
