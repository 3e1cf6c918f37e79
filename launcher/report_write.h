/*
 * report_write.h - what a finished run is given to be looked at: eval.h5, TensorBoard's event
 * files, report.html. Rank 0's; local.
 */
#ifndef COHORT_LAUNCHER_REPORT_WRITE_H
#define COHORT_LAUNCHER_REPORT_WRITE_H

#include "launcher/run.h"

/*
 * eval.h5 in the run's folder: the scores of a run without cross-validation, (scored->count,
 * outputs) logits in the order of its rows, which ascend. docs/formats.md. STATUS_IO, STATUS_NOMEM.
 */
NODISCARD enum status eval_scores_write(const struct run *run, const struct trial_rows *scored,
                                        const float *logits);

/* The configuration of a run's folder, from its run.cfg; all defaults, with a warning, where that
 * cannot be read. STATUS_IO, STATUS_NOMEM. */
NODISCARD enum status report_config(const char *folder, struct run_config *out);

/* report.html (or the file `to`) and event files of a run, as it stands. Statuses of report_page()
 * and events_write(). */
NODISCARD enum status report_write(const char *folder, const char *to);

/* The same at the end of training, once results.json is written: a failure is a warning. */
void report_after_training(const char *folder);

#endif
