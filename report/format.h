/*
 * format.h - numbers as people read them. Every function writes into text and returns it.
 *
 * Local.
 */
#ifndef COHORT_REPORT_FORMAT_H
#define COHORT_REPORT_FORMAT_H

#include <stdint.h>

enum { FORMAT_BYTES = 40 };

/* A score: four decimals below 10 ("0.9910"), four digits above ("123.4", "1.234e+07"); "–" where
 * it is undefined. */
const char *format_score(double value, char text[FORMAT_BYTES]);
/* The same with its sign: "+0.0120". */
const char *format_difference(double value, char text[FORMAT_BYTES]);
const char *format_count(int64_t value, char text[FORMAT_BYTES]); /* "1,554" */
/* Three digits and a prefix: "950", "12.3k", "4.5M"; small ones as "0.0123", "2e-5". */
const char *format_short(double value, char text[FORMAT_BYTES]);
const char *format_percent(double share, char text[FORMAT_BYTES]);   /* 0.046: "4.6 %" */
const char *format_seconds(double seconds, char text[FORMAT_BYTES]); /* "0.4 s", "2m 05s" */
/* A probability of a test: "0.034", "< 0.001". */
const char *format_p(double p, char text[FORMAT_BYTES]);

#endif
