/* test_samples.c - several samples of the head's dropout: the gradient of the mean loss against finite differences, what one
 * sample gives, pieces of a cut, and what is refused. */
#include <math.h>
#include <string.h>

#include "base/device.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/threads.h"
#include "model/model.h"
#include "tests/support/support.h"

enum { ROWS = 5, OUTPUTS = 3, TOKENS = 21 };

static struct device *device;
static const int32_t begin[ROWS + 1] = {0, 3, 4, 10, 15, TOKENS}, labels[ROWS] = {0, 2, 1, 1, 0};
static int32_t ids[TOKENS];
static const int64_t row[ROWS] = {7, 3, 12, 900, 4};

static int open_device(void **state)
{
    (void)state;
    threads_set(1);
    for (int t = 0; t < TOKENS; t++)
        ids[t] = (int32_t)random_below(3, (uint64_t)t, 40);
    return device_open(DEVICE_CPU, 0, &device) != STATUS_OK;
}

static int close_device(void **state)
{
    (void)state;
    device_close(device);
    return 0;
}

static struct model_opts opts_for(const struct kernels *kernels, enum pooling pooling, int samples)
{
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", "bert", "vocab_size", 40, "hidden_size",
                               12, "num_hidden_layers", 1, "num_attention_heads", 2, "intermediate_size", 20,
                               "max_position_embeddings", 16);
    struct model_opts opts = {.precision = PRECISION_FP32, .max_tokens = 64, .max_rows = 8, .training = true,
                              .grad_buffers = 1, .dropout = -1, .seed = 5, .device = device, .kernels = kernels,
                              .head = {.pooling = pooling, .outputs = OUTPUTS, .dropout = 0.4F, .samples = samples}};
    assert_ok(encoder_config_read(config, "config.json", &opts.encoder));
    opts.encoder.hidden_dropout = opts.encoder.attention_dropout = 0;
    opts.encoder.initializer_range = 0.3F;
    json_decref(config);
    return opts;
}

static struct model *make(const struct kernels *kernels, enum pooling pooling, int samples)
{
    const struct model_opts opts = opts_for(kernels, pooling, samples);
    struct model *model;
    assert_ok(model_create(&opts, &model));
    assert_ok(model_init(model, 0, model_params(model)->count, 9));
    return model;
}

static double loss_of(struct model *model, int64_t step)
{
    const struct model_input in = {.tokens = TOKENS, .rows = ROWS, .max_row = 6, .ids = ids, .begin = begin, .row = row};
    const struct loss_opts opts = {.kind = LOSS_CROSS_ENTROPY, .outputs = OUTPUTS};
    const struct loss_target target = {.label = labels};
    double loss[ROWS], sum = 0;
    assert_ok(model_forward(model, &in, true, step, NULL));
    assert_ok(model_loss(model, &opts, &target, ROWS, 1, 2));
    double slots[ROWS + 2];
    assert_ok(model_losses(model, ROWS + 2, slots));
    memcpy(loss, slots + 2, sizeof loss);
    for (int b = 0; b < ROWS; b++)
        sum += loss[b];
    return sum / ROWS;
}

static void backward(struct model *model, int pieces)
{
    const int32_t token[3] = {0, pieces == 1 ? TOKENS : begin[2], TOKENS}, rows[3] = {0, pieces == 1 ? ROWS : 2, ROWS};
    const int32_t to[2] = {0, 0}, merge[3] = {0, 0, 0};
    const bool add[2] = {false, true};
    float *buffer = model_gradient(model, 0);
    const struct grad_cut cut = {.pieces = pieces, .token = token, .row = rows, .to = to, .add = add, .merge_begin = merge,
                                 .buffer = &buffer};
    assert_ok(model_backward(model, NULL, &cut, NULL, NULL));
}

static void check_differences(const struct kernels *kernels, enum pooling pooling, int samples)
{
    struct model *model = make(kernels, pooling, samples);
    const struct param_table *table = model_params(model);
    float *weights = model_weights(model);
    (void)loss_of(model, 4);
    backward(model, 1);
    int checked = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->params[i];
        for (int k = 0; k < 3; k++) {
            const int64_t at = p->offset + (int64_t)random_below(11, (uint64_t)(i * 3 + k), (uint64_t)p->elements);
            const float old = weights[at], h = 2e-2F;
            double value[2];
            for (int side = 0; side < 2; side++) {
                weights[at] = old + (side == 0 ? -h : h);
                assert_ok(model_weights_changed(model));
                value[side] = loss_of(model, 4);
            }
            weights[at] = old;
            support_assert_near((double)model_gradient(model, 0)[at], (value[1] - value[0]) / (2.0 * (double)h), 4e-4, p->name);
            checked++;
        }
    }
    assert_true(checked > 50);
    model_destroy(model);
}

static void test_differences(void **state)
{
    (void)state;
    check_differences(kernels_ref(), POOL_POOLER, 3);
    check_differences(kernels_ref(), POOL_MEAN, 2);
    if (kernels_cpu() != NULL) {
        check_differences(kernels_cpu(), POOL_POOLER, 5);
        check_differences(kernels_cpu(), POOL_CLS, 3);
    }
}

/* Sample 0 is the one that a model with a single sample draws: the mean of two is not its loss, and twice the mean less it is
 * that of another mask. Other steps draw other masks. */
static void test_samples_differ(void **state)
{
    (void)state;
    struct model *one = make(kernels_ref(), POOL_POOLER, 1), *two = make(kernels_ref(), POOL_POOLER, 2);
    const double a = loss_of(one, 1), mean = loss_of(two, 1), other = 2 * mean - a;
    assert_true(fabs(a - mean) > 1e-6 && fabs(other - a) > 1e-6 && other > 0);
    assert_true(fabs(loss_of(two, 2) - mean) > 1e-6);
    assert_true(loss_of(two, 1) == mean);
    model_destroy(one);
    model_destroy(two);
}

static void test_cut(void **state)
{
    (void)state;
    struct model *model = make(kernels_ref(), POOL_POOLER, 4);
    const int64_t total = model_params(model)->total;
    float *whole;
    assert_ok(mem_alloc((size_t)total, sizeof *whole, "a gradient", &whole));
    (void)loss_of(model, 3);
    backward(model, 1);
    memcpy(whole, model_gradient(model, 0), (size_t)total * sizeof *whole);
    (void)loss_of(model, 3);
    backward(model, 2);
    for (int64_t i = 0; i < total; i++)
        support_assert_near((double)model_gradient(model, 0)[i], (double)whole[i], 1e-6, "an element in two pieces");
    mem_free(whole);
    model_destroy(model);
}

/* Halves of samples are widened, added and rounded once: the gradient stays near that of floats. */
static void test_halves(void **state)
{
    (void)state;
    struct model_opts opts = opts_for(kernels_ref(), POOL_POOLER, 3);
    struct model *wide = make(kernels_ref(), POOL_POOLER, 3), *half;
    const int64_t total = model_params(wide)->total;
    double error = 0, size = 0;
    opts.precision = PRECISION_BF16;
    assert_ok(model_create(&opts, &half));
    assert_ok(model_init(half, 0, model_params(half)->count, 9));
    support_assert_near(loss_of(half, 4), loss_of(wide, 4), 2e-2, "the loss in bf16");
    backward(half, 1);
    backward(wide, 1);
    for (int64_t i = 0; i < total; i++) {
        const double a = (double)model_gradient(half, 0)[i], b = (double)model_gradient(wide, 0)[i];
        error += (a - b) * (a - b);
        size += b * b;
    }
    support_assert_near(sqrt(error / size), 0, 2e-2, "the gradient in bf16");
    model_destroy(half);
    model_destroy(wide);
}

static void test_refused(void **state)
{
    (void)state;
    struct model *model = make(kernels_ref(), POOL_POOLER, 2);
    const struct model_input in = {.tokens = TOKENS, .rows = ROWS, .max_row = 6, .ids = ids, .begin = begin, .row = row};
    float logits[ROWS * OUTPUTS], plain[ROWS * OUTPUTS];
    assert_fails(model_forward(model, &in, true, 1, logits), STATUS_ARG, "2 samples");
    assert_ok(model_forward(model, &in, false, 1, logits)); /* evaluation knows nothing of samples */
    struct model *one = make(kernels_ref(), POOL_POOLER, 1);
    assert_ok(model_forward(one, &in, false, 1, plain));
    assert_memory_equal(logits, plain, sizeof plain);
    model_destroy(one);
    struct model_opts still = opts_for(kernels_ref(), POOL_POOLER, 2);
    still.dropout = 0;
    assert_fails(model_create(&still, &one), STATUS_CONFIG, "without dropout");
    model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_samples_differ),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
