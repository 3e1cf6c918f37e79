/*
 * section_compare.c - two runs: by how much they differ, and whether that is more than luck.
 *
 * Both are scored on the same rows, so tests are paired: a bootstrap that draws the same rows for
 * both, McNemar's test on the rows that only one gets right, and, where both were cut into the same
 * folds, the corrected t-test over folds. worker/statistics.h has the formulas.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "report/chart.h"
#include "report/format.h"
#include "report/sections.h"
#include "worker/statistics.h"

/* ---- what can be compared ---- */

static enum status views(const struct table *t, struct scored **out)
{
    TRY(mem_alloc((size_t)t->repeats, sizeof **out, "repeats", out));
    for (int r = 0; r < t->repeats; r++)
        table_scored(t, r, &(*out)[r]);
    return STATUS_OK;
}

/* Whether both tables have the same rows in every repeat that both have, with the same targets. */
static bool same_rows(const struct table *a, const struct table *b)
{
    const int repeats = a->repeats < b->repeats ? a->repeats : b->repeats;
    const int64_t n = a->begin[repeats];
    if (n != b->begin[repeats] || a->outputs != b->outputs ||
        (a->label == NULL) != (b->label == NULL) ||
        memcmp(a->row, b->row, (size_t)n * sizeof *a->row) != 0)
        return false;
    for (int c = 0; a->info.names != NULL && b->info.names != NULL && c < a->classes; c++)
        if (strcmp(a->info.names[c], b->info.names[c]) != 0)
            return false;
    if (a->label != NULL)
        return memcmp(a->label, b->label, (size_t)n * sizeof *a->label) == 0;
    return memcmp(a->value, b->value, (size_t)(n * a->outputs) * sizeof *a->value) == 0;
}

/* Whether the runs read the same prepared content: texts alone and their tokens are not. */
static bool same_content(const struct run_folder *a, const struct run_folder *b)
{
    const char *data = a->of_train ? "data" : "eval_data";
    return strcmp(json_text_at(a->manifest, data), json_text_at(b->manifest, data)) == 0;
}

/* Why the rows cannot be paired; NULL: they can. */
static const char *unpaired(const struct run_folder *a, const struct run_folder *b,
                            const struct outline *o)
{
    if (!a->has_table || !b->has_table)
        return "one of the runs has no scores of rows (oof.h5 or eval.h5)";
    if (!o->has_metric || o->metric == METRIC_LOSS)
        return "the metric cannot be counted again from scores";
    if (a->table.task != b->table.task || a->table.classes != b->table.classes)
        return "the runs have different tasks";
    if (a->of_train != b->of_train || (!same_content(a, b) && !same_rows(&a->table, &b->table)))
        return "the runs were scored on different data";
    if (!a->table.rows_once || !b->table.rows_once)
        return "rows were scored several times in a repeat";
    return NULL;
}

/* ---- results ---- */

static void run_row(struct page *page, const char *name, const struct run_folder *run,
                    const struct outline *o)
{
    char a[FORMAT_BYTES], b[FORMAT_BYTES];
    struct str text = {0};
    page_raw(page, "<tr><td>");
    page_text(page, name);
    page_raw(page, "</td><td class=\"value\">");
    page_text(page, run->path);
    page_raw(page, "</td>");
    page_cell_score(page, o->score);
    page_note(page, isnan(o->low) ? str_addf(&text, "\xE2\x80\x93")
                                  : str_addf(&text, "%s to %s", format_score(o->low, a),
                                             format_score(o->high, b)));
    page_cell_number(page, text.p == NULL ? "" : text.p);
    str_clear(&text);
    page_note(page, isnan(o->std) ? str_addf(&text, "%s", format_score(o->mean, a))
                                  : str_addf(&text, "%s \xC2\xB1 %s", format_score(o->mean, a),
                                             format_score(o->std, b)));
    page_cell_number(page, text.p == NULL ? "" : text.p);
    page_cell_seconds(page, json_number_at(run->results, "train.seconds"));
    page_raw(page, "</tr>\n");
    str_release(&text);
}

static void runs_table(struct page *page, const struct run_folder *a, const struct run_folder *b,
                       const struct outline *oa, const struct outline *ob)
{
    static const char *const heads[] = {"",
                                        "run",
                                        "#score",
                                        "#95 % interval",
                                        "#mean \xC2\xB1 deviation of folds",
                                        "#training time",
                                        NULL};
    page_table(page, heads);
    run_row(page, "A", a, oa);
    run_row(page, "B", b, ob);
    page_table_end(page);
}

/* ---- tests ---- */

static void say_verdict(struct page *page, const struct comparison *c, const struct outline *o)
{
    char difference[FORMAT_BYTES], low[FORMAT_BYTES], high[FORMAT_BYTES], p[FORMAT_BYTES];
    bool better = metric_better(o->metric, c->b, c->a);
    page_raw(page, "<p class=\"lead\">");
    if (isnan(c->p))
        page_raw(page, "The difference cannot be tested: the metric is undefined in too many "
                       "resamples.");
    else if (c->p < 0.05)
        page_raw(page, better ? "<b>B is better than A</b>, by more than luck explains: "
                              : "<b>A is better than B</b>, by more than luck explains: ");
    else
        page_raw(page, "<b>No difference is proven</b>: one this large is also found between runs "
                       "that are equally good: ");
    page_text(page, o->metric_name);
    page_rawf(page, " %s from A to B", format_difference(c->difference, difference));
    if (!isnan(c->p))
        page_rawf(page, " (95 %% interval %s to %s, p %s%s)", format_difference(c->ci95[0], low),
                  format_difference(c->ci95[1], high), c->p < 0.001 ? "" : "= ", format_p(c->p, p));
    page_raw(page, ".</p>\n");
}

static void test_row(struct page *page, const char *test, const char *says, double p)
{
    char text[FORMAT_BYTES];
    page_row(page);
    page_cell(page, test);
    page_raw(page, "<td class=\"text\">");
    page_text(page, says);
    page_raw(page, "</td>");
    page_cell_number(page, format_p(p, text));
    page_row_end(page);
}

static enum status bootstrap_row(struct page *page, const struct comparison *c)
{
    char low[FORMAT_BYTES], high[FORMAT_BYTES];
    struct str text = {0};
    TRY(str_addf(&text, "difference %s to %s, %lld rows, %d resamples",
                 format_difference(c->ci95[0], low), format_difference(c->ci95[1], high),
                 (long long)c->rows, c->resamples));
    test_row(page, "paired bootstrap over rows", text.p, c->p);
    str_release(&text);
    return STATUS_OK;
}

static enum status mcnemar_row(struct page *page, const struct scored *a, const struct scored *b)
{
    struct mcnemar m;
    struct str text = {0};
    if (a->task == TASK_REGRESSION)
        return STATUS_OK;
    TRY(statistics_mcnemar(a, b, &m));
    TRY(str_addf(
        &text, "right in both %lld, only A %lld, only B %lld, in neither %lld (first repeat)",
        (long long)m.both, (long long)m.only_a, (long long)m.only_b, (long long)m.neither));
    test_row(page, "McNemar, exact", text.p, m.p);
    str_release(&text);
    return STATUS_OK;
}

static int fold_number(const json_t *fold, const char *key)
{
    const json_t *value = json_object_get(fold, key);
    return json_is_integer(value) ? (int)json_integer_value(value) : -1;
}

/* Whether both tables name the same folds for the same rows. */
static bool same_folds(const struct table *a, const struct table *b)
{
    if (a->n != b->n)
        return false;
    for (int64_t i = 0; i < a->n; i++) {
        if (a->row[i] != b->row[i] || a->repeat[i] != b->repeat[i] || a->fold[i] != b->fold[i])
            return false;
    }
    return true;
}

static enum status t_row(struct page *page, const struct run_folder *a, const struct run_folder *b)
{
    const json_t *fa = json_object_get(a->results, "folds"),
                 *fb = json_object_get(b->results, "folds");
    size_t n = json_array_size(fa);
    double *score = NULL, rows = 0.0;
    struct resampled_t t;
    struct str text = {0};
    char low[FORMAT_BYTES], high[FORMAT_BYTES];
    enum status st = STATUS_OK;
    if (n < 2 || n != json_array_size(fb) || n > 1 << 20 || !same_folds(&a->table, &b->table))
        return STATUS_OK;
    TRY_GOTO(done, mem_alloc(2 * n, sizeof *score, "scores of folds", &score));
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(fa, i), *y = json_array_get(fb, i);
        if (fold_number(x, "fold") != fold_number(y, "fold") ||
            fold_number(x, "repeat") != fold_number(y, "repeat"))
            goto done;
        score[i] = json_number_at(x, "score");
        score[n + i] = json_number_at(y, "score");
        rows += json_number_at(x, "rows");
    }
    double test = rows / (double)n, all = (double)(a->table.begin[1] - a->table.begin[0]);
    if (!(test > 0.0) || !(all > test))
        goto done;
    TRY_GOTO(done, statistics_resampled_t(score, score + n, (int)n, test, all - test, &t));
    TRY_GOTO(done, str_addf(&text, "mean difference of %d folds %s to %s", t.n,
                            format_difference(t.ci95[0], low), format_difference(t.ci95[1], high)));
    test_row(page, "corrected t-test over folds", text.p, t.p);
done:
    mem_free(score);
    str_release(&text);
    return st;
}

static void difference_chart(struct page *page, const struct comparison *c,
                             const struct outline *oa, const struct outline *ob)
{
    const struct chart_bar score[] = {
        {.label = "A", .value = oa->score, .low = oa->low, .high = oa->high, .series = 0},
        {.label = "B", .value = ob->score, .low = ob->low, .high = ob->high, .series = 1}};
    const struct chart_bar difference[] = {{.label = "B \xE2\x88\x92 A",
                                            .value = c->difference,
                                            .low = c->ci95[0],
                                            .high = c->ci95[1],
                                            .series = 2}};
    page_raw(page, "<div class=\"charts\">\n");
    chart_intervals(page, "Scores",
                    "Each with its own 95 % interval. Overlapping intervals do not mean that there "
                    "is no difference: the rows are the same.",
                    oa->metric_name, score, 2, NAN, NULL);
    if (!isnan(c->difference))
        chart_intervals(page, "Difference", "On the same rows, with a 95 % interval.",
                        oa->metric_name, difference, 1, 0.0, "none");
    page_raw(page, "</div>\n");
}

/* ---- texts ---- */

struct pair {
    int64_t a, b; /* lines */
    double gain;  /* how much less wrong b is */
};

/* The rows of repeat 0 that only b (sign 1) or only a (-1) gets right, those with the greatest gain
 * first; regression: those with the greatest gain. */
static int find_pairs(const struct table *a, const struct table *b, int sign, struct pair *out)
{
    int n = 0;
    for (int64_t i = a->begin[0]; i < a->begin[1] && i < b->begin[1]; i++) {
        struct pair own = {i, i, sign * (table_cost(a, i) - table_cost(b, i))};
        bool better = a->task == TASK_REGRESSION
                          ? own.gain > 0.0
                          : table_right(sign > 0 ? b : a, i) && !table_right(sign > 0 ? a : b, i);
        if (a->row[i] != b->row[i] || !better ||
            (n == REPORT_MISTAKES / 2 && own.gain <= out[n - 1].gain))
            continue;
        int at = n < REPORT_MISTAKES / 2 ? n++ : n - 1;
        for (; at > 0 && own.gain > out[at - 1].gain; at--)
            out[at] = out[at - 1];
        out[at] = own;
    }
    return n;
}

static void second_guess(struct page *page, const struct table *t, int64_t line)
{
    /* truth_cells() has true and predicted; here only what the other run predicted. */
    if (t->task == TASK_CLASSES)
        page_cell_clip(page, t->info.names[table_guess(t, line)], 40);
    else if (t->task == TASK_REGRESSION)
        page_cell_score(page, (double)t->logits[line * t->outputs]);
    else
        page_cell_score(page, table_cost(t, line));
}

static void pairs_table(struct page *page, const struct run_folder *a, const struct run_folder *b,
                        int sign, const char *title)
{
    static const char *const heads[] = {"#row", "true", "A says", "B says", "text", NULL};
    static const char *const multi[] = {"#row", "true", "A says", "#B's loss", "text", NULL};
    struct pair pair[REPORT_MISTAKES / 2];
    int n = find_pairs(&a->table, &b->table, sign, pair);
    if (n == 0)
        return;
    page_raw(page, "<h3>");
    page_text(page, title);
    page_raw(page, "</h3>\n");
    page_table(page, a->table.task == TASK_MULTI_LABEL ? multi : heads);
    for (int i = 0; i < n; i++) {
        page_row(page);
        page_cell_count(page, (double)a->table.row[pair[i].a]);
        truth_cells(page, &a->table, pair[i].a);
        second_guess(page, &b->table, pair[i].b);
        if (a->scored != NULL)
            text_cell(page, a, pair[i].a);
        else
            text_cell(page, b, pair[i].b);
        page_row_end(page);
    }
    page_table_end(page);
}

/* ---- all of it ---- */

static enum status compare(struct page *page, const struct run_folder *a,
                           const struct run_folder *b, const struct outline *oa,
                           const struct outline *ob)
{
    static const char *const heads[] = {"test", "what was found", "#p", NULL};
    struct scored *left = NULL, *right = NULL;
    struct comparison c = {.difference = NAN};
    enum status st = STATUS_OK;
    TRY_GOTO(done, views(&a->table, &left));
    TRY_GOTO(done, views(&b->table, &right));
    st = statistics_compare(left, a->table.repeats, right, b->table.repeats, oa->metric,
                            (uint64_t)a->config->seed, resamples_for(a->table.n + b->table.n), &c);
    if (st == STATUS_DATA) { /* not the same rows */
        page_raw(page, "<p>The runs cannot be paired: ");
        page_text(page, status_message());
        page_raw(page, ".</p>\n");
        st = STATUS_OK;
        goto done;
    }
    TRY_GOTO(done, st);
    say_verdict(page, &c, oa);
    difference_chart(page, &c, oa, ob);
    page_table(page, heads);
    TRY_GOTO(done, bootstrap_row(page, &c));
    TRY_GOTO(done, mcnemar_row(page, &left[0], &right[0]));
    TRY_GOTO(done, t_row(page, a, b));
    page_table_end(page);
    page_note_text(page, "p: how often runs that are equally good would differ as much. Which test "
                         "counts should be decided before looking.");
    bool values = a->table.task == TASK_REGRESSION;
    pairs_table(page, a, b, 1, values ? "Where B is closer" : "What B gets right and A does not");
    pairs_table(page, a, b, -1, values ? "Where A is closer" : "What A gets right and B does not");
done:
    mem_free(left);
    mem_free(right);
    return st;
}

void section_compare(struct page *page, const struct run_folder *a, const struct run_folder *b,
                     const struct outline *oa, const struct outline *ob, const char *difference)
{
    const char *why = unpaired(a, b, oa);
    page_section(page, "compare", "Comparison");
    if (strcmp(oa->metric_text, ob->metric_text) != 0)
        page_note_text(page, "The runs have different metrics; A's is used where both are scored "
                             "anew.");
    runs_table(page, a, b, oa, ob);
    if (why != NULL) {
        page_raw(page, "<p>There is no paired test: ");
        page_text(page, why);
        page_raw(page, ".</p>\n");
    } else {
        if (!same_content(a, b))
            page_note_text(page,
                           "The texts were prepared differently, or one run read no tokens; the "
                           "rows are the same by their numbers and labels.");
        page_note(page, compare(page, a, b, oa, ob));
    }
    page_raw(page, "<h3>What was asked differently</h3>\n<p>");
    page_text(page, difference[0] == '\0' ? "Nothing that can change a result." : difference);
    page_raw(page, "</p>\n");
    page_section_end(page);
}
