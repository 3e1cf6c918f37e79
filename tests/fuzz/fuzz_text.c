/*
 * fuzz_text.c - the text reader on arbitrary bytes: first byte the format and the options, the rest the file.
 *
 * Beyond the sanitizers it holds three things: every field is UTF-8 without NUL, row numbers rise, and a file read byte
 * by byte gives the rows and the sentence that it gives in one piece - the scanners restart wherever the window ends.
 * With libFuzzer's main it fuzzes; with -DFUZZ_REPLAY it is a program that runs the files named on its command line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "data/text_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    uint64_t hash;
    enum status status;
    char sentence[1024];
};

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    (void)fprintf(stderr, "fuzz_text: %s\n", what);
    abort();
}

static uint64_t add_field(uint64_t hash, const struct text_field *field)
{
    if (field->p == NULL) {
        require(field->n == 0, "a missing field has bytes");
        return hash_combine(hash, 1);
    }
    require(utf8_valid_prefix(field->p, field->n) == field->n, "a field is not UTF-8");
    require(field->n == 0 || memchr(field->p, 0, field->n) == NULL, "a field holds NUL");
    return hash_combine(hash, hash_bytes(field->p, field->n));
}

static struct outcome read_all(const struct text_opts *opts, const uint8_t *data, size_t size, size_t piece)
{
    struct outcome o = {0};
    struct text_reader *reader;
    int64_t last = -1, seen, selected, count = 0;
    o.status = text_open_memory(opts, data, size, piece, &reader);
    if (o.status == STATUS_OK) {
        struct text_row row;
        bool more = true;
        while ((o.status = text_next(reader, &row, &more)) == STATUS_OK && more) {
            const struct text_field *fields[] = {&row.text, &row.pair,   &row.label, &row.group,
                                                 &row.id,   &row.weight, &row.time,  &row.fold};
            for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
                o.hash = add_field(o.hash, fields[i]);
            require(row.row > last, "row numbers do not rise");
            last = row.row;
            o.hash = hash_combine(hash_combine(o.hash, (uint64_t)row.row), (uint64_t)row.byte_offset);
            count++;
        }
        text_counts(reader, &seen, &selected);
        require(selected == count && seen >= selected, "the counts are wrong");
    }
    if (o.status != STATUS_OK)
        (void)snprintf(o.sentence, sizeof o.sentence, "%s", status_message());
    text_close(reader);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum text_format formats[] = {TEXT_TSV, TEXT_CSV, TEXT_JSONL, TEXT_ARFF};
    if (size == 0)
        return 0;
    int choice = data[0];
    bool header = (choice & 4) == 0, tight = (choice & 64) != 0;
    struct text_opts opts = {.path = "fuzz", .format = formats[choice & 3], .header = header};
    bool packed = size > 3 && (memcmp(data + 1, "\x1F\x8B", 2) == 0 || memcmp(data + 1, "\x28\xB5", 2) == 0);
    bool named = header || (choice & 3) > 1;
    opts.text = named ? "text" : "1";
    if (choice & 8)
        opts.label = named ? "label" : "2";
    if (choice & 16) {
        opts.max_words = 3;
        opts.rows = "0-2,4-";
    }
    if (choice & 32)
        opts.where = named ? "text!=x" : "1!=x";
    if (tight)
        opts.max_row_bytes = 40;
    struct outcome whole = read_all(&opts, data + 1, size - 1, 0);
    struct outcome pieces = read_all(&opts, data + 1, size - 1, 1);
    if (packed && whole.status != STATUS_OK && pieces.status != STATUS_OK)
        return 0; /* how much comes out before the damage depends on the reads */
    require(whole.status == pieces.status, "read byte by byte the status differs");
    require(whole.hash == pieces.hash, "read byte by byte the rows differ");
    /* Where the row's length is the limit, which sentence comes first depends on how far the window reached. */
    require(tight || strcmp(whole.sentence, pieces.sentence) == 0, "read byte by byte the sentence differs");
    return 0;
}

#ifdef FUZZ_REPLAY
#include "base/file.h"
#include "base/mem.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *bytes;
        size_t n;
        if (file_read(argv[i], (size_t)1 << 26, &bytes, &n) != STATUS_OK) {
            (void)fprintf(stderr, "%s\n", status_message());
            return 1;
        }
        (void)LLVMFuzzerTestOneInput((const uint8_t *)bytes, n);
        mem_free(bytes);
    }
    return 0;
}
#endif
