/* test_library.c - the search for cuBLASLt and NCCL in base/cuda_library.c, with a version of CUDA that no machine has.
 *
 * The real loader is compiled in here under other names, because emulated builds have one of their own.
 */
#include <cuda_runtime_api.h>
#undef CUDART_VERSION
#define CUDART_VERSION 97020 /* libcublasLt.so.97 */

#define cuda_library_open searched_open
#define cuda_library_function searched_function
#define cuda_library_path searched_path
#include "base/cuda_library.c"

#include "base/file.h"
#include "base/mem.h"
#include "tests/support/support.h"

#define FILE_NAME "libcublasLt.so.97"

/* Some shared library that this program has loaded, to stand for the one that is looked for. */
static int find_cmocka(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    if (strstr(info->dlpi_name, "libcmocka") == NULL)
        return 0;
    (void)snprintf(out, 4096, "%s", info->dlpi_name);
    return 1;
}

static char stand_in[4096]; /* its path */

static const char *join(const char *folder, const char *name)
{
    char *path;
    assert_ok(path_join(folder, name, &path));
    return support_keep(path);
}

/* An empty folder below the test's own. */
static const char *new_folder(const char *name)
{
    const char *path = join(support_folder(), name);
    assert_ok(folder_remove(path));
    assert_ok(folder_make(path));
    return path;
}

static void place(const char *folder)
{
    assert_ok(folder_make(folder));
    assert_ok(file_copy(stand_in, join(folder, FILE_NAME)));
}

static int forget(void **state)
{
    (void)state;
    if (libraries[CUDA_LIBRARY_CUBLASLT].handle != NULL)
        (void)dlclose(libraries[CUDA_LIBRARY_CUBLASLT].handle);
    memset(libraries, 0, sizeof libraries);
    const char *variables[] = {"COHORT_CUDA_LIBS", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        assert_int_equal(unsetenv(variables[i]), 0);
    return 0;
}

static void set(const char *variable, const char *value)
{
    assert_int_equal(setenv(variable, value, 1), 0);
}

/* The library is found in this folder. */
static void check_found_in(const char *folder)
{
    assert_ok(searched_open(CUDA_LIBRARY_CUBLASLT));
    assert_string_equal(searched_path(CUDA_LIBRARY_CUBLASLT), join(folder, FILE_NAME));
}

static void test_a_missing_library_is_named_with_all_places(void **state)
{
    (void)state;
    assert_string_equal(searched_path(CUDA_LIBRARY_CUBLASLT), "");
    assert_fails(searched_open(CUDA_LIBRARY_CUBLASLT), STATUS_UNAVAILABLE, FILE_NAME " is not on this machine");
    const char *places[] = {"LD_LIBRARY_PATH", "ld.so.cache", "COHORT_CUDA_LIBS", "CUDA_HOME", "CUDA_PATH",
                            "/usr/local/cuda/lib64", "VIRTUAL_ENV", "CONDA_PREFIX", "cuBLAS of CUDA 97"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        support_assert_contains(status_message(), places[i]);
    void *f = &f;
    assert_fails(searched_function(CUDA_LIBRARY_CUBLASLT, "cublasLtCreate", &f), STATUS_UNAVAILABLE, FILE_NAME);
    assert_null(f);
    assert_string_equal(searched_path(CUDA_LIBRARY_CUBLASLT), "");
}

static void test_named_folders_come_in_their_order(void **state)
{
    (void)state;
    const char *one = new_folder("one"), *two = new_folder("two");
    char list[8400];
    (void)snprintf(list, sizeof list, ":/nowhere:%s:%s", one, two);
    set("COHORT_CUDA_LIBS", list);
    place(two);
    check_found_in(two);
    (void)forget(NULL);
    set("COHORT_CUDA_LIBS", list);
    place(one);
    check_found_in(one);
}

static void test_each_place_gives_way_to_the_one_before(void **state)
{
    (void)state;
    const char *venv = new_folder("venv"), *path = new_folder("path"), *home = new_folder("home"),
               *libs = new_folder("libs");
    const char *order[] = {join(venv, "lib/python3.9/site-packages/nvidia/cublas/lib"), join(path, "lib"),
                           join(path, "lib64"), join(home, "lib"), join(home, "lib64"), libs};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) { /* the later, the earlier in the search */
        (void)forget(NULL);
        set("VIRTUAL_ENV", venv);
        set("CUDA_PATH", path);
        set("CUDA_HOME", home);
        set("COHORT_CUDA_LIBS", libs);
        place(order[i]);
        check_found_in(order[i]);
    }
}

static void test_a_pytorch_in_conda_is_found(void **state)
{
    (void)state;
    const char *conda = new_folder("conda"), *folder = join(conda, "lib/python3.12/site-packages/nvidia/cu97/lib");
    set("CONDA_PREFIX", conda);
    place(folder);
    check_found_in(folder);
}

static void test_a_broken_file_does_not_end_the_search(void **state)
{
    (void)state;
    const char *libs = new_folder("broken"), *home = new_folder("whole");
    assert_ok(file_write_atomic(join(libs, FILE_NAME), "not a library", 13));
    set("COHORT_CUDA_LIBS", libs);
    assert_fails(searched_open(CUDA_LIBRARY_CUBLASLT), STATUS_UNAVAILABLE, FILE_NAME " is there but does not load: ");
    support_assert_contains(status_message(), join(libs, FILE_NAME));
    set("CUDA_HOME", home);
    place(join(home, "lib64"));
    check_found_in(join(home, "lib64"));
}

static void test_functions_are_found_and_missed(void **state)
{
    (void)state;
    const char *libs = new_folder("functions");
    set("COHORT_CUDA_LIBS", libs);
    place(libs);
    void (*f)(void) = NULL;
    assert_ok(searched_function(CUDA_LIBRARY_CUBLASLT, "_cmocka_run_group_tests", &f));
    assert_non_null(f);
    assert_fails(searched_function(CUDA_LIBRARY_CUBLASLT, "cublasLtMatmul", &f), STATUS_UNAVAILABLE,
                 FILE_NAME " has no function cublasLtMatmul");
    assert_null(f);
    assert_fails(searched_open((enum cuda_library)9), STATUS_ARG, "library 9");
}

int main(void)
{
    if (dl_iterate_phdr(find_cmocka, stand_in) == 0) {
        puts("SKIP: cmocka is not a shared library here, and nothing else can stand for cuBLASLt");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_missing_library_is_named_with_all_places, forget, forget),
        cmocka_unit_test_setup_teardown(test_named_folders_come_in_their_order, forget, forget),
        cmocka_unit_test_setup_teardown(test_each_place_gives_way_to_the_one_before, forget, forget),
        cmocka_unit_test_setup_teardown(test_a_pytorch_in_conda_is_found, forget, forget),
        cmocka_unit_test_setup_teardown(test_a_broken_file_does_not_end_the_search, forget, forget),
        cmocka_unit_test_setup_teardown(test_functions_are_found_and_missed, forget, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
