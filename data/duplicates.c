/*
 * duplicates.c - see duplicates.h.
 *
 * One pass over the tokens, in blocks: each row's 128-bit hash, looked up in a table of first rows;
 * for first rows a signature of DUPLICATES_HASHES bytes, each the low part of a MinHash. Then the
 * bands, one after the other: rows with equal bytes in a band are looked up in the same table,
 * chained from the latest to the first. Before tokens are read again, the share of equal bytes in
 * the two signatures must allow the similarity.
 */
#include "data/duplicates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"

enum {
    BLOCK_ROWS = 1 << 16,
    BLOCK_TOKENS = 1 << 20,
    WALKED = 2 *
             DUPLICATES_COMPARED, /* earlier rows of a band that are looked at, compared or not */
    MOST_BAND = 12,
    AHEAD = 128 /* rows whose places in the table are fetched at once */
};

/* ---- shingles ---- */

/* A row's shingles: count of them, at least 1. */
static int shingle_count(int tokens)
{
    return tokens <= DUPLICATES_SHINGLE ? 1 : tokens - DUPLICATES_SHINGLE + 1;
}

static uint64_t shingle(const int32_t *ids, int tokens)
{
    static const uint64_t odd[DUPLICATES_SHINGLE] = {0x9E3779B97F4A7C15u, 0xC2B2AE3D27D4EB4Fu,
                                                     0xD6E8FEB86659FD93u};
    uint64_t sum = (uint64_t)tokens;
    for (int i = 0; i < DUPLICATES_SHINGLE && i < tokens; i++)
        sum += ((uint64_t)(uint32_t)ids[i] + 1) * odd[i];
    return random_mix(sum);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The set of a row's shingles, ascending. */
struct shingle_set {
    uint64_t *p;
    size_t n, capacity;
};

static enum status shingle_set_make(const int32_t *ids, int tokens, struct shingle_set *set)
{
    int count = shingle_count(tokens);
    size_t kept = 0;
    TRY(mem_grow(&set->p, &set->capacity, (size_t)count, sizeof *set->p, "the shingles of a row"));
    for (int i = 0; i < count; i++)
        set->p[i] = shingle(ids + i, tokens < DUPLICATES_SHINGLE ? tokens : DUPLICATES_SHINGLE);
    qsort(set->p, (size_t)count, sizeof *set->p, compare_u64);
    for (int i = 0; i < count; i++) {
        if (kept == 0 || set->p[kept - 1] != set->p[i])
            set->p[kept++] = set->p[i];
    }
    set->n = kept;
    return STATUS_OK;
}

static double jaccard(const struct shingle_set *a, const struct shingle_set *b)
{
    size_t i = 0, j = 0, both = 0;
    while (i < a->n && j < b->n) {
        uint64_t x = a->p[i], y = b->p[j];
        both += x == y;
        i += x <= y;
        j += y <= x;
    }
    return (double)both / (double)(a->n + b->n - both);
}

/* ---- signatures ---- */

/* Permutations x -> (x ^ add) * odd of 32 bits. */
struct permutations {
    uint32_t add[DUPLICATES_HASHES], odd[DUPLICATES_HASHES];
};

static void permutations_make(struct permutations *p)
{
    for (int k = 0; k < DUPLICATES_HASHES; k++) {
        uint64_t x = random_mix(0x6475706C69636174u + (uint64_t)k);
        p->add[k] = (uint32_t)x;
        p->odd[k] = (uint32_t)(x >> 32) | 1u;
    }
}

static void sign(const struct permutations *p, const int32_t *ids, int tokens,
                 uint8_t signature[DUPLICATES_HASHES])
{
    int32_t least[DUPLICATES_HASHES];
    int count = shingle_count(tokens);
    for (int k = 0; k < DUPLICATES_HASHES; k++)
        least[k] = INT32_MAX;
    for (int i = 0; i < count; i++) {
        uint32_t x =
            (uint32_t)shingle(ids + i, tokens < DUPLICATES_SHINGLE ? tokens : DUPLICATES_SHINGLE);
        for (int k = 0; k < DUPLICATES_HASHES; k++) { /* signed: what SSE2 can compare */
            int32_t v = (int32_t)((x ^ p->add[k]) * p->odd[k]);
            least[k] = v < least[k] ? v : least[k];
        }
    }
    for (int k = 0; k < DUPLICATES_HASHES; k++)
        signature[k] = (uint8_t)random_mix((uint32_t)least[k]); /* minima are alike in high bits */
}

/* ---- the search ---- */

/* A place of the table. */
struct slot {
    int32_t row;  /* -1: free */
    uint32_t tag; /* part of its key that is not in the place */
};

struct search {
    const struct duplicates_opts *o;
    struct duplicates *out;
    int64_t *first;       /* (count + 1) of each set, number of its first row */
    struct hash128 *hash; /* (rows) until the bands begin */
    uint8_t *signature;   /* (rows, DUPLICATES_HASHES) or NULL */
    struct slot *slots;   /* (nslots) */
    size_t nslots;        /* a power of two, at least 1.5 times the rows */
    int32_t *earlier; /* (rows) the row before this one with the same bytes in the band, or -1 */
    struct permutations permutations;
    struct batch batch;
    int64_t *wanted; /* units of the rows in batch */
    int32_t *unit;   /* (rows of the block + 1) where those of each row begin */
    size_t wanted_capacity, unit_capacity;
    struct shingle_set mine, other;
    int64_t mine_of; /* whose shingles mine are; -1: nobody's */
};

static void mark(const struct search *s)
{
    if (s->o->mark != NULL)
        s->o->mark();
}

static enum status count_rows(struct search *s)
{
    TRY(mem_alloc((size_t)s->o->count + 1, sizeof *s->first, "the sets", &s->first));
    for (int i = 0; i < s->o->count; i++) {
        struct dataset_info info;
        dataset_get_info(s->o->sets[i], &info);
        s->first[i + 1] = s->first[i] + info.rows;
    }
    return STATUS_OK;
}

static void slots_clear(struct search *s)
{
    memset(s->slots, 0xFF, s->nslots * sizeof *s->slots);
}

/* The first row with the same hash as this one, which is entered if there is none. */
static int32_t first_equal(struct search *s, int32_t row)
{
    const struct hash128 mine = s->hash[row];
    const uint32_t tag = (uint32_t)mine.high;
    for (size_t at = (size_t)mine.low & (s->nslots - 1);; at = (at + 1) & (s->nslots - 1)) {
        struct slot *slot = &s->slots[at];
        if (slot->row < 0) {
            *slot = (struct slot){row, tag};
            return row;
        }
        if (slot->tag == tag && s->hash[slot->row].low == mine.low &&
            s->hash[slot->row].high == mine.high)
            return slot->row;
    }
}

/* The ids of the i-th row of the block: its units follow each other. */
static const int32_t *row_ids(const struct search *s, int i, int *n)
{
    const struct batch *b = &s->batch;
    const int32_t from = b->begin[s->unit[i]];
    *n = b->begin[s->unit[i + 1]] - from;
    return b->ids + from;
}

static void hash_block(struct search *s, int64_t at, int rows)
{
    struct duplicates *out = s->out;
#pragma omp parallel for schedule(static, 256)
    for (int i = 0; i < rows; i++) {
        int n;
        const int32_t *ids = row_ids(s, i, &n);
        s->hash[at + i] = hash_bytes128(ids, (size_t)n * sizeof *ids);
    }
    for (int i = 0; i < rows; i++) {
        int32_t row = (int32_t)(at + i);
        out->same[row] = first_equal(s, row);
        out->copies += out->same[row] != row;
    }
    if (s->signature == NULL)
        return;
#pragma omp parallel for schedule(dynamic, 256)
    for (int i = 0; i < rows; i++) {
        int n;
        const int32_t *ids = row_ids(s, i, &n);
        if (out->same[at + i] == at + i)
            sign(&s->permutations, ids, n, s->signature + (at + i) * DUPLICATES_HASHES);
    }
}

/* Read the units of rows [at, at + rows) of a set. */
static enum status read_units(struct search *s, struct dataset *ds, int64_t at, int rows)
{
    const int64_t first = dataset_first_unit(ds, at);
    const int64_t count = dataset_first_unit(ds, at + rows) - first;
    TRY(mem_grow(&s->unit, &s->unit_capacity, (size_t)rows + 1, sizeof *s->unit,
                 "the rows to compare"));
    for (int i = 0; i <= rows; i++)
        s->unit[i] = (int32_t)(dataset_first_unit(ds, at + i) - first);
    TRY(mem_grow(&s->wanted, &s->wanted_capacity, (size_t)count, sizeof *s->wanted,
                 "the rows to compare"));
    for (int64_t i = 0; i < count; i++)
        s->wanted[i] = first + i;
    return dataset_read(ds, s->wanted, (int)count, &s->batch);
}

static enum status hash_rows(struct search *s)
{
    slots_clear(s);
    for (int set = 0; set < s->o->count; set++) {
        struct dataset *ds = s->o->sets[set];
        int64_t rows = s->first[set + 1] - s->first[set];
        for (int64_t at = 0; at < rows;) {
            int count = 0;
            for (int64_t tokens = 0; count < BLOCK_ROWS && at + count < rows; count++) {
                tokens += dataset_row_length(ds, at + count);
                if (tokens > BLOCK_TOKENS && count > 0)
                    break;
            }
            mark(s);
            TRY(read_units(s, ds, at, count));
            hash_block(s, s->first[set] + at, count);
            at += count;
        }
    }
    return STATUS_OK;
}

static enum status read_shingles(struct search *s, int64_t row, struct shingle_set *set)
{
    int of = 0;
    while (row >= s->first[of + 1])
        of++;
    int64_t inside = row - s->first[of];
    TRY(read_units(s, s->o->sets[of], inside, 1));
    return shingle_set_make(s->batch.ids, (int)s->batch.tokens, set);
}

/* ---- bands ---- */

/* Bytes of a band: as many as leave a pair at the threshold a probability of 0.98 of sharing one.
 */
static int band_size(double near)
{
    static const int sizes[] = {MOST_BAND, 8, 6, 4, 3};
    for (int i = 0; i < 4; i++) {
        if (1.0 - pow(1.0 - pow(near, sizes[i]), DUPLICATES_HASHES / sizes[i]) >= 0.98)
            return sizes[i];
    }
    return sizes[4];
}

/* Equal bytes of two signatures that a pair at the threshold has but for 4 standard deviations. */
static int least_equal(double near)
{
    double equal = near + (1.0 - near) / 256.0;
    return (int)floor(DUPLICATES_HASHES *
                      (equal - 4.0 * sqrt(equal * (1.0 - equal) / DUPLICATES_HASHES)));
}

static int count_equal(const uint8_t *a, const uint8_t *b)
{
    int equal = 0;
    for (int k = 0; k < DUPLICATES_HASHES; k++)
        equal += a[k] == b[k];
    return equal;
}

/* The first row of those that hang together with row; paths are halved on the way. */
static int32_t root_of(int32_t *like, int32_t row)
{
    while (like[row] != row) {
        like[row] = like[like[row]];
        row = like[row];
    }
    return row;
}

static void join(int32_t *like, int32_t a, int32_t b)
{
    a = root_of(like, a);
    b = root_of(like, b);
    if (a < b)
        like[b] = a;
    else
        like[a] = b;
}

static enum status compare_rows(struct search *s, int32_t row, int32_t other)
{
    if (s->mine_of != row) {
        s->mine_of = -1;
        TRY(read_shingles(s, row, &s->mine));
        s->mine_of = row;
    }
    TRY(read_shingles(s, other, &s->other));
    s->out->compared++;
    if (jaccard(&s->mine, &s->other) >= s->o->near)
        join(s->out->like, row, other);
    return STATUS_OK;
}

static uint64_t band_key(const struct search *s, int32_t row, int begin, int size)
{
    uint64_t key[2] = {0, 0};
    memcpy(key, s->signature + (int64_t)row * DUPLICATES_HASHES + begin, (size_t)size);
    return random_mix(key[0] ^ random_mix(key[1]));
}

/* Enter a row in the table of the band; returns the row entered before it with the same key, or -1.
 * Of the key 32 bits and the place are looked at: a wrong candidate does no harm. */
static int32_t band_enter(struct search *s, int32_t row, uint64_t key)
{
    for (size_t at = (size_t)key & (s->nslots - 1);; at = (at + 1) & (s->nslots - 1)) {
        struct slot *slot = &s->slots[at];
        int32_t other = slot->row;
        if (other >= 0 && slot->tag != (uint32_t)(key >> 32))
            continue;
        *slot = (struct slot){row, (uint32_t)(key >> 32)};
        return other;
    }
}

/* Compare a row with those entered before it. */
static enum status match_row(struct search *s, int32_t row, int least)
{
    struct duplicates *out = s->out;
    int32_t other = s->earlier[row];
    for (int walked = 0, compared = 0;
         other >= 0 && walked < WALKED && compared < DUPLICATES_COMPARED; walked++) {
        if (root_of(out->like, row) != root_of(out->like, other) &&
            count_equal(s->signature + (int64_t)row * DUPLICATES_HASHES,
                        s->signature + (int64_t)other * DUPLICATES_HASHES) >= least) {
            TRY(compare_rows(s, row, other));
            compared++;
        }
        other = s->earlier[other];
    }
    return STATUS_OK;
}

static enum status match_band(struct search *s, int begin, int size, int least)
{
    struct duplicates *out = s->out;
    uint64_t key[AHEAD];
    slots_clear(s);
    for (int32_t at = 0; at < out->rows; at += AHEAD) {
        if (at % BLOCK_ROWS == 0)
            mark(s);
        int32_t end = out->rows - at < AHEAD ? (int32_t)out->rows : at + AHEAD;
        for (int32_t row = at; row < end; row++) { /* their slots are on the way from memory */
            if (out->same[row] != row)
                continue;
            key[row - at] = band_key(s, row, begin, size);
            __builtin_prefetch(&s->slots[(size_t)key[row - at] & (s->nslots - 1)], 1);
        }
        for (int32_t row = at; row < end; row++) {
            if (out->same[row] != row)
                continue;
            s->earlier[row] = band_enter(s, row, key[row - at]);
            TRY(match_row(s, row, least));
        }
        if (end == out->rows) /* at could not go on to 2^31 */
            break;
    }
    return STATUS_OK;
}

static enum status match_rows(struct search *s)
{
    int size = band_size(s->o->near), least = least_equal(s->o->near);
    TRY(mem_alloc_raw((size_t)s->out->rows, sizeof *s->earlier, "rows of a band", &s->earlier));
    for (int begin = 0; begin + size <= DUPLICATES_HASHES; begin += size)
        TRY(match_band(s, begin, size, least));
    return STATUS_OK;
}

/* ---- from outside ---- */

static enum status search_begin(struct search *s)
{
    struct duplicates *out = s->out;
    size_t n;
    TRY(count_rows(s));
    out->rows = s->first[s->o->count];
    if (out->rows > INT32_MAX)
        return status_fail(STATUS_ARG, "%lld rows are too many to look for copies, wanted %d",
                           (long long)out->rows, INT32_MAX);
    n = (size_t)out->rows;
    for (s->nslots = 16; s->nslots < n + n / 2; s->nslots *= 2)
        continue;
    TRY(mem_alloc_raw(n, sizeof *out->same, "equal rows", &out->same));
    TRY(mem_alloc_raw(n, sizeof *out->like, "nearly equal rows", &out->like));
    TRY(mem_alloc_raw(n, sizeof *s->hash, "the rows' hashes", &s->hash));
    TRY(mem_alloc_raw(s->nslots, sizeof *s->slots, "the table of rows", &s->slots));
    if (s->o->near < 1.0)
        TRY(mem_alloc_raw(n * DUPLICATES_HASHES, 1, "the rows' signatures", &s->signature));
    permutations_make(&s->permutations);
    return STATUS_OK;
}

static void search_end(struct search *s)
{
    mem_free(s->first);
    mem_free(s->hash);
    mem_free(s->signature);
    mem_free(s->slots);
    mem_free(s->earlier);
    mem_free(s->wanted);
    mem_free(s->unit);
    mem_free(s->mine.p);
    mem_free(s->other.p);
    batch_release(&s->batch);
}

enum status duplicates_find(const struct duplicates_opts *opts, struct duplicates *out)
{
    struct search s = {.o = opts, .out = out, .mine_of = -1};
    enum status st;
    *out = (struct duplicates){0};
    if (!(opts->near >= 0.5 && opts->near <= 1.0))
        return status_fail(STATUS_ARG,
                           "rows of a similarity of %g are called copies, wanted 0.5 to 1",
                           opts->near);
    TRY_GOTO(done, search_begin(&s));
    TRY_GOTO(done, hash_rows(&s));
    mem_free(s.hash);
    s.hash = NULL;
    memcpy(out->like, out->same, (size_t)out->rows * sizeof *out->like);
    if (opts->near < 1.0)
        TRY_GOTO(done, match_rows(&s));
    for (int32_t i = 0; i < out->rows; i++) {
        out->like[i] = root_of(out->like, i);
        out->near_copies += out->same[i] == i && out->like[i] != i;
    }
done:
    search_end(&s);
    if (st != STATUS_OK)
        duplicates_release(out);
    return st;
}

void duplicates_release(struct duplicates *duplicates)
{
    mem_free(duplicates->same);
    mem_free(duplicates->like);
    *duplicates = (struct duplicates){0};
}

enum status duplicates_similarity(const struct duplicates_opts *opts, int64_t a, int64_t b,
                                  double *similarity)
{
    struct search s = {.o = opts};
    enum status st;
    *similarity = NAN;
    TRY_GOTO(done, count_rows(&s));
    if (a < 0 || b < 0 || a >= s.first[opts->count] || b >= s.first[opts->count]) {
        st = status_fail(STATUS_ARG, "rows %lld and %lld are to be compared, there are %lld",
                         (long long)a, (long long)b, (long long)s.first[opts->count]);
        goto done;
    }
    TRY_GOTO(done, read_shingles(&s, a, &s.mine));
    TRY_GOTO(done, read_shingles(&s, b, &s.other));
    *similarity = jaccard(&s.mine, &s.other);
done:
    search_end(&s);
    return st;
}

enum status duplicates_groups(const struct duplicates *duplicates, const int32_t *group,
                              int32_t *out, int32_t *count)
{
    const int64_t n = duplicates->rows;
    int32_t *first = NULL, most = -1;
    enum status st = STATUS_OK;
    *count = 0;
    memcpy(out, duplicates->like, (size_t)n * sizeof *out); /* like[i] <= i: a forest */
    for (int64_t i = 0; group != NULL && i < n; i++) {
        if (group[i] < 0)
            return status_fail(STATUS_ARG, "row %lld is of group %d, wanted at least 0",
                               (long long)i, group[i]);
        most = group[i] > most ? group[i] : most;
    }
    TRY(mem_alloc_raw((size_t)(most >= n ? (int64_t)most + 1 : n), sizeof *first, "groups",
                      &first));
    for (int64_t g = 0; g <= most; g++)
        first[g] = -1;
    for (int32_t i = 0; group != NULL && i < n; i++) {
        if (first[group[i]] < 0)
            first[group[i]] = i;
        else
            join(out, first[group[i]], i);
    }
    for (int32_t i = 0; i < n;
         i++) /* roots are the lowest rows, so they are numbered before others */
        out[i] = root_of(out, i);
    for (int32_t i = 0; i < n; i++) {
        if (out[i] == i)
            first[i] = (*count)++;
    }
    for (int32_t i = 0; i < n; i++)
        out[i] = first[out[i]];
    mem_free(first);
    return st;
}
