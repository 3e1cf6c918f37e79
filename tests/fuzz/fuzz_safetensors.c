/*
 * fuzz_safetensors.c - the safetensors reader on arbitrary bytes: the input is the file.
 *
 * Beyond the sanitizers it holds: what is accepted tiles the file exactly, every element of every tensor can be read,
 * each tensor is found by its name, and the same file cut short by one byte while open is an error.
 * With libFuzzer's main it fuzzes; with -DFUZZ_REPLAY it is a program that runs the files named on its command line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "ckpt/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "fuzz_safetensors: %s\n", what);
    abort();
}

static bool is_float(enum tensor_dtype dtype)
{
    return dtype == TENSOR_F32 || dtype == TENSOR_F16 || dtype == TENSOR_BF16 || dtype == TENSOR_F64;
}

static void read_tensor(const struct safetensors *file, const struct tensor_info *info, enum status wanted)
{
    float values[64];
    unsigned char bytes[64];
    for (int64_t at = 0; at < info->elements; at += 64) {
        int64_t n = info->elements - at < 64 ? info->elements - at : 64;
        require(safetensors_read(file, info, at, n, values) == (is_float(info->dtype) ? wanted : STATUS_FORMAT),
                "reading floats");
    }
    for (int64_t at = 0; at < info->size_bytes; at += 64) {
        int64_t n = info->size_bytes - at < 64 ? info->size_bytes - at : 64;
        require(safetensors_read_bytes(file, info, at, n, bytes) == wanted, "reading bytes");
    }
    require(safetensors_read(file, info, info->elements, 1, values) != STATUS_OK, "read behind the end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct safetensors *file;
    int fd = memfd_create("fuzz", 0);
    require(fd >= 0, "memfd_create");
    require(fd_pwrite_all(fd, data, size, 0, "memory") == STATUS_OK, "memory");
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (safetensors_open(path, &file) == STATUS_OK) {
        int64_t at = -1;
        for (int64_t i = 0; i < safetensors_count(file); i++) {
            const struct tensor_info *info = safetensors_at(file, i);
            require(safetensors_find(file, info->name) == info, "found by name");
            require(at < 0 || info->offset == at, "tiles");
            at = info->offset + info->size_bytes;
            read_tensor(file, info, STATUS_OK);
        }
        require(at < 0 || at == (int64_t)size, "ends with the file");
        require(ftruncate(fd, (off_t)size - 1) == 0, "truncate");
        for (int64_t i = 0; i < safetensors_count(file); i++)
            read_tensor(file, safetensors_at(file, i), STATUS_FORMAT);
        (void)safetensors_metadata(file, "format");
        safetensors_close(file);
    } else {
        require(file == NULL && status_message()[0] != '\0', "a failure without a sentence");
    }
    (void)close(fd);
    return 0;
}

#ifdef FUZZ_REPLAY
#include "base/mem.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *bytes;
        size_t n;
        if (file_read(argv[i], (size_t)1 << 26, &bytes, &n) != STATUS_OK) {
            (void)fprintf(stderr, "%s\n", status_message());
            return 1;
        }
        (void)LLVMFuzzerTestOneInput((const uint8_t *)bytes, n);
        mem_free(bytes);
    }
    return 0;
}
#endif
