/*
 * emulated_nccl.cpp - NCCL over MPI, for ranks whose GPUs are emulated.
 *
 * Messages are MPI's, point to point on MPI_COMM_WORLD with tags of our own (the program under test
 * uses duplicates of it only), from the main thread, never blocking. The unique id names the world
 * rank that made it and a number, which gives the tag; members report to that rank (which must be a
 * member), and it answers with the list of members.
 *
 * Operations run when their stream does (emulated_enqueue_poll). What the real library leaves open
 * is made adverse:
 *   - A send is done only when the receiver has taken it: two ranks that send to each other outside
 *     of a group wait for ever.
 *   - Sums (float only) begin with a rank that depends on the element's place, so bits depend on
 *     the number of ranks.
 *   - Non-blocking communicators answer ncclInProgress to every call outside of a capture, and put
 *     the work into the stream only when ncclCommGetAsyncError() has been asked twice.
 *   - Operations of ranks that do not fit together (kind, count, type, root, order) are an error,
 *     ncclInvalidUsage, where the real library would hang or write garbage.
 *   - A communicator's end (finalize, destroy) finds messages that nobody received.
 * ncclInvalidUsage "Duplicate GPU detected": two members with one PCI bus id on one host, unless
 * their NCCL_HOSTID differ or both have NCCL_MULTI_RANK_GPU_ENABLE=1.
 *
 * After an asynchronous error nothing ends any more until ncclCommAbort(); then everything that is
 * queued ends at once without having done anything.
 *
 * A real GPU moves messages while its host sits in MPI. So MPI's blocking calls are defined here,
 * too: they let the streams of all communicators go on until MPI is ready.
 *
 * Environment
 *   EMULATED_NCCL_FAIL=<rank>@<n>  the n-th operation (from 1) that world rank <rank> starts after
 *                                  the variable was set fails: asynchronous error ncclSystemError
 *   EMULATED_NCCL_HANG=<rank>@<n>  it never ends
 *   EMULATED_NCCL_LIMIT=<seconds>  default 40: what waits longer for another rank becomes the
 *                                  asynchronous error ncclRemoteError; after twice as long a host
 *                                  that waits in CUDA itself gets cudaErrorLaunchFailure
 * Every error is also a line on stderr, "emulated NCCL: rank <in the group>: ...".
 */
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <string>
#include <vector>

#include <time.h>
#include <unistd.h>

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <nccl.h>

#include "emulated_cuda.h"

namespace
{

enum { FIRST_TAG = 1000000, TAGS = 1000000, TAGS_PER_RANK = 4099 };
enum message_class { HELLO, WELCOME, POINT, COLLECTIVE, TAKEN, BYE };
enum kind { SEND, RECV, ALL_GATHER, REDUCE_SCATTER, BROADCAST, REDUCE, ALL_REDUCE };
const char *const kind_name[] = {"ncclSend",          "ncclRecv",      "ncclAllGather",
                                 "ncclReduceScatter", "ncclBroadcast", "ncclReduce",
                                 "ncclAllReduce"};
const char unique_magic[8] = {'c', 'o', 'h', 'o', 'r', 't', 'i', 'd'};

struct unique {
    char magic[8];
    int32_t creator, number, pid;
};

/* What goes before the payload of every message. */
struct header {
    int32_t what, from; /* message_class, rank in the group */
    int32_t op, type, root;
    int32_t pid; /* with the tag: the communicator */
    uint64_t sequence, count;
};

/* What members tell the creator, and what it answers. */
struct member {
    int32_t rank, world, nranks, multi;
    char host[64], host_id[64], bus[24];
};
struct verdict {
    int32_t code;
    char why[192];
};

struct message {
    header h;
    std::vector<char> bytes;
};

struct outgoing {
    std::vector<char> bytes;
    MPI_Request request;
};
/* Of all communicators: some outlive theirs. */
std::list<outgoing> &outbox = *new std::list<outgoing>;

struct operation {
    kind what;
    const void *send;
    void *recv;
    size_t count;
    int type, root; /* root: the peer of point-to-point operations */
    /* while it runs */
    bool started, done;
    int left;          /* answers to come */
    uint64_t sequence; /* of collectives */
    bool hangs;
    std::vector<std::vector<char>> parts; /* by rank */
};

struct batch { /* what one group of calls puts into one stream */
    ncclComm *comm;
    cudaStream_t stream;
    std::vector<operation> operations;
    uint64_t number; /* within the communicator; 0: recorded in a graph, runs when that does */
    bool started;
    double begun;
};

enum state { CONNECTING, READY, FINALIZING, FINALIZED };

double clock_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double limit_s(void)
{
    const char *text = getenv("EMULATED_NCCL_LIMIT");
    return text != NULL ? strtod(text, NULL) : 40;
}

std::string last_error;

} // namespace

struct ncclComm {
    int rank, size, device, tag, pid;
    bool blocking, aborted;
    state at;
    double since; /* the state began */
    unique id;
    std::vector<int> world;      /* (size) */
    std::vector<member> members; /* of the creator, while connecting */
    std::deque<message> inbox;
    std::vector<cudaStream_t> streams;
    std::list<batch *> batches, held; /* held: not in their stream yet */
    int asked;                        /* while something is held */
    uint64_t queued, finished;        /* batches */
    uint64_t collectives;
    int byes;
    bool said_bye;
    ncclResult_t error; /* asynchronous */
    std::string why;
};

namespace
{

/* Never destroyed: what they name would be leaked then. */
std::list<ncclComm *> &comms = *new std::list<ncclComm *>; /* alive */
std::list<ncclComm *> &lost = *new std::list<ncclComm *>;  /* gone, but queued work names them */
thread_local int group_depth;
ncclResult_t group_error;
std::vector<batch *> group;

ncclResult_t refuse(ncclComm *comm, ncclResult_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
ncclResult_t refuse(ncclComm *comm, ncclResult_t code, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)fprintf(stderr, "emulated NCCL: rank %d: %s\n", comm != NULL ? comm->rank : -1, text);
    last_error = text;
    if (comm != NULL)
        comm->why = text;
    return code;
}

/* An asynchronous error: the first one stays. */
void fail(ncclComm *comm, ncclResult_t code, const char *text)
{
    if (comm->error == ncclSuccess)
        comm->error = refuse(comm, code, "%s", text);
}

bool mpi_runs(void)
{
    int begun = 0, ended = 0;
    (void)PMPI_Initialized(&begun);
    (void)PMPI_Finalized(&ended);
    return begun != 0 && ended == 0;
}

int world_rank(void)
{
    int rank = 0;
    if (mpi_runs())
        (void)PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

size_t size_of(int type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    default:
        return 4;
    }
}

/* ---- messages ---- */

void post(ncclComm *comm, int to_world, header h, const void *bytes, size_t n)
{
    h.from = comm->rank;
    h.pid = comm->pid;
    if (to_world == world_rank()) {
        message m = {h, std::vector<char>((const char *)bytes, (const char *)bytes + n)};
        comm->inbox.push_back(m);
        return;
    }
    outbox.emplace_back();
    outgoing &out = outbox.back();
    out.bytes.resize(sizeof h + n);
    memcpy(out.bytes.data(), &h, sizeof h);
    if (n > 0)
        memcpy(out.bytes.data() + sizeof h, bytes, n);
    if (PMPI_Isend(out.bytes.data(), (int)out.bytes.size(), MPI_BYTE, to_world, comm->tag,
                   MPI_COMM_WORLD, &out.request) != MPI_SUCCESS)
        fail(comm, ncclSystemError, "MPI_Isend failed");
}

/* Take in what has arrived and forget what has left. */
void exchange(ncclComm *comm)
{
    if (!mpi_runs())
        return;
    for (;;) {
        int there = 0, n = 0;
        MPI_Message handle;
        MPI_Status status;
        if (PMPI_Improbe(MPI_ANY_SOURCE, comm->tag, MPI_COMM_WORLD, &there, &handle, &status) !=
                MPI_SUCCESS ||
            !there)
            break;
        (void)PMPI_Get_count(&status, MPI_BYTE, &n);
        std::vector<char> bytes((size_t)n);
        (void)PMPI_Mrecv(bytes.data(), n, MPI_BYTE, &handle, MPI_STATUS_IGNORE);
        message m;
        memcpy(&m.h, bytes.data(), sizeof m.h);
        if (m.h.pid != comm->pid) /* of an aborted communicator with the same tag */
            continue;
        m.bytes.assign(bytes.begin() + sizeof m.h, bytes.end());
        comm->inbox.push_back(std::move(m));
    }
    for (auto out = outbox.begin(); out != outbox.end();) {
        int done = 0;
        if (PMPI_Test(&out->request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done)
            out = outbox.erase(out);
        else
            ++out;
    }
}

/* The oldest message of this class from this rank (-1: any); false where there is none. */
bool take(ncclComm *comm, int what, int from, message *m)
{
    for (auto at = comm->inbox.begin(); at != comm->inbox.end(); ++at) {
        if (at->h.what == what && (from < 0 || at->h.from == from)) {
            *m = std::move(*at);
            comm->inbox.erase(at);
            return true;
        }
    }
    return false;
}

/* ---- connecting ---- */

member describe_me(const ncclComm *comm)
{
    member me;
    memset(&me, 0, sizeof me);
    me.rank = comm->rank;
    me.world = world_rank();
    me.nranks = comm->size;
    const char *multi = getenv("NCCL_MULTI_RANK_GPU_ENABLE"), *id = getenv("NCCL_HOSTID");
    me.multi = multi != NULL && strcmp(multi, "0") != 0;
    (void)gethostname(me.host, sizeof me.host - 1);
    if (id != NULL)
        (void)snprintf(me.host_id, sizeof me.host_id, "%s", id);
    (void)cudaDeviceGetPCIBusId(me.bus, (int)sizeof me.bus, comm->device);
    return me;
}

/* What the creator says of all members. */
verdict judge(const std::vector<member> &all)
{
    verdict v;
    memset(&v, 0, sizeof v);
    for (size_t b = 0; b < all.size(); b++) {
        for (size_t a = 0; a < b; a++) {
            const member &x = all[a], &y = all[b];
            bool one_host = x.host_id[0] != '\0' || y.host_id[0] != '\0'
                                ? strcmp(x.host_id, y.host_id) == 0
                                : strcmp(x.host, y.host) == 0;
            if (x.nranks != y.nranks || x.rank == y.rank) {
                v.code = ncclInvalidArgument;
                (void)snprintf(v.why, sizeof v.why,
                               "rank %d of %d and rank %d of %d were given one unique id", x.rank,
                               x.nranks, y.rank, y.nranks);
                return v;
            }
            if (one_host && strcmp(x.bus, y.bus) == 0 && !(x.multi && y.multi)) {
                v.code = ncclInvalidUsage;
                (void)snprintf(
                    v.why, sizeof v.why,
                    "Duplicate GPU detected : rank %d and rank %d both on CUDA device %s", x.rank,
                    y.rank, x.bus);
                return v;
            }
        }
    }
    return v;
}

void connect_members(ncclComm *comm)
{
    message m;
    header h;
    memset(&h, 0, sizeof h);
    while (comm->id.creator == world_rank() && take(comm, HELLO, -1, &m)) {
        member one;
        memcpy(&one, m.bytes.data(), sizeof one);
        comm->members.push_back(one);
        if ((int)comm->members.size() < comm->size)
            continue;
        verdict v = judge(comm->members);
        std::vector<char> answer(sizeof v + comm->members.size() * sizeof(int32_t));
        memcpy(answer.data(), &v, sizeof v);
        for (const member &each : comm->members) {
            if (v.code == ncclSuccess)
                memcpy(answer.data() + sizeof v + (size_t)each.rank * sizeof(int32_t), &each.world,
                       sizeof(int32_t));
        }
        h.what = WELCOME;
        for (const member &each : comm->members)
            post(comm, each.world, h, answer.data(), answer.size());
    }
    if (take(comm, WELCOME, -1, &m)) {
        verdict v;
        memcpy(&v, m.bytes.data(), sizeof v);
        comm->world.resize((size_t)comm->size);
        if (m.bytes.size() == sizeof v + comm->world.size() * sizeof(int32_t))
            memcpy(comm->world.data(), m.bytes.data() + sizeof v,
                   comm->world.size() * sizeof(int32_t));
        comm->at = READY;
        if (v.code != ncclSuccess)
            fail(comm, (ncclResult_t)v.code, v.why);
    } else if (clock_s() - comm->since > limit_s()) {
        fail(comm, ncclRemoteError, "other ranks did not join the communicator in time");
    }
}

/* ---- operations ---- */

/* A variable "<world rank>@<n>" and how many operations this rank has started since it was set. */
struct knob {
    const char *name;
    std::string value;
    long started;
} fail_knob = {"EMULATED_NCCL_FAIL", "", 0}, hang_knob = {"EMULATED_NCCL_HANG", "", 0};

/* Count an operation: whether the variable means this one. */
bool meant_by(knob *k)
{
    const char *text = getenv(k->name);
    char *end;
    if (text == NULL || k->value != text)
        k->started = 0;
    k->value = text != NULL ? text : "";
    k->started++;
    if (text == NULL || strtol(text, &end, 10) != world_rank() || *end != '@')
        return false;
    return strtol(end + 1, NULL, 10) == k->started;
}

void mismatch(ncclComm *comm, const operation &o, const header &h)
{
    char text[256];
    (void)snprintf(text, sizeof text,
                   "%s of %zu elements, type %d, root %d, call %llu meets rank %d's %s of %llu "
                   "elements, type %d, root %d, call %llu",
                   kind_name[o.what], o.count, o.type, o.root, (unsigned long long)o.sequence,
                   h.from, kind_name[h.op], (unsigned long long)h.count, h.type, h.root,
                   (unsigned long long)h.sequence);
    fail(comm, ncclInvalidUsage, text);
}

/* Bytes that this rank gives to the one that is `to` (what NULL: nothing). */
size_t given(const ncclComm *comm, const operation &o, int to, const char **what)
{
    size_t bytes = o.count * size_of(o.type);
    const char *from = (const char *)o.send;
    *what = NULL;
    switch (o.what) {
    case SEND:
        *what = to == o.root ? from : NULL;
        break;
    case RECV:
        break;
    case ALL_GATHER:
    case ALL_REDUCE:
        *what = from;
        break;
    case REDUCE_SCATTER:
        *what = from + (size_t)to * bytes;
        break;
    case BROADCAST:
        *what = comm->rank == o.root ? from : NULL;
        break;
    case REDUCE:
        *what = to == o.root ? from : NULL;
        break;
    }
    return bytes;
}

bool takes_from(const ncclComm *comm, const operation &o, int from)
{
    switch (o.what) {
    case SEND:
        return false;
    case RECV:
    case BROADCAST:
        return from == o.root;
    case REDUCE:
        return comm->rank == o.root;
    default:
        return true;
    }
}

/* The memory is there and readable. */
bool check_input(const ncclComm *comm, const operation &o)
{
    size_t bytes = o.count * size_of(o.type);
    if (o.what == REDUCE_SCATTER)
        bytes *= (size_t)comm->size;
    if (o.what == RECV || (o.what == BROADCAST && comm->rank != o.root))
        return true;
    return emulated_device_check(o.send, bytes, false, kind_name[o.what]);
}

/* Give this rank's numbers to all who want them. False: the memory is not what it should be. */
void start(ncclComm *comm, operation &o)
{
    o.started = true;
    o.hangs = meant_by(&hang_knob);
    if (meant_by(&fail_knob)) {
        char text[96];
        (void)snprintf(text, sizeof text, "%s fails as EMULATED_NCCL_FAIL wants",
                       kind_name[o.what]);
        fail(comm, ncclSystemError, text);
        return;
    }
    if (o.hangs)
        return;
    if (!check_input(comm, o)) {
        fail(comm, ncclUnhandledCudaError, "an operation reads memory that is not the device's");
        return;
    }
    header h;
    memset(&h, 0, sizeof h);
    h.what = o.what == SEND ? POINT : COLLECTIVE;
    h.op = o.what;
    h.type = o.type;
    h.root = o.what == SEND ? 0 : o.root;
    h.count = o.count;
    if (o.what != SEND && o.what != RECV)
        h.sequence = o.sequence = ++comm->collectives;
    o.parts.assign((size_t)comm->size, std::vector<char>());
    o.left = 0;
    for (int r = 0; r < comm->size; r++) {
        const char *what;
        size_t bytes = given(comm, o, r, &what);
        if (what != NULL)
            post(comm, comm->world[(size_t)r], h, what, bytes);
        o.left += takes_from(comm, o, r);
    }
    o.left += o.what == SEND; /* the receiver's answer */
}

/* Elements [0, count) of parts, from a rank that depends on the place. */
void add_up(const ncclComm *comm, operation &o, size_t place, float *sum)
{
    for (size_t i = 0; i < o.count; i++) {
        size_t first = (place + i) / 64 % (size_t)comm->size;
        float x = 0;
        for (size_t s = 0; s < (size_t)comm->size; s++) {
            float y;
            const std::vector<char> &part = o.parts[(first + s) % (size_t)comm->size];
            memcpy(&y, part.data() + i * sizeof y, sizeof y);
            x = s == 0 ? y : x + y;
        }
        sum[i] = x;
    }
}

/* All parts are here: put the result where it belongs. */
void finish(ncclComm *comm, operation &o)
{
    size_t bytes = o.count * size_of(o.type);
    bool adds = o.what == REDUCE_SCATTER || o.what == ALL_REDUCE || o.what == REDUCE;
    o.done = true;
    if (o.what == SEND || (o.what == REDUCE && comm->rank != o.root))
        return;
    size_t all = o.what == ALL_GATHER ? bytes * (size_t)comm->size : bytes;
    if (!emulated_device_check(o.recv, all, true, kind_name[o.what])) {
        fail(comm, ncclUnhandledCudaError, "an operation writes memory that is not the device's");
        return;
    }
    if (adds)
        add_up(comm, o, o.what == REDUCE_SCATTER ? (size_t)comm->rank * o.count : 0,
               (float *)o.recv);
    else if (o.what == ALL_GATHER)
        for (int r = 0; r < comm->size; r++)
            memcpy((char *)o.recv + (size_t)r * bytes, o.parts[(size_t)r].data(), bytes);
    else
        memcpy(o.recv, o.parts[(size_t)o.root].data(), bytes);
    o.parts.clear();
}

/* Take what has come for this operation. waits[r]: an earlier one of the group wants rank r's next
 * message between two ranks. */
void advance(ncclComm *comm, operation &o, std::vector<char> &waits)
{
    message m;
    if (o.hangs)
        return;
    if (o.what == SEND) {
        if (!waits[(size_t)comm->size + (size_t)o.root] && take(comm, TAKEN, o.root, &m))
            o.left--;
        waits[(size_t)comm->size + (size_t)o.root] |= o.left > 0;
    } else if (o.what == RECV) {
        if (!waits[(size_t)o.root] && take(comm, POINT, o.root, &m)) {
            if (m.h.count != o.count || m.h.type != o.type)
                return mismatch(comm, o, m.h);
            o.parts[(size_t)o.root] = std::move(m.bytes);
            o.left--;
            header h;
            memset(&h, 0, sizeof h);
            h.what = TAKEN;
            post(comm, comm->world[(size_t)o.root], h, NULL, 0);
        }
        waits[(size_t)o.root] |= o.left > 0;
    } else {
        for (int r = 0; r < comm->size && o.left > 0; r++) {
            if (!takes_from(comm, o, r) || !o.parts[(size_t)r].empty() ||
                !take(comm, COLLECTIVE, r, &m))
                continue;
            if (m.h.op != o.what || m.h.count != o.count || m.h.type != o.type ||
                m.h.root != o.root || m.h.sequence != o.sequence)
                return mismatch(comm, o, m.h);
            o.parts[(size_t)r] = std::move(m.bytes);
            o.left--;
        }
    }
    if (o.left == 0)
        finish(comm, o);
}

void forget(batch *b)
{
    ncclComm *comm = b->comm;
    comm->batches.remove(b);
    delete b;
    auto at = std::find(lost.begin(), lost.end(), comm);
    if (at != lost.end() && comm->batches.empty()) {
        lost.erase(at);
        delete comm;
    }
}

/* One round over a batch's operations: true when all are done. */
bool run_batch(batch *b)
{
    ncclComm *comm = b->comm;
    bool over = true;
    std::vector<char> waits((size_t)comm->size * 2);
    if (b->number != 0 && b->number != comm->finished + 1)
        return false; /* earlier ones, in another stream, go first */
    for (operation &o : b->operations) {
        if (!o.started && comm->error == ncclSuccess)
            start(comm, o);
    }
    for (operation &o : b->operations) {
        if (!o.done && comm->error == ncclSuccess)
            advance(comm, o, waits);
        over = over && o.done;
    }
    return over && comm->error == ncclSuccess;
}

/* The stream has come to this batch: true when it is over. */
bool poll_batch(void *arg)
{
    batch *b = *(batch **)arg;
    ncclComm *comm = b->comm;
    if (!comm->aborted) {
        exchange(comm);
        if (!b->started) {
            b->begun = clock_s();
            b->started = true;
        }
        if (!run_batch(b)) {
            double waited = clock_s() - b->begun;
            if (waited > limit_s())
                fail(comm, ncclRemoteError, "an operation has waited too long for another rank");
            if (waited < 2 * limit_s())
                return false;
            emulated_cuda_report(cudaErrorLaunchFailure,
                                 "an NCCL operation of rank %d never ended, and the host waited "
                                 "without a limit",
                                 comm->rank);
            comm->aborted = true;
        }
    }
    if (b->number != 0) {
        comm->finished = b->number;
        forget(b);
    } else { /* of a graph, which may run again */
        b->started = false;
        for (operation &o : b->operations)
            o.started = o.done = false;
    }
    return true;
}

ncclResult_t put_into_stream(batch *b)
{
    ncclComm *comm = b->comm;
    b->number = emulated_stream_capturing(b->stream) ? 0 : ++comm->queued;
    if (std::find(comm->streams.begin(), comm->streams.end(), b->stream) == comm->streams.end())
        comm->streams.push_back(b->stream);
    comm->batches.push_back(b);
    if (emulated_enqueue_poll(b->stream, poll_batch, &b, sizeof b, "NCCL") == cudaSuccess)
        return ncclSuccess;
    forget(b);
    fail(comm, ncclUnhandledCudaError, "the stream takes no more work");
    return ncclUnhandledCudaError;
}

/* ---- progress of communicators and streams, outside of operations ---- */

/* The GPUs go on. Leaves the runtime's last error as it was. */
void let_streams_run(void)
{
    static bool inside;
    if (inside || comms.empty() || cudaPeekAtLastError() != cudaSuccess)
        return;
    inside = true;
    for (ncclComm *comm : comms) {
        exchange(comm);
        for (cudaStream_t stream : comm->streams) {
            if (comm->finished == comm->queued && comm->batches.empty())
                break;
            if (!emulated_stream_capturing(stream) && cudaStreamQuery(stream) == cudaErrorNotReady)
                (void)cudaGetLastError();
        }
    }
    inside = false;
}

void finalize_members(ncclComm *comm)
{
    message m;
    header h;
    memset(&h, 0, sizeof h);
    let_streams_run();
    if (comm->finished == comm->queued && !comm->said_bye) {
        comm->said_bye = true;
        h.what = BYE;
        for (int to : comm->world)
            post(comm, to, h, NULL, 0);
    }
    while (take(comm, BYE, -1, &m))
        comm->byes++;
    if (comm->said_bye && comm->byes == comm->size) {
        comm->at = FINALIZED;
        if (!comm->inbox.empty())
            fail(comm, ncclInvalidUsage,
                 "the communicator ends with messages that no rank received");
    } else if (clock_s() - comm->since > limit_s()) {
        fail(comm, ncclRemoteError, "other ranks did not finalize the communicator in time");
    }
}

void progress(ncclComm *comm)
{
    if (comm->error != ncclSuccess)
        return;
    exchange(comm);
    if (comm->at == CONNECTING)
        connect_members(comm);
    else if (comm->at == FINALIZING)
        finalize_members(comm);
}

bool under_way(const ncclComm *comm)
{
    return comm->error == ncclSuccess && (comm->at == CONNECTING || comm->at == FINALIZING);
}

void wait_for(ncclComm *comm)
{
    while (under_way(comm)) {
        progress(comm);
        if (under_way(comm))
            (void)usleep(50);
    }
}

bool usable(ncclComm *comm)
{
    return comm != NULL && std::find(comms.begin(), comms.end(), comm) != comms.end();
}

/* The communicator takes no more calls; what is queued may still name it. */
void retire(ncclComm *comm)
{
    comms.remove(comm);
    comm->aborted = true;
    comm->inbox.clear();
    for (batch *b : comm->held)
        delete b;
    comm->held.clear();
    if (comm->batches.empty())
        delete comm;
    else
        lost.push_back(comm);
}

/* ---- calls ---- */

/* End of the outermost group: queue what it has. */
ncclResult_t launch_group(void)
{
    ncclResult_t result = group_error;
    std::vector<batch *> list;
    list.swap(group);
    group_error = ncclSuccess;
    for (batch *b : list) {
        ncclComm *comm = b->comm;
        if (result != ncclSuccess && result != ncclInProgress) {
            delete b;
        } else if (!comm->blocking && !emulated_stream_capturing(b->stream)) {
            comm->held.push_back(b);
            comm->asked = 0;
            result = ncclInProgress;
        } else {
            ncclResult_t code = put_into_stream(b);
            result = code != ncclSuccess ? code : result;
        }
    }
    return result;
}

ncclResult_t add(kind what, const void *send, void *recv, size_t count, ncclDataType_t type,
                 int root, ncclComm *comm, cudaStream_t stream)
{
    ncclResult_t code = ncclSuccess;
    bool adds = what == REDUCE_SCATTER || what == REDUCE || what == ALL_REDUCE;
    bool reads = what != RECV && (what != BROADCAST || (usable(comm) && comm->rank == root));
    bool writes = what != SEND && (what != REDUCE || (usable(comm) && comm->rank == root));
    if (!usable(comm))
        code = refuse(NULL, ncclInvalidArgument, "%s with no living communicator", kind_name[what]);
    else if (comm->error != ncclSuccess)
        code = comm->error;
    else if (comm->at != READY || !comm->held.empty())
        code = refuse(comm, ncclInvalidArgument,
                      "%s while the communicator is still busy (ncclInProgress)", kind_name[what]);
    else if (root < 0 || root >= comm->size)
        code = refuse(comm, ncclInvalidArgument, "%s: rank %d of %d", kind_name[what], root,
                      comm->size);
    else if (type < 0 || type > ncclBfloat16 || (adds && type != ncclFloat32))
        code = refuse(comm, ncclInvalidArgument, "%s of type %d is not emulated", kind_name[what],
                      (int)type);
    else if (count > 0 && ((reads && send == NULL) || (writes && recv == NULL)))
        code = refuse(comm, ncclInvalidArgument, "%s without a buffer", kind_name[what]);
    else if (emulated_stream_device(stream) != comm->device)
        code = refuse(comm, ncclInvalidArgument, "%s on a stream of device %d, wanted %d",
                      kind_name[what], emulated_stream_device(stream), comm->device);
    if (code != ncclSuccess) {
        if (group_depth > 0)
            group_error = code;
        return code;
    }
    if (count == 0) /* no rank brings anything */
        return ncclSuccess;
    batch *into = NULL;
    for (batch *b : group) {
        if (b->comm == comm && b->stream == stream)
            into = b;
    }
    if (into == NULL) {
        into = new batch();
        into->comm = comm;
        into->stream = stream;
        group.push_back(into);
    }
    operation o = {};
    o.what = what;
    o.send = send;
    o.recv = recv;
    o.count = count;
    o.type = type;
    o.root = root;
    into->operations.push_back(o);
    return group_depth > 0 ? ncclSuccess : launch_group();
}

ncclResult_t sum_only(ncclRedOp_t op, kind what)
{
    if (op == ncclSum)
        return ncclSuccess;
    ncclResult_t code = refuse(NULL, ncclInvalidArgument, "%s with operation %d is not emulated",
                               kind_name[what], (int)op);
    if (group_depth > 0)
        group_error = code;
    return code;
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    if (version == NULL)
        return ncclInvalidArgument;
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out)
{
    static int32_t number;
    if (out == NULL)
        return ncclInvalidArgument;
    unique id;
    memcpy(id.magic, unique_magic, sizeof id.magic);
    id.creator = world_rank();
    id.number = number++;
    id.pid = (int32_t)getpid();
    memset(out, 0, sizeof *out);
    memcpy(out, &id, sizeof id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int nranks, ncclUniqueId opaque, int rank,
                                    ncclConfig_t *config)
{
    unique id;
    memcpy(&id, &opaque, sizeof id);
    if (out == NULL)
        return ncclInvalidArgument;
    *out = NULL;
    if (nranks < 1 || rank < 0 || rank >= nranks)
        return refuse(NULL, ncclInvalidArgument, "rank %d of %d", rank, nranks);
    if (memcmp(id.magic, unique_magic, sizeof id.magic) != 0)
        return refuse(NULL, ncclInvalidArgument, "not a unique id");
    if (config != NULL && (config->magic != 0xcafebeef || config->size != sizeof *config))
        return refuse(NULL, ncclInvalidArgument,
                      "a configuration that NCCL_CONFIG_INITIALIZER did not make");
    if (group_depth > 0)
        return refuse(NULL, ncclInvalidUsage, "communicators made within a group: not emulated");
    if (nranks > 1 && !mpi_runs())
        return refuse(NULL, ncclSystemError, "%d ranks without MPI", nranks);
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess)
        return refuse(NULL, ncclUnhandledCudaError, "no CUDA device");
    ncclComm *comm = new ncclComm();
    comm->rank = rank;
    comm->size = nranks;
    comm->device = device;
    comm->tag = FIRST_TAG + (id.creator * TAGS_PER_RANK + id.number) % TAGS;
    comm->pid = id.pid;
    comm->id = id;
    comm->blocking = config == NULL || config->blocking != 0; /* undefined: blocking */
    comm->at = CONNECTING;
    comm->since = clock_s();
    comms.push_back(comm);
    header h;
    memset(&h, 0, sizeof h);
    h.what = HELLO;
    member me = describe_me(comm);
    post(comm, id.creator, h, &me, sizeof me);
    *out = comm;
    if (!comm->blocking)
        return ncclInProgress;
    wait_for(comm);
    ncclResult_t code = comm->error;
    if (code != ncclSuccess) {
        retire(comm);
        *out = NULL;
    }
    return code;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int nranks, ncclUniqueId id, int rank)
{
    return ncclCommInitRankConfig(out, nranks, id, rank, NULL);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    if (!usable(comm))
        return ncclInvalidArgument;
    if (comm->error != ncclSuccess)
        return comm->error;
    if (comm->at != READY || !comm->held.empty())
        return refuse(comm, ncclInvalidArgument, "ncclCommFinalize of a communicator that is busy");
    comm->at = FINALIZING;
    comm->since = clock_s();
    if (!comm->blocking)
        return ncclInProgress;
    wait_for(comm);
    return comm->error;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (comm == NULL)
        return ncclSuccess;
    if (!usable(comm))
        return ncclInvalidArgument;
    if (!comm->held.empty())
        fail(comm, ncclInvalidUsage, "ncclCommDestroy of a communicator that is busy");
    if (comm->at == READY && comm->error == ncclSuccess) {
        comm->at = FINALIZING;
        comm->since = clock_s();
    }
    wait_for(comm);
    ncclResult_t code = comm->error;
    retire(comm);
    return code;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (comm == NULL)
        return ncclSuccess;
    if (!usable(comm))
        return ncclInvalidArgument;
    retire(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[] = {
        "no error",
        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "internal error - please report this issue to the NCCL developers",
        "invalid argument (run with NCCL_DEBUG=WARN for details)",
        "invalid usage (run with NCCL_DEBUG=WARN for details)",
        "remote process exited or there was a network error",
        "NCCL operation in progress",
    };
    return result >= 0 && result < ncclNumResults ? text[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return usable(comm) ? comm->why.c_str() : last_error.c_str();
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out)
{
    if (!usable(comm) || out == NULL)
        return ncclInvalidArgument;
    progress(comm);
    if (!comm->held.empty() && ++comm->asked >= 2) {
        std::list<batch *> list;
        list.swap(comm->held);
        for (batch *b : list)
            (void)put_into_stream(b);
    }
    *out = comm->error != ncclSuccess               ? comm->error
           : under_way(comm) || !comm->held.empty() ? ncclInProgress
                                                    : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    if (!usable(comm) || count == NULL)
        return ncclInvalidArgument;
    *count = comm->size;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
    if (!usable(comm) || device == NULL)
        return ncclInvalidArgument;
    *device = comm->device;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    if (!usable(comm) || rank == NULL)
        return ncclInvalidArgument;
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (group_depth == 0)
        return refuse(NULL, ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    return --group_depth > 0 ? ncclSuccess : launch_group();
}

ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add(SEND, send, NULL, count, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(RECV, NULL, recv, count, type, peer, comm, stream);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return add(ALL_GATHER, send, recv, count, type, 0, comm, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream)
{
    return add(BROADCAST, send, recv, count, type, root, comm, stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t code = sum_only(op, REDUCE_SCATTER);
    return code != ncclSuccess ? code
                               : add(REDUCE_SCATTER, send, recv, count, type, 0, comm, stream);
}

ncclResult_t ncclReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t code = sum_only(op, REDUCE);
    return code != ncclSuccess ? code : add(REDUCE, send, recv, count, type, root, comm, stream);
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t code = sum_only(op, ALL_REDUCE);
    return code != ncclSuccess ? code : add(ALL_REDUCE, send, recv, count, type, 0, comm, stream);
}

/* ---- MPI's blocking calls: the GPUs go on meanwhile ---- */

static void wait_while_gpus_work(MPI_Request *request, MPI_Status *status)
{
    int done = 0;
    while (PMPI_Test(request, &done, status) == MPI_SUCCESS && !done)
        let_streams_run();
}

/* All ranks have come to this collective. */
static void gather_ranks(MPI_Comm comm)
{
    MPI_Request request;
    if (PMPI_Ibarrier(comm, &request) == MPI_SUCCESS)
        wait_while_gpus_work(&request, MPI_STATUS_IGNORE);
}

int MPI_Barrier(MPI_Comm comm)
{
    gather_ranks(comm);
    return PMPI_Barrier(comm);
}

int MPI_Bcast(void *buffer, int count, MPI_Datatype type, int root, MPI_Comm comm)
{
    gather_ranks(comm);
    return PMPI_Bcast(buffer, count, type, root, comm);
}

int MPI_Allreduce(const void *send, void *recv, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm comm)
{
    gather_ranks(comm);
    return PMPI_Allreduce(send, recv, count, type, op, comm);
}

int MPI_Allgather(const void *send, int count, MPI_Datatype type, void *recv, int recv_count,
                  MPI_Datatype recv_type, MPI_Comm comm)
{
    gather_ranks(comm);
    return PMPI_Allgather(send, count, type, recv, recv_count, recv_type, comm);
}

int MPI_Allgatherv(const void *send, int count, MPI_Datatype type, void *recv, const int counts[],
                   const int places[], MPI_Datatype recv_type, MPI_Comm comm)
{
    gather_ranks(comm);
    return PMPI_Allgatherv(send, count, type, recv, counts, places, recv_type, comm);
}

int MPI_Gatherv(const void *send, int count, MPI_Datatype type, void *recv, const int counts[],
                const int places[], MPI_Datatype recv_type, int root, MPI_Comm comm)
{
    gather_ranks(comm);
    return PMPI_Gatherv(send, count, type, recv, counts, places, recv_type, root, comm);
}

int MPI_Recv(void *buffer, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
             MPI_Status *status)
{
    MPI_Request request;
    int code = PMPI_Irecv(buffer, count, type, from, tag, comm, &request);
    if (code == MPI_SUCCESS)
        wait_while_gpus_work(&request, status);
    return code;
}

int MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[])
{
    int done = 0, code;
    do {
        code = PMPI_Testall(count, requests, &done, statuses);
        if (code == MPI_SUCCESS && !done)
            let_streams_run();
    } while (code == MPI_SUCCESS && !done);
    return code;
}

int MPI_Test(MPI_Request *request, int *done, MPI_Status *status)
{
    let_streams_run();
    return PMPI_Test(request, done, status);
}

} // extern "C"
