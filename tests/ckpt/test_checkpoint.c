/* Checkpoint folders: commit, verification, the newest good one, retention, publication, fence. */
#include "tests/support/support.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "ckpt/checkpoint.h"

static char run[128]; /* this test's folder */

static int new_run(void **state)
{
    static int made;
    (void)state;
    snprintf(run, sizeof run, "%s/run%d", support_folder(), made++);
    return 0;
}

static const char *at(const char *name)
{
    static char path[4][256];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", run, name);
    return path[next];
}

static void put(const char *name, const char *text)
{
    assert_ok(file_write_atomic(at(name), text, strlen(text)));
}

static bool holds(const char *name, const char *text)
{
    char *bytes;
    size_t n;
    assert_ok(file_read(at(name), 1 << 20, &bytes, &n));
    bool same = strcmp(bytes, text) == 0;
    mem_free(bytes);
    return same;
}

static void fill(const char *name, const char *text)
{
    struct str working = {0};
    char path[300];
    static const char *const files[] = {"config.json", "model.safetensors", "optimizer.safetensors", "state.json"};
    assert_ok(checkpoint_begin(run, name, 1000, &working));
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", working.p, files[i]);
        assert_ok(file_write_atomic(path, text, strlen(text)));
    }
    str_release(&working);
}

static void make(const char *name, const char *text)
{
    fill(name, text);
    assert_ok(checkpoint_commit(run, name, NULL));
}

static void make_step(int step)
{
    char name[40];
    snprintf(name, sizeof name, "checkpoint-%d", step);
    make(name, name);
}

static void expect_last(int64_t wanted)
{
    int64_t step = -2;
    char *name = (void *)1, text[40];
    assert_ok(checkpoint_find_last(run, &step, &name));
    assert_int_equal(step, wanted);
    if (wanted < 0) {
        assert_null(name);
        return;
    }
    snprintf(text, sizeof text, "checkpoint-%d", (int)wanted);
    assert_string_equal(name, text);
    mem_free(name);
}

static void expect_names(const char *wanted)
{
    char **names, all[1000] = "";
    size_t count;
    assert_ok(folder_list(run, &names, &count));
    for (size_t i = 0; i < count; i++) {
        strcat(all, i == 0 ? "" : " ");
        strcat(all, names[i]);
    }
    folder_list_free(names, count);
    assert_string_equal(all, wanted);
}

/* ---- commit and verify ---- */

static void test_commit_makes_a_folder_that_verifies(void **state)
{
    json_t *extra = json_pack("{s:s, s:f}", "weights", "00ff", "loss", 0.1), *manifest;
    (void)state;
    assert_fails(checkpoint_verify(run, "checkpoint-3", true), STATUS_NOINPUT, "no such folder");
    fill("checkpoint-3", "x");
    assert_fails(checkpoint_verify(run, "checkpoint-3", true), STATUS_NOINPUT, "no such folder");
    assert_ok(checkpoint_commit(run, "checkpoint-3", extra));
    assert_ok(checkpoint_verify(run, "checkpoint-3", true));
    expect_names("checkpoint-3");
    assert_ok(checkpoint_manifest(run, "checkpoint-3", &manifest));
    assert_string_equal(json_string_value(json_object_get(manifest, "format")), "cohort-checkpoint");
    assert_string_equal(json_string_value(json_object_get(manifest, "weights")), "00ff");
    const json_t *files = json_object_get(manifest, "files");
    assert_int_equal(json_object_size(files), 4);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(files, "state.json"), "size")), 1);
    json_decref(manifest);
    json_decref(extra);
}

static void test_equal_files_give_equal_manifests(void **state)
{
    char *first, *second;
    size_t n, m;
    (void)state;
    make("checkpoint-1", "same");
    make("checkpoint-2", "same");
    assert_ok(file_read(at("checkpoint-1/manifest.json"), 1 << 20, &first, &n));
    assert_ok(file_read(at("checkpoint-2/manifest.json"), 1 << 20, &second, &m));
    assert_int_equal(n, m);
    assert_memory_equal(first, second, n);
    mem_free(first);
    mem_free(second);
}

static void test_commit_replaces_a_folder(void **state)
{
    (void)state;
    make("best", "old");
    make("best", "new");
    assert_ok(checkpoint_verify(run, "best", true));
    assert_true(holds("best/state.json", "new"));
    expect_names("best");
}

static void test_begin_clears_what_a_crash_left(void **state)
{
    (void)state;
    make("best", "good");
    fill("best", "half");
    assert_int_equal(mkdir(at("best.tmp/deep"), 0700), 0);
    assert_ok(folder_make(at("best.old/deep")));
    fill("best", "next");
    assert_false(file_exists(at("best.tmp/deep")));
    assert_false(file_exists(at("best.old")));
    assert_ok(checkpoint_verify(run, "best", true));
    checkpoint_drop(run, "best");
    expect_names("best");
    /* the crash came between the two renames of a commit */
    assert_int_equal(rename(at("best"), at("best.old")), 0);
    fill("best", "next");
    assert_ok(checkpoint_verify(run, "best", true));
    assert_true(holds("best/state.json", "good"));
}

static void test_names_that_are_refused(void **state)
{
    static const char *const names[] = {"", ".", "..", "a/b", "../a", ".hidden", "a.tmp", "a.old", "a b", "a\n"};
    struct str working = {0};
    char longer[120];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_fails(checkpoint_begin(run, names[i], 0, &working), STATUS_ARG, "no name for a checkpoint");
        assert_fails(checkpoint_commit(run, names[i], NULL), STATUS_ARG, "no name for a checkpoint");
        assert_fails(checkpoint_verify(run, names[i], true), STATUS_ARG, "no name for a checkpoint");
        checkpoint_drop(run, names[i]);
    }
    memset(longer, 'a', sizeof longer);
    longer[101] = '\0';
    assert_fails(checkpoint_begin(run, longer, 0, &working), STATUS_ARG, "no name for a checkpoint");
    longer[100] = '\0';
    assert_ok(checkpoint_begin(run, longer, 0, &working));
    str_release(&working);
}

static void test_begin_wants_room(void **state)
{
    struct str working = {0};
    (void)state;
    assert_fails(checkpoint_begin(run, "best", INT64_MAX, &working), STATUS_IO, "needs 10145709240540253387 bytes");
    support_assert_contains(status_message(), "are free");
    assert_false(file_exists(at("best.tmp")));
    str_release(&working);
}

static void test_commit_refuses_what_it_cannot_hold(void **state)
{
    json_t *extra = json_pack("{s:s}", "files", "mine");
    (void)state;
    assert_fails(checkpoint_commit(run, "best", NULL), STATUS_IO, "best.tmp");
    fill("best", "x");
    assert_fails(checkpoint_commit(run, "best", extra), STATUS_ARG, "manifest's own key");
    assert_ok(folder_make(at("best.tmp/sub")));
    assert_fails(checkpoint_commit(run, "best", NULL), STATUS_IO, "not a plain file");
    assert_int_equal(rmdir(at("best.tmp/sub")), 0);
    assert_int_equal(symlink("state.json", at("best.tmp/link")), 0);
    assert_fails(checkpoint_commit(run, "best", NULL), STATUS_IO, "not a plain file");
    assert_int_equal(unlink(at("best.tmp/link")), 0);
    put("best", "a file");
    assert_fails(checkpoint_commit(run, "best", NULL), STATUS_IO, "is in the way");
    assert_int_equal(unlink(at("best")), 0);
    assert_ok(checkpoint_commit(run, "best", NULL)); /* the working folder outlived all of that */
    assert_ok(checkpoint_verify(run, "best", true));
    json_decref(extra);
}

static void test_verify_finds_what_changed(void **state)
{
    (void)state;
    make("best", "text");
    put("best/unknown", "tolerated");
    assert_ok(checkpoint_verify(run, "best", true));
    put("best/state.json", "texT");
    assert_ok(checkpoint_verify(run, "best", false));
    assert_fails(checkpoint_verify(run, "best", true), STATUS_FORMAT, "best/state.json: its bytes hash to");
    put("best/state.json", "tex");
    assert_fails(checkpoint_verify(run, "best", false), STATUS_FORMAT, "has 3 bytes, its manifest says 4");
    assert_int_equal(unlink(at("best/state.json")), 0);
    assert_fails(checkpoint_verify(run, "best", false), STATUS_FORMAT, "best/state.json is missing");
    assert_int_equal(mkfifo(at("best/state.json"), 0600), 0);
    assert_fails(checkpoint_verify(run, "best", true), STATUS_FORMAT, "not a plain file");
    assert_int_equal(unlink(at("best/manifest.json")), 0);
    assert_fails(checkpoint_verify(run, "best", false), STATUS_FORMAT, "never committed");
}

/* A manifest with a right hash of itself, so that what is inside is what is refused. text ends in "}\n". */
static void put_manifest(const char *members)
{
    char text[2000];
    size_t n = (size_t)snprintf(text, sizeof text, "{%s, \"check\": \"0000000000000000\"\n}\n", members);
    char digits[17];
    snprintf(digits, sizeof digits, "%016" PRIx64, hash_bytes(text, n));
    memcpy(text + n - 20, digits, 16);
    put("best/manifest.json", text);
}

static void test_manifests_that_are_refused(void **state)
{
    static const struct {
        const char *members, *sentence;
    } cases[] = {
        {"\"format\": \"cohort-checkpoint\", \"version\": 2, \"files\": {}", "\"version\" is 2"},
        {"\"format\": \"other\", \"version\": 1, \"files\": {}", "\"format\" is \"other\""},
        {"\"version\": 1, \"files\": {}", "\"format\" is missing"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1", "\"files\" is not an object"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": []", "\"files\" is not an object"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"../x\": {}}", "outside the folder"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"..\": {}}", "outside the folder"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"/etc/passwd\": {}}", "outside the folder"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"\": {}}", "outside the folder"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"a\": 1}", "\"size\" is missing"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"a\": {\"size\": -1}}", "\"size\" is -1"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {\"a\": {\"size\": 1, \"xxh3\": \"12\"}}",
         "wanted 16 hex digits"},
        {"\"format\": \"cohort-checkpoint\", \"version\": 1, \"version\": 1, \"files\": {}", "duplicate"},
    };
    (void)state;
    make("best", "text");
    put_manifest("\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {}");
    assert_ok(checkpoint_verify(run, "best", true));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_manifest(cases[i].members);
        assert_fails(checkpoint_verify(run, "best", true), STATUS_FORMAT, cases[i].sentence);
    }
    put("best/manifest.json", "{\"format\": \"cohort-checkpoint\", \"version\": 1, \"files\": {}}\n");
    assert_fails(checkpoint_verify(run, "best", true), STATUS_FORMAT, "\"check\" is missing");
    put("best/manifest.json", "{\"check\": \"0123456789abcdef\", \"format\": \"cohort-checkpoint\", \"version\": 1}\n");
    assert_fails(checkpoint_verify(run, "best", true), STATUS_FORMAT, "has changed since it was written");
    put("best/manifest.json", "");
    assert_fails(checkpoint_verify(run, "best", true), STATUS_FORMAT, "not valid JSON");
}

static void test_drop_keeps_the_sentence(void **state)
{
    (void)state;
    fill("best", "x");
    (void)status_fail(STATUS_IO, "the disk is full");
    checkpoint_drop(run, "best");
    assert_string_equal(status_message(), "the disk is full");
    assert_false(file_exists(at("best.tmp")));
    checkpoint_drop(run, "best"); /* nothing there: nothing said */
    assert_string_equal(status_message(), "the disk is full");
}

/* ---- the newest, and how many ---- */

static void test_find_last_sorts_by_number(void **state)
{
    (void)state;
    expect_last(-1); /* no folder */
    assert_ok(folder_make(run));
    expect_last(-1);
    make_step(9);
    make_step(100);
    make_step(20);
    expect_last(100);
    assert_ok(folder_make(at("checkpoint-0200")));
    assert_ok(folder_make(at("checkpoint-300.tmp")));
    assert_ok(folder_make(at("checkpoint-")));
    assert_ok(folder_make(at("checkpoint-x")));
    assert_ok(folder_make(at("checkpoint-5e3")));
    assert_ok(folder_make(at("checkpoint--400")));
    assert_ok(folder_make(at("checkpoint-99999999999999999999")));
    assert_ok(folder_make(at("xcheckpoint-400")));
    put("checkpoint-500", "a file");
    expect_last(100);
    make("checkpoint-9223372036854775807", "largest");
    int64_t step;
    char *name;
    assert_ok(checkpoint_find_last(run, &step, &name));
    assert_true(step == INT64_MAX);
    mem_free(name);
}

static void test_find_last_falls_back(void **state)
{
    (void)state;
    make_step(0);
    make_step(10);
    make_step(20);
    put("checkpoint-20/state.json", "checkpoint-2x"); /* same size: only the hash tells */
    expect_last(10);
    assert_int_equal(unlink(at("checkpoint-10/manifest.json")), 0);
    expect_last(0);
    assert_int_equal(truncate(at("checkpoint-0/model.safetensors"), 1), 0);
    expect_last(-1);
}

static void test_find_last_puts_back_what_was_aside(void **state)
{
    (void)state;
    make_step(10);
    make_step(20);
    make("best", "best");
    assert_int_equal(rename(at("checkpoint-20"), at("checkpoint-20.old")), 0);
    assert_int_equal(rename(at("best"), at("best.old")), 0);
    assert_ok(folder_make(at("mine.old"))); /* not ours */
    expect_last(20);
    assert_ok(checkpoint_verify(run, "best", true));
    expect_names("best checkpoint-10 checkpoint-20 mine.old");
}

static void test_retain_keeps_newest_protected_and_some(void **state)
{
    const int64_t protect[] = {20, 70};
    (void)state;
    for (int step = 10; step <= 70; step += 10)
        make_step(step);
    assert_ok(checkpoint_retain(run, 2, protect, 2));
    expect_names("checkpoint-20 checkpoint-50 checkpoint-60 checkpoint-70");
    assert_ok(checkpoint_retain(run, 2, protect, 2));
    expect_names("checkpoint-20 checkpoint-50 checkpoint-60 checkpoint-70");
    assert_ok(checkpoint_retain(run, 0, protect, 1));
    expect_names("checkpoint-20 checkpoint-70"); /* the newest stays, protected or not */
    assert_ok(checkpoint_retain(run, -1, NULL, 0));
    expect_names("checkpoint-70");
}

static void test_retain_does_not_count_broken_ones(void **state)
{
    (void)state;
    for (int step = 10; step <= 60; step += 10)
        make_step(step);
    assert_int_equal(unlink(at("checkpoint-60/manifest.json")), 0);
    assert_int_equal(unlink(at("checkpoint-40/state.json")), 0);
    assert_ok(checkpoint_retain(run, 1, NULL, 0));
    expect_names("checkpoint-30 checkpoint-50 checkpoint-60"); /* 60: broken, but newer than the newest good */
    assert_int_equal(unlink(at("checkpoint-30/state.json")), 0);
    assert_int_equal(unlink(at("checkpoint-50/state.json")), 0);
    assert_ok(checkpoint_retain(run, 1, NULL, 0));
    expect_names("checkpoint-30 checkpoint-50 checkpoint-60"); /* nothing good: nothing goes */
}

/* Checkpoints of another trainer, and a manifest of something else, are not ours to remove. */
static void test_retain_leaves_folders_of_others(void **state)
{
    static const char other[] = "{\"format\": \"pt\", \"version\": 1}\n";
    (void)state;
    for (int step = 10; step <= 50; step += 10)
        make_step(step);
    assert_int_equal(unlink(at("checkpoint-10/manifest.json")), 0);
    assert_ok(file_write_atomic(at("checkpoint-20/manifest.json"), other, strlen(other)));
    assert_int_equal(unlink(at("checkpoint-30/state.json")), 0); /* ours, though broken */
    assert_ok(checkpoint_retain(run, 0, NULL, 0));
    expect_names("checkpoint-10 checkpoint-20 checkpoint-50");
}

static void test_retain_sweeps_left_overs(void **state)
{
    (void)state;
    make_step(10);
    make_step(20);
    assert_ok(folder_make(at("checkpoint-15.tmp/x")));
    assert_ok(folder_make(at("checkpoint-10.old/x")));
    assert_ok(folder_make(at("checkpoint-30.tmp/x"))); /* may be in the making */
    assert_ok(folder_make(at("notes.tmp")));
    assert_ok(folder_make(at("checkpoint-010"))); /* not a name of ours, so not step 10 */
    assert_ok(checkpoint_retain(run, 5, NULL, 0));
    expect_names("checkpoint-010 checkpoint-10 checkpoint-20 checkpoint-30.tmp notes.tmp");
    assert_ok(checkpoint_retain(run, 0, NULL, 0));
    expect_names("checkpoint-010 checkpoint-20 checkpoint-30.tmp notes.tmp");
}

/* ---- publication ---- */

static nlink_t links(const char *name)
{
    struct stat info;
    assert_int_equal(stat(at(name), &info), 0);
    return info.st_nlink;
}

static void test_publish_links_all_but_the_training_state(void **state)
{
    json_t *extra = json_pack("{s:s}", "weights", "00ff"), *manifest;
    (void)state;
    fill("checkpoint-10", "ten");
    assert_ok(checkpoint_commit(run, "checkpoint-10", extra));
    put("checkpoint-10/unknown", "not in the manifest");
    make("best", "older");
    assert_ok(checkpoint_publish(run, 10, "best"));
    assert_ok(checkpoint_verify(run, "best", true));
    assert_true(holds("best/model.safetensors", "ten"));
    assert_int_equal(links("best/model.safetensors"), 2);
    assert_false(file_exists(at("best/optimizer.safetensors")));
    assert_false(file_exists(at("best/state.json")));
    assert_false(file_exists(at("best/unknown")));
    assert_ok(checkpoint_manifest(run, "best", &manifest));
    assert_string_equal(json_string_value(json_object_get(manifest, "weights")), "00ff");
    assert_string_equal(json_string_value(json_object_get(manifest, "source")), "checkpoint-10");
    json_decref(manifest);
    json_decref(extra);
    make_step(20);
    assert_ok(checkpoint_retain(run, 0, NULL, 0));
    assert_ok(checkpoint_verify(run, "best", true)); /* its files outlive their first name */
}

static void test_publish_copies_where_it_cannot_link(void **state)
{
    (void)state;
    make_step(10);
    setenv("COHORT_FAULT", "ckpt.link:2", 1);
    assert_ok(fault_setup(0));
    assert_ok(checkpoint_publish(run, 10, "best"));
    unsetenv("COHORT_FAULT");
    assert_ok(fault_setup(0));
    assert_ok(checkpoint_verify(run, "best", true));
    assert_int_equal(links("best/config.json"), 2);
    assert_int_equal(links("best/model.safetensors"), 1);
    assert_true(holds("best/model.safetensors", "checkpoint-10"));
}

static void test_publish_refuses_a_broken_source(void **state)
{
    (void)state;
    make("best", "older");
    assert_fails(checkpoint_publish(run, 10, "best"), STATUS_NOINPUT, "checkpoint-10");
    make_step(10);
    put("checkpoint-10/model.safetensors", "checkpoint-1x");
    assert_fails(checkpoint_publish(run, 10, "best"), STATUS_FORMAT, "not what it was");
    assert_true(holds("best/model.safetensors", "older"));
    assert_ok(checkpoint_verify(run, "best", true));
    expect_names("best checkpoint-10");
}

/* ---- fence ---- */

static void test_fence_of_the_last_to_come(void **state)
{
    char first[64], second[64];
    (void)state;
    unsetenv("SLURM_JOB_ID");
    assert_ok(checkpoint_fence(run, first));
    assert_ok(checkpoint_check_fence(run, first));
    assert_ok(checkpoint_fence(run, second));
    assert_string_not_equal(first, second);
    assert_ok(checkpoint_check_fence(run, second));
    assert_fails(checkpoint_check_fence(run, first), STATUS_FENCED, "taken over by process");
    assert_int_equal(unlink(at("run.lock")), 0);
    assert_fails(checkpoint_check_fence(run, second), STATUS_FENCED, "is gone");
    put("run.lock", "not JSON");
    assert_int_equal(checkpoint_check_fence(run, second), STATUS_FORMAT);
    assert_ok(checkpoint_fence(run, second));
    assert_ok(checkpoint_check_fence(run, second));
}

static void test_an_earlier_restart_does_not_overtake(void **state)
{
    char ghost[64], later[64];
    (void)state;
    setenv("SLURM_JOB_ID", "77", 1);
    assert_ok(checkpoint_fence(run, ghost));
    setenv("SLURM_RESTART_COUNT", "2", 1);
    assert_ok(checkpoint_fence(run, later));
    assert_fails(checkpoint_check_fence(run, ghost), STATUS_FENCED, "job 77");
    setenv("SLURM_RESTART_COUNT", "1", 1);
    assert_fails(checkpoint_fence(run, ghost), STATUS_FENCED, "restart 2 of job 77");
    assert_string_equal(ghost, "");
    assert_ok(checkpoint_check_fence(run, later));
    setenv("SLURM_JOB_ID", "78", 1); /* another job, started by somebody on purpose */
    assert_ok(checkpoint_fence(run, ghost));
    assert_fails(checkpoint_check_fence(run, later), STATUS_FENCED, "job 78");
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup(test, new_run)
    const struct CMUnitTest tests[] = {
        T(test_commit_makes_a_folder_that_verifies),
        T(test_equal_files_give_equal_manifests),
        T(test_commit_replaces_a_folder),
        T(test_begin_clears_what_a_crash_left),
        T(test_names_that_are_refused),
        T(test_begin_wants_room),
        T(test_commit_refuses_what_it_cannot_hold),
        T(test_verify_finds_what_changed),
        T(test_manifests_that_are_refused),
        T(test_drop_keeps_the_sentence),
        T(test_find_last_sorts_by_number),
        T(test_find_last_falls_back),
        T(test_find_last_puts_back_what_was_aside),
        T(test_retain_keeps_newest_protected_and_some),
        T(test_retain_does_not_count_broken_ones),
        T(test_retain_leaves_folders_of_others),
        T(test_retain_sweeps_left_overs),
        T(test_publish_links_all_but_the_training_state),
        T(test_publish_copies_where_it_cannot_link),
        T(test_publish_refuses_a_broken_source),
        T(test_fence_of_the_last_to_come),
        T(test_an_earlier_restart_does_not_overtake),
    };
    log_setup(LOG_ERROR, 0, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
