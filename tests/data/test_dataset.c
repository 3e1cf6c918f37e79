/* test_dataset.c - rows in, prepared file, rows out; the same bytes whatever the parts; failures that name the row. */
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "data/row_time.h"
#include "data/text.h"
#include "tests/support/support.h"

static struct tokenizer *tokenizer;
static struct tokenizer_info info;
static const char *const words[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "red",
                                    "green", "blue", "##ish"};
enum { PAD, UNK, CLS, SEP, MASK, A, B, C, D, E, RED, GREEN, BLUE, ISH, VOCAB };

static int open_tokenizer(void **state)
{
    struct str vocab = {0};
    char *folder;
    (void)state;
    for (int i = 0; i < VOCAB; i++)
        assert_ok(str_addf(&vocab, "%s\n", words[i]));
    assert_ok(path_join(support_folder(), "tokenizer", &folder));
    assert_ok(folder_make(folder));
    (void)support_file("tokenizer/vocab.txt", vocab.p, vocab.n);
    assert_ok(tokenizer_open(folder, &tokenizer));
    tokenizer_get_info(tokenizer, &info);
    str_release(&vocab);
    mem_free(folder);
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static const char *place(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", support_folder(), name);
    return p;
}

static struct text_field field(const char *s)
{
    return (struct text_field){s, s == NULL ? 0 : strlen(s)};
}

static struct text_row text_row(int64_t row, const char *text, const char *pair, const char *label)
{
    return (struct text_row){.row = row, .byte_offset = 10 * row, .text = field(text), .pair = field(pair),
                             .label = field(label)};
}

static void add(struct dataset_part *part, struct text_row row)
{
    assert_ok(dataset_part_add(part, tokenizer, &row, true));
}

static struct dataset_write_opts write_opts(const char *path, enum label_kind kind)
{
    return (struct dataset_write_opts){.path = path, .source = "train.tsv", .source_hash = 0x1234, .label_kind = kind,
                                       .tokenizer = &info, .keep_text = true};
}

static struct dataset *open_dataset(const char *path, int max_length)
{
    struct dataset *ds;
    struct dataset_opts o = {.path = path, .max_length = max_length};
    assert_ok(dataset_open(&o, &ds));
    return ds;
}

/* rows of many shapes; every column is used */
static void many_rows(int64_t rows, struct text_row *out, struct str *store)
{
    size_t (*at)[6] = calloc((size_t)rows, sizeof *at);
    for (int64_t i = 0; i < rows; i++) {
        at[i][0] = store->n;
        for (int64_t k = 0; k < i * 7 % 23; k++)
            assert_ok(str_addf(store, "%s ", words[5 + (i * 3 + k * k) % 8]));
        at[i][1] = store->n;
        for (int64_t k = 0; k < i * 5 % 11; k++)
            assert_ok(str_addf(store, "%s ", words[5 + (i + k) % 8]));
        at[i][2] = store->n;
        assert_ok(str_addf(store, "label%lld", (long long)(i * 13 % 5)));
        at[i][3] = store->n;
        assert_ok(str_addf(store, "g%lld", (long long)(i * 31 % 17)));
        at[i][4] = store->n;
        assert_ok(str_addf(store, "id-%lld", (long long)i));
        at[i][5] = store->n;
        assert_ok(str_addf(store, "%g", (double)(i % 4) + 0.5));
    }
    for (int64_t i = 0; i < rows; i++) {
        size_t end = i + 1 < rows ? at[i + 1][0] : store->n;
        const char *p = store->p;
        out[i] = (struct text_row){
            .row = 2 * i,
            .byte_offset = 100 * i,
            .text = {p + at[i][0], at[i][1] - at[i][0]},
            .pair = {i % 3 == 0 ? NULL : p + at[i][1], i % 3 == 0 ? 0 : at[i][2] - at[i][1]},
            .label = {p + at[i][2], at[i][3] - at[i][2]},
            .group = {p + at[i][3], at[i][4] - at[i][3]},
            .id = {i == 4 ? NULL : p + at[i][4], i == 4 ? 0 : at[i][5] - at[i][4]},
            .weight = {p + at[i][5], end - at[i][5]},
        };
    }
    free(at);
}

static void test_rows_come_back(void **state)
{
    struct dataset_part part = {0};
    struct dataset_info got;
    struct str text = {0}, pair = {0};
    struct batch batch = {0};
    int64_t source_row, offset;
    const char *path = place("rows.h5");
    (void)state;
    add(&part, text_row(0, "a b", NULL, "yes"));
    add(&part, text_row(7, "c reddish", "d", "no"));
    add(&part, text_row(9, "", "", "yes"));
    struct dataset_write_opts o = write_opts(path, LABEL_CLASS);
    assert_ok(dataset_write(&o, &part));
    struct dataset *ds = open_dataset(path, 16);
    dataset_get_info(ds, &got);
    assert_int_equal(got.rows, 3);
    assert_int_equal(got.vocab_size, VOCAB);
    assert_int_equal(got.cls, CLS);
    assert_int_equal(got.sep, SEP);
    assert_int_equal(got.pad, PAD);
    assert_true(got.has_pairs && got.has_text && !got.has_groups && !got.has_ids && !got.has_weights);
    assert_int_equal(got.label_kind, LABEL_CLASS);
    assert_int_equal(got.classes, 2);
    assert_string_equal(got.names[0], "no");
    assert_string_equal(got.names[1], "yes");
    assert_string_equal(got.source, "train.tsv");
    assert_string_equal(got.tokenizer_kind, "WordPiece");
    support_assert_contains(got.tool, "cohort ");
    assert_true(got.tokenizer_hash == info.hash);
    assert_int_equal(got.source_hash, 0x1234);
    assert_int_equal(dataset_classes(ds)[0], 1);
    assert_int_equal(dataset_classes(ds)[1], 0);
    assert_null(dataset_values(ds));
    assert_null(dataset_multi(ds));
    assert_null(dataset_weights(ds));
    assert_null(dataset_groups(ds));

    const int64_t rows[] = {1, 2, 0, 1};
    struct id_list pieces = {0};
    assert_ok(tokenizer_encode(tokenizer, "c reddish", 9, &pieces));
    assert_ok(dataset_read(ds, rows, 4, &batch));
    assert_int_equal(batch.rows, 4);
    int n = (int)pieces.n;
    assert_int_equal(batch.begin[0], 0);
    assert_int_equal(batch.begin[1], n + 4);
    assert_int_equal(batch.begin[2], n + 4 + 3);
    assert_int_equal(batch.begin[3], n + 4 + 3 + 4);
    assert_int_equal(batch.begin[4], batch.tokens);
    assert_int_equal(batch.max_row, n + 4);
    assert_int_equal(batch.ids[0], CLS);
    for (int i = 0; i < n; i++)
        assert_int_equal(batch.ids[1 + i], pieces.p[i]);
    assert_int_equal(batch.ids[n + 1], SEP);
    assert_int_equal(batch.ids[n + 2], D);
    assert_int_equal(batch.ids[n + 3], SEP);
    for (int i = 0; i < n + 4; i++)
        assert_int_equal(batch.types[i], i >= n + 2);
    static const int32_t rest[] = {CLS, SEP, SEP, CLS, A, B, SEP}, types[] = {0, 0, 1, 0, 0, 0, 0};
    for (int i = 0; i < 7; i++) {
        assert_int_equal(batch.ids[n + 4 + i], rest[i]);
        assert_int_equal(batch.types[n + 4 + i], types[i]);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(batch.row[i], rows[i]);
        assert_int_equal(batch.chunk[i], 0);
        assert_int_equal(dataset_length(ds, rows[i]), batch.begin[i + 1] - batch.begin[i]);
    }
    assert_ok(dataset_read(ds, rows, 0, &batch));
    assert_int_equal(batch.rows, 0);
    assert_int_equal(batch.begin[0], 0);

    assert_ok(dataset_row_text(ds, 1, &text, &pair));
    assert_string_equal(text.p, "c reddish");
    assert_string_equal(pair.p, "d");
    str_clear(&text);
    assert_ok(dataset_row_id(ds, 1, &text));
    assert_string_equal(text.p, "");
    assert_ok(dataset_row_source(ds, 1, &source_row, &offset));
    assert_int_equal(source_row, 7);
    assert_int_equal(offset, 70);
    assert_ok(dataset_verify(ds));

    const int64_t outside[] = {0, 3};
    assert_fails(dataset_read(ds, outside, 2, &batch), STATUS_ARG, "row 3 was asked for");
    assert_fails(dataset_row_text(ds, -1, &text, &pair), STATUS_ARG, "row -1");
    id_list_release(&pieces);
    str_release(&text);
    str_release(&pair);
    batch_release(&batch);
    dataset_close(ds);
    dataset_part_release(&part);
}

/* Rows longer than max_length are cut; only what survives is read, with the same result as cutting all of it. */
static void test_long_rows_are_cut_as_the_tokenizer_does(void **state)
{
    static const int sizes[][2] = {{3, -1},  {40, -1}, {6, -1},  {7, -1},  {3, 2},   {40, 2},  {2, 40},
                                   {40, 41}, {41, 40}, {40, 40}, {9, 8},   {8, 9},   {300, 9}, {9, 300},
                                   {0, 40},  {40, 0},  {10, 10}, {11, 10}, {5, 6},   {12, 12}};
    enum { N = sizeof sizes / sizeof sizes[0] };
    struct dataset_part part = {0};
    struct batch batch = {0};
    const char *path = place("long.h5");
    (void)state;
    for (int i = 0; i < N; i++) {
        struct str a = {0}, b = {0};
        assert_ok(str_add(&a, "", 0));
        for (int k = 0; k < sizes[i][0]; k++)
            assert_ok(str_addf(&a, "%s ", words[5 + k * k % 8]));
        for (int k = 0; k < sizes[i][1]; k++)
            assert_ok(str_addf(&b, "%s ", words[5 + k * (k + 3) % 8]));
        struct text_row row = text_row(i, a.p, sizes[i][1] < 0 ? NULL : b.p == NULL ? "" : b.p, NULL);
        add(&part, row);
        str_release(&a);
        str_release(&b);
    }
    struct dataset_write_opts o = write_opts(path, LABEL_NONE);
    assert_ok(dataset_write(&o, &part));
    for (int max_length = 4; max_length < 30; max_length++) {
        struct dataset *ds = open_dataset(path, max_length);
        int32_t ids[64], types[64];
        for (int64_t i = 0, at = 0; i < N; i++) {
            const int32_t *mine = part.tokens.p + at;
            int64_t na = part.split[i] == UINT32_MAX ? part.lengths[i] : part.split[i];
            int64_t nb = part.split[i] == UINT32_MAX ? -1 : part.lengths[i] - na;
            int n = tokenizer_join(&info, mine, na, mine + na, nb, max_length, ids, types);
            assert_ok(dataset_read(ds, &i, 1, &batch));
            assert_int_equal(batch.tokens, n);
            assert_int_equal(dataset_length(ds, i), n);
            assert_memory_equal(batch.ids, ids, (size_t)n * sizeof *ids);
            assert_memory_equal(batch.types, types, (size_t)n * sizeof *types);
            assert_int_equal(dataset_is_cut(ds, i), na + (nb < 0 ? 2 : nb + 3) > max_length);
            at += part.lengths[i];
        }
        dataset_close(ds);
    }
    struct dataset *ds;
    struct dataset_opts short_opts = {.path = path, .max_length = 3};
    assert_fails(dataset_open(&short_opts, &ds), STATUS_ARG, "wanted at least 4");
    assert_null(ds);
    batch_release(&batch);
    dataset_part_release(&part);
}

static uint64_t hash_of(const char *path)
{
    uint64_t hash;
    int64_t size;
    assert_ok(hash_file(path, &hash, &size));
    return hash;
}

/* The whole point of parts: ranks, threads and days leave no trace. */
static void test_same_bytes_for_any_division(void **state)
{
    enum { ROWS = 401 };
    static const int ranks[] = {1, 2, 3, 7};
    struct text_row *rows = calloc(ROWS, sizeof *rows);
    struct str store = {0};
    uint64_t first = 0;
    (void)state;
    many_rows(ROWS, rows, &store);
    for (int r = 0; r < 4; r++) {
        struct dataset_part whole = {0};
        const char *path = place("division.h5");
        omp_set_num_threads(r + 1);
        for (int rank = 0; rank < ranks[r]; rank++) {
            struct dataset_part mine = {0}, arrived = {0};
            struct str packed = {0};
            int64_t from = ROWS * rank / ranks[r], to = ROWS * (rank + 1) / ranks[r];
            assert_ok(dataset_part_add_many(&mine, tokenizer, rows + from, to - from, true));
            assert_ok(dataset_part_pack(&mine, &packed));
            assert_ok(dataset_part_unpack(packed.p, packed.n, &arrived));
            assert_ok(dataset_part_append(&whole, &arrived));
            dataset_part_release(&mine);
            dataset_part_release(&arrived);
            str_release(&packed);
        }
        struct dataset_write_opts o = write_opts(path, LABEL_CLASS);
        assert_ok(dataset_write(&o, &whole));
        if (r == 0) {
            struct timespec second = {1, 100000000}; /* times in headers count seconds */
            first = hash_of(path);
            (void)nanosleep(&second, NULL);
            struct dataset_part one_by_one = {0};
            for (int64_t i = 0; i < ROWS; i++)
                add(&one_by_one, rows[i]);
            assert_ok(dataset_write(&o, &one_by_one));
            dataset_part_release(&one_by_one);
        }
        assert_true(hash_of(path) == first);
        dataset_part_release(&whole);
    }
    struct dataset *ds = open_dataset(place("division.h5"), 32);
    struct dataset_info got;
    struct str id = {0};
    dataset_get_info(ds, &got);
    assert_int_equal(got.rows, ROWS);
    assert_int_equal(got.classes, 5);
    assert_int_equal(dataset_group_count(ds), 17);
    assert_string_equal(dataset_group_name(ds, dataset_groups(ds)[3]), "g8"); /* 3 * 31 % 17 */
    assert_int_equal(dataset_groups(ds)[0], 0);
    assert_int_equal(dataset_groups(ds)[1], 1);
    assert_int_equal(dataset_groups(ds)[17], 0);
    for (int64_t i = 0; i < ROWS; i++) {
        assert_int_equal(dataset_classes(ds)[i], i * 13 % 5);
        assert_true(dataset_weights(ds)[i] == (float)(i % 4) + 0.5f);
        str_clear(&id);
        assert_ok(dataset_row_id(ds, i, &id));
        assert_int_equal(id.n, rows[i].id.n);
        assert_memory_equal(id.p, rows[i].id.p == NULL ? "" : rows[i].id.p, id.n);
    }
    assert_ok(dataset_verify(ds));
    str_release(&id);
    dataset_close(ds);
    str_release(&store);
    free(rows);
}

/* Names decide what class 0 is, so their order must not come from the file's. */
static void test_names_are_sorted_and_numbers_by_value(void **state)
{
    static const struct {
        const char *labels[5], *sorted[4];
        int classes, at[5];
    } cases[] = {
        {{"b", "a", "B", "b", "aa"}, {"B", "a", "aa", "b"}, 4, {3, 1, 0, 3, 2}},
        {{"10", "9", "-1", "1.5", "9"}, {"-1", "1.5", "9", "10"}, 4, {3, 2, 0, 1, 2}},
        {{"10", "9", "x", "1", "9"}, {"1", "10", "9", "x"}, 4, {1, 2, 3, 0, 2}},
        {{"1.0", "1", "0", "0", "1"}, {"0", "1", "1.0"}, 3, {2, 1, 0, 0, 1}},
    };
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct dataset_part part = {0};
        struct dataset_info got;
        struct dataset_write_opts o = write_opts(place("names.h5"), LABEL_CLASS);
        for (int i = 0; i < 5; i++)
            add(&part, text_row(i, "a", NULL, cases[c].labels[i]));
        assert_ok(dataset_write(&o, &part));
        struct dataset *ds = open_dataset(o.path, 8);
        dataset_get_info(ds, &got);
        assert_int_equal(got.classes, cases[c].classes);
        for (int i = 0; i < got.classes; i++)
            assert_string_equal(got.names[i], cases[c].sorted[i]);
        for (int i = 0; i < 5; i++)
            assert_int_equal(dataset_classes(ds)[i], cases[c].at[i]);
        dataset_close(ds);
        dataset_part_release(&part);
    }
}

static void test_fixed_names_keep_their_order_and_refuse_others(void **state)
{
    static const char *const names[] = {"spam", "ham", "never"}, *const twice[] = {"x", "y", "x"};
    struct dataset_part part = {0};
    struct dataset_info got;
    (void)state;
    add(&part, text_row(0, "a", NULL, "ham"));
    add(&part, text_row(1, "a", NULL, "spam"));
    struct dataset_write_opts o = write_opts(place("fixed.h5"), LABEL_CLASS);
    o.names = names;
    o.classes = 3;
    assert_ok(dataset_write(&o, &part));
    struct dataset *ds = open_dataset(o.path, 8);
    dataset_get_info(ds, &got);
    assert_int_equal(got.classes, 3);
    assert_string_equal(got.names[2], "never");
    assert_int_equal(dataset_classes(ds)[0], 1);
    assert_int_equal(dataset_classes(ds)[1], 0);
    dataset_close(ds);
    add(&part, text_row(17, "a", NULL, "eggs"));
    assert_fails(dataset_write(&o, &part), STATUS_DATA,
                 "train.tsv, row 17: label \"eggs\" is not one of the 3 known: \"spam\", \"ham\", \"never\"");
    o.names = twice;
    assert_fails(dataset_write(&o, &part), STATUS_CONFIG, "labels 0 and 2 are both \"x\"");
    dataset_part_release(&part);
}

static void test_values_and_lists_of_labels(void **state)
{
    struct dataset_part part = {0};
    struct dataset_info got;
    (void)state;
    add(&part, text_row(0, "a", NULL, "1.5"));
    add(&part, text_row(1, "a", NULL, "-3"));
    struct dataset_write_opts o = write_opts(place("values.h5"), LABEL_VALUE);
    assert_ok(dataset_write(&o, &part));
    struct dataset *ds = open_dataset(o.path, 8);
    assert_true(dataset_values(ds)[0] == 1.5f && dataset_values(ds)[1] == -3);
    assert_null(dataset_classes(ds));
    assert_ok(dataset_verify(ds));
    dataset_close(ds);
    static const char *const bad[] = {"one", "1e60", "nan", "1 ", "0x10"};
    for (int i = 0; i < 5; i++) {
        struct dataset_part worse = {0};
        add(&worse, text_row(40 + i, "a", NULL, bad[i]));
        assert_fails(dataset_write(&o, &worse), STATUS_DATA, "is not a number");
        support_assert_contains(status_message(), "row 4");
        dataset_part_release(&worse);
    }
    dataset_part_release(&part);

    add(&part, text_row(0, "a", NULL, "wheat; corn;wheat"));
    add(&part, text_row(1, "a", NULL, ""));
    add(&part, text_row(2, "a", NULL, " ; acq ;"));
    o = write_opts(place("multi.h5"), LABEL_MULTI);
    o.label_separator = ";";
    assert_ok(dataset_write(&o, &part));
    ds = open_dataset(o.path, 8);
    dataset_get_info(ds, &got);
    assert_int_equal(got.classes, 3);
    assert_string_equal(got.names[0], "acq");
    static const int64_t begin[] = {0, 2, 2, 3};
    static const int32_t multi[] = {1, 2, 0};
    assert_memory_equal(dataset_multi_begin(ds), begin, sizeof begin);
    assert_memory_equal(dataset_multi(ds), multi, sizeof multi);
    assert_ok(dataset_verify(ds));
    dataset_close(ds);
    dataset_part_release(&part);
    add(&part, text_row(0, "a", NULL, ",")); /* no label at all in the whole file */
    o.label_separator = NULL;
    assert_ok(dataset_write(&o, &part));
    ds = open_dataset(o.path, 8);
    dataset_get_info(ds, &got);
    assert_int_equal(got.classes, 0);
    dataset_close(ds);
    dataset_part_release(&part);
}

static void test_times_and_folds_come_back(void **state)
{
    static const char *const days[] = {"2024-03-01", "1969-12-31", "2024-02-29T12:30:00Z"}, *const numbers[] = {"3", "-1.5", "1e9"};
    static const double seconds[] = {1709251200.0, -86400.0, 1709209800.0}, values[] = {3.0, -1.5, 1e9};
    static const char *const folds[] = {"b", NULL, "a"};
    (void)state;
    for (int dates = 0; dates < 2; dates++) {
        struct dataset_part part = {0}, arrived = {0};
        struct str packed = {0};
        struct dataset_info got;
        for (int i = 0; i < 3; i++) {
            struct text_row row = text_row(i, "a", NULL, "x");
            row.time = field(dates ? days[i] : numbers[i]);
            row.fold = field(folds[i]);
            add(&part, row);
        }
        assert_ok(dataset_part_pack(&part, &packed)); /* they travel between ranks */
        assert_ok(dataset_part_unpack(packed.p, packed.n, &arrived));
        struct dataset_write_opts o = write_opts(place("times.h5"), LABEL_CLASS);
        assert_ok(dataset_write(&o, &arrived));
        struct dataset *ds = open_dataset(o.path, 8);
        dataset_get_info(ds, &got);
        assert_true(got.has_times && got.has_folds);
        for (int i = 0; i < 3; i++) {
            assert_true(dataset_times(ds)[i] == (dates ? seconds : values)[i]);
            assert_string_equal(dataset_fold_names(ds)[dataset_folds(ds)[i]], folds[i] == NULL ? "" : folds[i]);
        }
        assert_int_equal(dataset_fold_name_count(ds), 3);
        assert_ok(dataset_verify(ds));
        dataset_close(ds);
        str_release(&packed);
        dataset_part_release(&part);
        dataset_part_release(&arrived);
    }
}

static void test_what_a_time_may_be(void **state)
{
    static const struct {
        const char *text;
        double time;
        bool date;
    } good_times[] = {
        {"0", 0, false},
        {"-12.5e3", -12500, false},
        {"20240301", 20240301, false},
        {"1970-01-01", 0, true},
        {"1970-01-01T00:00Z", 0, true},
        {"1970-01-01 01:00", 3600, true},
        {"1970-01-01T01:00:00.25", 3600.25, true},
        {"1970-01-01T00:00:00+01:00", -3600, true},
        {"1970-01-01T00:00:00-0130", 5400, true},
        {"1970-01-01T00:00:00+05", -18000, true},
        {"2000-02-29", 951782400, true},
        {"1900-03-01", -2203891200, true},
        {"0001-01-01", -62135596800, true},
        {"9999-12-31T23:59:60Z", 253402300800, true},
    };
    static const char *const bad_times[] = {"", "x", "nan", "inf", "2024-13-01", "2024-00-01", "2024-02-30", "2023-02-29",
                                            "1900-02-29", "2024-3-1", "2024-03-01T", "2024-03-01T24:00", "2024-03-01T12",
                                            "2024-03-01T12:60", "2024-03-01T12:30:61", "2024-03-01T12:30:", "2024-03-01T12:30:00.",
                                            "2024-03-01T12:30x", "2024-03-01x", "0000-01-01", "01/03/2024", "2024-03-01 12:30 ",
                                            "2024-03-01T12:30+24:00", "2024-03-01T12:30+1", " 2024-03-01", "1970-01-01T00:00:00+05:",
                                            "99999999999999999999999999999999999999999999999999999999999999999999"};
    double time = 7;
    bool date = false;
    (void)state;
    for (size_t i = 0; i < sizeof good_times / sizeof good_times[0]; i++) {
        const char *text = good_times[i].text;
        if (!row_time_parse(text, strlen(text), &time, &date) || time != good_times[i].time || date != good_times[i].date)
            fail_msg("\"%s\" is %.17g, wanted %.17g", text, time, good_times[i].time);
    }
    for (int year = 1583, days = -141350; year < 2400; year++) { /* against days counted one year after the other */
        char text[24];
        bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        (void)snprintf(text, sizeof text, "%04d-12-31", year);
        assert_true(row_time_parse(text, 10, &time, &date));
        days += leap ? 366 : 365;
        assert_true(time == 86400.0 * days);
    }
    time = 7;
    for (size_t i = 0; i < sizeof bad_times / sizeof bad_times[0]; i++) {
        if (row_time_parse(bad_times[i], strlen(bad_times[i]), &time, &date))
            fail_msg("\"%s\" is %.17g", bad_times[i], time);
    }
    assert_true(time == 7);
    assert_false(row_time_parse("1\0", 2, &time, &date));
}

static void refuse(struct text_row row, enum label_kind kind, enum status wanted, const char *text)
{
    struct dataset_part part = {0};
    struct text_row good = text_row(0, "a", NULL, "1");
    struct dataset_write_opts o = write_opts(place("refused.h5"), kind);
    good.group = field("g");
    good.weight = field("1");
    good.time = field("2024-03-01");
    good.fold = field("a");
    add(&part, good);
    enum status st = dataset_part_add(&part, tokenizer, &row, true);
    if (st == STATUS_OK)
        st = dataset_write(&o, &part);
    assert_fails(st, wanted, text);
    assert_false(file_exists(o.path));
    dataset_part_release(&part);
}

static void test_bad_rows_are_named(void **state)
{
    struct text_row row = text_row(33, "b", NULL, "2");
    (void)state;
    row.group = field("h");
    row.weight = field("0");
    row.time = field("2024-03-02");
    struct text_row bad = row;
    bad.time = field(NULL);
    refuse(bad, LABEL_CLASS, STATUS_DATA, "train.tsv, row 33: no time, though other rows have one");
    bad.time = field("");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: no time");
    bad.time = field("March");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: time \"March\" is neither a number nor a date");
    bad.time = field("7");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: its time is a number, those before it are dates");
    bad.time = row.time;
    bad.fold = field("\xFF");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: the fold is not UTF-8 text");
    bad = row;
    bad.label = field("");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "train.tsv, row 33: no label");
    bad.label = field(NULL);
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: no label");
    refuse(bad, LABEL_VALUE, STATUS_DATA, "row 33: no label");
    refuse(bad, LABEL_MULTI, STATUS_DATA, "row 33: no label");
    bad.label = (struct text_field){"x\0y", 3};
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: the label is not UTF-8 text");
    bad = row;
    bad.group = field("");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: no group");
    bad.group = field(NULL);
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: no group");
    bad = row;
    bad.weight = field(NULL);
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: no weight");
    bad.weight = field("-1");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: weight \"-1\"");
    bad.weight = field("heavy");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: weight \"heavy\"");
    bad.weight = field("1e39");
    refuse(bad, LABEL_CLASS, STATUS_DATA, "row 33: weight \"1e39\"");
    struct dataset_part none = {0};
    struct dataset_write_opts o = write_opts(place("refused.h5"), LABEL_NONE);
    assert_fails(dataset_write(&o, &none), STATUS_DATA, "no rows");
}

/* A row that cannot be added leaves no trace, alone or among many; the first bad one is named whatever the threads. */
static void test_failed_rows_leave_the_part_as_it_was(void **state)
{
    enum { ROWS = 300 };
    struct text_row *rows = calloc(ROWS, sizeof *rows);
    struct str store = {0}, before = {0}, after = {0};
    struct dataset_part part = {0};
    (void)state;
    many_rows(ROWS, rows, &store);
    assert_ok(dataset_part_add_many(&part, tokenizer, rows, 10, true));
    assert_ok(dataset_part_pack(&part, &before));
    rows[150].weight = field("x");
    rows[290].weight = field("y");
    for (int threads = 1; threads < 5; threads++) {
        omp_set_num_threads(threads);
        assert_fails(dataset_part_add_many(&part, tokenizer, rows, ROWS, true), STATUS_DATA, "row 300: weight \"x\"");
        str_clear(&after);
        assert_ok(dataset_part_pack(&part, &after));
        assert_int_equal(before.n, after.n);
        assert_memory_equal(before.p, after.p, before.n);
    }
    assert_fails(dataset_part_add(&part, tokenizer, &rows[290], true), STATUS_DATA, "row 580");
    str_clear(&after);
    assert_ok(dataset_part_pack(&part, &after));
    assert_memory_equal(before.p, after.p, before.n);
    str_release(&before);
    str_release(&after);
    str_release(&store);
    dataset_part_release(&part);
    free(rows);
}

static void test_text_may_be_left_out(void **state)
{
    struct dataset_part part = {0};
    struct dataset_info got;
    struct str text = {0}, pair = {0};
    struct text_row row = text_row(0, "a b c", "d", "x");
    struct dataset_write_opts o = write_opts(place("notext.h5"), LABEL_CLASS);
    (void)state;
    o.keep_text = false;
    assert_ok(dataset_part_add(&part, tokenizer, &row, false));
    assert_ok(dataset_write(&o, &part));
    assert_int_equal(part.bytes.n, 1); /* the label */
    struct dataset *ds = open_dataset(o.path, 16);
    dataset_get_info(ds, &got);
    assert_false(got.has_text);
    assert_true(got.has_pairs);
    assert_ok(dataset_row_text(ds, 0, &text, &pair));
    assert_string_equal(text.p, "");
    assert_string_equal(pair.p, "");
    assert_int_equal(dataset_length(ds, 0), 7);
    str_release(&text);
    str_release(&pair);
    dataset_close(ds);
    dataset_part_release(&part);
}

/* What two ranks exchange is checked like a file: truncated anywhere, or with any byte changed, it never crashes. */
static void test_packed_parts_are_checked(void **state)
{
    struct text_row rows[12];
    struct str store = {0}, packed = {0};
    struct dataset_part part = {0}, got = {0};
    (void)state;
    many_rows(12, rows, &store);
    assert_ok(dataset_part_add_many(&part, tokenizer, rows, 12, true));
    assert_ok(dataset_part_pack(&part, &packed));
    for (size_t n = 0; n < packed.n; n++) {
        assert_int_equal(dataset_part_unpack(packed.p, n, &got), STATUS_FORMAT);
        assert_null(got.tokens.p);
    }
    for (size_t i = 0; i < packed.n; i++) {
        char *bytes = malloc(packed.n); /* its own block, so that a read behind it is seen */
        memcpy(bytes, packed.p, packed.n);
        bytes[i] = (char)(bytes[i] ^ (1 << i % 8));
        if (dataset_part_unpack(bytes, packed.n, &got) == STATUS_OK)
            dataset_part_release(&got);
        free(bytes);
    }
    assert_ok(dataset_part_append(&got, &(struct dataset_part){0})); /* a rank without rows */
    str_release(&packed);
    assert_ok(dataset_part_pack(&got, &packed));
    assert_ok(dataset_part_unpack(packed.p, packed.n, &got));
    assert_int_equal(got.rows, 0);
    str_release(&store);
    str_release(&packed);
    dataset_part_release(&part);
    dataset_part_release(&got);
}

/* The content hash follows what can change a result, and only that. */
static void test_content_hash_names_the_content(void **state)
{
    uint64_t hashes[11];
    (void)state;
    for (int variant = 0; variant < 11; variant++) {
        struct dataset_part part = {0};
        struct dataset_info got;
        struct dataset_write_opts o = write_opts(place("hash.h5"), LABEL_CLASS);
        struct text_row row = text_row(0, variant == 1 ? "a c" : "a b", variant == 2 ? "" : NULL, NULL);
        row.label = field(variant == 3 ? "y" : "x");
        if (variant == 4)
            row.weight = field("2");
        if (variant == 5)
            row.group = field("g");
        if (variant == 6)
            row.time = field("2");
        if (variant == 7)
            row.time = field("3");
        if (variant == 8)
            row.fold = field("a");
        if (variant == 9)
            row.fold = field("train");
        if (variant == 10) { /* where it came from does not matter */
            row.row = 99;
            row.id = field("me");
            o.source = "elsewhere";
            o.keep_text = false;
        }
        add(&part, row);
        assert_ok(dataset_write(&o, &part));
        struct dataset *ds = open_dataset(o.path, 8);
        dataset_get_info(ds, &got);
        hashes[variant] = got.content_hash;
        for (int i = 0; i < variant && variant < 10; i++)
            assert_true(hashes[i] != hashes[variant]);
        dataset_close(ds);
        dataset_part_release(&part);
    }
    assert_true(hashes[10] == hashes[0]);
    assert_true(hashes[0] == 0x20de3c793bd33f65); /* files of earlier versions keep theirs */
}

static void big_part(struct dataset_part *part, int64_t rows)
{
    struct text_row row = text_row(0, "a b c d e red green blue a b c d e red green blue", NULL, "x");
    for (int64_t i = 0; i < rows; i++)
        add(part, row);
}

static int count_files(const char *folder)
{
    char **names;
    size_t n;
    assert_ok(folder_list(folder, &names, &n));
    folder_list_free(names, n);
    return (int)n;
}

/* Files may not grow beyond a limit: the sentence comes before anything is written, and SIGXFSZ never does. */
static void test_file_size_limit(void **state)
{
    struct dataset_part small = {0}, part = {0};
    struct rlimit old, low;
    char *folder;
    (void)state;
    assert_ok(path_join(support_folder(), "limited", &folder));
    assert_ok(folder_make(folder));
    struct dataset_write_opts o = write_opts(place("limited/x.h5"), LABEL_CLASS);
    big_part(&small, 3);
    big_part(&part, 3000);
    assert_ok(dataset_write(&o, &small));
    uint64_t before = hash_of(o.path);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 150000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    enum status st = dataset_write(&o, &part);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_fails(st, STATUS_IO, "ulimit -f");
    assert_true(hash_of(o.path) == before);
    assert_int_equal(count_files(folder), 1);
    mem_free(folder);
    dataset_part_release(&small);
    dataset_part_release(&part);
}

/* A write that fails half-way (the disk filled up under us): old file intact, no litter, and the library lives on. */
static void test_failing_write_leaves_the_old_file(void **state)
{
    struct dataset_part small = {0}, part = {0};
    char *folder;
    (void)state;
    assert_ok(path_join(support_folder(), "failing", &folder));
    assert_ok(folder_make(folder));
    struct dataset_write_opts o = write_opts(place("failing/x.h5"), LABEL_CLASS);
    big_part(&small, 3);
    big_part(&part, 20000); /* more than one write buffer */
    assert_ok(dataset_write(&o, &small));
    uint64_t before = hash_of(o.path);
    for (int visit = 1; visit <= 2; visit++) {
        char fault[32];
        (void)snprintf(fault, sizeof fault, "data.write:%d", visit);
        assert_int_equal(setenv("COHORT_FAULT", fault, 1), 0);
        assert_ok(fault_setup(0));
        assert_fails(dataset_write(&o, &part), STATUS_IO, "data.write");
        assert_true(hash_of(o.path) == before);
        assert_int_equal(count_files(folder), 1);
    }
    assert_int_equal(unsetenv("COHORT_FAULT"), 0);
    assert_ok(fault_setup(0));
    assert_ok(dataset_write(&o, &part));
    struct dataset *ds = open_dataset(o.path, 8);
    assert_ok(dataset_verify(ds));
    dataset_close(ds);
    mem_free(folder);
    dataset_part_release(&small);
    dataset_part_release(&part);
}

/* A real full disk, where this process may mount one. */
static void test_full_disk(void **state)
{
    struct dataset_part small = {0}, part = {0};
    char *folder;
    (void)state;
    assert_ok(path_join(support_folder(), "small", &folder));
    assert_ok(folder_make(folder));
    if (mount("none", folder, "tmpfs", 0, "size=256k") != 0) {
        print_message("SKIP full disk: cannot mount: %s\n", strerror(errno));
        mem_free(folder);
        skip();
    }
    struct dataset_write_opts o = write_opts(place("small/x.h5"), LABEL_CLASS);
    big_part(&small, 3);
    big_part(&part, 6000);
    enum status first = dataset_write(&o, &small), second = dataset_write(&o, &part);
    char sentence[512];
    (void)snprintf(sentence, sizeof sentence, "%s", status_message());
    int files = count_files(folder);
    struct dataset_opts open_opts = {.path = o.path, .max_length = 8};
    struct dataset *ds = NULL;
    enum status third = dataset_open(&open_opts, &ds);
    dataset_close(ds);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(first, STATUS_OK);
    assert_int_equal(second, STATUS_IO);
    support_assert_contains(sentence, "the disk has ");
    assert_int_equal(third, STATUS_OK);
    assert_int_equal(files, 1);
    mem_free(folder);
    dataset_part_release(&small);
    dataset_part_release(&part);
}

static void test_source_path_may_be_any_bytes(void **state)
{
    struct dataset_part part = {0};
    struct dataset_info got;
    struct dataset_write_opts o = write_opts(place("source.h5"), LABEL_NONE);
    (void)state;
    o.source = "d\xE9j\xC3\xA0.tsv";
    add(&part, text_row(0, "a", NULL, NULL));
    assert_ok(dataset_write(&o, &part));
    struct dataset *ds = open_dataset(o.path, 8);
    dataset_get_info(ds, &got);
    assert_string_equal(got.source, "d?j\xC3\xA0.tsv");
    dataset_close(ds);
    dataset_part_release(&part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_come_back),
        cmocka_unit_test(test_long_rows_are_cut_as_the_tokenizer_does),
        cmocka_unit_test(test_same_bytes_for_any_division),
        cmocka_unit_test(test_names_are_sorted_and_numbers_by_value),
        cmocka_unit_test(test_fixed_names_keep_their_order_and_refuse_others),
        cmocka_unit_test(test_values_and_lists_of_labels),
        cmocka_unit_test(test_times_and_folds_come_back),
        cmocka_unit_test(test_what_a_time_may_be),
        cmocka_unit_test(test_bad_rows_are_named),
        cmocka_unit_test(test_failed_rows_leave_the_part_as_it_was),
        cmocka_unit_test(test_text_may_be_left_out),
        cmocka_unit_test(test_packed_parts_are_checked),
        cmocka_unit_test(test_content_hash_names_the_content),
        cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_failing_write_leaves_the_old_file),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_source_path_may_be_any_bytes),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
