/* Writing safetensors: exact bytes, any number of writers, values through every dtype, what is refused. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/halves.h"
#include "ckpt/safetensors.h"

#include <stdlib.h>

static const char *fresh(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", support_folder(), name);
    (void)unlink(path);
    return path;
}

static void test_exact_bytes(void **state)
{
    static const char wanted[] = "\x98\0\0\0\0\0\0\0"
                                 "{\"__metadata__\":{\"format\":\"pt\",\"k\\\"ey\":\"v\"},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                 "\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}}    "
                                 "\0\0\x80\x3f\0\0\0\xc0\x07";
    const struct safetensors_entry entries[] = {{"a", TENSOR_F32, 1, {2}}, {"s", TENSOR_U8, 0, {0}}};
    json_t *metadata = json_pack("{s:s}", "k\"ey", "v");
    struct safetensors_writer *writer;
    char *bytes;
    size_t n;
    (void)state;
    const char *path = fresh("exact");
    assert_ok(safetensors_create(path, entries, 2, metadata, true, &writer));
    assert_ok(safetensors_write(writer, 0, 0, 2, (const float[]){1, -2}));
    assert_ok(safetensors_write_bytes(writer, 1, 0, 1, "\x07"));
    assert_ok(safetensors_finish(writer));
    assert_ok(file_read(path, 1000, &bytes, &n));
    assert_int_equal(n % 8, 1); /* the data begins on a multiple of 8 */
    assert_int_equal(n, sizeof wanted - 1);
    assert_memory_equal(bytes, wanted, n);
    mem_free(bytes);
    json_decref(metadata);
}

enum { WEIGHTS = 10007, BIAS = 31, MOMENTS = 5000 };
static const struct safetensors_entry model[] = {{"encoder.weight", TENSOR_F32, 2, {1, WEIGHTS}},
                                                 {"encoder.bias", TENSOR_BF16, 1, {BIAS}},
                                                 {"empty", TENSOR_F32, 2, {0, 4}},
                                                 {"moment", TENSOR_F16, 1, {MOMENTS}},
                                                 {"double", TENSOR_F64, 1, {BIAS}}};
static const int64_t model_elements[] = {WEIGHTS, BIAS, 0, MOMENTS, BIAS};

static float value_of(int64_t entry, int64_t element)
{
    return (float)(entry + 1) * 0.37F * (float)(element % 997) - 100.0F / (float)(element + 1);
}

/* All values, written by `writers` that share each tensor, the last one first. */
static void write_model(const char *path, int writers)
{
    struct safetensors_writer *writer[8];
    float *values = test_malloc(WEIGHTS * sizeof *values);
    for (int w = 0; w < writers; w++)
        assert_ok(safetensors_create(path, model, 5, NULL, w == 0, &writer[w]));
    for (int w = writers; w-- > 0;) {
        for (int64_t e = 0; e < 5; e++) {
            int64_t low = model_elements[e] * w / writers, high = model_elements[e] * (w + 1) / writers;
            for (int64_t i = low; i < high; i++)
                values[i - low] = value_of(e, i);
            assert_ok(safetensors_write(writer[w], e, low, high - low, values));
        }
        assert_ok(safetensors_finish(writer[w]));
    }
    test_free(values);
}

static void test_any_number_of_writers_gives_the_same_bytes(void **state)
{
    char *first = NULL, *bytes;
    size_t first_n = 0, n;
    (void)state;
    for (int writers = 1; writers <= 7; writers++) {
        const char *path = fresh("writers");
        write_model(path, writers);
        assert_ok(file_read(path, 1 << 20, &bytes, &n));
        if (first == NULL) {
            first = bytes;
            first_n = n;
            continue;
        }
        assert_int_equal(n, first_n);
        assert_memory_equal(bytes, first, n);
        mem_free(bytes);
    }
    mem_free(first);
}

static void test_values_come_back(void **state)
{
    struct safetensors *file;
    float *values = test_malloc(WEIGHTS * sizeof *values);
    const char *path = fresh("back");
    (void)state;
    write_model(path, 2);
    assert_ok(safetensors_open(path, &file));
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    for (int64_t e = 0; e < 5; e++) {
        const struct tensor_info *info = safetensors_find(file, model[e].name);
        assert_non_null(info);
        assert_ok(safetensors_read(file, info, 0, model_elements[e], values));
        for (int64_t i = 0; i < model_elements[e]; i++) {
            float wanted = value_of(e, i);
            if (model[e].dtype == TENSOR_BF16)
                wanted = float_from_bf16(bf16_from_float(wanted));
            if (model[e].dtype == TENSOR_F16)
                wanted = float_from_f16(f16_from_float(wanted));
            if (values[i] != wanted)
                fail_msg("%s[%d] is %a, wanted %a", model[e].name, (int)i, (double)values[i], (double)wanted);
        }
    }
    safetensors_close(file);
    test_free(values);
}

static void test_nothing_at_all(void **state)
{
    struct safetensors_writer *writer;
    struct safetensors *file;
    const char *path = fresh("nothing");
    (void)state;
    assert_ok(safetensors_create(path, NULL, 0, NULL, true, &writer));
    assert_ok(safetensors_finish(writer));
    assert_ok(safetensors_open(path, &file));
    assert_int_equal(safetensors_count(file), 0);
    safetensors_close(file);
}

static void entry_refused(struct safetensors_entry entry, const char *part)
{
    struct safetensors_writer *writer = (void *)1;
    const char *path = fresh("refused");
    assert_fails(safetensors_create(path, &entry, 1, NULL, true, &writer), STATUS_ARG, part);
    assert_null(writer);
    assert_false(file_exists(path));
}

static void test_entries_that_cannot_be_laid_out(void **state)
{
    char name[514];
    (void)state;
    memset(name, 'n', 513);
    name[513] = '\0';
    entry_refused((struct safetensors_entry){name, TENSOR_F32, 1, {1}}, "has 513 bytes");
    entry_refused((struct safetensors_entry){"", TENSOR_F32, 1, {1}}, "has 0 bytes");
    entry_refused((struct safetensors_entry){"\xff", TENSOR_F32, 1, {1}}, "cannot have this name");
    entry_refused((struct safetensors_entry){"__metadata__", TENSOR_F32, 1, {1}}, "cannot have this name");
    entry_refused((struct safetensors_entry){"a\n", TENSOR_F32, 1, {1}}, "control characters");
    entry_refused((struct safetensors_entry){"a", (enum tensor_dtype)10, 1, {1}}, "dtype or rank");
    entry_refused((struct safetensors_entry){"a", TENSOR_F32, 9, {1}}, "dtype or rank");
    entry_refused((struct safetensors_entry){"a", TENSOR_F32, 1, {-1}}, "dimension 0 is -1");
    entry_refused((struct safetensors_entry){"a", TENSOR_F32, 2, {1, ((int64_t)1 << 40) + 1}}, "dimension 1");
    entry_refused((struct safetensors_entry){"a", TENSOR_U8, 2, {(int64_t)1 << 40, (int64_t)1 << 40}}, "63 bits");
    entry_refused((struct safetensors_entry){"a", TENSOR_U8, 2, {((int64_t)1 << 40) - 1, (int64_t)1 << 23}},
                  "does not fit 63 bits");
    const struct safetensors_entry twice[] = {
        {"b", TENSOR_F32, 1, {1}}, {"a", TENSOR_F32, 1, {1}}, {"b", TENSOR_F32, 1, {1}}};
    struct safetensors_writer *writer;
    assert_fails(safetensors_create(fresh("twice"), twice, 3, NULL, true, &writer), STATUS_ARG, "\"b\" is there twice");
    json_t *metadata = json_pack("{s:i}", "k", 1);
    assert_fails(safetensors_create(fresh("meta"), twice, 1, metadata, true, &writer), STATUS_ARG, "not a string");
    json_decref(metadata);
}

static void test_writes_that_leave_their_entry(void **state)
{
    const struct safetensors_entry entries[] = {{"a", TENSOR_F32, 1, {2}}, {"i", TENSOR_I64, 1, {1}}};
    const float values[3] = {0};
    struct safetensors_writer *w;
    (void)state;
    assert_ok(safetensors_create(fresh("leave"), entries, 2, NULL, true, &w));
    assert_fails(safetensors_write(w, 0, 0, 3, values), STATUS_ARG, "leaves it");
    assert_fails(safetensors_write(w, 0, 2, 1, values), STATUS_ARG, "leaves it");
    assert_fails(safetensors_write(w, 0, -1, 1, values), STATUS_ARG, "leaves it");
    assert_fails(safetensors_write(w, 0, 1, INT64_MAX, values), STATUS_ARG, "leaves it");
    assert_fails(safetensors_write(w, 0, 0, -1, values), STATUS_ARG, "leaves it");
    assert_fails(safetensors_write(w, 2, 0, 1, values), STATUS_ARG, "entry 2 of 2");
    assert_fails(safetensors_write(w, -1, 0, 1, values), STATUS_ARG, "entry -1 of 2");
    assert_fails(safetensors_write(w, 1, 0, 1, values), STATUS_ARG, "written by the other function");
    assert_fails(safetensors_write_bytes(w, 0, 0, 1, values), STATUS_ARG, "written by the other function");
    assert_fails(safetensors_write_bytes(w, 1, 1, 8, values), STATUS_ARG, "leaves it");
    assert_ok(safetensors_write(w, 0, 2, 0, values));
    assert_ok(safetensors_finish(w));
}

static void test_create_does_not_replace_or_follow(void **state)
{
    struct safetensors_writer *writer;
    const char *path = fresh("there");
    (void)state;
    assert_int_equal(symlink("/dev/null", path), 0);
    assert_fails(safetensors_create(path, model, 5, NULL, true, &writer), STATUS_IO, "File exists");
    assert_fails(safetensors_create(path, model, 5, NULL, false, &writer), STATUS_IO, "cannot write");
    (void)unlink(path);
    assert_fails(safetensors_create(path, model, 5, NULL, false, &writer), STATUS_IO, "No such file");
}

/* A rank with another layout must not write into the file. */
static void test_ranks_that_disagree(void **state)
{
    const struct safetensors_entry mine[] = {{"a", TENSOR_F32, 1, {2}}, {"b", TENSOR_F32, 1, {2}}},
                                   swapped[] = {{"b", TENSOR_F32, 1, {2}}, {"a", TENSOR_F32, 1, {2}}};
    struct safetensors_writer *first, *second;
    const char *path = fresh("disagree");
    (void)state;
    assert_ok(safetensors_create(path, mine, 2, NULL, true, &first));
    assert_fails(safetensors_create(path, swapped, 2, NULL, false, &second), STATUS_IO, "another header");
    assert_fails(safetensors_create(path, mine, 1, NULL, false, &second), STATUS_IO, "that this rank laid out");
    assert_ok(safetensors_create(path, mine, 2, NULL, false, &second));
    safetensors_abandon(second);
    safetensors_abandon(NULL);
    assert_ok(safetensors_finish(first));
}

static void test_faults_are_reported(void **state)
{
    static const char *const places[] = {"ckpt.create", "ckpt.join", "ckpt.write", "ckpt.finish"};
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct safetensors_writer *first = NULL, *second = NULL;
        const char *path = fresh("fault");
        setenv("COHORT_FAULT", places[i], 1);
        assert_ok(fault_setup(0));
        enum status st = safetensors_create(path, model, 5, NULL, true, &first);
        if (st == STATUS_OK)
            st = safetensors_create(path, model, 5, NULL, false, &second);
        if (st == STATUS_OK)
            st = safetensors_write(second, 0, 0, 1, (const float[]){1});
        if (st == STATUS_OK) {
            st = safetensors_finish(second);
            second = NULL;
        }
        assert_int_equal(st, STATUS_IO);
        support_assert_contains(status_message(), places[i]);
        safetensors_abandon(first);
        safetensors_abandon(second);
    }
    unsetenv("COHORT_FAULT");
    assert_ok(fault_setup(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_bytes),
        cmocka_unit_test(test_any_number_of_writers_gives_the_same_bytes),
        cmocka_unit_test(test_values_come_back),
        cmocka_unit_test(test_nothing_at_all),
        cmocka_unit_test(test_entries_that_cannot_be_laid_out),
        cmocka_unit_test(test_writes_that_leave_their_entry),
        cmocka_unit_test(test_create_does_not_replace_or_follow),
        cmocka_unit_test(test_ranks_that_disagree),
        cmocka_unit_test(test_faults_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
