/* test_basics.c - status, memory, hashes, Philox, log lines, faults, threads, the CPU device. */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/device.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/threads.h"
#include "tests/support/support.h"

/* ---- status ---- */

static void test_statuses_have_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(status_exit_code(STATUS_OK), 0);
    assert_int_equal(status_exit_code(STATUS_USAGE), 64);
    assert_int_equal(status_exit_code(STATUS_CONFIG), 78);
    assert_int_equal(status_exit_code(STATUS_REQUEUE), 75);
    assert_int_equal(status_exit_code(STATUS_INTERNAL), 70);
    assert_int_equal(status_exit_code((enum status)STATUS_COUNT), 70);
    assert_string_equal(status_name(STATUS_IO), "STATUS_IO");
    assert_string_equal(status_text(STATUS_IO), "reading or writing failed");
    assert_string_equal(status_name((enum status)-1), "STATUS_?");
    for (int i = 1; i < STATUS_COUNT; i++)
        assert_true(status_exit_code((enum status)i) >= 64 && status_exit_code((enum status)i) <= 78);
}

static void test_sentences(void **state)
{
    char large[3000];
    (void)state;
    assert_int_equal(status_fail(STATUS_IO, "%s has %d", "a", 3), STATUS_IO);
    assert_string_equal(status_message(), "a has 3");
    assert_int_equal(status_prefix(STATUS_DATA, "fold %d", 2), STATUS_DATA);
    assert_string_equal(status_message(), "fold 2: a has 3");
    assert_int_equal(status_fail(STATUS_IO, "again: %s", status_message()), STATUS_IO);
    assert_string_equal(status_message(), "again: fold 2: a has 3");
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    (void)status_fail(STATUS_IO, "%s", large);
    assert_int_equal(strlen(status_message()), 1023);
    (void)status_prefix(STATUS_IO, "p");
    assert_true(strlen(status_message()) <= 1023 && strncmp(status_message(), "p: xxx", 6) == 0);
    (void)status_prefix(STATUS_IO, "%s", large);
    assert_int_equal(strlen(status_message()), 1023);
}

static void *other_thread(void *arg)
{
    (void)status_fail(STATUS_DATA, "another thread's");
    return strcmp(status_message(), "another thread's") == 0 ? arg : NULL;
}

static void test_each_thread_has_its_sentence(void **state)
{
    pthread_t thread;
    int one = 1;
    void *result;
    (void)state;
    (void)status_fail(STATUS_IO, "mine");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &one), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &one);
    assert_string_equal(status_message(), "mine");
}

/* ---- memory ---- */

static void test_sizes_are_checked(void **state)
{
    size_t n = 5;
    int i;
    void *p;
    (void)state;
    assert_true(size_mul(3, 4, &n) && n == 12);
    assert_false(size_mul(SIZE_MAX / 2, 3, &n));
    assert_false(size_add(SIZE_MAX, 1, &n));
    assert_int_equal(n, 12);
    assert_int_equal(round_up(0, 64), 0);
    assert_int_equal(round_up(1, 64), 64);
    assert_int_equal(round_up(64, 64), 64);
    assert_ok(checked_int(INT_MIN, "n", &i));
    assert_int_equal(i, INT_MIN);
    assert_fails(checked_int((int64_t)INT_MAX + 1, "the count", &i), STATUS_ARG, "the count is 2147483648");
    assert_fails(mem_alloc(SIZE_MAX / 2, 3, "the rows", &p), STATUS_NOMEM, "the rows");
    assert_null(p);
    assert_fails(mem_alloc_raw(SIZE_MAX - 8, 1, "the rows", &p), STATUS_NOMEM, "the rows");
    assert_null(p);
}

static void test_memory_is_aligned_and_zeroed(void **state)
{
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        unsigned char *p;
        assert_ok(mem_alloc(n, 1, "bytes", &p));
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xFF, n);
        mem_free(p);
    }
    mem_free(NULL);
}

static void test_arrays_grow(void **state)
{
    int *list = NULL;
    size_t capacity = 0;
    (void)state;
    for (int i = 0; i < 10000; i++) {
        assert_ok(mem_grow(&list, &capacity, (size_t)i + 1, sizeof *list, "a list"));
        list[i] = i;
    }
    for (int i = 0; i < 10000; i++)
        assert_int_equal(list[i], i);
    int *before = list;
    size_t room = capacity;
    assert_fails(mem_grow(&list, &capacity, SIZE_MAX / 2, sizeof *list, "a list"), STATUS_NOMEM, "a list");
    assert_true(list == before && capacity == room);
    mem_free(list);
    char *copy;
    assert_ok(mem_strndup("abcdef", 3, &copy));
    assert_string_equal(copy, "abc");
    mem_free(copy);
    assert_true(mem_peak_bytes() > 1 << 20 && mem_limit_bytes() > 1 << 20);
}

/* ---- hashes and random numbers ---- */

static void test_hashes_are_xxh3(void **state)
{
    (void)state;
    assert_true(hash_bytes("", 0) == 0x2D06800538D394C2u);
    assert_true(hash_bytes("a", 1) != hash_bytes("b", 1));
    assert_true(hash_combine(1, 2) != hash_combine(2, 1));
    assert_true(hash_combine(hash_combine(0, 1), 2) != hash_combine(hash_combine(0, 2), 1));
}

/* Random123's kat_vectors, philox4x32 10. */
static void test_philox_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], wanted[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const uint32_t *c = cases[i].counter;
        struct philox p =
            philox4x32((uint64_t)cases[i].key[1] << 32 | cases[i].key[0], c[0], c[1], c[2], c[3]);
        assert_memory_equal(p.v, cases[i].wanted, sizeof p.v);
    }
}

static void test_random_names(void **state)
{
    int seen[10] = {0};
    (void)state;
    assert_true(random_mix(0) == 0xE220A8397B1DCDAFu); /* splitmix64's first number from 0 */
    assert_true(random_key(1, RANDOM_FOLD, 0, 0) != random_key(1, RANDOM_SHUFFLE, 0, 0));
    assert_true(random_key(1, RANDOM_FOLD, 1, 0) != random_key(1, RANDOM_FOLD, 0, 1));
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t n = random_below(7, i, 10);
        assert_true(n < 10);
        seen[n]++;
        assert_int_equal(random_below(7, i, 1), 0);
    }
    for (int i = 0; i < 10; i++) /* 1000 expected, standard deviation 30 */
        assert_in_range(seen[i], 850, 1150);
}

/* ---- log ---- */

static const char *logged(void (*what)(void))
{
    const char *path = support_file("stderr", "", 0);
    char *bytes;
    size_t n;
    (void)fflush(stderr);
    int saved = dup(STDERR_FILENO), fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(saved >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    what();
    (void)dup2(saved, STDERR_FILENO);
    (void)close(saved);
    (void)close(fd);
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    return support_keep(bytes);
}

static void say(void)
{
    log_line(LOG_ERROR, "e %d", 1);
    log_warning("w");
    log_info("i");
    log_line(LOG_DEBUG, "d");
    log_progress("p"); /* no terminal: nothing */
}

static void say_much(void)
{
    log_info("%0*d", 5000, 7);
}

static void say_controls(void)
{
    log_warning("a\033[2Jb\x7F\xC2\x9B" "31m \xC3\xA9\xC2\xA0\tc\nd\r");
}

static void test_log_lines(void **state)
{
    (void)state;
    log_setup(LOG_INFO, 0, 2);
    assert_string_equal(logged(say), "cohort: error: e 1\nwarning: w\ni\n");
    log_setup(LOG_DEBUG, 0, 2);
    assert_string_equal(logged(say), "cohort: error: e 1\nwarning: w\ni\nd\n");
    log_setup(LOG_ERROR, 0, 2);
    assert_string_equal(logged(say), "cohort: error: e 1\n");
    log_setup(LOG_DEBUG, 1, 2);
    const char *other = logged(say);
    support_assert_contains(other, "[rank 1 ");
    support_assert_contains(other, "cohort: error: e 1\n");
    support_assert_contains(other, "] warning: w\n");
    assert_null(strstr(other, "] i\n")); /* what is no error is rank 0's to say */
    assert_null(strstr(other, "] d\n"));
    log_setup(LOG_INFO, 0, 1);
    assert_string_equal(logged(say_controls), "warning: a?[2Jb???31m \xC3\xA9\xC2\xA0\tc\nd?\n");
    const char *much = logged(say_much);
    assert_int_equal(strlen(much), 2047);
    assert_int_equal(much[2046], '\n');
}

static void test_log_file_has_the_same_lines(void **state)
{
    char *bytes;
    size_t n;
    (void)state;
    const char *path = support_file("log", "before\n", 7);
    log_setup(LOG_INFO, 0, 1);
    assert_ok(log_to_file(path));
    (void)logged(say);
    assert_ok(log_to_file(NULL));
    (void)logged(say);
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    assert_string_equal(bytes, "before\ncohort: error: e 1\nwarning: w\ni\n");
    mem_free(bytes);
    assert_fails(log_to_file("/nonexistent/log"), STATUS_IO, "/nonexistent/log");
    double now = clock_s();
    assert_true(clock_s() >= now);
}

/* ---- faults ---- */

static enum status setup(const char *text, int rank)
{
    assert_int_equal(setenv("COHORT_FAULT", text, 1), 0);
    log_setup(LOG_ERROR, 0, 1);
    return fault_setup(rank);
}

static void test_faults_hit_their_visit_and_rank(void **state)
{
    (void)state;
    assert_ok(setup("", 0));
    assert_ok(fault_here("data.read"));
    assert_ok(setup("data.read", 0));
    assert_ok(fault_here("data.write"));
    assert_fails(fault_here("data.read"), STATUS_IO, "fault injected at data.read");
    assert_ok(fault_here("data.read"));
    assert_ok(setup("data.read:3@1", 0));
    for (int i = 0; i < 5; i++)
        assert_ok(fault_here("data.read"));
    assert_ok(setup("data.read:3@1=error", 1));
    assert_ok(fault_here("data.read"));
    assert_ok(fault_here("data.read"));
    assert_fails(fault_here("data.read"), STATUS_IO, "data.read");
    static const char *const bad[] = {":3", "@1", "a:x", "a@x=kill", "a=explode", "a:1x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(setup(bad[i], 0), STATUS_USAGE, "COHORT_FAULT");
    assert_ok(setup("", 0));
}

static int outcome_of(const char *text, bool hangs)
{
    int state = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(setup(text, 0) != STATUS_OK || fault_here("x") != STATUS_OK ? 1 : 0);
    }
    if (hangs) {
        (void)usleep(200000);
        assert_int_equal(waitpid(child, &state, WNOHANG), 0);
        (void)kill(child, SIGKILL);
    }
    assert_int_equal(waitpid(child, &state, WUNTRACED), child);
    if (WIFSTOPPED(state)) {
        int stopped = state;
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &state, 0);
        return stopped;
    }
    return state;
}

static void test_faults_that_end_or_stop_a_process(void **state)
{
    (void)state;
    int st = outcome_of("x=kill", false);
    assert_true(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
    st = outcome_of("x=stop", false);
    assert_true(WIFSTOPPED(st) && WSTOPSIG(st) == SIGSTOP);
    st = outcome_of("x=hang", true);
    assert_true(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
    st = outcome_of("x=error", false);
    assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 1);
    assert_ok(setup("", 0));
}

/* ---- threads and the device ---- */

static void test_threads(void **state)
{
    (void)state;
    assert_true(threads_available() >= 1);
    threads_set(3);
    assert_int_equal(threads_count(), 3);
    threads_set(1);
    assert_int_equal(threads_count(), 1);
}

static void test_cpu_device(void **state)
{
    struct device *device;
    float *p, in[5] = {1, 2, 3, 4, 5}, out[5] = {0};
    (void)state;
    assert_ok(device_open(DEVICE_CPU, 0, &device));
    assert_int_equal(device_kind(device), DEVICE_CPU);
    assert_true(device_name(device)[0] != '\0' && device_memory_bytes(device) > 1 << 20);
    assert_ok(device_alloc(device, sizeof in, "numbers", &p));
    for (int i = 0; i < 5; i++)
        assert_true(p[i] == 0.0f);
    assert_ok(device_put(device, p, in, sizeof in));
    assert_ok(device_get(device, out, p, sizeof in));
    assert_memory_equal(in, out, sizeof in);
    assert_ok(device_zero(device, p + 1, 2 * sizeof *p));
    assert_ok(device_zero(device, p, 0));
    assert_ok(device_finish(device));
    assert_ok(device_get(device, out, p, sizeof in));
    assert_true(out[0] == 1 && out[1] == 0 && out[2] == 0 && out[3] == 4 && out[4] == 5);
    device_free(device, p);
    device_free(device, NULL);
    void *several[8];
    for (size_t i = 0; i < 8; i++) { /* 64 bytes would give some of these by chance, not all */
        assert_ok(device_alloc(device, i * 100, "numbers", &several[i]));
        assert_int_equal((uintptr_t)several[i] % 256, 0);
    }
    for (size_t i = 0; i < 8; i++)
        device_free(device, several[i]);
    assert_fails(device_alloc(device, SIZE_MAX - 10, "numbers", &p), STATUS_NOMEM, "numbers");
    assert_null(p);
    assert_string_equal(device_domain(device), device_name(device));
    assert_string_equal(device_place(device), "");
    device_close(device);
    device_close(NULL);
}

static void test_gpus_of_a_build_without_cuda(void **state)
{
    (void)state;
    int count;
    struct device *device = (struct device *)&count;
    assert_ok(device_count(DEVICE_CPU, &count));
    assert_int_equal(count, 1);
    assert_fails(device_count(DEVICE_CUDA, &count), STATUS_UNAVAILABLE, "built without CUDA");
    assert_int_equal(count, 0);
    assert_fails(device_open(DEVICE_CUDA, 0, &device), STATUS_UNAVAILABLE, "built without CUDA");
    assert_null(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses_have_exit_codes),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_each_thread_has_its_sentence),
        cmocka_unit_test(test_sizes_are_checked),
        cmocka_unit_test(test_memory_is_aligned_and_zeroed),
        cmocka_unit_test(test_arrays_grow),
        cmocka_unit_test(test_hashes_are_xxh3),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_random_names),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_log_file_has_the_same_lines),
        cmocka_unit_test(test_faults_hit_their_visit_and_rank),
        cmocka_unit_test(test_faults_that_end_or_stop_a_process),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_cpu_device),
        cmocka_unit_test(test_gpus_of_a_build_without_cuda),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
