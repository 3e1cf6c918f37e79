/*
 * attention_simd.h - attention for AVX-512 machines, included once by each of
 * attention_{f32_avx512,bf16,amx}.c.
 *
 * The including file defines ATTENTION_BF16 (1: activations are bfloat16, products multiply bf16
 * and add in float; 0: float), ATTENTION_PATH (name of the exported path), multiply(), the product
 * of blocks, and KEEP_AWAKE(), for AMX (see attention_amx.c); in forward's softmax and in draw() it
 * was tried and cost 5 % of rows of 512.
 *
 * Everything in scratch memory is a matrix of 32-bit words (a float, or two neighbouring bf16) in
 * panels: 16 columns wide, one row = one cache line = one register = one row of an AMX tile, rows
 * back to back. Element (r, c) of a matrix whose panels have R rows is at [(c / 16) * R * 16 + r *
 * 16 + c % 16]. The product C = A B takes A as (rows, words along the sum) and B as (words along
 * the sum, columns); with bf16 a word of A holds two neighbours of a row, a word of B two
 * neighbours of a column ("pairs"). So K as stored, transposed by words, is B of S = Q K^T; V in
 * pairs is B of O = P V; and so on. Scores have queries in rows and keys in lanes: a row's
 * 8-decision groups of dropout are then bytes of a bit string that load directly as mask registers.
 *
 * Forward: a strip of 32 queries (16 against many keys, to stay in the first cache) against up to
 * KEYS_FORWARD keys at a time; longer rows go on with a running maximum and sum. Backward: blocks
 * of KEYS_BACKWARD keys x QUERIES_BACKWARD queries; dk^T and dv^T are kept transposed (channels in
 * rows), since then P and dS as they lie are B, and only the small results need a transposition.
 * With bf16, unpacking two rows to pairs shuffles keys within groups of 32; key_of() undoes that
 * when dk and dv are written.
 *
 * Sums over 16 lanes are done for 16 rows at once (reduce16). Order of every sum depends on the
 * row's lengths alone.
 */
#include <immintrin.h>

#include "model/kernels/cpu/attention.h"

#if ATTENTION_BF16
typedef uint16_t element;
#define PER_WORD 2
#else
typedef float element;
#define PER_WORD 1
#endif
#define GROUP (16 * PER_WORD) /* elements of one panel row */

#define KEYS_FORWARD 512
#define KEYS_BACKWARD 128
#define QUERIES_BACKWARD 128
#define STRIP 32       /* queries whose scores exist at a time */
#define LONG_STRIP 256 /* keys from which forward takes 16 */
#define LOG2E 1.44269504088896340736f
#define LN2 0.69314718055994530942f

#define INLINE static inline __attribute__((always_inline))

static inline int least(int a, int b)
{
    return a < b ? a : b;
}

static inline int up(int n, int step)
{
    return (n + step - 1) / step * step;
}

/* Words along a sum of n elements. */
static inline int sum_words(int n)
{
    return up((n + PER_WORD - 1) / PER_WORD, SUM_STEP);
}

INLINE __mmask16 lanes(int n)
{
    if (n >= 16)
        return 0xFFFF;
    return (__mmask16)(n <= 0 ? 0 : (1u << n) - 1);
}

/* 2^y, relative error 1.5e-7 and below; 0 far below. Coefficients: least largest relative error on
 * [0, 1], 2^0 = 1. */
INLINE __m512 power_of_two(__m512 y, __mmask16 keep)
{
    __m512 f = _mm512_reduce_ps(y, 0x09), p; /* y - floor(y) */
    p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.e97502p-10f), f, _mm512_set1_ps(0x1.277854p-7f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c91ce6p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebdb56p-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e4bap-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(keep, p, y); /* p * 2^floor(y) */
}

/* log x for x > 0: x = m 2^e, m in [0.75, 1.5), log m = 2 artanh((m - 1) / (m + 1)). */
INLINE __m512 logarithm(__m512 x)
{
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_zero);
    __m512 e = _mm512_getexp_ps(_mm512_div_ps(x, m));
    __m512 s = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), t = _mm512_mul_ps(s, s),
           p;
    p = _mm512_fmadd_ps(_mm512_set1_ps(2.0f / 9), t, _mm512_set1_ps(2.0f / 7));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(2.0f / 5));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(2.0f / 3));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(2.0f));
    return _mm512_fmadd_ps(e, _mm512_set1_ps(LN2), _mm512_mul_ps(p, s));
}

/* Lane i = sum (or maximum) of the 16 floats at v + 16 i. */
INLINE __m512 reduce16(const float *v, bool maximum)
{
#define PUT(a, b) (maximum ? _mm512_max_ps(a, b) : _mm512_add_ps(a, b))
    __m512 t[8], u[4], w[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512 a = _mm512_load_ps(v + 32 * i), b = _mm512_load_ps(v + 32 * i + 16);
        t[i] = PUT(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = PUT(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                   _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        w[i] = PUT(_mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0x88),
                   _mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0xDD));
    return PUT(_mm512_shuffle_f32x4(w[0], w[1], 0x88), _mm512_shuffle_f32x4(w[0], w[1], 0xDD));
#undef PUT
}

/* to (16, 16) = transpose of from (16, 16) words. Loads of 16 bytes with insertion spare half of
 * the shuffles. */
INLINE void transpose16(uint32_t *to, const uint32_t *from)
{
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i x[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const uint32_t *p = from + 16 * i + 4 * j;
            x[i] = _mm512_castsi128_si512(_mm_load_si128((const __m128i *)p));
            x[i] = _mm512_inserti32x4(x[i], _mm_load_si128((const __m128i *)(p + 64)), 1);
            x[i] = _mm512_inserti32x4(x[i], _mm_load_si128((const __m128i *)(p + 128)), 2);
            x[i] = _mm512_inserti32x4(x[i], _mm_load_si128((const __m128i *)(p + 192)), 3);
        }
        __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
        __m512i c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
        _mm512_store_si512(to + 64 * j, _mm512_unpacklo_epi64(a, c));
        _mm512_store_si512(to + 64 * j + 16, _mm512_unpackhi_epi64(a, c));
        _mm512_store_si512(to + 64 * j + 32, _mm512_unpacklo_epi64(b, d));
        _mm512_store_si512(to + 64 * j + 48, _mm512_unpackhi_epi64(b, d));
    }
}

/* n lines of d elements, stride elements apart -> panels of `rows` rows, the missing rows and
 * channels zero. */
static void pack(uint32_t *to, int rows, const element *from, int64_t stride, int n, int d)
{
    for (int c = 0; c < d; c += GROUP, to += (ptrdiff_t)rows * 16) {
        KEEP_AWAKE();
#if ATTENTION_BF16
        __mmask32 keep = d - c >= 32 ? 0xFFFFFFFFu : (1u << (d - c)) - 1;
        for (int r = 0; r < n; r++) {
            _mm_prefetch((const char *)(from + r * stride + c + d), _MM_HINT_T0);
            _mm512_store_si512(to + 16 * r, _mm512_maskz_loadu_epi16(keep, from + r * stride + c));
        }
#else
        for (int r = 0; r < n; r++) {
            _mm_prefetch((const char *)(from + r * stride + c + d), _MM_HINT_T0);
            _mm512_store_si512(to + 16 * r,
                               _mm512_maskz_loadu_epi32(lanes(d - c), from + r * stride + c));
        }
#endif
        for (int r = n; r < rows; r++)
            _mm512_store_si512(to + 16 * r, _mm512_setzero_si512());
    }
}

/* to (columns, rows) = transpose of from (rows, columns) by words; both multiples of 16. */
static void transpose(uint32_t *to, const uint32_t *from, int rows, int columns)
{
    KEEP_AWAKE();
    for (int r = 0; r < rows; r += 16)
        for (int c = 0; c < columns; c += 16)
            transpose16(to + (ptrdiff_t)r * columns + c * 16, from + (ptrdiff_t)c * rows + r * 16);
}

/* Panels of (rows, d) elements -> the same matrix with neighbours of a column in one word: (rows /
 * 2, d) words. With float that is the matrix itself, and its address is returned instead. */
static const uint32_t *pairs(uint32_t *to, const uint32_t *from, int rows, int words)
{
#if ATTENTION_BF16
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    for (int c = 0; c < words; c += 16, from += (ptrdiff_t)rows * 16, to += (ptrdiff_t)rows * 16) {
        uint32_t *high = to + (ptrdiff_t)rows * 8;
        for (int r = 0; r < rows; r += 2) {
            __m512i a = _mm512_permutexvar_epi64(order, _mm512_load_si512(from + 16 * r));
            __m512i b = _mm512_permutexvar_epi64(order, _mm512_load_si512(from + 16 * r + 16));
            _mm512_store_si512(to + 8 * r, _mm512_unpacklo_epi16(a, b));
            _mm512_store_si512(high + 8 * r, _mm512_unpackhi_epi16(a, b));
        }
    }
    return (const uint32_t *)__builtin_assume_aligned(to - (ptrdiff_t)rows * words, 64);
#else
    (void)to, (void)rows, (void)words;
    return from;
#endif
}

/* Store up to GROUP channels c.. of one line of d: a, b = channels 0..15, 16..31 (bf16) or a alone
 * (float). */
INLINE void put_line(element *to, int left, __m512 a, __m512 b)
{
#if ATTENTION_BF16
    __m512i x = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    if (left >= 32)
        _mm512_storeu_si512(to, x);
    else
        _mm512_mask_storeu_epi16(to, (1u << left) - 1, x);
#else
    (void)b;
    _mm512_mask_storeu_ps(to, lanes(left), a);
#endif
}

/* Dropout decisions of counters first .. first + count: one byte each, bit set = kept. Writes whole
 * groups of 8 bytes. */
static void draw(uint8_t *to, const struct attention_random *r, uint32_t first, int count)
{
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    const __m512i threshold = _mm512_set1_epi16((short)r->threshold);
    const __m512i w1 = _mm512_set1_epi64(r->word[0]), w2 = _mm512_set1_epi64(r->word[1]);
    const __m512i w3 = _mm512_set1_epi64(r->word[2]);
    __m512i k0[10], k1[10];
#pragma GCC unroll 10
    for (uint32_t i = 0; i < 10; i++) {
        k0[i] = _mm512_set1_epi64((uint32_t)r->key + i * 0x9E3779B9u);
        k1[i] = _mm512_set1_epi64((uint32_t)(r->key >> 32) + i * 0xBB67AE85u);
    }
    /* One counter per 64-bit lane, its words in the low halves; what is left in the high halves is
     * never used. */
    __m512i counter =
        _mm512_add_epi32(_mm512_set1_epi64(first), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
    for (int i = 0; i < count; i += 8) {
        __m512i c0 = counter, c1 = w1, c2 = w2, c3 = w3;
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            __m512i p0 = _mm512_mul_epu32(m0, c0), p1 = _mm512_mul_epu32(m1, c2);
            c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1, k0[round], 0x96);
            c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3, k1[round], 0x96);
            c1 = p1;
            c3 = p0;
        }
        __m512i low =
            _mm512_mask_shuffle_epi32(c0, 0xAAAA, c1, 0xA0); /* decisions 0..3 of each counter */
        __m512i high = _mm512_mask_shuffle_epi32(c2, 0xAAAA, c3, 0xA0);
        const uint32_t keep[2] = {
            _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64(low, high), threshold),
            _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64(low, high), threshold)};
        memcpy(to + i, keep, sizeof keep);
        counter = _mm512_add_epi32(counter, _mm512_set1_epi64(8));
    }
}

/* Decisions of queries [query, query + n), keys [k0, k0 + nk) of one head (k0 a multiple of 64);
 * returns bytes per query. */
static int draw_block(uint8_t *to, const struct attention_random *r, int query, int n, int k0,
                      int nk)
{
    int bytes = (nk + 7) / 8;
    uint32_t first = r->first + (uint32_t)query * r->per_query + (uint32_t)k0 / 8;
    if ((uint32_t)bytes == r->per_query) {
        draw(to, r, first, n * bytes);
        return bytes;
    }
    for (int i = 0; i < n;
         i++, first += r->per_query) /* what a query writes too much, the next one overwrites */
        draw(to + i * bytes, r, first, bytes);
    return bytes;
}

INLINE uint32_t mask_at(const uint8_t *bits)
{
    uint32_t m;
    memcpy(&m, bits, sizeof m);
    return m;
}

#include "model/kernels/cpu/attention_positions.h"

/* ---- forward */

struct forward_scratch {
    uint32_t *rows, *kt, *v, *vp, *q;
    float *s, *part, *o, *high, *sum;
    uint8_t *bits;
    struct position_scratch positions;
};

static size_t forward_carve(int d, int nq, int nk, unsigned char *base, struct forward_scratch *f)
{
    size_t at = 0;
    int64_t words = up(d, GROUP) / PER_WORD, keys = up(least(nk, KEYS_FORWARD), GROUP);
    int64_t queries = up(least(nq, ATTENTION_CHUNK), 16);
    f->rows = attention_carve(base, &at, keys * words, 4);
    f->kt = attention_carve(base, &at, keys * words, 4);
    f->v = attention_carve(base, &at, keys * words, 4);
    f->vp = attention_carve(base, &at, keys * words, 4);
    f->q = attention_carve(base, &at, STRIP * words, 4);
    f->s = attention_carve(base, &at, STRIP * least((int)keys, LONG_STRIP), 4);
    f->part = attention_carve(base, &at, 16 * 16, 4);
    f->o = attention_carve(base, &at, queries * words * PER_WORD, 4);
    f->high = attention_carve(base, &at, queries, 4);
    f->sum = attention_carve(base, &at, queries, 4);
    f->bits = attention_carve(base, &at, STRIP * (keys / 8 + 8) + 64, 1);
    positions_carve(base, &at, &f->positions);
    return at;
}

static size_t forward_bytes(int head_size, int queries, int keys, bool relative)
{
    struct forward_scratch f;
    (void)relative; /* little more */
    return forward_carve(head_size, queries, keys, NULL, &f);
}

/* One query's nk scores become probabilities (times 2^top, dropped), in place: with bf16 a panel of
 * 16 words where two panels of floats were, behind what has been read. Returns partial sums of the
 * undropped ones. */
INLINE __m512 exponentials(float *s, ptrdiff_t panel, int nk, __m512 c, __m512 top,
                           const uint8_t *bits, bool drop)
{
    __m512 sum0 = _mm512_setzero_ps();
    int k = 0;
#if ATTENTION_BF16
    __m512 sum1 = sum0;
    float *to = s;
    for (; k + 32 <= nk; k += 32, s += 2 * panel, to += panel) {
        __m512 a = power_of_two(_mm512_fmadd_ps(_mm512_load_ps(s), c, top), 0xFFFF);
        __m512 b = power_of_two(_mm512_fmadd_ps(_mm512_load_ps(s + panel), c, top), 0xFFFF);
        sum0 = _mm512_add_ps(sum0, a);
        sum1 = _mm512_add_ps(sum1, b);
        __m512bh p = drop ? _mm512_maskz_cvtne2ps_pbh(mask_at(bits + k / 8), b, a)
                          : _mm512_cvtne2ps_pbh(b, a);
        _mm512_store_si512(to, (__m512i)p);
    }
    if (k < nk) {
        __mmask16 m0 = lanes(nk - k), m1 = lanes(nk - k - 16);
        __m512 a = power_of_two(_mm512_fmadd_ps(_mm512_load_ps(s), c, top), m0),
               b = _mm512_setzero_ps();
        if (m1 != 0)
            b = power_of_two(_mm512_fmadd_ps(_mm512_load_ps(s + panel), c, top), m1);
        sum0 = _mm512_add_ps(sum0, a);
        sum1 = _mm512_add_ps(sum1, b);
        __m512bh p = drop ? _mm512_maskz_cvtne2ps_pbh(mask_at(bits + k / 8), b, a)
                          : _mm512_cvtne2ps_pbh(b, a);
        _mm512_store_si512(to, (__m512i)p);
    }
    return _mm512_add_ps(sum0, sum1);
#else
    for (; k < nk; k += 16, s += panel) {
        __m512 a = power_of_two(_mm512_fmadd_ps(_mm512_load_ps(s), c, top), lanes(nk - k));
        sum0 = _mm512_add_ps(sum0, a);
        _mm512_store_ps(s, drop ? _mm512_maskz_mov_ps((__mmask16)mask_at(bits + k / 8), a) : a);
    }
    return sum0;
#endif
}

/* Scores of n <= 16 queries (rows r.. of the strip, queries t.. of the chunk) -> probabilities, and
 * the queries' maxima and sums. */
INLINE void softmax(const struct forward_scratch *f, int r, int t, int n, int nk, ptrdiff_t panel,
                    int queries, int channels, __m512 c, int bytes, bool drop, bool first)
{
    float *scores = f->s + 16 * r, *high = f->high + t, *sum = f->sum + t;
    const uint8_t *bits = f->bits + r * bytes;
    for (int i = 0; i < n; i++) {
        const float *s = scores + 16 * i;
        __m512 m = _mm512_set1_ps(-INFINITY);
        int j = 0;
        for (; j + 16 <= nk; j += 16, s += panel)
            m = _mm512_max_ps(m, _mm512_load_ps(s));
        if (j < nk)
            m = _mm512_mask_max_ps(m, lanes(nk - j), m, _mm512_load_ps(s));
        _mm512_store_ps(f->part + 16 * i, m);
    }
    const __m512 was = first ? _mm512_set1_ps(-INFINITY) : _mm512_load_ps(high);
    const __m512 now = _mm512_max_ps(was, reduce16(f->part, true));
    float top[16] __attribute__((aligned(64)));
    _mm512_store_ps(top, _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(now, c)));
    _mm512_store_ps(high, now);

    for (int i = 0; i < n; i++) {
        const __m512 x = _mm512_set1_ps(top[i]);
        _mm512_store_ps(f->part + 16 * i,
                        drop
                            ? exponentials(scores + 16 * i, panel, nk, c, x, bits + i * bytes, true)
                            : exponentials(scores + 16 * i, panel, nk, c, x, NULL, false));
    }

    __m512 total = reduce16(f->part, false);
    if (!first) { /* what was summed under the old maximum shrinks to the new one */
        float shrink[16] __attribute__((aligned(64)));
        _mm512_store_ps(shrink, power_of_two(_mm512_fmadd_ps(was, c, _mm512_load_ps(top)), 0xFFFF));
        total = _mm512_fmadd_ps(_mm512_load_ps(sum), _mm512_load_ps(shrink), total);
        for (int p = 0; p < channels; p += 16)
            for (int i = 0; i < n; i++) {
                float *x = f->o + (ptrdiff_t)p * queries + 16 * (t + i);
                _mm512_store_ps(x, _mm512_mul_ps(_mm512_load_ps(x), _mm512_set1_ps(shrink[i])));
            }
    }
    _mm512_store_ps(sum, total);
}

static void forward(const struct attention_call *a, int row, int head, int q0, int q1,
                    unsigned char *scratch)
{
    const int d = a->head_size, channels = up(d, GROUP), words = channels / PER_WORD;
    const int keys = a->keys->begin[row + 1] - a->keys->begin[row];
    const int64_t line = a->queries->begin[row] + q0;
    const element *k = (const element *)a->k + a->keys->begin[row] * a->kv_stride +
                       (int64_t)head * d;
    const element *v = (const element *)a->v + a->keys->begin[row] * a->kv_stride +
                       (int64_t)head * d;
    const element *q = (const element *)a->q + line * a->q_stride + (int64_t)head * d;
    element *out = (element *)a->out + line * a->heads * d + (int64_t)head * d;
    float *lse = a->lse + line * a->heads + head;
    const bool drop = a->dropout.on;
    const struct attention_random random = drop ? attention_random(a, row, head)
                                                : (struct attention_random){0};
    const __m512 c = _mm512_set1_ps(a->scale * LOG2E);
    const int queries = up(q1 - q0, 16);
    struct forward_scratch f;
    forward_carve(d, q1 - q0, keys, scratch, &f);
    const bool relative = a->relative != NULL;
    const struct position_tables tables = relative ? tables_of(a, head, false)
                                                   : (struct position_tables){0};

    for (int k0 = 0; k0 < keys; k0 += KEYS_FORWARD) {
        const int nk = least(KEYS_FORWARD, keys - k0), rows16 = up(nk, 16), rows = up(nk, GROUP);
        const bool first = k0 == 0, last = k0 + nk == keys;
        pack(f.rows, rows16, k + k0 * a->kv_stride, a->kv_stride, nk, d);
        transpose(f.kt, f.rows, rows16, words);
        pack(f.v, rows, v + k0 * a->kv_stride, a->kv_stride, nk, d);
        const uint32_t *vp = pairs(f.vp, f.v, rows, words);

        const int strip = nk > LONG_STRIP ? 16 : STRIP;
        const ptrdiff_t panel = strip * 16;
        for (int t = 0; t < q1 - q0; t += strip) {
            const int n = least(strip, q1 - q0 - t);
            float *o = f.o + t * 16;
            pack(f.q, strip, q + t * a->q_stride, a->q_stride, n, d);
            multiply(n, rows16 / 16, words, f.q, panel, f.kt, words * 16, f.s, panel, false);
            if (relative)
                add_positions(a, &tables, &f.positions, q0 + t, n, strip, k0, nk, words, f.q, panel,
                              f.kt, f.s);
            const int bytes = drop ? draw_block(f.bits, &random, q0 + t, n, k0, nk) : 0;
            for (int i = 0; i < n; i += 16)
                softmax(&f, i, t + i, least(16, n - i), nk, panel, queries, channels, c, bytes,
                        drop, first);
            multiply(n, channels / 16, sum_words(nk), (const uint32_t *)f.s, panel, vp,
                     rows / PER_WORD * 16, o, queries * 16, !first);
            if (!last)
                continue;

            const float *high = f.high + t, *sum = f.sum + t;
            float factor[STRIP] __attribute__((aligned(64))),
                logs[STRIP] __attribute__((aligned(64)));
            for (int i = 0; i < n; i += 16) {
                const __m512 total = _mm512_load_ps(sum + i);
                _mm512_store_ps(factor + i, _mm512_div_ps(_mm512_set1_ps(a->dropout.scale), total));
                /* The maximum as softmax() subtracted it, rounded with c: the rounding then
                 * cancels. */
                _mm512_store_ps(logs + i,
                                _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(high + i), c),
                                                _mm512_set1_ps(LN2), logarithm(total)));
            }
            for (int i = 0; i < n; i++) {
                __m512 x = _mm512_set1_ps(factor[i]);
                element *to = out + (int64_t)(t + i) * a->heads * d;
                for (int p = 0; p < d; p += GROUP) {
                    const float *from = o + (ptrdiff_t)p * queries + 16 * i;
                    __m512 y = _mm512_mul_ps(_mm512_load_ps(from), x), z = y;
                    if (PER_WORD == 2)
                        z = _mm512_mul_ps(_mm512_load_ps(from + (ptrdiff_t)queries * 16), x);
                    put_line(to + p, d - p, y, z);
                }
                lse[(int64_t)(t + i) * a->heads] = logs[i];
            }
        }
    }
}

/* ---- backward */

struct backward_scratch {
    uint32_t *q, *g, *rows, *qt, *gt; /* queries and dout: as rows, and transposed */
    float *dq, *log_sum, *delta;      /* dq (queries, d); per query -lse log2 e and -delta */
    uint32_t *k, *v, *kt, *vt, *kp;   /* one block of keys */
    float *dkt, *dvt;                 /* (d, keys) */
    float *s, *dp, *part;             /* STRIP queries x keys */
    uint32_t *p, *ds, *ds_rows;       /* pairs of P and dS: B; dS as rows: A */
    uint8_t *bits;
    struct position_scratch positions;
    struct position_backward moved;
};

static size_t backward_carve(int d, int nq, int nk, unsigned char *base, struct backward_scratch *f)
{
    size_t at = 0;
    int64_t words = up(d, GROUP) / PER_WORD, channels = words * PER_WORD;
    int64_t keys = up(least(nk, KEYS_BACKWARD), GROUP), queries = up(nq, GROUP);
    int64_t block = up(least(nq, QUERIES_BACKWARD), GROUP);
    f->q = attention_carve(base, &at, queries * words, 4);
    f->g = attention_carve(base, &at, queries * words, 4);
    f->rows = attention_carve(base, &at, (queries > keys ? queries : keys) * words, 4);
    f->qt = attention_carve(base, &at, queries * words, 4);
    f->gt = attention_carve(base, &at, queries * words, 4);
    f->dq = attention_carve(base, &at, queries * channels, 4);
    f->log_sum = attention_carve(base, &at, queries, 4);
    f->delta = attention_carve(base, &at, queries, 4);
    f->k = attention_carve(base, &at, keys * words, 4);
    f->v = attention_carve(base, &at, keys * words, 4);
    f->kt = attention_carve(base, &at, keys * words, 4);
    f->vt = attention_carve(base, &at, keys * words, 4);
    f->kp = attention_carve(base, &at, keys * words, 4);
    f->dkt = attention_carve(base, &at, keys * channels, 4);
    f->dvt = attention_carve(base, &at, keys * channels, 4);
    f->s = attention_carve(base, &at, STRIP * keys, 4);
    f->dp = attention_carve(base, &at, STRIP * keys, 4);
    f->part = attention_carve(base, &at, 16 * 16, 4);
    f->p = attention_carve(base, &at, block * keys / PER_WORD, 4);
    f->ds = attention_carve(base, &at, block * keys / PER_WORD, 4);
    f->ds_rows = PER_WORD == 1 ? f->ds : attention_carve(base, &at, block * keys / PER_WORD, 4);
    f->bits = attention_carve(base, &at, STRIP * (keys / 8 + 8) + 64, 1);
    positions_carve(base, &at, &f->positions);
    position_backward_carve(nk, base, &at, &f->moved);
    return at;
}

static size_t backward_bytes(int head_size, int queries, int keys, bool relative)
{
    struct backward_scratch f;
    (void)relative;
    return backward_carve(head_size, queries, keys, NULL, &f);
}

/* Key of lane `lane` of panel `panel` of the pairs of P and dS. */
INLINE int key_of(int panel, int lane)
{
#if ATTENTION_BF16
    return panel / 2 * 32 + lane / 4 * 8 + panel % 2 * 4 + lane % 4;
#else
    return panel * 16 + lane;
#endif
}

/* What one query's 16 keys need: *p = P, dropped; *ds = P (dP - delta). */
INLINE void gradients(const float *s, const float *dp, __mmask16 valid, __m512 c, __m512 log_sum,
                      __m512 delta, __m512 scale, bool drop, __mmask16 keep, __m512 *p, __m512 *ds)
{
    __m512 x = power_of_two(_mm512_fmadd_ps(_mm512_load_ps(s), c, log_sum), valid),
           y = _mm512_load_ps(dp);
    if (drop)
        y = _mm512_mask3_fmadd_ps(y, scale, delta, keep);
    else
        y = _mm512_add_ps(y, delta);
    *p = x;
    *ds = valid == 0xFFFF ? _mm512_mul_ps(x, y) : _mm512_maskz_mul_ps(valid, x, y);
}

/* P and dS of n queries (rows of s and dp) and nk keys; they are rows r0.. of the block, whose
 * pairs have `block` / PER_WORD rows and whose rows have `block` rows. */
INLINE void probabilities(const struct backward_scratch *f, int r0, int n, int nk, int block,
                          int q0, __m512 c, __m512 scale, int bytes, bool drop)
{
    const ptrdiff_t score = STRIP * 16;
#if ATTENTION_BF16
    int busy = 0;
    const ptrdiff_t panel = (ptrdiff_t)block * 8, wide = (ptrdiff_t)block * 16;
    for (int i = 0; i < n; i += 2) { /* a missing second query has log_sum -1e30: P = dS = 0 */
        if ((busy += nk) >= 256) {
            KEEP_AWAKE();
            busy = 0;
        }
        const __m512 l0 = _mm512_set1_ps(f->log_sum[q0 + i]),
                     l1 = _mm512_set1_ps(f->log_sum[q0 + i + 1]);
        const __m512 d0 = _mm512_set1_ps(f->delta[q0 + i]),
                     d1 = _mm512_set1_ps(f->delta[q0 + i + 1]);
        const float *s = f->s + 16 * i, *dp = f->dp + 16 * i;
        uint32_t *to = f->ds_rows + 16 * (r0 + i), *p = f->p + 8 * (r0 + i),
                 *ds = f->ds + 8 * (r0 + i);
        const uint8_t *bits = f->bits + i * bytes;
        for (int k = 0; k < nk; k += 32, s += 2 * score, dp += 2 * score, to += wide,
                 p += 2 * panel, ds += 2 * panel) {
            const uint32_t keep0 = drop ? mask_at(bits + k / 8) : 0,
                           keep1 = drop ? mask_at(bits + bytes + k / 8) : 0;
            __m512 p0, p1, p2, p3, s0, s1, s2, s3;
            if (k + 32 <= nk) {
                gradients(s, dp, 0xFFFF, c, l0, d0, scale, drop, (__mmask16)keep0, &p0, &s0);
                gradients(s + score, dp + score, 0xFFFF, c, l0, d0, scale, drop,
                          (__mmask16)(keep0 >> 16), &p1, &s1);
                gradients(s + 16, dp + 16, 0xFFFF, c, l1, d1, scale, drop, (__mmask16)keep1, &p2,
                          &s2);
                gradients(s + score + 16, dp + score + 16, 0xFFFF, c, l1, d1, scale, drop,
                          (__mmask16)(keep1 >> 16), &p3, &s3);
            } else {
                const __mmask16 m0 = lanes(nk - k), m1 = lanes(nk - k - 16);
                p1 = p3 = s1 = s3 = _mm512_setzero_ps();
                gradients(s, dp, m0, c, l0, d0, scale, drop, (__mmask16)keep0, &p0, &s0);
                gradients(s + 16, dp + 16, m0, c, l1, d1, scale, drop, (__mmask16)keep1, &p2, &s2);
                if (m1 != 0) {
                    gradients(s + score, dp + score, m1, c, l0, d0, scale, drop,
                              (__mmask16)(keep0 >> 16), &p1, &s1);
                    gradients(s + score + 16, dp + score + 16, m1, c, l1, d1, scale, drop,
                              (__mmask16)(keep1 >> 16), &p3, &s3);
                }
            }
            __m512i a, b;
            if (drop) {
                a = (__m512i)_mm512_maskz_cvtne2ps_pbh(keep0, p1, p0);
                b = (__m512i)_mm512_maskz_cvtne2ps_pbh(keep1, p3, p2);
            } else {
                a = (__m512i)_mm512_cvtne2ps_pbh(p1, p0);
                b = (__m512i)_mm512_cvtne2ps_pbh(p3, p2);
            }
            _mm512_store_si512(p, _mm512_unpacklo_epi16(a, b));
            _mm512_store_si512(p + panel, _mm512_unpackhi_epi16(a, b));
            a = (__m512i)_mm512_cvtne2ps_pbh(s1, s0);
            b = (__m512i)_mm512_cvtne2ps_pbh(s3, s2);
            _mm512_store_si512(to, a);
            _mm512_store_si512(to + 16, b);
            _mm512_store_si512(ds, _mm512_unpacklo_epi16(a, b));
            _mm512_store_si512(ds + panel, _mm512_unpackhi_epi16(a, b));
        }
    }
#else
    for (int i = 0; i < n; i++) {
        const __m512 l = _mm512_set1_ps(f->log_sum[q0 + i]), d = _mm512_set1_ps(f->delta[q0 + i]);
        const float *s = f->s + 16 * i, *dp = f->dp + 16 * i;
        ptrdiff_t to = 16 * (r0 + i);
        for (int k = 0; k < nk; k += 16, s += score, dp += score, to += (ptrdiff_t)block * 16) {
            __m512 p, ds;
            __mmask16 keep = drop ? (__mmask16)mask_at(f->bits + i * bytes + k / 8) : 0;
            gradients(s, dp, lanes(nk - k), c, l, d, scale, drop, keep, &p, &ds);
            _mm512_store_si512(f->p + to,
                               _mm512_castps_si512(drop ? _mm512_maskz_mov_ps(keep, p) : p));
            _mm512_store_si512(f->ds + to, _mm512_castps_si512(ds));
        }
    }
#endif
}

/* Rows [from, to) of all panels of (rows, columns) words become zero. */
static void zero_rows(uint32_t *x, int rows, int from, int to, int columns)
{
    for (int c = 0; c < columns; c += 16, x += (ptrdiff_t)rows * 16)
        for (int r = from; r < to; r++)
            _mm512_store_si512(x + 16 * r, _mm512_setzero_si512());
}

/* Write factor * x^T, x (channels, keys), as nk lines of d. */
static void put_keys(element *to, int64_t stride, const float *x, int channels, int nk, int d,
                     float factor)
{
    const __m512 m = _mm512_set1_ps(factor);
    uint32_t t[PER_WORD][256] __attribute__((aligned(64)));
    for (int panel = 0; key_of(panel, 0) < nk; panel++)
        for (int c = 0; c < channels; c += GROUP) {
            if (c == 0)
                KEEP_AWAKE();
            for (int i = 0; i < PER_WORD; i++)
                transpose16(t[i],
                            (const uint32_t *)x + ((ptrdiff_t)panel * channels + c + 16 * i) * 16);
            for (int lane = 0; lane < 16; lane++) {
                int key = key_of(panel, lane);
                if (key < nk)
                    put_line(to + key * stride + c, d - c,
                             _mm512_mul_ps(_mm512_load_ps(t[0] + 16 * lane), m),
                             _mm512_mul_ps(_mm512_load_ps(t[PER_WORD - 1] + 16 * lane), m));
            }
        }
}

/* -delta of n queries: minus the products of dout (rows of g) and out, summed over channels. */
static __m512 minus_delta(const struct backward_scratch *f, const uint32_t *g, int rows,
                          const element *out, int64_t stride, int n, int d)
{
    for (int i = 0; i < n; i++) {
        __m512 sum = _mm512_setzero_ps();
        for (int c = 0; c < d; c += GROUP) {
            __m512i x = _mm512_load_si512(g + (ptrdiff_t)c / PER_WORD * rows + 16 * i);
            _mm_prefetch((const char *)(out + i * stride + c + d), _MM_HINT_T0);
#if ATTENTION_BF16
            __m512i y = _mm512_maskz_loadu_epi16(d - c >= 32 ? 0xFFFFFFFFu : (1u << (d - c)) - 1,
                                                 out + i * stride + c);
            const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000u);
            sum = _mm512_fnmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                                   _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), sum);
            sum = _mm512_fnmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, upper)),
                                   _mm512_castsi512_ps(_mm512_and_si512(y, upper)), sum);
#else
            __m512 y = _mm512_maskz_loadu_ps(lanes(d - c), out + i * stride + c);
            sum = _mm512_fnmadd_ps(_mm512_castsi512_ps(x), y, sum);
#endif
        }
        _mm512_store_ps(f->part + 16 * i, sum);
    }
    return reduce16(f->part, false);
}

static void backward(const struct attention_call *a, int row, int head, unsigned char *scratch,
                     unsigned char *sums)
{
    const int d = a->head_size, channels = up(d, GROUP), words = channels / PER_WORD;
    const int keys = a->keys->begin[row + 1] - a->keys->begin[row];
    const int queries = a->queries->begin[row + 1] - a->queries->begin[row],
              qrows = up(queries, GROUP);
    const int64_t key_line = a->keys->begin[row], line = a->queries->begin[row],
                  at = (int64_t)head * d;
    const int64_t width = (int64_t)a->heads * d;
    const element *k = (const element *)a->k + key_line * a->kv_stride + at;
    const element *v = (const element *)a->v + key_line * a->kv_stride + at;
    element *dk = (element *)a->dk + key_line * a->kv_stride + at;
    element *dv = (element *)a->dv + key_line * a->kv_stride + at;
    const element *out = (const element *)a->out + line * width + at;
    const bool drop = a->dropout.on;
    const struct attention_random random = drop ? attention_random(a, row, head)
                                                : (struct attention_random){0};
    const __m512 c = _mm512_set1_ps(a->scale * LOG2E), scale = _mm512_set1_ps(a->dropout.scale);
    struct backward_scratch f;
    backward_carve(d, queries, keys, scratch, &f);
    const bool relative = a->relative != NULL;
    struct position_tables tables = {0};
    struct position_sums positions = {0};
    if (relative) {
        tables = tables_of(a, head, true);
        (void)sums_carve(d, a->most_queries, a->most_keys, sums, &positions);
    }

    pack(f.q, qrows, (const element *)a->q + line * a->q_stride + at, a->q_stride, queries, d);
    pack(f.g, qrows, (const element *)a->dout + line * width + at, width, queries, d);
    transpose(f.qt, pairs(f.rows, f.q, qrows, words), qrows / PER_WORD, channels);
    transpose(f.gt, pairs(f.rows, f.g, qrows, words), qrows / PER_WORD, channels);
    const __m512i every =
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                           _mm512_set1_epi32(a->heads));
    for (int i = 0; i < queries; i += 16) {
        const int n = least(16, queries - i);
        const __mmask16 m = lanes(n);
        KEEP_AWAKE();
        __m512 x = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, every,
                                            a->lse + (line + i) * a->heads + head, 4);
        x = _mm512_mul_ps(x, _mm512_set1_ps(-LOG2E));
        _mm512_store_ps(f.log_sum + i, _mm512_mask_mov_ps(_mm512_set1_ps(-1e30f), m, x));
        x = minus_delta(&f, f.g + 16 * i, qrows, out + i * width, width, n, d);
        _mm512_store_ps(f.delta + i, _mm512_maskz_mov_ps(m, x));
    }

    for (int k0 = 0; k0 < keys; k0 += KEYS_BACKWARD) {
        const int nk = least(KEYS_BACKWARD, keys - k0), rows = up(nk, GROUP), panels = rows / 16;
        pack(f.k, rows, k + k0 * a->kv_stride, a->kv_stride, nk, d);
        transpose(f.kt, f.k, rows, words);
        const uint32_t *kp = pairs(f.kp, f.k, rows, words);
        pack(f.v, rows, v + k0 * a->kv_stride, a->kv_stride, nk, d);
        transpose(f.vt, f.v, rows, words);
        if (queries == 0) {
            memset(f.dkt, 0, (size_t)rows * (size_t)channels * sizeof(float));
            memset(f.dvt, 0, (size_t)rows * (size_t)channels * sizeof(float));
        }
        for (int q0 = 0; q0 < queries; q0 += QUERIES_BACKWARD) {
            const int nq = least(QUERIES_BACKWARD, queries - q0), block = up(nq, GROUP);
            for (int t = 0; t < nq; t += STRIP) {
                const int n = least(STRIP, nq - t);
                const ptrdiff_t from = (ptrdiff_t)(q0 + t) * 16;
                multiply(n, (nk + 15) / 16, words, f.q + from, qrows * 16, f.kt, words * 16, f.s,
                         STRIP * 16, false);
                if (relative)
                    add_positions(a, &tables, &f.positions, q0 + t, n, STRIP, k0, nk, words,
                                  f.q + from, qrows * 16, f.kt, f.s);
                multiply(n, (nk + 15) / 16, words, f.g + from, qrows * 16, f.vt, words * 16, f.dp,
                         STRIP * 16, false);
                if (drop) {
                    int bytes = draw_block(f.bits, &random, q0 + t, n, k0, nk);
                    probabilities(&f, t, n, nk, block, q0 + t, c, scale, bytes, true);
                } else {
                    probabilities(&f, t, n, nk, block, q0 + t, c, scale, 0, false);
                }
            }
            const int sum = sum_words(nq), used = (nq + PER_WORD - 1) / PER_WORD;
            zero_rows(f.p, block / PER_WORD, used, sum, rows);
            zero_rows(f.ds, block / PER_WORD, used, sum, rows);
            const ptrdiff_t from = (ptrdiff_t)q0 / PER_WORD * channels;
            multiply(channels, panels, sum, f.gt + from, channels * 16, f.p, block / PER_WORD * 16,
                     f.dvt, channels * 16, q0 > 0);
            multiply(channels, panels, sum, f.qt + from, channels * 16, f.ds, block / PER_WORD * 16,
                     f.dkt, channels * 16, q0 > 0);
            multiply(nq, channels / 16, sum_words(nk), f.ds_rows, block * 16, kp,
                     rows / PER_WORD * 16, f.dq + (ptrdiff_t)q0 * 16, qrows * 16, k0 > 0);
            for (int t = 0; relative && t < nq; t += STRIP)
                position_gradients(a, &tables, &f.moved, &positions, q0 + t, least(STRIP, nq - t),
                                   k0, nk, channels, f.ds_rows + (ptrdiff_t)t * 16, block, f.qt, kp,
                                   rows, f.dq, qrows, f.dkt);
        }
        put_keys(dk + k0 * a->kv_stride, a->kv_stride, f.dkt, channels, nk, d, a->scale);
        put_keys(dv + k0 * a->kv_stride, a->kv_stride, f.dvt, channels, nk, d, a->dropout.scale);
    }

    element *dq = (element *)a->dq + line * a->q_stride + at;
    const __m512 m = _mm512_set1_ps(a->scale);
    for (int i = 0; i < queries; i++)
        for (int p = 0; p < d; p += GROUP) {
            const float *from = f.dq + (ptrdiff_t)p * qrows + 16 * i;
            __m512 y = _mm512_mul_ps(_mm512_load_ps(from), m), z = y;
            if (PER_WORD == 2)
                z = _mm512_mul_ps(_mm512_load_ps(from + (ptrdiff_t)qrows * 16), m);
            put_line(dq + i * a->q_stride + p, d - p, y, z);
        }
}

const struct attention_path ATTENTION_PATH = {
    .name = ATTENTION_NAME,
    .forward_bytes = forward_bytes,
    .backward_bytes = backward_bytes,
    .begin = ATTENTION_BEGIN,
    .end = ATTENTION_END,
    .forward = forward,
    .backward = backward,
    .table_bytes = table_bytes,
    .table_prepare = table_prepare,
    .sums_bytes = sums_bytes,
    .sums_fold = sums_fold,
};
