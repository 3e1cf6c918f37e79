/* rows_avx2.c - the same C as rows_c.c, in vectors of eight. */
#ifdef __x86_64__
#define ROWS_TABLE cpu_rows_avx2
#include "model/kernels/cpu/rows_generic.h"
#endif
