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

/* GPUs that this process may use (CUDA_VISIBLE_DEVICES and a scheduler's binding are respected).
 * STATUS_UNAVAILABLE, with the reason and *count 0: no CUDA in this build, no driver, a driver older
 * than the build, or no GPU. DEVICE_CPU: 1. */
NODISCARD enum status device_count(enum device_kind kind, int *count);
/* index counts GPUs that this process may use and is ignored for DEVICE_CPU. STATUS_UNAVAILABLE,
 * with the reason. */
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
/* Copies between host and device, in the order of the device's compute work (put: after what was
 * queued before; get: sees it); done when the call returns. */
NODISCARD enum status device_put(struct device *device, void *to, const void *from_host,
                                 size_t bytes);
NODISCARD enum status device_get(struct device *device, void *to_host, const void *from,
                                 size_t bytes);
/* Zeros, in the order of the compute work; may be queued only. */
NODISCARD enum status device_zero(struct device *device, void *p, size_t bytes);
/* Wait until everything queued is done; what a kernel did wrong is told here. CPU: nothing. */
NODISCARD enum status device_finish(struct device *device);
/* Hardware and software that bits may depend on: "NVIDIA H100 80GB HBM3, sm_90, CUDA 13.0". Equal
 * text on all ranks or reproducibility is off the table. For a CPU: device_name(). */
const char *device_domain(const struct device *device);
/* Which physical GPU: its PCI bus id or UUID; "" for a CPU. Two ranks with the same text share it. */
const char *device_place(const struct device *device);
/* Bytes the device can give: free memory of a GPU, mem_limit_bytes() of the host. */
int64_t device_memory_bytes(const struct device *device);

#endif
