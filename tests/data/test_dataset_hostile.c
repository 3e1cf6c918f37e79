/*
 * test_dataset_hostile.c - prepared files that lie: each is refused with a sentence, none crashes the process.
 *
 * Most are made from a good file with the HDF5 library, with headers of its oldest and of its newest form; the last
 * tests damage the file's bytes, some with the checksums of headers repaired, so that the parser is reached.
 */
#include <fcntl.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "tests/support/support.h"

enum { ROWS = 5, TOKENS = 12, VOCAB = 100 };

static char good[256], bad[256];
static H5F_libver_t form = H5F_LIBVER_EARLIEST; /* of what the library writes into a file */

/* Five rows filled by hand, so that no tokenizer is needed, with every column and labels that suit any kind. */
static void write_good(const char *path, enum label_kind kind)
{
    static const int64_t lengths[ROWS] = {3, 0, 4, 1, 4};
    static const uint32_t split[ROWS] = {UINT32_MAX, UINT32_MAX, 2, 0, 4};
    static const char *const fields[ROWS][PART_FIELDS] = {
        {"one two", NULL, "1", "g", "r0", "1.5", "a"},   {"", NULL, "2", "h", "r1", "-2", NULL},
        {"three", "four", "1", "g", "r2", "0", "b"},     {"", "f\xC3\xBCnf", "3", "g", NULL, "1e9", "a"},
        {"six", "", "2", "i", "r4", "7", "c"},
    };
    static const struct tokenizer_info info = {.kind = "WordPiece", .vocab_size = VOCAB, .cls = 2, .sep = 3, .unk = 1, .mask = 4,
                                               .hash = 0xABCD, .lowercase = true, .model_max_length = 512};
    struct dataset_part part = {0};
    struct str bytes = {0};
    part.rows = ROWS;
    part.tokens.n = TOKENS;
    assert_ok(mem_alloc(TOKENS, sizeof *part.tokens.p, "tokens", &part.tokens.p));
    assert_ok(mem_alloc(ROWS, sizeof *part.lengths, "rows", &part.lengths));
    assert_ok(mem_alloc(ROWS, sizeof *part.split, "rows", &part.split));
    assert_ok(mem_alloc(ROWS, sizeof *part.source_row, "rows", &part.source_row));
    assert_ok(mem_alloc(ROWS, sizeof *part.source_offset, "rows", &part.source_offset));
    assert_ok(mem_alloc(ROWS, sizeof *part.weight, "rows", &part.weight));
    assert_ok(mem_alloc(ROWS * PART_FIELDS, sizeof *part.byte_lengths, "rows", &part.byte_lengths));
    for (int i = 0; i < TOKENS; i++)
        part.tokens.p[i] = 10 + i;
    for (int i = 0; i < ROWS; i++) {
        part.lengths[i] = lengths[i];
        part.split[i] = split[i];
        part.source_row[i] = 100 + i;
        part.source_offset[i] = 1000 + i;
        part.weight[i] = 1;
        for (int f = 0; f < PART_FIELDS; f++) {
            const char *s = fields[i][f];
            part.byte_lengths[i * PART_FIELDS + f] = s == NULL ? -1 : (int64_t)strlen(s);
            assert_ok(str_add(&bytes, s == NULL ? "" : s, s == NULL ? 0 : strlen(s)));
        }
    }
    part.bytes = bytes;
    struct dataset_write_opts o = {.path = path, .source = "train.tsv", .label_kind = kind, .tokenizer = &info,
                                   .keep_text = true};
    assert_ok(dataset_write(&o, &part));
    dataset_part_release(&part);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(good, sizeof good, "%s/good.h5", support_folder());
    (void)snprintf(bad, sizeof bad, "%s/bad.h5", support_folder());
    write_good(good, LABEL_CLASS);
    return 0;
}

static enum status try_open(const char *path)
{
    struct dataset *ds;
    struct dataset_opts o = {.path = path, .max_length = 16};
    enum status st = dataset_open(&o, &ds);
    if (st != STATUS_OK)
        assert_null(ds);
    dataset_close(ds);
    return st;
}

/* A copy of the good file, open for the library to spoil. */
static hid_t spoil(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    assert_true(H5Pset_libver_bounds(access, form, H5F_LIBVER_LATEST) >= 0);
    assert_ok(file_copy(good, bad));
    hid_t file = H5Fopen(bad, H5F_ACC_RDWR, access);
    assert_true(file >= 0);
    (void)H5Pclose(access);
    return file;
}

static void spoilt(hid_t file, const char *sentence)
{
    assert_true(H5Fclose(file) >= 0);
    assert_fails(try_open(bad), STATUS_FORMAT, sentence);
    support_assert_contains(status_message(), "bad.h5");
}

/* Put another dataset in the place of name. values may be NULL: not written. */
static void replace(hid_t file, const char *name, hid_t type, int ndims, const hsize_t *dims, hid_t creation,
                    hid_t memory_type, const void *values)
{
    (void)H5Ldelete(file, name, H5P_DEFAULT);
    hid_t space = ndims < 0 ? H5Screate(H5S_NULL) : H5Screate_simple(ndims, dims, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(set >= 0);
    if (values != NULL)
        assert_true(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    assert_true(H5Dclose(set) >= 0);
    (void)H5Sclose(space);
}

/* Overwrite values in place. */
static void poke(hid_t file, const char *name, hid_t memory_type, const void *values)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(set >= 0);
    assert_true(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    assert_true(H5Dclose(set) >= 0);
}

static void test_good_file_opens(void **state)
{
    (void)state;
    assert_ok(try_open(good));
}

static void test_what_is_no_prepared_file(void **state)
{
    static const char text[] = "label\ttext\n1\thello\n------------------------------------------------------------";
    char path[256];
    (void)state;
    (void)snprintf(path, sizeof path, "%s/missing.h5", support_folder());
    assert_fails(try_open(path), STATUS_NOINPUT, "missing.h5: No such file");
    assert_fails(try_open(support_folder()), STATUS_NOINPUT, "not a file");
    (void)snprintf(path, sizeof path, "%s/pipe.h5", support_folder());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(try_open(path), STATUS_NOINPUT, "not a file");
    assert_int_equal(unlink(path), 0);
    assert_fails(try_open(support_file("empty.h5", "", 0)), STATUS_FORMAT, "no HDF5 file: it has 0 bytes");
    assert_fails(try_open(support_file("text.h5", text, sizeof text)), STATUS_FORMAT, "no HDF5 file: it begins");
    hid_t file = H5Fcreate(bad, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Fclose(file) >= 0);
    assert_fails(try_open(bad), STATUS_FORMAT, "superblock 0, wanted 2 or 3");
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
    (void)H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    file = H5Fcreate(bad, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    assert_true(H5Fclose(file) >= 0);
    assert_fails(try_open(bad), STATUS_FORMAT, "no attribute \"format\": not a prepared dataset");
    (void)H5Pset_userblock(creation, 512);
    file = H5Fcreate(bad, H5F_ACC_TRUNC, creation, access);
    assert_true(H5Fclose(file) >= 0);
    assert_fails(try_open(bad), STATUS_FORMAT, "begins with other bytes");
    (void)H5Pclose(access);
    (void)H5Pclose(creation);
}

static void set_attribute(hid_t file, const char *name, hid_t type, hid_t space, const void *value)
{
    (void)H5Adelete(file, name);
    hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(a >= 0);
    assert_true(H5Awrite(a, type, value) >= 0);
    (void)H5Aclose(a);
}

static void test_attributes(void **state)
{
    static const char *const names[] = {"format", "version", "tool", "source", "source_hash", "content_hash",
                                        "tokenizer", "tokenizer_hash", "vocab_size", "cls", "sep", "pad", "unk", "mask",
                                        "model_max_length", "label_kind"};
    static const struct {
        const char *name;
        int64_t value;
        const char *sentence;
    } numbers[] = {
        {"version", 2, "version 2, this cohort reads version 1"}, {"version", 0, "version 0"},
        {"vocab_size", 0, "\"vocab_size\" is 0, wanted 1 to"},    {"vocab_size", (int64_t)1 << 40, "wanted 1 to"},
        {"cls", VOCAB, "\"cls\" is 100, wanted 0 to 99"},         {"pad", -1, "\"pad\" is -1"},
        {"pair_layout", 4, "wanted -1 to -1"},                    {"pair_layout", 8, "\"pair_layout\" is 8"},
        {"unk", -2, "\"unk\" is -2"},                             {"model_max_length", -1, "model_max_length"},
    };
    hid_t scalar = H5Screate(H5S_SCALAR);
    hsize_t two = 2;
    hid_t pair = H5Screate_simple(1, &two, NULL), variable = H5Tcopy(H5T_C_S1), word = H5Tcopy(H5T_C_S1);
    const int64_t ones[2] = {1, 1};
    const int32_t one = 1;
    const char *p = "cohort-dataset";
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        hid_t file = spoil();
        char sentence[64];
        assert_true(H5Adelete(file, names[i]) >= 0);
        (void)snprintf(sentence, sizeof sentence, "no attribute \"%s\"", names[i]);
        spoilt(file, sentence);
        file = spoil(); /* one of the types that no attribute has */
        set_attribute(file, names[i], H5T_STD_I32LE, scalar, &one);
        spoilt(file, names[i]);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        hid_t file = spoil();
        set_attribute(file, numbers[i].name, H5T_STD_I64LE, scalar, &numbers[i].value);
        spoilt(file, numbers[i].sentence);
    }
    hid_t file = spoil();
    set_attribute(file, "version", H5T_STD_I64LE, pair, ones);
    spoilt(file, "\"version\" is not one value");
    file = spoil();
    (void)H5Tset_size(variable, H5T_VARIABLE);
    set_attribute(file, "format", variable, scalar, &p);
    spoilt(file, "\"format\" is not text of fixed length");
    file = spoil();
    (void)H5Tset_size(word, 5);
    set_attribute(file, "format", word, scalar, "other");
    spoilt(file, "\"format\" is not \"cohort-dataset\"");
    file = spoil();
    set_attribute(file, "label_kind", word, scalar, "other");
    spoilt(file, "\"label_kind\" is unknown");
    file = spoil();
    set_attribute(file, "source", word, scalar, "a\xFFzzz");
    spoilt(file, "\"source\" is not UTF-8");
    (void)H5Tclose(variable);
    (void)H5Tclose(word);
    (void)H5Sclose(scalar);
    (void)H5Sclose(pair);
}

static const char *const columns[] = {"tokens", "offsets", "split", "label/class", "label/names", "label/name_offsets",
                                      "row/source_row", "row/source_offset", "row/weight", "row/group",
                                      "row/group_names", "row/group_name_offsets", "row/time", "row/fold",
                                      "row/fold_names", "row/fold_name_offsets", "row/id", "row/id_offsets",
                                      "text/bytes", "text/offsets"};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

/* weight, group, time, fold, id and text may be left out, the rest may not */
static void test_missing_columns(void **state)
{
    (void)state;
    for (int i = 0; i < COLUMNS; i++) {
        bool optional = strcmp(columns[i], "row/weight") == 0 || strcmp(columns[i], "row/group") == 0 ||
                        strcmp(columns[i], "row/id") == 0 || strcmp(columns[i], "text/bytes") == 0 ||
                        strcmp(columns[i], "row/time") == 0 || strcmp(columns[i], "row/fold") == 0;
        hid_t file = spoil();
        assert_true(H5Ldelete(file, columns[i], H5P_DEFAULT) >= 0);
        if (!optional) {
            spoilt(file, "is missing");
            support_assert_contains(status_message(), columns[i]);
        } else {
            assert_true(H5Fclose(file) >= 0);
            assert_ok(try_open(bad));
        }
    }
    hid_t file = spoil();
    assert_true(H5Ldelete(file, "row", H5P_DEFAULT) >= 0);
    spoilt(file, "/row/source_row is missing");
}

static void test_links_are_not_followed(void **state)
{
    (void)state;
    for (int i = 0; i < COLUMNS; i++) {
        hid_t file = spoil();
        assert_true(H5Lmove(file, columns[i], file, "elsewhere", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true(H5Lcreate_soft("/elsewhere", file, columns[i], H5P_DEFAULT, H5P_DEFAULT) >= 0);
        spoilt(file, "a soft link, which is not followed");
        file = spoil();
        assert_true(H5Ldelete(file, columns[i], H5P_DEFAULT) >= 0);
        assert_true(H5Lcreate_external("good.h5", columns[i], file, columns[i], H5P_DEFAULT, H5P_DEFAULT) >= 0);
        spoilt(file, "an external link, which is not followed");
    }
    hid_t file = spoil();
    assert_true(H5Lmove(file, "row", file, "elsewhere", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/elsewhere", file, "row", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    spoilt(file, "\"row\" is a soft link");
    file = spoil();
    assert_true(H5Ldelete(file, "text", H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_external("good.h5", "/text", file, "text", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    spoilt(file, "\"text\" is an external link");
    file = spoil();
    assert_true(H5Ldelete(file, "label", H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_hard(file, "tokens", file, "label", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    spoilt(file, "/label is not a group");
    file = spoil();
    assert_true(H5Ldelete(file, "tokens", H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_hard(file, "row", file, "tokens", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    spoilt(file, "/tokens is not a dataset");
}

/* A column whose values lie in another file: the classical way to read /etc/passwd with somebody else's rights. */
static void test_other_files_are_not_read(void **state)
{
    const hsize_t n = TOKENS;
    hid_t external = H5Pcreate(H5P_DATASET_CREATE), virtual = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(1, &n, NULL);
    (void)state;
    assert_true(H5Pset_external(external, "/etc/passwd", 0, TOKENS * 4) >= 0);
    hid_t file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 1, &n, external, 0, NULL);
    spoilt(file, "the values of /tokens lie in another file");
    assert_true(H5Pset_virtual(virtual, space, good, "/tokens", space) >= 0);
    if (form != H5F_LIBVER_EARLIEST) { /* there were none */
        file = spoil();
        replace(file, "tokens", H5T_STD_U32LE, 1, &n, virtual, 0, NULL);
        spoilt(file, "/tokens is a virtual dataset");
    }
    (void)H5Sclose(space);
    (void)H5Pclose(external);
    (void)H5Pclose(virtual);
}

static void test_wrong_types_and_shapes(void **state)
{
    const hsize_t n = TOKENS, square[2] = {3, 4}, six = ROWS + 1, seven = ROWS + 2;
    const uint64_t zeros[16] = {0};
    const hid_t types[] = {H5T_STD_U32BE, H5T_STD_I32LE, H5T_STD_U64LE, H5T_STD_U16LE, H5T_IEEE_F32LE,
                           H5T_STD_B32LE, H5T_STD_REF_OBJ};
    hid_t file, compound = H5Tcreate(H5T_COMPOUND, 4), word = H5Tcopy(H5T_C_S1), list = H5Tvlen_create(H5T_STD_U32LE);
    hid_t odd = H5Tcopy(H5T_STD_U32LE);
    (void)state;
    (void)H5Tinsert(compound, "x", 0, H5T_STD_U32LE);
    (void)H5Tset_size(word, 4);
    (void)H5Tset_precision(odd, 17); /* 17 of 32 bits */
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        file = spoil();
        replace(file, "tokens", types[i], 1, &n, H5P_DEFAULT, types[i], zeros);
        spoilt(file, "/tokens is not of type uint32");
    }
    file = spoil();
    replace(file, "tokens", compound, 1, &n, H5P_DEFAULT, compound, zeros);
    spoilt(file, "not of type");
    file = spoil();
    replace(file, "tokens", word, 1, &n, H5P_DEFAULT, word, zeros);
    spoilt(file, "not of type");
    file = spoil();
    replace(file, "tokens", list, 1, &n, H5P_DEFAULT, 0, NULL);
    spoilt(file, "not of type");
    file = spoil();
    replace(file, "tokens", odd, 1, &n, H5P_DEFAULT, odd, zeros);
    spoilt(file, "not of type");
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 2, square, H5P_DEFAULT, H5T_STD_U32LE, zeros);
    spoilt(file, "/tokens does not have one dimension");
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 0, NULL, H5P_DEFAULT, H5T_STD_U32LE, zeros);
    spoilt(file, "does not have one dimension");
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, -1, NULL, H5P_DEFAULT, 0, NULL);
    spoilt(file, "does not have one dimension");
    const hsize_t rows = ROWS;
    const hid_t no_times[] = {H5T_IEEE_F32LE, H5T_IEEE_F64BE, H5T_STD_I64LE, H5T_STD_U64LE};
    for (size_t i = 0; i < sizeof no_times / sizeof no_times[0]; i++) {
        file = spoil();
        replace(file, "row/time", no_times[i], 1, &rows, H5P_DEFAULT, no_times[i], zeros);
        spoilt(file, "/row/time is not of type float64");
    }
    file = spoil();
    replace(file, "row/time", H5T_IEEE_F64LE, 1, &six, H5P_DEFAULT, H5T_IEEE_F64LE, zeros);
    spoilt(file, "/row/time has 6 values, wanted 5");
    file = spoil();
    replace(file, "split", H5T_STD_U32LE, 1, &six, H5P_DEFAULT, H5T_STD_U32LE, zeros);
    spoilt(file, "/split has 6 values, wanted 5");
    file = spoil();
    replace(file, "text/offsets", H5T_STD_U64LE, 1, &seven, H5P_DEFAULT, H5T_STD_U64LE, zeros);
    spoilt(file, "/text/offsets has 7 values, wanted 11");
    file = spoil();
    hsize_t one = 1;
    replace(file, "offsets", H5T_STD_U64LE, 1, &one, H5P_DEFAULT, H5T_STD_U64LE, zeros);
    spoilt(file, "there are no rows");
    (void)H5Tclose(compound);
    (void)H5Tclose(word);
    (void)H5Tclose(list);
    (void)H5Tclose(odd);
}

static void test_shape_bombs_and_filters(void **state)
{
    const hsize_t huge = 2500000000000000u, many = 50000000, chunk = 1024, n = TOKENS;
    hid_t chunked = H5Pcreate(H5P_DATASET_CREATE), file;
    (void)state;
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 1, &huge, H5P_DEFAULT, 0, NULL);
    spoilt(file, "/tokens claims 2500000000000000 values");
    file = spoil(); /* no more than fits, but nowhere: never allocated */
    replace(file, "tokens", H5T_STD_U32LE, 1, &n, H5P_DEFAULT, 0, NULL);
    spoilt(file, "do not lie inside the file");
    (void)H5Pset_chunk(chunked, 1, &chunk);
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 1, &huge, chunked, 0, NULL);
    spoilt(file, "claims 2500000000000000 values");
    (void)H5Pset_deflate(chunked, 9);
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 1, &many, chunked, 0, NULL);
    spoilt(file, "claims 50000000 values");
    (void)H5Pset_chunk(chunked, 1, &n);
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 1, &n, chunked, 0, NULL);
    spoilt(file, "the values of /tokens lie in chunks");
    (void)H5Pset_filter(chunked, 32015, H5Z_FLAG_OPTIONAL, 0, NULL); /* one that a plug-in would be loaded for */
    file = spoil();
    replace(file, "tokens", H5T_STD_U32LE, 1, &n, chunked, 0, NULL);
    spoilt(file, "the values of /tokens lie in chunks");
    (void)H5Pclose(chunked);
}

static void test_numbers_that_contradict_each_other(void **state)
{
    static const uint64_t backwards[] = {0, 3, 2, 7, 8, 12}, late[] = {1, 3, 3, 7, 8, 12},
                          early[] = {0, 3, 3, 7, 8, 11}, beyond[] = {0, 3, 3, 7, 8, 13},
                          around[] = {0, 3, UINT64_MAX, 7, 8, 12},
                          names_back[] = {0, 2, 1, 3}, names_off[] = {1, 1, 2, 3}, names_end[] = {0, 1, 2, 4},
                          names_far[] = {0, (uint64_t)1 << 60, 2, 3}, fold_back[] = {0, 1, 2, 1, 3};
    static const uint32_t split[] = {4, UINT32_MAX, 2, 0, 4};
    static const int32_t low[] = {0, 1, -1, 0, 0}, high[] = {0, 1, 3, 0, 0};
    static const int32_t folds[] = {0, 1, 4, 0, 0}, no_fold[] = {0, 1, -2, 0, 0};
    static const float nan_weight[] = {1, 1, 0.0f / 0.0f, 1, 1}, negative[] = {1, -1, 1, 1, 1};
    static const double nan_time[] = {1, 2, 3, 0.0 / 0.0, 5}, late_time[] = {1.0 / 0.0, 2, 3, 4, 5};
    const struct {
        const char *name;
        hid_t type;
        const void *values;
        const char *sentence;
    } cases[] = {
        {"offsets", H5T_STD_U64LE, backwards, "row 1 begins at token 3 and ends at 2"},
        {"offsets", H5T_STD_U64LE, late, "begins with 1, wanted 0"},
        {"offsets", H5T_STD_U64LE, early, "row 4 has 3 tokens, 4 of them in its first text"},
        {"offsets", H5T_STD_U64LE, beyond, "the last row ends at token 13, /tokens has 12"},
        {"offsets", H5T_STD_U64LE, around, "row 1 begins at token 3 and ends at 18446744073709551615"},
        {"split", H5T_STD_U32LE, split, "row 0 has 3 tokens, 4 of them in its first text"},
        {"label/class", H5T_STD_I32LE, low, "value 2 of /label/class is -1, there are 3 names"},
        {"label/class", H5T_STD_I32LE, high, "value 2 of /label/class is 3, there are 3 names"},
        {"row/group", H5T_STD_I32LE, high, "value 2 of /row/group is 3, there are 3 names"},
        {"row/weight", H5T_IEEE_F32LE, nan_weight, "value 2 of /row/weight is"},
        {"row/weight", H5T_IEEE_F32LE, negative, "value 1 of /row/weight is -1"},
        {"label/name_offsets", H5T_STD_U64LE, names_back, "runs backwards at 1"},
        {"label/name_offsets", H5T_STD_U64LE, names_off, "does not cover"},
        {"label/name_offsets", H5T_STD_U64LE, names_end, "does not cover"},
        {"label/name_offsets", H5T_STD_U64LE, names_far, "runs backwards at 0"},
        {"label/names", H5T_STD_U8LE, "1\xFF" "3", "name 1 of /label/names is not UTF-8"},
        {"label/names", H5T_STD_U8LE, "1\0" "3", "name 1 of /label/names is not UTF-8"},
        {"label/names", H5T_STD_U8LE, "121", "names 0 and 2 of /label/names are the same"},
        {"row/group_names", H5T_STD_U8LE, "ggh", "names 0 and 1 of /row/group_names are the same"},
        {"row/time", H5T_IEEE_F64LE, nan_time, "value 3 of /row/time is"},
        {"row/time", H5T_IEEE_F64LE, late_time, "value 0 of /row/time is inf"},
        {"row/fold", H5T_STD_I32LE, folds, "value 2 of /row/fold is 4, there are 4 names"},
        {"row/fold", H5T_STD_I32LE, no_fold, "value 2 of /row/fold is -2"},
        {"row/fold_names", H5T_STD_U8LE, "a\xFF" "c", "name 2 of /row/fold_names is not UTF-8"},
        {"row/fold_names", H5T_STD_U8LE, "aac", "names 0 and 2 of /row/fold_names are the same"},
        {"row/fold_name_offsets", H5T_STD_U64LE, fold_back, "runs backwards at 2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hid_t file = spoil();
        poke(file, cases[i].name, cases[i].type, cases[i].values);
        spoilt(file, cases[i].sentence);
    }
}

static void test_labels_of_other_kinds(void **state)
{
    static const int64_t backwards[] = {0, 1, 0, 3, 4, 5}, late[] = {1, 1, 2, 3, 4, 5}, short_[] = {0, 1, 2, 3, 4, 4},
                         far[] = {0, 1, INT64_MAX, 3, 4, 5}, pairs[] = {0, 2, 2, 3, 4, 5};
    static const int32_t high[] = {0, 1, 3, 0, 0};
    static const float infinite[] = {1, 2, 1.0f / 0.0f, 3, 4};
    const struct {
        const char *name;
        hid_t type;
        const void *values;
        const char *sentence;
    } cases[] = {
        {"label/multi_begin", H5T_STD_I64LE, backwards, "/label/multi_begin runs backwards at row 1"},
        {"label/multi_begin", H5T_STD_I64LE, late, "covers 1 to 5 of 5"},
        {"label/multi_begin", H5T_STD_I64LE, short_, "covers 0 to 4 of 5"},
        {"label/multi_begin", H5T_STD_I64LE, far, "runs backwards at row 1"},
        {"label/multi", H5T_STD_I32LE, high, "value 2 of /label/multi is 3"},
    };
    char kept[256];
    hid_t file;
    (void)state;
    memcpy(kept, good, sizeof kept);
    (void)snprintf(good, sizeof good, "%s/multi.h5", support_folder());
    write_good(good, LABEL_MULTI);
    assert_ok(try_open(good));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        file = spoil();
        poke(file, cases[i].name, cases[i].type, cases[i].values);
        spoilt(file, cases[i].sentence);
    }
    file = spoil(); /* labels 0 and 1 of the first row are ascending, but twice the same is not */
    poke(file, "label/multi_begin", H5T_STD_I64LE, pairs);
    poke(file, "label/multi", H5T_STD_I32LE, (const int32_t[]){1, 1, 0, 2, 1});
    spoilt(file, "the labels of row 0 are not ascending");
    (void)snprintf(good, sizeof good, "%s/value.h5", support_folder());
    write_good(good, LABEL_VALUE);
    assert_ok(try_open(good));
    file = spoil();
    poke(file, "label/value", H5T_IEEE_F32LE, infinite);
    spoilt(file, "value 2 of /label/value is inf");
    memcpy(good, kept, sizeof kept);
}

/* Tokens and text are checked when they are read. */
static void test_damage_found_while_reading(void **state)
{
    uint32_t tokens[TOKENS];
    struct dataset *ds;
    struct dataset_opts o = {.path = bad, .max_length = 16};
    struct batch batch = {0};
    struct str text = {0}, pair = {0};
    const int64_t rows[] = {0, 4};
    (void)state;
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = 10 + i;
    for (int high = 0; high < 2; high++) {
        tokens[9] = high ? UINT32_MAX : VOCAB;
        hid_t file = spoil();
        poke(file, "tokens", H5T_STD_U32LE, tokens);
        assert_true(H5Fclose(file) >= 0);
        assert_ok(dataset_open(&o, &ds));
        assert_ok(dataset_read(ds, rows, 1, &batch));
        assert_fails(dataset_read(ds, rows, 2, &batch), STATUS_FORMAT,
                     high ? "token 1 of row 4 (row 104 of train.tsv, byte 1004) is 4294967295, the vocabulary has 100"
                          : "token 1 of row 4 (row 104 of train.tsv, byte 1004) is 100, the vocabulary has 100");
        assert_fails(dataset_verify(ds), STATUS_FORMAT, "value 9 of /tokens");
        dataset_close(ds);
    }
    tokens[9] = 11; /* a legal id, but not the one that was written */
    hid_t file = spoil();
    poke(file, "tokens", H5T_STD_U32LE, tokens);
    assert_true(H5Fclose(file) >= 0);
    assert_ok(dataset_open(&o, &ds));
    assert_ok(dataset_read(ds, rows, 2, &batch));
    assert_fails(dataset_verify(ds), STATUS_FORMAT, "changed or damaged");
    dataset_close(ds);

    static const uint64_t offsets[] = {0, 7, 5, 7, 99, 12, 16, 16, 21, 24, 24};
    file = spoil();
    poke(file, "text/offsets", H5T_STD_U64LE, offsets);
    assert_true(H5Fclose(file) >= 0);
    assert_ok(dataset_open(&o, &ds));
    assert_fails(dataset_row_text(ds, 0, &text, &pair), STATUS_FORMAT, "piece 1 of /text/bytes begins at byte 7");
    assert_fails(dataset_row_text(ds, 1, &text, &pair), STATUS_FORMAT, "ends at 99 of 24");
    dataset_close(ds);
    file = spoil();
    poke(file, "row/id", H5T_STD_U8LE, "r0\xC3\xC3" "r2r4");
    assert_true(H5Fclose(file) >= 0);
    assert_ok(dataset_open(&o, &ds));
    assert_fails(dataset_row_id(ds, 1, &text), STATUS_FORMAT, "piece 1 of /row/id is not UTF-8");
    assert_ok(dataset_row_id(ds, 2, &text));

    assert_int_equal(truncate(bad, 48), 0); /* under our hands */
    assert_fails(dataset_read(ds, rows, 2, &batch), STATUS_FORMAT, "12 bytes early");
    dataset_close(ds);
    batch_release(&batch);
    str_release(&text);
    str_release(&pair);
}

/* Columns that another tool wrote anew, in one piece or inside their headers, are as good as before. */
static void test_rewritten_columns_are_read(void **state)
{
    static const int64_t rows[] = {4, 2, 0, 1, 3};
    struct dataset *a, *b;
    struct dataset_opts oa = {.path = good, .max_length = 16}, ob = {.path = bad, .max_length = 16};
    struct batch x = {0}, y = {0};
    struct str text = {0}, pair = {0};
    hid_t file = spoil();
    (void)state;
    for (int i = 0; i < COLUMNS; i++) {
        char values[1024];
        hsize_t n;
        hid_t set = H5Dopen2(file, columns[i], H5P_DEFAULT), type = H5Dget_type(set), space = H5Dget_space(set);
        hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
        (void)H5Sget_simple_extent_dims(space, &n, NULL);
        assert_true(n * H5Tget_size(type) <= sizeof values);
        assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
        (void)H5Pset_layout(creation, i % 2 == 0 ? H5D_COMPACT : H5D_CONTIGUOUS);
        (void)H5Dclose(set);
        replace(file, columns[i], type, 1, &n, creation, type, values);
        (void)H5Tclose(type);
        (void)H5Sclose(space);
        (void)H5Pclose(creation);
    }
    assert_true(H5Fclose(file) >= 0);
    assert_ok(dataset_open(&oa, &a));
    assert_ok(dataset_open(&ob, &b));
    assert_ok(dataset_read(a, rows, 5, &x));
    assert_ok(dataset_read(b, rows, 5, &y));
    assert_int_equal(x.tokens, y.tokens);
    assert_memory_equal(x.ids, y.ids, (size_t)x.tokens * sizeof *x.ids);
    assert_memory_equal(x.begin, y.begin, 6 * sizeof *x.begin);
    assert_ok(dataset_row_text(b, 3, &text, &pair));
    assert_string_equal(pair.p, "f\xC3\xBCnf");
    assert_ok(dataset_verify(b));
    dataset_close(a);
    dataset_close(b);
    batch_release(&x);
    batch_release(&y);
    str_release(&text);
    str_release(&pair);
}

/* So many attributes and links that the library moves them into heaps. */
static void test_heaps_are_refused(void **state)
{
    hid_t scalar = H5Screate(H5S_SCALAR), file = spoil();
    int64_t value = 1;
    char name[16];
    (void)state;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        set_attribute(file, name, H5T_STD_I64LE, scalar, &value);
    }
    spoilt(file, "its attributes are kept in a heap");
    file = spoil();
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        assert_true(H5Lcreate_hard(file, "tokens", file, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    }
    spoilt(file, "its links are kept in a heap");
    (void)H5Sclose(scalar);
}

static int use_newest(void **state)
{
    (void)state;
    form = H5F_LIBVER_LATEST;
    return 0;
}

/* ---- damaged bytes ---- */

static uint32_t rotate(uint32_t x, int k)
{
    return x << k | x >> (32 - k);
}

/* Jenkins's lookup3 with initial value 0, HDF5's checksum of headers. */
static uint32_t checksum(const unsigned char *p, size_t n)
{
    uint32_t a = 0xdeadbeef + (uint32_t)n, b = a, c = a;
    unsigned char last[12] = {0};
    for (; n > 12; n -= 12, p += 12) {
        uint32_t w[3];
        memcpy(w, p, 12);
        a += w[0], b += w[1], c += w[2];
        a -= c, a ^= rotate(c, 4), c += b;
        b -= a, b ^= rotate(a, 6), a += c;
        c -= b, c ^= rotate(b, 8), b += a;
        a -= c, a ^= rotate(c, 16), c += b;
        b -= a, b ^= rotate(a, 19), a += c;
        c -= b, c ^= rotate(b, 4), b += a;
    }
    if (n == 0)
        return c;
    memcpy(last, p, n);
    uint32_t w[3];
    memcpy(w, last, 12);
    a += w[0], b += w[1], c += w[2];
    c ^= b, c -= rotate(b, 14);
    a ^= c, a -= rotate(c, 11);
    b ^= a, b -= rotate(a, 25);
    c ^= b, c -= rotate(b, 16);
    a ^= c, a -= rotate(c, 4);
    b ^= a, b -= rotate(a, 14);
    c ^= b, c -= rotate(b, 24);
    return c;
}

struct header {
    size_t begin, sum; /* [begin, sum) is covered by the checksum at sum */
};

/* The superblock and every version 2 object header of the good file. */
static int find_headers(const char *bytes, size_t n, struct header *out, int most)
{
    int found = 0;
    out[found++] = (struct header){0, 44};
    for (size_t i = 48; i + 16 < n && found < most; i++) {
        if (memcmp(bytes + i, "OHDR", 4) != 0)
            continue;
        unsigned flags = (unsigned char)bytes[i + 5];
        size_t at = i + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0), size = 0;
        memcpy(&size, bytes + at, (size_t)1 << (flags & 3));
        out[found++] = (struct header){i, at + ((size_t)1 << (flags & 3)) + size};
    }
    return found;
}

static void repair(char *bytes, const struct header *h)
{
    uint32_t sum = checksum((const unsigned char *)bytes + h->begin, h->sum - h->begin);
    memcpy(bytes + h->sum, &sum, sizeof sum);
}

static void put(const char *bytes, size_t n)
{
    int fd = open(bad, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_ok(fd_write_all(fd, bytes, n, bad));
    (void)close(fd);
}

/* Open and read everything there is; any status will do. */
static void visit(void)
{
    struct dataset *ds;
    struct dataset_opts o = {.path = bad, .max_length = 16};
    struct batch batch = {0};
    struct str a = {0}, b = {0};
    struct dataset_info info;
    if (dataset_open(&o, &ds) != STATUS_OK)
        return;
    dataset_get_info(ds, &info);
    for (int64_t i = 0; i < info.rows && i < 20; i++) {
        (void)(dataset_read(ds, &i, 1, &batch) == STATUS_OK);
        (void)(dataset_row_text(ds, i, &a, &b) == STATUS_OK);
        (void)(dataset_row_id(ds, i, &a) == STATUS_OK);
    }
    (void)(dataset_verify(ds) == STATUS_OK);
    batch_release(&batch);
    str_release(&a);
    str_release(&b);
    dataset_close(ds);
}

static uint32_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * below) >> 32);
}

static void test_truncation_anywhere_is_refused(void **state)
{
    char *bytes;
    size_t n;
    (void)state;
    assert_ok(file_read(good, 1 << 20, &bytes, &n));
    for (size_t keep = 0; keep < n; keep += 1 + draw(23)) {
        put(bytes, keep);
        assert_int_equal(try_open(bad), STATUS_FORMAT);
        uint64_t end = keep;
        if (keep >= 48) { /* and with a header that claims so little */
            char *copy = malloc(n);
            memcpy(copy, bytes, n);
            memcpy(copy + 28, &end, sizeof end);
            repair(copy, &(struct header){0, 44});
            put(copy, keep);
            visit();
            free(copy);
        }
    }
    mem_free(bytes);
}

/* Values that begin inside the file and would end behind it. */
static void test_values_beyond_the_end_are_refused(void **state)
{
    struct header headers[64];
    uint64_t place[2];
    char *bytes;
    size_t n;
    int patched = 0;
    (void)state;
    hid_t file = H5Fopen(good, H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "tokens", H5P_DEFAULT);
    place[0] = H5Dget_offset(set);
    place[1] = TOKENS * 4;
    (void)H5Dclose(set);
    (void)H5Fclose(file);
    assert_ok(file_read(good, 1 << 20, &bytes, &n));
    int count = find_headers(bytes, n, headers, 64);
    for (int h = 1; h < count; h++) {
        char *found = memmem(bytes + headers[h].begin, headers[h].sum - headers[h].begin, place, sizeof place);
        if (found == NULL)
            continue;
        uint64_t late = n - TOKENS * 4 + 1;
        memcpy(found, &late, sizeof late);
        repair(bytes, &headers[h]);
        patched++;
    }
    assert_int_equal(patched, 1);
    put(bytes, n);
    assert_fails(try_open(bad), STATUS_FORMAT, "the values of /tokens do not lie inside the file");
    mem_free(bytes);
}

static void test_flipped_bits_never_crash(void **state)
{
    char *bytes;
    size_t n;
    int refused = 0, tried = 0;
    (void)state;
    assert_ok(file_read(good, 1 << 20, &bytes, &n));
    for (size_t i = 0; i < n; i += 1 + draw(5)) {
        char kept = bytes[i];
        bytes[i] = (char)(bytes[i] ^ (1 << draw(8)));
        put(bytes, n);
        visit();
        tried++;
        refused += try_open(bad) != STATUS_OK;
        bytes[i] = kept;
    }
    assert_true(refused * 3 > tried); /* most of so small a file is headers */
    mem_free(bytes);
}

/* With checksums repaired the library cannot tell, and parses what it finds. */
static void test_forged_headers_never_crash(void **state)
{
    struct header headers[64];
    char *bytes;
    size_t n;
    const char *rounds = getenv("COHORT_HOSTILE_ROUNDS");
    (void)state;
    assert_ok(file_read(good, 1 << 20, &bytes, &n));
    int count = find_headers(bytes, n, headers, 64);
    assert_in_range(count, 20, 63);
    for (int h = 0; h < count; h++) {
        char *copy = malloc(n);
        memcpy(copy, bytes, n);
        repair(copy, &headers[h]);
        assert_memory_equal(copy, bytes, n); /* the checksum above is the library's */
        free(copy);
    }
    for (int round = rounds == NULL ? 1500 : atoi(rounds); round > 0; round--) {
        char *copy = malloc(n);
        const struct header *h = &headers[draw((uint32_t)count)];
        memcpy(copy, bytes, n);
        for (uint32_t k = 1 + draw(3); k > 0; k--) {
            size_t at = h->begin + draw((uint32_t)(h->sum - h->begin));
            static const unsigned char liked[] = {0, 1, 2, 3, 4, 8, 127, 128, 255};
            copy[at] = draw(2) ? (char)liked[draw(9)] : (char)(copy[at] ^ (1 << draw(8)));
        }
        repair(copy, h);
        put(copy, n);
        visit();
        free(copy);
    }
    mem_free(bytes);
}

int main(void)
{
    const struct CMUnitTest made[] = {
        cmocka_unit_test(test_good_file_opens),
        cmocka_unit_test(test_what_is_no_prepared_file),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_missing_columns),
        cmocka_unit_test(test_links_are_not_followed),
        cmocka_unit_test(test_other_files_are_not_read),
        cmocka_unit_test(test_wrong_types_and_shapes),
        cmocka_unit_test(test_shape_bombs_and_filters),
        cmocka_unit_test(test_numbers_that_contradict_each_other),
        cmocka_unit_test(test_labels_of_other_kinds),
        cmocka_unit_test(test_damage_found_while_reading),
        cmocka_unit_test(test_rewritten_columns_are_read),
        cmocka_unit_test(test_heaps_are_refused),
    };
    const struct CMUnitTest damaged[] = {
        cmocka_unit_test(test_truncation_anywhere_is_refused),
        cmocka_unit_test(test_values_beyond_the_end_are_refused),
        cmocka_unit_test(test_flipped_bits_never_crash),
        cmocka_unit_test(test_forged_headers_never_crash),
    };
    int failed = cmocka_run_group_tests_name("headers of the oldest form", made, setup, NULL);
    failed += cmocka_run_group_tests_name("headers of the newest form", made, use_newest, NULL);
    failed += cmocka_run_group_tests_name("damaged bytes", damaged, NULL, NULL);
    return failed;
}
