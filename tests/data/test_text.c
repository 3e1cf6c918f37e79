/* test_text.c - TSV and CSV, row selection, and what all formats share: packing, UTF-8, sizes, columns. */
#include "test_text.h"

#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/fault.h"

static const struct text_opts tsv = {.path = "a.tsv", .header = true, .text = "text", .label = "label"};
static const struct text_opts csv = {.path = "a.csv", .header = true, .text = "text", .label = "label"};

static void test_tsv_columns_by_name_in_any_order(void **state)
{
    (void)state;
    expect_rows(&tsv, "label\tx\ttext\n1\t-\ta b\n0\t-\t\"c\" 'd',e\n", "0[a b][1]\n1[\"c\" 'd',e][0]\n");
    expect_rows(&tsv, "text\tlabel\n\t1\n", "0[][1]\n");
    expect_rows(&tsv, "text\tlabel\na\t1\n\n\nb\t2\n\n", "0[a][1]\n1[b][2]\n");
}

static void test_line_ends_and_byte_order_mark(void **state)
{
    (void)state;
    expect_rows(&tsv, "text\tlabel\r\na\t1\r\nb\t2", "0[a][1]\n1[b][2]\n");
    expect_rows(&tsv, "\xEF\xBB\xBFtext\tlabel\na\rz\t1\n", "0[a\rz][1]\n");
    expect_rows(&csv, "\xEF\xBB\xBFtext,label\r\na,1\r\n\"b\",\"2\"\r\n\"c\",3\r", "0[a][1]\n1[b][2]\n2[c][3]\n");
    expect_rows(&csv, "text,label\na,", "0[a][]\n");
}

static void test_csv_quotes(void **state)
{
    (void)state;
    expect_rows(&csv, "\"text\",\"la\"\"bel\",label\n\"a, \"\"b\"\"\r\nc\",,\"\"\n\"\"\"\",x, y \n",
                "0[a, \"b\"\r\nc][]\n1[\"][ y ]\n");
    struct text_opts quoted = csv;
    quoted.label = "la\"bel";
    expect_rows(&quoted, "text,\"la\"\"bel\"\nx,1\n", "0[x][1]\n");
}

static void test_stray_quotes_name_the_row(void **state)
{
    (void)state;
    expect_failure(&csv, "text,label\na,1\nb\"c,2\n", STATUS_DATA,
                   "a.csv: row 1 (line 3): column 1 has a quote inside a field that is not quoted");
    expect_failure(&csv, "text,label\n\"a\n\",1\n\"b\"c,2\n", STATUS_DATA,
                   "a.csv: row 1 (line 4): column 1 goes on behind its closing quote");
    expect_failure(&csv, "text,label\n\"a\"\rb,2\n", STATUS_DATA, "goes on behind its closing quote");
    expect_failure(&csv, "text,label\n\"a\n\",\"b\nc,2\n", STATUS_DATA,
                   "a.csv: row 0 (line 2): the quote opened on line 3, column 2, is never closed");
    expect_failure(&csv, "text,\"label\n", STATUS_DATA, "a.csv: header (line 1): the quote opened on line 1");
}

static void test_ragged_rows(void **state)
{
    (void)state;
    expect_failure(&tsv, "text\tlabel\na\t1\nb\n", STATUS_DATA,
                   "a.tsv: row 1 (line 3): 1 column, wanted 2 as in the header");
    expect_failure(&csv, "text,label\na,1,2\n", STATUS_DATA,
                   "a.csv: row 0 (line 2): 3 columns, wanted 2 as in the header");
    struct text_opts opts = {.path = "a.csv", .text = "1"};
    expect_failure(&opts, "a,b\nc\n", STATUS_DATA, "1 column, wanted 2 as in the first row");
}

static void test_empty_lines_of_one_column_are_texts(void **state)
{
    (void)state;
    struct text_opts opts = {.path = "a.tsv", .header = true, .text = "text"};
    expect_rows(&opts, "text\n\na\n\nb\n", "0[]\n1[a]\n2[]\n3[b]\n");
    expect_rows(&opts, "text\na\n\n", "0[a]\n");
    expect_rows(&opts, "text\na\n\n\n", "0[a]\n1[]\n");
    opts.path = "a.csv";
    expect_rows(&opts, "text\na\n\nb\n\"\"\n", "0[a]\n1[]\n2[b]\n3[]\n");
    opts = (struct text_opts){.path = "a.tsv", .text = "1"};
    expect_rows(&opts, "\na\n", "0[]\n1[a]\n");
    expect_rows(&opts, "\n", "");
}

static void test_without_header_columns_are_counted(void **state)
{
    (void)state;
    struct text_opts opts = {.path = "a.csv", .text = "3", .label = "1"};
    expect_rows(&opts, "x,y,\"z\"\"\"\n1,2,3\n", "0[z\"][x]\n1[3][1]\n");
    opts.label = "4";
    expect_failure(&opts, "x,y,z\n", STATUS_CONFIG,
                   "a.csv has no column \"4\" (data.label); without a header they are counted from 1: \"1\", \"2\", "
                   "\"3\"");
    opts = csv;
    opts.label = "2"; /* with a header only its names count */
    expect_failure(&opts, "text,label\na,1\n", STATUS_CONFIG, "has no column \"2\"");
}

static void test_templates(void **state)
{
    (void)state;
    struct text_opts opts = csv;
    opts.text = NULL;
    opts.template = "{title} [SEP] {body}";
    expect_rows(&opts, "title,body,label\nA,b c,1\n,\"x, y\",2\n,,3\n", "0[A [SEP] b c][1]\n1[ [SEP] x, y][2]\n2[ [SEP] ][3]\n");
    opts.template = "{{{title}}} {title}{label}";
    expect_rows(&opts, "title,body,label\nA,b,1\n", "0[{A} A1][1]\n");
    opts.template = "{title} and {body}";
    opts.max_words = 2;
    expect_rows(&opts, "title,body,label\nA,b c,1\n", "0[A and][1]\n");
    opts.max_words = 0;
    opts.path = "a.jsonl";
    expect_rows(&opts, "{\"title\":\"A\",\"body\":null,\"label\":1}\n{\"title\":2.50,\"body\":true,\"label\":2}\n",
                "0[A and ][1]\n1[2.50 and true][2]\n");
    expect_failure(&opts, "{\"title\":\"A\",\"body\":\"\",\"label\":1}\n{\"title\":\"B\"}\n", STATUS_DATA, "no \"body\"");
    opts.path = "a.csv";
    expect_failure(&opts, "title,label\n", STATUS_CONFIG, "no column \"body\" (data.template)");
    static const char *const wrong[] = {"{title", "a}", "{}", "{a{b}}", "{title} }"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        opts.template = wrong[i];
        expect_failure(&opts, "title,label\n", STATUS_CONFIG, "belongs to no column");
    }
    opts.template = "no column {{title}}";
    expect_failure(&opts, "title,label\n", STATUS_CONFIG, "names no column");
    opts.template = "{title}";
    opts.text = "title";
    expect_failure(&opts, "title,label\n", STATUS_CONFIG, "data.text and data.template are both set");
}

static void test_missing_and_double_columns(void **state)
{
    (void)state;
    struct text_opts opts = csv;
    opts.text = "txet";
    expect_failure(&opts, "id,text,label\n", STATUS_CONFIG,
                   "a.csv has no column \"txet\" (data.text); it has \"id\", \"text\", \"label\"; did you mean "
                   "\"text\"?");
    opts = csv;
    opts.where = "split=train";
    expect_failure(&opts, "text,label\n", STATUS_CONFIG, "no column \"split\" (data.where)");
    expect_failure(&csv, "text,x,label,text\n", STATUS_DATA, "has the column \"text\" twice, in places 1 and 4");
    expect_rows(&csv, "text,x,x,label\na,b,c,d\n", "0[a][d]\n"); /* nobody asked for x */
    opts = csv;
    opts.text = NULL;
    expect_failure(&opts, "text,label\n", STATUS_CONFIG, "data.text is not set");
}

static void test_empty_files(void **state)
{
    (void)state;
    expect_failure(&tsv, "", STATUS_DATA, "a.tsv is empty, wanted a header and rows");
    expect_failure(&csv, "\xEF\xBB\xBF", STATUS_DATA, "a.csv is empty, wanted a header and rows");
    expect_failure(&tsv, "\ntext\tlabel\n", STATUS_DATA, "a.tsv: header (line 1): the line is empty");
    struct text_opts opts = {.path = "a.tsv", .text = "1"};
    expect_failure(&opts, "", STATUS_DATA, "a.tsv is empty, wanted rows");
    expect_rows(&tsv, "text\tlabel\n", "");
    expect_rows(&csv, "text,label", "");
}

static void test_text_must_be_utf8(void **state)
{
    (void)state;
    expect_rows(&tsv, "text\tlabel\nh\xC3\xA9 \xF0\x9F\x98\x80 \xE6\xBC\xA2\t1\n",
                "0[h\xC3\xA9 \xF0\x9F\x98\x80 \xE6\xBC\xA2][1]\n");
    expect_failure(&tsv, "text\tlabel\na\t1\ncaf\xE9\t2\n", STATUS_DATA,
                   "a.tsv: row 1 (line 3): byte 18 (0xE9) is not UTF-8; it looks like Latin-1: convert it with iconv "
                   "-f latin1 -t utf8");
    expect_failure(&csv, "text,label\n\"a\nb\",1\nc,\xC3\n", STATUS_DATA, "row 1 (line 4): byte 21 (0xC3)");
    expect_failure(&csv, "te\xFCt,label\n", STATUS_DATA, "a.csv: header (line 1): byte 2 (0xFC)");
    expect_failure(&csv, "\xFF\xFEt", STATUS_DATA, "byte 0 (0xFF) is not UTF-8; it looks like UTF-16");
    expect_failure(&csv, "text,label\na,\xED\xA0\x80\n", STATUS_DATA, "byte 13 (0xED)"); /* half a surrogate pair */
    struct str out = {0};
    assert_fails(dump_bytes(&csv, "text,label\na,\0\n", 15, &out), STATUS_DATA, "row 0 (line 2): byte 13 is NUL");
    str_release(&out);
    const char *path = support_file("latin1.tsv", "text\tlabel\n\xE9\t1\n", 15);
    struct text_opts opts = tsv;
    struct text_reader *reader;
    struct text_row row;
    bool more;
    opts.path = path;
    assert_ok(text_open(&opts, &reader));
    assert_fails(text_next(reader, &row, &more), STATUS_DATA, "iconv -f latin1 -t utf8 '");
    support_assert_contains(status_message(), "latin1.tsv' > utf8-file");
    assert_ok(text_next(reader, &row, &more)); /* after a failure there are no more rows */
    assert_false(more);
    text_close(reader);
}

/* Bad bytes at every place of a long line, so that each block of the check meets one. */
static void test_utf8_is_checked_at_every_byte(void **state)
{
    (void)state;
    struct text_opts opts = {.path = "a.tsv", .text = "1"};
    char line[300], wanted[64];
    for (size_t at = 1; at < 299; at += 1) {
        for (int bad = 0; bad < 2; bad++) {
            struct text_reader *reader;
            memset(line, 'a', sizeof line);
            memcpy(line + 140, "\xC3\xA9\xF0\x9F\x98\x80", 6);
            if (at >= 139 && at <= 146)
                continue;
            line[at] = bad == 0 ? '\0' : '\x80';
            (void)snprintf(wanted, sizeof wanted, "row 0 (line 1): byte %zu ", at);
            assert_fails(text_open_memory(&opts, line, sizeof line, 0, &reader), STATUS_DATA, wanted);
        }
    }
}

static void test_rows_have_a_greatest_length(void **state)
{
    (void)state;
    struct text_opts opts = tsv;
    opts.max_row_bytes = 10;
    expect_rows(&opts, "text\tlabel\naaaaaaaa\t1\n", "0[aaaaaaaa][1]\n");
    expect_failure(&opts, "text\tlabel\na\t1\naaaaaaaaa\t1\n", STATUS_DATA,
                   "a.tsv: row 1 (line 3): longer than 10 bytes");
    opts.path = "a.csv";
    expect_rows(&opts, "text,label\naaaaaaaa,1", "0[aaaaaaaa][1]\n");
    expect_failure(&opts, "text,label\n\"aaaaaa\",1\n\"aaaaaaa\",1\n", STATUS_DATA, "row 1 (line 3): longer than 10");
}

static void test_a_row_of_10_mb(void **state)
{
    (void)state;
    size_t n = (size_t)10 << 20;
    char *bytes = malloc(n + 64);
    assert_non_null(bytes);
    for (int quoted = 0; quoted < 2; quoted++) {
        size_t head = (size_t)sprintf(bytes, quoted ? "text,label\nx,0\n\"" : "text\tlabel\nx\t0\n");
        memset(bytes + head, 'a', n);
        for (size_t i = 0; i < n; i += 100)
            bytes[head + i] = quoted && i % 1000 == 0 ? '\n' : ' ';
        size_t tail = (size_t)sprintf(bytes + head + n, quoted ? "\",1\ny,2\n" : "\t1\ny\t2\n");
        struct text_opts opts = quoted ? csv : tsv;
        struct text_reader *reader;
        struct text_row row;
        bool more;
        opts.path = support_file(quoted ? "long.csv" : "long.tsv", bytes, head + n + tail);
        assert_ok(text_open(&opts, &reader));
        assert_ok(text_next(reader, &row, &more));
        assert_ok(text_next(reader, &row, &more));
        assert_int_equal(row.text.n, n);
        assert_memory_equal(row.text.p, bytes + head, n);
        assert_ok(text_next(reader, &row, &more));
        assert_true(more && row.row == 2 && row.text.p[0] == 'y' && row.label.p[0] == '2');
        assert_int_equal(row.byte_offset, head + n + (quoted ? 4 : 3));
        text_close(reader);
        opts.max_row_bytes = 1 << 20;
        assert_ok(text_open(&opts, &reader));
        assert_ok(text_next(reader, &row, &more));
        assert_fails(text_next(reader, &row, &more), STATUS_DATA, "row 1 (line 3): longer than 1048576 bytes");
        if (quoted)
            support_assert_contains(status_message(), "perhaps because a quote is not closed");
        text_close(reader);
    }
    free(bytes);
}

static size_t pack_gzip(const char *bytes, size_t n, char *out, size_t room)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)bytes;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t used = room - z.avail_out;
    (void)deflateEnd(&z);
    return used;
}

static void test_gzip_and_zstd(void **state)
{
    (void)state;
    const char *first = "text\tlabel\na\t1\nb", *second = " c\t2\n", *rows = "0[a][1]\n1[b c][2]\n";
    char packed[2][400];
    size_t n[2];
    n[0] = pack_gzip(first, strlen(first), packed[0], 200);
    n[0] += pack_gzip(second, strlen(second), packed[0] + n[0], 200);
    n[1] = ZSTD_compress(packed[1], 200, first, strlen(first), 3);
    n[1] += ZSTD_compress(packed[1] + n[1], 200, second, strlen(second), 3);
    for (int i = 0; i < 2; i++) {
        const char *kind = i == 0 ? "gzip" : "zstd";
        struct str out = {0};
        struct text_opts opts = tsv;
        opts.path = support_file(i == 0 ? "two.tsv.gz" : "two.tsv.zst", packed[i], n[i]);
        expect_file(&opts, rows);
        assert_ok(dump_bytes(&tsv, packed[i], n[i], &out));
        assert_string_equal(out.p, rows);
        /* Cut anywhere, it is an error or, between the members, a shorter file; never a crash, never all rows. */
        for (size_t cut = 4; cut < n[i]; cut++) {
            struct text_reader *reader;
            enum status st = text_open_memory(&tsv, packed[i], cut, 0, &reader);
            if (st == STATUS_OK)
                st = dump_rows(&tsv, reader, &out);
            text_close(reader);
            if (st == STATUS_OK)
                fail_msg("%s cut at %zu was read whole", kind, cut);
            if (strstr(status_message(), "wanted 2 as in the header") == NULL) { /* cut between the members */
                support_assert_contains(status_message(), "the file ends in the middle of its ");
                support_assert_contains(status_message(), kind);
            }
        }
        str_release(&out);
    }
    struct text_reader *reader;
    assert_fails(text_open_memory(&tsv, "\x28\xB5\x2F\xFD\x08\x00\x01\x00\x00\x00\x00", 11, 0, &reader), STATUS_DATA,
                 "the zstd data is damaged: ");
    char behind[400];
    size_t m = pack_gzip(first, strlen(first), behind, 200);
    behind[m - 6] ^= 0x55; /* in the checksum */
    assert_fails(text_open_memory(&tsv, behind, m, 0, &reader), STATUS_DATA, "the gzip data is damaged: incorrect");
    m = pack_gzip(first, strlen(first), behind, 200);
    memcpy(behind + m, "junk", 4);
    struct str out = {0};
    assert_fails(dump_bytes(&tsv, behind, m + 4, &out), STATUS_DATA, "the gzip data is damaged");
    m = pack_gzip("", 0, behind, 200);
    assert_fails(dump_bytes(&tsv, behind, m, &out), STATUS_DATA, "is empty");
    str_release(&out);
}

/* More than one window of packed text, with rows that lie across its end. */
static void test_many_rows_packed(void **state)
{
    (void)state;
    struct str text = {0};
    assert_ok(str_addf(&text, "text\tlabel\n"));
    for (int i = 0; i < 60000; i++)
        assert_ok(str_addf(&text, "text number %d\t%d\n", i, i % 7));
    char *packed = malloc(text.n);
    assert_non_null(packed);
    size_t n = ZSTD_compress(packed, text.n, text.p, text.n, 1);
    struct text_opts opts = tsv;
    struct text_reader *reader;
    struct text_row row;
    int64_t seen, selected, offset = 11;
    bool more;
    char wanted[64];
    opts.path = support_file("many.tsv.zst", packed, n);
    assert_ok(text_open(&opts, &reader));
    for (int i = 0;; i++) {
        assert_ok(text_next(reader, &row, &more));
        if (!more)
            break;
        int length = snprintf(wanted, sizeof wanted, "text number %d", i);
        assert_int_equal(row.text.n, length);
        assert_memory_equal(row.text.p, wanted, length);
        assert_int_equal(row.byte_offset, offset);
        offset += length + 3;
    }
    text_counts(reader, &seen, &selected);
    assert_int_equal(seen, 60000);
    assert_int_equal(selected, 60000);
    text_close(reader);
    free(packed);
    str_release(&text);
}

/* Packed bytes are read long before all that they stand for has come out. */
static void test_much_text_in_few_packed_bytes(void **state)
{
    (void)state;
    size_t n = (size_t)1 << 19, packed_n; /* four zstd blocks, the last of which does not fit the window at once */
    char *text = malloc(n), packed[8192];
    assert_non_null(text);
    memset(text, 'a', n);
    for (size_t i = 999; i < n; i += 1000)
        text[i] = '\n';
    for (int i = 0; i < 2; i++) {
        struct text_opts opts = {.path = "a.tsv", .text = "1"};
        struct text_reader *reader;
        struct text_row row;
        bool more = true;
        size_t total = 0;
        packed_n = i == 0 ? pack_gzip(text, n, packed, sizeof packed)
                          : ZSTD_compress(packed, sizeof packed, text, n, 3);
        assert_ok(text_open_memory(&opts, packed, packed_n, 0, &reader));
        while (more) {
            assert_ok(text_next(reader, &row, &more));
            total += row.text.n;
        }
        assert_int_equal(total, n - n / 1000);
        text_close(reader);
    }
    free(text);
}

static const char numbered[] = "text,label\na,0\nb,1\nc,0\nd,1\ne,0\n";

static void test_rows_by_number(void **state)
{
    (void)state;
    struct text_opts opts = csv;
    opts.rows = "3-,0,1-1";
    expect_rows(&opts, numbered, "0[a][0]\n1[b][1]\n3[d][1]\n4[e][0]\n");
    opts.rows = " 1 - 2 , 2-3,2 ";
    expect_rows(&opts, numbered, "1[b][1]\n2[c][0]\n3[d][1]\n");
    opts.rows = "1";
    expect_rows(&opts, "text,label\na,0\nb,1\nthis row is broken\n", "1[b][1]\n"); /* nothing behind it is read */
    opts.rows = "9-12";
    expect_rows(&opts, numbered, "");
    static const char *const wrong[][2] = {{"3-1", "3-1 runs backwards"},
                                           {"1,,2", "no row number at character 3"},
                                           {"1,", "no row number at character 3"},
                                           {"-3", "no row number at character 1"},
                                           {"1;2", "\";2\" at character 2; wanted a comma"},
                                           {"1-99999999999999999999", "too large"},
                                           {"99999999999999999999", "no row number"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        opts.rows = wrong[i][0];
        expect_failure(&opts, numbered, STATUS_CONFIG, wrong[i][1]);
        support_assert_contains(status_message(), "data.rows is \"");
    }
}

static void test_rows_by_condition(void **state)
{
    (void)state;
    struct text_opts opts = csv;
    opts.where = "label=1";
    expect_rows(&opts, numbered, "1[b][1]\n3[d][1]\n");
    opts.where = " label != 1 and text!=c ";
    expect_rows(&opts, numbered, "0[a][0]\n4[e][0]\n");
    opts.where = "label==0 and text==e";
    expect_rows(&opts, numbered, "4[e][0]\n");
    opts.where = "prompt!=Car-free cities";
    expect_rows(&opts, "text,prompt,label\na,Car-free cities,1\nb,Driverless cars,0\n", "1[b][0]\n");
    opts.where = "prompt=Tom and Jerry and and label!=0";
    expect_rows(&opts, "text,prompt,label\na,Tom and Jerry and,1\nb,Tom and Jerry and,0\nc,Tom,1\n", "0[a][1]\n");
    opts.where = "label=";
    expect_rows(&opts, "text,label\na,\nb,1\n", "0[a][]\n");
    opts.where = "label=a=b";
    expect_rows(&opts, "text,label\na,a=b\nb,a\n", "0[a][a=b]\n");
    static const char *const wrong[] = {"label", "=1", "!=1", "label>1", "label=1 and =2"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        opts.where = wrong[i];
        expect_failure(&opts, numbered, STATUS_CONFIG, "wanted column=value or column!=value");
    }
}

static void test_limit_counts_selected_rows(void **state)
{
    (void)state;
    struct text_opts opts = csv;
    struct text_reader *reader;
    struct str out = {0};
    int64_t seen, selected;
    opts.limit = 2;
    opts.rows = "1-";
    opts.where = "label=0";
    expect_rows(&opts, numbered, "2[c][0]\n4[e][0]\n");
    opts.limit = 1;
    assert_ok(text_open_memory(&opts, numbered, strlen(numbered), 0, &reader));
    assert_ok(dump_rows(&opts, reader, &out));
    assert_string_equal(out.p, "2[c][0]\n");
    text_counts(reader, &seen, &selected);
    assert_int_equal(seen, 3);
    assert_int_equal(selected, 1);
    text_close(reader);
    str_release(&out);
    opts.limit = -1;
    expect_failure(&opts, numbered, STATUS_CONFIG, "data.limit is -1");
}

static void test_first_words_joined_by_one_space(void **state)
{
    (void)state;
    struct text_opts opts = {.path = "a.csv", .header = true, .text = "text", .pair = "pair", .id = "id"};
    opts.max_words = 3;
    expect_rows(&opts,
                "text,pair,id\n\"  a\t b\r\n\n c d\",,1 2 3 4\n"
                "x\xC2\xA0y\xE3\x80\x80z\xE2\x80\xA8w, \xC3\xA9 ,i\n\" \",p q r,\n",
                "0[a b c][][1 2 3 4]\n1[x y z][\xC3\xA9][i]\n2[][p q r][]\n");
}

static void test_all_columns(void **state)
{
    (void)state;
    struct text_opts opts = {.path = "a.tsv", .header = true, .text = "t", .pair = "p", .label = "l", .group = "g",
                             .id = "i", .weight = "w", .time = "when", .fold = "f"};
    expect_rows(&opts, "w\ti\tf\tg\tl\twhen\tp\tt\n6\t5\t8\t4\t3\t7\t2\t1\n", "0[1][2][3][4][5][6][7][8]\n");
    opts.group = opts.id = "l"; /* one column may have several uses */
    opts.fold = "w";
    expect_rows(&opts, "w\ti\tg\tl\twhen\tp\tt\n6\t5\t4\t3\t7\t2\t1\n", "0[1][2][3][3][3][6][7][6]\n");
}

static void test_too_many_columns(void **state)
{
    (void)state;
    char *tabs = malloc(70000);
    assert_non_null(tabs);
    memset(tabs, '\t', 70000);
    struct text_reader *reader;
    assert_fails(text_open_memory(&tsv, tabs, 70000, 0, &reader), STATUS_DATA, "more than 65536 columns");
    free(tabs);
}

static void test_format_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum text_format format;
    } cases[] = {{"a.tsv", TEXT_TSV},       {"a/b.CSV", TEXT_CSV},     {"a.b.jsonl.gz", TEXT_JSONL},
                 {"x.ndjson", TEXT_JSONL},  {"a.arff.zst", TEXT_ARFF}, {"-", TEXT_JSONL},
                 {"x.tab.gz", TEXT_TSV}};
    enum text_format format;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(text_guess_format(cases[i].path, &format));
        assert_int_equal(format, cases[i].format);
    }
    assert_ok(text_guess_format(support_folder(), &format));
    assert_int_equal(format, TEXT_FOLDER);
    assert_fails(text_guess_format("a.txt", &format), STATUS_CONFIG, "a.txt: the name does not tell the format");
    assert_fails(text_guess_format("tsv", &format), STATUS_CONFIG, "data.format");
}

static void test_files_that_cannot_be_opened(void **state)
{
    (void)state;
    struct text_reader *reader;
    struct text_opts opts = tsv;
    opts.path = "/nowhere/a.tsv";
    assert_fails(text_open(&opts, &reader), STATUS_NOINPUT, "/nowhere/a.tsv");
    assert_null(reader);
    opts.path = "/nowhere/a";
    assert_fails(text_open(&opts, &reader), STATUS_NOINPUT, "/nowhere/a: no such file or folder");
    opts.path = support_folder();
    opts.format = TEXT_CSV;
    assert_fails(text_open(&opts, &reader), STATUS_NOINPUT, "is a folder, wanted a file");
    opts.path = support_file("file.tsv", "text\tlabel\n", 11);
    opts.format = TEXT_FOLDER;
    assert_fails(text_open(&opts, &reader), STATUS_NOINPUT, "is a file, wanted a folder");
    opts.path = "";
    assert_fails(text_open(&opts, &reader), STATUS_CONFIG, "no input file");
    text_close(NULL);
}

static void test_standard_input(void **state)
{
    (void)state;
    int kept = dup(STDIN_FILENO), ends[2];
    const char *text = "text\tlabel\na\t1\n";
    struct text_opts opts = tsv;
    opts.path = "-";
    opts.format = TEXT_TSV;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], text, strlen(text)), strlen(text));
    (void)close(ends[1]);
    assert_true(dup2(ends[0], STDIN_FILENO) >= 0);
    (void)close(ends[0]);
    expect_file(&opts, "0[a][1]\n");
    opts.format = TEXT_AUTO;
    struct text_reader *reader;
    assert_fails(text_open(&opts, &reader), STATUS_DATA, "standard input is empty, wanted one JSON object a line");
    if (kept >= 0) {
        assert_true(dup2(kept, STDIN_FILENO) >= 0);
        (void)close(kept);
    }
}

static void test_read_error(void **state)
{
    (void)state;
    struct text_opts opts = tsv;
    struct text_reader *reader;
    opts.path = support_file("fault.tsv", "text\tlabel\na\t1\n", 15);
    assert_int_equal(setenv("COHORT_FAULT", "data.text", 1), 0);
    assert_ok(fault_setup(0));
    assert_fails(text_open(&opts, &reader), STATUS_IO, "data.text");
    assert_null(reader);
    assert_int_equal(unsetenv("COHORT_FAULT"), 0);
    assert_ok(fault_setup(0));
}

static void test_many_columns_are_listed_in_part(void **state)
{
    (void)state;
    struct str header = {0};
    for (int i = 0; i < 500; i++)
        assert_ok(str_addf(&header, "%scolumn %d", i == 0 ? "" : ",", i));
    assert_ok(str_addf(&header, "\n"));
    expect_failure(&csv, header.p, STATUS_CONFIG, "it has \"column 0\", \"column 1\", ");
    support_assert_contains(status_message(), "\" ... (500 in all)");
    str_release(&header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tsv_columns_by_name_in_any_order),
        cmocka_unit_test(test_line_ends_and_byte_order_mark),
        cmocka_unit_test(test_csv_quotes),
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_stray_quotes_name_the_row),
        cmocka_unit_test(test_ragged_rows),
        cmocka_unit_test(test_empty_lines_of_one_column_are_texts),
        cmocka_unit_test(test_without_header_columns_are_counted),
        cmocka_unit_test(test_missing_and_double_columns),
        cmocka_unit_test(test_empty_files),
        cmocka_unit_test(test_text_must_be_utf8),
        cmocka_unit_test(test_utf8_is_checked_at_every_byte),
        cmocka_unit_test(test_rows_have_a_greatest_length),
        cmocka_unit_test(test_a_row_of_10_mb),
        cmocka_unit_test(test_gzip_and_zstd),
        cmocka_unit_test(test_many_rows_packed),
        cmocka_unit_test(test_much_text_in_few_packed_bytes),
        cmocka_unit_test(test_rows_by_number),
        cmocka_unit_test(test_rows_by_condition),
        cmocka_unit_test(test_limit_counts_selected_rows),
        cmocka_unit_test(test_first_words_joined_by_one_space),
        cmocka_unit_test(test_all_columns),
        cmocka_unit_test(test_too_many_columns),
        cmocka_unit_test(test_format_by_name),
        cmocka_unit_test(test_files_that_cannot_be_opened),
        cmocka_unit_test(test_standard_input),
        cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_many_columns_are_listed_in_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
