/*
 * device_internal.h - a device as its kinds see it: the functions behind device.h.
 *
 * Only base/device*.c include this. A kind's struct begins with struct device.
 */
#ifndef COHORT_BASE_DEVICE_INTERNAL_H
#define COHORT_BASE_DEVICE_INTERNAL_H

#include "base/device.h"

/* As the functions of device.h. */
struct device_functions {
    void (*close)(struct device *device);
    const char *(*name)(const struct device *device);
    enum status (*alloc)(struct device *device, size_t bytes, const char *what, void *out);
    void (*free)(struct device *device, void *p);
    enum status (*put)(struct device *device, void *to, const void *from_host, size_t bytes);
    enum status (*get)(struct device *device, void *to_host, const void *from, size_t bytes);
    enum status (*zero)(struct device *device, void *p, size_t bytes);
    enum status (*finish)(struct device *device);
    const char *(*domain)(const struct device *device);
    const char *(*place)(const struct device *device);
    int64_t (*memory_bytes)(const struct device *device);
};

struct device {
    enum device_kind kind;
    const struct device_functions *functions;
};

#ifdef COHORT_CUDA
/* device_count() and device_open() of DEVICE_CUDA (device_cuda.c). */
NODISCARD enum status device_cuda_count(int *count);
NODISCARD enum status device_cuda_open(int index, struct device **out);
#endif

#endif
