/*
 * A process that dies, or an operation that fails, at every step of a checkpoint: the old one or the new one verifies
 * afterwards, nothing half-made is believed, and the next checkpoint works.
 */
#include "tests/support/support.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "ckpt/safetensors.h"

static char run[128];

static int new_run(void **state)
{
    static int made;
    (void)state;
    snprintf(run, sizeof run, "%s/run%d", support_folder(), made++);
    return 0;
}

static bool there(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", run, name);
    return file_exists(path);
}

/* One checkpoint whose only tensor holds value, written as two ranks would. */
static enum status save(const char *name, float value)
{
    const struct safetensors_entry entry = {"w", TENSOR_F32, 1, {2}};
    struct safetensors_writer *first = NULL, *second = NULL;
    struct str path = {0};
    enum status st;
    TRY_GOTO(fail, checkpoint_begin(run, name, 100, &path));
    TRY_GOTO(fail, str_addf(&path, "/model.safetensors"));
    TRY_GOTO(fail, safetensors_create(path.p, &entry, 1, NULL, true, &first));
    TRY_GOTO(fail, safetensors_create(path.p, &entry, 1, NULL, false, &second));
    TRY_GOTO(fail, safetensors_write(first, 0, 0, 1, &value));
    TRY_GOTO(fail, safetensors_write(second, 0, 1, 1, &value));
    st = safetensors_finish(second);
    second = NULL;
    if (st != STATUS_OK)
        goto fail;
    st = safetensors_finish(first);
    first = NULL;
    if (st != STATUS_OK)
        goto fail;
    TRY_GOTO(fail, checkpoint_commit(run, name, NULL));
    str_release(&path);
    return STATUS_OK;
fail:
    safetensors_abandon(first);
    safetensors_abandon(second);
    str_release(&path);
    checkpoint_drop(run, name);
    return st;
}

/* The value of a checkpoint that verifies; fails the test if it does not. */
static float value_of(const char *name)
{
    struct safetensors *file;
    char path[256];
    float values[2];
    assert_ok(checkpoint_verify(run, name, true));
    snprintf(path, sizeof path, "%s/%s", run, name);
    assert_ok(safetensors_open_folder(path, &file));
    assert_ok(safetensors_read(file, safetensors_at(file, 0), 0, 2, values));
    safetensors_close(file);
    assert_true(values[0] == values[1]);
    return values[0];
}

enum { DIED = -1 };

/* work(1) in a child with COHORT_FAULT=fault: its status, or DIED by SIGKILL. */
static int in_child(const char *fault, enum status (*work)(void))
{
    int how;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("COHORT_FAULT", fault, 1);
        enum status st = fault_setup(0);
        _exit(st == STATUS_OK ? (int)work() : 99); /* no exit handlers: the folder is the parent's */
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    if (WIFSIGNALED(how)) {
        assert_int_equal(WTERMSIG(how), SIGKILL);
        return DIED;
    }
    return WEXITSTATUS(how);
}

/* Every step of a commit and whether the new checkpoint stands when the process dies there. */
static const struct point {
    const char *name;
    bool only_replacing, new_stands;
} points[] = {
    {"ckpt.begin", false, false},   {"ckpt.begun", false, false},   {"ckpt.create", false, false},
    {"ckpt.join", false, false},    {"ckpt.write", false, false},   {"ckpt.write:2", false, false},
    {"ckpt.finish", false, false},  {"ckpt.finish:2", false, false}, {"ckpt.commit", false, false},
    {"ckpt.manifest", false, false}, {"ckpt.sync", false, false},   {"ckpt.aside", true, false},
    {"ckpt.rename", false, false},  {"ckpt.parent", false, true},   {"ckpt.cleanup", true, true},
};
enum { POINTS = sizeof points / sizeof *points };

static enum status save_again(void)
{
    return save("checkpoint-2", 2);
}

static void expect_last(int64_t wanted)
{
    int64_t step;
    char *name;
    assert_ok(checkpoint_find_last(run, &step, &name));
    mem_free(name);
    assert_int_equal(step, wanted);
}

/* A new step: before it stands, the one before it is found. */
static void test_death_at_every_step_of_a_new_checkpoint(void **state)
{
    char fault[64];
    (void)state;
    for (int i = 0; i < POINTS; i++) {
        if (points[i].only_replacing)
            continue;
        new_run(NULL);
        assert_ok(save("checkpoint-1", 1));
        snprintf(fault, sizeof fault, "%s=kill", points[i].name);
        assert_int_equal(in_child(fault, save_again), DIED);
        expect_last(points[i].new_stands ? 2 : 1);
        assert_true(value_of("checkpoint-1") == 1);
        assert_ok(save("checkpoint-2", 3));
        expect_last(2);
        assert_true(value_of("checkpoint-2") == 3);
        assert_false(there("checkpoint-2.tmp"));
    }
}

/* The same name again: the old content or the new verifies under it. */
static void test_death_at_every_step_of_a_replacement(void **state)
{
    char fault[64];
    (void)state;
    for (int i = 0; i < POINTS; i++) {
        new_run(NULL);
        assert_ok(save("checkpoint-2", 1));
        snprintf(fault, sizeof fault, "%s=kill", points[i].name);
        assert_int_equal(in_child(fault, save_again), DIED);
        expect_last(2);
        float wanted = points[i].new_stands ? 2 : 1;
        if (value_of("checkpoint-2") != wanted)
            fail_msg("%s: the checkpoint holds %g, wanted %g", points[i].name, (double)value_of("checkpoint-2"),
                     (double)wanted);
        assert_ok(save("checkpoint-2", 3));
        assert_true(value_of("checkpoint-2") == 3);
        assert_false(there("checkpoint-2.tmp"));
        assert_false(there("checkpoint-2.old"));
    }
}

/* Failure without death: the status comes back, the old checkpoint is under its own name at once. */
static void test_failure_at_every_step_of_a_replacement(void **state)
{
    (void)state;
    for (int i = 0; i < POINTS; i++) {
        bool after = strcmp(points[i].name, "ckpt.cleanup") == 0; /* only room is left to regain: the commit stands */
        new_run(NULL);
        assert_ok(save("checkpoint-2", 1));
        assert_int_equal(in_child(points[i].name, save_again), after ? STATUS_OK : STATUS_IO);
        if (value_of("checkpoint-2") != (after ? 2 : 1))
            fail_msg("%s: the checkpoint holds %g", points[i].name, (double)value_of("checkpoint-2"));
        assert_true(points[i].only_replacing || !there("checkpoint-2.tmp"));
        assert_ok(save("checkpoint-2", 3));
        assert_true(value_of("checkpoint-2") == 3);
        assert_false(there("checkpoint-2.old"));
    }
}

static enum status publish(void)
{
    return checkpoint_publish(run, 2, "best");
}

static void test_death_at_every_step_of_a_publication(void **state)
{
    static const char *const places[] = {"ckpt.begin",  "ckpt.begun", "ckpt.link",   "ckpt.publish",
                                         "ckpt.commit", "ckpt.manifest", "ckpt.sync", "ckpt.aside",
                                         "ckpt.rename", "ckpt.parent", "ckpt.cleanup"};
    char fault[64];
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        new_run(NULL);
        assert_ok(save("checkpoint-1", 1));
        assert_ok(checkpoint_publish(run, 1, "best"));
        assert_ok(save("checkpoint-2", 2));
        snprintf(fault, sizeof fault, "%s=kill", places[i]);
        assert_int_equal(in_child(fault, publish), DIED);
        expect_last(2); /* puts back what was aside */
        float found = value_of("best");
        assert_true(found == (i < 9 ? 1 : 2));
        assert_ok(publish());
        assert_true(value_of("best") == 2);
        assert_true(value_of("checkpoint-1") == 1);
        assert_false(there("best.tmp"));
        assert_false(there("best.old"));
    }
}

static enum status retain(void)
{
    return checkpoint_retain(run, 0, NULL, 0);
}

static void test_death_while_old_ones_are_removed(void **state)
{
    (void)state;
    for (int step = 1; step <= 3; step++) {
        char name[40];
        snprintf(name, sizeof name, "checkpoint-%d", step);
        assert_ok(save(name, (float)step));
    }
    assert_int_equal(in_child("ckpt.retain=kill", retain), DIED);
    assert_false(there("checkpoint-2")); /* gone as a whole, though its files are still on the disk */
    assert_true(there("checkpoint-2.tmp"));
    expect_last(3);
    assert_ok(retain());
    assert_false(there("checkpoint-2.tmp"));
    assert_false(there("checkpoint-1"));
    assert_true(value_of("checkpoint-3") == 3);
}

/* Not at our own points but anywhere: killed after a random time, many times. */
static enum status save_for_ever(void)
{
    for (int value = 10;; value++) {
        TRY(save("checkpoint-2", (float)value));
        TRY(publish());
    }
}

static void test_death_at_any_time(void **state)
{
    (void)state;
    assert_ok(save("checkpoint-2", 1));
    assert_ok(publish());
    for (unsigned i = 0; i < 25; i++) {
        int how;
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit((int)save_for_ever());
        usleep(500 + i * 7919 % 12000);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFSIGNALED(how));
        expect_last(2);
        assert_true(value_of("checkpoint-2") >= 1);
        assert_true(value_of("best") >= 1);
    }
}

int main(void)
{
#define T(test) cmocka_unit_test_setup(test, new_run)
    const struct CMUnitTest tests[] = {
        T(test_death_at_every_step_of_a_new_checkpoint),
        T(test_death_at_every_step_of_a_replacement),
        T(test_failure_at_every_step_of_a_replacement),
        T(test_death_at_every_step_of_a_publication),
        T(test_death_while_old_ones_are_removed),
        T(test_death_at_any_time),
    };
    log_setup(LOG_ERROR, 0, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
