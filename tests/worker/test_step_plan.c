/*
 * test_step_plan.c - plans of a step, run on symbols instead of gradients: a sum's value is a hash of the order of its
 * additions, so two sums are equal only if the same rows were added along the same tree.
 */
#include "tests/support/support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "base/philox.h"
#include "worker/step_plan.h"

enum { MOST_ROWS = 128, MOST_LEAVES = 20, MOST_BUFFERS = 64 };

/* ---- symbols ---- */

typedef uint64_t sum; /* 0: nothing useful */

static sum sum_of(sum a, sum b)
{
    return random_mix(random_mix(a) ^ (b + UINT64_C(0x1234567890ABCDEF))) | 1;
}

/* A piece sums its rows from zero. */
static sum sum_of_rows(const int32_t *row, int rows)
{
    sum s = 1;
    for (int i = 0; i < rows; i++)
        s = sum_of(s, (sum)row[i] + 3);
    return s;
}

/* ---- what the whole must be ---- */

/* A batch, and what the ranks brought of it. */
struct job {
    struct step_opts opts; /* rank: the one that runs now */
    int rows;
    int32_t length[MOST_ROWS];
    int times[MOST_ROWS];  /* how often a row was summed */
    sum leaf[MOST_LEAVES]; /* of every leaf of a split plan, as its passes must add up */
    struct { /* top nodes of all ranks */
        int first, count;
        sum value;
    } top[MOST_LEAVES];
    int tops;
};

/* The sum of leaves [first, first + size) cut at leaves, from their values; 0 where none is present. */
static sum tree_of_leaves(const sum *leaf, int leaves, int first, int size)
{
    if (first >= leaves)
        return 0;
    if (size == 1)
        return leaf[first];
    sum left = tree_of_leaves(leaf, leaves, first, size / 2);
    sum right = tree_of_leaves(leaf, leaves, first + size / 2, size / 2);
    return left == 0 ? right : right == 0 ? left : sum_of(left, right);
}

/* The same from the top nodes that the ranks brought. */
static sum tree_of_tops(const struct job *job, int first, int size)
{
    int end = first + size < job->opts.leaves ? first + size : job->opts.leaves;
    for (int i = 0; i < job->tops; i++) {
        if (job->top[i].first == first && job->top[i].first + job->top[i].count == end)
            return job->top[i].value;
    }
    if (first >= job->opts.leaves || size == 1)
        return 0;
    sum left = tree_of_tops(job, first, size / 2), right = tree_of_tops(job, first + size / 2, size / 2);
    return left == 0 ? right : right == 0 ? left : sum_of(left, right);
}

static int whole(int leaves)
{
    int size = 1;
    while (size < leaves)
        size *= 2;
    return size;
}

/* The sum over grains dealt by batch_plan alone: no ranks, no passes. */
static sum wanted_sum(const struct job *job)
{
    struct batch_plan deal = {0};
    sum leaf[MOST_LEAVES], out;
    assert_ok(batch_plan(&deal, job->length, job->rows, job->opts.leaves));
    for (int g = 0; g < job->opts.leaves; g++) {
        int rows = deal.grain_begin[g + 1] - deal.grain_begin[g];
        const int32_t *row = deal.position + deal.grain_begin[g];
        const bool cut = job->opts.cut_long && deal.grain_tokens[g] > job->opts.micro_tokens;
        leaf[g] = rows == 0 ? 0 : sum_of_rows(row, rows);
        for (int from = 0, to; cut && from < rows; from = to) { /* in passes, which are added */
            int64_t tokens = job->length[row[from]];
            for (to = from + 1; to < rows && tokens + job->length[row[to]] <= job->opts.micro_tokens; to++)
                tokens += job->length[row[to]];
            sum part = sum_of_rows(row + from, to - from);
            leaf[g] = from == 0 ? part : sum_of(leaf[g], part);
        }
    }
    out = tree_of_leaves(leaf, job->opts.leaves, 0, whole(job->opts.leaves));
    batch_plan_release(&deal);
    return out;
}

/* ---- running a plan ---- */

static void run_pass(struct job *job, const struct step_plan *plan, const struct step_pass *pass, sum *buffer,
                     int buffers)
{
    const struct grad_cut *cut = &pass->cut;
    const int32_t *order = plan->order + pass->first;
    assert_true(cut->pieces > 0);
    assert_int_equal(cut->token[0], 0);
    assert_int_equal(cut->row[0], 0);
    for (int i = 0; i < cut->pieces; i++) {
        int rows = cut->row[i + 1] - cut->row[i];
        int64_t tokens = 0;
        assert_true(rows > 0);
        for (int r = cut->row[i]; r < cut->row[i + 1]; r++) {
            assert_in_range(order[r], 0, job->rows - 1);
            tokens += job->length[order[r]];
            job->times[order[r]]++;
        }
        assert_int_equal(cut->token[i + 1] - cut->token[i], tokens);
        assert_in_range(cut->to[i], 0, buffers - 1);
        sum piece = sum_of_rows(order + cut->row[i], rows), *to = &buffer[cut->to[i]];
        if (cut->add[i])
            assert_true(*to != 0); /* adds to something */
        *to = cut->add[i] ? sum_of(*to, piece) : piece;
        if (job->opts.split) {
            sum *leaf = &job->leaf[job->opts.rank];
            *leaf = *leaf == 0 ? piece : sum_of(*leaf, piece);
        }
        for (int m = cut->merge_begin[i]; m < cut->merge_begin[i + 1]; m++) {
            assert_in_range(cut->merge_to[m], 0, buffers - 1);
            assert_in_range(cut->merge_from[m], 0, buffers - 1);
            assert_int_not_equal(cut->merge_to[m], cut->merge_from[m]);
            sum *into = &buffer[cut->merge_to[m]], *from = &buffer[cut->merge_from[m]];
            assert_true(*into != 0 && *from != 0);
            *into = sum_of(*into, *from);
            *from = 0; /* holds nothing useful from here on */
        }
    }
    assert_int_equal(cut->token[cut->pieces], pass->tokens);
    assert_int_equal(cut->row[cut->pieces], pass->rows);
    if (pass->tokens > job->opts.micro_tokens) { /* only what cannot be smaller */
        assert_int_equal(cut->pieces, 1);
        assert_true(!(job->opts.split || job->opts.cut_long) || pass->rows == 1);
    }
}

static void run_rank(struct job *job, struct step_plan *plan)
{
    sum buffer[MOST_BUFFERS] = {0};
    struct reduce_node nodes[64];
    int buffers = step_plan_buffers(&job->opts), rows = 0;
    int64_t tokens = 0;
    assert_in_range(buffers, 1, MOST_BUFFERS);
    assert_ok(step_plan_make(plan, &job->opts, job->length, job->rows));
    for (int p = 0; p < plan->passes; p++) {
        assert_int_equal(plan->pass[p].first, rows);
        run_pass(job, plan, &plan->pass[p], buffer, buffers);
        rows += plan->pass[p].rows;
        tokens += plan->pass[p].tokens;
    }
    assert_int_equal(rows, plan->own_rows);
    assert_int_equal(tokens, plan->own_tokens);
    assert_int_equal(reduce_top_nodes(&plan->tree, job->opts.rank, nodes), plan->tops);
    for (int i = 0; i < plan->tops; i++) {
        sum *value = &buffer[plan->top_buffer[i]];
        assert_in_range(plan->top_buffer[i], 0, buffers - 1);
        assert_true(*value != 0 && job->tops < MOST_LEAVES);
        job->top[job->tops].first = nodes[i].first;
        job->top[job->tops].count = nodes[i].count;
        job->top[job->tops++].value = *value;
        *value = 0; /* a buffer is brought once */
    }
    for (int b = 0; b < buffers; b++)
        assert_true(buffer[b] == 0); /* and none is forgotten */
}

/* Run all ranks and return the sum over all of them. plan is reused, as in a run. */
static sum run_job(struct job *job, struct step_plan *plan)
{
    job->tops = 0;
    memset(job->times, 0, sizeof job->times);
    memset(job->leaf, 0, sizeof job->leaf);
    for (job->opts.rank = 0; job->opts.rank < job->opts.ranks; job->opts.rank++)
        run_rank(job, plan);
    for (int r = 0; r < job->rows; r++)
        assert_int_equal(job->times[r], 1);
    return tree_of_tops(job, 0, whole(job->opts.leaves));
}

static void draw_rows(struct job *job, int rows, uint64_t key)
{
    job->rows = rows;
    for (int i = 0; i < rows; i++)
        job->length[i] = 3 + (int32_t)random_below(key, (uint64_t)i, 40);
}

static const int ROW_COUNTS[] = {0, 1, 2, 3, 7, 16, 33, 100};
static const int64_t MICRO_TOKENS[] = {1, 60, 250, 1000000};
enum { ROW_COUNT = 8, MICRO_COUNT = 4 };

static void test_any_has_one_tree_for_all_ranks(void **state)
{
    static struct job job;
    struct step_plan plan = {0};
    (void)state;
    for (int leaves = 1; leaves <= 17; leaves++) {
        for (int i = 0; i < ROW_COUNT; i++) {
            job.opts = (struct step_opts){.leaves = leaves};
            draw_rows(&job, ROW_COUNTS[i], (uint64_t)(leaves * 100 + i));
            sum want = wanted_sum(&job);
            assert_int_equal(want != 0, job.rows > 0);
            for (int ranks = 1; ranks <= 20; ranks++) {
                for (int m = 0; m < MICRO_COUNT; m++) {
                    job.opts = (struct step_opts){
                        .leaves = leaves, .ranks = ranks, .micro_tokens = MICRO_TOKENS[m]};
                    sum got = run_job(&job, &plan);
                    if (got != want)
                        fail_msg("%d leaves, %d ranks, %d rows, %lld tokens a pass: another tree", leaves, ranks,
                                 job.rows, (long long)MICRO_TOKENS[m]);
                }
            }
        }
    }
    step_plan_release(&plan);
}

/* Chunks of long texts: a leaf longer than a pass is cut by its own rows alone, whoever owns it. */
static void test_long_leaves_are_cut_alike(void **state)
{
    static struct job job;
    struct step_plan plan = {0};
    (void)state;
    for (int leaves = 1; leaves <= 17; leaves += 4) {
        for (int i = 0; i < ROW_COUNT; i++) {
            draw_rows(&job, ROW_COUNTS[i], (uint64_t)(leaves * 100 + i));
            for (int m = 0; m < MICRO_COUNT; m++) {
                job.opts = (struct step_opts){
                    .leaves = leaves, .cut_long = true, .micro_tokens = MICRO_TOKENS[m]};
                sum want = wanted_sum(&job);
                for (int ranks = 1; ranks <= 20; ranks++) {
                    job.opts.ranks = ranks;
                    assert_true(run_job(&job, &plan) == want);
                }
            }
        }
    }
    step_plan_release(&plan);
}

static void test_split_adds_passes_in_order(void **state)
{
    static struct job job;
    struct step_plan plan = {0};
    (void)state;
    for (int ranks = 1; ranks <= 20; ranks++) {
        for (int i = 0; i < ROW_COUNT; i++) {
            draw_rows(&job, ROW_COUNTS[i], (uint64_t)(ranks * 100 + i));
            for (int m = 0; m < MICRO_COUNT; m++) {
                job.opts = (struct step_opts){
                    .leaves = ranks, .split = true, .ranks = ranks, .micro_tokens = MICRO_TOKENS[m]};
                assert_int_equal(step_plan_buffers(&job.opts), 1);
                sum got = run_job(&job, &plan);
                assert_true(got == tree_of_leaves(job.leaf, ranks, 0, whole(ranks)));
                if (MICRO_TOKENS[m] == 1000000)
                    assert_true(got == wanted_sum(&job)); /* one pass: as if it were not split */
            }
        }
    }
    step_plan_release(&plan);
}

/* Both leaves are one pass if they fit together, and a leaf that does not fit is a pass of its own. */
static void test_passes_are_filled(void **state)
{
    static struct job job;
    struct step_plan plan = {0};
    (void)state;
    job.rows = 4;
    for (int i = 0; i < 4; i++)
        job.length[i] = 10;
    job.opts = (struct step_opts){.leaves = 2, .ranks = 1, .micro_tokens = 40};
    assert_ok(step_plan_make(&plan, &job.opts, job.length, job.rows));
    assert_int_equal(plan.passes, 1);
    assert_int_equal(plan.pass[0].cut.pieces, 2);
    job.opts.micro_tokens = 39;
    assert_ok(step_plan_make(&plan, &job.opts, job.length, job.rows));
    assert_int_equal(plan.passes, 2);
    job.opts = (struct step_opts){.leaves = 1, .split = true, .ranks = 1, .micro_tokens = 30};
    assert_ok(step_plan_make(&plan, &job.opts, job.length, job.rows));
    assert_int_equal(plan.passes, 2);
    assert_int_equal(plan.pass[0].rows, 3);
    assert_int_equal(plan.pass[1].rows, 1);
    assert_true(!plan.pass[0].cut.add[0] && plan.pass[1].cut.add[0]);
    step_plan_release(&plan);
}

/* Steps of a run differ in rows: a plan that was made for few must serve many, and few again. */
static void test_plan_memory_serves_any_next_step(void **state)
{
    static struct job job;
    (void)state;
    for (int small = 0; small < 12; small++) {
        for (int large = small; large < 40; large++) {
            struct step_plan plan = {0};
            int sizes[] = {small, large, small};
            for (int i = 0; i < 3; i++) {
                draw_rows(&job, sizes[i], (uint64_t)large);
                job.opts = (struct step_opts){.leaves = 1, .split = true, .ranks = 1, .micro_tokens = 1};
                (void)run_job(&job, &plan);
                assert_int_equal(plan.passes, sizes[i]);
            }
            step_plan_release(&plan);
        }
    }
}

/* A plan whose memory could not grow serves the next step: what was freed on the way is not used again. */
static void test_a_failed_plan_can_be_made_again(void **state)
{
    static struct job job;
    struct step_plan plan = {0};
    struct rlimit limit, small;
    (void)state;
#if defined(__SANITIZE_ADDRESS__) /* it ends the process where malloc would fail */
    skip();
#endif
    job.rows = 4;
    for (int i = 0; i < 4; i++)
        job.length[i] = 10;
    job.opts = (struct step_opts){.leaves = 4, .ranks = 2, .micro_tokens = 40};
    assert_ok(step_plan_make(&plan, &job.opts, job.length, job.rows));
    job.opts.ranks = 1 << 30;
    assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
    small = limit;
    small.rlim_cur = (rlim_t)1 << 31;
    assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
    enum status st = step_plan_make(&plan, &job.opts, job.length, job.rows);
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    assert_fails(st, STATUS_NOMEM, "plan");
    job.opts.ranks = 2;
    assert_ok(step_plan_make(&plan, &job.opts, job.length, job.rows));
    assert_int_equal(plan.own_rows, 2);
    step_plan_release(&plan);
}

static void test_buffers_grow_as_the_logarithm(void **state)
{
    struct step_opts opts = {.leaves = 1, .ranks = 1};
    (void)state;
    assert_int_equal(step_plan_buffers(&opts), 1);
    opts.leaves = 8;
    assert_int_equal(step_plan_buffers(&opts), 4);
    opts.leaves = 1024;
    assert_int_equal(step_plan_buffers(&opts), 11);
    opts = (struct step_opts){.leaves = 4096, .ranks = 3};
    for (opts.rank = 0; opts.rank < 3; opts.rank++)
        assert_in_range(step_plan_buffers(&opts), 1, 2 * 12);
    opts = (struct step_opts){.leaves = 2, .rank = 5, .ranks = 6}; /* without a leaf */
    assert_int_equal(step_plan_buffers(&opts), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_has_one_tree_for_all_ranks), cmocka_unit_test(test_long_leaves_are_cut_alike), cmocka_unit_test(test_split_adds_passes_in_order),
        cmocka_unit_test(test_passes_are_filled),              cmocka_unit_test(test_plan_memory_serves_any_next_step),
        cmocka_unit_test(test_buffers_grow_as_the_logarithm),  cmocka_unit_test(test_a_failed_plan_can_be_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
