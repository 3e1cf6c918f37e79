/* test_text_formats.c - JSONL, ARFF and folders of .txt. */
#include "test_text.h"

#include <unistd.h>
#include <zlib.h>

static const struct text_opts jsonl = {.path = "a.jsonl", .text = "text", .label = "label"};
static const struct text_opts arff = {.path = "a.arff", .text = "Text", .label = "class-att"};

static void test_jsonl_strings_and_escapes(void **state)
{
    (void)state;
    expect_rows(&jsonl,
                "\xEF\xBB\xBF{\"text\": \"a \\\"b\\\"\\n\\u00e9 \\ud83d\\ude00\", \"label\": \"x\"}\r\n\n  \n"
                "{\"label\":\"\",\"text\":\"\",\"more\":[1,{\"text\":\"no\"}]}",
                "0[a \"b\"\n\xC3\xA9 \xF0\x9F\x98\x80][x]\n1[][]\n");
}

static void test_jsonl_numbers_and_booleans_as_written(void **state)
{
    (void)state;
    expect_rows(&jsonl,
                "{\"a\\\"}:,\": [1, {\"b\": \"},\"}], \"label\" : 1.0 , \"text\": \"t\"}\n"
                "{\"text\":\"t\",\"label\":0.1}\n"
                "{\"text\":\"t\",\"label\":-1E3}\n{\"label\":9007199254740993,\"text\":12}\n"
                "{\"text\":\"t\",\"label\":true}\n{\"text\":\"t\",\"label\":false}\n",
                "0[t][1.0]\n1[t][0.1]\n2[t][-1E3]\n3[12][9007199254740993]\n4[t][true]\n5[t][false]\n");
}

static void test_jsonl_null_is_missing(void **state)
{
    (void)state;
    expect_rows(&jsonl, "{\"text\":\"t\",\"label\":null}\n{\"text\":null,\"label\":1}\n{\"text\":\"u\"}\n",
                "0[t][-]\n1[-][1]\n2[u][-]\n");
    struct text_opts opts = jsonl;
    opts.where = "label!=1";
    expect_rows(&opts, "{\"text\":\"t\",\"label\":null}\n{\"text\":null,\"label\":1}\n{\"text\":\"u\"}\n",
                "0[t][-]\n2[u][-]\n");
    opts.where = "label=";
    opts.max_words = 2;
    expect_rows(&opts, "{\"text\":\"a  b c\",\"label\":null}\n{\"text\":null,\"label\":\"\"}\n", "0[a b][-]\n1[-][]\n");
}

static void test_jsonl_refusals(void **state)
{
    (void)state;
    static const char first[] = "{\"text\":\"t\",\"label\":1}\n";
    static const char *const cases[][2] = {
        {"[1]", "a.jsonl: row 1 (line 2): an array, wanted an object"},
        {"\"x\"", "row 1 (line 2): a string, wanted an object"},
        {"3", "a number, wanted an object"},
        {"null", "null, wanted an object"},
        {"{\"text\":\"t\"", "row 1 (line 2): not valid JSON: "},
        {"{\"text\":\"t\",\"label\":1} x", "not valid JSON: "},
        {"{\"text\":\"t\",\"text\":\"u\"}", "not valid JSON: duplicate object key"},
        {"{\"text\":\"a\\u0000b\"}", "not valid JSON: \\u0000 is not allowed"},
        {"{\"text\":\"\\ud800\"}", "not valid JSON: "},
        {"{\"txet\":\"t\",\"label\":1}", "row 1 (line 2): no \"text\"; a missing text is written null"},
        {"{\"text\":[\"t\"],\"label\":1}", "row 1 (line 2): \"text\" is an array, wanted a string"},
        {"{\"text\":\"t\",\"label\":{}}", "\"label\" is an object, wanted a string"},
        {"{\"text\":\"caf\xE9\"}", "row 1 (line 2): byte 35 (0xE9) is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char file[200];
        (void)snprintf(file, sizeof file, "%s%s\n", first, cases[i][0]);
        expect_failure(&jsonl, file, STATUS_DATA, cases[i][1]);
    }
    expect_failure(&jsonl, "", STATUS_DATA, "a.jsonl is empty, wanted one JSON object a line");
    expect_failure(&jsonl, "\n \n", STATUS_DATA, "a.jsonl is empty");
    expect_failure(&jsonl, "{\"text\":\"t\",\"lable\":1}\n", STATUS_CONFIG,
                   "a.jsonl has no column \"label\" (data.label); its first row has \"text\", \"lable\"; did you mean "
                   "\"lable\"?");
    expect_failure(&jsonl, "{}\n", STATUS_CONFIG, "its first row has none");
}

static const char weka_header[] = "% made by hand\n@relation 'a b'\n\n@attribute Text string\n"
                                  "@attribute class-att {0,1}\n\n@data\n\n";

static void expect_arff(const char *rows, const char *wanted)
{
    char file[600];
    (void)snprintf(file, sizeof file, "%s%s", weka_header, rows);
    expect_rows(&arff, file, wanted);
}

static void test_arff_strings(void **state)
{
    (void)state;
    expect_arff("'it\\'s \\\"so\\\"\\n100\\% \\\\ \\t\\r\\u00e9\\uD83D\\uDE00 \"',0\n",
                "0[it's \"so\"\n100% \\ \t\r\xC3\xA9\xF0\x9F\x98\x80 \"][0]\n");
    expect_arff("\"it's, % {no} comment\" ,\t1 % comment\r\n\n% x\n '' , '1'\nword\t0", "0[it's, % {no} comment][1]\n"
                                                                                    "1[][1]\n2[word][0]\n");
    expect_arff("a\\nb,0\n", "0[a\\nb][0]\n"); /* a backslash means something in quotes alone */
}

static void test_arff_missing_is_a_bare_question_mark(void **state)
{
    (void)state;
    expect_arff("?,?\n'?',1\n??,0\n", "0[-][-]\n1[?][1]\n2[??][0]\n");
}

static void test_arff_header(void **state)
{
    (void)state;
    struct text_opts opts = {.path = "a.arff", .text = "the 'text'", .label = "n", .id = "d"};
    expect_rows(&opts,
                "\xEF\xBB\xBF%c\r\n@RELATION x\r\n@ATTRIBUTE 'the \\'text\\'' STRING\r\n@Attribute n\tREAL % c\r\n"
                "@attribute d date \"yyyy-MM-dd HH:mm\"\n@attribute \"e\" { a, 'b c' ,\"d\"}\n@attribute f Integer\n"
                "@attribute g numeric\n@DATA\n'x',1.50,'2020',a,1,2\n",
                "0[x][1.50][2020]\n");
    expect_rows(&arff, weka_header, "");
    static const char *const cases[][2] = {
        {"", "a.arff is empty, wanted an ARFF header"},
        {"@relation x\n@attribute Text string\n", "a.arff: header (line 3): the file ends before @data"},
        {"@relation x\n@data\n", "header (line 2): @data without an @attribute"},
        {"text,label\na,b\n", "header (line 1): cannot read \"text,label\"; wanted @relation, @attribute or @data"},
        {"@attribute\n", "header (line 1): @attribute 1 has no name"},
        {"@attribute Text\n", "attribute \"Text\" has no type"},
        {"@attribute Text relational\n", "attribute \"Text\" has the type \"relational\""},
        {"@attribute Text {a,b\n", "attribute 1: the list of values is not closed"},
        {"@attribute Text {a}b\n", "attribute \"Text\": cannot read what follows its type"},
        {"@attribute 'Text string\n", "attribute 1: the quote ' is not closed on its line"},
        {"@attributes Text string\n", "cannot read \"@attributes Text string\""},
        {"@attribute Text string\n@attribute class-att numeric\n@attribute Text string\n@data\n",
         "the header has the column \"Text\" twice, in places 1 and 3"},
        {"@attribute T\xE9xt string\n", "header (line 1): byte 12 (0xE9) is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_failure(&arff, cases[i][0], STATUS_DATA, cases[i][1]);
    expect_failure(&arff, "@attribute text string\n@attribute class-att numeric\n@data\n", STATUS_CONFIG,
                   "a.arff has no column \"Text\" (data.text); it has \"text\", \"class-att\"; did you mean \"text\"?");
}

static void test_arff_refusals(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{0 'a', 1 1}", "a.arff: row 1 (line 10): sparse ARFF rows ({index value, ...}) are not supported"},
        {"'a',0,{2}", "value 3 begins with {; instance weights are not supported"},
        {"'a", "row 1 (line 10): value 1: the quote ' is not closed on its line"},
        {"'a\\',0", "value 1: the quote ' is not closed"},
        {"'a'b,0", "value 1 goes on behind its closing quote; a quote within is written \\'"},
        {"don't,0", "value 1 has a quote inside"},
        {"'a'", "row 1 (line 10): 1 value, wanted 2, one for each @attribute"},
        {"'a',0,1", "3 values, wanted 2"},
        {"'a',", "value 2 is empty; a missing value is written ?"},
        {",0", "value 1 is empty"},
        {"'\\q',0", "row 1 (line 10): \\q is not an escape"},
        {"'\\u12',0", "\\u12 is no character"},
        {"'\\uD83D x',0", "\\uD83D is no character"},
        {"'\\u0000',0", "\\u0000 is no character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char file[400];
        (void)snprintf(file, sizeof file, "%s'x',0\n%s\n", weka_header, cases[i][0]);
        expect_failure(&arff, file, STATUS_DATA, cases[i][1]);
    }
}

static const char *sub_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    char *path, *file;
    assert_ok(path_join(support_folder(), folder, &path));
    assert_ok(folder_make(path));
    assert_ok(path_join(path, name, &file));
    assert_ok(file_write_atomic(file, bytes, n));
    mem_free(file);
    return support_keep(path);
}

static void test_folder_rows_in_order_of_paths(void **state)
{
    (void)state;
    unsigned char packed[100];
    z_stream z = {.next_in = (Bytef *)"zipped", .avail_in = 6, .next_out = packed, .avail_out = sizeof packed};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    (void)deflateEnd(&z);
    (void)sub_file("set/pos", "10.txt", "ten\r\nlines \"x\"\n", 15);
    (void)sub_file("set/pos", "9.txt", "", 0);
    (void)sub_file("set/pos", "z.txt.gz", packed, sizeof packed - z.avail_out);
    (void)sub_file("set/pos", "notes.md", "no", 2);
    (void)sub_file("set/pos", ".hidden.txt", "no", 2);
    (void)sub_file("set/pos-b", "a.txt", "\xEF\xBB\xBF" "bom", 6);
    (void)sub_file("set/.git", "a.txt", "no", 2);
    struct text_opts opts = {.path = sub_file("set", "m.txt", "top", 3), .text = "text", .label = "label", .id = "id"};
    expect_file(&opts, "0[top][-][m.txt]\n1[bom][pos-b][pos-b/a.txt]\n2[ten\r\nlines \"x\"\n][pos][pos/10.txt]\n"
                       "3[][pos][pos/9.txt]\n4[zipped][pos][pos/z.txt.gz]\n");
    opts.where = "label=pos";
    opts.rows = "3-";
    expect_file(&opts, "3[][pos][pos/9.txt]\n4[zipped][pos][pos/z.txt.gz]\n");
    struct text_reader *reader;
    opts.label = "class";
    assert_fails(text_open(&opts, &reader), STATUS_CONFIG,
                 "has no column \"class\" (data.label); it has \"text\", \"label\", \"id\"");
}

static void test_folder_refusals(void **state)
{
    (void)state;
    struct text_reader *reader;
    struct text_row row;
    bool more;
    struct text_opts opts = {.path = sub_file("none", "a.md", "x", 1), .text = "text"};
    assert_fails(text_open(&opts, &reader), STATUS_DATA, "none: no .txt files in the folder");
    (void)sub_file("deep/a/b", "x.txt", "x", 1);
    opts.path = sub_file("deep", "x.txt", "x", 1);
    assert_fails(text_open(&opts, &reader), STATUS_DATA, "deep/a/b: a folder within a label's folder");
    (void)sub_file("bad", "1.txt", "fine", 4);
    opts.path = sub_file("bad", "2.txt", "caf\xE9", 4);
    assert_ok(text_open(&opts, &reader));
    assert_ok(text_next(reader, &row, &more));
    assert_fails(text_next(reader, &row, &more), STATUS_DATA, "bad/2.txt (row 1): byte 3 (0xE9) is not UTF-8");
    text_close(reader);
    opts.max_row_bytes = 3;
    assert_ok(text_open(&opts, &reader));
    assert_fails(text_next(reader, &row, &more), STATUS_DATA, "bad/1.txt (row 0): longer than 3 bytes");
    text_close(reader);
    opts.max_row_bytes = 0;
    assert_ok(text_open(&opts, &reader));
    char *gone;
    assert_ok(path_join(opts.path, "1.txt", &gone));
    assert_int_equal(unlink(gone), 0);
    assert_fails(text_next(reader, &row, &more), STATUS_NOINPUT, "bad/1.txt");
    mem_free(gone);
    text_close(reader);
    (void)sub_file("latin", "caf\xE9.txt", "x", 1);
    opts.path = sub_file("latin", "x.txt", "x", 1);
    assert_fails(text_open(&opts, &reader), STATUS_DATA, "is not UTF-8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jsonl_strings_and_escapes),
        cmocka_unit_test(test_jsonl_numbers_and_booleans_as_written),
        cmocka_unit_test(test_jsonl_null_is_missing),
        cmocka_unit_test(test_jsonl_refusals),
        cmocka_unit_test(test_arff_strings),
        cmocka_unit_test(test_arff_missing_is_a_bare_question_mark),
        cmocka_unit_test(test_arff_header),
        cmocka_unit_test(test_arff_refusals),
        cmocka_unit_test(test_folder_rows_in_order_of_paths),
        cmocka_unit_test(test_folder_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
