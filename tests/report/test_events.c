/* Event files: checksums of RFC 3720, bytes of TensorBoard's own writer (golden/make_events.py), what a log becomes. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "report/events.h"

static void test_checksums(void **state)
{
    unsigned char bytes[32];
    (void)state;
    assert_int_equal(crc32c("", 0), 0);
    assert_int_equal(crc32c("123456789", 9), 0xE3069283u);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(bytes, sizeof bytes), 0x8A9136AAu);
    memset(bytes, 0xFF, sizeof bytes);
    assert_int_equal(crc32c(bytes, sizeof bytes), 0x62A8AB43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    assert_int_equal(crc32c(bytes, sizeof bytes), 0x46DD794Eu);
}

static int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void test_bytes_of_tensorboards_writer(void **state)
{
    struct str got = {0};
    char *text, *wanted;
    size_t n, at = 0;
    const struct event_value first[] = {
        {"train/loss", 0.6931471805599453}, {"gone", NAN}, {"train/lr", 2e-05}, {"gone", INFINITY}};
    (void)state;
    assert_ok(events_begin(&got, 1700000000.0));
    assert_ok(events_add(&got, 1700000000.25, 1, first, 4));
    assert_ok(events_add(&got, 1700000000.5, 2, first + 1, 1)); /* nothing to say, no record */
    assert_ok(events_add(&got, 1700000001.5, 300, &(struct event_value){"eval/accuracy", 0.875}, 1));
    assert_ok(events_add(&got, 1700000002.0, 5000000000, &(struct event_value){"x", -1.0}, 1));
    assert_ok(file_read(TEST_DIR "/golden/events.hex", 1 << 16, &text, &n));
    assert_ok(mem_alloc(n, 1, "bytes", &wanted));
    for (size_t i = 0; i + 1 < n; i++) {
        if (text[i] == '\n')
            continue;
        wanted[at++] = (char)(digit(text[i]) << 4 | digit(text[i + 1]));
        i++;
    }
    assert_int_equal(got.n, at);
    assert_memory_equal(got.p, wanted, at);
    mem_free(text);
    mem_free(wanted);
    str_release(&got);
}

/* The text of the first value's tag in a record; records begin with 12 bytes of length and checksum. */
static int count_of(const char *bytes, size_t n, const char *tag)
{
    int found = 0;
    size_t length = strlen(tag);
    for (size_t i = 0; i + length <= n; i++)
        found += memcmp(bytes + i, tag, length) == 0;
    return found;
}

static void test_a_run_of_folds(void **state)
{
    static const char log[] =
        "{\"kind\":\"train\",\"step\":1,\"loss\":0.5,\"lr\":0.1,\"tokens\":100,\"tokens_per_s\":50.0}\n"
        "{\"kind\":\"checkpoint\",\"step\":1}\n"
        "{\"kind\":\"eval\",\"step\":1,\"metrics\":{\"accuracy\":0.5,\"mcc\":null},\"seconds\":0.5}\n"
        "no JSON\n{\"kind\":\"train\",\"st";
    char *bytes;
    size_t n;
    (void)state;
    struct str path = {0};
    const char *folder = support_folder();
    assert_ok(str_addf(&path, "%s/run/repeat-1/fold-0", folder));
    assert_ok(folder_make(path.p));
    (void)support_file("run/repeat-1/fold-0/log.jsonl", log, sizeof log - 1);
    (void)support_file("run/log.jsonl", log, sizeof log - 1);
    str_clear(&path);
    assert_ok(str_addf(&path, "%s/run", folder));
    assert_ok(events_write(path.p));
    assert_ok(str_addf(&path, "/" EVENTS_NAME));
    assert_false(file_exists(path.p)); /* it would say everything twice */
    str_clear(&path);
    assert_ok(str_addf(&path, "%s/run/repeat-1/fold-0/" EVENTS_NAME, folder));
    assert_ok(file_read(path.p, 1 << 16, &bytes, &n));
    assert_int_equal(count_of(bytes, n, "train/loss"), 1);
    assert_int_equal(count_of(bytes, n, "train/grad_norm"), 0);
    assert_int_equal(count_of(bytes, n, "eval/accuracy"), 1);
    assert_int_equal(count_of(bytes, n, "eval/mcc"), 0);
    double wall; /* of the last record, begun at 0: two seconds for 100 tokens, half a second for the evaluation */
    size_t at = 0;
    for (size_t next = 0; next < n; at = next, next += 16 + (size_t)(unsigned char)bytes[next])
        if (next > 0 && next + 16 + (size_t)(unsigned char)bytes[next] >= n) {
            at = next;
            break;
        }
    memcpy(&wall, bytes + at + 13, sizeof wall);
    support_assert_near(wall, 2.5, 1e-12, "wall time");
    mem_free(bytes);
    str_release(&path);
    assert_fails(events_write("/no such folder"), STATUS_NOINPUT, "/no such folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_bytes_of_tensorboards_writer),
        cmocka_unit_test(test_a_run_of_folds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
