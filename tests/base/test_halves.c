/* 16-bit floats: every value there and back, and every rounding border between two neighbours. */
#include "tests/support/support.h"

#include <math.h>

#include "base/halves.h"

struct kind {
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
    uint16_t infinity;
};
static const struct kind kinds[] = {{float_from_f16, f16_from_float, 0x7c00},
                                    {float_from_bf16, bf16_from_float, 0x7f80}};

static void test_every_value_survives(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        for (uint32_t h = 0; h < 65536; h++) {
            float value = kinds[k].widen((uint16_t)h);
            uint16_t back = kinds[k].narrow(value);
            if ((h & 0x7fff) > kinds[k].infinity) {
                if (!isnan(value) || !isnan(kinds[k].widen(back)) || (back & 0x8000) != (h & 0x8000))
                    fail_msg("kind %d: NaN %04x became %04x", k, h, back);
            } else if (back != h) {
                fail_msg("kind %d: %04x became %a and %04x", k, h, (double)value, back);
            }
        }
    }
}

static void test_rounding_between_neighbours(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        for (uint16_t h = 0; h < kinds[k].infinity; h++) {
            double low = (double)kinds[k].widen(h), step = low - (h > 0 ? (double)kinds[k].widen((uint16_t)(h - 1)) : 0);
            double high = h + 1 < kinds[k].infinity ? (double)kinds[k].widen((uint16_t)(h + 1)) : low + step;
            float middle = (float)((low + high) / 2); /* exact: binary32 has the bit */
            uint16_t even = (uint16_t)(h + (h & 1));
            uint16_t got[3] = {kinds[k].narrow(nextafterf(middle, 0)), kinds[k].narrow(middle),
                               kinds[k].narrow(nextafterf(middle, INFINITY))};
            if (got[0] != h || got[1] != even || got[2] != h + 1)
                fail_msg("kind %d: around the middle of %04x: %04x %04x %04x", k, h, got[0], got[1], got[2]);
            if (kinds[k].narrow(-middle) != (even | 0x8000))
                fail_msg("kind %d: minus the middle of %04x", k, h);
        }
    }
}

static void test_known_values(void **state)
{
    (void)state;
    assert_int_equal(f16_from_float(65519.996F), 0x7bff);
    assert_int_equal(f16_from_float(65520.0F), 0x7c00);
    assert_int_equal(f16_from_float(1e30F), 0x7c00);
    assert_int_equal(f16_from_float(-INFINITY), 0xfc00);
    assert_int_equal(f16_from_float(0x1p-25F), 0);
    assert_int_equal(f16_from_float(-0x1.000002p-25F), 0x8001);
    assert_int_equal(f16_from_float(1e-45F), 0);
    assert_int_equal(bf16_from_float(3.4028235e38F), 0x7f80);
    assert_int_equal(bf16_from_float(-0.0F), 0x8000);
    assert_int_equal(bf16_from_float(float_of_bits(0x7f800001)), 0x7fc0); /* a NaN whose payload is cut off */
    assert_int_equal(f16_from_float(float_of_bits(0xff800001)), 0xfe00);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_survives),
        cmocka_unit_test(test_rounding_between_neighbours),
        cmocka_unit_test(test_known_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
