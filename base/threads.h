/*
 * threads.h - how many threads this process computes with.
 *
 * Computing threads are OpenMP's, shared with oneDNN, so that the two never fight for cores. Work
 * is divided over independent outputs only: no result depends on the number of threads.
 */
#ifndef COHORT_BASE_THREADS_H
#define COHORT_BASE_THREADS_H

#include "base/status.h"

/*
 * Start this program again with libgomp told to spin briefly at barriers, unless the user's
 * environment says how to wait. libgomp reads that once, while it is loaded, and by default spins
 * for milliseconds: on a core that is shared with other work, or by more threads than cores, the
 * spinning takes the time that the awaited thread needs (measured with one other process on 2
 * cores: 1,596 tokens/s, against 5,512 with short spinning). Call first in main(); returns if there
 * is nothing to do or /proc is not there.
 */
void threads_tame_spinning(char **argv);
/* Cores this process may run on (affinity mask). */
int threads_available(void);
/* Use n threads from now on (n >= 1). */
void threads_set(int n);
int threads_count(void);

#endif
