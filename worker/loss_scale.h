/*
 * loss_scale.h - dynamic loss scaling for fp16: keeps gradients inside the range of binary16.
 *
 * The loss is multiplied by a power of two, so dividing the gradients by it again is exact. A step
 * whose gradients overflowed is skipped and the scale halved; after `interval` applied steps in a
 * row it is doubled (Micikevicius et al., "Mixed precision training", 2018; the constants are those
 * of torch.cuda.amp.GradScaler). Other precisions have the scale 1 and are never skipped.
 *
 * Local: a pure function of what happened so far, so every rank has the same.
 */
#ifndef COHORT_WORKER_LOSS_SCALE_H
#define COHORT_WORKER_LOSS_SCALE_H

#include <stdbool.h>
#include <stdint.h>

enum { LOSS_SCALE_FIRST = 65536, LOSS_SCALE_INTERVAL = 2000 };

struct loss_scale {
    double scale;    /* a power of two */
    int64_t clean;   /* applied steps since the scale last changed */
    int64_t skipped; /* steps, over all starts */
};

static inline struct loss_scale loss_scale_start(bool dynamic)
{
    return (struct loss_scale){.scale = dynamic ? LOSS_SCALE_FIRST : 1.0};
}

/* After a step of a dynamic scale. */
static inline void loss_scale_applied(struct loss_scale *s)
{
    if (++s->clean == LOSS_SCALE_INTERVAL) {
        s->scale *= 2.0;
        s->clean = 0;
    }
}

/* false: the scale is 1 already, so the gradients themselves are too large. */
static inline bool loss_scale_skipped(struct loss_scale *s)
{
    s->skipped++;
    s->clean = 0;
    if (s->scale <= 1.0)
        return false;
    s->scale /= 2.0;
    return true;
}

#endif
