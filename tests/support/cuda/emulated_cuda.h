/*
 * emulated_cuda.h - the CUDA toolkit that tests run on: kernels on the CPU, as hostile as allowed.
 *
 * The folder tests/support/cuda stands in for a CUDA installation: cuda_runtime_api.h and
 * cuda_runtime.h declare what is emulated, base/cuda.cuh finds its device side in
 * cuda_emulated.cuh. It says nothing about speed or the last bits of a real GPU. What it is for: a
 * program that is wrong on some GPU, in some order, should be wrong here, and should be told where.
 *
 * What it does
 *   Streams     are lazy. A call queues; work runs when somebody waits (stream, event, device;
 *               cudaFree and cudaFreeHost wait for the device; a copy into pageable memory waits
 *               for its stream). Queries make progress: the first one on unfinished work runs one
 *               operation and says cudaErrorNotReady, the second runs all it can.
 *               Streams are ordered by events alone; there is no default stream. Order "forward"
 * runs only what the wait needs, other streams as late as possible; "reverse" runs other streams
 *               first, the youngest operation first; "random" mixes.
 *   Copies      from pinned memory read it when they run, from pageable memory at the call.
 *   Graphs      a captured stretch, with what other streams joined by events; replayed as one DAG.
 *   Kernels     blocks one after the other, the threads of a block as fibers of one OS thread,
 *               block, warp and lane order by EMULATED_CUDA_ORDER. cp_async16 leaves its target
 *               undefined (NaN) until cp_async_wait.
 *   Memory      of a device is one mapping that host code cannot touch (SIGSEGV with a line that
 * says so); fresh memory is 0xFF, never zero; 4 KiB and more of guard zone behind each allocation,
 * looked at by every wait. Shared memory is 0xFF at the start of every block, with guard zones.
 *
 * What it reports, in one line "emulated CUDA: ..." on stderr; from then on every call returns the
 * error, as after a failed kernel on a GPU (cudaErrorIllegalAddress, cudaErrorLaunchFailure):
 *   - a barrier or a warp operation that not all threads reach (exited, elsewhere, not in the mask)
 *   - bytes written behind an allocation or a shared array; a fault at a wild address
 *   - copies and fills outside an allocation, launches beyond a device's limits
 *   - with EMULATED_CUDA_HOOKS (below): every access outside allocations and shared arrays, reads
 * of what was never written, races within a block, between blocks and between streams, host memory
 * used by a kernel
 *
 * EMULATED_CUDA_HOOKS: compile the emulator with this macro and kernels with -fsanitize=thread, and
 * link without it: the emulator has the functions that the compiler then calls at each access. The
 * C sources may stay as they are.
 *
 * Environment (read at the first call)
 *   EMULATED_CUDA_DEVICES=n       devices, default 8, each with its own PCI bus id; 0:
 * cudaErrorNoDevice CUDA_VISIBLE_DEVICES=i,j      as on a GPU: a list of indices that ends at the
 * first wrong one EMULATED_CUDA_MEMORY=bytes    of each device, default 4 GiB; beyond:
 * cudaErrorMemoryAllocation EMULATED_CUDA_NAMES="A;B"     names by index, the last one repeats;
 * default "Emulated GPU" EMULATED_CUDA_CAPABILITY=80   default 90 EMULATED_CUDA_PROCESSORS=n
 * multiprocessors, default 4 EMULATED_CUDA_DRIVER=missing  or old: cudaErrorInsufficientDriver,
 * driver version 0 or 12.2 EMULATED_CUDA_ORDER=forward   or reverse, random:<seed>
 *   EMULATED_CUDA_FAIL=name@n     the n-th (from 1) launch of kernels with this in their name fails
 *                                 when it runs (cudaErrorLaunchFailure)
 *   EMULATED_CUDA_PROTECT=0       leave device memory open to host code (when looking for speed)
 *
 * Local to a process; any thread may call, one works at a time.
 */
#ifndef EMULATED_CUDA_H
#define EMULATED_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- for tests */

/*
 * A report with `text` in it is expected from now on: reports are kept, not printed. Ended by
 * emulated_cuda_expected(): the expected report's line (until the next call) or NULL if there was
 * none (then other reports, if any, are printed). It also clears the error and drops what is
 * queued, so that a test can go on; memory, streams and events stay.
 */
void emulated_cuda_expect_error(const char *text);
const char *emulated_cuda_expected(void);

/* Every access of a kernel is looked at (EMULATED_CUDA_HOOKS), which takes ten times as long. */
bool emulated_cuda_hooks(void);

/* Order of streams, blocks, warps and lanes from now on: as EMULATED_CUDA_ORDER. */
void emulated_cuda_order(const char *order);

/* What is alive and what was done in this process. */
struct emulated_cuda_counts {
    int64_t allocations, bytes; /* device memory */
    int64_t pinned, streams, events, graphs;
    int64_t launches, copies, switches, warp_operations; /* since the start */
};
struct emulated_cuda_counts emulated_cuda_counts(void);

/* ---- for emulated libraries (cuBLASLt, NCCL) */

/*
 * Queue run(copy of arg) on a stream; what it does counts as one operation of the stream, in graphs
 * too. It runs with device memory open to the calling thread only, so it starts no threads; it
 * calls none of the cuda* functions.
 */
cudaError_t emulated_enqueue(cudaStream_t stream, void (*run)(void *arg), void *arg,
                             size_t arg_bytes, const char *name);
/*
 * As above, for what may have to wait for other processes: poll is called again and again, with
 * the same copy, until it returns true (done); between calls other streams go on and queries answer
 * cudaErrorNotReady. It is first called only when somebody waits for it or asks.
 */
cudaError_t emulated_enqueue_poll(cudaStream_t stream, bool (*poll)(void *arg), void *arg,
                                  size_t arg_bytes, const char *name);

/*
 * For operations: the range must lie inside one live allocation (of any device), else it is
 * reported with `what` and the answer is false: leave it alone. The access is recorded for the
 * detectors of reads of unwritten memory and of races between streams.
 */
bool emulated_device_check(const void *p, size_t bytes, bool write, const char *what);
/* Report an error of the operation that runs, or of a call outside: one line and a sticky error. */
void emulated_cuda_report(cudaError_t error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The device (index as the program counts) a stream belongs to; -1 for NULL. */
int emulated_stream_device(cudaStream_t stream);
/* The stream is being captured. */
bool emulated_stream_capturing(cudaStream_t stream);
/* Any stream is. */
bool emulated_capturing(void);

/* Open device memory to the calling thread outside of operations, and close it again. Nests. */
void emulated_device_memory_open(void);
void emulated_device_memory_close(void);

#ifdef __cplusplus
}
#endif

#endif
