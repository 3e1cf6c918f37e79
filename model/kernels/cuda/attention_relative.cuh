/*
 * attention_relative.cuh - disentangled attention (kernels.h, struct distances), what its two
 * sources share: the arguments, windows of the table, bands of dS, and how the table's gradient is
 * summed. attention_relative.cu has the entries and the 16-bit kernels, attention_relative_f32.cu
 * the float ones. Blocks, tiles and owners are those of attention.cuh.
 *
 * Windows. A block has a tile of own lines (queries, or keys in key_grads) and walks over tiles of
 * other lines. By the offset other - own a tile of T by T scores sees 2 T - 1 lines of the table:
 * its window, of which the next tile sees the upper half again. So a block keeps 2 T lines of each
 * projection in shared memory, as a ring, and brings T new ones for each tile, straight from where
 * the product of the layer left them, by a list of each distance's line. Nothing is written out by
 * distance first: 512 lines serve 1,023 distances, and rows of any length.
 *
 * Skew. Scores want, for own line r and other line c of a tile, column c - r of a product of own
 * lines and the window, and row c - r of a product of the window and other lines. Within 16 x 16
 * scores (8 x 32 for floats) both are shifts by less than 32, done with shuffles between the lanes
 * that hold the products: no scores go through memory. Backward shifts dS the other way, to own
 * line by offset, which is the weight of the window's lines in dq and dk; that is one-to-one, so
 * nothing needs adding up.
 *
 * The table's gradient is a sum over all rows of a piece. query_grads and key_grads write dS in the
 * activations' type, each once: that is what is materialised, 2 x 2 bytes for each score of a head
 * (bands). table_grads then multiplies, for TILE offsets at a time, bands with own lines:
 *
 *   dT[offset] = sum over rows, own lines of dS[own][own + offset] x[own]
 *
 * where x is q for the projection to keys, k for that to queries. A block has the tiles of a
 * segment of a piece, SEGMENT of them counted from the piece's first, and sums them in order; fold
 * adds a piece's segments, in order, and the offsets that share a line, in order. So the sum depends
 * on the piece alone. Recomputing dS instead would cost five products and more for each of the two
 * that are wanted; writing partial sums of the table for each tile eight times the bytes.
 *
 * Chunks. Bands of all heads and rows may be more than the scratch holds: heads are done in groups,
 * and if one head's are too many, its tiles; sums that go on from one chunk to the next lie in
 * memory in between as they are in registers, so where chunks end changes no bit.
 */
#ifndef COHORT_MODEL_KERNELS_CUDA_ATTENTION_RELATIVE_CUH
#define COHORT_MODEL_KERNELS_CUDA_ATTENTION_RELATIVE_CUH

#include "model/kernels/cuda/attention.cuh"

/* The two projections: to keys, which queries meet, and to queries, which keys meet. */
enum { TO_KEYS, TO_QUERIES, SIDES };

enum { SEGMENT = 32 };

/* A call, by value. */
struct relative_call {
    attention_call a;
    int first_head;           /* that of blocks with blockIdx.y 0 */
    const void *table[SIDES]; /* channel 0 of line 0 of each projection; NULL: there is none */
    int64_t table_stride;
    int table_lines;
    const int32_t *line; /* of distance d at [reach + d] */
    int reach;
    /* Bands of own tiles with slots (see slot_of_row) [slot_begin, slot_end), band elements for each
     * and each of the launch's heads; the blocks of others have nothing to do. NULL: not wanted. */
    void *bands;
    int64_t band;
    int slot_begin, slot_end;
};

/* The gradient of one projection, by value. Own and other lines as in the kernel that wrote the
 * bands. */
struct side_call {
    rows_device own, other;
    const int32_t *piece_row; /* (pieces + 1) */
    int pieces;
    int head_size, first_head;
    const void *x; /* own lines: q or k */
    int64_t x_stride;
    bool aligned;
    const void *bands;
    int64_t band;
    int slot_begin, slot_end;
    /* (segments, heads, low + high, T, D): sums by offset, those of the first part from -low T on.
     * The outermost parts also have the offsets beyond them, where these share the line of the
     * farthest distance. */
    float *partial;
    int low, high;
    /* fold */
    const int32_t *line_begin, *distance; /* distances of line l: [line_begin[l], line_begin[l + 1]) */
    int reach, lines;
    int sign; /* distance = sign * offset */
    float scale;
    void *dtable; /* channel 0 of piece 0's line 0 */
    int64_t width;
};

/* The kernels of a precision and size of heads. Each queues one launch (query_grads, key_grads,
 * table_grads, fold: for so many heads) and says what was wrong with it. */
struct relative_kernels {
    int tile, width; /* T, D */
    int64_t (*band)(int others); /* elements of an own tile's band, for rows of up to `others` */
    cudaError_t (*forward)(const relative_call &call, cudaStream_t stream);
    cudaError_t (*query_grads)(const relative_call &call, int heads, cudaStream_t stream);
    cudaError_t (*key_grads)(const relative_call &call, int heads, cudaStream_t stream);
    cudaError_t (*table_grads)(const side_call &call, int segments, int heads, cudaStream_t stream);
    cudaError_t (*fold)(const side_call &call, int heads, cudaStream_t stream);
};

/* attention_relative_f32.cu */
const relative_kernels *attention_relative_f32(int head_size);

static __device__ __forceinline__ attention_place relative_place(const relative_call &call)
{
    attention_place p = place_of_block(call.a);
    p.head += call.first_head;
    return p;
}

/* ---- windows */

/* Line of the table for an offset; -1: it has none, so no score of a row needs it. */
static __device__ __forceinline__ int line_of_offset(const relative_call &call, int sign,
                                                     int offset)
{
    int distance = sign * offset;
    distance = distance > call.reach ? call.reach : distance;
    distance = distance < -call.reach ? -call.reach : distance;
    const int line = call.line[call.reach + distance];
    return line < call.table_lines ? line : -1;
}

/* Lines [at, at + ROWS) of a window into ring lines of the same numbers modulo 2 ROWS; at is a
 * multiple of ROWS. Line w of the window is that of offset w - ROWS - own, where own is the block's
 * first own line. Zeros where the table has no such line, or there is no such projection. As
 * load_tile(): the copies belong to the next commit. */
template <typename T, int ROWS, int D, typename Layout>
static __device__ __forceinline__ void load_window(T *window, const relative_call &call, int side,
                                                   int sign, int head, int own, int at)
{
    constexpr int each = 16 / (int)sizeof(T), chunks = D / each;
    constexpr int step = ATTENTION_THREADS / chunks;
    static_assert(step >= 4 && ROWS % step == 0, "a window is copied in whole steps");
    const int first = (int)threadIdx.x / chunks, chunk = (int)threadIdx.x % chunks;
    const int ring = at & ROWS, head_size = call.a.head_size;
    const T *from = (const T *)(call.table[side] != NULL ? call.table[side] : call.a.k);
    const bool some = call.table[side] != NULL && chunk * each < head_size;
    const int channel = head * head_size + chunk * each;
    const int offset = at + first - ROWS - own;
#pragma unroll
    for (int i = 0; i < ROWS; i += step) {
        const int line = some ? line_of_offset(call, sign, offset + i) : -1;
        const T *source = from + (line < 0 ? 0 : line * call.table_stride + channel);
        T *target = step % 8 == 0 ? window + Layout::at(ring + first, chunk) + i * Layout::width
                                  : window + Layout::at(ring + first + i, chunk);
        if (call.a.aligned) {
            cp_async16(target, source, line >= 0);
        } else {
            for (int e = 0; e < each; e++)
                target[e] = line >= 0 ? source[e] : from_float<T>(0.0f);
        }
    }
}

/* ---- tiles of own lines and segments of them. Slots of a row's tiles follow each other; a row of
 * n lines has n / T + 1 or one more before the next row's. */
template <int T> static __device__ __forceinline__ int slot_of_row(const rows_device &own, int row)
{
    return own.begin[row] / T + row;
}

/* The same counted from a piece's first row. */
template <int T>
static __device__ __forceinline__ int slot_in_piece(const rows_device &own, int first, int row)
{
    return (own.begin[row] - own.begin[first]) / T + row - first;
}

template <int T>
static __device__ __forceinline__ int segments_before(const side_call &call, int piece)
{
    return slot_of_row<T>(call.own, call.piece_row[piece]) / SEGMENT + piece;
}

template <int T>
static __device__ __forceinline__ int segments_of_piece(const side_call &call, int piece)
{
    const int slots =
        slot_in_piece<T>(call.own, call.piece_row[piece], call.piece_row[piece + 1]);
    return (slots + SEGMENT - 1) / SEGMENT;
}

/* Where a block of table_grads works. */
struct segment_place {
    int first_row, end_row; /* that have tiles in the segment; none: there is no such segment */
    int piece_row, slot;    /* the piece's first row, the segment's first slot in it */
};

/* The row of a piece (rows [first, end)) that has a slot. */
template <int T>
static __device__ __forceinline__ int row_of_slot(const rows_device &own, int first, int end,
                                                  int slot)
{
    int low = first;
    while (end - low > 1) {
        const int middle = (low + end) / 2;
        if (slot_in_piece<T>(own, first, middle) <= slot)
            low = middle;
        else
            end = middle;
    }
    return low;
}

template <int T>
static __device__ __forceinline__ segment_place find_segment(const side_call &call, int segment)
{
    segment_place s = {};
    int low = 0, high = call.pieces;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (segments_before<T>(call, middle) <= segment)
            low = middle;
        else
            high = middle;
    }
    const int at = segment - segments_before<T>(call, low);
    if (at < 0 || at >= segments_of_piece<T>(call, low))
        return s;
    const int end = call.piece_row[low + 1];
    s.piece_row = call.piece_row[low];
    s.slot = at * SEGMENT;
    s.first_row = row_of_slot<T>(call.own, s.piece_row, end, s.slot);
    s.end_row = row_of_slot<T>(call.own, s.piece_row, end, s.slot + SEGMENT - 1) + 1;
    return s;
}

/* [begin, end) */
struct some_range {
    int begin, end;
};

/* A row's tiles that are in the segment and whose bands are there. */
template <int T>
static __device__ __forceinline__ some_range tiles_in_segment(const side_call &call,
                                                              const segment_place &s, int row)
{
    const int slot = slot_in_piece<T>(call.own, s.piece_row, row);
    const int stored = slot_of_row<T>(call.own, row);
    const int lines = call.own.begin[row + 1] - call.own.begin[row];
    const int first = s.slot - slot > call.slot_begin - stored ? s.slot - slot
                                                               : call.slot_begin - stored;
    int last = (lines + T - 1) / T;
    last = s.slot + SEGMENT - slot < last ? s.slot + SEGMENT - slot : last;
    last = call.slot_end - stored < last ? call.slot_end - stored : last;
    return {first > 0 ? first : 0, last};
}

/* x / T rounded down. */
template <int T> static __device__ __forceinline__ int floor_of(int x)
{
    return x >= 0 ? x / T : -((T - 1 - x) / T);
}

/* Which offsets, in units of T, own tile `tile` of a row with n > 0 other lines adds to `part`. */
template <int T>
static __device__ __forceinline__ some_range offsets_of_part(const side_call &call, int part,
                                                             int tile, int n)
{
    const int at = part - call.low, least = -tile - 1, most = floor_of<T>(n - 1 - tile * T);
    return {part == 0 || at < least ? least : at,
            (part == call.low + call.high - 1 || at > most ? most : at) + 1};
}

/* The partial sums of a segment, head (of the launch) and part. */
template <int T, int D>
static __device__ __forceinline__ float *partial_of(const side_call &call, int segment, int heads,
                                                    int head, int part)
{
    return call.partial +
           (((int64_t)segment * heads + head) * (call.low + call.high) + part) * (T * D);
}

/* Lines of dtable: a thread has a channel of one head; x: lines, y: 128 threads each, z: pieces. */
template <typename T, int TILE_LINES, int D>
static __global__ void __launch_bounds__(ATTENTION_THREADS) fold(side_call call, int heads)
{
    const int line = (int)blockIdx.x, piece = (int)blockIdx.z;
    const int at = (int)(blockIdx.y * ATTENTION_THREADS + threadIdx.x);
    if (at >= heads * call.head_size)
        return;
    const int head = at / call.head_size, channel = at % call.head_size;
    const int segment = segments_before<TILE_LINES>(call, piece);
    const int segments = segments_of_piece<TILE_LINES>(call, piece);
    const int least = -call.low * TILE_LINES, end = call.high * TILE_LINES;
    float sum = 0.0f;
    for (int i = call.line_begin[line]; i < call.line_begin[line + 1]; i++) {
        /* The farthest distances stand for all beyond them. */
        const int distance = call.distance[i], away = distance < 0 ? -distance : distance;
        const int step = away < call.reach ? 0 : (distance < 0 ? -call.sign : call.sign);
        for (int offset = call.sign * distance; offset >= least && offset < end; offset += step) {
            const int part = (offset - least) / TILE_LINES, l = (offset - least) % TILE_LINES;
            for (int s = 0; s < segments; s++)
                sum += partial_of<TILE_LINES, D>(call, segment + s, heads, head,
                                                 part)[l * D + channel];
            if (step == 0)
                break;
        }
    }
    T *to = (T *)call.dtable + ((int64_t)piece * call.lines + line) * call.width;
    to[(call.first_head + head) * call.head_size + channel] = from_float<T>(sum * call.scale);
}

template <typename T, int TILE_LINES, int D>
static cudaError_t queue_fold(const side_call &call, int heads, cudaStream_t stream)
{
    const int channels = heads * call.head_size;
    const dim3 grid((unsigned)call.lines,
                    (unsigned)((channels + ATTENTION_THREADS - 1) / ATTENTION_THREADS),
                    (unsigned)call.pieces);
    LAUNCH((fold<T, TILE_LINES, D>), grid, ATTENTION_THREADS, 0, stream, call, heads);
    return cudaSuccess;
}

#endif
