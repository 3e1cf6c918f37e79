/* test_text.h - what the tests of the text reader share: all rows of a file as one string. */
#ifndef COHORT_TESTS_DATA_TEST_TEXT_H
#define COHORT_TESTS_DATA_TEST_TEXT_H

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "data/text_internal.h"
#include "tests/support/support.h"

/* "row[text][pair]...\n" for the columns asked for; a missing one is [-]. */
static inline enum status dump_rows(const struct text_opts *opts, struct text_reader *reader, struct str *out)
{
    const char *const asked[] = {opts->text != NULL ? opts->text : opts->template, opts->pair, opts->label, opts->group,
                                 opts->id,   opts->weight, opts->time,  opts->fold};
    struct text_row row;
    bool more = true;
    str_clear(out);
    assert_ok(str_add(out, "", 0));
    for (;;) {
        TRY(text_next(reader, &row, &more));
        if (!more)
            return STATUS_OK;
        const struct text_field fields[] = {row.text, row.pair, row.label, row.group, row.id, row.weight, row.time, row.fold};
        assert_ok(str_addf(out, "%d", (int)row.row));
        for (int i = 0; i < TEXT_ROLES; i++) {
            if (asked[i] == NULL)
                assert_null(fields[i].p);
            else if (fields[i].p == NULL)
                assert_ok(str_addf(out, "[-]"));
            else
                assert_ok(str_addf(out, "[%.*s]", (int)fields[i].n, fields[i].p));
        }
        assert_ok(str_addf(out, "\n"));
    }
}

/* The rows of bytes, read in one piece and byte by byte, which must agree; the status and sentence of the last. */
static inline enum status dump_bytes(const struct text_opts *opts, const void *bytes, size_t n, struct str *out)
{
    struct str first = {0};
    enum status statuses[2];
    char sentence[1024] = "";
    for (int pass = 0; pass < 2; pass++) {
        struct text_reader *reader;
        str_clear(out);
        statuses[pass] = text_open_memory(opts, bytes, n, pass == 0 ? 0 : 1, &reader);
        if (statuses[pass] == STATUS_OK)
            statuses[pass] = dump_rows(opts, reader, out);
        else
            assert_null(reader);
        text_close(reader);
        if (pass == 0) {
            (void)snprintf(sentence, sizeof sentence, "%s", status_message());
            assert_ok(str_add(&first, out->n == 0 ? "" : out->p, out->n));
        }
    }
    assert_int_equal(statuses[0], statuses[1]);
    assert_ok(str_add(out, "", 0));
    assert_string_equal(first.p, out->p);
    if (statuses[0] != STATUS_OK)
        assert_string_equal(sentence, status_message());
    str_release(&first);
    return statuses[1];
}

static inline void expect_rows(const struct text_opts *opts, const char *file, const char *rows)
{
    struct str out = {0};
    assert_ok(dump_bytes(opts, file, strlen(file), &out));
    assert_string_equal(out.p, rows);
    str_release(&out);
}

/* The file is refused with this status, the sentence holding text. */
static inline void expect_failure(const struct text_opts *opts, const char *file, enum status status, const char *text)
{
    struct str out = {0};
    assert_fails(dump_bytes(opts, file, strlen(file), &out), status, text);
    str_release(&out);
}

/* A file on disk gives these rows. */
static inline void expect_file(const struct text_opts *opts, const char *rows)
{
    struct text_reader *reader;
    struct str out = {0};
    assert_ok(text_open(opts, &reader));
    assert_ok(dump_rows(opts, reader, &out));
    assert_string_equal(out.p, rows);
    text_close(reader);
    str_release(&out);
}

#endif
