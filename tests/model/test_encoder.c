/*
 * test_encoder.c - the whole model against transformers' numbers (tests/golden/bert.json and families.json, made by
 * make_bert.py and make_families.py), against finite differences, and against itself: recomputation, first tokens only, other rows, and cuts change no bit.
 */
#include <math.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/threads.h"
#include "model/loss.h"
#include "model/model.h"
#include "model/model_impl.h"
#include "model/lr_schedule.h"
#include "model/optimizer.h"
#include "tests/support/support.h"

enum { MAX_ROWS = 16, MAX_TOKENS = 512, PROJECTIONS = 8 };

static struct device *device;
static json_t *golden, *families;

static int open_all(void **state)
{
    (void)state;
    threads_set(1); /* the models are tiny: threads would only wait for each other, long on a busy machine */
    return device_open(DEVICE_CPU, 0, &device) != STATUS_OK ||
           json_read_file(TEST_DIR "/golden/bert.json", (size_t)1 << 24, &golden) != STATUS_OK ||
           json_read_file(TEST_DIR "/golden/families.json", (size_t)1 << 24, &families) != STATUS_OK;
}

static int close_all(void **state)
{
    (void)state;
    json_decref(golden);
    json_decref(families);
    device_close(device);
    return 0;
}

/* ---- make_bert.py's formulas */

static uint64_t name_hash(const char *text)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *text != '\0'; text++)
        h = (h ^ (uint8_t)*text) * 0x100000001B3u;
    return h;
}

static float formula(uint64_t hash, bool norm, int64_t i)
{
    double v = (double)(random_mix(hash + (uint64_t)i) >> 40) / (double)(1 << 24) - 0.5;
    return (float)(v * 0.25 + (norm ? 1.0 : 0.0));
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void fill_by_formula(struct model *model)
{
    const struct param_table *table = model_params(model);
    float *weights = model_weights(model);
    for (int i = 0; i < table->names; i++) {
        const struct param_file_name *f = &table->file[i];
        const uint64_t hash = name_hash(f->name);
        float *to = weights + table->params[f->param].offset + f->first;
        for (int64_t e = 0; e < f->elements; e++)
            to[e] = formula(hash, ends_with(f->name, "LayerNorm.weight") || ends_with(f->name, "layer_norm.weight"), e);
    }
    assert_ok(model_weights_changed(model));
}

/* ---- batches */

struct rows_of {
    struct model_input in;
    int32_t ids[MAX_TOKENS], types[MAX_TOKENS], begin[MAX_ROWS + 1], label[MAX_ROWS];
    int64_t row[MAX_ROWS];
};

static void batch_start(struct rows_of *b)
{
    memset(b, 0, sizeof *b);
    b->in = (struct model_input){.ids = b->ids, .types = b->types, .begin = b->begin, .row = b->row};
}

static void batch_add(struct rows_of *b, const json_t *row, int64_t id)
{
    const json_t *ids = json_object_get(row, "ids"), *types = json_object_get(row, "types");
    int at = b->in.rows++, n = (int)json_array_size(ids);
    for (int t = 0; t < n; t++) {
        b->ids[b->in.tokens + t] = (int32_t)json_integer_value(json_array_get(ids, (size_t)t));
        b->types[b->in.tokens + t] = (int32_t)json_integer_value(json_array_get(types, (size_t)t));
    }
    b->in.tokens += n;
    b->begin[at + 1] = (int32_t)b->in.tokens;
    b->row[at] = id;
    b->label[at] = (int32_t)json_integer_value(json_object_get(row, "label"));
    b->in.max_row = n > b->in.max_row ? n : b->in.max_row;
}

static void batch_all(struct rows_of *b, const json_t *rows)
{
    batch_start(b);
    for (size_t r = 0; r < json_array_size(rows); r++)
        batch_add(b, json_array_get(rows, r), 1000 + (int64_t)r);
}

/* One piece that takes the whole batch and writes buffer 0. */
struct whole_cut {
    int32_t token[2], row[2], to[1], merge[2];
    bool add[1];
    float *buffer[1];
    struct grad_cut cut;
};

static const struct grad_cut *cut_whole(struct whole_cut *w, struct model *model, const struct rows_of *b)
{
    *w = (struct whole_cut){.token = {0, (int32_t)b->in.tokens}, .row = {0, b->in.rows}};
    w->buffer[0] = model_gradient(model, 0);
    w->cut = (struct grad_cut){.pieces = 1, .token = w->token, .row = w->row, .to = w->to, .add = w->add,
                               .merge_begin = w->merge, .buffer = w->buffer};
    return &w->cut;
}

/* ---- models */

static struct model_opts base_opts(const struct kernels *kernels)
{
    return (struct model_opts){
        .precision = PRECISION_FP32, .max_tokens = MAX_TOKENS, .max_rows = MAX_ROWS, .training = true,
        .grad_buffers = 1, .dropout = 0, .seed = 7, .device = device, .kernels = kernels,
    };
}

static enum pooling pooling_named(const char *name)
{
    static const char *const names[] = {"cls", "pooler", "mean", "max"};
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0)
            return (enum pooling)i;
    fail_msg("pooling %s", name);
    return POOL_CLS;
}

static void read_case(const json_t *entry, struct model_opts *opts)
{
    const json_t *config = json_object_get(entry, "config");
    assert_ok(encoder_config_read(config, "config.json", &opts->encoder));
    opts->head.outputs = (int)json_integer_value(json_object_get(config, "num_labels"));
    opts->head.pooling = pooling_named(json_string_value(json_object_get(entry, "pooling")));
    opts->head.dropout = -1;
}

static const json_t *case_named(const char *name)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(golden, "cases"), i, entry)
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return entry;
    fail_msg("no case %s", name);
    return NULL;
}

/* Forward and backward of mean cross-entropy; returns the loss. */
static double run_step(struct model *model, const struct rows_of *b, int outputs, const struct grad_cut *cut,
                       int64_t step, float *logits)
{
    const struct loss_opts loss_opts = {.kind = LOSS_CROSS_ENTROPY, .outputs = outputs};
    const struct loss_target target = {.label = b->label};
    float dlogits[MAX_ROWS * 8];
    double loss[MAX_ROWS], sum = 0;
    assert_ok(model_forward(model, &b->in, true, step, logits));
    assert_ok(loss_compute(&loss_opts, &target, b->in.rows, logits, b->in.rows, 1, loss, dlogits));
    assert_ok(model_backward(model, dlogits, cut, NULL, NULL));
    for (int r = 0; r < b->in.rows; r++)
        sum += loss[r];
    return sum / b->in.rows;
}

/* ---- transformers */

static double real_at(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

static void check_gradient(const json_t *entry, const struct param_file_name *f, const float *g)
{
    const json_t *want = json_object_get(json_object_get(entry, "gradients"), f->name);
    assert_non_null(want);
    double norm = json_number_value(json_object_get(want, "norm")), bound = 1e-4 * norm + 1e-7, square = 0, error = 0;
    for (int64_t e = 0; e < f->elements; e++)
        square += (double)g[e] * (double)g[e];
    support_assert_near(sqrt(square), norm, bound, f->name);
    for (int k = 0; k < PROJECTIONS; k++) {
        char name[160];
        double sum = 0;
        (void)snprintf(name, sizeof name, "%s#%d", f->name, k);
        const uint64_t hash = name_hash(name);
        for (int64_t e = 0; e < f->elements; e++)
            sum += (double)g[e] * ((random_mix(hash + (uint64_t)e) & 1) != 0 ? 1.0 : -1.0);
        double d = sum - real_at(json_object_get(want, "projections"), (size_t)k);
        error += d * d / PROJECTIONS;
    }
    support_assert_near(sqrt(error), 0, bound, f->name);
    support_assert_near((double)g[0], real_at(json_object_get(want, "ends"), 0), bound, f->name);
    support_assert_near((double)g[f->elements - 1], real_at(json_object_get(want, "ends"), 1), bound, f->name);
}

static void check_case(const json_t *entry, const struct kernels *kernels, bool recompute)
{
    struct model_opts opts = base_opts(kernels);
    struct model *model;
    struct rows_of b;
    struct whole_cut w;
    float logits[MAX_ROWS * 8];
    read_case(entry, &opts);
    print_message("%s%s\n", json_string_value(json_object_get(entry, "name")), recompute ? ", recomputed" : "");
    opts.recompute = recompute;
    assert_ok(model_create(&opts, &model));
    fill_by_formula(model);
    batch_all(&b, json_object_get(entry, "rows"));
    const struct param_table *table = model_params(model);
    const int outputs = opts.head.outputs;
    double loss = run_step(model, &b, outputs, cut_whole(&w, model, &b), 1, logits);
    support_assert_near(loss, json_number_value(json_object_get(entry, "loss")), 1e-5, "loss");
    for (int r = 0; r < b.in.rows; r++)
        for (int c = 0; c < outputs; c++)
            support_assert_near((double)logits[r * outputs + c],
                                real_at(json_array_get(json_object_get(entry, "logits"), (size_t)r), (size_t)c), 1e-5,
                                "logit");
    assert_int_equal((int)json_object_size(json_object_get(entry, "gradients")), table->names);
    for (int i = 0; i < table->names; i++)
        check_gradient(entry, &table->file[i],
                       model_gradient(model, 0) + table->params[table->file[i].param].offset + table->file[i].first);
    model_destroy(model);
}

static void check_all_cases(const struct kernels *kernels)
{
    size_t i;
    const json_t *entry;
    if (kernels == NULL)
        skip();
    json_array_foreach(json_object_get(golden, "cases"), i, entry) {
        check_case(entry, kernels, false);
        check_case(entry, kernels, true);
    }
    assert_int_equal((int)i, 6);
    json_array_foreach(json_object_get(families, "cases"), i, entry) {
        check_case(entry, kernels, false);
        check_case(entry, kernels, true);
    }
    assert_int_equal((int)i, 14);
}

static void test_transformers_ref(void **state)
{
    (void)state;
    check_all_cases(kernels_ref());
}

static void test_transformers_cpu(void **state)
{
    (void)state;
    check_all_cases(kernels_cpu());
}

/* 50 steps with clipping and a linear schedule: every loss and gradient norm. */
static void check_training(const struct kernels *kernels)
{
    const json_t *entry = json_object_get(golden, "training"), *rows = json_object_get(entry, "rows");
    struct model_opts opts = base_opts(kernels);
    struct model *model;
    struct optimizer *optimizer;
    read_case(entry, &opts);
    assert_ok(model_create(&opts, &model));
    fill_by_formula(model);
    const int64_t total = model_params(model)->total, steps = json_integer_value(json_object_get(entry, "steps"));
    const int64_t warmup = json_integer_value(json_object_get(entry, "warmup"));
    const double lr = json_number_value(json_object_get(entry, "lr"));
    const struct range owned = {0, total};
    const struct optimizer_opts optimizer_opts = {
        .params = model_params(model), .ctx = model_kernel_ctx(model), .kernels = kernels, .device = device,
        .owned = &owned, .ranges = 1, .lr = lr, .head_lr = lr, .weight_decay = 0.01, .head_weight_decay = 0.01,
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
    };
    assert_ok(optimizer_open(&optimizer_opts, &optimizer));
    double *squares = malloc((size_t)(total / PARAM_BLOCK) * sizeof *squares);
    for (int64_t s = 0; s < steps; s++) {
        struct rows_of b;
        struct whole_cut w;
        float logits[MAX_ROWS * 8];
        batch_start(&b);
        for (int64_t i = 0; i < json_integer_value(json_object_get(entry, "batch_rows")); i++) {
            int64_t r = (5 * s + 3 * i) % (int64_t)json_array_size(rows);
            batch_add(&b, json_array_get(rows, (size_t)r), r);
        }
        double loss = run_step(model, &b, opts.head.outputs, cut_whole(&w, model, &b), s, logits), square = 0;
        support_assert_near(loss, real_at(json_object_get(entry, "losses"), (size_t)s), 1e-4, "loss of a step");
        assert_ok(kernels->square_sums(model_kernel_ctx(model), model_gradient(model, 0), &(struct range){0, total}, 1, PARAM_BLOCK, squares));
        for (int64_t i = 0; i < total / PARAM_BLOCK; i++)
            square += squares[i];
        support_assert_near(sqrt(square), real_at(json_object_get(entry, "norms"), (size_t)s), 1e-3, "gradient norm");
        double clip = fmin(1.0, 1.0 / (sqrt(square) + 1e-6));
        assert_ok(optimizer_step(optimizer, model_weights(model), model_gradient(model, 0),
                                 lr_schedule_factor(&(struct lr_schedule){.warmup = warmup, .total = steps, .start = 1}, s), (float)clip));
        assert_ok(model_weights_changed(model));
    }
    free(squares);
    optimizer_close(optimizer);
    model_destroy(model);
}

static void test_training_ref(void **state)
{
    (void)state;
    check_training(kernels_ref());
}

static void test_training_cpu(void **state)
{
    (void)state;
    if (kernels_cpu() == NULL)
        skip();
    check_training(kernels_cpu());
}

/* ---- against itself, with dropout: equal bits */

struct outcome {
    float logits[MAX_ROWS * 8];
    float *gradient; /* (total) */
    int64_t total;
};

static struct outcome outcome_of(const struct model_opts *opts, const struct rows_of *b)
{
    struct outcome o = {0};
    struct model *model;
    struct whole_cut w;
    assert_ok(model_create(opts, &model));
    fill_by_formula(model);
    (void)run_step(model, b, opts->head.outputs, cut_whole(&w, model, b), 3, o.logits);
    o.total = model_params(model)->total;
    o.gradient = malloc((size_t)o.total * sizeof(float));
    memcpy(o.gradient, model_gradient(model, 0), (size_t)o.total * sizeof(float));
    model_destroy(model);
    return o;
}

static void assert_same_floats(const float *a, const float *b, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: element %lld is %.9g and %.9g", what, (long long)i, (double)a[i], (double)b[i]);
}

static void check_recompute(const struct kernels *kernels, enum precision precision)
{
    static const char *const names[] = {"odd", "mean", "max", "cls"};
    for (int i = 0; i < 4; i++) {
        const json_t *entry = case_named(names[i]);
        struct model_opts opts = base_opts(kernels);
        struct rows_of b;
        read_case(entry, &opts);
        opts.dropout = 0.1f;
        opts.precision = precision;
        batch_all(&b, json_object_get(entry, "rows"));
        struct outcome kept = outcome_of(&opts, &b);
        opts.recompute = true;
        struct outcome again = outcome_of(&opts, &b);
        assert_same_floats(kept.logits, again.logits, (int64_t)b.in.rows * opts.head.outputs, "logits");
        assert_same_floats(kept.gradient, again.gradient, kept.total, "gradient");
        opts.seed++;
        struct outcome other = outcome_of(&opts, &b);
        assert_true(memcmp(kept.logits, other.logits, sizeof(float) * (size_t)b.in.rows) != 0); /* dropout did act */
        free(kept.gradient);
        free(again.gradient);
        free(other.gradient);
    }
}

static void test_recompute_same_bits(void **state)
{
    (void)state;
    check_recompute(kernels_ref(), PRECISION_FP32);
    check_recompute(kernels_ref(), PRECISION_BF16);
}

static void test_recompute_same_bits_cpu(void **state)
{
    (void)state;
    if (kernels_cpu() == NULL)
        skip();
    check_recompute(kernels_cpu(), PRECISION_FP32);
    if (kernels_cpu()->supports(PRECISION_BF16) == STATUS_OK)
        check_recompute(kernels_cpu(), PRECISION_BF16);
}

/*
 * The last layer on first tokens only gives what the whole layer gives there, dropout included: the CLS model's pooled
 * vectors are the first tokens of the mean model's last layer, which are read from its block.
 */
static void check_first_tokens(const struct kernels *kernels)
{
    struct model_opts opts = base_opts(kernels);
    struct model *firsts, *whole;
    struct rows_of b;
    float logits[MAX_ROWS * 8], pooled[MAX_ROWS * 64];
    const json_t *entry = case_named("cls");
    read_case(entry, &opts);
    opts.dropout = 0.2f;
    batch_all(&b, json_object_get(entry, "rows"));
    assert_ok(model_create(&opts, &firsts));
    opts.head.pooling = POOL_MEAN;
    assert_ok(model_create(&opts, &whole));
    fill_by_formula(firsts);
    fill_by_formula(whole);
    assert_ok(model_forward(firsts, &b.in, true, 4, logits));
    assert_ok(model_pooled(firsts, pooled));
    assert_ok(model_forward(whole, &b.in, true, 4, logits));
    const int hidden = opts.encoder.hidden;
    const float *x = whole->acts.x[opts.encoder.layers];
    for (int r = 0; r < b.in.rows; r++)
        for (int c = 0; c < hidden; c++)
            support_assert_near((double)pooled[r * hidden + c], (double)x[(int64_t)b.begin[r] * hidden + c], 2e-6,
                                "first token");
    model_destroy(firsts);
    model_destroy(whole);
}

static void test_first_tokens_of_last_layer(void **state)
{
    (void)state;
    check_first_tokens(kernels_ref());
    if (kernels_cpu() != NULL)
        check_first_tokens(kernels_cpu());
}

/* Room for exactly this batch: buffers that were planned too small would overlap. */
static void test_exact_room(void **state)
{
    (void)state;
    static const char *const names[] = {"odd", "max"};
    for (int i = 0; i < 8; i++) {
        struct model_opts opts = base_opts(kernels_ref());
        struct rows_of b;
        const json_t *entry = case_named(names[i % 2]);
        read_case(entry, &opts);
        opts.dropout = 0.1f;
        opts.recompute = i % 4 >= 2;
        opts.precision = i >= 4 ? PRECISION_BF16 : PRECISION_FP32;
        batch_all(&b, json_object_get(entry, "rows"));
        struct outcome roomy = outcome_of(&opts, &b);
        opts.max_tokens = b.in.tokens;
        opts.max_rows = b.in.rows;
        struct outcome exact = outcome_of(&opts, &b);
        assert_same_floats(roomy.logits, exact.logits, (int64_t)b.in.rows * opts.head.outputs, "logits");
        assert_same_floats(roomy.gradient, exact.gradient, roomy.total, "gradient");
        free(roomy.gradient);
        free(exact.gradient);
    }
}

/* Dropout is named by step, row and chunk: no chunks are chunk 0, and another of any of them is another pattern. */
static void test_dropout_names(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    struct model *model;
    struct rows_of b;
    int32_t chunk[MAX_ROWS] = {0};
    float plain[MAX_ROWS * 8], other[MAX_ROWS * 8];
    const json_t *entry = case_named("odd");
    read_case(entry, &opts);
    opts.dropout = 0.1f;
    batch_all(&b, json_object_get(entry, "rows"));
    assert_ok(model_create(&opts, &model));
    fill_by_formula(model);
    const int64_t n = (int64_t)b.in.rows * opts.head.outputs;
    const size_t row_bytes = sizeof(float) * (size_t)opts.head.outputs;
    assert_ok(model_forward(model, &b.in, true, 4, plain));
    b.in.chunk = chunk;
    assert_ok(model_forward(model, &b.in, true, 4, other));
    assert_same_floats(plain, other, n, "chunk 0");
    chunk[0] = 1;
    assert_ok(model_forward(model, &b.in, true, 4, other));
    assert_memory_not_equal(plain, other, row_bytes);
    assert_same_floats(plain + opts.head.outputs, other + opts.head.outputs, n - opts.head.outputs, "other rows");
    chunk[0] = 0;
    b.row[0]++;
    assert_ok(model_forward(model, &b.in, true, 4, other));
    assert_memory_not_equal(plain, other, row_bytes);
    b.row[0]--;
    assert_ok(model_forward(model, &b.in, true, 5, other));
    assert_memory_not_equal(plain, other, row_bytes);
    model_destroy(model);
}

/* bfloat16 is near fp32 in every tensor, and not the same. Measured: pooled 0.018, logits 0.0046, gradients 1.4 %. */
static void check_bf16(const struct kernels *kernels, const char *name)
{
    const json_t *entry = case_named(name);
    struct model_opts opts = base_opts(kernels);
    struct model *model;
    struct rows_of b;
    float logits[MAX_ROWS * 8], pooled[2][MAX_ROWS * 64];
    read_case(entry, &opts);
    batch_all(&b, json_object_get(entry, "rows"));
    struct outcome full = outcome_of(&opts, &b);
    assert_ok(model_create(&opts, &model));
    fill_by_formula(model);
    assert_ok(model_forward(model, &b.in, false, 0, logits));
    assert_ok(model_pooled(model, pooled[0]));
    model_destroy(model);

    opts.precision = PRECISION_BF16;
    struct outcome half = outcome_of(&opts, &b);
    assert_ok(model_create(&opts, &model));
    fill_by_formula(model);
    assert_ok(model_forward(model, &b.in, false, 0, logits));
    assert_ok(model_pooled(model, pooled[1]));
    for (int i = 0; i < b.in.rows * opts.encoder.hidden; i++)
        support_assert_near((double)pooled[1][i], (double)pooled[0][i], 0.04, "pooled");
    for (int i = 0; i < b.in.rows * opts.head.outputs; i++)
        support_assert_near((double)half.logits[i], (double)full.logits[i], 0.01, "logit");
    assert_memory_not_equal(half.logits, full.logits, sizeof(float) * (size_t)b.in.rows);
    const struct param_table *table = model_params(model);
    for (int i = 0; i < table->names; i++) {
        const struct param_file_name *f = &table->file[i];
        double error = 0, norm = 0;
        for (int64_t e = 0; e < f->elements; e++) {
            int64_t at = table->params[f->param].offset + f->first + e;
            error += pow((double)half.gradient[at] - (double)full.gradient[at], 2);
            norm += pow((double)full.gradient[at], 2);
        }
        support_assert_near(sqrt(error), 0, 0.03 * sqrt(norm) + 2e-4, f->name);
    }
    model_destroy(model);
    free(full.gradient);
    free(half.gradient);
}

/* ---- frozen stages */

static int64_t told_to;

static void tell_down(void *arg, int64_t low, int64_t high)
{
    (void)arg;
    assert_int_equal(high, told_to);
    assert_true(low < high);
    told_to = low;
}

/* Backward that stops early: what it reaches has the same bits, the rest is zero, and all is announced. */
static void check_frozen(const struct kernels *kernels, const json_t *entry)
{
    struct model_opts opts = base_opts(kernels);
    const struct loss_opts loss = {.kind = LOSS_CROSS_ENTROPY};
    struct model *model;
    struct rows_of b;
    struct whole_cut w;
    float *full = NULL;
    read_case(entry, &opts);
    opts.dropout = 0.1F;
    for (int frozen = 0; frozen <= opts.encoder.layers + 1; frozen++) {
        opts.frozen = frozen;
        assert_ok(model_create(&opts, &model));
        fill_by_formula(model);
        batch_all(&b, json_object_get(entry, "rows"));
        const struct param_table *table = model_params(model);
        struct loss_opts own = loss;
        own.outputs = opts.head.outputs;
        const struct loss_target target = {.label = b.label};
        assert_ok(model_forward(model, &b.in, true, 1, NULL));
        assert_ok(model_loss(model, &own, &target, b.in.rows, 1, 0));
        told_to = table->total;
        assert_ok(model_backward(model, NULL, cut_whole(&w, model, &b), tell_down, NULL));
        assert_int_equal(told_to, 0);
        const float *g = model_gradient(model, 0);
        if (frozen == 0) {
            full = malloc((size_t)table->total * sizeof *full);
            memcpy(full, g, (size_t)table->total * sizeof *full);
        }
        for (int i = 0; i < table->count; i++) {
            const struct param *p = &table->params[i];
            const int stage = p->part == PART_EMBEDDINGS ? 0 : p->part == PART_LAYER ? p->layer + 1 : INT32_MAX;
            if (frozen == 1 && strncmp(p->name, "conv.", 5) == 0)
                continue; /* the first layer's backward brings it */
            for (int64_t e = p->offset; e < p->offset + p->elements; e++)
                if (g[e] != (stage < frozen ? 0.0F : full[e]))
                    fail_msg("%s with %d frozen stages: %g", p->name, frozen, (double)g[e]);
        }
        model_destroy(model);
    }
    free(full);
}

static void test_frozen_stages(void **state)
{
    size_t i;
    const json_t *entry;
    (void)state;
    json_array_foreach(json_object_get(families, "cases"), i, entry) check_frozen(kernels_ref(), entry);
    if (kernels_cpu() != NULL) {
        json_array_foreach(json_object_get(families, "cases"), i, entry) check_frozen(kernels_cpu(), entry);
        check_frozen(kernels_cpu(), case_named("odd"));
    }
    struct model_opts opts = base_opts(kernels_ref());
    struct model *model;
    read_case(case_named("odd"), &opts);
    opts.frozen = opts.encoder.layers + 2;
    assert_fails(model_create(&opts, &model), STATUS_ARG, "frozen stages");
}

/* ---- where dropout is */

static enum status (*real_residual)(struct kernel_ctx *ctx, const struct rows *rows, int channels, const act *x,
                                    const act *y, const float *gamma, const float *beta, float eps,
                                    const struct dropout *dropout, act *sum, float *mean, float *rstd, act *out);
static float seen_p[64];
static int seen;

static enum status spy_residual(struct kernel_ctx *ctx, const struct rows *rows, int channels, const act *x,
                                const act *y, const float *gamma, const float *beta, float eps,
                                const struct dropout *dropout, act *sum, float *mean, float *rstd, act *out)
{
    if (seen < 64)
        seen_p[seen++] = dropout->p;
    return real_residual(ctx, rows, channels, x, y, gamma, beta, eps, dropout, sum, mean, rstd, out);
}

/* A layer drops what is added to its residuals: attention's output and the output; DistilBERT's the latter only. And
 * model.dropout overrides every one of config.json, DeBERTa's pooler too. */
static void test_dropout_places(void **state)
{
    size_t i;
    const json_t *entry;
    int distilberts = 0, debertas = 0;
    (void)state;
    json_array_foreach(json_object_get(families, "cases"), i, entry) {
        struct kernels spied = *kernels_ref();
        struct model_opts opts = base_opts(&spied);
        struct model *model;
        struct rows_of b;
        read_case(entry, &opts);
        opts.encoder.hidden_dropout = 0.25F;
        opts.encoder.attention_dropout = 0;
        opts.encoder.pooler_dropout = 0.75F;
        opts.dropout = -1;
        real_residual = spied.residual_norm;
        spied.residual_norm = spy_residual;
        assert_ok(model_create(&opts, &model));
        fill_by_formula(model);
        batch_all(&b, json_object_get(entry, "rows"));
        seen = 0;
        assert_ok(model_forward(model, &b.in, true, 1, NULL));
        const bool distilbert = strcmp(opts.encoder.model_type, "distilbert") == 0;
        const bool conv = opts.encoder.conv_taps > 0;
        assert_int_equal(seen, 2 * opts.encoder.layers + conv);
        for (int k = 0, l = 0; k < seen; k++) {
            if (conv && k == 2)
                continue; /* the convolution's own dropout is before its activation */
            assert_true(seen_p[k] == (distilbert && l % 2 == 0 ? 0.0F : 0.25F));
            l++;
        }
        distilberts += distilbert;
        if (strcmp(opts.encoder.model_type, "deberta-v2") == 0) {
            assert_true(model->opts.encoder.pooler_dropout == 0.75F);
            debertas++;
        }
        model_destroy(model);
        opts.dropout = 0.125F;
        assert_ok(model_create(&opts, &model));
        assert_true(model->opts.encoder.pooler_dropout == 0.125F && model->opts.head.dropout == 0.125F);
        model_destroy(model);
    }
    assert_true(distilberts > 0 && debertas > 0);
}

/* DistilBERT's sines, by its formula, stay as they are. */
static void test_sinusoidal_positions(void **state)
{
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "model_type", "distilbert", "vocab_size", 40,
                               "dim", 12, "n_layers", 1, "n_heads", 2, "hidden_dim", 16, "max_position_embeddings", 9,
                               "sinusoidal_pos_embds", 1);
    struct model_opts opts = base_opts(kernels_ref());
    struct model *model;
    (void)state;
    assert_ok(encoder_config_read(config, "config.json", &opts.encoder));
    opts.head = (struct head_config){.pooling = POOL_POOLER, .outputs = 2, .dropout = -1};
    assert_ok(model_create(&opts, &model));
    assert_ok(model_init(model, 0, model_params(model)->count, 3));
    int fixed = 0;
    for (int i = 0; i < model_params(model)->count; i++) {
        const struct param *p = &model_params(model)->params[i];
        fixed += p->fixed;
        if (strcmp(p->name, "embeddings.position.weight") != 0)
            continue;
        const float *w = model_weights(model) + p->offset;
        assert_true(p->fixed);
        support_assert_near((double)w[0], 0, 0, "position 0, channel 0");
        support_assert_near((double)w[1], 1, 0, "position 0, channel 1");
        support_assert_near((double)w[8 * 12 + 6], sin(8.0 / pow(10000.0, 0.5)), 1e-7, "position 8, channel 6");
        support_assert_near((double)w[8 * 12 + 11], cos(8.0 / pow(10000.0, 10.0 / 12.0)), 1e-7, "position 8, channel 11");
    }
    assert_int_equal(fixed, 1);
    model_destroy(model);
    json_decref(config);
}

/* What transformers keeps beside its base model has the head's rate: RoBERTa's dense layer, not BERT's pooler. */
static void test_outside(void **state)
{
    size_t i;
    const json_t *entry;
    int checked = 0;
    (void)state;
    json_array_foreach(json_object_get(families, "cases"), i, entry) {
        struct model_opts opts = base_opts(kernels_ref());
        struct model *model;
        read_case(entry, &opts);
        if (opts.head.pooling != POOL_POOLER)
            continue;
        assert_ok(model_create(&opts, &model));
        const struct param_table *table = model_params(model);
        int outside = 0;
        for (int k = 0; k < table->count; k++) {
            outside += table->params[k].outside;
            assert_int_equal(table->params[k].outside, table->params[k].part == PART_HEAD ||
                                                           table->params[k].part == PART_POOLER);
        }
        assert_int_equal(outside, 4);
        model_destroy(model);
        checked++;
    }
    assert_true(checked > 0);
    struct model_opts opts = base_opts(kernels_ref());
    struct model *model;
    read_case(json_array_get(json_object_get(golden, "cases"), 0), &opts);
    opts.head.pooling = POOL_POOLER;
    assert_ok(model_create(&opts, &model));
    for (int k = 0; k < model_params(model)->count; k++)
        assert_int_equal(model_params(model)->params[k].outside, model_params(model)->params[k].part == PART_HEAD);
    model_destroy(model);
}

static void test_bf16_near_fp32(void **state)
{
    (void)state;
    check_bf16(kernels_ref(), "odd");
    check_bf16(kernels_ref(), "mean");
    if (kernels_cpu() != NULL && kernels_cpu()->supports(PRECISION_BF16) == STATUS_OK) {
        check_bf16(kernels_cpu(), "odd");
        check_bf16(kernels_cpu(), "mean");
    }
}

/* A mean over one token is that token: with rows of one token the full and the first-token computation must agree. */
static void test_first_tokens_equal_full(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    struct rows_of b;
    const json_t *entry = case_named("cls");
    read_case(entry, &opts);
    opts.dropout = 0.2f;
    opts.max_rows = MAX_ROWS;
    batch_all(&b, json_object_get(entry, "rows"));
    for (int r = 0; r < b.in.rows; r++) { /* cut every row to one token */
        b.ids[r] = b.ids[b.begin[r]];
        b.types[r] = 0;
    }
    for (int r = 0; r <= b.in.rows; r++)
        b.begin[r] = r;
    b.in.tokens = b.in.rows;
    struct outcome pooled = outcome_of(&opts, &b);
    opts.head.pooling = POOL_MEAN;
    struct outcome full = outcome_of(&opts, &b);
    for (int i = 0; i < b.in.rows * opts.head.outputs; i++)
        support_assert_near((double)pooled.logits[i], (double)full.logits[i], 1e-6, "logit");
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < full.total; i++) {
        difference += pow((double)pooled.gradient[i] - (double)full.gradient[i], 2);
        norm += pow((double)full.gradient[i], 2);
    }
    support_assert_near(sqrt(difference), 0, 1e-6 * sqrt(norm), "gradient");
    free(pooled.gradient);
    free(full.gradient);
}

/* Threads divide independent outputs: their number changes no bit. */
static void test_threads_same_bits_cpu(void **state)
{
    (void)state;
    if (kernels_cpu() == NULL)
        skip();
    for (int i = 0; i < 4; i++) {
        const json_t *entry = case_named(i < 2 ? "odd" : "mean");
        struct model_opts opts = base_opts(kernels_cpu());
        struct rows_of b;
        read_case(entry, &opts);
        opts.dropout = 0.1f;
        opts.precision = i % 2 == 0 ? PRECISION_FP32 : PRECISION_BF16;
        if (kernels_cpu()->supports(opts.precision) != STATUS_OK)
            continue;
        batch_all(&b, json_object_get(entry, "rows"));
        struct outcome one = outcome_of(&opts, &b);
        threads_set(3);
        struct outcome three = outcome_of(&opts, &b);
        threads_set(1);
        assert_same_floats(one.logits, three.logits, (int64_t)b.in.rows * opts.head.outputs, "logits");
        assert_same_floats(one.gradient, three.gradient, one.total, "gradient");
        free(one.gradient);
        free(three.gradient);
    }
}

/* A row's logits and pooled vector do not depend on the other rows, on evaluation buffers, or on its place. */
static void check_row_alone(const struct kernels *kernels, const char *name)
{
    const json_t *entry = case_named(name), *rows = json_object_get(entry, "rows");
    struct model_opts opts = base_opts(kernels), alone_opts;
    struct model *model, *alone_model;
    struct rows_of b, alone;
    float logits[MAX_ROWS * 8], one[8], pooled[MAX_ROWS * 64], one_pooled[64], drop[MAX_ROWS * 8];
    read_case(entry, &opts);
    opts.dropout = 0.1f;
    alone_opts = opts;
    alone_opts.training = false;
    assert_ok(model_create(&opts, &model));
    assert_ok(model_create(&alone_opts, &alone_model));
    fill_by_formula(model);
    fill_by_formula(alone_model);
    batch_all(&b, rows);
    const size_t outputs = (size_t)opts.head.outputs, hidden = (size_t)opts.encoder.hidden;
    assert_ok(model_forward(model, &b.in, false, 0, logits));
    assert_ok(model_pooled(model, pooled));
    assert_ok(model_forward(model, &b.in, true, 9, drop));
    for (int r = 0; r < b.in.rows; r++) {
        batch_start(&alone);
        batch_add(&alone, json_array_get(rows, (size_t)r), b.row[r]);
        assert_ok(model_forward(alone_model, &alone.in, false, 0, one));
        assert_ok(model_pooled(alone_model, one_pooled));
        assert_same_floats(one, logits + (size_t)r * outputs, (int64_t)outputs, "logits of a row alone");
        assert_same_floats(one_pooled, pooled + (size_t)r * hidden, (int64_t)hidden, "pooled of a row alone");
        assert_ok(model_forward(model, &alone.in, true, 9, one));
        assert_same_floats(one, drop + (size_t)r * outputs, (int64_t)outputs, "logits of a row alone with dropout");
    }
    model_destroy(model);
    model_destroy(alone_model);
}

static void test_row_alone(void **state)
{
    (void)state;
    check_row_alone(kernels_ref(), "odd");
    check_row_alone(kernels_ref(), "max");
}

static void test_row_alone_cpu(void **state)
{
    (void)state;
    if (kernels_cpu() == NULL)
        skip();
    check_row_alone(kernels_cpu(), "odd");
    check_row_alone(kernels_cpu(), "max");
}

/*
 * Eight pieces of one row each, merged along a binary tree as they finish; run in micro-batches of different sizes.
 * Piece i writes buffer slot(i); merges: (0,1), (2,3), (01,23), (4,5), (6,7), (45,67), (0..3, 4..7).
 */
static void tree_gradient(const struct model_opts *opts, const json_t *rows, const int *sizes, int batches, float *out)
{
    struct model *model;
    int next = 0;
    assert_ok(model_create(opts, &model));
    fill_by_formula(model);
    float *buffers[4];
    for (int k = 0; k < 4; k++)
        buffers[k] = model_gradient(model, k);
    for (int m = 0; m < batches; m++) {
        struct rows_of b;
        int32_t token[9] = {0}, row[9] = {0}, to[8], merge_begin[9] = {0}, merge_to[16], merge_from[16];
        bool add[8] = {false};
        float logits[MAX_ROWS * 8], dlogits[MAX_ROWS * 8];
        double loss[MAX_ROWS];
        batch_start(&b);
        for (int i = 0; i < sizes[m]; i++)
            batch_add(&b, json_array_get(rows, (size_t)(next + i)), next + i);
        for (int i = 0, n = 0; i < sizes[m]; i++) {
            int piece = next + i, depth = 0; /* depth: binary carries of piece; its slot is the number of open sums */
            to[i] = (int32_t)__builtin_popcount((unsigned)piece);
            for (int p = piece; (p & 1) != 0; p >>= 1, depth++) {
                merge_to[n] = to[i] - depth - 1;
                merge_from[n++] = to[i] - depth;
            }
            merge_begin[i + 1] = n;
            token[i + 1] = b.begin[i + 1];
            row[i + 1] = i + 1;
        }
        const struct grad_cut cut = {.pieces = sizes[m], .token = token, .row = row, .to = to, .add = add,
                                     .merge_begin = merge_begin, .merge_to = merge_to, .merge_from = merge_from,
                                     .buffer = buffers};
        const struct loss_opts loss_opts = {.kind = LOSS_CROSS_ENTROPY, .outputs = opts->head.outputs};
        const struct loss_target target = {.label = b.label};
        assert_ok(model_forward(model, &b.in, true, 3, logits));
        assert_ok(loss_compute(&loss_opts, &target, b.in.rows, logits, 8, 1, loss, dlogits));
        assert_ok(model_backward(model, dlogits, &cut, NULL, NULL));
        next += sizes[m];
    }
    memcpy(out, buffers[0], (size_t)model_params(model)->total * sizeof(float));
    model_destroy(model);
}

static void check_cuts(const struct kernels *kernels, const char *name, enum precision precision)
{
    static const int groupings[][8] = {{8}, {4, 4}, {1, 2, 5}, {3, 3, 2}, {1, 1, 1, 1, 1, 1, 1, 1}};
    static const int counts[] = {1, 2, 3, 3, 8};
    const json_t *entry = case_named(name);
    struct model_opts opts = base_opts(kernels);
    read_case(entry, &opts);
    opts.grad_buffers = 4;
    opts.dropout = 0.1f;
    opts.precision = precision;
    int64_t total = 0;
    float *first = NULL, *other = NULL;
    for (int g = 0; g < 5; g++) {
        opts.recompute = g == 2;
        if (g == 0) {
            struct model *model;
            assert_ok(model_create(&opts, &model));
            total = model_params(model)->total;
            model_destroy(model);
            first = malloc((size_t)total * sizeof *first);
            other = malloc((size_t)total * sizeof *other);
        }
        tree_gradient(&opts, json_object_get(entry, "rows"), groupings[g], counts[g], g == 0 ? first : other);
        if (g > 0)
            assert_same_floats(first, other, total, "gradient over eight pieces");
    }
    free(first);
    free(other);
}

static void test_cuts_same_bits(void **state)
{
    (void)state;
    check_cuts(kernels_ref(), "odd", PRECISION_FP32);
    check_cuts(kernels_ref(), "mean", PRECISION_BF16);
}

static void test_cuts_same_bits_cpu(void **state)
{
    (void)state;
    if (kernels_cpu() == NULL)
        skip();
    check_cuts(kernels_cpu(), "odd", PRECISION_FP32);
    check_cuts(kernels_cpu(), "mean", PRECISION_FP32);
    if (kernels_cpu()->supports(PRECISION_BF16) == STATUS_OK)
        check_cuts(kernels_cpu(), "odd", PRECISION_BF16);
}

/* ---- finite differences */

/* Central differences along random directions of each tensor, with dropout on: forward and backward must drop alike. */
static void check_differences(enum pooling pooling)
{
    const json_t *entry = case_named("relu"); /* one layer; its activation is made smooth below */
    struct model_opts opts = base_opts(kernels_ref());
    struct model *model;
    struct rows_of b;
    struct whole_cut w;
    float logits[MAX_ROWS * 8];
    read_case(entry, &opts);
    opts.encoder.activation = ACTIVATION_GELU_TANH;
    opts.encoder.layers = 2;
    opts.head.pooling = pooling;
    opts.dropout = 0.1f;
    assert_ok(model_create(&opts, &model));
    fill_by_formula(model);
    batch_all(&b, json_object_get(entry, "rows"));
    (void)run_step(model, &b, opts.head.outputs, cut_whole(&w, model, &b), 5, logits);
    const struct param_table *table = model_params(model);
    float *gradient = malloc((size_t)table->total * sizeof *gradient);
    float *kept = malloc((size_t)table->total * sizeof *kept);
    memcpy(gradient, model_gradient(model, 0), (size_t)table->total * sizeof *gradient);
    float *weights = model_weights(model);
    memcpy(kept, weights, (size_t)table->total * sizeof *kept);
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->params[i];
        double along = 0, loss[2], norm = 0;
        const double h = 1e-3; /* length of the step */
        for (int64_t e = 0; e < p->elements; e++)
            norm += pow((double)gradient[p->offset + e], 2);
        norm = sqrt(norm);
        for (int side = 0; side < 2; side++) {
            along = 0;
            for (int64_t e = 0; e < p->elements; e++) { /* half along the gradient, half random */
                double noise = (double)formula(name_hash(p->name) + 1, false, e) * 8 / sqrt((double)p->elements);
                double v = (norm > 1e-6 ? (double)gradient[p->offset + e] / norm : 0) + noise;
                weights[p->offset + e] = (float)((double)kept[p->offset + e] + (side == 0 ? h : -h) * v);
                along += v * (double)gradient[p->offset + e];
            }
            assert_ok(model_weights_changed(model));
            loss[side] = run_step(model, &b, opts.head.outputs, cut_whole(&w, model, &b), 5, logits);
        }
        memcpy(weights, kept, (size_t)table->total * sizeof *kept);
        support_assert_near((loss[0] - loss[1]) / (2 * h), along, 2e-4 * norm + 2e-5, p->name);
    }
    free(gradient);
    free(kept);
    model_destroy(model);
}

static void test_finite_differences(void **state)
{
    (void)state;
    check_differences(POOL_POOLER);
    check_differences(POOL_MEAN);
}

/* ---- the rest of the interface */

struct announced {
    int64_t low[16], high[16];
    int count;
};

static void announce(void *arg, int64_t low, int64_t high)
{
    struct announced *a = arg;
    assert_true(a->count < 16);
    a->low[a->count] = low;
    a->high[a->count++] = high;
}

static void test_ready_tiles_the_space(void **state)
{
    (void)state;
    for (int pooler = 0; pooler < 2; pooler++) {
        const json_t *entry = case_named(pooler ? "odd" : "mean");
        struct model_opts opts = base_opts(kernels_ref());
        struct model *model;
        struct announced some = {0}, none = {0};
        struct rows_of b;
        struct whole_cut w;
        float logits[MAX_ROWS * 8], dlogits[MAX_ROWS * 8] = {0};
        read_case(entry, &opts);
        assert_ok(model_create(&opts, &model));
        fill_by_formula(model);
        const struct param_table *table = model_params(model);
        batch_all(&b, json_object_get(entry, "rows"));
        assert_ok(model_forward(model, &b.in, true, 0, logits));
        assert_ok(model_backward(model, dlogits, cut_whole(&w, model, &b), announce, &some));
        assert_int_equal(some.count, 1 + pooler + 3 + 1);
        assert_int_equal(some.high[0], table->total);
        assert_int_equal(some.low[some.count - 1], 0);
        for (int i = 1; i < some.count; i++)
            assert_int_equal(some.high[i], some.low[i - 1]);
        for (int i = 0; i < table->count; i++) { /* no tensor lies across a border */
            const struct param *p = &table->params[i];
            for (int j = 0; j < some.count; j++)
                assert_true(p->offset >= some.low[j] || p->offset + p->elements <= some.low[j]);
        }

        /* No rows, no pieces: the same ranges, nothing written. */
        float *gradient = model_gradient(model, 0);
        for (int64_t i = 0; i < table->total; i++)
            gradient[i] = 3;
        batch_start(&b);
        const struct grad_cut nothing = {.pieces = 0};
        assert_ok(model_forward(model, &b.in, true, 0, NULL));
        assert_ok(model_backward(model, NULL, &nothing, announce, &none));
        assert_memory_equal(&some, &none, sizeof some);
        for (int64_t i = 0; i < table->total; i++)
            assert_true(gradient[i] == 3);

        /* No rows in one piece: zeros for every parameter. */
        assert_ok(model_forward(model, &b.in, true, 0, NULL));
        assert_ok(model_backward(model, NULL, cut_whole(&w, model, &b), NULL, NULL));
        for (int i = 0; i < table->count; i++)
            for (int64_t e = 0; e < table->params[i].elements; e++)
                if (gradient[table->params[i].offset + e] != 0)
                    fail_msg("%s: element %lld", table->params[i].name, (long long)e);
        model_destroy(model);
    }
}

static void test_padding_stays_zero(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    struct rows_of b;
    const json_t *entry = case_named("odd");
    read_case(entry, &opts);
    batch_all(&b, json_object_get(entry, "rows"));
    struct model *model;
    struct whole_cut w;
    float logits[MAX_ROWS * 8];
    assert_ok(model_create(&opts, &model));
    assert_ok(model_init(model, 0, model_params(model)->count, 5));
    (void)run_step(model, &b, opts.head.outputs, cut_whole(&w, model, &b), 0, logits);
    const struct param_table *table = model_params(model);
    int64_t end = 0, padding = 0;
    for (int i = 0; i <= table->count; i++) {
        int64_t begin = i < table->count ? table->params[i].offset : table->total;
        for (int64_t e = end; e < begin; e++, padding++) {
            assert_true(model_weights(model)[e] == 0);
            assert_true(model_gradient(model, 0)[e] == 0);
        }
        if (i < table->count)
            end = begin + table->params[i].elements;
    }
    assert_true(padding > 0);
    assert_int_equal(padding + table->used, table->total);
    model_destroy(model);
}

static void test_init(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    struct model *a, *b;
    read_case(case_named("odd"), &opts);
    opts.training = false;
    assert_ok(model_create(&opts, &a));
    assert_ok(model_create(&opts, &b));
    const struct param_table *table = model_params(a);
    assert_ok(model_init(a, 0, table->count, 11));
    for (int i = table->count - 1; i >= 0; i--)
        assert_ok(model_init(b, i, 1, 11));
    assert_same_floats(model_weights(a), model_weights(b), table->total, "weights drawn in another order");
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->params[i];
        const float *w = model_weights(a) + p->offset;
        double sum = 0, square = 0;
        for (int64_t e = 0; e < p->elements; e++) {
            if (p->role == PARAM_BIAS)
                assert_true(w[e] == 0);
            if (p->role == PARAM_NORM)
                assert_true(w[e] == 1);
            sum += (double)w[e];
            square += (double)w[e] * (double)w[e];
        }
        if (p->role == PARAM_WEIGHT && p->elements > 1000) {
            support_assert_near(sum / (double)p->elements, 0, 4 * 0.02 / sqrt((double)p->elements), p->name);
            support_assert_near(sqrt(square / (double)p->elements), 0.02, 0.06 * 0.02, p->name);
        }
    }
    for (int c = 0; c < opts.encoder.hidden; c++) /* the padding row, and not the next */
        assert_true(model_weights(a)[c] == 0 && model_weights(a)[opts.encoder.hidden + c] != 0);
    assert_ok(model_init(b, table->count - 2, 2, 12));
    assert_true(memcmp(model_weights(a) + table->params[table->count - 2].offset,
                       model_weights(b) + table->params[table->count - 2].offset, 64) != 0);
    assert_fails(model_init(a, table->count, 1, 1), STATUS_ARG, "parameters");
    model_destroy(a);
    model_destroy(b);
}

static void test_hostile_rows(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    struct model *model;
    struct rows_of b;
    struct whole_cut w;
    float logits[MAX_ROWS * 8], dlogits[MAX_ROWS * 8] = {0};
    const json_t *entry = case_named("odd");
    read_case(entry, &opts);
    assert_ok(model_create(&opts, &model));
    batch_all(&b, json_object_get(entry, "rows"));
    assert_fails(model_backward(model, dlogits, cut_whole(&w, model, &b), NULL, NULL), STATUS_ARG, "training forward");
    b.ids[3] = 101;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_DATA, "row 1001: token 2 is 101");
    b.ids[3] = -1;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_DATA, "vocabulary has 101");
    b.ids[3] = 4;
    b.types[5] = 2;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_DATA, "type 2");
    b.types[5] = 1;
    b.begin[1] = 0;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_DATA, "row 1000 has 0 tokens");
    b.begin[1] = 48;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_DATA, "wanted 1 to 40");
    b.begin[1] = 1;
    b.in.tokens--;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_ARG, "rows take tokens");
    b.in.tokens = MAX_TOKENS + 1;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_ARG, "room for 512");
    b.in.tokens = b.begin[b.in.rows];
    assert_ok(model_forward(model, &b.in, true, 0, logits));
    b.ids[0] = 101;
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_DATA, "token 0 is 101"); /* nothing to go back */
    assert_fails(model_backward(model, dlogits, cut_whole(&w, model, &b), NULL, NULL), STATUS_ARG, "training forward");
    b.ids[0] = 1;
    assert_ok(model_forward(model, &b.in, true, 0, logits));
    (void)cut_whole(&w, model, &b);
    w.token[1]--;
    assert_fails(model_backward(model, dlogits, &w.cut, NULL, NULL), STATUS_ARG, "pieces take");
    assert_ok(model_forward(model, &b.in, false, 0, logits)); /* evaluation in between: activations are gone */
    assert_fails(model_backward(model, dlogits, cut_whole(&w, model, &b), NULL, NULL), STATUS_ARG, "training forward");
    model_destroy(model);
    opts.training = false;
    assert_ok(model_create(&opts, &model));
    assert_fails(model_forward(model, &b.in, true, 0, logits), STATUS_ARG, "made for evaluation");
    assert_null(model_gradient(model, 0));
    model_destroy(model);
    opts.training = true;
    opts.grad_buffers = 0;
    assert_fails(model_create(&opts, &model), STATUS_ARG, "gradient buffers");
    opts.grad_buffers = 1;
    (void)strcpy(opts.encoder.model_type, "gpt2");
    assert_fails(model_create(&opts, &model), STATUS_UNAVAILABLE, "gpt2");
    assert_null(model);
}

/* A backend without an entry that this model needs, or without the precision, is refused by name. */
static void test_lacking_kernels(void **state)
{
    (void)state;
    struct kernels some = *kernels_ref();
    struct model_opts opts = base_opts(&some);
    struct model *model;
    read_case(case_named("max"), &opts);
    some.max_pool_backward = NULL;
    some.tanh_forward = NULL;
    assert_fails(model_create(&opts, &model), STATUS_UNAVAILABLE, "the ref kernels have no max_pool");
    opts.head.pooling = POOL_MEAN;
    some.attention_backward = NULL;
    assert_fails(model_create(&opts, &model), STATUS_UNAVAILABLE, "attention_backward");
    opts.training = false;
    assert_ok(model_create(&opts, &model));
    model_destroy(model);
    opts.precision = PRECISION_FP16;
    assert_fails(model_create(&opts, &model), STATUS_UNAVAILABLE, "fp32 and bf16 only");
    assert_null(model);
}

/* Bytes that model_create() takes, as the allocator counts them; 0 where a sanitizer's allocator does not count. */
static double bytes_taken(const struct model_opts *opts)
{
    struct model *model;
    struct mallinfo2 before = mallinfo2();
    assert_ok(model_create(opts, &model));
    struct mallinfo2 after = mallinfo2();
    model_destroy(model);
    return (double)(after.uordblks + after.hblkhd) - (double)(before.uordblks + before.hblkhd);
}

/* The plan is what model_create() takes, but for small tables; those are equal where only the room differs. */
static void test_memory_plan(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    read_case(case_named("odd"), &opts);
    opts.grad_buffers = 3;
    int64_t activations[3];
    for (int kind = 0; kind < 3; kind++) { /* evaluation, recomputation, everything kept */
        struct model_memory small, large;
        opts.training = kind > 0;
        opts.recompute = kind == 1;
        opts.max_tokens = MAX_TOKENS;
        opts.max_rows = MAX_ROWS;
        assert_ok(model_plan_memory(&opts, &small));
        double small_taken = bytes_taken(&opts);
        opts.max_tokens = 3 * MAX_TOKENS;
        opts.max_rows = 5 * MAX_ROWS;
        assert_ok(model_plan_memory(&opts, &large));
        double large_taken = bytes_taken(&opts);
        assert_int_equal(small.total, small.weights + small.gradients + small.activations + small.workspace);
        assert_int_equal(small.weights, PARAM_BLOCK * 4); /* 34,211 parameters in one block */
        assert_int_equal(small.gradients, kind > 0 ? 3 * small.weights : 0);
        if (small_taken > 0) {
            support_assert_near(small_taken, (double)small.total, 131072, "bytes taken");
            support_assert_near(large_taken - small_taken, (double)(large.total - small.total), 16384,
                                "bytes taken by more room"); /* page ends */
        }
        activations[kind] = small.activations;
    }
    assert_true(activations[0] < activations[1] && activations[1] < activations[2]);
}

/* The largest configuration that encoder_config_read() lets through: `check` must say "too much", not overflow. */
static void test_largest_plan(void **state)
{
    (void)state;
    struct model_opts opts = base_opts(kernels_ref());
    struct model_memory plan;
    json_t *config = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "model_type", "bert", "vocab_size", 1 << 24,
                               "hidden_size", 1 << 16, "num_hidden_layers", 1024, "num_attention_heads", 1 << 16,
                               "intermediate_size", 1 << 20, "max_position_embeddings", 1 << 22, "type_vocab_size",
                               1 << 16);
    assert_ok(encoder_config_read(config, "config.json", &opts.encoder));
    json_decref(config);
    opts.head = (struct head_config){.pooling = POOL_POOLER, .outputs = 1 << 20, .dropout = -1};
    opts.max_tokens = 1 << 26;
    opts.max_rows = 1 << 26;
    opts.grad_buffers = 1024;
    assert_ok(model_plan_memory(&opts, &plan));
    assert_true(plan.weights > (int64_t)1 << 47 && plan.gradients == 1024 * plan.weights);
    assert_true(plan.activations > (int64_t)1 << 58 && plan.total > plan.gradients + plan.activations);
    opts.max_tokens++;
    assert_fails(model_plan_memory(&opts, &plan), STATUS_ARG, "67108865 tokens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformers_ref),
        cmocka_unit_test(test_transformers_cpu),
        cmocka_unit_test(test_training_ref),
        cmocka_unit_test(test_training_cpu),
        cmocka_unit_test(test_recompute_same_bits),
        cmocka_unit_test(test_recompute_same_bits_cpu),
        cmocka_unit_test(test_threads_same_bits_cpu),
        cmocka_unit_test(test_first_tokens_of_last_layer),
        cmocka_unit_test(test_first_tokens_equal_full),
        cmocka_unit_test(test_exact_room),
        cmocka_unit_test(test_bf16_near_fp32),
        cmocka_unit_test(test_dropout_names),
        cmocka_unit_test(test_dropout_places),
        cmocka_unit_test(test_frozen_stages),
        cmocka_unit_test(test_sinusoidal_positions),
        cmocka_unit_test(test_outside),
        cmocka_unit_test(test_row_alone),
        cmocka_unit_test(test_row_alone_cpu),
        cmocka_unit_test(test_cuts_same_bits),
        cmocka_unit_test(test_cuts_same_bits_cpu),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_ready_tiles_the_space),
        cmocka_unit_test(test_padding_stays_zero),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_hostile_rows),
        cmocka_unit_test(test_lacking_kernels),
        cmocka_unit_test(test_largest_plan),
        cmocka_unit_test(test_memory_plan),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
