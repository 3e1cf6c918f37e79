/* test_shards.c - every block has one owner, values per block find their places, scales move as
 * torch's GradScaler. */
#include <string.h>

#include "base/mem.h"
#include "model/params.h"
#include "tests/support/support.h"
#include "worker/loss_scale.h"
#include "worker/shards.h"

static void check(int64_t blocks, int64_t bucket_blocks, int ranks)
{
    int64_t by_block[64];
    int owners[64] = {0};
    memset(by_block, 0xff, sizeof by_block);
    for (int rank = 0; rank < ranks; rank++) {
        struct shards s;
        int64_t values[64], n = 0;
        assert_ok(
            shards_make(&s, blocks * PARAM_BLOCK, bucket_blocks * PARAM_BLOCK * 4, rank, ranks));
        assert_true(s.bucket >= ranks * (int64_t)PARAM_BLOCK);
        for (int r = 0; r < s.ranges; r++) {
            assert_true(s.owned[r].begin < s.owned[r].end);
            assert_true(r == 0 || s.owned[r - 1].end < s.owned[r].begin);
            for (int64_t b = s.owned[r].begin / PARAM_BLOCK; b < s.owned[r].end / PARAM_BLOCK;
                 b++) {
                owners[b]++;
                values[n++] = b;
            }
        }
        assert_int_equal(n, s.blocks);
        assert_int_equal(n, shards_blocks_of(&s, rank));
        shards_spread(&s, rank, values, sizeof values[0], by_block);
        int64_t low, high, end = 0;
        for (int i = 0; i < s.buckets; i++) {
            shards_bucket(&s, i, &low, &high);
            assert_int_equal(low, end);
            assert_true(high > low);
            end = high;
        }
        assert_int_equal(end, blocks * PARAM_BLOCK);
        shards_release(&s);
    }
    for (int64_t b = 0; b < blocks; b++) {
        assert_int_equal(owners[b], 1);
        assert_int_equal(by_block[b], b);
    }
}

static void test_every_block_has_one_owner(void **state)
{
    (void)state;
    static const int64_t blocks[] = {1, 2, 7, 33, 64}, buckets[] = {1, 3, 16, 1000};
    static const int ranks[] = {1, 2, 3, 7, 20};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < 5; k++)
                check(blocks[i], buckets[j], ranks[k]);
}

static void test_loss_scale(void **state)
{
    (void)state;
    struct loss_scale s = loss_scale_start(false);
    assert_true(s.scale == 1.0);
    s = loss_scale_start(true);
    assert_true(s.scale == 65536.0);
    assert_true(loss_scale_skipped(&s) && s.scale == 32768.0 && s.skipped == 1);
    for (int i = 1; i < LOSS_SCALE_INTERVAL; i++)
        loss_scale_applied(&s);
    assert_true(s.scale == 32768.0 && s.clean == LOSS_SCALE_INTERVAL - 1);
    loss_scale_applied(&s);
    assert_true(s.scale == 65536.0 && s.clean == 0);
    loss_scale_applied(&s);
    assert_true(loss_scale_skipped(&s) && s.clean == 0); /* only steps in a row count */
    while (s.scale > 1.0)
        assert_true(loss_scale_skipped(&s));
    assert_false(loss_scale_skipped(&s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_block_has_one_owner),
        cmocka_unit_test(test_loss_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
