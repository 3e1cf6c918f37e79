/*
 * threads.h - how many threads this process computes with.
 *
 * Computing threads are OpenMP's, shared with oneDNN, so that the two never fight for cores. Work is divided over
 * independent outputs only: no result depends on the number of threads.
 */
#ifndef COHORT_BASE_THREADS_H
#define COHORT_BASE_THREADS_H

#include "base/status.h"

/* Cores this process may run on (affinity mask). */
int threads_available(void);
/* Use n threads from now on (n >= 1). */
void threads_set(int n);
int threads_count(void);

#endif
