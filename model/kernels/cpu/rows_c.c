/* rows_c.c - the lines' kernels for any CPU; see rows_generic.h. */
#define ROWS_TABLE cpu_rows_c
#include "model/kernels/cpu/rows_generic.h"
