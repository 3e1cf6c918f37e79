/* test_chunk.c - windows of long texts: given lengths, every small case beside the rule written out, and a dataset's units. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/chunk.h"
#include "data/dataset.h"
#include "tests/data/id_rows.h"
#include "tests/support/support.h"

static struct chunk_rule rule_of(int size, int stride, int least)
{
    return (struct chunk_rule){.size = size, .stride = stride, .least = least};
}

static void expect(const struct chunk_rule *rule, int64_t n, const int64_t *lengths, int64_t count)
{
    assert_int_equal(chunk_count(rule, n), count);
    for (int64_t k = 0; k < count; k++) {
        int64_t first, length;
        chunk_at(rule, n, k, &first, &length);
        assert_int_equal(first, k * rule->stride);
        assert_int_equal(length, lengths[k]);
    }
}

#define EXPECT(size, stride, n, ...)                                                                                   \
    do {                                                                                                               \
        const struct chunk_rule rule_ = rule_of(size, stride, 5);                                                      \
        const int64_t lengths_[] = {__VA_ARGS__};                                                                      \
        expect(&rule_, n, lengths_, (int64_t)(sizeof lengths_ / sizeof lengths_[0]));                                  \
    } while (0)

/* L6 of the source's tests. */
static void test_golden(void **state)
{
    (void)state;
    EXPECT(510, 255, 510, 510, 255);
    EXPECT(510, 510, 511, 510);
    EXPECT(510, 510, 514, 510);
    EXPECT(510, 510, 515, 510, 5);
    EXPECT(510, 255, 1000, 510, 510, 490, 235);
    EXPECT(510, 510, 3, 3);
    EXPECT(510, 510, 0, 0); /* [CLS] [SEP] */
    EXPECT(4, 4, 8, 4);     /* all windows are shorter than 5: one is kept */
}

/* The rule, window by window. */
static int64_t slow_count(const struct chunk_rule *rule, int64_t n, int64_t *lengths)
{
    int64_t count = 0, kept = 0, all[64];
    n = rule->max_text > 0 && n > rule->max_text ? rule->max_text : n;
    for (int64_t i = 0; i < n; i += rule->stride) {
        if (rule->skip_tail && count > 0 && (count - 1) * rule->stride + all[count - 1] >= n)
            break;
        all[count++] = n - i < rule->size ? n - i : rule->size;
    }
    for (int64_t k = 0; k < count; k++)
        if (count == 1 || all[k] >= rule->least)
            lengths[kept++] = all[k];
    if (kept == 0)
        lengths[kept++] = count > 0 ? all[0] : 0;
    return kept;
}

static void test_all_small(void **state)
{
    (void)state;
    int64_t lengths[64], cases = 0;
    for (int size = 1; size <= 7; size++)
        for (int stride = 1; stride <= size; stride++)
            for (int least = 1; least <= 8; least++)
                for (int64_t n = 0; n <= 30; n++)
                    for (int variant = 0; variant < 4; variant++) {
                        struct chunk_rule rule = rule_of(size, stride, least);
                        rule.skip_tail = variant % 2 != 0;
                        rule.max_text = variant / 2 != 0 ? 19 : 0;
                        const int64_t count = slow_count(&rule, n, lengths);
                        expect(&rule, n, lengths, count);
                        struct chunk_tally tally = {0};
                        bool seen[32] = {false};
                        int64_t inside = 0, covered = 0;
                        chunk_tally_add(&tally, &rule, n);
                        for (int64_t k = 0; k < count; k++)
                            for (int64_t i = 0; i < lengths[k]; i++, inside++)
                                seen[k * stride + i] = true;
                        for (int i = 0; i < 32; i++)
                            covered += seen[i];
                        assert_int_equal(tally.lost, n - covered);
                        assert_int_equal(tally.repeated, inside - covered);
                        assert_int_equal(tally.chunks, count);
                        cases++;
                    }
    assert_true(cases > 25000);
}

static void test_pooling(void **state)
{
    (void)state;
    const int64_t begin[] = {0, 1, 4};
    const float chunk[] = {1, 2, /**/ 3, -1, 5, -1, 4, 0};
    const float dtext[] = {0.5F, 1, 3, 6};
    float text[4], dchunk[8];
    int64_t winner[4];
    chunk_pool(CHUNK_MEAN, begin, 2, 2, chunk, text, NULL);
    assert_true(text[0] == 1 && text[1] == 2 && text[2] == 4);
    assert_true(text[3] == (float)(-2.0 / 3.0));
    chunk_pool_backward(CHUNK_MEAN, begin, 2, 2, dtext, NULL, dchunk);
    assert_true(dchunk[0] == 0.5F && dchunk[1] == 1 && dchunk[2] == 1 && dchunk[7] == 2);
    chunk_pool(CHUNK_MAX, begin, 2, 2, chunk, text, winner);
    assert_true(text[0] == 1 && text[1] == 2 && text[2] == 5 && text[3] == 0);
    assert_true(winner[2] == 2 && winner[3] == 3);
    chunk_pool_backward(CHUNK_MAX, begin, 2, 2, dtext, winner, dchunk);
    const float wanted[] = {0.5F, 1, 0, 0, 3, 0, 0, 6};
    assert_memory_equal(dchunk, wanted, sizeof wanted);
    const float equal[] = {7, 7, 7, 7, 7, 7, 7, 7}; /* the first of equal ones */
    chunk_pool(CHUNK_MAX, begin, 2, 2, equal, text, winner);
    assert_true(winner[2] == 1 && winner[3] == 1);
    const float bad[] = {1, 2, 3, -1, NAN, -1, 4, 0};
    chunk_pool(CHUNK_MAX, begin, 2, 2, bad, text, winner);
    assert_true(isnan(text[2])); /* what is no number is not hidden by a larger one */
}

static void test_dataset(void **state)
{
    (void)state;
    const int sizes[] = {0, 3, 16, 17, 41, 100};
    enum { ROWS = 6 };
    const struct chunk_rule rule = rule_of(16, 12, 5);
    struct dataset_part part = {0};
    struct dataset *ds;
    struct batch batch = {0};
    int32_t ids[128];
    char path[512];
    (void)snprintf(path, sizeof path, "%s/chunks.h5", support_folder());
    for (int i = 0; i < 128; i++)
        ids[i] = ID_FIRST + i;
    for (int r = 0; r < ROWS; r++)
        assert_int_equal(id_rows_add(&part, ids, (size_t)sizes[r]), STATUS_OK);
    assert_int_equal(id_rows_write(path, &part), STATUS_OK);
    assert_int_equal(dataset_open(&(struct dataset_opts){.path = path, .max_length = 18, .chunks = rule}, &ds), STATUS_OK);
    int64_t unit = 0, units[64], from[64], row_of[64], length[64];
    for (int r = 0; r < ROWS; r++) {
        assert_int_equal(dataset_first_unit(ds, r), unit);
        int64_t sum = 0;
        for (int64_t k = 0; k < chunk_count(&rule, sizes[r]); k++, unit++) {
            units[unit] = unit;
            row_of[unit] = r;
            chunk_at(&rule, sizes[r], k, &from[unit], &length[unit]);
            assert_int_equal(dataset_length(ds, unit), length[unit] + 2);
            sum += length[unit] + 2;
        }
        assert_int_equal(dataset_row_length(ds, r), sum);
        assert_int_equal(dataset_content_length(ds, r), sizes[r]);
    }
    assert_int_equal(dataset_first_unit(ds, ROWS), unit);
    assert_int_equal(dataset_read(ds, units, (int)unit, &batch), STATUS_OK);
    for (int64_t u = 0; u < unit; u++) {
        const int32_t *got = batch.ids + batch.begin[u];
        assert_int_equal(batch.begin[u + 1] - batch.begin[u], length[u] + 2);
        assert_int_equal(batch.row[u], row_of[u]);
        assert_int_equal(batch.chunk[u], u - dataset_first_unit(ds, row_of[u]));
        assert_int_equal(got[0], ID_CLS);
        assert_int_equal(got[length[u] + 1], ID_SEP);
        for (int64_t i = 0; i < length[u]; i++)
            assert_int_equal(got[i + 1], ID_FIRST + from[u] + i);
    }
    assert_int_equal(dataset_read(ds, &unit, 1, &batch), STATUS_ARG);
    batch_release(&batch);
    dataset_close(ds);
    dataset_part_release(&part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_all_small),
        cmocka_unit_test(test_pooling),
        cmocka_unit_test(test_dataset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
