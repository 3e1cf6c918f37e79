/* lr_schedule.c - see lr_schedule.h. */
#include "model/lr_schedule.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static const double pi = 3.14159265358979323846;

static double at_least_one(int64_t n)
{
    return n > 1 ? (double)n : 1.0;
}

/* Between `high` (x = 1) and `low` (x = 0). */
static double between(double low, double high, double x)
{
    return low + (high - low) * x;
}

/* ---- kinds, as functions of t and n ---- */

static double linear(const struct lr_schedule *z, int64_t t, int64_t n)
{
    if (z->start == 1.0 && z->end == 0.0)
        return fmax(0.0, (double)(n - t) / at_least_one(n));
    double progress = t < n ? (double)t / at_least_one(n) : 1.0;
    return z->start + (z->end - z->start) * progress;
}

static double cosine(const struct lr_schedule *z, int64_t t, int64_t n)
{
    double progress = (double)t / at_least_one(n);
    return between(z->least, 1.0, fmax(0.0, 0.5 * (1.0 + cos(2.0 * pi * z->cycles * progress))));
}

static double multi_step(const struct lr_schedule *z, int64_t t)
{
    int64_t passed = 0;
    for (int64_t i = 0; i < z->milestone_count; i++)
        passed += z->milestones[i] <= t;
    return pow(z->gamma, (double)passed);
}

static double polynomial(const struct lr_schedule *z, int64_t t, int64_t n)
{
    double left = t < n ? 1.0 - (double)t / at_least_one(n) : 0.0;
    return between(z->least, 1.0, pow(left, z->power));
}

static double cosine_with_restarts(const struct lr_schedule *z, int64_t t, int64_t n)
{
    double progress = (double)t / at_least_one(n);
    double wave = progress >= 1.0 ? 0.0 : 0.5 * (1.0 + cos(pi * fmod(z->cycles * progress, 1.0)));
    return between(z->least, 1.0, fmax(0.0, wave));
}

static double warm_restarts(const struct lr_schedule *z, int64_t t)
{
    int64_t cycle = z->first_cycle;
    if (z->cycle_factor == 1) {
        t %= cycle;
    } else {
        while (t >= cycle) { /* cycles grow at least twofold */
            t -= cycle;
            cycle = cycle > INT64_MAX / z->cycle_factor ? INT64_MAX : cycle * z->cycle_factor;
        }
    }
    return between(z->least, 1.0, 0.5 * (1.0 + cos(pi * (double)t / (double)cycle)));
}

static double cyclic(const struct lr_schedule *z, int64_t t)
{
    const int64_t down = z->down > 0 ? z->down : z->up, all = z->up + down;
    const int64_t cycle = t / all, place = t % all;
    double height = place <= z->up ? (double)place / (double)z->up
                                   : (double)(all - place) / (double)down;
    if (z->mode == CYCLIC_TRIANGULAR2)
        height *= pow(0.5, (double)cycle);
    else if (z->mode == CYCLIC_EXP_RANGE)
        height *= pow(z->gamma, (double)t);
    return between(z->least, 1.0, height);
}

static double anneal(bool straight, double from, double to, double share)
{
    if (straight)
        return (to - from) * share + from;
    return to + (from - to) / 2.0 * (cos(pi * share) + 1.0);
}

static double one_cycle(const struct lr_schedule *z, int64_t t, int64_t n)
{
    const double low = 1.0 / z->div_factor, end = low / z->final_div_factor;
    const double last = (double)n - 1.0, rise = z->rise * (double)n;
    const double three[3][3] = {{rise - 1.0, low, 1.0},
                                {2.0 * rise - 2.0, 1.0, low},
                                {last, low, end}},
                 two[2][3] = {{rise - 1.0, low, 1.0}, {last, 1.0, end}};
    const double(*phase)[3] = z->three_phase ? three : two;
    const int phases = z->three_phase ? 3 : 2;
    const double at = fmin((double)t, last);
    double begin = 0.0;
    for (int i = 0;; i++) {
        if (at <= phase[i][0] || i == phases - 1) {
            double width = phase[i][0] - begin;
            double share = width > 0.0 ? (at - begin) / width : 1.0;
            return anneal(z->straight, phase[i][1], phase[i][2], share);
        }
        begin = phase[i][0];
    }
}

static double of_table(const struct lr_schedule *z, int64_t t)
{
    int64_t low = 0, high = z->point_count; /* the last point that is not behind t */
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (z->points[middle].at <= t)
            low = middle;
        else
            high = middle;
    }
    const struct lr_point *p = &z->points[low];
    if (!z->interpolate || low + 1 == z->point_count)
        return p->factor;
    double share = (double)(t - p->at) / (double)(p[1].at - p->at);
    return p->factor + (p[1].factor - p->factor) * share;
}

static double behind_warmup(const struct lr_schedule *z, int64_t t, int64_t rest)
{
    const int64_t n = z->length > 0 ? z->length : rest;
    switch (z->kind) {
    case LR_LINEAR:
        return linear(z, t, n);
    case LR_COSINE:
        return cosine(z, t, n);
    case LR_CONSTANT:
        return t < z->length ? z->start : 1.0;
    case LR_STEP:
        return pow(z->gamma, (double)(t / z->step_size));
    case LR_MULTI_STEP:
        return multi_step(z, t);
    case LR_EXPONENTIAL:
        return pow(z->gamma, (double)t);
    case LR_POLYNOMIAL:
        return polynomial(z, t, n);
    case LR_COSINE_WITH_RESTARTS:
        return cosine_with_restarts(z, t, n);
    case LR_WARM_RESTARTS:
        return warm_restarts(z, t);
    case LR_CYCLIC:
        return cyclic(z, t);
    case LR_ONE_CYCLE:
        return one_cycle(z, t, n);
    case LR_PLATEAU:
        return 1.0;
    case LR_TABLE:
        return of_table(z, t);
    }
    return 1.0;
}

/* Where the schedule begins; 1 also where there is nothing behind the warm-up. */
static double beginning(const struct lr_schedule *z)
{
    switch (z->kind) {
    case LR_LINEAR:
        return z->start;
    case LR_CONSTANT:
        return z->length > 0 ? z->start : 1.0;
    case LR_CYCLIC:
        return z->least;
    case LR_ONE_CYCLE:
        return 1.0 / z->div_factor;
    case LR_TABLE:
        return z->points[0].factor;
    default:
        return 1.0;
    }
}

double lr_schedule_factor(const struct lr_schedule *z, int64_t s)
{
    if (s < z->warmup)
        return (double)s / at_least_one(z->warmup) * beginning(z);
    if (z->epoch_steps == 0)
        return behind_warmup(z, s - z->warmup, z->total - z->warmup);
    const int64_t e = z->epoch_steps, before = z->warmup / e;
    return behind_warmup(z, s / e - before, (z->total + e - 1) / e - before);
}

/* ---- refusals ---- */

enum status lr_schedule_check(const struct lr_schedule *z)
{
    switch (z->kind) {
    case LR_STEP:
        if (z->step_size < 1)
            return status_fail(STATUS_CONFIG,
                               "schedule.name=step: schedule.step_size is %lld, "
                               "wanted at least 1",
                               (long long)z->step_size);
        break;
    case LR_MULTI_STEP:
        if (z->milestone_count < 1)
            return status_fail(STATUS_CONFIG, "schedule.name=multi_step: schedule.milestones is "
                                              "empty, wanted steps or epochs: [30,80]");
        break;
    case LR_COSINE_WITH_RESTARTS:
        if (z->cycles < 1.0)
            return status_fail(STATUS_CONFIG,
                               "schedule.name=cosine_with_restarts: "
                               "schedule.num_cycles is %g, wanted at least 1",
                               z->cycles);
        break;
    case LR_WARM_RESTARTS:
        if (z->first_cycle < 1)
            return status_fail(STATUS_CONFIG,
                               "schedule.name=warm_restarts: schedule.t_0 is %lld, "
                               "wanted the length of the first cycle",
                               (long long)z->first_cycle);
        break;
    case LR_CYCLIC:
        if (z->up < 1)
            return status_fail(STATUS_CONFIG,
                               "schedule.name=cyclic: schedule.step_size_up is "
                               "%lld, wanted at least 1",
                               (long long)z->up);
        break;
    case LR_TABLE:
        if (z->point_count < 1)
            return status_fail(STATUS_CONFIG,
                               "schedule.name=table: schedule.table is empty, wanted "
                               "points: \"0:1,100:0.5\"");
        break;
    default:
        break;
    }
    return STATUS_OK;
}

/* ---- tables ---- */

struct reader {
    const char *p, *end;
    const char *where;
    int line;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void skip_blanks(struct reader *r)
{
    while (r->p < r->end && is_blank(*r->p))
        r->p++;
    if (r->p < r->end && *r->p == '#')
        while (r->p < r->end && *r->p != '\n')
            r->p++;
}

static enum status unreadable(const struct reader *r, const char *what)
{
    const char *end = r->p;
    while (end < r->end && *end != '\n' && *end != ',' && end - r->p < 40)
        end++;
    return status_fail(STATUS_CONFIG, "%s:%d: %s at \"%.*s\", wanted points as \"0:1,100:0.5\"",
                       r->where, r->line, what, (int)(end - r->p), r->p);
}

/* The next word of a number; false: there is none. */
static bool take_word(struct reader *r, char word[64])
{
    size_t n = 0;
    skip_blanks(r);
    while (r->p + n < r->end && n < 63 &&
           (isalnum((unsigned char)r->p[n]) || (r->p[n] != '\0' && strchr("+-.", r->p[n]) != NULL)))
        n++;
    memcpy(word, r->p, n);
    word[n] = '\0';
    return n > 0;
}

static enum status take_point(struct reader *r, struct lr_point *point)
{
    char word[64];
    if (!take_word(r, word) || !parse_int64(word, &point->at) || point->at < 0)
        return unreadable(r, "no step or epoch");
    r->p += strlen(word);
    skip_blanks(r);
    if (r->p < r->end && *r->p == ':')
        r->p++;
    if (!take_word(r, word) || !parse_double(word, &point->factor) || point->factor < 0.0)
        return unreadable(r, "no factor of 0 or more");
    r->p += strlen(word);
    skip_blanks(r);
    if (r->p < r->end && *r->p != ',' && *r->p != '\n')
        return unreadable(r, "more than a point");
    return STATUS_OK;
}

enum status lr_schedule_points(const char *text, size_t n, const char *where,
                               struct lr_point **points, int64_t *count)
{
    struct reader r = {.p = text, .end = text + n, .where = where, .line = 1};
    size_t capacity = 0;
    enum status st = STATUS_OK;
    *points = NULL;
    *count = 0;
    for (skip_blanks(&r); r.p < r.end; skip_blanks(&r)) {
        if (*r.p == ',' || *r.p == '\n') {
            r.line += *r.p == '\n';
            r.p++;
            continue;
        }
        const char *from = r.p;
        TRY_GOTO(fail, mem_grow(points, &capacity, (size_t)*count + 1, sizeof **points,
                                "the schedule's table"));
        struct lr_point *point = &(*points)[*count];
        TRY_GOTO(fail, take_point(&r, point));
        if (*count == 0 ? point->at != 0 : point->at <= point[-1].at) {
            r.p = from;
            st = unreadable(&r, *count == 0 ? "the first point is not that of 0"
                                            : "points do not ascend");
            goto fail;
        }
        ++*count;
    }
    if (*count == 0) {
        st = status_fail(STATUS_CONFIG, "%s holds no points, wanted \"0:1,100:0.5\"", where);
        goto fail;
    }
    return STATUS_OK;
fail:
    mem_free(*points);
    *points = NULL;
    *count = 0;
    return st;
}

/* ---- plateau and SWA ---- */

static bool gains(const struct plateau_opts *o, double score, double best)
{
    if (isnan(best))
        return !isnan(score);
    double by = o->relative ? fabs(best) * o->threshold : o->threshold;
    return o->larger ? score > best + by : score < best - by;
}

bool plateau_score(const struct plateau_opts *o, struct plateau *p, double score)
{
    if (gains(o, score, p->best)) {
        p->best = score;
        p->bad = 0;
    } else {
        p->bad++;
    }
    if (p->cooldown > 0) {
        p->cooldown--;
        p->bad = 0;
    }
    if (p->bad <= o->patience)
        return false;
    const double now = fmax(p->factor * o->factor, o->least), before = p->factor;
    if (before - now > o->granularity)
        p->factor = now;
    p->cooldown = o->cooldown;
    p->bad = 0;
    return p->factor < before;
}

double swa_factor(double from, double to, int64_t step, int64_t length, bool straight)
{
    double t = (double)step / at_least_one(length), share;
    t = t < 0.0 ? 0.0 : t > 1.0 ? 1.0 : t;
    share = straight ? t : (1.0 - cos(pi * t)) / 2.0;
    return to * share + from * (1.0 - share);
}
