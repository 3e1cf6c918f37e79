/*
 * device_cuda.c - a GPU through the CUDA runtime; see device.h and device_cuda.h.
 *
 * The runtime is linked statically and loads the driver itself, so this program also starts where
 * there is no driver: what is missing is then said by device_count() and device_open().
 *
 * The calling thread's current device is set by device_open(); a process opens one GPU and uses it
 * from its main thread.
 */
#include "base/device_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/device_internal.h"
#include "base/mem.h"

#define LEAST_CAPABILITY 80 /* bf16 tensor cores, cp.async */
#define STAGES 2
#define STAGE_BYTES ((size_t)4 << 20)
/* What libraries take behind our back: kernels that are loaded late, cuBLASLt's and NCCL's buffers.
 * At most a sixteenth of a small GPU. */
#define RESERVE_BYTES ((size_t)1 << 30)

/* Pinned memory on the way between host and device. */
struct stage {
    char *memory;
    cudaEvent_t used; /* the copy from or to memory is done */
};

struct cuda_device {
    struct device device;
    int processors, capability;
    size_t total_bytes;
    cudaStream_t stream[STREAM_COUNT];
    struct stage stage[STAGES];
    char name[256], place[32], domain[320]; /* CUDA gives names up to 255 bytes */
};

static struct cuda_device *cuda_of(struct device *device)
{
    return (struct cuda_device *)device;
}

static const struct cuda_device *const_cuda_of(const struct device *device)
{
    return (const struct cuda_device *)device;
}

/* ---- what CUDA says ---- */

enum status cuda_status(cudaError_t code, const char *what)
{
    enum status st;
    if (code == cudaSuccess)
        return STATUS_OK;
    (void)cudaGetLastError(); /* told here: the next launch must not find it again */
    switch (code) {
    case cudaErrorMemoryAllocation:
        st = STATUS_NOMEM;
        break;
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorInitializationError:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorStubLibrary:
    case cudaErrorNoKernelImageForDevice:
        st = STATUS_UNAVAILABLE;
        break;
    default:
        st = STATUS_OS;
    }
    return status_fail(st, "%s: %s: %s", what, cudaGetErrorName(code), cudaGetErrorString(code));
}

static const char *visible_devices(void)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    return text == NULL ? "not set" : text;
}

/* Why the runtime finds no GPU, for people who did not build this program. */
static enum status no_gpu(cudaError_t code)
{
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (code == cudaErrorInsufficientDriver && driver == 0) {
        (void)cudaGetLastError();
        return status_fail(STATUS_UNAVAILABLE,
                           "no NVIDIA driver on this machine (libcuda.so.1 is not found): install "
                           "one, or set parallel.backend=cpu");
    }
    if (code == cudaErrorInsufficientDriver) {
        (void)cudaGetLastError();
        return status_fail(STATUS_UNAVAILABLE,
                           "the NVIDIA driver here knows CUDA up to %d.%d and this cohort was "
                           "built with CUDA %d.%d: install a newer driver, build with an older "
                           "toolkit, or set parallel.backend=cpu",
                           driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (code == cudaErrorNoDevice || code == cudaSuccess) {
        (void)cudaGetLastError();
        return status_fail(STATUS_UNAVAILABLE,
                           "no GPU that this process may use (CUDA_VISIBLE_DEVICES: %.100s): run "
                           "where there is one, or set parallel.backend=cpu",
                           visible_devices());
    }
    return cuda_status(code, "looking for GPUs");
}

enum status device_cuda_count(int *count)
{
    *count = 0;
    int found = 0;
    cudaError_t code = cudaGetDeviceCount(&found);
    if (code != cudaSuccess || found < 1)
        return no_gpu(code);
    *count = found;
    return STATUS_OK;
}

/* ---- memory ---- */

static enum status cuda_alloc(struct device *device, size_t bytes, const char *what, void *out)
{
    struct cuda_device *cuda = cuda_of(device);
    void *p = NULL;
    memcpy(out, &p, sizeof p);
    cudaError_t code = cudaMalloc(&p, bytes > 0 ? bytes : 1); /* 256-byte aligned, CUDA says */
    if (code == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total_bytes = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free_bytes, &total_bytes);
        return status_fail(STATUS_NOMEM,
                           "%s: %zu bytes of GPU memory wanted, %zu of %zu are free on %s", what,
                           bytes, free_bytes, total_bytes, cuda->name);
    }
    TRY(cuda_status(code, what));
    if (bytes > 0) {
        code = cudaMemsetAsync(p, 0, bytes, cuda->stream[STREAM_COMPUTE]);
        if (code != cudaSuccess) {
            (void)cudaFree(p);
            return cuda_status(code, what);
        }
    }
    memcpy(out, &p, sizeof p);
    return STATUS_OK;
}

static void cuda_free(struct device *device, void *p)
{
    (void)device;
    (void)cudaFree(
        p); /* waits for work that may use it; a failure is the device's, told elsewhere */
}

/*
 * Both copies go through two pieces of pinned memory by turns, so that the host's half of a copy
 * runs beside the device's. CUDA would stage a pageable copy too, but then in an order with the
 * stream and with waits of its own choosing.
 */
static enum status cuda_put(struct device *device, void *to, const void *from_host, size_t bytes)
{
    struct cuda_device *cuda = cuda_of(device);
    struct stage *stage = &cuda->stage[0];
    for (size_t at = 0, k = 0; at < bytes; at += STAGE_BYTES, k++) {
        size_t n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
        stage = &cuda->stage[k % STAGES];
        TRY(cuda_status(cudaEventSynchronize(stage->used), "copying to the GPU"));
        memcpy(stage->memory, (const char *)from_host + at, n);
        TRY(cuda_status(cudaMemcpyAsync((char *)to + at, stage->memory, n, cudaMemcpyHostToDevice,
                                        cuda->stream[STREAM_COMPUTE]),
                        "copying to the GPU"));
        TRY(cuda_status(cudaEventRecord(stage->used, cuda->stream[STREAM_COMPUTE]),
                        "copying to the GPU"));
    }
    /* The last piece is behind all others. */
    return bytes == 0 ? STATUS_OK
                      : cuda_status(cudaEventSynchronize(stage->used), "copying to the GPU");
}

static enum status cuda_get(struct device *device, void *to_host, const void *from, size_t bytes)
{
    struct cuda_device *cuda = cuda_of(device);
    size_t pieces = (bytes + STAGE_BYTES - 1) / STAGE_BYTES;
    for (size_t k = 0; k < pieces + (pieces > 0); k++) { /* queue piece k, take piece k - 1 */
        if (k < pieces) {
            struct stage *stage = &cuda->stage[k % STAGES];
            size_t at = k * STAGE_BYTES, n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
            TRY(cuda_status(cudaMemcpyAsync(stage->memory, (const char *)from + at, n,
                                            cudaMemcpyDeviceToHost, cuda->stream[STREAM_COMPUTE]),
                            "copying from the GPU"));
            TRY(cuda_status(cudaEventRecord(stage->used, cuda->stream[STREAM_COMPUTE]),
                            "copying from the GPU"));
        }
        if (k > 0) {
            struct stage *stage = &cuda->stage[(k - 1) % STAGES];
            size_t at = (k - 1) * STAGE_BYTES,
                   n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
            TRY(cuda_status(cudaEventSynchronize(stage->used), "copying from the GPU"));
            memcpy((char *)to_host + at, stage->memory, n);
        }
    }
    return STATUS_OK;
}

static enum status cuda_zero(struct device *device, void *p, size_t bytes)
{
    if (bytes == 0)
        return STATUS_OK;
    return cuda_status(cudaMemsetAsync(p, 0, bytes, cuda_of(device)->stream[STREAM_COMPUTE]),
                       "clearing GPU memory");
}

static enum status cuda_finish(struct device *device)
{
    static const char *const names[] = {"the compute stream", "the communication stream",
                                        "the copy stream"};
    for (int k = 0; k < STREAM_COUNT; k++)
        TRY(cuda_status(cudaStreamSynchronize(cuda_of(device)->stream[k]), names[k]));
    return STATUS_OK;
}

static int64_t cuda_memory_bytes(const struct device *device)
{
    size_t reserve = const_cuda_of(device)->total_bytes / 16, free_bytes = 0, total_bytes;
    if (reserve > RESERVE_BYTES)
        reserve = RESERVE_BYTES;
    if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess)
        (void)cudaGetLastError();
    return free_bytes > reserve ? (int64_t)(free_bytes - reserve) : 0;
}

enum status device_cuda_host_alloc(struct device *device, size_t bytes, const char *what, void *out)
{
    void *p = NULL;
    (void)device;
    memcpy(out, &p, sizeof p);
    cudaError_t code = cudaHostAlloc(&p, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return status_fail(STATUS_NOMEM, "%s: no %zu bytes of pinned host memory", what, bytes);
    }
    TRY(cuda_status(code, what));
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof p);
    return STATUS_OK;
}

void device_cuda_host_free(struct device *device, void *p)
{
    (void)device;
    if (p != NULL)
        (void)cudaFreeHost(p);
}

/* ---- what it is ---- */

static const char *cuda_name(const struct device *device)
{
    return const_cuda_of(device)->name;
}

static const char *cuda_domain(const struct device *device)
{
    return const_cuda_of(device)->domain;
}

static const char *cuda_place(const struct device *device)
{
    return const_cuda_of(device)->place;
}

cudaStream_t device_cuda_stream(const struct device *device, enum device_stream which)
{
    return const_cuda_of(device)->stream[which];
}

int device_cuda_processors(const struct device *device)
{
    return const_cuda_of(device)->processors;
}

int device_cuda_capability(const struct device *device)
{
    return const_cuda_of(device)->capability;
}

/* ---- opening and closing ---- */

static void cuda_close(struct device *device)
{
    struct cuda_device *cuda = cuda_of(device);
    for (int k = 0; k < STAGES; k++) {
        if (cuda->stage[k].used != NULL)
            (void)cudaEventDestroy(cuda->stage[k].used);
        device_cuda_host_free(device, cuda->stage[k].memory);
    }
    for (int k = 0; k < STREAM_COUNT; k++) {
        if (cuda->stream[k] != NULL)
            (void)cudaStreamDestroy(cuda->stream[k]);
    }
    (void)cudaGetLastError();
    mem_free(cuda);
}

static const struct device_functions cuda_functions = {
    .close = cuda_close,
    .name = cuda_name,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .put = cuda_put,
    .get = cuda_get,
    .zero = cuda_zero,
    .finish = cuda_finish,
    .domain = cuda_domain,
    .place = cuda_place,
    .memory_bytes = cuda_memory_bytes,
};

/* Name, capability and place; STATUS_UNAVAILABLE where the GPU is too old for our kernels. */
static enum status describe(struct cuda_device *cuda, int index)
{
    struct cudaDeviceProp properties;
    int runtime = 0;
    TRY(cuda_status(cudaGetDeviceProperties(&properties, index), "asking for the GPU's kind"));
    cuda->processors = properties.multiProcessorCount;
    cuda->capability = 10 * properties.major + properties.minor;
    cuda->total_bytes = properties.totalGlobalMem;
    (void)snprintf(cuda->name, sizeof cuda->name, "%s", properties.name);
    if (cuda->capability < LEAST_CAPABILITY)
        return status_fail(STATUS_UNAVAILABLE,
                           "GPU %d, %s, has compute capability %d.%d, wanted 8.0 (A100) or newer: "
                           "set parallel.backend=cpu",
                           index, cuda->name, properties.major, properties.minor);
    TRY(cuda_status(cudaRuntimeGetVersion(&runtime), "asking for CUDA's version"));
    (void)snprintf(cuda->domain, sizeof cuda->domain, "%s, sm_%d, CUDA %d.%d", cuda->name,
                   cuda->capability, runtime / 1000, runtime % 1000 / 10);
    return cuda_status(cudaDeviceGetPCIBusId(cuda->place, (int)sizeof cuda->place, index),
                       "asking for the GPU's place");
}

static enum status make_streams(struct cuda_device *cuda)
{
    int least = 0, greatest = 0; /* a greater priority is a smaller number */
    TRY(cuda_status(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                    "asking for priorities of streams"));
    for (int k = 0; k < STREAM_COUNT; k++) {
        /* Messages go first: they are short, and other ranks wait for them. */
        int priority = k == STREAM_COMM ? greatest : least;
        TRY(cuda_status(
            cudaStreamCreateWithPriority(&cuda->stream[k], cudaStreamNonBlocking, priority),
            "making a stream"));
    }
    for (int k = 0; k < STAGES; k++) {
        TRY(device_cuda_host_alloc(&cuda->device, STAGE_BYTES, "copies to and from the GPU",
                                   &cuda->stage[k].memory));
        TRY(cuda_status(cudaEventCreateWithFlags(&cuda->stage[k].used, cudaEventDisableTiming),
                        "making an event"));
    }
    return STATUS_OK;
}

enum status device_cuda_open(int index, struct device **out)
{
    enum status st;
    struct cuda_device *cuda = NULL;
    int count;
    *out = NULL;
    TRY(device_cuda_count(&count));
    if (index < 0 || index >= count)
        return status_fail(STATUS_UNAVAILABLE,
                           "rank %d of this node wants GPU %d, but %d %s here "
                           "(CUDA_VISIBLE_DEVICES: %.100s): start at most %d rank%s a node, or set "
                           "parallel.backend=cpu",
                           index, index, count, count == 1 ? "is" : "are", visible_devices(), count,
                           count == 1 ? "" : "s");
    TRY(mem_alloc(1, sizeof *cuda, "a GPU", &cuda));
    cuda->device = (struct device){DEVICE_CUDA, &cuda_functions};
    TRY_GOTO(fail, describe(cuda, index));
    TRY_GOTO(fail, cuda_status(cudaSetDevice(index), "taking the GPU"));
    TRY_GOTO(fail, make_streams(cuda));
    *out = &cuda->device;
    return STATUS_OK;
fail:
    cuda_close(&cuda->device);
    return st;
}
