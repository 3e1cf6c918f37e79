/*
 * chart.c - see chart.h.
 *
 * Coordinates have one decimal. Many dots or cells are one path, because a page with a <circle> for
 * each of them would be ten times as large. Colours are classes (page_head.c), so that one drawing
 * serves the light and the dark page and paper.
 */
#include "report/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const double LEFT = 54.0, RIGHT = 14.0, TOP = 26.0, BOTTOM = 42.0;

static int series_of(int series)
{
    return series < 0 ? 0 : series % CHART_SERIES;
}

static int dashes_of(int series)
{
    return series < 0 ? 0 : series / CHART_SERIES % 4;
}

/* ---- the figure ---- */

static void figure_begin(struct page *page, const char *title, const char *about, double width,
                         double height, bool wide)
{
    int id = page->charts++;
    page_raw(page, wide ? "<figure class=\"wide\">\n<figcaption>" : "<figure>\n<figcaption>");
    page_text(page, title);
    page_rawf(page,
              "</figcaption>\n<div class=\"scroll\"><svg xmlns=\"http://www.w3.org/2000/svg\" "
              "role=\"img\" viewBox=\"0 0 %.0f %.0f\" aria-labelledby=\"t%d\" "
              "aria-describedby=\"d%d\"",
              width, height, id, id);
    if (wide)
        page_rawf(page, " style=\"min-width:%.0fpx\"", width * 0.85);
    page_rawf(page, ">\n<title id=\"t%d\">", id);
    page_text(page, title);
    page_rawf(page, "</title><desc id=\"d%d\">", id);
    page_text(page, about == NULL ? title : about);
    page_raw(page, "</desc>\n");
}

static void figure_end(struct page *page, const char *about)
{
    if (about != NULL) {
        page_raw(page, "<p class=\"about\">");
        page_text(page, about);
        page_raw(page, "</p>\n");
    }
    page_raw(page, "</figure>\n");
}

static void text_at(struct page *page, double x, double y, const char *class, const char *text)
{
    page_rawf(page, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    page_text(page, text);
    page_raw(page, "</text>");
}

static void clipped_at(struct page *page, double x, double y, const char *class, const char *text,
                       int width)
{
    page_rawf(page, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    page_clip(page, text, strlen(text), width);
    page_raw(page, "</text>");
}

static void line_at(struct page *page, double x1, double y1, double x2, double y2,
                    const char *class)
{
    page_rawf(page, "<path d=\"M%.1f %.1fL%.1f %.1f\" class=\"%s\"/>", x1, y1, x2, y2, class);
}

static double px(const struct chart *c, double x)
{
    return c->left + (c->right - c->left) * scale_at(&c->opts.x, x);
}

static double py(const struct chart *c, double y)
{
    return c->bottom - (c->bottom - c->top) * scale_at(&c->opts.y, y);
}

/* What the script that shows values under the pointer must know of the scales. */
static void scale_data(struct page *page, const char *name, const struct scale *s, double from,
                       double to)
{
    static const char *const kinds[] = {"linear", "log", "counts"};
    page_rawf(page, " data-%s=\"%s,%.9g,%.9g,%.1f,%.1f\"", name, kinds[s->kind], s->low, s->high,
              from, to);
}

static void draw_axes(struct chart *c)
{
    struct page *page = c->page;
    char text[FORMAT_BYTES];
    for (int i = 0; i < c->opts.y.ticks; i++) {
        double y = py(c, c->opts.y.tick[i]);
        line_at(page, c->left, y, c->right, y, "grid");
        text_at(page, c->left - 6.0, y + 4.0, "tick e", scale_label(&c->opts.y, i, text));
    }
    double before = -1e9; /* right end of the last label */
    for (int i = 0; i < c->opts.x.ticks; i++) {
        double x = px(c, c->opts.x.tick[i]);
        const char *label = scale_label(&c->opts.x, i, text);
        double half = 3.3 * (double)strlen(label);
        line_at(page, x, c->bottom, x, c->bottom + 4.0, "axis");
        if (x - half < before + 4.0)
            continue;
        text_at(page, x, c->bottom + 17.0, "tick m", label);
        before = x + half;
    }
    line_at(page, c->left, c->bottom, c->right, c->bottom, "axis");
    page_raw(page, "\n");
    if (c->opts.y_label != NULL)
        text_at(page, 4.0, 13.0, "name", c->opts.y_label);
    if (c->opts.x_label != NULL)
        text_at(page, (c->left + c->right) / 2.0, c->bottom + 35.0, "name m", c->opts.x_label);
    page_raw(page, "\n");
}

void chart_begin(struct chart *c, struct page *page, const struct chart_opts *opts)
{
    *c = (struct chart){.page = page, .opts = *opts};
    if (!(c->opts.width > 0.0))
        c->opts.width = 400.0;
    if (!(c->opts.height > 0.0))
        c->opts.height = 270.0;
    c->left = LEFT;
    c->right = c->opts.width - RIGHT;
    c->top = TOP;
    c->bottom = c->opts.height - BOTTOM;
    figure_begin(page, opts->title, opts->about, c->opts.width, c->opts.height,
                 c->opts.width > 500.0);
    page_raw(page, "<g class=\"plot\"");
    scale_data(page, "x", &c->opts.x, c->left, c->right);
    scale_data(page, "y", &c->opts.y, c->bottom, c->top);
    page_raw(page, ">\n");
    draw_axes(c);
}

static void remember(struct chart *c, const char *name, int series, bool line, bool dots)
{
    if (name == NULL)
        return;
    if (c->keys == CHART_LEGEND) {
        c->left_out++;
        return;
    }
    struct chart_key *key = &c->key[c->keys++];
    *key = (struct chart_key){.series = series, .line = line, .dots = dots};
    size_t n = strnlen(name, CHART_NAME - 1);
    memcpy(key->name, name, n);
    key->name[utf8_valid_prefix(key->name, n)] = '\0';
}

void chart_end(struct chart *c)
{
    struct page *page = c->page;
    page_raw(page, "</g></svg></div>\n");
    if (c->keys > 0) {
        page_raw(page, "<div class=\"legend\">");
        for (int i = 0; i < c->keys; i++) {
            const struct chart_key *key = &c->key[i];
            page_rawf(page,
                      "<span><svg viewBox=\"0 0 24 12\" aria-hidden=\"true\"><path class=\"%s s%d "
                      "d%d\" d=\"%s\"/></svg>",
                      key->line ? "l" : "f", series_of(key->series),
                      key->line ? dashes_of(key->series) : 0,
                      key->line   ? "M1 6h22"
                      : key->dots ? "M8 6a4 4 0 1 1 8 0a4 4 0 1 1 -8 0z"
                                  : "M4 1h16v10h-16z");
            page_raw(page, "<bdi>");
            page_clip(page, key->name, strlen(key->name), 40);
            page_raw(page, "</bdi></span>");
        }
        if (c->left_out > 0)
            page_rawf(page, "<span>and %d more</span>", c->left_out);
        page_raw(page, "</div>\n");
    }
    figure_end(page, c->opts.about);
}

/* ---- what is drawn ---- */

static void add_points(struct chart *c, const double *x, const double *y, const int64_t *keep,
                       int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t at = keep == NULL ? i : keep[i];
        page_rawf(c->page, "%s%.1f,%.1f", i == 0 ? "" : " ", px(c, x[at]), py(c, y[at]));
    }
}

static void add_name(struct chart *c, const char *name)
{
    if (name == NULL)
        return;
    page_raw(c->page, " data-name=\"");
    page_clip(c->page, name, strlen(name), 40);
    page_raw(c->page, "\"");
}

void chart_line(struct chart *c, const double *x, const double *y, int64_t n, int series,
                bool faint, const char *name)
{
    double *fx = NULL, *fy = NULL;
    int64_t *keep = NULL, finite = 0;
    enum status st = STATUS_OK;
    TRY_GOTO(done, mem_alloc_raw((size_t)n, sizeof *fx, "a curve", &fx));
    TRY_GOTO(done, mem_alloc_raw((size_t)n, sizeof *fy, "a curve", &fy));
    TRY_GOTO(done, mem_alloc_raw(CHART_POINTS, sizeof *keep, "a curve", &keep));
    for (int64_t i = 0; i < n; i++) {
        fx[finite] = x[i];
        fy[finite] = y[i];
        finite += isfinite(x[i]) && isfinite(y[i]);
    }
    if (finite == 0)
        goto done;
    int most = c->opts.points > 0 && c->opts.points < CHART_POINTS ? c->opts.points : CHART_POINTS;
    int64_t kept = thin(fx, fy, finite, most < 3 ? 3 : most, keep);
    if (kept == 1) {
        chart_dots(c, fx, fy, 1, 3.5, series, name);
        goto done;
    }
    page_rawf(c->page, "<polyline class=\"l s%d d%d%s\"", series_of(series), dashes_of(series),
              faint ? " faint" : "");
    add_name(c, name);
    page_raw(c->page, " points=\"");
    add_points(c, fx, fy, keep, kept);
    page_raw(c->page, "\"/>\n");
    remember(c, name, series, true, false);
done:
    page_note(c->page, st);
    mem_free(fx);
    mem_free(fy);
    mem_free(keep);
}

void chart_steps(struct chart *c, const double *edge, const double *value, int64_t n, int series,
                 const char *name)
{
    if (n < 1)
        return;
    for (int fill = 1; fill >= 0; fill--) {
        page_rawf(c->page, fill ? "<polygon class=\"f s%d wash\"" : "<polyline class=\"l s%d\"",
                  series_of(series));
        if (!fill)
            add_name(c, name);
        page_raw(c->page, " points=\"");
        if (fill)
            page_rawf(c->page, "%.1f,%.1f ", px(c, edge[0]), c->bottom);
        for (int64_t i = 0; i < n; i++)
            page_rawf(c->page, "%.1f,%.1f %.1f,%.1f ", px(c, edge[i]), py(c, value[i]),
                      px(c, edge[i + 1]), py(c, value[i]));
        if (fill)
            page_rawf(c->page, "%.1f,%.1f", px(c, edge[n]), c->bottom);
        page_raw(c->page, "\"/>\n");
    }
    remember(c, name, series, false, false);
}

void chart_dots(struct chart *c, const double *x, const double *y, int64_t n, double radius,
                int series, const char *name)
{
    page_rawf(c->page, "<path class=\"dots s%d\" style=\"stroke-width:%.1fpx\"", series_of(series),
              2.0 * radius);
    add_name(c, name);
    page_raw(c->page, " d=\"");
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(x[i]) && isfinite(y[i]))
            page_rawf(c->page, "M%.1f %.1fh0", px(c, x[i]), py(c, y[i]));
    }
    page_raw(c->page, "\"/>\n");
    remember(c, name, series, false, true);
}

void chart_whisker(struct chart *c, double x, double low, double high, int series)
{
    if (isfinite(low) && isfinite(high))
        page_rawf(c->page, "<path class=\"l s%d thin\" d=\"M%.1f %.1fV%.1f\"/>", series_of(series),
                  px(c, x), py(c, low), py(c, high));
}

enum { LEVELS = 8 };

/* Which shade a share of the most has: 0 for nothing, then 1 to LEVELS. */
static int level_of(double share)
{
    if (!(share > 0.0))
        return 0;
    int level = 1 + (int)(sqrt(fmin(share, 1.0)) * (LEVELS - 1) + 0.5);
    return level > LEVELS ? LEVELS : level;
}

static void add_cells(struct page *page, const double *share, int nx, int ny, double left,
                      double bottom, double w, double h, int series)
{
    for (int level = 1; level <= LEVELS; level++) {
        bool any = false;
        for (int j = 0; j < ny; j++) {
            for (int i = 0; i < nx; i++) {
                if (level_of(share[j * nx + i]) != level)
                    continue;
                if (!any)
                    page_rawf(page, "<path class=\"f s%d q%d\" d=\"", series_of(series), level);
                any = true;
                page_rawf(page, "M%.1f %.1fh%.2fv%.2fh%.2fz", left + w * i, bottom - h * (j + 1), w,
                          h, -w);
            }
        }
        if (any)
            page_raw(page, "\"/>\n");
    }
}

void chart_cells(struct chart *c, const double *value, int nx, int ny, int series)
{
    double most = 0.0, *share;
    for (int i = 0; i < nx * ny; i++)
        most = fmax(most, value[i]);
    enum status st = mem_alloc_raw((size_t)nx * (size_t)ny, sizeof *share, "cells", &share);
    page_note(c->page, st);
    if (st != STATUS_OK)
        return;
    for (int i = 0; i < nx * ny; i++)
        share[i] = most > 0.0 ? value[i] / most : 0.0;
    add_cells(c->page, share, nx, ny, c->left, c->bottom, (c->right - c->left) / nx,
              (c->bottom - c->top) / ny, series);
    mem_free(share);
}

void chart_level(struct chart *c, double y, const char *text)
{
    if (!isfinite(y))
        return;
    line_at(c->page, c->left, py(c, y), c->right, py(c, y), "rule");
    if (text != NULL)
        text_at(c->page, c->right, py(c, y) - 4.0, "tick e", text);
    page_raw(c->page, "\n");
}

void chart_mark(struct chart *c, double x, const char *text)
{
    if (!isfinite(x))
        return;
    double at = px(c, x);
    bool right = at > (c->left + c->right) / 2.0;
    line_at(c->page, at, c->top, at, c->bottom, "rule");
    if (text != NULL)
        text_at(c->page, at + (right ? -4.0 : 4.0), c->top + 10.0, right ? "tick e" : "tick", text);
    page_raw(c->page, "\n");
}

void chart_diagonal(struct chart *c)
{
    double low = fmax(c->opts.x.low, c->opts.y.low), high = fmin(c->opts.x.high, c->opts.y.high);
    line_at(c->page, px(c, low), py(c, low), px(c, high), py(c, high), "rule");
    page_raw(c->page, "\n");
}

/* ---- whole figures ---- */

enum { LABEL_WIDTH = 19 };
static const double LABEL = 128.0, LINE = 24.0;

/* An axis for bars or dots below `n` lines; returns the drawing's height. */
static double lines_height(int n)
{
    return 12.0 + LINE * n + 40.0;
}

static void lines_axis(struct page *page, const struct scale *s, int n, double left, double right,
                       const char *label)
{
    char text[FORMAT_BYTES];
    double bottom = 12.0 + LINE * n, before = -1e9;
    for (int i = 0; i < s->ticks; i++) {
        double x = left + (right - left) * scale_at(s, s->tick[i]);
        const char *words = scale_label(s, i, text);
        double half = 3.3 * (double)strlen(words);
        line_at(page, x, 6.0, x, bottom, "grid");
        if (x - half < before + 4.0)
            continue;
        text_at(page, x, bottom + 16.0, "tick m", words);
        before = x + half;
    }
    text_at(page, (left + right) / 2.0, bottom + 34.0, "name m", label);
    page_raw(page, "\n");
}

void chart_bars(struct page *page, const char *title, const char *about, const char *x_label,
                const struct chart_bar *bar, int n)
{
    const double width = 400.0, left = LABEL, right = width - 62.0;
    struct scale s;
    double most = 0.0;
    for (int i = 0; i < n; i++)
        most = isfinite(bar[i].value) ? fmax(most, bar[i].value) : most;
    scale_linear(&s, 0.0, most > 0.0 ? most : 1.0, 4);
    s.high = fmax(most, s.tick[s.ticks - 1 > 0 ? s.ticks - 2 : 0]);
    if (!(s.high > s.low))
        s.high = s.low + 1.0;
    while (s.ticks > 1 && s.tick[s.ticks - 1] > s.high * (1.0 + 1e-9))
        s.ticks--;
    figure_begin(page, title, about, width, lines_height(n), false);
    lines_axis(page, &s, n, left, right, x_label);
    for (int i = 0; i < n; i++) {
        char text[FORMAT_BYTES];
        double y = 12.0 + LINE * i;
        double w = (right - left) * scale_at(&s, bar[i].value);
        clipped_at(page, left - 8.0, y + 15.0, "tick e", bar[i].label, LABEL_WIDTH);
        page_rawf(page, "<path class=\"f s%d\" d=\"M%.1f %.1fh%.1fv16h-%.1fz\"/>",
                  series_of(bar[i].series), left, y + 3.0, w, w);
        text_at(page, left + w + 5.0, y + 15.0, "tick",
                bar[i].text != NULL ? bar[i].text : format_short(bar[i].value, text));
        page_raw(page, "\n");
    }
    page_raw(page, "</svg></div>\n");
    figure_end(page, about);
}

void chart_intervals(struct page *page, const char *title, const char *about, const char *x_label,
                     const struct chart_bar *bar, int n, double mark, const char *mark_text)
{
    const double width = 400.0, left = LABEL, right = width - 16.0;
    struct scale s;
    double low = mark, high = mark; /* fmin() takes the other one of NaN */
    for (int i = 0; i < n; i++) {
        low = fmin(low, fmin(bar[i].value, bar[i].low));
        high = fmax(high, fmax(bar[i].value, bar[i].high));
    }
    scale_linear(&s, low, high, 5);
    figure_begin(page, title, about, width, lines_height(n), false);
    lines_axis(page, &s, n, left, right, x_label);
    if (isfinite(mark)) {
        double x = left + (right - left) * scale_at(&s, mark);
        line_at(page, x, 6.0, x, 12.0 + LINE * n, "rule");
        if (mark_text != NULL)
            text_at(page, x < (left + right) / 2.0 ? x + 4.0 : x - 4.0, 10.0,
                    x < (left + right) / 2.0 ? "tick" : "tick e", mark_text);
    }
    for (int i = 0; i < n; i++) {
        double y = 12.0 + LINE * i + 11.0, x = left + (right - left) * scale_at(&s, bar[i].value);
        int series = series_of(bar[i].series);
        clipped_at(page, left - 8.0, y + 4.0, "tick e", bar[i].label, LABEL_WIDTH);
        if (isfinite(bar[i].low) && isfinite(bar[i].high))
            page_rawf(page, "<path class=\"l s%d\" d=\"M%.1f %.1fH%.1f\"/>", series,
                      left + (right - left) * scale_at(&s, bar[i].low), y,
                      left + (right - left) * scale_at(&s, bar[i].high));
        if (isfinite(bar[i].value))
            page_rawf(page, "<circle class=\"f s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/>", series,
                      x, y);
        page_raw(page, "\n");
    }
    page_raw(page, "</svg></div>\n");
    figure_end(page, about);
}

void chart_parts(struct page *page, const char *title, const char *about,
                 const struct chart_bar *part, int n)
{
    const double width = 400.0, left = 4.0, right = width - 4.0;
    double sum = 0.0, x = left;
    char text[FORMAT_BYTES];
    for (int i = 0; i < n; i++)
        sum += isfinite(part[i].value) ? part[i].value : 0.0;
    if (!(sum > 0.0))
        return;
    figure_begin(page, title, about, width, 44.0, false);
    for (int i = 0; i < n; i++) {
        double w = isfinite(part[i].value) ? (right - left) * part[i].value / sum : 0.0;
        page_rawf(page, "<path class=\"f s%d part\" d=\"M%.1f 6h%.1fv32h-%.1fz\"/>",
                  series_of(part[i].series), x, w, w);
        if (w > 44.0)
            text_at(page, x + w / 2.0, 26.0, "inside m", format_percent(part[i].value / sum, text));
        x += w;
    }
    page_raw(page, "</svg></div>\n<div class=\"legend\">");
    for (int i = 0; i < n; i++) {
        page_rawf(page,
                  "<span><svg viewBox=\"0 0 24 12\" aria-hidden=\"true\"><path class=\"f s%d\" "
                  "d=\"M4 1h16v10h-16z\"/></svg>",
                  series_of(part[i].series));
        page_text(page, part[i].label);
        page_raw(page, " ");
        page_text(page,
                  part[i].text != NULL ? part[i].text : format_percent(part[i].value / sum, text));
        page_raw(page, "</span>");
    }
    page_raw(page, "</div>\n");
    figure_end(page, about);
}

/* ---- matrices ---- */

static void matrix_numbers(struct page *page, const int64_t *count, const double *share, int n,
                           double left, double top, double cell)
{
    char text[FORMAT_BYTES];
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            int64_t value = count[i * n + j];
            const char *words = value < 10000 ? format_count(value, text)
                                              : format_short((double)value, text);
            if (value > 0)
                text_at(page, left + cell * (j + 0.5), top + cell * (i + 0.5) + 4.0,
                        share[(n - 1 - i) * n + j] > 0.45 ? "inside m" : "tick m", words);
        }
        page_raw(page, "\n");
    }
}

void chart_matrix(struct page *page, const char *title, const char *about, const char *const *names,
                  int n, const int64_t *count)
{
    bool numbers = n <= CHART_NUMBERS;
    double label = numbers ? 96.0 : 30.0, room = n <= 5 ? 280.0 : 46.0 * n;
    room = numbers ? (room > 560.0 ? 560.0 : room) : (6.0 * n < 560.0 ? 560.0 : 6.0 * n);
    double cell = room / n, top = numbers ? 74.0 : 24.0;
    double width = label + room + 16.0, height = top + room + 12.0, *share;
    enum status st = mem_alloc_raw((size_t)n * (size_t)n, sizeof *share, "a matrix", &share);
    page_note(page, st);
    if (st != STATUS_OK)
        return;
    for (int i = 0; i < n; i++) { /* cells are counted from the bottom */
        int64_t sum = 0;
        for (int j = 0; j < n; j++)
            sum += count[i * n + j];
        for (int j = 0; j < n; j++)
            share[(n - 1 - i) * n + j] = sum > 0 ? (double)count[i * n + j] / (double)sum : 0.0;
    }
    figure_begin(page, title, about, width, height, width > 500.0);
    add_cells(page, share, n, n, label, top + room, cell, cell, 0);
    page_rawf(page, "<path class=\"axis\" d=\"M%.1f %.1fh%.1fv%.1fh%.1fz\"/>\n", label, top, room,
              room, -room);
    text_at(page, label + room / 2.0, 13.0, "name m", "predicted");
    if (!numbers) {
        page_rawf(
            page,
            "<text class=\"name m\" transform=\"translate(14 %.1f) rotate(-90)\">true</text>\n",
            top + room / 2.0);
    } else {
        text_at(page, 4.0, 13.0, "name", "true");
        matrix_numbers(page, count, share, n, label, top, cell);
        for (int i = 0; i < n; i++) {
            clipped_at(page, label - 6.0, top + cell * (i + 0.5) + 4.0, "tick e", names[i], 14);
            if (cell >= 80.0) {
                clipped_at(page, label + cell * (i + 0.5), top - 8.0, "tick m", names[i],
                           (int)(cell / 7.0));
            } else {
                page_rawf(page,
                          "<text class=\"tick\" transform=\"translate(%.1f %.1f) rotate(-40)\">",
                          label + cell * (i + 0.5), top - 6.0);
                page_clip(page, names[i], strlen(names[i]), 12);
                page_raw(page, "</text>");
            }
        }
        page_raw(page, "\n");
    }
    page_raw(page, "</svg></div>\n");
    figure_end(page, about);
    mem_free(share);
}
