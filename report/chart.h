/*
 * chart.h - charts as SVG inside a page: axes, lines, steps, points, cells, bars, matrices.
 *
 * A chart is a <figure>: a caption, the drawing with a title and a description for those who cannot
 * see it, and a legend below. Sizes are units of the drawing (pixels on a screen where it is shown
 * at full size); colours are the page's series, 0 to CHART_SERIES - 1, which people with colour
 * vision deficiencies can tell apart, and which differ by dashes too where there are more lines.
 *
 * Titles, labels and names are escaped here. Those of chart_opts are borrowed until chart_end().
 *
 * Local.
 */
#ifndef COHORT_REPORT_CHART_H
#define COHORT_REPORT_CHART_H

#include <stdbool.h>
#include <stdint.h>

#include "report/page.h"
#include "report/scale.h"

enum { CHART_SERIES = 6, CHART_POINTS = 500, CHART_LEGEND = 14, CHART_NAME = 128 };

struct chart_opts {
    const char *title;
    const char *about; /* what is seen, in a sentence or two; also shown below the drawing */
    const char *x_label, *y_label; /* with units */
    struct scale x, y;
    double width, height; /* 0: 400 by 270 */
    int points;           /* that a line keeps; 0: CHART_POINTS, 3 at least */
};

struct chart_key {
    char name[CHART_NAME]; /* cut after whole characters */
    int series;
    bool line, dots;
};

struct chart {
    struct page *page;
    struct chart_opts opts;
    double left, right, top, bottom; /* of the plot, in the drawing */
    struct chart_key key[CHART_LEGEND];
    int keys, left_out; /* of the legend */
};

void chart_begin(struct chart *chart, struct page *page, const struct chart_opts *opts);
/* Draws the legend of what had a name. */
void chart_end(struct chart *chart);

/* A line through n points in the order of x, thinned to opts.points; points whose y is not finite
 * are left out. name NULL: not in the legend. faint: in the background. */
void chart_line(struct chart *chart, const double *x, const double *y, int64_t n, int series,
                bool faint, const char *name);
/* The outline of a histogram: n values between n + 1 ascending edges, filled lightly. */
void chart_steps(struct chart *chart, const double *edge, const double *value, int64_t n,
                 int series, const char *name);
/* Dots; radius in the drawing's units. */
void chart_dots(struct chart *chart, const double *x, const double *y, int64_t n, double radius,
                int series, const char *name);
/* From (x, low) to (x, high). */
void chart_whisker(struct chart *chart, double x, double low, double high, int series);
/* A grid of nx by ny cells between the scales' ends, (ny, nx) values not below 0, darker for more;
 * lines from the bottom. */
void chart_cells(struct chart *chart, const double *value, int nx, int ny, int series);
/* Dashed lines with a small text (ours, or NULL). */
void chart_level(struct chart *chart, double y, const char *text);
void chart_mark(struct chart *chart, double x, const char *text);
void chart_diagonal(struct chart *chart);

/* ---- whole figures ---- */

struct chart_bar {
    const char *label, *text; /* text: the value as it is written; NULL: format_short() */
    double value;             /* not below 0 */
    double low, high;         /* charts of dots: the interval; NaN: none */
    int series;
};
/* Horizontal bars from 0. */
void chart_bars(struct page *page, const char *title, const char *about, const char *x_label,
                const struct chart_bar *bar, int n);
/* Dots with intervals, one line each; mark: a vertical line at this value with a text (NaN: none).
 */
void chart_intervals(struct page *page, const char *title, const char *about, const char *x_label,
                     const struct chart_bar *bar, int n, double mark, const char *mark_text);
/* One bar cut into parts, with a legend that has their shares. */
void chart_parts(struct page *page, const char *title, const char *about,
                 const struct chart_bar *part, int n);
/* A matrix of n by n counts, true by predicted, shaded by the share of its line; numbers are
 * written where n is at most CHART_NUMBERS. */
enum { CHART_NUMBERS = 14 };
void chart_matrix(struct page *page, const char *title, const char *about, const char *const *names,
                  int n, const int64_t *count);

#endif
