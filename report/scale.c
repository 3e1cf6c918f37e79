/* scale.c - see scale.h. */
#include "report/scale.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

static const double FAR = 1e300; /* differences of values within are finite */

/* Make [*low, *high] an interval that can be divided. */
static void tidy(double *low, double *high)
{
    if (!isfinite(*low) || !isfinite(*high)) {
        bool none = !isfinite(*low) && !isfinite(*high);
        double other = isfinite(*low) ? *low : *high;
        *low = none ? 0.0 : other;
        *high = none ? 1.0 : other;
    }
    *low = fmax(-FAR, fmin(FAR, *low));
    *high = fmax(-FAR, fmin(FAR, *high));
    if (*low > *high) {
        double swap = *low;
        *low = *high;
        *high = swap;
    }
    double size = fmax(fabs(*low), fabs(*high));
    if (*high - *low <= size * 1e-9) {
        double half = size > 0.0 ? size * 0.05 : 0.5;
        *low -= half;
        *high += half;
    }
}

static double nice_step(double span, int want)
{
    double rough = span / want, power = pow(10.0, floor(log10(rough))), part = rough / power;
    double step = part < 1.5 ? 1.0 : part < 3.5 ? 2.0 : part < 7.5 ? 5.0 : 10.0;
    return step * power > 0.0 ? step * power : rough;
}

static void linear_ticks(struct scale *s)
{
    double first = ceil(s->low / s->step - 1e-6);
    s->ticks = 0;
    for (int i = 0; i < SCALE_TICKS; i++) {
        double value = (first + i) * s->step;
        if (value > s->high + s->step * 1e-6)
            break;
        s->tick[s->ticks++] = fabs(value) < s->step * 1e-9 ? 0.0 : value;
    }
}

static int wanted_ticks(int want)
{
    return want < 2 ? 2 : want > 10 ? 10 : want;
}

void scale_linear(struct scale *s, double low, double high, int want)
{
    tidy(&low, &high);
    *s = (struct scale){.kind = SCALE_LINEAR};
    s->step = nice_step(high - low, wanted_ticks(want));
    s->low = floor(low / s->step + 1e-9) * s->step;
    s->high = ceil(high / s->step - 1e-9) * s->step;
    linear_ticks(s);
}

void scale_between(struct scale *s, double low, double high, int want)
{
    tidy(&low, &high);
    *s = (struct scale){.kind = SCALE_LINEAR, .low = low, .high = high};
    s->step = nice_step(high - low, wanted_ticks(want));
    linear_ticks(s);
}

void scale_log(struct scale *s, double low, double high)
{
    static const double between[] = {1.0, 2.0, 5.0};
    if (!(low > 1e-290) || !(high < FAR) || !(high > low * (1.0 + 1e-9))) {
        scale_linear(s, low, high, 5);
        return;
    }
    *s = (struct scale){.kind = SCALE_LOG, .low = low, .high = high, .step = 1.0};
    int first = (int)floor(log10(low)), last = (int)ceil(log10(high)), decades = last - first;
    int stride = decades > SCALE_TICKS - 2 ? decades / (SCALE_TICKS - 2) + 1 : 1;
    int parts = decades <= 3 ? 3 : 1;
    for (int e = first; e <= last; e += stride) {
        for (int k = 0; k < parts && s->ticks < SCALE_TICKS; k++) {
            double value = between[k] * pow(10.0, e);
            if (value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9))
                s->tick[s->ticks++] = value;
        }
    }
    if (s->ticks < 2) { /* less than a step of 1, 2, 5: the ends say more */
        s->ticks = 2;
        s->tick[0] = low;
        s->tick[1] = high;
    }
}

void scale_counts(struct scale *s, double high)
{
    if (!(high >= 1.0))
        high = 1.0;
    high = fmin(high, FAR);
    *s = (struct scale){.kind = SCALE_COUNTS, .low = 0.0, .high = high, .step = 1.0};
    int decades = (int)ceil(log10(high)), stride = decades / (SCALE_TICKS - 2) + 1;
    s->tick[s->ticks++] = 0.0;
    for (int e = 0; e <= decades && s->ticks < SCALE_TICKS; e += stride) {
        if (pow(10.0, e) <= high * (1.0 + 1e-9))
            s->tick[s->ticks++] = pow(10.0, e);
    }
}

double scale_at(const struct scale *s, double value)
{
    double share;
    if (isnan(value))
        return 0.0;
    value = fmax(s->low, fmin(s->high, value));
    if (s->kind == SCALE_LOG)
        share = log(value / s->low) / log(s->high / s->low);
    else if (s->kind == SCALE_COUNTS)
        share = log1p(value) / log1p(s->high);
    else
        share = (value - s->low) / (s->high - s->low);
    return fmax(0.0, fmin(1.0, share));
}

const char *scale_label(const struct scale *s, int i, char text[FORMAT_BYTES])
{
    double size = fmax(fabs(s->low), fabs(s->high));
    if (s->kind != SCALE_LINEAR || size >= 9999.5 || size < 1e-3)
        return format_short(s->tick[i], text);
    int decimals = 0;
    for (double step = s->step; decimals < 6 && step < 1.0 - 1e-9; decimals++)
        step *= 10.0;
    (void)snprintf(text, FORMAT_BYTES, "%.*f", decimals, s->tick[i]);
    return text;
}

/* ---- thinning ---- */

int64_t thin(const double *x, const double *y, int64_t n, int64_t most, int64_t *keep)
{
    int64_t kept = 0;
    if (n <= most) {
        for (int64_t i = 0; i < n; i++)
            keep[i] = i;
        return n;
    }
    double stretch = (double)(n - 2) / (double)(most - 2);
    keep[kept++] = 0;
    for (int64_t b = 0; b < most - 2; b++) {
        int64_t from = 1 + (int64_t)((double)b * stretch);
        int64_t to = 1 + (int64_t)((double)(b + 1) * stretch);
        int64_t after = b + 3 == most ? n : 1 + (int64_t)((double)(b + 2) * stretch);
        double mx = 0.0, my = 0.0, best = -1.0;
        int64_t last = keep[kept - 1], chosen = from;
        to = to > n - 1 ? n - 1 : to;
        after = after > n ? n : after;
        for (int64_t i = to; i < after; i++) {
            mx += (x[i] - mx) / (double)(i - to + 1);
            my += (y[i] - my) / (double)(i - to + 1);
        }
        for (int64_t i = from; i < to; i++) {
            double area =
                fabs((x[last] - mx) * (y[i] - y[last]) - (x[last] - x[i]) * (my - y[last]));
            if (area > best) { /* false for NaN */
                best = area;
                chosen = i;
            }
        }
        keep[kept++] = chosen;
    }
    keep[kept++] = n - 1;
    return kept;
}
