/*
 * fuzz_dataset.c - libFuzzer target: any bytes as a prepared file, opened and read to the end.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. tests/fuzz/fuzz_dataset.c <data and base sources>
 *
 * Checksums stop a fuzzer at the first header, so those of the superblock and of every object header found are put
 * right before the file is opened. The first byte chooses whether that is done.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static uint32_t rotate(uint32_t x, int k)
{
    return x << k | x >> (32 - k);
}

/* Jenkins's lookup3 from 0. */
static uint32_t checksum(const uint8_t *p, size_t n)
{
    uint32_t a = 0xDEADBEEF + (uint32_t)n, b = a, c = a, w[3] = {0};
    for (; n > 12; n -= 12, p += 12) {
        memcpy(w, p, 12);
        a += w[0], b += w[1], c += w[2];
        a -= c, a ^= rotate(c, 4), c += b;
        b -= a, b ^= rotate(a, 6), a += c;
        c -= b, c ^= rotate(b, 8), b += a;
        a -= c, a ^= rotate(c, 16), c += b;
        b -= a, b ^= rotate(a, 19), a += c;
        c -= b, c ^= rotate(b, 4), b += a;
    }
    memset(w, 0, sizeof w);
    memcpy(w, p, n);
    a += w[0], b += w[1], c += w[2];
    c ^= b, c -= rotate(b, 14);
    a ^= c, a -= rotate(c, 11);
    b ^= a, b -= rotate(a, 25);
    c ^= b, c -= rotate(b, 16);
    a ^= c, a -= rotate(c, 4);
    b ^= a, b -= rotate(a, 14);
    c ^= b, c -= rotate(b, 24);
    return c;
}

static void repair(uint8_t *p, size_t n)
{
    uint64_t end = n;
    uint32_t sum;
    if (n < 48)
        return;
    memcpy(p + 28, &end, sizeof end);
    sum = checksum(p, 44);
    memcpy(p + 44, &sum, sizeof sum);
    for (size_t i = 48; i + 32 < n; i++) {
        size_t size = 0, at = i + 6;
        if (memcmp(p + i, "OHDR", 4) != 0)
            continue;
        at += (p[i + 5] & 0x20 ? 16 : 0) + (p[i + 5] & 0x10 ? 4 : 0);
        memcpy(&size, p + at, (size_t)1 << (p[i + 5] & 3) > 4 ? 4 : (size_t)1 << (p[i + 5] & 3));
        at += (size_t)1 << (p[i + 5] & 3);
        if (size > n || at + size + 4 > n)
            continue;
        sum = checksum(p + i, at + size - i);
        memcpy(p + at + size, &sum, sizeof sum);
    }
}

static void visit(const char *path)
{
    struct dataset *ds;
    struct dataset_opts opts = {.path = path, .max_length = 16};
    struct dataset_info info;
    struct batch batch = {0};
    struct str a = {0}, b = {0};
    if (dataset_open(&opts, &ds) != STATUS_OK)
        return;
    dataset_get_info(ds, &info);
    for (int64_t i = 0; i < info.rows && i < 16; i++) {
        (void)(dataset_read(ds, &i, 1, &batch) == STATUS_OK);
        (void)(dataset_row_text(ds, i, &a, &b) == STATUS_OK);
        (void)(dataset_row_id(ds, i, &a) == STATUS_OK);
    }
    (void)(dataset_verify(ds) == STATUS_OK);
    batch_release(&batch);
    str_release(&a);
    str_release(&b);
    dataset_close(ds);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    if (n < 1)
        return 0;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    uint8_t *copy = malloc(n);
    if (fd >= 0 && copy != NULL) {
        memcpy(copy, bytes + 1, n - 1);
        if ((bytes[0] & 1) != 0)
            repair(copy, n - 1);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (write(fd, copy, n - 1) == (ssize_t)(n - 1))
            visit(path);
    }
    free(copy);
    if (fd >= 0)
        (void)close(fd);
    return 0;
}
