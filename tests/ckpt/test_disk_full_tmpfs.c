/* A disk that is really full: a file system of 256 KiB in memory, where this process may mount one; else SKIP. */
#include "tests/support/support.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"
#include "ckpt/safetensors.h"

static const char *run; /* the mount point */

static enum status save(const char *name, int64_t elements, int64_t need_bytes)
{
    const struct safetensors_entry entry = {"w", TENSOR_F32, 1, {elements}};
    struct safetensors_writer *writer = NULL;
    struct str path = {0};
    enum status st;
    TRY_GOTO(fail, checkpoint_begin(run, name, need_bytes, &path));
    TRY_GOTO(fail, str_addf(&path, "/model.safetensors"));
    TRY_GOTO(fail, safetensors_create(path.p, &entry, 1, NULL, true, &writer));
    TRY_GOTO(fail, safetensors_finish(writer));
    st = checkpoint_commit(run, name, NULL);
fail:
    str_release(&path);
    if (st != STATUS_OK)
        checkpoint_drop(run, name);
    return st;
}

static void expect_only_first(void)
{
    char **names;
    size_t count;
    assert_ok(checkpoint_verify(run, "checkpoint-1", true));
    assert_ok(folder_list(run, &names, &count));
    for (size_t i = 0; i < count; i++)
        assert_true(strcmp(names[i], "checkpoint-1") == 0 || strcmp(names[i], "filler") == 0);
    folder_list_free(names, count);
}

static void test_full_file_system(void **state)
{
    char path[256], filler[4096] = {0};
    (void)state;
    assert_ok(save("checkpoint-1", 10000, 40000));
    assert_fails(save("checkpoint-2", 1 << 17, 1 << 19), STATUS_IO, "needs 576716 bytes with room to spare");
    expect_only_first();
    assert_fails(save("checkpoint-2", 1 << 17, 0), STATUS_IO, "it needs 524"); /* bytes of the file, and */
    support_assert_contains(status_message(), "No space left on device");
    support_assert_contains(status_message(), "are free");
    expect_only_first();
    /* to the last block, so that not even a manifest finds room */
    snprintf(path, sizeof path, "%s/filler", run);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    setvbuf(file, NULL, _IONBF, 0);
    while (fwrite(filler, 1, sizeof filler, file) == sizeof filler) {
    }
    fclose(file);
    assert_int_equal(save("checkpoint-2", 0, 0), STATUS_IO);
    expect_only_first();
    assert_int_equal(truncate(path, 0), 0);
    assert_ok(save("checkpoint-2", 10000, 40000));
    assert_ok(checkpoint_verify(run, "checkpoint-2", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_full_file_system)};
    log_setup(LOG_ERROR, 0, 1);
    run = support_folder();
    /* an own mount namespace: the mount ends with this process, however it ends */
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", run, "tmpfs", 0, "size=256k") != 0) {
        (void)printf("SKIP: cannot mount a small file system here: %s\n", strerror(errno));
        return 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (umount2(run, MNT_DETACH) != 0)
        (void)fprintf(stderr, "umount %s: %s\n", run, strerror(errno));
    return failed;
}
