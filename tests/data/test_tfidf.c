/*
 * test_tfidf.c - TF-IDF vectors equal scikit-learn's: vocabulary and its order, idf, values, and the products with the matrix
 * that are all a regression sees; rows, threads and options that are refused.
 *
 * X^T e_i, the weights of a unit vector, is row i of X.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/str.h"
#include "base/threads.h"
#include "data/tfidf.h"
#include "tests/support/support.h"

/* Values are sums of few products of few factors, divided by a root: some units of 2^-53. */
#define BOUND 2e-15
/* Of a product of two rows: sums of up to 100 such. */
#define PRODUCT_BOUND 1e-14

static json_t *golden;

static int open_golden(void **state)
{
    (void)state;
    assert_ok(json_read_file(TEST_DIR "/golden/tfidf.json", 1 << 22, &golden));
    return 0;
}

static int close_golden(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

static int integer(const json_t *line, const char *name)
{
    return (int)json_integer_value(json_object_get(line, name));
}

static struct tfidf *count(const json_t *line)
{
    const struct tfidf_opts opts = {.ngram_min = integer(line, "ngram_min"),
                                    .ngram_max = integer(line, "ngram_max"),
                                    .lowercase = json_is_true(json_object_get(line, "lowercase"))};
    const json_t *texts = json_object_get(line, "texts"), *text;
    struct tfidf *tfidf;
    size_t i;
    assert_ok(tfidf_create(&opts, &tfidf));
    json_array_foreach(texts, i, text)
        assert_ok(tfidf_add(tfidf, json_string_value(text), strlen(json_string_value(text))));
    assert_ok(tfidf_finish(tfidf));
    return tfidf;
}

static struct tfidf_fit_opts fit_options(const json_t *line)
{
    return (struct tfidf_fit_opts){.min_df = json_real_value(json_object_get(line, "min_df")),
                                   .max_df = json_real_value(json_object_get(line, "max_df")),
                                   .max_features = integer(line, "max_features"),
                                   .sublinear = json_is_true(json_object_get(line, "sublinear"))};
}

/* What tfidf_weights() says of one term is compared with the golden rows. */
struct visit {
    const struct tfidf *tfidf;
    const json_t *line;
    const int64_t *fitted;
    int n;
    size_t column;
    size_t *next; /* (n) place of the next value in each row */
};

static enum status compare_term(void *arg, int64_t number, const double *w)
{
    struct visit *v = arg;
    struct str term = {0};
    const char *name = json_string_value(json_object_get(v->line, "name"));
    const char *wanted = json_string_value(json_array_get(json_object_get(v->line, "vocabulary"), v->column));
    assert_non_null(wanted);
    assert_ok(tfidf_name(v->tfidf, number, &term));
    assert_string_equal(term.p, wanted);
    str_release(&term);
    for (int i = 0; i < v->n; i++) {
        const json_t *row = json_array_get(json_object_get(v->line, "rows"), (size_t)v->fitted[i]);
        const json_t *column = json_array_get(json_object_get(row, "columns"), v->next[i]);
        double value = 0.0;
        if (column != NULL && (size_t)json_integer_value(column) == v->column)
            value = json_number_value(json_array_get(json_object_get(row, "values"), v->next[i]++));
        if (!(fabs(w[i] - value) <= BOUND))
            fail_msg("%s: row %d, term %s: %.17g, scikit-learn has %.17g", name, (int)v->fitted[i], wanted, w[i], value);
    }
    v->column++;
    return STATUS_OK;
}

/* The golden product of rows a and b. */
static double product(const json_t *line, int64_t a, int64_t b)
{
    const json_t *rows = json_object_get(line, "rows"), *x = json_array_get(rows, (size_t)a), *y = json_array_get(rows, (size_t)b);
    const json_t *xc = json_object_get(x, "columns"), *yc = json_object_get(y, "columns");
    double sum = 0.0;
    for (size_t i = 0, j = 0; i < json_array_size(xc) && j < json_array_size(yc);) {
        json_int_t p = json_integer_value(json_array_get(xc, i)), q = json_integer_value(json_array_get(yc, j));
        if (p == q)
            sum += json_number_value(json_array_get(json_object_get(x, "values"), i)) *
                   json_number_value(json_array_get(json_object_get(y, "values"), j));
        i += p <= q;
        j += q <= p;
    }
    return sum;
}

static void check_case(const json_t *line)
{
    const char *name = json_string_value(json_object_get(line, "name"));
    const json_t *list = json_object_get(line, "fitted");
    struct tfidf *tfidf = count(line);
    struct tfidf_fit *fit;
    struct tfidf_fit_opts opts = fit_options(line);
    struct tfidf_info info;
    int64_t fitted[64], others[64];
    int n = (int)json_array_size(list), all = (int)json_array_size(json_object_get(line, "texts")), m = 0;
    bool mine[64] = {false};
    tfidf_get_info(tfidf, &info);
    assert_int_equal(info.rows, all);
    for (int i = 0; i < n; i++) {
        fitted[i] = json_integer_value(json_array_get(list, (size_t)i));
        mine[fitted[i]] = true;
    }
    for (int r = 0; r < all; r++) {
        if (!mine[r])
            others[m++] = r;
    }
    assert_ok(tfidf_fit_create(tfidf, &opts, fitted, n, &fit));
    assert_int_equal(tfidf_fit_features(fit), json_array_size(json_object_get(line, "vocabulary")));

    double *unit = calloc((size_t)n * (size_t)n, sizeof *unit), *z = malloc((size_t)all * (size_t)n * sizeof *z);
    for (int i = 0; i < n; i++)
        unit[i * n + i] = 1.0;
    struct visit v = {.tfidf = tfidf, .line = line, .fitted = fitted, .n = n, .next = calloc((size_t)n, sizeof *v.next)};
    assert_ok(tfidf_weights(fit, n, unit, compare_term, &v));
    assert_int_equal(v.column, json_array_size(json_object_get(line, "vocabulary")));
    for (int i = 0; i < n; i++)
        assert_int_equal(v.next[i], json_array_size(json_object_get(
                                        json_array_get(json_object_get(line, "rows"), (size_t)fitted[i]), "columns")));

    assert_ok(tfidf_gram(fit, n, unit, z));
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            support_assert_near(z[i * n + j], product(line, fitted[i], fitted[j]), PRODUCT_BOUND, name);
    }
    assert_ok(tfidf_cross(fit, others, m, n, unit, z));
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++)
            support_assert_near(z[i * n + j], product(line, others[i], fitted[j]), PRODUCT_BOUND, name);
    }
    free(unit);
    free(z);
    free(v.next);
    tfidf_fit_destroy(fit);
    tfidf_destroy(tfidf);
}

static void test_equals_scikit_learn(void **state)
{
    const json_t *line;
    size_t i;
    (void)state;
    assert_int_equal(json_array_size(golden), 14);
    json_array_foreach(golden, i, line) check_case(line);
}

/* ---- threads, columns of a product ---- */

/* So many texts and words that every block of columns has some. */
static struct tfidf *random_texts(int rows)
{
    const struct tfidf_opts opts = {1, 3, true};
    struct tfidf *tfidf;
    assert_ok(tfidf_create(&opts, &tfidf));
    for (int r = 0; r < rows; r++) {
        struct str text = {0};
        assert_ok(str_add(&text, "", 0));
        for (uint32_t i = 0; i < 60; i++) {
            uint32_t word = philox4x32(7, (uint32_t)r, i, 0, 0).v[0];
            assert_ok(str_addf(&text, "w%u ", word % (word & 1 ? 12 : 400)));
        }
        assert_ok(tfidf_add(tfidf, text.p, text.n));
        str_release(&text);
    }
    assert_ok(tfidf_finish(tfidf));
    return tfidf;
}

static void test_threads_and_company_change_no_bit(void **state)
{
    enum { ROWS = 90, FIT = 60, K = 21 }; /* more than go together */
    const struct tfidf_fit_opts opts = {.min_df = 1, .max_df = 1, .sublinear = true};
    static double a[FIT * K], first[FIT * K], z[FIT * K], one[FIT], alone[FIT], cross[(ROWS - FIT) * K], again[(ROWS - FIT) * K];
    struct tfidf *tfidf = random_texts(ROWS);
    struct tfidf_fit *fit;
    int64_t rows[ROWS];
    (void)state;
    for (int r = 0; r < ROWS; r++)
        rows[r] = r;
    for (int i = 0; i < FIT * K; i++)
        a[i] = (double)philox4x32(8, (uint32_t)i, 0, 0, 0).v[0] / 4e9 - 0.5;
    for (int threads = 1; threads <= 3; threads++) {
        threads_set(threads);
        assert_ok(tfidf_fit_create(tfidf, &opts, rows, FIT, &fit));
        assert_ok(tfidf_gram(fit, K, a, threads == 1 ? first : z));
        assert_ok(tfidf_cross(fit, rows + FIT, ROWS - FIT, K, a, threads == 1 ? cross : again));
        if (threads > 1) {
            assert_memory_equal(z, first, sizeof z);
            assert_memory_equal(again, cross, sizeof again);
        }
        for (int c = 0; c < K; c += 5) { /* a column by itself */
            for (int i = 0; i < FIT; i++)
                one[i] = a[i * K + c];
            assert_ok(tfidf_gram(fit, 1, one, alone));
            for (int i = 0; i < FIT; i++)
                assert_true(alone[i] == first[i * K + c]);
        }
        tfidf_fit_destroy(fit);
    }
    threads_set(1);
    tfidf_destroy(tfidf);
}

/* ---- what is refused ---- */

static void test_refusals(void **state)
{
    static const char *const texts[] = {"one two", "", "two three", "a b ! ?"};
    struct tfidf_opts opts = {1, 1, true};
    struct tfidf_fit_opts fit_opts = {.min_df = 1, .max_df = 1};
    struct tfidf *tfidf;
    struct tfidf_fit *fit;
    const int64_t wordless[] = {1, 3}, twice[] = {0, 0}, beyond[] = {4}, both[] = {0, 2}, *mine = both;
    double a[2] = {1, 1}, z[2];
    (void)state;
    assert_fails(tfidf_create(&(struct tfidf_opts){0, 2, true}, &tfidf), STATUS_ARG, "0 to 2");
    assert_fails(tfidf_create(&(struct tfidf_opts){3, 2, true}, &tfidf), STATUS_ARG, "3 to 2");
    assert_fails(tfidf_create(&(struct tfidf_opts){1, 9, true}, &tfidf), STATUS_ARG, "1 to 9");
    assert_ok(tfidf_create(&opts, &tfidf));
    for (int i = 0; i < 4; i++)
        assert_ok(tfidf_add(tfidf, texts[i], strlen(texts[i])));
    assert_ok(tfidf_finish(tfidf));
    assert_fails(tfidf_add(tfidf, "x", 1), STATUS_ARG, "no more rows");
    assert_fails(tfidf_fit_create(tfidf, &fit_opts, wordless, 2, &fit), STATUS_DATA, "none of the 2 texts has a term");
    assert_null(fit);
    assert_fails(tfidf_fit_create(tfidf, &fit_opts, twice, 2, &fit), STATUS_ARG, "row 0 of 4");
    assert_fails(tfidf_fit_create(tfidf, &fit_opts, beyond, 1, &fit), STATUS_ARG, "row 4 of 4");
    fit_opts.min_df = 3;
    fit_opts.max_df = 5;
    assert_fails(tfidf_fit_create(tfidf, &fit_opts, mine, 2, &fit), STATUS_DATA, "none of 3 terms");
    fit_opts.max_df = 2;
    assert_fails(tfidf_fit_create(tfidf, &fit_opts, mine, 2, &fit), STATUS_CONFIG, "at most 2 of 2 rows");
    fit_opts = (struct tfidf_fit_opts){.min_df = 1, .max_df = 1};
    assert_ok(tfidf_fit_create(tfidf, &fit_opts, mine, 2, &fit));
    assert_fails(tfidf_cross(fit, both, 1, 1, a, z), STATUS_ARG, "not fitted on");
    assert_fails(tfidf_cross(fit, beyond, 1, 1, a, z), STATUS_ARG, "row 4 of 4");
    z[0] = z[1] = 7.0;
    assert_ok(tfidf_cross(fit, wordless, 2, 1, a, z)); /* texts without a term are zero vectors */
    assert_true(z[0] == 0.0 && z[1] == 0.0);
    tfidf_fit_destroy(fit);
    tfidf_destroy(tfidf);

    assert_ok(tfidf_create(&opts, &tfidf)); /* no rows, and no words at all */
    assert_ok(tfidf_finish(tfidf));
    assert_fails(tfidf_fit_create(tfidf, &fit_opts, mine, 0, &fit), STATUS_DATA, "none of the 0 texts");
    tfidf_destroy(tfidf);
}

/* A term that only other rows have is in no vocabulary, and does not enter their norm. */
static void test_other_rows_give_no_terms(void **state)
{
    static const char *const texts[] = {"grain price", "oil price", "wheat wheat price"};
    const struct tfidf_opts opts = {1, 1, true};
    const struct tfidf_fit_opts fit_opts = {.min_df = 1, .max_df = 1, .sublinear = true};
    const int64_t mine[] = {0, 1}, other[] = {2};
    double a[4] = {1, 0, 0, 1}, z[2];
    struct tfidf *tfidf;
    struct tfidf_fit *fit;
    (void)state;
    assert_ok(tfidf_create(&opts, &tfidf));
    for (int i = 0; i < 3; i++)
        assert_ok(tfidf_add(tfidf, texts[i], strlen(texts[i])));
    assert_ok(tfidf_finish(tfidf));
    assert_ok(tfidf_fit_create(tfidf, &fit_opts, mine, 2, &fit));
    assert_int_equal(tfidf_fit_features(fit), 3);
    assert_ok(tfidf_cross(fit, other, 1, 2, a, z));
    double price = 1.0, own = log(3.0 / 2.0) + 1.0; /* idf of what both have, and of what one has */
    double wanted = price / sqrt(price * price + own * own); /* the third row is "price" alone: (0, 0, 1) */
    support_assert_near(z[0], wanted, BOUND, "product with the first row");
    support_assert_near(z[1], wanted, BOUND, "product with the second row");
    tfidf_fit_destroy(fit);
    tfidf_destroy(tfidf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_scikit_learn),
        cmocka_unit_test(test_threads_and_company_change_no_bit),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_other_rows_give_no_terms),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
