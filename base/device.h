/*
 * device.h - where numbers live: host memory, or the memory of one GPU.
 *
 * model and comm both move device memory and may not include each other, so it is here. The CPU
 * device is plain aligned host memory and its copies are memcpy; a GPU device is opened by the CUDA
 * build (base/device_cuda).
 */
#ifndef COHORT_BASE_DEVICE_H
#define COHORT_BASE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum device_kind { DEVICE_CPU, DEVICE_CUDA };

struct device; /* opaque */

/* index counts GPUs of this process's node and is ignored for DEVICE_CPU. STATUS_UNAVAILABLE, with
 * the reason. */
NODISCARD enum status device_open(enum device_kind kind, int index, struct device **out);
void device_close(struct device *device);
enum device_kind device_kind(const struct device *device);
const char *
device_name(const struct device *device); /* for the log and the manifest: "CPU, AVX512-BF16" */

/* Memory for bytes on the device, 256-byte aligned, zeroed; owned by the caller (device_free).
 * STATUS_NOMEM. */
NODISCARD enum status device_alloc(struct device *device, size_t bytes, const char *what,
                                   void *out);
void device_free(struct device *device, void *p);
/* Copies between host and device; done when the call returns. */
NODISCARD enum status device_put(struct device *device, void *to, const void *from_host,
                                 size_t bytes);
NODISCARD enum status device_get(struct device *device, void *to_host, const void *from,
                                 size_t bytes);
/* Bytes the device can give: free memory of a GPU, mem_limit_bytes() of the host. */
int64_t device_memory_bytes(const struct device *device);

#endif
