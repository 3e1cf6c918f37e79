/* 2,000 flipped bits and truncations, anywhere in a checkpoint, its manifest included: all are found. */
#include "tests/support/support.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "ckpt/checkpoint.h"
#include "ckpt/safetensors.h"

enum { TRIALS = 2000, FILES = 5 };
static const char *const files[FILES] = {"config.json", "manifest.json", "model.safetensors", "optimizer.safetensors",
                                         "state.json"};
static char *content[FILES];
static size_t size[FILES];
static char folder[256];

static void put_tensor(const char *working, const char *name, int64_t elements)
{
    const struct safetensors_entry entry = {"bert.encoder.weight", TENSOR_F32, 1, {elements}};
    struct safetensors_writer *writer;
    char path[300];
    snprintf(path, sizeof path, "%s/%s", working, name);
    assert_ok(safetensors_create(path, &entry, 1, NULL, true, &writer));
    for (int64_t i = 0; i < elements; i++)
        assert_ok(safetensors_write(writer, 0, i, 1, &(float){(float)i / 3}));
    assert_ok(safetensors_finish(writer));
}

static void put_text(const char *working, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", working, name);
    assert_ok(file_write_atomic(path, text, strlen(text)));
}

static void make_checkpoint(void)
{
    struct str working = {0};
    json_t *extra = json_pack("{s:s, s:f, s:{s:[i,i], s:b}}", "weights_hash", "00ff00ff00ff00ff", "loss", 1e-20,
                              "domain", "ranks", 1, 2, "bf16", 1);
    assert_ok(checkpoint_begin(support_folder(), "checkpoint-1", 0, &working));
    put_tensor(working.p, "model.safetensors", 100);
    put_tensor(working.p, "optimizer.safetensors", 200);
    put_text(working.p, "config.json", "{\"model_type\": \"bert\", \"hidden_size\": 4}\n");
    put_text(working.p, "state.json", "{\"step\": 1, \"seed\": 42, \"lr\": 1e-20}\n");
    assert_ok(checkpoint_commit(support_folder(), "checkpoint-1", extra));
    str_release(&working);
    json_decref(extra);
}

/* File f holds its first n bytes, and byte `place` as in bytes. Never emptied and rewritten: ext4 flushes such files. */
static void change(int f, const char *bytes, size_t n, size_t place)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, files[f]);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    if (n < size[f])
        assert_int_equal(ftruncate(fd, (off_t)n), 0);
    else
        assert_ok(fd_pwrite_all(fd, bytes + place, 1, (int64_t)place, path));
    close(fd);
}

static void restore(int f, size_t place)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, files[f]);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_ok(fd_pwrite_all(fd, content[f] + place, size[f] - place, (int64_t)place, path));
    close(fd);
}

static void test_all_are_found(void **state)
{
    size_t total = 0;
    const uint64_t key = random_key(42, RANDOM_BOOTSTRAP, 0, 0);
    (void)state;
    make_checkpoint();
    snprintf(folder, sizeof folder, "%s/checkpoint-1", support_folder());
    for (int f = 0; f < FILES; f++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", folder, files[f]);
        assert_ok(file_read(path, 1 << 20, &content[f], &size[f]));
        total += size[f];
    }
    assert_ok(checkpoint_verify(support_folder(), "checkpoint-1", true));
    for (uint64_t trial = 0; trial < TRIALS; trial++) {
        size_t place = (size_t)random_below(key, 2 * trial, total);
        int f = 0;
        while (place >= size[f])
            place -= size[f++];
        bool flip = trial % 2 == 0;
        int bit = (int)random_below(key, 2 * trial + 1, 8);
        char *bytes = content[f];
        bytes[place] = (char)(bytes[place] ^ (flip ? 1 << bit : 0));
        change(f, bytes, flip ? size[f] : place, place);
        bytes[place] = (char)(bytes[place] ^ (flip ? 1 << bit : 0));
        if (checkpoint_verify(support_folder(), "checkpoint-1", true) == STATUS_OK)
            fail_msg("%s: %s %zu bit %d was not found", files[f], flip ? "byte" : "cut at", place, bit);
        restore(f, place);
    }
    assert_ok(checkpoint_verify(support_folder(), "checkpoint-1", true));
    for (int f = 0; f < FILES; f++)
        mem_free(content[f]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_are_found)};
    log_setup(LOG_ERROR, 0, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
