/*
 * tokenizer_steps.c - normalize steps of every kind; see tokenizer_parts.h. The passes of
 * BertNormalizer and its like are in tokenizer_normalize.c.
 *
 * A step that has nothing to do hands the text on as it is, so that plain text is not copied once a
 * step.
 */
#include <string.h>

#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode.h"

static bool is_ascii(const char *s, size_t n)
{
    size_t i = 0;
    for (uint64_t eight; i + sizeof eight <= n; i += sizeof eight) {
        memcpy(&eight, s + i, sizeof eight);
        if (eight & 0x8080808080808080u)
            return false;
    }
    for (; i < n; i++)
        if ((unsigned char)s[i] & 0x80)
            return false;
    return true;
}

static bool is_space(const char *s, size_t n, size_t *length)
{
    uint32_t c;
    *length = (size_t)utf8_decode(s, n, &c);
    return (unicode_class(c)->flags & UNICODE_SPACE) != 0;
}

/* ---- NFC, NFKC, NFKD ---- */

/* Sort a run of marks by their order, equal ones as they are; sorted has room for it. */
static void order_run(uint32_t *c, size_t n, uint32_t *sorted)
{
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[unicode_class(c[i])->order + 1]++;
    for (int i = 0; i < 256; i++)
        at[i + 1] += at[i];
    for (size_t i = 0; i < n; i++)
        sorted[at[unicode_class(c[i])->order]++] = c[i];
    memcpy(c, sorted, n * sizeof *c);
}

static enum status order_marks(uint32_t *c, size_t n)
{
    uint32_t few[32], *sorted = few;
    for (size_t begin = 0, end; begin < n; begin = end + 1) {
        bool unsorted = false;
        for (end = begin; end < n && unicode_class(c[end])->order != 0; end++)
            unsorted = unsorted || (end > begin && unicode_class(c[end])->order <
                                                       unicode_class(c[end - 1])->order);
        size_t run = end - begin;
        if (!unsorted)
            continue;
        if (run > sizeof few / sizeof *few)
            TRY(mem_alloc_raw(run, sizeof *sorted, "combining marks in a row", &sorted));
        order_run(c + begin, run, sorted);
        if (sorted != few)
            mem_free(sorted);
        sorted = few;
    }
    return STATUS_OK;
}

/* Compose in place; returns how many code points are left. */
static size_t compose(uint32_t *c, size_t n)
{
    size_t out = 0, starter = SIZE_MAX;
    int last = -1; /* order of what stands between the starter and here; -1: nothing does */
    for (size_t i = 0; i < n; i++) {
        int order = unicode_class(c[i])->order;
        if (starter != SIZE_MAX && last < order) {
            uint32_t composed = unicode_compose(c[starter], c[i]);
            if (composed != 0) {
                c[starter] = composed;
                continue;
            }
        }
        if (order == 0) {
            starter = out;
            last = -1;
        } else {
            last = order;
        }
        c[out++] = c[i];
    }
    return out;
}

static enum status apply_form(const struct normalize_step *step, const char *s, size_t n,
                              struct str *to)
{
    uint32_t *points = NULL, c;
    size_t capacity = 0, count = 0;
    enum status st = STATUS_OK;
    for (size_t i = 0; i < n;) {
        TRY_GOTO(out, mem_grow(&points, &capacity, count + UNICODE_LONGEST, sizeof *points,
                               "a text being normalized"));
        i += (size_t)utf8_decode(s + i, n - i, &c);
        if (c < 0x80)
            points[count++] = c;
        else
            count += (size_t)(step->form.compat ? unicode_decompose_compat(c, points + count)
                                                : unicode_decompose(c, points + count));
    }
    TRY_GOTO(out, order_marks(points, count));
    if (step->form.compose)
        count = compose(points, count);
    for (size_t i = 0; i < count; i++) {
        char bytes[4];
        TRY_GOTO(out, str_add(to, bytes, (size_t)utf8_encode(points[i], bytes)));
    }
out:
    mem_free(points);
    return st;
}

/* ---- Replacing ---- */

static enum status apply_replace(const struct normalize_step *step, size_t limit,
                                 const char **text, size_t *n, struct str *to)
{
    const char *s = *text, *end = s + *n, *hit;
    hit = memmem(s, *n, step->from, step->from_n);
    if (hit == NULL)
        return STATUS_OK;
    for (; hit != NULL; hit = memmem(s, (size_t)(end - s), step->from, step->from_n)) {
        TRY(text_add(to, limit, s, (size_t)(hit - s)));
        TRY(text_add(to, limit, step->to, step->to_n));
        s = hit + step->from_n;
    }
    TRY(text_add(to, limit, s, (size_t)(end - s)));
    *text = to->p;
    *n = to->n;
    return STATUS_OK;
}

static enum status apply_spaces(const struct normalize_step *step, size_t limit, const char **text,
                                size_t *n, struct str *to)
{
    const char *s = *text;
    size_t done = 0, length;
    for (size_t at = 0; at < *n;) {
        size_t end = at;
        int count = 0;
        bool matches;
        if (step->spaces.any) {
            for (; end < *n && is_space(s + end, *n - end, &length); count++)
                end += length;
        } else {
            for (; end < *n && s[end] == ' '; count++)
                end++;
        }
        matches = count >= step->spaces.least ||
                  (count == 1 && step->spaces.breaks &&
                   (s[at] == '\n' || s[at] == '\r' || s[at] == '\t'));
        if (count == 0) {
            uint32_t c;
            at += (unsigned char)s[at] < 0x80 ? 1 : (size_t)utf8_decode(s + at, *n - at, &c);
            continue;
        }
        if (matches) {
            TRY(text_add(to, limit, s + done, at - done));
            TRY(text_add(to, limit, step->to, step->to_n));
            done = end;
        }
        at = end;
    }
    if (done == 0)
        return STATUS_OK; /* no match: one would have ended behind the first byte */
    TRY(text_add(to, limit, s + done, *n - done));
    *text = to->p;
    *n = to->n;
    return STATUS_OK;
}

/* ---- Smaller ones ---- */

static void apply_strip(const struct normalize_step *step, const char **text, size_t *n)
{
    size_t length;
    while (step->strip.left && *n > 0 && is_space(*text, *n, &length)) {
        *text += length;
        *n -= length;
    }
    while (step->strip.right && *n > 0) {
        size_t begin = *n - 1;
        while (begin > 0 && ((unsigned char)(*text)[begin] & 0xC0) == 0x80)
            begin--;
        if (!is_space(*text + begin, *n - begin, &length))
            break;
        *n = begin;
    }
}

static enum status apply_nmt(const char *s, size_t n, struct str *to)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t length = (size_t)utf8_decode(s + i, n - i, &c);
        bool gone = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                    c == 0x8F || c == 0x9F;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
        if (!gone)
            TRY(space ? str_add(to, " ", 1) : str_add(to, s + i, length));
        i += length;
    }
    return STATUS_OK;
}

/* ---- SentencePiece ---- */

#define MARK "\xE2\x96\x81"

/* What stands at the beginning of s, and what it becomes: returns its length. */
static size_t spm_prefix(const struct tokenizer *t, const struct normalize_step *step,
                         const char *s, size_t n, const char **to, size_t *to_n)
{
    size_t longest = 0;
    uint32_t node = t->spm.user.nodes == 0 ? 0 : TRIE_ROOT, c;
    for (size_t i = 0; i < n && node != 0; i++) {
        node = trie_next(&t->spm.user, node, (unsigned char)s[i]);
        if (node != 0 && trie_value(&t->spm.user, node) >= 0)
            longest = i + 1;
    }
    *to = s;
    *to_n = longest;
    if (longest > 0)
        return longest;
    longest = charsmap_find(&step->charsmap, s, n, true, to, to_n);
    if (longest > 0)
        return longest;
    *to = s;
    *to_n = (size_t)utf8_decode(s, n, &c);
    return *to_n;
}

static enum status spm_add(const struct normalize_step *step, size_t limit, struct str *to,
                           const char *s, size_t n)
{
    if (!step->spm.escape)
        return text_add(to, limit, s, n);
    for (const char *space; (space = memchr(s, ' ', n)) != NULL;) {
        size_t before = (size_t)(space - s);
        TRY(text_add(to, limit, s, before));
        TRY(text_add(to, limit, MARK, 3));
        s += before + 1;
        n -= before + 1;
    }
    return text_add(to, limit, s, n);
}

static enum status apply_spm(const struct tokenizer *t, const struct normalize_step *step,
                             size_t limit, const char *s, size_t n, struct str *to)
{
    const char *piece, *space = step->spm.escape ? MARK : " ";
    size_t piece_n, space_n = strlen(space), length;
    bool after_space = step->spm.remove_extra;
    while (step->spm.remove_extra && n > 0) {
        length = spm_prefix(t, step, s, n, &piece, &piece_n);
        if (piece_n != 1 || piece[0] != ' ')
            break;
        s += length;
        n -= length;
    }
    if (n == 0)
        return STATUS_OK;
    if (step->spm.dummy_prefix && !step->spm.suffix)
        TRY(text_add(to, limit, space, space_n));
    for (; n > 0; s += length, n -= length) {
        length = spm_prefix(t, step, s, n, &piece, &piece_n);
        while (after_space && piece_n > 0 && piece[0] == ' ') {
            piece++;
            piece_n--;
        }
        if (piece_n > 0) {
            TRY(spm_add(step, limit, to, piece, piece_n));
            after_space = step->spm.remove_extra && piece[piece_n - 1] == ' ';
        }
        if (!step->spm.remove_extra)
            after_space = false;
    }
    while (step->spm.remove_extra && to->n >= space_n &&
           memcmp(to->p + to->n - space_n, space, space_n) == 0)
        to->n -= space_n;
    if (step->spm.dummy_prefix && step->spm.suffix)
        TRY(text_add(to, limit, space, space_n));
    return STATUS_OK;
}

/* ---- Any ---- */

static enum status apply_pass(const struct normalize_step *step, const char *s, size_t n,
                              struct str *to)
{
    size_t need;
    if (!size_mul(n, TOKENIZER_EXPANSION, &need))
        return status_fail(STATUS_NOMEM, "a text of %zu bytes is too long", n);
    TRY(mem_grow(&to->p, &to->capacity, need + 1, 1, "a text being normalized"));
    return normalize_run(step, s, n, to->p, &to->n);
}

enum status normalize_apply(const struct tokenizer *t, const struct normalize_step *step,
                            size_t limit, const char **text, size_t *n, struct str *to)
{
    to->n = 0;
    switch (step->kind) {
    case NORMALIZE_REPLACE:
        return apply_replace(step, limit, text, n, to);
    case NORMALIZE_SPACES:
        return apply_spaces(step, limit, text, n, to);
    case NORMALIZE_STRIP:
        apply_strip(step, text, n);
        return STATUS_OK;
    case NORMALIZE_FORM:
        if (is_ascii(*text, *n))
            return STATUS_OK;
        TRY(apply_form(step, *text, *n, to));
        break;
    case NORMALIZE_CHARSMAP:
        TRY(charsmap_apply(&step->charsmap, *text, *n, limit, to));
        break;
    case NORMALIZE_PREPEND:
        if (*n == 0)
            return STATUS_OK;
        TRY(text_add(to, limit, step->to, step->to_n));
        TRY(text_add(to, limit, *text, *n));
        break;
    case NORMALIZE_NMT:
        TRY(apply_nmt(*text, *n, to));
        break;
    case NORMALIZE_SPM:
        TRY(apply_spm(t, step, limit, *text, *n, to));
        break;
    case NORMALIZE_PASS:
        TRY(apply_pass(step, *text, *n, to));
        break;
    }
    *text = to->n == 0 ? "" : to->p;
    *n = to->n;
    return STATUS_OK;
}

void normalize_step_release(struct normalize_step *step)
{
    charsmap_release(&step->charsmap);
    mem_free(step->from);
    mem_free(step->to);
}
