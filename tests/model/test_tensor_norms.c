/* test_tensor_norms.c - norms of parameters over owners: against plain sums, the same bits however blocks are shared. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/device.h"
#include "model/tensor_norms.h"
#include "tests/support/support.h"

enum { B = PARAM_BLOCK, BLOCKS = 4 };

static void check(const struct kernels *kernels)
{
    struct device *device;
    struct kernel_ctx *ctx;
    struct tensor_norms *all, *part[2];
    struct param params[4] = {{.offset = 0, .elements = 100},
                              {.offset = 128, .elements = 2 * B},
                              {.offset = 2 * B + 128, .elements = B - 128}, /* ends where its block does */
                              {.offset = 3 * B, .elements = 7}};
    const struct param_table table = {.count = 4, .params = params, .total = BLOCKS * B};
    const struct range whole = {0, BLOCKS * B}, own[2][2] = {{{0, B}, {2 * B, 3 * B}}, {{B, 2 * B}, {3 * B, 4 * B}}};
    float *x = malloc(BLOCKS * B * sizeof *x);
    for (int i = 0; i < BLOCKS * B; i++)
        x[i] = (float)((i * 37) % 1001 - 500) / 321.0f;
    assert_ok(device_open(DEVICE_CPU, 0, &device));
    const struct kernel_opts opts = {.device = device, .max_tokens = 1, .max_rows = 1, .max_channels = 1, .training = true};
    assert_ok(kernels->open(&opts, &ctx));
    assert_ok(tensor_norms_open(&table, kernels, ctx, &whole, 1, &all));
    for (int p = 0; p < 2; p++)
        assert_ok(tensor_norms_open(&table, kernels, ctx, own[p], 2, &part[p]));
    const int pieces = tensor_norms_pieces(all);
    assert_int_equal(pieces, 1 + 3 + 1 + 1);
    double want[6], got[2][6], norm[4];
    assert_ok(tensor_norms_squares(all, x, want));
    for (int p = 0; p < 2; p++)
        assert_ok(tensor_norms_squares(part[p], x, got[p]));
    for (int i = 0; i < pieces; i++) {
        assert_true(got[0][i] == 0 || got[1][i] == 0);
        assert_true(fmax(got[0][i], got[1][i]) == want[i]);
    }
    tensor_norms_sum(all, want, norm);
    for (int i = 0; i < 4; i++) {
        double sum = 0;
        for (int64_t e = 0; e < params[i].elements; e++)
            sum += (double)x[params[i].offset + e] * (double)x[params[i].offset + e];
        support_assert_near(norm[i], sqrt(sum), 1e-12 * sqrt(sum), "norm");
    }
    tensor_norms_close(all);
    tensor_norms_close(part[0]);
    tensor_norms_close(part[1]);
    tensor_norms_close(NULL);
    kernels->close(ctx);
    device_close(device);
    free(x);
}

static void test_ref(void **state)
{
    (void)state;
    check(kernels_ref());
}

static void test_cpu(void **state)
{
    (void)state;
    if (kernels_cpu() == NULL)
        skip();
    check(kernels_cpu());
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ref), cmocka_unit_test(test_cpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
