/*
 * scale.h - from values to places along an axis, with ticks that people can read; and fewer points
 * where a curve has more than a page needs.
 *
 * Local.
 */
#ifndef COHORT_REPORT_SCALE_H
#define COHORT_REPORT_SCALE_H

#include <stdint.h>

#include "report/format.h"

enum scale_kind {
    SCALE_LINEAR,
    SCALE_LOG,   /* values above 0 */
    SCALE_COUNTS /* log(1 + value): counts, zero included */
};

enum { SCALE_TICKS = 12 };

struct scale {
    enum scale_kind kind;
    double low, high; /* finite, low < high */
    int ticks;
    double tick[SCALE_TICKS];
    double step; /* between the ticks of a linear scale */
};

/*
 * Ticks at 1, 2 or 5 times a power of ten, about `want` of them (2 to 10), and ends moved out to a
 * tick. What cannot be an axis (not finite, no extent, low above high) becomes one that can.
 */
void scale_linear(struct scale *scale, double low, double high, int want);
/* The same between exactly these ends. */
void scale_between(struct scale *scale, double low, double high, int want);
/* Powers of ten, with 2 and 5 between them where there are few. Falls back on scale_linear() where
 * low is not above 0. */
void scale_log(struct scale *scale, double low, double high);
void scale_counts(struct scale *scale, double high);

/* 0 at low, 1 at high; what lies outside is moved to the end, NaN to 0. */
double scale_at(const struct scale *scale, double value);
/* What is written at tick i: as many decimals as the step needs. */
const char *scale_label(const struct scale *scale, int i, char text[FORMAT_BYTES]);

/*
 * Choose at most `most` (3 at least) of n points, in order, so that the line through them looks the
 * same: the first and last, and of each stretch between the point that makes the largest triangle
 * with what was chosen before and the mean of the next stretch (Steinarsson, Downsampling time
 * series for visual representation, 2013). keep has room for `most`; returns how many.
 */
int64_t thin(const double *x, const double *y, int64_t n, int64_t most, int64_t *keep);

#endif
