/*
 * cuda_library.h - NVIDIA's libraries that a CUDA build loads when it first needs them.
 *
 * cuBLASLt and NCCL are not linked: one executable runs on machines without them, finds them in an
 * installed toolkit or in a PyTorch installation, and can say in one sentence what is missing. (The
 * CUDA runtime is linked statically and loads the driver by itself.)
 *
 * Looked for, in order: the loader's own places (LD_LIBRARY_PATH, ld.so.cache), $COHORT_CUDA_LIBS
 * (folders, colon separated), $CUDA_HOME and $CUDA_PATH (lib64, lib), /usr/local/cuda/lib64, and
 * nvidia/<package>/lib in site-packages of $VIRTUAL_ENV, $CONDA_PREFIX and the system's Pythons.
 *
 * Local; called from the main thread.
 */
#ifndef COHORT_BASE_CUDA_LIBRARY_H
#define COHORT_BASE_CUDA_LIBRARY_H

#include "base/status.h"

enum cuda_library { CUDA_LIBRARY_CUBLASLT, CUDA_LIBRARY_NCCL, CUDA_LIBRARY_COUNT };

/* Load once; later calls return at once. STATUS_UNAVAILABLE: which file was looked for and where. */
NODISCARD enum status cuda_library_open(enum cuda_library which);
/* A function of a loaded library, to be stored in a pointer of its type at *out. STATUS_UNAVAILABLE
 * names the function and the library's path: it is too old. */
NODISCARD enum status cuda_library_function(enum cuda_library which, const char *name, void *out);
/* Path it was loaded from, for the log; "" before. */
const char *cuda_library_path(enum cuda_library which);

#endif
