/* test_run_log.c - lines of log.jsonl: appended whole, dropped when their steps run again. */
#include "tests/support/support.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/run_log.h"

static const char *folder_named(const char *name)
{
    char *path;
    assert_ok(path_join(support_folder(), name, &path));
    return support_keep(path);
}

static const char *log_in(const char *folder)
{
    char *path;
    assert_ok(path_join(folder, "log.jsonl", &path));
    return support_keep(path);
}

static void check_log(const char *folder, const char *want)
{
    char *text;
    size_t n;
    assert_ok(file_read(log_in(folder), 1 << 20, &text, &n));
    assert_string_equal(text, want);
    assert_int_equal(n, strlen(want));
    mem_free(text);
}

static json_t *step_line(int step)
{
    return json_pack("{s:s, s:i}", "kind", "train", "step", step);
}

static struct run_log *opened(const char *folder, int64_t keep)
{
    struct run_log *log;
    assert_ok(run_log_open(folder, true, keep, &log));
    return log;
}

static void test_lines_are_appended(void **state)
{
    const char *folder = folder_named("a/b");
    struct run_log *log = opened(folder, 0);
    (void)state;
    assert_ok(run_log_add(log, step_line(1)));
    check_log(folder, "{\"kind\":\"train\",\"step\":1}\n"); /* at once, not at the end */
    assert_ok(run_log_add(log, json_pack("{s:s}", "text", "two\nlines")));
    assert_ok(run_log_sync(log));
    run_log_close(log);
    check_log(folder, "{\"kind\":\"train\",\"step\":1}\n{\"text\":\"two\\nlines\"}\n");
}

static void test_resuming_drops_later_steps(void **state)
{
    static const char before[] = "{\"kind\":\"event\"}\n{\"step\":1}\n{\"step\":2}\nnot JSON\n{\"step\":3}\n"
                                 "{\"step\":2,\"again\":1}\n{\"step\":1,\"cut sho";
    const char *folder = folder_named("resumed");
    struct run_log *log;
    (void)state;
    assert_ok(folder_make(folder));
    assert_ok(file_write_atomic(log_in(folder), before, strlen(before)));
    log = opened(folder, 2);
    assert_ok(run_log_add(log, step_line(3)));
    run_log_close(log);
    check_log(folder, "{\"kind\":\"event\"}\n{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"again\":1}\n"
                      "{\"kind\":\"train\",\"step\":3}\n");
    run_log_close(opened(folder, -1)); /* every step runs again; what has none stays */
    check_log(folder, "{\"kind\":\"event\"}\n");
}

static void test_nothing_to_drop_leaves_the_file(void **state)
{
    const char *folder = folder_named("whole");
    struct run_log *log = opened(folder, 0);
    (void)state;
    assert_ok(run_log_add(log, step_line(1)));
    run_log_close(log);
    log = opened(folder, 1);
    assert_ok(run_log_add(log, step_line(2)));
    run_log_close(log);
    check_log(folder, "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"train\",\"step\":2}\n");
}

static void test_other_ranks_write_nothing(void **state)
{
    const char *folder = folder_named("silent");
    struct run_log *log;
    (void)state;
    assert_ok(run_log_open(folder, false, 0, &log));
    assert_ok(run_log_add(log, step_line(1)));
    assert_ok(run_log_add(log, NULL));
    assert_ok(run_log_sync(log));
    run_log_close(log);
    assert_false(file_exists(folder));
    run_log_close(NULL);
}

static void test_failures_are_said(void **state)
{
    const char *file = support_file("a file", "x", 1), *folder = folder_named("full");
    struct run_log *log = (struct run_log *)&file;
    struct rlimit limit, small;
    (void)state;
    assert_fails(run_log_open(file, true, 0, &log), STATUS_IO, "a file");
    assert_null(log);
    log = opened(folder, 0);
    assert_fails(run_log_add(log, NULL), STATUS_NOMEM, "line of the log");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 8;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status st = run_log_add(log, step_line(1));
    if (st == STATUS_OK)
        st = run_log_add(log, step_line(2));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_ok(st);
    check_log(folder, ""); /* the half line that got out is gone */
    assert_ok(run_log_add(log, step_line(3)));
    check_log(folder, "{\"kind\":\"train\",\"step\":3}\n");
    run_log_close(log);
}

/* A line that fits is kept when the one after it does not, also in a log that was there before. */
static void test_a_full_disk_keeps_whole_lines(void **state)
{
    const char *folder = folder_named("nearly full");
    struct rlimit limit, small;
    struct run_log *log = opened(folder, 0);
    (void)state;
    assert_ok(run_log_add(log, step_line(1)));
    run_log_close(log);
    log = opened(folder, 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 2 * strlen("{\"kind\":\"train\",\"step\":1}\n") + 5;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status st = run_log_add(log, step_line(2));
    if (st == STATUS_OK)
        st = run_log_add(log, step_line(3));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_ok(st);
    run_log_close(log);
    check_log(folder, "{\"kind\":\"train\",\"step\":1}\n{\"kind\":\"train\",\"step\":2}\n");
}

static void test_minutes_and_seconds(void **state)
{
    char buffer[32];
    (void)state;
    assert_string_equal(minutes_seconds(0.0, buffer), "0m 0s");
    assert_string_equal(minutes_seconds(59.999, buffer), "0m 59s");
    assert_string_equal(minutes_seconds(3661.0, buffer), "61m 1s");
    assert_string_equal(minutes_seconds(-1.0, buffer), "0m 0s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_appended),        cmocka_unit_test(test_resuming_drops_later_steps),
        cmocka_unit_test(test_other_ranks_write_nothing), cmocka_unit_test(test_nothing_to_drop_leaves_the_file),
        cmocka_unit_test(test_failures_are_said),         cmocka_unit_test(test_minutes_and_seconds),
        cmocka_unit_test(test_a_full_disk_keeps_whole_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
