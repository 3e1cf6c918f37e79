/* test_optimizer.c - every rule against torch, groups, owned ranges, depth, frozen parameters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "base/json.h"
#include "model/optimizer.h"
#include "tests/support/support.h"

static struct device *device;
static struct kernel_ctx *ctx;

static int open_all(void **state)
{
    (void)state;
    if (device_open(DEVICE_CPU, 0, &device) != STATUS_OK)
        return 1;
    const struct kernel_opts opts = {.device = device, .max_tokens = 1, .max_rows = 1, .max_channels = 1};
    return kernels_ref()->open(&opts, &ctx) != STATUS_OK;
}

static int close_all(void **state)
{
    (void)state;
    kernels_ref()->close(ctx);
    device_close(device);
    return 0;
}

/* A table of four tensors with gaps between them. */
static struct param params[4];

static struct param_table small_table(void)
{
    static const struct param all[4] = {
        {.name = "embeddings.word.weight", .offset = 0, .elements = 70, .role = PARAM_EMBEDDING, .part = PART_EMBEDDINGS},
        {.name = "layer.0.output.bias", .offset = 128, .elements = 5, .role = PARAM_BIAS, .part = PART_LAYER},
        {.name = "layer.0.output.norm.weight", .offset = 192, .elements = 64, .role = PARAM_NORM, .part = PART_LAYER},
        {.name = "head.weight", .offset = 256, .elements = 9, .role = PARAM_WEIGHT, .part = PART_HEAD, .outside = true},
    };
    memcpy(params, all, sizeof params);
    return (struct param_table){.count = 4, .params = params, .total = PARAM_BLOCK, .used = 148};
}

static struct optimizer_opts opts_for(const struct param_table *table, const struct range *owned, int ranges)
{
    return (struct optimizer_opts){
        .params = table, .ctx = ctx, .kernels = kernels_ref(), .device = device, .owned = owned, .ranges = ranges,
        .lr = 1e-2, .head_lr = 3e-2, .weight_decay = 0.1, .head_weight_decay = 0, .beta1 = 0.9, .beta2 = 0.98,
        .eps = 1e-6,
    };
}

static void test_as_torch(void **state)
{
    (void)state;
    json_t *golden;
    assert_ok(json_read_file(TEST_DIR "/golden/loss.json", 1 << 20, &golden));
    const json_t *want = json_object_get(golden, "adamw");
    const struct param_table table = small_table();
    const struct range all = {0, PARAM_BLOCK};
    const struct optimizer_opts opts = opts_for(&table, &all, 1);
    const float start[4] = {0.5f, -1.25f, 3.0f, 0.0f}, slope[4] = {0.1f, -2.0f, 0.0f, 1e-3f};
    float *weights = calloc(PARAM_BLOCK, sizeof *weights), *gradient = calloc(PARAM_BLOCK, sizeof *gradient);
    struct optimizer *z;
    memcpy(weights, start, sizeof start);
    assert_ok(optimizer_open(&opts, &z));
    for (int step = 0; step < 5; step++) {
        for (int i = 0; i < 4; i++)
            gradient[i] = 2 * slope[i] * (float)(step + 1); /* clip halves it */
        assert_int_equal(optimizer_steps(z), step);
        assert_ok(optimizer_step(z, weights, gradient, 1, 0.5f));
        for (size_t i = 0; i < 4; i++) {
            double w = json_number_value(json_array_get(json_array_get(want, (size_t)step), i));
            support_assert_near((double)weights[i], w, 4e-7 * fabs(w) + 1e-8, "weight");
        }
    }
    json_decref(golden);
    optimizer_close(z);
    free(weights);
    free(gradient);
}

static enum optimizer_kind kind_of(const char *name)
{
    static const char *const names[] = {"adamw", "adam", "sgd", "adagrad", "adadelta", "rmsprop", "lamb"};
    int i = 0;
    while (strcmp(names[i], name) != 0)
        i++;
    return (enum optimizer_kind)i;
}

static double real(const json_t *object, const char *name, double fallback)
{
    const json_t *value = json_object_get(object, name);
    return value == NULL ? fallback : json_number_value(value);
}

/* tests/golden/make_optimizers.py: the first tensor is the embedding's beginning, the second the bias. */
static void check_rule(const json_t *golden, const json_t *entry, const struct kernels *kernels)
{
    const struct param_table table = small_table();
    const struct range all = {0, PARAM_BLOCK};
    const json_t *keys = json_object_get(entry, "keys"), *steps = json_object_get(entry, "weights");
    const char *name = json_string_value(json_object_get(entry, "name"));
    struct optimizer_opts opts = opts_for(&table, &all, 1);
    struct kernel_ctx *own;
    const struct kernel_opts kernel_opts = {.device = device, .max_tokens = 1, .max_rows = 1, .max_channels = 1, .training = true};
    assert_ok(kernels->open(&kernel_opts, &own));
    params[0].elements = 7;
    params[1].elements = 3;
    struct param_table two = table;
    two.count = 2;
    two.used = 10;
    opts.params = &two;
    opts.kernels = kernels;
    opts.ctx = own;
    opts.kind = kind_of(name);
    opts.lr = real(golden, "lr", 0);
    opts.weight_decay = real(golden, "decay", 0);
    opts.beta1 = real(keys, "beta1", 0);
    opts.beta2 = real(keys, "beta2", 0);
    opts.eps = real(keys, "eps", 1e-8);
    opts.nesterov = json_is_true(json_object_get(keys, "nesterov"));
    opts.centered = json_is_true(json_object_get(keys, "centered"));
    float *weights = calloc(PARAM_BLOCK, sizeof *weights), *gradient = calloc(PARAM_BLOCK, sizeof *gradient);
    struct optimizer *z;
    assert_ok(optimizer_open(&opts, &z));
    for (size_t i = 0; i < 10; i++)
        weights[i < 7 ? i : 128 + i - 7] = (float)json_number_value(
            json_array_get(json_object_get(golden, i < 7 ? "weight" : "bias"), i < 7 ? i : i - 7));
    for (int step = 0; step < (int)json_array_size(steps); step++) {
        for (int i = 0; i < 10; i++) {
            int t = i < 7 ? 0 : 1, e = i < 7 ? i : i - 7;
            gradient[t == 0 ? e : 128 + e] = (float)((7 * e + 3 * step + 5 * t) % 11 - 5) / 4; /* clip: a quarter */
        }
        assert_ok(optimizer_step(z, weights, gradient, step < 8 ? 1 : 0.5, 0.25f));
        for (size_t i = 0; i < 10; i++) {
            double want = json_number_value(json_array_get(json_array_get(steps, (size_t)step), i));
            double got = (double)weights[i < 7 ? i : 128 + i - 7];
            if (!(fabs(got - want) <= 2e-6 * (0.1 + fabs(want))))
                fail_msg("%s of %s, step %d, element %zu: %.9g, wanted %.9g", name, kernels->name, step, i, got, want);
        }
    }
    optimizer_close(z);
    kernels->close(own);
    free(weights);
    free(gradient);
}

static void test_rules(void **state)
{
    (void)state;
    json_t *golden;
    const json_t *entry;
    size_t i;
    assert_ok(json_read_file(TEST_DIR "/golden/optimizers.json", 1 << 20, &golden));
    json_array_foreach(json_object_get(golden, "cases"), i, entry) {
        check_rule(golden, entry, kernels_ref());
        if (kernels_cpu() != NULL)
            check_rule(golden, entry, kernels_cpu());
    }
    assert_int_equal((int)i, 12);
    json_decref(golden);
}

/* Rates and decay by group: one step from zero state moves each weight by lr sign(g), after decay. */
static void test_groups(void **state)
{
    (void)state;
    const struct param_table table = small_table();
    const struct range all = {0, PARAM_BLOCK};
    const struct optimizer_opts opts = opts_for(&table, &all, 1);
    float *weights = calloc(PARAM_BLOCK, sizeof *weights), *gradient = calloc(PARAM_BLOCK, sizeof *gradient);
    struct optimizer *z;
    struct str text = {0};
    for (int i = 0; i < PARAM_BLOCK; i++) {
        weights[i] = 2;
        gradient[i] = 1;
    }
    assert_ok(optimizer_open(&opts, &z));
    assert_ok(optimizer_step(z, weights, gradient, 0.5, 1));
    support_assert_near((double)weights[69], 2 * (1 - 0.005 * 0.1) - 0.005, 1e-6, "embedding: decays");
    support_assert_near((double)weights[132], 2 - 0.005, 1e-6, "bias");
    support_assert_near((double)weights[192], 2 - 0.005, 1e-6, "norm");
    support_assert_near((double)weights[264], 2 - 0.015, 1e-6, "head");
    assert_true(weights[70] == 2 && weights[127] == 2 && weights[133] == 2 && weights[265] == 2); /* padding */
    assert_ok(optimizer_describe(&table, &opts, &text));
    support_assert_contains(text.p, "encoder, decays           1             70         0.01          0.1");
    support_assert_contains(text.p, "encoder, no decay         2             69         0.01            0");
    support_assert_contains(text.p, "head, decays              1              9         0.03            0");
    str_release(&text);
    optimizer_close(z);
    free(weights);
    free(gradient);
}

/* Any split of the space over owners gives the same bits as one owner of all; others' elements are not touched. */
static void test_owned_ranges(void **state)
{
    (void)state;
    const struct param_table table = small_table();
    const struct range all = {0, PARAM_BLOCK};
    static const struct range parts[3][2] = {{{0, 13}, {130, 131}}, {{13, 130}, {260, 300}}, {{131, 260}, {300, PARAM_BLOCK}}};
    struct optimizer_opts opts = opts_for(&table, &all, 1);
    struct optimizer *whole, *part[3];
    float *weights[2], *gradient = malloc(PARAM_BLOCK * sizeof *gradient);
    for (int k = 0; k < 2; k++) {
        weights[k] = malloc(PARAM_BLOCK * sizeof(float));
        for (int i = 0; i < PARAM_BLOCK; i++)
            weights[k][i] = (float)(i % 17) * 0.25f;
    }
    assert_ok(optimizer_open(&opts, &whole));
    for (int p = 0; p < 3; p++) {
        opts = opts_for(&table, parts[p], 2);
        assert_ok(optimizer_open(&opts, &part[p]));
    }
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < PARAM_BLOCK; i++)
            gradient[i] = (float)((i * 7 + step) % 23 - 11) * 0.125f;
        assert_ok(optimizer_step(whole, weights[0], gradient, 1, 0.75f));
        for (int p = 0; p < 3; p++)
            assert_ok(optimizer_step(part[p], weights[1], gradient, 1, 0.75f));
        assert_memory_equal(weights[0], weights[1], PARAM_BLOCK * sizeof(float));
    }

    /* State, moved from the parts to the whole and on: the same. */
    float a[117], b[117];
    for (int which = 0; which < 2; which++) {
        assert_ok(optimizer_get(whole, which, 13, 117, a));
        assert_ok(optimizer_get(part[1], which, 13, 117, b));
        assert_memory_equal(a, b, sizeof a);
        assert_true(a[0] != 0 || a[1] != 0);
        for (int i = 0; i < 117; i++)
            a[i] = (float)i;
        assert_ok(optimizer_put(part[1], which, 13, 117, a));
        assert_ok(optimizer_get(part[1], which, 20, 3, b));
        assert_true(b[0] == 7 && b[2] == 9);
        assert_ok(optimizer_get(whole, which, 20, 3, b));
        assert_true(b[0] != 7);
    }
    assert_fails(optimizer_get(part[1], 0, 12, 3, a), STATUS_ARG, "element 12");
    assert_fails(optimizer_get(part[1], 0, 129, 2, a), STATUS_ARG, "element 130");
    assert_fails(optimizer_get(part[1], 2, 20, 1, a), STATUS_ARG, "state 2");
    assert_ok(optimizer_get(part[1], 0, 500, 0, a));
    optimizer_set_steps(whole, 41);
    assert_int_equal(optimizer_steps(whole), 41);
    for (int p = 0; p < 3; p++)
        optimizer_close(part[p]);
    optimizer_close(whole);
    free(weights[0]);
    free(weights[1]);
    free(gradient);
}

/* The other rules: any split of the space over owners gives the same bits, from one segment or many. */
static void test_owned_ranges_of_rules(void **state)
{
    (void)state;
    const struct param_table table = small_table();
    const struct range all = {0, PARAM_BLOCK};
    static const struct range parts[2][2] = {{{0, 13}, {130, 131}}, {{13, 130}, {131, PARAM_BLOCK}}};
    for (int kind = OPTIMIZER_ADAM; kind < OPTIMIZER_LAMB; kind++) {
        struct optimizer *whole, *part[2];
        float *weights[2], *gradient = malloc(PARAM_BLOCK * sizeof *gradient);
        for (int k = 0; k < 2; k++) {
            weights[k] = malloc(PARAM_BLOCK * sizeof(float));
            for (int i = 0; i < PARAM_BLOCK; i++)
                weights[k][i] = (float)(i % 17) * 0.25f;
        }
        for (int p = -1; p < 2; p++) {
            struct optimizer_opts opts = opts_for(&table, p < 0 ? &all : parts[p], p < 0 ? 1 : 2);
            opts.kind = (enum optimizer_kind)kind;
            opts.kernels = kernels_cpu() == NULL ? kernels_ref() : kernels_cpu();
            opts.centered = true;
            assert_ok(optimizer_open(&opts, p < 0 ? &whole : &part[p]));
        }
        for (int step = 0; step < 3; step++) {
            for (int i = 0; i < PARAM_BLOCK; i++)
                gradient[i] = (float)((i * 7 + step) % 23 - 11) * 0.137f;
            assert_ok(optimizer_step(whole, weights[0], gradient, 1, 0.75f));
            for (int p = 0; p < 2; p++)
                assert_ok(optimizer_step(part[p], weights[1], gradient, 1, 0.75f));
            assert_memory_equal(weights[0], weights[1], PARAM_BLOCK * sizeof(float));
        }
        optimizer_close(whole);
        for (int p = 0; p < 2; p++)
            optimizer_close(part[p]);
        free(weights[0]);
        free(weights[1]);
        free(gradient);
    }
}

/* SGD without decay moves each weight by its own rate. */
static void test_depth_and_frozen(void **state)
{
    (void)state;
    static const struct param all[6] = {
        {.name = "embeddings.word.weight", .offset = 0, .elements = 10, .role = PARAM_EMBEDDING, .part = PART_EMBEDDINGS, .layer = -1},
        {.name = "layer.0.w", .offset = 64, .elements = 10, .role = PARAM_WEIGHT, .part = PART_LAYER, .layer = 0},
        {.name = "layer.1.w", .offset = 128, .elements = 10, .role = PARAM_WEIGHT, .part = PART_LAYER, .layer = 1},
        {.name = "layer.2.w", .offset = 192, .elements = 10, .role = PARAM_BIAS, .part = PART_LAYER, .layer = 2},
        {.name = "pooler.w", .offset = 256, .elements = 10, .role = PARAM_WEIGHT, .part = PART_POOLER, .layer = -1},
        {.name = "head.w", .offset = 320, .elements = 10, .role = PARAM_WEIGHT, .part = PART_HEAD, .layer = -1, .outside = true},
    };
    static const double want[2][6] = {{0.0625, 0.125, 0.25, 0.5, 1, 3}, {0, 0, 0.25, 0.5, 1, 3}};
    struct param some[6];
    memcpy(some, all, sizeof some);
    const struct param_table table = {.count = 6, .params = some, .total = PARAM_BLOCK, .used = 60};
    const struct range owned[2] = {{0, 70}, {70, PARAM_BLOCK}};
    for (int frozen = 0; frozen < 2; frozen++) {
        struct optimizer_opts opts = opts_for(&table, owned, 2);
        float *weights = calloc(PARAM_BLOCK, sizeof *weights), *gradient = calloc(PARAM_BLOCK, sizeof *gradient);
        struct optimizer *z;
        struct str text = {0};
        opts.kind = OPTIMIZER_SGD;
        opts.beta1 = opts.weight_decay = 0;
        opts.lr = 1;
        opts.head_lr = 3;
        opts.layer_decay = 0.5;
        opts.freeze_embeddings = frozen == 1;
        opts.freeze_layers = frozen;
        for (int i = 0; i < PARAM_BLOCK; i++)
            gradient[i] = 1;
        assert_ok(optimizer_open(&opts, &z));
        assert_ok(optimizer_mask(z, gradient));
        assert_ok(optimizer_step(z, weights, gradient, 1, 1));
        for (int p = 0; p < 6; p++) {
            for (int e = 0; e < 10; e++)
                support_assert_near(-(double)weights[some[p].offset + e], want[frozen][p], 1e-7, some[p].name);
            assert_true(gradient[some[p].offset + 3] == (want[frozen][p] == 0 ? 0 : 1));
        }
        assert_ok(optimizer_describe(&table, &opts, &text));
        support_assert_contains(text.p, "rates by depth: embeddings 0.0625, layer 0 0.125, layer 1 0.25, layer 2 0.5");
        if (frozen == 1)
            support_assert_contains(text.p, "frozen: embeddings and 1 of 3 layers, 20 parameters");
        str_release(&text);
        optimizer_close(z);
        free(weights);
        free(gradient);
    }
}

static void test_states(void **state)
{
    (void)state;
    static const struct {
        struct optimizer_opts opts;
        const char *names[4];
    } cases[] = {
        {{.kind = OPTIMIZER_ADAMW}, {"m", "v"}},
        {{.kind = OPTIMIZER_ADAM}, {"m", "v"}},
        {{.kind = OPTIMIZER_LAMB}, {"m", "v"}},
        {{.kind = OPTIMIZER_SGD}, {NULL}},
        {{.kind = OPTIMIZER_SGD, .beta1 = 0.9}, {"momentum"}},
        {{.kind = OPTIMIZER_ADAGRAD, .beta1 = 0.9}, {"square"}},
        {{.kind = OPTIMIZER_ADADELTA}, {"square", "delta"}},
        {{.kind = OPTIMIZER_RMSPROP}, {"square"}},
        {{.kind = OPTIMIZER_RMSPROP, .centered = true}, {"square", "mean"}},
        {{.kind = OPTIMIZER_RMSPROP, .beta1 = 0.9, .centered = true}, {"square", "momentum", "mean"}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int n = 0;
        for (; cases[c].names[n] != NULL; n++)
            assert_string_equal(optimizer_state_name(&cases[c].opts, n), cases[c].names[n]);
        assert_int_equal(optimizer_states(&cases[c].opts), n);
    }
}

static void test_nothing_owned(void **state)
{
    (void)state;
    const struct param_table table = small_table();
    const struct optimizer_opts opts = opts_for(&table, NULL, 0);
    struct optimizer *z;
    float one = 1;
    assert_ok(optimizer_open(&opts, &z));
    assert_ok(optimizer_step(z, &one, &one, 1, 1));
    assert_true(one == 1);
    optimizer_close(z);
}

static void test_refused(void **state)
{
    (void)state;
    struct param_table table = small_table();
    struct range owned[2] = {{0, 10}, {5, 20}};
    struct optimizer_opts opts = opts_for(&table, owned, 2);
    struct optimizer *z;
    assert_fails(optimizer_open(&opts, &z), STATUS_ARG, "owned range 1");
    owned[1] = (struct range){10, PARAM_BLOCK + 1};
    assert_fails(optimizer_open(&opts, &z), STATUS_ARG, "owned range 1");
    owned[1].end = PARAM_BLOCK;
    params[2].role = (enum param_role)9;
    assert_fails(optimizer_open(&opts, &z), STATUS_INTERNAL, "layer.0.output.norm.weight is in 0 optimizer groups");
    assert_null(z);
    table = small_table();
    params[1].offset = 69;
    assert_fails(optimizer_open(&opts, &z), STATUS_INTERNAL, "layer.0.output.bias takes elements 69 to 74");
    table = small_table();
    table.used++;
    assert_fails(optimizer_open(&opts, &z), STATUS_INTERNAL, "hold 148 elements, the model 149");
    table = small_table();
    opts.beta2 = 1;
    assert_fails(optimizer_open(&opts, &z), STATUS_ARG, "betas 0.9 and 1");
    opts.beta2 = 0.9;
    opts.lr = NAN;
    assert_fails(optimizer_open(&opts, &z), STATUS_ARG, "lr nan");
    opts.lr = 1;
    opts.layer_decay = 1.5;
    assert_fails(optimizer_open(&opts, &z), STATUS_ARG, "layer decay 1.5, wanted 0 to 1");
    opts.layer_decay = 0;
    struct kernels few = *kernels_ref();
    few.update = NULL;
    opts.kernels = &few;
    opts.kind = OPTIMIZER_LAMB;
    assert_fails(optimizer_open(&opts, &z), STATUS_CONFIG, "has no LAMB, wanted AdamW");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_torch),      cmocka_unit_test(test_groups), cmocka_unit_test(test_rules),
        cmocka_unit_test(test_depth_and_frozen), cmocka_unit_test(test_states),
        cmocka_unit_test(test_owned_ranges_of_rules),  cmocka_unit_test(test_owned_ranges),
        cmocka_unit_test(test_nothing_owned), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
