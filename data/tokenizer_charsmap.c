/* tokenizer_charsmap.c - see tokenizer_charsmap.h. */
#include "data/tokenizer_charsmap.h"

#include <string.h>

#include "base/mem.h"
#include "data/unicode.h"

static uint32_t read_u32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* The double array of a broken file can lead in a circle: no key of a real one is longer. */
#define LONGEST_KEY 1024

/* A unit of the double array, as darts-clone packs it. */
static inline uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

static inline bool unit_has_leaf(uint32_t unit)
{
    return (unit >> 8 & 1) != 0;
}

size_t charsmap_find(const struct charsmap *map, const char *s, size_t n, bool longest,
                     const char **to, size_t *to_n)
{
    size_t found = 0;
    if (map->count == 0)
        return 0;
    uint32_t at = unit_offset(map->units[0]);
    for (size_t i = 0; i < n && i < LONGEST_KEY && s[i] != '\0'; i++) {
        at ^= (unsigned char)s[i];
        if (at >= map->count)
            break;
        uint32_t unit = map->units[at];
        if ((unit & (1u << 31 | 0xFF)) != (unsigned char)s[i])
            break;
        at ^= unit_offset(unit);
        if (!unit_has_leaf(unit) || at >= map->count)
            continue;
        uint32_t text = map->units[at] & ~(1u << 31);
        /* never inside a character, neither of the texts nor of s: both stay valid UTF-8 */
        if (text > map->n || ((unsigned char)map->texts[text] & 0xC0) == 0x80 ||
            (longest && i + 1 < n && ((unsigned char)s[i + 1] & 0xC0) == 0x80))
            continue;
        found = i + 1;
        *to = map->texts + text;
        if (!longest)
            break;
    }
    if (found > 0)
        *to_n = strlen(*to);
    return found;
}

enum status charsmap_read(struct charsmap *map, const char *bytes, size_t n, const char *where)
{
    *map = (struct charsmap){0};
    if (n == 0)
        return STATUS_OK;
    if (n < 4 || read_u32(bytes) % 4 != 0 || read_u32(bytes) == 0 || read_u32(bytes) > n - 4)
        return status_fail(STATUS_FORMAT,
                           "%s: the precompiled charsmap has %zu bytes, which do not hold the "
                           "double array that it says it has",
                           where, n);
    size_t size = read_u32(bytes), text_n = n - 4 - size;
    const char *texts = bytes + 4 + size;
    if (utf8_valid_prefix(texts, text_n) < text_n)
        return status_fail(STATUS_FORMAT, "%s: the texts of the precompiled charsmap are not UTF-8",
                           where);
    TRY(mem_strndup(texts, text_n, &map->texts));
    TRY(mem_alloc_raw(size / 4, sizeof *map->units, "a precompiled charsmap", &map->units));
    map->n = text_n;
    map->count = size / 4;
    for (size_t i = 0; i < map->count; i++)
        map->units[i] = read_u32(bytes + 4 + 4 * i);
    for (int c = 1; c < 128; c++) {
        char one = (char)c;
        const char *to;
        size_t to_n;
        if (charsmap_find(map, &one, 1, false, &to, &to_n) > 0)
            map->ascii[c] = to;
    }
    return STATUS_OK;
}

enum status charsmap_read_base64(struct charsmap *map, const char *text, size_t n,
                                 const char *where)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    signed char value[256];
    char *bytes;
    size_t out = 0;
    uint32_t held = 0;
    memset(value, -1, sizeof value);
    for (int i = 0; i < 64; i++)
        value[(unsigned char)letters[i]] = (signed char)i;
    *map = (struct charsmap){0};
    if (n % 4 != 0)
        return status_fail(STATUS_FORMAT, "%s: \"precompiled_charsmap\" is not base64", where);
    while (n > 0 && text[n - 1] == '=')
        n--;
    TRY(mem_alloc_raw(n / 4 * 3 + 3, 1, "a precompiled charsmap", &bytes));
    for (size_t i = 0; i < n; i++) {
        int six = value[(unsigned char)text[i]];
        if (six < 0) {
            mem_free(bytes);
            return status_fail(STATUS_FORMAT, "%s: \"precompiled_charsmap\" is not base64", where);
        }
        held = held << 6 | (uint32_t)six;
        if (i % 4 != 0)
            bytes[out++] = (char)(held >> (6 - 2 * (i % 4)));
    }
    enum status st = charsmap_read(map, bytes, out, where);
    mem_free(bytes);
    return st;
}

void charsmap_release(struct charsmap *map)
{
    mem_free(map->units);
    mem_free(map->texts);
    *map = (struct charsmap){0};
}

/*
 * A cluster of less than six bytes becomes what its shortest known beginning becomes, and what
 * follows that in the cluster is lost; the others go character by character. Models were trained
 * with texts mapped so.
 */
enum status charsmap_apply(const struct charsmap *map, const char *s, size_t n,
                           size_t limit, struct str *to)
{
    const char *text;
    size_t text_n, done = 0;
    for (size_t at = 0, length; at < n; at += length) {
        unsigned char byte = (unsigned char)s[at];
        bool alone = byte < 0x80 && byte != '\r' &&
                     (at + 1 == n || ((unsigned char)s[at + 1] & 0x80) == 0);
        length = 1;
        if (alone && map->ascii[byte] == NULL)
            continue; /* copied later, with its neighbours */
        TRY(text_add(to, limit, s + done, at - done));
        if (alone) {
            TRY(text_add(to, limit, map->ascii[byte], strlen(map->ascii[byte])));
            done = at + 1;
            continue;
        }
        length = unicode_cluster(s + at, n - at);
        done = at + length;
        if (length < 6 && charsmap_find(map, s + at, length, false, &text, &text_n) > 0) {
            TRY(text_add(to, limit, text, text_n));
            continue;
        }
        for (size_t i = at; i < at + length;) {
            uint32_t c;
            size_t one = (size_t)utf8_decode(s + i, at + length - i, &c);
            if (charsmap_find(map, s + i, one, false, &text, &text_n) > 0)
                TRY(text_add(to, limit, text, text_n));
            else
                TRY(text_add(to, limit, s + i, one));
            i += one;
        }
    }
    return text_add(to, limit, s + done, n - done);
}

size_t text_limit(size_t n)
{
    return n < SIZE_MAX / 200 ? 100 * n + (1 << 20) : SIZE_MAX;
}

enum status text_add(struct str *to, size_t limit, const char *s, size_t n)
{
    if (n > limit || to->n > limit - n)
        return status_fail(STATUS_NOMEM, "what the tokenizer makes of a text grows beyond %zu bytes",
                           limit);
    return str_add(to, s, n);
}
