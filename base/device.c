/* device.c - the CPU device; see device.h. */
#include "base/device.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "base/mem.h"

#define DEVICE_ALIGNMENT 256

struct device {
    enum device_kind kind;
};

enum status device_open(enum device_kind kind, int index, struct device **out)
{
    (void)index;
    *out = NULL;
    if (kind != DEVICE_CPU)
        return status_fail(STATUS_UNAVAILABLE,
                           "parallel.backend=cuda: this cohort was built without CUDA");
    TRY(mem_alloc(1, sizeof **out, "a device", out));
    (*out)->kind = kind;
    return STATUS_OK;
}

void device_close(struct device *device)
{
    mem_free(device);
}

enum device_kind device_kind(const struct device *device)
{
    return device->kind;
}

/* The widest instruction set that kernels here may use: part of the determinism domain. */
const char *device_name(const struct device *device)
{
    (void)device;
#ifdef __x86_64__
    unsigned a, b, c, d;
    bool amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16"))
        return amx ? "CPU, AMX-BF16" : "CPU, AVX512-BF16";
    if (__builtin_cpu_supports("avx512f"))
        return "CPU, AVX-512";
    if (__builtin_cpu_supports("avx2"))
        return "CPU, AVX2";
#endif
    return "CPU";
}

enum status device_alloc(struct device *device, size_t bytes, const char *what, void *out)
{
    void *p = NULL;
    size_t padded;
    (void)device;
    memcpy(out, &p, sizeof p);
    if (!size_add(bytes, DEVICE_ALIGNMENT, &padded) ||
        padded > PTRDIFF_MAX) /* 0 bytes give a valid pointer, too */
        return status_fail(STATUS_NOMEM, "%s: %zu bytes are more than can be addressed", what,
                           bytes);
    if (posix_memalign(&p, DEVICE_ALIGNMENT, padded / DEVICE_ALIGNMENT * DEVICE_ALIGNMENT) != 0)
        return status_fail(STATUS_NOMEM, "%s: no memory for %zu bytes", what, bytes);
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof p);
    return STATUS_OK;
}

void device_free(struct device *device, void *p)
{
    (void)device;
    free(p);
}

enum status device_put(struct device *device, void *to, const void *from_host, size_t bytes)
{
    (void)device;
    memcpy(to, from_host, bytes);
    return STATUS_OK;
}

enum status device_get(struct device *device, void *to_host, const void *from, size_t bytes)
{
    (void)device;
    memcpy(to_host, from, bytes);
    return STATUS_OK;
}

int64_t device_memory_bytes(const struct device *device)
{
    (void)device;
    return mem_limit_bytes();
}
