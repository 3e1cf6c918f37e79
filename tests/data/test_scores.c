/* test_scores.c - tables of scores read back with the HDF5 library. */
#include "tests/support/support.h"

#include <hdf5.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/scores.h"

enum { ROWS = 3, OUTPUTS = 2 };

static const int64_t ROW[ROWS] = {0, 5, INT64_C(1) << 40};
static const int32_t FOLD[ROWS] = {1, -1, 0}, LABEL[ROWS] = {0, 1, 1};
static const float LOGITS[ROWS * OUTPUTS] = {1.5f, -0.1f, 3e38f, -3e38f, 1e-40f, 0.0f};
static const float SCORES[ROWS * OUTPUTS] = {0.8f, 0.2f, 1.0f, 0.0f, 0.5f, 0.5f};
static const char *const NAMES[] = {"no", "s\303\274\303\237", ""}, *const IDS[] = {"", "row five", "x"};

static struct scores_table table_of_classes(void)
{
    return (struct scores_table){.rows = ROWS, .outputs = OUTPUTS, .classes = 2, .row = ROW, .fold = FOLD,
                                 .logits = LOGITS, .scores = SCORES, .label = LABEL, .names = NAMES, .id = IDS};
}

static const char *place(const char *name)
{
    char *path;
    assert_ok(path_join(support_folder(), name, &path));
    return support_keep(path);
}

/* The column has these dimensions (d1 0: only one) and these bytes when read as `type`. */
static void check_column(hid_t file, const char *name, hid_t type, hsize_t d0, hsize_t d1, const void *want,
                         size_t size)
{
    char got[256];
    hsize_t dims[2] = {0, 0};
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(set >= 0);
    hid_t space = H5Dget_space(set), stored = H5Dget_type(set);
    assert_int_equal(H5Sget_simple_extent_ndims(space), d1 == 0 ? 1 : 2);
    (void)H5Sget_simple_extent_dims(space, dims, NULL);
    assert_int_equal(dims[0], d0);
    assert_int_equal(dims[1], d1);
    assert_true(H5Tequal(stored, type) > 0);
    assert_true(size <= sizeof got);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, got) >= 0);
    assert_memory_equal(got, want, size);
    (void)H5Tclose(stored);
    (void)H5Sclose(space);
    (void)H5Dclose(set);
}

static hid_t text_type(size_t width)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    (void)H5Tset_size(type, width);
    (void)H5Tset_strpad(type, H5T_STR_NULLPAD);
    (void)H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

static void test_columns_read_back(void **state)
{
    const char *path = place("oof.h5");
    struct scores_table table = table_of_classes();
    char format[64];
    int64_t version = 0;
    (void)state;
    assert_ok(scores_write(path, &table));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), name = text_type(5), id = text_type(8);
    assert_true(file >= 0);
    check_column(file, "row", H5T_STD_I64LE, ROWS, 0, ROW, sizeof ROW);
    check_column(file, "fold", H5T_STD_I32LE, ROWS, 0, FOLD, sizeof FOLD);
    check_column(file, "logits", H5T_IEEE_F32LE, ROWS, OUTPUTS, LOGITS, sizeof LOGITS);
    check_column(file, "scores", H5T_IEEE_F32LE, ROWS, OUTPUTS, SCORES, sizeof SCORES);
    check_column(file, "label", H5T_STD_I32LE, ROWS, 0, LABEL, sizeof LABEL);
    check_column(file, "names", name, 2, 0, "no\0\0\0s\303\274\303\237", 10);
    check_column(file, "id", id, ROWS, 0, "\0\0\0\0\0\0\0\0row fivex\0\0\0\0\0\0\0", 24);
    assert_true(H5Lexists(file, "value", H5P_DEFAULT) == 0);
    hid_t attribute = H5Aopen(file, "format", H5P_DEFAULT), type = H5Aget_type(attribute);
    assert_true(H5Aread(attribute, type, format) >= 0);
    assert_string_equal(format, "cohort-scores");
    (void)H5Tclose(type);
    (void)H5Aclose(attribute);
    attribute = H5Aopen(file, "version", H5P_DEFAULT);
    assert_true(H5Aread(attribute, H5T_NATIVE_INT64, &version) >= 0);
    assert_int_equal(version, 1);
    (void)H5Aclose(attribute);
    (void)H5Tclose(name);
    (void)H5Tclose(id);
    (void)H5Fclose(file);
}

static void test_values_and_what_is_missing(void **state)
{
    const char *path = place("values.h5");
    const float value[ROWS] = {1.0f, NAN, -2.5f};
    struct scores_table table = {.rows = ROWS, .outputs = 1, .row = ROW, .logits = LOGITS, .scores = LOGITS,
                                 .value = value};
    (void)state;
    assert_ok(scores_write(path, &table));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    check_column(file, "value", H5T_IEEE_F32LE, ROWS, 1, value, sizeof value);
    check_column(file, "logits", H5T_IEEE_F32LE, ROWS, 1, LOGITS, sizeof value);
    static const char *const missing[] = {"fold", "label", "names", "id"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        assert_true(H5Lexists(file, missing[i], H5P_DEFAULT) == 0);
    (void)H5Fclose(file);
}

/* Nothing to store is no failure: no rows, and labels and ids that are all empty. */
static void test_empty_tables(void **state)
{
    static const char *const empty[] = {"", "", ""};
    const char *path = place("empty.h5");
    struct scores_table table = table_of_classes();
    (void)state;
    table.names = table.id = empty;
    assert_ok(scores_write(path, &table));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), one = text_type(1);
    check_column(file, "id", one, ROWS, 0, "\0\0\0", 3);
    (void)H5Fclose(file);
    table.rows = 0;
    assert_ok(scores_write(path, &table));
    file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    check_column(file, "logits", H5T_IEEE_F32LE, 0, OUTPUTS, "", 0);
    check_column(file, "id", one, 0, 0, "", 0);
    (void)H5Tclose(one);
    (void)H5Fclose(file);
    table.outputs = 0;
    assert_fails(scores_write(path, &table), STATUS_ARG, "0 scores");
}

static void test_long_texts_are_padded_whole(void **state)
{
    const char *path = place("long.h5");
    char *text, got[3 * 1000];
    const char *ids[ROWS];
    struct scores_table table = table_of_classes();
    (void)state;
    assert_ok(mem_alloc(1001, 1, "an id", &text));
    memset(text, 'a', 1000);
    ids[0] = "b";
    ids[1] = text;
    ids[2] = "";
    table.id = ids;
    assert_ok(scores_write(path, &table));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), type = text_type(1000);
    hid_t set = H5Dopen2(file, "id", H5P_DEFAULT);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, got) >= 0);
    assert_true(got[0] == 'b' && got[1] == 0 && got[999] == 0 && got[2000] == 0 && got[2999] == 0);
    assert_memory_equal(got + 1000, text, 1000);
    (void)H5Dclose(set);
    (void)H5Tclose(type);
    (void)H5Fclose(file);
    mem_free(text);
}

static void test_same_table_same_bytes(void **state)
{
    const char *first = place("a.h5"), *second = place("b.h5");
    struct scores_table table = table_of_classes();
    char *a, *b;
    size_t na, nb;
    (void)state;
    assert_ok(scores_write(first, &table));
    assert_ok(scores_write(second, &table));
    assert_ok(file_read(first, 1 << 20, &a, &na));
    assert_ok(file_read(second, 1 << 20, &b, &nb));
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    mem_free(a);
    mem_free(b);
}

static void test_old_file_stays_on_failure(void **state)
{
    const char *path = support_file("old.h5", "old", 3);
    struct scores_table table = table_of_classes();
    struct rlimit limit, small;
    char *bytes;
    size_t n;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status st = scores_write(path, &table);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_fails(st, STATUS_IO, "old.h5");
    assert_ok(file_read(path, 64, &bytes, &n));
    assert_int_equal(n, 3);
    mem_free(bytes);
    assert_fails(scores_write(place("no such folder/x.h5"), &table), STATUS_IO, "x.h5");
}

/* ---- reading ---- */

static void test_what_was_written_is_read(void **state)
{
    const char *path = place("read.h5");
    struct scores_table table = table_of_classes();
    struct scores_file *file;
    struct scores_info info;
    int64_t row[ROWS];
    int32_t fold[ROWS], label[ROWS];
    float logits[ROWS * OUTPUTS], scores[ROWS * OUTPUTS];
    struct scores_columns all = {.row = row, .fold = fold, .logits = logits, .scores = scores, .label = label};
    struct str id = {0};
    (void)state;
    assert_ok(scores_write(path, &table));
    assert_ok(scores_open(path, &file));
    scores_get_info(file, &info);
    assert_int_equal(info.rows, ROWS);
    assert_int_equal(info.outputs, OUTPUTS);
    assert_int_equal(info.classes, 2);
    assert_true(info.has_fold && info.has_label && info.has_id && !info.has_value);
    assert_string_equal(info.names[0], NAMES[0]);
    assert_string_equal(info.names[1], NAMES[1]);
    assert_ok(scores_read(file, 0, ROWS, &all));
    assert_memory_equal(row, ROW, sizeof ROW);
    assert_memory_equal(fold, FOLD, sizeof FOLD);
    assert_memory_equal(label, LABEL, sizeof LABEL);
    assert_memory_equal(logits, LOGITS, sizeof LOGITS);
    assert_memory_equal(scores, SCORES, sizeof SCORES);
    assert_ok(scores_read(file, 2, 1, &all));
    assert_memory_equal(logits, LOGITS + 4, 2 * sizeof *logits);
    assert_ok(scores_read(file, ROWS, 0, &all));
    assert_ok(str_addf(&id, "<"));
    assert_ok(scores_id(file, 1, &id));
    assert_ok(scores_id(file, 0, &id));
    assert_string_equal(id.p, "<row five");
    assert_fails(scores_read(file, 2, 2, &all), STATUS_ARG, "rows 2 to 4");
    all.value = logits;
    assert_fails(scores_read(file, 0, 1, &all), STATUS_ARG, "column");
    assert_fails(scores_id(file, 3, &id), STATUS_ARG, "row 3");
    str_release(&id);
    scores_close(file);
    scores_close(NULL);
}

static void test_values_and_one_logit_are_read(void **state)
{
    const char *path = place("values.h5");
    struct scores_table table = table_of_classes();
    struct scores_file *file;
    struct scores_info info;
    float value[ROWS];
    struct str id = {0};
    struct scores_columns wanted = {.value = value};
    (void)state;
    table = (struct scores_table){.rows = ROWS, .outputs = 1, .row = ROW, .logits = LOGITS, .scores = SCORES,
                                  .value = SCORES + 1};
    assert_ok(scores_write(path, &table));
    assert_ok(scores_open(path, &file));
    scores_get_info(file, &info);
    assert_true(info.has_value && !info.has_label && !info.has_fold && !info.has_id);
    assert_int_equal(info.classes, 0);
    assert_ok(scores_read(file, 0, ROWS, &wanted));
    assert_memory_equal(value, SCORES + 1, sizeof value);
    assert_ok(scores_id(file, 0, &id));
    assert_int_equal(id.n, 0);
    scores_close(file);
    table = table_of_classes();
    table.outputs = 1; /* two classes, trained with bce */
    table.id = NULL;
    assert_ok(scores_write(path, &table));
    assert_ok(scores_open(path, &file));
    scores_close(file);
    table.rows = 0;
    assert_ok(scores_write(path, &table));
    assert_ok(scores_open(path, &file));
    scores_close(file);
}

/* A row is scored once in each repeat, and under random sub-samples by any number of folds. */
static void test_repeats_are_read(void **state)
{
    static const int64_t rows[ROWS] = {7, 7, 3};
    static const int32_t repeats[ROWS] = {0, 0, 1}, folds[ROWS] = {0, 2, 0}, falling[ROWS] = {0, 1, 0};
    const char *path = place("repeats.h5");
    struct scores_table table = table_of_classes();
    struct scores_file *file;
    struct scores_info info;
    int32_t got[ROWS];
    struct scores_columns wanted = {.repeat = got};
    (void)state;
    table.row = rows;
    table.repeat = repeats;
    table.fold = folds;
    assert_ok(scores_write(path, &table));
    assert_ok(scores_open(path, &file));
    scores_get_info(file, &info);
    assert_true(info.has_repeat && info.has_fold);
    assert_ok(scores_read(file, 0, ROWS, &wanted));
    assert_memory_equal(got, repeats, sizeof repeats);
    scores_close(file);
    table.repeat = falling;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "/row is 3 in line 2, wanted lines that ascend by repeat");
}

static void test_tables_that_contradict_themselves_are_refused(void **state)
{
    static const int64_t falling[ROWS] = {0, 7, 6}, negative[ROWS] = {-1, 0, 1};
    static const int32_t outside[ROWS] = {0, 2, 1}, folds[ROWS] = {0, -2, 1};
    static const char *const bad_utf8[] = {"a", "\377"};
    const char *path = place("bad.h5");
    struct scores_table table = table_of_classes();
    struct scores_file *file;
    (void)state;
    table.row = falling;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "/row is 6 in line 2");
    assert_null(file);
    table.row = negative;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "/row is -1");
    table = table_of_classes();
    table.label = outside;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "/label is 2 in line 1");
    table = table_of_classes();
    table.fold = folds;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "/fold is -2");
    table = table_of_classes();
    table.names = bad_utf8;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "text 1 of /names is not UTF-8");
    table = table_of_classes();
    table.names = NULL;
    assert_ok(scores_write(path, &table));
    assert_fails(scores_open(path, &file), STATUS_FORMAT, "0 labels and 2 scores");
    assert_fails(scores_open(place("none.h5"), &file), STATUS_NOINPUT, "none.h5");
}

/* Cut at every length, and with every byte of its headers changed: opened and read, or refused. */
static void test_damaged_files_never_crash(void **state)
{
    const char *path = place("whole.h5");
    struct scores_table table = table_of_classes();
    struct scores_file *file;
    int64_t row[ROWS];
    float logits[ROWS * OUTPUTS];
    struct scores_columns wanted = {.row = row, .logits = logits};
    char *bytes;
    size_t n;
    int refused = 0;
    (void)state;
    assert_ok(scores_write(path, &table));
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    for (size_t i = 0; i < n; i += i < 4096 ? 1 : 509) {
        FILE *out = fopen(path, "wb");
        bytes[i] = (char)(bytes[i] ^ 0x41);
        assert_true(out != NULL && fwrite(bytes, 1, i % 97 == 96 ? i : n, out) == (i % 97 == 96 ? i : n));
        assert_int_equal(fclose(out), 0);
        bytes[i] = (char)(bytes[i] ^ 0x41);
        enum status st = scores_open(path, &file);
        refused += st != STATUS_OK;
        if (st == STATUS_OK && scores_read(file, 0, ROWS, &wanted) != STATUS_OK)
            refused++;
        scores_close(file);
    }
    assert_true(refused > 100);
    mem_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_read_back),       cmocka_unit_test(test_values_and_what_is_missing),
        cmocka_unit_test(test_empty_tables),            cmocka_unit_test(test_long_texts_are_padded_whole),
        cmocka_unit_test(test_same_table_same_bytes),   cmocka_unit_test(test_old_file_stays_on_failure),
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_values_and_one_logit_are_read),
        cmocka_unit_test(test_repeats_are_read),
        cmocka_unit_test(test_tables_that_contradict_themselves_are_refused),
        cmocka_unit_test(test_damaged_files_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
