/*
 * emulated_library.c - base/cuda_library.h for the emulated toolkit: the libraries are in this
 * program already, their functions are found in tables.
 *
 * EMULATED_CUDA_LIBRARIES is a list, comma separated, of what is missing: "nocublaslt", "nonccl",
 * or "no" and a function's name, as in "noncclCommInitRankConfig" (the library is too old).
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>
#include <nccl.h>

#include "base/cuda_library.h"

#define CUBLASLT_FUNCTIONS(X)                                                                      \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetStatusName)                                                                       \
    X(cublasLtGetStatusString)                                                                     \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtGetCudartVersion)                                                                    \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatrixLayoutSetAttribute)                                                            \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulAlgoGetIds)                                                                    \
    X(cublasLtMatmulAlgoInit)                                                                      \
    X(cublasLtMatmulAlgoCheck)                                                                     \
    X(cublasLtMatmulAlgoConfigSetAttribute)                                                        \
    X(cublasLtMatmulAlgoConfigGetAttribute)                                                        \
    X(cublasLtMatmul)

#define NCCL_FUNCTIONS(X)                                                                          \
    X(ncclGetVersion)                                                                              \
    X(ncclGetUniqueId)                                                                             \
    X(ncclCommInitRankConfig)                                                                      \
    X(ncclCommInitRank)                                                                            \
    X(ncclCommFinalize)                                                                            \
    X(ncclCommDestroy)                                                                             \
    X(ncclCommAbort)                                                                               \
    X(ncclGetErrorString)                                                                          \
    X(ncclGetLastError)                                                                            \
    X(ncclCommGetAsyncError)                                                                       \
    X(ncclCommCount)                                                                               \
    X(ncclCommCuDevice)                                                                            \
    X(ncclCommUserRank)                                                                            \
    X(ncclReduce)                                                                                  \
    X(ncclBroadcast)                                                                               \
    X(ncclAllReduce)                                                                               \
    X(ncclReduceScatter)                                                                           \
    X(ncclAllGather)                                                                               \
    X(ncclSend)                                                                                    \
    X(ncclRecv)                                                                                    \
    X(ncclGroupStart)                                                                              \
    X(ncclGroupEnd)

typedef void (*any_function)(void);
struct function {
    const char *name;
    any_function address;
};
#define ENTRY(name) {#name, (any_function)name},
static const struct function cublaslt[] = {CUBLASLT_FUNCTIONS(ENTRY){NULL, NULL}};
static const struct function nccl[] = {NCCL_FUNCTIONS(ENTRY){NULL, NULL}};

static const struct {
    const char *knob, *file, *path;
    const struct function *functions;
} libraries[CUDA_LIBRARY_COUNT] = {
    [CUDA_LIBRARY_CUBLASLT] = {"cublaslt", "libcublasLt.so.13", "emulated libcublasLt.so.13",
                               cublaslt},
    [CUDA_LIBRARY_NCCL] = {"nccl", "libnccl.so.2", "emulated libnccl.so.2", nccl},
};
static bool opened[CUDA_LIBRARY_COUNT];

/* Whether EMULATED_CUDA_LIBRARIES has "no" and this name. */
static bool is_missing(const char *name)
{
    const char *list = getenv("EMULATED_CUDA_LIBRARIES");
    while (list != NULL && *list != '\0') {
        size_t n = strcspn(list, ",");
        if (n == strlen(name) + 2 && strncmp(list, "no", 2) == 0 &&
            strncmp(list + 2, name, n - 2) == 0)
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

enum status cuda_library_open(enum cuda_library which)
{
    if (which < 0 || which >= CUDA_LIBRARY_COUNT)
        return status_fail(STATUS_ARG, "library %d of %d", (int)which, (int)CUDA_LIBRARY_COUNT);
    if (is_missing(libraries[which].knob))
        return status_fail(STATUS_UNAVAILABLE,
                           "%s is not on this machine; looked in EMULATED_CUDA_LIBRARIES",
                           libraries[which].file);
    opened[which] = true;
    return STATUS_OK;
}

enum status cuda_library_function(enum cuda_library which, const char *name, void *out)
{
    any_function address = NULL;
    memcpy(out, &address, sizeof address);
    TRY(cuda_library_open(which));
    for (const struct function *f = libraries[which].functions; f->name != NULL; f++) {
        if (strcmp(f->name, name) == 0 && !is_missing(name))
            address = f->address;
    }
    if (address == NULL)
        return status_fail(STATUS_UNAVAILABLE, "%s has no function %s: it is too old",
                           libraries[which].path, name);
    memcpy(out, &address, sizeof address);
    return STATUS_OK;
}

const char *cuda_library_path(enum cuda_library which)
{
    return which >= 0 && which < CUDA_LIBRARY_COUNT && opened[which] ? libraries[which].path : "";
}
