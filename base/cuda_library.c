/*
 * cuda_library.c - finds and loads cuBLASLt and NCCL with dlopen().
 *
 * A file name carries the major version whose interface this program was
 * compiled for: the CUDA runtime's for cuBLASLt (the two go together), 2 for
 * NCCL. Any minor version will do; functions that are missing in it are found
 * out when they are asked for.
 *
 * A candidate that is there but does not load (built for another machine, a
 * library of its own missing) does not end the search, since a good one may
 * come behind it. Where none loads, the first such reason is the sentence: it
 * tells more than "not found".
 *
 * Handles are kept until the process ends: the libraries have threads and exit
 * handlers of their own and do not like to be unloaded.
 */
#include "base/cuda_library.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CUDA_MAJOR = CUDART_VERSION / 1000 };

struct library {
    void *handle; /* NULL: not loaded */
    char path[4096];
};
static struct library libraries[CUDA_LIBRARY_COUNT];

/* One search. */
struct search {
    char file[64];
    struct library *found; /* handle set: done */
    char reason[512];      /* why the first file that was there did not load; "" */
};

static void file_name(enum cuda_library which, char *file, size_t n)
{
    if (which == CUDA_LIBRARY_CUBLASLT)
        (void)snprintf(file, n, "libcublasLt.so.%d", (int)CUDA_MAJOR);
    else
        (void)snprintf(file, n, "libnccl.so.2");
}

/* Load name, a path or a bare file name. */
static void load(struct search *s, const char *name)
{
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();
        char absent[128]; /* what the loader says where no such file is in its own
                            places */
        (void)snprintf(absent, sizeof absent, "%s: cannot open shared object file", s->file);
        if (why != NULL && s->reason[0] == '\0' && strncmp(why, absent, strlen(absent)) != 0)
            (void)snprintf(s->reason, sizeof s->reason, "%s", why);
        return;
    }
    s->found->handle = handle;
    struct link_map *map = NULL;
    bool known = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map != NULL;
    (void)snprintf(s->found->path, sizeof s->found->path, "%s", known ? map->l_name : name);
}

/* Load the file from folder/sub, if it is there. */
static void look_in(struct search *s, const char *folder, size_t n, const char *sub)
{
    char path[4096];
    if (s->found->handle != NULL || n == 0)
        return;
    int length = snprintf(path, sizeof path, "%.*s%s/%s", (int)n, folder, sub, s->file);
    if (length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0)
        load(s, path);
}

/* A folder named by an environment variable. */
static void look_in_home(struct search *s, const char *variable)
{
    const char *home = getenv(variable);
    if (home == NULL)
        return;
    look_in(s, home, strlen(home), "/lib64");
    look_in(s, home, strlen(home), "/lib");
}

/* What pip installs beside PyTorch: packages/nvidia/<package>/lib, packages a
 * pattern below root. */
static void look_in_packages(struct search *s, const char *root, const char *packages)
{
    char pattern[4096];
    glob_t paths;
    if (s->found->handle != NULL || root == NULL || root[0] == '\0')
        return;
    int length = snprintf(pattern, sizeof pattern, "%s%s/nvidia/*/lib/%s", root, packages, s->file);
    if (length < 0 || (size_t)length >= sizeof pattern || glob(pattern, 0, NULL, &paths) != 0)
        return;
    for (size_t i = 0; i < paths.gl_pathc && s->found->handle == NULL; i++)
        load(s, paths.gl_pathv[i]);
    globfree(&paths);
}

static void look_everywhere(struct search *s)
{
    load(s, s->file);
    const char *list = getenv("COHORT_CUDA_LIBS");
    while (list != NULL && s->found->handle == NULL) {
        size_t n = strcspn(list, ":");
        look_in(s, list, n, "");
        list = list[n] == ':' ? list + n + 1 : NULL;
    }
    look_in_home(s, "CUDA_HOME");
    look_in_home(s, "CUDA_PATH");
    const char *toolkit = "/usr/local/cuda";
    look_in(s, toolkit, strlen(toolkit), "/lib64");
    look_in_packages(s, getenv("VIRTUAL_ENV"), "/lib/python3*/site-packages");
    look_in_packages(s, getenv("CONDA_PREFIX"), "/lib/python3*/site-packages");
    look_in_packages(s, "/usr/local", "/lib/python3*/site-packages");
    look_in_packages(s, "/usr/local", "/lib/python3*/dist-packages");
    look_in_packages(s, "/usr", "/lib/python3*/site-packages");
    look_in_packages(s, "/usr", "/lib/python3*/dist-packages");
}

enum status cuda_library_open(enum cuda_library which)
{
    if (which < 0 || which >= CUDA_LIBRARY_COUNT)
        return status_fail(STATUS_ARG, "library %d of %d", (int)which, (int)CUDA_LIBRARY_COUNT);
    struct search s = {.found = &libraries[which]};
    if (s.found->handle != NULL)
        return STATUS_OK;
    file_name(which, s.file, sizeof s.file);
    look_everywhere(&s);
    if (s.found->handle != NULL)
        return STATUS_OK;
    if (s.reason[0] != '\0')
        return status_fail(STATUS_UNAVAILABLE, "%s is there but does not load: %s", s.file,
                           s.reason);
    char package[32] = "NCCL 2";
    if (which == CUDA_LIBRARY_CUBLASLT)
        (void)snprintf(package, sizeof package, "cuBLAS of CUDA %d", (int)CUDA_MAJOR);
    return status_fail(STATUS_UNAVAILABLE,
                       "%s is not on this machine; looked in LD_LIBRARY_PATH and "
                       "ld.so.cache, COHORT_CUDA_LIBS, "
                       "CUDA_HOME and CUDA_PATH (lib64, lib), "
                       "/usr/local/cuda/lib64, and nvidia/*/lib in "
                       "site-packages of VIRTUAL_ENV, CONDA_PREFIX and the "
                       "system's Pythons; install %s or set "
                       "COHORT_CUDA_LIBS to the folder that has it",
                       s.file, package);
}

enum status cuda_library_function(enum cuda_library which, const char *name, void *out)
{
    void *address = NULL;
    memcpy(out, &address, sizeof address);
    TRY(cuda_library_open(which));
    address = dlsym(libraries[which].handle, name);
    if (address == NULL)
        return status_fail(STATUS_UNAVAILABLE, "%s has no function %s: it is too old",
                           libraries[which].path, name);
    memcpy(out, &address, sizeof address);
    return STATUS_OK;
}

const char *cuda_library_path(enum cuda_library which)
{
    return which >= 0 && which < CUDA_LIBRARY_COUNT ? libraries[which].path : "";
}
