/*
 * Tokenizers of RoBERTa, XLM-R, CamemBERT, DeBERTa and ALBERT against numbers of transformers, tokenizers and SentencePiece
 * (tests/golden/make_tokenizer_families.py), and what they refuse.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "data/text.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"
#include "tests/support/support.h"

static const char *const families[] = {"roberta",      "byte_level",  "word_bpe",     "fallback_bpe", "deberta",
                                       "deberta_4",    "deberta_5",   "unigram_nmt",  "unigram_first", "deberta_user",
                                       "deberta_bpe",  "xlm",         "camembert",    "albert"};
#define FAMILIES (sizeof families / sizeof families[0])

static char *golden_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/golden/tokenizer_families/%s", TEST_DIR, name);
    return path;
}

static struct tokenizer *open_golden(const char *name)
{
    struct tokenizer *t;
    assert_ok(tokenizer_open(golden_path(name), &t));
    return t;
}

static char *read_golden(const char *name, size_t *n)
{
    char *bytes;
    assert_ok(file_read(golden_path(name), 1 << 24, &bytes, n));
    return bytes;
}

/* The ids of text are those in wanted. */
static void check_row(const struct tokenizer *t, const char *name, int row, const json_t *text, const json_t *wanted)
{
    struct id_list ids = {0};
    assert_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids));
    size_t same = 0;
    while (same < ids.n && same < json_array_size(wanted) &&
           ids.p[same] == json_integer_value(json_array_get(wanted, same)))
        same++;
    if (same < ids.n || same < json_array_size(wanted))
        fail_msg("line %d, %s: %zu ids, wanted %zu; the first %zu are equal, then %d, wanted %d", row + 1, name, ids.n,
                 json_array_size(wanted), same, same < ids.n ? ids.p[same] : -1,
                 same < json_array_size(wanted) ? (int)json_integer_value(json_array_get(wanted, same)) : -1);
    id_list_release(&ids);
}

static void check_text(const struct tokenizer *t, const char *name, int row, const json_t *list, const json_t *wanted)
{
    size_t n = json_array_size(list);
    int32_t *ids = calloc(n + 1, sizeof *ids);
    struct str text = {0};
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    assert_ok(tokenizer_decode(t, ids, (int64_t)n, &text));
    if (text.n != json_string_length(wanted) || memcmp(text.p, json_string_value(wanted), text.n) != 0)
        fail_msg("line %d, %s: decoded \"%s\", wanted \"%s\"", row + 1, name, text.p, json_string_value(wanted));
    str_release(&text);
    free(ids);
}

static void test_golden_lines(void **state)
{
    (void)state;
    struct tokenizer *t[FAMILIES];
    size_t n;
    char *bytes = read_golden("lines.jsonl", &n), key[64];
    int row = 0, decoded = 0;
    for (size_t i = 0; i < FAMILIES; i++)
        t[i] = open_golden(families[i]);
    for (const char *at = bytes; *at != '\0'; row++) {
        const char *end = strchr(at, '\n');
        json_t *line = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, NULL);
        assert_non_null(line);
        at = end + 1;
        for (size_t i = 0; i < FAMILIES; i++) {
            const json_t *ids = json_object_get(line, families[i]);
            assert_true(json_is_array(ids));
            check_row(t[i], families[i], row, json_object_get(line, "text"), ids);
            snprintf(key, sizeof key, "%s_text", families[i]);
            const json_t *text = json_object_get(line, key);
            if (text != NULL) {
                check_text(t[i], families[i], row, ids, text);
                decoded++;
            }
        }
        json_decref(line);
    }
    assert_true(row > 150);
    assert_true(decoded > 300);
    for (size_t i = 0; i < FAMILIES; i++)
        tokenizer_close(t[i]);
    mem_free(bytes);
}

static void test_specials_and_pairs(void **state)
{
    (void)state;
    static const struct {
        const char *name, *kind, *cls, *sep, *pad, *unk, *mask;
        bool two, one_type;
    } wanted[] = {
        {"roberta", "BPE", "<s>", "</s>", "<pad>", "<unk>", "<mask>", true, true},
        {"byte_level", "BPE", "<s>", "</s>", "<pad>", "<unk>", "<mask>", true, true},
        {"word_bpe", "BPE", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", false, true},
        {"deberta", "Unigram", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", false, false},
        {"deberta_4", "Unigram", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", false, false},
        {"deberta_bpe", "BPE", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", false, false},
        {"xlm", "Unigram", "<s>", "</s>", "<pad>", "<unk>", "<mask>", true, true},
        {"camembert", "Unigram", "<s>", "</s>", "<pad>", "<unk>", "<mask>", true, true},
        {"albert", "Unigram", "[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]", false, false},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct tokenizer *t = open_golden(wanted[i].name);
        struct tokenizer_info info;
        tokenizer_get_info(t, &info);
        assert_string_equal(info.kind, wanted[i].kind);
        assert_string_equal(tokenizer_piece(t, info.cls), wanted[i].cls);
        assert_string_equal(tokenizer_piece(t, info.sep), wanted[i].sep);
        assert_string_equal(tokenizer_piece(t, info.pad), wanted[i].pad);
        assert_string_equal(tokenizer_piece(t, info.unk), wanted[i].unk);
        assert_string_equal(tokenizer_piece(t, info.mask), wanted[i].mask);
        assert_int_equal(info.two_separators, wanted[i].two);
        assert_int_equal(info.one_type, wanted[i].one_type);
        tokenizer_close(t);
    }
    struct tokenizer *xlm = open_golden("xlm"), *camembert = open_golden("camembert");
    assert_int_equal(tokenizer_id(xlm, "<s>"), 0); /* fairseq's order */
    assert_int_equal(tokenizer_id(xlm, "<pad>"), 1);
    assert_int_equal(tokenizer_id(xlm, "</s>"), 2);
    assert_int_equal(tokenizer_id(xlm, "<unk>"), 3);
    assert_int_equal(tokenizer_id(camembert, "<pad>"), 1);
    assert_int_equal(tokenizer_id(camembert, "<unk>"), 3);
    assert_int_equal(tokenizer_id(camembert, "<s>"), 5);
    assert_int_equal(tokenizer_id(camembert, "</s>"), 6);
    tokenizer_close(xlm);
    tokenizer_close(camembert);
}

static void test_pairs_of_roberta(void **state)
{
    (void)state;
    struct tokenizer_info info = {.cls = 1, .sep = 2, .two_separators = true, .one_type = true};
    int32_t a[64], b[64], out[256], types[256];
    size_t n;
    char *bytes = read_golden("pairs.txt", &n);
    int na, nb, length, ka, kb, used, rows = 0;
    for (int i = 0; i < 64; i++) {
        a[i] = 100 + i;
        b[i] = 200 + i;
    }
    for (char *at = bytes; sscanf(at, "%d %d %d %d %d\n%n", &na, &nb, &length, &ka, &kb, &used) == 5; at += used) {
        int got = tokenizer_join(&info, a, na, b, nb, length, out, types);
        if (got != ka + kb + 4 || got != tokenizer_length(&info, na, nb, length))
            fail_msg("%d and %d to %d: %d ids, wanted %d", na, nb, length, got, ka + kb + 4);
        for (int i = 0; i < got; i++) {
            int in_b = i - ka - 3;
            int wanted = i == 0               ? 1
                         : i <= ka            ? 99 + i
                         : in_b < 0           ? 2
                         : in_b < kb          ? 200 + in_b
                                              : 2;
            if (out[i] != wanted || types[i] != 0)
                fail_msg("%d and %d to %d: id %d of type %d at %d, wanted %d", na, nb, length, out[i], types[i], i,
                         wanted);
        }
        rows++;
    }
    assert_true(rows > 400);
    for (length = 0; length < 4; length++) { /* never more than there is room for */
        out[length] = 77;
        assert_int_equal(tokenizer_join(&info, a, 5, b, 5, length, out, NULL), length);
        assert_int_equal(out[length], 77);
    }
    info.two_separators = false; /* [CLS] a [SEP] b [SEP], all types 0 */
    assert_int_equal(tokenizer_join(&info, a, 1, b, 1, 9, out, types), 5);
    assert_memory_equal(out, ((int32_t[]){1, 100, 2, 200, 2}), 5 * sizeof *out);
    assert_memory_equal(types, ((int32_t[]){0, 0, 0, 0, 0}), 5 * sizeof *types);
    mem_free(bytes);
}

/* A prepared file keeps how pairs are joined. */
static void test_dataset_keeps_the_layout(void **state)
{
    (void)state;
    struct tokenizer *t = open_golden("roberta");
    struct tokenizer_info info;
    struct dataset_part part = {0};
    struct dataset *ds;
    struct batch batch = {0};
    struct id_list a = {0}, b = {0};
    char *path;
    int64_t row = 0;
    int32_t joined[64], types[64];
    tokenizer_get_info(t, &info);
    assert_ok(tokenizer_encode(t, "one two", 7, &a));
    assert_ok(tokenizer_encode(t, "three", 5, &b));
    struct text_row text = {.text = {"one two", 7}, .pair = {"three", 5}, .label = {"x", 1}};
    assert_ok(dataset_part_add(&part, t, &text, false));
    assert_ok(path_join(support_folder(), "pairs.h5", &path));
    struct dataset_write_opts write = {
        .path = path, .source = "here", .label_kind = LABEL_CLASS, .tokenizer = &info};
    assert_ok(dataset_write(&write, &part));
    for (int length = 5; length < 40; length += 34) {
        struct dataset_opts opts = {.path = path, .max_length = length};
        assert_ok(dataset_open(&opts, &ds));
        assert_ok(dataset_read(ds, &row, 1, &batch));
        int n = tokenizer_join(&info, a.p, (int64_t)a.n, b.p, (int64_t)b.n, length, joined, types);
        assert_int_equal(batch.tokens, n);
        assert_int_equal(dataset_length(ds, 0), n);
        assert_int_equal(dataset_is_cut(ds, 0), length == 5);
        assert_memory_equal(batch.ids, joined, (size_t)n * sizeof *joined);
        for (int i = 0; i < n; i++)
            assert_int_equal(batch.types[i], 0);
        batch_release(&batch);
        dataset_close(ds);
    }
    struct dataset_opts opts = {.path = path, .max_length = 4};
    assert_fails(dataset_open(&opts, &ds), STATUS_ARG, "wanted at least 5");
    dataset_part_release(&part);
    id_list_release(&a);
    id_list_release(&b);
    mem_free(path);
    tokenizer_close(t);
}

static void test_saved_tokenizers_are_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILIES; i++) {
        char name[64], *to;
        struct tokenizer *t = open_golden(families[i]), *again;
        struct tokenizer_info info, info_again;
        snprintf(name, sizeof name, "saved-%s", families[i]);
        assert_ok(path_join(support_folder(), name, &to));
        assert_ok(folder_make(to));
        assert_ok(tokenizer_save(t, to));
        assert_ok(tokenizer_open(to, &again));
        tokenizer_get_info(t, &info);
        tokenizer_get_info(again, &info_again);
        assert_true(info.hash == info_again.hash);
        assert_int_equal(info.two_separators, info_again.two_separators);
        tokenizer_close(t);
        tokenizer_close(again);
        mem_free(to);
    }
    char *bytes, *to;
    size_t n;
    assert_ok(path_join(support_folder(), "saved-roberta/tokenizer_config.json", &to));
    assert_ok(file_read(to, 1 << 20, &bytes, &n)); /* there was none */
    support_assert_contains(bytes, "\"tokenizer_class\": \"RobertaTokenizer\"");
    mem_free(bytes);
    mem_free(to);
}

static void test_hashes_differ(void **state)
{
    (void)state;
    uint64_t hashes[FAMILIES];
    for (size_t i = 0; i < FAMILIES; i++) {
        struct tokenizer *t = open_golden(families[i]);
        struct tokenizer_info info;
        tokenizer_get_info(t, &info);
        hashes[i] = info.hash;
        for (size_t k = 0; k < i; k++)
            assert_true(hashes[k] != hashes[i]);
        tokenizer_close(t);
    }
}

/* ---- Files in memory ---- */

static enum status open_files(const char *const texts[TOKENIZER_FILES], struct tokenizer **out)
{
    size_t sizes[TOKENIZER_FILES] = {0};
    for (int i = 0; i < TOKENIZER_FILES; i++)
        sizes[i] = texts[i] == NULL ? 0 : strlen(texts[i]);
    return tokenizer_open_memory("here", texts, sizes, out);
}

static void check_ids(const struct tokenizer *t, const char *text, const char *wanted)
{
    struct id_list ids = {0};
    char got[1024] = "";
    assert_ok(tokenizer_encode(t, text, strlen(text), &ids));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), i == 0 ? "%d" : " %d", ids.p[i]);
    if (strcmp(got, wanted) != 0)
        fail_msg("\"%s\" has ids %s, wanted %s", text, got, wanted);
    id_list_release(&ids);
}

#define SPECIALS "\"<s>\": 0, \"<pad>\": 1, \"</s>\": 2, \"<unk>\": 3, \"<mask>\": 4"
#define VOCAB "{" SPECIALS ", \"a\": 5, \"b\": 6, \"c\": 7, \"\\u0120\": 8, \"ab\": 9, \"bc\": 10, \"abc\": 11, \"\\u0120a\": 12}"

static void test_merges_lines(void **state)
{
    (void)state;
    struct tokenizer *t;
    const char *texts[TOKENIZER_FILES] = {[FILE_VOCAB_JSON] = VOCAB,
                                          [FILE_MERGES] = "#version: 0.2\r\nb c\r\na bc\n\xC4\xA0 a\na b"};
    assert_ok(open_files(texts, &t));
    check_ids(t, "abc ab a bb", "11 12 6 12 8 6 6"); /* "abd" has no d: unknown bytes are left out */
    check_ids(t, "abd", "9");
    check_ids(t, "", "");
    tokenizer_close(t);
    texts[FILE_CONFIG] = "{\"add_prefix_space\": true, \"cls_token\": \"<mask>\"}";
    assert_ok(open_files(texts, &t));
    check_ids(t, "a<s>a a", "12 0 12 12");
    struct tokenizer_info info;
    tokenizer_get_info(t, &info);
    assert_int_equal(info.cls, 4);
    tokenizer_close(t);
    texts[FILE_CONFIG] = NULL;
    static const struct {
        const char *vocab, *merges, *message;
    } bad[] = {
        {VOCAB, NULL, "here/vocab.json: there is no merges.txt"},
        {"[]", "", "here/vocab.json: wanted a JSON object"},
        {"{}", "", "here/vocab.json: wanted a JSON object"},
        {"{\"a\": \"1\"}", "", "the id of \"a\" is not a whole number"},
        {"{\"a\": 1, \"b\": 1}", "", "both have id 1"},
        {"{\"a\": 1", "", "not valid JSON"},
        {VOCAB, "a\n", "here/merges.txt:1: \"a\" is not two pieces"},
        {VOCAB, "a b\n\nb c", "here/merges.txt:2: \"\" is not two pieces"},
        {VOCAB, "a b c\n", "is not two pieces"},
        {VOCAB, "a x\n", "merge 1, \"a\" and \"x\": the second is not in the vocabulary"},
        {VOCAB, "x a\n", "the first is not in the vocabulary"},
        {VOCAB, "c a\n", "what they make is not in the vocabulary"},
        {VOCAB, "a \xFF\n", "here/merges.txt:1: not UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        texts[FILE_VOCAB_JSON] = bad[i].vocab;
        texts[FILE_MERGES] = bad[i].merges;
        assert_fails(open_files(texts, &t), STATUS_FORMAT, bad[i].message);
        assert_null(t);
    }
}

static void test_merges_go_by_rank_and_place(void **state)
{
    (void)state;
    struct tokenizer *t;
    const char *texts[TOKENIZER_FILES] = {
        [FILE_VOCAB_JSON] = "{" SPECIALS ", \"a\": 5, \"b\": 6, \"c\": 7, \"d\": 8, \"ab\": 9, \"bc\": 10, \"abc\": 11, \"cd\": 12}",
        [FILE_MERGES] = "a b\nc d\nab c\nb c\na bc\n"};
    assert_ok(open_files(texts, &t));
    check_ids(t, "abcd", "9 12");
    check_ids(t, "abc", "11");
    check_ids(t, "abcabcd", "11 9 12");
    tokenizer_close(t);
}

static void test_families_by_class(void **state)
{
    (void)state;
    struct tokenizer *t;
    const char *merges = "", *vocab_json = "{\"<s>\": 0, \"</s>\": 1, \"a\": 2}", *vocab = "[UNK]\n[CLS]\n[SEP]\na\n";
    const char *texts[TOKENIZER_FILES] = {
        [FILE_VOCAB] = vocab, [FILE_VOCAB_JSON] = vocab_json, [FILE_MERGES] = merges};
    assert_ok(open_files(texts, &t)); /* nothing said: vocab.txt */
    check_ids(t, "a", "3");
    tokenizer_close(t);
    texts[FILE_MODEL_CONFIG] = "{\"model_type\": \"roberta\"}";
    assert_ok(open_files(texts, &t));
    check_ids(t, "a", "2");
    tokenizer_close(t);
    texts[FILE_CONFIG] = "{\"tokenizer_class\": \"BertTokenizerFast\"}"; /* goes before config.json */
    assert_ok(open_files(texts, &t));
    check_ids(t, "a", "3");
    tokenizer_close(t);
    texts[FILE_CONFIG] = "{\"tokenizer_class\": \"DebertaV2Tokenizer\"}";
    assert_fails(open_files(texts, &t), STATUS_FORMAT, "here/spm.model: is not there, and neither is tokenizer.json");
    texts[FILE_CONFIG] = "{\"tokenizer_class\": \"T5Tokenizer\"}";
    assert_fails(open_files(texts, &t), STATUS_FORMAT, "tokenizer_class \"T5Tokenizer\" is not known here");
    texts[FILE_CONFIG] = NULL;
    texts[FILE_MODEL_CONFIG] = "[1]";
    assert_fails(open_files(texts, &t), STATUS_FORMAT, "here/config.json: wanted a JSON object");
}

/* ---- SentencePiece files ---- */

static void add_varint(struct str *s, uint64_t value)
{
    char byte;
    for (; value >= 0x80; value >>= 7) {
        byte = (char)(value | 0x80);
        assert_ok(str_add(s, &byte, 1));
    }
    byte = (char)value;
    assert_ok(str_add(s, &byte, 1));
}

static void add_bytes(struct str *s, unsigned number, const char *bytes, size_t n)
{
    add_varint(s, number << 3 | 2);
    add_varint(s, n);
    assert_ok(str_add(s, bytes, n));
}

static void add_piece(struct str *s, const char *text, float score, int type)
{
    struct str piece = {0};
    add_bytes(&piece, 1, text, strlen(text));
    add_varint(&piece, 2 << 3 | 5);
    assert_ok(str_add(&piece, (const char *)&score, 4));
    add_varint(&piece, 3 << 3);
    add_varint(&piece, (uint64_t)type);
    add_bytes(s, 1, piece.p, piece.n);
    str_release(&piece);
}

/* The pieces that DeBERTa's specials need, and "\xE2\x96\x81" and "a". */
static void add_usual(struct str *s)
{
    static const char *const controls[] = {"[PAD]", "[CLS]", "[SEP]"};
    for (int i = 0; i < 3; i++)
        add_piece(s, controls[i], 0, SPM_CONTROL);
    add_piece(s, "[UNK]", 0, SPM_UNKNOWN);
    add_piece(s, "\xE2\x96\x81", -1, SPM_NORMAL);
    add_piece(s, "a", -2, SPM_NORMAL);
}

static enum status open_spm(const struct str *s, struct tokenizer **out)
{
    const char *files[TOKENIZER_FILES] = {[FILE_SPM] = s->p == NULL ? "" : s->p};
    size_t sizes[TOKENIZER_FILES] = {[FILE_SPM] = s->n};
    return tokenizer_open_memory("here", files, sizes, out);
}

static void test_spm_of_parts(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct str s = {0};
    add_usual(&s);
    add_varint(&s, 99 << 3 | 1); /* a field of later versions: skipped */
    assert_ok(str_add(&s, "12345678", 8));
    assert_ok(open_spm(&s, &t));
    check_ids(t, "a  aab b [SEP] \xC2\xA0", "4 5 4 5 5 3 4 3 2 4 3");
    check_ids(t, "  ", "");
    tokenizer_close(t);
    /* punctuation as texts of their own, lower case first */
    const char *files[TOKENIZER_FILES] = {
        [FILE_SPM] = s.p, [FILE_CONFIG] = "{\"split_by_punct\": true, \"do_lower_case\": true}"};
    assert_ok(tokenizer_open_memory("here", files, (size_t[TOKENIZER_FILES]){[FILE_SPM] = s.n, [FILE_CONFIG] = 47}, &t));
    check_ids(t, "A,a a! [SEP]", "4 5 4 3 4 5 4 5 4 3 2");
    tokenizer_close(t);
    /* a text cut anywhere is refused, or a model of fewer pieces; nothing crashes */
    for (size_t n = 0; n < s.n; n++) {
        struct str cut = {s.p, n, 0};
        if (open_spm(&cut, &t) == STATUS_OK)
            tokenizer_close(t);
        else
            assert_null(t);
    }
    str_release(&s);
}

static void test_refused_spm(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct str s = {0};
    assert_fails(open_spm(&s, &t), STATUS_FORMAT, "here/spm.model: not a SentencePiece model: it has no pieces");
    assert_ok(str_add(&s, "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11)); /* a length of 2^64 - 1 */
    assert_fails(open_spm(&s, &t), STATUS_FORMAT, "the file is broken or cut off");
    str_clear(&s);
    assert_ok(str_add(&s, "<html>", 6));
    assert_fails(open_spm(&s, &t), STATUS_FORMAT, "not a SentencePiece model");
    static const struct {
        const char *text;
        float score;
        int type;
        const char *message;
    } bad[] = {
        {"", 0, SPM_NORMAL, "piece 6 is empty"},
        {"\xFF", 0, SPM_NORMAL, "piece 6 is empty or not UTF-8 text"},
        {"x", 0, 7, "its type or score is out of range"},
        {"x", (float)INFINITY, SPM_NORMAL, "its type or score is out of range"},
        {"x", (float)NAN, SPM_NORMAL, "its type or score is out of range"},
        {"a", 0, SPM_NORMAL, "piece 6, \"a\", is there twice"},
        {"x", 0, SPM_UNKNOWN, "two unknown pieces, 3 and 6"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        str_clear(&s);
        add_usual(&s);
        add_piece(&s, bad[i].text, bad[i].score, bad[i].type);
        assert_fails(open_spm(&s, &t), STATUS_FORMAT, bad[i].message);
    }
    static const struct {
        unsigned message;
        const char *bytes;
        size_t n;
        const char *text;
    } fields[] = {
        {2, "\x18\x03", 2, "a model of type 3, wanted 1 (Unigram) or 2 (BPE)"},
        {2, "\x98\x02\x01", 3, "byte_fallback without the byte piece \"<0x00>\""},
        {2, "\x98", 1, "the trainer's specification is broken"},
        {3, "\x12\x09", 2, "the normalizer's specification is broken"},
        {3, "\x12\x02xx", 4, "the precompiled charsmap has 2 bytes"},
        {3, "\x12\x05\xFF\0\0\0\0", 7, "the precompiled charsmap has 5 bytes"},
        {3, "\x12\x09\x04\0\0\0\0\0\0\0\xFF", 11, "the texts of the precompiled charsmap are not UTF-8"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        str_clear(&s);
        add_usual(&s);
        add_bytes(&s, fields[i].message, fields[i].bytes, fields[i].n);
        assert_fails(open_spm(&s, &t), STATUS_FORMAT, fields[i].text);
    }
    str_clear(&s);
    add_piece(&s, "a", 0, SPM_NORMAL);
    assert_fails(open_spm(&s, &t), STATUS_FORMAT, "no piece is the unknown one");
    str_release(&s);
}

static uint32_t unit(unsigned label, unsigned at, unsigned base, bool leaf)
{
    return label | (at ^ base) << 10 | (leaf ? 1u << 8 : 0);
}

/* A double array that points outside itself and into characters maps nothing, and nothing crashes. */
static void test_hostile_charsmap(void **state)
{
    (void)state;
    struct charsmap map;
    const char *to;
    size_t to_n;
    struct str out = {0};
    struct {
        uint32_t size;
        uint32_t units[512];
        char texts[8];
    } file = {.size = sizeof file.units, .texts = "x\0\xC3\xA9"};
    file.units[0] = 256 << 10;
    file.units[256 ^ 'a'] = unit('a', 256 ^ 'a', 1, true); /* value at 1: the text */
    file.units[256 ^ 'b'] = unit('b', 256 ^ 'b', 2, true);
    file.units[256 ^ 'c'] = unit('c', 256 ^ 'c', 3, true);
    file.units[256 ^ 'd'] = unit('d', 256 ^ 'd', 4096, true); /* outside */
    file.units[256 ^ 'e'] = unit('e', 256 ^ 'e', 4, true);
    file.units[1] = 1u << 31 | 0;          /* "x" */
    file.units[2] = 1u << 31 | 3;          /* inside of a character */
    file.units[3] = 1u << 31 | 0x7FFFFFFF; /* outside */
    file.units[4] = 1u << 31 | 2;          /* "\xC3\xA9" */
    assert_ok(charsmap_read(&map, (const char *)&file, sizeof file, "here"));
    assert_int_equal(charsmap_find(&map, "ab", 2, true, &to, &to_n), 1);
    assert_string_equal(to, "x");
    assert_int_equal(charsmap_find(&map, "b", 1, true, &to, &to_n), 0);
    assert_int_equal(charsmap_find(&map, "c", 1, true, &to, &to_n), 0);
    assert_int_equal(charsmap_find(&map, "d", 1, true, &to, &to_n), 0);
    assert_int_equal(charsmap_find(&map, "z", 1, true, &to, &to_n), 0);
    assert_ok(charsmap_apply(&map, "abcdea", 6, 100, &out));
    assert_string_equal(out.p, "xbcd\xC3\xA9x");
    str_release(&out);
    charsmap_release(&map);
    static const char *const bad[] = {"AAA", "A=AA", "AA*A", "AAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(charsmap_read_base64(&map, bad[i], strlen(bad[i]), "here"), STATUS_FORMAT, "charsmap");
}

/* ALBERT's "(" and ")" are user-defined: never cut, and no mark behind them as there is behind an added token. */
static void test_albert_keeps_words_whole(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct str s = {0};
    add_piece(&s, "<pad>", 0, SPM_CONTROL);
    add_piece(&s, "<unk>", 0, SPM_UNKNOWN);
    for (int i = 0; i < 3; i++)
        add_piece(&s, (const char *const[]){"[CLS]", "[SEP]", "[MASK]"}[i], 0, SPM_CONTROL);
    add_piece(&s, "(", 0, SPM_USER);
    add_piece(&s, ")", 0, SPM_USER);
    add_piece(&s, "\xE2\x96\x81", -2, SPM_NORMAL);
    add_piece(&s, "a", -3, SPM_NORMAL);
    add_piece(&s, ":", -4, SPM_NORMAL);
    const char *files[TOKENIZER_FILES] = {[FILE_SPM_ALBERT] = s.p};
    assert_ok(tokenizer_open_memory("here", files, (size_t[TOKENIZER_FILES]){[FILE_SPM_ALBERT] = s.n}, &t));
    check_ids(t, "a(a): (a)", "7 8 5 8 6 9 7 5 8 6");
    check_ids(t, "a[MASK]:", "7 8 4 7 9"); /* that one is an added token */
    tokenizer_close(t);
    str_release(&s);
}

/* ---- tokenizer.json ---- */

static const char *json_of(const char *model, const char *normalizer, const char *words, const char *post)
{
    static char text[8192];
    snprintf(text, sizeof text,
             "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s,"
             "\"decoder\": null, \"model\": %s}",
             normalizer, words, post, model);
    return text;
}

#define ENDS "{\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 2], \"cls\": [\"<s>\", 0]}"
#define BPE_OF(options, vocab, merges) "{\"type\": \"BPE\", " options "\"vocab\": " vocab ", \"merges\": " merges "}"
#define BPE BPE_OF("", VOCAB, "[\"a b\", [\"b\", \"c\"]]")
#define UNIGRAM(options, vocab) "{\"type\": \"Unigram\", " options "\"vocab\": " vocab "}"
#define SCORES "[[\"<s>\", 0.0], [\"<pad>\", 0], [\"</s>\", 0], [\"<unk>\", 0], [\"a\", -1.5], [\"aa\", -3.1]]"

static void test_parts_of_json(void **state)
{
    (void)state;
    struct tokenizer *t;
    const char *texts[TOKENIZER_FILES] = {NULL};
    /* merges in both forms; a type that is not named; bytes that are unknown */
    texts[FILE_TOKENIZER] = json_of("{\"vocab\": " VOCAB ", \"merges\": [\"a b\", [\"b\", \"c\"]]}", "null",
                                    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}", ENDS);
    assert_ok(open_files(texts, &t));
    check_ids(t, "abc bcx", "9 7 8 10");
    tokenizer_close(t);
    /* ids of scores: 2 a's are better than one aa */
    texts[FILE_TOKENIZER] = json_of(UNIGRAM("\"unk_id\": 3, ", SCORES), "null", "null", ENDS);
    assert_ok(open_files(texts, &t));
    check_ids(t, "aaa", "4 4 4");
    check_ids(t, "axya", "4 3 4");
    tokenizer_close(t);
    texts[FILE_TOKENIZER] =
        json_of(UNIGRAM("\"unk_id\": 3, ", SCORES), "null", "null",
                "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " ENDS "]}");
    assert_ok(open_files(texts, &t));
    tokenizer_close(t);
}

/* The first of equal sums stays: a aa, not aa a. */
static void test_ties_of_unigram(void **state)
{
    (void)state;
    struct tokenizer *t;
    const char *texts[TOKENIZER_FILES] = {NULL};
    struct str s = {0};
    texts[FILE_TOKENIZER] =
        json_of(UNIGRAM("\"unk_id\": 3, ", "[[\"<s>\", 0], [\"<pad>\", 0], [\"</s>\", 0], [\"<unk>\", 0], [\"a\", -1],"
                                           "[\"aa\", -1]]"),
                "null", "null", ENDS);
    assert_ok(open_files(texts, &t));
    check_ids(t, "aaa", "4 5");
    tokenizer_close(t);
    add_usual(&s);
    add_piece(&s, "aa", -2, SPM_NORMAL);
    assert_ok(open_spm(&s, &t));
    check_ids(t, "aaa", "4 5 6");
    tokenizer_close(t);
    str_release(&s);
}

/* Rounded as serde_json does it: one unit beside the nearest double for the second one. */
static void test_scores_are_rounded_as_there(void **state)
{
    (void)state;
    static const char json[] =
        "{\"added_tokens\": [{\"x\": [1, \"]}\", true]}], \"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\\\"]\", -1.5],"
        "[\"b\", -19.179060433308834], [ \"c\" , -3 ],\n[\"d\", 1e-300], [\"e\", 1.25E1]]}}";
    double scores[5] = {0, 0, 0, 77, 0};
    unigram_round_scores(scores, 5, json, sizeof json - 1);
    assert_true(scores[0] == -1.5);
    assert_true(scores[1] == -0x1.32dd6e79111abp+4);
    assert_true(scores[2] == -3);
    assert_true(scores[3] == 77); /* left as the parser had it */
    assert_true(scores[4] == 12.5);
    for (size_t n = 0; n < sizeof json; n++) /* cut anywhere: nothing beyond is read */
        unigram_round_scores(scores, 5, json, n);
}

#define MARK "\xE2\x96\x81"

/* The golden sentence of the sources with DeBERTa-v3's pieces at their places. */
static void test_sentence_of_deberta(void **state) /* N7 */
{
    (void)state;
    static const struct {
        const char *piece;
        int id;
    } places[] = {
        {MARK "Do", 771}, {MARK "not", 298}, {MARK "meddle", 57249}, {MARK "in", 267}, {MARK "the", 262},
        {MARK "affairs", 6303}, {MARK "of", 265}, {MARK "wizards", 41267}, {",", 261}, {MARK "for", 270},
        {MARK "they", 306}, {MARK "are", 281}, {MARK "subtle", 6245}, {MARK "and", 263}, {MARK "quick", 1538},
        {MARK "to", 264}, {MARK "anger", 5693}, {".", 260},
    };
    struct str s = {0}, wanted = {0};
    struct tokenizer *t;
    char filler[32];
    for (int id = 0; id <= 57249; id++) {
        const char *piece = id == 0 ? "[PAD]" : id == 1 ? "[CLS]" : id == 2 ? "[SEP]" : id == 3 ? "[UNK]" : NULL;
        int type = id == 3 ? SPM_UNKNOWN : piece != NULL ? SPM_CONTROL : SPM_UNUSED;
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
            if (places[i].id == id) {
                piece = places[i].piece;
                type = SPM_NORMAL;
            }
        snprintf(filler, sizeof filler, "[unused%d]", id);
        add_piece(&s, piece != NULL ? piece : filler, -1, type);
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        assert_ok(str_addf(&wanted, i == 0 ? "%d" : " %d", places[i].id));
    assert_ok(open_spm(&s, &t));
    check_ids(t, "Do not meddle in the affairs of wizards, for they are subtle and quick to anger.", wanted.p);
    struct tokenizer_info info;
    tokenizer_get_info(t, &info);
    assert_int_equal(info.cls, 1);
    assert_int_equal(info.sep, 2);
    assert_int_equal(info.pad, 0);
    assert_int_equal(info.mask, 57250); /* added behind the pieces */
    tokenizer_close(t);
    str_release(&s);
    str_release(&wanted);
}

static void test_refused_json(void **state)
{
    (void)state;
    struct tokenizer *t;
    static const struct {
        const char *model, *normalizer, *words, *post, *message;
    } bad[] = {
        {.model = BPE_OF("\"dropout\": 0.1, ", VOCAB, "[]"), .message = "dropout of merges is not known"},
        {.model = BPE_OF("\"continuing_subword_prefix\": \"##\", ", VOCAB, "[]"),
         .message = "continuing_subword_prefix \"##\" is not known here"},
        {.model = BPE_OF("\"end_of_word_suffix\": \"</w>\", ", VOCAB, "[]"),
         .message = "end_of_word_suffix \"</w>\" is not known here"},
        {.model = BPE_OF("\"unk_token\": \"x\", ", VOCAB, "[]"), .message = "lacks its unk_token \"x\""},
        {.model = BPE_OF("", VOCAB, "{}"), .message = "\"merges\" is not a list"},
        {.model = BPE_OF("", VOCAB, "[\"a b\", \"a\"]"), .message = "merge 1 is not two pieces"},
        {.model = BPE_OF("", VOCAB, "[[\"a\", \"b\", \"c\"]]"), .message = "merge 0 is not two pieces"},
        {.model = BPE_OF("", VOCAB, "[[\"a\", 1]]"), .message = "merge 0 is not two pieces"},
        {.model = BPE_OF("", VOCAB, "[\"a z\"]"), .message = "the second is not in the vocabulary"},
        {.model = UNIGRAM("\"unk_id\": 3, ", "[]"), .message = "\"vocab\" is not a list of pieces and their scores"},
        {.model = UNIGRAM("\"unk_id\": 3, ", "{\"a\": 1}"), .message = "\"vocab\" is not a list of pieces"},
        {.model = UNIGRAM("\"unk_id\": 3, ", "[[\"a\", 0], [\"b\"]]"), .message = "entry 1 of \"vocab\""},
        {.model = UNIGRAM("\"unk_id\": 3, ", "[[1, 0]]"), .message = "entry 0 of \"vocab\""},
        {.model = UNIGRAM("\"unk_id\": 6, ", SCORES), .message = "\"unk_id\" is 6, wanted a whole number from 0 to 5"},
        {.model = UNIGRAM("", SCORES), .message = "\"unk_id\""},
        {.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a+\"}, \"content\": \"\"}",
         .message = "Replace with the expression \"a+\" is not known here"},
        {.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}",
         .message = "the \"pattern\" of Replace"},
        {.normalizer = "{\"type\": \"Replace\", \"content\": \"\"}", .message = "the \"pattern\" of Replace"},
        {.normalizer = "{\"type\": \"Strip\"}", .message = "\"strip_left\" is not true or false"},
        {.normalizer = "{\"type\": \"Prepend\"}", .message = "\"prepend\""},
        {.normalizer = "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"A\"}",
         .message = "\"precompiled_charsmap\" is not base64"},
        {.words = "{\"type\": \"Metaspace\", \"replacement\": \"ab\"}", .message = "\"replacement\" is not one character"},
        {.words = "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"odd\"}",
         .message = "prepend_scheme \"odd\" is not known here"},
        {.words = "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"add_prefix_space\": false}",
         .message = "Metaspace has \"add_prefix_space\" false"},
        {.normalizer = "{\"type\": \"Nmt\"}",
         .words = "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"first\"}",
         .message = "behind a normalizer that may remove the beginning"},
        {.words = "{\"type\": \"Digits\"}", .message = "\"individual_digits\" is not true or false"},
        {.words = "{\"type\": \"ByteLevel\"}", .message = "\"add_prefix_space\" is not true or false"},
        {.words = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\", \"add_prefix_space\": true},"
                  "{\"type\": \"WhitespaceSplit\"}]}",
         .message = "pre_tokenizer \"WhitespaceSplit\" behind ByteLevel is not known here"},
        {.post = "{\"type\": \"Sequence\", \"processors\": [" ENDS ", " ENDS "]}",
         .message = "more than one in a Sequence places special tokens"},
        {.post = "{\"type\": \"Sequence\"}", .message = "a Sequence without \"processors\""},
        {.post = "{\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 99], \"cls\": [\"<s>\", 0]}",
         .message = "\"sep\" has no id below 13"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *texts[TOKENIZER_FILES] = {
            json_of(bad[i].model != NULL ? bad[i].model : BPE, bad[i].normalizer != NULL ? bad[i].normalizer : "null",
                    bad[i].words != NULL ? bad[i].words : "null", bad[i].post != NULL ? bad[i].post : ENDS)};
        assert_fails(open_files(texts, &t), STATUS_FORMAT, bad[i].message);
        assert_null(t);
    }
}

/* Work that grows with the text, not with its square. */
static void test_very_long_texts(void **state)
{
    (void)state;
    size_t n = 300000;
    char *text = malloc(n);
    for (size_t i = 0; i < FAMILIES; i++) {
        struct tokenizer *t = open_golden(families[i]);
        struct id_list ids = {0};
        memset(text, 'a', n);
        assert_ok(tokenizer_encode(t, text, n, &ids));
        assert_true(ids.n > 0);
        memset(text, ' ', n);
        assert_ok(tokenizer_encode(t, text, n, &ids));
        for (size_t k = 0; k < n; k += 2)
            memcpy(text + k, "\xCC\x81", 2);
        assert_ok(tokenizer_encode(t, text, n, &ids));
        id_list_release(&ids);
        tokenizer_close(t);
    }
    free(text);
}

/* What files may ask for to make texts long, and work on them longer still. */
static void test_hostile_growth(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct id_list ids = {0};
    struct str json = {0}, out = {0};
    const char *texts[TOKENIZER_FILES] = {NULL};
    char many[101] = "";
    memset(many, 'a', 100);
    assert_ok(str_addf(&json, "{\"version\": \"1.0\", \"added_tokens\": [], \"pre_tokenizer\": null, \"post_processor\": " ENDS
                              ", \"model\": " BPE ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": ["));
    for (int i = 0; i < 16; i++) /* each a becomes 100 */
        assert_ok(str_addf(&json, "%s{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"%s\"}",
                           i == 0 ? "" : ", ", many));
    assert_ok(str_addf(&json, "]}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": ["));
    for (int i = 0; i < 16; i++)
        assert_ok(str_addf(&json, "%s{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"aaaaaaaaaa\"}",
                           i == 0 ? "" : ", "));
    assert_ok(str_addf(&json, "]}}"));
    texts[FILE_TOKENIZER] = json.p;
    assert_ok(open_files(texts, &t));
    assert_fails(tokenizer_encode(t, "ba", 2, &ids), STATUS_NOMEM, "grows beyond 1048776 bytes");
    assert_fails(tokenizer_decode(t, (const int32_t[]){6, 5}, 2, &out), STATUS_NOMEM, "grows beyond");
    tokenizer_close(t);
    str_release(&json);
    str_release(&out);
    id_list_release(&ids);
}

/* Files that make a text's characters be looked at again and again: time still grows with the text alone. */
static void test_hostile_time(void **state)
{
    (void)state;
    size_t n = 400000;
    char *text = malloc(n), map[4 + 98 * 4] = {98 * 4 % 256, 98 * 4 / 256};
    struct tokenizer *t;
    struct id_list ids = {0};
    struct str s = {0}, spec = {0};
    const char *texts[TOKENIZER_FILES] = {NULL};
    /* a double array that leads back to its root with each "a" */
    uint32_t unit = 'a' | (uint32_t)'a' << 10;
    memcpy(map + 4 + 'a' * 4, &unit, sizeof unit);
    add_usual(&s);
    add_bytes(&spec, 2, map, sizeof map);
    add_bytes(&s, 3, spec.p, spec.n);
    assert_ok(open_spm(&s, &t));
    memset(text, 'a', n);
    assert_ok(tokenizer_encode(t, text, n, &ids));
    assert_int_equal(ids.n, n + 1);
    tokenizer_close(t);
    /* added tokens of white space that take all white space behind them */
    texts[FILE_VOCAB_JSON] = VOCAB;
    texts[FILE_MERGES] = "";
    texts[FILE_CONFIG] = "{\"additional_special_tokens\": [{\"content\": \"\\n\", \"rstrip\": true, \"lstrip\": true}]}";
    assert_ok(open_files(texts, &t));
    memset(text, '\n', n);
    text[n - 1] = 'a';
    ids.n = 0;
    assert_ok(tokenizer_encode(t, text, n, &ids));
    assert_int_equal(ids.n, n); /* one each, as in tokenizers, and the a */
    assert_int_equal(ids.p[n - 2], 13);
    assert_int_equal(ids.p[n - 1], 5);
    tokenizer_close(t);
    id_list_release(&ids);
    str_release(&spec);
    str_release(&s);
    free(text);
}

static void test_normal_forms(void **state)
{
    (void)state;
    uint32_t out[UNICODE_LONGEST];
    assert_int_equal(unicode_compose(0x1100, 0x1161), 0xAC00);
    assert_int_equal(unicode_compose(0xAC00, 0x11A8), 0xAC01);
    assert_int_equal(unicode_compose(0xAC01, 0x11A8), 0);
    assert_int_equal(unicode_compose('e', 0x301), 0xE9);
    assert_int_equal(unicode_compose('e', 'f'), 0);
    assert_int_equal(unicode_decompose_compat(0xFB01, out), 2);
    assert_int_equal(out[1], 'i');
    assert_int_equal(unicode_decompose_compat(0xFDFA, out), UNICODE_LONGEST);
    assert_int_equal(unicode_decompose_compat('a', out), 1);
    assert_int_equal(unicode_cluster("\r\na", 3), 2);
    assert_int_equal(unicode_cluster("\n\xCC\x81", 3), 1);
    assert_int_equal(unicode_cluster("e\xCC\x81x", 4), 3);
    assert_int_equal(unicode_cluster("\xC2\xA9\xE2\x80\x8D\xC2\xA9", 7), 7); /* pictures joined by one U+200D, not two */
    assert_int_equal(unicode_cluster("\xC2\xA9\xE2\x80\x8D\xE2\x80\x8D\xC2\xA9", 10), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_lines),
        cmocka_unit_test(test_specials_and_pairs),
        cmocka_unit_test(test_pairs_of_roberta),
        cmocka_unit_test(test_dataset_keeps_the_layout),
        cmocka_unit_test(test_saved_tokenizers_are_the_same),
        cmocka_unit_test(test_hashes_differ),
        cmocka_unit_test(test_merges_lines),
        cmocka_unit_test(test_merges_go_by_rank_and_place),
        cmocka_unit_test(test_families_by_class),
        cmocka_unit_test(test_spm_of_parts),
        cmocka_unit_test(test_albert_keeps_words_whole),
        cmocka_unit_test(test_refused_spm),
        cmocka_unit_test(test_hostile_charsmap),
        cmocka_unit_test(test_parts_of_json),
        cmocka_unit_test(test_ties_of_unigram),
        cmocka_unit_test(test_scores_are_rounded_as_there),
        cmocka_unit_test(test_sentence_of_deberta),
        cmocka_unit_test(test_refused_json),
        cmocka_unit_test(test_very_long_texts),
        cmocka_unit_test(test_hostile_growth),
        cmocka_unit_test(test_hostile_time),
        cmocka_unit_test(test_normal_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
