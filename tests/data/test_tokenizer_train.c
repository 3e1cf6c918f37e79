/*
 * Training of tokenizers against what others make of the same text (tests/golden/make_tokenizer_train.py): merges of
 * Hugging Face's BPE trainer, a WordPiece vocabulary by brute force, the likelihood of its Unigram trainer.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/threads.h"
#include "data/tokenizer.h"
#include "data/tokenizer_train_parts.h"
#include "tests/support/support.h"

#define SPECIALS "[UNK],[PAD],[CLS],[SEP],[MASK]"

static const char *golden(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/tokenizer_train/%s", TEST_DIR, name);
    char *copy;
    assert_ok(mem_strdup(path, &copy));
    return support_keep(copy);
}

static const char *folder(const char *name)
{
    char *path;
    assert_ok(path_join(support_folder(), name, &path));
    return support_keep(path);
}

/* A whole file; NUL behind. Not inlined: gcc 12 then takes the bytes for the pointer to them. */
__attribute__((noinline))
static char *slurp_path(const char *path)
{
    char *bytes = NULL;
    size_t n = 0;
    enum status st = file_read(path, 1 << 24, &bytes, &n);
    assert_ok(st);
    return bytes;
}

static char *slurp(const char *in, const char *name)
{
    char *path, *bytes;
    assert_ok(path_join(in, name, &path));
    bytes = slurp_path(path);
    mem_free(path);
    return bytes;
}

static struct text_opts rows_of(const char *path)
{
    return (struct text_opts){.path = path, .format = TEXT_TSV, .header = false, .text = "1"};
}

static struct tokenizer_train_opts options(enum train_model model, int64_t vocab_size)
{
    return (struct tokenizer_train_opts){.model = model,
                                         .normalizer = "auto",
                                         .special_tokens = SPECIALS,
                                         .vocab_size = vocab_size,
                                         .min_frequency = 2,
                                         .max_piece = 16,
                                         .max_words = 1000000};
}

static struct tokenizer_train_report train(const struct tokenizer_train_opts *opts, const char *path, const char *out)
{
    struct tokenizer_train_report report;
    struct text_opts rows = rows_of(path);
    assert_ok(tokenizer_train(opts, &rows, 1, out, &report));
    return report;
}

static const char *repeat(const char *name, const char *const *words, const int *counts, int n)
{
    struct str text = {0};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < counts[i]; k++)
            assert_ok(str_addf(&text, "%s\n", words[i]));
    const char *path = support_file(name, text.p, text.n);
    str_release(&text);
    return path;
}

/* The ids of a text, as "5 12 ". */
static void assert_ids(const char *in, const char *text, const char *wanted)
{
    struct tokenizer *t;
    struct id_list ids = {0};
    struct str found = {0};
    assert_ok(tokenizer_open(in, &t));
    assert_ok(tokenizer_encode(t, text, strlen(text), &ids));
    for (size_t i = 0; i < ids.n; i++)
        assert_ok(str_addf(&found, "%d ", ids.p[i]));
    assert_string_equal(found.p == NULL ? "" : found.p, wanted);
    str_release(&found);
    id_list_release(&ids);
    tokenizer_close(t);
}

static void test_bpe_of_the_course(void **state)
{
    (void)state;
    const char *words[] = {"hug", "pug", "pun", "bun", "hugs"};
    const int counts[] = {10, 5, 12, 4, 5};
    struct tokenizer_train_opts opts = options(TRAIN_BPE, 15);
    const char *out = folder("course");
    opts.words = TRAIN_WORDS_WHITESPACE;
    struct tokenizer_train_report report = train(&opts, repeat("course.tsv", words, counts, 5), out);
    assert_int_equal(report.words, 36);
    assert_int_equal(report.distinct, 5);
    assert_int_equal(report.alphabet, 7);
    assert_int_equal(report.vocab_size, 15);
    char *merges = slurp(out, "merges.txt");
    assert_string_equal(merges, "#version: 0.2\nu g\nu n\nh ug\n");
    mem_free(merges);
    assert_ids(out, "bug mug", "5 12 0 12 "); /* b ug, unk ug */
    assert_ids(out, "[CLS]hugs[MASK]", "2 14 10 4 ");
}

/* Written without this text's first line where that is a version. */
static void assert_same_lines(const char *out, const char *file, const char *wanted_name, bool version)
{
    char *found = slurp(out, file), *wanted = slurp_path(golden(wanted_name)), *begin = found;
    if (version)
        begin = strchr(found, '\n') + 1;
    assert_string_equal(begin, wanted);
    mem_free(found);
    mem_free(wanted);
}

static void test_bpe_merges_equal_tokenizers(void **state)
{
    (void)state;
    struct tokenizer_train_opts opts = options(TRAIN_BPE, 600);
    train(&opts, golden("text.tsv"), folder("bytes"));
    assert_same_lines(folder("bytes"), "merges.txt", "merges_bytes.txt", true);
    opts.vocab_size = 300;
    opts.words = TRAIN_WORDS_WHITESPACE;
    opts.normalizer = "nfd, strip_accents ,lowercase";
    train(&opts, golden("text.tsv"), folder("letters"));
    assert_same_lines(folder("letters"), "merges.txt", "merges_letters.txt", true);
}

static void test_wordpiece_equals_brute_force(void **state)
{
    (void)state;
    struct tokenizer_train_opts opts = options(TRAIN_WORDPIECE, 260);
    const char *out = folder("wordpiece");
    train(&opts, golden("text.tsv"), out);
    assert_same_lines(out, "vocab.txt", "vocab_wordpiece.txt", false);
    struct tokenizer *t;
    struct text_opts rows = rows_of(golden("text.tsv"));
    struct text_reader *reader;
    struct text_row row;
    bool more;
    char *all = slurp_path(golden("ids_wordpiece.txt")), *wanted = all;
    assert_ok(tokenizer_open(out, &t));
    assert_ok(text_open(&rows, &reader));
    for (int i = 0; *wanted != '\0'; i++) {
        struct id_list ids = {0};
        assert_ok(text_next(reader, &row, &more));
        assert_true(more);
        assert_ok(tokenizer_encode(t, row.text.p, row.text.n, &ids));
        for (size_t k = 0; k < ids.n; k++, wanted++)
            if (strtol(wanted, &wanted, 10) != ids.p[k] || *wanted != (k + 1 == ids.n ? '\n' : ' '))
                fail_msg("line %d: id %zu is %d, which tokenizers has not", i + 1, k, ids.p[k]);
        id_list_release(&ids);
    }
    text_close(reader);
    tokenizer_close(t);
    mem_free(all);
}

/* Pieces and scores of a Unigram tokenizer.json: an object. */
static json_t *scores_of(const char *out)
{
    char *bytes = slurp(out, "tokenizer.json");
    json_t *root, *scores = json_object();
    assert_ok(json_parse(bytes, strlen(bytes), "tokenizer.json", &root));
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (size_t i = 5; i < json_array_size(vocab); i++) {
        const json_t *entry = json_array_get(vocab, i);
        json_object_set(scores, json_string_value(json_array_get(entry, 0)), json_array_get(entry, 1));
    }
    json_decref(root);
    mem_free(bytes);
    return scores;
}

/* The logarithm of a word's probability, over all ways to write it. */
static double word_likelihood(const json_t *scores, const char *word, size_t n)
{
    double ways[256] = {1};
    assert_true(n < 256);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = i + 1; k <= n && ways[i] > 0; k++) {
            const json_t *score = json_object_getn(scores, word + i, k - i);
            if (score != NULL)
                ways[k] += ways[i] * exp(json_real_value(score));
        }
    }
    return log(ways[n]);
}

static void test_unigram_is_as_likely_as_theirs(void **state)
{
    (void)state;
    struct tokenizer_train_opts opts = options(TRAIN_UNIGRAM, 400);
    const char *out = folder("unigram");
    struct tokenizer_train_report report = train(&opts, golden("text.tsv"), out);
    assert_int_equal(report.vocab_size, 400);
    json_t *scores = scores_of(out);
    assert_int_equal(json_object_size(scores), 395);
    double sum = 0, probability = 0;
    int64_t count = 0;
    char *text = slurp_path(golden("text.tsv")), *wanted = slurp_path(golden("unigram.txt")), word[512];
    for (char *p = text; *p != '\0';) {
        size_t n = strcspn(p, " \n");
        int length = snprintf(word, sizeof word, TRAIN_MARK "%.*s", (int)n, p);
        sum += word_likelihood(scores, word, (size_t)length);
        count++;
        p += n + 1;
    }
    assert_int_equal(count, report.words);
    double theirs = atof(wanted), ours = sum / (double)count;
    if (!(ours >= theirs - 0.01 * fabs(theirs))) /* better is fine */
        fail_msg("log likelihood a word %.6f, theirs %.6f", ours, theirs);
    const char *piece;
    json_t *score;
    json_object_foreach(scores, piece, score) probability += exp(json_real_value(score));
    assert_true(probability < 1.001 && probability > 0.8);
    json_decref(scores);
    mem_free(text);
    mem_free(wanted);
}

/* A substring of 2 to 3 characters that two words share, and the trie's order of equal ones. */
static void test_seeds(void **state)
{
    (void)state;
    static const char text[] = "xabc\0yabc\0zab\0\xC3\xA9\xC3\xA9\0\xC3\xA9\xC3\xA8";
    struct seed *seeds;
    size_t count;
    assert_ok(train_seeds(text, sizeof text, 3, 2, 10, &seeds, &count));
    assert_int_equal(count, 3); /* "b", "c" and e acute are single; abc 2 times 3, ab 3 times 2, bc 2 times 2 */
    assert_int_equal(seeds[0].score, 6);
    assert_int_equal(seeds[0].n, 2);
    assert_memory_equal(text + seeds[0].at, "ab", 2);
    assert_int_equal(seeds[1].score, 6);
    assert_memory_equal(text + seeds[1].at, "abc", 3);
    assert_int_equal(seeds[2].score, 4);
    assert_memory_equal(text + seeds[2].at, "bc", 2);
    mem_free(seeds);
    assert_ok(train_seeds(text, sizeof text, 3, 3, 10, &seeds, &count));
    assert_int_equal(count, 1);
    mem_free(seeds);
    assert_ok(train_seeds(text, sizeof text, 3, 2, 1, &seeds, &count));
    assert_int_equal(count, 1);
    mem_free(seeds);
}

/* Add what each piece is expected to occur in the rest of a word, of a way whose probability so far is p; returns the sum
 * of the probabilities of all ways. */
static double ways(const char *text, const struct train_piece *pieces, const double *values, int count, const char *rest,
                   double p, double *sums)
{
    double all = 0;
    if (*rest == '\0')
        return p;
    for (int i = 0; i < count; i++) {
        if (values[i] == PIECE_GONE || strncmp(rest, text + pieces[i].at, pieces[i].n) != 0)
            continue;
        double part = ways(text, pieces, values, count, rest + pieces[i].n, p * values[i], sums);
        sums[i] += part;
        all += part;
    }
    return all;
}

/* Words that begin as the one before against all ways one by one. */
static void test_ways_through_words(void **state)
{
    (void)state;
    static const char text[] = "a\0ab\0abc\0b\0bc\0c\0cb\0\xC3\xA9\0\xC3\xA9\xC3\xA8\0\xC3\xA8";
    static const char *const words[] = {"a", "ab", "abc", "abcb", "abcbc", "abcc", "cb\xC3\xA9\xC3\xA8", "cb\xC3\xA9\xC3\xA9", "a"};
    double values[] = {0.2, 0.1, 0.05, 0.15, PIECE_GONE, 0.1, 0.05, 0.1, 0.05, 0.02};
    struct train_piece pieces[10] = {{0}}, sorted[10];
    struct piece_index index = {0};
    struct lattice *l;
    const char *before = "";
    for (uint32_t i = 0, at = 0; i < 10; i++, at += (uint32_t)strlen(text + at) + 1)
        pieces[i] = (struct train_piece){.at = at, .n = (uint32_t)strlen(text + at)};
    memcpy(sorted, pieces, sizeof sorted); /* by bytes: C3 A8 goes before C3 A9 */
    sorted[7] = pieces[9];
    sorted[8] = pieces[7];
    sorted[9] = pieces[8];
    double swapped = values[9];
    values[9] = values[8];
    values[8] = values[7];
    values[7] = swapped;
    assert_ok(piece_index_build(&index, text, sorted, 10));
    assert_ok(lattice_create(&l));
    piece_index_values(&index, values);
    for (size_t w = 0; w < sizeof words / sizeof words[0]; w++) {
        double sums[10] = {0}, wanted[10] = {0};
        size_t n = strlen(words[w]), same = 0;
        while (words[w][same] != '\0' && words[w][same] == before[same])
            same++;
        before = words[w];
        assert_ok(lattice_read(l, &index, words[w], n, same, sums, -1));
        double log_p = lattice_expect(l, n, 3, sums), p = ways(text, sorted, values, 10, words[w], 1, wanted);
        if (!(fabs(log_p - log(p)) < 1e-12))
            fail_msg("\"%s\": log probability %.15g, wanted %.15g", words[w], log_p, log(p));
        for (int i = 0; i < 10; i++)
            if (!(fabs(sums[i] - 3 * wanted[i] / p) < 1e-12))
                fail_msg("\"%s\": piece %d is expected %.15g times, wanted %.15g", words[w], i, sums[i], 3 * wanted[i] / p);
    }
    for (int i = 0; i < 10; i++)
        values[i] = values[i] == PIECE_GONE ? PIECE_GONE : log(values[i]);
    piece_index_values(&index, values);
    size_t end = 4;
    assert_ok(lattice_read(l, &index, "abcb", 4, 0, NULL, -1));
    assert_true(fabs(lattice_best(l, 4) - log(0.05 * 0.15)) < 1e-12); /* abc b; ab cb is 0.1 * 0.05 */
    assert_int_equal(lattice_last(l, &end), 3);
    assert_int_equal(end, 3);
    assert_int_equal(lattice_last(l, &end), 2);
    assert_int_equal(end, 0);
    end = 4;
    assert_ok(lattice_read(l, &index, "abcb", 4, 0, NULL, 2)); /* without abc */
    assert_true(fabs(lattice_best(l, 4) - log(0.1 * 0.05)) < 1e-12);
    assert_int_equal(lattice_last(l, &end), 6);
    assert_int_equal(end, 2);
    lattice_free(l);
    piece_index_release(&index);
}

static void test_words_are_counted(void **state)
{
    (void)state;
    struct word_table table = {0};
    char word[16];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5000; i++) {
            int n = snprintf(word, sizeof word, "w%d", i % (1000 * (round + 1)));
            assert_ok(word_table_add(&table, word, (size_t)n, 1));
        }
        word_table_settle(&table); /* more words may come all the same */
    }
    assert_int_equal(table.count, 3000);
    assert_int_equal(table.seen, 15000);
    uint64_t sum = 0;
    for (size_t i = 0; i < table.count; i++)
        sum += table.words[i].count;
    assert_int_equal(sum, 15000);
    assert_int_equal(table.words[0].count, 5 + 3 + 2);
    word_table_release(&table);
}

static void test_strings_are_sorted(void **state)
{
    (void)state;
    struct str text = {0};
    uint32_t at[3000];
    uint64_t random = 1;
    for (int i = 0; i < 3000; i++) {
        char word[8];
        size_t n = 0;
        random = random * 6364136223846793005u + 1442695040888963407u;
        for (uint64_t bits = random >> 33; n < (random >> 60) % 8; bits >>= 2)
            word[n++] = (char)("ab\xC3\xA9"[bits & 3]);
        at[i] = (uint32_t)text.n;
        assert_ok(str_add(&text, word, n));
        assert_ok(str_add(&text, "", 1));
    }
    sort_strings(text.p, at, 3000, 0);
    uint64_t sum = at[0];
    for (int i = 1; i < 3000; i++) {
        assert_true(strcmp(text.p + at[i - 1], text.p + at[i]) <= 0);
        sum += at[i];
    }
    for (size_t i = 0, begin = 0; i < text.n; i++) {
        sum -= text.p[i] == '\0' ? begin : 0;
        begin = text.p[i] == '\0' ? i + 1 : begin;
    }
    assert_int_equal(sum, 0); /* each is still there */
    str_release(&text);
}

static void assert_same_folder(const char *a, const char *b)
{
    char **names;
    size_t count;
    assert_ok(folder_list(a, &names, &count));
    assert_true(count >= 3);
    for (size_t i = 0; i < count; i++) {
        char *x = slurp(a, names[i]), *y = slurp(b, names[i]);
        assert_string_equal(x, y);
        mem_free(x);
        mem_free(y);
    }
    folder_list_free(names, count);
}

static void test_threads_and_the_order_of_files_do_not_matter(void **state)
{
    (void)state;
    static const enum train_model models[] = {TRAIN_WORDPIECE, TRAIN_BPE, TRAIN_UNIGRAM};
    char *text = slurp_path(golden("text.tsv"));
    char *middle = strchr(text + strlen(text) / 2, '\n') + 1;
    struct text_opts turned[2] = {rows_of(support_file("second.tsv", middle, strlen(middle))),
                                  rows_of(support_file("first.tsv", text, (size_t)(middle - text)))};
    int threads = threads_count();
    for (int i = 0; i < 3; i++) {
        char one[32], three[32];
        struct tokenizer_train_opts opts = options(models[i], 500);
        struct tokenizer_train_report report;
        snprintf(one, sizeof one, "one-%d", i);
        snprintf(three, sizeof three, "three-%d", i);
        threads_set(1);
        train(&opts, golden("text.tsv"), folder(one));
        threads_set(3);
        assert_ok(tokenizer_train(&opts, turned, 2, folder(three), &report));
        assert_same_folder(folder(one), folder(three));
    }
    threads_set(threads);
    mem_free(text);
}

/* The least counts go, and the report says how many; the threads still do not matter. */
static void test_the_limit_on_words(void **state)
{
    (void)state;
    struct str text = {0};
    for (int i = 0; i < 4000; i++)
        assert_ok(str_addf(&text, "w%d\tz\n", i % 3000));
    for (int i = 0; i < 50; i++)
        assert_ok(str_addf(&text, "often%d often%d often%d\tz\n", i % 5, i % 5, i % 5));
    struct tokenizer_train_opts opts = options(TRAIN_BPE, 300);
    const char *path = support_file("many.tsv", text.p, text.n);
    int threads = threads_count();
    opts.words = TRAIN_WORDS_SPLIT;
    opts.max_words = 1000;
    threads_set(1);
    struct tokenizer_train_report report = train(&opts, path, folder("cut"));
    assert_int_equal(report.cuts, 1);
    assert_int_equal(report.cut_most, 2);
    assert_int_equal(report.distinct, 5);
    assert_int_equal(report.words, 4150);
    threads_set(3);
    train(&opts, path, folder("cut-3"));
    assert_same_folder(folder("cut"), folder("cut-3"));
    threads_set(threads);
    str_release(&text);
}

static void test_the_limit_on_the_alphabet(void **state)
{
    (void)state;
    const char *words[] = {"abxab", "ab", "zab", "abb"};
    const int counts[] = {3, 4, 1, 1};
    static const enum train_model models[] = {TRAIN_WORDPIECE, TRAIN_BPE, TRAIN_UNIGRAM};
    const char *path = repeat("letters.tsv", words, counts, 4);
    for (int i = 0; i < 3; i++) {
        struct tokenizer_train_opts opts = options(models[i], 20);
        opts.words = TRAIN_WORDS_SPLIT;
        opts.normalizer = "none";
        opts.limit_alphabet = 2;
        opts.min_frequency = 1;
        assert_int_equal(train(&opts, path, folder("alphabet")).alphabet, 2);
        struct tokenizer *t;
        assert_ok(tokenizer_open(folder("alphabet"), &t));
        assert_true(tokenizer_id(t, "a") >= 5);
        assert_true(tokenizer_id(t, "ab") >= 5);
        assert_int_equal(tokenizer_id(t, "x"), -1);
        assert_int_equal(tokenizer_id(t, "aab"), -1); /* no merge over what was cut */
        tokenizer_close(t);
    }
}

/* Text that spells a special token does not become a second one, nor the token itself. */
static void test_special_tokens_in_the_text(void **state)
{
    (void)state;
    const char *words[] = {"<s>", "<s>a", "ba"};
    const int counts[] = {50, 50, 3};
    static const enum train_model models[] = {TRAIN_WORDPIECE, TRAIN_BPE, TRAIN_UNIGRAM};
    const char *path = repeat("special.tsv", words, counts, 3);
    for (int i = 0; i < 3; i++) {
        struct tokenizer_train_opts opts = options(models[i], 40);
        opts.words = TRAIN_WORDS_SPLIT;
        opts.special_tokens = "<pad>, <unk>,<s>,</s>,<extra>";
        train(&opts, path, folder("special"));
        struct tokenizer *t;
        struct tokenizer_info info;
        assert_ok(tokenizer_open(folder("special"), &t));
        tokenizer_get_info(t, &info);
        assert_int_equal(info.pad, 0);
        assert_int_equal(info.unk, 1);
        assert_int_equal(info.cls, 2);
        assert_int_equal(info.sep, 3);
        assert_int_equal(info.mask, -1);
        assert_true(info.two_separators && info.one_type);
        assert_string_equal(tokenizer_piece(t, 4), "<extra>");
        assert_true(tokenizer_id(t, "b") >= 5);
        tokenizer_close(t);
        assert_ids(folder("special"), "<s><extra>", "2 4 ");
    }
}

/* Files of another model that stood there go; a word of 5,000 letters does no harm. */
static void test_replaced_files_and_long_words(void **state)
{
    (void)state;
    struct str text = {0};
    struct tokenizer_train_opts opts = options(TRAIN_WORDPIECE, 40);
    for (int i = 0; i < 5000; i++)
        assert_ok(str_add(&text, "a", 1));
    assert_ok(str_addf(&text, "\nab ab cab\n"));
    const char *path = support_file("long.tsv", text.p, text.n), *out = folder("replaced");
    assert_int_equal(train(&opts, path, out).long_words, 1);
    char *vocab;
    assert_ok(path_join(out, "vocab.txt", &vocab));
    assert_true(file_exists(vocab));
    opts.model = TRAIN_UNIGRAM;
    assert_int_equal(train(&opts, path, out).long_words, 1);
    assert_false(file_exists(vocab));
    mem_free(vocab);
    /* 4,000 letters are a word of Unigram's, trained on in parts */
    memset(text.p + 4000, '\n', 1000);
    assert_int_equal(train(&opts, support_file("longer.tsv", text.p, text.n), out).long_words, 0);
    assert_ids(out, "", "");
    str_release(&text);
}

static void test_refused(void **state)
{
    (void)state;
    struct tokenizer_train_opts good = options(TRAIN_BPE, 300), opts = good;
    struct tokenizer_train_report report;
    const char *path = support_file("little.tsv", "ab ab\n", 6), *out = folder("refused");
    struct text_opts rows = rows_of(path), blank = rows_of(support_file("blank.tsv", " \n\n  \n", 6));
#define REFUSED(sentence) assert_fails(tokenizer_train(&opts, &rows, 1, out, &report), STATUS_CONFIG, sentence)
    opts.vocab_size = 100;
    REFUSED("tokenizer.vocab_size is 100, but the special tokens and the pieces of one character are 261");
    opts.model = TRAIN_UNIGRAM;
    opts.vocab_size = 7;
    REFUSED("tokenizer.vocab_size is 7, but the special tokens and the pieces of one character are 8");
    opts.vocab_size = 0;
    REFUSED("tokenizer.vocab_size is 0, wanted 1 to");
    opts = good;
    opts.special_tokens = "[UNK],[PAD],[CLS]";
    REFUSED("without [SEP] or </s>");
    opts.special_tokens = "[UNK],[PAD],[CLS],,[SEP]";
    REFUSED("wanted names joined by commas");
    opts.special_tokens = SPECIALS ",[PAD]";
    REFUSED("has \"[PAD]\" twice");
    opts.special_tokens = SPECIALS ",a\nb";
    REFUSED("control character");
    opts.special_tokens = "[PAD],[CLS],[SEP]"; /* bytes need no unknown */
    assert_ok(tokenizer_train(&opts, &rows, 1, out, &report));
    opts.words = TRAIN_WORDS_SPLIT;
    REFUSED("without [UNK] or <unk>");
    opts = good;
    opts.normalizer = "nfc,upper";
    REFUSED("\"upper\" is not known");
    opts.normalizer = "nfc,strip_accents";
    REFUSED("only behind nfd or nfkd");
    opts.normalizer = "auto";
    opts.model = TRAIN_WORDPIECE;
    opts.words = TRAIN_WORDS_METASPACE;
    REFUSED("does not go with");
    opts.words = TRAIN_WORDS_BYTES;
    REFUSED("goes with tokenizer.model=bpe only");
    opts.words = TRAIN_WORDS_AUTO;
    assert_fails(tokenizer_train(&opts, &blank, 1, out, &report), STATUS_DATA, "no words in 2 rows of text");
    rows.path = "missing.tsv";
    assert_fails(tokenizer_train(&opts, &rows, 1, out, &report), STATUS_NOINPUT, "missing.tsv");
    rows.path = path;
    assert_fails(tokenizer_train(&opts, &rows, 1, path, &report), STATUS_IO, path);
#undef REFUSED
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe_of_the_course),
        cmocka_unit_test(test_bpe_merges_equal_tokenizers),
        cmocka_unit_test(test_wordpiece_equals_brute_force),
        cmocka_unit_test(test_unigram_is_as_likely_as_theirs),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_strings_are_sorted),
        cmocka_unit_test(test_ways_through_words),
        cmocka_unit_test(test_words_are_counted),
        cmocka_unit_test(test_threads_and_the_order_of_files_do_not_matter),
        cmocka_unit_test(test_the_limit_on_words),
        cmocka_unit_test(test_the_limit_on_the_alphabet),
        cmocka_unit_test(test_special_tokens_in_the_text),
        cmocka_unit_test(test_replaced_files_and_long_words),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
