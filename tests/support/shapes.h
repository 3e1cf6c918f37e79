/*
 * shapes.h - for parity tests: batches of odd shapes, numbers rounded to a type, outputs in guard
 * zones.
 */
#ifndef COHORT_TESTS_SHAPES_H
#define COHORT_TESTS_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lengths of a batch's rows, ended by -1: none, one token, odd, one past a block, one past two,
 * long. */
#define SHAPES_BATCHES 7
extern const int shapes_batch[SHAPES_BATCHES][8];

/* begin[] (rows + 1) of a batch; returns the number of rows. begin has room for 9. */
int shapes_rows(const int *lengths, int32_t *begin);

/* n numbers from about -3 to 3, the same for the same seed. bf16: rounded to bfloat16. */
void shapes_fill(float *x, int64_t n, uint64_t seed, bool bf16);

/* Elements in the type of activations (float or bfloat16), and back. */
void shapes_to_act(const float *x, int64_t n, bool bf16, void *to);
void shapes_from_act(const void *x, int64_t n, bool bf16, float *to);

/* Memory for bytes between two guard zones, filled with 0xFF (NaN in both types); owned by the
 * caller (guard_free). */
void *guard_alloc(size_t bytes);
/* The zones are as they were, or the test fails naming what. */
void guard_check(const void *p, const char *what);
void guard_free(void *p);

/* sqrt(sum (a - b)^2 / sum b^2); 0 where both are 0; NaN counts as an infinite error. */
double shapes_error(const float *a, const float *b, int64_t n);

#endif
