/*
 * row_time.h - what the time column of a row may say.
 *
 * Local.
 */
#ifndef COHORT_DATA_ROW_TIME_H
#define COHORT_DATA_ROW_TIME_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The n bytes at p as a point in time: a finite number as it is (*date false), or seconds since
 * 1970-01-01T00:00:00Z (*date true) of a date of ISO 8601, YYYY-MM-DD, from year 1, which may be
 * followed by "T" or one space and HH:MM, then :SS and a fraction, then Z, +HH, +HHMM or +HH:MM (or
 * -). Without a zone it is UTC. A leap second counts as the second behind it. False, with both
 * untouched: it is neither.
 */
bool row_time_parse(const char *p, size_t n, double *time, bool *date);

#endif
