/*
 * tokenizer_decode.c - ids to text, as decoders of tokenizers do it; see tokenizer_parts.h.
 *
 * WordPiece's decoder works piece by piece into the text. The others are steps over a list of
 * pieces, which are joined at the end.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"

/* ---- WordPiece ---- */

/* Replace from by to (not longer) in s[*n]. */
static void replace(char *s, size_t *n, const char *from, const char *to)
{
    size_t from_n = strlen(from), to_n = strlen(to), out = 0;
    if (memmem(s, *n, from, from_n) == NULL)
        return;
    for (size_t i = 0; i < *n;) {
        if (*n - i >= from_n && memcmp(s + i, from, from_n) == 0) {
            memcpy(s + out, to, to_n);
            out += to_n;
            i += from_n;
        } else {
            s[out++] = s[i++];
        }
    }
    *n = out;
}

/* The decoder's cleanup: each token by itself, its space before included. */
static void clean_up(struct str *s, size_t begin)
{
    static const char *const pairs[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    size_t n = s->n - begin;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        replace(s->p + begin, &n, pairs[i][0], pairs[i][1]);
    s->n = begin + n;
    s->p[s->n] = '\0';
}

/* Append piece number i. */
static enum status add_wordpiece(const struct tokenizer *t, const char *piece, bool first,
                                 struct str *out)
{
    const struct decode_step *d = t->decoder_count == 0 ? NULL : &t->decoder[0];
    size_t begin = out->n;
    if (!first && d != NULL && strncmp(piece, d->from, d->from_n) == 0)
        piece += d->from_n;
    else if (!first)
        TRY(str_add(out, " ", 1));
    TRY(str_add(out, piece, strlen(piece)));
    if (d != NULL && d->cleanup)
        clean_up(out, begin);
    return STATUS_OK;
}

/* ---- Lists of pieces ---- */

/* Pieces back to back. */
struct pieces {
    struct str text;
    size_t *end; /* owned; (count) where each ends in text */
    size_t count, capacity;
};

static void pieces_release(struct pieces *p)
{
    str_release(&p->text);
    mem_free(p->end);
}

static enum status piece_end(struct pieces *p)
{
    TRY(mem_grow(&p->end, &p->capacity, p->count + 1, sizeof *p->end, "pieces"));
    p->end[p->count++] = p->text.n;
    return STATUS_OK;
}

/* The byte of "<0x0A>", or -1. */
static int fallback_byte(const char *s, size_t n)
{
    int value = 0;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Append bytes, U+FFFD for what is not UTF-8: one for each wrong sequence, as Rust and Python do.
 */
static enum status add_lossy(struct str *to, const char *s, size_t n)
{
    while (n > 0) {
        size_t good = utf8_valid_prefix(s, n), bad;
        TRY(str_add(to, s, good));
        s += good;
        n -= good;
        if (n == 0)
            break;
        unsigned char lead = (unsigned char)s[0];
        size_t want = lead >= 0xF0 && lead < 0xF5   ? 4
                      : lead >= 0xE0 && lead < 0xF0 ? 3
                      : lead >= 0xC2 && lead < 0xE0 ? 2
                                                    : 1;
        for (bad = 1; bad < want && bad < n && ((unsigned char)s[bad] & 0xC0) == 0x80; bad++) {
            unsigned char next = (unsigned char)s[bad];
            if (bad == 1 && ((lead == 0xE0 && next < 0xA0) || (lead == 0xED && next > 0x9F) ||
                             (lead == 0xF0 && next < 0x90) || (lead == 0xF4 && next > 0x8F)))
                break;
        }
        TRY(str_add(to, "\xEF\xBF\xBD", 3));
        s += bad;
        n -= bad;
    }
    return STATUS_OK;
}

/* All pieces as the bytes that their letters stand for; a piece with another character is itself.
 */
static enum status decode_bytes(const struct pieces *from, struct pieces *to)
{
    struct str bytes = {0};
    enum status st = STATUS_OK;
    size_t begin = 0;
    for (size_t i = 0; i < from->count; begin = from->end[i++]) {
        size_t before = bytes.n, end = from->end[i];
        bool letters = true;
        for (size_t at = begin; letters && at < end;) {
            uint32_t c;
            at += (size_t)utf8_decode(from->text.p + at, end - at, &c);
            int byte = letter_byte(c);
            char one = (char)byte;
            letters = byte >= 0;
            if (letters)
                TRY_GOTO(out, str_add(&bytes, &one, 1));
        }
        if (!letters) {
            bytes.n = before;
            TRY_GOTO(out, str_add(&bytes, from->text.p + begin, end - begin));
        }
    }
    TRY_GOTO(out, add_lossy(&to->text, bytes.p, bytes.n));
    st = piece_end(to);
out:
    str_release(&bytes);
    return st;
}

/* Runs of byte pieces become text, or one U+FFFD for each byte if they are not UTF-8. */
static enum status decode_fallback(const struct pieces *from, struct pieces *to)
{
    size_t begin = 0, i = 0;
    while (i < from->count) {
        size_t start = to->text.n, run = 0;
        int byte;
        for (; i < from->count &&
               (byte = fallback_byte(from->text.p + begin, from->end[i] - begin)) >= 0;
             run++) {
            char one = (char)byte;
            TRY(str_add(&to->text, &one, 1));
            begin = from->end[i++];
        }
        if (run > 0) {
            if (utf8_valid_prefix(to->text.p + start, run) < run) {
                to->text.n = start;
                for (size_t k = 0; k < run; k++) {
                    TRY(str_add(&to->text, "\xEF\xBF\xBD", 3));
                    if (k + 1 < run)
                        TRY(piece_end(to));
                }
            }
            TRY(piece_end(to));
            continue;
        }
        TRY(str_add(&to->text, from->text.p + begin, from->end[i] - begin));
        TRY(piece_end(to));
        begin = from->end[i++];
    }
    return STATUS_OK;
}

static enum status decode_piece(const struct decode_step *d, const char *s, size_t n, bool first,
                                size_t limit, struct str *to)
{
    if (d->kind == DECODE_STRIP) {
        for (int i = 0; i < d->left && n >= d->from_n && memcmp(s, d->from, d->from_n) == 0; i++) {
            s += d->from_n;
            n -= d->from_n;
        }
        for (int i = 0;
             i < d->right && n >= d->from_n && memcmp(s + n - d->from_n, d->from, d->from_n) == 0;
             i++)
            n -= d->from_n;
        return str_add(to, s, n);
    }
    for (const char *hit; n > 0 && (hit = memmem(s, n, d->from, d->from_n)) != NULL;) {
        size_t before = (size_t)(hit - s);
        TRY(str_add(to, s, before));
        if (d->kind == DECODE_REPLACE)
            TRY(text_add(to, limit, d->to, d->to_n));
        else if (!first || !d->drop)
            TRY(str_add(to, " ", 1));
        s = hit + d->from_n;
        n -= before + d->from_n;
    }
    return str_add(to, s, n);
}

static enum status decode_step(const struct decode_step *d, size_t limit,
                               const struct pieces *from, struct pieces *to)
{
    size_t begin = 0;
    if (d->kind == DECODE_BYTES)
        return decode_bytes(from, to);
    if (d->kind == DECODE_FALLBACK)
        return decode_fallback(from, to);
    if (d->kind == DECODE_FUSE) {
        TRY(str_add(&to->text, from->text.p, from->text.n));
        return piece_end(to);
    }
    for (size_t i = 0; i < from->count; begin = from->end[i++]) {
        TRY(decode_piece(d, from->text.p + begin, from->end[i] - begin, i == 0, limit,
                         &to->text));
        TRY(piece_end(to));
    }
    return STATUS_OK;
}

enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t count,
                             struct str *out)
{
    bool listed = t->decoder_count > 0 && t->decoder[0].kind != DECODE_WORDPIECE, first = true;
    struct pieces pieces[2] = {{{0}, NULL, 0, 0}, {{0}, NULL, 0, 0}}, swap;
    enum status st = STATUS_OK;
    TRY(str_add(out, "", 0)); /* so that there is a string even for no text at all */
    for (int64_t i = 0; i < count; i++) {
        const char *piece = tokenizer_piece(t, ids[i]);
        if (ids[i] < 0 || ids[i] >= t->info.vocab_size) {
            st = status_fail(STATUS_ARG, "token %lld has id %d, wanted 0 to %d", (long long)i,
                             ids[i], t->info.vocab_size - 1);
            goto out;
        }
        if (piece == NULL)
            continue; /* a hole in the ids: left out, as there */
        if (listed) {
            TRY_GOTO(out, str_add(&pieces[0].text, piece, strlen(piece)));
            TRY_GOTO(out, piece_end(&pieces[0]));
        } else {
            TRY_GOTO(out, add_wordpiece(t, piece, first, out));
        }
        first = false;
    }
    size_t limit = text_limit(pieces[0].text.n);
    for (int i = 0; listed && i < t->decoder_count; i++) {
        pieces[1].text.n = pieces[1].count = 0;
        TRY_GOTO(out, decode_step(&t->decoder[i], limit, &pieces[0], &pieces[1]));
        swap = pieces[0];
        pieces[0] = pieces[1];
        pieces[1] = swap;
    }
    if (listed)
        st = str_add(out, pieces[0].text.p, pieces[0].text.n);
out:
    pieces_release(&pieces[0]);
    pieces_release(&pieces[1]);
    return st;
}
