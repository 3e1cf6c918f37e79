/* without_cpu.c - stands for model/kernels/cpu in a build without oneDNN (COHORT_ONEDNN=OFF): there is no CPU table. */
#include <stddef.h>

#include "model/kernels/kernels.h"

const struct kernels *kernels_cpu(void)
{
    return NULL;
}
