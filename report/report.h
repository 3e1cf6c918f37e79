/*
 * report.h - one HTML file about a run, or two runs compared: what came out, how sure it is, how
 * training went, where the model errs.
 *
 * The file loads nothing and is well-formed XML too. Everything that comes from the run (labels,
 * texts, paths) is escaped, curves are thinned, tables have bounds: its size does not grow with the
 * data beyond about two megabytes. Equal folders give equal bytes. docs/report.md is for readers.
 *
 * Local; the folders are only read.
 */
#ifndef COHORT_REPORT_REPORT_H
#define COHORT_REPORT_REPORT_H

#include "base/status.h"
#include "base/str.h"
#include "worker/run_config.h"

struct report_run {
    const char *folder;
    const struct run_config *config; /* of its run.cfg; defaults where it has none */
};

/* The page, appended to out. STATUS_NOINPUT: no run there; STATUS_DATA, STATUS_NUMERIC: scores that
 * cannot be; STATUS_NOMEM. */
NODISCARD enum status report_page(const struct report_run *run, struct str *out);
/*
 * Two runs compared: their scores with a paired bootstrap, McNemar's test, the corrected t-test
 * over folds where both were cut in the same way, and the texts on which they differ. difference:
 * what the configurations have different, for people.
 */
NODISCARD enum status report_comparison(const struct report_run *a, const struct report_run *b,
                                        const char *difference, struct str *out);

#endif
