/*
 * attention_positions.h - disentangled attention for attention_simd.h, which includes it behind its
 * helpers: the parts of the scores and of the gradients that come from the table of positions.
 *
 * A row of scores wants, for query i, q_i TK[line(i - j)] for neighbouring j, and k_j TQ[line(i -
 * j)]. With the table written out by distance both are products of strips of queries with blocks of
 * keys and a shift, never a gather:
 *
 *   keys' side, TK: lines by descending distance ("t"), so a strip of 32 queries times the lines
 * that it meets, nk + 31 of them, has what query r of the strip wants for key j at t = 31 - r + j.
 * A row is shifted by a number of lanes that is the row's alone. queries' side, TQ: lines by
 * ascending distance ("rho"). A panel of 16 keys times the 47 lines that they meet in the strip,
 * transposed: lane l of row rho is key l at query rho - 15 + l. Four steps, each of which moves the
 * lanes of one bit up by its number of rows, straighten that.
 *
 * Backward takes dS apart the same ways in the other direction, rows shifted for the first and
 * lanes moved down for the second, and every sum is again a product: dq, dk, and for the table a
 * sum over all queries and keys of a group of rows, by distance. Nothing is ever added at an
 * address that was looked up, so every sum has one order. sums_fold() adds up the distances of each
 * slot.
 *
 * Forward's products are 1 + (nk + 31) / nk + 3/2 of plain attention's two, backward's 7 more than
 * its five.
 */

#if ATTENTION_BF16
typedef uint16_t element_index;
#else
typedef uint32_t element_index;
#endif

#define POSITION_KEYS 128 /* keys of a block: its products and scores stay in the first cache */

/* A head's lines by distance. rows: of each order, a multiple of 32; those of no distance are zero.
 */
struct position_tables {
    int rows;
    int zero_t;            /* t = zero_t - distance */
    int zero_rho;          /* rho = zero_rho + distance */
    uint32_t *key_lanes;   /* (words, rows by t): B of the scores, TK */
    uint32_t *key_pairs;   /* (rows by t in pairs, d): B of dq */
    uint32_t *query_rows;  /* (rows by rho, words): A of the scores, TQ */
    uint32_t *query_pairs; /* (d, rows by rho in pairs): A of dk */
};

static size_t tables_carve(int d, int nq, int nk, bool backward, unsigned char *base,
                           struct position_tables *t)
{
    size_t at = 0;
    const int64_t words = up(d, GROUP) / PER_WORD;
    const int queries = up(nq, STRIP), keys = up(nk, GROUP);
    t->rows = up(queries + keys + 2 * GROUP + 2 * STRIP, 32);
    t->zero_t = queries - 1;
    t->zero_rho = keys + GROUP - 1;
    t->key_lanes = attention_carve(base, &at, t->rows * words, 4);
    t->query_rows = attention_carve(base, &at, t->rows * words, 4);
    t->key_pairs = attention_carve(base, &at, backward ? t->rows * words : 0, 4);
    t->query_pairs = attention_carve(base, &at, backward ? t->rows * words : 0, 4);
    (void)attention_carve(base, &at, t->rows * words, 4); /* while they are made */
    return at;
}

static size_t table_bytes(int head_size, int queries, int keys, bool backward)
{
    struct position_tables t;
    return tables_carve(head_size, queries, keys, backward, NULL, &t);
}

static struct position_tables tables_of(const struct attention_call *a, int head, bool backward)
{
    struct position_tables t;
    (void)tables_carve(a->head_size, a->most_queries, a->most_keys, backward,
                       (unsigned char *)(uintptr_t)a->tables + (size_t)head * a->table_bytes, &t);
    return t;
}

/* to: (rows, words) with the lines of one side of the table, in the order of t or of rho. */
static void spread_lines(const struct attention_call *a, int head, int column, bool by_t,
                         const struct position_tables *t, uint32_t *to)
{
    const struct relative *r = a->relative;
    const int d = a->head_size;
    for (int row = 0; row < t->rows; row++) {
        const int distance = by_t ? t->zero_t - row : row - t->zero_rho;
        const bool there = column >= 0 && distance > -a->most_keys && distance < a->most_queries;
        const element *line = there ? (const element *)r->table +
                                          (int64_t)attention_line(a, distance) * r->width + column +
                                          (int64_t)head * d
                                    : NULL;
        for (int c = 0; c < d; c += GROUP)
            pack(to + (ptrdiff_t)c / PER_WORD * t->rows + 16 * row, 1, line + (there ? c : 0), 0,
                 there, d - c < GROUP ? d - c : GROUP);
    }
}

static void table_prepare(const struct attention_call *a, int head, bool backward,
                          unsigned char *to)
{
    const int words = up(a->head_size, GROUP) / PER_WORD, channels = words * PER_WORD;
    struct position_tables t;
    const size_t made = tables_carve(a->head_size, a->most_queries, a->most_keys, backward, to, &t);
    uint32_t *room = (uint32_t *)(void *)(to + made) - (ptrdiff_t)t.rows * words;
    /* With float the pairs are the rows themselves. */
    uint32_t *rows = PER_WORD == 1 && backward ? t.key_pairs : room;
    spread_lines(a, head, a->relative->k_at, true, &t, rows);
    transpose(t.key_lanes, rows, t.rows, words);
    if (backward)
        (void)pairs(t.key_pairs, rows, t.rows, words);
    spread_lines(a, head, a->relative->q_at, false, &t, t.query_rows);
    if (backward)
        transpose(t.query_pairs, pairs(room, t.query_rows, t.rows, words), t.rows / PER_WORD,
                  channels);
}

/* ---- scores */

/* Row i + 15 - l of x goes to row i, in lane l; n rows. */
INLINE void straighten(float *x, int n)
{
    static const __mmask16 moved[4] = {0x00FF, 0x0F0F, 0x3333, 0x5555}; /* bits 3 .. 0 of 15 - l */
    int rows = n + 15;
#pragma GCC unroll 4
    for (int bit = 0; bit < 4; bit++) {
        const int by = 8 >> bit;
        rows -= by;
        for (int i = 0; i < rows; i++)
            _mm512_store_ps(x + 16 * i, _mm512_mask_blend_ps(moved[bit], _mm512_load_ps(x + 16 * i),
                                                             _mm512_load_ps(x + 16 * (i + by))));
    }
}

struct position_scratch {
    float *by_key;   /* (strip, POSITION_KEYS + strip + 16): q TK */
    float *by_query; /* (48, 16): k TQ */
};

static void positions_carve(unsigned char *base, size_t *at, struct position_scratch *p)
{
    p->by_key = attention_carve(base, at, STRIP * (POSITION_KEYS + STRIP + 16), 4);
    p->by_query = attention_carve(base, at, (STRIP + 16) * 16, 4);
}

/* Add to the scores s of n queries from i0 on (A: q, a strip of `strip`) and nk keys from k0 on (B:
 * kt), k0 a multiple of POSITION_KEYS, what positions add. */
static void add_positions(const struct attention_call *a, const struct position_tables *t,
                          const struct position_scratch *p, int i0, int n, int strip, int k0,
                          int nk, int words, const uint32_t *q, int64_t q_panel, const uint32_t *kt,
                          float *s)
{
    const ptrdiff_t panel = (ptrdiff_t)strip * 16;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int kb = 0; kb < nk; kb += POSITION_KEYS) {
        const int m = least(POSITION_KEYS, nk - kb), panels = (m + 15) / 16;
        if (a->relative->k_at >= 0) {
            const int t0 = t->zero_t + 1 - i0 - strip + k0 + kb;
            multiply(n, panels + strip / 16, words, q, q_panel,
                     t->key_lanes + (ptrdiff_t)t0 * words, words * 16, p->by_key, panel, false);
            for (int r = 0; r < n; r++) {
                const int off = strip - 1 - r;
                const __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32(off % 16));
                const float *x = p->by_key + off / 16 * panel + 16 * r;
                float *y = s + (ptrdiff_t)kb / 16 * panel + 16 * r;
                __m512 lo = _mm512_load_ps(x);
                for (int j = 0; j < panels; j++, y += panel) {
                    const __m512 hi = _mm512_load_ps(x + (j + 1) * panel);
                    const __m512 z = _mm512_permutex2var_ps(lo, at, hi);
                    _mm512_store_ps(y, _mm512_add_ps(_mm512_load_ps(y), z));
                    lo = hi;
                }
            }
        }
        for (int j = 0; a->relative->q_at >= 0 && j < panels; j++) {
            const int key = kb + 16 * j, rho = t->zero_rho + i0 - (k0 + key) - 15;
            float *x = p->by_query, *y = s + (ptrdiff_t)key / 16 * panel;
            multiply(n + 15, 1, words, t->query_rows + (ptrdiff_t)rho * 16, (ptrdiff_t)t->rows * 16,
                     kt + (ptrdiff_t)key * words, words * 16, x, (STRIP + 16) * 16, false);
            straighten(x, n);
            for (int r = 0; r < n; r++, x += 16, y += 16)
                _mm512_store_ps(y, _mm512_add_ps(_mm512_load_ps(y), _mm512_load_ps(x)));
        }
    }
}

/* ---- gradients */

/* A thread's sums over a group of rows, one head. */
struct position_sums {
    float *key;   /* (d, rows by t), in the order of pairs' lanes: of TK */
    float *query; /* (rows by rho, d): of TQ */
};

static size_t sums_carve(int d, int nq, int nk, unsigned char *base, struct position_sums *s)
{
    size_t at = 0;
    struct position_tables t;
    const int64_t channels = up(d, GROUP);
    (void)tables_carve(d, nq, nk, true, NULL, &t);
    s->key = attention_carve(base, &at, t.rows * channels, 4);
    s->query = attention_carve(base, &at, t.rows * channels, 4);
    return at;
}

static size_t sums_bytes(int head_size, int queries, int keys)
{
    struct position_sums s;
    return sums_carve(head_size, queries, keys, NULL, &s);
}

struct position_backward {
    uint32_t *shifted; /* (STRIP, keys + STRIP): dS by t, rows */
    uint32_t *shifted_pairs;
    uint32_t *bent; /* (STRIP + GROUP, GROUP): dS by rho, rows */
    uint32_t *bent_pairs;
};

#define BENT (STRIP + GROUP)

static void position_backward_carve(int nk, unsigned char *base, size_t *at,
                                    struct position_backward *b)
{
    const int64_t lanes = up(least(nk, KEYS_BACKWARD), GROUP) + up(STRIP, GROUP);
    b->shifted = attention_carve(base, at, STRIP * lanes / PER_WORD, 4);
    b->shifted_pairs = PER_WORD == 1 ? b->shifted
                                     : attention_carve(base, at, STRIP * lanes / PER_WORD, 4);
    b->bent = attention_carve(base, at, BENT * 16, 4);
    b->bent_pairs = PER_WORD == 1 ? b->bent : attention_carve(base, at, BENT * 16, 4);
}

/* Element at[i] of before (below GROUP) or of x. */
INLINE __m512i pick(__m512i before, __m512i at, __m512i x)
{
#if ATTENTION_BF16
    return _mm512_permutex2var_epi16(before, at, x);
#else
    return _mm512_castps_si512(
        _mm512_permutex2var_ps(_mm512_castsi512_ps(before), at, _mm512_castsi512_ps(x)));
#endif
}

/* Two rows of elements as pairs: lanes in the order of key_of(). */
INLINE void put_pairs(uint32_t *low, uint32_t *high, __m512i a, __m512i b)
{
#if ATTENTION_BF16
    _mm512_store_si512(low, _mm512_unpacklo_epi16(a, b));
    _mm512_store_si512(high, _mm512_unpackhi_epi16(a, b));
#else
    (void)low, (void)high, (void)a, (void)b;
#endif
}

/* n rows of dS (`rows` rows to a panel) moved up by STRIP - 1 - r lanes; the strip's other rows are
 * zero. Returns panels of GROUP lanes. */
static int shift_rows(const struct position_backward *b, const uint32_t *ds, ptrdiff_t rows, int n,
                      int nk)
{
    const int from = (nk + GROUP - 1) / GROUP, panels = (nk + STRIP - 1 + GROUP - 1) / GROUP;
    const __m512i zero = _mm512_setzero_si512();
    element_index count[2 * GROUP];
    for (int i = 0; i < 2 * GROUP; i++)
        count[i] = (element_index)i;
    for (int r = 0; r < STRIP; r++) {
        const int off = STRIP - 1 - r, whole = off / GROUP;
        /* lane i takes element i - off % GROUP of x, or one of the end of `before` */
        const __m512i at = _mm512_loadu_si512(count + GROUP - off % GROUP);
        __m512i before = zero;
        for (int j = 0; j < panels; j++) {
            const int k = j - whole;
            const __m512i x =
                r < n && k >= 0 && k < from ? _mm512_load_si512(ds + (k * rows + r) * 16) : zero;
            _mm512_store_si512(b->shifted + (j * STRIP + r) * 16, pick(before, at, x));
            before = x;
        }
    }
    for (int j = 0; PER_WORD == 2 && j < panels; j++)
        for (int r = 0; r < STRIP; r += 2) {
            const uint32_t *x = b->shifted + (j * STRIP + r) * 16;
            uint32_t *to = b->shifted_pairs + (ptrdiff_t)j * STRIP * 16 + r * 8;
            put_pairs(to, to + STRIP * 8, _mm512_load_si512(x), _mm512_load_si512(x + 16));
        }
    return panels;
}

/* n rows of GROUP keys of dS: lane l moved down by GROUP - 1 - l rows; what is not moved to is
 * zero, up to BENT rows. */
static void bend_rows(const struct position_backward *b, const uint32_t *ds, int n)
{
    const __m512i zero = _mm512_setzero_si512();
    int rows = n;
    for (int i = 0; i < BENT; i++)
        _mm512_store_si512(b->bent + 16 * i, i < n ? _mm512_load_si512(ds + 16 * i) : zero);
    for (int by = GROUP / 2; by > 0; by /= 2) {
        /* lanes whose GROUP - 1 - l has the bit */
        uint32_t mask = 0;
        for (int l = 0; l < GROUP; l++)
            mask |= (uint32_t)((GROUP - 1 - l) / by % 2) << l;
        rows += by;
        for (int i = rows - 1; i >= 0; i--) {
            const __m512i here = _mm512_load_si512(b->bent + 16 * i),
                          above = i >= by ? _mm512_load_si512(b->bent + 16 * (i - by)) : zero;
#if ATTENTION_BF16
            _mm512_store_si512(b->bent + 16 * i, _mm512_mask_blend_epi16(mask, here, above));
#else
            _mm512_store_si512(b->bent + 16 * i, _mm512_castps_si512(_mm512_mask_blend_ps(
                                                     (__mmask16)mask, _mm512_castsi512_ps(here),
                                                     _mm512_castsi512_ps(above))));
#endif
        }
    }
    for (int i = 0; PER_WORD == 2 && i < BENT; i += 2)
        put_pairs(b->bent_pairs + 8 * i, b->bent_pairs + BENT * 8 + 8 * i,
                  _mm512_load_si512(b->bent + 16 * i), _mm512_load_si512(b->bent + 16 * i + 16));
}

/* What a strip's dS, n queries from i0 on and nk keys from k0 on, adds. ds: its rows in panels of
 * `block` rows. qt: queries in pairs (A); kp: the block's keys in pairs (B), key_rows of them. */
static void position_gradients(const struct attention_call *a, const struct position_tables *t,
                               const struct position_backward *b, const struct position_sums *sums,
                               int i0, int n, int k0, int nk, int channels, const uint32_t *ds,
                               ptrdiff_t block, const uint32_t *qt, const uint32_t *kp,
                               int key_rows, float *dq, ptrdiff_t qrows, float *dkt)
{
    const ptrdiff_t wide = (ptrdiff_t)channels * 16, rows = t->rows;
    if (a->relative->k_at >= 0) {
        const int t0 = t->zero_t + 1 - i0 - STRIP + k0, panels = shift_rows(b, ds, block, n, nk);
        multiply(n, channels / 16, panels * 16, b->shifted, STRIP * 16,
                 t->key_pairs + (ptrdiff_t)t0 / PER_WORD * 16, rows / PER_WORD * 16,
                 dq + (ptrdiff_t)i0 * 16, qrows * 16, true);
        multiply(channels, panels * PER_WORD, sum_words(n),
                 qt + (ptrdiff_t)i0 / PER_WORD * channels, wide, b->shifted_pairs,
                 STRIP / PER_WORD * 16, sums->key + (ptrdiff_t)t0 * channels, wide, true);
    }
    for (int j = 0; a->relative->q_at >= 0 && j < nk; j += GROUP) {
        const int rho = t->zero_rho + i0 - (k0 + j) - (GROUP - 1);
        bend_rows(b, ds + j / GROUP * block * 16, n);
        multiply(channels, PER_WORD, sum_words(n + GROUP - 1),
                 t->query_pairs + (ptrdiff_t)rho / PER_WORD * channels, wide, b->bent_pairs,
                 BENT / PER_WORD * 16, dkt + (ptrdiff_t)j * channels, wide, true);
        multiply(n + GROUP - 1, channels / 16, 16, b->bent, BENT * 16,
                 kp + (ptrdiff_t)j / PER_WORD * 16, key_rows / PER_WORD * 16,
                 sums->query + (ptrdiff_t)rho * 16, rows * 16, true);
    }
}

/* Lane and panel of element i of a row of pairs; see key_of(). */
INLINE int pair_panel(int i)
{
    return PER_WORD == 2 ? i / 32 * 2 + i % 8 / 4 : i / 16;
}

INLINE int pair_lane(int i)
{
    return PER_WORD == 2 ? i % 32 / 8 * 4 + i % 4 : i % 16;
}

static void sums_fold(const struct attention_call *a, int head, const unsigned char *memory,
                      float *partial)
{
    const struct relative *r = a->relative;
    const int d = a->head_size, channels = up(d, GROUP);
    struct position_tables t;
    struct position_sums s;
    (void)tables_carve(d, a->most_queries, a->most_keys, true, NULL, &t);
    (void)sums_carve(d, a->most_queries, a->most_keys, (unsigned char *)(uintptr_t)memory, &s);
    for (int side = 0; side < 2; side++) {
        const int column = side == 0 ? r->q_at : r->k_at;
        float *to = partial + column + (int64_t)head * d;
        for (int l = 0; column >= 0 && l < r->lines; l++)
            memset(to + (int64_t)l * r->width, 0, (size_t)d * sizeof *to);
        for (int distance = 1 - a->most_keys; column >= 0 && distance < a->most_queries;
             distance++) {
            float *line = to + (int64_t)attention_line(a, distance) * r->width;
            const int at = t.zero_t - distance;
            const float *key = s.key + (ptrdiff_t)pair_panel(at) * channels * 16 + pair_lane(at),
                        *query = s.query + (ptrdiff_t)(t.zero_rho + distance) * 16;
            for (int c = 0; c < d; c++)
                line[c] += a->scale * (side == 0 ? query[(ptrdiff_t)c / 16 * t.rows * 16 + c % 16]
                                                 : key[(ptrdiff_t)c * 16]);
        }
    }
}
