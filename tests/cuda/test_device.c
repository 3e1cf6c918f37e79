/* test_device.c - a GPU as base/device.h promises it: memory, copies, order, its name. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/device_cuda.h"
#include "base/mem.h"
#include "tests/support/support.h"

#define STAGE ((size_t)4 << 20) /* copies are cut into pieces of this size */

static struct device *device;

static void test_says_what_it_is(void **state)
{
    (void)state;
    int count;
    assert_ok(device_count(DEVICE_CUDA, &count));
    assert_true(count >= 1);
    assert_int_equal(device_kind(device), DEVICE_CUDA);
    assert_true(device_name(device)[0] != '\0');
    support_assert_contains(device_domain(device), device_name(device));
    support_assert_contains(device_domain(device), ", sm_");
    support_assert_contains(device_domain(device), ", CUDA 1");
    support_assert_contains(device_place(device), ":"); /* a PCI bus id */
    assert_true(device_cuda_processors(device) > 0);
    assert_true(device_cuda_capability(device) >= 80);
    for (int a = 0; a < STREAM_COUNT; a++) {
        for (int b = 0; b < a; b++)
            assert_ptr_not_equal(device_cuda_stream(device, (enum device_stream)a),
                                 device_cuda_stream(device, (enum device_stream)b));
    }
}

static void test_memory_is_aligned_and_zeroed(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 255, 4096, 5 * STAGE / 2};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        char *p, *host;
        assert_ok(mem_alloc(sizes[k] + 1, 1, "host", &host));
        memset(host, 7, sizes[k] + 1);
        assert_ok(device_alloc(device, sizes[k], "a test", &p));
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 256, 0);
        assert_ok(device_get(device, host, p, sizes[k]));
        for (size_t i = 0; i < sizes[k]; i++)
            assert_int_equal(host[i], 0);
        assert_int_equal(host[sizes[k]], 7);
        device_free(device, p);
        mem_free(host);
    }
    device_free(device, NULL);
}

static void test_copies_of_all_lengths(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 1000, STAGE - 1, STAGE, STAGE + 1, 3 * STAGE, 3 * STAGE + 77};
    size_t most = 3 * STAGE + 77;
    unsigned char *from, *to, *p;
    assert_ok(mem_alloc(most, 1, "host", &from));
    assert_ok(mem_alloc(most + 1, 1, "host", &to));
    assert_ok(device_alloc(device, most, "a test", &p));
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        size_t n = sizes[k], at = k % 3; /* also from places inside an allocation */
        if (at + n > most)
            n = most - at;
        for (size_t i = 0; i < n; i++) /* periods that no piece has */
            from[i] = (unsigned char)(i % 251 + i / 65537 + k);
        memset(to, 0xAA, most + 1);
        assert_ok(device_put(device, p + at, from, n));
        unsigned char first = from[0];
        from[0] ^= 0xFF; /* the copy is done: what was given may change */
        assert_ok(device_get(device, to, p + at, n));
        from[0] = first;
        assert_memory_equal(to, from, n);
        assert_int_equal(to[n], 0xAA);
    }
    device_free(device, p);
    mem_free(to);
    mem_free(from);
}

/* Copies and clearing follow what was queued before them. */
static void test_order_is_that_of_the_compute_work(void **state)
{
    (void)state;
    enum { N = 1000 };
    char one[N], two[N], *p;
    memset(one, 1, N);
    assert_ok(device_alloc(device, N, "a test", &p));
    assert_ok(device_put(device, p, one, N));
    assert_ok(device_zero(device, p, N / 2));
    assert_ok(device_get(device, two, p, N));
    for (int i = 0; i < N; i++)
        assert_int_equal(two[i], i < N / 2 ? 0 : 1);
    assert_ok(device_zero(device, p, N));
    assert_ok(device_put(device, p + 10, one, 10)); /* behind the clearing, not before */
    assert_ok(device_get(device, two, p, N));
    for (int i = 0; i < N; i++)
        assert_int_equal(two[i], i >= 10 && i < 20);
    assert_ok(device_zero(device, p, 0));
    assert_ok(device_finish(device));
    device_free(device, p);
}

static void test_pinned_memory(void **state)
{
    (void)state;
    char *p;
    assert_ok(device_cuda_host_alloc(device, 5000, "a test", &p));
    for (int i = 0; i < 5000; i++)
        assert_int_equal(p[i], 0);
    memset(p, 1, 5000);
    device_cuda_host_free(device, p);
    device_cuda_host_free(device, NULL);
}

static void test_out_of_memory_is_a_sentence(void **state)
{
    (void)state;
    void *p = &p;
    assert_fails(device_alloc(device, (size_t)1 << 50, "the moments", &p), STATUS_NOMEM,
                 "the moments: 1125899906842624 bytes of GPU memory wanted, ");
    support_assert_contains(status_message(), device_name(device));
    assert_null(p);
    assert_int_equal(cudaGetLastError(), cudaSuccess); /* or the next launch would be blamed */
    assert_ok(device_alloc(device, 100, "a test", &p));
    device_free(device, p);
}

static void test_memory_that_is_taken_is_not_offered(void **state)
{
    (void)state;
    void *p;
    int64_t before = device_memory_bytes(device);
    assert_true(before > 0);
    assert_ok(device_alloc(device, (size_t)64 << 20, "a test", &p));
    int64_t during = device_memory_bytes(device);
    assert_true(during <= before - ((int64_t)64 << 20));
    device_free(device, p);
}

static void test_codes_become_statuses(void **state)
{
    (void)state;
    assert_ok(cuda_status(cudaSuccess, "nothing"));
    assert_fails(cuda_status(cudaErrorMemoryAllocation, "a plan"), STATUS_NOMEM,
                 "a plan: cudaErrorMemoryAllocation: out of memory");
    assert_fails(cuda_status(cudaErrorInsufficientDriver, "a"), STATUS_UNAVAILABLE, "Driver");
    assert_fails(cuda_status(cudaErrorNoDevice, "a"), STATUS_UNAVAILABLE, "NoDevice");
    assert_fails(cuda_status(cudaErrorIllegalAddress, "a"), STATUS_OS, "IllegalAddress");
    assert_fails(cuda_status(cudaErrorLaunchFailure, "a"), STATUS_OS, "LaunchFailure");
}

static void test_index_out_of_range(void **state)
{
    (void)state;
    int count;
    struct device *none = device;
    assert_ok(device_count(DEVICE_CUDA, &count));
    assert_fails(device_open(DEVICE_CUDA, -1, &none), STATUS_UNAVAILABLE, "wants GPU -1");
    assert_null(none);
    assert_fails(device_open(DEVICE_CUDA, count, &none), STATUS_UNAVAILABLE,
                 "set parallel.backend=cpu");
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_says_what_it_is),
        cmocka_unit_test(test_memory_is_aligned_and_zeroed),
        cmocka_unit_test(test_copies_of_all_lengths),
        cmocka_unit_test(test_order_is_that_of_the_compute_work),
        cmocka_unit_test(test_pinned_memory),
        cmocka_unit_test(test_out_of_memory_is_a_sentence),
        cmocka_unit_test(test_memory_that_is_taken_is_not_offered),
        cmocka_unit_test(test_codes_become_statuses),
        cmocka_unit_test(test_index_out_of_range),
    };
    enum status st = device_open(DEVICE_CUDA, 0, &device);
    if (st == STATUS_UNAVAILABLE) {
        printf("SKIP: %s\n", status_message());
        return 77;
    }
    if (st != STATUS_OK) {
        fprintf(stderr, "%s\n", status_message());
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(device);
    return failed;
}
