/* Tokenizers against numbers of Hugging Face's (tests/golden/make_tokenizer.py), and what they refuse. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "tests/support/support.h"

static struct tokenizer *open_golden(const char *name)
{
    char path[512];
    struct tokenizer *t;
    snprintf(path, sizeof path, "%s/golden/tokenizer/%s", TEST_DIR, name);
    assert_ok(tokenizer_open(path, &t));
    return t;
}

/* A tokenizer of files in memory; those not given are NULL. */
static enum status open_memory(const char *json, const char *vocab, const char *config, const char *special,
                               const char *added, struct tokenizer **out)
{
    const char *files[TOKENIZER_FILES] = {json, vocab, config, special, added};
    size_t sizes[TOKENIZER_FILES] = {0};
    for (int i = 0; i < TOKENIZER_FILES; i++)
        sizes[i] = files[i] == NULL ? 0 : strlen(files[i]);
    return tokenizer_open_memory("here", files, sizes, out);
}

/* The ids of text are those in wanted, "1 2 3". */
static void check_ids(const struct tokenizer *t, const char *text, const char *wanted)
{
    struct id_list ids = {0};
    char got[4096] = "";
    assert_ok(tokenizer_encode(t, text, strlen(text), &ids));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), i == 0 ? "%d" : " %d", ids.p[i]);
    if (strcmp(got, wanted) != 0)
        fail_msg("\"%s\" has ids %s, wanted %s", text, got, wanted);
    id_list_release(&ids);
}

/* A file of tests/golden/tokenizer; free it with mem_free(). */
static char *read_golden(const char *name)
{
    char path[512], *bytes;
    size_t n;
    snprintf(path, sizeof path, "%s/golden/tokenizer/%s", TEST_DIR, name);
    assert_ok(file_read(path, 1 << 24, &bytes, &n));
    return bytes;
}

/* The next line as JSON, or NULL at the end. */
static json_t *read_json_line(const char **at)
{
    const char *end = strchr(*at, '\n');
    json_error_t error;
    if (**at == '\0')
        return NULL;
    json_t *row = json_loadb(*at, (size_t)(end - *at), JSON_ALLOW_NUL, &error); /* U+0000 is one of the hard ones */
    if (row == NULL)
        fail_msg("a golden line: %s", error.text);
    *at = end + 1;
    return row;
}

static void test_golden_lines(void **state)
{
    (void)state;
    static const char *const names[] = {"uncased", "cased", "sequence"};
    struct tokenizer *tokenizers[3];
    struct id_list ids = {0};
    struct str text = {0};
    char *bytes = read_golden("lines.jsonl"), key[64];
    const char *at = bytes;
    for (int i = 0; i < 3; i++)
        tokenizers[i] = open_golden(names[i]);
    int rows = 0;
    for (json_t *row; (row = read_json_line(&at)) != NULL; rows++) {
        const json_t *line = json_object_get(row, "text");
        for (int i = 0; i < 3; i++) {
            const json_t *wanted = json_object_get(row, names[i]);
            ids.n = 0;
            assert_ok(tokenizer_encode(tokenizers[i], json_string_value(line), json_string_length(line), &ids));
            size_t same = 0;
            while (same < ids.n && same < json_array_size(wanted) &&
                   ids.p[same] == json_integer_value(json_array_get(wanted, same)))
                same++;
            if (same < ids.n || same < json_array_size(wanted))
                fail_msg("line %d, %s: %zu ids, wanted %zu; the first %zu are equal, then %d, wanted %d", rows + 1,
                         names[i], ids.n, json_array_size(wanted), same, same < ids.n ? ids.p[same] : -1,
                         same < json_array_size(wanted) ? (int)json_integer_value(json_array_get(wanted, same)) : -1);
            snprintf(key, sizeof key, "%s_text", names[i]);
            str_clear(&text);
            assert_ok(str_add(&text, "", 0));
            assert_ok(tokenizer_decode(tokenizers[i], ids.p, (int64_t)ids.n, &text));
            assert_string_equal(text.p, json_string_value(json_object_get(row, key)));
        }
        json_decref(row);
    }
    assert_int_equal(rows, 303);
    for (int i = 0; i < 3; i++)
        tokenizer_close(tokenizers[i]);
    id_list_release(&ids);
    str_release(&text);
    mem_free(bytes);
}

static void test_golden_decoding(void **state)
{
    (void)state;
    struct tokenizer *t = open_golden("uncased");
    struct str text = {0};
    char *bytes = read_golden("decode.jsonl");
    const char *at = bytes;
    for (json_t *row; (row = read_json_line(&at)) != NULL;) {
        const json_t *list = json_object_get(row, "ids");
        int32_t ids[16];
        size_t n = json_array_size(list);
        assert_in_range(n, 1, 16);
        for (size_t i = 0; i < n; i++)
            ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
        str_clear(&text);
        assert_ok(tokenizer_decode(t, ids, (int64_t)n, &text));
        assert_string_equal(text.p, json_string_value(json_object_get(row, "text")));
        json_decref(row);
    }
    mem_free(bytes);
    str_release(&text);
    tokenizer_close(t);
}

/* The step that golden options name: "NFD", "StripAccents", or letters of BertNormalizer's options. */
static unsigned step_bits(const char *options)
{
    if (strcmp(options, "NFD") == 0)
        return NORMALIZE_DECOMPOSE;
    if (strcmp(options, "StripAccents") == 0)
        return NORMALIZE_MARKS;
    return (strchr(options, 'c') ? NORMALIZE_CLEAN : 0u) | (strchr(options, 'k') ? NORMALIZE_CJK : 0u) |
           (strchr(options, 'a') ? NORMALIZE_DECOMPOSE | NORMALIZE_NONSPACING : 0u) |
           (strchr(options, 'l') ? NORMALIZE_LOWERCASE : 0u);
}

static void test_golden_normalizing(void **state)
{
    (void)state;
    char *bytes = read_golden("normalize.jsonl");
    const char *at = bytes;
    int rows = 0;
    for (json_t *row; (row = read_json_line(&at)) != NULL; rows++) {
        const char *options = json_string_value(json_array_get(row, 0));
        const json_t *from = json_array_get(row, 1), *wanted = json_array_get(row, 2);
        struct normalize_step step;
        size_t n = json_string_length(from), got_n;
        char *got = malloc(TOKENIZER_EXPANSION * n + 1); /* to the byte: the sanitizer sees one more */
        normalize_step_init(&step, step_bits(options));
        assert_ok(normalize_run(&step, json_string_value(from), n, got, &got_n));
        if (got_n != json_string_length(wanted) || memcmp(got, json_string_value(wanted), got_n) != 0)
            fail_msg("line %d, options \"%s\": \"%.*s\", wanted \"%s\"", rows + 1, options, (int)got_n, got,
                     json_string_value(wanted));
        free(got);
        json_decref(row);
    }
    assert_true(rows > 500);
    mem_free(bytes);
}

static void test_info(void **state)
{
    (void)state;
    struct tokenizer *t = open_golden("uncased");
    struct tokenizer_info info;
    tokenizer_get_info(t, &info);
    assert_string_equal(info.kind, "WordPiece");
    assert_int_equal(info.cls, 2);
    assert_int_equal(info.sep, 3);
    assert_int_equal(info.pad, 0);
    assert_int_equal(info.unk, 1);
    assert_int_equal(info.mask, 4);
    assert_true(info.lowercase);
    assert_int_equal(info.model_max_length, 0);
    assert_string_equal(tokenizer_piece(t, 4), "[MASK]");
    assert_int_equal(tokenizer_id(t, "##ing"), tokenizer_id(t, "##able") + 1);
    assert_int_equal(tokenizer_id(t, "Run"), info.vocab_size - 2); /* before "Été"; "of" is in the vocabulary */
    assert_int_equal(tokenizer_id(t, "no such piece"), -1);
    assert_null(tokenizer_piece(t, -1));
    assert_null(tokenizer_piece(t, info.vocab_size));
    tokenizer_close(t);
}

/* The golden ids of the sources, with a vocabulary that has just these pieces at their places. */
struct place {
    const char *piece;
    int id;
};

static struct tokenizer *open_places(const struct place *places, size_t count, bool lowercase)
{
    struct str vocab = {0};
    struct tokenizer *t;
    int last = 0;
    for (size_t i = 0; i < count; i++)
        last = places[i].id > last ? places[i].id : last;
    for (int id = 0; id <= last; id++) {
        const char *piece = NULL;
        for (size_t i = 0; i < count; i++)
            piece = places[i].id == id ? places[i].piece : piece;
        assert_ok(piece == NULL ? str_addf(&vocab, "[unused%d]\n", id) : str_addf(&vocab, "%s\n", piece));
    }
    assert_ok(open_memory(NULL, vocab.p, lowercase ? NULL : "{\"do_lower_case\": false}", NULL, NULL, &t));
    str_release(&vocab);
    return t;
}

static const struct place specials[] = {{"[PAD]", 0}, {"[UNK]", 100}, {"[CLS]", 101}, {"[SEP]", 102}, {"[MASK]", 103}};

static void test_pair_of_mrpc(void **state) /* P1 */
{
    (void)state;
    struct place places[12] = {{"is", 2003},     {"the", 1996}, {"first", 2034}, {"sentence", 6251},
                               {"number", 2193}, {"2", 1016},   {"this", 2023}};
    static const int32_t wanted[12] = {101, 2023, 2003, 1996, 2034, 6251, 102, 2023, 2003, 2193, 1016, 102};
    struct tokenizer_info info;
    struct id_list a = {0}, b = {0};
    int32_t out[64], types[64];
    memcpy(places + 7, specials, sizeof specials);
    struct tokenizer *t = open_places(places, 12, true);
    tokenizer_get_info(t, &info);
    assert_ok(tokenizer_encode(t, "this is the first sentence", 26, &a));
    assert_ok(tokenizer_encode(t, "This is number 2", 16, &b));
    int n = tokenizer_join(&info, a.p, (int64_t)a.n, b.p, (int64_t)b.n, 64, out, types);
    assert_int_equal(n, 12);
    for (int i = 0; i < n; i++) {
        assert_int_equal(out[i], wanted[i]);
        assert_int_equal(types[i], i >= 7);
    }
    tokenizer_close(t);
    id_list_release(&a);
    id_list_release(&b);
}

static void test_cased_sentence_of_distilbert(void **state) /* D1 */
{
    (void)state;
    struct place places[13] = {{"Hu", 20164}, {"##gging", 10932}, {"Face", 10289}, {"Transformers", 25267},
                               {"is", 1110},  {"great", 1632},    {"!", 106},      {"hugging", 107}};
    static const int32_t joined[9] = {101, 20164, 10932, 10289, 25267, 1110, 1632, 106, 102};
    struct str text = {0};
    memcpy(places + 8, specials, sizeof specials);
    struct tokenizer *t = open_places(places, 13, false);
    check_ids(t, "Hugging Face Transformers is great!", "20164 10932 10289 25267 1110 1632 106");
    assert_ok(tokenizer_decode(t, joined, 9, &text));
    assert_string_equal(text.p, "[CLS] Hugging Face Transformers is great! [SEP]");
    int32_t outside = 25268;
    assert_fails(tokenizer_decode(t, &outside, 1, &text), STATUS_ARG, "id 25268, wanted 0 to 25267");
    str_release(&text);
    tokenizer_close(t);
}

static void test_pairs_are_cut_longest_first(void **state)
{
    (void)state;
    struct tokenizer_info info = {.cls = 1, .sep = 2};
    int32_t a[64], b[64], out[256], types[256];
    char *bytes = read_golden("pairs.txt");
    int na, nb, length, ka, kb, used, rows = 0;
    for (int i = 0; i < 64; i++) {
        a[i] = 100 + i;
        b[i] = 200 + i;
    }
    for (char *at = bytes; sscanf(at, "%d %d %d %d %d\n%n", &na, &nb, &length, &ka, &kb, &used) == 5; at += used) {
        int got = tokenizer_join(&info, a, na, b, nb, length, out, types);
        if (got != ka + kb + 3 || got != tokenizer_length(&info, na, nb, length))
            fail_msg("%d and %d to %d: %d ids, joined_length %d, wanted %d", na, nb, length, got,
                     tokenizer_length(&info, na, nb, length), ka + kb + 3);
        for (int i = 0; i < got; i++) {
            int wanted = i == 0 ? 1 : i <= ka ? 100 + i - 1 : i == ka + 1 || i == got - 1 ? 2 : 200 + i - ka - 2;
            if (out[i] != wanted || types[i] != (i > ka + 1))
                fail_msg("%d and %d to %d: id %d of type %d at %d, wanted %d", na, nb, length, out[i], types[i], i,
                         wanted);
        }
        rows++;
    }
    assert_true(rows > 900);
    mem_free(bytes);
}

static void test_single_text_is_cut_behind(void **state)
{
    (void)state;
    struct tokenizer_info info = {.cls = 1, .sep = 2};
    int32_t a[5] = {10, 11, 12, 13, 14}, out[8];
    assert_int_equal(tokenizer_join(&info, a, 5, NULL, -1, 6, out, NULL), 6);
    assert_memory_equal(out, ((int32_t[]){1, 10, 11, 12, 13, 2}), 6 * sizeof *out);
    assert_int_equal(tokenizer_join(&info, a, 0, NULL, -1, 6, out, NULL), 2);
    assert_memory_equal(out, ((int32_t[]){1, 2}), 2 * sizeof *out);
    for (int length = 0; length < 3; length++) { /* never more than there is room for */
        out[length] = 77;
        assert_int_equal(tokenizer_join(&info, a, 5, a, 5, length, out, NULL), length);
        assert_int_equal(tokenizer_length(&info, 5, 5, length), length);
        assert_int_equal(out[length], 77);
    }
}

#define BASE "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" /* ids 0 to 4 */

static void test_vocab_lines(void **state)
{
    (void)state;
    struct tokenizer *t;
    /* CRLF, white space behind a piece, a piece said twice (the later line counts), no newline at the end */
    assert_ok(open_memory(NULL, "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\na \r\nb\xC2\xA0\r\n##c\r\na\r\nd", NULL,
                          NULL, NULL, &t));
    check_ids(t, "a b ac d x", "8 6 8 7 9 1");
    assert_null(tokenizer_piece(t, 5));
    tokenizer_close(t);
    /* specials that are missing get the next ids, as in transformers: sep, pad, cls, mask */
    assert_ok(open_memory(NULL, "[UNK]\na\n", NULL, NULL, NULL, &t));
    check_ids(t, "a [SEP][PAD] [CLS] [MASK] b", "1 2 3 4 5 0");
    tokenizer_close(t);
    static const struct {
        const char *vocab, *message;
    } bad[] = {
        {"", "here/vocab.txt: is empty"},
        {"[PAD]\na\n", "here/vocab.txt: the vocabulary lacks its unk_token \"[UNK]\""},
        {"\xEF\xBB\xBF" BASE, "begins with a byte-order mark"},
        {BASE "a\xFF\n", "here/vocab.txt:6: not UTF-8"},
        {BASE "\xED\xA0\x80\n", "here/vocab.txt:6: not UTF-8"},
        {"[UNK]\na\na\nb", "gets id 3, which is taken"}, /* three pieces, ids to 3 */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(open_memory(NULL, bad[i].vocab, NULL, NULL, NULL, &t), STATUS_FORMAT, bad[i].message);
    const char *zero[TOKENIZER_FILES] = {[FILE_VOCAB] = "[UNK]\na\0b\n"};
    assert_fails(tokenizer_open_memory("here", zero, (size_t[TOKENIZER_FILES]){[FILE_VOCAB] = 10}, &t), STATUS_FORMAT,
                 "here/vocab.txt:2: a piece with a zero byte");
    assert_null(t);
}

static void test_options_of_config(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct tokenizer_info info;
    const char *vocab = BASE "é\ne\nÉ\nE\n中\n##中\n<x>\n";
    assert_ok(open_memory(NULL, vocab, NULL, NULL, NULL, &t));
    check_ids(t, "É é 中中", "6 6 9 9");
    tokenizer_close(t);
    assert_ok(open_memory(NULL, vocab, "{\"do_lower_case\": false}", NULL, NULL, &t));
    check_ids(t, "É é E", "7 5 8");
    tokenizer_close(t);
    assert_ok(
        open_memory(NULL, vocab, "{\"strip_accents\": false, \"tokenize_chinese_chars\": false}", NULL, NULL, &t));
    check_ids(t, "É é 中中", "5 5 9 10");
    tokenizer_close(t);
    assert_ok(open_memory(NULL, vocab,
                          "{\"do_lower_case\": false, \"strip_accents\": true, \"cls_token\": {\"content\": \"<x>\"},"
                          "\"model_max_length\": 1000000000000000019884624838656}",
                          NULL, NULL, &t));
    check_ids(t, "É [CLS] <x>", "8 1 1 1 11");
    tokenizer_get_info(t, &info);
    assert_int_equal(info.cls, 11);
    assert_int_equal(info.model_max_length, 0);
    tokenizer_close(t);
    assert_ok(open_memory(NULL, vocab, "{\"model_max_length\": 512}", "{\"cls_token\": \"e\"}", NULL, &t));
    tokenizer_get_info(t, &info);
    assert_int_equal(info.cls, 6);
    assert_int_equal(info.model_max_length, 512);
    tokenizer_close(t);
    static const struct {
        const char *config, *message;
    } bad[] = {
        {"{\"do_lower_case\": 1}", "here/tokenizer_config.json: \"do_lower_case\" is not true or false"},
        {"{\"tokenizer_class\": \"BertJapaneseTokenizer\"}", "tokenizer_class \"BertJapaneseTokenizer\" is not known"},
        {"{\"cls_token\": null}", "no cls_token"},
        {"{\"sep_token\": 3}", "\"sep_token\" is not a text"},
        {"[]", "here/tokenizer_config.json: wanted a JSON object"},
        {"{\"do_lower_case\": true", "here/tokenizer_config.json:1: not valid JSON"},
        {"{\"added_tokens_decoder\": 3}", "\"added_tokens_decoder\" is not an object"},
        {"{\"added_tokens_decoder\": {\"x\": {}}}", "\"x\" is not an id"},
        {"{\"added_tokens_decoder\": {\"5\": {}}}", "content"},
        {"{\"model_max_length\": \"long\"}", "\"model_max_length\" is not a finite number"},
        {"{\"extra_special_tokens\": 1}", "\"extra_special_tokens\" is not a list"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(open_memory(NULL, vocab, bad[i].config, NULL, NULL, &t), STATUS_FORMAT, bad[i].message);
    assert_fails(open_memory(NULL, vocab, NULL, NULL, "{\"<y>\": 1.5}", &t), STATUS_FORMAT,
                 "here/added_tokens.json: the id of \"<y>\" is not a whole number");
}

static void test_added_tokens_of_vocab(void **state)
{
    (void)state;
    struct tokenizer *t;
    /* added_tokens.json: not special, so normalized; additional specials are not */
    assert_ok(open_memory(NULL, BASE "a\n", "{\"additional_special_tokens\": [\"<S>\"]}", NULL,
                          "{\"<B>\": 7, \"<A>\": 6}", &t));
    check_ids(t, "a<a> <B><s><S>", "5 6 7 1 1 1 8");
    tokenizer_close(t);
    assert_ok(
        open_memory(NULL, BASE "a\n",
                    "{\"added_tokens_decoder\": {\"7\": {\"content\": \"<B>\", \"lstrip\": true, \"special\": true},"
                    "\"6\": {\"content\": \"<A>\", \"normalized\": true, \"single_word\": true}}}",
                    NULL, NULL, &t));
    check_ids(t, "a <B>a<a> a <a>", "5 7 5 1 5 1 5 6");
    tokenizer_close(t);
}

/* A tokenizer.json of parts; those that are NULL are as usual. */
static const char *json_of(const char *normalizer, const char *words, const char *model, const char *added,
                           const char *post, const char *decoder)
{
    static char text[8192];
    snprintf(text, sizeof text,
             "{\"version\": \"1.0\", \"truncation\": {\"max_length\": 1}, \"padding\": null, \"added_tokens\": %s,"
             "\"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, \"decoder\": %s, \"model\": %s}",
             added != NULL ? added : "[]", normalizer != NULL ? normalizer : "null",
             words != NULL ? words : "{\"type\": \"BertPreTokenizer\"}",
             post != NULL ? post : "{\"type\": \"BertProcessing\", \"cls\": [\"[CLS]\", 1], \"sep\": [\"[SEP]\", 2]}",
             decoder != NULL ? decoder : "{\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}",
             model != NULL
                 ? model
                 : "{\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\","
                   "\"max_input_chars_per_word\": 100, \"vocab\": {\"[UNK]\": 0, \"[CLS]\": 1, \"[SEP]\": 2,"
                   "\"a\": 3, \"##b\": 4}}");
    return text;
}

#define MODEL(unk, max, vocab)                                                                                         \
    "{\"type\": \"WordPiece\", \"unk_token\": " unk ", \"continuing_subword_prefix\": \"##\","                         \
    "\"max_input_chars_per_word\": " max ", \"vocab\": " vocab "}"
#define ADDED(id, content, normalized)                                                                                 \
    "{\"id\": " id ", \"content\": \"" content "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false,"     \
    "\"normalized\": " normalized ", \"special\": true}"
#define BERT "{\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true, \"lowercase\": true}"
#define PLACE(kind, id, type) "{\"" kind "\": {\"id\": \"" id "\", \"type_id\": " type "}}"
#define TEMPLATE(single, pair, ids)                                                                                    \
    "{\"type\": \"TemplateProcessing\", \"single\": [" single "], \"pair\": [" pair "], \"special_tokens\": {"         \
    "\"[CLS]\": {\"id\": \"[CLS]\", \"ids\": " ids ", \"tokens\": []},"                                                \
    "\"[SEP]\": {\"id\": \"[SEP]\", \"ids\": [2], \"tokens\": []}}}"
#define SINGLE                                                                                                         \
    PLACE("SpecialToken", "[CLS]", "0") "," PLACE("Sequence", "A", "0") "," PLACE("SpecialToken", "[SEP]", "0")
#define PAIR SINGLE "," PLACE("Sequence", "B", "1") "," PLACE("SpecialToken", "[SEP]", "1")

static void test_parts_of_json(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct tokenizer_info info;
    assert_ok(
        open_memory(json_of(BERT, NULL, NULL, NULL, TEMPLATE(SINGLE, PAIR, "[1]"), NULL), NULL, NULL, NULL, NULL, &t));
    check_ids(t, "A aB\xCC\x81 bA", "3 3 4 0"); /* truncation is ignored */
    tokenizer_get_info(t, &info);
    assert_int_equal(info.cls, 1);
    assert_int_equal(info.sep, 2);
    tokenizer_close(t);
    /* no post_processor and no class: no ends */
    assert_ok(open_memory(json_of(NULL, NULL, NULL, NULL, "null", NULL), NULL, NULL, NULL, NULL, &t));
    check_ids(t, "a A", "3 0");
    tokenizer_get_info(t, &info);
    assert_true(info.no_ends && info.cls == -1 && info.sep == -1);
    tokenizer_close(t);
    /* ids of added tokens are found, not believed; an empty one is left out */
    assert_ok(
        open_memory(json_of(BERT, NULL, NULL,
                            "[" ADDED("5", "[X]", "false") "," ADDED("3", "a", "false") "," ADDED("9", "", "false") "]",
                            NULL, NULL),
                    NULL, NULL, NULL, NULL, &t));
    check_ids(t, "[X]ba[x]", "5 0 3 0 0 0");
    tokenizer_close(t);
    /* without a pre-tokenizer white space is part of words, unless an added token takes it */
    assert_ok(open_memory(json_of(NULL, "null", NULL,
                                  "[{\"id\": 5, \"content\": \"<l>\", \"single_word\": false, \"lstrip\": true,"
                                  "\"rstrip\": false, \"normalized\": false, \"special\": true},"
                                  "{\"id\": 6, \"content\": \"<r>\", \"single_word\": false, \"lstrip\": false,"
                                  "\"rstrip\": true, \"normalized\": false, \"special\": true}]",
                                  NULL, NULL),
                          NULL, NULL, NULL, NULL, &t));
    check_ids(t, "a \xE3\x80\x80<l>a<r>\t a", "3 5 3 6 3");
    check_ids(t, "a <r>a<l> a", "0 6 3 5 0");
    check_ids(t, "a<r>  <l>a", "3 6 5 3");
    tokenizer_close(t);
    /* ids with holes are fine */
    assert_ok(open_memory(
        json_of(NULL, NULL, MODEL("\"u\"", "1", "{\"u\": 7, \"[CLS]\": 1, \"[SEP]\": 2, \"bb\": 3}"), NULL, NULL, NULL),
        NULL, NULL, NULL, NULL, &t));
    check_ids(t, "u bb", "7 7");
    tokenizer_get_info(t, &info);
    assert_int_equal(info.vocab_size, 8);
    tokenizer_close(t);
}

static void test_refused_json(void **state)
{
    (void)state;
    struct tokenizer *t;
    static const struct {
        const char *normalizer, *words, *model, *added, *post, *decoder, *message;
    } bad[] = {
        {.normalizer = "{\"type\": \"ByteLevel\"}",
         .message = "here/tokenizer.json: normalizer \"ByteLevel\" is not known here"},
        {.normalizer = "{\"lowercase\": true}", .message = "the normalizer is not an object with a \"type\""},
        {.normalizer = "{\"type\": \"BertNormalizer\"}", .message = "\"clean_text\" is not true or false"},
        {.normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Odd\"}]}",
         .message = "normalizer \"Odd\" is not known"},
        {.normalizer = "{\"type\": \"Sequence\"}", .message = "a Sequence without \"normalizers\""},
        {.normalizer = "7", .message = "the normalizer is not an object"},
        {.words = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}",
         .message = "pre_tokenizer \"ByteLevel\" with the model WordPiece is not known"},
        {.words = "{\"type\": \"Split\"}", .message = "pre_tokenizer \"Split\" is not known"},
        {.words = "{\"type\": \"Punctuation\", \"behavior\": \"Removed\"}",
         .message = "Punctuation with behavior \"Removed\" is not known"},
        {.decoder = "{\"type\": \"CTC\"}", .message = "decoder \"CTC\" is not known"},
        {.decoder = "{\"type\": \"WordPiece\"}", .message = "\"prefix\""},
        {.model = "{\"type\": \"WordLevel\", \"vocab\": {}}", .message = "model \"WordLevel\" is not known here"},
        {.model = "[]", .message = "no \"model\""},
        {.model = MODEL("\"[UNK]\"", "100", "{}"), .message = "\"vocab\" is not an object with pieces"},
        {.model = MODEL("\"[UNK]\"", "100", "[\"a\"]"), .message = "\"vocab\" is not an object with pieces"},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": 0}"), .message = "lacks its unk_token \"[UNK]\""},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": \"0\"}"), .message = "the id of \"a\" is not a whole number"},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": -1}"), .message = "\"a\" has id -1, wanted 0 to"},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": 4294967296}"), .message = "\"a\" has id 4294967296, wanted 0 to"},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": 16777216}"), .message = "\"a\" has id 16777216, wanted 0 to"},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": 1, \"b\": 1}"), .message = "\"a\" and \"b\" both have id 1"},
        {.model = MODEL("\"[UNK]\"", "100", "{\"a\": 1, \"a\": 2}"), .message = "not valid JSON"},
        {.model = MODEL("\"[UNK]\"", "-1", "{\"[UNK]\": 0}"), .message = "\"max_input_chars_per_word\" is -1"},
        {.model = MODEL("3", "1", "{\"[UNK]\": 0}"), .message = "\"unk_token\""},
        {.added = "{}", .message = "\"added_tokens\" is not a list"},
        {.added = "[3]", .message = "added token 0 is not an object"},
        {.added = "[{\"content\": \"x\", \"id\": 5}]", .message = "\"single_word\" is not true or false"},
        {.normalizer = BERT,
         .added = "[" ADDED("5", "\\u0301", "true") "]",
         .message = "nothing is left of the added token"},
        {.normalizer = BERT,
         .added = "[" ADDED("5", "X", "true") "," ADDED("6", "x", "true") "]",
         .message = "\"X\" and \"x\" are looked for as the same text"},
        {.model = MODEL("\"[UNK]\"", "1", "{\"[UNK]\": 0, \"[CLS]\": 1, \"[SEP]\": 3}"),
         .added = "[" ADDED("3", "x", "true") "]",
         .message = "\"x\" is not in the vocabulary and gets id 3, which is taken"},
        {.post = "{\"type\": \"RobertaProcessing\"}", .message = "\"cls\" has no id below 5"},
        {.post = "{\"type\": \"Odd\"}", .message = "post_processor \"Odd\" is not known"},
        {.post = "{\"type\": \"BertProcessing\", \"cls\": [\"[CLS]\", 5], \"sep\": [\"[SEP]\", 2]}",
         .message = "\"cls\" has no id below 5"},
        {.post = "{\"type\": \"BertProcessing\", \"cls\": \"x\"}", .message = "\"cls\" has no id below 5"},
        {.post = TEMPLATE(SINGLE, PAIR, "[]"), .message = "\"[CLS]\" has no single id"},
        {.post = TEMPLATE(SINGLE, SINGLE, "[1]"), .message = "the template for \"pair\" is not known"},
        {.post = TEMPLATE(PLACE("Sequence", "A", "0"), PAIR, "[1]"),
         .message = "the template for \"single\" is not known"},
        {.post =
             TEMPLATE(SINGLE, SINGLE "," PLACE("Sequence", "A", "1") "," PLACE("SpecialToken", "[SEP]", "1"), "[1]"),
         .message = "the template for \"pair\" is not known"},
        {.post =
             TEMPLATE(SINGLE, SINGLE "," PLACE("Sequence", "B", "0") "," PLACE("SpecialToken", "[SEP]", "1"), "[1]"),
         .message = "the template for \"pair\" is not known"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *json =
            json_of(bad[i].normalizer, bad[i].words, bad[i].model, bad[i].added, bad[i].post, bad[i].decoder);
        assert_fails(open_memory(json, NULL, NULL, NULL, NULL, &t), STATUS_FORMAT, bad[i].message);
        assert_null(t);
    }
    /* cut anywhere: an error, never a crash */
    char *whole = strdup(json_of(BERT, NULL, NULL, "[" ADDED("5", "[X]", "false") "]", NULL, NULL));
    for (size_t n = 0; n < strlen(whole); n++) {
        const char *files[TOKENIZER_FILES] = {whole};
        assert_fails(tokenizer_open_memory("here", files, (size_t[TOKENIZER_FILES]){n}, &t), STATUS_FORMAT,
                     "here/tokenizer.json:");
    }
    free(whole);
    struct str deep = {0};
    for (int i = 0; i < 20; i++)
        assert_ok(str_addf(&deep, "{\"type\": \"Sequence\", \"normalizers\": ["));
    for (int i = 0; i < 20; i++)
        assert_ok(str_addf(&deep, "]}"));
    assert_fails(open_memory(json_of(deep.p, NULL, NULL, NULL, NULL, NULL), NULL, NULL, NULL, NULL, &t), STATUS_FORMAT,
                 "nested too deep");
    str_release(&deep);
}

static void test_no_files(void **state)
{
    (void)state;
    struct tokenizer *t;
    assert_fails(tokenizer_open(support_folder(), &t), STATUS_NOINPUT, "wanted tokenizer.json or vocab.txt");
    assert_null(t);
}

static void test_json_goes_before_vocab(void **state)
{
    (void)state;
    struct tokenizer *t;
    assert_ok(open_memory(json_of(NULL, NULL, NULL, NULL, NULL, NULL), BASE "a\n", NULL, NULL, NULL, &t));
    check_ids(t, "a", "3");
    tokenizer_close(t);
}

static uint64_t hash_of(const char *json, const char *vocab, const char *config)
{
    struct tokenizer *t;
    struct tokenizer_info info;
    assert_ok(open_memory(json, vocab, config, NULL, NULL, &t));
    tokenizer_get_info(t, &info);
    tokenizer_close(t);
    return info.hash;
}

static void test_hash_is_of_what_decides_ids(void **state)
{
    (void)state;
    uint64_t plain = hash_of(NULL, BASE "a\nb\n", NULL);
    assert_true(plain == hash_of(NULL, BASE "a\r\nb", "{\"model_max_length\": 128, \"do_lower_case\": true}"));
    assert_true(plain != hash_of(NULL, BASE "b\na\n", NULL));
    assert_true(plain != hash_of(NULL, BASE "a\nb\nc\n", NULL));
    assert_true(plain != hash_of(NULL, BASE "a\nb\n", "{\"do_lower_case\": false}"));
    assert_true(plain != hash_of(NULL, BASE "a\nb\n", "{\"strip_accents\": false}"));
    assert_true(plain != hash_of(NULL, BASE "a\nb\n", "{\"additional_special_tokens\": [\"a\"]}"));
    assert_true(plain != hash_of(NULL, BASE "a\nb\n", "{\"cls_token\": \"a\"}"));
    /* the same tokenizer as JSON */
    const char *added = "[" ADDED("0", "[PAD]", "false") "," ADDED("1", "[UNK]", "false") ","
                        ADDED("2", "[CLS]", "false") "," ADDED("3", "[SEP]", "false") ","
                        ADDED("4", "[MASK]", "false") "]";
    assert_true(
        plain ==
        hash_of(json_of(BERT, NULL,
                        MODEL("\"[UNK]\"", "100",
                              "{\"[PAD]\": 0, \"[UNK]\": 1, \"[CLS]\": 2, \"[SEP]\": 3,"
                              "\"[MASK]\": 4, \"a\": 5, \"b\": 6}"),
                        added, "{\"type\": \"BertProcessing\", \"cls\": [\"[CLS]\", 2], \"sep\": [\"[SEP]\", 3]}",
                        NULL),
                NULL, NULL));
}

static void test_saved_tokenizer_is_the_same(void **state)
{
    (void)state;
    char path[600], *to, *bytes;
    struct tokenizer *t, *again;
    struct tokenizer_info info, info_again;
    size_t n;
    static const char *const configs[] = {NULL, "{\"do_lower_case\": false}"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "saved-%d", i);
        assert_ok(path_join(support_folder(), path, &to));
        assert_ok(folder_make(to));
        assert_ok(open_memory(NULL, BASE "a\nA\n", configs[i], NULL, NULL, &t));
        assert_ok(tokenizer_save(t, to));
        assert_ok(tokenizer_open(to, &again));
        tokenizer_get_info(t, &info);
        tokenizer_get_info(again, &info_again);
        assert_true(info.hash == info_again.hash);
        snprintf(path, sizeof path, "%s/tokenizer_config.json", to);
        assert_ok(file_read(path, 1 << 20, &bytes, &n));
        support_assert_contains(bytes, i == 0 ? "\"tokenizer_class\": \"BertTokenizer\"" : configs[1]);
        if (i == 0)
            support_assert_contains(bytes, "\"do_lower_case\": true");
        mem_free(bytes);
        snprintf(path, sizeof path, "%s/tokenizer.json", to);
        assert_false(file_exists(path));
        tokenizer_close(t);
        tokenizer_close(again);
        mem_free(to);
    }
    assert_ok(open_memory(NULL, BASE, NULL, NULL, NULL, &t));
    assert_int_equal(tokenizer_save(t, "/nonexistent/folder"), STATUS_IO);
    tokenizer_close(t);
}

static void test_encode_appends(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct id_list ids = {0};
    assert_ok(open_memory(NULL, BASE "a\nb\n", NULL, NULL, NULL, &t));
    assert_ok(tokenizer_encode(t, "a", 1, &ids));
    assert_ok(tokenizer_encode(t, "", 0, &ids));
    assert_ok(tokenizer_encode(t, "b[MASK]b", 1, &ids)); /* n counts, not the NUL */
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.p[0], 5);
    assert_int_equal(ids.p[1], 6);
    id_list_release(&ids);
    tokenizer_close(t);
}

static void test_very_long_texts(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct id_list ids = {0};
    size_t n = 10000000;
    char *text = malloc(n);
    assert_ok(open_memory(NULL, BASE "a\n##a\n\xCC\xA7\n", "{\"strip_accents\": false, \"do_lower_case\": false}", NULL,
                          NULL, &t));
    memset(text, 'a', n); /* one word */
    assert_ok(tokenizer_encode(t, text, n, &ids));
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.p[0], 1);
    for (size_t i = 1; i < n; i += 2)
        text[i] = ' ';
    ids.n = 0;
    assert_ok(tokenizer_encode(t, text, n, &ids));
    assert_int_equal(ids.n, n / 2);
    tokenizer_close(t);
    /* a run of a million marks, last ones first in order: sorted, and in linear time */
    n = 2000000;
    for (size_t i = 0; i < n; i += 2)
        memcpy(text + i, i < n / 2 ? "\xCC\x81" : "\xCC\xA7", 2); /* orders 230 and 202 */
    char *to = malloc(TOKENIZER_EXPANSION * n);
    size_t to_n;
    struct normalize_step step;
    normalize_step_init(&step, NORMALIZE_DECOMPOSE);
    assert_ok(normalize_run(&step, text, n, to, &to_n));
    assert_int_equal(to_n, n);
    assert_memory_equal(to, text + n / 2, n / 2);
    assert_memory_equal(to + n / 2, text, n / 2);
    free(to);
    free(text);
    id_list_release(&ids);
}

static void test_million_pieces(void **state)
{
    (void)state;
    struct str vocab = {0};
    struct tokenizer *t;
    struct tokenizer_info info;
    assert_ok(str_add(&vocab, BASE, strlen(BASE)));
    for (int i = 0; i < 1000000; i++)
        assert_ok(str_addf(&vocab, i & 1 ? "##p%d\n" : "p%d\n", i));
    assert_ok(open_memory(NULL, vocab.p, NULL, NULL, NULL, &t));
    tokenizer_get_info(t, &info);
    assert_int_equal(info.vocab_size, 1000005);
    check_ids(t, "p123456p7 p999998p999999", "123461 12 1000003 1000004");
    tokenizer_close(t);
    str_release(&vocab);
}

/* A walk along all of a text: the value of each node, 0 where there is no node. */
static void walk(const struct trie *trie, const char *text, size_t n, int32_t *out)
{
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < n; i++) {
        node = node == 0 ? 0 : trie_next(trie, node, (unsigned char)text[i]);
        out[i] = node == 0 ? 0 : trie_value(trie, node) + 10;
    }
}

/* Strings of few different bytes (deep), of all (wide) and texts that leave the trie somewhere: frozen or not, the same. */
static void test_frozen_tries(void **state)
{
    (void)state;
    enum { STRINGS = 20000, LONGEST = 12 };
    struct trie trie = {0}, frozen = {0};
    char (*text)[LONGEST] = calloc(STRINGS, sizeof *text);
    size_t *length = calloc(STRINGS, sizeof *length);
    uint64_t random = 7;
    assert_ok(trie_freeze(&frozen)); /* an empty one stays empty */
    assert_int_equal(trie_find(&frozen, "a", 1), -1);
    assert_ok(trie_insert(&frozen, "", 0, 5)); /* and one of nothing but its root takes more */
    assert_ok(trie_freeze(&frozen));
    assert_int_equal(trie_find(&frozen, "", 0), 5);
    assert_ok(trie_insert(&trie, "", 0, 5));
    for (int i = 0; i < STRINGS; i++) {
        length[i] = 1 + i % LONGEST;
        for (size_t k = 0; k < length[i]; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[i][k] = (char)(i % 2 == 0 ? 1 + (random >> 33) % 255 : 'a' + (random >> 33) % 3);
        }
        if (i % 3 == 0)
            continue; /* not in the trie, or by chance */
        assert_ok(trie_insert(&trie, text[i], length[i], i));
        assert_ok(trie_insert(&frozen, text[i], length[i], i));
    }
    assert_ok(trie_freeze(&frozen));
    assert_non_null(frozen.units);
    for (int i = 0; i < STRINGS; i++) {
        int32_t a[LONGEST + 1], b[LONGEST + 1];
        walk(&trie, text[i], length[i], a);
        walk(&frozen, text[i], length[i], b);
        assert_memory_equal(a, b, length[i] * sizeof *a);
        assert_int_equal(trie_find(&trie, text[i], length[i]), trie_find(&frozen, text[i], length[i]));
        uint32_t node = trie_walk(&frozen, text[i], length[i]);
        if (node != 0) /* no string has a zero byte */
            assert_int_equal(trie_next(&frozen, node, 0), 0);
    }
    assert_int_equal(trie_find(&frozen, "", 0), 5);
    for (int c = 0; c < 256; c++) {
        char one = (char)c;
        assert_int_equal(trie_find(&frozen, &one, 1), trie_find(&trie, &one, 1));
    }
    trie_release(&trie);
    trie_release(&frozen);
    free(text);
    free(length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_lines),
        cmocka_unit_test(test_golden_decoding),
        cmocka_unit_test(test_golden_normalizing),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_pair_of_mrpc),
        cmocka_unit_test(test_cased_sentence_of_distilbert),
        cmocka_unit_test(test_pairs_are_cut_longest_first),
        cmocka_unit_test(test_single_text_is_cut_behind),
        cmocka_unit_test(test_vocab_lines),
        cmocka_unit_test(test_options_of_config),
        cmocka_unit_test(test_added_tokens_of_vocab),
        cmocka_unit_test(test_parts_of_json),
        cmocka_unit_test(test_refused_json),
        cmocka_unit_test(test_no_files),
        cmocka_unit_test(test_json_goes_before_vocab),
        cmocka_unit_test(test_hash_is_of_what_decides_ids),
        cmocka_unit_test(test_saved_tokenizer_is_the_same),
        cmocka_unit_test(test_encode_appends),
        cmocka_unit_test(test_very_long_texts),
        cmocka_unit_test(test_million_pieces),
        cmocka_unit_test(test_frozen_tries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
