/*
 * test_device_errors.c - machines that cannot run the CUDA backend, as the emulated toolkit plays them.
 *
 * The emulation reads its environment once, so each machine is a process of its own.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/device_cuda.h"
#include "tests/support/cuda/emulated_cuda.h"
#include "tests/support/support.h"

/* In a machine with these settings ("A=1", ..., NULL), act() writes what was said; here it is. */
static const char *on_machine(const char *const *settings, void (*act)(FILE *f))
{
    static char said[2048];
    int pipes[2], how;
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(pipes[0]);
        for (; *settings != NULL; settings++)
            (void)putenv((char *)(uintptr_t)*settings);
        FILE *f = fdopen(pipes[1], "w");
        if (f == NULL)
            _exit(1);
        act(f);
        (void)fclose(f);
        _exit(0);
    }
    (void)close(pipes[1]);
    FILE *f = fdopen(pipes[0], "r");
    assert_non_null(f);
    size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = '\0';
    (void)fclose(f);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    return said;
}

static void tell(FILE *f, enum status st)
{
    fprintf(f, "%s: %s\n", status_name(st), st == STATUS_OK ? "" : status_message());
}

static void count_and_open(FILE *f)
{
    int count = -1;
    struct device *device = NULL;
    enum status st = device_count(DEVICE_CUDA, &count);
    tell(f, st);
    fprintf(f, "%d GPUs\n", count);
    tell(f, device_open(DEVICE_CUDA, 0, &device));
    device_close(device);
}

static void open_fourth(FILE *f)
{
    struct device *device = NULL;
    tell(f, device_open(DEVICE_CUDA, 3, &device));
    device_close(device);
}

static void use_memory(FILE *f)
{
    struct device *device = NULL;
    void *p = NULL;
    if (device_open(DEVICE_CUDA, 0, &device) != STATUS_OK)
        return;
    fprintf(f, "%s, %lld MiB\n", device_name(device), (long long)device_memory_bytes(device) >> 20);
    tell(f, device_alloc(device, (size_t)65 << 20, "the gradients", &p));
    tell(f, device_alloc(device, (size_t)60 << 20, "the gradients", &p));
    device_free(device, p);
    device_close(device);
}

static void test_no_driver(void **state)
{
    (void)state;
    const char *machine[] = {"EMULATED_CUDA_DRIVER=missing", NULL};
    const char *said = on_machine(machine, count_and_open);
    support_assert_contains(said, "STATUS_UNAVAILABLE: no NVIDIA driver on this machine");
    support_assert_contains(said, "\n0 GPUs\nSTATUS_UNAVAILABLE: no NVIDIA driver");
    support_assert_contains(said, "parallel.backend=cpu");
}

static void test_old_driver(void **state)
{
    (void)state;
    const char *machine[] = {"EMULATED_CUDA_DRIVER=old", NULL};
    const char *said = on_machine(machine, count_and_open);
    support_assert_contains(said, "STATUS_UNAVAILABLE: the NVIDIA driver here knows CUDA up to 12.2 and this cohort was "
                                  "built with CUDA 13.0: install a newer driver");
    support_assert_contains(said, "\n0 GPUs\n");
}

static void test_no_gpu(void **state)
{
    (void)state;
    const char *none[] = {"EMULATED_CUDA_DEVICES=0", NULL};
    support_assert_contains(on_machine(none, count_and_open),
                            "STATUS_UNAVAILABLE: no GPU that this process may use (CUDA_VISIBLE_DEVICES: not set)");
    const char *hidden[] = {"CUDA_VISIBLE_DEVICES=", NULL};
    support_assert_contains(on_machine(hidden, count_and_open), "\n0 GPUs\nSTATUS_UNAVAILABLE: no GPU");
}

static void test_more_ranks_than_gpus(void **state)
{
    (void)state;
    const char *two[] = {"CUDA_VISIBLE_DEVICES=0,1", NULL};
    support_assert_contains(on_machine(two, count_and_open), "STATUS_OK: \n2 GPUs\nSTATUS_OK: \n");
    support_assert_contains(on_machine(two, open_fourth),
                            "STATUS_UNAVAILABLE: rank 3 of this node wants GPU 3, but 2 are here "
                            "(CUDA_VISIBLE_DEVICES: 0,1): start at most 2 ranks a node, or set parallel.backend=cpu");
    const char *one[] = {"EMULATED_CUDA_DEVICES=1", NULL};
    support_assert_contains(on_machine(one, open_fourth),
                            "but 1 is here (CUDA_VISIBLE_DEVICES: not set): start at most 1 rank a node");
}

static void test_gpu_that_is_too_old(void **state)
{
    (void)state;
    const char *machine[] = {"EMULATED_CUDA_CAPABILITY=75", "EMULATED_CUDA_NAMES=Old GPU", NULL};
    support_assert_contains(on_machine(machine, count_and_open),
                            "STATUS_UNAVAILABLE: GPU 0, Old GPU, has compute capability 7.5, wanted 8.0");
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    const char *machine[] = {"EMULATED_CUDA_MEMORY=67108864", NULL};
    const char *said = on_machine(machine, use_memory);
    support_assert_contains(said, "STATUS_NOMEM: the gradients: 68157440 bytes of GPU memory wanted, ");
    support_assert_contains(said, " of 67108864 are free on ");
    support_assert_contains(said, "\nSTATUS_OK: \n"); /* what fits is still given */
    const char *comma = strchr(said, ',');
    assert_non_null(comma);
    long mib = strtol(comma + 1, NULL, 10);
    assert_in_range(mib, 48, 60); /* free, less a reserve of a sixteenth */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_driver),
        cmocka_unit_test(test_old_driver),
        cmocka_unit_test(test_no_gpu),
        cmocka_unit_test(test_more_ranks_than_gpus),
        cmocka_unit_test(test_gpu_that_is_too_old),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
