/*
 * screen.h - what people see of many trials, and progress.json. Rank 0's; local.
 *
 * On a terminal a block of lines is drawn again in place: one for each group that works, and one
 * for all. Elsewhere each trial is a line when it ends. Where one group runs all trials they speak
 * for themselves, and only progress.json is written.
 */
#ifndef COHORT_LAUNCHER_SCREEN_H
#define COHORT_LAUNCHER_SCREEN_H

#include "launcher/dispatch.h"
#include "launcher/experiment.h"

struct screen;

/* e and schedule are borrowed. STATUS_NOMEM. */
NODISCARD enum status screen_open(const struct experiment *e, const struct schedule *schedule,
                                  struct screen **out);
void screen_close(struct screen *screen);
/* struct dispatch_opts' seen, after whose own work it is called. */
void screen_see(struct screen *screen, int trial, const struct trial_place *place,
                const struct dispatch_outcome *outcome);
/* Write progress.json now; a failure is a warning, once. */
void screen_save(struct screen *screen);

#endif
