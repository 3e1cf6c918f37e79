/*
 * test_adversary_mpi.c - moves of FGM and AWP beside torch, the bits of one rank on any number of them, weights put back bit
 * for bit, and gradients that nothing can be done with.
 *
 * ranks: 1 3
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/comm/mpi_main.h"
#include "worker/adversary.h"

enum { PERIOD = 143 };

static struct device *device;
static struct model *model;
static const struct param_table *table;
static struct shards parts, whole; /* this rank's share, and all */
static struct comm *alone;
static float *wanted, *gradient;

static bool all_train(void *arg, const struct param *param)
{
    (void)arg;
    (void)param;
    return true;
}

static bool head_trains(void *arg, const struct param *param)
{
    (void)arg;
    return param->part == PART_HEAD;
}

static const struct kernels *kernels(void)
{
    return kernels_cpu() != NULL ? kernels_cpu() : kernels_ref();
}

/* The table of words alone is three blocks, so its norm is made of what several ranks own. */
static void open_model(void)
{
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", "bert", "vocab_size", 16384,
                               "hidden_size", 12, "num_hidden_layers", 1, "num_attention_heads", 2, "intermediate_size", 20,
                               "max_position_embeddings", 16);
    struct model_opts opts = {.precision = PRECISION_FP32, .max_tokens = 8, .max_rows = 1, .training = true,
                              .grad_buffers = 1, .dropout = 0, .device = device, .kernels = kernels(),
                              .head = {.pooling = POOL_POOLER, .outputs = 3, .dropout = 0}};
    assert_ok(encoder_config_read(config, "config.json", &opts.encoder));
    json_decref(config);
    assert_ok(model_create(&opts, &model));
    table = model_params(model);
    assert_string_equal(table->params[0].name, "embeddings.word.weight");
    assert_int_equal(table->params[0].elements, 3 * PARAM_BLOCK);
    assert_ok(shards_make(&parts, table->total, PARAM_BLOCK * (int64_t)sizeof(float), rank, ranks));
    assert_ok(shards_make(&whole, table->total, PARAM_BLOCK * (int64_t)sizeof(float), 0, 1));
    assert_ok(comm_group(world, 1, &alone));
    wanted = malloc((size_t)table->total * sizeof *wanted);
    gradient = malloc((size_t)table->total * sizeof *gradient);
    assert_true(wanted != NULL && gradient != NULL);
}

/* Weights and gradient of make_tricks.py, in every tensor anew. */
static void fill(float *weights)
{
    memset(weights, 0, (size_t)table->total * sizeof *weights);
    memset(gradient, 0, (size_t)table->total * sizeof *gradient);
    for (int p = 0; p < table->count; p++)
        for (int64_t i = 0; i < table->params[p].elements; i++) {
            weights[table->params[p].offset + i] = (float)(7 * i % 11 - 5) / 16.0F;
            gradient[table->params[p].offset + i] = (float)(5 * i % 13 - 6) / 64.0F;
        }
}

static struct adversary *open_adversary(enum config_adversarial kind, double eps, double rate, const struct shards *shards,
                                        bool (*trains)(void *, const struct param *))
{
    const struct adversary_opts opts = {.kind = kind, .eps = eps, .rate = rate, .model = model, .kernels = kernels(),
                                        .shards = shards, .trains = trains};
    struct adversary *a;
    assert_ok(adversary_open(&opts, &a));
    return a;
}

static void same_owned(const float *found, const float *right, const char *what)
{
    for (int r = 0; r < parts.ranges; r++)
        for (int64_t i = parts.owned[r].begin; i < parts.owned[r].end; i++)
            if (memcmp(&found[i], &right[i], sizeof *found) != 0)
                fail_msg("%s, element %lld: %.9g, wanted %.9g", what, (long long)i, (double)found[i], (double)right[i]);
}

static const json_t *moved_of(const json_t *entry, int64_t elements)
{
    size_t i;
    const json_t *tensor;
    json_array_foreach(json_object_get(entry, "tensors"), i, tensor) {
        if (json_integer_value(json_object_get(tensor, "elements")) == elements)
            return json_object_get(tensor, "moved");
    }
    return NULL;
}

static void check_moved(const json_t *entry, bool fgm, const float *weights)
{
    for (int p = 0; p < table->count; p++) {
        const struct param *param = &table->params[p];
        const bool moves = fgm ? p == 0 : param->role == PARAM_WEIGHT || param->role == PARAM_EMBEDDING;
        const json_t *moved = moves ? moved_of(entry, param->elements) : NULL;
        assert_true(!moves || moved != NULL);
        for (int64_t i = 0; i < param->elements; i++) {
            const float old = (float)(7 * i % 11 - 5) / 16.0F, got = weights[param->offset + i];
            const double want = moves ? json_number_value(json_array_get(moved, (size_t)(i % PERIOD))) : (double)old;
            if (!(fabs((double)got - want) <= (moves ? 4e-8 * (1.0 + fabs(want)) : 0.0)))
                fail_msg("%s, element %lld: %.9g, wanted %.9g", param->name, (long long)i, (double)got, want);
        }
    }
}

static void check(const json_t *entry)
{
    const bool fgm = strcmp(json_string_value(json_object_get(entry, "kind")), "fgm") == 0;
    const double eps = json_number_value(json_object_get(entry, "eps")), rate = json_number_value(json_object_get(entry, "rate"));
    const enum config_adversarial kind = fgm ? CONFIG_ADVERSARIAL_FGM : CONFIG_ADVERSARIAL_AWP;
    struct adversary *one = open_adversary(kind, eps, rate, &whole, all_train),
                     *share = open_adversary(kind, eps, rate, &parts, all_train);
    float *weights = model_weights(model), *old = malloc((size_t)table->total * sizeof *old);
    bool moved;
    fill(weights);
    memcpy(old, weights, (size_t)table->total * sizeof *old);
    assert_ok(adversary_move(one, alone, gradient, &moved));
    assert_true(moved);
    check_moved(entry, fgm, weights);
    memcpy(wanted, weights, (size_t)table->total * sizeof *wanted);
    for (int64_t i = 0; i < table->total; i++)
        gradient[i] = 0.25F; /* of the second passes */
    adversary_return(one, gradient);
    assert_memory_equal(weights, old, (size_t)table->total * sizeof *old);
    for (int64_t i = 0; i < table->params[0].elements; i++)
        assert_true(gradient[i] == (float)(5 * i % 13 - 6) / 64.0F + 0.25F);

    fill(weights);
    assert_ok(adversary_move(share, world, gradient, &moved));
    assert_true(moved);
    same_owned(weights, wanted, "moved by its owner");
    adversary_return(share, gradient);
    assert_memory_equal(weights, old, (size_t)table->total * sizeof *old);
    adversary_close(one);
    adversary_close(share);
    free(old);
}

static void test_as_torch(void **state)
{
    (void)state;
    json_t *golden;
    const json_t *entry;
    size_t i;
    assert_ok(json_read_file(TEST_DIR "/golden/tricks.json", 1 << 20, &golden));
    json_array_foreach(json_object_get(golden, "moves"), i, entry) check(entry);
    assert_int_equal((int)i, 4);
    json_decref(golden);
}

static void test_frozen_stay(void **state)
{
    (void)state;
    struct adversary *a = open_adversary(CONFIG_ADVERSARIAL_AWP, 0.1, 1, &parts, head_trains);
    float *weights = model_weights(model);
    bool moved;
    fill(weights);
    memcpy(wanted, weights, (size_t)table->total * sizeof *wanted);
    assert_ok(adversary_move(a, world, gradient, &moved));
    assert_true(moved);
    for (int p = 0; p < table->count; p++)
        if (table->params[p].part != PART_HEAD)
            assert_memory_equal(weights + table->params[p].offset, wanted + table->params[p].offset,
                                (size_t)table->params[p].elements * sizeof *weights);
    adversary_return(a, gradient);
    assert_memory_equal(weights, wanted, (size_t)table->total * sizeof *wanted);
    adversary_close(a);
}

/* Nothing to go along, or a number that is none where only one rank sees it: no rank moves anything. */
static void test_not_moved(void **state)
{
    (void)state;
    struct adversary *a = open_adversary(CONFIG_ADVERSARIAL_FGM, 0, 1, &parts, all_train);
    float *weights = model_weights(model);
    bool moved;
    for (int bad = 0; bad < 3; bad++) {
        fill(weights);
        memcpy(wanted, weights, (size_t)table->total * sizeof *wanted);
        if (bad == 0)
            memset(gradient, 0, (size_t)table->total * sizeof *gradient);
        else
            gradient[table->params[table->count - 1].offset] = bad == 1 ? NAN : INFINITY;
        assert_ok(adversary_move(a, world, gradient, &moved));
        assert_false(moved);
        assert_memory_equal(weights, wanted, (size_t)table->total * sizeof *wanted);
    }
    adversary_close(a);
    adversary_close(NULL);
}

/* eps 0 is the kind's own: 1 for FGM. */
static void test_default_eps(void **state)
{
    (void)state;
    float *weights = model_weights(model);
    bool moved;
    for (int i = 0; i < 2; i++) {
        struct adversary *a = open_adversary(CONFIG_ADVERSARIAL_FGM, i == 0 ? 0 : 1, 1, &parts, all_train);
        fill(weights);
        assert_ok(adversary_move(a, world, gradient, &moved));
        if (i == 1)
            same_owned(weights, wanted, "eps 1");
        memcpy(wanted, weights, (size_t)table->total * sizeof *wanted);
        adversary_return(a, gradient);
        adversary_close(a);
    }
}

static void test_close(void **state)
{
    (void)state;
    comm_group_free(alone);
    shards_release(&parts);
    shards_release(&whole);
    model_destroy(model);
    device_close(device);
    free(wanted);
    free(gradient);
}

static void test_open(void **state)
{
    (void)state;
    assert_ok(device_open(DEVICE_CPU, 0, &device));
    open_model();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_open),      MPI_TEST(test_as_torch),    MPI_TEST(test_frozen_stay),
        MPI_TEST(test_not_moved), MPI_TEST(test_default_eps), MPI_TEST(test_close),
    };
    RUN_MPI_TESTS(tests);
}
