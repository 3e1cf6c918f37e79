/*
 * device.c - the CPU device, and the choice between it and a GPU (device_cuda.c); see device.h.
 */
#include "base/device.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "base/device_internal.h"
#include "base/mem.h"

#define DEVICE_ALIGNMENT 256

/* ---- the CPU ---- */

static void cpu_close(struct device *device)
{
    mem_free(device);
}

/* The widest instruction set that kernels here may use: part of the determinism domain. */
static const char *cpu_name(const struct device *device)
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

static enum status cpu_alloc(struct device *device, size_t bytes, const char *what, void *out)
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

static void cpu_free(struct device *device, void *p)
{
    (void)device;
    free(p);
}

static enum status cpu_copy(struct device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    if (bytes > 0)
        memcpy(to, from, bytes);
    return STATUS_OK;
}

static enum status cpu_zero(struct device *device, void *p, size_t bytes)
{
    (void)device;
    if (bytes > 0)
        memset(p, 0, bytes);
    return STATUS_OK;
}

static enum status cpu_finish(struct device *device)
{
    (void)device;
    return STATUS_OK;
}

static const char *cpu_place(const struct device *device)
{
    (void)device;
    return "";
}

static int64_t cpu_memory_bytes(const struct device *device)
{
    (void)device;
    return mem_limit_bytes();
}

static const struct device_functions cpu_functions = {
    .close = cpu_close,
    .name = cpu_name,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .put = cpu_copy,
    .get = cpu_copy,
    .zero = cpu_zero,
    .finish = cpu_finish,
    .domain = cpu_name,
    .place = cpu_place,
    .memory_bytes = cpu_memory_bytes,
};

/* ---- any device ---- */

#ifndef COHORT_CUDA
static enum status device_cuda_count(int *count)
{
    *count = 0;
    return status_fail(STATUS_UNAVAILABLE,
                       "parallel.backend=cuda: this cohort was built without CUDA");
}

static enum status device_cuda_open(int index, struct device **out)
{
    (void)index;
    (void)out;
    int count;
    return device_cuda_count(&count);
}
#endif

enum status device_count(enum device_kind kind, int *count)
{
    *count = 1;
    return kind == DEVICE_CUDA ? device_cuda_count(count) : STATUS_OK;
}

enum status device_open(enum device_kind kind, int index, struct device **out)
{
    *out = NULL;
    if (kind == DEVICE_CUDA)
        return device_cuda_open(index, out);
    TRY(mem_alloc(1, sizeof **out, "a device", out));
    **out = (struct device){DEVICE_CPU, &cpu_functions};
    return STATUS_OK;
}

void device_close(struct device *device)
{
    if (device != NULL)
        device->functions->close(device);
}

enum device_kind device_kind(const struct device *device)
{
    return device->kind;
}

const char *device_name(const struct device *device)
{
    return device->functions->name(device);
}

enum status device_alloc(struct device *device, size_t bytes, const char *what, void *out)
{
    return device->functions->alloc(device, bytes, what, out);
}

void device_free(struct device *device, void *p)
{
    if (p != NULL)
        device->functions->free(device, p);
}

enum status device_put(struct device *device, void *to, const void *from_host, size_t bytes)
{
    return device->functions->put(device, to, from_host, bytes);
}

enum status device_get(struct device *device, void *to_host, const void *from, size_t bytes)
{
    return device->functions->get(device, to_host, from, bytes);
}

enum status device_zero(struct device *device, void *p, size_t bytes)
{
    return device->functions->zero(device, p, bytes);
}

enum status device_finish(struct device *device)
{
    return device->functions->finish(device);
}

const char *device_domain(const struct device *device)
{
    return device->functions->domain(device);
}

const char *device_place(const struct device *device)
{
    return device->functions->place(device);
}

int64_t device_memory_bytes(const struct device *device)
{
    return device->functions->memory_bytes(device);
}
