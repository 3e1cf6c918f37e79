/* Reading safetensors: files of the Python package, every rejection rule, sharded folders, files that change. */
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "ckpt/safetensors.h"

/* A file of length word, header and data bytes of value 1. */
static const char *make(const char *name, const char *header, size_t header_bytes, uint64_t says, size_t data_bytes)
{
    char *bytes = test_malloc(8 + header_bytes + data_bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(says >> (8 * i) & 255);
    memcpy(bytes + 8, header, header_bytes);
    memset(bytes + 8 + header_bytes, 1, data_bytes);
    const char *path = support_file(name, bytes, 8 + header_bytes + data_bytes);
    test_free(bytes);
    return path;
}

static const char *make_plain(const char *name, const char *header, size_t data_bytes)
{
    return make(name, header, strlen(header), strlen(header), data_bytes);
}

static void refused(const char *path, const char *part)
{
    struct safetensors *file = (void *)1;
    enum status st = safetensors_open(path, &file);
    if (st != STATUS_FORMAT || strstr(status_message(), part) == NULL || strstr(status_message(), path) == NULL)
        fail_msg("%s: got %s \"%s\", wanted \"%s\"", path, status_name(st), status_message(), part);
    assert_null(file);
}

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"

static void test_headers_that_break_a_rule(void **state)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *sentence;
    } cases[] = {
        {" {}", 0, "does not begin with {"},
        {"[]", 0, "does not begin with {"},
        {"{", 0, "not valid JSON"},
        {"{}x", 0, "not valid JSON"},
        {"{}{}", 0, "not valid JSON"},
        {"{\"a\xff\":" T("F32", "1", "0,4") "}", 4, "not valid JSON"},
        {"{\"a\\u0000b\":" T("F32", "1", "0,4") "}", 4, "not valid JSON"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"a\":" T("F32", "1", "4,8") "}", 8, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate"},
        {"{\"a\":1}", 0, "wanted an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "wanted an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "nothing else"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]}}", 4, "data_offsets"},
        {"{\"a\":{\"type\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is missing"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is missing or not a string"},
        {"{\"a\":" T("F8_E4M3", "4", "0,4") "}", 4, "\"dtype\" is \"F8_E4M3\""},
        {"{\"a\":" T("f32", "1", "0,4") "}", 4, "\"dtype\" is \"f32\""},
        {"{\"a\":{\"dtype\":\"F32\",\"size\":[1],\"data_offsets\":[0,4]}}", 4, "\"shape\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "\"shape\" is missing or not a list"},
        {"{\"a\":" T("F32", "1,1,1,1,1,1,1,1,1", "0,4") "}", 4, "has 9 dimensions"},
        {"{\"a\":" T("F32", "-1", "0,4") "}", 4, "dimension 0 is not a whole number"},
        {"{\"a\":" T("F32", "1.0", "0,4") "}", 4, "dimension 0 is not a whole number"},
        {"{\"a\":" T("F32", "1,\"1\"", "0,4") "}", 4, "dimension 1 is not a whole number"},
        {"{\"a\":" T("F32", "1099511627777", "0,4") "}", 4, "dimension 0 is not a whole number from 0 to 2^40"},
        {"{\"a\":" T("F32", "18446744073709551617", "0,4") "}", 4, "not valid JSON"},
        {"{\"a\":" T("U8", "1099511627776,1099511627776", "0,4") "}", 4, "does not fit 63 bits"},
        /* 2^31 * 2^31 * 2^2 wraps to 0 in 64 bits: the size check must not see 0 */
        {"{\"a\":" T("U8", "2147483648,2147483648,4", "0,0") "}", 0, "does not fit 63 bits"},
        {"{\"a\":" T("F64", "1152921504606846976", "0,0") "}", 0, "dimension 0"},
        {"{\"a\":" T("F64", "1073741824,1073741824", "0,0") "}", 0, "size in bytes does not fit"},
        {"{\"a\":" T("F32", "1", "0") "}", 4, "\"data_offsets\" is not a list of two"},
        {"{\"a\":" T("F32", "1", "0,4,4") "}", 4, "\"data_offsets\" is not a list of two"},
        {"{\"a\":" T("F32", "1", "0,4.0") "}", 4, "\"data_offsets\" is not a list of two"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"0\":0,\"1\":4}}}", 4, "not a list of two"},
        {"{\"a\":" T("F32", "1", "-4,0") "}", 4, "within the 4 data bytes"},
        {"{\"a\":" T("F32", "1", "4,0") "}", 4, "within the 4 data bytes"},
        {"{\"a\":" T("F32", "2", "0,8") "}", 4, "within the 4 data bytes"},
        {"{\"a\":" T("F32", "1", "9223372036854775804,9223372036854775807") "}", 4, "within the 4 data bytes"},
        {"{\"a\":" T("F32", "2", "0,4") "}", 4, "spans 4 bytes, its shape needs 8"},
        {"{\"a\":" T("F32", "", "0,8") "}", 8, "spans 8 bytes, its shape needs 4"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"b\":" T("F32", "1", "0,4") "}", 4, "overlap or leave a hole"},
        {"{\"a\":" T("F32", "2", "0,8") ",\"b\":" T("F32", "1", "4,8") "}", 8, "overlap or leave a hole"},
        {"{\"a\":" T("F32", "1", "0,4") ",\"b\":" T("F32", "1", "8,12") "}", 12, "overlap or leave a hole"},
        {"{\"a\":" T("F32", "1", "4,8") "}", 8, "overlap or leave a hole"},
        {"{\"a\":" T("F32", "2", "0,8") ",\"b\":" T("F32", "0", "4,4") "}", 8, "overlap or leave a hole"},
        {"{\"a\":" T("F32", "1", "0,4") "}", 5, "take 4 bytes, the data has 5"},
        {"{}", 1, "take 0 bytes, the data has 1"},
        {"{\"__metadata__\":[]}", 0, "\"__metadata__\" is not an object"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "a value that is not a string"},
        {"{\"__metadata__\":{\"format\":{}}}", 0, "a value that is not a string"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4, "nested deeper"},
        {"{\"\":" T("F32", "1", "0,4") "}", 4, "name has 0 bytes"},
        {"{\"a\x7f\":" T("F32", "1", "0,4") "}", 4, "control characters"},
        {"{\"\\u001b[31m\":" T("F32", "1", "0,4") "}", 4, "control characters"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(make_plain("case.safetensors", cases[i].header, cases[i].data_bytes), cases[i].sentence);
}

static void test_sizes_that_break_a_rule(void **state)
{
    (void)state;
    refused(support_file("none", "", 0), "has 0 bytes, wanted at least 8");
    refused(support_file("seven", "\2\0\0\0\0\0\0", 7), "has 7 bytes, wanted at least 8");
    refused(make("zero", "", 0, 0, 0), "does not begin with {");
    refused(make("long", "{}", 2, 3, 0), "the file has 2 after the length");
    refused(make("huge", "{}", 2, 100000001, 0), "wanted at most 100000000");
    refused(make("wrap", "{}", 2, UINT64_MAX, 0), "wanted at most 100000000");
    refused(make("sign", "{}", 2, (uint64_t)1 << 63, 0), "wanted at most 100000000");
    refused(support_folder(), "is not a plain file");
}

static void test_names_have_a_longest_length(void **state)
{
    char header[1024], name[600];
    struct safetensors *file;
    (void)state;
    memset(name, 'n', sizeof name);
    snprintf(header, sizeof header, "{\"%.512s\":" T("F32", "1", "0,4") "}", name);
    assert_ok(safetensors_open(make_plain("name", header, 4), &file));
    safetensors_close(file);
    snprintf(header, sizeof header, "{\"%.513s\":" T("F32", "1", "0,4") "}", name);
    refused(make_plain("name", header, 4), "name has 513 bytes");
}

/* A header of many small values must be refused before it is parsed into memory. */
static void test_many_values_are_refused_early(void **state)
{
    size_t n = 12u << 20;
    char *header = test_malloc(n);
    (void)state;
    memset(header, ' ', n);
    memcpy(header, "{\"a\":[0", 7);
    for (size_t i = 7; i + 1 < n; i += 2)
        memcpy(header + i, ",0", 2);
    int64_t before = mem_peak_bytes();
    refused(make("many", header, n, n, 0), "more values than 262144 tensors need");
    assert_true(mem_peak_bytes() - before < (int64_t)64 << 20);
    test_free(header);
}

static void test_fifo_does_not_block(void **state)
{
    char *path;
    struct safetensors *file;
    (void)state;
    assert_ok(path_join(support_folder(), "fifo", &path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(safetensors_open(path, &file), STATUS_FORMAT, "not a plain file");
    mem_free(path);
    assert_fails(safetensors_open("/nonexistent/x", &file), STATUS_NOINPUT, "No such file");
}

static void test_legal_oddities(void **state)
{
    struct safetensors *file;
    float value;
    (void)state;
    assert_ok(safetensors_open(make_plain("empty", "{}", 0), &file));
    assert_int_equal(safetensors_count(file), 0);
    assert_null(safetensors_find(file, "a"));
    assert_null(safetensors_at(file, 0));
    safetensors_close(file);
    /* out of order in the header, empty tensors at both ends, spaces behind */
    assert_ok(safetensors_open(make_plain("odd", "{\"b\":" T("U8", "3", "4,7") ",\"z\":" T("F32", "0,5", "7,7")
                                                 ",\"a\":" T("U8", "4", "0,4") ",\"y\":" T("F32", "0", "0,0") "}   ",
                                          7),
                               &file));
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_at(file, 0)->name, "y");
    assert_string_equal(safetensors_at(file, 1)->name, "a");
    assert_string_equal(safetensors_at(file, 2)->name, "b");
    assert_string_equal(safetensors_at(file, 3)->name, "z");
    assert_ok(safetensors_read(file, safetensors_find(file, "z"), 0, 0, &value));
    assert_fails(safetensors_read(file, safetensors_find(file, "a"), 0, 1, &value), STATUS_FORMAT, "wanted floats");
    safetensors_close(file);
}

static size_t read_hex(const char *name, unsigned char *out, size_t room)
{
    char *path, *text;
    size_t n, used = 0;
    assert_ok(path_join(TEST_DIR "/golden", name, &path));
    assert_ok(file_read(path, 1 << 20, &text, &n));
    for (size_t i = 0; i + 1 < n; i++) {
        unsigned byte;
        if (text[i] == '\n')
            continue;
        assert_int_equal(sscanf(text + i, "%2x", &byte), 1);
        assert_true(used < room);
        out[used++] = (unsigned char)byte;
        i++;
    }
    mem_free(path);
    mem_free(text);
    return used;
}

static void expect(const struct safetensors *file, const char *name, enum tensor_dtype dtype, int rank, int64_t n,
                   const float *wanted)
{
    float got[8];
    const struct tensor_info *info = safetensors_find(file, name);
    assert_non_null(info);
    assert_int_equal(info->dtype, dtype);
    assert_int_equal(info->rank, rank);
    assert_int_equal(info->elements, n);
    assert_ok(safetensors_read(file, info, 0, n, got));
    for (int64_t i = 0; i < n; i++) {
        if (got[i] != wanted[i])
            fail_msg("%s[%d] is %a, wanted %a", name, (int)i, (double)got[i], (double)wanted[i]);
    }
    if (n > 1) {
        assert_ok(safetensors_read(file, info, n - 1, 1, got));
        assert_true(got[0] == wanted[n - 1]);
    }
    assert_fails(safetensors_read(file, info, 1, n, got), STATUS_ARG, "it has");
    assert_fails(safetensors_read(file, info, -1, 1, got), STATUS_ARG, "it has");
    assert_fails(safetensors_read(file, info, INT64_MAX, 2, got), STATUS_ARG, "it has");
}

static void test_file_of_the_python_package(void **state)
{
    unsigned char bytes[2048];
    size_t n = read_hex("safetensors_tiny.hex", bytes, sizeof bytes);
    struct safetensors *file;
    int64_t ids[2];
    (void)state;
    assert_ok(safetensors_open(support_file("python", bytes, n), &file));
    assert_int_equal(safetensors_count(file), 8);
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_string_equal(safetensors_metadata(file, "note"), "Gr\xc3\xbc\xc3\x9f" "e");
    assert_null(safetensors_metadata(file, "absent"));
    expect(file, "encoder.weight", TENSOR_F32, 2, 6, (const float[]){-1, -0.5F, 0, 0.5F, 1, 1.5F});
    expect(file, "half", TENSOR_F16, 1, 4, (const float[]){1, -2.5F, 65504, 0x1p-24F});
    expect(file, "brain", TENSOR_BF16, 1, 4, (const float[]){1, -2.5F, 0x1.c4p+127F, 0x1p-133F});
    expect(file, "double", TENSOR_F64, 1, 2, (const float[]){0.1F, -INFINITY});
    expect(file, "scalar", TENSOR_F32, 0, 1, (const float[]){7.25F});
    assert_int_equal(safetensors_find(file, "empty")->elements, 0);
    assert_int_equal(safetensors_find(file, "empty")->shape[1], 3);
    assert_int_equal(safetensors_find(file, "flags")->dtype, TENSOR_BOOL);
    assert_ok(safetensors_read_bytes(file, safetensors_find(file, "ids"), 0, 16, ids));
    assert_true(ids[0] == -1 && ids[1] == (int64_t)1 << 40);
    struct tensor_info foreign = *safetensors_find(file, "half");
    float value;
    assert_fails(safetensors_read(file, &foreign, 0, 1, &value), STATUS_ARG, "not of this file");
    assert_fails(safetensors_read(file, NULL, 0, 1, &value), STATUS_ARG, "not of this file");
    safetensors_close(file);
}

static void test_every_truncation_is_refused(void **state)
{
    unsigned char bytes[2048];
    size_t n = read_hex("safetensors_tiny.hex", bytes, sizeof bytes);
    struct safetensors *file;
    char *path;
    (void)state;
    assert_ok(path_join(support_folder(), "short", &path));
    FILE *out = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    fclose(out);
    for (size_t keep = n; keep-- > 0;) {
        assert_int_equal(truncate(path, (off_t)keep), 0);
        assert_int_equal(safetensors_open(path, &file), STATUS_FORMAT);
    }
    mem_free(path);
}

static void test_file_that_shrinks_or_grows_while_open(void **state)
{
    const char *path = make_plain("shrinks", "{\"a\":" T("F32", "2", "0,8") "}", 8);
    struct safetensors *file;
    float values[2];
    (void)state;
    assert_ok(safetensors_open(path, &file));
    const struct tensor_info *info = safetensors_at(file, 0);
    assert_ok(safetensors_read(file, info, 0, 2, values));
    assert_int_equal(truncate(path, info->offset + 4), 0);
    assert_fails(safetensors_read(file, info, 0, 2, values), STATUS_FORMAT, "changed while it was read");
    assert_int_equal(truncate(path, info->offset + 12), 0);
    assert_fails(safetensors_read(file, info, 0, 1, values), STATUS_FORMAT, "changed while it was read");
    safetensors_close(file);
}

/* ---- folders ---- */

static char folder[256];

static void new_folder(void)
{
    static int made;
    snprintf(folder, sizeof folder, "%s/model%d", support_folder(), made++);
    assert_ok(folder_make(folder));
}

static void put(const char *name, const char *text)
{
    char *path;
    assert_ok(path_join(folder, name, &path));
    assert_ok(file_write_atomic(path, text, strlen(text)));
    mem_free(path);
}

static void put_tensor(const char *file_name, const char *tensor)
{
    char header[200], name[64];
    snprintf(header, sizeof header, "{\"%s\":" T("F32", "1", "0,4") "}", tensor);
    snprintf(name, sizeof name, "%s/%s", path_base(folder), file_name);
    make_plain(name, header, 4);
}

static void folder_refused(enum status wanted, const char *part)
{
    struct safetensors *file = (void *)1;
    assert_fails(safetensors_open_folder(folder, &file), wanted, part);
    assert_null(file);
}

#define INDEX "model.safetensors.index.json"

static void test_sharded_folder(void **state)
{
    struct safetensors *file;
    float value;
    (void)state;
    new_folder();
    put_tensor("model-00002-of-00002.safetensors", "a");
    put_tensor("model-00001-of-00002.safetensors", "b");
    put(INDEX, "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\","
               "\"b\":\"model-00001-of-00002.safetensors\"}}");
    assert_ok(safetensors_open_folder(folder, &file));
    assert_int_equal(safetensors_count(file), 2);
    assert_string_equal(safetensors_at(file, 0)->name, "b");
    assert_ok(safetensors_read(file, safetensors_find(file, "a"), 0, 1, &value));
    safetensors_close(file);
    put_tensor("model.safetensors", "single"); /* one whole file goes first, as in transformers */
    assert_ok(safetensors_open_folder(folder, &file));
    assert_non_null(safetensors_find(file, "single"));
    safetensors_close(file);
}

static void test_index_that_breaks_a_rule(void **state)
{
    static const char *const names[] = {"../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "x.bin",
                                        ".safetensors",     "..",                 "",                  "a b.safetensors",
                                        ".x.safetensors"};
    char text[300];
    (void)state;
    new_folder();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        put(INDEX, text);
        folder_refused(STATUS_FORMAT, "not a plain NAME.safetensors");
    }
    put(INDEX, "{\"weight_map\":{\"a\":1}}");
    folder_refused(STATUS_FORMAT, "not a plain NAME.safetensors");
    put(INDEX, "{\"weight_map\":[]}");
    folder_refused(STATUS_FORMAT, "\"weight_map\" is not an object");
    put(INDEX, "{\"weight_map\":{}}");
    folder_refused(STATUS_FORMAT, "\"weight_map\" is not an object");
    put(INDEX, "[]");
    folder_refused(STATUS_FORMAT, "\"weight_map\" is not an object");
    put(INDEX, "{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}");
    folder_refused(STATUS_FORMAT, "duplicate");
    put(INDEX, "{\"weight_map\":{\"a\":\"x.safetensors\"}}");
    folder_refused(STATUS_NOINPUT, "x.safetensors: No such file");
    put_tensor("x.safetensors", "b");
    folder_refused(STATUS_FORMAT, "says nothing of it");
    put(INDEX, "{\"weight_map\":{\"b\":\"x.safetensors\",\"c\":\"x.safetensors\"}}");
    folder_refused(STATUS_FORMAT, "names 2 tensors, the shards have 1");
    put_tensor("y.safetensors", "b");
    put(INDEX, "{\"weight_map\":{\"b\":\"x.safetensors\",\"c\":\"y.safetensors\"}}");
    folder_refused(STATUS_FORMAT, "is in ");
    put_tensor("y.safetensors", "c");
    put_tensor("x.safetensors", "d");
    put(INDEX, "{\"weight_map\":{\"c\":\"x.safetensors\",\"d\":\"y.safetensors\"}}");
    folder_refused(STATUS_FORMAT, "\"weight_map\" says y.safetensors");
}

static void test_too_many_shards(void **state)
{
    char *text = test_malloc(1 << 16);
    size_t n = (size_t)sprintf(text, "{\"weight_map\":{");
    (void)state;
    new_folder();
    for (int i = 0; i < 513; i++)
        n += (size_t)sprintf(text + n, "%s\"t%d\":\"s%d.safetensors\"", i == 0 ? "" : ",", i, i);
    strcpy(text + n, "}}");
    put(INDEX, text);
    folder_refused(STATUS_FORMAT, "names 513 files, wanted at most 512");
    test_free(text);
}

static void test_pickles_are_named_and_never_read(void **state)
{
    static const char *const names[] = {"pytorch_model.bin", "model.pt", "weights.pth", "epoch.ckpt"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        new_folder();
        put(names[i], "\x80\x02.");
        folder_refused(STATUS_FORMAT, "weights_only=True).items()}, 'DIR/model.safetensors')");
        support_assert_contains(status_message(), names[i]);
    }
    new_folder();
    put("training_args.bin", "x");
    folder_refused(STATUS_NOINPUT, "has no model.safetensors");
    snprintf(folder, sizeof folder, "%s/absent", support_folder());
    folder_refused(STATUS_NOINPUT, "absent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_that_break_a_rule),
        cmocka_unit_test(test_sizes_that_break_a_rule),
        cmocka_unit_test(test_names_have_a_longest_length),
        cmocka_unit_test(test_many_values_are_refused_early),
        cmocka_unit_test(test_fifo_does_not_block),
        cmocka_unit_test(test_legal_oddities),
        cmocka_unit_test(test_file_of_the_python_package),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_file_that_shrinks_or_grows_while_open),
        cmocka_unit_test(test_sharded_folder),
        cmocka_unit_test(test_index_that_breaks_a_rule),
        cmocka_unit_test(test_too_many_shards),
        cmocka_unit_test(test_pickles_are_named_and_never_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
