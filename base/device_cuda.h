/*
 * device_cuda.h - what CUDA sources need to know of a device: its streams, pinned host memory, and
 * CUDA's return codes as sentences.
 *
 * Only sources that are compiled in a CUDA build include this. In tests the same sources are
 * compiled against an emulated toolkit (tests/support/cuda), which answers to the same names.
 *
 * A device has three streams: compute (the model's kernels, in order), comm (messages between
 * ranks and the sums behind them) and copy (input from the host). All are non-blocking: nothing is
 * ordered against the legacy default stream, which is never used.
 *
 * Local.
 */
#ifndef COHORT_BASE_DEVICE_CUDA_H
#define COHORT_BASE_DEVICE_CUDA_H

#include <cuda_runtime_api.h>

#include "base/device.h"
#include "base/status.h"

enum device_stream { STREAM_COMPUTE, STREAM_COMM, STREAM_COPY, STREAM_COUNT };

cudaStream_t device_cuda_stream(const struct device *device, enum device_stream which);
/* Multiprocessors; compute capability as 10 * major + minor (80, 90). */
int device_cuda_processors(const struct device *device);
int device_cuda_capability(const struct device *device);

/*
 * STATUS_OK, or a sentence "what: CUDA's name and text". STATUS_NOMEM for cudaErrorMemoryAllocation,
 * STATUS_UNAVAILABLE where the driver or the device is missing or too old, STATUS_OS for the rest
 * (a kernel failed, the device was lost).
 */
NODISCARD enum status cuda_status(cudaError_t code, const char *what);

/* Pinned host memory, zeroed; owned (device_cuda_host_free). STATUS_NOMEM. */
NODISCARD enum status device_cuda_host_alloc(struct device *device, size_t bytes, const char *what,
                                             void *out);
void device_cuda_host_free(struct device *device, void *p);

#endif
