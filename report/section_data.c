/* section_data.c - the texts: the worst mistakes, lengths, what is cut, padding that is avoided. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "report/chart.h"
#include "report/format.h"
#include "report/sections.h"

/* ---- mistakes ---- */

void text_cell(struct page *page, const struct run_folder *run, int64_t line)
{
    struct str text = {0}, pair = {0};
    enum status st = STATUS_OK;
    page_raw(page, "<td class=\"text\">");
    if (run->scored != NULL)
        st = dataset_row_text(run->scored, run->table.row[line], &text, &pair);
    if (st != STATUS_OK && st != STATUS_NOMEM) { /* damaged: the page is worth more than a text */
        page_raw(page, "<i>");
        page_text(page, status_message());
        page_raw(page, "</i>");
    } else if (text.n == 0 && pair.n == 0) {
        page_raw(page, "<i>not stored</i>");
    }
    if (text.n > 0)
        page_clip(page, text.p, text.n, REPORT_TEXT);
    if (pair.n > 0) {
        page_raw(page, " <b>|</b> ");
        page_clip(page, pair.p, pair.n, REPORT_TEXT);
    }
    page_raw(page, "</td>");
    if (st == STATUS_NOMEM)
        page_note(page, st);
    str_release(&text);
    str_release(&pair);
}

static void label_list(struct page *page, const struct table *t, int64_t line, bool predicted)
{
    bool any = false;
    page_raw(page, "<td class=\"value\">");
    for (int c = 0; c < t->outputs; c++) {
        int64_t at = line * t->outputs + c;
        if (predicted ? t->scores[at] < 0.5f : t->value[at] <= 0.5f)
            continue;
        page_raw(page, any ? ", <bdi>" : "<bdi>");
        page_clip(page, t->info.names[c], strlen(t->info.names[c]), 40);
        page_raw(page, "</bdi>");
        any = true;
    }
    page_raw(page, any ? "</td>" : "\xE2\x80\x93</td>");
}

void truth_cells(struct page *page, const struct table *t, int64_t line)
{
    if (t->task == TASK_CLASSES) {
        page_cell_clip(page, t->info.names[t->label[line]], 40);
        page_cell_clip(page, t->info.names[table_guess(t, line)], 40);
    } else if (t->task == TASK_MULTI_LABEL) {
        label_list(page, t, line, false);
        label_list(page, t, line, true);
    } else {
        page_cell_score(page, (double)t->value[line * t->outputs]);
        page_cell_score(page, (double)t->logits[line * t->outputs]);
    }
}

bool section_mistakes(struct page *page, const struct run_folder *run)
{
    static const char *const heads[] = {"#row", "true", "predicted", "#sure", "text", NULL};
    static const char *const others[] = {"#row", "true", "predicted", "#off", "text", NULL};
    const struct table *t = &run->table;
    int64_t line[REPORT_MISTAKES];
    char text[FORMAT_BYTES];
    if (!run->has_table)
        return false;
    int n = table_worst(t, REPORT_MISTAKES, line);
    if (n == 0)
        return false;
    bool classes = t->task == TASK_CLASSES;
    page_section(page, "mistakes", "Worst mistakes");
    page_note_text(page, classes
                             ? "The rows whose true class was thought least likely. Some may be "
                               "labelled wrongly: they are worth a look."
                             : "The rows that are furthest off. Some may be labelled wrongly: "
                               "they are worth a look.");
    page_table(page, classes ? heads : others);
    for (int i = 0; i < n; i++) {
        page_row(page);
        page_cell_count(page, (double)t->row[line[i]]);
        truth_cells(page, t, line[i]);
        if (classes)
            page_cell_number(page, format_percent(table_sure(t, line[i]), text));
        else
            page_cell_score(page, table_cost(t, line[i]));
        text_cell(page, run, line[i]);
        page_row_end(page);
    }
    page_table_end(page);
    if (run->scored == NULL)
        page_note_text(page, "The prepared data was not found, so texts are missing.");
    page_section_end(page);
    return true;
}

/* ---- lengths ---- */

enum { BINS = 40 };

static int compare_ints(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static void lengths_chart(struct page *page, const int *length, int64_t n, int64_t most)
{
    /* Nearly all texts; the few that are longer are counted in the last bar. */
    int last = length[(int64_t)(0.995 * (double)(n - 1))];
    double edge[BINS + 1], value[BINS] = {0.0}, top = 0.0;
    int bins, width;
    struct chart chart;
    if (most > 0 && last < most && length[n - 1] >= most)
        last = (int)most;
    width = last / BINS + 1;
    bins = last / width + 1;
    bins = bins > BINS ? BINS : bins;
    for (int i = 0; i <= bins; i++)
        edge[i] = (double)i * width;
    for (int64_t i = 0; i < n; i++) {
        int bin = length[i] / width;
        bin = bin < bins ? bin : bins - 1;
        top = fmax(top, value[bin] += 1.0);
    }
    struct chart_opts opts = {.title = "Lengths",
                              .about = "Training rows by length before cutting, special tokens "
                                       "included; the last bar also holds the few longer ones.",
                              .x_label = "tokens",
                              .y_label = "rows"};
    scale_between(&opts.x, 0.0, edge[bins], 6);
    scale_linear(&opts.y, 0.0, top, 5);
    chart_begin(&chart, page, &opts);
    chart_steps(&chart, edge, value, bins, 0, NULL);
    if (most > 0 && (double)most <= edge[bins])
        chart_mark(&chart, (double)most, "data.max_length");
    chart_end(&chart);
}

/* Tokens of batches padded to their longest row, on average over ways to draw batches: the greatest
 * of `batch` of n sorted lengths, drawn with replacement. */
static double padded_to_longest(const int *length, int64_t n, int64_t most, double batch)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double own = most > 0 && length[i] > most ? (double)most : length[i];
        sum += own * (pow((double)(i + 1) / (double)n, batch) - pow((double)i / (double)n, batch));
    }
    return sum * (double)n;
}

static void padding_chart(struct page *page, const struct run_folder *run, const int *length,
                          int64_t n)
{
    int64_t most = run->config->data.max_length;
    double used = 0.0, batch = (double)run->config->train.batch_size;
    char text[FORMAT_BYTES];
    struct str about = {0};
    if (most <= 0 || run->config->data.long_text == CONFIG_LONG_CHUNK)
        return; /* a peer that has chunks pads them in ways of its own */
    for (int64_t i = 0; i < n; i++)
        used += length[i] > most ? (double)most : length[i];
    double longest = padded_to_longest(length, n, most, batch), full = (double)most * (double)n;
    page_note(page, str_addf(&about,
                             "Tokens of all training rows once. Rows are packed without "
                             "padding: %s less than padding each batch of %lld to its "
                             "longest row (expected)",
                             format_percent(1.0 - used / longest, text),
                             (long long)run->config->train.batch_size));
    page_note(page, str_addf(&about, ", %s less than padding to data.max_length=%lld.",
                             format_percent(1.0 - used / full, text), (long long)most));
    const struct chart_bar bar[] = {
        {.label = "packed (cohort)", .value = used, .series = 0},
        {.label = "longest of batch", .value = longest, .series = 1},
        {.label = "max_length", .value = full, .series = 1},
    };
    chart_bars(page, "Padding avoided", about.p == NULL ? "" : about.p, "tokens", bar, 3);
    str_release(&about);
}

/* How the texts were split. */
static void chunks_text(struct page *page, const struct run_folder *run, const struct outline *o)
{
    const struct chunk_tally *t = &o->chunks;
    const struct run_config *c = run->config;
    char text[FORMAT_BYTES];
    double tokens = t->tokens > 0 ? (double)t->tokens : 1.0;
    page_rawf(page, "Read in chunks of %lld tokens that begin every %lld: ",
              (long long)c->data.chunk_size, (long long)c->data.stride);
    page_rawf(page, "%s rows are split, ", format_count(t->split, text));
    page_rawf(page, "the longest into %s; ", format_count(t->most, text));
    page_rawf(page, "%s of all tokens are in no chunk, ",
              format_percent((double)t->lost / tokens, text));
    page_rawf(page, "%s are read twice.", format_percent((double)t->repeated / tokens, text));
}

static void lengths_table(struct page *page, const struct run_folder *run, const struct outline *o,
                          const int *length, int64_t n)
{
    char text[FORMAT_BYTES];
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += length[i];
    page_rawf(page, "<p>%s training rows: ", format_count(n, text));
    page_rawf(page, "shortest %d, ", length[0]);
    page_rawf(page, "median %d, mean %.1f, ", length[(n - 1) / 2], sum / (double)n);
    page_rawf(page, "95 %% below %d, longest %d tokens. ",
              length[(int64_t)ceil(0.95 * (double)n) - 1], length[n - 1]);
    if (o->chunks.texts > 0) {
        chunks_text(page, run, o);
    } else if (run->config->data.max_length > 0) {
        page_rawf(page, "Cut at %lld tokens: %s rows ", (long long)run->config->data.max_length,
                  format_count(o->cut, text));
        page_rawf(page, "(%s), ", format_percent((double)o->cut / (double)n, text));
        page_rawf(page, "which loses %s of all tokens.", format_percent(o->cut_tokens, text));
    }
    page_raw(page, "</p>\n");
}

/* ---- are long texts harder? ---- */

enum { PARTS = 5 };

/* Share of rows that are right in five parts of equal size, by length. */
static void by_length_chart(struct page *page, const struct run_folder *run)
{
    const struct table *t = &run->table;
    const int64_t n = t->begin[1];
    struct chart_bar bar[PARTS];
    struct str label[PARTS] = {{0}};
    int *sorted = NULL, before = 0, parts = 0;
    if (run->scored == NULL || t->task == TASK_REGRESSION || n < 50)
        return;
    enum status st = mem_alloc_raw((size_t)n, sizeof *sorted, "lengths", &sorted);
    for (int64_t i = 0; i < n && st == STATUS_OK; i++)
        sorted[i] = dataset_length(run->scored, t->row[i]);
    if (st == STATUS_OK)
        qsort(sorted, (size_t)n, sizeof *sorted, compare_ints);
    for (int k = 0; k < PARTS && st == STATUS_OK; k++) {
        int last = sorted[(n * (k + 1)) / PARTS - 1];
        int64_t rows = 0, right = 0;
        for (int64_t i = 0; i < n; i++) {
            int length = dataset_length(run->scored, t->row[i]);
            if (length > before && length <= last) {
                rows++;
                right += table_right(t, i);
            }
        }
        if (rows > 0) {
            double low, high;
            share_interval(right, rows, &low, &high);
            st = str_addf(&label[parts], "%d to %d tokens", before + 1, last);
            bar[parts] = (struct chart_bar){.label = label[parts].p,
                                            .value = (double)right / (double)rows,
                                            .low = low,
                                            .high = high};
            parts++;
        }
        before = last;
    }
    page_note(page, st);
    if (st == STATUS_OK && parts > 1)
        chart_intervals(page, "Right by length",
                        "Share of rows that are right, in fifths by length, with 95 % intervals.",
                        "share of rows", bar, parts, NAN, NULL);
    for (int k = 0; k < PARTS; k++)
        str_release(&label[k]);
    mem_free(sorted);
}

bool section_data(struct page *page, const struct run_folder *run, const struct outline *o)
{
    struct dataset_info info;
    int *length;
    if (run->train == NULL)
        return false;
    dataset_get_info(run->train, &info);
    if (info.rows == 0)
        return false;
    enum status st = mem_alloc_raw((size_t)info.rows, sizeof *length, "lengths", &length);
    page_note(page, st);
    if (st != STATUS_OK)
        return false;
    for (int64_t i = 0; i < info.rows; i++)
        length[i] = dataset_length(run->train, i);
    qsort(length, (size_t)info.rows, sizeof *length, compare_ints);
    page_section(page, "data", "Lengths and truncation");
    lengths_table(page, run, o, length, info.rows);
    page_raw(page, "<div class=\"charts\">\n");
    lengths_chart(page, length, info.rows, o->chunks.texts > 0 ? 0 : run->config->data.max_length);
    padding_chart(page, run, length, info.rows);
    if (run->has_table)
        by_length_chart(page, run);
    page_raw(page, "</div>\n");
    page_section_end(page);
    mem_free(length);
    return true;
}
