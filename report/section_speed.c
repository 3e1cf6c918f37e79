/* section_speed.c - where the time went, and how many tokens a second that is. */
#include <math.h>
#include <string.h>

#include "report/format.h"
#include "report/chart.h"
#include "report/sections.h"

enum { PARTS = 12 };

/* Seconds of all trials' steps; NaN: not known. */
static double step_seconds(const struct run_folder *run)
{
    const json_t *folds = json_object_get(run->results, "folds");
    double sum = 0.0;
    if (json_array_size(folds) == 0)
        return json_number_at(run->results, "train.seconds");
    for (size_t i = 0; i < json_array_size(folds); i++)
        sum += json_number_at(json_array_get(folds, i), "seconds");
    return sum;
}

static void whole_chart(struct page *page, const struct run_folder *run)
{
    struct chart_bar part[3] = {{.label = "steps", .value = step_seconds(run), .series = 0},
                                {.label = "evaluation", .series = 1},
                                {.label = "checkpoints", .series = 2}};
    char text[3][FORMAT_BYTES];
    if (json_array_size(json_object_get(run->results, "search")) > 0)
        return;
    for (int i = 0; i < run->trials; i++) {
        part[1].value += run->trial[i].eval_s;
        part[2].value += run->trial[i].checkpoint_s;
    }
    if (!(part[0].value > 0.0))
        return;
    for (int i = 0; i < 3; i++)
        part[i].text = format_seconds(part[i].value, text[i]);
    chart_parts(page, "Time by kind of work",
                "Of all trials together: steps, evaluations in training, checkpoints that were "
                "written.",
                part, 3);
}

/* Parts of a step, where log.parts measured them. */
static void parts_chart(struct page *page, const struct run_folder *run)
{
    json_t *value, *parts = json_object_get(json_object_get(run->results, "train"), "parts_ms");
    struct chart_bar part[PARTS];
    char text[PARTS][FORMAT_BYTES];
    struct str words[PARTS] = {{0}};
    const char *name;
    int n = 0;
    json_object_foreach(parts, name, value)
    {
        double ms = json_number_value(value);
        if (!(ms > 0.0) || n == PARTS)
            continue;
        page_note(page, str_addf(&words[n], "%s ms", format_short(ms, text[n])));
        part[n] = (struct chart_bar){
            .label = name, .text = words[n].p == NULL ? "" : words[n].p, .value = ms, .series = 0};
        n++;
    }
    if (n > 0)
        chart_bars(page, "Time of a step by part",
                   "Milliseconds of a mean step, measured with log.parts=true, which makes parts "
                   "wait for each other.",
                   "ms", part, n);
    for (int i = 0; i < n; i++)
        str_release(&words[i]);
}

static void fact(struct page *page, const char *name, const char *value)
{
    if (value[0] == '\0')
        return;
    page_row(page);
    page_cell(page, name);
    page_raw(page, "<td class=\"value\">");
    page_text(page, value);
    page_raw(page, "</td>");
    page_row_end(page);
}

static void number_fact(struct page *page, const char *name, double value, const char *unit)
{
    char text[FORMAT_BYTES];
    struct str words = {0};
    if (isnan(value))
        return;
    page_note(page, str_addf(&words, "%s%s",
                             fabs(value) < 1e15 && value == floor(value)
                                 ? format_count((int64_t)value, text)
                                 : format_short(value, text),
                             unit));
    fact(page, name, words.p == NULL ? "" : words.p);
    str_release(&words);
}

bool section_speed(struct page *page, const struct run_folder *run)
{
    static const char *const heads[] = {"what", "", NULL};
    const json_t *results = run->results;
    double ranks = json_number_at(results, "train.ranks");
    double rate = json_number_at(results, "train.tokens_per_s");
    double group = json_number_at(run->manifest, "group_ranks");
    bool any = false;
    for (int i = 0; i < run->trials; i++)
        any = any || run->trial[i].steps > 0;
    if (!any && isnan(rate))
        return false;
    page_section(page, "speed", "Time and throughput");
    page_raw(page, "<div class=\"charts\">\n");
    if (any)
        chart_speed(page, run);
    whole_chart(page, run);
    parts_chart(page, run);
    page_raw(page, "</div>\n");
    page_table(page, heads);
    number_fact(page, "ranks", ranks, "");
    if (group < ranks)
        number_fact(page, "ranks of a trial", group, "");
    number_fact(page, "threads of a rank", json_number_at(results, "train.threads"), "");
    number_fact(page, "tokens a second", rate, "");
    number_fact(page, "tokens a second and rank", rate / ranks, "");
    number_fact(page, "steps", json_number_at(results, "train.steps"), "");
    number_fact(page, "tokens", json_number_at(results, "train.tokens"), "");
    number_fact(page, "peak memory of a rank", json_number_at(results, "train.peak_memory_mb"),
                " MB");
    fact(page, "precision", json_text_at(results, "train.precision"));
    fact(page, "backend", json_text_at(run->manifest, "domain.backend"));
    fact(page, "device", json_text_at(run->manifest, "domain.device"));
    page_table_end(page);
    page_section_end(page);
    return true;
}
