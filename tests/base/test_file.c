/* test_file.c - whole files, atomic replacement that a full disk cannot break, folders, paths. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "tests/support/support.h"

static const char *path_of(const char *name)
{
    char *path;
    assert_ok(path_join(support_folder(), name, &path));
    return support_keep(path);
}

static void assert_holds(const char *path, const char *text)
{
    char *bytes;
    size_t n;
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    assert_int_equal(n, strlen(text));
    assert_string_equal(bytes, text);
    mem_free(bytes);
}

static void test_paths(void **state)
{
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"a//", "b", "a/b"}, {"/", "b", "/b"}, {".", "b", "./b"}};
    static const char *const extensions[][2] = {{"a.tsv", ".tsv"},       {"d.x/a", ""},         {"a.tsv.gz", ".tsv"},
                                                {"a.jsonl.zst", ".jsonl"}, {".hidden", ""},       {"a.gz", ""},
                                                {"x/a.b.csv", ".csv"},   {"", ""},              {"a.", "."}};
    struct str extension = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path;
        assert_ok(path_join(cases[i][0], cases[i][1], &path));
        assert_string_equal(path, cases[i][2]);
        mem_free(path);
    }
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        assert_ok(path_extension(extensions[i][0], &extension));
        assert_string_equal(extension.p, extensions[i][1]);
    }
    assert_string_equal(path_base("a/b.c"), "b.c");
    assert_string_equal(path_base("b"), "b");
    assert_string_equal(path_base("a/"), "");
    str_release(&extension);
}

static void test_reading(void **state)
{
    char *bytes = (char *)1;
    size_t n = 1;
    int64_t size;
    (void)state;
    const char *path = support_file("read", "abc", 3);
    assert_holds(path, "abc");
    assert_ok(file_size(path, &size));
    assert_int_equal(size, 3);
    assert_fails(file_read(path, 2, &bytes, &n), STATUS_FORMAT, "has 3 bytes, wanted at most 2");
    assert_null(bytes);
    assert_int_equal(n, 0);
    assert_fails(file_read(path_of("absent"), 9, &bytes, &n), STATUS_NOINPUT, "absent");
    assert_fails(file_read(support_folder(), 9, &bytes, &n), STATUS_NOINPUT, "is a folder, wanted a file");
    assert_fails(file_size(path_of("absent"), &size), STATUS_NOINPUT, "absent");
    assert_holds(support_file("empty", "", 0), "");
}

static void test_replacing(void **state)
{
    const char *path = path_of("atomic");
    (void)state;
    assert_ok(file_write_atomic(path, "one", 3));
    assert_holds(path, "one");
    assert_ok(file_write_atomic(path, "twice", 5));
    assert_holds(path, "twice");
    assert_fails(file_write_atomic(path_of("no/such/folder"), "x", 1), STATUS_IO, "no/such/folder");
}

/* A disk that fills up, played by a limit on the size of files: the old file stays whole and nothing is left beside. */
static void test_a_full_disk_leaves_the_old_file(void **state)
{
    static char large[100000];
    struct rlimit before, small;
    char **names;
    size_t count;
    (void)state;
    const char *folder = path_of("full");
    assert_ok(folder_make(folder));
    const char *path = path_of("full/file");
    assert_ok(file_write_atomic(path, "old", 3));
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status st = file_write_atomic(path, large, sizeof large);
    enum status copied = file_copy("/proc/self/exe", path_of("full/copy"));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(st, STATUS_IO);
    assert_int_not_equal(copied, STATUS_OK);
    assert_holds(path, "old");
    (void)unlink(path_of("full/copy"));
    assert_ok(folder_list(folder, &names, &count));
    assert_int_equal(count, 1);
    folder_list_free(names, count);
}

static void test_copy_and_hash(void **state)
{
    uint64_t a, b;
    int64_t n;
    (void)state;
    size_t size = 3000001;
    char *bytes;
    assert_ok(mem_alloc(size, 1, "bytes", &bytes));
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 7);
    const char *from = support_file("from", bytes, size), *to = path_of("to");
    assert_ok(file_copy(from, to));
    assert_ok(hash_file(from, &a, &n));
    assert_int_equal(n, size);
    assert_ok(hash_file(to, &b, &n));
    assert_true(a == b && a == hash_bytes(bytes, size));
    assert_fails(hash_file(path_of("absent"), &a, &n), STATUS_NOINPUT, "absent");
    mem_free(bytes);
}

static void test_folders(void **state)
{
    char **names;
    size_t count;
    (void)state;
    const char *folder = path_of("f");
    assert_ok(folder_make(path_of("f/b/c")));
    assert_ok(folder_make(path_of("f/b/c")));
    assert_ok(folder_make(path_of("f/a/")));
    assert_ok(file_write_atomic(path_of("f/z"), "x", 1));
    assert_fails(folder_make(path_of("f/z/y")), STATUS_IO, "f/z");
    assert_fails(folder_make(path_of("f/z")), STATUS_IO, "a file of that name is in the way");
    assert_ok(folder_list(folder, &names, &count));
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    assert_string_equal(names[2], "z");
    folder_list_free(names, count);
    assert_fails(folder_list(path_of("absent"), &names, &count), STATUS_NOINPUT, "absent");
    assert_null(names);
    assert_true(file_is_folder(folder) && !file_is_folder(path_of("f/z")) && file_exists(path_of("f/z")));
    assert_ok(folder_sync(folder));
    assert_ok(file_rename(path_of("f/z"), path_of("f/a/z")));
    assert_false(file_exists(path_of("f/z")));
    assert_fails(file_rename(path_of("f/z"), path_of("f/y")), STATUS_IO, "cannot rename");
}

static void test_removing_does_not_follow_links(void **state)
{
    (void)state;
    assert_ok(folder_make(path_of("kept")));
    assert_ok(file_write_atomic(path_of("kept/file"), "x", 1));
    assert_ok(folder_make(path_of("gone/inner")));
    assert_int_equal(symlink(path_of("kept"), path_of("gone/inner/link")), 0);
    assert_ok(folder_remove(path_of("gone")));
    assert_false(file_exists(path_of("gone")));
    assert_true(file_exists(path_of("kept/file")));
    assert_ok(folder_remove(path_of("gone")));
}

static void test_descriptors(void **state)
{
    char bytes[8] = "";
    (void)state;
    const char *path = support_file("fd", "0123456789", 10);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_ok(fd_pread_all(fd, bytes, 4, 3, path));
    assert_memory_equal(bytes, "3456", 4);
    assert_fails(fd_pread_all(fd, bytes, 4, 8, path), STATUS_FORMAT, "ends at byte 10, 2 bytes early");
    assert_ok(fd_pwrite_all(fd, "ab", 2, 5, path));
    assert_holds(path, "01234ab789");
    (void)close(fd);
    fd = open(path, O_RDONLY);
    assert_fails(fd_write_all(fd, "x", 1, path), STATUS_IO, "cannot write");
    assert_fails(fd_pwrite_all(fd, "x", 1, 0, path), STATUS_IO, "cannot write");
    (void)close(fd);
    fd = open("/dev/full", O_WRONLY);
    assert_fails(fd_write_all(fd, "x", 1, "/dev/full"), STATUS_IO, "cannot write /dev/full");
    (void)close(fd);
}

static void test_a_pipe_is_refused_and_not_waited_for(void **state)
{
    char *path, *bytes;
    size_t n;
    (void)state;
    assert_ok(path_join(support_folder(), "pipe", &path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(file_read(path, 100, &bytes, &n), STATUS_NOINPUT, "no plain file");
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pipe_is_refused_and_not_waited_for),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_replacing),
        cmocka_unit_test(test_a_full_disk_leaves_the_old_file),
        cmocka_unit_test(test_copy_and_hash),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_removing_does_not_follow_links),
        cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
