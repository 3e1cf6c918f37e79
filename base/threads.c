/* threads.c - see threads.h. */
#include "base/threads.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

void threads_tame_spinning(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL)
        return;
    if (setenv("GOMP_SPINCOUNT", "2000", 1) ==
        0) /* set: the program that starts again returns above */
        (void)execv("/proc/self/exe", argv);
}

int threads_available(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

void threads_set(int n)
{
    omp_set_dynamic(0);
    omp_set_num_threads(n > 0 ? n : 1);
}

int threads_count(void)
{
    return omp_get_max_threads();
}
