/* section_summary.c - what a reader in a hurry wants to know: how good, how sure, of what, and what
 * to beware of. */
#include <math.h>
#include <string.h>

#include "report/format.h"
#include "report/sections.h"

static void tile(struct page *page, const char *value, const char *words)
{
    page_raw(page, "<div class=\"tile\"><b>");
    page_text(page, value);
    page_raw(page, "</b><span>");
    page_text(page, words);
    page_raw(page, "</span></div>\n");
}

/* "0.6875 (95 % interval 0.63 to 0.74)". */
static void add_score(struct page *page, double score, double low, double high)
{
    char a[FORMAT_BYTES], b[FORMAT_BYTES];
    page_rawf(page, "<b>%s</b>", format_score(score, a));
    if (!isnan(low) && !isnan(high))
        page_rawf(page, " (95 %% interval %s to %s)", format_score(low, a), format_score(high, b));
}

static void add_task(struct page *page, const struct run_folder *run)
{
    const json_t *labels = json_object_get(run->results, "labels");
    const char *task = json_text_at(run->results, "task");
    size_t n = json_array_size(labels);
    if (strcmp(task, "regression") == 0) {
        page_raw(page, "The model reads a text and predicts a number. ");
        return;
    }
    page_rawf(page,
              strcmp(task, "multi_label") == 0
                  ? "The model reads a text and decides which of %zu labels it has: "
                  : "The model sorts texts into %zu classes: ",
              n);
    for (size_t i = 0; i < n && i < 8; i++) {
        const char *name = json_string_value(json_array_get(labels, i));
        page_raw(page, i == 0 ? "<bdi>" : ", <bdi>");
        page_clip(page, name == NULL ? "" : name, name == NULL ? 0 : strlen(name), 40);
        page_raw(page, "</bdi>");
    }
    page_raw(page, n > 8 ? ", \xE2\x80\xA6 " : ". ");
}

static void add_how(struct page *page, const struct run_folder *run, const struct outline *o)
{
    char text[FORMAT_BYTES];
    double rows = json_number_at(run->results, "rows");
    if (isnan(rows))
        return;
    format_count((int64_t)rows, text);
    if (run->has_table && !run->table.rows_once) { /* random sub-samples */
        page_rawf(page,
                  "It was judged %s times, always on texts that it had not been trained on (%d "
                  "training runs; a text may be judged several times). ",
                  text, o->folds);
        return;
    }
    if (json_object_get(run->results, "oof") != NULL && o->folds > 0)
        page_rawf(
            page,
            "It was cross-validated: each of %s texts was judged by a model that had not been "
            "trained on it (%d training runs). ",
            text, o->folds);
    else
        page_rawf(page, "It was judged on %s texts that it had not been trained on. ", text);
}

static void add_baseline(struct page *page, const struct outline *o)
{
    char text[FORMAT_BYTES];
    if (isnan(o->constant) || isnan(o->score))
        return;
    page_rawf(page, "Knowing nothing but how frequent each answer is would score %s. ",
              format_score(o->constant, text));
}

/* ---- what to beware of ---- */

static void begin_warning(struct page *page, bool *any)
{
    page_raw(page, *any ? "<li>" : "<ul class=\"warnings\">\n<li>");
    *any = true;
}

static void warn(struct page *page, bool *any, const char *ours)
{
    begin_warning(page, any);
    page_text(page, ours);
    page_raw(page, "</li>\n");
}

static void add_failures(struct page *page, const struct run_folder *run, bool *any)
{
    const json_t *failed = json_object_get(run->results, "failed");
    size_t n = json_array_size(failed);
    for (size_t i = 0; i < n && i < 5; i++) {
        const json_t *one = json_array_get(failed, i);
        const char *const keys[] = {"setting", "repeat", "fold", "inner"};
        begin_warning(page, any);
        page_raw(page, "A training run failed (");
        for (int k = 0; k < 4; k++) {
            if (json_object_get(one, keys[k]) != NULL)
                page_rawf(page, " %s %.0f", keys[k], json_number_at(one, keys[k]));
        }
        page_raw(page, " ): ");
        page_text(page, json_text_at(one, "sentence"));
        page_raw(page, "</li>\n");
    }
    if (n > 5)
        warn(page, any, "More training runs failed; results.json names them all.");
}

/* Rows that were judged by a model that had trained on the same text, or nearly. */
static void add_leaks(struct page *page, const struct run_folder *run, bool *any)
{
    double equal = json_number_at(run->results, "duplicates.scored_on_copies"),
           near = json_number_at(run->results, "duplicates.scored_on_near_copies");
    char a[FORMAT_BYTES], b[FORMAT_BYTES];
    if (!(equal > 0.0) && !(near > 0.0)) /* false for NaN */
        return;
    begin_warning(page, any);
    page_rawf(page,
              "Texts that occur more than once: %s were judged by a model that had trained on an "
              "equal one, %s on a nearly equal one. The score may flatter; "
              "cv.duplicates=group keeps copies together.",
              format_count(equal > 0.0 ? (int64_t)equal : 0, a),
              format_count(near > 0.0 ? (int64_t)near : 0, b));
    page_raw(page, "</li>\n");
}

static bool beats(const struct outline *o)
{
    if (!o->has_metric || isnan(o->constant) || isnan(o->low))
        return true;
    return metric_higher_is_better(o->metric) ? o->low > o->constant : o->high < o->constant;
}

static void add_warnings(struct page *page, const struct run_folder *run, const struct outline *o)
{
    bool any = false;
    char text[FORMAT_BYTES];
    if (o->running)
        warn(page, &any, "The run is not finished: what follows is how it stands.");
    else if (!o->complete)
        warn(page, &any, "The run is not complete: some of its training runs are missing below.");
    add_failures(page, run, &any);
    add_leaks(page, run, &any);
    if (o->optimistic)
        warn(page, &any,
             "The weights were chosen by the rows they are scored on (cv.select=best): "
             "the score is optimistic.");
    if (!beats(o))
        warn(page, &any,
             "The interval of the score includes what knowing nothing but the "
             "frequencies would score.");
    if (fabs(o->score - o->mean) > fmax(2.0 * o->std, 0.02)) { /* false for NaN */
        char mean[FORMAT_BYTES];
        begin_warning(page, &any);
        page_rawf(page,
                  "All rows together score %s, the folds %s on average: the models of different "
                  "folds are calibrated differently, and their scores do not compare.",
                  format_score(o->score, text), format_score(o->mean, mean));
        page_raw(page, "</li>\n");
    }
    if (o->train_rows > 0 && (double)o->cut > 0.2 * (double)o->train_rows) {
        begin_warning(page, &any);
        format_percent((double)o->cut / (double)o->train_rows, text);
        if (o->chunks.texts > 0)
            page_rawf(page,
                      "%s of the texts have tokens that are in no chunk (data.min_chunk, "
                      "data.max_text_length).",
                      text);
        else
            page_rawf(page,
                      "%s of the texts are longer than %lld tokens (data.max_length): the model "
                      "does not see their ends.",
                      text, (long long)run->config->data.max_length);
        page_raw(page, "</li>\n");
    }
    if (o->has_values && o->values.of_task[METRIC_ECE] && o->values.value[METRIC_ECE] > 0.1) {
        begin_warning(page, &any);
        page_rawf(page,
                  "The probabilities should not be taken at their word: on average they are %s off "
                  "(ECE).",
                  format_percent(o->values.value[METRIC_ECE], text));
        page_raw(page, "</li>\n");
    }
    for (const char *from = run->note.p; from != NULL && (from = strchr(from, '\n')) != NULL;) {
        size_t n = strcspn(++from, "\n");
        begin_warning(page, &any);
        page_raw(page, "Left out: ");
        page_text_n(page, from, n);
        page_raw(page, "</li>\n");
    }
    if (any)
        page_raw(page, "</ul>\n");
}

/* ---- tiles ---- */

static void add_tiles(struct page *page, const struct run_folder *run, const struct outline *o)
{
    char a[FORMAT_BYTES], b[FORMAT_BYTES];
    struct str text = {0};
    double seconds = json_number_at(run->results, "train.seconds");
    double rate = json_number_at(run->results, "train.tokens_per_s");
    double test = json_number_at(run->results, "test.score");
    page_raw(page, "<div class=\"tiles\">\n");
    if (!isnan(o->score))
        tile(page, format_score(o->score, a), o->metric_name);
    if (!isnan(o->low)) {
        page_note(page, str_addf(&text, "%s \xE2\x80\x93 %s", format_score(o->low, a),
                                 format_score(o->high, b)));
        tile(page, text.p == NULL ? "" : text.p, "95 % interval");
    }
    if (!isnan(o->mean)) {
        str_clear(&text);
        page_note(page, str_addf(&text, isnan(o->std) ? "%s" : "%s \xC2\xB1 %s",
                                 format_score(o->mean, a), format_score(o->std, b)));
        tile(page, text.p == NULL ? "" : text.p, "mean of the folds \xC2\xB1 their deviation");
    }
    if (!isnan(test))
        tile(page, format_score(test, a), "on data.test");
    if (!isnan(json_number_at(run->results, "rows")))
        tile(page, format_count((int64_t)json_number_at(run->results, "rows"), a), "scored rows");
    if (!isnan(seconds))
        tile(page, format_seconds(seconds, a), "training time");
    if (!isnan(rate)) {
        str_clear(&text);
        page_note(page, str_addf(&text, "tokens per second on %.0f rank%s",
                                 json_number_at(run->results, "train.ranks"),
                                 json_number_at(run->results, "train.ranks") > 1.0 ? "s" : ""));
        tile(page, format_short(rate, a), text.p == NULL ? "" : text.p);
    }
    page_raw(page, "</div>\n");
    str_release(&text);
}

void section_summary(struct page *page, const struct run_folder *run, const struct outline *o)
{
    page_section(page, "summary", "Summary");
    if (run->results != NULL) {
        page_raw(page, "<p class=\"lead\">");
        add_task(page, run);
        add_how(page, run, o);
        page_raw(page, "Its ");
        page_text(page, o->metric_name);
        page_raw(page, " is ");
        add_score(page, o->score, o->low, o->high);
        if (metric_meaning(o->metric_text)[0] != '\0') {
            page_raw(page, " \xE2\x80\x93 ");
            page_text(page, metric_meaning(o->metric_text));
        }
        page_raw(page, ". ");
        add_baseline(page, o);
        page_raw(page, "</p>\n");
    }
    add_warnings(page, run, o);
    if (run->results != NULL)
        add_tiles(page, run, o);
    page_section_end(page);
}
