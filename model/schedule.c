/* schedule.c - learning-rate factors, the rules of transformers' get_*_schedule_with_warmup; see
 * optimizer.h. */
#include <math.h>

#include "model/optimizer.h"

static double at_least_one(int64_t n)
{
    return n > 1 ? (double)n : 1.0;
}

double schedule_factor(enum schedule_kind kind, int64_t s, int64_t warmup, int64_t total,
                       double cycles)
{
    const double pi = 3.14159265358979323846;
    if (s < warmup)
        return (double)s / at_least_one(warmup);
    if (kind == SCHEDULE_LINEAR)
        return fmax(0.0, (double)(total - s) / at_least_one(total - warmup));
    if (kind == SCHEDULE_COSINE) {
        double progress = (double)(s - warmup) / at_least_one(total - warmup);
        return fmax(0.0, 0.5 * (1.0 + cos(2.0 * pi * cycles * progress)));
    }
    return 1.0;
}
