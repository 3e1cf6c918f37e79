/*
 * groups.c - when the last of many equal trials ends, on groups of ranks, by the scheduler that runs them. A simulation.
 *
 *   groups TRIALS STEPS ROWS FLOPS BYTES RATE BANDWIDTH LATENCY RANKS... <STEP_SECONDS
 *
 * TRIALS of STEPS steps, each of ROWS rows, with ranks that all do what one rank was measured to do: standard input has
 * lines "rows seconds", the time of a step on one rank with so many rows, in ascending order; between two of them it is
 * linear, below the first the first. A group of n ranks gives each rank ceil(ROWS / n) rows and then sums gradients of
 * BYTES for 2 (n - 1) / n * BYTES / BANDWIDTH + LATENCY * log2(n) seconds. FLOPS of a step and RATE, flops/s of a rank,
 * are what cv.group_ranks=0 reckons with. For each number of RANKS a line: trials one after another on all ranks; the
 * group size with the earliest end; the one that cv.group_ranks=0 takes; seconds of the three.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "launcher/schedule.h"

enum { MOST_POINTS = 64 };

struct machine {
    int trials, steps, rows, points;
    struct schedule_cost cost;
    double point_rows[MOST_POINTS], point_s[MOST_POINTS];
};

static double step_seconds(const struct machine *m, double rows)
{
    if (rows <= m->point_rows[0])
        return m->point_s[0];
    for (int i = 1; i < m->points; i++) {
        if (rows <= m->point_rows[i]) {
            double share = (rows - m->point_rows[i - 1]) / (m->point_rows[i] - m->point_rows[i - 1]);
            return m->point_s[i - 1] + share * (m->point_s[i] - m->point_s[i - 1]);
        }
    }
    return m->point_s[m->points - 1] * rows / m->point_rows[m->points - 1];
}

static double trial_seconds(const struct machine *m, int n)
{
    double sum = n == 1 ? 0.0
                        : 2.0 * (n - 1) / n * m->cost.bytes / m->cost.bandwidth + m->cost.latency * log2(n);
    return m->steps * (step_seconds(m, ceil((double)m->rows / n)) + sum);
}

/* Seconds until the last trial has ended on groups of n ranks: each free group takes what the scheduler gives. */
static enum status last_end(const struct machine *m, int ranks, int n, double *end)
{
    int groups = ranks / n;
    struct schedule_opts opts = {.settings = 1, .repeats = 1, .folds = m->trials, .groups = groups};
    struct schedule *s = NULL;
    double *work = NULL, *until = NULL, one = trial_seconds(m, n);
    int *trial = NULL;
    enum status st = STATUS_OK;
    *end = 0.0;
    TRY_GOTO(done, mem_alloc((size_t)m->trials, sizeof *work, "trials", &work));
    TRY_GOTO(done, mem_alloc((size_t)groups, sizeof *until, "groups", &until));
    TRY_GOTO(done, mem_alloc((size_t)groups, sizeof *trial, "groups", &trial));
    for (int i = 0; i < m->trials; i++)
        work[i] = one;
    opts.work = work;
    TRY_GOTO(done, schedule_open(&opts, &s));
    for (int g = 0; g < groups; g++)
        trial[g] = -1;
    for (;;) {
        int first = -1;
        for (int g = 0; g < groups; g++) {
            if (trial[g] < 0 && (trial[g] = schedule_take(s, g)) >= 0)
                until[g] = *end + one;
            if (trial[g] >= 0 && (first < 0 || until[g] < until[first]))
                first = g;
        }
        if (first < 0)
            break;
        *end = until[first];
        schedule_arrived(s, trial[first], 0.0);
        trial[first] = -1;
    }
done:
    schedule_close(s);
    mem_free(work);
    mem_free(until);
    mem_free(trial);
    return st;
}

int main(int argc, char **argv)
{
    struct machine m = {0};
    if (argc < 10) {
        (void)fprintf(stderr, "usage: groups TRIALS STEPS ROWS FLOPS BYTES RATE BANDWIDTH LATENCY RANKS...\n");
        return 64;
    }
    m.trials = atoi(argv[1]);
    m.steps = atoi(argv[2]);
    m.rows = atoi(argv[3]);
    m.cost = (struct schedule_cost){.flops = atof(argv[4]), .rows = (int64_t)m.rows, .bytes = atof(argv[5]), .rate = atof(argv[6]),
                                    .bandwidth = atof(argv[7]), .latency = atof(argv[8])};
    while (m.points < MOST_POINTS && scanf("%lf %lf", &m.point_rows[m.points], &m.point_s[m.points]) == 2)
        m.points++;
    if (m.points == 0 || m.trials < 1 || m.rows < 1)
        return 64;
    for (int k = 9; k < argc; k++) {
        int ranks = atoi(argv[k]), best = ranks, chosen = schedule_group_ranks(ranks, m.trials, &m.cost);
        double all, shortest, end, own = 0.0;
        if (last_end(&m, ranks, ranks, &all) != STATUS_OK)
            return 1;
        shortest = all;
        for (int n = 1; n <= ranks; n++) {
            if (ranks % n != 0)
                continue;
            if (last_end(&m, ranks, n, &end) != STATUS_OK)
                return 1;
            if (end < shortest) {
                shortest = end;
                best = n;
            }
            if (n == chosen)
                own = end;
        }
        printf("%d %.6g %d %.6g %d %.6g\n", ranks, all, best, shortest, chosen, own);
    }
    return 0;
}
