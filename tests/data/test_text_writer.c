/* test_text_writer.c - rows of results, read back by the reader and byte by byte. */
#include "test_text.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const float floats[] = {0.1f, -0.0f, 1.0f, FLT_MIN / 4, FLT_MAX, 16777217.0f, 3.14159274f, NAN, INFINITY};
static const int32_t ints[] = {101, -7, 102};
enum { FLOATS = sizeof floats / sizeof floats[0] };

static struct text_field field(const char *s)
{
    return (struct text_field){s, s == NULL ? 0 : strlen(s)};
}

static const char *in_folder(const char *name)
{
    char *path;
    assert_ok(path_join(support_folder(), name, &path));
    return support_keep(path);
}

static void write_two_rows(const char *path)
{
    struct text_writer *writer;
    struct text_cell cells[] = {
        {.name = "row", .kind = CELL_INT, .integer = -3},
        {.name = "te\"xt", .kind = CELL_TEXT, .text = field("a,\t\"b\"\r\nc \xC3\xA9")},
        {.name = "scores", .kind = CELL_FLOATS, .floats = floats, .n = FLOATS},
        {.name = "ids", .kind = CELL_INTS, .ints = ints, .n = 3},
    };
    assert_ok(text_writer_open(path, &writer));
    assert_ok(text_writer_row(writer, cells, 4));
    cells[0].integer = INT64_MAX;
    cells[1].text = field(NULL);
    cells[2].n = 1;
    cells[3].n = 0;
    assert_ok(text_writer_row(writer, cells, 4));
    assert_false(file_exists(path)); /* the name appears when the file is whole */
    assert_ok(text_writer_close(writer, true));
}

static void expect_bytes(const char *path, const char *wanted)
{
    char *bytes;
    size_t n;
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    assert_string_equal(bytes, wanted);
    mem_free(bytes);
}

static void test_three_formats(void **state)
{
    (void)state;
    const char *path = in_folder("rows.jsonl");
    write_two_rows(path);
    char *bytes;
    size_t n;
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    support_assert_contains(bytes,
                            "{\"row\":-3,\"te\\\"xt\":\"a,\\t\\\"b\\\"\\r\\nc \xC3\xA9\",\"scores\":[0.1,-0.0,1,");
    support_assert_contains(bytes, ",null,null],\"ids\":[101,-7,102]}\n"
                                   "{\"row\":9223372036854775807,\"te\\\"xt\":null,\"scores\":[0.1],\"ids\":[]}\n");
    mem_free(bytes);
    path = in_folder("rows.tsv");
    write_two_rows(path);
    struct text_opts opts = {.path = path, .header = true, .text = "te\"xt", .label = "row", .group = "ids"};
    expect_file(&opts, "0[a, \"b\"  c \xC3\xA9][-3][101 -7 102]\n1[][9223372036854775807][]\n");
    path = in_folder("rows.CSV");
    write_two_rows(path);
    opts.path = path;
    expect_file(&opts, "0[a,\t\"b\"\r\nc \xC3\xA9][-3][101 -7 102]\n1[][9223372036854775807][]\n");
    assert_ok(file_read(path, 1 << 20, &bytes, &n));
    support_assert_contains(bytes, "row,\"te\"\"xt\",scores,ids\n-3,\"a,\t\"\"b\"\"\r\nc \xC3\xA9\",0.1 -0.0 1 ");
    support_assert_contains(bytes, " nan inf,101 -7 102\n9223372036854775807,,0.1,\n");
    mem_free(bytes);
    path = in_folder("rows");
    write_two_rows(path); /* without extension: JSONL */
    opts = (struct text_opts){.path = path, .format = TEXT_JSONL, .text = "te\"xt", .label = "row"};
    expect_file(&opts, "0[a,\t\"b\"\r\nc \xC3\xA9][-3]\n1[-][9223372036854775807]\n");
}

static void test_floats_read_back_to_the_same_bits(void **state)
{
    (void)state;
    uint32_t bits = 12345;
    const char *path = in_folder("floats.tsv");
    struct text_writer *writer;
    float values[1000];
    for (int i = 0; i < 1000; i++) {
        do {
            bits = bits * 1664525u + 1013904223u;
            memcpy(&values[i], &bits, sizeof bits);
        } while (!isfinite(values[i]));
    }
    memcpy(values, floats, (FLOATS - 2) * sizeof(float));
    assert_ok(text_writer_open(path, &writer));
    for (int i = 0; i < 1000; i++) {
        struct text_cell cell = {.name = "x", .kind = CELL_FLOATS, .floats = values + i, .n = 1};
        assert_ok(text_writer_row(writer, &cell, 1));
    }
    assert_ok(text_writer_close(writer, true));
    struct text_opts opts = {.path = path, .header = true, .text = "x"};
    struct text_reader *reader;
    struct text_row row;
    bool more;
    assert_ok(text_open(&opts, &reader));
    for (int i = 0; i < 1000; i++) {
        char text[64];
        assert_ok(text_next(reader, &row, &more));
        assert_true(more && row.text.n < sizeof text);
        memcpy(text, row.text.p, row.text.n);
        text[row.text.n] = '\0';
        float back = strtof(text, NULL);
        assert_memory_equal(&back, &values[i], sizeof back);
    }
    text_close(reader);
}

/* An empty text alone in its row must not read as an empty last line. */
static void test_empty_text_in_one_csv_column(void **state)
{
    (void)state;
    const char *path = in_folder("one.csv");
    struct text_writer *writer;
    struct text_cell cell = {.name = "text", .kind = CELL_TEXT, .text = field("")};
    assert_ok(text_writer_open(path, &writer));
    assert_ok(text_writer_row(writer, &cell, 1));
    assert_ok(text_writer_close(writer, true));
    struct text_opts opts = {.path = path, .header = true, .text = "text"};
    expect_file(&opts, "0[]\n");
}

static size_t files_in_folder(void)
{
    char **names;
    size_t count;
    assert_ok(folder_list(support_folder(), &names, &count));
    folder_list_free(names, count);
    return count;
}

static void test_dropped_output_leaves_the_old_file(void **state)
{
    (void)state;
    const char *path = support_file("kept.tsv", "old\n", 4);
    size_t before = files_in_folder();
    struct text_writer *writer;
    struct text_cell cell = {.name = "x", .kind = CELL_INT};
    assert_ok(text_writer_open(path, &writer));
    assert_ok(text_writer_row(writer, &cell, 1));
    assert_int_equal(files_in_folder(), before + 1);
    assert_ok(text_writer_close(writer, false));
    assert_int_equal(files_in_folder(), before);
    expect_bytes(path, "old\n");
    assert_ok(text_writer_open(path, &writer));
    assert_ok(text_writer_close(writer, true)); /* no rows: an empty file */
    expect_bytes(path, "");
    assert_ok(text_writer_close(NULL, true));
}

static void test_rows_unlike_the_first_are_refused(void **state)
{
    (void)state;
    const char *path = in_folder("uneven.csv");
    struct text_writer *writer;
    struct text_cell cells[] = {{.name = "a", .kind = CELL_INT}, {.name = "b", .kind = CELL_INT}};
    assert_ok(text_writer_open(path, &writer));
    assert_ok(text_writer_row(writer, cells, 2));
    assert_fails(text_writer_row(writer, cells, 1), STATUS_ARG, "a row of 1 cells, wanted 2 as in the first");
    assert_fails(text_writer_row(writer, cells, 2), STATUS_IO, "an earlier row failed");
    assert_fails(text_writer_close(writer, true), STATUS_IO, "an earlier row failed");
    assert_false(file_exists(path));
    assert_ok(text_writer_open(path, &writer));
    assert_ok(text_writer_row(writer, cells, 2));
    cells[1].name = "c";
    assert_fails(text_writer_row(writer, cells, 2), STATUS_ARG, "cell 1 is \"c\", wanted \"b\" as in the first row");
    assert_ok(text_writer_close(writer, false));
}

static void test_outputs_that_cannot_be(void **state)
{
    (void)state;
    struct text_writer *writer;
    assert_fails(text_writer_open("/nowhere/x.tsv", &writer), STATUS_IO, "cannot write /nowhere/x.tsv");
    assert_null(writer);
    assert_fails(text_writer_open("x.xml", &writer), STATUS_CONFIG, "x.xml: no format for \".xml\"; wanted .tsv, .csv");
    assert_fails(text_writer_open("x.tsv.gz", &writer), STATUS_CONFIG, "results are not compressed");
    assert_fails(text_writer_open(support_folder(), &writer), STATUS_IO, "it is a folder");
}

static void test_full_disk(void **state)
{
    (void)state;
    struct text_writer *writer;
    struct text_cell cell = {.name = "x", .kind = CELL_INT};
    struct stat info;
    if (stat("/dev/full", &info) != 0)
        skip();
    assert_ok(text_writer_open("/dev/full", &writer));
    assert_fails(text_writer_row(writer, &cell, 1), STATUS_IO, "cannot write /dev/full: No space left on device");
    assert_fails(text_writer_close(writer, true), STATUS_IO, "/dev/full");
    assert_int_equal(stat("/dev/full", &info), 0);
    assert_true(S_ISCHR(info.st_mode)); /* no file was renamed over it */
}

static void test_standard_output_row_by_row(void **state)
{
    (void)state;
    int kept = dup(STDOUT_FILENO), ends[2];
    char bytes[64] = "";
    struct text_writer *writer;
    struct text_cell cell = {.name = "row", .kind = CELL_INT, .integer = 1};
    (void)fflush(stdout);
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDOUT_FILENO) >= 0);
    enum status opened = text_writer_open("-", &writer);
    enum status written = opened == STATUS_OK ? text_writer_row(writer, &cell, 1) : opened;
    ssize_t n = written == STATUS_OK ? read(ends[0], bytes, sizeof bytes - 1) : 0; /* before the writer is closed */
    enum status closed = written == STATUS_OK ? text_writer_close(writer, true) : written;
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    (void)close(kept);
    (void)close(ends[0]);
    (void)close(ends[1]);
    assert_int_equal(closed, STATUS_OK);
    assert_int_equal(n, 10);
    assert_string_equal(bytes, "{\"row\":1}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_formats),
        cmocka_unit_test(test_floats_read_back_to_the_same_bits),
        cmocka_unit_test(test_empty_text_in_one_csv_column),
        cmocka_unit_test(test_dropped_output_leaves_the_old_file),
        cmocka_unit_test(test_rows_unlike_the_first_are_refused),
        cmocka_unit_test(test_outputs_that_cannot_be),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_standard_output_row_by_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
