/* A disk without room, imitated by a limit on the size of files: the failure is a sentence, the old checkpoint stays. */
#include "tests/support/support.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "ckpt/checkpoint.h"
#include "ckpt/safetensors.h"

static char run[128];

/* A checkpoint of `elements` floats and a state.json of `text` bytes. */
static enum status save(int64_t elements, size_t text)
{
    static char zeros[1 << 20];
    const struct safetensors_entry entry = {"w", TENSOR_F32, 1, {elements}};
    struct safetensors_writer *writer = NULL;
    struct str path = {0};
    enum status st;
    TRY_GOTO(fail, checkpoint_begin(run, "checkpoint-2", 0, &path));
    size_t n = path.n;
    TRY_GOTO(fail, str_addf(&path, "/model.safetensors"));
    TRY_GOTO(fail, safetensors_create(path.p, &entry, 1, NULL, true, &writer));
    TRY_GOTO(fail, safetensors_finish(writer));
    path.n = n;
    TRY_GOTO(fail, str_addf(&path, "/state.json"));
    TRY_GOTO(fail, file_write_atomic(path.p, zeros, text));
    st = checkpoint_commit(run, "checkpoint-2", NULL);
fail:
    str_release(&path);
    if (st != STATUS_OK)
        checkpoint_drop(run, "checkpoint-2");
    return st;
}

/* One safetensors file that finds no room is not left behind, whole or in part. */
static enum status create_only(int64_t elements, size_t text)
{
    const struct safetensors_entry entry = {"w", TENSOR_F32, 1, {elements}};
    struct safetensors_writer *writer;
    char path[256];
    (void)text;
    (void)snprintf(path, sizeof path, "%s/alone", run);
    enum status st = safetensors_create(path, &entry, 1, NULL, true, &writer);
    return writer == NULL && !file_exists(path) ? st : STATUS_OK;
}

/* work in a child whose files may have 64 KiB: 0 if it failed as it should. */
static int limited(enum status (*work)(int64_t, size_t), int64_t elements, size_t text, const char *part)
{
    int how;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit limit = {64 << 10, 64 << 10};
        (void)signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(3);
        enum status st = work(elements, text);
        bool right = st == STATUS_IO && strstr(status_message(), part) != NULL;
        if (!right)
            (void)fprintf(stderr, "%s: %s\n", status_name(st), status_message());
        fflush(NULL);
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how));
    return WEXITSTATUS(how);
}

static void expect_old(int64_t bytes)
{
    char path[256];
    int64_t size;
    assert_ok(checkpoint_verify(run, "checkpoint-2", true));
    snprintf(path, sizeof path, "%s/checkpoint-2/state.json", run);
    assert_ok(file_size(path, &size));
    assert_int_equal(size, bytes);
    snprintf(path, sizeof path, "%s/checkpoint-2.tmp", run);
    assert_false(file_exists(path));
}

static void test_no_room(void **state)
{
    (void)state;
    snprintf(run, sizeof run, "%s/run", support_folder());
    assert_ok(save(1000, 10));
    expect_old(10);
    assert_int_equal(limited(save, 1 << 18, 10, "it needs 1048"), 0); /* the weights do not fit */
    expect_old(10);
    assert_int_equal(limited(save, 1000, 1 << 18, "state.json"), 0); /* the state does not */
    expect_old(10);
    assert_int_equal(limited(create_only, 1 << 18, 0, "it needs 1048"), 0);
    assert_ok(save(1 << 18, 20));
    expect_old(20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_room)};
    log_setup(LOG_ERROR, 0, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
